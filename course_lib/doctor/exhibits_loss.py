"""Exhibits in the loss: what is summed, what it is divided by, and what has a gradient."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib import losses
from course_lib.doctor.exhibits_data import LOG
from course_lib.doctor.setups import Changed, Exhibit, Setup
from course_lib.matching import Matches
from course_lib.voc import Target

Parts = dict[str, Tensor]


def change_loss(setup: Setup, change: Callable[[Parts, Matches], Parts]) -> None:
    """Change what the loss gives, once it is computed."""
    usual = setup.loss
    setup.loss = lambda offsets, logits, matches: change(usual(offsets, logits, matches), matches)


def focal_without_prior(setup: Setup) -> None:
    """Focal loss over all priors, divided by the few positives, and heads that do not expect background."""
    setup.loss = losses.FocalLoss()
    setup.model.scoring = setup.loss.scoring


def squares_of_classes(setup: Setup) -> None:
    """The classes are learned by the mean squared error to their one-hot code, over all priors."""

    def loss(offsets: Tensor, logits: Tensor, matches: Matches) -> Parts:
        positives = matches.labels > 0
        wanted = F.one_hot(matches.labels, logits.shape[-1]).float()
        loc = losses.localisation_loss(offsets, matches.offsets, positives) / positives.sum().clamp(min=1)
        return {"loc": loc, "conf": F.mse_loss(logits.softmax(dim=-1), wanted)}

    setup.loss = loss


def weights_as_a_vector(setup: Setup) -> None:
    """Every prior's cross entropy is multiplied by the weights of all classes, in place of its own class's."""
    weights = 1 / torch.arange(1.0, len(setup.classes) + 2)  # rare classes should count for more, here the first
    weights = weights / weights.min()
    change_loss(setup, lambda parts, matches: parts | {"conf": (parts["conf"] * weights).mean()})


def with_negatives(chosen: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """A multibox loss whose class part is the sum over other priors.

    Args:
        chosen: from cross entropy `[B, P]`, positives `[B, P]` and number of negatives `[B, 1]` to what is summed.
    """

    def loss(offsets: Tensor, logits: Tensor, matches: Matches) -> Parts:
        positives = matches.labels > 0
        count = positives.sum(dim=1, keepdim=True)
        cost = F.cross_entropy(logits.flatten(0, 1), matches.labels.flatten(), reduction="none").view_as(matches.labels)
        conf, number = chosen(cost, positives, 3 * count).sum(), count.sum().clamp(min=1)
        return {
            "loc": losses.localisation_loss(offsets, matches.offsets, positives) / number,
            "conf": conf / number,
        }

    return loss


def easiest_negatives(setup: Setup) -> None:
    """Background is sorted by rising cost: the easiest priors are mined."""

    def chosen(cost: Tensor, positives: Tensor, count: Tensor) -> Tensor:
        easiest = losses.hardest((-cost.detach()).masked_fill(positives, -torch.inf), count)
        return torch.where(positives | easiest, cost, 0.0)

    setup.loss = with_negatives(chosen)


def positives_overwritten(setup: Setup) -> None:
    """Positives are set to 0 so that none is mined, in the tensor that is summed."""

    def chosen(cost: Tensor, positives: Tensor, count: Tensor) -> Tensor:
        cost = cost.masked_fill(positives, 0.0)
        return torch.where(positives | losses.hardest(cost.detach(), count), cost, 0.0)

    setup.loss = with_negatives(chosen)


def positives_compete(setup: Setup) -> None:
    """The hardest priors are mined among all: positives take places that background should have."""

    def chosen(cost: Tensor, positives: Tensor, count: Tensor) -> Tensor:
        return torch.where(positives | losses.hardest(cost.detach(), count), cost, 0.0)

    setup.loss = with_negatives(chosen)


def mean_of_four(setup: Setup) -> None:
    """The box loss is L1's mean over positives and coordinates."""

    def loss(offsets: Tensor, logits: Tensor, matches: Matches) -> Parts:
        positives = matches.labels > 0
        loc = F.l1_loss(offsets[positives], matches.offsets[positives])
        return losses.MultiBoxLoss()(offsets, logits, matches) | {"loc": loc}

    setup.loss = loss


def not_divided(setup: Setup) -> None:
    """The sums over a batch are not divided by its positives, and gradients are not shortened."""
    change_loss(setup, lambda parts, matches: {name: part * positives(matches) for name, part in parts.items()})
    setup.clip_norm = None


def positives(matches: Matches) -> Tensor:
    return (matches.labels > 0).sum()


def without_objects(index: int, image: np.ndarray, target: Target) -> tuple:
    fields = ("boxes", "labels", "difficult")
    return image, replace(target, **{name: getattr(target, name)[:0] for name in fields})


def first_batch_empty(setup: Setup) -> None:
    """The images of the first batch show none of the classes, which happens in a large data set."""
    size = setup.batch_size
    setup.data = Changed(setup.data, lambda index, *sample: without_objects(index, *sample) if index < size else sample)


def constant_without_graph(setup: Setup) -> None:
    """A batch without positives costs a constant, which has no graph; the first batch is one."""
    first_batch_empty(setup)

    def change(parts: Parts, matches: Matches) -> Parts:
        return parts if positives(matches) else {name: torch.tensor(0.0) for name in parts}

    change_loss(setup, change)


def divided_by_none(setup: Setup) -> None:
    """What counts is picked out by a factor of 0 or 1, and divided by the positives, also where there are none."""
    first_batch_empty(setup)

    def loss(offsets: Tensor, logits: Tensor, matches: Matches) -> Parts:
        positives = matches.labels > 0
        count = positives.sum(dim=1, keepdim=True)
        cost = F.cross_entropy(logits.flatten(0, 1), matches.labels.flatten(), reduction="none").view_as(matches.labels)
        negatives = losses.hardest(cost.detach().masked_fill(positives, -1.0), 3 * count)
        distance = F.smooth_l1_loss(offsets, matches.offsets, reduction="none").sum(dim=-1)
        return {
            "loc": (distance * positives).sum() / count.sum(),
            "conf": (cost * (positives | negatives)).sum() / count.sum(),
        }

    setup.loss = loss


def class_loss_detached(setup: Setup) -> None:
    """The class loss is made a number before the parts are added."""
    change_loss(setup, lambda parts, matches: parts | {"conf": parts["conf"].detach()})


class LabelForYes(losses.FocalLoss):
    """Focal loss written out with y, where y is the label's number and should be 0 or 1."""

    @staticmethod
    def focal(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
        p, columns = logits[..., 1:].sigmoid(), torch.arange(1, logits.shape[-1])
        y = labels[..., None] * (labels[..., None] == columns)
        yes = alpha * (1 - p) ** gamma * y * F.logsigmoid(logits[..., 1:])
        no = (1 - alpha) * p**gamma * (1 - y) * F.logsigmoid(-logits[..., 1:])
        return -(yes + no).sum(dim=-1)


def label_for_yes(setup: Setup) -> None:
    """Focal loss takes the number of the class for a yes."""
    setup.loss = LabelForYes()
    setup.loss.prepare(setup.model)
    setup.model.scoring = setup.loss.scoring


EXHIBITS = {
    "focal-without-prior": Exhibit(
        "Focal loss over all priors, with heads that expect an object everywhere",
        "A published training log (adrirubio/ml-rover, state 849686a) sums focal loss over 9,966 priors and divides by "
        "the few positives: thousands at the start. caffe #720 begins at 1992.",
        "A first loss in the hundreds or thousands that falls by 80 %: the heads learn to say no.",
        "losses.expect_background(model) before the first step.",
        8,
        focal_without_prior,
    ),
    "squares-of-classes": Exhibit(
        "Mean squared error for the classes",
        "A page in this course's sources on why SSD fails to learn names it as the typical slip.",
        "The class loss starts near 0.05, falls to 0.01 and says background everywhere.",
        "Cross entropy with hard negatives, divided by the positives.",
        7,
        squares_of_classes,
    ),
    "weights-as-a-vector": Exhibit(
        "Class weights multiplied as a vector",
        "A page in this course's sources: loss *= weights, where loss has one number per sample and weights one per "
        "class. What broadcasts gives every sample the mean of all weights.",
        "The loss is several times as high, and rare classes are no better.",
        "F.cross_entropy(logits, labels, weight=weights): each sample its own class's.",
        7,
        weights_as_a_vector,
    ),
    "easiest-negatives": Exhibit(
        "The easiest negatives are mined",
        "PyTorchIntroduction #5 doubts the direction of a sort. It is right there, because the cost was multiplied by "
        "-1 before: without that sign it mines the easiest, and the loss looks better for it.",
        "A low loss from the start, and detections all over the background.",
        "sort(descending=True), or losses.hardest.",
        7,
        easiest_negatives,
    ),
    "positives-overwritten": Exhibit(
        "Positives overwritten before they are summed",
        "Chapter 7: an early version of the code behind a published log (adrirubio/ml-rover, state 008f89a) does it.",
        "The first class loss is 3 ln C in place of 4 ln C, it falls to 0, and everything is background.",
        "masked_fill on a copy, for the ranking only.",
        7,
        positives_overwritten,
    ),
    "positives-compete": Exhibit(
        "Positives compete for the places of negatives",
        "ssd-tf2 #34 takes the positives out before it picks negatives; #19 had found that what was mined looked "
        "wrong. DeepLearningExamples #948 has a case in which they count twice.",
        "Fewer than three negatives for each positive, and fewest while the positives are still hard.",
        "Rank background alone: masked_fill(positives, -1) on a copy.",
        7,
        positives_compete,
    ),
    "mean-of-four": Exhibit(
        "The box loss is a mean over four coordinates",
        "A widely read tutorial (sgrvinod #60, #27) uses nn.L1Loss(), whose mean is over positives and coordinates.",
        "The box part weighs a quarter of what the paper gives it: boxes stay loose.",
        "Sum, and divide by the positives.",
        7,
        mean_of_four,
    ),
    "not-divided": Exhibit(
        "A sum that is not divided by the positives",
        "ssd_tensorflow_traffic_sign_detection #30: without that division the loss is very high; ssd.pytorch #386 and "
        "lufficc/SSD #167 have losses in the thousands.",
        "The loss depends on how many objects a batch has; the first steps are far too long.",
        "Divide by the number of positives in the batch.",
        7,
        not_divided,
    ),
    "constant-without-graph": Exhibit(
        "No positives: a constant without a graph",
        f"{LOG}: torch.tensor(0.0) for a batch without positives; gluon-cv's pull request 627 mends the same.",
        "element 0 of tensors does not require grad, at a batch without objects.",
        "Multiply the sum by 0, or divide by at least 1.",
        7,
        constant_without_graph,
    ),
    "divided-by-none": Exhibit(
        "No positives: a division by zero",
        "kuangliu/torchcv #35; ssd.pytorch divides by N as it is.",
        "NaN at a batch without objects, and from the next step on in every weight.",
        "clamp(min=1).",
        7,
        divided_by_none,
    ),
    "class-loss-detached": Exhibit(
        "Part of the loss has no gradient",
        "FL-MRCM #10: a part was detached and made a number before it was added, to save memory.",
        "The total falls, because the boxes learn; the class loss moves up and down by chance.",
        "Add tensors; make numbers of them for the log.",
        7,
        class_loss_detached,
    ),
    "label-for-yes": Exhibit(
        "Focal loss with the label where a yes should be",
        "PaddleDetection #2000: y log p + (1 - y) log(1 - p) was written out with the class's number for y. It ran, "
        "the loss fell, and mAP went from over 90 to about 15. Chapter 8's further page has the curves.",
        "The loss falls below 0 and on: a sure yes is rewarded without end, the more so the higher the number.",
        "y = (labels == class), which is 0 or 1.",
        8,
        label_for_yes,
    ),
}
