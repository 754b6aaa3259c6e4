"""Non-maximum suppression: of many boxes on one object, keep the best."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.boxes import box_iou

FIRST_BLOCK = 4  # boxes of a class, see `survivors`
PAIRS = 2**19  # to compare at a time, some 50 bytes each


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], iou_threshold: float) -> Int[Tensor, " kept"]:
    """Greedy non-maximum suppression of boxes of one class.

    Take the box with the highest score, drop every box that overlaps it by more than the
    threshold, repeat with what is left.

    Args:
        boxes: corners, in any unit.
        scores: of any scale; none of them NaN.

    Returns:
        Indices of the boxes that stay, by falling score; of equal scores the earlier box wins.
    """
    return batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    labels: Int[Tensor, " N"],
    iou_threshold: float,
) -> Int[Tensor, " kept"]:
    """NMS within each class: a person on a horse does not suppress the horse.

    Args:
        labels: any whole numbers; only boxes with the same one compete.

    Returns:
        Indices of the boxes that stay, by falling score; of equal scores the earlier box comes first.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]  # class by class, each by falling score
    kept = order[survivors(boxes[order], labels[order], iou_threshold)].sort().values
    return kept[scores[kept].argsort(descending=True, stable=True)]


def survivors(boxes: Float[Tensor, "N 4"], labels: Int[Tensor, " N"], iou_threshold: float) -> Bool[Tensor, " N"]:
    """Which boxes NMS keeps, of boxes that come class by class, each by falling score.

    In turns, and in all classes at once: the first few boxes that are still there are compared with those behind
    them, and decided; whom they beat is gone, the rest waits for the next turn. The first turns compare few, for
    most boxes are beaten by the best ones; the later ones more, so that there are few turns.
    """
    block = FIRST_BLOCK
    kept = torch.zeros_like(labels, dtype=torch.bool)
    waiting, columns = torch.arange(len(labels), device=labels.device), boxes.T.contiguous()
    while len(waiting):
        block = min(block, PAIRS // len(waiting) + 1)
        place, group = torch.arange(len(waiting), device=labels.device), labels[waiting]
        start = torch.searchsorted(group, group)  # the place of the first box of the same class
        rivals = (place - start).clamp(max=block)  # the boxes of the block that are better than this one
        worse = place.repeat_interleave(rivals)
        first = start - (rivals.cumsum(0) - rivals)
        better = first.index_select(0, worse) + torch.arange(len(worse), device=labels.device)
        left, right = (columns.index_select(1, waiting.index_select(0, side)).T[:, None] for side in (better, worse))
        beaten = box_iou(left, right).flatten() > iou_threshold
        alive = unbeaten(better[beaten], worse[beaten], len(waiting))
        decided = place - start < block
        kept[waiting[alive & decided]] = True
        waiting = waiting[alive & ~decided]
        block *= 2
    return kept


def unbeaten(better: Int[Tensor, " pairs"], worse: Int[Tensor, " pairs"], count: int) -> Bool[Tensor, " count"]:
    """Which of `count` boxes, the better ones first, live if `better` beats `worse` in each pair, while it lives.

    At first all live. Then, in turns, those die whom a box beats that lives. The first box is decided from the
    start, and every turn decides at least one more: the turns end, and in practice after a few.
    """
    alive = torch.ones(count, dtype=torch.bool, device=better.device)
    while True:
        before, alive = alive, torch.ones_like(alive)
        alive[worse[before[better]]] = False
        if torch.equal(alive, before):
            return alive
