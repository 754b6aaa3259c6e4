import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from small_patient import has, known_trunk, seen_in
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, MultiStepLR, OneCycleLR, StepLR

from course_lib import schedules
from course_lib.doctor import Patient
from course_lib.doctor.optimisation import CHECKS
from course_lib.doctor.setups import usual_optimizer

NAMES = [one.name for one in CHECKS]
RATES = ("rates-teach", "schedule-teaches")


@pytest.fixture
def setup(small_devkit):
    """A training whose trunk is known, and frozen in its first blocks."""
    return known_trunk(small_devkit)


def look(setup, *names):
    return seen_in(setup.patient(), *(names or NAMES))


def serious(findings):
    return [one for one in findings if one.severity != "note"]


@pytest.mark.parametrize(
    "make",
    [
        usual_optimizer,
        lambda model: AdamW(model.parameters()),
        lambda model: SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4),
        lambda model: AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4),
    ],
)
def test_usual_optimizers_are_healthy(setup, make):
    setup.optimizer = make
    assert serious(look(setup)) == []


def two_groups_of_all(model):
    optimizer = SGD(model.parameters(), lr=1e-3)
    optimizer.param_groups.append(dict(optimizer.param_groups[0]))
    return optimizer


def at_rate(rate, make=SGD):
    return lambda model: make(model.parameters(), lr=rate)


def of(wanted):
    return lambda model: AdamW([p for name, p in model.named_parameters() if wanted(name)])


@pytest.mark.parametrize(
    ("make", "severity", "words"),
    [
        (lambda model: usual_optimizer(deepcopy(model)), "fault", "is the model's"),
        (of(lambda name: "conf_heads" not in name), "fault", "are in no group"),
        (of(lambda name: name != "conf_heads.0.bias"), "warning", "are in no group"),
        (two_groups_of_all, "fault", "in two groups"),
        (at_rate(0.0), "fault", "is 0"),
        (at_rate(20.0), "warning", "is 20 with SGD"),
        (at_rate(0.2, AdamW), "warning", "is 0.2 with AdamW"),
        (at_rate(1e-9), "warning", "is 1e-09 with SGD"),
        (lambda model: AdamW(model.parameters(), weight_decay=0.05), "warning", "norms and biases decay"),
        (lambda model: AdamW(model.parameters(), weight_decay=0.01), "note", "norms and biases decay"),
        (lambda model: AdamW(model.parameters(), weight_decay=1.0), "warning", "weight decay is 1"),
        (lambda model: Adam(model.parameters(), weight_decay=0.01), "warning", "0.01 as a penalty in the gradient"),
        (lambda model: Adam(model.parameters(), weight_decay=0.01), "warning", "norms and biases decay by 0.01"),
    ],
)
def test_other_optimizers_are_named(setup, make, severity, words):
    setup.optimizer, setup.schedule = make, None
    has(look(setup), severity, words)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_the_courses_schedules_are_healthy(setup, name):
    setup.schedule = partial(schedules.SCHEDULES[name], warmup_steps=20, total_steps=setup.steps)
    assert look(setup, *RATES) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: OneCycleLR(optimizer, [g["lr"] for g in optimizer.param_groups], total_steps=200),
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=200),
        lambda optimizer: MultiStepLR(optimizer, [130, 170]),
        lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, step / 10)),
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
    ],
)
def test_usual_schedules_are_healthy_and_are_put_back(setup, make):
    setup.schedule = make
    patient = setup.patient()
    rates, kept = [g["lr"] for g in patient.optimizer.param_groups], deepcopy(patient.schedule.state_dict())
    assert seen_in(patient, *RATES) == []
    assert [g["lr"] for g in patient.optimizer.param_groups] == rates
    assert repr(patient.schedule.state_dict()) == repr(kept)


def of_another(optimizer):
    return StepLR(SGD([torch.zeros(1, requires_grad=True)], lr=0.1), 10)


@pytest.mark.parametrize(
    ("make", "severity", "words"),
    [
        (lambda o: LambdaLR(o, lambda step: min(1.0, step // 60)), "fault", "is 0 at the first 60 of 200"),
        (lambda o: LambdaLR(o, lambda step: min(1.0, step // 10)), "warning", "is 0 at the first 10 of 200"),
        (lambda o: LambdaLR(o, lambda step: 0.0), "fault", "is 0 at all of 200"),
        (lambda o: LambdaLR(o, lambda step: max(0.0, 1 - step / 40)), "fault", "has fallen from"),
        (lambda o: LambdaLR(o, lambda step: max(0.0, 1 - step / 120)), "warning", "has fallen from"),
        (lambda o: StepLR(o, 3, 0.1), "fault", "has fallen from"),
        (lambda o: CosineAnnealingLR(o, T_max=10), "warning", "rises again 10 times in 200 steps"),
        (lambda o: ExponentialLR(o, 1.05), "fault", "rises through the whole training"),
        (lambda o: LambdaLR(o, lambda step: (step + 1) / 4000), "warning", "rises through the whole training"),
        (lambda o: LambdaLR(o, lambda step: float("nan") if step > 9 else 1.0), "fault", "at step 10 is nan"),
        (of_another, "fault", "another optimizer"),
    ],
)
def test_other_schedules_are_named(setup, make, severity, words):
    setup.schedule = make
    has(look(setup, *RATES), severity, words)


def test_groups_that_hold_nothing_that_learns_are_named(setup):
    setup.model.backbone.requires_grad_(False)
    has(look(setup), "warning", "hold nothing that learns")
    setup.frozen = ("backbone.",)
    assert [one.severity for one in look(setup)] == ["note"]


def test_what_is_not_there_is_not_examined():
    assert seen_in(Patient(), *NAMES) == []


@pytest.mark.parametrize(("eps", "found"), [(1e-8, False), (1e-4, False), (1.0, True)])
def test_an_eps_that_is_larger_than_gradients_is_named(setup, eps, found):
    setup.optimizer = lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, eps=eps)
    assert any("eps is" in one.seen for one in look(setup, "rates-teach")) == found


@pytest.mark.parametrize(
    ("factor", "found"),
    [
        (lambda step: min(1.0, (step % 6 + 1) / 20), True),  # a warmup that begins anew in each epoch
        (lambda step: 0.1 ** (step % 10), True),
        (lambda step: 1 + (step // 50) % 2, False),
        (lambda step: 0.5 * (1 + math.cos(math.pi * (step % 50) / 50)) + 0.01, False),  # four warm restarts
        (lambda step: min(1.0, (step + 1) / 20) * 0.97**step, False),
    ],
)
def test_a_rate_that_falls_and_rises_all_the_time_is_named(setup, factor, found):
    setup.schedule = lambda optimizer: LambdaLR(optimizer, factor)
    assert any("and rises again" in one.seen for one in look(setup, "schedule-teaches")) == found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: AdamW(model.parameters(), betas=(0.999, 0.9)), "its size that of 10"),
        (lambda model: SGD(model.parameters(), lr=1e-3, momentum=0.999), "mean of some 1000"),
        (lambda model: AdamW(model.parameters(), betas=(0.95, 0.99)), ""),
        (lambda model: SGD(model.parameters(), lr=1e-3, momentum=0.95), ""),
        (lambda model: SGD(model.parameters(), lr=1e-3), ""),
    ],
)
def test_momentum_that_does_not_forget_is_named(setup, make, words):
    setup.optimizer, setup.schedule = make, None
    found = look(setup, "momentum-forgets")
    has(found, "warning", words) if words else None
    assert bool(found) == bool(words)
