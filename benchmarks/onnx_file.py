"""A detector in torch and as an ONNX file in onnxruntime: images per second, with one thread and with all cores.

`ssd_mini`, the course's recorded weights, on random pictures, one at a time and in batches of 8. Both sides give the
box and the scores of every prior, before NMS; they alternate in one process, and the script checks that both give the
same to 1e-4 and prints the ratio of medians. Result in benchmarks/results/onnx_file.json.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import torch

from course_lib import export, onnx_graphs, profiles, runs, weights
from course_lib.files import write_whole

ROUNDS, BATCHES = 40, (1, 8)
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def timed(side: Callable, images: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
    started = time.perf_counter()
    outputs = side(images)
    return outputs, time.perf_counter() - started


@torch.inference_mode()
def measure(sides: dict[str, Callable], batch: int, size: int) -> dict:
    """Images per second of both sides, and how many times as fast the file is."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for seed in range(-2, ROUNDS):  # the first two rounds warm up
        g = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=g)
        outputs = {}
        for name, side in sides.items():
            outputs[name], took = timed(side, images)
            seconds[name].append(took)
        for ours, theirs in zip(*outputs.values(), strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE)
    medians = {side: statistics.median(values[2:]) for side, values in seconds.items()}
    return {
        "images_per_second": {side: batch / median for side, median in medians.items()},
        "ratio": medians["torch"] / medians["onnxruntime"],
    }


def main() -> None:
    model = weights.load(profiles.RECORD)
    result: dict = {"architecture": model.architecture, "rounds": ROUNDS, "threads": {}}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        export.to_onnx(model, path)
        for threads in sorted({1, os.cpu_count() or 1}):
            torch.set_num_threads(threads)
            session = export.load_onnx(path, threads).session
            sides = {
                "torch": onnx_graphs.Decoded(model),
                "onnxruntime": lambda images, session=session: [
                    torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})
                ],
            }
            of_batch = {batch: measure(sides, batch, model.image_size) for batch in BATCHES}
            result["threads"][threads] = {"batch": of_batch}
            print(f"onnx_file: {threads} threads: {json.dumps(of_batch)}")
    result["provenance"] = runs.environment() | {"onnxruntime": onnxruntime.__version__}
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "onnx_file.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
