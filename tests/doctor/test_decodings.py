import pytest
import torch
from tiny_patient import SPEC, some_batch

from course_lib.boxes import to_cxcywh
from course_lib.detect import Detections, detect
from course_lib.doctor.decodings import difference
from course_lib.matching import match

PRIORS = SPEC.boxes()


@pytest.fixture(scope="module")
def outputs():
    """Of a network that knows everything, and is not wholly sure of it."""
    batch = some_batch()
    matches = match(batch.boxes, batch.labels, PRIORS)
    chance = torch.Generator().manual_seed(0)
    offsets = matches.offsets + 0.05 * torch.randn(matches.offsets.shape, generator=chance)
    offsets[matches.labels == 0] += 1.5
    return offsets, 6.0 * torch.nn.functional.one_hot(matches.labels, 4).float()


def said(outputs, own):
    offsets, logits = outputs
    return difference(own, detect(offsets, logits, PRIORS), offsets, PRIORS).seen


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda boxes: boxes[:, [1, 0, 3, 2]], "x and y exchanged"),
        (lambda boxes: boxes * 300, "300 times as large"),
        (to_cxcywh, "centre and size"),
        (lambda boxes: torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1), "corner and size"),
        (lambda boxes: boxes + 0.3, "shifted by [0.3, 0.3, 0.3, 0.3]"),
    ],
)
def test_boxes_that_are_written_otherwise_are_named(outputs, change, words):
    own = [one._replace(boxes=change(one.boxes)) for one in detect(*outputs, PRIORS)]
    assert words in said(outputs, own)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        ((10, 10, 5, 5), "without variances"),
        ((2, 2, 0.5, 0.5), "variances exchanged"),
        ((0, 0, 0, 0), "without the offsets"),
    ],
)
def test_offsets_that_are_decoded_otherwise_are_named(outputs, factor, words):
    offsets, logits = outputs
    assert words in said(outputs, detect(offsets * torch.tensor(factor), logits, PRIORS))


def test_labels_that_are_shifted_or_exchanged_are_named(outputs):
    book = detect(*outputs, PRIORS)
    assert "off by -1" in said(outputs, [one._replace(labels=one.labels - 1) for one in book])
    exchanged = torch.tensor([0, 2, 3, 1])
    assert "labels are others" in said(outputs, [one._replace(labels=exchanged[one.labels]) for one in book])


def test_scores_thresholds_and_missing_suppression_are_named(outputs):
    offsets, logits = outputs
    book = detect(offsets, logits, PRIORS)
    assert "no probabilities" in said(outputs, [one._replace(scores=one.scores * 12 - 3) for one in book])
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    assert "no box at all" in said(outputs, [empty] * len(book))
    doubled = [Detections(*(value.repeat_interleave(5, dim=0) for value in one)) for one in book]
    assert "near copies" in said(outputs, doubled)


@pytest.mark.parametrize(("power", "words"), [(1, "multiplied by the other side"), (-1, "divided by the other side")])
def test_boxes_that_are_scaled_by_the_other_side_of_the_image_are_named(outputs, power, words):
    right = detect(*outputs, PRIORS)
    sizes = [(500, 300) if number % 2 else (300, 500) for number in range(len(right))]
    own = [
        one._replace(boxes=one.boxes * torch.tensor([h / w, w / h] * 2) ** power)
        for one, (w, h) in zip(right, sizes, strict=True)
    ]
    found = difference(own, right, outputs[0], PRIORS, sizes)
    assert words in found.seen
