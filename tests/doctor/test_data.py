import math
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doctor.planted import findings, in_memory, mirrored, size, with_boxes, with_images, with_labels
from hypothesis import given, settings
from hypothesis import strategies as some
from xml_files import dog, with_list, write

from course_lib import voc
from course_lib.doctor import box_forms, data, setups
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import Objects, objects_of
from course_lib.voc import ImageDataset, ImageSet, Target

OF_ANNOTATIONS = data.OF_ANNOTATIONS


@pytest.fixture(scope="module")
def learned(small_devkit) -> setups.InMemory:
    return in_memory(small_devkit, "trainval")


@pytest.fixture(scope="module")
def held_out(small_devkit) -> setups.InMemory:
    return in_memory(small_devkit, "test")


def random_objects(seed: int, count: int = 60) -> Objects:
    """Boxes in images of VOC's usual sizes, some of which touch an edge."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(-0.1, 1.1, (count, 2, 2)), axis=1).clip(0, 1)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.02)
    boxes = torch.from_numpy(corners.reshape(count, 4) / 1.02)
    sizes = torch.tensor([(500, 375), (375, 500), (500, 333)], dtype=torch.float64)[torch.arange(count) % 3]
    ids = tuple(map(str, range(count)))
    return Objects(boxes, torch.ones(count, dtype=torch.int64), torch.arange(count), sizes, ids)


WRITTEN = {
    ("pixels", box_forms.CORNERS): lambda b, px: b * px,
    ("percent", box_forms.CORNERS): lambda b, px: b * 100,
    ("thousandths", box_forms.CORNERS): lambda b, px: b * 1000,
    ("pixels of an image of 300 x 300", box_forms.CORNERS): lambda b, px: b * 300,
    ("fractions", "(x, y, width, height)"): lambda b, px: torch.cat([b[:, :2], size(b)], dim=1),
    ("pixels", "(x, y, width, height)"): lambda b, px: torch.cat([b[:, :2], size(b)], dim=1) * px,
    ("fractions", "centre and size (x, y, width, height)"): lambda b, px: torch.cat(
        [(b[:, :2] + b[:, 2:]) / 2, size(b)], dim=1
    ),
    ("fractions", "(xmin, xmax, ymin, ymax)"): lambda b, px: b[:, [0, 2, 1, 3]],
    ("pixels", "corners with y before x (ymin, xmin, ymax, xmax)"): lambda b, px: (b * px)[:, [1, 0, 3, 2]],
    ("fractions", "reversed corners (xmax, ymax, xmin, ymin)"): lambda b, px: b[:, [2, 3, 0, 1]],
    ("fractions that were divided by the image's size once more", box_forms.CORNERS): lambda b, px: b / px,
}


@settings(max_examples=5)
@given(seed=some.integers(0, 10_000))
def test_the_form_in_which_boxes_are_written_is_told_by_the_boxes(seed):
    right = random_objects(seed)
    assert box_forms.wrong_form(right, 300) is None
    px = right.sizes.repeat(1, 2)
    for form, write_as in WRITTEN.items():
        assert box_forms.wrong_form(replace(right, boxes=write_as(right.boxes, px)), 300) == form


@settings(max_examples=5)
@given(seed=some.integers(0, 10_000))
def test_pixels_of_images_whose_size_is_not_told_are_pixels_and_not_small_objects_in_thousandths(seed):
    right = random_objects(seed)
    without_sizes = replace(right, boxes=right.boxes * 483, sizes=torch.full_like(right.sizes, 96))
    assert box_forms.wrong_form(without_sizes, 96) == ("pixels", box_forms.CORNERS)


@settings(max_examples=5)
@given(seed=some.integers(0, 10_000), which=some.sets(some.integers(0, 59), min_size=1, max_size=5))
def test_boxes_that_are_damaged_one_by_one_are_counted_by_what_is_wrong_with_them(seed, which):
    right, rows = random_objects(seed), sorted(which)
    damaged = {
        "in pixels": lambda b, px: b * px + 2,
        "reversed": lambda b, px: b[:, [2, 1, 0, 3]],
        "without area": lambda b, px: b[:, [0, 1, 0, 3]],
        "outside": lambda b, px: b - 1.2,
        "reaching out": lambda b, px: torch.cat([b[:, :2] - 1.05 * b[:, :2] - 0.05, b[:, 2:]], dim=1),
        "not numbers": lambda b, px: b * math.nan,
    }
    for kind, change in damaged.items():
        boxes = right.boxes.clone()
        boxes[rows] = change(boxes[rows], right.sizes.repeat(1, 2)[rows])
        found = replace(right, boxes=boxes)
        assert box_forms.wrong_form(found) is None
        kinds = {name: which.nonzero().flatten().tolist() for name, which in box_forms.kinds_of_damage(found).items()}
        assert kinds == {name: rows if name == kind else [] for name in kinds}


def test_healthy_data_has_no_fault(learned, held_out):
    assert findings(Patient(data=learned, held_out=held_out)) == []


BOXES = {
    "in pixels, 0 to": lambda b, px: b * px,
    "(x, y, width, height)": lambda b, px: torch.cat([b[:, :2], size(b)], dim=1),
    "would be with x and y exchanged": lambda b, px: b[:, [1, 0, 3, 2]],
    "would be mirrored left to right": lambda b, px: mirrored(b),
    "would be 1.67 times as far": lambda b, px: b * 0.6,
    "would be moved by": lambda b, px: (b + torch.tensor([0.1, 0.05, 0.1, 0.05])).clamp(0, 1),
    "lower right (corners for centres)": lambda b, px: (b - torch.cat([size(b) / 2] * 2, dim=1)).clamp(0, 1),
}


@pytest.mark.parametrize("named", BOXES)
def test_boxes_that_are_all_wrong_are_one_fault_that_names_how(learned, named):
    """Slivers at an edge, which clipping leaves, are told beside it."""
    found = findings(Patient(data=with_boxes(learned, BOXES[named])))
    wrong = [(check, seen) for check, seen in found if check != "boxes-are-sound"]
    assert len(wrong) == 1 and named in wrong[0][1]


def test_boxes_of_the_next_picture_and_of_any_other_are_told_from_pixels(learned):
    square = [(image, replace(t, size=(1, 1))) for image, t in learned.samples]  # of whose sizes nothing is to be told
    for step, named in ((1, "those of the image before"), (17, "on nothing")):
        samples = tuple(
            (image, replace(square[(k + step) % 40][1], image_id=str(k))) for k, (image, _) in enumerate(square)
        )
        found = dict(findings(Patient(data=setups.InMemory(samples, learned.classes)), "boxes-are-on-objects"))
        assert named in found["boxes-are-on-objects"]


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


def test_what_is_measured_on_must_not_be_learned_from(learned, held_out):
    name = "held-out-images-are-not-learned-from"
    assert findings(Patient(data=learned, held_out=held_out), name) == []
    part = setups.InMemory(learned.samples[:12], learned.classes)
    assert "12 of 12" in findings(Patient(data=learned, held_out=part), name)[0][1]
    copies = [(i[:, ::-1].copy(), replace(t, image_id="x", boxes=mirrored(t.boxes))) for i, t in learned.samples[:2]]
    copied = setups.InMemory((*held_out.samples, *copies), learned.classes)
    assert "2 of 14 held-out pictures" in findings(Patient(data=learned, held_out=copied), name)[0][1]


def test_held_out_labels_that_count_from_another_number_are_told(learned):
    """By their frequencies: VOC's classes are not equally frequent, and so are few other data's."""
    often = torch.tensor([(k * 7) % 11 + 1 for k in range(20)]).repeat_interleave(1)
    labels = torch.arange(1, 21).repeat_interleave(often * 4)
    target = Target(torch.rand(len(labels), 4), labels, labels < 0, "a", (9, 9))
    healthy = setups.InMemory(((learned.samples[0][0], target),), learned.classes)
    shifted = with_labels(healthy, lambda n: n - 1)
    name = "held-out-labels-mean-the-same"
    assert findings(Patient(data=healthy, held_out=healthy), name) == []
    assert "one label below" in findings(Patient(data=healthy, held_out=shifted), name)[0][1]


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


def test_the_objects_of_no_target_are_none():
    none = objects_of([])
    assert len(none) == 0 and none.boxes.shape == (0, 4) and none.ids == ()
