"""The training loop: mixed precision, resuming, early stopping by mAP, several processes."""

import io
import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Dataset, Sampler

from course_lib import losses, weights
from course_lib.augment import Augment
from course_lib.files import write_whole
from course_lib.matching import Matches, match
from course_lib.schedules import warmup_cosine
from course_lib.ssd import SSD
from course_lib.voc import Batch, ImageDataset, collate


@dataclass(frozen=True)
class Recipe:
    """All that decides what a run learns, beside its data and its model.

    Attributes:
        epochs: passes over the training set.
        batch_size: images per step, over all processes together.
        optimizer: "adamw" or "sgd" (momentum 0.9).
        learning_rate: peak rate.
        backbone_factor: rate of the backbone, as a multiple of `learning_rate`: what it has learned already
            should not be lost while the heads still guess.
        bias_factor: rate of biases and norms, as a multiple of `learning_rate`.
        weight_decay: on convolutions' weights only.
        warmup_steps: steps of the rise to the peak.
        clip_norm: gradients longer than this are shortened to it.
        amp: "off", "bf16", "fp16", or "auto": the best that the device has.
        evaluate_every: epochs between two measurements of mAP; the last epoch is always measured.
        frozen_blocks: of the backbone, which stay as they are.
        match_iou: overlap with an object from which a prior is to answer for it.
        patience: measurements without a new best before the run stops; None: it never does.
        seed: of the order of images and of their augmentation.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    backbone_factor: float = 1.0
    bias_factor: float = 1.0
    weight_decay: float = 5e-4
    warmup_steps: int = 100
    clip_norm: float = 10.0
    amp: str = "off"
    evaluate_every: int = 1
    frozen_blocks: int = 0
    match_iou: float = 0.5
    patience: int | None = None
    seed: int = 0


class Shuffled(Sampler):
    """Yields `(epoch, index)`: an order that depends on seed and epoch alone, split among processes.

    The last images of an epoch that would not fill a batch are left out; each epoch others.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length // batch_size * batch_size, seed, 0
        self.population = length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.population, generator=generator)[: self.length].tolist()
        return iter([(self.epoch, index) for index in order[rank() :: world_size()]])

    def __len__(self) -> int:
        return self.length // world_size()


class Augmented(Dataset):
    """A data set whose sample depends on `(epoch, index)` and the seed, and on nothing else.

    So it does not matter which worker makes a sample, or whether a run was interrupted.
    """

    def __init__(self, dataset: ImageDataset, transform: Augment, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        image, target = self.dataset.load(index)
        self.transform.seed((self.seed * 1_000_003 + epoch) * len(self.dataset) + index)
        return self.transform(image, target)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def parameter_groups(model: SSD, recipe: Recipe) -> list[dict]:
    """Weights of convolutions decay; biases, norms and scales do not, and learn `bias_factor` as fast."""
    groups = []
    for part, factor in ((model.backbone.taught(), recipe.backbone_factor), (list(model.parameters()), 1.0)):
        taken = {id(p) for group in groups for p in group["params"]}
        own = [p for p in part if p.requires_grad and id(p) not in taken]
        rate = recipe.learning_rate * factor
        kernels, others = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        groups.append({"params": kernels, "lr": rate, "weight_decay": recipe.weight_decay})
        groups.append({"params": others, "lr": rate * recipe.bias_factor, "weight_decay": 0.0})
    return groups


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(model, recipe)
    match recipe.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups)
        case "sgd":
            return torch.optim.SGD(groups, momentum=0.9)
    raise ValueError(f"optimizer is {recipe.optimizer!r}: use 'adamw' or 'sgd'")


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


class RunError(RuntimeError):
    """A run that cannot go on as asked: which run, why, what to do."""


class Trainer:
    """Train a detector; interrupted at any moment, a new `Trainer` on the same folder goes on.

    Args:
        model: on the device it is to be trained on.
        dataset: its images and targets, before augmentation.
        transform: the augmentation.
        recipe: the numbers.
        run: folder of the run.
        evaluate: called with the model; gives numbers to record, of which "map" decides what is best.
        loss: called as `losses.MultiBoxLoss` is, with a `scoring` as it has; by its `repr` a run that goes on
            knows it again.
        workers: processes that load images, beside this one.
        notes: further facts for the provenance.
        report: called with every record that goes into the history.

    Raises:
        RunError: the model tells other classes apart than the data set has, the data set fills no batch, or
            (from `fit`) the folder holds a run of another model, recipe, loss or size, or a broken one.

    After `fit` the folder holds last.safetensors and best.safetensors, history.jsonl (one record an
    epoch), provenance.json, and state.pt, from which an unfinished run goes on.
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
        self.model, self.recipe, self.run = model, recipe, Path(run)
        self.evaluate, self.report, self.notes = evaluate, report, notes or {}
        self.loss = loss or losses.MultiBoxLoss()
        if model.num_classes != len(dataset.classes) + 1:
            names = textwrap.shorten(", ".join(dataset.classes), 60)
            raise RunError(
                f"the model has num_classes={model.num_classes}, which is {model.num_classes - 1} and background, and "
                f"the data set has {len(dataset.classes)} ({names}): build the model with num_classes="
                f"{len(dataset.classes) + 1}"
            )
        model.scoring = self.loss.scoring
        self.device = model.priors.device
        self.sampler = Shuffled(len(dataset), recipe.batch_size, recipe.seed)
        if recipe.batch_size % world_size() or not len(self.sampler):
            raise RunError(
                f"batch_size={recipe.batch_size} with {len(dataset)} images and {world_size()} processes: it must "
                "be a multiple of the processes and no larger than the data set"
            )
        self.loader = DataLoader(
            Augmented(dataset, transform, recipe.seed),
            batch_size=recipe.batch_size // world_size(),
            sampler=self.sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        self.images = len(dataset)
        model.backbone.freeze(recipe.frozen_blocks)
        self.optimizer = make_optimizer(model, recipe)
        self.schedule = warmup_cosine(self.optimizer, recipe.warmup_steps, recipe.epochs * len(self.loader))
        self.dtype = amp_dtype(recipe.amp, self.device)
        # float16 has so small a range that gradients must be scaled up; bfloat16 does not.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.history: list[dict] = []
        self.seconds = 0.0

    def fit(self) -> list[dict]:
        """Train to the end, from wherever the run folder stands; gives the history."""
        self.start_or_resume()
        network = DistributedDataParallel(self.model) if world_size() > 1 else self.model
        while not self.finished():
            started = time.monotonic()
            record = self.train_epoch(network, epoch=len(self.history))
            record |= self.measure(epoch=record["epoch"])
            self.seconds += time.monotonic() - started
            record["seconds"] = round(self.seconds, 1)
            self.history.append(record)
            self.save()
            self.report(record)
        return self.history

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
            raise RunError(
                f"{self.run}: in epoch {epoch + 1} the losses became {means}. Halve the learning rate, or lengthen "
                "the warmup; the run is as it was after the last epoch"
            )
        learning_rate = self.schedule.get_last_lr()[2]  # of the heads
        return {"epoch": epoch + 1, "images": (epoch + 1) * self.sampler.length, "lr": learning_rate} | means

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

    def measure(self, epoch: int) -> dict[str, float]:
        """The evaluation, when it is due; only one process does it, and the others wait for the result."""
        due = epoch % self.recipe.evaluate_every == 0 or epoch == self.recipe.epochs
        if self.evaluate is None or not due:
            return {}
        measured = [self.evaluate(self.model) if rank() == 0 else {}]
        if world_size() > 1:
            dist.broadcast_object_list(measured)
        return measured[0]

    def best_epoch(self) -> int | None:
        """The epoch with the highest mAP, None where nothing was measured."""
        measured = [record for record in self.history if "map" in record]
        return max(measured, key=lambda record: record["map"])["epoch"] if measured else None

    def finished(self) -> bool:
        if len(self.history) >= self.recipe.epochs:
            return True
        best = self.best_epoch()
        if self.recipe.patience is None or best is None:
            return False
        return sum(r["epoch"] > best and "map" in r for r in self.history) >= self.recipe.patience

    def start_or_resume(self) -> None:
        """Take up the state that the run folder holds, if it holds one of the same model, recipe, loss and size."""
        state, last = self.run / "state.pt", self.run / "last.safetensors"
        if state.exists():
            self.resume(read_state(state, self.device))
        elif last.exists():  # interrupted before the first state was written; or weights that someone keeps here
            self.require(asked_of(weights.load(last)), last)

    def resume(self, saved: dict) -> None:
        """Go on from a state as `save` wrote it."""
        # Older states name no model; whether theirs is the same, the tensors tell.
        self.require({name: saved[name] for name in self.asked() if name in saved}, self.run)
        if misfits := weights.compare(self.model.state_dict(), saved["model"]):
            raise RunError(
                f"{self.run} was started with another model than the {self.model.architecture} with num_classes="
                f"{self.model.num_classes} that is asked for now ({textwrap.shorten(misfits, 200)}): {ANEW}"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.scaler.load_state_dict(saved["scaler"])
        self.history, self.seconds = saved["history"], saved["seconds"]

    def asked(self) -> dict:
        """What must be the same when a run goes on."""
        return {"recipe": asdict(self.recipe), "loss": repr(self.loss), "images": self.images} | asked_of(self.model)

    def require(self, begun: dict, path: Path) -> None:
        """Refuse to go on with what was begun otherwise; the message names all that differs, and nothing else."""
        asked = flat({name: value for name, value in self.asked().items() if name in begun})
        begun = flat(begun)
        if differing := [name for name in asked | begun if asked.get(name) != begun.get(name)]:
            was, now = (", ".join(f"{name}={one.get(name)!r}" for name in differing) for one in (begun, asked))
            raise RunError(f"{path} was started with {was}, which is not what is asked for now ({now}): {ANEW}")

    def save(self) -> None:
        """Write everything, each file whole or not at all; the state comes last, and counts."""
        if rank() > 0:
            return
        self.run.mkdir(parents=True, exist_ok=True)
        weights.save(self.model, self.run / "last.safetensors")
        if self.best_epoch() in (None, len(self.history)):
            weights.save(self.model, self.run / "best.safetensors")
        write_whole(self.run / "history.jsonl", "".join(json.dumps(record) + "\n" for record in self.history))
        write_whole(self.run / "provenance.json", json.dumps(self.provenance(), indent=2) + "\n")
        state = {
            **self.asked(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(self.run / "state.pt", buffer.getvalue())

    def provenance(self) -> dict:
        """Where these weights are from."""
        return (
            self.notes
            | {
                "finished": self.finished(),
                "epochs_done": len(self.history),
                "best_epoch": self.best_epoch(),
                "seconds": round(self.seconds, 1),
                "training_images": self.images,
                "architecture": self.model.architecture,
                "recipe": asdict(self.recipe),
                "loss": repr(self.loss),
                "processes": world_size(),
            }
            | environment(self.device)
        )


ANEW = "choose another folder, or --fresh, which moves this one aside"


def asked_of(model: SSD) -> dict:
    """What of a model must be the same when a run goes on."""
    return {"architecture": model.architecture, "num_classes": model.num_classes}


def flat(asked: dict) -> dict:
    """The recipe's numbers beside the others."""
    return asked.get("recipe", {}) | {name: value for name, value in asked.items() if name != "recipe"}


def read_state(path: Path, device: torch.device) -> dict:
    """What a run needs to go on.

    Raises:
        RunError: the file is cut short, or is no run's state.
    """
    with path.open("rb") as file:
        try:
            saved = torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # a broken pickle fails in many ways
            raise RunError(f"{path} is cut short or no run's state ({type(error).__name__}): {ANEW}") from None
    names = ("recipe", "loss", "images", "model", "optimizer", "schedule", "scaler", "history", "seconds")
    if missing := [name for name in names if not isinstance(saved, dict) or name not in saved]:
        raise RunError(f"{path} is no run's state, without {', '.join(missing)}: {ANEW}")
    return saved | {name: weights.in_todays_names(saved[name]) for name in ("recipe", "model")}


def environment(device: torch.device | str = "cpu") -> dict:
    """The command, the code's version and the machine, for a result that is to be believed later."""
    device = torch.device(device)
    return {
        "command": shlex.join(["python", "-m", "course_lib", *sys.argv[1:]])
        if Path(sys.argv[0]).name == "__main__.py"
        else Path(sys.argv[0]).name,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
    }


def commit() -> str:
    """The commit of the course that runs, "+" behind it where files were changed since."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read_history(run: str | Path) -> list[dict]:
    """The records of a run, one an epoch."""
    path = Path(run) / "history.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run is finished yet, or it is no run's folder") from None
