from dataclasses import replace
from math import isfinite

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from course_lib import convergence
from course_lib.backbones import VGG
from course_lib.convergence import AUGMENTATIONS, INITIALISATIONS, Plan, SmallVGG, flowing, train_classifier
from course_lib.crops import Crops, Problem

THIN = Plan(width=1 / 32, batch_size=8, epochs=2)


def pictures(count=40, classes=3, seed=0):
    """Squares of one colour a class, with some noise: quickly told apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    colours = torch.tensor([[220.0, 30, 30], [30, 220, 30], [30, 30, 220]])[labels]
    images = colours[:, :, None, None] + 20 * torch.randn(count, 3, 32, 32, generator=generator)
    return Crops(images.clamp(0, 255).to(torch.uint8), labels, ("red", "green", "blue")[:classes])


PROBLEM = Problem(pictures(), pictures(20, seed=1))


@pytest.mark.parametrize("norm", convergence.NORMS)
def test_layer_by_layer_it_is_torchvisions_vgg(norm):
    """Thirteen convolutions; batch norm before ReLU is torchvision's, in float64."""
    ours = SmallVGG(10, norm=norm).double().eval()
    theirs = make_layers(cfgs["D"], batch_norm=norm != "none").double().eval()
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        mine, others = ([one for one in net.modules() if isinstance(one, kind)] for net in (ours, theirs))
        assert len(mine) == len(others) == (0 if norm == "none" and kind is nn.BatchNorm2d else 13)
        for one, other in zip(mine, others, strict=True):
            nn.init.zeros_(other.bias)
            if kind is nn.Conv2d:
                nn.init.kaiming_normal_(other.weight)
                assert (one.bias is None) == (norm == "before")
            else:
                nn.init.uniform_(other.running_var, 0.5, 2)
                nn.init.uniform_(other.running_mean, -1, 1)  # around 0 it would matter little on which side ReLU is
            one.load_state_dict(
                {name: t for name, t in other.state_dict().items() if one.bias is not None or name != "bias"}
            )
    x, features = torch.randn(2, 3, 32, 32, dtype=torch.float64), []
    ours.name.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
    with torch.no_grad():
        ours(x)
        same = torch.allclose(features[0], theirs(x).flatten(1), rtol=1e-9, atol=1e-9)
    assert same == (norm != "after")


def test_its_convolutions_are_those_of_the_detectors_trunk():
    """Up to block 5; the trunk has two more, fc6 and fc7."""
    shapes = [
        [tuple(one.weight.shape) for one in net.modules() if isinstance(one, nn.Conv2d)]
        for net in (SmallVGG(3, width=0.25), VGG(width=0.25))
    ]
    assert shapes[0] == shapes[1][:-2] and len(shapes[0]) == 13


def test_where_batch_norm_stands():
    kinds = {norm: [type(one).__name__ for one in SmallVGG(2, 1 / 32, norm).layers[4]] for norm in convergence.NORMS}
    assert kinds == {
        "before": ["Conv2d", "BatchNorm2d", "ReLU"],
        "after": ["Conv2d", "ReLU", "BatchNorm2d"],
        "none": ["Conv2d", "ReLU"],
    }
    with pytest.raises(ValueError, match="norm is 'behind': use one of before, after, none"):
        SmallVGG(2, norm="behind")


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he", 2 / 576),
        ("xavier", 2 / (576 + 1152)),
        ("pytorch", 1 / (3 * 576)),
        ("too small", 2 / 576 / 100),
        ("too large", 200 / 576),
    ],
)
def test_weights_have_the_variance_that_their_name_promises(name, variance):
    """Of 64 channels to 128: 576 inputs, 1,152 outputs, 73,728 weights, whose variance is known to about 1 %."""
    layer = nn.Conv2d(64, 128, 3)
    convergence.initialise(layer, name, torch.Generator().manual_seed(0))
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.04)
    assert not layer.bias.any() and sorted(INITIALISATIONS) == ["he", "pytorch", "too large", "too small", "xavier"]


def test_hes_weights_keep_the_scale_and_others_lose_it_as_their_variance_says():
    """Each layer multiplies the mean square by fan-in times variance over 2: thirteen layers, width 1 / 2, one seed."""
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ends = {}
    for name in INITIALISATIONS:
        network = Plan(name, norm="none", width=0.5).network(10, seed=0)
        with flowing(network.layers) as flow, torch.no_grad():
            network(x)
        assert all(map(isfinite, flow.activations)) and not any(map(isfinite, flow.gradients))
        ends[name] = flow.activations[-1] / flow.activations[0]
    # Max pooling between the layers raises the scale, and padding lowers it; twelve layers lie between both ends.
    assert 0.1 < ends["he"] < 10
    assert ends["too small"] / ends["he"] == pytest.approx(1e-12, rel=1e-2)
    assert ends["too large"] / ends["he"] == pytest.approx(1e12, rel=1e-2)
    # A sixth of the variance, twelve times; other random numbers, so a few tens of percent a layer.
    assert 6**-6 / 5 < ends["pytorch"] / ends["he"] < 6**-6 * 5


def test_what_flows_is_what_autograd_and_plain_numbers_say():
    network = Plan(norm="none", width=1 / 32).network(3, seed=0).double()
    x, labels = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    with flowing(network.layers) as flow:
        F.cross_entropy(network(x), labels).backward()
    outputs, seen = [], x
    for index, layer in enumerate(network.layers):
        seen = layer(seen)
        outputs.append(seen)
        seen = F.max_pool2d(seen, 2) if index in (1, 3, 6, 9, 12) else seen
    gradients = torch.autograd.grad(F.cross_entropy(network.name(seen.flatten(1)), labels), outputs)
    for found, tensors in ((flow.activations, outputs), (flow.gradients, gradients)):
        assert found == pytest.approx([one.square().mean().sqrt().item() for one in tensors], rel=1e-5)
    network(x)
    assert not any(layer._forward_hooks for layer in network.layers)


def grey(count=6, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)) * 255


@settings(max_examples=20)
@given(st.sampled_from(sorted(AUGMENTATIONS)), st.integers(0, 2**31))
def test_augmentations_keep_shape_and_range_and_depend_on_their_generator_alone(name, seed):
    images = grey()
    before, state = images.clone(), torch.get_rng_state()
    one, two = (AUGMENTATIONS[name](images, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)
    assert one.shape == images.shape and one.min() >= -1e-3 and one.max() <= 255 + 1e-3


def test_a_crop_is_a_part_of_the_padded_picture():
    images = grey(20)
    cropped, padded = convergence.crop(images, torch.Generator().manual_seed(0)), F.pad(images, (4,) * 4)
    places = []
    for one, wide in zip(cropped, padded, strict=True):
        found = [(y, x) for y in range(9) for x in range(9) if torch.equal(one, wide[:, y : y + 32, x : x + 32])]
        assert len(found) == 1
        places += found
    assert len({*places}) > 10


def test_a_flip_mirrors_about_half_and_a_rotation_turns_about_the_centre():
    images = grey(64)
    flipped = convergence.flip(images, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(one, other.flip(-1)) for one, other in zip(flipped, images, strict=True)]
    assert 20 < sum(mirrored) < 44
    kept = [torch.equal(one, other) for one, other in zip(flipped, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 64
    still = convergence.rotation(images, torch.Generator(), degrees=0.0)
    torch.testing.assert_close(still, images, rtol=0, atol=1e-2)  # bilinear, of numbers up to 255
    column = torch.zeros(40, 3, 33, 33)
    column[:, :, :, 16] = 255.0
    turned = convergence.rotation(column, torch.Generator().manual_seed(1), degrees=15.0)
    assert turned[:, :, 16, 16].min() > 200  # the centre stays
    top = turned[:, 0, 0].argmax(dim=1)
    assert top.min() < 15 and top.max() > 17 and (top - 16).abs().max() <= 5  # 16 tan 15 degrees = 4.3


def test_erasing_leaves_half_and_takes_a_rectangle_from_the_others():
    images = grey(200)
    erased = convergence.erasing(images, torch.Generator().manual_seed(0))
    changed = (erased != images).any(dim=1)
    areas = changed.flatten(1).sum(dim=1) / 32**2
    assert 70 < (areas > 0).sum() < 130
    assert areas.max() < 0.37 and areas[areas > 0].min() > 0.005  # sides are rounded to whole pixels
    for one, mask, picture in zip(erased, changed, images, strict=True):
        if mask.any():
            rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
            assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            mean = picture.mean(dim=(1, 2))[:, None].expand(3, int(mask.sum()))
            torch.testing.assert_close(one[:, mask], mean, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("initialisation", "kaiming", "he, xavier, pytorch"),
        ("norm", "behind", "before, after, none"),
        ("augmentation", ("flip", "mixup"), "crop, flip, rotation, jitter, erasing"),
        ("normalisation", "imagenet", "own, cifar10, unit, raw"),
        ("optimizer", "lion", "adam, adamw, sgd"),
        ("schedule", "onecycle", "warmup_cosine, step_drops"),
    ],
)
def test_a_choice_that_there_is_not_is_named_with_those_that_there_are(field, value, known):
    wrong = value[-1] if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=f"{field} is '{wrong}': use one of {known}"):
        Plan(**{field: value})


def test_pixels_are_normalised_as_the_plan_says():
    crops = pictures()
    mean, std = Plan().colours(crops)
    normalised = (crops.images.float() - mean) / std
    assert normalised.mean(dim=(0, 2, 3)).abs().max() < 1e-4 and (normalised.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4
    ranges = {}
    for name in ("unit", "raw", "cifar10"):
        mean, std = Plan(normalisation=name).colours(crops)
        ends = (torch.tensor([0.0, 255.0])[:, None, None, None] - mean) / std
        ranges[name] = ends[:, :, 0, 0].T.tolist()
    assert ranges["unit"] == [[0, 1]] * 3 and ranges["raw"] == [[0, 255]] * 3
    # By hand from the published constants, as fractions of 1: mean and deviation of CIFAR-10.
    for found, (m, s) in zip(ranges["cifar10"], ((0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.2010)), strict=True):
        assert found == pytest.approx([-m / s, (1 - m) / s], rel=1e-4)


def test_a_network_learns_colours_and_its_record_is_whole():
    said = []
    record = train_classifier(
        replace(THIN, epochs=4, learning_rate=1e-2), PROBLEM, seed=1, looked_at=(0, 5), report=said.append
    )
    assert record["diverged_at"] is None and record["accuracy"] > 0.6 and len(record["epochs"]) == 4
    assert record["epochs"] == said and record["accuracy"] == said[-1]["test"]["accuracy"]
    assert [one["step"] for one in record["flow"]] == [0, 5]
    for flow in record["flow"]:
        assert len(flow["activations"]) == len(flow["gradients"]) == 13
        assert all(map(isfinite, flow["activations"] + flow["gradients"]))
    assert record["plan"]["learning_rate"] == 1e-2 and record["seed"] == 1


def without_time(record):
    return {name: value for name, value in record.items() if name != "seconds"}


def test_the_seed_decides_everything():
    one, two, other = (train_classifier(THIN, PROBLEM, seed=seed) for seed in (3, 3, 4))
    assert without_time(one) == without_time(two)
    assert one["epochs"][0]["loss"] != other["epochs"][0]["loss"]


def test_what_diverges_is_a_result():
    plan = replace(
        THIN, initialisation="too large", norm="none", normalisation="raw", optimizer="sgd", learning_rate=10.0
    )
    record = train_classifier(plan, PROBLEM)
    assert record["diverged_at"] in range(1, 9) and record["accuracy"] == 0.0
    assert record["epochs"][-1]["loss"] is None and "test" not in record["epochs"][-1]


def test_a_plateau_goes_by_the_pictures_that_were_held_back(monkeypatch):
    """With a rate of next to nothing nothing gets better: more than two measurements, and the rate drops."""
    record = train_classifier(replace(THIN, epochs=6, schedule="plateau", learning_rate=1e-12, norm="none"), PROBLEM)
    rates = [one["rate"] for one in record["epochs"]]
    assert rates[0] == pytest.approx(1e-12) and rates[-1] == pytest.approx(1e-13)


def test_fewer_pictures_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="batch_size is 64, and there are 36 pictures"):
        train_classifier(replace(THIN, batch_size=64), PROBLEM)
