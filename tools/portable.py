"""The tests and the chapters with the kernels of other processors, so that they hold on machines that are not here.

    python -m tools.portable             every variant: all tests, and each chapter but the one that trains
    python -m tools.portable --fast      the first variant: the fast tests and chapter 3

torch, oneDNN and MKL choose their code by the processor; variables make them choose that of an older one, and sums
come out in another order. A finished part is kept in .portable, and not repeated while nothing that it depends on
has changed.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from course_lib.files import write_whole
from tools import notebooks

ROOT = notebooks.ROOT
KEPT = ROOT / ".portable"
FAST_CHAPTER = "03_backbone"


@dataclass(frozen=True)
class Machine:
    """The processor, and what chooses its kernels."""

    processor: str
    x86: bool
    avx2: bool
    mkl: bool


@dataclass(frozen=True)
class Variant:
    """Variables that choose kernels; `needs_avx2` where an older processor cannot run what they choose."""

    name: str
    variables: dict[str, str]
    needs_avx2: bool = False

    def without_meaning(self, machine: Machine) -> list[str]:
        """The variables that nothing reads on a machine."""
        unread = {"ONEDNN_MAX_CPU_ISA": not machine.x86, "ATEN_CPU_CAPABILITY": not machine.x86}
        return [name for name in self.variables if unread.get(name, name.startswith("MKL_") and not machine.mkl)]

    def left_out(self, machine: Machine) -> str:
        """Why it cannot be had on a machine; empty where it can."""
        if self.needs_avx2 and not machine.avx2:
            return "the processor has no AVX2"
        if len(self.without_meaning(machine)) == len(self.variables):
            return "its variables mean nothing on this machine"
        return ""

    def __str__(self) -> str:
        return f"{self.name}: {' '.join(f'{name}={value}' for name, value in self.variables.items())}"


VARIANTS = (
    Variant("no-avx", {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1"}),
    Variant(
        "avx2",
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        needs_avx2=True,
    ),
    Variant("mkl-compatible", {"MKL_CBWR": "COMPATIBLE"}),
)

PROBE = """
import json, torch
from course_lib.runs import processor
print(json.dumps([processor(), torch.backends.cpu.get_cpu_capability(), torch.backends.mkl.is_available()]))
"""


def machine() -> Machine:
    """As torch sees it when nothing tells it otherwise."""
    chosen = {name for variant in VARIANTS for name in variant.variables}
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    processor, capability, mkl = json.loads(done.stdout)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return Machine(processor, x86, x86 and capability.startswith(("AVX2", "AVX512")), mkl)


@dataclass(frozen=True)
class Part:
    """What is run in one go: all tests, the fast ones, or a chapter.

    Attributes:
        key: of everything on which its result depends.
        options: pytest's; for a chapter followed by its notebook.
    """

    name: str
    key: str
    options: list[str]
    notebook: Path | None = None


def parts(fast: bool, workers: int) -> list[Part]:
    # tests/book looks at the built book, which has no kernels.
    tests = ["-n", str(workers), "--ignore", "tests/book", "tests"]
    chapters = [path for path in notebooks.chapters() if path.stem[:2].isdigit() and path.stem[:2] != "00"]
    if fast:
        tests, chapters = ["-m", "not slow", *tests], [path for path in chapters if path.stem == FAST_CHAPTER]
    execute = ["-s", "-p", "tools.live_notebooks", "--nbmake"]
    return [
        Part("fast tests" if fast else "tests", everything(), tests),
        *(Part(path.stem, notebooks.key(path), execute, path.with_suffix(".ipynb")) for path in chapters),
    ]


def everything() -> str:
    """One hash of all files on which a test may depend."""
    digest = hashlib.sha256()
    patterns = ["*.*", "Makefile", "data/ssd_mini*"]
    patterns += [f"{folder}/**/*.*" for folder in "book course_lib tests tools benchmarks experiments".split()]
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}):
        if "__pycache__" not in path.parts and "vendor" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def result(variant: Variant, part: Part, machine: Machine) -> dict:
    """Whether a part passed and in which time: now, or before, where nothing has changed since it passed."""
    folder = KEPT / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.name.replace(' ', '_')}.json"
    wanted = {"variant": variant.name, "part": part.name, "key": part.key, "processor": machine.processor}
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("passed") and kept.items() >= wanted.items():
        return kept
    print(f"\n{variant.name}: {part.name}", flush=True)
    # A copy, of which the outputs are no part of the book.
    copies = [str(shutil.copy(part.notebook, folder))] if part.notebook else []
    command = [sys.executable, "-m", "pytest", "-q", *part.options, *copies]
    environment = os.environ | variant.variables
    start = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
    record = wanted | {"passed": passed, "seconds": round(time.monotonic() - start, 1)}
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return record


def table(records: list[dict]) -> str:
    rows = [("variant", "part", "", "seconds", "processor")]
    for one in records:
        outcome = "passed" if one["passed"] else "FAILED"
        rows.append((one["variant"], one["part"], outcome, f"{one['seconds']:.0f}", one["processor"]))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="the first variant alone: fast tests, chapter 3")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the tests")
    arguments = parser.parse_args()
    here, records, interrupted = machine(), [], False
    try:
        for variant in VARIANTS[:1] if arguments.fast else VARIANTS:
            if reason := variant.left_out(here):
                print(f"{variant}: left out, {reason}", flush=True)
                continue
            unread = variant.without_meaning(here)
            print(f"{variant}{f' (without meaning on this machine: {unread})' if unread else ''}", flush=True)
            for part in parts(arguments.fast, arguments.workers):
                records += [result(variant, part, here)]
    except KeyboardInterrupt:
        interrupted = True
    print(f"\n{table(records)}")
    if interrupted:
        print("interrupted; the same command goes on from here")
        return 130
    return 0 if all(record["passed"] for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
