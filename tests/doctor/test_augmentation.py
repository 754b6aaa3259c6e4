from dataclasses import replace

import albumentations as A
import pytest
import torch
from doctor.planted import SIDE, After, Seeded, centred, cropped, findings, mirrored, size

from course_lib import augment
from course_lib.doctor.patient import Patient

OF_TRANSFORM = (
    "boxes-stay-on-their-objects",
    "labels-stay-with-their-boxes",
    "colours-stay",
    "objects-are-kept",
    "transform-works",
    "random-numbers-move-on",
    "share-of-objects-lost",
)


KEPT = {
    "mini": augment.training_mini(SIDE),
    "ssd": augment.training(SIDE),
    "photos": augment.training_photos(SIDE),
    "none": augment.evaluation(SIDE),
    "turned and cut": augment.Augment(
        [A.Rotate(15), A.RandomResizedCrop((SIDE, SIDE), scale=(0.5, 1)), A.RandomRotate90(), A.VerticalFlip()]
    ),
    "colours": augment.Augment(
        [A.ToGray(p=0.3), A.HueSaturationValue(30, 60, 40), A.GaussianBlur(), A.CoarseDropout(), A.Resize(SIDE, SIDE)]
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_transform_that_treats_boxes_as_part_of_the_picture_is_healthy(learned, name):
    assert findings(Patient(data=learned, transform=KEPT[name]), *OF_TRANSFORM) == []


def forget_flip(image, target, number):
    return (image.flip(-1) if number % 2 else image), target


def flip_boxes_alone(image, target, number):
    return image, replace(target, boxes=mirrored(target.boxes))


def forget_crop(image, target, number):
    return cropped(image, target, number)[0], target


def forget_to_clip(image, target, number):
    image, boxes = cropped(image, target, number)
    kept = centred(boxes)
    return image, replace(target, boxes=boxes[kept], labels=target.labels[kept], difficult=target.difficult[kept])


def leave_labels(image, target, number):
    image, fewer = forget_to_clip(image, target, number)
    count = len(fewer.boxes)
    boxes = fewer.boxes.clamp(0, 1)
    return image, replace(target, boxes=boxes, labels=target.labels[:count], difficult=target.difficult[:count])


def drop(image, target, number):
    return image, replace(target, boxes=target.boxes[::2], labels=target.labels[::2], difficult=target.difficult[::2])


SPOILT = {
    "the picture is mirrored left to right": (forget_flip, "boxes-stay-on-their-objects"),
    "mirrored left to right, and the box is not": (flip_boxes_alone, "boxes-stay-on-their-objects"),
    "upside down": (lambda i, t, n: (i.flip(-2), t), "boxes-stay-on-their-objects"),
    "cut, zoomed": (forget_crop, "boxes-stay-on-their-objects"),
    "the box is in pixels": (
        lambda i, t, n: (i, replace(t, boxes=t.boxes * SIDE)),
        "boxes-stay-on-their-objects",
    ),
    "the box is (x, y, width, height)": (
        lambda i, t, n: (i, replace(t, boxes=torch.cat([t.boxes[:, :2], size(t.boxes)], dim=1))),
        "boxes-stay-on-their-objects",
    ),
    "reach out of the picture": (forget_to_clip, "boxes-stay-on-their-objects"),
    "all of them where an object was dropped": (leave_labels, "labels-stay-with-their-boxes"),
    "each is -1": (lambda i, t, n: (i, replace(t, labels=t.labels - 1)), "labels-stay-with-their-boxes"),
    "blue becomes red and red becomes blue": (lambda i, t, n: (i.flip(0), t), "colours-stay"),
    "have no box any more": (drop, "objects-are-kept"),
}


@pytest.mark.parametrize("named", SPOILT)
def test_what_a_transform_forgets_is_named(learned, named):
    change, check = SPOILT[named]
    found = findings(Patient(data=learned, transform=After(change)), *OF_TRANSFORM)
    assert [one for one, _ in found] == [check] and named in found[0][1]


def test_a_transform_that_fails_on_an_image_names_it(learned):
    def fail(image, target, number):
        if target.image_id != "marker":
            raise ValueError("no")
        return image, target

    found = findings(Patient(data=learned, transform=After(fail)), "share-of-objects-lost")
    assert "fails on image" in found[0][1] and "ValueError: no" in found[0][1]


def test_a_seed_in_every_call_is_told_by_the_chances_that_never_come_out_otherwise():
    name = "random-numbers-move-on"
    for transform in (augment.training_mini(SIDE), augment.training(SIDE), augment.evaluation(SIDE)):
        assert findings(Patient(transform=transform), name) == []
    assert "chances are 0.5" in findings(Patient(transform=Seeded(1)), name)[0][1]
