from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course_lib import profiles, voc, weights
from course_lib.detect import Detections
from course_lib.doctor import Patient, class_gap, drawing, examine, setups
from course_lib.voc import Target

CHECK = "classes-hold-on-held-out-images"
CLASSES = ("bus", "cat", "dog")
LEARNED, HELD_OUT = 1, 2  # the colour of an image tells a detector that knows the answers where it is from


def data(colour: int, images: int = 20) -> setups.InMemory:
    """Images of one colour, each with an object of every class at the same places."""
    boxes = torch.tensor([[0.0, 0.0, 0.3, 0.3], [0.3, 0.3, 0.6, 0.6], [0.6, 0.6, 0.9, 0.9]])
    target = Target(boxes, torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.bool), "", (16, 16))
    image = np.full((16, 16, 3), colour, dtype=np.uint8)
    return setups.InMemory(tuple((image, replace(target, image_id=f"{colour} {n}")) for n in range(images)), CLASSES)


def patient(finds, images: int = 20, **parts) -> Patient:
    """One whose detection finds an object if `finds(colour, label)` says so."""

    def detect(batch):
        found = []
        for image, boxes, labels in zip(batch.images, batch.boxes, batch.labels, strict=True):
            kept = torch.tensor([finds(int(image[0, 0, 0]), int(label)) for label in labels])
            found.append(Detections(boxes[kept], torch.ones(int(kept.sum())), labels[kept]))
        return found

    learned = data(LEARNED, images)
    batch = voc.collate([(torch.from_numpy(image).permute(2, 0, 1), target) for image, target in learned.samples[:4]])
    usual = {"data": learned, "held_out": data(HELD_OUT, images), "batches": [batch], "model": nn.Linear(1, 1)}
    return Patient(**usual | {"detect": detect, "priors": torch.rand(4, 4)} | parts)


def found(*given_, **parts):
    return examine(patient(*given_, **parts), only=[CHECK]).findings


def test_what_holds_on_both_sides_is_a_note_with_its_numbers():
    (finding,) = found(lambda colour, label: True)
    assert finding.severity == "note" and "1.00 and 1.00, the mean of 3 classes; far lower for none" in finding.seen
    assert drawing.as_png(finding.picture).startswith(b"\x89PNG")


def test_a_class_that_is_lost_while_the_others_hold_is_a_warning_that_names_it():
    (finding,) = found(lambda colour, label: colour == LEARNED or label != 2)
    assert finding.severity == "warning"
    assert "1.00 and 0.67" in finding.seen and "cat 1.00 and 0.00 (20 and 20 objects)" in finding.seen


def test_what_was_learned_by_heart_is_a_note_that_names_each_class():
    (finding,) = found(lambda colour, label: colour == LEARNED)
    assert finding.severity == "note" and all(f"{name} 1.00 and 0.00" in finding.seen for name in CLASSES)


@pytest.mark.parametrize(
    "ill",
    [
        lambda: found(lambda colour, label: False),
        lambda: found(lambda colour, label: True, images=class_gap.FEW - 1),
        lambda: found(lambda colour, label: True, read=lambda batch: batch._replace(images=255 - batch.images)),
        lambda: found(lambda colour, label: 1 / 0),
    ],
    ids=["not trained", "few objects", "other batches", "detection fails"],
)
def test_nothing_is_said_where_nothing_can_be_measured(ill):
    assert not ill()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_a_class_is_gone_only_where_it_was_learned_and_the_others_hold(pairs):
    rows = [class_gap.Gap("a", *pair, (20, 20)) for pair in pairs]
    for place, row in enumerate(rows):
        others = rows[:place] + rows[place + 1 :]
        if class_gap.is_gone(row, others):
            learned, held_out = class_gap.means(others)
            assert row.lost > 0.5 and held_out > 0.2 and held_out > learned / 2
    assert not class_gap.is_gone(rows[0], [])


@pytest.mark.slow
def test_the_recorded_detector_keeps_each_class(learned, held_out):
    setup = setups.healthy(learned, held_out)
    setup.adopt(weights.load(profiles.RECORD))
    assert not examine(setup.patient(), only=[CHECK]).of("fault", "warning")


@pytest.mark.parametrize(("forgotten", "sure", "found"), [((), True, False), ((2,), True, True), ((2,), False, False)])
def test_objects_that_a_trained_model_is_sure_of_and_nobody_annotated_are_noted(forgotten, sure, found):
    """The model knows all three objects of an image; those of some label have been left out of the annotations."""
    whole = data(LEARNED)
    known = whole.samples[0][1]
    kept = torch.tensor([int(label) not in forgotten for label in known.labels])
    target = replace(known, boxes=known.boxes[kept], labels=known.labels[kept], difficult=known.difficult[kept])
    samples = tuple((image, replace(target, image_id=one.image_id)) for image, one in whole.samples)

    def detect(batch):
        scores = torch.tensor([1.0, 1.0 if sure else 0.5, 1.0])
        return [Detections(known.boxes, scores, known.labels) for _ in batch.images]

    learned = setups.InMemory(samples, CLASSES)
    report = examine(patient(None, data=learned, detect=detect), only=["sure-detections-are-annotated"])
    assert bool(report.findings) == found, report
    if found:
        (finding,) = report.findings
        assert finding.severity == "note" and "20 detections" in finding.seen and "cat 1.00" in finding.seen
        assert drawing.as_png(finding.picture).startswith(b"\x89PNG")
