import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, ExponentialLR, MultiStepLR, ReduceLROnPlateau

from course_lib.schedules import SCHEDULES, plateau, staircase, step_drops, triangular2, warmup_cosine

PEAK = 0.1
# Factors are a handful of float64 operations on both sides, in another order.
SAME = {"rel": 1e-9, "abs": 1e-12}


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


def rates_of(schedule, steps):
    seen = []
    for _ in range(steps):
        seen.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return seen


def rates(warmup, steps, final=0.0):
    return rates_of(warmup_cosine(optimizer(), warmup, steps, final), steps)


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


@pytest.mark.parametrize("name", SCHEDULES)
@given(steps=st.integers(2, 60), share=st.floats(0, 0.9))
def test_every_schedule_warms_up_in_a_line_and_stays_between_nothing_and_its_peak(name, steps, share):
    warmup = int(share * steps)
    seen = rates_of(SCHEDULES[name](optimizer(), warmup, steps), steps)
    assert all(0 <= rate <= PEAK * (1 + 1e-12) for rate in seen) and min(seen[:-1]) > 0
    if name in ("warmup_cosine", "triangular2", "constant", "plateau"):  # the others may drop within a long warmup
        line = seen[0] * torch.arange(1, warmup + 1, dtype=torch.float64)
        assert seen[:warmup] == pytest.approx(line.tolist(), **SAME)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stopped", [0, 3, 20, 59])
def test_a_schedule_goes_on_where_it_was_interrupted(name, stopped):
    whole = rates_of(SCHEDULES[name](optimizer(), 5, 60), 60)
    first = SCHEDULES[name](optimizer(), 5, 60)
    begun = rates_of(first, stopped)
    second = SCHEDULES[name](optimizer(), 5, 60)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert begun + rates_of(second, 60 - stopped) == whole


def test_the_first_step_is_not_taken_at_rate_zero():
    """A published run's LambdaLR gave factor 0 in its first epoch, which taught nothing."""
    assert rates(100, 1000)[0] == pytest.approx(0.001)


def test_equals_torchs_cosine_after_the_warmup():
    reference = CosineAnnealingLR(optimizer(), T_max=39)
    assert rates(10, 50)[10:] == pytest.approx(rates_of(reference, 40), abs=1e-9)


@pytest.mark.parametrize(("steps", "drop"), [(120, 0.1), (100, 0.5), (7, 0.3)])
def test_drops_are_those_of_torchs_multi_step(steps, drop):
    milestones = (2 / 3, 5 / 6)
    reference = MultiStepLR(optimizer(), [round(milestone * steps) for milestone in milestones], drop)
    seen = rates_of(step_drops(optimizer(), 0, steps, milestones, drop), steps)
    assert seen == pytest.approx(rates_of(reference, steps), **SAME)
    assert rates_of(step_drops(optimizer(), 3, steps, milestones, drop), steps)[3:] == seen[3:]


def test_the_default_drops_are_the_originals():
    seen = rates_of(step_drops(optimizer(), 0, 120), 120)
    assert [step for step in range(1, 120) if seen[step] != seen[step - 1]] == [80, 100]


@pytest.mark.parametrize(("stairs", "length", "decay"), [(20, 5, 0.8), (4, 25, 0.5), (1, 10, 0.1), (10, 1, 0.94)])
def test_each_stair_is_a_step_of_torchs_exponential(stairs, length, decay):
    reference = rates_of(ExponentialLR(optimizer(), decay), stairs)
    expected = [rate for rate in reference for _ in range(length)]
    seen = rates_of(staircase(optimizer(), 0, stairs * length, stairs, decay), stairs * length)
    assert seen == pytest.approx(expected, **SAME)
    assert rates_of(staircase(optimizer(), 2, stairs * length, stairs, decay), stairs * length)[2:] == seen[2:]


@pytest.mark.parametrize(("warmup", "cycles", "half", "lowest"), [(0, 4, 10, 0.1), (10, 3, 8, 0.0), (7, 1, 25, 0.5)])
def test_triangles_are_those_of_torchs_cyclic(warmup, cycles, half, lowest):
    reference = CyclicLR(
        optimizer(), base_lr=lowest * PEAK, max_lr=PEAK, step_size_up=half, mode="triangular2", cycle_momentum=False
    )
    steps = 2 * half * cycles
    seen = rates_of(triangular2(optimizer(), warmup, warmup + steps, cycles, lowest), warmup + steps)
    assert seen[warmup:] == pytest.approx(rates_of(reference, steps), **SAME)


@pytest.mark.parametrize("patience", [0, 1, 2])
@given(scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), max_size=30))
def test_drops_where_torchs_reduce_on_plateau_does(patience, scores):
    one = plateau(optimizer(), 0, 100, drop=0.5, patience=patience)
    reference = ReduceLROnPlateau(optimizer(), mode="max", factor=0.5, patience=patience, threshold=0, eps=0)
    for score in scores:
        one.optimizer.step()
        one.step()
        one.measured(score)
        reference.step(score)
        assert one.optimizer.param_groups[0]["lr"] == pytest.approx(reference.optimizer.param_groups[0]["lr"], **SAME)
        assert one.get_last_lr() == [one.optimizer.param_groups[0]["lr"]]


def test_a_plateau_that_is_gone_on_with_has_not_forgotten_its_measurements():
    first, second = plateau(optimizer(), 2, 50, patience=1), plateau(optimizer(), 2, 50, patience=1)
    rates_of(first, 10)
    for score in (0.5, 0.4):
        first.measured(score)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    second.measured(0.4)
    assert rates_of(second, 2) == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(10, 10), (-1, 10), (20, 10)])
def test_a_warmup_that_does_not_fit_is_refused(name, warmup, steps):
    with pytest.raises(ValueError, match="warmup must be shorter"):
        SCHEDULES[name](optimizer(), warmup, steps)
