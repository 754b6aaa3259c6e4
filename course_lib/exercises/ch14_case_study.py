"""Chapter 14: where a loss in pixels begins, where it must end, and whether a loss is a measure of mAP.

The answers are in here. Try first.
"""

import math
import statistics
from collections.abc import Callable, Sequence

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes
from course_lib.verdicts import Box


def first_cost(box, prior):
    x0, y0, x1, y1 = box
    cx, cy, width, height = prior
    offsets = [
        ((x0 + x1) / 2 - cx) / width,
        ((y0 + y1) / 2 - cy) / height,
        math.log((x1 - x0) / width),
        math.log((y1 - y0) / height),
    ]
    cost = 0.0
    for size in map(abs, offsets):
        cost += size**2 / 2 if size < 1 else size - 0.5
    return cost


def _smooth(size: float) -> float:
    return size**2 / 2 if abs(size) < 1 else abs(size) - 0.5


def _middle(low: float, high: float) -> float:
    return (low + high) / 2


def _ratio(size: float, prior: float) -> float:
    return math.log(size / prior)


def _cost(
    place: Callable[[float, float], float] = _middle,
    shift: Callable[[float, float, float], float] = lambda away, size, prior: away / prior,
    stretch: Callable[[float, float], float] = _ratio,
    smooth: Callable[[float], float] = _smooth,
    variances: tuple[float, float] = (1.0, 1.0),
    unit: float = 1.0,
    kept: slice = slice(None),
    divisor: float = 1.0,
) -> Callable[[Box, Box], float]:
    """The cost of an offset of 0 with one of its parts exchanged.

    Args:
        place: of a side of the box, where its centre should be.
        shift: from the distance of the centres, the box's size and the prior's to an offset.
        stretch: from both sizes to an offset.
        unit: what the box is divided by.
        kept: of the offsets in the order x, width, y, height.
    """

    def twin(box: Box, prior: Box) -> float:
        offsets = []
        for axis in range(2):
            low, high = box[axis] / unit, box[axis + 2] / unit
            centre, size = prior[axis], prior[axis + 2]
            offsets.append(shift(place(low, high) - centre, high - low, size) / variances[0])
            offsets.append(stretch(high - low, size) / variances[1])
        return sum(map(smooth, offsets[kept])) / divisor

    return twin


FIRST_COST = Exercise(
    solution=first_cost,
    cases=[
        ((100.0, 120.0, 200.0, 180.0), (0.03175, 0.03175, 0.0635, 0.0635)),
        ((0.2, 0.3, 0.5, 0.5), (0.4, 0.4, 0.2, 0.2)),
        ((10.0, 20.0, 40.0, 90.0), (0.5, 0.25, 1.0, 0.5)),
        ((0.1, 0.1, 0.15, 0.12), (0.5, 0.5, 0.4, 0.2)),
        ((30.0, 8.0, 50.0, 9.0), (2.0, 2.0, 4.0, 0.5)),
    ],
    mistakes=mistakes(
        "corner: You measure from the box's corner. Offsets go from centre to centre.",
        _cost(place=lambda low, high: low),
        _cost(place=lambda low, high: high),
        "not divided: The distance of the centres is an offset only in units of the prior's size.",
        _cost(shift=lambda away, size, prior: away),
        "divided by the box: You divide the distance by the box's own size. The unit is the prior's.",
        _cost(shift=lambda away, size, prior: away / size),
        "no logarithm: The offset of a size is the logarithm of a ratio.",
        _cost(stretch=lambda size, prior: size / prior),
        _cost(stretch=lambda size, prior: (size - prior) / prior),
        _cost(stretch=lambda size, prior: size - prior),
        "another logarithm: The natural logarithm is meant, `math.log`.",
        _cost(stretch=lambda size, prior: math.log10(size / prior)),
        _cost(stretch=lambda size, prior: math.log2(size / prior)),
        "size left out: There are four offsets. The two of the size are small here, and count all the same.",
        _cost(kept=slice(None, None, 2)),
        "one axis: There are two axes, and each has an offset of its centre and one of its size.",
        _cost(kept=slice(0, 2)),
        "parabola everywhere: From an offset of 1 on smooth L1 is a straight line. A parabola costs millions here.",
        _cost(smooth=lambda offset: offset**2 / 2),
        _cost(smooth=lambda offset: offset**2),
        "line everywhere: Below 1 smooth L1 is a parabola.",
        _cost(smooth=abs),
        _cost(smooth=lambda offset: abs(offset) - 0.5),
        "line not lowered: The straight branch of smooth L1 is the size of the offset minus one half.",
        _cost(smooth=lambda offset: offset**2 / 2 if abs(offset) < 1 else abs(offset)),
        "sign kept: An offset may be negative. Smooth L1 looks at its size.",
        _cost(smooth=lambda offset: offset**2 / 2 if offset < 1 else offset - 0.5),
        _cost(smooth=lambda offset: offset**2 / 2 if abs(offset) < 1 else offset - 0.5),
        "mean: A box's four numbers are added up. You take their mean.",
        _cost(divisor=4),
        "variances: You divide by the variances. The code of the log has none.",
        _cost(variances=(0.1, 0.2)),
        "in fractions: You bring the box to fractions first. That is the repair; what is asked for is the fault.",
        _cost(unit=300.0),
    ),
)


def last_cost(centres, width):
    middle = statistics.median(centres)
    return sum(abs(centre - middle) for centre in centres) / len(centres) / width


Numbers = Sequence[float]


def _mean(values: Numbers) -> float:
    return sum(values) / len(values)


def _spread(
    constant: Callable[[Numbers], float] = statistics.median,
    of: Callable[[Numbers], float] = _mean,
    size: Callable[[float], float] = abs,
    scale: Callable[[float, float], float] = lambda spread, width: spread / width,
) -> Callable[[Numbers, float], float]:
    """What is left after the best constant, with one of its parts exchanged."""

    def twin(centres: Numbers, width: float) -> float:
        learned = constant(centres)
        return scale(of([size(centre - learned) for centre in centres]), width)

    return twin


def _root_mean_square(values: Numbers) -> float:
    return math.sqrt(_mean([value**2 for value in values]))


LAST_COST = Exercise(
    solution=last_cost,
    cases=[
        ([100.0, 150.0, 200.0], 0.1),
        ([10.0, 20.0, 90.0], 0.5),
        ([150.0, 150.0, 150.0], 0.0635),
        ([40.0, 60.0, 280.0, 150.0, 100.0], 0.0635),
        ([5.0, 10.0, 10.0, 12.0, 300.0, 20.0], 0.2),
    ],
    mistakes=mistakes(
        "mean: You let the network say the mean. It pays sizes, not squares: another constant is cheaper.",
        _spread(constant=_mean),
        "nothing learned: You measure from 0, where the network begins. It has learned a constant by now.",
        _spread(constant=lambda centres: 0.0),
        "middle of the picture: You measure from the middle of the picture. The objects need not lie around it.",
        _spread(constant=lambda centres: 150.0),
        "standard deviation: That is a standard deviation. Smooth L1 pays the size of each deviation, not its square.",
        _spread(constant=_mean, of=_root_mean_square),
        _spread(of=_root_mean_square),
        _spread(constant=_mean, of=lambda sizes: math.sqrt(sum(one**2 for one in sizes) / (len(sizes) - 1))),
        "squares: You average squares. From an offset of 1 on, smooth L1 is a straight line.",
        _spread(size=lambda away: away**2),
        "not divided: That is in pixels. The loss counts in units of the prior's width.",
        _spread(scale=lambda spread, width: spread),
        "multiplied: You multiply by the prior's width. An offset is a distance divided by it.",
        _spread(scale=lambda spread, width: spread * width),
        "summed: The loss is divided by the positives. You add the objects up.",
        _spread(of=sum),
        "largest: You take the largest deviation. The loss is a mean over the objects.",
        _spread(of=max),
        "median of deviations: You take the median of the deviations too. The loss is a mean over the objects.",
        _spread(of=statistics.median),
        "both axes: You count the axis twice. This is the cost of one; the other has centres of its own.",
        _spread(scale=lambda spread, width: 2 * spread / width),
        "sign kept: Deviations to both sides cancel in your sum. The size of each one counts.",
        _spread(size=lambda away: away),
    ),
)


def agreement(losses, maps):
    right = pairs = 0
    for i in range(len(losses)):
        for j in range(i):
            if maps[i] == maps[j]:
                continue
            pairs += 1
            if losses[i] == losses[j]:
                right += 0.5
            elif (losses[i] < losses[j]) == (maps[i] > maps[j]):
                right += 1
    return right / pairs


def _pairs(
    lower: Callable[[float, float], bool] = lambda a, b: a < b,
    equal_losses: float | None = 0.5,
    equal_maps: float | None = None,
    chosen: Callable[[int], list[tuple[int, int]]] = lambda count: [(i, j) for i in range(count) for j in range(i)],
    share: Callable[[float, int], float] = lambda right, pairs: right / pairs,
) -> Callable[[Numbers, Numbers], float]:
    """The share of pairs with one of its parts exchanged; a pair that counts None is left out."""

    def twin(losses: Numbers, maps: Numbers) -> float:
        marks = []
        for i, j in chosen(len(losses)):
            if maps[i] == maps[j]:
                marks.append(equal_maps)
            elif losses[i] == losses[j]:
                marks.append(equal_losses)
            else:
                marks.append(float(lower(losses[i], losses[j]) == (maps[i] > maps[j])))
        counted = [mark for mark in marks if mark is not None]
        return share(sum(counted), len(counted))

    return twin


def _equal_maps(losses: Numbers, maps: Numbers) -> bool:
    return len(set(maps)) < len(maps)


def _best_alone(losses: Numbers, maps: Numbers) -> float:
    """Whether the lowest loss has the highest mAP."""
    return float(maps[min(range(len(losses)), key=losses.__getitem__)] == max(maps))


AGREEMENT = Exercise(
    solution=agreement,
    cases=[
        ([3.0, 2.0, 1.0], [0.1, 0.2, 0.3]),
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3]),
        ([3.0, 2.0, 1.0, 2.5, 0.5], [0.1, 0.3, 0.2, 0.25, 0.15]),
        ([2.0, 2.0, 1.0], [0.1, 0.2, 0.3]),
        ([3.0, 2.0, 1.0, 4.0], [0.1, 0.1, 0.3, 0.2]),
        ([1.7, 4.1, 12.0, 2.2, 1.7], [0.25, 0.36, 0.36, 0.0, 0.3]),
        ([-1.0, 0.0, -3.0, 2.0, 0.0, 5.0], [0.5, 0.5, 0.1, 0.2, 0.3, 0.0]),
    ],
    mistakes=mistakes(
        "the other way round: You count the pairs in which the higher loss has the higher mAP. A low loss is the good "
        "one.",
        _pairs(lower=lambda a, b: a > b),
        "equal losses right: Two equal losses tell nothing: a coin would be right half of the time.",
        _pairs(equal_losses=1.0),
        "equal losses wrong: You count two equal losses as a mistake. A coin would be right half of the time.",
        _pairs(equal_losses=0.0),
        "equal losses left out: You leave out pairs with equal losses. They count, as one half.",
        _pairs(equal_losses=None),
        "equal maps counted: Where two have the same mAP nothing can be right or wrong: leave such a pair out.",
        _pairs(equal_maps=0.0),
        _pairs(equal_maps=0.5),
        _pairs(equal_maps=1.0),
        but(_equal_maps, stop, agreement),
        "neighbours: You compare each training with the next one alone. All pairs are meant.",
        _pairs(chosen=lambda count: [(i, i + 1) for i in range(count - 1)]),
        "with the first: You compare all with the first one. All pairs are meant.",
        _pairs(chosen=lambda count: [(i, 0) for i in range(1, count)]),
        "counted: That is how many pairs are right. Divide by the pairs.",
        _pairs(share=lambda right, pairs: right),
        "by trainings: You divide by the number of trainings. There are more pairs than that.",
        lambda losses, maps: _pairs(share=lambda right, pairs: right)(losses, maps) / len(losses),
        "correlation: That runs from -1 to 1. The share of pairs is wanted, from 0 to 1.",
        _pairs(share=lambda right, pairs: 2 * right / pairs - 1),
        "the best alone: You look at the lowest loss alone. All pairs are meant.",
        _best_alone,
    ),
)

EXERCISES = {"first_cost": FIRST_COST, "last_cost": LAST_COST, "agreement": AGREEMENT}
