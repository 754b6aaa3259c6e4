"""Where boxes are: as finely as somebody has seen them, all over the picture, and on no border."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from course_lib.boxes import to_cxcywh
from course_lib.doctor import box_forms
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import WHERE, Objects, as_rgb, loop_batches, objects, objects_in, training_size

ENOUGH = 40  # boxes, fewer than which are not judged
GRIDS = 0.1, 0.05, 0.02, 0.01  # steps to which somebody may have rounded
HALF_A_PIXEL, FEW_PIXELS, NEARLY_ALL = 0.51, 3, 0.95
COARSE = 0.02  # of the picture, from which on it costs most objects much


def grid_of(found: Objects) -> float | None:
    """The step, in fractions, to which all corners, or all centres and sizes, are rounded; None where to none.

    A step of few pixels is as fine as they can be.
    """
    sides = found.sizes.repeat(1, 2)
    for step in GRIDS:
        if step * float(sides.median()) < FEW_PIXELS:
            return None
        for values in (found.boxes, to_cxcywh(found.boxes)):
            inside = (values > 0.002) & (values < 0.998)
            off = (values / step - (values / step).round()).abs() * step * sides
            if int(inside.sum()) >= ENOUGH and float((off[inside] < HALF_A_PIXEL).double().mean()) > NEARLY_ALL:
                return step
    return None


@check("data|held_out")
def boxes_are_written_finely(patient: Patient) -> Iterator[Finding]:
    """Are boxes written with as many digits as a pixel needs?"""
    for part in WHERE:
        if not patient.has(part) or len(found := objects(patient, part)) < ENOUGH:
            continue
        if box_forms.wrong_form(found, training_size(patient)) is None and (step := grid_of(found)):
            pixels = step * float(found.sizes.median())
            yield (warning if step >= COARSE else note)(
                f"{WHERE[part]}boxes are in steps of {step:g} of the picture, {pixels:.0f} of its pixels: they were "
                "rounded",
                "boxes are beside their objects by up to half a step at each side: small ones miss them",
                "write more digits: six behind the point, as YOLO's files have, or whole pixels",
                1,
            )


HALVES = {
    "left": lambda x, y: x < 0.5,
    "right": lambda x, y: x > 0.5,
    "upper": lambda x, y: y < 0.5,
    "lower": lambda x, y: y > 0.5,
}
# Of the data's objects a fifth and more are in a half, and of the batches' hardly one.
DUE, HARDLY = 0.2, 0.03


@check("batches")
def objects_are_all_over_the_picture(patient: Patient) -> Iterator[Finding]:
    """Are there objects in all parts of the batches' pictures?"""
    found = objects_in(loop_batches(patient).read)
    if len(found) < ENOUGH or box_forms.wrong_form(found, training_size(patient)) is not None:
        return
    known = centres(objects(patient)) if patient.has("data") and len(objects(patient)) else None
    empty = {}
    for name, inside in HALVES.items():
        count, due = int(inside(*centres(found)).sum()), 1.0 if known is None else share(inside(*known))
        if count <= (HARDLY * len(found) if known else 0) and due > DUE:
            empty[name] = count
    if empty:
        there = " and ".join(f"{count} in the {name} half" for name, count in empty.items())
        yield warning(
            f"of the centres of {len(found):,} objects in the batches are {there} of their pictures",
            "objects that are to be seen there are learned as background",
            "where pictures are put together or moved, move all of their boxes along, and add them up; draw some",
            9,
        )


def share(which: Bool[Tensor, " N"]) -> float:
    return float(which.double().mean())


def centres(found: Objects) -> tuple[Tensor, Tensor]:
    return to_cxcywh(found.boxes)[:, :2].unbind(dim=1)


BORDER = 0.04  # of a side, from which on it is one
ON_IT, MANY, SOME = 0.25, 0.04, 4  # of a box's area; of the boxes, and how many: of healthy ones none


def border_of(image: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"] | None:
    """Where a picture has a plain border of one colour; None where it has none."""
    plain = np.zeros(image.shape[:2], dtype=bool)
    pixels = image.astype(np.int16)
    for axis in (0, 1):
        lines = np.moveaxis(pixels, axis, 0)
        for side in (lines, lines[::-1]):
            same = (np.abs(side - side[0, 0]).max(axis=(1, 2)) <= 3).cumprod().astype(bool)
            if BORDER * len(side) <= same.sum() < 0.9 * len(side):
                rows = same if side is lines else same[::-1]
                plain |= rows[:, None] if axis == 0 else rows[None, :]
    return plain if plain.any() else None


def share_on(border: Bool[np.ndarray, "H W"], boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """What share of each box lies on a border."""
    height, width = border.shape
    corners = (boxes.clip(0, 1) * [width, height, width, height]).round().astype(int)
    return np.array([border[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].mean() for x0, y0, x1, y1 in corners])


@check("batches")
def boxes_keep_off_the_border(patient: Patient) -> Iterator[Finding]:
    """Where pictures have a plain border, such as padding: are the boxes inside it?"""
    batches = loop_batches(patient).read
    if box_forms.wrong_form(objects_in(batches), training_size(patient)) is not None:
        return
    shares, padded = [np.zeros(0)], 0
    for batch in batches:
        for image, boxes, labels in zip(batch.images, batch.boxes, batch.labels, strict=True):
            rgb = as_rgb(torch.as_tensor(image).cpu().numpy())
            own = boxes[labels != 0].double().cpu().numpy()
            border = border_of(rgb) if rgb is not None and len(own) else None
            own = own[np.isfinite(own).all(axis=1) & (own[:, 2:] < 1.5).all(axis=1) & (own[:, :2] > -0.5).all(axis=1)]
            if border is not None and len(own):
                padded += 1
                shares.append(np.nan_to_num(share_on(border, own)))
    on = np.concatenate(shares)
    if int((on > ON_IT).sum()) >= max(SOME, MANY * len(on)):
        yield fault(
            f"{int((on > ON_IT).sum())} of {len(on)} boxes in {padded} pictures of the batches lie on the plain border "
            "of their picture, by a quarter and more",
            "the picture was padded, or put on a larger canvas, and its boxes were not moved along",
            "add what is put to the left and on top to x and y, and divide by the new size",
            9,
        )


CHECKS = (objects_are_all_over_the_picture, boxes_keep_off_the_border)
