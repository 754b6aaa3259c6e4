"""Chapter 10: from a network's outputs to detections.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.boxes import box_iou
from course_lib.exercises.twins import but, random_boxes, stop
from course_lib.grading import Exercise, mistakes
from course_lib.verdicts import Shape, rectangle


def shortlist(probabilities, threshold):
    pairs = (probabilities[:, 1:] > threshold).nonzero()
    pairs[:, 1] += 1  # the first column is class 1
    return pairs


def _best_class_only(probabilities: Tensor, threshold: float) -> Tensor:
    score, label = probabilities[:, 1:].max(dim=1)
    prior = (score > threshold).nonzero().squeeze(1)
    return torch.stack([prior, label[prior] + 1], dim=1)


def _argmax_first(probabilities: Tensor, threshold: float) -> Tensor:
    """Whoever asks background too: a prior whose best class is background is gone."""
    score, label = probabilities.max(dim=1)
    prior = ((score > threshold) & (label > 0)).nonzero().squeeze(1)
    return torch.stack([prior, label[prior]], dim=1)


def _argmax_with_background(probabilities: Tensor, threshold: float) -> Tensor:
    score, label = probabilities.max(dim=1)
    prior = (score > threshold).nonzero().squeeze(1)
    return torch.stack([prior, label[prior]], dim=1)


def _where(probabilities: Tensor, threshold: float, allowed: Tensor) -> Tensor:
    """The pairs above the threshold that something else allows too."""
    return ((probabilities[:, 1:] > threshold) & allowed).nonzero() + torch.tensor([0, 1])


def _without_background(probabilities: Tensor, threshold: float) -> Tensor:
    classes = probabilities[:, 1:]
    return shortlist(torch.cat([probabilities[:, :1], classes / classes.sum(dim=1, keepdim=True)], dim=1), threshold)


def _scores(count: int, classes: int, seed: int, sharp: float = 2.0) -> Tensor:
    logits = sharp * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(dim=1)


SHORTLIST = Exercise(
    solution=shortlist,
    cases=[
        (torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05]]), 0.5),
        (torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.1, 0.3], [0.2, 0.2, 0.6]]), 0.25),
        (torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]), 0.25),
        (torch.tensor([[0.98, 0.0125, 0.0075]]), 0.01),
        (_scores(6, 4, seed=0), 0.2),
        (_scores(8, 6, seed=1), 0.05),
        (torch.tensor([[0.9, 0.05, 0.05]]), 0.5),
        (torch.zeros(0, 4), 0.1),
    ],
    mistakes=mistakes(
        "argmax first: You take the largest column of each prior, background among them. At a threshold of 0.01 a "
        "prior can be nine tenths background and still be a candidate.",
        _argmax_first,
        "background stays: You ask for the largest column, and background may be it. Column 0 is nobody's detection.",
        _argmax_with_background,
        "one class for each prior: You keep only the best class of a prior. Each class is asked for itself: a prior "
        "may be a candidate for two.",
        _best_class_only,
        "background counted: Column 0 is background. A prior that is sure of background has found nothing.",
        lambda probabilities, threshold: (probabilities > threshold).nonzero(),
        lambda probabilities, threshold: (probabilities > threshold).nonzero() + torch.tensor([0, 1]),
        "background asked too: You drop a class because of what background has. A candidate's own probability decides, "
        "alone.",
        lambda probabilities, threshold: _where(probabilities, threshold, probabilities[:, 1:] > probabilities[:, :1]),
        lambda probabilities, threshold: _where(probabilities, threshold, probabilities[:, :1] < 0.5),
        lambda probabilities, threshold: _where(probabilities, threshold, probabilities[:, :1] <= threshold),
        "background divided away: You make the classes sum to 1 without background. Then a prior that is sure of "
        "background is sure of a class too.",
        lambda probabilities, threshold: _without_background(probabilities, threshold),
        "threshold not asked: You take a class of each prior, or all of them, whatever the threshold is.",
        lambda probabilities, threshold: _best_class_only(probabilities, -1.0),
        lambda probabilities, threshold: shortlist(probabilities, -1.0),
        "label off by one: Your labels begin with 0. With background cut away, what does the first column stand for?",
        lambda probabilities, threshold: (probabilities[:, 1:] > threshold).nonzero(),
        lambda probabilities, threshold: _best_class_only(probabilities, threshold) - torch.tensor([0, 1]),
        "at the threshold: You let in what equals the threshold. A candidate lies above it.",
        lambda probabilities, threshold: shortlist(probabilities, threshold - 1e-7),
        "below the threshold: Yours are the ones below the threshold. Wanted are those above.",
        lambda probabilities, threshold: shortlist(-probabilities, -threshold),
        "columns exchanged: Your rows are class first. Wanted is the prior, then its label.",
        lambda probabilities, threshold: shortlist(probabilities, threshold).flip(1),
        "class by class: Your pairs come class by class. Wanted are they prior by prior.",
        lambda probabilities, threshold: _class_by_class(shortlist(probabilities, threshold)),
    ),
)


def _class_by_class(pairs: Tensor) -> Tensor:
    return pairs[pairs[:, 1].argsort(stable=True)]


def greedy_nms(found, threshold):
    order = found[:, 4].argsort(descending=True, stable=True)
    iou = box_iou(found[:, :4], found[:, :4])
    kept = []
    for index in order.tolist():
        if all(iou[index, better] <= threshold for better in kept):
            kept.append(index)
    return kept


def _walk(
    order: Callable[[Tensor], Tensor] = lambda scores: scores.argsort(descending=True, stable=True),
    beats: Callable[[float, float], bool] = lambda overlap, threshold: overlap > threshold,
    rivals: Callable[[list[int], list[int]], list[int]] = lambda kept, seen: kept,
    overlaps: Callable[[Tensor, Tensor], Tensor] = box_iou,
) -> Callable[[Tensor, float], list[int]]:
    """Greedy with a part exchanged; `rivals` chooses among those kept and all those seen so far."""

    def twin(found: Tensor, threshold: float) -> list[int]:
        iou, kept, seen = overlaps(found[:, :4], found[:, :4]), [], []
        for index in order(found[:, 4]).tolist():
            if not any(beats(iou[index, one].item(), threshold) for one in rivals(kept, seen)):
                kept.append(index)
            seen.append(index)
        return kept

    return twin


def _of_pixels(a: Tensor, b: Tensor) -> Tensor:
    """IoU where the last row and column belong to a box, as in VOC's files."""
    return box_iou(a + torch.tensor([0, 0, 1, 1]), b + torch.tensor([0, 0, 1, 1]))


def _no_rows(found: Tensor, number: float) -> bool:
    return not len(found)


def _dropped(found: Tensor, threshold: float) -> list[int]:
    return [index for index in range(len(found)) if index not in greedy_nms(found, threshold)]


def _places(found: Tensor, threshold: float) -> list[int]:
    order = found[:, 4].argsort(descending=True, stable=True).tolist()
    return [order.index(one) for one in greedy_nms(found, threshold)]


def _found(*rows: tuple[float, float, float]) -> Tensor:
    """Boxes of one size in a row: left edge, height and score of each."""
    return torch.tensor([(x, 0.1, x + 0.4, 0.1 + height, score) for x, height, score in rows])


def _some(count: int, seed: int) -> Tensor:
    scores = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed + 100))
    return torch.cat([random_boxes(count, seed), scores], dim=1)


def _drawn(args: dict) -> list[Shape]:
    return [rectangle("a", f"{row[4]:.2f}", row[:4]) for row in args["found"].tolist()]


# The first overlaps the second by 0.6, the second the third by 0.6, the first the third by 0.33.
CHAIN = _found((0.1, 0.4, 0.9), (0.2, 0.4, 0.8), (0.3, 0.4, 0.7))

GREEDY_NMS = Exercise(
    solution=greedy_nms,
    cases=[
        (_found((0.1, 0.4, 0.6), (0.15, 0.4, 0.9)), 0.5),
        (_found((0.1, 0.4, 0.6), (0.4, 0.4, 0.9)), 0.5),
        (_found((0.1, 0.4, 0.6), (0.244, 0.4, 0.9)), 0.5),  # they overlap by 0.47
        (CHAIN, 0.45),
        (CHAIN[[1, 0, 2]], 0.45),
        (_found((0.25, 0.5, 0.6), (0.25, 0.25, 0.9)), 0.5),
        (_some(6, seed=3), 0.3),
        (_some(9, seed=4), 0.45),
        (_some(14, seed=5), 0.2),
        (_found((0.1, 0.4, 0.5), (0.1, 0.4, 0.5), (0.1, 0.4, 0.5)), 0.45),
        (torch.zeros(0, 5), 0.5),
    ],
    mistakes=mistakes(
        "dropped boxes beat: A box that was dropped still drops others in yours. Only a box that is kept may.",
        _walk(rivals=lambda kept, seen: seen),
        "worst first: You begin with the lowest score. The surest box must be the first to be kept.",
        _walk(order=lambda scores: scores.argsort(stable=True)),
        "as they came: You take the boxes in the order in which they came. Who is first, by the rule?",
        _walk(order=lambda scores: torch.arange(len(scores))),
        "fixed: Your threshold is always 0.45. It is an argument here.",
        lambda found, threshold: greedy_nms(found, 0.45),
        "no rows: There may be no rows. Then the answer is empty.",
        but(_no_rows, stop, greedy_nms),
        but(_no_rows, lambda: [0], greedy_nms),
        but(_no_rows, lambda: None, greedy_nms),
        but(_no_rows, lambda: torch.zeros(0, 5), greedy_nms),
        "pixels: You add 1 to the sides, as for boxes of whole pixels. These are in fractions: 1 is the whole picture.",
        _walk(overlaps=_of_pixels),
        "best alone: You keep the best box and no other. Far from it there may be more.",
        lambda found, threshold: found[:, 4].argsort(descending=True, stable=True)[:1].tolist(),
        "at the threshold: You drop a box whose overlap equals the threshold. It has to be more.",
        _walk(beats=lambda overlap, threshold: overlap >= threshold),
        "only the last: You compare with the box that was kept last. Each of the kept ones may be the one it repeats.",
        _walk(rivals=lambda kept, seen: kept[-1:]),
        "only the first: You compare with the best box of all. What is kept later suppresses too.",
        _walk(rivals=lambda kept, seen: kept[:1]),
        "the other way: You drop the boxes that overlap little. Duplicates overlap much.",
        _walk(beats=lambda overlap, threshold: overlap <= threshold),
        "the order of the answer: The right boxes, in another order. Wanted is the best one first.",
        lambda *args: sorted(greedy_nms(*args)),
        lambda *args: greedy_nms(*args)[::-1],
        "places in the sorted list: These are places in your sorted list. What were the boxes' numbers before?",
        _places,
        "dropped for kept: Yours are the boxes that are dropped.",
        _dropped,
        "itself: Each box overlaps itself with 1. Compare it with other boxes only.",
        lambda found, threshold: [],
        "nothing dropped: You keep every box.",
        _walk(rivals=lambda kept, seen: []),
        "ties: Of equal scores the earlier box wins. An unstable sort, or one turned round, changes that.",
        _walk(order=lambda scores: scores.argsort(stable=True).flip(0)),
    ),
    draw=_drawn,
)


def soft_nms(found, sigma):
    scores, waiting = found[:, 4].clone(), list(range(len(found)))
    iou = box_iou(found[:, :4], found[:, :4])
    while waiting:
        best = max(waiting, key=lambda index: scores[index])
        waiting.remove(best)
        for index in waiting:
            scores[index] *= math.exp(-(iou[best, index] ** 2) / sigma)
    return scores


def _softened(
    factor: Callable[[float, float], float] = lambda overlap, sigma: math.exp(-(overlap**2) / sigma),
    again: bool = True,
    taken_too: bool = False,
    itself: bool = False,
    rounds: int = 1000,
) -> Callable[[Tensor, float], Tensor]:
    """Soft-NMS with a part exchanged; without `again` the order is that of the scores as they came."""

    def twin(found: Tensor, sigma: float) -> Tensor:
        iou, first = box_iou(found[:, :4], found[:, :4]), found[:, 4]
        scores, waiting = first.clone(), list(range(len(found)))
        for _ in range(min(rounds, len(found))):
            best = max(waiting, key=lambda index: (scores if again else first)[index].item())
            waiting.remove(best)
            for index in range(len(scores)):
                if index in waiting or (index == best and itself) or (index != best and taken_too):
                    scores[index] *= factor(iou[best, index].item(), sigma)
        return scores

    return twin


def _from_the_first(found: Tensor, sigma: float) -> Tensor:
    """Each score is what the last better box makes of it as it came: the factors are not multiplied."""
    iou, scores = box_iou(found[:, :4], found[:, :4]), found[:, 4]
    order, softened = scores.argsort(descending=True, stable=True).tolist(), scores.clone()
    for place, best in enumerate(order):
        for index in order[place + 1 :]:
            softened[index] = scores[index] * math.exp(-(iou[best, index].item() ** 2) / sigma)
    return softened


SOFT_NMS = Exercise(
    solution=soft_nms,
    cases=[
        (_found((0.1, 0.4, 0.6), (0.15, 0.4, 0.9)), 0.5),
        (_found((0.1, 0.4, 0.9), (0.2, 0.4, 0.6)), 0.25),
        (_found((0.1, 0.4, 0.9), (0.2, 0.4, 0.85), (0.3, 0.4, 0.8)), 0.5),
        (_found((0.1, 0.4, 0.9), (0.2, 0.4, 0.8), (0.3, 0.4, 0.3)), 0.3),
        (_some(6, seed=6), 0.5),
        (_some(8, seed=7), 0.2),
        (torch.zeros(0, 5), 0.5),
    ],
    mistakes=mistakes(
        "order never changes: You keep the order of the first scores. After each round the best is sought anew, among "
        "the scores as they are now.",
        _softened(again=False),
        "no rows: Without rows there are no scores, and the answer is empty.",
        but(_no_rows, stop, soft_nms),
        but(_no_rows, lambda: None, soft_nms),
        but(_no_rows, lambda: torch.zeros(0, 5), soft_nms),
        "fixed: Your sigma is always 0.5. It is an argument here.",
        lambda found, sigma: soft_nms(found, 0.5),
        "not squared: The overlap is squared in the exponent.",
        _softened(lambda overlap, sigma: math.exp(-overlap / sigma)),
        "no sigma: Your exponent does not depend on sigma.",
        _softened(lambda overlap, sigma: math.exp(-(overlap**2))),
        "sigma multiplied: You multiply by sigma. A larger sigma is to soften less.",
        _softened(lambda overlap, sigma: math.exp(-(overlap**2) * sigma)),
        "sigma squared: Your sigma is squared or doubled, as in a bell curve. Here it stands for itself.",
        _softened(lambda overlap, sigma: math.exp(-(overlap**2) / sigma**2)),
        _softened(lambda overlap, sigma: math.exp(-(overlap**2) / (2 * sigma**2))),
        _softened(lambda overlap, sigma: math.exp(-(overlap**2) / (2 * sigma))),
        "sign of the exponent: Your scores grow where boxes overlap. Which sign has the exponent?",
        _softened(lambda overlap, sigma: math.exp(overlap**2 / sigma)),
        "linear: This is the paper's other rule, 1 - IoU. Wanted is the one with the exponential.",
        _softened(lambda overlap, sigma: 1 - overlap),
        "hard: You set scores to 0. They are to be lowered, by how much depends on the overlap.",
        _softened(lambda overlap, sigma: 0.0 if overlap > sigma else 1.0),
        _softened(lambda overlap, sigma: 0.0 if overlap > 0.45 else 1.0),
        "one minus: You multiply by one minus the exponential. Where nothing overlaps, the factor must be 1.",
        _softened(lambda overlap, sigma: 1 - math.exp(-(overlap**2) / sigma)),
        "lowers itself: A box lowers its own score in yours, and it overlaps itself with 1.",
        _softened(itself=True),
        _softened(itself=True, taken_too=True),
        "taken boxes lowered: You lower the scores of boxes that were taken before. A better box is not touched.",
        _softened(taken_too=True),
        "one round: You stop after the best box. Each box that is taken lowers what still waits.",
        _softened(rounds=1),
        "factors not multiplied: Each better box lowers the score once more. In yours the last one alone counts.",
        _from_the_first,
        "sorted: These are the right scores, sorted. Wanted is each in its own place.",
        lambda *args: soft_nms(*args).sort(descending=True).values,
        "nothing lowered: These are the scores as they came.",
        lambda found, sigma: found[:, 4].clone(),
    ),
    draw=_drawn,
)

EXERCISES = {"shortlist": SHORTLIST, "greedy_nms": GREEDY_NMS, "soft_nms": SOFT_NMS}
