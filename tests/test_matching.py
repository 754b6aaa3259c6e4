import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import corner_boxes, priors_cxcywh

from course_lib.boxes import box_iou, decode, to_corners
from course_lib.matching import match
from course_lib.priors import SSD300, SSD_MINI


def plain_match(boxes, labels, priors, iou_threshold):
    """The original's rule for one image, one pair at a time (caffe, MatchBBox): a slow twin."""
    real = [g for g in range(len(labels)) if labels[g] > 0]
    corners = to_corners(priors)
    iou = torchvision.ops.box_iou(boxes, corners)
    owner = [-1] * len(priors)
    open_rows = set(real)
    while open_rows:
        value, g, p = max(
            ((iou[g, p].item(), g, p) for g in open_rows for p in range(len(priors)) if owner[p] < 0),
            key=lambda pair: pair[0],
            default=(0, -1, -1),
        )
        if value <= 0:
            break
        owner[p] = g
        open_rows.remove(g)
    for p in range(len(priors)):
        if owner[p] < 0 and real:
            best = max(real, key=lambda g: iou[g, p].item())
            if iou[best, p] >= iou_threshold:
                owner[p] = best
    return owner


def one(boxes, priors, labels=None):
    labels = torch.arange(1, len(boxes) + 1) if labels is None else labels
    return match(boxes[None], labels[None], priors)


@settings(deadline=None)
@given(corner_boxes(minimum=1, maximum=8, smallest=0.02), st.integers(1, 40), st.integers(0, 2**20))
def test_match_equals_the_plain_twin(boxes, count, seed):
    priors = priors_cxcywh(count, seed)
    found = one(boxes, priors).gt_index[0].tolist()
    expected = plain_match(boxes, torch.ones(len(boxes)), priors, 0.5)
    if found != expected:  # equal overlaps may be resolved either way
        iou = box_iou(boxes, to_corners(priors))
        value = [[iou[g, p].item() if g >= 0 else 0 for p, g in enumerate(owners)] for owners in (found, expected)]
        assert value[0] == pytest.approx(value[1], abs=1e-5) or len(iou.unique()) < iou.numel()


@settings(deadline=None)
@given(corner_boxes(minimum=1, maximum=12, smallest=0.02), st.integers(0, 2**20))
def test_every_ground_truth_that_overlaps_a_prior_gets_one_in_every_crowd(boxes, seed):
    priors = priors_cxcywh(60, seed)
    owners = one(boxes, priors).gt_index[0]
    overlaps = (box_iou(boxes, to_corners(priors)) > 0).sum(dim=1)
    for g in range(len(boxes)):
        if overlaps[g] >= len(boxes):  # then some prior is free for it whatever the others take
            assert (owners == g).any()


def test_identical_boxes_each_get_a_prior_of_their_own():
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6]] * 5)
    owners = one(boxes, SSD300.boxes()).gt_index[0]
    assert set(owners.unique().tolist()) == {-1, 0, 1, 2, 3, 4}


def test_boxes_smaller_than_any_prior_are_matched():
    boxes = torch.tensor([[0.5, 0.5, 0.504, 0.504]])
    matches = one(boxes, SSD_MINI.boxes())
    assert (matches.labels > 0).sum() == 1


def test_an_image_without_objects_and_padding_match_nothing():
    boxes, labels = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    boxes[1, 0], labels[1, 0] = torch.tensor([0.1, 0.1, 0.5, 0.5]), 7
    matches = match(boxes, labels, SSD_MINI.boxes())
    assert (matches.labels[0] == 0).all() and (matches.gt_index[0] == -1).all()
    assert set(matches.labels[1].tolist()) == {0, 7} and set(matches.gt_index[1].tolist()) == {-1, 0}
    assert matches.offsets.isfinite().all()


@given(corner_boxes(minimum=1, maximum=6, smallest=0.05), st.integers(1, 5))
@settings(deadline=None)
def test_padding_changes_nothing(boxes, padding):
    labels = torch.arange(1, len(boxes) + 1)
    padded = torch.cat([boxes, torch.zeros(padding, 4)]), torch.cat([labels, torch.zeros(padding).long()])
    priors = SSD_MINI.boxes()
    for a, b in zip(one(boxes, priors, labels), match(padded[0][None], padded[1][None], priors), strict=True):
        torch.testing.assert_close(a, b)


@given(corner_boxes(minimum=1, maximum=6, smallest=0.05))
@settings(deadline=None)
def test_matched_offsets_decode_to_the_ground_truth(boxes):
    priors = SSD_MINI.boxes()
    matches = one(boxes, priors)
    positives = matches.labels[0] > 0
    decoded = decode(matches.offsets[0], priors)[positives]
    torch.testing.assert_close(decoded, boxes[matches.gt_index[0][positives]], rtol=1e-3, atol=1e-4)


def test_matching_runs_where_the_host_may_not_wait_for_the_device():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        matches = match(torch.rand(2, 5, 4), torch.ones(2, 5, dtype=torch.int64), torch.rand(100, 4))
    assert matches.offsets.shape == (2, 100, 4)
