"""Which images a loop draws: whether it comes to all of them, and whether classes are mixed in what comes first."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import loop_batches, reading

CHAPTER = 9
FEWEST = 16  # images, of which something can be said
FEW = 0.45  # of the images that as many draws by chance would give
DRAWS, FAR = 200, 2.0  # of as many images by chance, and how far beyond all of these is no chance


class Drawn(NamedTuple):
    """The images of a loop's first batches.

    Attributes:
        places: in the data, in the order in which they come.
        size: of a batch.
        classes: which images of the data hold which class, label 1 first.
    """

    places: list[int]
    size: int
    classes: Tensor  # bool [images, classes]


def drawn(patient: Patient) -> Drawn | None:
    """What the first batches are of; None where their ids do not tell, each of one image of the data."""
    targets, batches = reading(patient).targets, loop_batches(patient).read
    place = {str(target.image_id): number for number, target in enumerate(targets)}
    ids = [str(image_id) for batch in batches for image_id in batch.image_ids]
    if len(place) < len(targets) or len(ids) < FEWEST or not all(one in place for one in ids):
        return None
    count = max((int(label) for target in targets for label in target.labels), default=0)
    classes = torch.zeros(len(targets), count + 1, dtype=torch.bool)
    for number, target in enumerate(targets):
        classes[number, torch.as_tensor(target.labels).long().clamp(min=0)] = True
    return Drawn([place[one] for one in ids], len(batches[0].image_ids), classes[:, 1:])


@check("data", "batches")
def batches_draw_from_all_images(patient: Patient) -> Iterator[Finding]:
    """Does a loop come to other images, or to a few again and again?"""
    if (found := drawn(patient)) is None:
        return
    total, draws, different = len(found.classes), len(found.places), len(set(found.places))
    if different < FEW * total * (1 - (1 - 1 / total) ** draws):
        # Whoever tries whether one batch can be learned by heart gives it again on purpose.
        says = note if different == found.size == len(set(found.places[: found.size])) else warning
        yield says(
            f"the loop's first {draws} images are {different} of the {total:,} in the data, again and again",
            "the others are not learned from, and these are learned by heart",
            "look at the sampler: it is to draw from the numbers of all images, and not from those of a batch, of one "
            "class, or of a worker's first part",
            CHAPTER,
        )


@check("data", "batches")
def classes_are_mixed(patient: Patient) -> Iterator[Finding]:
    """Where a loop takes the images as they are listed: are they listed class by class?"""
    found = drawn(patient)
    if found is None or len(found.places) > len(found.classes) / 2:
        return
    if any(after - before != 1 for before, after in pairwise(found.places)):
        return
    share = found.classes.double().mean(dim=0)
    due = len(found.places) * share

    def strange(places: Tensor) -> float:
        """How far the classes of some images are from those of all."""
        return float(((found.classes[places].sum(dim=0) - due).square() / due.clamp(min=1)).sum())

    generator = torch.Generator().manual_seed(0)
    chances = [torch.randperm(len(found.classes), generator=generator)[: len(found.places)] for _ in range(DRAWS)]
    here = found.classes[found.places].double().mean(dim=0)
    if strange(torch.tensor(found.places)) > FAR * max(map(strange, chances)):
        most = int((here - share).argmax())
        name = patient.classes[most] if patient.classes and most < len(patient.classes) else f"label {most + 1}"
        yield warning(
            f"the loop takes the images in the order of their list, which is sorted by class: {here[most]:.0%} of the "
            f"first {len(found.places)} hold {name}, and {share[most]:.0%} of all",
            "each batch pulls all weights to a class or two, and forgets the one before: the loss is low, and saws",
            "shuffle: DataLoader(shuffle=True), or a sampler that draws anew for each epoch",
            CHAPTER,
        )


CHECKS = (batches_draw_from_all_images, classes_are_mixed)
