from itertools import pairwise

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import corner_boxes, many_boxes, priors_cxcywh

from course_lib import voc
from course_lib.boxes import box_iou, decode, to_corners
from course_lib.matching import match
from course_lib.priors import SSD300, SSD_MINI

# Whole numbers are equal. The logarithm of an offset may come from another routine where the batch is another, and
# its last digit differ; 1e-6 of an offset is a few of those.
SAME = {"rtol": 1e-6, "atol": 1e-6}


def plain_match(boxes, labels, priors, iou_threshold=0.5):
    """The original's rule for one image, one pair after the other (caffe, MatchBBox): a slow twin."""
    iou = torchvision.ops.box_iou(boxes, to_corners(priors))
    iou[labels == 0] = 0
    owner, free = [-1] * len(priors), iou.clone()
    while (free > 0).any():
        g, p = divmod(free.argmax().item(), len(priors))
        owner[p] = g
        free[g], free[:, p] = 0, 0
    for p in range(len(priors)):
        if owner[p] < 0 and iou[:, p].max() >= iou_threshold:
            owner[p] = iou[:, p].argmax().item()
    return owner


def one(boxes, priors, labels=None):
    labels = torch.arange(1, len(boxes) + 1) if labels is None else labels
    return match(boxes[None], labels[None], priors)


@settings(deadline=None)
@given(many_boxes(), st.integers(1, 90), st.integers(0, 2**20))
def test_match_equals_the_plain_twin(boxes, count, seed):
    priors = priors_cxcywh(count, seed)
    assert one(boxes, priors).gt_index[0].tolist() == plain_match(boxes, torch.ones(len(boxes)), priors)


@settings(deadline=None, max_examples=30)
@given(many_boxes())
def test_match_equals_the_plain_twin_on_a_grid_where_many_overlaps_are_equal(boxes):
    priors = SSD_MINI.boxes()
    assert one(boxes, priors).gt_index[0].tolist() == plain_match(boxes, torch.ones(len(boxes)), priors)


@settings(deadline=None)
@given(many_boxes(), st.integers(1, 90), st.integers(0, 2**20))
def test_a_ground_truth_goes_without_only_where_others_need_all_its_priors_more(boxes, count, seed):
    priors = priors_cxcywh(count, seed)
    owners = one(boxes, priors).gt_index[0]
    iou = box_iou(boxes, to_corners(priors))
    for g in range(len(boxes)):
        if not (owners == g).any():
            wanted = (iou[g] > 0).nonzero().squeeze(1)
            assert len(wanted) < len(boxes)
            assert (iou[owners[wanted], wanted] >= iou[g, wanted]).all()


def test_identical_boxes_each_get_a_prior_of_their_own():
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6]] * 40)
    owners = one(boxes, SSD300.boxes()).gt_index[0]
    assert set(owners.tolist()) == {-1, *range(40)}


def test_of_equal_overlaps_the_first_prior_and_the_first_ground_truth_win():
    """A box smaller than the priors overlaps all that contain it alike: far objects in a crowd."""
    boxes = torch.tensor([[0.501, 0.501, 0.504, 0.504]] * 3)
    iou = box_iou(boxes, to_corners(SSD300.boxes()))[0]
    first = (iou == iou.max()).nonzero().squeeze(1)[:3]
    matches = one(boxes, SSD300.boxes())
    assert len(first) == 3 and matches.gt_index[0, first].tolist() == [0, 1, 2]
    assert (matches.labels > 0).sum() == 3


def test_every_object_of_the_real_crowds_is_matched_as_the_plain_twin_does(voc_annotations):
    paths = [
        voc.annotation_path(voc_annotations, "2007", i) for i in voc.read_image_set(voc_annotations, "2007", "trainval")
    ]
    crowded = [a for a in map(voc.read_annotation, paths) if len(a.labels) >= 20]
    priors, slots = SSD300.boxes(), max(len(a.labels) for a in crowded)
    boxes, labels = torch.zeros(len(crowded), slots, 4), torch.zeros(len(crowded), slots, dtype=torch.int64)
    for row, a in enumerate(crowded):
        boxes[row, : len(a.labels)], labels[row, : len(a.labels)] = a.boxes, a.labels
    matches = match(boxes, labels, priors)
    for row, a in enumerate(crowded):
        owners = matches.gt_index[row].tolist()
        assert owners == plain_match(boxes[row], labels[row], priors)
        assert set(owners) == {-1, *range(len(a.labels))}


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


@given(corner_boxes(minimum=1, maximum=6, smallest=0.05), st.integers(1, 15))
@settings(deadline=None)
def test_padding_changes_nothing(boxes, padding):
    labels = torch.arange(1, len(boxes) + 1)
    padded = torch.cat([boxes, torch.zeros(padding, 4)]), torch.cat([labels, torch.zeros(padding).long()])
    priors = SSD_MINI.boxes()
    for a, b in zip(one(boxes, priors, labels), match(padded[0][None], padded[1][None], priors), strict=True):
        torch.testing.assert_close(a, b, **SAME)


@given(st.lists(corner_boxes(minimum=4, maximum=4, smallest=0.05), min_size=2, max_size=4))
@settings(deadline=None, max_examples=30)
def test_the_other_images_of_a_batch_change_nothing(images):
    priors, labels = SSD_MINI.boxes(), torch.arange(1, 5)
    together = match(torch.stack(images), labels.expand(len(images), -1), priors)
    for row, boxes in enumerate(images):
        for a, b in zip(together, one(boxes, priors, labels), strict=True):
            torch.testing.assert_close(a[row], b[0], **SAME)


@given(corner_boxes(minimum=1, maximum=6, smallest=0.05))
@settings(deadline=None)
def test_matched_offsets_decode_to_the_ground_truth(boxes):
    priors = SSD_MINI.boxes()
    matches = one(boxes, priors)
    positives = matches.labels[0] > 0
    decoded = decode(matches.offsets[0], priors)[positives]
    # Offsets of up to 50, right to 1e-7 of themselves, come back as fractions of the image.
    torch.testing.assert_close(decoded, boxes[matches.gt_index[0][positives]], rtol=1e-3, atol=1e-4)


@given(corner_boxes(minimum=1, maximum=6, smallest=0.05))
@settings(deadline=None)
def test_a_higher_threshold_leaves_a_subset_of_the_positives(boxes):
    priors = SSD_MINI.boxes()
    labels = torch.ones(1, len(boxes), dtype=torch.int64)
    levels = [match(boxes[None], labels, priors, threshold).labels > 0 for threshold in (0.3, 0.5, 0.9, 1.1)]
    assert all((more | ~fewer).all() for more, fewer in pairwise(levels))
    assert levels[-1].sum() == len(boxes)


@pytest.mark.parametrize("slots", [1, 5, 40])
def test_matching_runs_where_the_host_may_not_wait_for_the_device(slots):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        matches = match(torch.rand(2, slots, 4), torch.ones(2, slots, dtype=torch.int64), torch.rand(100, 4))
    assert matches.offsets.shape == (2, 100, 4)
