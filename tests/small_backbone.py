"""What a reader writes to stand a detector on a network of their own, and a detector to train in a blink."""

from functools import partial

from torch import nn

from course_lib import ssd
from course_lib.backbones import VGG, Backbone


class Strides(Backbone):
    """Two maps, at strides 8 and 16, in ten lines."""

    channels = (12, 24)

    def __init__(self, kernel=3):
        super().__init__()
        self.to_8 = nn.Sequential(nn.Conv2d(3, 12, kernel, stride=8, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.to_16 = nn.Conv2d(12, 24, 3, stride=2, padding=1)

    def forward(self, images):
        fine = self.to_8(images)
        return fine, self.to_16(fine)


# ssd_nano at a quarter of its width and with fewer convolutions: a step depends on as much, and a state has 1 MB.
# `weights.load` knows it.
thin_vgg = partial(VGG, width=1 / 16, batch_norm=True, dilation=3, depth=11)
THIN = ssd.Architecture("thin", thin_vgg, ((8, 16, 2, 1), (8, 16, 1, 0)), ssd.SSD_NANO, batch_norm=True)
ssd.ARCHITECTURES[THIN.name] = THIN

SMALL = ssd.Architecture("small", Strides, ssd.SSD_MINI_EXTRAS, ssd.SSD_MINI, batch_norm=True)
