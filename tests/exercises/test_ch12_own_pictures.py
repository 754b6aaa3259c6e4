"""The solutions of chapter 12 are what the library and others compute."""

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib import ssd, weights
from course_lib.annotations import read_annotation
from course_lib.check import EXERCISES
from course_lib.copies import Fingerprint, copies

ANNOTATION = """<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size><object>
<name>dog</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
</object></annotation>"""


@given(st.data())
def test_the_solution_of_yolo_to_voc_gives_the_boxes_that_a_yolo_line_was_made_of(tmp_path_factory, data):
    """Six decimals of a fraction are less than half a pixel in pictures of up to 200,000."""
    width, height = data.draw(st.integers(2, 5000)), data.draw(st.integers(2, 5000))
    corners = []
    for side in (width, height):
        low = data.draw(st.integers(0, side - 1))
        corners.append((low, data.draw(st.integers(low + 1, side))))
    (x0, x1), (y0, y1) = corners
    line = (
        round(value, 6)
        for value in ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    )
    found = EXERCISES["yolo_to_voc"].solution(*line, width, height)
    assert found == (x0 + 1, y0 + 1, x1, y1)
    if x1 - x0 > 1 and y1 - y0 > 1:
        path = tmp_path_factory.mktemp("voc") / "1.xml"
        path.write_text(ANNOTATION.format(*found, width=width, height=height))
        assert read_annotation(path).boxes_px.tolist() == [[x0, y0, x1, y1]]


@st.composite
def hashes(draw):
    """Hashes of some pictures, of which some are a few bits away from others."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    rows = [rng.random(256) < 0.5]
    for _ in range(draw(st.integers(0, 12))):
        flipped = rng.random(256) < rng.choice([0.05, 0.2, 0.5])
        rows.append(rows[rng.integers(len(rows))] ^ flipped)
    return np.array(rows)


@given(hashes(), st.integers(0, 128))
def test_the_solution_of_groups_of_finds_the_parts_of_a_graph_and_the_library_s_copies(rows, most):
    distances = (rows[:, None] != rows).sum(axis=2)
    found = EXERCISES["groups_of"].solution(distances, most)
    graph = networkx.from_numpy_array(distances <= most)
    parts = {tuple(sorted(part)) for part in networkx.connected_components(graph)}
    assert {tuple(np.flatnonzero(np.array(found) == one)) for one in set(found)} == parts
    assert all(part[0] in found for part in parts)
    unlike = np.zeros(256, dtype=bool)  # its mirror image is near to nothing here
    unlike[::2] = True
    far = [Fingerprint(b"", row, unlike) for row in rows]
    if ((rows != unlike).sum(axis=1) > most).all():
        assert copies(far, most).tolist() == found


@pytest.mark.parametrize("new", [("dog", "fox", "cat"), ("cow",), ("cat", "cow", "dog")])
def test_the_solution_of_rows_taken_fills_a_class_head_as_the_library_does(tmp_path, new):
    old = ("cat", "cow", "dog")
    taught, fresh = ssd.ssd_mini(4, old), ssd.ssd_mini(1 + len(new), new)
    weights.save(taught, tmp_path / "taught.safetensors")
    before = [head.weight.clone() for head in fresh.conf_heads]
    weights.start_from(fresh, tmp_path / "taught.safetensors")
    for head, theirs, own in zip(fresh.conf_heads, taught.conf_heads, before, strict=True):
        rows = torch.tensor(EXERCISES["rows_taken"].solution(old, new, len(theirs.weight) // 4))
        expected = torch.where((rows < 0)[:, None, None, None], own, theirs.weight[rows.clamp(min=0)])
        torch.testing.assert_close(head.weight.detach(), expected.detach(), rtol=0, atol=0)
