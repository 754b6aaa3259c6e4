"""Chapter 2: what happens to boxes when a picture is mirrored, cut or turned.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.boxes import area, box_iou, to_cxcywh
from course_lib.exercises.twins import but, cxcywh, no_rows, random_boxes, stop
from course_lib.grading import Exercise, mistakes
from course_lib.verdicts import Box, Point, Shape, corners, rectangle, rectangles


def mirror_boxes(boxes):
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
        (random_boxes(5, seed=0),),
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
        but(lambda boxes: not len(boxes), stop, mirror_boxes),
        but(lambda boxes: not len(boxes), no_rows, mirror_boxes),
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


def _unmended(boxes: Tensor, window: Box) -> Tensor:
    """What each object shares with the window; where it shares nothing, corners that are the wrong way round."""
    window = torch.tensor(window)
    return torch.cat([torch.max(boxes[:, :2], window[:2]), torch.min(boxes[:, 2:], window[2:])], dim=1)


def _seen_unmended(boxes: Tensor, window: Box, least: float) -> Tensor:
    unmended = _unmended(boxes, window)
    seen = (unmended[:, 2:] - unmended[:, :2]).prod(dim=1)
    return (seen >= least * area(boxes)) & (seen > 0)


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


def crop_boxes(boxes, window, min_visibility):
    window = torch.tensor(window)
    low = torch.max(boxes[:, :2], window[:2])
    high = torch.min(boxes[:, 2:], window[2:])
    inside = (high - low).clamp(min=0).prod(dim=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    kept = torch.where((inside >= min_visibility * area) & (inside > 0))[0]
    size = window[2:] - window[:2]
    clipped = torch.cat([low, high], dim=1)
    shifted = clipped - window[:2].repeat(2)
    scaled = shifted / size.repeat(2)
    return scaled[kept], kept


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
        (random_boxes(8, seed=3), (0.3, 0.1, 0.8, 0.6), 0.3),
        (torch.tensor([[0.8, 0.1, 0.95, 0.5]]), WINDOW, 0.5),
        (torch.zeros(0, 4), WINDOW, 0.5),
        (torch.tensor([[0.9, 0.0, 1.0, 0.1], [0.3, 0.4, 0.45, 0.6]]), WINDOW, 0.5),
        (torch.tensor([[0.5, 0.5, 1.0, 0.75]]), WINDOW, 0.5),
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
        "two negative sides: You keep an object that lies outside both ways. The two sides of its overlap are "
        "negative, and their product is not. No side is shorter than 0.",
        *(
            _crop(keep=_seen_unmended, place=place)
            for place in (
                lambda boxes, window: _into(_clip(boxes, window), window),
                lambda boxes, window: _into(_unmended(boxes, window), window),
            )
        ),
        "more than asked: You keep an object of which more than `min_visibility` is seen. Exactly as much is enough.",
        _crop(keep=lambda boxes, window, least: _visible(boxes, window) > least),
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
        but(_nothing_kept, stop, crop_boxes),
        but(_nothing_kept, lambda: (no_rows(), no_rows()), crop_boxes),
        but(lambda boxes, window, least: not len(boxes), stop, crop_boxes),
        but(lambda boxes, window, least: not len(boxes), lambda: (no_rows(), no_rows()), crop_boxes),
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


def rotated_box(box, degrees, width, height):
    x0, y0, x1, y1 = box
    cx, cy = width / 2, height / 2
    t = math.radians(degrees)
    xs, ys = [], []
    for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
        dx, dy = x - cx, y - cy
        xs.append(cx + dx * math.cos(t) + dy * math.sin(t))
        ys.append(cy - dx * math.sin(t) + dy * math.cos(t))
    return min(xs), min(ys), max(xs), max(ys)


def _about(centre: Callable[[Box, int, int], Point]) -> Callable[[Box, float, int, int], Box]:
    return lambda box, degrees, width, height: _around(_turned(corners(box), degrees, centre(box, width, height)))


def _two_corners(box: Box, degrees: float, width: int, height: int) -> list[Point]:
    return _turned([box[:2], box[2:]], degrees, (width / 2, height / 2))


def _size_kept(box: Box, degrees: float, width: int, height: int) -> Box:
    cx, cy, w, h = cxcywh(box)
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
        _about(lambda box, width, height: cxcywh(box)[:2]),
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


def crop_accepted(objects, window, min_iou):
    overlap = box_iou(objects, torch.tensor([window]))
    return bool((overlap >= min_iou).any())


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
        (torch.tensor([[0.0, 0.0, 0.5, 0.25]]), HALF, 0.5),
        (torch.tensor([[0.0, 0.0, 0.5, 0.45], [0.0, 0.0, 0.5, 0.5]]), HALF, 0.6),
    ],
    mistakes=mistakes(
        "all instead of any: You ask it of every object. One that fits the window is enough.",
        lambda boxes, window, least: bool((_window_iou(boxes, window) >= least).all()),
        lambda boxes, window, least: len(boxes) > 0 and bool((_window_iou(boxes, window) >= least).all()),
        "mean: You compare the mean over the objects. One that fits is enough, whatever the others do.",
        lambda boxes, window, least: bool(_window_iou(boxes, window).mean() >= least),
        but(_no_objects, stop, lambda boxes, window, least: bool(_window_iou(boxes, window).mean() >= least)),
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
        "not reached: You ask for more than `min_iou`. An IoU of exactly that is enough.",
        lambda boxes, window, least: bool((_window_iou(boxes, window) > least).any()),
        "by the centre: You ask for an object's centre in the window. Here it is the IoU that counts.",
        lambda boxes, window, least: bool(_centre_inside(boxes, window).any()),
        "turned round: Yes and no have changed places.",
        lambda *args: not crop_accepted(*args),
        "first only: The first object decides for all of them: your loop returns in its first round.",
        _first_only,
        but(_no_objects, lambda: None, _first_only),
        but(_no_objects, stop, _first_only),
        "last only: The last object decides for all of them: each round of your loop forgets the one before.",
        lambda boxes, window, least: crop_accepted(boxes[-1:], window, least),
        "one answer each: You answer for each object. The window is taken or not: one True or False for all of them.",
        lambda boxes, window, least: _window_iou(boxes, window) >= least,
        "no objects: An image may have no object. Then nothing fits the window, and the answer is False.",
        but(_no_objects, stop, crop_accepted),
        but(_no_objects, lambda: True, crop_accepted),
    ),
    draw=lambda args: [rectangle("frame", "window", args["window"]), *rectangles("a", "object", args["objects"])],
)

EXERCISES = {
    "mirror_boxes": MIRROR_BOXES,
    "crop_boxes": CROP_BOXES,
    "rotated_box": ROTATED_BOX,
    "crop_accepted": CROP_ACCEPTED,
}
