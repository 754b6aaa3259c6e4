"""From raw outputs to detections: scores, boxes, a cut, NMS, another cut."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from course_lib.boxes import decode
from course_lib.images import resized
from course_lib.nms import batched_nms
from course_lib.ssd import SCORINGS
from course_lib.voc import Batch


class Detections(NamedTuple):
    """What was found in one image, by falling score.

    Attributes:
        boxes: corners, fractions of the image, clipped to it.
        scores: probability of the class.
        labels: class index plus 1.
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, " N"]
    labels: Int[Tensor, " N"]


def detect_one(
    boxes: Float[Tensor, "P 4"],
    probabilities: Float[Tensor, "P C"],
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
) -> Detections:
    """Detections of one image from the box and the class probabilities of every prior."""
    by_class = probabilities[:, 1:].T  # [C - 1, P]
    classes, confident = (by_class > score_threshold).nonzero().unbind(1)
    scores = by_class[classes, confident]
    # Class by class, by falling score, ties in the priors' order, so that the cut at top_k is the same everywhere.
    order = scores.argsort(descending=True, stable=True)
    order = order[classes[order].argsort(stable=True)]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(classes[order], classes[order])
    order = order[rank < top_k]
    boxes, scores, labels = boxes[confident[order]], scores[order], classes[order] + 1
    best = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
    return Detections(boxes[best], scores[best], labels[best])


def detect(
    offsets: Float[Tensor, "B P 4"],
    logits: Float[Tensor, "B P C"],
    priors: Float[Tensor, "P 4"],
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
    scoring: str = "softmax",
) -> list[Detections]:
    """Turn the network's outputs into detections, image by image.

    Args:
        offsets, logits: what the model gives.
        priors: centre-size, fractions of the image.
        score_threshold: a box is a candidate for a class only above this probability.
        iou_threshold: NMS drops a box that overlaps a better one of its class by more than this.
        top_k: candidates per class that enter NMS.
        max_detections: detections per image that leave it.
        scoring: a name of `ssd.SCORINGS`; that of the model, and of the loss that trained it.

    Source: Liu et al. 2016, section 3.1; the defaults are the original's.
    """
    boxes = decode(offsets.float(), priors.float()).clamp(0, 1).cpu()
    probabilities = SCORINGS[scoring](logits.float()).cpu()
    return [
        detect_one(b, p, score_threshold, iou_threshold, top_k, max_detections)
        for b, p in zip(boxes, probabilities, strict=True)
    ]


@torch.inference_mode()
def detect_all(model: nn.Module, batches: Iterable[Batch], **options: float) -> list[Detections]:
    """Detections for every image of a loader, in its order, with the `options` of `detect`.

    The model is left in the mode it was in.
    """
    was_training, device = model.training, model.priors.device
    model.eval()
    try:
        found = []
        for batch in batches:
            offsets, logits = model(batch.images.to(device, non_blocking=True))
            found += detect(offsets, logits, model.priors, scoring=model.scoring, **options)
        return found
    finally:
        model.train(was_training)


def detect_image(model: nn.Module, image: UInt8[np.ndarray, "H W 3"], **options: float) -> Detections:
    """Detections in one picture of any size, RGB, with the `options` of `detect`."""
    square = resized(image, model.image_size)[None]
    batch = Batch(square, torch.zeros(1, 1, 4), torch.zeros(1, 1).long(), torch.zeros(1, 1).bool(), [""], [(1, 1)])
    return detect_all(model, [batch], **options)[0]
