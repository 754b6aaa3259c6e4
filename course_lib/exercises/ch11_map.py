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


def _trapezoids(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    return float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum())


def _straight(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    """Precision between two detections by a straight line."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.interp(levels, recall, best, right=0.0).mean())


def _straight_raw(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    return float(np.interp(levels, recall, precision, right=0.0).mean())


def _filled_from_the_left(recall: Numbers, precision: Numbers, levels: Numbers) -> float:
    """At a level the best precision up to where it is first reached."""
    best = [precision[: int((recall >= level).argmax()) + 1].max() for level in levels if (recall >= level).any()]
    return float(sum(best)) / len(levels)


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
        # Small numbers: a tolerance is none where all of them lie within it.
        (np.array([2e-9, 4e-9, 6e-9]), np.array([1.0, 1 / 2, 2 / 3]), np.array([0.0, 4e-9, 8e-9])),
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
        "from the left: You fill the curve up from the left, so that precision never falls. What counts at a level is "
        "the best at it or later.",
        _filled_from_the_left,
        "the last: You take the precision after the last detection. Which of those at the level or beyond it is best?",
        _mean_over(of=lambda reached: reached[-1]),
        "below the level: You look at recalls up to the level. Those at the level and beyond it are meant.",
        _mean_over(at=lambda recall, precision, level: precision[recall <= level]),
        _mean_over(at=lambda recall, precision, level: precision[recall < level]),
        "almost at the level: You let a recall count that is almost the level, or a rounded one. Compare the numbers "
        "as they are: what lies below a level, however little, has not reached it.",
        _mean_over(at=lambda recall, precision, level: precision[recall >= level - 1e-6]),
        _mean_over(at=lambda recall, precision, level: precision[recall.round(6) >= level]),
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
        _trapezoids,
        "straight lines: You draw straight lines from one detection to the next. Between them precision is a step: the "
        "best from here on.",
        _straight,
        _straight_raw,
    ),
)


def coco_outcomes(overlap, difficult, threshold):
    taken, found = set(), []
    for row in overlap.tolist():
        reached = [one for one, value in enumerate(row) if value >= threshold]
        free = [one for one in reached if not difficult[one] and one not in taken]
        if free:
            taken.add(max(free, key=lambda one: row[one]))
            found.append(1)
        elif any(difficult[one] for one in reached):
            found.append(-1)
        else:
            found.append(0)
    return found


Overlaps = list[float]  # of one detection with each object
Objects = list[int]


def _best(row: Overlaps, some: Objects) -> int:
    return max(some, key=lambda one: row[one])


def _judged(
    threshold: Callable[[float], float] = lambda threshold: threshold,
    reaches: Callable[[float, float], bool] = lambda overlap, threshold: overlap >= threshold,
    use_up: bool = True,
    pick: Callable[[Overlaps, Objects], int] = _best,
    hard_is: Callable[[bool], int] = lambda again: -1,
    again_is: int = 0,
    missed_is: int = 0,
) -> Callable[[Tensor, Sequence[bool], float], list[int]]:
    """COCO's rule with one of its parts exchanged.

    Args:
        use_up: an object that is found is no longer free.
        pick: of the free objects that are reached, the one that is found.
        hard_is, again_is, missed_is: the outcome of a detection that reaches none of these but a difficult object, one
            that was found, or nothing.
    """

    def twin(overlap: Tensor, difficult: Sequence[bool], limit: float) -> list[int]:
        taken, met, found = set(), set(), []
        for row in overlap.tolist():
            reached = [one for one, value in enumerate(row) if reaches(value, threshold(limit))]
            free = [one for one in reached if not difficult[one] and one not in taken]
            hard = [one for one in reached if difficult[one]]
            if free:
                found.append(1)
                taken |= {pick(row, free)} if use_up else set()
            elif hard:
                found.append(hard_is(_best(row, hard) in met))
                met.add(_best(row, hard))
            else:
                found.append(again_is if reached else missed_is)
        return found

    return twin


def _nearest(
    among: Callable[[int, set[int], Sequence[bool]], bool] = lambda one, taken, difficult: True,
    outcome: Callable[[bool, bool], int] = lambda hard, again: -1 if hard else 0 if again else 1,
    takes_below: bool = False,
) -> Callable[[Tensor, Sequence[bool], float], list[int]]:
    """Each detection belongs to the object that it overlaps most `among` some, and is false where it does not reach it.

    Args:
        outcome: of one that reaches it; whether the object is difficult, and whether it was found before.
        takes_below: a detection that does not reach its object takes it all the same.
    """

    def twin(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> list[int]:
        taken, found = set(), []
        for row in overlap.tolist():
            some = [one for one in range(len(row)) if among(one, taken, difficult)]
            one = _best(row, some) if some else -1
            reaches = one >= 0 and row[one] >= threshold
            found.append(outcome(difficult[one], one in taken) if reaches else 0)
            taken |= {one} if reaches or takes_below else set()
        return found

    return twin


def _hard_first(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> list[int]:
    """A difficult object that is reached is seen to before the others are."""
    found, taken = [], set()
    for row in overlap.tolist():
        reached = [one for one, value in enumerate(row) if value >= threshold]
        free = [one for one in reached if one not in taken]
        if any(difficult[one] for one in reached):
            found.append(-1)
        else:
            found.append(int(bool(free)))
            taken |= {_best(row, free)} if free else set()
    return found


def _hard_is_one_more(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> list[int]:
    """A difficult object is found as any other is, once."""
    found = coco_outcomes(overlap, [False] * len(difficult), threshold)
    hard = overlap[:, [one for one, flag in enumerate(difficult) if flag]]
    left = (hard >= threshold).any(dim=1).tolist()
    return [-1 if outcome == 0 and reaches else outcome for outcome, reaches in zip(found, left, strict=True)]


def _best_box(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> list[int]:
    """Each object takes the detection that overlaps it most, whatever its score."""
    found = _judged(use_up=False)(overlap, difficult, threshold)
    winners = {int(overlap[:, one].argmax()) for one, hard in enumerate(difficult) if not hard}
    return [0 if outcome == 1 and row not in winners else outcome for row, outcome in enumerate(found)]


def _no_object(overlap: Tensor, difficult: Sequence[bool], threshold: float) -> bool:
    return overlap.shape[1] == 0


def _iou(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


COCO_OUTCOMES = Exercise(
    solution=coco_outcomes,
    cases=[
        (_iou([0.8, 0.0], [0.0, 0.7]), [False, False], 0.5),
        (_iou([0.8, 0.1], [0.3, 0.1], [0.0, 0.6]), [False, False], 0.5),
        (_iou([0.6], [0.9], [0.7]), [False], 0.5),
        (_iou([0.9, 0.1], [0.8, 0.6], [0.1, 0.7]), [False, False], 0.5),
        (_iou([0.55, 0.8], [0.6, 0.1], [0.1, 0.9]), [False, False], 0.5),
        (_iou([0.55, 0.8], [0.1, 0.9]), [False, False], 0.5),
        (_iou([0.8, 0.55], [0.1, 0.6]), [False, False], 0.5),
        (_iou([0.7, 0.1], [0.1, 0.8], [0.6, 0.1], [0.2, 0.9]), [True, False], 0.5),
        (_iou([0.6, 0.8], [0.7, 0.75]), [True, False], 0.5),
        (_iou([0.8, 0.6], [0.75, 0.65], [0.9, 0.7], [0.3, 0.2]), [True, False], 0.5),
        (_iou([0.3, 0.1], [0.8, 0.2]), [False, False], 0.5),
        (_iou([0.5, 0.25], [0.25, 0.5]), [False, True], 0.5),
        (_iou([0.6, 0.2], [0.75, 0.1], [0.1, 0.8]), [False, False], 0.75),
        (_iou([0.35, 0.1], [0.45, 0.2], [0.1, 0.4], [0.2, 0.1]), [False, True], 0.3),
        (_iou([0.9, 0.6, 0.55], [0.6, 0.9, 0.55], [0.8, 0.7, 0.6]), [False, False, False], 0.5),
        (torch.zeros(3, 0), [], 0.5),
    ],
    mistakes=mistakes(
        "VOC's rule: This is VOC's rule: a detection belongs to the object that it overlaps most, taken or not. In "
        "COCO it may look for another one that is free.",
        _nearest(),
        "duplicates: You call a second detection of the same object true. The first has found it, so it is not free "
        "any more.",
        _judged(use_up=False),
        "duplicates not counted: A second detection of an object is false, here as in VOC. Only one that is left with "
        "a difficult object does not count.",
        _judged(again_is=-1),
        "difficult true: A detection that finds a difficult object is no success. It does not count.",
        _judged(hard_is=lambda again: 1),
        _judged(hard_is=lambda again: 0 if again else 1),
        _hard_is_one_more,
        _nearest(lambda one, taken, difficult: one not in taken, lambda hard, again: 1),
        "difficult false: You punish a detection for finding a difficult object. It counts neither way.",
        _judged(hard_is=lambda again: 0),
        "difficult once: A second detection of a difficult object does not count either. Nobody can use such an "
        "object up.",
        _judged(hard_is=lambda again: 0 if again else -1),
        _nearest(lambda one, taken, difficult: one not in taken),
        "difficult by overlap: You let a difficult object win where the overlap with it is larger. It is asked last: "
        "only where no free object is reached.",
        _nearest(lambda one, taken, difficult: difficult[one] or one not in taken),
        "difficult first: You look for a difficult object before you look for a free one. Go the other way.",
        _hard_first,
        "first that reaches: You take the first free object that reaches the threshold. Which of them does the "
        "detection overlap most?",
        _judged(pick=lambda row, some: some[0]),
        "the last: You take the last free object that reaches the threshold. Which of them does the detection overlap "
        "most?",
        _judged(pick=lambda row, some: some[-1]),
        "taken too early: A detection below the threshold finds nothing, and so its object stays free for the next.",
        _nearest(lambda one, taken, difficult: difficult[one] or one not in taken, takes_below=True),
        "threshold not reached: An overlap of exactly the threshold is enough.",
        _judged(reaches=lambda overlap, threshold: overlap > threshold),
        "threshold fixed: Your threshold is one half, whatever is asked for.",
        _judged(threshold=lambda limit: 0.5),
        "any overlap: You do not look at the threshold. A detection that touches an object has not found it yet.",
        _judged(reaches=lambda overlap, threshold: overlap > 0),
        "nothing there: A detection that reaches no object is false. It is what precision is there to count.",
        _judged(missed_is=-1),
        "best box: You give each object to the detection that overlaps it most. The one with the highest score comes "
        "first, however loose its box.",
        _best_box,
        "no object: Without an object there is nothing to reach, and every detection is false.",
        but(_no_object, stop, coco_outcomes),
        but(_no_object, list, coco_outcomes),
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
    """A measure of some pictures by two detectors that find the same pictures hard.

    With 40 draws, or a multiple, and one more both quantiles are draws, however one counts.
    """
    rng = np.random.default_rng(seed)
    a = rng.random(images)
    return a, a + gain + noise * rng.standard_normal(images), rng.integers(0, images, (draws, images))


PAIRED_INTERVAL = Exercise(
    solution=paired_interval,
    cases=[
        _case(2, 0.3, 0.4, 41, 3),
        _case(4, -0.1, 0.3, 41, 4),
        _case(8, 0.1, 0.2, 81, 0),
        _case(20, -0.05, 0.05, 121, 1),
        _case(12, 0.0, 0.1, 201, 2),
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

EXERCISES = {"ap_at_levels": AP_AT_LEVELS, "coco_outcomes": COCO_OUTCOMES, "paired_interval": PAIRED_INTERVAL}
