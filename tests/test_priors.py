from dataclasses import replace

import pytest
import torch
from hypothesis import given
from strategies import corner_boxes

from course_lib.boxes import box_iou, to_corners
from course_lib.priors import SSD300, SSD_LITE0, SSD_MINI, PriorSpec, coverage, ssd_lite

ROUNDED = {"rtol": 1e-6, "atol": 1e-6}  # a few float32 operations on fractions, each right to 6e-8; nothing is summed


def test_ssd300_has_8732_priors_whose_levels_start_where_the_original_ones_do():
    cells = [side**2 * count for side, count in zip(SSD300.maps, SSD300.per_cell, strict=True)]
    starts = [sum(cells[:level]) for level in range(6)]
    assert starts == [0, 5776, 7942, 8542, 8692, 8728]  # weiliu89/caffe, ssd branch: shapes of *_mbox_priorbox
    assert SSD300.boxes().shape == (8732, 4)


def test_first_cell_of_ssd300_by_hand():
    first = SSD300.boxes()[:4] * 300
    root2, larger = 2**0.5, (30 * 60) ** 0.5
    by_hand = [(4, 4, 30, 30), (4, 4, larger, larger), (4, 4, 30 * root2, 30 / root2), (4, 4, 30 / root2, 30 * root2)]
    torch.testing.assert_close(first / 300, torch.tensor(by_hand) / 300, **ROUNDED)


def test_last_map_of_ssd300_is_centred_and_not_clipped():
    last = SSD300.boxes()[-4:]
    torch.testing.assert_close(last[:, :2], torch.full((4, 2), 0.5), **ROUNDED)
    assert last[1, 2].item() == pytest.approx((264 * 315) ** 0.5 / 300)
    assert (SSD300.boxes()[:, 2:] > 1).any() or (SSD300.boxes()[:, 0] + SSD300.boxes()[:, 2] / 2 > 1).any()


@pytest.mark.parametrize("spec", [SSD300, SSD_MINI, SSD_LITE0, ssd_lite(97)])
def test_priors_equal_a_slow_plain_twin(spec):
    rows = []
    for level, side in enumerate(spec.maps):
        for y in range(side):
            for x in range(side):
                for width, height in spec.shapes(level):
                    step = spec.steps[level]
                    rows.append(((x + 0.5) * step, (y + 0.5) * step, width, height))
    torch.testing.assert_close(spec.boxes(), torch.tensor(rows) / spec.image_size, **ROUNDED)


def test_a_spec_whose_parts_disagree_is_refused():
    with pytest.raises(ValueError, match="2 maps need 2 steps, 3 sides"):
        PriorSpec(100, (10, 5), (10, 20), (20, 50), ((2,), (2,)))


@pytest.mark.parametrize(
    ("maps", "count"),
    [
        ((37, 18, 9, 5, 3, 1), 8096),  # pool3 rounds down
        ((37, 18, 18, 9, 5, 2), 9966),  # and a stride is missing: the published log of the case study
    ],
)
def test_other_maps_give_other_numbers_of_priors(maps, count):
    spec = replace(SSD300, maps=maps, steps=tuple(300 / side for side in maps))
    assert len(spec.boxes()) == count


@pytest.mark.parametrize(
    ("lengths", "altered"),
    [
        (lambda priors: priors[:, :0], 0),  # as the original: nothing
        (lambda priors: priors[:, 2:], 20),  # width and height
        (lambda priors: priors, 134),  # centre, width and height
        (to_corners, 2869),  # corners
    ],
    ids=["none", "sizes", "centres and sizes", "corners"],
)
def test_number_of_priors_that_each_way_to_clip_alters(lengths, altered):
    """Counted from the definition: a length is altered where it is not in [0, 1]."""
    clipped = lengths(SSD300.boxes())
    assert ((clipped < 0) | (clipped > 1)).any(dim=1).sum() == altered


@given(corner_boxes())
def test_coverage_is_the_best_iou(boxes):
    priors = SSD_MINI.boxes()
    best = box_iou(boxes, to_corners(priors)).max(dim=1).values
    torch.testing.assert_close(coverage(boxes, priors), best, **ROUNDED)


def test_priors_cover_themselves_and_more_priors_cover_no_less():
    priors = SSD_MINI.boxes()
    corners = to_corners(priors)
    torch.testing.assert_close(coverage(corners, priors), torch.ones(len(priors)), **ROUNDED)
    assert (coverage(corners, priors) >= coverage(corners, priors[::7])).all()
