"""Checks of the optimizer and its schedule: what they hold, and at which rates it learns."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.layers import some
from course_lib.doctor.parameters import accidental
from course_lib.doctor.patient import Patient

MOST_STEPS = 20_000  # of a schedule that are looked at
MOST_PENALTY = 5e-3  # weight decay in a gradient that is divided by its size


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
    # Adam and RMSprop divide the gradient by its size, and the penalty in it too: where the loss's part is small it
    # draws by a whole step each time, however small the decay. AdamW decays beside that.
    inside = type(patient.optimizer) in (torch.optim.Adam, torch.optim.RMSprop) and usual >= MOST_PENALTY
    if usual >= 0.3 or inside:
        yield warning(
            f"weight decay is {usual:g}"
            + (f" as a penalty in the gradient that {type(patient.optimizer).__name__} scales" if inside else ""),
            "weights are drawn to 0 faster than the loss can hold them",
            "5e-4 with SGD, up to 0.05 with AdamW, which decays beside the gradient",
            9,
        )
    if decayed:
        # AdamW's own default is 0.01, for all parameters, and trains well.
        yield (warning if most > 0.011 or inside else note)(
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
    large = [
        g for g in patient.optimizer.param_groups if "Adam" in type(patient.optimizer).__name__ and g["eps"] > 1e-2
    ]
    if large:
        yield warning(
            f"eps is {large[0]['eps']:g} in {len(large)} groups of {type(patient.optimizer).__name__}",
            "it is added to the size of the gradient that the step is divided by: where that is smaller, the rate is "
            "divided by hundreds",
            "1e-8 is usual; 1e-4 at most",
            9,
        )
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


@check("optimizer")
def momentum_forgets(patient: Patient) -> Iterator[Finding]:
    """Does momentum forget within some tens of steps, and the mean gradient before the mean square?"""
    for number, group in enumerate(patient.optimizer.param_groups):
        name, (first, second) = group.get("name", number), group.get("betas", (group.get("momentum", 0.0), None))
        if first >= LONGEST_MEMORY:
            swapped = second is not None and second < first
            yield warning(
                f"momentum of group {name} is {first:g}: a step is the mean of some {1 / max(1 - first, 1e-9):.0f} "
                "gradients" + (f", and its size that of {1 / (1 - second):.0f}" if swapped else ""),
                "weights go on along gradients of long ago, past what they aimed at and back",
                "betas=(0.9, 0.999), in this order" if swapped else "0.9 is usual, 0.95 at most",
                9,
            )
            return


LONGEST_MEMORY = 0.99


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
    rises = waves(rates)
    # Restarts that are meant are few: four triangles, three to five cosines.
    if rises > 6:
        yield warning(
            f"the rate falls to a third or less and rises again {rises} times in {steps} steps, every {steps // rises}",
            "each rise throws away what was settled, and the training ends wherever the wave stands",
            "give the schedule its length in steps where its `step` is called each step, and count steps over the "
            "whole training, not within the epoch",
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


def waves(rates: list[float]) -> int:
    """How often the rate falls to a third of what it was and then rises threefold."""
    count, high, low = 0, rates[0], None
    for rate in rates:
        if low is None:  # on the way down
            high = max(high, rate)
            low = rate if rate < high / 3 else None
        else:
            low = min(low, rate)
            if rate > 3 * low and rate > high / 10:
                count, high, low = count + 1, rate, None
    return count


CHECKS = (optimizer_holds_all, decay_spares_norms, rates_teach, momentum_forgets, schedule_teaches)
