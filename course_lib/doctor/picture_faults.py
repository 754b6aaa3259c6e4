"""Checks of the data's pictures: whether they can be read, show something, and have the size that is annotated."""

from collections.abc import Iterator, Sequence

import numpy as np

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import WHERE, Picture, as_rgb, pictures

CHAPTER = 1
PICTURE = "uint8 [H, W, 3], 0 to 255"


@check("pictures")
def pictures_can_be_read(patient: Patient) -> Iterator[Finding]:
    """Can a picture be read for each target?"""
    for part, where in WHERE.items():
        if patient.has(part):
            found, problems = pictures(patient, part)
            if problems:
                yield fault(
                    f"{where}{len(problems)} of {len(found) + len(problems)} pictures that were looked at cannot be "
                    f"read, the first: {str(problems[0]).partition(chr(10))[0]}",
                    "training ends at such a picture",
                    getattr(problems[0], "cure", "make data[index] give an image for every index"),
                    CHAPTER,
                )


@check("pictures")
def pixels_of_data(patient: Patient) -> Iterator[Finding]:
    """Are pictures what transforms and networks take them for: eight bits of red, green and blue?"""
    for part, where in WHERE.items():
        if patient.has(part):
            yield from of_pixels(where, [one.image for one in pictures(patient, part)[0]])


def of_pixels(where: str, images: Sequence[np.ndarray]) -> Iterator[Finding]:
    """What is wrong with the pixels of most pictures, or of some."""
    if not images:
        return
    floats = [image for image in images if image.dtype != np.uint8]
    if any(not np.isfinite(image).all() for image in floats):
        count = sum(not np.isfinite(image).all() for image in floats)
        seen = f"{where}{count} of {len(images)} pictures that were looked at have pixels that are NaN or infinite"
        yield fault(seen, "one such pixel makes the loss NaN", "find where they come from: a division by 0", CHAPTER)
    elif floats:
        low, high = min(float(one.min()) for one in floats), max(float(one.max()) for one in floats)
        dtype, wrong = floats[0].dtype, low < 0 or high <= 1.5 or high > 255
        yield (fault if wrong else note)(
            f"{where}pixels are {dtype} from {low:.3g} to {high:.3g}, where {PICTURE}, are due",
            "what normalises 0 to 255 divides them once more, and the network sees a picture that is almost constant",
            "leave the division to one place: give bytes here",
            CHAPTER,
        )
    shapes = [image.shape for image in images if image.ndim != 3 or image.shape[-1] != 3]
    if shapes:
        seen = f"{where}{len(shapes)} of {len(images)} pictures that were looked at have the shape {shapes[0]}"
        why = f"{PICTURE}, are due: rows are taken for channels, or the transform fails"
        yield fault(seen, why, "convert to RGB and put the channels last", CHAPTER)
    yield from of_constant(where, images)


def of_constant(where: str, images: Sequence[np.ndarray]) -> Iterator[Finding]:
    """Pictures on which there is nothing to see."""
    plain = [image for image in images if image.size and float(image.max()) == float(image.min())]
    if plain:
        says = fault if len(plain) > len(images) / 2 else warning
        yield says(
            f"{where}{len(plain)} of {len(images)} pictures that were looked at are of one value, "
            f"{float(plain[0].min()):g}, everywhere",
            "nothing can be found in them, and the network learns that objects look like nothing",
            "look at the files, and at what reads them",
            CHAPTER,
        )


@check("pictures")
def pictures_have_the_size_that_is_annotated(patient: Patient) -> Iterator[Finding]:
    """Has every picture the width and height that its target says?"""
    for part, where in WHERE.items():
        if patient.has(part):
            yield from of_sizes(where, [one for one in pictures(patient, part)[0] if as_rgb(one.image) is not None])


def of_sizes(where: str, found: Sequence[Picture]) -> Iterator[Finding]:
    """Pictures of another size than their targets say: turned, of other proportions, or made smaller."""
    turned, stretched, scaled = [], [], []
    for one in found:
        (height, width), said = as_rgb(one.image).shape[:2], tuple(map(int, one.target.size))
        if (width, height) == said:
            continue
        if (height, width) == said:
            turned.append(one)
        elif abs(width * said[1] / (height * said[0]) - 1) < 0.02:
            scaled.append(one)
        else:
            stretched.append(one)
    for those, says, what, why, cure in (
        (
            turned,
            warning,
            "width and height exchanged",
            "a camera stored it turned and says so in its EXIF data: one program turned it and another did not, "
            "so boxes lie beside their objects",
            "read it upright (PIL.ImageOps.exif_transpose) as the annotator saw it, and look at a box",
        ),
        (
            stretched,
            warning if not all(square(one) for one in stretched) else note,
            "other proportions than its target says",
            "boxes of another version of the picture, or divided by another size, lie beside their objects",
            "take the size from the picture that is read, and look at a box",
        ),
        (
            scaled,
            note,
            "another size than its target says, in the same proportions",
            "boxes in fractions do not mind; boxes in pixels would be of another version",
            "look at a box",
        ),
    ):
        if those:
            one = those[0]
            yield says(
                f"{where}{len(those)} of {len(found)} pictures that were looked at have {what}: {one.target.image_id} "
                f"is {one.image.shape} and its target says {tuple(one.target.size)}",
                why,
                cure,
                CHAPTER,
            )


def square(one: Picture) -> bool:
    """Whether a picture is a square, as one is that was stretched for the network already."""
    height, width = as_rgb(one.image).shape[:2]
    return height == width


CHECKS = (pictures_can_be_read, pixels_of_data, pictures_have_the_size_that_is_annotated)
