"""The detector: a trunk, a chain of shrinking feature maps, and two small heads on each of them."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Real, UInt8
from torch import Tensor, nn

from course_lib.annotations import usual_names
from course_lib.backbones import PIXEL_MEAN, VGG, L2Norm, convolution
from course_lib.priors import SSD300, SSD_MINI, PriorSpec

# Channels (squeeze, out), stride and padding of the 3x3 convolution of each extra block.
SSD300_EXTRAS = ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
SSD_MINI_EXTRAS = ((64, 128, 2, 1), (64, 128, 2, 1), (64, 128, 1, 0))

# From logits to probabilities: of one class among all, or of each class by itself (the first column, background,
# then means nothing). A network must be read as the loss that trained it reads it.
SCORINGS = {"softmax": lambda logits: logits.softmax(dim=-1), "sigmoid": torch.sigmoid}


class SSD(nn.Module):
    """Single Shot MultiBox Detector.

    Args:
        architecture: the name of the function that builds it, kept in saved weights.
        backbone: gives two feature maps; its `channels` tells how many channels they have.
        extras: one row `(squeeze, out, stride, padding)` for each further map.
        spec: the priors; one map for each of the backbone's and one for each extra.
        num_classes: with background, which is class 0.
        classes: their names, without background; see `names_of_classes`.
        pixel_std: what the centred pixels are divided by; 1 for weights that come from Caffe.
        batch_norm: batch norm in the extra blocks.

    Attributes:
        classes: the names that labels 1, 2, ... stand for; `weights` keep them.
        scoring: how its logits become probabilities, a name of `SCORINGS`; a `training.Trainer`
            sets it to its loss's, and `weights` keep it.

    Raises:
        ValueError: a feature map has another size than the one that `spec` has made its priors for.

    Source: Liu et al. 2016, section 2.1 and figure 2.
    """

    def __init__(
        self,
        architecture: str,
        backbone: nn.Module,
        extras: tuple[tuple[int, int, int, int], ...],
        spec: PriorSpec,
        num_classes: int,
        classes: Sequence[str] | None = None,
        pixel_std: float = 1.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.architecture, self.num_classes = architecture, num_classes
        self.classes = names_of_classes(num_classes, classes)
        self.image_size, self.spec = spec.image_size, spec
        self.scoring = "softmax"
        self.backbone = backbone
        self.l2_norm = L2Norm(backbone.channels[0])

        channels = list(backbone.channels)
        self.extras = nn.ModuleList()
        for squeeze, out, stride, padding in extras:
            self.extras.append(
                nn.Sequential(
                    *convolution(channels[-1], squeeze, batch_norm, kernel_size=1),
                    *convolution(squeeze, out, batch_norm, kernel_size=3, stride=stride, padding=padding),
                )
            )
            channels.append(out)

        if len(channels) != len(spec.maps):
            raise ValueError(
                f"SSD: backbone and extras give {len(channels)} feature maps, and the PriorSpec is for {len(spec.maps)}"
            )
        self.loc_heads, self.conf_heads = nn.ModuleList(), nn.ModuleList()
        for width, priors in zip(channels, spec.per_cell, strict=True):
            self.loc_heads.append(nn.Conv2d(width, priors * 4, 3, padding=1))
            self.conf_heads.append(nn.Conv2d(width, priors * num_classes, 3, padding=1))

        self.register_buffer("priors", spec.boxes(), persistent=False)
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN, dtype=torch.float32)[:, None, None], persistent=False)
        self.pixel_std = pixel_std
        self.apply(xavier)
        # Heads that say little at first. The first class loss is then not far above 4 ln C: mining finds the worst.
        for head in (*self.loc_heads, *self.conf_heads):
            nn.init.normal_(head.weight, std=0.01)
        self.refuse_misfits()

    def refuse_misfits(self) -> None:
        """Compare the sides of the maps with those that the priors were made for, on tensors without numbers."""
        tensors = (*self.parameters(), *self.buffers())
        skeleton = copy.deepcopy(self, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()
        pixels = torch.empty(1, 3, self.image_size, self.image_size, dtype=torch.uint8, device="meta")
        for level, (features, side) in enumerate(zip(skeleton.feature_maps(pixels), self.spec.maps, strict=True)):
            if features.shape[-2:] != (side, side):
                found = " x ".join(map(str, features.shape[-2:]))
                raise ValueError(
                    f"SSD: feature map {level} is {found} in an image of {self.image_size} pixels, and its priors were "
                    f"made for {side} x {side}: change `maps` in the PriorSpec, or a stride or padding before that map"
                )

    def normalise(self, images: Real[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels as the trunk takes them: centred, scaled, channels last in memory."""
        return ((images - self.mean) / self.pixel_std).contiguous(memory_format=torch.channels_last)

    def feature_maps(self, images: UInt8[Tensor, "B 3 S S"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The maps that the heads look at, finest first; L2Norm is on the branch to the head only."""
        conv4_3, x = self.backbone(self.normalise(images))
        maps = [self.l2_norm(conv4_3), x]
        for extra in self.extras:
            x = extra(x)
            maps.append(x)
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


def per_prior(head: Float[Tensor, "B AK H W"], values: int) -> Float[Tensor, "B HWA K"]:
    """One row of `values` numbers for each prior, in the priors' order: row, column, shape."""
    return head.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values))


def xavier(layer: nn.Module) -> None:
    """Xavier weights and zero biases, as in the original code."""
    if isinstance(layer, nn.Conv2d):
        nn.init.xavier_uniform_(layer.weight)
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


def ssd300_vgg16(num_classes: int = 21, classes: Sequence[str] | None = None) -> SSD:
    """SSD300 as in the paper: 8732 priors on six maps; 26,285,486 parameters at 21 classes."""
    return SSD("ssd300_vgg16", VGG(), SSD300_EXTRAS, SSD300, num_classes, classes)


def ssd_mini(num_classes: int = 21, classes: Sequence[str] | None = None) -> SSD:
    """The same detector at a quarter of the width, with batch norm, for 160 x 160 pixels."""
    trunk = VGG(width=0.25, batch_norm=True, dilation=3)
    return SSD("ssd_mini", trunk, SSD_MINI_EXTRAS, SSD_MINI, num_classes, classes, pixel_std=58.0, batch_norm=True)


# By the name that saved weights keep. A new detector is a function here and a line in this table.
ARCHITECTURES = {"ssd300_vgg16": ssd300_vgg16, "ssd_mini": ssd_mini}
SPECS = {"ssd300_vgg16": SSD300, "ssd_mini": SSD_MINI}
