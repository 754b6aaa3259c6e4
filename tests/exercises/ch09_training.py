"""Answers to the exercises of chapter 9, right and wrong: rates, gradients of several ranks, sixteen bits."""

from inspect import getsource

from course_lib.exercises import ch09_training

LR_FACTOR = {
    "plain": getsource(ch09_training.lr_factor),
    "numpy": """
        def lr_factor(step, warmup, total):
            left = total - 1 - warmup
            fall = np.cos(np.linspace(0, np.pi, left + 1)) / 2 + 0.5
            rise = np.arange(1, warmup + 1) / warmup if warmup else []
            return np.concatenate([rise, fall])[step]
    """,
    "min": """
        def lr_factor(step, warmup, total):
            rise = min(1.0, (step + 1) / max(warmup, 1))
            done = max(0, step - warmup)
            return rise * 0.5 * (1 + math.cos(math.pi * done / (total - warmup - 1)))
    """,
}

WHOLE_GRADIENT = {
    "plain": getsource(ch09_training.whole_gradient),
    "weights": """
        def whole_gradient(gradients, positives):
            counts = torch.tensor(positives)
            weights = counts.clamp(min=1) / max(1, counts.sum())
            return weights @ torch.stack(gradients)
    """,
    "loop": """
        def whole_gradient(gradients, positives):
            total = torch.zeros_like(gradients[0])
            for gradient, count in zip(gradients, positives):
                total += gradient * max(count, 1)
            return total / max(sum(positives), 1)
    """,
}

SCALED_STEP = {
    "plain": getsource(ch09_training.scaled_step),
    "torch": """
        def scaled_step(weights, gradients, scale, rate, max_norm):
            parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient / scale
                if parameter.grad.isnan().any() or parameter.grad.isinf().any():
                    return weights, 0.5 * scale
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
            torch.optim.SGD(parameters, lr=rate).step()
            return [parameter.detach() for parameter in parameters], scale
    """,
    "min": """
        def scaled_step(weights, gradients, scale, rate, max_norm):
            if not all(math.isfinite(one.abs().sum()) for one in gradients):
                return weights, scale / 2
            true = [one / scale for one in gradients]
            length = math.sqrt(sum((one ** 2).sum() for one in true))
            factor = min(1.0, max_norm / (length + 1e-6))
            return [weight - rate * factor * one for weight, one in zip(weights, true)], scale
    """,
}

RIGHT = {"lr_factor": LR_FACTOR, "whole_gradient": WHOLE_GRADIENT, "scaled_step": SCALED_STEP}

WRONG = {
    "lr_factor": {
        "starts at 0": [("plain", "(step + 1)", "step"), ("min", "(step + 1)", "step")],
        "rise too slow": [("plain", "(step + 1) / warmup", "(step + 1) / (warmup + 1)")],
        "edge of the warmup": [
            ("plain", "step < warmup", "step <= warmup"),
            ("plain", "if step < warmup", "if warmup and step <= warmup"),
        ],
        "no warmup": [
            ("plain", "step < warmup", "False", "(step - warmup) / (total - 1 - warmup)", "step / (total - 1)"),
        ],
        "warmup counted twice": [
            ("plain", "(step - warmup) / (total - 1 - warmup)", "step / (total - 1)"),
            ("plain", "(step - warmup) / (total - 1 - warmup)", "step / total"),
            ("plain", "(step - warmup)", "step"),
        ],
        "as long as everything": [
            ("plain", "(total - 1 - warmup)", "(total - 1)"),
            ("plain", "(total - 1 - warmup)", "total"),
        ],
        "last step": [
            ("plain", "(total - 1 - warmup)", "(total - warmup)"),
            ("min", "(total - warmup - 1)", "(total - warmup)"),
        ],
        "multiplied": [("min", "max(0, step - warmup)", "step", "(total - warmup - 1)", "(total - 1)")],
        "smaller of the two": [
            ("min", "rise * 0.5 * (1 + math.cos(math.pi * done / (total - warmup - 1)))",
             "min(rise, 0.5 + 0.5 * math.cos(math.pi * done / (total - warmup - 1)))", "max(0, step - warmup)",
             "step - warmup"),
        ],
        "fall begins too early": [
            ("plain", "(step - warmup) / (total - 1 - warmup)", "(step + 1 - warmup) / (total - warmup)"),
            ("plain", "(step - warmup)", "(step + 1 - warmup)"),
        ],
        "rest thrown away": [
            ("plain", "(step + 1) / warmup", "(step + 1) // warmup"),
            ("plain", "(step - warmup) / ", "(step - warmup) // "),
        ],
        "a line": [("plain", "(1 + math.cos(math.pi * progress)) / 2", "1 - progress")],
        "whole cosine": [("plain", "math.pi *", "2 * math.pi *"), ("min", "math.pi *", "2 * math.pi *")],
        "quarter of a turn": [("plain", "(1 + math.cos(math.pi * progress)) / 2", "math.cos(math.pi / 2 * progress)")],
        "from 1 to -1": [("plain", "(1 + math.cos(math.pi * progress)) / 2", "math.cos(math.pi * progress)")],
        "from 2": [("plain", "(1 + math.cos(math.pi * progress)) / 2", "1 + math.cos(math.pi * progress)")],
        "turned round": [("plain", "1 + math.cos", "1 - math.cos"), ("min", "1 + math.cos", "1 - math.cos")],
        "sine": [
            ("plain", "math.cos", "math.sin"),
            ("plain", "(1 + math.cos(math.pi * progress)) / 2", "math.sin(math.pi * progress)"),
        ],
        "degrees": [("plain", "math.pi *", "180 *"), ("min", "math.pi *", "180 *")],
        "divided by 0": [("min", "max(warmup, 1)", "warmup")],
    },
    "whole_gradient": {
        "mean of means": [
            ("loop", " * max(count, 1)", "", "max(sum(positives), 1)", "len(positives)"),
            ("weights", "weights @ torch.stack(gradients)", "torch.stack(gradients).mean(dim=0)"),
        ],
        "sum of means": [
            ("loop", " * max(count, 1)", "", " / max(sum(positives), 1)", ""),
            ("plain", "sum(sums) / max(sum(positives), 1)", "sum(gradients)"),
        ],
        "sum of sums": [
            ("plain", " / max(sum(positives), 1)", ""),
            ("weights", "counts.clamp(min=1) / max(1, counts.sum())", "counts.float()"),
        ],
        "by the ranks": [
            ("plain", "max(sum(positives), 1)", "len(positives)"),
            ("plain", "max(sum(positives), 1)", "len(positives)", "max(count, 1)", "count"),
        ],
        "ranks once more": [
            ("plain", "sum(sums)", "sum(sums) / len(sums)"),
            ("plain", "sum(sums)", "torch.stack(sums).mean(dim=0)", "max(count, 1)", "count"),
        ],
        "mean of the positives": [
            ("plain", "max(sum(positives), 1)", "(max(sum(positives), 1) / len(positives))"),
            ("loop", "max(sum(positives), 1)", "(max(sum(positives), 1) / len(positives))", "max(count, 1)", "count"),
            ("plain", "max(sum(positives), 1)", "max(sum(positives) / (len(positives) * (sum(positives) > 0)), 1e-9)"),
            ("loop", "max(sum(positives), 1)", "(1 / (len(positives) / sum(positives)))", "max(count, 1)", "count"),
        ],
        "divided again": [
            ("loop", "* max(count, 1)", "/ max(count, 1)", " / max(sum(positives), 1)", ""),
            ("plain", "* max(count, 1)", "* (1 / count)", " / max(sum(positives), 1)", ""),
        ],
        "not undone": [
            ("loop", " * max(count, 1)", ""),
            ("plain", " * max(count, 1)", "", "sum(sums) / max(sum(positives), 1)", "sum(sums) * (1 / sum(positives))"),
        ],
        "not added": [
            ("plain", "sum(sums) / max(sum(positives), 1)", "[one / max(sum(positives), 1) for one in sums]"),
            ("plain", "sum(sums) / max(sum(positives), 1)", "[one / max(sum(positives), 1) for one in sums]",
             "max(count, 1)", "count"),
        ],
        "others' shares": [("plain", "max(count, 1)", "(sum(positives) - count)")],
        "largest alone": [
            ("plain", "return sum(sums) / max(sum(positives), 1)", "return gradients[np.argmax(positives)]"),
        ],
        "one too many": [
            ("plain", "max(sum(positives), 1)", "(sum(positives) + 1)"),
            ("weights", "counts.clamp(min=1)", "counts", "max(1, counts.sum())", "(counts.sum() + 1)"),
            ("loop", "max(count, 1)", "(count + 1)", "max(sum(positives), 1)", "(sum(positives) + 1)"),
            ("plain", "max(count, 1)", "(count + 1)", "max(sum(positives), 1)", "sum(one + 1 for one in positives)"),
            ("loop", "max(count, 1)", "(count + 1)"),
            ("plain", "max(count, 1)", "(count + 1)", "max(sum(positives), 1)", "sum(positives)"),
            ("loop", "max(count, 1)", "(count + 1)", "/ max(sum(positives), 1)", "* (1 / sum(positives))"),
        ],
        "rank without positives": [
            ("loop", "max(count, 1)", "count"),
            ("plain", "max(count, 1)", "count", "max(sum(positives), 1)", "sum(positives)"),
            ("plain", "max(count, 1)", "count", "/ max(sum(positives), 1)", "* (1 / sum(positives))"),
            ("weights", "counts.clamp(min=1)", "counts", "max(1, counts.sum())", "(counts.sum() + 1e-8)"),
            ("loop", "max(count, 1)", "(1 / (1 / count))"),
        ],
        "ones in the total": [
            ("plain", "max(sum(positives), 1)", "sum(max(count, 1) for count in positives)"),
            ("weights", "max(1, counts.sum())", "counts.clamp(min=1).sum()"),
        ],
        "nobody has one": [
            ("plain", "/ max(sum(positives), 1)", "* (1 / sum(positives))"),
            ("loop", "max(sum(positives), 1)", "sum(positives)"),
            ("plain", "max(sum(positives), 1)", "(sum(positives) + 1e-6)"),
            ("plain", "sums =", "if sum(positives) == 0:\n        return torch.zeros_like(gradients[0])\n    sums ="),
            ("plain", "sums =", "if sum(positives) == 0:\n        return gradients[0] * math.nan\n    sums ="),
        ],
    },
    "scaled_step": {
        "never divided": [
            ("plain", "gradient / scale", "gradient + 0"),
            ("torch", "gradient / scale", "gradient.clone()"),
        ],
        "clipped too early": [
            ("plain", "gradient / scale", "gradient", "- rate * gradient", "- rate * gradient / scale"),
            ("min", "one / scale", "one", "rate * factor", "rate / scale * factor"),
        ],
        "divided twice": [
            ("plain", "- rate * gradient", "- rate * gradient / scale"),
            ("min", "one / scale", "one / scale / scale"),
        ],
        "multiplied by the scale": [("plain", "gradient / scale", "gradient * scale")],
        "not clipped": [
            ("torch", "torch.nn.utils.clip_grad_norm_(parameters, max_norm)", ""),
            ("min", "min(1.0, max_norm / (length + 1e-6))", "1.0"),
        ],
        "always stretched": [
            ("plain", "if norm > max_norm:", "if True:"),
            ("min", "min(1.0, max_norm / (length + 1e-6))", "max_norm / (length + 1e-6)"),
        ],
        "cut to length 1": [("plain", "max_norm / norm", "1 / norm")],
        "tensor by tensor": [
            ("torch", "torch.nn.utils.clip_grad_norm_(parameters, max_norm)",
             "[torch.nn.utils.clip_grad_norm_([one], max_norm) for one in parameters]"),
            ("min", "length =", "lengths =", "factor = min(1.0, max_norm / (length + 1e-6))", "",
             "rate * factor * one", "rate * min(1.0, max_norm / (one.norm() + 1e-6)) * one"),
        ],
        "each by itself": [
            ("torch", "clip_grad_norm_", "clip_grad_value_"),
            ("min", "factor * one", "one.clamp(-max_norm, max_norm)"),
        ],
        "other norm": [
            ("plain", ".norm()", ".abs().max()"),
            ("torch", "max_norm)\n    torch", "max_norm, norm_type=1)\n    torch"),
        ],
        "root forgotten": [("min", "math.sqrt(sum((one ** 2).sum() for one in true))",
                            "sum((one ** 2).sum() for one in true)")],
        "thrown away": [("plain", "gradient * max_norm / norm", "0 * gradient")],
        "uphill": [("plain", "weight - rate", "weight + rate"), ("min", "weight - rate", "weight + rate")],
        "no rate": [("plain", "rate * gradient", "gradient"), ("torch", "lr=rate", "lr=1.0")],
        "stepped all the same": [
            ("plain", "not torch.cat(gradients).isfinite().all()", "False"),
            ("min", "not all(math.isfinite(one.abs().sum()) for one in gradients)", "False"),
            ("torch", " or parameter.grad.isinf().any()", ""),
        ],
        "bad numbers struck out": [
            ("plain", "if not torch.cat(gradients).isfinite().all():\n        return weights, scale / 2",
             "gradients = [gradient.nan_to_num(0.0, 0.0, 0.0) for gradient in gradients]"),
        ],
        "an error": [("plain", "return weights, scale / 2", "raise OverflowError")],
        "scale kept": [("plain", "scale / 2", "scale"), ("torch", "0.5 * scale", "scale")],
        "scale doubled": [("plain", "scale / 2", "scale * 2"), ("min", "scale / 2", "2 * scale")],
        "scale thrown away": [("plain", "scale / 2", "1.0")],
        "always halved": [("plain", "strict=True)], scale", "strict=True)], scale / 2")],
        "doubled each time": [("plain", "strict=True)], scale", "strict=True)], scale * 2")],
    },
}  # fmt: skip
