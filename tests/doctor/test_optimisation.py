from copy import deepcopy
from functools import partial

import pytest
import torch
from small_patient import seen_in, small_setup
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, MultiStepLR, OneCycleLR, StepLR

from course_lib import losses, schedules
from course_lib.doctor import Patient
from course_lib.doctor.optimisation import CHECKS
from course_lib.doctor.setups import fill, fresh, usual_optimizer

NAMES = [one.name for one in CHECKS]
STATIC = [name for name in NAMES if name != "step-is-whole"]
RATES = ("rates-teach", "schedule-teaches")


@pytest.fixture
def setup(small_devkit):
    """A training whose trunk is known, and frozen in its first blocks."""
    setup = small_setup(small_devkit)
    setup.pretrained = {f"backbone.{name}": t.clone() for name, t in setup.model.backbone.state_dict().items()}
    setup.frozen = fill(setup.model, setup.pretrained)
    return setup


def look(setup, *names):
    return seen_in(setup.patient(), *(names or STATIC))


def serious(findings):
    return [one for one in findings if one.severity != "note"]


def has(findings, severity, words):
    assert any(one.severity == severity and words in one.seen for one in findings), findings


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
        (lambda o: ExponentialLR(o, 1.05), "fault", "rises through the whole training"),
        (lambda o: LambdaLR(o, lambda step: (step + 1) / 4000), "warning", "rises through the whole training"),
        (lambda o: LambdaLR(o, lambda step: float("nan") if step > 9 else 1.0), "fault", "at step 10 is nan"),
        (of_another, "fault", "another optimizer"),
    ],
)
def test_other_schedules_are_named(setup, make, severity, words):
    setup.schedule = make
    has(look(setup, *RATES), severity, words)


def random_model(setup):
    setup.model.load_state_dict(fresh(type_of(setup), setup.classes, seed=1).state_dict())


def type_of(setup):
    from course_lib import ssd

    return ssd.ARCHITECTURES[setup.model.architecture]


def rename(setup):
    setup.pretrained = {f"module.{name}": t for name, t in setup.pretrained.items()}


def rename_some(setup):
    setup.pretrained = {
        name if number % 4 else f"old.{name}": t for number, (name, t) in enumerate(setup.pretrained.items())
    }


def spoil(setup):
    setup.pretrained = {name: t * float("nan") if t.ndim > 1 else t for name, t in setup.pretrained.items()}


def cut(setup):
    setup.pretrained = {name: t[:1] if t.ndim > 1 else t for name, t in setup.pretrained.items()}


def freeze(part):
    return lambda setup: setup.model.get_submodule(part).requires_grad_(False)


def freeze_all(setup):
    setup.model.requires_grad_(False)


def melt(setup):
    setup.model.requires_grad_(True)


def fill_kernels(value):
    def change(setup):
        for p in setup.model.parameters():
            if p.ndim > 1:
                p.data.fill_(value)

    return change


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (random_model, "fault", "pretrained kernels are not in the model"),
        (rename, "fault", "have names that the model does not"),
        (rename_some, "warning", "have names that the model does not"),
        (spoil, "fault", "pretrained weights hold NaN"),
        (cut, "warning", "have another shape"),
        (freeze("conf_heads"), "fault", "parameters of the heads of the logits do not learn"),
        (freeze("loc_heads.0"), "fault", "parameters of the heads of the offsets do not learn"),
        (freeze("backbone"), "fault", "nobody has meant to freeze"),
        (freeze("extras.0"), "warning", "nobody has meant to freeze"),
        (freeze("backbone"), "warning", "hold nothing that learns"),
        (freeze_all, "fault", "no parameter of the model learns"),
        (melt, "warning", "learn that were meant to stay"),
        (fill_kernels(0.0), "fault", "are the same: 0"),
        (fill_kernels(0.01), "fault", "are the same: 0.01"),
        (fill_kernels(float("nan")), "fault", "tensors of the model hold NaN"),
    ],
)
def test_other_weights_are_named(setup, change, severity, words):
    change(setup)
    has(look(setup), severity, words)


def test_frozen_parts_of_which_nothing_is_known_are_a_note_unless_they_are_heads(setup):
    setup.frozen = None
    assert [one.severity for one in look(setup, "parameters-learn")] == ["note"]
    setup.model.loc_heads.requires_grad_(False)
    assert look(setup, "parameters-learn")[0].severity == "fault"


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


def test_weights_that_stay_or_become_nan_are_named(setup):
    setup.optimizer, setup.schedule = at_rate(0.0), None
    has(look(setup, "step-is-whole"), "fault", "leave every weight as it is")
    setup.optimizer, setup.clip_norm = at_rate(1e38), None
    has(look(setup, "step-is-whole"), "fault", "hold NaN")


def test_what_is_not_there_is_not_examined():
    assert seen_in(Patient(), *NAMES) == []
