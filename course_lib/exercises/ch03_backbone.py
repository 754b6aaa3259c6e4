"""Chapter 3: sizes of maps, what a cell sees, and thinning out VGG16.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def map_size(size, kernel, stride, padding, ceil):
    room = size + 2 * padding - kernel
    if not ceil:
        return room // stride + 1
    windows = -(-room // stride) + 1
    if (windows - 1) * stride >= size + padding:
        windows -= 1
    return windows


def _windows(room: int, stride: int, up: bool) -> int:
    return (-(-room // stride) if up else room // stride) + 1


MAP_SIZE = Exercise(
    solution=map_size,
    cases=[
        (6, 2, 2, 0, False),
        (5, 3, 1, 0, False),
        (150, 2, 2, 0, True),
        (7, 2, 3, 0, True),
        (75, 2, 2, 0, False),
        (75, 2, 2, 0, True),
        (19, 3, 1, 1, False),
        (7, 3, 1, 1, True),
        (9, 4, 3, 2, True),
        (19, 3, 2, 1, False),
        (4, 1, 2, 0, True),
        (3, 2, 2, 1, True),
        (4, 2, 2, 1, True),
        (10, 3, 4, 1, True),
    ],
    mistakes=mistakes(
        "always down: You never round up. What is `ceil` for?",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, padding, False),
        "always up: You always round up. That is asked for where `ceil` is true, and only there.",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, padding, True),
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, True),
        "up and down exchanged: Where `ceil` is true you round down, and the other way round.",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, padding, not ceil),
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, not ceil),
        "one more: You add a window whenever `ceil` is true. Where the windows fill the map there is none to add.",
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, False) + ceil,
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, False) + ceil)
            - ((windows - 1) * stride >= size + padding)
        ),
        "steps counted: You count the steps of the window. Before its first step it has been somewhere, too.",
        lambda *args: map_size(*args) - 1,
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, ceil) - 1,
        "kernel left out: You divide the side by the stride, whatever the kernel. It needs room at the end.",
        lambda size, kernel, stride, padding, ceil: _windows(size, stride, ceil) - 1,
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding, stride, ceil) - 1,
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding, stride, ceil),
        "padding left out: Where there is padding your map is too small: the windows may begin and end in it.",
        lambda size, kernel, stride, padding, ceil: map_size(size, kernel, stride, 0, ceil),
        lambda size, kernel, stride, padding, ceil: _windows(size - kernel, stride, ceil),
        "padding on one side: You add the padding once. A map has two ends.",
        lambda size, kernel, stride, padding, ceil: _windows(size + padding - kernel, stride, ceil),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + padding - kernel, stride, ceil)) - ((windows - 1) * stride >= size + padding)
        ),
        "last window kept: You keep a last window that PyTorch drops. Counted from the start of the left padding, a "
        "window that begins at size + padding is already outside.",
        lambda size, kernel, stride, padding, ceil: _windows(size + 2 * padding - kernel, stride, ceil),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil))
            - ((windows - 1) * stride >= size + 2 * padding)
        ),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil)) - ((windows - 1) * stride > size + padding)
        ),
        "window dropped too soon: You drop a last window that still begins in the map. Windows are counted from the "
        "start of the left padding, so where does the map end?",
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil)) - ((windows - 1) * stride >= size)
        ),
        "dropped with padding only: You drop a last window only where there is padding. A kernel smaller than the "
        "stride can begin outside without any.",
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil))
            - (padding > 0 and (windows - 1) * stride >= size + padding)
        ),
        "window after the last: You look at where one more window would begin. The first one begins at 0, so the last "
        "has taken one step less than there are windows.",
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil))
            - (ceil and windows * stride >= size + padding)
        ),
        lambda size, kernel, stride, padding, ceil: (
            (windows := _windows(size + 2 * padding - kernel, stride, ceil)) - (windows * stride >= size + padding)
        ),
        "to the nearest: You round to the nearest integer. `ceil` says whether a part of a step counts or not, however "
        "large it is.",
        lambda size, kernel, stride, padding, ceil: (
            (windows := (round if ceil else math.floor)((size + 2 * padding - kernel) / stride) + 1)
            - (ceil and (windows - 1) * stride >= size + padding)
        ),
        lambda size, kernel, stride, padding, ceil: (
            (round if ceil else math.floor)((size + 2 * padding - kernel) / stride) + 1
        ),
        lambda size, kernel, stride, padding, ceil: round((size + 2 * padding - kernel) / stride) + 1,
        "no integer: The side of a map is an integer. A division with `/` gives a float, and so do NumPy's floor and "
        "ceil.",
        lambda size, kernel, stride, padding, ceil: (size + 2 * padding - kernel) / stride + 1,
        lambda *args: float(map_size(*args)),
    ),
)


def receptive_field(layers, cells):
    field, jump = 1, 1
    for kernel, stride, dilation in layers:
        field = field + (kernel - 1) * dilation * jump
        jump = jump * stride
    return field + (cells - 1) * jump


Layers = list[tuple[int, int, int]]


def _field(
    reach: Callable[[int, int], int] = lambda kernel, dilation: (kernel - 1) * dilation,
    apart: Callable[[int, int, int], int] = lambda jump, stride, dilation: jump * stride,
    together: Callable[[int, int, int], int] = lambda field, jump, cells: field + (cells - 1) * jump,
) -> Callable[[Layers, int], int]:
    """What some neighbouring cells see together, with one of its parts exchanged."""

    def twin(layers: Layers, cells: int) -> int:
        field, jump = 1, 1
        for kernel, stride, dilation in layers:
            field += reach(kernel, dilation) * jump
            jump = apart(jump, stride, dilation)
        return together(field, jump, cells)

    return twin


def _jumps(jump: Callable[[list[int]], int]) -> Callable[[Layers, int], int]:
    """A receptive field; `jump` gives how far apart cells are, from the strides up to the layer, its own last."""

    def twin(layers: Layers, cells: int) -> int:
        strides = [stride for _, stride, _ in layers]
        steps = enumerate(layers, start=1)
        field = 1 + sum((kernel - 1) * dilation * jump(strides[:n]) for n, (kernel, _, dilation) in steps)
        return field + (cells - 1) * math.prod(strides)

    return twin


def _from_the_map(
    before: Callable[[int, int, int, int], int], order: Callable = reversed
) -> Callable[[Layers, int], int]:
    """A receptive field layer by layer, from the map to the image; `before` says what a layer needs."""

    def twin(layers: Layers, cells: int) -> int:
        for kernel, stride, dilation in order(layers):
            cells = before(cells, kernel, stride, dilation)
        return cells

    return twin


RECEPTIVE_FIELD = Exercise(
    solution=receptive_field,
    cases=[
        ([(3, 1, 1)], 1),
        ([(3, 1, 1), (3, 1, 1)], 1),
        ([(2, 2, 1)], 1),
        ([(3, 1, 1), (2, 2, 1), (3, 1, 1)], 1),
        ([(3, 2, 1), (5, 3, 1), (3, 1, 1), (2, 2, 1)], 1),
        ([(3, 1, 6)], 1),
        ([(3, 1, 2), (3, 1, 1)], 1),
        ([(2, 2, 1), (3, 1, 6), (1, 1, 1)], 1),
        ([*[(3, 1, 1), (3, 1, 1), (2, 2, 1)] * 2, (3, 1, 1), (3, 1, 1), (3, 1, 1), (2, 2, 1)], 1),
        ([], 1),
        ([(3, 1, 1)], 2),
        ([(3, 1, 1), (2, 2, 1)], 3),
        ([(3, 2, 1), (3, 1, 2), (2, 3, 1)], 3),
        ([], 3),
    ],
    mistakes=mistakes(
        "own stride: You multiply by the stride of the layer itself. How far apart its taps lie was settled by the "
        "layers before it.",
        _jumps(lambda strides: strides[-1]),
        _jumps(math.prod),
        "strides left out: You add up kernels as if no layer had a stride. After a stride of 2, two neighbouring cells "
        "are two pixels apart.",
        _jumps(lambda strides: 1),
        "last stride only: You remember the stride of one layer. After two strides of 2 cells are four pixels apart.",
        _jumps(lambda strides: strides[-2] if len(strides) > 1 else 1),
        "strides added: You add where strides multiply. Halving twice makes quarters.",
        _jumps(lambda strides: 1 + sum(strides[:-1])),
        _jumps(lambda strides: sum(strides[:-1]) or 1),
        _field(apart=lambda jump, stride, dilation: jump + stride),
        _field(apart=lambda jump, stride, dilation: jump + stride - 1),
        "dilation in the stride: You let a dilation move the cells apart. It spreads the taps of its own layer; the "
        "cells that the layer gives lie as close as its stride puts them.",
        _field(apart=lambda jump, stride, dilation: jump * stride * dilation),
        _field(apart=lambda jump, stride, dilation: jump * max(stride, dilation)),
        "stride and dilation exchanged: Stride and dilation have changed places. A layer is kernel, stride, dilation.",
        lambda layers, cells: receptive_field(
            [(kernel, dilation, stride) for kernel, stride, dilation in layers], cells
        ),
        "dilation left out: You take all taps for neighbours. What does `dilation` do to them?",
        _field(reach=lambda kernel, dilation: kernel - 1),
        "dilation of all taps: You multiply the kernel by the dilation. Three taps have two gaps between them.",
        _field(reach=lambda kernel, dilation: kernel * dilation - 1),
        "whole kernel: You add the whole kernel. One of its cells has been in the field before.",
        _field(reach=lambda kernel, dilation: kernel * dilation),
        _field(reach=lambda kernel, dilation: (kernel - 1) * dilation + 1),
        "begun with nothing: You are one pixel short: before the first layer a cell sees itself.",
        lambda layers, cells: receptive_field(layers, cells) - 1,
        "from the wrong end: That formula goes from the map to the image, and your loop from the image to the map.",
        _from_the_map(lambda cells, kernel, stride, dilation: (cells - 1) * stride + (kernel - 1) * dilation + 1, iter),
        "cells in place of gaps: On your way from the map to the image you multiply cells by the stride. Three cells "
        "have two gaps between them, and it is the gaps that grow.",
        _from_the_map(lambda cells, kernel, stride, dilation: cells * stride + (kernel - 1) * dilation),
        "distance: You return how far apart two cells are. Asked is how much they see.",
        lambda layers, cells: math.prod(stride for _, stride, _ in layers),
        "one cell: You give what a single cell sees. `cells` of them lie side by side.",
        lambda layers, cells: receptive_field(layers, 1),
        "fields added: You add up what each of the cells sees. Neighbours see many of the same pixels.",
        lambda layers, cells: cells * receptive_field(layers, 1),
        "cells of one pixel: You take the next cell to see one pixel further. How far apart are two cells of this map?",
        lambda layers, cells: receptive_field(layers, 1) + cells - 1,
        "cells squared: You count the cells of the whole block. Its side has only `cells` of them.",
        _field(together=lambda field, jump, cells: field + (cells**2 - 1) * jump),
        "last stride left out: Your cells lie too close. They are cells of the last layer's map, so its stride counts "
        "for them.",
        lambda layers, cells: (
            receptive_field(layers, 1) + (cells - 1) * math.prod(stride for _, stride, _ in layers[:-1])
        ),
        "one step too many: You add a step for each cell. From the first of three cells to the last there are two.",
        _field(together=lambda field, jump, cells: field + cells * jump),
        "no integer: You return a number with a point. Pixels are counted: an integer is wanted.",
        lambda layers, cells: float(receptive_field(layers, cells)),
        "no layers: A list may be empty. Cells that have passed no layer are pixels, and see themselves.",
        but(lambda layers, cells: not layers, stop, receptive_field),
        but(lambda layers, cells: not layers, lambda: 0, receptive_field),
    ),
)


def decimate(weight, side, units, taps):
    filters = weight.reshape(len(weight), side, side, -1)
    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]


def _filters(weight: Tensor, side: int) -> Tensor:
    """All filters as PyTorch orders them: units, channels, rows, columns."""
    return weight.reshape(len(weight), side, side, -1).permute(0, 3, 1, 2)


def _count(many: int, every: int) -> int:
    return len(range(0, many, every))


def _linear(out: int, channels: int, side: int) -> Tensor:
    """A weight of which every number says where it stands: 1000 a unit, 100 a channel, 10 a row, 1 a column."""
    digits = [
        torch.arange(n, dtype=torch.float32) * place
        for n, place in zip((out, side, side, channels), (1000, 10, 1, 100), strict=True)
    ]
    unit, row, column, channel = torch.meshgrid(*digits, indexing="ij")
    return (unit + row + column + channel).flatten(1)


def _zeros_between(weight: Tensor, side: int, units: int, taps: int) -> Tensor:
    filters = _filters(weight, side)
    kept = torch.zeros_like(filters)
    kept[::units, :, ::taps, ::taps] = filters[::units, :, ::taps, ::taps]
    return kept


DECIMATE = Exercise(
    solution=decimate,
    tensor=True,
    cases=[
        (_linear(2, 1, 2), 2, 1, 1),
        (_linear(1, 2, 2), 2, 1, 1),
        (_linear(4, 1, 1), 1, 2, 1),
        (_linear(1, 1, 4), 4, 1, 2),
        (_linear(1, 3, 5), 5, 1, 3),
        (_linear(5, 4, 3), 3, 2, 1),
        (_linear(6, 2, 7), 7, 4, 3),
        (_linear(8, 3, 7), 7, 3, 2),
    ],
    mistakes=mistakes(
        "channels first: You take the channels for the first of the three, as PyTorch would. This map was flattened "
        "with its channels last.",
        lambda weight, side, units, taps: weight.reshape(len(weight), -1, side, side)[::units, :, ::taps, ::taps],
        "units not first: You take the units for another axis than the first. Each row of the weight is a unit.",
        lambda weight, side, units, taps: weight.reshape(-1, len(weight), side, side).transpose(0, 1)[
            ::units, :, ::taps, ::taps
        ],
        lambda weight, side, units, taps: weight.reshape(side, side, -1, len(weight)).permute(3, 2, 0, 1)[
            ::units, :, ::taps, ::taps
        ],
        "axes as they came: Your numbers are the right ones, and their axes stand in another order. A convolution of "
        "PyTorch has units, channels, rows, columns.",
        lambda *args: decimate(*args).permute(0, 2, 3, 1),
        lambda *args: decimate(*args).permute(2, 3, 1, 0),
        "reshaped: You reshape where axes must change places. A reshape leaves the numbers in the order they are in.",
        lambda *args: (right := decimate(*args)).permute(0, 2, 3, 1).reshape(right.shape),
        "rows and columns: Rows and columns of the filters have changed places.",
        lambda *args: decimate(*args).transpose(2, 3),
        "first taps: You keep the taps in one corner of the filter. They must span all of it.",
        lambda weight, side, units, taps: _filters(weight, side)[
            ::units, :, : _count(side, taps), : _count(side, taps)
        ],
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, :taps, :taps],
        "zeros between: You set taps to zero and keep them. The small convolution stores only the ones that are left; "
        "its dilation makes the gaps.",
        lambda weight, side, units, taps: _zeros_between(weight, side, units, taps)[::units],
        _zeros_between,
        "first units: You keep the units at the front. Every `units`-th of all of them is wanted.",
        lambda weight, side, units, taps: _filters(weight, side)[: _count(len(weight), units), :, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[: len(weight) // units, :, ::taps, ::taps],
        "a number of units: `units` is a step, not how many to keep.",
        lambda weight, side, units, taps: _filters(weight, side)[:units, :, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[:: max(len(weight) // units, 1), :, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[:: max(len(weight) // units, 1), :, ::taps, ::taps][
            :units
        ],
        "taps from the middle: You begin with a tap that lies further in. The first tap in both directions is kept.",
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, taps // 2 :: taps, taps // 2 :: taps],
        "first one left out: You begin with the last of the first group. Begin with the first.",
        lambda weight, side, units, taps: _filters(weight, side)[units - 1 :: units, :, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, taps - 1 :: taps, taps - 1 :: taps],
        lambda weight, side, units, taps: _filters(weight, side)[
            units - 1 :: units, :, taps - 1 :: taps, taps - 1 :: taps
        ],
        "one direction: You thin the taps in one direction. A filter has rows and columns.",
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[::units, :, :, ::taps],
        "channels thinned: You thin the channels too. The map that the filter looks at still has all of them.",
        lambda weight, side, units, taps: _filters(weight, side)[::units, ::units, ::taps, ::taps],
        lambda weight, side, units, taps: _filters(weight, side)[::units, ::taps, ::taps, ::taps],
        "units kept: You keep all units.",
        lambda weight, side, units, taps: decimate(weight, side, 1, taps),
        "taps kept: You keep all taps.",
        lambda weight, side, units, taps: decimate(weight, side, units, 1),
        "numbers exchanged: `units` and `taps` have changed places.",
        lambda weight, side, units, taps: decimate(weight, side, taps, units),
        "still flat: A convolution's weight has four axes: units, channels, rows, columns.",
        lambda *args: decimate(*args).flatten(1),
    ),
)

EXERCISES = {"map_size": MAP_SIZE, "receptive_field": RECEPTIVE_FIELD, "decimate": DECIMATE}
