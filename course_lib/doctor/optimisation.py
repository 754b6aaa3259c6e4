"""Checks of what is to learn: the state of each parameter, the optimizer, its schedule, and what a step does."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.layers import last_layers, some, watched
from course_lib.doctor.patient import Patient

MOST_STEPS = 20_000  # of a schedule that are looked at


@check("model")
def weights_are_sound(patient: Patient) -> Iterator[Finding]:
    """Are all weights finite, and none of them constant?"""
    named = [*patient.model.named_parameters(), *patient.model.named_buffers()]
    if bad := [name for name, t in named if t.is_floating_point() and not bool(t.isfinite().all())]:
        yield fault(
            f"{len(bad)} tensors of the model hold NaN or infinity: {some(bad)}",
            "all that is computed from them is NaN",
            "take a checkpoint from before, or another file: torchvision's VGG16 features-only has NaN in its "
            "classifier",
            3,
        )
    constant = [
        name
        for name, p in patient.model.named_parameters()
        if p.ndim > 1 and p.numel() > 16 and float(p.detach().std()) == 0
    ]
    if constant:
        weights = dict(patient.model.named_parameters())
        yield (fault if len(constant) > 2 else warning)(
            f"all numbers of {some(constant)} are the same: {float(weights[constant[0]].flatten()[0]):.3g}",
            "units with equal weights get equal gradients and stay copies of each other; zeros pass nothing back",
            "start from random numbers, scaled by the number of inputs (Xavier, He)",
            3,
        )


@check("model", "pretrained")
def pretrained_is_there(patient: Patient) -> Iterator[Finding]:
    """Does the network hold the weights that it was meant to start with?"""
    model = patient.model.state_dict()
    meant = {name: t for name, t in patient.pretrained.items() if isinstance(t, Tensor) and t.is_floating_point()}
    why = "a detector whose trunk is random needs far more images and steps than one that has learned to see"
    if bad := [name for name, t in meant.items() if not bool(t.isfinite().all())]:
        yield fault(f"pretrained weights hold NaN or infinity: {some(bad)}", why, "take another file", 3)
    unknown = [name for name in meant if name not in model]
    if meant and unknown:
        yield (fault if len(unknown) > len(meant) / 2 else warning)(
            f"{len(unknown)} of {len(meant)} pretrained tensors have names that the model does not: {some(unknown)}",
            f"load_state_dict(strict=False) passes over them without a word: {why}",
            "rename them, and print what load_state_dict returns",
            3,
        )
    misfits = [name for name, t in meant.items() if name in model and model[name].shape != t.shape]
    if misfits:
        yield warning(
            f"{len(misfits)} pretrained tensors have another shape than the model's: {some(misfits)}",
            why,
            "take the weights of the same architecture, or cut them to shape (fc6 and fc7 of VGG)",
            3,
        )
    far = []
    for name, t in meant.items():
        if name in model and model[name].shape == t.shape and t.ndim > 1 and bool(t.isfinite().all()):
            size = max(float(t.norm()), 1e-12)
            if float((model[name].cpu() - t.cpu()).norm()) > 0.5 * size:
                far.append(name)
    kernels = [name for name, t in meant.items() if t.ndim > 1]
    if far:
        yield (fault if len(far) > 0.3 * len(kernels) else warning)(
            f"{len(far)} of {len(kernels)} pretrained kernels are not in the model, which has others there: "
            f"{some(far)}",
            why,
            "load them after everything that initialises, and before the optimizer is made",
            3,
        )


@check("model")
def parameters_learn(patient: Patient) -> Iterator[Finding]:
    """Do those parameters learn that are meant to, and no others?"""
    named = dict(patient.model.named_parameters())
    if not named:
        return
    still = [name for name, p in named.items() if not p.requires_grad]
    numbers = sum(p.numel() for p in named.values())
    share = sum(named[name].numel() for name in still) / numbers
    if len(still) == len(named):
        yield fault("no parameter of the model learns", "it stays as it is", "requires_grad_(True) for the heads", 9)
        return
    heads: dict[str, list[str]] = {}
    if patient.outputs is not None and patient.batches is not None:
        with patient.undisturbed():
            heads = last_layers(patient)
        if strange := patient.memory["unregistered"]:
            yield fault(
                f"{strange} tensors that the outputs are made of are no parameters of the model",
                "optimizer, checkpoint and device pass over layers that stand in a plain list or dict",
                "nn.ModuleList, nn.ModuleDict, nn.Parameter",
                5,
            )
    for part, names in heads.items():
        if frozen := [name for name in names if name in still]:
            yield fault(
                f"{len(frozen)} of {len(names)} parameters of the heads of the {part} do not learn: {some(frozen)}",
                "heads start from random numbers: frozen, they predict noise for ever",
                "freeze the trunk's first blocks alone",
                9,
            )
    known = {name for names in heads.values() for name in names}
    rest = [name for name in still if name not in known]
    if patient.frozen is None:
        if rest:
            yield note(
                f"{len(rest)} parameters, {share:.0%} of all numbers, do not learn: {some(rest)}",
                "right where they are pretrained, and wrong where they are random",
                "compare with what was meant; count tensors and layers apart",
                9,
            )
        return
    meant = tuple(patient.frozen)
    if extra := [name for name in rest if not name.startswith(meant)]:
        part = sum(named[name].numel() for name in extra) / numbers
        yield (fault if part > 0.5 else warning)(
            f"{len(extra)} parameters, {part:.0%} of all numbers, do not learn, though nobody has meant to freeze "
            "them: "
            f"{some(extra)}",
            "they stay as they were at the start",
            "freeze by name; ten layers are twenty tensors",
            9,
        )
    if moving := [name for name in named if meant and name.startswith(meant) and name not in still]:
        yield warning(
            f"{len(moving)} parameters learn that were meant to stay: {some(moving)}",
            "what was learned from many images is overwritten by few",
            "requires_grad_(False) on them, before the optimizer is made",
            9,
        )


@check("model", "optimizer")
def optimizer_holds_all(patient: Patient) -> Iterator[Finding]:
    """Is each parameter that learns in one group of the optimizer, and nothing else in any?"""
    named = dict(patient.model.named_parameters())
    groups = patient.optimizer.param_groups
    held = [id(p) for group in groups for p in group["params"]]
    own = {id(p) for p in named.values()}
    if not own.intersection(held):
        yield fault(
            f"none of the optimizer's {len(held)} parameters is the model's",
            "each step changes the weights of another model, or of none",
            "make the optimizer after the model is built, moved, wrapped and copied for the last time",
            9,
        )
        return
    if foreign := len(set(held) - own):
        yield note(
            f"{foreign} of {len(held)} parameters of the optimizer are not the model's",
            "right for weights of the loss, and wrong for a layer that was replaced",
            "make the optimizer last",
            9,
        )
    if double := len(held) - len(set(held)):
        yield fault(f"{double} parameters are in two groups", "they take two steps for one", "give each one group", 9)
    learning = {name: p for name, p in named.items() if p.requires_grad}
    absent = [name for name, p in learning.items() if id(p) not in held]
    share = sum(learning[name].numel() for name in absent) / max(1, sum(p.numel() for p in learning.values()))
    if absent:
        yield (fault if share > 0.05 or len(absent) > len(learning) / 4 else warning)(
            f"{len(absent)} parameters that should learn, {share:.0%} of their numbers, are in no group of the "
            "optimizer: "
            f"{some(absent)}",
            "they get gradients and never move",
            "give the optimizer all parameters that learn, after the last layer was added or unfrozen",
            9,
        )
    empty = [str(group.get("name", number)) for number, group in enumerate(groups) if not group["params"]]
    stuck = [
        str(group.get("name", number))
        for number, group in enumerate(groups)
        if group["params"] and not any(p.requires_grad for p in group["params"])
    ]
    if empty or stuck:
        meant = patient.frozen is not None and not absent and not accidental(patient)
        yield (note if meant else warning)(
            f"groups {', '.join(empty + stuck)} of the optimizer hold nothing that learns",
            "the rate that was set for them teaches nothing",
            "compare with what is frozen: more than was meant?",
            9,
        )


def accidental(patient: Patient) -> list[str]:
    """What does not learn and was not meant to be frozen."""
    meant = tuple(patient.frozen or ())
    return [n for n, p in patient.model.named_parameters() if not p.requires_grad and not n.startswith(meant)]


@check("model", "optimizer")
def decay_spares_norms(patient: Patient) -> Iterator[Finding]:
    """Is weight decay of a usual size, and kept from norms and biases?"""
    names = {id(p): name for name, p in patient.model.named_parameters()}
    decayed, most, usual = [], 0.0, 0.0
    for group in patient.optimizer.param_groups:
        decay = float(group.get("weight_decay", 0.0))
        usual = max(usual, decay)
        if thin := [names.get(id(p), "?") for p in group["params"] if p.ndim <= 1 and p.requires_grad and decay]:
            decayed += thin
            most = max(most, decay)
    if usual >= 0.3:
        yield warning(
            f"weight decay is {usual:g}",
            "weights are drawn to 0 faster than the loss can hold them",
            "5e-4 with SGD, up to 0.05 with AdamW",
            9,
        )
    if decayed:
        # AdamW's own default is 0.01, for all parameters, and trains well.
        yield (warning if most > 0.011 else note)(
            f"{len(decayed)} norms and biases decay by {most:g}: {some(decayed)}",
            "a scale that is drawn to 0 makes its layer weaker without making it simpler",
            "put parameters with one axis in a group with weight_decay=0",
            9,
        )


@check("optimizer")
def rates_teach(patient: Patient) -> Iterator[Finding]:
    """Is the learning rate of each group above 0 and of a usual size?"""
    adaptive = "Adam" in type(patient.optimizer).__name__ or "RMS" in type(patient.optimizer).__name__
    highest = 0.05 if adaptive else 1.0
    for number, group in enumerate(patient.optimizer.param_groups):
        rate, name = float(group.get("initial_lr", group["lr"])), group.get("name", number)
        if not any(p.requires_grad for p in group["params"]):
            continue
        if not isfinite(rate) or rate < 0:
            yield fault(f"the rate of group {name} is {rate}", "weights become NaN, or climb", "set a rate above 0", 9)
        elif rate == 0:
            yield fault(
                f"the rate of group {name}, {len(group['params'])} parameters, is 0",
                "they get gradients and never move",
                "set a rate, or freeze them so that it shows",
                9,
            )
        elif rate > highest:
            yield warning(
                f"the rate of group {name} is {rate:g} with {type(patient.optimizer).__name__}",
                "each step goes past what it aims at",
                "1e-3 is usual; a range test finds what this network bears",
                9,
            )
        elif rate < 1e-6:
            yield warning(
                f"the rate of group {name} is {rate:g} with {type(patient.optimizer).__name__}",
                "in a training of usual length the weights hardly move",
                "1e-3 is usual; a range test finds what this network bears",
                9,
            )


@check("optimizer", "schedule")
def schedule_teaches(patient: Patient) -> Iterator[Finding]:
    """Is the rate that the real schedule gives a usual one at every step?"""
    other = getattr(patient.schedule, "optimizer", patient.optimizer)
    if other is not patient.optimizer:
        yield fault(
            "the schedule changes the rates of another optimizer than the one that takes the steps",
            "the rate never changes: no warmup, no decay",
            "make the schedule of the optimizer that is used, after it",
            9,
        )
        return
    rates = planned(patient)
    if not rates:
        return
    names = [str(group.get("name", number)) for number, group in enumerate(patient.optimizer.param_groups)]
    seen = set()
    for number, name in enumerate(names):
        if not any(p.requires_grad for p in patient.optimizer.param_groups[number]["params"]):
            continue
        for finding in judged([float(row[number]) for row in rates], patient.steps):
            if finding.why not in seen:  # of several groups the first tells it
                seen.add(finding.why)
                yield Finding(**finding.as_dict() | {"seen": f"group {name}: {finding.seen}"})


def planned(patient: Patient) -> list[list[float]]:
    """The rate of each group at each step of the real schedule; none where its `step` wants to be told something."""
    steps = min(patient.steps or 1000, MOST_STEPS)
    optimizer, schedule = patient.optimizer, patient.schedule
    rates = []
    with restored(schedule, optimizer), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for _ in range(steps):
                rates.append([float(group["lr"]) for group in optimizer.param_groups])
                schedule.step()
        except TypeError:
            return []
        except ValueError:  # OneCycleLR, called once more than it was made for
            if len(rates) < steps:
                raise
    return rates


@contextmanager
def restored(schedule: Any, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put a schedule and the rates back."""
    own = {name: value for name, value in vars(schedule).items() if name != "optimizer"}
    before = {name: copy.copy(value) if isinstance(value, (list, dict)) else value for name, value in own.items()}
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    try:
        yield
    finally:
        vars(schedule).update(before)
        for group, values in zip(optimizer.param_groups, groups, strict=True):
            group.update(values)


def judged(rates: list[float], planned_steps: int | None) -> Iterator[Finding]:
    """Judge the rate of one group over the steps of a training."""
    peak, steps = max(rates), len(rates)
    why_still = "nothing is learned in steps at rate 0"
    if not all(isfinite(rate) for rate in rates) or min(rates) < 0:
        bad = next(step for step, rate in enumerate(rates) if not isfinite(rate) or rate < 0)
        yield fault(
            f"the rate at step {bad} is {rates[bad]}", "weights become NaN, or climb", "look at the schedule", 9
        )
        return
    if peak == 0:
        yield fault(f"the rate is 0 at all of {steps} steps", why_still, "let the warmup begin above 0", 9)
        return
    still = next(step for step, rate in enumerate(rates) if rate > 1e-6 * peak)
    if still > 1:
        yield (fault if still > 0.2 * steps or still >= 100 else warning)(
            f"the rate is 0 at the first {still} of {steps} steps",
            why_still,
            "let the warmup begin above 0, count (step + 1), and count steps where steps are meant, not epochs",
            9,
        )
    if planned_steps is None:
        return
    last = max(step for step, rate in enumerate(rates) if rate > 0.003 * peak)
    # A cosine to 0 is below 0.3 % of its peak in its last 3.5 %.
    if last < 0.8 * planned_steps and last < steps - 1:
        yield (fault if last < 0.3 * planned_steps else warning)(
            f"the rate has fallen from {peak:.3g} to {rates[min(last + 1, steps - 1)]:.2g} at step {last + 1} of "
            f"{planned_steps}, and stays so",
            "the rest of the training teaches next to nothing",
            "give the schedule the number of steps where its `step` is called each step, of epochs where each epoch",
            9,
        )
    if steps < planned_steps or steps < 20:
        return
    low = [rate < 0.05 * peak for rate in rates]
    rises = sum(before and not now for before, now in pairwise(low))
    # Restarts that are meant are few: four triangles, three to five cosines.
    if rises > 6:
        yield warning(
            f"the rate falls to nearly 0 and rises again {rises} times in {steps} steps, every {steps // rises}",
            "each rise throws away what was settled, and the training ends wherever the wave stands",
            "give the schedule its length in steps where its `step` is called each step",
            9,
        )
    top = rates.index(peak)
    if top >= 0.95 * steps and rates[-1] > 3 * rates[0] and sorted(rates) == rates:
        yield (fault if peak > 20 * rates[steps // 2] else warning)(
            f"the rate rises through the whole training, from {rates[0]:.3g} to {rates[-1]:.3g}",
            "it never comes down again, and what was learned is thrown about at the end; or it never comes to its peak",
            "a warmup of 1 to 10 % of the steps, then a decay",
            9,
        )


@dataclass
class Taken:
    """What some steps on one batch have done.

    Attributes:
        calls: of optimizer.step.
        gradient: at the first of them, all in one row; None where there was none, or all were 0.
        left: there are gradients after the first step.
        moved: the parameters that have changed.
        broken: those that are no longer finite.
        modes: of the layers that differ between training and use, in the first step: see `watched`.
        scheduled: how often the schedule was stepped.
    """

    calls: int
    gradient: Tensor | None
    left: bool
    moved: list[str]
    broken: list[str]
    modes: dict[str, bool]
    scheduled: int


def taken(patient: Patient, count: int) -> Taken:
    """Take some steps on the first batch; the caller puts everything back."""
    batch, named = patient.first_batches(1)[0], dict(patient.model.named_parameters())
    before = {name: p.detach().clone() for name, p in named.items()}
    gradients: list[Tensor | None] = []
    started = getattr(patient.schedule, "last_epoch", 0)
    handle = patient.optimizer.register_step_pre_hook(lambda *_: gradients.append(flat(patient.model)))
    try:
        with watched(patient.model) as modes:
            patient.step(batch)
        left = flat(patient.model) is not None
        for _ in range(count - 1):
            patient.step(batch)
    finally:
        handle.remove()
    moved = [name for name, p in named.items() if not torch.equal(p.detach(), before[name])]
    broken = [name for name in moved if not bool(named[name].isfinite().all())]
    scheduled = getattr(patient.schedule, "last_epoch", 0) - started
    return Taken(len(gradients), gradients[0] if gradients else None, left, moved, broken, modes, scheduled)


def first_steps(patient: Patient) -> Taken:
    """Two steps from where the patient is; the first may be at a rate of 0."""

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
        yield fault("two steps never call optimizer.step", "the weights stay as they are", "call it after backward", 9)
    elif first.gradient is None:
        yield fault(
            "when optimizer.step is called for the first time there are no gradients",
            "the step comes before backward, or the gradients are cleared between the two",
            "zero_grad, then backward, then optimizer.step",
            9,
        )
    elif not first.moved:
        yield fault(
            "two steps leave every weight as it is",
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
        yield from oddities(patient, first)
    if first.gradient is not None and first.left and accumulates(patient, first.gradient):
        yield fault(
            "gradients of the step before are still there when a step goes back from its loss: they add up",
            "each step goes along the sum of all steps so far, ever further",
            "call optimizer.zero_grad() once in every step",
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
    if isinstance(patient.schedule, ReduceLROnPlateau) and first.scheduled >= 2:
        yield warning(
            "the schedule looks for a plateau and is given a number at every step",
            "losses of single batches go up and down: the rate falls after a few of them, for ever",
            "step it once an epoch, by the loss or the mAP of the validation images",
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


CHECKS = (
    weights_are_sound,
    pretrained_is_there,
    parameters_learn,
    optimizer_holds_all,
    decay_spares_norms,
    rates_teach,
    schedule_teaches,
    step_is_whole,
)
