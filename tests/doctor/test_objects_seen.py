from dataclasses import replace

import pytest
import torch
from doctor.planted import batches, findings, mirrored, size, with_labels, wrong_boxes

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
    for step, named in ((1, "those of the image before"), (17, "on nothing")):
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
