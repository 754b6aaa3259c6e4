"""Are the weights of classes in the loss those of their classes, background first?"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.doctor.bench import Bench, bench, dealt, made_bench
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import loop_batches, objects, objects_in
from course_lib.matching import Matches

CHAPTER = 7
EQUAL = 0.02  # weights differ by less than that share
FEWEST = 6  # classes with weights and objects of which an order is none by chance
FALLS, DOES_NOT = -0.9, -0.6  # correlation of ranks: weights that fall with how frequent classes are, and that do not
WHY = "each class is taught with another's weight: what was to be held back is pushed, and the reverse"
CURE = "make the tensor of weights in the order of the logits: background first, then `classes` in their order"


def weights_of(patient: Patient) -> dict[int, float]:
    """How much a mistake of each class costs, background's as 1; empty where background has no cost of its own.

    Where all logits are equal, the slope of the own class's logit differs from class to class by the weight alone.
    """
    return patient.remembered("weights of classes", lambda: weighed(patient))


def weighed(patient: Patient) -> dict[int, float]:
    """See `weights_of`; of a loss that does its own matching each batch tells of the classes in it."""
    on, found = bench(patient), {}
    for told, other in dealt(on) if on is not None else ():
        found = weights_in(on, told, other) | found
    images = len(patient.read(patient.first_batches(1)[0]).images)
    for number in range(1, BATCHES if on is not None and not on.free else 0):
        batches = patient.first_batches(number + 1)
        if len(found) == on.classes or len(batches) <= number or len(patient.read(batches[number]).images) != images:
            break
        further = made_bench(patient, number)
        found = (weights_in(further, further.told.labels, None) if further is not None else {}) | found
    return {label: found[label] for label in sorted(found)}


BATCHES = 8


def weights_in(on: Bench, told: Int[Tensor, "B P"], other: Matches | None) -> dict[int, float]:
    """The weights of the classes that are told to some prior; none where no background is taught."""
    slope = on.slopes(on.told.offsets, torch.zeros_like(on.right()), other)[1]
    background = float((-slope[..., 0][on.negative]).max()) if on.negative.any() else 0.0
    if background <= 0:  # none is mined, or a sigmoid has no such class
        return {}
    labels = told[on.positive].long()
    own = -slope[on.positive].gather(1, labels[:, None]).squeeze(1) / background
    weights = {label: float(own[labels == label].median()) for label in labels.unique().tolist()}
    return {0: 1.0} | {label: weight for label, weight in weights.items() if weight > 0}


def frequencies(patient: Patient, classes: int) -> Float[np.ndarray, " C"]:
    """How many objects there are of each label, 0 for background: in the data, or else in the first batches."""
    found = objects(patient) if patient.has("data") else objects_in(loop_batches(patient).read)
    return np.bincount(found.labels.clamp(0, classes).numpy(), minlength=classes + 1)[: classes + 1].astype(float)


def ranked(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of ranks, equal values in the mean of theirs; 0 where one of the two is all the same."""
    ranks = [np.array([(v < x).sum() + (v == x).sum() / 2 for x in v]) for v in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1]) if all(np.ptp(r) > 0 for r in ranks) else 0.0


def by_formula(weights: np.ndarray, counts: np.ndarray) -> bool:
    """Whether three weights and more are the inverse of different frequencies, or of their roots, number for number."""
    products = [np.log(weights) + power * np.log(counts) for power in (0.5, 1.0)]
    return len(set(counts.tolist())) >= 3 and min(float(np.ptp(one)) for one in products) < EQUAL


@check("batches", "model", "outputs", "priors", "losses")
def class_weights_are_those_of_their_classes(patient: Patient) -> Iterator[Finding]:
    """Where classes have weights in the loss, are these in the order of the logits?"""
    weights, on = weights_of(patient), bench(patient)
    values = np.array(list(weights.values()))
    if len(weights) < 4 or values.max() < (1 + 10 * EQUAL) * values.min():
        return
    counts = frequencies(patient, on.classes - 1)
    says = warning if patient.has("data") else note  # of a few batches the frequencies are left to chance
    yield from [*last_alone(weights, counts, says), *of_another_class(weights, counts, says)][:1]


def last_alone(weights: dict[int, float], counts: np.ndarray, says: Callable[..., Finding]) -> Iterator[Finding]:
    """All weights are that of background but the last class's, which is no odd one: it was meant for background."""
    last = len(counts) - 1
    others = np.array([weight for label, weight in weights.items() if label != last])
    if last not in weights or np.ptp(others) > EQUAL:
        return
    own, objects_of = weights[last], counts[1:][counts[1:] > 0]
    due = counts[last] == (objects_of.max() if own < 1 else objects_of.min())  # held back as the most frequent
    if not due and abs(own - 1) > 10 * EQUAL:
        yield says(
            f"the last class, label {last}, costs {own:.3g} times as much as background, and all other classes as much "
            f"as background: it has {counts[last]:.0f} objects, and others have {objects_of.min():.0f} to "
            f"{objects_of.max():.0f}",
            "if that weight is meant for background, the last class is learned with it, and background without",
            CURE,
            CHAPTER,
        )


def of_another_class(weights: dict[int, float], counts: np.ndarray, says: Callable[..., Finding]) -> Iterator[Finding]:
    """Weights that fall with the frequencies of the classes one further, and not with those of their own."""
    known = [label for label in weights if label and counts[label] > 0]
    moved = [label for label in known if label - 1 in weights]
    if not known or not moved:
        return
    (own, _), (before, certain) = (
        (ranked(values, counts[labels]), len(labels) >= FEWEST or by_formula(values, counts[labels]))
        for values, labels in (
            (np.array([weights[label] for label in known]), known),
            (np.array([weights[label - 1] for label in moved]), moved),
        )
    )
    most = max(known, key=lambda label: counts[label])
    if certain and before < FALLS and own > DOES_NOT:
        yield says(
            f"weights of classes fall with the frequency of the next class: the correlation of ranks is {before:.2f}, "
            f"and {own:.2f} with their own (label {most}, of {counts[most]:.0f} objects the most frequent, costs "
            f"{weights[most]:.3g} times as much as background)",
            f"the tensor begins with the first class, and background's weight is its last: {WHY}",
            CURE,
            CHAPTER,
        )
    elif own > -FALLS and len(known) >= FEWEST:
        yield note(
            f"the more objects a class has, the more it weighs in the loss: a correlation of ranks of {own:.2f}",
            "frequent classes are pushed, and rare ones held back: the reverse is usual",
            "divide by the frequencies, or by their roots; look at the order of the tensor",
            CHAPTER,
        )


CHECKS = (class_weights_are_those_of_their_classes,)
