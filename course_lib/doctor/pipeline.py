"""Checks of the pipeline: what augmentation, loader and normalisation make of the data on its way to the network."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

import torch

from course_lib import machine
from course_lib.doctor import (
    augmentation,
    batch_sources,
    box_forms,
    drawing,
    draws,
    left_over,
    lost_objects,
    network_input,
    objects_seen,
    places,
    repeated,
)
from course_lib.doctor.checks import check
from course_lib.doctor.data import of_labels
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import Objects, loop_batches, number_of_classes, objects, objects_in
from course_lib.voc import Batch

CHAPTER = 9
WHERE = "in the loop's batches: "


def read_batches(patient: Patient) -> list[Batch]:
    """The first batches as the patient's loop means them; none where they cannot be made."""
    return loop_batches(patient).read


def batch_objects(patient: Patient) -> Objects:
    """The objects that the loop's loss is given, without padding."""
    return patient.remembered("objects of batches", lambda: objects_in(read_batches(patient)))


@check("batches")
def batches_can_be_made(patient: Patient) -> Iterator[Finding]:
    """Does the loader give batches?"""
    made = loop_batches(patient)
    if made.error is not None:
        yield fault(
            f"the loop's batches cannot be made: {type(made.error).__name__}: {made.error}".partition("\n")[0],
            "training ends at the first such batch",
            "make this work by itself first: one image and its target, then the transform, then a batch",
            CHAPTER,
        )
    elif not made.read:
        cure = "a batch larger than the data, with drop_last, leaves none: make it smaller"
        yield fault("the loader gives no batch", "not one step is taken", cure, CHAPTER)


@check("batches")
def batches_have_objects(patient: Patient) -> Iterator[Finding]:
    """Do the batches that the loop learns from hold images, objects and labels?"""
    batches = read_batches(patient)
    if batches and not len(batch_objects(patient)) and not box_forms.wrong_in_data(patient):
        yield fault(
            f"{WHERE}no object in the first {sum(len(batch.images) for batch in batches)} images",
            "a detector learns to find nothing, at a loss that falls to 0",
            "follow one target from its annotation to the batch",
            CHAPTER,
        )


@check("batches")
def boxes_in_batches(patient: Patient) -> Iterator[Finding]:
    """Are the boxes that the loop's loss is given corners in fractions, with an area, inside the image?"""
    batches, found = read_batches(patient), batch_objects(patient)
    if not batches or box_forms.wrong_in_data(patient):
        return
    side, image_at = int(batches[0].images.shape[-1]), drawing.image_of_batches(loop_batches(patient))
    if box_forms.wrong_form(found, side) is not None:
        yield from box_forms.of_form(found, side, WHERE, CHAPTER, image_at)
    else:
        padding = padded(found)
        if padding.any():
            yield fault(
                f"{WHERE}{found.where(padding)} are empty boxes in a corner, as padding is, and have a label",
                "padding is learned as an object: a prior is forced to it, and its size of 0 has no logarithm",
                "give padded slots label 0, or leave them out of the matching",
                CHAPTER,
            )
        yield from box_forms.of_damage(without(found, padding), WHERE, CHAPTER, image_at)


def padded(found: Objects) -> torch.Tensor:
    """Which objects are padding by their boxes: four times the same number, 0 or -1."""
    first = found.boxes[:, :1]
    return (found.boxes == first).all(dim=1) & ((first == 0) | (first == -1))[:, 0]


def without(found: Objects, which: torch.Tensor) -> Objects:
    kept = ~which
    return Objects(found.boxes[kept], found.labels[kept], found.image[kept], found.sizes[kept], found.ids)


@check("batches")
def labels_in_batches(patient: Patient) -> Iterator[Finding]:
    """Are the labels that the loop's loss is given those of classes, and 0 for padding alone?"""
    batches, classes = read_batches(patient), number_of_classes(patient)
    found = batch_objects(patient)
    if patient.has("data") and any(of_labels(objects(patient), classes, "", CHAPTER)):
        return  # what the data has wrong is told there
    boxes = (
        torch.cat([batch.boxes.reshape(-1, 4).double().cpu() for batch in batches]) if batches else torch.zeros(0, 4)
    )
    labels = torch.cat([batch.labels.reshape(-1).cpu() for batch in batches]) if batches else torch.zeros(0)
    background = (labels == 0) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if background.any():
        real = int((labels != 0).sum())
        yield fault(
            f"{WHERE}{int(background.sum()):,} boxes have label 0, which is background, beside {real:,} of classes: "
            f"labels are 0 to {int(labels.max()) if len(labels) else 0}",
            "the first class is learned as background, and every other as the class before it"
            if classes is None or int(labels.max()) < classes
            else "these objects are never learned",
            "labels count from 1: class_index + 1",
            CHAPTER,
        )
    yield from of_labels(found, classes, WHERE, CHAPTER)
    yield from of_one_class(patient, found, classes)


def of_one_class(patient: Patient, found: Objects, classes: int | None) -> Iterator[Finding]:
    """All objects of the batches are of one class, where there are several, and the data has more than that one."""
    labels = found.labels.unique().tolist()
    if classes is None or classes < 3 or len(found) < ENOUGH or len(labels) > 1:
        return
    if not patient.has("data") or float((objects(patient).labels == labels[0]).double().mean()) < SO_FREQUENT:
        yield warning(
            f"{WHERE}all {len(found)} objects have label {labels[0]}, of {classes} classes",
            "a detector learns to find objects, and calls each of them that",
            "look at where labels are made: the number of each object's own class, and not torch.ones",
            CHAPTER,
        )


ENOUGH, SO_FREQUENT = 30, 0.8  # objects; of the data's, of which as many of one class are no wonder


@check("batches")
def pixels_in_batches(patient: Patient) -> Iterator[Finding]:
    """Are the pixels of the batches 0 to 255, and is there something to see?"""
    batches = read_batches(patient)
    if not batches:
        return
    images = torch.cat([torch.as_tensor(batch.images).float().cpu() for batch in batches if len(batch.images)])
    if not torch.isfinite(images).all():
        why, cure = "one such pixel makes the loss NaN", "find where they come from: a division by 0"
        yield fault(f"{WHERE}pixels are NaN or infinite", why, cure, CHAPTER)
        return
    flat = images.flatten(1)
    plain = flat.amax(dim=1) == flat.amin(dim=1)
    if plain.any():
        says = fault if float(plain.double().mean()) > 0.5 else warning
        yield says(
            f"{WHERE}{int(plain.sum())} of {len(plain)} images are of one value everywhere",
            "nothing can be found in them, and the network learns that objects look like nothing",
            "look at what the transform gives for these images, drawn",
            CHAPTER,
        )
    if plain.all():
        return
    low, high = float(flat[~plain].min()), float(flat[~plain].max())
    if high <= 1.5 or low < -1 or high > 256:
        what = "0 to 1" if low >= 0 and high <= 1.5 else "normalised" if low < -1 and high < 30 else "wider"
        yield fault(
            f"{WHERE}pixels are {low:.3g} to {high:.3g} ({what}), where 0 to 255 are due",
            "what normalises 0 to 255 does it once more, and all pictures look nearly the same to the network",
            "normalise in one place: give bytes to a model that normalises by itself",
            CHAPTER,
        )


@check("batches")
def memory_of_a_batch(patient: Patient) -> Iterator[Finding]:
    """Is there room for the batches that are on their way?"""
    batches = read_batches(patient)
    if not batches:
        return
    size = sum(tensor.numel() * tensor.element_size() for tensor in batches[0][:4])
    workers = workers_of(patient.batches)
    ahead = workers * int(getattr(patient.batches, "prefetch_factor", 2) or 2) + 2
    if workers and ahead * size > machine.shared_memory():
        yield warning(
            f"{ahead} batches of {size / 2**20:.0f} MB are on their way from {workers} workers, and "
            f"{machine.SHARED} has {machine.shared_memory() / 2**20:.0f} MB free",
            "a worker that finds no room there dies, hours into a run",
            "fewer workers or a smaller prefetch_factor; docker run --shm-size=8g gives a container more",
            CHAPTER,
        )


@check("batches", "step")
def loader_keeps_up(patient: Patient) -> Iterator[Finding]:
    """Is a batch made as fast as a step is taken?"""
    made = loop_batches(patient).raw
    if not made or workers_of(patient.batches):  # which make batches while steps are taken
        return
    started = time.perf_counter()
    with suppress(Exception):  # a step that fails is for those to tell who look at steps
        patient.step(made[0])
        stepping = time.perf_counter() - started
        started = time.perf_counter()
        count = sum(1 for _ in islice(iter(patient.batches), 2))
        loading = (time.perf_counter() - started) / max(count, 1)
        yield from of_speeds(loading, stepping)


def workers_of(batches: Iterable) -> int:
    return int(getattr(batches, "num_workers", 0) or 0)


def of_speeds(loading: float, stepping: float) -> Iterator[Finding]:
    """Whether the network waits, given the seconds that a batch and a step take, one after the other."""
    if loading > stepping * 1.5:
        yield note(
            f"a batch takes {1000 * loading:.0f} ms to make and {1000 * stepping:.0f} ms to learn from, one after the "
            "other",
            "the network waits for pictures most of the time",
            "let workers make batches (num_workers), or keep the decoded pictures",
            CHAPTER,
        )


CHECKS = (
    *augmentation.CHECKS,
    batches_can_be_made,
    batches_have_objects,
    boxes_in_batches,
    *places.CHECKS,
    labels_in_batches,
    pixels_in_batches,
    *draws.CHECKS,
    *batch_sources.CHECKS,
    *lost_objects.CHECKS,
    *repeated.CHECKS,
    left_over.objects_are_of_their_own_batch,
    objects_seen.boxes_are_on_objects_in_batches,
    *network_input.CHECKS,
    memory_of_a_batch,
    loader_keeps_up,
)
