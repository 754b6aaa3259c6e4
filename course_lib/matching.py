"""Matching: which prior answers for which ground truth."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.boxes import box_iou, encode, to_corners


class Matches(NamedTuple):
    """What every prior should predict.

    Attributes:
        labels: the class, 0 for background.
        offsets: the encoded box; of no meaning where the label is 0.
        gt_index: the slot of the ground truth, -1 where there is none.
    """

    labels: Int[Tensor, "B P"]
    offsets: Float[Tensor, "B P 4"]
    gt_index: Int[Tensor, "B P"]


def best_free_priors(iou: Float[Tensor, "B G P"]) -> Int[Tensor, "B G"]:
    """Give every ground truth a prior of its own: the best pair of the whole matrix first.

    Greedy over the matrix: the highest IoU wins its prior, its row and column are struck out, and
    so on. Of equal overlaps the first ground truth and the first prior win.

    Returns:
        The prior's index, or -1 for a ground truth that overlaps no free prior.
    """
    batch, slots, priors = iou.shape
    free = iou.clone()
    taken = iou.new_full((batch, slots), -1, dtype=torch.int64)
    for _ in range(slots):
        row_best, row_prior = free.max(dim=2)  # [B, G]
        top, slot = row_best.max(dim=1, keepdim=True)  # [B, 1]
        prior = row_prior.gather(1, slot)  # [B, 1]
        taken.scatter_(1, slot, torch.where(top > 0, prior, taken.gather(1, slot)))
        free.scatter_(1, slot[..., None].expand(-1, -1, priors), -1.0)
        free.scatter_(2, prior[..., None].expand(-1, slots, -1), -1.0)
    return taken


def match(
    boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    priors: Float[Tensor, "P 4"],
    iou_threshold: float = 0.5,
) -> Matches:
    """Decide what every prior should predict.

    First every ground truth gets the best prior that is still free; then every other prior whose
    best overlap reaches the threshold joins that ground truth.

    Args:
        boxes: corners, fractions of the image; padded slots are empty boxes.
        labels: class index plus 1; padded slots are 0.
        priors: centre-size, fractions of the image.
        iou_threshold: the overlap from which a prior is positive.

    Source: Liu et al. 2016, section 2.2, "Matching strategy"; the order is the original code's.
    """
    with torch.no_grad():
        iou = box_iou(boxes, to_corners(priors).expand(len(boxes), -1, -1))  # [B, G, P]
        overlap, gt_index = iou.max(dim=1)  # [B, P]
        gt_index = torch.where(overlap >= iou_threshold, gt_index, -1)
        forced = best_free_priors(iou)  # [B, G]

        # A last column takes the writes of ground truths that have no prior. Each prior is written
        # at most once, since no two ground truths share one: the order of writes does not matter.
        slots = torch.arange(boxes.shape[1], device=boxes.device).expand_as(forced)
        spare = gt_index.new_full((len(boxes), 1), -1)
        target_column = torch.where(forced >= 0, forced, priors.shape[0])
        gt_index = torch.cat([gt_index, spare], dim=1).scatter(1, target_column, slots)[:, :-1]

        known = gt_index.clamp(min=0)
        matched_labels = torch.where(gt_index >= 0, labels.gather(1, known), 0)
        matched = boxes.gather(1, known[..., None].expand(-1, -1, 4))  # [B, P, 4]
        # Background priors describe themselves: offsets 0, and no logarithm of an empty box.
        matched = torch.where((matched_labels > 0)[..., None], matched, to_corners(priors))
        return Matches(matched_labels, encode(matched, priors), gt_index)
