"""The solutions of chapter 4 are what others compute: priors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import priors
from course_lib.check import EXERCISES

SPECS = [priors.SSD300, priors.SSD_MINI]


@pytest.mark.parametrize("spec", SPECS)
def test_the_solutions_on_priors_are_what_the_library_does(spec):
    solution = {name: EXERCISES[name].solution for name in ("prior_count", "nearest_cell", "prior_shapes")}
    boxes = spec.boxes()
    assert solution["prior_count"](spec.maps, spec.per_cell) == len(boxes)
    for index in range(0, len(boxes), 97):
        level, row, column, shape = EXERCISES["prior_address"].solution(index, spec.maps, spec.per_cell)
        shapes = solution["prior_shapes"](spec.sides[level], spec.sides[level + 1], spec.ratios[level])
        size = [side / spec.image_size for side in shapes[shape]]
        torch.testing.assert_close(boxes[index, 2:], torch.tensor(size), rtol=1e-6, atol=0)
        x, y = (boxes[index, :2] * spec.image_size).tolist()
        assert solution["nearest_cell"](x, y, spec.steps[level], spec.maps[level]) == (row, column)


@settings(deadline=None)
@given(st.floats(0, 300), st.floats(0, 300), st.sampled_from([(8.0, 37), (16.0, 19), (53.5, 3), (32.0, 10)]))
def test_the_solution_of_nearest_cell_is_what_a_search_finds(x, y, level):
    step, side = level
    centres = (np.arange(side) + 0.5) * step
    distances = np.abs(centres[:, None] - y) ** 2 + np.abs(centres - x) ** 2
    row, column = EXERCISES["nearest_cell"].solution(x, y, step, side)
    assert distances[row, column] == pytest.approx(distances.min())


@settings(deadline=None)
@given(st.lists(st.sampled_from([1.0, 0.5, 2.0, 1 / 3, 3.0, 1.5]), max_size=6))
def test_the_solution_of_prior_shapes_gives_no_box_twice_and_keeps_the_area(ratios):
    squares, stretched = np.split(np.array(EXERCISES["prior_shapes"].solution(30.0, 60.0, tuple(ratios))), [2])
    assert len(np.unique(stretched.round(4), axis=0)) == len(stretched)
    np.testing.assert_allclose(stretched.prod(axis=1), squares[0].prod())
    found = {round(w / h, 4) for w, h in stretched}
    assert found == {round(one, 4) for ratio in ratios if ratio != 1 for one in (ratio, 1 / ratio)}
