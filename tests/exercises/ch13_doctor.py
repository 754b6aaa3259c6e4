"""Answers to the exercises of chapter 13, right and wrong: three checks of the doctor."""

from inspect import getsource

from course_lib.exercises import ch13_doctor

UNDECIDED_LOSS = {
    "plain": getsource(ch13_doctor.undecided_loss),
    "torch": """
        def undecided_loss(classes, positives, negatives, ratio):
            mined = min(ratio * positives, negatives)
            logits = torch.zeros(positives + mined, classes + 1)
            labels = torch.zeros(positives + mined, dtype=torch.int64)
            paid = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            return float(paid) / max(positives, 1)
    """,
    "numpy": """
        def undecided_loss(classes, positives, negatives, ratio):
            mined = np.minimum(ratio * positives, negatives)
            if positives > 0:
                return (1 + mined / positives) * -np.log(1 / (classes + 1))
            return 0.0
    """,
}

LOSS_LEFT = {
    "plain": getsource(ch13_doctor.loss_left),
    "torch": """
        def loss_left(losses, window):
            curve = torch.tensor(losses)
            if len(curve) < 2 * window or not curve.isfinite().all():
                return float("inf")
            return curve[-window:].mean() / curve[:window].mean()
    """,
    "loop": """
        def loss_left(losses, window):
            for loss in losses:
                if not np.isfinite(loss):
                    return np.inf
            if len(losses) < 2 * window:
                return np.inf
            first = last = 0
            for step in range(window):
                first += losses[step]
                last += losses[len(losses) - 1 - step]
            return last / first
    """,
}

POSSIBLE_FORMS = {
    "plain": getsource(ch13_doctor.possible_forms),
    "function": """
        def possible_forms(boxes):
            def fits(x0, y0, x1, y1):
                inside = (x0 > -1e-4) & (y0 > -1e-4) & (x1 < 1.0001) & (y1 < 1.0001)
                return bool((inside & (x1 > x0) & (y1 > y0)).all())

            x, y, w, h = boxes.T
            return fits(x, y, w, h), fits(x, y, x + w, y + h), fits(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    """,
    "loop": """
        def possible_forms(boxes):
            answers = [True, True, True]
            for x, y, w, h in boxes.tolist():
                read = [(x, y, w, h), (x, y, x + w, y + h), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
                for way, (x0, y0, x1, y1) in enumerate(read):
                    if x1 <= x0 or y1 <= y0 or min(x0, y0) < -0.0001 or max(x1, y1) > 1.0001:
                        answers[way] = False
            return answers
    """,
}

RIGHT = {"undecided_loss": UNDECIDED_LOSS, "loss_left": LOSS_LEFT, "possible_forms": POSSIBLE_FORMS}

WRONG = {
    "undecided_loss": {
        "background": [("plain", "classes + 1", "classes"), ("numpy", "(classes + 1)", "classes")],
        "other logarithm": [("plain", "math.log(", "math.log10("), ("numpy", "np.log(", "np.log2(")],
        "negatives alone": [("plain", "(positives + mined)", "mined"), ("numpy", "1 + mined", "mined")],
        "of one prior": [
            ("plain", "(positives + mined)", "positives"),
            ("torch", 'reduction="sum")', 'reduction="mean") * max(positives, 1)'),
        ],
        "all negatives": [("plain", "min(ratio * positives, negatives)", "negatives")],
        "more than there are": [
            ("plain", "min(ratio * positives, negatives)", "ratio * positives"),
            ("numpy", "np.minimum(ratio * positives, negatives)", "positives * ratio"),
        ],
        "always three": [
            ("plain", "ratio * positives, ", "3 * positives, "),
            ("plain", "    if positives == 0:\n        return 0.0\n", "",
             "(positives + mined) / positives", "(1 + 3)"),
        ],
        "ratio as a count": [("plain", "ratio * positives, ", "ratio, ")],
        "a sum": [("plain", " / positives", ""), ("torch", " / max(positives, 1)", "")],
        "no positives": [("plain", "if positives == 0:", "if False:")],
        "sign": [("plain", "* math", "* -math"), ("numpy", "-np.log", "np.log")],
    },
    "loss_left": {
        "upside down": [("loop", "last / first", "first / last")],
        "what has gone": [("loop", "last / first", "1 - last / first")],
        "a difference": [
            ("torch", ".mean() / ", ".mean() - "),
            ("torch", "curve[-window:].mean() / curve[:window].mean()",
             "curve[:window].mean() - curve[-window:].mean()"),
        ],
        "medians": [
            ("plain", "sum(losses[-window:]) / sum(losses[:window])",
             "np.median(losses[-window:]) / np.median(losses[:window])"),
        ],
        "the best": [
            ("plain", "sum(losses[-window:]) / sum(losses[:window])", "min(losses) / losses[0]"),
            ("torch", "curve[-window:].mean()", "curve.min()"),
            ("torch", "curve[-window:].mean()", "curve[-window:].min()"),
        ],
        "one step": [
            ("plain", "sum(losses[-window:]) / sum(losses[:window])", "losses[-1] / losses[0]"),
            ("torch", "curve[-window:].mean()", "curve[-1]"),
            ("torch", "curve[:window].mean()", "curve[0]"),
        ],
        "the largest": [("torch", "curve[:window].mean()", "curve.max()")],
        "all of them": [("torch", "curve[:window].mean()", "curve.mean()")],
        "NaN": [
            ("plain", " or not all(map(math.isfinite, losses))", ""),
            ("torch", "not curve.isfinite()", "curve.isnan()", ".all()", ".any()"),
            ("torch", "curve.isfinite()", "torch.cat([curve[:window], curve[-window:]]).isfinite()"),
        ],
        "left out": [
            ("torch", "torch.tensor(losses)", "torch.tensor([one for one in losses if np.isfinite(one)])"),
        ],
        "too few": [
            ("plain", "len(losses) < 2 * window", "not losses"),
            ("torch", "2 * window", "window"),
        ],
        "just enough": [("plain", "<", "<="), ("torch", "<", "<=")],
    },
    "possible_forms": {
        "any box": [("function", ").all()", ").any()")],
        "first box": [("loop", "boxes.tolist()", "boxes.tolist()[:1]"), ("function", "boxes.T", "boxes[:1].T")],
        "no area": [("plain", "has_area and ", ""), ("loop", "x1 <= x0 or y1 <= y0 or ", "")],
        "area of nothing": [("plain", "low < high", "low <= high"), ("loop", "<= x0", "< x0", "<= y0", "< y0")],
        "not in the image": [("plain", " and inside", "")],
        "above 1 alone": [("loop", "min(x0, y0) < -0.0001 or ", "")],
        "below 0 alone": [("loop", " or max(x1, y1) > 1.0001", "")],
        "no slack": [("plain", "-1e-4", "0", "1 + 1e-4", "1"), ("loop", "-0.0001", "0", "1.0001", "1")],
        "too much slack": [
            ("plain", "-1e-4", "-1e-3", "1 + 1e-4", "1 + 1e-3"),
            ("loop", "-0.0001", "-0.001", "1.0001", "1.001"),
        ],
        "slack in the area": [("plain", "low < high", "high - low > 1e-4")],
        "order": [("plain", "return tuple(found)", "return found[0], found[2], found[1]")],
        "x alone": [
            ("plain", "(low < high)", "(low < high)[:, 0]"),
            ("plain", "(low >= -1e-4)", "(low >= -1e-4)[:, 0]", "(high <= 1 + 1e-4)", "(high <= 1 + 1e-4)[:, 0]"),
        ],
        "width as a corner": [("plain", "(a, a + b)", "(a, b)")],
        "half sizes": [("plain", "(a - b / 2, a + b / 2)", "(a - b, a + b)")],
        "centre as a corner": [
            ("plain", "(a - b / 2, a + b / 2)", "(a, a + b)"),
            ("plain", "(a - b / 2, ", "(a, "),
        ],
        "the contrary": [("plain", "bool(", "not (")],
    },
}  # fmt: skip
