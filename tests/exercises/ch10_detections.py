"""Answers to the exercises of chapter 10, right and wrong: candidates and non-maximum suppression."""

SHORTLIST = {
    "loops": """
        def shortlist(probabilities, threshold):
            found = []
            for prior, row in enumerate(probabilities.tolist()):
                for label, probability in enumerate(row):
                    if label > 0 and probability > threshold:
                        found.append((prior, label))
            return found
    """,
    "masked": """
        def shortlist(probabilities, threshold):
            above = probabilities > threshold
            above[:, 0] = False
            return above.nonzero()
    """,
    "numpy": """
        def shortlist(probabilities, threshold):
            prior, label = np.nonzero(probabilities.numpy()[:, 1:] > threshold)
            return np.stack([prior, label + 1], axis=1)
    """,
}

GREEDY_NMS = {
    "rounds": """
        def greedy_nms(found, threshold):
            iou = torchvision.ops.box_iou(found[:, :4], found[:, :4])
            waiting, kept = list(range(len(found))), []
            while waiting:
                best = max(waiting, key=lambda one: found[one, 4])
                kept.append(best)
                waiting = [one for one in waiting if one != best and iou[best, one] <= threshold]
            return kept
    """,
    "alive": """
        def greedy_nms(found, threshold):
            order = found[:, 4].argsort(descending=True, stable=True)
            iou = torchvision.ops.box_iou(found[:, :4], found[:, :4])
            alive = torch.ones(len(order), dtype=torch.bool)
            kept = []
            for one in order.tolist():
                if alive[one]:
                    kept.append(one)
                    alive &= iou[one] <= threshold
            return kept
    """,
}

SOFT_NMS = {
    "tensors": """
        def soft_nms(found, sigma):
            scores = found[:, 4].clone()
            iou = torchvision.ops.box_iou(found[:, :4], found[:, :4])
            waiting = torch.ones(len(scores), dtype=torch.bool)
            while waiting.any():
                best = scores.masked_fill(~waiting, -1).argmax()
                waiting[best] = False
                factor = torch.exp(-iou[best] ** 2 / sigma)
                scores = torch.where(waiting, scores * factor, scores)
            return scores
    """,
    "lists": """
        def soft_nms(found, sigma):
            iou = torchvision.ops.box_iou(found[:, :4], found[:, :4])
            now, done = found[:, 4].tolist(), set()
            while len(done) < len(now):
                best = max((one for one in range(len(now)) if one not in done), key=lambda one: now[one])
                done.add(best)
                for one in range(len(now)):
                    if one not in done:
                        now[one] = now[one] * math.exp(-iou[best, one].item() ** 2 / sigma)
            return now
    """,
}

RIGHT = {"shortlist": SHORTLIST, "greedy_nms": GREEDY_NMS, "soft_nms": SOFT_NMS}


WRONG = {
    "shortlist": {
        "argmax first": [
            ("plain", "return pairs",
             "return pairs[probabilities.argmax(dim=1)[pairs[:, 0]] == pairs[:, 1]]"),
            ("loops", "label > 0 and", "label > 0 and label == row.index(max(row)) and"),
        ],
        "background stays": [
            ("loops", "label > 0 and", "label == row.index(max(row)) and"),
            ("masked", "above[:, 0] = False",
             "above &= probabilities == probabilities.max(dim=1, keepdim=True).values"),
        ],
        "one class for each prior": [
            ("loops", "label > 0 and", "label == row.index(max(row[1:]), 1) and"),
            ("plain", "return pairs",
             "return pairs[probabilities[:, 1:].argmax(dim=1)[pairs[:, 0]] + 1 == pairs[:, 1]]"),
        ],
        "background counted": [
            ("masked", "above[:, 0] = False", ""),
            ("loops", "label > 0 and ", ""),
            ("plain", "probabilities[:, 1:]", "probabilities"),
            ("numpy", ".numpy()[:, 1:]", ".numpy()"),
        ],
        "background asked too": [
            ("loops", "label > 0 and", "label > 0 and probability > row[0] and"),
            ("masked", "above[:, 0] = False", "above &= probabilities > probabilities[:, :1]"),
            ("plain", "return pairs", "return pairs[probabilities[pairs[:, 0], 0] < 0.5]"),
            ("masked", "above[:, 0] = False", "above &= ~above[:, :1]"),
        ],
        "background divided away": [
            ("loops", "probability > threshold", "probability / sum(row[1:]) > threshold"),
            ("plain", "probabilities[:, 1:] >", "probabilities[:, 1:] / (1 - probabilities[:, :1]) >"),
        ],
        "threshold not asked": [
            ("loops", " and probability > threshold", ""),
            ("loops", "and probability > threshold", "and label == row.index(max(row[1:]), 1)"),
        ],
        "label off by one": [
            ("plain", "    pairs[:, 1] += 1  # the first column is class 1\n", ""),
            ("numpy", "label + 1", "label"),
            ("plain", "    pairs[:, 1] += 1  # the first column is class 1\n    return pairs",
             "    return pairs[probabilities[:, 1:].argmax(dim=1)[pairs[:, 0]] == pairs[:, 1]]"),
        ],
        "at the threshold": [("plain", " > threshold", " >= threshold"), ("loops", " > threshold", " >= threshold")],
        "below the threshold": [("plain", " > threshold", " < threshold"), ("numpy", " > threshold", " < threshold")],
        "columns exchanged": [
            ("loops", "(prior, label))", "(label, prior))"),
            ("numpy", "[prior, label + 1]", "[label + 1, prior]"),
        ],
        "class by class": [
            ("loops", "return found", "return sorted(found, key=lambda pair: pair[1])"),
            ("masked", "above.nonzero()", "above.T.nonzero().flip(1)"),
        ],
    },
    "greedy_nms": {
        "dropped boxes beat": [
            ("alive", "if alive[one]:\n            kept.append(one)\n            alive",
             "if alive[one]:\n            kept.append(one)\n        if True:\n            alive"),
        ],
        "worst first": [
            ("plain", "descending=True, ", ""),
            ("rounds", "max(waiting", "min(waiting"),
        ],
        "as they came": [
            ("plain", "order.tolist()", "range(len(found))"),
            ("rounds", "max(waiting, key=lambda one: found[one, 4])", "waiting[0]"),
        ],
        "fixed": [("plain", "<= threshold", "<= 0.45"), ("rounds", "<= threshold", "<= 0.45")],
        "no rows": [
            ("plain", "kept = []", "kept = [order[0].item()]"),
            ("rounds", "waiting, kept = list(range(len(found))), []", "waiting, kept = list(range(len(found))), []\n"
             "    found[:, 4].max()"),
            ("alive", "kept = []", "kept = []\n    if not len(found):\n        return [0]"),
        ],
        "pixels": [
            ("plain", "box_iou(found[:, :4], found[:, :4])",
             "torchvision.ops.box_iou(*[found[:, :4] + torch.tensor([0, 0, 1, 1])] * 2)"),
            ("alive", "box_iou(found[:, :4], found[:, :4])",
             "box_iou(*[found[:, :4] + torch.tensor([0, 0, 1, 1])] * 2)"),
        ],
        "best alone": [
            ("plain", "return kept", "return kept[:1]"),
            ("rounds", "while waiting:", "if waiting:"),
        ],
        "at the threshold": [("plain", "<= threshold", "< threshold"), ("rounds", "<= threshold", "< threshold")],
        "only the last": [("plain", "for better in kept", "for better in kept[-1:]")],
        "only the first": [("plain", "for better in kept", "for better in kept[:1]")],
        "the other way": [("plain", "<= threshold", "> threshold"), ("rounds", "<= threshold", "> threshold")],
        "the order of the answer": [
            ("alive", "return kept", "return sorted(kept)"),
            ("plain", "return kept", "return kept[::-1]"),
        ],
        "places in the sorted list": [
            ("alive", "return kept", "return [order.tolist().index(one) for one in kept]"),
            ("plain", "return kept",
             "return [(order == one).nonzero().item() for one in kept]"),
        ],
        "dropped for kept": [
            ("alive", "return kept", "return [one for one in range(len(order)) if one not in kept]"),
        ],
        "itself": [
            ("plain", "for better in kept", "for better in [*kept, index]"),
        ],
        "nothing dropped": [
            ("plain", "if all(", "if True or all("),
            ("alive", "alive &= iou[one] <= threshold", "pass"),
        ],
        "ties": [
            ("plain", ".argsort(descending=True, stable=True)", ".argsort(stable=True).flip(0)"),
            ("rounds", "max(waiting,", "max(waiting[::-1],"),
        ],
    },
    "soft_nms": {
        "order never changes": [
            ("plain", "index: scores[index]", "index: found[index, 4]"),
            ("tensors", "scores.masked_fill", "found[:, 4].masked_fill"),
        ],
        "not squared": [("plain", " ** 2", ""), ("tensors", " ** 2", "")],
        "no sigma": [("plain", " / sigma", ""), ("lists", " / sigma", "")],
        "sigma multiplied": [("plain", "/ sigma", "* sigma"), ("tensors", "/ sigma", "* sigma")],
        "sigma squared": [
            ("plain", "/ sigma", "/ sigma**2"),
            ("tensors", "/ sigma", "/ (2 * sigma**2)"),
            ("lists", "/ sigma", "/ (2 * sigma)"),
        ],
        "sign of the exponent": [
            ("plain", "exp(-(iou[best, index] ** 2)", "exp((iou[best, index] ** 2)"),
            ("lists", "exp(-", "exp("),
        ],
        "linear": [
            ("plain", "math.exp(-(iou[best, index] ** 2) / sigma)", "1 - iou[best, index]"),
            ("tensors", "torch.exp(-iou[best] ** 2 / sigma)", "1 - iou[best]"),
        ],
        "hard": [
            ("plain", "math.exp(-(iou[best, index] ** 2) / sigma)", "iou[best, index] <= sigma"),
            ("tensors", "torch.exp(-iou[best] ** 2 / sigma)", "(iou[best] <= 0.45)"),
        ],
        "one minus": [
            ("tensors", "torch.exp", "1 - torch.exp"),
            ("plain", "math.exp(-(iou[best, index] ** 2) / sigma)",
             "1 - math.exp(-(iou[best, index] ** 2) / sigma)"),
        ],
        "no rows": [
            ("plain", "while waiting:", "found[:, 4].argmax()\n    while waiting:"),
            ("lists", "return now", "return now or None"),
        ],
        "fixed": [("plain", "/ sigma", "/ 0.5"), ("lists", "/ sigma", "/ 0.5")],
        "lowers itself": [
            ("plain", "for index in waiting", "for index in [best, *waiting]"),
            ("tensors", "torch.where(waiting, scores * factor, scores)", "scores * factor"),
        ],
        "taken boxes lowered": [
            ("plain", "for index in waiting", "for index in set(range(len(scores))) - {best}"),
        ],
        "one round": [
            ("plain", "while waiting:", "if waiting:"),
            ("tensors", "while waiting.any()", "if waiting.any()"),
        ],
        "factors not multiplied": [
            ("plain", "scores[index] *= math", "scores[index] = found[index, 4] * math", "index: scores[index]",
             "index: found[index, 4]"),
        ],
        "sorted": [
            ("plain", "return scores", "return scores.sort(descending=True).values"),
            ("lists", "return now", "return sorted(now, reverse=True)"),
        ],
        "nothing lowered": [("plain", "*=", "*= 1 or")],
    },
}  # fmt: skip
