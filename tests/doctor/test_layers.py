import pytest
import torch
from small_patient import seen_in, small_setup
from torch import nn
from torch.nn import functional as F

from course_lib.doctor.layers import CHECKS, last_layers

NAMES = [one.name for one in CHECKS]


@pytest.fixture
def setup(small_devkit):
    return small_setup(small_devkit)


def look(setup):
    return seen_in(setup.patient(), *NAMES)


def test_a_random_network_is_healthy(setup):
    assert [one for one in look(setup) if one.severity != "note"] == []


def test_heads_are_the_last_layers_whatever_is_frozen_and_stay_frozen(setup):
    model = setup.model
    for part in (model.backbone, model.loc_heads):
        part.requires_grad_(False)
    heads = last_layers(setup.patient())
    for name, own in (("offsets", "loc_heads."), ("logits", "conf_heads.")):
        assert set(heads[name]) == {key for key, _ in model.named_parameters() if key.startswith(own)}
    assert not any(p.requires_grad for p in [*model.backbone.parameters(), *model.loc_heads.parameters()])


def weights_of(part):
    return next(p for p in part.parameters() if p.ndim > 1).data


def dead_norms(model):
    for layer in model.extras[0].modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data.fill_(-100)


def half_dead(model):
    first = next(layer for layer in model.extras[1].modules() if isinstance(layer, nn.BatchNorm2d))
    first.bias.data[: int(0.8 * len(first.bias))] = -100


def vanishing(model):
    """Batch norm that makes every layer of the trunk tell a twentieth of what it should."""
    for layer in list(model.backbone.to_conv4_3)[3:]:
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.mul_(1e-5)


def detached(model):
    usual = model.feature_maps
    model.feature_maps = lambda images: [features.detach() for features in usual(images)]


def unused(model):
    model.forgotten = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (lambda model: weights_of(model.extras[0]).fill_(float("nan")), "fault", "the first layer that gives NaN"),
        (lambda model: weights_of(model.loc_heads).mul_(1e9), "fault", "numbers of"),
        (lambda model: weights_of(model.loc_heads).mul_(1e7), "warning", "the gradient of a batch has a norm"),
        (dead_norms, "fault", "nothing but zeros"),
        (half_dead, "warning", "dead units"),
        (vanishing, "warning", "the image vanishes on the way"),
        (detached, "fault", "do not reach the outputs"),
        (unused, "warning", "do not reach the outputs: forgotten.weight"),
        (lambda model: model.backbone.l2_norm.weight.data.mul_(1e7), "warning", "times less"),
    ],
)
def test_what_hinders_the_flow_is_named(setup, change, severity, words):
    change(setup.model)
    findings = look(setup)
    assert any(one.severity == severity and words in one.seen for one in findings), findings


def test_a_head_that_no_loss_teaches_is_named(setup):
    usual = setup.loss
    setup.loss = lambda offsets, logits, told: usual(offsets.detach(), logits, told)
    assert "give the heads of the offsets no gradient" in "".join(one.seen for one in look(setup))


def test_gradients_that_are_not_finite_are_named(setup):
    usual = setup.loss
    setup.loss = lambda offsets, logits, told: usual(offsets, logits, told) | {"x": (logits.sum() * 0).sqrt()}
    finding = next(one for one in look(setup) if one.check == "gradients-reach-all")
    assert finding.severity == "fault" and "are NaN or infinite" in finding.seen


@pytest.mark.parametrize("frozen", [0, 4])
@pytest.mark.parametrize("part", ["finest", "deepest", None])
def test_a_level_whose_map_is_detached_is_named_whatever_is_frozen(setup, part, frozen):
    model = setup.model
    model.backbone.freeze(frozen)
    cut = {"finest": model.backbone.l2_norm, "deepest": model.extras[-1]}.get(part)
    if cut is not None:
        cut.register_forward_pre_hook(lambda layer, given: (given[0].detach(),))
    found = seen_in(setup.patient(), "every-level-teaches-the-trunk")
    assert [one.severity for one in found] == ["fault"] * (part is not None)
    assert not found or "the gradient of 1 does not reach" in found[0].seen
    assert [p.requires_grad for p in model.backbone.parameters()].count(False) > 0 or not frozen


def test_looking_leaves_the_model_as_it_is(setup):
    model = setup.model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    look(setup)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(layer.training for layer in model.modules())
    assert all(parameter.grad is None and not parameter._backward_hooks for parameter in model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def before_the_heads(drop):
    def change(model):
        usual = model.feature_maps
        model.feature_maps = lambda images: [drop(features, model.training) for features in usual(images)]

    return change


def with_layer(layer):
    def change(model):
        model.dropped = layer
        before_the_heads(lambda features, training: layer(features))(model)

    return change


def drop_by_name(model):
    before_the_heads(lambda features, training: torch.dropout(features, 0.8, training))(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_layer(nn.Dropout(0.5)), None),
        (with_layer(nn.Dropout2d(0.6)), None),
        (with_layer(nn.Dropout(0.8).eval()), None),
        (before_the_heads(lambda features, training: F.dropout(features, 0.5, training)), None),
        (before_the_heads(lambda features, training: F.dropout(features, 0.8, training=False)), None),
        (lambda model: setattr(model, "forgotten", nn.Dropout(0.9)), None),
        (with_layer(nn.Dropout(0.8)), "take 80% of what they are given, and leave 20%: dropped"),
        (with_layer(nn.Dropout2d(0.9)), "take 90%"),
        (with_layer(nn.AlphaDropout(0.7)), "take 70%"),
        (before_the_heads(lambda features, training: F.dropout(features, 0.8, training)), "leave 20%: on 8 x"),
        (before_the_heads(lambda features, training: F.dropout2d(features, p=0.8, training=training)), "take 80%"),
        (drop_by_name, "take 80%"),
    ],
)
def test_a_dropout_that_takes_more_than_it_leaves_is_named_where_it_is_used(setup, change, words):
    change(setup.model)
    findings = seen_in(setup.patient(), "dropout-leaves-enough")
    assert [one.severity for one in findings] == ["warning"] * (words is not None)
    assert all(words in one.seen for one in findings)


def test_a_dropout_is_looked_at_as_it_is_in_training(setup):
    with_layer(nn.Dropout(0.8))(setup.model)
    setup.model.eval()
    assert len(seen_in(setup.patient(), "dropout-leaves-enough")) == 1
    assert not setup.model.training and not setup.model.dropped.training


def freeze_statistics(model):
    """Put the trunk's batch norms into evaluation mode."""
    for layer in model.backbone.modules():
        layer.training = not isinstance(layer, nn.BatchNorm2d)


def kept_frozen(model):
    """Let the model's own `train` keep them there."""
    usual = model.train

    def train(mode=True):
        usual(mode)
        freeze_statistics(model)
        return model

    model.train = train
    freeze_statistics(model)


def still(model):
    """Batch norms that take nothing of a batch into their statistics."""
    freeze_statistics(model)
    for layer in model.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0


def wake(model):
    model.train()


def wake_by_apply(model):
    model.apply(lambda layer: setattr(layer, "training", True))


def wake_one_by_one(model):
    for layer in model.backbone.modules():
        nn.Module.train(layer)


@pytest.mark.parametrize(
    ("freeze", "before_step", "count"),
    [
        (freeze_statistics, lambda model: None, 0),
        (lambda model: None, wake, 0),
        (nn.Module.eval, wake, 0),
        (kept_frozen, wake, 0),
        (still, wake, 0),
        (freeze_statistics, wake, 1),
        (freeze_statistics, wake_by_apply, 1),
        (freeze_statistics, wake_one_by_one, 1),
        (kept_frozen, wake_by_apply, 1),
    ],
)
def test_frozen_statistics_that_a_step_moves_are_named(setup, freeze, before_step, count):
    freeze(setup.model)

    def make(patient):
        def step(batch):
            before_step(patient.model)
            return patient.usual_step(batch)

        return step

    setup.made_last["step"] = make
    findings = seen_in(setup.patient(), "frozen-statistics-stay")
    assert [one.severity for one in findings] == ["warning"] * count
    assert all("batch norms that are in evaluation mode" in one.seen for one in findings)
