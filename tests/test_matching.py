from itertools import pairwise

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import corner_boxes, priors_cxcywh

from course_lib import matching, voc
from course_lib.boxes import box_iou, decode, to_corners
from course_lib.matching import BLOCK, CROWD, GROUP, LOW_BITS, match, overlaps, shortlist
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


@st.composite
def colliding_boxes(draw):
    """Up to 40 boxes, but only a few different ones, on a coarse grid: equal overlaps everywhere."""
    count = draw(st.integers(1, 4))
    grid = torch.from_numpy(draw(hnp.arrays("int64", (count, 4), elements=st.integers(0, 7)))).float() / 10
    few = torch.cat([grid[:, :2], grid[:, :2] + 0.1 + grid[:, 2:] / 4], dim=1)
    return few[draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=40))]


crowds = st.one_of(corner_boxes(minimum=1, maximum=40, smallest=0.02), colliding_boxes())


@settings(deadline=None)
@given(crowds, st.integers(1, 90), st.integers(0, 2**20))
def test_match_equals_the_plain_twin(boxes, count, seed):
    priors = priors_cxcywh(count, seed)
    assert one(boxes, priors).gt_index[0].tolist() == plain_match(boxes, torch.ones(len(boxes)), priors)


@settings(deadline=None, max_examples=30)
@given(crowds)
def test_match_equals_the_plain_twin_on_a_grid_where_many_overlaps_are_equal(boxes):
    priors = SSD_MINI.boxes()
    assert one(boxes, priors).gt_index[0].tolist() == plain_match(boxes, torch.ones(len(boxes)), priors)


@settings(deadline=None)
@given(crowds, st.integers(1, 90), st.integers(0, 2**20))
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


@settings(deadline=None)
@given(crowds, st.integers(0, 2**20))
def test_overlaps_are_those_of_box_iou(boxes, seed):
    corners = to_corners(priors_cxcywh(50, seed))
    twice = torch.stack([boxes, boxes.flip(0)])
    assert torch.equal(overlaps(twice, corners), box_iou(twice, corners.expand(2, -1, -1)))


def test_an_empty_or_a_reversed_box_overlaps_nothing_even_an_empty_prior():
    boxes = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.6, 0.2, 0.4, 0.7], [0.6, 0.7, 0.4, 0.2]])
    iou = overlaps(boxes[None], torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.9, 0.9]]))
    assert torch.equal(iou, torch.zeros(1, 3, 2)) and not iou.signbit().any()


@settings(deadline=None)
@given(st.integers(1, GROUP + 1), st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**20))
def test_the_shortlist_holds_the_best_priors_in_order_of_equal_ones_the_first(slots, blocks, levels, seed):
    g = torch.Generator().manual_seed(seed)
    iou = torch.randint(0, levels + 1, (2, slots, blocks * BLOCK), generator=g) / levels
    expected = iou.sort(dim=2, descending=True, stable=True).indices[..., :slots]
    assert torch.equal(shortlist(iou) & LOW_BITS, expected)


def test_boxes_smaller_than_any_prior_are_matched():
    boxes = torch.tensor([[0.5, 0.5, 0.504, 0.504]])
    matches = one(boxes, SSD_MINI.boxes())
    assert (matches.labels > 0).sum() == 1


@st.composite
def crowded_batches(draw):
    """A few images of up to 40 objects, often equal ones, with padding and empty boxes in between."""
    images = draw(st.lists(crowds, min_size=1, max_size=3))
    slots = max(map(len, images)) + draw(st.integers(0, 5))
    boxes, labels = torch.zeros(len(images), slots, 4), torch.zeros(len(images), slots, dtype=torch.int64)
    for row, some in enumerate(images):
        boxes[row, : len(some)], labels[row, : len(some)] = some, torch.arange(1, len(some) + 1)
        gap = draw(st.integers(0, slots - 1))
        boxes[row, gap], labels[row, gap] = 0, 0
    return boxes, labels


@settings(deadline=None, max_examples=50)
@given(crowded_batches(), st.integers(1, 90), st.integers(0, 2**20), st.sampled_from([0.5, 0.3, 2.0]))
def test_a_crowd_is_matched_as_few_objects_are(batch, count, seed, threshold):
    """Also with more objects than priors, and on a grid where many overlaps are equal."""
    boxes, labels = batch
    for priors in (priors_cxcywh(count, seed), SSD_MINI.boxes()):
        few = match(boxes, labels, priors, threshold)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matching, "CROWD", 0)
            crowd = match(boxes, labels, priors, threshold)
        assert all(torch.equal(a, b) for a, b in zip(few, crowd, strict=True))
        for row, owners in enumerate(crowd.gt_index.tolist()):
            assert owners == plain_match(boxes[row], labels[row], priors, threshold)


def random_crowd(count):
    g = torch.Generator().manual_seed(0)
    size = 0.05 + 0.6 * torch.rand(count, 2, generator=g) ** 2
    low = torch.rand(count, 2, generator=g) * (1 - size)
    return torch.cat([low, low + size], dim=1)


def nested_crowd(count):
    half = torch.linspace(0.5, 0.05, count)[:, None]
    return torch.cat([0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half], dim=1)


LARGE_CROWDS = {
    "random": random_crowd,
    "of one size": lambda count: torch.cat([random_crowd(count)[:, :2], random_crowd(count)[:, :2] + 0.1], dim=1),
    "nested": nested_crowd,
    "nested, the smallest first": lambda count: nested_crowd(count).flip(0),
    "identical": lambda count: torch.tensor([0.2, 0.2, 0.6, 0.6]).repeat(count, 1),
    "of whole images": lambda count: torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(count, 1),
    "smaller than any prior": lambda count: torch.tensor([0.501, 0.501, 0.504, 0.504]).repeat(count, 1),
    "of empty boxes": lambda count: torch.zeros(count, 4),
}


@pytest.mark.parametrize("kind", LARGE_CROWDS)
def test_a_crowd_just_too_large_for_rounds_is_matched_as_by_rounds(kind, monkeypatch):
    boxes = LARGE_CROWDS[kind](CROWD + 1)
    crowd = one(boxes, SSD300.boxes())
    monkeypatch.setattr(matching, "CROWD", len(boxes))
    assert all(torch.equal(a, b) for a, b in zip(crowd, one(boxes, SSD300.boxes()), strict=True))


@pytest.mark.parametrize("kind", LARGE_CROWDS)
def test_two_thousand_objects_no_longer_take_minutes_and_no_pair_would_rather_have_each_other(kind):
    """The greedy pairs are the only ones that are stable: whoever lacks a prior, another needs it more."""
    boxes = LARGE_CROWDS[kind](2000)
    owners = match(boxes[None], torch.ones(1, 2000, dtype=torch.int64), SSD300.boxes(), 2.0).gt_index[0]
    iou = overlaps(boxes[None], to_corners(SSD300.boxes()))[0]
    taken = (owners >= 0).nonzero().squeeze(1)
    assert len(owners[taken].unique()) == len(taken), "an object has two priors"
    of_prior, of_object = torch.zeros(len(owners)), torch.zeros(2000)
    of_prior[taken] = of_object[owners[taken]] = iou[owners[taken], taken]
    assert (of_prior[taken] > 0).all()
    assert not ((iou > of_prior) & (iou > of_object[:, None])).any()


def test_an_image_of_few_objects_beside_a_crowd_is_matched_as_alone():
    boxes, labels = torch.zeros(3, CROWD + 70, 4), torch.zeros(3, CROWD + 70, dtype=torch.int64)
    for row, count in enumerate((4, CROWD + 60)):
        boxes[row, :count], labels[row, :count] = random_crowd(count), torch.arange(1, count + 1)
    together = match(boxes, labels, SSD300.boxes())
    for row, count in enumerate((4, CROWD + 60, 1)):
        alone = match(boxes[row, None, :count], labels[row, None, :count], SSD300.boxes())
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together, alone, strict=True))
    assert set(together.gt_index[0].tolist()) == {-1, 0, 1, 2, 3} and (together.labels[2] == 0).all()


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


@pytest.mark.parametrize("slots", [1, 5, 40, CROWD])
def test_matching_runs_where_the_host_may_not_wait_for_the_device(slots):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        matches = match(torch.rand(2, slots, 4), torch.ones(2, slots, dtype=torch.int64), torch.rand(100, 4))
    assert matches.offsets.shape == (2, 100, 4)
