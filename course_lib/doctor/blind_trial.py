"""A blind trial: faults that were planted by somebody who had never seen a check, before the doctor looked at any.

Each is kept as it was planted, with what the doctor said of it at first sight (commit 66f46d967d09, 29 November 2026).
What it missed was mended afterwards, by a property that must hold and not by the fault's trace; so this trial is used
up, as the museum is, and the next one needs other faults. Six more were planted in foreign code; they stand in
`FOREIGN` with their verdicts. `SECOND` is what somebody else planted after that, with what was said at first sight
(commit d573f78, the same day); what it missed was mended for the next one too. `THIRD` is what a third one planted,
with what was said at first sight (commit 151315e, 30 November 2026; some were examined two at a time). `FOURTH` is a
fourth one's (commit 67850be, 1 December 2026), the last twelve of it in foreign code; three checks of that commit were
written while that trial was, without sight of it. Of its eight right set-ups, some of them unusual, the checks
that its misses led to accused one, a focal loss whose background weighs little on purpose; that check was mended.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from course_lib import augment, losses, ssd, voc
from course_lib.boxes import area, box_iou, decode, encode, to_corners
from course_lib.detect import Detections
from course_lib.doctor.patient import Patient, evaluating
from course_lib.doctor.setups import Changed, InMemory, Setup, Then
from course_lib.matching import Matches
from course_lib.voc import Target

VERDICTS = ("cause", "symptom", "nothing")


@dataclass(frozen=True)
class Planted:
    """A fault of the trial.

    Attributes:
        words: what is wrong.
        at_first: what the doctor's findings named at first sight: the "cause", a "symptom" of it, or "nothing".
        plant: spoils a healthy set-up; None for foreign code.
        caught_by: checks of which one names the cause since then; empty where none does.
    """

    words: str
    at_first: str
    plant: Callable[[Setup], None] | None = None
    caught_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at_first not in VERDICTS:
            raise ValueError(f"at_first is {self.at_first!r}: use {', '.join(VERDICTS)}")


# ---- data ------------------------------------------------------------------------------------------------------------


def by_other_sides(target: Target) -> Target:
    """x divided by the height and y by the width; clipped, and without what is left of no size."""
    width, height = target.size
    boxes = (target.boxes * torch.tensor([width / height, height / width] * 2)).clamp(0, 1)
    return of_size(target, boxes)


def of_size(target: Target, boxes: Tensor) -> Target:
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0.01).all(dim=1)
    return replace(target, boxes=boxes[kept], labels=target.labels[kept], difficult=target.difficult[kept])


def upright_exchanged(setup: Setup) -> None:
    """Only in upright pictures x is divided by the height and y by the width."""

    def change(index: int, image: np.ndarray, target: Target) -> tuple:
        return image, by_other_sides(target) if image.shape[0] > image.shape[1] else target

    setup.data = Changed(setup.data, change)


def shifted_from_the_middle(setup: Setup) -> None:
    """One file is missing: from the middle of the list on each picture has its successor's boxes."""
    data = setup.data

    def change(index: int, image: np.ndarray, target: Target) -> tuple:
        if index < len(data) // 2:
            return image, target
        other = data[(index + 1) % len(data)][1]
        height, width = image.shape[:2]
        boxes = (other.boxes_px / torch.tensor([width, height] * 2)).clamp(0, 1)
        return image, of_size(replace(other, image_id=target.image_id, size=(width, height)), boxes)

    setup.data = Changed(data, change)


def first_object_alone(setup: Setup) -> None:
    """`find` stands where `findall` is due."""

    def change(index: int, image: np.ndarray, target: Target) -> tuple:
        return image, replace(target, boxes=target.boxes[:1], labels=target.labels[:1], difficult=target.difficult[:1])

    setup.data = Changed(setup.data, change)


def held_out_exchanged(setup: Setup) -> None:
    """The reader of held-out data divides x by the height and y by the width."""
    setup.held_out = Changed(setup.held_out, lambda index, image, target: (image, by_other_sides(target)))


# ---- on the way to the network ---------------------------------------------------------------------------------------


class MirrorInPlace:
    """A mirror that writes into the target that it is given."""

    def __init__(self, size: int) -> None:
        self.random, self.resize = np.random.default_rng(0), augment.evaluation(size)

    def __call__(self, image: np.ndarray, target: Target) -> tuple:
        if self.random.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            target.boxes[:, [0, 2]] = 1 - target.boxes[:, [2, 0]]
        return self.resize(image, target)


def mirrored_in_place(setup: Setup) -> None:
    """Targets are kept in memory, and the mirror changes them for every later epoch."""
    samples = tuple((image, replace(target, boxes=target.boxes.clone())) for image, target in setup.data)
    setup.data = InMemory(samples, setup.classes)
    setup.transform = MirrorInPlace(setup.model.image_size)


def brightness_wraps(setup: Setup) -> None:
    """Brightness is added to `uint8`: 250 + 20 is 14."""

    def change(image: Tensor, target: Target) -> tuple:
        step = int(image.sum()) % 7 - 2
        return (image + torch.tensor(20 * step, dtype=torch.uint8) if step > 0 else image), target

    setup.transform = Then(setup.transform, change)


def one_buffer(setup: Setup) -> None:
    """All batches are written into one buffer, which each of them is."""
    buffers: dict[tuple, Tensor] = {}

    def collate(samples: list) -> Any:
        batch = voc.collate(samples)
        images = buffers.setdefault(tuple(batch.images.shape), torch.empty_like(batch.images))
        images.copy_(batch.images)
        return batch._replace(images=images)

    setup.collate = collate


# ---- targets ---------------------------------------------------------------------------------------------------------


def forced_match_is_cut(setup: Setup) -> None:
    """The prior that an object is given by force is cut off by the threshold again."""

    def match(boxes: Tensor, labels: Tensor, priors: Tensor) -> Matches:
        corners = to_corners(priors)
        iou = box_iou(boxes, corners)
        best, owner = iou.max(dim=1)
        for image, number in (labels > 0).nonzero().tolist():
            owner[image, iou[image, number].argmax()] = number
        owner[best < 0.5] = -1
        known, row = owner.clamp(min=0), torch.arange(len(boxes))[:, None]
        told = labels[row, known].masked_fill(owner < 0, 0)
        return Matches(told, encode(torch.where((told > 0)[..., None], boxes[row, known], corners), priors), owner)

    setup.match = match


def boxes_sorted_alone(setup: Setup) -> None:
    """Matching sorts boxes by area, and leaves their labels as they were."""
    usual = setup.match

    def match(boxes: Tensor, labels: Tensor, priors: Tensor) -> Matches:
        order = area(boxes).argsort(dim=1, descending=True)
        return usual(boxes.gather(1, order[..., None].expand_as(boxes)), labels, priors)

    setup.match = match


def one_level_transposed(setup: Setup) -> None:
    """In one level, the one of 3 by 3 cells, x and y of the priors' centres are exchanged."""
    with torch.no_grad():
        setup.model.priors[792:846, :2] = setup.model.priors[792:846, :2].flip(1).clone()
    setup.priors = setup.model.priors


# ---- model, loss and optimizer ---------------------------------------------------------------------------------------


class IgnoringLast(losses.MultiBoxLoss):
    """Cross entropy ignores the last class, whose number somebody took for one that no object has."""

    def __call__(self, offsets: Tensor, logits: Tensor, matches: Matches) -> dict[str, Tensor]:
        positives = matches.labels > 0
        count = positives.sum(dim=1, keepdim=True)
        flat, ignored = logits.float().flatten(0, 1), logits.shape[-1] - 1
        cost = F.cross_entropy(flat, matches.labels.flatten(), reduction="none", ignore_index=ignored)
        cost = cost.view_as(matches.labels)
        chosen = positives | losses.hardest(cost.detach().masked_fill(positives, -1.0), 3 * count)
        total = count.sum().clamp(min=1)
        return {
            "loc": losses.localisation_loss(offsets.float(), matches.offsets, positives) / total,
            "conf": torch.where(chosen, cost, 0.0).sum() / total,
        }


def last_class_ignored(setup: Setup) -> None:
    """See `IgnoringLast`."""
    setup.loss = IgnoringLast()


def extras_in_a_list(setup: Setup) -> None:
    """The extra layers stand in a Python list: no optimizer has them, and `eval` does not reach them."""
    extras = list(setup.model.extras)
    del setup.model.extras
    object.__setattr__(setup.model, "extras", extras)


class MostlyDropped(ssd.SSD):
    """A keep probability of 0.8, given to torch, which drops with it."""

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [F.dropout(one, 0.8, self.training) for one in super().feature_maps(images)]


def mostly_dropped(setup: Setup) -> None:
    """See `MostlyDropped`."""
    setup.model.__class__ = MostlyDropped


def statistics_not_loaded(setup: Setup) -> None:
    """Weights are loaded by `named_parameters`: batch norm's statistics are none."""
    for layer in setup.model.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()


def statistics_thawed(setup: Setup) -> None:
    """Each step puts every module in training mode, the frozen ones too."""

    def made(patient: Patient) -> Callable:
        def step(batch: Any) -> dict[str, Tensor]:
            for layer in patient.model.modules():
                layer.training = True
            return patient.usual_step(batch)

        return step

    setup.made_last["step"] = made


def epsilon_of_one(setup: Setup) -> None:
    """Another library's epsilon of 1, given to AdamW."""
    usual = setup.optimizer

    def made(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = usual(model)
        for group in optimizer.param_groups:
            group["eps"] = 1.0
        return optimizer

    setup.optimizer = made


def clipped_while_scaled(setup: Setup) -> None:
    """Gradients are clipped while a scaler's factor is still in them."""
    setup.optimizer = lambda model: torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=5e-3, momentum=0.9
    )

    def made(patient: Patient) -> Callable:
        def step(batch: Any) -> dict[str, Tensor]:
            patient.optimizer.zero_grad()
            parts = patient.losses(batch)
            (losses.total(dict(parts)) * 65536).backward()
            nn.utils.clip_grad_norm_(patient.model.parameters(), 10.0)
            for parameter in patient.model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= 65536
            patient.optimizer.step()
            patient.schedule.step()
            return {name: value.detach() for name, value in parts.items()}

        return step

    setup.made_last["step"] = made


def cleared_in_between(setup: Setup) -> None:
    """Four passes are to add up, and the gradients are cleared before each."""
    setup.batch_size = 4

    def made(patient: Patient) -> Callable:
        passes = 0

        def step(batch: Any) -> dict[str, Tensor]:
            nonlocal passes
            patient.optimizer.zero_grad()
            parts = patient.losses(batch)
            (losses.total(dict(parts)) / 4).backward()
            passes += 1
            if passes % 4 == 0:
                nn.utils.clip_grad_norm_(patient.model.parameters(), 10.0)
                patient.optimizer.step()
                patient.schedule.step()
            return {name: value.detach() for name, value in parts.items()}

        return step

    setup.made_last["step"] = made


# ---- detection -------------------------------------------------------------------------------------------------------


def detecting(kept: Callable[[Tensor, Tensor], tuple]) -> Callable[[Patient], Callable]:
    """A detection of its own.

    Args:
        kept: from boxes `[P, 4]` and probabilities `[P, C]` of an image to the candidates: priors and classes.
    """

    def made(patient: Patient) -> Callable:
        @torch.no_grad()
        def detect(batch: Any) -> list[Detections]:
            with evaluating(patient.model):
                offsets, logits = patient.outputs(batch)
            found = []
            for boxes, scores in zip(decode(offsets, patient.priors).clamp(0, 1), logits.softmax(-1), strict=True):
                prior, label = kept(boxes, scores)
                best = batched_nms(boxes[prior], scores[prior, label], label, 0.45)[:200]
                found.append(Detections(boxes[prior][best], scores[prior, label][best], label[best]))
            return found

        return detect

    return made


def first_candidates(setup: Setup) -> None:
    """The first two hundred candidates in the priors' order are kept, and not the best."""

    def kept(boxes: Tensor, scores: Tensor) -> tuple:
        likely = scores > 0.01
        likely[:, 0] = False
        return likely.nonzero()[:200].unbind(1)

    setup.made_last["detect"] = detecting(kept)


def small_ones_removed(setup: Setup) -> None:
    """Boxes below 16 pixels are removed: of the network's 96, where the picture's were meant."""
    side = setup.model.image_size

    def kept(boxes: Tensor, scores: Tensor) -> tuple:
        likely = (scores > 0.01) & ((boxes[:, 2:] - boxes[:, :2]) * side >= 16).all(dim=1)[:, None]
        likely[:, 0] = False
        return likely.nonzero().unbind(1)

    setup.made_last["detect"] = detecting(kept)


PLANTED = {
    "upright-exchanged": Planted(
        "in upright pictures alone, x divided by the height and y by the width",
        "nothing", upright_exchanged, ("boxes-are-on-objects",),
    ),
    "shifted-from-the-middle": Planted(
        "from the middle of the list on, the boxes of the next picture",
        "symptom", shifted_from_the_middle, ("boxes-are-on-objects",),
    ),
    "first-object-alone": Planted(
        "`find` for `findall`: one object of each picture",
        "nothing", first_object_alone, ("held-out-images-are-alike",),
    ),
    "held-out-exchanged": Planted(
        "held-out boxes divided by the other side",
        "nothing", held_out_exchanged, ("boxes-are-on-objects",),
    ),
    "mirrored-in-place": Planted(
        "a mirror that writes into targets which are kept",
        "nothing", mirrored_in_place, ("data-stay-as-they-are",),
    ),
    "brightness-wraps": Planted(
        "brightness added to uint8: 250 + 20 is 14",
        "symptom", brightness_wraps, ("colours-stay",),
    ),
    "one-buffer": Planted(
        "all batches in one buffer",
        "nothing", one_buffer, ("batches-stay-as-they-are",),
    ),
    "forced-match-is-cut": Planted(
        "the forced match cut off by the threshold again",
        "cause", forced_match_is_cut, ("matched-objects",),
    ),
    "boxes-sorted-alone": Planted(
        "boxes sorted by area in matching, labels not",
        "symptom", boxes_sorted_alone, ("matched-labels",),
    ),
    "one-level-transposed": Planted(
        "x and y of the priors exchanged in one level",
        "cause", one_level_transposed, ("heads-and-priors-in-one-order",),
    ),
    "last-class-ignored": Planted(
        "`ignore_index` is the last class",
        "nothing", last_class_ignored, ("loss-teaches-every-class",),
    ),
    "extras-in-a-list": Planted(
        "layers in a Python list",
        "symptom", extras_in_a_list, ("parameters-learn",),
    ),
    "mostly-dropped": Planted(
        "a keep probability of 0.8 given as dropout's",
        "nothing", mostly_dropped, ("dropout-leaves-enough",),
    ),
    "statistics-not-loaded": Planted(
        "batch norm's statistics not loaded",
        "cause", statistics_not_loaded, ("batch-norm-statistics",),
    ),
    "statistics-thawed": Planted(
        "frozen batch norms set to training by each step",
        "nothing", statistics_thawed, ("frozen-statistics-stay",),
    ),
    "epsilon-of-one": Planted(
        "AdamW with an epsilon of 1",
        "symptom", epsilon_of_one, ("rates-teach",),
    ),
    "clipped-while-scaled": Planted(
        "clipping before unscaling",
        "symptom", clipped_while_scaled, ("gradients-and-clipping",),
    ),
    "cleared-in-between": Planted(
        "gradients cleared before each pass that should add up",
        "symptom", cleared_in_between, ("step-is-whole",),
    ),
    "first-candidates": Planted(
        "the first two hundred candidates, and not the best",
        "nothing", first_candidates, ("detects-the-surest",),
    ),
    "small-ones-removed": Planted(
        "boxes below 16 of the network's pixels removed",
        "symptom", small_ones_removed, ("detections-undo-the-match",),
    ),
}  # fmt: skip

FOREIGN = {
    "last-step-of-another": Planted("torchvision: the last map's priors at a third of the picture", "nothing"),
    "mirrored-by-the-height": Planted("torchvision: a mirror that takes the height for the width", "nothing"),
    "found-scaled-by-height": Planted("torchvision: detections scaled back by (height, width)", "symptom"),
    "one-sort": Planted("ssd.pytorch: the rank of negatives by one sort", "cause"),
    "no-plus-one": Planted("ssd.pytorch: labels without the one for background", "cause"),
    "one-head-not-permuted": Planted("ssd.pytorch: the class head of one map not permuted", "cause"),
}

SECOND = {
    "boxes-sorted-in-data": Planted("boxes sorted by area in the data, labels not", "nothing"),
    "stale-picture": Planted("each eighth sample shows the picture before it", "nothing"),
    "overwritten-mirror": Planted("a mirror that overwrites xmin before xmax is computed", "cause"),
    "jitter-in-place": Planted("a colour jitter that writes into kept pictures", "cause"),
    "union-of-both": Planted("an IoU whose union counts the intersection twice", "symptom"),
    "softmax-of-priors": Planted("a focal loss whose softmax is over the priors", "cause"),
    "one-level-flattened": Planted("the class head of one map flattened without a permute", "cause"),
    "frozen-without-statistics": Planted("frozen batch norms whose statistics were not loaded", "nothing"),
    "cleared-every-fourth": Planted("gradients cleared at every fourth step alone", "cause"),
    "warmup-every-epoch": Planted("a warmup that begins anew in each epoch", "nothing"),
    "unsorted-candidates": Planted("candidates cut off before they are sorted", "cause"),
    "stale-copy": Planted("measured is a copy from before the training", "symptom"),
    "no-second-sort": Planted("ssd.pytorch: mining without the second sort", "cause"),
    "positives-of-the-last": Planted("ssd.pytorch: divided by the positives of the last image", "symptom"),
    "last-step-again": Planted("torchvision: the last map's priors at a third of the picture", "cause"),
    "clipped-while-scaled-again": Planted("ssd.pytorch: clipping before unscaling", "cause"),
}

THIRD = {
    "rows-slipped": Planted("one annotation deleted: from the middle on each image has the next one's boxes", "cause"),
    "one-object-of-a-class": Planted(
        "objects in a dictionary by class: of several of one class the last",
        "nothing", caught_by=(
            "several-objects-of-a-class-are-listed", "several-objects-of-a-class-reach-the-batches",
        ),
    ),
    "ids-by-split": Planted(
        "numbers from the classes that occur: the held-out split has other ones",
        "nothing", caught_by=("held-out-labels-mean-the-same",),
    ),
    "labels-cut": Planted("behind a crop boxes by their mask, labels by their count", "cause"),
    "buffer-not-cleared": Planted(
        "a buffer for batches that is not cleared: objects of batches before",
        "nothing", caught_by=("objects-are-of-their-own-batch",),
    ),
    "targets-in-bfloat16": Planted(
        "targets encoded in bfloat16",
        "symptom", caught_by=("matched-offsets",),
    ),
    "over-the-object": Planted("the intersection over the object's area in place of the union", "cause"),
    "weights-with-background-last": Planted(
        "class weights with background's last, and not first",
        "nothing", caught_by=("class-weights-are-those-of-their-classes",),
    ),
    "map-detached": Planted(
        "conv4_3 detached on its way to the finest heads",
        "nothing", caught_by=("every-level-teaches-the-trunk",),
    ),
    "cleared-while-accumulating": Planted("four passes for a step, gradients cleared before each", "cause"),
    "average-without-warmup": Planted(
        "detections from an average of the weights that is still their start",
        "symptom", caught_by=("detection-follows-training",),
    ),
    "best-of-the-batch": Planted(
        "the best two hundred detections of a batch, not of each image",
        "nothing", caught_by=("detects-each-image-by-itself",),
    ),
    "statistics-left-out": Planted("a trunk kept by its parameters: batch norm's statistics are missing", "cause"),
    "mirrored-copies-held-out": Planted("held-out pictures that are mirrored copies of training pictures", "cause"),
}  # fmt: skip

FOURTH = {
    "one-decimal": Planted(
        "centres and sizes written with one digit behind the point", "nothing", caught_by=("boxes-are-written-finely",)
    ),
    "mosaic-last-tile": Planted(
        "a mosaic of four pictures that keeps the boxes of the last",
        "nothing", caught_by=("objects-are-all-over-the-picture",),
    ),
    "view-for-permute": Planted("[H, W, 3] made [3, H, W] by a view: scrambled pictures", "symptom"),
    "sampler-of-class-weights": Planted("one weight a class in a sampler that wants one an image", "cause"),
    "iou-without-point-form": Planted("the IoU takes priors in centre-size form for corners", "cause"),
    "balanced-by-priors": Planted(
        "balanced class weights that count priors: background weighs a thousandth",
        "nothing", caught_by=("loss-balances-background",),
    ),
    "focal-the-wrong-way": Planted("a focal loss by p to gamma, where 1 - p is due", "cause"),
    "relu-on-heads": Planted("a ReLU behind the heads", "cause"),
    "momentum-for-decay": Planted("momentum and weight decay exchanged", "cause"),
    "lambda-gives-a-rate": Planted("a LambdaLR that gives the rate, where a factor is due", "symptom"),
    "average-never-restored": Planted("an average of the weights that replaces them at each step", "cause"),
    "offsets-of-the-first": Planted("every image of a batch decoded with the offsets of the first", "symptom"),
    "all-labels-one": Planted(
        "torchvision: torch.ones for labels, as in the tutorial with one class",
        "nothing", caught_by=("labels-in-batches",),
    ),
    "padding-without-boxes": Planted(
        "torchvision: pictures padded to a square, boxes not moved",
        "nothing", caught_by=("boxes-keep-off-the-border",),
    ),
    "ratios-in-percent": Planted("torchvision: priors' scales in percent, where fractions are due", "symptom"),
    "outliers-skipped": Planted("torchvision: batches with a loss above 10 skipped, and all are", "cause"),
    "clipped-at-a-tenth": Planted(
        "torchvision: gradients clipped at 0.1 at a rate for others",
        "symptom", caught_by=("overfits-one-batch",),
    ),
    "scaled-back-twice": Planted("torchvision: detections scaled back to the original twice", "symptom"),
    "sizes-of-ssd300": Planted(
        "ssd.pytorch: the priors of 300 pixels at 96: small objects have none",
        "symptom", caught_by=("objects-have-priors",),
    ),
    "corner-for-centre": Planted("ssd.pytorch: the corner encoded where the centre is due", "cause"),
    "never-accumulated": Planted("ssd.pytorch: a step after 32 batches, counted anew in each epoch of 18", "cause"),
    "mean-over-positives": Planted(
        "ssd.pytorch: means that are divided by the positives once more",
        "symptom", caught_by=("loss-rewards-the-right-class",),
    ),
    "resized-before-percent": Planted("ssd.pytorch: resized before pixels become fractions", "cause"),
    "mask-along-the-wrong-axis": Planted("ssd.pytorch: the mask of positives repeated along the priors", "cause"),
}  # fmt: skip
