import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import corner_boxes

from course_lib.boxes import box_iou
from course_lib.nms import batched_nms, nms


@st.composite
def scored_boxes(draw):
    boxes = draw(corner_boxes(maximum=30, smallest=0.02))
    seed = draw(st.integers(0, 2**20))
    # Distinct scores: of equal ones torchvision may keep either.
    scores = (torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed)) + 1.0) / (len(boxes) + 1)
    return boxes, scores, torch.randint(1, 4, (len(boxes),), generator=torch.Generator().manual_seed(seed + 1))


@given(scored_boxes(), st.floats(0.05, 0.95))
@settings(deadline=None)
def test_nms_equals_torchvisions(case, threshold):
    boxes, scores, labels = case
    assume(((box_iou(boxes, boxes) - threshold).abs() > 1e-6).all())  # or rounding, which each does its way, decides
    assert nms(boxes, scores, threshold).tolist() == torchvision.ops.nms(boxes, scores, threshold).tolist()
    expected = torchvision.ops.batched_nms(boxes.double(), scores.double(), labels, threshold).tolist()
    assert batched_nms(boxes, scores, labels, threshold).tolist() == expected


@given(scored_boxes())
@settings(deadline=None)
def test_no_two_survivors_overlap_and_everything_dropped_overlaps_a_better_survivor(case):
    boxes, scores, _ = case
    kept = nms(boxes, scores, 0.45)
    overlaps = box_iou(boxes[kept], boxes[kept]) - torch.eye(len(kept))
    assert not (overlaps > 0.45).any()
    for index in set(range(len(boxes))) - set(kept.tolist()):
        better = kept[scores[kept] > scores[index]]
        assert (box_iou(boxes[index][None], boxes[better]) > 0.45).any()


def test_nothing_in_nothing_out():
    empty = torch.zeros(0, 4), torch.zeros(0)
    assert nms(*empty, 0.5).tolist() == []
    assert batched_nms(*empty, torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []


def test_of_equal_boxes_with_equal_scores_the_first_stays():
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]] * 3)
    assert nms(boxes, torch.full((3,), 0.7), 0.5).tolist() == [0]
