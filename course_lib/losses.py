"""Losses: what the network pays for a wrong box and for a wrong class."""

from dataclasses import dataclass
from math import inf, log
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.matching import Matches


def localisation_loss(
    offsets: Float[Tensor, "B P 4"], targets: Float[Tensor, "B P 4"], positives: Bool[Tensor, "B P"]
) -> Float[Tensor, ""]:
    """Smooth L1 between predicted and matched offsets, summed over the positives."""
    # Written out to four columns: `where` is twice as fast with a mask that it need not stretch.
    positives = positives[..., None].expand_as(offsets).contiguous()
    # Change the prediction, not the loss: a background prior then gives a gradient of exactly 0.
    predicted = torch.where(positives, offsets, targets)
    return F.smooth_l1_loss(predicted, targets, reduction="sum")


def hardest(loss: Float[Tensor, "B P"], counts: Int[Tensor, "B 1"]) -> Bool[Tensor, "B P"]:
    """Marks the `counts[b]` largest losses of each image b, or all where it has no more than that.

    `topk` takes equally many from every row, so each row gets P more entries, of which so many are
    infinite that P - counts[b] of the P largest are not losses. No sort: the order is of no interest.
    """
    priors = loss.shape[1]
    too_many = torch.arange(priors, device=loss.device) + counts < priors  # [B, P]
    filling = torch.full_like(loss, -inf).masked_fill_(too_many, inf)
    index = torch.cat([loss, filling], dim=1).topk(priors, dim=1, sorted=False).indices
    return too_many.new_zeros(len(loss), 2 * priors).scatter_(1, index, True)[:, :priors]


@dataclass(frozen=True, eq=False)
class MultiBoxLoss:
    """SSD's loss: smooth L1 on the boxes, cross entropy on the classes with hard negatives.

    Args:
        neg_pos_ratio: background priors per positive, the hardest of each image.
        class_weights: one number per class, background first, on the logits' device; the cross
            entropy of each prior is multiplied by the weight of the class that it should predict.
            The choice of negatives and the normaliser stay as they are. None: all classes count alike.

    Calling it gives {"loc": ..., "conf": ...}, each divided by the number of positives in the
    batch. Without any positive both are 0 and still have a graph. Computed in float32.

    Source: Liu et al. 2016, eq. 1 to 3 and "Hard negative mining".
    """

    neg_pos_ratio: float = 3.0
    class_weights: Float[Tensor, " C"] | None = None
    scoring: ClassVar[str] = "softmax"  # a name of `ssd.SCORINGS`

    def prepare(self, model: nn.Module) -> None:
        """A fresh network needs nothing for this loss."""

    def __call__(
        self, offsets: Float[Tensor, "B P 4"], logits: Float[Tensor, "B P C"], matches: Matches
    ) -> dict[str, Float[Tensor, ""]]:
        positives = matches.labels > 0  # [B, P]
        count = positives.sum(dim=1, keepdim=True)  # [B, 1]
        # cross_entropy wants the classes second; a transposed view would be copied, a flat one is not.
        cross_entropy = F.cross_entropy(
            logits.float().flatten(0, 1), matches.labels.flatten(), self.class_weights, reduction="none"
        )
        cross_entropy = cross_entropy.view_as(matches.labels)  # [B, P]

        negatives = cross_entropy.detach().masked_fill(positives, -1.0)
        chosen = positives | hardest(negatives, (count * self.neg_pos_ratio).long())
        conf = torch.where(chosen, cross_entropy, 0.0).sum()
        loc = localisation_loss(offsets.float(), matches.offsets, positives)

        normaliser = count.sum().clamp(min=1)
        return {"loc": loc / normaliser, "conf": conf / normaliser}


# A probability that is rounded to 0 would have an infinite slope under a gamma below 1, and a NaN in the gradient.
LEAST = torch.finfo(torch.float32).tiny


def sigmoid_focal(
    logits: Float[Tensor, "*batch C"], labels: Int[Tensor, "*batch"], alpha: float, gamma: float
) -> Float[Tensor, "*batch"]:
    """Focal loss of a yes or no for each foreground class; the logit of background is not used.

    A prior on background has no class: every answer should be no.

    Source: Lin et al. 2017, eq. 5, summed over the classes.
    """
    classes = torch.arange(1, logits.shape[-1], device=logits.device)
    wanted = labels[..., None] == classes
    signed = torch.where(wanted, logits[..., 1:], -logits[..., 1:])  # large where the answer is right
    weight = torch.where(wanted, alpha, 1 - alpha)
    return -(weight * (-signed).sigmoid().clamp(min=LEAST) ** gamma * F.logsigmoid(signed)).sum(dim=-1)


def softmax_focal(
    logits: Float[Tensor, "*batch C"], labels: Int[Tensor, "*batch"], alpha: float, gamma: float
) -> Float[Tensor, "*batch"]:
    """Focal loss of one choice among all classes, background among them; `alpha` weighs the foreground."""
    log_probability = logits.log_softmax(dim=-1).gather(-1, labels[..., None]).squeeze(-1)
    weight = torch.where(labels > 0, alpha, 1 - alpha)
    return -weight * (-log_probability.expm1()).clamp(min=LEAST) ** gamma * log_probability


@dataclass(frozen=True, eq=False)
class FocalLoss:
    """Smooth L1 on the boxes, focal loss on the classes: every prior counts, an easy one hardly.

    Args:
        alpha: weight of a yes; a no weighs 1 - alpha.
        gamma: how fast an answer that is nearly right stops counting; 0 gives cross entropy weighed by alpha.

    Called as `MultiBoxLoss` is, and normalised alike: the sum over all priors is divided by the number
    of positives in the batch, so start the heads with `expect_background`. Without any positive
    the sum is divided by 1: the background still teaches.

    Source: Lin et al. 2017, sections 3.2 and 4.1.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    scoring: ClassVar[str] = "sigmoid"
    focal: ClassVar = staticmethod(sigmoid_focal)

    def prepare(self, model: nn.Module) -> None:
        """Let a fresh network expect background."""
        expect_background(model)

    def __call__(
        self, offsets: Float[Tensor, "B P 4"], logits: Float[Tensor, "B P C"], matches: Matches
    ) -> dict[str, Float[Tensor, ""]]:
        positives = matches.labels > 0  # [B, P]
        conf = self.focal(logits.float(), matches.labels, self.alpha, self.gamma).sum()
        loc = localisation_loss(offsets.float(), matches.offsets, positives)
        normaliser = positives.sum().clamp(min=1)
        return {"loc": loc / normaliser, "conf": conf / normaliser}


class SoftmaxFocalLoss(FocalLoss):
    """Focal loss on the softmax that `MultiBoxLoss` uses, so that the detections need nothing else."""

    focal = staticmethod(softmax_focal)
    scoring = "softmax"


Loss = MultiBoxLoss | FocalLoss
LOSSES = {"multibox": MultiBoxLoss, "focal": FocalLoss, "softmax-focal": SoftmaxFocalLoss}


@torch.no_grad()
def expect_background(model: nn.Module, pi: float = 0.01) -> None:
    """Set the class heads' biases so that an untrained SSD gives every class a score of about `pi`.

    Without it, thousands of priors on background cost more than the few positives can outweigh.

    Args:
        model: an `ssd.SSD`; its `conf_heads` are changed.
        pi: the prior probability; with softmax, a class and background stand pi to 1 - pi.

    Source: Lin et al. 2017, section 4.1, "Initialization".
    """
    for head in model.conf_heads:
        bias = head.bias.view(-1, model.num_classes)  # a prior's shape in the cell, a class
        bias[:, 0], bias[:, 1:] = 0.0, -log((1 - pi) / pi)


def total(losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The number to minimise; the paper weighs both parts alike (alpha = 1)."""
    return torch.stack(list(losses.values())).sum()


def expected_initial_conf(num_classes: int, neg_pos_ratio: float = 3.0) -> float:
    """Confidence loss of a network that knows nothing: (1 + ratio) ln C; 12.18 for VOC at 3:1.

    Each positive and each of its hard negatives costs ln C when all classes are equally likely.
    """
    return (1 + neg_pos_ratio) * log(num_classes)
