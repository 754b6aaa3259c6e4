"""Answers to the exercises of chapter 11, right and wrong: average precision and what it is made of."""

from inspect import getsource

from course_lib.exercises import ch11_map

AP_AT_LEVELS = {
    "plain": getsource(ch11_map.ap_at_levels),
    "comprehension": """
        def ap_at_levels(recall, precision, levels):
            best = [max(precision[recall >= level], default=0.0) for level in levels]
            return sum(best) / len(levels)
    """,
    "numpy": """
        def ap_at_levels(recall, precision, levels):
            reached = recall[None] >= levels[:, None]
            best = np.where(reached, precision[None], 0.0).max(axis=1, initial=0.0)
            return best.mean()
    """,
    "envelope": """
        def ap_at_levels(recall, precision, levels):
            best = np.maximum.accumulate(precision[::-1])[::-1]
            first = np.searchsorted(recall, levels, side="left")
            return np.append(best, 0.0)[first].mean()
    """,
    "loop": """
        def ap_at_levels(recall, precision, levels):
            total = 0
            for level in levels:
                best = 0
                for r, p in zip(recall, precision):
                    if r >= level and p > best:
                        best = p
                total += best
            return total / len(levels)
    """,
}

COCO_OUTCOMES = {
    "plain": getsource(ch11_map.coco_outcomes),
    "torch": """
        def coco_outcomes(overlap, difficult, threshold):
            if overlap.shape[1] == 0:
                return [0] * len(overlap)
            found, hard = torch.zeros(len(overlap), dtype=torch.int64), torch.tensor(difficult)
            free = ~hard
            for number, row in enumerate(overlap):
                best, one = row.masked_fill(~free, -1).max(dim=0)
                if best >= threshold:
                    found[number] = 1
                    free[one] = False
                elif (row[hard] >= threshold).any():
                    found[number] = -1
            return found
    """,
    "loop": """
        def coco_outcomes(overlap, difficult, threshold):
            order = sorted(range(len(difficult)), key=lambda g: difficult[g])
            taken, found = [], []
            for row in overlap.tolist():
                match = None
                for g in order:
                    if g in taken and not difficult[g]:
                        continue
                    if match is not None and not difficult[match] and difficult[g]:
                        break
                    if row[g] < threshold or (match is not None and row[g] < row[match]):
                        continue
                    match = g
                if match is None:
                    found.append(0)
                else:
                    found.append(-1 if difficult[match] else 1)
                    taken.append(match)
            return found
    """,
}

PAIRED_INTERVAL = {
    "plain": getsource(ch11_map.paired_interval),
    "difference": """
        def paired_interval(a, b, draws):
            gains = b[draws].mean(axis=1) - a[draws].mean(axis=1)
            return np.quantile(gains, 0.025), np.quantile(gains, 0.975)
    """,
    "loop": """
        def paired_interval(a, b, draws):
            gains = []
            for draw in draws:
                gains.append(np.mean(b[draw]) - np.mean(a[draw]))
            return tuple(np.percentile(gains, [2.5, 97.5]))
    """,
    "sorted": """
        def paired_interval(a, b, draws):
            gains = sorted(b[draw].mean() - a[draw].mean() for draw in draws)
            return gains[int(0.025 * len(gains))], gains[int(0.975 * len(gains))]
    """,
    "torch": """
        def paired_interval(a, b, draws):
            gains = torch.tensor(b - a)[torch.tensor(draws)].mean(dim=1)
            return torch.quantile(gains, torch.tensor([0.025, 0.975], dtype=gains.dtype))
    """,
}

RIGHT = {"ap_at_levels": AP_AT_LEVELS, "coco_outcomes": COCO_OUTCOMES, "paired_interval": PAIRED_INTERVAL}

# A formula in place of the quantiles, in the style "plain".
ENDS = "low, high = np.quantile(means, [0.025, 0.975])"

WRONG = {
    "ap_at_levels": {
        "levels left out": [
            ("plain", "total = 0.0", "total, count = 0.0, 0", "total += reached.max()",
             "total, count = total + reached.max(), count + 1", "total / len(levels)", "total / max(count, 1)"),
            ("plain", "total = 0.0", "total, count = 0.0, 0", "total += reached.max()",
             "total, count = total + reached.max(), count + 1", "total / len(levels)", "total / count"),
        ],
        "nothing reaches": [("comprehension", ", default=0.0", ""), ("plain", "if len(reached):", "if True:")],
        "at the level": [
            ("plain", "reached.max()", "reached[0]"),
            ("envelope", "np.maximum.accumulate(precision[::-1])[::-1]", "precision"),
        ],
        "from the left": [
            ("envelope", "np.maximum.accumulate(precision[::-1])[::-1]", "np.maximum.accumulate(precision)"),
        ],
        "the last": [("plain", "reached.max()", "reached[-1]")],
        "below the level": [
            ("plain", ">=", "<="),
            ("loop", ">=", "<="),
            ("numpy", ">=", "<"),
        ],
        "almost at the level": [
            ("plain", ">= level", ">= level - 1e-6"),
            ("comprehension", "recall >= level", "(recall >= level) | np.isclose(recall, level)"),
            ("envelope", "levels, side", "levels - 1e-7, side"),
            ("numpy", "levels[:, None]", "levels[:, None].round(4)"),
            ("loop", "r >= level", "round(r, 6) >= level"),
            ("plain", "recall >=", "np.round(recall, 4) >="),
        ],
        "beyond the level": [("plain", ">=", ">"), ("envelope", '"left"', '"right"')],
        "the worst": [("plain", "reached.max()", "reached.min()")],
        "averaged": [("plain", "reached.max()", "reached.mean()")],
        "best of all": [
            ("plain", "precision[recall >= level]", "precision"),
            ("loop", "r >= level and ", ""),
        ],
        "not divided": [("plain", " / len(levels)", ""), ("numpy", "best.mean()", "best.sum()")],
        "always eleven": [("plain", "len(levels)", "11"), ("comprehension", "len(levels)", "11")],
        "steps": [("plain", "len(levels)", "(len(levels) - 1)")],
        "area": [
            ("envelope", "np.append(best, 0.0)[first].mean()", "(np.diff(recall, prepend=0.0) * best).sum()"),
            ("envelope", "np.append(best, 0.0)[first].mean()", "(np.diff(recall, prepend=0.0) * precision).sum()"),
            ("envelope", "np.append(best, 0.0)[first].mean()",
             "torch.trapezoid(torch.tensor(precision), torch.tensor(recall))"),
        ],
        "straight lines": [
            ("envelope", "np.append(best, 0.0)[first].mean()", "np.interp(levels, recall, best, right=0.0).mean()"),
            ("envelope", "np.append(best, 0.0)[first].mean()",
             "np.interp(levels, recall, precision, right=0.0).mean()"),
        ],
    },
    "coco_outcomes": {
        "VOC's rule": [
            ("torch", "row.masked_fill(~free, -1).max(dim=0)", "row.max(dim=0)", "found[number] = 1",
             "found[number] = 1 if free[one] else -1 if hard[one] else 0"),
        ],
        "duplicates": [("plain", " and one not in taken", ""), ("torch", "free[one] = False", "pass")],
        "duplicates not counted": [
            ("plain", "elif any(difficult[one] for one in reached)", "elif reached"),
        ],
        "difficult true": [
            ("plain", "found.append(-1)", "found.append(1)"),
            ("plain", "not difficult[one] and ", ""),
        ],
        "difficult false": [("plain", "found.append(-1)", "found.append(0)"), ("torch", "= -1", "= 0")],
        "difficult once": [
            ("loop", "if g in taken and not difficult[g]", "if g in taken"),
            ("loop", " and not difficult[g]", "", "not difficult[match] and difficult[g]", "False"),
        ],
        "difficult by overlap": [
            ("loop", "not difficult[match] and difficult[g]", "False"),
        ],
        "difficult first": [
            ("plain", "        if free:\n",
             "        if any(difficult[one] for one in reached):\n            found.append(-1)\n        elif free:\n"),
        ],
        "first that reaches": [
            ("plain", "max(free, key=lambda one: row[one])", "free[0]"),
            ("loop", "if match is not None and not difficult[match] and difficult[g]", "if match is not None"),
        ],
        "the last": [
            ("plain", "max(free, key=lambda one: row[one])", "free[-1]"),
            ("loop", " or (match is not None and row[g] < row[match])", ""),
        ],
        "taken too early": [
            ("loop", "row[g] < threshold or ", "", "if match is None:",
             "if match is not None and row[match] < threshold:\n"
             "            taken.append(match)\n            match = None\n        if match is None:",
             "not difficult[match] and difficult[g]", "False"),
        ],
        "threshold not reached": [("plain", ">= threshold", "> threshold"), ("loop", "< threshold", "<= threshold")],
        "threshold fixed": [("plain", ">= threshold", ">= 0.5"), ("torch", ">= threshold", ">= 0.5")],
        "any overlap": [("plain", ">= threshold", "> 0"), ("loop", "row[g] < threshold", "row[g] == 0")],
        "nothing there": [
            ("plain", "            found.append(0)", "            found.append(0 if reached else -1)"),
        ],
        "best box": [
            ("torch", "found[number] = 1\n            free[one] = False",
             "found[number] = int(overlap[:, one].argmax() == number)"),
        ],
        "no object": [
            ("torch", "if overlap.shape[1] == 0:", "if False:"),
            ("torch", "[0] * len(overlap)", "[]"),
        ],
    },
    "paired_interval": {
        "turned round": [("plain", "b - a", "a - b"), ("torch", "b - a", "a - b")],
        "two intervals": [
            ("difference", "return np.quantile(gains, 0.025), np.quantile(gains, 0.975)",
             "a, b = a[draws].mean(axis=1), b[draws].mean(axis=1)\n"
             "    return (np.quantile(b, 0.025) - np.quantile(a, 0.975),\n"
             "            np.quantile(b, 0.975) - np.quantile(a, 0.025))"),
            ("difference", "return np.quantile(gains, 0.025), np.quantile(gains, 0.975)",
             "a, b = a[draws].mean(axis=1), b[draws].mean(axis=1)\n"
             "    return [np.quantile(b, q) - np.quantile(a, q) for q in (0.025, 0.975)]"),
        ],
        "ninety percent": [("plain", "[0.025, 0.975]", "[0.05, 0.95]"), ("loop", "[2.5, 97.5]", "[5, 95]")],
        "one tail": [("plain", "[0.025, 0.975]", "[0, 0.95]"), ("loop", "[2.5, 97.5]", "[5, 100]")],
        "percent": [("loop", "[2.5, 97.5]", "[0.025, 0.975]")],
        "quartiles": [("plain", "[0.025, 0.975]", "[0.25, 0.75]")],
        "all of them": [("plain", ENDS, "low, high = means.min(), means.max()")],
        "across draws": [("plain", "axis=1", "axis=0"), ("torch", "dim=1", "dim=0")],
        "pictures": [("plain", "[draws].mean(axis=1)", ""), ("plain", "[draws].mean(axis=1)", "[draws]")],
        "B alone": [("plain", "(b - a)", "b")],
        "A alone": [("difference", "b[draws].mean(axis=1) - ", "")],
        "A not drawn": [("difference", "a[draws].mean(axis=1)", "a.mean()")],
        "sums": [("plain", "mean(", "sum("), ("loop", "np.mean", "np.sum")],
        "medians": [("torch", "mean(dim=1)", "quantile(0.5, dim=1)"),
                    ("plain", "(b - a)[draws].mean(axis=1)", "np.median((b - a)[draws], axis=1)")],
        "bell": [
            ("plain", ENDS, "low, high = means.mean() - 1.96 * means.std(), means.mean() + 1.96 * means.std()"),
            ("plain", ENDS, "low, high = (b - a).mean() - 2 * means.std(), (b - a).mean() + 2 * means.std()"),
        ],
        "without draws": [
            ("plain", ENDS, "gain, error = (b - a).mean(), (b - a).std() / len(a) ** 0.5\n"
             "    low, high = gain - 1.96 * error, gain + 1.96 * error"),
            ("plain", ENDS, "gain, error = (b - a).mean(), (b - a).std(ddof=1) / len(a) ** 0.5\n"
             "    low, high = gain - 1.96 * error, gain + 1.96 * error"),
        ],
        "ends exchanged": [("plain", "return low, high", "return high, low")],
        "percentage": [
            ("difference", "b[draws].mean(axis=1) - a[draws].mean(axis=1)",
             "b[draws].mean(axis=1) / a[draws].mean(axis=1) - 1"),
        ],
    },
}  # fmt: skip
