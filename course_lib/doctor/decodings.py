"""What a patient's own detection does otherwise than this course's, told from what both give for the same outputs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.boxes import box_iou, decode, to_corners, to_cxcywh
from course_lib.detect import Detections
from course_lib.doctor.answers import SURE

# What boxes may be instead of corners in fractions, and how they become these again.
OTHERWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "its boxes have x and y exchanged": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "its boxes are centre and size where corners are due": to_corners,
    "its boxes are corner and size where two corners are due": lambda b: torch.cat([b[:, :2], b[:, :2] + b[:, 2:]], 1),
    "its boxes were turned from centre and size into corners twice": to_cxcywh,
    "its boxes are (xmin, xmax, ymin, ymax)": lambda boxes: boxes[:, [0, 2, 1, 3]],
}


def linear(offsets: Float[Tensor, "B P 4"], priors: Float[Tensor, "P 4"]) -> Float[Tensor, "B P 4"]:
    """Sizes that grow with the offset and not with its exponential."""
    size = priors[:, 2:] * (1 + offsets[..., 2:] * 0.2)
    return to_corners(torch.cat([priors[:, :2] + offsets[..., :2] * 0.1 * priors[:, 2:], size], dim=-1))


# How offsets may be decoded otherwise; a patient's boxes that coincide with such ones tell how it does.
DECODINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "its boxes are decoded without variances (0.1 and 0.2 are due)": partial(decode, variances=(1.0, 1.0)),
    "its boxes are decoded with the variances exchanged": partial(decode, variances=(0.2, 0.1)),
    "its boxes are decoded with one variance, 0.1, for centres and sizes": partial(decode, variances=(0.1, 0.1)),
    "its boxes are decoded with one variance, 0.2, for centres and sizes": partial(decode, variances=(0.2, 0.2)),
    "its boxes are decoded with variances that divide where they should multiply": partial(
        decode, variances=(10.0, 5.0)
    ),
    "its boxes are decoded without the exponential of the sizes": linear,
    "its boxes are the priors, without the offsets": lambda offsets, priors: to_corners(priors).expand_as(offsets),
    "its boxes are the bare offsets": lambda offsets, priors: offsets,
    "its boxes are centre and size where corners are due": lambda o, p: to_cxcywh(decode(o, p)),
    "its boxes are decoded from priors whose x and y are exchanged": lambda o, p: decode(o, p[:, [1, 0, 3, 2]]),
    "its boxes are decoded from priors that are corners": lambda o, p: decode(o, to_corners(p)),
}


def coincide(own: Sequence[Detections], boxes: Float[Tensor, "B P 4"]) -> float:
    """The share of the surest detections that are one of an image's boxes, clipped or not."""
    hits = []
    for one, decoded in zip(own, boxes, strict=True):
        if len(one.boxes):
            near = [torch.cdist(surest(one).float(), way, p=torch.inf) for way in (decoded, decoded.clamp(0, 1))]
            hits.append(torch.minimum(*near).amin(dim=1) < 2e-3)
    return float(torch.cat(hits).float().mean()) if hits else 0.0


CURE = "make the decoding the inverse of the encoding: same unit, order, variances and priors"


class Difference(NamedTuple):
    """What is seen, and what to do."""

    seen: str
    cure: str


def difference(
    own: Sequence[Detections],
    book: Sequence[Detections],
    offsets: Float[Tensor, "B P 4"],
    priors: Float[Tensor, "P 4"],
    sizes: Sequence[tuple[int, int]] = (),
) -> Difference:
    """Name what is wrong with detections, beside those that are right.

    Args:
        own: the patient's.
        book: this course's, for the same outputs.
        offsets: the network's.
        priors: centre-size.
        sizes: of the images, width and height, where they are known.
    """
    if not any(len(one.boxes) for one in own):
        best = max((float(one.scores.max()) for one in book if len(one.scores)), default=0.0)
        return Difference(
            f"it gives no box at all, though the surest class has a probability of {best:.2f}",
            "look at the softmax, which column is background's, and the score threshold",
        )
    if coincide(own, decode(offsets.float(), priors)) < 0.6:  # slightly wrong boxes still overlap the right ones
        for words, decoding in DECODINGS.items():
            if coincide(own, decoding(offsets.float(), priors)) > 0.6:
                return Difference(words, CURE)
    pairs = [paired(*one) for one in zip(own, book, strict=True)]
    mine, theirs, labels, expected = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    overlaps = diagonal(mine, theirs)
    if float((overlaps > 0.5).float().mean()) < 0.5:
        return scaled_by_the_other_side(own, book, sizes) or of_boxes(own, book)
    wrong = labels != expected
    if float(wrong.float().mean()) > 0.3:
        return of_labels(labels, expected)
    return of_choice(own, book)


def diagonal(a: Tensor, b: Tensor) -> Tensor:
    return box_iou(a[:, None], b[:, None])[:, 0, 0]


def paired(own: Detections, book: Detections) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The surest of what should be detected, beside the own detection that overlaps it most: boxes, then labels."""
    best = book.scores.argsort(descending=True)[:10]
    if not len(own.boxes):
        return book.boxes[best] * 0, book.boxes[best], book.labels[best] * 0 - 1, book.labels[best]
    nearest = box_iou(book.boxes[best], own.boxes.float()).argmax(dim=1)
    return own.boxes[nearest].float(), book.boxes[best], own.labels[nearest], book.labels[best]


def of_boxes(own: Sequence[Detections], book: Sequence[Detections]) -> Difference:
    """The boxes are others: written otherwise, scaled or shifted."""
    for words, undo in OTHERWISE.items():
        if reached(own, book, undo) > 0.6:
            return Difference(words, CURE)
    mine, theirs = (torch.cat([surest(one) for one in side]).float() for side in (own, book))
    scale = float(spread(mine) / spread(theirs).clamp(min=1e-9))
    if not 0.8 < scale < 1.25 and reached(own, book, lambda boxes: boxes / scale) > 0.6:
        return Difference(f"its boxes are {scale:.3g} times as large: pixels or other units", CURE)
    shift = mine.median(dim=0).values - theirs.median(dim=0).values
    if float(shift.abs().max()) > 0.02 and reached(own, book, lambda boxes: boxes - shift) > 0.6:
        return Difference(f"its boxes are shifted by {[round(one, 3) for one in shift.tolist()]}", CURE)
    sizes = [float((boxes[:, 2:] - boxes[:, :2]).median()) for boxes in (mine, theirs)]
    return Difference(
        f"its boxes do not lie where the objects are: they reach from {float(mine.min()):.3g} to "
        f"{float(mine.max()):.3g}, and are {sizes[0]:.3g} wide and high in the median, where {sizes[1]:.3g} is due",
        CURE,
    )


def scaled_by_the_other_side(
    own: Sequence[Detections], book: Sequence[Detections], sizes: Sequence[tuple[int, int]]
) -> Difference | None:
    """Whether boxes were multiplied by the height where the width is due, and the reverse."""
    if len(sizes) != len(own):
        return None
    sides = [torch.tensor([width / height, height / width] * 2) for width, height in sizes]
    for words, power in (("multiplied", 1), ("divided", -1)):
        undone = [one._replace(boxes=one.boxes.float() * side**power) for one, side in zip(own, sides, strict=True)]
        if reached(undone, book, lambda boxes: boxes) > 0.6:
            return Difference(
                f"its boxes are {words} by the other side of the image: x by the height, and y by the width",
                "sizes are (width, height) in one place and (height, width) in the other: x goes with the width",
            )
    return None


def surest(one: Detections) -> Tensor:
    return one.boxes[one.scores.argsort(descending=True)[:10]]


def spread(boxes: Tensor) -> Tensor:
    """A length that grows as the boxes' unit does."""
    return boxes.abs().median()


def reached(own: Sequence[Detections], book: Sequence[Detections], undo: Callable[[Tensor], Tensor]) -> float:
    """The share of what should be detected that own detections overlap by half, once something is undone."""
    hits = []
    for mine, theirs in zip(own, book, strict=True):
        if len(theirs.boxes):
            boxes = undo(mine.boxes.float()) if len(mine.boxes) else torch.zeros(1, 4)
            hits.append((box_iou(surest(theirs), boxes) > 0.5).any(dim=1))
    return float(torch.cat(hits).float().mean()) if hits else 0.0


def of_labels(labels: Tensor, expected: Tensor) -> Difference:
    """The boxes are right and the labels others: shifted by a constant, or exchanged."""
    shifts = labels - expected
    usual = int(shifts.mode().values)
    agree = float((shifts == usual).float().mean())
    if usual and agree > 0.7:
        return Difference(
            f"its boxes are right, and {agree:.0%} of their labels are off by {usual:+d}",
            "count background in, or out, in training and detection alike: here label 0 is background",
        )
    wrong = float((shifts != 0).float().mean())
    return Difference(
        f"its boxes are right, and {wrong:.0%} of their labels are others ({int(labels.min())} to "
        f"{int(labels.max())}, where {int(expected.min())} to {int(expected.max())} are due)",
        "look at how a label is taken from the scores: the order of the classes, background's column, a flat index",
    )


def of_choice(own: Sequence[Detections], book: Sequence[Detections]) -> Difference:
    """Right boxes are there, but not among the surest: the scores, the threshold or NMS choose badly."""
    count = sum(len(one.boxes) for one in own) / len(own)
    right = sum(len(one.boxes) for one in book) / len(book)
    scores = torch.cat([one.scores for one in own]).float()
    if float(scores.min()) < 0 or float(scores.max()) > 1.001:
        return Difference(
            f"its scores reach from {float(scores.min()):.3g} to {float(scores.max()):.3g}: they are no probabilities",
            "apply the softmax (or the sigmoid, if the loss does) over the classes before anything is compared",
        )
    same = sum(duplicates(one) for one in own) / max(1, sum(len(one.boxes) for one in own))
    if same > 0.3:
        return Difference(
            f"{same:.0%} of its {count:.0f} boxes an image are near copies of a surer one of their class",
            "suppress them: NMS by class at an IoU of 0.45",
        )
    return Difference(
        f"it gives {count:.0f} boxes an image where {right:.0f} are due, and the right ones are not among its surest "
        f"{SURE} an object (scores from {float(scores.min()):.3g} to {float(scores.max()):.3g})",
        "look at the scores (softmax over the classes, not over the priors), at the threshold, and at NMS by class",
    )


def duplicates(one: Detections) -> int:
    """How many boxes overlap a surer one of their class by more than 0.6."""
    order = one.scores.argsort(descending=True)[:200]
    boxes, labels = one.boxes[order].float(), one.labels[order]
    near = (box_iou(boxes, boxes) > 0.6) & (labels[:, None] == labels)
    return int(near.tril(-1).any(dim=1).sum())
