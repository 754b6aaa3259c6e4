"""A trial: some steps of the patient's own on a batch, and what they do to losses, gradients and weights."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite, log2
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from course_lib.batches import Batch
from course_lib.doctor.patient import Patient, images_of

IMAGES = 8  # of a batch of this course
STEPS, RISE, FALL = 90, 8, 15  # of a trial: the most, and those of its begin and end
LEARNED = 0.03  # of the first loss: healthy trainings come there within 20 to 70 steps
LOOK = 4  # steps from one look at the weights to the next
FORESEEN = 3000  # steps of a schedule that are looked at: the warmup of any training is over by then
# What a step may tell beside its losses.
NO_LOSSES = ("norm", "lr", "rate", "step", "epoch", "time", "acc", "iou", "total", "positives")


def losses_of(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The losses among the numbers of a step; a "total" counts only where it is all there is."""
    known = {
        name: float(value.detach()) if isinstance(value, Tensor) else float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    }
    parts = {name: value for name, value in known.items() if not any(word in name.lower() for word in NO_LOSSES)}
    return parts or known


@dataclass(frozen=True)
class Taken:
    """One step.

    Attributes:
        losses: by name.
        before, after: length of the gradient as it was computed, and as the optimizer got it; NaN where it got none.
        updates: by group, how far its kernels moved, as a share of their length; empty where nobody looked.
        rate: the highest of all groups; 0 where the optimizer took no step.
        stale: how much of the step before is still in the gradient, as a share of this step's own.
        own: the highest rate that the patient would have used.
        kept: how much of the way that the weights had come by the step before is still there when this one begins.
    """

    losses: dict[str, float]
    before: float
    after: float
    updates: dict[str, float]
    rate: float
    stale: float = 0.0
    own: float = 0.0
    kept: float = 1.0

    @property
    def total(self) -> float:
        return sum(self.losses.values())

    @property
    def finite(self) -> bool:
        return isfinite(self.total) and (isfinite(self.before) or self.before != self.before)

    @property
    def clipped(self) -> bool:
        """Whether the gradient was shortened; a power of two is what sixteen bits are scaled by."""
        if not 0 < self.after < self.before * (1 - 1e-4):
            return False
        doublings = log2(self.before / self.after)
        return doublings < 3.5 or abs(doublings - round(doublings)) > 1e-3


def length(tensors: list[Tensor]) -> float:
    """Euclidean length of all of them together, NaN of none."""
    if not tensors:
        return float("nan")
    return float(
        torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one.detach().float()) for one in tensors]))
    )


@dataclass
class Steps:
    """Takes steps of a patient's own at rates of our choice, while its schedule stands still; a context.

    The rates are multiples of the schedule's highest, or of those that there are without a schedule: so neither a
    warmup that is longer than a trial nor a schedule that ends can make it look as if nothing could be learned.
    """

    patient: Patient
    norms: dict[int, Tensor] = field(default_factory=dict)
    handles: list = field(default_factory=list)
    count: int = 0
    cleared: bool = True  # nothing was computed since the optimizer's last step

    def __enter__(self) -> "Steps":
        optimizer = self.patient.optimizer
        peaks = peak_rates(self.patient)
        self.by_itself = peaks is None
        self.peaks = peaks or [float(group["lr"]) for group in optimizer.param_groups]
        self.held = self.patient.schedule.state_dict() if hasattr(self.patient.schedule, "state_dict") else None
        self.names = [str(group.get("name", f"group {i}")) for i, group in enumerate(optimizer.param_groups)]
        learned = [p for p in self.patient.model.parameters() if p.requires_grad]
        self.probes = {id(p) for p in learned[-1:]}
        self.started, self.far = [(p, p.detach().clone()) for p in learned], 0.0
        for number, parameter in enumerate(learned):
            if id(parameter) in self.probes:
                self.handles.append(parameter.register_hook(self.computed))
            self.handles.append(parameter.register_post_accumulate_grad_hook(self.accumulated(number)))
        self.handles.append(optimizer.register_step_pre_hook(self.before))
        self.handles.append(optimizer.register_step_post_hook(self.after))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def computed(self, gradient: Tensor) -> None:
        self.own = gradient.detach().clone()

    def accumulated(self, number: int) -> Callable[[Tensor], None]:
        def note(parameter: Tensor) -> None:
            self.norms[number] = torch.linalg.vector_norm(parameter.grad.detach().float())
            if id(parameter) in self.probes and self.cleared:
                self.cleared = False  # from here on the step's own parts add up
                self.stale = length([parameter.grad - self.own]) / max(length([self.own]), 1e-12)

        return note

    def way(self) -> float:
        """How far all weights that learn are from where they were at the beginning."""
        return length([p.detach() - start for p, start in self.started])

    def before(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """What the gradient is like, and the rate of this step."""
        if self.far:
            self.kept = min(self.kept, self.way() / self.far)
        self.long = length(list(self.norms.values()))
        self.short = length([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        self.own_rates = [group["lr"] for group in optimizer.param_groups]
        if self.by_itself:  # a step that lowers the rates by itself is not to disturb the trial, nor one that warms up
            self.peaks = [max(a, float(b)) for a, b in zip(self.peaks, self.own_rates, strict=True)]
        for group, rate in zip(optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = rate * self.factor
        self.rate = max((float(group["lr"]) for group in optimizer.param_groups), default=0.0)
        self.weights = self.kernels() if self.count % LOOK == LOOK - 1 else []

    def after(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """How far the weights have gone; the rates are the patient's again."""
        self.cleared, self.far = True, self.way()
        for name, was, now in zip(self.names, self.weights, self.kernels() if self.weights else [], strict=False):
            moved = length([a - b for a, b in zip(now, was, strict=True)])
            self.updates[name] = moved / max(length(was), 1e-12) if was else float("nan")
        for group, rate in zip(optimizer.param_groups, self.own_rates, strict=True):
            group["lr"] = rate

    def kernels(self) -> list[list[Tensor]]:
        groups = self.patient.optimizer.param_groups
        return [[p.detach().clone() for p in group["params"] if p.ndim > 1 and p.requires_grad] for group in groups]

    def step(self, batch: Any, factor: float = 1.0) -> Taken:
        """One step at so many times the rate."""
        self.norms.clear()
        self.factor, self.updates, self.long, self.short = factor, {}, float("nan"), float("nan")
        self.rate, self.stale, self.own_rates, self.kept = 0.0, 0.0, [], 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a schedule that is held says that it stands still
            numbers = self.patient.step(batch)
            if self.held is not None:
                self.patient.schedule.load_state_dict(self.held)
        self.count += 1
        updates = {name: value for name, value in self.updates.items() if value == value}
        own = max(map(float, self.own_rates), default=0.0)
        return Taken(losses_of(numbers), self.long, self.short, updates, self.rate, self.stale, own, self.kept)


def peak_rates(patient: Patient) -> list[float] | None:
    """The highest rate of each group over the steps of its schedule, which stands afterwards where it stood.

    None where there is no schedule that a step moves on.
    """
    schedule, optimizer = patient.schedule, patient.optimizer
    if isinstance(schedule, ReduceLROnPlateau) or not hasattr(schedule, "state_dict") or not hasattr(schedule, "step"):
        return None
    state = dict(schedule.state_dict())
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(min(patient.steps or FORESEEN, FORESEEN) - 1):
                schedule.step()
                peaks = [max(a, float(group["lr"])) for a, group in zip(peaks, optimizer.param_groups, strict=True)]
    except (ValueError, TypeError):  # it has ended, or wants to be told something
        pass
    schedule.load_state_dict(state)
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting)
    return peaks


def usual_batch(patient: Patient) -> Any:
    """A batch of the loop's own: of its first four the one with the most objects, no more of it than is needed.

    A batch in a form that is not this course's is taken as it is.
    """
    batches = patient.first_batches(4)
    best = max(batches, key=lambda batch: objects_in(patient, batch))
    if not isinstance(best, Batch):
        return best
    order = (best.labels > 0).sum(dim=1).clamp(max=1).argsort(descending=True, stable=True)[:IMAGES]
    return images_of(best, order.sort().values)


def objects_in(patient: Patient, batch: Any) -> int:
    read = batch if isinstance(batch, Batch) else patient.read(batch) if patient.has("read") else None
    return int((read.labels > 0).sum()) if isinstance(read, Batch) else 0


@dataclass(frozen=True)
class Trial:
    """All steps of a trial on one batch."""

    batch: Any
    steps: list[Taken]

    @property
    def finite(self) -> bool:
        return all(step.finite for step in self.steps)

    def first(self, name: str | None = None) -> float:
        """A loss, or their sum, before anything was learned."""
        return self.steps[0].total if name is None else self.steps[0].losses[name]

    def last(self, name: str | None = None) -> float:
        """The same in the end: the median of five steps."""
        return median(step.total if name is None else step.losses[name] for step in self.steps[-5:])

    @property
    def share_left(self) -> float:
        """The last loss as a share of the first."""
        return self.last() / max(abs(self.first()), 1e-12)

    @property
    def clipped(self) -> float:
        """The share of steps whose gradient was shortened."""
        return sum(step.clipped for step in self.steps) / len(self.steps)

    def norm(self) -> float:
        """The median length of the gradient before clipping, after the first fifth."""
        return median(step.before for step in self.steps[len(self.steps) // 5 :])

    def updates(self) -> dict[str, float]:
        """The median share by which each group's kernels move in a step."""
        seen: dict[str, list[float]] = {}
        for step in self.steps:
            for name, value in step.updates.items():
                seen.setdefault(name, []).append(value)
        return {name: median(values) for name, values in seen.items()}

    def parts(self) -> str:
        """The losses' first and last values in words."""
        return ", ".join(
            f"{name} from {self.first(name):.4g} to {self.last(name):.4g}" for name in self.steps[0].losses
        )


def parts_of(batches: list[Batch], size: int = IMAGES) -> list[Batch]:
    """Batches in parts of so many images; what does not fill one is left out."""
    return [
        images_of(batch, rows)
        for batch in batches
        for rows in torch.arange(len(batch.images)).split(size)
        if len(rows) == min(size, len(batch.images))
    ]


def trial_of(patient: Patient, batch: Any) -> Trial:
    """Learn one batch by heart, or give up.

    The rate rises for a few steps and stays at its peak until the batch is clearly learned, or most steps are taken.
    Then it falls, so that the weights come to rest and batch norm's running statistics agree with them.
    """
    taken: list[Taken] = []
    left = None  # steps of the fall
    with Steps(patient) as steps:
        while len(taken) < STEPS and left != 0:
            fall = 1.0 if left is None else max(0.05, left / FALL)
            taken.append(steps.step(batch, min(1.0, (len(taken) + 1) / RISE) * fall))
            if not taken[-1].finite:
                break
            if left is not None:
                left -= 1
            elif len(taken) >= STEPS - FALL or all(one.total < LEARNED * taken[0].total for one in taken[-3:]):
                left = FALL
    return Trial(batch, taken)
