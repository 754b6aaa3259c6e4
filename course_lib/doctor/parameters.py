"""Checks of parameters: what the network starts with, and what of it learns."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.layers import last_layers, leaves, some, unregistered
from course_lib.doctor.patient import Patient


@check("model")
def weights_are_sound(patient: Patient) -> Iterator[Finding]:
    """Are all weights finite, and none of them constant?"""
    named = [*patient.model.named_parameters(), *patient.model.named_buffers()]
    if bad := [name for name, t in named if t.is_floating_point() and not bool(t.isfinite().all())]:
        yield fault(
            f"{len(bad)} tensors of the model hold NaN or infinity: {some(bad)}",
            "all that is computed from them is NaN",
            "take a checkpoint from before, or another file: torchvision's VGG16 features-only has NaN in its "
            "classifier",
            3,
        )
    kernels = {name: p.detach() for name, p in patient.model.named_parameters() if p.ndim > 1 and p.numel() > 16}
    constant = [name for name, kernel in kernels.items() if bool((kernel == kernel.flatten()[0]).all())]
    if constant:
        weights = dict(patient.model.named_parameters())
        yield (fault if len(constant) > 2 else warning)(
            f"all numbers of {some(constant)} are the same: {float(weights[constant[0]].detach().flatten()[0]):.3g}",
            "units with equal weights get equal gradients and stay copies of each other; zeros pass nothing back",
            "start from random numbers, scaled by the number of inputs (Xavier, He)",
            3,
        )


@check("model", "pretrained")
def pretrained_is_there(patient: Patient) -> Iterator[Finding]:
    """Does the network hold the weights that it was meant to start with?"""
    model = patient.model.state_dict()
    meant = {name: t for name, t in patient.pretrained.items() if isinstance(t, Tensor) and t.is_floating_point()}
    why = "a detector whose trunk is random needs far more images and steps than one that has learned to see"
    if bad := [name for name, t in meant.items() if not bool(t.isfinite().all())]:
        yield fault(f"pretrained weights hold NaN or infinity: {some(bad)}", why, "take another file", 3)
    unknown = [name for name in meant if name not in model]
    if meant and unknown:
        yield (fault if len(unknown) > len(meant) / 2 else warning)(
            f"{len(unknown)} of {len(meant)} pretrained tensors have names that the model does not: {some(unknown)}",
            f"load_state_dict(strict=False) passes over them without a word: {why}",
            "rename them, and print what load_state_dict returns",
            3,
        )
    misfits = [name for name, t in meant.items() if name in model and model[name].shape != t.shape]
    if misfits:
        yield warning(
            f"{len(misfits)} pretrained tensors have another shape than the model's: {some(misfits)}",
            why,
            "take the weights of the same architecture, or cut them to shape (fc6 and fc7 of VGG)",
            3,
        )
    far = []
    for name, t in meant.items():
        if name in model and model[name].shape == t.shape and t.ndim > 1 and bool(t.isfinite().all()):
            size = max(float(t.norm()), 1e-12)
            if float((model[name].cpu() - t.cpu()).norm()) > 0.5 * size:
                far.append(name)
    kernels = [name for name, t in meant.items() if t.ndim > 1]
    if far:
        yield (fault if len(far) > 0.3 * len(kernels) else warning)(
            f"{len(far)} of {len(kernels)} pretrained kernels are not in the model, which has others there: "
            f"{some(far)}",
            why,
            "load them after everything that initialises, and before the optimizer is made",
            3,
        )
    else:
        yield from scales_are_there(patient, meant)


def scales_are_there(patient: Patient, meant: dict[str, Tensor]) -> Iterator[Finding]:
    """Scales and biases that are not the pretrained ones, where the kernels still are: training moves all."""
    now = {name: p.detach().cpu() for name, p in patient.model.named_parameters() if name in meant}
    off = {
        name: float((p - meant[name].cpu()).norm()) / max(float(meant[name].norm()), 1e-12)
        for name, p in now.items()
        if p.shape == meant[name].shape and bool(meant[name].isfinite().all())
    }
    kernels = [off[name] for name in off if now[name].ndim > 1]
    lost = [name for name in off if now[name].ndim <= 1 and off[name] > MOVED]
    if lost and kernels and sorted(kernels)[len(kernels) // 2] < UNMOVED:
        first = lost[0]
        yield warning(
            f"{len(lost)} pretrained scales and biases are not in the model, whose kernels are the pretrained ones: "
            f"{some(lost)} (a mean of {float(now[first].mean()):.3g} where {float(meant[first].float().mean()):.3g} is "
            "due)",
            "every map after such a layer has another scale than the kernels behind it were made for",
            "load all of a layer, and set L2Norm's scale to 20; nothing may initialise after that",
            3,
        )


UNMOVED, MOVED = 1e-3, 0.1  # of a tensor's length


@check("model")
def parameters_learn(patient: Patient) -> Iterator[Finding]:
    """Do those parameters learn that are meant to, and no others?"""
    named = dict(patient.model.named_parameters())
    if not named:
        return
    still = [name for name, p in named.items() if not p.requires_grad]
    numbers = sum(p.numel() for p in named.values())
    share = sum(named[name].numel() for name in still) / numbers
    if len(still) == len(named):
        yield fault("no parameter of the model learns", "it stays as it is", "requires_grad_(True) for the heads", 9)
        return
    heads: dict[str, list[str]] = {}
    if patient.outputs is not None and patient.batches is not None:
        with patient.undisturbed():
            heads = last_layers(patient)
            yield from outside_of_the_model(patient)
    for part, names in heads.items():
        if frozen := [name for name in names if name in still]:
            yield fault(
                f"{len(frozen)} of {len(names)} parameters of the heads of the {part} do not learn: {some(frozen)}",
                "heads start from random numbers: frozen, they predict noise for ever",
                "freeze the trunk's first blocks alone",
                9,
            )
    known = {name for names in heads.values() for name in names}
    rest = [name for name in still if name not in known]
    if patient.frozen is None:
        if rest:
            yield note(
                f"{len(rest)} parameters, {share:.0%} of all numbers, do not learn: {some(rest)}",
                "right where they are pretrained, and wrong where they are random",
                "compare with what was meant; count tensors and layers apart",
                9,
            )
        return
    meant = tuple(patient.frozen)
    if extra := [name for name in rest if not name.startswith(meant)]:
        part = sum(named[name].numel() for name in extra) / numbers
        yield (fault if part > 0.5 else warning)(
            f"{len(extra)} parameters, {part:.0%} of all numbers, do not learn, though nobody has meant to freeze "
            "them: "
            f"{some(extra)}",
            "they stay as they were at the start",
            "freeze by name; ten layers are twenty tensors",
            9,
        )
    if moving := [name for name in named if meant and name.startswith(meant) and name not in still]:
        yield warning(
            f"{len(moving)} parameters learn that were meant to stay: {some(moving)}",
            "what was learned from many images is overwritten by few",
            "requires_grad_(False) on them, before the optimizer is made",
            9,
        )


def outside_of_the_model(patient: Patient) -> Iterator[Finding]:
    """Tensors that the outputs are made of, and that the model does not list among its parameters."""
    strange = unregistered(patient)
    held = held_by(patient.optimizer)
    if strange:
        learned = held is not None and all(id(tensor) in held for tensor in strange)
        yield (warning if learned else fault)(
            f"{len(strange)} tensors that the outputs are made of, {shapes(strange)}, are no parameters of the model: "
            "layers that stand in a plain list or dict are not registered",
            "checkpoint, device and eval() pass over them, and their batch norms mix the images of a batch for ever"
            if learned
            else "optimizer, checkpoint, device, train() and eval() pass over them: they keep their random weights, "
            "and their batch norms mix the images of a batch in evaluation mode too",
            "nn.ModuleList or nn.ModuleDict for layers, nn.Parameter for tensors, as attributes of the module",
            5,
        )


@check("batches", "model", "outputs", "losses", "optimizer")
def parameters_of_losses_learn(patient: Patient) -> Iterator[Finding]:
    """Does the optimizer hold what the losses have of parameters of their own?"""
    known = held_by(patient.optimizer) | {id(p) for p in [*patient.model.parameters(), *unregistered(patient)]}
    with torch.enable_grad():
        parts = dict(patient.losses(patient.few_images()))
    if alone := [p for p in leaves(*parts.values()) if id(p) not in known and isinstance(p, nn.Parameter)]:
        yield warning(
            f"{len(alone)} tensors that the losses are made of, {shapes(alone)}, are parameters neither of the model "
            "nor of the optimizer",
            "they are meant to learn, and stay as they are",
            "give the optimizer the parameters of the loss too",
            9,
        )


def held_by(optimizer: torch.optim.Optimizer | None) -> set[int] | None:
    """The ids of all tensors that an optimizer steps."""
    return None if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}


def shapes(tensors: list[Tensor]) -> str:
    """The shapes of some tensors, kernels first, and how many numbers there are in all."""
    told = [" x ".join(map(str, t.shape)) or "a number" for t in sorted(tensors, key=lambda t: -t.numel())]
    return f"{some(told)}, {sum(t.numel() for t in tensors):,} numbers"


def accidental(patient: Patient) -> list[str]:
    """What does not learn and was not meant to be frozen."""
    meant = tuple(patient.frozen or ())
    return [n for n, p in patient.model.named_parameters() if not p.requires_grad and not n.startswith(meant)]


CHECKS = (weights_are_sound, pretrained_is_there, parameters_learn, parameters_of_losses_learn)
