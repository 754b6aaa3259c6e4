import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import SIDE, batches, findings, mirrored, size, with_labels, wrong_boxes

from course_lib import augment, voc
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient

BOXES = {
    "would be with x and y exchanged": lambda b, px: b[:, [1, 0, 3, 2]],
    "would be mirrored left to right": lambda b, px: mirrored(b),
    "would be 1.67 times as far": lambda b, px: b * 0.6,
    "would be moved by": lambda b, px: (b + torch.tensor([0.1, 0.05, 0.1, 0.05])).clamp(0, 1),
    "lower right (corners for centres)": lambda b, px: (b - torch.cat([size(b) / 2] * 2, dim=1)).clamp(0, 1),
}


@pytest.mark.parametrize("named", BOXES)
def test_boxes_that_are_all_wrong_are_one_fault_that_names_how(learned, named):
    wrong = wrong_boxes(learned, BOXES[named])
    assert len(wrong) == 1 and named in wrong[0][1]


def test_boxes_of_the_next_picture_and_of_any_other_are_told_from_pixels(learned):
    square = [(image, replace(t, size=(1, 1))) for image, t in learned.samples]  # of whose sizes nothing is to be told
    for step, named in ((1, "(image 0 has the boxes of image 1)"), (17, "on nothing")):
        samples = tuple(
            (image, replace(square[(k + step) % 40][1], image_id=str(k))) for k, (image, _) in enumerate(square)
        )
        found = dict(findings(Patient(data=setups.InMemory(samples, learned.classes)), "boxes-are-on-objects"))
        assert named in found["boxes-are-on-objects"]


def test_boxes_of_another_image_of_the_batch_are_seen_without_the_data(learned):
    """One class and no ids that mean anything: the pixels alone tell."""
    one = with_labels(learned, lambda labels: labels * 0 + 1)
    for shift, expected in ((0, []), (1, ["boxes-are-on-objects-in-batches"])):
        rolled = batches(one, lambda b, shift=shift: b._replace(boxes=b.boxes.roll(shift, 0), image_ids=["?"] * 8))
        patient = Patient(batches=rolled)
        assert [check for check, _ in findings(patient, "boxes-are-on-objects-in-batches")] == expected


def test_it_is_told_whose_boxes_images_have_and_from_which_one_on(learned):
    """A line that is missing from the middle of a list of boxes: the older words could be read both ways."""
    square = [(image, replace(t, size=(1, 1), image_id=str(k))) for k, (image, t) in enumerate(learned.samples)]
    samples = tuple(
        (image, replace(square[(k + (k >= 15)) % 40][1], image_id=str(k))) for k, (image, _) in enumerate(square)
    )
    found = dict(findings(Patient(data=setups.InMemory(samples, learned.classes)), "boxes-are-on-objects"))
    told = re.search(r"\(image (\d+) has the boxes of image (\d+), and so on", found["boxes-are-on-objects"])
    has, of = map(int, told.groups())
    assert of == has + 1 and 12 <= has <= 18


IN_SOME = {
    "would be mirrored left to right": (3, lambda image: image[:, ::-1]),
    "would be turned by half": (2, lambda image: image[::-1, ::-1]),
}


@pytest.mark.parametrize("named", IN_SOME)
def test_pictures_of_which_some_are_changed_without_their_boxes_are_named(learned, named):
    every, change = IN_SOME[named]
    samples = tuple(
        (np.ascontiguousarray(change(image)) if number % every == 1 else image, target)
        for number, (image, target) in enumerate(learned.samples)
    )
    found = findings(Patient(data=setups.InMemory(samples, learned.classes)), "boxes-are-on-objects")
    assert len(found) == 1 and named in found[0][1] and "of about" in found[0][1]


def test_a_mirror_by_the_height_is_named_in_batches_whose_boxes_are_clipped(learned):
    def by_height(batch):
        boxes = batch.boxes.clone()
        other = torch.tensor([h / w for w, h in batch.sizes])[:, None]
        wrong = torch.stack([other - boxes[..., 2], boxes[..., 1], other - boxes[..., 0], boxes[..., 3]], dim=2)
        boxes[::2], images = wrong.clamp(0, 1)[::2], batch.images.clone()
        images[::2] = images[::2].flip(-1)
        seen = (batch.labels > 0) & ((boxes[..., 2:] - boxes[..., :2]) > 0.02).all(dim=2)
        return batch._replace(images=images, boxes=boxes * seen[..., None], labels=batch.labels * seen)

    once = setups.Batches(learned, augment.evaluation(SIDE), lambda some: by_height(voc.collate(some)), 8)
    found = findings(Patient(batches=once), "boxes-are-on-objects-in-batches")
    assert len(found) == 1 and "mirrored by the height" in found[0][1]
