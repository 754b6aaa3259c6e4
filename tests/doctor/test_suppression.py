import pytest
import torch
from small_patient import has, seen_in, small_setup
from torchvision.ops import batched_nms, nms

from course_lib.boxes import box_iou, decode
from course_lib.detect import Detections, detect
from course_lib.doctor import suppression
from course_lib.doctor.patient import evaluating
from course_lib.priors import SSD300

NAME = "suppression-goes-by-overlap"


@pytest.fixture
def setup(small_devkit):
    return small_setup(small_devkit)


def by(overlaps, threshold):
    """Greedy suppression by any table of overlaps."""

    def kept(boxes, scores, labels):
        order, rows = scores.argsort(descending=True).tolist(), []
        table = overlaps(boxes, boxes)
        for one in order:
            if all(labels[one] != labels[other] or table[one, other] <= threshold for other in rows):
                rows.append(one)
        return torch.tensor(rows, dtype=torch.int64)

    return kept


def detecting(kept):
    """A detection that suppresses in its own way."""

    def made(patient):
        @torch.no_grad()
        def detect(batch):
            with evaluating(patient.model):
                offsets, logits = patient.outputs(batch)
            found = []
            for boxes, scores in zip(decode(offsets, patient.priors), logits.softmax(-1), strict=True):
                prior, label = (scores[:, 1:] > 0.2).nonzero().unbind(1)
                chosen, sure = boxes[prior], scores[prior, label + 1]
                rows = kept(chosen, sure, label)
                found.append(Detections(chosen[rows], sure[rows], label[rows] + 1))
            return found

        return detect

    return made


def with_one_added(a, b):
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    inside, areas = (high - low + 1).clamp(min=0).prod(2), [(one[:, 2:] - one[:, :2] + 1).prod(1) for one in (a, b)]
    return inside / (areas[0][:, None] + areas[1] - inside)


def area_and_area(a, b):
    iou = box_iou(a, b)
    return iou / (1 + iou)


@pytest.mark.parametrize(
    ("kept", "severity", "words"),
    [
        (by(with_one_added, 0.45), "fault", "that do not touch"),
        (by(lambda a, b: torch.ones(len(a), len(b)), 0.5), "fault", "that do not touch"),
        (by(lambda a, b: box_iou(a, b).sign() - box_iou(a, b), 0.55), "warning", "drops one of two boxes"),
        (by(box_iou, 0.05), "warning", "by an IoU of 0.1"),
        (by(box_iou, 0.9), "warning", "keeps two boxes"),
        (by(area_and_area, 0.45), "warning", "keeps two boxes"),
    ],
)
def test_suppression_by_something_else_is_named(setup, kept, severity, words):
    setup.made_last["detect"] = detecting(kept)
    has(seen_in(setup.patient(), NAME), severity, words)


@pytest.mark.parametrize("threshold", [None, 0.3, 0.45, 0.5, 0.6, 0.7])
def test_usual_suppression_is_left_in_peace(setup, threshold):
    if threshold is not None:
        setup.made_last["detect"] = detecting(lambda b, s, n: batched_nms(b, s, n, threshold))
    assert seen_in(setup.patient(), NAME) == []


def test_scenes_have_the_overlaps_that_they_say():
    every = suppression.scenes(SSD300.boxes())
    assert [one.overlap is None for one in every] == [False] * (len(every) - 1) + [True] and len(every) > 6
    for scene in every[:-1]:
        # Sides of a twentieth and more of the image, in float32.
        assert abs(float(box_iou(scene.boxes[:1], scene.boxes[1:])) - scene.overlap) < 1e-4


def best_of_the_batch(detections, kept):
    """The surest of all images together."""
    scores = torch.cat([one.scores for one in detections])
    least = scores.topk(min(kept, len(scores))).values[-1]
    return [Detections(*(values[one.scores >= least] for values in one)) for one in detections]


@pytest.mark.parametrize(("kept", "found"), [(20, True), (10_000, False), (None, False)])
def test_what_is_detected_in_an_image_does_not_depend_on_its_neighbours(setup, kept, found):
    patient = setup.patient()
    usual = patient.detect
    if kept is not None:
        patient.detect = lambda batch: best_of_the_batch(usual(batch), kept)
    findings = seen_in(patient, "detects-each-image-by-itself")
    assert [one.severity for one in findings] == ["fault"] * found
    assert not found or "beside images that are full" in findings[0].seen


def test_boxes_that_are_suppressed_across_images_are_named(setup):
    patient = setup.patient()

    def own(batch):
        patient.model.eval()
        offsets, logits = patient.model(patient.read(batch).images)
        every = detect(offsets, logits, patient.priors)
        boxes, scores = torch.cat([one.boxes for one in every]), torch.cat([one.scores for one in every])
        kept = nms(boxes, scores, 0.45)
        image = torch.arange(len(every)).repeat_interleave(torch.tensor([len(one.scores) for one in every]))
        values = boxes, scores, torch.cat([one.labels for one in every])
        return [Detections(*(one[kept[image[kept] == place]] for one in values)) for place in range(len(every))]

    patient.detect = own
    assert [one.severity for one in seen_in(patient, "detects-each-image-by-itself")] == ["fault"]
