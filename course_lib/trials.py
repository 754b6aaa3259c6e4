"""A trial: one set-up, trained from one seed and measured, in seconds; whatever happens to it is a result."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from statistics import fmean
from typing import Any

import cv2
import torch
from torch import Tensor, nn

from course_lib import metrics
from course_lib.detect import NotFinite
from course_lib.doctor.patient import Patient
from course_lib.doctor.practice import batches_of, batches_to_measure, losses_on
from course_lib.doctor.setups import InMemory, Setup
from course_lib.schedules import Plateau
from course_lib.voc import Batch

POINTS = 12  # of a curve, and moments at which the held-out losses are measured
AT_ONCE = 32  # images in a batch that is measured


def shrunk_to(data: Any, side: int, images: int | None = None) -> InMemory:
    """The first images of a data set, squares of `side` pixels in memory: read once, a loader costs nothing.

    Boxes are fractions, and stay. The size that a target names is that of the file.

    Args:
        data: `data[i]` is an image `uint8 [H, W, 3]` and its target; it has `classes`.
        images: how many; None: all.
    """
    count = len(data) if images is None else min(images, len(data))
    pairs = (data[index] for index in range(count))
    samples = tuple((cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), target) for image, target in pairs)
    return InMemory(samples, tuple(data.classes))


class GradientLength:
    """How long a step's gradient was when it was computed, before anybody shortens it; a context."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.lengths: dict[int, Tensor] = {}

    def __enter__(self) -> "GradientLength":
        self.handles = [one.register_post_accumulate_grad_hook(self.note) for one in self.parameters]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def note(self, parameter: Tensor) -> None:
        self.lengths[id(parameter)] = torch.linalg.vector_norm(parameter.grad.detach())

    def __float__(self) -> float:
        """The Euclidean length of all parameters' gradients together."""
        return float(torch.linalg.vector_norm(torch.stack(list(self.lengths.values()))))


def thinned(values: Sequence[float], points: int = POINTS) -> list[float]:
    """The means of `points` equally long stretches, to 4 digits; the values themselves where they are fewer."""
    edges = [round(number * len(values) / points) for number in range(points + 1)]
    stretches = (values[start:end] for start, end in pairwise(edges))
    return [float(f"{fmean(one):.4g}") for one in stretches if one]


def average_precisions(patient: Patient, batches: Sequence[Batch], pictures: InMemory) -> dict[str, float | None]:
    """AP at IoU 0.5 by class.

    Args:
        batches: of these pictures; see `practice.batches_to_measure`.
    """
    found = [one for batch in batches for one in patient.detect(batch)]
    return metrics.evaluate_voc(found, [target for _, target in pictures], classes=patient.classes).ap


def mean_of(ap: dict[str, float | None], classes: Sequence[str] | None = None) -> float:
    """The mean AP of some classes, or of all; those without an object are left out.

    Raises:
        ValueError: none of them has one.
    """
    values = [value for name, value in ap.items() if value is not None and (classes is None or name in classes)]
    if not values:
        raise ValueError(f"AP is {ap}: measure on images that show one of {classes or list(ap)}")
    return fmean(values)


class Trial:
    """One training under way.

    Args:
        setup: a fresh one; its model is trained. Its `held_out` images are measured on the way: their losses tell a
            `schedules.Plateau` when to drop, and which moment is best.
        test: what the end is measured on, and nothing is chosen by.
        choosing: keep the weights of the moment whose held-out loss is lowest, and of that whose mAP is highest, and
            measure them too.
    """

    def __init__(self, setup: Setup, test: InMemory, choosing: bool = False) -> None:
        self.setup, self.test, self.choosing = setup, test, choosing
        self.patient = setup.patient()
        self.held_out = batches_to_measure(setup, AT_ONCE)
        self.tested = batches_to_measure(replace(setup, held_out=test), AT_ONCE)
        self.losses: list[dict[str, float]] = []
        self.lengths: list[float] = []
        self.moments: list[dict[str, float]] = []
        self.best: dict[str, tuple[float, dict]] = {}
        self.seconds = 0.0

    def run(self) -> dict:
        """Train to the end or to the first number that is not finite; gives the record, see `trial`."""
        steps = self.setup.steps
        due = {round(number * steps / POINTS) for number in range(1, POINTS + 1)}
        begun = time.process_time()
        with GradientLength(self.patient.model) as length:
            for step, batch in enumerate(batches_of(self.setup, steps), start=1):
                losses = self.patient.step(batch)
                self.losses.append({name: float(value) for name, value in losses.items()})
                self.lengths.append(float(length))
                if not all(map(isfinite, (*self.losses[-1].values(), self.lengths[-1]))):
                    return self.record(diverged=step)
                if step in due:
                    self.seconds += time.process_time() - begun
                    try:
                        self.look(step)
                    except NotFinite:
                        return self.record(diverged=step)
                    begun = time.process_time()
        try:
            return self.record() | self.result()
        except NotFinite:
            return self.record(diverged=steps)

    def look(self, step: int) -> None:
        """Measure the held-out images, and let the schedule know."""
        losses = losses_on(self.patient, self.held_out)
        total = sum(losses.values())
        self.moments.append({"step": step} | {name: float(f"{value:.4g}") for name, value in losses.items()})
        if isinstance(self.patient.schedule, Plateau):
            self.patient.schedule.measured(-total)
        if self.choosing:
            self.consider("loss", -total)
            score = mean_of(average_precisions(self.patient, self.held_out, self.setup.held_out))
            self.moments[-1]["map"] = round(score, 4)
            self.consider("map", score)

    def consider(self, by: str, score: float) -> None:
        """Keep the weights of this moment where it is the best so far."""
        if isfinite(score) and (by not in self.best or score > self.best[by][0]):
            self.best[by] = score, deepcopy(self.patient.model.state_dict())

    def result(self) -> dict:
        """What the end is worth, and what other moments were."""
        ap = average_precisions(self.patient, self.tested, self.test)
        found = {"map": mean_of(ap), "ap": {name: None if one is None else round(one, 4) for name, one in ap.items()}}
        for by, (_, state) in self.best.items():
            self.patient.model.load_state_dict(state)
            found[f"map_by_{by}"] = mean_of(average_precisions(self.patient, self.tested, self.test))
        return found

    def record(self, diverged: int | None = None) -> dict:
        """What is known without the end: one that diverged has found nothing."""
        totals = [sum(one.values()) for one in self.losses if all(map(isfinite, one.values()))]
        lengths = [one for one in self.lengths if isfinite(one)]
        return {
            "map": 0.0,
            "ap": dict.fromkeys(self.patient.classes, 0.0),
            "diverged": diverged,
            "steps": len(self.losses),
            "images": len(self.losses) * self.setup.batch_size,
            "loss": thinned(totals),
            "gradient": thinned(lengths),
            "longest_gradient": float(f"{max(lengths, default=0.0):.4g}"),
            "moments": self.moments,
            "seconds": round(self.seconds, 1),
        }


def trial(setup: Setup, test: InMemory, choosing: bool = False) -> dict:
    """Train a set-up from its seed and measure it; see `Trial`.

    Returns:
        "map" and "ap" by class on the test images, 0 where the training diverged; "diverged", the step at which a loss,
        a gradient or an output was not finite, or None; "steps" and "images" that were learned from; "loss", the total
        of the training batches, and "gradient", its length before it was shortened, in `POINTS` stretches each;
        "longest_gradient"; "moments", with the losses on the held-out images; "seconds" of this process, of training
        alone; and with `choosing` "map_by_loss" and "map_by_map".
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)  # dropout draws from torch's own generator
        return Trial(setup, test, choosing).run()
