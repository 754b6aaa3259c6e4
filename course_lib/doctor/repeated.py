"""Pictures that come twice with other boxes, and sorted boxes: are picture, boxes and labels of one sample?"""

from collections.abc import Iterator, Sequence
from math import lgamma, log
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float

from course_lib.doctor import box_forms
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import PIXELS, as_rgb, loop_batches, pictures

BEFORE = 32  # pictures whose predecessor in the list is looked at too: a stale buffer shows that
BY_CHANCE = log(1e6)  # an order that is as unlikely as that is none by chance
ENOUGH = 100  # pairs of objects of two classes in one picture
NEAREST = 3  # objects of a class that one is compared with


class Sample(NamedTuple):
    """A picture by its name, its boxes as corners in fractions, and their labels."""

    name: str
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def sample(name: str, image: object, boxes: object, labels: object) -> Sample | None:
    """None where it is no picture, or its boxes are no numbers."""
    rgb = as_rgb(np.asarray(image))
    kept = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return None if rgb is None or not np.isfinite(kept).all() else Sample(name, rgb, kept, np.asarray(labels))


def of_the_data(patient: Patient) -> list[Sample]:
    """A sample of the data, and of some of it what stands before in the list."""
    found = pictures(patient)[0]
    places, pixels = {one.index for one in found}, 0
    every = [sample(str(one.index), one.image, one.target.boxes, one.target.labels) for one in found]
    for index in sorted(place - 1 for place in places if place and place - 1 not in places)[:BEFORE]:
        try:
            image, target = patient.data[index]
        except Exception:  # what cannot be read is another check's to tell
            continue
        every.append(sample(str(index), image, target.boxes, target.labels))
        pixels += np.asarray(image).size // 3
        if pixels > PIXELS // 4:
            break
    return [one for one in every if one is not None]


def of_batches(patient: Patient) -> list[Sample]:
    """The images of the first batches."""
    every = []
    for number, batch in enumerate(loop_batches(patient).read, 1):
        for place, (image, boxes, labels) in enumerate(zip(batch.images, batch.boxes, batch.labels, strict=True), 1):
            real = (labels != 0).cpu()
            kept = boxes.cpu()[real].numpy(), labels.cpu()[real].numpy()
            every.append(sample(f"{place} of batch {number}", torch.as_tensor(image).cpu().numpy(), *kept))
    return [one for one in every if one is not None]


def again(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """The names of pictures that are the same, pixel for pixel, and have other boxes."""
    first: dict[tuple, Sample] = {}
    pairs = []
    for one in samples:
        if one.image.max() == one.image.min():  # on which there is nothing
            continue
        other = first.setdefault((one.image.shape, one.image.tobytes()), one)
        if other is not one and not same_boxes(one.boxes, other.boxes):
            pairs.append((other.name, one.name))
    return pairs


def same_boxes(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether boxes are the same in any order."""
    if one.shape != other.shape:
        return False
    rows = [those[np.lexsort(those.round(3).T[::-1])] for those in (one, other)]
    return bool(np.abs(rows[0] - rows[1]).max(initial=0) < 0.01)


@check("pictures|batches")
def pictures_come_with_their_own_boxes(patient: Patient) -> Iterator[Finding]:
    """Does no picture come twice, each time with other boxes?"""
    sources = [("", 1, of_the_data)] if patient.has("pictures") else []
    sources += [("in the loop's batches: ", 9, of_batches)] if patient.has("batches") else []
    for where, chapter, source in sources:
        samples = source(patient)
        pairs = again(samples)
        if not pairs:
            continue
        # One may be listed twice by accident; but of a buffer that is late the first is all that can be seen.
        says = fault if len(pairs) > 1 else warning if where else note
        yield says(
            f"{where}{len(pairs)} of {len(samples)} pictures are, pixel for pixel, another one with other boxes (the "
            f"first: {pairs[0][1]} is {pairs[0][0]})",
            "boxes of another picture are learned on this one; or each time some of its objects are learned as "
            "background",
            "look for a buffer or a cache that gives the last picture again; list a picture once, with all its objects",
            chapter,
        )
        return


ORDERS = {
    "by area": lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]),
    "by width": lambda b: b[:, 2] - b[:, 0],
    "by height": lambda b: b[:, 3] - b[:, 1],
    "from left to right": lambda b: b[:, 0],
    "by their right edges": lambda b: b[:, 2],
    "from top to bottom": lambda b: b[:, 1],
    "by their lower edges": lambda b: b[:, 3],
}


def order_of(samples: Sequence[Sample]) -> str:
    """In words the order in which the boxes of every picture are listed, where that is none by chance; else empty."""
    several = [one.boxes for one in samples if len(one.boxes) > 1]
    if sum(lgamma(len(boxes) + 1) for boxes in several) < BY_CHANCE:
        return ""
    for words, key in ORDERS.items():
        steps = np.concatenate([np.diff(key(boxes)) for boxes in several])
        if (steps >= -1e-6).all() or (steps <= 1e-6).all():
            return words
    return ""


@check("pictures|batches")
def labels_are_sorted_with_their_boxes(patient: Patient) -> Iterator[Finding]:
    """Where the boxes of every image are sorted, do the labels go with them?"""
    if box_forms.wrong_in_data(patient):
        return
    samples = of_the_data(patient) if patient.has("pictures") else of_batches(patient)
    order = order_of(samples)
    if not order:
        return
    pairs, gain, errors = exchanged(samples)
    seen = f"the boxes of every image are listed {order}"
    cure = "whatever sorts boxes sorts labels by the same index: order = ...; boxes[order], labels[order]"
    if pairs >= ENOUGH and errors > BELONGS:
        yield warning(
            f"{seen}, and their labels do not go with them: with the labels of {pairs} pairs of objects exchanged, "
            f"each looks as much like others of its class ({gain:+.2f}, or {errors:+.1f} standard errors)",
            "in every image with several classes an object is learned under another's name",
            cure,
            1,
        )
    else:
        yield note(seen, "right if labels were sorted with them, and wrong in every image with several if not", cure, 1)


# Standard errors by which right labels fit better than exchanged ones: 7 to 23 in EmojiVOC, VOC2007 and photographs,
# and -6 to 3 where boxes were sorted or labels rolled.
BELONGS = -4.0


def exchanged(samples: Sequence[Sample]) -> tuple[int, float, float]:
    """How much more two objects of one image look like others of their classes if their labels are exchanged.

    Returns:
        the number of such pairs, the mean, and the mean in standard errors: far below 0 where labels are right.
    """
    looks, labels, places = [], [], []
    for place, one in enumerate(samples):
        for box, label in zip(one.boxes, one.labels.tolist(), strict=True):
            if (found := look(one.image, box)) is not None:
                looks.append(found)
                labels.append(label)
                places.append(place)
    if len(looks) < 2 * NEAREST:
        return 0, 0.0, 0.0
    likeness, label, place = likeness_to_classes(np.stack(looks), labels, places), np.array(labels), np.array(places)
    one, other = np.triu_indices(len(label), 1)
    kept = (place[one] == place[other]) & (label[one] != label[other])
    one, other = one[kept], other[kept]
    gains = likeness[one, label[other]] + likeness[other, label[one]]
    gains = gains - likeness[one, label[one]] - likeness[other, label[other]]
    gains = gains[np.isfinite(gains)]
    if not len(gains):
        return 0, 0.0, 0.0
    return len(gains), float(gains.mean()), float(gains.mean() / max(gains.std() / len(gains) ** 0.5, 1e-9))


def look(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """An object as something to compare: its colours on 8 x 8 cells, and its shape; None where it is too small."""
    height, width = image.shape[:2]
    sides = np.array([width, height] * 2)
    x0, y0, x1, y1 = (box * sides).round().astype(int).clip(0, sides)
    if min(x1 - x0, y1 - y0) < 4:
        return None
    cells = cv2.resize(image[y0:y1, x0:x1], (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(cells, cv2.COLOR_RGB2LAB) / np.array([100, 60, 60], dtype=np.float32)
    return np.append(lab.ravel(), log((x1 - x0) / (y1 - y0)))


def likeness_to_classes(
    looks: Float[np.ndarray, "N F"], labels: Sequence[int], places: Sequence[int], among: int | None = None
) -> Float[np.ndarray, "N C"]:
    """How near each object is to the nearest of each class in other images, negative; NaN where there are too few.

    Args:
        among: only the first so many objects are those that it is compared with; None: all.
    """
    label, place = np.array(labels), np.array(places)
    scaled = torch.from_numpy((looks - looks.mean(axis=0)) / (looks.std(axis=0) + 1e-3))
    apart = (torch.cdist(scaled, scaled).square() / looks.shape[1]).numpy()
    apart[place[:, None] == place] = np.inf
    found = np.full((len(label), label.max() + 1), np.nan)
    for one in np.unique(label):
        nearest = np.sort(apart[:, :among][:, label[:among] == one], axis=1)[:, :NEAREST]
        if nearest.shape[1] == NEAREST:
            found[:, one] = np.where(np.isfinite(nearest).all(axis=1), -nearest.mean(axis=1), np.nan)
    return found


CHECKS = (pictures_come_with_their_own_boxes, labels_are_sorted_with_their_boxes)
