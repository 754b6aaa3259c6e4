"""Answers to the exercises of chapter 7, right and wrong: the multibox loss."""

SMOOTH_L1_SUM = {
    "loop": """
        def smooth_l1_sum(differences):
            total = 0.0
            for d in differences.flatten().tolist():
                if abs(d) < 1:
                    total += 0.5 * d * d
                else:
                    total += abs(d) - 0.5
            return total
    """,
    "clamped": """
        def smooth_l1_sum(differences):
            near = differences.abs().clamp(max=1)
            return float((near * (differences.abs() - near / 2)).sum())
    """,
}

BATCH_LOSS = {
    "short": """
        def batch_loss(costs, positives):
            return sum(costs) / max(sum(positives), 1)
    """,
    "torch": """
        def batch_loss(costs, positives):
            costs, positives = torch.tensor(costs), torch.tensor(positives)
            return costs.sum() / positives.sum().clamp(min=1)
    """,
    "numpy": """
        def batch_loss(costs, positives):
            return np.sum(costs) / (np.sum(positives) + 1e-8)
    """,
    "loop": """
        def batch_loss(costs, positives):
            total = 0.0
            for cost, count in zip(costs, positives):
                total += cost / max(1, sum(positives))
            return total
    """,
}

HARD_NEGATIVES = {
    "topk": """
        def hard_negatives(loss, positives, ratio):
            mask = torch.zeros_like(positives)
            for b in range(len(loss)):
                own = loss[b].masked_fill(positives[b], -torch.inf)
                count = min(ratio * int(positives[b].sum()), int((~positives[b]).sum()))
                mask[b, own.topk(count).indices] = True
            return mask
    """,
    "numpy": """
        def hard_negatives(loss, positives, ratio):
            loss, positives = loss.numpy(), positives.numpy()
            mask = np.zeros(loss.shape, dtype=bool)
            for row, own, chosen in zip(loss, positives, mask):
                candidates = np.flatnonzero(~own)
                order = candidates[np.argsort(-row[candidates])]
                chosen[order[: ratio * own.sum()]] = True
            return mask
    """,
    "lists": """
        def hard_negatives(loss, positives, ratio):
            rows = []
            for costs, own in zip(loss.tolist(), positives.tolist()):
                places = sorted((-cost, p) for p, cost in enumerate(costs) if not own[p])
                chosen = {p for _, p in places[: ratio * sum(own)]}
                rows.append([p in chosen for p in range(len(costs))])
            return rows
    """,
}

RIGHT = {"smooth_l1_sum": SMOOTH_L1_SUM, "batch_loss": BATCH_LOSS, "hard_negatives": HARD_NEGATIVES}

WRONG = {
    "smooth_l1_sum": {
        "parabola not halved": [("plain", "size**2 / 2", "size**2"), ("loop", "0.5 * d * d", "d * d")],
        "line not lowered": [
            ("plain", "size - 0.5", "size"),
            ("plain", "size - 0.5", "size + 0.5"),
            ("loop", "abs(d) - 0.5", "abs(d)"),
        ],
        "line too low": [("plain", "size - 0.5", "size - 1"), ("loop", "abs(d) - 0.5", "abs(d) - 1")],
        "both too high": [
            ("plain", "size**2 / 2", "size**2", "size - 0.5", "size"),
            ("loop", "0.5 * d * d", "d ** 2", "abs(d) - 0.5", "abs(d)"),
        ],
        "all straight": [
            ("plain", "torch.where(size < 1, size**2 / 2, size - 0.5)", "size - 0.5"),
            ("plain", "torch.where(size < 1, size**2 / 2, size - 0.5)", "size"),
        ],
        "all parabola": [
            ("plain", "torch.where(size < 1, size**2 / 2, size - 0.5)", "size**2"),
            ("loop", "if abs(d) < 1:", "if True:"),
        ],
        "branches exchanged": [("plain", "size < 1", "size > 1"), ("loop", "abs(d) < 1", "abs(d) > 1")],
        "sign kept": [
            ("plain", "differences.abs()", "differences"),
            ("loop", "abs(d)", "d"),
            ("loop", "abs(d) - 0.5", "d - 0.5"),
        ],
        "less than nothing": [
            ("plain", "size - 0.5", "0.5 - size"),
            ("plain", "cost.sum()", "-cost.sum()"),
            ("loop", "abs(d) - 0.5", "-abs(d) - 0.5"),
            ("loop", "total += 0.5", "total -= 0.5"),
        ],
        "border elsewhere": [("plain", "size < 1", "size < 0.5"), ("loop", "abs(d) < 1", "abs(d) <= 1 / 2")],
        "border counted wrongly": [
            ("loop", "else:", "elif abs(d) > 1:"),
            ("loop", "else:", "if abs(d) >= 1:", "if abs(d) < 1:", "if abs(d) <= 1:"),
        ],
        "added up first": [
            ("plain", "differences.abs()", "differences.sum().abs()"),
            ("plain", "differences.abs()", "differences.abs().sum()"),
        ],
        "mean": [
            ("plain", "cost.sum()", "cost.mean()"),
            ("clamped", ").sum())", ").sum() / 4)"),
            ("plain", "cost.sum()", "cost.sum(dim=-1).mean()"),
        ],
        "not added up": [
            ("plain", "cost.sum().item()", "cost"),
            ("plain", "cost.sum().item()", "cost.sum(dim=-1)"),
        ],
        **{
            forbidden: [("plain", "cost.sum().item()", call)]
            for forbidden, call in {
                "smooth_l1_loss": "torch.nn.functional.smooth_l1_loss(differences, 0 * differences, reduction='sum')",
                "SmoothL1Loss": "torch.nn.SmoothL1Loss(reduction='sum')(differences, 0 * differences)",
                "huber_loss": "torch.nn.functional.huber_loss(differences, 0 * differences, reduction='sum')",
                "HuberLoss": "torch.nn.HuberLoss(reduction='sum')(differences, 0 * differences)",
            }.items()
        },
    },
    "batch_loss": {
        "mean over images": [
            ("loop", "max(1, sum(positives))", "max(1, count)", "return total", "return total / len(costs)"),
            ("loop", "max(1, sum(positives))", "count", "return total", "return total / len(costs)"),
            ("torch", "costs.sum() / positives.sum().clamp(min=1)", "(costs / positives).mean()"),
            ("torch", "costs.sum() / positives.sum().clamp(min=1)",
             "(costs / positives.clamp(min=1))[positives > 0].mean()"),
        ],
        "sum over images": [
            ("loop", "sum(positives)", "count"),
            ("loop", "max(1, sum(positives))", "count"),
            ("torch", "costs.sum() / positives.sum().clamp(min=1)", "(costs / positives).sum()"),
        ],
        "by images": [
            ("plain", "count = sum(positives)", "count = len(positives)"),
            ("numpy", "np.sum(costs) / (np.sum(positives) + 1e-8)", "np.mean(costs)"),
        ],
        "by images with objects": [
            ("torch", "positives.sum()", "(positives > 0).sum()"),
            ("plain", "sum(positives)", "sum(1 for one in positives if one)"),
        ],
        "not divided": [("plain", "sum(costs) / count", "sum(costs)"), ("numpy", " / (np.sum(positives) + 1e-8)", "")],
        "four times": [
            ("plain", "/ count", "/ (4 * count)"),
            ("short", "max(sum(positives), 1)", "(4 * max(sum(positives), 1))"),
            ("short", "max(sum(positives), 1)", "(4 * sum(positives))"),
            ("torch", "positives.sum().clamp(min=1)", "positives.sum() / 4"),
            ("plain", "return 0.0", "return None", "/ count", "/ (count + 3 * count)"),
        ],
        "mean of the costs": [
            ("torch", "costs.sum()", "costs.mean()"),
            ("short", "sum(costs)", "(sum(costs) / len(costs))", "max(sum(positives), 1)", "sum(positives)"),
            ("torch", "costs.sum() / positives.sum().clamp(min=1)", "costs.mean() / positives.sum()"),
        ],
        "mean of the positives": [
            ("plain", "/ count", "/ (count / len(positives))"),
            ("short", "max(sum(positives), 1)", "max(sum(positives) / len(positives), 1)"),
            ("short", "max(sum(positives), 1)", "(sum(positives) / len(positives))"),
            ("torch", "positives.sum().clamp(min=1)", "positives.double().mean()"),
        ],
        "guard on a mean": [
            ("torch", "costs.sum() / positives.sum().clamp(min=1)",
             "costs.mean() / positives.double().mean().clamp(min=1)"),
        ],
        "rounded": [
            ("plain", "sum(costs) / count", "sum(costs) // count"),
            ("short", "sum(costs) /", "sum(costs) //", "max(sum(positives), 1)", "sum(positives)"),
            ("plain", "sum(costs) / count", "round(sum(costs) / count)"),
            ("plain", "sum(costs) / count", "round(sum(costs) / count, 2)"),
            ("plain", "sum(costs) / count", "round(sum(costs) / count, 4)"),
        ],
        "sign": [
            ("plain", "sum(costs) /", "-sum(costs) /"),
            ("torch", "return costs", "return -costs"),
            ("short", "sum(costs) / max(sum(positives), 1)", "-sum(costs) / sum(positives)"),
        ],
        "a little added": [
            ("numpy", "1e-8", "1e-6"),
            ("numpy", "1e-8", "1e-5"),
            ("plain", "/ count", "/ (count + 1e-6)"),
            ("loop", "max(1, sum(positives))", "(sum(positives) + 1e-3)"),
        ],
        "one added": [("numpy", "1e-8", "1"), ("plain", "count = sum(positives)", "count = 1 + sum(positives)")],
        "no positives": [
            ("torch", ".clamp(min=1)", ""),
            ("plain", "    if count == 0:\n        return 0.0\n", ""),
            ("plain", "return 0.0", "return None"),
            ("numpy", " + 1e-8", ""),
        ],
        "an image without": [
            ("plain", "if count == 0", "if 0 in positives"),
            ("plain", "if count == 0:\n        return 0.0", "if 0 in positives:\n        return None"),
            ("plain", "if count == 0:\n        return 0.0", "if 0 in positives:\n        raise ValueError"),
        ],
        "one for each empty image": [("torch", "positives.sum().clamp(min=1)", "positives.clamp(min=1).sum()")],
    },
    "hard_negatives": {
        "positives compete": [
            ("plain", "loss.masked_fill(positives, -1.0)", "loss", " & ~positives", ""),
            ("plain", "loss.masked_fill(positives, -1.0)", "loss"),
            ("plain", "-1.0", "torch.inf"),
            ("topk", ".masked_fill(positives[b], -torch.inf)", ""),
            ("lists", " if not own[p]", ""),
        ],
        "zero": [
            ("plain", "-1.0", "0.0"),
            ("plain", "loss.masked_fill(positives, -1.0)", "loss * ~positives"),
            ("plain", "loss.masked_fill(positives, -1.0)", "loss * ~positives", "& ~positives", "& (background > 0)"),
            ("plain", "& ~positives", "& (background > 0)"),
        ],
        "positives fill up": [
            ("plain", " & ~positives", ""),
            ("topk", "int((~positives[b]).sum())", "loss.shape[1]"),
        ],
        "more than there are": [
            ("topk", "min(ratio * int(positives[b].sum()), int((~positives[b]).sum()))",
             "ratio * int(positives[b].sum())"),
            ("topk", "min(ratio * int(positives[b].sum()), int((~positives[b]).sum()))",
             "ratio * int(positives[b].sum())", "mask[b, own.topk(count).indices]",
             "mask[b, (~positives[b]).nonzero()[own[~positives[b]].topk(count).indices, 0]]"),
        ],
        "smallest": [
            ("plain", "descending=True", "descending=False"),
            ("plain", "-1.0", "torch.inf", "descending=True", "descending=False"),
            ("topk", "own.topk(count)", "own.topk(count, largest=False)"),
            ("numpy", "-row", "row"),
            ("lists", "(-cost, p)", "(cost, p)"),
        ],
        "sorted once": [
            ("plain", "order.argsort(dim=1)", "order"),
            ("plain", "order.argsort(dim=1)", "order", " & ~positives", ""),
        ],
        "all negatives": [
            ("plain", "(place < count) & ~positives", "~positives"),
            ("numpy", "[: ratio * own.sum()]", ""),
        ],
        "same for all": [
            ("plain", "ratio * positives.sum(dim=1, keepdim=True)", "ratio"),
            ("lists", "ratio * sum(own)", "ratio"),
            ("plain", "positives.sum(dim=1, keepdim=True)", "positives[0].sum()"),
            ("plain", "positives.sum(dim=1, keepdim=True)", "positives.sum(dim=1).max()"),
            ("plain", "positives.sum(dim=1, keepdim=True)", "positives.sum(dim=1).max()", " & ~positives", ""),
            ("lists", "sum(own)", "sum(positives[0].tolist())"),
            ("topk", "ratio * int(positives[b].sum())", "ratio * int(positives.sum() // len(loss))"),
            ("topk", "min(ratio * int(positives[b].sum()), int((~positives[b]).sum()))",
             "ratio * int(positives.sum(dim=1).max())"),
            ("topk", "min(ratio * int(positives[b].sum()), int((~positives[b]).sum()))",
             "ratio * int(positives[0].sum())"),
        ],
        "no ratio": [
            ("plain", "ratio *", "1 *"),
            ("lists", "ratio * sum(own)", "sum(own)"),
            ("plain", "ratio *", "1 *", " & ~positives", ""),
        ],
        "ratio fixed": [("plain", "ratio *", "3 *"), ("lists", "ratio *", "3 *")],
        "wrong axis": [
            ("plain", "sort(dim=1, descending", "sort(dim=0, descending", "order.argsort(dim=1)",
             "order.argsort(dim=0)"),
            ("plain", "sort(dim=1, descending", "sort(dim=0, descending", "order.argsort(dim=1)",
             "order.argsort(dim=0)", " & ~positives", ""),
            ("plain", "sort(dim=1, descending", "sort(dim=0, descending"),
            ("plain", "order.argsort(dim=1)", "order.argsort(dim=0)"),
        ],
        "no axis": [
            ("plain", "dim=1, keepdim=True", "dim=1"),
            ("plain", "dim=1, keepdim=True", "dim=1", " & ~positives", ""),
        ],
        "count of the batch": [
            ("plain", "sum(dim=1, keepdim=True)", "sum()"),
            ("topk", "ratio * int(positives[b].sum())", "ratio * int(positives.sum())"),
        ],
        "whole batch": [
            ("plain", "-1.0)", "-1.0).view(1, -1)", "sum(dim=1, keepdim=True)", "sum()",
             "(place < count)", "(place < count).view_as(positives)"),
        ],
        "at least one": [
            ("plain", "keepdim=True)", "keepdim=True).clamp(min=1)"),
            ("topk", "min(ratio * int(positives[b].sum()),", "min(max(1, ratio * int(positives[b].sum())),"),
        ],
        "one too many": [("plain", "place < count", "place <= count"), ("lists", "* sum(own)", "* sum(own) + 1")],
        "one too few": [("plain", "place < count", "place < count - 1"), ("lists", "* sum(own)]", "* sum(own) - 1]")],
        "nothing": [
            ("topk", "mask[b, own.topk(count).indices] = True", "pass"),
            ("plain", "return (place < count) & ~positives", "return torch.zeros_like(positives)"),
        ],
        "positives returned": [
            ("plain", "& ~positives", "| positives"),
            ("topk", "return mask", "return mask | positives"),
        ],
        "no mask": [
            ("plain", "return (place < count) & ~positives", "return order[:, : int(count[0])]"),
            ("lists", "[p in chosen for p in range(len(costs))]", "[p for _, p in places[: ratio * sum(own)]]"),
        ],
    },
}  # fmt: skip
