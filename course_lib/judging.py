"""Who found what: the object that each detection of an image set belongs to, and whether it is the first to find it.

VOC's rule needs no walk through the detections. Each belongs to the object of its class that it overlaps most, whatever
became of the others; and of those that overlap an object enough, the one with the highest score finds it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from course_lib.detect import Detections
from course_lib.detection_files import ClassDetections, check_boxes, check_scores, checked, cure_of_id
from course_lib.voc import Annotation, Target, class_names

PAIRS_AT_ONCE = 2**21  # of a detection and an object: 0.3 GB
SMALLEST = np.finfo(np.float64).tiny


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
    """Detections, of one class or of all in an image set; fields as in `Objects`."""

    classes: Int[np.ndarray, " N"]
    images: Int[np.ndarray, " N"]
    boxes_px: Float[np.ndarray, "N 4"]
    scores: Float[np.ndarray, " N"]


_NOTHING = Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))


class Judged(NamedTuple):
    """What the detections of an image set found.

    Attributes:
        classes: the names.
        images: how many there are.
        handed_in: positions of the classes that detections were handed in for, be they none.
        nearest: the object of its own class that a detection overlaps most; -1 where its image has none.
        overlap: the IoU with it, else 0.
        reaches: the overlap is at least the threshold.
        first: it is the first, by falling score, that reaches its object.
    """

    classes: tuple[str, ...]
    images: int
    handed_in: tuple[int, ...]
    objects: Objects
    found: Found
    nearest: Int[np.ndarray, " N"]
    overlap: Float[np.ndarray, " N"]
    reaches: Bool[np.ndarray, " N"]
    first: Bool[np.ndarray, " N"]

    def rows(self, position: int) -> slice:
        """Where the detections of a class stand."""
        return of_class(self.found.classes, position)

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
        by_class = _found_by_id(detections, ground_truth, classes)
    else:
        by_class = found_by_position(detections, ground_truth, classes)
    handed_in = tuple(sorted(by_class))
    found = _ranked([by_class[position] for position in handed_in])
    nearest, overlap = np.full(len(found.scores), -1), np.zeros(len(found.scores))
    for position in handed_in:
        rows, columns = of_class(found.classes, position), of_class(objects.classes, position)
        one, others = Found(*(part[rows] for part in found)), Objects(*(part[columns] for part in objects))
        best, overlap[rows] = nearest_objects(one, others, len(ground_truth))
        nearest[rows] = np.where(best < 0, -1, best + columns.start)
    reaches = overlap >= iou_threshold
    first = _first_to_reach(nearest, reaches)
    return Judged(classes, len(ground_truth), handed_in, objects, found, nearest, overlap, reaches, first)


def of_class(sorted_classes: Int[np.ndarray, " N"], position: int) -> slice:
    """Where a class stands in a list that is sorted by class."""
    return slice(*np.searchsorted(sorted_classes, [position, position + 1]).tolist())


def _ranked(by_class: Sequence[Found]) -> Found:
    """The detections of several classes, one after the other, each by falling score; equal scores keep their order."""
    orders = [by_falling_score(found.scores) for found in by_class]
    ranked = [
        Found(*(part.take(order, axis=0) for part in found)) for found, order in zip(by_class, orders, strict=True)
    ]
    return Found(*map(np.concatenate, zip(_NOTHING, *ranked, strict=True)))


def by_falling_score(scores: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """`np.argsort(-scores, kind="stable")`, faster: numpy sorts numbers several at once where it may mix up equal ones.

    It sorts the scores so, and then (rank of the score, position) as one whole number.
    """
    order = np.argsort(-scores)
    ranked = scores[order]
    rank = np.cumsum(ranked[1:] != ranked[:-1])
    order[1:] += rank * len(scores)
    order.sort()
    return order % max(len(scores), 1)


def nearest_objects(
    found: Found, objects: Objects, images: int, another_class: bool = False
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The object of its image that each detection overlaps most, and the IoU: the first of equals, -1 and 0 for none.

    Args:
        objects: image by image.
        images: how many there are.
        another_class: look only at objects of another class than the detection's.
    """
    nearest, overlap = np.full(len(found.scores), -1), np.zeros(len(found.scores))
    for rows, columns in pairs_of_images(found.images, objects.images, images):
        if another_class:
            differ = found.classes[rows] != objects.classes[columns]
            rows, columns = rows[differ], columns[differ]
        ious = iou_px(found.boxes_px, objects.boxes_px, (rows, columns))
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        if len(starts):
            overlap[rows[starts]] = np.maximum.reduceat(ious, starts)
            best = np.flatnonzero(ious == overlap[rows])[::-1]
            nearest[rows[best]] = columns[best]  # of several, the last that is written stays: the first of the row
    return nearest, overlap


def pairs_of_images(
    images: Int[np.ndarray, " N"], sorted_images: Int[np.ndarray, " M"], number: int
) -> Iterator[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]]:
    """All (row, column) for which `images[row] == sorted_images[column]`, row by row, some rows at a time.

    Args:
        number: how many images there are.
    """
    per_image = np.bincount(sorted_images, minlength=number)
    start, count = (np.cumsum(per_image) - per_image)[images], per_image[images]
    before = np.cumsum(count) - count
    edges = np.flatnonzero(np.diff(before // PAIRS_AT_ONCE)) + 1
    for some in np.split(np.arange(len(images)), edges):
        rows = np.repeat(some, count[some])
        yield rows, np.arange(len(rows)) + np.repeat(start[some] - before[some] + before[some[:1]], count[some])


def iou_px(
    boxes: Float[np.ndarray, "N 4"],
    others: Float[np.ndarray, "M 4"],
    pairs: tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]],
) -> Float[np.ndarray, " P"]:
    """IoU of each pair of rows; boxes are half open, so `xmax - xmin` is the devkit's inclusive width."""
    left, top, right, bottom = boxes.take(pairs[0], axis=0).T
    other_left, other_top, other_right, other_bottom = others.take(pairs[1], axis=0).T
    width = np.minimum(right, other_right) - np.maximum(left, other_left)
    height = np.minimum(bottom, other_bottom) - np.maximum(top, other_top)
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top) - intersection
    return intersection / np.maximum(union, SMALLEST)  # two boxes without area have no overlap


def _first_to_reach(nearest: Int[np.ndarray, " N"], reaches: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which detections, by falling score, are the first to reach their object."""
    reaching = np.flatnonzero(reaches)[::-1]
    first = np.full(nearest.max(initial=-1) + 1, -1)
    first[nearest[reaching]] = reaching  # the last that is written stays
    is_first = np.zeros(len(nearest), bool)
    is_first[first[first >= 0]] = True
    return is_first


def _objects(ground_truth: Sequence[Annotation | Target], classes: Sequence[str]) -> Objects:
    images = np.repeat(np.arange(len(ground_truth)), [truth.labels.numel() for truth in ground_truth])
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
) -> dict[int, Found]:
    """Detections per image, in the order of the ground truth, by the position of their class.

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
    images = np.repeat(np.arange(len(ground_truth)), [found.labels.numel() for found in detections])
    labels = _joined([found.labels for found in detections], torch.int64)
    scores = _joined([found.scores for found in detections], torch.float64)
    boxes = _joined([found.boxes for found in detections], torch.float64)
    boxes_px = boxes * np.array([truth.size * 2 for truth in ground_truth])[images]

    def image_id(row: int) -> str:
        return ground_truth[images[row]].image_id

    _check_labels(labels, image_id, classes, "a detection")
    check_scores(scores, image_id, "a detection")
    check_boxes(boxes_px, image_id, "a detection")
    order = np.argsort(labels, kind="stable")
    found = Found(*(part.take(order, axis=0) for part in (labels - 1, images, boxes_px, scores)))
    slices = {position: of_class(found.classes, position) for position in range(len(classes))}
    return {position: Found(*(part[rows] for part in found)) for position, rows in slices.items()}


def _found_by_id(
    detections: Mapping[str, ClassDetections], ground_truth: Sequence[Annotation | Target], classes: Sequence[str]
) -> dict[int, Found]:
    positions = positions_of_ids(ground_truth)
    by_class = {}
    for name, found in detections.items():
        if name not in classes:
            raise ValueError(f"there are detections of class {name!r}, and it is none of the classes {tuple(classes)}")
        image_ids, scores, boxes_px = checked(name, found)
        try:
            images = np.fromiter(map(positions.__getitem__, image_ids), np.int64, len(image_ids))
        except KeyError:
            unknown = [image_id for image_id in image_ids if image_id not in positions]
            raise ValueError(
                f"class {name!r} has {len(unknown)} detections in images that are not in the ground truth, the first "
                f"in {unknown[0]!r}: {cure_of_id(unknown[0], positions)}"
            ) from None
        position = classes.index(name)
        by_class[position] = Found(np.full(len(images), position), images, boxes_px, scores)
    return by_class


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
