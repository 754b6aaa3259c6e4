"""Average precision: one number for the ranked detections of a class, once it is known which of them are right."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Multiples of 0.1 as a computer makes them: 3 * 0.1, 6 * 0.1 and 7 * 0.1 are a hair above 0.3, 0.6
# and 0.7. A recall of exactly 7/10 therefore misses its level, and published 11-point numbers were
# computed so: the exact levels would change a real AP (pottedplant in tests/test_metrics.py) by 0.0002.
ELEVEN_RECALLS = np.arange(11) * 0.1

METHODS = ("area", "11point")


class Curve(NamedTuple):
    """Precision and recall after each detection of a class, by falling score.

    Attributes:
        scores: the score of the detection that was just added.
        outcome: 1 true positive, 0 false positive, -1 not counted (it found a difficult object, or it is of another
            size than asked for).
        objects: how many objects there are to find.
    """

    recall: Float[np.ndarray, " N"]
    precision: Float[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    outcome: Int[np.ndarray, " N"]
    objects: int


def curve_of(scores: Float[np.ndarray, " N"], outcome: Int[np.ndarray, " N"], objects: int) -> Curve:
    """The curve of a class from what its detections found, by falling score; fields as in `Curve`."""
    true, false = np.cumsum(outcome == 1), np.cumsum(outcome == 0)
    return Curve(true / max(objects, 1), true / np.maximum(true + false, 1), scores, outcome, objects)


def check_method(method: str) -> None:
    """Refuse a name that is none of `METHODS`.

    Raises:
        ValueError: it says which there are.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: use 'area' or '11point'")


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
    check_method(method)
    if method == "11point":
        best = [precision[recall >= level].max(initial=0.0) for level in ELEVEN_RECALLS]
        return float(np.sum(np.array(best) / 11))
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(np.diff(recall))
    return float(np.sum((recall[steps + 1] - recall[steps]) * envelope[steps + 1]))
