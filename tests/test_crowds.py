import pytest
import torch
from families import slow_but
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import many_boxes, priors_cxcywh

from course_lib import crowds, matching
from course_lib.boxes import box_iou, to_corners
from course_lib.crowds import BLOCK, CROWD
from course_lib.matching import match
from course_lib.priors import SSD300, SSD_MINI


@st.composite
def batches(draw):
    """A few images of up to 40 objects, often equal ones, with padding and empty boxes in between."""
    images = draw(st.lists(many_boxes(), min_size=1, max_size=3))
    boxes = torch.zeros(len(images), max(map(len, images)) + draw(st.integers(0, 5)), 4)
    for row, some in enumerate(images):
        boxes[row, : len(some)] = some
        boxes[row, draw(st.integers(0, boxes.shape[1] - 1))] = 0
    return boxes


@settings(deadline=None)
@given(batches(), st.integers(1, 3 * BLOCK), st.integers(0, 2**20), st.sampled_from([0.5, 0.3, 2.0]))
def test_a_crowd_has_the_owners_that_few_objects_have(boxes, count, seed, threshold):
    """Also with more objects than priors."""
    corners = to_corners(priors_cxcywh(count, seed))
    assert torch.equal(crowds.owners(boxes, corners, threshold), matching.owners(boxes, corners, threshold))


@settings(deadline=None, max_examples=30)
@given(batches())
def test_a_crowd_has_the_owners_that_few_objects_have_on_a_grid_where_many_overlaps_are_equal(boxes):
    corners = to_corners(SSD_MINI.boxes())
    assert torch.equal(crowds.owners(boxes, corners, 0.5), matching.owners(boxes, corners, 0.5))


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
def test_a_crowd_just_too_large_for_rounds_over_all_pairs_is_matched_as_by_them(kind, monkeypatch):
    boxes, labels = LARGE_CROWDS[kind](CROWD + 1)[None], torch.ones(1, CROWD + 1, dtype=torch.int64)
    crowd = match(boxes, labels, SSD300.boxes())
    monkeypatch.setattr(crowds, "CROWD", CROWD + 1)
    rounds = match(boxes, labels, SSD300.boxes())
    assert all(torch.equal(a, b) for a, b in zip(crowd, rounds, strict=True))


@pytest.mark.parametrize("kind", slow_but(["random"], LARGE_CROWDS))
def test_two_thousand_objects_no_longer_take_minutes_and_no_pair_would_rather_have_each_other(kind):
    """The greedy pairs are the only ones that are stable: whoever lacks a prior, another needs it more."""
    boxes = LARGE_CROWDS[kind](2000)
    owners = match(boxes[None], torch.ones(1, 2000, dtype=torch.int64), SSD300.boxes(), 2.0).gt_index[0]
    iou = box_iou(boxes, to_corners(SSD300.boxes()))
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


@pytest.mark.parametrize("spec", [SSD300, SSD_MINI])
def test_the_most_objects_of_a_picture_are_those_that_a_gigabyte_matches(spec):
    count = len(spec.boxes())
    most = crowds.most_objects(count)
    assert most * count * 4 * crowds.COPIES <= crowds.ROOM < (most + 1) * count * 4 * crowds.COPIES
    assert 2000 < most < 40_000
