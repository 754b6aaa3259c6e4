"""Backbones: networks that turn a picture into feature maps: VGG, cut up for detection, and inverted residuals."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

# The mean colour of VGG's training images, RGB: the original subtracts it from every pixel, and fills
# with it what lies beyond the image.
PIXEL_MEAN = (123, 117, 104)
# About the deviation of a channel in photographs. Weights from Caffe, as the original's, are for pixels that
# are not divided by it.
PIXEL_STD = (58.0, 58.0, 58.0)

# Channels in VGG's five blocks, and how many convolutions each block has: configurations A, B and D.
VGG_CHANNELS = (64, 128, 256, 512, 512)
VGG_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


def convolution(
    channels_in: int, channels_out: int, batch_norm: bool, rectifier: type[nn.Module] = nn.ReLU, **shape: int
) -> list[nn.Module]:
    """Convolution, batch norm where asked for, ReLU. A bias before batch norm would do nothing."""
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, bias=not batch_norm, **shape)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(channels_out))
    return [*layers, rectifier(inplace=True)]


class L2Norm(nn.Module):
    """Give the channels at every position length 1, then scale each channel by a learned factor.

    conv4_3's activations are far larger than those of the deeper maps; the heads of all maps
    learn at the same rate only once they are brought to one scale.

    Source: Liu et al. 2016, section 3.1; Liu, Rabinovich and Berg 2015, section 3.3.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return nn.functional.normalize(x, dim=1) * self.weight[:, None, None]


class Backbone(nn.Module):
    """What a detector stands on: normalised images in, feature maps out.

    A backbone of your own has `channels` and `forward`. The rest does for it, or is written anew where it does not.

    Attributes:
        channels: of each map that `forward` gives.
        pixel_mean, pixel_std: what is subtracted from the pixels, RGB, 0 to 255, and what they are then divided by.
        frozen: the modules that stay in evaluation mode; see `freeze`.
    """

    channels: tuple[int, ...]
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    pixel_std: tuple[float, float, float] = PIXEL_STD

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[nn.Module] = []

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The maps as a detector's heads see them, finest first; further layers go on from the last of them."""
        raise NotImplementedError(f"{type(self).__name__} needs a `forward` that gives feature maps, finest first")

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The maps as a classifier sees them: here the same."""
        return self(images)

    def taught(self) -> list[nn.Parameter]:
        """The parameters that a classifier teaches; the others learn as the detector's heads do. Here all."""
        return list(self.parameters())

    def blocks(self) -> list[nn.Module]:
        """The parts that `freeze` counts, from the image on. Here what the network is made of."""
        return list(self.children())

    def map_sizes(self, image_size: int) -> tuple[int, ...]:
        """The sides of the maps of a square image, without computing them.

        Raises:
            ValueError: the maps are not square, or have other channels than `channels` says.
        """
        maps = skeleton(self)(torch.empty(1, 3, image_size, image_size, device="meta"))
        shapes = [tuple(found.shape[1:]) for found in maps]
        if [shape[0] for shape in shapes] != list(self.channels) or any(shape[1] != shape[2] for shape in shapes):
            found = ", ".join(" x ".join(map(str, shape)) for shape in shapes)
            raise ValueError(
                f"{type(self).__name__}: an image of {image_size} pixels gives maps of {found}; they must be square, "
                f"with the channels that it promises: {', '.join(map(str, self.channels))}"
            )
        return tuple(shape[2] for shape in shapes)

    def freeze(self, blocks: int, statistics: bool = False) -> None:
        """Keep the first blocks as they are: no gradients, and batch norm's statistics stay.

        A network that already knows edges and colours need not learn them again, and the backward
        pass through the largest maps is saved.

        Args:
            statistics: batch norm's in the other blocks stay too; its weights learn.

        Raises:
            ValueError: there are not so many.
        """
        parts = self.blocks()
        if not 0 <= blocks <= len(parts):
            raise ValueError(f"{type(self).__name__}: {blocks} blocks are to be frozen, and it has {len(parts)}")
        self.frozen = [part.requires_grad_(False) for part in parts[:blocks]]
        if statistics:
            layers = (layer for part in parts for layer in part.modules())
            self.frozen += [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


def skeleton(network: nn.Module) -> nn.Module:
    """A copy without numbers, on PyTorch's device `meta`: it tells shapes, and takes no memory and no time."""
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()


class VGG(Backbone):
    """VGG up to conv4_3, and on to fc7 as convolutions: SSD's backbone.

    Args:
        width: factor on every number of channels.
        batch_norm: batch norm after each convolution.
        dilation: of fc6; 6 spreads its nine taps over 13 cells of a map of 19.
        depth: 11, 13 or 16, counted as VGG counts itself: its convolutions and three further layers,
            of which SSD keeps two. Where block 4 has two convolutions, conv4_2 takes conv4_3's place.
        pixel_std: what pixels are divided by; 1 for weights that come from Caffe.

    `forward` gives conv4_3 (stride 8) with `L2Norm` on it, and fc7 (stride 16); `features` gives them without.

    Source: Simonyan and Zisserman 2015, table 1; Liu et al. 2016, section 3.
    """

    def __init__(
        self,
        width: float = 1.0,
        batch_norm: bool = False,
        dilation: int = 6,
        depth: int = 16,
        pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if depth not in VGG_DEPTHS:
            raise ValueError(f"VGG: depth is {depth}: use one of {', '.join(map(str, VGG_DEPTHS))}")
        blocks, channels_in = [], 3
        for channels, count in zip(VGG_CHANNELS, VGG_DEPTHS[depth], strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += convolution(channels_in, round(channels * width), batch_norm, kernel_size=3, padding=1)
                channels_in = round(channels * width)
            blocks.append(layers)

        def halve() -> nn.Module:
            # ceil_mode: a map of 75 becomes 38, as in the original, and not 37.
            return nn.MaxPool2d(2, stride=2, ceil_mode=True)

        fc = round(1024 * width)
        self.to_conv4_3 = nn.Sequential(*blocks[0], halve(), *blocks[1], halve(), *blocks[2], halve(), *blocks[3])
        self.to_fc7 = nn.Sequential(
            halve(),
            *blocks[4],
            nn.MaxPool2d(3, stride=1, padding=1),
            *convolution(channels_in, fc, batch_norm, kernel_size=3, padding=dilation, dilation=dilation),
            *convolution(fc, fc, batch_norm, kernel_size=1),
        )
        self.l2_norm = L2Norm(channels_in)
        self.channels, self.pixel_std = (channels_in, fc), pixel_std

    def blocks(self) -> list[nn.Module]:
        """VGG's first four blocks, each with its pool but the last, and the rest up to fc7."""
        ends = [end for end, layer in enumerate(self.to_conv4_3, start=1) if isinstance(layer, nn.MaxPool2d)]
        first = [self.to_conv4_3[start:end] for start, end in pairwise([0, *ends, len(self.to_conv4_3)])]
        return [*first, self.to_fc7]

    def taught(self) -> list[nn.Parameter]:
        """All but L2Norm's, which no classifier has."""
        return [*self.to_conv4_3.parameters(), *self.to_fc7.parameters()]

    def features(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C4 H8 W8"], Float[Tensor, "B C7 H16 W16"]]:
        """conv4_3 and fc7 as they are."""
        conv4_3 = self.to_conv4_3(images)
        return conv4_3, self.to_fc7(conv4_3)

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C4 H8 W8"], Float[Tensor, "B C7 H16 W16"]]:
        """conv4_3, normalised on its way to the heads, and fc7, which goes on from conv4_3 as it is."""
        conv4_3, fc7 = self.features(images)
        return self.l2_norm(conv4_3), fc7


class Convolution(nn.Conv2d):
    """A convolution that can be asked what it would give with other numbers; by itself it is PyTorch's."""

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        return self.with_weight(x, self.weight, self.bias)

    def with_weight(
        self, x: Float[Tensor, "B I H W"], weight: Float[Tensor, "O i k k"], bias: Float[Tensor, " O"] | None
    ) -> Float[Tensor, "B O h w"]:
        """What it would give if these were its weight and bias."""
        return nn.functional.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)


class SameConvolution(Convolution):
    """A convolution with TensorFlow's padding "same": the map's side is divided by the stride, rounded up.

    What has to be added is spread over both ends, and where it is odd the end gets one more. So it depends on the
    side: three taps at stride 2 need a row before and one behind where the side is odd, and one behind alone where it
    is even. PyTorch's `padding=1` gives maps of the same side there, half a cell away.
    """

    def with_weight(
        self, x: Float[Tensor, "B I H W"], weight: Float[Tensor, "O i k k"], bias: Float[Tensor, " O"] | None
    ) -> Float[Tensor, "B O h w"]:
        sides = zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        (top, first_row), (left, first_column) = (same_padding(*axis) for axis in sides)
        maps = nn.functional.conv2d(x, weight, bias, self.stride, (top, left), 1, self.groups)
        return maps[:, :, first_row:, first_column:] if first_row or first_column else maps


def same_padding(side: int, taps: int, stride: int) -> tuple[int, int]:
    """How TensorFlow's "same" comes from PyTorch's padding, which is the same at both ends.

    Where the end needs one cell more than the beginning, both get more by a stride, and the first output is left out:
    cheaper than a padded copy of a large map.

    Returns:
        Padding at both ends, and how many of the first outputs to leave out.
    """
    missing = max((-(-side // stride) - 1) * stride + taps - side, 0)
    return missing // 2 + missing % 2 * stride, missing % 2


class Conventions(NamedTuple):
    """In what two libraries differ where they write down the same network; weights are for one of them.

    Attributes:
        same_padding: TensorFlow's padding; False: PyTorch's, half the taps at both ends.
        eps, momentum: batch norm's. At a momentum of 0.01 statistics follow the weights over hundreds of steps.
        pixel_mean, pixel_std: see `Backbone`.
    """

    same_padding: bool
    eps: float
    momentum: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]


# Pixels from -1 to 1, and pixels of ImageNet's mean and deviation.
TENSORFLOW = Conventions(True, 1e-3, 0.01, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
TORCHVISION = Conventions(False, 1e-5, 0.1, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class Normed(nn.Module):
    """A convolution, batch norm, and ReLU6 unless it is left out.

    Where batch norm's statistics stand still it only scales and shifts: there the convolution's weights do that too,
    and the two passes over the map are saved. Gradients reach all the same parameters.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
        conventions: Conventions = TENSORFLOW,
    ) -> None:
        super().__init__()
        shape = {"kernel_size": kernel, "stride": stride, "groups": groups, "bias": False}
        if conventions.same_padding:
            self.convolve = SameConvolution(channels_in, channels_out, **shape)
        else:
            self.convolve = Convolution(channels_in, channels_out, padding=kernel // 2, **shape)
        self.norm = nn.BatchNorm2d(channels_out, conventions.eps, conventions.momentum)
        self.relu = nn.ReLU6(inplace=True) if relu else nn.Identity()

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        if self.norm.training:
            return self.relu(self.norm(self.convolve(x)))
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        shift = self.norm.bias - self.norm.running_mean * scale
        return self.relu(self.convolve.with_weight(x, self.convolve.weight * scale[:, None, None, None], shift))


class InvertedResidual(nn.Module):
    """Widen, look around, narrow: a block that is thin at its ends, where others are thin in the middle.

    A 1 x 1 convolution expands the channels, a depthwise one looks at each of them by itself, and a 1 x 1 convolution
    projects them to few again, without a nonlinearity: in few channels it would destroy what they say. Batch norm
    after each, ReLU6 after the first two. Where the shape stays, the input is added.

    Args:
        expansion: of the channels; 1: there is no first convolution.
        kernel: taps of the depthwise convolution on a side.

    Source: Sandler et al. 2018, section 3.3 and table 1.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        expansion: int,
        kernel: int,
        stride: int,
        conventions: Conventions = TENSORFLOW,
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.layers = nn.Sequential(
            *([Normed(channels_in, wide, conventions=conventions)] if expansion != 1 else []),
            Normed(wide, wide, kernel, stride, groups=wide, conventions=conventions),
            Normed(wide, channels_out, relu=False, conventions=conventions),
        )
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        return x + self.layers(x) if self.adds else self.layers(x)


class Stage(NamedTuple):
    """Inverted residuals of one width; the first of them has the stride."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    count: int


# EfficientNet-B0's table, of which Lite0 has all but squeeze-and-excitation: Tan and Le 2019, table 1.
EFFICIENTNET_LITE0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)

# Sandler et al. 2018, table 2, in the rows that a detector needs.
MOBILENET_V2 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 3, 2, 32, 3),
    Stage(6, 3, 2, 64, 4),
    Stage(6, 3, 1, 96, 3),
    Stage(6, 3, 2, 160, 3),
    Stage(6, 3, 1, 320, 1),
)


class InvertedResiduals(Backbone):
    """A stem at stride 2 and inverted residuals by a table: EfficientNet-Lite0, or MobileNetV2 by another table.

    The last map of each stride from 8 on: of EfficientNet-Lite0 those at strides 8, 16 and 32, with 40, 112 and 320
    channels. `features` gives them as they are, `forward` with batch norm on them: as they are the taught ones are some
    seven times as large at strides 8 and 16 as a head's weights are made for. `freeze` counts the stem and every
    residual: 17 blocks.

    Args:
        stages: the table.
        stem: channels of the first convolution.
        conventions: of the library whose weights it is to understand.

    Source: Sandler et al. 2018 (MobileNetV2); Tan and Le 2019 (EfficientNet); the "lite" form, without
    squeeze-and-excitation and with ReLU6, is TensorFlow's `efficientnet/lite`.
    """

    def __init__(
        self,
        stages: Sequence[Stage] = EFFICIENTNET_LITE0,
        stem: int = 32,
        conventions: Conventions = TENSORFLOW,
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.pixel_mean, self.pixel_std = conventions.pixel_mean, conventions.pixel_std
        self.stem = Normed(3, stem, kernel=3, stride=2, conventions=conventions)
        self.residuals = nn.ModuleList()
        channels, reached, last = stem, 2, {}
        for stage in stages:
            for stride in (stage.stride, *[1] * (stage.count - 1)):
                shape = stage.expansion, stage.kernel, stride
                self.residuals.append(InvertedResidual(channels, stage.channels, *shape, conventions))
                channels, reached = stage.channels, reached * stride
                last[reached] = len(self.residuals) - 1, channels
        self.seen, self.channels = zip(*(last[stride] for stride in sorted(last) if stride >= 8), strict=True)
        self.to_heads = nn.ModuleList(nn.BatchNorm2d(width) for width in self.channels)

    def blocks(self) -> list[nn.Module]:
        """The stem, and each of the residuals."""
        return [self.stem, *self.residuals]

    def taught(self) -> list[nn.Parameter]:
        """All but those of the batch norm to the heads, which no classifier has."""
        return [*self.stem.parameters(), *self.residuals.parameters()]

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The last map of each stride from 8 on, as it is."""
        x, maps = self.stem(images), []
        for index, residual in enumerate(self.residuals):
            x = residual(x)
            if index in self.seen:
                maps.append(x)
        return tuple(maps)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The same, each channel brought to a scale of 1 on its way to the heads."""
        return tuple(norm(features) for norm, features in zip(self.to_heads, self.features(images), strict=True))


class Classifier(nn.Module):
    """A backbone with a linear layer on the mean of each of its maps: an image classifier that answers once a map.

    Detectors start from backbones that have learned to classify; SSD300 starts from ImageNet's. There only the
    deepest map had to know the class; here conv4_3, which a detector reads too, learns it directly.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(nn.Linear(channels, num_classes) for channels in backbone.channels)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B classes"]]:
        """Logits from each map, the finest first."""
        maps = self.backbone.features(images)
        return [head(features.mean(dim=(2, 3))) for head, features in zip(self.heads, maps, strict=True)]

    def learning(self) -> list[nn.Parameter]:
        """What its answers depend on: all that it has but what the backbone keeps for a detector's heads."""
        return [*self.backbone.taught(), *self.heads.parameters()]
