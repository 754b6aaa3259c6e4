"""Answers to the exercises of chapter 15, right and wrong: an effect, Holm's rule, and whether one sees it."""

PAIRED_EFFECT = {
    "numpy": """
        def paired_effect(changed, usual, t):
            seeds = sorted(set(changed) & set(usual))
            gains = np.array([changed[s] for s in seeds]) - np.array([usual[s] for s in seeds])
            reach = t * gains.std(ddof=1) / np.sqrt(len(seeds))
            return gains.mean(), gains.mean() - reach, gains.mean() + reach
    """,
    "torch": """
        def paired_effect(changed, usual, t):
            both = [seed for seed in usual if seed in changed]
            gains = torch.tensor([changed[seed] - usual[seed] for seed in both], dtype=torch.float64)
            error = (gains.var() / len(both)).sqrt()
            return torch.stack([gains.mean(), gains.mean() - t * error, gains.mean() + t * error]).unbind()
    """,
}

HOLM = {
    "while": """
        def holm(p_values, error):
            left = dict(enumerate(p_values))
            kept = [False for _ in p_values]
            while left:
                place = min(left, key=left.get)
                if left[place] > error / len(left):
                    break
                kept[place] = True
                del left[place]
            return kept
    """,
    "numpy": """
        def holm(p_values, error):
            p = np.array(p_values)
            order = np.argsort(p, kind="stable")
            passed = p[order] <= error / np.arange(len(p), 0, -1)
            kept = np.empty(len(p), dtype=bool)
            kept[order] = np.logical_and.accumulate(passed)
            return kept
    """,
    "adjusted": """
        def holm(p_values, error):
            count, highest, kept = len(p_values), 0.0, {}
            for rank, (p, place) in enumerate(sorted((p, place) for place, p in enumerate(p_values))):
                highest = max(highest, p * (count - rank))
                kept[place] = bool(highest <= error * (1 + 1e-12))
            return [kept[place] for place in range(count)]
    """,
}

POWER = {
    "loop": """
        def power(effect, spread, luck, t):
            seen = 0
            for row in luck:
                gains = [effect + spread * one for one in row]
                mean = sum(gains) / len(gains)
                variance = sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
                reach = t * math.sqrt(variance / len(gains))
                if mean - reach > 0 or mean + reach < 0:
                    seen += 1
            return seen / len(luck)
    """,
    "torch": """
        def power(effect, spread, luck, t):
            gains = effect + spread * torch.from_numpy(luck)
            score = gains.mean(dim=1) / (gains.std(dim=1) / gains.shape[1] ** 0.5)
            return (score.abs() > t).double().mean().item()
    """,
}

RIGHT = {"paired_effect": PAIRED_EFFECT, "holm": HOLM, "power": POWER}

WRONG = {
    "paired_effect": {
        "turned round": [("plain", "changed[seed] - usual[seed]", "usual[seed] - changed[seed]")],
        "not paired": [
            ("numpy", "gains.std(ddof=1)",
             "np.hypot(*(np.std([one[s] for s in seeds], ddof=1) for one in (changed, usual)))"),
        ],
        "in order": [
            ("plain", "[changed[seed] - usual[seed] for seed in changed if seed in usual]",
             "[a - b for a, b in zip(changed.values(), usual.values())]"),
        ],
        "all seeds": [
            ("plain", " if seed in usual", ""),
            ("numpy", "set(changed) & set(usual)", "set(changed) | set(usual)"),
        ],
        "spread of a whole": [
            ("numpy", "gains.std(ddof=1)", "gains.std()"),
            ("plain", "/ (len(gains) - 1)", "/ len(gains)"),
            ("torch", "gains.var()", "gains.var(correction=0)"),
        ],
        "not divided": [("plain", " / math.sqrt(len(gains))", ""), ("torch", "gains.var() / len(both)", "gains.var()")],
        "divided by n": [("numpy", "np.sqrt(len(seeds))", "len(seeds)")],
        "root of n - 1": [("numpy", "np.sqrt(len(seeds))", "np.sqrt(len(seeds) - 1)")],
        "1.96": [("plain", "reach = t *", "reach = 1.96 *")],
        "no factor": [("numpy", "t * gains", "gains"), ("torch", "t * error", "error")],
        "half of it": [("plain", "reach = t *", "reach = t / 2 *")],
        "variance": [("numpy", "gains.std(ddof=1)", "gains.var(ddof=1)")],
        "smallest and largest": [
            ("numpy", "gains.mean() - reach", "gains.min()", "gains.mean() + reach", "gains.max()"),
        ],
        "median": [("numpy", "gains.mean()", "np.median(gains)")],
        "ends exchanged": [("plain", "mean - reach, mean + reach", "mean + reach, mean - reach")],
        "percentage": [("plain", "changed[seed] - usual[seed]", "changed[seed] / usual[seed] - 1")],
    },
    "holm": {
        "no correction": [
            ("plain", "error / (len(p_values) - rank)", "error"),
            ("while", "error / len(left)", "error"),
        ],
        "Bonferroni": [
            ("plain", "error / (len(p_values) - rank)", "error / len(p_values)"),
            ("while", "error / len(left)", "error / len(kept)"),
        ],
        "not stopped": [
            ("plain", "            break\n        kept", "            continue\n        kept"),
            ("numpy", "np.logical_and.accumulate(passed)", "passed"),
        ],
        "from the largest": [
            ("numpy", "np.logical_and.accumulate(passed)", "np.logical_or.accumulate(passed[::-1])[::-1]"),
        ],
        "false discoveries": [
            ("numpy", "error / np.arange(len(p), 0, -1)", "error * np.arange(1, len(p) + 1) / len(p)",
             "np.logical_and.accumulate(passed)", "np.logical_or.accumulate(passed[::-1])[::-1]"),
            ("plain", "error / (len(p_values) - rank)", "error * (rank + 1) / len(p_values)"),
        ],
        "one too few": [("plain", "len(p_values) - rank)", "max(len(p_values) - rank - 1, 1))")],
        "one too many": [("plain", "len(p_values) - rank)", "len(p_values) - rank + 1)")],
        "equal fails": [("plain", "] > error", "] >= error"), ("while", "left[place] > error", "left[place] >= error")],
        "sorted": [("numpy", "kept[order] =", "kept[:] =")],
        "not sorted": [("plain", "sorted(range(len(p_values)), key=lambda place: p_values[place])",
                        "range(len(p_values))")],
        "turned round": [("numpy", "return kept", "return ~kept")],
    },
    "power": {
        "one side": [("loop", " or mean + reach < 0", ""), ("torch", "score.abs()", "score")],
        "the other side": [("loop", "mean - reach > 0 or ", "")],
        "turned round": [("plain", "axis=1)) > t", "axis=1)) <= t")],
        "coverage": [
            ("loop", "mean - reach > 0 or mean + reach < 0", "mean - reach <= effect <= mean + reach"),
        ],
        "counted": [("plain", "np.mean(np.abs", "np.sum(np.abs"), ("loop", " / len(luck)", "")],
        "spread of a whole": [("plain", ", ddof=1", ""), ("loop", "/ (len(gains) - 1)", "/ len(gains)")],
        "not divided": [("torch", "(gains.std(dim=1) / gains.shape[1] ** 0.5)", "gains.std(dim=1)")],
        "divided by n": [("plain", "math.sqrt(differences.shape[1])", "differences.shape[1]")],
        "all together": [
            ("torch", "gains.std(dim=1)", "gains.std()"),
            ("torch", "gains.std(dim=1)", "spread"),
        ],
        "across experiments": [
            ("torch", "torch.from_numpy(luck)", "torch.from_numpy(luck).T"),
            ("loop", "for row in luck", "for row in luck.T", "len(luck)", "len(luck.T)"),
        ],
        "1.96": [("plain", "> t *", "> 1.96 *")],
        "no factor": [("plain", "> t *", "> ")],
        "luck as it is": [("loop", "spread * one", "one")],
        "no effect": [
            ("plain", "effect + spread", "spread"),
            ("torch", "gains.mean(dim=1) /", "(gains.mean(dim=1) - effect) /"),
        ],
    },
}  # fmt: skip
