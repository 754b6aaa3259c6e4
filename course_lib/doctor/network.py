"""Checks of the network: what its outputs depend on, and what flows through its layers, forward and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault
from course_lib.doctor.layers import flow, last_layers, unregistered
from course_lib.doctor.patient import Patient
from course_lib.doctor.prior_boxes import levels

PLACES = 8  # where the image is changed
PATCH = 0.16  # side of what is changed, of the image's


@check("batches", "outputs")
def outputs_fit(patient: Patient) -> Iterator[Finding]:
    """Are there as many outputs as priors, four offsets, and a logit for each class and background?"""
    offsets, logits = answers(patient)
    shapes = f"offsets {list(offsets.shape)} and logits {list(logits.shape)}"
    why = "outputs are compared with the targets of other priors or classes, or with none"
    if offsets.ndim != 3 or logits.ndim != 3 or offsets.shape[:2] != logits.shape[:2] or offsets.shape[2] != 4:
        yield fault(f"outputs are {shapes}", why, "offsets are [B, P, 4] and logits [B, P, C], of the same priors", 5)
        return
    if patient.priors is not None and offsets.shape[1] != len(patient.priors):
        yield fault(
            f"outputs are {shapes}, and there are {len(patient.priors)} priors",
            why,
            "compare the sides of the maps and the shapes per cell of network and priors: a pool that rounds down, "
            "a stride, a ratio",
            4,
        )
    if patient.classes is not None and logits.shape[2] != len(patient.classes) + 1:
        yield fault(
            f"there are {logits.shape[2]} logits for {len(patient.classes)} classes and background",
            why,
            f"give the head {len(patient.classes) + 1} classes, background first",
            5,
        )
    for name, values in (("offsets", offsets), ("logits", logits)):
        if bad := int((~values.isfinite()).sum()):
            yield fault(
                f"{bad} of {values.numel()} {name} are NaN or infinite",
                "one of them makes the loss NaN, and then every weight",
                "look for NaN in the weights and the images, and for a division by 0",
                5,
            )


def answers(patient: Patient) -> tuple[Tensor, Tensor]:
    """The outputs for the first batch as the network is now, without gradients."""
    found = flow(patient)
    return found.offsets, found.logits


@check("batches", "outputs")
def outputs_are_raw(patient: Patient) -> Iterator[Finding]:
    """Are logits and offsets as the last convolution gives them, without softmax, sigmoid or ReLU?"""
    offsets, logits = answers(patient)
    sums = logits.sum(dim=-1)
    low, high = float(logits.min()), float(logits.max())
    why = "a loss that makes probabilities itself gets nearly equal numbers, and hardly tells classes apart"
    cure = "give the loss what the last convolution gives; make probabilities in detection alone"
    # Logits of a head are of both signs, and the sums of their rows differ.
    if logits.shape[-1] > 1 and low >= 0 and float((sums - 1).abs().max()) < 1e-3:
        yield fault("the rows of the logits are probabilities: they sum to 1 (softmax was taken)", why, cure, 7)
    elif low >= 0 and high <= 1 and high > low:
        yield fault(f"all logits lie between {low:.3f} and {high:.3f}, as after a sigmoid", why, cure, 7)
    elif low == 0 and (idle := float((logits == 0).float().mean())) > 0.1:
        seen = f"{idle:.0%} of the logits are 0 and none is negative: a ReLU is behind the head"
        yield fault(seen, "a logit that is cut at 0 has no gradient, and no class can be excluded", cure, 5)
    if float(offsets.min()) >= 0 and float(offsets.max()) > 0:
        yield fault(
            f"none of {offsets.numel()} offsets is negative: a ReLU, a sigmoid or an exponential is behind the head",
            "boxes can move only to the right and down, and only grow",
            "give the offsets as the last convolution gives them",
            5,
        )


@dataclass
class Probing:
    """How the outputs in evaluation mode change where the image is changed.

    Attributes:
        places: `[K, 2]`, the centre of the change in each image, in fractions.
        moved: by "offsets" and "logits", `[K, P]`: how far each prior's output moves.
        usual: by the same names, how large outputs are, as their deviation.
        others: by the same names, how far the outputs of unchanged images move, at most.
    """

    places: list[Tensor] = field(default_factory=list)
    moved: dict[str, list[Tensor]] = field(default_factory=lambda: {"offsets": [], "logits": []})
    usual: dict[str, float] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=lambda: {"offsets": 0.0, "logits": 0.0})


@contextmanager
def changed_images(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[int]]:
    """Change the images on their way into the first part of a network that gets them.

    Yields:
        a list that will hold the number of images, once they have come by.
    """
    counts: list[int] = []

    def before(part: nn.Module, inputs: tuple) -> tuple | None:
        first = inputs[0] if inputs else None
        if counts or not isinstance(first, Tensor) or first.ndim != 4 or first.shape[1] > 4:
            return None
        if not first.is_floating_point():
            return None
        counts.append(len(first))
        return (change(first), *inputs[1:])

    # The model itself may be given a list, or bytes: its parts get what is computed with.
    parts = [part for part in model.modules() if part is not model] or [model]
    handles = [part.register_forward_pre_hook(before) for part in parts]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def place(number: int) -> tuple[float, float]:
    """Places that are spread evenly and on no line."""
    return 0.15 + 0.7 * (number * 0.6180 % 1), 0.15 + 0.7 * (number * 0.4142 % 1)


def probing(patient: Patient) -> Probing | None:
    """Change one place in every second image, then in the others, until there are enough; None where that fails."""
    return patient.remembered("probing", lambda: probed(patient))


@torch.no_grad()
def probed(patient: Patient) -> Probing | None:
    batch, found = patient.few_images(), Probing()
    generator = torch.Generator().manual_seed(0)
    patient.model.eval()
    plain = dict(zip(found.moved, patient.outputs(batch), strict=True))
    images = len(plain["logits"])
    found.usual = {name: float(values.std()) for name, values in plain.items()}

    number = 0
    while number < PLACES:
        for rest in (0, 1):
            chosen = list(range(rest, images, 2))
            where = {image: place(number + k) for k, image in enumerate(chosen)}
            number += len(chosen)

            def change(pixels: Tensor, where: dict[int, tuple[float, float]] = where) -> Tensor:
                pixels = pixels.clone()
                height, width = pixels.shape[2:]
                for image, (x, y) in where.items():
                    rows = slice(int((y - PATCH / 2) * height), int((y + PATCH / 2) * height) + 1)
                    columns = slice(int((x - PATCH / 2) * width), int((x + PATCH / 2) * width) + 1)
                    part = pixels[image, :, rows, columns]
                    noise = torch.randn(part.shape, generator=generator).to(part)
                    pixels[image, :, rows, columns] = pixels[image].mean() + 2 * pixels[image].std() * noise
                return pixels

            with changed_images(patient.model, change) as counts:
                other = dict(zip(found.moved, patient.outputs(batch), strict=True))
            if counts != [images]:
                return None
            found.places.append(torch.tensor([where[image] for image in chosen]).reshape(-1, 2))
            for name, values in other.items():
                moved = (values - plain[name]).abs().sum(dim=-1).float().cpu()  # [B, P]
                found.moved[name].append(moved[chosen])
                quiet = [image for image in range(images) if image not in where]
                if quiet:
                    found.others[name] = max(found.others[name], float(moved[quiet].max()))
    return found


@check("batches", "model", "outputs")
def outputs_follow_the_image(patient: Patient) -> Iterator[Finding]:
    """Do outputs depend on their own image, and on no other of the batch?"""
    yield from same_for_all_images(patient)
    found = probing(patient)
    if found is None:
        return
    for name, parts in found.moved.items():
        moved = torch.cat(parts)  # [K, P]
        if not moved.isfinite().all():
            continue
        largest = float(moved.max())
        if largest <= 1e-6 * found.usual[name] or largest == 0:
            yield fault(
                f"the {name} do not move at all when {PATCH:.0%} of the image's side is replaced by noise",
                "what does not depend on the image can learn one answer for all images",
                "look for a layer that gives zeros or a constant, for detached features, and at what the network "
                "is given",
                5,
            )
        elif found.others[name] > 0.01 * largest and not unregistered(patient):  # their batch norms are never in use
            yield fault(
                f"the {name} of an image move when another image of the batch changes, by "
                f"{found.others[name] / largest:.0%} "
                "of what they move by their own, in evaluation mode",
                "images are mixed: a view without a permute, a norm over the batch or a wrong axis",
                "keep the batch as the first axis through every reshape",
                5,
            )


def same_for_all_images(patient: Patient) -> Iterator[Finding]:
    """Different images that have the same outputs."""
    images = patient.read(patient.few_images()).images.float()
    if len(images) < 2 or float(images.std(dim=0).mean()) < 1:
        return
    for name, values in zip(("offsets", "logits"), answers(patient), strict=True):
        if len(values) == len(images) and float(values.std(dim=0).mean()) <= 1e-5 * float(values.std()):
            yield fault(
                f"the {name} are the same for all {len(images)} images of a batch",
                "what does not depend on the image can learn one answer for all images",
                "look at what the network is given: one colour, zeros, or the same image again and again",
                5,
            )


@check("batches", "model", "outputs", "priors")
def outputs_look_where_priors_stand(patient: Patient) -> Iterator[Finding]:
    """Does the output of each prior look at the image where the prior stands?"""
    found, priors = probing(patient), patient.priors.detach().float().cpu()
    if found is None or found.moved["logits"][0].shape[1] != len(priors):
        return
    places, part = torch.cat(found.places), max(levels(priors), key=lambda part: part.stop - part.start)
    for name, parts in found.moved.items():
        # Of the finest map alone: on a coarse one a cell may see all of the image as well as its own part.
        turn = slope(torch.cat(parts)[:, part], priors[part], places)
        if turn is None or float(turn.diagonal().min()) > LEAST_SLOPE:
            continue
        exchanged = min(float(turn[0, 1]), float(turn[1, 0])) > LEAST_SLOPE
        how = ", with x and y exchanged" if exchanged else ""
        yield fault(
            f"the {name} that move when a place of the image changes belong to priors that stand elsewhere{how}: when "
            f"the place moves by 1, those priors move by {float(turn[0, 0]):.2f} in x and {float(turn[1, 1]):.2f} in y",
            "each prior is told of an object that its output does not see",
            ORDER,
            5,
        )


ORDER = (
    "bring maps and priors into one order: permute(0, 2, 3, 1) before the view, rows before columns, the levels in the "
    "same order"
)


@check("batches", "model", "outputs", "priors")
def heads_and_priors_in_one_order(patient: Patient) -> Iterator[Finding]:
    """Does the output of a cell of each head's map belong to a prior that stands on this cell?"""
    priors = patient.priors.detach().float().cpu()
    if flow(patient).logits.shape[1] != len(priors) or unregistered(patient):
        return
    for name, moved, places in moved_by_cells(patient):
        wrong = torch.zeros(len(moved), len(priors), dtype=torch.bool)
        for part in levels(priors):
            centres = priors[part, :2]
            spacing = 1 / max(1, round(len((centres * 1e4).round().unique(dim=0)) ** 0.5))
            away = (centres - places[:, None]).abs().amax(dim=-1)  # [K, P of the level]
            # Half a cell to its centre; SSD300's steps of 32 pixels put the last of ten centres half a cell further.
            wrong[:, part] = moved[:, part] & (away > 1.25 * spacing)
        count, out_of_order = int(moved.sum()), int((wrong & moved).sum())
        if count and out_of_order > 0.02 * count:
            exchanged = " (they do where x and y are exchanged)" if stand(priors, moved, places.flip(1)) else ""
            yield fault(
                f"{out_of_order} of {count} {name} that come from a known cell of a head's map belong to priors that "
                f"stand elsewhere{exchanged}",
                "each prior is told of an object that its output does not see",
                ORDER,
                5,
            )


def stand(priors: Float[Tensor, "P 4"], moved: Bool[Tensor, "K P"], places: Float[Tensor, "K 2"]) -> bool:
    """Whether most of the priors that move stand near their place."""
    away = (priors[:, :2] - places[:, None]).abs().amax(dim=-1)
    return float((away[moved] < 0.2).float().mean()) > 0.9


@torch.no_grad()
def moved_by_cells(patient: Patient) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Add something to one cell of each head's map, another in each image, and see which outputs move.

    Yields:
        "offsets" or "logits"; which outputs move, `[K, P]`; the places of the cells, `[K, 2]`, in fractions.
    """
    modules, batch, heads = dict(patient.model.named_modules()), patient.few_images(), last_layers(patient)
    patient.model.eval()
    plain = patient.outputs(batch)
    places = torch.tensor([place(number) for number in range(len(plain[0]))])

    def added(layer: nn.Module, inputs: tuple, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != len(places):
            return None
        output = output.clone()
        height, width = output.shape[2:]
        for image, (x, y) in enumerate(places.tolist()):
            output[image, :, int(y * height), int(x * width)] += 10 * (1 + output.abs().mean())
        return output

    names = {name.rpartition(".")[0] for part in heads.values() for name in part}
    handles = [modules[name].register_forward_hook(added) for name in names if name in modules]
    try:
        changed = patient.outputs(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, before, after in zip(heads, plain, changed, strict=True):
        yield name, ((after - before).abs().amax(dim=-1) > 1e-3).cpu(), places


LEAST_SLOPE = 0.15


def slope(
    moved: Float[Tensor, "K P"], priors: Float[Tensor, "P 4"], places: Float[Tensor, "K 2"]
) -> Float[Tensor, "2 2"] | None:
    """How the centre of the priors that move follows the place that is changed; None where there are too few cells.

    Row: of the priors; column: of the place. On healthy networks about 1 on the finest map, and less where each cell
    sees much of the image; a wrong order gives about 0.
    """
    centres = priors[:, :2]
    if len((centres * 1e4).round().unique(dim=0)) < 16 or not moved.isfinite().all():
        return None
    weight = moved.square()
    if (weight.sum(dim=1) == 0).any():
        return None
    seen = weight @ centres / weight.sum(dim=1, keepdim=True)  # [K, 2]
    seen, places = seen - seen.mean(dim=0), places - places.mean(dim=0)
    return torch.linalg.lstsq(places, seen).solution.T


CHECKS = (
    outputs_fit,
    outputs_are_raw,
    outputs_follow_the_image,
    heads_and_priors_in_one_order,
    outputs_look_where_priors_stand,
)
