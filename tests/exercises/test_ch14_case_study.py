"""The solutions of chapter 14 are what the library computes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.boxes import encode
from course_lib.check import EXERCISES
from course_lib.doctor.loss_and_map import rank_correlation

SIDES = st.floats(0.05, 200)


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0.02, 1), st.floats(0.02, 1))
def test_the_first_cost_is_smooth_l1_of_the_librarys_offsets(left, top, width, height, prior_width, prior_height):
    box, prior = (left, top, left + width, top + height), (0.1, 0.2, prior_width, prior_height)
    offsets = encode(torch.tensor([box]).double(), torch.tensor([prior]).double(), variances=(1.0, 1.0))
    expected = torch.nn.functional.smooth_l1_loss(offsets, torch.zeros_like(offsets), reduction="sum").item()
    assert EXERCISES["first_cost"].solution(box, prior) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=9), st.floats(0.02, 1), st.floats(0, 300))
def test_no_constant_is_cheaper_than_what_the_last_cost_assumes(centres, width, constant):
    found = EXERCISES["last_cost"].solution(centres, width)
    other = sum(abs(centre - constant) for centre in centres) / len(centres) / width
    assert found <= other + 1e-9 * (1 + other)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=9, unique=True), st.randoms(use_true_random=False))
def test_agreement_and_rank_correlation_have_the_same_ends(losses, random):
    falling = sorted(range(len(losses)), key=losses.__getitem__)
    maps = [0.0] * len(losses)
    for place, one in enumerate(falling):
        maps[one] = -float(place)
    assert EXERCISES["agreement"].solution(losses, maps) == 1.0
    assert rank_correlation(losses, maps) == pytest.approx(1)
    random.shuffle(maps)
    found = EXERCISES["agreement"].solution(losses, maps)
    reversed_ = EXERCISES["agreement"].solution([-one for one in losses], maps)
    assert found + reversed_ == pytest.approx(1)
