"""Training: what a step computes, the loop of steps and epochs, and a run that can stop and go on at any moment."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from course_lib import losses, runs
from course_lib.augment import Augment
from course_lib.loaders import Augmented, Shuffled, loader, rank, told, world_size
from course_lib.matching import Matches, match
from course_lib.recipes import Recipe
from course_lib.schedules import SCHEDULES
from course_lib.ssd import SSD
from course_lib.voc import Batch, ImageDataset


class Step(NamedTuple):
    """What a network makes of a batch, before it learns from it.

    Attributes:
        matches: what every prior should have said.
        offsets, logits: what it said.
        parts: the losses by name, with gradients.
    """

    matches: Matches
    offsets: Float[Tensor, "B P 4"]
    logits: Float[Tensor, "B P C"]
    parts: dict[str, Tensor]


def compute(
    network: nn.Module,
    batch: Batch,
    loss: Callable[[Tensor, Tensor, Matches], dict[str, Tensor]],
    match_iou: float,
    priors: Float[Tensor, "P 4"] | None = None,
    dtype: torch.dtype | None = None,
) -> Step:
    """Match, predict, compare: all of a training step but the gradients.

    Args:
        network: the model, or what is wrapped around it for several processes.
        batch: on the network's device.
        loss: called as `losses.MultiBoxLoss` is.
        match_iou: overlap with an object from which a prior is to answer for it.
        priors: centre-size; None for those of `network`, which a wrapper does not have.
        dtype: what convolutions compute in; None for float32. Matching and loss stay in float32.
    """
    priors = network.priors if priors is None else priors
    matches = match(batch.boxes, batch.labels, priors, match_iou)
    with torch.autocast(batch.images.device.type, dtype, enabled=dtype is not None):
        offsets, logits = network(batch.images)
    return Step(matches, offsets, logits, loss(offsets, logits, matches))


def parameter_groups(model: SSD, recipe: Recipe) -> list[dict]:
    """Weights of convolutions decay; biases, norms and scales do not, and learn `bias_factor` as fast.

    Four groups by "name": "backbone kernels", "backbone biases", "head kernels" and "head biases".
    """
    groups = []
    parts = (("backbone", model.backbone.taught(), recipe.backbone_factor), ("head", list(model.parameters()), 1.0))
    for part, parameters, factor in parts:
        taken = {id(p) for group in groups for p in group["params"]}
        own = [p for p in parameters if p.requires_grad and id(p) not in taken]
        rate = recipe.learning_rate * factor
        kernels, others = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        groups.append({"name": f"{part} kernels", "params": kernels, "lr": rate, "weight_decay": recipe.weight_decay})
        groups.append(
            {"name": f"{part} biases", "params": others, "lr": rate * recipe.bias_factor, "weight_decay": 0.0}
        )
    return groups


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=0.9)


def learning_rate(optimizer: torch.optim.Optimizer, name: str) -> float:
    """The rate that a group of `parameter_groups` has now."""
    return next(group["lr"] for group in optimizer.param_groups if group["name"] == name)


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The type that convolutions compute in, or None for float32 throughout."""
    match amp:
        case "off":
            return None
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
        case "auto" if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        case "auto":
            return None
    raise ValueError(f"amp is {amp!r}: use 'off', 'bf16', 'fp16' or 'auto'")


class Trainer:
    """Train a detector; interrupted at any moment, a new `Trainer` on the same folder goes on.

    Args:
        model: on the device it is to be trained on. It stays as it is until `fit`, which trains this very model.
        dataset: its images and targets, before augmentation.
        transform: the augmentation.
        recipe: the numbers.
        run: folder of the run, which will hold what `runs` says.
        evaluate: called with the model; gives numbers to record, of which "map" decides what is best:
            `evaluation.selector` makes one.
        loss: called as `losses.MultiBoxLoss` is, with a `scoring` as it has; by its `repr` a run that goes on
            knows it again.
        workers: processes that load images, beside this one.
        notes: further facts for the provenance.
        report: called with every record that goes into the history.

    Raises:
        RunError: the model tells other classes apart than the data set has, the data set fills no batch, or
            (from `fit`) the folder holds a run of another model, recipe, loss or size, or a broken one.
    """

    def __init__(
        self,
        model: SSD,
        dataset: ImageDataset,
        transform: Augment,
        recipe: Recipe,
        run: str | Path,
        evaluate: Callable[[SSD], dict[str, float]] | None = None,
        loss: Callable | None = None,
        workers: int = 0,
        notes: dict | None = None,
        report: Callable[[dict], None] = lambda record: None,
    ) -> None:
        runs.refuse_other_classes(model, dataset.classes)
        self.model, self.recipe, self.run = model, recipe, Path(run)
        self.evaluate, self.report, self.notes = evaluate, report, notes or {}
        self.loss = loss or losses.MultiBoxLoss()
        self.device = model.priors.device
        self.sampler = Shuffled(len(dataset), recipe.batch_size, recipe.seed)
        if recipe.batch_size % world_size() or not len(self.sampler):
            raise runs.RunError(
                f"batch_size={recipe.batch_size} with {len(dataset)} images and {world_size()} processes: it must "
                "be a multiple of the processes and no larger than the data set"
            )
        self.loader = loader(
            Augmented(dataset, transform, recipe.seed),
            model.image_size,
            recipe.batch_size // world_size(),
            workers,
            sampler=self.sampler,
            keep_workers=True,
            pin_memory=self.device.type == "cuda",
        )
        self.images = len(dataset)
        self.dtype = amp_dtype(recipe.amp, self.device)
        # float16 has so small a range that gradients must be scaled up; bfloat16 does not.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.history: list[dict] = []
        self.seconds = 0.0

    def prepare(self) -> None:
        """Make the model one that learns: read as its loss reads it, its first blocks frozen, with an optimizer.

        `fit` begins with it; who calls `step` alone, calls it first.
        """
        self.model.scoring = self.loss.scoring
        self.model.backbone.freeze(self.recipe.frozen_blocks)
        self.optimizer = make_optimizer(self.model, self.recipe)
        make_schedule, steps = SCHEDULES[self.recipe.schedule], self.recipe.epochs * len(self.loader)
        self.schedule = make_schedule(self.optimizer, self.recipe.warmup_steps, steps)

    def step(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Compute the losses of one batch, and improve."""
        parts = compute(network, batch, self.loss, self.recipe.match_iou, self.model.priors, self.dtype).parts
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total(parts)).backward()
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # float16 overflowed: the optimiser left this step out
            norm = torch.zeros_like(norm)
        else:
            self.schedule.step()
        return {name: value.detach() for name, value in parts.items()} | {"grad_norm": norm}

    def train_epoch(self, network: nn.Module, epoch: int) -> dict:
        """One pass over the training set; the means of its losses and of the gradient's length."""
        self.sampler.epoch = epoch
        network.train()
        sums: dict[str, torch.Tensor] = {}
        for batch in self.loader:
            parts = self.step(network, batch.to(self.device))
            # Summed on the device: reading a number here would make the CPU wait for the GPU.
            sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
        means = {name: value.item() / len(self.loader) for name, value in sums.items()}
        if not all(torch.isfinite(torch.tensor(list(means.values())))):
            raise runs.RunError(
                f"{self.run}: in epoch {epoch + 1} the losses became {means}. Halve the learning rate, or lengthen "
                "the warmup; the run is as it was after the last epoch"
            )
        rate = learning_rate(self.optimizer, "head kernels")
        return {"epoch": epoch + 1, "images": (epoch + 1) * self.sampler.length, "lr": rate} | means

    def measure(self, epoch: int) -> dict[str, float]:
        """The evaluation, when it is due; only one process does it, and the others wait for the result."""
        due = epoch % self.recipe.evaluate_every == 0 or epoch == self.recipe.epochs
        if self.evaluate is None or not due:
            return {}
        measured = [self.evaluate(self.model) if rank() == 0 else {}]
        if world_size() > 1:
            dist.broadcast_object_list(measured)
        return measured[0]

    def fit(self) -> list[dict]:
        """Train to the end, from wherever the run folder stands; gives the history."""
        self.start_or_resume()
        network = DistributedDataParallel(self.model) if world_size() > 1 else self.model
        while not self.finished():
            started = time.monotonic()
            with told(f"in epoch {len(self.history) + 1}"):
                record = self.train_epoch(network, epoch=len(self.history))
            record |= self.measure(epoch=record["epoch"])
            self.seconds += time.monotonic() - started
            record["seconds"] = round(self.seconds, 1)
            self.history.append(record)
            self.save()
            self.report(record)
        return self.history

    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        if len(self.history) >= self.recipe.epochs:
            return True
        best = runs.best_epoch(self.history)
        if self.recipe.patience is None or best is None:
            return False
        return sum(r["epoch"] > best and "map" in r for r in self.history) >= self.recipe.patience

    def start_or_resume(self) -> None:
        """Begin, or go on from the state that the run folder holds; where that is refused, nothing has changed."""
        saved = runs.take_up(self.run, self.model, self.asked(), self.device)
        self.prepare()
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        names = [group["name"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(saved["optimizer"])
        for group, name in zip(self.optimizer.param_groups, names, strict=True):
            group["name"] = name  # older states have none
        self.schedule.load_state_dict(saved["schedule"])
        self.scaler.load_state_dict(saved["scaler"])
        self.history, self.seconds = saved["history"], saved["seconds"]

    def asked(self) -> dict:
        """What must be the same when a run goes on."""
        asked = {"recipe": asdict(self.recipe), "loss": repr(self.loss), "images": self.images}
        return asked | runs.identity_of(self.model)

    def save(self) -> None:
        """Keep the run as it stands; only one process writes."""
        if rank() > 0:
            return
        state = {
            **self.asked(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }
        runs.save(self.run, self.model, state, self.provenance())

    def provenance(self) -> dict:
        """Where these weights are from."""
        return (
            self.notes
            | {
                "finished": self.finished(),
                "epochs_done": len(self.history),
                "best_epoch": runs.best_epoch(self.history),
                "seconds": round(self.seconds, 1),
                "training_images": self.images,
                "architecture": self.model.architecture,
                "classes": list(self.model.classes),
                "recipe": asdict(self.recipe),
                "loss": repr(self.loss),
                "processes": world_size(),
            }
            | runs.environment(self.device)
        )
