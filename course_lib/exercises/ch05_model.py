"""Chapter 5: the heads' channels and the order of their rows.

The answers are in here. Try first.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.grading import Exercise, mistakes
from course_lib.verdicts import Shape, rectangle

Sides = tuple[int, ...]


def head_channels(per_cell, classes):
    boxes = 4 * per_cell
    scores = (classes + 1) * per_cell
    return boxes, scores


HEAD_CHANNELS = Exercise(
    solution=head_channels,
    cases=[(1, 1), (1, 20), (4, 20), (6, 20), (5, 90)],
    mistakes=mistakes(
        "background left out: You count object classes alone. What does a prior say that sees none of them?",
        lambda per_cell, classes: (per_cell * 4, per_cell * classes),
        "background once: You add one channel for background to the whole head. Each prior needs its own.",
        lambda per_cell, classes: (per_cell * 4, per_cell * classes + 1),
        "one prior only: These are the channels for one prior. A cell has several.",
        lambda per_cell, classes: (4, classes + 1),
        "heads exchanged: The heads have changed places: boxes come first.",
        lambda *args: head_channels(*args)[::-1],
        "two numbers: A box takes four numbers: two to move it, and two to stretch it.",
        lambda per_cell, classes: (per_cell * 2, per_cell * (classes + 1)),
        "score in the box: You add a score to the four numbers of a box. In SSD background is a class, and scores have "
        "a head of their own.",
        lambda per_cell, classes: (per_cell * 5, per_cell * (classes + 1)),
        lambda per_cell, classes: (per_cell * 5, per_cell * classes),
        "box for each class: You predict a box for each class. In SSD a prior has one box, whatever it shows.",
        lambda per_cell, classes: (per_cell * 4 * (classes + 1), per_cell * (classes + 1)),
        lambda per_cell, classes: (per_cell * 4 * classes, per_cell * (classes + 1)),
        "VOC's classes: You write VOC's number of classes. Your function is told how many there are.",
        lambda per_cell, classes: (per_cell * 4, per_cell * 21),
        lambda per_cell, classes: (per_cell * 4, per_cell * 20),
    ),
)


def rows_to_head(rows, height, width):
    last = rows.reshape(rows.shape[0], height, width, -1)
    return last.permute(0, 3, 1, 2)


def _put_back(read: str = "yxkv", written: str = "kvyx") -> Callable[[Tensor, int, int], Tensor]:
    """A head's output from rows; the rows are read, and it is written, in an order of k (prior), v (value), y and x."""

    def twin(rows: Tensor, height: int, width: int) -> Tensor:
        size = {"y": height, "x": width, "k": rows.shape[1] // (height * width), "v": rows.shape[2]}
        split = rows.reshape(len(rows), *(size[axis] for axis in read))
        return split.permute(0, *(1 + read.index(axis) for axis in written)).reshape(len(rows), -1, height, width)

    return twin


def _split_rows(rows: Tensor, height: int, width: int) -> Tensor:
    return rows.reshape(len(rows), height, width, -1, rows.shape[2])  # [B, y, x, k, v]


def _rows(batch: int, priors: int, values: int, height: int, width: int) -> tuple[Tensor, int, int]:
    """A row for each prior of a map, a different number in each place."""
    numbers = torch.arange(batch * priors * values * height * width, dtype=torch.float32)
    return numbers.reshape(batch, -1, values), height, width


ROWS_TO_HEAD = Exercise(
    solution=rows_to_head,
    tensor=True,
    cases=[
        _rows(1, 1, 4, 1, 1),
        _rows(1, 1, 4, 1, 2),
        _rows(1, 2, 4, 2, 2),
        _rows(2, 2, 3, 2, 3),
        _rows(1, 3, 2, 3, 3),
        _rows(3, 4, 21, 2, 2),
    ],
    mistakes=mistakes(
        "no permute: A reshape alone keeps the order of the rows, in which the numbers of one cell stand side by side. "
        "A channel holds one number of every cell.",
        lambda rows, height, width: rows.reshape(len(rows), -1, height, width),
        "cells not split: You bring the values to the front and leave cells and priors in one axis. Split that axis "
        "first.",
        lambda rows, height, width: rows.transpose(1, 2).reshape(len(rows), -1, height, width),
        "values first: The channels of a cell are in another order. They are all values of the first prior, then all "
        "of the second.",
        _put_back(written="vkyx"),
        _put_back(read="yxvk"),
        "columns before rows: You go down the columns. Cells are counted along a row.",
        _put_back(read="xykv"),
        "prior by prior: You take the rows for all cells of the first prior, then all of the second. A cell's priors "
        "stand together.",
        _put_back(read="kyxv"),
        "map on its side: The map's height and width have changed places.",
        lambda *args: rows_to_head(*args).transpose(2, 3),
        _put_back(written="kvxy"),
        "channels last: Your channels come last. In a head's output they come right after the batch.",
        lambda *args: rows_to_head(*args).permute(0, 2, 3, 1),
        "axes kept apart: Priors and values are still axes of their own. One axis for all channels is wanted.",
        lambda *args: _split_rows(*args).permute(0, 3, 4, 1, 2),
        _split_rows,
        "pictures joined: The first axis is the batch's and stays as it is: each image is put back by itself, a single "
        "one too.",
        lambda rows, height, width: rows.reshape(1, height, width, -1).permute(0, 3, 1, 2),
        lambda rows, height, width: rows.reshape(height, width, -1).permute(2, 0, 1),
    ),
)


Address = tuple[int, int, int, int]


def prior_address(index, maps, per_cell):
    for level, side in enumerate(maps):
        count = per_cell[level]
        size = side * side * count
        if index < size:
            cell = index // count
            return level, cell // side, cell % side, index % count
        index -= size
    return None


def _address(
    within: Callable[[int, int, int], tuple[int, int, int]] = lambda index, side, priors: (
        index // priors // side,
        index // priors % side,
        index % priors,
    ),
    size: Callable[[int, int], int] = lambda side, priors: side * side * priors,
    over: Callable[[int, int], bool] = lambda index, size: index >= size,
    start: int = 1,
    ends: bool = False,
) -> Callable[[int, Sides, Sides], Address | None]:
    """An address with one of its parts exchanged.

    Args:
        start: 0 where a level's start is not subtracted.
        ends: nothing comes back for a number beyond the last level; otherwise that level takes it.
    """

    def twin(index: int, maps: Sides, per_cell: Sides) -> Address | None:
        before = 0
        for level, (side, priors) in enumerate(zip(maps, per_cell, strict=True)):
            last = level == len(maps) - 1 and not ends
            if last or not over(index - before, size(side, priors)):
                return level, *within(index - start * before, side, priors)
            before += size(side, priors)
        return None

    return twin


def _one_each(index: int, side: int, priors: int) -> tuple[int, int, int]:
    """Row, column and shape where each cell is taken to have one prior."""
    return index // side, index % side, 0


PRIOR_ADDRESS = Exercise(
    solution=prior_address,
    cases=[
        (0, (2,), (2,)),
        (1, (2,), (2,)),
        (5, (2,), (2,)),
        (11, (3, 2), (2, 4)),
        (18, (3, 2), (2, 4)),
        (29, (3, 2), (2, 4)),
        (6000, (38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)),
        (8731, (38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)),
    ],
    mistakes=mistakes(
        "row for column: Row and column have changed places. Cells are counted along a row: when is a row full?",
        _address(lambda index, side, priors: (index // priors % side, index // priors // side, index % priors)),
        "shapes apart: You go through all cells with the first shape, then with the second. A cell's shapes stand "
        "together.",
        _address(lambda index, side, priors: (index % side**2 // side, index % side, index // side**2)),
        "shapes forgotten: You count cells as if each had one prior. Several numbers belong to each cell.",
        _address(lambda index, side, priors: (index // side, index % side, index % priors)),
        _address(_one_each),
        *(_address(_one_each, size=lambda side, priors: side * side, ends=ends) for ends in (True, False)),
        "column of numbers: Your column counts numbers along a row. Each cell has several of them: count cells.",
        _address(lambda index, side, priors: (index // priors // side, index % side, index % priors)),
        "start kept: The number still counts from the start of the first level. Take off what lies before this one.",
        _address(start=0),
        "edge of a level: The first prior of a level still goes to the level before. Numbers begin with 0, so where "
        "does a level of 18 end?",
        _address(over=lambda index, size: index > size),
        "one row a level: You take a level for one row of cells. It has as many rows as columns.",
        *(_address(size=lambda side, priors: side * priors, ends=ends) for ends in (False, True)),
        "levels of cells: You count a level's cells and leave its shapes out, so that levels begin too early.",
        *(_address(size=lambda side, priors: side * side, ends=ends) for ends in (False, True)),
        "numbers from 1: You count levels from 1. All four numbers begin with 0.",
        lambda *args: (prior_address(*args)[0] + 1, *prior_address(*args)[1:]),
        lambda *args: tuple(number + 1 for number in prior_address(*args)),
    ),
    draw=lambda args: _address_drawn(*prior_address(**args)[:3], args["maps"]),
    returns=("level", "row", "column", "shape"),
)


def _address_drawn(level: int, row: int, column: int, maps: Sides) -> list[Shape]:
    return [
        rectangle("frame", f"level {level}", (0, 0, maps[level], maps[level])),
        rectangle("expected", "cell", (column, row, column + 1, row + 1)),
    ]


EXERCISES = {"head_channels": HEAD_CHANNELS, "rows_to_head": ROWS_TO_HEAD, "prior_address": PRIOR_ADDRESS}
