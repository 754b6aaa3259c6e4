"""In which form boxes are written, judged by all of them together: units, and what the four numbers are."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.boxes import to_corners
from course_lib.doctor import drawing
from course_lib.doctor.drawing import ImageAt
from course_lib.doctor.findings import Finding, fault, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import Objects, training_size
from course_lib.doctor.samples import objects as objects_of_data

FITS = 0.97  # of the boxes at least, where they are written in a form
DAMAGED = 0.9  # where fewer are right than that, not some boxes are wrong, but how all of them are written
FEW = 8  # boxes, fewer than which fit other layouts by chance
BEYOND = 0.01  # of the image's side that a corner may lie outside it: rounding, and a pixel counted from 1
USUAL_EXTENT = 0.2  # a data set all of whose objects lie at the upper left is none that anybody has made
CORNERS, FRACTIONS = "corners (xmin, ymin, xmax, ymax)", "fractions"


class Form(NamedTuple):
    """A way of writing boxes: the unit and what the numbers are."""

    unit: str
    layout: str

    def __str__(self) -> str:
        return f"{self.layout} in {self.unit}"


RIGHT = Form(FRACTIONS, CORNERS)
LARGE_UNITS = ("pixels", "percent", "thousandths")  # in which hardly a box ends before 1

# What makes corners, x first, of four numbers. The first that fits is taken: corners before all others.
LAYOUTS = {
    CORNERS: lambda boxes: boxes,
    "(x, y, width, height)": lambda boxes: torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
    "centre and size (x, y, width, height)": to_corners,
    "(xmin, xmax, ymin, ymax)": lambda boxes: boxes[:, [0, 2, 1, 3]],
    "corners with y before x (ymin, xmin, ymax, xmax)": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "reversed corners (xmax, ymax, xmin, ymin)": lambda boxes: boxes[:, [2, 3, 0, 1]],
}
ORDERED = (CORNERS, "corners with y before x (ymin, xmin, ymax, xmax)")  # whose third number is above the first
FILLED = 0.6  # of the images, that the boxes of any usual data reach over in the unit in which they are


def units(objects: Objects, side: int | None) -> dict[str, Tensor | float]:
    """What the numbers may have been multiplied with, by name: for each object width, height, width, height."""
    size = objects.sizes.repeat(1, 2)
    known: dict[str, Tensor | float] = {FRACTIONS: 1.0, "pixels": size}
    if side is not None:  # before percent: an image of 96 pixels is no rare one
        known[f"pixels of an image of {side} x {side}"] = float(side)
    known |= {"percent": 100.0, "thousandths": 1000.0}
    known["fractions that were divided by the image's size once more"] = 1 / size
    known["fractions of the other side (x of the height, y of the width)"] = size / size.flip(1)
    return known


def sound(corners: Float[Tensor, "N 4"], beyond: float = BEYOND) -> Bool[Tensor, " N"]:
    """Which boxes have an area and lie in the image, given as corners in fractions."""
    area = (corners[:, 2:] > corners[:, :2]).all(dim=1)
    return area & (corners >= -beyond).all(dim=1) & (corners <= 1 + beyond).all(dim=1)


def extent(corners: Float[Tensor, "N 4"]) -> float:
    """How far right and down the boxes reach, as a share of the image: about 1 for any usual data."""
    return float(corners[:, 2:].quantile(0.95, dim=0).mean()) if len(corners) else 0.0


def form_of(objects: Objects, side: int | None = None) -> Form | None:
    """The form in which nearly all boxes have an area, lie in their images and reach over much of them.

    Args:
        side: of the images that the network is given, pixels, where that may be the unit.

    Returns:
        None where no form fits: then the boxes are wrong in more than one way.
    """
    fitting: dict[Form, float] = {}
    boxes = objects.boxes
    # Of widths and heights hardly all are larger than the place where their box begins.
    ordered = len(boxes) >= FEW and float((boxes[:, 2:] > boxes[:, :2]).all(dim=1).double().mean()) >= FITS
    layouts = {name: LAYOUTS[name] for name in ORDERED} if ordered else LAYOUTS
    for (unit, factor), (layout, corners_of) in product(units(objects, side).items(), layouts.items()):
        corners = corners_of(objects.boxes) / factor
        enough = len(corners) >= (1 if layout == CORNERS else FEW)
        if enough and float(sound(corners).double().mean()) >= FITS and extent(corners) >= USUAL_EXTENT:
            fitting[Form(unit, layout)] = extent(corners)
    if RIGHT in fitting:
        return RIGHT
    if ordered and boxes.max() > 32 and max(fitting.values(), default=0.0) < FILLED:  # no picture is so small
        return Form("pixels", CORNERS)  # of images of another size than that which is told
    # Numbers that fit in several units are of the one in which the objects fill the images: percent would fit in
    # pixels as well, as small objects at the upper left.
    return next((form for form, reach in fitting.items() if reach >= 0.95 * max(fitting.values())), None)


def wrong_form(objects: Objects, side: int | None = None) -> Form | None:
    """The form in which all boxes are written instead of corners in fractions; None where they are those, or damaged.

    Corners in fractions that reach over a fiftieth of their images are wrong only if another form explains that.
    """
    if not len(objects) or not torch.isfinite(objects.boxes).all():
        return None
    right = sound(objects.boxes)
    if float(right.double().mean()) >= DAMAGED and extent(objects.boxes[right]) >= USUAL_EXTENT:
        return None
    found = form_of(objects, side)
    if found == RIGHT or (found and found.unit in LARGE_UNITS and float(right.double().mean()) > 1 - DAMAGED):
        return None  # fractions among pixels are not pixels too, but in two units: which is for `of_damage` to tell
    return found


def wrong_in_data(patient: Patient) -> bool:
    """Whether the data has all boxes in another form: what then happens to them on their way is not told again."""
    return patient.has("data") and wrong_form(objects_of_data(patient), training_size(patient)) is not None


def mended(objects: Objects, form: Form, side: int | None) -> Float[Tensor, "N 4"] | None:
    """The boxes as corners in fractions, read in a form; None where most are none even then."""
    corners = LAYOUTS[form.layout](objects.boxes) / units(objects, side)[form.unit]
    return corners if float(sound(corners).double().mean()) >= FITS else None


def of_form(
    objects: Objects, side: int | None, where: str, chapter: int, image_at: ImageAt | None = None
) -> Iterator[Finding]:
    """A fault where all boxes are written in another form than corners in fractions."""
    form = wrong_form(objects, side)
    if form is None:
        return
    low, high = float(objects.boxes.min()), float(objects.boxes.max())
    what = f"boxes are {form}" if form.layout != CORNERS else f"boxes are in {form.unit}"
    yield fault(
        f"{where}{what}, {low:.3g} to {high:.3g}, where {CORNERS} in fractions of the image, 0 to 1, are due",
        "no prior overlaps such a box as it should: objects fall to the wrong priors or to none, and offsets explode",
        f"make {CORNERS} of them and divide by the image's width and height, once, where the annotations are read",
        chapter,
        drawing.objects_in(objects, torch.ones(len(objects), dtype=torch.bool), image_at, mended(objects, form, side)),
    )


def kinds_of_damage(objects: Objects) -> dict[str, Bool[Tensor, " N"]]:
    """Which boxes are no boxes in their image, by what is wrong with each; a box has one fault, the first."""
    boxes, left = objects.boxes, torch.ones(len(objects), dtype=torch.bool)
    size = boxes[:, 2:] - boxes[:, :2]
    inside = boxes.clamp(0, 1)
    seen = ((inside[:, 2:] - inside[:, :2]) > 0).all(dim=1)
    known = torch.isfinite(boxes).all(dim=1)
    in_pixels = (boxes.amax(dim=1) > 1.5) & (size >= 1).all(dim=1) & sound(boxes / objects.sizes.repeat(1, 2))
    kinds = {
        "not numbers": ~known,
        "in pixels": known & in_pixels,
        "reversed": (size < 0).any(dim=1),
        "without area": (size == 0).any(dim=1),
        "outside": ~seen,
        "reaching out": ((boxes < -BEYOND) | (boxes > 1 + BEYOND)).any(dim=1),
    }
    for name, which in kinds.items():
        kinds[name] = which & left
        left = left & ~which
    return kinds


NO_AREA = "the offset's logarithm of a size of zero or less is infinite or no number: one such box makes the loss NaN"
DAMAGE = {
    "not numbers": ("NaN or infinite", "one such box makes the loss NaN", "find where they come from: a division by 0"),
    "in pixels": (
        "in pixels where the others are in fractions",
        "these objects overlap no prior, and their offsets are hundreds of times too large",
        "divide the boxes of these images by width and height too",
    ),
    "reversed": ("reversed, xmax < xmin or ymax < ymin", NO_AREA, "swap min and max, or leave these objects out"),
    "without area": ("without width or height", NO_AREA, "leave these objects out, or draw them again"),
    "outside": (
        "outside their image",
        "there is nothing to see where they lie, and the nearest prior learns it all the same",
        "leave them out: after a crop, drop the objects that have left the picture",
    ),
    "reaching out": (
        "reaching out of their image by more than a hundredth of it",
        "the network is to find edges that it cannot see",
        "clip the boxes to 0..1",
    ),
}


def of_counting(objects: Objects, where: str, chapter: int) -> Iterator[Finding]:
    """A warning where all boxes are a pixel further up and left than their images, or down and right.

    Annotators draw to the edges: of VOC2007's 30,638 objects 6,997 touch the right or lower edge, and as many the
    others. So where boxes begin a pixel before the image, and none reaches its end, a pixel has been taken off twice.
    """
    size = objects.sizes.repeat(1, 2)
    before = ((objects.boxes * size)[:, :2] + 1).abs().le(0.05).any(dim=1)
    after = ((objects.boxes - 1) * size)[:, 2:].sub(1).abs().le(0.05).any(dim=1)
    ends = (((1 - objects.boxes) * size)[:, 2:] < 0.5).any(dim=1)
    begins = ((objects.boxes * size)[:, :2] < 0.5).any(dim=1)
    for which, opposite, what, cure in (
        (before, ends, "begin a pixel before the image, and none reaches its end", "take 1 off once, or not at all"),
        (after, begins, "end a pixel after the image, and none reaches its beginning", "take 1 off xmin and ymin"),
    ):
        if int(which.sum()) >= FEW_COUNTED and not opposite.any():
            yield warning(
                f"{where}{objects.where(which)} {what}: boxes are off by one",
                "all boxes are beside their objects by a pixel of the original picture, which small ones feel",
                f"VOC's XML counts from 1, most other tools from 0: {cure}",
                chapter,
            )


FEW_COUNTED = 3


def mirrored_by_the_other_side(objects: Objects, which: Bool[Tensor, " N"]) -> str:
    """In words how boxes that leave their image were mirrored, if that explains each of them; empty if it does not.

    Where the height stands for the width, boxes are too far left in wide pictures and too far right in upright ones.
    """
    boxes, wide = objects.boxes[which], (objects.sizes[:, 0] / objects.sizes[:, 1])[which]
    for column, moved, words in (
        (0, 1 - 1 / wide, "mirrored by the image's width, and not by its height"),
        (1, 1 - wide, "turned over by the image's height, and not by its width"),
    ):
        back = boxes.clone()
        back[:, column::2] += moved[:, None]
        if len(boxes) >= FEW_COUNTED and (moved.abs() > BEYOND).all() and sound(back).all():
            return words
    return ""


def of_damage(objects: Objects, where: str, chapter: int, image_at: ImageAt | None = None) -> Iterator[Finding]:
    """What is wrong with some of the boxes, kind by kind."""
    kinds = kinds_of_damage(objects)
    left = kinds["outside"] | kinds["reaching out"]
    if words := mirrored_by_the_other_side(objects, left):
        yield fault(
            f"{where}{objects.where(left)} have boxes that leave their image, and all of them would lie in it if they "
            f"had been {words}",
            "mirrored boxes are beside their objects, in each picture by the difference of its sides",
            "a mirror takes x from the width: (width - xmax, ymin, width - xmin, ymax); height and width are the last "
            "two of a tensor's sizes, in this order",
            chapter,
            drawing.objects_in(objects, left, image_at),
        )
        kinds = {name: which for name, which in kinds.items() if name not in ("outside", "reaching out")}
    for name, which in kinds.items():
        if which.any():
            seen, why, cure = DAMAGE[name]
            # VOC's own boxes lie inside; a library that rounds leaves them by less than `BEYOND`.
            says = warning if name == "reaching out" else fault
            picture = drawing.objects_in(objects, which, image_at)
            yield says(f"{where}{objects.where(which)} have boxes {seen}", why, cure, chapter, picture)
