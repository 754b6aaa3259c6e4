"""How a verdict is shown: as text and as HTML, with the case that failed, and that case drawn."""

import math
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from torch import Tensor

from course_lib.viz import COLOURS

Box = tuple[float, ...]
Point = tuple[float, float]

DIGITS, ALL_DIGITS = 5, 9  # of a number
LONGEST = 200  # numbers of an array, or characters that were printed: what is longer is not shown


@dataclass(frozen=True)
class Counterexample:
    """A small case that fails.

    Attributes:
        args: by name.
        expected, got: what should have come, and what came (None where nothing did).
        returns: the names of the things returned, where they are more than one.
    """

    args: dict[str, object]
    expected: object
    got: object
    returns: tuple[str, ...] = ()
    printed: str = ""


@dataclass(frozen=True, repr=False)
class Verdict:
    """How a function did. It is true where all cases pass.

    Attributes:
        exercise: its name.
        cases: how many cases passed before the first that failed.
        total: how many there are.
        problem: what is wrong with the first that failed, or with an answer that passes them all in a forbidden way.
        hint: what to think about; None where all is well or the mistake is not a known one.
        counterexample: the case that failed, made smaller where it can be.
        picture: the counterexample drawn, as SVG.
    """

    exercise: str
    cases: int
    total: int
    problem: str = ""
    hint: str | None = None
    counterexample: Counterexample | None = None
    picture: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem

    def __bool__(self) -> bool:
        return self.passed

    def _title(self) -> str:
        if self.passed:
            return f"all {self.total} cases pass."
        if self.cases == self.total:
            return f"all {self.total} cases pass, but {self.problem}."
        return f"case {self.cases + 1} of {self.total} fails: {self.problem}."

    def _rows(self) -> Iterator[tuple[str, str]]:
        if shown := self.counterexample:
            yield from ((name, _text(value)) for name, value in shown.args.items())
            names, alike = shown.returns, _text(shown.expected) == _text(shown.got)
            digits = ALL_DIGITS if alike else DIGITS  # a small difference must be seen
            for role, value in (("expected", shown.expected), ("got", shown.got)):
                if names and isinstance(value, list | tuple) and len(value) == len(names):
                    each = zip(names, value, shown.expected, strict=True)
                    yield from ((f"{role} {name}", _beside(one, wanted, digits)) for name, one, wanted in each)
                elif value is not None:
                    yield role, _beside(value, shown.expected, digits)
            if shown.printed:
                yield "printed", shown.printed.rstrip()[:LONGEST]

    def __str__(self) -> str:
        lines = [f"{'✓' if self else '✗'} {self.exercise}: {self._title()}"]
        for name, text in self._rows():
            lines += [f"  {left:14s}  {line}" for left, line in zip_longest([name], text.splitlines(), fillvalue="")]
        return "\n".join([*lines, f"Hint: {self.hint}"] if self.hint else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        state, colour = ("passed", COLOURS[2]) if self else ("failed", COLOURS[5])
        cell = "text-align:left;vertical-align:top;padding:.1rem .8rem .1rem 0;white-space:pre-wrap"
        rows = "".join(
            f'<tr style="background:none"><th scope="row" style="{cell}">{escape(name)}</th>'
            f'<td style="{cell};font-family:monospace">{escape(text)}</td></tr>'
            for name, text in self._rows()
        )
        return (
            f'<div class="check check-{state}" style="border-left:.3rem solid {colour};padding:.1rem 0 .1rem 1rem">'
            f"<p>{'✓' if self else '✗'} <strong>{escape(self.exercise)}</strong>: {_marked(self._title())}</p>"
            + (f"<p><strong>Hint:</strong> {_marked(self.hint)}</p>" if self.hint else "")
            + self.picture
            + (f'<table style="color:inherit;border:none;margin:.5rem 0">{rows}</table>' if rows else "")
            + "</div>"
        )


def _marked(text: str) -> str:
    """As HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _beside(value: object, expected: object, digits: int) -> str:
    """A value as it is shown beside the expected one: where that is a whole number, a float shows its point."""
    text, pointless = _text(value, digits), isinstance(expected, int) and isinstance(value, float)
    return f"{text}.0" if pointless and text == _text(expected, digits) else text


def _text(value: object, digits: int = DIGITS) -> str:
    """Numbers to some digits, and of a matrix a row per line; where there are more axes, the shape too."""
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) > LONGEST:
        return f"{type(value).__name__} of shape {list(value.shape)}"
    if isinstance(value, Tensor | np.ndarray):
        if 0 in value.shape:
            return f"empty, shape {list(value.shape)}"
        return (f"shape {list(value.shape)}\n" if value.ndim > 2 else "") + _text(value.tolist(), digits)
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.number | list | tuple):
        return reprlib.repr(value)
    if isinstance(value, list | tuple):
        nested = any(isinstance(one, list | tuple | Tensor | np.ndarray) and np.ndim(one) for one in value)
        return ("\n" if nested else ", ").join(_text(one, digits) for one in value) or "empty"
    # What rounding leaves of a 0 is shown as 0, but where two numbers look alike and are not.
    return f"{(round(value, 9) if digits < ALL_DIGITS else value) + 0.0:.{digits}g}"


class Shape(NamedTuple):
    """A closed line in a picture; `role` is one of `LOOKS`."""

    role: str
    label: str
    points: list[Point]


# Colour, dashes, and where the label goes: at which share of the width and of the height.
LOOKS = {
    "frame": ("#000", "", (0.5, 1)),
    "a": (COLOURS[4], "", (0, 0)),
    "b": (COLOURS[5], "", (1, 1)),
    "expected": (COLOURS[2], "", (1, 0)),
    "got": (COLOURS[6], "7 4", (0, 1)),
}
SIDE, MARGIN = 300, 16  # pixels
LETTER, LINE = 6.5, 13  # pixels of a label: about the width of a letter, and the height of a line


def corners(box: Sequence[float]) -> list[Point]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def rectangle(role: str, label: str, box: Sequence[float]) -> Shape:
    return Shape(role, label, corners(box))


def rectangles(role: str, label: str, boxes: Tensor) -> list[Shape]:
    """One for each box that can be drawn, numbered where there are several."""
    shapes = []
    for index, box in enumerate(boxes.reshape(-1, 4)):
        name = f"{label}[{index}]" if boxes.numel() > 4 else label
        if (box[:2] > box[2:]).any():
            name += ", reversed"
        if box.isfinite().all():
            shapes.append(rectangle(role, name, box.tolist()))
    return shapes


def svg(shapes: list[Shape]) -> str:
    """Shapes on white paper, for colours that are seen in any theme; without what came and lies far off."""
    fixed = np.array([point for shape in shapes if shape.role != "got" for point in shape.points])
    reach = np.ptp(fixed, axis=0).max() if len(fixed) else 0
    if reach == 0:
        return ""
    lowest, highest = fixed.min(axis=0) - reach, fixed.max(axis=0) + reach
    seen = [one for one in shapes if (lowest <= one.points).all() and (one.points <= highest).all()]
    points = np.concatenate([shape.points for shape in seen])
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    scale = SIDE / size.max()
    width, height = size * scale + 2 * MARGIN
    in_pixels = [shape._replace(points=(np.array(shape.points) - low) * scale + MARGIN) for shape in seen]
    alt = "; ".join(f"{shape.label}: {' '.join(f'({x:.5g}, {y:.5g})' for x, y in shape.points)}" for shape in seen)
    lost = "<p>What came lies outside this picture.</p>" if len(seen) < len(shapes) else ""
    return (
        f'<svg role="img" aria-label="Corners of {escape(alt)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" style="max-width:100%;height:auto;background:#fff;border-radius:.25rem" '
        f'font-size="12" fill="#000">{"".join(map(_outline, in_pixels))}{_labels(in_pixels)}</svg>{lost}'
    )


def _outline(shape: Shape) -> str:
    colour, dashes, _ = LOOKS[shape.role]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    return f'<polygon points="{points}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"/>'


def _labels(shapes: list[Shape]) -> str:
    """Each in that corner of its shape that the fewest others reach, its role's before the others.

    Where something is written already it goes below that, and a line behind it is interrupted.
    """
    texts, taken = [], []
    bounds = [(np.min(shape.points, axis=0), np.max(shape.points, axis=0)) for shape in shapes]
    for shape, (low, high) in zip(shapes, bounds, strict=True):
        length = LETTER * len(shape.label)
        # Whatever holds the whole shape holds its label anyway.
        others = [(a, b) for a, b in bounds if (a > low).any() or (b < high).any()]
        right, down = LOOKS[shape.role][2]
        places = []
        for h, v in ((right, down), (1 - right, down), (right, 1 - down), (1 - right, 1 - down)):
            x = low[0] + 4 + h * (high[0] - low[0] - 8 - length)
            y = low[1] + LINE + v * (high[1] - low[1] - LINE - 5)
            reached = [a[0] < x + length and x < b[0] and a[1] < y and y - LINE < b[1] for a, b in others]
            places.append((sum(reached), len(places), x, y))
        *_, x, y = min(places)
        while any(abs(y - above) < LINE and x < end and begin < x + length for above, begin, end in taken):
            y += LINE
        taken.append((y, x, x + length))
        texts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}" stroke="#fff" stroke-width="3" '
            f'paint-order="stroke">{escape(shape.label)}</text>'
        )
    return "".join(texts)
