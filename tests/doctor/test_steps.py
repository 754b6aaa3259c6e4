import pytest
import torch
from small_patient import has, known_trunk, seen_in
from torch.optim import SGD

from course_lib import losses
from course_lib.doctor.steps import CHECKS

NAMES = [one.name for one in CHECKS]


@pytest.fixture
def setup(small_devkit):
    """A training whose trunk is known, and frozen in its first blocks."""
    return known_trunk(small_devkit)


def look(setup, *names):
    return seen_in(setup.patient(), *(names or NAMES))


def at_rate(rate):
    return lambda model: SGD(model.parameters(), lr=rate)


def loop(patient, order):
    """A step that does these things in this order."""

    def step(batch):
        for what in order:
            if what == "zero":
                patient.optimizer.zero_grad()
            elif what == "loss":
                loss = losses.total(dict(patient.losses(batch)))
            elif what == "back":
                loss.backward()
            else:
                patient.optimizer.step()
        return {}

    return step


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("zero loss back step", ""),
        ("loss back step zero", ""),
        ("loss zero back step", ""),
        ("loss back step", "they add up"),
        ("zero loss step back", "there are no gradients"),
        ("loss back zero step", "there are no gradients"),
        ("zero loss back", "never call optimizer.step"),
    ],
)
def test_the_order_of_a_step_is_looked_at(setup, order, words):
    patient = setup.patient()
    patient.step = loop(patient, order.split())
    findings = seen_in(patient, "step-is-whole")
    assert (words in findings[0].seen) if words else findings == []


def test_gradients_that_are_cut_one_by_one_are_named(setup):
    patient = setup.patient()

    def step(batch):
        patient.optimizer.zero_grad()
        losses.total(dict(patient.losses(batch))).backward()
        for parameter in patient.model.parameters():
            torch.nn.utils.clip_grad_norm_([parameter], 1e-3)
        patient.optimizer.step()
        return {}

    patient.step = step
    has(seen_in(patient, "step-is-whole"), "warning", "each is clipped by itself")


def test_a_plateau_of_single_batches_is_named(setup):
    setup.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau
    patient = setup.patient()

    def step(batch):
        patient.optimizer.zero_grad()
        loss = losses.total(dict(patient.losses(batch)))
        loss.backward()
        patient.optimizer.step()
        patient.schedule.step(loss.detach())
        return {}

    patient.step = step
    has(seen_in(patient, "step-is-whole"), "warning", "is given a number at every step")


@pytest.mark.parametrize(("part", "heads"), [("loc", "logits"), ("conf", "offsets")])
def test_a_loss_that_a_step_leaves_out_is_named(setup, part, heads):
    patient = setup.patient()

    def step(batch):
        patient.optimizer.zero_grad()
        patient.losses(batch)[part].backward()
        patient.optimizer.step()
        return {}

    patient.step = step
    has(seen_in(patient, "step-is-whole"), "fault", f"gradients for the heads of the {heads}, and a step has none")


def test_weights_that_stay_or_become_nan_are_named(setup):
    setup.optimizer, setup.schedule = at_rate(0.0), None
    has(look(setup, "step-is-whole"), "fault", "leave every weight as it is")
    setup.optimizer, setup.clip_norm = at_rate(1e38), None
    has(look(setup, "step-is-whole"), "fault", "hold NaN")
