import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib import ssd, stagnation
from course_lib.backbones import InvertedResiduals, Stage
from course_lib.doctor import examine
from course_lib.doctor.practice import batches_of
from course_lib.doctor.setups import in_memory
from course_lib.voc import VOCDetection

TABLE = (Stage(1, 3, 1, 8, 1), Stage(2, 3, 2, 8, 1), Stage(2, 3, 2, 8, 2), Stage(2, 3, 2, 16, 1), Stage(2, 3, 2, 16, 1))
NORMS = nn.BatchNorm2d


@pytest.fixture
def images(small_devkit):
    return in_memory(VOCDetection(small_devkit, "2007", "train"), 24)


@pytest.fixture
def thin(monkeypatch):
    """The same detector on a trunk of a few channels: a step is a matter of milliseconds."""
    small = replace(stagnation.SSD_SMALL, backbone=lambda: InvertedResiduals(TABLE, 8))
    monkeypatch.setattr(stagnation, "SSD_SMALL", small)
    return small


@pytest.fixture
def trunk(thin):
    """What another detector is made of, but for its class heads."""
    torch.manual_seed(5)
    return stagnation.taught_parts(thin())


@pytest.fixture
def make(images, trunk):
    """A set-up with an arm's change."""

    def made(arm, seed=0):
        setup = stagnation.detector_setup(images, images, trunk, seed)
        stagnation.ARMS[arm](setup)
        return setup

    return made


def rates(setup):
    return {group["name"]: group["initial_lr"] for group in setup.patient().optimizer.param_groups}


def test_arms_are_every_failure_and_every_cure_but_the_training_as_it_is():
    named = [stagnation.name_of_arm(cause) for cause in stagnation.CAUSES]
    assert {*named} <= {*stagnation.ARMS} and "as-it-is" in stagnation.ARMS
    for cause, one in stagnation.CAUSES.items():
        assert one.cures and stagnation.ARMS[stagnation.name_of_arm(cause)] is one.fails
        for cure, change in one.cures.items():
            assert change is stagnation.as_it_is or stagnation.ARMS[stagnation.name_of_arm(cause, cure)] is change
            assert stagnation.ARMS[stagnation.arm_of(cause, cure)] is change
        assert stagnation.ARMS[stagnation.arm_of(cause)] is one.fails
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in stagnation.ARMS)


@pytest.mark.parametrize("arm", stagnation.ARMS)
def test_every_arm_takes_steps(make, arm):
    setup = make(arm)
    patient = setup.patient()
    for batch in batches_of(setup, 2):
        assert len(batch.images) == setup.batch_size
        assert all(value.isfinite() for value in map(torch.as_tensor, patient.step(batch).values()))


def test_the_training_starts_from_a_detector_and_from_class_heads_of_its_seed(make, trunk):
    one, other = make("as-it-is", 0), make("as-it-is", 1)
    for setup in (one, other):
        state = setup.model.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in trunk.items())
        assert setup.model.training and not setup.frozen and setup.steps == stagnation.STEPS
    assert not torch.equal(one.model.conf_heads[0].weight, other.model.conf_heads[0].weight)


def test_rates_are_factors_of_the_usual_one(make):
    usual, high, low = (rates(make(arm)) for arm in ("as-it-is", "rate-too-high", "rate-too-low"))
    for name, value in usual.items():
        assert high[name] == pytest.approx(100 * value) and low[name] == pytest.approx(value / 1000)
    assert usual["head kernels"] == stagnation.RECIPE.learning_rate


def decays(setup):
    """The weight decay of each parameter, by name; every one is in one group."""
    groups = setup.patient().optimizer.param_groups
    names = {id(p): name for name, p in setup.model.named_parameters()}
    held = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(held) == sorted(names.values())
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


def test_decay_of_all_is_of_all_and_its_cure_spares_norms_biases_and_depthwise_kernels(make):
    assert {*decays(make("decay-of-all")).values()} == {0.1}
    setup = make("decay-of-all--on-dense-kernels-alone")
    kernels = {f"{name}.weight": one for name, one in setup.model.named_modules() if isinstance(one, nn.Conv2d)}
    for name, decay in decays(setup).items():
        dense = name in kernels and kernels[name].groups == 1
        assert decay == (0.1 if dense else 0.0), name
    assert all(type(make(arm).patient().optimizer) is torch.optim.Adam for arm in ("decay-of-all",))


def test_small_batches_see_as_many_images_at_a_rate_in_proportion(make):
    usual, small = make("as-it-is"), make("small-batches")
    assert small.batch_size == 2 and small.steps * 2 == usual.steps * usual.batch_size
    factor = usual.batch_size / 2
    for name, value in rates(usual).items():
        assert rates(small)[name] == pytest.approx(value / factor)
    patient = small.patient()
    for _ in range(small.steps - 1):
        patient.optimizer.step()
        patient.schedule.step()
    assert patient.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)  # a cosine over just these steps


def test_statistics_stand_still_where_that_is_the_cure_and_are_slow_where_that_is(make):
    frozen = make("small-batches--frozen-statistics").model.train()
    for name, layer in frozen.named_modules():
        if isinstance(layer, NORMS):
            assert layer.training == (not name.startswith("backbone.") or "to_heads" in name), name
            assert layer.weight.requires_grad
    slow = make("small-batches--slow-statistics").model
    assert {layer.momentum for layer in slow.modules() if isinstance(layer, NORMS)} == {0.01}


def test_a_frozen_trunk_is_random_in_the_failure_and_taught_in_a_cure(make, trunk):
    for arm, learns, taught in (
        ("frozen-random-trunk", False, False),
        ("frozen-random-trunk--let-it-learn", True, False),
        ("frozen-random-trunk--let-it-learn-four-times-as-long", True, False),
        ("frozen-random-trunk--a-taught-trunk-frozen", False, True),
    ):
        setup = make(arm)
        own = dict(setup.model.named_parameters())
        for name in (one for one in own if one.startswith(("backbone.stem", "backbone.residuals"))):
            assert own[name].requires_grad == learns and (name in setup.frozen) == (not learns)
            if name.endswith("convolve.weight"):
                assert torch.equal(own[name], trunk[name]) == taught
        assert (setup.pretrained is not None) == taught


def test_few_pictures_are_few_and_stay_as_they_are_or_are_augmented(make):
    for arm, same in (("few-pictures", True), ("few-pictures--augmentation", False)):
        setup = make(arm)
        assert len(setup.data) == stagnation.FEW and setup.data.classes == setup.classes
        first, second = (batch.images for batch in batches_of(setup, 2))
        pictures = [{one.numpy().tobytes() for one in images} for images in (first, second)]
        assert (pictures[0] == pictures[1]) == same


def test_layers_are_those_that_every_image_passes_in_their_order():
    for architecture, count in ((stagnation.SSD_SMALL, 18), (ssd.ssd_nano, 15)):
        model, seen = architecture(3), []
        layers = stagnation.layers_of(model)
        for name, layer in layers.items():
            layer.register_forward_hook(lambda *_, name=name, seen=seen: seen.append(name))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8))
        assert seen == [*layers] and len(layers) == count


NAMED = {
    "rate-too-high": "rates-teach",
    "decay-of-all": "decay-spares-norms",
    "small-batches": "batch-norm-has-batches",
    "frozen-random-trunk": "batch-norm-statistics",
}


@pytest.mark.parametrize("arm", NAMED)
def test_the_doctor_names_a_cause_before_the_first_step_and_not_in_the_training_as_it_is(make, arm):
    found, usual = (
        {one.check for one in examine(make(name).patient(), learning=False, only=NAMED.values()).of("fault", "warning")}
        for name in (arm, "as-it-is")
    )
    assert NAMED[arm] in found and not usual


def test_the_doctor_names_few_pictures(make):
    report = examine(make("few-pictures").patient(), learning=False, only=["objects-per-class"])
    assert [one.check for one in report.of("warning")] == ["objects-per-class"]


@pytest.mark.slow
def test_the_doctor_names_a_rate_that_is_too_low_by_trying(make):
    report = examine(make("rate-too-low").patient(), only=["learning-rate-range"])
    assert [one.check for one in report.of("warning")] == ["learning-rate-range"]
