from dataclasses import replace

import pytest
import strangers
import torch
from doctor.planted import with_labels
from small_patient import seen_in, small_setup
from torch.nn import functional as F

from course_lib import losses
from course_lib.doctor import class_weights, setups

NAME = "class-weights-are-those-of-their-classes"


@pytest.fixture(scope="module")
def setup(small_devkit):
    return small_setup(small_devkit)


def counted(data, power=1.0):
    """Weights that fall with the frequency, background's first."""
    labels = torch.cat([target.labels for _, target in data])
    counts = torch.bincount(labels, minlength=len(data.classes) + 1).float()
    counts[0] = 40 * len(data)
    return counts.clamp(min=1) ** -power


def one_for_all_but_background(data, power=1.0):
    return torch.tensor([0.1] + [1.0] * len(data.classes))


def background_last(weights):
    return weights.roll(-1)


class Weighing(strangers.MultiBoxLoss):
    """The criterion of ssd.pytorch's manner with weights, whose mean is that of the weights too."""

    weights = None

    def forward(self, predictions, targets):
        _, conf, priors = predictions
        usual, _ = super().forward(predictions, targets)
        names = torch.stack([self.wanted(target, priors)[1] for target in targets])
        cost = F.cross_entropy(conf.flatten(0, 1), names.flatten(), reduction="none").view_as(names)
        rank = cost.masked_fill(names > 0, 0).argsort(1, descending=True).argsort(1)
        chosen = (names > 0) | (rank < 3 * (names > 0).sum(1, keepdim=True))
        return usual, F.cross_entropy(conf[chosen], names[chosen], weight=self.weights)


def said(patient):
    return [(one.severity, one.seen) for one in seen_in(patient, NAME)]


def ours(setup, weights, data=None):
    return replace(setup, data=data or setup.data, loss=losses.MultiBoxLoss(class_weights=weights)).patient()


def theirs(setup, weights):
    stranger = strangers.of_ssd_pytorch(setup.data, 21)
    stranger.criterion = Weighing(21)
    stranger.criterion.weights = weights
    return stranger.patient(data=setup.data, classes=setup.classes)


@pytest.mark.parametrize("of", [ours, theirs])
def test_weights_are_read_from_slopes(setup, of):
    weights = torch.linspace(0.5, 2.5, 21)
    found = class_weights.weights_of(of(setup, weights))
    assert len(found) == 21 if of is ours else len(found) > 6
    for label, value in found.items():
        assert value == pytest.approx(float(weights[label] / weights[0]), rel=1e-3)  # a few float32 products


@pytest.mark.parametrize("of", [ours, theirs])
@pytest.mark.parametrize(("make", "power"), [(counted, 1.0), (counted, 0.5), (one_for_all_but_background, 1.0)])
def test_weights_with_background_last_are_named_and_with_background_first_are_not(setup, of, make, power):
    assert said(of(setup, make(setup.data, power))) == []
    found = said(of(setup, background_last(make(setup.data, power))))
    if make is counted or 20 in class_weights.weights_of(of(setup, torch.ones(21))):  # some batch has objects of it
        words = "fall with the frequency of the next class" if make is counted else "the last class, label 20,"
        ((severity, seen),) = found
        assert severity == "warning" and words in seen


def test_of_few_classes_it_takes_the_formula(setup):
    shares = torch.tensor([1, 1, 1, 1, 2, 2, 3])
    data = with_labels(setup.data, lambda labels: shares[labels % 7])
    few = small_setup_of(setup, setups.InMemory(data.samples, ("a", "b", "c")))
    weights = counted(few.data)
    assert said(ours(few, weights)) == []
    assert [severity for severity, _ in said(ours(few, background_last(weights)))] == ["warning"]
    uneven = torch.tensor([1.0, 3.0, 2.0, 0.5])
    assert said(ours(few, uneven)) == []


def small_setup_of(setup, data):
    made = setups.healthy(data, data)
    made.batch_size = setup.batch_size
    return made


def test_weights_that_rise_with_the_frequency_are_a_note(setup):
    ((severity, seen),) = said(ours(setup, 1 / counted(setup.data)))
    assert severity == "note" and "the more it weighs" in seen


@pytest.mark.parametrize("loss", [losses.MultiBoxLoss(), losses.FocalLoss(), losses.SoftmaxFocalLoss()])
def test_losses_without_weights_are_left_in_peace(setup, loss):
    assert said(replace(setup, loss=loss).patient()) == []
