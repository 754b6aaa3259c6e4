"""How well priors cover VOC2007: the best IoU of every ground truth, for chapter 4, which shows it beside its own data.

Reads the annotations (no image) from VOC2007-annotations.tar.xz in the folder VOC_REAL, or from data/VOCdevkit.
Result in experiments/results/voc_coverage.json.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from annotations import voc2007
from torch import Tensor

from course_lib import boxes, priors, runs, voc
from course_lib.files import write_whole

RESULT = Path(__file__).parent / "results" / "voc_coverage.json"

# Side: of a square of equal area, as a share of the image's, in steps of the square root of two. Aspect: width to
# height in the stretched image. Coverage: best IoU.
EDGES = {
    "side": [0.0, *(round(0.05 * 2 ** (step / 2), 4) for step in range(9)), 1.0],
    "aspect": [0.0, *(round(2 ** (step / 2), 4) for step in range(-4, 5)), 1000.0],
    "coverage": [step / 10 for step in range(11)],
}
# The maps of a published log, which come of pooling that rounds down and a stride that is missing:
# github.com/adrirubio/ml-rover, as of April 2025.
PUBLISHED = replace(
    priors.SSD300, maps=(37, 18, 18, 9, 5, 2), steps=tuple(300 / side for side in (37, 18, 18, 9, 5, 2))
)


def clipped_corners(priors_cxcywh: Tensor) -> Tensor:
    return boxes.to_cxcywh(boxes.to_corners(priors_cxcywh).clamp(0, 1))


def clipped_sizes(priors_cxcywh: Tensor) -> Tensor:
    return torch.cat([priors_cxcywh[:, :2], priors_cxcywh[:, 2:].clamp(0, 1)], dim=1)


SETS = {
    "ssd300": priors.SSD300.boxes(),
    "1:3 and 3:1 on the first map": replace(priors.SSD300, ratios=((2, 3), *priors.SSD300.ratios[1:])).boxes(),
    "sizes clipped": clipped_sizes(priors.SSD300.boxes()),
    "centres and sizes clipped": priors.SSD300.boxes().clamp(0, 1),
    "corners clipped": clipped_corners(priors.SSD300.boxes()),
    "published maps": PUBLISHED.boxes(),
    "published maps, corners clipped": clipped_corners(PUBLISHED.boxes()),
}


def histogram(objects: Tensor, covered: Tensor) -> list:
    """Objects by side, aspect and coverage."""
    width, height = (objects[:, 2:] - objects[:, :2]).double().T
    sample = np.stack([(width * height).sqrt(), width / height, covered.double()], axis=1)
    return np.histogramdd(sample, list(EDGES.values()))[0].astype(int).tolist()


def main() -> None:
    if RESULT.exists():
        return
    with voc2007() as devkit:
        if devkit is None:
            print("voc_coverage: skipped, no annotations of VOC2007 here")
            return
        started = time.monotonic()
        annotations = [a for name in ("trainval", "test") for a in voc.read_annotations(devkit, "2007", name)]
    objects = torch.cat([annotation.boxes for annotation in annotations])
    sets = {}
    for name, some in SETS.items():
        covered = priors.coverage(objects, some)
        sets[name] = {
            "priors": len(some),
            "mean": round(covered.double().mean().item(), 4),
            "counts": histogram(objects, covered),
        }
    seconds = round(time.monotonic() - started, 1)
    result = {"images": len(annotations), "objects": len(objects), "edges": EDGES, "sets": sets}
    result["provenance"] = runs.environment() | {"seconds": seconds}
    RESULT.parent.mkdir(exist_ok=True)
    write_whole(RESULT, json.dumps(result) + "\n")
    print(f"voc_coverage: {RESULT}")


if __name__ == "__main__":
    main()
