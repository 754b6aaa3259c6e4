"""What does int8 cost, and what does it give? Size, speed and mean AP of a detector's ONNX file in float and in int8.

`ssd_mini`, the course's recorded weights, on EmojiVOC's test images; calibrated on its training images. `ssd_lite0` on
photographs: the best weights of runs/photos on the list `val` of the tree PHOTOS names (its VOC2012, or the tree
itself), calibrated on `train`; where there is either no run or no tree it is left out, and asked for again next time.
Result in experiments/results/int8.json.
"""

import json
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import torch

from course_lib import export, profiles, runs, ssd, weights
from course_lib.files import write_whole
from course_lib.voc import ImageDataset, ImageSet

RESULT = Path(__file__).parent / "results" / "int8.json"
ROUNDS, BATCH = 40, 8


def images_per_second(detectors: dict[str, export.OnnxDetector], images: torch.Tensor) -> dict[str, float]:
    """Of the network alone, without NMS, on one thread: medians of runs that alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(ROUNDS):
        for name, detector in detectors.items():
            started = time.perf_counter()
            detector.session.run(None, {"images": images.numpy()})
            seconds[name].append(time.perf_counter() - started)
    return {name: len(images) / statistics.median(some[1:]) for name, some in seconds.items()}


def measured(model: ssd.SSD, calibration: ImageSet, dataset: ImageDataset) -> dict:
    """Both files of a model on a data set."""
    pictures = list(export.calibration_pictures(calibration.tree, calibration.name, model.image_size))
    result = {"architecture": model.architecture, "calibration_images": len(pictures), "images": len(dataset)}
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in ("float", "int8")}
        export.to_onnx(model, paths["float"])
        export.to_onnx(model, paths["int8"], calibration=pictures)
        detectors = {name: export.load_onnx(path, threads=1) for name, path in paths.items()}
        speed = images_per_second(detectors, torch.cat(pictures[:BATCH]))
        for name, path in paths.items():
            report = export.evaluate_onnx(detectors[name], dataset)
            size = {"bytes": path.stat().st_size, "images_per_second": speed[name]}
            result[name] = size | {"mean_ap": report["mean_ap"], "ap": report["ap"]}
    result["ratio_of_speeds"] = speed["int8"] / speed["float"]
    return result


def photographs() -> tuple[ssd.SSD, ImageSet, ImageDataset] | None:
    """The detector of runs/photos, pictures to calibrate on, and photographs to measure on; None where they are not."""
    path, folder = profiles.RUNS / "photos" / "best.safetensors", os.environ.get("PHOTOS")
    if not folder or not path.exists():
        return None
    model = weights.load(path)
    tree = next((one for one in (Path(folder) / "VOCdevkit" / "VOC2012", Path(folder)) if one.is_dir()), Path(folder))
    return model, ImageSet(tree, "train"), ImageDataset((ImageSet(tree, "val", model.classes),))


def main() -> None:
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"models": {}}
    missing = {}
    if "ssd_mini" not in result["models"]:
        profile = profiles.cpu()
        profile.prepare(show_progress=True)
        missing["ssd_mini"] = weights.load(profile.record), profile.train[0], ImageDataset(profile.test)
    if "ssd_lite0" not in result["models"] and (given := photographs()):
        missing["ssd_lite0"] = given
    for name, given in missing.items():
        print(f"int8: {name}", flush=True)
        result["models"][name] = measured(*given) | {"threads": 1, "batch": BATCH}
    if missing:
        result["provenance"] = runs.environment() | {"onnxruntime": onnxruntime.__version__}
        RESULT.parent.mkdir(exist_ok=True)
        write_whole(RESULT, json.dumps(result, indent=1) + "\n")
        print(f"int8: {RESULT}")


if __name__ == "__main__":
    main()
