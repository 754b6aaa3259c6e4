"""Answers to the exercises of chapter 5, right and wrong: heads."""

HEAD_CHANNELS = {
    "numpy": """
        def head_channels(per_cell, classes):
            return np.array([4, classes + 1]) * per_cell
    """,
    "list": """
        def head_channels(per_cell, classes):
            return [per_cell * width for width in (4, 1 + classes)]
    """,
}

ROWS_TO_HEAD = {
    "split": """
        def rows_to_head(rows, height, width):
            batch, count, values = rows.shape
            k = count // height // width
            split = rows.view(batch, height, width, k, values)
            split = split.permute(0, 3, 4, 1, 2)
            return split.reshape(batch, k * values, height, width)
    """,
    "numpy": """
        def rows_to_head(rows, height, width):
            last = rows.numpy().reshape(len(rows), height, width, -1)
            return torch.from_numpy(np.moveaxis(last, 3, 1))
    """,
    "loops": """
        def rows_to_head(rows, height, width):
            batch, count, values = rows.shape
            k = count // (height * width)
            head = torch.zeros(batch, k * values, height, width)
            for y in range(height):
                for x in range(width):
                    for a in range(k):
                        for v in range(values):
                            head[:, a * values + v, y, x] = rows[:, (y * width + x) * k + a, v]
            return head
    """,
}

PRIOR_ADDRESS = {
    "numpy": """
        def prior_address(index, maps, per_cell):
            starts = np.cumsum([0] + [side * side * count for side, count in zip(maps, per_cell)])
            level = int(np.searchsorted(starts, index, side="right")) - 1
            left = index - starts[level]
            row, column, shape = np.unravel_index(left, (maps[level], maps[level], per_cell[level]))
            return level, row, column, shape
    """,
    "listed": """
        def prior_address(index, maps, per_cell):
            every = []
            for level in range(len(maps)):
                for row in range(maps[level]):
                    for column in range(maps[level]):
                        for shape in range(per_cell[level]):
                            every.append((level, row, column, shape))
            return every[index]
    """,
}

RIGHT = {"head_channels": HEAD_CHANNELS, "rows_to_head": ROWS_TO_HEAD, "prior_address": PRIOR_ADDRESS}

WRONG = {
    "head_channels": {
        "background left out": [("plain", "(classes + 1)", "classes"), ("list", "1 + classes", "classes")],
        "background once": [("plain", "(classes + 1) * per_cell", "classes * per_cell + 1")],
        "one prior only": [("plain", " * per_cell", ""), ("numpy", " * per_cell", "")],
        "heads exchanged": [
            ("plain", "return boxes, scores", "return scores, boxes"),
            ("list", "(4, 1 + classes)", "(1 + classes, 4)"),
        ],
        "two numbers": [("plain", "4 *", "2 *"), ("numpy", "[4,", "[2,")],
        "score in the box": [
            ("plain", "4 *", "5 *"),
            ("plain", "4 *", "5 *", "(classes + 1)", "classes"),
        ],
        "box for each class": [
            ("plain", "4 *", "4 * (classes + 1) *"),
            ("numpy", "[4,", "[4 * classes,"),
        ],
        "VOC's classes": [("plain", "(classes + 1)", "21"), ("list", "1 + classes", "20")],
    },
    "rows_to_head": {
        "no permute": [
            ("plain", "height, width, -1)", "-1, height, width)", "last.permute(0, 3, 1, 2)", "last"),
            ("numpy", "height, width, -1)", "-1, height, width)", "np.moveaxis(last, 3, 1)", "last"),
            ("split", "    split = split.permute(0, 3, 4, 1, 2)\n", ""),
        ],
        "cells not split": [
            ("plain", "rows.reshape(", "rows.permute(0, 2, 1).reshape(", "height, width, -1)", "-1, height, width)",
             "last.permute(0, 3, 1, 2)", "last"),
        ],
        "values first": [
            ("split", "0, 3, 4, 1, 2", "0, 4, 3, 1, 2"),
            ("loops", "a * values + v", "v * k + a"),
            ("split", "height, width, k, values)", "height, width, values, k)", "0, 3, 4, 1, 2", "0, 4, 3, 1, 2"),
        ],
        "columns before rows": [
            ("loops", "y * width + x", "x * height + y"),
            ("plain", "height, width, -1", "width, height, -1", "0, 3, 1, 2", "0, 3, 2, 1"),
        ],
        "prior by prior": [
            ("loops", "(y * width + x) * k + a", "(a * height + y) * width + x"),
            ("split", "rows.view(batch, height, width, k, values)", "rows.view(batch, k, height, width, values)",
             "0, 3, 4, 1, 2", "0, 1, 4, 2, 3"),
        ],
        "map on its side": [
            ("plain", "0, 3, 1, 2", "0, 3, 2, 1"),
            ("split", "0, 3, 4, 1, 2", "0, 3, 4, 2, 1"),
            ("numpy", "np.moveaxis(last, 3, 1)", "np.swapaxes(last, 3, 1)"),
        ],
        "channels last": [
            ("plain", "last.permute(0, 3, 1, 2)", "last"),
            ("numpy", "np.moveaxis(last, 3, 1)", "last"),
        ],
        "axes kept apart": [
            ("split", "return split.reshape(batch, k * values, height, width)", "return split"),
            ("split", "    split = split.permute(0, 3, 4, 1, 2)\n", "",
             "return split.reshape(batch, k * values, height, width)", "return split"),
        ],
        "pictures joined": [
            ("plain", "rows.shape[0], ", "1, "),
            ("plain", "rows.shape[0], ", "", "0, 3, 1, 2", "2, 0, 1"),
        ],
    },
    "prior_address": {
        "row for column": [
            ("plain", "cell // side, cell % side", "cell % side, cell // side"),
            ("numpy", "row, column, shape =", "column, row, shape ="),
        ],
        "shapes apart": [
            ("plain", "cell = index // count", "cell = index % (side * side)",
             "index % count", "index // (side * side)"),
            ("numpy", "row, column, shape =", "shape, row, column =",
             "(maps[level], maps[level], per_cell[level])", "(per_cell[level], maps[level], maps[level])"),
        ],
        "shapes forgotten": [
            ("plain", "cell = index // count", "cell = index"),
            ("plain", "cell = index // count", "cell = index", "index % count", "0"),
            ("plain", "cell = index // count", "cell = index", "index % count", "0",
             "side * side * count", "side * side"),
        ],
        "column of numbers": [("plain", "cell % side", "index % side")],
        "start kept": [("numpy", "left = index - starts[level]", "left = index",
                        "np.unravel_index(left, (maps[level], maps[level], per_cell[level]))",
                        "left // per_cell[level] // maps[level], left // per_cell[level] % maps[level], "
                        "left % per_cell[level]")],
        "edge of a level": [
            ("plain", "index < size", "index <= size"),
        ],
        "one row a level": [("plain", "side * side * count", "side * count",
                             "        index -= size", "        if level < len(maps) - 1:\n            index -= size",
                             "index < size", "index < size or level == len(maps) - 1"),
                            ("plain", "side * side * count", "side * count")],
        "levels of cells": [("plain", "side * side * count", "side * side",
                             "index < size", "index < size or level == len(maps) - 1"),
                            ("plain", "side * side * count", "side * side")],
        "numbers from 1": [
            ("plain", "return level,", "return level + 1,"),
            ("listed", "(level, row, column, shape)", "(level + 1, row + 1, column + 1, shape + 1)"),
        ],
    },
}  # fmt: skip
