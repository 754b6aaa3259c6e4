"""Checks of augmentation: whether boxes and labels stay with their objects, and how many objects are lost."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from course_lib.doctor import box_forms, drawing, markers
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.markers import Marker, Trial
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import as_rgb, number_of_classes, pictures

CHAPTER = 2
USUAL_SIZE = 500, 375  # of a picture of VOC
LARGEST = 1000  # pixels of the side of a picture that is drawn


def marked(patient: Patient) -> list[Trial]:
    """What the patient's transform makes of pictures with markers, of a size that its data has."""

    def make() -> list[Trial]:
        size = drawn_size(patient)
        with patient.undisturbed():
            try:
                return markers.trials(patient.transform, size, number_of_classes(patient))
            except Exception as error:  # whatever a stranger's code raises is what was seen
                patient.memory["transform fails"] = error
                return []

    return patient.remembered("markers", make)


def drawn_size(patient: Patient) -> tuple[int, int]:
    """Width and height of the pictures that are drawn: those of a usual picture of the data, within limits."""
    sizes = [USUAL_SIZE]
    if patient.has("data"):
        sizes = [tuple(map(int, one.target.size)) for one in pictures(patient)[0]] or sizes
    width, height = sorted(sizes)[len(sizes) // 2]
    shrink = min(1.0, LARGEST / max(width, height))
    return max(96, round(width * shrink)), max(96, round(height * shrink))


@check("transform")
def transform_works(patient: Patient) -> Iterator[Finding]:
    """Does the transform take a picture with three objects, of a size that the data has?"""
    if not marked(patient):
        error = patient.memory["transform fails"]
        yield fault(
            f"the transform fails on a picture with three objects: {type(error).__name__}: {error}".partition("\n")[0],
            "training ends at the first such picture",
            "make it work on one picture and its boxes alone; a crop is to be smaller than every picture",
            CHAPTER,
        )


@check("transform")
def boxes_stay_on_their_objects(patient: Patient) -> Iterator[Finding]:
    """Does the transform do to the boxes what it does to the picture?"""
    trials = marked(patient)
    if wraps(patient):  # markers are not found where colours are torn
        return
    placed, lost = beside(trials)
    if torn(trials):
        yield fault(
            f"after the transform {len(lost)} of {len(placed)} boxes are not on the rectangle that was drawn for them: "
            f"{markers.cause(lost)}",
            "the network is shown one thing and told another place: it learns boxes of no object",
            markers.CURES.get(markers.cause(lost), markers.CURE),
            CHAPTER,
            drawn(lost[0][0]),
        )
        return
    yield from reaching_out(trials)
    yield from loosely(placed)


def beside(trials: Sequence[Trial]) -> tuple[list[tuple[Trial, np.ndarray]], list[tuple[Trial, np.ndarray]]]:
    """All boxes that came back, and those that are on no marker, where that can be told; each with its trial."""
    placed = [(trial, box) for trial in trials for box in trial.boxes if trial.visible() and np.isfinite(box).all()]
    lost = [(trial, box) for trial, box in placed if trial.on(box) is None and can_be_judged(trial, box)]
    return placed, lost


def drawn(trial: Trial) -> drawing.BoxesIn | None:
    """A picture that came back with its boxes, and those that its rectangles should have."""
    found = [marker.found for marker in trial.markers if marker.found is not None]
    boxes, right = (
        torch.from_numpy(np.asarray(those, dtype=np.float32).reshape(-1, 4)) for those in (trial.boxes, found)
    )
    return drawing.boxes_in(trial.picture, boxes, torch.zeros(len(boxes), dtype=torch.int64), right)


def torn(trials: Sequence[Trial]) -> bool:
    """Whether more boxes are beside their objects than turned rectangles and hidden corners make so."""
    placed, lost = beside(trials)
    return len(lost) > 0.1 * len(placed)


def can_be_judged(trial: Trial, box: np.ndarray) -> bool:
    """Whether a box on no marker says something.

    It does not where the marker is too small, or cut to a sliver, to be found; nor where a marker has lost its colour,
    and other boxes of the picture lie right.
    """
    tight = any(
        m.found is not None and markers.iou(other, m.found) > 0.8 for other in trial.boxes for m in trial.markers
    )
    if tight and any(marker.found is None for marker in trial.markers):
        return False
    overlapping = [m for m in trial.markers if m.found is not None and markers.iou(box, m.found) > 0.1]
    small = any(marker.side < markers.LEAST for marker in overlapping)
    return not small and len(trial.visible()) == sum(m.found is not None for m in trial.markers)


def reaching_out(trials: Sequence[Trial]) -> Iterator[Finding]:
    """Boxes that end outside the picture, where the object is cut off."""
    boxes = np.concatenate([np.zeros((0, 4)), *(trial.boxes for trial in trials)])
    out = ((boxes < -box_forms.BEYOND) | (boxes > 1 + box_forms.BEYOND)).any(axis=1)
    if out.any():
        yield warning(
            f"after the transform {int(out.sum())} of {len(out)} boxes reach out of the picture, to "
            f"{float(abs(boxes - 0.5).max() + 0.5):.2f}, where 1 is its edge",
            "the network is to find edges that have been cut off",
            "clip boxes to 0..1 after a crop, and drop those that have left the picture",
            CHAPTER,
        )


def loosely(placed: Sequence[tuple[Trial, np.ndarray]]) -> Iterator[Finding]:
    """Boxes that are on their objects, but larger, smaller or beside them by some pixels."""
    overlaps = []
    for trial, box in placed:
        marker = trial.on(box)
        if marker is not None and marker.side >= 2 * markers.LEAST:
            overlaps.append(markers.iou(box.clip(0, 1), marker.found))
    # The library's own transforms keep a median of .95 and more; a turned rectangle's box may be a tenth larger.
    if len(overlaps) >= 8 and float(np.median(overlaps)) < 0.75:
        yield warning(
            f"after the transform boxes fit what was drawn for them only loosely: their median IoU is "
            f"{float(np.median(overlaps)):.2f}",
            "every box is learned too large, too small or beside its object",
            "look for a size or a corner that the boxes are given and the picture is not",
            CHAPTER,
        )


@check("transform")
def labels_stay_with_their_boxes(patient: Patient) -> Iterator[Finding]:
    """Has every box after the transform the label of the object that it is on?"""
    trials = marked(patient)
    if torn(trials) or wraps(patient):
        return
    told = sum(len(trial.labels) != len(trial.boxes) for trial in trials)
    if told:
        yield fault(
            f"after the transform {told} of {len(trials)} pictures have as many boxes as they have not labels",
            "a box and the label in its place belong to different objects",
            "drop box, label and flags of an object together",
            CHAPTER,
        )
        return
    pairs = [
        (trial, marker, label)
        for trial in trials
        for box, label in zip(trial.boxes, trial.labels, strict=True)
        if np.isfinite(box).all() and (marker := trial.on(box)) is not None
    ]
    wrong = [(trial, marker, label) for trial, marker, label in pairs if label != marker.label]
    if len(wrong) > 0.05 * len(pairs) and not colours_explain(pairs):
        shift = {label - marker.label for _, marker, label in wrong}
        dropped = sum(len(trial.boxes) < len(trial.markers) for trial, _, _ in wrong)
        how = f": each is {next(iter(shift)):+d}" if len(shift) == 1 and len(wrong) == len(pairs) else ""
        how = how or (": all of them where an object was dropped" if dropped == len(wrong) else "")
        yield fault(
            f"after the transform {len(wrong)} of {len(pairs)} boxes have another label than their object was given"
            f"{how}",
            "classes are learned from the pictures of others",
            "carry labels through the transform with the boxes, such as by `label_fields`, and leave them as they are",
            CHAPTER,
        )


def colours_explain(pairs: Sequence[tuple[Trial, Marker, int]]) -> bool:
    """Whether every label is right once colours are read in another order: the picture's colours have changed."""
    changed = colour_order(pairs)
    return changed is not None


def colour_order(pairs: Sequence[tuple[Trial, Marker, int]]) -> dict[str, str] | None:
    """Which colour each is seen as, where that is another and explains nearly all labels; None else."""
    names = list(markers.COLOURS)
    for order in markers.permutations(names):
        seen_as = dict(zip(names, order, strict=True))
        if list(order) == names:
            continue
        right = 0
        for trial, marker, label in pairs:
            own = {m.colour: m.label for m in trial.markers}
            right += own[seen_as[marker.colour]] == label
        if right > 0.97 * len(pairs):
            return seen_as
    return None


@check("transform")
def colours_stay(patient: Patient) -> Iterator[Finding]:
    """Does the transform leave red red and blue blue, and what is smooth smooth?"""
    if wraps(patient):
        yield fault(
            f"the transform makes black of white: in {wraps(patient)} of {RAMPS} smooth grey pictures neighbouring "
            "pixels are about 0 and 255",
            "bright parts turn dark, or dark ones bright, with edges where there are none: uint8 has wrapped round at "
            "256, as 250 + 20 is 14",
            "compute in float or int16, clip to 0..255, and only then go back to uint8; cv2.add does so itself",
            CHAPTER,
        )
        return
    pairs = [
        (trial, marker, label)
        for trial in marked(patient)
        for box, label in zip(trial.boxes, trial.labels, strict=False)
        if np.isfinite(box).all() and (marker := trial.on(box)) is not None
    ]
    if len({marker.label for _, marker, _ in pairs}) < 3 or torn(marked(patient)):
        return
    changed = colour_order(pairs)
    if changed is not None and len(pairs) >= 20:
        some = " and ".join(f"{b} becomes {a}" for a, b in changed.items() if a != b)
        yield warning(
            f"the transform exchanges colours in every picture: {some}",
            "weights that were trained on RGB see other colours, and what is measured without it sees others again",
            "read pictures as RGB and leave the order of channels (cv2.imread gives BGR)",
            CHAPTER,
        )


RAMPS, FEW_PIXELS = 24, 96


def wraps(patient: Patient) -> int:
    """In how many smooth grey pictures the transform makes jumps from white to black, as numbers that wrap round do."""

    def make() -> int:
        if not marked(patient):
            return 0
        transform = patient.transform
        with suppress(Exception):  # what cannot be copied is used as it is
            transform = deepcopy(transform)
        with patient.undisturbed():
            size = drawn_size(patient)
            return sum(has_wrapped(shaded(transform, size, number)) for number in range(RAMPS))

    return patient.remembered("wraps", make)


def shaded(transform: Any, size: tuple[int, int], number: int) -> np.ndarray | None:
    """What a transform makes of a picture that goes from dark to bright grey; it ends clear of 0 and 255."""
    width, height = size
    _, target = markers.drawn(size, [1, 1, 1], np.random.default_rng(number))
    row = np.linspace(12 + number % 6, 243 - number % 5, width).round().astype(np.uint8)
    if hasattr(transform, "seed"):
        transform.seed(number)
    return as_rgb(np.asarray(transform(np.tile(row[:, None], (height, 1, 3)), target)[0]))


def has_wrapped(image: np.ndarray | None) -> bool:
    """Whether most jumps from bright to dark go on smoothly where 255 is followed by 0, and both sides are slopes.

    The border of a fill, an erased part or a grain of noise is a jump too: it goes to one colour, or to another number.
    """
    if image is None:
        return False
    step = max(1, min(image.shape[:2]) // FEW_PIXELS)
    few = image[::step, ::step].astype(np.int64)
    jumps = smooth = 0
    for axis in (0, 1):
        line = np.moveaxis(few, axis, 0)
        before, left, right, after = line[:-6], line[2:-4], line[4:-2], line[6:]
        far = abs(right - left) > 200
        slopes = np.stack([left - before, after - right]) * np.sign(left - right)
        slope = slopes.mean(axis=0)
        going_on = (slopes > 0).all(axis=0) & (slopes < 25).all(axis=0)
        going_on &= abs(256 - abs(right - left) - slope) < 4 + slope / 2
        jumps, smooth = jumps + int(far.sum()), smooth + int((far & going_on).sum())
    return smooth >= 30 and smooth > 0.4 * jumps


@check("transform")
def objects_are_kept(patient: Patient) -> Iterator[Finding]:
    """Does an object that is still to be seen keep its box?"""
    trials = marked(patient)
    whole = [(t, m) for t in trials for m in t.visible() if m.whole]
    bare = [m for t, m in whole if not any(markers.iou(box, m.found) >= SEEN_STILL for box in t.boxes)]
    boxes = sum(len(t.boxes) for t in trials)
    if not boxes and whole:
        yield fault(
            f"after the transform no box is left in {len(trials)} pictures, and {len(whole)} objects are to be seen",
            "a detector learns to find nothing",
            "look for a filter of sizes in pixels that is given fractions, or for boxes that are left behind",
            CHAPTER,
        )
    elif len(bare) > 0.1 * len(whole) and not torn(trials) and not wraps(patient):
        yield warning(
            f"after the transform {len(bare)} of {len(whole)} objects that are wholly to be seen have no box any more",
            "they are learned as background",
            "drop an object only where it has left the picture",
            CHAPTER,
        )


SEEN_STILL = 0.3


def seen_of(trials: Sequence[Trial]) -> np.ndarray:
    """What share of its object each box that came back still has, where another marker tells the scale."""
    shares = []
    for trial in trials:
        known = [(m.found, m.drawn) for m in trial.markers if m.found is not None and m.whole]
        if not known:
            continue
        scale = np.mean([(found[2:] - found[:2]) / (drawn[2:] - drawn[:2]) for found, drawn in known], axis=0)
        for box, label in zip(trial.boxes, trial.labels, strict=False):
            own = [marker.drawn for marker in trial.markers if marker.label == label]
            if len(own) == 1 and np.isfinite(box).all():
                whole = np.prod((own[0][2:] - own[0][:2]) * scale)
                shares.append(float(np.prod((box[2:] - box[:2]).clip(0)) / whole))
    return np.array(shares)


@check("transform")
def boxes_have_enough_of_their_objects(patient: Patient) -> Iterator[Finding]:
    """Is there more than a sliver to be seen of every object that keeps its box?"""
    trials = marked(patient)
    if torn(trials) or wraps(patient) or not (seen_of(trials) < SUSPICIOUS).any():
        return
    with patient.undisturbed():
        trials = markers.trials(patient.transform, drawn_size(patient), number_of_classes(patient), MORE_TRIALS)
    shares = seen_of(trials)
    few = shares < SLIVER
    if int(few.sum()) >= 3 and few.mean() > 0.02:
        # A rule of the centre, or a least visibility, leaves none; where neither is, a tenth and more.
        says = warning if few.mean() > MANY_SLIVERS else note
        yield says(
            f"after the transform {int(few.sum())} of {len(shares)} boxes have less than {SLIVER:.0%} of their object "
            f"in the picture, down to {shares.min():.0%}",
            "what nobody could name is to be found and named, from a strip at the edge",
            "behind a crop keep objects whose centre is in it (SSD), or of which a third is to be seen (in "
            "albumentations: BboxParams(min_visibility=0.3))",
            CHAPTER,
        )


SLIVER, SUSPICIOUS, MANY_SLIVERS, MORE_TRIALS = 0.2, 0.25, 0.2, 72


@check("transform")
def random_numbers_move_on(patient: Patient) -> Iterator[Finding]:
    """Does a transform that leaves something to chance give one picture in different ways?"""
    chances = sorted(chances_in(patient.transform))
    if not chances or not marked(patient):
        return
    transform = patient.transform
    with suppress(Exception):  # what cannot be copied is used as it is
        transform = deepcopy(transform)
    image, target = markers.drawn(USUAL_SIZE, [1, 1, 1], np.random.default_rng(0))
    with patient.undisturbed():
        results = [transform(image, target) for _ in range(CALLS)]
    first, told = results[0]
    if all(np.array_equal(first, image) and np.array_equal(told.boxes, target.boxes) for image, target in results[1:]):
        yield warning(
            f"the transform gives one picture in the same way {CALLS} times, and its chances are "
            f"{', '.join(f'{p:g}' for p in chances)}",
            "every picture is mirrored, or none, and coloured alike: that is no augmentation",
            "draw new random numbers for every sample: seed once, not in every call",
            CHAPTER,
        )


CALLS = 16


def chances_in(transform: Any) -> set[float]:
    """The chances `p`, neither 0 nor 1, that a transform and what it is made of are to be applied with."""
    found, seen, waiting = set(), set(), [transform]
    while waiting and len(seen) < MOST_PARTS:
        part = waiting.pop(0)
        if id(part) in seen or isinstance(part, PLAIN):
            continue
        seen.add(id(part))
        own = getattr(part, "p", None)
        if isinstance(own, float) and 0.05 < own < 0.95:
            found.add(own)
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
        else:
            waiting += getattr(part, "__dict__", {}).values()
            waiting += [cell.cell_contents for cell in getattr(part, "__closure__", None) or ()]
    return found


MOST_PARTS = 3000
PLAIN = (str, bytes, int, float, type(None), type, np.ndarray, torch.Tensor)


@check("pictures", "transform")
def share_of_objects_lost(patient: Patient) -> Iterator[Finding]:
    """How many objects of the data does the transform leave?"""
    if box_forms.wrong_in_data(patient) or not marked(patient):
        return
    transform, before, after, bare, shown = patient.transform, 0, 0, 0, 0
    with suppress(Exception):  # what cannot be copied is used as it is
        transform = deepcopy(transform)
    with patient.undisturbed():
        for one in pictures(patient)[0][:32]:
            if hasattr(transform, "seed"):
                transform.seed(one.index)
            try:
                kept = len(transform(one.image, one.target)[1].labels)
            except Exception as error:  # whatever a stranger's code raises is what was seen
                yield fault(
                    f"the transform fails on image {one.target.image_id}: {type(error).__name__}: {error}",
                    "training ends at such an image",
                    "make it work on this image and its target alone",
                    CHAPTER,
                )
                return
            before, after = before + len(one.target.labels), after + kept
            shown, bare = shown + (len(one.target.labels) > 0), bare + (kept == 0 < len(one.target.labels))
    if before < 16:
        return
    lost = 1 - after / before
    # SSD's own crop loses a third of VOC's objects and leaves every picture one; the library's mini transform a tenth.
    says = fault if lost > 0.95 else warning if lost > 0.6 else note
    if lost > 0.2:
        yield says(
            f"the transform loses {lost:.0%} of the objects, and all of {bare} of {shown} pictures",
            "what is lost is not learned from; what is half to be seen and has no box is learned as background",
            "crop less, or keep what is still to be seen",
            CHAPTER,
        )


CHECKS = (
    transform_works,
    boxes_stay_on_their_objects,
    labels_stay_with_their_boxes,
    colours_stay,
    objects_are_kept,
    boxes_have_enough_of_their_objects,
    random_numbers_move_on,
    share_of_objects_lost,
)
