"""How much do a taught trunk, its freezing, pixels and pictures matter for a detector of one's own? For chapter 12.

The profile `photos` as it stands, and rows that differ from it in one thing; on photographs of five animals, the tree
that PHOTOS names (its VOC2012, or the tree itself): trained on its list `train`, measured on `val` with the last
epoch's weights, by which nothing is chosen. Without PHOTOS, or without `train` and `val` in it, nothing is done. One
seed, and three where a run takes less than ten minutes; among fewer pictures each seed draws others.

Each run's record is kept in runs/photos_rows when the run ends, and all of them in experiments/results/photos.json when
this ends, at its end or interrupted. What is there is not trained again, and a run that was interrupted goes on. Start
it in as many processes as there are cores to spare: none makes what another one has begun.
Seconds are those of training alone. CPU seconds are those of training and of its loader, which hardly depend on what
else the machine does; of a run that was interrupted they are not known.
"""

import json
import os
import resource
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock

from course_lib import evaluation, own_tree, profiles, queues, runs, ssd, training, weights
from course_lib.files import write_whole
from course_lib.priors import ssd_lite
from course_lib.voc import ImageDataset, ImageSet

RESULT = Path(__file__).parent / "results" / "photos.json"
RUNS = profiles.RUNS / "photos_rows"
ANIMALS = ("cat", "cow", "dog", "horse", "sheep")


@dataclass(frozen=True)
class Row:
    """What is trained: the profile, but for what stands here.

    Attributes:
        settings: of the recipe.
        side: of the network's input, pixels.
        one_of: as many pictures of the list are one to learn from.
        taught: the trunk starts from ImageNet's weights.
        seeds: as many runs.
    """

    settings: tuple[str, ...] = ()
    side: int = 224
    one_of: int = 1
    taught: bool = True
    seeds: int = 1


# A trunk that knows nothing is frozen nowhere and learns as fast as the heads. Gradients go back through all blocks,
# which take their own statistics: an epoch takes more than twice as long, and half the epochs more minutes than the
# default.
UNTAUGHT = ("frozen_blocks=0", "frozen_statistics=false", "backbone_factor=1")
ROWS = {
    "default": Row(),
    "random start, half the epochs": Row((*UNTAUGHT, "epochs=6"), taught=False),
    "random start": Row(UNTAUGHT, taught=False),
    "frozen: none": Row(("frozen_blocks=0",)),
    "frozen: all": Row(("frozen_blocks=17",), seeds=3),
    "160 pixels": Row(side=160, seeds=3),
    "288 pixels": Row(side=288),
    "a third of the pictures": Row(one_of=3, seeds=3),
    "a tenth of the pictures": Row(one_of=10, seeds=3),
}


def named_tree(folder: str | None) -> Path | None:
    """The tree that a folder is or has as a devkit's VOC2012; None where it has not both lists."""
    some = (Path(folder) / "VOCdevkit" / "VOC2012", Path(folder)) if folder else ()
    lists = ("train", "val")
    return next((t for t in some if all((t / "ImageSets" / "Main" / f"{one}.txt").exists() for one in lists)), None)


def training_list(tree: Path, one_of: int, seed: int) -> ImageSet:
    """The list `train`, or one of so many of its pictures: in a folder of links, since the tree is the reader's."""
    whole = ImageSet(tree, "train")
    if one_of == 1:
        return whole
    links, name = RUNS / "tree", f"train_{one_of}_{seed}"
    (links / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for part in ("Annotations", "JPEGImages"):
        if not (links / part).is_symlink():
            (links / part).symlink_to((tree / part).resolve(), target_is_directory=True)
    write_whole(links / "ImageSets" / "Main" / f"{name}.txt", "\n".join(whole.ids[seed::one_of]) + "\n")
    return ImageSet(links, name)


def start(profile: profiles.Profile, row: Row, seed: int) -> ssd.SSD:
    """A fresh model for images of the row's side."""
    spec = ssd_lite(row.side)
    named = replace(ssd.ARCHITECTURES[profile.architecture], name=f"{profile.architecture}_{row.side}", spec=spec)
    torch.manual_seed(seed)
    model = named(len(profile.classes) + 1, profile.classes)
    if row.taught:
        weights.load_backbone(model, profile.read_backbone_weights())
    return model.to(profile.device)


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def run_once(tree: Path, name: str, row: Row, seed: int) -> dict:
    """Train one detector, or find it trained, and measure its last weights."""
    run = RUNS / f"{name.replace(' ', '_').replace(':', '').replace(',', '')}-{seed}"
    result = run / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    print(f"photos: {name}, seed {seed}", flush=True)
    profile = profiles.photos((training_list(tree, row.one_of, seed),), test=(ImageSet(tree, "val"),))
    recipe = own_tree.fitted(profile.recipe, len(profile.training_set())).changed([*row.settings, f"seed={seed}"])
    model, went_on, before = start(profile, row, seed), runs.has_state(run), cpu_seconds()
    trainer = training.Trainer(
        model,
        profile.training_set(),
        profile.augmentation(row.side),
        recipe,
        run,
        workers=profile.workers,
        notes={"profile": profile.name, "row": name},
        report=lambda record: print(json.dumps(record), flush=True),
    )
    history = trainer.fit()
    spent = None if went_on else round(cpu_seconds() - before, 1)
    measured = evaluation.selector(ImageDataset(profile.test), workers=profile.workers)(model)
    record = {
        "seed": seed,
        "animals": sum(measured["ap"][animal] for animal in ANIMALS) / len(ANIMALS),
        **measured,
        "images": len(profile.training_set()),
        "epochs": recipe.epochs,
        "seconds": history[-1]["seconds"],
        "cpu_seconds": spent,
        "images_per_second": statistics.median(one["images_per_second"] for one in history),
        "threads": torch.get_num_threads(),
        "history": history,
        "provenance": trainer.progress.provenance(),
    }
    write_whole(result, json.dumps(record) + "\n")
    for state in run.glob("state*"):
        state.unlink()
    print(f"photos: {name}, seed {seed}: mean AP of the animals {record['animals']:.3f}", flush=True)
    return record


def recorded() -> dict[str, list[dict]]:
    """The runs that are in the record."""
    return json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}


def train_rows(tree: Path, trained: dict[str, list[dict]]) -> None:
    """Train what is missing, row by row, and what no other process has begun; what is done is in `trained` at any
    time."""
    claims = RUNS / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    for number, (name, row) in enumerate(ROWS.items()):
        there = trained.setdefault(name, [])
        for seed in range(row.seeds):
            with queues.claimed(claims, f"{number}-{seed}") as free:
                if free and seed not in {run["seed"] for run in there}:
                    there.append(run_once(tree, name, row, seed))


def keep(trained: dict[str, list[dict]]) -> None:
    """Add runs to the record, row by row; processes that end at the same time wait for each other."""
    with FileLock(RUNS / "photos.lock"):
        merged: dict[str, list[dict]] = {}
        for name in ROWS:
            by_seed = {run["seed"]: run for some in (recorded(), trained) for run in some.get(name, ())}
            merged |= {name: [by_seed[seed] for seed in sorted(by_seed)]} if by_seed else {}
        seconds = sum(run["seconds"] for some in merged.values() for run in some)
        result = {"runs": merged, "provenance": runs.environment() | {"seconds": round(seconds)}}
        RESULT.parent.mkdir(exist_ok=True)
        write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    print(f"photos: {RESULT}")


def main() -> None:
    tree = named_tree(os.environ.get("PHOTOS"))
    if tree is None:
        print("photos: left out; PHOTOS names no folder with a tree that has the lists train and val")
        return
    trained = recorded()
    before = {name: len(some) for name, some in trained.items()}
    try:
        train_rows(tree, trained)
    finally:
        if {name: len(some) for name, some in trained.items() if some} != before:
            keep(trained)


if __name__ == "__main__":
    main()
