"""Average precision as the Pascal VOC development kit computes it, to the last digit."""

import math
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from course_lib.detect import Detections
from course_lib.files import DataError, write_whole
from course_lib.voc import VOC_CLASSES, Annotation, Target, class_names, read_annotations

# Multiples of 0.1 as a computer makes them: 3 * 0.1, 6 * 0.1 and 7 * 0.1 are a hair above 0.3, 0.6
# and 0.7. A recall of exactly 7/10 therefore misses its level, and published 11-point numbers were
# computed so: the exact levels would change a real AP (pottedplant in tests/test_metrics.py) by 0.0002.
ELEVEN_RECALLS = np.arange(11) * 0.1

LINE = "<image id> <score> <xmin> <ymin> <xmax> <ymax>"  # of a detection file

# Detection files count pixels from 1. One is added and taken away in decimal digits, where both are exact.
DECIMAL = Context(prec=400)


class ClassDetections(NamedTuple):
    """All detections of one class in an image set, in any order.

    Attributes:
        image_ids: the image of each detection; an id stands for one image of the set.
        scores: higher is surer.
        boxes_px: corners, pixels, 0-based, half open.
    """

    image_ids: Sequence[str]
    scores: Float[np.ndarray, " N"]
    boxes_px: Float[np.ndarray, "N 4"]


class Curve(NamedTuple):
    """Precision and recall after each detection of a class, by falling score.

    Attributes:
        scores: the score of the detection that was just added.
        outcome: 1 true positive, 0 false positive, -1 not counted (it found a difficult object).
        objects: how many objects there are to find.
    """

    recall: Float[np.ndarray, " N"]
    precision: Float[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    outcome: Int[np.ndarray, " N"]
    objects: int


@dataclass(frozen=True)
class VOCResult:
    """Average precision per class, and the curves it was computed from.

    Attributes:
        ap: by class; None where there is nothing to measure: no detections were handed in for the
            class, or it has no object that counts.
        mean_ap: mean over the classes that are not None; NaN if there is none.
        curves: by class, where detections were handed in.
    """

    ap: dict[str, float | None]
    mean_ap: float
    curves: dict[str, Curve]


def average_precision(
    recall: Float[np.ndarray, " N"], precision: Float[np.ndarray, " N"], method: str = "area"
) -> float:
    """Area under the precision-recall curve, after precision is made to fall.

    Args:
        recall, precision: after each detection, by falling score.
        method: "11point", the mean of the best precision at recall >= 0, 0.1, ... 1 (VOC until
            2009); or "area", the whole area (since 2010).

    Source: VOCap.m and VOCevaldet.m of the development kit; Everingham et al. 2010, section 4.2.
    """
    if method == "11point":
        best = [precision[recall >= level].max(initial=0.0) for level in ELEVEN_RECALLS]
        return float(np.sum(np.array(best) / 11))
    if method != "area":
        raise ValueError(f"method is {method!r}: use 'area' or '11point'")
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(np.diff(recall))
    return float(np.sum((recall[steps + 1] - recall[steps]) * envelope[steps + 1]))


def iou_px(box: Float[np.ndarray, " 4"], others: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """IoU of one box with others; half open, so `xmax - xmin` is the devkit's inclusive width."""
    side = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = side.clip(min=0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


class _Objects(NamedTuple):
    """Objects of one class in one image."""

    boxes_px: Float[np.ndarray, "N 4"]
    difficult: Bool[np.ndarray, " N"]


class _Found(NamedTuple):
    """Detections of one class, each with the position of its image in the ground truth."""

    images: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    boxes_px: Float[np.ndarray, "N 4"]


def judge(detections: _Found, objects: Mapping[int, _Objects], iou_threshold: float) -> Curve:
    """Go through a class's detections by falling score and decide what each one found.

    A detection belongs to the object it overlaps most. The first to reach the threshold finds it,
    any later one is a duplicate and false; one that finds a difficult object does not count.
    """
    order = np.argsort(-detections.scores, kind="stable")
    found = {image: np.zeros(len(item.difficult), bool) for image, item in objects.items()}
    outcome = np.zeros(len(order), np.int64)
    for rank, (index, image) in enumerate(zip(order, detections.images[order].tolist(), strict=True)):
        item = objects.get(image)
        if item is None:
            continue
        overlaps = iou_px(detections.boxes_px[index], item.boxes_px)
        best = int(overlaps.argmax())
        if overlaps[best] < iou_threshold:
            continue
        if item.difficult[best]:
            outcome[rank] = -1
        elif not found[image][best]:
            found[image][best] = True
            outcome[rank] = 1
    positives = int(sum((~item.difficult).sum() for item in objects.values()))
    true, false = np.cumsum(outcome == 1), np.cumsum(outcome == 0)
    recall = true / max(positives, 1)
    precision = true / np.maximum(true + false, 1)
    return Curve(recall, precision, detections.scores[order], outcome, positives)


def evaluate_voc(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
) -> VOCResult:
    """Average precision of every class, and their mean.

    Args:
        detections: one `Detections` for each image, in the ground truth's order, so that images of
            several trees may have the same id; or by class, as `read_detection_files` gives them.
        ground_truth: what is in each image; `read_ground_truth` reads it from a tree.
        iou_threshold: overlap from which a detection finds an object.
        method: see `average_precision`.
        classes: what the labels 1, 2, ... mean.

    Raises:
        ValueError: a label that is none of the classes, a score or a corner that is no number,
            reversed corners, another number of images; by class: an id that is not in the ground
            truth or there more than once, a class that is none of the classes.

    Source: VOCevaldet.m of the development kit.
    """
    classes = class_names(classes)
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}: use an overlap above 0 and up to 1")
    objects = _objects_by_class(ground_truth, classes)
    if isinstance(detections, Mapping):
        found_by_class = _found_by_id(detections, ground_truth, classes)
    else:
        found_by_class = _found_by_position(detections, ground_truth, classes)
    ap: dict[str, float | None] = dict.fromkeys(classes)
    curves: dict[str, Curve] = {}
    for name in classes:
        if name not in found_by_class:
            continue
        curves[name] = judge(found_by_class[name], objects[name], iou_threshold)
        if curves[name].objects:
            ap[name] = average_precision(curves[name].recall, curves[name].precision, method)
    measured = [value for value in ap.values() if value is not None]
    return VOCResult(ap, float(np.mean(measured)) if measured else float("nan"), curves)


def by_class(
    detections: Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    classes: Sequence[str] = VOC_CLASSES,
) -> dict[str, ClassDetections]:
    """Detections per image, in the order of the ground truth, as detections per class in pixels.

    Raises:
        ValueError: as `evaluate_voc`; here too an id must stand for one image.
    """
    classes = class_names(classes)
    image_ids = list(_positions(ground_truth))
    return {
        name: ClassDetections([image_ids[image] for image in found.images], found.scores, found.boxes_px)
        for name, found in _found_by_position(detections, ground_truth, classes).items()
    }


def _objects_by_class(
    ground_truth: Sequence[Annotation | Target], classes: Sequence[str]
) -> dict[str, dict[int, _Objects]]:
    """Objects by class and by the position of their image."""
    objects: dict[str, dict[int, _Objects]] = {name: {} for name in classes}
    for image, truth in enumerate(ground_truth):
        labels, difficult = truth.labels.numpy(), truth.difficult.numpy()
        boxes_px = truth.boxes_px.double().numpy()
        _check_labels(labels, [truth.image_id] * len(labels), classes, "an object")
        _check_boxes(boxes_px, [truth.image_id] * len(labels), "an object")
        for label in np.unique(labels):
            of_class = labels == label
            objects[classes[label - 1]][image] = _Objects(boxes_px[of_class], difficult[of_class])
    return objects


def _found_by_position(
    detections: Sequence[Detections], ground_truth: Sequence[Annotation | Target], classes: Sequence[str]
) -> dict[str, _Found]:
    if len(detections) != len(ground_truth) or not ground_truth:
        raise ValueError(
            f"{len(detections)} images have detections and {len(ground_truth)} have ground truth: "
            "give one Detections for each image, in the same order"
        )
    for found, truth in zip(detections, ground_truth, strict=True):
        if not len(found.boxes) == len(found.scores) == len(found.labels):
            raise ValueError(
                f"image {truth.image_id!r} has {len(found.boxes)} boxes, {len(found.scores)} scores and "
                f"{len(found.labels)} labels: give one of each for every detection"
            )
    images = np.repeat(np.arange(len(ground_truth)), [len(found.labels) for found in detections])
    labels = torch.cat([found.labels for found in detections]).numpy()
    scores = torch.cat([found.scores for found in detections]).double().numpy()
    boxes_px = torch.cat(
        [d.boxes.double() * torch.tensor(t.size * 2) for d, t in zip(detections, ground_truth, strict=True)]
    ).numpy()
    image_ids = [ground_truth[image].image_id for image in images]
    _check_labels(labels, image_ids, classes, "a detection")
    _check_scores(scores, image_ids, "a detection")
    _check_boxes(boxes_px, image_ids, "a detection")
    return {
        name: _Found(images[labels == label], scores[labels == label], boxes_px[labels == label])
        for label, name in enumerate(classes, start=1)
    }


def _found_by_id(
    detections: Mapping[str, ClassDetections], ground_truth: Sequence[Annotation | Target], classes: Sequence[str]
) -> dict[str, _Found]:
    positions = _positions(ground_truth)
    found_by_class = {}
    for name, found in detections.items():
        if name not in classes:
            raise ValueError(f"there are detections of class {name!r}, and it is none of the classes {tuple(classes)}")
        image_ids, scores, boxes_px = _checked(name, found)
        unknown = [image_id for image_id in image_ids if image_id not in positions]
        if unknown:
            raise ValueError(
                f"class {name!r} has {len(unknown)} detections in images that are not in the ground truth, the first "
                f"in {unknown[0]!r}: {_cure_of_id(unknown[0], positions)}"
            )
        images = np.array([positions[image_id] for image_id in image_ids], np.int64)
        found_by_class[name] = _Found(images, scores, boxes_px)
    return found_by_class


def _positions(ground_truth: Sequence[Annotation | Target]) -> dict[str, int]:
    """Where the image of an id stands in the ground truth."""
    positions: dict[str, list[int]] = {}
    for position, truth in enumerate(ground_truth):
        positions.setdefault(truth.image_id, []).append(position)
    repeated = [image_id for image_id, where in positions.items() if len(where) > 1]
    if repeated:
        paths = [str(t.path) for t in ground_truth if isinstance(t, Annotation) and t.image_id == repeated[0]]
        raise ValueError(
            f"{len(repeated)} image ids are in the ground truth more than once: {_some(repeated)}"
            + (f", the first as {_some(paths)}" if paths else "")
            + ". Detections by class know an image by its id alone: measure one image set at a time, each image in it "
            "once, or give one Detections for each image"
        )
    return {image_id: where[0] for image_id, where in positions.items()}


def _some(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(repr(item) for item in items[:most]) + more


def _checked(name: str, found: ClassDetections) -> ClassDetections:
    """The same detections of class `name` in float64, with nothing in them that has no place in a ranking."""
    scores, boxes_px = np.asarray(found.scores, np.float64), np.asarray(found.boxes_px, np.float64)
    if not len(found.image_ids) == len(scores) == len(boxes_px):
        raise ValueError(
            f"class {name!r} has {len(found.image_ids)} image ids, {len(scores)} scores and {len(boxes_px)} boxes: "
            "give one of each for every detection"
        )
    _check_scores(scores, found.image_ids, f"a detection of class {name!r}")
    _check_boxes(boxes_px, found.image_ids, f"a detection of class {name!r}")
    return ClassDetections(found.image_ids, scores, boxes_px)


def _check_labels(labels: np.ndarray, image_ids: Sequence[str], classes: Sequence[str], what: str) -> None:
    wrong = (labels < 1) | (labels > len(classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"image {image_ids[row]!r}: {what} has label {labels[row]}, and the labels of {len(classes)} classes are "
            f"1 to {len(classes)}: give the `classes` that the labels were made with"
        )


def _check_scores(scores: np.ndarray, image_ids: Sequence[str], what: str) -> None:
    wrong = ~np.isfinite(scores)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"image {image_ids[row]!r}: {what} has score {scores[row]}: scores must be finite numbers")


def _check_boxes(boxes_px: np.ndarray, image_ids: Sequence[str], what: str) -> None:
    wrong = ~(np.isfinite(boxes_px).all(axis=1) & (boxes_px[:, :2] <= boxes_px[:, 2:]).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"image {image_ids[row]!r}: {what} has box {tuple(boxes_px[row].tolist())} in pixels: corners are finite "
            "numbers in the order xmin, ymin, xmax, ymax"
        )


def read_ground_truth(
    devkit: str | Path, year: str, image_set: str, classes: Sequence[str] = VOC_CLASSES
) -> list[Annotation]:
    """The annotations of an image set, in the list's order; no image is needed."""
    return read_annotations(devkit, year, image_set, classes)


def detection_file(folder: str | Path, name: str) -> Path:
    """Where the detections of a class are kept: `comp4_det_test_<class>.txt`.

    A character that a file's name cannot hold on every system is written as in an address, `/` as `%2F`.
    """
    quoted = re.sub(r'[\x00-\x1f\x7f%/\\:*?"<>|]', lambda found: f"%{ord(found[0]):02X}", name)
    return Path(folder) / f"comp4_det_test_{quoted}.txt"


def _detection_files(folder: str | Path, names: Iterable[str]) -> dict[str, Path]:
    paths = {name: detection_file(folder, name) for name in names}
    met: dict[str, str] = {}
    for name in paths:
        other = met.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ValueError(
                f"classes {other!r} and {name!r} would share one detection file on a disk that does not tell capital "
                "letters from small ones: rename one of them"
            )
    return paths


def read_detection_files(
    folder: str | Path, classes: Sequence[str] = VOC_CLASSES, image_ids: Collection[str] | None = None
) -> dict[str, ClassDetections]:
    """Read detections in the devkit's format, one file for each class.

    Args:
        folder: holds `comp4_det_test_<class>.txt` (see `detection_file`), UTF-8, whose lines are
            `<image id> <score> <xmin> <ymin> <xmax> <ymax>`, 1-based and inclusive. The last five
            fields are numbers, and what stands before them is the id, which may have spaces in it.
            A class without a file is left out, with a warning.
        image_ids: those of the image set, where it is known.

    Raises:
        DataError: there is no such file, a line is not of that form, its corners are reversed, or its
            id is none of `image_ids`.
    """
    classes = class_names(classes)
    folder = Path(folder)
    paths = _detection_files(folder, classes)
    present = {name: path for name, path in paths.items() if path.exists()}
    if not present:
        raise DataError(folder, "folder", "without detections", "it should hold comp4_det_test_<class>.txt files")
    if len(present) < len(paths):
        missing = ", ".join(name for name in paths if name not in present)
        warnings.warn(f"{folder} has no detection file for {missing}: left out of the mean", stacklevel=2)
    known = None if image_ids is None else set(image_ids)
    return {name: _read_detection_file(path, known) for name, path in present.items()}


def _read_detection_file(path: Path, known: set[str] | None) -> ClassDetections:
    image_ids, numbers = [], []
    for row, line in enumerate(_lines(path), start=1):
        if not line:
            continue
        image_id, *fields = line.rsplit(maxsplit=5)
        try:
            score, _, _, right, bottom = (float(field) for field in fields)
            left, top = (float(DECIMAL.subtract(Decimal(field), 1)) for field in fields[1:3])
            if not all(map(math.isfinite, (score, left, top, right, bottom))):
                raise ValueError
        except (ValueError, ArithmeticError):
            raise DataError(path, f"line {row}", line, f"write {LINE}") from None
        if right < left or bottom < top:
            raise DataError(path, f"line {row}", line, f"the corners are reversed: write {LINE}")
        if known is not None and image_id not in known:
            raise DataError(path, f"line {row}: image id", image_id, _cure_of_id(image_id, known))
        image_ids.append(image_id)
        numbers.append((score, left, top, right, bottom))
    table = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    return ClassDetections(image_ids, table[:, 0], table[:, 1:])


def _lines(path: Path) -> list[str]:
    """The lines of a text file; a byte-order mark before the first is none of its text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, "encoding", f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    if "\0" in text:
        raise DataError(path, "encoding", "not UTF-8, as it holds zero bytes", "save the file as UTF-8")
    return [line.strip() for line in text.split("\n")]


def _cure_of_id(image_id: str, known: Collection[str]) -> str:
    """What to write instead of an id that is not in the set: often it has a folder, an ending or no zeros."""
    name = image_id.replace("\\", "/").rpartition("/")[2]
    near = {other.casefold().lstrip("0"): other for other in known}
    for guess in (image_id.strip(), name, name.rpartition(".")[0], *image_id.split()[:1]):
        key = guess.casefold().lstrip("0")
        if key and key in near:
            return f"write {near[key]}"
    return "it is not in the image set: take it out, or measure on the set that it belongs to"


def write_detection_files(folder: str | Path, detections: Mapping[str, ClassDetections]) -> None:
    """Write detections in the devkit's format; `read_detection_files` reads the very same numbers back.

    Raises:
        ValueError: an id that a line cannot hold, a score or a corner that is no number, reversed
            corners, two classes that would share a file; then nothing is written.
    """
    paths = _detection_files(folder, detections)
    contents = {paths[name]: _text_of(_checked(name, found)) for name, found in detections.items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_whole(path, content)


def _text_of(found: ClassDetections) -> str:
    """One line for each detection, with the fewest digits that give the same float64 again."""
    rows = []
    for image_id, score, box in zip(found.image_ids, found.scores.tolist(), found.boxes_px.tolist(), strict=True):
        if image_id != image_id.strip() or not image_id or re.search("[\0\n\r\ud800-\udfff]|^\ufeff", image_id):
            raise ValueError(
                f"image id {image_id!r} cannot be read back from a detection file: spaces only inside it, no line "
                "breaks, zero bytes, lone surrogates or byte-order marks"
            )
        left, top = (DECIMAL.add(Decimal(repr(value)), 1) for value in box[:2])
        rows.append(f"{image_id} {score!r} {left} {top} {box[2]!r} {box[3]!r}\n")
    return "".join(rows)
