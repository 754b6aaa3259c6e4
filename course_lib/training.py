"""Training: what a step computes, the loop of steps and epochs, and where it stops to be kept."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from course_lib import losses, runs
from course_lib.files import plain
from course_lib.loaders import Augmented, Shuffled, ending, loader, loading_errors, rank, world_size
from course_lib.matching import Matches, match
from course_lib.progress import Progress
from course_lib.recipes import Recipe
from course_lib.schedules import SCHEDULES, Plateau
from course_lib.ssd import SSD
from course_lib.stopping import Stop, stop_signals
from course_lib.voc import Batch, ImageDataset, require_objects


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
    matches: Matches | None = None,
) -> Step:
    """Match, predict, compare: all of a training step but the gradients.

    Args:
        network: the model, or what is wrapped around it for several processes.
        batch: on the network's device.
        loss: called as `losses.MultiBoxLoss` is.
        match_iou: overlap with an object from which a prior is to answer for it.
        priors: centre-size; None for those of `network`, which a wrapper does not have.
        dtype: what convolutions compute in; None for float32. Matching and loss stay in float32.
        matches: of the batch, where they are known.
    """
    priors = network.priors if priors is None else priors
    matches = matches or match(batch.boxes, batch.labels, priors, match_iou)
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


def shares(matches: list[Matches]) -> list[Float[Tensor, ""]]:
    """What to multiply the losses of each part of a batch by, so that all are divided by the positives of all parts.

    A loss divides by the positives of its part, or by 1 where there are none. The parts of all processes count.
    """
    own = torch.stack([(matched.labels > 0).sum() for matched in matches])  # [parts]
    everyone = own.sum()
    if world_size() > 1:
        dist.all_reduce(everyone)
    return list((own.clamp(min=1) / everyone.clamp(min=1)).unbind())


def summed(numbers: dict[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """The sums over all processes."""
    if world_size() == 1:
        return numbers
    values = torch.stack(list(numbers.values()))
    dist.all_reduce(values)
    return dict(zip(numbers, values.unbind(), strict=True))


def memory_cure(recipe: Recipe) -> str:
    """What to do where a batch does not fit into memory."""
    own, parts = recipe.batch_size // world_size(), recipe.micro_batches
    more = next((count for count in range(parts + 1, own + 1) if own % count == 0), None)
    cure = "take a smaller model, or --recipe amp=bf16"
    if more:
        cure = f"the same command with --recipe micro_batches={more} reads a batch in more parts, and learns the same"
    full = (
        f"memory is full with {own // parts} images at a time (batch_size={recipe.batch_size}, micro_batches={parts})"
    )
    return f"{full}: {cure}"


def agreed(number: int | None, group: dist.ProcessGroup | None) -> int | None:
    """The signal that any process has had, the same for all: they must end after the same step.

    Args:
        group: all processes as they talk without their GPUs, which need not be waited for then.
    """
    if world_size() == 1:
        return number
    highest = torch.tensor(number or 0)
    dist.all_reduce(highest, dist.ReduceOp.MAX, group)
    return highest.item() or None


def require_batches(recipe: Recipe, images: int) -> None:
    """Refuse a batch that cannot be divided among processes and micro-batches, or that a data set does not fill.

    Raises:
        RunError: with all four numbers.
    """
    if recipe.batch_size % (world_size() * recipe.micro_batches) or recipe.batch_size > images:
        raise runs.RunError(
            f"batch_size={recipe.batch_size} with {images} images, {world_size()} processes and "
            f"micro_batches={recipe.micro_batches}: it must be a multiple of processes times micro_batches, and no "
            "larger than the data set"
        )


def require_measure(recipe: Recipe, measured: bool) -> None:
    """Refuse a recipe that waits for measurements where nothing is measured.

    Raises:
        RunError: with the field.
    """
    waiting = [
        name for name, waits in (("patience", recipe.patience), ("schedule", recipe.schedule == "plateau")) if waits
    ]
    if waiting and not measured:
        values = ", ".join(f"{name}={getattr(recipe, name)}" for name in waiting)
        raise runs.RunError(
            f"{values} waits for measurements, and nothing is measured: name a list to measure on, or do without"
        )


class Watch:
    """What a `Trainer` tells of its steps to whoever watches it; this one looks at nothing.

    `doctor.VitalSigns` is one that does. What it is told of stays on the device: to read it, the host waits.
    """

    def before(self, trainer: "Trainer") -> None:
        """A step begins."""

    def computed(self, step: Step) -> None:
        """What the network makes of a batch, or of each micro-batch."""

    def after(self, numbers: dict[str, Tensor]) -> None:
        """A step has ended, with the numbers that `Trainer.step` gives."""

    def record(self) -> dict:
        """What it adds to the record of an epoch that has ended."""
        return {}


class Trainer:
    """Train a detector; interrupted at any moment, a new `Trainer` on the same folder goes on.

    Args:
        model: on the device it is to be trained on. It stays as it is until `fit`, which trains this very model.
        dataset: its images and targets, before augmentation.
        transform: the augmentation.
        recipe: the numbers.
        run: folder of the run, which will hold what `runs` says.
        evaluate: called with the model, in every process; gives what to record, of which "map" decides what is
            best: `evaluation.selector` makes one.
        loss: called as `losses.MultiBoxLoss` is, with a `scoring` as it has; by its `repr` a run that goes on
            knows it again.
        workers: processes that load images, beside this one, where the recipe does not say.
        notes: further facts for the provenance.
        report: called with every record that goes into the history.
        follow: called with the numbers of every step: "epoch", "step" and "steps" of the run, "lr", the losses and
            "grad_norm".
        watch: looks at the steps as they are taken; give it to the first process only.
        checkpoint_minutes: the run's state is kept when an epoch ends, and within it whenever so much time has gone
            by; 0: after every step. `runs.save` says what a state costs.
        may_change: fields of the recipe that may differ from what the run in the folder has learned with so far, of
            `runs.CHANGEABLE`: a way on from the last good state where losses became NaN. From there on the rate is
            what the schedule of today's numbers says at that step, and the provenance lists the change.

    More epochs than the run was begun with may always be asked for, of a finished one too. A cosine is then another:
    where the shorter one had come down to 0, the longer one stands higher, and the rate jumps back up to it.

    Raises:
        DataError: the data set has no object: see `voc.require_objects`.
        RunError: the model tells other classes apart than the data set has, the data set fills no batch, or
            (from `fit`) the folder holds a run of another model, recipe, loss or size, or a broken one, or is in use.
        stopping.Stopped: (from `fit`) a signal has asked for it; a step was finished, and all is kept.
    """

    def __init__(
        self,
        model: SSD,
        dataset: ImageDataset,
        transform: Callable,
        recipe: Recipe,
        run: str | Path,
        evaluate: Callable[[SSD], dict] | None = None,
        loss: Callable | None = None,
        workers: int = 0,
        notes: dict | None = None,
        report: Callable[[dict], None] = lambda record: None,
        follow: Callable[[dict], None] = lambda numbers: None,
        watch: Watch | None = None,
        checkpoint_minutes: float = 10.0,
        may_change: Collection[str] = (),
    ) -> None:
        runs.refuse_other_classes(model, dataset.classes)
        require_objects(dataset)
        self.model, self.recipe, self.run = model, recipe, Path(run)
        self.evaluate, self.report, self.watch = evaluate, report, watch or Watch()
        self.loss = loss or losses.MultiBoxLoss()
        self.progress = Progress(self.run, model, recipe, self.loss, len(dataset), notes or {}, follow)
        self.device = model.priors.device
        self.sampler = Shuffled(len(dataset), recipe.batch_size, recipe.seed)
        require_batches(recipe, len(dataset))
        require_measure(recipe, evaluate is not None)
        workers = workers if recipe.workers is None else recipe.workers
        self.loader = loader(
            Augmented(dataset, transform, recipe.seed),
            model.image_size,
            recipe.batch_size // world_size(),
            workers,
            sampler=self.sampler,
            keep_workers=True,
            pin_memory=self.device.type == "cuda",
        )
        self.dtype = amp_dtype(recipe.amp, self.device)
        # float16 has so small a range that gradients must be scaled up; bfloat16 does not.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.checkpoint_minutes, self.may_change = checkpoint_minutes, may_change
        self.stop, self.hosts = Stop(), None

    def prepare(self) -> None:
        """Make the model one that learns: read as its loss reads it, its first blocks frozen, with an optimizer.

        `fit` begins with it; who calls `step` alone, calls it first.
        """
        self.model.scoring = self.loss.scoring
        self.model.backbone.freeze(self.recipe.frozen_blocks, self.recipe.frozen_statistics)
        self.model.to(memory_format=torch.channels_last if self.recipe.channels_last else torch.contiguous_format)
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.steps = self.recipe.epochs * len(self.loader)
        self.schedule = SCHEDULES[self.recipe.schedule](self.optimizer, self.recipe.warmup_steps, self.steps)

    def network(self) -> nn.Module:
        """The model as steps call it: one for several processes, and compiled where the recipe says so."""
        network = DistributedDataParallel(self.model) if world_size() > 1 else self.model
        return torch.compile(network) if self.recipe.compile else network

    def step(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Compute the losses of one batch, and improve.

        Gives the losses of the whole batch, over all processes and micro-batches, and "grad_norm", the length of its
        gradient before it is shortened; 0 where float16 overflowed and the step was left out.

        Raises:
            RunError: a loss or the gradient is not finite, of this step or, on a GPU, of the one before.
        """
        parts = batch.parts(self.recipe.micro_batches)
        matches = [match(part.boxes, part.labels, self.model.priors, self.recipe.match_iou) for part in parts]
        self.optimizer.zero_grad(set_to_none=True)
        numbers: dict[str, torch.Tensor] = {}
        for part, matched, share in zip(parts, matches, shares(matches), strict=True):
            exchanged_later = part is not parts[-1] and world_size() > 1
            with network.no_sync() if exchanged_later else nullcontext():
                computed = compute(
                    network, part, self.loss, self.recipe.match_iou, self.model.priors, self.dtype, matched
                )
                self.watch.computed(computed)
                own = {name: value * share for name, value in computed.parts.items()}
                # The mean of the processes' gradients is to be the sum of their shares.
                self.scaler.scale(losses.total(own) * world_size()).backward()
            numbers = {name: numbers.get(name, 0.0) + value.detach() for name, value in own.items()}
        numbers = summed(numbers) | {"grad_norm": self.shorten()}
        self.read(numbers, batch.image_ids)
        self.improve()
        return numbers

    def shorten(self) -> torch.Tensor:
        """Shorten the gradient to the recipe's `clip_norm`; gives its length before.

        No weight is ever to become NaN: a gradient that is not finite becomes 0. So does its length with float16,
        where that happens now and then.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = clip_grad_norm_(parameters, self.recipe.clip_norm)
        broken = ~norm.isfinite()
        for parameter in parameters:
            parameter.grad.masked_fill_(broken, 0.0)
        return norm.masked_fill(broken, 0.0) if self.scaler.is_enabled() else norm

    def improve(self) -> None:
        """Let optimizer and schedule take their step; where float16 overflowed both leave it out."""
        self.scaler.step(self.optimizer)
        scale = self.scaler.get_scale()  # with float16, and only there, the host waits for the device here
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            self.schedule.step()
        elif scale < 1:
            raise runs.RunError(f"{self.run}: in float16 the gradients overflow, however small: --recipe amp=off")

    @contextmanager
    def advice(self) -> Iterator[None]:
        """Say what to do where a step needs more memory than there is, cannot be compiled, or has too few images."""
        try:
            yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            cure = "batch norm needs two images at a time, in each process and each of its micro_batches"
            raise runs.RunError(f"{self.run}: batch_size={self.recipe.batch_size}: {cure}") from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise runs.RunError(f"{self.run}: {memory_cure(self.recipe)}") from error
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).partition("\n")[0]
                raise runs.RunError(
                    f"{self.run}: torch.compile fails here ({reason}): --recipe compile=false"
                ) from error
            raise

    def read(self, numbers: dict[str, torch.Tensor], image_ids: list[str]) -> None:
        """Pass the numbers of a step on, unless they are not finite: then the run stops."""
        step = {"epoch": self.sampler.epoch + 1, "step": self.schedule.last_epoch + 1, "steps": self.steps}
        self.progress.note(numbers, step | {"lr": self.rate(), "images": image_ids})

    def rate(self) -> float:
        """The learning rate of the head's kernels."""
        return learning_rate(self.optimizer, "head kernels")

    def train_epoch(self, network: nn.Module, epoch: int) -> dict:
        """One pass over the training set, or what is left of it; its record: the means of its losses and more."""
        progress = self.progress
        self.sampler.epoch, self.sampler.skipped = epoch, progress.done * self.loader.batch_size
        network.train()
        progress.start_clock()
        for batch in self.loader:
            with self.advice():
                self.watch.before(self)
                numbers = self.step(network, batch.to(self.device))
                self.watch.after(numbers)
            progress.add(numbers)
            self.between_steps()
        progress.pass_on()
        progress.count_time()
        record = {"epoch": epoch + 1, "images": (epoch + 1) * self.sampler.length, "lr": self.rate()}
        return record | progress.means() | self.watch.record()

    def between_steps(self) -> None:
        """Keep the run where it is time for that, and end where a signal has asked for it."""
        stopped = agreed(self.stop.number, self.hosts)
        if stopped or self.progress.minutes_unsaved() >= self.checkpoint_minutes:
            self.progress.pass_on()
            self.save()
        if stopped:
            self.stop.number = stopped
            self.stop.end()

    def measure(self, epoch: int) -> dict:
        """The evaluation, when it is due, of one model in all processes; what the first one finds counts."""
        if not self.is_due(epoch):
            return {}
        if world_size() > 1:  # batch norm's statistics are each process's own, and the first one's are kept
            for buffer in self.model.buffers():
                dist.broadcast(buffer, 0)
        measured = [self.evaluate(self.model)]
        if world_size() > 1:
            dist.broadcast_object_list(measured)
        if isinstance(self.schedule, Plateau) and isfinite(measured[0]["map"]):  # one that failed says nothing
            self.schedule.measured(measured[0]["map"])
        return measured[0]

    def is_due(self, epoch: int) -> bool:
        """Whether the model is measured after an epoch."""
        return self.evaluate is not None and (epoch % self.recipe.evaluate_every == 0 or epoch == self.recipe.epochs)

    def fit(self) -> list[dict]:
        """Train to the end, from wherever the run folder stands; gives the history."""
        held = runs.held(self.run) if rank() == 0 else nullcontext()
        with held, stop_signals() as self.stop, ending(self.loader):
            self.start_or_resume()
            network = self.network()
            self.hosts = dist.new_group(backend="gloo") if world_size() > 1 else None
            with loading_errors(self.when):
                self.fit_epochs(network)
        return self.progress.history

    def fit_epochs(self, network: nn.Module) -> None:
        """All epochs that are left."""
        try:
            while not self.progress.finished():
                self.fit_epoch(network)
        except RuntimeError as error:
            if self.stop.number is None or isinstance(error, runs.RunError):
                raise
            self.stop.end()  # torch's word for a loader that the signal has ended too

    def when(self) -> str:
        """Where the run stands, for an error."""
        return f"in epoch {len(self.progress.history) + 1}"

    def fit_epoch(self, network: nn.Module) -> None:
        """What is left of an epoch, its measurement and its record. What is computed is kept before it is measured."""
        record = self.train_epoch(network, epoch=len(self.progress.history))
        if self.is_due(record["epoch"]):
            self.save()
            with self.stop.at_once():
                record |= plain(self.measure(record["epoch"]))
        self.progress.record(record)
        self.save()
        self.report(self.progress.history[-1])

    def start_or_resume(self) -> None:
        """Begin, or go on from the state that the run folder holds; where that is refused, nothing has changed."""
        saved = self.progress.take_up(self.may_change)
        self.prepare()
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        names, peaks = [group["name"] for group in self.optimizer.param_groups], self.schedule.base_lrs
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.schedule.base_lrs = peaks  # where the recipe was changed, these are today's
        factors = [factor(self.schedule.last_epoch) for factor in self.schedule.lr_lambdas]
        for group, name, peak, factor in zip(self.optimizer.param_groups, names, peaks, factors, strict=True):
            group |= {"name": name, "initial_lr": peak, "lr": peak * factor}  # older states have no names
        self.scaler.load_state_dict(saved["scaler"])
        self.progress.restore(saved)

    def save(self) -> None:
        """Keep the run as it stands: what was learned, and how far it has come."""
        learned = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        self.progress.save(learned)
