"""Chapter 1: boxes of VOC and how much two of them share.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from course_lib.boxes import area, to_corners
from course_lib.exercises.twins import but, cxcywh, no_rows, random_boxes, stop
from course_lib.grading import Exercise, Mistake, mistakes
from course_lib.verdicts import Box, rectangle, rectangles


def voc_box(xmin, ymin, xmax, ymax, width, height):
    x0 = (xmin - 1) / width
    y0 = (ymin - 1) / height
    x1 = xmax / width
    y1 = ymax / height
    return x0, y0, x1, y1


VOC_BOX = Exercise(
    solution=voc_box,
    cases=[
        (1, 1, 4, 2, 4, 2),
        (2, 1, 3, 2, 5, 3),
        (2, 3, 8, 4, 10, 5),
        (7, 2, 7, 2, 8, 8),
        (263, 211, 324, 339, 500, 375),
    ],
    mistakes=mistakes(
        "nothing subtracted: VOC counts pixels from 1. Its first column and row are 1, and the image begins at 0.",
        lambda x0, y0, x1, y1, w, h: voc_box(x0 + 1, y0 + 1, x1, y1, w, h),
        lambda x0, y0, x1, y1, w, h: voc_box(x0 + 1, y0, x1, y1, w, h),
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0 + 1, x1, y1, w, h),
        "all moved: Your box has lost its last column and row. Column xmax belongs to it: where does that column end?",
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1 - 1, y1 - 1, w, h),
        "end moved: Your box ends a pixel too far. Columns are counted from 1, so where does column number xmax end?",
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1 + 1, y1 + 1, w, h),
        lambda x0, y0, x1, y1, w, h: voc_box(x0 + 1, y0 + 1, x1 + 1, y1 + 1, w, h),
        "wrong end: You subtract 1 at the end of the box. Which of its ends does counting from 1 put a pixel off?",
        lambda x0, y0, x1, y1, w, h: voc_box(x0 + 1, y0 + 1, x1 - 1, y1 - 1, w, h),
        "size less one: You divide by one pixel less than the image has. An image of 4 columns is 4 wide.",
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1, y1, w - 1, h - 1),
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1 - 1, y1 - 1, w - 1, h - 1),
        "size swapped: Width and height of the image have changed places.",
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1, y1, h, w),
        "one divisor: You divide x and y by the same side. Images are seldom square.",
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1, y1, w, w),
        lambda x0, y0, x1, y1, w, h: voc_box(x0, y0, x1, y1, h, h),
        "integer division: Your fractions are whole numbers. Which division throws away what follows the point?",
        lambda *args: tuple(map(math.floor, voc_box(*args))),
        "precedence: The division comes before the subtraction here, so that only the 1 is divided.",
        lambda x0, y0, x1, y1, w, h: (x0 - 1 / w, y0 - 1 / h, x1 / w, y1 / h),
        "width and height: You return a width and a height last. The right and the lower edge are wanted.",
        lambda *args: (box := voc_box(*args)) and (box[0], box[1], box[2] - box[0], box[3] - box[1]),
        "centre and size: You return centre and size. Corners are wanted.",
        lambda *args: cxcywh(voc_box(*args)),
        "other order: The four numbers are right, and their order is not: xmin, ymin, xmax, ymax.",
        lambda *args: tuple(voc_box(*args)[i] for i in (0, 2, 1, 3)),
        lambda *args: tuple(voc_box(*args)[i] for i in (1, 0, 3, 2)),
        "pixels: You return pixels. Fractions of the image are wanted, from 0 to 1.",
        lambda x0, y0, x1, y1, w, h: (x0 - 1, y0 - 1, x1, y1),
        lambda x0, y0, x1, y1, w, h: (x0, y0, x1, y1),
    ),
    draw=lambda args: [rectangle("frame", "image", (0, 0, args["width"], args["height"]))],
    place=lambda args, boxes: boxes * torch.tensor([args["width"], args["height"]] * 2),
)


def iou(a, b):
    ax0, ay0, ax1, ay1 = a
    bx0, by0, bx1, by1 = b
    w = max(0, min(ax1, bx1) - max(ax0, bx0))
    h = max(0, min(ay1, by1) - max(ay0, by0))
    inter = w * h
    area_a = (ax1 - ax0) * (ay1 - ay0)
    area_b = (bx1 - bx0) * (by1 - by0)
    union = area_a + area_b - inter
    if union == 0:
        return 0.0
    return inter / union


def _iou(
    low: Callable = max,
    high: Callable = min,
    overlap: Callable = lambda width, height: max(width, 0) * max(height, 0),
    union: Callable = lambda area_a, area_b, overlap: area_a + area_b - overlap,
    extra: float = 0,
) -> Callable[[Box, Box], float]:
    """IoU with one of its parts exchanged."""

    def twin(a: Box, b: Box) -> float:
        width, height = (high(a[i + 2], b[i + 2]) - low(a[i], b[i]) for i in (0, 1))
        area_a, area_b = ((box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b))
        shared = overlap(width, height)
        whole = union(area_a, area_b, shared)
        return shared / whole if whole else 0.0

    return twin


def _reading(read: Callable[[Box], Box]) -> Callable[[Box, Box], float]:
    """IoU of boxes whose numbers are taken for something else."""
    return lambda a, b: iou(read(a), read(b))


def _one_way(apart: Callable[[Box, Box], bool]) -> Callable[[Box, Box], float]:
    """Nothing is shared where two boxes are seen to lie apart; otherwise no side is kept from being negative."""
    return lambda a, b: 0.0 if _both_empty(a, b) or apart(a, b) else _iou(overlap=lambda w, h: w * h)(a, b)


def _both_empty(a: Box, b: Box) -> bool:
    return a[:2] == a[2:] and b[:2] == b[2:]


def _pair(text: str) -> tuple[Box, Box]:
    """'0 0 2 2 | 1 1 3 3' as two boxes."""
    return tuple(tuple(map(float, box.split())) for box in text.split("|"))


IOU = Exercise(
    solution=iou,
    cases=[
        _pair("0 1 3 4 | 0 1 3 4"),
        _pair("0 2 4 7 | 1 3 5 9"),
        _pair("1 1 2 3 | 0 0 4 4"),
        _pair("0 0 2 2 | 3 1 4 3"),
        _pair("0 0 2 2 | 1 4 3 5"),
        _pair("0 0 1 1 | 2 3 4 6"),
        _pair("0 0 2 1 | 2 0 3 1"),
        _pair("1 1 1 1 | 0 0 2 2"),
        _pair("0.1 0.2 0.5 0.6 | 0.3 0.1 0.7 0.4"),
        _pair("1 1 1 1 | 1 1 1 1"),
        _pair("3 1 4 3 | 0 0 2 2"),
        _pair("1 4 3 5 | 0 0 2 2"),
        _pair("0 0 4 4 | 1 1 2 3"),
    ],
    mistakes=mistakes(
        "no clamp: For boxes that do not touch you multiply with a negative side. How long is an overlap at least?",
        _iou(overlap=lambda width, height: width * height),
        "product clamped: Two negative sides have a positive product, and boxes that are apart both ways seem to "
        "overlap. Mend each side before you multiply.",
        _iou(overlap=lambda width, height: max(width * height, 0)),
        "one side clamped: One side of the overlap is kept from falling below zero, and the other is not.",
        _iou(overlap=lambda width, height: max(width, 0) * height),
        _iou(overlap=lambda width, height: width * max(height, 0)),
        "one way: You look whether b lies on one side of a. It may lie on the other, and above or below.",
        _one_way(lambda a, b: a[2] <= b[0] or a[3] <= b[1]),
        _one_way(lambda a, b: b[2] <= a[0] or b[3] <= a[1]),
        "absolute value: An absolute value turns the gap between two boxes into an overlap as wide as the gap.",
        _iou(overlap=lambda width, height: abs(width * height)),
        "plus one: You add 1 to widths and heights. That is for pixels that are counted in; here a width is the right "
        "edge minus the left one.",
        _iou(extra=1),
        _iou(extra=1, overlap=lambda width, height: max(width + 1, 0) * max(height + 1, 0)),
        _iou(overlap=lambda width, height: max(width + 1, 0) * max(height + 1, 0)),
        "integer division: You get the right answer without what follows the point. Which division does that?",
        lambda a, b: float(math.floor(iou(a, b))),
        "rounded: You round. That is for those who print the number.",
        *(lambda a, b, digits=digits: round(iou(a, b), digits) for digits in (1, 2, 3)),
        "whole coordinates: You make whole numbers of the edges. They may be fractions of the image.",
        _reading(lambda box: tuple(float(math.floor(edge)) for edge in box)),
        "overlap counted twice: The sum of the two areas counts what they share twice.",
        _iou(union=lambda area_a, area_b, overlap: area_a + area_b),
        "overlap taken off twice: You take the overlap off twice. It is in both areas, and belongs to the union once.",
        _iou(union=lambda area_a, area_b, overlap: area_a + area_b - 2 * overlap),
        "one area: You divide by the area of one box. The union is what both cover together.",
        _iou(union=lambda area_a, area_b, overlap: area_a),
        _iou(union=lambda area_a, area_b, overlap: area_b),
        _iou(union=lambda area_a, area_b, overlap: min(area_a, area_b)),
        _iou(union=lambda area_a, area_b, overlap: max(area_a, area_b)),
        "same area twice: You take the area of the same box twice. The two need not be of one size.",
        _iou(union=lambda area_a, area_b, overlap: 2 * area_a - overlap),
        _iou(union=lambda area_a, area_b, overlap: 2 * area_b - overlap),
        "same side twice: Width and height of the overlap come from the same two edges.",
        _iou(overlap=lambda width, height: max(width, 0) ** 2),
        _iou(overlap=lambda width, height: max(height, 0) ** 2),
        "not divided: This is the area that the boxes share. The union is still to come.",
        _iou(union=lambda area_a, area_b, overlap: 1),
        "min and max confused: The overlap has the wrong edges. It begins where the second of the two boxes begins and "
        "ends where the first one ends: which of two numbers is that?",
        _iou(low=min, high=max),
        _iou(low=min, high=min),
        _iou(low=max, high=max),
        "read as width and height: You take the last two numbers for a width and a height. They are the right and the "
        "lower edge.",
        _reading(lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])),
        "read as centre and size: You take the four numbers for a centre and a size. They are four edges.",
        _reading(lambda box: tuple(to_corners(torch.tensor(box)).tolist())),
        "read in another order: You read the numbers as xmin, xmax, ymin, ymax. The order is xmin, ymin, xmax, ymax.",
        _reading(lambda box: (box[0], box[2], box[1], box[3])),
        "zero by zero: Two boxes without area have a union of 0, by which nothing can be divided. They share nothing: "
        "the answer wanted is 0.",
        but(_both_empty, stop, iou),
        but(_both_empty, lambda: math.nan, iou),
        but(_both_empty, lambda: 1.0, iou),
    ),
    draw=lambda args: [rectangle(name, name, args[name]) for name in ("a", "b")],
)


def iou_matrix(a, b):
    low = torch.max(a[:, None, :2], b[None, :, :2])
    high = torch.min(a[:, None, 2:], b[None, :, 2:])
    side = (high - low).clamp(min=0)
    inter = side[..., 0] * side[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = area_a[:, None] + area_b[None, :] - inter
    return torch.where(union > 0, inter / union, 0)


def _pairwise(twin: Callable[[Box, Box], float]) -> Callable[[Tensor, Tensor], Tensor]:
    def matrix(a: Tensor, b: Tensor) -> Tensor:
        return torch.tensor([twin(tuple(p), tuple(q)) for p in a.tolist() for q in b.tolist()]).reshape(len(a), len(b))

    return matrix


def _square_part(a: Tensor, b: Tensor) -> Tensor:
    count = min(len(a), len(b))
    matrix = torch.zeros(len(a), len(b))
    matrix[:count, :count] = iou_matrix(a[:count], b[:count])
    return matrix


def _areas_crossed(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """The overlaps are right; the areas are added before one stands in a column and the other in a row."""
    ratio = iou_matrix(a, b)
    overlap = ratio / (1 + ratio) * (area(a)[:, None] + area(b))
    return overlap / ((area(a) + area(b)).unsqueeze(axis) - overlap)


def _unequal(a: Tensor, b: Tensor) -> bool:
    return len(a) != len(b)


IOU_MATRIX = Exercise(
    solution=iou_matrix,
    cases=[
        (torch.tensor([[0.0, 2, 4, 7], [1, 2, 3, 5]]), torch.tensor([[1.0, 3, 5, 9], [0, 2, 2, 6]])),
        (torch.tensor([[0.0, 0, 4, 2], [0, 1, 3, 3], [2, 0, 3, 4]]), torch.tensor([[1.0, 0, 5, 2], [0, 0, 2, 2]])),
        (torch.tensor([[0.0, 0, 4, 2], [0, 1, 3, 3]]), torch.tensor([[1.0, 0, 5, 2], [0, 0, 2, 2], [2, 0, 3, 4]])),
        (torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[3.0, 1, 4, 3]])),
        (torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 4, 3, 5]])),
        (torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 3, 4, 6]])),
        (torch.tensor([[3.0, 1, 4, 3], [1, 4, 3, 5]]), torch.tensor([[0.0, 0, 2, 2]])),
        (torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2]]), torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 2], [2, 1, 2, 1]])),
        (random_boxes(0, seed=0), random_boxes(3, seed=1)),
        (random_boxes(2, seed=0), random_boxes(0, seed=1)),
        (random_boxes(4, seed=2), random_boxes(3, seed=3)),
    ],
    mistakes=mistakes(
        "transposed: Rows and columns have changed places. Row i belongs to a[i], column j to b[j].",
        lambda a, b: iou_matrix(b, a),
        "one to one: You compare a[0] with b[0], a[1] with b[1] and so on. Every box of a meets every box of b: the "
        "two need an axis each.",
        but(_unequal, stop, lambda a, b: iou_matrix(a, b).diagonal()),
        but(_unequal, stop, lambda a, b: iou_matrix(a, b).diagonal()[:, None]),
        "square only: It works where a and b have equally many boxes, which is rare. Which length has which axis?",
        but(_unequal, stop, iou_matrix),
        but(lambda a, b: len(a) > len(b), stop, _square_part),
        but(lambda a, b: len(a) < len(b), stop, lambda a, b: pad(iou_matrix(a, b), (0, len(a) - len(b)))),
        "areas crossed: The overlaps are right, the areas are not those of the pair. The area of a[i] must be the same "
        "all along row i, that of b[j] all along column j.",
        lambda a, b: _areas_crossed(a, b, axis=0),
        lambda a, b: _areas_crossed(a, b, axis=1),
        "no boxes: An image may have no object. The matrix then has no row or no column, and still the shape [N, M].",
        but(lambda a, b: not len(a) or not len(b), stop, iou_matrix),
        but(lambda a, b: not len(a) or not len(b), no_rows, iou_matrix),
        but(lambda a, b: not len(a), no_rows, iou_matrix),
    )
    | {name: Mistake(one.hint, [_pairwise(twin) for twin in one.twins]) for name, one in IOU.mistakes.items()},
    draw=lambda args: [*rectangles("a", "a", args["a"]), *rectangles("b", "b", args["b"])],
)

EXERCISES = {"voc_box": VOC_BOX, "iou": IOU, "iou_matrix": IOU_MATRIX}
