from dataclasses import replace

import numpy as np
import pytest
from doctor.planted import findings, with_images

from course_lib.doctor import setups
from course_lib.doctor.patient import Patient

PICTURES = {
    "float32 from 0 to 1": lambda image: (image / 255).astype(np.float32),
    "NaN": lambda image: image.astype(np.float32) * np.float32(np.nan),
    "have the shape (3,": lambda image: image.transpose(2, 0, 1).copy(),
    "are of one value, 0, everywhere": lambda image: image * 0,
}


@pytest.mark.parametrize("named", PICTURES)
def test_pictures_that_are_none_are_told(learned, named):
    found = findings(Patient(data=with_images(learned, PICTURES[named])), "pixels-of-data", "boxes-are-on-objects")
    assert named in found[0][1] and len(found) == 1


def test_a_picture_that_was_turned_or_stretched_is_told(learned):
    turned = setups.InMemory(tuple((i, replace(t, size=t.size[::-1])) for i, t in learned.samples), learned.classes)
    cut = with_images(learned, lambda image: image[: len(image) // 2])
    half = with_images(learned, lambda image: image[::2, ::2])
    name = "pictures-have-the-size-that-is-annotated"
    assert "width and height exchanged" in findings(Patient(data=turned), name)[0][1]
    assert "other proportions" in findings(Patient(data=cut), name)[0][1]
    assert findings(Patient(data=half), name) == []
