from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import mirrored, size
from hypothesis import given, settings
from hypothesis import strategies as some

from course_lib.boxes import to_cxcywh
from course_lib.doctor.markers import COLOURS, OTHERWISE, cause, drawn, extents, iou, trials

SIZE = 160, 120


@settings(max_examples=10)
@given(seed=some.integers(0, 10_000), width=some.integers(96, 300), height=some.integers(96, 300))
def test_every_marker_is_found_where_it_was_drawn(seed, width, height):
    image, target = drawn((width, height), (1, 2, 3), np.random.default_rng(seed))
    found = extents(image)
    assert image.shape == (height, width, 3) and list(found) == list(COLOURS)
    for (corners, whole, side), box in zip(found.values(), target.boxes.numpy(), strict=True):
        pixels = box * np.array([width, height] * 2)
        np.testing.assert_allclose(corners, box, atol=1e-6)  # whole pixels: only float32 rounds
        assert side == pytest.approx(min(pixels[2:] - pixels[:2]), abs=1e-3)
        edges = (pixels.round() >= 2)[:2].all() and (pixels.round() <= [0, 0, width - 2, height - 2])[2:].all()
        assert whole == edges


def test_nothing_is_found_in_a_grey_picture():
    image, _ = drawn(SIZE, (1, 2, 3), np.random.default_rng(0))
    assert extents(np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)) == {}


def test_each_box_of_a_transform_that_does_nothing_is_on_its_marker_and_labels_go_round():
    made = trials(lambda image, target: (image, target), SIZE, None, count=6)
    for trial in made:
        assert [trial.on(box) for box in trial.boxes] == list(trial.markers) == trial.visible()
        assert [marker.label for marker in trial.markers] == list(trial.labels)
        assert iou(trial.boxes[0], trial.boxes[0]) == pytest.approx(1, abs=1e-6)
        assert iou(trial.boxes[0], trial.boxes[1]) == 0
    assert {trial.size for trial in made} == {SIZE, SIZE[::-1]}
    assert {label for trial in made for label in trial.labels} == {1, 2, 3}
    assert all(label == 1 for trial in trials(lambda *both: both, SIZE, 1, count=6) for label in trial.labels)


def in_pixels(boxes, target):
    return boxes * torch.tensor([*target.size, *target.size])


FORGOT = {
    "the picture is mirrored left to right": lambda b, t: mirrored(b),
    "upside down": lambda b, t: torch.stack([b[:, 0], 1 - b[:, 3], b[:, 2], 1 - b[:, 1]], dim=1),
    "x and y of the box": lambda b, t: b[:, [1, 0, 3, 2]],
    "minima and maxima are exchanged": lambda b, t: b[:, [2, 3, 0, 1]],
    "the box is in pixels": in_pixels,
    "the box is (x, y, width, height)": lambda b, t: torch.cat([b[:, :2], size(b)], dim=1),
    "the box is centre and size": lambda b, t: to_cxcywh(b),
    OTHERWISE: lambda b, t: b * 0.05 + 0.001,
}


@pytest.mark.parametrize("named", FORGOT)
def test_what_was_done_to_the_boxes_alone_is_the_cause(named):
    made = trials(lambda image, t: (image, replace(t, boxes=FORGOT[named](t.boxes, t))), SIZE, 3, count=2)
    lost = [(trial, box) for trial in made for box in trial.boxes if trial.on(box) is None]
    assert len(lost) > len(made) and named in cause(lost)
