import numpy as np
import plain_voc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import found, scenes, target

from course_lib import judging, metrics

CLASSES = ("one", "two", "three")


def judged_as_by_the_twin(detections, truths, threshold, judged):
    objects = plain_voc.objects_of(truths)
    outcome = judged.outcome(~judged.objects.difficult)
    for position in judged.handed_in:
        things = plain_voc.ranked(detections, truths, position + 1)
        expected, taken = plain_voc.walk(things, objects, threshold)
        rows = judged.rows(position)
        assert judged.found.scores[rows].tolist() == [thing.score for thing in things]
        assert judged.found.images[rows].tolist() == [thing.image for thing in things]
        assert outcome[rows].tolist() == expected
        assert len(taken) == sum(expected_one == 1 for expected_one in expected)
        for row, thing in zip(range(rows.start, rows.stop), things, strict=True):
            best, overlap = plain_voc.most_overlapped(thing, objects, plain_voc.same_class)
            assert judged.overlap[row] == overlap
            assert (judged.nearest[row] < 0) == (best is None)
            if best is not None:
                assert judged.objects.boxes_px[judged.nearest[row]].tolist() == objects[best].box


@settings(deadline=None, max_examples=200)
@given(scenes(ties=False, classes=3) | scenes(ties=True, classes=3), st.sampled_from([0.1, 0.5, 0.7, 1.0]))
def test_all_at_once_is_judged_as_one_after_the_other(scene, threshold):
    detections, truths = scene
    judged_as_by_the_twin(detections, truths, threshold, judging.judge(detections, truths, threshold, CLASSES))


@settings(deadline=None, max_examples=100)
@given(scenes(ties=False, classes=3) | scenes(ties=True, classes=3))
def test_by_class_is_judged_as_by_image(scene):
    detections, truths = scene
    by_class = metrics.by_class(detections, truths, CLASSES)
    turned = dict(reversed(by_class.items()))
    for handed_in in (by_class, turned):
        judged_as_by_the_twin(detections, truths, 0.5, judging.judge(handed_in, truths, 0.5, CLASSES))


NOTHING, OBJECT = found([], [], []), target("a", [[0, 0, 50, 50]], [2])


@pytest.mark.parametrize(
    ("detections", "truths"),
    [
        ([NOTHING], [OBJECT]),
        ([NOTHING], [target("a", [], [])]),
        ([found([[0, 0, 50, 50]], [0.5], [2])], [target("a", [], [])]),
        ([found([[0, 0, 50, 50]], [0.5], [1])], [OBJECT]),
        ([found([[0, 0, 50, 50]], [0.5], [2]), NOTHING], [target("a", [], []), OBJECT]),
        ([found([[9, 9, 9, 9]], [0.5], [2])], [target("a", [[9, 9, 9, 9]], [2])]),
        ([found([[60, 60, 90, 90]], [0.5], [2])], [OBJECT]),
    ],
    ids=["no detections", "nothing", "no objects", "other class", "other image", "no area", "apart"],
)
def test_where_there_is_nothing_to_find_nothing_is_found(detections, truths):
    judged = judging.judge(detections, truths, 0.5, CLASSES)
    judged_as_by_the_twin(detections, truths, 0.5, judged)
    assert not judged.reaches.any() and not judged.first.any()


def test_a_class_that_nothing_was_handed_in_for_is_known():
    none = metrics.ClassDetections([], np.zeros(0), np.zeros((0, 4)))
    assert judging.judge({"three": none, "one": none}, [OBJECT], 0.5, CLASSES).handed_in == (0, 2)
    assert judging.judge({}, [], 0.5, CLASSES).handed_in == ()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1e300, -1e300, 5e-324]) | st.floats(-1, 1), max_size=40))
def test_equal_scores_keep_their_order_however_they_are_sorted(scores):
    scores = np.array(scores, np.float64)
    np.testing.assert_array_equal(judging.by_falling_score(scores), np.argsort(-scores, kind="stable"))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 4), max_size=8), st.lists(st.integers(0, 4), max_size=8), st.integers(1, 9))
def test_pairs_are_all_that_are_of_one_image(images, others, at_once):
    others = sorted(others)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judging, "PAIRS_AT_ONCE", at_once)
        blocks = list(judging.pairs_of_images(np.array(images, int), np.array(others, int), 5))
    pairs = [pair for block in blocks for pair in zip(*(part.tolist() for part in block), strict=True)]
    assert pairs == [(row, column) for row, a in enumerate(images) for column, b in enumerate(others) if a == b]
    assert all(len(rows) < at_once + len(others) for rows, _ in blocks)
    starts = [rows[0] for rows, _ in blocks if len(rows)]
    assert len(set(starts)) == len(starts)  # a row's pairs stand together


@settings(deadline=None, max_examples=50)
@given(scenes(classes=3) | scenes(ties=True, classes=3), st.integers(1, 9))
def test_a_few_pairs_at_a_time_are_judged_alike(scene, at_once):
    whole = judging.judge(*scene, 0.5, CLASSES)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judging, "PAIRS_AT_ONCE", at_once)
        judged_as_by_the_twin(*scene, 0.5, judging.judge(*scene, 0.5, CLASSES))
        np.testing.assert_array_equal(judging.judge(*scene, 0.5, CLASSES).nearest, whole.nearest)
