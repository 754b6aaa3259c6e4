import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.losses import MultiBoxLoss, expected_initial_conf, total
from course_lib.matching import Matches


def plain_loss(offsets, logits, matches, ratio):
    """Written out prior by prior, from the paper's equations: a slow twin."""
    loc = conf = 0.0
    positives = 0
    for b in range(len(offsets)):
        cost = [-logits[b, p].log_softmax(0)[matches.labels[b, p]] for p in range(len(offsets[b]))]
        own = [p for p in range(len(cost)) if matches.labels[b, p] > 0]
        others = sorted((cost[p] for p in range(len(cost)) if matches.labels[b, p] == 0), key=lambda c: -c.item())
        positives += len(own)
        for p in own:
            conf = conf + cost[p]
            for d in offsets[b, p] - matches.offsets[b, p]:
                loc = loc + (0.5 * d * d if d.abs() < 1 else d.abs() - 0.5)
        for c in others[: int(len(own) * ratio)]:
            conf = conf + c
    return loc / max(positives, 1), conf / max(positives, 1)


def random_case(seed, images=2, priors=15, classes=4, share=0.2):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, classes, (images, priors), generator=g)
    labels = torch.where(torch.rand(images, priors, generator=g) < share, labels, 0)
    matches = Matches(labels, torch.randn(images, priors, 4, generator=g), labels - 1)
    offsets = (torch.randn(images, priors, 4, generator=g) * 2).requires_grad_()
    logits = (torch.randn(images, priors, classes, generator=g) * 3).requires_grad_()
    return offsets, logits, matches


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.sampled_from([1.0, 3.0, 100.0]), st.sampled_from([0.05, 0.3, 0.9]))
def test_multibox_loss_and_its_gradient_equal_the_plain_twins(seed, ratio, share):
    offsets, logits, matches = random_case(seed, share=share)
    parts = MultiBoxLoss(ratio)(offsets, logits, matches)
    loc, conf = plain_loss(offsets, logits, matches, ratio)
    assert parts["loc"].item() == pytest.approx(float(torch.as_tensor(loc).detach()), rel=1e-5, abs=1e-6)
    assert parts["conf"].item() == pytest.approx(float(torch.as_tensor(conf).detach()), rel=1e-5, abs=1e-6)
    if (matches.labels > 0).any():
        ours = torch.autograd.grad(total(parts), (offsets, logits))
        twins = torch.autograd.grad(loc + conf, (offsets, logits))
        torch.testing.assert_close(ours, twins, rtol=1e-4, atol=1e-6)


def test_uniform_logits_cost_four_times_the_logarithm_of_21_per_positive():
    labels = torch.zeros(2, 100, dtype=torch.int64)
    labels[:, :5] = torch.arange(1, 6)
    matches = Matches(labels, torch.zeros(2, 100, 4), labels - 1)
    parts = MultiBoxLoss()(torch.zeros(2, 100, 4), torch.zeros(2, 100, 21), matches)
    assert parts["conf"].item() == pytest.approx(4 * math.log(21), rel=1e-6)
    assert expected_initial_conf(21) == pytest.approx(12.178, abs=1e-3)


def test_without_positives_the_loss_is_zero_and_has_a_graph():
    offsets, logits, matches = random_case(0, share=0.0)
    loss = total(MultiBoxLoss()(offsets, logits, matches))
    assert loss.item() == 0
    loss.backward()
    assert (offsets.grad == 0).all() and (logits.grad == 0).all()


def test_huge_logits_neither_overflow_nor_lose_the_gradient():
    """ssd.pytorch subtracted one maximum of the whole batch and overflowed."""
    offsets, logits, matches = random_case(1)
    huge = (logits.detach() * 1e4).requires_grad_()
    loss = total(MultiBoxLoss()(offsets, huge, matches))
    loss.backward()
    assert loss.isfinite() and huge.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_summed_in_float32(dtype):
    offsets, logits, matches = random_case(2, images=4, priors=2000)
    half = MultiBoxLoss()(offsets.to(dtype), logits.to(dtype), matches)
    full = MultiBoxLoss()(offsets.to(dtype).float(), logits.to(dtype).float(), matches)
    assert half["loc"].dtype == half["conf"].dtype == torch.float32
    torch.testing.assert_close(half, full)


def test_offsets_of_background_priors_get_no_gradient_even_where_they_are_not_finite():
    offsets, logits, matches = random_case(3)
    broken = torch.where((matches.labels == 0)[..., None], torch.inf, offsets.detach()).requires_grad_()
    total(MultiBoxLoss()(broken, logits, matches)).backward()
    assert (broken.grad[matches.labels == 0] == 0).all()


def test_the_loss_runs_where_the_host_may_not_wait_for_the_device():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        labels = torch.ones(2, 50, dtype=torch.int64)
        parts = MultiBoxLoss()(
            torch.rand(2, 50, 4), torch.rand(2, 50, 21), Matches(labels, torch.rand(2, 50, 4), labels)
        )
    assert parts["conf"].shape == ()
