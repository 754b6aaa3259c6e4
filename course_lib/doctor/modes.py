"""Checks of what differs between training and use: batch norm, modes, and how outputs are read as detections."""

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.boxes import area, box_iou, to_corners
from course_lib.detect import Detections, detect
from course_lib.doctor import averages, decodings
from course_lib.doctor.bench import bench, outputs_replaced, spoken
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.layers import NORMS, flow, some, watched
from course_lib.doctor.network import answers, changed_images
from course_lib.doctor.patient import Patient
from course_lib.doctor.steps import first_steps


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Batch norm's layers that keep statistics, by name."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, NORMS)}
    return {name: layer for name, layer in layers.items() if layer.running_var is not None}


@check("model")
def batch_norm_statistics(patient: Patient) -> Iterator[Finding]:
    """Are batch norm's statistics those of the pretrained weights, or of images?"""
    layers = norm_layers(patient.model)
    counted = {name: int(layer.num_batches_tracked or 0) for name, layer in layers.items()}
    why = "in evaluation mode, and where they are frozen, maps are scaled by statistics of something else than images"
    cure = "find out shapes in evaluation mode, or on the device `meta`; load the weights after any dummy forward"
    fed = [
        name
        for name, layer in layers.items()
        if counted[name] and len(layer.running_var) > 1 and level_statistics(layer)
    ]
    if fed:
        yield fault(
            f"the statistics of {len(fed)} of {len(layers)} batch norms are the same in all channels after "
            f"{counted[fed[0]]} forward passes, with a variance of {float(layers[fed[0]].running_var.mean()):.3g}: "
            f"{some(fed)}",
            f"they were fed with zeros or a constant: {why}",
            cure,
            3,
        )
    standing = {name: layer for name, layer in layers.items() if patient.model.training and not layer.training}
    none = [name for name, layer in standing.items() if counted[name] == 0 and of_nothing(layer)]
    if none:
        yield fault(
            f"{len(none)} of {len(standing)} batch norms that stay in evaluation mode have statistics of 0 and 1, as "
            f"they are made: {some(none)}",
            f"they were never taken nor loaded: {why}",
            "load running_mean and running_var too (state_dict, and not named_parameters), or let these layers learn",
            3,
        )
    if patient.pretrained is None or fed or none:
        return
    touched = []
    for name, layer in layers.items():
        for kind in ("running_mean", "running_var"):
            meant, now = patient.pretrained.get(f"{name}.{kind}"), getattr(layer, kind).cpu()
            if meant is not None and meant.shape == now.shape:
                if float((now - meant.cpu()).abs().max()) > 1e-3 * max(float(meant.abs().max()), 1e-6):
                    touched.append(name)
                break
    if touched:
        yield warning(
            f"the statistics of {len(touched)} batch norms are not those of the pretrained weights: {some(touched)}",
            why,
            cure,
            3,
        )


def level_statistics(layer: nn.Module) -> bool:
    """Whether mean and variance are the same in all channels, as no images give them."""
    mean, variance = layer.running_mean, layer.running_var
    return float(variance.std()) <= 1e-3 * float(variance.mean()) and float(mean.std()) <= 1e-3 * float(
        variance.mean().sqrt()
    )


@check("batches", "model", "outputs")
def batch_norm_has_batches(patient: Patient) -> Iterator[Finding]:
    """Does batch norm see more than one image, and statistics that are those of the batches?"""
    layers = {name: layer for name, layer in norm_layers(patient.model).items() if layer.training}
    images = len(patient.read(patient.first_batches(1)[0]).images)
    if layers and images < FEWEST_IMAGES:
        alone = images == 1
        yield warning(
            f"{len(layers)} batch norms learn from batches of {'one image' if alone else f'{images} images'}",
            ("an image is normalised by itself: " if alone else "an image is normalised by what is beside it: ")
            + "what is the same everywhere in it is lost, and use differs from training",
            f"take batches of {FEWEST_IMAGES} or more, or freeze the statistics",
            9,
        )
    if not layers or images < 2:
        return
    ratios = {}
    for one in flow(patient).passages:
        # Statistics that were never updated are no statistics yet.
        if one.variance is None or one.name not in layers or not int(one.layer.num_batches_tracked or 0):
            continue
        alive = one.variance > 1e-8
        if alive.any():
            kept = one.layer.running_var.clamp(min=1e-12)
            ratios[one.name] = float((one.variance / kept)[alive].median())
    off = {name: ratio for name, ratio in ratios.items() if not 1 / MOST_RATIO < ratio < MOST_RATIO}
    # A norm behind the first convolution shows the scale of the pixels; the others see what it has normalised.
    if len(off) > 0.3 * len(ratios) or next(iter(ratios), None) in off:
        worst = max(off, key=lambda name: max(off[name], 1 / off[name]))
        yield warning(
            f"the variance of the maps is {off[worst]:.3g} times what {worst} has kept, and as odd in {len(off)} of "
            f"{len(ratios)} batch norms",
            "in evaluation mode maps have another scale than in training: what was learned is not found again",
            "feed the network as it was fed when it was taught: the same normalisation, the same order of channels",
            3,
        )


MOST_RATIO = 30
FEWEST_IMAGES = 4


@check("batches", "model", "optimizer", "step")
def step_trains(patient: Patient) -> Iterator[Finding]:
    """Is the network in training mode when a step is taken, also after it was measured?"""
    batch, model = patient.few_images(), patient.model
    was, at_first = model.training, first_steps(patient).modes
    cure = "call model.train() at the beginning of each epoch"
    if at_first and not any(at_first.values()):
        yield (note if was else warning)(  # of a network in training mode the rest may be meant to stay
            f"all {len(at_first)} layers of batch norm and dropout are in evaluation mode in a step",
            "batch norm uses statistics that stand still, and dropout drops nothing",
            cure + ", unless the statistics are meant to stay",
            9,
        )
        return
    if patient.detect is None or not at_first:
        return
    patient.detect(batch)
    with watched(model) as afterwards:
        patient.step(batch)
    changed = [name for name, mode in at_first.items() if mode and not afterwards.get(name, False)]
    if changed:
        yield fault(
            f"after a detection {len(changed)} layers of batch norm and dropout stay in evaluation mode in the "
            "next steps: "
            f"{some(changed)}",
            "from the first measurement on, batch norm's statistics stand still and training is another",
            cure,
            9,
        )
    elif woken := [name for name, mode in afterwards.items() if mode and not at_first.get(name, False)]:
        yield warning(
            f"after a detection {len(woken)} layers are in training mode that were not before: {some(woken)}",
            "model.train() has woken what was frozen",
            "put the frozen layers into evaluation mode after each model.train()",
            9,
        )


@check("batches", "model", "detect")
def detect_evaluates(patient: Patient) -> Iterator[Finding]:
    """Is the network in evaluation mode when it detects?"""
    patient.model.train()
    with watched(patient.model) as modes, torch.no_grad():
        patient.detect(patient.few_images())
    if training := [name for name, mode in modes.items() if mode]:
        yield fault(
            f"{len(training)} layers of batch norm and dropout are in training mode while the model detects: "
            f"{some(training)}",
            "what is found in an image depends on the other images of the batch, and measuring changes the model",
            "call model.eval() before detection, and model.train() after it",
            10,
        )


@check("batches", "model", "outputs", "detect")
def detection_sees_the_same_pixels(patient: Patient) -> Iterator[Finding]:
    """Does the network get the same pixels in detection as in training?"""
    batch, got = patient.few_images(), []
    for call in (patient.outputs, patient.detect):

        def keep(pixels: Tensor) -> Tensor:
            got.append(pixels.detach().float().cpu())
            return pixels

        with changed_images(patient.model, keep), torch.no_grad():
            call(batch)
    if len(got) != 2 or got[0].shape != got[1].shape:
        return
    learned, detected = got
    apart = float((learned - detected).abs().mean())
    if apart > 0.05 * float(learned.std()):
        yield fault(
            f"for the same images the network gets other numbers in detection than in training: {span(detected)} "
            f"where it learned from {span(learned)}",
            "what was learned of one kind of pixels is not found in the other",
            "one function that makes an image ready, called in both places: order of channels, mean, deviation",
            10,
        )


def span(pixels: Tensor) -> str:
    """Mean and deviation of each channel."""
    means, spreads = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
    return ", ".join(f"{float(m):.3g} ± {float(s):.3g}" for m, s in zip(means, spreads, strict=True))


@check("batches", "model", "outputs", "priors", "match", "detect")
def detections_undo_the_match(patient: Patient) -> Iterator[Finding]:
    """Do ideal outputs, as the matching asks for them, become detections of the objects?"""
    batch = patient.few_images()
    read, told = patient.read(batch), patient.matches(batch)
    found = ideal_detections(patient, batch, told)
    if found is None:
        return
    objects = reached = named = 0
    names: list[int] = []
    sides: dict[bool, list[float]] = {True: [], False: []}  # of objects that are found, and that are not
    yield from not_suppressed(found)
    for boxes, labels, owners, detections in zip(read.boxes, read.labels, told.gt_index, found, strict=True):
        owned = torch.zeros(len(labels), dtype=torch.bool)
        owned[owners[owners >= 0].long().unique().cpu()] = True
        which = ((labels.cpu() > 0) & (area(boxes.cpu()) > 0) & owned).nonzero().flatten()
        objects += len(which)
        side = (boxes[which, 2:] - boxes[which, :2]).amin(dim=1).tolist()
        confident = detections.scores.cpu() > 0.3
        if not len(which) or not confident.any():
            sides[False] += side
            continue
        overlap = box_iou(boxes[which].float().cpu(), detections.boxes[confident].float().cpu())
        best, index = overlap.max(dim=1)
        reached += int((best > 0.8).sum())
        for length, hit in zip(side, (best > 0.8).tolist(), strict=True):
            sides[hit].append(length)
        shift = (detections.labels.cpu()[confident][index] - labels.cpu()[which])[best > 0.8]
        named += int((shift == 0).sum())
        names += shift[shift != 0].tolist()
    cure = "decode by the same variances and priors as encode, labels as they were: column of the logits, background 0"
    # Where two objects overlap each other, NMS may keep one of them.
    if words := by_size(sides[True], sides[False]):
        yield warning(
            f"of {objects} objects, ideal outputs let {reached} be detected: {words}",
            "however well the network learns, objects of that size are not reported",
            "look for a limit of size, or of overlap, behind the decoding; it is to be in fractions if the boxes are",
            10,
        )
    elif objects and reached < 0.7 * objects:
        said = said_otherwise(patient, told, found, read.sizes)
        yield fault(
            f"of {objects} objects, ideal outputs let {reached} be detected at their place: {said.seen}",
            "however well the network learns, what it says is read as something else",
            said.cure,
            10,
        )
    elif objects and named < 0.7 * reached:
        usual = max(set(names), key=names.count)
        yield fault(
            f"ideal outputs give {reached - named} of {reached} objects another label, mostly {usual:+d} beside "
            "their own",
            "however well the network learns, each class is reported under another's name",
            cure,
            10,
        )


def said_otherwise(patient: Patient, told: Any, found: list, sizes: list) -> decodings.Difference:
    """What detection does otherwise than this course's with the same ideal outputs."""
    priors, classes = patient.priors.detach().float().cpu(), answers(patient)[1].shape[2]
    offsets, logits = ideal(told, classes)
    scoring = getattr(patient.model, "scoring", "softmax")
    own = [Detections(*(values.detach().cpu() for values in one)) for one in found]
    book = detect(offsets.cpu(), logits.cpu(), priors, scoring=scoring)
    return decodings.difference(own, book, offsets.cpu(), priors, sizes)


def by_size(found: list[float], missed: list[float]) -> str:
    """That the objects which are not found are just the smallest or the largest, in words; empty if they are not."""
    if len(missed) < 4 or len(found) < 4:
        return ""
    below = sum(m < f for m in missed for f in found) / (len(missed) * len(found))
    if below > 0.98:
        return f"the {len(missed)} that are missing are the smallest, of up to {max(missed):.2g} of the image's side"
    if below < 0.02:
        return f"the {len(missed)} that are missing are the largest, from {min(missed):.2g} of the image's side on"
    return ""


def not_suppressed(found: list) -> Iterator[Finding]:
    """Boxes that are found twice: all positives of an object say the same box."""
    every = again = 0
    for one in found:
        order = one.scores.cpu().argsort(descending=True)[:200]
        boxes, labels = one.boxes.cpu().float()[order], one.labels.cpu()[order]
        same = (box_iou(boxes, boxes) > 0.95) & (labels[:, None] == labels)
        again += int(same.triu(diagonal=1).any(dim=0).sum())
        every += len(boxes)
    if again > 0.3 * every:
        yield fault(
            f"{again} of {every} detections are found again, with the same box and label",
            "each object counts once; its copies are false detections",
            "non-maximum suppression of each class by itself, at an IoU of 0.45",
            10,
        )


def ideal_detections(patient: Patient, batch: Any, told: Any) -> list | None:
    """What the patient detects where the network says just what the matching asks for; None where it cannot be told."""
    _, logits = answers(patient)
    if told.labels.shape != logits.shape[:2] or int(told.labels.max()) >= logits.shape[2]:
        return None
    if not told.offsets[told.labels > 0].isfinite().all():
        return None
    return detected(patient, batch, *ideal(told, logits.shape[2]))


def ideal(told: Any, classes: int) -> tuple[Tensor, Tensor]:
    """Offsets and logits that say just what the matching asks for."""
    return told.offsets.float().masked_fill((told.labels <= 0)[..., None], 0.0), spoken(
        told.labels.long(), classes, 12.0
    )


def detected(patient: Patient, batch: Any, offsets: Tensor, logits: Tensor) -> list | None:
    """What the patient detects from outputs that are put in the network's place; None where that cannot be done."""
    if getattr(patient.detect, "__func__", None) is Patient.usual_detections:
        before = patient.outputs
        patient.outputs = lambda batch: (offsets, logits)
        try:
            return patient.detect(batch)
        finally:
            patient.outputs = before
    with outputs_replaced(patient.model, offsets, logits) as times, torch.no_grad():
        found = patient.detect(batch)
    return found if times == [1] and len(found) == len(logits) else None


def of_nothing(layer: nn.Module) -> bool:
    """Whether batch norm's statistics are those that it is made with."""
    return bool((layer.running_mean == 0).all() and (layer.running_var == 1).all()) and len(layer.running_var) > 1


def scenes(patient: Patient) -> tuple[Any, list[Tensor]]:
    """A batch for detections that are made up, the same in all its images: few are enough; and outputs of its shape."""
    batch = patient.few_images(2)
    images = len(patient.read(batch).images)
    return batch, [values[:1].repeat(images, 1, 1) for values in answers(patient)]


@check("batches", "model", "outputs", "priors", "detect")
def classes_keep_their_boxes(patient: Patient) -> Iterator[Finding]:
    """Do two objects of different classes in one place both stay?"""
    batch, (offsets, logits) = scenes(patient)
    scene = two_in_one_place(patient.priors.detach().float().cpu())
    if scene is None or logits.shape[2] < 3 or logits.shape[1] != len(patient.priors):
        return
    labels = torch.zeros(logits.shape[:2], dtype=torch.int64)
    labels[:, scene] = torch.tensor([1, 2, 2])
    found = detected(patient, batch, torch.zeros_like(offsets), spoken(labels, logits.shape[2], 12.0))
    if found is None:
        return
    boxes = to_corners(patient.priors.detach().float().cpu()[scene])
    hits = [present(boxes, one) for one in found]
    overlap = float(box_iou(boxes[:1], boxes[1:2]))
    if all(alone and first != second for first, second, alone in hits):
        yield warning(
            f"of two objects of different classes that overlap by {overlap:.2f}, detection keeps one alone",
            "a rider hides the horse: objects are lost wherever two classes meet, and recall with them",
            "non-maximum suppression of each class by itself (nms.batched_nms)",
            10,
        )


@check("batches", "model", "outputs", "priors", "detect")
def detects_the_surest(patient: Patient) -> Iterator[Finding]:
    """Is a box that is surer than all others detected, wherever its prior stands in the list?"""
    batch, (offsets, logits) = scenes(patient)
    boxes = to_corners(patient.priors.detach().float().cpu())
    inside = ((boxes >= 0) & (boxes <= 1)).all(dim=1).nonzero().flatten().tolist()
    if len(inside) < 3 or logits.shape[1] != len(boxes):
        return
    lost = []
    for place in (inside[0], inside[len(inside) // 2], inside[-1]):
        crowd = torch.full_like(logits, -12.0)
        crowd[..., 0], crowd[..., 1] = 0.0, -2.2  # all others are a little sure of the first class
        crowd[:, place, 0], crowd[:, place, 1] = -8.0, 8.0
        said = torch.zeros_like(offsets)
        found = detected(patient, batch, said, crowd)
        said[:, place, 2:] = 5.0  # what is only too small to be kept is found when it is larger
        larger = detected(patient, batch, said, crowd)
        if found is None or larger is None:
            return
        here = any(present(boxes[place : place + 1], one)[0] for one in found)
        if not here and not any((one.scores.cpu() > 0.3).any() for one in larger):
            lost.append(place)
    if lost:
        yield fault(
            f"among {len(boxes):,} boxes that are a little sure, one that is nearly certain is not detected if it is "
            f"that of prior {', '.join(map(str, lost))}",
            "what is kept before suppression is not the surest: objects of some places or sizes are never reported",
            "sort by score before anything is cut off, class by class",
            10,
        )


@check("batches", "model", "outputs", "priors", "detect")
def detects_the_unsure(patient: Patient) -> Iterator[Finding]:
    """Are boxes reported of which the network is not sure, as a precision-recall curve needs them?"""
    batch, (offsets, logits) = scenes(patient)
    boxes = to_corners(patient.priors.detach().float().cpu())
    inside = ((boxes >= 0) & (boxes <= 1)).all(dim=1).nonzero().flatten().tolist()
    if not inside or logits.shape[1] != len(boxes):
        return
    place = inside[len(inside) // 2]

    def reported(chance: float) -> bool:
        alone = torch.full_like(logits, -12.0)
        alone[..., 0], alone[:, place, 1] = 0.0, log(chance / (1 - chance))
        found = detected(patient, batch, torch.zeros_like(offsets), alone)
        return found is not None and any(bool((one.scores.cpu() > chance / 3).any()) for one in found)

    if reported(0.95) and not reported(UNSURE[0]):
        says, least = (note, UNSURE[0]) if reported(UNSURE[1]) else (warning, UNSURE[1])
        yield says(
            f"a box of which the network is {least:.0%} sure is not reported, and one of which it is 95% sure is",
            "average precision looks at all of recall: whatever would be found below the threshold is missed",
            "measure with a threshold of 0.01; one of 0.5 is for pictures that are shown",
            10,
        )


UNSURE = 0.1, 0.3


def two_in_one_place(priors: Tensor) -> list[int] | None:
    """Two priors that overlap as much as any, and one that overlaps neither; None where no two overlap by half."""
    inside = ((to_corners(priors) >= 0) & (to_corners(priors) <= 1)).all(dim=1).nonzero().flatten()
    kept = inside[torch.linspace(0, len(inside) - 1, min(len(inside), 2000)).long()] if len(inside) else inside
    boxes = to_corners(priors[kept])
    overlaps = box_iou(boxes, boxes)
    between = overlaps.masked_fill(overlaps > 0.9, 0.0)  # copies of a prior are no two places
    for pair in between.flatten().topk(min(200, between.numel())).indices.tolist():
        first, second = divmod(pair, len(kept))
        alone = ((overlaps[first] == 0) & (overlaps[second] == 0)).nonzero().flatten()
        if between[first, second] > 0.5 and len(alone):
            return kept[[first, second, int(alone[0])]].tolist()
    return None


def present(boxes: Tensor, found: Detections) -> list[bool]:
    """Whether each box is among confident detections."""
    own = found.boxes.float().cpu()[found.scores.cpu() > 0.3]
    return (box_iou(boxes, own) > 0.95).any(dim=1).tolist() if len(own) else [False] * len(boxes)


@check("batches", "model", "outputs", "priors", "losses", "detect")
def detection_scores_as_the_loss_does(patient: Patient) -> Iterator[Finding]:
    """Are scores made of the logits by the rule that the loss has taught: one class of all, or each by itself?

    A softmax stays as it is where all logits of a prior rise alike; a sigmoid does not.
    """
    on, (batch, (offsets, logits)) = bench(patient), scenes(patient)
    if on is None:
        return
    boxes, noise = on.told.offsets, on.noise()
    background = torch.zeros(on.classes).to(noise)
    background[0] = 3.0
    cost = on.cost(boxes, noise)
    of_all = abs(on.cost(boxes, noise + 3) - cost) < 1e-3 * cost
    of_each = abs(on.cost(boxes, noise + background) - cost) < 1e-3 * cost
    said = spoken(torch.arange(logits.shape[1]).expand(logits.shape[:2]) % logits.shape[2], logits.shape[2], 1.0)
    found = [detected(patient, batch, torch.zeros_like(offsets), said + rise) for rise in (0.0, 2.0)]
    if None in found or not all(len(one.scores) for both in found for one in both):
        return
    low, high = (float(torch.stack([one.scores.max() for one in both]).mean()) for both in found)
    read_of_all = abs(high - low) < 1e-3
    if (of_all and not read_of_all) or (of_each and read_of_all):
        taught, read = ("softmax", "sigmoid") if of_all else ("sigmoid", "softmax")
        yield warning(
            f"the loss teaches a {taught}, and detection reads the logits by a {read}",
            "scores do not mean what was taught, and thresholds cut elsewhere; background's logit counts in one alone",
            "model.scoring = loss.scoring, or the same function of logits in both",
            10,
        )


CHECKS = (
    batch_norm_statistics,
    batch_norm_has_batches,
    step_trains,
    detect_evaluates,
    detection_sees_the_same_pixels,
    averages.detection_follows_training,
    detections_undo_the_match,
    classes_keep_their_boxes,
    detects_the_surest,
    detects_the_unsure,
    detection_scores_as_the_loss_does,
)
