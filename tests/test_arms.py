"""Arms: each changes what it says, and nothing else, and each can be trained."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CyclicLR

from course_lib import arms, losses, trials, voc, weights
from course_lib.doctor.setups import InMemory
from course_lib.profiles import RECORD


@pytest.fixture(scope="module")
def parts(small_devkit):
    """A pool, held-out images and a trained trunk."""
    sets = (voc.ImageDataset(voc.image_sets(small_devkit, "2007", name)) for name in ("trainval", "test"))
    pool, held_out = (trials.shrunk_to(one, arms.SIDE) for one in sets)
    return pool, InMemory(held_out.samples[:2], held_out.classes), weights.load(RECORD)


@pytest.fixture
def setup(parts):
    return arms.baseline(*parts, seed=3)


def targets(setup):
    return [setup.data[index][1] for index in range(len(setup.data))]


def trained(setup, steps=1):
    setup.steps = steps
    return trials.trial(setup, setup.held_out)


def test_the_baseline_is_the_recipe_on_so_many_images(setup, parts):
    assert len(setup.data) == len(parts[0]) == 40 and setup.seed == 3 and setup.steps == arms.STEPS
    assert setup.batch_size == arms.RECIPE.batch_size and setup.clip_norm == arms.RECIPE.clip_norm
    optimizer = setup.optimizer(setup.model)
    schedule = setup.schedule(optimizer)
    rates = []
    for _ in range(setup.steps):
        rates.append(optimizer.param_groups[2]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == rates[arms.RECIPE.warmup_steps - 1] == arms.RECIPE.learning_rate
    assert rates[-1] < 1e-3 * max(rates)
    assert len(arms.baseline(*parts, seed=0, scale=replace(arms.NANO, images=7)).data) == 7


def test_an_arm_changes_a_training_of_another_scale_by_the_same_factor(parts):
    recipe = replace(arms.RECIPE, learning_rate=1e-3, weight_decay=1e-2, warmup_steps=4, batch_size=8, frozen_blocks=1)
    other = arms.Scale(arms.NANO.architecture, recipe, steps=50, images=20)

    def changed(name):
        setup = arms.baseline(*parts, seed=0, scale=other)
        arms.ARMS[name].change(setup)
        optimizer = setup.optimizer(setup.model)
        rates = optimizer.param_groups[2]["lr"]
        setup.schedule(optimizer)
        return setup, rates, optimizer.param_groups[2]["weight_decay"]

    usual, rate, decay = changed("baseline")
    assert (usual.steps, usual.batch_size, len(usual.data), rate, decay) == (50, 8, 20, 1e-3, 1e-2)
    assert all(name.startswith("backbone") for name in usual.frozen) and usual.frozen
    assert changed("rate-10")[1] == pytest.approx(1e-2)
    assert changed("decay-10")[2] == pytest.approx(0.1) and changed("decay-0")[2] == 0
    assert changed("lasting-2")[0].steps == 100 and changed("untaught-4")[0].steps == 200
    assert len(changed("images-half")[0].data) == 10 and len(changed("imbalanced")[0].data) <= 20
    assert changed("batch-32-scaled")[0].steps == 12 and changed("batch-32-scaled")[1] == pytest.approx(4e-3)
    assert len(changed("frozen-5")[0].frozen) > len(usual.frozen) > len(changed("untaught")[0].frozen) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, arm in arms.ARMS.items() if not arm.scan])
def test_every_arm_can_be_trained(name, setup, monkeypatch):
    """One step, of few images."""
    arms.ARMS[name].change(setup)
    setup.batch_size = 4
    record = trained(setup)
    assert record["diverged"] is None and record["steps"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, arm in arms.ARMS.items() if arm.scan])
def test_every_optimizer_takes_its_rate_and_the_usual_groups(name, setup):
    arm = arms.ARMS[name]
    rates = arms.RATES[arm.scan]
    arm.change(setup, learning_rate=rates[0])
    groups = setup.optimizer(setup.model).param_groups
    assert [group["name"] for group in groups] == ["backbone kernels", "backbone biases", "head kernels", "head biases"]
    assert groups[2]["lr"] == rates[0] and groups[0]["lr"] == rates[0] * arms.RECIPE.backbone_factor
    assert all(2 < high / low < 4 for low, high in pairwise(rates))
    assert trained(setup)["diverged"] is None


def test_labels_fit_a_narrow_picture_and_none_is_used_twice():
    labels = Counter(arm.label for arm in arms.ARMS.values())
    assert max(map(len, labels)) <= 36
    # Twice, with all classes and with imbalanced ones, which are another family.
    assert {label for label, count in labels.items() if count > 1} == {"no augmentation"}


def test_a_larger_batch_sees_as_many_images(parts):
    for name, size, factor in (("batch-4", 4, 1), ("batch-64-scaled", 64, 4), ("batch-8-scaled", 8, 1 / 2)):
        setup = arms.baseline(*parts, seed=3)
        arms.ARMS[name].change(setup)
        assert setup.batch_size == size and abs(setup.steps * size - arms.STEPS * 16) < size
        optimizer = setup.optimizer(setup.model)
        setup.schedule(optimizer)
        assert optimizer.param_groups[2]["initial_lr"] == pytest.approx(arms.RECIPE.learning_rate * factor)


def test_each_parameter_is_clipped_by_itself_and_nothing_else(setup):
    """As Keras's clipnorm: no gradient is longer than 1, and all together are."""
    arms.clipped_by_parameter(setup)
    patient = setup.patient()
    seen = []
    patient.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.extend(
            float(p.grad.norm()) for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        )
    )
    patient.step(patient.first_batches(1)[0])
    assert max(seen) <= 1 + 1e-3 and sum(one**2 for one in seen) ** 0.5 > 1.5
    assert sum(one > 0.999 for one in seen) > 1


def test_the_published_cycle_is_longer_than_the_training(setup):
    arms.cyclical_as_published(setup)
    optimizer = setup.optimizer(setup.model)
    schedule = setup.schedule(optimizer)
    assert isinstance(schedule, CyclicLR) and len(optimizer.param_groups) == 1
    for _ in range(arms.STEPS):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5 + (1e-3 - 1e-5) * arms.STEPS / 2000)


def test_boxes_are_off_by_no_more_than_the_share_and_always_alike(setup):
    before = targets(setup)
    arms.inaccurate_boxes(setup, share=0.2)
    after = targets(setup)
    off = 0.0
    for one, other, again in zip(before, after, targets(setup), strict=True):
        sides = (one.boxes[:, 2:] - one.boxes[:, :2]).repeat(1, 2)
        assert ((other.boxes - one.boxes).abs() <= 0.2 * sides + 1e-6).all()
        assert torch.equal(other.boxes, again.boxes) and torch.equal(one.labels, other.labels)
        assert (other.boxes[:, 2:] > other.boxes[:, :2]).all() and other.boxes.min() >= 0 and other.boxes.max() <= 1
        off = max(off, float(((other.boxes - one.boxes).abs() / sides).max()))
    assert off > 0.15


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_so_many_labels_are_wrong(setup, share):
    before = targets(setup)
    arms.wrong_labels(setup, share)
    labels, others = (torch.cat([one.labels for one in some]) for some in (before, targets(setup)))
    assert others.min() >= 1 and others.max() <= len(setup.classes)
    assert float((labels != others).float().mean()) == pytest.approx(share, abs=0.15)
    if share in (0.0, 1.0):
        assert bool((labels != others).any()) == bool((labels != others).all()) == bool(share)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_so_many_objects_are_missing(setup, share):
    before = targets(setup)
    arms.missing_objects(setup, share)
    count, kept = (sum(len(one.labels) for one in some) for some in (before, targets(setup)))
    assert kept / count == pytest.approx(1 - share, abs=0.15) and (share not in (0.0, 1.0) or kept in (0, count))
    assert all(len(one.boxes) == len(one.labels) == len(one.difficult) for one in targets(setup))


def test_noise_is_another_one_for_another_seed(parts):
    found = []
    for seed in (0, 1):
        setup = arms.baseline(*parts, seed=seed)
        arms.wrong_labels(setup, 0.4)
        found.append(torch.cat([one.labels for one in targets(setup)]))
    assert not torch.equal(*found)


def rare_share(setup):
    return sum(arms.shows_rare(setup, row) for row in setup.data.rows) / len(setup.data)


def test_rare_classes_become_rarer_and_oversampling_brings_them_back(parts):
    setup = arms.baseline(*parts, seed=3, scale=replace(arms.NANO, images=20))
    before = rare_share(setup)
    names = setup.classes[arms.RARE]
    assert len(names) == 5
    arms.imbalanced(setup)
    assert 0 < rare_share(setup) < before / 3 and len(set(setup.data.rows)) == len(setup.data) <= 20
    arms.oversampled(setup)
    counts = Counter(setup.data.rows)
    assert {counts[row] for row in counts} == {1, arms.RARER}
    assert all((counts[row] > 1) == arms.shows_rare(setup, row) for row in counts)


def test_a_class_weighs_as_much_more_as_it_is_rarer(setup):
    arms.weighted_by_class(setup)
    weights_of = setup.loss.class_weights
    counts = Counter(label for one in targets(setup) for label in one.labels.tolist())
    assert weights_of[0] == 1 and len(weights_of) == len(setup.classes) + 1
    (common, most), (rare, least) = counts.most_common()[0], counts.most_common()[-1]
    assert float(weights_of[rare] / weights_of[common]) == pytest.approx(most / least, rel=1e-5)


def test_frozen_blocks_are_those_asked_for(setup):
    for blocks, expected in ((0, 0), (4, 4), (5, 5)):
        arms.frozen(setup, blocks)
        learning = [any(p.requires_grad for p in part.parameters()) for part in setup.model.backbone.blocks()]
        assert learning == [False] * expected + [True] * (5 - expected)
        assert all(p.requires_grad for head in arms.heads(setup) for p in head.parameters())


def test_a_network_with_other_extra_layers_keeps_the_taught_trunk_and_the_priors(setup):
    priors, known, stays = setup.priors, setup.pretrained, setup.frozen
    arms.ARMS["extras-half"].change(setup)
    assert setup.frozen == stays
    state = setup.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in known.items())
    assert torch.equal(priors, setup.priors) and setup.model.extras[0][0].out_channels == 32


@pytest.mark.slow
def test_an_untaught_trunk_depends_on_the_seed_and_nothing_of_it_is_frozen(parts):
    trunks = []
    for seed in (0, 0, 1):
        setup = arms.baseline(*parts, seed=seed)
        arms.untaught(setup)
        assert setup.frozen == () and all(p.requires_grad for p in setup.model.parameters())
        trunks.append(next(setup.model.backbone.parameters()))
    assert torch.equal(trunks[0], trunks[1]) and not torch.equal(trunks[0], trunks[2])


def test_squared_errors_have_hard_negatives_and_no_error_where_all_is_right(setup):
    patient = setup.patient()
    batch = patient.first_batches(1)[0]
    matches = patient.matches(batch)
    arms.squared_errors(setup)
    sure = 40.0 * torch.nn.functional.one_hot(matches.labels, len(setup.classes) + 1)
    right = setup.loss(matches.offsets, sure, matches)
    assert float(right["conf"]) < 1e-6 and float(right["loc"]) == 0
    nothing = setup.loss(matches.offsets, torch.zeros_like(sure), matches)
    classes = len(setup.classes) + 1
    error = (1 - 1 / classes) ** 2 + (classes - 1) / classes**2  # of a network that knows nothing
    assert float(nothing["conf"]) == pytest.approx(4 * error, rel=1e-4)  # a positive and three negatives
    assert losses.expected_initial_conf(classes) > 10 * float(nothing["conf"]) / 4


def test_transforms_are_those_asked_for(setup):
    names = {"flip": "HorizontalFlip", "crop": "IoUCrop", "zoom-out": "ZoomOut", "rotation": "Rotate"}
    for name, kind in names.items():
        arms.augmented(setup, name)
        kinds = [type(one).__name__ for one in setup.transform.compose.transforms]
        assert sorted(kinds) == sorted(["Resize", kind])
        assert kinds.index("Resize") == (1 if name in arms.BEFORE else 0)
    arms.augmented(setup)
    assert [type(one).__name__ for one in setup.transform.compose.transforms] == ["Resize"]


def test_the_usual_transforms_are_the_librarys(setup):
    """The same images, to a number: they are spelled out once more here, so that each can stand alone."""
    usual, image, target = setup.transform, *setup.data[0]
    arms.augmented(setup, *arms.USUAL)
    for seed in range(6):
        usual.seed(seed)
        setup.transform.seed(seed)
        (one, _), (other, _) = usual(image, target), setup.transform(image, target)
        assert torch.equal(one, other)


@pytest.mark.parametrize("change", [arms.heads_by_he, arms.heads_by_torch])
def test_heads_begin_louder_and_by_the_seed(change, parts):
    found = []
    for seed in (0, 0, 1):
        setup = arms.baseline(*parts, seed=seed)
        before = torch.get_rng_state()
        change(setup)
        assert torch.equal(before, torch.get_rng_state())
        found.append(setup.model.conf_heads[0].weight.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert float(found[0].std()) > 0.012


@pytest.mark.slow
def test_sixteen_bits_are_in_the_convolutions_alone(setup):
    arms.in_bf16(setup)
    patient = setup.patient()
    batch = patient.first_batches(1)[0]
    offsets, logits = patient.outputs(batch)
    assert offsets.dtype == logits.dtype == torch.bfloat16
    assert {one.dtype for one in patient.losses(batch).values()} == {torch.float32}
    assert {one.dtype for one in setup.model.parameters()} == {torch.float32}
