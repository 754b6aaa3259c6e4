"""What watching costs: epochs with `VitalSigns` beside epochs without.

Both sides take the same steps from the same weights, so that they end with equal ones. Steps with a sample and steps
without alternate in one process, and which side begins alternates too. What a sample costs is the difference of the
medians; a training pays it once in `EVERY` steps, and the ratio is that training's. The batch is loaded once: with a
loader that is slower than the steps, the share is smaller.

`--rounds 2` only tries it, and writes nothing. Result in benchmarks/results/vital_signs.json.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from trainer_overhead import BATCH, THREADS, batch_of, trainer

from course_lib import profiles, runs
from course_lib.doctor.vital_signs import EVERY, VitalSigns
from course_lib.files import write_whole
from course_lib.training import Trainer
from course_lib.voc import Batch

ROUNDS = {"ssd_mini": 40, "ssd300_vgg16": 15}


class Once:
    """A loader of one batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.batch_size = batch, len(batch.images)

    def __iter__(self):
        return iter([self.batch])

    def __len__(self) -> int:
        return 1


def step(one: Trainer) -> None:
    """One step, as `Trainer.train_epoch` takes it."""
    one.progress.begin_epoch()
    one.train_epoch(one.model, 0)


def measured(architecture: str, rounds: int) -> dict:
    """Median seconds of both sides, and how much longer the watched one's takes; equal weights are checked."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    profile = replace(profiles.cpu() if architecture == "ssd_mini" else profiles.gpu(), device=device)
    sides = {name: trainer(profile, BATCH[architecture]) for name in ("watched", "alone")}
    sides["watched"].watch = VitalSigns(every=1)
    batch = batch_of(profiles.cpu(), BATCH[architecture], sides["alone"].model.image_size).to(device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for one in sides.values():
        one.loader = Once(batch)
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            started = time.perf_counter()
            step(sides[name])
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first one warms up
                times[name].append(time.perf_counter() - started)
    pairs = zip(*(side.model.state_dict().values() for side in sides.values()), strict=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "batch": BATCH[architecture],
        "rounds": rounds,
        "every": EVERY,
        "median_seconds": medians,
        "ratio": 1 + (medians["watched"] - medians["alone"]) / (medians["alone"] * EVERY),
        "same_weights": all(torch.equal(a, b) for a, b in pairs),
    }


def main(architectures: list[str], rounds: int | None) -> None:
    torch.set_num_threads(THREADS)
    profiles.cpu().prepare()
    result = {"threads": THREADS, **{name: measured(name, rounds or ROUNDS[name]) for name in architectures}}
    result["provenance"] = runs.environment("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(result, indent=1))
    if rounds or architectures != list(ROUNDS):
        print("a trial: nothing is written")
        return
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "vital_signs.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=list(ROUNDS), help="default: both")
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    main(asked.architectures, asked.rounds)
