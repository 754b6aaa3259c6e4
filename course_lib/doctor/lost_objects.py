"""Objects that are lost by their class or their number: one of each class is kept, or the first few of an image.

A crop loses objects too, but not just those that have a twin. In a batch that is told by the data; in the data itself
by what is held out, and without that by chance alone: there may be data in which no image has two objects of a class.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import log
from typing import NamedTuple

import torch

from course_lib.doctor import box_forms
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import WHERE, Objects, loop_batches, objects, objects_in, reading
from course_lib.voc import Batch

BY_CHANCE = 1e-6  # what is less likely is not by chance
DUE = 7.0  # images that should have several of a class, where none has: by chance one time in a thousand
SURVIVE = 0.4  # of such images at least keep two of a class: SSD's own crops lose a third of the objects
SLIPS, RARE = 2, 0.01
LOST, FEWEST = 4, 12  # images
WHY = "objects that are to be seen and have no box are learned as background, or are not counted where it is measured"
CURE = "keep objects in a list: a dictionary by class, or an array with one place a class, keeps one of each"


def with_several(found: Objects) -> int:
    """How many images have two objects of one class and more."""
    pairs = torch.stack([found.image, found.labels])
    _, counts = torch.unique(pairs, dim=1, return_counts=True)
    return len(torch.unique(torch.unique(pairs, dim=1)[0][counts > 1])) if len(found) else 0


def log_of_chance(found: Objects) -> float:
    """The logarithm of the chance that no image has two of a class, if classes were drawn one by one."""
    share = torch.bincount(found.labels.clamp(min=0)).double() / max(len(found), 1)
    pairs = (found.per_image * (found.per_image - 1) / 2).double().sum()
    return float(-pairs * share.square().sum())


@check("data|held_out")
def several_objects_of_a_class_are_listed(patient: Patient) -> Iterator[Finding]:
    """Do some images list several objects of one class?"""
    known = {part: objects(patient, part) for part in WHERE if patient.has(part)}
    several = {part: with_several(found) for part, found in known.items()}
    for part, found in known.items():
        crowded = int((found.per_image > 1).sum())
        if several[part] or len(found.labels.unique()) < 2 or log_of_chance(found) > log(BY_CHANCE):
            continue
        seen = f"{WHERE[part]}of {crowded:,} images with several objects none has two of one class"
        other = next((one for one in known if one != part and several[one]), None)
        there_crowded = int((known[other].per_image > 1).sum()) if other else 0
        # The chance that all images with twins, of one kind of data, are on one side; a slip or two are no kind.
        one_side = (there_crowded / max(there_crowded + crowded, 1)) ** several[other] if other else 1.0
        if other and several[other] > SLIPS and one_side < RARE:
            there = "the data" if part == "held_out" else "the held-out data"
            yield warning(f"{seen}, and {several[other]:,} images of {there} have", WHY, CURE, 1)
        else:
            yield note(
                f"{seen}: by chance that is very unlikely", f"right if there can be but one; if not, {WHY}", CURE, 1
            )


class Pair(NamedTuple):
    """The labels of an image in a batch and in the data, without what is difficult: many a loop leaves that out."""

    image_id: str
    batch: list[int]
    data: list[int]


def pairs_of(patient: Patient, batches: Sequence[Batch]) -> list[Pair]:
    """The images of batches whose id is that of one image of the data."""
    targets, due = reading(patient).targets, {}
    often = Counter(str(target.image_id) for target in targets)
    for target in targets:
        if often[str(target.image_id)] == 1:
            due[str(target.image_id)] = torch.as_tensor(target.labels)[~torch.as_tensor(target.difficult)].tolist()
    return [
        Pair(str(image_id), labels[labels != 0].tolist(), due[str(image_id)])
        for batch in batches
        for image_id, labels in zip(batch.image_ids, batch.labels, strict=True)
        if str(image_id) in due
    ]


@check("data", "batches")
def several_objects_of_a_class_reach_the_batches(patient: Patient) -> Iterator[Finding]:
    """Do batches hold several objects of one class, and as many in an image, as the data does?"""
    if box_forms.wrong_in_data(patient) or not loop_batches(patient).read:
        return
    pairs = pairs_of(patient, loop_batches(patient).read)
    several = [one for one in pairs if twins(one.data)]
    if len(several) >= SUSPECT and not any(twins(one.batch) for one in several):
        pairs = pairs_of(patient, [patient.read(batch) for batch in patient.first_batches(MORE_BATCHES)])
    yield from [*one_of_each(pairs), *the_first_few(pairs)][:1]
    found, batches = objects(patient), objects_in(loop_batches(patient).read)
    due = SURVIVE * with_several(found) / max(len(found.ids), 1) * len(batches.ids)
    if not pairs and due > DUE / 2 and not with_several(batches):
        yield (warning if due > DUE else note)(
            f"none of the first {len(batches.ids)} images of the loop has two objects of one class, and "
            f"{with_several(found):,} of {len(found.ids):,} images of the data have",
            WHY,
            CURE,
            9,
        )


SUSPECT, MORE_BATCHES = 2, 12


def twins(labels: Sequence[int]) -> bool:
    return max(Counter(labels).values(), default=0) > 1


def one_of_each(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """A fault where images have each class once that have some twice in the data."""
    several, others = ([one for one in pairs if twins(one.data) == both] for both in (True, False))
    alone = [one for one in several if one.batch and set(one.batch) == set(one.data)]
    if len(alone) < LOST or any(twins(one.batch) for one in several):
        return
    # Of two objects one is lost at most twice as often as one alone is in the other images.
    objects_of = sum(len(one.data) for one in others)
    lost = (sum(max(len(one.data) - len(one.batch), 0) for one in others) + 1) / (objects_of + 2)
    if len(several) >= FEWEST or len(several) * log(min(2 * lost, 1.0)) < log(BY_CHANCE):
        one = alone[0]
        yield fault(
            f"{len(several)} of {len(pairs)} images in the loop's batches have several objects of one class in the "
            f"data, and none in its batch; {len(alone)} have lost nothing else (image {one.image_id}: labels "
            f"{sorted(one.batch)}, in the data {sorted(one.data)})",
            WHY,
            CURE,
            9,
        )


def the_first_few(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """A fault where no image has more objects than some number, and most that should have more have just as many."""
    most = max((len(one.batch) for one in pairs), default=0)
    more = [one for one in pairs if len(one.data) > most]
    full = [one for one in more if len(one.batch) == most]
    if len(more) >= FEWEST and len(full) > (0.5 if most > 1 else 0.9) * len(more):  # a crop leaves many numbers
        yield fault(
            f"no image in the loop's batches has more than {most} objects, and {len(full)} of {len(more)} that have "
            f"more in the data have just {most}",
            WHY,
            "give a batch as many slots as its fullest image has objects, and read all of them (findall, not find)",
            9,
        )


CHECKS = (several_objects_of_a_class_reach_the_batches,)
