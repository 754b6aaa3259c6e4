"""Non-maximum suppression: of many boxes on one object, keep the best."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.boxes import box_iou


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], iou_threshold: float) -> Int[Tensor, " kept"]:
    """Greedy non-maximum suppression of boxes of one class.

    Take the box with the highest score, drop every box that overlaps it by more than the
    threshold, repeat with what is left.

    Returns:
        Indices of the boxes that stay, by falling score; of equal scores the earlier box wins.
    """
    order = scores.argsort(descending=True, stable=True)
    overlaps = (box_iou(boxes[order], boxes[order]) > iou_threshold).cpu().numpy()
    alive = torch.ones(len(boxes), dtype=torch.bool).numpy()
    kept = []
    for rank in range(len(alive)):
        if alive[rank]:
            kept.append(rank)
            alive[rank + 1 :] &= ~overlaps[rank, rank + 1 :]
    return order[torch.tensor(kept, dtype=torch.int64, device=boxes.device)]


def batched_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    labels: Int[Tensor, " N"],
    iou_threshold: float,
) -> Int[Tensor, " kept"]:
    """NMS within each class: a person on a horse does not suppress the horse.

    Returns:
        Indices of the boxes that stay, by falling score.
    """
    kept = [torch.empty(0, dtype=torch.int64, device=boxes.device)]
    for label in labels.unique():
        of_class = (labels == label).nonzero().squeeze(1)
        kept.append(of_class[nms(boxes[of_class], scores[of_class], iou_threshold)])
    indices = torch.cat(kept).sort().values
    return indices[scores[indices].argsort(descending=True, stable=True)]
