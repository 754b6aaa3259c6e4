"""Objects of other images: what stays in a list or a buffer that nobody clears.

Where it is filled by the reader of annotations, each image has the objects of all before it and some more. Where it is
filled with batches, an image has objects of a batch before, number for number, and nothing like them is to be seen
there: neither a mix of two pictures nor a camera that stands still leaves that.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import Objects, as_rgb, loop_batches, objects, objects_in
from course_lib.voc import Batch

LOOKED_AT, MOST = 400, 10_000  # images, and objects of them
WHY = "in a picture boxes are learned that lie on nothing there, more of them with every image or batch"
CURE = "make the lists and buffers of an image anew for each, and those of a batch: no list as a default argument"


@check("data")
def objects_do_not_pile_up(patient: Patient) -> Iterator[Finding]:
    """Has an image no objects of the images before it in the list?"""
    yield from piled_up(objects(patient), "", 1)


def piled_up(found: Objects, where: str, chapter: int) -> Iterator[Finding]:
    """A fault where most images have all objects of the image before, and more."""
    counts = found.per_image[:LOOKED_AT].tolist()
    ends = np.cumsum([0, *counts]).tolist()
    pairs = [k for k in range(1, len(counts)) if counts[k - 1] and ends[k] < MOST]
    more = [k for k in pairs if counts[k] > counts[k - 1] and contains(found, *ends[k - 1 : k + 2])]
    if len(more) < FEWEST or len(more) < 0.5 * len(pairs):
        return
    first, last = more[0], more[-1]
    yield fault(
        f"{where}{len(more)} of {len(pairs)} images have all objects of the image before them in the list, and more: "
        f"image {found.ids[first - 1]} has {counts[first - 1]}, the next one, {found.ids[first]}, has {counts[first]}, "
        f"and image {found.ids[last]} has {counts[last]}",
        WHY,
        CURE,
        chapter,
    )


FEWEST = 6  # images, or objects


def contains(found: Objects, before: int, start: int, end: int) -> bool:
    """Whether the objects from `start` on hold all those from `before` on, in pixels, that no image's edge has cut."""
    sides = found.sizes[before].repeat(2), found.sizes[start].repeat(2)
    old, new = found.boxes[before:start] * sides[0], found.boxes[start:end] * sides[1]
    whole = ((old > 0) & (old < torch.minimum(*sides) - 1)).all(dim=1)
    same = torch.cdist(old[whole], new, p=torch.inf) < 1
    same &= found.labels[before:start][whole, None] == found.labels[start:end]
    return bool(whole.any() and same.any(dim=1).all())


@dataclass(frozen=True)
class Kept:
    """An object of a batch.

    Attributes:
        batch, row: where it is.
        grey: its picture, `uint8 [H, W]`.
        box: in fractions.
        keys: what is the same, to the last digit, in the same object again: label and box, in fractions and in pixels.
    """

    batch: int
    row: int
    grey: np.ndarray
    box: np.ndarray
    keys: tuple[tuple, tuple]

    def shows(self, other: "Kept") -> bool:
        """Whether in the place of this object its picture looks as the other's does."""
        one, two = (inside(kept.grey, self.box) for kept in (self, other))
        if one is None or two is None or min(one.std(), two.std()) < 1:
            return True  # on which there is nothing: it cannot be told
        return float(np.corrcoef(one.ravel(), two.ravel())[0, 1]) > ALIKE


ALIKE = 0.4  # correlation of grey values: a mix of two pictures in equal parts has .7 with either


def inside(grey: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """What a box shows, on 16 by 16 cells."""
    sides = np.array([grey.shape[1], grey.shape[0]] * 2)
    x0, y0, x1, y1 = (box * sides).round().astype(int).clip(0, sides)
    if min(x1 - x0, y1 - y0) < 2:
        return None
    return cv2.resize(grey[y0:y1, x0:x1], (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)


def kept_in(batches: Sequence[Batch]) -> list[Kept]:
    """The objects of some batches, but for those of which two and more sides are the picture's own."""
    found = []
    for number, batch in enumerate(batches):
        rows = zip(batch.images, batch.boxes.cpu(), batch.labels.cpu(), batch.sizes, strict=True)
        for row, (image, boxes, labels, (width, height)) in enumerate(rows):
            rgb = as_rgb(torch.as_tensor(image).cpu().numpy())
            if rgb is None:
                continue
            grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
            for box, label in zip(boxes[labels != 0].numpy(), labels[labels != 0].tolist(), strict=True):
                if ((box > 0.002) & (box < 0.998)).sum() >= 3:
                    pixels = np.round(box * [width, height, width, height], 2)
                    keys = (label, *box.tolist()), (label, "pixels", *pixels.tolist())
                    found.append(Kept(number, row, grey, box, keys))
    return found


def again(every: Sequence[Kept]) -> tuple[list[tuple[Kept, Kept]], list[tuple[Kept, Kept]]]:
    """Objects that are, to the last digit, those of another image: of an earlier batch, and of their own."""
    places: dict[tuple, list[Kept]] = defaultdict(list)
    for one in every:
        for key in one.keys:
            places[key].append(one)
    earlier, beside = [], []
    for one in every:
        others = [
            other for key in one.keys for other in places[key] if (other.batch, other.row) != (one.batch, one.row)
        ]
        for found, pairs in (
            (next((other for other in others if other.batch < one.batch), None), earlier),
            (next((other for other in others if other.batch == one.batch), None), beside),
        ):
            if found is not None:
                pairs.append((one, found))
    return earlier, beside


@check("batches")
def objects_are_of_their_own_batch(patient: Patient) -> Iterator[Finding]:
    """Does a batch hold no objects of the batches before it?"""
    batches = loop_batches(patient).read
    where = "in the loop's batches: "
    piled = list(piled_up(objects_in(batches), where, 9)) if batches else []
    yield from piled
    every = kept_in(batches)
    earlier, beside = again(every)
    later = sum(one.batch > 0 for one in every)
    by_chance = 5 * len(batches) * len(beside) / max(len(every), 1)  # as where boxes stand on a grid
    if piled or len(earlier) < FEWEST or len(earlier) < max(0.1, by_chance) * later:
        return
    otherwise = [(one, other) for one, other in earlier if not one.shows(other)]
    if len(otherwise) < 0.6 * len(earlier):
        return
    one, first = otherwise[0]
    yield fault(
        f"{where}{len(earlier)} of {later} objects are, number for number, those of another image in an earlier batch, "
        f"and the pictures do not look alike there (image {one.row + 1} of batch {one.batch + 1} has an object "
        f"of image {first.row + 1} of batch {first.batch + 1})",
        WHY,
        CURE,
        9,
    )
