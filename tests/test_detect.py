import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import corner_boxes, priors_cxcywh

from course_lib import ssd, voc
from course_lib.boxes import decode, encode
from course_lib.detect import decode_scores, detect, detect_all, detect_image, detect_one, select
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


def test_where_the_best_candidates_leave_too_few_more_are_taken_from_the_same_image():
    """All boxes of an image are one box: each class keeps one, however many candidates there are."""
    g = torch.Generator().manual_seed(0)
    priors = torch.tensor([[0.5, 0.5, 0.4, 0.4]]).expand(300, 4)
    offsets = torch.randn(3, 1, 4, generator=g).expand(3, 300, 4)
    for one, offset in zip(detect(offsets, torch.randn(3, 300, 6, generator=g), priors), offsets, strict=True):
        assert sorted(one.labels.tolist()) == [1, 2, 3, 4, 5]
        torch.testing.assert_close(one.boxes, decode(offset[:5], priors[:5]).clamp(0, 1), **ALIKE)


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


def select_of(boxes, scores, *cuts, count):
    return select(lambda image, prior: boxes[image, prior], scores, *cuts, count)


def equal(ours, theirs):
    return all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.sampled_from([1, 7, 50]), st.sampled_from([3, 400]), st.sampled_from([0.3, 4]))
def test_how_many_candidates_are_looked_at_first_changes_nothing(seed, max_detections, top_k, scale):
    """All at once, or a few first and then more where NMS leaves too few: the same detections, ties included."""
    g = torch.Generator().manual_seed(seed)
    boxes = (torch.rand(3, 60, 2, 2, generator=g).round(decimals=1)).sort(dim=2).values.flatten(2)
    scores = (scale * torch.randn(3, 60, 5, generator=g)).round().softmax(dim=-1)
    cuts = 0.05, 0.45, top_k, max_detections
    every = select_of(boxes, scores, *cuts, count=10**6)
    for count in (1, 5, 60):
        assert equal(select_of(boxes, scores, *cuts, count=count), every)
    assert equal([detect_one(b, s, *cuts) for b, s in zip(boxes, scores, strict=True)], every)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**20))
def test_the_order_of_images_and_of_classes_changes_nothing(seed):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(4, 40, 2, 2, generator=g).sort(dim=2).values.flatten(2)
    scores = torch.rand(4, 40, 6, generator=g)  # no two are equal
    cuts = 0.3, 0.45, 10, 25
    found = select_of(boxes, scores, *cuts, count=50)
    images, classes = torch.randperm(4, generator=g), torch.randperm(5, generator=g)
    permuted = select_of(boxes[images], scores[images][..., [0, *(classes + 1).tolist()]], *cuts, count=50)
    for image, one in zip(images.tolist(), permuted, strict=True):
        assert equal([one._replace(labels=classes[one.labels - 1] + 1)], [found[image]])


def test_no_images_and_no_classes_give_no_detections():
    priors = ssd.SSD_MINI.boxes()
    assert detect(torch.zeros(0, len(priors), 4), torch.zeros(0, len(priors), 21), priors) == []
    assert len(detect(torch.zeros(1, len(priors), 4), torch.zeros(1, len(priors), 1), priors)[0].scores) == 0


class Decoder(torch.nn.Module):
    def __init__(self, priors, scoring):
        super().__init__()
        self.register_buffer("priors", priors)
        self.scoring = scoring

    def forward(self, offsets, logits):
        return decode_scores(offsets, logits, self.priors, self.scoring)


def test_decode_scores_is_the_first_half_of_detect_and_can_be_exported():
    g = torch.Generator().manual_seed(0)
    priors, batch = ssd.SSD_MINI.boxes(), torch.export.Dim("batch")
    offsets, logits = torch.randn(2, len(priors), 4, generator=g), 3 * torch.randn(2, len(priors), 5, generator=g)
    for scoring, twin in (("softmax", logits.softmax(dim=-1)), ("sigmoid", logits.sigmoid())):
        boxes, scores = decode_scores(offsets, logits, priors, scoring)
        torch.testing.assert_close(boxes, decode(offsets, priors).clamp(0, 1), **ALIKE)
        torch.testing.assert_close(scores, twin, **ALIKE)
        for one, whole, other in zip(boxes, scores, detect(offsets, logits, priors, scoring=scoring), strict=True):
            for ours, twin in zip(other, detect_one(one, whole, 0.01, 0.45, 400, 200), strict=True):
                torch.testing.assert_close(ours, twin, **ALIKE)
        exported = torch.export.export(
            Decoder(priors, scoring), (offsets, logits), dynamic_shapes=({0: batch}, {0: batch})
        )
        other = torch.randn(3, len(priors), 4, generator=g), torch.randn(3, len(priors), 5, generator=g)
        assert equal([exported.module()(*other)], [decode_scores(*other, priors, scoring)])
    half = decode_scores(offsets.half(), logits.bfloat16(), priors)
    assert all(values.dtype == torch.float32 for values in half)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["offsets", "logits"])
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_outputs_that_are_not_finite_are_an_error_and_not_an_empty_picture(value, name, scoring):
    """NaN weights found nothing, without a word: no comparison with NaN is true."""
    priors = ssd.SSD_MINI.boxes()
    outputs = {"offsets": torch.zeros(3, len(priors), 4), "logits": torch.zeros(3, len(priors), 21)}
    outputs[name][1, 7, 2] = value
    with pytest.raises(ValueError, match=rf"the outputs are not finite: 1 of \d+ {name}.*images \[1\]"):
        detect(**outputs, priors=priors, scoring=scoring)


def test_outputs_that_are_large_but_finite_are_no_error():
    priors = ssd.SSD_MINI.boxes()
    outputs = torch.zeros(1, len(priors), 4), torch.full((1, len(priors), 21), 3e38)
    assert len(detect(*outputs, priors)) == 1
    assert len(detect(outputs[0].half(), torch.full((1, len(priors), 21), 60_000.0).half(), priors)) == 1


def test_a_network_with_nan_weights_says_so(small_devkit):
    model = ssd.ssd_mini()
    with torch.no_grad():
        model.get_parameter(next(name for name, _ in model.named_parameters())).fill_(float("nan"))
    image, _ = voc.VOCDetection(small_devkit, "2007", "test")[0]
    with pytest.raises(ValueError, match="the outputs are not finite"):
        detect_image(model, image)
