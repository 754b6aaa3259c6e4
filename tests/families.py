"""Tests of one family, of which `make check` runs a few, and `make test` and CI all."""

from collections.abc import Iterable, Iterator

import pytest


def slow_but(fast: Iterable[object], family: Iterable[object]) -> Iterator[object]:
    """The cases of a family, one argument each; all that are not in `fast` are slow."""
    fast = [*fast]
    for case in family:
        yield case if case in fast else pytest.param(case, marks=pytest.mark.slow)
