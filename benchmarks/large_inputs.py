"""Inputs far larger than VOC's: what they cost, beside what they cost before they had a way of their own.

- matching crowds of 250 to 2000 objects to SSD300's priors: rounds over the champions of blocks beside rounds over all
  pairs. The latter are left out from 1000 objects on: they take four times as long for twice the objects;
- a training sample of a picture of 24 megapixels: shrunk before the zoom-out beside painted as it is.

Both sides alternate in one process, and the number is the ratio of their medians. The peak memory of each side is
that of a process of its own. Result in benchmarks/results/large_inputs.json.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from match_and_loss import memory
from PIL import Image

from course_lib import augment, crowds, matching, runs
from course_lib.files import write_whole
from course_lib.priors import SSD300
from course_lib.voc import Target, read_image

ROUNDS, SAMPLES, THREADS = 5, 20, 1
CROWDS, ALL_PAIRS_UP_TO = (250, 500, 1000, 2000), 500  # objects in the image
WIDTH, HEIGHT, SIZE = 6000, 4000, 300
CROWD = crowds.CROWD


def match_crowd(objects: int, side: str) -> Callable[[], object]:
    """Matching one image: by champions as the library does it, or by all pairs as it does for few objects."""
    g = torch.Generator().manual_seed(0)
    size = 0.05 + 0.6 * torch.rand(1, objects, 2, generator=g) ** 2
    low = torch.rand(1, objects, 2, generator=g) * (1 - size)
    boxes, labels, priors = torch.cat([low, low + size], dim=-1), torch.ones(1, objects).long(), SSD300.boxes()

    def work() -> None:
        crowds.CROWD = objects if side == "all pairs" else CROWD
        matching.match(boxes, labels, priors)

    return work


def photograph() -> np.ndarray:
    """A picture of a camera's size, with as much in it as a VOC picture has."""
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def make_samples(size: int, side: str) -> Callable[[], object]:
    """SSD's training pipeline, the next seed at each call: as it is, or without its shrinking."""
    image = photograph()
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.7], [0.6, 0.6, 0.7, 0.75], [0.2, 0.1, 0.9, 0.9]])
    target = Target(boxes, torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.bool), "photograph", (WIDTH, HEIGHT))
    pipeline, seeds = augment.training(size), iter(range(10**6))
    if side == "painted":
        kept = [one for one in pipeline.compose.transforms if not isinstance(one, augment.Shrink)]
        pipeline = augment.Augment(kept)

    def work() -> None:
        pipeline.seed(next(seeds))
        pipeline(image, target)

    return work


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mib(make: Callable, amount: int, side: str, calls: int) -> int:
    """How far some calls raise this process's memory above what it held before, their input included."""
    torch.set_num_threads(THREADS)
    match_crowd(1, "champions")()  # libraries start up
    work = make(amount, side)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM, the high-water mark, anew
    for _ in range(calls):
        work()
    return memory("VmHWM") - before


def compare(make: Callable, amount: int, sides: tuple[str, ...], calls: int) -> dict:
    """Seconds and peak memory of each side, and how many times as long the second takes as the first."""
    works, times = {side: make(amount, side) for side in sides}, {side: [] for side in sides}
    for _ in range(calls):
        for side, work in works.items():
            times[side].append(seconds(work))
    medians = {side: statistics.median(values) for side, values in times.items()}
    row: dict = {"median_seconds": medians, "longest_seconds": {side: max(values) for side, values in times.items()}}
    if len(sides) == 2:
        row["ratio"] = medians[sides[1]] / medians[sides[0]]
    if Path("/proc/self/clear_refs").exists():
        row["peak_mib"] = {}
        for side in sides:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row["peak_mib"][side] = pool.apply(peak_mib, (make, amount, side, calls))
    return row


def reading() -> float:
    """Median seconds that the picture takes to be read, as a JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.jpg"
        Image.fromarray(photograph()).save(path, quality=90)
        return statistics.median(seconds(lambda: read_image(path)) for _ in range(ROUNDS))


def main() -> None:
    torch.set_num_threads(THREADS)
    match_crowd(CROWDS[0], "champions")()  # the first call warms up
    result: dict = {"threads": THREADS, "rounds": ROUNDS, "priors": len(SSD300.boxes()), "objects_per_image": {}}
    for objects in CROWDS:
        sides = ("champions", "all pairs") if objects <= ALL_PAIRS_UP_TO else ("champions",)
        result["objects_per_image"][objects] = compare(match_crowd, objects, sides, ROUNDS)
        print(f"{objects} objects: {json.dumps(result['objects_per_image'][objects])}")
    picture = {"width": WIDTH, "height": HEIGHT, "samples": SAMPLES, "read_seconds": reading()}
    result["picture"] = picture | compare(make_samples, SIZE, ("shrunk", "painted"), SAMPLES)
    print(f"picture: {json.dumps(result['picture'])}")
    result["provenance"] = runs.environment()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "large_inputs.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
