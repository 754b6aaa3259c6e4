"""VGG, cut up for detection: one trunk that hands out two feature maps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

# The mean colour of VGG's training images, RGB: the original subtracts it from every pixel, and fills
# with it what lies beyond the image.
PIXEL_MEAN = (123, 117, 104)

# Channels in VGG's five blocks, and how many convolutions each block has: configurations A, B and D.
VGG_CHANNELS = (64, 128, 256, 512, 512)
VGG_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


def convolution(channels_in: int, channels_out: int, batch_norm: bool, **shape: int) -> list[nn.Module]:
    """Convolution, batch norm where asked for, ReLU. A bias before batch norm would do nothing."""
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, bias=not batch_norm, **shape)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(channels_out))
    return [*layers, nn.ReLU(inplace=True)]


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


class VGG(nn.Module):
    """VGG up to conv4_3, and on to fc7 as convolutions: SSD's trunk.

    Args:
        width: factor on every number of channels.
        batch_norm: batch norm after each convolution.
        dilation: of fc6; 6 spreads its nine taps over 13 cells of a map of 19.
        depth: 11, 13 or 16, counted as VGG counts itself: its convolutions and three further layers,
            of which SSD keeps two. Where block 4 has two convolutions, conv4_2 takes conv4_3's place.

    `forward` gives conv4_3 (stride 8, before any scaling) and fc7 (stride 16).

    Source: Simonyan and Zisserman 2015, table 1; Liu et al. 2016, section 3.
    """

    def __init__(self, width: float = 1.0, batch_norm: bool = False, dilation: int = 6, depth: int = 16) -> None:
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
        self.channels = (channels_in, fc)
        self.frozen: list[nn.Module] = []

    def freeze(self, blocks: int) -> None:
        """Keep the first blocks as they are: no gradients, and batch norm's statistics stay.

        A network that already knows edges and colours need not learn them again, and the backward
        pass through the largest maps is saved.
        """
        self.frozen, pools = [], 0
        for layer in self.to_conv4_3:
            if pools == blocks:
                break
            self.frozen.append(layer.requires_grad_(False))
            pools += isinstance(layer, nn.MaxPool2d)
        self.train(self.training)

    def train(self, mode: bool = True) -> "VGG":
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C4 H8 W8"], Float[Tensor, "B C7 H16 W16"]]:
        conv4_3 = self.to_conv4_3(images)
        return conv4_3, self.to_fc7(conv4_3)


class Classifier(nn.Module):
    """A trunk with a linear layer on the mean of each of its maps: an image classifier that answers twice.

    Detectors start from trunks that have learned to classify; SSD300 starts from ImageNet's. There only the
    deepest map had to know the class; here conv4_3, which a detector reads too, learns it directly.
    """

    def __init__(self, trunk: VGG, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(channels, num_classes) for channels in trunk.channels)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B classes"]]:
        """Logits from conv4_3 and from fc7."""
        return [head(features.mean(dim=(2, 3))) for head, features in zip(self.heads, self.trunk(images), strict=True)]
