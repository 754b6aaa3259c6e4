"""What hypothesis draws from: boxes in the shapes that data and networks produce."""

import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


@st.composite
def corner_boxes(draw, minimum: int = 0, maximum: int = 12, smallest: float = 1e-3):
    """Boxes inside the image with a side of at least `smallest`; often the same box twice."""
    count = draw(st.integers(minimum, maximum))
    grid = draw(hnp.arrays("int64", (count, 4), elements=st.integers(0, 1000)))
    raw = torch.from_numpy(grid).double() / 1000
    low = raw[:, :2] * (1 - smallest)
    high = low + smallest + raw[:, 2:] * (1 - low - smallest)
    return torch.cat([low, high], dim=1).float()


@st.composite
def colliding_boxes(draw):
    """Up to 40 boxes, but only a few different ones, on a coarse grid: equal overlaps everywhere."""
    count = draw(st.integers(1, 4))
    grid = torch.from_numpy(draw(hnp.arrays("int64", (count, 4), elements=st.integers(0, 7)))).float() / 10
    few = torch.cat([grid[:, :2], grid[:, :2] + 0.1 + grid[:, 2:] / 4], dim=1)
    return few[draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=40))]


def many_boxes():
    """Up to 40 boxes, often equal ones."""
    return st.one_of(corner_boxes(minimum=1, maximum=40, smallest=0.02), colliding_boxes())


def priors_cxcywh(count: int, seed: int) -> torch.Tensor:
    """Random priors: centres in the image, sides from 0.02 to 1."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator)
    return torch.cat([centre, 0.02 + 0.98 * torch.rand(count, 2, generator=generator)], dim=1)
