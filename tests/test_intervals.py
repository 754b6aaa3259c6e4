import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import found, scenes, target

from course_lib import intervals, metrics
from course_lib.intervals import bootstrap, compare
from course_lib.metrics import ClassDetections, evaluate_voc

CLASSES = ("one", "two")
TRUTHS = [target("a", [[0, 0, 50, 50]], [1]), target("b", [[0, 0, 50, 50]], [1]), target("c", [[0, 0, 9, 9]], [2])]
RIGHT = [found([[0, 0, 50, 50]], [0.9], [1]), found([[0, 0, 50, 50]], [0.8], [1]), found([[0, 0, 9, 9]], [0.7], [2])]
BLIND = [found([], [], []) for _ in TRUTHS]


def drawn_images(images, rounds, seed):
    return np.random.default_rng(seed).integers(0, images, (rounds, images)).tolist()


def with_copies(found_by_class, drawn):
    """The detections in an image set with each image as often as it was drawn; copies stand together."""
    copied = {}
    for name, of_class in found_by_class.items():
        rows = [(row, copy) for row, i in enumerate(of_class.image_ids) for copy in range(drawn.count(int(i)))]
        image_ids = [f"{of_class.image_ids[row]} copy {copy}" for row, copy in rows]
        indices = [row for row, _ in rows]
        copied[name] = ClassDetections(image_ids, of_class.scores[indices], of_class.boxes_px[indices])
    return copied


@settings(deadline=None, max_examples=60)
@given(scenes() | scenes(ties=True), st.integers(0, 99), st.sampled_from([(0.5, "area"), (0.3, "11point")]))
def test_counting_an_image_three_times_is_having_three_of_it(scene, seed, how):
    detections, truths = scene
    by_class = metrics.by_class(detections, truths, CLASSES)
    result = bootstrap(by_class, truths, 5, seed, *how, CLASSES).mean_ap
    for drawn, mean_ap in zip(drawn_images(len(truths), 5, seed), result.tolist(), strict=True):
        copies = [
            replace(truths[image], image_id=f"{image} copy {copy}")
            for image in range(len(truths))
            for copy in range(drawn.count(image))
        ]
        expected = evaluate_voc(with_copies(by_class, drawn), copies, *how, CLASSES).mean_ap
        assert mean_ap == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(scenes(), st.integers(0, 99))
def test_detections_per_image_are_drawn_alike(scene, seed):
    detections, truths = scene
    result = bootstrap(detections, truths, 4, seed, classes=CLASSES).mean_ap
    for drawn, mean_ap in zip(drawn_images(len(truths), 4, seed), result.tolist(), strict=True):
        again = [detections[image] for image in drawn], [truths[image] for image in drawn]
        assert mean_ap == pytest.approx(evaluate_voc(*again, classes=CLASSES).mean_ap, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(scenes(), st.integers(1, 40))
def test_a_few_rounds_at_a_time_are_the_same_rounds(scene, at_once):
    whole = bootstrap(*scene, rounds=7, seed=3, classes=CLASSES).mean_ap
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intervals, "AT_ONCE", at_once)
        np.testing.assert_array_equal(bootstrap(*scene, rounds=7, seed=3, classes=CLASSES).mean_ap, whole)


@settings(deadline=None, max_examples=50)
@given(scenes(), st.sampled_from(["area", "11point"]))
def test_a_comparison_is_the_difference_on_the_same_images(scene, method):
    detections, truths = scene
    fewer = [d if i % 2 else found([], [], []) for i, d in enumerate(detections)]
    how = {"method": method, "classes": CLASSES}
    a, b = (bootstrap(some, truths, 8, 5, **how) for some in (detections, fewer))
    result, turned = compare(detections, fewer, truths, 8, 5, **how), compare(fewer, detections, truths, 8, 5, **how)
    np.testing.assert_array_equal(result.differences, b.mean_ap - a.mean_ap)
    np.testing.assert_array_equal(turned.differences, -result.differences)
    assert result.share_better == np.mean(b.mean_ap > a.mean_ap)
    whole = evaluate_voc(fewer, truths, **how).mean_ap - evaluate_voc(detections, truths, **how).mean_ap
    assert result.difference == pytest.approx(whole, abs=1e-12, nan_ok=True)


def test_what_is_certain_has_no_width_and_what_is_better_always_is():
    assert bootstrap(RIGHT, TRUTHS, 50).interval == (1.0, 1.0)
    assert bootstrap(BLIND, TRUTHS, 50).interval == (0.0, 0.0)
    result = compare(BLIND, RIGHT, TRUTHS, 50)
    assert (result.difference, result.interval, result.share_better) == (1.0, (1.0, 1.0), 1.0)
    same = compare(RIGHT, RIGHT, TRUTHS, 50)
    assert (same.difference, same.interval, same.share_better) == (0.0, (0.0, 0.0), 0.0)


def test_an_interval_is_as_wide_as_an_exact_one():
    """One class, one object in each of 40 images, half of them found first: AP is the share that was drawn of those."""
    truths = [target(f"{i}", [[0, 0, 50, 50]], [1]) for i in range(40)]
    detections = [found([[0, 0, 50, 50]], [0.9], [1]) if i < 20 else found([], [], []) for i in range(40)]
    result = bootstrap(detections, truths, 4000, seed=1)
    deviation = math.sqrt(0.5 * 0.5 / 40)  # of a share, binomial
    # 4000 rounds estimate a deviation to 1.1 % (one in sqrt(2 * 4000)) and a mean to 1/63 of it: four times that.
    assert result.mean_ap.std() == pytest.approx(deviation, rel=0.045)
    assert result.mean_ap.mean() == pytest.approx(0.5, abs=4 * deviation / 63)
    # The quantiles of the binomial of 40 and a half, 14 and 26, and one step beside them.
    assert result.interval == pytest.approx((14 / 40, 26 / 40), abs=1.01 / 40)


def test_the_seed_decides_and_more_coverage_is_wider():
    half = [RIGHT[0], BLIND[1], RIGHT[2]]
    one, same, other = (bootstrap(half, TRUTHS, 100, seed).mean_ap for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    narrow, wide = (bootstrap(half, TRUTHS, 100, coverage=coverage).interval for coverage in (0.3, 0.99))
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1] and wide != narrow


def test_a_drawn_set_without_objects_is_left_out_of_the_interval():
    truths, detections = [TRUTHS[0], target("x", [], [])], [RIGHT[0], BLIND[0]]
    result = bootstrap(detections, truths, 200)
    assert 0.1 < np.isnan(result.mean_ap).mean() < 0.4  # a quarter
    assert result.interval == (1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rounds": 0}, "rounds"),
        ({"coverage": 95}, "coverage"),
        ({"coverage": 0}, "coverage"),
        ({"method": "x"}, "method"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, word):
    with pytest.raises(ValueError, match=word):
        bootstrap(RIGHT, TRUTHS, **options)
    with pytest.raises(ValueError, match=word):
        compare(RIGHT, RIGHT, TRUTHS, **options)
    with pytest.raises(ValueError, match="no ground truth"):
        bootstrap({}, [])


@pytest.mark.parametrize("b", [{}, {"aeroplane"}, {"aeroplane", "bicycle", "dog"}])
def test_means_of_different_classes_are_not_compared(b):
    none = ClassDetections([], np.zeros(0), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="only one of the two has detections for"):
        compare(dict.fromkeys(["aeroplane", "bicycle"], none), dict.fromkeys(b, none), TRUTHS)
