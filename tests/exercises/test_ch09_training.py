"""The solutions of chapter 9 are what others compute: schedules, a batch as a whole, torch's own scaler."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from course_lib.check import EXERCISES
from course_lib.losses import FocalLoss, MultiBoxLoss, total
from course_lib.matching import Matches
from course_lib.schedules import warmup_cosine_factor


@given(st.integers(0, 200), st.integers(0, 100), st.integers(3, 300))
def test_the_solution_of_lr_factor_is_the_schedule_of_the_library(step, warmup, steps):
    assume(warmup + 2 <= steps and step < steps)
    factor = EXERCISES["lr_factor"].solution(step, warmup, steps)
    assert factor == pytest.approx(warmup_cosine_factor(step, warmup, steps), abs=1e-12)


def of_images(loss, labels, offsets, logits, rows):
    """The gradient of shared weights, where the loss sees some of the images."""
    weight = torch.ones(4, requires_grad=True)
    matches = Matches(labels[rows], torch.zeros_like(offsets[rows]), labels[rows] - 1)
    parts = loss(offsets[rows] * weight, logits[rows] * weight[0], matches)
    total(parts).backward()
    return weight.grad


@pytest.mark.parametrize("loss", [MultiBoxLoss(), FocalLoss()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("chances", [(0.4, 0.02, 0.2), (0.3, 0.0, 0.3), (0.0, 0.0, 0.0)])
def test_the_solution_of_whole_gradient_is_the_gradient_of_the_whole_batch(loss, chances):
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    taken = torch.rand(3, 50, **draw) < torch.tensor(chances)[:, None]
    labels = torch.randint(1, 5, (3, 50), generator=generator) * taken
    case = loss, labels, torch.randn(3, 50, 4, **draw).float(), torch.randn(3, 50, 5, **draw).float()
    gradients = [of_images(*case, [rank]) for rank in range(3)]
    found = EXERCISES["whole_gradient"].solution(gradients, taken.sum(dim=1).tolist())
    # Float32 sums of some hundred terms: 1e-6 of the largest, and up to 750 of them.
    torch.testing.assert_close(found, of_images(*case, [0, 1, 2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", EXERCISES["scaled_step"].cases)
def test_the_solution_of_scaled_step_is_what_torch_s_scaler_does(case):
    weights, gradients, scale, rate, max_norm = case
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    optimizer = torch.optim.SGD(parameters, lr=rate)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.zeros(()))  # a scaler begins with the first loss
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    scaler.step(optimizer)
    scaler.update()
    found, found_scale = EXERCISES["scaled_step"].solution(*case)
    torch.testing.assert_close(found, [one.detach() for one in parameters], rtol=1e-5, atol=1e-6)
    assert math.isclose(found_scale, scaler.get_scale())
