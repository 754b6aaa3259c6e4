"""A set-up in use: the batches that it learns from, epoch by epoch, and what it is measured on."""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

import torch

from course_lib import augment, metrics
from course_lib.detect import Detections
from course_lib.doctor.patient import Patient, evaluating
from course_lib.doctor.setups import Setup, Then
from course_lib.voc import Batch, Target


def batches_of(setup: Setup, steps: int) -> Iterator[Batch]:
    """Batches to learn from: every epoch in another order, and every image augmented anew, by the set-up's seed.

    Raises:
        ValueError: the images do not fill a batch.
    """
    images, generator = len(setup.data), torch.Generator().manual_seed(setup.seed)
    if setup.batch_size > images:
        raise ValueError(f"batch_size is {setup.batch_size}, and there are {images} images: take smaller batches")
    whole = images - images % setup.batch_size
    orders = (torch.randperm(images, generator=generator)[:whole].split(setup.batch_size) for _ in count())
    numbered = ((epoch, rows.tolist()) for epoch, order in enumerate(orders) for rows in order)
    for epoch, rows in islice(numbered, steps):
        samples = []
        for row in rows:
            if hasattr(setup.transform, "seed"):
                setup.transform.seed((setup.seed * 1_000_003 + epoch) * images + row)
            samples.append(setup.transform(*setup.data[row]))
        yield setup.collate(samples)


def batches_to_measure(setup: Setup, size: int | None = None) -> list[Batch]:
    """The held-out images, with boxes in the unit that the run has for them.

    Args:
        size: images in a batch; None: as many as it learns from.
    """
    transform: Any = augment.evaluation(setup.model.image_size)
    if isinstance(setup.transform, Then):
        transform = Then(transform, setup.transform.change)
    samples = [transform(*setup.held_out[index]) for index in range(len(setup.held_out))]
    size = size or setup.batch_size
    return [setup.collate(samples[start : start + size]) for start in range(0, len(samples), size)]


@torch.no_grad()
def losses_on(patient: Patient, batches: Sequence[Batch]) -> dict[str, float]:
    """The losses on held-out images, by name: the mean over batches, each weighed by its images."""
    with evaluating(patient.model):
        parts = [(len(batch.images), patient.losses(batch)) for batch in batches]
    images = sum(size for size, _ in parts)
    return {name: sum(size * float(one[name]) for size, one in parts) / images for name in parts[0][1]}


@torch.no_grad()
def measured(patient: Patient, batches: Sequence[Batch], truth: Sequence[Target]) -> tuple[dict, list[Detections]]:
    """Losses, mAP and recall on held-out images, and what is found in them.

    Args:
        batches: see `batches_to_measure`.
        truth: of the same images, in fractions.
    """
    found = [one for batch in batches for one in patient.detect(batch)]
    result = metrics.evaluate_voc(found, truth, classes=patient.classes)
    curves = result.curves.values()
    hits = sum(float(one.recall[-1]) * one.objects for one in curves if len(one.recall))
    numbers = {f"val_{name}": value for name, value in losses_on(patient, batches).items()}
    return numbers | {"map": result.mean_ap, "recall": hits / sum(one.objects for one in curves)}, found
