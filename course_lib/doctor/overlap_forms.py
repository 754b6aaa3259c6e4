"""Which measure of overlap a matching goes by, told from the priors that it makes positive."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.boxes import area, box_iou, to_corners, to_cxcywh

Measure = Callable[[Tensor, Tensor], Tensor]  # from objects `[N, 4]` and priors `[P, 4]`, corners, to `[N, P]`
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
EXPLAINED, UNEXPLAINED = 0.02, 0.1  # of the positives, that differ where a measure is the one, and where it is not


def shared(boxes: Tensor, priors: Tensor, longer: float = 0.0, cut: bool = True) -> Tensor:
    """The area of the intersections.

    Args:
        longer: added to all sides.
        cut: sides below 0 are 0.
    """
    low = torch.maximum(boxes[:, None, :2], priors[None, :, :2])
    sides = torch.minimum(boxes[:, None, 2:], priors[None, :, 2:]) - low + longer
    return (sides.clamp(min=0) if cut else sides).prod(dim=2)


def with_one_added(boxes: Tensor, priors: Tensor) -> Tensor:
    areas = [(some[:, 2:] - some[:, :2] + 1).prod(dim=1) for some in (boxes, priors)]
    inside = shared(boxes, priors, longer=1.0)
    return inside / (areas[0][:, None] + areas[1] - inside)


def uncut(boxes: Tensor, priors: Tensor) -> Tensor:
    inside = shared(boxes, priors, cut=False)
    return inside / (area(boxes)[:, None] + area(priors) - inside)


MEASURES: dict[str, Measure] = {
    "the intersection over the object's area alone": lambda b, p: shared(b, p) / area(b)[:, None],
    "the intersection over the prior's area alone": lambda b, p: shared(b, p) / area(p),
    "the intersection over the smaller of both areas": lambda b, p: (
        shared(b, p) / torch.minimum(area(b)[:, None], area(p))
    ),
    "the intersection over the larger of both areas": lambda b, p: (
        shared(b, p) / torch.maximum(area(b)[:, None], area(p))
    ),
    "an IoU with 1 added to all sides, as belongs to pixels and not to fractions": with_one_added,
    "an IoU whose intersection is not cut at 0, so that two negative sides make an area": uncut,
    "an IoU with the priors' centres and sizes read as corners": lambda b, p: box_iou(b, to_cxcywh(p)),
    "an IoU with the objects' corners turned into centres and sizes": lambda b, p: box_iou(to_cxcywh(b), p),
    "an IoU of centres and sizes, read as corners on both sides": lambda b, p: box_iou(to_cxcywh(b), to_cxcywh(p)),
    "an IoU with x and y of the priors exchanged": lambda b, p: box_iou(b, p[:, [1, 0, 3, 2]]),
}


def unexplained(
    measure: Measure,
    images: Sequence[tuple[Tensor, Bool[Tensor, " P"]]],
    corners: Float[Tensor, "P 4"],
) -> float:
    """How many priors are positive or not against a measure at its best threshold, as a share of the positives.

    The best priors of each object are left out: they are positive whatever the threshold.

    Args:
        images: the objects of each, and which priors are positive.
    """
    wrong, positives = dict.fromkeys(THRESHOLDS, 0), 0
    for boxes, positive in images:
        values = measure(boxes, corners).nan_to_num()
        judged = torch.ones_like(positive)
        for table in (values, box_iou(boxes, corners)):
            judged[table.argmax(dim=1)] = False
        best = values.amax(dim=0)
        for threshold in THRESHOLDS:
            wrong[threshold] += int((((best >= threshold) != positive) & judged).sum())
        positives += int((positive & judged).sum())
    return min(wrong.values()) / max(1, positives)


def other_measure(images: Sequence[tuple[Tensor, Bool[Tensor, " P"]]], priors: Float[Tensor, "P 4"]) -> str | None:
    """In words the measure by which a matching goes in place of IoU; None where IoU explains it, or none does."""
    corners = to_corners(priors)
    if unexplained(box_iou, images, corners) < UNEXPLAINED:
        return None
    shares = {words: unexplained(measure, images, corners) for words, measure in MEASURES.items()}
    best = min(shares, key=shares.__getitem__)
    return best if shares[best] < EXPLAINED else None
