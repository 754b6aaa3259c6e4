"""Checks of the loss: what it is at first, and what it rewards, as a function that is given answers of our own."""

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.batches import Batch
from course_lib.doctor import class_weights
from course_lib.doctor.bench import Bench, bench, dealt, spoken
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.layers import some
from course_lib.doctor.network import answers
from course_lib.doctor.patient import Patient, images_of
from course_lib.losses import total
from course_lib.matching import Matches


@check("batches", "losses")
def first_loss(patient: Patient) -> Iterator[Finding]:
    """Is the loss of the first batch a number of a usual size, with a way back to the weights?"""
    with torch.enable_grad():
        parts = dict(patient.losses(patient.few_images()))
    values = {name: float(value.detach().sum()) for name, value in parts.items()}
    told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    if bad := [name for name, value in values.items() if not abs(value) < float("inf")]:
        yield fault(
            f"the first loss is not finite: {told}",
            "one step makes every weight NaN",
            f"look at what {', '.join(bad)} divides by and takes the logarithm of",
            7,
        )
        return
    loose = [name for name, value in parts.items() if not value.requires_grad]
    if len(loose) == len(parts):
        yield fault(
            f"the losses ({told}) have no graph: no gradient can go back from them",
            "backward fails, or teaches nothing",
            "compute them from the network's outputs, without detach, item, no_grad, or a new tensor",
            7,
        )
    elif loose:
        yield fault(
            f"{', '.join(loose)} has no graph ({told})",
            "this part of the loss is shown, and teaches nothing",
            "compute it from the network's outputs, without detach, item, no_grad, or a new tensor",
            7,
        )
    largest = max(values, key=values.__getitem__)
    # 3 to 30 per part on healthy set-ups; 4,722 in the published log with boxes in pixels.
    if values[largest] > 1000:
        yield fault(
            f"the first loss is in the thousands: {told}",
            "such a loss falls by much while nothing is learned: first the units and the normaliser must be right",
            "boxes and priors in one unit, offsets encoded, the sum divided by the positives",
            7,
        )
    elif values[largest] > 150:
        yield warning(
            f"the first loss is large: {told}",
            "about 12 is due for 20 classes: (1 + 3) ln 21 for the classes, 1 to 5 for the boxes",
            "look at the normaliser, at mining, and at the first biases of the class heads",
            7,
        )
    elif values[largest] > 40:
        yield note(
            f"the first loss is rather large: {told}",
            "about 12 is due for 20 classes: (1 + 3) ln 21 for the classes, 1 to 5 for the boxes; what is multiplied "
            "with a constant outweighs the rest, and the clip is met more often",
            "look at weights of the classes (each prior's cost times that of its own class, and not the whole vector), "
            "at the normaliser and at mining",
            7,
        )
    if min(values.values()) < -1e-6:
        yield fault(f"the first loss is negative: {told}", "there is no lowest loss to come to", "look at its sign", 7)


@check("batches", "model", "outputs", "priors", "losses")
def loss_rewards_the_right_class(patient: Patient) -> Iterator[Finding]:
    """Does the right class, named with confidence, cost much less than to know nothing?"""
    on = bench(patient)
    if on is None:
        return
    boxes, classes = on.told.offsets, on.classes
    if not patient.has("loss"):  # else `loss_is_normalised` looks
        yield from cost_of_knowing_nothing(on)
    unknown = on.cost(boxes, torch.zeros_like(on.right()))
    right = min(on.cost(boxes, on.right(size)) for size in (1.0, 2.0, 4.0, 8.0))
    noise = on.noise()
    along = torch.linspace(-2, 2, classes).to(noise).expand_as(noise)
    if right == unknown:
        yield fault(
            f"the loss is {right:.3g} whatever the logits are",
            "the classes are not taught",
            "compute the class loss from the network's logits, without detach, item or no_grad",
            7,
        )
        return
    if on.classes > 1 and abs(on.cost(boxes, noise + along) - on.cost(boxes, noise)) < 1e-4 * on.cost(boxes, noise):
        yield fault(
            "the loss stays the same when a class is made likelier for all priors: it takes the softmax over the "
            "priors",
            "priors compete with each other in place of classes",
            "take the softmax over the last axis of [B, P, C]; cross_entropy wants the classes second",
            7,
        )
        return
    lowest = min(right, on.cost(boxes, on.right(50.0)))
    if lowest < -0.01 * abs(unknown):
        yield fault(
            f"confident answers cost less than nothing: {lowest:.3g}, where no answer at all costs {unknown:.3g}",
            "the loss falls without end while logits grow, whatever is right",
            "targets of a binary cross entropy are 0 and 1, not the number of the class",
            8,
        )
        return
    # Label smoothing of 0.1 leaves 0.2 to 0.3 of it, softmax taken twice 0.45 with one class and 0.7 with twenty.
    if right <= 0.4 * unknown:
        return
    why = "the lowest loss is not where the right classes are: it falls, and nothing is detected"
    seen = f"right answers cost {right:.3g}, and no answer at all {unknown:.3g}"
    named = other_reading(on, unknown)
    yield fault(f"{seen}: {named}", why, "cross entropy of raw logits [B, P, C] with labels, background 0", 7)


def other_reading(on: Bench, unknown: float) -> str:
    """What the loss takes for the right answer, in words."""
    boxes, labels, classes = on.told.offsets, on.told.labels, on.classes
    below = spoken((labels - 1) % classes, classes, 4.0)
    above = spoken((labels + 1) % classes, classes, 4.0)
    one_hot = nn.functional.one_hot(labels, classes).float()
    readings = (
        ("background is taken for the last column, or labels are one too low", below),
        ("labels are one too high", above),
        ("background and the first class are exchanged", on.right()[..., [1, 0, *range(2, classes)]]),
        ("the opposite of the right answer is rewarded: look at its sign", -on.right()),
        ("background alone is rewarded: the labels do not count", spoken(torch.zeros_like(labels), classes, 4.0)),
        ("logits are compared with 0 and 1, as by MSE", one_hot),
    )
    for words, logits in readings:
        if on.cost(boxes, logits) < 0.2 * unknown:
            return words
    steeper = on.cost(boxes, on.right(50.0))
    if steeper > 0.3 * unknown and abs(steeper - on.cost(boxes, on.right(8.0))) < 0.05 * unknown:
        return "more confidence does not help: probabilities are made twice (softmax before a loss with its own)"
    return "the labels hardly count"


@check("batches", "model", "outputs", "priors", "losses")
def loss_teaches_boxes(patient: Patient) -> Iterator[Finding]:
    """Do the offsets of positives, and of no others, get gradients towards their targets?"""
    on = bench(patient)
    if on is None:
        return
    boxes, positive, negative = on.told.offsets, on.positive, on.negative
    generator = torch.Generator().manual_seed(0)
    aside = 0.5 * (2.0 * torch.randint(0, 2, boxes.shape, generator=generator).to(boxes) - 1)
    beside = torch.where(on.told.labels[..., None] > 0, boxes + aside, boxes)
    slope, _ = on.slopes(beside, on.right())
    own, wanted = slope[positive], aside[positive]
    perfect, off = on.cost(boxes, on.right()), on.cost(beside, on.right())
    if not len(own):
        return
    if float(own.abs().max()) == 0:
        yield fault(
            "the loss does not change with the offsets of the positives",
            "boxes are never taught: each stays what its prior is",
            "add smooth L1 between predicted and matched offsets of the positives",
            7,
        )
        return
    idle = [("dx", "dy", "dw", "dh")[column] for column in range(4) if float(own[:, column].abs().max()) == 0]
    if idle:
        seen = f"{', '.join(idle)} get no gradient"
        yield fault(seen, "these are never taught", "compare all four offsets", 7)
    towards = float(((own * wanted).sum(dim=1) > 0).float().mean())
    if on.free and (towards < 0.95 or off <= perfect):
        yield fault(
            f"the gradient points towards the matched offsets at {towards:.0%} of the positives; right boxes cost "
            f"{perfect:.3g}, and boxes half a unit beside them {off:.3g}",
            "the lowest loss is not where the boxes are right",
            "compare predicted offsets with the matched ones of the same prior, column by column",
            7,
        )
    # All offsets aside: what a prior on background predicts must not matter.
    taught = (on.slopes(boxes + aside, on.right())[0][negative].abs().amax(dim=-1) > 0).float()
    if len(taught) and float(taught.mean()) > 0.001:
        yield fault(
            f"{float(taught.mean()):.0%} of the priors on background get a gradient for their offsets",
            "background has no box: thousands of priors are taught a meaningless one, and outweigh the positives",
            "sum the box loss over positives alone",
            7,
        )
    yield from weight_of_boxes(on, off - perfect)


def weight_of_boxes(on: Bench, cost: float) -> Iterator[Finding]:
    """Compare what half a unit beside in all four offsets costs with smooth L1: 0.125 each, 0.5 for each positive."""
    if not on.free:
        return
    share = cost / 0.5
    if 0 < share < 0.05 or share > 20:
        yield warning(
            f"boxes half a unit beside cost {cost:.3g} for each positive, {share:.3g} times smooth L1's 0.5",
            "boxes and classes are weighed unequally: one of them is hardly taught",
            "divide the sum over positives and four offsets by the number of positives, once",
            7,
        )
    elif 0 < share < 0.15 or share > 8:
        yield note(
            f"boxes half a unit beside cost {share:.2g} times smooth L1's 0.5 for each positive",
            "the paper weighs boxes and classes alike: so the other half is taught first",
            "1 is usual as the weight of the boxes; 2 where they lag behind",
            7,
        )
    elif 0.2 < share < 0.3:
        yield note(
            f"boxes cost {share:.2f} of what smooth L1 summed over four offsets does: the mean is taken",
            "the boxes weigh a quarter of what the paper gives them",
            'reduction="sum", divided by the number of positives',
            7,
        )


@check("batches", "model", "outputs", "priors", "losses")
def loss_teaches_classes(patient: Patient) -> Iterator[Finding]:
    """Do the logits of positives get gradients towards their class, and some negatives towards background?"""
    on = bench(patient)
    if on is None:
        return
    boxes, labels = on.told.offsets, on.told.labels
    noise = 0.1 * on.noise()
    slope = on.slopes(boxes, noise)[1]
    positive, negative = slope[on.positive], slope[on.negative]
    if not len(positive) or not len(negative):
        return
    told = labels[on.positive]
    pull = pulls(patient, on)
    untaught = [label for label in pull if pull[label] == 0]
    if len(untaught) < len(pull):  # these have a check of their own
        others = ~torch.isin(told, torch.tensor(untaught, device=told.device))
        positive, told = positive[others], told[others]
    own = positive.gather(1, told[:, None]).squeeze(1)
    raised = float((own < 0).float().mean()) if len(own) else 1.0
    if raised < 0.9:
        best = positive.argmin(dim=1)
        shift = (best - told)[positive.abs().amax(dim=1) > 0]
        how = f"; it raises the class {int(shift.mode().values):+d} columns beside" if len(shift) else ", or any class"
        if len(shift) and float((best == 0).float().mean()) > 0.9:
            how = "; it raises background"
        yield fault(
            f"the gradient raises the own class at only {raised:.0%} of the positives{how}",
            "objects are taught as another class, as background, or not at all",
            "labels count background as 0; take all positives into the class loss",
            7,
        )
    taught = negative.abs().amax(dim=1) > 0
    if not taught.any():
        yield fault(
            f"none of {len(negative)} priors on background gets a gradient for its classes",
            "no background is ever taught: everything will be detected as an object",
            "take the hardest negatives of each image into the class loss, three for each positive",
            7,
        )
        return
    lowered = (negative[:, 0] - negative[:, 1:].mean(dim=1))[taught] < 0
    if lowered.float().mean() < 0.9:
        yield fault(
            f"only {lowered.float().mean():.0%} of the negatives that count are taught background",
            "background is taught as an object",
            "the label of background is 0, and its column the first",
            7,
        )
    yield from hard_negatives(on)
    yield from positives_compete(on)
    yield from confident_mistakes(on, float(slope[on.positive].abs().sum()))


@check("batches", "model", "outputs", "priors", "losses")
def loss_teaches_every_class(patient: Patient) -> Iterator[Finding]:
    """Do objects of every class count, one class about as much as another?"""
    on = bench(patient)
    if on is None:
        return
    found = pulls(patient, on)
    if len(found) < 2 or not max(found.values()) > 0:
        return
    names = patient.classes if patient.classes is not None and len(patient.classes) == on.classes - 1 else None
    told = {label: names[label - 1] if names else f"class {label}" for label in found}
    if idle := [label for label, pull in found.items() if pull == 0]:
        where = f", label {idle[0]} of 0 to {on.classes - 1}" if len(idle) == 1 else ""
        yield fault(
            f"the class loss teaches nothing of {some([told[label] for label in idle], 5)}{where}: with that target "
            "the logit of the own class gets no gradient",
            "objects of this class change nothing: it is never named, and its AP stays 0",
            "ignore_index is a number that is no class, such as -100; no class has the weight 0; the loss takes all "
            "columns of the logits",
            7,
        )
    usual = float(torch.tensor([pull for pull in found.values() if pull > 0]).quantile(0.5))
    # A focal loss and weights between 0.2 and 5 leave 0.1 and more.
    if light := {label: pull / usual for label, pull in found.items() if 0 < pull < LEAST_PULL * usual}:
        least = min(light, key=light.__getitem__)
        yield warning(
            f"objects of {some([told[label] for label in light], 5)} count {light[least]:.2g} times as much as those "
            "of a usual class",
            "a class that weighs so little beside the others is hardly taught",
            "weights of classes that differ by tens at the most: their frequencies' roots, or bounded",
            7,
        )


LEAST_PULL = 0.01


def pulls(patient: Patient, on: Bench) -> dict[int, float]:
    """How hard the loss raises the own class at positives that are taken for background, by class; 0: not at all.

    All classes are dealt out to the positives, where the loss takes other matches; else there are those of the batch.
    """
    return patient.remembered("pulls", lambda: dict(pulled(on)))


def pulled(on: Bench) -> Iterator[tuple[int, float]]:
    logits = 0.1 * on.noise()
    logits[..., 0] += 3.0
    own: list[Tensor] = []
    labels: list[Tensor] = []
    for told, other in dealt(on):
        slope = on.slopes(on.told.offsets, logits, other)[1][on.positive]
        labels.append(told[on.positive])
        own.append(-slope.gather(1, labels[-1].long()[:, None]).squeeze(1))
    if not own:
        return
    taught, pull = torch.cat(labels), torch.cat(own).clamp(min=0)
    for label in taught.unique().tolist():
        mine = pull[taught == label]
        if on.free or len(mine) >= SURE_POSITIVES:  # of a loop's own matching not each positive is known
            mean = float(mine.mean())
            yield label, mean if mean > 1e-6 * float(pull.max()) else 0.0


SURE_POSITIVES = 3


def positives_compete(on: Bench) -> Iterator[Finding]:
    """Whether fewer negatives are mined where positives are wrong: then these take their places."""
    noise = 0.1 * on.noise()
    counts = []
    for size in (8.0, -8.0):
        logits = torch.where(on.positive[..., None], on.right(size), noise)
        slope = on.slopes(on.told.offsets, logits)[1].abs().amax(dim=-1)
        counts.append(int((slope[on.negative] > 1e-3 * slope.max()).sum()))
    if counts[0] < 0.9 * int(on.negative.sum()) and counts[1] < 0.8 * counts[0]:
        yield warning(
            f"{counts[1]} negatives are mined where positives are wrong, and {counts[0]} where they are right: "
            "positives "
            "are ranked among the negatives",
            "at the start, when positives are wrong, hardly any background is taught",
            "leave positives out of the ranking: set their loss to 0 or below before it is sorted",
            7,
        )


def confident_mistakes(on: Bench, undecided: float) -> Iterator[Finding]:
    """Whether positives that are confidently taken for background are corrected as hard as undecided ones, or harder.

    With cross entropy and with focal losses they are; a square of probabilities is flat there.
    """
    slope = on.slopes(on.told.offsets, spoken(torch.zeros_like(on.told.labels), on.classes, 6.0))[1]
    wrong = float(slope[on.positive].abs().sum())
    if wrong < 0.05 * undecided:
        yield fault(
            f"objects that are confidently taken for background get {wrong / undecided:.1%} of the gradient that "
            "undecided "
            "ones get",
            "what is wrong with confidence is never corrected, and most priors begin as background",
            "cross entropy of logits; MSE is for numbers, not for classes",
            7,
        )


def hard_negatives(on: Bench) -> Iterator[Finding]:
    """Whether negatives that are taken for objects count, where all others are right."""
    logits, hard = on.right().clone(), torch.zeros_like(on.negative)
    for image in range(len(logits)):
        places = on.negative[image].nonzero().flatten()
        count = min(int((on.told.labels[image] > 0).sum()), 10, len(places) // 2)
        hard[image, places[torch.linspace(0, len(places) - 1, count).long()]] = True
    if not hard.any():
        return
    mistaken = torch.ones_like(on.told.labels)
    logits[hard] = spoken(mistaken, on.classes, 4.0)[hard]
    slope = on.slopes(on.told.offsets, logits)[1].abs().amax(dim=-1)
    counted = slope[hard] > 1e-3 * slope.max()
    share = float(counted.float().mean())
    if share < 0.8:
        yield (fault if share == 0 else warning)(
            f"of negatives that are confidently taken for objects, {share:.0%} count in the class loss, while "
            f"{int((slope[on.negative & ~hard] > 0).sum())} easy ones do",
            "mistakes on background are not corrected: detections are full of false ones",
            "sort negatives by their own class loss, the largest first, in each image",
            7,
        )


@check("batches", "model", "outputs", "priors", "losses")
def loss_balances_background(patient: Patient) -> Iterator[Finding]:
    """Do background and objects weigh about alike for the network as it starts?"""
    on = bench(patient)
    if on is None:
        return
    offsets, logits = (values[on.rows].to(on.told.offsets) for values in answers(patient))
    if float(logits.std(dim=(0, 1)).median()) > 1:  # it has learned something already
        return
    positive, negative = weights_of_objects_and_background(on, offsets, logits)
    # Heads that expect background have next to nothing to learn of it: what it weighs shows where nothing is expected.
    unaware, blind = weights_of_objects_and_background(on, offsets, torch.zeros_like(logits))
    # 1 to 10 with mining or a focal loss whose heads expect background, 15 with weights that differ by 25 times; all
    # priors alike give the number of priors for each positive, 30 to 500.
    if 0 < blind < LEAST_BACKGROUND * unaware:
        yield fault(
            f"background weighs {blind / unaware:.2g} times as much as all objects in the gradient of the classes",
            "nothing teaches where no object is: it reports objects everywhere",
            "leave background at weight 1; weights that balance classes are counted by objects, not by priors, which "
            "are nearly all background",
            8,
        )
    elif positive > 0 and negative > NOTED_BACKGROUND * positive:
        yield (fault if negative > MOST_BACKGROUND * positive else warning)(
            f"background weighs {negative / positive:.0f} times as much as all objects in the gradient of the classes",
            "the first thousand steps teach background alone; the loss falls by nine tenths without one detection",
            "mine three hard negatives for each positive, or let the heads of a focal loss expect background "
            "(losses.expect_background)",
            8,
        )


def weights_of_objects_and_background(on: Bench, offsets: Tensor, logits: Tensor) -> tuple[float, float]:
    """How much gradient the logits of all positives get in all, and those of all negatives."""
    slope = on.slopes(offsets, logits)[1].abs().sum(dim=-1)
    return float(slope[on.told.labels > 0].sum()), float(slope[on.told.labels == 0].sum())


LEAST_BACKGROUND, NOTED_BACKGROUND, MOST_BACKGROUND = 0.05, 25, 40


@check("batches", "model", "outputs", "priors", "losses", "loss")
def loss_is_normalised(patient: Patient) -> Iterator[Finding]:
    """Does the loss stay the same when a batch is taken twice, and what does it cost to know nothing?"""
    on = bench(patient)
    if on is None or not on.free:
        return
    boxes, noise = on.told.offsets + 0.5, on.noise()
    twice = Matches(*(torch.cat([part, part]) for part in on.told))
    with torch.no_grad():
        once = float(total(dict(on.call(boxes, noise))))
        double = float(total(dict(on.call(torch.cat([boxes, boxes]), torch.cat([noise, noise]), twice))))
    ratio = double / once if once else 1.0
    cure = "divide the sum by the number of positives in the batch, once"
    if ratio > 1.3:
        yield warning(
            f"the loss of the same images twice is {ratio:.2f} times that of once: it is a sum, not divided by "
            "positives",
            "its size, and with it every step and the clipping, depends on batch size and number of objects",
            cure,
            7,
        )
    elif ratio < 0.77:
        yield warning(
            f"the loss of the same images twice is {ratio:.2f} times that of once: it is divided by images and "
            "positives",
            "the larger the batch, the less is learned from it",
            cure,
            7,
        )
    yield from cost_of_knowing_nothing(on)


def cost_of_knowing_nothing(on: Bench) -> Iterator[Finding]:
    """Compare the loss at equal logits with ln C for each positive: 4 ln C with three negatives each."""
    cost = on.cost(on.told.offsets, torch.zeros_like(on.right()))
    if 0 < cost < 0.2 * log(on.classes):
        yield warning(
            f"to know nothing costs {cost:.3g}, where ln {on.classes} = {log(on.classes):.2f} is due for each positive",
            "the classes are divided by more than the positives, and are hardly taught beside the boxes",
            "divide the sum by the number of positives in the batch, once",
            7,
        )


@check("batches", "model", "outputs", "priors", "losses", "loss")
def loss_survives(patient: Patient) -> Iterator[Finding]:
    """Is the loss finite, and with a graph, for images without objects and for large logits?"""
    on = bench(patient)
    if on is None or not on.free:
        return
    none = Matches(
        torch.zeros_like(on.told.labels), torch.zeros_like(on.told.offsets), torch.full_like(on.told.gt_index, -1)
    )
    leaves = [torch.zeros_like(on.told.offsets), torch.zeros_like(on.right())]
    leaves = [leaf.requires_grad_(True) for leaf in leaves]
    with torch.enable_grad():
        loss = total(dict(on.call(*leaves, none)))
    if not loss.isfinite():
        yield fault(
            f"a batch without any object has a loss of {float(loss.detach())}",
            "augmentation or the data will give such a batch, and every weight becomes NaN",
            "divide by the number of positives, but at least by 1",
            7,
        )
    elif not loss.requires_grad:
        yield warning(
            "a batch without any object has a loss that is a constant, without a graph",
            "backward fails on such a batch",
            "multiply by a mask rather than return a new tensor",
            7,
        )
    large = on.right(1.0) * 100
    loss, slope = on.cost(on.told.offsets, -large), on.slopes(on.told.offsets, -large)[1]
    if not abs(loss) < float("inf") or not slope.isfinite().all():
        yield warning(
            f"logits of 100 give a loss of {loss:.3g} and {int((~slope.isfinite()).sum())} gradients that are NaN "
            "or infinite",
            "one prior that is wrong with confidence makes every weight NaN",
            "use cross_entropy or logsigmoid on logits; exp of them overflows from 89 on",
            7,
        )


@check("batches", "losses")
def loss_ignores_the_order(patient: Patient) -> Iterator[Finding]:
    """Does the loss stay the same when the images of a batch come in another order?"""
    batch = patient.few_images()
    turned = in_reverse(batch)
    if turned is None:
        return
    with torch.no_grad():
        usual, *again, other = (float(total(dict(patient.losses(one)))) for one in (*[batch] * 4, turned))
    chance = max(usual, *again) - min(usual, *again)  # dropout, and whatever else is drawn
    if abs(other - usual) > 0.03 * abs(usual) + 3 * chance:
        yield warning(
            f"the loss of a batch is {usual:.4g}, and {other:.4g} with its images in reverse order",
            "one image decides for all: what one teaches is multiplied by what another has",
            "look for a number of one image that is used for the whole batch, such as the positives of the last one "
            "in a loop",
            7,
        )


def in_reverse(batch: Any) -> Any:
    """A batch with its images in reverse order; None where it is not of one image a row."""
    if isinstance(batch, Batch):
        return images_of(batch, torch.arange(len(batch.images)).flip(0))
    if not isinstance(batch, list | tuple) or len({len(part) for part in batch if hasattr(part, "__len__")}) != 1:
        return None
    if not all(isinstance(part, list | tuple | Tensor) for part in batch) or len(batch[0]) < 2:
        return None
    return type(batch)(part.flip(0) if isinstance(part, Tensor) else type(part)(part[::-1]) for part in batch)


CHECKS = (
    first_loss,
    loss_rewards_the_right_class,
    loss_teaches_boxes,
    loss_teaches_classes,
    loss_teaches_every_class,
    *class_weights.CHECKS,
    loss_balances_background,
    loss_is_normalised,
    loss_survives,
    loss_ignores_the_order,
)
