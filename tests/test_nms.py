import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import corner_boxes, many_boxes

from course_lib.boxes import box_iou
from course_lib.nms import FIRST_BLOCK, batched_nms, nms


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


def plain_nms(boxes, scores, labels, threshold):
    """Box by box, as the definition says: by falling score, of equal ones the earlier first."""
    kept = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index].item()):
        rivals = [k for k in kept if labels[k] == labels[index]]
        if not (box_iou(boxes[index][None], boxes[rivals]) > threshold).any():
            kept.append(index)
    return kept


@given(many_boxes(), st.integers(0, 2**20), st.integers(1, 5), st.sampled_from([0.0, 0.3, 0.45, 1.0]))
def test_ties_colliding_boxes_and_any_labels_come_out_as_the_definition_says(boxes, seed, levels, threshold):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (len(boxes),), generator=g) / levels - 0.5
    labels = torch.randint(-3, 3, (len(boxes),), generator=g)
    assert batched_nms(boxes, scores, labels, threshold).tolist() == plain_nms(boxes, scores, labels, threshold)
    same = torch.zeros_like(labels)
    assert nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, same, threshold)


@given(st.integers(0, 2**20), st.sampled_from([1, FIRST_BLOCK, FIRST_BLOCK + 1, 300]))
def test_empty_and_reversed_boxes_neither_suppress_nor_are_suppressed(seed, count):
    """Their IoU is 0 with all; torchvision says NaN of two empty ones, and keeps both as well."""
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=g).round(decimals=1)
    boxes = torch.cat([low, low + torch.rand(count, 2, generator=g).round(decimals=1) - 0.4], dim=1)
    scores = torch.randperm(count, generator=g) / count
    proper = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    kept = nms(boxes, scores, 0.45)
    assert set((~proper).nonzero().flatten().tolist()) <= set(kept.tolist())
    empty = boxes.clone()
    empty[~proper, 2:] = boxes[~proper, :2]  # reversed ones have no area there either
    assert kept.tolist() == torchvision.ops.nms(empty, scores, 0.45).tolist()


@pytest.mark.parametrize("count", [2000, pytest.param(8732, marks=pytest.mark.slow)])
@pytest.mark.parametrize("side", [0.02, 0.5])
def test_thousands_of_boxes_many_kept_or_few_equal_torchvisions(count, side):
    g = torch.Generator().manual_seed(count)
    low = torch.rand(count, 2, generator=g, dtype=torch.float64)
    boxes = torch.cat([low, low + side * (1 + torch.rand(count, 2, generator=g, dtype=torch.float64))], dim=1)
    scores = torch.randperm(count, generator=g) / count
    assert nms(boxes, scores.double(), 0.45).tolist() == torchvision.ops.nms(boxes, scores.double(), 0.45).tolist()
    labels = torch.randint(20, (count,), generator=g)
    of_class = [(labels == label).nonzero().flatten() for label in range(20)]
    expected = torch.cat([some[torchvision.ops.nms(boxes[some], scores[some].double(), 0.45)] for some in of_class])
    expected = expected[scores[expected].argsort(descending=True)].tolist()
    assert batched_nms(boxes, scores.double(), labels, 0.45).tolist() == expected


@given(scored_boxes(), st.integers(0, 2**20))
def test_the_order_of_boxes_and_the_names_of_classes_change_nothing(case, seed):
    boxes, scores, labels = case
    shuffled = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
    renamed = torch.tensor([0, 7, -2, 5])[labels]
    kept = shuffled[batched_nms(boxes[shuffled], scores[shuffled], renamed[shuffled], 0.45)]
    assert kept.tolist() == batched_nms(boxes, scores, labels, 0.45).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [300, 512, 1280, 4000])
def test_boxes_of_sixteen_bits_in_pixels_are_no_reason_to_keep_duplicates(dtype, size):
    """300 x 300 pixels are more than float16 can hold: areas were infinite, IoU NaN, and every duplicate stayed."""
    g = torch.Generator().manual_seed(size)
    low = torch.rand(200, 2, generator=g) * 0.5
    boxes = (size * torch.cat([low, low + 0.3 + 0.2 * torch.rand(200, 2, generator=g)], dim=1)).to(dtype)
    boxes, scores = torch.cat([boxes, boxes]), (torch.randperm(400, generator=g) / 400)
    kept = nms(boxes, scores.to(dtype), 0.45)
    assert kept.tolist() == nms(boxes.double(), scores.to(dtype).double(), 0.45).tolist()
    assert len(boxes[kept].unique(dim=0)) == len(kept) < 200
