"""One training step: the course beside torchvision and beside its network alone, and what matching is of it.

- SSD300 on 4 images. The step: match, forward, loss, backward, SGD. Torchvision's side is `ssd300_vgg16`'s own training
  forward. The network alone goes forward and backward with a plain sum for a loss: what is left is the price of match
  and loss;
- both models on 32 images: the whole step, matching alone, and match, loss and their gradients alone, for as many
  objects as the images of VOC2007 have; matching alone in crowds, too.

What is compared alternates in one process, and the ratios are those of medians. Result in
benchmarks/results/training_step.json. The second part needs about 10 GB of memory.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from match_and_loss import make_batch, voc2007_counts
from torch import Tensor, nn

from course_lib import losses, runs, ssd, training, voc
from course_lib.files import write_whole
from course_lib.matching import match

BATCH, SLOTS, ROUNDS, THREADS = 4, 3, 5, 2
WHOLE_BATCH, CROWDS = 32, (15, 40, 100)  # images of a step as the profiles take it; objects in each of them


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


def parts_of_a_step(architecture: str) -> dict[str, Callable[[], object]]:
    """The whole step on a batch of a profile's size, and its parts that are not the network's."""
    g = torch.Generator().manual_seed(0)
    model, multibox, voc2007 = ssd.ARCHITECTURES[architecture]().train(), losses.MultiBoxLoss(), voc2007_counts()
    counts = [voc2007[i] for i in torch.randint(len(voc2007), (WHOLE_BATCH,), generator=g).tolist()]
    batch, side = make_batch(counts, 0, model.priors), model.image_size
    images = torch.randint(0, 256, (WHOLE_BATCH, 3, side, side), generator=g, dtype=torch.uint8)

    def cost(offsets: Tensor, logits: Tensor) -> Tensor:
        return losses.total(multibox(offsets, logits, match(batch.boxes, batch.labels, model.priors)))

    def match_and_loss() -> None:
        batch.offsets.grad = batch.logits.grad = None
        cost(batch.offsets, batch.logits).backward()

    def matching(boxes: Tensor, labels: Tensor) -> Callable[[], object]:
        return lambda: match(boxes, labels, model.priors)

    crowded = {crowd: make_batch([crowd] * WHOLE_BATCH, 0, model.priors) for crowd in CROWDS}
    return {
        "step": stepper(model, lambda: cost(*model(images))),
        "match_and_loss": match_and_loss,
        "match": matching(batch.boxes, batch.labels),
        **{f"match_{crowd}": matching(one.boxes, one.labels) for crowd, one in crowded.items()},
    }


def medians_of(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(ROUNDS + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if round_:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    torch.set_num_threads(THREADS)
    medians = medians_of(sides())
    result = {
        "batch": BATCH,
        "threads": THREADS,
        "rounds": ROUNDS,
        "median_seconds": medians,
        "ratio_to_torchvision": medians["course"] / medians["torchvision"],
        "ratio_to_network_alone": medians["course"] / medians["network_alone"],
        "of_a_step": {"batch": WHOLE_BATCH},
    }
    for architecture in ("ssd_mini", "ssd300_vgg16"):
        seconds = medians_of(parts_of_a_step(architecture))
        shares = {name: value / seconds["step"] for name, value in seconds.items() if name != "step"}
        result["of_a_step"][architecture] = {"median_seconds": seconds, "share": shares}
    result["provenance"] = runs.environment()
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "training_step.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
