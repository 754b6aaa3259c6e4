"""Which checks of the doctor catch which fault, and which raise a false alarm? For chapter 13.

Every exhibit of the bug museum and every healthy control is put together anew and examined, whole. On EmojiVOC, 96
images to learn from and 32 held out; controls on real data take part where VOC_REAL and PHOTOS name folders. Each
report is kept in runs/doctor_matrix when it is made, so that an interrupted run goes on; a report is made anew when
any file of the library has changed. `python experiments/doctor_matrix.py NAME ...` examines some, prints their reports
and keeps nothing. Result in experiments/results/doctor_matrix.json.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from course_lib import profiles, runs, voc, weights
from course_lib.doctor import Patient, controls, examine, museum
from course_lib.files import write_whole

RESULT = Path(__file__).parent / "results" / "doctor_matrix.json"
REPORTS = profiles.RUNS / "doctor_matrix"
LEARNED_FROM, HELD_OUT = 96, 32


def planted(exhibit: museum.Exhibit, healthy: Callable[[], museum.Setup]) -> Patient:
    setup = healthy()
    exhibit.plant(setup)
    return setup.patient()


def patients() -> Iterator[tuple[str, str, Callable[[], Patient]]]:
    """ "exhibits" or "controls", a name, and what puts the patient together."""
    profile, trunk = profiles.cpu(), weights.load(profiles.RECORD)
    profile.prepare(show_progress=True)
    data = museum.in_memory(profile.training_set(), LEARNED_FROM)
    held_out = museum.in_memory(voc.ImageDataset(profile.test), HELD_OUT)
    for name, exhibit in museum.EXHIBITS.items():
        yield "exhibits", name, partial(planted, exhibit, lambda: museum.healthy(data, held_out, trunk))
    for name, control in controls.CONTROLS.items():
        yield "controls", name, lambda control=control: control(data, held_out, trunk).patient()
    on_real = controls.ON_REAL_DATA
    if folder := os.environ.get("VOC_REAL"):
        tree = Path(folder) / "VOCdevkit" / "VOC2007"
        yield "controls", "pictures", lambda: on_real["pictures"](tree, trunk).patient()
    if folder := os.environ.get("PHOTOS"):
        photographs = Path(folder) / "VOCdevkit" / "VOC2012"
        yield "controls", "photographs", lambda: on_real["photographs"](photographs).patient()


def examined(name: str, make: Callable[[], Patient]) -> dict:
    """A report as it is kept."""
    started = time.perf_counter()
    report = examine(make())
    seconds = time.perf_counter() - started
    print(f"doctor_matrix: {name}: {report.verdict()}, {seconds:.1f} s", flush=True)
    return report.as_dict() | {"total_seconds": round(seconds, 1)}


def kept(name: str, make: Callable[[], Patient], state: str) -> dict:
    """A report that was made with the library as it is now, or a new one."""
    path = REPORTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("state") != state:
        known = {"state": state, "report": examined(name, make)}
        REPORTS.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known) + "\n")
    return known["report"]


def main() -> None:
    torch.set_num_threads(1)
    wanted = set(sys.argv[1:])
    if wanted:
        for _, name, make in patients():
            if name in wanted:
                print(f"--- {name}\n{examine(make())}", flush=True)
        return
    environment = runs.environment()
    result: dict[str, dict] = {"exhibits": {}, "controls": {}}
    for kind, name, make in patients():
        result[kind][name] = kept(name, make, environment["commit"])
    seconds = sum(report["total_seconds"] for reports in result.values() for report in reports.values())
    result["provenance"] = environment | {"seconds": round(seconds)}
    RESULT.parent.mkdir(exist_ok=True)
    write_whole(RESULT, json.dumps(result) + "\n")
    print(f"doctor_matrix: {RESULT}")


if __name__ == "__main__":
    main()
