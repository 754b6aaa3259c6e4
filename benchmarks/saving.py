"""Keeping a run beside a plain `torch.save` of the same tensors, and beside the steps of an epoch.

What `Trainer.save` writes: the state from which the run goes on (model, momenta, the best epoch's weights), last and
best weights, history and provenance, each whole or not at all and flushed to the disk, once nothing in it is NaN.
The bare side writes the same state with `torch.save` and flushes it. Both alternate in one process, and which begins
alternates too; a training step before each round changes the weights, and its time, times the steps of an epoch of
Pascal VOC's 16,551 images (of EmojiVOC for the small model), says what part of an epoch one save is. Result in
benchmarks/results/saving.json.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from trainer_overhead import BATCH, batch_of, trainer

from course_lib import profiles, runs
from course_lib.files import write_whole
from course_lib.training import Trainer

THREADS = 2
ROUNDS = {"ssd_mini": 20, "ssd300_vgg16": 4}


def bare(one: Trainer, path: Path) -> None:
    """The same tensors, as anybody would write them."""
    best = {name: value.clone() for name, value in one.model.state_dict().items()}
    state = {"model": one.model.state_dict(), "optimizer": one.optimizer.state_dict(), "best": best}
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measured(architecture: str, folder: Path) -> dict:
    """Median seconds of a save, of a bare one and of a step, and what part of an epoch the save is."""
    profile = profiles.cpu() if architecture == "ssd_mini" else profiles.gpu()
    one = trainer(profile, BATCH[architecture])
    one.run = one.progress.run = folder / architecture
    one.run.mkdir()
    batch = batch_of(profiles.cpu(), BATCH[architecture], one.model.image_size)
    one.progress.begin_epoch()
    calls = {"save": one.save, "bare": lambda: bare(one, folder / "bare.pt")}
    times: dict[str, list[float]] = {name: [] for name in ("step", *calls)}
    for round_ in range(ROUNDS[architecture] + 1):
        took = {"step": seconds(lambda: one.step(one.model, batch))}
        one.progress.best = {name: value.clone() for name, value in one.model.state_dict().items()}
        took |= {name: seconds(calls[name]) for name in sorted(calls, reverse=bool(round_ % 2))}
        if round_:  # the first warms up
            for name, value in took.items():
                times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    images = 16551 if architecture == "ssd300_vgg16" else sum(len(one) for one in profile.train)
    return {
        "batch": BATCH[architecture],
        "rounds": ROUNDS[architecture],
        "median_seconds": medians,
        "ratio": medians["save"] / medians["bare"],
        "bytes": sum(path.stat().st_size for path in one.run.iterdir()),
        "part_of_an_epoch": medians["save"] / (medians["step"] * images / BATCH[architecture]),
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    profiles.cpu().prepare()
    with tempfile.TemporaryDirectory() as folder:
        result: dict = {name: measured(name, Path(folder)) for name in sys.argv[1:] or ROUNDS}
    result |= {"threads": THREADS, "provenance": runs.environment()}
    print(json.dumps(result, indent=1))
    write_whole(Path(__file__).parent / "results" / "saving.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
