"""Vital signs of a run while it trains: sampled every some steps, with findings as soon as there are any."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean, median

import torch
from torch import Tensor, nn

from course_lib.boxes import box_iou, decode
from course_lib.doctor.findings import Finding, Report, fault, note, warning
from course_lib.ssd import SCORINGS
from course_lib.training import Step, Trainer, Watch

EVERY = 25  # steps from one sample to the next: the overhead is in benchmarks/results/vital_signs.json
WINDOW = 5  # samples that a finding rests on: a single one may be of an odd batch
KEPT = 400


class VitalSigns(Watch):
    """Watches a training: give it to a `Trainer` as `watch`, in the first process only.

    On steps that are not sampled it does nothing at all. On a sampled one the host waits for the device. Nothing of it
    changes what is learned. What it has seen is not part of the run's state: a run that goes on is watched anew.

    Args:
        every: steps from one sample to the next; the first step is one.
        say: called with each new finding.
        show: called with the numbers of each sample.

    Attributes:
        samples: the last ones: "step", "lr", the losses by name, "grad_norm", "clipped" (0 or 1), "positives" (an
            image), "overlap" (mean IoU of the boxes that positives predict with their objects), "recall" (share of
            positives whose box overlaps by half and whose surest class is the object's), "update <group>" (how far its
            kernels moved, as a share of their length), "dead" (share of channels that had no gradient in five
            samples, of the layer with the most), "logits <level>" and "offsets <level>" (their deviation).
    """

    def __init__(
        self,
        every: int = EVERY,
        say: Callable[[Finding], None] = lambda finding: None,
        show: Callable[[dict[str, float]], None] = lambda numbers: None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: use a whole number of steps, at least 1")
        self.every, self.say, self.show = every, say, show
        self.count, self.parts, self.handles = 0, None, []
        self.samples: deque[dict[str, float]] = deque(maxlen=KEPT)
        self.alive: deque[dict[str, Tensor]] = deque(maxlen=WINDOW)
        self.findings: dict[str, Finding] = {}
        self.unrecorded: list[Finding] = []
        self.of_epoch = 0

    def before(self, trainer: Trainer) -> None:
        """A step begins."""
        sampled, self.count = self.count % self.every == 0, self.count + 1
        if not sampled:
            return
        self.trainer, self.parts, self.numbers = trainer, [], {}
        self.known = {"step": float(trainer.schedule.last_epoch + 1), "lr": float(trainer.rate())}
        optimizer = trainer.optimizer
        self.handles = [
            optimizer.register_step_pre_hook(self.gradients),
            optimizer.register_step_post_hook(self.movements),
        ]

    def computed(self, step: Step) -> None:
        """What the network makes of a batch, or of a part of it."""
        if self.parts is not None:
            self.parts.append(step)

    def gradients(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Before the weights change: which channels have a gradient, and where the weights are."""
        self.alive.append(
            {
                name: layer.weight.grad.flatten(1).any(dim=1)
                for name, layer in self.trainer.model.named_modules()
                if isinstance(layer, nn.Conv2d) and "heads" not in name and layer.weight.grad is not None
            }
        )
        self.weights = [[p.detach().clone() for p in kernels(group)] for group in optimizer.param_groups]

    def movements(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """After they have changed: how far."""
        for group, was in zip(optimizer.param_groups, self.weights, strict=True):
            if was:
                now = [p.detach() for p in kernels(group)]
                moved = total_norm(torch._foreach_sub(now, was)) / total_norm(was).clamp(min=1e-12)
                self.numbers[f"update {group['name']}"] = moved
        self.weights = []

    def after(self, numbers: dict[str, Tensor]) -> None:
        """A step has ended: where it was sampled, look at it."""
        if self.parts is None:
            return
        for handle in self.handles:
            handle.remove()
        one, recipe = self.trainer, self.trainer.recipe
        self.numbers |= numbers | answers(self.parts, one.model.priors, one.model.scoring) | levels(self.parts, one)
        values = torch.stack([torch.as_tensor(v, device=one.device).float() for v in self.numbers.values()]).tolist()
        sample = self.known | dict(zip(self.numbers, values, strict=True))
        sample |= {"clipped": float(sample["grad_norm"] > recipe.clip_norm), "dead": self.dead()}
        self.samples.append(sample)
        self.of_epoch += 1
        self.parts = None
        self.show(sample)
        self.look()

    def dead(self) -> float:
        """The share of channels without a gradient in all the last samples, of the layer where it is largest."""
        if len(self.alive) < WINDOW:
            return 0.0
        names = set(self.alive[0]).intersection(*self.alive)
        living = [torch.stack([one[name] for one in self.alive]).any(dim=0).float().mean() for name in names]
        # A layer without any gradient belongs to a level from which no prior was chosen.
        return max((1 - share for share in torch.stack(living).tolist() if share), default=0.0) if living else 0.0

    def look(self) -> None:
        """Report what is new."""
        if len(self.samples) <= WINDOW:
            return
        for finding in examined(list(self.samples), self.trainer.steps, self.trainer.recipe.clip_norm):
            if finding.check not in self.findings:
                self.findings[finding.check] = finding
                self.unrecorded.append(finding)
                self.say(finding)

    def record(self) -> dict:
        """What goes into an epoch's record: the means of its samples, and what was found in it."""
        samples, found = list(self.samples)[len(self.samples) - self.of_epoch :], self.unrecorded
        self.of_epoch, self.unrecorded = 0, []
        if not samples:
            return {}
        names = [name for name in samples[-1] if name not in ("step", "lr")]
        means = {name: round(fmean(one[name] for one in samples if name in one), 6) for name in names}
        return {"signs": means | {"findings": [one.as_dict() for one in found]}}

    def report(self) -> Report:
        """All that was found, as `examine` gives it."""
        return Report(tuple(self.findings.values()), tuple(SIGNS), {}, {})


def kernels(group: dict) -> list[nn.Parameter]:
    return [p for p in group["params"] if p.ndim > 1 and p.grad is not None]


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


@torch.no_grad()
def answers(parts: list[Step], priors: Tensor, scoring: str) -> dict[str, Tensor]:
    """What the positives of a step say: how many an image, how far their boxes overlap their objects, their recall."""
    wanted = torch.cat([part.matches.labels[part.matches.labels > 0] for part in parts])
    images = sum(len(part.matches.labels) for part in parts)
    if not len(wanted):
        return {name: priors.new_zeros(()) for name in ("positives", "overlap", "recall")}
    boxes, objects, named = [], [], []
    for part in parts:
        image, prior = (part.matches.labels > 0).nonzero(as_tuple=True)
        boxes.append(decode(part.offsets[image, prior].float(), priors[prior]))
        objects.append(decode(part.matches.offsets[image, prior], priors[prior]))
        scores = SCORINGS[scoring](part.logits[image, prior].float())
        named.append(scores.argmax(dim=1) if scoring == "softmax" else scores[:, 1:].argmax(dim=1) + 1)
    overlaps = box_iou(torch.cat(boxes)[:, None], torch.cat(objects)[:, None])[:, 0, 0]
    found = (overlaps >= 0.5) & (torch.cat(named) == wanted)
    count = torch.tensor(len(wanted) / images)
    return {"positives": count, "overlap": overlaps.mean(), "recall": found.float().mean()}


@torch.no_grad()
def levels(parts: list[Step], trainer: Trainer) -> dict[str, Tensor]:
    """How far the answers of each level spread."""
    spec = trainer.model.spec
    counts = [side * side * shapes for side, shapes in zip(spec.maps, spec.per_cell, strict=True)]
    return {
        f"{name} {level}": part.float().std()
        for name in ("logits", "offsets")
        for level, part in enumerate(getattr(parts[0], name).split(counts, dim=1))
    }


SIGNS = ("falling-loss", "positives", "rate", "clipping", "update-to-weight", "dead-units", "rising-loss", "levels")


def examined(samples: list[dict[str, float]], steps: int, clip_norm: float) -> Iterator[Finding]:
    """What the samples say, each finding under the name of its sign.

    Args:
        samples: as `VitalSigns` takes them.
        steps: of the whole training.
        clip_norm: to which gradients are shortened.
    """
    names = [name for name in samples[-1] if name in ("loc", "conf")]
    recent = samples[-WINDOW:]
    now = {name: median(one[name] for one in recent if name in one) for name in samples[-1]}
    first = median(sum(one[name] for name in names) for one in samples[:2])
    last = median(sum(one[name] for name in names) for one in recent)
    step = int(samples[-1]["step"])
    for sign, found in (
        ("falling-loss", falling_loss(names, samples, now, first, last, step)),
        ("positives", no_positives(now)),
        ("rate", rate_of_zero(recent, step, steps)),
        ("clipping", clipping(samples, clip_norm)),
        ("update-to-weight", movements(now, samples)),
        ("dead-units", dead_units(now)),
        ("rising-loss", rising_loss(names, samples, last)),
        ("levels", loud_levels(now)),
    ):
        if found:
            yield replace(found, check=sign)


def falling_loss(
    names: list[str], samples: list[dict], now: dict[str, float], first: float, last: float, step: int
) -> Finding | None:
    """The case that this course is about: the loss falls and nothing is found."""
    if last > 0.7 * first or not now["positives"]:
        return None
    parts = ", ".join(f"{name} from {samples[0][name]:.4g} to {now[name]:.4g}" for name in names)
    seen = (
        f"after {step} steps the loss has fallen to {last / first:.0%} ({parts}), and of the priors that answer for an "
        f"object {now['recall']:.1%} are right: their boxes overlap it by {now['overlap']:.2f}"
    )
    why = "what falls is not what finds objects: AP will be 0"
    cure = "stop, and examine the data and the targets: the units of the boxes first"
    if now["overlap"] < 0.3:
        return fault(seen, why, cure, 14)
    if step >= 1000 and now["recall"] < 0.005:
        return warning(seen, why, cure, 14)
    return None


def no_positives(now: dict[str, float]) -> Finding | None:
    if now["positives"] > 0:
        return None
    return fault(
        "most batches have no prior that answers for an object",
        "only background is learned",
        "look at the targets after augmentation, in fractions of the image, and at the priors",
        6,
    )


def rate_of_zero(recent: list[dict], step: int, steps: int) -> Finding | None:
    zero = [one for one in recent if one["lr"] == 0]
    if not zero or step > 0.95 * steps:
        return None
    return fault(
        f"the learning rate is 0 at step {int(zero[-1]['step'])} of {steps}",
        "nothing is learned in such steps",
        "look at the schedule: a warmup that begins at 0, or an end that comes too early",
        9,
    )


def clipping(samples: list[dict], clip_norm: float) -> Finding | None:
    clipped, norm = fmean(one["clipped"] for one in samples), median(one["grad_norm"] for one in samples)
    if clipped < 0.9:
        return None
    facts = (
        f"{clipped:.0%} of the steps are clipped: the gradient is {norm:.3g} long, and is shortened to {clip_norm:g}"
    )
    if norm >= max(1000.0, 20 * clip_norm):
        why = "clipping hides a loss that is thousands of times too large"
        return warning(facts, why, "find out why it is: units of the boxes, a sum that is not divided", 9)
    return note(facts, "the clip, and not the rate, decides how far a step goes", "a higher clip_norm, if it lasts", 9)


def movements(now: dict[str, float], samples: list[dict]) -> Finding | None:
    if now["lr"] < 0.1 * max(one["lr"] for one in samples):
        return None  # a schedule that ends is meant to stand still
    ratios = {name.removeprefix("update "): value for name, value in now.items() if name.startswith("update ")}
    for word, odd in (
        ("hardly move", {name: value for name, value in ratios.items() if value < 1e-6}),
        ("jump", {name: value for name, value in ratios.items() if value > 0.3}),
    ):
        if odd:
            moved = ", ".join(f"{name} by {value:.1e}" for name, value in odd.items())
            return warning(
                f"in a step the weights {word}: {moved} of their length; about 1e-3 is usual",
                "weights that stand still learn nothing, and those that jump forget what they have learned",
                "another learning rate for this group",
                9,
            )
    return None


def dead_units(now: dict[str, float]) -> Finding | None:
    if now["dead"] < 0.8:
        return None
    return warning(
        f"in one layer {now['dead']:.0%} of the channels had no gradient in {WINDOW} samples",
        "units that are never above 0 learn nothing any more",
        "a lower learning rate, a longer warmup, or a fresh start for this layer",
        9,
    )


def rising_loss(names: list[str], samples: list[dict], last: float) -> Finding | None:
    totals = [sum(one[name] for name in names) for one in samples]
    medians = [median(totals[end - WINDOW : end]) for end in range(WINDOW, len(totals) + 1)]
    if last < 1.5 * min(medians) or last < 1.1 * medians[0]:
        return None
    return warning(
        f"the loss was {min(medians):.3g} and is {last:.3g}, more than at the start",
        "the steps are too long, and undo what was learned",
        "halve the learning rate, and go on from a state before",
        9,
    )


def loud_levels(now: dict[str, float]) -> Finding | None:
    loud = {name: value for name, value in now.items() if name.startswith(("logits ", "offsets ")) and value > 50}
    if not loud:
        return None
    return warning(
        f"answers spread far on some levels: {', '.join(f'{name} by {value:.0f}' for name, value in loud.items())}",
        "such answers are sure and wrong, and their gradients drown the others'",
        "look at the scale of the feature maps (L2Norm on conv4_3), and at the rate",
        5,
    )
