"""Wrong answers and right ones, as readers write them: made without the twins in `course_lib.check`.

Most wrong answers are a right one with a line or two changed, since that is how they come about. And what
every verdict must look like.
"""

import math
from html.parser import HTMLParser
from textwrap import dedent

import numpy as np
import torch
import torchvision

from course_lib.check import check

VOC_BOX = {
    "plain": """
        def voc_box(xmin, ymin, xmax, ymax, width, height):
            x0 = (xmin - 1) / width
            y0 = (ymin - 1) / height
            x1 = xmax / width
            y1 = ymax / height
            return x0, y0, x1, y1
    """,
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
    "plain": """
        def iou(a, b):
            ax0, ay0, ax1, ay1 = a
            bx0, by0, bx1, by1 = b
            w = max(0, min(ax1, bx1) - max(ax0, bx0))
            h = max(0, min(ay1, by1) - max(ay0, by0))
            inter = w * h
            area_a = (ax1 - ax0) * (ay1 - ay0)
            area_b = (bx1 - bx0) * (by1 - by0)
            union = area_a + area_b - inter
            if union == 0:
                return 0
            return inter / union
    """,
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
    "torch": """
        def iou_matrix(a, b):
            low = torch.max(a[:, None, :2], b[None, :, :2])
            high = torch.min(a[:, None, 2:], b[None, :, 2:])
            side = (high - low).clamp(min=0)
            inter = side[..., 0] * side[..., 1]
            area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
            area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
            union = area_a[:, None] + area_b[None, :] - inter
            return torch.where(union > 0, inter / union, 0)
    """,
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

MIRROR_BOXES = {
    "stack": """
        def mirror_boxes(boxes):
            x0, y0, x1, y1 = boxes.T
            return torch.stack([1 - x1, y0, 1 - x0, y1], dim=1)
    """,
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
    "torch": """
        def crop_boxes(boxes, window, min_visibility):
            window = torch.tensor(window)
            low = torch.max(boxes[:, :2], window[:2])
            high = torch.min(boxes[:, 2:], window[2:])
            inside = (high - low).clamp(min=0).prod(dim=1)
            area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
            kept = torch.where((inside >= min_visibility * area) & (inside > 0))[0]
            size = window[2:] - window[:2]
            clipped = torch.cat([low, high], dim=1)
            shifted = clipped - window[:2].repeat(2)
            scaled = shifted / size.repeat(2)
            return scaled[kept], kept
    """,
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
    "plain": """
        def rotated_box(box, degrees, width, height):
            x0, y0, x1, y1 = box
            cx, cy = width / 2, height / 2
            t = math.radians(degrees)
            xs, ys = [], []
            for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
                dx, dy = x - cx, y - cy
                xs.append(cx + dx * math.cos(t) + dy * math.sin(t))
                ys.append(cy - dx * math.sin(t) + dy * math.cos(t))
            return min(xs), min(ys), max(xs), max(ys)
    """,
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
    "torch": """
        def crop_accepted(boxes, window, min_iou):
            overlap = torchvision.ops.box_iou(boxes, torch.tensor([window]))
            return (overlap >= min_iou).any()
    """,
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

MAP_SIZE = {
    "plain": """
        def map_size(size, kernel, stride, padding, ceil):
            room = size + 2 * padding - kernel
            if not ceil:
                return room // stride + 1
            windows = (room + stride - 1) // stride + 1
            if (windows - 1) * stride >= size + padding:
                windows -= 1
            return windows
    """,
    "math": """
        def map_size(size, kernel, stride, padding, ceil):
            rounded = math.ceil if ceil else math.floor
            n = rounded((size + 2 * padding - kernel) / stride) + 1
            if ceil and (n - 1) * stride >= size + padding:
                n = n - 1
            return n
    """,
    "torch": """
        def map_size(size, kernel, stride, padding, ceil):
            n = torch.tensor((size + 2 * padding - kernel) / stride)
            n = (torch.ceil(n) if ceil else torch.floor(n)).long() + 1
            return n - ((n - 1) * stride >= size + padding).long()
    """,
}

RECEPTIVE_FIELD = {
    "forward": """
        def receptive_field(layers, cells):
            field, jump = 1, 1
            for kernel, stride, dilation in layers:
                field = field + (kernel - 1) * dilation * jump
                jump = jump * stride
            return field + (cells - 1) * jump
    """,
    "backward": """
        def receptive_field(layers, cells):
            field = cells
            for kernel, stride, dilation in reversed(layers):
                field = (field - 1) * stride + (kernel - 1) * dilation + 1
            return field
    """,
    "numpy": """
        def receptive_field(layers, cells):
            kernel, stride, dilation = np.array(layers, dtype=int).reshape(-1, 3).T
            jump = np.cumprod(stride) // stride
            return int(1 + ((kernel - 1) * dilation * jump).sum() + (cells - 1) * stride.prod())
    """,
    "first and last": """
        def receptive_field(layers, cells):
            first, last = 0, cells - 1
            for kernel, stride, dilation in layers[::-1]:
                first = first * stride
                last = last * stride + (kernel - 1) * dilation
            return last - first + 1
    """,
}

DECIMATE = {
    "slices": """
        def decimate(weight, side, units, taps):
            filters = weight.reshape(len(weight), side, side, -1)
            return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]
    """,
    "loops": """
        def decimate(weight, side, units, taps):
            channels = weight.shape[1] // (side * side)
            kept = range(0, side, taps)
            rows = []
            for unit in range(0, weight.shape[0], units):
                flat = weight[unit]
                rows.append(
                    [[[flat[(y * side + x) * channels + c] for x in kept] for y in kept] for c in range(channels)]
                )
            return rows
    """,
    "numpy": """
        def decimate(weight, side, units, taps):
            filters = np.moveaxis(weight.numpy().reshape(len(weight), side, side, -1), 3, 1)
            index = np.arange(0, side, taps)
            return filters[::units][:, :, index][:, :, :, index]
    """,
}

PRIOR_COUNT = {
    "loop": """
        def prior_count(maps, per_cell):
            total = 0
            for side, count in zip(maps, per_cell):
                total += side * side * count
            return total
    """,
    "sum": """
        def prior_count(maps, per_cell):
            return sum(side ** 2 * count for side, count in zip(maps, per_cell))
    """,
    "numpy": """
        def prior_count(maps, per_cell):
            cells = np.array(maps) ** 2
            return (cells * np.array(per_cell)).sum()
    """,
}

NEAREST_CELL = {
    "plain": """
        def nearest_cell(x, y, step, side):
            row = min(int(y // step), side - 1)
            column = min(int(x // step), side - 1)
            return row, column
    """,
    "numpy": """
        def nearest_cell(x, y, step, side):
            cell = np.floor(np.array([y, x]) / step).astype(int)
            return tuple(np.clip(cell, 0, side - 1))
    """,
    "rounded": """
        def nearest_cell(x, y, step, side):
            return [min(round(place / step - 0.5), side - 1) for place in (y, x)]
    """,
    "search": """
        def nearest_cell(x, y, step, side):
            def far(row, column):
                return math.hypot((column + 0.5) * step - x, (row + 0.5) * step - y)

            return min(((row, column) for row in range(side) for column in range(side)), key=lambda cell: far(*cell))
    """,
}

PRIOR_SHAPES = {
    "loop": """
        def prior_shapes(side, next_side, ratios):
            larger = math.sqrt(side * next_side)
            shapes, done = [(side, side), (larger, larger)], [1]
            for ratio in ratios:
                if ratio < 1:
                    ratio = round(1 / ratio, 6)
                if ratio in done:
                    continue
                done.append(ratio)
                root = math.sqrt(ratio)
                shapes.append((side * root, side / root))
                shapes.append((side / root, side * root))
            return shapes
    """,
    "expanded": """
        def prior_shapes(side, next_side, ratios):
            larger = (side * next_side) ** 0.5
            wide = [max(ratio, 1 / ratio) for ratio in ratios if ratio != 1]
            wide = list(dict.fromkeys(wide))
            every = [r for ratio in wide for r in (ratio, 1 / ratio)]
            return [(side, side), (larger, larger)] + [(side * r ** 0.5, side / r ** 0.5) for r in every]
    """,
    "torch": """
        def prior_shapes(side, next_side, ratios):
            wide = []
            for ratio in ratios:
                if all(abs(one - other) > 1e-6 for one in (ratio, 1 / ratio) for other in [1, *wide]):
                    wide.append(max(ratio, 1 / ratio))
            r = torch.tensor([ratio for one in wide for ratio in (one, 1 / one)])
            squares = torch.tensor([side, math.sqrt(side * next_side)])[:, None].repeat(1, 2)
            stretched = torch.stack([side * r.sqrt(), side / r.sqrt()], dim=1)
            return torch.cat([squares, stretched])
    """,
}

HEAD_CHANNELS = {
    "plain": """
        def head_channels(per_cell, classes):
            boxes = 4 * per_cell
            scores = (classes + 1) * per_cell
            return boxes, scores
    """,
    "numpy": """
        def head_channels(per_cell, classes):
            return np.array([4, classes + 1]) * per_cell
    """,
    "list": """
        def head_channels(per_cell, classes):
            return [per_cell * width for width in (4, 1 + classes)]
    """,
}

ROWS_TO_HEAD = {
    "permute": """
        def rows_to_head(rows, height, width):
            last = rows.reshape(rows.shape[0], height, width, -1)
            return last.permute(0, 3, 1, 2)
    """,
    "split": """
        def rows_to_head(rows, height, width):
            batch, count, values = rows.shape
            k = count // height // width
            split = rows.view(batch, height, width, k, values)
            split = split.permute(0, 3, 4, 1, 2)
            return split.reshape(batch, k * values, height, width)
    """,
    "numpy": """
        def rows_to_head(rows, height, width):
            last = rows.numpy().reshape(len(rows), height, width, -1)
            return np.moveaxis(last, 3, 1)
    """,
    "loops": """
        def rows_to_head(rows, height, width):
            batch, count, values = rows.shape
            k = count // (height * width)
            head = torch.zeros(batch, k * values, height, width)
            for y in range(height):
                for x in range(width):
                    for a in range(k):
                        for v in range(values):
                            head[:, a * values + v, y, x] = rows[:, (y * width + x) * k + a, v]
            return head
    """,
}

PRIOR_ADDRESS = {
    "loop": """
        def prior_address(index, maps, per_cell):
            for level, (side, count) in enumerate(zip(maps, per_cell)):
                size = side * side * count
                if index < size:
                    cell = index // count
                    return level, cell // side, cell % side, index % count
                index -= size
    """,
    "numpy": """
        def prior_address(index, maps, per_cell):
            starts = np.cumsum([0] + [side * side * count for side, count in zip(maps, per_cell)])
            level = int(np.searchsorted(starts, index, side="right")) - 1
            left = index - starts[level]
            row, column, shape = np.unravel_index(left, (maps[level], maps[level], per_cell[level]))
            return level, row, column, shape
    """,
    "listed": """
        def prior_address(index, maps, per_cell):
            every = []
            for level in range(len(maps)):
                for row in range(maps[level]):
                    for column in range(maps[level]):
                        for shape in range(per_cell[level]):
                            every.append((level, row, column, shape))
            return every[index]
    """,
}
ENCODE_BOX = {
    "plain": """
        def encode_box(box, prior_cxcywh):
            xmin, ymin, xmax, ymax = box
            cx, cy, w, h = prior_cxcywh
            dx = ((xmin + xmax) / 2 - cx) / w / 0.1
            dy = ((ymin + ymax) / 2 - cy) / h / 0.1
            dw = math.log((xmax - xmin) / w) / 0.2
            dh = math.log((ymax - ymin) / h) / 0.2
            return dx, dy, dw, dh
    """,
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


PRIOR_BIAS = {
    "plain": """
        def prior_bias(pi):
            return -math.log((1 - pi) / pi)
    """,
    "difference": """
        def prior_bias(pi):
            return math.log(pi) - math.log(1 - pi)
    """,
    "numpy": """
        def prior_bias(pi):
            odds = pi / (1 - pi)
            return np.log(odds)
    """,
    "torch": """
        def prior_bias(pi):
            return torch.tensor(pi).logit()
    """,
}

INITIAL_FOCAL = {
    "plain": """
        def initial_focal(priors, classes, positives, pi, alpha, gamma):
            yes = -alpha * (1 - pi) ** gamma * math.log(pi)
            no = -(1 - alpha) * pi ** gamma * math.log(1 - pi)
            noes = priors * classes - positives
            total = positives * yes + noes * no
            return total / max(positives, 1)
    """,
    "numpy": """
        def initial_focal(priors, classes, positives, pi, alpha, gamma):
            count = np.array([positives, positives * (classes - 1) + (priors - positives) * classes])
            weight = np.array([alpha, 1 - alpha])
            p_t = np.array([pi, 1 - pi])
            cost = -weight * (1 - p_t) ** gamma * np.log(p_t)
            return (count * cost).sum() / (positives or 1)
    """,
    "torchvision": """
        def initial_focal(priors, classes, positives, pi, alpha, gamma):
            logits = torch.full((priors, classes), math.log(pi / (1 - pi)))
            targets = torch.zeros(priors, classes)
            targets[:positives, 0] = 1
            total = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma, reduction="sum")
            return total / max(1, positives)
    """,
}

FOCAL_TERM = {
    "plain": """
        def focal_term(logit, wanted, alpha, gamma):
            if not wanted:
                logit, alpha = -logit, 1 - alpha
            wrong = 1 / (1 + math.exp(logit))
            return alpha * wrong ** gamma * math.log1p(math.exp(-logit))
    """,
    "naive": """
        def focal_term(logit, wanted, alpha, gamma):
            p = 1 / (1 + math.exp(-logit))
            p_t = p if wanted else 1 - p
            weight = alpha if wanted else 1 - alpha
            log_p_t = math.log(p_t) if p_t > 0 else -abs(logit)
            return -weight * (1 - p_t) ** gamma * log_p_t
    """,
    "torch": """
        def focal_term(logit, wanted, alpha, gamma):
            sign = 1 if wanted else -1
            z = torch.tensor(sign * logit)
            weight = alpha if wanted else 1 - alpha
            focus = torch.sigmoid(-z) ** gamma
            return -weight * focus * torch.nn.functional.logsigmoid(z)
    """,
    "torchvision": """
        def focal_term(logit, wanted, alpha, gamma):
            logit, target = torch.tensor(logit), torch.tensor(float(wanted))
            return torchvision.ops.sigmoid_focal_loss(logit, target, alpha, gamma)
    """,
}

SOURCES = {
    "voc_box": VOC_BOX,
    "iou": IOU,
    "iou_matrix": IOU_MATRIX,
    "mirror_boxes": MIRROR_BOXES,
    "crop_boxes": CROP_BOXES,
    "rotated_box": ROTATED_BOX,
    "crop_accepted": CROP_ACCEPTED,
    "map_size": MAP_SIZE,
    "receptive_field": RECEPTIVE_FIELD,
    "decimate": DECIMATE,
    "prior_count": PRIOR_COUNT,
    "nearest_cell": NEAREST_CELL,
    "prior_shapes": PRIOR_SHAPES,
    "head_channels": HEAD_CHANNELS,
    "rows_to_head": ROWS_TO_HEAD,
    "prior_address": PRIOR_ADDRESS,
    "encode_box": ENCODE_BOX,
    "greedy": GREEDY,
    "smooth_l1_sum": SMOOTH_L1_SUM,
    "batch_loss": BATCH_LOSS,
    "hard_negatives": HARD_NEGATIVES,
    "prior_bias": PRIOR_BIAS,
    "initial_focal": INITIAL_FOCAL,
    "focal_term": FOCAL_TERM,
}

# For each mistake the sources in which it is made, and what is put in place of what.
MISTAKES = {
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
            ("plain", "if union == 0:\n        return 0", ""),
            ("numpy", "max(union, 1e-9)", "union"),
            ("torch", " + 1e-7", ""),
            ("plain", "        return 0\n", "        return 1.0\n"),
        ],
    },
    "iou_matrix": {
        "transposed": [
            ("torch", "a[:, None, :2], b[None, :, :2]", "a[None, :, :2], b[:, None, :2]",
             "a[:, None, 2:], b[None, :, 2:]", "a[None, :, 2:], b[:, None, 2:]",
             "area_a[:, None] + area_b[None, :]", "area_a[None, :] + area_b[:, None]"),
            ("numpy", "return inter", "return inter.T", "- inter + 1e-9)", "- inter + 1e-9).T"),
            ("loops", "matrix[i, j]", "matrix[j, i]", "torch.zeros(len(a), len(b))", "torch.zeros(len(b), len(a))"),
            ("lists", "for q in b.tolist()] for p in a.tolist()]", "for p in a.tolist()] for q in b.tolist()]"),
        ],
        "one to one": [
            ("torch", "a[:, None, :2], b[None, :, :2]", "a[:, :2], b[:, :2]",
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
            ("torch", "area_a[:, None] + area_b[None, :]", "area_a + area_b"),
            ("numpy", "np.add.outer(area(a), area(b))", "(area(a) + area(b))"),
            ("torch", "area_a[:, None] + area_b[None, :]", "area_a[:, None] + area_b[:, None]"),
        ],
        "no boxes": [
            ("lists", "return [[one(p, q) for q in b.tolist()] for p in a.tolist()]",
             "return torch.stack([torch.stack([torch.tensor(one(p, q)) for q in b]) for p in a])"),
            ("lists", "return [[one(p, q) for q in b.tolist()] for p in a.tolist()]",
             "return torch.tensor([[one(p, q) for q in b.tolist()] for p in a.tolist()])"),
            ("numpy", "return inter", "assert inter.max() >= 0\n    return inter"),
        ],
        "no clamp": [("torch", ".clamp(min=0)", ""), ("numpy", "w.clip(0) * h.clip(0)", "w * h")],
        "product clamped": [
            ("torch", ".clamp(min=0)", "", "side[..., 0] * side[..., 1]", "(side[..., 0] * side[..., 1]).clamp(min=0)"),
        ],
        "one side clamped": [("numpy", "w.clip(0) * h.clip(0)", "w.clip(0) * h"), ("numpy", "h.clip(0)", "h")],
        "absolute value": [("torch", ".clamp(min=0)", ".abs()")],
        "plus one": [
            ("torch", "(high - low)", "(high - low + 1)", "(a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])",
             "(a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)", "(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])",
             "(b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)"),
        ],
        "integer division": [("torch", "inter / union", "inter // union"), ("loops", "h / union", "h // union")],
        "overlap counted twice": [("torch", "- inter\n", "\n"), ("numpy", " - inter", "")],
        "overlap taken off twice": [("numpy", " - inter", " - 2 * inter")],
        "rounded": [("lists", "w * h / union if", "round(w * h / union, 2) if")],
        "whole coordinates": [("torch", "low =", "a, b = a.long(), b.long()\n    low =")],
        "one area": [("torch", "area_a[:, None] + area_b[None, :] - inter", "area_a[:, None]")],
        "same area twice": [("lists", "(q[2] - q[0]) * (q[3] - q[1])", "(p[2] - p[0]) * (p[3] - p[1])")],
        "same side twice": [("torch", "side[..., 1]", "side[..., 0]")],
        "not divided": [("torch", "return torch.where(union > 0, inter / union, 0)", "return inter")],
        "min and max confused": [("torch", "torch.max(", "torch.min("), ("torch", "torch.min(", "torch.max(")],
        "read as width and height": [
            ("torch", "low =", "a, b = (torch.cat([c[:, :2], c[:, :2] + c[:, 2:]], 1) for c in (a, b))\n    low ="),
        ],
        "read as centre and size": [
            ("torch", "low =", "a, b = (torchvision.ops.box_convert(c, 'cxcywh', 'xyxy') for c in (a, b))\n    low ="),
        ],
        "read in another order": [("torch", "low =", "a, b = a[:, [0, 2, 1, 3]], b[:, [0, 2, 1, 3]]\n    low =")],
        "zero by zero": [
            ("torch", "torch.where(union > 0, inter / union, 0)", "inter / union"),
            ("numpy", " + 1e-9", ""),
            ("lists", " if union else 0.0", ""),
        ],
    },
    "mirror_boxes": {
        "not swapped": [
            ("stack", "1 - x1, y0, 1 - x0, y1", "1 - x0, y0, 1 - x1, y1"),
            ("numpy", "[:, [2, 1, 0, 3]]", ".copy()"),
        ],
        "only swapped": [("numpy", "1 - mirrored[:, ::2]", "mirrored[:, ::2]"), ("stack", "1 - ", "")],
        "top to bottom": [
            ("stack", "1 - x1, y0, 1 - x0, y1", "x0, 1 - y1, x1, 1 - y0"),
            ("clone", "mirrored[:, 0] = 1 - boxes[:, 2]", "mirrored[:, 1] = 1 - boxes[:, 3]",
             "mirrored[:, 2] = 1 - boxes[:, 0]", "mirrored[:, 3] = 1 - boxes[:, 1]"),
        ],
        "both ways": [
            ("stack", "1 - x1, y0, 1 - x0, y1", "1 - x1, 1 - y1, 1 - x0, 1 - y0"),
            ("clone", "return mirrored", "return 1 - boxes"),
        ],
        "unchanged": [("clone", "return mirrored", "return boxes"), ("lists", "(1 - x1, y0, 1 - x0", "(x0, y0, x1")],
        "overwritten": [
            ("clone", "1 - boxes", "1 - mirrored"),
            ("clone", "mirrored[:, 0] = 1 - boxes[:, 2]", "mirrored[:, 2] = 1 - mirrored[:, 0]",
             "mirrored[:, 2] = 1 - boxes[:, 0]", "mirrored[:, 0] = 1 - mirrored[:, 2]"),
        ],
        "about the edge": [("stack", "1 - x", "-x"), ("numpy", "1 - mirrored", "-mirrored")],
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
            ("torch", " - window[:2].repeat(2)", ""),
            ("loop", "(cx0 - wx0)", "cx0", "(cy0 - wy0)", "cy0", "(cx1 - wx0)", "cx1", "(cy1 - wy0)", "cy1"),
            ("numpy", "(clipped[kept] - np.tile(window[:2], 2))", "clipped[kept]"),
        ],
        "not scaled": [
            ("torch", " / size.repeat(2)", ""),
            ("loop", " / w", "", " / h", ""),
            ("numpy", " / np.tile(window[2:] - window[:2], 2), kept", ", kept"),
        ],
        "fractions of the image": [
            ("torch", "scaled[kept]", "clipped[kept]"),
            ("loop", "(cx0 - wx0) / w, (cy0 - wy0) / h, (cx1 - wx0) / w, (cy1 - wy0) / h", "cx0, cy0, cx1, cy1"),
            ("clamp", "new[keep]", "boxes[keep]"),
        ],
        "not clipped": [
            ("torch", "torch.cat([low, high], dim=1)", "boxes"),
            ("loop", "(cx0 - wx0) / w, (cy0 - wy0) / h, (cx1 - wx0) / w, (cy1 - wy0) / h",
             "(x0 - wx0) / w, (y0 - wy0) / h, (x1 - wx0) / w, (y1 - wy0) / h"),
            ("numpy", "(clipped[kept]", "(boxes[kept]"),
        ],
        "outside kept": [
            ("clamp", "(after > 0) & ", ""),
            ("numpy", "(share > 0) & ", ""),
            ("numpy", "(share > 0) & (share >= min_visibility)", "share > -1"),
        ],
        "measured by the window": [
            ("torch", "area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)", "area = (window[2:] - window[:2]).prod()"),
            ("loop", "((x1 - x0) * (y1 - y0))", "((wx1 - wx0) * (wy1 - wy0))"),
            ("clamp", "after / before", "after"),
        ],
        "IoU": [
            ("torch", "min_visibility * area)", "min_visibility * (area + (window[2:] - window[:2]).prod() - inside))"),
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
            ("torch", "torch.where((inside >= min_visibility * area) & (inside > 0))[0]",
             "(inside >= min_visibility * area) & (inside > 0)"),
            ("clamp", "keep.nonzero().flatten()", "keep"),
        ],
        "renumbered": [
            ("loop", "kept.append(i)", "kept.append(len(kept))"),
            ("torch", "return scaled[kept], kept", "return scaled[kept], torch.arange(len(kept))"),
        ],
        "not selected": [("torch", "scaled[kept], kept", "scaled, kept"), ("clamp", "new[keep]", "new")],
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
            ("torch", ".any()", ".all()"),
            ("numpy", "np.any(iou >= min_iou)", "np.all(iou >= min_iou)"),
            ("loop", "iou >= min_iou", "iou < min_iou", "return True", "return 0", "False", "True", "n 0", "n False"),
            ("torch", "(overlap >= min_iou).any()", "len(boxes) > 0 and overlap.min() >= min_iou"),
        ],
        "mean": [
            ("torch", "(overlap >= min_iou).any()", "overlap.mean() >= min_iou"),
            ("numpy", "np.any(iou >= min_iou)", "sum(iou) / len(iou) >= min_iou if len(iou) else False"),
        ],
        "sum": [("torch", "(overlap >= min_iou).any()", "overlap.sum() >= min_iou")],
        "share of the object": [
            ("loop", "(object_area + window_area - w * h)", "object_area"),
            ("numpy", "(area + window_area - inter)", "area"),
        ],
        "share of the window": [
            ("loop", "(object_area + window_area - w * h)", "window_area"),
            ("numpy", "(area + window_area - inter)", "window_area"),
        ],
        "any overlap": [
            ("torch", ">= min_iou", "> 0"),
            ("loop", "if iou >= min_iou", "if w * h > 0"),
        ],
        "by the centre": [
            ("torch", "(overlap >= min_iou).any()",
             "any(window[0] < x0 + x1 < 2 * window[2] and window[1] < y0 + y1 < 2 * window[3]"
             " for x0, y0, x1, y1 in boxes.tolist())"),
        ],
        "turned round": [
            ("torch", ">= min_iou", "< min_iou", ".any()", ".all()"),
            ("loop", "return True", "return not True", "return False", "return not False"),
        ],
        "first only": [
            ("loop", "if iou >= min_iou:\n            return True\n    return False", "return iou >= min_iou"),
            ("loop", "            return True\n", "            return True\n        else:\n            return False\n"),
            ("torch", "(overlap >= min_iou).any()", "bool(overlap[0] >= min_iou)"),
        ],
        "last only": [
            ("loop", "    for", "    accepted = False\n    for",
             "if iou >= min_iou:\n            return True\n    return False",
             "accepted = iou >= min_iou\n    return accepted"),
        ],
        "one answer each": [
            ("numpy", "np.any(iou >= min_iou)", "iou >= min_iou"),
            ("torch", ".any()", ".flatten()"),
        ],
        "no objects": [
            ("torch", "(overlap >= min_iou).any()", "overlap.max() >= min_iou"),
            ("loop", "    return False", "    return len(boxes) == 0"),
            ("numpy", "np.any(iou >= min_iou)", "iou.max() >= min_iou"),
        ],
    },
    "map_size": {
        "always down": [
            ("plain", "if not ceil:", "if True:"),
            ("math", "math.ceil if ceil else math.floor", "math.floor"),
        ],
        "always up": [
            ("plain", "    if not ceil:\n        return room // stride + 1\n", ""),
            ("math", "math.ceil if ceil else math.floor", "math.ceil"),
            ("math", "math.ceil if ceil else math.floor", "math.ceil",
             "    if ceil and (n - 1) * stride >= size + padding:\n        n = n - 1\n", ""),
        ],
        "up and down exchanged": [
            ("plain", "if not ceil", "if ceil"),
            ("torch", "if ceil else", "if not ceil else", " - ((n - 1) * stride >= size + padding).long()", ""),
        ],
        "one more": [
            ("math", "math.ceil if ceil else math.floor", "math.floor", "+ 1\n", "+ 1 + ceil\n"),
            ("plain", "    if not ceil:\n        return room // stride + 1\n", "",
             "(room + stride - 1) // stride + 1", "room // stride + 1 + ceil",
             "    if (windows - 1) * stride >= size + padding:\n        windows -= 1\n", ""),
        ],
        "steps counted": [
            ("plain", "// stride + 1", "// stride"),
            ("torch", "return n -", "return n - 1 -"),
        ],
        "kernel left out": [
            ("math", " - kernel", ""),
            ("math", "(size + 2 * padding - kernel) / stride) + 1", "size / stride)"),
            ("math", "(size + 2 * padding - kernel) / stride) + 1", "(size + 2 * padding) / stride)"),
        ],
        "padding left out": [
            ("plain", "size + 2 * padding - kernel", "size - kernel"),
            ("math", "2 * padding", "0", "size + padding", "size"),
        ],
        "padding on one side": [
            ("plain", "2 * padding", "padding"),
            ("math", "2 * padding", "padding",
             "    if ceil and (n - 1) * stride >= size + padding:\n        n = n - 1\n", ""),
        ],
        "last window kept": [
            ("plain", "    if (windows - 1) * stride >= size + padding:\n        windows -= 1\n", ""),
            ("math", ">= size + padding", ">= size + 2 * padding"),
            ("torch", "(n - 1) * stride >=", "n * stride - stride >"),
        ],
        "window dropped too soon": [
            ("plain", ">= size + padding", ">= size"),
            ("torch", ">= size + padding", ">= size"),
        ],
        "no integer": [
            ("math", "math.ceil if ceil else math.floor", "np.ceil if ceil else np.floor"),
            ("plain", "//", "/"),
            ("torch", ".long() + 1", " + 1"),
        ],
    },
    "receptive_field": {
        "own stride": [
            ("forward", "dilation * jump", "dilation * stride"),
            ("forward", "        jump = jump * stride\n", "",
             "        field =", "        jump = jump * stride\n        field ="),
            ("numpy", "np.cumprod(stride) // stride", "np.cumprod(stride)"),
        ],
        "strides left out": [
            ("forward", "dilation * jump", "dilation"),
            ("backward", "(field - 1) * stride", "(field - 1)"),
        ],
        "last stride only": [("forward", "jump = jump * stride", "jump = stride")],
        "strides added": [
            ("forward", "jump * stride", "jump + stride"),
            ("forward", "jump * stride", "jump + stride - 1"),
            ("numpy", "np.cumprod(stride) // stride", "np.maximum(np.cumsum(stride) - stride, 1)"),
        ],
        "dilation in the stride": [
            ("forward", "jump * stride", "jump * stride * dilation"),
            ("forward", "jump * stride", "jump * max(stride, dilation)"),
        ],
        "stride and dilation exchanged": [
            ("forward", "kernel, stride, dilation in", "kernel, dilation, stride in"),
            ("numpy", "kernel, stride, dilation =", "kernel, dilation, stride ="),
        ],
        "dilation left out": [
            ("forward", " * dilation", ""),
            ("backward", " * dilation", ""),
            ("numpy", " * dilation", ""),
        ],
        "dilation of all taps": [
            ("forward", "(kernel - 1) * dilation", "(kernel * dilation - 1)"),
            ("numpy", "(kernel - 1) * dilation", "(dilation * kernel - 1)"),
        ],
        "whole kernel": [
            ("forward", "(kernel - 1)", "kernel"),
            ("forward", "(kernel - 1) * dilation", "((kernel - 1) * dilation + 1)"),
            ("numpy", "(kernel - 1)", "kernel"),
        ],
        "begun with nothing": [
            ("forward", "field, jump = 1, 1", "field, jump = 0, 1"),
            ("numpy", "1 + ", ""),
            ("first and last", " + 1\n", "\n"),
        ],
        "from the wrong end": [("backward", "reversed(layers)", "layers")],
        "cells in place of gaps": [
            ("backward", "(field - 1) * stride", "field * stride", "dilation + 1", "dilation"),
        ],
        "distance": [("forward", "return field + (cells - 1) * jump", "return jump")],
        "one cell": [("forward", " + (cells - 1) * jump", ""), ("backward", "field = cells", "field = 1")],
        "fields added": [("forward", "field + (cells - 1) * jump", "field * cells")],
        "cells of one pixel": [("forward", "(cells - 1) * jump", "cells - 1")],
        "last stride left out": [("numpy", "stride.prod()", "stride[:-1].prod()")],
        "one step too many": [
            ("forward", "(cells - 1)", "cells"),
            ("first and last", "first, last = 0, cells - 1", "first, last = 0, cells"),
        ],
        "no integer": [
            ("forward", "field, jump = 1, 1", "field, jump = 1.0, 1"),
            ("numpy", "int(", "float("),
        ],
        "no layers": [
            ("numpy", ".reshape(-1, 3)", ""),
            ("forward", "    field, jump = 1, 1\n", "    if not layers:\n        return 0\n    field, jump = 1, 1\n"),
        ],
    },
    "decimate": {
        "channels first": [
            ("slices", "side, side, -1)\n", "-1, side, side)\n", "permute(0, 3, 1, 2)", "clone()"),
            ("loops", "(y * side + x) * channels + c", "(c * side + y) * side + x"),
        ],
        "units not first": [
            ("slices", "len(weight), side, side, -1", "-1, len(weight), side, side",
             "permute(0, 3, 1, 2)", "transpose(0, 1)"),
            ("slices", "len(weight), side, side, -1", "side, side, -1, len(weight)", "(0, 3, 1, 2)", "(3, 2, 0, 1)"),
        ],
        "axes as they came": [
            ("slices", ".permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]", "[::units, ::taps, ::taps]"),
            ("numpy", "[:, :, :, index]", "[:, :, :, index].transpose(2, 3, 1, 0)"),
        ],
        "rows and columns": [
            ("loops", "for x in kept] for y in kept]", "for y in kept] for x in kept]"),
            ("slices", "::taps]", "::taps].transpose(2, 3)"),
        ],
        "first taps": [
            ("loops", "range(0, side, taps)", "range(len(range(0, side, taps)))"),
            ("slices", "::taps, ::taps", ":taps, :taps"),
            ("numpy", "np.arange(0, side, taps)", "np.arange((side + taps - 1) // taps)"),
        ],
        "reshaped": [
            ("slices", "    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]",
             "    filters = filters[::units, ::taps, ::taps]\n"
             "    return filters.reshape(len(filters), -1, *filters.shape[1:3])"),
        ],
        "zeros between": [
            ("slices", "    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]",
             "    filters = filters.permute(0, 3, 1, 2)\n    kept = torch.zeros_like(filters)\n"
             "    kept[::units, :, ::taps, ::taps] = filters[::units, :, ::taps, ::taps]\n    return kept"),
            ("slices", "    return filters.permute(0, 3, 1, 2)[::units, :, ::taps, ::taps]",
             "    filters = filters.permute(0, 3, 1, 2)[::units]\n    kept = torch.zeros_like(filters)\n"
             "    kept[:, :, ::taps, ::taps] = filters[:, :, ::taps, ::taps]\n    return kept"),
        ],
        "first units": [
            ("loops", "range(0, weight.shape[0], units)", "range(weight.shape[0] // units)"),
            ("slices", "[::units,", "[: len(filters[::units]),"),
        ],
        "first one left out": [
            ("slices", "[::units", "[units - 1 :: units"),
            ("numpy", "np.arange(0, side, taps)", "np.arange(taps - 1, side, taps)"),
            ("loops", "range(0, side", "range(taps - 1, side", "range(0, weight", "range(units - 1, weight"),
        ],
        "one direction": [
            ("slices", "::taps, ::taps]", "::taps]"),
            ("slices", "::taps, ::taps]", ":, ::taps]"),
            ("numpy", "[:, :, :, index]", ""),
        ],
        "channels thinned": [
            ("slices", "[::units, :,", "[::units, ::units,"),
            ("slices", "[::units, :,", "[::units, ::taps,"),
        ],
        "units kept": [
            ("slices", "::units", ":"),
            ("loops", "weight.shape[0], units)", "weight.shape[0])"),
        ],
        "taps kept": [
            ("slices", "::taps, ::taps", ":, :"),
            ("numpy", "side, taps)\n    return", "side)\n    return"),
        ],
        "numbers exchanged": [("slices", "side, units, taps", "side, taps, units")],
        "still flat": [
            ("slices", "::taps]", "::taps].flatten(1)"),
            ("numpy", "[:, :, :, index]", "[:, :, :, index].reshape(len(filters[::units]), -1)"),
        ],
    },
    "prior_count": {
        "not squared": [("loop", "side * side", "side"), ("numpy", " ** 2", "")],
        "cells only": [("loop", " * count", ""), ("numpy", " * np.array(per_cell)", "")],
        "sums multiplied": [
            ("numpy", "(cells * np.array(per_cell)).sum()", "cells.sum() * sum(per_cell)"),
            ("sum", "sum(side ** 2 * count for side, count in zip(maps, per_cell))", "sum(maps) ** 2 * sum(per_cell)"),
        ],
        "priors squared": [
            ("sum", "side ** 2 * count", "side * count ** 2"),
            ("sum", "side ** 2 * count", "(side * count) ** 2"),
        ],
        "one level": [("loop", "    return total", "        return total"), ("loop", "total +=", "total =")],
        "numbers of a box": [("loop", "* count", "* count * 4"), ("numpy", "** 2", "** 2 * 4")],
        "rows and columns added": [("loop", "side * side", "(side + side)"), ("numpy", " ** 2", " * 2")],
        "one level's priors": [
            ("loop", "* count", "* per_cell[0]"),
            ("numpy", "np.array(per_cell)", "per_cell[-1]"),
        ],
        "not summed": [("numpy", ".sum()", ""), ("sum", "sum(side", "list(side")],
    },
    "nearest_cell": {
        "row and column exchanged": [
            ("plain", "return row, column", "return column, row"),
            ("numpy", "[y, x]", "[x, y]"),
            ("search", "step - x", "step - z", "step - y", "step - x", "step - z", "step - y"),
        ],
        "nearest corner": [
            ("plain", "int(y // step)", "round(y / step)", "int(x // step)", "round(x / step)"),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "round(place / step)"),
            ("search", "(column + 0.5)", "column", "(row + 0.5)", "row"),
        ],
        "last centre before": [
            ("rounded", "round(", "int("),
            ("numpy", " / step)", " / step - 0.5)"),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "int(place / step - 0.5)"),
        ],
        "cells from 1": [
            ("plain", "return row, column", "return row + 1, column + 1"),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "math.ceil(place / step)"),
            ("rounded", "round(place / step - 0.5)", "math.ceil(place / step)"),
        ],
        "beyond the map": [
            ("rounded", "min(round(place / step - 0.5), side - 1)", "int(place / step)"),
            ("plain", "(y // step), side - 1)", "(y // step), side)", "(x // step), side - 1)", "(x // step), side)"),
        ],
        "place of the centre": [
            ("plain", "return row, column", "return (row + 0.5) * step, (column + 0.5) * step"),
        ],
        "no integers": [
            ("plain", "int(y // step)", "y // step", "int(x // step)", "x // step"),
            ("numpy", ".astype(int)", ""),
            ("rounded", "min(round(place / step - 0.5), side - 1)", "place // step"),
        ],
    },
    "prior_shapes": {
        "mean of the sides": [
            ("loop", "math.sqrt(side * next_side)", "(side + next_side) / 2"),
            ("torch", "math.sqrt(side * next_side)", "0.5 * side + 0.5 * next_side"),
        ],
        "next side itself": [
            ("loop", "math.sqrt(side * next_side)", "next_side"),
            ("expanded", "(larger, larger)", "(next_side, next_side)"),
        ],
        "no root": [("loop", "math.sqrt(ratio)", "ratio"), ("expanded", "r ** 0.5", "r")],
        "one side stretched": [
            ("loop", "math.sqrt(ratio)", "ratio", "side / root))", "side))", "(side / root, ", "(side, "),
            ("torch", "side * r.sqrt(), side / r.sqrt()", "side * r, torch.full_like(r, side)"),
        ],
        "all squares": [
            ("expanded", "side / r ** 0.5", "side * r ** 0.5"),
            ("torch", "side / r.sqrt()", "side * r.sqrt()"),
        ],
        "inverse left out": [
            ("loop", "        shapes.append((side / root, side * root))\n", ""),
            ("expanded", "in (ratio, 1 / ratio)", "in (ratio,)"),
        ],
        "same box twice": [
            ("loop", "(side / root, side * root)", "(side * root, side / root)"),
            ("expanded", "in (ratio, 1 / ratio)", "in (ratio, ratio)"),
        ],
        "tall one first": [
            ("expanded", "in (ratio, 1 / ratio)", "in (1 / ratio, ratio)"),
            ("torch", "side * r.sqrt(), side / r.sqrt()", "side / r.sqrt(), side * r.sqrt()"),
        ],
        "inverses last": [
            ("expanded", "[r for ratio in wide for r in (ratio, 1 / ratio)]",
             "[*wide] + [1 / ratio for ratio in wide]"),
        ],
        "larger square elsewhere": [
            ("loop", "[(side, side), (larger, larger)]", "[(larger, larger), (side, side)]"),
            ("loop", "(side, side), (larger, larger)", "(side, side)",
             "return shapes", "return shapes + [(larger, larger)]"),
        ],
        "larger square left out": [
            ("loop", ", (larger, larger)", ""),
            ("torch", "[side, math.sqrt(side * next_side)]", "[side]"),
        ],
        "larger one stretched": [
            ("loop", "(side * root, side / root)", "(larger * root, larger / root)",
             "(side / root, side * root)", "(larger / root, larger * root)"),
            ("expanded", "(side * r ** 0.5, side / r ** 0.5)", "(larger * r ** 0.5, larger / r ** 0.5)"),
        ],
        "ratios as listed": [
            ("expanded", "[max(ratio, 1 / ratio) for ratio in ratios if ratio != 1]", "ratios"),
            ("expanded", "max(ratio, 1 / ratio)", "ratio"),
            ("loop", "ratio = round(1 / ratio, 6)\n", "pass\n"),
            ("expanded", "    wide = list(dict.fromkeys(wide))\n", "    wide = ratios\n"),
        ],
        "boxes twice": [
            ("expanded", "    wide = list(dict.fromkeys(wide))\n", ""),
            ("loop", "        done.append(ratio)\n", ""),
            ("loop", "        done.append(ratio)\n", "", "[1]", "[]"),
        ],
        "ratio of 1": [("expanded", " if ratio != 1", ""), ("torch", "[1, *wide]", "wide")],
        "ratios below 1 left out": [
            ("expanded", "max(ratio, 1 / ratio)", "ratio", "ratio != 1", "ratio > 1"),
            ("loop", "ratio = round(1 / ratio, 6)\n", "continue\n"),
        ],
        "sorted": [
            ("expanded", "list(dict.fromkeys(wide))", "sorted(set(wide))"),
            ("expanded", "list(dict.fromkeys(wide))", "sorted(set(wide), reverse=True)"),
        ],
        "fractions": [("loop", "return shapes", "return [(w / 300, h / 300) for w, h in shapes]")],
        "root of the side": [
            ("loop", "side * root", "math.sqrt(side * ratio)", "side / root", "math.sqrt(side / ratio)"),
        ],
    },
    "head_channels": {
        "background left out": [("plain", "(classes + 1)", "classes"), ("list", "1 + classes", "classes")],
        "background once": [("plain", "(classes + 1) * per_cell", "classes * per_cell + 1")],
        "one prior only": [("plain", " * per_cell", ""), ("numpy", " * per_cell", "")],
        "heads exchanged": [
            ("plain", "return boxes, scores", "return scores, boxes"),
            ("list", "(4, 1 + classes)", "(1 + classes, 4)"),
        ],
        "two numbers": [("plain", "4 *", "2 *"), ("numpy", "[4,", "[2,")],
        "score in the box": [
            ("plain", "4 *", "5 *"),
            ("plain", "4 *", "5 *", "(classes + 1)", "classes"),
        ],
        "box for each class": [
            ("plain", "4 *", "4 * (classes + 1) *"),
            ("numpy", "[4,", "[4 * classes,"),
        ],
        "VOC's classes": [("plain", "(classes + 1)", "21"), ("list", "1 + classes", "20")],
    },
    "rows_to_head": {
        "no permute": [
            ("permute", "height, width, -1)", "-1, height, width)", "last.permute(0, 3, 1, 2)", "last"),
            ("numpy", "height, width, -1)", "-1, height, width)", "np.moveaxis(last, 3, 1)", "last"),
            ("split", "    split = split.permute(0, 3, 4, 1, 2)\n", ""),
        ],
        "cells not split": [
            ("permute", "rows.reshape(", "rows.permute(0, 2, 1).reshape(", "height, width, -1)", "-1, height, width)",
             "last.permute(0, 3, 1, 2)", "last"),
        ],
        "values first": [
            ("split", "0, 3, 4, 1, 2", "0, 4, 3, 1, 2"),
            ("loops", "a * values + v", "v * k + a"),
            ("split", "height, width, k, values)", "height, width, values, k)", "0, 3, 4, 1, 2", "0, 4, 3, 1, 2"),
        ],
        "columns before rows": [
            ("loops", "y * width + x", "x * height + y"),
            ("permute", "height, width, -1", "width, height, -1", "0, 3, 1, 2", "0, 3, 2, 1"),
        ],
        "prior by prior": [
            ("loops", "(y * width + x) * k + a", "(a * height + y) * width + x"),
            ("split", "rows.view(batch, height, width, k, values)", "rows.view(batch, k, height, width, values)",
             "0, 3, 4, 1, 2", "0, 1, 4, 2, 3"),
        ],
        "map on its side": [
            ("permute", "0, 3, 1, 2", "0, 3, 2, 1"),
            ("split", "0, 3, 4, 1, 2", "0, 3, 4, 2, 1"),
            ("numpy", "np.moveaxis(last, 3, 1)", "np.swapaxes(last, 3, 1)"),
        ],
        "channels last": [
            ("permute", "last.permute(0, 3, 1, 2)", "last"),
            ("numpy", "np.moveaxis(last, 3, 1)", "last"),
        ],
        "axes kept apart": [
            ("split", "return split.reshape(batch, k * values, height, width)", "return split"),
            ("split", "    split = split.permute(0, 3, 4, 1, 2)\n", "",
             "return split.reshape(batch, k * values, height, width)", "return split"),
        ],
        "pictures joined": [
            ("permute", "rows.shape[0], ", "1, "),
            ("permute", "rows.shape[0], ", "", "0, 3, 1, 2", "2, 0, 1"),
        ],
    },
    "prior_address": {
        "row for column": [
            ("loop", "cell // side, cell % side", "cell % side, cell // side"),
            ("numpy", "row, column, shape =", "column, row, shape ="),
        ],
        "shapes apart": [
            ("loop", "cell = index // count", "cell = index % (side * side)",
             "index % count", "index // (side * side)"),
            ("numpy", "row, column, shape =", "shape, row, column =",
             "(maps[level], maps[level], per_cell[level])", "(per_cell[level], maps[level], maps[level])"),
        ],
        "shapes forgotten": [
            ("loop", "cell = index // count", "cell = index"),
            ("loop", "cell = index // count", "cell = index", "index % count", "0"),
            ("loop", "cell = index // count", "cell = index", "index % count", "0",
             "side * side * count", "side * side"),
        ],
        "column of numbers": [("loop", "cell % side", "index % side")],
        "start kept": [("numpy", "left = index - starts[level]", "left = index",
                        "np.unravel_index(left, (maps[level], maps[level], per_cell[level]))",
                        "left // per_cell[level] // maps[level], left // per_cell[level] % maps[level], "
                        "left % per_cell[level]")],
        "edge of a level": [
            ("loop", "index < size", "index <= size"),
        ],
        "one row a level": [("loop", "side * side * count", "side * count",
                             "        index -= size", "        if level < len(maps) - 1:\n            index -= size",
                             "index < size", "index < size or level == len(maps) - 1"),
                            ("loop", "side * side * count", "side * count")],
        "levels of cells": [("loop", "side * side * count", "side * side",
                             "index < size", "index < size or level == len(maps) - 1"),
                            ("loop", "side * side * count", "side * side")],
        "numbers from 1": [
            ("loop", "return level,", "return level + 1,"),
            ("listed", "(level, row, column, shape)", "(level + 1, row + 1, column + 1, shape + 1)"),
        ],
    },
    "encode_box": {
        "no variances": [
            ("plain", " / 0.1", "", " / 0.2", ""),
            ("torch", "shift / 0.1, stretch / 0.2", "shift, stretch"),
        ],
        "multiplied by variances": [("plain", "/ 0.1", "* 0.1", "/ 0.2", "* 0.2")],
        "variances exchanged": [("torch", "shift / 0.1, stretch / 0.2", "shift / 0.2, stretch / 0.1")],
        "one variance": [("plain", "0.2", "0.1"), ("torch", "0.1", "0.2")],
        "no logarithm": [("plain", "math.log", ""), ("torch", ".log()", " - 1")],
        "other base": [("plain", "math.log", "math.log2"), ("torch", ".log()", ".log10()")],
        "width for height": [
            ("plain", "cx, cy, w, h = prior", "cx, cy, h, w = prior"),
            ("plain", "/ h / 0.1", "/ w / 0.1"),
            ("plain", "return dx, dy, dw, dh", "return dx, dy, dh, dw"),
            ("plain", "(xmax - xmin) / w", "(ymax - ymin) / w", "(ymax - ymin) / h", "(xmax - xmin) / h"),
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
        ],
        "no objects": [("torch", "free.numel() and ", "")],
    },
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
    "prior_bias": {
        "sign": [("plain", "return -", "return "), ("numpy", "pi / (1 - pi)", "(1 - pi) / pi")],
        "one probability": [
            ("plain", "(1 - pi) / pi", "pi"),
            ("difference", " - math.log(1 - pi)", ""),
            ("difference", "math.log(pi) - ", "-"),
            ("difference", "math.log(pi) - ", ""),
        ],
        "odds": [("numpy", "np.log(odds)", "odds"), ("plain", "math.log", "")],
        "other base": [("plain", "math.log", "math.log10"), ("numpy", "np.log", "np.log2")],
        "sigmoid": [
            ("torch", ".logit()", ".sigmoid()"),
            ("plain", "-math.log((1 - pi) / pi)", "1 / (1 + math.exp(-pi))"),
        ],
        "score": [("torch", ".logit()", ""), ("plain", "-math.log((1 - pi) / pi)", "pi")],
        "divided first": [("numpy", "pi / (1 - pi)", "1 - pi / pi"),
                          ("torch", "torch.tensor(pi).logit()", "-torch.log(torch.tensor(1 - pi / pi))")],
    },
    "initial_focal": {
        "background asked": [
            ("plain", "priors * classes", "priors * (classes + 1)"),
            ("numpy", "positives * (classes - 1) + (priors - positives) * classes",
             "positives * classes + (priors - positives) * (classes + 1)"),
        ],
        "positives say one thing": [
            ("numpy", "positives * (classes - 1) + ", ""),
            ("plain", "priors * classes - positives", "(priors - positives) * classes"),
        ],
        "yes and no": [("plain", " * classes - positives", " * classes"), ("numpy", "(classes - 1)", "classes")],
        "one question": [("plain", " * classes - positives", " - positives"), ("plain", " * classes - positives", "")],
        "mined": [("plain", "priors * classes - positives", "3 * positives")],
        "noes left out": [("plain", " + noes * no", "")],
        "yeses left out": [
            ("plain", "positives * yes + ", ""),
            ("numpy", "(count * cost).sum()", "count[1] * cost[1]"),
        ],
        "sum not divided": [("plain", " / max(positives, 1)", ""), ("torchvision", " / max(1, positives)", "")],
        "mean": [
            ("plain", "max(positives, 1)", "priors"),
            ("torchvision", 'reduction="sum"', 'reduction="mean"', " / max(1, positives)", ""),
        ],
        "no weights": [
            ("plain", "-alpha *", "-", "-(1 - alpha) *", "-"),
            ("torchvision", "alpha, gamma, reduction", "-1, gamma, reduction"),
        ],
        "one weight": [("numpy", "[alpha, 1 - alpha]", "[alpha, alpha]"), ("plain", "-(1 - alpha)", "-alpha")],
        "no weighs 1": [("plain", "-(1 - alpha) *", "-")],
        "weights exchanged": [
            ("numpy", "[alpha, 1 - alpha]", "[1 - alpha, alpha]"),
            ("torchvision", "alpha, gamma, reduction", "1 - alpha, gamma, reduction"),
        ],
        "counts exchanged": [
            ("plain", "positives * yes + noes * no", "noes * yes + positives * no"),
            ("numpy", "(count * cost)", "(count[::-1] * cost)"),
        ],
        "one half": [("numpy", "[pi, 1 - pi]", "[0.5, 0.5]"), ("torchvision", "math.log(pi / (1 - pi))", "0.0")],
        "scores exchanged": [
            ("numpy", "[pi, 1 - pi]", "[1 - pi, pi]"),
            ("torchvision", "pi / (1 - pi)", "(1 - pi) / pi"),
        ],
        "one score": [("numpy", "[pi, 1 - pi]", "[pi, pi]")],
        "no focus": [
            ("plain", " * (1 - pi) ** gamma", "", " * pi ** gamma", ""),
            ("torchvision", "alpha, gamma, reduction", "alpha, 0, reduction"),
        ],
        "focus on the right": [
            ("numpy", "(1 - p_t) ** gamma", "p_t ** gamma"),
            ("plain", "(1 - pi) ** gamma", "Y", " pi ** gamma", " (1 - pi) ** gamma", "Y", "pi ** gamma"),
        ],
        "focus multiplied": [("numpy", "(1 - p_t) ** gamma", "(1 - p_t) * gamma")],
        "below zero": [("numpy", "-weight", "weight"), ("plain", "= -", "= ")],
        "logarithm": [("plain", "math.log", "math.log2"), ("numpy", "np.log", "np.log10")],
        "no positive": [
            ("plain", "max(positives, 1)", "positives"),
            ("numpy", "(positives or 1)", "positives"),
            ("torchvision", "max(1, positives)", "positives"),
            ("plain", "yes = -", "if positives == 0:\n        return 0.0\n    yes = -"),
        ],
    },
    "focal_term": {
        "focus turned round": [
            ("naive", "(1 - p_t) ** gamma", "p_t ** gamma"),
            ("plain", "wrong ** gamma", "(1 - wrong) ** gamma"),
            ("torch", "torch.sigmoid(-z)", "torch.sigmoid(z)"),
        ],
        "p for p_t": [
            ("torch", "sign * logit", "logit"),
            ("naive", "(1 - p_t) ** gamma", "(1 - p) ** gamma"),
            ("torch", "torch.sigmoid(-z)", "torch.sigmoid(torch.tensor(-logit))"),
            ("torch", "logsigmoid(z)", "logsigmoid(torch.tensor(logit))"),
        ],
        "alpha for both": [
            ("plain", "-logit, 1 - alpha", "-logit, alpha"),
            ("torch", "weight = alpha if wanted else 1 - alpha", "weight = alpha"),
        ],
        "alpha for no": [
            ("torch", "alpha if wanted else 1 - alpha", "1 - alpha if wanted else alpha"),
            ("torchvision", "target, alpha", "target, 1 - alpha"),
        ],
        "no alpha": [
            ("plain", "alpha * wrong", "wrong"),
            ("torchvision", "target, alpha", "target, -1"),
        ],
        "no without a weight": [("torch", "else 1 - alpha", "else 1"), ("plain", "-logit, 1 - alpha", "-logit, 1")],
        "no minus": [("torch", "-weight", "weight"), ("naive", "-weight", "weight")],
        "base of the logarithm": [
            ("naive", "math.log(p_t) if p_t > 0 else -abs(logit)",
             "math.log10(p_t) if p_t > 0 else -abs(logit) / math.log(10)"),
            ("plain", "math.log1p(math.exp(-logit))", "math.log2(1 + math.exp(-logit))"),
        ],
        "times gamma": [("plain", "wrong ** gamma", "wrong * gamma"), ("torch", "(-z) ** gamma", "(-z) * gamma")],
        "no gamma": [("plain", "wrong ** gamma * ", ""), ("torchvision", "target, alpha, gamma", "target, alpha, 0")],
        "always squared": [
            ("torchvision", ", gamma)", ")", "wanted, alpha)", "wanted, alpha, gamma)"),
            ("naive", "** gamma", "** 2"),
        ],
        "no sigmoid": [
            ("naive", "1 / (1 + math.exp(-logit))", "logit", " if p_t > 0 else -abs(logit)", ""),
            ("naive", "1 / (1 + math.exp(-logit))", "torch.tensor(logit)",
             "math.log(p_t) if p_t > 0 else -abs(logit)", "torch.log(p_t)"),
        ],
        "logarithm of 0": [
            ("naive", " if p_t > 0 else -abs(logit)", ""),
            ("naive", "math.log(p_t) if p_t > 0 else -abs(logit)", "np.log(p_t)"),
            ("torch", "torch.nn.functional.logsigmoid(z)", "torch.log(1 - torch.sigmoid(-z))"),
        ],
        "kept away from 0": [
            ("naive", "math.log(p_t) if p_t > 0 else -abs(logit)", "math.log(max(p_t, 1e-8))"),
            ("naive", "math.log(p_t) if p_t > 0 else -abs(logit)", "np.log(p_t + 1e-12)"),
            ("naive", "1 / (1 + math.exp(-logit))",
             "torch.tensor(logit).sigmoid().clamp(1e-7, 1 - 1e-7)",
             "math.log(p_t) if p_t > 0 else -abs(logit)", "torch.log(p_t)"),
        ],
    },
}  # fmt: skip


def written(exercise, style, *edits):
    """A reader's function: a right answer, with each odd edit replaced by the even one that follows it."""
    source = dedent(SOURCES[exercise][style])
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in source, old
        source = source.replace(old, new)
    scope = {"math": math, "np": np, "torch": torch, "torchvision": torchvision}
    exec(source, scope)
    return scope[exercise]


class Page(HTMLParser):
    """What a verdict is made of: tags with their attributes, and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def well_formed(verdict):
    """Fits its column, says its pictures in words, and asks for nothing from outside."""
    page = Page(verdict._repr_html_())
    (root, attributes), *others = page.tags
    assert root == "div" and attributes["class"] == f"check check-{'passed' if verdict else 'failed'}"
    assert {tag for tag, _ in others} <= {"p", "strong", "code", "svg", "polygon", "text", "table", "tr", "th", "td"}
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href", "onload"))
    assert "url(" not in verdict._repr_html_() and "http" not in verdict._repr_html_()
    for tag, attributes in others:
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 20
            assert float(attributes["width"]) <= 420 and "max-width:100%" in attributes["style"]
            assert "nan" not in verdict.picture and "inf" not in verdict.picture
    return page


def failing(exercise, function):
    verdict = check(exercise, function)
    assert not verdict
    well_formed(verdict)
    return verdict
