"""Who found what: the object that each detection of an image set belongs to, and whether it is the first to find it.

VOC's rule needs no walk through the detections. Each belongs to the object of its class that it overlaps most, whatever
became of the others; and of those that overlap an object enough, the one with the highest score finds it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from course_lib.detect import Detections
from course_lib.detection_files import ClassDetections, check_boxes, check_scores, checked, cure_of_id
from course_lib.voc import Annotation, Target, class_names


class Objects(NamedTuple):
    """All objects of an image set: class by class, in a class image by image.

    Attributes:
        classes: position of the class in the classes.
        images: position of the image in the ground truth.
        boxes_px: corners, pixels, 0-based, half open.
        difficult: the annotators' flags.
    """

    classes: Int[np.ndarray, " M"]
    images: Int[np.ndarray, " M"]
    boxes_px: Float[np.ndarray, "M 4"]
    difficult: Bool[np.ndarray, " M"]


class Found(NamedTuple):
    """All detections in an image set: class by class, in a class by falling score; fields as in `Objects`."""

    classes: Int[np.ndarray, " N"]
    images: Int[np.ndarray, " N"]
    boxes_px: Float[np.ndarray, "N 4"]
    scores: Float[np.ndarray, " N"]


class Judged(NamedTuple):
    """What the detections of an image set found.

    Attributes:
        classes: the names.
        handed_in: positions of the classes that detections were handed in for, be they none.
        nearest: the object of its own class that a detection overlaps most; -1 where its image has none.
        overlap: the IoU with it, else 0.
        reaches: the overlap is at least the threshold.
        first: it is the first, by falling score, that reaches its object.
    """

    classes: tuple[str, ...]
    handed_in: tuple[int, ...]
    objects: Objects
    found: Found
    nearest: Int[np.ndarray, " N"]
    overlap: Float[np.ndarray, " N"]
    reaches: Bool[np.ndarray, " N"]
    first: Bool[np.ndarray, " N"]

    def rows(self, position: int) -> slice:
        """Where the detections of a class stand."""
        return slice(*np.searchsorted(self.found.classes, [position, position + 1]).tolist())

    def outcome(self, counts: Bool[np.ndarray, " M"]) -> Int[np.ndarray, " N"]:
        """What each detection is where only some objects count: see `metrics.Curve`."""
        finds_counted = np.append(counts, False)[self.nearest]
        return np.where(self.reaches, np.where(finds_counted, self.first.astype(np.int64), -1), 0)


def judge(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    iou_threshold: float,
    classes: Sequence[str],
) -> Judged:
    """Decide for all detections of an image set what they found.

    Equal scores keep their order: the images' and in an image its detections', or by class the order that they were
    handed in with, which is the file's.

    Args and errors: as `metrics.evaluate_voc`.
    """
    classes = class_names(classes)
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}: use an overlap above 0 and up to 1")
    objects = _objects(ground_truth, classes)
    if isinstance(detections, Mapping):
        found = _found_by_id(detections, ground_truth, classes)
        handed_in = tuple(position for position, name in enumerate(classes) if name in detections)
    else:
        found = found_by_position(detections, ground_truth, classes)
        handed_in = tuple(range(len(classes)))
    order = np.lexsort((-found.scores, found.classes))
    found = Found(*(column[order] for column in found))
    images = len(ground_truth)
    pairs = pairs_of_equals(found.classes * images + found.images, objects.classes * images + objects.images)
    nearest, overlap = most_overlapped(found, objects, pairs)
    reaches = overlap >= iou_threshold
    return Judged(classes, handed_in, objects, found, nearest, overlap, reaches, _first_to_reach(nearest, reaches))


def pairs_of_equals(
    keys: Int[np.ndarray, " N"], sorted_keys: Int[np.ndarray, " M"]
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """All (row, column) for which `keys[row] == sorted_keys[column]`, row by row."""
    start = np.searchsorted(sorted_keys, keys, "left")
    count = np.searchsorted(sorted_keys, keys, "right") - start
    rows = np.repeat(np.arange(len(keys)), count)
    columns = np.arange(len(rows)) + np.repeat(start - (np.cumsum(count) - count), count)
    return rows, columns


def most_overlapped(
    found: Found, objects: Objects, pairs: tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The object that each detection overlaps most, and the IoU: the first of equals, -1 and 0 where there is none.

    Args:
        pairs: detections and the objects that they are compared with, detection by detection.
    """
    rows, columns = pairs
    overlaps = iou_px(found.boxes_px[rows], objects.boxes_px[columns])
    nearest, overlap = np.full(len(found.images), -1), np.zeros(len(found.images))
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    if len(starts):
        overlap[rows[starts]] = np.maximum.reduceat(overlaps, starts)
        best = np.flatnonzero(overlaps == overlap[rows])[::-1]
        nearest[rows[best]] = columns[best]  # of several best, the last that is written stays: the first of the row
    return nearest, overlap


def iou_px(boxes: Float[np.ndarray, "P 4"], others: Float[np.ndarray, "P 4"]) -> Float[np.ndarray, " P"]:
    """IoU pair by pair; half open, so `xmax - xmin` is the devkit's inclusive width."""
    side = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    intersection = side.clip(min=0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _first_to_reach(nearest: Int[np.ndarray, " N"], reaches: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which detections, by falling score, are the first to reach their object."""
    reaching = np.flatnonzero(reaches)[::-1]
    first = np.full(nearest.max(initial=-1) + 1, -1)
    first[nearest[reaching]] = reaching  # the last that is written stays
    is_first = np.zeros(len(nearest), bool)
    is_first[first[first >= 0]] = True
    return is_first


def _objects(ground_truth: Sequence[Annotation | Target], classes: Sequence[str]) -> Objects:
    images = np.repeat(np.arange(len(ground_truth)), [len(truth.labels) for truth in ground_truth])
    labels = _joined([truth.labels for truth in ground_truth], torch.int64)
    boxes_px = _joined([truth.boxes_px for truth in ground_truth], torch.float64).reshape(-1, 4)
    difficult = _joined([truth.difficult for truth in ground_truth], torch.bool)

    def image_id(row: int) -> str:
        return ground_truth[images[row]].image_id

    _check_labels(labels, image_id, classes, "an object")
    check_boxes(boxes_px, image_id, "an object")
    order = np.argsort(labels, kind="stable")
    return Objects(labels[order] - 1, images[order], boxes_px[order], difficult[order])


def _joined(parts: Sequence[torch.Tensor], dtype: torch.dtype) -> np.ndarray:
    return torch.cat([*parts]).to(dtype).numpy() if parts else torch.zeros(0, dtype=dtype).numpy()


def found_by_position(
    detections: Sequence[Detections], ground_truth: Sequence[Annotation | Target], classes: Sequence[str]
) -> Found:
    """Detections per image, in the order of the ground truth, image by image.

    Raises:
        ValueError: as `metrics.evaluate_voc`.
    """
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
    labels = _joined([found.labels for found in detections], torch.int64)
    scores = _joined([found.scores for found in detections], torch.float64)
    boxes = _joined([found.boxes for found in detections], torch.float64)
    boxes_px = boxes * np.array([truth.size * 2 for truth in ground_truth])[images]

    def image_id(row: int) -> str:
        return ground_truth[images[row]].image_id

    _check_labels(labels, image_id, classes, "a detection")
    check_scores(scores, image_id, "a detection")
    check_boxes(boxes_px, image_id, "a detection")
    return Found(labels - 1, images, boxes_px, scores)


def _found_by_id(
    detections: Mapping[str, ClassDetections], ground_truth: Sequence[Annotation | Target], classes: Sequence[str]
) -> Found:
    positions = positions_of_ids(ground_truth)
    parts = [Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))]
    for name, found in detections.items():
        if name not in classes:
            raise ValueError(f"there are detections of class {name!r}, and it is none of the classes {tuple(classes)}")
        image_ids, scores, boxes_px = checked(name, found)
        images = list(map(positions.get, image_ids))
        if None in images:
            unknown = [image_id for image_id in image_ids if image_id not in positions]
            raise ValueError(
                f"class {name!r} has {len(unknown)} detections in images that are not in the ground truth, the first "
                f"in {unknown[0]!r}: {cure_of_id(unknown[0], positions)}"
            )
        position = np.full(len(images), classes.index(name))
        parts.append(Found(position, np.array(images, np.int64), boxes_px, scores))
    return Found(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def positions_of_ids(ground_truth: Sequence[Annotation | Target]) -> dict[str, int]:
    """Where the image of an id stands in the ground truth.

    Raises:
        ValueError: two images have the same id.
    """
    image_ids = [truth.image_id for truth in ground_truth]
    positions = dict(zip(image_ids, range(len(image_ids)), strict=True))
    if len(positions) < len(image_ids):
        _refuse_repeated(image_ids, ground_truth)
    return positions


def _refuse_repeated(image_ids: Sequence[str], ground_truth: Sequence[Annotation | Target]) -> None:
    seen: dict[str, int] = {}
    for image_id in image_ids:
        seen[image_id] = seen.get(image_id, 0) + 1
    repeated = [image_id for image_id, times in seen.items() if times > 1]
    paths = [str(t.path) for t in ground_truth if isinstance(t, Annotation) and t.image_id == repeated[0]]
    raise ValueError(
        f"{len(repeated)} image ids are in the ground truth more than once: {_some(repeated)}"
        + (f", the first as {_some(paths)}" if paths else "")
        + ". Detections by class know an image by its id alone: measure one image set at a time, each image in it "
        "once, or give one Detections for each image"
    )


def _some(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(repr(item) for item in items[:most]) + more


def _check_labels(
    labels: Int[np.ndarray, " N"], image_id: Callable[[int], str], classes: Sequence[str], what: str
) -> None:
    wrong = (labels < 1) | (labels > len(classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"image {image_id(row)!r}: {what} has label {labels[row]}, and the labels of {len(classes)} classes are "
            f"1 to {len(classes)}: give the `classes` that the labels were made with"
        )
