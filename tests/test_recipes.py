from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import profiles
from course_lib.doctor import controls
from course_lib.recipes import ABOVE_ZERO, AT_LEAST, BY_MACHINE, CHOICES, Recipe

RECIPE = Recipe(epochs=3, batch_size=4, optimizer="adamw", learning_rate=1e-3)


@st.composite
def recipes(draw):
    """Recipes of all kinds, within the ranges."""
    share, count = st.floats(0, 2), st.integers(0, 10**6)
    return Recipe(
        **{name: draw(st.sampled_from(values)) for name, values in CHOICES.items()},
        **{name: draw(count) + 1 for name in ("epochs", "batch_size", "micro_batches", "evaluate_every")},
        **{name: draw(count) for name in ("warmup_steps", "frozen_blocks", "seed")},
        **{name: draw(share) for name in ("backbone_factor", "bias_factor", "weight_decay")},
        **{name: draw(st.floats(1e-12, 1)) for name in ("learning_rate", "clip_norm", "match_iou")},
        **{name: draw(st.booleans()) for name in ("channels_last", "compile")},
        patience=draw(st.none() | st.integers(1, 9)),
        workers=draw(st.none() | st.integers(0, 9)),
    )


@given(recipes())
def test_every_recipe_can_be_named_in_words(recipe):
    assert RECIPE.changed([f"{name}={value}" for name, value in asdict(recipe).items()]) == recipe


def test_a_command_line_changes_what_it_names_and_nothing_else():
    changed = RECIPE.changed(
        ["batch_size=16", "learning_rate=1e-4", "patience=3", "compile=True", "amp=bf16", "workers=0", "batch_size=8"]
    )
    named = {"batch_size": 8, "learning_rate": 1e-4, "patience": 3, "compile": True, "amp": "bf16", "workers": 0}
    assert asdict(changed) == asdict(RECIPE) | named
    assert changed.changed(["patience=none"]).patience is None and RECIPE.changed([]) == RECIPE
    assert type(RECIPE.changed(["learning_rate=1"]).learning_rate) is float


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size", "'batch_size' has no value: write NAME=VALUE"),
        ("batchsize=4", "'batchsize' is no field of a recipe: did you mean batch_size[?] there are epochs, "),
        ("=4", "'' is no field of a recipe: there are epochs, batch_size, "),
        ("batch_size=", "batch_size is '': use a whole number of at least 1"),
        ("batch_size=many", "batch_size is 'many': use a whole number of at least 1"),
        ("batch_size=8.5", "batch_size is '8.5': use a whole number"),
        ("batch_size=0", "batch_size is 0: use a whole number of at least 1"),
        ("batch_size=none", "batch_size is 'none': use a whole number"),
        ("learning_rate=fast", "learning_rate is 'fast': use a number above 0"),
        ("learning_rate=nan", "learning_rate is nan: use a number above 0"),
        ("learning_rate=inf", "learning_rate is inf: use a number above 0"),
        ("learning_rate=0", "learning_rate is 0.0: use a number above 0"),
        ("weight_decay=-1", "weight_decay is -1.0: use a number of at least 0"),
        ("match_iou=1.5", "match_iou is 1.5: use a number above 0 and at most 1"),
        ("patience=0", "patience is 0: use a whole number of at least 1, or none"),
        ("workers=-1", "workers is -1: use a whole number of at least 0, or none"),
        ("warmup_steps=true", "warmup_steps is 'true': use a whole number of at least 0"),
        ("compile=1", "compile is '1': use true or false"),
        ("optimizer=adam", "optimizer is 'adam': use adamw or sgd"),
        ("schedule=cosine", "schedule is 'cosine': use warmup_cosine, step_drops, .* or constant"),
        ("amp=yes", "amp is 'yes': use off, bf16, fp16 or auto"),
    ],
)
def test_what_no_recipe_can_have_is_refused_by_its_name(setting, message):
    with pytest.raises(ValueError, match=message):
        RECIPE.changed([setting])


def test_every_field_has_a_range_and_a_line_in_the_docstring():
    for field in fields(Recipe):
        assert f"        {field.name}: " in Recipe.__doc__
        with pytest.raises(ValueError, match=f"^{field.name} is '?-1"):
            RECIPE.changed([f"{field.name}=-1"])
        assert field.type not in (int, float) or field.name in ABOVE_ZERO or field.name in AT_LEAST
    assert set(BY_MACHINE) < {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_the_profiles_recipes_are_what_they_were_before_a_recipe_had_these_fields(name):
    """A default must mean what runs did before there was the field: a run that is gone on with keeps its course."""
    recipe = profiles.PROFILES[name]().recipe
    assert (recipe.schedule, recipe.micro_batches, recipe.channels_last, recipe.compile, recipe.workers) == (
        "warmup_cosine", 1, True, False, None,
    )  # fmt: skip


def test_photographs_are_learned_by_one_recipe():
    assert profiles.photos().recipe is controls.PHOTOS
