from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib import ssd
from course_lib.voc import VOC_CLASSES


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


class Strides(nn.Module):
    """A trunk of ten lines: two maps, at strides 8 and 16."""

    channels = (12, 24)

    def __init__(self, kernel=3):
        super().__init__()
        self.to_8 = nn.Sequential(nn.Conv2d(3, 12, kernel, stride=8, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.to_16 = nn.Conv2d(12, 24, 3, stride=2, padding=1)

    def forward(self, images):
        fine = self.to_8(images)
        return fine, self.to_16(fine)


def test_a_detector_stands_on_a_trunk_of_ten_lines():
    model = ssd.SSD("small", Strides(), ssd.SSD_MINI_EXTRAS, ssd.SSD_MINI, 4, ("cat", "hat", "mat"), batch_norm=True)
    offsets, logits = model(torch.zeros(2, 3, 160, 160, dtype=torch.uint8))
    assert offsets.shape == (2, len(model.priors), 4) and logits.shape == (2, len(model.priors), 4)
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": (21, 10, 5, 3, 1)}, "feature map 0 is 20 x 20 in an image of 160 pixels.* made for 21 x 21"),
        ({"maps": (20, 10, 5, 2, 1)}, "feature map 3 is 3 x 3 in an image of 160 pixels.* made for 2 x 2"),
        ({"image_size": 200}, "feature map 0 is 25 x 25 in an image of 200 pixels.* made for 20 x 20"),
    ],
)
def test_maps_that_disagree_with_the_priors_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        ssd.SSD("misfit", Strides(), ssd.SSD_MINI_EXTRAS, replace(ssd.SSD_MINI, **change), 4)


def test_more_or_fewer_maps_than_the_priors_are_for_are_refused():
    for extras in (ssd.SSD_MINI_EXTRAS[:2], (*ssd.SSD_MINI_EXTRAS, (64, 128, 1, 1))):
        with pytest.raises(ValueError, match=f"give {2 + len(extras)} feature maps, and the PriorSpec is for 5"):
            ssd.SSD("misfit", Strides(), extras, ssd.SSD_MINI, 4)


def test_looking_for_misfits_leaves_the_model_and_the_random_numbers_alone():
    torch.manual_seed(3)
    model, after = ssd.ssd_mini(), torch.rand(3)
    torch.manual_seed(3)
    model.refuse_misfits()
    other = ssd.ssd_mini()
    assert torch.equal(torch.rand(3), after)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert model.training and all(p.requires_grad for p in model.parameters())


def test_a_detector_knows_the_names_of_its_classes():
    assert ssd.ssd_mini().classes == VOC_CLASSES
    assert ssd.ssd_mini(3).classes == ("class 1", "class 2")
    assert ssd.ssd_mini(3, ["kite", "paper boat"]).classes == ("kite", "paper boat")
    for num_classes, classes in ((4, ("a", "b")), (21, ("a",)), (7, "person")):
        with pytest.raises(ValueError, match=f"num_classes is {num_classes}, .* {num_classes - 1} names are wanted"):
            ssd.names_of_classes(num_classes, classes)
