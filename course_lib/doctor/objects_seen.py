"""Are boxes on their objects? Judged from pixels: an object differs from what surrounds it and ends where its box does.

Each box is measured in three ways in its picture: how far the colour inside is from that of a frame around it, how much
more edges there are inside than in that frame, and how much stronger edges are along its sides than beside them. The
same is measured of boxes of other pictures, put here: what chance gives. And of the boxes as they would be if a known
mistake had been made and were taken back: mirrored, x and y exchanged, of the next picture, and so on.

No single box can be judged so. A hundred can: in EmojiVOC, in VOC2007 and in photographs the mean of healthy boxes lies
.7 to 1.2 deviations above chance, and that of mirrored, exchanged or shifted ones at most .3. A mistake that was made
in some pictures alone is told by no mean: but its reading fits better in more of them than other pictures' boxes do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
import torch
from jaxtyping import Float

from course_lib.doctor import box_forms, drawing
from course_lib.doctor.checks import check
from course_lib.doctor.drawing import Picture
from course_lib.doctor.findings import Finding, fault, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import WHERE, as_rgb, loop_batches, objects, pictures, reading, training_size
from course_lib.doctor.samples import Picture as Sample
from course_lib.voc import Batch

SIDE = 96  # pixels at which pictures are looked at
LEAST = 4  # pixels of side below which a box says nothing
OTHERS = 5  # pictures whose boxes are put into each
ENOUGH = 40  # boxes, fewer than which are not judged
CERTAIN = 5  # standard errors by which another reading must be better: some twenty are tried

SMALLER, LARGER = np.array([0.5, 0.5, -0.5, -0.5]), np.array([-1, -1, 1, 1])

BY_HEIGHT = "moved by the difference of width and height (mirrored by the height)"
BY_WIDTH = "moved by the difference of height and width (turned over by the width)"

Boxes = Float[np.ndarray, "_ 4"]
MISTAKES: dict[str, Callable[[Boxes, float], Boxes]] = {
    "mirrored left to right": lambda b, _: np.stack([1 - b[:, 2], b[:, 1], 1 - b[:, 0], b[:, 3]], axis=1),
    "turned upside down": lambda b, _: np.stack([b[:, 0], 1 - b[:, 3], b[:, 2], 1 - b[:, 1]], axis=1),
    "turned by half": lambda b, _: 1 - b[:, [2, 3, 0, 1]],
    "with x and y exchanged": lambda b, _: b[:, [1, 0, 3, 2]],
    "turned by a quarter, clockwise": lambda b, _: np.stack([1 - b[:, 3], b[:, 0], 1 - b[:, 1], b[:, 2]], axis=1),
    "turned by a quarter, anticlockwise": lambda b, _: np.stack([b[:, 1], 1 - b[:, 2], b[:, 3], 1 - b[:, 0]], axis=1),
    "with x divided by the height and y by the width": lambda b, wide: b * [1 / wide, wide, 1 / wide, wide],
    "with y divided by the height, not by the width": lambda b, wide: b * [1, wide, 1, wide],
    "with x divided by the width, not by the height": lambda b, wide: b * [1 / wide, 1, 1 / wide, 1],
    BY_HEIGHT: lambda b, wide: b + np.array([1 - 1 / wide, 0, 1 - 1 / wide, 0]),
    BY_WIDTH: lambda b, wide: b + np.array([0, 1 - wide, 0, 1 - wide]),
    "moved by half their size to the upper left (centres for corners)": lambda b, _: b - half(b),
    "moved by half their size to the lower right (corners for centres)": lambda b, _: b + half(b),
    "half as far from the upper left": lambda b, _: b * 0.5,
    "0.6 times as far from the upper left": lambda b, _: b * 0.6,
    "0.75 times as far from the upper left": lambda b, _: b * 0.75,
    "1.33 times as far from the upper left": lambda b, _: b * 4 / 3,
    "1.67 times as far from the upper left": lambda b, _: b / 0.6,
    "twice as far from the upper left": lambda b, _: b * 2,
    "half as large": lambda b, _: b + half(b) * SMALLER,
    "twice as large": lambda b, _: b + half(b) * LARGER,
}


def moved(x: float, y: float) -> Callable[[Boxes, float], Boxes]:
    return lambda boxes, _: boxes + np.array([x, y, x, y])


STEPS = (-0.1, -0.05, 0, 0.05, 0.1)
MISTAKES |= {
    f"moved by {x:g} of the width and {y:g} of the height": moved(x, y) for x in STEPS for y in STEPS if x or y
}


def half(boxes: Boxes) -> Boxes:
    return np.tile((boxes[:, 2:] - boxes[:, :2]) / 2, 2)


class View:
    """A picture prepared for looking at many boxes in it: sums over every rectangle from the upper left corner."""

    def __init__(self, image: np.ndarray, wide: float | None = None) -> None:
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
        across, down = (np.abs(cv2.Sobel(lab, cv2.CV_32F, *way, ksize=3)).sum(axis=2) for way in ((1, 0), (0, 1)))
        planes = np.stack([*np.moveaxis(lab, 2, 0), across + down, across, down]).astype(np.float64)
        self.sums = np.pad(planes.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        self.wide = image.shape[1] / image.shape[0] if wide is None else wide

    def total(self, planes: int | slice, x0, y0, x1, y1) -> np.ndarray:
        s = self.sums[planes]
        return s[..., y1, x1] - s[..., y0, x1] - s[..., y1, x0] + s[..., y0, x0]

    def measure(self, boxes: Boxes) -> Float[np.ndarray, "_ 3"]:
        """Colour, edges and outline of each box against its surroundings; NaN where a box is too small or too large."""
        box = np.rint(boxes.clip(0, 1) * SIDE).astype(np.int64)
        size = np.maximum(box[:, 2:] - box[:, :2], 1)
        margin = np.tile(np.maximum(2, size // 4), 2)
        frame = (box + margin * [-1, -1, 1, 1]).clip(0, SIDE)
        area, whole = size.prod(axis=1), (frame[:, 2:] - frame[:, :2]).prod(axis=1)
        usable = (box[:, 2:] - box[:, :2] >= LEAST).all(axis=1) & (whole - area >= 0.1 * area)
        inside, around = (self.total(slice(4), *corners.T) for corners in (box, frame))
        around = (around - inside) / np.maximum(whole - area, 1)
        inside = inside / area
        colour = np.linalg.norm(inside[:3] - around[:3], axis=0)
        edges = np.log((inside[3].clip(0) + 1) / (around[3].clip(0) + 1))  # sums of boxes turned over are negative
        found = np.stack([colour, edges, self.outline(box, size)], axis=1)
        found[~usable] = np.nan
        return found

    def outline(self, box: np.ndarray, size: np.ndarray) -> Float[np.ndarray, " _"]:
        """How much stronger edges are at the sides of boxes than up to six pixels beside them, the mean of the sides.

        Sides at the picture's own edge say nothing.
        """
        x0, y0, x1, y1 = box.T
        sides = []
        for place, plane, across in ((x0, 4, True), (x1, 4, True), (y0, 5, False), (y1, 5, False)):
            at = place + np.arange(-6, 7)[:, None]
            there = (at >= 1) & (at <= SIDE - 2)
            at = at.clip(0, SIDE - 1)
            strip = self.total(plane, *((at, y0, at + 1, y1) if across else (x0, at, x1, at + 1)))
            rows = np.where(there, strip / size[:, 1 if across else 0], np.nan)
            near = np.nan_to_num(rows[5:8]).max(axis=0).clip(0)  # a reversed box sums to less than nothing
            beside = np.delete(rows, [5, 6, 7], axis=0)
            count = np.maximum(np.isfinite(beside).sum(axis=0), 1)
            side = np.log((near + 1) / (np.nansum(beside, axis=0).clip(0) / count + 1))
            sides.append(np.where((place >= 2) & (place <= SIDE - 3), side, 0))
        known = np.stack([(p >= 2) & (p <= SIDE - 3) for p in (x0, x1, y0, y1)]).sum(axis=0)
        return np.where(known, np.sum(sides, axis=0) / np.maximum(known, 1), np.nan)


Scores = dict[str, list[np.ndarray]]


def by_picture(views: Sequence[View], boxes: Sequence[Boxes], further: dict[str, Sequence[Boxes]]) -> Scores:
    """How much boxes differ from chance under each reading: "own" as they are, and each mistake taken back.

    Args:
        views, boxes: of the same pictures.
        further: more readings, by name.

    Returns:
        Of each picture one number for each box that can be measured: the mean of its three measures, in deviations
        from chance. "chance 1" and so on are the boxes of other pictures, put here.
    """
    found: dict[str, list] = {name: [] for name in ("own", *MISTAKES, *further)}
    found |= {f"chance {step}": [] for step in range(1, OTHERS + 1)}
    for place, view in enumerate(views):
        sets = {f"chance {step}": boxes[(place + 7 * step) % len(boxes)] for step in range(1, OTHERS + 1)}
        sets |= {"own": boxes[place]} | {n: f(boxes[place], view.wide) for n, f in MISTAKES.items()}
        sets |= {name: those[place] for name, those in further.items()}
        measured = view.measure(np.concatenate(list(sets.values())))
        ends = np.cumsum([len(those) for those in sets.values()])[:-1]
        for name, rows in zip(sets, np.split(measured, ends), strict=True):
            found[name].append(rows)
    chance = np.concatenate([rows for name, those in found.items() if name.startswith("chance") for rows in those])
    if not np.isfinite(chance).any(axis=0).all():
        return {}
    mean, deviation = np.nanmean(chance, axis=0), np.nanstd(chance, axis=0)
    if not (deviation > 1e-6).all():  # pictures on which there is nothing
        return {}

    def scored(pictures: list[np.ndarray]) -> list[np.ndarray]:
        z = ((np.concatenate(pictures) - mean) / deviation).clip(-3, 3)
        known = np.isfinite(z)
        measurable, whose = known[:, 0], np.repeat(np.arange(len(pictures)), [len(rows) for rows in pictures])
        score = np.where(known, z, 0)[measurable].sum(axis=1) / known[measurable].sum(axis=1)
        return np.split(score, np.searchsorted(whose[measurable], np.arange(1, len(pictures))))

    return {name: scored(those) for name, those in found.items()}


def readings(scores: Scores) -> dict[str, Float[np.ndarray, " _"]]:
    """The same of all pictures together, without what is by chance."""
    return {name: np.concatenate(those) for name, those in scores.items() if not name.startswith("chance")}


BEFORE, AFTER = "those listed for the image before", "those listed for the image after"
# Mistakes that are made in some pictures and not in others, as by a coin or by a file that was left out.
IN_SOME = (
    "mirrored left to right",
    "turned upside down",
    "turned by half",
    "with x and y exchanged",
    "turned by a quarter, clockwise",
    "turned by a quarter, anticlockwise",
    "with x divided by the height and y by the width",
    BY_HEIGHT,
    BY_WIDTH,
    BEFORE,
    AFTER,
)
# The mean gain of a reading beyond that of other pictures' boxes: in 40 to 170 healthy pictures of EmojiVOC, of VOC2007
# and of photographs at most .05 and 1.7 standard errors; where a third is mirrored .07 to .4, from 64 pictures on .12.
LEAST_GAIN = 0.08
SUSPECTED, SURE_OF_SOME = 2.0, 3.0  # standard errors: for looking at more pictures, and for saying so
FEWEST = 24  # pictures


def in_some(scores: Scores) -> tuple[str, float, float] | None:
    """The mistake that seems to have been made in some of the pictures, by how many standard errors, and in what share.

    In a picture where it was made its reading fits far better than its own boxes; elsewhere it gains no more than the
    boxes of other pictures do, by chance.
    """

    def means(name: str) -> np.ndarray:
        return np.array([rows.mean() if len(rows) else np.nan for rows in scores[name]])

    if not scores:
        return None
    own, best = means("own"), None
    with np.errstate(invalid="ignore"):
        chance = np.stack([(means(n) - own).clip(0) for n in scores if n.startswith("chance")])
        usual = np.where(np.isfinite(chance).all(axis=0), chance.mean(axis=0), np.nan)
        for name in IN_SOME:
            if name not in scores:
                continue
            gain = (means(name) - own).clip(0)
            more = (gain - usual)[np.isfinite(gain - usual)]
            if len(more) < FEWEST or more.mean() < LEAST_GAIN:
                continue
            errors = float(more.mean() / max(more.std() / len(more) ** 0.5, 1e-9))
            if errors > SUSPECTED and (best is None or errors > best[1]):
                best = name, errors, float((gain > 0.5).mean())
    return best


def of_some(
    shown: "Shown", scores: Scores, where: str, chapter: int, more: Callable[[], "Shown | None"]
) -> Iterator[Finding]:
    """A fault where boxes of some pictures would be on objects if a mistake were taken back.

    Args:
        more: gives more pictures to look at where these make it suspect.
    """
    found = in_some(scores)
    if found is None:
        return
    shown = more() or shown
    scores = shown.scores() or scores
    again = in_some(scores)
    if again is None or again[0] != found[0] or again[1] < SURE_OF_SOME:
        return
    name, errors, share = again
    yield fault(
        f"{where}boxes of about {share:.0%} of {len(scores['own'])} pictures are not on their objects, and would be "
        f"{name}{shown.whose(name, scores)}: that fits better there than boxes of other pictures do, by {errors:.1f} "
        "standard errors",
        "in these pictures boxes are beside their objects, and what is learned from the others is unlearned",
        "what was done to a part of the pictures (mirrored, turned, replaced) is to be done to their boxes too: draw "
        "some of them",
        chapter,
        shown.drawn(name),
    )


def verdict(scores: dict[str, np.ndarray]) -> tuple[str, float, float] | None:
    """The reading under which boxes are on objects where their own is none: its name, its mean and that of their own.

    The name is "" where boxes are on nothing under any reading. None where all is well, or where they are too few.
    """
    own = scores.get("own", np.zeros(0))
    if len(own) < ENOUGH:
        return None
    best = None
    for name, values in scores.items():
        if name == "own" or len(values) < ENOUGH / 2:
            continue
        error = (own.var() / len(own) + values.var() / len(values)) ** 0.5
        better = values.mean() > own.mean() + CERTAIN * error and values.mean() > 2 * own.mean()
        if better and (best is None or values.mean() > best[1]):
            best = name, float(values.mean()), float(own.mean())
    if best is None and len(own) >= 2 * ENOUGH and own.mean() < 2 * own.std() / len(own) ** 0.5:
        return "", 0.0, float(own.mean())
    return best


def of_readings(shown: "Shown", scores: Scores, where: str, chapter: int) -> Iterator[Finding]:
    """A fault where boxes would be on objects if a mistake were taken back; a warning where they are on nothing."""
    every = readings(scores)
    found = verdict(every)
    if found is None:
        return
    name, there, here = found
    measured = f"{len(every['own'])} boxes differ from their surroundings by {here:.2f} deviations of boxes at random"
    why = "boxes are beside their objects: what is learned is the mean place of all boxes, and no image helps"
    if name:
        yield fault(
            f"{where}boxes are not on their objects, and would be {name}{shown.whose(name, scores)}: {measured}, "
            f"and by {there:.2f} then",
            why,
            "follow one box from where it is annotated to here, drawn into its picture",
            chapter,
            shown.drawn(name),
        )
    else:
        yield warning(
            f"{where}boxes are on nothing that can be told from its surroundings: {measured}",
            f"if they belong to other pictures or places, {why}",
            "look at some pictures with their boxes drawn",
            chapter,
            shown.drawn(name),
        )


def since(scores: Scores, name: str) -> int:
    """The place of the picture from which on a reading fits better than the pictures' own boxes do, in all."""
    gains = [
        a.mean() - b.mean() if len(a) and len(b) else 0.0 for a, b in zip(scores[name], scores["own"], strict=True)
    ]
    return int(np.cumsum(gains[::-1])[::-1].argmax())


def drawn(
    name: str, images: Sequence[np.ndarray], boxes: Sequence[Boxes], further: dict[str, Sequence[Boxes]]
) -> Picture | None:
    """The first image that has boxes, with these and those of a reading."""
    place = next(number for number, those in enumerate(boxes) if len(those))
    image, own = images[place], boxes[place]
    right = MISTAKES[name](own, image.shape[1] / image.shape[0]) if name in MISTAKES else None
    right = further[name][place] if name in further else right
    none = torch.zeros(len(own), dtype=torch.int64)
    return drawing.boxes_in(image, torch.from_numpy(own), none, None if right is None else torch.from_numpy(right))


@check("pictures")
def boxes_are_on_objects(patient: Patient) -> Iterator[Finding]:
    """Do boxes lie where something differs from its surroundings, more than boxes of other pictures would?"""
    for part in ("data", "held_out"):
        if patient.has(part):
            yield from patient.remembered(f"boxes of {part} on objects", lambda part=part: list(of_data(patient, part)))


@dataclass(frozen=True)
class Shown:
    """Pictures, as they are looked at, and their boxes.

    Attributes:
        further: more boxes for them, by the words of what these would be.
        names: of the images that have these further boxes, and of the pictures.
    """

    images: list[np.ndarray]
    views: list[View]
    boxes: list[Boxes]
    further: dict[str, list[Boxes]]
    names: dict[str, list[tuple[str, str]]]

    def scores(self) -> Scores:
        return by_picture(self.views, self.boxes, self.further)

    def drawn(self, name: str) -> Picture | None:
        return drawn(name, self.images, self.boxes, self.further)

    def some(self, chosen: Sequence[int]) -> "Shown":
        """Those at some places."""
        images, views, boxes = ([those[at] for at in chosen] for those in (self.images, self.views, self.boxes))
        further, names = ({w: [b[at] for at in chosen] for w, b in one.items()} for one in (self.further, self.names))
        return Shown(images, views, boxes, further, names)

    def whose(self, name: str, scores: Scores) -> str:
        """In words, by an example, whose boxes images have where these are their neighbours'; else nothing."""
        if name not in self.names:
            return ""
        first = max(since(scores, name), 1)  # the very first one's neighbour may be the last of the list
        has, of = self.names[name][first]
        start = f", and so on from about there, number {first + 1} of the {len(self.images)} that were looked at"
        return f" (image {has} has the boxes of image {of}{start if first > 2 else ''})"


def shown_of(patient: Patient, part: str, found: Sequence[Sample]) -> Shown | None:
    """Pictures of some data; None where a box is no number."""
    targets = reading(patient, part).targets
    usable = [(one, rgb) for one in found if (rgb := as_rgb(one.image)) is not None]
    boxes = [np.asarray(one.target.boxes, dtype=np.float64).reshape(-1, 4) for one, _ in usable]
    further, names = {}, {}
    if len(targets) == len(getattr(patient, part)):
        for words, step in ((BEFORE, -1), (AFTER, 1)):
            places = [(one.index + step) % len(targets) for one, _ in usable]
            own = [str(one.target.image_id) for one, _ in usable]
            names[words] = [(str(targets[at].image_id), name) for at, name in zip(places, own, strict=True)]
            further[words] = [np.asarray(targets[at].boxes, dtype=np.float64).reshape(-1, 4) for at in places]
    if not all(np.isfinite(those).all() for those in chain(boxes, *further.values())):
        return None
    images = [rgb for _, rgb in usable]
    return Shown(images, [View(rgb) for rgb in images], boxes, further, names)


def of_data(patient: Patient, part: str = "data") -> Iterator[Finding]:
    """What the pictures of some data say of its boxes: of all of them, of those of some kind, and of some."""
    if box_forms.wrong_form(objects(patient, part), training_size(patient)) is not None:
        return
    shown = shown_of(patient, part, pictures(patient, part)[0])
    if shown is None:
        return
    for words, chosen in kinds(shown.views).items():
        if len(chosen) >= 8 and sum(len(shown.boxes[at]) for at in chosen) >= ENOUGH:
            some = shown.some(chosen)
            scores = some.scores()
            of_kind = list(of_readings(some, scores, WHERE[part] + words, 1))
            if not of_kind and not words:

                def more() -> Shown | None:
                    return shown_of(patient, part, pictures(patient, part, MORE_PICTURES)[0])

                of_kind = list(of_some(some, scores, WHERE[part], 1, more))
            yield from of_kind
            if of_kind:  # what is said of all need not be said of some
                return


MORE_PICTURES, MORE_BATCHES = 192, 12


def kinds(views: Sequence[View]) -> dict[str, list[int]]:
    """The places of pictures of some kind, of which all may be read wrongly, by what a finding says of them."""
    places = range(len(views))
    return {
        "": list(places),
        "upright pictures: ": [at for at in places if views[at].wide < 1],
        "wide pictures: ": [at for at in places if views[at].wide > 1],
        "the first half of the list: ": list(places)[: len(views) // 2],
        "the second half of the list: ": list(places)[len(views) // 2 :],
    }


@check("batches")
def boxes_are_on_objects_in_batches(patient: Patient) -> Iterator[Finding]:
    """Do the boxes of the loop's batches lie where something differs from its surroundings?"""
    if box_forms.wrong_in_data(patient) or (patient.has("pictures") and any(boxes_are_on_objects.run(patient))):
        return
    shown = shown_in(loop_batches(patient).read)
    if shown is None:
        return
    where, scores = "in the loop's batches: ", shown.scores()
    of_all = list(of_readings(shown, scores, where, 9))
    yield from of_all

    def more() -> Shown | None:
        return shown_in([patient.read(batch) for batch in patient.first_batches(MORE_BATCHES)])

    if not of_all:
        yield from of_some(shown, scores, where, 9, more)


def shown_in(batches: Sequence[Batch]) -> Shown | None:
    """The pictures of some batches; None where they are few, or their boxes in no unit that fits."""
    usable = []
    for number, batch in enumerate(batches, 1):
        rows = zip(batch.images, batch.boxes, batch.labels, batch.sizes, strict=True)
        for row, (image, boxes, labels, (width, height)) in enumerate(rows, 1):
            rgb = as_rgb(torch.as_tensor(image).cpu().numpy())
            if rgb is not None:
                own = boxes[labels != 0].cpu().double().numpy()
                usable.append((rgb, own, width / height, f"{row} of batch {number}"))
    if len(usable) < 8 or not all(np.isfinite(boxes).all() and (boxes <= 1.5).all() for _, boxes, _, _ in usable):
        return None
    images, boxes, wide, own = map(list, zip(*usable, strict=True))
    further = {BEFORE: boxes[-1:] + boxes[:-1], AFTER: boxes[1:] + boxes[:1]}
    others = {BEFORE: own[-1:] + own[:-1], AFTER: own[1:] + own[:1]}
    names = {words: list(zip(those, own, strict=True)) for words, those in others.items()}
    return Shown(images, [View(rgb, w) for rgb, w in zip(images, wide, strict=True)], boxes, further, names)


CHECKS = (boxes_are_on_objects,)
