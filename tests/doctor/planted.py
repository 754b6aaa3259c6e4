"""Faults that tests plant in healthy data, and what the doctor says of them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib import augment, voc
from course_lib.doctor import data, examine, pipeline, setups
from course_lib.doctor.patient import Patient
from course_lib.voc import Target

SIDE = 96
NAMES = [one.name for one in (*data.CHECKS, *pipeline.CHECKS)]
OF_BATCHES = (
    *("batches-can-be-made", "batches-have-objects", "boxes-in-batches", "labels-in-batches", "pixels-in-batches"),
    *("labels-are-those-of-the-data", "images-are-those-of-their-targets", "colours-are-those-of-the-data"),
    *("augmentation-differs", "every-pass-differs", "boxes-are-on-objects-in-batches", "memory-of-a-batch"),
)


def made_of(part: Any) -> Any:
    """What a partial function is made of, so that two of them can be equal; anything else as it is."""
    return (part.func, part.args, part.keywords) if isinstance(part, partial) else part


def in_memory(devkit: Path, name: str) -> setups.InMemory:
    """All images of a list of 2007, read once."""
    dataset = voc.VOCDetection(devkit, "2007", name)
    return setups.InMemory(tuple(dataset[index] for index in range(len(dataset))), dataset.classes)


def with_boxes(healthy: setups.InMemory, change: Callable[[Tensor, Tensor], Tensor]) -> setups.InMemory:
    """The same data with other boxes, made of the boxes and of width, height, width, height in pixels."""
    samples = tuple(
        (image, replace(t, boxes=change(t.boxes, torch.tensor([*t.size, *t.size], dtype=torch.float32))))
        for image, t in healthy.samples
    )
    return setups.InMemory(samples, healthy.classes)


def with_labels(healthy: setups.InMemory, change: Callable[[Tensor], Tensor]) -> setups.InMemory:
    return setups.InMemory(
        tuple((image, replace(t, labels=change(t.labels))) for image, t in healthy.samples), healthy.classes
    )


def with_images(healthy: setups.InMemory, change: Callable[[np.ndarray], np.ndarray]) -> setups.InMemory:
    return setups.InMemory(tuple((change(image), t) for image, t in healthy.samples), healthy.classes)


def size(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]


def mirrored(boxes: Tensor) -> Tensor:
    return torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], dim=1)


class After:
    """A transform, and what a loop does wrong after it."""

    def __init__(self, change: Callable[[Tensor, Target, int], tuple[Tensor, Target]], first: Callable | None = None):
        self.first, self.change, self.number = first or augment.training_mini(SIDE), change, 0

    def seed(self, number: int) -> None:
        self.number = number
        if hasattr(self.first, "seed"):
            self.first.seed(number)

    def __call__(self, image: np.ndarray, target: Target) -> tuple[Tensor, Target]:
        return self.change(*self.first(image, target), self.number)


class Seeded:
    """A transform that takes the same random numbers in every call, or in every batch."""

    def __init__(self, every: int) -> None:
        self.inner, self.every, self.calls = augment.training(SIDE), every, 0

    def __call__(self, image, target):
        self.inner.seed(self.calls % self.every)
        self.calls += 1
        return self.inner(image, target)


def cropped(image: Tensor, target: Target, number: int) -> tuple[Tensor, Tensor]:
    """A window of the picture, enlarged to its size, and the boxes in it, not clipped."""
    side = image.shape[-1]
    window = int(side * 0.6)
    x, y = np.random.default_rng(number).integers(0, side - window, 2).tolist()
    cut = image[None, :, y : y + window, x : x + window].float()
    boxes = (target.boxes * side - torch.tensor([x, y, x, y])) / window
    return torch.nn.functional.interpolate(cut, (side, side))[0].byte(), boxes


def centred(boxes: Tensor) -> Tensor:
    """Which boxes have their centre in the picture."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centre > 0) & (centre < 1)).all(dim=1)


def batches(
    healthy: setups.InMemory, change: Callable[[voc.Batch], voc.Batch] = lambda batch: batch, size: int = 8
) -> setups.Batches:
    """The data in batches, to which a loop does something."""
    return setups.Batches(healthy, augment.training_mini(SIDE), lambda some: change(voc.collate(some)), size)


def in_rows(change):
    """A change of the labels that are no padding."""
    return lambda batch: batch._replace(labels=torch.where(batch.labels > 0, change(batch.labels), batch.labels))


def findings(patient: Patient, *only: str, severity: tuple[str, ...] = ("fault", "warning")) -> list[tuple[str, str]]:
    """Check and words of each finding of the data's and the pipeline's checks."""
    report = examine(patient, only=only or NAMES)
    return [(one.check, one.seen) for one in report.of(*severity)]


def wrong_boxes(healthy: setups.InMemory, change: Callable[[Tensor, Tensor], Tensor]) -> list[tuple[str, str]]:
    """What is said of data whose boxes are all changed; slivers at an edge, which clipping leaves, are told beside."""
    found = findings(Patient(data=with_boxes(healthy, change)))
    return [(check, seen) for check, seen in found if check != "boxes-are-sound"]
