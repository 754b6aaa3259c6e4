import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from course_lib.backbones import VGG, Classifier, L2Norm


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
        conv4_3, _ = ours(images)
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
    trunk = VGG(width=1 / 16, batch_norm=True)
    trunk.freeze(2)
    trunk.train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in trunk.parameters() if p.requires_grad], lr=1.0)
    conv4_3, fc7 = trunk(torch.randn(2, 3, 32, 32))
    (conv4_3.sum() + fc7.sum()).backward()
    optimizer.step()
    frozen = {f"to_conv4_3.{index}." for index in range(len(trunk.frozen))}
    assert len(trunk.frozen) == 14  # two convolutions, two norms, two ReLUs and a pool, twice
    for name, value in trunk.state_dict().items():
        is_frozen = any(name.startswith(prefix) for prefix in frozen)
        assert torch.equal(value, before[name]) == is_frozen, name


def test_freezing_nothing_thaws_nothing_and_all_blocks_train():
    trunk = VGG(width=1 / 16, batch_norm=True)
    trunk.freeze(0)
    assert trunk.frozen == [] and all(p.requires_grad for p in trunk.parameters())


def test_a_classifier_gives_one_score_a_class_from_each_map():
    answers = Classifier(VGG(width=1 / 16), 20)(torch.zeros(3, 3, 64, 64))
    assert [answer.shape for answer in answers] == [(3, 20), (3, 20)]
