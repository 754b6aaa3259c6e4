"""What a detector does wrong, by kind, and what each kind costs in mAP."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from course_lib.average_precision import average_precision, curve_of
from course_lib.detect import Detections
from course_lib.detection_files import ClassDetections
from course_lib.judging import Judged, Objects, judge, nearest_objects
from course_lib.voc import VOC_CLASSES, Annotation, Target

FALSE = ("localisation", "class", "both", "duplicate", "background")  # the kinds of false detections
NEAR = 0.1  # overlap from which a detection is about an object, though it may not find it


class ErrorType(NamedTuple):
    """One kind of error.

    Attributes:
        count: how many false detections are of this kind; for "missed", how many objects.
        cost: the mAP that would be gained if only this kind were repaired.
    """

    count: int
    cost: float


class _Ranked(NamedTuple):
    """Detections of any classes, as AP needs them."""

    classes: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    outcome: Int[np.ndarray, " N"]


def error_types(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
) -> dict[str, ErrorType]:
    """Name each false detection and each missed object by what went wrong, and tell what each kind costs.

    A false detection is of the first kind that it fits:
        "duplicate": it reaches an object of its class (an overlap of `iou_threshold` or more) that was found before;
        "localisation": it overlaps an object of its class by 0.1 or more, and reaches none;
        "class": it reaches an object of another class;
        "both": it overlaps one of another class by 0.1 or more: neither class nor place are right;
        "background": it overlaps no object by 0.1.
    "missed" is an object that counts, that nothing found, and that no repair of "localisation" or "class" would find.

    What a repair does: a detection of kind "localisation" reaches the object of its class that it overlaps most; one
    of kind "class" takes the class of the object that it overlaps most (of equals, that of the first class), with its
    score. It is right then if that object counts, was not found, and no surer detection of the same kind is repaired to
    find it; else it is taken away. Those of the other kinds are taken away. A missed object is found, by a detection
    surer than all others. So no repair lowers the AP of any class, and the costs are not negative. They do not add up:
    repairs gain more together.

    Objects of a class without detections can explain a detection, and are not missed. A detection that finds a
    difficult object is not false.

    Args, errors: as `metrics.evaluate_voc`.

    Returns:
        the six kinds by name; each cost is NaN where mAP is.

    Source: Bolya et al. 2020, TIDE: A General Toolbox for Identifying Object Detection Errors. It differs there that
    the wrong class comes before the duplicate, and that missed objects are left out where here they are found.
    """
    judged = judge(detections, ground_truth, iou_threshold, classes)
    counts = ~judged.objects.difficult
    outcome = judged.outcome(counts)
    kinds, other = _kinds(judged, outcome, iou_threshold)
    found = _touched(judged.nearest[outcome == 1], counts)
    ranked = _Ranked(judged.found.classes, judged.found.scores, outcome)
    before = _mean_ap(ranked, judged, method)
    repairable = {"localisation": judged.nearest, "class": other}
    covered, result = found.copy(), {}
    for kind in FALSE:
        false = kinds == kind
        objects = repairable.get(kind, np.full(len(outcome), -1))
        repaired = _repaired(judged, ranked, false, objects, counts & ~found)
        covered |= _touched(objects[false], counts)
        result[kind] = ErrorType(int(false.sum()), _mean_ap(repaired, judged, method) - before)
    missed = counts & ~covered & np.isin(judged.objects.classes, judged.handed_in)
    repaired = _with_missed(judged, ranked, missed)
    return result | {"missed": ErrorType(int(missed.sum()), _mean_ap(repaired, judged, method) - before)}


def _kinds(
    judged: Judged, outcome: Int[np.ndarray, " N"], iou_threshold: float
) -> tuple[np.ndarray, Int[np.ndarray, " N"]]:
    """The kind of each false detection, "" for those that are not; the object of another class it overlaps most."""
    by_image = np.argsort(judged.objects.images, kind="stable")
    objects = Objects(*(part[by_image] for part in judged.objects))
    other, overlap = nearest_objects(judged.found, objects, judged.images, another_class=True)
    fits = [
        outcome != 0,
        judged.reaches,
        judged.overlap >= NEAR,
        overlap >= iou_threshold,
        overlap >= NEAR,
    ]
    names = ["", "duplicate", "localisation", "class", "both"]
    return np.select(fits, names, "background"), np.where(other < 0, -1, np.append(by_image, -1)[other])


def _touched(objects: Int[np.ndarray, " N"], like: Bool[np.ndarray, " M"]) -> Bool[np.ndarray, " M"]:
    touched = np.zeros_like(like)
    touched[objects[objects >= 0]] = True
    return touched


def _repaired(
    judged: Judged,
    ranked: _Ranked,
    false: Bool[np.ndarray, " N"],
    objects: Int[np.ndarray, " N"],
    free: Bool[np.ndarray, " M"],
) -> _Ranked:
    """The list with the `false` detections repaired: each finds its object, the surest of them, or is taken away.

    Args:
        objects: what each would find, -1 for nothing.
        free: which objects are still to be found.
    """
    finding = np.flatnonzero(false & np.append(free, False)[objects])
    finding = finding[np.argsort(-ranked.scores[finding], kind="stable")]
    _, first = np.unique(objects[finding], return_index=True)
    finding = finding[first]
    classes, outcome = ranked.classes.copy(), np.where(false, -1, ranked.outcome)
    classes[finding], outcome[finding] = judged.objects.classes[objects[finding]], 1
    return _Ranked(classes, ranked.scores, outcome)


def _with_missed(judged: Judged, ranked: _Ranked, missed: Bool[np.ndarray, " M"]) -> _Ranked:
    surest, count = ranked.scores.max(initial=0.0) + 1, int(missed.sum())
    return _Ranked(
        np.concatenate([judged.objects.classes[missed], ranked.classes]),
        np.concatenate([np.full(count, surest), ranked.scores]),
        np.concatenate([np.ones(count, np.int64), ranked.outcome]),
    )


def _mean_ap(ranked: _Ranked, judged: Judged, method: str) -> float:
    order = np.lexsort((-ranked.scores, ranked.classes))
    ranked = _Ranked(*(column[order] for column in ranked))
    objects = np.bincount(judged.objects.classes[~judged.objects.difficult], minlength=len(judged.classes))
    measured = [position for position in judged.handed_in if objects[position]]
    values = []
    for position in measured:
        rows = slice(*np.searchsorted(ranked.classes, [position, position + 1]))
        curve = curve_of(ranked.scores[rows], ranked.outcome[rows], int(objects[position]))
        values.append(average_precision(curve.recall, curve.precision, method))
    return float(np.mean(values)) if values else float("nan")
