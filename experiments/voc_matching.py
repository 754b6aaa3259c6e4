"""Who gets a prior in VOC2007 trainval, by the original's rule and by shortcuts, for chapter 6.

Reads the annotations (no image) from VOC2007-annotations.tar.xz in the folder VOC_REAL, or from data/VOCdevkit.
Result in experiments/results/voc_matching.json.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from annotations import voc2007
from torch import Tensor

from course_lib import boxes, matching, priors, runs, voc
from course_lib.files import write_whole

RESULT = Path(__file__).parent / "results" / "voc_matching.json"
THRESHOLD = 0.5
DRAWS = 20  # an indexed write names no winner: so many times one is drawn
SHOWN = 3  # images with the most losses that are named
PRIORS = priors.SSD300.boxes()
CORNERS = boxes.to_corners(PRIORS)


def by_threshold(iou: Tensor) -> Tensor:
    overlap, best_object = iou.max(dim=0)
    return best_object.masked_fill(overlap < THRESHOLD, -1)


def last_wins(iou: Tensor) -> Tensor:
    """As in ssd.pytorch: each object in turn takes its best prior, whoever has it."""
    owner = by_threshold(iou)
    for number, prior in enumerate(iou.argmax(dim=1).tolist()):
        owner[prior] = number
    return owner


def indexed_write(iou: Tensor) -> Tensor:
    """As in torchvision: one write for all objects. PyTorch does not say which of two equal indices wins."""
    owner = by_threshold(iou)
    owner[iou.argmax(dim=1)] = torch.arange(len(iou))
    return owner


def drawn(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """An indexed write in which chance decides."""

    def rule(iou: Tensor) -> Tensor:
        owner, best = by_threshold(iou), iou.argmax(dim=1)
        for number in torch.randperm(len(iou), generator=generator).tolist():
            owner[best[number]] = number
        return owner

    return rule


def greedy(objects: Tensor, labels: Tensor) -> Tensor:
    return matching.match(objects[None], labels[None], PRIORS, THRESHOLD).gt_index[0]


def counted(owner: Tensor, objects: int) -> Tensor:
    """Priors per object."""
    return torch.bincount(owner[owner >= 0], minlength=objects)


def crowd(annotation: voc.Annotation, iou: Tensor, lost: list[int]) -> dict:
    """Who goes without, and who has the prior that they want, by class."""
    best, names = iou.argmax(dim=1), [voc.VOC_CLASSES[label - 1] for label in annotation.labels.tolist()]
    wanted = {best[one].item() for one in lost}
    winners = [number for number in range(len(iou)) if best[number].item() in wanted and number not in lost]
    return {
        "image_id": annotation.image_id,
        "objects": len(iou),
        "lost": sorted(names[one] for one in lost),
        "winners": sorted(names[one] for one in winners),
    }


def measured(annotations: list[voc.Annotation]) -> dict:
    draws = [drawn(torch.Generator().manual_seed(seed)) for seed in range(DRAWS)]
    rules = {"threshold only": by_threshold, "last wins": last_wins, "indexed write": indexed_write}
    lost = {"greedy": {}, **{name: {} for name in rules}}
    lost_by_chance = [0] * DRAWS
    positives, offsets, crowds, shared = [], [], [], 0
    for annotation in annotations:
        objects, labels = annotation.boxes, annotation.labels
        iou = boxes.box_iou(objects, CORNERS)
        owner = greedy(objects, labels)
        shared += len(iou) - len(iou.argmax(dim=1).unique())
        for name, found in {"greedy": owner, **{name: rule(iou) for name, rule in rules.items()}}.items():
            without = (counted(found, len(iou)) == 0).nonzero()[:, 0].tolist()
            if without:
                lost[name][annotation.image_id] = len(without)
            if without and name == "last wins":
                crowds.append(crowd(annotation, iou, without))
        for number, rule in enumerate(draws):
            lost_by_chance[number] += int((counted(rule(iou), len(iou)) == 0).sum())
        positives.append(counted(owner, len(iou)))
        known = owner >= 0
        offsets.append(boxes.encode(objects[owner[known]], PRIORS[known], (1.0, 1.0)))
    per_object, raw = torch.cat(positives), torch.cat(offsets).double()
    variances = torch.tensor([0.1, 0.1, 0.2, 0.2], dtype=torch.float64)
    spread = {
        name: {"mean": some.mean(dim=0).tolist(), "std": some.std(dim=0).tolist()}
        for name, some in (("raw", raw), ("scaled", raw / variances))
    }
    crowds.sort(key=lambda one: (-len(one["lost"]), one["image_id"]))
    return {
        "images": len(annotations),
        "objects": len(per_object),
        "priors": len(PRIORS),
        "threshold": THRESHOLD,
        "sharing_a_best_prior": shared,
        "objects_without": {name: sum(images.values()) for name, images in lost.items()},
        "objects_without_by_chance": [min(lost_by_chance), max(lost_by_chance)],
        "images_with_losses": {name: images for name, images in lost.items() if name != "threshold only"},
        "positives_per_object": torch.bincount(per_object).tolist(),
        "positives_share": per_object.sum().item() / len(PRIORS) / len(annotations),
        "offsets": spread,
        "crowds": crowds[:SHOWN],
    }


def main() -> None:
    if RESULT.exists():
        return
    with voc2007() as devkit:
        if devkit is None:
            print("voc_matching: skipped, no annotations of VOC2007 here")
            return
        annotations = voc.read_annotations(devkit, "2007", "trainval")
    started = time.monotonic()
    result = measured(annotations)
    seconds = round(time.monotonic() - started, 1)
    result["provenance"] = runs.environment() | {"seconds": seconds}
    RESULT.parent.mkdir(exist_ok=True)
    write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    print(f"voc_matching: {RESULT}")


if __name__ == "__main__":
    main()
