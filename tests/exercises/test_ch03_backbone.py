"""The solutions of chapter 3 are what others compute: sizes of maps, receptive fields, decimation."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from course_lib import weights
from course_lib.check import EXERCISES


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_the_solution_of_map_size_is_pytorchs(size, kernel, stride, padding, ceil):
    padding = min(padding, kernel // 2)  # PyTorch takes no more
    assume(size + 2 * padding >= kernel)
    pooled = torch.nn.functional.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, ceil_mode=ceil)
    assert EXERCISES["map_size"].solution(size, kernel, stride, padding, ceil) == pooled.shape[-1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 3)), max_size=5), st.integers(1, 3))
def test_the_solution_of_receptive_field_counts_the_pixels_that_reach_some_cells(layers, cells):
    signal = torch.ones(1, 1, 500, dtype=torch.float64, requires_grad=True)
    found = signal
    for kernel, stride, dilation in layers:
        ones = torch.ones(1, 1, kernel, dtype=torch.float64)
        found = torch.nn.functional.conv1d(found, ones, stride=stride, dilation=dilation)
    (gradient,) = torch.autograd.grad(found[0, 0, :cells].sum(), signal)
    assert EXERCISES["receptive_field"].solution(layers, cells) == gradient.nonzero()[-1, -1] + 1


def test_the_solution_of_decimate_is_what_is_done_to_vgg16():
    tensors = {f"{name}.{part}": torch.zeros(8, 8) for name in weights.VGG16_CLASSIFIER for part in ("weight", "bias")}
    fc6 = tensors["classifier.0.weight"] = torch.randn(8, 512 * 7 * 7)
    expected = weights.decimated(tensors)["classifier.0.weight"]
    channels_last = fc6.unflatten(1, (512, 7, 7)).permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(EXERCISES["decimate"].solution(channels_last, 7, 4, 3), expected)
