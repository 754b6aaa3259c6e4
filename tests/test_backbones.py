from math import sqrt

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from hypothesis import given, settings
from hypothesis import strategies as st
from small_backbone import Strides
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from torchvision.models.vgg import cfgs, make_layers

from course_lib.backbones import (
    MOBILENET_V2,
    PIXEL_MEAN,
    PIXEL_STD,
    TENSORFLOW,
    TORCHVISION,
    VGG,
    Backbone,
    Classifier,
    InvertedResiduals,
    L2Norm,
    Normed,
    SameConvolution,
    Stage,
    skeleton,
)
from course_lib.ssd import xavier


def thin_residuals():
    return InvertedResiduals(
        (Stage(1, 3, 1, 4, 1), Stage(2, 5, 2, 4, 1), Stage(2, 3, 2, 6, 2), Stage(3, 5, 2, 8, 1)), 4
    )


def sides(maps):
    return tuple(one.shape[-1] for one in maps)


@settings(max_examples=25)
@given(
    st.integers(32, 400),
    st.sampled_from([Strides, lambda: VGG(1 / 32), lambda: VGG(1 / 32, True, 3, depth=11), thin_residuals]),
)
def test_a_backbone_knows_the_sides_of_its_maps_without_making_them(image_size, make):
    backbone = make()
    with torch.no_grad():
        assert backbone.map_sizes(image_size) == sides(backbone(torch.zeros(1, 3, image_size, image_size)))


def test_asking_for_sides_leaves_a_backbone_and_the_random_numbers_alone():
    backbone, state = VGG(1 / 16, batch_norm=True), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.freeze(2)
    backbone.map_sizes(160)
    assert backbone.training and len(backbone.frozen) == 2 and not backbone.to_conv4_3[1].training
    for name, value in backbone.state_dict().items():
        assert value.device.type == "cpu" and torch.equal(value, before[name]), name
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(tensor.is_meta for tensor in skeleton(backbone).state_dict().values())


@pytest.mark.parametrize("channels", [(12, 32), (12,), (12, 24, 24)])
def test_a_backbone_that_promises_other_maps_than_it_gives_is_named(channels):
    backbone = Strides()
    backbone.channels = channels
    with pytest.raises(
        ValueError, match=r"Strides: .*160 pixels gives maps of 12 x 20 x 20, 24 x 10 x 10; .* promises: 12"
    ):
        backbone.map_sizes(160)


def test_maps_that_are_not_square_are_named():
    with pytest.raises(ValueError, match=r"Strides: .* gives maps of 12 x 20 x 21, .* must be square"):
        Strides(kernel=(9, 1)).map_sizes(160)


def test_a_backbone_without_a_forward_says_so():
    with pytest.raises(NotImplementedError, match="Backbone needs a `forward`"):
        Backbone()(torch.zeros(1, 3, 8, 8))


def test_a_backbone_of_ones_own_is_taught_as_a_whole_and_read_as_it_is():
    backbone = Strides().eval()
    assert {*map(id, backbone.taught())} == {*map(id, backbone.parameters())}
    assert (backbone.pixel_mean, backbone.pixel_std) == (PIXEL_MEAN, PIXEL_STD)
    images = torch.randn(1, 3, 32, 32)
    for seen, read in zip(backbone.features(images), backbone(images), strict=True):
        assert torch.equal(seen, read)
    backbone.freeze(1)
    backbone.train()
    assert not backbone.to_8.training and backbone.to_16.training
    assert [p.requires_grad for p in backbone.parameters()] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("blocks", [-1, 3])
def test_more_blocks_than_there_are_cannot_be_frozen(blocks):
    with pytest.raises(ValueError, match=f"Strides: {blocks} blocks are to be frozen, and it has 2"):
        Strides().freeze(blocks)


def test_l2_norm_is_on_the_branch_to_the_heads_alone():
    vgg, images = VGG(1 / 16).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        conv4_3, fc7 = vgg.features(images)
        before = vgg(images)
        assert torch.equal(before[0], vgg.l2_norm(conv4_3)) and torch.equal(before[1], fc7)
        vgg.l2_norm.weight.mul_(3)
        after = vgg(images)
    torch.testing.assert_close(after[0], before[0] * 3, rtol=1e-6, atol=0)  # two multiplications in the other order
    assert torch.equal(after[1], before[1])


def test_a_classifier_teaches_all_of_vgg_but_l2_norm():
    """Neither a gradient nor decay may reach it."""
    classifier = Classifier(VGG(1 / 16), 20)
    sum(answer.square().mean() for answer in classifier(torch.randn(2, 3, 64, 64))).backward()
    learning = {*map(id, classifier.learning())}
    for name, parameter in classifier.named_parameters():
        assert (id(parameter) in learning) == (parameter.grad is not None) == ("l2_norm" not in name), name


def test_l2_norm_gives_every_position_the_same_length():
    out = L2Norm(8, scale=20.0).double()(torch.randn(2, 8, 5, 5, dtype=torch.float64))
    torch.testing.assert_close(out.norm(dim=1), torch.full((2, 5, 5), 20.0, dtype=torch.float64))


@pytest.mark.parametrize(("depth", "configuration", "conv4"), [(11, "A", 15), (13, "B", 19), (16, "D", 23)])
def test_layer_by_layer_it_is_torchvisions_vgg(depth, configuration, conv4):
    """Up to block 5; torchvision's pool3 rounds down, so the side is a power of 2.

    In float64: float32 sums of 4608 products, ten layers of them, differ by some 1e-4 from kernel to kernel.

    Args:
        conv4: layers that torchvision counts up to the last ReLU of block 4.
    """
    ours, theirs = VGG(depth=depth).double().eval(), make_layers(cfgs[configuration]).double()
    convolutions = [layer for layer in ours.modules() if isinstance(layer, torch.nn.Conv2d)]
    references = [layer for layer in theirs if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) - 2 == len(references) == depth - 3  # beside fc6 and fc7
    for mine, reference in zip(convolutions, references, strict=False):
        torch.nn.init.kaiming_normal_(reference.weight)  # with PyTorch's own, little is left of the image
        mine.load_state_dict(reference.state_dict())
    pool5 = next(i for i, layer in enumerate(ours.to_fc7) if i and isinstance(layer, torch.nn.MaxPool2d))
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        conv4_3, _ = ours.features(images)
        torch.testing.assert_close(conv4_3, theirs[:conv4](images))
        torch.testing.assert_close(ours.to_fc7[:pool5](conv4_3), theirs[:-1](images))


def test_a_depth_that_vgg_does_not_have_is_refused():
    with pytest.raises(ValueError, match="depth is 12: use one of 11, 13, 16"):
        VGG(depth=12)


@pytest.mark.parametrize("depth", [11, 13, 16])
@pytest.mark.parametrize(("side", "maps"), [(300, (38, 19)), (160, (20, 10)), (75, (10, 5))])
def test_pooling_rounds_up_and_pool5_keeps_the_side(side, maps, depth):
    conv4_3, fc7 = VGG(width=1 / 16, depth=depth)(torch.zeros(1, 3, side, side))
    assert (conv4_3.shape[-1], fc7.shape[-1]) == maps


def test_width_and_batch_norm_change_what_they_say():
    narrow = VGG(width=0.25, batch_norm=True)
    assert narrow.channels == (128, 256)
    convolutions = [layer for layer in narrow.modules() if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in narrow.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 15 and all(layer.bias is None for layer in convolutions)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in VGG(width=1 / 16).modules())


def test_frozen_blocks_neither_learn_nor_count():
    backbone = VGG(width=1 / 16, batch_norm=True)
    backbone.freeze(2)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    conv4_3, fc7 = backbone(torch.randn(2, 3, 32, 32))
    (conv4_3.sum() + fc7.sum()).backward()
    optimizer.step()
    assert [len(block) for block in backbone.frozen] == [7, 7]  # two convolutions, two norms, two ReLUs and a pool
    frozen = {f"to_conv4_3.{index}." for index in range(14)}
    for name, value in backbone.state_dict().items():
        is_frozen = any(name.startswith(prefix) for prefix in frozen)
        assert torch.equal(value, before[name]) == is_frozen, name


def test_freezing_nothing_thaws_nothing_and_all_blocks_train():
    backbone = VGG(width=1 / 16, batch_norm=True)
    backbone.freeze(0)
    assert backbone.frozen == [] and all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("depth", [11, 13, 16])
def test_vggs_blocks_are_all_its_layers_in_order(depth):
    vgg = VGG(1 / 16, depth=depth)
    layers = [layer for block in vgg.blocks() for layer in block]
    assert len(vgg.blocks()) == 5 and layers == [*vgg.to_conv4_3, *vgg.to_fc7]
    assert [isinstance(block[-1], nn.MaxPool2d) for block in vgg.blocks()] == [True, True, True, False, False]


def test_a_classifier_gives_one_score_a_class_from_each_map():
    answers = Classifier(VGG(width=1 / 16), 20)(torch.zeros(3, 3, 64, 64))
    assert [answer.shape for answer in answers] == [(3, 20), (3, 20)]


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3]))
def test_same_padding_is_tensorflows(height, width, taps, stride):
    """By TensorFlow's definition: output o of an axis sees taps from o * stride - floor(missing / 2) on.

    Whole numbers: sums of at most 25 products of them are exact.
    """
    image = torch.randint(-9, 10, (1, 2, height, width), generator=torch.Generator().manual_seed(0)).float()
    layer = SameConvolution(2, 2, taps, stride, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-9, 10, layer.weight.shape, generator=torch.Generator().manual_seed(1)))
    rows, columns = -(-height // stride), -(-width // stride)
    missing = [max((n - 1) * stride + taps - side, 0) for n, side in ((rows, height), (columns, width))]
    padded = nn.functional.pad(
        image, (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2)
    )
    expected = torch.empty(1, 2, rows, columns)
    for y in range(rows):
        for x in range(columns):
            seen = padded[0, :, y * stride : y * stride + taps, x * stride : x * stride + taps]
            expected[0, :, y, x] = (seen * layer.weight[:, 0]).sum(dim=(1, 2))
    assert torch.equal(layer(image), expected)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("conventions", [TENSORFLOW, TORCHVISION], ids=["tensorflow", "torchvision"])
def test_batch_norm_that_stands_still_is_folded_into_the_convolution(relu, conventions):
    """The values and all gradients; in float64."""
    layer = Normed(6, 8, kernel=3, stride=2, relu=relu, conventions=conventions).double()
    for tensor in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var):
        nn.init.uniform_(tensor, 0.5, 2)
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64, requires_grad=True)
    layer.eval()
    learning = [x, *layer.parameters()]
    folded = layer(x)
    plain = layer.relu(layer.norm(layer.convolve(x)))
    torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-12)
    weight = torch.randn_like(folded)
    pairs = zip(*(torch.autograd.grad((out * weight).sum(), learning) for out in (folded, plain)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def modules_of(network, kinds):
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


def give_statistics(network):
    """Weights and batch norm's numbers under which something is left of the image after fifty layers."""
    generator = torch.Generator().manual_seed(0)
    for layer in modules_of(network, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, generator=generator)
    for layer in modules_of(network, nn.BatchNorm2d):
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            nn.init.uniform_(tensor, 0.5, 1, generator=generator)


def take_over(ours, theirs):
    """Fill a trunk with another's tensors, layer by layer in their order; what follows in the other is left."""
    trunk = nn.ModuleList(ours.blocks())
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        for mine, reference in zip(modules_of(trunk, kind), modules_of(theirs, kind), strict=False):
            mine.load_state_dict(reference.state_dict())


@pytest.mark.parametrize("side", [64, 65])
def test_block_by_block_it_is_efficientnet_lite0(side):
    """Of the package `efficientnet-lite-pytorch`, which pads for the size that it is told; at an odd one too."""
    theirs = EfficientNet.from_name("efficientnet-lite0", image_size=side).double().eval()
    give_statistics(theirs)
    ours = InvertedResiduals().double().eval()
    take_over(ours, theirs)
    assert sum(p.numel() for p in ours.taught()) == sum(
        p.numel() for name, p in theirs.named_parameters() if not name.startswith(("_conv_head", "_bn1", "_fc"))
    )
    x = torch.rand(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        seen, maps = theirs._swish(theirs._bn0(theirs._conv_stem(x))), []
        mine = x
        for block, reference in zip(ours.blocks(), [None, *theirs._blocks], strict=True):
            seen, mine = reference(seen) if reference else seen, block(mine)
            torch.testing.assert_close(mine, seen, rtol=1e-9, atol=1e-9)
            maps.append(seen)
        for level, block in zip(ours.features(x), (5, 11, 16), strict=True):  # the stem is block 0
            torch.testing.assert_close(level, maps[block], rtol=1e-9, atol=1e-9)
    assert ours.channels == (40, 112, 320) and InvertedResiduals().map_sizes(side) == (
        -(-side // 8),
        -(-side // 16),
        -(-side // 32),
    )


@pytest.mark.parametrize("side", [64, 65])
def test_with_another_table_it_is_mobilenet_v2(side):
    """torchvision's, at any size; by TensorFlow's conventions where every side is odd, and pads the same."""
    theirs = mobilenet_v2(weights=None).double().eval()
    give_statistics(theirs)
    ours = InvertedResiduals(MOBILENET_V2, conventions=TORCHVISION).double().eval()
    take_over(ours, theirs)
    x = torch.rand(1, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.features[:-1](x)
        torch.testing.assert_close(ours.features(x)[-1], expected, rtol=1e-9, atol=1e-9)
        for layer in modules_of(theirs, nn.BatchNorm2d):
            layer.eps = 1e-3
        other = InvertedResiduals(MOBILENET_V2).double().eval()
        take_over(other, theirs)
        same = torch.allclose(other.features(x)[-1], theirs.features[:-1](x), rtol=1e-9, atol=1e-9)
    assert same == (side == 65)
    assert ours.channels == (32, 96, 320) and len(ours.blocks()) == 18
    statistics = {(layer.eps, layer.momentum) for layer in modules_of(ours, nn.BatchNorm2d)}
    assert statistics == {(layer.eps, layer.momentum) for layer in modules_of(mobilenet_v2(), nn.BatchNorm2d)}


def test_pixels_are_seen_as_each_library_gives_them():
    ours = InvertedResiduals(MOBILENET_V2, conventions=TORCHVISION)
    weights = torch.tensor(MobileNet_V2_Weights.IMAGENET1K_V1.transforms().mean) * 255
    assert ours.pixel_mean == pytest.approx(weights.tolist(), rel=1e-6)
    deviation = torch.tensor(MobileNet_V2_Weights.IMAGENET1K_V1.transforms().std) * 255
    assert ours.pixel_std == pytest.approx(deviation.tolist(), rel=1e-6)
    assert (InvertedResiduals().pixel_mean, InvertedResiduals().pixel_std) == ((127,) * 3, (128,) * 3)


def test_statistics_that_are_frozen_stand_still_while_the_weights_learn():
    """Those of what a classifier has taught; batch norm on the way to the heads is new, and must see its maps."""
    backbone = thin_residuals()
    backbone.freeze(2, statistics=True)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in backbone.parameters() if p.requires_grad], lr=0.1)  # moves all it reaches
    sum(one.square().sum() for one in backbone(torch.randn(2, 3, 32, 32))).backward()
    optimizer.step()
    for name, value in backbone.state_dict().items():
        statistics = "running" in name or "tracked" in name
        stays = name.startswith(("stem.", "residuals.0.")) or (statistics and not name.startswith("to_heads."))
        assert torch.equal(value, before[name]) == stays, name
    backbone.freeze(0)
    assert backbone.train().frozen == [] and all(layer.training for layer in modules_of(backbone, nn.BatchNorm2d))


def test_the_scale_of_fresh_weights_does_not_depend_on_the_number_of_groups():
    """Xavier's bound is the same for a convolution and for one of four groups of that size."""
    plain, grouped = nn.Conv2d(16, 16, 3), nn.Conv2d(64, 64, 3, groups=4)
    for layer in (plain, grouped):
        xavier(layer)
        assert 0.9 < layer.weight.abs().max() / sqrt(6 / (9 * 32)) <= 1
