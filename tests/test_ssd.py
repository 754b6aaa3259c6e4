from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import RECIPE
from small_backbone import SMALL, Strides
from torch import nn
from torchvision.models.detection import ssdlite

from course_lib import augment, losses, ssd, weights
from course_lib.backbones import Backbone
from course_lib.files import DataError
from course_lib.pretraining import pretrain
from course_lib.priors import PriorSpec, ssd_lite
from course_lib.training import Trainer, compute, parameter_groups
from course_lib.voc import VOC_CLASSES, Batch, VOCDetection


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


@pytest.mark.parametrize(
    ("side", "maps"),
    [(224, (28, 14, 7, 4, 2)), (160, (20, 10, 5, 3, 2)), (288, (36, 18, 9, 5, 3)), (97, (13, 7, 4, 2, 1))],
)
def test_ssd_lite0_looks_at_strides_8_16_32_and_two_maps_more_of_an_image_of_any_size(side, maps):
    assert ssd.ssd_lite0.spec == ssd_lite(224)
    model = replace(ssd.ssd_lite0, spec=ssd_lite(side))(num_classes=4).eval()
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    with torch.no_grad():
        shapes = [tuple(one.shape[1:]) for one in model.feature_maps(images)]
        offsets, logits = model(images)
    assert shapes == [(width, m, m) for width, m in zip((40, 112, 320, 256, 256), maps, strict=True)]
    assert offsets.shape == (1, len(model.priors), 4) and logits.shape == (1, len(model.priors), 4)


@pytest.mark.parametrize(("side", "maps"), [(160, (20, 10, 5, 3, 2)), (96, (12, 6, 3, 2, 1)), (97, (13, 7, 4, 2, 1))])
def test_ssd_mobilenet_v2_looks_at_strides_8_16_32_and_two_maps_more_of_an_image_of_any_size(side, maps):
    assert ssd.ssd_mobilenet_v2.spec == ssd_lite(160)
    model = replace(ssd.ssd_mobilenet_v2, spec=ssd_lite(side))(num_classes=4).eval()
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    with torch.no_grad():
        shapes = [tuple(one.shape[1:]) for one in model.feature_maps(images)]
        offsets, logits = model(images)
    assert shapes == [(width, m, m) for width, m in zip((32, 96, 320, 256, 256), maps, strict=True)]
    assert offsets.shape == (1, len(model.priors), 4) and logits.shape == (1, len(model.priors), 4)


def test_ssd_mobilenet_v2_has_as_many_parameters_as_its_layers_have_by_hand():
    """Counted from the tables alone: of a convolution inputs times outputs times taps, of batch norm two a channel."""

    def normed(inputs, outputs, taps):
        return inputs * outputs * taps + 2 * outputs

    count, channels = normed(3, 32, 9), 32
    for expansion, width, blocks in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for _ in range(blocks):
            wide = channels * expansion
            count += normed(channels, wide, 1) if expansion > 1 else 0
            count += normed(1, wide, 9) + normed(wide, width, 1)
            channels = width
    count += 2 * (32 + 96 + 320)  # batch norm on the way to the heads
    for inputs in (320, 256):
        count += normed(inputs, 128, 1) + normed(1, 128, 9) + normed(128, 256, 1)
    for width, shapes in zip((32, 96, 320, 256, 256), (4, 6, 6, 6, 4), strict=True):
        for values in (4, 21):
            count += normed(1, width, 9) + (width + 1) * shapes * values
    assert sum(p.numel() for p in ssd.ssd_mobilenet_v2().parameters()) == count


def with_numbers(network):
    """Random weights and batch norm's numbers, in float64."""
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)
    return network.double().eval()


@pytest.mark.parametrize("of", ["head", "extra block"])
def test_separable_parts_are_torchvisions_ssdlite(of):
    """Tensor by tensor in their order, and by what they give."""
    if of == "head":
        ours, theirs = ssd.SeparableHead(6, 10), ssdlite._prediction_block(6, 10, 3, nn.BatchNorm2d)
    else:
        ours, theirs = ssd.separable_block(6, 5, 10, 2, 1), ssdlite._extra_block(6, 10, nn.BatchNorm2d)
    theirs = with_numbers(theirs)
    tensors = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.double().eval().load_state_dict(dict(tensors))
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def small_mobile(classes=("cat", "hat")):
    """SSD-MobileNetV2 for images of 64 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return replace(ssd.ssd_mobilenet_v2, spec=ssd_lite(64))(len(classes) + 1, classes)


def two_objects(side, count=2):
    """A batch in which each image has a large object and a small one."""
    images = torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.4, 0.4, 0.6, 0.6]]).expand(count, 2, 4)
    labels, no = torch.tensor([[1, 2]]).expand(count, 2), torch.zeros(count, 2, dtype=torch.bool)
    return Batch(images, boxes, labels, no, [str(n) for n in range(count)], [(side, side)] * count)


def test_gradients_reach_every_parameter_of_ssd_mobilenet_v2():
    model = small_mobile()
    offsets, logits = model(two_objects(64).images)
    weight = torch.Generator().manual_seed(1)
    (sum((one * torch.randn(one.shape, generator=weight)).sum() for one in (offsets, logits))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_ssd_mobilenet_v2_learns_and_one_image_is_enough_where_statistics_stand_still():
    model, batch = small_mobile(), two_objects(64)
    before = losses.total(compute(model, batch, losses.MultiBoxLoss(), 0.4).parts).item()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        optimizer.zero_grad()
        losses.total(compute(model, batch, losses.MultiBoxLoss(), 0.4).parts).backward()
        optimizer.step()
    assert losses.total(compute(model, batch, losses.MultiBoxLoss(), 0.4).parts).item() < 0.7 * before
    with torch.no_grad():
        alone = model.eval()(batch.images[:1])
        together = model(batch.images)
    for one, both in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], both[0], rtol=1e-3, atol=1e-3)  # fifty layers of float32, other kernels


def test_the_blocks_that_are_frozen_are_the_stem_and_the_first_residuals():
    model = small_mobile()
    model.backbone.freeze(3)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    prefixes = ("backbone.stem.", "backbone.residuals.0.", "backbone.residuals.1.")
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(prefixes)} and frozen
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {group["name"]: {names[id(p)] for p in group["params"]} for group in parameter_groups(model, RECIPE)}
    assert all("norm" not in name and name.endswith("weight") for name in groups["backbone kernels"])
    depthwise = {f"conf_heads.{level}.0.weight" for level in range(5)}
    assert depthwise < groups["head kernels"] and "conf_heads.0.1.weight" in groups["head biases"]


def test_a_separable_detector_is_saved_and_loaded_with_its_classes(tmp_path):
    model = ssd.ssd_mobilenet_v2(3, ("cat", "hat"))
    weights.save(model, tmp_path / "w.safetensors")
    back = weights.load(tmp_path / "w.safetensors")
    assert (back.architecture, back.classes) == ("ssd_mobilenet_v2", ("cat", "hat"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


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


def test_l2_norm_changes_the_first_map_alone():
    model = ssd.ssd_mini().eval()
    images = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        before = model.feature_maps(images)
        model.backbone.l2_norm.weight.mul_(3)
        after = model.feature_maps(images)
    torch.testing.assert_close(after[0], before[0] * 3, rtol=1e-6, atol=0)  # two multiplications in the other order
    assert all(torch.equal(one, other) for one, other in zip(after[1:], before[1:], strict=True))


def test_a_channel_swap_changes_the_output():
    """Guards the order of the normalisation constants: RGB, not BGR."""
    model = ssd.ssd_mini()
    assert model.mean.flatten().tolist() == [123.0, 117.0, 104.0]


def test_how_pixels_are_normalised_is_the_backbones():
    class Grey(Strides):
        pixel_mean, pixel_std = (120, 130, 140), (10, 20, 40)

    model = replace(SMALL, backbone=Grey)()
    images = torch.full((1, 3, 2, 2), 160, dtype=torch.uint8)
    assert model.normalise(images)[0, :, 0, 0].tolist() == [4.0, 1.5, 0.5]
    assert {"mean", "std"}.isdisjoint(model.state_dict())
    assert ssd.ssd300_vgg16.backbone().pixel_std == (1, 1, 1) and ssd.ssd_mini.backbone().pixel_std == (58, 58, 58)


def test_an_architecture_knows_its_priors_and_image_size_before_it_is_built():
    assert ssd.ARCHITECTURES["ssd300_vgg16"].spec is ssd.SSD300 and ssd.ARCHITECTURES["ssd_mini"] is ssd.ssd_mini
    for name, architecture in ssd.ARCHITECTURES.items():
        with torch.device("meta"):
            model = architecture(3, ("cat", "hat"))
        assert model.architecture == name and model.classes == ("cat", "hat")
        assert model.image_size == architecture.spec.image_size and model.spec is architecture.spec


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "frozen"), [(0, 0), (2, 0), (2, 1)])
def test_a_detector_stands_on_a_backbone_of_ten_lines(small_devkit, tmp_path, monkeypatch, steps, frozen):
    """Built, pretrained or not, frozen or not, trained for a step, saved and loaded."""
    dataset, model = VOCDetection(small_devkit, "2007", "train"), SMALL()
    if steps:
        pretrain(model, dataset, steps)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = replace(RECIPE, epochs=1, batch_size=32, warmup_steps=0, frozen_blocks=frozen)
    Trainer(model, dataset, augment.training_mini(160), recipe, tmp_path / "run").fit()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (frozen == 1 and name.startswith("backbone.to_8.")), name

    with pytest.raises(DataError, match="architecture is 'small': it should be one of ssd300_vgg16, ssd_mini"):
        weights.load(tmp_path / "run" / "last.safetensors")
    monkeypatch.setitem(ssd.ARCHITECTURES, "small", SMALL)
    loaded = weights.load(tmp_path / "run" / "last.safetensors")
    assert loaded.classes == VOC_CLASSES
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


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
        replace(SMALL, spec=replace(ssd.SSD_MINI, **change))()


@pytest.mark.parametrize("extras", [ssd.SSD_MINI_EXTRAS[:2], (*ssd.SSD_MINI_EXTRAS, (64, 128, 1, 1))])
def test_more_or_fewer_maps_than_the_priors_are_for_are_refused(extras):
    with pytest.raises(ValueError, match=f"give {2 + len(extras)} feature maps, and the PriorSpec is for 5"):
        replace(SMALL, extras=extras)()


@settings(max_examples=25)
@given(st.integers(100, 400), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=4))
def test_the_sides_that_are_asked_of_the_priors_are_those_of_the_maps(image_size, shapes):
    """Whatever the extra blocks: what a first refusal says of each map builds a model whose maps are so."""
    extras = tuple((4, 8, stride, padding) for stride, padding in shapes)
    sides = list(Strides().map_sizes(image_size))
    for _, _, stride, padding in extras:
        sides.append((sides[-1] + 2 * padding - 3) // stride + 1)
    levels = len(sides)
    spec = PriorSpec(image_size, tuple(sides), (8,) * levels, (24,) * (levels + 1), ((2,),) * levels)
    if min(sides) < 1:
        spec = replace(spec, maps=tuple(max(side, 1) for side in sides))
        with pytest.raises(ValueError, match=r"is (0|-\d) x (0|-\d) in an image"):
            replace(SMALL, extras=extras, spec=spec)()
        return
    model = replace(SMALL, extras=extras, spec=spec)().eval()
    with torch.no_grad():
        maps = model.feature_maps(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8))
    assert [tuple(one.shape[2:]) for one in maps] == [(side, side) for side in sides]


def test_looking_for_misfits_takes_no_random_numbers(monkeypatch):
    torch.manual_seed(3)
    model, after = ssd.ssd_mini(), torch.rand(3)
    monkeypatch.setattr(ssd, "refuse_misfits", lambda sides, spec: None)
    monkeypatch.setattr(Backbone, "map_sizes", lambda backbone, image_size: (20, 10))
    torch.manual_seed(3)
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
