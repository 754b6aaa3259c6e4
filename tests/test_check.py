"""The exercises: right answers pass, each mistake gets its own hint, and the solutions are what others compute."""

import numpy as np
import pytest
import torch
import torchvision
from answers import MISTAKES, SOURCES, well_formed, written
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from strategies import corner_boxes

from course_lib import priors, ssd, voc, weights
from course_lib.boxes import box_iou, encode, to_corners
from course_lib.check import EXERCISES, check
from course_lib.grading import GENERAL_HINTS
from course_lib.matching import match

RIGHT = [(exercise, style) for exercise, styles in SOURCES.items() for style in styles]
WRONG = [
    pytest.param(exercise, mistake, style, edits, id=f"{exercise}, {mistake}, {number}")
    for exercise, mistakes in MISTAKES.items()
    for mistake, many in mistakes.items()
    for number, (style, *edits) in enumerate(many)
]
TWINS = [
    pytest.param(exercise, mistake.hint, twin, id=f"{exercise}, {name}, {number}")
    for exercise, one in EXERCISES.items()
    for name, mistake in one.mistakes.items()
    for number, twin in enumerate(mistake.twins)
]


@pytest.mark.parametrize(("exercise", "style"), RIGHT)
def test_right_answers_pass_in_whatever_style(exercise, style):
    verdict = check(exercise, written(exercise, style))
    assert verdict and verdict.passed, verdict
    assert verdict.cases == len(EXERCISES[exercise].cases)
    assert verdict.hint is None and verdict.counterexample is None


@pytest.mark.parametrize(("exercise", "mistake", "style", "edits"), WRONG)
def test_wrong_answers_get_the_hint_for_their_mistake(exercise, mistake, style, edits):
    verdict = check(exercise, written(exercise, style, *edits))
    assert not verdict and not verdict.passed
    assert verdict.hint == EXERCISES[exercise].mistakes[mistake].hint, verdict


@pytest.mark.parametrize(("exercise", "hint", "twin"), TWINS)
def test_every_twin_is_told_apart_from_the_others(exercise, hint, twin):
    verdict = check(exercise, twin)
    assert not verdict
    assert verdict.hint == hint, verdict
    well_formed(verdict)


def test_every_known_mistake_is_made_here():
    known = {(exercise, name) for exercise, one in EXERCISES.items() for name in one.mistakes}
    assert {(exercise, name) for exercise, many in MISTAKES.items() for name in many} == known


def test_every_mistake_has_a_hint_of_its_own():
    for one in EXERCISES.values():
        hints = [*GENERAL_HINTS.values(), *(mistake.hint for mistake in one.mistakes.values())]
        assert len(set(hints)) == len(hints)
    # A matrix of IoU can go wrong as one IoU does, and then the same is to be said.
    hints = [m.hint for name, one in EXERCISES.items() if name != "iou_matrix" for m in one.mistakes.values()]
    assert len(set(hints)) == len(hints)


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(ValueError, match=r"'iuo'.*voc_box, iou, iou_matrix, mirror_boxes, crop_boxes, rotated_box"):
        check("iuo", max)


def test_a_result_in_place_of_the_function_is_refused():
    with pytest.raises(Exception, match="function"):
        check("iou", 0.5)


@given(corner_boxes(minimum=1, maximum=1), corner_boxes(minimum=1, maximum=1))
def test_the_solution_of_iou_is_torchvisions(a, b):
    value = EXERCISES["iou"].solution(tuple(a[0].tolist()), tuple(b[0].tolist()))
    assert value == pytest.approx(torchvision.ops.box_iou(a, b).item(), abs=1e-5)


def test_the_solution_of_voc_box_is_what_the_reader_of_annotations_does(tmp_path):
    for case in EXERCISES["voc_box"].cases:
        if case[0] < case[2] and case[1] < case[3]:
            tags = ("xmin", "ymin", "xmax", "ymax", "width", "height")
            inner = [f"<{tag}>{number}</{tag}>" for tag, number in zip(tags, case, strict=True)]
            path = tmp_path / "a.xml"
            path.write_text(
                f"<annotation><size>{''.join(inner[4:])}</size><object><name>cat</name>"
                f"<bndbox>{''.join(inner[:4])}</bndbox></object></annotation>"
            )
            expected = voc.read_annotation(path).boxes[0].tolist()
            assert EXERCISES["voc_box"].solution(*case) == pytest.approx(expected)


@given(corner_boxes())
def test_the_solution_of_mirror_boxes_is_its_own_inverse(boxes):
    mirror = EXERCISES["mirror_boxes"].solution
    torch.testing.assert_close(mirror(mirror(boxes)), boxes)
    torch.testing.assert_close(mirror(boxes)[:, 2:] - mirror(boxes)[:, :2], boxes[:, 2:] - boxes[:, :2])


@given(corner_boxes(minimum=1, smallest=0.05), corner_boxes(minimum=1, maximum=1, smallest=0.1), st.floats(0, 1))
def test_the_solution_of_crop_boxes_counts_pixels_right(boxes, window, least):
    """On a grid of 50 * 50 pixels, on which the boxes are put."""
    boxes, window = (boxes * 50).round(), (window[0] * 50).round()
    xmin, ymin, xmax, ymax = window.int().tolist()
    new, kept = EXERCISES["crop_boxes"].solution(boxes / 50, tuple((window / 50).tolist()), least)
    rows = {index: row for row, index in enumerate(kept.tolist())}
    for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        image = np.zeros((50, 50))
        image[y0:y1, x0:x1] = 1
        seen = image[ymin:ymax, xmin:xmax]
        if abs(seen.sum() / image.sum() - least) < 1e-3:
            continue  # rounding decides
        assert (index in rows) == (seen.sum() >= least * image.sum() and seen.any())
        if index in rows:
            y, x = np.nonzero(seen)
            expected = [x.min() / seen.shape[1], y.min() / seen.shape[0]]
            expected += [(x.max() + 1) / seen.shape[1], (y.max() + 1) / seen.shape[0]]
            np.testing.assert_allclose(new[rows[index]], expected, atol=1e-4)


@pytest.mark.parametrize("case", EXERCISES["rotated_box"].cases)
def test_the_solution_of_rotated_box_goes_round_a_turned_picture(case):
    box, degrees, width, height = case
    margin = 60
    image = Image.new("L", (width + 2 * margin, height + 2 * margin))
    x0, y0, x1, y1 = (round(value) + margin for value in box)
    ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=255)
    found = image.rotate(degrees, resample=Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127)).getbbox()
    expected = np.array(EXERCISES["rotated_box"].solution(*case)) + margin
    np.testing.assert_allclose(found, expected, atol=1.5)


@given(corner_boxes(), corner_boxes(minimum=1, maximum=1), st.floats(0.05, 1))
def test_the_solution_of_crop_accepted_asks_any_object(boxes, window, least):
    accepted = EXERCISES["crop_accepted"].solution(boxes, tuple(window[0].tolist()), least)
    assert accepted == any(iou >= least for iou in box_iou(boxes, window)[:, 0].tolist())


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_the_solution_of_map_size_is_pytorchs(size, kernel, stride, padding, ceil):
    padding = min(padding, kernel // 2)  # PyTorch takes no more
    assume(size + 2 * padding >= kernel)
    pooled = torch.nn.functional.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, ceil_mode=ceil)
    assert EXERCISES["map_size"].solution(size, kernel, stride, padding, ceil) == pooled.shape[-1]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 3)), max_size=5))
def test_the_solution_of_receptive_field_counts_the_pixels_that_reach_a_cell(layers):
    signal = torch.ones(1, 1, 500, dtype=torch.float64, requires_grad=True)
    found = signal
    for kernel, stride, dilation in layers:
        ones = torch.ones(1, 1, kernel, dtype=torch.float64)
        found = torch.nn.functional.conv1d(found, ones, stride=stride, dilation=dilation)
    (gradient,) = torch.autograd.grad(found[0, 0, 0], signal)
    assert EXERCISES["receptive_field"].solution(layers) == gradient.nonzero()[-1, -1] + 1


def test_the_solution_of_decimate_is_what_is_done_to_vgg16():
    tensors = {f"{name}.{part}": torch.zeros(8, 8) for name in weights.VGG16_CLASSIFIER for part in ("weight", "bias")}
    fc6 = tensors["classifier.0.weight"] = torch.randn(8, 512 * 7 * 7)
    expected = weights.decimated(tensors)["classifier.0.weight"]
    assert torch.equal(EXERCISES["decimate"].solution(fc6, 7, 4, 3), expected)


SPECS = [priors.SSD300, priors.SSD_MINI]


@pytest.mark.parametrize("spec", SPECS)
def test_the_solutions_on_priors_are_what_the_library_does(spec):
    solution = {name: EXERCISES[name].solution for name in ("prior_count", "prior_centre", "prior_shapes")}
    boxes = spec.boxes()
    assert solution["prior_count"](spec.maps, spec.per_cell) == len(boxes)
    for index in range(0, len(boxes), 97):
        level, row, column, shape = EXERCISES["prior_address"].solution(index, spec.maps, spec.per_cell)
        shapes = solution["prior_shapes"](spec.sides[level], spec.sides[level + 1], spec.ratios[level])
        centre = solution["prior_centre"](row, column, spec.steps[level], spec.image_size)
        size = [side / spec.image_size for side in shapes[shape]]
        torch.testing.assert_close(boxes[index], torch.tensor([*centre, *size]))


def test_the_solutions_on_heads_are_what_the_library_does():
    model = ssd.ssd_mini()
    for k, loc, conf in zip(model.spec.per_cell, model.loc_heads, model.conf_heads, strict=True):
        assert EXERCISES["head_channels"].solution(k, 20) == (loc.out_channels, conf.out_channels)
    head = torch.rand(2, 24, 5, 3)
    assert torch.equal(EXERCISES["flatten_head"].solution(head, 4), ssd.per_prior(head, 4))


@given(corner_boxes(minimum=1, smallest=0.05), st.integers(0, 2000))
def test_the_solution_of_encode_box_is_what_the_library_does(boxes, index):
    prior = priors.SSD_MINI.boxes()[index]
    found = EXERCISES["encode_box"].solution(tuple(boxes[0].tolist()), tuple(prior.tolist()))
    torch.testing.assert_close(torch.tensor(found), encode(boxes[:1], prior[None])[0], atol=1e-3, rtol=1e-3)


@given(corner_boxes(minimum=1, smallest=0.05))
def test_the_solution_of_greedy_is_what_match_gives_by_force(boxes):
    """With a threshold that nothing reaches, only the forced pairs are left."""
    some = priors.SSD_MINI.boxes()
    matches = match(boxes[None], torch.ones(1, len(boxes), dtype=torch.int64), some, iou_threshold=2.0)
    found = EXERCISES["greedy"].solution(box_iou(boxes, to_corners(some)))
    assert [(matches.gt_index[0] == one).nonzero()[:, 0].tolist() for one in range(len(boxes))] == [[p] for p in found]
