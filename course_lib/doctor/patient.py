"""The patient: whatever there is of a training, every part optional."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import losses as course_losses
from course_lib.detect import Detections, detect
from course_lib.matching import Matches
from course_lib.voc import Annotation, Batch, Target

FEW = 8  # images that a check of the network is content with


@dataclass(kw_only=True, eq=False)
class Patient:
    """What there is to examine. Every part is optional: what is missing is not examined, and the report says so.

    The parts are those of any SSD; where they are called in another way, an adapter of a few lines says so: `read`
    turns what a loop calls a batch into this course's `Batch`; `outputs`, `losses` and `step` call the loop's own code.

    Attributes:
        data: what is learned from: `data[i]` is an image `uint8 [H, W, 3]` RGB and its `Target`, before augmentation,
            boxes as corners in fractions of the image. An `ImageDataset` is one. Where it has `annotations()`, those
            are read for the boxes alone; what cannot be indexed has no pictures to look at.
        held_out: what is measured on, the same.
        classes: the names of the classes, without background.
        transform: the augmentation: from image and target to image `uint8 [3, S, S]` and target.
        batches: what the loop iterates over, in its own form; it can be iterated more than once.
        read: from a batch of `batches` to a `Batch`: pixels RGB 0 to 255, corners in fractions, label 0 for padding.
            Not needed where they are `Batch`es. It must not repair what the loop has wrong: the units, order and labels
            that the loop's own loss gets are what it tells.
        model: the network. Its parameters are looked at, and trained by the checks that learn.
        priors: `[P, 4]` centre-size in fractions; None: the model's own `priors`.
        outputs: from a batch to offsets `[B, P, 4]` and logits `[B, P, C]`, background first.
            None: `model(read(batch).images)`.
        match: called as `matching.match` is: boxes, labels and priors to `Matches`.
        loss: called as `losses.MultiBoxLoss` is: offsets, logits and matches to the losses by name.
        losses: from a batch to the losses by name, with gradients; None: `loss` of `outputs` and `match`.
            "loc" and "conf" are the names of the boxes' and the classes' part where there are both.
        optimizer: as it is before the first step.
        schedule: of its rate; its `step` is called once for each step.
        steps: of the optimizer, that the training is to take in all.
        clip_norm: gradients longer than this are shortened; None: they are not, or it is not known.
        step: from a batch to the numbers of one step of the loop's own: losses, gradients, optimizer and schedule.
            None: `losses`, `clip_norm`, `optimizer` and `schedule` in the usual order.
        detect: from a batch to what the model finds in it, in evaluation mode; None: `detect.detect` of `outputs`.
        pretrained: the tensors that the network was meant to start with, by their names in `model`.
        frozen: how the names of the parameters begin that are meant to stay as they are; None: it is not known.
        expects: mean and deviation, RGB, 0 to 255, of the pixels that the pretrained weights were made for.
        history: the records of a run's epochs, as `runs` keeps them.
        memory: what checks have computed for each other.
    """

    data: Any = None
    held_out: Any = None
    classes: Sequence[str] | None = None
    transform: Callable | None = None
    batches: Iterable | None = None
    read: Callable[[Any], Batch] | None = None
    model: nn.Module | None = None
    priors: Float[Tensor, "P 4"] | None = None
    outputs: Callable[[Any], tuple[Tensor, Tensor]] | None = None
    match: Callable[[Tensor, Tensor, Tensor], Matches] | None = None
    loss: Callable[[Tensor, Tensor, Matches], Mapping[str, Tensor]] | None = None
    losses: Callable[[Any], Mapping[str, Tensor]] | None = None
    optimizer: torch.optim.Optimizer | None = None
    schedule: Any = None
    steps: int | None = None
    clip_norm: float | None = None
    step: Callable[[Any], Mapping[str, Any]] | None = None
    detect: Callable[[Any], list[Detections]] | None = None
    pretrained: Mapping[str, Tensor] | None = None
    frozen: Collection[str] | None = None
    expects: tuple[Sequence[float], Sequence[float]] | None = None
    history: Sequence[Mapping] | None = None
    memory: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Derive what follows from other parts."""
        if self.read is None and self.batches is not None:
            self.read = as_it_is
        if self.priors is None:
            self.priors = getattr(self.model, "priors", None)
        if self.classes is None:
            self.classes = getattr(self.data, "classes", None)
        if self.outputs is None and self.model is not None and self.read is not None:
            self.outputs = lambda batch: self.model(self.read(batch).images)
        if self.losses is None and None not in (self.loss, self.match, self.outputs, self.priors):
            self.losses = self.computed
        if self.step is None and None not in (self.losses, self.optimizer):
            self.step = self.usual_step
        if self.detect is None and None not in (self.outputs, self.priors):
            self.detect = self.usual_detections

    @property
    def pictures(self) -> Any:
        """The data where its images can be looked at, None where there are annotations alone."""
        return self.data if hasattr(self.data, "__getitem__") else None

    def has(self, name: str) -> bool:
        """Whether there is such a part."""
        return getattr(self, name) is not None

    def matches(self, batch: Any) -> Matches:
        """What the priors should say of a batch, by the patient's own matching."""
        read = self.read(batch)
        return self.match(read.boxes, read.labels, self.priors)

    def computed(self, batch: Any) -> Mapping[str, Tensor]:
        return self.loss(*self.outputs(batch), self.matches(batch))

    def usual_step(self, batch: Any) -> dict[str, Tensor]:
        """One step as most loops take it."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.losses(batch)
        course_losses.total(dict(parts)).backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def usual_detections(self, batch: Any) -> list[Detections]:
        with evaluating(self.model):
            offsets, logits = self.outputs(batch)
        return detect(offsets, logits, self.priors, scoring=getattr(self.model, "scoring", "softmax"))

    def targets(self) -> list[Target]:
        """The targets of all data; annotations alone are read where there are any."""
        return self.remembered("targets", lambda: targets_of(self.data))

    def held_out_targets(self) -> list[Target]:
        return self.remembered("held_out_targets", lambda: targets_of(self.held_out))

    def first_batches(self, count: int) -> list:
        """The first batches, in the loop's own form; they are loaded once."""
        known = self.memory.get("batches", [])
        if len(known) < count:
            self.memory["batches"] = known = list(islice(iter(self.batches), count))
        return known[:count]

    def few_images(self, count: int = FEW, number: int = 0) -> Any:
        """A batch for checks that are content with so many images of it, those with objects first.

        A batch that is not this course's own comes whole: only its loop could take it apart.

        Args:
            number: which of the first batches.
        """
        whole = self.first_batches(number + 1)[-1]
        if not isinstance(whole, Batch) or len(whole.images) <= count:
            return whole
        empty = (whole.labels == 0).all(dim=1).int()
        return self.remembered(
            f"{count} images of {number}", lambda: images_of(whole, empty.argsort(stable=True)[:count].sort().values)
        )

    def remembered(self, name: str, make: Callable[[], Any]) -> Any:
        """What a check has computed already, or what `make` gives now."""
        if name not in self.memory:
            self.memory[name] = make()
        return self.memory[name]

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put everything back: weights, statistics, gradients, modes, optimizer, schedule, random numbers."""
        stateful = [part for part in (self.model, self.optimizer, self.schedule) if hasattr(part, "state_dict")]
        states = [deepcopy(part.state_dict()) for part in stateful]
        parameters = list(self.model.parameters()) if self.model is not None else []
        gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
        modes = [(layer, layer.training) for layer in self.model.modules()] if self.model is not None else []
        # numpy's shared state too: the library never draws from it, but a stranger's loop may.
        shared = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            yield
        finally:
            for part, state in zip(stateful, states, strict=True):
                part.load_state_dict(state)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            for layer, mode in modes:
                layer.training = mode
            torch.set_rng_state(shared[0])
            np.random.set_state(shared[1])  # noqa: NPY002  as above
            random.setstate(shared[2])


def images_of(batch: Batch, rows: Tensor) -> Batch:
    """Some images of a batch."""
    names = {"image_ids": batch.image_ids, "sizes": batch.sizes}
    tensors = {name: getattr(batch, name)[rows] for name in ("images", "boxes", "labels", "difficult")}
    return Batch(**tensors, **{name: [values[row] for row in rows.tolist()] for name, values in names.items()})


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its layers back into its own: some may stay there on purpose."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def as_it_is(batch: Any) -> Batch:
    """How a batch is read that is this course's already.

    Raises:
        TypeError: it is another.
    """
    if not isinstance(batch, Batch):
        raise TypeError(f"a batch is a {type(batch).__name__}: give the patient `read`, which makes a voc.Batch of it")
    return batch


def targets_of(data: Any) -> list[Target]:
    """The targets of some data; images are read only where there are no annotations."""
    if hasattr(data, "annotations"):
        return [as_target(annotation) for annotation in data.annotations()]
    return [data[index][1] for index in range(len(data))]


def as_target(annotation: Annotation) -> Target:
    return Target(annotation.boxes, annotation.labels, annotation.difficult, annotation.image_id, annotation.size)
