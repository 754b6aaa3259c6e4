"""The loss that fell and the detector that never learned: what is each repair worth? For chapter 14.

Both runs of the published log, as they are and after each repair, are examined by the doctor and trained for 200 steps
on 240 images of EmojiVOC; 96 held-out ones tell losses, mAP and recall on the way. What is finished is kept in
runs/case_study, so that an interrupted experiment goes on; a state is trained anew when any file of the library has
changed. `python experiments/case_study.py STEPS` tries all states with so few steps, and keeps nothing. Result in
experiments/results/case_study.json.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch

from course_lib import profiles, runs, voc, weights
from course_lib.detect import Detections
from course_lib.doctor import case_study, examine, museum
from course_lib.files import write_whole

RESULT = Path(__file__).parent / "results" / "case_study.json"
STATES = profiles.RUNS / "case_study"
LEARNED_FROM, HELD_OUT = 240, 96
SHOWN = 8  # held-out images whose detections are kept
THIN = 5  # steps whose mean is a point of the loss curve


def states() -> Iterator[tuple[str, int]]:
    """Both runs after none, one, two and all of their repairs."""
    for name in case_study.RUNS:
        for repaired in range(len(case_study.repairs_of(name)) + 1):
            yield name, repaired


def ingredients() -> tuple:
    """Data, held-out data and a trained trunk."""
    profile = profiles.cpu()
    profile.prepare(show_progress=True)
    data = museum.in_memory(profile.training_set(), LEARNED_FROM)
    held_out = museum.in_memory(voc.ImageDataset(profile.test), HELD_OUT)
    return data, held_out, weights.load(profiles.RECORD)


def shown(found: Detections) -> list[list[float]]:
    """The five surest detections of an image: corners, label, score."""
    rows = zip(found.boxes[:5].tolist(), found.labels[:5].tolist(), found.scores[:5].tolist(), strict=True)
    return [[*(round(value, 4) for value in box), label, round(score, 4)] for box, label, score in rows]


def means(losses: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each loss, over some steps."""
    return {name: fmean(one[name] for one in losses) for name in losses[0]}


def trained(name: str, repaired: int, parts: tuple, steps: int | None) -> dict:
    """One state, examined and trained, as it is kept."""
    started = time.process_time()
    repairs = case_study.repairs_of(name)
    learning = name == "A" and repaired in (0, len(repairs)) and steps is None
    report = examine(case_study.run(name, repaired, *parts).patient(), learning=learning)
    run = case_study.train(case_study.run(name, repaired, *parts), steps)
    losses = run["losses"]
    record = {
        "run": name,
        "repaired": [one.name for one in repairs[:repaired]],
        "history": [one | means(losses[max(0, one["step"] - 10) : max(1, one["step"])]) for one in run["measured"]],
        "curve": [sum(means(losses[start : start + THIN]).values()) for start in range(0, len(losses), THIN)],
        "first": sum(losses[0].values()),
        "last": sum(means(losses[-10:]).values()),
        "map": run["measured"][-1]["map"],
        "recall": run["measured"][-1]["recall"],
        "found": [shown(one) for one in run["found"][:SHOWN]],
        "learning": learning,
        "findings": [one.as_dict() for one in report.of("fault", "warning")],
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    seen = [f"{one['severity']} {one['check']}" for one in record["findings"]]
    print(
        f"case_study: {name}, {repaired} repaired: loss {record['first']:.1f} to {record['last']:.2f}, mAP "
        f"{record['map']:.3f}, recall {record['recall']:.3f}; {', '.join(seen) or 'nothing found'}; "
        f"{record['cpu_seconds']} s",
        flush=True,
    )
    return record


def kept(name: str, repaired: int, parts: tuple, state: str) -> dict:
    """A state that was trained with the library as it is now, or a new one."""
    path = STATES / f"{name}{repaired}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("state") != state:
        known = {"state": state, "record": trained(name, repaired, parts, None)}
        STATES.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known) + "\n")
    return known["record"]


def main() -> None:
    torch.set_num_threads(1)
    parts = ingredients()
    if len(sys.argv) > 1:
        for name, repaired in states():
            trained(name, repaired, parts, int(sys.argv[1]))
        return
    environment = runs.environment()
    result = {f"{name}{repaired}": [kept(name, repaired, parts, environment["commit"])] for name, repaired in states()}
    provenance = environment | {
        "cpu_seconds": round(sum(one["cpu_seconds"] for (one,) in result.values())),
        "images": LEARNED_FROM,
        "held_out": HELD_OUT,
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_whole(RESULT, json.dumps({"runs": result, "provenance": provenance}, indent=1) + "\n")
    print(f"case_study: {RESULT}")


if __name__ == "__main__":
    main()
