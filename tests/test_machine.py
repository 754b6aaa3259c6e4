import gc
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_lib import machine


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"sys/fs/cgroup/cpu.max": "unreadable"}, math.inf),
        # Not in a name space of its own: the group's folder is named, and those above it count too.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3.0),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
    ],
)
def test_a_containers_share_of_time_is_read(tmp_path, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert machine.quota(tmp_path) == cores


@pytest.mark.parametrize(
    ("allowed", "quota", "processes", "cores", "spare"),
    [
        (64, math.inf, 1, 64, 63),
        (64, math.inf, 4, 64, 15),  # 63 workers for each of four processes, once
        (1, math.inf, 4, 1, 1),
        (1, math.inf, 1, 1, 1),
        (64, 2.0, 1, 2, 1),
        (64, 0.5, 1, 1, 1),
        (8, 3.9, 1, 3, 2),
        (2, 16.0, 1, 2, 1),
    ],
)
def test_workers_are_for_the_cores_that_a_process_may_use(monkeypatch, allowed, quota, processes, cores, spare):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "quota", lambda: quota)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert (machine.cores(), machine.spare_cores()) == (cores, spare)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process to a core")
def test_a_process_on_one_core_says_one():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from course_lib import machine; "
    done = subprocess.run([sys.executable, "-c", f"{code}print(machine.cores())"], capture_output=True, check=True)
    assert done.stdout == b"1\n"


def test_where_nothing_limits_shared_memory_it_is_infinite(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED", tmp_path / "none")
    assert machine.shared_memory() == math.inf
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=12))
    assert machine.shared_memory() == 12


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc names no open files here")
def test_the_files_that_may_still_be_opened_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5000, 9000))
    gc.collect()  # what other tests have left to it may hold files
    before = machine.files_left()
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        assert machine.files_left() == before - 2 < 5000
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert machine.files_left() == math.inf
