"""A patient that learns in a second: a network of two layers, eighty priors, eight small images."""

from functools import partial

import torch
from torch import nn

from course_lib.batches import Batch
from course_lib.boxes import to_corners, to_cxcywh
from course_lib.doctor import Patient
from course_lib.losses import MultiBoxLoss
from course_lib.matching import match
from course_lib.priors import PriorSpec

SIZE, CLASSES = 16, ("bus", "cat", "dog")
SPEC = PriorSpec(SIZE, maps=(4, 2), steps=(4, 8), sides=(5, 9, 14), ratios=((2,), (2,)))


class Small(nn.Module):
    """Pixels to offsets and logits, through a hidden layer with batch norm."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.register_buffer("priors", SPEC.boxes())
        self.classes = classes + 1
        self.hidden = nn.Sequential(nn.Linear(3 * SIZE**2, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.answer = nn.Linear(64, len(self.priors) * (4 + self.classes))
        nn.init.normal_(self.answer.weight, std=0.01)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.hidden((images.float() / 128 - 1).flatten(1))
        return self.answer(hidden).unflatten(1, (len(self.priors), -1)).split([4, self.classes], dim=2)


def some_batch(images: int = 8, seed: int = 0) -> Batch:
    """Noise, with one or two objects in each image that are a little smaller than a prior in the same place."""
    chance = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, SIZE, SIZE), generator=chance, dtype=torch.uint8)
    corners = to_corners(SPEC.boxes())
    inside = corners[((corners >= 0) & (corners <= 1)).all(dim=1)]
    chosen = torch.stack([torch.randperm(len(inside), generator=chance)[:2] for _ in range(images)])
    labels = torch.arange(2 * images).view(images, 2) % len(CLASSES) + 1
    labels[::3, 1] = 0
    boxes = to_corners(to_cxcywh(inside[chosen]) * torch.tensor([1, 1, 0.8, 0.85])) * (labels > 0)[..., None]
    ids = [str(number) for number in range(images)]
    return Batch(pixels, boxes, labels, torch.zeros_like(labels, dtype=torch.bool), ids, [(SIZE, SIZE)] * images)


def small_patient(rate: float = 3e-3, seed: int = 0, **parts: object) -> Patient:
    """A healthy one, or with other parts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = parts.pop("model", None) or Small()
    usual = {
        "classes": CLASSES,
        "batches": [some_batch(seed=number) for number in range(3)],
        "model": model.train(),
        "match": partial(match, iou_threshold=0.5),
        "loss": MultiBoxLoss(),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=rate),
    }
    return Patient(**usual | parts)
