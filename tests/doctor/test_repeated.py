from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import batches, findings, with_images

from course_lib.boxes import area
from course_lib.doctor import examine, repeated, setups
from course_lib.doctor.patient import Patient

NAMES = [one.name for one in repeated.CHECKS]


def said(patient: Patient) -> list[tuple[str, str]]:
    """Severity and words of what the two checks find."""
    return [(one.severity, one.seen) for one in examine(patient, only=NAMES).findings]


def changed(learned: setups.InMemory, change) -> setups.InMemory:
    return setups.InMemory(tuple(change(number, *one) for number, one in enumerate(learned.samples)), learned.classes)


def test_healthy_data_and_batches_are_told_of_nothing(learned):
    assert said(Patient(data=learned)) == [] == said(Patient(batches=batches(learned)))


def test_every_eighth_picture_that_is_the_one_before_is_found_in_the_data(learned):
    samples = learned.samples
    stale = changed(learned, lambda n, image, target: (samples[n - 1][0] if n % 8 == 7 else image, target))
    ((severity, seen),) = said(Patient(data=stale))
    assert severity == "fault" and "another one with other boxes" in seen


@pytest.mark.parametrize("same", [False, True])
def test_a_picture_of_the_batch_before_is_found_and_the_same_sample_again_is_not(learned, same):
    kept = []

    def late(batch):
        """Its last picture is that of the batch before; the boxes too, where the sample is the same again."""
        images, boxes, labels = batch.images.clone(), batch.boxes.clone(), batch.labels.clone()
        if kept:
            images[-1] = kept[-1].images[-1]
            if same:
                count = kept[-1].boxes.shape[1]
                boxes = torch.cat([boxes, boxes.new_zeros(len(boxes), count, 4)], dim=1)
                labels = torch.cat([labels, labels.new_zeros(len(labels), count)], dim=1)
                boxes[-1], labels[-1] = 0, 0
                boxes[-1, :count], labels[-1, :count] = kept[-1].boxes[-1].flip(0), kept[-1].labels[-1].flip(0)
        kept.append(batch)
        return batch._replace(images=images, boxes=boxes, labels=labels, difficult=torch.zeros_like(labels, dtype=bool))

    found = said(Patient(batches=batches(learned, late)))
    assert found == [] if same else found[0][0] == "warning" and "in the loop's batches" in found[0][1]


def test_pictures_of_one_colour_are_no_copies(learned):
    plain = with_images(learned, lambda image: np.full((60, 80, 3), 7, dtype=np.uint8))
    assert repeated.again(repeated.of_the_data(Patient(data=plain))) == []


ORDERS = {"by area": lambda b: area(b).argsort(descending=True), "from left to right": lambda b: b[:, 0].argsort()}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("labels_too", [False, True])
def test_boxes_that_are_sorted_alone_are_a_warning_and_with_their_labels_a_note(learned, order, labels_too):
    def listed(number, image, target):
        rows = ORDERS[order](target.boxes)
        return image, replace(
            target, boxes=target.boxes[rows], labels=target.labels[rows if labels_too else slice(None)]
        )

    ((severity, seen),) = said(Patient(data=changed(learned, listed)))
    assert severity == ("note" if labels_too else "warning") and order in seen


def test_boxes_by_chance_are_in_no_order():
    chance = np.random.default_rng(0)
    some = [repeated.Sample("", np.zeros((9, 9, 3)), chance.random((3, 4)), np.ones(3)) for _ in range(40)]
    assert repeated.order_of(some) == ""
    assert repeated.order_of(some[:2]) == ""  # of few nothing can be told


def test_findings_come_with_the_other_checks_of_data(learned):
    assert findings(Patient(data=learned), *NAMES) == []
