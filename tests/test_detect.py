import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import corner_boxes, priors_cxcywh

from course_lib import ssd, voc
from course_lib.boxes import decode, encode
from course_lib.detect import detect, detect_all, detect_image, detect_one
from course_lib.losses import FocalLoss
from course_lib.nms import nms

# Exponentials of a batch and of one image: the last digits may differ, as the routine does for the end of a row.
ALIKE = {"rtol": 1e-6, "atol": 1e-6}


def plain_detect(offsets, logits, priors, score_threshold, iou_threshold, top_k, max_detections):
    """The same steps with torchvision's NMS, one image at a time."""
    found = []
    for offset, logit in zip(offsets, logits, strict=True):
        boxes, scores = decode(offset, priors).clamp(0, 1), logit.softmax(-1)
        rows = []
        for label in range(1, logit.shape[1]):
            order = scores[:, label].argsort(descending=True, stable=True)
            order = order[scores[order, label] > score_threshold][:top_k]
            kept = order[torchvision.ops.nms(boxes[order], scores[order, label], iou_threshold)].tolist()
            rows += [(scores[p, label].item(), label, boxes[p].tolist()) for p in kept]
        found.append(sorted(rows, key=lambda row: -row[0])[:max_detections])
    return found


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**20), st.sampled_from([5, 400]), st.sampled_from([3, 200]))
def test_detect_equals_the_plain_twin(seed, top_k, max_detections):
    g = torch.Generator().manual_seed(seed)
    priors = priors_cxcywh(50, seed)
    offsets, logits = torch.randn(2, 50, 4, generator=g), 3 * torch.randn(2, 50, 4, generator=g)
    settings_ = (0.05, 0.45, top_k, max_detections)
    for ours, twin in zip(
        detect(offsets, logits, priors, *settings_), plain_detect(offsets, logits, priors, *settings_), strict=True
    ):
        scores, boxes = torch.tensor([row[0] for row in twin]), torch.tensor([row[2] for row in twin]).reshape(-1, 4)
        torch.testing.assert_close(ours.scores, scores, **ALIKE)
        assert ours.labels.tolist() == [row[1] for row in twin]
        torch.testing.assert_close(ours.boxes, boxes, **ALIKE)


@settings(deadline=None, max_examples=50)
@given(corner_boxes(maximum=40, smallest=0.05), st.integers(0, 2**20), st.sampled_from([0, 3, 400]), st.integers(0, 60))
def test_of_equal_scores_the_smaller_label_and_then_the_earlier_prior_comes_first(boxes, seed, top_k, max_detections):
    """Class by class, each with its own cut and NMS: to the last bit, ties included."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(boxes), 4, generator=g).round(decimals=1)
    rows = []
    for label in range(1, 4):
        order = sorted(range(len(boxes)), key=lambda prior: -scores[prior, label].item())
        order = torch.tensor([p for p in order if scores[p, label] > 0.2][:top_k], dtype=torch.int64)
        rows += [(scores[p, label].item(), label, p) for p in order[nms(boxes[order], scores[order, label], 0.45)]]
    rows = sorted(rows, key=lambda row: -row[0])[:max_detections]
    found = detect_one(boxes, scores, 0.2, 0.45, top_k, max_detections)
    assert found.labels.tolist() == [label for _, label, _ in rows]
    assert found.scores.tolist() == [score for score, _, _ in rows]
    assert found.boxes.tolist() == [boxes[prior].tolist() for _, _, prior in rows]


def test_a_perfect_network_finds_exactly_what_is_there():
    priors = ssd.SSD_MINI.boxes()
    box = torch.tensor([[0.2, 0.3, 0.5, 0.7]])
    logits = torch.full((1, len(priors), 21), -20.0)
    logits[..., 0] = 20
    logits[0, 1000, 0], logits[0, 1000, 15] = -20, 20
    found = detect(encode(box.expand(len(priors), 4), priors)[None], logits, priors)[0]
    assert found.labels.tolist() == [15] and found.scores.item() == pytest.approx(1)
    torch.testing.assert_close(found.boxes, box, rtol=0, atol=1e-5)  # offsets of up to 30 and back, in float32


def test_a_network_sure_of_background_finds_nothing():
    priors = ssd.SSD_MINI.boxes()
    logits = torch.zeros(1, len(priors), 21)
    logits[..., 0] = 50
    assert len(detect(torch.zeros(1, len(priors), 4), logits, priors)[0].scores) == 0


def test_a_network_trained_with_focal_loss_is_read_by_the_scores_of_its_loss():
    """It answers yes or no for each class, and never learned a logit for background."""
    priors = ssd.SSD_MINI.boxes()
    logits = torch.full((1, len(priors), 21), -20.0)
    logits[..., 0] = 50
    logits[0, 1000, 15] = 3
    offsets = torch.zeros(1, len(priors), 4)
    assert len(detect(offsets, logits, priors)[0].scores) == 0
    found = detect(offsets, logits, priors, scoring=FocalLoss.scoring)[0]
    assert found.labels.tolist() == [15] and found.scores.item() == pytest.approx(0.953, abs=1e-3)


def test_detect_all_leaves_the_model_in_its_mode_and_running_statistics_alone(small_devkit):
    model = ssd.ssd_mini().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image, _ = voc.VOCDetection(small_devkit, "2007", "test")[0]
    found = detect_image(model, image, score_threshold=0.06)
    assert model.training and (found.boxes >= 0).all() and (found.boxes <= 1).all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert detect_all(model, []) == []
