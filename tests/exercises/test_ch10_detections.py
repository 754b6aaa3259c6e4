"""The solutions of chapter 10 are what others compute: candidates and non-maximum suppression."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_boxes

from course_lib.check import EXERCISES
from course_lib.detect import candidates
from course_lib.nms import nms


@given(st.integers(0, 2**20), st.sampled_from([0.01, 0.2, 0.5]))
def test_the_solution_of_shortlist_is_what_detect_begins_with(seed, threshold):
    probabilities = (3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)
    prior, label, _ = candidates(probabilities.numpy(), threshold, count=100)
    assert np.array_equal(EXERCISES["shortlist"].solution(probabilities, threshold), np.stack([prior, label], axis=1))


@given(many_boxes(), st.integers(0, 2**20), st.sampled_from([0.3, 0.45]))
def test_the_solution_of_greedy_nms_is_the_librarys_nms(boxes, seed, threshold):
    scores = torch.rand(len(boxes), generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    found = EXERCISES["greedy_nms"].solution(torch.cat([boxes, scores[:, None]], dim=1), threshold)
    assert found == nms(boxes, scores, threshold).tolist()


@given(many_boxes(), st.integers(0, 2**20))
def test_the_solution_of_soft_nms_only_lowers_and_with_a_tiny_sigma_leaves_what_nms_at_0_keeps(boxes, seed):
    scores = (torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed)) + 1.0) / len(boxes)
    found = torch.cat([boxes, scores[:, None]], dim=1)
    soft = EXERCISES["soft_nms"].solution(found, 0.5)
    assert (soft <= scores).all() and soft.max() == scores.max() and (soft > 0).all()
    hard = EXERCISES["soft_nms"].solution(found, 1e-30)
    assert set(hard.nonzero().flatten().tolist()) == set(nms(boxes, scores, 0.0).tolist())
