"""What a network's answers are worth: at the priors that answer for an object, and in what is detected."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.batches import Batch
from course_lib.boxes import box_iou, decode
from course_lib.detect import Detections, detect
from course_lib.doctor.patient import Patient
from course_lib.matching import match
from course_lib.metrics import evaluate_voc
from course_lib.ssd import SCORINGS
from course_lib.voc import Target

SURE = 2  # detections an object that are looked at, the surest of the image,
LEAST = 0.1  # if they have so much of the surest one's score: by chance any object is found by one of no weight


class Grasp(NamedTuple):
    """What the priors say that answer for an object.

    Attributes:
        priors: how many there are.
        iou: mean overlap of their boxes with the object.
        named: share whose surest class is the object's.
        told: probability that such a prior is surer of some object than one on background is.
    """

    priors: int
    iou: float
    named: float
    told: float

    def __str__(self) -> str:
        return f"boxes overlap their objects by {self.iou:.2f}, {self.named:.0%} have the right class"


def grasp(offsets: Float[Tensor, "B P 4"], logits: Float[Tensor, "B P C"], batch: Batch, priors: Tensor) -> Grasp:
    """What the priors say of a batch, matched and decoded as this course does it."""
    matches = match(batch.boxes, batch.labels, priors)
    positive = matches.labels > 0  # [B, P]
    if not positive.any():
        return Grasp(0, 0.0, 0.0, 0.0)
    boxes = decode(offsets.float(), priors)[positive]
    objects = torch.gather(batch.boxes, 1, matches.gt_index.clamp(min=0)[..., None].expand(-1, -1, 4))[positive]
    named = logits[..., 1:].argmax(dim=-1)[positive] + 1 == matches.labels[positive]
    surest = logits.float()[..., 1:].amax(dim=-1)  # [B, P]; a yes or no of each class has no use for background's
    told = max(told_apart(surest, positive), told_apart(surest - logits.float()[..., 0], positive))
    return Grasp(int(positive.sum()), float(overlap(boxes, objects).mean()), float(named.float().mean()), told)


def told_apart(scores: Float[Tensor, "B P"], positive: Bool[Tensor, "B P"]) -> float:
    """Probability that a positive has a higher score than another prior: the area under the ROC curve."""
    ranks = torch.cat([scores[positive], scores[~positive]]).argsort().argsort().double()
    count, others = int(positive.sum()), int((~positive).sum())
    return float((ranks[:count].sum() - count * (count - 1) / 2) / max(1, count * others))


def overlap(a: Float[Tensor, "N 4"], b: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """IoU of each box with the one in the same row."""
    return box_iou(a[:, None], b[:, None])[:, 0, 0]


class Found(NamedTuple):
    """What detections find of the objects of a batch.

    Attributes:
        right: share of the objects that one of the image's surest detections finds, at an IoU of .5 and by its class.
        boxes: the same whatever the class.
        iou: mean overlap of the objects with the best of these detections.
        ap: mean average precision.
        labels, hit: of each object, and whether it was found right.
    """

    right: float
    boxes: float
    iou: float
    ap: float
    labels: Tensor
    hit: Tensor


def found(detections: Sequence[Detections], batch: Batch) -> Found:
    """What of a batch is found."""
    hit, best_iou, every = [], [], []
    for one, truth, labels in zip(detections, batch.boxes, batch.labels, strict=True):
        known = labels > 0
        best = one.scores.argsort(descending=True)[: SURE * int(known.sum())]
        best = best[one.scores[best] >= LEAST * one.scores[best[:1]]]
        overlaps = box_iou(truth[known].float(), one.boxes[best].float())
        same = labels[known][:, None] == one.labels[best]
        best_iou.append(overlaps.amax(dim=1) if overlaps.shape[1] else overlaps.new_zeros(len(overlaps)))
        hit.append(((overlaps >= 0.5) & same).any(dim=1))
        every.append(labels[known])
    right, fit = torch.cat(hit), torch.cat(best_iou)
    share = [float(one.float().mean()) if len(one) else 0.0 for one in (right, fit >= 0.5, fit)]
    return Found(*share, mean_ap(detections, batch), torch.cat(every), right)


def mean_ap(detections: Sequence[Detections], batch: Batch) -> float:
    """mAP on a batch, 0 where what was detected is no box of a class that can be measured."""
    highest = max([int(batch.labels.max()), *(int(one.labels.max()) for one in detections if len(one.labels)), 1])
    classes = [f"class {number}" for number in range(1, highest + 1)]
    truth = [
        Target(boxes[labels > 0], labels[labels > 0], difficult[labels > 0], str(number), (1000, 1000))
        for number, (boxes, labels, difficult) in enumerate(
            zip(batch.boxes, batch.labels, batch.difficult, strict=True)
        )
    ]
    try:
        result = evaluate_voc(detections, truth, classes=classes)
    except ValueError:
        return 0.0
    return 0.0 if result.mean_ap != result.mean_ap else result.mean_ap


class Answers(NamedTuple):
    """What a network's outputs are worth by this course's decoding and NMS."""

    found: Found
    detections: list[Detections]
    grasp: Grasp
    offsets: Tensor


def by_the_book(patient: Patient, batch: Any, read: Batch, training: bool) -> Answers:
    """What this course makes of the network's outputs, in the mode it is in or in evaluation mode.

    The outputs are read as a choice among all classes or as a yes or no of each, whichever finds more.
    """
    modes = [(layer, layer.training) for layer in patient.model.modules()]
    if not training:
        patient.model.eval()
    try:
        with torch.no_grad():
            offsets, logits = (one.detach().cpu() for one in patient.outputs(batch))
    finally:
        for layer, mode in modes:
            layer.training = mode
    priors = patient.priors.cpu()
    ways = [detect(offsets, logits, priors, scoring=scoring) for scoring in SCORINGS]
    results = [(found(way, read), way) for way in ways]
    best, detections = max(results, key=lambda one: one[0].right)
    return Answers(best, detections, grasp(offsets, logits, read, priors), offsets)
