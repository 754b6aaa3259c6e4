"""Recipes: the numbers that decide what a run learns, and how a command line names them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from math import isfinite
from typing import Any, get_args

from course_lib.schedules import SCHEDULES

CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": tuple(SCHEDULES),
    "amp": ("off", "bf16", "fp16", "auto"),
}
ABOVE_ZERO = ("learning_rate", "clip_norm", "match_iou")
AT_LEAST = dict.fromkeys(("epochs", "batch_size", "micro_batches", "evaluate_every", "patience"), 1) | dict.fromkeys(
    ("backbone_factor", "bias_factor", "weight_decay", "warmup_steps", "frozen_blocks", "seed", "workers"), 0
)
AT_MOST = {"match_iou": 1}
# How the same is computed: these may differ when a run goes on, on a smaller card or on fewer cores.
BY_MACHINE = ("micro_batches", "workers", "channels_last", "compile")


@dataclass(frozen=True)
class Recipe:
    """All that decides what a run learns, beside its data and its model.

    Attributes:
        epochs: passes over the training set.
        batch_size: images per step, over all processes together.
        optimizer: "adamw" or "sgd" (momentum 0.9).
        learning_rate: peak rate.
        schedule: a name of `schedules.SCHEDULES`: how the rate comes to its peak, and goes from there.
        backbone_factor: rate of the backbone, as a multiple of `learning_rate`: what it has learned already
            should not be lost while the heads still guess.
        bias_factor: rate of biases and norms, as a multiple of `learning_rate`.
        weight_decay: on convolutions' weights only.
        warmup_steps: steps of the rise to the peak.
        clip_norm: gradients longer than this are shortened to it.
        amp: "off", "bf16", "fp16", or "auto": the best that the device has.
        evaluate_every: epochs between two measurements of mAP; the last epoch is always measured.
        frozen_blocks: of the backbone, which stay as they are.
        frozen_statistics: batch norm's in the rest of the backbone stay too, as they were before training.
        match_iou: overlap with an object from which a prior is to answer for it.
        patience: measurements without a new best before the run stops; None: it never does.
        seed: of the order of images and of their augmentation.
        micro_batches: parts in which each process reads its share of a batch, one after the other, so that less
            memory is needed; the gradients are those of the whole. Batch norm's statistics are those of a part.
        workers: processes that load images, beside the one that trains; None: what fits the machine.
        channels_last: how convolutions' weights lie in memory; most devices compute faster with it.
        compile: let torch.compile write the network's code anew; it takes minutes before the first step.

    Raises:
        ValueError: a value is of another type, or out of its range.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str = "warmup_cosine"
    backbone_factor: float = 1.0
    bias_factor: float = 1.0
    weight_decay: float = 5e-4
    warmup_steps: int = 100
    clip_norm: float = 10.0
    amp: str = "off"
    evaluate_every: int = 1
    frozen_blocks: int = 0
    frozen_statistics: bool = False
    match_iou: float = 0.5
    patience: int | None = None
    seed: int = 0
    micro_batches: int = 1
    workers: int | None = None
    channels_last: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            require(one.name, one.type, getattr(self, one.name))

    def changed(self, settings: Sequence[str]) -> "Recipe":
        """The recipe with other values, as a command line names them.

        Args:
            settings: such as `["batch_size=16", "amp=bf16", "patience=none"]`; of two for one field the last counts.

        Raises:
            ValueError: a field that there is not, or a value that does not fit.
        """
        types = {one.name: one.type for one in fields(self)}
        values = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise ValueError(f"{setting!r} has no value: write NAME=VALUE, such as batch_size=16")
            if name not in types:
                near = get_close_matches(name, types, n=1)
                meant = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"{name!r} is no field of a recipe: {meant}there are {', '.join(types)}")
            values[name] = parsed(text, types[name])
            require(name, types[name], values[name])
        return replace(self, **values)


def parsed(text: str, kind: Any) -> int | float | str | bool | None:
    """The value that a text stands for; the text itself where it stands for none of that type."""
    words = {"true": True, "false": False} if kind is bool else {"none": None} if get_args(kind) else {}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        if number in (kind, *get_args(kind)):
            try:
                return number(text)
            except ValueError:
                return text
    return text


def require(name: str, kind: Any, value: object) -> None:
    """Refuse a value that a field cannot have."""
    if not allowed(name, kind, value):
        raise ValueError(f"{name} is {value!r}: use {expected(name, kind)}")


def allowed(name: str, kind: Any, value: object) -> bool:
    """Whether a field may have a value."""
    if name in CHOICES:
        return value in CHOICES[name]
    kinds = get_args(kind) or (kind,)
    if value is None or isinstance(value, bool):
        return type(value) in kinds
    if not isinstance(value, (int, float) if float in kinds else kinds) or not isfinite(value):
        return False
    return (value > 0 if name in ABOVE_ZERO else value >= AT_LEAST[name]) and value <= AT_MOST.get(name, value)


def expected(name: str, kind: Any) -> str:
    """What a field may be, in words."""
    if name in CHOICES:
        return f"{', '.join(CHOICES[name][:-1])} or {CHOICES[name][-1]}"
    if kind is bool:
        return "true or false"
    number = "a number" if kind is float else "a whole number"
    bound = "above 0" if name in ABOVE_ZERO else f"of at least {AT_LEAST[name]}"
    most = f" and at most {AT_MOST[name]}" if name in AT_MOST else ""
    return f"{number} {bound}{most}" + (", or none" if get_args(kind) else "")


# Photographs of a reader's own, for a light detector whose trunk ImageNet has taught.
PHOTOS = Recipe(
    epochs=12,
    batch_size=16,
    optimizer="adamw",
    learning_rate=1e-3,
    backbone_factor=0.2,
    warmup_steps=50,
    evaluate_every=4,
    frozen_blocks=6,  # the stem and the residuals down to stride 8: edges and textures, on the largest maps
    frozen_statistics=True,
)

# The doctor's small training: EmojiVOC at 96 pixels on the recorded detector's trunk.
NANO = Recipe(
    epochs=6,
    batch_size=16,
    optimizer="adamw",
    learning_rate=5e-3,
    backbone_factor=0.4,
    warmup_steps=20,
    frozen_blocks=2,
    match_iou=0.4,
)
