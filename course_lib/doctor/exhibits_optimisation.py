"""Exhibits in the loop: what is optimised, at which rate, and in which order a step goes."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau, StepLR

from course_lib import losses, ssd, training
from course_lib.doctor.exhibits_data import LOG
from course_lib.doctor.exhibits_loss import not_divided
from course_lib.doctor.patient import Patient
from course_lib.doctor.setups import RECIPE, Exhibit, Setup, fresh

Parts = dict[str, Tensor]


def own_step(setup: Setup, step: Callable[[Patient, object], Parts]) -> None:
    """Let the loop take a step of its own.

    Args:
        step: from the patient and a batch to the losses.
    """
    setup.made_last["step"] = lambda patient: lambda batch: step(patient, batch)


def backward(patient: Patient, batch: object) -> Parts:
    """Compute the losses and add their gradients to those that are there; gives the losses."""
    parts = patient.losses(batch)
    losses.total(dict(parts)).backward()
    return {name: value.detach() for name, value in parts.items()}


def improve(patient: Patient) -> None:
    """Shorten the gradient, and let optimizer and schedule take their step."""
    if patient.clip_norm is not None:
        nn.utils.clip_grad_norm_(patient.model.parameters(), patient.clip_norm)
    patient.optimizer.step()
    if patient.schedule is not None:
        patient.schedule.step()


def gradients_never_cleared(setup: Setup) -> None:
    """Nobody calls `zero_grad`: every step follows the sum of all gradients so far."""

    def step(patient: Patient, batch: object) -> Parts:
        parts = backward(patient, batch)
        improve(patient)
        return parts

    own_step(setup, step)


def gradients_cleared_too_early(setup: Setup) -> None:
    """`zero_grad` stands between `backward` and `step`."""

    def step(patient: Patient, batch: object) -> Parts:
        parts = backward(patient, batch)
        patient.optimizer.zero_grad(set_to_none=False)
        improve(patient)
        return parts

    own_step(setup, step)


def each_variable_clipped(setup: Setup) -> None:
    """Each parameter's gradient is shortened to 1 by itself, as Keras's `clipnorm` does."""

    def step(patient: Patient, batch: object) -> Parts:
        patient.optimizer.zero_grad()
        parts = backward(patient, batch)
        for parameter in patient.model.parameters():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, 1.0)
        improve(patient)
        return parts

    own_step(setup, step)


def plateau_of_batches(setup: Setup) -> None:
    """The rate falls to a tenth whenever the loss of one batch is no better than the best of the last ones."""
    setup.schedule = None

    def made(patient: Patient) -> Callable:
        plateau = ReduceLROnPlateau(patient.optimizer, "min", patience=3, factor=0.1)

        def step(batch: object) -> Parts:
            patient.optimizer.zero_grad()
            parts = backward(patient, batch)
            improve(patient)
            plateau.step(sum(parts.values()).item())
            return parts

        return step

    setup.made_last["step"] = made


def optimizer_of_another_model(setup: Setup) -> None:
    """The optimizer was made for the model before it was replaced."""
    usual = setup.optimizer
    setup.optimizer = lambda model: usual(copy.deepcopy(model))


def heads_replaced_later(setup: Setup) -> None:
    """The class heads are made anew for other classes when the optimizer is there already."""
    usual = setup.optimizer

    def made(model: ssd.SSD) -> torch.optim.Optimizer:
        optimizer = usual(model)
        model.conf_heads = fresh(ssd.ssd_nano, setup.classes, seed=2).conf_heads
        return optimizer

    setup.optimizer = made


def frozen_up_to_conv4_3(setup: Setup) -> None:
    """Two blocks are meant to be frozen, four are; the group of the trunk with its own rate has nothing to learn."""
    setup.model.backbone.freeze(4)

    def made(model: ssd.SSD) -> torch.optim.Optimizer:
        trunk = [p for p in model.backbone.to_conv4_3.parameters() if p.requires_grad]
        known = {id(p) for p in model.backbone.to_conv4_3.parameters()}
        rest = [p for p in model.parameters() if id(p) not in known]
        rate = RECIPE.learning_rate
        groups = [{"params": trunk, "lr": rate * RECIPE.backbone_factor}, {"params": rest, "lr": rate}]
        return torch.optim.AdamW(groups, weight_decay=RECIPE.weight_decay)

    setup.optimizer = made


def everything_frozen(setup: Setup) -> None:
    """The whole trunk is frozen while it is random: freezing was written for pretrained weights."""
    setup.pretrained, setup.frozen = None, ()
    setup.model = fresh(ssd.ssd_nano, setup.classes).train()
    setup.model.backbone.freeze(len(setup.model.backbone.blocks()))


def decay_on_everything(setup: Setup) -> None:
    """Weight decay acts on norms and biases as on kernels."""
    usual = setup.optimizer

    def made(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = usual(model)
        for group in optimizer.param_groups:
            group["weight_decay"] = RECIPE.weight_decay
        return optimizer

    setup.optimizer = made


def optimizer_with(setup: Setup, **changes) -> None:
    """Make the usual optimizer with other numbers."""
    setup.optimizer = partial(training.make_optimizer, recipe=replace(RECIPE, **changes))


def rate_too_high(setup: Setup) -> None:
    """The rate is a hundred times what it should be, from the first step on."""
    optimizer_with(setup, learning_rate=100 * RECIPE.learning_rate, backbone_factor=1.0)
    setup.schedule = None


def rate_too_low(setup: Setup) -> None:
    """The peak of the rate is 1e-5, five hundred times less than the heads need."""
    optimizer_with(setup, learning_rate=1e-5)


def first_epoch_at_rate_0(setup: Setup) -> None:
    """The rate of epoch e is e / 5 of its peak, and epochs count from 0."""
    epoch = max(1, len(setup.data) // setup.batch_size)
    setup.schedule = lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, step // epoch / 5))


def drops_by_step(setup: Setup) -> None:
    """The rate is to fall to a tenth every ten epochs; the schedule is stepped with every batch."""
    setup.schedule = lambda optimizer: StepLR(optimizer, step_size=10, gamma=0.1)


def cosine_by_step(setup: Setup) -> None:
    """A cosine over all epochs is stepped with every batch: the rate goes up and down all the time."""
    setup.schedule = lambda optimizer: CosineAnnealingLR(optimizer, T_max=RECIPE.epochs)


def clipping_hides_the_sum(setup: Setup) -> None:
    """The loss is a sum in the thousands, and every gradient is shortened to 10."""
    not_divided(setup)
    setup.clip_norm = 10.0
    setup.optimizer = lambda model: torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9
    )


EXHIBITS = {
    "gradients-never-cleared": Exhibit(
        "zero_grad is forgotten",
        "DN-DETR #19, torchforge #71, HSAN #6; pytorch #47175 asks for a warning, so common is it.",
        "The first steps look well, then the loss swings and climbs; no learning rate helps for long.",
        "optimizer.zero_grad() before every backward.",
        9,
        gradients_never_cleared,
    ),
    "gradients-cleared-too-early": Exhibit(
        "zero_grad between backward and step",
        "accelerate #1299 is about the place of that line, patrickloeber/pytorchTutorial #19 about why it matters: "
        "cleared after backward and before step, nothing is left to follow.",
        "The loss is a flat line with the noise of the batches.",
        "zero_grad, backward, step.",
        9,
        gradients_cleared_too_early,
    ),
    "each-variable-clipped": Exhibit(
        "Each variable's gradient clipped by itself",
        "A page in this course's sources recommends Keras's clipnorm, which shortens every variable by itself; torch's "
        "clip_grad_norm_ shortens all together.",
        "All layers move at one pace, whatever they have to learn: the gradient's direction is another.",
        "nn.utils.clip_grad_norm_(model.parameters(), ...); in Keras, global_clipnorm.",
        9,
        each_variable_clipped,
    ),
    "plateau-of-batches": Exhibit(
        "A plateau schedule stepped by one batch's loss",
        "A page in this course's sources calls scheduler.step(loss) behind every batch, with a patience of 3.",
        "Within some dozens of batches the rate is a thousandth, and the loss stands still.",
        "Step it by a measurement, once an epoch.",
        9,
        plateau_of_batches,
    ),
    "optimizer-of-another-model": Exhibit(
        "An optimizer of another model",
        "pytorch #54765 and #14467, nni #4521: the model was replaced after the optimizer had been made.",
        "Gradients are there, weights do not move.",
        "Make the optimizer last.",
        9,
        optimizer_of_another_model,
    ),
    "heads-replaced-later": Exhibit(
        "Heads replaced after the optimizer was made",
        "ConfigurableOptimizer #27 asks how the optimizer is to know of layers that are made later; for another set of "
        "classes it is the heads.",
        "Boxes learn, classes do not: every class has the same score.",
        "Replace the heads first, then make the optimizer.",
        9,
        heads_replaced_later,
    ),
    "frozen-up-to-conv4-3": Exhibit(
        "More frozen than meant, and an empty group",
        f'{LOG}: "ten frozen layers" froze all twenty tensors up to conv4_3, and the parameter group with the trunk\'s '
        "rate was left empty. torchvision #4548: ssd300_vgg16 froze one layer too many.",
        "It learns less than it could; the rate of the empty group changes nothing.",
        "Count what is frozen, by name.",
        9,
        frozen_up_to_conv4_3,
    ),
    "random-and-frozen": Exhibit(
        "A random trunk, frozen",
        "torchvision #2164 and #3394: layers were frozen as for pretrained weights, and there were none.",
        "The heads read noise that never changes: mAP stays low.",
        "Freeze only what has learned.",
        9,
        everything_frozen,
    ),
    "decay-on-everything": Exhibit(
        "Weight decay on norms and biases",
        "A later state of a published code (adrirubio/ml-rover) gives all parameters to AdamW with decay; the original "
        "SSD lets biases learn twice as fast and decay not at all.",
        "Norms shrink, and with them what the layers say; little at small decay, much at large.",
        "Two groups: kernels decay, the rest does not.",
        9,
        decay_on_everything,
    ),
    "rate-too-high": Exhibit(
        "A learning rate a hundred times too high",
        "ssd.pytorch #7, #240, #275, #312 and #373, lufficc/SSD #95, gluon-cv #142: NaN in the first hundred steps.",
        "The loss explodes, becomes NaN, or sits at a value that needs no picture.",
        "A range test: raise the rate step by step, and take a tenth of that at which the loss turns; and a warmup.",
        9,
        rate_too_high,
    ),
    "rate-too-low": Exhibit(
        "A learning rate far too low",
        "A published training log (adrirubio/ml-rover, state 849686a): a warmup to 1e-5 and a cosine down to 2e-6, for "
        "layers that begin at random; caffe #855 trains at 1e-7.",
        "The loss falls slowly and evenly, and looks healthy; weights change by millionths.",
        "A range test: raise the rate step by step, and take a tenth of that at which the loss turns.",
        9,
        rate_too_low,
    ),
    "first-epoch-at-rate-0": Exhibit(
        "A first epoch at rate 0",
        f"{LOG}: LambdaLR with epoch / warmup, and epochs count from 0.",
        "The first epoch's loss does not fall; if there are few epochs, that is a good part of the run.",
        "(epoch + 1) / warmup.",
        9,
        first_epoch_at_rate_0,
    ),
    "drops-by-step": Exhibit(
        "A schedule in epochs, stepped with every batch",
        "ivadomed #55 and vortex #58: step() stood in the loop over batches.",
        "Within a hundred batches the rate is nothing.",
        "Step it once an epoch, or count its numbers in steps.",
        9,
        drops_by_step,
    ),
    "cosine-by-step": Exhibit(
        "A cosine over epochs, stepped with every batch",
        "meshed-memory-transformer #71 steps its schedule in both loops; torch's cosine goes up again behind its end.",
        "The loss rises and falls, with a period of twice as many batches as there are epochs.",
        "T_max in steps.",
        9,
        cosine_by_step,
    ),
    "clipping-hides-the-sum": Exhibit(
        "Clipping that hides a wrong loss",
        f"{LOG}: gradients of losses in the thousands were shortened to 10. Nothing explodes, and nothing asks why.",
        "Every single step is clipped: the length of the gradient no longer says anything.",
        "Log the norm before clipping; a healthy run is clipped now and then.",
        9,
        clipping_hides_the_sum,
    ),
}
