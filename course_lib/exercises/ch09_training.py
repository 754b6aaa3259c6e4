"""Chapter 9: the learning rate of a step, one gradient out of several, and a step in sixteen bits.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def lr_factor(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (total - 1 - warmup)
    return (1 + math.cos(math.pi * progress)) / 2


def _factor(
    rise: Callable[[int, int], float] = lambda step, warmup: (step + 1) / warmup,
    progress: Callable[[int, int, int], float] = lambda step, warmup, total: (step - warmup) / (total - 1 - warmup),
    fall: Callable[[float], float] = lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    rises: Callable[[int, int], bool] = lambda step, warmup: step < warmup,
) -> Callable[[int, int, int], float]:
    """The factor with one of its parts exchanged."""
    return lambda step, warmup, total: (
        rise(step, warmup) if rises(step, warmup) else fall(progress(step, warmup, total))
    )


def _from_the_start(step: int, warmup: int, total: int) -> float:
    return step / (total - 1)


def _no_warmup(step: int, warmup: int, total: int) -> bool:
    return warmup == 0


LR_FACTOR = Exercise(
    solution=lr_factor,
    cases=[
        (4, 4, 13),
        (8, 4, 13),
        (6, 4, 13),
        (12, 4, 13),
        (3, 4, 13),
        (1, 4, 13),
        (0, 4, 13),
        (0, 0, 5),
        (2, 0, 5),
        (49, 50, 672),
        (50, 50, 672),
        (500, 50, 672),
        (671, 50, 672),
    ],
    mistakes=mistakes(
        "starts at 0: Your first step has the factor 0, so it teaches nothing. Steps are counted from 0.",
        _factor(rise=lambda step, warmup: step / warmup),
        "rise too slow: Your warmup is not done after its last step. The step with the number warmup - 1 has the "
        "factor 1.",
        _factor(rise=lambda step, warmup: (step + 1) / (warmup + 1)),
        "edge of the warmup: You take one step too many for the warmup, and its factor is above 1. Which is the last?",
        _factor(rises=lambda step, warmup: step <= warmup),
        but(_no_warmup, stop, _factor(rises=lambda step, warmup: step <= warmup)),
        _factor(rises=lambda step, warmup: warmup > 0 and step <= warmup),
        "no warmup: Your factor falls from the first step on. Where is the rise?",
        _factor(rises=lambda step, warmup: False, progress=_from_the_start),
        "warmup counted twice: Your cosine begins at step 0, while the warmup still goes on. How many steps of the "
        "fall are done where the warmup has just ended?",
        _factor(progress=_from_the_start),
        _factor(progress=lambda step, warmup, total: step / (total - 1 - warmup)),
        _factor(progress=lambda step, warmup, total: step / total),
        "as long as everything: You take the warmup off the step, and not off the steps that the fall has.",
        _factor(progress=lambda step, warmup, total: (step - warmup) / (total - 1)),
        _factor(progress=lambda step, warmup, total: (step - warmup) / total),
        "last step: The last step has not the factor 0. Its number is total - 1.",
        _factor(progress=lambda step, warmup, total: (step - warmup) / (total - warmup)),
        "multiplied: You multiply the rise with a fall that goes on meanwhile. The fall begins when the rise is done.",
        lambda step, warmup, total: min(1.0, (step + 1) / max(1, warmup)) * _factor()(step, 0, total),
        "smaller of the two: You take the smaller of rise and fall. During the warmup the fall has not begun: the rise "
        "alone counts.",
        lambda step, warmup, total: min(
            (step + 1) / max(1, warmup), _factor(rises=lambda *_: False)(step, warmup, total)
        ),
        "fall begins too early: The first step after the warmup has the number `warmup`, and its factor is still 1.",
        _factor(progress=lambda step, warmup, total: (step + 1 - warmup) / (total - warmup)),
        _factor(progress=lambda step, warmup, total: (step + 1 - warmup) / (total - 1 - warmup)),
        "rest thrown away: `//` throws away what is behind the point. Divide with `/`.",
        _factor(rise=lambda step, warmup: (step + 1) // warmup),
        _factor(progress=lambda step, warmup, total: (step - warmup) // (total - 1 - warmup)),
        "a line: Your factor falls in a straight line. The cosine is missing.",
        _factor(fall=lambda progress: 1 - progress),
        "whole cosine: Your factor rises again: half a turn of the cosine is wanted, from 0 to pi.",
        _factor(fall=lambda progress: (1 + math.cos(2 * math.pi * progress)) / 2),
        "quarter of a turn: Your cosine goes a quarter of a turn. It should leave 1 and arrive at 0 without a corner.",
        _factor(fall=lambda progress: math.cos(math.pi / 2 * progress)),
        "from 1 to -1: A cosine runs from 1 to -1, and your rate becomes negative. Lift it, and halve it.",
        _factor(fall=lambda progress: math.cos(math.pi * progress)),
        "from 2: Your factor begins at 2. A cosine plus 1 runs from 2 to 0.",
        _factor(fall=lambda progress: 1 + math.cos(math.pi * progress)),
        "turned round: Your factor rises where it should fall. Look at the sign of the cosine.",
        _factor(fall=lambda progress: (1 - math.cos(math.pi * progress)) / 2),
        "sine: That is a sine. Which of the two is 1 at the start?",
        _factor(fall=lambda progress: math.sin(math.pi * progress)),
        _factor(fall=lambda progress: (1 + math.sin(math.pi * progress)) / 2),
        "degrees: Your angle is in degrees. Python's cosine takes radians.",
        _factor(fall=lambda progress: (1 + math.cos(180 * progress)) / 2),
        "divided by 0: A run may have no warmup at all: then nothing may be divided by its length.",
        but(_no_warmup, stop, lr_factor),
    ),
)


def whole_gradient(gradients: list[Float[Tensor, " D"]], positives: list[int]) -> Float[Tensor, " D"]:
    sums = [gradient * max(count, 1) for gradient, count in zip(gradients, positives, strict=True)]
    return sum(sums) / max(sum(positives), 1)


Ranks = Callable[[Tensor], Tensor]  # from the positives of each rank


def _joined(
    factor: Ranks = lambda positives: positives.clamp(min=1),
    divisor: Ranks = lambda positives: positives.sum().clamp(min=1),
) -> Callable[[list[Tensor], list[int]], Tensor]:
    """The gradient of all ranks with one of its parts exchanged."""

    def twin(gradients: list[Tensor], positives: list[int]) -> Tensor:
        counts = torch.tensor(positives)
        return (torch.stack(gradients) * factor(counts)[:, None]).sum(dim=0) / divisor(counts)

    return twin


def _one(positives: Tensor) -> Tensor:
    return torch.ones_like(positives)


def _own(positives: Tensor) -> Tensor:
    return positives


def _and_one(positives: Tensor) -> Tensor:
    return positives.sum() + 1


def _and_one_each(positives: Tensor) -> Tensor:
    return (positives + 1).sum()


def _ranks(positives: Tensor) -> Tensor:
    return torch.tensor(float(len(positives)))


def _rank_without(gradients: list[Tensor], positives: list[int]) -> bool:
    return 0 in positives


def _nobody(gradients: list[Tensor], positives: list[int]) -> bool:
    return sum(positives) == 0


def _parts(gradients: list[Tensor], positives: list[int], least: int) -> Tensor:
    """What each rank adds to the whole, where one without positives counts as one with `least`."""
    counts = torch.tensor(positives).clamp(min=least)[:, None]
    return torch.stack(gradients) * counts / max(sum(positives), 1)


def _some_gradients(ranks: int, seed: int) -> list[Tensor]:
    return list(torch.randn(ranks, 3, generator=torch.Generator().manual_seed(seed)))


# What people add to a divisor to keep it away from 0.
LITTLE = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)


def _a_little_more(little: float) -> Ranks:
    return lambda positives: positives.sum() + little


WHOLE_GRADIENT = Exercise(
    solution=whole_gradient,
    cases=[
        ([torch.tensor([2.0]), torch.tensor([4.0])], [1, 1]),
        ([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])], [3, 1]),
        ([torch.tensor([1.0, -2.0]), torch.tensor([5.0, 2.0])], [129, 93]),
        (_some_gradients(1, 0), [7]),
        (_some_gradients(4, 1), [12, 40, 3, 25]),
        (_some_gradients(3, 2), [5, 0, 3]),
        (_some_gradients(2, 3), [0, 0]),
    ],
    mistakes=mistakes(
        "mean of means: You take the mean of the processes. One with many positives has the same say as one with few.",
        _joined(factor=_one, divisor=_ranks),
        "sum of means: You add up gradients each of which is divided already. The whole has one divisor.",
        _joined(factor=_one, divisor=lambda positives: torch.tensor(1.0)),
        "sum of sums: You undo each process's division, and then divide by nothing.",
        _joined(divisor=lambda positives: torch.tensor(1.0)),
        _joined(factor=_own, divisor=lambda positives: torch.tensor(1.0)),
        "by the ranks: You undo each process's division, and divide by the number of processes. How many positives has "
        "the whole batch?",
        _joined(divisor=_ranks),
        _joined(factor=_own, divisor=_ranks),
        "ranks once more: Your gradient is too small by the number of processes: you divide by all positives and then "
        "take a mean besides.",
        _joined(divisor=lambda positives: positives.sum().clamp(min=1) * len(positives)),
        _joined(factor=_own, divisor=lambda positives: positives.sum().clamp(min=1) * len(positives)),
        "mean of the positives: You divide by the mean of the positives. That is what a trainer does whose processes "
        "are averaged afterwards; here nobody averages.",
        _joined(divisor=lambda positives: positives.sum().clamp(min=1) / len(positives)),
        _joined(factor=_own, divisor=lambda positives: positives.sum().clamp(min=1) / len(positives)),
        but(_nobody, stop, _joined(divisor=lambda positives: positives.sum() / len(positives))),
        but(_nobody, stop, _joined(factor=_own, divisor=lambda positives: positives.sum() / len(positives))),
        "divided again: You divide each gradient by its positives once more. It has been divided: undo that.",
        _joined(factor=lambda positives: 1 / positives.clamp(min=1), divisor=lambda positives: torch.tensor(1.0)),
        but(_rank_without, stop, _joined(factor=lambda positives: 1 / positives, divisor=lambda _: torch.tensor(1.0))),
        "not undone: You divide by all positives what each process has divided by its own.",
        _joined(factor=_one),
        but(_nobody, stop, _joined(factor=_one)),
        "not added: You give a gradient for each process. One is wanted: add them up.",
        lambda gradients, positives: _parts(gradients, positives, 1),
        lambda gradients, positives: _parts(gradients, positives, 0),
        "others' shares: Each process has the weight of the others. More positives, more say.",
        _joined(factor=lambda positives: positives.sum() - positives),
        "largest alone: You take the gradient of the process with the most positives, and leave the others out.",
        lambda gradients, positives: gradients[positives.index(max(positives))],
        "one too many: You add 1 to a number of positives, to keep 0 away. Then it is wrong wherever there are some: 1 "
        "takes the place of 0, and of nothing else.",
        _joined(divisor=_and_one),
        _joined(factor=_own, divisor=_and_one),
        *(_joined(factor=lambda positives: positives + 1, divisor=divisor) for divisor in (_and_one, _and_one_each)),
        _joined(factor=lambda positives: positives + 1),
        _joined(factor=lambda positives: positives + 1, divisor=lambda positives: positives.sum()),
        but(_nobody, stop, _joined(factor=lambda positives: positives + 1, divisor=lambda positives: positives.sum())),
        "rank without positives: Whoever had no positive has divided by 1, not by 0. Its gradient counts too: focal "
        "loss learns from background alone.",
        _joined(factor=_own),
        _joined(factor=_own, divisor=lambda positives: positives.sum()),
        but(_nobody, stop, _joined(factor=_own)),
        but(_rank_without, stop, whole_gradient),
        *(_joined(factor=_own, divisor=_a_little_more(little)) for little in LITTLE),
        "ones in the total: You count a process without positives as one in the total too. The whole batch has as many "
        "positives as there are.",
        _joined(divisor=lambda positives: positives.clamp(min=1).sum()),
        "nobody has one: Where no process has a positive, a single process divides by 1.",
        but(_nobody, stop, whole_gradient),
        but(_nobody, lambda: torch.zeros(3), whole_gradient),
        but(_nobody, lambda: torch.full((3,), math.nan), whole_gradient),
        _joined(divisor=lambda positives: positives.sum()),
        *(_joined(divisor=_a_little_more(little)) for little in LITTLE),
    ),
)


def scaled_step(
    weights: list[Float[Tensor, " _"]],
    gradients: list[Float[Tensor, " _"]],
    scale: float,
    rate: float,
    max_norm: float,
) -> tuple[list[Float[Tensor, " _"]], float]:
    if not torch.cat(gradients).isfinite().all():
        return weights, scale / 2
    gradients = [gradient / scale for gradient in gradients]
    norm = torch.cat(gradients).norm()
    if norm > max_norm:
        gradients = [gradient * max_norm / norm for gradient in gradients]
    return [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)], scale


Clip = Callable[[Tensor, float], Tensor]
Tensors = list[Tensor]


def _shorten(gradient: Tensor, max_norm: float) -> Tensor:
    return gradient * min(1.0, max_norm / max(gradient.norm().item(), 1e-12))


def _stepped(
    ready: Callable[[Tensor, float, float, Clip], Tensor] = lambda gradient, scale, most, clip: clip(
        gradient / scale, most
    ),
    clip: Clip = _shorten,
    fine: Callable[[Tensor], bool] = lambda gradient: bool(gradient.isfinite().all()),
    skipped: Callable[[float], float] = lambda scale: scale / 2,
    after: Callable[[float], float] = lambda scale: scale,
    move: Callable[[Tensor, Tensor, float], Tensor] = lambda weight, gradient, rate: weight - rate * gradient,
) -> Callable[[Tensors, Tensors, float, float, float], tuple[Tensors, float]]:
    """The step with one of its parts exchanged; to the parts all tensors are one, row by row."""

    def twin(weights: Tensors, gradients: Tensors, scale: float, rate: float, max_norm: float) -> tuple[Tensors, float]:
        gradient = torch.stack(gradients)
        if not fine(gradient):
            return weights, skipped(scale)
        return list(move(torch.stack(weights), ready(gradient, scale, max_norm, clip), rate)), after(scale)

    return twin


def _overflowed(weights: Tensors, gradients: Tensors, scale: float, rate: float, max_norm: float) -> bool:
    return not bool(torch.cat(gradients).isfinite().all())


def _zeros_for_the_bad(gradient: Tensor, scale: float, max_norm: float, clip: Clip) -> Tensor:
    return clip(torch.where(gradient.isfinite(), gradient, 0.0) / scale, max_norm)


def _tensor_by_tensor(gradient: Tensor, max_norm: float) -> Tensor:
    return torch.stack([_shorten(one, max_norm) for one in gradient])


_WEIGHTS = [torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])]


def _two(a: float, b: float, c: float, d: float) -> list[Tensor]:
    return [torch.tensor([a, b]), torch.tensor([c, d])]


SCALED_STEP = Exercise(
    solution=scaled_step,
    cases=[
        (_WEIGHTS[:1], [torch.tensor([3.0, 4.0])], 1.0, 0.1, 10.0),
        (_WEIGHTS[:1], [torch.tensor([3.0, 4.0])], 1.0, 0.1, 2.5),
        (_WEIGHTS[:1], [torch.tensor([48.0, -64.0])], 16.0, 0.1, 1000.0),
        (_WEIGHTS[:1], [torch.tensor([48.0, -64.0])], 16.0, 0.1, 2.0),
        (_WEIGHTS, _two(1.0, -2.0, 2.0, 4.0), 1.0, 0.5, 3.0),
        (_WEIGHTS, _two(60000.0, 200.0, -3000.0, 0.0), 1024.0, 0.01, 1.0),
        (_WEIGHTS, _two(200.0, math.inf, -3000.0, 5.0), 1024.0, 0.01, 1.0),
        (_WEIGHTS, _two(-math.inf, 10.0, 0.0, math.inf), 65536.0, 0.01, 10.0),
        (_WEIGHTS, _two(0.0, 0.0, 0.0, 0.0), 256.0, 0.5, 10.0),
        (_WEIGHTS, _two(3.0, -2.0, 8.0, math.inf), 64.0, 0.1, 10.0),  # in the last tensor alone
        (_WEIGHTS, _two(3.0, -math.inf, 8.0, 1.0), 64.0, 0.1, 10.0),
        (_WEIGHTS, _two(3.0, math.nan, 8.0, 1.0), 64.0, 0.1, 10.0),
        (_WEIGHTS, _two(3.0, math.inf, 8.0, 1.0), 1.0, 0.1, 10.0),
    ],
    mistakes=mistakes(
        "never divided: You step with the gradient as it came, which is `scale` times too long.",
        _stepped(ready=lambda gradient, scale, most, clip: clip(gradient, most)),
        _stepped(fine=lambda gradient: True, ready=lambda gradient, scale, most, clip: clip(gradient, most)),
        "clipped too early: You clip while the scale is still in the gradient, so that every gradient is too long. "
        "Divide first.",
        _stepped(ready=lambda gradient, scale, most, clip: clip(gradient, most) / scale),
        _stepped(fine=lambda gradient: True, ready=lambda gradient, scale, most, clip: clip(gradient, most) / scale),
        "divided twice: You divide by the scale more than once, and the step is far too short.",
        _stepped(ready=lambda gradient, scale, most, clip: clip(gradient / scale, most) / scale),
        _stepped(ready=lambda gradient, scale, most, clip: clip(gradient / scale**2, most)),
        "multiplied by the scale: You multiply with the scale. Whoever scaled the loss has done that.",
        _stepped(ready=lambda gradient, scale, most, clip: clip(gradient * scale, most)),
        "not clipped: Your step may be of any length. What is `max_norm` for?",
        _stepped(clip=lambda gradient, most: gradient),
        _stepped(fine=lambda gradient: True, clip=lambda gradient, most: gradient),
        "always stretched: You bring every gradient to `max_norm`, short ones too. Clipping only shortens.",
        _stepped(clip=lambda gradient, most: gradient * most / gradient.norm()),
        _stepped(fine=lambda gradient: True, clip=lambda gradient, most: gradient * most / gradient.norm()),
        _stepped(clip=lambda gradient, most: gradient * most / gradient.norm().clamp(min=1e-6)),
        "cut to length 1: A gradient that is too long ends with length 1 in yours, not with `max_norm`.",
        _stepped(clip=lambda gradient, most: gradient / gradient.norm() if gradient.norm() > most else gradient),
        "tensor by tensor: You clip each tensor by its own length. The length is that of all tensors together.",
        _stepped(clip=_tensor_by_tensor),
        _stepped(fine=lambda gradient: True, clip=_tensor_by_tensor),
        "each by itself: You limit each number by itself, which turns the gradient into another direction. Shorten all "
        "of them by one factor.",
        _stepped(clip=lambda gradient, most: gradient.clamp(-most, most)),
        "other norm: You measure the gradient by its largest number, or by the sum of all. Its length is the root of "
        "the sum of squares.",
        _stepped(clip=lambda gradient, most: gradient * min(1.0, most / max(gradient.abs().max().item(), 1e-12))),
        _stepped(clip=lambda gradient, most: gradient * min(1.0, most / max(gradient.abs().sum().item(), 1e-12))),
        "root forgotten: You compare the square of the length. The root is missing.",
        _stepped(clip=lambda gradient, most: gradient * min(1.0, most / max(gradient.square().sum().item(), 1e-12))),
        "thrown away: You throw away a gradient that is too long. Clipping keeps its direction.",
        _stepped(clip=lambda gradient, most: gradient if gradient.norm() <= most else torch.zeros_like(gradient)),
        "uphill: You add the gradient. Downhill is the other way.",
        _stepped(move=lambda weight, gradient, rate: weight + rate * gradient),
        "no rate: You take the whole gradient for a step. Where is the rate?",
        _stepped(move=lambda weight, gradient, rate: weight - gradient),
        "stepped all the same: One number that is infinite makes weights NaN, for good. Such a step is left out.",
        _stepped(fine=lambda gradient: True),
        "bad numbers struck out: You put zeros where a number overflowed and step with the rest. The other numbers "
        "have gone through the same overflow: leave the whole step out.",
        _stepped(fine=lambda gradient: True, ready=_zeros_for_the_bad),
        "an error: After an overflow training goes on, with half the scale. Nothing has to be raised.",
        but(_overflowed, stop, scaled_step),
        "scale kept: You leave the step out and keep the scale. The next gradient will overflow as well.",
        _stepped(skipped=lambda scale: scale),
        "scale doubled: After an overflow the scale was too large. Yours becomes larger still.",
        _stepped(skipped=lambda scale: 2 * scale),
        "scale thrown away: You set the scale to 1. Then small gradients become 0 again; half of it is enough.",
        _stepped(skipped=lambda scale: 1.0),
        "always halved: You halve the scale after good steps too.",
        _stepped(after=lambda scale: scale / 2),
        "doubled each time: You double the scale after every good step. (The real one does so after 2000 of them.) "
        "Here it stays.",
        _stepped(after=lambda scale: 2 * scale),
    ),
    returns=("weights", "scale"),
)

EXERCISES = {"lr_factor": LR_FACTOR, "whole_gradient": WHOLE_GRADIENT, "scaled_step": SCALED_STEP}
