import pytest
import torch
from exhibited import check_symptom, first, healthy, loss_of, matched

from course_lib import losses
from course_lib.doctor import exhibits_loss
from course_lib.losses import MultiBoxLoss, total


def gradient(patient, logits, matches):
    """Of the class part, by the logits."""
    logits = logits.clone().requires_grad_()
    patient.loss(torch.zeros(*logits.shape[:2], 4), logits, matches)["conf"].backward()
    return logits.grad


def background_everywhere(patient, sure=5.0):
    """Logits of a network that says background of eight priors, two of which are on objects."""
    logits = torch.zeros(1, 8, len(patient.classes) + 1)
    logits[..., 0] = sure
    return logits + torch.arange(8)[None, :, None] * torch.eye(logits.shape[-1])[1] / 10, matched(1, 2, *[0] * 6)


def focal_without_prior(well, sick):
    assert loss_of(sick)["conf"] > 50
    losses.expect_background(sick.model)
    assert loss_of(sick)["conf"] < 5


def squares_of_classes(well, sick):
    assert loss_of(sick)["conf"] < 0.1


def weights_as_a_vector(well, sick):
    ratio = loss_of(sick)["conf"] / loss_of(well)["conf"]
    assert ratio > 2
    for labels in ((1, 0, 0, 0), (5, 0, 0, 0)):  # whatever the class, the weight is the same
        logits, matches = torch.randn(1, 4, 21, generator=torch.Generator().manual_seed(0)), matched(*labels)
        ours, theirs = (one.loss(torch.zeros(1, 4, 4), logits, matches)["conf"].item() for one in (well, sick))
        assert theirs / ours == pytest.approx(ratio, rel=1e-3)


def easiest_negatives(well, sick):
    assert loss_of(sick)["conf"] < loss_of(well)["conf"]
    logits, _ = background_everywhere(sick)
    touched = gradient(sick, logits, matched(1, *[0] * 7)).abs().sum(dim=-1)[0] > 0
    assert touched.tolist() == [True, True, True, True, False, False, False, False], "the three least doubtful"


def positives_overwritten(well, sick):
    logits, matches = background_everywhere(sick)
    assert (gradient(sick, logits, matches)[0, :2] == 0).all()
    assert (gradient(well, logits, matches)[0, :2] != 0).any()


def positives_compete(well, sick):
    logits, matches = background_everywhere(sick)
    matches = matches._replace(labels=torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0]]))
    ours, theirs = (int((gradient(one, logits, matches).abs().sum(dim=-1) > 0).sum()) for one in (well, sick))
    assert (ours, theirs) == (4, 3)


def mean_of_four(well, sick):
    matches = matched(1, 2, 0, 0)
    offsets = torch.full((1, 4, 4), 3.0)
    ours, theirs = (one.loss(offsets, torch.zeros(1, 4, 21), matches)["loc"].item() for one in (well, sick))
    assert (ours, theirs) == (pytest.approx(10.0), pytest.approx(3.0))


def not_divided(well, sick):
    number = (sick.matches(first(sick)).labels > 0).sum().item()
    ours, theirs = loss_of(well), loss_of(sick)
    assert number > 50 and sick.clip_norm is None
    for name in ours:
        assert theirs[name] == pytest.approx(number * ours[name], rel=1e-3)


def constant_without_graph(well, sick):
    assert not first(sick).labels.any()
    with pytest.raises(RuntimeError, match="does not require grad"):
        sick.step(first(sick))


def divided_by_none(well, sick):
    sick.step(first(sick))
    assert sick.model.conf_heads[0].weight.isnan().all()


def class_loss_detached(well, sick):
    total(dict(sick.losses(first(sick)))).backward()
    assert all(head.weight.grad is None for head in sick.model.conf_heads)
    assert all(head.weight.grad is not None for head in sick.model.loc_heads)


def label_for_yes(well, sick):
    logits = torch.full((1, 1, 21), -7.0)
    logits[..., 17] = 7.0
    sure = sick.loss(torch.zeros(1, 1, 4), logits, matched(17))["conf"]
    assert sure < -10
    assert losses.FocalLoss()(torch.zeros(1, 1, 4), logits, matched(17))["conf"] < 0.01


SYMPTOMS = {
    name.replace("_", "-"): globals()[name] for name in dir() if name.replace("_", "-") in exhibits_loss.EXHIBITS
}


@pytest.mark.parametrize("name", exhibits_loss.EXHIBITS)
def test_a_short_measurement_shows_the_symptom(ingredients, name):
    check_symptom(SYMPTOMS, name, ingredients)


def test_with_the_hardest_negatives_the_loss_that_is_spoiled_is_the_librarys(ingredients):
    """What `with_negatives` is spoiled from: chosen rightly, it is MultiBoxLoss."""
    patient = healthy(ingredients).patient()
    batch = first(patient)
    with torch.no_grad():
        outputs, matches = patient.outputs(batch), patient.matches(batch)

    def right(cost, positives, count):
        return torch.where(positives | losses.hardest(cost.masked_fill(positives, -1.0), count), cost, 0.0)

    ours, theirs = exhibits_loss.with_negatives(right)(*outputs, matches), MultiBoxLoss()(*outputs, matches)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


def test_focal_loss_with_a_yes_of_one_is_the_librarys():
    """For class 1 the label is a yes: there both agree."""
    logits, labels = (
        torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[1, 0, 0, 1, 0, 1]]),
    )
    ours = exhibits_loss.LabelForYes.focal(logits, labels, 0.25, 2.0)
    torch.testing.assert_close(ours, losses.sigmoid_focal(logits, labels, 0.25, 2.0), rtol=1e-4, atol=1e-5)
