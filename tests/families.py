"""Tests of one family, of which `make check` or `make test` runs a few."""

from collections.abc import Iterable, Iterator

import pytest


def slow_but(fast: Iterable[object], family: Iterable[object]) -> Iterator[object]:
    """The cases of a family, one argument each; all that are not in `fast` are slow."""
    return marked(pytest.mark.slow, fast, family)


def weekly_but(usual: Iterable[object], family: Iterable[object]) -> Iterator[object]:
    """The cases of a family, one argument each; `make test` leaves out all that are not in `usual`."""
    return marked(pytest.mark.weekly, usual, family)


def marked(mark: pytest.MarkDecorator, often: Iterable[object], family: Iterable[object]) -> Iterator[object]:
    often = [*often]
    for case in family:
        yield case if case in often else pytest.param(case, marks=mark)
