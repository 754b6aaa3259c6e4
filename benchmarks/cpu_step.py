"""Three ways to more computation in the same minutes, each beside the cpu profile's step as it is.

    fused      in the frozen blocks, each batch norm is multiplied into the convolution before it
    kept       what the frozen blocks give is at hand: the most that computing it once could save. Augmentation shows
               them other pictures in every epoch, so a training could not use it as it is
    compiled   torch.compile; its own time, once for a run, is counted apart

All alternate in one process, on the same batch and from the same weights. Ratios are medians over the plain step's.
Result in benchmarks/results/cpu_step.json.
"""

import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.fusion import fuse_conv_bn_eval

from course_lib import losses, profiles, runs
from course_lib.files import write_whole
from course_lib.ssd import SSD
from course_lib.training import compute, make_optimizer
from course_lib.voc import ImageDataset, collate

THREADS, ROUNDS = 2, 40


class Kept(nn.Module):
    """Gives the same features, whatever it is shown."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features


def fused(layers: list[nn.Module]) -> list[nn.Module]:
    """The same layers, with no batch norm left behind a convolution."""
    done: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            done[-1] = fuse_conv_bn_eval(done[-1], layer)
        else:
            done.append(layer)
    return done


def sides(model: SSD, images: Tensor) -> dict[str, SSD]:
    """The model as it is, and with its frozen blocks made cheaper."""
    blocks = model.backbone.frozen
    frozen = [layer for block in blocks for layer in block]
    rest = list(model.backbone.to_conv4_3)[len(frozen) :]
    with torch.no_grad():
        features = nn.Sequential(*frozen)(model.normalise(images))
    made = {"plain": model}
    for name, first in (("fused", fused(copy.deepcopy(frozen))), ("kept", [Kept(features)])):
        backbone = copy.deepcopy(model.backbone)
        backbone.to_conv4_3 = nn.Sequential(*first, *copy.deepcopy(rest))
        backbone.frozen = first
        made[name] = copy.deepcopy(model)
        made[name].backbone = backbone.train()
    return made


def main() -> None:
    torch.set_num_threads(THREADS)
    profile = profiles.cpu()
    profile.prepare()
    recipe, dataset = profile.recipe, ImageDataset(profile.train, profile.training_transform())
    batch = collate([dataset[index] for index in range(recipe.batch_size)])
    model = profile.model().train()
    model.load_state_dict(profile.trained().state_dict())
    model.backbone.freeze(recipe.frozen_blocks)
    models = sides(model, batch.images)
    networks = dict(models) | {"compiled": torch.compile(copy.deepcopy(model))}
    criterion = losses.MultiBoxLoss()

    def step_of(network: nn.Module) -> Callable[[], float]:
        optimizer = make_optimizer(getattr(network, "_orig_mod", network), recipe)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            cost = losses.total(compute(network, batch, criterion, recipe.match_iou, model.priors).parts)
            cost.backward()
            clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            return cost.item()

        return step

    steps = {name: step_of(network) for name, network in networks.items()}
    first_seconds, first_loss = {}, {}
    for name, step in steps.items():
        started = time.perf_counter()
        first_loss[name] = step()
        first_seconds[name] = time.perf_counter() - started
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS):
        for name in sorted(steps, reverse=bool(round_ % 2)):
            started = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "threads": THREADS,
        "batch": recipe.batch_size,
        "rounds": ROUNDS,
        "median_seconds": medians,
        "ratio": {name: seconds / medians["plain"] for name, seconds in medians.items()},
        "first_step_seconds": first_seconds,
        "first_loss": first_loss,
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "cpu_step.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
