import pytest
import torch

from course_lib.priors import SSD300, SSD_MINI, PriorSpec


def test_ssd300_has_8732_priors_whose_levels_start_where_the_original_ones_do():
    cells = [side**2 * count for side, count in zip(SSD300.maps, SSD300.per_cell, strict=True)]
    starts = [sum(cells[:level]) for level in range(6)]
    assert starts == [0, 5776, 7942, 8542, 8692, 8728]  # weiliu89/caffe, ssd branch: shapes of *_mbox_priorbox
    assert SSD300.boxes().shape == (8732, 4)


def test_first_cell_of_ssd300_by_hand():
    first = SSD300.boxes()[:4] * 300
    root2, larger = 2**0.5, (30 * 60) ** 0.5
    by_hand = [(4, 4, 30, 30), (4, 4, larger, larger), (4, 4, 30 * root2, 30 / root2), (4, 4, 30 / root2, 30 * root2)]
    torch.testing.assert_close(first, torch.tensor(by_hand))


def test_last_map_of_ssd300_is_centred_and_not_clipped():
    last = SSD300.boxes()[-4:]
    torch.testing.assert_close(last[:, :2], torch.full((4, 2), 0.5))
    assert last[1, 2].item() == pytest.approx((264 * 315) ** 0.5 / 300)
    assert (SSD300.boxes()[:, 2:] > 1).any() or (SSD300.boxes()[:, 0] + SSD300.boxes()[:, 2] / 2 > 1).any()


@pytest.mark.parametrize("spec", [SSD300, SSD_MINI])
def test_priors_equal_a_slow_plain_twin(spec):
    rows = []
    for level, side in enumerate(spec.maps):
        for y in range(side):
            for x in range(side):
                for width, height in spec.shapes(level):
                    step = spec.steps[level]
                    rows.append(((x + 0.5) * step, (y + 0.5) * step, width, height))
    torch.testing.assert_close(spec.boxes(), torch.tensor(rows) / spec.image_size)


def test_a_spec_whose_parts_disagree_is_refused():
    with pytest.raises(ValueError, match="2 maps need 2 steps, 3 sides"):
        PriorSpec(100, (10, 5), (10, 20), (20, 50), ((2,), (2,)))
