"""Batches: the targets of several images, padded so that they fit into one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What a detector should find in one image.

    Attributes:
        boxes: corners, fractions of the image.
        labels: class index plus 1.
        difficult: objects that evaluation does not count.
        image_id: the file's stem.
        size: width and height in pixels of the image as it was on disk.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    difficult: Bool[Tensor, " N"]
    image_id: str
    size: tuple[int, int]

    @property
    def boxes_px(self) -> Float[Tensor, "N 4"]:
        """Corners, pixels of the image as it was on disk."""
        return self.boxes * torch.tensor(self.size * 2, dtype=torch.float32)


class Batch(NamedTuple):
    """Images of one size and their targets, padded to the same number of slots.

    A padded slot has label 0 and an empty box, whose IoU with everything is 0: it is background,
    and needs no mask of its own. There is at least one slot.
    """

    images: UInt8[Tensor, "B 3 S S"]
    boxes: Float[Tensor, "B G 4"]
    labels: Int[Tensor, "B G"]
    difficult: Bool[Tensor, "B G"]
    image_ids: list[str]
    sizes: list[tuple[int, int]]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on a device; the copy need not finish before returning."""
        return self._replace(
            **{
                name: getattr(self, name).to(device, non_blocking=True)
                for name in ("images", "boxes", "labels", "difficult")
            }
        )

    def parts(self, count: int) -> list["Batch"]:
        """The batch in so many parts of one size, in its order; their tensors share its memory."""
        size = len(self.images) // count
        return [Batch(*(field[start : start + size] for field in self)) for start in range(0, size * count, size)]

    def pin_memory(self) -> "Batch":
        return self._replace(
            **{name: getattr(self, name).pin_memory() for name in ("images", "boxes", "labels", "difficult")}
        )


def collate(samples: Sequence[tuple[UInt8[Tensor, "3 S S"], Target]]) -> Batch:
    """Stack samples into a `Batch`, padding every target to the longest."""
    images, targets = zip(*samples, strict=True)
    slots = max(1, *(len(target.labels) for target in targets))
    boxes = torch.zeros(len(targets), slots, 4)
    labels = torch.zeros(len(targets), slots, dtype=torch.int64)
    difficult = torch.zeros(len(targets), slots, dtype=torch.bool)
    for row, target in enumerate(targets):
        count = len(target.labels)
        boxes[row, :count] = target.boxes
        labels[row, :count] = target.labels
        difficult[row, :count] = target.difficult
    return Batch(
        torch.stack(images), boxes, labels, difficult, [t.image_id for t in targets], [t.size for t in targets]
    )
