import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib import ssd
from course_lib.losses import (
    FocalLoss,
    MultiBoxLoss,
    SoftmaxFocalLoss,
    expect_background,
    expected_initial_conf,
    hardest,
    sigmoid_focal,
    softmax_focal,
    total,
)
from course_lib.matching import Matches, match
from course_lib.priors import SSD300

LOSSES = [MultiBoxLoss(), FocalLoss(), SoftmaxFocalLoss()]
# The losses add up in float32. A sum of n costs is right to about 1e-7 sqrt(n) of itself, in whatever order.
OF_A_HUNDRED = {"rtol": 1e-5, "atol": 1e-5}  # a cost and its gradient may have a weight of 7


class CountedCalls(TorchDispatchMode):
    """Counts every operator that is called, views among them."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += 1
        return operator(*args, **(kwargs or {}))


def plain_loss(offsets, logits, matches, ratio, weights=None):
    """Written out prior by prior, from the paper's equations: a slow twin."""
    weights = torch.ones(logits.shape[-1]) if weights is None else weights
    loc = conf = 0.0
    positives = 0
    for b in range(len(offsets)):
        cost = [-logits[b, p].log_softmax(0)[matches.labels[b, p]] for p in range(len(offsets[b]))]
        own = [p for p in range(len(cost)) if matches.labels[b, p] > 0]
        others = sorted((cost[p] for p in range(len(cost)) if matches.labels[b, p] == 0), key=lambda c: -c.item())
        positives += len(own)
        for p in own:
            conf = conf + weights[matches.labels[b, p]] * cost[p]
            for d in offsets[b, p] - matches.offsets[b, p]:
                loc = loc + (0.5 * d * d if d.abs() < 1 else d.abs() - 0.5)
        for c in others[: int(len(own) * ratio)]:
            conf = conf + weights[0] * c
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
@given(st.integers(0, 2**20), st.sampled_from([1.0, 2.5, 3.0, 100.0]), st.sampled_from([0.05, 0.3, 0.9]), st.booleans())
def test_multibox_loss_and_its_gradient_equal_the_plain_twins(seed, ratio, share, weighted):
    offsets, logits, matches = random_case(seed, share=share)
    weights = torch.tensor([0.5, 1.0, 2.0, 7.0]) if weighted else None
    parts = MultiBoxLoss(ratio, weights)(offsets, logits, matches)
    loc, conf = plain_loss(offsets, logits, matches, ratio, weights)
    torch.testing.assert_close(parts["loc"], torch.as_tensor(loc), **OF_A_HUNDRED, check_dtype=False)
    torch.testing.assert_close(parts["conf"], torch.as_tensor(conf), **OF_A_HUNDRED, check_dtype=False)
    if (matches.labels > 0).any():
        ours = torch.autograd.grad(total(parts), (offsets, logits))
        twins = torch.autograd.grad(loc + conf, (offsets, logits))
        torch.testing.assert_close(ours, twins, **OF_A_HUNDRED)


@given(st.integers(0, 2**20), st.integers(1, 60), st.integers(1, 5))
def test_hardest_marks_exactly_as_many_as_asked_and_none_below_another(seed, priors, levels):
    """Equal losses must not count twice: with uniform logits all of them are equal."""
    g = torch.Generator().manual_seed(seed)
    loss = torch.randint(0, levels, (3, priors), generator=g).float()
    counts = torch.tensor([[0], [priors // 2], [2 * priors]])
    marked = hardest(loss, counts)
    assert marked.sum(dim=1).tolist() == [0, priors // 2, priors]
    inside, outside = loss[1][marked[1]], loss[1][~marked[1]]
    assert not len(inside) or (outside <= inside.min()).all()


def test_uniform_logits_cost_four_times_the_logarithm_of_21_per_positive():
    labels = torch.zeros(2, 100, dtype=torch.int64)
    labels[:, :5] = torch.arange(1, 6)
    matches = Matches(labels, torch.zeros(2, 100, 4), labels - 1)
    parts = MultiBoxLoss()(torch.zeros(2, 100, 4), torch.zeros(2, 100, 21), matches)
    assert parts["conf"].item() == pytest.approx(4 * math.log(21), rel=1e-5)  # 40 float32 costs
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


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_summed_in_float32_also_under_autocast(loss, dtype):
    offsets, logits, matches = random_case(2, images=4, priors=2000)
    with torch.autocast("cpu", dtype):
        half = loss(offsets.to(dtype), logits.to(dtype), matches)
    full = loss(offsets.to(dtype).float(), logits.to(dtype).float(), matches)
    assert half["loc"].dtype == half["conf"].dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=1e-5, atol=0)  # the same float32 sums; in 16 bits they lose 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_offsets_of_background_priors_get_no_gradient_even_where_they_are_not_finite(loss):
    offsets, logits, matches = random_case(3)
    broken = torch.where((matches.labels == 0)[..., None], torch.inf, offsets.detach()).requires_grad_()
    total(loss(broken, logits, matches)).backward()
    assert (broken.grad[matches.labels == 0] == 0).all() and broken.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_match_and_loss_issue_the_same_calls_for_a_batch_of_2_and_of_64_and_at_most_240(loss):
    """No loop over images or priors; 12 object slots. (To write for 1 image torch views what it writes once more.)"""
    calls, priors = [], SSD300.boxes()
    for images in (2, 64):
        low = torch.rand(images, 12, 2)
        boxes, labels = torch.cat([low, low + 0.1], dim=-1), torch.ones(images, 12, dtype=torch.int64)
        offsets, logits = (torch.randn(images, 8732, size).requires_grad_() for size in (4, 21))
        with CountedCalls() as counted:
            total(loss(offsets, logits, match(boxes, labels, priors)))
        calls.append(counted.count)
    assert calls[0] == calls[1] <= 240


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_runs_where_the_host_may_not_wait_for_the_device(loss):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        labels = torch.ones(2, 50, dtype=torch.int64)
        offsets, logits = torch.rand(2, 50, 4, requires_grad=True), torch.rand(2, 50, 21, requires_grad=True)
        parts = loss(offsets, logits, Matches(labels, torch.rand(2, 50, 4), labels))
        total(parts).backward()
    assert parts["conf"].shape == () and logits.grad.shape == logits.shape


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.sampled_from([0.25, 0.9]), st.sampled_from([0.0, 1.0, 2.0]))
def test_sigmoid_focal_equals_its_equation_written_out_class_by_class(seed, alpha, gamma):
    _, logits, matches = random_case(seed)
    logits = logits.detach().double()
    expected = torch.zeros_like(logits[..., 0])
    for b, p in torch.cartesian_prod(*map(torch.arange, expected.shape)).tolist():
        for c in range(1, logits.shape[-1]):
            yes = torch.sigmoid(logits[b, p, c]).item()
            right, weight = (yes, alpha) if matches.labels[b, p] == c else (1 - yes, 1 - alpha)
            expected[b, p] -= weight * (1 - right) ** gamma * math.log(right)
    torch.testing.assert_close(sigmoid_focal(logits, matches.labels, alpha, gamma), expected)


@settings(deadline=None)
@given(st.integers(0, 2**20))
def test_softmax_focal_without_focus_is_half_the_cross_entropy_and_with_it_less(seed):
    _, logits, matches = random_case(seed)
    logits = logits.double()  # in float32 the last digit decides whether a focus near 1 makes less of a cost
    cross_entropy = torch.nn.functional.cross_entropy(logits.mT, matches.labels, reduction="none")
    torch.testing.assert_close(softmax_focal(logits, matches.labels, 0.5, 0.0), cross_entropy / 2)
    assert (softmax_focal(logits, matches.labels, 0.5, 2.0) <= cross_entropy / 2).all()


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_focal_loss_survives_huge_logits(loss):
    offsets, logits, matches = random_case(1)
    huge = (logits.detach() * 1e4).requires_grad_()
    cost = total(loss(offsets, huge, matches))
    cost.backward()
    assert cost.isfinite() and huge.grad.isfinite().all()


def test_sigmoid_focal_does_not_look_at_the_logit_of_background():
    offsets, logits, matches = random_case(4)
    total(FocalLoss()(offsets, logits, matches)).backward()
    assert (logits.grad[..., 0] == 0).all() and (logits.grad[..., 1:] != 0).any()


def test_without_positives_focal_loss_still_teaches_background():
    offsets, logits, matches = random_case(0, share=0.0)
    parts = FocalLoss()(offsets, logits, matches)
    total(parts).backward()
    assert parts["loc"] == 0 and (offsets.grad == 0).all()
    assert parts["conf"] > 0 and (logits.grad[..., 1:] > 0).all()


def test_focal_loss_of_all_priors_over_few_positives_starts_in_the_thousands_unless_background_is_expected():
    """A published log starts at 12 212: a sum over all priors, divided by few positives (reference: run B)."""
    boxes = torch.tensor([[[0.1, 0.2, 0.13, 0.24], [0.6, 0.3, 0.64, 0.32], [0.3, 0.5, 0.33, 0.55]]])
    matches = match(boxes, torch.tensor([[1, 2, 3]]), SSD300.boxes())
    knows_nothing, expects_background = torch.zeros(1, 8732, 21), torch.full((1, 8732, 21), -math.log(99))
    offsets, positives = torch.zeros(1, 8732, 4), (matches.labels > 0).sum().item()
    assert positives == 3  # objects as small as these get one prior each
    before = FocalLoss()(offsets, knows_nothing, matches)["conf"].item()
    # Each of 20 answers of every prior costs (1 - alpha) (1/2)^2 ln 2, a yes alpha (1/2)^2 ln 2.
    answers = 8732 * 20 * 0.75 - positives * 0.5
    # A float32 sum of 174,640 costs: right to about 4e-5 of itself.
    assert before == pytest.approx(answers / 4 * math.log(2) / positives, rel=1e-4) and before > 1000
    assert FocalLoss()(offsets, expects_background, matches)["conf"].item() < 2


def test_expect_background_gives_every_class_a_score_of_pi_where_the_heads_weights_say_nothing():
    model = ssd.ssd_mini().eval()
    expect_background(model, pi=0.01)
    for head in model.conf_heads:
        torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        _, logits = model(torch.zeros(1, 3, 160, 160, dtype=torch.uint8))
    yes_or_no, one_of_all = (ssd.SCORINGS[loss.scoring](logits) for loss in (FocalLoss, SoftmaxFocalLoss))
    as_odds, few = one_of_all[..., 1:] / one_of_all[..., :1], {"rtol": 1e-5, "atol": 0}  # exp of a float32 of 4.6
    torch.testing.assert_close(yes_or_no[..., 1:], torch.full((1, 2408, 20), 0.01), **few)
    torch.testing.assert_close(as_odds, torch.full((1, 2408, 20), 0.01 / 0.99), **few)
    assert not any(head.bias.any() for head in model.loc_heads)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("focal", [sigmoid_focal, softmax_focal])
def test_a_focal_gradient_is_finite_however_sure_an_answer_is(focal, gamma):
    """A power below 1 has an infinite slope at 0, where the probability of a wrong answer is rounded to."""
    sure = torch.tensor([0.0, 17.0, 120.0, 1e4])
    logits = torch.zeros(8, 3)
    logits[:, 1] = torch.cat([sure, -sure])
    logits.requires_grad_()
    focal(logits, torch.ones(8, dtype=torch.int64), 0.25, gamma).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[7, 1] < 0  # the worst answer is still pulled up


@pytest.mark.parametrize("architecture", [ssd.ssd_mini, ssd.ssd_mobilenet_v2], ids=lambda one: one.name)
def test_a_loss_prepares_a_fresh_network_as_it_needs(architecture):
    for loss, bias in ((MultiBoxLoss(), 0.0), (FocalLoss(), -math.log(99)), (SoftmaxFocalLoss(), -math.log(99))):
        model = architecture()
        loss.prepare(model)
        for head in model.conf_heads:
            rows = head.bias.view(-1, model.num_classes)
            assert (rows[:, 0] == 0).all()
            torch.testing.assert_close(rows[:, 1:], torch.full_like(rows[:, 1:], bias), rtol=1e-6, atol=0)
