"""The exercises: what is asked, right answers, and the mistakes that people make; `check` grades yours.

To add an exercise, write a `grading.Exercise` and give it a name in `EXERCISES`, at the end of this file.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import pad

from course_lib.boxes import area, box_iou, to_corners, to_cxcywh
from course_lib.grading import (
    Box,
    Exercise,
    Mistake,
    Point,
    Shape,
    Verdict,
    corners,
    grade,
    mistakes,
    rectangle,
    rectangles,
)


def _but(where: Callable[..., bool], answer: Callable[[], object], right: Callable) -> Callable:
    """The right answer, but another one where the arguments are of a certain kind."""
    return lambda *args: answer() if where(*args) else right(*args)


def _stop() -> None:
    raise ValueError("here a wrong twin stops")


def _no_rows() -> Tensor:
    return torch.zeros(0)


def _cxcywh(box: Box) -> Box:
    return tuple(to_cxcywh(torch.tensor(box, dtype=torch.float64)).tolist())


def _random_boxes(count: int, seed: int) -> Tensor:
    low, size = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed)) * 0.5
    return torch.cat([low, low + 0.1 + size * 0.8], dim=1)


def voc_box(xmin: int, ymin: int, xmax: int, ymax: int, width: int, height: int) -> Box:
    return (xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height


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
        lambda *args: _cxcywh(voc_box(*args)),
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


def iou(a: Box, b: Box) -> float:
    return box_iou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)).item()


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
        _but(_both_empty, _stop, iou),
        _but(_both_empty, lambda: math.nan, iou),
        _but(_both_empty, lambda: 1.0, iou),
    ),
    draw=lambda args: [rectangle(name, name, args[name]) for name in ("a", "b")],
)


def _pairwise(twin: Callable[[Box, Box], float]) -> Callable[[Tensor, Tensor], Tensor]:
    def matrix(a: Tensor, b: Tensor) -> Tensor:
        return torch.tensor([twin(tuple(p), tuple(q)) for p in a.tolist() for q in b.tolist()]).reshape(len(a), len(b))

    return matrix


def _square_part(a: Tensor, b: Tensor) -> Tensor:
    count = min(len(a), len(b))
    matrix = torch.zeros(len(a), len(b))
    matrix[:count, :count] = box_iou(a[:count], b[:count])
    return matrix


def _areas_crossed(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """The overlaps are right; the areas are added before one stands in a column and the other in a row."""
    ratio = box_iou(a, b)
    overlap = ratio / (1 + ratio) * (area(a)[:, None] + area(b))
    return overlap / ((area(a) + area(b)).unsqueeze(axis) - overlap)


def _unequal(a: Tensor, b: Tensor) -> bool:
    return len(a) != len(b)


IOU_MATRIX = Exercise(
    solution=box_iou,
    cases=[
        (torch.tensor([[0.0, 2, 4, 7], [1, 2, 3, 5]]), torch.tensor([[1.0, 3, 5, 9], [0, 2, 2, 6]])),
        (torch.tensor([[0.0, 0, 4, 2], [0, 1, 3, 3], [2, 0, 3, 4]]), torch.tensor([[1.0, 0, 5, 2], [0, 0, 2, 2]])),
        (torch.tensor([[0.0, 0, 4, 2], [0, 1, 3, 3]]), torch.tensor([[1.0, 0, 5, 2], [0, 0, 2, 2], [2, 0, 3, 4]])),
        (torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[3.0, 1, 4, 3]])),
        (torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 4, 3, 5]])),
        (torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 3, 4, 6]])),
        (torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2]]), torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 2], [2, 1, 2, 1]])),
        (_random_boxes(0, seed=0), _random_boxes(3, seed=1)),
        (_random_boxes(2, seed=0), _random_boxes(0, seed=1)),
        (_random_boxes(4, seed=2), _random_boxes(3, seed=3)),
    ],
    mistakes=mistakes(
        "transposed: Rows and columns have changed places. Row i belongs to a[i], column j to b[j].",
        lambda a, b: box_iou(b, a),
        "one to one: You compare a[0] with b[0], a[1] with b[1] and so on. Every box of a meets every box of b: the "
        "two need an axis each.",
        _but(_unequal, _stop, lambda a, b: box_iou(a, b).diagonal()),
        _but(_unequal, _stop, lambda a, b: box_iou(a, b).diagonal()[:, None]),
        "square only: It works where a and b have equally many boxes, which is rare. Which length has which axis?",
        _but(_unequal, _stop, box_iou),
        _but(lambda a, b: len(a) > len(b), _stop, _square_part),
        _but(lambda a, b: len(a) < len(b), _stop, lambda a, b: pad(box_iou(a, b), (0, len(a) - len(b)))),
        "areas crossed: The overlaps are right, the areas are not those of the pair. The area of a[i] must be the same "
        "all along row i, that of b[j] all along column j.",
        lambda a, b: _areas_crossed(a, b, axis=0),
        lambda a, b: _areas_crossed(a, b, axis=1),
        "no boxes: An image may have no object. The matrix then has no row or no column, and still the shape [N, M].",
        _but(lambda a, b: not len(a) or not len(b), _stop, box_iou),
        _but(lambda a, b: not len(a) or not len(b), _no_rows, box_iou),
        _but(lambda a, b: not len(a), _no_rows, box_iou),
    )
    | {name: Mistake(one.hint, [_pairwise(twin) for twin in one.twins]) for name, one in IOU.mistakes.items()},
    draw=lambda args: [*rectangles("a", "a", args["a"]), *rectangles("b", "b", args["b"])],
)


def mirror_boxes(boxes: Tensor) -> Tensor:
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([1 - x1, y0, 1 - x0, y1], dim=1)


def _columns(arrange: Callable[..., tuple]) -> Callable[[Tensor], Tensor]:
    """The four new columns, made from the four old ones."""
    return lambda boxes: torch.stack(arrange(*boxes.unbind(dim=1)), dim=1)


MIRROR_BOXES = Exercise(
    solution=mirror_boxes,
    cases=[
        (torch.tensor([[0.1, 0.2, 0.4, 0.7]]),),
        (torch.tensor([[0.5, 0.1, 0.7, 0.3], [0.0, 0.6, 0.4, 1.0]]),),
        (_random_boxes(5, seed=0),),
        (torch.zeros(0, 4),),
    ],
    mistakes=mistakes(
        "not swapped: Your boxes have their left edge on the right. What was the right edge becomes the left one.",
        _columns(lambda x0, y0, x1, y1: (1 - x0, y0, 1 - x1, y1)),
        "only swapped: xmin and xmax have changed places, and neither has moved.",
        _columns(lambda x0, y0, x1, y1: (x1, y0, x0, y1)),
        "top to bottom: You have exchanged above and below. Left and right are x.",
        _columns(lambda x0, y0, x1, y1: (x0, 1 - y1, x1, 1 - y0)),
        "both ways: You have mirrored both axes, which is half a turn. This mirror leaves y alone.",
        _columns(lambda x0, y0, x1, y1: (1 - x1, 1 - y1, 1 - x0, 1 - y0)),
        _columns(lambda x0, y0, x1, y1: (1 - x0, 1 - y0, 1 - x1, 1 - y1)),
        "unchanged: These are the boxes as they came.",
        _columns(lambda x0, y0, x1, y1: (x0, y0, x1, y1)),
        "overwritten: You write one column before you have read it for the other, which sees the new numbers.",
        _columns(lambda x0, y0, x1, y1: (1 - x1, y0, x1, y1)),
        _columns(lambda x0, y0, x1, y1: (x0, y0, 1 - x0, y1)),
        "about the edge: Your boxes have left the image. Its left edge, x = 0, must come to where the right one was.",
        _columns(lambda x0, y0, x1, y1: (-x1, y0, -x0, y1)),
        _columns(lambda x0, y0, x1, y1: (-x0, y0, -x1, y1)),
        "only xmin: You mirror xmin alone, as if the box had a centre and a size. It has two edges.",
        _columns(lambda x0, y0, x1, y1: (1 - x0, y0, x1, y1)),
        "read as width and height: You take the third number for a width. It is the right edge.",
        _columns(lambda x0, y0, x1, y1: (1 - x0 - x1, y0, x1, y1)),
        "no boxes: An image may have no object. No boxes in, no boxes out, and both have the shape [0, 4].",
        _but(lambda boxes: not len(boxes), _stop, mirror_boxes),
        _but(lambda boxes: not len(boxes), _no_rows, mirror_boxes),
    ),
    draw=lambda args: [rectangle("frame", "image", (0, 0, 1, 1)), *rectangles("a", "box", args["boxes"])],
    place=lambda args, boxes: boxes,
)


def _corner_and_size(window: Box) -> tuple[Tensor, Tensor]:
    """The window's upper left corner and its size, each twice: once for each corner of a box."""
    x0, y0, x1, y1 = window
    return torch.tensor([x0, y0, x0, y0]), torch.tensor([x1 - x0, y1 - y0, x1 - x0, y1 - y0])


def _clip(boxes: Tensor, window: Box) -> Tensor:
    corner, size = _corner_and_size(window)
    return torch.minimum(torch.maximum(boxes, corner), corner + size)


def _into(boxes: Tensor, window: Box) -> Tensor:
    """Fractions of the image to fractions of the window."""
    corner, size = _corner_and_size(window)
    return (boxes - corner) / size


def _out_of(boxes: Tensor, window: Box) -> Tensor:
    corner, size = _corner_and_size(window)
    return boxes * size + corner


def _visible(boxes: Tensor, window: Box) -> Tensor:
    """The share of each object's area that lies in the window."""
    return area(_clip(boxes, window)) / area(boxes)


def _filled(boxes: Tensor, window: Box) -> Tensor:
    """The share of the window that each object fills."""
    return area(_clip(boxes, window)) / area(torch.tensor(window))


def _window_iou(boxes: Tensor, window: Box) -> Tensor:
    return box_iou(boxes, torch.tensor([window]))[:, 0]


def _centre_inside(boxes: Tensor, window: Box) -> Tensor:
    centre = to_cxcywh(boxes)[:, :2]
    return ((centre > torch.tensor(window[:2])) & (centre < torch.tensor(window[2:]))).all(dim=1)


def _kept(boxes: Tensor, window: Box, least: float) -> Tensor:
    share = _visible(boxes, window)
    return (share >= least) & (share > 0)


def _crop(
    keep: Callable = _kept,
    place: Callable = lambda boxes, window: _into(_clip(boxes, window), window),
) -> Callable[[Tensor, Box, float], tuple[Tensor, Tensor]]:
    """Objects kept by a rule, and their boxes changed by another one."""

    def crop(boxes: Tensor, window: Box, min_visibility: float) -> tuple[Tensor, Tensor]:
        kept = keep(boxes, window, min_visibility).nonzero()[:, 0]
        return place(boxes, window)[kept], kept

    return crop


crop_boxes = _crop()


def _nothing_kept(boxes: Tensor, window: Box, least: float) -> bool:
    return not _kept(boxes, window, least).any()


WINDOW = (0.25, 0.25, 0.75, 1.0)

CROP_BOXES = Exercise(
    solution=crop_boxes,
    returns=("boxes", "kept"),
    cases=[
        (torch.tensor([[0.1, 0.2, 0.9, 1.0]]), (0.0, 0.0, 1.0, 1.0), 0.5),
        (torch.tensor([[0.3, 0.4, 0.45, 0.6]]), WINDOW, 0.5),
        (torch.tensor([[0.5, 0.6, 0.9, 1.0]]), WINDOW, 0.5),
        (torch.tensor([[0.15, 0.1, 0.5, 0.6]]), WINDOW, 0.4),
        (torch.tensor([[0.3, 0.4, 0.45, 0.6], [0.7, 0.5, 1.0, 0.7]]), WINDOW, 0.5),
        (torch.tensor([[0.3, 0.4, 0.45, 0.6], [0.65, 0.5, 0.95, 0.7]]), WINDOW, 0.5),
        (torch.tensor([[0.3, 0.4, 0.4, 0.5], [0.15, 0.3, 0.42, 0.5]]), WINDOW, 0.7),
        (torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.35, 0.4]]), WINDOW, 0.5),
        (torch.tensor([[0.8, 0.1, 0.95, 0.5], [0.3, 0.4, 0.45, 0.6]]), WINDOW, 0.5),
        (torch.tensor([[0.8, 0.1, 0.95, 0.5], [0.3, 0.4, 0.45, 0.6]]), WINDOW, 0.0),
        (torch.tensor([[0.75, 0.3, 0.9, 0.5], [0.2, 0.3, 0.3, 0.5]]), WINDOW, 0.0),
        (_random_boxes(8, seed=3), (0.3, 0.1, 0.8, 0.6), 0.3),
        (torch.tensor([[0.8, 0.1, 0.95, 0.5]]), WINDOW, 0.5),
        (torch.zeros(0, 4), WINDOW, 0.5),
    ],
    mistakes=mistakes(
        "not shifted: Fractions of the window count from the window's corner. Yours still count from the image's.",
        _crop(place=lambda boxes, window: _clip(boxes, window) / _corner_and_size(window)[1]),
        _crop(place=lambda boxes, window: (boxes / _corner_and_size(window)[1]).clamp(0, 1)),
        "not scaled: The window is the new image, and its right edge is 1. You still measure by the old one's size.",
        _crop(place=lambda boxes, window: _clip(boxes, window) - _corner_and_size(window)[0]),
        _crop(place=lambda boxes, window: (boxes - _corner_and_size(window)[0]).clamp(0, 1)),
        "fractions of the image: Your boxes are still fractions of the image. In those of the window its upper left "
        "corner is (0, 0).",
        _crop(place=_clip),
        _crop(place=lambda boxes, window: boxes),
        "not clipped: A box sticks out of the window. What is cut off cannot be in a box of the new image.",
        _crop(place=_into),
        "outside kept: You keep an object of which nothing is in the window.",
        _crop(keep=lambda boxes, window, least: _visible(boxes, window) >= least),
        _crop(keep=lambda boxes, window, least: torch.ones(len(boxes))),
        "measured by the window: You compare with the window's area. The share asked for is a share of the object, "
        "however small it is.",
        _crop(keep=lambda boxes, window, least: _filled(boxes, window) >= least),
        "IoU: You ask for the IoU with the window, which is low for a small object even where all of it is seen.",
        _crop(keep=lambda boxes, window, least: _window_iou(boxes, window) >= least),
        "measured after clipping: You keep whatever touches the window. Of a clipped box everything is inside: which "
        "area must you know from before?",
        _crop(keep=lambda boxes, window, least: _visible(boxes, window) > 0),
        "units mixed: You divide an area in fractions of the window by one in fractions of the image.",
        _crop(keep=lambda boxes, window, least: _kept(boxes, window, least * area(torch.tensor(window)).item())),
        "whole objects only: You keep only objects that are in the window whole. `min_visibility` says what is enough.",
        _crop(keep=lambda boxes, window, least: _visible(boxes, window) > 0.999),
        "by the centre: You keep the objects whose centre is in the window. What counts is the share that is seen.",
        _crop(keep=lambda boxes, window, least: _centre_inside(boxes, window)),
        "mask: `kept` says True or False for each object. Wanted are the indices of those that are kept.",
        lambda *args: (crop_boxes(*args)[0], _kept(*args)),
        "in a column: `kept` has an axis too many: one row for each index, as `nonzero` gives it.",
        lambda *args: (crop_boxes(*args)[0], crop_boxes(*args)[1][:, None]),
        lambda *args: (crop_boxes(*args)[0][:, None], crop_boxes(*args)[1][:, None]),
        "renumbered: `kept` counts the boxes that are left. It must say where they were in `boxes`: their labels are "
        "found by it.",
        lambda *args: (crop_boxes(*args)[0], torch.arange(len(crop_boxes(*args)[1]))),
        "not selected: You return a box for each object. Wanted is one for each that is kept, in the order of `kept`.",
        lambda boxes, window, least: (_into(_clip(boxes, window), window), crop_boxes(boxes, window, least)[1]),
        "nothing left: Sometimes no object is in the window, or in the image. `boxes` then has the shape [0, 4].",
        _but(_nothing_kept, _stop, crop_boxes),
        _but(_nothing_kept, lambda: (_no_rows(), _no_rows()), crop_boxes),
        _but(lambda boxes, window, least: not len(boxes), _stop, crop_boxes),
        _but(lambda boxes, window, least: not len(boxes), lambda: (_no_rows(), _no_rows()), crop_boxes),
    ),
    draw=lambda args: [
        rectangle("frame", "image", (0, 0, 1, 1)),
        rectangle("b", "window", args["window"]),
        *rectangles("a", "object", args["boxes"]),
    ],
    place=lambda args, boxes: _out_of(boxes, args["window"]),
)


def _turned(points: Sequence[Point], degrees: float, centre: Point) -> list[Point]:
    """Counterclockwise on a screen, where y points down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0 = centre
    return [(x0 + (x - x0) * cos + (y - y0) * sin, y0 - (x - x0) * sin + (y - y0) * cos) for x, y in points]


def _around(points: Sequence[Point]) -> Box:
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)


def rotated_box(box: Box, degrees: float, width: int, height: int) -> Box:
    return _around(_turned(corners(box), degrees, (width / 2, height / 2)))


def _about(centre: Callable[[Box, int, int], Point]) -> Callable[[Box, float, int, int], Box]:
    return lambda box, degrees, width, height: _around(_turned(corners(box), degrees, centre(box, width, height)))


def _two_corners(box: Box, degrees: float, width: int, height: int) -> list[Point]:
    return _turned([box[:2], box[2:]], degrees, (width / 2, height / 2))


def _size_kept(box: Box, degrees: float, width: int, height: int) -> Box:
    cx, cy, w, h = _cxcywh(box)
    ((cx, cy),) = _turned([(cx, cy)], degrees, (width / 2, height / 2))
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _new_x_in_y(box: Box, degrees: float, width: int, height: int) -> Box:
    centre, points = (width / 2, height / 2), corners(box)
    half_done = [(x, y) for (x, _), (_, y) in zip(_turned(points, degrees, centre), points, strict=True)]
    x0, _, x1, _ = rotated_box(box, degrees, width, height)
    _, y0, _, y1 = _around(_turned(half_done, degrees, centre))
    return x0, y0, x1, y1


def _not_moved_back(box: Box, degrees: float, width: int, height: int) -> Box:
    x0, y0, x1, y1 = rotated_box(box, degrees, width, height)
    return x0 - width / 2, y0 - height / 2, x1 - width / 2, y1 - height / 2


ROTATED_BOX = Exercise(
    solution=rotated_box,
    cases=[
        ((20.0, 10.0, 60.0, 30.0), 0, 100, 60),
        ((20.0, 10.0, 60.0, 30.0), 90, 100, 60),
        ((30.0, 20.0, 70.0, 40.0), 30, 100, 60),
        ((20.0, 20.0, 50.0, 30.0), -20, 100, 60),
        ((10.0, 10.0, 30.0, 40.0), 180, 75, 50),
        ((0.0, 0.0, 40.0, 20.0), 45, 101, 67),
        ((200.0, 150.0, 320.0, 300.0), 400, 500, 375),
    ],
    mistakes=mistakes(
        "two corners: You turn two corners. Each side of the upright box touches another corner of the tilted one.",
        lambda *args: _around(_two_corners(*args)),
        lambda *args: tuple(value for point in _two_corners(*args) for value in point),
        "radians: Sine and cosine take radians, and the angle comes in degrees.",
        lambda box, degrees, width, height: rotated_box(box, math.degrees(degrees), width, height),
        "clockwise: You turn clockwise. On a screen y points down, and that reverses the formula of the textbooks.",
        lambda box, degrees, width, height: rotated_box(box, -degrees, width, height),
        "about the origin: You turn about the upper left corner of the image. It is its centre that stays where it is.",
        _about(lambda box, width, height: (0, 0)),
        "about the box: You turn the box about its own centre. It is the image that turns, and the box goes with it.",
        _about(lambda box, width, height: _cxcywh(box)[:2]),
        "centre missed: Your turn is not quite about the centre. The image reaches from 0 to its width, and the middle "
        "of that need not be a whole number.",
        _about(lambda box, width, height: ((width - 1) / 2, (height - 1) / 2)),
        _about(lambda box, width, height: (width // 2, height // 2)),
        "centre swapped: The centre that you turn about has its two numbers the wrong way round.",
        _about(lambda box, width, height: (height / 2, width / 2)),
        "not moved back: The centre of the image was moved to (0, 0) for the turn, and you have left it there.",
        _not_moved_back,
        "overwritten: You compute the new y from the new x. Both are made from the old ones.",
        _new_x_in_y,
        "size kept: You turn the centre of the box and keep its size. A tilted box needs another frame.",
        _size_kept,
        "clipped: You clip the box to the image. Here it may leave it.",
        lambda box, degrees, *size: tuple(
            min(max(value, 0), side) for value, side in zip(rotated_box(box, degrees, *size), size * 2, strict=True)
        ),
    ),
    draw=lambda args: [
        rectangle("frame", "image", (0, 0, args["width"], args["height"])),
        rectangle("a", "box", args["box"]),
        Shape("b", "turned", _turned(corners(args["box"]), args["degrees"], (args["width"] / 2, args["height"] / 2))),
    ],
    place=lambda args, boxes: boxes,
)


def crop_accepted(boxes: Tensor, window: Box, min_iou: float) -> bool:
    return bool((_window_iou(boxes, window) >= min_iou).any())


def _no_objects(boxes: Tensor, window: Box, least: float) -> bool:
    return not len(boxes)


def _first_only(boxes: Tensor, window: Box, least: float) -> bool:
    return crop_accepted(boxes[:1], window, least)


HALF = (0.0, 0.0, 0.5, 0.5)

CROP_ACCEPTED = Exercise(
    solution=crop_accepted,
    cases=[
        (torch.tensor([[0.0, 0.0, 0.5, 0.5]]), HALF, 0.5),
        (torch.tensor([[0.6, 0.6, 0.9, 0.9]]), HALF, 0.5),
        (torch.tensor([[0.1, 0.1, 0.3, 0.3]]), HALF, 0.5),
        (torch.tensor([[0.0, 0.0, 0.9, 0.9]]), HALF, 0.5),
        (torch.tensor([[0.3, 0.3, 0.8, 0.8]]), HALF, 0.5),
        (torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]), HALF, 0.7),
        (torch.tensor([[0.6, 0.6, 0.9, 0.9], [0.0, 0.0, 0.5, 0.4]]), HALF, 0.7),
        (torch.tensor([[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.5, 0.45]]), HALF, 0.6),
        (torch.tensor([[0.0, 0.0, 0.3, 0.3], [0.2, 0.2, 0.5, 0.5], [0.0, 0.2, 0.3, 0.5]]), HALF, 0.5),
        (torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]]), HALF, 0.1),
        (torch.zeros(0, 4), HALF, 0.5),
    ],
    mistakes=mistakes(
        "all instead of any: You ask it of every object. One that fits the window is enough.",
        lambda boxes, window, least: bool((_window_iou(boxes, window) >= least).all()),
        lambda boxes, window, least: len(boxes) > 0 and bool((_window_iou(boxes, window) >= least).all()),
        "mean: You compare the mean over the objects. One that fits is enough, whatever the others do.",
        lambda boxes, window, least: bool(_window_iou(boxes, window).mean() >= least),
        _but(_no_objects, _stop, lambda boxes, window, least: bool(_window_iou(boxes, window).mean() >= least)),
        "sum: You add the overlaps up. Many objects that fit badly do not make one that fits.",
        lambda boxes, window, least: bool(_window_iou(boxes, window).sum() >= least),
        "share of the object: You measure how much of the object is in the window. IoU also asks how much of the "
        "window is left over.",
        lambda boxes, window, least: bool((_visible(boxes, window) >= least).any()),
        "share of the window: You measure how much of the window an object fills. IoU also asks how much of the object "
        "is outside.",
        lambda boxes, window, least: bool((_filled(boxes, window) >= least).any()),
        "any overlap: You accept whatever overlaps. How much must it be?",
        lambda boxes, window, least: bool((_window_iou(boxes, window) > 0).any()),
        "by the centre: You ask for an object's centre in the window. Here it is the IoU that counts.",
        lambda boxes, window, least: bool(_centre_inside(boxes, window).any()),
        "turned round: Yes and no have changed places.",
        lambda *args: not crop_accepted(*args),
        "first only: The first object decides for all of them: your loop returns in its first round.",
        _first_only,
        _but(_no_objects, lambda: None, _first_only),
        _but(_no_objects, _stop, _first_only),
        "last only: The last object decides for all of them: each round of your loop forgets the one before.",
        lambda boxes, window, least: crop_accepted(boxes[-1:], window, least),
        "one answer each: You answer for each object. The window is taken or not: one True or False for all of them.",
        lambda boxes, window, least: _window_iou(boxes, window) >= least,
        "no objects: An image may have no object. Then nothing fits the window, and the answer is False.",
        _but(_no_objects, _stop, crop_accepted),
        _but(_no_objects, lambda: True, crop_accepted),
    ),
    draw=lambda args: [rectangle("frame", "window", args["window"]), *rectangles("a", "object", args["boxes"])],
)


def _windows(room: int, stride: int, up: bool) -> int:
    return (-(-room // stride) if up else room // stride) + 1


def map_size(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    windows = _windows(size + 2 * padding - kernel, stride, ceil)
    return windows - ((windows - 1) * stride >= size + padding)


MAP_SIZE = Exercise(
    solution=map_size,
    cases=[
        (6, 2, 2, 0, False),
        (5, 3, 1, 0, False),
        (150, 2, 2, 0, True),
        (75, 2, 2, 0, False),
        (75, 2, 2, 0, True),
        (19, 3, 1, 1, False),
        (7, 3, 1, 1, True),
        (9, 4, 3, 2, True),
        (19, 3, 2, 1, False),
        (4, 1, 2, 0, True),
        (3, 2, 2, 1, True),
        (4, 2, 2, 1, True),
        (10, 3, 4, 1, True),
    ],
    mistakes=mistakes(
        "always down: You never round up. What is `ceil` for?",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, padding, False),
        "always up: You always round up. That is asked for where `ceil` is true, and only there.",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, padding, True),
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, True),
        "up and down exchanged: Where `ceil` is true you round down, and the other way round.",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, padding, not ceil),
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, not ceil),
        "one more: You add a window whenever `ceil` is true. Where the windows fill the map there is none to add.",
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, False) + ceil,
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, False) + ceil)
            - ((windows - 1) * stride >= size + padding)
        ),
        "steps counted: You count the steps of the window. Before its first step it has been somewhere, too.",
        lambda *args: map_size(*args) - 1,
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, ceil) - 1,
        "kernel left out: You divide the side by the stride, whatever the kernel. It needs room at the end.",
        lambda size, kernel, stride, padding, ceil: _windows(size, stride, ceil) - 1,
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding, stride, ceil) - 1,
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding, stride, ceil),
        "padding left out: Where there is padding your map is too small: the windows may begin and end in it.",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, 0, ceil),
        lambda size, kernel, stride, padding, ceil: _windows(size - kernel, stride, ceil),
        "padding on one side: You add the padding once. A map has two ends.",
        lambda size, kernel, stride, padding, ceil: _windows(size + padding - kernel, stride, ceil),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + padding - kernel, stride, ceil)) - ((windows - 1) * stride >= size + padding)
        ),
        "last window kept: You keep a last window that PyTorch drops. Counted from the start of the left padding, a "
        "window that begins at size + padding is already outside.",
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, ceil),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil))
            - ((windows - 1) * stride >= size + 2 * padding)
        ),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil)) - ((windows - 1) * stride > size + padding)
        ),
        "window dropped too soon: You drop a last window that still begins in the map. Windows are counted from the "
        "start of the left padding, so where does the map end?",
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil)) - ((windows - 1) * stride >= size)
        ),
        "no integer: The side of a map is an integer. A division with `/` gives a float, and so do NumPy's floor and "
        "ceil.",
        lambda size, kernel, stride, padding, ceil: (size + 2 * padding - kernel) / stride + 1,
        lambda *args: float(map_size(*args)),
    ),
)

Layers = list[tuple[int, int, int]]


def _field(
    reach: Callable[[int, int], int] = lambda kernel, dilation: (kernel - 1) * dilation,
    apart: Callable[[int, int, int], int] = lambda jump, stride, dilation: jump * stride,
    together: Callable[[int, int, int], int] = lambda field, jump, cells: field + (cells - 1) * jump,
) -> Callable[[Layers, int], int]:
    """What some neighbouring cells see together, with one of its parts exchanged."""

    def twin(layers: Layers, cells: int) -> int:
        field, jump = 1, 1
        for kernel, stride, dilation in layers:
            field += reach(kernel, dilation) * jump
            jump = apart(jump, stride, dilation)
        return together(field, jump, cells)

    return twin


def receptive_field(layers: Layers, cells: int) -> int:
    return _field()(layers, cells)


def _jumps(jump: Callable[[list[int]], int]) -> Callable[[Layers, int], int]:
    """A receptive field; `jump` gives how far apart cells are, from the strides up to the layer, its own last."""

    def twin(layers: Layers, cells: int) -> int:
        strides = [stride for _, stride, _ in layers]
        steps = enumerate(layers, start=1)
        field = 1 + sum((kernel - 1) * dilation * jump(strides[:n]) for n, (kernel, _, dilation) in steps)
        return field + (cells - 1) * math.prod(strides)

    return twin


def _from_the_map(
    before: Callable[[int, int, int, int], int], order: Callable = reversed
) -> Callable[[Layers, int], int]:
    """A receptive field layer by layer, from the map to the image; `before` says what a layer needs."""

    def twin(layers: Layers, cells: int) -> int:
        for kernel, stride, dilation in order(layers):
            cells = before(cells, kernel, stride, dilation)
        return cells

    return twin


RECEPTIVE_FIELD = Exercise(
    solution=receptive_field,
    cases=[
        ([(3, 1, 1)], 1),
        ([(3, 1, 1), (3, 1, 1)], 1),
        ([(2, 2, 1)], 1),
        ([(3, 1, 1), (2, 2, 1), (3, 1, 1)], 1),
        ([(3, 2, 1), (5, 3, 1), (3, 1, 1), (2, 2, 1)], 1),
        ([(3, 1, 6)], 1),
        ([(3, 1, 2), (3, 1, 1)], 1),
        ([(2, 2, 1), (3, 1, 6), (1, 1, 1)], 1),
        ([*[(3, 1, 1), (3, 1, 1), (2, 2, 1)] * 2, (3, 1, 1), (3, 1, 1), (3, 1, 1), (2, 2, 1)], 1),
        ([], 1),
        ([(3, 1, 1)], 2),
        ([(3, 1, 1), (2, 2, 1)], 3),
        ([(3, 2, 1), (3, 1, 2), (2, 3, 1)], 3),
        ([], 3),
    ],
    mistakes=mistakes(
        "own stride: You multiply by the stride of the layer itself. How far apart its taps lie was settled by the "
        "layers before it.",
        _jumps(lambda strides: strides[-1]),
        _jumps(math.prod),
        "strides left out: You add up kernels as if no layer had a stride. After a stride of 2, two neighbouring cells "
        "are two pixels apart.",
        _jumps(lambda strides: 1),
        "last stride only: You remember the stride of one layer. After two strides of 2 cells are four pixels apart.",
        _jumps(lambda strides: strides[-2] if len(strides) > 1 else 1),
        "strides added: You add where strides multiply. Halving twice makes quarters.",
        _jumps(lambda strides: 1 + sum(strides[:-1])),
        _jumps(lambda strides: sum(strides[:-1]) or 1),
        _field(apart=lambda jump, stride, dilation: jump + stride),
        _field(apart=lambda jump, stride, dilation: jump + stride - 1),
        "dilation in the stride: You let a dilation move the cells apart. It spreads the taps of its own layer; the "
        "cells that the layer gives lie as close as its stride puts them.",
        _field(apart=lambda jump, stride, dilation: jump * stride * dilation),
        _field(apart=lambda jump, stride, dilation: jump * max(stride, dilation)),
        "stride and dilation exchanged: Stride and dilation have changed places. A layer is kernel, stride, dilation.",
        lambda layers, cells: receptive_field(
            [(kernel, dilation, stride) for kernel, stride, dilation in layers], cells
        ),
        "dilation left out: You take all taps for neighbours. What does `dilation` do to them?",
        _field(reach=lambda kernel, dilation: kernel - 1),
        "dilation of all taps: You multiply the kernel by the dilation. Three taps have two gaps between them.",
        _field(reach=lambda kernel, dilation: kernel * dilation - 1),
        "whole kernel: You add the whole kernel. One of its cells has been in the field before.",
        _field(reach=lambda kernel, dilation: kernel * dilation),
        _field(reach=lambda kernel, dilation: (kernel - 1) * dilation + 1),
        "begun with nothing: You are one pixel short: before the first layer a cell sees itself.",
        lambda layers, cells: receptive_field(layers, cells) - 1,
        "from the wrong end: That formula goes from the map to the image, and your loop from the image to the map.",
        _from_the_map(lambda cells, kernel, stride, dilation: (cells - 1) * stride + (kernel - 1) * dilation + 1, iter),
        "cells in place of gaps: On your way from the map to the image you multiply cells by the stride. Three cells "
        "have two gaps between them, and it is the gaps that grow.",
        _from_the_map(lambda cells, kernel, stride, dilation: cells * stride + (kernel - 1) * dilation),
        "distance: You return how far apart two cells are. Asked is how much they see.",
        lambda layers, cells: math.prod(stride for _, stride, _ in layers),
        "one cell: You give what a single cell sees. `cells` of them lie side by side.",
        lambda layers, cells: receptive_field(layers, 1),
        "fields added: You add up what each of the cells sees. Neighbours see many of the same pixels.",
        lambda layers, cells: cells * receptive_field(layers, 1),
        "cells of one pixel: You take the next cell to see one pixel further. How far apart are two cells of this map?",
        lambda layers, cells: receptive_field(layers, 1) + cells - 1,
        "last stride left out: Your cells lie too close. They are cells of the last layer's map, so its stride counts "
        "for them.",
        lambda layers, cells: (
            receptive_field(layers, 1) + (cells - 1) * math.prod(stride for _, stride, _ in layers[:-1])
        ),
        "one step too many: You add a step for each cell. From the first of three cells to the last there are two.",
        _field(together=lambda field, jump, cells: field + cells * jump),
        "no integer: You return a number with a point. Pixels are counted: an integer is wanted.",
        lambda layers, cells: float(receptive_field(layers, cells)),
        "no layers: A list may be empty. Cells that have passed no layer are pixels, and see themselves.",
        _but(lambda layers, cells: not layers, _stop, receptive_field),
        _but(lambda layers, cells: not layers, lambda: 0, receptive_field),
    ),
)


def _filters(weight: Tensor, side: int) -> Tensor:
    """All filters as PyTorch orders them: units, channels, rows, columns."""
    return weight.reshape(len(weight), side, side, -1).permute(0, 3, 1, 2)


def decimate(weight: Tensor, side: int, units: int, taps: int) -> Tensor:
    return _filters(weight, side)[::units, :, ::taps, ::taps]


def _count(many: int, every: int) -> int:
    return len(range(0, many, every))


def _linear(out: int, channels: int, side: int) -> Tensor:
    """A weight of which every number says where it stands: 1000 a unit, 100 a channel, 10 a row, 1 a column."""
    digits = [
        torch.arange(n, dtype=torch.float32) * place
        for n, place in zip((out, side, side, channels), (1000, 10, 1, 100), strict=True)
    ]
    unit, row, column, channel = torch.meshgrid(*digits, indexing="ij")
    return (unit + row + column + channel).flatten(1)


def _zeros_between(weight: Tensor, side: int, units: int, taps: int) -> Tensor:
    filters = _filters(weight, side)
    kept = torch.zeros_like(filters)
    kept[::units, :, ::taps, ::taps] = filters[::units, :, ::taps, ::taps]
    return kept


DECIMATE = Exercise(
    solution=decimate,
    cases=[
        (_linear(2, 1, 2), 2, 1, 1),
        (_linear(1, 2, 2), 2, 1, 1),
        (_linear(4, 1, 1), 1, 2, 1),
        (_linear(1, 1, 4), 4, 1, 2),
        (_linear(1, 3, 5), 5, 1, 3),
        (_linear(5, 4, 3), 3, 2, 1),
        (_linear(6, 2, 7), 7, 4, 3),
        (_linear(8, 3, 7), 7, 3, 2),
    ],
    mistakes=mistakes(
        "channels first: You take the channels for the first of the three, as PyTorch would. This map was flattened "
        "with its channels last.",
        lambda weight, side, units, taps: weight.reshape(len(weight), -1, side, side)[::units, :, ::taps, ::taps],
        "units not first: You take the units for another axis than the first. Each row of the weight is a unit.",
        lambda weight, side, units, taps: weight.reshape(-1, len(weight), side, side).transpose(0, 1)[
            ::units, :, ::taps, ::taps
        ],
        lambda weight, side, units, taps: weight.reshape(side, side, -1, len(weight)).permute(3, 2, 0, 1)[
            ::units, :, ::taps, ::taps
        ],
        "axes as they came: Your numbers are the right ones, and their axes stand in another order. A convolution of "
        "PyTorch has units, channels, rows, columns.",
        lambda *args: decimate(*args).permute(0, 2, 3, 1),
        lambda *args: decimate(*args).permute(2, 3, 1, 0),
        "reshaped: You reshape where axes must change places. A reshape leaves the numbers in the order they are in.",
        lambda *args: (right := decimate(*args)).permute(0, 2, 3, 1).reshape(right.shape),
        "rows and columns: Rows and columns of the filters have changed places.",
        lambda *args: decimate(*args).transpose(2, 3),
        "first taps: You keep the taps in one corner of the filter. They must span all of it.",
        lambda weight, side, units, taps: _filters(weight, side)[
            ::units, :, : _count(side, taps), : _count(side, taps)
        ],
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, :taps, :taps],
        "zeros between: You set taps to zero and keep them. The small convolution stores only the ones that are left; "
        "its dilation makes the gaps.",
        lambda weight, side, units, taps: _zeros_between(weight, side, units, taps)[::units],
        _zeros_between,
        "first units: You keep the units at the front. Every `units`-th of all of them is wanted.",
        lambda weight, side, units, taps: _filters(weight, side)[: _count(len(weight), units), :, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[: len(weight) // units, :, ::taps, ::taps],
        "first one left out: You begin with the last of the first group. Begin with the first.",
        lambda weight, side, units, taps: _filters(weight, side)[units - 1 :: units, :, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, taps - 1 :: taps, taps - 1 :: taps],
        lambda weight, side, units, taps: _filters(weight, side)[
            units - 1 :: units, :, taps - 1 :: taps, taps - 1 :: taps
        ],
        "one direction: You thin the taps in one direction. A filter has rows and columns.",
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, :, ::taps],
        "channels thinned: You thin the channels too. The map that the filter looks at still has all of them.",
        lambda weight, side, units, taps: _filters(weight, side)[::units, ::units, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[::units, ::taps, ::taps, ::taps],
        "units kept: You keep all units.",
        lambda weight, side, units, taps: decimate(weight, side, 1, taps),
        "taps kept: You keep all taps.",
        lambda weight, side, units, taps: decimate(weight, side, units, 1),
        "numbers exchanged: `units` and `taps` have changed places.",
        lambda weight, side, units, taps: decimate(weight, side, taps, units),
        "still flat: A convolution's weight has four axes: units, channels, rows, columns.",
        lambda *args: decimate(*args).flatten(1),
    ),
)


Sides = tuple[int, ...]


def _summed(count: Callable[[int, int], int]) -> Callable[[Sides, Sides], int]:
    """A count over all levels; `count` gives that of one, from its side and its priors per cell."""
    return lambda maps, per_cell: sum(count(side, priors) for side, priors in zip(maps, per_cell, strict=True))


def prior_count(maps: Sides, per_cell: Sides) -> int:
    return _summed(lambda side, priors: side * side * priors)(maps, per_cell)


PRIOR_COUNT = Exercise(
    solution=prior_count,
    cases=[
        ((1,), (5,)),
        ((3,), (4,)),
        ((5, 3), (2, 4)),
        ((4, 4, 2), (1, 3, 3)),
        ((38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)),
    ],
    mistakes=mistakes(
        "not squared: You count one row of each map. How many rows has it?",
        _summed(lambda side, priors: side * priors),
        "cells only: You count cells. Each of them carries several priors.",
        _summed(lambda side, priors: side * side),
        "sums multiplied: You multiply all cells by all shapes. The shapes of one map do not stand in the cells of "
        "another.",
        lambda maps, per_cell: sum(side * side for side in maps) * sum(per_cell),
        lambda maps, per_cell: sum(maps) ** 2 * sum(per_cell),
        "priors squared: You square the priors in a cell. It is the map that has two sides.",
        _summed(lambda side, priors: (side * priors) ** 2),
        _summed(lambda side, priors: side * priors**2),
        "one level: You count the priors of one level. What of the others?",
        lambda maps, per_cell: prior_count(maps[:1], per_cell[:1]),
        lambda maps, per_cell: prior_count(maps[-1:], per_cell[-1:]),
        "numbers of a box: You count four for each prior, the numbers that it takes to write one down.",
        _summed(lambda side, priors: 4 * side * side * priors),
        "rows and columns added: You add rows and columns. Each row has as many cells as there are columns.",
        _summed(lambda side, priors: 2 * side * priors),
        "one level's priors: You give the cells of all maps the same number of priors. Each level has its own.",
        lambda maps, per_cell: sum(side * side for side in maps) * per_cell[0],
        lambda maps, per_cell: sum(side * side for side in maps) * per_cell[-1],
        "not summed: You give a count for each level. Asked is one number for all of them.",
        lambda maps, per_cell: [side * side * priors for side, priors in zip(maps, per_cell, strict=True)],
    ),
    draw=lambda args: [
        rectangle("frame", "first map", (0, 0, args["maps"][0], args["maps"][0])),
        rectangle("a", "cell", (0, 0, 1, 1)),
    ],
)


def _cell(along: Callable[[float, float, int], float]) -> Callable[[float, float, float, int], tuple[float, float]]:
    """A cell's row and column; `along` gives one of them, from a place on its axis, the step and the map's side."""
    return lambda x, y, step, side: (along(y, step, side), along(x, step, side))


def nearest_cell(x: float, y: float, step: float, side: int) -> tuple[int, int]:
    return _cell(lambda place, step, side: min(math.floor(place / step), side - 1))(x, y, step, side)


NEAREST_CELL = Exercise(
    solution=nearest_cell,
    cases=[
        (7.0, 7.0, 20, 2),
        (33.0, 33.0, 20, 2),
        (70.0, 20.0, 16, 10),
        (18.0, 25.0, 20, 4),
        (115.5, 33.5, 53.5, 3),
        (299.0, 5.0, 32, 10),
        (299.0, 150.0, 8, 37),
        (298.5, 297.0, 8, 37),
        (170.0, 30.0, 20, 6),
    ],
    mistakes=mistakes(
        "row and column exchanged: The row comes first. Which of x and y makes it?",
        lambda x, y, step, side: nearest_cell(y, x, step, side),
        "nearest corner: You round to the nearest corner of a cell. Priors stand in the middle of theirs.",
        _cell(lambda place, step, side: min(round(place / step), side - 1)),
        _cell(lambda place, step, side: round(place / step)),
        "last centre before: You take the last centre before the point. The next one may be nearer.",
        _cell(lambda place, step, side: min(int(place / step - 0.5), side - 1)),
        _cell(lambda place, step, side: min(math.floor(place / step - 0.5), side - 1)),
        _cell(lambda place, step, side: int(place / step - 0.5)),
        "cells from 1: You count cells from 1. The first row is row 0.",
        _cell(lambda place, step, side: min(math.floor(place / step), side - 1) + 1),
        _cell(lambda place, step, side: math.floor(place / step) + 1),
        _cell(lambda place, step, side: min(math.floor(place / step) + 1, side - 1)),
        "beyond the map: You name a cell that the map does not have. 37 cells of 8 pixels end at 296, and the picture "
        "goes on to 300.",
        _cell(lambda place, step, side: math.floor(place / step)),
        _cell(lambda place, step, side: min(math.floor(place / step), side)),
        "place of the centre: You return where the nearest centre is. Asked is which cell it belongs to.",
        _cell(lambda place, step, side: (min(math.floor(place / step), side - 1) + 0.5) * step),
        "no integers: Your row and column have a point in them. Cells are counted: integers are wanted, and `//` "
        "between numbers with a point gives none.",
        _cell(lambda place, step, side: float(min(place // step, side - 1))),
        _cell(lambda place, step, side: place // step),
    ),
    returns=("row", "column"),
)

Ratios = tuple[float, ...]
Sizes = list[Point]


def _wide(ratios: Ratios) -> list[float]:
    """Each ratio once, as that of its wide box; 1 is left to the squares."""
    return list(dict.fromkeys(round(max(ratio, 1 / ratio), 6) for ratio in ratios if ratio != 1))


def _shapes(
    larger: Callable[[float, float], float] = lambda side, next_side: math.sqrt(side * next_side),
    pair: Callable[[float, float], Sizes] = lambda side, root: [(side * root, side / root), (side / root, side * root)],
    meant: Callable[[Ratios], Iterable[float]] = _wide,
) -> Callable[[float, float, Ratios], Sizes]:
    """The shapes of a cell with one of their parts exchanged; `pair` gets the root of a ratio that is `meant`."""

    def twin(side: float, next_side: float, ratios: Ratios) -> Sizes:
        squares = [(one, one) for one in (side, larger(side, next_side))]
        return squares + [shape for ratio in meant(ratios) for shape in pair(side, math.sqrt(ratio))]

    return twin


def prior_shapes(side: float, next_side: float, ratios: Ratios) -> Sizes:
    return _shapes()(side, next_side, ratios)


def _reordered(order: Callable[[Sizes], Sizes]) -> Callable[[float, float, Ratios], Sizes]:
    return lambda *args: order(prior_shapes(*args))


PRIOR_SHAPES = Exercise(
    solution=prior_shapes,
    cases=[
        (40.0, 90.0, ()),
        (20.0, 45.0, (4.0,)),
        (30.0, 60.0, (2.0,)),
        (60.0, 111.0, (2.0, 3.0)),
        (111.0, 162.0, (3.0, 1.5)),
        (30.0, 60.0, (0.5,)),
        (60.0, 111.0, (2.0, 0.5)),
        (60.0, 111.0, (1.0, 2.0)),
        (60.0, 111.0, (1 / 3, 1.0, 2.0, 0.5, 3.0)),
    ],
    mistakes=mistakes(
        "mean of the sides: Your larger square lies half way between the sides by adding. It should be as many times "
        "larger than the one as it is smaller than the other.",
        _shapes(larger=lambda side, next_side: (side + next_side) / 2),
        "next side itself: Your larger square is the next level's small one. It lies between the two.",
        _shapes(larger=lambda side, next_side: next_side),
        "no root: The width of your boxes is ratio times ratio their height: what is (s r) / (s / r)?",
        _shapes(pair=lambda side, root: [(side * root**2, side / root**2), (side / root**2, side * root**2)]),
        "one side stretched: You stretch one side and leave the other, so that the area changes with the ratio.",
        _shapes(pair=lambda side, root: [(side * root**2, side), (side, side * root**2)]),
        _shapes(pair=lambda side, root: [(side * root**2, side), (side / root**2, side)]),
        "all squares: Width and height are computed by one formula, and all your boxes are squares.",
        _shapes(pair=lambda side, root: [(side * root,) * 2, (side / root,) * 2]),
        _shapes(pair=lambda side, root: [(side * root,) * 2] * 2),
        "inverse left out: Each ratio gives two boxes, a wide one and a tall one.",
        _shapes(pair=lambda side, root: [(side * root, side / root)]),
        "same box twice: You add the wide box twice. The second one stands upright.",
        _shapes(pair=lambda side, root: [(side * root, side / root)] * 2),
        "tall one first: Wide and tall have changed places. A ratio is width to height.",
        _shapes(pair=lambda side, root: [(side / root, side * root), (side * root, side / root)]),
        "inverses last: You add all ratios and then all inverses. Each ratio is followed by its own inverse.",
        _reordered(lambda shapes: [*shapes[:2], *shapes[2::2], *shapes[3::2]]),
        "larger square elsewhere: The larger square comes second, right behind the small one.",
        _reordered(lambda shapes: [shapes[0], *shapes[2:], shapes[1]]),
        _reordered(lambda shapes: [shapes[1], shapes[0], *shapes[2:]]),
        "larger square left out: A square is missing. Each cell has two, the second made with the next level's side.",
        _reordered(lambda shapes: [shapes[0], *shapes[2:]]),
        "larger one stretched: You stretch the larger square. The ratios belong to the small one.",
        lambda side, next_side, ratios: [
            *prior_shapes(side, next_side, ()),
            *prior_shapes(math.sqrt(side * next_side), next_side, ratios)[2:],
        ],
        "ratios as listed: A ratio below 1 stands for the same two boxes as its inverse, and the wide box comes first.",
        _shapes(meant=lambda ratios: ratios),
        _shapes(meant=lambda ratios: [ratio for ratio in ratios if ratio != 1]),
        _shapes(meant=lambda ratios: dict.fromkeys(ratios)),
        lambda *args: list(dict.fromkeys((round(w, 5), round(h, 5)) for w, h in _shapes(meant=tuple)(*args))),
        "boxes twice: Where the list holds a ratio and its inverse, your boxes come twice. Both mean the same two.",
        _shapes(meant=lambda ratios: [max(ratio, 1 / ratio) for ratio in ratios if ratio != 1]),
        _shapes(meant=lambda ratios: [max(ratio, 1 / ratio) for ratio in ratios]),
        "ratio of 1: You make boxes for a ratio of 1. That is the small square, which is there already.",
        _shapes(meant=lambda ratios: dict.fromkeys(max(ratio, 1 / ratio) for ratio in ratios)),
        "ratios below 1 left out: You pass over ratios below 1. Where a list holds 1/2 and no 2, boxes are missing.",
        _shapes(meant=lambda ratios: [ratio for ratio in ratios if ratio > 1]),
        "sorted: Your ratios stand in order of size. The one that the list names first comes first.",
        _shapes(meant=lambda ratios: sorted(_wide(ratios))),
        _shapes(meant=lambda ratios: sorted(_wide(ratios), reverse=True)),
        "fractions: Your boxes are fractions of some image. Pixels are wanted, as `side` is in pixels.",
        lambda *args: [(w / 300, h / 300) for w, h in prior_shapes(*args)],
        "root of the side: You take the root of the side as well. Only the ratio stands under it.",
        _shapes(
            pair=lambda side, root: [
                (math.sqrt(side) * root, math.sqrt(side) / root),
                (math.sqrt(side) / root, math.sqrt(side) * root),
            ]
        ),
    ),
)


def head_channels(per_cell: int, classes: int) -> tuple[int, int]:
    return per_cell * 4, per_cell * (classes + 1)


HEAD_CHANNELS = Exercise(
    solution=head_channels,
    cases=[(1, 1), (1, 20), (4, 20), (6, 20), (5, 90)],
    mistakes=mistakes(
        "background left out: You count object classes alone. What does a prior say that sees none of them?",
        lambda per_cell, classes: (per_cell * 4, per_cell * classes),
        "background once: You add one channel for background to the whole head. Each prior needs its own.",
        lambda per_cell, classes: (per_cell * 4, per_cell * classes + 1),
        "one prior only: These are the channels for one prior. A cell has several.",
        lambda per_cell, classes: (4, classes + 1),
        "heads exchanged: The heads have changed places: boxes come first.",
        lambda *args: head_channels(*args)[::-1],
        "two numbers: A box takes four numbers: two to move it, and two to stretch it.",
        lambda per_cell, classes: (per_cell * 2, per_cell * (classes + 1)),
        "score in the box: You add a score to the four numbers of a box. In SSD background is a class, and scores have "
        "a head of their own.",
        lambda per_cell, classes: (per_cell * 5, per_cell * (classes + 1)),
        lambda per_cell, classes: (per_cell * 5, per_cell * classes),
        "box for each class: You predict a box for each class. In SSD a prior has one box, whatever it shows.",
        lambda per_cell, classes: (per_cell * 4 * (classes + 1), per_cell * (classes + 1)),
        lambda per_cell, classes: (per_cell * 4 * classes, per_cell * (classes + 1)),
        "VOC's classes: You write VOC's number of classes. Your function is told how many there are.",
        lambda per_cell, classes: (per_cell * 4, per_cell * 21),
        lambda per_cell, classes: (per_cell * 4, per_cell * 20),
    ),
)


def rows_to_head(rows: Tensor, height: int, width: int) -> Tensor:
    return _put_back()(rows, height, width)


def _put_back(read: str = "yxkv", written: str = "kvyx") -> Callable[[Tensor, int, int], Tensor]:
    """A head's output from rows; the rows are read, and it is written, in an order of k (prior), v (value), y and x."""

    def twin(rows: Tensor, height: int, width: int) -> Tensor:
        size = {"y": height, "x": width, "k": rows.shape[1] // (height * width), "v": rows.shape[2]}
        split = rows.reshape(len(rows), *(size[axis] for axis in read))
        return split.permute(0, *(1 + read.index(axis) for axis in written)).reshape(len(rows), -1, height, width)

    return twin


def _split_rows(rows: Tensor, height: int, width: int) -> Tensor:
    return rows.reshape(len(rows), height, width, -1, rows.shape[2])  # [B, y, x, k, v]


def _rows(batch: int, priors: int, values: int, height: int, width: int) -> tuple[Tensor, int, int]:
    """A row for each prior of a map, a different number in each place."""
    numbers = torch.arange(batch * priors * values * height * width, dtype=torch.float32)
    return numbers.reshape(batch, -1, values), height, width


ROWS_TO_HEAD = Exercise(
    solution=rows_to_head,
    cases=[
        _rows(1, 1, 4, 1, 1),
        _rows(1, 1, 4, 1, 2),
        _rows(1, 2, 4, 2, 2),
        _rows(2, 2, 3, 2, 3),
        _rows(1, 3, 2, 3, 3),
        _rows(3, 4, 21, 2, 2),
    ],
    mistakes=mistakes(
        "no permute: A reshape alone keeps the order of the rows, in which the numbers of one cell stand side by side. "
        "A channel holds one number of every cell.",
        lambda rows, height, width: rows.reshape(len(rows), -1, height, width),
        "cells not split: You bring the values to the front and leave cells and priors in one axis. Split that axis "
        "first.",
        lambda rows, height, width: rows.transpose(1, 2).reshape(len(rows), -1, height, width),
        "values first: The channels of a cell are in another order. They are all values of the first prior, then all "
        "of the second.",
        _put_back(written="vkyx"),
        _put_back(read="yxvk"),
        "columns before rows: You go down the columns. Cells are counted along a row.",
        _put_back(read="xykv"),
        "prior by prior: You take the rows for all cells of the first prior, then all of the second. A cell's priors "
        "stand together.",
        _put_back(read="kyxv"),
        "map on its side: The map's height and width have changed places.",
        lambda *args: rows_to_head(*args).transpose(2, 3),
        _put_back(written="kvxy"),
        "channels last: Your channels come last. In a head's output they come right after the batch.",
        lambda *args: rows_to_head(*args).permute(0, 2, 3, 1),
        "axes kept apart: Priors and values are still axes of their own. One axis for all channels is wanted.",
        lambda *args: _split_rows(*args).permute(0, 3, 4, 1, 2),
        _split_rows,
        "pictures joined: The first axis is the batch's and stays as it is: each image is put back by itself, a single "
        "one too.",
        lambda rows, height, width: rows.reshape(1, height, width, -1).permute(0, 3, 1, 2),
        lambda rows, height, width: rows.reshape(height, width, -1).permute(2, 0, 1),
    ),
)

Address = tuple[int, int, int, int]


def prior_address(index: int, maps: Sides, per_cell: Sides) -> Address:
    return _address()(index, maps, per_cell)


def _address(
    within: Callable[[int, int, int], tuple[int, int, int]] = lambda index, side, priors: (
        index // priors // side,
        index // priors % side,
        index % priors,
    ),
    size: Callable[[int, int], int] = lambda side, priors: side * side * priors,
    over: Callable[[int, int], bool] = lambda index, size: index >= size,
    start: int = 1,
    ends: bool = False,
) -> Callable[[int, Sides, Sides], Address | None]:
    """An address with one of its parts exchanged.

    Args:
        start: 0 where a level's start is not subtracted.
        ends: nothing comes back for a number beyond the last level; otherwise that level takes it.
    """

    def twin(index: int, maps: Sides, per_cell: Sides) -> Address | None:
        before = 0
        for level, (side, priors) in enumerate(zip(maps, per_cell, strict=True)):
            last = level == len(maps) - 1 and not ends
            if last or not over(index - before, size(side, priors)):
                return level, *within(index - start * before, side, priors)
            before += size(side, priors)
        return None

    return twin


def _one_each(index: int, side: int, priors: int) -> tuple[int, int, int]:
    """Row, column and shape where each cell is taken to have one prior."""
    return index // side, index % side, 0


PRIOR_ADDRESS = Exercise(
    solution=prior_address,
    cases=[
        (0, (2,), (2,)),
        (1, (2,), (2,)),
        (5, (2,), (2,)),
        (11, (3, 2), (2, 4)),
        (18, (3, 2), (2, 4)),
        (29, (3, 2), (2, 4)),
        (6000, (38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)),
        (8731, (38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)),
    ],
    mistakes=mistakes(
        "row for column: Row and column have changed places. Cells are counted along a row: when is a row full?",
        _address(lambda index, side, priors: (index // priors % side, index // priors // side, index % priors)),
        "shapes apart: You go through all cells with the first shape, then with the second. A cell's shapes stand "
        "together.",
        _address(lambda index, side, priors: (index % side**2 // side, index % side, index // side**2)),
        "shapes forgotten: You count cells as if each had one prior. Several numbers belong to each cell.",
        _address(lambda index, side, priors: (index // side, index % side, index % priors)),
        _address(_one_each),
        *(_address(_one_each, size=lambda side, priors: side * side, ends=ends) for ends in (True, False)),
        "column of numbers: Your column counts numbers along a row. Each cell has several of them: count cells.",
        _address(lambda index, side, priors: (index // priors // side, index % side, index % priors)),
        "start kept: The number still counts from the start of the first level. Take off what lies before this one.",
        _address(start=0),
        "edge of a level: The first prior of a level still goes to the level before. Numbers begin with 0, so where "
        "does a level of 18 end?",
        _address(over=lambda index, size: index > size),
        "one row a level: You take a level for one row of cells. It has as many rows as columns.",
        *(_address(size=lambda side, priors: side * priors, ends=ends) for ends in (False, True)),
        "levels of cells: You count a level's cells and leave its shapes out, so that levels begin too early.",
        *(_address(size=lambda side, priors: side * side, ends=ends) for ends in (False, True)),
        "numbers from 1: You count levels from 1. All four numbers begin with 0.",
        lambda *args: (prior_address(*args)[0] + 1, *prior_address(*args)[1:]),
        lambda *args: tuple(number + 1 for number in prior_address(*args)),
    ),
    draw=lambda args: _address_drawn(*prior_address(**args)[:3], args["maps"]),
    returns=("level", "row", "column", "shape"),
)


def _address_drawn(level: int, row: int, column: int, maps: Sides) -> list[Shape]:
    return [
        rectangle("frame", f"level {level}", (0, 0, maps[level], maps[level])),
        rectangle("expected", "cell", (column, row, column + 1, row + 1)),
    ]


def encode_box(box: Box, prior_cxcywh: Box) -> Box:
    return _encoded()(box, prior_cxcywh)


def _encoded(
    shift: Callable[[float, float, float], float] = lambda distance, prior_side, side: distance / prior_side / 0.1,
    stretch: Callable[[float, float], float] = lambda side, prior_side: math.log(side / prior_side) / 0.2,
    of: Callable[[Box], Box] = _cxcywh,
) -> Callable[[Box, Box], Box]:
    """Offsets with one of their parts exchanged; `of` gives the centre and the size of the box."""

    def twin(box: Box, prior_cxcywh: Box) -> Box:
        centre_and_size, prior = of(box), prior_cxcywh
        shifts = [shift(centre_and_size[i] - prior[i], prior[i + 2], centre_and_size[i + 2]) for i in range(2)]
        return (*shifts, *(stretch(centre_and_size[i], prior[i]) for i in range(2, 4)))

    return twin


ENCODE_BOX = Exercise(
    solution=encode_box,
    cases=[
        ((0.3, 0.4, 0.5, 0.8), (0.4, 0.6, 0.2, 0.4)),
        ((0.4, 0.4, 0.6, 0.8), (0.4, 0.6, 0.2, 0.4)),
        ((0.3, 0.5, 0.5, 0.9), (0.4, 0.6, 0.2, 0.4)),
        ((0.1, 0.4, 0.5, 0.5), (0.3, 0.45, 0.2, 0.4)),
        ((0.2, 0.1, 0.9, 0.7), (0.6, 0.3, 0.5, 0.8)),
        ((0.0, 0.0, 1.0, 1.0), (0.98, 0.02, 0.1, 0.3)),
    ],
    mistakes=mistakes(
        "no variances: Your numbers are in the prior's size alone. They are still to be divided by 0.1 and by 0.2.",
        _encoded(lambda distance, prior_side, _: distance / prior_side, lambda a, b: math.log(a / b)),
        "multiplied by variances: You multiply by the variances. Encoding divides by them, and decoding multiplies.",
        _encoded(lambda distance, prior_side, _: distance / prior_side * 0.1, lambda a, b: math.log(a / b) * 0.2),
        "variances exchanged: 0.1 belongs to the centre, and 0.2 to the logarithm of the size.",
        _encoded(lambda distance, prior_side, _: distance / prior_side / 0.2, lambda a, b: math.log(a / b) / 0.1),
        "one variance: You use one variance for all four. The centre has 0.1, the size has 0.2.",
        _encoded(stretch=lambda a, b: math.log(a / b) / 0.1),
        _encoded(lambda distance, prior_side, _: distance / prior_side / 0.2),
        "no logarithm: Your sizes have no logarithm. Twice as wide should lie as far above zero as half as wide lies "
        "below.",
        _encoded(stretch=lambda a, b: a / b / 0.2),
        _encoded(stretch=lambda a, b: (a - b) / b / 0.2),
        "other base: Your logarithm has another base. The natural one is wanted.",
        _encoded(stretch=lambda a, b: math.log2(a / b) / 0.2),
        _encoded(stretch=lambda a, b: math.log10(a / b) / 0.2),
        "width for height: A width stands where a height belongs, or the other way round. x goes with widths, y with "
        "heights.",
        _encoded(of=lambda box: [_cxcywh(box)[number] for number in (0, 1, 3, 2)]),
        lambda box, prior: encode_box(box, tuple(prior[number] for number in (0, 1, 3, 2))),
        lambda *args: tuple(encode_box(*args)[number] for number in (0, 1, 3, 2)),
        lambda box, prior: (
            encode_box(box, prior)[0],
            encode_box(box, prior)[1] * prior[3] / prior[2],
            *encode_box(box, prior)[2:],
        ),
        "shift not divided: Your shift is in fractions of the image. Count it in widths and heights of the prior.",
        _encoded(lambda distance, prior_side, side: distance / 0.1),
        "by the box's size: You divide by the size of the box. When decoding, nobody knows it yet.",
        _encoded(lambda distance, prior_side, side: distance / side / 0.1),
        "turned round: You describe the prior as seen from the box. The box is wanted, as seen from the prior.",
        _encoded(lambda distance, *sides: -distance / sides[0] / 0.1, lambda a, b: math.log(b / a) / 0.2),
        _encoded(lambda distance, *sides: -distance / sides[0] / 0.1),
        _encoded(stretch=lambda a, b: math.log(b / a) / 0.2),
        "corner for centre: You measure from the corner of the box. Which point of it does the prior's centre meet?",
        _encoded(of=lambda box: (*box[:2], *_cxcywh(box)[2:])),
        "box read as centre and size: Your box holds two corners. Turn it into centre and size first.",
        _encoded(of=lambda box: box),
    ),
    draw=lambda args: [
        rectangle("a", "box", args["box"]),
        rectangle("b", "prior", to_corners(torch.tensor(args["prior_cxcywh"])).tolist()),
    ],
)


def greedy(iou: Tensor) -> list[int]:
    return _paired()(iou)


def _paired(rows: bool = True, columns: bool = True, least: float = 0.0, empty: bool = False) -> Callable:
    """Greedy over the matrix; what is not struck out stays, and `empty` takes pairs that do not overlap."""

    def twin(iou: Tensor) -> list[int]:
        free, found = iou.clone(), [-1] * len(iou)
        for _ in iou:
            one, prior = divmod(int(free.argmax()), iou.shape[1])
            if free[one, prior] < (0 if empty else max(least, 1e-9)):
                break
            found[one] = prior
            free[one] = -1 if rows else free[one]
            free[:, prior] = -1 if columns else free[:, prior]
        return found

    return twin


def _in_order(order: Callable[[Tensor], Iterable[int]]) -> Callable[[Tensor], list[int]]:
    """Each object in turn takes the best prior that is still free."""

    def twin(iou: Tensor) -> list[int]:
        free, found = iou.clone(), [-1] * len(iou)
        for one in order(iou):
            if free[one].max() > 0:
                found[one] = int(free[one].argmax())
                free[:, found[one]] = 0
        return found

    return twin


def _round_after_round(iou: Tensor) -> list[int]:
    """Columns are struck out until none is left, rows are not."""
    free, found = iou.clone(), [-1] * len(iou)
    while free.numel() and free.max() > 0:
        one, prior = divmod(int(free.argmax()), iou.shape[1])
        found[one] = prior
        free[:, prior] = 0
    return found


def _loser(beats: Callable[[Tensor, int, int], bool], second: bool = False, at_once: bool = True) -> Callable:
    """Each object takes its best prior; one that another object beats there has its second best, or nothing."""

    def twin(iou: Tensor) -> list[int]:
        found = iou.argmax(dim=1).tolist()
        taken = found.copy() if at_once else found
        for one, prior in enumerate(found.copy()):
            if any(taken[other] == prior and beats(iou[:, prior], other, one) for other in range(len(iou))):
                rest = iou[one].clone()
                rest[prior] = -1
                found[one] = int(rest.argmax()) if second and rest.max() > 0 else -1
        return found

    return twin


def _to_and_fro(iou: Tensor) -> list[int]:
    """As `_loser` with a second choice, but who loses that one too goes back to the first."""
    found = iou.argmax(dim=1).tolist()
    for one in range(len(iou)):
        for other in range(len(iou)):
            if other != one and found[other] == found[one] and iou[other, found[one]] > iou[one, found[one]]:
                rest = iou[one].clone()
                rest[found[one]] = -1
                found[one] = int(rest.argmax()) if rest.max() > 0 else -1
    return found


def _best_total(iou: Tensor) -> list[int]:
    """The pairs with the largest sum, of all that there are."""
    objects, priors = iou.shape
    overlap = pad(iou, (0, objects)).tolist()  # columns for those that go without
    choices = permutations(range(priors + objects), objects)
    best = max(choices, key=lambda one: sum(row[prior] for row, prior in zip(overlap, one, strict=True)))
    return [prior if row[prior] > 0 else -1 for row, prior in zip(overlap, best, strict=True)]


def _backwards(*axes: int) -> Callable[[Tensor], list[int]]:
    """Of equal overlaps the last one of an axis comes first."""

    def twin(iou: Tensor) -> list[int]:
        found = greedy(iou.flip(axes))
        if 1 in axes:
            found = [iou.shape[1] - 1 - prior if prior >= 0 else -1 for prior in found]
        return found[::-1] if 0 in axes else found

    return twin


GREEDY = Exercise(
    solution=greedy,
    cases=[
        (torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.0]]),),
        (torch.tensor([[0.4, 0.2, 0.3], [0.1, 0.0, 0.3]]),),
        (torch.tensor([[0.75, 0.4, 0.0, 0.0], [0.8, 0.5, 0.0, 0.0], [0.0, 0.0, 0.75, 0.2]]),),
        (torch.tensor([[0.9, 0.85, 0.1, 0.0], [0.95, 0.2, 0.6, 0.3], [0.1, 0.86, 0.45, 0.2]]),),
        (torch.tensor([[0.7, 0.1, 0.0], [0.8, 0.0, 0.0], [0.6, 0.65, 0.0]]),),
        (torch.tensor([[0.88, 0.3, 0.2, 0.1], [0.9, 0.82, 0.0, 0.4], [0.89, 0.81, 0.7, 0.0], [0.0, 0.0, 0.0, 0.0]]),),
        (torch.tensor([[0.5, 0.0, 0.2], [0.8, 0.9, 0.1], [0.0, 0.95, 0.3]]),),
        (torch.tensor([[0.7, 0.2], [0.6, 0.5], [0.4, 0.3]]),),
        (torch.tensor([[0.6, 0.6, 0.0], [0.6, 0.2, 0.3]]),),
        (torch.tensor([[0.5, 0.3], [0.5, 0.4]]),),
        (torch.zeros(0, 3),),
    ],
    mistakes=mistakes(
        "column kept: Two of your objects have the same prior. A prior that is taken is no longer free.",
        _paired(columns=False),
        "row kept: One of your objects takes prior after prior. It leaves the round once it has one.",
        _paired(rows=False),
        _round_after_round,
        "in order of objects: You serve the objects in the order in which they are listed. The best pair of the whole "
        "matrix comes first.",
        _in_order(lambda iou: range(len(iou))),
        "sorted once: You serve objects by their best overlap at the start. Once a prior is gone, another object may "
        "have the best pair.",
        _in_order(lambda iou: iou.amax(dim=1).argsort(descending=True, stable=True).tolist()),
        "threshold: You ask for an IoU of one half. The greedy step takes any overlap; the threshold comes after it.",
        _paired(least=0.5),
        "no overlap: You hand out a prior that does not overlap the object. Then it gets -1.",
        _paired(empty=True),
        "loser goes without: An object that loses its favourite prior gets none. Which of the others is free, and "
        "overlaps it best?",
        _loser(lambda overlap, other, one: other < one, at_once=False),
        _loser(lambda overlap, other, one: other > one),
        _loser(lambda overlap, other, one: overlap[other] > overlap[one]),
        "loser's second choice: The loser takes its second best prior, whoever has that one. It may be taken too.",
        _loser(lambda overlap, other, one: overlap[other] > overlap[one], second=True),
        _loser(lambda overlap, other, one: overlap[other] > overlap[one], second=True, at_once=False),
        _to_and_fro,
        "best total: You look for the pairs that add up to the most. The greedy rule takes the best pair first, even "
        "where that costs the others more.",
        _best_total,
        "ties: Of equal overlaps you take a later one. The first prior and the first object win.",
        _backwards(0),
        _backwards(1),
        _backwards(0, 1),
        "no objects: A picture may have no objects, and then the matrix has no rows. There is no largest number then.",
        _but(lambda iou: len(iou) == 0, _stop, greedy),
    ),
)


def smooth_l1_sum(differences: Tensor) -> float:
    return _smooth()(differences)


def _smooth(
    small: Callable[[Tensor], Tensor] = lambda size: size**2 / 2,
    large: Callable[[Tensor], Tensor] = lambda size: size - 0.5,
    border: float = 1.0,
    size: Callable[[Tensor], Tensor] = torch.abs,
    gather: Callable[[Tensor], Tensor] = torch.sum,
) -> Callable[[Tensor], Tensor | float]:
    """Smooth L1 with one of its parts exchanged; a number where `gather` leaves only one."""

    def twin(differences: Tensor) -> Tensor | float:
        sizes = size(differences)
        total = gather(torch.where(sizes < border, small(sizes), large(sizes)))
        return total.item() if total.ndim == 0 else total

    return twin


SMOOTH_L1_SUM = Exercise(
    solution=smooth_l1_sum,
    cases=[
        (torch.tensor([0.4]),),
        (torch.tensor([3.0]),),
        (torch.tensor([-2.0]),),
        (torch.tensor([0.8, -0.3]),),
        (torch.tensor([1.0, -1.0, 0.6, 6.0, -0.1]),),
        (torch.tensor([[0.2, -0.7, 1.5, 0.0], [-4.0, 0.9, 0.3, 2.5], [0.0, 1.1, -0.6, -0.2]]),),
    ],
    mistakes=mistakes(
        "parabola not halved: Your parabola is twice as steep as it should be. The two branches should meet at 1.",
        _smooth(small=lambda size: size**2),
        "line not lowered: Your straight branch lies too high. At a difference of 1 both branches give the same.",
        _smooth(large=lambda size: size),
        "both too high: Both of your branches lie too high. At a difference of 1 the loss is one half.",
        _smooth(lambda size: size**2, lambda size: size),
        "all straight: You use the straight branch everywhere. Small differences have a parabola.",
        _smooth(border=-1.0),
        _smooth(large=lambda size: size, border=-1.0),
        "all parabola: You use the parabola everywhere. From a difference of 1 on, the loss is a straight line.",
        _smooth(border=math.inf),
        _smooth(small=lambda size: size**2, border=math.inf),
        "branches exchanged: Your two branches have changed places. Which of them is for small differences?",
        _smooth(lambda size: size - 0.5, lambda size: size**2 / 2),
        "sign kept: A large negative difference goes the wrong way. Its size counts, and its sign does not.",
        _smooth(size=lambda differences: differences),
        lambda differences: torch.where(differences.abs() < 1, differences**2 / 2, differences - 0.5).sum().item(),
        "border elsewhere: You change from parabola to line at another place. The border is a difference of 1.",
        _smooth(border=0.5),
        "mean: You take a mean. The sum over all differences is wanted; what it is divided by comes later.",
        _smooth(gather=torch.mean),
        _smooth(gather=lambda cost: cost.sum(dim=-1).mean()),
        _smooth(gather=lambda cost: cost.sum() / 4),
        "not added up: The differences still have a loss each. One number is wanted, their sum.",
        _smooth(gather=lambda cost: cost),
        _smooth(gather=lambda cost: cost.sum(dim=-1) if cost.ndim > 1 else cost.sum()),
    ),
)


def batch_loss(costs: list[float], positives: list[int]) -> float:
    return sum(costs) / max(sum(positives), 1)


def _per_image(least: int) -> Callable[[list[float], list[int]], list[float]]:
    """Of every image what it costs for each of its positives; `least` 1 spares those without positives."""
    return lambda costs, positives: [
        cost / max(count, least) if count or least else math.nan for cost, count in zip(costs, positives, strict=True)
    ]


def _no_objects(costs: list[float], positives: list[int]) -> bool:
    return sum(positives) == 0


BATCH_LOSS = Exercise(
    solution=batch_loss,
    cases=[
        ([6.0], [2]),
        ([6.0, 2.0], [1, 3]),
        ([6.0, 0.0, 5.0], [2, 0, 5]),
        ([12.5, 3.25, 0.0, 41.0], [4, 1, 0, 30]),
        ([0.0, 0.0], [0, 0]),
    ],
    mistakes=mistakes(
        "mean over images: You divide in each image by its own positives, and then take a mean. The positives of the "
        "whole batch are one number.",
        lambda costs, positives: sum(_per_image(1)(costs, positives)) / len(costs),
        lambda costs, positives: sum(_per_image(0)(costs, positives)) / len(costs),
        lambda costs, positives: sum(_per_image(1)(costs, positives)) / max(sum(count > 0 for count in positives), 1),
        _but(
            lambda costs, positives: 0 in positives,
            _stop,
            lambda costs, positives: sum(_per_image(1)(costs, positives)) / len(costs),
        ),
        "sum over images: You divide in each image by its own positives, and then add up. The positives of the whole "
        "batch are one number.",
        lambda costs, positives: sum(_per_image(1)(costs, positives)),
        lambda costs, positives: sum(_per_image(0)(costs, positives)),
        _but(
            lambda costs, positives: 0 in positives,
            _stop,
            lambda costs, positives: sum(_per_image(1)(costs, positives)),
        ),
        "by images: You divide by the number of images. Which number of the batch says how much there was to learn?",
        lambda costs, positives: sum(costs) / len(costs),
        "by images with objects: You divide by the images that have an object. Count their positives, not them.",
        lambda costs, positives: sum(costs) / max(sum(count > 0 for count in positives), 1),
        "not divided: You add up and do not divide. A batch with more objects then counts more.",
        lambda costs, positives: sum(costs),
        "one added: You add 1 to the number of positives. It helps where there are none, and is wrong elsewhere.",
        lambda costs, positives: sum(costs) / (sum(positives) + 1),
        "no positives: A whole batch may be without positives. Then the loss is 0, and nothing is divided by nothing.",
        _but(_no_objects, lambda: math.nan, batch_loss),
        _but(_no_objects, _stop, batch_loss),
        "an image without: An image without objects adds nothing, and takes nothing away from the others.",
        _but(lambda costs, positives: 0 in positives, lambda: 0.0, batch_loss),
        "one for each empty image: You count an image without objects as if it had one.",
        lambda costs, positives: sum(costs) / sum(max(count, 1) for count in positives),
    ),
)


def hard_negatives(loss: Tensor, positives: Tensor, ratio: int) -> Tensor:
    return _mined()(loss, positives, ratio)


def _without_positives(loss: Tensor, positives: Tensor) -> Tensor:
    return loss.masked_fill(positives, -math.inf)


def _wanted(positives: Tensor, ratio: int) -> Tensor:
    return ratio * positives.sum(dim=1, keepdim=True)


def _order(values: Tensor) -> Tensor:
    """The numbers of the priors, largest value first, of equal ones in their order."""
    return values.argsort(dim=1, descending=True, stable=True)


def _mined(
    candidates: Callable[[Tensor, Tensor], Tensor] = _without_positives,
    count: Callable[[Tensor, int], Tensor] = _wanted,
    place: Callable[[Tensor], Tensor] = lambda values: _order(values).argsort(dim=1),
    mask: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda place, count, positives: (place < count) & ~positives,
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Hard negatives with one part exchanged: what is ranked, how many, the places, and what is made of them."""

    def twin(loss: Tensor, positives: Tensor, ratio: int) -> Tensor:
        return mask(place(candidates(loss, positives)), count(positives, ratio), positives)

    return twin


def _in_whole_batch(loss: Tensor, positives: Tensor, ratio: int) -> Tensor:
    rows = (one.reshape(1, -1) for one in (loss, positives))
    return hard_negatives(*rows, ratio).view_as(loss)


def _unchecked(place: Tensor, count: Tensor, positives: Tensor) -> Tensor:
    return place < count


def _losses(seed: int, images: int, priors: int, share: float) -> tuple[Tensor, Tensor]:
    """No two losses alike, and some positives."""
    generator = torch.Generator().manual_seed(seed)
    loss = (torch.randperm(images * priors, generator=generator) + 1).view(images, priors) / 8
    return loss, torch.rand(images, priors, generator=generator) < share


HARD_NEGATIVES = Exercise(
    solution=hard_negatives,
    cases=[
        (torch.tensor([[1.5, 0.1, 2.0, 0.4, 0.3]]), torch.tensor([[False, False, True, False, False]]), 1),
        (
            torch.tensor([[0.2, 0.9, 0.5, 0.1, 0.7, 0.3, 0.6, 1.1]]),
            torch.tensor([[False, True, False, False, False, False, False, False]]),
            3,
        ),
        (
            torch.tensor([[0.3, 1.2, 0.8, 0.1, 0.6, 0.2], [2.5, 3.0, 2.2, 2.8, 2.1, 2.6]]),
            torch.tensor([[True, False, False, True, False, False], [False, False, True, False, False, False]]),
            1,
        ),
        (
            torch.tensor([[0.3, 1.3, 0.8, 0.1], [0.5, 0.2, 0.9, 0.4]]),
            torch.tensor([[False, False, False, False], [False, False, False, True]]),
            2,
        ),
        (
            torch.tensor([[0.7, 0.2, 1.9, 0.4, 0.8], [0.6, 0.1, 0.3, 0.5, 1.4]]),
            torch.tensor([[True, False, True, False, True], [False, False, True, False, False]]),
            3,
        ),
        (*_losses(0, images=4, priors=40, share=0.1), 3),
    ],
    mistakes=mistakes(
        "positives compete: Positives are among your candidates and take places. They are in the loss already; only "
        "background priors are to be mined.",
        _mined(candidates=lambda loss, positives: loss, mask=_unchecked),
        _mined(candidates=lambda loss, positives: loss),
        "positives fill up: Where an image has fewer negatives than you ask for, positives fill the places. Take all "
        "its negatives and stop there.",
        _mined(mask=_unchecked),
        "smallest: You take the smallest losses. The hardest negatives are those that cost most.",
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, math.inf), mask=_unchecked),
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, math.inf)),
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, -1), mask=_unchecked),
        _mined(candidates=lambda loss, positives: -loss.masked_fill(positives, -1)),
        "sorted once: The first sort tells which prior comes first, second, and so on. What place does each prior "
        "have? That is the other way round.",
        _mined(place=_order),
        _mined(place=_order, mask=_unchecked),
        "all negatives: You mark every background prior. How many an image gets depends on its positives.",
        lambda loss, positives, ratio: ~positives,
        "same for all: You take equally many from every image, whatever it shows. Count its positives.",
        _mined(count=lambda positives, ratio: torch.full((len(positives), 1), ratio)),
        "ratio fixed: You take three for each positive, whatever `ratio` is.",
        _mined(count=lambda positives, ratio: _wanted(positives, 3)),
        "wrong axis: You rank the images against each other. The priors of one image compete, along the other axis.",
        _mined(place=lambda values: values.argsort(dim=0, descending=True, stable=True).argsort(dim=0)),
        "count of the batch: You ask every image for as many negatives as the whole batch should have.",
        _mined(count=lambda positives, ratio: ratio * positives.sum()),
        "whole batch: You let all images compete for the places. Each image has places of its own.",
        _in_whole_batch,
        "at least one: You mine in an image without positives. It has no places at all.",
        _mined(count=lambda positives, ratio: ratio * positives.sum(dim=1, keepdim=True).clamp(min=1)),
        _mined(count=lambda positives, ratio: _wanted(positives, ratio).clamp(min=1)),
        "one too many: You take one more than asked for. The first place has the number 0.",
        _mined(mask=lambda place, count, positives: (place <= count) & ~positives),
        "positives returned: You return the positives as well. Only the mined negatives are wanted.",
        _mined(mask=lambda place, count, positives: (place < count) | positives),
        "no mask: You return numbers of priors. A mask is wanted: true or false for each prior.",
        lambda loss, positives, ratio: _order(_without_positives(loss, positives))[
            :, : ratio * int(positives[0].sum())
        ],
    ),
)


def prior_bias(pi: float) -> float:
    return math.log(pi / (1 - pi))


PRIOR_BIAS = Exercise(
    solution=prior_bias,
    cases=[(0.5,), (0.01,), (0.1,), (0.25,), (0.001,), (0.9,)],
    mistakes=mistakes(
        "sign: Your bias has the wrong sign. Which sign has a logit whose sigmoid is below one half?",
        lambda pi: math.log((1 - pi) / pi),
        "one probability: You take the logarithm of one of the two probabilities. A logit sets one against the other.",
        lambda pi: math.log(pi),
        lambda pi: -math.log(pi),
        lambda pi: math.log(1 - pi),
        lambda pi: -math.log(1 - pi),
        "odds: These are odds. What a sigmoid takes is their logarithm.",
        lambda pi: pi / (1 - pi),
        lambda pi: -pi / (1 - pi),
        lambda pi: (1 - pi) / pi,
        lambda pi: -(1 - pi) / pi,
        "other base: Your logarithm is of another base. The sigmoid is made of powers of e.",
        lambda pi: math.log10(pi / (1 - pi)),
        lambda pi: math.log2(pi / (1 - pi)),
        "sigmoid: You take the sigmoid of the score. Go the other way: whose sigmoid is the score?",
        lambda pi: 1 / (1 + math.exp(-pi)),
        "score: This is the score itself. A bias is added to logits.",
        lambda pi: pi,
        "divided first: A division goes before a subtraction, and a score divided by itself is 1.",
        lambda pi: math.inf,
        lambda pi: -math.inf,
    ),
)


def initial_focal(priors: int, classes: int, positives: int, pi: float, alpha: float, gamma: float) -> float:
    return _initial()(priors, classes, positives, pi, alpha, gamma)


def _initial(
    noes: Callable[[int, int, int], int] = lambda priors, classes, positives: priors * classes - positives,
    yeses: Callable[[int], int] = lambda positives: positives,
    weights: Callable[[float], tuple[float, float]] = lambda alpha: (alpha, 1 - alpha),
    scores: Callable[[float], tuple[float, float]] = lambda pi: (pi, 1 - pi),
    focus: Callable[[float, float], float] = lambda p_t, gamma: (1 - p_t) ** gamma,
    base: float = math.e,
    divisor: Callable[[int, int, int], int] = lambda priors, classes, positives: max(positives, 1),
) -> Callable:
    """The first loss with one of its parts exchanged; pairs are for an answer that should be yes, and for a no."""

    def twin(priors: int, classes: int, positives: int, pi: float, alpha: float, gamma: float) -> float:
        counts = yeses(positives), noes(priors, classes, positives)
        parts = zip(counts, weights(alpha), scores(pi), strict=True)
        whole = sum(-count * weight * focus(p_t, gamma) * math.log(p_t) for count, weight, p_t in parts)
        return whole / math.log(base) / divisor(priors, classes, positives)

    return twin


def _no_positive(priors: int, classes: int, positives: int, *rest: float) -> bool:
    return positives == 0


INITIAL_FOCAL = Exercise(
    solution=initial_focal,
    cases=[
        (1, 1, 1, 0.5, 0.5, 0.0),
        (4, 1, 1, 0.5, 0.25, 0.0),
        (4, 3, 1, 0.5, 0.25, 2.0),
        (6, 2, 3, 0.5, 0.25, 2.0),
        (10, 20, 2, 0.1, 0.25, 1.0),
        (8732, 20, 3, 0.5, 0.25, 2.0),
        (8732, 20, 25, 0.01, 0.25, 2.0),
        (2408, 20, 0, 0.5, 0.25, 2.0),
    ],
    mistakes=mistakes(
        "background asked: You ask each prior one question too many. Background is none of the classes.",
        _initial(noes=lambda priors, classes, positives: priors * (classes + 1) - positives),
        "positives say one thing: A positive says yes to its own class. What does it say to the other classes?",
        _initial(noes=lambda priors, classes, positives: (priors - positives) * classes),
        "yes and no: You count every answer as a no, and those of the positives as a yes once more.",
        _initial(noes=lambda priors, classes, positives: priors * classes),
        "one question: You ask each prior a single question. There is one for each class.",
        _initial(noes=lambda priors, classes, positives: priors - positives),
        _initial(noes=lambda priors, classes, positives: priors),
        "mined: You take three noes for each positive. Focal loss mines nothing: all priors count.",
        _initial(noes=lambda priors, classes, positives: 3 * positives),
        "noes left out: You count the yeses alone. Most of the sum is the noes.",
        _initial(noes=lambda priors, classes, positives: 0),
        "yeses left out: You count the noes alone. Each positive has an answer that should be yes.",
        _initial(yeses=lambda positives: 0),
        "sum not divided: You return the sum. By what does the loss divide it?",
        _initial(divisor=lambda priors, classes, positives: 1),
        "mean: You divide by all priors or by all answers. The normaliser counts something rarer.",
        _initial(divisor=lambda priors, classes, positives: priors),
        _initial(divisor=lambda priors, classes, positives: priors * classes),
        "no weights: Your answers all weigh 1. Where is alpha?",
        _initial(weights=lambda alpha: (1, 1)),
        "one weight: Yes and no have the same weight in your sum. The two weights add up to 1.",
        _initial(weights=lambda alpha: (alpha, alpha)),
        "no weighs 1: A yes is weighed in your sum and a no is not. The two weights add up to 1.",
        _initial(weights=lambda alpha: (alpha, 1)),
        "weights exchanged: alpha is the weight of a yes. In your sum it weighs the noes.",
        _initial(weights=lambda alpha: (1 - alpha, alpha)),
        "one half: Your answers have a score of one half, whatever pi is.",
        _initial(scores=lambda pi: (0.5, 0.5)),
        "counts exchanged: Your yeses and noes have changed places. Only one answer of each positive is a yes.",
        lambda priors, classes, positives, *rest: _initial(
            yeses=lambda _: priors * classes - positives, noes=lambda *_: positives
        )(priors, classes, positives, *rest),
        "scores exchanged: Where yes is right the probability of the truth is pi, and where no is right 1 - pi. Yours "
        "have changed places.",
        _initial(scores=lambda pi: (1 - pi, pi)),
        "one score: You give every answer the same probability of the truth. Is a no as likely as a yes?",
        _initial(scores=lambda pi: (pi, pi)),
        "no focus: This is cross entropy. What has become of gamma?",
        _initial(focus=lambda p_t, gamma: 1),
        "focus on the right: You raise the probability of the truth itself to gamma, so that right answers count most.",
        _initial(focus=lambda p_t, gamma: p_t**gamma),
        "focus multiplied: You multiply with gamma. It is a power.",
        _initial(focus=lambda p_t, gamma: gamma * (1 - p_t)),
        "below zero: Your loss is negative. The logarithm of a probability is, so what does the formula begin with?",
        lambda *args: -initial_focal(*args),
        "logarithm: Your logarithm has a base of its own. The formula means the natural one.",
        _initial(base=2),
        _initial(base=10),
        "no positive: Without a positive the sum is still there, and is divided by 1: background teaches all the same.",
        _but(_no_positive, _stop, initial_focal),
        _but(_no_positive, lambda: 0.0, initial_focal),
        _but(_no_positive, lambda: math.inf, initial_focal),
        _but(_no_positive, lambda: math.nan, initial_focal),
    ),
)


def focal_term(logit: float, wanted: bool, alpha: float, gamma: float) -> float:
    return _term()(logit, wanted, alpha, gamma)


def _signed(logit: float, wanted: bool) -> float:
    return logit if wanted else -logit


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _term(
    weight: Callable[[float, bool], float] = lambda alpha, wanted: alpha if wanted else 1 - alpha,
    focus: Callable[[float, float], float] = lambda wrong, gamma: wrong**gamma,
    cost: Callable[[float], float] = lambda signed: math.log1p(math.exp(-signed)),
    focus_of: Callable[[float, bool], float] = _signed,
    cost_of: Callable[[float, bool], float] = _signed,
) -> Callable[[float, bool, float, float], float]:
    """One answer's focal loss with one of its parts exchanged; `focus_of` and `cost_of` give a logit its sign."""

    def twin(logit: float, wanted: bool, alpha: float, gamma: float) -> float:
        wrong = _sigmoid(-focus_of(logit, wanted))
        return weight(alpha, wanted) * focus(wrong, gamma) * cost(cost_of(logit, wanted))

    return twin


def _logit_as_it_is(logit: float, wanted: bool) -> float:
    return logit


def _badly_wrong(logit: float, wanted: bool, *rest: float) -> bool:
    return abs(logit) > 30 and (logit > 0) != wanted


def _probability_kept_away(least: float) -> Callable[[float, bool, float, float], float]:
    """One answer's focal loss, its probability never below `least`."""
    longest = math.log(1 / least - 1)

    def twin(logit: float, wanted: bool, alpha: float, gamma: float) -> float:
        return focal_term(max(-longest, min(longest, logit)), wanted, alpha, gamma)

    return twin


def _logit_as_probability(logarithm: Callable[[float], float]) -> Callable[[float, bool, float, float], float]:
    def twin(logit: float, wanted: bool, alpha: float, gamma: float) -> float:
        p_t, weight = (logit, alpha) if wanted else (1 - logit, 1 - alpha)
        return -weight * (1 - p_t) ** gamma * logarithm(p_t)

    return twin


FOCAL_TERM = Exercise(
    solution=focal_term,
    cases=[
        (0.0, True, 0.5, 0.0),
        (0.0, True, 0.25, 2.0),
        (2.0, True, 0.25, 1.0),
        (2.0, False, 0.25, 2.0),
        (-1.5, True, 0.9, 1.0),
        (1.0, False, 0.25, 5.0),
        (-6.0, True, 0.25, 2.0),
        (3.0, False, 0.75, 0.5),
        (100.0, False, 0.25, 2.0),
    ],
    mistakes=mistakes(
        "focus turned round: You raise p_t itself to gamma. Then the answers that are right count, and the wrong ones "
        "hardly.",
        _term(focus=lambda wrong, gamma: (1 - wrong) ** gamma),
        "p for p_t: Where no is right, the probability of the truth is 1 - p. It stands in the formula twice.",
        _term(focus_of=_logit_as_it_is, cost_of=_logit_as_it_is),
        _term(focus_of=_logit_as_it_is),
        _term(cost_of=_logit_as_it_is),
        "alpha for both: alpha weighs both kinds of answer in your loss. What weighs the noes?",
        _term(weight=lambda alpha, wanted: alpha),
        "alpha for no: alpha weighs the noes in your loss. It is the weight of a yes.",
        _term(weight=lambda alpha, wanted: 1 - alpha if wanted else alpha),
        "no alpha: Every answer weighs 1 in your loss. Which letter of the formula is missing?",
        _term(weight=lambda alpha, wanted: 1),
        "no without a weight: A yes has its weight, and a no has none. The weights of the two add up to 1.",
        _term(weight=lambda alpha, wanted: alpha if wanted else 1),
        "no minus: Your loss is negative. Each logarithm of a probability is, and the formula turns it round.",
        lambda *args: -focal_term(*args),
        "base of the logarithm: The base of your logarithm is another one. The formula takes the natural logarithm.",
        _term(cost=lambda signed: math.log1p(math.exp(-signed)) / math.log(10)),
        _term(cost=lambda signed: math.log1p(math.exp(-signed)) / math.log(2)),
        "times gamma: gamma is a factor in your loss. In the formula it is an exponent.",
        _term(focus=lambda wrong, gamma: wrong * gamma),
        "no gamma: This is weighted cross entropy. The factor with gamma is missing.",
        _term(focus=lambda wrong, gamma: 1),
        "always squared: You square, whatever gamma is.",
        _term(focus=lambda wrong, gamma: wrong**2),
        "no sigmoid: You take the logit for a probability. It may be any number: which function brings it between 0 "
        "and 1?",
        _logit_as_probability(math.log),
        _logit_as_probability(lambda p_t: math.log(p_t) if p_t > 0 else -math.inf if p_t == 0 else math.nan),
        "logarithm of 0: At a logit of 100 the sigmoid is rounded to 1, so that nothing is left for a no, and the "
        "logarithm of 0 is infinite. Go from the logit to the logarithm without a probability in between.",
        _but(_badly_wrong, _stop, focal_term),
        _but(_badly_wrong, lambda: math.inf, focal_term),
        _but(_badly_wrong, lambda: math.nan, focal_term),
        "kept away from 0: You keep the probability away from 0. There the loss stops to grow, and the worst answers "
        "have no slope by which they could be mended.",
        *map(_probability_kept_away, (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16)),
        *map(_probability_kept_away, (2**-23, 1.0132789611816406e-06)),  # 1 - 1e-7 and 1 - 1e-6 in float32
    ),
)

EXERCISES = {
    "voc_box": VOC_BOX,
    "iou": IOU,
    "iou_matrix": IOU_MATRIX,
    "mirror_boxes": MIRROR_BOXES,
    "crop_boxes": CROP_BOXES,
    "rotated_box": ROTATED_BOX,
    "crop_accepted": CROP_ACCEPTED,
    "map_size": MAP_SIZE,
    "receptive_field": RECEPTIVE_FIELD,
    "decimate": DECIMATE,
    "prior_count": PRIOR_COUNT,
    "nearest_cell": NEAREST_CELL,
    "prior_shapes": PRIOR_SHAPES,
    "head_channels": HEAD_CHANNELS,
    "rows_to_head": ROWS_TO_HEAD,
    "prior_address": PRIOR_ADDRESS,
    "encode_box": ENCODE_BOX,
    "greedy": GREEDY,
    "smooth_l1_sum": SMOOTH_L1_SUM,
    "batch_loss": BATCH_LOSS,
    "hard_negatives": HARD_NEGATIVES,
    "prior_bias": PRIOR_BIAS,
    "initial_focal": INITIAL_FOCAL,
    "focal_term": FOCAL_TERM,
}


def check(name: str, function: Callable) -> Verdict:
    """Try a function on the cases of an exercise, simple ones first, up to the first that fails.

    Args:
        name: the exercise.
        function: yours, not called: `check("iou", iou)`.

    Raises:
        ValueError: no exercise has that name.
        TypeError: that is no function.
    """
    if name not in EXERCISES:
        raise ValueError(f"no exercise is named {name!r}; the exercises are {', '.join(EXERCISES)}")
    if not callable(function):
        raise TypeError(f'the function itself is wanted, without a call: check("{name}", {name})')
    return grade(name, EXERCISES[name], function)
