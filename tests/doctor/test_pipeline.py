from dataclasses import replace
from types import SimpleNamespace

import albumentations as A
import numpy as np
import pytest
import torch
from doctor.planted import (
    SIDE,
    After,
    batches,
    centred,
    cropped,
    findings,
    in_memory,
    mirrored,
    size,
    with_images,
    with_labels,
)

from course_lib import augment, profiles, voc, weights
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient


@pytest.fixture(scope="module")
def learned(small_devkit) -> setups.InMemory:
    return in_memory(small_devkit, "trainval")


OF_TRANSFORM = (
    "boxes-stay-on-their-objects",
    "labels-stay-with-their-boxes",
    "colours-stay",
    "objects-are-kept",
    "transform-works",
    "random-numbers-move-on",
    "share-of-objects-lost",
)
OF_BATCHES = (
    *("batches-can-be-made", "batches-have-objects", "boxes-in-batches", "labels-in-batches", "pixels-in-batches"),
    *("labels-are-those-of-the-data", "images-are-those-of-their-targets", "colours-are-those-of-the-data"),
    *("augmentation-differs", "every-pass-differs", "boxes-are-on-objects-in-batches", "memory-of-a-batch"),
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


@pytest.mark.parametrize("count", [4, 32])
def test_healthy_batches_have_neither_fault_nor_warning(learned, count):
    patient = Patient(data=learned, batches=batches(learned, size=count))
    assert findings(patient, *OF_BATCHES) == []


def pad_with_objects(batch: voc.Batch) -> voc.Batch:
    return batch._replace(labels=torch.where(batch.labels == 0, 3, batch.labels))


def in_rows(change):
    """A change of the labels that are no padding."""
    return lambda batch: batch._replace(labels=torch.where(batch.labels > 0, change(batch.labels), batch.labels))


TORN = {
    "boxes are in pixels": (lambda b: b._replace(boxes=b.boxes * SIDE), "boxes-in-batches"),
    "boxes are centre and size": (
        lambda b: b._replace(
            boxes=torch.cat(
                [b.boxes[..., :2] + (b.boxes[..., 2:] - b.boxes[..., :2]) / 2, b.boxes[..., 2:] - b.boxes[..., :2]],
                dim=-1,
            )
        ),
        "boxes-in-batches",
    ),
    "are empty boxes in a corner, as padding is": (pad_with_objects, "boxes-in-batches"),
    "boxes have label 0": (in_rows(lambda n: n - 1), "labels-in-batches"),
    "all of them are +1": (in_rows(lambda n: n + 1), "labels-are-those-of-the-data"),
    "the images of a batch belong to other targets": (
        lambda b: b._replace(images=b.images.roll(1, 0)),
        "images-are-those-of-their-targets",
    ),
    "pixels are 0 to 1": (lambda b: b._replace(images=(b.images > 127).byte()), "pixels-in-batches"),
    "images are of one value everywhere": (lambda b: b._replace(images=b.images * 0), "pixels-in-batches"),
    "red and blue are exchanged": (lambda b: b._replace(images=b.images.flip(1)), "colours-are-those-of-the-data"),
}


@pytest.mark.parametrize("named", TORN)
def test_what_a_loop_does_to_its_batches_is_named(learned, named):
    change, check = TORN[named]
    found = findings(Patient(data=learned, batches=batches(learned, change)), *OF_BATCHES)
    assert any(one == check and named in seen for one, seen in found)


def test_boxes_of_another_image_of_the_batch_are_seen_without_the_data(learned):
    """One class and no ids that mean anything: the pixels alone tell."""
    one = with_labels(learned, lambda labels: labels * 0 + 1)
    for shift, expected in ((0, []), (1, ["boxes-are-on-objects-in-batches"])):
        rolled = batches(one, lambda b, shift=shift: b._replace(boxes=b.boxes.roll(shift, 0), image_ids=["?"] * 8))
        patient = Patient(batches=rolled)
        assert [check for check, _ in findings(patient, "boxes-are-on-objects-in-batches")] == expected


def test_batches_that_cannot_be_made_are_one_fault(learned):
    def fail(batch: voc.Batch) -> voc.Batch:
        raise RuntimeError("stack expects each tensor to be equal size")

    found = findings(Patient(data=learned, batches=batches(learned, fail)), *OF_BATCHES)
    assert len(found) == 1 and "RuntimeError: stack expects" in found[0][1]
    assert "no batch" in findings(Patient(batches=batches(learned, size=64)), *OF_BATCHES)[0][1]


class Seeded:
    """A transform that takes the same random numbers in every call, or in every batch."""

    def __init__(self, every: int) -> None:
        self.inner, self.every, self.calls = augment.training(SIDE), every, 0

    def __call__(self, image, target):
        self.inner.seed(self.calls % self.every)
        self.calls += 1
        return self.inner(image, target)


def test_samples_that_are_augmented_alike_are_told(learned):
    plain = voc.Target(torch.tensor([[0.3, 0.4, 0.6, 0.7]]), torch.tensor([1]), torch.tensor([False]), "", (500, 375))
    pictures = tuple((image, replace(plain, image_id=str(k))) for k, (image, _) in enumerate(learned.samples))
    data = setups.InMemory(pictures, learned.classes)
    for every, named in ((1, "in the same way"), (8, "augmented alike, sample by sample"), (1000, None)):
        loop = setups.Batches(data, Seeded(every), voc.collate, 8)
        found = findings(Patient(data=data, batches=loop), "augmentation-differs")
        assert [named in seen for _, seen in found] == ([True] if named else [])


def test_a_seed_in_every_call_is_told_by_the_chances_that_never_come_out_otherwise():
    name = "random-numbers-move-on"
    for transform in (augment.training_mini(SIDE), augment.training(SIDE), augment.evaluation(SIDE)):
        assert findings(Patient(transform=transform), name) == []
    assert "chances are 0.5" in findings(Patient(transform=Seeded(1)), name)[0][1]


class Shuffled:
    """Each pass in another order, every image augmented by a seed of its own that never changes."""

    def __init__(self, data: setups.InMemory) -> None:
        self.batches, self.passes = batches(data), 0

    def __iter__(self):
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(len(self.batches.data)).tolist()
        for start in range(0, len(order), 8):
            yield voc.collate([self.batches.sample(index) for index in order[start : start + 8]])


def test_a_shuffled_image_that_is_always_augmented_alike_is_told_and_an_orderly_one_noted(learned):
    name = "every-pass-differs"
    few = setups.InMemory(learned.samples[:24], learned.classes)
    assert "augmented exactly" in findings(Patient(data=few, batches=Shuffled(few)), name)[0][1]
    orderly = Patient(data=few, batches=batches(few))
    assert findings(orderly, name) == [] and "augmented exactly" in findings(orderly, name, severity=("note",))[0][1]


NORMALISED = "pixels-are-normalised-as-the-weights-expect"


class Plain(torch.nn.Module):
    """A network of somebody else's, which says of its pixels what it is told to say."""

    def __init__(self, mean: float, deviation: float, backbone: SimpleNamespace | None = None) -> None:
        super().__init__()
        self.layer, self.mean, self.deviation = torch.nn.Conv2d(3, 4, 3), mean, deviation
        self.backbone = backbone

    def forward(self, images):
        return self.layer((images.float() - self.mean) / self.deviation)


def patient_of(learned, change=lambda images: images, **parts) -> Patient:
    model = Plain(117, 58, SimpleNamespace(pixel_mean=(117,) * 3, pixel_std=(58,) * 3))
    loop = batches(learned)
    return Patient(data=learned, batches=loop, model=model, outputs=lambda b: model(change(b.images)), **parts)


def test_what_the_first_convolution_receives_is_measured(learned):
    healthy = patient_of(learned, pretrained={})
    assert findings(healthy, NORMALISED) == []
    twice = findings(patient_of(learned, lambda images: images.float() / 255, pretrained={}), NORMALISED)
    assert "divided by 255 once more" in twice[0][1]
    before = findings(patient_of(learned, lambda images: (images.float() - 120) / 58), NORMALISED)
    assert len(before) == 1 and "due for the model's backbone are less (117, 117, 117)" in before[0][1]
    exchanged = findings(patient_of(learned, lambda images: images.flip(1)), NORMALISED)
    assert any("receives blue, green, red" in seen for _, seen in exchanged)
    others = patient_of(learned, expects=((127.5,) * 3, (127.5,) * 3))
    assert "due for the pretrained weights" in findings(others, NORMALISED)[0][1]
    near = patient_of(learned, expects=((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))  # ImageNet's
    assert findings(near, NORMALISED) == []


def test_pretrained_statistics_tell_that_pixels_are_in_another_unit(learned):
    taught = weights.load(profiles.RECORD)
    loop = setups.Batches(learned, augment.training_mini(taught.image_size), voc.collate, 20)
    parts = {"batches": loop, "model": taught, "pretrained": dict(taught.state_dict())}
    name = "pixels-are-those-that-statistics-know"
    assert findings(Patient(**parts), name) == []
    taught.std.mul_(1 / 255)
    assert "are off by" in findings(Patient(**parts), name)[0][1]


def test_grey_pictures_are_in_no_wrong_order(learned):
    grey = with_images(learned, lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, 2).astype(np.uint8))
    assert findings(patient_of(grey, pretrained={}), NORMALISED, "colours-are-those-of-the-data") == []


@pytest.mark.parametrize(
    ("mean", "deviation", "healthy"),
    [(0, 1, True), (0, 255, True), (127.5, 127.5, True), (117, 58, True), (117, 1, True), (0.485, 0.229, False),
     (117 * 255, 255, False), (0, 255 * 255, False)],
)  # fmt: skip
def test_of_unknown_weights_only_what_no_network_wants_is_told(learned, mean, deviation, healthy):
    patient = Patient(data=learned, batches=batches(learned), model=Plain(mean, deviation))
    assert (findings(patient, NORMALISED) == []) == healthy
