"""Before a backbone looks for objects it learns to tell them apart, on pictures that show just one.

SSD300 starts from VGG16 as ImageNet trained it. A reader without ImageNet does the same on a small scale:
cut the objects out of the training images, and classify them.
"""

import zlib
from collections.abc import Callable
from math import tau
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from course_lib import weights
from course_lib.backbones import Classifier
from course_lib.files import DataError
from course_lib.schedules import warmup_cosine
from course_lib.ssd import SSD
from course_lib.stopping import stop_signals
from course_lib.voc import ImageDataset

CROP = 48  # pixels
MARGIN = 1.25  # side of the square that is cut out, as a multiple of the object's longer side
BATCH = 32
PEAK_RATE = 1e-3
WARMUP = 50
KEEP_EVERY = 100  # steps

# From RGB to brightness and two axes of colour, in whose plane an angle is a hue (YIQ, the old colour television's).
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def crop(
    image: UInt8[np.ndarray, "H W 3"], box_px: tuple[float, float, float, float], side: int = CROP
) -> UInt8[np.ndarray, "S S 3"]:
    """A square around a box, scaled to `side` pixels; what lies beyond the image is black."""
    xmin, ymin, xmax, ymax = box_px
    scale = side / (MARGIN * max(xmax - xmin, ymax - ymin))
    shift = side / 2 - scale * np.array([(xmin + xmax) / 2, (ymin + ymax) / 2])
    if scale < 1:  # average the pixels that fall together, or fine patterns turn into false ones
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        scale = 1.0
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def objects_of(dataset: ImageDataset, side: int = CROP) -> tuple[UInt8[Tensor, "N 3 S S"], Int[Tensor, " N"]]:
    """Every object of a data set that is not difficult, cut out, and its class counted from 0."""
    crops, labels = [], []
    for index in range(len(dataset)):
        image, target = dataset.load(index)
        for box, label, difficult in zip(
            target.boxes_px.tolist(), target.labels.tolist(), target.difficult, strict=True
        ):
            if not difficult:
                crops.append(crop(image, tuple(box), side))
                labels.append(label - 1)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2), torch.tensor(labels)


def jitter(images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Each picture zoomed, shifted and perhaps mirrored: a prior does not sit squarely on its object either."""
    count = len(images)
    zoom = torch.exp(torch.empty(count, 2).uniform_(-0.35, 0.25, generator=generator))
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom[:, 0] * mirror, zoom[:, 1]
    theta[:, :, 2].uniform_(-0.25, 0.25, generator=generator)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def recolour(images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Half of the pictures in another light: `augment.training_mini`'s ranges, for a whole batch at once."""

    def factor(low: float, high: float) -> Float[Tensor, " B"]:
        return torch.empty(len(images)).uniform_(low, high, generator=generator)

    brightness, contrast, saturation = factor(0.875, 1.125), factor(0.5, 1.5), factor(0.5, 1.5)
    hue = factor(-0.1, 0.1) * tau
    turn = torch.eye(3).repeat(len(images), 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * hue.cos()
    turn[:, 2, 1] = saturation * hue.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    mix = brightness[:, None, None] * (YIQ.inverse() @ turn @ YIQ)
    mixed = torch.einsum("bij,bjhw->bihw", mix.to(images.device), images)
    grey = torch.einsum("j,bjhw->bhw", YIQ[0].to(images.device), mixed).mean(dim=(1, 2))[:, None, None, None]
    changed = grey + contrast.to(images.device)[:, None, None, None] * (mixed - grey)
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], changed.clamp(0, 255), images)


def pretrain(
    model: SSD,
    dataset: ImageDataset,
    steps: int,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, accuracy: None,
    state: Path | None = None,
) -> float:
    """Train a detector's backbone as a classifier of cut-out objects; gives its accuracy.

    Every map of it that the detector's heads will look at must tell the classes, by itself.

    Args:
        model: of its backbone what a classifier teaches is trained in place, everything else stays.
        dataset: training images; a tenth of their objects is kept back to measure the accuracy by.
        steps: of 32 crops.
        report: called after each tenth of the steps, with the step and the accuracy since.
        state: file in which every `KEEP_EVERY` steps, and when a signal ends it, all that the next ones need is
            kept. A call that finds it goes on from there, and ends with the same weights as one that nobody
            interrupted. It stays: whoever keeps the weights may remove it.

    Raises:
        DataError: `state` is broken, or was begun with another model, seed, number of steps or data.
        stopping.Stopped: a signal has asked for it; a step was finished.
    """
    crops, labels = objects_of(dataset)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = Classifier(model.backbone, model.num_classes - 1)
    classifier.to(model.mean.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(classifier.learning(), lr=PEAK_RATE)
    schedule = warmup_cosine(optimizer, min(WARMUP, steps - 1), steps)
    order = torch.randperm(len(crops), generator=generator)
    kept_back, order = order[: len(order) // 10], order[len(order) // 10 :]
    asked = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "seed": seed,
        "steps": steps,
        "data": f"{len(crops)} crops, checksum {checksum(crops, labels):08x}",
    }
    learning = {"classifier": classifier, "optimizer": optimizer, "schedule": schedule}
    begin, right = go_on(state, asked, learning, generator) if state and state.exists() else (0, [])
    with stop_signals() as stop:
        for step in range(begin, steps):
            chosen = order[torch.randint(len(order), (BATCH,), generator=generator)]
            right.append(learn(classifier, model, optimizer, crops[chosen], labels[chosen], generator))
            schedule.step()
            if (step + 1) % max(1, steps // 10) == 0:
                report(step + 1, torch.stack(right).mean().item())
                right.clear()
            stopped = stop.number is not None
            if state and (stopped or (step + 1) % KEEP_EVERY == 0):
                write_state(state, asked, learning, generator, step + 1, right)
            if stopped:
                stop.end()
    return accuracy(classifier, model, crops[kept_back], labels[kept_back])


def learn(
    classifier: Classifier,
    model: SSD,
    optimizer: torch.optim.Optimizer,
    crops: UInt8[Tensor, "B 3 S S"],
    labels: Int[Tensor, " B"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """One step on a batch of crops; gives the share of them whose class the deepest map named right."""
    images = jitter(crops.to(model.mean.device).float(), generator)
    answers = classifier(model.normalise(recolour(images, generator)))
    truth = labels.to(answers[-1].device)
    optimizer.zero_grad(set_to_none=True)
    sum(F.cross_entropy(answer, truth) for answer in answers).backward()
    optimizer.step()
    return (answers[-1].argmax(dim=1) == truth).float().mean()


def checksum(crops: UInt8[Tensor, "N 3 S S"], labels: Int[Tensor, " N"]) -> int:
    """A number by which the same crops are known again."""
    return zlib.crc32(labels.numpy(), zlib.crc32(np.ascontiguousarray(crops)))


def write_state(
    state: Path,
    asked: dict[str, Any],
    learning: dict[str, Any],
    generator: torch.Generator,
    step: int,
    right: list[Tensor],
) -> None:
    """Write all that the steps after `step` depend on, whole or not at all."""
    parts = {name: part.state_dict() for name, part in learning.items()}
    right = torch.tensor([share.item() for share in right])
    kept = {**asked, **parts, "generator": generator.get_state(), "step": step, "right": right}
    weights.write_state(state, kept)


def go_on(
    state: Path, asked: dict[str, Any], learning: dict[str, Any], generator: torch.Generator
) -> tuple[int, list[Tensor]]:
    """Take up what `write_state` wrote; gives the steps that are done, and the shares right since the last report."""
    saved = read_state(state)
    begun = {name: saved.get(name) for name in asked if saved.get(name) != asked[name]}
    if begun:
        raise DataError(
            state,
            "what was begun",
            begun,
            f"asked for is { ({name: asked[name] for name in begun}) }: ask for the same again, choose another folder "
            "for the run or --fresh, or remove this file",
        )
    try:
        # An earlier edition's classifier lacks what pretraining leaves alone: L2Norm was no part of the backbone.
        left_alone = {name: tensor for name, tensor in learning["classifier"].state_dict().items() if "l2_norm" in name}
        saved["classifier"] = left_alone | weights.in_todays_names(saved["classifier"])
        for name, part in learning.items():
            part.load_state_dict(saved[name])
        generator.set_state(saved["generator"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise unusable(state, f"{type(error).__name__}: {error}".splitlines()[0]) from None
    return saved["step"], list(saved["right"])


def read_state(state: Path) -> dict[str, Any]:
    """What an interrupted `pretrain` has kept, on the CPU; its "step" says how many steps are done.

    Raises:
        DataError: the file is broken, or something else.
    """
    try:
        saved = weights.read_state(state)
    except DataError as error:
        raise unusable(state, error.value) from None
    if not {"step", "right"} <= saved.keys():
        raise unusable(state, "no state of pretraining")
    return saved


def unusable(state: Path, problem: object) -> DataError:
    return DataError(state, "state", problem, "pretraining cannot go on from it: remove it, and it begins anew")


@torch.inference_mode()
def accuracy(classifier: Classifier, model: SSD, crops: UInt8[Tensor, "N 3 S S"], labels: Int[Tensor, " N"]) -> float:
    """Share of crops whose class the deepest map names right."""
    classifier.eval()
    device = model.mean.device
    named = [classifier(model.normalise(part.to(device)))[-1].argmax(dim=1).cpu() for part in crops.split(256)]
    return (torch.cat(named) == labels).float().mean().item()
