"""What are processes worth that load images beside the one that trains? For chapter 15; time only.

EmojiVOC at 96 pixels, from disk and augmented, in batches of 16: read by 0, 1, 2 and 4 workers, without a network and
with a training step of `ssd_nano` after each batch. All run in turns; the medians of their epochs count. Workers start
once, before the clock. On a quiet machine; result in benchmarks/results/workers.json.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from course_lib import profiles, runs, weights
from course_lib.doctor.setups import healthy, in_memory
from course_lib.files import write_whole
from course_lib.loaders import Augmented, Shuffled, ending, loader
from course_lib.voc import Batch, ImageDataset

WORKERS = (0, 1, 2, 4)
IMAGES, BATCH, ROUNDS = 320, 16, 5


class FirstImages(Subset):
    """The first images of a data set, as `Augmented` loads them."""

    def load(self, index: int) -> tuple:
        return self.dataset.load(index)


def loaded(data: ImageDataset, transform: Callable, workers: int) -> DataLoader:
    """The training batches as a `Trainer` reads them."""
    some = FirstImages(data, range(IMAGES))
    return loader(Augmented(some, transform, 0), 96, BATCH, workers, Shuffled(IMAGES, BATCH, 0), keep_workers=True)


def epoch(batches: DataLoader, step: Callable[[Batch], object]) -> float:
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    return time.perf_counter() - started


def main() -> None:
    profile = profiles.nano()
    profile.prepare(show_progress=True)
    data = profile.training_set()
    few = in_memory(data, BATCH)
    patient = healthy(few, few, weights.load(profiles.RECORD)).patient()
    steps = {"loading": lambda batch: None, "loading and training": patient.step}
    seconds: dict[str, dict[int, list[float]]] = {name: {count: [] for count in WORKERS} for name in steps}
    for _ in range(ROUNDS):
        for count in WORKERS:
            batches = loaded(data, profile.training_transform(), count)
            with ending(batches):
                epoch(batches, lambda batch: None)  # workers start here, and files come into memory
                for name, step in steps.items():
                    seconds[name][count].append(epoch(batches, step))
    medians = {name: {n: statistics.median(times) for n, times in some.items()} for name, some in seconds.items()}
    result = {
        "images": IMAGES,
        "median_seconds": medians,
        "times_as_fast_as_without": {
            name: {count: some[0] / value for count, value in some.items()} for name, some in medians.items()
        },
        "threads": torch.get_num_threads(),
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    write_whole(Path(__file__).parent / "results" / "workers.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
