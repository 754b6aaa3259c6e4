"""Does suppression go by overlap, and in each image by itself?

Detection is given pairs of boxes of one class, from apart to nearly one, and an image beside others that are full.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.boxes import box_iou, encode, to_corners
from course_lib.doctor import modes
from course_lib.doctor.bench import spoken
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.modes import detected, present
from course_lib.doctor.network import answers
from course_lib.doctor.patient import Patient

OVERLAPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of pairs of priors, as near as there are
NEAR, NEARLY_ONE = 0.05, 0.8
SURE, LESS_SURE = 12.0, 4.0  # logits of the two boxes


class Scene(NamedTuple):
    """Two boxes of one class, all else background.

    Attributes:
        overlap: their IoU; None where the second is alone.
        priors: that say them, the surer one first.
        boxes: corners.
    """

    overlap: float | None
    priors: tuple[int, ...]
    boxes: Float[Tensor, "N 4"]


def scenes(priors: Float[Tensor, "P 4"]) -> list[Scene]:
    """A scene for each overlap that there is; one of a box nearly like its neighbour, and one of that box alone."""
    corners = to_corners(priors)
    inside = ((corners >= 0) & (corners <= 1)).all(dim=1).nonzero().flatten()
    if len(inside) < 9:
        return []
    kept = inside[torch.linspace(0, len(inside) - 1, min(len(inside), 1500)).long()]
    overlaps, found = box_iou(corners[kept], corners[kept]), []
    for due in OVERLAPS:
        place = int((overlaps - due).abs().argmin())
        one, other = divmod(place, len(kept))
        if abs(float(overlaps[one, other]) - due) < (NEAR if due else 1e-6):
            pair = int(kept[one]), int(kept[other])
            found.append(Scene(float(overlaps[one, other]), pair, corners[list(pair)]))
    best = overlaps.masked_fill(overlaps > 0.95, 0.0)
    first, second = (int(kept[at]) for at in divmod(int(best.argmax()), len(kept)))
    aside = (1 - NEARLY_ONE) / (1 + NEARLY_ONE) * (corners[first, 2] - corners[first, 0])
    near = corners[first] + torch.tensor([-1.0, 0, -1, 0] if corners[first, 2] + aside > 1 else [1.0, 0, 1, 0]) * aside
    if not ((near >= 0) & (near <= 1)).all():
        return found
    both = torch.stack([corners[first], near])
    return [*found, Scene(NEARLY_ONE, (first, second), both), Scene(None, (second,), both[1:])]


def shown(scene: Scene, priors: Float[Tensor, "P 4"], classes: int) -> tuple[Tensor, Tensor]:
    """Offsets `[P, 4]` and logits `[P, C]` that say a scene."""
    labels = torch.zeros(1, len(priors), dtype=torch.int64)
    labels[0, list(scene.priors)] = 1
    logits, offsets = spoken(labels, classes, SURE)[0], torch.zeros(len(priors), 4)
    logits[scene.priors[-1]] = spoken(labels, classes, LESS_SURE)[0, scene.priors[-1]]
    which = list(scene.priors)
    offsets[which] = encode(scene.boxes, priors[which])
    return offsets, logits


def kept_of(patient: Patient, every: list[Scene]) -> list[list[bool]] | None:
    """Of each scene which boxes are detected; None where detection cannot be given outputs."""
    batch, priors = patient.few_images(), patient.priors.detach().float().cpu()
    logits = answers(patient)[1]
    images, classes = len(logits), logits.shape[2]
    found: list[list[bool]] = []
    for start in range(0, len(every), images):
        some = every[start : start + images]
        filled = some + [some[-1]] * (images - len(some))
        offsets, said = (
            torch.stack(parts) for parts in zip(*(shown(one, priors, classes) for one in filled), strict=True)
        )
        result = detected(patient, batch, offsets.to(patient.priors), said.to(patient.priors))
        if result is None:
            return None
        found += [present(scene.boxes, one) for scene, one in zip(some, result, strict=False)]
    return found


@check("batches", "model", "outputs", "priors", "detect")
def suppression_goes_by_overlap(patient: Patient) -> Iterator[Finding]:
    """Do two boxes of one class both stay where they hardly overlap, and one where they nearly coincide?"""
    if answers(patient)[1].shape[1] != len(patient.priors):
        return
    every = scenes(patient.priors.detach().float().cpu())
    found = kept_of(patient, every)
    if not found or not all(one[0] for one in found):  # what is not found at its place others tell
        return
    stays = {scene.overlap: one[1] for scene, one in zip(every, found, strict=True) if scene.overlap is not None}
    why = "of several objects of one class in a picture one is reported, and the others are lost to recall"
    cure = "non-maximum suppression of each class by its IoU, at about 0.45: nms.batched_nms"
    gone = [overlap for overlap, both in stays.items() if not both]
    if stays.get(0.0) is False:
        yield fault(
            "of two boxes of one class that do not touch, detection keeps one alone",
            why,
            f"{cure}; an IoU with 1 added to the sides is for pixels: of fractions it makes all boxes overlap",
            10,
        )
    elif any(both and overlap > min(gone, default=1.0) + NEAR for overlap, both in stays.items()):
        odd = max(overlap for overlap, both in stays.items() if both)
        yield warning(
            f"detection drops one of two boxes with an IoU of {min(gone):.2f}, and keeps both with {odd:.2f}",
            "what goes by something else than IoU drops neighbours and keeps copies",
            cure,
            10,
        )
    elif gone and min(gone) < LEAST_DROPPED:
        yield (warning if min(gone) < 0.15 else note)(
            f"detection drops one of two boxes of one class that overlap by an IoU of {min(gone):.2f}", why, cure, 10
        )
    elif stays.get(NEARLY_ONE):
        yield warning(
            f"detection keeps two boxes of one class that overlap by an IoU of {NEARLY_ONE}",
            "each object is reported several times, and all but one of these count as false",
            f"{cure}; a union of area + area, from which the intersection is not taken away, lets no IoU be above 0.5",
            10,
        )


LEAST_DROPPED = 0.25


@check("batches", "model", "outputs", "priors", "detect")
def detects_each_image_by_itself(patient: Patient) -> Iterator[Finding]:
    """Is what is detected in an image the same, whatever the others of its batch show?"""
    batch, (offsets, logits) = modes.scenes(patient)
    images, priors, classes = logits.shape
    if images < 2:
        return
    first = torch.full_like(logits, -12.0)
    first[..., 0] = 0.0
    places = torch.arange(priors, device=logits.device)
    first[0, places, 1 + places % (classes - 1)] = 1.0
    among_full = first.clone()
    among_full[1:, places, 1 + places % (classes - 1)] = 8.0
    found = [detected(patient, batch, torch.zeros_like(offsets), said) for said in (first, among_full)]
    if None in found or not len(found[0][0].scores):
        return
    alone, among = (len(one[0].scores) for one in found)
    if alone != among:
        yield fault(
            f"in one image {alone} boxes are detected beside empty images, and {among} beside images that are full of "
            "surer ones",
            "what is reported of a picture depends on its neighbours: mAP changes with the batch size and the order",
            "cut off, sort and suppress in each image by itself, one row of the batch after the other",
            10,
        )


CHECKS = (suppression_goes_by_overlap, detects_each_image_by_itself)
