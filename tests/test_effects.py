"""Effects of paired runs, beside scipy where it is installed, and beside differences whose truth is known."""

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import effects

numbers = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=2, max_size=6)


@given(share=st.floats(0.001, 0.999), freedom=st.integers(1, 30))
def test_students_distribution_is_scipys(share, freedom):
    student = pytest.importorskip("scipy.stats").t
    t = effects.t_quantile(share, freedom)
    assert t == pytest.approx(student.ppf(share, freedom), rel=1e-7, abs=1e-9)
    assert effects.t_below(t, freedom) == pytest.approx(share, abs=1e-10)


def test_students_table():
    """The column for 95 % that stands in every textbook."""
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042}
    assert {freedom: round(effects.t_quantile(0.975, freedom), 3) for freedom in table} == table


@given(differences=numbers)
def test_an_interval_and_its_p_value_are_scipys(differences):
    stats = pytest.importorskip("scipy.stats")
    if np.std(differences) < 1e-6:
        return
    interval, p = effects.student(differences)
    found = stats.ttest_1samp(differences, 0)
    assert p == pytest.approx(found.pvalue, abs=1e-9)
    assert interval == pytest.approx(tuple(found.confidence_interval(0.95)), abs=1e-9)


@given(differences=numbers)
def test_an_interval_leaves_0_out_where_its_p_value_is_below_one_in_twenty(differences):
    effect = effects.paired(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    if abs(effect.p - 0.05) > 1e-9:
        assert effect.is_told_apart == (effect.p < 0.05)
    low, high = effect.interval
    assert low <= effect.mean + 1e-12 and effect.mean <= high + 1e-12
    assert effect.bootstrap[0] >= min(differences) - 1e-12 and effect.bootstrap[1] <= max(differences) + 1e-12


def test_only_seeds_that_both_have_are_compared():
    effect = effects.paired({0: 0.4, 1: 0.5, 7: 0.9}, {1: 0.2, 0: 0.3, 2: 0.0})
    assert effect.differences == pytest.approx((0.1, 0.3)) and effect.mean == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"seeds are \[0\] and \[1\]"):
        effects.paired({0: 0.4}, {1: 0.2})


def test_a_single_pair_has_no_interval():
    effect = effects.paired({3: 0.4}, {3: 0.1})
    assert all(map(isnan, (*effect.interval, effect.p, effect.half_width))) and not effect.is_told_apart


def test_an_effect_in_words():
    assert str(effects.paired({0: 0.4, 1: 0.5}, {0: 0.3, 1: 0.4})) == "+0.100 (+0.100 to +0.100)"
    assert str(effects.paired({0: 0.1, 1: 0.2, 2: 0.3}, dict.fromkeys(range(3), 0.4))) == "-0.200 (-0.448 to +0.048)"
    assert str(effects.paired({0: 0.4}, {0: 0.3})) == "+0.100 (a single pair)"


def test_runs_that_are_equal_have_no_effect():
    effect = effects.paired({0: 0.4, 1: 0.3}, {0: 0.4, 1: 0.3})
    assert (effect.mean, effect.interval, effect.p, effect.is_told_apart) == (0.0, (0.0, 0.0), 1.0, False)


def covered(count, interval_of, rounds=4000):
    """How often an interval for the mean of so many normal numbers holds the truth."""
    chance = np.random.default_rng(1)
    held = 0
    for sample in chance.normal(0.02, 0.015, (rounds, count)):
        low, high = interval_of(sample.tolist())
        held += low <= 0.02 <= high
    return held / rounds


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "bootstrap"), [(3, 0.68), (5, 0.84)])
def test_few_seeds_are_too_few_for_the_bootstrap(seeds, bootstrap):
    """The shares that the module's text gives; a standard error of 4000 rounds is 0.7 points."""
    assert covered(seeds, lambda sample: effects.student(sample)[0]) == pytest.approx(0.95, abs=0.012)
    assert covered(seeds, effects.resampled, 1000 if seeds == 5 else 4000) == pytest.approx(bootstrap, abs=0.04)


def test_all_draws_of_the_bootstrap_are_counted():
    """Of three numbers there are 27, and the extremes are one in 27 each."""
    assert effects.resampled([1.0, 2.0, 3.0], coverage=25 / 27) == pytest.approx((1.0 + 1 / 3, 3.0 - 1 / 3), abs=0.05)
    low, high = effects.resampled(list(np.linspace(-1, 1, 40)))
    assert low == pytest.approx(-0.18, abs=0.03) and high == pytest.approx(0.18, abs=0.03)  # 1.96 * 0.584 / sqrt(40)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_smallest_effect_is_told_apart_as_often_as_promised(seeds):
    stats = pytest.importorskip("scipy.stats")
    effect = effects.smallest_effect(1.0, seeds)
    shift, bound = effect * seeds**0.5, stats.t.ppf(0.975, seeds - 1)
    power = stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift)
    assert power == pytest.approx(0.8, abs=0.04)
    assert effects.smallest_effect(2.0, seeds) == pytest.approx(2 * effect)
    assert effects.smallest_effect(1.0, seeds + 1) < effect


@pytest.mark.parametrize("call", [lambda: effects.smallest_effect(1.0, 1), lambda: effects.t_quantile(1.0, 2)])
def test_what_cannot_be_told_is_refused(call):
    with pytest.raises(ValueError, match="is 1"):
        call()


@given(values=st.dictionaries(st.text(min_size=1), st.floats(0, 1), max_size=12))
def test_holm_is_between_bonferroni_and_no_correction(values):
    found = effects.surely(values)
    assert {name for name, p in values.items() if p <= 0.05 / max(1, len(values))} <= found
    assert found <= {name for name, p in values.items() if p <= 0.05}
    assert all(values[one] <= p for one in found for name, p in values.items() if name not in found)


def test_holm_by_hand():
    """Holm's own way: .01 <= .05 / 4, .02 > .05 / 3; and without the smallest in the way, both of two."""
    assert effects.surely({"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.9}) == {"a"}
    assert effects.surely({"a": 0.02, "b": 0.05}) == {"a", "b"}
    assert effects.surely({"a": float("nan")}) == set()
