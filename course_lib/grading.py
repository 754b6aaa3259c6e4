"""The grader: tries a function on the cases of an exercise, shows where it fails, and knows the usual mistakes.

An exercise has a right answer, hidden cases from simple to nasty, and for each known mistake one or more wrong twins of
the right answer. If your function answers the cases as a wrong twin does, you have made its mistake, and get its hint.
"""

import copy
import io
import math
import re
import reprlib
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from html import escape
from inspect import signature
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib.viz import COLOURS

Box = tuple[float, ...]
Point = tuple[float, float]

LONGEST = 200  # numbers of an array, or characters that were printed: what is longer is not shown
PATIENCE = 10.0  # seconds for one case


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
        problem: what is wrong with the first that failed.
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
        return self.cases == self.total

    def __bool__(self) -> bool:
        return self.passed

    def _title(self) -> str:
        if self.passed:
            return f"all {self.total} cases pass."
        return f"case {self.cases + 1} of {self.total} fails: {self.problem}."

    def _rows(self) -> Iterator[tuple[str, str]]:
        if shown := self.counterexample:
            yield from ((name, _text(value)) for name, value in shown.args.items())
            names = shown.returns
            for role, value in (("expected", shown.expected), ("got", shown.got)):
                if names and isinstance(value, list | tuple) and len(value) == len(names):
                    yield from ((f"{role} {name}", _text(one)) for name, one in zip(names, value, strict=True))
                elif value is not None:
                    yield role, _text(value)
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


def _text(value: object) -> str:
    """Numbers to five digits, and of a matrix a row per line; where there are more axes, the shape too."""
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) > LONGEST:
        return f"{type(value).__name__} of shape {list(value.shape)}"
    if isinstance(value, Tensor | np.ndarray):
        if 0 in value.shape:
            return f"empty, shape {list(value.shape)}"
        return (f"shape {list(value.shape)}\n" if value.ndim > 2 else "") + _text(value.tolist())
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.number | list | tuple):
        return reprlib.repr(value)
    if isinstance(value, list | tuple):
        nested = any(isinstance(one, list | tuple | Tensor | np.ndarray) and np.ndim(one) for one in value)
        return ("\n" if nested else ", ").join(map(_text, value)) or "empty"
    return f"{round(value, 9) + 0.0:.5g}"


class Mistake(NamedTuple):
    """A wrong turn that people take.

    Attributes:
        hint: what went wrong, in a sentence or two that do not give the code away.
        twins: functions that make it; several where it has several outcomes.
    """

    hint: str
    twins: Sequence[Callable]


class Shape(NamedTuple):
    """A closed line in a picture; `role` is one of `LOOKS`."""

    role: str
    label: str
    points: list[Point]


@dataclass(frozen=True, eq=False)
class Exercise:
    """What a reader is asked to write, and all that is known about it.

    Attributes:
        solution: a right answer; its parameters name the arguments.
        cases: arguments, simple ones first. Every mistake shows in one of them, and differs there from the others.
        mistakes: by name.
        draw: from the arguments, by name, to shapes; None: there is nothing to see.
        place: from the arguments and boxes that were returned to the same boxes in the picture's unit.
        returns: the names of the things returned, where they are more than one.
    """

    solution: Callable
    cases: Sequence[tuple]
    mistakes: dict[str, Mistake]
    draw: Callable[[dict], list[Shape]] | None = None
    place: Callable[[dict, Tensor], Tensor] | None = None
    returns: tuple[str, ...] = ()

    def named(self, case: tuple) -> dict[str, object]:
        return dict(zip(signature(self.solution).parameters, case, strict=True))


GENERAL_HINTS = {
    "nothing": "The caller gets what follows `return`, and nothing of what is printed.",
    "changed": "The caller still needs it as it was. Work on a copy, or build something new.",
    "nan": "NaN comes from 0 / 0: look for a divisor that can be zero.",
    "printed": "The answer is right. Leave printing to whoever asks for it.",
    "endless": "A loop goes on for as long as its condition holds. What does each round do to bring the end nearer?",
}


class Answer(NamedTuple):
    """What a function did with one case.

    Attributes:
        value: as it came.
        numbers: the same as tensors, where that can be done.
        fault: a word for what is wrong, empty where nothing is.
        problem: a sentence for it.
    """

    value: object = None
    numbers: tuple[Tensor, ...] = ()
    fault: str = ""
    problem: str = ""
    printed: str = ""


def _numbers(value: object) -> Tensor:
    """Numbers, alone or nested in lists, tuples, arrays and tensors, as one tensor."""
    if isinstance(value, list | tuple):
        return torch.stack([_numbers(one) for one in value]) if value else torch.zeros(0)
    tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    if tensor.is_complex():
        raise TypeError("complex")
    return tensor


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of float32, and to the tiny numbers that people add to a divisor."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-4, equal_nan=True)


def _form(tensor: Tensor) -> str:
    kind = "number" if tensor.is_floating_point() else "truth value" if tensor.dtype == torch.bool else "integer"
    return f"{kind}s of shape {list(tensor.shape)}" if tensor.ndim else f"one {kind}"


def _fault(what: str, got: Tensor, expected: Tensor) -> tuple[str, str]:
    """What is wrong with one of the things that came back, as a word and as a sentence; empty where nothing is."""
    other_kind = (got.dtype == torch.bool) != (expected.dtype == torch.bool)
    fractional = got.is_floating_point() and not expected.is_floating_point()
    if got.shape != expected.shape or other_kind or fractional:
        fault = "size" if got.ndim == expected.ndim else "form"
        return fault, f"{what} comes as {_form(got)}; wanted: {_form(expected)}"
    if got.isnan().any():
        return "nan", f"{what} holds NaN, which is no number"
    return ("", "") if _close(got, expected) else ("wrong", f"{what} is wrong")


def _raised(error: BaseException, names: Iterable[str]) -> str:
    """The error, with the line of the reader's own code that it comes from."""
    message = "".join(traceback.format_exception_only(error)).strip()
    _, *frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return f"called with ({', '.join(names)}), it raises {message}"
    line = [frame.line for frame in frames if frame.filename == frames[0].filename][-1]
    return f"it raises {message}" + (f", in the line `{line}`" if line else "")


class _TooLong(BaseException):
    """A function does not end; it cannot catch this as an `Exception`."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` after some seconds, where that can be done: not on Windows, and in the main thread only."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _call(exercise: Exercise, function: Callable, case: tuple) -> Answer:
    """Call a function with a copy of one case, and see whether it comes back with anything."""
    given, named, printed = copy.deepcopy(case), exercise.named(case), io.StringIO()
    try:
        with _limited(PATIENCE), redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = function(*given)
    except _TooLong:
        return Answer(fault="endless", problem=f"it did not end within {PATIENCE:g} seconds")
    except (Exception, SystemExit) as error:
        return Answer(fault="raised", problem=_raised(error, named), printed=printed.getvalue())
    answer = Answer(value, printed=printed.getvalue())
    for (name, before), after in zip(named.items(), given, strict=True):
        if isinstance(before, Tensor) and not torch.equal(before, after):
            return answer._replace(fault="changed", problem=f"it changes its argument `{name}`")
    return answer if value is not None else answer._replace(fault="nothing", problem="it returns None")


def _read(value: object, wanted: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The parts of an answer as tensors; a TypeError, ValueError or RuntimeError where it is something else."""
    parts = [value] if len(wanted) == 1 else value
    if isinstance(parts, Tensor | np.ndarray) and parts.ndim == 1:  # as many numbers as things
        parts = list(parts)
    if not isinstance(parts, list | tuple) or len(parts) != len(wanted):
        raise TypeError(f"{len(wanted)} things are wanted")
    # An empty list cannot say that it has four columns of nothing.
    return tuple(
        want[:0] if isinstance(part, list | tuple) and not part and want.ndim else _numbers(part)
        for part, want in zip(parts, wanted, strict=True)
    )


def ask(exercise: Exercise, function: Callable, case: tuple) -> Answer:
    """Call a function with one case, and judge its answer."""
    answer = _call(exercise, function, case)
    if answer.fault:
        return answer
    expected, names = exercise.solution(*case), [f"`{name}`" for name in exercise.returns]
    wanted = [_numbers(one) for one in (expected if names else [expected])]
    try:
        numbers = _read(answer.value, wanted)
    except (TypeError, ValueError, RuntimeError):
        form = f"({', '.join(exercise.returns)})" if names else _form(wanted[0])
        problem = f"it returns something of type {type(answer.value).__name__} that cannot be read as {form}"
        return answer._replace(fault="unreadable", problem=problem)
    faults = [_fault(*each) for each in zip(names or ["the answer"], numbers, wanted, strict=True)]
    fault, problem = next(filter(any, faults), ("printed", "it prints") if answer.printed else ("", ""))
    return answer._replace(numbers=numbers, fault=fault, problem=problem)


def _same(a: Answer, b: Answer) -> bool:
    """Whether two functions did the same; how they put it where they failed does not matter."""
    return a.fault == b.fault and all(_close(x, y) for x, y in zip(a.numbers, b.numbers, strict=True))


@cache
def _twins_answer(exercise: Exercise, number: int, twin: Callable) -> Answer:
    return ask(exercise, twin, exercise.cases[number])


def diagnose(exercise: Exercise, function: Callable, failed: int) -> Mistake | None:
    """The mistake that explains what a function did: one of its twins does the same.

    It must do the same up to the case that failed, and in the next one that it gets wrong itself: a single
    number may be chance. A yes or no says little, so there it must do the same in every case. Of several such
    twins the one that does so in most cases is right, and None where that does not decide.
    """
    every = range(len(exercise.cases))
    answers = []
    for case in exercise.cases:
        answers.append(ask(exercise, function, case))
        if answers[-1].fault == "endless":  # no twin is, and the next case might be so too
            return None
    yes_or_no = isinstance(exercise.solution(*exercise.cases[0]), bool)
    alike: dict[int, dict[str, Mistake]] = {}
    for mistake in exercise.mistakes.values():
        for twin in mistake.twins:
            told = [_twins_answer(exercise, number, twin) for number in every]
            same = [_same(one, answer) for one, answer in zip(told, answers, strict=True)]
            next_wrong = [number for number in every if number > failed and told[number].fault][:1]
            if all(same[number] for number in (every if yes_or_no else [*range(failed + 1), *next_wrong])):
                alike.setdefault(sum(same), {})[mistake.hint] = mistake
    best = alike[max(alike)] if alike else {}
    return next(iter(best.values())) if len(best) == 1 else None


def _smaller(case: tuple) -> Iterator[tuple]:
    """The case with one row less, in all ways; one row always stays, and a mask loses the row that it marks."""
    for position, rows in enumerate(case):
        if not isinstance(rows, Tensor) or len(rows) < 2:
            continue
        together = {
            place
            for place, other in enumerate(case)
            if isinstance(other, Tensor) and other.shape == rows.shape and torch.bool in (rows.dtype, other.dtype)
        } | {position}
        for row in range(len(rows)):
            yield tuple(
                torch.cat([one[:row], one[row + 1 :]]) if place in together else one for place, one in enumerate(case)
            )


def shrink(case: tuple, still_fails: Callable[[tuple], bool]) -> tuple:
    """Drop boxes for as long as the case fails."""
    while (smaller := next(filter(still_fails, _smaller(case)), None)) is not None:
        case = smaller
    return case


def grade(name: str, exercise: Exercise, function: Callable) -> Verdict:
    """Try a function on the cases of an exercise, simple ones first, up to the first that fails."""
    for number, case in enumerate(exercise.cases):
        answer = ask(exercise, function, case)
        if answer.fault:
            return _failed(name, exercise, function, number, answer)
    return Verdict(name, len(exercise.cases), len(exercise.cases))


def _failed(name: str, exercise: Exercise, function: Callable, number: int, answer: Answer) -> Verdict:
    case, fault, mistake = exercise.cases[number], answer.fault, None

    def still_fails(case: tuple) -> bool:
        answer = ask(exercise, function, case)
        like_twin = mistake is None or any(_same(ask(exercise, twin, case), answer) for twin in mistake.twins)
        return answer.fault == fault and like_twin

    if fault != "endless":  # who asked again would wait again
        mistake = diagnose(exercise, function, number)
        if fault != "form":  # of which axis is missing a small case says less
            case = shrink(case, still_fails)
        answer = ask(exercise, function, case)
    return Verdict(
        name,
        number,
        len(exercise.cases),
        answer.problem or "it answers the same case in two ways",
        mistake.hint if mistake else GENERAL_HINTS.get(fault),
        Counterexample(exercise.named(case), exercise.solution(*case), answer.value, exercise.returns, answer.printed),
        picture(exercise, case, answer),
    )


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


def picture(exercise: Exercise, case: tuple, answer: Answer) -> str:
    """The case with what was expected (solid) and what came (dashed), as SVG; empty where nothing is drawn."""
    if exercise.draw is None:
        return ""
    args = exercise.named(case)
    shapes = exercise.draw(args)
    for role, one in (("expected", ask(exercise, exercise.solution, case)), ("got", answer)):
        if exercise.place and one.numbers and one.numbers[0].shape[-1:] == (4,):
            shapes += rectangles(role, role, exercise.place(args, one.numbers[0].float()))
    return _svg(shapes)


def _svg(shapes: list[Shape]) -> str:
    """Shapes on white paper, for colours that are seen in any theme; without what came and lies far off."""
    fixed = np.concatenate([shape.points for shape in shapes if shape.role != "got"])
    reach = np.ptp(fixed, axis=0).max()
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


def mistakes(*lines: str | Callable) -> dict[str, Mistake]:
    """A "name: hint" and below it the wrong twins, then the next one."""
    named: dict[str, Mistake] = {}
    for line in lines:
        if isinstance(line, str):
            name, hint = line.split(": ", 1)
            named[name] = Mistake(hint, twins := [])
        else:
            twins.append(line)
    return named
