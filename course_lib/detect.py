"""From raw outputs to detections: scores, boxes, a cut, NMS, another cut."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from course_lib.boxes import decode
from course_lib.images import resized
from course_lib.nms import survivors
from course_lib.ssd import SCORINGS
from course_lib.voc import Batch


class NotFinite(ValueError):
    """A network gives NaN or infinity: its weights are spoilt, or its activations overflow."""


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


def decode_scores(
    offsets: Float[Tensor, "B P 4"],
    logits: Float[Tensor, "B P C"],
    priors: Float[Tensor, "P 4"],
    scoring: str = "softmax",
) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P C"]]:
    """The box and the class probabilities of every prior, in float32: tensors in, tensors out.

    Args:
        offsets, logits: what the model gives.
        priors: centre-size, fractions of the image.
        scoring: a name of `ssd.SCORINGS`.

    Returns:
        boxes: corners, fractions of the image, clipped to it.
        scores: background's in the first column.

    Source: Liu et al. 2016, eq. 2, backwards.
    """
    return decode(offsets.float(), priors.float()).clamp(0, 1), SCORINGS[scoring](logits.float())


def candidates(
    probabilities: Float[np.ndarray, "P C"], score_threshold: float, count: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"], bool]:
    """Where the highest probabilities above the threshold are, prior by prior; background's do not count.

    Args:
        count: how many to look for; it gives more, where others equal the last one.

    Returns:
        Prior and class of each, and whether there are no others.
    """
    above = probabilities > score_threshold
    above[:, 0] = False
    complete = int(np.count_nonzero(above)) <= count
    if not complete:
        above &= probabilities >= np.partition(probabilities[above], -count)[-count]
    return *np.divmod(np.flatnonzero(above), probabilities.shape[1]), complete


def select(
    box_of: Callable[[Tensor, Tensor], Tensor],
    probabilities: Float[Tensor, "B P C"],
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
    count: int,
) -> list[Detections]:
    """Detections of every image, from its `count` best candidates or, where these are too few, from more.

    What NMS does to a box depends on better boxes alone: the best candidates decide the best detections.

    Args:
        box_of: from images and priors, by number, to boxes. Most priors are no candidates, and nobody asks for theirs.
        probabilities: on the CPU.
    """
    if not len(probabilities):
        return []
    scores = probabilities.numpy(force=True)
    priors, labels, complete = zip(*(candidates(one, score_threshold, count) for one in scores), strict=True)
    image = np.repeat(np.arange(len(scores)), [len(prior) for prior in priors])
    prior, label = np.concatenate(priors), np.concatenate(labels)
    group, values = image * scores.shape[2] + label, scores[image, prior, label]
    # Class by class, by falling score, ties in the priors' order, so that the cut at top_k is the same everywhere.
    order = np.lexsort((-values, group))
    order = order[np.arange(len(order)) - np.searchsorted(group[order], group[order]) < top_k]
    image, prior, label, group = torch.from_numpy(np.stack([image, prior, label, group])[:, order])
    every = Detections(box_of(image, prior), torch.from_numpy(values[order]), label)
    kept = survivors(every.boxes, group, iou_threshold).nonzero().squeeze(1)
    kept = kept[every.scores[kept].argsort(descending=True, stable=True)]
    cuts, detections = (score_threshold, iou_threshold, top_k, max_detections), []
    for number in range(len(scores)):
        best = kept[image[kept] == number][:max_detections]
        if complete[number] or len(best) == max_detections:
            detections.append(Detections(*(values[best] for values in every)))
        else:
            detections += select(
                lambda image, prior, number=number: box_of(image + number, prior),
                probabilities[number, None],
                *cuts,
                4 * count,
            )
    return detections


def detect_one(
    boxes: Float[Tensor, "P 4"],
    probabilities: Float[Tensor, "P C"],
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
) -> Detections:
    """Detections of one image from the box and the class probabilities of every prior."""
    boxes, probabilities = boxes.cpu(), probabilities.cpu()
    cuts = score_threshold, iou_threshold, top_k, max_detections
    return select(lambda _, prior: boxes[prior], probabilities[None], *cuts, count=4 * max_detections)[0]


def check_finite(**outputs: Float[Tensor, "B P _"]) -> None:
    """Refuse what a network gives whose weights are NaN: no box would pass a threshold, and nothing be said."""
    for name, values in outputs.items():
        if values.sum(dtype=torch.float32).isfinite():  # one pass; else look closer, for large numbers add up too
            continue
        bad = ~values.isfinite()
        if bad.any():
            images = bad.flatten(1).any(dim=1).nonzero().flatten().tolist()
            raise NotFinite(
                f"the outputs are not finite: {int(bad.sum())} of {bad.numel()} {name} are NaN or infinite, in "
                f"images {images} of the batch: look for NaN in the weights, and take a checkpoint from before"
            )


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

    Raises:
        NotFinite: an output is NaN or infinite.

    Source: Liu et al. 2016, section 3.7; the defaults are the original's.
    """
    check_finite(offsets=offsets, logits=logits)
    probabilities = SCORINGS[scoring](logits.float()).cpu()
    offsets, priors = offsets.float().cpu(), priors.float().cpu()

    def box_of(image: Tensor, prior: Tensor) -> Tensor:
        return decode(offsets[image, prior], priors[prior]).clamp(0, 1)

    cuts = score_threshold, iou_threshold, top_k, max_detections
    return select(box_of, probabilities, *cuts, count=4 * max_detections)


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
