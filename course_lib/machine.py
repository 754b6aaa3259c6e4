"""What the machine, or the container on it, lets this process use: cores, shared memory, open files."""

import math
import os
import resource
import shutil
from pathlib import Path

SHARED = Path("/dev/shm")


def cores() -> int:
    """The cores that this process may use: those of its affinity, and no more than its container's share of time."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, math.floor(min(quota(), affinity))))


def quota(root: Path = Path("/")) -> float:
    """How many cores' time the control groups of this process grant; infinite where none of them limits it.

    Args:
        root: where `proc` and `sys` are.

    Source: cpu.max of https://docs.kernel.org/admin-guide/cgroup-v2.html, and cpu.cfs_quota_us of version 1.
    """
    groups = root / "sys/fs/cgroup"
    own = [line.removeprefix("0::/") for line in lines_of(root / "proc/self/cgroup") if line.startswith("0::/")]
    folder = groups / own[0] if own else groups
    limits = [line.split() for above in (folder, *folder.parents) for line in lines_of(above / "cpu.max")]
    limits.append(lines_of(groups / "cpu/cpu.cfs_quota_us") + lines_of(groups / "cpu/cpu.cfs_period_us"))
    granted = [limit for limit in limits if len(limit) == 2 and limit[0].isdecimal()]  # not "max", not "-1"
    return min((int(time) / int(period) for time, period in granted), default=math.inf)


def lines_of(path: Path) -> list[str]:
    """A file's lines; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def processes() -> int:
    """How many processes of this training there are on this machine: torchrun says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def spare_cores() -> int:
    """The cores that are left for workers of this process, beside its own; at least one."""
    return max(1, cores() // processes() - 1)


def shared_memory() -> float:
    """Bytes that are free for what processes share; infinite where the system has no limit of its own for them."""
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return math.inf


def files_left() -> float:
    """How many more files this process may open: `ulimit -n`, less those that are open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        return limit - len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return limit - 32
