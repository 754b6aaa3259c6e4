"""One training step of SSD300 on 4 images: the course beside torchvision, and beside its network alone.

The step: match, forward, loss, backward, SGD. Torchvision's side is `ssd300_vgg16`'s own training forward. The
network alone goes forward and backward with a plain sum for a loss: what is left is the price of match and loss.
Alternates the three in one process and prints the ratios of medians. Result in benchmarks/results/training_step.json.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from course_lib import losses, runs, ssd, training, voc
from course_lib.files import write_whole

BATCH, SLOTS, ROUNDS, THREADS = 4, 3, 5, 2


def stepper(model: nn.Module, cost: Callable[[], Tensor]) -> Callable[[], None]:
    """The step that reduces `cost` by the model's parameters; so slightly that every step is alike."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cost().backward()
        optimizer.step()

    return step


def sides() -> dict[str, Callable[[], None]]:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 300, 300), generator=g, dtype=torch.uint8)
    low = torch.rand(BATCH, SLOTS, 2, generator=g) * 0.6
    boxes = torch.cat([low, low + 0.05 + 0.35 * torch.rand(BATCH, SLOTS, 2, generator=g)], dim=-1)
    labels = torch.randint(1, 21, (BATCH, SLOTS), generator=g)

    ours, multibox = ssd.ssd300_vgg16().train(), losses.MultiBoxLoss()
    theirs = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).train()
    fractions = list(images / 255)
    targets = [{"boxes": b * 300, "labels": c} for b, c in zip(boxes, labels, strict=True)]

    batch = voc.Batch(images, boxes, labels, labels == 0, [""] * BATCH, [(300, 300)] * BATCH)

    def course() -> Tensor:
        return losses.total(training.compute(ours, batch, multibox, match_iou=0.5).parts)

    def network_alone() -> Tensor:
        offsets, logits = ours(images)
        return offsets.sum() + logits.sum()

    return {
        "course": stepper(ours, course),
        "torchvision": stepper(theirs, lambda: losses.total(theirs(fractions, targets))),
        "network_alone": stepper(ours, network_alone),
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    steps = sides()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS + 1):  # the first round warms up
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if round_:
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "batch": BATCH,
        "threads": THREADS,
        "rounds": ROUNDS,
        "median_seconds": medians,
        "ratio_to_torchvision": medians["course"] / medians["torchvision"],
        "ratio_to_network_alone": medians["course"] / medians["network_alone"],
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "training_step.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
