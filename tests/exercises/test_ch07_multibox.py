"""The solutions of chapter 7 are what others compute: the multibox loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.check import EXERCISES
from course_lib.losses import MultiBoxLoss
from course_lib.matching import Matches


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12))
def test_the_solution_of_smooth_l1_sum_is_pytorchs(differences):
    given = torch.tensor(differences)
    expected = torch.nn.functional.smooth_l1_loss(given, torch.zeros_like(given), reduction="sum").item()
    assert EXERCISES["smooth_l1_sum"].solution(given) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(st.integers(0, 2**20), st.sampled_from([0.0, 0.1, 0.6]), st.integers(1, 4))
def test_the_solutions_on_the_loss_together_are_the_multibox_loss(seed, share, ratio):
    generator = torch.Generator().manual_seed(seed)
    positives = torch.rand(3, 12, generator=generator) < share
    labels = torch.where(positives, torch.randint(1, 5, (3, 12), generator=generator), 0)
    logits, offsets = torch.randn(3, 12, 5, generator=generator), torch.zeros(3, 12, 4)
    cost = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none")
    mined = EXERCISES["hard_negatives"].solution(cost, positives, ratio)
    costs = (cost * (positives | mined)).sum(dim=1).tolist()
    found = EXERCISES["batch_loss"].solution(costs, positives.sum(dim=1).tolist())
    expected = MultiBoxLoss(ratio)(offsets, logits, Matches(labels, offsets, labels - 1))["conf"].item()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
