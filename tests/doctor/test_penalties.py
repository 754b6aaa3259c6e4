from functools import partial

import pytest
import torch
from small_patient import has, seen_in, small_setup
from torch.nn import functional as F

from course_lib import losses
from course_lib.doctor import Patient
from course_lib.doctor.penalties import CHECKS, in_reverse

NAMES = [one.name for one in CHECKS]


@pytest.fixture(scope="module")
def setup(small_devkit):
    return small_setup(small_devkit)


@pytest.fixture
def found(setup, monkeypatch):
    def look(loss):
        monkeypatch.setattr(setup, "loss", loss)
        return seen_in(setup.patient(), *NAMES)

    return look


multibox = losses.MultiBoxLoss()


def boxes_loss(offsets, told):
    positive = told.labels > 0
    return losses.localisation_loss(offsets, told.offsets, positive) / positive.sum().clamp(min=1)


def with_classes(offsets, told, costs, hard=1.0):
    """The usual loss of the boxes, and of the classes by the costs of all priors, mined three to one."""
    positive = told.labels > 0
    count = positive.sum(dim=1, keepdim=True)
    rank = (hard * costs.detach()).masked_fill(positive, -1e9)
    chosen = positive | losses.hardest(rank, 3 * count)
    conf = torch.where(chosen, costs, 0.0).sum() / count.sum().clamp(min=1)
    return {"loc": boxes_loss(offsets, told), "conf": conf}


def cross_entropy(logits, labels, **options):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", **options).view_as(labels)


def by_costs(costs, **options):
    return lambda offsets, logits, told: with_classes(offsets, told, costs(logits, told.labels), **options)


def with_conf(conf):
    return lambda offsets, logits, told: {"loc": boxes_loss(offsets, told), "conf": conf(logits, told)}


def with_loc(loc):
    return lambda offsets, logits, told: multibox(offsets, logits, told) | {"loc": loc(offsets, told)}


def scaled(factor):
    return lambda *all: {name: value * factor(all[2]) for name, value in multibox(*all).items()}


def squares(logits, labels):
    return (logits - F.one_hot(labels, logits.shape[-1])).square().sum(dim=-1)


def binary(logits, labels):
    wanted = F.one_hot(labels, logits.shape[-1]).float()
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)


def number_for_yes(logits, labels):
    """A binary cross entropy whose target is the class's number."""
    wanted = F.one_hot(labels, logits.shape[-1]) * labels[..., None].float()
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)


def positives_ranked_too(offsets, logits, told):
    positive, costs = told.labels > 0, cross_entropy(logits, told.labels)
    count = positive.sum(dim=1, keepdim=True)
    chosen = positive | losses.hardest(costs.detach(), 3 * count)
    return {"loc": boxes_loss(offsets, told), "conf": torch.where(chosen, costs, 0.0).sum() / count.sum().clamp(min=1)}


@pytest.mark.parametrize(
    "loss",
    [
        multibox,
        losses.MultiBoxLoss(neg_pos_ratio=10),
        losses.MultiBoxLoss(class_weights=torch.tensor([1.0, *[0.2, 5.0] * 10])),
        by_costs(partial(cross_entropy, label_smoothing=0.1)),
        by_costs(binary),
        by_costs(partial(cross_entropy, ignore_index=-1)),
        losses.MultiBoxLoss(class_weights=torch.tensor([1.0, *[0.2] * 19, 4.0])),
        losses.MultiBoxLoss(class_weights=torch.tensor([1.0, 0.05, *[1.0] * 19])),
        scaled(lambda told: 3.0),
    ],
)
def test_losses_that_teach_are_healthy(found, loss):
    assert [one for one in found(loss) if one.severity != "note"] == []


@pytest.mark.parametrize("loss", [losses.FocalLoss(), losses.SoftmaxFocalLoss()])
def test_a_focal_loss_is_healthy_where_the_heads_expect_background_and_else_not(small_devkit, loss):
    setup = small_setup(small_devkit)
    setup.loss = loss
    findings = seen_in(setup.patient(), *NAMES)
    assert any(one.severity == "fault" and "background weighs" in one.seen for one in findings)
    loss.prepare(setup.model)
    assert seen_in(setup.patient(), *NAMES) == []


@pytest.mark.parametrize(
    ("loss", "severity", "words"),
    [
        (by_costs(lambda logits, labels: cross_entropy(logits.softmax(dim=-1), labels)), "fault", "made twice"),
        (by_costs(squares), "fault", "as by MSE"),
        (by_costs(lambda logits, labels: squares(logits.softmax(dim=-1), labels)), "fault", "confidently taken"),
        (by_costs(lambda logits, labels: cross_entropy(logits, (labels - 1) % 21)), "fault", "last column"),
        (by_costs(lambda logits, labels: cross_entropy(logits, (labels + 1) % 21)), "fault", "one too high"),
        (by_costs(lambda logits, labels: cross_entropy(logits, labels * 0)), "fault", "labels do not count"),
        (by_costs(lambda logits, labels: cross_entropy(logits.detach(), labels)), "fault", "conf has no graph"),
        (by_costs(cross_entropy, hard=-1.0), "fault", "easy ones do"),
        (by_costs(number_for_yes), "fault", "cost less than nothing"),
        (positives_ranked_too, "warning", "positives are ranked among the negatives"),
        (with_conf(lambda logits, told: cross_entropy(logits, told.labels).mean()), "fault", "background weighs"),
        (
            with_conf(lambda logits, told: cross_entropy(logits, told.labels)[told.labels > 0].mean()),
            "fault",
            "priors on background gets a gradient",
        ),
        (
            by_costs(lambda logits, labels: -logits.log_softmax(dim=1).gather(2, labels[..., None]).squeeze(-1)),
            "fault",
            "softmax over the priors",
        ),
        (
            by_costs(lambda logits, n: logits.exp().sum(-1).log() - logits.gather(2, n[..., None]).squeeze(-1)),
            "warning",
            "logits of 100",
        ),
        (with_loc(lambda offsets, told: F.smooth_l1_loss(offsets, told.offsets)), "fault", "on background get"),
        (with_loc(lambda offsets, told: boxes_loss(offsets, told) / 1000), "warning", "times smooth L1's 0.5"),
        (with_loc(lambda offsets, told: boxes_loss(offsets, told) / 4), "note", "the mean is taken"),
        (with_loc(lambda offsets, told: torch.tensor(1.0)), "fault", "loc has no graph"),
        (with_loc(lambda offsets, told: boxes_loss(offsets.roll(1, 1), told)), "fault", "towards the matched offsets"),
        (
            with_loc(lambda offsets, told: boxes_loss(offsets * torch.tensor([1, 1, 0, 0]), told)),
            "fault",
            "dw, dh get no gradient",
        ),
        (
            with_loc(lambda offsets, told: F.smooth_l1_loss(offsets[told.labels > 0], told.offsets[told.labels > 0])),
            "fault",
            "a batch without any object has a loss of nan",
        ),
        (scaled(lambda told: (told.labels > 0).sum()), "warning", "it is a sum"),
        (scaled(lambda told: 1 / len(told.labels)), "warning", "it is divided by images and positives"),
        (scaled(lambda told: 1000.0), "fault", "in the thousands"),
        (scaled(lambda told: -1.0), "fault", "negative"),
        (scaled(lambda told: float("nan")), "fault", "not finite"),
        (scaled(lambda told: 0.001), "warning", "to know nothing costs"),
    ],
)
def test_other_losses_are_named(found, loss, severity, words):
    findings = found(loss)
    assert any(one.severity == severity and words in one.seen for one in findings), findings


EVERY_CLASS = "loss-teaches-every-class"


def weighted(places, value, others=1.0):
    weights = torch.full((21,), others)
    weights[places] = value
    return losses.MultiBoxLoss(class_weights=weights)


def last_forgotten(logits, labels):
    """A binary cross entropy of all columns but the last."""
    wanted = F.one_hot(labels, 21)[..., :-1].float()
    return F.binary_cross_entropy_with_logits(logits[..., :-1], wanted, reduction="none").sum(dim=-1)


class Focal(losses.SoftmaxFocalLoss):
    """A focal loss that leaves out some labels."""

    def __init__(self, *labels):
        super().__init__()
        self.labels = torch.tensor(labels)

    def __call__(self, offsets, logits, told):
        left = torch.isin(told.labels, self.labels)[..., None]
        return super().__call__(offsets, torch.where(left, logits.detach(), logits), told)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (by_costs(partial(cross_entropy, ignore_index=20)), "nothing of tvmonitor, label 20"),
        (by_costs(partial(cross_entropy, ignore_index=1)), "nothing of aeroplane, label 1"),
        (
            with_conf(lambda logits, told: cross_entropy(logits, told.labels, ignore_index=15)[told.labels > 0].mean()),
            "nothing of person, label 15",
        ),
        (by_costs(last_forgotten), "nothing of tvmonitor, label 20"),
        (weighted([3, 7], 0.0), "nothing of bird, car"),
        (weighted(list(range(2, 21)), 0.0), "nothing of bicycle, bird"),
        (Focal(20), "nothing of tvmonitor"),
    ],
)
def test_classes_whose_objects_cost_nothing_are_named_once(setup, monkeypatch, loss, words):
    monkeypatch.setattr(setup, "loss", loss)
    findings = seen_in(setup.patient(), EVERY_CLASS, "loss-teaches-classes")
    assert [one.severity for one in findings if one.check == EVERY_CLASS] == ["fault"]
    assert any(words in one.seen for one in findings), findings
    assert not any("gradient raises" in one.seen for one in findings)


@pytest.mark.parametrize(
    ("loss", "count"),
    [
        (weighted([5], 1e-3), 1),
        (weighted([5], 0.02), 0),
        (weighted([0], 1e-3), 0),
        (multibox, 0),
        (losses.FocalLoss(), 0),
        (losses.SoftmaxFocalLoss(), 0),
    ],
)
def test_a_class_that_hardly_counts_is_a_warning(setup, monkeypatch, loss, count):
    monkeypatch.setattr(setup, "loss", loss)
    findings = seen_in(setup.patient(), EVERY_CLASS)
    assert ["objects of bottle count" in one.seen and one.severity for one in findings] == ["warning"] * count


@pytest.mark.parametrize(("weight", "found"), [(1e-3, True), (0.25, False), (1.0, False)])
def test_a_background_that_hardly_counts_is_named(setup, monkeypatch, weight, found):
    """Of the priors nearly all are background: weights that balance them leave it a thousandth."""
    monkeypatch.setattr(setup, "loss", weighted([0], weight))
    findings = seen_in(setup.patient(), "loss-balances-background")
    assert ["background weighs 0.0" in one.seen and one.severity for one in findings] == ["fault"] * found


@pytest.mark.parametrize(("factor", "found"), [(0.01, True), (0.5, False), (1.0, False)])
def test_a_loss_inside_a_loop_that_is_divided_too_often_is_named(setup, factor, found):
    usual = setup.patient()
    parts = {name: getattr(usual, name) for name in ("model", "priors", "batches", "classes", "match")}
    patient = Patient(losses=lambda batch: {k: factor * v for k, v in usual.losses(batch).items()}, **parts)
    seen = [one.seen for one in seen_in(patient, "loss-rewards-the-right-class")]
    assert ["to know nothing costs" in one for one in seen] == [True] * found


@pytest.mark.parametrize("ignored", [-100, 20, 15])
def test_inside_a_loop_classes_of_the_batch_alone_are_judged(setup, ignored):
    usual = setup.patient()
    seen = usual.matches(usual.first_batches(1)[0]).labels

    def losses_of(batch):
        offsets, logits = usual.outputs(batch)
        told = usual.matches(batch)
        return with_classes(offsets, told, cross_entropy(logits, told.labels, ignore_index=ignored))

    parts = {name: getattr(usual, name) for name in ("model", "priors", "batches", "classes", "match")}
    findings = seen_in(Patient(losses=losses_of, **parts), EVERY_CLASS)
    assert len(findings) == (int((seen == ignored).sum()) > 10)


@pytest.mark.parametrize(("twice", "healthy"), [(False, True), (True, False)])
def test_a_loss_inside_a_loop_is_examined_through_the_network(setup, twice, healthy):
    """The outputs are replaced where the network gives them: what the loop makes of them is seen all the same."""
    usual = setup.patient()

    def losses_of(batch):
        offsets, logits = usual.outputs(batch)
        return multibox(offsets, logits.softmax(dim=-1) if twice else logits, usual.matches(batch))

    hidden = Patient(
        model=usual.model, priors=usual.priors, batches=usual.batches, classes=usual.classes, losses=losses_of
    )
    findings = seen_in(hidden, *NAMES)
    assert [one for one in findings if one.severity != "note"] == [] if healthy else "made twice" in findings[0].seen


class OfTheLast(losses.MultiBoxLoss):
    """The positives of the last image divide the sum of all."""

    def __call__(self, offsets, logits, matches):
        parts = super().__call__(offsets, logits, matches)
        positives = (matches.labels > 0).sum(dim=1)
        return {name: value * positives.sum() / positives[-1].clamp(min=1) for name, value in parts.items()}


def test_a_loss_in_which_the_last_image_decides_is_named(setup, monkeypatch):
    assert seen_in(setup.patient(), "loss-ignores-the-order") == []
    monkeypatch.setattr(setup, "loss", OfTheLast())
    has(seen_in(setup.patient(), "loss-ignores-the-order"), "warning", "with its images in reverse order")


def test_batches_of_other_forms_are_turned_round():
    images, boxes = torch.arange(3), [[1], [2], [3]]
    turned = in_reverse((images, boxes))
    assert turned[0].tolist() == [2, 1, 0] and turned[1] == [[3], [2], [1]]
    assert in_reverse((images, [1])) is None and in_reverse(images) is None and in_reverse(([1], [2])) is None
