"""Which weights detections come from: those that are trained, a copy of them, or an average over the steps."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_lib.detect import Detections
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note
from course_lib.doctor.patient import Patient
from course_lib.doctor.steps import first_steps, taken

JOLT = 0.02  # of each weight: an average that moves by a ten thousandth of a step's own length is lost in rounding
STILL_START = 0.1  # of an average's weight that its start has, above which it is not what was trained
SLOW = 0.01  # of the way in a step


@dataclass(frozen=True)
class Follower:
    """How the weights that detections come from follow those that are trained.

    Attributes:
        share: of the way to the trained weights that they go in one step: 1 where they are the same.
        apart: how far they were from them before, as a share of their length.
        changed: whether other boxes or scores are detected then.
    """

    share: float
    apart: float
    changed: bool

    def left(self, steps: int) -> float:
        """The share that the weights of now have in those of so many steps later."""
        return (1 - min(max(self.share, 0.0), 1.0)) ** steps


def weights(model: nn.Module) -> Tensor:
    """All parameters in one row."""
    return torch.cat([p.detach().float().flatten() for p in model.parameters()])


class AtWork(NamedTuple):
    """A network that detects, its weights then, and what is detected."""

    part: nn.Module
    weights: Tensor
    detections: list[Detections]


def at_work(patient: Patient, batch: Any) -> AtWork | None:
    """What detections come from: the first network that is called and built as the model is.

    An average may be a network of its own, or be put into the model for as long as it detects.
    """
    shapes = {name: p.shape for name, p in patient.model.named_parameters()}
    found: list[tuple[nn.Module, Tensor]] = []

    def look(part: nn.Module, inputs: Any) -> None:
        if not found and {name: p.shape for name, p in part.named_parameters()} == shapes:
            found.append((part, weights(part)))

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        detections = patient.detect(batch)
    finally:
        handle.remove()
    return AtWork(*found[0], detections) if found else None


def same(some: Sequence[Detections], others: Sequence[Detections]) -> bool:
    """Whether boxes and scores are the same to the last bit."""
    return all(
        a.scores.shape == b.scores.shape and torch.equal(a.scores, b.scores) and torch.equal(a.boxes, b.boxes)
        for a, b in zip(some, others, strict=True)
    )


def follower(patient: Patient) -> Follower | None:
    """How detection follows training; None where it does not call a network that is built as the model is."""

    def made() -> Follower | None:
        with patient.undisturbed():
            return followed(patient)

    return patient.remembered("follower", made)


def lags(patient: Patient, steps: int) -> bool:
    """Whether so many steps leave much of what the weights were that detections come from."""
    found = follower(patient)
    return found is not None and found.left(steps) > STILL_START


def followed(patient: Patient) -> Follower | None:
    """See `follower`: the model's weights are moved by far more than a step moves them, and then a step is taken."""
    batch = patient.few_images()
    found = at_work(patient, batch)
    if found is None:
        return None
    (part, before, detections), start, chance = found, weights(patient.model), torch.Generator().manual_seed(0)
    state = deepcopy(part.state_dict())
    with torch.no_grad():
        for parameter in patient.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1 + JOLT * torch.randn(parameter.shape, generator=chance).to(parameter))
    share, changed = 0.0, False
    for steps in (1, RARE):  # of an average that is kept every some steps the first may be none
        taken(patient, steps)
        way, again = weights(patient.model) - before, at_work(patient, batch)
        if again is not None and not torch.equal(again.weights, before):
            share = 1 - (1 - min(float((again.weights - before) @ way / (way @ way)), 1.0)) ** (1 / steps)
            changed = not same(again.detections, detections)
            break
    if part is not patient.model:
        part.load_state_dict(state)
    return Follower(share, float((start - before).norm() / start.norm().clamp(min=1e-12)), changed)


RARE = 8  # steps


@check("batches", "model", "optimizer", "step", "detect")
def detection_follows_training(patient: Patient) -> Iterator[Finding]:
    """Does detection give other numbers once the network has been trained?"""
    batch = patient.few_images()
    before = patient.detect(batch)
    if not any(len(one.scores) for one in before) or not first_steps(patient).moved:
        return
    found = follower(patient)
    if found is not None and 0 < found.share < SLOW:
        yield of_average(found, patient.steps)
        return
    if found is not None and found.share > 0 and found.changed:
        return
    taken(patient, 2)
    if same(before, patient.detect(batch)):
        yield fault(
            "two steps change the network's weights, and no box or score of what is detected",
            "what is measured is another network: a copy from before the training, or an average that nobody updates",
            "detect with the network that is trained, or update its copy behind every step",
            10,
        )


def of_average(found: Follower, steps: int | None) -> Finding:
    """An average of the weights that is too slow for the training, or may be: not each says how long it is."""
    seen = (
        f"detections come from an average of the weights, which goes {found.share:.2g} of the way to the trained ones "
        "in a step"
    )
    why = "what is measured and used is for the most part the network as it was before the training"
    cure = (
        "let the average begin quickly: a decay of min(decay, (1 + step) / (10 + step)), or a start after some epochs"
    )
    if steps and found.left(steps) > STILL_START and found.apart < NEAR:
        left = f"after the {steps:,} steps of this training {found.left(steps):.0%} of it is still its start"
        return fault(f"{seen}: {left}", why, cure, 10)
    return note(
        f"{seen}: it needs some {3 / found.share:,.0f} steps to forget its start", f"until then {why}", cure, 10
    )


NEAR = 1e-3  # of the weights' length: an average that was kept before has a past of its own
