"""Chapter 4: how many priors there are, where, and of which shapes.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Iterable

from course_lib.grading import Exercise, mistakes
from course_lib.verdicts import Point, rectangle

Sides = tuple[int, ...]


def prior_count(maps, per_cell):
    total = 0
    for side, count in zip(maps, per_cell, strict=True):
        total += side * side * count
    return total


def _summed(count: Callable[[int, int], int]) -> Callable[[Sides, Sides], int]:
    """A count over all levels; `count` gives that of one, from its side and its priors per cell."""
    return lambda maps, per_cell: sum(count(side, priors) for side, priors in zip(maps, per_cell, strict=True))


PRIOR_COUNT = Exercise(
    solution=prior_count,
    cases=[
        ((1,), (5,)),
        ((3,), (4,)),
        ((5, 3), (2, 4)),
        ((4, 4, 2), (1, 3, 3)),
        ((38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)),
    ],
    mistakes=mistakes(
        "not squared: You count one row of each map. How many rows has it?",
        _summed(lambda side, priors: side * priors),
        "cells only: You count cells. Each of them carries several priors.",
        _summed(lambda side, priors: side * side),
        "sums multiplied: You multiply all cells by all shapes. The shapes of one map do not stand in the cells of "
        "another.",
        lambda maps, per_cell: sum(side * side for side in maps) * sum(per_cell),
        lambda maps, per_cell: sum(maps) ** 2 * sum(per_cell),
        "priors squared: You square the priors in a cell. It is the map that has two sides.",
        _summed(lambda side, priors: (side * priors) ** 2),
        _summed(lambda side, priors: side * priors**2),
        "one level: You count the priors of one level. What of the others?",
        lambda maps, per_cell: prior_count(maps[:1], per_cell[:1]),
        lambda maps, per_cell: prior_count(maps[-1:], per_cell[-1:]),
        "numbers of a box: You count four for each prior, the numbers that it takes to write one down.",
        _summed(lambda side, priors: 4 * side * side * priors),
        "rows and columns added: You add rows and columns. Each row has as many cells as there are columns.",
        _summed(lambda side, priors: 2 * side * priors),
        "one level's priors: You give the cells of all maps the same number of priors. Each level has its own.",
        lambda maps, per_cell: sum(side * side for side in maps) * per_cell[0],
        lambda maps, per_cell: sum(side * side for side in maps) * per_cell[-1],
        "not summed: You give a count for each level. Asked is one number for all of them.",
        lambda maps, per_cell: [side * side * priors for side, priors in zip(maps, per_cell, strict=True)],
    ),
    draw=lambda args: [
        rectangle("frame", "first map", (0, 0, args["maps"][0], args["maps"][0])),
        rectangle("a", "cell", (0, 0, 1, 1)),
    ],
)


def nearest_cell(x, y, step, side):
    row = min(int(y // step), side - 1)
    column = min(int(x // step), side - 1)
    return row, column


def _cell(along: Callable[[float, float, int], float]) -> Callable[[float, float, float, int], tuple[float, float]]:
    """A cell's row and column; `along` gives one of them, from a place on its axis, the step and the map's side."""
    return lambda x, y, step, side: (along(y, step, side), along(x, step, side))


NEAREST_CELL = Exercise(
    solution=nearest_cell,
    cases=[
        (7.0, 7.0, 20, 2),
        (33.0, 33.0, 20, 2),
        (70.0, 20.0, 16, 10),
        (18.0, 25.0, 20, 4),
        (115.5, 33.5, 53.5, 3),
        (299.0, 5.0, 32, 10),
        (299.0, 150.0, 8, 37),
        (298.5, 297.0, 8, 37),
        (170.0, 30.0, 20, 6),
        (106.5, 160.0, 53.5, 3),
        (0.0, 5.0, 32, 10),
    ],
    mistakes=mistakes(
        "row and column exchanged: The row comes first. Which of x and y makes it?",
        lambda x, y, step, side: nearest_cell(y, x, step, side),
        "nearest corner: You round to the nearest corner of a cell. Priors stand in the middle of theirs.",
        _cell(lambda place, step, side: min(round(place / step), side - 1)),
        _cell(lambda place, step, side: round(place / step)),
        "last centre before: You take the last centre before the point. The next one may be nearer.",
        _cell(lambda place, step, side: min(int(place / step - 0.5), side - 1)),
        _cell(lambda place, step, side: min(math.floor(place / step - 0.5), side - 1)),
        _cell(lambda place, step, side: int(place / step - 0.5)),
        "cells from 1: You count cells from 1. The first row is row 0.",
        _cell(lambda place, step, side: min(math.floor(place / step), side - 1) + 1),
        _cell(lambda place, step, side: math.floor(place / step) + 1),
        _cell(lambda place, step, side: min(math.floor(place / step) + 1, side - 1)),
        "beyond the map: You name a cell that the map does not have. 37 cells of 8 pixels end at 296, and the picture "
        "goes on to 300.",
        _cell(lambda place, step, side: math.floor(place / step)),
        _cell(lambda place, step, side: min(math.floor(place / step), side)),
        "cut off first: You make whole numbers of the place and of the step before you divide. Steps of 53.5 pixels "
        "are not steps of 53.",
        _cell(lambda place, step, side: min(int(place) // int(step), side - 1)),
        "cell before the first: You round up and take one off. On the edge of the picture, at 0, that is cell -1.",
        _cell(lambda place, step, side: min(math.ceil(place / step) - 1, side - 1)),
        "place of the centre: You return where the nearest centre is. Asked is which cell it belongs to.",
        _cell(lambda place, step, side: (min(math.floor(place / step), side - 1) + 0.5) * step),
        "no integers: Your row and column have a point in them. Cells are counted: integers are wanted, and `//` "
        "between numbers with a point gives none.",
        _cell(lambda place, step, side: float(min(place // step, side - 1))),
        _cell(lambda place, step, side: place // step),
    ),
    returns=("row", "column"),
)


def prior_shapes(side, next_side, ratios):
    larger = math.sqrt(side * next_side)
    shapes, done = [(side, side), (larger, larger)], [1]
    for ratio in ratios:
        if ratio < 1:
            ratio = 1 / ratio
        if ratio in done:
            continue
        done.append(ratio)
        root = math.sqrt(ratio)
        shapes.append((side * root, side / root))
        shapes.append((side / root, side * root))
    return shapes


Ratios = tuple[float, ...]


Sizes = list[Point]


def _wide(ratios: Ratios) -> list[float]:
    """Each ratio once, as that of its wide box; 1 is left to the squares."""
    return list(dict.fromkeys(max(ratio, 1 / ratio) for ratio in ratios if ratio != 1))


def _shapes(
    larger: Callable[[float, float], float] = lambda side, next_side: math.sqrt(side * next_side),
    pair: Callable[[float, float], Sizes] = lambda side, root: [(side * root, side / root), (side / root, side * root)],
    meant: Callable[[Ratios], Iterable[float]] = _wide,
) -> Callable[[float, float, Ratios], Sizes]:
    """The shapes of a cell with one of their parts exchanged; `pair` gets the root of a ratio that is `meant`."""

    def twin(side: float, next_side: float, ratios: Ratios) -> Sizes:
        squares = [(one, one) for one in (side, larger(side, next_side))]
        return squares + [shape for ratio in meant(ratios) for shape in pair(side, math.sqrt(ratio))]

    return twin


def _reordered(order: Callable[[Sizes], Sizes]) -> Callable[[float, float, Ratios], Sizes]:
    return lambda *args: order(prior_shapes(*args))


PRIOR_SHAPES = Exercise(
    solution=prior_shapes,
    cases=[
        (40.0, 90.0, ()),
        (20.0, 45.0, (4.0,)),
        (30.0, 60.0, (2.0,)),
        (60.0, 111.0, (2.0, 3.0)),
        (111.0, 162.0, (3.0, 1.5)),
        (30.0, 60.0, (0.5,)),
        (60.0, 111.0, (2.0, 0.5)),
        (60.0, 111.0, (1.0, 2.0)),
        (60.0, 111.0, (1 / 3, 1.0, 2.0, 0.5, 3.0)),
    ],
    mistakes=mistakes(
        "mean of the sides: Your larger square lies half way between the sides by adding. It should be as many times "
        "larger than the one as it is smaller than the other.",
        _shapes(larger=lambda side, next_side: (side + next_side) / 2),
        "next side itself: Your larger square is the next level's small one. It lies between the two.",
        _shapes(larger=lambda side, next_side: next_side),
        "no root: The width of your boxes is ratio times ratio their height: what is (s r) / (s / r)?",
        _shapes(pair=lambda side, root: [(side * root**2, side / root**2), (side / root**2, side * root**2)]),
        "one side stretched: You stretch one side and leave the other, so that the area changes with the ratio.",
        _shapes(pair=lambda side, root: [(side * root**2, side), (side, side * root**2)]),
        _shapes(pair=lambda side, root: [(side * root**2, side), (side / root**2, side)]),
        "all squares: Width and height are computed by one formula, and all your boxes are squares.",
        _shapes(pair=lambda side, root: [(side * root,) * 2, (side / root,) * 2]),
        _shapes(pair=lambda side, root: [(side * root,) * 2] * 2),
        "inverse left out: Each ratio gives two boxes, a wide one and a tall one.",
        _shapes(pair=lambda side, root: [(side * root, side / root)]),
        "same box twice: You add the wide box twice. The second one stands upright.",
        _shapes(pair=lambda side, root: [(side * root, side / root)] * 2),
        "tall one first: Wide and tall have changed places. A ratio is width to height.",
        _shapes(pair=lambda side, root: [(side / root, side * root), (side * root, side / root)]),
        "inverses last: You add all ratios and then all inverses. Each ratio is followed by its own inverse.",
        _reordered(lambda shapes: [*shapes[:2], *shapes[2::2], *shapes[3::2]]),
        "larger square elsewhere: The larger square comes second, right behind the small one.",
        _reordered(lambda shapes: [shapes[0], *shapes[2:], shapes[1]]),
        _reordered(lambda shapes: [shapes[1], shapes[0], *shapes[2:]]),
        "larger square left out: A square is missing. Each cell has two, the second made with the next level's side.",
        _reordered(lambda shapes: [shapes[0], *shapes[2:]]),
        "larger one stretched: You stretch the larger square. The ratios belong to the small one.",
        lambda side, next_side, ratios: [
            *prior_shapes(side, next_side, ()),
            *prior_shapes(math.sqrt(side * next_side), next_side, ratios)[2:],
        ],
        "ratios as listed: A ratio below 1 stands for the same two boxes as its inverse, and the wide box comes first.",
        _shapes(meant=lambda ratios: ratios),
        _shapes(meant=lambda ratios: [ratio for ratio in ratios if ratio != 1]),
        _shapes(meant=lambda ratios: dict.fromkeys(ratios)),
        lambda *args: list(dict.fromkeys((round(w, 5), round(h, 5)) for w, h in _shapes(meant=tuple)(*args))),
        "boxes twice: Where the list holds a ratio and its inverse, your boxes come twice. Both mean the same two.",
        _shapes(meant=lambda ratios: [max(ratio, 1 / ratio) for ratio in ratios if ratio != 1]),
        _shapes(meant=lambda ratios: [max(ratio, 1 / ratio) for ratio in ratios]),
        "ratio of 1: You make boxes for a ratio of 1. That is the small square, which is there already.",
        _shapes(meant=lambda ratios: dict.fromkeys(max(ratio, 1 / ratio) for ratio in ratios)),
        "ratios below 1 left out: You pass over ratios below 1. Where a list holds 1/2 and no 2, boxes are missing.",
        _shapes(meant=lambda ratios: [ratio for ratio in ratios if ratio > 1]),
        "sorted: Your ratios stand in order of size. The one that the list names first comes first.",
        _shapes(meant=lambda ratios: sorted(_wide(ratios))),
        _shapes(meant=lambda ratios: sorted(_wide(ratios), reverse=True)),
        "fractions: Your boxes are fractions of some image. Pixels are wanted, as `side` is in pixels.",
        lambda *args: [(w / 300, h / 300) for w, h in prior_shapes(*args)],
        "root of the side: You take the root of the side as well. Only the ratio stands under it.",
        _shapes(
            pair=lambda side, root: [
                (math.sqrt(side) * root, math.sqrt(side) / root),
                (math.sqrt(side) / root, math.sqrt(side) * root),
            ]
        ),
    ),
)

EXERCISES = {"prior_count": PRIOR_COUNT, "nearest_cell": NEAREST_CELL, "prior_shapes": PRIOR_SHAPES}
