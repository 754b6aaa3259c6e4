import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_voc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import found, scenes, target

from course_lib import metrics
from course_lib.detect import Detections
from course_lib.files import DataError
from course_lib.metrics import ClassDetections, evaluate_voc
from course_lib.voc import VOC_CLASSES, Annotation


@settings(deadline=None, max_examples=200)
@given(scenes() | scenes(ties=True), st.sampled_from(["area", "11point"]))
def test_ap_equals_the_plain_twin(scene, method):
    detections, truths = scene
    result = evaluate_voc(detections, truths, method=method)
    for label in (1, 2):
        objects = plain_voc.objects_of(truths)
        outcome, _ = plain_voc.walk(plain_voc.ranked(detections, truths, label), objects, 0.5)
        count = sum(thing.label == label and not thing.difficult for thing in objects)
        expected = plain_voc.average_precision([one == 1 for one in outcome if one >= 0], count, method)
        ap = result.ap[VOC_CLASSES[label - 1]]
        assert (ap is None) == (expected is None)
        if ap is not None:
            assert ap == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(scenes())
def test_only_the_order_of_the_scores_counts(scene):
    detections, truths = scene
    squeezed = [d._replace(scores=d.scores.double().pow(3).mul(0.1).float()) for d in detections]
    if all(len(d.scores.unique()) == len(s.scores.unique()) for d, s in zip(detections, squeezed, strict=True)):
        merged = torch.cat([d.scores for d in squeezed])
        if len(merged.unique()) == len(merged):
            a, b = evaluate_voc(detections, truths).ap, evaluate_voc(squeezed, truths).ap
            assert a == pytest.approx(b)


NAN, INF = float("nan"), float("inf")
THREE = ("one", "two", "three")
thresholds_and_methods = st.sampled_from([(0.5, "area"), (0.3, "11point"), (1.0, "area")])


@settings(deadline=None, max_examples=100)
@given(scenes(classes=3), st.randoms(use_true_random=False), thresholds_and_methods)
def test_another_order_of_detections_images_or_classes_changes_nothing(scene, random, how):
    """No two scores are equal here."""
    detections, truths = scene
    ap = evaluate_voc(detections, truths, *how, classes=THREE).ap

    images = random.sample(range(len(truths)), len(truths))
    shuffled = [[detections[image] for image in images], [truths[image] for image in images]]
    assert evaluate_voc(*shuffled, *how, classes=THREE).ap == ap

    rows = [torch.tensor(random.sample(range(len(d.labels)), len(d.labels)), dtype=torch.int64) for d in detections]
    mixed = [Detections(*(part[row] for part in d)) for d, row in zip(detections, rows, strict=True)]
    assert evaluate_voc(mixed, truths, *how, classes=THREE).ap == ap

    turned = torch.tensor([0, 3, 1, 2])  # what was label 1 is now label 3
    found_turned = [d._replace(labels=turned[d.labels]) for d in detections]
    truths_turned = [replace(t, labels=turned[t.labels]) for t in truths]
    assert evaluate_voc(found_turned, truths_turned, *how, classes=("two", "three", "one")).ap == ap


@settings(deadline=None, max_examples=100)
@given(scenes() | scenes(ties=True), st.integers(0, 7), st.sampled_from([0.0, 0.1]), thresholds_and_methods)
def test_a_duplicate_never_raises_ap(scene, which, less_sure, how):
    detections, truths = scene
    again = [Detections(*(part[which : which + 1] for part in d)) for d in detections]
    again = [d._replace(scores=d.scores - less_sure) for d in again]
    more = [Detections(*map(torch.cat, zip(d, a, strict=True))) for d, a in zip(detections, again, strict=True)]
    before, after = (evaluate_voc(some, truths, *how, classes=THREE).ap for some in (detections, more))
    for name in THREE:
        assert before[name] is None or after[name] <= before[name] + 1e-12


RIGHT, WRONG = [0, 0, 50, 50], [60, 60, 90, 90]


@pytest.mark.parametrize("score", [0.0, 0.164, 1.0, -3.5])
def test_equal_scores_keep_their_order(score):
    """Two detectors that are alike but for the order of equal scores: mAP was .164 and .216."""
    for boxes, ap in (([RIGHT, WRONG], 1.0), ([WRONG, RIGHT], 0.5)):
        in_one_image = [found(boxes, [score, score], [1, 1])]
        assert evaluate_voc(in_one_image, [target("a", [RIGHT], [1])]).ap["aeroplane"] == ap
        in_two_images = [found([box], [score], [1]) for box in boxes]
        objects = [[box] if box == RIGHT else [] for box in boxes]
        truths = [target(name, some, [1] * len(some)) for name, some in zip("ab", objects, strict=True)]
        assert evaluate_voc(in_two_images, truths).ap["aeroplane"] == ap
        file = {"aeroplane": ClassDetections(["a", "b"], np.full(2, score), np.array(boxes, float))}
        for order in (truths, truths[::-1]):  # the file's order, whatever the images'
            assert evaluate_voc(file, order).ap["aeroplane"] == ap


NONE = ClassDetections([], np.zeros(0), np.zeros((0, 4)))


@pytest.mark.parametrize(
    ("detections", "truths"),
    [
        ([found([], [], [])], [target("a", [], [])]),
        ([found([RIGHT], [0.5], [1])], [target("a", [], [])]),
        ([found([RIGHT], [0.5], [1])], [target("a", [RIGHT], [1], [True])]),
        ({}, [target("a", [RIGHT], [1])]),
        ({"dog": NONE}, [target("a", [RIGHT], [1])]),
    ],
    ids=["nothing", "no objects", "all difficult", "no class", "another class"],
)
def test_the_mean_of_nothing_is_nan_everywhere_and_breaks_nothing(detections, truths):
    result = evaluate_voc(detections, truths)
    assert math.isnan(result.mean_ap) and set(result.ap.values()) == {None}
    assert all(math.isnan(of_size.mean_ap) for of_size in metrics.by_size(detections, truths).values())
    assert all(math.isnan(kind.cost) for kind in metrics.error_types(detections, truths).values())
    drawn = metrics.bootstrap(detections, truths, rounds=3)
    assert np.isnan(drawn.mean_ap).all() and np.isnan(drawn.interval).all()
    compared = metrics.compare(detections, detections, truths, rounds=3)
    assert np.isnan([compared.difference, *compared.interval]).all() and compared.share_better == 0


def test_a_box_on_an_edge_of_sizes_is_of_the_larger():
    sides = {"small": [5, 31], "medium": [32, 64, 95], "large": [96, 120]}
    for of_size, lengths in sides.items():
        for side in lengths:
            truths, nothing = [target("a", [[0, 0, side, side]], [1])], [found([], [], [])]
            results = metrics.by_size(nothing, truths)
            assert {name: result.ap["aeroplane"] for name, result in results.items() if name == of_size} == {of_size: 0}
            assert all(result.ap["aeroplane"] is None for name, result in results.items() if name != of_size)


def test_what_is_of_another_size_counts_neither_way():
    small, large = [0, 0, 20, 20], [0, 0, 100, 100]
    truths = [target("a", [small, [20, 20, 120, 120]], [1, 1])]
    boxes = [[20, 20, 120, 120], large, [60, 60, 70, 70], small]  # right, false, false, right
    results = metrics.by_size([found(boxes, [0.9, 0.8, 0.7, 0.6], [1] * 4)], truths)
    assert results["small"].curves["aeroplane"].outcome.tolist() == [-1, -1, 0, 1]
    assert results["medium"].curves["aeroplane"].outcome.tolist() == [-1, -1, -1, -1]
    assert results["large"].curves["aeroplane"].outcome.tolist() == [1, 0, -1, -1]


@settings(deadline=None, max_examples=50)
@given(scenes() | scenes(ties=True))
def test_sizes_share_the_objects_and_one_size_for_all_is_the_whole(scene):
    detections, truths = scene
    classes = ("one", "two")
    whole = evaluate_voc(detections, truths, classes=classes)
    parts = metrics.by_size(detections, truths, edges_px=(10, 20), classes=classes)
    for name, curve in whole.curves.items():
        assert sum(result.curves[name].objects for result in parts.values()) == curve.objects
        for value in (0, 1):
            assert (
                sum((r.curves[name].outcome == value).sum() for r in parts.values()) == (curve.outcome == value).sum()
            )
    assert metrics.by_size(detections, truths, edges_px=(1000, 2000), classes=classes)["small"].ap == whole.ap


@pytest.mark.parametrize("edges", [(96, 32), (32, 32), (0, 32), (-1, 5), (NAN, 5)])
def test_edges_that_do_not_rise_are_refused(edges):
    with pytest.raises(ValueError, match="edges_px"):
        metrics.by_size([found([], [], [])], [target("a", [], [])], edges_px=edges)


def test_a_perfect_detector_has_ap_one_and_a_blind_one_zero():
    truths = [target("a", [[0, 0, 50, 50], [20, 20, 90, 90]], [3, 7]), target("b", [[5, 5, 9, 9]], [3])]
    perfect = [found([[0, 0, 50, 50], [20, 20, 90, 90]], [0.9, 0.8], [3, 7]), found([[5, 5, 9, 9]], [0.7], [3])]
    blind = [found([], [], []), found([], [], [])]
    assert evaluate_voc(perfect, truths).mean_ap == pytest.approx(1)
    assert evaluate_voc(blind, truths).mean_ap == 0
    assert evaluate_voc(perfect, truths).ap["dog"] is None


def test_a_second_detection_of_the_same_object_is_false():
    truths = [target("a", [[0, 0, 50, 50]], [1]), target("b", [[0, 0, 50, 50]], [1])]
    twice = [found([[0, 0, 50, 50], [0, 0, 50, 49]], [0.9, 0.8], [1, 1]), found([[0, 0, 50, 50]], [0.7], [1])]
    curve = evaluate_voc(twice, truths).curves["aeroplane"]
    assert curve.outcome.tolist() == [1, 0, 1]
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])


def test_difficult_objects_count_neither_way():
    truths = [target("a", [[0, 0, 50, 50], [60, 60, 90, 90]], [1, 1], [True, False])]
    with_it = [found([[0, 0, 50, 50], [60, 60, 90, 90]], [0.9, 0.8], [1, 1])]
    without = [found([[60, 60, 90, 90]], [0.8], [1])]
    assert evaluate_voc(with_it, truths).ap["aeroplane"] == evaluate_voc(without, truths).ap["aeroplane"] == 1


def test_an_overlap_of_exactly_one_half_counts():
    truths = [target("a", [[0, 0, 40, 40]], [1])]
    assert evaluate_voc([found([[0, 0, 40, 20]], [0.9], [1])], truths).ap["aeroplane"] == 1


def test_a_folder_without_detections_and_a_wrong_number_of_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="comp4_det_test"):
        metrics.read_detection_files(tmp_path)
    with pytest.raises(ValueError, match="1 images have detections and 2 have ground truth"):
        evaluate_voc([found([], [], [])], [target("a", [], []), target("b", [], [])])


def annotation(path, boxes, labels, size=(128, 128)):
    flags = torch.zeros(len(labels), dtype=torch.bool)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Annotation(Path(path), size, boxes, torch.tensor(labels, dtype=torch.int64), flags, flags)


TWICE = {
    "the same line twice": [annotation("a/1.xml", [[0, 0, 50, 50]], [1]), annotation("a/1.xml", [[0, 0, 50, 50]], [1])],
    "two trees": [
        annotation("VOC2007/000001.xml", [[0, 0, 50, 50]], [1]),
        annotation("VOC2012/000001.xml", [[60, 60, 90, 90], [0, 0, 9, 9]], [1, 2]),
        annotation("VOC2012/000002.xml", [], []),
    ],
    "targets": [target("x", [[0, 0, 50, 50]], [3]), target("y", [[0, 0, 8, 8]], [3]), target("x", [[5, 5, 9, 9]], [3])],
    "no ids": [target("", [[0, 0, 50, 50]], [1]), target("", [[60, 60, 90, 90]], [1])],
}


@pytest.mark.parametrize("truths", TWICE.values(), ids=TWICE)
def test_images_with_the_same_id_are_images_of_their_own(truths):
    perfect = [Detections(t.boxes, torch.ones(len(t.labels)), t.labels) for t in truths]
    result = evaluate_voc(perfect, truths)
    assert {ap for ap in result.ap.values() if ap is not None} == {1.0} and result.mean_ap == 1.0
    nothing = found([], [], [])
    in_one = [perfect[0], *[nothing for _ in perfect[1:]]]  # what was found in one image counts in no other
    assert evaluate_voc(in_one, truths).mean_ap < 1


@pytest.mark.parametrize("truths", TWICE.values(), ids=TWICE)
def test_detections_by_class_are_refused_where_an_id_means_two_images(truths):
    by_class = {"aeroplane": ClassDetections([truths[0].image_id], np.array([0.5]), np.array([[0.0, 0, 50, 50]]))}
    perfect = [Detections(t.boxes, torch.ones(len(t.labels)), t.labels) for t in truths]
    for refused in (lambda: evaluate_voc(by_class, truths), lambda: metrics.by_class(perfect, truths)):
        with pytest.raises(ValueError, match=f"more than once: {truths[0].image_id!r}") as error:
            refused()
        assert all(str(t.path) in str(error.value) for t in truths[:2] if isinstance(t, Annotation))


IDS = ("a1", "000007", "my dog 2", "v1.2")


@pytest.mark.parametrize(
    ("image_id", "cure"),
    [
        ("a1.jpg", "write a1"),
        ("x/a1", "write a1"),
        ("JPEGImages/a1.jpg", "write a1"),
        ("x\\a1.png", "write a1"),
        ("A1", "write a1"),
        ("7", "write 000007"),
        ("v1.2.jpeg", "write v1.2"),
        ("a1 0.25", "write a1"),
        ("a2", "not in the image set"),
        ("0", "not in the image set"),
    ],
)
def test_detections_in_an_image_that_is_not_in_the_set_are_refused(tmp_path, image_id, cure):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_text(f"a1 0.75 1 1 9 9\n{image_id} 0.5 1 2 3 4\n")
    with pytest.raises(DataError, match="line 2") as error:
        metrics.read_detection_files(tmp_path, ("dog",), image_ids=IDS)
    assert error.value.path == path and error.value.value == image_id and cure in error.value.cure
    truths = [target(known, [[0, 0, 9, 9]], [1]) for known in IDS]
    read = metrics.read_detection_files(tmp_path, ("dog",))
    with pytest.raises(ValueError, match="'dog' has 1 detections") as refused:
        evaluate_voc(read, truths, classes=("dog",))
    assert repr(image_id) in str(refused.value) and cure in str(refused.value)


def test_detections_of_a_class_that_is_not_measured_are_refused():
    none = ClassDetections([], np.zeros(0), np.zeros((0, 4)))
    for name in ("Dog", "dog ", "unicorn", ""):
        with pytest.raises(ValueError, match=f"class {name!r}"):
            evaluate_voc({"dog": none, name: none}, [target("a", [], [])])


@pytest.mark.parametrize("classes", ["person", "dog", ("dog", "cat", "dog")])
def test_classes_that_are_no_list_of_different_names_are_refused(tmp_path, small_devkit, classes):
    for refused in (
        lambda: evaluate_voc([found([], [], [])], [target("a", [], [])], classes=classes),
        lambda: evaluate_voc({}, [target("a", [], [])], classes=classes),
        lambda: metrics.by_class([found([], [], [])], [target("a", [], [])], classes),
        lambda: metrics.read_detection_files(tmp_path, classes),
        lambda: metrics.read_ground_truth(small_devkit, "2007", "test", classes),
    ):
        with pytest.raises(ValueError, match="classes"):
            refused()


def test_ground_truth_of_classes_of_ones_own_has_their_labels(small_devkit):
    usual = metrics.read_ground_truth(small_devkit, "2007", "test")
    turned = metrics.read_ground_truth(small_devkit, "2007", "test", VOC_CLASSES[::-1])
    assert [t.image_id for t in turned] == [t.image_id for t in usual]
    for a, b in zip(usual, turned, strict=True):
        assert (a.labels + b.labels == 21).all() and a.boxes_px.equal(b.boxes_px)
    perfect = [Detections(t.boxes, torch.ones(len(t.labels)), t.labels) for t in turned]
    assert evaluate_voc(perfect, turned, classes=VOC_CLASSES[::-1]).mean_ap == 1.0


@pytest.mark.parametrize("label", [25, 21, 0, -1])
def test_labels_that_are_none_of_the_classes_are_refused(label):
    boxes = [[0, 0, 50, 50], [60, 60, 90, 90]]
    good, bad = target("a", boxes, [1, 20]), target("b", boxes, [1, label])
    sure, unsure = found(boxes, [0.9, 0.8], [1, 20]), found(boxes, [0.9, 0.8], [1, label])
    with pytest.raises(ValueError, match=f"'b': a detection has label {label}, .*1 to 20"):
        evaluate_voc([sure, unsure], [good, replace(good, image_id="b")])
    for detections in ([sure, sure], {}):
        with pytest.raises(ValueError, match=f"'b': an object has label {label}, .*1 to 20"):
            evaluate_voc(detections, [good, bad])
    with pytest.raises(ValueError, match="label 20, and the labels of 2 classes are 1 to 2"):
        evaluate_voc([sure], [good], classes=("aeroplane", "bicycle"))


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        ([0, 0, 50, 50], NAN, "score nan"),
        ([0, 0, 50, 50], INF, "score inf"),
        ([NAN, 0, 50, 50], 0.5, r"box \(nan"),
        ([0, 0, 50, INF], 0.5, r"inf\) in pixels"),
        ([50, 0, 0, 50], 0.5, "xmin, ymin, xmax, ymax"),
        ([0, 50, 50, 49], 0.5, "xmin, ymin, xmax, ymax"),
    ],
)
def test_detections_that_cannot_be_ranked_or_placed_are_refused(tmp_path, box, score, reason):
    truths = [target("a", [[0, 0, 50, 50]], [1]), target("b", [[0, 0, 50, 50]], [1])]
    good = found([[0, 0, 50, 50]], [0.9], [1])
    by_class = {"aeroplane": ClassDetections(["a", "b"], np.array([0.9, score]), np.array([[0.0, 0, 50, 50], box]))}
    with pytest.raises(ValueError, match=f"'b': a detection .*{reason}"):
        evaluate_voc([good, found([box], [score], [1])], truths)
    with pytest.raises(ValueError, match=f"'b': a detection .*{reason}"):
        evaluate_voc(by_class, truths)
    with pytest.raises(ValueError, match=f"'b': a detection .*{reason}"):
        metrics.write_detection_files(tmp_path / "d", by_class)
    assert not (tmp_path / "d").exists()
    if score == 0.5:
        with pytest.raises(ValueError, match=f"'b': an object .*{reason}"):
            evaluate_voc([good, good], [truths[0], target("b", [box], [1])])


def test_detections_whose_parts_differ_in_number_are_refused(tmp_path):
    """One score too few in an image and one too many in the next would shift all that follow."""
    truths = [target("a", [[0, 0, 50, 50]], [1]), target("b", [[0, 0, 50, 50]], [1])]
    few = found([[0, 0, 50, 50], [0, 0, 9, 9]], [0.9], [1, 1])
    many = found([[0, 0, 50, 50]], [0.9, 0.8], [1])
    with pytest.raises(ValueError, match="'a' has 2 boxes, 1 scores and 2 labels"):
        evaluate_voc([few, many], truths)
    for image_ids, scores, count in ((["a", "b"], [0.5], 1), (["a"], [0.5, 0.4], 1), (["a"], [0.5], 2)):
        uneven = {"dog": ClassDetections(image_ids, np.array(scores), np.zeros((count, 4)))}
        with pytest.raises(ValueError, match="one of each"):
            evaluate_voc(uneven, truths)
        with pytest.raises(ValueError, match="one of each"):
            metrics.write_detection_files(tmp_path, uneven)


@pytest.mark.parametrize("threshold", [0, -0.5, 50, 1.01, NAN])
def test_an_overlap_that_cannot_be_is_refused(threshold):
    with pytest.raises(ValueError, match="iou_threshold"):
        evaluate_voc([found([], [], [])], [target("a", [], [])], iou_threshold=threshold)


@settings(deadline=None, max_examples=30)
@given(scenes())
def test_detections_by_class_and_per_image_are_measured_alike(scene):
    detections, truths = scene
    assert evaluate_voc(metrics.by_class(detections, truths), truths).ap == evaluate_voc(detections, truths).ap


@pytest.mark.slow
def test_a_real_detectors_published_aps_are_reproduced(voc_real, voc_annotations):
    """Published by the detections' author with the devkit's method; person's file is absent."""
    published = json.loads((voc_real / "detections" / "expected_ap_11point.json").read_text())
    truth = metrics.read_ground_truth(voc_annotations, "2007", "test")
    with pytest.warns(UserWarning, match="person"):
        detections = metrics.read_detection_files(voc_real / "detections", image_ids=[t.image_id for t in truth])
    result = evaluate_voc(detections, truth, method="11point")
    assert result.ap.pop("person") is None and len(result.ap) == 19
    for name, ap in result.ap.items():
        assert ap == pytest.approx(published[name], abs=1e-6), name


@pytest.mark.parametrize(
    "scores", [(0.9999992, 0.9999994), (1e-9, 2e-9), (0.1, 0.1 + 2**-52), (1 - 2**-24, 1.0), (-3.0000001, -3.0)]
)
def test_scores_that_are_close_do_not_tie_in_a_file(tmp_path, scores):
    """The false detection comes first in the file, and is a hair less sure."""
    truths = [target("a", [[0, 0, 50, 50]], [1])]
    boxes = np.array([[60.0, 60, 90, 90], [0, 0, 50, 50]])
    metrics.write_detection_files(tmp_path, {"dog": ClassDetections(["a", "a"], np.array(scores), boxes)})
    read = metrics.read_detection_files(tmp_path, ("dog",))
    assert evaluate_voc(read, truths, classes=("dog",)).ap["dog"] == 1.0
