"""Answers to the exercises of chapter 16, right and wrong: a count of weights, a signal's way, and batch norm."""

SEPARABLE_WEIGHTS = {
    "torch": """
        def separable_weights(inputs, outputs, kernel):
            nn = torch.nn
            dense = nn.Conv2d(inputs, outputs, kernel, bias=False)
            thin = nn.Conv2d(inputs, inputs, kernel, groups=inputs, bias=False)
            mixes = nn.Conv2d(inputs, outputs, 1, bias=False)
            return dense.weight.numel(), thin.weight.numel() + mixes.weight.numel()
    """,
    "factored": """
        def separable_weights(inputs, outputs, kernel):
            taps = kernel * kernel
            return taps * inputs * outputs, inputs * (taps + outputs)
    """,
}

SIGNAL_LEFT = {
    "roots": """
        def signal_left(layers):
            left = 1.0
            for channels, kernel, groups, deviation in layers:
                left *= deviation * math.sqrt(channels / groups / 2) * kernel
            return left
    """,
    "numpy": """
        def signal_left(layers):
            if not layers:
                return 1.0
            channels, kernel, groups, deviation = np.array(layers, dtype=float).T
            return np.sqrt(np.prod(0.5 * kernel**2 * channels / groups * deviation**2))
    """,
    "logarithms": """
        def signal_left(layers):
            total = 0.0
            for channels, kernel, groups, deviation in layers:
                total += math.log(kernel**2 * channels / groups) + 2 * math.log(deviation) - math.log(2)
            return math.exp(total / 2)
    """,
}

BATCH_NORM = {
    "torch": """
        def batch_norm(x, mean, variance, momentum, eps, training):
            kept = mean.flatten().clone(), variance.flatten().clone()
            y = torch.nn.functional.batch_norm(x, *kept, training=training, momentum=momentum, eps=eps)
            return y, kept[0].view_as(mean), kept[1].view_as(variance)
    """,
    "loop": """
        def batch_norm(x, mean, variance, momentum, eps, training):
            y, mean, variance = torch.empty_like(x), mean.clone(), variance.clone()
            for channel in range(x.shape[1]):
                values = x[:, channel]
                count = values.numel()
                middle, square = mean[0, channel].item(), variance[0, channel].item()
                if training:
                    middle = values.sum().item() / count
                    square = ((values - middle) ** 2).sum().item() / count
                    mean[0, channel] += momentum * (middle - mean[0, channel])
                    variance[0, channel] += momentum * (square * count / (count - 1) - variance[0, channel])
                y[:, channel] = (values - middle) / (square + eps) ** 0.5
            return y, mean, variance
    """,
}

RIGHT = {"separable_weights": SEPARABLE_WEIGHTS, "signal_left": SIGNAL_LEFT, "batch_norm": BATCH_NORM}

OWN = "(x - x.mean(**over)) / (x.var(unbiased=False, **over) + eps).sqrt()"

WRONG = {
    "separable_weights": {
        "kernel once": [
            ("plain", "kernel**2", "kernel"),
            ("plain", "depthwise = inputs * kernel**2", "depthwise = inputs * kernel"),
            ("factored", "kernel * kernel", "kernel"),
        ],
        "biases": [("torch", ", bias=False", "", "dense.weight.numel()",
                    "sum(p.numel() for p in dense.parameters())", "thin.weight.numel()",
                    "sum(p.numel() for p in thin.parameters())", "mixes.weight.numel()",
                    "sum(p.numel() for p in mixes.parameters())")],
        "mixes twice": [("torch", ", groups=inputs", "")],
        "looks twice": [("torch", "outputs, 1,", "outputs, kernel,")],
        "one kernel": [("plain", "depthwise = inputs * kernel**2", "depthwise = kernel**2")],
        "behind the mix": [("torch", "nn.Conv2d(inputs, inputs, kernel, groups=inputs",
                            "nn.Conv2d(outputs, outputs, kernel, groups=outputs")],
        "multiplied": [("plain", "depthwise + pointwise", "depthwise * pointwise")],
        "nine taps": [
            ("plain", "kernel**2", "9"),
            ("factored", "kernel * kernel", "9"),
            ("plain", "depthwise = inputs * kernel**2", "depthwise = inputs * 9"),
        ],
        "outputs twice": [
            ("factored", "inputs * (taps + outputs)", "inputs * taps + outputs * outputs"),
            ("torch", "nn.Conv2d(inputs, outputs, 1,", "nn.Conv2d(outputs, outputs, 1,"),
        ],
        "half of it": [
            ("torch", " + mixes.weight.numel()", ""),
            ("plain", "depthwise + pointwise", "pointwise"),
        ],
        "exchanged": [("plain", "dense, depthwise + pointwise", "depthwise + pointwise, dense")],
    },
    "signal_left": {
        "squares": [("plain", "math.sqrt(square)", "square"), ("logarithms", "total / 2", "total")],
        "no ReLU": [("plain", " / 2", ""), ("logarithms", " - math.log(2)", "")],
        "one ReLU": [
            ("plain", "deviation**2 / 2", "deviation**2", "math.sqrt(square)",
             "math.sqrt(square / 2 if layers else 1)"),
            ("logarithms", " - math.log(2)", "", "math.exp(total / 2)",
             "math.exp((total - math.log(2) if layers else total) / 2)"),
        ],
        "ReLU of the root": [("roots", "math.sqrt(channels / groups / 2)", "math.sqrt(channels / groups) / 2")],
        "kernel once": [("plain", "kernel**2", "kernel")],
        "one tap": [("roots", " * kernel", "")],
        "one channel": [("plain", "channels // groups * kernel**2", "kernel**2")],
        "groups left out": [("roots", " / groups", ""), ("logarithms", " / groups", "")],
        "times groups": [("roots", "channels / groups", "channels * groups")],
        "deviation": [
            ("plain", "deviation**2", "deviation"),
            ("logarithms", "2 * math.log(deviation)", "math.log(deviation)"),
        ],
        "added": [("plain", "square = 1.0", "square = 0.0", "square *=", "square +=")],
        "one layer": [
            ("plain", "square *=", "square ="),
            ("plain", "in layers:", "in layers[:1]:"),
        ],
        "all alike": [
            ("numpy", "np.prod(0.5 * kernel**2 * channels / groups * deviation**2)",
             "(0.5 * kernel**2 * channels / groups * deviation**2)[0] ** len(layers)"),
        ],
        "no layers": [
            ("numpy", "return 1.0", "raise ValueError"),
            ("numpy", "return 1.0", "return 0.0"),
        ],
    },
    "batch_norm": {
        "each image": [("plain", OWN, "(x - x.mean((2, 3), True)) / (x.var((2, 3), False, True) + eps).sqrt()")],
        "each position": [("plain", OWN, "(x - x.mean(0)) / (x.var(0, unbiased=False) + eps).sqrt()")],
        "one for all": [("plain", OWN, "(x - x.mean()) / (x.var(unbiased=False) + eps).sqrt()")],
        "each cell's channels": [("plain", OWN, "(x - x.mean(1, True)) / (x.var((1,), False, True) + eps).sqrt()")],
        "kept as it is used": [
            ("plain", "momentum * x.var(**over)", "momentum * x.var(unbiased=False, **over)"),
            ("loop", "square * count / (count - 1)", "square"),
        ],
        "a deviation is kept": [
            ("plain", "momentum * x.var(**over)", "momentum * x.std(**over)"),
            ("loop", "momentum * (square * count / (count - 1) -",
             "momentum * ((square * count / (count - 1)) ** 0.5 -"),
        ],
        "kept in the wrong order": [
            ("plain", "return y, mean, variance", "return y, variance, mean"),
            ("torch", "kept[0].view_as(mean), kept[1].view_as(variance)",
             "kept[1].view_as(variance), kept[0].view_as(mean)"),
        ],
        "used as it is kept": [
            ("plain", "unbiased=False, ", ""),
            ("loop", "** 2).sum().item() / count", "** 2).sum().item() / (count - 1)",
             "square * count / (count - 1)", "square"),
        ],
        "momentum turned round": [
            ("torch", "momentum=momentum", "momentum=1 - momentum"),
            ("plain", "(1 - momentum) * mean + momentum *", "momentum * mean + (1 - momentum) *",
             "(1 - momentum) * variance + momentum *", "momentum * variance + (1 - momentum) *"),
        ],
        "added": [("plain", "(1 - momentum) * mean", "mean", "(1 - momentum) * variance", "variance")],
        "replaced": [("torch", "momentum=momentum", "momentum=1.0")],
        "eps outside": [("plain", "(x.var(unbiased=False, **over) + eps).sqrt()",
                         "(x.var(unbiased=False, **over).sqrt() + eps)",
                         "(variance + eps).sqrt()", "(variance.sqrt() + eps)")],
        "no eps": [("torch", "eps=eps", "eps=1e-24")],
        "no root": [("plain", ".sqrt()", ""), ("loop", " ** 0.5", "")],
        "batch in use": [("plain", "        y = (x - mean) / (variance + eps).sqrt()", "        y = " + OWN)],
        "kept in training": [("plain", OWN, "(x - mean) / (variance + eps).sqrt()")],
        "by the new ones": [("plain", "y = " + OWN, "pass", "    else:\n        y", "    if True:\n        y")],
        "learns in use": [("plain", "    return y", "    if not training:\n"
                           "        mean = (1 - momentum) * mean + momentum * x.mean(**over)\n"
                           "        variance = (1 - momentum) * variance + momentum * x.var(**over)\n    return y")],
        "never learns": [("loop", "mean[0, channel] += ", "_ = ", "variance[0, channel] += ", "_ = ")],
        "modes exchanged": [("torch", "training=training", "training=not training")],
        "mode ignored": [("torch", "training=training", "training=True"), ("loop", "if training", "if True")],
        "always in use": [("torch", "training=training", "training=False")],
    },
}  # fmt: skip
