"""The solutions of chapter 5 are what others compute: heads."""

import torch

from course_lib import ssd
from course_lib.check import EXERCISES


def test_the_solutions_on_heads_are_what_the_library_does():
    model = ssd.ssd_mini()
    for k, loc, conf in zip(model.spec.per_cell, model.loc_heads, model.conf_heads, strict=True):
        assert EXERCISES["head_channels"].solution(k, 20) == (loc.out_channels, conf.out_channels)
    head = torch.rand(2, 24, 5, 3)
    assert torch.equal(EXERCISES["rows_to_head"].solution(ssd.per_prior(head, 4), 5, 3), head)
