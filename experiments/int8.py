"""What does int8 cost, and what does it give? Size, speed and mean AP of a detector's ONNX file in float and in int8.

`ssd_mini`, the course's recorded weights, on EmojiVOC's test images; calibrated on its training images. With the folder
of a run on photographs, `python experiments/int8.py runs/photos`, also that run's best weights, on the list of its tree
that `evaluate --run` measures on, or the one that is named after the folder; calibrated on what it was trained on.
Result in experiments/results/int8.json, each model with its own provenance.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import torch

from course_lib import export, own_tree, profiles, runs, ssd, weights
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


def photographs(run: Path, on: str | None = None) -> tuple[ssd.SSD, ImageSet, ImageDataset]:
    """The detector of a run, pictures to calibrate on, and photographs to measure on."""
    data = runs.read_provenance(run)["data"]
    test, _ = own_tree.to_measure(run, on=on)
    return weights.load(run / "best.safetensors"), ImageSet(data["tree"], data["train_on"]), ImageDataset((test,))


def main() -> None:
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"models": {}}
    missing = {}
    if "ssd_mini" not in result["models"]:
        profile = profiles.cpu()
        profile.prepare(show_progress=True)
        missing["ssd_mini"] = weights.load(profile.record), profile.train[0], ImageDataset(profile.test)
    if sys.argv[1:]:
        given = photographs(Path(sys.argv[1]), *sys.argv[2:3])
        missing[given[0].architecture] = given
    for name, given in missing.items():
        print(f"int8: {name}", flush=True)
        made = runs.environment() | {"onnxruntime": onnxruntime.__version__}
        result["models"][name] = measured(*given) | {"threads": 1, "batch": BATCH, "provenance": made}
        result["provenance"] = made
    if missing:
        RESULT.parent.mkdir(exist_ok=True)
        write_whole(RESULT, json.dumps(result, indent=1) + "\n")
        print(f"int8: {RESULT}")


if __name__ == "__main__":
    main()
