"""Keep a finished run of the cpu profile as the book's full run: python tools/record_run.py runs/full

Writes data/ssd_mini.safetensors (16-bit), data/ssd_mini.json (provenance, history, measured AP) and the
picture that README and the book open with.
"""

import json
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from course_lib import commands_evaluate, detect, profiles, runs, viz, voc, weights
from course_lib.files import write_whole

PICTURE = profiles.ROOT / "book" / "_static" / "detections.png"
SHOWN = (7, 14, 21, 40, 44, 46)  # test images; chosen by number, before any detector had seen them


def draw_opening_picture(model: torch.nn.Module, profile: profiles.Profile) -> None:
    test = voc.ImageDataset(profile.test)
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axis, index in zip(figure.subplots(2, 3).ravel(), SHOWN, strict=True):
        image, _ = test[index]
        viz.draw_detections(axis, image, detect.detect_image(model, image))
        axis.axis("off")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


def main(run: Path) -> None:
    provenance = runs.read_provenance(run)
    if not provenance["finished"] or provenance.get("profile") != "cpu":
        sys.exit(f"{run} is not a finished run of the cpu profile")
    weights.save(weights.load(run / "best.safetensors"), profiles.RECORD, torch.float16)
    report = commands_evaluate.evaluate_run(run, commands_evaluate.Method.area)
    record = {"provenance": provenance, "evaluation": report, "history": runs.read_history(run)}
    write_whole(profiles.RECORD.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    draw_opening_picture(weights.load(profiles.RECORD), profiles.cpu())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
