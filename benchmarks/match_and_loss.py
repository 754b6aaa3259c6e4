"""Match and loss, forward and backward: the course beside torchvision's SSDMatcher and SSD.compute_loss.

A batch of 32 images, SSD300's 8732 priors, 21 classes; as many objects per image as VOC2007 has, and crowds.
Alternates both sides in one process and prints the ratio of medians. The peak memory of each side is that
of a process of its own. Result in benchmarks/results/match_and_loss.json.
"""

import json
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from course_lib import losses, runs, voc
from course_lib.boxes import to_corners
from course_lib.files import write_whole
from course_lib.matching import match
from course_lib.priors import SSD300

BATCH, ROUNDS, THREADS = 32, 15, 2
CROWDS = ("voc", 3, 15, 20, 37, 40)  # objects per image
# Images of VOC2007 trainval with 1, 2, 3, ... objects (counted from its annotations, 5011 images).
VOC2007 = (
    1865, 1167, 592, 377, 282, 208, 128, 90, 59, 59, 33, 35, 33, 7, 21, 10, 8, 6, 8, 5, 1, 1, 3, 2, 2, 2, 0, 2,
    0, 0, 0, 0, 0, 1, 1, 0, 2, 0, 0, 0, 0, 1,
)  # fmt: skip

PRIORS = SSD300.boxes()
CORNERS = to_corners(PRIORS)
MULTIBOX = losses.MultiBoxLoss()
TORCHVISION = SimpleNamespace(box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)


def voc2007_counts() -> list[int]:
    """Objects of each image of VOC2007 trainval, from VOC_REAL where it is set, else as recorded above."""
    if "VOC_REAL" not in os.environ:
        return [objects for objects, images in enumerate(VOC2007, start=1) for _ in range(images)]
    with tempfile.TemporaryDirectory() as devkit:
        with tarfile.open(Path(os.environ["VOC_REAL"]) / "VOC2007-annotations.tar.xz") as archive:
            archive.extractall(devkit, filter="data")
        ids = voc.read_image_set(devkit, "2007", "trainval")
        return sorted(len(voc.read_annotation(voc.annotation_path(devkit, "2007", i)).labels) for i in ids)


class Batch(NamedTuple):
    boxes: Tensor  # [B, G, 4], padded
    labels: Tensor  # [B, G]
    targets: list[dict[str, Tensor]]  # the same as torchvision takes them: image by image, not padded
    offsets: Tensor  # [B, P, 4], what a network might answer
    logits: Tensor  # [B, P, 21]


def make_batch(counts: list[int], seed: int, priors: Tensor = PRIORS) -> Batch:
    """Random boxes, `counts[b]` of them on image b."""
    g = torch.Generator().manual_seed(seed)
    slots = max(counts)
    size = 0.05 + 0.6 * torch.rand(len(counts), slots, 2, generator=g) ** 2
    low = torch.rand(len(counts), slots, 2, generator=g) * (1 - size)
    real = torch.arange(slots) < torch.tensor(counts)[:, None]
    boxes = torch.cat([low, low + size], dim=-1) * real[..., None]
    labels = torch.randint(1, 21, (len(counts), slots), generator=g) * real
    targets = [{"boxes": b[:n], "labels": c[:n]} for b, c, n in zip(boxes, labels, counts, strict=True)]
    offsets, logits = (torch.randn(len(counts), len(priors), width, generator=g) for width in (4, 21))
    return Batch(boxes, labels, targets, offsets.requires_grad_(), logits.requires_grad_())


def course(batch: Batch) -> None:
    matches = match(batch.boxes, batch.labels, PRIORS)
    losses.total(MULTIBOX(batch.offsets, batch.logits, matches)).backward()


def torchvision(batch: Batch) -> None:
    """As in torchvision's SSD.forward."""
    matched = [SSDMatcher(0.5)(box_iou(target["boxes"], CORNERS)) for target in batch.targets]
    outputs = {"bbox_regression": batch.offsets, "cls_logits": batch.logits}
    parts = SSD.compute_loss(TORCHVISION, batch.targets, outputs, [CORNERS] * len(matched), matched)
    losses.total(parts).backward()


SIDES = {"course": course, "torchvision": torchvision}


def seconds(side: str, batch: Batch) -> float:
    batch.offsets.grad = batch.logits.grad = None
    started = time.perf_counter()
    SIDES[side](batch)
    return time.perf_counter() - started


def memory(field: str) -> int:
    """A line of /proc/self/status, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith(field))


def peak_mib(side: str, counts: list[int]) -> int:
    """How far one call raises this process's memory above what it held before, its inputs included."""
    torch.set_num_threads(THREADS)
    SIDES[side](make_batch([1], seed=0))  # libraries and threads start up
    batch = make_batch(counts, seed=0)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM, the high-water mark, anew
    SIDES[side](batch)
    return memory("VmHWM") - before


def main() -> None:
    torch.set_num_threads(THREADS)
    voc2007, g = voc2007_counts(), torch.Generator().manual_seed(0)
    result: dict = {"batch": BATCH, "threads": THREADS, "rounds": ROUNDS, "objects_per_image": {}}
    for crowd in CROWDS:
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for seed in range(-1, ROUNDS):  # the first round warms up
            drawn = torch.randint(len(voc2007), (BATCH,), generator=g).tolist()
            counts = [voc2007[i] for i in drawn] if crowd == "voc" else [crowd] * BATCH
            batch = make_batch(counts, seed)
            for side in SIDES:
                times[side].append(seconds(side, batch))
        medians = {side: statistics.median(values[1:]) for side, values in times.items()}
        row = {"median_seconds": medians, "ratio": medians["course"] / medians["torchvision"]}
        if Path("/proc/self/clear_refs").exists():
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                row["peak_mib"] = {side: pool.apply(peak_mib, (side, counts)) for side in SIDES}
        print(f"{crowd} objects per image: {json.dumps(row)}")
        result["objects_per_image"][crowd] = row
    result["provenance"] = runs.environment()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "match_and_loss.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
