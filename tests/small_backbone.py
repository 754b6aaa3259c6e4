"""What a reader writes to stand a detector on a network of their own."""

from torch import nn

from course_lib import ssd
from course_lib.backbones import Backbone


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


SMALL = ssd.Architecture("small", Strides, ssd.SSD_MINI_EXTRAS, ssd.SSD_MINI, batch_norm=True)
