"""What is read of a patient's data: its targets, a sample of its pictures, and what cannot be read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.annotations import known_names, read_annotation
from course_lib.doctor.patient import Patient, as_target
from course_lib.files import DataError
from course_lib.voc import Batch, Target, xml_in

PICTURES = 64  # that are looked at, spread over the data
PIXELS = 40_000_000  # that are decoded in all: fewer pictures where they are large
BATCHES, IMAGES = 3, 32  # of the loop's that are looked at, at least
WHERE = {"data": "", "held_out": "held-out data: "}


@dataclass(frozen=True)
class Objects:
    """All objects of some images, one row each.

    Attributes:
        boxes: as they are written, whatever that means.
        labels: of the boxes.
        image: the place of each object's image among `ids`.
        sizes: width and height, pixels, of each object's image.
        ids: of the images, also of those without objects.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    image: Int[Tensor, " N"]
    sizes: Float[Tensor, "N 2"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def without_any(self) -> "Objects":
        """The same images, and no object."""
        none = torch.zeros(len(self), dtype=torch.bool)
        return replace(
            self, boxes=self.boxes[none], labels=self.labels[none], image=self.image[none], sizes=self.sizes[none]
        )

    def where(self, chosen: Tensor) -> str:
        """How many objects are chosen, of how many, and in which image the first of them is."""
        count = int(chosen.sum())
        first = self.ids[int(self.image[chosen][0])] if count else "none"
        return f"{count:,} of {len(self):,} objects (the first in image {first})"

    @cached_property
    def per_image(self) -> Int[Tensor, " images"]:
        """How many objects each image has."""
        return torch.bincount(self.image, minlength=len(self.ids))


def objects_of(targets: Sequence[Target]) -> Objects:
    """The objects of some targets; what is no number of the right shape there raises an error."""
    counts = torch.tensor([len(target.labels) for target in targets], dtype=torch.int64)
    sizes = torch.tensor([tuple(target.size) for target in targets], dtype=torch.float64).reshape(-1, 2)
    image = torch.repeat_interleave(torch.arange(len(targets)), counts)
    boxes = [torch.as_tensor(target.boxes).reshape(-1, 4).double() for target in targets]
    labels = [torch.as_tensor(target.labels).reshape(-1).long() for target in targets]
    none = torch.zeros(0, dtype=torch.int64)
    return Objects(
        torch.cat([torch.zeros(0, 4, dtype=torch.float64), *boxes]),
        torch.cat([none, *labels]),
        image,
        sizes[image],
        tuple(str(target.image_id) for target in targets),
    )


def objects_in(batches: Sequence[Batch]) -> Objects:
    """The objects in the slots of some batches that are no padding; an image's size is the one it came with."""
    targets = []
    for batch in batches:
        for boxes, labels, image_id, size in zip(batch.boxes, batch.labels, batch.image_ids, batch.sizes, strict=True):
            real = labels != 0
            targets.append((boxes[real].cpu(), labels[real].cpu().long(), str(image_id), tuple(size)))
    return objects_of([Target(b.float(), n, torch.zeros(len(n), dtype=torch.bool), i, s) for b, n, i, s in targets])


@dataclass(frozen=True)
class Reading:
    """What could be read of some data, and what could not.

    Attributes:
        targets: of the images whose target could be read.
        problems: an error for each thing that could not.
        unknown: names of objects that are none of the classes, and how many objects have each.
    """

    targets: list[Target]
    problems: list[Exception]
    unknown: Counter[str]


def reading(patient: Patient, part: str = "data") -> Reading:
    """The targets of a patient's `data` or `held_out`, as far as they can be read; they are read once.

    What one broken annotation says is one finding, and no reason for all checks to fail: so the patient's `targets`
    are from then on those that can be read.
    """

    def make() -> Reading:
        data = getattr(patient, part)
        found = of_sets(data) if hasattr(data, "sets") else of_others(data)
        patient.memory["targets" if part == "data" else "held_out_targets"] = found.targets
        return found

    return patient.remembered(f"reading of {part}", make)


def of_sets(data: Any) -> Reading:
    """What the annotations of an `ImageDataset` say, or of other data that has image sets; no image is read."""
    targets, problems, unknown = [], [], Counter()
    for item in items_of(data):
        try:
            annotation = read_annotation(xml_in(*item), data.classes, problems)
        except DataError as error:
            problems.append(error)
            continue
        unknown.update(annotation.unknown)
        target = as_target(annotation)
        targets.append(target if getattr(data, "keep_difficult", True) else without_difficult(target))
    known = known_names(data.classes)  # some of VOC's classes are a choice among them
    return Reading(targets, problems, Counter({name: count for name, count in unknown.items() if name not in known}))


def items_of(data: Any) -> list[tuple[Path, str]]:
    """Tree and id of each image of some image sets."""
    return [(one.tree, image_id) for one in data.sets for image_id in one.ids]


def without_difficult(target: Target) -> Target:
    kept = ~target.difficult
    return replace(target, boxes=target.boxes[kept], labels=target.labels[kept], difficult=target.difficult[kept])


def of_others(data: Any) -> Reading:
    """The targets of any other data, one by one."""
    if hasattr(data, "annotations"):
        return Reading([as_target(annotation) for annotation in data.annotations()], [], Counter())
    targets, problems = [], []
    for index in range(len(data)):
        try:
            targets.append(data[index][1])
        except Exception as error:  # whatever a stranger's code raises is what was seen
            problems.append(error)
    return Reading(targets, problems, Counter())


def objects(patient: Patient, part: str = "data") -> Objects:
    """All objects of a patient's `data` or `held_out`."""
    return patient.remembered(f"objects of {part}", lambda: objects_of(reading(patient, part).targets))


@dataclass(frozen=True)
class Picture:
    """An image of the data and its target, as `data[index]` gives them."""

    index: int
    image: np.ndarray
    target: Target


def spread(length: int, count: int) -> list[int]:
    """So many places of a sequence, each at most once: one at random, always the same, of each of as many parts.

    Evenly spaced places would miss, or meet, every third one of a sequence throughout.
    """
    count = min(length, count)
    edges = np.arange(count + 1) * length // max(count, 1)
    inside = np.random.default_rng(0).random(count) * np.diff(edges)
    return (edges[:-1] + inside.astype(int)).tolist()


def pictures(patient: Patient, part: str = "data", count: int = PICTURES) -> tuple[list[Picture], list[Exception]]:
    """A sample of the pictures of a patient's data, and an error for each that could not be read.

    None where there are annotations alone.

    Args:
        count: the most that are looked at.
    """

    def make() -> tuple[list[Picture], list[Exception]]:
        data, found, problems, pixels = getattr(patient, part), [], [], 0
        if not hasattr(data, "__getitem__"):
            return found, problems
        for index in np.random.default_rng(0).permutation(spread(len(data), count)).tolist():
            if pixels > PIXELS * count / PICTURES and len(found) >= 8:
                break
            try:
                image, target = data[index]
            except Exception as error:  # whatever a stranger's code raises is what was seen
                problems.append(error)
                continue
            array = np.asarray(image)
            pixels += array.size // 3
            found.append(Picture(index, array, target))
        return sorted(found, key=lambda one: one.index), problems

    return patient.remembered(f"{count} pictures of {part}", make)


@dataclass(frozen=True)
class LoopBatches:
    """The first batches of a loop: in its own form, and as they are read; or the error that comes instead."""

    raw: list
    read: list[Batch]
    error: Exception | None = None


def loop_batches(patient: Patient) -> LoopBatches:
    """The first batches, as many as have some thirty images; what cannot be made is one finding, not one a check."""

    def make() -> LoopBatches:
        try:
            raw = patient.first_batches(BATCHES)
            size = len(patient.read(raw[0]).images) if raw else 1
            raw = patient.first_batches(max(BATCHES, min(8, IMAGES // max(size, 1))))
            return LoopBatches(raw, [patient.read(batch) for batch in raw])
        except Exception as error:  # whatever a stranger's code raises is what was seen
            return LoopBatches([], [], error)

    return patient.remembered("loop's batches", make)


def as_rgb(image: np.ndarray) -> np.ndarray | None:
    """A picture as `uint8 [H, W, 3]`, whatever its order of axes and scale; None where it is no picture."""
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    if image.ndim != 3:
        return None
    if image.shape[-1] not in (1, 3) and image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.shape[-1] == 1:
        image = image.repeat(3, axis=-1)
    if image.shape[-1] != 3 or not np.isfinite(image).all():
        return None
    if image.dtype == np.uint8:
        return image
    image = image.astype(np.float32)
    low, high = float(image.min(initial=0)), float(image.max(initial=0))
    if low >= 0 and high <= 1:
        image = image * 255
    elif low < 0:
        image = (image - low) / (high - low) * 255
    return image.clip(0, 255).astype(np.uint8)


def training_size(patient: Patient) -> int | None:
    """The side in pixels of the images that the network is given, where that is known."""
    side = getattr(patient.model, "image_size", None)
    if isinstance(side, int):
        return side
    if patient.has("batches") and loop_batches(patient).read:
        return int(loop_batches(patient).read[0].images.shape[-1])
    return None


def number_of_classes(patient: Patient) -> int | None:
    """How many classes there are without background, where that is known."""
    if patient.classes is not None:
        return len(patient.classes)
    count = getattr(patient.model, "num_classes", None)
    return count - 1 if isinstance(count, int) else None
