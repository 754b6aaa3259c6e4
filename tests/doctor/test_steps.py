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
    """A step that does these things in this order, for which nothing else is planned."""
    patient.schedule = patient.clip_norm = None

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


def adding_up(patient, passes, clear):
    """A loop that steps after so many passes; `clear` says before or behind which the gradients are cleared."""
    patient.schedule, patient.clip_norm, count = None, None, 0

    def step(batch):
        nonlocal count
        if clear == "each pass":
            patient.optimizer.zero_grad()
        parts = patient.losses(batch)
        (losses.total(dict(parts)) / passes).backward()
        count += 1
        if count % passes == 0:
            patient.optimizer.step()
            if clear == "each step":
                patient.optimizer.zero_grad()
        return {}

    patient.step = step
    return seen_in(patient, "step-is-whole")


@pytest.mark.parametrize("passes", [2, 4, 8])
def test_gradients_of_several_passes_may_add_up_to_one_step(setup, passes):
    assert adding_up(setup.patient(), passes, "each step") == []
    has(adding_up(setup.patient(), passes, "each pass"), "fault", f"{passes} passes lead to one step")


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


def step_with(patient, shorten=lambda model: None, after=lambda loss: None):
    """What is said of a step that is clipped by a rule of its own; its schedule, if any, is stepped by `after`."""
    patient.clip_norm = None

    def step(batch):
        patient.optimizer.zero_grad()
        loss = losses.total(dict(patient.losses(batch)))
        loss.backward()
        shorten(patient.model)
        patient.optimizer.step()
        after(loss.detach())
        return {}

    patient.step = step
    return seen_in(patient, "step-is-whole")


def of_the_longest(model):
    lengths = sorted(float(p.grad.norm()) for p in model.parameters() if p.grad is not None)
    for parameter in model.parameters():
        torch.nn.utils.clip_grad_norm_([parameter], lengths[len(lengths) * 4 // 5])


def by_value(model):
    torch.nn.utils.clip_grad_value_(model.parameters(), 1e-3)


@pytest.mark.parametrize("shorten", [of_the_longest, by_value])
def test_gradients_that_are_shortened_each_by_its_own_factor_are_a_note(setup, shorten):
    setup.schedule = None
    (finding,) = step_with(setup.patient(), shorten)
    assert finding.severity == "note" and "each by a factor of its own" in finding.seen


def all_together(model):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)


def in_two_groups(model):
    torch.nn.utils.clip_grad_norm_(model.backbone.parameters(), 1e-3)
    torch.nn.utils.clip_grad_norm_(model.conf_heads.parameters(), 1e-2)


def by_a_scale(model):
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(2.0**-16)


@pytest.mark.parametrize("shorten", [all_together, in_two_groups, by_a_scale])
def test_gradients_that_are_shortened_together_are_left_in_peace(setup, shorten):
    setup.schedule = None
    assert step_with(setup.patient(), shorten) == []


@pytest.mark.parametrize("kept", [True, False])
def test_a_plateau_of_single_batches_is_named_also_where_the_step_keeps_it_to_itself(setup, kept):
    setup.schedule = None
    patient = setup.patient()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(patient.optimizer)
    usual = type(plateau).step
    patient.schedule = plateau if kept else None
    has(
        step_with(patient, after=lambda loss: plateau.step(loss)),
        "warning",
        "is given a number at every step, and waits for 10",
    )
    plateau.patience, patient.memory = 5000, {}  # steps, as is meant
    assert step_with(patient, after=lambda loss: plateau.step(loss)) == []
    assert type(plateau).step is usual


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


def by_hand(patient, sign=-1.0, clip=True, schedule=True):
    """A step of a loop's own: clipped, down the gradient, and with the schedule."""

    def step(batch):
        patient.optimizer.zero_grad()
        losses.total(dict(patient.losses(batch))).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(patient.model.parameters(), patient.clip_norm)
        for group in patient.optimizer.param_groups:
            group["maximize"] = sign > 0
        patient.optimizer.step()
        if schedule:
            patient.schedule.step()
        return {}

    return step


@pytest.mark.parametrize("optimizer", [at_rate(1e-3), None])
def test_steps_up_the_gradient_are_named_and_steps_down_are_not(setup, optimizer):
    setup.optimizer = optimizer or setup.optimizer
    patient = setup.patient()
    patient.step = by_hand(patient, sign=1.0)
    has(seen_in(patient, "step-is-whole"), "fault", "along the gradient")
    patient = setup.patient()
    patient.step = by_hand(patient)
    assert seen_in(patient, "step-is-whole") == []


def test_a_gradient_that_is_longer_than_any_may_be_is_named(setup):
    setup.clip_norm = 0.01
    patient = setup.patient()
    patient.step = by_hand(patient, clip=False)
    has(seen_in(patient, "step-is-whole"), "note", "are to be shortened")
    patient = setup.patient()
    patient.step = by_hand(patient)
    assert seen_in(patient, "step-is-whole") == []


def test_a_schedule_that_no_step_moves_is_a_note(setup):
    patient = setup.patient()
    patient.step = by_hand(patient, schedule=False)
    has(seen_in(patient, "step-is-whole"), "note", "do not move the schedule on")
    setup.schedule = lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 100])
    patient = setup.patient()
    patient.step = by_hand(patient, schedule=False)
    has(seen_in(patient, "step-is-whole"), "note", "do not move the schedule on")
