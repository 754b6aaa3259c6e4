"""The detector: a backbone, a chain of shrinking feature maps, and two small heads on each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch
from jaxtyping import Float, Real, UInt8
from torch import Tensor, nn

from course_lib.annotations import usual_names
from course_lib.backbones import (
    MOBILENET_V2,
    PIXEL_STD,
    TORCHVISION,
    VGG,
    Backbone,
    InvertedResiduals,
    convolution,
)
from course_lib.priors import SSD300, SSD_LITE0, SSD_MINI, SSD_NANO, PriorSpec, ssd_lite

# Channels (squeeze, out), stride and padding of the 3x3 convolution of each extra block.
Extras = tuple[tuple[int, int, int, int], ...]
SSD300_EXTRAS = ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
SSD_MINI_EXTRAS = ((64, 128, 2, 1), (64, 128, 2, 1), (64, 128, 1, 0))
SSD_NANO_EXTRAS = ((64, 128, 2, 1), (64, 128, 1, 0))
SSD_LITE0_EXTRAS = ((128, 256, 2, 1), (128, 256, 2, 1))

# From logits to probabilities: of one class among all, or of each class by itself (the first column, background,
# then means nothing). A network must be read as the loss that trained it reads it.
SCORINGS = {"softmax": lambda logits: logits.softmax(dim=-1), "sigmoid": torch.sigmoid}


class SSD(nn.Module):
    """Single Shot MultiBox Detector.

    Args:
        architecture: the name under which `ARCHITECTURES` knows how to build it, kept in saved weights.
        backbone: gives the first feature maps, and says how pixels are to be normalised.
        extras: one row `(squeeze, out, stride, padding)` for each further map.
        spec: the priors; one map for each of the backbone's and one for each extra.
        num_classes: with background, which is class 0.
        classes: their names, without background; see `names_of_classes`.
        batch_norm: batch norm in the extra blocks.
        separable: extra blocks and heads look around with one channel at a time: see `SeparableHead`.

    Attributes:
        classes: the names that labels 1, 2, ... stand for; `weights` keep them.
        scoring: how its logits become probabilities, a name of `SCORINGS`; a `training.Trainer`
            sets it to its loss's, and `weights` keep it.

    Raises:
        ValueError: a feature map has another size than the one that `spec` has made its priors for.

    Source: Liu et al. 2016, section 2.1 and figure 2; separable: Sandler et al. 2018, section 6.2.
    """

    def __init__(
        self,
        architecture: str,
        backbone: Backbone,
        extras: Extras,
        spec: PriorSpec,
        num_classes: int,
        classes: Sequence[str] | None = None,
        batch_norm: bool = False,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.architecture, self.num_classes = architecture, num_classes
        self.classes = names_of_classes(num_classes, classes)
        self.image_size, self.spec = spec.image_size, spec
        self.scoring = "softmax"
        self.backbone = backbone

        channels, sides = list(backbone.channels), list(backbone.map_sizes(spec.image_size))
        self.extras = nn.ModuleList()
        for squeeze, out, stride, padding in extras:
            block = separable_block if separable else partial(extra_block, batch_norm=batch_norm)
            self.extras.append(block(channels[-1], squeeze, out, stride, padding))
            channels.append(out)
            sides.append((sides[-1] + 2 * padding - 3) // stride + 1)
        refuse_misfits(sides, spec)

        head = SeparableHead if separable else partial(nn.Conv2d, kernel_size=3, padding=1)
        self.loc_heads, self.conf_heads = nn.ModuleList(), nn.ModuleList()
        for width, priors in zip(channels, spec.per_cell, strict=True):
            self.loc_heads.append(head(width, priors * 4))
            self.conf_heads.append(head(width, priors * num_classes))

        self.register_buffer("priors", spec.boxes(), persistent=False)
        for name, colour in (("mean", backbone.pixel_mean), ("std", backbone.pixel_std)):
            self.register_buffer(name, torch.tensor(colour, dtype=torch.float32)[:, None, None], persistent=False)
        self.apply(xavier)
        # Heads that say little at first. The first class loss is then not far above 4 ln C: mining finds the worst.
        for head in (*self.loc_heads, *self.conf_heads):
            nn.init.normal_(head.weight, std=0.01)

    def normalise(self, images: Real[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels as the backbone takes them: centred, scaled, channels last in memory."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def feature_maps(self, images: UInt8[Tensor, "B 3 S S"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The maps that the heads look at, finest first: the backbone's, then one of each extra block."""
        maps = list(self.backbone(self.normalise(images)))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps

    def forward(self, images: UInt8[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P C"]]:
        """Offsets and class logits for every prior.

        Args:
            images: RGB, 0-255, `image_size` pixels on each side; normalised inside.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"SSD: images are {tuple(images.shape[-2:])}, the model takes "
                f"{self.image_size} x {self.image_size}; resize them first (augment.evaluation)"
            )
        offsets, logits = [], []
        for features, loc, conf in zip(self.feature_maps(images), self.loc_heads, self.conf_heads, strict=True):
            offsets.append(per_prior(loc(features), 4))
            logits.append(per_prior(conf(features), self.num_classes))
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def extra_block(channels_in: int, squeeze: int, out: int, stride: int, padding: int, batch_norm: bool) -> nn.Sequential:
    """From the last map to a smaller one: 1 x 1 to fewer channels, then 3 x 3."""
    return nn.Sequential(
        *convolution(channels_in, squeeze, batch_norm, kernel_size=1),
        *convolution(squeeze, out, batch_norm, kernel_size=3, stride=stride, padding=padding),
    )


def separable_block(channels_in: int, squeeze: int, out: int, stride: int, padding: int) -> nn.Sequential:
    """An extra block of SSDLite: 1 x 1, depthwise 3 x 3, 1 x 1, each with batch norm and ReLU6."""
    return nn.Sequential(
        *convolution(channels_in, squeeze, True, nn.ReLU6, kernel_size=1),
        *convolution(squeeze, squeeze, True, nn.ReLU6, kernel_size=3, stride=stride, padding=padding, groups=squeeze),
        *convolution(squeeze, out, True, nn.ReLU6, kernel_size=1),
    )


class SeparableHead(nn.Sequential):
    """A head of SSDLite: each channel looks around by itself, 3 x 3, and a 1 x 1 convolution mixes what they saw.

    Between both are batch norm and ReLU6. With C channels in and K out it has 9 C + C K weights, where a 3 x 3
    convolution has 9 C K. `weight` and `bias` are the last convolution's, as of a head that is nothing else.

    Source: Sandler et al. 2018, section 6.2; what is between both is torchvision's `ssdlite`.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        depthwise = convolution(channels_in, channels_in, True, nn.ReLU6, kernel_size=3, padding=1, groups=channels_in)
        super().__init__(*depthwise, nn.Conv2d(channels_in, channels_out, 1))

    @property
    def weight(self) -> nn.Parameter:
        return self[-1].weight

    @property
    def bias(self) -> nn.Parameter:
        return self[-1].bias


def refuse_misfits(sides: Sequence[int], spec: PriorSpec) -> None:
    """Compare the sides of the feature maps with those that the priors were made for; the message names the first."""
    if len(sides) != len(spec.maps):
        raise ValueError(
            f"SSD: backbone and extras give {len(sides)} feature maps, and the PriorSpec is for {len(spec.maps)}"
        )
    for level, (found, expected) in enumerate(zip(sides, spec.maps, strict=True)):
        if found != expected:
            raise ValueError(
                f"SSD: feature map {level} is {found} x {found} in an image of {spec.image_size} pixels, and its "
                f"priors were made for {expected} x {expected}: change `maps` in the PriorSpec, or a stride or "
                "padding before that map"
            )


def per_prior(head: Float[Tensor, "B AK H W"], values: int) -> Float[Tensor, "B HWA K"]:
    """One row of `values` numbers for each prior, in the priors' order: row, column, shape."""
    return head.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values))


def xavier(layer: nn.Module) -> None:
    """Xavier weights and zero biases, as in the original code; of a grouped convolution each group by itself."""
    if isinstance(layer, nn.Conv2d):
        out, inside = layer.weight.shape[:2]
        # torch counts the outputs of all groups, but each is made of one group's inputs.
        nn.init.xavier_uniform_(layer.weight, gain=sqrt((inside + out) / (inside + out / layer.groups)))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def names_of_classes(num_classes: int, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of the classes without background: those given, or VOC's where there are twenty, or "class 1" ...

    Raises:
        ValueError: there are more or fewer names than classes.
    """
    if classes is None:
        return usual_names(num_classes - 1)
    names = isinstance(classes, Sequence) and all(isinstance(name, str) for name in classes)
    if not names or isinstance(classes, str) or len(classes) != num_classes - 1:
        raise ValueError(
            f"SSD: num_classes is {num_classes}, which counts background, and classes are {classes!r}: "
            f"{num_classes - 1} names are wanted"
        )
    return tuple(classes)


@dataclass(frozen=True)
class Architecture:
    """All that decides what a detector is, but its classes; called, it builds one.

    Attributes:
        name: kept in saved weights.
        backbone: makes a fresh one.
        extras: see `SSD`.
        spec: the priors and the image size, known before anything is built.
        batch_norm: in the extra blocks.
        separable: see `SSD`.
    """

    name: str
    backbone: Callable[[], Backbone]
    extras: Extras
    spec: PriorSpec
    batch_norm: bool = False
    separable: bool = False

    def __call__(self, num_classes: int = 21, classes: Sequence[str] | None = None) -> SSD:
        """A detector with fresh weights; see `names_of_classes`."""
        about = self.extras, self.spec, num_classes, classes, self.batch_norm, self.separable
        return SSD(self.name, self.backbone(), *about)


# SSD300 as in the paper: 8732 priors on six maps; 26,285,486 parameters at 21 classes.
ssd300_vgg16 = Architecture("ssd300_vgg16", VGG, SSD300_EXTRAS, SSD300)

# The same detector at a quarter of the width, with batch norm, for 160 x 160 pixels.
thin_vgg = partial(VGG, width=0.25, batch_norm=True, dilation=3, pixel_std=PIXEL_STD)
ssd_mini = Architecture("ssd_mini", thin_vgg, SSD_MINI_EXTRAS, SSD_MINI, batch_norm=True)

# The same with one map less, for 96 x 96 pixels: for trainings that are to be ill, and for others that take seconds.
ssd_nano = Architecture("ssd_nano", thin_vgg, SSD_NANO_EXTRAS, SSD_NANO, batch_norm=True)

# For photographs on a laptop: EfficientNet-Lite0, whose ImageNet weights a package brings, for 224 x 224 pixels.
ssd_lite0 = Architecture("ssd_lite0", InvertedResiduals, SSD_LITE0_EXTRAS, SSD_LITE0, batch_norm=True)

# MobileNetV2 with SSDLite's heads, for 160 x 160 pixels; torchvision's ImageNet weights fit its backbone.
mobilenet_v2 = partial(InvertedResiduals, MOBILENET_V2, conventions=TORCHVISION)
ssd_mobilenet_v2 = Architecture(
    "ssd_mobilenet_v2", mobilenet_v2, SSD_LITE0_EXTRAS, ssd_lite(160), batch_norm=True, separable=True
)

# By the name that saved weights keep: `weights.load` builds what stands here, and nothing else.
ARCHITECTURES = {one.name: one for one in (ssd300_vgg16, ssd_mini, ssd_nano, ssd_lite0, ssd_mobilenet_v2)}
