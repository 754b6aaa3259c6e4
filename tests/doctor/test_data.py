import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doctor.planted import findings, with_labels
from xml_files import dog, with_list, write

from course_lib import voc
from course_lib.doctor import data, examine, setups
from course_lib.doctor.patient import Patient
from course_lib.voc import ImageDataset, ImageSet, Target

OF_ANNOTATIONS = data.OF_ANNOTATIONS


def test_healthy_data_has_no_fault(learned, held_out):
    assert findings(Patient(data=learned, held_out=held_out)) == []


LABELS = {
    "labels count from 0: they are 0 to 19": lambda n: n - 1,
    "labels are shifted by one: 2 to 21": lambda n: n + 1,
    "have labels above 20, up to 25": lambda n: torch.where(n == 15, 25, n),
    "label 0, which is background": lambda n: torch.where(n == 15, 0, n),
    "have a negative label": lambda n: torch.where(n == 15, -1, n),
    "have label 7, and there are 20 classes": lambda n: n * 0 + 7,
}


@pytest.mark.parametrize("named", LABELS)
def test_labels_that_are_no_classes_are_told(learned, named):
    every = list(range(1, 21))
    full = with_labels(learned, lambda n: n)
    image, target = full.samples[0]
    more = Target(
        torch.rand(20, 2).sort(dim=0).values.repeat(1, 2), torch.tensor(every), torch.zeros(20) > 0, "x", (9, 9)
    )
    boxes = torch.tensor([[0.1, 0.1, 0.2 + k / 30, 0.9] for k in range(20)])
    full = setups.InMemory((*full.samples, (image, replace(more, boxes=boxes))), learned.classes)
    spoilt = with_labels(full, LABELS[named])
    found = findings(Patient(data=spoilt), "labels-are-classes", "annotations-can-be-read")
    assert any(named in seen for _, seen in found)
    assert target.image_id != "x" and findings(Patient(data=full), "labels-are-classes") == []


def test_names_of_classes_that_are_one_class_or_none_are_told(learned):
    def said(*names: str, labels: tuple[int, ...] = ()) -> str:
        target = Target(
            torch.rand(len(labels), 4),
            torch.tensor(labels, dtype=torch.int64),
            torch.zeros(len(labels)) > 0,
            "a",
            (9, 9),
        )
        shown = setups.InMemory(((learned.samples[0][0], target),), names)
        return " ".join(seen for _, seen in findings(Patient(data=shown), "names-of-classes"))

    assert said("cat", "dog", "class 1", "class 2", labels=(1, 2, 3) * 30) == ""
    assert "'background' is among" in said("background", "cat", "dog")
    assert "two classes" in said("traffic light", "Traffic_Light")
    assert "'motorbke' (1 objects) is 'motorbike' (30 objects)" in said(
        "motorbike", "motorbke", labels=(1,) * 30 + (2,)
    )
    assert said("horse", "house", labels=(1, 2) * 30) == ""
    other = setups.InMemory(learned.samples, learned.classes[::-1])
    found = findings(Patient(data=other, classes=learned.classes), "names-of-classes")
    assert "label 1 is 'aeroplane'" in found[0][1] and "'tvmonitor' to the data" in found[0][1]


def test_objects_that_are_listed_twice_are_told(learned):
    def doubled(label: int) -> setups.InMemory:
        return setups.InMemory(
            tuple(
                (
                    i,
                    replace(
                        t,
                        boxes=t.boxes.repeat(2, 1),
                        labels=torch.cat([t.labels, (t.labels + label - 1) % 20 + 1]),
                        difficult=t.difficult.repeat(2),
                    ),
                )
                for i, t in learned.samples
            ),
            learned.classes,
        )

    name = "objects-are-listed-once"
    assert "listed again" in findings(Patient(data=doubled(0)), name)[0][1]
    assert "another label" in findings(Patient(data=doubled(1)), name)[0][1]


def test_every_fault_of_a_tree_is_told_once_for_each_field(tree):
    root = tree / "VOC2007"
    with_list(tree, "a\nb\nc\nd\ne\n", *"abcde")
    write(root / "Annotations/a.xml", dog(xmin=50))
    write(root / "Annotations/b.xml", dog(xmax=20, xmin=30))
    (root / "Annotations/c.xml").write_text("<annotation>")
    write(root / "Annotations/d.xml", dog(name="dgo"))
    data_of_tree = ImageDataset([ImageSet(root, "test")])
    found = findings(Patient(data=data_of_tree), *OF_ANNOTATIONS)
    assert [check for check, _ in found] == ["annotations-can-be-read"] * 2 + ["names-of-classes"]
    assert "2 cannot be read, the first: object[0]/bndbox" in found[0][1] and "a.xml" in found[0][1]
    assert "1 cannot be read, the first: XML" in found[1][1] and "'dgo'" in found[2][1]
    pictures = findings(Patient(data=data_of_tree), "pictures-can-be-read")
    assert "5 of 5 pictures" in pictures[0][1]


def test_real_voc_has_neither_fault_nor_warning(voc_annotations):
    patient = Patient(
        data=voc.VOCDetection(voc_annotations, "2007", "trainval"),
        held_out=voc.VOCDetection(voc_annotations, "2007", "test"),
    )
    started = time.process_time()
    assert findings(patient, *OF_ANNOTATIONS) == []
    assert time.process_time() - started < 60  # a benchmark has the true number, below 10


def test_real_pictures_have_neither_fault_nor_warning(voc_real):
    parts = (voc.VOCDetection(voc_real / "VOCdevkit", "2007", name) for name in ("trainval", "test"))
    assert findings(Patient(**dict(zip(("data", "held_out"), parts, strict=True)))) == []


def test_photographs_have_neither_fault_nor_warning():
    if not os.environ.get("PHOTOS"):
        pytest.skip("PHOTOS names no folder with photographs")
    devkit = Path(os.environ["PHOTOS"]) / "VOCdevkit"
    parts = (voc.VOCDetection(devkit, "2012", name) for name in ("train", "val"))
    assert findings(Patient(**dict(zip(("data", "held_out"), parts, strict=True)))) == []


def test_nothing_is_said_of_one_picture_that_is_healthy(learned):
    one = setups.InMemory(learned.samples[:1], learned.classes)
    assert findings(Patient(data=one)) == []


@pytest.mark.parametrize(("learned", "measured", "found"), [(1, 3, True), (3, 1, True), (3, 3, False), (2, 3, False)])
def test_other_numbers_of_objects_an_image_are_named(learned, measured, found):
    def some(objects):
        boxes = torch.tensor([[0.1, 0.1, 0.3 + 0.1 * number, 0.4] for number in range(objects)])
        labels, none = torch.ones(objects, dtype=torch.int64), torch.zeros(objects, dtype=torch.bool)
        return [(np.zeros((8, 8, 3), np.uint8), Target(boxes, labels, none, str(i), (8, 8))) for i in range(40)]

    patient = Patient(data=some(learned), held_out=some(measured), classes=("cat",))
    report = examine(patient, only=["held-out-images-are-alike"])
    assert len(report.of("warning")) == found, report
    assert not found or ("exactly one" in report.findings[0].seen) == (learned == 1)
