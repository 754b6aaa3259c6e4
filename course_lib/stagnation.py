"""An SSD-MobileNetV2 that stands still: what people name as the cause, planted in a training that learns, and cures.

The training is the doctor's small one with another network, which is a detector already: its class heads begin anew,
as they do for other classes. `as_it_is` is what it should be; of each `Cause` one arm fails and the others are its
cures. Whether they do is what `experiments/mobilenet.py` measures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import augment, recipes, schedules, ssd, training
from course_lib.backbones import InvertedResiduals
from course_lib.doctor.setups import InMemory, Setup, fresh, healthy
from course_lib.priors import ssd_lite

SIDE = 128  # pixels
STEPS = 240
RECIPE = replace(recipes.NANO, learning_rate=1e-2, backbone_factor=0.1, frozen_blocks=0)
FEW = 16  # pictures
SMALL = 2  # images in a batch

SSD_SMALL = replace(ssd.ssd_mobilenet_v2, spec=ssd_lite(SIDE))

Change = Callable[[Setup], None]


def detector_setup(data: Any, held_out: Any, taught: Mapping[str, Tensor] | None, seed: int = 0) -> Setup:
    """The training that causes spoil: of all weights of a detector, some of which have been taught.

    Args:
        taught: tensors by their names in a detector, see `taught_parts`; None: all begin anew.
    """
    setup = healthy(data, held_out, None, seed)
    model = fresh(SSD_SMALL, setup.classes, seed)
    if taught is not None:
        model.load_state_dict(taught, strict=False)
    setup.model, setup.priors, setup.pretrained = model.train(), model.priors, taught
    setup.transform = augment.training_mini(SIDE)
    setup.steps = STEPS
    learn(setup)
    return setup


def taught_parts(detector: ssd.SSD) -> dict[str, Tensor]:
    """A copy of all tensors of a trained detector but those of its class heads, which begin anew with other classes."""
    state = detector.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if not name.startswith("conf_heads.")}


def learn(setup: Setup, **changes: Any) -> None:
    """Learn by the recipe, with other numbers, over the set-up's steps."""
    recipe = replace(RECIPE, **changes)
    setup.optimizer = partial(training.make_optimizer, recipe=recipe)
    schedule = schedules.SCHEDULES[recipe.schedule]
    setup.schedule = partial(schedule, warmup_steps=recipe.warmup_steps, total_steps=setup.steps)
    setup.clip_norm = recipe.clip_norm


def random_trunk(setup: Setup) -> None:
    """The trunk has learned nothing."""
    model = fresh(SSD_SMALL, setup.classes, seed=1)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("backbone.")}
    setup.model.load_state_dict(own, strict=False)
    setup.pretrained = None


def random_trunk_longer(setup: Setup, times: int = 4) -> None:
    """It has learned nothing, and has time to learn."""
    random_trunk(setup)
    setup.steps = STEPS * times
    learn(setup)


def freeze(setup: Setup, blocks: int | None = None, statistics: bool = False) -> None:
    """Keep the trunk's first blocks as they are, or all."""
    backbone = setup.model.backbone
    backbone.freeze(len(backbone.blocks()) if blocks is None else blocks, statistics)
    setup.frozen = tuple(name for name, p in setup.model.named_parameters() if not p.requires_grad)


def frozen_random_trunk(setup: Setup) -> None:
    """A trunk that has learned nothing is frozen, as one that ImageNet has taught may be."""
    random_trunk(setup)
    freeze(setup)


def decay_of_all(setup: Setup, decay: float = 0.1) -> None:
    """Adam with a penalty as AdamW may have it, and on all parameters: norms, biases and depthwise kernels too."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = training.parameter_groups(model, RECIPE)
        return torch.optim.Adam([group | {"weight_decay": decay} for group in groups])

    setup.optimizer = optimizer


def decay_of_dense_kernels(setup: Setup, decay: float = 0.1) -> None:
    """The same penalty where it is meant: on kernels that mix channels."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        thin = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1}
        groups = []
        for group in training.parameter_groups(model, RECIPE):
            parts = [p for p in group["params"] if id(p) in thin], [p for p in group["params"] if id(p) not in thin]
            groups += [
                group | {"params": part, "weight_decay": 0.0 if spared or "kernels" not in group["name"] else decay}
                for spared, part in zip((True, False), parts, strict=True)
            ]
        return torch.optim.Adam(groups)

    setup.optimizer = optimizer


def small_batches(setup: Setup) -> None:
    """Two images at a time, for want of memory; as many images are seen in all, at a rate in proportion."""
    factor = setup.batch_size // SMALL
    setup.batch_size, setup.steps = SMALL, STEPS * factor
    learn(setup, learning_rate=RECIPE.learning_rate / factor, warmup_steps=RECIPE.warmup_steps * factor)


def small_batches_frozen_statistics(setup: Setup) -> None:
    """The same, and the trunk's statistics stay those of its own training."""
    small_batches(setup)
    freeze(setup, 0, statistics=True)


def small_batches_slow_statistics(setup: Setup, momentum: float = 0.01) -> None:
    """The same, and batch norm keeps the mean of hundreds of batches."""
    small_batches(setup)
    for layer in setup.model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum


def few_pictures(setup: Setup) -> None:
    """Sixteen pictures, as they are."""
    few_pictures_augmented(setup)
    setup.transform = augment.evaluation(SIDE)


def few_pictures_augmented(setup: Setup) -> None:
    """Sixteen pictures, each another one every time."""
    setup.data = InMemory(tuple(setup.data[index] for index in range(FEW)), tuple(setup.data.classes))


def as_it_is(setup: Setup) -> None:
    """The training as it should be."""


@dataclass(frozen=True)
class Cause:
    """What people name when an SSD-MobileNetV2 stands still.

    Attributes:
        says: the advice, in our words.
        fails: plants it in a training that learns.
        cures: by name, what to do instead.
    """

    title: str
    says: str
    fails: Change
    cures: Mapping[str, Change]


def rate(factor: float) -> Change:
    """So many times the rate."""
    return lambda setup: learn(setup, learning_rate=RECIPE.learning_rate * factor)


CAUSES = {
    "rate too high": Cause(
        "The steps are too long",
        "A rate that is too high makes the training swing about and never settle.",
        rate(100),
        {"a hundredth of it": as_it_is},
    ),
    "rate too low": Cause(
        "The steps are too short",
        "A rate that is too low learns so slowly that it looks like standing still.",
        rate(1 / 1000),
        {"a thousand times as much": as_it_is},
    ),
    "decay of all": Cause(
        "Weight decay on depthwise kernels and norms",
        "Regularisation that is not tuned with care stops the training.",
        decay_of_all,
        {"on dense kernels alone": decay_of_dense_kernels, "AdamW, on kernels": as_it_is},
    ),
    "small batches": Cause(
        "Batch norm's statistics of two images",
        "Small batches make gradients noisy and the training slow.",
        small_batches,
        {
            "frozen statistics": small_batches_frozen_statistics,
            "slow statistics": small_batches_slow_statistics,
            "batches of sixteen": as_it_is,
        },
    ),
    "frozen random trunk": Cause(
        "A trunk that knows nothing and may not learn",
        "Parts of a network of depthwise convolutions learn slowly or not at all.",
        frozen_random_trunk,
        {
            "let it learn": random_trunk,
            "let it learn, four times as long": random_trunk_longer,
            "a taught trunk, frozen": freeze,
            "a taught trunk that learns": as_it_is,
        },
    ),
    "few pictures": Cause(
        "Learned by heart",
        "Too little data: it is good on what it has seen, and bad on the rest.",
        few_pictures,
        {"augmentation": few_pictures_augmented, "more pictures": as_it_is},
    ),
}


def name_of_arm(cause: str, cure: str | None = None) -> str:
    """What an arm is called: in small letters, with hyphens; the one that fails by its cause alone."""
    return cause.replace(" ", "-") if cure is None else f"{cause}--{cure}".replace(" ", "-").replace(",", "").lower()


def arm_of(cause: str, cure: str | None = None) -> str:
    """The arm that shows a cause, or one of its cures; "as-it-is" cures several.

    Args:
        cause: a key of `CAUSES`.
        cure: of its cures; None: the arm that fails.
    """
    is_usual = cure is not None and CAUSES[cause].cures[cure] is as_it_is
    return "as-it-is" if is_usual else name_of_arm(cause, cure)


ARMS: dict[str, Change] = {"as-it-is": as_it_is}
for _name, _cause in CAUSES.items():
    ARMS[name_of_arm(_name)] = _cause.fails
    ARMS |= {name_of_arm(_name, cure): change for cure, change in _cause.cures.items() if change is not as_it_is}


def layers_of(model: ssd.SSD) -> dict[str, nn.Module]:
    """The layers of a detector's trunk by which gradients are looked at, from the image on: see `convergence.flowing`.

    Of inverted residuals the stem and each residual; of others each rectifier.
    """
    if isinstance(model.backbone, InvertedResiduals):
        return dict(zip(("stem", *map(str, range(1, 100))), model.backbone.blocks(), strict=False))
    return {name: one for name, one in model.backbone.named_modules() if isinstance(one, nn.ReLU)}
