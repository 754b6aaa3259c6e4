"""Checks of targets: which prior answers for which object, and what it is told to predict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from course_lib.boxes import area, box_iou, decode, encode, to_corners, to_cxcywh
from course_lib.doctor import overlap_forms
from course_lib.doctor.checks import check
from course_lib.doctor.drawing import Bars
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.prior_boxes import BATCHES, levels, shown
from course_lib.matching import match

IMAGES = 48
BEST = 16  # the priors that an object is given by rank: nine of a level in ATSS, up to ten in SimOTA
VARIANCES = torch.tensor([0.1, 0.1, 0.2, 0.2])
DECODED = 0.9  # an overlap of what offsets decode to and of an object that is no coincidence: rounding leaves 0.99


@dataclass(frozen=True)
class Matched:
    """The objects of one image, and what its priors are told.

    Attributes:
        boxes, labels: of the objects, without padding and without empty boxes.
        iou: of each object with each prior.
        told: the label of each prior.
        offsets: that each prior is to predict.
        owner: the number of the object that each prior answers for; -1 for none, or for one that is not there.
        described: the number of the object that the offsets of each positive prior decode to; -1 where they decode to
            none.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    iou: Float[Tensor, "N P"]
    told: Int[Tensor, " P"]
    offsets: Float[Tensor, "P 4"]
    owner: Int[Tensor, " P"]
    described: Int[Tensor, " P"]

    @property
    def positive(self) -> Tensor:
        return self.told > 0


def matched(patient: Patient) -> list[Matched]:
    """The first images as the patient's own matching sees them."""
    return patient.remembered("matched", lambda: list(each_matched(patient)))


@torch.no_grad()
def each_matched(patient: Patient) -> Iterator[Matched]:
    corners = to_corners(patient.priors.detach().float().cpu())
    images = 0
    for batch in patient.first_batches(BATCHES):
        read, told = patient.read(batch), patient.matches(batch)
        for boxes, labels, *rows in zip(
            read.boxes.cpu(), read.labels.cpu(), *(part.cpu() for part in told), strict=True
        ):
            slots = ((labels > 0) & (area(boxes) > 0)).nonzero().flatten()
            number = torch.full((len(labels) + 1,), -1)  # the last stands for -1
            number[slots] = torch.arange(len(slots))
            told_labels, offsets, index = rows
            outside = (index < 0) | (index >= len(labels))
            owner = number[index.long().masked_fill(outside, len(labels))]
            boxes, labels = boxes[slots].float(), labels[slots].long()
            iou, priors = box_iou(boxes, corners), patient.priors.detach().float().cpu()
            described = decoded_to(boxes, offsets.float(), priors).masked_fill(told_labels <= 0, -1)
            owner = nearer(owner, described, iou)
            yield Matched(boxes, labels, iou, told_labels.long(), offsets.float(), owner, described)
            images += 1
            if images == IMAGES:
                return


def decoded_to(
    boxes: Float[Tensor, "N 4"], offsets: Float[Tensor, "P 4"], priors: Float[Tensor, "P 4"]
) -> Int[Tensor, " P"]:
    """Which of an image's objects each prior's offsets decode to, by the usual variances or by none; -1 for none."""
    if not len(boxes):
        return torch.full((len(offsets),), -1)
    ways = [box_iou(decode(offsets, priors, variances), boxes).nan_to_num() for variances in ((0.1, 0.2), (1.0, 1.0))]
    overlap, number = max(ways, key=lambda iou: int((iou.amax(dim=1) > DECODED).sum())).max(dim=1)
    return number.masked_fill(overlap <= DECODED, -1)


def nearer(owner: Int[Tensor, " P"], described: Int[Tensor, " P"], iou: Float[Tensor, "N P"]) -> Int[Tensor, " P"]:
    """Which object each prior answers for: the one that its offsets describe, where it overlaps that one more.

    A matching that has brought its objects into another order gives the numbers of that order.
    """
    own = torch.arange(len(owner))
    other = (owner >= 0) & (described >= 0) & (owner != described)
    if not other.any():
        return owner
    more = iou[described.clamp(min=0), own] > iou[owner.clamp(min=0), own]
    return torch.where(other & more, described, owner)


@check("batches", "priors", "match")
def matched_labels(patient: Patient) -> Iterator[Finding]:
    """Is each positive prior told the label of its own object?"""
    batch = patient.first_batches(1)[0]
    read, told = patient.read(batch), patient.matches(batch)
    images, count = len(read.labels), len(patient.priors)
    shapes = [list(part.shape) for part in told]
    if shapes != [[images, count], [images, count, 4], [images, count]]:
        seen = f"matching gives {shapes} for {images} images and {count} priors"
        yield fault(seen, "labels and offsets go with the wrong priors", "give [B, P], [B, P, 4] and [B, P]", 6)
        return
    every = matched(patient)
    objects = sum(len(one.labels) for one in every)
    positives = sum(int(one.positive.sum()) for one in every)
    if objects and not positives:
        yield fault(
            f"no prior of {len(every)} images is positive, which hold {objects} objects",
            "the classes are taught background alone, and the boxes nothing",
            "compare the boxes' units and order with the priors', and look at the threshold",
            6,
        )
        return
    yield from labels_out_of_range(every, patient.classes)
    torn = list(labels_beside_boxes(every))
    yield from torn or labels_of_others(every)


def labels_out_of_range(every: list[Matched], classes: Sequence[str] | None) -> Iterator[Finding]:
    if not every:
        return
    low, high = min(int(one.told.min()) for one in every), max(int(one.told.max()) for one in every)
    if low < 0 or (classes is not None and high > len(classes)):
        most = "" if classes is None else f", and {len(classes)} classes need 0 to {len(classes)}"
        seen = f"labels of priors reach from {low} to {high}{most}"
        yield fault(
            seen, "a label outside is no column of the logits", "label = index of the class + 1, background 0", 6
        )


def labels_beside_boxes(every: list[Matched]) -> Iterator[Finding]:
    """Positives that are told the label of one object of their image, and the box of another."""
    wrong = known = strange = 0
    example = ""
    for one in every:
        which = (one.described >= 0).nonzero().flatten()
        overlap = box_iou(one.boxes, one.boxes) > DECODED  # one box may have two labels
        fits = overlap[one.described[which]] & (one.labels == one.told[which, None])
        there = (one.labels == one.told[which, None]).any(dim=1)
        others = ~fits.any(dim=1) & there
        known, wrong, strange = known + len(which), wrong + int(others.sum()), strange + int((~there).sum())
        if others.any() and not example:
            first = which[others][0]
            example = (
                f"label {int(one.told[first])} with the box of one of label {int(one.labels[one.described[first]])}"
            )
    # Labels that no object of the image has are no other object's: `labels_of_others` tells what these are.
    if wrong > max(0.01 * known, 4 * strange):
        yield fault(
            f"{wrong} of {known} positives are told the label of one object and the offsets of another of the same "
            f"image: {example}",
            "in every image with several classes an object's box is learned under another's name",
            "whatever sorts, filters or picks the boxes of an image does the same to its labels: one index for both",
            6,
        )


def labels_of_others(every: list[Matched]) -> Iterator[Finding]:
    owned = []
    for one in every:
        which = (one.owner >= 0).nonzero().flatten()
        # Some matchings keep the nearest object of priors on background too: these overlap it little.
        overlap = one.iou[one.owner[which], which]
        which = which[(one.told[which] > 0) | (overlap >= 0.5)]
        owned.append((one.told[which], one.labels[one.owner[which]]))
    told, true = (torch.cat(parts) for parts in zip(*owned, strict=True))
    unowned = sum(int((one.positive & (one.owner < 0)).sum()) for one in every)
    positives = sum(int(one.positive.sum()) for one in every)
    if unowned > 0.01 * positives:
        yield fault(
            f"{unowned} of {positives} positive priors belong to no object: to padding, to an empty box or to none",
            "what stands in a padded slot is learned as an object",
            "padded slots have label 0; keep them out of the matching, and gt_index with the labels",
            6,
        )
    wrong = (told != true) & (told > 0)
    if len(told) and wrong.float().mean() > 0.01:
        shift, size = (told - true)[wrong].unique(return_counts=True)
        usual = int(shift[size.argmax()])
        constant = size.max() > 0.9 * wrong.sum() and (abs(usual) == 1 or len(shift) == 1)
        by = f"by {usual:+d}: off by one" if constant else "by no constant number"
        yield fault(
            f"{int(wrong.sum())} of {len(told)} priors are told another label than their object's, {by}",
            "every class is learned under another's name, or the first as background",
            "add 1 for background exactly once, and take the labels by the same index as the boxes",
            6,
        )
    lost = (told == 0) & (true > 0)
    by_label = [int(label) for label in true.unique() if (told[true == label] == 0).float().mean() > 0.5]
    if len(told) and lost.float().mean() > 0.01 and 0 < len(by_label) < len(true.unique()):
        yield fault(
            f"the priors of every object with label {', '.join(map(str, by_label))} are told background",
            "these classes can never be found",
            "label = index of the class + 1: 0 is background's",
            6,
        )


@check("batches", "priors", "match")
def matched_objects(patient: Patient) -> Iterator[Finding]:
    """Does each object get the priors that overlap it, and at least one?"""
    every = [one for one in matched(patient) if len(one.labels)]
    positives = sum(int(one.positive.sum()) for one in every)
    if not positives:
        return
    few = every[:16]
    threshold, other = nearest_threshold(few, patient.priors.detach().float().cpu())
    share = other / max(1, sum(int(one.positive.sum()) for one in few))
    measure = share > 0.1 and overlap_forms.other_measure(
        [(one.boxes, one.positive) for one in few], patient.priors.detach().float().cpu()
    )
    if measure:
        yield fault(
            f"the positives are those of another measure than IoU: {measure}",
            "priors are told of objects that they hardly overlap, and background where they do",
            "IoU is the intersection over area + area - intersection, of corners in one unit; boxes.box_iou",
            6,
        )
        return
    ranked = share > 0.1 and by_rank(few)
    yield from objects_without(every, ranked)
    yield from little_overlapping(every, positives)
    every, positives = few, max(1, sum(int(one.positive.sum()) for one in few))
    seen = f"{other} of {positives} positives differ from those of a matching at IoU {threshold:.2f}, the nearest"
    cure = "each object its best free prior, the best pair first; then every prior above the threshold its best object"
    # Where the last of several objects wins a shared best prior, up to 2 % differ.
    if ranked:
        yield note(
            f"each object is given its best priors, {positives / objects_in(every):.1f} on average, whatever their "
            f"IoU: {seen}",
            "small objects weigh as much as large ones; priors that see mostly background are told that they see them",
            "nothing, where it is meant: top-k and ATSS match so",
            6,
        )
    elif share > 0.5:
        yield fault(seen, "priors are told of objects that they do not overlap, or background where they do", cure, 6)
    elif share > 0.1:
        yield warning(seen, "some priors are told of another object than the one they overlap most", cure, 6)
    elif threshold <= 0.25:
        yield warning(
            f"priors are positive from an IoU of {threshold:.2f} on: {positives / objects_in(every):.0f} for each "
            "object",
            "priors that see mostly background are told that they see the object",
            "0.5 is usual, and 0.4 where priors are few",
            6,
        )
    elif threshold >= 0.75 and positives < 1.5 * objects_in(every):
        alone = positives <= 1.02 * objects_in(every)
        how = "the one that is given by force alone: no IoU reaches the threshold" if alone else "too few"
        yield warning(
            f"only {positives / objects_in(every):.1f} priors are positive for each object, {how} (it is about "
            f"{threshold:.2f} or more)",
            "neighbours that overlap an object well are told that it is background",
            "0.5 is usual; or the union is too large: area + area from which the intersection is not taken away lets "
            "no IoU be above 0.5",
            6,
        )


def objects_in(every: list[Matched]) -> int:
    return sum(len(one.labels) for one in every)


def objects_without(every: list[Matched], ranked: bool) -> Iterator[Finding]:
    """Objects that no prior answers for, though one overlaps them.

    Where each object has its few best priors, one that stands before a larger one may lose all of them to it.
    """
    lost = reachable = 0
    overlaps = []
    for one in every:
        has = torch.zeros(len(one.labels) + 1, dtype=torch.bool)
        has[one.owner[one.positive]] = True
        best = one.iou.amax(dim=1)
        some = best > 0
        lost += int((some & ~has[:-1]).sum())
        reachable += int(some.sum())
        overlaps += best[some & ~has[:-1]].tolist()
    if not lost:
        return
    seen = (
        f"{lost} of {reachable} objects have no prior at all; the best they could have has an IoU of "
        f"{min(overlaps):.2f} to {max(overlaps):.2f}"
    )
    cure = "give each object its best free prior, whatever its IoU, the best pair first, after the threshold"
    why = "an object without a prior is taught as background"
    says = fault if lost > 0.3 * reachable else note if ranked and lost < 0.02 * reachable else warning
    yield says(seen, why, cure, 6)


def little_overlapping(every: list[Matched], positives: int) -> Iterator[Finding]:
    """Positives that hardly overlap their object, beside the one that each object is given by force.

    Where each object has its few best priors, such as nine, those of a small one overlap it little.
    """
    poor = zero = 0
    for one in every:
        which = (one.positive & (one.owner >= 0)).nonzero().flatten()
        overlap = one.iou[one.owner[which], which]
        far = (overlap < 0.2) & (rank_of(one)[one.owner[which], which] >= BEST)
        for number in range(len(one.labels)):
            poor += max(0, int(far[one.owner[which] == number].sum()) - 1)
        zero += int((overlap == 0).sum())
    if zero > 0.01 * positives:
        yield fault(
            f"{zero} of {positives} positives do not overlap their object at all",
            "the argmax of overlaps that are all 0 is prior 0: nothing there can be learned",
            "compare units and order of boxes and priors: pixels and fractions, corners and centres, x and y",
            6,
        )
    elif poor > 0.05 * positives:
        yield fault(
            f"{poor} of {positives} positives overlap their object by less than 0.2, beside the one of each object "
            "that is due to it by force",
            "priors that see background are told that they see the object",
            "compare IoU with the threshold per prior, and keep the index of prior and object apart",
            6,
        )


def rank_of(one: Matched) -> Int[Tensor, "N P"]:
    """Which of its priors, from the best on, each prior is to each object."""
    return one.iou.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def by_rank(every: list[Matched]) -> bool:
    """Whether the priors of each object are among its few best, none of them another's rather than its own."""
    odd = positives = 0
    for one in every:
        which = (one.positive & (one.owner >= 0)).nonzero().flatten()
        owner = one.owner[which]
        overlap, best = one.iou[owner, which], one.iou[:, which].amax(dim=0)
        few = (2 * torch.bincount(owner, minlength=len(one.labels))[owner]).clamp(min=BEST, max=4 * BEST)
        far = (rank_of(one)[owner, which] >= few) & (overlap < 0.5 * one.iou.amax(dim=1)[owner])
        # Two objects that overlap a prior about equally may have it either way.
        odd += int(((overlap == 0) | (best > overlap + 0.1) | far).sum())
        # The best prior of an object is positive, for this one or for another.
        odd += int((~one.positive[one.iou.argmax(dim=1)]).sum())
        positives += len(which)
    return odd <= 0.05 * positives


def nearest_threshold(every: list[Matched], priors: Float[Tensor, "P 4"]) -> tuple[float, int]:
    """The threshold at which the library's matching gives nearly the same owners, and how many still differ."""
    slots = max(len(one.labels) for one in every)
    boxes = torch.stack([F.pad(one.boxes, (0, 0, 0, slots - len(one.boxes))) for one in every])
    labels = torch.stack([F.pad(one.labels, (0, slots - len(one.labels))) for one in every])
    owner = torch.stack([torch.where(one.positive, one.owner, -1) for one in every])

    def differing(threshold: float) -> int:
        return int((match(boxes, labels, priors, threshold).gt_index != owner).sum())

    coarse = {threshold: differing(threshold) for threshold in (0.1 * step for step in range(1, 10))}
    best = min(coarse, key=coarse.__getitem__)
    fine = {threshold: differing(threshold) for threshold in (best - 0.05, best - 0.025, best + 0.025, best + 0.05)}
    counts = coarse | fine
    best = min(counts, key=counts.__getitem__)
    return best, counts[best]


@check("priors", "match")
def matching_is_fair(patient: Patient) -> Iterator[Finding]:
    """Do two objects that want the same prior each get one?"""
    priors = patient.priors.detach().float().cpu()
    inside = priors[(to_corners(priors) > 0).all(dim=1) & (to_corners(priors) < 1).all(dim=1)]
    if len(inside) < 9:
        return
    smallest = inside[:, 2:].prod(dim=1).sqrt().argsort()[:9]
    wanted = inside[smallest]
    # Objects so small in one prior's middle that they reach no threshold: only what is given by force is left.
    pair = torch.stack([torch.cat([wanted[:, :2], wanted[:, 2:] * share], dim=1) for share in (0.32, 0.28)], dim=1)
    labels = torch.ones(len(pair), 2, dtype=torch.int64)
    told = patient.match(to_corners(pair).to(patient.priors), labels.to(patient.priors.device), patient.priors)
    positives = (told.labels > 0).sum(dim=1)
    if (positives == 0).any():
        return  # nothing is given by force; `matched_objects` tells what that costs
    if int((positives < 2).sum()) > len(pair) / 2:
        # A note: torchvision and ssd.pytorch do so too, and train well; `matched_objects` tells where objects are lost.
        yield note(
            f"of two objects with the same best prior one gets none, in {int((positives < 2).sum())} of "
            f"{len(pair)} trials",
            "the last one takes the prior of the first, which is then taught as background: in crowds this is common",
            "give objects their priors one by one, the best pair first, and each prior once",
            6,
        )


@check("batches", "priors", "match")
def positives_per_level(patient: Patient) -> Iterator[Finding]:
    """How many priors are positive, in an image and on each level?"""
    every = [one for one in matched(patient) if len(one.labels)]
    if not every:
        return
    priors = patient.priors.detach().float().cpu()
    counts = torch.stack([one.positive for one in every]).float()  # [images, P]
    share = float(counts.mean())
    parts = levels(priors)
    table = [(float(priors[part, 2:].prod(dim=1).sqrt().mean()), int(counts[:, part].sum())) for part in parts]
    sides = tuple(f"priors of side {side:.2f}" for side, _ in table)
    picture = Bars(sides, tuple(float(number) for _, number in table), f"positive priors in {len(every)} images")
    # 0.1 % to 3 % of the priors on healthy data, most with few priors and large objects.
    if share > 0.25:
        yield fault(
            f"{share:.0%} of all priors are positive, {float(counts.sum(dim=1).mean()):.0f} in an image",
            "nearly everything is taught as an object, and mining has no background left",
            "look at the threshold and at what IoU is computed of",
            6,
            picture,
        )
    if empty := [f"{side:.2f}" for side, number in table if not number]:
        yield note(
            f"{len(empty)} of {len(parts)} levels have no positive in {len(every)} images: those with priors of side "
            f"{', '.join(empty)}",
            "a level without positives learns background alone: here no object has such a size",
            "fit the sides of the priors to the objects, or leave the level out",
            4,
            picture,
        )


@check("batches", "priors", "match")
def matched_offsets(patient: Patient) -> Iterator[Finding]:
    """Do the offsets that are to be learned decode to the object's box?"""
    priors = patient.priors.detach().float().cpu()
    given, boxes, own = [], [], []
    for one in matched(patient):
        which = (one.positive & (one.owner >= 0)).nonzero().flatten()
        given.append(one.offsets[which])
        boxes.append(one.boxes[one.owner[which]])
        own.append(priors[which])
    if not any(map(len, given)):
        return
    offsets, boxes, own = torch.cat(given), torch.cat(boxes), torch.cat(own)
    if bad := int((~offsets.isfinite()).any(dim=1).sum()):
        yield fault(
            f"the offsets of {bad} of {len(offsets)} positives are NaN or infinite",
            "one of them makes the loss NaN, and then every weight",
            "the logarithm of an empty or reversed box is infinite or NaN: drop such boxes; sizes of priors are "
            "above 0",
            6,
        )
        return
    true = encode(boxes, own)
    if same(offsets, true):
        return
    size = float(offsets.abs().median())
    seen = f"offsets of positives, median size {size:.3g}, where {float(true.abs().median()):.3g} is due"
    named, serious = other_encoding(offsets, true, boxes, own, decoded_by_course(patient))
    yield (fault if serious else warning)(
        f"{seen}: {named}",
        "what is learned decodes to another box than the object's, or weighs far more or less than the classes",
        "encode: centres by the prior's size and 0.1, log of sizes by 0.2, in float32; decode by the same numbers",
        6,
    )


def same(a: Float[Tensor, "N 4"], b: Float[Tensor, "N 4"]) -> bool:
    """Whether nearly all rows agree, to a twentieth of what is usual for an offset."""
    return float(((a - b).abs() < 0.05 + 0.01 * b.abs()).all(dim=1).float().mean()) > 0.98


def decoded_by_course(patient: Patient) -> bool:
    """Whether detections are made by this course's `decode`."""
    return patient.detect is not None and getattr(patient.detect, "__func__", None) is Patient.usual_detections


def other_encoding(
    offsets: Float[Tensor, "N 4"],
    true: Float[Tensor, "N 4"],
    boxes: Float[Tensor, "N 4"],
    priors: Float[Tensor, "N 4"],
    decoded: bool,
) -> tuple[str, bool]:
    """What offsets are that are not what they should be, in words, and whether nothing can decode them."""
    centred, plain = to_cxcywh(boxes), true * VARIANCES  # `plain` is without variances
    ratio = centred[:, 2:] / priors[:, 2:]
    known: list[tuple[str, Tensor]] = [
        ("they are the boxes' corners: the encoding is left out", boxes),
        ("they are the boxes' centres and sizes: the encoding is left out", centred),
        ("they are the difference to the prior, not divided by its size", centred - priors),
        ("they are the difference to the prior's corners, not encoded", boxes - to_corners(priors)),
        ("sizes are ratios without their logarithm", torch.cat([true[:, :2], ratio / 0.2], dim=1)),
        (
            "sizes are ratios without their logarithm, and variances are missing",
            torch.cat([plain[:, :2], ratio], dim=1),
        ),
        ("sizes are differences without a logarithm", torch.cat([true[:, :2], (ratio - 1) / 0.2], dim=1)),
        (
            "centres are not divided by the prior's size",
            torch.cat([(centred - priors)[:, :2] / 0.1, true[:, 2:]], dim=1),
        ),
    ]
    for words, values in known:
        scale = max(float(values.abs().mean()), 1e-6)
        if float((offsets - values).abs().mean()) < 0.02 * scale:
            return words, True
    for order in permutations(range(4)):
        if order != (0, 1, 2, 3) and any(same(offsets, values[:, order]) for values in (true, plain)):
            names = [("dx", "dy", "dw", "dh")[column] for column in order]
            return f"their columns are ({', '.join(names)})", decoded
    factor = (offsets * true).sum(dim=0) / true.square().sum(dim=0).clamp(min=1e-12)
    off = float((offsets - true).abs().max())
    if ((factor - 1).abs() < 0.02).all() and off < MUCH_ROUNDED:
        return f"they are right on average, and each is off, by up to {off:.2g}, as rounding does it", False
    if (
        float((offsets - factor * true).abs().mean()) < 0.02 * float((factor * true).abs().mean())
        and (factor > 0).all()
    ):
        variances = VARIANCES / factor
        missing = "variances are missing" if ((variances - 1).abs() < 0.02).all() else "the variances are others"
        return f"{missing}: {shown(variances, 3)} in place of 0.1, 0.1, 0.2, 0.2", decoded
    if float(offsets.abs().median()) > 20:
        return "they are as large as from boxes in pixels with priors in fractions", True
    shifted = match_to_any(offsets, true)
    return shifted or "they decode to other boxes than the objects'", True


MUCH_ROUNDED = 1.0  # of an offset: a tenth of the prior's side; those of another object are several off


def match_to_any(offsets: Float[Tensor, "N 4"], true: Float[Tensor, "N 4"]) -> str:
    """How many rows are right, where some are."""
    right = float(((offsets - true).abs() < 0.05 + 0.01 * true.abs()).all(dim=1).float().mean())
    return f"{1 - right:.0%} of them decode to another box than that of their own object" if right > 0.02 else ""


CHECKS = (matched_labels, matched_objects, matching_is_fair, positives_per_level, matched_offsets)
