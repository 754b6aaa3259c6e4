"""Snippets that people find when a detector does not learn, as they are and repaired: chapter 15's page of recipes.

A function that is called `..._as_found` does, in this course's words, what a page in circulation does. It is a fault to
be looked at: do not use it. Beside it stands its repair, where the library has none elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import albumentations as A
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, StepLR
from torchvision import transforms as T


@dataclass(frozen=True)
class Snippet:
    """A snippet in circulation, in a line each.

    Attributes:
        title: what it is.
        source: the page's entry in the bibliography.
        promise: what that page says of it.
        stops: it ends in an error today; else it runs, and does something else than is said.
        today: what happens.
        instead: what to write.
    """

    title: str
    source: str
    promise: str
    stops: bool
    today: str
    instead: str


# The pages, by their keys in the bibliography.
VGG, SILENT = "circulating2025vgg", "circulating2025"
CIFAR, MOBILE = "circulating2025cifar", "circulating2025stagnating"

# In the order of the page; a key is the name of the section.
SNIPPETS = {
    "web-cyclical": Snippet(
        "A cyclical rate", VGG, "adjusts the rate over epochs", False,
        "counts steps: a short run sees half a triangle and ends at its highest rate; it also turns AdamW's momentum",
        "cycles as shares of the run, cycle_momentum=False",
    ),
    "web-staircase": Snippet(
        "A rate in stairs", MOBILE, "prevents oscillations at the beginning", False,
        "the first stair comes after 10,000 steps; before that nothing happens",
        "stairs as shares of the run; for the beginning, a warmup",
    ),
    "web-plateau": Snippet(
        "A plateau of batches", SILENT, "helps to escape local minima", False,
        "one batch's loss is noise: the rate is gone after some dozen steps",
        "step it once an epoch, by a measurement on held-out pictures",
    ),
    "web-verbose": Snippet(
        "A plateau that speaks", CIFAR, "says when the rate falls", True,
        "the argument verbose is gone",
        "print get_last_lr()",
    ),
    "web-weights": Snippet(
        "Class weights", VGG, "more weight to rare classes", True,
        "one weight too few: background is a class; and a weighted mean divides the weights out again",
        "a weight for background, and a sum divided by the positives",
    ),
    "web-keras": Snippet(
        "Class weights in Keras", MOBILE, "more weight to rare classes", True,
        "weighs samples by their place in the batch, takes logits for probabilities, and measures accuracy",
        "look the weight up by label; from_logits=True; mAP",
    ),
    "web-clipnorm": Snippet(
        "Gradient clipping in Keras", MOBILE, "prevents large gradients", False,
        "clips each variable by itself, and so turns the step",
        "clip all together: clip_grad_norm_, or global_clipnorm",
    ),
    "web-loader": Snippet(
        "A loader with workers", VGG, "loads in parallel", True,
        "boxes of two pictures cannot be stacked",
        "a collate function that pads",
    ),
    "web-augmentation": Snippet(
        "Augmentation against imbalance", SILENT, "mitigates class imbalance", True,
        "two transforms fail; mended, it mixes labels up, gives bytes, and leaves the classes as unequal as they were",
        "label_fields, crops that keep objects; balance is another matter",
    ),
    "web-looking": Snippet(
        "Looking at boxes", SILENT, "shows errors in annotations", False,
        "shows its own errors: fractions as pixels, colours exchanged, numbers for names",
        "draw what the loss gets, in its units, with names",
    ),
    "web-cifar": Snippet(
        "Augmentation for CIFAR-10", CIFAR, "generalises better", False,
        "black corners; a deviation that is not the data's; the erasing that is advised is left out",
        "fill with the mean, measure the deviation, erase",
    ),
    "web-initial": Snippet(
        "Weights to begin with", CIFAR, "prevents vanishing gradients", False,
        "biases that nothing can move, no pooling; and applied to taught weights, it erases them",
        "no bias before batch norm; initialise before loading",
    ),
}  # fmt: skip


# ---- schedules that count steps --------------------------------------------------------------------------------------


def cyclical_as_found(optimizer: Optimizer) -> CyclicLR:
    """Triangles of 4,000 steps between two rates, each half as high as the one before, stepped with the optimizer."""
    return CyclicLR(optimizer, base_lr=1e-5, max_lr=1e-3, step_size_up=2000, step_size_down=2000, mode="triangular2")


def staircase_as_found(optimizer: Optimizer) -> StepLR:
    """TensorFlow's `ExponentialDecay(rate, 10000, 0.96, staircase=True)`, stepped with the optimizer."""
    return StepLR(optimizer, step_size=10_000, gamma=0.96)


class Pace(NamedTuple):
    """With what each step of a run is taken: the learning rate, and AdamW's first beta, its momentum."""

    rates: list[float]
    momenta: list[float]


def pace(schedule: Callable[[Optimizer], LRScheduler], steps: int, rate: float) -> Pace:
    """What a schedule makes of AdamW, step by step.

    Args:
        schedule: made for an optimizer, and stepped behind each of its steps.
        steps: of the run.
        rate: that the optimizer is made with.
    """
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=rate)
    made, seen = schedule(optimizer), []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))
        optimizer.step()
        made.step()
    return Pace(*(list(column) for column in zip(*seen, strict=True)))


# ---- class weights ---------------------------------------------------------------------------------------------------


def class_weights(counts: Int[Tensor, " C"]) -> Float[Tensor, " C+1"]:
    """A weight for background and one for each class, for `MultiBoxLoss`.

    Each class weighs as much as any other, all its objects together; an object weighs 1 on average, as a background
    prior does, so that positives and negatives stay in the proportion that mining gives them.

    Args:
        counts: objects of each class in the training set, without background.

    Raises:
        ValueError: a class has no objects, and no weight would make it count.
    """
    if (counts < 1).any():
        missing = (counts < 1).nonzero()[:, 0].tolist()
        raise ValueError(f"class_weights: classes {missing} have no objects: leave them out, or add pictures of them")
    weights = counts.sum() / (len(counts) * counts.float())
    return torch.cat([torch.ones(1), weights])


def keras_cross_entropy(
    one_hot: Float[Tensor, "*batch C"], probabilities: Float[Tensor, "*batch C"]
) -> Float[Tensor, "*batch"]:
    """Keras's `categorical_crossentropy` by its default, `from_logits=False`: one number for each sample.

    Source: TensorFlow's `keras/backend.py`: scaled to a sum of 1, clipped to 1e-7 from 0 and 1, and a logarithm.
    """
    scaled = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return -(one_hot * scaled.clamp(1e-7, 1 - 1e-7).log()).sum(dim=-1)


def weighted_as_found(
    one_hot: Float[Tensor, "B C"], probabilities: Float[Tensor, "B C"], weights: Float[Tensor, " W"]
) -> Float[Tensor, ""]:
    """The costs of samples times the weights of classes, and the mean of that."""
    return (keras_cross_entropy(one_hot, probabilities) * weights).mean()


def weighted(
    one_hot: Float[Tensor, "B C"], logits: Float[Tensor, "B C"], weights: Float[Tensor, " C"]
) -> Float[Tensor, ""]:
    """Cross entropy in which each sample has the weight of its class; the mean over the samples."""
    costs = -(one_hot * logits.log_softmax(dim=-1)).sum(dim=-1)
    return (costs * (one_hot @ weights)).mean()


# ---- clipping --------------------------------------------------------------------------------------------------------


def clip_each_as_found(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Shorten the gradient of each parameter by itself, as Keras's `clipnorm` does.

    Source: Keras's documentation of its optimizers; there `global_clipnorm` is what torch's `clip_grad_norm_` does.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            nn.utils.clip_grad_norm_(parameter, max_norm)


# ---- pictures and boxes ----------------------------------------------------------------------------------------------


def augmentation_as_found(size: int) -> A.Compose:
    """The pipeline that a page recommends, with a mirror for the flip that is gone, and padding where a crop needs it.

    Call it with `image`, `bboxes` in pixels and `labels`. Labels are not named to it.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Rotate(limit=15, p=0.5),
            A.RandomBrightnessContrast(p=0.5),
            A.RandomCrop(width=size, height=size, pad_if_needed=True, p=1.0),
            ToTensorV2(),
        ],
        bbox_params=A.BboxParams(format="pascal_voc"),
        seed=0,
    )


def draw_as_found(axes: Axes, image: np.ndarray, boxes: Iterable[Sequence[float]], labels: Iterable[object]) -> None:
    """Draw boxes where their numbers would be if they were pixels, with whatever the labels are beside them."""
    axes.imshow(image)
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, linewidth=2, edgecolor="r", facecolor="none"))
        axes.text(x0, y0, str(label), color="r", fontsize=10)


# ---- small pictures, and a network for them --------------------------------------------------------------------------

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD_AS_FOUND = (0.2023, 0.1994, 0.2010)  # the mean of the pictures' own deviations
CIFAR_STD = (0.2470, 0.2435, 0.2616)  # of all pixels; both as in kuangliu/pytorch-cifar, issue 8

Colour = tuple[float, float, float]


class PixelStatistics(NamedTuple):
    """Of each channel, of pixels from 0 to 1: the mean, the deviation, and the mean of the pictures' own deviations."""

    mean: Colour
    std: Colour
    std_of_each: Colour


def pixel_statistics(images: UInt8[Tensor, "N C H W"]) -> PixelStatistics:
    """What to normalise by, measured.

    The third is what one gets by averaging deviations picture by picture. It is too small: it leaves out that some
    pictures are bright and others dark.
    """
    pixels = images.double() / 255
    deviations = (pixels.std(dim=(0, 2, 3), correction=0), pixels.std(dim=(2, 3), correction=0).mean(dim=0))
    return PixelStatistics(*(tuple(one.tolist()) for one in (pixels.mean(dim=(0, 2, 3)), *deviations)))


def small_pictures_as_found() -> T.Compose:
    """From a picture of 32 pixels to a normalised tensor, by way of crop, mirror, rotation and jitter."""
    return T.Compose(
        [
            T.RandomCrop(32, padding=4),
            T.RandomHorizontalFlip(),
            T.RandomRotation(15),
            T.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
            T.ToTensor(),
            T.Normalize(CIFAR_MEAN, CIFAR_STD_AS_FOUND),
        ]
    )


def small_pictures(mean: Colour, std: Colour) -> T.Compose:
    """The same with nothing black in it: what a picture does not show has the mean colour, which is 0 in the end.

    Args:
        mean, std: of the pictures at hand, from `pixel_statistics`.
    """
    fill = tuple(round(255 * value) for value in mean)
    return T.Compose(
        [
            T.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),  # before there is any filling
            T.RandomRotation(15, interpolation=T.InterpolationMode.BILINEAR, fill=fill),
            T.RandomCrop(32, padding=4, fill=fill),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(mean, std),
            T.RandomErasing(p=0.5, scale=(0.02, 0.2), value=0),
        ]
    )


class BlockAsFound(nn.Module):
    """Two convolutions with biases, each with batch norm and ReLU; nothing makes the map smaller."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H W"]:
        return self.layers(x)


def initialise_as_found(layer: nn.Module) -> None:
    """For `network.apply`: He's normal weights by the fan **out**, batch norm's 1 and 0, and nothing else."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)


def initialise(layer: nn.Module) -> None:
    """For `network.apply`, before any weights are loaded: He's weights by the fan in, biases 0, batch norm's 1 and 0.

    Source: He et al. 2015, section 2.2: by the fan in a signal keeps its size on its way forward.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
