"""Why does an SSD-MobileNetV2 stand still, what cures it, and what is it worth? For chapter 16.

Three parts, in one queue. **Stagnation**: each arm of `stagnation.CAUSES`, failing and cured, from three seeds, on
EmojiVOC at 128 pixels, from the first detector of the second part. **Emoji**: `ssd_mobilenet_v2` beside
`ssd_mini`, both by the cpu profile, at its epochs and at three times as many. **Photos**: beside `ssd_lite0`, both from
random weights, where PHOTOS names a folder with a tree.

Start it in as many processes as there are cores to spare: they share the queue. Each run is a line of
experiments/results/mobilenet.jsonl, with its provenance; what is there is not made again, and a long run that was
interrupted goes on. `python experiments/mobilenet.py NAME ...` makes some runs and prints them, and keeps nothing.
"""

import os
import statistics
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from course_lib import (
    evaluation,
    files,
    losses,
    own_tree,
    profiles,
    queues,
    ssd,
    stagnation,
    training,
    trials,
    voc,
)
from course_lib.convergence import flowing
from course_lib.doctor.practice import batches_of, batches_to_measure
from course_lib.doctor.setups import InMemory, Setup, healthy
from course_lib.priors import ssd_lite
from course_lib.recipes import Recipe

RESULTS = Path(__file__).parent / "results" / "mobilenet.jsonl"
RUNS = profiles.RUNS / "mobilenet"
SEEDS = (0, 1, 2)
IMAGES, HELD_OUT, TEST = 600, 100, 300
TEACHER = "ssd_mobilenet_v2-short", 0  # the detector that the small trainings start from
LOOKED_AT = (0, 1, 5, 20, 60, 120, 239)
SIZES = {"short": 1, "long": 3}  # times the profile's epochs
Trained = tuple[profiles.Profile, ssd.SSD, Recipe, list[dict]]  # with the history
ANIMALS = ("cat", "cow", "dog", "horse", "sheep")


@cache
def pictures() -> tuple:
    """EmojiVOC in memory: to learn from, held out, and to measure on."""
    profile = profiles.cpu()
    profile.prepare(show_progress=True)
    parts = (profile.train, IMAGES), (profile.select, HELD_OUT), (profile.test, TEST)
    return tuple(trials.shrunk_to(voc.ImageDataset(sets), 2 * stagnation.SIDE, count) for sets, count in parts)


@cache
def taught() -> dict[str, torch.Tensor]:
    """What the small trainings start from: a trained detector, kept in runs/mobilenet. Whoever comes first trains it,
    and others wait."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with FileLock(RUNS / "teacher.lock"):
        return stagnation.taught_parts(on_emoji(*TEACHER)[1])


def small(name: str, seed: int) -> dict:
    """An arm of a cause, trained and measured."""
    data, held_out, test = pictures()
    setup = stagnation.detector_setup(data, held_out, taught(), seed)
    stagnation.ARMS[name](setup)
    record = trials.trial(setup, test)
    if not name.startswith("few-pictures") or record["diverged"]:
        return record
    return record | {"map_of_the_few": map_on(setup, setup.data)}


def map_on(setup: Setup, pictures: InMemory) -> float:
    """mAP of a trained model on other pictures."""
    batches = batches_to_measure(replace(setup, held_out=pictures), trials.AT_ONCE)
    return trials.mean_of(trials.average_precisions(setup.patient(), batches, pictures))


def flows(name: str, seed: int) -> dict:
    """What flows through the layers of a small detector as it learns, from random weights, forward and back."""
    data, held_out, _ = pictures()
    setup = (
        stagnation.detector_setup(data, held_out, None, seed)
        if name == "mobilenet"
        else healthy(data, held_out, None, seed)
    )
    patient, found = setup.patient(), []
    layers = stagnation.layers_of(setup.model)
    for step, batch in enumerate(batches_of(setup, setup.steps)):
        with flowing([*layers.values()] if step in LOOKED_AT else ()) as flow:
            taken = patient.step(batch)
        if step in LOOKED_AT:
            found.append({"step": step, "loss": sum(float(value) for value in taken.values())} | asdict(flow))
    return {"layers": [*layers], "flow": found}


def large(name: str, seed: int) -> dict:
    """A detector by the cpu profile, trained to its end and measured on the test set."""
    return measured(*on_emoji(name, seed))


def on_emoji(name: str, seed: int) -> Trained:
    """Train a detector by the cpu profile to the end; one that is trained is read."""
    architecture, _, size = name.rpartition("-")
    profile = replace(profiles.cpu(), architecture=architecture, record=None)
    profile.prepare(show_progress=True)
    recipe = replace(profile.recipe, epochs=profile.recipe.epochs * SIZES[size], seed=seed)
    run = RUNS / f"{name}.{seed}"
    model = profile.start(run, seed, loss=losses.MultiBoxLoss())
    return profile, model, recipe, fitted(profile, model, recipe, run)


def on_photographs(name: str, seed: int) -> dict:
    """A detector of photographs from random weights, which is frozen nowhere, by the profile `photos`."""
    tree = Path(os.environ["PHOTOS"]) / "VOCdevkit" / "VOC2012"
    profile = profiles.photos((voc.ImageSet(tree, "train"),), test=(voc.ImageSet(tree, "val"),))
    settings = ("frozen_blocks=0", "frozen_statistics=false", "backbone_factor=1", f"seed={seed}")
    recipe = own_tree.fitted(profile.recipe, len(profile.training_set())).changed(settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        named = replace(ssd.ARCHITECTURES[name], name=f"{name}_224", spec=ssd_lite(224))
        model = named(len(profile.classes) + 1, profile.classes)
    history = fitted(profile, model, recipe, RUNS / f"photos.{name}.{seed}", size=224)
    found = measured(profile, model, recipe, history)
    return found | {"animals": statistics.fmean(found["ap"][animal] for animal in ANIMALS)}


def fitted(profile: profiles.Profile, model: ssd.SSD, recipe: Recipe, run: Path, size: int | None = None) -> list[dict]:
    """Train to the end, in a folder where an interrupted run goes on."""
    trainer = training.Trainer(
        model,
        profile.training_set(),
        profile.augmentation(size or model.image_size),
        recipe,
        run,
        evaluate=profile.selector(),
        loss=losses.MultiBoxLoss(),
        notes={"profile": profile.name},
        report=lambda record: print(f"mobilenet: {run.name}: {files.as_json(record)}", flush=True),
    )
    return trainer.fit()


def measured(profile: profiles.Profile, model: ssd.SSD, recipe: Recipe, history: list[dict]) -> dict:
    """What the last epoch's weights are worth, and what they cost."""
    found = evaluation.selector(voc.ImageDataset(profile.test))(model)
    return {
        "map": found["map"],
        "ap": {name: None if one is None else round(one, 4) for name, one in found["ap"].items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": asdict(recipe),
        "history": [
            {name: one[name] for name in ("epoch", "loc", "conf", "map", "seconds") if name in one} for one in history
        ],
        "seconds": history[-1]["seconds"],
        "images_per_second": statistics.median(one["images_per_second"] for one in history),
        "detects_per_second": detects_per_second(model),
    }


@torch.inference_mode()
def detects_per_second(model: ssd.SSD, images: int = 16) -> float:
    """Pictures a second, one at a time, by one thread; by the time of this process alone, and the best of three."""
    model.eval()
    one = torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8)
    spent = []
    for _ in range(4):
        begun = os.times()
        for _ in range(images):
            model(one)
        ended = os.times()
        spent.append(ended.user + ended.system - begun.user - begun.system)
    return round(images / min(spent[1:]), 1)


KINDS = {"small": small, "flow": flows, "emoji": large, "photos": on_photographs}


def left(records: list[dict]) -> list[str]:
    """The runs that are missing: the teacher, the small ones, seed by seed, photographs, and then what is long."""
    there = {one["name"] for one in records}
    teacher = "emoji.{}.{}".format(*TEACHER)
    short = [f"small.{arm}.{seed}" for seed in SEEDS for arm in stagnation.ARMS] if teacher in there else []
    pairs = [f"emoji.{name}-{{}}.{{}}" for name in ("ssd_mobilenet_v2", "ssd_mini")]
    large = [pair.format(size, 0) for size in SIZES for pair in pairs]
    real = [f"photos.{name}.0" for name in ("ssd_mobilenet_v2", "ssd_lite0")] if os.environ.get("PHOTOS") else []
    again = [pair.format("short", seed) for seed in SEEDS[1:] for pair in pairs]
    names = [teacher, "flow.mobilenet.0", "flow.mini.0", *short, *real, *large, *again]
    return [name for name in dict.fromkeys(names) if name not in there]


def run(name: str) -> dict:
    """Make one, and give its record."""
    kind, arm, seed = name.split(".")
    torch.set_num_threads(1)
    record = KINDS[kind](arm, int(seed))
    if "map" in record:
        print(f"mobilenet: {name}: mAP {record['map']:.3f}, {record['seconds']} s", flush=True)
    return {"name": name, "kind": kind, "arm": arm, "seed": int(seed)} | record


def main() -> None:
    if sys.argv[1:]:
        for name in sys.argv[1:]:
            print(files.as_json(run(name)))
        return

    made = queues.work(RESULTS, RUNS / "claims", left, queues.with_provenance(run))
    print(f"mobilenet: {made} runs; {RESULTS}")


if __name__ == "__main__":
    main()
