import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import metrics
from course_lib.detect import Detections
from course_lib.files import DataError
from course_lib.metrics import ClassDetections, average_precision, evaluate_voc
from course_lib.voc import VOC_CLASSES, Annotation, Target


def target(image_id, boxes, labels, difficult=None, size=(128, 128)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / torch.tensor(size * 2)
    difficult = torch.tensor(difficult or [False] * len(labels), dtype=torch.bool)
    return Target(boxes, torch.tensor(labels, dtype=torch.int64), difficult, image_id, size)


def found(boxes, scores, labels, size=(128, 128)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / torch.tensor(size * 2)
    return Detections(boxes, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


def plain_ap(detections, truths, label, method):
    """One class, in exact fractions where it can be: a slow twin that shares no code with the library."""
    rows = []
    for image, d in enumerate(detections):
        for box, score, y in zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True):
            if y == label:
                rows.append((score, image, box))
    rows.sort(key=lambda row: -row[0])
    used, tp, fp, points = set(), 0, 0, []
    total = sum(
        int(y == label and not d) for t in truths for y, d in zip(t.labels.tolist(), t.difficult.tolist(), strict=True)
    )
    for _, image, box in rows:
        best, best_g = 0.0, None
        for g, (gt, y) in enumerate(zip(truths[image].boxes.tolist(), truths[image].labels.tolist(), strict=True)):
            if y != label:
                continue
            w = max(0.0, min(box[2], gt[2]) - max(box[0], gt[0]))
            h = max(0.0, min(box[3], gt[3]) - max(box[1], gt[1]))
            union = (box[2] - box[0]) * (box[3] - box[1]) + (gt[2] - gt[0]) * (gt[3] - gt[1]) - w * h
            if union > 0 and w * h / union > best:
                best, best_g = w * h / union, g
        if best >= 0.5 and truths[image].difficult[best_g]:
            continue
        if best >= 0.5 and (image, best_g) not in used:
            used.add((image, best_g))
            tp += 1
        else:
            fp += 1
        points.append((Fraction(tp, max(total, 1)), Fraction(tp, tp + fp)))
    if not total:
        return None
    if method == "11point":
        levels = [k * 0.1 for k in range(11)]
        return sum(max((float(p) for r, p in points if float(r) >= level), default=0.0) for level in levels) / 11
    area, last = Fraction(0), Fraction(0)
    for index, (recall, _) in enumerate(points):
        area += (recall - last) * max(p for _, p in points[index:])
        last = recall
    return float(area)


@st.composite
def scenes(draw):
    """Boxes on a coarse grid with few scores, so that equal overlaps, duplicates and misses are common."""
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for image in range(draw(st.integers(1, 4))):

        def boxes(count):
            low = rng.integers(0, 8, (count, 2)) * 10
            return np.concatenate([low, low + rng.integers(1, 4, (count, 2)) * 8], axis=1).tolist()

        n, m = rng.integers(0, 5), rng.integers(0, 8)
        truths.append(target(f"{image}", boxes(n), rng.integers(1, 3, n).tolist(), (rng.random(n) < 0.3).tolist()))
        scores = rng.permutation(1000)[:m] / 1000 + image / 10_000_000
        detections.append(found(boxes(m), scores.tolist(), rng.integers(1, 3, m).tolist()))
    return detections, truths


@settings(deadline=None, max_examples=200)
@given(scenes(), st.sampled_from(["area", "11point"]))
def test_ap_equals_the_plain_twin(scene, method):
    detections, truths = scene
    result = evaluate_voc(detections, truths, method=method)
    for label in (1, 2):
        expected = plain_ap(detections, truths, label, method)
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


def test_eleven_points_by_hand():
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 2 / 3])
    # Recalls 0, .1, .2 see precision 1; .3, .4, .5 see 2/3; the rest see nothing.
    assert average_precision(recall, precision, "11point") == pytest.approx((3 + 3 * 2 / 3) / 11)
    assert average_precision(recall, precision, "area") == pytest.approx(0.25 + 0.25 * 2 / 3)
    with pytest.raises(ValueError, match="'area' or '11point'"):
        average_precision(recall, precision, "101point")


def test_detection_files_come_back_as_they_were_written(tmp_path):
    boxes = np.array([[0.0, 10.5, 20.25, 30.0], [5, 6, 7, 8]])
    written = {"dog": ClassDetections(["000001", "000002"], np.array([0.5, 0.25]), boxes)}
    metrics.write_detection_files(tmp_path, written)
    assert (tmp_path / "comp4_det_test_dog.txt").read_text().startswith("000001 0.5 1.0 11.5 20.25 30.0\n")
    with pytest.warns(UserWarning, match="person, .*left out"):
        read = metrics.read_detection_files(tmp_path)
    assert list(read) == ["dog"] and list(read["dog"].image_ids) == ["000001", "000002"]
    np.testing.assert_array_equal(read["dog"].boxes_px, boxes)


@pytest.mark.parametrize(
    "line",
    [
        "000001 0.5 1 2 3",
        "000001 high 1 2 3 4",
        "000001 nan 1 2 3 4",
        "000001 0.5 1 2 inf 4",
        "000001 0.5 1e999 2 3 4",
        "000001 0.5 1e-99999999999999999999 2 3 4",
        "000001,0.5,1,2,3,4",
        "000001",
    ],
)
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_text(f"000001 0.5 1 2 3 4\n{line}\n")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="line 2") as error:
        metrics.read_detection_files(tmp_path)
    assert error.value.path == path


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


@pytest.mark.parametrize("corners", ["9 1 3 4", "1 9 3 4", "30 40 5 6", "3.5 1 2.25 4"])
def test_reversed_corners_in_a_file_are_named(tmp_path, corners):
    (tmp_path / "comp4_det_test_dog.txt").write_text(f"\na1 0.5 {corners}\n")
    with pytest.raises(DataError, match=r"comp4_det_test_dog\.txt: line 2 .*reversed: write .*<xmin>"):
        metrics.read_detection_files(tmp_path, ("dog",))


@pytest.mark.parametrize("corners", ["3 4 3 4", "1 1 1 9", "1 1 0 0", "3.5 1 2.5 4"])
def test_one_pixel_and_no_pixel_are_no_reversed_corners(tmp_path, corners):
    (tmp_path / "comp4_det_test_dog.txt").write_text(f"a1 0.5 {corners}\n")
    xmin, ymin, xmax, ymax = map(float, corners.split())
    box = metrics.read_detection_files(tmp_path, ("dog",))["dog"].boxes_px[0]
    assert box.tolist() == [xmin - 1, ymin - 1, xmax, ymax]


def can_be_written(image_id):
    return image_id and image_id == image_id.strip() and image_id[0] != "\ufeff" and not set(image_id) & set("\0\r\n")


text_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(can_be_written)
spaced_ids = st.sampled_from(["my dog 1", "a  b", "a\tb", "1 2 3 4 5 6", "0.5 1 2", "a\u2028b", "x\x0by", "Bär\u00a07"])
finite = st.floats(allow_nan=False, allow_infinity=False) | st.floats(allow_nan=False, allow_infinity=False, width=32)
rows = st.tuples(text_ids | spaced_ids, finite, finite, finite, finite, finite)


@settings(deadline=None, max_examples=300)
@given(st.lists(rows, max_size=6), st.sampled_from([np.float32, np.float64]))
def test_what_is_written_is_read_back_exactly(tmp_path_factory, table, dtype):
    folder = tmp_path_factory.mktemp("detections")
    with np.errstate(over="ignore"):
        scores = np.nan_to_num(np.array([row[1] for row in table], dtype))
        corners = np.nan_to_num(np.array([row[2:] for row in table], dtype)).reshape(-1, 2, 2)
    written = ClassDetections([row[0] for row in table], scores, np.sort(corners, axis=1).reshape(-1, 4))
    metrics.write_detection_files(folder, {"dog": written})
    read = metrics.read_detection_files(folder, ("dog",), image_ids=written.image_ids)["dog"]
    assert list(read.image_ids) == list(written.image_ids)
    np.testing.assert_array_equal(read.scores, written.scores)
    np.testing.assert_array_equal(read.boxes_px, written.boxes_px)


@pytest.mark.parametrize(
    "image_id", ["", " ", " a", "a ", "a\n", "a\nb", "a\rb", "\ta", "a\u00a0", "\ufeffa", "a\0", "a\ud800"]
)
def test_ids_that_a_line_cannot_hold_are_refused_and_nothing_is_written(tmp_path, image_id):
    good = ClassDetections(["a"], np.array([0.5]), np.array([[0.0, 0, 9, 9]]))
    with pytest.raises(ValueError, match="cannot be read back") as error:
        metrics.write_detection_files(tmp_path / "d", {"cat": good, "dog": good._replace(image_ids=[image_id])})
    assert repr(image_id) in str(error.value) and not (tmp_path / "d").exists()


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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_and_other_ends_of_lines_are_no_part_of_an_id(tmp_path, mark, end):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_bytes(f"{mark}äb 0.5 1 2 3 4{end}".encode())
    assert metrics.read_detection_files(tmp_path, ("dog",), ["äb"])["dog"].image_ids == ["äb"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_bytes("aä 0.5 1 2 3 4\n".encode(encoding))
    with pytest.raises(DataError, match="save the file as UTF-8") as error:
        metrics.read_detection_files(tmp_path, ("dog",))
    assert error.value.path == path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dog", "dog"),
        ("traffic light", "traffic light"),
        ("Hündin 犬", "Hündin 犬"),
        ("car/van", "car%2Fvan"),
        ("../../up", "..%2F..%2Fup"),
        (".", "."),
        ("..", ".."),
        ("dog.", "dog."),
        ("a:b\\c", "a%3Ab%5Cc"),
        ("100%", "100%25"),
        ("car%2Fvan", "car%252Fvan"),
        ('<"what?*|>', "%3C%22what%3F%2A%7C%3E"),
        ("zero\0\n", "zero%00%0A"),
    ],
)
def test_a_class_of_any_name_has_a_detection_file(tmp_path, name, file):
    found = ClassDetections(["a"], np.array([0.5]), np.array([[0.0, 0, 9, 9]]))
    metrics.write_detection_files(tmp_path, {name: found})
    assert [path.name for path in tmp_path.iterdir()] == [f"comp4_det_test_{file}.txt"]
    assert metrics.detection_file(tmp_path, name).is_file()
    assert list(metrics.read_detection_files(tmp_path, (name,))) == [name]


@pytest.mark.parametrize("names", [("dog", "Dog"), ("a/B", "A/b"), ("Ä", "A\u0308", "x"), ("x", "straße", "STRASSE")])
def test_classes_that_would_share_a_file_are_refused(tmp_path, names):
    found = ClassDetections(["a"], np.array([0.5]), np.array([[0.0, 0, 9, 9]]))
    with pytest.raises(ValueError, match="share one detection file"):
        metrics.write_detection_files(tmp_path, dict.fromkeys(names, found))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="share one detection file"):
        metrics.read_detection_files(tmp_path, names)


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


NAN, INF = float("nan"), float("inf")


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
