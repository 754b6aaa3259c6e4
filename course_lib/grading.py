"""The grader: tries a function on the cases of an exercise, shows where it fails, and knows the usual mistakes.

An exercise has a right answer, hidden cases from simple to nasty, and for each known mistake one or more wrong twins of
the right answer. If your function answers the cases as a wrong twin does, you have made its mistake, and get its hint.
"""

import copy
import dis
import io
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import cache, partial
from inspect import getclosurevars, signature
from types import CodeType, FunctionType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.verdicts import Counterexample, Shape, Verdict, rectangles, svg

PATIENCE = 10.0  # seconds for one case


class Mistake(NamedTuple):
    """A wrong turn that people take.

    Attributes:
        hint: what went wrong, in a sentence or two that do not give the code away.
        twins: functions that make it; several where it has several outcomes.
    """

    hint: str
    twins: Sequence[Callable]


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
        tensor: a tensor is asked for, and no list or array of the same numbers.
        tolerance: how far an answer may lie from the right one, relatively and absolutely; the default leaves room
            for the rounding of float32, and for the tiny numbers that people add to a divisor.
        absolute: the same absolutely, where that is another one: 0 where an answer may be tiny and must have its
            digits all the same.
        forbidden: names that an answer must do without, such as "smooth_l1_loss", each with its hint.
    """

    solution: Callable
    cases: Sequence[tuple]
    mistakes: dict[str, Mistake]
    draw: Callable[[dict], list[Shape]] | None = None
    place: Callable[[dict, Tensor], Tensor] | None = None
    returns: tuple[str, ...] = ()
    tensor: bool = False
    tolerance: float = 1e-4
    absolute: float | None = None
    forbidden: dict[str, str] = field(default_factory=dict)

    def named(self, case: tuple) -> dict[str, object]:
        return dict(zip(signature(self.solution).parameters, case, strict=True))

    def close(self, a: Tensor, b: Tensor) -> bool:
        """Whether two answers are the same but for rounding."""
        absolute = self.tolerance if self.absolute is None else self.absolute
        near = {"rtol": self.tolerance, "atol": absolute, "equal_nan": True}
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), **near)


GENERAL_HINTS = {
    "nothing": "The caller gets what follows `return`, and nothing of what is printed.",
    "changed": "The caller still needs it as it was. Work on a copy, or build something new.",
    "nan": "NaN comes from 0 / 0: look for a divisor that can be zero.",
    "kind": "The numbers are right. What goes on with them is PyTorch: make them one tensor.",
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
        operators: names of the operators of PyTorch that ran, where the exercise forbids some.
    """

    value: object = None
    numbers: tuple[Tensor, ...] = ()
    fault: str = ""
    problem: str = ""
    printed: str = ""
    operators: frozenset[str] = frozenset()


def _numbers(value: object) -> Tensor:
    """Numbers, alone or nested in lists, tuples, arrays and tensors, as one tensor."""
    if isinstance(value, list | tuple):
        return torch.stack([_numbers(one) for one in value]) if value else torch.zeros(0)
    tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    if tensor.is_complex():
        raise TypeError("complex")
    return tensor


def _form(tensor: Tensor) -> str:
    kind = "number" if tensor.is_floating_point() else "truth value" if tensor.dtype == torch.bool else "integer"
    return f"{kind}s of shape {list(tensor.shape)}" if tensor.ndim else f"one {kind}"


def _fault(exercise: Exercise, what: str, got: Tensor, expected: Tensor) -> tuple[str, str]:
    """What is wrong with one of the things that came back, as a word and as a sentence; empty where nothing is."""
    other_kind = (got.dtype == torch.bool) != (expected.dtype == torch.bool)
    fractional = got.is_floating_point() and not expected.is_floating_point()
    if got.shape != expected.shape or other_kind or fractional:
        fault = "size" if got.ndim == expected.ndim else "form"
        return fault, f"{what} comes as {_form(got)}; wanted: {_form(expected)}"
    if got.isnan().any():
        return "nan", f"{what} holds NaN, which is no number"
    return ("", "") if exercise.close(got, expected) else ("wrong", f"{what} is wrong")


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


class _Watched(TorchDispatchMode):
    """Notes which operators of PyTorch run, by whatever name they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()

    def __torch_dispatch__(self, operator: Callable, types: object, args: tuple = (), kwargs: dict | None = None):
        self.operators.add(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


def _equal(before: object, after: object) -> bool:
    """Whether an argument is what it was: a tensor, an array, a number, or a list or tuple of such."""
    if type(before) is not type(after):
        return False
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_equal, before, after))
    if isinstance(before, Tensor | np.ndarray) and (before.dtype, before.shape) != (after.dtype, after.shape):
        return False
    alike = (before == after) | ((before != before) & (after != after))  # NaN is like NaN
    return bool(alike.all()) if isinstance(alike, Tensor | np.ndarray) else bool(alike)


def _call(exercise: Exercise, function: Callable, case: tuple) -> Answer:
    """Call a function with a copy of one case, and see whether it comes back with anything."""
    given, named, printed = copy.deepcopy(case), exercise.named(case), io.StringIO()
    watched = _Watched()
    try:
        with (
            _limited(PATIENCE),
            redirect_stdout(printed),
            warnings.catch_warnings(),
            watched if exercise.forbidden else nullcontext(),
        ):
            warnings.simplefilter("ignore")
            value = function(*given)
    except _TooLong:
        return Answer(fault="endless", problem=f"it did not end within {PATIENCE:g} seconds")
    except (Exception, SystemExit) as error:
        return Answer(fault="raised", problem=_raised(error, named), printed=printed.getvalue())
    answer = Answer(value, printed=printed.getvalue(), operators=frozenset(watched.operators))
    for (name, before), after in zip(named.items(), given, strict=True):
        if not _equal(before, after):
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


def right_answer(exercise: Exercise, case: tuple) -> list[Tensor]:
    """What a case is to be answered with: one tensor, or as many as things are returned."""
    expected = exercise.solution(*case)
    return [_numbers(one) for one in (expected if exercise.returns else [expected])]


@cache
def _right(exercise: Exercise, number: int) -> list[Tensor]:
    return right_answer(exercise, exercise.cases[number])


def ask(exercise: Exercise, function: Callable, case: tuple, wanted: Sequence[Tensor] | None = None) -> Answer:
    """Call a function with one case, and judge its answer; `wanted` spares `right_answer`, where that is known."""
    answer = _call(exercise, function, case)
    if answer.fault:
        return answer
    wanted, names = wanted or right_answer(exercise, case), [f"`{name}`" for name in exercise.returns]
    try:
        numbers = _read(answer.value, wanted)
    except (TypeError, ValueError, RuntimeError):
        form = f"({', '.join(exercise.returns)})" if names else _form(wanted[0])
        problem = f"it returns something of type {type(answer.value).__name__} that cannot be read as {form}"
        return answer._replace(fault="unreadable", problem=problem)
    each = zip(names or ["the answer"], numbers, wanted, strict=True)
    faults = [_fault(exercise, *one) for one in each]
    if exercise.tensor and not isinstance(answer.value, Tensor):
        faults.append(("kind", f"the answer is of type {type(answer.value).__name__}; wanted: a tensor"))
    elif exercise.tensor and _form(numbers[0]) != _form(wanted[0]):
        faults.append(("form", f"the answer comes as {_form(numbers[0])}; wanted: {_form(wanted[0])}"))
    if answer.printed:
        faults.append(("printed", "it prints"))
    fault, problem = next(filter(any, faults), ("", ""))
    return answer._replace(numbers=numbers, fault=fault, problem=problem)


def _same(exercise: Exercise, a: Answer, b: Answer) -> bool:
    """Whether two functions did the same; how they put it where they failed does not matter."""
    return a.fault == b.fault and all(exercise.close(x, y) for x, y in zip(a.numbers, b.numbers, strict=True))


@cache
def _twins_answer(exercise: Exercise, number: int, twin: Callable) -> Answer:
    return ask(exercise, twin, exercise.cases[number], _right(exercise, number))


def diagnose(exercise: Exercise, function: Callable, failed: int) -> Mistake | None:
    """The mistake that explains what a function did: one of its twins does the same.

    It must do the same up to the case that failed, and in the next one that it gets wrong itself: a single
    number may be chance. A yes or no says little, so there it must do the same in every case. Of several such
    twins the one that does so in most cases is right, and None where that does not decide.
    """
    every = range(len(exercise.cases))
    answers = []
    for number, case in enumerate(exercise.cases):
        answers.append(ask(exercise, function, case, _right(exercise, number)))
        if answers[-1].fault == "endless":  # no twin is, and the next case might be so too
            return None
    yes_or_no = isinstance(exercise.solution(*exercise.cases[0]), bool)
    alike: dict[int, dict[str, Mistake]] = {}
    for mistake in exercise.mistakes.values():
        for twin in mistake.twins:
            told = [_twins_answer(exercise, number, twin) for number in every]
            same = [_same(exercise, one, answer) for one, answer in zip(told, answers, strict=True)]
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


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of the functions within it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from codes_in(inner)


def names_used(function: Callable) -> set[str]:
    """Names of what a function calls or reads, also within the reader's other functions that it calls.

    `F.relu` is F and relu, and so is a relu that was imported by another name. The reader may call functions as
    they like: the names of those are not among them.
    """
    found, waiting, done = set(), [function], set()
    while waiting:
        one = waiting.pop()
        one = one.func if isinstance(one, partial) else one
        if not isinstance(one, FunctionType):
            found.add(getattr(one, "__name__", type(one).__name__))
        elif one not in done:
            done.add(one)
            attributes, variables = _names_in(one)
            found |= attributes
            for name, value in variables.items():
                if isinstance(value, FunctionType) and value.__globals__ is one.__globals__:
                    waiting.append(value)
                else:
                    found |= {name, getattr(value, "__name__", type(value).__name__)}
    return found


def _names_in(function: FunctionType) -> tuple[set[str], dict[str, object]]:
    """What stands after points and imports in a function's code, and what its other names stand for outside of it."""
    attributes, variables, hidden = set(), {}, getclosurevars(function).nonlocals
    for each in (each for code in codes_in(function.__code__) for each in dis.get_instructions(code)):
        if each.opname == "LOAD_GLOBAL":
            variables[each.argval] = function.__globals__.get(each.argval)
        elif each.opcode in dis.hasfree:
            variables[each.argval] = hidden.get(each.argval)
        elif each.opcode in dis.hasname:
            attributes.add(each.argval)
    return attributes, variables


def grade(name: str, exercise: Exercise, function: Callable) -> Verdict:
    """Try a function on the cases of an exercise, simple ones first, up to the first that fails."""
    total, operators = len(exercise.cases), set()
    for number, case in enumerate(exercise.cases):
        answer = ask(exercise, function, case, _right(exercise, number))
        if answer.fault:
            return _failed(name, exercise, function, number, answer)
        operators |= answer.operators
    used = names_used(function) | operators
    for forbidden, hint in exercise.forbidden.items():
        if forbidden in used:
            return Verdict(name, total, total, f"it uses `{forbidden}`", hint)
    return Verdict(name, total, total)


def _failed(name: str, exercise: Exercise, function: Callable, number: int, answer: Answer) -> Verdict:
    case, fault, mistake = exercise.cases[number], answer.fault, None

    def still_fails(case: tuple) -> bool:
        wanted = right_answer(exercise, case)
        answer = ask(exercise, function, case, wanted)
        if answer.fault != fault or mistake is None:
            return answer.fault == fault
        return any(_same(exercise, ask(exercise, twin, case, wanted), answer) for twin in mistake.twins)

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


def picture(exercise: Exercise, case: tuple, answer: Answer) -> str:
    """The case with what was expected (solid) and what came (dashed), as SVG; empty where nothing is drawn."""
    if exercise.draw is None:
        return ""
    args = exercise.named(case)
    shapes = exercise.draw(args)
    for role, one in (("expected", ask(exercise, exercise.solution, case)), ("got", answer)):
        if exercise.place and one.numbers and one.numbers[0].shape[-1:] == (4,):
            shapes += rectangles(role, role, exercise.place(args, one.numbers[0].float()))
    return svg(shapes)


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
