"""How sure a mAP is: the same measurement on image sets drawn anew from the one at hand (the bootstrap)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from course_lib.average_precision import ELEVEN_RECALLS, check_method
from course_lib.detect import Detections
from course_lib.detection_files import ClassDetections
from course_lib.judging import Judged, judge
from course_lib.voc import VOC_CLASSES, Annotation, Target

AT_ONCE = 2**23  # rounds times images and objects: numbers in one array


@dataclass(frozen=True)
class Bootstrap:
    """How mAP varies from one drawn image set to the next.

    Attributes:
        mean_ap: of each drawn set; NaN where it has nothing to measure.
        interval: the bounds that hold `coverage` of them in the middle; NaN where there is none.
    """

    mean_ap: Float[np.ndarray, " rounds"]
    interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Whether detector `b` is better than detector `a` on images like these.

    Attributes:
        difference: mAP of `b` minus mAP of `a` on the image set as it is.
        differences: the same on each drawn set.
        interval: the bounds that hold `coverage` of them in the middle.
        share_better: share of the drawn sets on which `b` is better.
    """

    difference: float
    differences: Float[np.ndarray, " rounds"]
    interval: tuple[float, float]
    share_better: float


def bootstrap(
    detections: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    rounds: int = 1000,
    seed: int = 0,
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
    coverage: float = 0.95,
) -> Bootstrap:
    """mAP on image sets that are drawn, with replacement, from this one, each as large as it.

    An image that is drawn three times is three images with the same objects and detections, which stand together
    where scores are equal. What a detection finds does not depend on other images: it is decided once, and each drawn
    set only counts anew.

    Args:
        rounds: how many sets are drawn.
        seed: other seeds draw other sets; the same seed draws the same images for any detections.
        coverage: of the interval; its bounds are quantiles.
        detections, ground_truth, iou_threshold, method, classes: as in `metrics.evaluate_voc`.

    Raises:
        ValueError: no rounds, a coverage that is no share; or as `metrics.evaluate_voc`.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3 (the percentile interval).
    """
    _check(rounds, coverage, method, len(ground_truth))
    judged = judge(detections, ground_truth, iou_threshold, classes)
    draws = _draws(len(ground_truth), len(judged.objects.images), rounds, seed)
    mean_ap = np.concatenate([_mean_ap(judged, times, method) for times in draws])
    return Bootstrap(mean_ap, percentile_interval(mean_ap, coverage))


def compare(
    a: Mapping[str, ClassDetections] | Sequence[Detections],
    b: Mapping[str, ClassDetections] | Sequence[Detections],
    ground_truth: Sequence[Annotation | Target],
    rounds: int = 1000,
    seed: int = 0,
    iou_threshold: float = 0.5,
    method: str = "area",
    classes: Sequence[str] = VOC_CLASSES,
    coverage: float = 0.95,
) -> Comparison:
    """Is `b` better than `a`? Both are measured on the same drawn image sets: see `bootstrap`.

    An easy set is easy for both. Their difference therefore varies less than either mAP does, and tells more than two
    intervals side by side.

    Raises:
        ValueError: one has detections for a class and the other has not; or as `bootstrap`.
    """
    _check(rounds, coverage, method, len(ground_truth))
    judged = [judge(detections, ground_truth, iou_threshold, classes) for detections in (a, b)]
    if judged[0].handed_in != judged[1].handed_in:
        alone = set(judged[0].handed_in) ^ set(judged[1].handed_in)
        names = ", ".join(judged[0].classes[position] for position in sorted(alone))
        raise ValueError(f"only one of the two has detections for {names}: compare means of the same classes")
    once = np.ones((len(ground_truth), 1), np.float32)
    difference = float(_mean_ap(judged[1], once, method)[0] - _mean_ap(judged[0], once, method)[0])
    draws = _draws(len(ground_truth), len(judged[0].objects.images), rounds, seed)
    differences = np.concatenate(
        [_mean_ap(judged[1], times, method) - _mean_ap(judged[0], times, method) for times in draws]
    )
    return Comparison(
        difference, differences, percentile_interval(differences, coverage), float(np.mean(differences > 0))
    )


def _check(rounds: int, coverage: float, method: str, images: int) -> None:
    check_method(method)
    if not images:
        raise ValueError("there is no ground truth: give the images to draw from")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: draw one image set or more")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}: use a share between 0 and 1, as 0.95")


def _draws(images: int, objects: int, rounds: int, seed: int) -> Iterator[Float[np.ndarray, "images R"]]:
    """How many times each image is drawn in each round, some rounds at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, AT_ONCE // (images + objects))
    for start in range(0, rounds, at_once):
        count = min(at_once, rounds - start)
        drawn = generator.integers(0, images, (count, images)) * count + np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(images, count).astype(np.float32)


def _mean_ap(judged: Judged, times: Float[np.ndarray, "images R"], method: str) -> Float[np.ndarray, " R"]:
    """mAP where each image counts as many times as `times` says; NaN where there is nothing to measure."""
    counts = ~judged.objects.difficult
    outcome = judged.outcome(counts)
    total, measured = np.zeros(times.shape[1]), np.zeros(times.shape[1])
    for position in judged.handed_in:
        rows = judged.rows(position)
        positives = times[judged.objects.images[counts & (judged.objects.classes == position)]].sum(axis=0)
        ap = _weighted_ap(outcome[rows], judged.found.images[rows], times, np.maximum(positives, 1), method)
        total += np.where(positives > 0, ap, 0)
        measured += positives > 0
    return np.divide(total, measured, out=np.full_like(total, np.nan), where=measured > 0)


def _weighted_ap(
    outcome: Int[np.ndarray, " N"],
    images: Int[np.ndarray, " N"],
    times: Float[np.ndarray, "images R"],
    positives: Float[np.ndarray, " R"],
    method: str,
) -> Float[np.ndarray, " R"]:
    """AP of one class in each round, where each image counts as many times as `times` says.

    Only true positives add to recall, and between two of them precision falls: the curve is needed there alone.
    """
    images, outcome = images[outcome >= 0], outcome[outcome >= 0]
    right = np.flatnonzero(outcome == 1)
    if not len(right):
        return np.zeros(times.shape[1])
    counted = np.cumsum(_sums(times, images[: right[-1] + 1], np.append(0, right[:-1] + 1)), axis=0, dtype=np.float64)
    true = np.cumsum(times[images[right]], axis=0, dtype=np.float64)
    envelope = np.maximum.accumulate((true / np.maximum(counted, 1))[::-1], axis=0)[::-1]
    if method == "area":
        return (times[images[right]] * envelope).sum(axis=0) / positives
    best = np.concatenate([envelope, np.zeros((1, times.shape[1]))])
    recall = true / positives
    reached = [(recall < level).sum(axis=0, keepdims=True) for level in ELEVEN_RECALLS]
    return np.mean([np.take_along_axis(best, index, axis=0)[0] for index in reached], axis=0)


def _sums(
    times: Float[np.ndarray, "images R"], images: Int[np.ndarray, " N"], starts: Int[np.ndarray, " K"]
) -> Float[np.ndarray, "K R"]:
    """`times` summed over the images from each start to the next: a faster `np.add.reduceat(times[images], starts)`."""
    return F.embedding_bag(*map(torch.from_numpy, (images, times, starts)), mode="sum").numpy()


def percentile_interval(values: Float[np.ndarray, " rounds"], coverage: float = 0.95) -> tuple[float, float]:
    """The bounds that hold `coverage` of some values in the middle, those left out that are NaN; NaN of none."""
    measured = values[~np.isnan(values)]
    if not len(measured):
        return float("nan"), float("nan")
    low, high = np.quantile(measured, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)
