"""Chapter 15: an effect with its interval, which of many effects are sure, and whether one will be seen.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist, fmean, median, pstdev, stdev

import numpy as np

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes

BySeed = Mapping[int, float]
Three = tuple[float, float, float]


def paired_effect(changed, usual, t):
    gains = [changed[seed] - usual[seed] for seed in changed if seed in usual]
    mean = sum(gains) / len(gains)
    spread = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1))
    reach = t * spread / math.sqrt(len(gains))
    return mean, mean - reach, mean + reach


def _by_seed(changed: BySeed, usual: BySeed) -> list[float]:
    return [changed[seed] - usual[seed] for seed in changed if seed in usual]


def _in_order(changed: BySeed, usual: BySeed) -> list[float]:
    """The first with the first, whatever their seeds are."""
    return [a - b for a, b in zip(changed.values(), usual.values(), strict=False)]


def _effect(
    gains: Callable[[BySeed, BySeed], list[float]] = _by_seed,
    middle: Callable[[Sequence[float]], float] = fmean,
    spread: Callable[[Sequence[float]], float] = stdev,
    root: Callable[[int], float] = math.sqrt,
    factor: Callable[[float], float] = lambda t: t,
    order: Callable[[float, float, float], Three] = lambda mean, low, high: (mean, low, high),
) -> Callable[[BySeed, BySeed, float], Three]:
    """Student's interval with one of its parts exchanged.

    Args:
        root: of the number of pairs, what the spread is divided by.
    """

    def twin(changed: BySeed, usual: BySeed, t: float) -> Three:
        found = gains(changed, usual)
        reach = factor(t) * spread(found) / root(len(found))
        return order(middle(found), middle(found) - reach, middle(found) + reach)

    return twin


def _unpaired(pool: Callable[[BySeed, BySeed], tuple[Sequence[float], Sequence[float]]]) -> Callable:
    """Two groups side by side: their spreads are added, as if they shared nothing."""

    def twin(changed: BySeed, usual: BySeed, t: float) -> Three:
        a, b = pool(changed, usual)
        mean = fmean(a) - fmean(b)
        reach = t * math.sqrt(stdev(a) ** 2 / len(a) + stdev(b) ** 2 / len(b))
        return mean, mean - reach, mean + reach

    return twin


def _shared(changed: BySeed, usual: BySeed) -> tuple[Sequence[float], Sequence[float]]:
    seeds = [seed for seed in changed if seed in usual]
    return [changed[seed] for seed in seeds], [usual[seed] for seed in seeds]


def _ends(changed: BySeed, usual: BySeed, t: float) -> Three:
    gains = _by_seed(changed, usual)
    return fmean(gains), min(gains), max(gains)


PAIRED_EFFECT = Exercise(
    solution=paired_effect,
    cases=[
        ({0: 0.32, 1: 0.27, 2: 0.31}, {0: 0.30, 1: 0.26, 2: 0.28}, 4.303),
        ({0: 0.20, 1: 0.31}, {0: 0.30, 1: 0.33}, 12.706),
        ({0: 0.41, 1: 0.38, 2: 0.47, 3: 0.36}, {3: 0.35, 2: 0.44, 1: 0.39, 0: 0.37}, 3.182),
        ({0: 0.31, 1: 0.27, 2: 0.35}, {0: 0.30, 1: 0.31, 2: 0.29, 3: 0.12, 4: 0.40}, 4.303),
        ({1: 0.5, 4: 0.41, 7: 0.9, 9: 0.47}, {9: 0.4, 2: 0.1, 4: 0.43, 1: 0.45}, 4.303),
    ],
    returns=("mean", "low", "high"),
    mistakes=mistakes(
        "turned round: You take the usual minus the changed. An effect is what the change adds.",
        _effect(lambda changed, usual: _by_seed(usual, changed)),
        "not paired: You add up the spread of both groups, as if they shared no luck. Take the difference seed by seed "
        "first, and the spread of those.",
        _unpaired(_shared),
        _unpaired(lambda changed, usual: (list(changed.values()), list(usual.values()))),
        "in order: You pair the first with the first. The seeds say which belong together.",
        _effect(_in_order),
        "all seeds: A seed that only one of the two has makes no pair: leave it out.",
        but(lambda changed, usual, t: not set(changed) <= set(usual), stop, paired_effect),
        but(lambda changed, usual, t: not set(usual) <= set(changed), stop, paired_effect),
        but(lambda changed, usual, t: set(changed) != set(usual), stop, paired_effect),
        _effect(lambda changed, usual: [changed.get(s, 0) - usual.get(s, 0) for s in {*changed, *usual}]),
        "spread of a whole: You divide the squares by n. Where the mean is guessed from the same numbers it is n - 1.",
        _effect(spread=pstdev),
        "not divided: That is how far single pairs lie apart. Their mean is surer, by the root of n.",
        _effect(root=lambda count: 1),
        "divided by n: The mean is surer by the root of n, not by n.",
        _effect(root=lambda count: count),
        "root of n - 1: That root belongs to the number of pairs itself. The one less is within the spread.",
        _effect(root=lambda count: math.sqrt(count - 1)),
        "1.96: The factor is `t`. With few pairs 1.96 is far too small.",
        _effect(factor=lambda t: 1.96),
        "no factor: That is one standard error on either side. Student's interval takes `t` of them.",
        _effect(factor=lambda t: 1),
        "half of it: You go half of the way on either side. It is `t` standard errors down, and as many up.",
        _effect(factor=lambda t: t / 2),
        "variance: You take the variance, a square. The spread is its root.",
        _effect(spread=lambda gains: stdev(gains) ** 2),
        "smallest and largest: You give the smallest and the largest gain. A mean has another interval, and with few "
        "pairs it is wider.",
        _ends,
        "median: The middle of the interval is the mean. You take the median.",
        _effect(middle=median),
        "ends exchanged: The lower end comes before the upper one.",
        _effect(order=lambda mean, low, high: (mean, high, low)),
        "percentage: You divide by the usual mAP. The difference itself is wanted.",
        _effect(lambda changed, usual: [changed[seed] / usual[seed] - 1 for seed in changed if seed in usual]),
    ),
)


def holm(p_values, error):
    kept = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        if p_values[place] > error / (len(p_values) - rank):
            break
        kept[place] = True
    return kept


def _stepped(
    bar: Callable[[float, int, int], float] = lambda error, count, rank: error / (count - rank),
    passes: Callable[[float, float], bool] = lambda p, limit: p <= limit,
    stops: bool = True,
    falling: bool = False,
    by_rank: bool = False,
) -> Callable[[Sequence[float], float], list[bool]]:
    """Holm's rule with one of its parts exchanged.

    Args:
        bar: from error, number of effects and rank (0 for the smallest p) to what p must not exceed.
        falling: begin with the largest p, and keep all from the first that passes on.
        by_rank: give the answers from the smallest p to the largest.
    """

    def twin(p_values: Sequence[float], error: float) -> list[bool]:
        count = len(p_values)
        order = sorted(range(count), key=lambda place: p_values[place])
        right = [passes(p_values[place], bar(error, count, rank)) for rank, place in enumerate(order)]
        if falling:
            last = max((rank for rank, one in enumerate(right) if one), default=-1)
            right = [rank <= last for rank in range(count)]
        elif stops:
            right = [all(right[: rank + 1]) for rank in range(count)]
        if by_rank:
            return right
        return [right[order.index(place)] for place in range(count)]

    return twin


def _in_given_order(p_values: Sequence[float], error: float) -> list[bool]:
    """As they come, without sorting."""
    kept, count = [], len(p_values)
    for rank, p in enumerate(p_values):
        kept.append(all(kept) and p <= error / (count - rank))
    return kept


HOLM = Exercise(
    solution=holm,
    cases=[
        ([0.01, 0.02, 0.04], 0.05),
        ([0.2, 0.001, 0.6], 0.05),
        ([0.02, 0.015, 0.03], 0.05),
        ([0.012, 0.01, 0.03, 0.9, 0.02], 0.05),
        ([0.03, 0.001, 0.02, 0.026, 0.8], 0.1),
        ([0.5, 0.025, 0.025], 0.05),
        ([0.004, 0.04, 0.0009, 0.011, 0.0101, 0.3, 0.012, 0.02], 0.05),
        ([0.05], 0.05),
        ([0.007, 0.04, 0.0085, 0.045, 0.9, 0.02], 0.05),
    ],
    mistakes=mistakes(
        "no correction: You compare each with the error itself. Of a hundred effects that are none, five pass that.",
        _stepped(bar=lambda error, count, rank: error),
        "Bonferroni: You hold all of them against the first bar. Once the smallest has passed, one question less is "
        "left, and the bar for the next is a little higher.",
        _stepped(bar=lambda error, count, rank: error / count),
        "not stopped: Behind the first one that fails you go on. There Holm's rule stops, and keeps none of the rest.",
        _stepped(stops=False),
        "from the largest: You begin at the largest p, and keep all from the first that passes. The smallest is first.",
        _stepped(falling=True),
        "false discoveries: That is the rule of Benjamini and Hochberg, which lets one in twenty of the kept be wrong. "
        "Holm's keeps the chance of any wrong one small.",
        _stepped(bar=lambda error, count, rank: error * (rank + 1) / count, falling=True),
        _stepped(bar=lambda error, count, rank: error * (rank + 1) / count),
        "one too few: The smallest has as many rivals as there are effects. Your bars begin one step too high.",
        _stepped(bar=lambda error, count, rank: error / max(count - rank - 1, 1)),
        "one too many: The last has the bar `error` itself. Your bars are one step too low.",
        _stepped(bar=lambda error, count, rank: error / (count - rank + 1)),
        "equal fails: A p that is equal to its bar passes.",
        _stepped(passes=lambda p, limit: p < limit),
        "sorted: Your answers are in the order of the p-values. The caller's order is wanted.",
        _stepped(by_rank=True),
        "not sorted: The bars belong to the ranks, the lowest to the smallest p. You take them as they come.",
        _in_given_order,
        "turned round: You say True where an effect is not sure.",
        lambda p_values, error: [not one for one in holm(p_values, error)],
    ),
)


def power(effect, spread, luck, t):
    differences = effect + spread * luck
    errors = differences.std(axis=1, ddof=1) / math.sqrt(differences.shape[1])
    return float(np.mean(np.abs(differences.mean(axis=1)) > t * errors))


Numbers = np.ndarray


def _seen(
    differences: Callable[[float, float, Numbers], Numbers] = lambda effect, spread, luck: effect + spread * luck,
    error: Callable[[Numbers], Numbers] = lambda rows: rows.std(axis=1, ddof=1) / math.sqrt(rows.shape[1]),
    factor: Callable[[float], float] = lambda t: t,
    leaves_out: Callable[[Numbers, Numbers, float], Numbers] = lambda mean, reach, effect: np.abs(mean) > reach,
    of: Callable[[Numbers], float] = np.mean,
) -> Callable[[float, float, Numbers, float], float]:
    """The share of experiments that tell an effect, with one of its parts exchanged.

    Args:
        error: of the mean of each row.
        leaves_out: from the means, half of each interval, and the effect.
    """

    def twin(effect: float, spread: float, luck: Numbers, t: float) -> float:
        rows = differences(effect, spread, luck)
        return float(of(leaves_out(rows.mean(axis=1), factor(t) * error(rows), effect)))

    return twin


def _by_normal(effect: float, spread: float, luck: Numbers, t: float) -> float:
    """By the formula for a known spread, without looking at the experiments."""
    shift = effect * math.sqrt(luck.shape[1]) / spread
    return NormalDist().cdf(shift - t) + NormalDist().cdf(-shift - t)


def _imagined(effect: float, spread: float, experiments: int, pairs: int, t: float, seed: int) -> tuple:
    return effect, spread, np.random.default_rng(seed).standard_normal((experiments, pairs)), t


POWER = Exercise(
    solution=power,
    cases=[
        (0.02, 0.01, np.array([[0.0, 0.1, -0.1], [-3.0, 0.0, 1.0], [0.2, 0.1, 0.4], [-2.0, -2.5, -1.0]]), 4.303),
        _imagined(0.03, 0.01, 40, 3, 4.303, 0),
        _imagined(-0.02, 0.015, 60, 5, 2.776, 1),
        _imagined(0.0, 0.5, 300, 2, 6.314, 2),
        _imagined(0.01, 0.02, 200, 10, 2.262, 3),
        _imagined(-0.4, 0.3, 100, 4, 3.182, 4),
    ],
    mistakes=mistakes(
        "one side: An interval that lies wholly below 0 leaves it out too.",
        _seen(leaves_out=lambda mean, reach, effect: mean > reach),
        "the other side: You count what is told to be worse. An interval above 0 leaves it out too.",
        _seen(leaves_out=lambda mean, reach, effect: mean < -reach),
        "turned round: You give the share that does not tell the effect from nothing.",
        _seen(leaves_out=lambda mean, reach, effect: np.abs(mean) <= reach),
        "coverage: You ask whether the interval holds the effect. Does it leave 0 out?",
        _seen(leaves_out=lambda mean, reach, effect: np.abs(mean - effect) <= reach),
        "counted: That is how many do. Their share is wanted.",
        _seen(of=np.sum),
        "spread of a whole: You divide the squares by n, as `std` does unless it is told. It is n - 1 here: `ddof=1`.",
        _seen(error=lambda rows: rows.std(axis=1) / math.sqrt(rows.shape[1])),
        "not divided: The error of a mean is the spread divided by the root of the pairs.",
        _seen(error=lambda rows: rows.std(axis=1, ddof=1)),
        "divided by n: The error of a mean falls with the root of the pairs.",
        _seen(error=lambda rows: rows.std(axis=1, ddof=1) / rows.shape[1]),
        "all together: Each experiment knows its own spread alone. You take one of all rows, or the true one.",
        _seen(error=lambda rows: np.full(len(rows), rows.std(ddof=1) / math.sqrt(rows.shape[1]))),
        lambda effect, spread, luck, t: _seen(error=lambda rows: np.full(len(rows), spread / math.sqrt(rows.shape[1])))(
            effect, spread, luck, t
        ),
        _by_normal,
        "across experiments: A row is an experiment: mean and spread go along it.",
        lambda effect, spread, luck, t: power(effect, spread, luck.T, t),
        "1.96: Take `t`. With 1.96 luck alone is told from nothing far too often.",
        _seen(factor=lambda t: 1.96),
        "no factor: That is one standard error. Student's interval takes `t` of them.",
        _seen(factor=lambda t: 1),
        "luck as it is: The luck of each pair is `spread` times the number in the array.",
        _seen(differences=lambda effect, spread, luck: effect + luck),
        "no effect: You leave the effect out: that is how often luck alone would be taken for one.",
        _seen(differences=lambda effect, spread, luck: spread * luck),
    ),
)

EXERCISES = {"paired_effect": PAIRED_EFFECT, "holm": HOLM, "power": POWER}
