import pytest
import torch

from course_lib import ssd


def test_ssd300_has_the_original_number_of_parameters_and_priors():
    model = ssd.ssd300_vgg16()
    assert sum(p.numel() for p in model.parameters()) == 26_285_486  # amdegroot/ssd.pytorch, 21 classes
    assert model.priors.shape == (8732, 4)


@pytest.mark.slow
def test_ssd300_maps_are_38_19_10_5_3_1():
    model = ssd.ssd300_vgg16().eval()
    images = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)
    with torch.no_grad():
        maps = model.feature_maps(images)
        offsets, logits = model(images)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (512, 38, 38), (1024, 19, 19), (512, 10, 10), (256, 5, 5), (256, 3, 3), (256, 1, 1)
    ]  # fmt: skip
    assert offsets.shape == (1, 8732, 4) and logits.shape == (1, 8732, 21)


@pytest.mark.parametrize("num_classes", [2, 21])
def test_ssd_mini_gives_a_row_for_every_prior(num_classes):
    model = ssd.ssd_mini(num_classes)
    offsets, logits = model(torch.zeros(2, 3, 160, 160, dtype=torch.uint8))
    assert offsets.shape == (2, len(model.priors), 4)
    assert logits.shape == (2, len(model.priors), num_classes)


def test_row_p_of_the_output_belongs_to_prior_p():
    """Light up one cell of one map: only the priors centred in it may answer."""
    spec, classes = ssd.SSD_MINI, 3
    for level, (side, shapes) in enumerate(zip(spec.maps, spec.per_cell, strict=True)):
        head = torch.zeros(1, shapes * classes, side, side)
        y, x = side // 2, side - 1
        head[:, :, y, x] = torch.arange(shapes * classes, dtype=torch.float32) + 1
        rows = ssd.per_prior(head, classes)[0]
        start = sum(m * m * n for m, n in zip(spec.maps[:level], spec.per_cell[:level], strict=True))
        priors = spec.boxes()[start : start + len(rows)]
        lit = rows.sum(dim=1) > 0
        centre = (torch.tensor([x, y]) + 0.5) * spec.steps[level] / spec.image_size
        torch.testing.assert_close(priors[lit, :2], centre.expand(shapes, 2), rtol=1e-6, atol=0)  # three operations
        assert rows[lit].flatten().tolist() == list(range(1, shapes * classes + 1))


def test_an_image_of_the_wrong_size_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"\(100, 100\).*160 x 160.*resize"):
        ssd.ssd_mini()(torch.zeros(1, 3, 100, 100, dtype=torch.uint8))


def test_l2_norm_is_not_in_the_trunk():
    model = ssd.ssd_mini().eval()
    images = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        before = model.feature_maps(images)
        model.l2_norm.weight.mul_(3)
        after = model.feature_maps(images)
    torch.testing.assert_close(after[0], before[0] * 3, rtol=1e-6, atol=0)  # two multiplications in the other order
    assert all(torch.equal(one, other) for one, other in zip(after[1:], before[1:], strict=True))


def test_a_channel_swap_changes_the_output():
    """Guards the order of the normalisation constants: RGB, not BGR."""
    model = ssd.ssd_mini()
    assert model.mean.flatten().tolist() == [123.0, 117.0, 104.0]
