"""Answers to the exercises of chapter 7, right and wrong: the multibox loss."""

SMOOTH_L1_SUM = {
    "where": """
        def smooth_l1_sum(differences):
            size = differences.abs()
            cost = torch.where(size < 1, 0.5 * size ** 2, size - 0.5)
            return cost.sum()
    """,
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
    "functional": """
        def smooth_l1_sum(differences):
            zeros = torch.zeros_like(differences)
            return torch.nn.functional.smooth_l1_loss(differences, zeros, reduction="sum")
    """,
    "clamped": """
        def smooth_l1_sum(differences):
            near = differences.abs().clamp(max=1)
            return float((near * (differences.abs() - near / 2)).sum())
    """,
}

BATCH_LOSS = {
    "plain": """
        def batch_loss(costs, positives):
            count = sum(positives)
            if count == 0:
                return 0.0
            return sum(costs) / count
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
    "twice": """
        def hard_negatives(loss, positives, ratio):
            loss = loss.masked_fill(positives, -1.0)
            count = ratio * positives.sum(dim=1, keepdim=True)
            order = loss.sort(dim=1, descending=True).indices
            place = order.sort(dim=1).indices
            return (place < count) & ~positives
    """,
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
        "parabola not halved": [("where", "0.5 * size ** 2", "size ** 2"), ("loop", "0.5 * d * d", "d * d")],
        "line not lowered": [("where", "size - 0.5", "size"), ("loop", "abs(d) - 0.5", "abs(d)")],
        "both too high": [
            ("where", "0.5 * size ** 2", "size ** 2", "size - 0.5", "size"),
            ("loop", "0.5 * d * d", "d ** 2", "abs(d) - 0.5", "abs(d)"),
        ],
        "all straight": [
            ("where", "torch.where(size < 1, 0.5 * size ** 2, size - 0.5)", "size - 0.5"),
            ("functional", "smooth_l1_loss", "l1_loss"),
        ],
        "all parabola": [("functional", "smooth_l1_loss", "mse_loss"), ("loop", "if abs(d) < 1:", "if True:")],
        "branches exchanged": [("where", "size < 1", "size > 1"), ("loop", "abs(d) < 1", "abs(d) > 1")],
        "sign kept": [
            ("where", "differences.abs()", "differences"),
            ("loop", "abs(d)", "d"),
            ("loop", "abs(d) - 0.5", "d - 0.5"),
        ],
        "border elsewhere": [("where", "size < 1", "size < 0.5"), ("loop", "abs(d) < 1", "abs(d) <= 1 / 2")],
        "mean": [
            ("where", "cost.sum()", "cost.mean()"),
            ("functional", ', reduction="sum"', ""),
            ("clamped", ").sum())", ").sum() / 4)"),
            ("where", "cost.sum()", "cost.sum(dim=-1).mean()"),
        ],
        "not added up": [
            ("where", "cost.sum()", "cost"),
            ("functional", '"sum"', '"none"'),
            ("where", "cost.sum()", "cost.sum(dim=-1)"),
        ],
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
        "one added": [("numpy", "1e-8", "1"), ("plain", "count = sum(positives)", "count = 1 + sum(positives)")],
        "no positives": [
            ("torch", ".clamp(min=1)", ""),
            ("plain", "    if count == 0:\n        return 0.0\n", ""),
            ("numpy", " + 1e-8", ""),
        ],
        "an image without": [("plain", "if count == 0", "if 0 in positives")],
        "one for each empty image": [("torch", "positives.sum().clamp(min=1)", "positives.clamp(min=1).sum()")],
    },
    "hard_negatives": {
        "positives compete": [
            ("twice", "    loss = loss.masked_fill(positives, -1.0)\n", "", " & ~positives", ""),
            ("twice", "    loss = loss.masked_fill(positives, -1.0)\n", ""),
            ("topk", ".masked_fill(positives[b], -torch.inf)", ""),
            ("lists", " if not own[p]", ""),
        ],
        "positives fill up": [
            ("twice", " & ~positives", ""),
            ("topk", "int((~positives[b]).sum())", "loss.shape[1]"),
        ],
        "smallest": [
            ("twice", "descending=True", "descending=False"),
            ("twice", "-1.0", "torch.inf", "descending=True", "descending=False"),
            ("topk", "own.topk(count)", "own.topk(count, largest=False)"),
            ("numpy", "-row", "row"),
            ("lists", "(-cost, p)", "(cost, p)"),
        ],
        "sorted once": [
            ("twice", "order.sort(dim=1).indices", "order"),
            ("twice", "order.sort(dim=1).indices", "order", " & ~positives", ""),
        ],
        "all negatives": [
            ("twice", "(place < count) & ~positives", "~positives"),
            ("numpy", "[: ratio * own.sum()]", ""),
        ],
        "same for all": [
            ("twice", "ratio * positives.sum(dim=1, keepdim=True)", "ratio"),
            ("lists", "ratio * sum(own)", "ratio"),
        ],
        "ratio fixed": [("twice", "ratio *", "3 *"), ("lists", "ratio *", "3 *")],
        "wrong axis": [
            ("twice", "sort(dim=1, descending", "sort(dim=0, descending", "order.sort(dim=1)", "order.sort(dim=0)")
        ],
        "count of the batch": [
            ("twice", "sum(dim=1, keepdim=True)", "sum()"),
            ("topk", "ratio * int(positives[b].sum())", "ratio * int(positives.sum())"),
        ],
        "whole batch": [
            ("twice", "-1.0)", "-1.0).view(1, -1)", "sum(dim=1, keepdim=True)", "sum()",
             "(place < count)", "(place < count).view_as(positives)"),
        ],
        "at least one": [
            ("twice", "keepdim=True)", "keepdim=True).clamp(min=1)"),
            ("topk", "min(ratio * int(positives[b].sum()),", "min(max(1, ratio * int(positives[b].sum())),"),
        ],
        "one too many": [("twice", "place < count", "place <= count"), ("lists", "* sum(own)", "* sum(own) + 1")],
        "positives returned": [
            ("twice", "& ~positives", "| positives"),
            ("topk", "return mask", "return mask | positives"),
        ],
        "no mask": [
            ("twice", "return (place < count) & ~positives", "return order[:, : int(count[0])]"),
            ("lists", "[p in chosen for p in range(len(costs))]", "[p for _, p in places[: ratio * sum(own)]]"),
        ],
    },
}  # fmt: skip
