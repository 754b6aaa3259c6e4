"""Objects that are lost by their class or their number: one of each class is kept, or the first few of an image.

A crop loses objects too, but not just those that have a twin. In a batch that is told by the data; in the data itself
by what is held out, and without that by chance alone: there may be data in which no image has two objects of a class.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import log

import torch

from course_lib.doctor import box_forms
from course_lib.doctor.batch_sources import Sample, sources
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import WHERE, Objects, loop_batches, objects, objects_in

BY_CHANCE = 1e-6  # what is less likely is not by chance
DUE = 7.0  # images that should have several of a class, where none has: by chance one time in a thousand
SURVIVE = 0.4  # of such images at least keep two of a class: SSD's own crops lose a third of the objects
LOST, FEWEST = 6, 12  # images
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
        due = several[other] / int((known[other].per_image > 1).sum()) * crowded if other else 0.0
        if due > DUE:
            there = "the data" if part == "held_out" else "the held-out data"
            yield warning(f"{seen}, and {several[other]:,} images of {there} have", WHY, CURE, 1)
        else:
            yield note(
                f"{seen}: by chance that is very unlikely", f"right if there can be but one; if not, {WHY}", CURE, 1
            )


@check("data", "batches")
def several_objects_of_a_class_reach_the_batches(patient: Patient) -> Iterator[Finding]:
    """Do batches hold several objects of one class, and as many in an image, as the data does?"""
    if box_forms.wrong_in_data(patient) or not loop_batches(patient).read:
        return
    samples = sources(patient) if patient.has("pictures") else []
    yield from [*one_of_each(samples), *the_first_few(samples)][:1]
    found, batches = objects(patient), objects_in(loop_batches(patient).read)
    due = SURVIVE * with_several(found) / max(len(found.ids), 1) * len(batches.ids)
    if not samples and due > DUE / 2 and not with_several(batches):
        yield (warning if due > DUE else note)(
            f"none of the first {len(batches.ids)} images of the loop has two objects of one class, and "
            f"{with_several(found):,} of {len(found.ids):,} images of the data have",
            WHY,
            CURE,
            9,
        )


def twins(labels: Sequence[int]) -> bool:
    return max(Counter(labels).values(), default=0) > 1


def one_of_each(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A fault where images have each class once that have some twice in the data."""
    several = [one for one in samples if twins(labels_of(one))]
    alone = [one for one in several if one.labels and set(one.labels) == set(labels_of(one))]
    if len(several) >= FEWEST and len(alone) >= LOST and not any(twins(one.labels) for one in several):
        one = alone[0]
        yield fault(
            f"{len(several)} of {len(samples)} images in the loop's batches have several objects of one class in the "
            f"data, and none in its batch; {len(alone)} have lost nothing else (image {one.source.image_id}: labels "
            f"{sorted(one.labels)}, in the data {sorted(labels_of(one))})",
            WHY,
            CURE,
            9,
        )


def the_first_few(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A fault where no image has more objects than some number, and most that should have more have just as many."""
    most = max((len(one.labels) for one in samples), default=0)
    more = [one for one in samples if len(labels_of(one)) > most]
    full = [one for one in more if len(one.labels) == most]
    if len(more) >= FEWEST and len(full) > (0.5 if most > 1 else 0.9) * len(more):  # a crop leaves many numbers
        yield fault(
            f"no image in the loop's batches has more than {most} objects, and {len(full)} of {len(more)} that have "
            f"more in the data have just {most}",
            WHY,
            "give a batch as many slots as its fullest image has objects, and read all of them (findall, not find)",
            9,
        )


def labels_of(one: Sample) -> list[int]:
    """The labels that the data gives; what is difficult is left out by many a loop."""
    easy = ~torch.as_tensor(one.source.difficult)
    return torch.as_tensor(one.source.labels)[easy].tolist()


CHECKS = (several_objects_of_a_class_reach_the_batches,)
