import plain_voc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import found, scenes, target

from course_lib import metrics
from course_lib.error_types import FALSE, error_types
from course_lib.metrics import evaluate_voc

CLASSES = ("one", "two", "three")


@settings(deadline=None, max_examples=150)
@given(scenes(classes=3))
def test_kinds_and_costs_are_those_of_lists_repaired_one_by_one(scene):
    counts, costs = plain_voc.errors(*scene, labels=(1, 2, 3))
    result = error_types(*scene, classes=CLASSES)
    assert {name: kind.count for name, kind in result.items()} == counts
    for name, kind in result.items():
        assert kind.cost == pytest.approx(costs[name], abs=1e-12, nan_ok=True), name


@settings(deadline=None, max_examples=150)
@given(
    scenes(classes=3) | scenes(ties=True, classes=3),
    st.sampled_from([(0.5, "area"), (0.5, "11point"), (0.2, "area"), (1.0, "area")]),
    st.booleans(),
)
def test_each_false_detection_has_one_kind_and_no_repair_lowers_map(scene, how, by_class):
    detections, truths = scene
    if by_class:
        detections = metrics.by_class(detections, truths, CLASSES)
        del detections["two"]
    result = error_types(detections, truths, *how, CLASSES)
    whole = evaluate_voc(detections, truths, *how, CLASSES)
    assert list(result) == [*FALSE, "missed"]
    assert sum(result[kind].count for kind in FALSE) == sum((c.outcome == 0).sum() for c in whole.curves.values())
    unfound = sum(curve.objects - (curve.outcome == 1).sum() for curve in whole.curves.values())
    assert 0 <= result["missed"].count <= unfound
    for kind in result.values():
        assert not kind.cost < -1e-12
        assert not whole.mean_ap + kind.cost > 1 + 1e-12


DOG, CAT = 1, 2
TRUTH = [target("a", [[0, 0, 40, 40], [60, 60, 100, 100]], [DOG, CAT])]
RIGHT = [[0, 0, 40, 40], [60, 60, 100, 100]]


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        ([0, 0, 40, 40], DOG, "duplicate"),
        ([0, 0, 40, 20], DOG, "duplicate"),
        ([0, 0, 40, 19], DOG, "localisation"),
        ([0, 0, 40, 4], DOG, "localisation"),
        ([0, 0, 40, 3], DOG, "background"),
        ([60, 60, 100, 100], DOG, "class"),
        ([60, 60, 100, 80], DOG, "class"),
        ([60, 60, 100, 79], DOG, "both"),
        ([60, 60, 100, 64], DOG, "both"),
        ([60, 60, 100, 63], DOG, "background"),
        ([101, 101, 120, 120], CAT, "background"),
    ],
)
def test_one_more_detection_is_of_the_kind_that_it_looks_like(box, label, kind):
    detections = [found([*RIGHT, box], [0.9, 0.8, 0.7], [DOG, CAT, label])]
    result = error_types(detections, TRUTH, classes=("dog", "cat"))
    assert {name for name, error in result.items() if error.count} == {kind}
    assert result[kind].count == 1 and all(error.cost == 0 for error in result.values())


def test_costs_by_hand():
    """The dog is called a cat first: cat is 1/2 and dog 0. Once it is called a dog, both are 1."""
    detections = [found(RIGHT, [0.9, 0.8], [CAT, CAT])]
    result = error_types(detections, TRUTH, classes=("dog", "cat"))
    assert result["class"] == (1, pytest.approx(1 - 1 / 4))
    assert result["missed"] == (0, 0)
    # The dog is not found at all: 0 and 1; the missed one would be found.
    result = error_types([found(RIGHT[1:], [0.8], [CAT])], TRUTH, classes=("dog", "cat"))
    assert result["missed"] == (1, pytest.approx(1 / 2))
    # Too small a box comes first, then too large a one: only the surer is repaired, the other is taken away.
    boxes = [[0, 0, 40, 12], [0, 0, 80, 80], RIGHT[1]]
    result = error_types([found(boxes, [0.9, 0.8, 0.7], [DOG, DOG, CAT])], TRUTH, classes=("dog", "cat"))
    assert result["localisation"] == (2, pytest.approx(1 / 2))
    assert result["missed"] == (0, 0)


def test_a_blind_detector_only_misses():
    result = error_types([found([], [], [])], TRUTH, classes=("dog", "cat"))
    assert result.pop("missed") == (2, 1.0)
    assert set(result.values()) == {(0, 0.0)}


def test_an_object_of_a_class_without_detections_explains_one_and_is_not_missed():
    cats = metrics.by_class([found(RIGHT, [0.9, 0.8], [CAT, CAT])], TRUTH, ("dog", "cat"))
    del cats["dog"]
    result = error_types(cats, TRUTH, classes=("dog", "cat"))
    assert result["class"] == (1, pytest.approx(1 / 2)) and result["missed"] == (0, 0)


def test_finding_a_difficult_object_is_no_error():
    truths = [target("a", RIGHT, [DOG, CAT], [True, False])]
    result = error_types([found(RIGHT, [0.9, 0.8], [DOG, CAT])], truths, classes=("dog", "cat"))
    assert not any(kind.count for kind in result.values())
