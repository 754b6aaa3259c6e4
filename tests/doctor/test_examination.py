from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib.doctor import Patient, examination
from course_lib.doctor.checks import check
from course_lib.doctor.findings import note


@check("data")
def first(patient):
    """Is there data?"""
    yield note("1", "", "", 1)


@check("model")
def second(patient):
    """Does a forward leave no trace?"""
    patient.model.train()(torch.ones(4, 2))
    torch.rand(3)
    yield note("2", "", "", 1)


@check("step", learning=True)
def third(patient):
    """Does it learn?"""
    for _ in range(3):
        patient.step(None)
    yield note("3", "", "", 1)


@check("data")
def broken(patient):
    """Does a stranger's code fail?"""
    raise KeyError("boxes\nand more")
    yield


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.setattr(examination, "every_check", lambda: (first, second, third, broken))


def learner():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))

    def losses(batch):
        return {"loc": model.train()(torch.arange(8.0).view(4, 2)).square().sum()}

    return Patient(model=model, optimizer=optimizer, schedule=schedule, losses=losses)


def test_what_lacks_a_part_is_not_examined_and_what_does_not_is(checks):
    report = examination.examine(Patient(data=[1]))
    assert report.examined == ("first", "broken")
    assert report.not_examined == {"second": "without model", "third": "without step"}


def test_a_part_that_fails_is_a_finding_in_one_line(checks):
    finding = examination.examine(Patient(data=[1]), only=["broken"]).findings[0]
    assert finding.severity == "fault" and finding.check == "broken"
    assert "KeyError" in finding.seen and "\n" not in finding.seen


def test_one_broken_part_is_one_finding(monkeypatch):
    """Forty checks said that a crop is larger than the image."""

    def transform(image, target):
        return [][1]

    def looking(name):
        def function(patient):
            """Does it work?"""
            yield patient.transform(None, None)

        function.__name__ = name
        return check("transform")(function)

    monkeypatch.setattr(examination, "every_check", lambda: (looking("a"), looking("b"), looking("c")))
    report = examination.examine(Patient(transform=transform))
    (finding,) = report.findings
    assert finding.check == "a" and "in transform, test_examination.py line" in finding.seen
    assert report.not_examined == dict.fromkeys("bc", "for the same error as a")


def test_the_same_failure_is_found_once_and_the_others_that_meet_it_are_not_examined(monkeypatch):
    again, another = replace(broken, name="again"), replace(broken, name="another", run=lambda patient: 1 / 0)
    monkeypatch.setattr(examination, "every_check", lambda: (first, broken, again, another))
    report = examination.examine(Patient(data=[1]))
    assert [one.check for one in report.of("fault")] == ["broken", "another"]
    assert report.not_examined == {"again": "for the same error as broken"}
    assert report.examined == ("first", "broken", "another")


def test_checks_that_train_can_be_left_out_and_some_can_be_asked_for(checks):
    assert examination.examine(learner(), learning=False).examined == ("second",)
    assert examination.examine(learner(), only=["third"]).examined == ("third",)
    with pytest.raises(ValueError, match="forth: no such check; there are first, second"):
        examination.examine(learner(), only=["forth"])


def test_an_examination_changes_nothing(checks):
    """Not a weight, statistic, momentum, rate, gradient, mode, nor a random number that comes next."""
    patient, twin = learner(), learner()
    twin.model.load_state_dict(patient.model.state_dict())
    for one in (patient, twin):
        one.step(None)
    patient.model.eval(), twin.model.eval()
    torch.manual_seed(3)
    assert [one.seen for one in examination.examine(patient).findings] == ["2", "3"]
    next_number = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(next_number, torch.rand(1))
    assert not any(layer.training for layer in patient.model.modules())
    for name, tensor in twin.model.state_dict().items():
        assert torch.equal(tensor, patient.model.state_dict()[name]), name
    for one, other in zip(patient.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for one in (patient, twin):
        one.step(None)
    for one, other in zip(patient.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert patient.optimizer.param_groups[0]["lr"] == twin.optimizer.param_groups[0]["lr"]
