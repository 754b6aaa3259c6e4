"""Boxes: two ways to write one down, how much two overlap, and how a network describes one.

A box is `(xmin, ymin, xmax, ymax)` in fractions of the image unless its name says otherwise.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def to_cxcywh(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Corners `(xmin, ymin, xmax, ymax)` to centre and size `(cx, cy, width, height)`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_corners(boxes_cxcywh: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Centre and size `(cx, cy, width, height)` to corners `(xmin, ymin, xmax, ymax)`."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def area(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Area of boxes given as corners; a reversed or empty box has area 0."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def box_iou(a: Float[Tensor, "*batch N 4"], b: Float[Tensor, "*#batch M 4"]) -> Float[Tensor, "*batch N M"]:
    """Intersection over union of every box in `a` with every box in `b`.

    Args:
        a: corners, in any unit.
        b: corners, in the same unit as `a`.

    Returns:
        Values in [0, 1]. Two empty boxes have IoU 0, never NaN. In float32 where a box has sixteen bits:
        float16 ends at 65,504, and 300 x 300 pixels are more.

    Source: Everingham et al. 2010, section 4.2.
    """
    a, b = (boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes for boxes in (a, b))
    a_xmin, a_ymin, a_xmax, a_ymax = a[..., :, None, :].unbind(dim=-1)  # [N, 1]
    b_xmin, b_ymin, b_xmax, b_ymax = b[..., None, :, :].movedim(-1, 0).contiguous()  # [1, M], rows of memory
    width = (torch.minimum(a_xmax, b_xmax) - torch.maximum(a_xmin, b_xmin)).clamp(min=0)
    height = (torch.minimum(a_ymax, b_ymax) - torch.maximum(a_ymin, b_ymin)).clamp(min=0)
    intersection = width * height
    union = area(a)[..., :, None] + area(b)[..., None, :] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def encode(
    boxes: Float[Tensor, "*batch priors 4"],
    priors_cxcywh: Float[Tensor, "priors 4"],
    variances: tuple[float, float] = (0.1, 0.2),
) -> Float[Tensor, "*batch priors 4"]:
    """Describe each box as seen from its prior: the numbers that the network learns to predict.

    Args:
        boxes: one box per prior, corners, fractions of the image, with a positive area.
        priors_cxcywh: centre-size, fractions of the image.
        variances: scale of the centre and of the log-size terms.

    Returns:
        Offsets `(dx, dy, dw, dh)`, in units of the prior's size and of `variances`.

    Source: Liu et al. 2016, eq. 2; the variances are the original code's.
    """
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = boxes[..., 2:] - boxes[..., :2]
    shift = (centre - priors_cxcywh[:, :2]) / priors_cxcywh[:, 2:] / variances[0]
    stretch = (size / priors_cxcywh[:, 2:]).log() / variances[1]
    return torch.cat([shift, stretch], dim=-1)


def decode(
    offsets: Float[Tensor, "*batch priors 4"],
    priors_cxcywh: Float[Tensor, "priors 4"],
    variances: tuple[float, float] = (0.1, 0.2),
) -> Float[Tensor, "*batch priors 4"]:
    """Turn predicted offsets back into boxes; the inverse of `encode`.

    Args:
        offsets: `(dx, dy, dw, dh)` per prior, in units of the prior's size and of `variances`.
        priors_cxcywh: centre-size, fractions of the image.
        variances: scale of the centre and of the log-size terms.

    Returns:
        Corners, fractions of the image, not clipped.

    Source: Liu et al. 2016, eq. 2; the variances are the original code's.
    """
    centre = priors_cxcywh[:, :2] + offsets[..., :2] * variances[0] * priors_cxcywh[:, 2:]
    size = priors_cxcywh[:, 2:] * (offsets[..., 2:] * variances[1]).exp()
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)
