"""The training that exhibits spoil and controls vary: its ingredients, and how a patient is made of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import augment, losses, recipes, schedules, ssd, training, voc
from course_lib.doctor.patient import Patient
from course_lib.matching import match
from course_lib.recipes import Recipe

STEPS = 200
RECIPE = recipes.NANO


usual_match = partial(match, iou_threshold=RECIPE.match_iou)
usual_optimizer = partial(training.make_optimizer, recipe=RECIPE)
usual_schedule = partial(schedules.warmup_cosine, warmup_steps=RECIPE.warmup_steps, total_steps=STEPS)


def pixels(batch: voc.Batch) -> Tensor:
    """What a model of this course is given of a batch: it normalises by itself."""
    return batch.images


@dataclass(kw_only=True)
class Setup:
    """The ingredients of a training; an exhibit spoils one or a few of them, and `patient` puts them together.

    Attributes:
        data: to learn from: `data[i]` is an image `uint8 [H, W, 3]` and its target.
        held_out: to measure on.
        classes: names, without background.
        transform: from image and target to image `uint8 [3, S, S]` and target; its `seed(number)` is called first.
        collate: from samples to a batch.
        model: made, filled and frozen.
        pretrained: the tensors that it was meant to start with, by name.
        frozen: how the names of parameters begin that are meant to stay.
        priors: centre-size.
        match, loss: as `matching.match` and `losses.MultiBoxLoss` are called.
        optimizer: from the model to one.
        schedule: from the optimizer to one; None: the rate stays.
        clip_norm: None: gradients are never shortened.
        seed: of the order of the images, their augmentation, and whatever else a change of the set-up draws.
        architecture, recipe: by which it was made; those who change it in part go by them.
        images: what the network is given of a batch: by default its pixels.
        further: more parts of the patient, by name: they replace what would be put together.
        made_last: parts that need the others, by name: from the finished patient to the part. `step` is one.
    """

    data: Any
    held_out: Any
    classes: tuple[str, ...]
    transform: Callable
    model: nn.Module
    priors: Tensor
    collate: Callable = voc.collate
    pretrained: Mapping[str, Tensor] | None = None
    frozen: tuple[str, ...] = ()
    match: Callable = usual_match
    loss: Callable = field(default_factory=losses.MultiBoxLoss)
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = usual_optimizer
    schedule: Callable[[torch.optim.Optimizer], Any] | None = usual_schedule
    clip_norm: float | None = RECIPE.clip_norm
    batch_size: int = RECIPE.batch_size
    steps: int = STEPS
    seed: int = 0
    architecture: ssd.Architecture = ssd.ssd_nano
    recipe: Recipe = RECIPE
    images: Callable[[voc.Batch], Tensor] = pixels
    further: dict[str, Any] = field(default_factory=dict)
    made_last: dict[str, Callable[[Patient], Any]] = field(default_factory=dict)

    def patient(self) -> Patient:
        optimizer = self.optimizer(self.model)
        parts = {
            "data": self.data,
            "held_out": self.held_out,
            "classes": self.classes,
            "transform": self.transform,
            "batches": Batches(self.data, self.transform, self.collate, self.batch_size),
            "model": self.model,
            "priors": self.priors,
            "outputs": lambda batch: self.model(self.images(batch)),
            "match": self.match,
            "loss": self.loss,
            "optimizer": optimizer,
            "schedule": self.schedule(optimizer) if self.schedule else None,
            "steps": self.steps,
            "clip_norm": self.clip_norm,
            "pretrained": self.pretrained,
            "frozen": self.frozen,
        }
        patient = Patient(**parts | self.further)
        for name, make in self.made_last.items():
            setattr(patient, name, make(patient))
        return patient

    def adopt(self, model: ssd.SSD) -> None:
        """Take another model in place of the first, filled and frozen as that was, with its priors and image size."""
        self.frozen = fill(model, self.pretrained, self.recipe)
        if model.image_size != self.model.image_size:
            self.transform = augment.training_mini(model.image_size)
        self.model, self.priors = model.train(), model.priors


def fill(model: ssd.SSD, known: Mapping[str, Tensor] | None, recipe: Recipe = RECIPE) -> tuple[str, ...]:
    """Give a model the trunk that it is to start with, and freeze its first blocks.

    Args:
        known: tensors of the trunk by their names in the model; None: it stays random, and nothing is frozen.

    Returns:
        The names of the frozen parameters.
    """
    if known is None:
        return ()
    model.load_state_dict(known, strict=False)
    model.backbone.freeze(recipe.frozen_blocks, recipe.frozen_statistics)
    return names_of_frozen(model)


def names_of_frozen(model: nn.Module) -> tuple[str, ...]:
    """The parameters that do not learn."""
    return tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)


def fresh(architecture: ssd.Architecture, classes: Sequence[str], seed: int = 0) -> ssd.SSD:
    """A detector with random weights that depend on the seed alone; torch's own generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return architecture(len(classes) + 1, tuple(classes))


@dataclass(frozen=True)
class Batches:
    """A data set in batches, in its order and augmented; every pass gives the same."""

    data: Any
    transform: Callable
    collate: Callable
    size: int

    def __len__(self) -> int:
        return len(self.data) // self.size

    def __iter__(self) -> Iterator:
        for start in range(0, len(self) * self.size, self.size):
            yield self.collate([self.sample(index) for index in range(start, start + self.size)])

    def sample(self, index: int) -> tuple:
        if hasattr(self.transform, "seed"):
            self.transform.seed(index)
        return self.transform(*self.data[index])


@dataclass(frozen=True)
class InMemory(Sequence):
    """Images and targets that are read once, with the names of their classes."""

    samples: tuple
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple:
        return self.samples[index]


@dataclass(frozen=True)
class Changed(Sequence):
    """A data set of which every image and target is changed as it is read; the data set stays as it is.

    Attributes:
        change: from index, image and target to image and target.
        names: of the classes; None: those of the data set.
    """

    data: Any
    change: Callable[[int, Any, Any], tuple]
    names: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes if self.names is None else self.names

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple:
        return self.change(index, *self.data[index])


@dataclass(frozen=True)
class Then:
    """A transform, and a change of what it gives; the seed goes through."""

    transform: Callable
    change: Callable[[Tensor, voc.Target], tuple]

    def seed(self, seed: int) -> None:
        self.transform.seed(seed)

    def __call__(self, image: Any, target: voc.Target) -> tuple:
        return self.change(*self.transform(image, target))


def in_memory(data: Any, images: int) -> InMemory:
    """The first images of a data set."""
    return InMemory(tuple(data[index] for index in range(min(images, len(data)))), tuple(data.classes))


def healthy(
    data: Any,
    held_out: Any,
    trunk: ssd.SSD | None = None,
    seed: int = 0,
    architecture: ssd.Architecture = ssd.ssd_nano,
    recipe: Recipe = RECIPE,
) -> Setup:
    """The training that exhibits spoil: `ssd_nano` on a few images, its trunk taken from a trained detector.

    Args:
        trunk: a detector with the same backbone, such as the recorded `ssd_mini`; None: the trunk is random, and
            nothing is frozen.
        seed: of the weights that are random, and the set-up's own.
        architecture, recipe: for a larger training of the same kind.
    """
    classes = tuple(data.classes)
    model = fresh(architecture, classes, seed)
    known = trunk_of(trunk) if trunk else None
    frozen = fill(model, known, recipe)
    return Setup(
        data=data,
        held_out=held_out,
        classes=classes,
        transform=augment.training_mini(model.image_size),
        model=model.train(),
        priors=model.priors,
        pretrained=known,
        frozen=frozen,
        match=partial(match, iou_threshold=recipe.match_iou),
        optimizer=partial(training.make_optimizer, recipe=recipe),
        clip_norm=recipe.clip_norm,
        batch_size=recipe.batch_size,
        seed=seed,
        architecture=architecture,
        recipe=recipe,
    )


def trunk_of(detector: ssd.SSD) -> dict[str, Tensor]:
    """A copy of the tensors of a detector's backbone, by their names in a detector."""
    return {f"backbone.{name}": tensor.clone() for name, tensor in detector.backbone.state_dict().items()}


@dataclass(frozen=True)
class Exhibit:
    """A fault that somebody has shipped, or that costs people weeks.

    Attributes:
        title: in a few words.
        story: where it was seen and what happened, with its source.
        symptom: what its owner sees, from outside.
        cure: the line that mends it.
        chapter: of the course, which explains the right way.
        plant: spoils a healthy set-up.
        caught_by: checks whose finding names this cause; any one is enough.
    """

    title: str
    story: str
    symptom: str
    cure: str
    chapter: int
    plant: Callable[[Setup], None]
    caught_by: tuple[str, ...] = ()
