"""Losses: what the network pays for a wrong box and for a wrong class."""

from math import log

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from course_lib.matching import Matches


def localisation_loss(offsets: Float[Tensor, "B P 4"], matches: Matches) -> Float[Tensor, ""]:
    """Smooth L1 between predicted and matched offsets, summed over the positives."""
    positives = (matches.labels > 0)[..., None]
    # Zero the difference, not the loss: a background prior then gives a gradient of exactly 0.
    difference = torch.where(positives, offsets - matches.offsets, 0.0)
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum")


def hard_negative_sum(
    loss: Float[Tensor, "B P"], positives: Bool[Tensor, "B P"], counts: Int[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Sum of the `counts[b]` largest losses among the priors of image b that are not positive.

    Only the sum is needed, never the indices: sort once, and add up the front of each row.
    """
    ranked = loss.masked_fill(positives, 0.0).sort(dim=1, descending=True).values
    rank = torch.arange(loss.shape[1], device=loss.device)
    return torch.where(rank < counts[:, None], ranked, 0.0).sum()


class MultiBoxLoss:
    """SSD's loss: smooth L1 on the boxes, cross entropy on the classes with hard negatives.

    Args:
        neg_pos_ratio: background priors per positive, the hardest of each image.

    Calling it gives {"loc": ..., "conf": ...}, each divided by the number of positives in the
    batch. Without any positive both are 0 and still have a graph. Computed in float32.

    Source: Liu et al. 2016, eq. 1 to 3 and "Hard negative mining".
    """

    def __init__(self, neg_pos_ratio: float = 3.0) -> None:
        self.neg_pos_ratio = neg_pos_ratio

    def __call__(
        self, offsets: Float[Tensor, "B P 4"], logits: Float[Tensor, "B P C"], matches: Matches
    ) -> dict[str, Float[Tensor, ""]]:
        positives = matches.labels > 0  # [B, P]
        count = positives.sum(dim=1)  # [B]
        # cross_entropy wants the classes second; a transposed view would be copied, a flat one is not.
        cross_entropy = F.cross_entropy(logits.float().flatten(0, 1), matches.labels.flatten(), reduction="none")
        cross_entropy = cross_entropy.view_as(matches.labels)  # [B, P]

        negatives = torch.minimum((count * self.neg_pos_ratio).long(), (~positives).sum(dim=1))
        conf = torch.where(positives, cross_entropy, 0.0).sum()
        conf = conf + hard_negative_sum(cross_entropy, positives, negatives)
        loc = localisation_loss(offsets.float(), matches)

        normaliser = count.sum().clamp(min=1)
        return {"loc": loc / normaliser, "conf": conf / normaliser}


def total(losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The number to minimise; the paper weighs both parts alike (alpha = 1)."""
    return torch.stack(list(losses.values())).sum()


def expected_initial_conf(num_classes: int, neg_pos_ratio: float = 3.0) -> float:
    """Confidence loss of a network that knows nothing: (1 + ratio) ln C; 12.18 for VOC at 3:1.

    Each positive and each of its hard negatives costs ln C when all classes are equally likely.
    """
    return (1 + neg_pos_ratio) * log(num_classes)
