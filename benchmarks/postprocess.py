"""From raw outputs to detections: the course beside torchvision's SSD.postprocess_detections, same settings.

Batches of 8 images, SSD300's 8732 priors, 21 classes. Two kinds of outputs: peaked, as a trained network gives
them, and noise, where every class fills its top-k. Alternates both sides in one process, checks that both find
the same, and prints the ratio of medians. Result in benchmarks/results/postprocess.json.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD

from course_lib import runs
from course_lib.boxes import box_iou, encode, to_corners
from course_lib.detect import Detections, detect
from course_lib.files import write_whole
from course_lib.priors import SSD300

BATCH, CLASSES, ROUNDS, THREADS = 8, 21, 30, 2
SIZE = SSD300.image_size
PRIORS = SSD300.boxes()
CORNERS = to_corners(PRIORS)
TORCHVISION = SimpleNamespace(
    box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
    score_thresh=0.01,
    nms_thresh=0.45,
    topk_candidates=400,
    detections_per_img=200,
)
Outputs = tuple[Tensor, Tensor]  # offsets [B, P, 4] and logits [B, P, C]


def peaked(seed: int) -> Outputs:
    """What a trained network answers: sure of background, less so the more a prior overlaps one of four objects.

    Some 800 candidates and 100 detections an image, as the course's recorded detector has on its test images.
    """
    g = torch.Generator().manual_seed(seed)
    size = 0.1 + 0.5 * torch.rand(BATCH, 4, 2, generator=g)
    low = torch.rand(BATCH, 4, 2, generator=g) * (1 - size)
    boxes, labels = torch.cat([low, low + size], dim=-1), torch.randint(1, CLASSES, (BATCH, 4), generator=g)
    overlap, nearest = box_iou(boxes, CORNERS).max(dim=1)  # [B, P]
    image = torch.arange(BATCH)[:, None]
    offsets = encode(boxes[image, nearest], PRIORS) + 0.5 * torch.randn(BATCH, len(PRIORS), 4, generator=g)
    logits = torch.randn(BATCH, len(PRIORS), CLASSES, generator=g)
    logits[..., 0] += 9
    logits.scatter_add_(2, labels[image, nearest][..., None], 16 * overlap[..., None])
    return offsets * (overlap > 0.1)[..., None], logits


def noise(seed: int) -> Outputs:
    """A network that knows nothing: almost every prior passes the threshold for every class."""
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(BATCH, len(PRIORS), width, generator=g) for width in (4, CLASSES))


def course(offsets: Tensor, logits: Tensor) -> list[Detections]:
    return detect(offsets, logits, PRIORS)


def torchvision(offsets: Tensor, logits: Tensor) -> list[dict[str, Tensor]]:
    """As in torchvision's SSD.forward."""
    outputs = {"bbox_regression": offsets, "cls_logits": logits}
    return SSD.postprocess_detections(TORCHVISION, outputs, [CORNERS * SIZE] * BATCH, [(SIZE, SIZE)] * BATCH)


def agree(ours: list[Detections], theirs: list[dict[str, Tensor]]) -> bool:
    """Equal labels, boxes to a hundredth of a pixel, scores to float32's rounding; ties in the labels' order."""
    for a, b in zip(ours, theirs, strict=True):
        order = np.lexsort((b["labels"], -b["scores"]))
        if not torch.equal(a.labels, b["labels"][order]):
            return False
        torch.testing.assert_close(a.scores, b["scores"][order], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(a.boxes * SIZE, b["boxes"][order], rtol=0, atol=1e-2)
    return True


def timed(side: Callable, outputs: Outputs) -> tuple[list, float]:
    started = time.perf_counter()
    found = side(*outputs)
    return found, time.perf_counter() - started


@torch.inference_mode()
def measure(make: Callable[[int], Outputs]) -> dict:
    seconds, candidates, found, agreed = {"course": [], "torchvision": []}, [], [], 0
    for seed in range(-1, ROUNDS):  # the first round warms up
        outputs = make(seed)
        ours, our_seconds = timed(course, outputs)
        theirs, their_seconds = timed(torchvision, outputs)
        seconds["course"].append(our_seconds)
        seconds["torchvision"].append(their_seconds)
        agreed += agree(ours, theirs)
        candidates.append((outputs[1].softmax(dim=-1)[..., 1:] > TORCHVISION.score_thresh).sum().item() / BATCH)
        found.append(sum(len(one.labels) for one in ours) / BATCH)
    medians = {side: statistics.median(values[1:]) for side, values in seconds.items()}
    return {
        "candidates_per_image": statistics.mean(candidates),
        "detections_per_image": statistics.mean(found),
        "batches": ROUNDS + 1,
        "batches_with_the_same_detections": agreed,
        "median_seconds": medians,
        "ratio": medians["course"] / medians["torchvision"],
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    result: dict = {"batch": BATCH, "threads": THREADS, "rounds": ROUNDS, "outputs": {}}
    for make in (peaked, noise):
        result["outputs"][make.__name__] = measure(make)
        print(f"{make.__name__}: {json.dumps(result['outputs'][make.__name__])}")
    result["provenance"] = runs.environment()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "postprocess.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
