import pytest
import torch

from course_lib.backbones import VGG, Classifier, L2Norm


def test_l2_norm_gives_every_position_the_same_length():
    out = L2Norm(8, scale=20.0)(torch.randn(2, 8, 5, 5))
    torch.testing.assert_close(out.norm(dim=1), torch.full((2, 5, 5), 20.0))


@pytest.mark.slow
def test_layer_by_layer_it_is_torchvisions_vgg16():
    """The first ten convolutions; torchvision's pool3 rounds down, so the side is a power of 2."""
    import torchvision

    ours, theirs = VGG().eval(), torchvision.models.vgg16(weights=None).eval()
    convolutions = [layer for layer in ours.to_conv4_3 if isinstance(layer, torch.nn.Conv2d)]
    references = [layer for layer in theirs.features if isinstance(layer, torch.nn.Conv2d)][:10]
    for mine, reference in zip(convolutions, references, strict=True):
        mine.load_state_dict(reference.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)[0], theirs.features[:23](images))


@pytest.mark.parametrize(("side", "maps"), [(300, (38, 19)), (160, (20, 10)), (75, (10, 5))])
def test_pooling_rounds_up_and_pool5_keeps_the_side(side, maps):
    conv4_3, fc7 = VGG(width=1 / 16)(torch.zeros(1, 3, side, side))
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


def test_a_classifier_gives_one_score_a_class():
    assert Classifier(VGG(width=1 / 16), 20)(torch.zeros(3, 3, 64, 64)).shape == (3, 20)
