"""Matching: which prior answers for which ground truth."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from course_lib.boxes import encode, to_corners

BLOCK = 32  # neighbouring priors that send one champion into the first round of a shortlist
GROUP = 12  # object slots whose overlaps are computed together: what a crowd needs in between stays small
CROWD = 128  # with more object slots than this the pairs are found on the host, image by image
LOW_BITS = 2**32 - 1


class Matches(NamedTuple):
    """What every prior should predict.

    Attributes:
        labels: the class, 0 for background.
        offsets: the encoded box; finite, but of no meaning, where the label is 0.
        gt_index: the slot of the ground truth, -1 where there is none.
    """

    labels: Int[Tensor, "B P"]
    offsets: Float[Tensor, "B P 4"]
    gt_index: Int[Tensor, "B P"]


def overlaps(boxes: Float[Tensor, "B G 4"], priors: Float[Tensor, "P 4"]) -> Float[Tensor, "B G P"]:
    """IoU of every ground truth with every prior: the numbers of `box_iou`, in a fraction of its time.

    Each coordinate is a row of memory by itself, and every step overwrites what is no longer needed.

    Args:
        boxes: corners; an empty box overlaps nothing.
        priors: corners, in the same unit.
    """
    iou = boxes.new_empty(*boxes.shape[:2], len(priors))
    left, top, right, bottom = priors.t().contiguous().unbind()  # [P]
    prior_area = (right - left) * (bottom - top)
    for shared, some in zip(iou.split(GROUP, dim=1), boxes.split(GROUP, dim=1), strict=True):
        xmin, ymin, xmax, ymax = some[..., None].unbind(dim=2)  # [B, G, 1]
        area = ((xmax - xmin) * (ymax - ymin)).clamp(min=torch.finfo(iou.dtype).tiny)
        spare = torch.maximum(xmin, left)
        torch.minimum(xmax, right, out=shared).sub_(spare).clamp_(min=0)  # the width they share
        height = torch.minimum(ymax, bottom).sub_(torch.maximum(ymin, top, out=spare)).clamp_(min=0)
        shared.mul_(height)
        union = torch.add(area, prior_area, out=height).sub_(shared)
        shared.div_(union)
    return iou


def ranks(iou: Float[Tensor, "B G N"], index: Int[Tensor, "*#B N"]) -> Int[Tensor, "B G N"]:
    """One whole number per overlap, lower is better: by falling IoU, and of equal ones by index.

    Read as an integer, the bits of a float that is not negative sort as the float does; they go
    into the high half, the index into the low half. Without any overlap the rank is not negative.
    """
    return torch.sub(index, iou.float().view(torch.int32), alpha=2**32)


def shortlist(iou: Float[Tensor, "B G P"]) -> Int[Tensor, "B G K"]:
    """Ranks of each ground truth's G best priors: more it cannot need, for the others take G - 1.

    In two rounds, for P is large: the best G blocks by their champions, then the best G priors in
    those. A prior among the best G cannot be in another block: G champions would beat it.

    Args:
        iou: the number of priors is a multiple of `BLOCK`.
    """
    slots, device = iou.shape[1], iou.device
    champions = iou.unflatten(2, (-1, BLOCK)).amax(dim=3)  # [B, G, P / BLOCK]
    blocks = ranks(champions, torch.arange(champions.shape[2], device=device))
    blocks = blocks.topk(min(slots, blocks.shape[2]), largest=False).values & LOW_BITS
    priors = torch.add(torch.arange(BLOCK, device=device), blocks[..., None], alpha=BLOCK).flatten(2)
    candidates = ranks(iou.gather(2, priors), priors)
    return candidates.topk(min(slots, candidates.shape[2]), largest=False).values


def best_free_priors(iou: Float[Tensor, "B G P"]) -> tuple[Int[Tensor, "B G"], Int[Tensor, "B G"]]:
    """Give every ground truth a prior of its own: the best pair of the whole matrix first.

    Greedy over the matrix: the highest IoU wins its prior, its row and column are struck out, and
    so on. Of equal overlaps the first prior and the first ground truth win.

    Args:
        iou: the number of priors is a multiple of `BLOCK`, and the last of them overlaps nothing.

    Returns:
        The pairs in the order they were made: priors, and slots of ground truths. One that
        overlaps no free prior is given the last.
    """
    rank = shortlist(iou)  # [B, G, K]
    slot = torch.arange(rank.shape[1], device=iou.device)[:, None].expand_as(rank)
    pairs = torch.stack([rank & LOW_BITS, slot], dim=1).flatten(2).mT  # [B, GK, 2]
    rank, image = rank.flatten(1), torch.arange(len(rank), device=iou.device)[:, None]
    best, made = [], []
    for _ in range(iou.shape[1]):
        lowest, at = rank.min(dim=1, keepdim=True)  # [B, 1]
        pair = pairs[image, at]  # [B, 1, 2]
        rank.masked_fill_((pairs == pair).any(dim=2), 0)
        best.append(lowest)
        made.append(pair)
    priors, slots = torch.cat(made, dim=1).unbind(dim=2)
    return priors.masked_fill(torch.cat(best, dim=1) >= 0, iou.shape[2] - 1), slots


def best_free_priors_in_a_crowd(iou: Float[Tensor, "B G P"]) -> tuple[Int[Tensor, "B G"], Int[Tensor, "B G"]]:
    """The pairs of `best_free_priors`, in the order of the slots, found on the host.

    Each round there looks through G * G overlaps. Here all walks together look at no more than that.
    """
    lists = ranks(iou, torch.arange(iou.shape[2], device=iou.device)).cpu().numpy()
    lists.sort(axis=2)
    priors = torch.tensor([walk_down_the_lists(one) for one in lists], device=iou.device)
    return priors, torch.arange(iou.shape[1], device=iou.device).expand_as(priors)


def walk_down_the_lists(lists: Int[np.ndarray, "G P"]) -> list[int]:
    """A prior for every ground truth, or the last: each takes the first of its list that it can have.

    That is a prior which is free, or which it overlaps more than the owner does; the owner then walks
    on. It does not matter who walks first: of two that want the same prior, the same one always wins.

    Args:
        lists: each ground truth's ranks, in order. The last of a row has no overlap.

    Source: Gale and Shapley 1962, where both sides rank each other by the same numbers.
    """
    rows, place, owners = [memoryview(row) for row in lists], [0] * len(lists), {}
    for slot in range(len(rows)):
        walker = slot
        while (rank := rows[walker][place[walker]]) < 0:
            prior = rank & LOW_BITS
            owner = owners.setdefault(prior, walker)
            if owner == walker:
                break
            if (rank, walker) < (rows[owner][place[owner]], owner):
                owners[prior], walker = walker, owner
            place[walker] += 1
    found = [row[at] for row, at in zip(rows, place, strict=True)]
    return [rank & LOW_BITS if rank < 0 else lists.shape[1] - 1 for rank in found]


def match(
    boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    priors: Float[Tensor, "P 4"],
    iou_threshold: float = 0.5,
) -> Matches:
    """Decide what every prior should predict.

    First every ground truth gets the best prior that is still free; then every other prior whose
    best overlap reaches the threshold joins that ground truth. Up to `CROWD` slots the host does not
    wait for the device.

    Args:
        boxes: corners, fractions of the image; padded slots are empty boxes.
        labels: class index plus 1; padded slots are 0.
        priors: centre-size, fractions of the image.
        iou_threshold: the overlap from which a prior is positive.

    Source: Liu et al. 2016, section 2.2, "Matching strategy"; the order is the original code's.
    """
    crowded = boxes.shape[1] > CROWD
    if crowded and len(boxes) > 1:
        return match_one_by_one(boxes, labels, priors, iou_threshold)
    with torch.no_grad():
        count, corners = len(priors), to_corners(priors)
        # Empty priors fill the last block, one at least: it takes the ground truths that have none.
        iou = overlaps(boxes, F.pad(corners, (0, 0, 0, BLOCK - count % BLOCK)))  # [B, G, P + padding]
        overlap, gt_index = iou.max(dim=1)
        gt_index.masked_fill_(overlap < iou_threshold, -1)
        # No two ground truths share a real prior: the order of writes does not matter.
        pairs = best_free_priors_in_a_crowd(iou) if crowded else best_free_priors(iou)
        gt_index = gt_index.scatter_(1, *pairs)[:, :count]

        known = gt_index.clamp(min=0)
        matched_labels = labels.gather(1, known).masked_fill_(gt_index < 0, 0)
        # Gathered one coordinate after the other: what follows then runs along rows of memory.
        matched = boxes.mT.gather(2, known[:, None].expand(-1, 4, -1)).mT  # [B, P, 4]
        # Background priors describe themselves: offsets 0, and no logarithm of an empty box.
        matched = torch.where((matched_labels > 0)[..., None], matched, corners)
        return Matches(matched_labels, encode(matched, priors), gt_index)


def match_one_by_one(
    boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    priors: Float[Tensor, "P 4"],
    iou_threshold: float,
) -> Matches:
    """`match`, image by image and without the padding: the others of a batch do not pay for a crowd."""
    empty = (boxes[..., 2:] <= boxes[..., :2]).any(dim=2)  # [B, G]
    numbers = torch.arange(1, boxes.shape[1] + 1, device=boxes.device)
    counts = numbers.masked_fill(empty, 1).amax(dim=1).tolist()
    images = [
        match(some_boxes[None, :count], some_labels[None, :count], priors, iou_threshold)
        for some_boxes, some_labels, count in zip(boxes, labels, counts, strict=True)
    ]
    return Matches(*map(torch.cat, zip(*images, strict=True)))
