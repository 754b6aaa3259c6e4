"""Chapter 16: what a separable convolution saves, what is left of a signal, and batch norm in training and in use.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def separable_weights(inputs, outputs, kernel):
    dense = inputs * outputs * kernel**2
    depthwise = inputs * kernel**2
    pointwise = inputs * outputs
    return dense, depthwise + pointwise


Count = Callable[[int, int, int], int]


def _weights(
    dense: Count = lambda inputs, outputs, kernel: inputs * outputs * kernel**2,
    depthwise: Count = lambda inputs, outputs, kernel: inputs * kernel**2,
    pointwise: Count = lambda inputs, outputs, kernel: inputs * outputs,
    joined: Callable[[int, int], int] = lambda depthwise, pointwise: depthwise + pointwise,
) -> Callable[[int, int, int], tuple[int, int]]:
    """Both counts, with one of their parts exchanged."""

    def twin(*shape: int) -> tuple[int, int]:
        return dense(*shape), joined(depthwise(*shape), pointwise(*shape))

    return twin


SEPARABLE_WEIGHTS = Exercise(
    solution=separable_weights,
    cases=[
        (4, 6, 3),
        (256, 126, 3),
        (16, 24, 1),
        (1, 20, 5),
        (96, 24, 5),
        (40, 40, 3),
        (7, 1, 3),
    ],
    returns=("dense", "separable"),
    mistakes=mistakes(
        "kernel once: A kernel has a height and a width: it has its side squared taps.",
        _weights(
            dense=lambda inputs, outputs, kernel: inputs * outputs * kernel,
            depthwise=lambda inputs, outputs, kernel: inputs * kernel,
        ),
        _weights(depthwise=lambda inputs, outputs, kernel: inputs * kernel),
        _weights(dense=lambda inputs, outputs, kernel: inputs * outputs * kernel),
        "biases: You count biases. Only weights are asked for.",
        _weights(
            dense=lambda inputs, outputs, kernel: inputs * outputs * kernel**2 + outputs,
            depthwise=lambda inputs, outputs, kernel: inputs * kernel**2 + inputs,
            pointwise=lambda inputs, outputs, kernel: inputs * outputs + outputs,
        ),
        _weights(
            dense=lambda inputs, outputs, kernel: inputs * outputs * kernel**2 + outputs,
            pointwise=lambda inputs, outputs, kernel: inputs * outputs + outputs,
        ),
        "mixes twice: A depthwise kernel looks at its own channel alone: there are as many kernels as channels, and "
        "not one for each pair.",
        _weights(depthwise=lambda inputs, outputs, kernel: inputs**2 * kernel**2),
        "looks twice: The second convolution is 1 x 1: it mixes channels, and looks at no neighbours.",
        _weights(pointwise=lambda inputs, outputs, kernel: inputs * outputs * kernel**2),
        "one kernel: Each channel has a depthwise kernel of its own. You count a single one for all.",
        _weights(depthwise=lambda inputs, outputs, kernel: kernel**2),
        "behind the mix: You count a depthwise kernel for each output. It looks before channels are mixed.",
        _weights(depthwise=lambda inputs, outputs, kernel: outputs * kernel**2),
        "multiplied: The two convolutions stand one behind the other: their weights add up.",
        _weights(joined=lambda depthwise, pointwise: depthwise * pointwise),
        "nine taps: Nine are the taps of a kernel of side 3. This one's side is `kernel`.",
        _weights(
            dense=lambda inputs, outputs, kernel: 9 * inputs * outputs,
            depthwise=lambda inputs, outputs, kernel: 9 * inputs,
        ),
        _weights(depthwise=lambda inputs, outputs, kernel: 9 * inputs),
        "outputs twice: The 1 x 1 convolution goes from as many channels as come in to as many as go out.",
        _weights(pointwise=lambda inputs, outputs, kernel: outputs**2),
        "half of it: You count one of its two convolutions.",
        _weights(joined=lambda depthwise, pointwise: depthwise),
        _weights(joined=lambda depthwise, pointwise: pointwise),
        "exchanged: The dense convolution comes first.",
        lambda *shape: separable_weights(*shape)[::-1],
    ),
)


def signal_left(layers):
    square = 1.0
    for channels, kernel, groups, deviation in layers:
        inputs = channels // groups * kernel**2
        square *= inputs * deviation**2 / 2
    return math.sqrt(square)


Layers = Sequence[tuple[int, int, int, float]]


def _left(
    inputs: Callable[[int, int, int], float] = lambda channels, kernel, groups: channels // groups * kernel**2,
    variance: Callable[[float], float] = lambda deviation: deviation**2,
    rectified: Callable[[float], float] = lambda square: square / 2,
    end: Callable[[float], float] = math.sqrt,
) -> Callable[[Layers], float]:
    """What is left of a signal, with one of its parts exchanged."""

    def twin(layers: Layers) -> float:
        square = 1.0
        for *shape, deviation in layers:
            square *= rectified(inputs(*shape) * variance(deviation))
        return end(square)

    return twin


def _added(layers: Layers) -> float:
    return math.sqrt(sum(signal_left([one]) ** 2 for one in layers))


SIGNAL_LEFT = Exercise(
    solution=signal_left,
    cases=[
        ([(4, 1, 1, 0.5)],),
        ([(64, 3, 1, 0.05)],),
        ([(64, 3, 1, 0.01)] * 3,),
        ([(32, 3, 32, 0.4), (32, 1, 1, 0.25)],),
        ([(3, 3, 1, 0.2), (16, 5, 4, 0.1), (8, 1, 1, 1.5), (8, 3, 8, 0.05)],),
        ([(128, 3, 1, 0.06)] * 13,),
        ([(96, 3, 1, 0.005), (96, 3, 96, 0.9), (96, 1, 2, 0.2)],),
        ([],),
    ],
    absolute=0.0,
    mistakes=mistakes(
        "squares: This is what is left of the mean square. The signal's size is its root.",
        _left(end=lambda square: square),
        "no ReLU: ReLU takes half of the mean square at each layer.",
        _left(rectified=lambda square: square),
        "one ReLU: There is a ReLU behind each layer, and each takes half of the mean square.",
        lambda layers: signal_left(layers) * math.sqrt(2 ** max(len(layers) - 1, 0)),
        "ReLU of the root: ReLU halves the mean square. The size itself loses less.",
        _left(rectified=lambda square: square / 4),
        "kernel once: A kernel has a height and a width: it sums its side squared taps of each channel.",
        _left(inputs=lambda channels, kernel, groups: channels // groups * kernel),
        "one tap: An output sums over the kernel's taps too, and not over channels alone.",
        _left(inputs=lambda channels, kernel, groups: channels // groups),
        "one channel: An output sums over the channels of its group, and not over one kernel alone.",
        _left(inputs=lambda channels, kernel, groups: kernel**2),
        "groups left out: With groups an output sees the channels of its own group alone.",
        _left(inputs=lambda channels, kernel, groups: channels * kernel**2),
        "times groups: More groups mean fewer inputs for each output, not more.",
        _left(inputs=lambda channels, kernel, groups: channels * groups * kernel**2),
        "deviation: A sum's variance grows with the variance of the weights, which is the square of their deviation.",
        _left(variance=lambda deviation: deviation),
        "added: Each layer multiplies what the one before has left.",
        _added,
        "one layer: You look at one layer. All of them come one after the other.",
        lambda layers: signal_left(layers[-1:]),
        lambda layers: signal_left(layers[:1]),
        "all alike: Layers differ. You take one of them for all.",
        lambda layers: signal_left(layers[:1]) ** len(layers),
        lambda layers: signal_left(layers[-1:]) ** len(layers),
        "no layers: Through no layer at all the signal passes as it is.",
        but(lambda layers: not layers, stop, signal_left),
        but(lambda layers: not layers, lambda: 0.0, signal_left),
    ),
)


def batch_norm(x, mean, variance, momentum, eps, training):
    over = {"dim": (0, 2, 3), "keepdim": True}
    if training:
        y = (x - x.mean(**over)) / (x.var(unbiased=False, **over) + eps).sqrt()
        mean = (1 - momentum) * mean + momentum * x.mean(**over)
        variance = (1 - momentum) * variance + momentum * x.var(**over)
    else:
        y = (x - mean) / (variance + eps).sqrt()
    return y, mean, variance


Statistics = tuple[Tensor, Tensor]
EVERY = (0, 2, 3)


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=EVERY, keepdim=True)


def _variance(x: Tensor, unbiased: bool = True) -> Tensor:
    return x.var(dim=EVERY, keepdim=True, unbiased=unbiased)


def _norm(
    own: Callable[[Tensor], Statistics] = lambda x: (_mean(x), _variance(x, unbiased=False)),
    kept: Callable[[Tensor], Statistics] = lambda x: (_mean(x), _variance(x)),
    updated: Callable[[Tensor, Tensor, float], Tensor] = lambda old, new, momentum: old + momentum * (new - old),
    divisor: Callable[[Tensor, float], Tensor] = lambda variance, eps: (variance + eps).sqrt(),
    by_batch: Callable[[bool], bool] = bool,
    updates: Callable[[bool], bool] = bool,
    late: bool = False,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Batch norm with one of its parts exchanged.

    Args:
        own: the batch's mean and variance.
        kept: the mean and variance that go into the running ones.
        by_batch, updates: from the mode to whether the batch normalises itself, and whether statistics are updated.
        late: normalise by the statistics after their update.
    """

    def twin(x: Tensor, mean: Tensor, variance: Tensor, momentum: float, eps: float, training: bool) -> tuple:
        before, after = (mean, variance), (mean, variance)
        if updates(training):
            after = tuple(updated(old, new, momentum) for old, new in zip(before, kept(x), strict=True))
        middle, square = own(x) if by_batch(training) else after if late and training else before
        return (x - middle) / divisor(square, eps), *after

    return twin


def _over(*dims: int, unbiased: bool = False) -> Callable[[Tensor], Statistics]:
    """Mean and variance over some axes alone."""
    return lambda x: (x.mean(dim=dims, keepdim=True), x.var(dim=dims, keepdim=True, unbiased=unbiased))


def _never(training: bool) -> bool:
    return False


def _always(training: bool) -> bool:
    return True


def _maps(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    channels = torch.arange(1, shape[1] + 1)[:, None, None]
    return scale * (torch.randn(shape, generator=generator) * channels + channels)


def _each(*values: float) -> Tensor:
    """A number for each channel, in a shape that goes with maps."""
    return torch.tensor(values)[None, :, None, None]


BATCH_NORM = Exercise(
    solution=batch_norm,
    cases=[
        (_maps(3, 2, 2, 3, seed=0), _each(0.0, 0.0), _each(1.0, 1.0), 0.1, 1e-5, True),
        (_maps(3, 2, 2, 3, seed=1), _each(0.5, -1.0), _each(2.0, 0.25), 0.1, 1e-5, False),
        (_maps(2, 3, 1, 2, seed=2), _each(1.0, 0.0, 2.0), _each(4.0, 1.0, 0.5), 0.3, 0.1, True),
        (_maps(1, 2, 2, 2, seed=3), _each(0.5, 1.0), _each(1.0, 3.0), 0.1, 0.5, False),
        (_maps(4, 1, 2, 2, seed=4, scale=0.02), _each(0.0), _each(1.0), 0.01, 1e-3, True),
        (torch.full((2, 1, 2, 2), 3.0), _each(1.0), _each(1.0), 0.5, 1e-3, True),
    ],
    returns=("y", "mean", "variance"),
    mistakes=mistakes(
        "each image: You normalise each image by itself. A channel has one mean over all images of the batch.",
        _norm(own=_over(2, 3)),
        _norm(own=_over(2, 3), kept=_over(2, 3, unbiased=True)),
        "each position: You take a mean for each cell of the map. A channel has one over images, rows and columns.",
        _norm(own=_over(0)),
        _norm(own=_over(0), kept=_over(0, unbiased=True)),
        "one for all: Each channel has statistics of its own.",
        _norm(own=_over(0, 1, 2, 3)),
        _norm(own=_over(0, 1, 2, 3), kept=_over(0, 1, 2, 3, unbiased=True)),
        "each cell's channels: You normalise over the channels. That is layer norm; here each channel is by itself.",
        _norm(own=_over(1)),
        "kept as it is used: What is divided by is the batch's own variance, by n. What is kept is a guess at that of "
        "all images, by n - 1.",
        _norm(kept=lambda x: (_mean(x), _variance(x, unbiased=False))),
        "a deviation is kept: What is kept is the variance. You keep its root.",
        _norm(kept=lambda x: (_mean(x), _variance(x).sqrt())),
        "kept in the wrong order: The running mean comes before the running variance.",
        lambda *arguments: tuple(batch_norm(*arguments)[place] for place in (0, 2, 1)),
        "used as it is kept: A batch is normalised by its own variance, by n, so that it comes out with a variance of "
        "1. By n - 1 is what is kept.",
        _norm(own=lambda x: (_mean(x), _variance(x))),
        "momentum turned round: `momentum` is the share of the new statistics here, as in PyTorch.",
        _norm(updated=lambda old, new, momentum: new + momentum * (old - new)),
        "added: The old statistics make room for the new ones.",
        _norm(updated=lambda old, new, momentum: old + momentum * new),
        "replaced: The statistics of this batch replace all that was known.",
        _norm(updated=lambda old, new, momentum: new),
        "eps outside: `eps` is added to the variance, before the root.",
        _norm(divisor=lambda variance, eps: variance.sqrt() + eps),
        "no eps: Where is `eps`? A channel that is the same everywhere has a variance of 0.",
        _norm(divisor=lambda variance, eps: variance.sqrt() + 1e-12),
        "no root: You divide by the variance. The deviation is its root.",
        _norm(divisor=lambda variance, eps: variance + eps),
        "batch in use: In use a picture's answer must not depend on the others: it is normalised by what was kept.",
        _norm(by_batch=_always),
        "kept in training: In training the batch is normalised by its own statistics.",
        _norm(by_batch=_never),
        "by the new ones: You update the statistics first and normalise by them. In training those of the batch are "
        "taken.",
        _norm(by_batch=_never, late=True),
        "learns in use: In use the statistics stay as they are: who is measured must not be changed by it.",
        _norm(updates=_always),
        "never learns: In training the running statistics have to follow.",
        _norm(updates=_never),
        "modes exchanged: In training the batch's own statistics are taken, and in use the kept ones. You have it the "
        "other way round.",
        lambda x, mean, variance, momentum, eps, training: batch_norm(x, mean, variance, momentum, eps, not training),
        "mode ignored: You do in use what is done in training.",
        lambda x, mean, variance, momentum, eps, training: batch_norm(x, mean, variance, momentum, eps, True),
        "always in use: You never learn from a batch: `training` changes nothing.",
        lambda x, mean, variance, momentum, eps, training: batch_norm(x, mean, variance, momentum, eps, False),
    ),
)


EXERCISES = {
    "separable_weights": SEPARABLE_WEIGHTS,
    "signal_left": SIGNAL_LEFT,
    "batch_norm": BATCH_NORM,
}
