"""SSD300 on a GPU, in batches of 32: what each precision gains, and whether the loader keeps up.

- a whole training step as `Trainer.step` does it, with the recipe of the gpu profile (from random weights);
- the network's forward pass alone, for inference;
- the loader with the full training augmentation over EmojiVOC, one worker for each core but one.

The precisions alternate in one process; the numbers are medians. A side's peak memory is counted from before its
model was made. Result in benchmarks/results/gpu_training.json.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from course_lib import augment, profiles, runs, training
from course_lib.files import write_whole
from course_lib.ssd import ssd300_vgg16
from course_lib.training import Trainer
from course_lib.voc import Batch, ImageDataset

ROUNDS, STEPS = 7, 4
# What autocast is asked for, and what convolutions of float32 compute in.
SIDES = {
    "float32": ("off", "ieee"),
    "tf32": ("off", "tf32"),
    "bf16": ("bf16", "ieee"),
    "fp16": ("fp16", "ieee"),
}


def trainer(dataset: ImageDataset, amp: str, workers: int = 0) -> Trainer:
    """A run that is never saved, and learns so slowly that every step is alike."""
    model = ssd300_vgg16().to("cuda", memory_format=torch.channels_last)
    recipe = replace(profiles.gpu().recipe, amp=amp, learning_rate=1e-9)
    return Trainer(model.train(), dataset, augment.training(model.image_size), recipe, "unused", workers=workers)


def seconds(work: Callable[[], object], precision: str) -> float:
    """Seconds that one of `STEPS` calls takes, the GPU's work included."""
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(STEPS):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / STEPS


def in_turns(works: dict[str, Callable[[], object]], images: int) -> dict[str, dict[str, float]]:
    """Images per second of each side, and how many times that of float32 it is; all have been warmed up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds(work, SIDES[name][1]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        name: {"images_per_second": images / median, "speed_relative_to_float32": medians["float32"] / median}
        for name, median in medians.items()
    }


def training_steps(dataset: ImageDataset, batch: Batch) -> dict[str, dict[str, float]]:
    works, peaks = {}, {}
    for name, (amp, precision) in SIDES.items():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        one = trainer(dataset, amp)
        one.prepare()
        works[name] = lambda one=one: one.step(one.model, batch)
        for _ in range(4):  # the GradScaler of float16 skips its first steps, until it has found its scale
            seconds(works[name], precision)
        peaks[name] = {"peak_memory_gib": (torch.cuda.max_memory_allocated() - before) / 2**30}
    return {name: numbers | peaks[name] for name, numbers in in_turns(works, len(batch.images)).items()}


def forward_passes(batch: Batch) -> dict[str, dict[str, float]]:
    """The network alone: what `detect` costs depends on what a trained network finds."""
    model = ssd300_vgg16().to("cuda", memory_format=torch.channels_last).eval()

    def forward(amp: str) -> None:
        dtype = training.amp_dtype(amp, model.priors.device)
        with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype is not None):
            model(batch.images)

    works = {name: lambda amp=amp: forward(amp) for name, (amp, _) in SIDES.items()}
    for name, work in works.items():
        seconds(work, SIDES[name][1])
    return in_turns(works, len(batch.images))


def loading(one: Trainer) -> dict[str, float]:
    """A whole epoch of batches, the second one: in the first the workers start."""
    for epoch in range(2):
        one.sampler.epoch = epoch
        started = time.perf_counter()
        images = sum(len(batch.images) for batch in one.loader)
    elapsed = time.perf_counter() - started
    return {"workers": one.loader.num_workers, "images": images, "images_per_second": images / elapsed}


def main() -> None:
    if not torch.cuda.is_available():
        print("gpu_training: skipped, torch finds no CUDA device", file=sys.stderr)
        sys.exit(2)
    torch.manual_seed(0)
    profile = profiles.cpu()
    profile.prepare()
    dataset = profile.training_set()
    loads = trainer(dataset, "off", workers=max(1, (os.cpu_count() or 2) - 1))
    loader = loading(loads)
    batch = next(iter(loads.loader)).to("cuda")
    del loads
    result = {
        "batch": len(batch.images),
        "rounds": ROUNDS,
        "steps_per_round": STEPS,
        "training_step": training_steps(dataset, batch),
        "forward": forward_passes(batch),
        "loader": loader,
        "provenance": runs.environment("cuda"),
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "gpu_training.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
