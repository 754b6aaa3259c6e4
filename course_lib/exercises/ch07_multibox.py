"""Chapter 7: the two halves of the multibox loss, and hard negatives.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def smooth_l1_sum(differences):
    size = differences.abs()
    cost = torch.where(size < 1, size**2 / 2, size - 0.5)
    return cost.sum().item()


def _smooth(
    small: Callable[[Tensor], Tensor] = lambda size: size**2 / 2,
    large: Callable[[Tensor], Tensor] = lambda size: size - 0.5,
    border: float = 1.0,
    size: Callable[[Tensor], Tensor] = torch.abs,
    gather: Callable[[Tensor], Tensor] = torch.sum,
) -> Callable[[Tensor], Tensor | float]:
    """Smooth L1 with one of its parts exchanged; a number where `gather` leaves only one."""

    def twin(differences: Tensor) -> Tensor | float:
        sizes = size(differences)
        total = gather(torch.where(sizes < border, small(sizes), large(sizes)))
        return total.item() if total.ndim == 0 else total

    return twin


def _halves(differences: Tensor, near: Callable, far: Callable) -> float:
    """Both branches added up by themselves, each where a comparison with 1 holds."""
    size, one = differences.abs(), torch.ones(())
    return ((size**2 / 2)[near(size, one)].sum() + (size - 0.5)[far(size, one)].sum()).item()


SMOOTH_L1_SUM = Exercise(
    solution=smooth_l1_sum,
    cases=[
        (torch.tensor([0.4]),),
        (torch.tensor([3.0]),),
        (torch.tensor([-2.0]),),
        (torch.tensor([0.8, -0.3]),),
        (torch.tensor([1.0, -1.0, 0.6, 6.0, -0.1]),),
        (torch.tensor([[0.2, -0.7, 1.5, 0.0], [-4.0, 0.9, 0.3, 2.5], [0.0, 1.1, -0.6, -0.2]]),),
        (torch.zeros(0, 4),),
    ],
    mistakes=mistakes(
        "parabola not halved: Your parabola is twice as steep as it should be. The two branches should meet at 1.",
        _smooth(small=lambda size: size**2),
        "line not lowered: Your straight branch lies too high. At a difference of 1 both branches give the same.",
        _smooth(large=lambda size: size),
        _smooth(large=lambda size: size + 0.5),
        "line too low: Your straight branch lies too low. At a difference of 1 both branches give the same.",
        _smooth(large=lambda size: size - 1),
        "both too high: Both of your branches lie too high. At a difference of 1 the loss is one half.",
        _smooth(lambda size: size**2, lambda size: size),
        "all straight: You use the straight branch everywhere. Small differences have a parabola.",
        _smooth(border=-1.0),
        _smooth(large=lambda size: size, border=-1.0),
        "all parabola: You use the parabola everywhere. From a difference of 1 on, the loss is a straight line.",
        _smooth(border=math.inf),
        _smooth(small=lambda size: size**2, border=math.inf),
        "branches exchanged: Your two branches have changed places. Which of them is for small differences?",
        _smooth(lambda size: size - 0.5, lambda size: size**2 / 2),
        "sign kept: A large negative difference goes the wrong way. Its size counts, and its sign does not.",
        _smooth(size=lambda differences: differences),
        lambda differences: torch.where(differences.abs() < 1, differences**2 / 2, differences - 0.5).sum().item(),
        "less than nothing: Some difference costs less than nothing. A loss is at least 0, and grows with its size.",
        _smooth(large=lambda size: 0.5 - size),
        _smooth(large=lambda size: -size - 0.5),
        _smooth(lambda size: -(size**2) / 2, lambda size: 0.5 - size),
        _smooth(small=lambda size: -(size**2) / 2),
        "border elsewhere: You change from parabola to line at another place. The border is a difference of 1.",
        _smooth(border=0.5),
        "border counted wrongly: A difference of exactly 1 belongs to one branch, not to none and not to both.",
        lambda differences: _halves(differences, torch.lt, torch.gt),
        lambda differences: _halves(differences, torch.le, torch.ge),
        "added up first: You add up before you take the loss. Each difference has a loss of its own; add those.",
        lambda differences: _smooth()(differences.sum()),
        lambda differences: _smooth()(differences.abs().sum()),
        "mean: You take a mean. The sum over all differences is wanted; what it is divided by comes later.",
        _smooth(gather=torch.mean),
        _smooth(gather=lambda cost: cost.sum(dim=-1).mean()),
        _smooth(gather=lambda cost: cost.sum() / 4),
        "not added up: The differences still have a loss each. One number is wanted, their sum.",
        _smooth(gather=lambda cost: cost),
        _smooth(gather=lambda cost: cost.sum(dim=-1) if cost.ndim > 1 else cost.sum()),
    ),
    forbidden=dict.fromkeys(
        ("smooth_l1_loss", "SmoothL1Loss", "huber_loss", "HuberLoss"),
        "That is PyTorch's own, which the exercise asks you to do without. Write the two branches yourself.",
    ),
)


def batch_loss(costs, positives):
    count = sum(positives)
    if count == 0:
        return 0.0
    return sum(costs) / count


def _per_image(least: int) -> Callable[[list[float], list[int]], list[float]]:
    """Of every image what it costs for each of its positives; `least` 1 spares those without positives."""
    return lambda costs, positives: [
        cost / max(count, least) if count or least else math.nan for cost, count in zip(costs, positives, strict=True)
    ]


def _no_objects(costs: list[float], positives: list[int]) -> bool:
    return sum(positives) == 0


def _divided(by: Callable[[int], float]) -> Callable[[list[float], list[int]], float]:
    """The sum of the costs, divided by what is made of the number of positives."""
    return lambda costs, positives: sum(costs) / by(sum(positives))


BATCH_LOSS = Exercise(
    solution=batch_loss,
    cases=[
        ([6.0], [2]),
        ([6.0, 2.0], [1, 3]),
        ([6.0, 0.0, 5.0], [2, 0, 5]),
        ([12.5, 3.25, 0.0, 41.0], [4, 1, 0, 30]),
        ([2.5, 0.0], [1, 0]),
        ([0.0, 0.0], [0, 0]),
    ],
    tolerance=3e-7,  # float32's rounding, and no 1e-6 in the divisor; 1e-8 beside 1 is no other number in float32
    mistakes=mistakes(
        "mean over images: You divide in each image by its own positives, and then take a mean. The positives of the "
        "whole batch are one number.",
        lambda costs, positives: sum(_per_image(1)(costs, positives)) / len(costs),
        lambda costs, positives: sum(_per_image(0)(costs, positives)) / len(costs),
        lambda costs, positives: sum(_per_image(1)(costs, positives)) / max(sum(count > 0 for count in positives), 1),
        but(
            lambda costs, positives: 0 in positives,
            stop,
            lambda costs, positives: sum(_per_image(1)(costs, positives)) / len(costs),
        ),
        "sum over images: You divide in each image by its own positives, and then add up. The positives of the whole "
        "batch are one number.",
        lambda costs, positives: sum(_per_image(1)(costs, positives)),
        lambda costs, positives: sum(_per_image(0)(costs, positives)),
        but(
            lambda costs, positives: 0 in positives,
            stop,
            lambda costs, positives: sum(_per_image(1)(costs, positives)),
        ),
        "by images: You divide by the number of images. Which number of the batch says how much there was to learn?",
        lambda costs, positives: sum(costs) / len(costs),
        "by images with objects: You divide by the images that have an object. Count their positives, not them.",
        lambda costs, positives: sum(costs) / max(sum(count > 0 for count in positives), 1),
        "not divided: You add up and do not divide. A batch with more objects then counts more.",
        lambda costs, positives: sum(costs),
        "four times: You divide by four times too much. N is the number of positives: their three hard negatives are "
        "not in it, nor the four numbers of a box.",
        _divided(lambda count: 4 * max(count, 1)),
        but(_no_objects, lambda: math.nan, _divided(lambda count: 4 * count)),
        but(_no_objects, stop, _divided(lambda count: 4 * count)),
        but(_no_objects, lambda: None, _divided(lambda count: 4 * count)),
        "mean of the costs: You divide the costs by the number of images as well. Add them up.",
        lambda costs, positives: sum(costs) / len(costs) / max(sum(positives), 1),
        but(_no_objects, lambda: math.nan, lambda costs, positives: sum(costs) / len(costs) / sum(positives)),
        but(_no_objects, stop, lambda costs, positives: sum(costs) / len(costs) / sum(positives)),
        "mean of the positives: You divide by a mean of the positives, and it is the whole batch's number that counts.",
        lambda costs, positives: sum(costs) * len(costs) / max(sum(positives), 1),
        lambda costs, positives: sum(costs) / max(sum(positives) / len(positives), 1),
        but(_no_objects, lambda: math.nan, lambda costs, positives: sum(costs) * len(costs) / sum(positives)),
        but(_no_objects, stop, lambda costs, positives: sum(costs) * len(costs) / sum(positives)),
        "guard on a mean: Both of your numbers are means, and a mean of positives may be below 1 where there are some. "
        "Count them before you ask whether there are any.",
        lambda costs, positives: sum(costs) / len(costs) / max(sum(positives) / len(positives), 1),
        "rounded: You cut off what comes after the point, or some of it. A loss is rarely a whole number.",
        lambda costs, positives: sum(costs) // max(sum(positives), 1),
        but(_no_objects, stop, lambda costs, positives: sum(costs) // sum(positives)),
        *(lambda costs, positives, digits=digits: round(batch_loss(costs, positives), digits) for digits in range(5)),
        "sign: Your loss is negative. The costs are losses already, logarithm and minus included.",
        _divided(lambda count: -max(count, 1)),
        but(_no_objects, lambda: math.nan, _divided(lambda count: -count)),
        but(_no_objects, stop, _divided(lambda count: -count)),
        "one added: You add 1 to the number of positives. It helps where there are none, and is wrong elsewhere.",
        _divided(lambda count: count + 1),
        "a little added: You add a tiny number to the divisor. Where there is no positive it helps, and every other "
        "loss it makes a little too small. Treat the batch without positives by itself.",
        *(_divided(lambda count, tiny=10.0**-power: count + tiny) for power in range(1, 7)),
        "no positives: A whole batch may be without positives. Then the loss is 0, and nothing is divided by nothing.",
        but(_no_objects, lambda: math.nan, batch_loss),
        but(_no_objects, stop, batch_loss),
        but(_no_objects, lambda: None, batch_loss),
        "an image without: An image without objects adds nothing, and takes nothing away from the others.",
        but(lambda costs, positives: 0 in positives, lambda: 0.0, batch_loss),
        but(lambda costs, positives: 0 in positives, lambda: None, batch_loss),
        but(lambda costs, positives: 0 in positives, stop, batch_loss),
        "one for each empty image: You count an image without objects as if it had one.",
        lambda costs, positives: sum(costs) / sum(max(count, 1) for count in positives),
    ),
)


def hard_negatives(loss, positives, ratio):
    background = loss.masked_fill(positives, -1.0)
    order = background.argsort(dim=1, descending=True)
    place = order.argsort(dim=1)
    count = ratio * positives.sum(dim=1, keepdim=True)
    return (place < count) & ~positives


def _without_positives(loss: Tensor, positives: Tensor) -> Tensor:
    return loss.masked_fill(positives, -math.inf)


def _wanted(positives: Tensor, ratio: int) -> Tensor:
    return ratio * positives.sum(dim=1, keepdim=True)


def _order(values: Tensor) -> Tensor:
    """The numbers of the priors, largest value first, of equal ones in their order."""
    return values.argsort(dim=1, descending=True, stable=True)


def _unchecked(place: Tensor, count: Tensor | int, positives: Tensor) -> Tensor:
    return place < count


def _checked(place: Tensor, count: Tensor | int, positives: Tensor) -> Tensor:
    return (place < count) & ~positives


def _mined(
    candidates: Callable[[Tensor, Tensor], Tensor] = _without_positives,
    count: Callable[[Tensor, int], Tensor] = _wanted,
    place: Callable[[Tensor], Tensor] = lambda values: _order(values).argsort(dim=1),
    mask: Callable[[Tensor, Tensor, Tensor], Tensor] = _checked,
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Hard negatives with one part exchanged: what is ranked, how many, the places, and what is made of them."""

    def twin(loss: Tensor, positives: Tensor, ratio: int) -> Tensor:
        return mask(place(candidates(loss, positives)), count(positives, ratio), positives)

    return twin


def _in_whole_batch(loss: Tensor, positives: Tensor, ratio: int) -> Tensor:
    rows = (one.reshape(1, -1) for one in (loss, positives))
    return hard_negatives(*rows, ratio).view_as(loss)


def _too_few(loss: Tensor, positives: Tensor, ratio: int) -> bool:
    """An image has fewer negatives than are asked for."""
    return bool((ratio * positives.sum(dim=1) > (~positives).sum(dim=1)).any())


def _too_many(loss: Tensor, positives: Tensor, ratio: int) -> bool:
    """For an image more places are asked for than it has priors."""
    return bool((ratio * positives.sum(dim=1) > loss.shape[1]).any())


def _one_count(of: Callable[[Tensor], Tensor]) -> list[Callable]:
    """Equally many from every image; `topk` stops where they are more than its priors."""

    def count(positives: Tensor, ratio: int) -> int:
        return int(ratio * of(positives.sum(dim=1)))

    twin = _mined(count=count)
    too_many = but(lambda loss, positives, ratio: count(positives, ratio) > loss.shape[1], stop, twin)
    return [twin, too_many, _mined(count=count, mask=_unchecked)]


def _losses(seed: int, images: int, priors: int, share: float) -> tuple[Tensor, Tensor]:
    """No two losses alike, and some positives."""
    generator = torch.Generator().manual_seed(seed)
    loss = (torch.randperm(images * priors, generator=generator) + 1).view(images, priors) / 8
    return loss, torch.rand(images, priors, generator=generator) < share


HARD_NEGATIVES = Exercise(
    solution=hard_negatives,
    cases=[
        (torch.tensor([[1.5, 0.1, 2.0, 0.4, 1.8]]), torch.tensor([[False, False, True, False, True]]), 1),
        (
            torch.tensor([[0.2, 0.9, 0.5, 0.1, 0.7, 0.3, 0.6, 1.1]]),
            torch.tensor([[False, True, False, False, False, False, False, False]]),
            3,
        ),
        (
            torch.tensor([[0.3, 1.2, 0.8, 0.1, 0.6, 0.2], [2.5, 3.0, 2.2, 2.8, 2.1, 2.6]]),
            torch.tensor([[True, False, False, True, False, False], [False, False, True, False, False, False]]),
            1,
        ),
        (
            torch.tensor([[0.3, 1.3, 0.8, 0.1], [0.5, 0.2, 0.9, 0.4]]),
            torch.tensor([[False, False, False, False], [False, False, False, True]]),
            2,
        ),
        (
            torch.tensor([[0.7, 0.2, 1.9, 0.4, 0.8], [0.6, 0.1, 0.3, 0.5, 1.4]]),
            torch.tensor([[True, False, True, False, True], [False, False, True, False, False]]),
            3,
        ),
        (
            torch.tensor([[0.9, 1.7, 0.4, 0.0, 1.1, 0.2], [1.6, 0.3, 0.8, 0.1, 1.2, 0.7]]),
            torch.tensor([[True, True, False, False, True, False], [False, True, False, False, False, False]]),
            1,
        ),
        (*_losses(0, images=4, priors=40, share=0.1), 3),
    ],
    mistakes=mistakes(
        "positives compete: Positives are among your candidates and take places. They are in the loss already; only "
        "background priors are to be mined.",
        _mined(candidates=lambda loss, positives: loss, mask=_unchecked),
        _mined(candidates=lambda loss, positives: loss),
        "zero: A background prior may cost exactly 0, and 0 does not tell it from a positive. Give positives something "
        "below every loss.",
        _mined(candidates=lambda loss, positives: loss.masked_fill(positives, 0.0)),
        lambda loss, positives, ratio: hard_negatives(loss, positives, ratio) & (loss > 0),
        "positives fill up: Where an image has fewer negatives than you ask for, positives fill the places. Take all "
        "its negatives and stop there.",
        _mined(mask=_unchecked),
        "more than there are: An image may have fewer background priors than you ask for, and `topk` refuses to find "
        "so many. Take all that there are.",
        but(_too_few, stop, hard_negatives),
        but(_too_many, stop, hard_negatives),
        but(_too_many, stop, _mined(mask=_unchecked)),
        "smallest: You take the smallest losses. The hardest negatives are those that cost most.",
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, math.inf), mask=_unchecked),
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, math.inf)),
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, -1), mask=_unchecked),
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, -1)),
        "sorted once: The first sort tells which prior comes first, second, and so on. What place does each prior "
        "have? That is the other way round.",
        _mined(place=_order),
        _mined(place=_order, mask=_unchecked),
        "all negatives: You mark every background prior. How many an image gets depends on its positives.",
        lambda loss, positives, ratio: ~positives,
        "same for all: You take equally many from every image, whatever it shows. Count its positives.",
        _mined(count=lambda positives, ratio: torch.full((len(positives), 1), ratio)),
        *_one_count(lambda counts: counts[0]),
        *_one_count(torch.max),
        *_one_count(torch.min),
        *_one_count(lambda counts: counts.sum() // len(counts)),
        *_one_count(lambda counts: counts.double().mean()),
        "no ratio: You take one for each positive, whatever `ratio` is.",
        _mined(count=lambda positives, ratio: _wanted(positives, 1)),
        _mined(count=lambda positives, ratio: _wanted(positives, 1), mask=_unchecked),
        "ratio fixed: You take three for each positive, whatever `ratio` is.",
        _mined(count=lambda positives, ratio: _wanted(positives, 3)),
        "wrong axis: You rank the images against each other. The priors of one image compete, along the other axis.",
        _mined(place=lambda values: values.argsort(dim=0, descending=True, stable=True).argsort(dim=0)),
        _mined(
            place=lambda values: values.argsort(dim=0, descending=True, stable=True).argsort(dim=0), mask=_unchecked
        ),
        _mined(place=lambda values: values.argsort(dim=0, descending=True, stable=True).argsort(dim=1)),
        _mined(place=lambda values: _order(values).argsort(dim=0)),
        "no axis: Your counts are one per image, without an axis for the priors. They do not fit beside the places.",
        _mined(count=lambda positives, ratio: ratio * positives.sum(dim=1)),
        _mined(count=lambda positives, ratio: ratio * positives.sum(dim=1), mask=_unchecked),
        "count of the batch: You ask every image for as many negatives as the whole batch should have.",
        _mined(count=lambda positives, ratio: ratio * positives.sum()),
        "whole batch: You let all images compete for the places. Each image has places of its own.",
        _in_whole_batch,
        "at least one: You mine in an image without positives. It has no places at all.",
        _mined(count=lambda positives, ratio: ratio * positives.sum(dim=1, keepdim=True).clamp(min=1)),
        _mined(count=lambda positives, ratio: _wanted(positives, ratio).clamp(min=1)),
        "one too many: You take one more than asked for. The first place has the number 0.",
        _mined(mask=lambda place, count, positives: (place <= count) & ~positives),
        "one too few: You take one less than asked for. The first place has the number 0.",
        _mined(mask=lambda place, count, positives: (place < count - 1) & ~positives),
        "nothing: You mark no prior at all. Each image with positives has hard negatives.",
        lambda loss, positives, ratio: torch.zeros_like(positives),
        "positives returned: You return the positives as well. Only the mined negatives are wanted.",
        _mined(mask=lambda place, count, positives: (place < count) | positives),
        "no mask: You return numbers of priors. A mask is wanted: true or false for each prior.",
        lambda loss, positives, ratio: _order(_without_positives(loss, positives))[
            :, : ratio * int(positives[0].sum())
        ],
    ),
)

EXERCISES = {"smooth_l1_sum": SMOOTH_L1_SUM, "batch_loss": BATCH_LOSS, "hard_negatives": HARD_NEGATIVES}
