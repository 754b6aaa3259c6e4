from dataclasses import replace

import numpy as np
import pytest
import torch
from small_patient import seen_in, small_setup

from course_lib.doctor.setups import InMemory, in_memory


def mirrored_in_place(image, target):
    target.boxes[:, [0, 2]] = 1 - target.boxes[:, [2, 0]]
    return image, target


def darkened_in_place(image, target):
    image //= 2
    return image, target


def mirrored(image, target):
    boxes = target.boxes.clone()
    boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
    return np.ascontiguousarray(image[:, ::-1]), replace(target, boxes=boxes)


@pytest.fixture
def setup(small_devkit):
    return small_setup(small_devkit)


@pytest.mark.parametrize(
    ("change", "words"), [(mirrored_in_place, "targets of"), (darkened_in_place, "images of"), (mirrored, "")]
)
def test_a_transform_that_writes_into_the_data_is_named_and_the_data_are_put_back(setup, change, words):
    read = in_memory(setup.data, 12)
    setup.data = InMemory(tuple((image.copy(), target) for image, target in read), read.classes)
    before = [(image.copy(), target.boxes.clone()) for image, target in setup.data]
    usual, setup.transform = setup.transform, lambda image, target: usual(*change(image, target))
    findings = seen_in(setup.patient(), "data-stay-as-they-are")
    assert (words in findings[0].seen and findings[0].severity == "fault") if words else findings == []
    for (image, target), (old_image, old_boxes) in zip(setup.data, before, strict=True):
        assert np.array_equal(image, old_image) and torch.equal(target.boxes, old_boxes)


def test_the_usual_transform_and_data_that_are_read_anew_are_left_in_peace(setup):
    assert seen_in(setup.patient(), "data-stay-as-they-are") == []
