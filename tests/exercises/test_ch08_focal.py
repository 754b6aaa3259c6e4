"""The solutions of chapter 8 are what others compute: focal loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib import ssd
from course_lib.check import EXERCISES
from course_lib.losses import FocalLoss, expect_background, sigmoid_focal
from course_lib.matching import Matches


@given(st.floats(0.001, 0.999))
def test_the_solution_of_prior_bias_is_the_inverse_of_a_sigmoid(pi):
    bias = EXERCISES["prior_bias"].solution(pi)
    assert torch.tensor(bias, dtype=torch.float64).sigmoid().item() == pytest.approx(pi)


def test_the_solution_of_prior_bias_is_what_the_heads_start_with():
    model = ssd.ssd_mini()
    expect_background(model, pi=0.03)
    bias = EXERCISES["prior_bias"].solution(0.03)
    torch.testing.assert_close(
        model.conf_heads[0].bias.view(-1, 21)[:, 1:], torch.full((4, 20), bias), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("case", EXERCISES["initial_focal"].cases)
def test_the_solution_of_initial_focal_is_what_focal_loss_gives_at_the_start(case):
    count, classes, positives, pi, alpha, gamma = case
    labels = torch.zeros(1, count, dtype=torch.int64)
    labels[0, :positives] = 1
    logits = torch.full((1, count, classes + 1), EXERCISES["prior_bias"].solution(pi))
    offsets = torch.zeros(1, count, 4)
    loss = FocalLoss(alpha, gamma)(offsets, logits, Matches(labels, offsets, labels - 1))["conf"]
    assert EXERCISES["initial_focal"].solution(*case) == pytest.approx(loss.item(), rel=1e-4)


@given(st.floats(-100, 100), st.booleans(), st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_the_solution_of_focal_term_is_what_the_library_does(logit, wanted, alpha, gamma):
    row = torch.tensor([[0.0, logit]], dtype=torch.float64)
    expected = sigmoid_focal(row, torch.tensor([int(wanted)]), alpha, gamma).item()
    assert EXERCISES["focal_term"].solution(logit, wanted, alpha, gamma) == pytest.approx(expected, rel=1e-6, abs=1e-12)
