"""Readers' answers to the exercises of chapter 2, right and wrong: boxes in a picture mirrored, cut or turned."""

MIRROR_BOXES = {
    "clone": """
        def mirror_boxes(boxes):
            mirrored = boxes.clone()
            mirrored[:, 0] = 1 - boxes[:, 2]
            mirrored[:, 2] = 1 - boxes[:, 0]
            return mirrored
    """,
    "numpy": """
        def mirror_boxes(boxes):
            mirrored = boxes.numpy()[:, [2, 1, 0, 3]]
            mirrored[:, ::2] = 1 - mirrored[:, ::2]
            return mirrored
    """,
    "lists": """
        def mirror_boxes(boxes):
            return [(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in boxes.tolist()]
    """,
}

CROP_BOXES = {
    "loop": """
        def crop_boxes(boxes, window, min_visibility):
            wx0, wy0, wx1, wy1 = window
            out, kept = [], []
            for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
                cx0, cy0 = max(x0, wx0), max(y0, wy0)
                cx1, cy1 = min(x1, wx1), min(y1, wy1)
                if cx1 <= cx0 or cy1 <= cy0:
                    continue
                share = (cx1 - cx0) * (cy1 - cy0) / ((x1 - x0) * (y1 - y0))
                if share >= min_visibility:
                    kept.append(i)
                    w, h = wx1 - wx0, wy1 - wy0
                    out.append([(cx0 - wx0) / w, (cy0 - wy0) / h, (cx1 - wx0) / w, (cy1 - wy0) / h])
            return out, kept
    """,
    "clamp": """
        def crop_boxes(boxes, window, min_visibility):
            window = torch.tensor(window)
            corner, size = window[:2].repeat(2), (window[2:] - window[:2]).repeat(2)
            new = (boxes - corner) / size
            before = (new[:, 2] - new[:, 0]) * (new[:, 3] - new[:, 1])
            new = new.clamp(0, 1)
            after = (new[:, 2] - new[:, 0]) * (new[:, 3] - new[:, 1])
            keep = (after > 0) & (after / before >= min_visibility)
            return new[keep], keep.nonzero().flatten()
    """,
    "numpy": """
        def crop_boxes(boxes, window, min_visibility):
            boxes, window = boxes.numpy().astype(float), np.array(window)
            clipped = np.clip(boxes, np.tile(window[:2], 2), np.tile(window[2:], 2))
            area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
            share = area(clipped) / area(boxes)
            kept = np.flatnonzero((share > 0) & (share >= min_visibility))
            return (clipped[kept] - np.tile(window[:2], 2)) / np.tile(window[2:] - window[:2], 2), kept
    """,
}

ROTATED_BOX = {
    "numpy": """
        def rotated_box(box, degrees, width, height):
            x0, y0, x1, y1 = box
            angle = np.deg2rad(degrees)
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            centre = np.array([width, height]) / 2
            points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
            points = (points - centre) @ turn.T + centre
            return np.concatenate([points.min(axis=0), points.max(axis=0)])
    """,
    "torch": """
        def rotated_box(box, degrees, width, height):
            angle = torch.deg2rad(torch.tensor(float(degrees)))
            cos, sin = angle.cos(), angle.sin()
            x = torch.tensor([box[0], box[2], box[2], box[0]]) - width / 2
            y = torch.tensor([box[1], box[1], box[3], box[3]]) - height / 2
            x, y = x * cos + y * sin + width / 2, y * cos - x * sin + height / 2
            return x.min(), y.min(), x.max(), y.max()
    """,
    "complex": """
        def rotated_box(box, degrees, width, height):
            x0, y0, x1, y1 = box
            centre = complex(width, height) / 2
            turn = complex(math.cos(math.radians(-degrees)), math.sin(math.radians(-degrees)))
            points = [centre + (complex(x, y) - centre) * turn for x in (x0, x1) for y in (y0, y1)]
            x, y = [p.real for p in points], [p.imag for p in points]
            return [min(x), min(y), max(x), max(y)]
    """,
}

CROP_ACCEPTED = {
    "loop": """
        def crop_accepted(boxes, window, min_iou):
            wx0, wy0, wx1, wy1 = window
            for x0, y0, x1, y1 in boxes.tolist():
                w, h = max(0, min(x1, wx1) - max(x0, wx0)), max(0, min(y1, wy1) - max(y0, wy0))
                object_area, window_area = (x1 - x0) * (y1 - y0), (wx1 - wx0) * (wy1 - wy0)
                iou = w * h / (object_area + window_area - w * h)
                if iou >= min_iou:
                    return True
            return False
    """,
    "numpy": """
        def crop_accepted(boxes, window, min_iou):
            b, w = boxes.numpy(), np.array(window)
            side = (np.minimum(b[:, 2:], w[2:]) - np.maximum(b[:, :2], w[:2])).clip(0)
            inter = side.prod(axis=1)
            area, window_area = (b[:, 2:] - b[:, :2]).prod(axis=1), (w[2:] - w[:2]).prod()
            iou = inter / (area + window_area - inter)
            return np.any(iou >= min_iou)
    """,
}

RIGHT = {
    "mirror_boxes": MIRROR_BOXES,
    "crop_boxes": CROP_BOXES,
    "rotated_box": ROTATED_BOX,
    "crop_accepted": CROP_ACCEPTED,
}

WRONG = {
    "mirror_boxes": {
        "not swapped": [
            ("plain", "1 - x1, y0, 1 - x0, y1", "1 - x0, y0, 1 - x1, y1"),
            ("numpy", "[:, [2, 1, 0, 3]]", ".copy()"),
        ],
        "only swapped": [("numpy", "1 - mirrored[:, ::2]", "mirrored[:, ::2]"), ("plain", "1 - ", "")],
        "top to bottom": [
            ("plain", "1 - x1, y0, 1 - x0, y1", "x0, 1 - y1, x1, 1 - y0"),
            ("clone", "mirrored[:, 0] = 1 - boxes[:, 2]", "mirrored[:, 1] = 1 - boxes[:, 3]",
             "mirrored[:, 2] = 1 - boxes[:, 0]", "mirrored[:, 3] = 1 - boxes[:, 1]"),
        ],
        "both ways": [
            ("plain", "1 - x1, y0, 1 - x0, y1", "1 - x1, 1 - y1, 1 - x0, 1 - y0"),
            ("clone", "return mirrored", "return 1 - boxes"),
        ],
        "unchanged": [("clone", "return mirrored", "return boxes"), ("lists", "(1 - x1, y0, 1 - x0", "(x0, y0, x1")],
        "overwritten": [
            ("clone", "1 - boxes", "1 - mirrored"),
            ("clone", "mirrored[:, 0] = 1 - boxes[:, 2]", "mirrored[:, 2] = 1 - mirrored[:, 0]",
             "mirrored[:, 2] = 1 - boxes[:, 0]", "mirrored[:, 0] = 1 - mirrored[:, 2]"),
        ],
        "about the edge": [("plain", "1 - x", "-x"), ("numpy", "1 - mirrored", "-mirrored")],
        "only xmin": [
            ("clone", "mirrored[:, 0] = 1 - boxes[:, 2]", "mirrored[:, 0] = 1 - boxes[:, 0]",
             "mirrored[:, 2] = 1 - boxes[:, 0]", "pass"),
        ],
        "read as width and height": [("lists", "(1 - x1, y0, 1 - x0, y1)", "(1 - x0 - x1, y0, x1, y1)")],
        "no boxes": [
            ("lists", "[(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in boxes.tolist()]",
             "torch.stack([torch.stack([1 - b[2], b[1], 1 - b[0], b[3]]) for b in boxes])"),
            ("lists", "[(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in boxes.tolist()]",
             "torch.tensor([(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in boxes.tolist()])"),
        ],
    },
    "crop_boxes": {
        "not shifted": [
            ("plain", " - window[:2].repeat(2)", ""),
            ("loop", "(cx0 - wx0)", "cx0", "(cy0 - wy0)", "cy0", "(cx1 - wx0)", "cx1", "(cy1 - wy0)", "cy1"),
            ("numpy", "(clipped[kept] - np.tile(window[:2], 2))", "clipped[kept]"),
        ],
        "not scaled": [
            ("plain", " / size.repeat(2)", ""),
            ("loop", " / w", "", " / h", ""),
            ("numpy", " / np.tile(window[2:] - window[:2], 2), kept", ", kept"),
        ],
        "fractions of the image": [
            ("plain", "scaled[kept]", "clipped[kept]"),
            ("loop", "(cx0 - wx0) / w, (cy0 - wy0) / h, (cx1 - wx0) / w, (cy1 - wy0) / h", "cx0, cy0, cx1, cy1"),
            ("clamp", "new[keep]", "boxes[keep]"),
        ],
        "not clipped": [
            ("plain", "torch.cat([low, high], dim=1)", "boxes"),
            ("loop", "(cx0 - wx0) / w, (cy0 - wy0) / h, (cx1 - wx0) / w, (cy1 - wy0) / h",
             "(x0 - wx0) / w, (y0 - wy0) / h, (x1 - wx0) / w, (y1 - wy0) / h"),
            ("numpy", "(clipped[kept]", "(boxes[kept]"),
        ],
        "outside kept": [
            ("clamp", "(after > 0) & ", ""),
            ("numpy", "(share > 0) & ", ""),
            ("numpy", "(share > 0) & (share >= min_visibility)", "share > -1"),
        ],
        "two negative sides": [
            ("loop", "cx1 <= cx0 or cy1 <= cy0", "(cx1 - cx0) * (cy1 - cy0) <= 0"),
            ("plain", "(high - low).clamp(min=0)", "(high - low)"),
        ],
        "more than asked": [
            ("loop", "share >= min_visibility", "share > min_visibility"),
            ("plain", "inside >= min_visibility", "inside > min_visibility"),
            ("numpy", "share >= min_visibility", "share > min_visibility"),
        ],
        "measured by the window": [
            ("plain", "area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)", "area = (window[2:] - window[:2]).prod()"),
            ("loop", "((x1 - x0) * (y1 - y0))", "((wx1 - wx0) * (wy1 - wy0))"),
            ("clamp", "after / before", "after"),
        ],
        "IoU": [
            ("plain", "min_visibility * area)", "min_visibility * (area + (window[2:] - window[:2]).prod() - inside))"),
            ("clamp", "after / before", "after / (before + 1 - after)"),
        ],
        "measured after clipping": [
            ("clamp", "after / before >= min_visibility", "after / after >= min_visibility"),
            ("numpy", "area(clipped) / area(boxes)", "area(clipped) / (area(clipped) + 1e-12)"),
            ("loop", "if share >= min_visibility", "if share > 0"),
        ],
        "units mixed": [
            ("clamp", "after / before", "after / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))"),
            ("loop", "share = ", "share = 1 / ((wx1 - wx0) * (wy1 - wy0)) * "),
        ],
        "whole objects only": [
            ("clamp", "(after > 0) & (after / before >= min_visibility)", "after == before"),
            ("loop", "if share >= min_visibility", "if x0 >= wx0 and y0 >= wy0 and x1 <= wx1 and y1 <= wy1"),
        ],
        "in a column": [
            ("clamp", ".flatten()", ""),
            ("clamp", "keep = (after > 0) & (after / before >= min_visibility)",
             "keep = ((after > 0) & (after / before >= min_visibility)).nonzero()", "keep.nonzero().flatten()", "keep"),
        ],
        "by the centre": [
            ("loop", "if share >= min_visibility", "if wx0 < (x0 + x1) / 2 < wx1 and wy0 < (y0 + y1) / 2 < wy1"),
        ],
        "mask": [
            ("plain", "torch.where((inside >= min_visibility * area) & (inside > 0))[0]",
             "(inside >= min_visibility * area) & (inside > 0)"),
            ("clamp", "keep.nonzero().flatten()", "keep"),
        ],
        "renumbered": [
            ("loop", "kept.append(i)", "kept.append(len(kept))"),
            ("plain", "return scaled[kept], kept", "return scaled[kept], torch.arange(len(kept))"),
        ],
        "not selected": [("plain", "scaled[kept], kept", "scaled, kept"), ("clamp", "new[keep]", "new")],
        "nothing left": [
            ("loop", "return out, kept", "return torch.stack(list(map(torch.tensor, out))), torch.tensor(kept)"),
            ("loop", "return out, kept", "return torch.tensor(out), torch.tensor(kept)"),
            ("numpy", "kept = np", "share.max()\n    kept = np"),
        ],
    },
    "rotated_box": {
        "two corners": [
            ("plain", "((x0, y0), (x1, y0), (x1, y1), (x0, y1))", "((x0, y0), (x1, y1))"),
            ("numpy", "[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]", "[[x0, y0], [x1, y1]]"),
            ("numpy", "[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]", "[[x0, y0], [x1, y1]]",
             "np.concatenate([points.min(axis=0), points.max(axis=0)])", "points.ravel()"),
        ],
        "radians": [
            ("plain", "math.radians(degrees)", "degrees"),
            ("numpy", "np.deg2rad(degrees)", "degrees"),
            ("torch", "torch.deg2rad(torch.tensor(float(degrees)))", "torch.tensor(float(degrees))"),
        ],
        "clockwise": [
            ("plain", "+ dy * math.sin(t)", "- dy * math.sin(t)", "cy - dx", "cy + dx"),
            ("numpy", "@ turn.T", "@ turn"),
            ("complex", "-degrees", "degrees"),
        ],
        "about the origin": [
            ("plain", "cx, cy = width / 2, height / 2", "cx, cy = 0, 0"),
            ("torch", " - width / 2", "", " - height / 2", "", " + width / 2", "", " + height / 2", ""),
        ],
        "about the box": [
            ("plain", "cx, cy = width / 2, height / 2", "cx, cy = (x0 + x1) / 2, (y0 + y1) / 2"),
            ("complex", "complex(width, height) / 2", "complex(x0 + x1, y0 + y1) / 2"),
        ],
        "centre missed": [
            ("plain", "cx, cy = width / 2, height / 2", "cx, cy = width // 2, height // 2"),
            ("complex", "complex(width, height) / 2", "complex(width - 1, height - 1) / 2"),
        ],
        "centre swapped": [("numpy", "np.array([width, height])", "np.array([height, width])")],
        "not moved back": [
            ("plain", "cx + dx", "dx", "cy - dx", "-dx"),
            ("numpy", "@ turn.T + centre", "@ turn.T"),
            ("torch", " + width / 2", "", " + height / 2", ""),
        ],
        "overwritten": [
            ("torch", "x, y = x * cos + y * sin + width / 2, y * cos - x * sin + height / 2",
             "x = x * cos + y * sin\n    y = y * cos - x * sin\n    x, y = x + width / 2, y + height / 2"),
        ],
        "size kept": [
            ("plain", "((x0, y0), (x1, y0), (x1, y1), (x0, y1))", "(((x0 + x1) / 2, (y0 + y1) / 2),)",
             "return min(xs), min(ys), max(xs), max(ys)",
             "w, h = x1 - x0, y1 - y0\n    return xs[0] - w / 2, ys[0] - h / 2, xs[0] + w / 2, ys[0] + h / 2"),
        ],
        "clipped": [
            ("plain", "min(xs), min(ys), max(xs), max(ys)",
             "max(0, min(xs)), max(0, min(ys)), min(width, max(xs)), min(height, max(ys))"),
            ("torch", "return x.min()", "x, y = x.clamp(0, width), y.clamp(0, height)\n    return x.min()"),
        ],
    },
    "crop_accepted": {
        "all instead of any": [
            ("plain", ".any()", ".all()"),
            ("numpy", "np.any(iou >= min_iou)", "np.all(iou >= min_iou)"),
            ("loop", "iou >= min_iou", "iou < min_iou", "return True", "return 0", "False", "True", "n 0", "n False"),
            ("plain", "(overlap >= min_iou).any()", "len(objects) > 0 and overlap.min() >= min_iou"),
        ],
        "mean": [
            ("plain", "(overlap >= min_iou).any()", "overlap.mean() >= min_iou"),
            ("numpy", "np.any(iou >= min_iou)", "sum(iou) / len(iou) >= min_iou if len(iou) else False"),
        ],
        "sum": [("plain", "(overlap >= min_iou).any()", "overlap.sum() >= min_iou")],
        "share of the object": [
            ("loop", "(object_area + window_area - w * h)", "object_area"),
            ("numpy", "(area + window_area - inter)", "area"),
        ],
        "share of the window": [
            ("loop", "(object_area + window_area - w * h)", "window_area"),
            ("numpy", "(area + window_area - inter)", "window_area"),
        ],
        "any overlap": [
            ("plain", ">= min_iou", "> 0"),
            ("loop", "if iou >= min_iou", "if w * h > 0"),
        ],
        "not reached": [("plain", ">= min_iou", "> min_iou"), ("loop", ">= min_iou", "> min_iou")],
        "by the centre": [
            ("plain", "(overlap >= min_iou).any()",
             "any(window[0] < x0 + x1 < 2 * window[2] and window[1] < y0 + y1 < 2 * window[3]"
             " for x0, y0, x1, y1 in objects.tolist())"),
        ],
        "turned round": [
            ("plain", ">= min_iou", "< min_iou", ".any()", ".all()"),
            ("loop", "return True", "return not True", "return False", "return not False"),
        ],
        "first only": [
            ("loop", "if iou >= min_iou:\n            return True\n    return False", "return iou >= min_iou"),
            ("loop", "            return True\n", "            return True\n        else:\n            return False\n"),
            ("plain", "(overlap >= min_iou).any()", "bool(overlap[0] >= min_iou)"),
        ],
        "last only": [
            ("loop", "    for", "    accepted = False\n    for",
             "if iou >= min_iou:\n            return True\n    return False",
             "accepted = iou >= min_iou\n    return accepted"),
        ],
        "one answer each": [
            ("numpy", "np.any(iou >= min_iou)", "iou >= min_iou"),
            ("plain", "bool((overlap >= min_iou).any())", "(overlap >= min_iou).flatten()"),
        ],
        "no objects": [
            ("plain", "(overlap >= min_iou).any()", "overlap.max() >= min_iou"),
            ("loop", "    return False", "    return len(boxes) == 0"),
            ("numpy", "np.any(iou >= min_iou)", "iou.max() >= min_iou"),
        ],
    },
}  # fmt: skip
