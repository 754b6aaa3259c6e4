"""Checks of layers: what flows through them, forward and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_lib.doctor.checks import check
from course_lib.doctor.drawing import Bars
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.prior_boxes import levels
from course_lib.losses import total


def last_layers(patient: Patient) -> dict[str, list[str]]:
    """The heads: for "offsets" and "logits" the names of the parameters of the last layer on each way."""
    return patient.remembered("last layers", lambda: found_heads(patient))


@contextmanager
def all_learning(model: nn.Module) -> Iterator[None]:
    """Every parameter wants a gradient, whatever is frozen."""
    learns = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in learns:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, was in learns:
            parameter.requires_grad_(was)


def found_heads(patient: Patient) -> dict[str, list[str]]:
    names = {id(parameter): name for name, parameter in patient.model.named_parameters()}
    with all_learning(patient.model):
        outputs = patient.outputs(patient.few_images())
        last = {n: last_parameters(values) for n, values in zip(("offsets", "logits"), outputs, strict=True)}
    pixels = {id(p) for p in leaves(*outputs) if p.ndim == 4 and not isinstance(p, nn.Parameter)}
    patient.memory["unregistered"] = [p for p in leaves(*outputs) if id(p) not in {*names, *pixels}]
    return {name: [names[id(p)] for p in found if id(p) in names] for name, found in last.items()}


def unregistered(patient: Patient) -> list[Tensor]:
    """What learns on the way to the outputs and is no parameter of the model: most often layers in a plain list."""
    last_layers(patient)
    return patient.memory["unregistered"]


def leaves(*results: Tensor) -> list[Tensor]:
    """The tensors that want gradients and are the beginnings of the graph of some results, each once."""
    waiting, seen, found = [one.grad_fn for one in results], set(), {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf
        waiting += [before for before, _ in node.next_functions]
    return list(found.values())


def last_parameters(output: Tensor) -> list[Tensor]:
    """The parameters of the first layers that are met on the way back from an output, in the graph of gradients."""
    waiting, seen, found = [output.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [one for one, _ in node.next_functions if one is not None]
        own = [one.variable for one in before if isinstance(getattr(one, "variable", None), nn.Parameter)]
        found += own
        if not any(parameter.ndim > 1 for parameter in own):  # a scale or a norm is no head
            waiting += before
    return found


@dataclass
class Passage:
    """What goes through one layer in a forward pass; of the first images where there are many.

    Attributes:
        name: of the layer.
        layer: itself.
        given: the size of what it is given, as the root of the mean square; None where that is no tensor.
        size: of what it gives.
        variance: of each channel of what it is given, for batch norm alone.
        finite: whether all that it gives is.
        zero: the share that is 0.
        dead: the share of channels that are 0 everywhere.
    """

    name: str
    layer: nn.Module
    given: float | None
    size: float
    variance: Tensor | None
    finite: bool
    zero: float
    dead: float

    @property
    def rectifies(self) -> bool:
        return isinstance(self.layer, RECTIFIERS)


RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.GELU)
LOOKED_AT = 4  # images


@dataclass
class Flow:
    """One forward pass of the first batch, in the mode that the model is in.

    Attributes:
        offsets, logits: what comes out.
        passages: the layers in the order in which they are used.
    """

    offsets: Tensor
    logits: Tensor
    passages: list[Passage]


def flow(patient: Patient) -> Flow:
    def made() -> Flow:
        with patient.undisturbed():  # else batch norm's statistics would be those of this very pass
            return flowed(patient)

    return patient.remembered("flow", made)


@torch.no_grad()
def flowed(patient: Patient) -> Flow:
    found: list[Passage] = []

    def after(name: str) -> Callable:
        def see(layer: nn.Module, inputs: tuple, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                found.append(passage(name, layer, inputs[0] if inputs else None, output))

        return see

    leaves = [(n, layer) for n, layer in named_layers(patient) if not list(layer.children())]
    handles = [layer.register_forward_hook(after(name)) for name, layer in leaves]
    try:
        offsets, logits = patient.outputs(patient.few_images())
    finally:
        for handle in handles:
            handle.remove()
    return Flow(offsets.detach().float().cpu(), logits.detach().float().cpu(), found)


def named_layers(patient: Patient) -> list[tuple[str, nn.Module]]:
    return [] if patient.model is None else list(patient.model.named_modules())


def passage(name: str, layer: nn.Module, given: Any, output: Tensor) -> Passage:
    """What to remember of a layer's work."""
    values, variance, size = output.detach()[:LOOKED_AT].float(), None, None
    if isinstance(given, Tensor) and given.is_floating_point():
        size = float(given.detach()[:LOOKED_AT].float().square().mean().sqrt())
        if isinstance(layer, nn.BatchNorm2d) and given.numel() > 100 * given.shape[1]:
            variance = given.detach().float().var(dim=(0, 2, 3))
    zero, dead = values == 0, 0.0
    if values.ndim == 4 and bool(zero.any()):
        dead = float(zero.all(dim=3).all(dim=2).all(dim=0).float().mean())
    return Passage(
        name,
        layer,
        size,
        float(values.square().mean().sqrt()),
        variance,
        bool(values.isfinite().all()),
        float(zero.float().mean()),
        dead,
    )


@check("batches", "model", "outputs")
def activations(patient: Patient) -> Iterator[Finding]:
    """Is what flows forward finite, alive, and of a usual size in every layer?"""
    found = flow(patient).passages
    if bad := next((one for one in found if not one.finite), None):
        yield fault(
            f"{bad.name} is the first layer that gives NaN or infinity",
            "everything after it is NaN, and after one step every weight",
            "look at its weights, at a division by 0 before it, and at the images",
            5,
        )
        return
    silent = [one for one in found if one.zero > 0.999]
    if silent:
        yield fault(
            f"{silent[0].name} gives nothing but zeros"
            + (f", and {len(silent) - 1} more layers" if silent[1:] else ""),
            "no gradient passes a layer of zeros: all before it stays as it is",
            "look at its weights and biases, and at the size of what comes in",
            5,
        )
    rectifiers = [one for one in found if one.rectifies and one.dead > 0.5 and one.zero <= 0.999]
    if rectifiers and not silent:
        worst = max(rectifiers, key=lambda one: one.dead)
        yield warning(
            f"{worst.dead:.0%} of the channels of {worst.name} are 0 for every image of the batch: dead units"
            + (f"; over half in {len(rectifiers)} layers" if rectifiers[1:] else ""),
            "a dead unit has no gradient and stays dead",
            "a lower learning rate, a warmup, biases that are not far below 0",
            5,
        )
    huge = max(found, key=lambda one: one.size, default=None)
    if huge and huge.size > 1e4:
        yield (fault if huge.size > 1e6 else warning)(
            f"{huge.name} gives numbers of {huge.size:.1e}, as the root of their mean square",
            "gradients are as large, and a step at any usual rate throws the weights far away",
            "scale the weights by their number of inputs (Xavier, He), and the images by mean and deviation",
            3,
        )


@check("batches", "model", "outputs")
def scale_is_kept(patient: Patient) -> Iterator[Finding]:
    """Is what the last layers give of a scale with what the first give?"""
    rectifiers = [one for one in flow(patient).passages if one.rectifies and one.finite and one.size > 0]
    if len(rectifiers) < 4:
        return
    first, least = rectifiers[0], min(rectifiers, key=lambda one: one.size)
    if least.size < LEAST_KEPT * first.size:
        yield warning(
            f"{first.name} gives numbers of {first.size:.2g} and {least.name}, {rectifiers.index(least)} layers on, of "
            f"{least.size:.1e}, as the root of their mean square: the image vanishes on the way",
            "biases drown what is left of it, and gradients are as much too small on their way back",
            "scale fresh weights by their number of inputs and for ReLU: nn.init.kaiming_normal_; or batch norm",
            3,
            Bars(
                tuple(one.name for one in rectifiers),
                tuple(one.size for one in rectifiers),
                "size of what it gives",
                powers=True,
            ),
        )


# Xavier's weights without batch norm: 1,600 between first and last layer of SSD300, 1,080 of ssd_nano. PyTorch's own
# weights, in VGG's thirteen layers: 114,000.
LEAST_KEPT = 1e-4


@check("batches", "model", "outputs")
def heads_see_one_scale(patient: Patient) -> Iterator[Finding]:
    """Are the feature maps that the heads look at of one scale?"""
    names = {name.rpartition(".")[0] for part in last_layers(patient).values() for name in part}
    sizes = {one.name: one.given for one in flow(patient).passages if one.name in names and one.given is not None}
    if len(sizes) < 2 or not min(sizes.values()) > 0:
        return
    low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    ratio = sizes[high] / sizes[low]
    if ratio > NOTED_SCALES:
        yield (warning if ratio > MOST_SCALES else note)(
            f"{high} is given numbers of {sizes[high]:.3g}, {low} of {sizes[low]:.3g}: {ratio:.0f} times less",
            "at one learning rate the head of the larger maps jumps and that of the smaller stands still",
            "bring the maps to one scale on their way to the heads: L2Norm on conv4_3, or batch norm",
            3,
            Bars(tuple(sizes), tuple(sizes.values()), "size of what it is given", powers=True),
        )


# Fresh and without batch norm each layer halves its variance: 4,000 between the first and the last map of ssd_nano.
NOTED_SCALES, MOST_SCALES = 1e3, 1e5


@dataclass
class Gradients:
    """Which parameters are reached by gradients.

    Attributes:
        outputs: of a random sum of all outputs: the size of each parameter's gradient; 0 for none.
        losses: of the losses of the first batches, the largest.
        weights: the size of each parameter.
    """

    outputs: dict[str, float]
    losses: dict[str, float]
    weights: dict[str, float]


def norms(model: nn.Module) -> dict[str, float]:
    """The size of each gradient of those that learn."""
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in learning}


def gradients(patient: Patient) -> Gradients:
    def made() -> Gradients:
        model = patient.model.train()
        model.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(0)
        with torch.enable_grad():
            outputs = patient.outputs(patient.few_images())
            some = [(values * torch.randn(values.shape, generator=generator).to(values)).mean() for values in outputs]
            if torch.stack(some).requires_grad:
                torch.stack(some).sum().backward()
        of_outputs = norms(model)
        of_losses = dict.fromkeys(of_outputs, 0.0)
        for batch in (patient.few_images(), patient.few_images(number=1)):
            model.zero_grad(set_to_none=True)
            loss = total(dict(patient.losses(batch)))
            if loss.requires_grad:
                loss.backward()
            of_losses = {name: max(size, of_losses[name]) for name, size in norms(model).items()}
        weights = {name: float(p.detach().norm()) for name, p in model.named_parameters()}
        return Gradients(of_outputs, of_losses, weights)

    return patient.remembered("gradients", made)


@check("batches", "model", "outputs", "losses")
def gradients_reach_all(patient: Patient) -> Iterator[Finding]:
    """Does each parameter that is to learn get a gradient, and of a usual size?"""
    found = gradients(patient)
    heads = last_layers(patient)
    sizes = {name: p.numel() for name, p in patient.model.named_parameters()}
    learning = sum(sizes[name] for name in found.outputs)
    if not learning:
        return
    if bad := [name for name, size in found.losses.items() if not size < float("inf")]:
        seen = f"the gradients of {some(bad)} are NaN or infinite"
        yield fault(seen, "one step makes every weight NaN", "look for log 0, a division by 0, a root of 0", 7)
        return
    off = [name for name, size in found.outputs.items() if size == 0]
    if off:
        share = sum(sizes[name] for name in off) / learning
        yield (fault if share > 0.05 else warning)(
            f"{len(off)} parameters ({share:.0%} of all that learn) do not reach the outputs: {some(off)}",
            "what has no way to the outputs gets no gradient and stays as it was at the start",
            "look for detach, no_grad, .data or numpy on the way, and for layers that are made and not used",
            5,
        )
    for part, names in heads.items():
        own = [name for name in names if name in found.losses]
        if own and all(found.losses[name] == 0 for name in own):
            yield fault(
                f"the losses of two batches give the heads of the {part} no gradient: {some(own)}",
                f"the {part} stay as they are: the losses do not depend on them, or are detached from them",
                "compute each loss from the network's own outputs, and leave out neither",
                7,
            )
    untaught = [name for name, size in found.losses.items() if size == 0 and name not in off]
    share = sum(sizes[name] for name in untaught) / learning
    if share > 0.3:
        yield fault(
            f"{share:.0%} of all that should learn get no gradient from the losses of two batches: {some(untaught)}",
            "they stay as they were at the start",
            "look for detach, and for levels of which no prior is ever positive or mined",
            7,
        )
    elif untaught:
        yield note(
            f"{len(untaught)} parameters get no gradient from the first two batches: {some(untaught)}",
            "a level without positives and hard negatives is taught by other batches, or never",
            "compare with the levels that have positives",
            6,
        )
    size = sum(value**2 for value in found.losses.values()) ** 0.5
    if size > MOST_GRADIENT:
        yield warning(
            f"the gradient of a batch has a norm of {size:.2e}",
            "clipped, each step goes as far whatever the loss says; unclipped, it throws the weights away",
            "look at the loss: sums over all priors, boxes in pixels, numbers of thousands",
            9,
        )


MOST_GRADIENT = 1e4


@check("batches", "model", "outputs", "priors")
def every_level_teaches_the_trunk(patient: Patient) -> Iterator[Finding]:
    """Does the gradient of each level's answers reach the first layer, as that of the others does?"""
    first = next((p for p in patient.model.parameters() if p.ndim == 4 and p.shape[1] == 3), None)  # it sees colours
    priors = patient.priors.detach().float().cpu()
    if first is None:
        return
    with all_learning(patient.model):
        both = patient.outputs(patient.few_images())
        if any(values.shape[1] != len(priors) or not values.requires_grad for values in both):
            return
        parts, generator = levels(priors), torch.Generator().manual_seed(0)
        noisy = [values.float() * torch.randn(values.shape, generator=generator).to(values) for values in both]
        sums = [sum(values[:, part].sum() for values in noisy) for part in parts]
        found = [torch.autograd.grad(one, first, retain_graph=True, allow_unused=True)[0] for one in sums]
    reached = [one is not None and bool(one.any()) for one in found]
    if any(reached) and not all(reached):
        cut = [
            f"{float(priors[part, 2:].prod(dim=1).sqrt().mean()):.2f}"
            for part, there in zip(parts, reached, strict=True)
            if not there
        ]
        yield fault(
            f"of {len(parts)} levels the gradient of {len(cut)} does not reach the first layer: of those with priors "
            f"of side {', '.join(cut)}",
            "what these levels get wrong teaches their heads alone, and the layers below serve the other levels",
            "look for detach, no_grad, .data or numpy where their map is taken",
            5,
        )


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, bool]]:
    """Which layers that differ between training and use are in training mode when they are called."""
    seen: dict[str, bool] = {}

    def before(name: str) -> Callable:
        def see(layer: nn.Module, inputs: Any) -> None:
            seen[name] = seen.get(name, False) or layer.training

        return see

    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, (*NORMS, *DROPOUTS))}
    handles = [layer.register_forward_pre_hook(before(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


DROPPING = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"}
MOST_DROPPED = 0.6  # VGG's own is 0.5, and so is nearly everybody's


class Dropping(TorchFunctionMode):
    """Notes each dropout that is at work while this is entered, whether a layer's or a function's.

    Attributes:
        found: the chance of each, and the shape of what it was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[float, tuple[int, ...]]] = []

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        named = kwargs or {}
        if getattr(function, "__name__", "").rstrip("_") in DROPPING:
            given = dict(zip(("input", "p", "training"), args, strict=False)) | named
            if given.get("training", True):
                self.found.append((float(given.get("p", 0.5)), tuple(given["input"].shape)))
        return function(*args, **named)


@check("batches", "model", "outputs")
def dropout_leaves_enough(patient: Patient) -> Iterator[Finding]:
    """Does dropout leave more than it takes?"""
    if not patient.model.training:
        patient.model.train()
    with Dropping() as dropping, torch.no_grad():
        patient.outputs(patient.few_images())
    if many := [(p, shape) for p, shape in dropping.found if p > MOST_DROPPED]:
        named = [
            name
            for name, layer in patient.model.named_modules()
            if isinstance(layer, DROPOUTS) and layer.training and layer.p > MOST_DROPPED
        ]
        where = some(named) if named else "on " + some([" x ".join(map(str, shape)) for _, shape in many])
        most = max(p for p, _ in many)
        yield warning(
            f"{len(many)} dropouts take {most:.0%} of what they are given, and leave {1 - most:.0%}: {where}",
            "what follows sees hardly anything of an image, and learns far less in each step",
            f"torch's p is the share that is dropped; a keep probability of {most:.2g}, as TensorFlow 1 had it, is "
            f"p={1 - most:.2g}",
            5,
        )


@check("batches", "model", "step")
def frozen_statistics_stay(patient: Patient) -> Iterator[Finding]:
    """Do batch norms whose statistics are frozen keep them in a step?"""
    model = patient.model
    if not model.training:
        model.train()
    frozen = {
        name: (layer.running_mean.clone(), layer.running_var.clone())
        for name, layer in model.named_modules()
        if isinstance(layer, NORMS) and not layer.training and layer.running_var is not None
    }
    if not frozen:
        return
    patient.step(patient.few_images())
    layers = dict(model.named_modules())
    moved = [
        name
        for name, (mean, variance) in frozen.items()
        if not (torch.equal(layers[name].running_mean, mean) and torch.equal(layers[name].running_var, variance))
    ]
    if moved:
        yield warning(
            f"{len(moved)} of {len(frozen)} batch norms that are in evaluation mode before a step have other "
            f"statistics after it: {some(moved)}",
            "the step puts them into training mode: frozen layers are given statistics of the new images, and their "
            "weights stay",
            "in the loop put the frozen layers into evaluation mode after each model.train(), or override train()",
            9,
        )


def some(names: list[str], count: int = 3) -> str:
    """Some of many names."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


CHECKS = (
    activations,
    scale_is_kept,
    heads_see_one_scale,
    gradients_reach_all,
    every_level_teaches_the_trunk,
    dropout_leaves_enough,
    frozen_statistics_stay,
)
