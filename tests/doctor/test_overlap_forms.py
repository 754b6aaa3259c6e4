import pytest
import torch
from tiny_patient import SPEC

from course_lib.boxes import area, box_iou, to_corners, to_cxcywh
from course_lib.doctor.overlap_forms import other_measure

PRIORS = SPEC.boxes()
CORNERS = to_corners(PRIORS)


def scattered(images=8):
    """Objects of many sizes, three in each image."""
    chance = torch.Generator().manual_seed(0)
    size = torch.rand(images, 3, 2, generator=chance) * 0.5 + 0.1
    low = torch.rand(images, 3, 2, generator=chance) * (1 - size)
    return torch.cat([low, low + size], dim=2)


def positives(measure, threshold=0.5):
    """What a matching by a measure makes positive: what reaches the threshold, and each object's best prior."""
    found = []
    for boxes in scattered():
        values = measure(boxes, CORNERS)
        positive = values.amax(dim=0) >= threshold
        positive[values.argmax(dim=1)] = True
        found.append((boxes, positive))
    return found


def in_pixels_formula(boxes, priors):
    """PASCAL's own, for pixels that count from 1 and belong to the box."""
    table = torch.zeros(len(boxes), len(priors))
    for row, a in enumerate(boxes.tolist()):
        for column, b in enumerate(priors.tolist()):
            w, h = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
            inside = max(w, 0) * max(h, 0)
            areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
            table[row, column] = inside / (sum(areas) - inside)
    return table


def inside(boxes, priors):
    low, high = torch.maximum(boxes[:, None, :2], priors[:, :2]), torch.minimum(boxes[:, None, 2:], priors[:, 2:])
    return (high - low).clamp(min=0).prod(dim=2)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (in_pixels_formula, "with 1 added to all sides"),
        (lambda boxes, priors: inside(boxes, priors) / area(boxes)[:, None], "over the object's area alone"),
        (lambda boxes, priors: inside(boxes, priors) / area(priors), "over the prior's area alone"),
        (lambda boxes, priors: box_iou(boxes, to_cxcywh(priors)), "priors' centres and sizes read as corners"),
    ],
)
def test_another_measure_than_iou_is_named(measure, words):
    assert words in other_measure(positives(measure), PRIORS)


@pytest.mark.parametrize("threshold", [0.35, 0.4, 0.5, 0.6])
def test_iou_is_no_other_measure_at_any_threshold(threshold):
    assert other_measure(positives(box_iou, threshold), PRIORS) is None


def test_positives_by_chance_are_of_no_measure():
    chance = torch.Generator().manual_seed(1)
    some = [(boxes, torch.rand(len(PRIORS), generator=chance) < 0.1) for boxes in scattered()]
    assert other_measure(some, PRIORS) is None
