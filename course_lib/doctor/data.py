"""Checks of data: what annotations say, whether they can be read, and how much there is to learn from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.annotations import nearest
from course_lib.boxes import box_iou
from course_lib.doctor import (
    box_forms,
    data_state,
    drawing,
    leaks,
    left_over,
    lost_objects,
    objects_seen,
    picture_faults,
    places,
)
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import (
    WHERE,
    Objects,
    number_of_classes,
    objects,
    reading,
    training_size,
)
from course_lib.files import DataError
from course_lib.trees import spelling

CHAPTER = 1


def parts(patient: Patient) -> list[tuple[str, str]]:
    """Which data there is, and how a finding says where it was: what is learned from, and what is measured on."""
    return [(part, words) for part, words in WHERE.items() if patient.has(part)]


def judged(patient: Patient, part: str) -> Objects:
    """The objects of some data, of which more can be said; none where their boxes are in another form throughout.

    What is wrong with sizes and overlaps then follows from that, and it is one finding.
    """
    found = objects(patient, part)
    if box_forms.wrong_form(found, training_size(patient)) is None and torch.isfinite(found.boxes).all():
        return found
    return found.without_any()


@check("data|held_out")
def annotations_can_be_read(patient: Patient) -> Iterator[Finding]:
    """Does every image have an annotation that can be read?"""
    for part, where in parts(patient):
        found = reading(patient, part)
        for problem, count in grouped(found.problems):
            field = f"{problem.field}: " if isinstance(problem, DataError) else f"{type(problem).__name__}: "
            yield fault(
                f"{where}{count:,} cannot be read, the first: {field}{str(problem).partition(chr(10))[0]}",
                "training ends there with an error, or goes on without these objects",
                getattr(problem, "cure", "make data[index] give an image and its target for every index"),
                CHAPTER,
            )
        if not found.targets:
            yield fault(f"{where}there is no image", "there is nothing to learn from", "fill the list", CHAPTER)
        elif not sum(len(target.labels) for target in found.targets):
            yield fault(
                f"{where}no object in {len(found.targets):,} images",
                "a detector learns to find nothing, at a loss that falls to 0",
                "look where the annotations are lost: at their names, their folder, the classes that count",
                CHAPTER,
            )


def grouped(problems: Sequence[Exception]) -> list[tuple[Exception, int]]:
    """The first error of each kind, and how many there are of it: of a `DataError` its field, without numbers."""
    kinds: dict[str, list[Exception]] = {}
    for problem in problems:
        field = getattr(problem, "field", str(problem).partition(":")[0])
        kinds.setdefault(f"{type(problem).__name__} {field.rpartition('/')[2]}", []).append(problem)
    return [(those[0], len(those)) for those in kinds.values()]


@check("data|held_out")
def boxes_are_corners_in_fractions(patient: Patient) -> Iterator[Finding]:
    """Are boxes what everything else takes them for: corners, x first, in fractions of the image?"""
    for part, where in parts(patient):
        image_at = drawing.image_of_data(patient, part)
        yield from box_forms.of_form(objects(patient, part), training_size(patient), where, CHAPTER, image_at)


@check("data|held_out")
def boxes_are_sound(patient: Patient) -> Iterator[Finding]:
    """Has every box an area, and does it lie in its image?"""
    for part, where in parts(patient):
        found = objects(patient, part)
        if box_forms.wrong_form(found, training_size(patient)) is None:
            yield from box_forms.of_damage(found, where, CHAPTER, drawing.image_of_data(patient, part))
            yield from box_forms.of_counting(found, where, CHAPTER)


@check("data|held_out")
def labels_are_classes(patient: Patient) -> Iterator[Finding]:
    """Is every label one of a class: 1 for the first, and 0, background, for none?"""
    for part, where in parts(patient):
        yield from of_labels(objects(patient, part), number_of_classes(patient), where, CHAPTER)


def of_labels(found: Objects, classes: int | None, where: str, chapter: int) -> Iterator[Finding]:
    """What is wrong with labels, told by their range."""
    if not len(found):
        return
    labels, low, high = found.labels, int(found.labels.min()), int(found.labels.max())
    due = f"1 to {classes} are due" if classes is not None else "1 and more are due"
    moved = "every object is learned as the class before or after its own, and one class never"
    if low == 0 and (classes is None or high < classes):
        number = found.where(labels == 0)
        yield fault(
            f"{where}labels count from 0: they are {low} to {high}, where {due}: {number} have label 0",
            f"label 0 is background: the first class is never learned; {moved}",
            "add 1 to every label: class_index + 1, and 0 for background alone",
            chapter,
        )
    elif classes is not None and low == 2 and high == classes + 1:
        cure = "give classes[i] the label i + 1, and add 1 once only"
        yield fault(f"{where}labels are shifted by one: {low} to {high}, where {due}", moved, cure, chapter)
    else:
        for which, what in ((labels < 0, "a negative label"), (labels == 0, "label 0, which is background")):
            if which.any():
                why = "they are learned as background, or count as the last class"
                yield fault(f"{where}{found.where(which)} have {what}", why, f"give them labels: {due}", chapter)
        if classes is not None and (labels > classes).any():
            yield fault(
                f"{where}{found.where(labels > classes)} have labels above {classes}, up to {high}, where {due}",
                "the network has no output for them: an index error, or another class is learned",
                "name every class once in `classes`, and make the network for as many and background",
                chapter,
            )
    if low == high and len(found) >= 100 and (classes or 1) >= 3:  # a hundred objects of VOC are of 12 classes or more
        yield warning(
            f"{where}all {len(found):,} objects have label {low}, and there are {classes} classes",
            "one class is learned and no other",
            "look where labels are made, or name this class alone in `classes`",
            chapter,
        )


@check("classes")
def names_of_classes(patient: Patient) -> Iterator[Finding]:
    """Is every class named once, background not at all, and in one order everywhere?"""
    names = [str(name) for name in patient.classes]
    for name in names:
        if name.strip("_ ").casefold() == "background":
            why = "label 0 is background already: this is a second one, and all labels after it may be one too high"
            yield fault(f"{name!r} is among the classes", why, "name the classes of objects alone", CHAPTER)
    for one, other in combinations(names, 2):
        if spelling(one.strip()) == spelling(other.strip()):
            seen, why = f"{one!r} and {other!r} are two classes", "the objects of one are background to the other"
            yield fault(seen, f"what looks the same has two labels: {why}", "give them one name", CHAPTER)
    yield from misspelt(patient, names)
    yield from other_orders(patient, names)


def misspelt(patient: Patient, names: list[str]) -> Iterator[Finding]:
    """Two names that differ in a letter, of which one has next to no objects; names that are no classes."""
    labels = objects(patient).labels if patient.has("data") else torch.zeros(0, dtype=torch.int64)
    counts = torch.bincount(labels.clamp(0, len(names)), minlength=len(names) + 1)[1:].tolist()
    for (one, a), (other, b) in combinations(zip(names, counts, strict=True), 2):
        # Names of five letters and more that one letter tells apart are not both frequent by accident.
        if min(len(one), len(other)) >= 5 and one_letter_apart(one, other) and 20 * min(a, b) < max(a, b):
            rare, usual = sorted(((a, one), (b, other)))
            yield warning(
                f"{rare[1]!r} ({rare[0]} objects) is {usual[1]!r} ({usual[0]} objects) but for a letter",
                "if it is a slip, these objects are a class of their own that cannot be learned",
                f"if it is, call them {usual[1]!r}",
                CHAPTER,
            )
    unknown = reading(patient).unknown if patient.has("data") else Counter()
    for name, count in unknown.most_common():
        meant = nearest(name, names)
        says, cure = (warning, f"did you mean {meant!r}? Correct the name") if meant else (note, "add it, if it counts")
        seen = f"{count:,} objects are called {name!r}, which is none of the classes"
        yield says(seen, "they are left out, and what they show is learned as background", cure, CHAPTER)


def one_letter_apart(one: str, other: str) -> bool:
    """Whether a letter was changed, left out or doubled, or two were exchanged; digits tell names apart on purpose."""
    if any(character.isdigit() for character in one + other) or abs(len(one) - len(other)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])


def other_orders(patient: Patient, names: list[str]) -> Iterator[Finding]:
    """Class names of the data and the network that are not the patient's, in their order."""
    parts = {"the data": patient.data, "the held-out data": patient.held_out, "the model": patient.model}
    for what, part in parts.items():
        others = getattr(part, "classes", None)
        if not isinstance(others, (list, tuple)) or [str(name) for name in others] == names:
            continue
        place = next((i for i, (a, b) in enumerate(zip(others, names, strict=False)) if a != b), len(names))
        here, there = (repr(one[place]) if place < len(one) else "nothing" for one in (names, others))
        yield fault(
            f"label {place + 1} is {here} among {len(names)} classes, and {there} to {what}, which has {len(others)}",
            "the same label means two things: what is learned as one class is measured or shown as another",
            "keep one list of names and give it to data, model and evaluation",
            CHAPTER,
        )


@check("data")
def objects_are_listed_once(patient: Patient) -> Iterator[Finding]:
    """Is every object listed once, and with one label?"""
    found = judged(patient, "data")
    twice, two_names = doubled(found)
    for which, what, why in (
        (twice, "are listed again with the same box", "each counts as two objects, of which a prior learns one"),
        (
            two_names,
            "have nearly the box of an object with another label (IoU above .95)",
            "the same pixels are to be two classes: whichever is learned, the other is a mistake",
        ),
    ):
        if which.any():
            # VOC2007's trainval has 0 and 1 of the two in 15,662 objects; a hundredth is no slip of an annotator.
            says = warning if float(which.double().mean()) > 0.01 else note
            together = found.image == found.image[which][0]
            picture = drawing.objects_in(found, together, drawing.image_of_data(patient), classes=patient.classes)
            yield says(f"{found.where(which)} {what}", why, "keep one of each", CHAPTER, picture)


def doubled(found: Objects) -> tuple[Tensor, Tensor]:
    """Which objects are another of the same image once more; and which have nearly the box of another class."""
    twice = torch.zeros(len(found), dtype=torch.bool)
    two_names = twice.clone()
    for further in range(1, int(found.per_image.max()) if len(found) else 0):  # objects lie image by image
        together = (found.image[further:] == found.image[:-further]).nonzero()[:, 0]
        one, other = together, together + further
        overlap = box_iou(found.boxes[one][:, None], found.boxes[other][:, None])[:, 0, 0]
        same = found.labels[one] == found.labels[other]
        twice[other[(overlap > 0.999) & same]] = True
        two_names[other[(overlap > 0.95) & ~same]] = True
    return twice, two_names


@check("data")
def images_have_objects(patient: Patient) -> Iterator[Finding]:
    """How many images show nothing that is to be found?"""
    per_image = objects(patient).per_image
    empty = int((per_image == 0).sum())
    if empty and empty < len(per_image):
        share = empty / len(per_image)
        # Pictures of nothing teach what is none; a training on nine of ten such learns little else in its time.
        says = warning if share > 0.9 else note
        seen = f"{empty:,} of {len(per_image):,} images have no object"
        why = "their loss is that of background alone: they need a loss that does not divide by 0 positives"
        yield says(seen, why, "leave out those that show an object that nobody annotated", CHAPTER)


@check("data", "held_out")
def held_out_images_are_alike(patient: Patient) -> Iterator[Finding]:
    """Have images that are learned from as many objects as those that are measured on?"""
    counts = [objects(patient, part).per_image for part in ("data", "held_out")]
    learned, measured = (one[one > 0].double() for one in counts)
    if len(learned) < 20 or len(measured) < 20:
        return
    a, b = float(learned.mean()), float(measured.mean())
    error = float(learned.var() / len(learned) + measured.var() / len(measured)) ** 0.5
    if max(a, b) > 2 * min(a, b) and abs(a - b) > 4 * error:
        ones = " (each has exactly one)" if bool((learned == 1).all()) else ""
        yield warning(
            f"images that are learned from have {a:.1f} objects each{ones}, and held-out ones {b:.1f}",
            "an object that nobody annotated is learned as background; or the two sets show other things",
            "are all objects read (findall, and not find), and by one piece of code for both?",
            CHAPTER,
        )


@check("data", "classes")
def objects_per_class(patient: Patient) -> Iterator[Finding]:
    """How much is there to learn from of each class?"""
    found, names = objects(patient), list(patient.classes)
    known = (found.labels > 0) & (found.labels <= len(names))
    counts = torch.bincount(found.labels[known], minlength=len(names) + 1)[1:]
    images = images_of_class(found.labels[known], found.image[known], len(names))
    if not counts.any():
        return
    absent = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if absent:
        number = "1 class has" if len(absent) == 1 else f"{len(absent)} of {len(names)} classes have"
        cure = "take them off `classes`, or add pictures of them"
        yield note(f"{number} no object: {some(absent)}", "it cannot be learned", cure, CHAPTER)
    few = [f"{n} ({c})" for n, c in zip(names, images.tolist(), strict=True) if 0 < c < FEW_IMAGES]
    if few:
        why = f"VOC's rarest class is in 96 images of 5,011; fewer than {FEW_IMAGES} are learned by heart"
        by_heart = int(((images > 0) & (images < BY_HEART)).sum()) > len(names) / 2
        cure = "collect more, or expect little of these classes"
        yield (warning if by_heart else note)(f"few images of {some(few)}", why, cure, CHAPTER)
    share = counts.double() / counts.sum()
    effective = float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
    if effective < 0.8 * len(names):
        most, least = (int(one) for one in (counts.argmax(), counts.argmin()))
        yield note(
            f"{len(names)} classes weigh as much as {effective:.1f} equal ones: {counts[most]:,} objects are "
            f"{names[most]}, {counts[least]:,} {names[least]}",
            "the frequent classes take most of the gradient; VOC2007's 20 weigh as much as 11.7 and are learned all",
            "look at the AP of each class before you weigh or repeat any",
            CHAPTER,
        )


FEW_IMAGES = 20
BY_HEART = 3  # images: where most classes are in fewer, nothing else than these images can be learned


def images_of_class(labels: Int[Tensor, " N"], image: Int[Tensor, " N"], classes: int) -> Int[Tensor, " classes"]:
    """In how many images each class is to be seen."""
    pairs = torch.unique(torch.stack([labels, image]), dim=1)
    return torch.bincount(pairs[0], minlength=classes + 1)[1:]


def some(names: Sequence[str], most: int = 6) -> str:
    """A few names in a line."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@check("data", "model|batches")
def objects_are_large_enough(patient: Patient) -> Iterator[Finding]:
    """How many pixels are left of an object at the size that the network sees?"""
    found, side = judged(patient, "data"), training_size(patient)
    if not len(found) or side is None:
        return
    pixels = side_of(found.boxes) * side
    tiny, small = pixels < TINY, pixels < 2 * TINY
    if float(small.double().mean()) < 0.02:
        return
    # Of VOC2007's objects 11 % are below 8 pixels at 96, and 1 % below 4; at 300 it is 1 %.
    says = warning if float(tiny.double().mean()) > 0.5 else note
    yield says(
        f"{found.where(small)} are smaller than {2 * TINY} pixels at {side} x {side}, {int(tiny.sum()):,} than {TINY}; "
        f"the median is {float(pixels.median()):.0f}",
        "a map of stride 8 has one cell for all of such an object, and few priors are that small",
        "train at a larger size, cut the pictures into parts, or leave out what nobody could recognise",
        CHAPTER,
    )


TINY = 4  # pixels


def side_of(boxes: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """The side of a square of a box's area."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()


@check("data", "classes")
def outlying_boxes(patient: Patient) -> Iterator[Finding]:
    """Which boxes have a size or shape that no other of their class has?"""
    found, names = judged(patient, "data"), list(patient.classes)
    measures = found.boxes[:, 2:] - found.boxes[:, :2]
    usable = (measures > 0).all(dim=1) & (found.labels > 0) & (found.labels <= len(names))
    odd = torch.zeros(len(found), dtype=torch.bool)
    area, ratio = measures.clamp(min=1e-9).prod(dim=1).log(), (measures * found.sizes).clamp(min=1e-9).log()
    for label in range(1, len(names) + 1):
        those = usable & (found.labels == label)
        if int(those.sum()) >= FEW_IMAGES:
            for values in (area[those], (ratio[:, 0] - ratio[:, 1])[those]):
                odd[those] |= far_out(values)
    if odd.any():
        name = names[int(found.labels[odd][0]) - 1]
        yield note(
            f"{found.where(odd)}, {'a ' + name}, have a size or shape far from all others of their class",
            "some are true; others are slips of an annotator, such as a corner that was missed",
            "look at them",
            CHAPTER,
            drawing.objects_in(found, odd, drawing.image_of_data(patient), classes=names),
        )


def far_out(values: Float[Tensor, " N"]) -> Tensor:
    """Which values lie outside by three times the range of the middle half.

    Source: Tukey 1977, "Exploratory Data Analysis": outliers that are "far out".
    """
    low, high = values.quantile(0.25), values.quantile(0.75)
    return (values < low - 3 * (high - low)) | (values > high + 3 * (high - low))


CHECKS = (
    annotations_can_be_read,
    boxes_are_corners_in_fractions,
    boxes_are_sound,
    places.boxes_are_written_finely,
    labels_are_classes,
    names_of_classes,
    objects_are_listed_once,
    images_have_objects,
    left_over.objects_do_not_pile_up,
    lost_objects.several_objects_of_a_class_are_listed,
    objects_per_class,
    objects_are_large_enough,
    held_out_images_are_alike,
    outlying_boxes,
    *picture_faults.CHECKS,
    *objects_seen.CHECKS,
    *leaks.CHECKS,
    *data_state.CHECKS,
)

# Those that read no picture: what can be said of annotations alone.
OF_ANNOTATIONS = tuple(one.name for one in CHECKS[: CHECKS.index(outlying_boxes) + 1])
