import math

import pytest
import torch

from course_lib.schedules import warmup_cosine


def rates(warmup, steps, final=0.0, peak=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = warmup_cosine(optimizer, warmup, steps, final)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize(("warmup", "steps", "final"), [(0, 10, 0.0), (5, 50, 0.01), (9, 10, 0.0), (1, 2, 0.5)])
def test_rises_in_a_line_then_falls_along_half_a_cosine(warmup, steps, final):
    seen = rates(warmup, steps, final)
    for step, rate in enumerate(seen):
        if step < warmup:
            expected = 0.1 * (step + 1) / warmup
        else:
            x = (step - warmup) / max(1, steps - 1 - warmup)
            expected = 0.1 * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x)))
        assert rate == pytest.approx(expected)
    assert max(seen) == pytest.approx(0.1)
    assert min(seen[:-1]) > 0


def test_the_first_step_is_not_taken_at_rate_zero():
    """A published run's LambdaLR gave factor 0 in its first epoch, which taught nothing."""
    assert rates(100, 1000)[0] == pytest.approx(0.001)


def test_equals_torchs_cosine_after_the_warmup():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=39)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(10, 50)[10:] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("warmup", "steps"), [(10, 10), (-1, 10), (20, 10)])
def test_a_warmup_that_does_not_fit_is_refused(warmup, steps):
    with pytest.raises(ValueError, match="warmup must be shorter"):
        rates(warmup, steps)
