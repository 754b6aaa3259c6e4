"""Does reading leave the data as it is? What is changed in place is changed for every later epoch."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import spread

LOOKED_AT = 24  # images: of those that are mirrored by chance, each second one changes


def arrays_of(sample: Any) -> list[Any]:
    """The arrays and tensors of an image and its target, whatever form these have."""
    image, target = sample[0], sample[1]
    values = target.values() if isinstance(target, dict) else vars(target).values() if vars_of(target) else [target]
    return [value for value in (image, *values) if isinstance(value, np.ndarray | torch.Tensor)]


def vars_of(target: Any) -> bool:
    return hasattr(target, "__dict__") and not isinstance(target, np.ndarray | torch.Tensor)


def differ(before: Any, after: Any) -> bool:
    a, b = np.asarray(before), np.asarray(after)
    return a.shape != b.shape or not np.array_equal(a, b)


@check("data", "transform")
def data_stay_as_they_are(patient: Patient) -> Iterator[Finding]:
    """Are images and targets the same after a transform has been given them?"""
    if not hasattr(patient.data, "__getitem__"):
        return
    transform, changed, looked, what = patient.transform, 0, 0, set()
    with suppress(Exception):  # what cannot be copied is used as it is
        transform = deepcopy(transform)
    for index in spread(len(patient.data), LOOKED_AT):
        try:
            sample = patient.data[index]
            own = arrays_of(sample)
            before = [np.array(one, copy=True) for one in own]
            if hasattr(transform, "seed"):
                transform.seed(index)
            transform(*sample)
            after = arrays_of(patient.data[index])
        except Exception:  # other checks tell what cannot be read or transformed
            continue
        looked += 1
        others = [place for place, (a, b) in enumerate(zip(before, after, strict=False)) if differ(a, b)]
        changed += bool(others)
        what |= {"images" if place == 0 else "targets" for place in others}
        for value, old in zip(own, before, strict=True):  # the patient is left as it was
            if differ(old, value):
                value[...] = torch.from_numpy(old) if torch.is_tensor(value) else old
    if changed:
        yield fault(
            f"{' and '.join(sorted(what))} of {changed} of {looked} samples are others once the transform has been "
            "given them",
            "each epoch changes again what the one before has changed: boxes wander off, and pictures fade",
            "copy before writing in place (boxes = boxes.clone(), image = image.copy()), or read anew each time",
            2,
        )


CHECKS = (data_stay_as_they_are,)
