import pytest
import torch
from small_patient import seen_in, small_setup

from course_lib.doctor.network import CHECKS
from course_lib.doctor.prior_boxes import levels
from course_lib.ssd import per_prior

NAMES = [one.name for one in CHECKS]


@pytest.fixture
def setup(small_devkit):
    return small_setup(small_devkit)


def look(setup):
    return seen_in(setup.patient(), *NAMES)


def rearranged(setup, to_rows, last=lambda values: values):
    """Let the heads' maps become rows in another way."""
    model = setup.model

    def forward(images):
        maps = list(zip(model.feature_maps(images), model.loc_heads, model.conf_heads, strict=True))
        offsets = [to_rows(loc(features), 4) for features, loc, _ in maps]
        logits = [to_rows(conf(features), model.num_classes) for features, _, conf in maps]
        return torch.cat(offsets, dim=1), last(torch.cat(logits, dim=1))

    model.forward = forward


def test_a_random_network_is_healthy(setup):
    assert look(setup) == []


def without_permute(head, values):
    return head.flatten(1).unflatten(1, (-1, values))


def columns_first(head, values):
    return head.permute(0, 3, 2, 1).flatten(1).unflatten(1, (-1, values))


def mirrored(head, values):
    return per_prior(head.flip(3), values)


def across_images(head, values):
    return head.permute(1, 2, 3, 0).reshape(len(head), -1, values)


@pytest.mark.parametrize(
    ("to_rows", "words"),
    [
        (without_permute, "belong to priors that stand elsewhere"),
        (columns_first, "with x and y exchanged"),
        (mirrored, "belong to priors that stand elsewhere"),
        (across_images, "when another image of the batch changes"),
    ],
)
def test_rows_that_are_not_the_priors_are_named(setup, to_rows, words):
    rearranged(setup, to_rows)
    findings = look(setup)
    assert any(one.severity == "fault" and words in one.seen for one in findings), findings


def test_priors_in_another_order_are_named(setup):
    own = setup.priors
    for other in (own[:, [1, 0, 3, 2]], torch.cat([own[part] for part in levels(own)[::-1]]), own.flip(0)):
        setup.priors = other
        assert "priors that stand elsewhere" in look(setup)[0].seen


def test_two_coarse_levels_in_another_order_are_named(setup):
    first, second, third, last = (setup.priors[part] for part in levels(setup.priors))
    setup.priors = torch.cat([first, third, second, last])
    assert "heads-and-priors-in-one-order" in {one.check for one in look(setup)}


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda logits: logits.softmax(dim=-1), "softmax was taken"),
        (lambda logits: logits.sigmoid(), "after a sigmoid"),
        (lambda logits: logits.relu(), "a ReLU is behind the head"),
        (lambda logits: logits[..., 1:], "20 logits for 20 classes and background"),
        (lambda logits: logits / 0, "NaN or infinite"),
        (lambda logits: logits * 0 + 1, "do not move at all"),
        (lambda logits: logits - logits.mean(dim=0), "when another image of the batch changes"),
    ],
)
def test_logits_that_are_no_logits_are_named(setup, last, words):
    rearranged(setup, per_prior, last)
    findings = look(setup)
    assert any(one.severity == "fault" and words in one.seen for one in findings), findings


def test_more_priors_than_outputs_are_named(setup):
    setup.priors = setup.priors[:-4]
    assert "846 priors" in look(setup)[0].seen


def test_offsets_that_are_never_negative_are_named(setup):
    model, usual = setup.model, setup.model.forward
    model.forward = lambda images: (usual(images)[0].exp(), usual(images)[1])
    assert "offsets is negative" in look(setup)[0].seen


def test_a_network_that_sees_nothing_is_named(setup):
    setup.images = lambda batch: torch.zeros_like(batch.images)
    assert "the same for all 8 images" in look(setup)[0].seen
