"""What lets VGG converge on pictures of 32 pixels, and by how much? For chapter 16.

Every piece of published advice is an arm: a `convergence.Plan` that differs from the baseline in the field that the
advice is about. Pictures are the objects of EmojiVOC, cut out; CIFAR-10 itself where the environment variable CIFAR10
names its folder `cifar-10-batches-py`, and the objects of photographs where PHOTOS names a folder with a tree. Each
arm is trained from three seeds, seed by seed, so that an interrupted queue is a whole experiment with fewer seeds.

Start it in as many processes as there are cores to spare: they share the queue. Each run is a line of
experiments/results/convergence.jsonl, with its provenance; what is there is not made again.
`python experiments/convergence.py NAME ...` makes some runs and prints them, and keeps nothing.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from course_lib import convergence, crops, files, profiles, queues, voc
from course_lib.convergence import AUGMENTATIONS, INITIALISATIONS, NORMS, Plan

RESULTS = Path(__file__).parent / "results" / "convergence.jsonl"
CLAIMS = profiles.RUNS / "convergence"
SEEDS = (0, 1, 2)
BASE = Plan()
LOOKED_AT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 400, 800)  # steps
PUBLISHED = ("crop", "flip", "rotation", "jitter")


def arms() -> dict[str, Plan]:
    """What is trained, by name."""
    found = {"baseline": BASE}
    for start in INITIALISATIONS:
        for norm in NORMS:
            found[f"{start.replace(' ', '-')}-norm-{norm}"] = replace(BASE, initialisation=start, norm=norm)
    found |= {f"alone-{name}": replace(BASE, augmentation=(name,)) for name in AUGMENTATIONS}
    found |= {
        "no-augmentation": replace(BASE, augmentation=()),
        "augmentation-as-published": replace(BASE, augmentation=PUBLISHED),
        "all-augmentation": replace(BASE, augmentation=tuple(AUGMENTATIONS)),
    }
    for pixels in ("cifar10", "unit", "raw"):
        for norm in ("before", "none"):
            found[f"pixels-{pixels}-norm-{norm}"] = replace(BASE, normalisation=pixels, norm=norm)
    schedules = {"plateau": "plateau", "cyclical": "triangular2", "cosine": "warmup_cosine", "step-drops": "step_drops"}
    found |= {f"{name}": replace(BASE, schedule=schedule) for name, schedule in schedules.items()}
    found |= {f"adam-{rate}": replace(BASE, learning_rate=float(rate)) for rate in ("1e-5", "1e-4", "1e-2", "1e-1")}
    for rate in ("1e-2", "3e-2", "1e-1"):
        found[f"sgd-{rate}"] = replace(BASE, optimizer="sgd", learning_rate=float(rate), weight_decay=5e-4)
        found[f"sgd-{rate}-cosine"] = replace(found[f"sgd-{rate}"], schedule="warmup_cosine")
    found["adamw-1e-3"] = replace(BASE, optimizer="adamw", weight_decay=1e-2)
    found["adamw-1e-3-cosine"] = replace(found["adamw-1e-3"], schedule="warmup_cosine")
    for norm in NORMS:
        found[f"sgd-norm-{norm}-clipped"] = replace(found["sgd-3e-2"], norm=norm, clip_norm=1.0)
        found[f"cosine-norm-{norm}"] = replace(BASE, norm=norm, schedule="warmup_cosine")
    unlike = {plan: name for name, plan in reversed(found.items())}  # of two names for one plan the first stays
    return {name: plan for plan, name in reversed(unlike.items())}


# Those that are made on real pictures too, for the record.
ON_REAL = (
    "baseline", "no-augmentation", "all-augmentation", "cosine", "plateau", "cyclical", "sgd-3e-2", "adam-1e-2",
    "he-norm-after", "he-norm-none", *(f"too-{size}-norm-{norm}" for size in ("small", "large") for norm in NORMS),
    "pytorch-norm-none", "xavier-norm-none", "pixels-raw-norm-none", "pixels-cifar10-norm-before",
)  # fmt: skip


@cache
def emoji() -> crops.Problem:
    profile = profiles.cpu()
    profile.prepare(show_progress=True)
    return crops.of_objects(voc.ImageDataset(profile.train), voc.ImageDataset(profile.test))


@cache
def photographs() -> crops.Problem:
    tree = Path(os.environ["PHOTOS"]) / "VOCdevkit" / "VOC2012"
    return crops.of_objects(*(voc.ImageDataset([voc.ImageSet(tree, name)]) for name in ("train", "val")))


@cache
def cifar10() -> crops.Problem:
    return crops.read_cifar10(os.environ["CIFAR10"])


def problems() -> dict[str, Callable[[], crops.Problem]]:
    """Those whose pictures are here."""
    real = {"photographs": ("PHOTOS", photographs), "cifar10": ("CIFAR10", cifar10)}
    return {"emoji": emoji} | {name: make for name, (variable, make) in real.items() if os.environ.get(variable)}


def names() -> list[str]:
    """All runs: problem, arm and seed; the seeds of everything one after the other."""
    plans = arms()
    some = [(problem, [arm for arm in plans if problem == "emoji" or arm in ON_REAL]) for problem in problems()]
    return [f"{problem}.{arm}.{seed}" for seed in SEEDS for problem, chosen in some for arm in chosen]


def run(name: str) -> dict:
    """Train one, and give its record."""
    problem, arm, seed = name.split(".")
    pictures, plan = problems()[problem](), arms()[arm]
    record = convergence.train_classifier(plan, pictures, int(seed), LOOKED_AT if seed == "0" else ())
    print(f"convergence: {name}: accuracy {record['accuracy']:.3f}, {record['seconds']} s", flush=True)
    about = {"name": name, "problem": problem, "arm": arm, "pictures": [len(part) for part in pictures]}
    return about | files.plain(rounded(record))


def rounded(value: object) -> object:
    """The same with four digits of every number: what more there is would be noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:]:
        for name in sys.argv[1:]:
            print(files.as_json(run(name)))
        return

    made = queues.work(RESULTS, CLAIMS, queues.missing(names), queues.with_provenance(run))
    print(f"convergence: {made} runs; {RESULTS}")


if __name__ == "__main__":
    main()
