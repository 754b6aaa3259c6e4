from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from doctor.planted import SIDE, After, Seeded, centred, cropped, findings, mirrored, size

from course_lib import augment
from course_lib.doctor import setups
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


RECOLOURED = {
    "inverted": A.InvertImg(p=0.5),
    "solarised": A.Solarize(p=0.5),
    "another hue": A.HueSaturationValue(50, 90, 90, p=1),
    "grey at times": A.ToGray(p=0.5),
    "equalised": A.Equalize(p=0.5),
}


@pytest.mark.parametrize("name", RECOLOURED)
def test_colours_that_change_much_are_no_boxes_that_are_beside_their_objects(learned, name):
    for geometry, seen in ((A.HorizontalFlip(p=0.5), False), (None, True)):
        steps = [A.Resize(96, 96), RECOLOURED[name], *([geometry] if geometry else [])]
        transform = augment.Augment(steps)
        if geometry is None:  # and a fault in the boxes is seen all the same, in the pictures that keep their colours
            transform = setups.Then(transform, lambda im, t: (im.flip(-1), t))
        found = findings(Patient(data=learned, transform=transform), "boxes-stay-on-their-objects")
        assert not found if not seen else (found or name == "another hue"), found


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


def rounded(values):
    """As uint8 keeps what is below 0 or above 255."""
    return values.round().long().remainder(256).to(torch.uint8)


def first_channel(image, number):
    return torch.cat([rounded(image[:1] + 10.0 * (number % 7)), image[1:]])


WRAPPED = {
    "brightness": lambda image, number: image + torch.tensor(20 * (number % 5), dtype=torch.uint8),
    "darkness": lambda image, number: image - torch.tensor(20 * (number % 5), dtype=torch.uint8),
    "contrast": lambda image, number: rounded(image * (0.5 + 0.2 * (number % 6))),
    "contrast around grey": lambda image, number: rounded((image - 128.0) * (0.5 + 0.2 * (number % 6)) + 128),
    "one channel": first_channel,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_numbers_that_wrap_round_are_named_and_boxes_are_not_blamed(learned, name):
    change = WRAPPED[name]
    found = findings(Patient(data=learned, transform=After(lambda i, t, n: (change(i, n), t))), *OF_TRANSFORM)
    assert [one for one, _ in found] == ["colours-stay"] and "makes black of white" in found[0][1]


JUMPS = {
    "numbers that are cut off": [A.RandomBrightnessContrast(0.5, 0.5, p=1)],
    "black and white fills": [A.RandomBrightnessContrast(0.5, 0.5, p=1), A.CoarseDropout(fill=255), A.Rotate(20)],
    "noise": [A.GaussNoise(std_range=(0.2, 0.4), p=1), A.SaltAndPepper(), A.PixelDropout(0.05)],
    "noise in a hole": [A.CoarseDropout(fill="random", p=1)],
    "few or opposite numbers": [A.RandomBrightnessContrast(0.3, p=1), A.Posterize((1, 3)), A.Solarize((0.3, 1))],
    "an edge that continues at the other": [
        A.RandomBrightnessContrast(0.2),
        A.Affine(translate_percent=0.3, border_mode=3),
    ],
}


@pytest.mark.parametrize("name", JUMPS)
def test_other_jumps_are_no_numbers_that_wrap_round(name):
    patient = Patient(transform=augment.Augment([*JUMPS[name], A.Resize(SIDE, SIDE)]))
    assert findings(patient, "colours-stay") == []


def test_smooth_pictures_are_as_large_as_the_data(learned):
    """A crop that fits the data's pictures is not asked for more than they have, nor for less."""
    large = in_memory_of_size(learned, (640, 480))
    transform = augment.Augment([A.RandomCrop(440, 600), A.Resize(SIDE, SIDE)])
    assert findings(Patient(data=large, transform=transform), "colours-stay", "boxes-stay-on-their-objects") == []


def in_memory_of_size(data, size):
    """The same pictures, enlarged."""
    samples = tuple((cv2.resize(image, size), replace(target, size=size)) for image, target in data.samples[:8])
    return setups.InMemory(samples, data.classes)


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


class Cropped:
    """A crop that keeps every box of which a pixel is left, or those alone whose centre is in it."""

    def __init__(self, by_centre: bool) -> None:
        self.by_centre, self.random, self.resize = by_centre, np.random.default_rng(0), augment.evaluation(SIDE)

    def seed(self, number: int) -> None:
        self.random = np.random.default_rng(number)

    def __call__(self, image, target):
        height, width = image.shape[:2]
        h, w = (int(side * self.random.uniform(0.4, 0.8)) for side in (height, width))
        y, x = int(self.random.integers(0, height - h + 1)), int(self.random.integers(0, width - w + 1))
        boxes = (target.boxes_px - torch.tensor([x, y, x, y])) / torch.tensor([w, h, w, h])
        centre, cut = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes.clamp(0, 1)
        kept = ((centre > 0) & (centre < 1)).all(dim=1) if self.by_centre else (cut[:, 2:] > cut[:, :2]).all(dim=1)
        fields = {"labels": target.labels[kept], "difficult": target.difficult[kept]}
        window = np.ascontiguousarray(image[y : y + h, x : x + w])
        return self.resize(window, replace(target, boxes=cut[kept], size=(w, h), **fields))


@pytest.mark.parametrize("by_centre", [True, False])
def test_boxes_of_which_a_sliver_is_left_are_noted(by_centre):
    patient = Patient(transform=Cropped(by_centre), classes=("a", "b", "c"))
    found = findings(patient, "boxes-have-enough-of-their-objects", severity=("fault", "warning", "note"))
    assert found == [] if by_centre else "less than 20% of their object" in found[0][1]
