"""Detectors that differ in their loss alone, trained and measured alike; asks no question of its own.

The recipe is the one that the cpu profile had when the first of them was recorded, spelled out here so that it
stays; the backbone was pretrained on other crops then (commit 70884afeea6a). A row that is added later is trained by
that code, in a branch that starts there, as "no-focus" was (commit 3e54e6002eea). Runs of one seed share the
pretrained backbone, the heads' first weights, the order of the images and their augmentation. What is finished is not
trained again, and a run that was interrupted goes on.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from course_lib import emoji_voc, losses, metrics, profiles, runs, training
from course_lib.boxes import area
from course_lib.detect import Detections
from course_lib.files import write_whole
from course_lib.ssd import SSD
from course_lib.voc import Annotation, ImageDataset

SEEDS = (0, 1, 2)
RECIPE = training.Recipe(
    epochs=4,
    batch_size=8,
    optimizer="adamw",
    learning_rate=2e-3,
    backbone_factor=0.2,
    warmup_steps=100,
    evaluate_every=1,
    frozen_blocks=2,
)
PRETRAINING_STEPS = 1200
RESULTS = Path(__file__).parent / "results"
RUNS = profiles.RUNS / "experiments"


@dataclass(frozen=True)
class Contestant:
    """A loss, and what is done to a fresh model before it is trained with it."""

    loss: Callable
    prepare: Callable[[SSD], None] = lambda model: None


MULTIBOX = Contestant(losses.MultiBoxLoss())


def sides(annotation: Annotation, image_size: int) -> torch.Tensor:
    """Of the objects: the side of a square of the same area, pixels of the network's input."""
    return area(annotation.boxes).sqrt() * image_size


def by_size(truth: list[Annotation], image_size: int) -> tuple[list[float], dict[str, list[Annotation]]]:
    """The ground truth three times, each time with the objects of two size groups marked difficult.

    Gives also the two limits, by which each group has a third of the objects that count. A detection
    where nothing is counts against every group.
    """
    counted = torch.cat([sides(one, image_size)[~one.difficult] for one in truth])
    low, high = counted.quantile(torch.tensor([1 / 3, 2 / 3])).tolist()
    limits = {"small": (0, low), "medium": (low, high), "large": (high, float("inf"))}
    groups: dict[str, list[Annotation]] = {name: [] for name in limits}
    for one in truth:
        for name, (smallest, too_large) in limits.items():
            outside = (sides(one, image_size) < smallest) | (sides(one, image_size) >= too_large)
            groups[name].append(replace(one, difficult=one.difficult | outside))
    return [low, high], groups


def scored(found: list[Detections], truth: list[Annotation], image_size: int) -> dict:
    """mAP on all objects and on parts of them, and how many detections are sure of themselves."""
    limits, sizes = by_size(truth, image_size)
    parts = {"all": truth, **emoji_voc.split_by_emoji(truth), **sizes}
    return {
        "map": {name: metrics.evaluate_voc(found, part).mean_ap for name, part in parts.items()},
        "size_limits": limits,
        "sure_per_image": sum(int((one.scores > 0.5).sum()) for one in found) / len(found),
    }


def run_once(profile: profiles.Profile, name: str, contestant: Contestant, seed: int) -> dict:
    """Train one detector, or find it trained, and measure its last weights on the test set."""
    run = RUNS / f"{name}-{seed}"
    result = run / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    print(f"{name}, seed {seed}", flush=True)
    model = profile.start(RUNS / f"start-{seed}", seed)
    contestant.prepare(model)
    trainer = training.Trainer(
        model,
        profile.training_set(),
        profile.training_transform(),
        replace(RECIPE, seed=seed),
        run,
        evaluate=profile.selector(),
        loss=contestant.loss,
        workers=profile.workers,
    )
    history = trainer.fit()
    truth = ImageDataset(profile.test).annotations()
    measured = scored(profile.detections(model, profile.test), truth, profile.spec.image_size)
    record = {"seed": seed, **measured, "history": history, "provenance": trainer.progress.provenance()}
    write_whole(result, json.dumps(record) + "\n")
    return record


def compare(question: str, contestants: Mapping[str, Contestant]) -> None:
    """Train each contestant from each seed, but for those that results/<question>.json has; the result is there."""
    path = RESULTS / f"{question}.json"
    recorded = json.loads(path.read_text())["runs"] if path.exists() else {}
    if recorded.keys() == contestants.keys():
        return
    profile = replace(profiles.cpu(), pretraining_steps=PRETRAINING_STEPS)
    profile.prepare(show_progress=True)
    trained: dict[str, list[dict]] = {name: recorded.get(name, []) for name in contestants}
    missing = [name for name in contestants if name not in recorded]
    for seed in SEEDS:
        for name in missing:
            trained[name].append(run_once(profile, name, contestants[name], seed))
    seconds = sum(run["provenance"]["seconds"] for some in trained.values() for run in some)
    provenance = runs.environment() | {"seconds": round(seconds)}
    RESULTS.mkdir(exist_ok=True)
    write_whole(path, json.dumps({"runs": trained, "provenance": provenance}, indent=1) + "\n")
    print(f"{question}: {path}")
