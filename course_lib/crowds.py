"""Crowds: which object owns which prior where a picture has hundreds of objects."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from course_lib.boxes import box_iou

CROWD = 128  # object slots up to which `matching.owners` is fast enough
COPIES = 6  # of the table of all objects and priors, in float32, that exist at once while it is made
ROOM = 2**30  # bytes that a picture's match may take
BLOCK = 64  # neighbouring priors, of which an object's best one is kept at hand


def most_objects(priors: int) -> int:
    """How many objects of one picture can be matched in `ROOM`: 5,123 with SSD300's 8,732 priors, within a minute."""
    return ROOM // (COPIES * 4 * priors)


def owners(boxes: Float[Tensor, "B G 4"], corners: Float[Tensor, "P 4"], iou_threshold: float) -> Int[Tensor, "B P"]:
    """What `matching.owners` finds, image by image: the others of a batch do not pay for a crowd.

    Args:
        boxes: corners; padded slots are empty boxes.
        corners: of the priors, in the same unit.
        iou_threshold: the overlap from which a prior is positive.
    """
    slots = torch.arange(1, boxes.shape[1] + 1, device=boxes.device)
    empty = (boxes[..., 2:] <= boxes[..., :2]).any(dim=2)  # [B, G]
    counts = slots.masked_fill(empty, 1).amax(dim=1).tolist()
    images = zip(boxes, counts, strict=True)
    return torch.stack([owners_of_one(some[:count], corners, iou_threshold) for some, count in images])


def owners_of_one(
    boxes: Float[Tensor, "G 4"], corners: Float[Tensor, "P 4"], iou_threshold: float
) -> Int[Tensor, " P"]:
    """The owners of one image.

    A round looks for the best pair among the champions of all blocks, and only the champions of one block
    change by it. So two thousand objects take a second, where rounds over all pairs take half a minute.
    """
    iou = box_iou(boxes, corners)  # [G, P]
    overlap, owner = iou.max(dim=0)
    owner.masked_fill_(overlap < iou_threshold, -1)
    free = F.pad(iou, (0, -len(corners) % BLOCK)).unflatten(1, (-1, BLOCK))  # [G, blocks, BLOCK]
    champions = free.amax(dim=2)  # [G, blocks]
    for _ in range(len(boxes)):
        slot = int(champions.amax(dim=1).argmax())
        block = int(champions[slot].argmax())
        best, place = free[slot, block].max(dim=0)
        if best == 0:
            break
        owner[block * BLOCK + place] = slot
        champions[slot] = free[slot] = 0
        free[:, block, place] = 0
        champions[:, block] = free[:, block].amax(dim=1)
    return owner
