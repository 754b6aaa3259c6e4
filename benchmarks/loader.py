"""How fast images reach the network: one worker's work, on the 274 real images in the folder VOC_REAL.

Two questions, each answered by both sides alternating in one process, as the ratio of medians:
- the evaluation pipeline (annotation, image, stretch to 300 pixels) beside decoding the image alone;
- SSD's training pipeline beside torchvision's transforms (v2) that do the same.
Result in benchmarks/results/loader.json.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_lib import augment, runs
from course_lib.files import write_whole
from course_lib.voc import VOCDetection, image_in, read_image

ROUNDS, SIZE = 7, 300


def torchvision_pipeline() -> v2.Transform:
    """torchvision's own SSD preset, with the resize that it leaves to its model."""
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=list(augment.PIXEL_MEAN), p=0.5),
            v2.RandomIoUCrop(),
            v2.Resize((SIZE, SIZE), antialias=False),
            v2.RandomHorizontalFlip(p=0.5),
            v2.SanitizeBoundingBoxes(labels_getter=lambda inputs: inputs[1]["labels"]),
        ]
    )


def as_torchvision_takes_it(image: np.ndarray, target) -> tuple:
    """An image tensor, and boxes in pixels that know the image's size."""
    boxes = tv_tensors.BoundingBoxes(target.boxes_px, format="XYXY", canvas_size=image.shape[:2])
    return tv_tensors.Image(augment.channels_first(image)), {"boxes": boxes, "labels": target.labels}


def measure(sides: dict) -> dict[str, float]:
    """Median seconds of each side, run in turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def evaluation_beside_decoding(devkit: Path) -> dict:
    datasets = [VOCDetection(devkit, "2007", name, augment.evaluation(SIZE)) for name in ("trainval", "test")]
    paths = [image_in(*item) for dataset in datasets for item in dataset.items]
    seconds = measure(
        {
            "decode": lambda: [read_image(path) for path in paths],
            "evaluation": lambda: [dataset[i] for dataset in datasets for i in range(len(dataset))],
        }
    )
    return {
        "images": len(paths),
        "median_seconds": seconds,
        "images_per_second": len(paths) / seconds["evaluation"],
        "speed_relative_to_decoding": seconds["decode"] / seconds["evaluation"],
    }


def training_beside_torchvision(devkit: Path) -> dict:
    dataset = VOCDetection(devkit, "2007", "trainval")
    samples = [dataset.load(index) for index in range(len(dataset))]
    theirs_in = [as_torchvision_takes_it(*sample) for sample in samples]
    ours, theirs = augment.training(SIZE), torchvision_pipeline()
    ours.seed(0)
    torch.manual_seed(0)
    seconds = measure(
        {
            "course_lib": lambda: [ours(*sample) for sample in samples],
            "torchvision_v2": lambda: [theirs(*sample) for sample in theirs_in],
        }
    )
    return {
        "images": len(samples),
        "median_seconds": seconds,
        "images_per_second": len(samples) / seconds["course_lib"],
        "speed_relative_to_torchvision": seconds["torchvision_v2"] / seconds["course_lib"],
    }


def main() -> None:
    if "VOC_REAL" not in os.environ:
        sys.exit("loader: skipped, VOC_REAL names no folder with real images")
    devkit = Path(os.environ["VOC_REAL"]) / "VOCdevkit"
    # One worker is one core: more workers, not more threads, use the others.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    result = {
        "evaluation": evaluation_beside_decoding(devkit),
        "training": training_beside_torchvision(devkit),
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "loader.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
