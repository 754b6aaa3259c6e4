"""The patient's loss as a function of outputs that the doctor makes up."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_lib.boxes import box_iou, to_corners
from course_lib.doctor.network import answers
from course_lib.doctor.patient import Patient
from course_lib.losses import total
from course_lib.matching import Matches, match

IMAGES = 4


@dataclass(frozen=True)
class Bench:
    """The patient's loss as a function of outputs that are put in the network's place.

    Attributes:
        told: what priors should say.
        sure: of which priors that is certain: all, where it is the patient's own matching that says it.
        classes: columns of the logits.
        rows: the images of the first batch that are used.
        call: from offsets and logits to the losses by name.
        free: whether `call` takes another number of images, and other matches as its third.
    """

    told: Matches
    sure: Bool[Tensor, "B P"]
    classes: int
    rows: list[int]
    call: Callable[..., Mapping[str, Tensor]]
    free: bool

    @property
    def positive(self) -> Tensor:
        return (self.told.labels > 0) & self.sure

    @property
    def negative(self) -> Tensor:
        return (self.told.labels == 0) & self.sure

    def cost(self, offsets: Tensor, logits: Tensor) -> float:
        with torch.no_grad():
            return float(total(dict(self.call(offsets, logits))))

    def slopes(self, offsets: Tensor, logits: Tensor, other: Matches | None = None) -> tuple[Tensor, Tensor]:
        """The gradients for offsets and for logits; zeros where the loss does not depend on them.

        Args:
            other: matches in place of the bench's own, where it is free.
        """
        leaves = [values.detach().clone().requires_grad_(True) for values in (offsets, logits)]
        with torch.enable_grad():
            loss = total(dict(self.call(*leaves) if other is None else self.call(*leaves, other)))
            if not loss.requires_grad:
                return torch.zeros_like(offsets), torch.zeros_like(logits)
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return tuple(torch.zeros_like(v) if g is None else g for v, g in zip(leaves, found, strict=True))

    def noise(self) -> Float[Tensor, "B P C"]:
        """Logits that say nothing, always the same."""
        some = torch.randn(self.right().shape, generator=torch.Generator().manual_seed(0))
        return some.to(self.told.offsets)

    def right(self, size: float = 4.0) -> Float[Tensor, "B P C"]:
        """Logits that name the right class."""
        return spoken(self.told.labels, self.classes, size)


def spoken(labels: Int[Tensor, "B P"], classes: int, size: float) -> Float[Tensor, "B P C"]:
    """Logits of `size` for these labels and minus that for all others."""
    return size * (2.0 * nn.functional.one_hot(labels.clamp(0, classes - 1), classes) - 1)


def dealt(on: Bench) -> Iterator[tuple[Int[Tensor, "B P"], Matches | None]]:
    """The labels of all priors, and the matches to ask the loss with: each class is told to some positive in turn.

    Where the loss takes no other matches, they are those of the batch.
    """
    places, classes = on.positive.nonzero(as_tuple=True), on.classes - 1
    count = len(places[0])
    if not count or not classes:
        return
    if not on.free:
        yield on.told.labels, None
        return
    for turn in range(max(2, ceil(classes / count))):
        told = on.told.labels.clone()
        told[places] = ((turn * count + torch.arange(count, device=told.device)) % classes + 1).to(told.dtype)
        yield told, on.told._replace(labels=told)


def bench(patient: Patient) -> Bench | None:
    """None where the loss cannot be given other outputs, or no prior is positive."""
    return patient.remembered("bench", lambda: made_bench(patient))


def made_bench(patient: Patient, number: int = 0) -> Bench | None:
    """See `bench`.

    Args:
        number: which of the first batches, of as many images as the first.
    """
    batch = patient.few_images(number=number)
    offsets, logits = answers(patient)
    read, priors, classes = patient.read(batch), patient.priors.detach().float(), logits.shape[-1]
    offsets, logits = offsets.to(priors.device), logits.to(priors.device)
    if logits.shape[1] != len(priors) or not logits.isfinite().all():
        return None
    if None not in (patient.loss, patient.match) and patient.losses == patient.computed:
        told = patient.matches(batch)
        rows = (told.labels > 0).any(dim=1).nonzero().flatten().tolist()[:IMAGES]
        told = Matches(*(part[rows] for part in told))
        if not rows or not told.offsets[told.labels > 0].isfinite().all() or int(told.labels.max()) >= classes:
            return None
        told = told._replace(offsets=told.offsets.masked_fill((told.labels == 0)[..., None], 0.0))

        def directly(offsets: Tensor, logits: Tensor, other: Matches = told) -> Mapping[str, Tensor]:
            return patient.loss(offsets, logits, other)

        return Bench(told, torch.ones_like(told.labels, dtype=torch.bool), classes, rows, directly, True)
    boxes, labels = read.boxes.to(priors), read.labels.long().to(priors.device)
    overlap = box_iou(boxes, to_corners(priors)).amax(dim=1)  # [B, P]

    def through(offsets: Tensor, logits: Tensor) -> Mapping[str, Tensor]:
        with outputs_replaced(patient.model, offsets, logits) as times:
            parts = patient.losses(batch)
        if times != [1]:
            raise LookupError("the network's outputs were not seen in its loss")
        return parts

    try:
        through(offsets, logits)
    except LookupError:
        return None
    if patient.match is not None:
        supposed = [patient.matches(batch)]
    else:  # the threshold is the loop's own secret: it is the one at which right answers cost least
        supposed = [match(boxes, labels, priors, threshold) for threshold in (0.5, 0.4, 0.3, 0.6, 0.45, 0.35)]
    supposed = [told for told in supposed if (told.labels > 0).any() and int(told.labels.max()) < classes]
    sure = (overlap > 0.6) | (overlap < 0.3)
    benches = [
        Bench(told, sure & ((overlap > 0.6) | (told.labels == 0)), classes, list(range(len(logits))), through, False)
        for told in supposed
    ]
    return min(benches, key=lambda on: on.cost(on.told.offsets, on.right()), default=None)


@contextmanager
def outputs_replaced(model: nn.Module, offsets: Tensor, logits: Tensor) -> Iterator[list[int]]:
    """Put other outputs in the place of those that a part of the network gives together, with their shapes.

    Yields:
        a list whose number says how often that was.
    """
    times = [0]
    shapes = {tuple(offsets.shape): offsets, tuple(logits.shape): logits}

    def after(part: nn.Module, inputs: Any, output: Any) -> Any:
        values = output.values() if isinstance(output, Mapping) else output
        if not isinstance(values, (tuple, list)) and not isinstance(output, Mapping):
            return None
        found = [tuple(value.shape) for value in values if isinstance(value, Tensor)]
        if len(shapes) != 2 or any(shape not in found for shape in shapes) or times[0]:
            return None
        times[0] += 1

        def other(value: Any) -> Any:
            return shapes.get(tuple(value.shape), value) if isinstance(value, Tensor) else value

        if isinstance(output, Mapping):
            return {name: other(value) for name, value in output.items()}
        return type(output)(map(other, output)) if type(output) in (tuple, list) else type(output)(*map(other, output))

    handles = [part.register_forward_hook(after) for part in model.modules()]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()
