"""`metrics.evaluate_voc` beside faster-coco-eval: a real detector's 67,486 detections in the whole VOC2007 test set.

Both sides start from what they read files into, which is not timed: detections by class and annotations here, two
`COCO` indices there. Timed is all from there to the AP of 19 classes at one IoU, 0.5: `evaluate_voc`, and making a
`COCOeval_faster`, `evaluate` and `accumulate` for objects of any size and all detections of an image. The two rules
differ a little, and so do their mAPs, which are printed. Also timed, without a rival: AP by size, error types, and a
bootstrap with 1000 rounds.

Reads the folder in VOC_REAL; alternates the sides in one process and prints the ratio of medians. Result in
benchmarks/results/evaluate_voc.json.
"""

import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from course_lib import metrics, runs
from course_lib.files import write_whole
from course_lib.metrics import ClassDetections
from course_lib.voc import VOC_CLASSES, Annotation

ROUNDS, ALONE_ROUNDS = 25, 5


def read(folder: Path) -> tuple[dict[str, ClassDetections], list[Annotation]]:
    with tempfile.TemporaryDirectory() as devkit, tarfile.open(folder / "VOC2007-annotations.tar.xz") as archive:
        archive.extractall(devkit, filter="data")
        truth = metrics.read_ground_truth(devkit, "2007", "test")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no detection file for person")
        return metrics.read_detection_files(folder / "detections"), truth


def xywh(boxes_px: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_px[:, :2], boxes_px[:, 2:] - boxes_px[:, :2]], axis=1)


def as_coco(detections: Mapping[str, ClassDetections], truth: Sequence[Annotation]) -> tuple[COCO, COCO]:
    """The same as COCO's indices; difficult objects are crowds, which nobody has to find."""
    numbers = {annotation.image_id: number for number, annotation in enumerate(truth, start=1)}
    images = [{"id": numbers[a.image_id], "width": a.size[0], "height": a.size[1]} for a in truth]
    objects = []
    for a in truth:
        rows = zip(xywh(a.boxes_px.double().numpy()).tolist(), a.labels.tolist(), a.difficult.tolist(), strict=True)
        for box, label, difficult in rows:
            row = {"id": len(objects) + 1, "image_id": numbers[a.image_id], "category_id": label, "bbox": box}
            objects.append(row | {"area": box[2] * box[3], "iscrowd": int(difficult)})
    found = []
    for name, of_class in detections.items():
        label = VOC_CLASSES.index(name) + 1
        rows = zip(of_class.image_ids, of_class.scores.tolist(), xywh(of_class.boxes_px).tolist(), strict=True)
        for image_id, score, box in rows:
            found.append({"image_id": numbers[image_id], "category_id": label, "bbox": box, "score": score})
    categories = [{"id": VOC_CLASSES.index(name) + 1, "name": name} for name in detections]
    labels = {category["id"] for category in categories}
    objects = [row for row in objects if row["category_id"] in labels]
    coco = COCO({"images": images, "annotations": objects, "categories": categories})
    return coco, coco.loadRes(found)


def coco_map(truth: COCO, found: COCO, most: int) -> float:
    measured = COCOeval_faster(truth, found, "bbox")
    measured.params.iouThrs = np.array([0.5])
    measured.params.areaRng, measured.params.areaRngLbl = [[0, 1e10]], ["all"]
    measured.params.maxDets = [most]
    measured.evaluate()
    measured.accumulate()
    return float(measured.eval["precision"].mean())


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each side; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    if "VOC_REAL" not in os.environ:
        sys.exit("evaluate_voc: skipped, VOC_REAL names no folder with VOC2007-annotations.tar.xz and detections/")
    detections, truth = read(Path(os.environ["VOC_REAL"]))
    coco = as_coco(detections, truth)
    most = max(Counter(image for found in detections.values() for image in found.image_ids).values())
    sides = {
        "evaluate_voc": lambda: metrics.evaluate_voc(detections, truth).mean_ap,
        "faster_coco_eval": lambda: coco_map(*coco, most),
    }
    alone = {
        "by_size": lambda: metrics.by_size(detections, truth),
        "error_types": lambda: metrics.error_types(detections, truth),
        "bootstrap": lambda: metrics.bootstrap(detections, truth),
    }
    mean_ap = {name: work() for name, work in sides.items()}
    medians = alternate(sides, ROUNDS)
    result = {
        "detections": sum(len(found.scores) for found in detections.values()),
        "images": len(truth),
        "mean_ap": mean_ap,
        "rounds": ROUNDS,
        "median_seconds": medians,
        "ratio": medians["evaluate_voc"] / medians["faster_coco_eval"],
        "alone_median_seconds": alternate(alone, ALONE_ROUNDS),
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "evaluate_voc.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
