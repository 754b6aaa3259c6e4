"""Checks of priors: what they are, where they stand, and whether they fit the objects."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.boxes import area, to_corners
from course_lib.doctor.checks import check
from course_lib.doctor.drawing import Bars
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.priors import coverage

BATCHES = 3
MOST_LEVELS = 12
MOST_SHAPES = 100
BESIDE = 0.1  # of the image's side


def levels(priors: Float[Tensor, "P 4"]) -> list[slice]:
    """The runs of priors that share their shapes: one for each feature map; all in one where there is no such order."""
    _, shape = (priors[:, 2:] * 1e4).round().long().unique(dim=0, return_inverse=True)
    first = torch.full((int(shape.max()) + 1,), len(priors)).scatter_reduce(0, shape, torch.arange(len(priors)), "amin")
    known = set(first.tolist())
    starts = sorted(number for number in known if number - 1 not in known)
    if len(starts) > MOST_LEVELS:
        return [slice(0, len(priors))]
    return [slice(*ends) for ends in pairwise([*starts, len(priors)])]


def shown(values: Iterable[float] | Tensor, digits: int = 2) -> str:
    """Some numbers for a sentence."""
    return ", ".join(f"{float(value):.{digits}f}" for value in values)


@check("priors")
def priors_in_fractions(patient: Patient) -> Iterator[Finding]:
    """Are priors centre and size, in fractions of the image?"""
    priors = patient.priors.detach().float().cpu()
    why = "an object is matched and encoded by priors: none overlaps its objects, or each describes another box"
    if priors.ndim != 2 or priors.shape[1] != 4 or not len(priors):
        yield fault(f"priors are {list(priors.shape)}", why, "make them [P, 4]: one row of four numbers each", 4)
        return
    if bad := int((~priors.isfinite()).any(dim=1).sum()):
        yield fault(f"{bad} of {len(priors)} priors are NaN or infinite", why, "look for a division by zero", 4)
        return
    empty = int((priors[:, 2:] <= 0).any(dim=1).sum())
    # SSD300's centres reach 1.013, and its sides 1.24.
    largest = float(priors.abs().max())
    if largest > 4:
        yield fault(
            f"priors reach {largest:.0f}, as pixels do; fractions of the image are due",
            why,
            "divide them by the side of the image",
            4,
        )
    elif looks_like_corners(priors):
        yield fault(
            "priors are corners (xmin, ymin, xmax, ymax); centre and size are due: read as such they are "
            f"{float(priors[:, 2].mean()):.2f} wide on average",
            why,
            "keep them as (cx, cy, width, height), and call to_corners only where corners are needed",
            4,
        )
    elif empty:
        yield fault(f"{empty} of {len(priors)} priors have no width or no height", why, "mend the sizes", 4)
    elif outside := int(((priors[:, :2] < -0.1) | (priors[:, :2] > 1.1)).any(dim=1).sum()):
        yield fault(
            f"the centres of {outside} of {len(priors)} priors lie outside the image: they reach from "
            f"{shown(priors[:, :2].amin(dim=0))} to {shown(priors[:, :2].amax(dim=0))}",
            why,
            "a centre is (column + 0.5) / columns of its map; look at steps and image size",
            4,
        )


def looks_like_corners(priors: Float[Tensor, "P 4"]) -> bool:
    """Whether, as corners, all are boxes around the image's centre on average, and as centre and size they are not.

    Of SSD300's priors a tenth are larger than the distance of their centre from the left and from the top.
    """
    low, high = priors[:, :2], priors[:, 2:]
    off_as_centres, off_as_corners = (low.mean(dim=0) - 0.5).abs(), ((low + high).mean(dim=0) / 2 - 0.5).abs()
    ordered = float((high > low).all(dim=1).float().mean()) > 0.99
    return len(priors) > 1 and ordered and bool((off_as_corners < off_as_centres - 0.01).all())


@check("priors")
def priors_on_the_image(patient: Patient) -> Iterator[Finding]:
    """Do priors stand evenly on the image, each once and uncut?"""
    priors = patient.priors.detach().float().cpu()
    if (
        priors.ndim != 2
        or priors.shape[1] != 4
        or len(priors) < 9
        or priors.abs().max() > 4
        or looks_like_corners(priors)
    ):
        return
    distinct = len((priors * 1e5).round().unique(dim=0))
    if distinct < len(priors) * 0.99:
        yield warning(
            f"{len(priors) - distinct} of {len(priors)} priors are copies of others",
            "copies cost time, share one object's label, and add no shape that would fit others",
            "give each ratio once: r already stands for r and 1 / r",
            4,
        )
    corners = to_corners(priors)
    edge = ((corners.abs() < 1e-5) | ((corners - 1).abs() < 1e-5)).any(dim=1)
    beyond = (corners.amin(dim=1) < -1e-3) | (corners.amax(dim=1) > 1 + 1e-3)
    if not beyond.any() and edge.float().mean() > 0.05:
        yield warning(
            f"{int(edge.sum())} of {len(priors)} priors end exactly at the image's edge, and none reaches beyond it: "
            "they are clipped",
            "a clipped prior has another centre and shape than its neighbours, which one filter of the head cannot "
            "know; measured on VOC it cost about 1 mAP",
            "leave priors unclipped; clip what is detected",
            4,
        )
    shifted = [found for found in map(first_cell, (priors[part] for part in levels(priors))) if found is not None]
    if shifted and not 0.25 < sorted(shifted)[len(shifted) // 2] < 0.75:
        yield warning(
            f"the first priors' centres are {shown(shifted)} cells from the image's edge, where half a cell is due",
            "every prior stands half a cell beside what its cell sees: fewer overlap their objects enough",
            "a centre is (column + 0.5) * step",
            4,
        )

    yield from beside_the_middle(priors if beyond.any() else priors[~edge])
    yield from curiosities(priors)


def beside_the_middle(priors: Float[Tensor, "P 4"]) -> Iterator[Finding]:
    """Priors of one shape whose centres are not spread around the middle of the image.

    SSD300's are up to 0.034 beside it (10 * 32 and 5 * 64 pixels, where 300 are due), those of pools that round down
    0.02; priors that are clipped at an edge have lost their shape, and are not given here.
    """
    found = []
    for group in of_one_shape(priors):
        middle = group[:, :2].mean(dim=0)
        if float((middle - 0.5).abs().max()) > BESIDE:
            found.append((len(group), group[:, 2:].mean(dim=0), middle))
    if found:
        _, size, middle = max(found, key=lambda one: float((one[2] - 0.5).abs().max()))
        yield warning(
            f"{sum(count for count, _, _ in found)} of {len(priors)} priors do not lie around the middle of the image: "
            f"the mean centre of those of size {' x '.join(shown(size).split(', '))} is ({shown(middle)}), where "
            "(0.50, 0.50) is due",
            "a part of the image has no priors of this size, and what one cell of the map sees is described from "
            "another place",
            "the steps are for another image size or another map: step = image size / cells of the map",
            4,
        )


def of_one_shape(priors: Float[Tensor, "P 4"]) -> Iterator[Float[Tensor, "N 4"]]:
    """The priors of each width and height; none where nearly all differ."""
    for _ in range(MOST_SHAPES):
        if not len(priors):
            return
        same = (priors[:, 2:] - priors[0, 2:]).abs().amax(dim=1) < 5e-4
        yield priors[same]
        priors = priors[~same]


def curiosities(priors: Float[Tensor, "P 4"]) -> Iterator[Finding]:
    """What costs little: sides that are cut, two maps of one size, maps that end before the image does."""
    cut = (priors[:, 2:] == 1).any(dim=1)  # SSD300's last centres are at 1 as well
    if len(priors) * 0.5 > int(cut.sum()) > 1:
        yield note(
            f"{int(cut.sum())} priors have a side of exactly 1: sizes, and perhaps centres, are clamped",
            "those priors have another shape than their ratio says",
            "leave priors unclamped; clip what is detected",
            4,
        )
    parts = levels(priors)
    grids = [len((priors[part, :2] * 1e4).round().unique(dim=0)) for part in parts]
    if double := [number for number in range(1, len(grids)) if grids[number] == grids[number - 1] > 4]:
        yield note(
            f"levels {double[0] - 1} and {double[0]} both have {grids[double[0]]} cells",
            "two maps look at the image equally finely, and one size of objects is left without its map",
            "halve the map from level to level: look for a stride that is missing",
            4,
        )
    short = {}
    for number, part in enumerate(parts):
        centres = (priors[part, 0] * 1e4).round().unique() / 1e4
        if len(centres) > 2 and (end := float(centres[-1] + centres.diff().median() / 2)) < 0.975:
            short[number] = end
    if short:
        yield note(
            f"the cells of levels {', '.join(map(str, short))} end at {shown(short.values())} of the image",
            "objects at the right and lower edge are seen by fewer priors",
            "let pools round up (ceil_mode=True), or spread the centres evenly",
            4,
        )


def first_cell(priors: Float[Tensor, "P 4"]) -> float | None:
    """How many cells the first centre is from the left edge or the top, whichever is odder; None for few cells."""
    found = []
    for axis in (0, 1):
        centres = (priors[:, axis] * 1e4).round().unique() / 1e4
        if len(centres) < 3:
            return None
        spacing = float(centres.diff().median())
        # Centres of one step alone: those of several maps in one run are no grid.
        if float((centres.diff() - spacing).abs().max()) > 0.1 * spacing:
            return None
        found.append(float(centres[0]) / spacing)
    return max(found, key=lambda share: abs(share - 0.5))


@check("batches", "priors")
def objects_have_priors(patient: Patient) -> Iterator[Finding]:
    """Is there a prior for each object that overlaps it well enough?"""
    boxes, empty = objects_of(patient)
    priors = patient.priors.detach().float().cpu()
    if not len(boxes):
        seen = f"the first batches hold no object with an area, and {empty} without"
        yield fault(seen, "without objects everything is background", "look at what `batches` gives", 1)
        return
    if empty > 0.05 * (len(boxes) + empty):
        yield fault(
            f"{empty} of {len(boxes) + empty} boxes of the batches have no area: xmax is not beyond xmin, or ymax not "
            "beyond ymin",
            "an empty box overlaps no prior, and the logarithm of its size is infinite or NaN",
            "corners are due: (xmin, ymin, xmax, ymax), not (x, y, width, height) or another order",
            1,
        )
    reach, prior_reach = float(boxes.abs().max()), float(priors.abs().max())
    best = coverage(boxes, priors)
    why = "an object that no prior overlaps is given an arbitrary one, whose offsets cannot be learned"
    if reach > 4 >= prior_reach or reach <= 4 < prior_reach:
        unit = "boxes are in pixels" if reach > 4 else "priors are in pixels"
        yield fault(
            f"{unit}, the other in fractions: boxes reach {reach:.4g}, priors {prior_reach:.4g}, and the median IoU of "
            f"an object with its best prior is {float(best.median()):.3f}",
            why,
            "divide by the image's width and height where pixels come in",
            6,
        )
        return
    yield from little_overlap(boxes, best)


def objects_of(patient: Patient) -> tuple[Tensor, int]:
    """The objects of the first batches, and how many more have no area."""
    read = [patient.read(batch) for batch in patient.first_batches(BATCHES)]
    every = [batch.boxes[batch.labels > 0].detach().float().cpu() for batch in read]
    boxes = torch.cat([torch.zeros(0, 4), *every])
    sound = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return boxes[sound], int((~sound).sum())


def little_overlap(boxes: Float[Tensor, "N 4"], best: Float[Tensor, " N"]) -> Iterator[Finding]:
    """Judge how well the best prior of each object fits it.

    On healthy data the median is 0.55 to 0.7; small objects after a zoom-out are what has less than 0.3.
    """
    side = area(boxes).sqrt()
    parts = [(name, (side >= low) & (side < high)) for name, low, high in SIZES]
    medians = {name: (float(best[some].median()), int(some.sum())) for name, some in parts if some.any()}
    table = "; ".join(f"{name} {median:.2f} ({count})" for name, (median, count) in medians.items())
    picture = Bars(
        tuple(medians), tuple(iou for iou, _ in medians.values()), "median IoU of an object with its best prior"
    )
    poor, median = float((best < 0.3).float().mean()), float(best.median())
    seen = f"{poor:.0%} of {len(best)} objects overlap no prior by 0.3; the median best IoU by size: {table}"
    why = "such an object gets one prior, by force, that looks at much more or much less than the object"
    cure = "give the finest maps smaller priors, or the image more pixels; `priors.coverage` measures it"
    if median < 0.15:
        yield fault(seen, "hardly any prior looks at what it is to find", cure, 4, picture)
    elif median < 0.35 or any(
        middle < 0.2 and count > A_KIND * len(best) for name, (middle, count) in medians.items() if name != SIZES[0][0]
    ):
        yield warning(seen, why, cure, 4, picture)
    elif poor > 0.1:
        yield note(seen, why, cure, 4, picture)


A_KIND = 0.15  # of the objects; those that are tiny are few, and missed by many a good detector
SIZES = (
    ("tiny (side below 0.05)", 0, 0.05),
    ("small (below 0.15)", 0.05, 0.15),
    ("middle", 0.15, 0.4),
    ("large", 0.4, 99),
)


CHECKS = (priors_in_fractions, priors_on_the_image, objects_have_priors)
