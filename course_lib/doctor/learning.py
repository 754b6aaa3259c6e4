"""Checks of learning: does it learn one batch, what of it, how fast, and does its detection find what it has learned?

They share one trial (`trial`), in which the patient takes its own steps on a few images until it should know them by
heart. Its thresholds are from healthy trainings of `museum.healthy`: with and without a trained trunk, with each loss,
by SGD and AdamW. There 100 steps leave at most an eighth of the loss, every object is found, and the boxes of priors
overlap their objects by 0.92 and more, where they begin at 0.54.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, log2
from statistics import median

import torch
from torch import Tensor

from course_lib.batches import Batch
from course_lib.detect import Detections
from course_lib.doctor import answers, averages, decodings, histories
from course_lib.doctor.answers import Found, Grasp
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.trial import Steps, Taken, Trial, losses_of, parts_of, trial_of, usual_batch

SLOW = 0.3  # of the loss: healthy trainings leave less, unless their rate is far lower than usual
RANGE = 24  # steps of the test of rates
UNSEEN = 30  # steps of the training that is asked about images it has not seen
NEEDS = ("batches", "model", "optimizer", "step")


@dataclass(frozen=True)
class Outcome:
    """What a trial was, and what the patient's answers on its images were worth before and after it.

    Attributes:
        trial: the steps.
        read: the batch as this course's.
        before: of the priors, by their outputs while training.
        after, after_eval: the same after it, while training and in evaluation mode.
        train, eval: what this course's detection finds with the outputs of either mode.
        book, offsets: the detections of evaluation mode, and what they are made of.
        own: those of the patient's own `detect`.
        own_found: what they find.
    """

    trial: Trial
    read: Batch | None = None
    before: Grasp | None = None
    after: Grasp | None = None
    after_eval: Grasp | None = None
    train: Found | None = None
    eval: Found | None = None
    book: list[Detections] | None = None
    offsets: Tensor | None = None
    own: list[Detections] | None = None
    own_found: Found | None = None

    @property
    def found(self) -> float | None:
        """The share of the objects that is found by whatever finds most; None where nothing can be detected."""
        shares = [one.right for one in (self.train, self.eval, self.own_found) if one is not None]
        return max(shares) if shares else None

    @property
    def best(self) -> Grasp:
        """The better of the priors' answers in either mode."""
        return max(self.after, self.after_eval, key=lambda one: one.iou)

    @property
    def slow(self) -> bool:
        """Whether much of the loss is left: then it counts what has become better, else what is good."""
        return self.trial.share_left > SLOW

    @property
    def fits(self) -> bool:
        """Whether boxes are learned: priors overlap their objects from the start, and are to do so better."""
        if self.own_found and self.own_found.iou >= 0.8:
            return True
        return self.best.iou >= 0.8 or (self.slow and self.best.iou - self.before.iou >= 0.04)

    @property
    def names(self) -> bool:
        """Whether classes are learned: which one, where there are several, and where there is an object at all."""
        several = len(self.read.labels[self.read.labels > 0].unique()) > 1
        if several and self.best.named < 0.75 and not (self.slow and self.best.named - self.before.named >= 0.1):
            return False
        told = self.best.told
        return told >= 0.95 or (self.slow and (told >= 0.85 or told - self.before.told >= 0.1))

    @property
    def known(self) -> bool:
        """Whether the network knew such images before the trial: then there is little to learn, and little falls."""
        known = self.before is not None and self.before.named >= 0.75 and self.before.told >= 0.9
        return known and self.before.iou >= 0.65


def outcome(patient: Patient) -> Outcome:
    """The trial that all checks here look at."""
    return patient.remembered("trial", lambda: tried(patient))


def tried(patient: Patient) -> Outcome:
    batch = usual_batch(patient)
    read = patient.read(batch).to("cpu") if patient.has("read") else None
    decodes = read is not None and patient.has("outputs") and patient.has("priors")
    before = answers.by_the_book(patient, batch, read, training=True).grasp if decodes else None
    trial = trial_of(patient, batch)
    if not trial.finite or not decodes:
        return Outcome(trial, read, before)
    train, evaluated = (answers.by_the_book(patient, batch, read, training=mode) for mode in (True, False))
    own = [in_memory(one) for one in patient.detect(batch)] if patient.has("detect") else None
    own_found = answers.found(own, read) if own is not None else None
    return Outcome(
        trial=trial,
        read=read,
        before=before,
        after=train.grasp,
        after_eval=evaluated.grasp,
        train=train.found,
        eval=evaluated.found,
        book=evaluated.detections,
        offsets=evaluated.offsets,
        own=own,
        own_found=own_found,
    )


def in_memory(one: Detections) -> Detections:
    return Detections(*(values.detach().cpu() for values in one))


@check(*NEEDS, learning=True)
def overfits_one_batch(patient: Patient) -> Iterator[Finding]:
    """Can it learn a few images by heart?"""
    seen = outcome(patient)
    trial, steps = seen.trial, len(seen.trial.steps)
    if not trial.finite:
        yield not_finite(trial)
        return
    found = seen.found
    if trial.first() == 0:
        yield fault(
            "the loss is 0 from the first step on",
            "there is nothing to learn: no prior answers for an object, and so none for background",
            "look at matching: boxes and priors in one unit and order, labels above 0",
            6,
        )
    elif found is not None and ((seen.known and found >= 0.5) or (found >= 0.7 and seen.fits and seen.names)):
        yield note(
            f"knew or learned {len(seen.read.images)} images by heart in {steps} steps: {trial.parts()}; "
            f"{found:.0%} of their {len(seen.eval.labels)} objects are found",
            "data, targets, loss, network and optimizer work together",
            "nothing to do",
            13,
        )
    elif trial.share_left > 0.85:
        yield did_not_learn(trial, found)
    elif seen.before is not None:
        yield from what_was_learned(seen)
    else:
        yield note(
            f"{len(trial.steps)} steps on one batch left {trial.share_left:.0%} of the loss: {trial.parts()}",
            "whether that finds objects cannot be told without outputs, priors and read",
            "give the patient these too",
            13,
        )


def not_finite(trial: Trial) -> Finding:
    last = trial.steps[-1]
    parts = ", ".join(f"{name} {value:.3g}" for name, value in last.losses.items())
    before = ", ".join(f"{one.total:.3g}" for one in trial.steps[-4:-1])
    return fault(
        f"step {len(trial.steps)} on one batch gave {parts} and a gradient of length {last.before:.3g}, at a rate of "
        f"{last.rate:.2g}; the losses before it were {before or 'none'}",
        "one step of NaN makes every weight NaN, and nothing can be learned from there on",
        "where the losses grew before, lower the learning rate; where it came at once, look for a logarithm of 0, a "
        "division by 0 positives, or an exponential without a limit",
        9,
    )


def did_not_learn(trial: Trial, found: float | None) -> Finding:
    """Why the loss stays where it was, as far as the steps tell."""
    updates, norm = trial.updates(), trial.norm()
    moved = max(updates.values(), default=float("nan"))
    rate = max(step.rate for step in trial.steps)
    facts = f"gradient {norm:.2g} long, rate {rate:.2g}, kernels move by {moved:.1e} of their length in a step"
    if rate == 0:
        facts = "the optimizer took no step, or one at rate 0"
        cure = "the optimizer takes no step, or at rate 0: call its step, give it the model's parameters, and a rate"
    elif trial.share_left > 1.5 or moved > 0.1:
        cure = "the steps are too long: divide the learning rate by 10, and warm up"
    elif trial.clipped > 0.9 and norm > LONG * (limit := median(one.after for one in trial.steps if one.clipped)):
        cure = (
            f"clipping makes {limit:.2g} of every gradient of {norm:.2g}: clip at what the longest healthy ones have, "
            "some ten, or take a rate that goes with the clip"
        )
    elif not moved >= 1e-6:
        cure = "the weights stand still: look at the rate, at what is frozen, and whether these are the model's weights"
    elif norm < 1e-6:
        cure = "no gradient reaches the weights: look for detach, no_grad, argmax, or dead units on the way"
    else:
        cure = (
            "multiply the learning rate by 10 and see; if that helps nothing, the loss does not depend on the answers"
        )
    objects = f"; {found:.0%} of the objects are found" if found is not None else ""
    return fault(
        f"{len(trial.steps)} steps on the same images left the loss at {trial.share_left:.0%} of what it was: "
        f"{trial.parts()}; {facts}{objects}",
        "what cannot learn a few images by heart learns nothing from thousands",
        cure,
        9,
    )


def what_was_learned(seen: Outcome) -> Iterator[Finding]:
    """The loss fell, and few objects are found: which half is missing?"""
    trial, before, after = seen.trial, seen.before, seen.best
    objects = int((seen.read.labels > 0).sum())
    fell = f"the loss fell to {trial.share_left:.0%} ({trial.parts()}); {seen.found:.0%} of {objects} objects are found"
    if not objects:
        yield fault(
            "none of the first batches has an object",
            "without objects a detector learns that everything is background",
            "look at the boxes and labels that the loop's loss is given",
            1,
        )
        return
    if not before.priors:
        yield fault(
            f"{fell}: no object overlaps any prior; the objects reach from {extent(seen.read)}, and priors are "
            "fractions of the image",
            "the loss falls because constant answers are learned; a detector cannot come of it",
            "give matching, encoding and loss boxes in the unit and order of the priors",
            6,
        )
        return
    boxes, classes = seen.fits, seen.names
    numbers = (
        f"at the {after.priors} priors that answer for an object, the overlap of their boxes with it went from "
        f"{before.iou:.2f} to {after.iou:.2f}, and the share with the right class from {before.named:.0%} to "
        f"{after.named:.0%}"
    )
    if boxes and classes:
        yield note(
            f"{fell}; {numbers}",
            "boxes and classes are both being learned, but slowly",
            "a higher learning rate, or a trunk that has been taught, learns a few images by heart in 100 steps",
            9,
        )
    elif boxes:
        yield fault(
            f"{fell}: it learns boxes but not classes; {numbers}",
            "a box without the right class is a false alarm: AP stays near 0 while the loss falls",
            "look at the class targets and their loss: labels against the order of the logits, background's place, the "
            "share of negatives, the weights of classes",
            7,
        )
    elif classes:
        yield fault(
            f"{fell}: it learns classes but not boxes; {numbers}",
            "a named box beside its object is a false alarm: AP stays near 0 while the loss falls",
            "look at the box targets and their loss: units, order and variances in encoding and decoding, the mask of "
            "positives, the loss's weight",
            6,
        )
    else:
        yield fault(
            f"{fell}: neither boxes nor classes are learned; {numbers}",
            "a loss that falls and finds nothing is one of something else: constants, background, other objects",
            "compare what the loss is given with the objects; are answers and targets in the priors' order?",
            14,
        )


def extent(read: Batch) -> str:
    boxes = read.boxes[read.labels > 0]
    return f"{float(boxes.min()):.3g} to {float(boxes.max()):.3g}"


@check(*NEEDS, learning=True)
def weights_keep_what_they_learn(patient: Patient) -> Iterator[Finding]:
    """Do the weights stay between two steps where the first has brought them?"""
    taken = outcome(patient).trial.steps
    back = [number for number, one in enumerate(taken) if one.kept < KEPT]
    if back:
        often = f", and as far {len(back) - 1} times more" if len(back) > 1 else ""
        yield fault(
            f"between steps {back[0]} and {back[0] + 1} the weights go back {1 - taken[back[0]].kept:.0%} of the way "
            f"that they had come{often}",
            "what was learned is taken away again, whatever the loss falls to in between",
            "load weights once, before the first step; keep the best as a copy (deepcopy(model.state_dict()): the dict "
            "alone is the weights themselves), and bring an average back behind the last step",
            9,
        )


LONG = 50  # times the limit: then the clip decides that nothing moves
KEPT = 0.3  # who looks ahead (the optimizer Lookahead) goes half of the way back


@check(*NEEDS, "outputs", "priors", "read", learning=True)
def finds_every_class(patient: Patient) -> Iterator[Finding]:
    """After it has learned a few images, does one class of them stay unfound?"""
    seen = outcome(patient)
    best = max((one for one in (seen.train, seen.eval) if one), key=lambda one: one.right, default=None)
    if best is None:
        return
    for label in best.labels.unique().tolist():
        own = best.hit[best.labels == label]
        others = best.hit[best.labels != label]
        if len(own) >= 2 and not own.any() and len(others) and others.float().mean() >= 0.9:
            yield fault(
                f"of the {len(own)} objects of class {name_of(patient, label)} none is found, of all others "
                f"{others.float().mean():.0%}, on images that it has learned by heart",
                "a class that cannot be learned by heart has no targets: its AP stays at 0",
                "look at this class's labels in the targets: taken for background, weighed with 0, or out of range",
                7,
            )


def name_of(patient: Patient, label: int) -> str:
    classes = patient.classes or ()
    return f"{label} ({classes[label - 1]})" if 0 < label <= len(classes) else str(label)


@check(*NEEDS, "outputs", "priors", "read", learning=True)
def evaluation_mode_agrees(patient: Patient) -> Iterator[Finding]:
    """Does it know in evaluation mode what it has learned in training mode?"""
    seen = outcome(patient)
    if seen.train is None or seen.train.right < 0.6 or seen.eval.right >= 0.5 * seen.train.right:
        return
    norms = [layer for layer in patient.model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    slow = [one for one in norms if one.track_running_stats and arrives_later(one.momentum, seen.trial, patient.steps)]
    facts = (
        f"{seen.train.right:.0%} of {len(seen.train.labels)} objects are found in training mode, and in evaluation "
        f"mode {seen.eval.right:.0%}"
    )
    if slow:
        yield note(
            f"{facts}; {len(slow)} batch norms have a momentum of {slow[0].momentum}, too slow for so few steps",
            "running statistics follow the weights slowly, and are not those of the images yet",
            "nothing, if the training is long; else a momentum of 0.1",
            3,
        )
        return
    yield fault(
        f"{facts}; the network has {len(norms)} batch norms",
        "measured and used is a network in evaluation mode: it does not find what training has learned",
        "look at batch norm's running statistics (momentum, a frozen or forgotten update, batches of one), and at "
        "what else differs between model.train() and model.eval()",
        3,
    )


def arrives_later(momentum: float | None, trial: Trial, steps: int | None) -> bool:
    """Whether running statistics are too slow for a trial, and not for the whole training."""
    return momentum is None or momentum * len(trial.steps) < 3 <= momentum * (steps or 10_000)


@check(*NEEDS, "outputs", "priors", "read", "detect", learning=True)
def detects_what_it_has_learned(patient: Patient) -> Iterator[Finding]:
    """Does its own detection find what this course's finds with the same outputs?"""
    seen = outcome(patient)
    if seen.own is None or seen.eval is None or seen.eval.right < 0.6 or seen.own_found.right >= 0.6 * seen.eval.right:
        return
    if averages.lags(patient, len(seen.trial.steps)):  # which `detection_follows_training` tells
        return
    said = decodings.difference(seen.own, seen.book, seen.offsets, patient.priors.cpu())
    yield fault(
        f"of {len(seen.eval.labels)} objects its own detection finds {seen.own_found.right:.0%}, and this course's "
        f"finds {seen.eval.right:.0%} with the same outputs: {said.seen}",
        "what was learned is lost on the way from the outputs to boxes: AP stays low whatever is trained",
        said.cure,
        10,
    )


@check(*NEEDS, learning=True)
def gradients_and_clipping(patient: Patient) -> Iterator[Finding]:
    """How long is the gradient before clipping, how often is it shortened, and is it this step's own?"""
    trial = outcome(patient).trial
    first, typical = trial.steps[0].before, trial.norm()
    stale = median(step.stale for step in trial.steps[1:]) if len(trial.steps) > 1 else 0.0
    if stale > 0.05:
        yield fault(
            f"the gradient of a step still holds that of the steps before, {stale:.1f} times its own",
            "gradients that add up point where the weights were long ago: it learns badly or diverges",
            "call optimizer.zero_grad() before each backward",
            9,
        )
    if not isfinite(typical):
        if all(step.rate == 0 for step in trial.steps) and trial.finite:
            yield fault(
                f"{len(trial.steps)} steps were taken, and the optimizer was not called in any of them",
                "nothing changes the weights",
                "call optimizer.step() after backward(), on the optimizer that has the model's parameters",
                9,
            )
        return
    limit = median(step.after for step in trial.steps if step.clipped) if trial.clipped else None
    if trial.clipped >= 0.9 and typical >= 1000 and typical >= 20 * limit:
        yield warning(
            f"{trial.clipped:.0%} of {len(trial.steps)} steps were clipped: the gradient is {typical:.0f} long "
            f"({first:.0f} at first), and is shortened to {limit:.3g}",
            "clipping hides a loss that is thousands of times too large: every step has the same length, whatever it "
            "should learn",
            unscale_first(limit, patient.clip_norm)
            or "find out why the loss is so large (units of the boxes, a sum that is not divided by the positives); "
            "clip for the odd step only",
            9,
        )
    elif trial.clipped > 0.5:
        yield note(
            f"{trial.clipped:.0%} of the steps on one batch were clipped: the gradient is {typical:.3g} long, and is "
            f"shortened to {limit:.3g}",
            "the clip, and not the learning rate, decides how far a step goes",
            "nothing in the first hundreds of steps; later, a higher clip_norm or a lower rate",
            9,
        )


def unscale_first(limit: float, clip_norm: float | None) -> str:
    """What to do where gradients are clipped while a scaler's factor, a power of two, is still in them."""
    for usual in [clip_norm] if clip_norm else (0.1, 0.5, 1, 2, 5, 10, 20, 35):
        doublings = log2(usual / limit)
        if doublings > 7 and abs(doublings - round(doublings)) < 0.01:
            return (
                f"the gradient is divided by a power of two behind the clip (2**{round(doublings)} if the limit is "
                f"{usual:g}): it is clipped while it is still scaled; call scaler.unscale_(optimizer) before "
                "clip_grad_norm_"
            )
    return ""


@check(*NEEDS, learning=True)
def rate_stays(patient: Patient) -> Iterator[Finding]:
    """Is the rate still of its size after some tens of steps, where the step itself changes it?"""
    own = [step.own for step in outcome(patient).trial.steps if step.own > 0]
    if len(own) >= 8 and own[-1] < max(own) / 50:
        yield warning(
            f"over {len(own)} steps the step itself lowers the rate from {max(own):.2g} to {own[-1]:.2g}",
            "soon the weights stand still, and the loss with them, wherever they are",
            "a schedule in epochs is stepped once an epoch, behind the loop over batches; else count its numbers in "
            "steps, and give the patient the schedule",
            9,
        )


@check(*NEEDS, learning=True)
def update_to_weight(patient: Patient) -> Iterator[Finding]:
    """How far do the kernels of each group move in a step, as a share of their length?"""
    trial = outcome(patient).trial
    still = {name: value for name, value in trial.updates().items() if value < 1e-6}
    wild = {name: value for name, value in trial.updates().items() if value > 0.3}
    if still:
        yield warning(
            f"kernels of {in_words(still)} of their length in a step; about 1e-3 is usual",
            "at that pace a training of thousands of steps changes next to nothing",
            "raise this group's learning rate, or look for what keeps its gradient small",
            9,
        )
    if wild:
        yield warning(
            f"kernels of {in_words(wild)} of their length in a step; about 1e-3 is usual",
            "steps that long forget what the weights were: pretrained ones are lost in the first hundred steps",
            "divide this group's learning rate by 10",
            9,
        )


def in_words(updates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} move by {value:.1e}" for name, value in updates.items())


@check(*NEEDS, learning=True)
def learning_rate_range(patient: Patient) -> Iterator[Finding]:
    """At which rates does the loss fall, and is the one that is used among them?"""
    seen = outcome(patient)
    trial = seen.trial
    with Steps(patient) as steps:
        taken = []
        for step in range(RANGE):
            taken.append(steps.step(trial.batch, 10 ** (4 * step / (RANGE - 1) - 2)))
            if not taken[-1].finite or taken[-1].total > 4 * taken[0].total:
                break
    finite = [one for one in taken if one.finite]
    if len(finite) < 5 or finite[-1].rate == 0:
        return
    low, high = falling_range(finite)
    used = finite[0].rate * 100
    text = f"on one batch the loss falls at rates from about {low:.1g} to {high:.1g}; the highest used is {used:.2g}"
    learns = trial.finite and (seen.known or trial.share_left < SLOW)
    if learns:
        yield note(text, "at the rate that is used the batch is learned by heart", "nothing to do", 9)
    elif high / 20 <= used <= high * 3:
        yield note(text, "this is where to look for a good rate", "try the upper third of that range", 9)
    else:
        yield warning(
            text,
            "far below, weights hardly move; far above, steps undo what was learned",
            f"try a rate of about {(low * high**2) ** (1 / 3):.1g}, with a warmup",
            9,
        )


def falling_range(taken: list[Taken]) -> tuple[float, float]:
    """From the rate at which the loss has fallen by a twentieth of its whole fall to that at which it is lowest.

    Args:
        taken: steps at rising rates.
    """
    smooth = [median(one.total for one in taken[max(0, i - 1) : i + 2]) for i in range(len(taken))]
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    bound = smooth[0] - 0.05 * (smooth[0] - smooth[lowest])
    first = next((i for i in range(lowest + 1) if smooth[i] < bound), lowest)
    return taken[first].rate, taken[lowest].rate


@check(*NEEDS, "losses", learning=True)
def targets_describe_images(patient: Patient) -> Iterator[Finding]:
    """Does what it learns from some images fit the objects of others better than objects of exchanged images?"""
    batches = [batch for batch in patient.first_batches(6) if isinstance(batch, Batch)]
    parts = parts_of(batches)
    if len(parts) < 6 or len(parts[0].images) < 4:
        return
    known, unseen = parts[: len(parts) * 2 // 3], parts[len(parts) * 2 // 3 :]
    with Steps(patient) as steps:
        taken = [steps.step(known[step % len(known)], min(1.0, (step + 1) / 8)) for step in range(UNSEEN)]
    if not all(one.finite for one in taken):
        return
    own, exchanged = losses_of_exchanged(patient, unseen)
    learned = taken[-1].total < 0.6 * taken[0].total
    # Healthy and with a taught trunk 0.43 of the median, from random weights 0.89; with exchanged targets 0.96.
    if learned and own > 0.93 * median(exchanged) and own > min(exchanged):
        how = warning if patient.pretrained else note  # a trunk that knows nothing may need longer
        yield how(
            f"after {UNSEEN} steps on other images the loss is {own:.3g} with an image's own objects, and "
            f"{median(exchanged):.3g} with those of another image",
            "targets that fit no better than exchanged ones do not describe the images: they can be learned by heart, "
            "and nothing else",
            "draw some images with their boxes as the loop gets them: after shuffling, caching and augmentation",
            2,
        )


@torch.no_grad()
def losses_of_exchanged(patient: Patient, batches: list[Batch]) -> tuple[float, list[float]]:
    """The loss of batches with their own targets, and with those of the image so many places on."""
    sums = []
    for places in range(len(batches[0].images)):
        moved = [
            batch._replace(boxes=batch.boxes.roll(places, 0), labels=batch.labels.roll(places, 0)) for batch in batches
        ]
        sums.append(sum(sum(losses_of(patient.losses(batch)).values()) for batch in moved))
    return sums[0], sums[1:]


@check("history")
def history_of_the_run(patient: Patient) -> Iterator[Finding]:
    """What do the losses, measurements and rates of its epochs say?"""
    yield from histories.examined(patient.history)


CHECKS = (
    weights_keep_what_they_learn,
    overfits_one_batch,
    finds_every_class,
    evaluation_mode_agrees,
    detects_what_it_has_learned,
    gradients_and_clipping,
    rate_stays,
    update_to_weight,
    learning_rate_range,
    targets_describe_images,
    history_of_the_run,
)
