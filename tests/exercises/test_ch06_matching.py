"""The solutions of chapter 6 are what others compute: encoding and matching."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import corner_boxes

from course_lib import priors
from course_lib.boxes import box_iou, encode, to_corners
from course_lib.check import EXERCISES
from course_lib.matching import match


@settings(deadline=None)  # SSD's priors take a while on a busy machine
@given(corner_boxes(minimum=1, smallest=0.05), st.integers(0, 2000))
def test_the_solution_of_encode_box_is_what_the_library_does(boxes, index):
    prior = priors.SSD_MINI.boxes()[index]
    found = EXERCISES["encode_box"].solution(tuple(boxes[0].tolist()), tuple(prior.tolist()))
    torch.testing.assert_close(torch.tensor(found), encode(boxes[:1], prior[None])[0], atol=1e-3, rtol=1e-3)


@settings(deadline=None)
@given(corner_boxes(minimum=1, smallest=0.05))
def test_the_solution_of_greedy_is_what_match_gives_by_force(boxes):
    """With a threshold that nothing reaches, only the forced pairs are left."""
    some = priors.SSD_MINI.boxes()
    matches = match(boxes[None], torch.ones(1, len(boxes), dtype=torch.int64), some, iou_threshold=2.0)
    found = EXERCISES["greedy"].solution(box_iou(boxes, to_corners(some)))
    assert [(matches.gt_index[0] == one).nonzero()[:, 0].tolist() for one in range(len(boxes))] == [[p] for p in found]


@settings(deadline=None)
@given(corner_boxes(minimum=1, smallest=0.05), st.sampled_from([0.3, 0.5, 2.0]))
def test_the_solution_of_owners_is_what_match_gives(boxes, threshold):
    some = priors.SSD_MINI.boxes()
    matches = match(boxes[None], torch.ones(1, len(boxes), dtype=torch.int64), some, threshold)
    found = EXERCISES["owners"].solution(box_iou(boxes, to_corners(some)), threshold)
    assert torch.equal(matches.gt_index[0], found)
