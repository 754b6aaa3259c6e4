"""Answers to the exercises of chapter 1, right and wrong: boxes of VOC and IoU."""

VOC_BOX = {
    "numpy": """
        def voc_box(xmin, ymin, xmax, ymax, width, height):
            corners = np.array([xmin, ymin, xmax, ymax], dtype=np.float32)
            corners[:2] -= 1
            return corners / np.array([width, height, width, height])
    """,
    "torch": """
        def voc_box(xmin, ymin, xmax, ymax, width, height):
            corners = torch.tensor([xmin, ymin, xmax, ymax]) - torch.tensor([1, 1, 0, 0])
            return corners / torch.tensor([width, height]).repeat(2)
    """,
    "list": """
        def voc_box(xmin, ymin, xmax, ymax, width, height):
            return [(xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height]
    """,
}

IOU = {
    "early": """
        def iou(a, b):
            left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
            if right <= left or bottom <= top:
                return 0.0
            inter = (right - left) * (bottom - top)
            return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
    """,
    "numpy": """
        def iou(a, b):
            a, b = np.asarray(a), np.asarray(b)
            low = np.maximum(a[:2], b[:2])
            high = np.minimum(a[2:], b[2:])
            side = np.clip(high - low, 0, None)
            inter = side.prod()
            union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
            return inter / max(union, 1e-9)
    """,
    "torch": """
        def iou(a, b):
            a, b = torch.tensor(a), torch.tensor(b)
            side = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
            inter = side[0] * side[1]
            area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
            return inter / (area(a) + area(b) - inter + 1e-7)
    """,
}

IOU_MATRIX = {
    "numpy": """
        def iou_matrix(a, b):
            a, b = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
            w = np.minimum.outer(a[:, 2], b[:, 2]) - np.maximum.outer(a[:, 0], b[:, 0])
            h = np.minimum.outer(a[:, 3], b[:, 3]) - np.maximum.outer(a[:, 1], b[:, 1])
            inter = w.clip(0) * h.clip(0)
            area = lambda boxes: (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            return inter / (np.add.outer(area(a), area(b)) - inter + 1e-9)
    """,
    "loops": """
        def iou_matrix(a, b):
            matrix = torch.zeros(len(a), len(b))
            for i in range(len(a)):
                for j in range(len(b)):
                    w = max(0, min(a[i][2], b[j][2]) - max(a[i][0], b[j][0]))
                    h = max(0, min(a[i][3], b[j][3]) - max(a[i][1], b[j][1]))
                    area_a = (a[i][2] - a[i][0]) * (a[i][3] - a[i][1])
                    area_b = (b[j][2] - b[j][0]) * (b[j][3] - b[j][1])
                    union = area_a + area_b - w * h
                    if union > 0:
                        matrix[i, j] = w * h / union
            return matrix
    """,
    "lists": """
        def iou_matrix(a, b):
            def one(p, q):
                w = max(0, min(p[2], q[2]) - max(p[0], q[0]))
                h = max(0, min(p[3], q[3]) - max(p[1], q[1]))
                union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - w * h
                return w * h / union if union else 0.0
            return [[one(p, q) for q in b.tolist()] for p in a.tolist()]
    """,
}

RIGHT = {"voc_box": VOC_BOX, "iou": IOU, "iou_matrix": IOU_MATRIX}

WRONG = {
    "voc_box": {
        "nothing subtracted": [
            ("plain", "(xmin - 1)", "xmin", "(ymin - 1)", "ymin"),
            ("numpy", "corners[:2] -= 1", "pass"),
            ("torch", " - torch.tensor([1, 1, 0, 0])", ""),
            ("list", "(ymin - 1)", "ymin"),
        ],
        "all moved": [
            ("plain", "xmax /", "(xmax - 1) /", "ymax /", "(ymax - 1) /"),
            ("numpy", "corners[:2] -= 1", "corners -= 1"),
            ("torch", "torch.tensor([1, 1, 0, 0])", "1"),
        ],
        "end moved": [
            ("plain", "xmax /", "(xmax + 1) /", "ymax /", "(ymax + 1) /"),
            ("numpy", "corners[:2] -= 1", "corners[2:] += 1"),
            ("torch", "[1, 1, 0, 0]", "[1, 1, -1, -1]"),
        ],
        "wrong end": [
            ("plain", "(xmin - 1)", "xmin", "(ymin - 1)", "ymin", "xmax /", "(xmax - 1) /", "ymax /", "(ymax - 1) /"),
            ("torch", "[1, 1, 0, 0]", "[0, 0, 1, 1]"),
        ],
        "size less one": [
            ("plain", "/ width", "/ (width - 1)", "/ height", "/ (height - 1)"),
            ("torch", "[1, 1, 0, 0]", "[1, 1, 1, 1]", "[width, height]", "[width - 1, height - 1]"),
        ],
        "size swapped": [
            ("plain", "/ width", "/ side", "/ height", "/ width", "/ side", "/ height"),
            ("numpy", "[width, height, width, height]", "[height, width, height, width]"),
            ("torch", "[width, height]", "[height, width]"),
        ],
        "one divisor": [
            ("plain", "/ height", "/ width"),
            ("numpy", "np.array([width, height, width, height])", "width"),
            ("torch", "[width, height]", "[height, height]"),
        ],
        "integer division": [
            ("plain", " / ", " // "),
            ("numpy", "dtype=np.float32", "dtype=int", " / np", " // np"),
            ("torch", "return corners", "return (corners", "repeat(2)", "repeat(2)).long()"),
        ],
        "precedence": [("plain", "(xmin - 1)", "xmin - 1", "(ymin - 1)", "ymin - 1")],
        "width and height": [
            ("plain", "x1, y1\n", "x1 - x0, y1 - y0\n"),
            ("list", "xmax / width, ymax / height", "(xmax - xmin + 1) / width, (ymax - ymin + 1) / height"),
        ],
        "centre and size": [
            ("plain", "return x0, y0, x1, y1", "return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0"),
        ],
        "other order": [
            ("plain", "return x0, y0, x1, y1", "return x0, x1, y0, y1"),
            ("list", "(xmin - 1) / width, (ymin - 1) / height", "(ymin - 1) / height, (xmin - 1) / width",
             "xmax / width, ymax / height", "ymax / height, xmax / width"),
        ],
        "pixels": [
            ("plain", " / width", "", " / height", ""),
            ("numpy", " / np.array([width, height, width, height])", ""),
        ],
    },
    "iou": {
        "no clamp": [
            ("plain", "max(0, min(ax1, bx1) - max(ax0, bx0))", "min(ax1, bx1) - max(ax0, bx0)",
             "max(0, min(ay1, by1) - max(ay0, by0))", "min(ay1, by1) - max(ay0, by0)"),
            ("numpy", "np.clip(high - low, 0, None)", "high - low"),
            ("torch", ".clamp(min=0)", ""),
        ],
        "product clamped": [
            ("plain", "w = max(0, min(ax1, bx1) - max(ax0, bx0))", "w = min(ax1, bx1) - max(ax0, bx0)",
             "h = max(0, min(ay1, by1) - max(ay0, by0))", "h = min(ay1, by1) - max(ay0, by0)",
             "w * h", "max(0, w * h)"),
            ("early", "right <= left or bottom <= top", "(right - left) * (bottom - top) <= 0"),
            ("torch", ".clamp(min=0)", "", "side[0] * side[1]", "(side[0] * side[1]).clamp(min=0)"),
        ],
        "one side clamped": [
            ("plain", "h = max(0, min(ay1, by1) - max(ay0, by0))", "h = min(ay1, by1) - max(ay0, by0)"),
            ("early", "right <= left or bottom <= top", "bottom <= top"),
        ],
        "one way": [
            ("early", "right <= left or bottom <= top", "a[2] <= b[0] or a[3] <= b[1] or a[0] == a[2]"),
            ("early", "right <= left or bottom <= top", "b[2] <= a[0] or b[3] <= a[1] or a[0] == a[2]"),
        ],
        "absolute value": [
            ("plain", "w = max(0, min(ax1, bx1) - max(ax0, bx0))", "w = abs(min(ax1, bx1) - max(ax0, bx0))",
             "h = max(0, min(ay1, by1) - max(ay0, by0))", "h = abs(min(ay1, by1) - max(ay0, by0))"),
            ("torch", ".clamp(min=0)", ".abs()"),
        ],
        "plus one": [
            ("plain", "ax1 - ax0", "ax1 - ax0 + 1", "ay1 - ay0", "ay1 - ay0 + 1",
             "bx1 - bx0", "bx1 - bx0 + 1", "by1 - by0", "by1 - by0 + 1"),
            ("early", "(right - left) * (bottom - top)", "(right - left + 1) * (bottom - top + 1)"),
            ("numpy", "high - low", "high - low + 1", "a[2:] - a[:2]", "a[2:] - a[:2] + 1",
             "b[2:] - b[:2]", "b[2:] - b[:2] + 1"),
        ],
        "integer division": [
            ("plain", "inter / union", "inter // union"),
            ("numpy", "inter / max", "inter // max"),
            ("torch", "return inter / (area(a) + area(b) - inter + 1e-7)",
             "return torch.div(inter, area(a) + area(b) - inter + 1e-7, rounding_mode='floor')\n"),
        ],
        "overlap counted twice": [
            ("plain", "area_b - inter", "area_b"),
            ("numpy", "b[:2]) - inter", "b[:2])"),
            ("torch", " - inter", ""),
        ],
        "overlap taken off twice": [
            ("plain", "area_b - inter", "area_b - 2 * inter"),
        ],
        "rounded": [
            ("plain", "inter / union", "round(inter / union, 2)"),
            ("numpy", "return inter / max(union, 1e-9)", "return np.round(inter / max(union, 1e-9), 3)"),
        ],
        "whole coordinates": [
            ("plain", "ax1, ay1 = a\n", "ax1, ay1 = map(int, a)\n", "bx1, by1 = b\n", "bx1, by1 = map(int, b)\n"),
            ("torch", "torch.tensor(a), torch.tensor(b)", "torch.tensor(a).long(), torch.tensor(b).long()"),
        ],
        "one area": [
            ("plain", "union = area_a + area_b - inter", "union = min(area_a, area_b)"),
            ("plain", "union = area_a + area_b - inter", "union = area_a"),
            ("torch", "area(a) + area(b) - inter", "torch.max(area(a), area(b))"),
        ],
        "same area twice": [("plain", "area_b - inter", "area_a - inter"), ("torch", "area(a)", "area(b)")],
        "same side twice": [
            ("plain", "min(ay1, by1) - max(ay0, by0)", "min(ax1, bx1) - max(ax0, bx0)"),
            ("numpy", "side.prod()", "side[1] ** 2"),
        ],
        "not divided": [("plain", "return inter / union", "return inter"), ("numpy", " / max(union, 1e-9)", "")],
        "min and max confused": [
            ("plain", "max(0, min(ax1, bx1) - max(ax0, bx0))", "max(0, max(ax1, bx1) - min(ax0, bx0))",
             "max(0, min(ay1, by1) - max(ay0, by0))", "max(0, max(ay1, by1) - min(ay0, by0))"),
            ("numpy", "np.maximum", "np.minimum"),
            ("early", "min(a", "max(a"),
        ],
        "read as width and height": [
            ("plain", "w = max(0", "ax1, ay1, bx1, by1 = ax0 + ax1, ay0 + ay1, bx0 + bx1, by0 + by1\n    w = max(0"),
            ("numpy", "a, b = np.asarray(a), np.asarray(b)",
             "a, b = (np.array([x, y, x + w, y + h]) for x, y, w, h in (a, b))"),
        ],
        "read as centre and size": [
            ("torch", "a, b = torch.tensor(a), torch.tensor(b)",
             "a, b = (torchvision.ops.box_convert(torch.tensor(one), 'cxcywh', 'xyxy') for one in (a, b))"),
        ],
        "read in another order": [
            ("plain", "ax0, ay0, ax1, ay1 =", "ax0, ax1, ay0, ay1 =", "bx0, by0, bx1, by1 =", "bx0, bx1, by0, by1 ="),
        ],
        "zero by zero": [
            ("plain", "if union == 0:\n        return 0.0", ""),
            ("numpy", "max(union, 1e-9)", "union"),
            ("torch", " + 1e-7", ""),
            ("plain", "        return 0.0\n", "        return 1.0\n"),
        ],
    },
    "iou_matrix": {
        "transposed": [
            ("plain", "a[:, None, :2], b[None, :, :2]", "a[None, :, :2], b[:, None, :2]",
             "a[:, None, 2:], b[None, :, 2:]", "a[None, :, 2:], b[:, None, 2:]",
             "area_a[:, None] + area_b[None, :]", "area_a[None, :] + area_b[:, None]"),
            ("numpy", "return inter", "return inter.T", "- inter + 1e-9)", "- inter + 1e-9).T"),
            ("loops", "matrix[i, j]", "matrix[j, i]", "torch.zeros(len(a), len(b))", "torch.zeros(len(b), len(a))"),
            ("lists", "for q in b.tolist()] for p in a.tolist()]", "for p in a.tolist()] for q in b.tolist()]"),
        ],
        "one to one": [
            ("plain", "a[:, None, :2], b[None, :, :2]", "a[:, :2], b[:, :2]",
             "a[:, None, 2:], b[None, :, 2:]", "a[:, 2:], b[:, 2:]",
             "area_a[:, None] + area_b[None, :]", "area_a + area_b"),
            ("lists", "[[one(p, q) for q in b.tolist()] for p in a.tolist()]",
             "[one(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]"),
        ],
        "square only": [
            ("loops", "for j in range(len(b))", "for j in range(len(a))"),
            ("loops", "torch.zeros(len(a), len(b))", "torch.zeros(len(a), len(a))"),
            ("lists", "return [[one(p, q) for q in b.tolist()] for p in a.tolist()]",
             "n = len(a)\n    return torch.tensor([one(p, q) for p in a.tolist() for q in b.tolist()]).view(n, n)"),
        ],
        "areas crossed": [
            ("plain", "area_a[:, None] + area_b[None, :]", "area_a + area_b"),
            ("numpy", "np.add.outer(area(a), area(b))", "(area(a) + area(b))"),
            ("plain", "area_a[:, None] + area_b[None, :]", "area_a[:, None] + area_b[:, None]"),
        ],
        "no boxes": [
            ("lists", "return [[one(p, q) for q in b.tolist()] for p in a.tolist()]",
             "return torch.stack([torch.stack([torch.tensor(one(p, q)) for q in b]) for p in a])"),
            ("lists", "return [[one(p, q) for q in b.tolist()] for p in a.tolist()]",
             "return torch.tensor([[one(p, q) for q in b.tolist()] for p in a.tolist()])"),
            ("numpy", "return inter", "assert inter.max() >= 0\n    return inter"),
        ],
        "no clamp": [("plain", ".clamp(min=0)", ""), ("numpy", "w.clip(0) * h.clip(0)", "w * h")],
        "product clamped": [
            ("plain", ".clamp(min=0)", "", "side[..., 0] * side[..., 1]", "(side[..., 0] * side[..., 1]).clamp(min=0)"),
        ],
        "one side clamped": [("numpy", "w.clip(0) * h.clip(0)", "w.clip(0) * h"), ("numpy", "h.clip(0)", "h")],
        "one way": [
            ("lists", "w = max(0, min(p[2], q[2]) - max(p[0], q[0]))",
             "if p[2] <= q[0] or p[3] <= q[1]:\n            return 0.0\n"
             "        w = min(p[2], q[2]) - max(p[0], q[0])",
             "h = max(0, min(p[3], q[3]) - max(p[1], q[1]))", "h = min(p[3], q[3]) - max(p[1], q[1])"),
        ],
        "absolute value": [("plain", ".clamp(min=0)", ".abs()")],
        "plus one": [
            ("plain", "(high - low)", "(high - low + 1)", "(a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])",
             "(a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)", "(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])",
             "(b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)"),
        ],
        "integer division": [("plain", "inter / union", "inter // union"), ("loops", "h / union", "h // union")],
        "overlap counted twice": [("plain", "- inter\n", "\n"), ("numpy", " - inter", "")],
        "overlap taken off twice": [("numpy", " - inter", " - 2 * inter")],
        "rounded": [("lists", "w * h / union if", "round(w * h / union, 2) if")],
        "whole coordinates": [("plain", "low =", "a, b = a.long(), b.long()\n    low =")],
        "one area": [("plain", "area_a[:, None] + area_b[None, :] - inter", "area_a[:, None]")],
        "same area twice": [("lists", "(q[2] - q[0]) * (q[3] - q[1])", "(p[2] - p[0]) * (p[3] - p[1])")],
        "same side twice": [("plain", "side[..., 1]", "side[..., 0]")],
        "not divided": [("plain", "return torch.where(union > 0, inter / union, 0)", "return inter")],
        "min and max confused": [("plain", "torch.max(", "torch.min("), ("plain", "torch.min(", "torch.max(")],
        "read as width and height": [
            ("plain", "low =", "a, b = (torch.cat([c[:, :2], c[:, :2] + c[:, 2:]], 1) for c in (a, b))\n    low ="),
        ],
        "read as centre and size": [
            ("plain", "low =", "a, b = (torchvision.ops.box_convert(c, 'cxcywh', 'xyxy') for c in (a, b))\n    low ="),
        ],
        "read in another order": [("plain", "low =", "a, b = a[:, [0, 2, 1, 3]], b[:, [0, 2, 1, 3]]\n    low =")],
        "zero by zero": [
            ("plain", "torch.where(union > 0, inter / union, 0)", "inter / union"),
            ("numpy", " + 1e-9", ""),
            ("lists", " if union else 0.0", ""),
        ],
    },
}  # fmt: skip
