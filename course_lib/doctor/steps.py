"""Checks of a step: whether it clears the gradients, goes back from the loss, and changes the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.layers import gradients, last_layers, some, watched
from course_lib.doctor.patient import Patient
from course_lib.doctor.trial import peak_rates

MOST_PASSES = 16  # of a loop that adds up gradients before it steps
IMPATIENT = 100  # steps: who waits longer than that counts in steps


@dataclass
class Taken:
    """What some steps on one batch have done.

    Attributes:
        passes: how many calls of the patient's step there were.
        calls: of optimizer.step.
        gradient: at the first of them, all in one row; None where there was none, or all were 0.
        left: there are gradients after the first step.
        moved: the parameters that have changed.
        broken: those that are no longer finite.
        modes: of the layers that differ between training and use, in the first step: see `watched`.
        shortened: by which factor each parameter's gradient was shortened before the first step, by name.
        plateaus: the patience of every `ReduceLROnPlateau` that a step has called.
        lengths: of the whole gradient behind each pass, from one optimizer step to the next.
        along: the cosine between the way of all weights and the first gradient: -1 straight down; None where there is
            no way, or no gradient.
        scheduled: how often the patient's schedule has been stepped; None where it does not count.
    """

    passes: int
    calls: int
    gradient: Tensor | None
    left: bool
    moved: list[str]
    broken: list[str]
    modes: dict[str, bool]
    shortened: dict[str, float]
    plateaus: list[int]
    lengths: list[list[float]]
    along: float | None
    scheduled: int | None

    @property
    def accumulated(self) -> list[float]:
        """The lengths of the gradient over the longest row of passes that one optimizer step ends."""
        return max(self.lengths, key=len, default=[])


def taken(patient: Patient, count: int) -> Taken:
    """Step on the first batch until the optimizer has stepped so often; the caller puts everything back."""
    batch, named = patient.few_images(), dict(patient.model.named_parameters())
    before = {name: p.detach().clone() for name, p in named.items()}
    gradients: list[Tensor | None] = []
    factors: list[dict[str, float]] = []
    lengths: list[list[float]] = [[]]
    epoch = getattr(patient.schedule, "last_epoch", None)
    with lengths_of_gradients(named) as computed, plateaus_called() as plateaus:

        def look(*_: object) -> None:
            gradients.append(flat(patient.model))
            factors.append({name: factor(named[name].grad, length) for name, length in computed.items() if length})

        handle = patient.optimizer.register_step_pre_hook(look)
        passes, left = 0, False
        try:
            with watched(patient.model) as modes:
                while len(gradients) < count and passes < MOST_PASSES:
                    before_it = len(gradients)
                    patient.step(batch)
                    passes += 1
                    left = left or (passes == 1 and bool(gradients) and flat(patient.model) is not None)
                    lengths[-1].append(sum(length**2 for length in computed.values()) ** 0.5)
                    if len(gradients) > before_it:
                        lengths.append([])
        finally:
            handle.remove()
    moved = [name for name, p in named.items() if not torch.equal(p.detach(), before[name])]
    broken = [name for name in moved if not bool(named[name].isfinite().all())]
    gradient, shortened = (gradients[0], factors[0]) if gradients else (None, {})
    scheduled = None if epoch is None else patient.schedule.last_epoch - epoch
    along = None if gradient is None or broken else cosine(named, before, gradient)
    return Taken(
        passes,
        len(gradients),
        gradient,
        left,
        moved,
        broken,
        modes,
        shortened,
        plateaus,
        lengths[:-1],
        along,
        scheduled,
    )


def cosine(named: dict[str, nn.Parameter], before: dict[str, Tensor], gradient: Tensor) -> float | None:
    """Of the angle between the way that all weights have gone and a gradient; None where they stand still."""
    way = torch.cat([(p.detach() - before[name]).flatten() for name, p in named.items()])
    return float(F.cosine_similarity(way, gradient, dim=0)) if bool(way.any()) else None


def factor(gradient: Tensor | None, length: float) -> float:
    return 1.0 if gradient is None else float(gradient.detach().float().norm()) / length


@contextmanager
def lengths_of_gradients(named: dict[str, nn.Parameter]) -> Iterator[dict[str, float]]:
    """The length of each parameter's gradient as `backward` leaves it, by name."""
    lengths: dict[str, float] = {}

    def noting(name: str) -> Callable[[Tensor], None]:
        def note_length(parameter: Tensor) -> None:
            lengths[name] = float(parameter.grad.detach().float().norm())

        return note_length

    handles = [p.register_post_accumulate_grad_hook(noting(name)) for name, p in named.items() if p.requires_grad]
    try:
        yield lengths
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def plateaus_called() -> Iterator[list[int]]:
    """The patience of each `ReduceLROnPlateau` whose `step` is called meanwhile, wherever it is kept."""
    patience: list[int] = []
    usual = ReduceLROnPlateau.step

    def step(schedule: ReduceLROnPlateau, *args: object, **kwargs: object) -> None:
        patience.append(schedule.patience)
        usual(schedule, *args, **kwargs)

    ReduceLROnPlateau.step = step
    try:
        yield patience
    finally:
        ReduceLROnPlateau.step = usual


def first_steps(patient: Patient) -> Taken:
    """Two steps of the optimizer from where the patient is; the first may be at a rate of 0."""

    def made() -> Taken:
        with patient.undisturbed():
            patient.model.zero_grad(set_to_none=True)
            return taken(patient, 2)

    return patient.remembered("first steps", made)


@check("batches", "model", "optimizer", "step")
def step_is_whole(patient: Patient) -> Iterator[Finding]:
    """Does a step clear the gradients, go back from the loss, and then change the weights?"""
    first = first_steps(patient)
    if not first.calls:
        yield fault(
            f"{first.passes} calls of the step never call optimizer.step",
            "the weights stay as they are",
            "call it after backward, or behind every few of them; of more than that the doctor sees none",
            9,
        )
    elif first.gradient is None:
        yield fault(
            "when optimizer.step is called for the first time there are no gradients",
            "the step comes before backward, or the gradients are cleared between the two",
            "zero_grad, then backward, then optimizer.step",
            9,
        )
    elif not first.moved:
        yield fault(
            f"{first.calls} steps leave every weight as it is",
            "the network learns nothing",
            "look at the learning rate, at what the optimizer holds, and at what is frozen",
            9,
        )
    elif first.broken:
        yield fault(
            f"after two steps {some(first.broken)} hold NaN or infinity",
            "training is over",
            "look at the loss and the learning rate",
            9,
        )
    else:
        yield from uphill(first)
        yield from oddities(patient, first)
        yield from not_clipped(patient, first)
        yield from not_scheduled(patient, first)
        yield from left_out(patient, first.gradient)
    lengths = first.accumulated
    if len(lengths) > 1 and lengths[-1] < 1.2 * lengths[0]:
        yield fault(
            f"{len(lengths)} passes lead to one step of the optimizer, and its gradient is only that of the last one",
            "what is meant to be a larger batch is a small one, and the other passes are computed for nothing",
            "call optimizer.zero_grad() behind optimizer.step() alone, and not before each backward",
            9,
        )
    if first.gradient is not None and first.left and accumulates(patient, first.gradient):
        yield fault(
            "gradients of the step before are still there when a step goes back from its loss: they add up",
            "each step goes along the sum of all steps so far, ever further",
            "call optimizer.zero_grad() once in every step",
            9,
        )


def uphill(first: Taken) -> Iterator[Finding]:
    """Steps along the gradient, which make the loss larger; decay and momentum turn a way, and do not reverse it."""
    if first.along is not None and first.along > UPHILL:
        yield fault(
            f"two steps go along the gradient, and not against it (the cosine of their angle is {first.along:.2f})",
            "each step makes the loss larger, as fast as it can",
            "a minus before the rate where weights are changed by hand; maximize=False; a loss that is not negated",
            9,
        )


UPHILL = 0.03  # of a healthy step it is below 0; of one by Adam up the gradient 0.14


def not_clipped(patient: Patient, first: Taken) -> Iterator[Finding]:
    """A gradient that is longer than the patient says that any may be, and that nothing has shortened."""
    length, factors = float(first.gradient.norm()), first.shortened.values()
    if patient.clip_norm is not None and length > 1.05 * patient.clip_norm and min(factors, default=1.0) > 0.999:
        yield note(
            f"the optimizer is given a gradient that is {length:.3g} long, and longer ones than {patient.clip_norm:g} "
            "are to be shortened",
            "the odd batch with a long gradient throws the weights far away, as if nothing was clipped",
            "clip_grad_norm_ between backward and optimizer.step, on the parameters that the optimizer holds",
            9,
        )


def not_scheduled(patient: Patient, first: Taken) -> Iterator[Finding]:
    """A schedule that a step does not move on; one in epochs is moved on elsewhere."""
    if first.scheduled != 0 or isinstance(patient.schedule, ReduceLROnPlateau):
        return
    now = [float(group["lr"]) for group in patient.optimizer.param_groups]
    peaks = peak_rates(patient) or now
    yield note(
        f"{first.calls} steps do not move the schedule on; the rate is {max(now):.2g}, and {max(peaks):.2g} at its "
        "highest",
        "the rate stays where it is: a warmup never ends, or what should fall does not",
        "call schedule.step() behind optimizer.step(), unless it is made to be called once an epoch",
        9,
    )


def oddities(patient: Patient, first: Taken) -> Iterator[Finding]:
    """Clipping parameter by parameter, and a plateau that is looked for in the loss of single batches."""
    parts = first.gradient.split([p.numel() for p in patient.model.parameters()])
    norms = torch.stack([part.norm() for part in parts])
    norms = norms[norms > 0]
    alike = (norms - norms.max()).abs() < 1e-3 * norms.max()
    if len(norms) > 3 and alike.float().mean() > 0.3:
        yield warning(
            f"the gradients of {int(alike.sum())} of {len(norms)} parameters are equally long, "
            f"{float(norms.max()):.3g}: "
            "each is clipped by itself",
            "the direction of the step is no longer that of the loss: small parameters move as far as large ones",
            "clip_grad_norm_ on all parameters together",
            9,
        )
    elif spread := own_factors(first.shortened):
        yield note(
            f"the gradients of {len(first.shortened)} parameters are shortened each by a factor of its own, from "
            f"{min(spread):.2g} to {max(spread):.2g}",
            "the direction of the step is no longer that of the loss: what has a long gradient is held back",
            "meant so, as Keras's clipnorm and adaptive clipping do? Else clip_grad_norm_ on all parameters together",
            9,
        )
    if len(first.plateaus) >= 2 and min(first.plateaus) < IMPATIENT:
        yield warning(
            f"a schedule that looks for a plateau is given a number at every step, and waits for {min(first.plateaus)}",
            "losses of single batches go up and down: the rate falls after a few of them, for ever",
            "step it once an epoch, by the loss or the mAP of the validation images",
            9,
        )


def own_factors(shortened: dict[str, float]) -> list[float]:
    """The factors by which gradients were shortened, if these are many: each group may have a limit of its own."""
    factors = [value for value in shortened.values() if value > 0]
    different = {round(value, 3) for value in factors}
    return factors if len(different) > 4 and min(factors) < 0.9 * max(factors) else []


def left_out(patient: Patient, gradient: Tensor) -> Iterator[Finding]:
    """Heads that the losses teach, and a step does not."""
    if not patient.has("outputs") or not patient.has("losses"):
        return
    named = [(name, p.numel()) for name, p in patient.model.named_parameters()]
    parts = gradient.split([count for _, count in named])
    given = {name: bool(part.any()) for (name, _), part in zip(named, parts, strict=True)}
    for what, names in last_layers(patient).items():
        if any(gradients(patient).losses.get(name) for name in names) and not any(given[name] for name in names):
            yield fault(
                f"the losses have gradients for the heads of the {what}, and a step has none for them",
                f"the {what} stay as they are, whatever loss is printed",
                "go back from the sum of all losses",
                9,
            )


def accumulates(patient: Patient, fresh: Tensor) -> bool:
    """Whether gradients that are there before a step are still part of what the optimizer is given."""
    generator = torch.Generator().manual_seed(0)
    # Far longer than any gradient was before it was clipped.
    size = 1e4 * float(fresh.norm()) / len(fresh) ** 0.5
    with patient.undisturbed():
        for parameter in patient.model.parameters():
            if parameter.requires_grad:
                parameter.grad = size * torch.randn(parameter.shape, generator=generator).to(parameter)
        dirty = taken(patient, 1).gradient
    return dirty is not None and float(F.cosine_similarity(dirty, fresh, dim=0)) < 0.5


def flat(model: nn.Module) -> Tensor | None:
    """All gradients in one row; None where there are none, or all are 0."""
    rows = [(torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten() for p in model.parameters()]
    row = torch.cat(rows)
    return row if bool(row.ne(0).any()) else None


CHECKS = (step_is_whole,)
