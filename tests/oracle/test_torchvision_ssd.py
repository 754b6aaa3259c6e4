"""torchvision's SSD300 against ours: names, outputs, gradients, pixels and priors."""

import copy

import pytest
import torch
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from course_lib import priors, ssd, weights
from course_lib.boxes import to_corners

LEVELS = [side**2 * count for side, count in zip(priors.SSD300.maps, priors.SSD300.per_cell, strict=True)]


@pytest.fixture(scope="module", params=[21, pytest.param(91, marks=pytest.mark.weekly)])
def pair(request):
    """Both models with the same random weights."""
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=request.param).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:  # all zeros, or all twenties: nobody would notice two of them swapped
                parameter.uniform_(0, 2)
    ours = ssd.ssd300_vgg16(request.param).eval()
    weights.load_torchvision(ours, theirs.state_dict())
    return theirs, ours


@pytest.fixture(scope="module")
def in_float64(pair):
    """In float32 sums of 9216 products, two dozen layers of them, differ by up to 1e-4 from kernel to kernel."""
    return [copy.deepcopy(model).double() for model in pair]


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def outputs(theirs, pixels):
    heads = theirs.head(list(theirs.backbone(pixels).values()))
    return heads["bbox_regression"], heads["cls_logits"]


def largest_difference(a, b):
    """Relative to the scale of b."""
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.slow
def test_offsets_and_logits_are_torchvisions(in_float64, images):
    theirs, ours = in_float64
    with torch.no_grad():
        for found, expected in zip(ours(images), outputs(theirs, ours.normalise(images)), strict=True):
            assert found.shape == expected.shape
            for a, b in zip(found.split(LEVELS, dim=1), expected.split(LEVELS, dim=1), strict=True):
                assert largest_difference(a, b) <= 1e-9


@pytest.mark.slow
def test_gradients_are_torchvisions(in_float64, images):
    theirs, ours = in_float64
    for model, (offsets, logits) in ((ours, ours(images)), (theirs, outputs(theirs, ours.normalise(images)))):
        model.zero_grad()
        (offsets.square().mean() + logits.logsumexp(dim=2).mean()).backward()
    expected = dict(theirs.named_parameters())
    for name, its_name in weights.renamed(ours, weights.TORCHVISION).items():
        assert largest_difference(ours.get_parameter(name).grad, expected[its_name].grad) <= 1e-9, name


@pytest.mark.slow
def test_all_71_tensors_come_back_bit_by_bit_also_through_a_file(pair, tmp_path):
    theirs, ours = pair
    weights.save(ours, tmp_path / "a.safetensors")
    names = weights.renamed(ours, weights.TORCHVISION)
    expected = theirs.state_dict()
    for model in (ours, weights.load(tmp_path / "a.safetensors")):
        back = {names[name]: tensor for name, tensor in model.state_dict().items()}
        assert len(back) == 71 and back.keys() == expected.keys()
        assert all(torch.equal(back[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_the_number_of_parameters_is_torchvisions(pair):
    theirs, ours = pair
    counted = sum(parameter.numel() for parameter in ours.parameters())
    assert counted == sum(parameter.numel() for parameter in theirs.parameters())
    # 91: torchvision's SSD300_VGG16_Weights.COCO_V1.meta["num_params"]
    assert counted == {21: 26_285_486, 91: 35_641_826}[ours.num_classes]


@pytest.mark.slow
def test_pixels_are_normalised_as_torchvision_does(pair, images):
    theirs, ours = pair
    expected, _ = theirs.transform([images[0] / 255])
    torch.testing.assert_close(ours.normalise(images), expected.tensors, atol=2e-3, rtol=0)  # of 255 levels


def torchvisions_priors(clip):
    spec = priors.SSD300
    generator = DefaultBoxGenerator(
        [list(ratios) for ratios in spec.ratios],
        scales=[side / spec.image_size for side in spec.sides],
        steps=list(spec.steps),
        clip=clip,
    )
    image = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    (corners_px,) = generator(image, [torch.zeros(1, 1, side, side) for side in spec.maps])
    return corners_px


def test_priors_are_torchvisions_with_vocs_scales():
    ours = to_corners(priors.SSD300.boxes()) * 300
    # Corners of up to 420 pixels, a few float32 operations each: a few times 3e-5.
    torch.testing.assert_close(ours, torchvisions_priors(clip=False), atol=1e-4, rtol=0)


def test_torchvisions_way_to_clip_alters_20_priors():
    altered = (torchvisions_priors(clip=True) - torchvisions_priors(clip=False)).abs().amax(dim=1) > 1e-3
    assert altered.sum() == 20
