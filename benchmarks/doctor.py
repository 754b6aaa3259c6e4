"""What the doctor costs: all annotations of VOC2007 and of the photographs, and the profile `cpu` before it trains.

Each examination is made in a process of its own, so that nothing is remembered from the one before; they take turns,
and the seconds are medians: of the whole process, of the checks that only look, and of those that train. The real data
takes part where VOC_REAL and PHOTOS name folders. `--rounds 1` only tries it, and writes nothing. Result in
benchmarks/results/doctor.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from course_lib import checkup, profiles, runs
from course_lib.doctor import Patient, Report, examine
from course_lib.doctor.examination import every_check
from course_lib.files import write_whole
from course_lib.voc import image_sets

THREADS, ROUNDS = 2, 3


def voc_annotations(devkit: Path) -> AbstractContextManager[Patient]:
    return nullcontext(checkup.of_annotations(image_sets(devkit, "2007", ["trainval", "test"])))


def photograph_annotations(devkit: Path) -> AbstractContextManager[Patient]:
    known = checkup.own(devkit / "VOC2012")
    return nullcontext(checkup.of_annotations(known.train, known.select))


def cpu_profile(_: Path) -> AbstractContextManager[Patient]:
    return checkup.of_profile(profiles.cpu())


PATIENTS = {
    "voc_annotations": voc_annotations,
    "photograph_annotations": photograph_annotations,
    "cpu_profile": cpu_profile,
}


def devkits(folder: Path) -> dict[str, Path]:
    """Where each patient's data is; VOC2007's annotations are unpacked into a folder."""
    known = {"cpu_profile": folder}
    if real := os.environ.get("VOC_REAL"):
        with tarfile.open(Path(real) / "VOC2007-annotations.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        known["voc_annotations"] = folder
    if photographs := os.environ.get("PHOTOS"):
        known["photograph_annotations"] = Path(photographs) / "VOCdevkit"
    return known


def told(report: Report) -> dict:
    """What is kept of a report: its counts, its notes in words, and how long its checks took."""
    training = {one.name for one in every_check() if one.learning}
    seconds = {False: 0.0, True: 0.0}
    for name, value in report.seconds.items():
        seconds[name in training] += value
    return {
        "verdict": report.verdict(),
        "findings": [f"{one.severity} {one.check}: {one.seen}" for one in report.findings],
        "static_seconds": seconds[False],
        "learning_seconds": seconds[True],
    }


def once(name: str, devkit: Path) -> None:
    """In a process of its own: examine, and print what is kept."""
    torch.set_num_threads(THREADS)
    with PATIENTS[name](devkit) as patient:
        print(json.dumps(told(examine(patient))))


def measured(name: str, devkit: Path) -> dict:
    command = [sys.executable, __file__, "--patient", name, str(devkit)]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - started}


def main(rounds: int | None) -> None:
    profiles.cpu().prepare()
    with tempfile.TemporaryDirectory() as folder:
        known = devkits(Path(folder))
        taken: dict[str, list[dict]] = {name: [] for name in known}
        for _ in range(rounds or ROUNDS):
            for name, devkit in known.items():
                taken[name].append(measured(name, devkit))
                print(f"{name}: {taken[name][-1]['seconds']:.1f} s, {taken[name][-1]['verdict']}", flush=True)
    result: dict = {"threads": THREADS, "rounds": rounds or ROUNDS}
    for name, those in taken.items():
        medians = {key: statistics.median(one[key] for one in those) for key in those[0] if key.endswith("seconds")}
        result[name] = those[-1] | medians
    result["provenance"] = runs.environment()
    if rounds or len(known) < len(PATIENTS):
        print("a trial: nothing is written")
        return
    write_whole(Path(__file__).parent / "results" / "doctor.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--patient", nargs=2, metavar=("NAME", "DEVKIT"), help="examine this one here")
    asked = parser.parse_args()
    if asked.patient:
        once(asked.patient[0], Path(asked.patient[1]))
    else:
        main(asked.rounds)
