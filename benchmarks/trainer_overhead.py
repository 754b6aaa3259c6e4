"""The trainer's step beside a bare one: the same matching, network, loss, clipping and optimizer, and nothing else.

What the trainer adds: micro-batches, the positives of all, the check that a loss or gradient is finite, the numbers of
the step for whoever follows, sums for the history, and the look whether it is time to keep the run or to stop. Both
sides take the same steps from the same weights, so that they end with equal ones; they alternate in one process, and
which begins alternates too. The ratio is that of the medians. Result in benchmarks/results/trainer_overhead.json.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from course_lib import losses, profiles, runs
from course_lib.files import write_whole
from course_lib.matching import match
from course_lib.training import Trainer
from course_lib.voc import Batch, ImageDataset, collate

THREADS = 2
ROUNDS = {"ssd_mini": 60, "ssd300_vgg16": 6}
BATCH = {"ssd_mini": 32, "ssd300_vgg16": 4}


def batch_of(profile: profiles.Profile, size: int, image_size: int) -> Batch:
    """Images of EmojiVOC, augmented as for training."""
    dataset = ImageDataset(profile.train, profile.augmentation(image_size))
    return collate([dataset[index] for index in range(size)])


def trainer(profile: profiles.Profile, size: int) -> Trainer:
    """One that is never saved, and whose numbers somebody follows."""
    recipe = replace(profile.recipe, batch_size=size, learning_rate=1e-6, amp="off")
    seen: list[float] = []
    one = Trainer(
        profile.model(),
        ImageDataset(profiles.cpu().train),
        profile.training_transform(),
        recipe,
        "unused",
        follow=lambda numbers: seen.append(numbers["grad_norm"]),
        checkpoint_minutes=1e9,
    )
    one.prepare()
    one.model.train()
    return one


def whole(one: Trainer, batch: Batch) -> Callable[[], None]:
    """A step as `Trainer.train_epoch` takes it; the loader gives the same batch each time."""

    class Once:
        batch_size = len(batch.images)

        def __iter__(self):
            return iter([batch])

        def __len__(self) -> int:
            return 1

    one.loader = Once()

    def step() -> None:
        one.progress.begin_epoch()
        one.train_epoch(one.model, 0)

    return step


def bare(one: Trainer, batch: Batch) -> Callable[[], None]:
    """The same mathematics as plainly as they can be written."""
    model, criterion, recipe = one.model, losses.MultiBoxLoss(), one.recipe

    def step() -> None:
        matches = match(batch.boxes, batch.labels, model.priors, recipe.match_iou)
        offsets, logits = model(batch.images)
        cost: Tensor = losses.total(criterion(offsets, logits, matches))
        one.optimizer.zero_grad(set_to_none=True)
        cost.backward()
        clip_grad_norm_(model.parameters(), recipe.clip_norm)
        one.optimizer.step()
        one.schedule.step()

    return step


def measured(architecture: str) -> dict:
    """Median seconds of both sides, and how much longer the trainer's takes; equal weights at the end are checked."""
    profile = profiles.cpu() if architecture == "ssd_mini" else profiles.gpu()
    profile = replace(profile, device="cuda" if torch.cuda.is_available() else "cpu")
    sides = {"trainer": trainer(profile, BATCH[architecture]), "bare": trainer(profile, BATCH[architecture])}
    batch = batch_of(profiles.cpu(), BATCH[architecture], sides["bare"].model.image_size).to(profile.device)
    steps = {"trainer": whole(sides["trainer"], batch), "bare": bare(sides["bare"], batch)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS[architecture] + 2):
        for name in sorted(steps, reverse=bool(round_ % 2)):
            started = time.perf_counter()
            steps[name]()
            if profile.device == "cuda":
                torch.cuda.synchronize()
            if round_ >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - started)
    pairs = zip(*(side.model.state_dict().values() for side in sides.values()), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "batch": BATCH[architecture],
        "rounds": ROUNDS[architecture],
        "median_seconds": medians,
        "ratio": medians["trainer"] / medians["bare"],
        "same_weights": same,
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    profiles.cpu().prepare()
    names = sys.argv[1:] or list(ROUNDS)
    result = {"threads": THREADS, **{name: measured(name) for name in names}}
    result["provenance"] = runs.environment("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "trainer_overhead.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
