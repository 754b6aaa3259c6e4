from copy import deepcopy

import pytest
import strangers
import torch
from small_patient import has, seen_in, small_setup

from course_lib.detect import detect
from course_lib.doctor import averages

NAME = "detection-follows-training"


@pytest.fixture
def setup(small_devkit):
    return small_setup(small_devkit)


def test_detection_by_a_copy_that_nobody_updates_is_named_and_by_one_that_follows_is_not(setup):
    patient = setup.patient()
    assert seen_in(patient, "detection-follows-training") == []
    copied, patient.memory = deepcopy(setup.model), {}
    patient.detect = lambda batch: detect(*copied.eval()(patient.read(batch).images), patient.priors)
    has(seen_in(patient, "detection-follows-training"), "fault", "no box or score of what is detected")
    usual = patient.usual_step

    def following(batch):
        losses_ = usual(batch)
        copied.load_state_dict(setup.model.state_dict())
        return losses_

    patient.step, patient.memory = following, {}
    assert seen_in(patient, "detection-follows-training") == []


def test_detections_that_were_kept_are_named_though_the_network_is_called_for_them(setup):
    patient = setup.patient()
    usual, kept = patient.detect, []

    def keeping(batch):
        kept.append(usual(batch))
        return kept[0]

    patient.detect = keeping
    has(seen_in(patient, NAME), "fault", "no box or score of what is detected")
    assert averages.follower(patient).share > 0.99 and not averages.follower(patient).changed


def averaged(patient, decay, every=1):
    """Detects with the weights' average, which lies in the model for as long as it detects."""
    kept = deepcopy(patient.model.state_dict())
    step, found, count = patient.step, patient.detect, [0]

    def stepping(batch):
        parts = step(batch)
        count[0] += 1
        for name, tensor in patient.model.state_dict().items():
            if count[0] % every == 0 and tensor.is_floating_point():
                kept[name].lerp_(tensor, 1 - decay(count[0]))
        return parts

    def detecting(batch):
        own = deepcopy(patient.model.state_dict())
        patient.model.load_state_dict(kept)
        try:
            return found(batch)
        finally:
            patient.model.load_state_dict(own)

    patient.step, patient.detect = stepping, detecting
    return patient


def warming_up(count):
    return min(0.9998, (1 + count) / (10 + count))


@pytest.mark.parametrize("steps", [200, 100_000, None])
def test_an_average_that_stays_its_start_is_named_and_one_of_a_long_training_noted(setup, steps):
    setup.steps = steps
    (found,) = seen_in(averaged(setup.patient(), lambda count: 0.9998), NAME)
    assert found.severity == ("fault" if steps == 200 else "note") and "goes 0.0002 of the way" in found.seen
    assert ("96% of it is still its start" in found.seen) == (steps == 200)


@pytest.mark.slow
def test_averages_that_begin_quickly_or_are_kept_every_some_steps_are_left_in_peace(setup):
    assert seen_in(averaged(setup.patient(), warming_up), NAME) == []
    assert seen_in(averaged(setup.patient(), lambda count: 0.5, every=4), NAME) == []
    assert seen_in(averaged(setup.patient(), lambda count: 0.0), NAME) == []


def test_an_average_that_was_kept_before_has_a_past_of_its_own(setup):
    patient = setup.patient()
    other = averaged(patient, lambda count: 0.9998)
    with torch.no_grad():
        for parameter in setup.model.parameters():
            parameter.mul_(1.01)
    assert [one.severity for one in seen_in(other, NAME)] == ["note"]


@pytest.mark.parametrize("kind", strangers.FAULTS)
def test_a_strangers_average_is_named(small_devkit, kind):
    stranger = getattr(strangers, f"of_{kind}")(small_setup(small_devkit).data, 21)
    usual = strangers.usual_step
    stranger.step = lambda *parts: usual(*parts)
    assert seen_in(stranger.patient(steps=200), NAME) == []
    has(seen_in(averaged(stranger.patient(steps=200), lambda count: 0.9998), NAME), "fault", "still its start")


def test_what_detects_is_as_it_was_after_the_look_at_it(setup):
    copied = deepcopy(setup.model)
    patient = setup.patient()
    patient.detect = lambda batch: detect(*copied.eval()(patient.read(batch).images), patient.priors)
    before = [deepcopy(one.state_dict()) for one in (copied, setup.model)]
    assert averages.follower(patient).share == 0
    for one, state in zip((copied, setup.model), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())
