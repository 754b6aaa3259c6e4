"""The exercises: what is asked, right answers, and the mistakes that people make; `check` grades yours.

To add an exercise, write a `grading.Exercise` and give it a name in `EXERCISES`, at the end of this file.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Iterable, Sequence

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
        "last window kept: Rounding up makes a last window that begins beyond the map and its left padding. PyTorch "
        "drops it.",
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, ceil),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil))
            - ((windows - 1) * stride >= size + 2 * padding)
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
    draw=lambda args: [
        rectangle("frame", "with padding", (-args["padding"],) * 2 + (args["size"] + args["padding"],) * 2),
        rectangle("a", "map", (0, 0, args["size"], args["size"])),
        rectangle("b", "window", (-args["padding"],) * 2 + (args["kernel"] - args["padding"],) * 2),
    ],
)

Layers = list[tuple[int, int, int]]


def _fields(layers: Layers, reach: Callable = lambda kernel, dilation: (kernel - 1) * dilation) -> list[int]:
    """The receptive field after no layer, after the first, and so on."""
    fields, jump = [1], 1
    for kernel, stride, dilation in layers:
        fields.append(fields[-1] + reach(kernel, dilation) * jump)
        jump *= stride
    return fields


def receptive_field(layers: Layers) -> int:
    return _fields(layers)[-1]


def _jumps(jump: Callable[[list[int]], int]) -> Callable[[Layers], int]:
    """A receptive field; `jump` gives how far apart cells are, from the strides up to the layer, its own last."""

    def twin(layers: Layers) -> int:
        strides = [stride for _, stride, _ in layers]
        steps = enumerate(layers, start=1)
        return 1 + sum((kernel - 1) * dilation * jump(strides[:n]) for n, (kernel, _, dilation) in steps)

    return twin


def _from_the_wrong_end(layers: Layers) -> int:
    field = 1
    for kernel, stride, dilation in layers:
        field = (field - 1) * stride + (kernel - 1) * dilation + 1
    return field


RECEPTIVE_FIELD = Exercise(
    solution=receptive_field,
    cases=[
        ([(3, 1, 1)],),
        ([(3, 1, 1), (3, 1, 1)],),
        ([(2, 2, 1)],),
        ([(3, 1, 1), (2, 2, 1), (3, 1, 1)],),
        ([(3, 2, 1), (5, 3, 1), (3, 1, 1), (2, 2, 1)],),
        ([(3, 1, 6)],),
        ([(2, 2, 1), (3, 1, 6), (1, 1, 1)],),
        ([*[(3, 1, 1), (3, 1, 1), (2, 2, 1)] * 2, (3, 1, 1), (3, 1, 1), (3, 1, 1), (2, 2, 1)],),
        ([],),
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
        "strides added: You add the strides up. Halving twice makes quarters.",
        _jumps(lambda strides: 1 + sum(strides[:-1])),
        _jumps(lambda strides: sum(strides[:-1]) or 1),
        "dilation left out: You take all taps for neighbours. What does `dilation` do to them?",
        lambda layers: _fields(layers, lambda kernel, dilation: kernel - 1)[-1],
        "dilation of all taps: You multiply the kernel by the dilation. Three taps have two gaps between them.",
        lambda layers: _fields(layers, lambda kernel, dilation: kernel * dilation - 1)[-1],
        "whole kernel: You add the whole kernel. One of its cells has been in the field before.",
        lambda layers: _fields(layers, lambda kernel, dilation: kernel * dilation)[-1],
        "begun with nothing: You are one pixel short: before the first layer a cell sees itself.",
        lambda layers: receptive_field(layers) - 1,
        "from the wrong end: That formula goes from the map to the image, and your loop from the image to the map.",
        _from_the_wrong_end,
        "distance: You return how far apart two cells are. Asked is how much one of them sees.",
        lambda layers: math.prod(stride for _, stride, _ in layers),
        "no layers: A list may be empty. A pixel that passes no layer sees itself.",
        _but(lambda layers: not layers, _stop, receptive_field),
        _but(lambda layers: not layers, lambda: 0, receptive_field),
    ),
    draw=lambda args: [
        rectangle(
            "expected" if n == len(args["layers"]) else "a", f"{side}", (-side / 2, -side / 2, side / 2, side / 2)
        )
        for n, side in enumerate(_fields(args["layers"]))
    ],
)


def _filters(weight: Tensor, side: int) -> Tensor:
    return weight.reshape(len(weight), -1, side, side)


def decimate(weight: Tensor, side: int, units: int, taps: int) -> Tensor:
    return _filters(weight, side)[::units, :, ::taps, ::taps]


def _count(many: int, every: int) -> int:
    return len(range(0, many, every))


def _linear(out: int, channels: int, side: int) -> Tensor:
    """A weight of which every number says where it stands: 1000 a unit, 100 a channel, 10 a row, 1 a column."""
    digits = [
        torch.arange(n, dtype=torch.float32) * place
        for n, place in zip((out, channels, side, side), (1000, 100, 10, 1), strict=True)
    ]
    unit, channel, row, column = torch.meshgrid(*digits, indexing="ij")
    return (unit + channel + row + column).flatten(1)


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
        "channels last: You take the channels for the last of the three. PyTorch flattens a map channel by channel.",
        lambda weight, side, units, taps: weight.reshape(len(weight), side, side, -1).permute(0, 3, 1, 2)[
            ::units, :, ::taps, ::taps
        ],
        "rows and columns: Rows and columns of the filters have changed places.",
        lambda *args: decimate(*args).transpose(2, 3),
        "first taps: You keep taps that lie side by side, in one corner of the filter. They must span all of it.",
        lambda weight, side, units, taps: _filters(weight, side)[
            ::units, :, : _count(side, taps), : _count(side, taps)
        ],
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
    draw=lambda args: [
        rectangle("frame", "filter", (0, 0, args["side"], args["side"])),
        *(
            rectangle("b", "kept", (x, y, x + 1, y + 1))
            for y in range(0, args["side"], args["taps"])
            for x in range(0, args["side"], args["taps"])
        ),
    ],
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
        ((3,), (2,)),
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
    ),
    draw=lambda args: [
        rectangle("frame", "first map", (0, 0, args["maps"][0], args["maps"][0])),
        rectangle("a", "cell", (0, 0, 1, 1)),
    ],
)


def prior_centre(row: int, column: int, step: float, image_size: int) -> Point:
    return (column + 0.5) * step / image_size, (row + 0.5) * step / image_size


def _centre(along: Callable[[int, float, int], float]) -> Callable[[int, int, float, int], Point]:
    """A centre; `along` gives its place on one axis, from the cell's number, the step and the image's size."""
    return lambda row, column, step, size: (along(column, step, size), along(row, step, size))


PRIOR_CENTRE = Exercise(
    solution=prior_centre,
    cases=[
        (0, 0, 20, 40),
        (1, 1, 20, 40),
        (0, 3, 16, 160),
        (5, 2, 10, 80),
        (4, 30, 8, 300),
        (9, 9, 32, 300),
    ],
    mistakes=mistakes(
        "row and column exchanged: The row makes your x. Which way do you go when the column grows?",
        lambda row, column, step, size: prior_centre(column, row, step, size),
        "corner: You return the corner where the cell begins. Its centre lies half a cell further.",
        _centre(lambda cell, step, size: cell * step / size),
        "far corner: You return the corner where the cell ends. Its centre lies half a cell before.",
        _centre(lambda cell, step, size: (cell + 1) * step / size),
        "half a pixel: You add half a pixel. Half a cell is wanted, and a cell is `step` pixels wide.",
        _centre(lambda cell, step, size: (cell * step + 0.5) / size),
        "in pixels: Your centre is in pixels. Fractions of the image are wanted.",
        _centre(lambda cell, step, size: (cell + 0.5) * step),
        "in cells: You count in cells. How many pixels is a cell from the next?",
        _centre(lambda cell, step, size: cell + 0.5),
        _centre(lambda cell, step, size: (cell + 0.5) / size),
        "by the map: You divide by the number of cells. Steps need not fill the image: 38 of 8 pixels make 304, "
        "and not 300.",
        _centre(lambda cell, step, size: (cell + 0.5) / math.ceil(size / step)),
        _centre(lambda cell, step, size: (cell + 0.5) / math.floor(size / step)),
        _centre(lambda cell, step, size: (cell + 0.5) / round(size / step)),
        "cells from 1: You count cells from 1. The first row is row 0.",
        _centre(lambda cell, step, size: (cell - 0.5) * step / size),
        "cell clipped: You keep the centre inside of the image. The original does not: its map of ten cells ends "
        "beyond the edge.",
        _centre(lambda cell, step, size: min((cell + 0.5) * step / size, 1.0)),
    ),
    draw=lambda args: [
        rectangle("frame", "image", (0, 0, args["image_size"], args["image_size"])),
        rectangle(
            "a",
            "cell",
            [number * args["step"] for number in (args["column"], args["row"], args["column"] + 1, args["row"] + 1)],
        ),
    ],
)

Ratios = tuple[float, ...]
Sizes = list[Point]


def _shapes(
    larger: Callable[[float, float], float] = lambda side, next_side: math.sqrt(side * next_side),
    pair: Callable[[float, float], Sizes] = lambda side, root: [(side * root, side / root), (side / root, side * root)],
) -> Callable[[float, float, Ratios], Sizes]:
    """The shapes of a cell with one of their parts exchanged; `pair` gets the root of a ratio."""

    def twin(side: float, next_side: float, ratios: Ratios) -> Sizes:
        squares = [(one, one) for one in (side, larger(side, next_side))]
        return squares + [shape for ratio in ratios for shape in pair(side, math.sqrt(ratio))]

    return twin


def prior_shapes(side: float, next_side: float, ratios: Ratios) -> Sizes:
    return _shapes()(side, next_side, ratios)


def _reordered(order: Callable[[Sizes], Sizes]) -> Callable[[float, float, Ratios], Sizes]:
    return lambda *args: order(prior_shapes(*args))


PRIOR_SHAPES = Exercise(
    solution=prior_shapes,
    cases=[
        (40.0, 40.0, ()),
        (40.0, 90.0, ()),
        (20.0, 20.0, (4.0,)),
        (30.0, 60.0, (2.0,)),
        (60.0, 111.0, (2.0, 3.0)),
        (111.0, 162.0, (3.0, 1.5)),
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
    ),
    draw=lambda args: [
        rectangle("a", "side", (0, 0, args["side"], args["side"])),
        rectangle("b", "next side", (0, 0, args["next_side"], args["next_side"])),
    ],
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
    ),
    draw=lambda args: [rectangle("frame", "priors of one cell", (0, 0, args["per_cell"], 1))],
)


def flatten_head(head: Tensor, values: int) -> Tensor:
    return head.permute(0, 2, 3, 1).reshape(len(head), -1, values)


def _rows(order: str) -> Callable[[Tensor, int], Tensor]:
    """Rows from a head whose channels and places are brought into an order of k (prior), v (value), y and x."""

    def twin(head: Tensor, values: int) -> Tensor:
        split = head.unflatten(1, (-1, values))
        return split.permute(0, *(1 + "kvyx".index(axis) for axis in order)).reshape(len(head), -1, values)

    return twin


def _values_first(order: str) -> Callable[[Tensor, int], Tensor]:
    """The same for channels that are taken to be all first values, then all second ones."""

    def twin(head: Tensor, values: int) -> Tensor:
        split = head.unflatten(1, (values, -1)).transpose(1, 2)
        return split.permute(0, *(1 + "kvyx".index(axis) for axis in order)).reshape(len(head), -1, values)

    return twin


def _head(batch: int, priors: int, values: int, height: int, width: int) -> tuple[Tensor, int]:
    """A head's output, a different number in each place."""
    numbers = torch.arange(batch * priors * values * height * width, dtype=torch.float32)
    return numbers.reshape(batch, priors * values, height, width), values


FLATTEN_HEAD = Exercise(
    solution=flatten_head,
    cases=[
        _head(1, 1, 4, 1, 1),
        _head(1, 1, 4, 1, 2),
        _head(1, 2, 4, 2, 2),
        _head(2, 2, 3, 2, 3),
        _head(1, 3, 2, 3, 3),
        _head(3, 4, 21, 2, 2),
    ],
    mistakes=mistakes(
        "no permute: A reshape follows memory, where channels come before rows and columns. Your rows mix cells.",
        lambda head, values: head.reshape(len(head), -1, values),
        "values first: You take the channels for all first values, then all second ones. They are all values of the "
        "first prior, then all of the second.",
        _values_first("yxkv"),
        _values_first("kyxv"),
        "columns before rows: You go down the columns. Cells are counted along a row.",
        _rows("xykv"),
        "prior by prior: You go through all cells with the first prior, then with the second. A cell's priors stand "
        "together.",
        _rows("kyxv"),
        "pictures joined: The rows of all images stand in one list. Keep the axis of the batch, of one image too.",
        lambda head, values: flatten_head(head, values).reshape(-1, values),
        "not split: The numbers are in order, and in one long line. Each prior has a row of its own.",
        lambda head, values: flatten_head(head, values).flatten(1),
        "rows upright: Your values stand in the second axis and the priors in the third.",
        lambda head, values: flatten_head(head, values).transpose(1, 2),
        lambda head, values: head.reshape(len(head), values, -1),
        "cells kept apart: The map's rows and columns are still axes of their own. One axis for all priors is wanted.",
        lambda head, values: head.permute(0, 2, 3, 1).unflatten(3, (-1, values)),
        lambda head, values: head.permute(0, 2, 3, 1),
    ),
    draw=lambda args: [
        rectangle("frame", "map", (0, 0, args["head"].shape[3], args["head"].shape[2])),
        rectangle("a", "cell", (0, 0, 1, 1)),
    ],
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
) -> Callable[[int, Sides, Sides], Address]:
    """An address with one of its parts exchanged; `start` is 0 where a level's start is not subtracted."""

    def twin(index: int, maps: Sides, per_cell: Sides) -> Address:
        before, level = 0, 0
        while level < len(maps) - 1 and over(index - before, size(maps[level], per_cell[level])):
            before += size(maps[level], per_cell[level])
            level += 1
        return level, *within(index - start * before, maps[level], per_cell[level])

    return twin


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
        "start kept: The number still counts from the start of the first level. Take off what lies before this one.",
        _address(start=0),
        "edge of a level: The first prior of a level still goes to the level before. Numbers begin with 0, so where "
        "does a level of 18 end?",
        _address(over=lambda index, size: index > size),
        "one row a level: You take a level for one row of cells. It has as many rows as columns.",
        _address(size=lambda side, priors: side * priors),
        "levels of cells: You count a level's cells and leave its shapes out, so that levels begin too early.",
        _address(size=lambda side, priors: side * side),
        "numbers from 1: You count levels from 1. All four numbers begin with 0.",
        lambda *args: (prior_address(*args)[0] + 1, *prior_address(*args)[1:]),
        lambda *args: tuple(number + 1 for number in prior_address(*args)),
    ),
    draw=lambda args: [
        rectangle("frame", "first map", (0, 0, args["maps"][0], args["maps"][0])),
        rectangle("a", "cell", (0, 0, 1, 1)),
    ],
    returns=("level", "row", "column", "shape"),
)


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
        "no logarithm: Your ratio of sizes has no logarithm. A box like its prior should give zero.",
        _encoded(stretch=lambda a, b: a / b / 0.2),
        _encoded(stretch=lambda a, b: (a - b) / b / 0.2),
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


GREEDY = Exercise(
    solution=greedy,
    cases=[
        (torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.0]]),),
        (torch.tensor([[0.4, 0.2, 0.3], [0.1, 0.0, 0.3]]),),
        (torch.tensor([[0.75, 0.4, 0.0, 0.0], [0.8, 0.5, 0.0, 0.0], [0.0, 0.0, 0.75, 0.2]]),),
        (torch.tensor([[0.9, 0.85, 0.1, 0.0], [0.95, 0.2, 0.6, 0.3], [0.1, 0.86, 0.45, 0.2]]),),
        (torch.tensor([[0.7, 0.1, 0.0], [0.8, 0.0, 0.0], [0.6, 0.65, 0.0]]),),
        (torch.tensor([[0.88, 0.3, 0.2, 0.1], [0.9, 0.82, 0.0, 0.4], [0.89, 0.81, 0.7, 0.0], [0.0, 0.0, 0.0, 0.0]]),),
    ],
    mistakes=mistakes(
        "column kept: Two of your objects have the same prior. A prior that is taken is no longer free.",
        _paired(columns=False),
        "row kept: One of your objects takes prior after prior. It leaves the round once it has one.",
        _paired(rows=False),
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
    ),
    draw=lambda args: [
        rectangle("frame", "matrix", (0, 0, args["iou"].shape[1], args["iou"].shape[0])),
        rectangle("a", "first pair", (0, 0, 1, 1)),
    ],
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
    "prior_centre": PRIOR_CENTRE,
    "prior_shapes": PRIOR_SHAPES,
    "head_channels": HEAD_CHANNELS,
    "flatten_head": FLATTEN_HEAD,
    "prior_address": PRIOR_ADDRESS,
    "encode_box": ENCODE_BOX,
    "greedy": GREEDY,
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
