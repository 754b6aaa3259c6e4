"""Answers to the exercises of chapter 6, right and wrong: encoding and matching."""

import torch

ENCODE_BOX = {
    "torch": """
        def encode_box(box, prior_cxcywh):
            low, high = torch.tensor(box).chunk(2)
            middle, side = torch.tensor(prior_cxcywh).chunk(2)
            centre = (low + high) / 2
            shift = (centre - middle) / side
            stretch = ((high - low) / side).log()
            return torch.cat([shift / 0.1, stretch / 0.2])
    """,
}

GREEDY = {
    "torch": """
        def greedy(iou):
            free = iou.clone()
            found = [-1] * len(iou)
            while free.numel() and free.max() > 0:
                one, prior = divmod(free.argmax().item(), iou.shape[1])
                found[one] = prior
                free[one] = 0
                free[:, prior] = 0
            return found
    """,
    "sorted": """
        def greedy(iou):
            pairs = [(-value, g, p) for g, row in enumerate(iou.tolist()) for p, value in enumerate(row)]
            found, taken = {}, set()
            for value, g, p in sorted(pairs):
                if value < 0 and g not in found and p not in taken:
                    found[g] = p
                    taken.add(p)
            return [found.get(g, -1) for g in range(len(iou))]
    """,
    "order": """
        def greedy(iou):
            free, found = iou.clone(), [-1] * len(iou)
            waiting = list(range(len(iou)))
            while waiting:
                waiting.sort(key=lambda g: -free[g].max())
                g = waiting.pop(0)
                if free[g].max() > 0:
                    found[g] = free[g].argmax().item()
                    free[:, found[g]] = 0
            return found
    """,
}

OWNERS = {
    "greedy": """
        def owners(iou, threshold):
            overlap, owner = iou.max(dim=0)
            owner = owner.masked_fill(overlap < threshold, -1)
            for number, prior in enumerate(greedy(iou)):
                if prior >= 0:
                    owner[prior] = number
            return owner
    """,
    "rounds": """
        def owners(iou, threshold):
            owner = [-1] * iou.shape[1]
            for p in range(iou.shape[1]):
                column = iou[:, p].tolist()
                if max(column) >= threshold:
                    owner[p] = column.index(max(column))
            free = iou.clone()
            while free.max() > 0:
                g, p = divmod(free.argmax().item(), iou.shape[1])
                owner[p] = g
                free[g] = 0
                free[:, p] = 0
            return owner
    """,
    "filled": """
        def owners(iou, threshold):
            count = iou.shape[1]
            owner = torch.full((count,), -1)
            for g, p in enumerate(greedy(iou)):
                if p != -1:
                    owner[p] = g
            for p in range(count):
                if owner[p] == -1 and iou[:, p].max() >= threshold:
                    owner[p] = iou[:, p].argmax()
            return owner
    """,
}

RIGHT = {"encode_box": ENCODE_BOX, "greedy": GREEDY, "owners": OWNERS}

# Some machines sort stably without being asked to; there the answer is right.
UNSTABLE = [("plain", ", stable=True", "")] if torch.ones(60).argsort(descending=True).diff().min() < 0 else []

WRONG = {
    "encode_box": {
        "no variances": [
            ("plain", " / 0.1", "", " / 0.2", ""),
            ("torch", "shift / 0.1, stretch / 0.2", "shift, stretch"),
        ],
        "multiplied by variances": [("plain", "/ 0.1", "* 0.1", "/ 0.2", "* 0.2")],
        "variances exchanged": [("torch", "shift / 0.1, stretch / 0.2", "shift / 0.2, stretch / 0.1")],
        "one variance": [("plain", "0.2", "0.1"), ("torch", "0.1", "0.2")],
        "no logarithm": [("plain", "math.log", ""), ("torch", ".log()", " - 1")],
        "variance in the logarithm": [
            ("plain", "/ w) / 0.2", "/ w / 0.2)", "/ h) / 0.2", "/ h / 0.2)"),
            ("torch", ").log()", " / 0.2).log()", "stretch / 0.2", "stretch"),
        ],
        "other base": [("plain", "math.log", "math.log2"), ("torch", ".log()", ".log10()")],
        "width for height": [
            ("plain", "cx, cy, w, h = prior", "cx, cy, h, w = prior"),
            ("plain", "/ h / 0.1", "/ w / 0.1"),
            ("plain", "return dx, dy, dw, dh", "return dx, dy, dh, dw"),
            ("plain", "(xmax - xmin) / w", "(ymax - ymin) / w", "(ymax - ymin) / h", "(xmax - xmin) / h"),
        ],
        "x for y": [
            ("plain", "return dx, dy, dw, dh", "return dy, dx, dh, dw"),
            ("plain", "return dx, dy, dw, dh", "return dy, dx, dw, dh"),
        ],
        "one side twice": [("plain", "return dx, dy, dw, dh", "return dx, dy, dw, dw")],
        "square root": [
            ("plain", "/ 0.1", "/ math.sqrt(0.1)", "/ 0.2", "/ math.sqrt(0.2)"),
            ("torch", "shift / 0.1, stretch / 0.2", "shift / 0.1**0.5, stretch / 0.2**0.5"),
        ],
        "shift not divided": [
            ("plain", " / w / 0.1", " / 0.1", " / h / 0.1", " / 0.1"),
            ("torch", "(centre - middle) / side", "centre - middle"),
        ],
        "by the box's size": [("torch", "(centre - middle) / side", "(centre - middle) / (high - low)")],
        "turned round": [
            ("torch", "centre - middle", "middle - centre", "(high - low) / side", "side / (high - low)"),
            ("torch", "centre - middle", "middle - centre"),
            ("torch", "(high - low) / side", "side / (high - low)"),
        ],
        "corner for centre": [
            ("plain", "(xmin + xmax) / 2", "xmin", "(ymin + ymax) / 2", "ymin"),
            ("torch", "(low + high) / 2", "low"),
        ],
        "box read as centre and size": [("torch", "(low + high) / 2", "low", "(high - low)", "high")],
    },
    "greedy": {
        "column kept": [("torch", "free[:, prior] = 0", "pass"), ("sorted", "taken.add(p)", "pass")],
        "row kept": [
            (
                "torch",
                "free[one] = 0",
                "pass",
                "while free.numel() and free.max() > 0:",
                "for _ in iou:\n        if free.max() <= 0:\n            break",
            ),
            ("torch", "free[one] = 0", "pass"),
        ],
        "in order of objects": [("order", "waiting.sort(key=lambda g: -free[g].max())", "pass")],
        "sorted once": [("order", "-free[g].max()", "-iou[g].max()")],
        "threshold": [("torch", "free.max() > 0", "free.max() >= 0.5"), ("sorted", "value < 0", "value <= -0.5")],
        "no overlap": [("sorted", "value < 0 and ", "")],
        "loser goes without": [
            ("order", "waiting.sort(key=lambda g: -free[g].max())", "pass", "free[g].max() > 0",
             "iou[g].argmax().item() not in found"),
            ("torch", "    while free.numel() and free.max() > 0:",
             "    winner = {p: g for g, p in enumerate(iou.argmax(dim=1).tolist())}\n"
             "    for p, g in winner.items():\n"
             "        found[g] = p\n"
             "    while False:"),
            ("torch", "    while free.numel() and free.max() > 0:",
             "    for p in range(iou.shape[1]):\n"
             "        fans = [(iou[g, p].item(), g) for g in range(len(iou)) if iou[g].argmax() == p]\n"
             "        if fans and max(fans)[0] > 0:\n"
             "            found[max(fans)[1]] = p\n"
             "    while False:"),
        ],
        "loser's second choice": [
            ("torch", "    while free.numel() and free.max() > 0:",
             "    wish = iou.argmax(dim=1).tolist()\n"
             "    for g, p in enumerate(wish):\n"
             "        beaten = any(q == p and iou[other, p] > iou[g, p] for other, q in enumerate(wish))\n"
             "        found[g] = iou[g].argsort(descending=True)[1].item() if beaten else p\n"
             "    while False:"),
            ("torch", "    while free.numel() and free.max() > 0:",
             "    found = iou.argmax(dim=1).tolist()\n"
             "    for g in range(len(iou)):\n"
             "        p = found[g]\n"
             "        if any(found[other] == p and iou[other, p] > iou[g, p] for other in range(len(iou))):\n"
             "            found[g] = iou[g].argsort(descending=True)[1].item()\n"
             "    while False:"),
        ],
        "best total": [
            (
                "torch",
                "    while free.numel() and free.max() > 0:",
                "    from itertools import permutations\n"
                "    best = 0\n"
                "    for some in permutations([*range(iou.shape[1]), *[-1] * len(iou)], len(iou)):\n"
                "        total = sum(iou[g, p].item() for g, p in enumerate(some) if p >= 0)\n"
                "        if total > best:\n"
                "            best = total\n"
                "            found = [p if p >= 0 and iou[g, p] > 0 else -1 for g, p in enumerate(some)]\n"
                "    while False:",
            )
        ],
        "ties": [
            ("sorted", "(-value, g, p)", "(-value, g, -p)", "sorted(pairs):", "sorted(pairs):\n        p = -p"),
            ("sorted", "(-value, g, p)", "(-value, -g, p)", "sorted(pairs):", "sorted(pairs):\n        g = -g"),
            ("sorted", "(-value, g, p)", "(value, g, p)", "sorted(pairs):",
             "sorted(pairs, reverse=True):\n        value = -value"),
            *UNSTABLE,
        ],
        "smallest first": [
            ("plain", "argsort(descending=True, stable=True)", "argsort()"),
            ("sorted", "(-value, g, p)", "(value, g, p)", "value < 0", "value > 0"),
        ],
        "walk ends": [
            ("plain", "if iou[one, prior] == 0:", "if iou[one, prior] == 0 or prior in taken:"),
            ("sorted", "    for value, g, p in sorted(pairs):",
             "    for value, g, p in sorted(pairs):\n        if g in found:\n            break"),
            ("plain", "if iou[one, prior] == 0:", "if iou[one, prior] == 0 or found[one] >= 0 or prior in taken:"),
        ],
        "place in the list": [
            ("plain", "one, prior = divmod(place, iou.shape[1])", "prior, one = divmod(place, len(iou))"),
            ("plain", "divmod(place, iou.shape[1])", "divmod(place, len(iou))"),
            ("torch", "iou.shape[1]", "len(iou)", "while free.numel() and free.max() > 0:",
             "for _ in iou:\n        if free.max() <= 0:\n            break"),
        ],
        "no objects": [("torch", "free.numel() and ", "")],
    },
    "owners": {
        "no prior": [
            ("greedy", "        if prior >= 0:\n            owner[prior] = number", "        owner[prior] = number"),
            ("filled", "if p != -1", "if True"),
        ],
        "no pair left": [
            ("plain", "while free.max() > 0:", "for _ in iou:"),
            ("rounds", "while free.max() > 0:", "for _ in range(len(iou)):"),
            ("plain", "while free.max() > 0:", "for _ in iou:", "free[number] = 0", "free[number] = -1",
             "free[:, prior] = 0", "free[:, prior] = -1"),
        ],
        "place in the matrix": [
            ("plain", "iou.shape[1]", "len(iou)", "while free.max() > 0:", "for _ in iou:"),
            ("plain", "iou.shape[1]", "len(iou)", "while free.max() > 0:",
             "for _ in iou:\n        if free.max() <= 0:\n            break"),
        ],
        "first prior": [("greedy", "prior >= 0", "prior > 0")],
        "threshold last": [("filled", "owner[p] == -1 and ", "")],
        "pairs where needed": [
            ("greedy", "if prior >= 0:", "if prior >= 0 and not (owner == number).any():"),
        ],
        "reaches the threshold": [
            ("greedy", "if prior >= 0:", "if prior >= 0 and iou[number].max() < threshold:"),
        ],
        "pairs only": [("rounds", "max(column) >= threshold", "False"), ("filled", "range(count)", "[]")],
        "threshold only": [("rounds", "free.max() > 0", "False"), ("greedy", "if prior >= 0", "if False")],
        "favourites": [
            ("greedy", "greedy(iou)", "iou.argmax(dim=1).tolist()"),
            ("filled", "for g, p in enumerate(greedy(iou))", "for g, p in reversed([*enumerate(iou.argmax(dim=1))])"),
        ],
        "threshold fixed": [("plain", "overlap < threshold", "overlap < 0.5"), ("rounds", ">= threshold", ">= 0.5")],
        "threshold not reached": [
            ("plain", "overlap < threshold", "overlap <= threshold"),
            ("filled", ">= threshold", "> threshold"),
        ],
        "some object": [
            ("rounds", "column.index(max(column))", "[value >= threshold for value in column].index(True)"),
            ("filled", "iou[:, p].argmax()", "(iou[:, p] >= threshold).nonzero()[-1]"),
        ],
        "ties": [
            (
                "rounds",
                "column.index(max(column))",
                "max(range(len(column)), key=lambda g: (column[g], g))",
            )
        ],
        "no threshold": [
            ("plain", "overlap < threshold", "overlap < 0"),
            ("plain", "overlap < threshold", "overlap < 0", "free.max() > 0", "False"),
            ("rounds", "max(column) >= threshold", "max(column) > 0"),
        ],
        "labels": [("plain", "return owner", "return owner + 1")],
        "background is 0": [("rounds", "[-1] * iou", "[0] * iou"), ("plain", "] = -1", "] = 0")],
        "objects for priors": [("filled", "return owner", "return greedy(iou)")],
    },
}  # fmt: skip
