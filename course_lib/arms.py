"""Arms: what the questions of chapter 15 change in one and the same small training.

`baseline` is that training; an arm changes it as an exhibit of the doctor's museum does. All are trained alike, by
`trials`, and two that have one seed start from the same weights and see the same images in the same order. An arm says
how much more or less than the set-up has, so that it can be carried over to a larger `Scale`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CyclicLR

from course_lib import augment, losses, recipes, schedules, ssd, training
from course_lib.backbones import PIXEL_MEAN
from course_lib.doctor import controls, exhibits_loss, exhibits_matching, exhibits_optimisation
from course_lib.doctor.exhibits_data import CIFAR_MEAN, CIFAR_STD
from course_lib.doctor.setups import Changed, InMemory, Setup, fresh, healthy, names_of_frozen
from course_lib.matching import Matches
from course_lib.voc import Batch, Target

# Where four of the trunk's five blocks stay as they are, a step costs half, and twice as many fit into 40 seconds.
RECIPE = replace(recipes.NANO, frozen_blocks=4, warmup_steps=12)
STEPS, IMAGES = 140, 600  # of the baseline
SIDE = 144  # pixels that are kept of an image: half as many again as the network sees
RARE = slice(None, None, 4)  # of the classes: every fourth is rare where classes are imbalanced
RARER = 10  # times fewer images show a rare class there


@dataclass(frozen=True)
class Scale:
    """How large the training is that the arms change.

    Attributes:
        steps: of the baseline.
        images: that it learns from.
        augmentation: from the image's side to the transform.
    """

    architecture: ssd.Architecture
    recipe: recipes.Recipe
    steps: int
    images: int
    augmentation: Callable[[int], augment.Augment] = augment.training_mini


NANO = Scale(ssd.ssd_nano, RECIPE, STEPS, IMAGES)


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        label: what it changes, in a few words.
        change: the set-up of the baseline, in place.
        choosing: see `trials.Trial`.
        scan: of `RATES`: the rate that it chose is `change`'s `learning_rate`.
    """

    label: str
    change: Callable[..., None]
    choosing: bool = False
    scan: str | None = None


@dataclass(frozen=True)
class Chosen(Sequence):
    """Some images of a pool, in an order of their own; one may come several times."""

    pool: InMemory
    rows: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pool.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple:
        return self.pool[self.rows[index]]


def baseline(pool: InMemory, held_out: InMemory, trunk: ssd.SSD, seed: int, scale: Scale = NANO) -> Setup:
    """What every arm changes: by default `ssd_nano` on the recorded detector's trunk, on the first of the pool.

    Args:
        pool: all images that an arm may learn from; see `trials.shrunk_to`.
        held_out: measured on the way.
        trunk: see `setups.healthy`.
        seed: of the heads' weights, the order of the images and their augmentation.
    """
    data = Chosen(pool, tuple(range(min(scale.images, len(pool)))))
    setup = healthy(data, held_out, trunk, seed, scale.architecture, scale.recipe)
    setup.transform = scale.augmentation(setup.model.image_size)
    setup.steps = scale.steps
    scheduled(setup, schedules.warmup_cosine)
    return setup


def lasting(setup: Setup, factor: float) -> None:
    """Train so many times as long, on a schedule of that length."""
    setup.steps = round(setup.steps * factor)
    scheduled(setup, schedules.warmup_cosine)


# The rate.


def scheduled(setup: Setup, schedule: Callable, warmup_steps: int | None = None, **options) -> None:
    """Another schedule over all steps; its warmup is the recipe's, where no other is given."""
    warmup = setup.recipe.warmup_steps if warmup_steps is None else warmup_steps
    setup.schedule = partial(schedule, warmup_steps=warmup, total_steps=setup.steps, **options)


def with_recipe(setup: Setup, **changes) -> None:
    """The usual optimizer with other numbers."""
    controls.with_recipe(setup, **changes)


def with_rate(setup: Setup, factor: float) -> None:
    with_recipe(setup, learning_rate=factor * setup.recipe.learning_rate)


def with_decay(setup: Setup, factor: float) -> None:
    with_recipe(setup, weight_decay=factor * setup.recipe.weight_decay)


def with_rate_at_once(setup: Setup, factor: float) -> None:
    """The rate from the first step on: no warmup."""
    with_rate(setup, factor)
    scheduled(setup, schedules.warmup_cosine, warmup_steps=0)


# What is optimised, and how.


def optimised(setup: Setup, kind: type[torch.optim.Optimizer], learning_rate: float, **options) -> None:
    """Another optimizer on the same parameter groups."""
    recipe = replace(setup.recipe, learning_rate=learning_rate)
    setup.optimizer = lambda model: kind(training.parameter_groups(model, recipe), **options)


def in_batches(setup: Setup, size: int, scaled: bool) -> None:
    """Batches of another size, as many images in all.

    Args:
        scaled: the rate grows with the batch, in proportion.
    """
    factor = size / setup.batch_size
    setup.batch_size, setup.steps = size, round(setup.steps / factor)
    scheduled(setup, schedules.warmup_cosine, warmup_steps=round(setup.recipe.warmup_steps / factor))
    if scaled:
        with_rate(setup, factor)


def clipped_at(setup: Setup, length: float | None) -> None:
    setup.clip_norm = length


def clipped_by_parameter(setup: Setup) -> None:
    """Each parameter's gradient is shortened to 1 by itself, and nothing else, as by Keras's `clipnorm`."""
    exhibits_optimisation.each_variable_clipped(setup)
    setup.clip_norm = None


def in_bf16(setup: Setup) -> None:
    """Convolutions compute in bfloat16."""

    def outputs(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return setup.model(setup.images(batch))

    setup.further["outputs"] = outputs


# The pages' own numbers, as they stand there.


def all_alike(setup: Setup, kind: type[torch.optim.Optimizer], learning_rate: float, **options) -> None:
    """One group for all parameters that learn, a rate that stays, and no clipping."""
    setup.optimizer = lambda model: kind([p for p in model.parameters() if p.requires_grad], learning_rate, **options)
    setup.schedule = setup.clip_norm = None


def cyclical_as_published(setup: Setup) -> None:
    """AdamW at 1e-4; the rate is to go from 1e-5 to 1e-3 within 2000 steps, and down again."""
    all_alike(setup, torch.optim.AdamW, 1e-4)
    setup.schedule = partial(
        CyclicLR, base_lr=1e-5, max_lr=1e-3, step_size_up=2000, step_size_down=2000, mode="triangular2"
    )


def plateau_of_batches_as_published(setup: Setup) -> None:
    """AdamW at 1e-3, decay 1e-4; the rate falls by what a single batch costs."""
    all_alike(setup, torch.optim.AdamW, 1e-3, weight_decay=1e-4)
    exhibits_optimisation.plateau_of_batches(setup)


def plateau_as_published(setup: Setup) -> None:
    """Adam at 1e-3; the rate falls after more than 5 measurements without a new best."""
    all_alike(setup, torch.optim.Adam, 1e-3)
    scheduled(setup, schedules.plateau, warmup_steps=0, patience=5)


def clipped_as_published(setup: Setup) -> None:
    """Adam at 1e-3, each parameter's gradient shortened to 1."""
    all_alike(setup, torch.optim.Adam, 1e-3)
    clipped_by_parameter(setup)


# The data.


def taken(setup: Setup, rows: Sequence[int]) -> None:
    """Learn from these images of the pool."""
    setup.data = Chosen(setup.data.pool, tuple(rows))


def with_images(setup: Setup, factor: float) -> None:
    """So many times as many images, or all that there are."""
    taken(setup, range(min(round(factor * len(setup.data)), len(setup.data.pool))))


def with_objects(setup: Setup, change: Callable[[Target, np.random.Generator], Target]) -> None:
    """Annotate every image that is learned from otherwise, by the set-up's seed, and always in the same way."""

    def changed(index: int, image: np.ndarray, target: Target) -> tuple:
        return image, change(target, np.random.default_rng([setup.seed, index]))

    setup.data = Changed(setup.data, changed)


def inaccurate_boxes(setup: Setup, share: float) -> None:
    """Every edge of every box is off by up to this share of the box's side."""

    def change(target: Target, chance: np.random.Generator) -> Target:
        sides = (target.boxes[:, 2:] - target.boxes[:, :2]).repeat(1, 2)
        off = torch.from_numpy(chance.uniform(-share, share, sides.shape)).float()
        return replace(target, boxes=(target.boxes + off * sides).clamp(0, 1))

    with_objects(setup, change)


def wrong_labels(setup: Setup, share: float) -> None:
    """This share of the objects has the name of another class."""
    classes = len(setup.classes)

    def change(target: Target, chance: np.random.Generator) -> Target:
        wrong = torch.from_numpy(chance.random(len(target.labels)) < share)
        other = torch.from_numpy(chance.integers(1, classes, len(target.labels)))
        return replace(target, labels=torch.where(wrong, (target.labels - 1 + other) % classes + 1, target.labels))

    with_objects(setup, change)


def missing_objects(setup: Setup, share: float) -> None:
    """This share of the objects is not annotated."""

    def change(target: Target, chance: np.random.Generator) -> Target:
        kept = torch.from_numpy(chance.random(len(target.labels)) >= share)
        fields = ("boxes", "labels", "difficult")
        return replace(target, **{name: getattr(target, name)[kept] for name in fields})

    with_objects(setup, change)


# Classes that are rare.


def shows_rare(setup: Setup, row: int) -> bool:
    """Whether an image of the pool shows a class of `RARE`."""
    rare = range(1, len(setup.classes) + 1)[RARE]
    return any(label in rare for label in setup.data.pool[row][1].labels.tolist())


def imbalanced(setup: Setup) -> None:
    """As many images as the baseline's, but of those that show a rare class only one in `RARER`."""
    pool = range(len(setup.data.pool))
    rare = [row for row in pool if shows_rare(setup, row)]
    left_out = set(rare) - set(rare[::RARER])
    taken(setup, [row for row in pool if row not in left_out][: len(setup.data)])


def weighted_by_class(setup: Setup) -> None:
    """The cross entropy of a class counts as much more as its objects are fewer than the mean; background counts 1."""
    labels = torch.cat([setup.data[index][1].labels for index in range(len(setup.data))])
    counts = torch.bincount(labels, minlength=len(setup.classes) + 1)[1:].clamp(min=1)
    weights = torch.cat([torch.ones(1), counts.float().mean() / counts])
    setup.loss = losses.MultiBoxLoss(class_weights=weights)


def oversampled(setup: Setup) -> None:
    """Every image that shows a rare class comes `RARER` times an epoch."""
    taken(setup, [row for row in setup.data.rows for _ in range(RARER if shows_rare(setup, row) else 1)])


def imbalanced_and(change: Callable[..., None], **options) -> Callable[[Setup], None]:
    """An imbalanced training set, and something against it."""

    def both(setup: Setup) -> None:
        imbalanced(setup)
        change(setup, **options)

    return both


# Augmentation. Crop and zoom-out come before the image is brought to the network's size, all others after it.

TRANSFORMS = {
    "crop": augment.IoUCrop,
    "zoom-out": augment.ZoomOut,
    "flip": partial(A.HorizontalFlip, p=0.5),
    "zoom-and-shift": partial(
        A.Affine, scale=(0.7, 1.45), translate_percent=(-0.2, 0.2), keep_ratio=False, fill=PIXEL_MEAN, p=0.5
    ),
    "rotation": partial(A.Rotate, limit=15, border_mode=cv2.BORDER_CONSTANT, fill=PIXEL_MEAN, p=0.5),
    "colour": partial(
        A.ColorJitter, brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.1, 0.1), p=0.5
    ),
    "blur": partial(A.GaussianBlur, p=0.5),
    "noise": partial(A.GaussNoise, p=0.5),
    "shadow": partial(A.RandomShadow, p=0.5),
    "erasing": partial(A.CoarseDropout, p=0.5),
}
BEFORE = ("crop", "zoom-out")
USUAL = ("flip", "zoom-and-shift", "colour")  # `augment.training_mini`


def augmented(setup: Setup, *names: str) -> None:
    """These transforms, and no others."""
    size = setup.model.image_size
    before, after = ([TRANSFORMS[name]() for name in names if (name in BEFORE) == first] for first in (True, False))
    resize = A.Resize(size, size, interpolation=cv2.INTER_LINEAR)
    setup.transform = augment.Augment([*before, resize, *after], min_visibility=1 / 3)


def augmented_as_published(setup: Setup) -> None:
    """Flipped either way, turned by 15 degrees, lit otherwise, and a window of the network's size cut out."""
    size = setup.model.image_size
    setup.transform = augment.Augment(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Rotate(limit=15, p=0.5),
            A.RandomBrightnessContrast(p=0.5),
            A.RandomCrop(size, size, p=1.0),
        ],
        min_visibility=1 / 3,
    )


def optimised_not_augmented(setup: Setup, **options) -> None:
    """Another optimizer, and no transform."""
    optimised(setup, **options)
    augmented(setup)


# The network, and what it starts from.


def frozen(setup: Setup, blocks: int | None = None) -> None:
    """Another number of the trunk's blocks stays as it is; None: all of them."""
    backbone = setup.model.requires_grad_(True).backbone
    backbone.freeze(len(backbone.blocks()) if blocks is None else blocks, setup.recipe.frozen_statistics)
    setup.frozen = names_of_frozen(setup.model)


def adopted(setup: Setup, **changes) -> None:
    """The network with other parts, which begin at random; what is taught is frozen as before."""
    setup.adopt(fresh(replace(setup.architecture, **changes), setup.classes, setup.seed))


def untaught(setup: Setup, lasting_factor: float = 1, **changes) -> None:
    """A trunk of random weights, perhaps another VGG, of which all learns at the full rate."""
    setup.pretrained = None
    adopted(setup, backbone=partial(setup.architecture.backbone, **changes))
    with_recipe(setup, backbone_factor=1.0)
    lasting(setup, lasting_factor)


def two_heads_at_one_stride(setup: Setup) -> None:
    """Maps of 12, 6, 6 and 4 cells: the published 37, 18, 18 and 9, at this size."""
    exhibits_matching.two_heads_at_one_stride(setup)


def heads(setup: Setup) -> list[nn.Conv2d]:
    return [*setup.model.loc_heads, *setup.model.conf_heads]


def dropped_out(setup: Setup, share: float) -> None:
    """Dropout before every head."""
    for some in (setup.model.loc_heads, setup.model.conf_heads):
        for index, head in enumerate(some):
            some[index] = nn.Sequential(nn.Dropout(share), head)


def heads_by_he(setup: Setup) -> None:
    """The heads begin with He's deviation, in place of 0.01."""
    with torch.random.fork_rng():
        torch.manual_seed(setup.seed)
        for head in heads(setup):
            nn.init.kaiming_normal_(head.weight, mode="fan_out", nonlinearity="relu")


def heads_by_torch(setup: Setup) -> None:
    """The heads begin as PyTorch makes a convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(setup.seed)
        for head in heads(setup):
            head.reset_parameters()


def normalised_as_cifar(setup: Setup) -> None:
    """CIFAR-10's mean and deviation, in the unit of the pixels, for a trunk that was taught with others."""
    for buffer, numbers in ((setup.model.mean, CIFAR_MEAN), (setup.model.std, CIFAR_STD)):
        buffer.copy_(255 * torch.tensor(numbers)[:, None, None])


# The loss.


def with_loss(setup: Setup, loss: losses.Loss) -> None:
    controls.with_loss(setup, loss)


def squared_errors(setup: Setup) -> None:
    """The squared error of the class probabilities in place of cross entropy, all else as in `MultiBoxLoss`."""

    def loss(offsets: Tensor, logits: Tensor, matches: Matches) -> dict[str, Tensor]:
        positives = matches.labels > 0
        count = positives.sum(dim=1, keepdim=True)
        wanted = F.one_hot(matches.labels, logits.shape[-1]).float()
        cost = (logits.softmax(dim=-1) - wanted).square().sum(dim=-1)
        chosen = positives | losses.hardest(cost.detach().masked_fill(positives, -1.0), 3 * count)
        normaliser = count.sum().clamp(min=1)
        loc = losses.localisation_loss(offsets, matches.offsets, positives)
        return {"loc": loc / normaliser, "conf": torch.where(chosen, cost, 0.0).sum() / normaliser}

    setup.loss = loss


# How long.


def overfitting(setup: Setup) -> None:
    """A quarter of the images, no augmentation, a rate that stays high, twice the time: the last moment may not be the
    best."""
    with_images(setup, 1 / 4)
    augmented(setup)
    lasting(setup, 2)
    scheduled(setup, schedules.constant)


SGD, Adam, AdamW, RMSprop = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop

# The rates among which a scan chooses for an arm of that name, a factor of about 3 apart.
RATES: dict[str, tuple[float, ...]] = {
    "adamw": (5e-4, 1.5e-3, 5e-3, 1.5e-2),
    "adam": (5e-4, 1.5e-3, 5e-3, 1.5e-2),
    "rmsprop": (1.5e-4, 5e-4, 1.5e-3, 5e-3),
    "sgd-0": (3e-2, 0.1, 0.3, 1.0),
    "sgd-0.9": (3e-3, 1e-2, 3e-2, 0.1),
    "sgd-0.99": (3e-4, 1e-3, 3e-3, 1e-2),
}


def unchanged(setup: Setup) -> None:
    """The baseline."""


ARMS: dict[str, Arm] = {
    "baseline": Arm("baseline", unchanged),
    # the rate
    "rate-30": Arm("rate x 30", partial(with_rate, factor=30)),
    "rate-10": Arm("rate x 10", partial(with_rate, factor=10)),
    "rate-3": Arm("rate x 3", partial(with_rate, factor=3)),
    "rate-third": Arm("rate x 1/3", partial(with_rate, factor=1 / 3)),
    "rate-tenth": Arm("rate x 1/10", partial(with_rate, factor=1 / 10)),
    "rate-thirtieth": Arm("rate x 1/30", partial(with_rate, factor=1 / 30)),
    "constant": Arm("rate stays", partial(scheduled, schedule=schedules.constant)),
    "step-drops": Arm("two drops to a tenth", partial(scheduled, schedule=schedules.step_drops)),
    "staircase": Arm("exponential staircase", partial(scheduled, schedule=schedules.staircase)),
    "triangular2": Arm("cyclical: triangular2", partial(scheduled, schedule=schedules.triangular2)),
    "plateau": Arm("plateau of held-out loss", partial(scheduled, schedule=schedules.plateau, patience=1)),
    "plateau-of-batches": Arm("plateau of one batch's loss", exhibits_optimisation.plateau_of_batches),
    "no-warmup": Arm("no warmup", partial(with_rate_at_once, factor=1)),
    "rate-3-no-warmup": Arm("rate x 3, no warmup", partial(with_rate_at_once, factor=3)),
    "rate-10-no-warmup": Arm("rate x 10, no warmup", partial(with_rate_at_once, factor=10)),
    "page-cyclical": Arm("page 1: AdamW, cycles of 4000", cyclical_as_published),
    "page-plateau-of-batches": Arm("page 2: AdamW, plateau by batch", plateau_of_batches_as_published),
    "page-plateau": Arm("page 3: Adam, plateau", plateau_as_published),
    "page-adam": Arm("page 4: Adam, stairs of 10,000", partial(all_alike, kind=Adam, learning_rate=1e-3)),
    "page-clipping": Arm("page 4: Adam, clipnorm 1", clipped_as_published),
    # what is optimised, and how
    "adamw": Arm("AdamW", partial(optimised, kind=AdamW), scan="adamw"),
    "adam": Arm("Adam", partial(optimised, kind=Adam), scan="adam"),
    "rmsprop": Arm("RMSprop", partial(optimised, kind=RMSprop), scan="rmsprop"),
    "sgd-0": Arm("SGD, momentum 0", partial(optimised, kind=SGD), scan="sgd-0"),
    "sgd-0.9": Arm("SGD, momentum .9", partial(optimised, kind=SGD, momentum=0.9), scan="sgd-0.9"),
    "sgd-0.99": Arm("SGD, momentum .99", partial(optimised, kind=SGD, momentum=0.99), scan="sgd-0.99"),
    "adamw-not-augmented": Arm("AdamW, no augmentation", partial(optimised_not_augmented, kind=AdamW), scan="adamw"),
    "sgd-not-augmented": Arm(
        "SGD .9, no augmentation", partial(optimised_not_augmented, kind=SGD, momentum=0.9), scan="sgd-0.9"
    ),
    "decay-0": Arm("no weight decay", partial(with_decay, factor=0)),
    "decay-10": Arm("weight decay x 10", partial(with_decay, factor=10)),
    "decay-100": Arm("weight decay x 100", partial(with_decay, factor=100)),
    "batch-4": Arm("batch 4, same rate", partial(in_batches, size=4, scaled=False)),
    "batch-8": Arm("batch 8, same rate", partial(in_batches, size=8, scaled=False)),
    "batch-32": Arm("batch 32, same rate", partial(in_batches, size=32, scaled=False)),
    "batch-64": Arm("batch 64, same rate", partial(in_batches, size=64, scaled=False)),
    "batch-4-scaled": Arm("batch 4, rate x 1/4", partial(in_batches, size=4, scaled=True)),
    "batch-8-scaled": Arm("batch 8, rate x 1/2", partial(in_batches, size=8, scaled=True)),
    "batch-32-scaled": Arm("batch 32, rate x 2", partial(in_batches, size=32, scaled=True)),
    "batch-64-scaled": Arm("batch 64, rate x 4", partial(in_batches, size=64, scaled=True)),
    "not-clipped": Arm("no clipping", partial(clipped_at, length=None)),
    "clipped-1": Arm("clipping at 1", partial(clipped_at, length=1.0)),
    "clipped-by-parameter": Arm("clipping each parameter at 1", clipped_by_parameter),
    "bf16": Arm("bfloat16", in_bf16),
    # the data
    "images-tenth": Arm("a tenth of the images", partial(with_images, factor=1 / 10)),
    "images-quarter": Arm("a quarter of the images", partial(with_images, factor=1 / 4)),
    "images-half": Arm("half of the images", partial(with_images, factor=1 / 2)),
    "images-3": Arm("three times the images", partial(with_images, factor=3)),
    "boxes-5": Arm("edges off by up to 5 %", partial(inaccurate_boxes, share=0.05)),
    "boxes-20": Arm("edges off by up to 20 %", partial(inaccurate_boxes, share=0.2)),
    "boxes-40": Arm("edges off by up to 40 %", partial(inaccurate_boxes, share=0.4)),
    "labels-5": Arm("5 % wrong labels", partial(wrong_labels, share=0.05)),
    "labels-20": Arm("20 % wrong labels", partial(wrong_labels, share=0.2)),
    "labels-40": Arm("40 % wrong labels", partial(wrong_labels, share=0.4)),
    "missing-5": Arm("5 % not annotated", partial(missing_objects, share=0.05)),
    "missing-20": Arm("20 % not annotated", partial(missing_objects, share=0.2)),
    "missing-40": Arm("40 % not annotated", partial(missing_objects, share=0.4)),
    # classes that are rare
    "imbalanced": Arm("imbalanced", imbalanced),
    "imbalanced-weighted": Arm("class weights", imbalanced_and(weighted_by_class)),
    "imbalanced-oversampled": Arm("oversampling", imbalanced_and(oversampled)),
    "imbalanced-focal": Arm("focal loss", imbalanced_and(with_loss, loss=losses.SoftmaxFocalLoss())),
    "imbalanced-not-augmented": Arm("no augmentation", imbalanced_and(augmented)),
    # augmentation
    "not-augmented": Arm("no augmentation", augmented),
    **{f"only-{name}": Arm(f"{name} alone", lambda setup, name=name: augmented(setup, name)) for name in TRANSFORMS},
    "all-transforms": Arm("all ten", lambda setup: augmented(setup, *TRANSFORMS)),
    "shadow-noise-blur": Arm("shadow, noise, blur besides", lambda s: augmented(s, *USUAL, "shadow", "noise", "blur")),
    "page-transforms": Arm("page 2: flips, turn, light, crop", augmented_as_published),
    # the network
    "frozen-0": Arm("nothing frozen", partial(frozen, blocks=0)),
    "frozen-2": Arm("two of five blocks frozen", partial(frozen, blocks=2)),
    "frozen-5": Arm("whole trunk frozen", frozen),
    "untaught": Arm("random trunk", untaught),
    "untaught-4": Arm("random trunk, 4 x as long", partial(untaught, lasting_factor=4)),
    "untaught-narrow": Arm("random trunk of half the width", partial(untaught, width=0.125)),
    "untaught-shallow": Arm("random trunk of VGG11", partial(untaught, depth=11)),
    "extras-half": Arm("extra layers half as wide", partial(adopted, extras=((32, 64, 2, 1), (32, 64, 1, 0)))),
    "extras-double": Arm("extra layers twice as wide", partial(adopted, extras=((128, 256, 2, 1), (128, 256, 1, 0)))),
    "two-heads-at-one-stride": Arm("two maps of one size", two_heads_at_one_stride),
    "dropout-10": Arm("dropout .1", partial(dropped_out, share=0.1)),
    "dropout-50": Arm("dropout .5", partial(dropped_out, share=0.5)),
    "heads-he": Arm("heads by He", heads_by_he),
    "heads-torch": Arm("heads by PyTorch's default", heads_by_torch),
    "cifar-constants": Arm("CIFAR-10's mean and deviation", normalised_as_cifar),
    # the loss
    "squares": Arm("squared error, mean over all priors", exhibits_loss.squares_of_classes),
    "squares-mined": Arm("squared error, hard negatives", squared_errors),
    "focal": Arm("focal loss, sigmoid", partial(with_loss, loss=losses.FocalLoss())),
    "softmax-focal": Arm("focal loss, softmax", partial(with_loss, loss=losses.SoftmaxFocalLoss())),
    "negatives-1": Arm("1 negative a positive", partial(with_loss, loss=losses.MultiBoxLoss(1))),
    "negatives-10": Arm("10 negatives a positive", partial(with_loss, loss=losses.MultiBoxLoss(10))),
    "negatives-all": Arm("all negatives", partial(with_loss, loss=losses.MultiBoxLoss(1e4))),
    # how long
    "lasting-2": Arm("twice as long", partial(lasting, factor=2)),
    "lasting-4": Arm("4 x as long", partial(lasting, factor=4)),
    "overfitting": Arm("learning by heart", overfitting, choosing=True),
}
