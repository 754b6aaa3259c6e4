import pytest
import torch
from exhibited import check_symptom, first, healthy, loss_of, recall, twins

from course_lib.boxes import area, to_corners
from course_lib.doctor import exhibits_matching
from course_lib.matching import match


def owners(patient):
    """Which of two twins have a prior."""
    return set(patient.match(*twins(), patient.priors).gt_index.flatten().tolist()) - {-1}


def pixels_against_fractions(well, sick):
    assert loss_of(sick)["loc"] > 1000
    matches, batch = sick.matches(first(sick)), first(sick)
    assert matches.labels[:, 1:].sum() == 0, "all objects are prior 0's"
    assert (matches.labels[:, 0] > 0).sum() == batch.labels.any(dim=1).sum()


def priors_in_pixels(well, sick):
    assert loss_of(sick)["loc"] > 4 * loss_of(well)["loc"]
    batch = first(sick)
    assert (sick.matches(batch).labels > 0).sum() <= (batch.labels > 0).sum()


def objects_share_priors(well, sick):
    assert owners(well) == {0, 1} and owners(sick) == {1}
    assert area(first(sick).boxes).sum() < area(first(well).boxes).sum() / 2, "zoomed out"


def objects_written_at_once(well, sick):
    assert owners(well) == {0, 1} and len(owners(sick)) == 1


def no_variances(well, sick):
    ours, theirs = (one.matches(first(one)).offsets for one in (well, sick))
    scale = torch.tensor([0.1, 0.1, 0.2, 0.2])
    torch.testing.assert_close(theirs, ours * scale, rtol=1e-3, atol=1e-3)
    assert recall(sick) > 0.9, "decoded alike, nothing is wrong with the boxes"


def no_encoding(well, sick):
    assert loss_of(sick)["loc"] < loss_of(well)["loc"] / 5
    assert recall(sick) > 0.9


def one_added_again(well, sick):
    ours, theirs = (one.matches(first(one)).labels for one in (well, sick))
    assert torch.equal(theirs, ours + (ours > 0))


def corners_clipped(well, sick):
    corners = to_corners(sick.priors)
    assert corners.min() > -1e-6 and corners.max() < 1 + 1e-6
    assert (sick.priors != well.priors).any(dim=1).float().mean() > 0.2


def numbers_clamped(well, sick):
    assert 0 < (sick.priors != well.priors).any(dim=1).sum() < 20
    assert sick.priors[:, 2:].max() == 1 < well.priors[:, 2:].max()


def ratios_both_ways(well, sick):
    assert len(well.priors.mul(1e4).round().unique(dim=0)) == len(well.priors)
    twins = len(sick.priors) - len(sick.priors.mul(1e4).round().unique(dim=0))
    assert twins > len(sick.priors) / 4


def all_squares(well, sick):
    torch.testing.assert_close(sick.priors[:, 2], sick.priors[:, 3], rtol=0, atol=1e-6)
    assert len(sick.priors) == len(well.priors)


def columns_for_rows(well, sick):
    assert torch.equal(sick.priors[:, [1, 0, 2, 3]], well.priors) and not torch.equal(sick.priors, well.priors)


def priors_of_another_network(well, sick):
    with pytest.raises(Exception, match=r"(?i)size|prior"):
        loss_of(sick)


def pools_round_down(well, sick):
    for one, reached in ((well, 1.0), (sick, 0.96)):
        finest = one.priors[: 12 * 12 * 4]
        torch.testing.assert_close(float(finest[:, 0].max()) + 4 / one.model.image_size, reached, rtol=0, atol=1e-6)


def two_heads_at_one_stride(well, sick):
    with torch.no_grad():
        sides = [features.shape[-1] for features in sick.model.feature_maps(first(sick).images)]
    assert sides == [12, 6, 6, 4]


SYMPTOMS = {
    name.replace("_", "-"): globals()[name] for name in dir() if name.replace("_", "-") in exhibits_matching.EXHIBITS
}


@pytest.mark.parametrize("name", exhibits_matching.EXHIBITS)
def test_a_short_measurement_shows_the_symptom(ingredients, name):
    check_symptom(SYMPTOMS, name, ingredients)


def test_by_rule_with_distinct_best_priors_matches_as_the_library_does(ingredients):
    patient = healthy(ingredients).patient()
    boxes = torch.tensor([[[0.1, 0.1, 0.35, 0.3], [0.5, 0.4, 0.95, 0.9], [0, 0, 0, 0]]])
    labels = torch.tensor([[3, 7, 0]])
    ours = match(boxes, labels, patient.priors, 0.4)
    for rule in (exhibits_matching.last_wins, exhibits_matching.all_at_once):
        theirs = exhibits_matching.by_rule(boxes, labels, patient.priors, rule)
        assert torch.equal(theirs.labels, ours.labels) and torch.equal(theirs.gt_index, ours.gt_index)
        torch.testing.assert_close(theirs.offsets, ours.offsets, rtol=1e-5, atol=1e-5)
