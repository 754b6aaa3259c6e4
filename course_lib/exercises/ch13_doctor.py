"""Chapter 13: three checks: the first loss, whether a batch was learned by heart, and the form of boxes.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def undecided_loss(classes, positives, negatives, ratio):
    if positives == 0:
        return 0.0
    mined = min(ratio * positives, negatives)
    return (positives + mined) / positives * math.log(classes + 1)


def _first(
    paid: Callable[[int, int, int], float] = lambda positives, negatives, ratio: (
        positives + min(ratio * positives, negatives)
    ),
    divisor: Callable[[int, int, int], float] = lambda positives, negatives, ratio: positives,
    each: Callable[[int], float] = lambda classes: math.log(classes + 1),
) -> Callable[[int, int, int, int], float]:
    """How many priors are paid for, what the sum is divided by, and what `each` costs."""

    def twin(classes: int, positives: int, negatives: int, ratio: int) -> float:
        if positives == 0:
            return 0.0
        counts = positives, negatives, ratio
        return paid(*counts) / divisor(*counts) * each(classes)

    return twin


def _no_positives(classes: int, positives: int, negatives: int, ratio: int) -> bool:
    return positives == 0


UNDECIDED_LOSS = Exercise(
    solution=undecided_loss,
    cases=[
        (1, 1, 100, 3),
        (20, 10, 1000, 3),
        (9, 4, 100, 1),
        (20, 12, 5000, 0),
        (3, 10, 17, 3),
        (80, 7, 20, 5),
        (20, 5, 0, 3),
        (20, 0, 8732, 3),
    ],
    mistakes=mistakes(
        "background: Background is a class too: who knows nothing gives it the same share as each of the others.",
        _first(each=math.log),
        "other logarithm: Cross entropy takes the natural logarithm, of base e.",
        _first(each=lambda classes: math.log2(classes + 1)),
        _first(each=lambda classes: math.log10(classes + 1)),
        "negatives alone: You pay for the negatives alone. Positives have a class to learn too; without them this is "
        "the loss of a bug that chapter 7 breaks on purpose.",
        _first(paid=lambda positives, negatives, ratio: min(ratio * positives, negatives)),
        "of one prior: This is what a single prior costs. Either you pay for the positives alone, or you divide by all "
        "that are paid for; SSD pays for the hardest negatives too, and divides by the positives.",
        _first(paid=lambda positives, negatives, ratio: positives),
        "all negatives: You pay for every negative. Only `ratio` for each positive are mined.",
        _first(paid=lambda positives, negatives, ratio: positives + negatives),
        "more than there are: You mine more negatives than there are.",
        _first(paid=lambda positives, negatives, ratio: positives * (1 + ratio)),
        "always three: You mine three negatives for each positive, whatever `ratio` is, or however many there are.",
        _first(paid=lambda positives, negatives, ratio: positives + min(3 * positives, negatives)),
        lambda classes, positives, negatives, ratio: 4 * math.log(classes + 1),
        "ratio as a count: `ratio` negatives are mined for each positive, not in all.",
        _first(paid=lambda positives, negatives, ratio: positives + min(ratio, negatives)),
        "a sum: This is the sum over the priors. Divide it by the positives.",
        _first(divisor=lambda positives, negatives, ratio: 1),
        "no positives: Without positives nothing is paid, and the answer is 0; there is nothing to divide by.",
        but(_no_positives, stop, undecided_loss),
        "sign: A cross entropy is minus the logarithm of a probability, and so it is not negative.",
        _first(each=lambda classes: -math.log(classes + 1)),
    ),
)


def loss_left(losses, window):
    if len(losses) < 2 * window or not all(map(math.isfinite, losses)):
        return math.inf
    return sum(losses[-window:]) / sum(losses[:window])


Losses = Sequence[float]


def _mean(values: Losses) -> float:
    return sum(values) / len(values)


def _left(
    first: Callable[[Losses, int], float] = lambda losses, window: _mean(losses[:window]),
    last: Callable[[Losses, int], float] = lambda losses, window: _mean(losses[-window:]),
    share: Callable[[float, float], float] = lambda first, last: last / first,
    short: Callable[[Losses, int], bool] = lambda losses, window: len(losses) < 2 * window,
) -> Callable[[Losses, int], float]:
    """What is taken for the loss at first and at last, and how they are compared; `short` is too short to say."""

    def twin(losses: Losses, window: int) -> float:
        if short(losses, window) or not all(map(math.isfinite, losses)):
            return math.inf
        return share(first(losses, window), last(losses, window))

    return twin


def _broken(losses: Losses, window: int) -> bool:
    return not all(map(math.isfinite, losses))


def _ends_alone(losses: Losses, window: int) -> float:
    """Only the losses that are averaged are looked at."""
    if len(losses) < 2 * window or _broken([*losses[:window], *losses[-window:]], window):
        return math.inf
    return sum(losses[-window:]) / sum(losses[:window])


def _nan_alone(losses: Losses, window: int) -> float:
    if len(losses) < 2 * window or any(map(math.isnan, losses)):
        return math.inf
    return sum(losses[-window:]) / sum(losses[:window])


def _above_alone(losses: Losses, window: int) -> float:
    """A loss below all numbers passes."""
    if len(losses) < 2 * window or not all(one < math.inf for one in losses):
        return math.inf
    return sum(losses[-window:]) / sum(losses[:window])


def _dropped(losses: Losses, window: int) -> float:
    """What is no number is left out."""
    return loss_left([one for one in losses if math.isfinite(one)], window)


def _unasked(losses: Losses, window: int) -> float:
    """NaN goes through."""
    if len(losses) < 2 * window:
        return math.inf
    return sum(losses[-window:]) / sum(losses[:window])


NAN = math.nan

LOSS_LEFT = Exercise(
    solution=loss_left,
    cases=[
        ([8.0, 4.0], 1),
        ([20.0, 18.0, 10.0, 5.0, 3.0, 1.0], 2),
        ([9.0, 15.0, 6.0, 2.0, 0.5, 4.0], 2),
        ([6.0, 12.0, 3.0, 1.0, 7.0, 2.0, 5.0], 3),
        ([1.0, 2.0, 3.0, 6.0], 2),
        ([10.0, 6.0, 2.0], 2),
        ([10.0], 1),
        ([10.0, 8.0, 4.0, NAN], 1),
        ([10.0, 8.0, NAN, 1.0, 2.0, 3.0], 2),
        ([10.0, 8.0, math.inf, 4.0, 1.0, 1.0], 2),
        ([10.0, 8.0, 4.0, 2.0, math.inf], 2),
        ([10.0, -math.inf, 4.0, 2.0, 1.0], 2),
    ],
    mistakes=mistakes(
        "medians: You take medians. They forgive an odd step, and that may be wise; here the mean is asked for.",
        _left(lambda losses, window: median(losses[:window]), lambda losses, window: median(losses[-window:])),
        "upside down: You divide the first losses by the last ones. What is left is the last of the first.",
        _left(share=lambda first, last: first / last),
        "what has gone: This is the share that has gone. What is left is wanted.",
        _left(share=lambda first, last: 1 - last / first),
        "a difference: You subtract. A loss of 8,000 may fall by 1,000 and nothing is learned: a share is wanted.",
        _left(share=lambda first, last: first - last),
        _left(share=lambda first, last: last - first),
        "the best: You take the smallest loss that was ever seen. A loss that rises again was not learned by heart.",
        _left(last=lambda losses, window: min(losses)),
        _left(last=lambda losses, window: min(losses[-window:])),
        _left(lambda losses, window: losses[0], lambda losses, window: min(losses)),
        "one step: You look at a single step at the end, or at the start. A single one may be an odd one: average "
        "`window` of them.",
        _left(lambda losses, window: losses[0], lambda losses, window: losses[-1]),
        _left(last=lambda losses, window: losses[-1]),
        _left(first=lambda losses, window: losses[0]),
        "the largest: You compare with the largest loss. The first ones are meant.",
        _left(first=lambda losses, window: max(losses)),
        "all of them: You compare with the mean of all losses. The first ones are meant.",
        _left(first=lambda losses, window: _mean(losses)),
        "NaN: A loss that was NaN or infinite at any step has failed, whatever came before and after.",
        _unasked,
        _ends_alone,
        _nan_alone,
        _above_alone,
        but(_broken, stop, loss_left),
        "left out: You leave out what is no number, as if it had not been. The training has failed there.",
        _dropped,
        "too few: With fewer than twice `window` steps first and last ones would overlap: nothing is known, so the "
        "answer is infinity.",
        _left(short=lambda losses, window: not losses),
        _left(short=lambda losses, window: len(losses) < window),
        "just enough: Twice `window` steps are enough.",
        _left(short=lambda losses, window: len(losses) <= 2 * window),
    ),
)


def possible_forms(boxes):
    a, b = boxes[:, :2], boxes[:, 2:]
    ways = {"corners": (a, b), "xywh": (a, a + b), "centres": (a - b / 2, a + b / 2)}
    found = []
    for low, high in ways.values():
        has_area = (low < high).all()
        inside = (low >= -1e-4).all() and (high <= 1 + 1e-4).all()
        found.append(bool(has_area and inside))
    return tuple(found)


Pair = tuple[Tensor, Tensor]

READINGS: tuple[Callable[[Tensor, Tensor], Pair], ...] = (
    lambda a, b: (a, b),
    lambda a, b: (a, a + b),
    lambda a, b: (a - b / 2, a + b / 2),
)
SLACK = 1e-4


def _forms(
    readings: Sequence[Callable[[Tensor, Tensor], Pair]] = READINGS,
    area: Callable[[Tensor, Tensor], Tensor] = lambda low, high: (low < high).all(dim=1),
    inside: Callable[[Tensor, Tensor], Tensor] = lambda low, high: (
        (low >= -SLACK).all(dim=1) & (high <= 1 + SLACK).all(dim=1)
    ),
    over_boxes: Callable[[Tensor], Tensor] = torch.all,
    said: Callable[[bool], bool] = bool,
) -> Callable[[Tensor], tuple[bool, ...]]:
    """The three ways to read boxes, and what must hold of each box, or of any."""

    def twin(boxes: Tensor) -> tuple[bool, ...]:
        pairs = [reading(boxes[:, :2], boxes[:, 2:]) for reading in readings]
        return tuple(said(bool(over_boxes(area(*pair) & inside(*pair)))) for pair in pairs)

    return twin


def _with(number: int, reading: Callable[[Tensor, Tensor], Pair]) -> tuple[Callable[[Tensor, Tensor], Pair], ...]:
    return tuple(reading if place == number else usual for place, usual in enumerate(READINGS))


def _true(low: Tensor, high: Tensor) -> Tensor:
    return torch.ones(len(low), dtype=torch.bool)


def _boxes(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


POSSIBLE_FORMS = Exercise(
    solution=possible_forms,
    cases=[
        (_boxes([0.5, 0.5, 0.25, 0.25]),),
        (_boxes([0.25, 0.25, 0.75, 0.75]),),
        (_boxes([0.75, 0.75, 0.875, 0.875]),),
        (_boxes([0.125, 0.125, 0.5, 0.5]),),
        (_boxes([0.75, 0.5, 0.25, 0.75]),),
        (_boxes([0.25, 0.25, 0.5, 0.625], [0.75, 0.75, 0.125, 0.125]),),
        (_boxes([0.75, 0.75, 0.125, 0.125], [0.25, 0.25, 0.5, 0.625]),),
        (_boxes([0.25, 0.5, 0.25, 0.25]),),
        (_boxes([0.5, 0.5, 0.0, 0.25]),),
        (_boxes([0.5, 0.5, 0.25, -0.25]),),
        (_boxes([64.0, 48.0, 128.0, 96.0]),),
        (_boxes([0.25, 0.5, 0.75, 1.25]),),
        (_boxes([-0.25, 0.25, 0.5, 0.5]),),
        (_boxes([-1e-6, 0.25, 0.5, 1.00001]),),
        (_boxes([0.75, 0.75, 0.25001, 0.25]),),
        (_boxes([0.25, 0.25, 0.50002, 0.5]),),
        (_boxes([0.9375, 0.75, 0.125, 0.25]),),
        (_boxes([0.25, 0.25, 0.5, 1.0005]),),
        (_boxes([-0.0005, 0.25, 0.5, 0.5]),),
        (_boxes([0.5, 0.25, 0.50005, 0.5]),),
    ],
    returns=("corners", "xywh", "centres"),
    mistakes=mistakes(
        "any box: You let a form pass where one box fits it. A single box that does not fit rules the form out.",
        _forms(over_boxes=torch.any),
        "first box: You look at the first box alone. The next one may rule a form out.",
        lambda boxes: possible_forms(boxes[:1]),
        "no area: You ask whether boxes lie in the image, and not whether they have an area. Corners inside out lie "
        "in the image too.",
        _forms(area=_true),
        "area of nothing: A box of no width has no area.",
        _forms(area=lambda low, high: (low <= high).all(dim=1)),
        "not in the image: You ask whether boxes have an area, and not whether they lie in the image.",
        _forms(inside=_true),
        "above 1 alone: A box may leave the image on the left and above, too.",
        _forms(inside=lambda low, high: (high <= 1 + SLACK).all(dim=1)),
        "below 0 alone: A box may leave the image on the right and below, too.",
        _forms(inside=lambda low, high: (low >= -SLACK).all(dim=1)),
        "no slack: You rule a form out for a rounding. A ten-thousandth may stick out.",
        _forms(inside=lambda low, high: (low >= 0).all(dim=1) & (high <= 1).all(dim=1)),
        "too much slack: You let a box stick out by more than 0.0001.",
        _forms(inside=lambda low, high: (low >= -1e-3).all(dim=1) & (high <= 1 + 1e-3).all(dim=1)),
        "slack in the area: The slack is for the image's edge. A box of a width of 0.00005 has an area.",
        _forms(area=lambda low, high: (high - low > SLACK).all(dim=1)),
        "order: The three answers are in the order corners, xywh, centres.",
        _forms((READINGS[0], READINGS[2], READINGS[1])),
        "x alone: Look at both axes.",
        _forms(area=lambda low, high: low[:, 0] < high[:, 0]),
        _forms(inside=lambda low, high: (low[:, 0] >= -SLACK) & (high[:, 0] <= 1 + SLACK)),
        "width as a corner: In xywh the far corner is the near one and the width and height together.",
        _forms(_with(1, lambda a, b: (a, b))),
        "half sizes: The far corner of a box from its centre is half of its width away.",
        _forms(_with(2, lambda a, b: (a - b, a + b))),
        "centre as a corner: You read the centre as a corner. Half of the width is on its left.",
        _forms(_with(2, lambda a, b: (a, a + b))),
        _forms(_with(2, lambda a, b: (a, a + b / 2))),
        "the contrary: You say true where a form is ruled out.",
        _forms(said=lambda fits: not fits),
    ),
)


EXERCISES = {
    "undecided_loss": UNDECIDED_LOSS,
    "loss_left": LOSS_LEFT,
    "possible_forms": POSSIBLE_FORMS,
}
