"""The solutions of chapter 15 are what the library computes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import effects
from course_lib.check import EXERCISES

SCORES = st.dictionaries(st.integers(0, 6), st.integers(0, 1000).map(lambda one: one / 1000), min_size=2)


@given(SCORES, SCORES)
def test_an_effect_is_the_librarys(changed, usual):
    both = len(set(changed) & set(usual))
    if both < 2:
        return
    expected = effects.paired(changed, usual)
    found = EXERCISES["paired_effect"].solution(changed, usual, effects.t_quantile(0.975, both - 1))
    assert found == pytest.approx((expected.mean, *expected.interval), abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=9), st.floats(0.001, 0.2))
def test_what_is_sure_is_the_librarys(p_values, error):
    kept = EXERCISES["holm"].solution(p_values, error)
    named = effects.surely({str(place): p for place, p in enumerate(p_values)}, error)
    ties = len(set(p_values)) < len(p_values)  # which of two equal ones comes first is nobody's business
    assert sum(kept) == len(named)
    assert ties or {place for place, one in enumerate(kept) if one} == {int(name) for name in named}


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_smallest_effect_is_seen_four_times_in_five_and_nothing_once_in_twenty(seeds):
    luck, t = np.random.default_rng(0).standard_normal((20_000, seeds)), effects.t_quantile(0.975, seeds - 1)
    solution = EXERCISES["power"].solution
    assert solution(effects.smallest_effect(0.3, seeds), 0.3, luck, t) == pytest.approx(0.8, abs=0.05)
    assert solution(0.0, 0.3, luck, t) == pytest.approx(0.05, abs=0.01)
