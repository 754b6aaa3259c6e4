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

OUTCOMES = {
    "plain": getsource(ch11_map.outcomes),
    "torch": """
        def outcomes(overlap, difficult, threshold):
            if overlap.shape[1] == 0:
                return [0] * len(overlap)
            found, taken = torch.zeros(len(overlap), dtype=torch.int64), torch.zeros(len(difficult))
            best, owner = overlap.max(dim=1)
            for row in range(len(overlap)):
                one = owner[row]
                if best[row] < threshold:
                    continue
                if difficult[one]:
                    found[row] = -1
                elif not taken[one]:
                    found[row] = 1
                    taken[one] = 1
            return found
    """,
    "first": """
        def outcomes(overlap, difficult, threshold):
            if len(difficult) == 0:
                return [0 for _ in overlap]
            owner = [int(row.argmax()) if row.max() >= threshold else None for row in overlap]
            found = []
            for place, one in enumerate(owner):
                if one is None:
                    found.append(0)
                elif difficult[one]:
                    found.append(-1)
                else:
                    found.append(int(owner.index(one) == place))
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
    "torch": """
        def paired_interval(a, b, draws):
            gains = torch.tensor(b - a)[torch.tensor(draws)].mean(dim=1)
            return torch.quantile(gains, torch.tensor([0.025, 0.975], dtype=gains.dtype))
    """,
}

RIGHT = {"ap_at_levels": AP_AT_LEVELS, "outcomes": OUTCOMES, "paired_interval": PAIRED_INTERVAL}

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
        "the last": [("plain", "reached.max()", "reached[-1]")],
        "below the level": [
            ("plain", ">=", "<="),
            ("loop", ">=", "<="),
            ("numpy", ">=", "<"),
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
        ],
        "straight lines": [
            ("envelope", "np.append(best, 0.0)[first].mean()", "np.interp(levels, recall, best, right=0.0).mean()"),
            ("envelope", "np.append(best, 0.0)[first].mean()",
             "np.interp(levels, recall, precision, right=0.0).mean()"),
        ],
    },
    "outcomes": {
        "duplicates": [
            ("plain", "one in taken", "False"),
            ("torch", "elif not taken[one]:", "else:"),
            ("first", "int(owner.index(one) == place)", "1"),
        ],
        "duplicates not counted": [
            ("plain", "one in taken:\n            found.append(0)", "one in taken:\n            found.append(-1)"),
            ("first", "int(owner.index(one) == place)", "1 if owner.index(one) == place else -1"),
        ],
        "difficult true": [
            ("plain", "if difficult[one]:\n            found.append(-1)\n        elif", "if"),
            ("torch", "found[row] = -1", "found[row] = 1"),
        ],
        "difficult false": [("plain", "found.append(-1)", "found.append(0)"), ("torch", "found[row] = -1", "pass")],
        "difficult once": [
            ("first", "found.append(-1)", "found.append(-1 if owner.index(one) == place else 0)"),
            ("plain", "        if difficult[one]:\n            found.append(-1)\n        elif one in taken:\n"
             "            found.append(0)\n        else:\n            found.append(1)\n",
             "        if one in taken:\n            found.append(0)\n        else:\n"
             "            found.append(-1 if difficult[one] else 1)\n"),
        ],
        "difficult passed over": [
            ("torch", "overlap.max(dim=1)", "overlap.masked_fill(torch.tensor(difficult), -1).max(dim=1)"),
        ],
        "best free": [
            ("plain", "    for row in overlap.tolist():\n",
             "    for row in overlap.tolist():\n"
             "        row = [-1 if one in taken else value for one, value in enumerate(row)]\n"),
            ("plain", "    for row in overlap.tolist():\n",
             "    for row in overlap.tolist():\n"
             "        row = [-1 if one in taken else value for one, value in enumerate(row)]\n",
             "            found.append(-1)\n", "            found.append(-1)\n            taken.add(one)\n"),
        ],
        "first that reaches": [
            ("plain", "one = row.index(best)", "one = [value >= threshold for value in row].index(True)"),
        ],
        "taken too early": [
            ("plain", "        if best < threshold:\n",
             "        if best < threshold:\n            taken.update(row.index(best) for _ in row[:1])\n"),
        ],
        "threshold not reached": [("plain", "best < threshold", "best <= threshold"), ("first", ">=", ">")],
        "threshold fixed": [("plain", "best < threshold", "best < 0.5"), ("torch", "< threshold", "< 0.5")],
        "any overlap": [("plain", "best < threshold", "best == 0"), ("first", ">= threshold", "> 0")],
        "nothing there": [
            ("plain", "threshold:\n            found.append(0)", "threshold:\n            found.append(-1)"),
        ],
        "best box": [
            ("first", "int(owner.index(one) == place)", "int(overlap[:, one].argmax() == place)"),
        ],
        "ties": [("plain", "one = row.index(best)", "one = len(row) - 1 - row[::-1].index(best)")],
        "no object": [
            ("torch", "if overlap.shape[1] == 0:", "if False:"),
            ("first", "[0 for _ in overlap]", "[]"),
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
