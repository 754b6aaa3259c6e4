"""Parts of a long check: each is run in a process of its own, and not repeated while nothing it depends on changes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from course_lib.files import write_whole
from tools import notebooks

ROOT = notebooks.ROOT


@dataclass(frozen=True)
class Part:
    """What pytest runs in one go: some tests, or a chapter.

    Attributes:
        key: of everything on which its result depends.
        options: pytest's; for a chapter followed by its notebook.
    """

    name: str
    key: str
    options: list[str]
    notebook: Path | None = None


def chapters() -> list[Part]:
    """The chapters and their further pages: those whose name begins with a number."""
    execute = ["-s", "-p", "tools.live_notebooks", "--nbmake"]
    numbered = [path for path in notebooks.chapters() if path.stem[:2].isdigit()]
    return [Part(path.stem, notebooks.key(path), execute, path.with_suffix(".ipynb")) for path in numbered]


def result(
    part: Part, folder: Path, wanted: dict[str, str], variables: dict[str, str], prefix: Iterable[str] = ()
) -> dict:
    """Whether a part passed and in which time: now, or before, where nothing has changed since it passed.

    Args:
        folder: where results are kept, and the copy of a notebook is executed, of which the outputs are no part of the
            book.
        wanted: what else must be as it was, and is kept with the result.
        variables: of the environment.
        prefix: of the command, such as one that takes the network away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.name.replace(' ', '_')}.json"
    wanted = wanted | {"part": part.name, "key": part.key}
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("passed") and kept.items() >= wanted.items():
        return kept
    print(f"\n{folder.name}: {part.name}", flush=True)
    copies = [str(shutil.copy(part.notebook, folder))] if part.notebook else []
    command = [*prefix, sys.executable, "-m", "pytest", "-q", *part.options, *copies]
    start = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=False).returncode == 0
    record = wanted | {"passed": passed, "seconds": round(time.monotonic() - start, 1)}
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return record


def table(records: list[dict], columns: Iterable[str]) -> str:
    """A line for each result."""
    rows = [tuple(columns)]
    for one in records:
        shown = one | {"": "passed" if one["passed"] else "FAILED", "seconds": f"{one['seconds']:.0f}"}
        rows.append(tuple(shown[column] for column in rows[0]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def tell(records: list[dict], columns: Iterable[str], interrupted: bool) -> int:
    """Print the results; the exit code of the check."""
    print(f"\n{table(records, columns)}")
    if interrupted:
        print("interrupted; the same command goes on from here")
        return 130
    return 0 if all(record["passed"] for record in records) else 1
