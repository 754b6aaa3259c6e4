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
import subprocess
import sys
from dataclasses import dataclass

from tools.parts import ROOT, Part, result, tell
from tools.parts import chapters as every_chapter

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


def parts(fast: bool, workers: int) -> list[Part]:
    # tests/book looks at the built book, which has no kernels.
    tests = ["-n", str(workers), "--ignore", "tests/book", "tests"]
    chapters = [part for part in every_chapter() if not part.name.startswith("00")]
    if fast:
        tests, chapters = (
            ["-m", "not slow", "--hypothesis-profile=quick", *tests],
            [part for part in chapters if part.name == FAST_CHAPTER],
        )
    return [Part("fast tests" if fast else "tests", everything(), tests), *chapters]


def everything() -> str:
    """One hash of all files on which a test may depend."""
    digest = hashlib.sha256()
    patterns = ["*.*", "Makefile", "data/ssd_mini*"]
    patterns += [f"{folder}/**/*.*" for folder in "book course_lib tests tools benchmarks experiments".split()]
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}):
        if "__pycache__" not in path.parts and "vendor" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


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
                wanted = {"variant": variant.name, "processor": here.processor}
                records += [result(part, KEPT / variant.name, wanted, variant.variables)]
    except KeyboardInterrupt:
        interrupted = True
    return tell(records, ("variant", "part", "", "seconds", "processor"), interrupted)


if __name__ == "__main__":
    sys.exit(main())
