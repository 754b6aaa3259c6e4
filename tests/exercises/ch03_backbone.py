"""Answers to the exercises of chapter 3, right and wrong: sizes of maps, receptive fields, decimation."""

import inspect

from course_lib.exercises import ch03_backbone

MAP_SIZE = {
    "plain": inspect.getsource(ch03_backbone.map_size),
    "math": """
        def map_size(size, kernel, stride, padding, ceil):
            rounded = math.ceil if ceil else math.floor
            n = rounded((size + 2 * padding - kernel) / stride) + 1
            if ceil and (n - 1) * stride >= size + padding:
                n = n - 1
            return n
    """,
    "torch": """
        def map_size(size, kernel, stride, padding, ceil):
            n = torch.tensor((size + 2 * padding - kernel) / stride)
            n = (torch.ceil(n) if ceil else torch.floor(n)).long() + 1
            return n - ((n - 1) * stride >= size + padding).long()
    """,
}

RECEPTIVE_FIELD = {
    "plain": inspect.getsource(ch03_backbone.receptive_field),
    "backward": """
        def receptive_field(layers, cells):
            field = cells
            for kernel, stride, dilation in reversed(layers):
                field = (field - 1) * stride + (kernel - 1) * dilation + 1
            return field
    """,
    "numpy": """
        def receptive_field(layers, cells):
            kernel, stride, dilation = np.array(layers, dtype=int).reshape(-1, 3).T
            jump = np.cumprod(stride) // stride
            return int(1 + ((kernel - 1) * dilation * jump).sum() + (cells - 1) * stride.prod())
    """,
    "first and last": """
        def receptive_field(layers, cells):
            first, last = 0, cells - 1
            for kernel, stride, dilation in layers[::-1]:
                first = first * stride
                last = last * stride + (kernel - 1) * dilation
            return last - first + 1
    """,
}

DECIMATE = {
    "plain": inspect.getsource(ch03_backbone.decimate),
    "loops": """
        def decimate(weight, side, units, taps):
            channels = weight.shape[1] // (side * side)
            kept = range(0, side, taps)
            rows = []
            for unit in range(0, weight.shape[0], units):
                flat = weight[unit]
                rows.append(
                    [[[flat[(y * side + x) * channels + c] for x in kept] for y in kept] for c in range(channels)]
                )
            return torch.tensor(rows)
    """,
    "numpy": """
        def decimate(weight, side, units, taps):
            filters = np.moveaxis(weight.numpy().reshape(len(weight), side, side, -1), 3, 1)
            index = np.arange(0, side, taps)
            return torch.from_numpy(filters[::units][:, :, index][:, :, :, index])
    """,
}

RIGHT = {"map_size": MAP_SIZE, "receptive_field": RECEPTIVE_FIELD, "decimate": DECIMATE}

WRONG = {
    "map_size": {
        "always down": [
            ("plain", "if not ceil:", "if True:"),
            ("math", "math.ceil if ceil else math.floor", "math.floor"),
        ],
        "always up": [
            ("plain", "    if not ceil:\n        return room // stride + 1\n", ""),
            ("math", "math.ceil if ceil else math.floor", "math.ceil"),
            ("math", "math.ceil if ceil else math.floor", "math.ceil",
             "    if ceil and (n - 1) * stride >= size + padding:\n        n = n - 1\n", ""),
        ],
        "up and down exchanged": [
            ("plain", "if not ceil", "if ceil"),
            ("torch", "if ceil else", "if not ceil else", " - ((n - 1) * stride >= size + padding).long()", ""),
        ],
        "one more": [
            ("math", "math.ceil if ceil else math.floor", "math.floor", "+ 1\n", "+ 1 + ceil\n"),
            ("plain", "    if not ceil:\n        return room // stride + 1\n", "",
             "-(-room // stride) + 1", "room // stride + 1 + ceil",
             "    if (windows - 1) * stride >= size + padding:\n        windows -= 1\n", ""),
        ],
        "steps counted": [
            ("plain", "// stride + 1", "// stride"),
            ("torch", "return n -", "return n - 1 -"),
        ],
        "kernel left out": [
            ("math", " - kernel", ""),
            ("math", "(size + 2 * padding - kernel) / stride) + 1", "size / stride)"),
            ("math", "(size + 2 * padding - kernel) / stride) + 1", "(size + 2 * padding) / stride)"),
        ],
        "padding left out": [
            ("plain", "size + 2 * padding - kernel", "size - kernel"),
            ("math", "2 * padding", "0", "size + padding", "size"),
        ],
        "padding on one side": [
            ("plain", "2 * padding", "padding"),
            ("math", "2 * padding", "padding",
             "    if ceil and (n - 1) * stride >= size + padding:\n        n = n - 1\n", ""),
        ],
        "last window kept": [
            ("plain", "    if (windows - 1) * stride >= size + padding:\n        windows -= 1\n", ""),
            ("math", ">= size + padding", ">= size + 2 * padding"),
            ("torch", "(n - 1) * stride >=", "n * stride - stride >"),
        ],
        "window dropped too soon": [
            ("plain", ">= size + padding", ">= size"),
            ("torch", ">= size + padding", ">= size"),
        ],
        "dropped with padding only": [
            ("math", "if ceil and (n", "if ceil and padding and (n"),
            ("plain", "if (windows", "if padding > 0 and (windows"),
        ],
        "window after the last": [
            ("plain", "(windows - 1) * stride", "windows * stride"),
            ("math", "(n - 1) * stride", "n * stride"),
            ("torch", "(n - 1) * stride", "n * stride"),
        ],
        "to the nearest": [
            ("math", "math.ceil if", "round if"),
            ("math", "math.ceil if ceil else math.floor", "round",
             "    if ceil and (n - 1) * stride >= size + padding:\n        n = n - 1\n", ""),
            ("torch", "torch.ceil", "torch.round"),
        ],
        "no integer": [
            ("math", "math.ceil if ceil else math.floor", "np.ceil if ceil else np.floor"),
            ("plain", "//", "/"),
            ("torch", ".long() + 1", " + 1"),
        ],
    },
    "receptive_field": {
        "own stride": [
            ("plain", "dilation * jump", "dilation * stride"),
            ("plain", "        jump = jump * stride\n", "",
             "        field =", "        jump = jump * stride\n        field ="),
            ("numpy", "np.cumprod(stride) // stride", "np.cumprod(stride)"),
        ],
        "strides left out": [
            ("plain", "dilation * jump", "dilation"),
            ("backward", "(field - 1) * stride", "(field - 1)"),
        ],
        "last stride only": [("plain", "jump = jump * stride", "jump = stride")],
        "strides added": [
            ("plain", "jump * stride", "jump + stride"),
            ("plain", "jump * stride", "jump + stride - 1"),
            ("numpy", "np.cumprod(stride) // stride", "np.maximum(np.cumsum(stride) - stride, 1)"),
        ],
        "dilation in the stride": [
            ("plain", "jump * stride", "jump * stride * dilation"),
            ("plain", "jump * stride", "jump * max(stride, dilation)"),
        ],
        "stride and dilation exchanged": [
            ("plain", "kernel, stride, dilation in", "kernel, dilation, stride in"),
            ("numpy", "kernel, stride, dilation =", "kernel, dilation, stride ="),
        ],
        "dilation left out": [
            ("plain", " * dilation", ""),
            ("backward", " * dilation", ""),
            ("numpy", " * dilation", ""),
        ],
        "dilation of all taps": [
            ("plain", "(kernel - 1) * dilation", "(kernel * dilation - 1)"),
            ("numpy", "(kernel - 1) * dilation", "(dilation * kernel - 1)"),
        ],
        "whole kernel": [
            ("plain", "(kernel - 1)", "kernel"),
            ("plain", "(kernel - 1) * dilation", "((kernel - 1) * dilation + 1)"),
            ("numpy", "(kernel - 1)", "kernel"),
        ],
        "begun with nothing": [
            ("plain", "field, jump = 1, 1", "field, jump = 0, 1"),
            ("numpy", "1 + ", ""),
            ("first and last", " + 1\n", "\n"),
        ],
        "from the wrong end": [("backward", "reversed(layers)", "layers")],
        "cells in place of gaps": [
            ("backward", "(field - 1) * stride", "field * stride", "dilation + 1", "dilation"),
        ],
        "distance": [("plain", "return field + (cells - 1) * jump", "return jump")],
        "one cell": [("plain", " + (cells - 1) * jump", ""), ("backward", "field = cells", "field = 1")],
        "fields added": [("plain", "field + (cells - 1) * jump", "field * cells")],
        "cells of one pixel": [("plain", "(cells - 1) * jump", "cells - 1")],
        "cells squared": [
            ("plain", "(cells - 1)", "(cells**2 - 1)"),
            ("numpy", "(cells - 1)", "(cells * cells - 1)"),
        ],
        "last stride left out": [("numpy", "stride.prod()", "stride[:-1].prod()")],
        "one step too many": [
            ("plain", "(cells - 1)", "cells"),
            ("first and last", "first, last = 0, cells - 1", "first, last = 0, cells"),
        ],
        "no integer": [
            ("plain", "field, jump = 1, 1", "field, jump = 1.0, 1"),
            ("numpy", "int(", "float("),
        ],
        "no layers": [
            ("numpy", ".reshape(-1, 3)", ""),
            ("plain", "    field, jump = 1, 1\n", "    if not layers:\n        return 0\n    field, jump = 1, 1\n"),
        ],
    },
    "decimate": {
        "channels first": [
            ("plain", "side, side, -1)\n", "-1, side, side)\n", "permute(0, 3, 1, 2)", "clone()"),
            ("loops", "(y * side + x) * channels + c", "(c * side + y) * side + x"),
        ],
        "units not first": [
            ("plain", "len(weight), side, side, -1", "-1, len(weight), side, side",
             "permute(0, 3, 1, 2)", "transpose(0, 1)"),
            ("plain", "len(weight), side, side, -1", "side, side, -1, len(weight)", "(0, 3, 1, 2)", "(3, 2, 0, 1)"),
        ],
        "axes as they came": [
            ("plain", ".permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]", "[::units, ::taps, ::taps]"),
            ("numpy", "[:, :, :, index]", "[:, :, :, index].transpose(2, 3, 1, 0)"),
        ],
        "rows and columns": [
            ("loops", "for x in kept] for y in kept]", "for y in kept] for x in kept]"),
            ("plain", "::taps]", "::taps].transpose(2, 3)"),
        ],
        "first taps": [
            ("loops", "range(0, side, taps)", "range(len(range(0, side, taps)))"),
            ("plain", "::taps, ::taps", ":taps, :taps"),
            ("numpy", "np.arange(0, side, taps)", "np.arange((side + taps - 1) // taps)"),
        ],
        "reshaped": [
            ("plain", "    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]",
             "    filters = filters[::units, ::taps, ::taps]\n"
             "    return filters.reshape(len(filters), -1, *filters.shape[1:3])"),
        ],
        "zeros between": [
            ("plain", "    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]",
             "    filters = filters.permute(0, 3, 1, 2)\n    kept = torch.zeros_like(filters)\n"
             "    kept[::units, :, ::taps, ::taps] = filters[::units, :, ::taps, ::taps]\n    return kept"),
            ("plain", "    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]",
             "    filters = filters.permute(0, 3, 1, 2)[::units]\n    kept = torch.zeros_like(filters)\n"
             "    kept[:, :, ::taps, ::taps] = filters[:, :, ::taps, ::taps]\n    return kept"),
        ],
        "first units": [
            ("loops", "range(0, weight.shape[0], units)", "range(weight.shape[0] // units)"),
            ("plain", "[::units,", "[: len(filters[::units]),"),
        ],
        "a number of units": [
            ("plain", "[::units,", "[:units,"),
            ("plain", "[::units,", "[:: max(len(weight) // units, 1),"),
            ("loops", "range(0, weight.shape[0], units)", "range(units)"),
            ("numpy", "[::units]", "[:units]"),
        ],
        "taps from the middle": [
            ("plain", "::taps, ::taps]", "taps // 2 :: taps, taps // 2 :: taps]"),
            ("numpy", "np.arange(0, side, taps)", "np.arange(taps // 2, side, taps)"),
        ],
        "first one left out": [
            ("plain", "[::units", "[units - 1 :: units"),
            ("numpy", "np.arange(0, side, taps)", "np.arange(taps - 1, side, taps)"),
            ("loops", "range(0, side", "range(taps - 1, side", "range(0, weight", "range(units - 1, weight"),
        ],
        "one direction": [
            ("plain", "::taps, ::taps]", "::taps]"),
            ("plain", "::taps, ::taps]", ":, ::taps]"),
            ("numpy", "[:, :, :, index]", ""),
        ],
        "channels thinned": [
            ("plain", "[::units, :,", "[::units, ::units,"),
            ("plain", "[::units, :,", "[::units, ::taps,"),
        ],
        "units kept": [
            ("plain", "::units", ":"),
            ("loops", "weight.shape[0], units)", "weight.shape[0])"),
        ],
        "taps kept": [
            ("plain", "::taps, ::taps", ":, :"),
            ("numpy", "side, taps)\n    return", "side)\n    return"),
        ],
        "numbers exchanged": [("plain", "side, units, taps", "side, taps, units")],
        "still flat": [
            ("plain", "::taps]", "::taps].flatten(1)"),
            ("numpy", "[:, :, :, index]", "[:, :, :, index].reshape(len(filters[::units]), -1)"),
        ],
    },
}  # fmt: skip
