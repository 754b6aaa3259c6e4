"""A queue of runs that several processes share: each record is kept as it comes, and no run is made twice.

The plan is a function: from the records so far to the names of the runs that are left, the next one first. So it may
depend on results: a rate that was chosen by other runs, more seeds where an interval is wide. A process that starts
asks the file of records, and so goes on wherever another one was interrupted.
"""

import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from course_lib import runs
from course_lib.files import DataError, as_json, write_whole
from course_lib.runs import RunError

Plan = Callable[[list[dict]], Iterable[str]]


def read(results: Path) -> list[dict]:
    """The records of a file, one a line; none where there is no file.

    Raises:
        DataError: a line is no record.
    """
    records = []
    lines = results.read_text().splitlines() if results.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DataError(results, f"line {number}", line[:60], "remove the line: its run is made again") from None
    return records


def keep_record(results: Path, claims: Path, record: dict) -> None:
    """Add a record to the file, whole or not at all; other processes that add one wait.

    Args:
        claims: a folder for the lock.
    """
    with FileLock(claims / f"{results.name}.lock"):
        before = results.read_text() if results.exists() else ""
        results.parent.mkdir(parents=True, exist_ok=True)
        write_whole(results, f"{before}{as_json(record)}\n")


@contextmanager
def claimed(claims: Path, name: str) -> Iterator[bool]:
    """Claim a run for this process; gives whether it got it. The claim ends with the process, however that ends."""
    lock = FileLock(claims / f"{name}.claim")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def missing(names: Callable[[], Sequence[str]]) -> Plan:
    """The plan of a queue whose runs are known beforehand: those that no record has as its "name"."""

    def left(records: list[dict]) -> list[str]:
        there = {one["name"] for one in records}
        return [name for name in names() if name not in there]

    return left


def with_provenance(run: Callable[[str], dict]) -> Callable[[str], dict]:
    """The same run, whose record tells the machine, the day and the commit of the code that this process has read,
    whatever is committed while it runs."""
    commit = runs.commit()
    return lambda name: run(name) | {"provenance": runs.environment() | {"commit": commit}}


def work(results: Path, claims: Path, left: Plan, run: Callable[[str], dict]) -> int:
    """Make the runs that are left and that no other process has claimed, one after the other; gives how many.

    Start it in as many processes as there are cores to spare. A run that raises an error is reported and left out,
    and the others go on.

    Args:
        results: the file of records.
        claims: a folder of this queue alone, for the locks.
        left: the plan. A name is a file's too: letters, digits, dots and hyphens.
        run: from a name to the record that is kept.

    Raises:
        RunError: at the end, where runs have failed, with their names.
    """
    claims.mkdir(parents=True, exist_ok=True)
    made, failed = 0, []
    while (name := attempt_next(results, claims, left, run, failed)) is not None:
        made += name not in failed
    if failed:
        raise RunError(f"{results}: {', '.join(failed)} failed, as told above: mend it, and start again for the rest")
    return made


def attempt_next(results: Path, claims: Path, left: Plan, run: Callable[[str], dict], failed: list[str]) -> str | None:
    """Make the first run that is free, and add it to `failed` where it raises; gives its name, None where none is."""
    for name in left(read(results)):
        if name in failed:
            continue
        with claimed(claims, name) as free:
            if not free or name not in list(left(read(results))):  # made by another process a moment ago
                continue
            try:
                keep_record(results, claims, run(name))
            except Exception:  # whatever a run raises: the night is long, and the others are to go on
                traceback.print_exc()
                failed.append(name)
            return name
    return None
