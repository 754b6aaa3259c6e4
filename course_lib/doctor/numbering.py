"""Have the classes of what is measured on the numbers that those of what is learned from have?

Numbers are often made from what a list of images holds: in the order in which classes first appear, or by how often
they do, or of those alone that occur. Made for each list by itself, they mean other classes in each. That is told by
the annotations where an order is none by chance, and by the pictures where objects of a class look alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, erfc, factorial, prod

import numpy as np
from jaxtyping import Float, Int

from course_lib.doctor import repeated
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import Objects, as_rgb, objects, pictures

CHAPTER = 1
BY_CHANCE = 1e-3  # an order that is less likely is none by chance
WHY = "the same label means two classes: what is learned as one is measured as another, and AP stays low"
CURE = "make one list of names, in a file or in the code, and number both splits by it"


def of_numbers(patient: Patient) -> Iterator[Finding]:
    """What tells that each of the two lists has numbers of its own."""
    learned, held = objects(patient, "data"), objects(patient, "held_out")
    if not len(learned) or not len(held) or min(int(learned.labels.min()), int(held.labels.min())) < 1:
        return
    classes = int(max(learned.labels.max(), held.labels.max()))
    counts = [np.bincount(one.labels.numpy(), minlength=classes + 1)[1:] for one in (learned, held)]
    said = list(by_appearance(learned, held)) or list(by_frequency(*counts))
    yield from said
    if not said and patient.has("pictures") and hasattr(patient.held_out, "__getitem__"):
        yield from by_looks(seen_of(patient), *counts)


def first_seen(found: Objects) -> list[int]:
    """The classes in the order in which they first appear."""
    return list(dict.fromkeys(found.labels.tolist()))


def listed_by_class(found: Objects) -> bool:
    """Whether images of a class come together, or each lists its objects by class: then classes appear in order."""
    steps, inside = np.diff(found.labels.numpy()), np.diff(found.image.numpy()) == 0
    kinds = [steps[which & (steps != 0)] for which in (inside, ~inside)]
    return any(len(some) and float((some < 0).mean()) < 0.1 for some in kinds)


def by_appearance(*both: Objects) -> Iterator[Finding]:
    """Classes that are numbered in each list as they first appear there."""
    orders = [first_seen(one) for one in both]
    if any(order != list(range(1, len(order) + 1)) for order in orders) or any(map(listed_by_class, both)):
        return
    # The one list may have given the numbers of both: then the other's order is by chance.
    if 1 / factorial(min(map(len, orders))) < BY_CHANCE:
        yield fault(
            f"in the data and in the held-out data classes are numbered as they first appear: each list begins with "
            f"objects of the labels {', '.join(map(str, orders[0][:4]))} and so on, up to {len(orders[1])}",
            WHY,
            CURE,
            CHAPTER,
        )


def by_frequency(learned: Int[np.ndarray, " C"], held: Int[np.ndarray, " C"]) -> Iterator[Finding]:
    """Classes that are numbered in each list by how many objects they have there."""
    orders = [
        bool((steps <= 0).all() or (steps >= 0).all()) and steps.any()
        for steps in (np.diff(one[one > 0]) for one in (learned, held))
    ]
    # That a list which is numbered by the other's counts is in order too, class by class, is as likely as this.
    due = np.maximum(learned * held.sum() / learned.sum(), 0.5)
    steps = np.abs(np.diff(due)) / np.sqrt(due[1:] + due[:-1])
    chance = prod(1 - erfc(step / 2**0.5) / 2 for step in steps)
    if all(orders) and chance < BY_CHANCE:
        yield warning(
            f"labels are sorted by how many objects they have, in the data ({learned[0]} to {learned[-1]}) and in the "
            f"held-out data ({held[0]} to {held[-1]}), without an exception: one order of both would have some",
            WHY,
            CURE,
            CHAPTER,
        )


def absent_at_the_end(held: Int[np.ndarray, " C"]) -> int:
    """How many classes the held-out data lacks, where these are just the last ones."""
    present = int((held > 0).sum())
    return len(held) - present if (held[:present] > 0).all() else 0


def by_chance(learned: Int[np.ndarray, " C"], absent: int) -> bool:
    """Whether the last classes may well be absent by chance: there are few others, or they are the rarest."""
    rarest = learned[len(learned) - absent :].max() <= np.sort(learned)[: absent + 1].max()
    return bool(rarest) or comb(len(learned), absent) < 20


@dataclass(frozen=True)
class Seen:
    """Objects of the data and of the held-out data, and how much they look like those of each class of the data.

    Attributes:
        likeness: to each class, without what is by chance that of the object or of the class.
        labels: of the objects.
        nearest: to the class that it is nearest to, as it is.
        learned: how many of them are of the data; the others are held out.
    """

    likeness: Float[np.ndarray, "N C"]
    labels: Int[np.ndarray, " N"]
    nearest: Float[np.ndarray, " N"]
    learned: int

    def errors(self, part: slice, labels: np.ndarray) -> tuple[int, float]:
        """Of how many objects it is known, and by how many standard errors they look like the classes of labels."""
        return in_errors(self.likeness[part][np.arange(len(labels)), labels])


def in_errors(values: np.ndarray) -> tuple[int, float]:
    """How many numbers there are, and their mean in its standard errors."""
    values = values[np.isfinite(values)]
    return len(values), float(values.mean() / max(values.std() / len(values) ** 0.5, 1e-9)) if len(values) > 1 else 0.0


def seen_of(patient: Patient) -> Seen | None:
    """None where there are too few objects to compare."""
    looks, labels, places, learned = [], [], [], 0
    for part in ("data", "held_out"):
        for one in pictures(patient, part)[0]:
            image, boxes = as_rgb(one.image), np.asarray(one.target.boxes, dtype=np.float64).reshape(-1, 4)
            if image is None or not np.isfinite(boxes).all():
                continue
            for box, label in zip(boxes, np.asarray(one.target.labels).tolist(), strict=True):
                if (found := repeated.look(image, box)) is not None:
                    looks.append(found)
                    labels.append(label)
                    places.append(one.index if part == "data" else -1 - one.index)
        learned = learned or len(looks)
    if min(learned, len(looks) - learned) < 2 * repeated.NEAREST:
        return None
    likeness = repeated.likeness_to_classes(np.stack(looks), labels, places, learned)
    nearest = np.where(np.isfinite(likeness), likeness, -np.inf).max(axis=1)
    return Seen(beyond_chance(likeness, np.array(labels[:learned])), np.array(labels), nearest, learned)


def beyond_chance(likeness: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " L"]) -> Float[np.ndarray, "N C"]:
    """Likeness without what objects of other classes have of it to a class, and an object to all classes.

    Args:
        labels: of the first objects, those of the data.
    """
    known = np.isfinite(likeness)
    others = known[: len(labels)] & (labels[:, None] != np.arange(likeness.shape[1]))
    usual = np.where(others, likeness[: len(labels)], 0.0).sum(axis=0) / np.maximum(others.sum(axis=0), 1)
    likeness = likeness - usual
    own = np.where(known, likeness, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return likeness - own[:, None]


def by_looks(seen: Seen | None, learned: Int[np.ndarray, " C"], held_out: Int[np.ndarray, " C"]) -> Iterator[Finding]:
    """Held-out objects that do not look like those of their label, though those learned from do.

    Args:
        learned, held_out: how many objects there are of each class.
    """
    if seen is None:
        return
    absent = absent_at_the_end(held_out)
    held, last = seen.labels[seen.learned :], "label" if absent == 1 else f"{absent} labels"
    if absent:
        told, (number, errors) = in_order(seen, held, int(held.max()))
        if number >= ENOUGH and errors > SURE:
            moved = next(label for label, other in enumerate(told, 1) if label != other)
            yield fault(
                f"held-out data has no object of the last {last}, and from about label {moved} on its objects look "
                f"like those of later labels in the data ({moved} like {told[moved - 1]}, {len(told)} like {told[-1]}; "
                f"{number} objects, by {errors:.1f} standard errors): its numbers are those of the classes that occur",
                WHY,
                CURE,
                CHAPTER,
            )
            return
    (many, usual), (few, here) = (
        seen.errors(slice(seen.learned), seen.labels[: seen.learned]),
        seen.errors(slice(seen.learned, None), held),
    )
    due = usual * (few / many) ** 0.5 if many else 0.0
    if due - here > SURE and here < NO_MORE:
        one, other = (part[np.isfinite(part)] for part in np.split(seen.nearest, [seen.learned]))
        alike = abs(other.mean() - one.mean()) < SAME_KIND * one.std()
        yield (warning if alike else note)(
            f"held-out objects look like those of the same label in the data by {here:.1f} standard errors, where "
            f"{due:.1f} are due by how the data's look like each other ({few} and {many} objects)",
            f"{'' if alike else 'if it is not that all looks otherwise there, '}{WHY}",
            CURE,
            CHAPTER,
        )
    elif absent and not by_chance(learned, absent):
        yield note(
            f"held-out data has no object of the last {last}, and has some of all others",
            f"by chance, or because its numbers are those of the classes that occur there: then {WHY}",
            CURE,
            CHAPTER,
        )


ENOUGH, SURE = 20, 4.0  # objects, and standard errors: healthy ones whose last classes are absent gain in 9 by 3.1
NO_MORE = 2.0  # standard errors: no more than other labels might by chance
# In deviations of how near objects are to the nearest class: held-out emoji, VOC's and photographs are .1 to .3 apart
# from those learned from, and where pictures are grey, dark, inverted or blue first .5 to 3.
SAME_KIND = 0.4


def in_order(seen: Seen, held: Int[np.ndarray, " N"], count: int) -> tuple[list[int], tuple[int, float]]:
    """What labels stand for if they number some of the classes in their order, as the objects look like it most.

    Returns:
        the class of each label from 1 on; and of how many objects it is another than the label, and by how many
        standard errors these look more like it.
    """
    likeness = seen.likeness[seen.learned :]
    classes = likeness.shape[1] - 1
    sums = np.stack([np.nansum(likeness[held == label], axis=0) for label in range(count + 1)])
    best, came = np.full((count + 1, classes + 1), -np.inf), np.zeros((count + 1, classes + 1), dtype=int)
    best[0] = 0.0
    for label in range(1, count + 1):
        for stands_for in range(label, classes - count + label + 1):
            came[label, stands_for] = best[label - 1, label - 1 : stands_for].argmax() + label - 1
            best[label, stands_for] = best[label - 1, came[label, stands_for]] + sums[label, stands_for]
    told = [int(best[count].argmax())]
    for label in range(count, 1, -1):
        told.insert(0, int(came[label, told[0]]))
    others = np.array([0, *told])[held]
    rows = np.arange(len(held))
    return told, in_errors((likeness[rows, others] - likeness[rows, held])[others != held])
