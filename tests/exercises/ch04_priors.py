"""Answers to the exercises of chapter 4, right and wrong: priors."""

import inspect

from course_lib.exercises import ch04_priors

PRIOR_COUNT = {
    "plain": inspect.getsource(ch04_priors.prior_count),
    "sum": """
        def prior_count(maps, per_cell):
            return sum(side ** 2 * count for side, count in zip(maps, per_cell))
    """,
    "numpy": """
        def prior_count(maps, per_cell):
            cells = np.array(maps) ** 2
            return (cells * np.array(per_cell)).sum()
    """,
}

NEAREST_CELL = {
    "plain": inspect.getsource(ch04_priors.nearest_cell),
    "numpy": """
        def nearest_cell(x, y, step, side):
            cell = np.floor(np.array([y, x]) / step).astype(int)
            return tuple(np.clip(cell, 0, side - 1))
    """,
    "rounded": """
        def nearest_cell(x, y, step, side):
            return [min(round(place / step - 0.5), side - 1) for place in (y, x)]
    """,
    "search": """
        def nearest_cell(x, y, step, side):
            def far(row, column):
                return math.hypot((column + 0.5) * step - x, (row + 0.5) * step - y)

            return min(((row, column) for row in range(side) for column in range(side)), key=lambda cell: far(*cell))
    """,
}

PRIOR_SHAPES = {
    "plain": inspect.getsource(ch04_priors.prior_shapes),
    "expanded": """
        def prior_shapes(side, next_side, ratios):
            larger = (side * next_side) ** 0.5
            wide = [max(ratio, 1 / ratio) for ratio in ratios if ratio != 1]
            wide = list(dict.fromkeys(wide))
            every = [r for ratio in wide for r in (ratio, 1 / ratio)]
            return [(side, side), (larger, larger)] + [(side * r ** 0.5, side / r ** 0.5) for r in every]
    """,
    "torch": """
        def prior_shapes(side, next_side, ratios):
            wide = []
            for ratio in ratios:
                if all(abs(one - other) > 1e-6 for one in (ratio, 1 / ratio) for other in [1, *wide]):
                    wide.append(max(ratio, 1 / ratio))
            r = torch.tensor([ratio for one in wide for ratio in (one, 1 / one)])
            squares = torch.tensor([side, math.sqrt(side * next_side)])[:, None].repeat(1, 2)
            stretched = torch.stack([side * r.sqrt(), side / r.sqrt()], dim=1)
            return torch.cat([squares, stretched])
    """,
}

RIGHT = {"prior_count": PRIOR_COUNT, "nearest_cell": NEAREST_CELL, "prior_shapes": PRIOR_SHAPES}

WRONG = {
    "prior_count": {
        "not squared": [("plain", "side * side", "side"), ("numpy", " ** 2", "")],
        "cells only": [("plain", " * count", ""), ("numpy", " * np.array(per_cell)", "")],
        "sums multiplied": [
            ("numpy", "(cells * np.array(per_cell)).sum()", "cells.sum() * sum(per_cell)"),
            ("sum", "sum(side ** 2 * count for side, count in zip(maps, per_cell))", "sum(maps) ** 2 * sum(per_cell)"),
        ],
        "priors squared": [
            ("sum", "side ** 2 * count", "side * count ** 2"),
            ("sum", "side ** 2 * count", "(side * count) ** 2"),
        ],
        "one level": [("plain", "    return total", "        return total"), ("plain", "total +=", "total =")],
        "numbers of a box": [("plain", "* count", "* count * 4"), ("numpy", "** 2", "** 2 * 4")],
        "rows and columns added": [("plain", "side * side", "(side + side)"), ("numpy", " ** 2", " * 2")],
        "one level's priors": [
            ("plain", "* count", "* per_cell[0]"),
            ("numpy", "np.array(per_cell)", "per_cell[-1]"),
        ],
        "not summed": [("numpy", ".sum()", ""), ("sum", "sum(side", "list(side")],
    },
    "nearest_cell": {
        "row and column exchanged": [
            ("plain", "return row, column", "return column, row"),
            ("numpy", "[y, x]", "[x, y]"),
            ("search", "step - x", "step - z", "step - y", "step - x", "step - z", "step - y"),
        ],
        "nearest corner": [
            ("plain", "int(y // step)", "round(y / step)", "int(x // step)", "round(x / step)"),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "round(place / step)"),
            ("search", "(column + 0.5)", "column", "(row + 0.5)", "row"),
        ],
        "last centre before": [
            ("rounded", "round(", "int("),
            ("numpy", " / step)", " / step - 0.5)"),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "int(place / step - 0.5)"),
        ],
        "cells from 1": [
            ("plain", "return row, column", "return row + 1, column + 1"),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "math.ceil(place / step)"),
            ("rounded", "round(place / step - 0.5)", "math.ceil(place / step)"),
        ],
        "beyond the map": [
            ("rounded", "min(round(place / step - 0.5), side - 1)", "int(place / step)"),
            ("plain", "(y // step), side - 1)", "(y // step), side)", "(x // step), side - 1)", "(x // step), side)"),
        ],
        "cut off first": [
            ("plain", "int(y // step)", "int(y) // int(step)", "int(x // step)", "int(x) // int(step)"),
            ("numpy", "np.array([y, x]) / step", "np.array([y, x]).astype(int) / int(step)"),
        ],
        "cell before the first": [
            ("plain", "int(y // step)", "math.ceil(y / step) - 1", "int(x // step)", "math.ceil(x / step) - 1"),
            ("numpy", "np.floor(np.array([y, x]) / step)", "(np.ceil(np.array([y, x]) / step) - 1)",
             "np.clip(cell, 0, side - 1)", "np.minimum(cell, side - 1)"),
        ],
        "place of the centre": [
            ("plain", "return row, column", "return (row + 0.5) * step, (column + 0.5) * step"),
        ],
        "no integers": [
            ("plain", "int(y // step)", "y // step", "int(x // step)", "x // step"),
            ("numpy", ".astype(int)", ""),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "place // step"),
        ],
    },
    "prior_shapes": {
        "mean of the sides": [
            ("plain", "math.sqrt(side * next_side)", "(side + next_side) / 2"),
            ("torch", "math.sqrt(side * next_side)", "0.5 * side + 0.5 * next_side"),
        ],
        "next side itself": [
            ("plain", "math.sqrt(side * next_side)", "next_side"),
            ("expanded", "(larger, larger)", "(next_side, next_side)"),
        ],
        "no root": [("plain", "math.sqrt(ratio)", "ratio"), ("expanded", "r ** 0.5", "r")],
        "one side stretched": [
            ("plain", "math.sqrt(ratio)", "ratio", "side / root))", "side))", "(side / root, ", "(side, "),
            ("torch", "side * r.sqrt(), side / r.sqrt()", "side * r, torch.full_like(r, side)"),
        ],
        "all squares": [
            ("expanded", "side / r ** 0.5", "side * r ** 0.5"),
            ("torch", "side / r.sqrt()", "side * r.sqrt()"),
        ],
        "inverse left out": [
            ("plain", "        shapes.append((side / root, side * root))\n", ""),
            ("expanded", "in (ratio, 1 / ratio)", "in (ratio,)"),
        ],
        "same box twice": [
            ("plain", "(side / root, side * root)", "(side * root, side / root)"),
            ("expanded", "in (ratio, 1 / ratio)", "in (ratio, ratio)"),
        ],
        "tall one first": [
            ("expanded", "in (ratio, 1 / ratio)", "in (1 / ratio, ratio)"),
            ("torch", "side * r.sqrt(), side / r.sqrt()", "side / r.sqrt(), side * r.sqrt()"),
        ],
        "inverses last": [
            ("expanded", "[r for ratio in wide for r in (ratio, 1 / ratio)]",
             "[*wide] + [1 / ratio for ratio in wide]"),
        ],
        "larger square elsewhere": [
            ("plain", "[(side, side), (larger, larger)]", "[(larger, larger), (side, side)]"),
            ("plain", "(side, side), (larger, larger)", "(side, side)",
             "return shapes", "return shapes + [(larger, larger)]"),
        ],
        "larger square left out": [
            ("plain", ", (larger, larger)", ""),
            ("torch", "[side, math.sqrt(side * next_side)]", "[side]"),
        ],
        "larger one stretched": [
            ("plain", "(side * root, side / root)", "(larger * root, larger / root)",
             "(side / root, side * root)", "(larger / root, larger * root)"),
            ("expanded", "(side * r ** 0.5, side / r ** 0.5)", "(larger * r ** 0.5, larger / r ** 0.5)"),
        ],
        "ratios as listed": [
            ("expanded", "[max(ratio, 1 / ratio) for ratio in ratios if ratio != 1]", "ratios"),
            ("expanded", "max(ratio, 1 / ratio)", "ratio"),
            ("plain", "ratio = 1 / ratio\n", "pass\n"),
            ("expanded", "    wide = list(dict.fromkeys(wide))\n", "    wide = ratios\n"),
        ],
        "boxes twice": [
            ("expanded", "    wide = list(dict.fromkeys(wide))\n", ""),
            ("plain", "        done.append(ratio)\n", ""),
            ("plain", "        done.append(ratio)\n", "", "[1]", "[]"),
        ],
        "ratio of 1": [("expanded", " if ratio != 1", ""), ("torch", "[1, *wide]", "wide")],
        "ratios below 1 left out": [
            ("expanded", "max(ratio, 1 / ratio)", "ratio", "ratio != 1", "ratio > 1"),
            ("plain", "ratio = 1 / ratio\n", "continue\n"),
        ],
        "sorted": [
            ("expanded", "list(dict.fromkeys(wide))", "sorted(set(wide))"),
            ("expanded", "list(dict.fromkeys(wide))", "sorted(set(wide), reverse=True)"),
        ],
        "fractions": [("plain", "return shapes", "return [(w / 300, h / 300) for w, h in shapes]")],
        "root of the side": [
            ("plain", "side * root", "math.sqrt(side * ratio)", "side / root", "math.sqrt(side / ratio)"),
        ],
    },
}  # fmt: skip
