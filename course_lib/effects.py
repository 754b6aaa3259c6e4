"""Effects: what a change is worth, from few pairs of runs that share a seed, and how sure that is.

Two runs of one seed start from the same weights and see the same images in the same order: their difference varies
less than either does. With three to five pairs the spread itself is hardly known, and Student's t is made for that. The
bootstrap over seeds stands beside it: drawn from three numbers it knows nothing beyond them, and its interval is far
too narrow. In `tests/test_effects.py` both meet differences whose truth is known: of the intervals that are to hold it
95 times in 100, those of the bootstrap hold it 68 times with three seeds and 84 times with five; Student's, 95 times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import atan, cos, inf, pi, sin, sqrt

import numpy as np

from course_lib.intervals import percentile_interval


@dataclass(frozen=True)
class Effect:
    """What a change is worth.

    Attributes:
        differences: with the change minus without it, one for each seed that both have.
        mean: of them.
        interval: Student's, NaN where there is a single pair.
        bootstrap: the percentile interval over seeds, for comparison.
        p: how often chance alone would give a mean so far from 0, where nothing is there; NaN with a single pair.
    """

    differences: tuple[float, ...]
    mean: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    p: float

    @property
    def half_width(self) -> float:
        """Of the interval."""
        return (self.interval[1] - self.interval[0]) / 2

    @property
    def is_told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def __str__(self) -> str:
        if len(self.differences) < 2:
            return f"{self.mean:+.3f} (a single pair)"
        low, high = self.interval
        return f"{self.mean:+.3f} ({low:+.3f} to {high:+.3f})"


def paired(changed: Mapping[int, float], usual: Mapping[int, float], coverage: float = 0.95) -> Effect:
    """The effect of a change, from measurements by seed.

    Args:
        changed, usual: with the change and without it.
        coverage: of both intervals.

    Raises:
        ValueError: no seed is in both.
    """
    seeds = sorted(set(changed) & set(usual))
    if not seeds:
        raise ValueError(f"seeds are {sorted(changed)} and {sorted(usual)}: measure both with the same")
    differences = tuple(changed[seed] - usual[seed] for seed in seeds)
    interval, p = student(differences, coverage)
    return Effect(differences, float(np.mean(differences)), interval, resampled(differences, coverage), p)


def student(differences: Sequence[float], coverage: float = 0.95) -> tuple[tuple[float, float], float]:
    """The interval for a mean, and its p-value against 0; NaN where there is a single number.

    Source: Student 1908, "The Probable Error of a Mean".
    """
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return (float("nan"), float("nan")), float("nan")
    error = float(np.std(differences, ddof=1)) / sqrt(count)
    reach = t_quantile((1 + coverage) / 2, count - 1) * error
    t = abs(mean) / error if error else (inf if mean else 0.0)
    return (mean - reach, mean + reach), 2 * (1 - t_below(t, count - 1))


def resampled(differences: Sequence[float], coverage: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the bootstrap: means of as many numbers, drawn from these with replacement.

    All draws that there are, while they are few; else ten thousand of them.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    values, count = np.asarray(differences, dtype=float), len(differences)
    if count <= 6:
        draws = np.array(list(product(range(count), repeat=count)))
    else:
        draws = np.random.default_rng(0).integers(0, count, (10_000, count))
    return percentile_interval(values[draws].mean(axis=1), coverage)


def t_below(t: float, freedom: int) -> float:
    """The share of Student's distribution below `t`.

    Args:
        freedom: degrees of freedom, one less than there are numbers.

    Source: Abramowitz and Stegun 1972, 26.7.3 and 26.7.4: a finite sum for whole degrees of freedom.
    """
    angle = atan(t / sqrt(freedom)) if abs(t) < inf else (pi / 2 if t > 0 else -pi / 2)
    term, total = 1.0, 0.0
    for k in range(1 + freedom % 2, freedom, 2):  # the sum's terms grow by cos^2 and a ratio of whole numbers
        total += term
        term *= cos(angle) ** 2 * k / (k + 1)
    inside = 2 / pi * (angle + sin(angle) * cos(angle) * total) if freedom % 2 else sin(angle) * total
    return (1 + inside) / 2


def t_quantile(share: float, freedom: int) -> float:
    """The number below which a share of Student's distribution lies, by halving an interval that holds it.

    Raises:
        ValueError: the share is not between 0 and 1, or there is no degree of freedom.
    """
    if not 0 < share < 1 or freedom < 1:
        raise ValueError(f"share is {share} and freedom {freedom}: use a share between 0 and 1, and at least 1")
    low, high = -1e4, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_below(middle, freedom) < share else (low, middle)
    return middle


def smallest_effect(spread: float, seeds: int, coverage: float = 0.95, power: float = 0.8) -> float:
    """The smallest effect that so many pairs of runs tell from nothing as often as `power` says.

    Args:
        spread: standard deviation of a pair's difference. Before anything is compared only the spread of the usual
            run from seed to seed is known: pairs that have nothing in common differ by sqrt(2) times that.
        seeds: pairs.
        coverage: of the interval that is to leave 0 out.
        power: how often it does.

    The textbook's sum of two quantiles: for three pairs some 5 % below the exact number, for five 2 %.

    Raises:
        ValueError: fewer than two pairs.
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: a single pair has no spread, take two or more")
    reach = t_quantile((1 + coverage) / 2, seeds - 1) + t_quantile(power, seeds - 1)
    return reach * spread / sqrt(seeds)


def surely(p_values: Mapping[str, float], error: float = 0.05) -> set[str]:
    """Which of many effects are there, where the chance that any of them is none is to be at most `error`.

    Of a hundred changes that do nothing, five have an interval at 95 % that leaves 0 out. Holm's step-down asks of the
    smallest p-value that it be below error / n, of the next one below error / (n - 1), and so on, and stops where one
    is not.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    found = set()
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        if not p_values[name] <= error / (len(p_values) - rank):
            break
        found.add(name)
    return found
