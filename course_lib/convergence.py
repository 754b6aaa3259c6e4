"""Why a deep network does not converge: VGG for small pictures, the choices that decide, and what flows in its layers.

The published advice is for VGG and CIFAR-10: how weights begin, where batch norm stands, which pictures are made of a
picture, by what pixels are divided, which optimizer and schedule. Each is one field of a `Plan`, so that one can be
changed at a time.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isfinite, pi
from statistics import fmean

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.backbones import VGG_CHANNELS, VGG_DEPTHS
from course_lib.crops import Crops, Problem
from course_lib.pretraining import recolour
from course_lib.schedules import SCHEDULES, Plateau

NORMS = ("before", "after", "none")  # batch norm: where it stands to ReLU
CIFAR10_COLOURS = (125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255)  # mean and deviation as published, times 255
UNIT = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
RAW = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class SmallVGG(nn.Module):
    """VGG's thirteen convolutions and five pools for pictures of 32 pixels, and one linear layer that names a class.

    The large layers of the original, for pictures of 224 pixels, have no place behind a map of one cell.

    Args:
        classes: how many.
        width: factor on every number of channels.
        norm: where batch norm stands to ReLU; one of `NORMS`.

    Attributes:
        layers: each convolution with its ReLU and batch norm, in the order of the pass.

    Source: Simonyan and Zisserman 2015, table 1, configuration D; for CIFAR-10 the linear layer is as usual.
    """

    def __init__(self, classes: int, width: float = 1.0, norm: str = "before") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"SmallVGG: norm is {norm!r}: use one of {', '.join(NORMS)}")
        self.layers, self.pooled, channels_in = nn.ModuleList(), set(), 3
        for channels, count in zip(VGG_CHANNELS, VGG_DEPTHS[16], strict=True):
            for _ in range(count):
                self.layers.append(layer(channels_in, round(channels * width), norm))
                channels_in = round(channels * width)
            self.pooled.add(len(self.layers) - 1)
        self.name = nn.Linear(channels_in, classes)

    def forward(self, pixels: Float[Tensor, "B 3 32 32"]) -> Float[Tensor, "B classes"]:
        """Logits of normalised pixels."""
        x = pixels
        for index, one in enumerate(self.layers):
            x = one(x)
            if index in self.pooled:
                x = F.max_pool2d(x, 2)
        return self.name(x.flatten(1))


def layer(channels_in: int, channels_out: int, norm: str) -> nn.Sequential:
    """A 3 x 3 convolution with ReLU, and batch norm before or behind that. Before batch norm a bias does nothing."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=norm != "before")
    batch_norm = [] if norm == "none" else [nn.BatchNorm2d(channels_out)]
    rest = [*batch_norm, nn.ReLU()] if norm == "before" else [nn.ReLU(), *batch_norm]
    return nn.Sequential(convolution, *rest)


def he(weight: Tensor, generator: torch.Generator) -> None:
    """Variance 2 / inputs: ReLU halves the mean square, and this keeps it. Source: He et al. 2015, section 2.2."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def xavier(weight: Tensor, generator: torch.Generator) -> None:
    """Variance 2 / (inputs + outputs), made for layers without ReLU. Source: Glorot and Bengio 2010, section 4.2.1."""
    nn.init.xavier_normal_(weight, generator=generator)


def pytorch(weight: Tensor, generator: torch.Generator) -> None:
    """What PyTorch gives a layer by itself: uniform, of variance 1 / (3 inputs), a sixth of He's."""
    nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)


def scaled(factor: float) -> Callable[[Tensor, torch.Generator], None]:
    """He's weights, all of them times a factor."""

    def fill(weight: Tensor, generator: torch.Generator) -> None:
        he(weight, generator)
        with torch.no_grad():
            weight.mul_(factor)

    return fill


INITIALISATIONS = {
    "he": he,
    "xavier": xavier,
    "pytorch": pytorch,
    "too small": scaled(0.1),
    "too large": scaled(10.0),
}


def initialise(network: nn.Module, name: str, generator: torch.Generator) -> None:
    """Give convolutions and linear layers fresh weights, and biases of 0.

    Raises:
        ValueError: there is no way of that name.
    """
    if name not in INITIALISATIONS:
        raise ValueError(f"initialisation is {name!r}: use one of {', '.join(INITIALISATIONS)}")
    for one in network.modules():
        if isinstance(one, nn.Conv2d):
            INITIALISATIONS[name](one.weight, generator)
        elif isinstance(one, nn.Linear):  # it names, and is the same in all
            pytorch(one.weight, generator)
        if isinstance(one, nn.Conv2d | nn.Linear) and one.bias is not None:
            nn.init.zeros_(one.bias)


Pictures = Float[Tensor, "B 3 S S"]  # pixels from 0 to 255


def crop(images: Pictures, generator: torch.Generator, padding: int = 4) -> Pictures:
    """Each picture moved by up to `padding` pixels; what comes in is black."""
    side, count = images.shape[-1], len(images)
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(side), left + torch.arange(side)
    image = torch.arange(count)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Pictures, generator: torch.Generator) -> Pictures:
    """Half of the pictures, mirrored."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def rotation(images: Pictures, generator: torch.Generator, degrees: float = 15.0) -> Pictures:
    """Each picture turned about its centre, by up to so many degrees either way; what comes in is black."""
    angle = (torch.rand(len(images), generator=generator) * 2 - 1) * degrees * pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def erasing(images: Pictures, generator: torch.Generator) -> Pictures:
    """In half of the pictures a rectangle of 2 to 33 % of the area, in the picture's mean colour.

    Source: Zhong et al. 2020, section 3.
    """
    count, side = len(images), images.shape[-1]
    share, shape, x, y, chance = torch.rand(5, count, generator=generator)
    area = (0.02 + 0.31 * share) * side**2
    ratio = (0.3 * (1 / 0.3**2) ** shape).sqrt()  # from 0.3 to 1 / 0.3, as often above 1 as below
    height, width = ((area**0.5 * one).round().clamp(1, side) for one in (ratio, 1 / ratio))
    top, left = (y * (side - height + 1)).floor(), (x * (side - width + 1)).floor()
    along = torch.arange(side)
    rows = (along >= top[:, None]) & (along < (top + height)[:, None])
    columns = (along >= left[:, None]) & (along < (left + width)[:, None])
    erased = (rows[:, :, None] & columns[:, None, :] & (chance < 0.5)[:, None, None])[:, None]
    return torch.where(erased, images.mean(dim=(2, 3), keepdim=True), images)


AUGMENTATIONS = {"crop": crop, "flip": flip, "rotation": rotation, "jitter": recolour, "erasing": erasing}

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda parameters, **numbers: torch.optim.SGD(parameters, momentum=0.9, **numbers),
}


@dataclass(frozen=True)
class Plan:
    """All that decides what a network learns, beside its pictures.

    Attributes:
        initialisation: a name of `INITIALISATIONS`.
        norm: see `SmallVGG`.
        augmentation: names of `AUGMENTATIONS`, in the order in which they are applied.
        normalisation: "own": the mean and deviation of the pictures; "cifar10": those of CIFAR-10, whatever the
            pictures are; "unit": pixels from 0 to 1; "raw": from 0 to 255.
        optimizer: a name of `OPTIMIZERS`.
        schedule: a name of `schedules.SCHEDULES`.
        clip_norm: gradients longer than this are shortened; None: they are not.
        epochs, batch_size, learning_rate, weight_decay, width: as their names say.

    Raises:
        ValueError: a name that there is not.
    """

    initialisation: str = "he"
    norm: str = "before"
    augmentation: tuple[str, ...] = ("crop", "flip")
    normalisation: str = "own"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip_norm: float | None = None
    epochs: int = 8
    batch_size: int = 64
    width: float = 0.125

    def __post_init__(self) -> None:
        known = {
            "initialisation": (INITIALISATIONS, (self.initialisation,)),
            "norm": (NORMS, (self.norm,)),
            "augmentation": (AUGMENTATIONS, self.augmentation),
            "normalisation": (("own", "cifar10", "unit", "raw"), (self.normalisation,)),
            "optimizer": (OPTIMIZERS, (self.optimizer,)),
            "schedule": (SCHEDULES, (self.schedule,)),
        }
        for name, (there_are, asked) in known.items():
            if unknown := [one for one in asked if one not in there_are]:
                raise ValueError(f"{name} is {unknown[0]!r}: use one of {', '.join(there_are)}")

    def network(self, classes: int, seed: int) -> SmallVGG:
        """A fresh network; its weights depend on the seed alone."""
        network = SmallVGG(classes, self.width, self.norm)
        initialise(network, self.initialisation, torch.Generator().manual_seed(seed))
        return network.to(memory_format=torch.channels_last)

    def colours(self, pictures: Crops) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
        """What is subtracted from pixels, and what they are then divided by."""
        fixed = {"cifar10": CIFAR10_COLOURS, "unit": UNIT, "raw": RAW}
        mean, std = fixed.get(self.normalisation) or pictures.colours()
        return torch.as_tensor(mean)[:, None, None], torch.as_tensor(std)[:, None, None]


@dataclass
class Flow:
    """The scale of what goes through a network's layers: the root of the mean square, layer by layer.

    Attributes:
        activations: of what each layer gives.
        gradients: of the loss's gradient there.
    """

    activations: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)


@contextmanager
def flowing(layers: Iterable[nn.Module]) -> Iterator[Flow]:
    """See what flows through some layers in the passes that are made within, forward and back; of each the last.

    Each layer is called once a pass, in the order in which they are given.
    """
    layers = list(layers)
    found = Flow([float("nan")] * len(layers), [float("nan")] * len(layers))

    def after(index: int) -> Callable:
        def keep(scales: list[float], values: Tensor) -> None:
            scales[index] = float(values.detach().float().square().mean().sqrt())

        def see(one: nn.Module, inputs: tuple, output: Tensor) -> None:
            keep(found.activations, output)
            if output.requires_grad:
                output.register_hook(lambda gradient: keep(found.gradients, gradient))

        return see

    handles = [one.register_forward_hook(after(index)) for index, one in enumerate(layers)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class Learner:
    """A network that learns to name pictures by a plan, step by step; the seed decides all that is random."""

    def __init__(self, plan: Plan, pictures: Crops, seed: int = 0) -> None:
        self.plan, self.pictures = plan, pictures
        self.network = plan.network(len(pictures.classes), seed)
        self.mean, self.std = plan.colours(pictures)
        numbers = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
        self.optimizer = OPTIMIZERS[plan.optimizer](self.network.parameters(), **numbers)
        self.steps_an_epoch = len(pictures) // plan.batch_size
        if not self.steps_an_epoch:
            raise ValueError(f"batch_size is {plan.batch_size}, and there are {len(pictures)} pictures")
        self.schedule = SCHEDULES[plan.schedule](self.optimizer, 0, plan.epochs * self.steps_an_epoch)
        self.generator, self.steps = torch.Generator().manual_seed(seed), 0

    def batches(self) -> Iterator[tuple[UInt8[Tensor, "B 3 S S"], Int[Tensor, " B"]]]:
        """An epoch's pictures and labels, in an order of its own; what does not fill a batch is left out."""
        order = torch.randperm(len(self.pictures), generator=self.generator)
        for rows in order.split(self.plan.batch_size)[: self.steps_an_epoch]:
            yield self.pictures.images[rows], self.pictures.labels[rows]

    def loss(self, images: UInt8[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Cross entropy of augmented pictures, and the share that is named right."""
        pixels = images.float()
        for name in self.plan.augmentation:
            pixels = AUGMENTATIONS[name](pixels, self.generator)
        logits = self.network((pixels - self.mean) / self.std)
        return F.cross_entropy(logits, labels), (logits.detach().argmax(dim=1) == labels).float().mean()

    def step(self, images: UInt8[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]) -> tuple[float, float]:
        """Learn from a batch; gives its loss, which may not be finite, and the share that was named right."""
        loss, right = self.loss(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.plan.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), right.item()

    def epoch(self, looked_at: Collection[int]) -> tuple[dict, list[dict]]:
        """One pass over the pictures, or up to a loss that is not finite: its record, and what flowed in some steps."""
        losses, right, flows = [], [], []
        for images, labels in self.batches():
            looks = self.steps in looked_at
            with flowing(self.network.layers if looks else ()) as flow:
                loss, share = self.step(images, labels)
            flows += [{"step": self.steps} | asdict(flow)] if looks else []
            self.steps += 1
            losses.append(loss)
            right.append(share)
            if not isfinite(loss):
                break
        mean = fmean(losses) if isfinite(losses[-1]) else None
        return {"loss": mean, "accuracy": fmean(right), "rate": self.optimizer.param_groups[0]["lr"]}, flows

    @torch.no_grad()
    def measured(self, crops: Crops) -> dict[str, float]:
        """Loss and accuracy on other pictures, in evaluation mode."""
        self.network.eval()
        pixels = [(part.float() - self.mean) / self.std for part in crops.images.split(256)]
        logits = torch.cat([self.network(part) for part in pixels])
        self.network.train()
        accuracy = (logits.argmax(dim=1) == crops.labels).float().mean()
        return {"loss": F.cross_entropy(logits, crops.labels).item(), "accuracy": accuracy.item()}


def train_classifier(
    plan: Plan,
    problem: Problem,
    seed: int = 0,
    looked_at: Collection[int] = (),
    report: Callable[[dict], None] = lambda record: None,
) -> dict:
    """Train a network by a plan; the record of it, made of plain numbers.

    A tenth of the pictures is held back: its loss is what a plateau schedule goes by. A loss that is not finite ends
    the training: "diverged_at" says at which step, and the accuracy is 0, as of a network that has no answer.

    Args:
        looked_at: steps, from 0, for which the record has what flows through each layer.
        report: called with the record of each epoch.
    """
    order = torch.randperm(len(problem.train), generator=torch.Generator().manual_seed(seed))
    held_back, rest = (problem.train.chosen(rows) for rows in order.tensor_split([len(order) // 10]))
    learner, epochs, flows, started = Learner(plan, rest, seed), [], [], time.perf_counter()
    while len(epochs) < plan.epochs and (not epochs or epochs[-1]["loss"] is not None):
        record, seen = learner.epoch(looked_at)
        if record["loss"] is not None:
            record |= {"held_back": learner.measured(held_back), "test": learner.measured(problem.test)}
            if isinstance(learner.schedule, Plateau):
                learner.schedule.measured(-record["held_back"]["loss"])
        epochs.append(record)
        flows += seen
        report(record)
    diverged = epochs[-1]["loss"] is None
    return {
        "plan": asdict(plan),
        "seed": seed,
        "accuracy": 0.0 if diverged else epochs[-1]["test"]["accuracy"],
        "diverged_at": learner.steps if diverged else None,
        "epochs": epochs,
        "flow": flows,
        "seconds": round(time.perf_counter() - started, 1),
    }
