"""Small image sets for the metric: what is in each image, and what a detector says of it."""

import numpy as np
import torch
from hypothesis import strategies as st

from course_lib.detect import Detections
from course_lib.voc import Target

SIDE = 128  # pixels; a power of two, so that fractions of it are exact


def target(image_id, boxes, labels, difficult=None, size=(SIDE, SIDE)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / torch.tensor(size * 2)
    difficult = torch.tensor(difficult or [False] * len(labels), dtype=torch.bool)
    return Target(boxes, torch.tensor(labels, dtype=torch.int64), difficult, image_id, size)


def found(boxes, scores, labels, size=(SIDE, SIDE)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / torch.tensor(size * 2)
    return Detections(boxes, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


@st.composite
def scenes(draw, ties=False, classes=2):
    """Boxes on a coarse grid, so that equal overlaps, duplicates and misses are common; with `ties` few scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    truths, detections = [], []
    for image in range(draw(st.integers(1, 4))):

        def boxes(count):
            low = rng.integers(0, 8, (count, 2)) * 10
            return np.concatenate([low, low + rng.integers(1, 4, (count, 2)) * 8], axis=1).tolist()

        n, m = rng.integers(0, 5), rng.integers(0, 8)
        difficult = (rng.random(n) < 0.3).tolist()
        truths.append(target(f"{image}", boxes(n), rng.integers(1, classes + 1, n).tolist(), difficult))
        scores = rng.integers(0, 3, m) / 2 if ties else rng.permutation(1000)[:m] / 1000 + image / 10_000_000
        detections.append(found(boxes(m), scores.tolist(), rng.integers(1, classes + 1, m).tolist()))
    return detections, truths


@st.composite
def far_apart(draw):
    """Three classes, images of 1024 pixels, no two objects near each other, each found about once: no rival objects.

    There VOC's rule and COCO's are the same. No object's area is near an edge of sizes, and as sides are odd numbers of
    half pixels, no area lies on one.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    truths, detections, size = [], [], (1024, 1024)
    for image in range(draw(st.integers(1, 3))):
        n, extra = rng.integers(0, 7), rng.integers(0, 4)
        cells = rng.permutation(16)[:n]
        low = np.stack([cells % 4, cells // 4], axis=1) * 256.0
        sides = rng.choice([10.5, 20.5, 60.5, 150.5, 200.5], (n, 1)) + rng.integers(-2, 3, (n, 2))
        boxes = np.concatenate([low, low + sides], axis=1)
        labels = rng.integers(1, 4, n)
        moved = boxes + rng.integers(-2, 3, (n, 4))
        low = rng.integers(0, 800, (extra, 2))
        strays = np.concatenate([low, low + rng.choice([15.5, 40.5, 120.5], (extra, 2))], axis=1)
        scores = rng.permutation(1000)[: 2 * n + extra] / 1000 + image / 10_000_000
        found_labels = np.concatenate([labels, np.roll(labels, 1), rng.integers(1, 4, extra)])
        truths.append(target(f"{image}", boxes.tolist(), labels.tolist(), size=size))
        detections.append(found(np.concatenate([moved, boxes, strays]).tolist(), scores.tolist(), found_labels, size))
    return detections, truths
