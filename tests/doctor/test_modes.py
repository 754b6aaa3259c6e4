import pytest
import torch
from small_patient import has, seen_in, small_setup

from course_lib import losses
from course_lib.boxes import box_iou, to_corners
from course_lib.detect import Detections, detect
from course_lib.doctor.modes import CHECKS, two_in_one_place
from course_lib.nms import nms
from course_lib.priors import SSD300, SSD_MINI

NAMES = [one.name for one in CHECKS]


@pytest.fixture
def setup(small_devkit):
    setup = small_setup(small_devkit)
    setup.pretrained = {f"backbone.{name}": t.clone() for name, t in setup.model.backbone.state_dict().items()}
    return setup


def look(patient):
    return seen_in(patient, *NAMES)


def test_usual_modes_are_healthy(setup):
    assert look(setup.patient()) == []


def test_statistics_of_a_dummy_forward_are_named(setup):
    with torch.no_grad():
        setup.model.backbone(torch.zeros(2, 3, 96, 96))
    has(seen_in(setup.patient(), "batch-norm-statistics"), "fault", "the same in all")


def test_statistics_that_are_not_the_pretrained_ones_are_named(setup):
    with torch.no_grad():
        setup.model.backbone(torch.randn(2, 3, 96, 96))
    has(seen_in(setup.patient(), "batch-norm-statistics"), "warning", "not those of the pretrained weights")


def test_statistics_of_other_pixels_are_named(setup):
    with torch.no_grad():
        for _ in range(40):
            setup.model(setup.patient().first_batches(1)[0].images)
    assert seen_in(setup.patient(), "batch-norm-has-batches") == []
    setup.model.std *= 0.01
    has(seen_in(setup.patient(), "batch-norm-has-batches"), "warning", "times what")


def test_batches_of_one_image_are_named(setup):
    """Also where batch norm refuses them: the last map has one cell."""
    setup.batch_size = 1
    has(seen_in(setup.patient(), "batch-norm-has-batches"), "warning", "batches of one image")


def test_batches_of_a_few_images_are_named_and_batches_of_four_are_not(setup):
    setup.batch_size = 2
    has(seen_in(setup.patient(), "batch-norm-has-batches"), "warning", "batches of 2 images")
    setup.batch_size = 4
    assert seen_in(setup.patient(), "batch-norm-has-batches") == []


def test_a_step_in_evaluation_mode_is_named(setup):
    setup.model.eval()
    has(seen_in(setup.patient(), "step-trains"), "warning", "are in evaluation mode in a step")


def test_statistics_that_stay_while_the_rest_trains_are_a_note(setup):
    for layer in setup.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    assert [one.severity for one in seen_in(setup.patient(), "step-trains")] == ["note"]


def test_a_detection_that_leaves_evaluation_mode_behind_is_named(setup):
    patient = setup.patient()
    usual = patient.detect

    def evaluated(batch):
        patient.model.eval()
        return usual(batch)

    patient.detect = evaluated
    has(seen_in(patient, "step-trains"), "fault", "stay in evaluation mode")


def test_a_detection_that_wakes_what_was_frozen_is_named(setup):
    setup.model.backbone.freeze(2)
    patient = setup.patient()
    usual, frozen = patient.detect, setup.model.backbone.frozen

    def woken(batch):
        found = usual(batch)
        for part in frozen:
            part.train()
        return found

    patient.detect = woken
    has(seen_in(patient, "step-trains"), "warning", "were not before")


def with_outputs(patient, make):
    """Detect with what `make` makes of the network's outputs."""

    def found(batch):
        patient.model.eval()
        return make(*patient.model(patient.read(batch).images))

    patient.detect = found
    return seen_in(patient, "detect-evaluates", "detections-undo-the-match")


def test_detections_in_training_mode_are_named(setup):
    patient = setup.patient()
    patient.detect = lambda batch: detect(*patient.outputs(batch), patient.priors)
    has(seen_in(patient, "detect-evaluates"), "fault", "in training mode while the model detects")


def shifted(found, by):
    return [Detections(one.boxes, one.scores, one.labels + by) for one in found]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda offsets, logits, priors: detect(offsets, logits, priors), ""),
        (lambda offsets, logits, priors: detect(offsets, logits.softmax(dim=-1) * 9, priors, 0.05), ""),
        (lambda offsets, logits, priors: detect(offsets, logits, priors, iou_threshold=1.0), "are found again"),
        (lambda offsets, logits, priors: detect(offsets * 10, logits, priors), "be detected at their place"),
        (lambda offsets, logits, priors: detect(offsets[..., [1, 0, 3, 2]], logits, priors), "at their place"),
        (lambda offsets, logits, priors: shifted(detect(offsets, logits, priors), -1), "mostly -1"),
        (lambda offsets, logits, priors: detect(offsets, logits.roll(1, dims=-1), priors), "of"),
    ],
)
def test_ideal_outputs_must_become_the_objects(setup, make, words):
    patient = setup.patient()
    findings = with_outputs(patient, lambda offsets, logits: make(offsets, logits, patient.priors))
    assert (words in findings[0].seen) if words else findings == []


def of_all_classes(detections):
    kept = [nms(one.boxes, one.scores, 0.45) for one in detections]
    return [Detections(*(values[keep] for values in one)) for one, keep in zip(detections, kept, strict=True)]


def surest_object(detections):
    kept = [one.scores.argsort(descending=True)[:1] for one in detections]
    return [Detections(*(values[keep] for values in one)) for one, keep in zip(detections, kept, strict=True)]


@pytest.mark.parametrize("own", [True, False])
def test_a_suppression_of_all_classes_is_named(setup, own):
    patient = setup.patient()
    usual = patient.usual_detections

    def found(batch):
        patient.model.eval()
        return detect(*patient.model(patient.read(batch).images), patient.priors)

    patient.detect = found if own else usual
    assert seen_in(patient, "classes-keep-their-boxes") == []
    before = patient.detect
    patient.detect = lambda batch: of_all_classes(before(batch))
    has(seen_in(patient, "classes-keep-their-boxes"), "warning", "detection keeps one alone")
    patient.detect = lambda batch: surest_object(before(batch))  # loses more than what overlaps: another fault
    assert seen_in(patient, "classes-keep-their-boxes") == []


def without(which):
    """Detection without boxes of some sizes: from the shorter side to whether it is kept."""

    def kept(detections):
        sides = [(one.boxes[:, 2:] - one.boxes[:, :2]).amin(dim=1) for one in detections]
        keep = [which(side) for side in sides]
        return [Detections(*(values[row] for values in one)) for one, row in zip(detections, keep, strict=True)]

    return kept


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (lambda side: side > 0.2, "are the smallest"),
        (lambda side: side < 0.3, "are the largest"),
        (lambda side: side > 0, ""),
    ],
)
def test_objects_of_a_size_that_is_never_reported_are_named(setup, which, words):
    patient = setup.patient()
    usual = patient.detect
    patient.detect = lambda batch: without(which)(usual(batch))
    found = seen_in(patient, "detections-undo-the-match")
    assert (words in found[0].seen) if words else found == []


@pytest.mark.parametrize(("cut", "found"), [("first", True), ("last", True), ("surest", False)])
def test_what_is_cut_off_before_suppression_must_not_be_the_surest(setup, cut, found):
    patient = setup.patient()

    def own(batch):
        patient.model.eval()
        offsets, logits = patient.model(patient.read(batch).images)
        margin = logits[..., 1:].amax(dim=2) - logits[..., 0]
        order = {"first": -torch.arange(margin.shape[1]), "last": torch.arange(margin.shape[1])}
        kept = order.get(cut, margin).expand(margin.shape).topk(200, dim=1).indices[..., None]
        cut_off = [torch.take_along_dim(one, kept, dim=1) for one in (offsets, logits)]
        rows = zip(*cut_off, patient.priors[kept[..., 0]], strict=True)
        return [detect(a[None], b[None], priors)[0] for a, b, priors in rows]

    patient.detect = own
    findings = seen_in(patient, "detects-the-surest")
    assert bool(findings) == found
    assert not findings or "is not detected if it is that of prior" in findings[0].seen


@pytest.mark.parametrize(
    ("threshold", "severity"), [(0.01, None), (0.05, None), (0.2, "note"), (0.5, "warning"), (0.9, "warning")]
)
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_a_threshold_for_showing_is_named_where_it_is_measured(setup, threshold, severity, scoring):
    patient = setup.patient()

    def found(batch):
        patient.model.eval()
        outputs = patient.model(patient.read(batch).images)
        return detect(*outputs, patient.priors, score_threshold=threshold, scoring=scoring)

    patient.detect = found
    assert [one.severity for one in seen_in(patient, "detects-the-unsure")] == ([severity] if severity else [])


def test_two_priors_in_one_place_are_found_where_there_are_some(setup):
    for priors in (setup.priors, SSD_MINI.boxes(), SSD300.boxes()):
        first, second, third = two_in_one_place(priors)
        overlaps = box_iou(to_corners(priors[[first, second, third]]), to_corners(priors[[first, second, third]]))
        assert 0.5 < float(overlaps[0, 1]) < 0.91 and float(overlaps[2, :2].max()) == 0
    far = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])
    assert two_in_one_place(far) is None and two_in_one_place(far[:0]) is None


def test_a_detection_that_cannot_be_fed_is_left_alone(setup):
    patient = setup.patient()
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    patient.detect = lambda batch: [nothing] * len(batch.images)
    assert seen_in(patient, "detections-undo-the-match") == []


def test_detection_must_feed_the_network_as_training_does(setup):
    patient = setup.patient()
    usual = patient.detect

    def of_other_pixels(batch):
        return usual(batch._replace(images=255 - batch.images))

    assert seen_in(patient, "detection-sees-the-same-pixels") == []
    patient.detect = of_other_pixels
    has(seen_in(patient, "detection-sees-the-same-pixels"), "fault", "other numbers in detection than in training")


@pytest.mark.parametrize("loss", [losses.MultiBoxLoss(), losses.FocalLoss(), losses.SoftmaxFocalLoss()])
def test_scores_must_be_read_as_they_are_taught(setup, loss):
    setup.loss = loss
    loss.prepare(setup.model)
    for scoring in ("softmax", "sigmoid"):
        setup.model.scoring = scoring
        findings = seen_in(setup.patient(), "detection-scores-as-the-loss-does")
        assert [one.severity for one in findings] == ([] if scoring == loss.scoring else ["warning"])


def test_frozen_statistics_that_nobody_has_taken_are_named(setup):
    setup.model.backbone.freeze(2)
    for layer in setup.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
    setup.pretrained = {name: t for name, t in setup.pretrained.items() if "running" not in name}
    has(seen_in(setup.patient(), "batch-norm-statistics"), "fault", "have statistics of 0 and 1")
