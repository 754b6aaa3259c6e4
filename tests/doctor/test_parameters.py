import pytest
import torch
from small_patient import has, known_trunk, seen_in
from torch import nn

from course_lib import ssd
from course_lib.doctor.parameters import CHECKS
from course_lib.doctor.setups import fresh

NAMES = [one.name for one in CHECKS]


@pytest.fixture
def setup(small_devkit):
    """A training whose trunk is known, and frozen in its first blocks."""
    return known_trunk(small_devkit)


def look(setup, *names):
    return seen_in(setup.patient(), *(names or NAMES))


def test_a_known_trunk_that_is_frozen_as_was_meant_is_healthy(setup):
    assert look(setup) == []


def random_model(setup):
    setup.model.load_state_dict(fresh(ssd.ssd_nano, setup.classes, seed=1).state_dict())


def rename(setup):
    setup.pretrained = {f"module.{name}": t for name, t in setup.pretrained.items()}


def rename_some(setup):
    setup.pretrained = {
        name if number % 4 else f"old.{name}": t for number, (name, t) in enumerate(setup.pretrained.items())
    }


def spoil(setup):
    setup.pretrained = {name: t * float("nan") if t.ndim > 1 else t for name, t in setup.pretrained.items()}


def cut(setup):
    setup.pretrained = {name: t[:1] if t.ndim > 1 else t for name, t in setup.pretrained.items()}


def freeze(part):
    return lambda setup: setup.model.get_submodule(part).requires_grad_(False)


def freeze_all(setup):
    setup.model.requires_grad_(False)


def melt(setup):
    setup.model.requires_grad_(True)


def fill_kernels(value):
    def change(setup):
        for p in setup.model.parameters():
            if p.ndim > 1:
                p.data.fill_(value)

    return change


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (random_model, "fault", "pretrained kernels are not in the model"),
        (rename, "fault", "have names that the model does not"),
        (rename_some, "warning", "have names that the model does not"),
        (spoil, "fault", "pretrained weights hold NaN"),
        (cut, "warning", "have another shape"),
        (freeze("conf_heads"), "fault", "parameters of the heads of the logits do not learn"),
        (freeze("loc_heads.0"), "fault", "parameters of the heads of the offsets do not learn"),
        (freeze("backbone"), "fault", "nobody has meant to freeze"),
        (freeze("extras.0"), "warning", "nobody has meant to freeze"),
        (freeze_all, "fault", "no parameter of the model learns"),
        (melt, "warning", "learn that were meant to stay"),
        (fill_kernels(0.0), "fault", "are the same: 0"),
        (fill_kernels(0.01), "fault", "are the same: 0.01"),
        (fill_kernels(float("nan")), "fault", "tensors of the model hold NaN"),
    ],
)
def test_other_weights_are_named(setup, change, severity, words):
    change(setup)
    has(look(setup), severity, words)


def test_frozen_parts_of_which_nothing_is_known_are_a_note_unless_they_are_heads(setup):
    setup.frozen = None
    assert [one.severity for one in look(setup, "parameters-learn")] == ["note"]
    setup.model.loc_heads.requires_grad_(False)
    assert look(setup, "parameters-learn")[0].severity == "fault"


def hide(name, keep):
    """Keep a part of the model in a list or dict of Python, where it is not registered."""

    def change(setup):
        layers = list(getattr(setup.model, name))
        delattr(setup.model, name)
        object.__setattr__(setup.model, name, keep(layers))

    return change


def hide_one_layer(setup):
    extra = setup.model.extras[0]
    setup.model.extras[0] = nn.Identity()
    usual = setup.model.extras[0].forward
    setup.model.extras[0].forward = lambda x: extra(usual(x))


def scale_by_a_tensor(setup):
    scale, usual = torch.ones(1, requires_grad=True), setup.model.feature_maps
    setup.model.feature_maps = lambda images: [features * scale for features in usual(images)]


UNREGISTERED = {
    "heads in a list": (hide("conf_heads", list), 8),
    "heads in a tuple": (hide("loc_heads", tuple), 8),
    "extras in a list": (hide("extras", list), 12),
    "one layer in a closure": (hide_one_layer, 6),
    "a tensor that is no parameter": (scale_by_a_tensor, 1),
}


@pytest.mark.parametrize("named", UNREGISTERED)
def test_layers_that_are_not_registered_are_named_alone(setup, named):
    change, count = UNREGISTERED[named]
    change(setup)
    findings = look(setup, "parameters-learn", "outputs-follow-the-image")
    assert [one.severity for one in findings] == ["fault"]
    assert f"{count} tensors that the outputs are made of" in findings[0].seen
    assert "are no parameters of the model" in findings[0].seen and "nn.ModuleList" in findings[0].cure


def test_what_the_optimizer_holds_though_the_model_does_not_is_a_warning(setup):
    extras, usual = list(setup.model.extras), setup.optimizer
    hide("extras", list)(setup)

    def optimizer(model):
        made = usual(model)
        made.add_param_group({"params": [p for extra in extras for p in extra.parameters()]})
        return made

    setup.optimizer = optimizer
    assert [one.severity for one in look(setup, "parameters-learn", "outputs-follow-the-image")] == ["warning"]


class Weighted:
    """A loss that learns how much its parts weigh."""

    def __init__(self, usual):
        self.usual, self.weights = usual, nn.Parameter(torch.zeros(2))

    def __call__(self, offsets, logits, told):
        parts = self.usual(offsets, logits, told).items()
        return {name: value * (-w).exp() + w for (name, value), w in zip(parts, self.weights, strict=True)}


@pytest.mark.parametrize("held", [True, False])
def test_learned_weights_of_a_loss_belong_into_the_optimizer(setup, held):
    setup.loss, usual = Weighted(setup.loss), setup.optimizer

    def optimizer(model):
        made = usual(model)
        made.add_param_group({"params": [setup.loss.weights]})
        return made

    if held:
        setup.optimizer = optimizer
    findings = look(setup)
    assert ["made of, 2, 2 numbers" in one.seen and one.severity == "warning" for one in findings] == (
        [] if held else [True]
    )


def quiet_l2_norm(setup):
    with torch.no_grad():
        setup.model.backbone.l2_norm.weight.fill_(1.0)


def biases_of_others(setup):
    """The model has those that it was made with, 0, and the file others."""
    setup.pretrained = {n: t + 0.1 if n.endswith("bias") else t for n, t in setup.pretrained.items()}


@pytest.mark.parametrize("spoil_scales", [quiet_l2_norm, biases_of_others])
def test_scales_and_biases_that_are_not_the_pretrained_ones_are_named(setup, spoil_scales):
    spoil_scales(setup)
    has(look(setup, "pretrained-is-there"), "warning", "scales and biases are not in the model")


def test_what_has_trained_may_have_other_scales(setup):
    with torch.no_grad():
        for parameter in setup.model.parameters():
            parameter *= 1.2
    assert look(setup, "pretrained-is-there") == []
