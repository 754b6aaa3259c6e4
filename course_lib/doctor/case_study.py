"""The case study: both runs of a published training log at small scale, and their repairs, one by one.

The log is adrirubio/ml-rover's, states 6e5d2f7 (run A) and 849686a (run B); chapter 14 tells the story.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course_lib import losses, ssd
from course_lib.boxes import decode
from course_lib.doctor import controls, exhibits_loss, exhibits_matching, exhibits_model, exhibits_optimisation
from course_lib.doctor.exhibits_detection import detecting
from course_lib.doctor.practice import batches_of, batches_to_measure, measured
from course_lib.doctor.setups import Setup, healthy

SMALLEST = 9.6  # pixels of 96: the published code's smallest prior is a tenth of the image wide too
LOUDER = 4.0  # conv4_3, beside the other maps; at the museum's 30 the first class loss would drown the boxes'
RUNS = ("A", "B")


@dataclass(frozen=True)
class Repair:
    """One thing that is wrong in a run, and how it is mended.

    Attributes:
        name: of the repair.
        fault: what is wrong, in a sentence.
        cure: the line that mends it.
        plant: what is done to a healthy set-up where it is not repaired.
        named_by: the doctor's checks that name it: once what stands before it is mended, its first finding is theirs.
        runs: those that have the fault.
    """

    name: str
    fault: str
    cure: str
    plant: Callable[[Setup], None]
    named_by: tuple[str, ...]
    runs: tuple[str, ...] = RUNS


def another_network(setup: Setup) -> None:
    """Two heads at one stride, no L2Norm, no dilation, and nothing pretrained behind conv5."""
    exhibits_matching.two_heads_at_one_stride(setup, smallest=SMALLEST)
    exhibits_model.fc_left_random(setup)
    exhibits_model.no_l2_norm(setup, louder=LOUDER)
    exhibits_model.no_dilation(setup)


def constant_without_graph(setup: Setup) -> None:
    """A batch without positives costs a constant; here no batch is one, as in the log."""

    def change(parts: dict[str, Tensor], matches: Any) -> dict[str, Tensor]:
        return parts if exhibits_loss.positives(matches) else dict.fromkeys(parts, torch.tensor(0.0))

    exhibits_loss.change_loss(setup, change)


def focal_over_all(setup: Setup) -> None:
    """The museum's focal loss without a prior, on a softmax, as the published code has it."""
    setup.loss = losses.SoftmaxFocalLoss()


REPAIRS = (
    Repair(
        "units",
        "Boxes are pixels, priors are fractions. Nothing overlaps, and a loop in which the last object wins gives "
        "prior 0 to one object of every picture.",
        "boxes / image size, and matching.match",
        exhibits_matching.pixels_against_fractions,
        ("boxes-stay-on-their-objects", "boxes-in-batches", "objects-have-priors"),
    ),
    Repair(
        "edges",
        "Priors are cut off at the edge of the picture: neighbours with the same weights have other shapes.",
        "no clamp on priors",
        exhibits_matching.corners_clipped,
        ("priors-on-the-image",),
    ),
    Repair(
        "variances",
        "Offsets are not divided by 0.1 and 0.2: the boxes' part of the loss is too quiet.",
        "boxes.encode and boxes.decode",
        exhibits_matching.no_variances,
        ("matched-offsets",),
    ),
    Repair(
        "start",
        "Focal loss is summed over all priors, and the heads expect an object everywhere.",
        "losses.expect_background(model)",
        focal_over_all,
        ("first-loss", "loss-balances-background"),
        ("B",),
    ),
    Repair(
        "graph",
        "A batch without an object costs a constant, which has no graph.",
        "divide by positives.clamp(min=1)",
        constant_without_graph,
        ("loss-survives",),
    ),
    Repair(
        "network",
        "Two maps at one stride, no L2Norm on conv4_3, fc6 without dilation, fc6 and fc7 random.",
        "the paper's network, all of its trunk pretrained",
        another_network,
        ("heads-see-one-scale", "pretrained-is-there"),
    ),
    Repair(
        "freezing",
        "More is frozen than was meant, and a parameter group is left empty.",
        "count what is frozen, by name",
        exhibits_optimisation.frozen_up_to_conv4_3,
        ("parameters-learn", "optimizer-holds-all"),
    ),
    Repair(
        "rate",
        "The rate of epoch e is e / 5 of its peak, and epochs count from 0: the first has none.",
        "(epoch + 1) / 5",
        exhibits_optimisation.first_epoch_at_rate_0,
        ("schedule-teaches", "step-is-whole"),
        ("A",),
    ),
)


def repairs_of(name: str) -> tuple[Repair, ...]:
    """The repairs of a run, in the order in which the doctor names what they mend.

    Raises:
        ValueError: there is no such run.
    """
    if name not in RUNS:
        raise ValueError(f"run is {name!r}: the log has {' and '.join(RUNS)}")
    return tuple(one for one in REPAIRS if name in one.runs)


def run(name: str, repaired: int, data: Sequence, held_out: Sequence, trunk: ssd.SSD | None = None) -> Setup:
    """A run of the log after so many repairs; after all of them it is a healthy training.

    Args:
        name: "A", with hard negatives, or "B", with focal loss.
        repaired: how many of `repairs_of(name)` are made, from the first on.
        data, held_out, trunk: see `setups.healthy`.

    Raises:
        ValueError: there is no such run, or there are not so many repairs.
    """
    repairs = repairs_of(name)
    if not 0 <= repaired <= len(repairs):
        raise ValueError(f"repaired is {repaired}: run {name} has {len(repairs)} repairs")
    return ill_with(name, [one.name for one in repairs[repaired:]], data, held_out, trunk)


def ill_with(
    name: str, missing: Collection[str], data: Sequence, held_out: Sequence, trunk: ssd.SSD | None = None
) -> Setup:
    """A run of the log in which certain repairs are missing, and all others are made.

    Args:
        missing: names of repairs of this run; see `run` for the others.

    Raises:
        ValueError: there is no such run, or one of the names is none of its repairs.
    """
    repairs = {one.name: one for one in repairs_of(name)}
    if unknown := set(missing) - set(repairs):
        raise ValueError(f"missing is {', '.join(sorted(unknown))}: run {name} has {', '.join(repairs)}")
    setup = healthy(data, held_out, trunk)
    # Another network first: it brings its own priors and trunk, which other faults then spoil.
    if "network" in missing:
        another_network(setup)
    if name == "B" and "start" not in missing:
        controls.with_loss(setup, losses.SoftmaxFocalLoss())
    for one in repairs.values():
        if one.name in missing and one.name != "network":
            one.plant(setup)
    side = setup.model.image_size if "units" in missing else 1
    variances = (1.0, 1.0) if "variances" in missing else (0.1, 0.2)
    # Whatever the unit, boxes are read as they were learned: what mAP then says is what was learned.
    setup.made_last["detect"] = detecting(lambda offsets, priors: decode(offsets, priors, variances) / side)
    return setup


def train(setup: Setup, steps: int | None = None, every: int = 50) -> dict:
    """Train a set-up, and measure it on the way.

    Args:
        steps: None: the set-up's own number, which its schedule is made for.
        every: steps from one measurement to the next; the first is before the first step.

    Returns:
        "losses": of each step, by name; "measured": "step", the losses on held-out images, "map", "recall"; "found":
        the detections in all held-out images at the end.
    """
    steps = steps or setup.steps
    patient, held_out = setup.patient(), batches_to_measure(setup)
    truth = [setup.held_out[index][1] for index in range(len(setup.held_out))]
    numbers, found = measured(patient, held_out, truth)
    history, steps_taken = [{"step": 0} | numbers], []
    for step, batch in enumerate(batches_of(setup, steps), start=1):
        parts = patient.step(batch)
        steps_taken.append({name: float(value) for name, value in parts.items()})
        if step % every == 0 or step == steps:
            numbers, found = measured(patient, held_out, truth)
            history.append({"step": step} | numbers)
    return {"losses": steps_taken, "measured": history, "found": found}
