"""Which tests `make check` leaves out, by what they cost.

    make test REPORT=report.xml
    python -m tools.dear_tests report.xml ...

reads what the tests of one or several runs took, and writes `tests/dear.txt`: the dearest, so that the others fit into
a budget. Of a function with many cases the first stays where it is cheap: few of the other cases find what it does not.
`tests/conftest.py` marks as `slow` what stands in the file. A new test is fast until it is measured.
"""

import argparse
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path

DEAR = Path(__file__).parent.parent / "tests" / "dear.txt"
BUDGET = 150.0  # seconds of one core of a slow machine, measured with others at work
REST = "[1:]"  # behind a name: its first case is fast


def function_of(test: str) -> str:
    """The name of a test without its case."""
    return re.sub(r"\[.*\]$", "", test, flags=re.DOTALL)


def seconds(report: Path) -> dict[str, list[float]]:
    """What each case of each test function took, in the order of the report; skipped ones are left out."""
    found: dict[str, list[float]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            found.setdefault(function_of(name), []).append(float(case.get("time", 0)))
    return found


def dearest(costs: dict[str, list[float]], budget: float) -> list[str]:
    """The functions that are left out so that the others take no longer than the budget: the cheapest stay."""
    first = [(cases[0], name) for name, cases in costs.items()]
    rest = [(sum(cases), name + REST) for name, cases in costs.items() if len(cases) > 1]
    spent, out = 0.0, []
    # A function's cases cost at least what its first does, so that the first is never left out alone.
    for cost, name in sorted(first + rest):
        whole = cost - costs[function_of(name.removesuffix(REST))][0] if name.endswith(REST) else cost
        spent += whole
        if spent > budget:
            out.append(name)
    without_first = {name for name in out if not name.endswith(REST)}
    return sorted(name for name in out if name.removesuffix(REST) not in without_first or name in without_first)


def slow_ones(tests: Sequence[str], dear: Iterable[str]) -> list[bool]:
    """Whether each test is among the dear ones, of all that are collected, in their order."""
    wholly, begun = set(dear), set()
    found = []
    for test in tests:
        name = function_of(test)
        found.append(name in wholly or (name in begun and name + REST in wholly))
        begun.add(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--budget", type=float, default=BUDGET)
    asked = parser.parse_args()
    costs: dict[str, list[float]] = {}
    for report in asked.reports:
        costs |= seconds(report)
    out = dearest(costs, asked.budget)
    DEAR.write_text("".join(f"{name}\n" for name in out))
    print(f"{DEAR.name}: {len(out)} of {len(costs)} functions, which took {sum(map(sum, costs.values())):.0f} s in all")


if __name__ == "__main__":
    main()
