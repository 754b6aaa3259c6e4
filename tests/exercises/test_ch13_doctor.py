"""The solutions of chapter 13 are what the library computes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib import losses
from course_lib.boxes import to_cxcywh
from course_lib.check import EXERCISES
from course_lib.matching import Matches


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 40), st.integers(1, 4))
def test_the_solution_of_undecided_loss_is_what_multibox_loss_pays_for_equal_logits(
    classes, positives, negatives, ratio
):
    labels = torch.tensor([[1] * positives + [0] * negatives])
    zeros = torch.zeros(1, positives + negatives, 4)
    matches = Matches(labels, zeros, labels - 1)
    parts = losses.MultiBoxLoss(ratio)(zeros, torch.zeros(1, positives + negatives, classes + 1), matches)
    found = EXERCISES["undecided_loss"].solution(classes, positives, negatives, ratio)
    assert found == pytest.approx(parts["conf"].item(), rel=1e-4)  # float32, a sum of up to 46 terms


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=30), st.floats(0.1, 10))
def test_the_solution_of_loss_left_does_not_know_the_unit(curve, unit):
    ask = EXERCISES["loss_left"].solution
    window = len(curve) // 2
    assert ask([unit * one for one in curve], window) == pytest.approx(ask(curve, window))
    assert ask([*curve, math.nan, 1.0], 1) == math.inf


@given(st.integers(0, 2**20))
def test_the_solution_of_possible_forms_never_rules_out_the_form_that_boxes_have(seed):
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(5, 2, generator=generator) * 0.9 + 0.01
    low = torch.rand(5, 2, generator=generator) * (1 - sides)
    corners = torch.cat([low, low + sides], dim=1)
    ask = EXERCISES["possible_forms"].solution
    assert ask(corners)[0]
    assert ask(torch.cat([low, sides], dim=1))[1]
    assert ask(to_cxcywh(corners))[2]
