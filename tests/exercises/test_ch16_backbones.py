"""The solutions of chapter 16 are what the library and PyTorch compute."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_lib import convergence, ssd
from course_lib.check import EXERCISES


@given(st.integers(1, 12), st.integers(1, 12))
def test_weights_are_those_of_the_detectors_two_kinds_of_head(inputs, outputs):
    dense, separable = EXERCISES["separable_weights"].solution(inputs, outputs, 3)
    assert dense == nn.Conv2d(inputs, outputs, 3).weight.numel()
    head = ssd.SeparableHead(inputs, outputs)
    assert separable == sum(one.weight.numel() for one in head if isinstance(one, nn.Conv2d))


def test_what_is_left_of_a_signal_is_what_is_left_in_a_network_without_edges():
    """Five layers of 64 channels, drawn by He's rule times 0.7; of the maps the middle, which no padding reaches."""
    generator, x = (
        torch.Generator().manual_seed(0),
        torch.randn(8, 64, 24, 24, generator=torch.Generator().manual_seed(1)),
    )
    deviation = 0.7 * math.sqrt(2 / 576)
    size = x.square().mean().sqrt()
    for _ in range(5):
        x = F.conv2d(x, torch.randn(64, 64, 3, 3, generator=generator) * deviation, padding=1).relu()
    found = x[..., 6:-6, 6:-6].square().mean().sqrt() / size
    expected = EXERCISES["signal_left"].solution([(64, 3, 1, deviation)] * 5)
    assert expected == pytest.approx(0.7**5)
    assert found.item() == pytest.approx(expected, rel=0.25)  # of one draw


def test_hes_weights_leave_the_signal_as_it_is():
    layer = nn.Conv2d(64, 64, 3, groups=4)
    convergence.he(layer.weight, torch.Generator().manual_seed(0))
    found = EXERCISES["signal_left"].solution([(64, 3, 4, layer.weight.std().item())])
    assert found == pytest.approx(1, rel=0.03)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5), st.booleans(), st.integers(0, 1000))
def test_batch_norm_is_pytorchs(images, channels, side, training, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, side, side, generator=generator, dtype=torch.float64)
    norm = nn.BatchNorm2d(channels, momentum=0.2, affine=False, dtype=torch.float64).train(training)
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    before = [one.clone()[None, :, None, None] for one in (norm.running_mean, norm.running_var)]
    found = EXERCISES["batch_norm"].solution(x, *before, 0.2, norm.eps, training)
    for one, other in zip(found, (norm(x), norm.running_mean, norm.running_var), strict=True):
        torch.testing.assert_close(one.flatten(), other.flatten())
