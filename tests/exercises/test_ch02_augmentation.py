"""The solutions of chapter 2 are what others compute: boxes in a picture that is mirrored, cut or turned."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from strategies import corner_boxes

from course_lib.boxes import box_iou
from course_lib.check import EXERCISES


@given(corner_boxes())
def test_the_solution_of_mirror_boxes_is_its_own_inverse(boxes):
    mirror = EXERCISES["mirror_boxes"].solution
    few = {"rtol": 0, "atol": 1e-6}  # two or three float32 operations on fractions
    torch.testing.assert_close(mirror(mirror(boxes)), boxes, **few)
    torch.testing.assert_close(mirror(boxes)[:, 2:] - mirror(boxes)[:, :2], boxes[:, 2:] - boxes[:, :2], **few)


@given(corner_boxes(minimum=1, smallest=0.05), corner_boxes(minimum=1, maximum=1, smallest=0.1), st.floats(0, 1))
def test_the_solution_of_crop_boxes_counts_pixels_right(boxes, window, least):
    """On a grid of 50 * 50 pixels, on which the boxes are put."""
    boxes, window = (boxes * 50).round(), (window[0] * 50).round()
    xmin, ymin, xmax, ymax = window.int().tolist()
    new, kept = EXERCISES["crop_boxes"].solution(boxes / 50, tuple((window / 50).tolist()), least)
    rows = {index: row for row, index in enumerate(kept.tolist())}
    for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        image = np.zeros((50, 50))
        image[y0:y1, x0:x1] = 1
        seen = image[ymin:ymax, xmin:xmax]
        if abs(seen.sum() / image.sum() - least) < 1e-3:
            continue  # rounding decides
        assert (index in rows) == (seen.sum() >= least * image.sum() and seen.any())
        if index in rows:
            y, x = np.nonzero(seen)
            expected = [x.min() / seen.shape[1], y.min() / seen.shape[0]]
            expected += [(x.max() + 1) / seen.shape[1], (y.max() + 1) / seen.shape[0]]
            np.testing.assert_allclose(new[rows[index]], expected, atol=1e-4)


@pytest.mark.parametrize("case", EXERCISES["rotated_box"].cases)
def test_the_solution_of_rotated_box_goes_round_a_turned_picture(case):
    box, degrees, width, height = case
    margin = 60
    image = Image.new("L", (width + 2 * margin, height + 2 * margin))
    x0, y0, x1, y1 = (round(value) + margin for value in box)
    ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=255)
    found = image.rotate(degrees, resample=Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127)).getbbox()
    expected = np.array(EXERCISES["rotated_box"].solution(*case)) + margin
    np.testing.assert_allclose(found, expected, atol=1.5)


@given(corner_boxes(), corner_boxes(minimum=1, maximum=1), st.floats(0.05, 1))
def test_the_solution_of_crop_accepted_asks_any_object(boxes, window, least):
    assume(((box_iou(boxes, window) - least).abs() > 1e-6).all())  # or rounding decides
    accepted = EXERCISES["crop_accepted"].solution(boxes, tuple(window[0].tolist()), least)
    assert accepted == any(iou >= least for iou in box_iou(boxes, window)[:, 0].tolist())
