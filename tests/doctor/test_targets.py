from functools import partial

import pytest
import torch
from small_patient import seen_in, small_setup

from course_lib import augment, ssd
from course_lib.boxes import area, box_iou, encode, to_corners, to_cxcywh
from course_lib.doctor.prior_boxes import levels
from course_lib.doctor.setups import fresh
from course_lib.doctor.targets import CHECKS
from course_lib.matching import Matches, match

NAMES = [one.name for one in CHECKS]


@pytest.fixture(scope="module")
def setup(small_devkit):
    return small_setup(small_devkit)


@pytest.fixture
def found(setup, monkeypatch):
    """What is found where the setup's matching is another."""

    def look(matching, **changes):
        for name, value in ({"match": matching} | changes).items():
            monkeypatch.setattr(setup, name, value)
        return seen_in(setup.patient(), *NAMES)

    return look


def usual(boxes, labels, priors):
    return match(boxes, labels, priors, 0.4)


def objects(told, boxes):
    """The box of each positive prior's object."""
    return boxes[torch.arange(len(boxes))[:, None], told.gt_index.clamp(min=0)]


def changed(change):
    """The usual matching, of which `change` makes other matches of itself, the objects' boxes and the priors."""

    def matching(boxes, labels, priors):
        told = usual(boxes, labels, priors)
        positive = (told.labels > 0)[..., None]
        return change(told, torch.where(positive, objects(told, boxes), to_corners(priors)), priors)

    return matching


def of_owners(owner, boxes, labels, priors):
    """Matches of the slot that each prior belongs to."""
    image = torch.arange(len(boxes))[:, None]
    told = labels[image, owner.clamp(min=0)].masked_fill(owner < 0, 0)
    of = torch.where((told > 0)[..., None], boxes[image, owner.clamp(min=0)], to_corners(priors))
    return Matches(told, encode(of, priors), owner)


def threshold_alone(boxes, labels, priors):
    overlap, owner = box_iou(boxes, to_corners(priors)).max(dim=1)
    return of_owners(owner.masked_fill(overlap < 0.5, -1), boxes, labels, priors)


def last_wins(boxes, labels, priors):
    iou = box_iou(boxes, to_corners(priors))
    overlap, owner = iou.max(dim=1)
    owner = owner.masked_fill(overlap < 0.5, -1)
    for image in range(len(boxes)):
        for slot in labels[image].nonzero().flatten():
            owner[image, iou[image, slot].argmax()] = slot
    return of_owners(owner, boxes, labels, priors)


def overlap_of_centre_size(boxes, labels, priors):
    overlap, owner = box_iou(boxes, priors).max(dim=1)
    return of_owners(owner.masked_fill(overlap < 0.3, -1), boxes, labels, priors)


def the_first_prior(boxes, labels, priors):
    """What an argmax over overlaps that are all 0 gives."""
    owner = torch.full((len(boxes), len(priors)), -1)
    owner[:, 0] = (labels > 0).sum(dim=1) - 1
    return of_owners(owner, boxes, labels, priors)


def best_of_each(count):
    """Every object is given so many of its best priors, whatever their overlap."""

    def matching(boxes, labels, priors):
        iou = box_iou(boxes, to_corners(priors)).masked_fill((labels == 0)[..., None], -1)
        chosen = torch.zeros_like(iou).scatter(2, iou.topk(count, dim=2).indices, 1.0) > 0
        best, owner = iou.masked_fill(~chosen, -1).max(dim=1)
        return of_owners(owner.masked_fill(best < 0, -1), boxes, labels, priors)

    return matching


def adaptive(boxes, labels, priors):
    """ATSS: of the priors nearest on each level those that overlap more than their mean and deviation."""
    iou = box_iou(boxes, to_corners(priors)).masked_fill((labels == 0)[..., None], -1)
    distance = torch.cdist((boxes[..., :2] + boxes[..., 2:]) / 2, priors[:, :2])
    near = [part.start + distance[..., part].topk(9, largest=False).indices for part in levels(priors)[:-1]]
    near = torch.cat([*near, torch.arange(len(priors))[levels(priors)[-1]].expand(*iou.shape[:2], -1)], dim=2)
    overlap = iou.gather(2, near)
    enough = overlap >= (overlap.mean(dim=2) + overlap.std(dim=2))[..., None]
    chosen = torch.zeros_like(iou).scatter(2, near, enough.float()) > 0
    best, owner = iou.masked_fill(~chosen, -1).max(dim=1)
    return of_owners(owner.masked_fill(best <= 0, -1), boxes, labels, priors)


@pytest.mark.parametrize(
    "matching", [best_of_each(count) for count in (3, 5, 9, 13)] + [adaptive], ids=["3", "5", "9", "13", "atss"]
)
def test_matchings_by_rank_are_healthy(found, matching):
    assert not [one for one in found(matching) if one.severity != "note"]


def test_matchings_by_rank_are_healthy_on_larger_maps(found, setup):
    model = fresh(ssd.ssd_mini, setup.classes)
    other = {"priors": model.priors, "transform": augment.training_mini(model.image_size)}
    for matching in (best_of_each(9), adaptive):
        assert not [one for one in found(matching, **other) if one.severity != "note"]


def the_worst_of_many(boxes, labels, priors):
    """Ranks from the wrong end, of the priors that overlap at all."""
    iou = box_iou(boxes, to_corners(priors))
    iou = torch.where((iou > 0) & (labels > 0)[..., None], 1 - iou, -1)
    chosen = torch.zeros_like(iou).scatter(2, iou.topk(9, dim=2).indices, 1.0) > 0
    best, owner = iou.masked_fill(~chosen, -1).max(dim=1)
    return of_owners(owner.masked_fill(best < 0, -1), boxes, labels, priors)


def in_another_order(order, given=False):
    """The usual matching of boxes that are put in another order, their labels not; `given`: the other way round."""

    def matching(boxes, labels, priors):
        slots = order(boxes, labels)
        if given:
            return usual(boxes, labels.gather(1, slots), priors)
        return usual(boxes.gather(1, slots[..., None].expand_as(boxes)), labels, priors)

    return matching


def by_size(boxes, labels):
    return area(boxes).argsort(dim=1, descending=True)


def by_place(boxes, labels):
    return torch.where(labels > 0, boxes[..., 0], 9).argsort(dim=1)


def by_label(boxes, labels):
    return labels.argsort(dim=1, descending=True, stable=True)


def next_object(boxes, labels):
    """Each object's label is its neighbour's; padding stays."""
    slot, count = torch.arange(labels.shape[1]), (labels > 0).sum(dim=1, keepdim=True)
    return torch.where(slot < count, (slot + 1) % count.clamp(min=1), slot)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("order", [by_size, by_place, by_label, next_object])
def test_labels_in_another_order_than_boxes_are_named_first_and_alone(found, order, given):
    faults = [one for one in found(in_another_order(order, given)) if one.severity != "note"]
    assert "label of one object and the offsets of another" in faults[0].seen
    assert len(faults) == 1


def test_boxes_and_labels_in_another_order_are_healthy(found):
    def sorted_together(boxes, labels, priors):
        slots = by_size(boxes, labels)
        told = usual(boxes.gather(1, slots[..., None].expand_as(boxes)), labels.gather(1, slots), priors)
        return told._replace(gt_index=slots.gather(1, told.gt_index.clamp(min=0)).masked_fill(told.gt_index < 0, -1))

    assert not [one for one in found(sorted_together) if one.severity != "note"]


@pytest.mark.parametrize("threshold", [0.3, 0.35, 0.5, 0.6])
def test_usual_matchings_are_healthy(found, threshold):
    assert not [one for one in found(partial(match, iou_threshold=threshold)) if one.severity != "note"]


def test_an_index_for_every_prior_is_healthy(found):
    """Some matchings keep the nearest object of a prior on background too."""
    assert not [
        one
        for one in found(changed(lambda told, of, own: told._replace(gt_index=told.gt_index.clamp(min=0))))
        if one.severity != "note"
    ]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_other_variances_are_named_and_are_a_fault_where_boxes_are_decoded_by_the_usual(found, factor):
    variances = 0.1 * factor, 0.2 * factor
    only = changed(lambda told, of, own: told._replace(offsets=encode(of, own, variances)))
    finding = found(only)[0]
    assert "the variances are others" in finding.seen and finding.severity == "fault"
    assert found(only, further={"detect": lambda batch: []})[0].severity == "warning"


@pytest.mark.parametrize(
    ("matching", "severity", "words"),
    [
        (lambda b, n, p: usual(b * 96, n, p), "fault", "no prior of 24 images is positive"),
        (partial(match, iou_threshold=0.05), "fault", "overlap their object by less than 0.2"),
        (partial(match, iou_threshold=0.95), "warning", "priors are positive for each object"),
        (the_worst_of_many, "fault", "overlap their object by less than 0.2"),
        (threshold_alone, "warning", "objects have no prior at all"),
        (last_wins, "note", "with the same best prior one gets none"),
        (overlap_of_centre_size, "fault", "centres and sizes read as corners"),
        (the_first_prior, "fault", "objects have no prior at all"),
        (changed(lambda told, of, own: told._replace(labels=(told.labels - 1).clamp(min=0))), "fault", "by -1"),
        (changed(lambda told, of, own: told._replace(labels=told.labels + 1)), "fault", "labels of priors reach"),
        (changed(lambda told, of, own: told._replace(labels=told.labels.clamp(max=1))), "fault", "another label"),
        (changed(lambda told, of, own: told._replace(labels=told.labels.roll(1, 0))), "fault", "belong to no object"),
        (changed(lambda told, of, own: told._replace(offsets=of)), "fault", "boxes' corners"),
        (changed(lambda told, of, own: told._replace(offsets=to_cxcywh(of))), "fault", "centres and sizes"),
        (changed(lambda told, of, own: told._replace(offsets=to_cxcywh(of) - own)), "fault", "not divided"),
        (changed(lambda told, of, own: told._replace(offsets=encode(of, own, (1.0, 1.0)))), "fault", "are missing"),
        (changed(lambda told, of, own: told._replace(offsets=told.offsets[..., [1, 0, 3, 2]])), "fault", "dy, dx"),
        (changed(lambda told, of, own: told._replace(offsets=told.offsets * 1000)), "fault", "variances are others"),
        (changed(lambda told, of, own: told._replace(offsets=encode(of * 96, own))), "fault", "boxes in pixels"),
        (
            changed(lambda told, of, own: told._replace(offsets=encode(of.bfloat16(), own.bfloat16()).float())),
            "warning",
            "as rounding does it",
        ),
        (changed(lambda told, of, own: told._replace(offsets=told.offsets / 0)), "fault", "NaN or infinite"),
        (changed(lambda told, of, own: told._replace(offsets=told.offsets.roll(7, 1))), "fault", "other boxes"),
        (changed(lambda told, of, own: told._replace(labels=told.labels[:, 1:])), "fault", "matching gives"),
    ],
)
def test_other_matchings_are_named(found, matching, severity, words):
    findings = found(matching)
    assert any(one.severity == severity and words in one.seen for one in findings), findings


def test_a_level_that_no_object_fits_is_a_note(found, setup):
    far = setup.priors.clone()
    far[-4:, 2:] = 0.001
    assert [one.severity for one in found(usual, priors=far) if "levels have no positive" in one.seen] == ["note"]
