"""Average precision as the Pascal VOC development kit computes it, to the last digit."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from course_lib.detect import Detections
from course_lib.files import DataError, write_whole
from course_lib.voc import VOC_CLASSES, Annotation, Target, annotation_path, read_annotation, read_image_set

# Multiples of 0.1 as a computer makes them: 3 * 0.1, 6 * 0.1 and 7 * 0.1 are a hair above 0.3, 0.6
# and 0.7. A recall of exactly 7/10 therefore misses its level, and published 11-point numbers were
# computed so: the exact levels would change a real AP (pottedplant in tests/test_metrics.py) by 0.0002.
ELEVEN_RECALLS = np.arange(11) * 0.1


class ClassDetections(NamedTuple):
    """All detections of one class in an image set, in any order.

    Attributes:
        image_ids: the image of each detection.
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


def judge(detections: ClassDetections, objects: Mapping[str, _Objects], iou_threshold: float) -> Curve:
    """Go through a class's detections by falling score and decide what each one found.

    A detection belongs to the object it overlaps most. The first to reach the threshold finds it,
    any later one is a duplicate and false; one that finds a difficult object does not count.
    """
    order = np.argsort(-detections.scores, kind="stable")
    found = {image_id: np.zeros(len(item.difficult), bool) for image_id, item in objects.items()}
    outcome = np.zeros(len(order), np.int64)
    for rank, index in enumerate(order):
        item = objects.get(detections.image_ids[index])
        if item is None:
            continue
        overlaps = iou_px(detections.boxes_px[index], item.boxes_px)
        best = int(overlaps.argmax())
        if overlaps[best] < iou_threshold:
            continue
        if item.difficult[best]:
            outcome[rank] = -1
        elif not found[detections.image_ids[index]][best]:
            found[detections.image_ids[index]][best] = True
            outcome[rank] = 1
    positives = int(sum((~item.difficult).sum() for item in objects.values()))
    true, false = np.cumsum(outcome == 1), np.cumsum(outcome == 0)
    recall = true / max(positives, 1)
    precision = true / np.maximum(true + false, 1)
    return Curve(recall, precision, detections.scores[order], outcome, positives)


def by_class(
    detections: Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    classes: Sequence[str] = VOC_CLASSES,
) -> dict[str, ClassDetections]:
    """Detections per image, in the order of the ground truth, as detections per class in pixels."""
    if len(detections) != len(ground_truth):
        raise ValueError(
            f"{len(detections)} images have detections and {len(ground_truth)} have ground truth: "
            "give one Detections for each image, in the same order"
        )
    labels = torch.cat([d.labels for d in detections]).numpy()
    scores = torch.cat([d.scores for d in detections]).double().numpy()
    boxes_px = torch.cat(
        [d.boxes.double() * torch.tensor(t.size * 2) for d, t in zip(detections, ground_truth, strict=True)]
    ).numpy()
    image_ids = np.repeat([t.image_id for t in ground_truth], [len(d.labels) for d in detections])
    return {
        name: ClassDetections(image_ids[labels == label], scores[labels == label], boxes_px[labels == label])
        for label, name in enumerate(classes, start=1)
    }


def evaluate_voc(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
) -> VOCResult:
    """Average precision of every class, and their mean.

    Args:
        detections: one `Detections` for each image, in the ground truth's order; or by class, as
            `read_detection_files` gives them.
        ground_truth: what is in each image; `read_ground_truth` reads it from a tree.
        iou_threshold: overlap from which a detection finds an object.
        method: see `average_precision`.

    Source: VOCevaldet.m of the development kit.
    """
    if not isinstance(detections, Mapping):
        detections = by_class(detections, ground_truth, classes)
    ap: dict[str, float | None] = {}
    curves: dict[str, Curve] = {}
    for label, name in enumerate(classes, start=1):
        ap[name] = None
        if name not in detections:
            continue
        curves[name] = judge(detections[name], _objects_of(label, ground_truth), iou_threshold)
        if curves[name].objects:
            ap[name] = average_precision(curves[name].recall, curves[name].precision, method)
    measured = [value for value in ap.values() if value is not None]
    return VOCResult(ap, float(np.mean(measured)) if measured else float("nan"), curves)


def _objects_of(label: int, ground_truth: Sequence[Annotation | Target]) -> dict[str, _Objects]:
    objects = {}
    for truth in ground_truth:
        of_class = (truth.labels == label).numpy()
        if of_class.any():
            boxes_px = truth.boxes_px.double().numpy()[of_class]
            objects[truth.image_id] = _Objects(boxes_px, truth.difficult.numpy()[of_class])
    return objects


def read_ground_truth(devkit: str | Path, year: str, image_set: str) -> list[Annotation]:
    """The annotations of an image set, in the list's order; no image is needed."""
    return [read_annotation(annotation_path(devkit, year, i)) for i in read_image_set(devkit, year, image_set)]


def read_detection_files(folder: str | Path, classes: Sequence[str] = VOC_CLASSES) -> dict[str, ClassDetections]:
    """Read detections in the devkit's format, one file for each class.

    Args:
        folder: holds `comp4_det_test_<class>.txt`, whose lines are
            `<image id> <score> <xmin> <ymin> <xmax> <ymax>`, 1-based and inclusive. A class
            without a file is left out, with a warning.

    Raises:
        DataError: there is no such file, or a line is not of that form.
    """
    folder = Path(folder)
    paths = {name: folder / f"comp4_det_test_{name}.txt" for name in classes}
    present = {name: path for name, path in paths.items() if path.exists()}
    if not present:
        raise DataError(folder, "folder", "without detections", "it should hold comp4_det_test_<class>.txt files")
    if len(present) < len(paths):
        missing = ", ".join(name for name in paths if name not in present)
        warnings.warn(f"{folder} has no detection file for {missing}: left out of the mean", stacklevel=2)
    return {name: _read_detection_file(path) for name, path in present.items()}


def _read_detection_file(path: Path) -> ClassDetections:
    image_ids, numbers = [], []
    for row, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            image_id, *values = fields
            score, xmin, ymin, xmax, ymax = (float(value) for value in values)
            if not np.isfinite([score, xmin, ymin, xmax, ymax]).all():
                raise ValueError
        except ValueError:
            raise DataError(path, f"line {row}", line, "write <image id> <score> <xmin> <ymin> <xmax> <ymax>") from None
        image_ids.append(image_id)
        numbers.append((score, xmin - 1, ymin - 1, xmax, ymax))
    table = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    return ClassDetections(image_ids, table[:, 0], table[:, 1:])


def write_detection_files(folder: str | Path, detections: Mapping[str, ClassDetections]) -> None:
    """Write detections in the devkit's format; `read_detection_files` reads them back."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, found in detections.items():
        rows = [
            f"{image_id} {score:.6f} {box[0] + 1:.6f} {box[1] + 1:.6f} {box[2]:.6f} {box[3]:.6f}\n"
            for image_id, score, box in zip(found.image_ids, found.scores, found.boxes_px, strict=True)
        ]
        write_whole(Path(folder) / f"comp4_det_test_{name}.txt", "".join(rows))
