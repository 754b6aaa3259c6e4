"""Prior boxes: the fixed grid of guesses that every prediction starts from."""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.boxes import box_iou, to_corners


@dataclass(frozen=True)
class PriorSpec:
    """Where the priors stand and what shapes they have; all lengths in pixels of the input.

    Attributes:
        image_size: side of the square input.
        maps: side of each feature map, finest first.
        steps: distance between the centres of neighbouring cells, per map.
        sides: side `s` of the small square per map, and one more for the last map's larger
            square: the larger square of map k has side sqrt(sides[k] * sides[k + 1]).
        ratios: aspect ratios per map beside 1; each ratio r also gives 1 / r.

    Source: Liu et al. 2016, section 2.2; the order within a cell is the original code's.
    """

    image_size: int
    maps: tuple[int, ...]
    steps: tuple[float, ...]
    sides: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        levels = len(self.maps)
        lengths = len(self.steps), len(self.sides) - 1, len(self.ratios)
        if lengths != (levels,) * 3:
            raise ValueError(
                f"PriorSpec: {levels} maps need {levels} steps, {levels + 1} sides and {levels} "
                f"tuples of ratios; got {len(self.steps)}, {len(self.sides)}, {len(self.ratios)}"
            )

    @property
    def per_cell(self) -> tuple[int, ...]:
        """Priors per cell of each map: two squares, and two boxes for every ratio."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)

    def shapes(self, level: int) -> list[tuple[float, float]]:
        """Width and height of the priors in one cell of a map: s, s', then each r and 1 / r."""
        small, next_small = list(pairwise(self.sides))[level]
        squares = [(small, small), (sqrt(small * next_small),) * 2]
        stretched = [(small * sqrt(r), small / sqrt(r)) for ratio in self.ratios[level] for r in (ratio, 1 / ratio)]
        return squares + stretched

    def boxes(self) -> Float[Tensor, "priors 4"]:
        """All priors: centre-size, fractions of the image, not clipped.

        Order: map by map, row by row, cell by cell, then the shapes of `shapes`. The heads'
        outputs are flattened in the same order, so prior p belongs to prediction p.
        """
        levels = []
        for level, (side, step) in enumerate(zip(self.maps, self.steps, strict=True)):
            centres = (torch.arange(side, dtype=torch.float64) + 0.5) * step
            cy, cx = torch.meshgrid(centres, centres, indexing="ij")
            shapes = torch.tensor(self.shapes(level), dtype=torch.float64)
            cells = torch.stack([cx, cy], dim=-1).reshape(-1, 1, 2).expand(-1, len(shapes), 2)
            levels.append(torch.cat([cells, shapes.expand(len(cells), -1, 2)], dim=-1).reshape(-1, 4))
        return (torch.cat(levels) / self.image_size).float()


SSD300 = PriorSpec(
    image_size=300,
    maps=(38, 19, 10, 5, 3, 1),
    steps=(8, 16, 32, 64, 100, 300),
    sides=(30, 60, 111, 162, 213, 264, 315),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
)

# As in SSD300, the smallest prior is three to four cells wide: neighbours overlap enough for several
# of them to reach an IoU of 0.5 with the same object.
SSD_MINI = PriorSpec(
    image_size=160,
    maps=(20, 10, 5, 3, 1),
    steps=(8, 16, 32, 160 / 3, 160),
    sides=(24, 48, 80, 112, 144, 160),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2,)),
)

# The same for 96 pixels, where a training of a few hundred steps takes seconds.
SSD_NANO = PriorSpec(
    image_size=96,
    maps=(12, 6, 3, 1),
    steps=(8, 16, 32, 96),
    sides=(14.4, 28.8, 48, 72, 96),
    ratios=((2,), (2, 3), (2, 3), (2,)),
)

# Sides of the priors on five maps at strides 8, 16, 32 and on, as shares of the image's side.
LITE_SIDES = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)


def ssd_lite(image_size: int) -> PriorSpec:
    """Priors on the maps at strides 8, 16 and 32 of an image, and on two more of half the side each; any image size.

    A side is halved by rounding up, so that the cells of every map cover the image evenly: in an image of 224 pixels
    28, 14, 7, 4 and 2 of them on a side. The smallest prior is about four cells wide, as in SSD300.
    """
    maps = [-(-image_size // 2**level) for level in range(3, 8)]
    return PriorSpec(
        image_size=image_size,
        maps=tuple(maps),
        steps=tuple(image_size / side for side in maps),
        sides=tuple(share * image_size for share in LITE_SIDES),
        ratios=((2,), (2, 3), (2, 3), (2, 3), (2,)),
    )


SSD_LITE0 = ssd_lite(224)


def coverage(boxes: Float[Tensor, "N 4"], priors: Float[Tensor, "P 4"]) -> Float[Tensor, " N"]:
    """How well the priors cover the boxes: the IoU of each box with its best prior.

    Boxes below the matching threshold get a single prior to learn from, the one they are given by force.

    Args:
        boxes: corners, fractions of the image.
        priors: centre-size, fractions of the image.
    """
    corners = to_corners(priors)
    # In parts: all of VOC's boxes against all priors would take gigabytes.
    return torch.cat([box_iou(part, corners).max(dim=1).values for part in boxes.split(256)])
