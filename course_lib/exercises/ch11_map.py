"""Chapter 11: what becomes of a detection, average precision, and whether a difference is one.

The answers are in here. Try first.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def ap_at_levels(recall, precision, levels):
    total = 0.0
    for level in levels:
        reached = precision[recall >= level]
        if len(reached):
            total += reached.max()
    return total / len(levels)


Numbers = np.ndarray


def _unreached(recall: Numbers, precision: Numbers, levels: Numbers) -> bool:
    return bool(recall.max(initial=-1.0) < levels.max())


def _mean_over(
    at: Callable[[Numbers, Numbers, float], Numbers] = lambda recall, precision, level: precision[recall >= level],
    of: Callable[[Numbers], float] = np.max,
    divisor: Callable[[int, int], float] = lambda levels, reached: levels,
) -> Callable:
    """The precisions `at` each level, one number `of` them, and what the sum is divided by."""

    def twin(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
        rows = [row for row in (at(recall, precision, level) for level in levels) if len(row)]
        return sum(of(row) for row in rows) / divisor(len(levels), len(rows))

    return twin


def _area(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    """All of the area under the precision that was made to fall."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def _raw_area(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _straight(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    """Precision between two detections by a straight line."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.interp(levels, recall, best, right=0.0).mean())


def _straight_raw(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    return float(np.interp(levels, recall, precision, right=0.0).mean())


ELEVEN = np.linspace(0, 1, 11)

AP_AT_LEVELS = Exercise(
    solution=ap_at_levels,
    cases=[
        (np.array([0.5, 1.0]), np.array([1.0, 1.0]), np.array([0.0, 0.5, 1.0])),
        (np.array([0.5, 1.0]), np.array([1.0, 0.75]), np.array([0.0, 0.25, 0.5, 0.75, 1.0])),
        (np.array([0.0, 0.5, 0.5, 1.0]), np.array([0.0, 0.5, 1 / 3, 0.5]), np.array([0.0, 0.5, 1.0])),
        (
            np.array([0.25, 0.25, 0.5, 0.5, 0.75, 0.75]),
            np.array([1.0, 1 / 2, 2 / 3, 2 / 4, 3 / 5, 3 / 6]),
            np.array([0.0, 0.25, 0.5, 0.75]),
        ),
        (
            np.array([0.25, 0.25, 0.5, 0.5, 0.75, 0.75]),
            np.array([1.0, 1 / 2, 2 / 3, 2 / 4, 3 / 5, 3 / 6]),
            ELEVEN,
        ),
        (np.array([0.0, 0.35, 0.35, 0.35, 0.65]), np.array([0.0, 0.5, 1 / 3, 0.25, 0.4]), ELEVEN),
        (np.array([0.125, 0.25, 0.375]), np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.2, 0.4, 0.6])),
        (np.zeros(2), np.zeros(2), ELEVEN),
        (np.zeros(0), np.zeros(0), ELEVEN),
    ],
    mistakes=mistakes(
        "levels left out: You leave out the levels that no detection reaches. They count too, with 0: those objects "
        "were never found.",
        _mean_over(divisor=lambda levels, reached: max(reached, 1)),
        _mean_over(divisor=lambda levels, reached: reached),
        "nothing reaches: Some level is reached by no detection, and then there is nothing to take the best of.",
        but(_unreached, stop, ap_at_levels),
        "at the level: You take the precision where the level is first reached. A later detection may have a better "
        "one, and that counts.",
        _mean_over(of=lambda reached: reached[0]),
        "the last: You take the precision after the last detection. Which of those at the level or beyond it is best?",
        _mean_over(of=lambda reached: reached[-1]),
        "below the level: You look at recalls up to the level. Those at the level and beyond it are meant.",
        _mean_over(at=lambda recall, precision, level: precision[recall <= level]),
        _mean_over(at=lambda recall, precision, level: precision[recall < level]),
        "beyond the level: A recall that is exactly the level has reached it.",
        _mean_over(at=lambda recall, precision, level: precision[recall > level]),
        "the worst: You take the smallest precision from the level on. What is the best that you could have there?",
        _mean_over(of=np.min),
        "averaged: You average the precisions from a level on. Average over the levels, of the best at each.",
        _mean_over(of=np.mean),
        "best of all: You take the best precision of the whole curve at every level. From the level on, it says.",
        _mean_over(at=lambda recall, precision, level: precision),
        "not divided: This is the sum over the levels. The mean is wanted.",
        _mean_over(divisor=lambda levels, reached: 1),
        "always eleven: You divide by 11, and there need not be eleven levels.",
        _mean_over(divisor=lambda levels, reached: 11),
        "steps: You divide by the steps between the levels. There is one level more.",
        _mean_over(divisor=lambda levels, reached: max(levels - 1, 1)),
        "area: You compute an area, whatever the levels are. Here only the levels are looked at.",
        _area,
        _raw_area,
        "straight lines: You draw straight lines from one detection to the next. Between them precision is a step: the "
        "best from here on.",
        _straight,
        _straight_raw,
    ),
)


def outcomes(overlap, difficult, threshold):
    taken, found = set(), []
    for row in overlap.tolist():
        best = max(row, default=0.0)
        if best < threshold:
            found.append(0)
            continue
        one = row.index(best)
        if difficult[one]:
            found.append(-1)
        elif one in taken:
            found.append(0)
        else:
            found.append(1)
            taken.add(one)
    return found


def _judged(
    threshold: Callable[[float], float] = lambda threshold: threshold,
    reaches: Callable[[float, float], bool] = lambda best, threshold: best >= threshold,
    among: Callable[[int, set[int], Sequence[bool]], bool] = lambda one, taken, difficult: True,
    difficult_is: Callable[[bool], int] = lambda again: -1,
    again_is: int = 0,
    missed_is: int = 0,
    pick: Callable[[list[float], float], int] = lambda row, threshold: row.index(max(row)),
    taken_by_all: bool = False,
) -> Callable[[Tensor, Sequence[bool], float], list[int]]:
    """VOC's rule with one of its parts exchanged.

    Args:
        among: which objects a detection may belong to.
        difficult_is, again_is, missed_is: the outcome of one that finds a difficult object, of a duplicate, and of one
            that reaches nothing.
        pick: the object that a detection belongs to.
        taken_by_all: also a detection below the threshold takes its object.
    """

    def twin(overlap: Tensor, difficult: Sequence[bool], limit: float) -> list[int]:
        taken: set[int] = set()
        found, least = [], threshold(limit)
        for row in overlap.tolist():
            allowed = [value if among(one, taken, difficult) else -1.0 for one, value in enumerate(row)]
            one = pick(allowed, least) if allowed else -1
            if one < 0 or not reaches(allowed[one], least):
                found.append(missed_is)
                if taken_by_all and one >= 0:
                    taken.add(one)
            elif difficult[one]:
                found.append(difficult_is(one in taken))
                taken.add(one)
            else:
                found.append(again_is if one in taken else 1)
                taken.add(one)
        return found

    return twin


def _first_that_reaches(row: list[float], threshold: float) -> int:
    return next((one for one, value in enumerate(row) if value >= threshold), row.index(max(row)))


def _last_of_equals(row: list[float], threshold: float) -> int:
    return len(row) - 1 - row[::-1].index(max(row))


def _by_objects(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> list[int]:
    """Each object takes the detection that overlaps it most, whatever its score."""
    found = [0] * len(overlap)
    for row, overlaps in enumerate(overlap.tolist()):
        best = max(overlaps, default=0.0)
        if best >= threshold:
            one = overlaps.index(best)
            found[row] = -1 if difficult[one] else int(int(overlap[:, one].argmax()) == row)
    return found


def _no_object(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> bool:
    return overlap.shape[1] == 0


def _iou(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


OUTCOMES = Exercise(
    solution=outcomes,
    cases=[
        (_iou([0.8, 0.0], [0.0, 0.7]), [False, False], 0.5),
        (_iou([0.8, 0.1], [0.3, 0.1], [0.0, 0.6]), [False, False], 0.5),
        (_iou([0.6], [0.9], [0.7]), [False], 0.5),
        (_iou([0.7, 0.1], [0.1, 0.8], [0.6, 0.1], [0.2, 0.9]), [True, False], 0.5),
        (_iou([0.3, 0.1], [0.8, 0.2]), [False, False], 0.5),
        (_iou([0.9, 0.1], [0.7, 0.6], [0.1, 0.8]), [False, False], 0.5),
        (_iou([0.55, 0.8], [0.7, 0.1], [0.6, 0.9]), [False, False], 0.5),
        (_iou([0.55, 0.8], [0.75, 0.1], [0.9, 0.6]), [True, False], 0.5),
        (_iou([0.8, 0.55], [0.75, 0.6], [0.1, 0.3]), [True, False], 0.5),
        (_iou([0.5, 0.25], [0.25, 0.5]), [False, True], 0.5),
        (_iou([0.6, 0.2], [0.75, 0.1], [0.1, 0.8]), [False, False], 0.75),
        (_iou([0.3, 0.1], [0.45, 0.2], [0.1, 0.35]), [False, True], 0.3),
        (_iou([0.6, 0.6], [0.7, 0.2], [0.2, 0.7]), [False, False], 0.5),
        (torch.zeros(3, 0), [], 0.5),
    ],
    mistakes=mistakes(
        "duplicates: You call a second detection of the same object true. The first has found it, and any later one is "
        "false.",
        _judged(again_is=1),
        "duplicates not counted: A second detection of an object is false in VOC. Only one that finds a difficult "
        "object does not count.",
        _judged(again_is=-1),
        "difficult true: A detection that finds a difficult object is no success. It does not count.",
        _judged(difficult_is=lambda again: 0 if again else 1),
        _judged(difficult_is=lambda again: 1),
        "difficult false: You punish a detection for finding a difficult object. It counts neither way.",
        _judged(difficult_is=lambda again: 0),
        "difficult once: A second detection of a difficult object does not count either. Nobody can use such an "
        "object up.",
        _judged(difficult_is=lambda again: 0 if again else -1),
        "difficult passed over: You look for the best of the objects that are not difficult. A detection belongs to "
        "the object that it overlaps most, difficult or not.",
        _judged(among=lambda one, taken, difficult: not difficult[one]),
        "best free: You let a detection look for another object when its own is taken. COCO does; in VOC it belongs to "
        "the object that it overlaps most, and is a duplicate.",
        _judged(among=lambda one, taken, difficult: one not in taken or difficult[one]),
        _judged(among=lambda one, taken, difficult: one not in taken),
        "first that reaches: You take the first object that reaches the threshold. Which of them does the detection "
        "overlap most?",
        _judged(pick=_first_that_reaches),
        "taken too early: A detection below the threshold finds nothing, and so its object stays free for the next.",
        _judged(taken_by_all=True),
        "threshold not reached: An overlap of exactly the threshold is enough.",
        _judged(reaches=lambda best, threshold: best > threshold),
        "threshold fixed: Your threshold is one half, whatever is asked for.",
        _judged(threshold=lambda limit: 0.5),
        "any overlap: You do not look at the threshold. A detection that touches an object has not found it yet.",
        _judged(reaches=lambda best, threshold: best > 0),
        "nothing there: A detection that reaches no object is false. It is what precision is there to count.",
        _judged(missed_is=-1),
        "best box: You give each object to the detection that overlaps it most. The one with the highest score comes "
        "first, however loose its box.",
        _by_objects,
        "ties: Where a detection overlaps two objects equally, the first of them counts.",
        _judged(pick=_last_of_equals),
        "no object: Without an object there is nothing to overlap most, and every detection is false.",
        but(_no_object, stop, outcomes),
        but(_no_object, list, outcomes),
    ),
)


def paired_interval(a, b, draws):
    means = (b - a)[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return low, high


def _means(values: Numbers, draws: Numbers) -> Numbers:
    return values[draws].mean(axis=1)


def _interval(
    values: Callable[[Numbers, Numbers, Numbers], Numbers] = lambda a, b, draws: _means(b - a, draws),
    tails: tuple[float, float] = (0.025, 0.975),
) -> Callable:
    """Two quantiles of some values."""

    def twin(a: Numbers, b: Numbers, draws: Numbers) -> tuple[float, float]:
        low, high = np.quantile(values(a, b, draws), tails)
        return low, high

    return twin


def _apart(low: tuple[float, float], high: tuple[float, float]) -> Callable:
    """A quantile of B's means less one of A's, at both ends."""

    def twin(a: Numbers, b: Numbers, draws: Numbers) -> tuple[float, float]:
        each = [
            (np.quantile(_means(b, draws), of_b), np.quantile(_means(a, draws), of_a)) for of_b, of_a in (low, high)
        ]
        return each[0][0] - each[0][1], each[1][0] - each[1][1]

    return twin


def _around(
    middle: Callable[[Numbers, Numbers], float], spread: Callable[[Numbers, Numbers], float], times: float
) -> Callable:
    """Some spreads below and above the middle; both are of the differences and of their resampled means."""

    def twin(a: Numbers, b: Numbers, draws: Numbers) -> tuple[float, float]:
        both = b - a, _means(b - a, draws)
        return middle(*both) - times * spread(*both), middle(*both) + times * spread(*both)

    return twin


def _of_pictures(gains: Numbers, means: Numbers) -> float:
    return float(gains.mean())


def _of_draws(gains: Numbers, means: Numbers) -> float:
    return float(means.mean())


def _case(images: int, gain: float, noise: float, draws: int, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """A measure of some pictures by two detectors that find the same pictures hard."""
    rng = np.random.default_rng(seed)
    a = rng.random(images)
    return a, a + gain + noise * rng.standard_normal(images), rng.integers(0, images, (draws, images))


PAIRED_INTERVAL = Exercise(
    solution=paired_interval,
    cases=[
        (np.array([0.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0]), np.array([[0, 0, 0], [1, 1, 2], [0, 1, 2], [2, 2, 0]])),
        (
            np.array([0.2, 0.9, 0.4, 0.7]),
            np.array([0.3, 0.8, 0.6, 1.0]),
            np.array([[0, 1, 2, 3], [3, 3, 0, 1], [2, 2, 2, 1], [1, 0, 1, 0], [3, 2, 3, 2]]),
        ),
        _case(8, 0.1, 0.2, 40, 0),
        _case(20, -0.05, 0.05, 100, 1),
        _case(12, 0.0, 0.1, 60, 2),
    ],
    returns=("low", "high"),
    mistakes=mistakes(
        "turned round: Your interval says how much better A is than B. How much better B is was asked.",
        _interval(lambda a, b, draws: _means(a - b, draws)),
        "two intervals: You make an interval for each detector and compare their ends. Both see the same pictures: "
        "take the difference within each draw first, and then the quantiles.",
        _apart((0.025, 0.975), (0.975, 0.025)),
        _apart((0.025, 0.025), (0.975, 0.975)),
        "ninety percent: Between your ends lie 90 % of the draws. For 95 % leave 2.5 % outside on either side.",
        _interval(tails=(0.05, 0.95)),
        "one tail: You leave out twice what you should at one end, and nothing at the other.",
        _interval(tails=(0.0, 0.95)),
        _interval(tails=(0.05, 1.0)),
        "percent: Your quantiles are a hundredth of what was meant. Are they asked for in percent?",
        _interval(tails=(0.00025, 0.00975)),
        "quartiles: Half of the draws lie outside of your interval. One in twenty should.",
        _interval(tails=(0.25, 0.75)),
        "all of them: You give the smallest and the largest mean, and the more draws there are the wider that gets. "
        "Leave 2.5 % outside on either side.",
        _interval(tails=(0.0, 1.0)),
        "across draws: You average over the draws, picture by picture. Each row of `draws` is a test set: average "
        "within a row.",
        _interval(lambda a, b, draws: (b - a)[draws].mean(axis=0)),
        "pictures: You give the spread of single pictures. How sure is their mean?",
        _interval(lambda a, b, draws: b - a),
        _interval(lambda a, b, draws: (b - a)[draws].ravel()),
        "B alone: This is an interval for B. How much better is it than A?",
        _interval(lambda a, b, draws: _means(b, draws)),
        "A alone: This is an interval for A. How much better is B?",
        _interval(lambda a, b, draws: _means(a, draws)),
        "A not drawn: You draw B's pictures and compare with A on all of them. A has to see the same draw.",
        _interval(lambda a, b, draws: _means(b, draws) - a.mean()),
        "sums: You add the pictures of a draw up. Their mean is wanted.",
        _interval(lambda a, b, draws: (b - a)[draws].sum(axis=1)),
        "medians: You take the median of each draw. The mean is asked for.",
        _interval(lambda a, b, draws: np.median((b - a)[draws], axis=1)),
        "bell: You take 1.96 standard deviations on either side, as if the draws lay on a bell curve. Count them "
        "instead: 2.5 % lie below the lower end.",
        _around(_of_draws, lambda gains, means: means.std(), 1.96),
        _around(_of_pictures, lambda gains, means: means.std(), 1.96),
        _around(_of_draws, lambda gains, means: means.std(), 2),
        _around(_of_pictures, lambda gains, means: means.std(), 2),
        _around(_of_pictures, lambda gains, means: means.std(ddof=1), 1.96),
        "without draws: Your interval needs no draws: it is the formula for a mean. mAP has no such formula, so learn "
        "to do it by the draws.",
        _around(_of_pictures, lambda gains, means: gains.std() / len(gains) ** 0.5, 1.96),
        _around(_of_pictures, lambda gains, means: gains.std(ddof=1) / len(gains) ** 0.5, 1.96),
        "ends exchanged: The lower end comes first.",
        _interval(tails=(0.975, 0.025)),
        "percentage: You divide by A's value. The difference itself is wanted.",
        _interval(lambda a, b, draws: _means(b, draws) / _means(a, draws) - 1),
    ),
)

EXERCISES = {"ap_at_levels": AP_AT_LEVELS, "outcomes": OUTCOMES, "paired_interval": PAIRED_INTERVAL}
