import pytest
from small_patient import has, known_trunk, seen_in

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


def test_layers_in_a_plain_list_are_named(setup):
    model = setup.model
    heads = list(model.conf_heads)
    del model.conf_heads
    model.conf_heads = heads
    has(look(setup, "parameters-learn"), "fault", "are no parameters of the model")
