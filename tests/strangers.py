"""Trainings of strangers, small enough for tests: torchvision's SSD in its own loop, and one in ssd.pytorch's manner.

A `Stranger` holds what such a loop is made of. A test spoils one part of it, and asks `patient` for the patient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from course_lib.doctor import foreign
from course_lib.images import channels_first, resized

SIZE = 96
MEAN = (104.0, 117.0, 123.0)  # BGR
WIDTHS = (32, 64, 64)
MAPS = (12, 6, 3)


def stage(inside, out, stride=2):
    layers = [nn.Conv2d(inside, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)


class Trunk(nn.Module):
    """Three maps, at strides 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.out_channels = list(WIDTHS)
        self.stem = nn.Sequential(stage(3, 16), stage(16, 32))
        self.stages = nn.ModuleList([stage(32, WIDTHS[0]), stage(WIDTHS[0], WIDTHS[1]), stage(WIDTHS[1], WIDTHS[2])])

    def forward(self, x):
        x, maps = self.stem(x), {}
        for number, layer in enumerate(self.stages):
            maps[str(number)] = x = layer(x)
        return maps


@dataclass(kw_only=True)
class Stranger:
    """A training by somebody who has never heard of this course.

    Attributes:
        samples: images `uint8 [H, W, 3]` and targets of this course, which `image` and `target` make the stranger's.
        image: from an image to the stranger's.
        target: from a target to the stranger's.
        collate: from lists of those to a batch.
        optimizer: from the model to one.
        adapter: from batches and an optimizer to the patient.
        step: from batch, losses, model and optimizer to the losses of one step.
    """

    samples: Sequence
    model: nn.Module
    image: Callable
    target: Callable
    collate: Callable
    optimizer: Callable
    adapter: Callable
    step: Callable | None = None
    batch_size: int = 8

    def batches(self):
        pairs = [(self.image(image), self.target(target)) for image, target in self.samples]
        firsts = range(0, len(pairs) - self.batch_size + 1, self.batch_size)
        return [self.collate(*zip(*pairs[first : first + self.batch_size], strict=True)) for first in firsts]

    def patient(self, **parts):
        optimizer = self.optimizer(self.model)
        patient = self.adapter(self, self.batches(), optimizer, **parts)
        if self.step is not None:
            patient.step = lambda batch: self.step(batch, patient.losses, self.model, optimizer)
        return patient


def usual_step(batch, losses, model, optimizer):
    parts = losses(batch)
    optimizer.zero_grad()
    sum(parts.values()).backward()
    optimizer.step()
    return {name: value.item() for name, value in parts.items()}


def in_pixels(target):
    return {"boxes": target.boxes_px, "labels": target.labels}


def to_unit(image):
    return channels_first(image) / 255


def lists(images, targets):
    return list(images), list(targets)


def adamw(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)


def anchor_generator(steps=(8, 16, 32)):
    ratios = [[2], [2, 3], [2]]
    return DefaultBoxGenerator(ratios, scales=[0.15, 0.3, 0.55, 0.85], steps=list(steps))


def torchvision_ssd(classes, seed=0, backbone=None, **options):
    """torchvision's SSD on a small trunk; `classes` counts background."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SSD(backbone or Trunk(), anchor_generator(), (SIZE, SIZE), classes, **options)


def of_torchvision(samples, classes, model=None):
    """The stranger who uses torchvision; `classes` counts background."""
    return Stranger(
        samples=samples,
        model=model or torchvision_ssd(classes),
        image=to_unit,
        target=in_pixels,
        collate=lists,
        optimizer=adamw,
        adapter=lambda self, *parts, **more: foreign.of_torchvision(self.model, *parts, **more),
    )


# A loop in ssd.pytorch's manner, in our own words: the same calls, the same layouts, none of its code.


def prior_boxes(image_size=SIZE, maps=MAPS, sides=(0.15, 0.3, 0.55, 0.85), ratios=((2,), (2, 3), (2,))):
    """Centre-size, in fractions: in each cell the small square, the large one, and each ratio both ways."""
    rows = []
    for level, cells in enumerate(maps):
        step = SIZE / cells
        small, large = sides[level], sqrt(sides[level] * sides[level + 1])
        shapes = [(small, small), (large, large)]
        for ratio in ratios[level]:
            shapes += [(small * sqrt(ratio), small / sqrt(ratio)), (small / sqrt(ratio), small * sqrt(ratio))]
        for y, x in product(range(cells), repeat=2):
            centre = (x + 0.5) * step / image_size, (y + 0.5) * step / image_size
            rows += [(*centre, *shape) for shape in shapes]
    return torch.tensor(rows)


class Net(nn.Module):
    """Gives offsets, logits and the priors, as the networks of this manner do while they are trained."""

    def __init__(self, classes, priors, per_cell=(4, 6, 4)):
        super().__init__()
        self.classes, self.priors = classes, priors
        self.trunk = Trunk()
        pairs = list(zip(WIDTHS, per_cell, strict=True))
        self.loc = nn.ModuleList(nn.Conv2d(width, 4 * boxes, 3, padding=1) for width, boxes in pairs)
        self.conf = nn.ModuleList(nn.Conv2d(width, classes * boxes, 3, padding=1) for width, boxes in pairs)
        for head in (*self.loc, *self.conf):
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, x):
        maps = list(self.trunk(x).values())
        loc = [head(one).permute(0, 2, 3, 1).flatten(1) for head, one in zip(self.loc, maps, strict=True)]
        conf = [head(one).permute(0, 2, 3, 1).flatten(1) for head, one in zip(self.conf, maps, strict=True)]
        return (
            torch.cat(loc, 1).view(len(x), -1, 4),
            torch.cat(conf, 1).view(len(x), -1, self.classes),
            self.priors,
        )


def corners_of(priors):
    return torch.cat([priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], 1)


def overlaps(truths, corners):
    low = torch.max(truths[:, None, :2], corners[None, :, :2])
    high = torch.min(truths[:, None, 2:], corners[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(2)
    areas = [(some[:, 2:] - some[:, :2]).prod(1) for some in (truths, corners)]
    return inter / (areas[0][:, None] + areas[1][None] - inter)


def encoded(truths, priors, variance):
    centre = ((truths[:, :2] + truths[:, 2:]) / 2 - priors[:, :2]) / (variance[0] * priors[:, 2:])
    return torch.cat([centre, ((truths[:, 2:] - truths[:, :2]) / priors[:, 2:]).log() / variance[1]], 1)


class MultiBoxLoss(nn.Module):
    """The criterion of this manner: it matches inside, image by image, and gives the sums over the positives."""

    def __init__(self, classes, threshold=0.5, negatives=3, variance=(0.1, 0.2), background=1):
        super().__init__()
        self.classes, self.threshold, self.negatives = classes, threshold, negatives
        self.variance, self.background = variance, background

    def wanted(self, target, priors):
        """Offsets and classes that the priors should have in one image."""
        truths, names = target[:, :4], target[:, 4].long()
        table = overlaps(truths, corners_of(priors))
        overlap, owner = table.max(0)
        for number, prior in enumerate(table.argmax(1)):  # each object's own prior; of several the last one wins
            overlap[prior], owner[prior] = 2, number
        conf = names[owner] + self.background
        conf[overlap < self.threshold] = 0
        return encoded(truths[owner], priors, self.variance), conf

    def forward(self, predictions, targets):
        loc, conf, priors = predictions
        pairs = [self.wanted(target, priors) for target in targets]
        loc_t, conf_t = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
        positive = conf_t > 0
        loss_l = F.smooth_l1_loss(loc[positive], loc_t[positive], reduction="sum")
        loss_c = F.cross_entropy(conf.flatten(0, 1), conf_t.flatten(), reduction="none").view_as(conf_t)
        rank = loss_c.masked_fill(positive, 0).argsort(1, descending=True).argsort(1)
        negative = ~positive & (rank < self.negatives * positive.sum(1, keepdim=True))
        count = positive.sum().clamp(min=1)
        return loss_l / count, loss_c[positive | negative].sum() / count


def five_numbers(target):
    return torch.cat([target.boxes, target.labels[:, None] - 1.0], 1)


def without_mean(image):
    """BGR, 0 to 255, without the mean."""
    return resized(image, SIZE).float().flip(0) - torch.tensor(MEAN)[:, None, None]


def stacked(images, targets):
    return torch.stack(images), list(targets)


@dataclass(kw_only=True)
class Pytorcher(Stranger):
    """With priors and a criterion beside the network."""

    priors: torch.Tensor
    criterion: nn.Module


def of_ssd_pytorch(samples, classes, seed=0):
    """The stranger whose loop is in ssd.pytorch's manner; `classes` counts background."""
    priors = prior_boxes()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net(classes, priors)
    return Pytorcher(
        samples=samples,
        model=net,
        priors=priors,
        criterion=MultiBoxLoss(classes),
        image=without_mean,
        target=five_numbers,
        collate=stacked,
        optimizer=sgd,
        adapter=lambda self, *parts, **more: foreign.of_ssd_pytorch(
            self.model, self.priors, self.criterion, *parts, **more
        ),
    )
