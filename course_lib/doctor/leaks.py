"""Checks of what is measured on: whether any of it has been learned from, and whether its labels mean the same."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
import torch
from PIL import Image

from course_lib.copies import PIXELS, SIDE, Fingerprint, copies
from course_lib.doctor import drawing, numbering
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import as_rgb, items_of, number_of_classes, objects, reading, spread
from course_lib.images import grey_square
from course_lib.voc import ImageDataset, Target, image_in

CHAPTER = 1
HELD, LEARNED = 128, 384  # pictures that are looked at for copies: 2 ms each
CHOSEN_BY_IT = "what is measured is in part what was learned by heart: the result is too good, and so is every choice"
APART = "take them off one of the two lists; `python -m course_lib split` keeps copies on one side"


@check("data", "held_out")
def held_out_images_are_not_learned_from(patient: Patient) -> Iterator[Finding]:
    """Is no image measured on that is also learned from?"""
    shared = same_images(patient)
    held = len(patient.held_out)
    if shared:
        # One that slipped through is a mistake of measuring; where it is a twentieth, nothing that is measured holds.
        says = fault if len(shared) > held / 20 else warning
        number = f"{len(shared):,} of {held:,} held-out images are learned from too (the first: {shared[0]})"
        yield says(number, CHOSEN_BY_IT, APART, CHAPTER)
        return
    pairs, looked_at = copied_pictures(patient)
    if pairs:
        says, (held_one, twin) = fault if len(pairs) > looked_at / 20 else warning, pairs[0]
        yield says(
            f"{len(pairs)} of {looked_at} held-out pictures that were looked at show what a picture that is learned "
            f"from shows (the first: {held_one.name}, as {twin.name} among the first)",
            CHOSEN_BY_IT,
            APART,
            CHAPTER,
            both(patient, held_one, twin),
        )


def both(patient: Patient, held: "Look", learned: "Look") -> drawing.SideBySide | None:
    """A held-out picture and its copy."""
    names = f"{held.name}, held out", f"{learned.name}, learned from"
    with suppress(Exception):  # a picture that cannot be read again
        images = (np.asarray(data[one.index][0]) for data, one in ((patient.held_out, held), (patient.data, learned)))
        return drawing.side_by_side(*images, names)
    return None


def content(target: Target) -> tuple:
    """What a target says, as something to compare: size, boxes and labels."""
    boxes = torch.as_tensor(target.boxes).double().mul(1e4).round().reshape(-1).tolist()
    return tuple(target.size), tuple(boxes), tuple(torch.as_tensor(target.labels).tolist())


def same_images(patient: Patient) -> list[str]:
    """The ids of held-out images that are learned from, told by where they lie, or by what is said of them.

    Several targets are seldom the same to the ten thousandth by chance: three objects and more count as one image.
    """
    learned, said = set(identities(patient, "data")), set(map(content, reading(patient, "data").targets))
    held = zip(identities(patient, "held_out"), reading(patient, "held_out").targets, strict=True)
    return [str(t.image_id) for one, t in held if one in learned or (len(t.labels) > 2 and content(t) in said)]


def identities(patient: Patient, part: str) -> list[tuple]:
    """What tells each image from others without looking at it: a tree and an id, else the id and what it shows.

    Where some could not be read, places have moved, and it is the id and what it shows.
    """
    data, targets = getattr(patient, part), reading(patient, part).targets
    if hasattr(data, "sets") and len(targets) == len(data):
        return [(Path(tree).resolve(), image_id) for tree, image_id in items_of(data)]
    return [(str(target.image_id), *content(target)) for target in targets]


def copied_pictures(patient: Patient) -> tuple[list[tuple["Look", "Look"]], int]:
    """Pairs of a held-out picture and its copy among those learned from, in a sample of both; and how many were looked
    at of those held out."""
    if not hasattr(patient.held_out, "__getitem__") or not hasattr(patient.data, "__getitem__"):
        return [], 0
    held = looks(patient.held_out, HELD)
    learned = looks(patient.data, LEARNED)
    together = copies([one.print for one in (*held, *learned)])
    groups: dict[int, list[Look]] = defaultdict(list)
    for one, group in zip(learned, together[len(held) :].tolist(), strict=True):
        groups[group].append(one)
    pairs = []
    for one, group in zip(held, together[: len(held)].tolist(), strict=True):
        twin = next((other for other in groups[group] if alike(one.grey, other.grey)), None)
        if twin is not None:
            pairs.append((one, twin))
    return pairs, len(held)


class Look:
    """A picture as it is compared with others: its place and name, its hashes, and a small grey square of it."""

    def __init__(self, index: int, name: str, grey: np.ndarray) -> None:
        self.index, self.name, self.grey = index, name, grey
        one, other = (
            imagehash.phash(Image.fromarray(square), SIDE).hash.ravel() for square in (grey, np.fliplr(grey).copy())
        )
        self.print = Fingerprint("", one, other)


def looks(data: Any, most: int) -> list[Look]:
    """A sample of pictures, small and grey; those that cannot be read, and those of one colour, are left out."""
    found = []
    for index in spread(len(data), most):
        try:
            if isinstance(data, ImageDataset):
                grey = grey_square(image_in(*data.items[index]), PIXELS)
                name = data.items[index][1]
            else:
                image, target = data[index]
                rgb, name = as_rgb(np.asarray(image)), str(target.image_id)
                grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
        except Exception:  # what cannot be read is another check's to tell
            continue
        if grey.std() > 4:
            found.append(Look(index, name, grey))
    return found


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two small pictures are the same but for light, mirrored or not.

    Two scenes that are drawn on one plain ground may have the same hash and differ in what matters: pixel by pixel they
    do not go together as a copy does, at a correlation of .95 and more where 2 % of each edge were cut off.
    """
    rows = [np.corrcoef(one.ravel(), square.ravel())[0, 1] for square in (other, np.fliplr(other))]
    return bool(max(rows) > 0.9)


@check("data", "held_out")
def held_out_labels_mean_the_same(patient: Patient) -> Iterator[Finding]:
    """Do the labels of the held-out data stand for the classes of the data that is learned from?"""
    shifted = list(by_one(patient))
    yield from shifted or numbering.of_numbers(patient)


def by_one(patient: Patient) -> Iterator[Finding]:
    """Labels that are one lower or higher than the data's, told by how often each occurs."""
    classes = number_of_classes(patient)
    found, held = objects(patient, "data"), objects(patient, "held_out")
    if not classes or classes < 3 or min(len(found), len(held)) < 200:
        return
    counts = [torch.bincount(one.labels.clamp(0, classes + 1), minlength=classes + 2) for one in (found, held)]
    misfits = {}
    for shift in (-1, 0, 1):
        a, b = (one.double() for one in (counts[0], torch.roll(counts[1], shift)))
        a, b = a / a.sum(), b / b.sum()
        misfits[shift] = float(((a - b) ** 2 / (a + b).clamp(min=1e-9)).sum())
    best = min(misfits, key=misfits.get)
    if best and misfits[best] < 0.1 * misfits[0] and misfits[0] > 0.2:
        yield warning(
            f"the held-out labels are as frequent as those of the data one label {'below' if best > 0 else 'above'} "
            "them, class by class",
            "one of the two counts from 0, or its list of classes has one more at its beginning",
            "make both with one list of names",
            CHAPTER,
        )


CHECKS = (held_out_images_are_not_learned_from, held_out_labels_mean_the_same)
