import numpy as np
import plain_voc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.average_precision import METHODS, average_precision, check_method, curve_of

ranked_lists = st.lists(st.sampled_from([1, 0, 0, -1]), max_size=12)


def ap_of(outcome, objects, method):
    scores = np.linspace(1, 0, len(outcome))
    curve = curve_of(scores, np.array(outcome, np.int64), objects)
    return average_precision(curve.recall, curve.precision, method)


@settings(deadline=None, max_examples=200)
@given(ranked_lists, st.integers(0, 4), st.sampled_from(METHODS))
def test_ap_equals_the_plain_twin(outcome, never_found, method):
    objects = max(outcome.count(1) + never_found, 1)
    right = [one == 1 for one in outcome if one >= 0]
    assert ap_of(outcome, objects, method) == pytest.approx(
        plain_voc.average_precision(right, objects, method), abs=1e-12
    )


@settings(deadline=None, max_examples=200)
@given(ranked_lists, st.integers(0, 11), st.sampled_from(METHODS))
def test_a_false_detection_less_or_a_right_one_more_never_lowers_ap(outcome, where, method):
    objects = outcome.count(1) + 2
    before = ap_of(outcome, objects, method) - 1e-12
    assert ap_of([*outcome[:where], 1, *outcome[where:]], objects, method) >= before
    if where < len(outcome) and outcome[where] == 0:
        assert ap_of(outcome[:where] + outcome[where + 1 :], objects, method) >= before


def test_eleven_points_by_hand():
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 2 / 3])
    # Recalls 0, .1, .2 see precision 1; .3, .4, .5 see 2/3; the rest see nothing.
    assert average_precision(recall, precision, "11point") == pytest.approx((3 + 3 * 2 / 3) / 11)
    assert average_precision(recall, precision, "area") == pytest.approx(0.25 + 0.25 * 2 / 3)


@pytest.mark.parametrize("method", ["101point", "Area", ""])
def test_a_method_that_is_none_is_refused(method):
    for refused in (lambda: average_precision(np.zeros(0), np.zeros(0), method), lambda: check_method(method)):
        with pytest.raises(ValueError, match="'area' or '11point'"):
            refused()
