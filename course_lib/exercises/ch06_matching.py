"""Chapter 6: what a prior must learn, and which prior is whose.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Iterable
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import pad

from course_lib.boxes import to_corners
from course_lib.exercises.twins import but, cxcywh, stop
from course_lib.grading import Exercise, mistakes
from course_lib.verdicts import Box, rectangle


def encode_box(box, prior_cxcywh):
    xmin, ymin, xmax, ymax = box
    cx, cy, w, h = prior_cxcywh
    dx = ((xmin + xmax) / 2 - cx) / w / 0.1
    dy = ((ymin + ymax) / 2 - cy) / h / 0.1
    dw = math.log((xmax - xmin) / w) / 0.2
    dh = math.log((ymax - ymin) / h) / 0.2
    return dx, dy, dw, dh


def _encoded(
    shift: Callable[[float, float, float], float] = lambda distance, prior_side, side: distance / prior_side / 0.1,
    stretch: Callable[[float, float], float] = lambda side, prior_side: math.log(side / prior_side) / 0.2,
    of: Callable[[Box], Box] = cxcywh,
) -> Callable[[Box, Box], Box]:
    """Offsets with one of their parts exchanged; `of` gives the centre and the size of the box."""

    def twin(box: Box, prior_cxcywh: Box) -> Box:
        centre_and_size, prior = of(box), prior_cxcywh
        shifts = [shift(centre_and_size[i] - prior[i], prior[i + 2], centre_and_size[i + 2]) for i in range(2)]
        return (*shifts, *(stretch(centre_and_size[i], prior[i]) for i in range(2, 4)))

    return twin


ENCODE_BOX = Exercise(
    solution=encode_box,
    cases=[
        ((0.3, 0.4, 0.5, 0.8), (0.4, 0.6, 0.2, 0.4)),
        ((0.4, 0.4, 0.6, 0.8), (0.4, 0.6, 0.2, 0.4)),
        ((0.3, 0.5, 0.5, 0.9), (0.4, 0.6, 0.2, 0.4)),
        ((0.1, 0.4, 0.5, 0.5), (0.3, 0.45, 0.2, 0.4)),
        ((0.2, 0.1, 0.9, 0.7), (0.6, 0.3, 0.5, 0.8)),
        ((0.0, 0.0, 1.0, 1.0), (0.98, 0.02, 0.1, 0.3)),
    ],
    mistakes=mistakes(
        "no variances: Your numbers are in the prior's size alone. They are still to be divided by 0.1 and by 0.2.",
        _encoded(lambda distance, prior_side, _: distance / prior_side, lambda a, b: math.log(a / b)),
        "multiplied by variances: You multiply by the variances. Encoding divides by them, and decoding multiplies.",
        _encoded(lambda distance, prior_side, _: distance / prior_side * 0.1, lambda a, b: math.log(a / b) * 0.2),
        "variances exchanged: 0.1 belongs to the centre, and 0.2 to the logarithm of the size.",
        _encoded(lambda distance, prior_side, _: distance / prior_side / 0.2, lambda a, b: math.log(a / b) / 0.1),
        "one variance: You use one variance for all four. The centre has 0.1, the size has 0.2.",
        _encoded(stretch=lambda a, b: math.log(a / b) / 0.1),
        _encoded(lambda distance, prior_side, _: distance / prior_side / 0.2),
        "no logarithm: Your sizes have no logarithm. Twice as wide should lie as far above zero as half as wide lies "
        "below.",
        _encoded(stretch=lambda a, b: a / b / 0.2),
        _encoded(stretch=lambda a, b: (a - b) / b / 0.2),
        "variance in the logarithm: You divide by the variance inside of the logarithm. Take the logarithm of the two "
        "sides' ratio first, then divide.",
        _encoded(stretch=lambda a, b: math.log(a / b / 0.2)),
        "other base: Your logarithm has another base. The natural one is wanted.",
        _encoded(stretch=lambda a, b: math.log2(a / b) / 0.2),
        _encoded(stretch=lambda a, b: math.log10(a / b) / 0.2),
        "width for height: A width stands where a height belongs, or the other way round. x goes with widths, y with "
        "heights.",
        _encoded(of=lambda box: [cxcywh(box)[number] for number in (0, 1, 3, 2)]),
        lambda box, prior: encode_box(box, tuple(prior[number] for number in (0, 1, 3, 2))),
        lambda *args: tuple(encode_box(*args)[number] for number in (0, 1, 3, 2)),
        lambda box, prior: (
            encode_box(box, prior)[0],
            encode_box(box, prior)[1] * prior[3] / prior[2],
            *encode_box(box, prior)[2:],
        ),
        "x for y: x and y have changed places. The order is dx, dy, dw, dh.",
        lambda *args: tuple(encode_box(*args)[number] for number in (1, 0, 3, 2)),
        lambda *args: tuple(encode_box(*args)[number] for number in (1, 0, 2, 3)),
        "one side twice: Your last two numbers are the same. One is for the width, and the other for the height.",
        lambda *args: tuple(encode_box(*args)[number] for number in (0, 1, 2, 2)),
        lambda *args: tuple(encode_box(*args)[number] for number in (0, 1, 3, 3)),
        "square root: You take the square root of the variances. In spite of their name they are divided by as they "
        "are.",
        _encoded(
            lambda distance, prior_side, _: distance / prior_side / 0.1**0.5, lambda a, b: math.log(a / b) / 0.2**0.5
        ),
        "shift not divided: Your shift is in fractions of the image. Count it in widths and heights of the prior.",
        _encoded(lambda distance, prior_side, side: distance / 0.1),
        "by the box's size: You divide by the size of the box. When decoding, nobody knows it yet.",
        _encoded(lambda distance, prior_side, side: distance / side / 0.1),
        "turned round: You describe the prior as seen from the box. The box is wanted, as seen from the prior.",
        _encoded(lambda distance, *sides: -distance / sides[0] / 0.1, lambda a, b: math.log(b / a) / 0.2),
        _encoded(lambda distance, *sides: -distance / sides[0] / 0.1),
        _encoded(stretch=lambda a, b: math.log(b / a) / 0.2),
        "corner for centre: You measure from the corner of the box. Which point of it does the prior's centre meet?",
        _encoded(of=lambda box: (*box[:2], *cxcywh(box)[2:])),
        "box read as centre and size: Your box holds two corners. Turn it into centre and size first.",
        _encoded(of=lambda box: box),
    ),
    draw=lambda args: [
        rectangle("a", "box", args["box"]),
        rectangle("b", "prior", to_corners(torch.tensor(args["prior_cxcywh"])).tolist()),
    ],
)


def greedy(iou):
    found, taken = [-1] * len(iou), set()
    order = iou.flatten().argsort(descending=True, stable=True)
    for place in order.tolist():
        one, prior = divmod(place, iou.shape[1])
        if iou[one, prior] == 0:
            break
        if found[one] < 0 and prior not in taken:
            found[one] = prior
            taken.add(prior)
    return found


def _paired(rows: bool = True, columns: bool = True, least: float = 0.0, empty: bool = False) -> Callable:
    """Greedy over the matrix; what is not struck out stays, and `empty` takes pairs that do not overlap."""

    def twin(iou: Tensor) -> list[int]:
        free, found = iou.clone(), [-1] * len(iou)
        for _ in iou:
            one, prior = divmod(int(free.argmax()), iou.shape[1])
            if free[one, prior] < (0 if empty else max(least, 1e-9)):
                break
            found[one] = prior
            free[one] = -1 if rows else free[one]
            free[:, prior] = -1 if columns else free[:, prior]
        return found

    return twin


def _in_order(order: Callable[[Tensor], Iterable[int]]) -> Callable[[Tensor], list[int]]:
    """Each object in turn takes the best prior that is still free."""

    def twin(iou: Tensor) -> list[int]:
        free, found = iou.clone(), [-1] * len(iou)
        for one in order(iou):
            if free[one].max() > 0:
                found[one] = int(free[one].argmax())
                free[:, found[one]] = 0
        return found

    return twin


def _round_after_round(iou: Tensor) -> list[int]:
    """Columns are struck out until none is left, rows are not."""
    free, found = iou.clone(), [-1] * len(iou)
    while free.numel() and free.max() > 0:
        one, prior = divmod(int(free.argmax()), iou.shape[1])
        found[one] = prior
        free[:, prior] = 0
    return found


def _loser(beats: Callable[[Tensor, int, int], bool], second: bool = False, at_once: bool = True) -> Callable:
    """Each object takes its best prior; one that another object beats there has its second best, or nothing."""

    def twin(iou: Tensor) -> list[int]:
        found = iou.argmax(dim=1).tolist()
        taken = found.copy() if at_once else found
        for one, prior in enumerate(found.copy()):
            if any(taken[other] == prior and beats(iou[:, prior], other, one) for other in range(len(iou))):
                rest = iou[one].clone()
                rest[prior] = -1
                found[one] = int(rest.argmax()) if second and rest.max() > 0 else -1
        return found

    return twin


def _to_and_fro(iou: Tensor) -> list[int]:
    """As `_loser` with a second choice, but who loses that one too goes back to the first."""
    found = iou.argmax(dim=1).tolist()
    for one in range(len(iou)):
        for other in range(len(iou)):
            if other != one and found[other] == found[one] and iou[other, found[one]] > iou[one, found[one]]:
                rest = iou[one].clone()
                rest[found[one]] = -1
                found[one] = int(rest.argmax()) if rest.max() > 0 else -1
    return found


def _best_total(iou: Tensor) -> list[int]:
    """The pairs with the largest sum, of all that there are."""
    objects, priors = iou.shape
    overlap = pad(iou, (0, objects)).tolist()  # columns for those that go without
    choices = permutations(range(priors + objects), objects)
    best = max(choices, key=lambda one: sum(row[prior] for row, prior in zip(overlap, one, strict=True)))
    return [prior if row[prior] > 0 else -1 for row, prior in zip(overlap, best, strict=True)]


def _walked(
    order: Callable[[Tensor], Tensor] = lambda flat: flat.argsort(descending=True, stable=True),
    split: Callable[[int, Tensor], tuple[int, int]] = lambda place, iou: divmod(place, iou.shape[1]),
    ends: Callable[[bool, bool, bool], bool] = lambda nothing, has_one, is_taken: nothing,
) -> Callable[[Tensor], list[int]]:
    """Down the list of all pairs, with one part exchanged: the list, a pair's place in it, and when the walk ends."""

    def twin(iou: Tensor) -> list[int]:
        found, taken = [-1] * len(iou), set()
        for place in order(iou.flatten()).tolist():
            one, prior = split(place, iou)
            nothing, has_one, is_taken = bool(iou[one, prior] == 0), found[one] >= 0, prior in taken
            if ends(nothing, has_one, is_taken):
                break
            if not (nothing or has_one or is_taken):
                found[one] = prior
                taken.add(prior)
        return found

    return twin


def _by_rows(iou: Tensor) -> list[int]:
    """Round by round, and a place in the flat list is divided by the number of rows."""
    free, found = iou.clone(), [-1] * len(iou)
    for _ in iou:
        if free.max() > 0:
            one, prior = divmod(int(free.argmax()), len(iou))
            found[one] = prior
            free[one] = 0
            free[:, prior] = 0
    return found


def _unstable(flat: Tensor) -> Tensor:
    """Sorted as it comes; on a machine that happens to sort stably, of equal overlaps the last comes first."""
    if torch.ones(60).argsort(descending=True).equal(torch.arange(60)):
        return len(flat) - 1 - flat.flip(0).argsort(descending=True, stable=True)
    return flat.argsort(descending=True)


def _backwards(*axes: int) -> Callable[[Tensor], list[int]]:
    """Of equal overlaps the last one of an axis comes first."""

    def twin(iou: Tensor) -> list[int]:
        found = greedy(iou.flip(axes))
        if 1 in axes:
            found = [iou.shape[1] - 1 - prior if prior >= 0 else -1 for prior in found]
        return found[::-1] if 0 in axes else found

    return twin


GREEDY = Exercise(
    solution=greedy,
    cases=[
        (torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.0]]),),
        (torch.tensor([[0.4, 0.2, 0.3], [0.1, 0.0, 0.3]]),),
        (torch.tensor([[0.75, 0.4, 0.0, 0.0], [0.8, 0.5, 0.0, 0.0], [0.0, 0.0, 0.75, 0.2]]),),
        (torch.tensor([[0.9, 0.85, 0.1, 0.0], [0.95, 0.2, 0.6, 0.3], [0.1, 0.86, 0.45, 0.2]]),),
        (torch.tensor([[0.7, 0.1, 0.0], [0.8, 0.0, 0.0], [0.6, 0.65, 0.0]]),),
        (torch.tensor([[0.88, 0.3, 0.2, 0.1], [0.9, 0.82, 0.0, 0.4], [0.89, 0.81, 0.7, 0.0], [0.0, 0.0, 0.0, 0.0]]),),
        (torch.tensor([[0.5, 0.0, 0.2], [0.8, 0.9, 0.1], [0.0, 0.95, 0.3]]),),
        (torch.tensor([[0.7, 0.2], [0.6, 0.5], [0.4, 0.3]]),),
        (torch.tensor([[0.6, 0.6, 0.0], [0.6, 0.2, 0.3]]),),
        (torch.tensor([[0.5, 0.3], [0.5, 0.4]]),),
        (torch.full((3, 20), 0.5),),
        (torch.tensor([[0.3, 0.02], [0.9, 0.0]]),),
        (torch.tensor([[0.2, 0.7, 0.1]]),),
        (torch.tensor([[0.3], [0.6]]),),
        (torch.zeros(0, 3),),
    ],
    mistakes=mistakes(
        "column kept: Two of your objects have the same prior. A prior that is taken is no longer free.",
        _paired(columns=False),
        "row kept: One of your objects takes prior after prior. It leaves the round once it has one.",
        _paired(rows=False),
        _round_after_round,
        "in order of objects: You serve the objects in the order in which they are listed. The best pair of the whole "
        "matrix comes first.",
        _in_order(lambda iou: range(len(iou))),
        "sorted once: You serve objects by their best overlap at the start. Once a prior is gone, another object may "
        "have the best pair.",
        _in_order(lambda iou: iou.amax(dim=1).argsort(descending=True, stable=True).tolist()),
        "threshold: You ask for an IoU of one half. The greedy step takes any overlap; the threshold comes after it.",
        _paired(least=0.5),
        "no overlap: You hand out a prior that does not overlap the object. Then it gets -1.",
        _paired(empty=True),
        "loser goes without: An object that loses its favourite prior gets none. Which of the others is free, and "
        "overlaps it best?",
        _loser(lambda overlap, other, one: other < one, at_once=False),
        _loser(lambda overlap, other, one: other > one),
        _loser(lambda overlap, other, one: overlap[other] > overlap[one]),
        "loser's second choice: The loser takes its second best prior, whoever has that one. It may be taken too.",
        _loser(lambda overlap, other, one: overlap[other] > overlap[one], second=True),
        _loser(lambda overlap, other, one: overlap[other] > overlap[one], second=True, at_once=False),
        _to_and_fro,
        "best total: You look for the pairs that add up to the most. The greedy rule takes the best pair first, even "
        "where that costs the others more.",
        _best_total,
        "ties: Of equal overlaps you take a later one. The first prior and the first object win.",
        _backwards(0),
        _backwards(1),
        _backwards(0, 1),
        _walked(_unstable),
        "smallest first: You begin with the smallest overlap. The best pair of the whole matrix comes first.",
        _walked(torch.argsort),
        _walked(torch.argsort, ends=lambda nothing, has_one, is_taken: False),
        "walk ends: You stop at the first pair whose object or prior is taken. Pass over it: others come after it.",
        _walked(ends=lambda nothing, has_one, is_taken: nothing or is_taken),
        _walked(ends=lambda nothing, has_one, is_taken: nothing or has_one or is_taken),
        _walked(ends=lambda nothing, has_one, is_taken: nothing or has_one),
        "place in the list: You read a place in the flat list as the wrong pair. It goes through the matrix row by "
        "row, and a row holds as many as there are priors.",
        _walked(split=lambda place, iou: (place % len(iou), place // len(iou))),
        _walked(split=lambda place, iou: divmod(place, len(iou))),
        _by_rows,
        "no objects: A picture may have no objects, and then the matrix has no rows. There is no largest number then.",
        but(lambda iou: len(iou) == 0, stop, greedy),
    ),
)


def owners(iou, threshold):
    overlap, owner = iou.max(dim=0)
    owner[overlap < threshold] = -1
    free = iou.clone()
    while free.max() > 0:
        number, prior = divmod(int(free.argmax()), iou.shape[1])
        owner[prior] = number
        free[number] = 0
        free[:, prior] = 0
    return owner


def _owned(
    join: Callable[[Tensor, float], Tensor] = lambda iou, threshold: torch.where(
        iou.amax(dim=0) >= threshold, iou.argmax(dim=0), -1
    ),
    paired: Callable[[Tensor], list[int]] = greedy,
    write: Callable[[Tensor, int, int], None] = lambda owner, number, prior: (
        owner.__setitem__(prior, number) if prior >= 0 else None
    ),
) -> Callable[[Tensor, float], Tensor]:
    """Both rules with one of their parts exchanged: who joins, who is paired, how the pairs are written."""

    def twin(iou: Tensor, threshold: float) -> Tensor:
        owner = join(iou, threshold)
        for number, prior in enumerate(paired(iou)):
            write(owner, number, prior)
        return owner

    return twin


def _rounds(split: Callable[[int, Tensor], tuple[int, int]]) -> Callable[[Tensor, float], Tensor]:
    """A round for each object, whether a pair is left or not."""

    def twin(iou: Tensor, threshold: float) -> Tensor:
        owner, free = torch.where(iou.amax(dim=0) >= threshold, iou.argmax(dim=0), -1), iou.clone()
        for _ in iou:
            number, prior = split(int(free.argmax()), iou)
            owner[prior] = number
            free[number] = 0
            free[:, prior] = 0
        return owner

    return twin


def _threshold_last(iou: Tensor, threshold: float) -> Tensor:
    best, first = iou.max(dim=0)
    return torch.where(best >= threshold, first, owners(iou, threshold))


def _only_below(iou: Tensor, threshold: float) -> list[int]:
    """The pairs of the objects that reach the threshold nowhere."""
    return [-1 if row.max() >= threshold else prior for row, prior in zip(iou, greedy(iou), strict=True)]


def _in_turn(keep_first: bool) -> Callable[[Tensor, float], Tensor]:
    """A prior joins the first or the last object that reaches the threshold, not the one that it overlaps most."""

    def join(iou: Tensor, threshold: float) -> Tensor:
        owner = torch.full((iou.shape[1],), -1)
        for number in reversed(range(len(iou))) if keep_first else range(len(iou)):
            owner[iou[number] >= threshold] = number
        return owner

    return _owned(join)


def _favourites(iou: Tensor) -> list[int]:
    """Each object's best prior, whoever has it; of several the last has it in the end."""
    return [int(row.argmax()) for row in iou]


def _first_of_favourites(iou: Tensor) -> list[int]:
    favourites = _favourites(iou)
    return [-1 if prior in favourites[:number] else prior for number, prior in enumerate(favourites)]


OWNERS = Exercise(
    solution=owners,
    cases=[
        (torch.tensor([[0.75, 0.6, 0.2], [0.0, 0.1, 0.4]]), 0.5),
        (torch.tensor([[0.75, 0.3, 0.0, 0.0, 0.0], [0.8, 0.4, 0.0, 0.0, 0.0], [0.0, 0.0, 0.75, 0.6, 0.2]]), 0.5),
        (torch.tensor([[0.7, 0.1, 0.55, 0.2], [0.2, 0.1, 0.65, 0.5], [0.0, 0.6, 0.8, 0.9]]), 0.5),
        (torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.0, 0.85, 0.1]]), 0.5),
        (torch.tensor([[0.9, 0.35, 0.3, 0.2], [0.1, 0.6, 0.45, 0.0]]), 0.3),
        (torch.tensor([[0.9, 0.55, 0.65, 0.2], [0.1, 0.8, 0.6, 0.3]]), 0.7),
        (torch.tensor([[0.6, 0.2, 0.7, 0.1], [0.0, 0.0, 0.0, 0.0]]), 0.5),
        (torch.tensor([[0.4, 0.0, 0.2], [0.3, 0.0, 0.0], [0.6, 0.0, 0.7]]), 0.5),
        (torch.tensor([[0.9, 0.1, 0.7], [0.2, 0.8, 0.6]]), 0.5),
        (torch.tensor([[0.65, 0.6, 0.3], [0.8, 0.0, 0.9]]), 0.5),
        (torch.tensor([[0.5, 0.5, 0.9, 0.5], [0.5, 0.8, 0.0, 0.5]]), 0.5),
        (torch.tensor([[0.0, 0.9, 0.3], [0.0, 0.8, 0.05], [0.0, 0.0, 0.0]]), 0.5),
        (torch.tensor([[0.2, 0.4, 0.1]]), 0.5),
        (torch.tensor([[0.3], [0.6]]), 0.5),
    ],
    mistakes=mistakes(
        "no prior: An object that no free prior overlaps has -1, and -1 is an index too: the last. Let it write "
        "nowhere.",
        _owned(write=lambda owner, number, prior: owner.__setitem__(prior, number)),
        "no pair left: An object may be left that overlaps no free prior. A matrix of zeros has a largest number too, "
        "and you write at its place. Look at the number first.",
        _rounds(lambda place, iou: divmod(place, iou.shape[1])),
        _owned(paired=_paired(empty=True)),
        "place in the matrix: You find the pair at a wrong place. A row of the matrix is as long as there are priors.",
        _rounds(lambda place, iou: divmod(place, len(iou))),
        _owned(paired=_by_rows),
        "first prior: 0 is a prior like any other, the first. Only -1 says that an object has none.",
        _owned(write=lambda owner, number, prior: owner.__setitem__(prior, number) if prior > 0 else None),
        "threshold last: Your threshold takes a prior from the object that it was given to. The pairs of the first "
        "rule have the last word.",
        _threshold_last,
        "pairs where needed: Every pair of the first rule counts, also of an object that already has priors by the "
        "threshold.",
        _owned(
            write=lambda owner, number, prior: (
                owner.__setitem__(prior, number) if prior >= 0 and not (owner == number).any() else None
            )
        ),
        "reaches the threshold: Every pair of the first rule counts, also of an object whose best overlap reaches the "
        "threshold: another may have that prior.",
        lambda iou, threshold: _owned(paired=lambda iou: _only_below(iou, threshold))(iou, threshold),
        "pairs only: Your priors have the pairs of the first rule. A free prior that reaches the threshold joins its "
        "best object, too.",
        _owned(lambda iou, threshold: torch.full((iou.shape[1],), -1)),
        "threshold only: Some objects have no prior. What is left for one that reaches the threshold with none?",
        _owned(write=lambda owner, number, prior: None),
        "favourites: Each object of yours takes its best prior, whoever has it. Your `greedy` knows who gets which.",
        _owned(paired=_favourites),
        _owned(paired=_first_of_favourites),
        "threshold fixed: You compare with one half. The caller says what the threshold is.",
        lambda iou, threshold: owners(iou, 0.5),
        "threshold not reached: A prior joins from the threshold on, also where its overlap is exactly that.",
        _owned(lambda iou, threshold: torch.where(iou.amax(dim=0) > threshold, iou.argmax(dim=0), -1)),
        "some object: A prior that reaches the threshold with several objects joins the one that it overlaps most.",
        _in_turn(keep_first=True),
        _in_turn(keep_first=False),
        "ties: Of equal overlaps you take a later object. The first one wins.",
        _owned(
            lambda iou, threshold: torch.where(
                iou.amax(dim=0) >= threshold, len(iou) - 1 - iou.flip(0).argmax(dim=0), -1
            )
        ),
        "no threshold: You give every prior to its best object, however little they overlap. Below the threshold a "
        "free prior is background: -1.",
        lambda iou, threshold: iou.argmax(dim=0),
        _owned(lambda iou, threshold: iou.argmax(dim=0)),
        _owned(lambda iou, threshold: torch.where(iou.amax(dim=0) > 0, iou.argmax(dim=0), -1)),
        "labels: You count objects from 1, and background is 0. The number of the first object is 0, and of background "
        "-1.",
        lambda iou, threshold: owners(iou, threshold) + 1,
        "background is 0: Your background is 0, which is the first object. Let it be -1.",
        lambda iou, threshold: owners(iou, threshold).clamp(min=0),
        "objects for priors: You return a prior for each object. An object for each prior is wanted, as many as `iou` "
        "has columns.",
        lambda iou, threshold: torch.tensor(greedy(iou)),
    ),
)

EXERCISES = {"encode_box": ENCODE_BOX, "greedy": GREEDY, "owners": OWNERS}
