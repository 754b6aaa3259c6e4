"""A queue of runs: nothing twice, nothing lost, whatever ends when."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from course_lib import queues
from course_lib.files import DataError
from course_lib.runs import RunError

NAMES = [f"run-{number}" for number in range(5)]


def left(records):
    done = {one["name"] for one in records}
    return [name for name in NAMES if name not in done]


@pytest.fixture
def places(tmp_path):
    return tmp_path / "results" / "some.jsonl", tmp_path / "claims"


def test_all_runs_are_made_in_order_and_none_again(places):
    results, claims = places
    assert queues.work(results, claims, left, lambda name: {"name": name}) == 5
    assert [one["name"] for one in queues.read(results)] == NAMES
    assert queues.work(results, claims, left, lambda name: pytest.fail("made again")) == 0


def test_what_is_kept_stays_as_it_was(places):
    results, claims = places
    results.parent.mkdir()
    results.write_text('{"name": "run-0", "by": "hand"}\n')
    queues.work(results, claims, left, lambda name: {"name": name, "value": float("nan")})
    lines = results.read_text().splitlines()
    assert lines[0] == '{"name": "run-0", "by": "hand"}'
    assert [json.loads(line) for line in lines[1:]] == [{"name": name, "value": None} for name in NAMES[1:]]


def test_a_plan_may_grow_with_the_records(places):
    results, claims = places

    def growing(records):
        return [f"run-{len(records)}"] if len(records) < 3 else []

    queues.work(results, claims, growing, lambda name: {"name": name})
    assert [one["name"] for one in queues.read(results)] == NAMES[:3]


def test_a_run_that_somebody_has_claimed_is_left_to_them(places):
    results, claims = places
    claims.mkdir()
    with queues.claimed(claims, "run-2") as mine:
        assert mine
        with queues.claimed(claims, "run-2") as again:
            assert not again
        assert queues.work(results, claims, left, lambda name: {"name": name}) == 4
    assert left(queues.read(results)) == ["run-2"]


def test_a_run_that_fails_is_named_at_the_end_and_the_others_are_made(places, capsys):
    results, claims = places

    def run(name):
        if name == "run-1":
            raise ZeroDivisionError("by design")
        return {"name": name}

    with pytest.raises(RunError, match="run-1 failed"):
        queues.work(results, claims, left, run)
    assert left(queues.read(results)) == ["run-1"] and "by design" in capsys.readouterr().err
    assert queues.work(results, claims, left, lambda name: {"name": name}) == 1


def test_a_line_that_is_no_record_is_named(places):
    results, _ = places
    results.parent.mkdir()
    results.write_text('{"name": "run-0"}\nnonsense\n')
    with pytest.raises(DataError, match="line 2 is 'nonsense'"):
        queues.read(results)


PROGRAM = """
import sys, time
from pathlib import Path
from course_lib import queues
folder, number = Path(sys.argv[1]), sys.argv[2]
NAMES = [f"run-{n}" for n in range(12)]

def left(records):
    done = {one["name"] for one in records}
    return [name for name in NAMES if name not in done]

def run(name):
    (folder / f"{name}.begun-by-{number}").touch()
    while number == "killed":
        time.sleep(0.05)
    return {"name": name, "by": number}

queues.work(folder / "r.jsonl", folder / "claims", left, run)
"""


def started(folder, number, root):
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), number], env=environment)


@pytest.mark.slow
def test_processes_share_a_queue_and_the_claim_of_a_killed_one_is_free(tmp_path, root):
    killed = started(tmp_path, "killed", root)
    while not list(tmp_path.glob("*.begun-by-killed")):
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    killed.wait()
    assert not (tmp_path / "r.jsonl").exists()
    both = [started(tmp_path, number, root) for number in ("1", "2")]
    assert [one.wait() for one in both] == [0, 0]
    names = [one["name"] for one in queues.read(tmp_path / "r.jsonl")]
    assert sorted(names) == sorted(f"run-{number}" for number in range(12))  # each, and none twice


def test_what_is_missing_has_no_record_and_a_record_tells_where_it_was_made():
    left = queues.missing(lambda: ["a", "b", "c"])
    assert left([{"name": "b"}]) == ["a", "c"] and left([]) == ["a", "b", "c"]
    record = queues.with_provenance(lambda name: {"name": name})("a")
    assert record["name"] == "a" and {"commit", "date", "device"} <= record["provenance"].keys()
