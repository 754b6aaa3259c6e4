"""Each snippet of the web as it is found, and repaired: the fault happens, and with the repair it does not."""

import re
from itertools import pairwise

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from pybtex.database import parse_file
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from torchvision import transforms as T

from course_lib import augment, backbones, losses, priors, schedules, snippets, ssd, viz, voc
from course_lib.matching import Matches

SUMS = {"rtol": 1e-5, "atol": 1e-6}  # float32, sums of a few dozen terms


def optimizer(rate=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)


# ---- the table of the page -------------------------------------------------------------------------------------------


def test_every_snippet_has_its_section_and_every_section_its_snippet(root):
    page = (root / "book" / "recipes.md").read_text()
    sections = re.findall(r"^\((web-\w+)\)=\n#+ (.*)$", page, re.MULTILINE)
    assert sections == [(name, one.title) for name, one in snippets.SNIPPETS.items()]


def test_every_snippet_names_its_page(root):
    known = parse_file(root / "book" / "references.bib").entries
    assert {one.source for one in snippets.SNIPPETS.values()} <= set(known)


# ---- schedules that count steps --------------------------------------------------------------------------------------


def test_the_cyclical_rate_as_found_forgets_the_optimizers_and_turns_its_momentum():
    pace = snippets.pace(snippets.cyclical_as_found, 2001, rate=1e-4)
    assert pace.rates[0] == pytest.approx(1e-5) and pace.rates[2000] == pytest.approx(1e-3)
    assert pace.momenta[0] == pytest.approx(0.9) and pace.momenta[2000] == pytest.approx(0.8)


@pytest.mark.parametrize("steps", [100, 672, 1500])
def test_a_short_run_ends_at_the_highest_rate_as_found_and_at_the_lowest_repaired(steps):
    found = snippets.pace(snippets.cyclical_as_found, steps, rate=1e-3)
    repaired = snippets.pace(lambda made: schedules.triangular2(made, 0, steps), steps, rate=1e-3)
    assert found.rates[-1] == max(found.rates)
    assert repaired.rates[-1] < 0.15 * max(repaired.rates)
    assert set(repaired.momenta) == {0.9}


def test_stairs_as_found_do_not_begin_in_a_short_run_and_repaired_they_end_low():
    found = snippets.pace(snippets.staircase_as_found, 672, rate=1e-3)
    repaired = snippets.pace(lambda made: schedules.staircase(made, 10, 672), 672, rate=1e-3)
    assert set(found.rates) == {1e-3}
    assert repaired.rates[0] < 0.2e-3 and repaired.rates[-1] < 0.02e-3 and max(repaired.rates) == 1e-3


def test_stairs_as_found_are_those_of_tensorflows_formula():
    made = optimizer()
    schedule = snippets.staircase_as_found(made)
    for step in range(10_001):
        if step in (0, 9_999, 10_000):
            assert made.param_groups[0]["lr"] == pytest.approx(0.96 ** (step // 10_000))
        made.step()
        schedule.step()


# ---- plateaus --------------------------------------------------------------------------------------------------------


def rate_after(values, patience=3):
    made = optimizer()
    plateau = ReduceLROnPlateau(made, "min", patience=patience, factor=0.1)
    for value in values:
        plateau.step(value)
    return made.param_groups[0]["lr"]


@pytest.mark.parametrize("seed", range(5))
def test_a_plateau_of_batches_gives_up_while_the_loss_falls_and_one_of_epochs_does_not(seed):
    """A loss that falls from 10 to 5 in ten epochs of 20 batches, with a noise of 1."""
    batches = np.linspace(10, 5, 200) + np.random.default_rng(seed).normal(0, 1, 200)
    assert rate_after(batches) < 1e-6
    assert rate_after(batches.reshape(10, 20).mean(axis=1)) == 1


def test_a_plateau_cannot_be_asked_to_speak_and_can_be_asked_for_its_rate():
    with pytest.raises(TypeError, match="verbose"):
        ReduceLROnPlateau(optimizer(), verbose=True)
    plateau = ReduceLROnPlateau(optimizer(), patience=0)
    for _ in range(2):
        plateau.step(1.0)
    assert plateau.get_last_lr() == [pytest.approx(0.1)]


def test_a_cyclical_schedule_listens_to_no_loss():
    with pytest.raises(TypeError):
        snippets.cyclical_as_found(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)).step(loss=1.0)


def test_gradients_may_be_cleared_behind_the_step():
    ends = []
    for behind in (False, True):
        weight = nn.Parameter(torch.ones(3))
        made = torch.optim.AdamW([weight], lr=0.1)
        for scale in (1.0, -2.0, 0.5):
            if not behind:
                made.zero_grad()
            (scale * weight**2).sum().backward()
            made.step()
            if behind:
                made.zero_grad()
        ends.append(weight.detach())
    assert torch.equal(*ends)


# ---- class weights ---------------------------------------------------------------------------------------------------


def test_a_weight_too_few_is_an_error():
    with pytest.raises(RuntimeError, match="weight tensor"):
        nn.CrossEntropyLoss(weight=torch.ones(4))(torch.zeros(2, 5), torch.tensor([0, 4]))


@pytest.mark.parametrize("factor", [1.0, 9.0])
def test_a_weighted_mean_of_one_class_forgets_its_weight_and_multibox_does_not(factor):
    class_weights = torch.tensor([1.0, 1.0, factor])
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.full((1, 4), 2)
    plain = F.cross_entropy(logits[0], labels[0])
    mean = nn.CrossEntropyLoss(weight=class_weights)(logits[0], labels[0])
    ours = losses.MultiBoxLoss(class_weights=class_weights)(
        torch.zeros(1, 4, 4), logits, Matches(labels, torch.zeros(1, 4, 4), labels)
    )
    torch.testing.assert_close(mean, plain, **SUMS)
    torch.testing.assert_close(ours["conf"], factor * plain, **SUMS)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_with_class_weights_each_class_counts_as_much_as_any_other_and_an_object_as_much_as_background(counts):
    counts = torch.tensor(counts)
    background, *classes = snippets.class_weights(counts).double()
    totals = torch.stack(classes) * counts
    assert background == 1
    assert totals.numpy() == pytest.approx(np.full(len(counts), counts.sum() / len(counts)), rel=1e-5)  # float32


def test_a_class_without_objects_has_no_weight():
    with pytest.raises(ValueError, match=r"classes \[1\] have no objects"):
        snippets.class_weights(torch.tensor([3, 0]))


def answers(samples, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    return F.one_hot(labels, classes).float(), torch.randn(samples, classes, generator=generator), labels


WEIGHTS = torch.tensor([0.1, 1.0, 5.0, 0.5])


@given(st.integers(0, 2**20))
def test_kerass_cross_entropy_of_probabilities_is_torchs_of_logits(seed):
    one_hot, logits, labels = answers(8, seed=seed)
    costs = snippets.keras_cross_entropy(one_hot, logits.softmax(dim=1))
    torch.testing.assert_close(costs, F.cross_entropy(logits, labels, reduction="none"), **SUMS)


def test_kerass_cross_entropy_of_logits_teaches_nothing_where_the_right_ones_is_negative():
    logits = torch.tensor([[1.0, -1.0, 2.0]], requires_grad=True)
    truth = torch.tensor([[0.0, 1.0, 0.0]])
    (slope,) = torch.autograd.grad(snippets.keras_cross_entropy(truth, logits).sum(), logits)
    (right,) = torch.autograd.grad(snippets.weighted(truth, logits, torch.ones(3)), logits)
    assert (slope == 0).all() and right[0, 1] < -0.9


def test_cross_entropy_of_probabilities_has_a_floor():
    """The slip on PyTorch's side: a softmax before a loss that has one."""
    surest = F.cross_entropy(torch.eye(21), torch.arange(21)).item()
    assert surest == pytest.approx(np.log(np.e + 20) - 1, rel=1e-5)


def test_weights_by_place_change_with_the_order_of_the_batch_and_weights_by_label_do_not():
    one_hot, logits, labels = answers(4)
    turned = [1, 2, 3, 0]
    found = [snippets.weighted_as_found(one_hot[o], logits[o].softmax(dim=1), WEIGHTS) for o in (slice(None), turned)]
    right = [snippets.weighted(one_hot[o], logits[o], WEIGHTS) for o in (slice(None), turned)]
    assert abs(found[0] - found[1]) > 0.01
    torch.testing.assert_close(*right, **SUMS)
    torch.testing.assert_close(right[0], F.cross_entropy(logits, labels, WEIGHTS, reduction="sum") / 4, **SUMS)


def test_weights_by_place_fit_no_other_batch():
    one_hot, logits, _ = answers(8)
    with pytest.raises(RuntimeError, match="must match"):
        snippets.weighted_as_found(one_hot, logits.softmax(dim=1), WEIGHTS)
    assert snippets.weighted(one_hot, logits, WEIGHTS).isfinite()


# ---- clipping --------------------------------------------------------------------------------------------------------


def gradients_after(clip):
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    for parameter, length in zip(parameters, (30.0, 3.0, 0.1), strict=True):
        parameter.grad = torch.tensor([length, 0.0])
    clip(parameters, 1.0)
    return torch.stack([parameter.grad[0] for parameter in parameters])


def test_clipped_one_by_one_gradients_lose_their_proportions_and_together_they_do_not():
    each, together = gradients_after(snippets.clip_each_as_found), gradients_after(nn.utils.clip_grad_norm_)
    torch.testing.assert_close(each, torch.tensor([1.0, 1.0, 0.1]), **SUMS)
    torch.testing.assert_close(together / together[0], torch.tensor([30.0, 3.0, 0.1]) / 30, **SUMS)
    assert together.norm() == pytest.approx(1, rel=1e-5) and each.norm() > 1.4


def test_what_has_no_gradient_is_not_clipped():
    parameter = nn.Parameter(torch.zeros(2))
    snippets.clip_each_as_found([parameter], 1.0)
    assert parameter.grad is None


# ---- pictures and boxes ----------------------------------------------------------------------------------------------

IMAGE = np.full((120, 160, 3), 200, np.uint8)
CORNERS = torch.tensor([[0.02, 0.1, 0.2, 0.4], [0.4, 0.3, 0.7, 0.8], [0.8, 0.6, 0.98, 0.95]])
TARGET = voc.Target(CORNERS, torch.tensor([3, 7, 15]), torch.zeros(3, dtype=torch.bool), "a", (160, 120))


def samples(*counts):
    """Pictures with so many objects."""
    image, parts = torch.zeros(3, 8, 8, dtype=torch.uint8), (CORNERS, TARGET.labels, TARGET.difficult)
    return [(image, voc.Target(*(part[:count] for part in parts), "a", (160, 120))) for count in counts]


def test_boxes_of_pictures_cannot_be_stacked_unless_there_are_as_many_and_are_padded_by_collate():
    as_dicts = [(image, {"boxes": one.boxes, "labels": one.labels}) for image, one in samples(1, 1, 3)]
    loaded = list(DataLoader(as_dicts[:2], batch_size=2))
    assert loaded[0][1]["boxes"].shape == (2, 1, 4)
    with pytest.raises(RuntimeError, match="equal size"):
        list(DataLoader(as_dicts, batch_size=3))
    (batch,) = DataLoader(samples(1, 1, 3), batch_size=3, collate_fn=voc.collate)
    assert batch.boxes.shape == (3, 3, 4) and (batch.labels > 0).sum(dim=1).tolist() == [1, 1, 3]


def test_the_flip_is_gone_and_a_crop_does_not_fit():
    assert not hasattr(A, "Flip") and hasattr(A, "HorizontalFlip")
    with pytest.raises(Exception, match="Crop size"):
        A.Compose([A.RandomCrop(640, 640)])(image=IMAGE)


def test_labels_that_are_not_named_stay_behind_and_bytes_are_not_normalised():
    found, mismatched = snippets.augmentation_as_found(60), 0
    repaired = augment.Augment([A.HorizontalFlip(), A.RandomCrop(60, 60)])
    for seed in range(20):
        out = found(image=IMAGE, bboxes=TARGET.boxes_px.numpy(), labels=TARGET.labels.numpy())
        mismatched += len(out["bboxes"]) != len(out["labels"])
        assert len(out["labels"]) == 3 and out["image"].dtype == torch.uint8
        repaired.seed(seed)
        _, after = repaired(IMAGE, TARGET)
        assert len(after.boxes) == len(after.labels) == len(after.difficult)
    assert mismatched > 5


def test_drawn_as_found_fractions_lie_in_the_first_pixel_and_labels_are_numbers():
    figure = Figure()
    found, repaired = figure.subplots(1, 2)
    snippets.draw_as_found(found, IMAGE, CORNERS.tolist(), TARGET.labels.tolist())
    viz.draw_target(repaired, IMAGE, TARGET)
    assert max(patch.get_x() + patch.get_width() for patch in found.patches) < 1
    assert [text.get_text() for text in found.texts] == ["3", "7", "15"]
    assert [text.get_text() for text in repaired.texts] == ["bird", "car", "person"]
    assert max(line.get_xdata().max() for line in repaired.lines) == pytest.approx(0.98 * 160)


# ---- small pictures, and a network for them --------------------------------------------------------------------------


@given(st.integers(0, 2**20), st.integers(1, 6))
def test_the_mean_of_deviations_is_never_more_than_the_deviation(seed, count):
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 5, 4), dtype=np.uint8))
    seen, pixels = snippets.pixel_statistics(images), images.numpy() / 255
    assert seen.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist())
    assert seen.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist())
    assert seen.std_of_each == pytest.approx(pixels.std(axis=(2, 3)).mean(axis=0).tolist())
    assert all(each <= std + 1e-12 for each, std in zip(seen.std_of_each, seen.std, strict=True))


def test_a_white_picture_becomes_partly_black_as_found_and_nowhere_darker_than_the_mean_repaired():
    white = Image.new("RGB", (32, 32), "white")
    found, repaired = (
        snippets.small_pictures_as_found(),
        snippets.small_pictures(snippets.CIFAR_MEAN, snippets.CIFAR_STD),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blackest = min(found(white).min().item() for _ in range(20))
        darkest, erased = 0.0, 0
        for _ in range(20):
            changed = repaired(white)
            darkest = min(darkest, changed.min().item())
            erased += bool((changed == 0).any())
    assert blackest < -2
    assert darkest > -0.02  # the mean in whole steps of 255
    assert 2 < erased < 18


def test_contrast_is_taken_around_a_mean_that_black_filling_is_in():
    half_black = torch.cat([torch.ones(3, 4, 8), torch.zeros(3, 4, 8)], dim=1)
    assert T.functional.adjust_contrast(half_black, 0.5).max().item() == pytest.approx(0.75, abs=1e-3)
    assert T.functional.adjust_contrast(torch.ones(3, 8, 8), 0.5).max().item() == pytest.approx(1, abs=1e-3)


def test_a_bias_before_batch_norm_learns_nothing_and_the_library_has_none():
    block = snippets.BlockAsFound(3, 8).double()
    weights = torch.randn(4, 8, 10, 10, dtype=torch.float64)
    (block(torch.randn(4, 3, 10, 10, dtype=torch.float64)) * weights).sum().backward()
    for place in (0, 3):
        layer = block.layers[place]
        assert layer.bias.grad.abs().max() < 1e-9 < layer.weight.grad.abs().max()
    assert backbones.convolution(3, 8, batch_norm=True, kernel_size=3)[0].bias is None


def signal(start):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        widths = (3, 64, 128, 256, 256)
        layers = [nn.Conv2d(a, b, 3) for a, b in pairwise(widths)]
        network = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
        network.apply(start)
        with torch.no_grad():
            return network(torch.randn(2, 3, 16, 16)).pow(2).mean().sqrt().item()


def test_by_the_fan_in_a_signal_keeps_its_size_and_by_the_fan_out_it_shrinks():
    """The first layer alone shrinks it by the root of 27 / 576."""
    assert signal(snippets.initialise_as_found) < 0.35
    assert 0.5 < signal(snippets.initialise) < 2


def test_initialising_leaves_no_layer_of_a_classifier_out():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(400, 300))
    before = [parameter.clone() for parameter in network[2].parameters()]
    network.apply(snippets.initialise_as_found)
    assert all(torch.equal(a, b) for a, b in zip(before, network[2].parameters(), strict=True))
    network.apply(snippets.initialise)
    assert network[2].weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.05)
    assert not network[2].bias.any() and not network[0].bias.any()


def test_applied_to_a_taught_network_it_erases_and_before_loading_it_does_not():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        taught, other = ssd.ssd_mini(), ssd.ssd_mini()
        known = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
        taught.apply(snippets.initialise_as_found)
        other.apply(snippets.initialise)
    other.load_state_dict(known)
    kernels = [name for name, tensor in known.items() if tensor.ndim == 4]
    assert not any(torch.equal(taught.state_dict()[name], known[name]) for name in kernels)
    assert all(torch.equal(other.state_dict()[name], known[name]) for name in known)


# ---- the diary -------------------------------------------------------------------------------------------------------


def test_rounding_down_gives_the_diarys_maps_and_rounding_up_ssds():
    sizes = {}
    for ceil in (False, True):
        pools = [nn.MaxPool2d(2, ceil_mode=ceil) for _ in range(4)]
        maps, sizes[ceil] = torch.zeros(1, 1, 300, 300), []
        for pool in pools:
            maps = pool(maps)
            sizes[ceil].append(maps.shape[-1])
    assert sizes[False][2:] == [37, 18] and sizes[True][2:] == [38, 19]
    theirs = (37, 18, 18, 9, 5, 2)
    assert sum(a * side**2 for a, side in zip((4, 6, 6, 6, 4, 4), theirs, strict=True)) == 9966
    assert backbones.VGG(width=1 / 16).map_sizes(300) == (38, 19) and len(priors.SSD300.boxes()) == 8732
