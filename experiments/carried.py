"""Do the effects of chapter 15 hold elsewhere? The largest five, and two that are small for sure, on larger trainings.

`ssd_mini` on EmojiVOC at its 160 pixels, three seeds from one trunk that has learned to name crops; and `ssd_lite0` on
photographs, from ImageNet's weights, two seeds of some eight minutes on two cores, where PHOTOS names a folder with a
tree. Which changes are carried over is read from experiments/results/advice.jsonl: see `advice.to_carry`.

Start it in as many processes as there are cores to spare: they share the queue. Each run is a line of
experiments/results/carried.jsonl, with its provenance; what is there is not made again.
`python experiments/carried.py STEPS [NAME ...]` tries runs with so few steps, and keeps nothing.
"""

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from course_lib import advice, arms, augment, profiles, queues, runs, ssd, trials, voc
from course_lib.doctor.setups import InMemory

ADVICE = Path(__file__).parent / "results" / "advice.jsonl"
RESULTS = Path(__file__).parent / "results" / "carried.jsonl"
RUNS = profiles.RUNS / "carried"
HELD_OUT, TEST = 64, 512  # images
ENLARGED = 1.5  # what is kept of an image, for the zoom in augmentation, in sides of what the network sees


@dataclass(frozen=True)
class World:
    """Where effects are carried to.

    Attributes:
        scale: of the training.
        profile: its pictures, and the trunk that all runs start from.
        seeds: of each change.
    """

    scale: arms.Scale
    profile: profiles.Profile
    seeds: tuple[int, ...]


@cache
def worlds() -> dict[str, World]:
    """Those whose pictures are here."""
    cpu = profiles.cpu()
    found = {"mini": World(arms.Scale(ssd.ssd_mini, cpu.recipe, steps=240, images=1000), cpu, (0, 1, 2))}
    if folder := os.environ.get("PHOTOS"):
        tree = Path(folder) / "VOCdevkit" / "VOC2012"
        photos = profiles.photos((voc.ImageSet(tree, "train"),), test=(voc.ImageSet(tree, "val"),))
        images = len(photos.training_set())
        scale = arms.Scale(ssd.ssd_lite0, photos.recipe, 540, images, augment.training_photos)
        found["photos"] = World(scale, photos, (0, 1))
    return found


@cache
def pictures(where: str) -> tuple[InMemory, InMemory, InMemory]:
    """To learn from, held out, and to measure on; these two have no image in common."""
    profile = worlds()[where].profile
    profile.prepare(show_progress=True)
    side = round(ENLARGED * worlds()[where].scale.architecture.spec.image_size)
    pool = trials.shrunk_to(profile.training_set(), side)
    if profile.select:
        held_out = trials.shrunk_to(voc.ImageDataset(profile.select), side, HELD_OUT)
        return pool, held_out, trials.shrunk_to(voc.ImageDataset(profile.test), side, TEST)
    rest = trials.shrunk_to(voc.ImageDataset(profile.test), side)
    return pool, *(InMemory(part, rest.classes) for part in (rest.samples[:HELD_OUT], rest.samples[HELD_OUT:]))


@cache
def trunk(where: str) -> ssd.SSD:
    """What ImageNet or crops have taught: made once, by whoever comes first."""
    with runs.held(RUNS / where):
        return worlds()[where].profile.start(RUNS / where)


def names() -> list[str]:
    """All runs: world, arm and seed; seed by seed."""
    carried = ["baseline", *advice.to_carry(advice.answers(queues.read(ADVICE)))]
    known = {name: world.seeds for name, world in worlds().items()}
    return [
        f"{world}.{arm}.{seed}"
        for seed in range(max(map(len, known.values())))
        for world, seeds in known.items()
        for arm in carried
        if seed in seeds
    ]


def run(name: str, steps: int | None = None) -> dict:
    """Train one, and give its record.

    Args:
        steps: in place of the arm's own.
    """
    where, arm, seed = name.split(".")
    pool, held_out, test = pictures(where)
    setup = arms.baseline(pool, held_out, trunk(where), int(seed), worlds()[where].scale)
    arms.ARMS[arm].change(setup)
    setup.steps = steps or setup.steps
    record = trials.trial(setup, test)
    print(f"carried: {name}: mAP {record['map']:.3f}, {record['seconds']} s", flush=True)
    return {"name": name, "world": where, "arm": arm, "seed": int(seed)} | record


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:]:
        for name in sys.argv[2:] or names():
            run(name, int(sys.argv[1]))
        return
    made = queues.work(RESULTS, RUNS / "claims", queues.missing(names), queues.with_provenance(run))
    print(f"carried: {made} runs; {RESULTS}")


if __name__ == "__main__":
    main()
