"""Matching: which prior answers for which ground truth."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib import crowds
from course_lib.boxes import box_iou, encode, to_corners


class Matches(NamedTuple):
    """What every prior should predict.

    Attributes:
        labels: the class, 0 for background.
        offsets: the encoded box; finite, but of no meaning, where the label is 0.
        gt_index: the slot of the ground truth, -1 where there is none.
    """

    labels: Int[Tensor, "B P"]
    offsets: Float[Tensor, "B P 4"]
    gt_index: Int[Tensor, "B P"]


def owners(
    boxes: Float[Tensor, "B G 4"],
    corners: Float[Tensor, "P 4"],
    iou_threshold: float,
) -> Int[Tensor, "B P"]:
    """The slot of the ground truth that each prior answers for, -1 for none.

    First the threshold; then each ground truth's own prior is written over it, the best
    pair first. Of equal overlaps the first ground truth and the first prior win.

    Args:
        boxes: corners; an empty box overlaps nothing.
        corners: of the priors, in the same unit.
        iou_threshold: the overlap from which a prior is positive.
    """
    iou = box_iou(boxes, corners)  # [B, G, P]
    overlap, owner = iou.max(dim=1)  # [B, P]
    owner.masked_fill_(overlap < iou_threshold, -1)
    image = torch.arange(len(iou), device=iou.device)
    nothing = iou.new_zeros(())  # on the device; for a plain 0 the host would wait
    for _ in range(iou.shape[1]):
        slot = iou.amax(dim=2).argmax(dim=1)  # [B], whose best overlap is largest
        best, prior = iou[image, slot].max(dim=1)  # [B]
        owner[image, prior] = torch.where(best > 0, slot, owner[image, prior])
        iou[image, slot] = nothing
        iou[image, :, prior] = nothing
    return owner


def match(
    boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    priors: Float[Tensor, "P 4"],
    iou_threshold: float = 0.5,
) -> Matches:
    """Decide what every prior should predict.

    Every ground truth gets the best prior that is still free, the best pair of all first; every other prior
    whose best overlap reaches the threshold joins that ground truth. Up to `crowds.CROWD` slots the host does
    not wait for the device.

    Args:
        boxes: corners, fractions of the image; padded slots are empty boxes.
        labels: class index plus 1; padded slots are 0.
        priors: centre-size, fractions of the image.
        iou_threshold: the overlap from which a prior is positive.

    Source: Liu et al. 2016, section 2.2, "Matching strategy"; the order is the original code's.
    """
    with torch.no_grad():
        corners = to_corners(priors)
        find = crowds.owners if boxes.shape[1] > crowds.CROWD else owners
        gt_index = find(boxes, corners, iou_threshold)
        known, image = gt_index.clamp(min=0), torch.arange(len(boxes), device=boxes.device)[:, None]
        matched_labels = labels[image, known].masked_fill(gt_index < 0, 0)
        # Background priors describe themselves: offsets 0, and no logarithm of an empty box.
        matched = torch.where((matched_labels > 0)[..., None], boxes[image, known], corners)
        return Matches(matched_labels, encode(matched, priors), gt_index)
