"""The solutions of chapter 11 are what the library and others compute."""

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from course_lib.average_precision import ELEVEN_RECALLS, average_precision, curve_of
from course_lib.check import EXERCISES


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
    levels = np.linspace(0, 1, 1001)
    found = EXERCISES["ap_at_levels"].solution(*curve, levels)
    assert found == pytest.approx(average_precision(*curve, "area"), abs=(len(curve[0]) + 1) / 1000)


@st.composite
def pictures(draw):
    """Objects and detections of one class in a picture, in pixels, with objects that crowd each other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))

    def boxes(count):
        low = rng.integers(0, 40, (count, 2))
        return np.concatenate([low, low + rng.integers(20, 60, (count, 2))], axis=1).astype(float)

    objects = boxes(rng.integers(1, 5))
    return objects, rng.random(len(objects)) < 0.3, boxes(rng.integers(1, 9))


def coco_ap_50(objects, difficult, found):
    """AP at IoU 0.5 by faster-coco-eval, where a difficult object is a crowd."""
    sides = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in (*objects.tolist(), *found.tolist())]
    common = {"image_id": 1, "category_id": 1}
    of_objects = [
        {**common, "id": number, "bbox": box, "area": box[2] * box[3], "iscrowd": int(hard)}
        for number, (box, hard) in enumerate(zip(sides[: len(objects)], difficult, strict=True), start=1)
    ]
    scored = [
        {**common, "bbox": box, "score": 1 - rank / 100} for rank, box in enumerate(sides[len(objects) :], start=1)
    ]
    images, categories = [{"id": 1, "width": 100, "height": 100}], [{"id": 1, "name": "dog"}]
    truth = COCO({"images": images, "categories": categories, "annotations": of_objects})
    evaluation = COCOeval_faster(truth, truth.loadRes(scored), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][0, :, 0, 0, -1].mean()


@settings(deadline=None)
@given(pictures())
def test_the_solutions_of_coco_outcomes_and_ap_at_levels_give_coco_s_ap(picture):
    """COCO asks which share of the detection, not of the union, a crowd covers."""
    objects, difficult, found = picture
    low = np.maximum(found[:, None, :2], objects[None, :, :2])
    inside = (np.minimum(found[:, None, 2:], objects[None, :, 2:]) - low).clip(min=0).prod(axis=2)
    of_found, of_objects = ((one[:, 2:] - one[:, :2]).prod(axis=1) for one in (found, objects))
    union = of_found[:, None] + of_objects[None] - inside
    overlap = inside / np.where(difficult[None], of_found[:, None], union)
    assume(np.abs(overlap - 0.5).min() > 1e-6 and all(len(set(row)) == len(row) for row in overlap))
    assume(not difficult.all())
    outcome = EXERCISES["coco_outcomes"].solution(torch.tensor(overlap), difficult.tolist(), 0.5)
    curve = curve_of(np.zeros(len(found)), np.array(outcome), int((~difficult).sum()))
    ours = EXERCISES["ap_at_levels"].solution(curve.recall, curve.precision, np.linspace(0, 1, 101))
    assert ours == pytest.approx(coco_ap_50(objects, difficult, found), abs=1e-9)


def test_the_solution_of_paired_interval_holds_the_true_gain_nineteen_times_in_twenty():
    """Over 400 samples the share lies within four standard deviations, 0.011 each; of 40 pictures a little below."""
    rng, gain, held = np.random.default_rng(0), 0.1, 0
    for _ in range(400):
        a = rng.random(40)
        b = a + gain + 0.2 * rng.standard_normal(40)
        low, high = EXERCISES["paired_interval"].solution(a, b, rng.integers(0, 40, (300, 40)))
        held += low <= gain <= high
    assert held / 400 == pytest.approx(0.94, abs=0.044)
