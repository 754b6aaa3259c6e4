"""Answers to the exercises of chapter 14, right and wrong: two costs in pixels, and a loss against mAP."""

FIRST_COST = {
    "torch": """
        def first_cost(box, prior):
            box, prior = torch.tensor(box).double(), torch.tensor(prior).double()
            low, high = box[:2], box[2:]
            shift = ((low + high) / 2 - prior[:2]) / prior[2:]
            stretch = ((high - low) / prior[2:]).log()
            offsets = torch.cat([shift, stretch])
            return torch.nn.functional.smooth_l1_loss(offsets, torch.zeros(4).double(), reduction="sum")
    """,
    "numpy": """
        def first_cost(box, prior):
            box, prior = np.array(box), np.array(prior)
            size = box[2:] - box[:2]
            centre = box[:2] + size / 2
            away = np.abs(np.concatenate([(centre - prior[:2]) / prior[2:], np.log(size / prior[2:])]))
            return float(np.where(away < 1, away**2 / 2, away - 0.5).sum())
    """,
}

LAST_COST = {
    "numpy": """
        def last_cost(centres, width):
            centres = np.array(centres)
            return np.abs(centres - np.median(centres)).mean() / width
    """,
    "torch": """
        def last_cost(centres, width):
            offsets = torch.tensor(centres) / width
            return (offsets - offsets.median()).abs().mean().item()
    """,
    "sorted": """
        def last_cost(centres, width):
            middle = sorted(centres)[len(centres) // 2]
            total = 0.0
            for centre in centres:
                total += max(centre - middle, middle - centre)
            return total / (len(centres) * width)
    """,
}

AGREEMENT = {
    "numpy": """
        def agreement(losses, maps):
            losses, maps = np.array(losses), np.array(maps)
            a = np.sign(losses[:, None] - losses)
            b = np.sign(maps[:, None] - maps)
            return float(((1 - a * b) / 2)[b != 0].mean())
    """,
    "list": """
        def agreement(losses, maps):
            runs = list(zip(losses, maps))
            marks = []
            for a in range(len(runs)):
                for b in range(a + 1, len(runs)):
                    (loss, value), (other_loss, other_value) = runs[a], runs[b]
                    if value != other_value:
                        product = (loss - other_loss) * (value - other_value)
                        marks.append(1 if product < 0 else 0.5 if product == 0 else 0)
            return sum(marks) / len(marks)
    """,
}

RIGHT = {"first_cost": FIRST_COST, "last_cost": LAST_COST, "agreement": AGREEMENT}

WRONG = {
    "first_cost": {
        "corner": [("plain", "(x0 + x1) / 2", "x0", "(y0 + y1) / 2", "y0"), ("numpy", " + size / 2", "")],
        "not divided": [
            ("plain", "((x0 + x1) / 2 - cx) / width", "(x0 + x1) / 2 - cx", "((y0 + y1) / 2 - cy) / height",
             "(y0 + y1) / 2 - cy"),
            ("numpy", "(centre - prior[:2]) / prior[2:]", "centre - prior[:2]"),
        ],
        "divided by the box": [("numpy", "(centre - prior[:2]) / prior[2:]", "(centre - prior[:2]) / size")],
        "no logarithm": [
            ("plain", "math.log((x1 - x0) / width)", "(x1 - x0) / width", "math.log((y1 - y0) / height)",
             "(y1 - y0) / height"),
            ("torch", ".log()", ""),
            ("torch", ".log()", " - 1"),
        ],
        "another logarithm": [("plain", "math.log(", "math.log10("), ("torch", ".log()", ".log2()")],
        "size left out": [
            ("plain", "        math.log((x1 - x0) / width),\n        math.log((y1 - y0) / height),\n", ""),
            ("torch", "torch.cat([shift, stretch])", "shift", "torch.zeros(4)", "torch.zeros(2)"),
        ],
        "one axis": [("plain", "map(abs, offsets)", "map(abs, offsets[::2])")],
        "parabola everywhere": [
            ("plain", "size**2 / 2 if size < 1 else size - 0.5", "size**2 / 2"),
            ("torch", "smooth_l1_loss", "mse_loss"),
        ],
        "line everywhere": [
            ("torch", "smooth_l1_loss", "l1_loss"),
            ("plain", "size**2 / 2 if size < 1 else size - 0.5", "size - 0.5"),
        ],
        "line not lowered": [("plain", "else size - 0.5", "else size"), ("numpy", "away - 0.5", "away")],
        "sign kept": [("plain", "map(abs, offsets)", "offsets")],
        "mean": [("torch", 'reduction="sum"', 'reduction="mean"'), ("plain", "return cost", "return cost / 4")],
        "variances": [
            ("plain", "- cx) / width", "- cx) / width / 0.1", "- cy) / height", "- cy) / height / 0.1",
             "math.log((x1 - x0) / width)", "math.log((x1 - x0) / width) / 0.2", "math.log((y1 - y0) / height)",
             "math.log((y1 - y0) / height) / 0.2"),
        ],
        "in fractions": [("numpy", "np.array(box)", "np.array(box) / 300")],
    },
    "last_cost": {
        "mean": [
            ("plain", "statistics.median", "statistics.mean"),
            ("numpy", "np.median(centres)", "centres.mean()"),
        ],
        "nothing learned": [("plain", "statistics.median(centres)", "0")],
        "middle of the picture": [("numpy", "np.median(centres)", "150")],
        "standard deviation": [
            ("numpy", "np.abs(centres - np.median(centres)).mean()", "centres.std()"),
            ("torch", "(offsets - offsets.median()).abs().mean()", "offsets.std()"),
        ],
        "squares": [("plain", "abs(centre - middle)", "(centre - middle) ** 2")],
        "not divided": [("plain", " / width", ""), ("numpy", " / width", "")],
        "multiplied": [("plain", "/ width", "* width"), ("torch", "/ width", "* width")],
        "summed": [("plain", " / len(centres)", ""), ("torch", ".mean()", ".sum()")],
        "largest": [("torch", ".mean()", ".max()")],
        "median of deviations": [("numpy", "np.abs(centres - np.median(centres)).mean()",
                                  "np.median(np.abs(centres - np.median(centres)))")],
        "both axes": [("plain", "return sum", "return 2 * sum")],
        "sign kept": [("plain", "abs(centre - middle)", "centre - middle"), ("torch", ".abs()", "")],
    },
    "agreement": {
        "the other way round": [("plain", "maps[i] > maps[j]", "maps[i] < maps[j]"), ("numpy", "1 - a", "1 + a")],
        "equal losses right": [("plain", "0.5", "1"), ("list", "product < 0", "product <= 0")],
        "equal losses wrong": [("plain", "0.5", "0"), ("list", "0.5 if product == 0 else 0", "0")],
        "equal losses left out": [
            ("numpy", "[b != 0]", "[a * b != 0]"),
            ("list", "value != other_value", "value != other_value and loss != other_loss"),
        ],
        "equal maps counted": [
            ("numpy", "[b != 0]", "[~np.eye(len(a), dtype=bool)]"),
            ("list", "if value != other_value:", "if True:"),
            ("plain", "                continue\n            pairs += 1\n",
             "                pairs += 1\n                continue\n            pairs += 1\n"),
        ],
        "neighbours": [
            ("plain", "for j in range(i)", "for j in range(max(i - 1, 0), i)"),
            ("list", "range(a + 1, len(runs))", "range(a + 1, min(a + 2, len(runs)))"),
        ],
        "with the first": [("list", "for a in range(len(runs))", "for a in range(1)")],
        "counted": [("plain", "return right / pairs", "return right"), ("list", " / len(marks)", "")],
        "by trainings": [("plain", "return right / pairs", "return right / len(losses)")],
        "correlation": [("numpy", "(1 - a * b) / 2", "-a * b")],
        "the best alone": [
            ("numpy", "float(((1 - a * b) / 2)[b != 0].mean())", "float(maps[losses.argmin()] == maps.max())"),
        ],
    },
}  # fmt: skip
