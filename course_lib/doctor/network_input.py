"""What the network's first convolution really receives, measured against the pixels of the batch."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient, evaluating
from course_lib.doctor.samples import loop_batches
from course_lib.voc import Batch

CHAPTER = 3
GRID = 16  # cells of a side, over which colours are averaged: so it does not matter that a network resizes by itself
LINEAR = 0.9  # share of the variance at least that a line explains, where pixels are normalised in the usual way


class Normalisation(NamedTuple):
    """How pixels become what the first convolution is given: channel by channel `(pixel - mean) / deviation`.

    Attributes:
        mean, deviation: of the network's channels in their order, 0 to 255.
        channels: which colour each of them is, 0 for red.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    channels: tuple[int, ...]

    def by_colour(self, values: Sequence[float]) -> list[float]:
        """Values of the network's channels in the order red, green, blue."""
        return [value for _, value in sorted(zip(self.channels, values, strict=True))]


def first_input(patient: Patient, batch: Any) -> Tensor | None:
    """What the first convolution of three channels receives when the patient's loop calls its network on a batch."""
    seen: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple) -> None:
        if not seen and inputs and torch.is_tensor(inputs[0]):
            seen.append(inputs[0].detach().float().cpu())

    layers = [layer for layer in patient.model.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            patient.outputs(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen and seen[0].ndim == 4 else None


def cells(images: Tensor) -> Float[Tensor, "N 3"]:
    """Mean colours of the cells of a grid over each image."""
    pooled = functional.adaptive_avg_pool2d(images.double(), GRID)
    return pooled.permute(0, 2, 3, 1).reshape(-1, 3)


def normalisation(received: Tensor, images: Tensor) -> Normalisation | None:
    """Fit what was received to the pixels, channel by channel; None where no line does."""
    if received.shape[:2] != images.shape[:2]:
        return None
    seen, pixels = cells(received), cells(images.float())
    if not torch.isfinite(seen).all() or not torch.isfinite(pixels).all() or float(pixels.std(dim=0).min()) < 1:
        return None
    fits = [[line(pixels[:, colour], seen[:, channel]) for colour in range(3)] for channel in range(3)]
    same, exchanged = (sum(fits[c][order[c]][2] for c in range(3)) for order in ((0, 1, 2), (2, 1, 0)))
    # Grey pictures fit in any order; what is exchanged fits far better so than in order.
    order = (2, 1, 0) if 3 - exchanged < 0.2 * (3 - same) else (0, 1, 2)
    chosen = [fits[channel][order[channel]] for channel in range(3)]
    if min(fit[2] for fit in chosen) < LINEAR or any(slope == 0 for slope, _, _ in chosen):
        return None
    mean, deviation = tuple(-start / slope for slope, start, _ in chosen), tuple(1 / slope for slope, _, _ in chosen)
    return Normalisation(mean, deviation, order)


def line(x: Float[Tensor, " N"], y: Float[Tensor, " N"]) -> tuple[float, float, float]:
    """Slope and start of the line that fits best, and the share of the variance that it explains."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / (dx * dx).sum().clamp(min=1e-12))
    start = float(y.mean()) - slope * float(x.mean())
    total = float((dy * dy).sum())
    left = float(((dy - slope * dx) ** 2).sum())
    return slope, start, 1 - left / total if total > 0 else 0.0


def expected(patient: Patient) -> tuple[list[float], list[float], str] | None:
    """Mean and deviation, RGB, 0 to 255, that the weights were made for, as far as somebody says it; and who."""
    if patient.expects is not None:
        return *(list(map(float, one)) for one in patient.expects), "the pretrained weights"
    backbone = getattr(patient.model, "backbone", None)
    if hasattr(backbone, "pixel_mean") and hasattr(backbone, "pixel_std"):
        return *(list(map(float, one)) for one in (backbone.pixel_mean, backbone.pixel_std)), "the model's backbone"
    inside = getattr(patient.model, "transform", None)
    if hasattr(inside, "image_mean") and hasattr(inside, "image_std"):  # torchvision's detectors
        return *([255 * value for value in one] for one in (inside.image_mean, inside.image_std)), "the model"
    return None


@check("model", "batches", "outputs")
def pixels_are_normalised_as_the_weights_expect(patient: Patient) -> Iterator[Finding]:
    """Does the first convolution receive pixels as its weights expect them?"""
    if not loop_batches(patient).read:
        return
    batch = patient.few_images()
    received, images = first_input(patient, batch), torch.as_tensor(patient.read(batch).images).cpu()
    if received is None:
        return
    if not torch.isfinite(received).all():
        why, cure = "everything after it is NaN", "look for a division by 0 between the picture and the network"
        yield fault("the first convolution receives NaN or infinite values", why, cure, CHAPTER)
        return
    found = normalisation(received, images)
    if found is None:
        if float(received.std()) < 1e-3 < float(images.float().std()):
            yield fault(
                f"the first convolution receives values that hardly differ: {float(received.mean()):.3g} with a "
                f"deviation of {float(received.std()):.2g}",
                "all pictures look the same to the network",
                "divide and subtract once, in one place",
                CHAPTER,
            )
        return
    known = expected(patient)
    yield from of_known(found, *known, patient.has("pretrained")) if known else of_unknown(found)
    if found.channels != (0, 1, 2) and (known and known[2] != "the pretrained weights"):
        yield warning(
            "the network receives blue, green, red, and its weights expect red, green, blue",
            "what pretrained filters know of colour is read the wrong way round",
            "give channels in one order; cv2.imread gives BGR",
            CHAPTER,
        )


def of_known(
    found: Normalisation, mean: Sequence[float], deviation: Sequence[float], whose: str, pretrained: bool
) -> Iterator[Finding]:
    """Compare what was measured with what is expected; published numbers differ by a fiftieth of a deviation."""
    measured_mean, measured = found.by_colour(found.mean), found.by_colour(found.deviation)
    if exchanged(measured_mean, mean):
        yield warning(
            f"the first convolution receives pixels less {shown(measured_mean)} (red, green, blue, 0 to 255), and due "
            f"for {whose} are less {shown(mean)}: red's and blue's means are exchanged",
            "red and blue are each off by the difference, in every pixel that the filters see",
            "put the means in the order of the channels: (104, 117, 123) is blue, green, red",
            CHAPTER,
        )
        return
    off = max(abs(a - b) / d for a, b, d in zip(measured_mean, mean, reach(deviation), strict=True))
    ratio = max(max(abs(a) / b, b / abs(a)) for a, b in zip(measured, deviation, strict=True))
    if off < 0.35 and ratio < 1.6 and min(measured) > 0:
        return
    far = off > 1 or ratio > 4 or min(measured) <= 0
    yield (fault if far and pretrained else warning)(
        f"the first convolution receives pixels less {shown(measured_mean)}, divided by {shown(measured)}; due "
        f"for {whose} are less {shown(mean)}, divided by {shown(deviation)} (red, green, blue, 0 to 255)"
        + divided_twice(measured, deviation),
        "filters that were trained on other values give features that mean nothing, and batch norm hides it",
        "normalise once, with the numbers that belong to the weights, in training and in detection",
        CHAPTER,
    )


def exchanged(measured: Sequence[float], mean: Sequence[float]) -> bool:
    """Whether what is subtracted from red and from blue is the mean of the other."""
    own, other = (max(abs(a - b) for a, b in zip(measured, order, strict=True)) for order in (mean, mean[::-1]))
    return own > LEAST_APART and other < 0.2 * own


LEAST_APART = 4.0  # of red's and blue's means: published ones are 20 apart
PUBLISHED = ((123.675, 116.28, 103.53), (123.0, 117.0, 104.0))  # ImageNet's by torchvision and by Caffe, red first


def reach(deviation: Sequence[float]) -> list[float]:
    """What counts as a deviation of pixels: weights that are not to be divided at all (1) mean pixels all the same."""
    return [value if value > 2 else 58.0 for value in deviation]


def divided_twice(measured: Sequence[float], deviation: Sequence[float]) -> str:
    ratio = sum(abs(a) / b for a, b in zip(measured, deviation, strict=True)) / 3
    return ": 0 to 1 where 0 to 255 are due, divided by 255 once more" if 200 < ratio < 320 else ""


def shown(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"


def of_unknown(found: Normalisation) -> Iterator[Finding]:
    """What no network wants, whatever its weights: a zero that is no pixel's value, or a step that is far too small.

    What becomes 0 is a value from 0 to 255 in every published normalisation, and what becomes 1 lies 1 to 255 above it.
    """
    measured = found.by_colour(found.mean)
    if any(exchanged(measured, mean) for mean in PUBLISHED):
        yield warning(
            f"the first convolution receives pixels less {shown(measured)} (red, green, blue, 0 to 255): these are "
            "ImageNet's means with red's and blue's exchanged",
            "weights that were trained with the usual ones see red and blue that are off in every pixel",
            "put the means in the order of the channels: (104, 117, 123) is blue, green, red",
            CHAPTER,
        )
        return
    for mean, deviation in zip(found.mean, found.deviation, strict=True):
        if not -32 <= mean <= 287 or not 0.4 <= abs(deviation) <= 600:
            yield warning(
                f"the first convolution receives pixels less {mean:.4g}, divided by {deviation:.4g} (0 to 255): no "
                "pixel is anywhere near 0, or all of them are",
                "a constant drowns what differs between pictures, or the first layer has next to nothing to multiply",
                "subtract the mean in the unit of the pixels: .485 belongs to 0..1, 123 to 0..255",
                CHAPTER,
            )
            return


@check("model", "batches", "outputs", "pretrained")
def pixels_are_those_that_statistics_know(patient: Patient) -> Iterator[Finding]:
    """Does the first batch norm meet what its pretrained statistics were taken from?"""
    off = distance(patient, loop_batches(patient).raw)
    # Measured with the trunk that EmojiVOC has taught: .003 to .06 in batches of EmojiVOC and of VOC. Which colour
    # comes first it does not tell: with red and blue exchanged it is .003 to .14.
    if off is not None and off > 4:
        yield warning(
            f"the first batch norm meets channels that are off by {off**0.5:.1f} deviations from its pretrained "
            "statistics",
            "filters that were trained on other values give features that mean nothing until they are relearned",
            "normalise with the numbers that belong to the weights",
            CHAPTER,
        )
        return
    own = [batch for batch in loop_batches(patient).raw if isinstance(batch, Batch)]  # others are not ours to change
    turned = own and off and distance(patient, [one._replace(images=one.images.flip(1)) for one in own])
    # Healthy 2.2 to 3.5 times as far with red and blue exchanged; with pictures that were read blue first half as far.
    if turned and turned < NEARER * off:
        yield note(
            "the channels at the first batch norm are nearer to its pretrained statistics with red and blue exchanged: "
            f"off by {turned**0.5:.3f} deviations, and by {off**0.5:.3f} as they are",
            "if the weights were trained on the other order, what they know of colour is read the wrong way round",
            "look at a picture with the colours that the network is given: cv2.imread reads blue first",
            CHAPTER,
        )


NEARER = 0.6


@check("model", "batches", "outputs", "pretrained")
def maps_are_those_that_statistics_know(patient: Patient) -> Iterator[Finding]:
    """Does every further batch norm meet maps such as its pretrained statistics were taken from?"""
    off = list(distances(patient, loop_batches(patient).raw).items())
    # With EmojiVOC's trunk at most .08 on EmojiVOC, .28 on VOC's pictures, .11 on grey ones, and no sudden rise.
    for (before, earlier), (name, later) in pairwise(off):
        if later > 0.9 and later > 5 * earlier:
            yield warning(
                f"batch norm {name} meets channels that are off by {later**0.5:.1f} deviations from its pretrained "
                f"statistics, and {before}, before it, by {earlier**0.5:.1f}",
                "what lies between the two is another network than the one that was pretrained: a scale, an activation "
                "or a pooling more, less, or in another place; a map that is normalised for the heads is to leave the "
                "trunk as it is",
                "compare this part with the network that the weights are from, layer by layer",
                CHAPTER,
            )
            return


def distance(patient: Patient, batches: Sequence[Any]) -> float | None:
    """The first of `distances`; None where the first batch norm is not among the pretrained tensors."""
    off = distances(patient, batches)
    first = next((name for name, layer in patient.model.named_modules() if isinstance(layer, nn.BatchNorm2d)), "")
    return off.get(first)


def distances(patient: Patient, batches: Sequence[Any]) -> dict[str, float]:
    """Mean squared deviation of the channels at each batch norm from its pretrained means, in their deviations.

    By its name, in the order in which they are met; without those whose statistics are not among the pretrained
    tensors.
    """
    seen: dict[str, list[Tensor]] = {}

    def keeping(name: str) -> Callable[[nn.Module, tuple], None]:
        def keep(_: nn.Module, inputs: tuple) -> None:
            seen.setdefault(name, []).append(inputs[0].detach().float().mean(dim=(2, 3)).cpu())

        return keep

    norms = [(name, layer) for name, layer in patient.model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(keeping(name)) for name, layer in norms]
    try:
        with evaluating(patient.model), torch.no_grad():
            for batch in batches:
                patient.outputs(batch)
    finally:
        for hook in hooks:
            hook.remove()
    off = {}
    for name, values in seen.items():
        known = [patient.pretrained.get(f"{name}.running_{what}") for what in ("mean", "var")]
        if all(one is not None for one in known):
            mean, variance = (one.detach().float().cpu() for one in known)
            off[name] = float(((torch.cat(values).mean(dim=0) - mean) ** 2 / variance.clamp(min=1e-8)).mean())
    return {name: value for name, value in off.items() if isfinite(value)}


CHECKS = (
    pixels_are_normalised_as_the_weights_expect,
    pixels_are_those_that_statistics_know,
    maps_are_those_that_statistics_know,
)
