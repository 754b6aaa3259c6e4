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


# Faults, each of which somebody has had. Each spoils one stranger.


def with_boxes(change):
    """Spoils the boxes of every target."""

    def plant(stranger):
        before = stranger.target

        def target(of):
            return change_boxes(before(of), change, of)

        stranger.target = target

    return plant


def change_boxes(target, change, of):
    if isinstance(target, dict):
        return target | {"boxes": change(target["boxes"], of)}
    return torch.cat([change(target[:, :4], of), target[:, 4:]], 1)


def with_labels(change):
    """Spoils the labels of every target."""

    def plant(stranger):
        before = stranger.target

        def target(of):
            good = before(of)
            if isinstance(good, dict):
                return good | {"labels": change(good["labels"])}
            return torch.cat([good[:, :4], change(good[:, 4:])], 1)

        stranger.target = target

    return plant


def with_images(change):
    def plant(stranger):
        before = stranger.image
        stranger.image = lambda image: change(before(image))

    return plant


def with_batches(change):
    """Spoils batches: `change` has a batch's images and targets and gives others."""

    def plant(stranger):
        before = stranger.collate
        stranger.collate = lambda images, targets: before(*change(list(images), list(targets)))

    return plant


def with_model(change):
    def plant(stranger):
        change(stranger.model)

    return plant


def with_optimizer(make):
    def plant(stranger):
        stranger.optimizer = make

    return plant


def with_step(step):
    def plant(stranger):
        stranger.step = step

    return plant


def shares_of_image(boxes, of):
    return boxes / torch.tensor(of.size * 2)


def pixels_of_image(boxes, of):
    return boxes * torch.tensor(of.size * 2)


def exchanged(boxes, of):
    return boxes[:, [1, 0, 3, 2]]


def corner_and_size(boxes, of):
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def centre_and_size(boxes, of):
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def passed_on(images, targets):
    return images, targets[1:] + targets[:1]


def emptied(images, targets):
    return images, [
        {name: value[:0] for name, value in one.items()} if isinstance(one, dict) else one[:0] for one in targets
    ]


def mirrored(images, targets):
    """Every second image; the boxes stay where they were."""
    return [image.flip(-1) if number % 2 else image for number, image in enumerate(images)], targets


def class_heads_of(model):
    return model.conf if hasattr(model, "conf") else model.head.classification_head


def trunk_of(model):
    return model.trunk if hasattr(model, "trunk") else model.backbone


def freeze_class_heads(model):
    class_heads_of(model).requires_grad_(False)


def freeze_all_but_class_heads(model):
    model.requires_grad_(False)
    class_heads_of(model).requires_grad_(True)


def spoil_a_weight(model):
    with torch.no_grad():
        trunk_of(model).stages[1][0].weight[3] = torch.nan


def without_zero_grad(batch, losses, model, optimizer):
    parts = losses(batch)
    sum(parts.values()).backward()
    optimizer.step()
    return {name: value.item() for name, value in parts.items()}


def without_optimizer_step(batch, losses, model, optimizer):
    optimizer.zero_grad()
    parts = losses(batch)
    sum(parts.values()).backward()
    return {name: value.item() for name, value in parts.items()}


def only_boxes(batch, losses, model, optimizer):
    optimizer.zero_grad()
    parts = losses(batch)
    parts["loc"].backward()
    optimizer.step()
    return {name: value.item() for name, value in parts.items()}


def of_another_model(model):
    return torch.optim.AdamW([torch.nn.Parameter(p.detach().clone()) for p in model.parameters()], lr=2e-3)


def set_parts(part, **values):
    """Spoils attributes of a part of the stranger: of its model, or what is in the model."""

    def plant(stranger):
        owner = stranger
        for name in part.split("."):
            owner = getattr(owner, name)
        for name, value in values.items():
            setattr(owner, name, value)

    return plant


def priors_of(**options):
    def plant(stranger):
        stranger.priors = stranger.model.priors = prior_boxes(**options)

    return plant


def in_another_order(stranger):
    """All cells of a shape together, where the heads give all shapes of a cell together."""
    levels, start = [], 0
    for cells, shapes in zip(MAPS, (4, 6, 4), strict=True):
        rows = stranger.priors[start : start + cells**2 * shapes]
        levels.append(rows.view(cells**2, shapes, 4).transpose(0, 1).reshape(-1, 4))
        start += len(rows)
    stranger.priors = stranger.model.priors = torch.cat(levels)


def made_smaller_without_its_boxes(stranger):
    stranger.image = lambda image: resized(image, SIZE).float() / 255


COMMON = {
    "x and y exchanged": with_boxes(exchanged),
    "a corner and the size": with_boxes(corner_and_size),
    "the centre and the size": with_boxes(centre_and_size),
    "labels one too low": with_labels(lambda labels: labels - 1),
    "labels beyond the classes": with_labels(lambda labels: labels + 15),
    "targets of the next image": with_batches(passed_on),
    "images mirrored without their boxes": with_batches(mirrored),
    "no image has objects": with_batches(emptied),
    "no zero_grad": with_step(without_zero_grad),
    "no optimizer.step": with_step(without_optimizer_step),
    "only the boxes' loss is used": with_step(only_boxes),
    "rate 0": with_optimizer(lambda model: torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)),
    "rate 30": with_optimizer(lambda model: torch.optim.SGD(model.parameters(), lr=30.0, momentum=0.9)),
    "rate 1e-9": with_optimizer(lambda model: torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)),
    "only the trunk is in the optimizer": with_optimizer(lambda model: adamw(trunk_of(model))),
    "another model is in the optimizer": with_optimizer(of_another_model),
    "evaluation mode": with_model(lambda model: model.eval()),
    "class heads frozen": with_model(freeze_class_heads),
    "all but the class heads frozen": with_model(freeze_all_but_class_heads),
    "NaN in a weight": with_model(spoil_a_weight),
}
IN_TORCHVISION = {
    "boxes in fractions": with_boxes(shares_of_image),
    "images 0 to 255": with_images(lambda image: image * 255),
    "images 0 to 1/255": with_images(lambda image: image / 255),
    "images made smaller without their boxes": made_smaller_without_its_boxes,
    "priors for an image of 300 pixels": set_parts("model.anchor_generator", steps=[25, 50, 100]),
    "priors far too small": lambda stranger: setattr(
        stranger.model.anchor_generator,
        "_wh_pairs",
        [pairs * 0.1 for pairs in stranger.model.anchor_generator._wh_pairs],
    ),
    "no variances": set_parts("model.box_coder", weights=(1.0, 1.0, 1.0, 1.0)),
    "no negatives": set_parts("model", neg_to_pos_ratio=0),
    "all negatives": set_parts("model", neg_to_pos_ratio=10**6),
    "positives at a touch": set_parts("model.proposal_matcher", high_threshold=0.1, low_threshold=0.1),
}
IN_SSD_PYTORCH = {
    "boxes in pixels": with_boxes(pixels_of_image),
    "images 0 to 1 without their mean": with_images(
        lambda image: (image + torch.tensor(MEAN)[:, None, None]) / 255 - torch.tensor(MEAN)[:, None, None]
    ),
    "priors for an image of 300 pixels": priors_of(image_size=300),
    "priors in another order": in_another_order,
    "priors in pixels": lambda stranger: (
        setattr(stranger, "priors", prior_boxes() * SIZE) or setattr(stranger.model, "priors", stranger.priors)
    ),
    "no variances": set_parts("criterion", variance=(1.0, 1.0)),
    "background not added": set_parts("criterion", background=0),
    "no negatives": set_parts("criterion", negatives=0),
    "all negatives": set_parts("criterion", negatives=10**6),
    "positives at a touch": set_parts("criterion", threshold=0.1),
}
FAULTS = {"torchvision": COMMON | IN_TORCHVISION, "ssd_pytorch": COMMON | IN_SSD_PYTORCH}
