"""The solutions of chapter 11 are what the library and others compute."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import corner_boxes

from course_lib.boxes import box_iou
from course_lib.check import EXERCISES
from course_lib.detect import Detections
from course_lib.metrics import ELEVEN_RECALLS, average_precision, evaluate_voc
from course_lib.voc import Target


@st.composite
def curves(draw):
    """Precision and recall as some outcomes give them."""
    right = np.array(draw(st.lists(st.booleans(), max_size=30)), dtype=np.float64)
    objects = right.sum() + draw(st.integers(1, 5))
    true = right.cumsum()
    return true / objects, true / np.arange(1, len(right) + 1)


@given(curves())
def test_the_solution_of_ap_at_levels_is_the_library_s_at_eleven_levels(curve):
    found = EXERCISES["ap_at_levels"].solution(*curve, ELEVEN_RECALLS)
    assert found == pytest.approx(average_precision(*curve, "11point"), abs=1e-12)


@given(curves())
def test_the_solution_of_ap_at_levels_comes_near_the_area_at_many_levels(curve):
    """A step of the curve is met within one level, and there are at most as many steps as detections."""
    levels = np.linspace(0, 1, 10_001)
    found = EXERCISES["ap_at_levels"].solution(*curve, levels)
    assert found == pytest.approx(average_precision(*curve, "area"), abs=(len(curve[0]) + 1) / 10_000)


@given(corner_boxes(minimum=0), corner_boxes(minimum=1), st.data())
def test_the_solution_of_outcomes_is_what_the_library_decides(objects, boxes, data):
    flags = data.draw(st.lists(st.booleans(), min_size=len(objects), max_size=len(objects)))
    ones = torch.ones(len(objects), dtype=torch.int64)
    truth = Target(objects, ones, torch.tensor(flags, dtype=torch.bool), "a", (1, 1))
    scores = torch.linspace(0.9, 0.1, len(boxes))
    overlap = box_iou(boxes, objects)
    near = (overlap - 0.5).abs() < 1e-5  # rounding decides there, in float32 and in float64
    ordered = overlap.sort(dim=1, descending=True).values
    tied = (ordered[:, :-1] - ordered[:, 1:] < 1e-5) & (ordered[:, :-1] > 0)
    if not near.any() and not tied.any():
        found = EXERCISES["outcomes"].solution(overlap, flags, 0.5)
        labels = torch.ones(len(boxes), dtype=torch.int64)
        curve = evaluate_voc([Detections(boxes, scores, labels)], [truth], classes=("dog",)).curves["dog"]
        assert found == curve.outcome.tolist()


def test_the_solution_of_paired_interval_holds_the_true_gain_nineteen_times_in_twenty():
    """Over 400 samples the share lies within four standard deviations, 0.011 each; of 40 pictures a little below."""
    rng, gain, held = np.random.default_rng(0), 0.1, 0
    for _ in range(400):
        a = rng.random(40)
        b = a + gain + 0.2 * rng.standard_normal(40)
        low, high = EXERCISES["paired_interval"].solution(a, b, rng.integers(0, 40, (300, 40)))
        held += low <= gain <= high
    assert held / 400 == pytest.approx(0.94, abs=0.044)
