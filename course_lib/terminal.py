"""The terminal: one line for each thing that is said, whatever is in it, and commands that can be pasted."""

import os
import shlex
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from course_lib import training

console = Console(markup=False, highlight=False, emoji=False)
errors = Console(markup=False, highlight=False, emoji=False, stderr=True)
NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, separators of lines and of paragraphs


def one_line(text: object) -> str:
    r"""A text as a terminal can show it in one line: `\n` for a line break, an escape for what is no character.

    Everything else stays as it is. Bytes of a file's name that are no UTF-8 are surrogates in Python (Cs).
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in NOT_SHOWN else character
        for character in str(text)
    )


def say(text: str) -> None:
    """Print one line, whatever is in it: no markup, no wrapping."""
    console.out(one_line(text))


def complain(kind: str, text: object, style: str = "red") -> None:
    """Print one line on stderr."""
    errors.out(one_line(f"{kind}: {text}"), style=style)


def refuse(reason: str) -> NoReturn:
    """End a command that was called wrongly, before it has written anything."""
    complain("error", reason)
    raise typer.Exit(2)


def command(*arguments: object) -> str:
    """A command of this program as a shell takes it."""
    return " ".join(["python -m course_lib", *map(quoted, arguments)])


def quoted(argument: object) -> str:
    r"""An argument for a shell; one that cannot be shown in a line as bash and zsh write it, `$'a\x0ab'`."""
    text = str(argument)
    if one_line(text) == text:
        return shlex.quote(text)
    plain = [chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in os.fsencode(text)]
    return f"$'{''.join(plain)}'"


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """While a command runs, print each warning for its user once, as one line on stderr."""
    told, usual = set(), warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        if not issubclass(category, (UserWarning, RuntimeWarning)):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in told and training.rank() == 0:
            told.add(str(message))
            complain("warning", message, "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
