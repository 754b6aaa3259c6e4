"""Average precision as the Pascal VOC development kit computes it, to the last digit.

Detection files are read in `detection_files`, what a detection found is decided in `judging`, and intervals and kinds
of errors have modules of their own; their names are here too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from course_lib.average_precision import ELEVEN_RECALLS as ELEVEN_RECALLS
from course_lib.average_precision import Curve as Curve
from course_lib.average_precision import average_precision as average_precision
from course_lib.average_precision import curve_of
from course_lib.detect import Detections
from course_lib.detection_files import ClassDetections as ClassDetections
from course_lib.detection_files import detection_file as detection_file
from course_lib.detection_files import read_detection_files as read_detection_files
from course_lib.detection_files import write_detection_files as write_detection_files
from course_lib.error_types import ErrorType as ErrorType
from course_lib.error_types import error_types as error_types
from course_lib.intervals import Bootstrap as Bootstrap
from course_lib.intervals import Comparison as Comparison
from course_lib.intervals import bootstrap as bootstrap
from course_lib.intervals import compare as compare
from course_lib.judging import Judged, found_by_position, judge, positions_of_ids
from course_lib.voc import VOC_CLASSES, Annotation, Target, class_names, read_annotations

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class VOCResult:
    """Average precision per class, and the curves it was computed from.

    Attributes:
        ap: by class; None where there is nothing to measure: no detections were handed in for the
            class, or it has no object that counts.
        mean_ap: mean over the classes that are not None; NaN if there is none. No comparison with NaN is true, and it
            is no JSON: ask `math.isnan` first.
        curves: by class, where detections were handed in.
    """

    ap: dict[str, float | None]
    mean_ap: float
    curves: dict[str, Curve]


def evaluate_voc(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
) -> VOCResult:
    """Average precision of every class, and their mean.

    By falling score, a detection belongs to the object of its class that it overlaps most. The first to reach the
    threshold finds it, any later one is a duplicate and false; one that finds a difficult object does not count.
    Detections with equal scores keep their order, and another order may give another AP, as with the devkit: by class
    it is the order that they are handed in with, a file's from its first line to its last; else that of the images,
    and in an image that of its detections.

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
    judged = judge(detections, ground_truth, iou_threshold, classes)
    counts = ~judged.objects.difficult
    return _result(judged, judged.outcome(counts), counts, method)


def _result(judged: Judged, outcome: Int[np.ndarray, " N"], counts: Bool[np.ndarray, " M"], method: str) -> VOCResult:
    objects = np.bincount(judged.objects.classes[counts], minlength=len(judged.classes)).tolist()
    ap: dict[str, float | None] = dict.fromkeys(judged.classes)
    curves: dict[str, Curve] = {}
    for position in judged.handed_in:
        name, rows = judged.classes[position], judged.rows(position)
        curves[name] = curve_of(judged.found.scores[rows], outcome[rows], objects[position])
        if objects[position]:
            ap[name] = average_precision(curves[name].recall, curves[name].precision, method)
    measured = [value for value in ap.values() if value is not None]
    return VOCResult(ap, float(np.mean(measured)) if measured else float("nan"), curves)


def by_size(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    edges_px: tuple[float, float] = (32, 96),
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
) -> dict[str, VOCResult]:
    """Average precision on the small, the medium and the large objects alone.

    An object is as large as its box, in pixels of the image as it is on disk: small below the area of a square of the
    first edge, large from that of the second, else medium. For each size the objects of the others are as difficult
    ones: finding them counts neither way. A false detection counts for the size that its own box has.

    Args:
        edges_px: sides of the two squares, pixels; the defaults are COCO's.
        detections, ground_truth, iou_threshold, method, classes: as in `evaluate_voc`.

    Returns:
        a result for "small", "medium" and "large".

    Raises:
        ValueError: edges that do not rise; or as `evaluate_voc`.

    Source: COCO's evaluation (cocoeval.py, areaRng). It differs there that a detection whose object is taken looks for
    another one, and is false without, also where the object was of another size; that it prefers an object of the size
    in question to one that it overlaps more; that an area on an edge has both sizes; and that an object is as large as
    its outline.
    """
    if not 0 < edges_px[0] < edges_px[1]:
        raise ValueError(f"edges_px is {edges_px}: give the sides of two squares, the smaller first")
    judged = judge(detections, ground_truth, iou_threshold, classes)
    areas = np.square(edges_px)
    object_sizes, found_sizes = (
        np.digitize((boxes_px[:, 2:] - boxes_px[:, :2]).prod(axis=1), areas)
        for boxes_px in (judged.objects.boxes_px, judged.found.boxes_px)
    )
    results = {}
    for size, name in enumerate(SIZES):
        counts = ~judged.objects.difficult & (object_sizes == size)
        outcome = judged.outcome(counts)
        outcome[(outcome == 0) & (found_sizes != size)] = -1
        results[name] = _result(judged, outcome, counts, method)
    return results


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
    image_ids = list(positions_of_ids(ground_truth))
    return {
        classes[position]: ClassDetections([image_ids[image] for image in found.images], found.scores, found.boxes_px)
        for position, found in found_by_position(detections, ground_truth, classes).items()
    }


def read_ground_truth(
    devkit: str | Path, year: str, image_set: str, classes: Sequence[str] = VOC_CLASSES
) -> list[Annotation]:
    """The annotations of an image set, in the list's order; no image is needed."""
    return read_annotations(devkit, year, image_set, classes)
