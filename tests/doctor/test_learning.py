from functools import partial

import pytest
import torch
from tiny_patient import Small, small_patient, some_batch

from course_lib import losses, profiles, voc, weights
from course_lib.boxes import encode, to_corners
from course_lib.detect import detect
from course_lib.doctor import examine, learning, museum
from course_lib.matching import match

TRIAL = [one.name for one in learning.CHECKS if one.name != "history-of-the-run"]
QUICK = [name for name in TRIAL if name not in ("learning-rate-range", "targets-describe-images")]


def bad(patient, only=QUICK):
    """What is found, notes aside, by the check's name."""
    return {one.check: one.seen for one in examine(patient, only=only).of("fault", "warning")}


def with_optimizer(kind, **options):
    torch.manual_seed(0)
    model = Small()
    return {"model": model, "optimizer": kind(model.parameters(), **options)}


class Halved(losses.MultiBoxLoss):
    """A loss of which one part teaches nothing."""

    lost = "loc"

    def __call__(self, offsets, logits, matches):
        parts = super().__call__(offsets, logits, matches)
        return parts | {self.lost: parts[self.lost].detach()}


class WithoutClasses(Halved):
    lost = "conf"


def without_variances(boxes, labels, priors):
    matches = match(boxes, labels, priors)
    own = boxes[torch.arange(len(boxes))[:, None], matches.gt_index.clamp(min=0)]
    own = torch.where((matches.labels > 0)[..., None], own, to_corners(priors))
    return matches._replace(offsets=encode(own, priors, (1.0, 1.0)))


def off_by_one(boxes, labels, priors):
    matches = match(boxes, labels, priors)
    return matches._replace(labels=(matches.labels - 1).clamp(min=0))


def without_cats(boxes, labels, priors):
    return match(boxes, labels * (labels != 2), priors)


def in_other_order(boxes, labels, priors):
    order = torch.randperm(len(priors), generator=torch.Generator().manual_seed(0))
    return type(matches := match(boxes, labels, priors))(*(values[:, order] for values in matches))


HEALTHY = {
    "usual": dict,
    "sgd": partial(with_optimizer, torch.optim.SGD, lr=1e-2, momentum=0.9),
    "focal": lambda: {"loss": losses.FocalLoss()},
    "shortened": lambda: {"clip_norm": 1.0},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_patient_learns_by_heart_and_nothing_is_found(name):
    report = examine(small_patient(**HEALTHY[name]()), only=TRIAL)
    assert report.healthy, report
    assert any("by heart" in one.seen for one in report.findings)


FAULTS = {
    "boxes in pixels": (lambda: {"batches": [in_pixels(seed) for seed in range(3)]}, "the loss is 0"),
    "boxes without a gradient": (lambda: {"loss": Halved()}, "classes but not boxes"),
    "classes without a gradient": (lambda: {"loss": WithoutClasses()}, "boxes but not classes"),
    "no variances in encoding": (lambda: {"match": without_variances}, "classes but not boxes"),
    "labels off by one": (lambda: {"match": off_by_one}, "boxes but not classes"),
    "targets in another order": (lambda: {"match": in_other_order}, "neither boxes nor classes"),
    "a tiny rate": (partial(with_optimizer, torch.optim.SGD, lr=1e-7), "left the loss at 100%"),
    "a clip far below the gradient": (
        lambda: with_optimizer(torch.optim.SGD, lr=1e-5) | {"clip_norm": 1e-3},
        "clipping makes",
    ),
    "a huge rate": (partial(with_optimizer, torch.optim.SGD, lr=100.0, momentum=0.9), "the learning rate"),
    "a rate of 0": (partial(with_optimizer, torch.optim.SGD, lr=0.0), "left the loss at 100%"),
}


def in_pixels(seed):
    batch = some_batch(seed=seed)
    return batch._replace(boxes=batch.boxes * 300)


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_learned_by_heart_is_a_fault_that_says_what_is_missing(name):
    make, words = FAULTS[name]
    report = examine(small_patient(**make()), only=["overfits-one-batch"])
    (finding,) = report.of("fault")
    assert words in finding.seen + finding.cure


def test_a_class_without_targets_is_named():
    assert "2 (cat)" in bad(small_patient(match=without_cats))["finds-every-class"]


def test_an_optimizer_that_is_never_called_and_a_gradient_that_adds_up_are_told():
    patient = small_patient()

    def step(batch, call):
        parts = patient.losses(batch)
        losses.total(dict(parts)).backward()
        if call:
            patient.optimizer.step()
        return parts

    for call, words in ((False, "not called"), (True, "steps before")):
        patient.step, patient.memory = partial(step, call=call), {}
        assert words in bad(patient)["gradients-and-clipping"]


def test_statistics_that_never_arrive_are_a_fault_and_slow_ones_of_a_long_training_a_note():
    patient = small_patient(steps=200)
    patient.model.hidden[1].momentum = 0.0
    patient.model.hidden[1].running_mean += 50
    assert "evaluation-mode-agrees" in bad(patient)
    patient = small_patient(steps=100_000)
    patient.model.hidden[1].momentum = 1e-3
    patient.model.hidden[1].running_mean += 50
    report = examine(patient, only=["evaluation-mode-agrees"])
    assert report.healthy and len(report.findings) == 1


def test_a_detection_that_decodes_otherwise_is_named_and_its_owner_is_put_back():
    patient = small_patient()

    def own(batch):
        patient.model.eval()
        offsets, logits = patient.outputs(batch)
        patient.model.train()
        return detect(offsets.detach() * torch.tensor([10.0, 10.0, 5.0, 5.0]), logits.detach(), patient.priors)

    patient.detect = own
    before = {name: value.clone() for name, value in patient.model.state_dict().items()}
    assert "without variances" in bad(patient)["detects-what-it-has-learned"]
    assert all(torch.equal(value, before[name]) for name, value in patient.model.state_dict().items())


def falling(patient, factor, kept):
    """A step that lowers its rate by a schedule of its own."""
    schedule = torch.optim.lr_scheduler.ExponentialLR(patient.optimizer, factor)

    def step(batch):
        patient.optimizer.zero_grad()
        parts = patient.losses(batch)
        losses.total(dict(parts)).backward()
        patient.optimizer.step()
        if not kept:
            schedule.step()
        return parts

    patient.step = step
    return patient


@pytest.mark.parametrize(
    ("factor", "kept", "found"), [(0.5, False, True), (0.1, False, True), (0.999, False, False), (0.1, True, False)]
)
def test_a_rate_that_a_step_lowers_by_itself_is_named(factor, kept, found):
    patient = falling(small_patient(), factor, kept)
    report = examine(patient, only=["rate-stays", "overfits-one-batch", "learning-rate-range"])
    assert [one.check for one in report.of("fault", "warning")] == ["rate-stays"] * found, report


def taking_back(patient, every, share):
    """The patient's step, behind every few of which the weights go back a share of their way."""
    start = [p.detach().clone() for p in patient.model.parameters()]
    usual, count = patient.step, iter(range(1, 10_000))

    def step(batch):
        numbers = usual(batch)
        if next(count) % every == 0:
            for parameter, was in zip(patient.model.parameters(), start, strict=True):
                parameter.data.lerp_(was, share)
        return numbers

    patient.step = step
    return patient


@pytest.mark.parametrize(
    ("every", "share", "found"), [(10, 1.0, True), (1, 0.999, True), (25, 0.8, True), (5, 0.5, False)]
)
def test_weights_that_go_back_to_where_they_were_are_named(every, share, found):
    said = bad(taking_back(small_patient(), every, share), ["weights-keep-what-they-learn"])
    assert bool(said) == found
    if found:
        assert f"the weights go back {share:.0%} of the way" in said["weights-keep-what-they-learn"]


def test_clipping_before_unscaling_is_named():
    patient = small_patient(clip_norm=None)

    def step(batch):
        patient.optimizer.zero_grad()
        parts = patient.losses(batch)
        (losses.total(dict(parts)) * 2.0**16).backward()
        torch.nn.utils.clip_grad_norm_(patient.model.parameters(), 5.0)
        for parameter in patient.model.parameters():
            parameter.grad.mul_(2.0**-16)
        patient.optimizer.step()
        return parts

    patient.step = step
    (finding,) = examine(patient, only=["gradients-and-clipping"]).of("warning")
    assert "scaler.unscale_(optimizer)" in finding.cure and "power of two" in finding.cure


def test_clipping_that_hides_a_loss_of_thousands_is_a_warning():
    patient = small_patient(clip_norm=10.0)
    usual = patient.losses
    patient.losses = lambda batch: {name: value * 1e5 for name, value in usual(batch).items()}
    assert "thousands" in examine(patient, only=["gradients-and-clipping"]).of("warning")[0].why


def test_a_patient_of_a_model_losses_and_an_optimizer_is_tried_too():
    whole = small_patient()
    bare = small_patient(
        model=whole.model,
        optimizer=whole.optimizer,
        match=None,
        loss=None,
        batches=[tuple(some_batch())],
        read=lambda batch: None,
        losses=lambda batch: whole.losses(type(some_batch())(*batch)),
    )
    bare.read = bare.outputs = bare.detect = None
    report = examine(bare, only=TRIAL)
    assert report.healthy and "overfits-one-batch" in report.examined, report


@pytest.mark.slow
def test_a_training_of_real_size_is_healthy_and_one_of_exchanged_targets_is_not(small_devkit):
    data = museum.in_memory(voc.VOCDetection(small_devkit, "2007", "trainval"), 40)
    setup = museum.healthy(data, data, weights.load(profiles.RECORD))
    setup.batch_size = 8
    report = examine(setup.patient(), only=TRIAL)
    assert report.healthy, report
