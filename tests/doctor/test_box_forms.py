import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import size, wrong_boxes
from hypothesis import given, settings
from hypothesis import strategies as some

from course_lib.doctor import box_forms
from course_lib.doctor.samples import Objects


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


@pytest.mark.parametrize("side", [64, 96, 101, 160])
def test_pixels_of_the_side_that_the_network_sees_are_not_percent(side):
    """At 96 pixels boxes were said to be in percent."""
    objects = random_objects(3)
    written = replace(objects, boxes=objects.boxes * side)
    assert box_forms.form_of(written, side) == (f"pixels of an image of {side} x {side}", box_forms.CORNERS)
    assert box_forms.form_of(replace(objects, boxes=objects.boxes * 100), 300) == ("percent", box_forms.CORNERS)


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


BOXES = {
    "in pixels, 0 to": lambda b, px: b * px,
    "(x, y, width, height)": lambda b, px: torch.cat([b[:, :2], size(b)], dim=1),
}


@pytest.mark.parametrize("named", BOXES)
def test_boxes_that_are_all_wrong_are_one_fault_that_names_how(learned, named):
    wrong = wrong_boxes(learned, BOXES[named])
    assert len(wrong) == 1 and named in wrong[0][1]


@pytest.mark.parametrize(
    ("column", "words"), [(0, "by the image's width, and not by its height"), (1, "by the image's height, and not")]
)
def test_boxes_that_were_mirrored_by_the_other_side_are_one_fault_that_says_so(column, words):
    objects = random_objects(0)
    sides, boxes = objects.sizes, objects.boxes.clone()
    other = (sides[:, 1 - column] / sides[:, column])[:, None]
    boxes[:, column::2] = other - boxes[:, column::2].flip(1)
    found = list(box_forms.of_damage(replace(objects, boxes=boxes), "", 1))
    assert len(found) == 1 and words in found[0].seen


def test_boxes_that_a_crop_has_left_outside_are_not_said_to_be_mirrored():
    objects = random_objects(0)
    found = list(box_forms.of_damage(replace(objects, boxes=objects.boxes * 1.5 - 0.25), "", 1))
    assert found and not any("mirrored" in one.seen for one in found)
