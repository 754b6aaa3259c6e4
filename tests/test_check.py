"""The exercises: right answers pass, each mistake gets its own hint, and the solutions are what others compute."""

import numpy as np
import pytest
import torch
import torchvision
from answers import MISTAKES, SOURCES, well_formed, written
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from strategies import corner_boxes

from course_lib import priors, ssd, voc, weights
from course_lib.boxes import box_iou, encode, to_corners
from course_lib.check import EXERCISES, check
from course_lib.grading import GENERAL_HINTS
from course_lib.losses import FocalLoss, MultiBoxLoss, expect_background, sigmoid_focal
from course_lib.matching import Matches, match

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
    few = {"rtol": 0, "atol": 1e-6}  # two or three float32 operations on fractions
    torch.testing.assert_close(mirror(mirror(boxes)), boxes, **few)
    torch.testing.assert_close(mirror(boxes)[:, 2:] - mirror(boxes)[:, :2], boxes[:, 2:] - boxes[:, :2], **few)


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
    assume(((box_iou(boxes, window) - least).abs() > 1e-6).all())  # or rounding decides
    accepted = EXERCISES["crop_accepted"].solution(boxes, tuple(window[0].tolist()), least)
    assert accepted == any(iou >= least for iou in box_iou(boxes, window)[:, 0].tolist())


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


def test_the_solutions_on_heads_are_what_the_library_does():
    model = ssd.ssd_mini()
    for k, loc, conf in zip(model.spec.per_cell, model.loc_heads, model.conf_heads, strict=True):
        assert EXERCISES["head_channels"].solution(k, 20) == (loc.out_channels, conf.out_channels)
    head = torch.rand(2, 24, 5, 3)
    assert torch.equal(EXERCISES["rows_to_head"].solution(ssd.per_prior(head, 4), 5, 3), head)


@settings(deadline=None)  # SSD's priors take a while on a busy machine
@given(corner_boxes(minimum=1, smallest=0.05), st.integers(0, 2000))
def test_the_solution_of_encode_box_is_what_the_library_does(boxes, index):
    prior = priors.SSD_MINI.boxes()[index]
    found = EXERCISES["encode_box"].solution(tuple(boxes[0].tolist()), tuple(prior.tolist()))
    torch.testing.assert_close(torch.tensor(found), encode(boxes[:1], prior[None])[0], atol=1e-3, rtol=1e-3)


@settings(deadline=None)
@given(corner_boxes(minimum=1, smallest=0.05))
def test_the_solution_of_greedy_is_what_match_gives_by_force(boxes):
    """With a threshold that nothing reaches, only the forced pairs are left."""
    some = priors.SSD_MINI.boxes()
    matches = match(boxes[None], torch.ones(1, len(boxes), dtype=torch.int64), some, iou_threshold=2.0)
    found = EXERCISES["greedy"].solution(box_iou(boxes, to_corners(some)))
    assert [(matches.gt_index[0] == one).nonzero()[:, 0].tolist() for one in range(len(boxes))] == [[p] for p in found]


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12))
def test_the_solution_of_smooth_l1_sum_is_pytorchs(differences):
    given = torch.tensor(differences)
    expected = torch.nn.functional.smooth_l1_loss(given, torch.zeros_like(given), reduction="sum").item()
    assert EXERCISES["smooth_l1_sum"].solution(given) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(st.integers(0, 2**20), st.sampled_from([0.0, 0.1, 0.6]), st.integers(1, 4))
def test_the_solutions_on_the_loss_together_are_the_multibox_loss(seed, share, ratio):
    generator = torch.Generator().manual_seed(seed)
    positives = torch.rand(3, 12, generator=generator) < share
    labels = torch.where(positives, torch.randint(1, 5, (3, 12), generator=generator), 0)
    logits, offsets = torch.randn(3, 12, 5, generator=generator), torch.zeros(3, 12, 4)
    cost = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none")
    mined = EXERCISES["hard_negatives"].solution(cost, positives, ratio)
    costs = (cost * (positives | mined)).sum(dim=1).tolist()
    found = EXERCISES["batch_loss"].solution(costs, positives.sum(dim=1).tolist())
    expected = MultiBoxLoss(ratio)(offsets, logits, Matches(labels, offsets, labels - 1))["conf"].item()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(st.floats(0.001, 0.999))
def test_the_solution_of_prior_bias_is_the_inverse_of_a_sigmoid(pi):
    bias = EXERCISES["prior_bias"].solution(pi)
    assert torch.tensor(bias, dtype=torch.float64).sigmoid().item() == pytest.approx(pi)


def test_the_solution_of_prior_bias_is_what_the_heads_start_with():
    model = ssd.ssd_mini()
    expect_background(model, pi=0.03)
    bias = EXERCISES["prior_bias"].solution(0.03)
    torch.testing.assert_close(
        model.conf_heads[0].bias.view(-1, 21)[:, 1:], torch.full((4, 20), bias), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("case", EXERCISES["initial_focal"].cases)
def test_the_solution_of_initial_focal_is_what_focal_loss_gives_at_the_start(case):
    count, classes, positives, pi, alpha, gamma = case
    labels = torch.zeros(1, count, dtype=torch.int64)
    labels[0, :positives] = 1
    logits = torch.full((1, count, classes + 1), EXERCISES["prior_bias"].solution(pi))
    offsets = torch.zeros(1, count, 4)
    loss = FocalLoss(alpha, gamma)(offsets, logits, Matches(labels, offsets, labels - 1))["conf"]
    assert EXERCISES["initial_focal"].solution(*case) == pytest.approx(loss.item(), rel=1e-4)


@given(st.floats(-100, 100), st.booleans(), st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_the_solution_of_focal_term_is_what_the_library_does(logit, wanted, alpha, gamma):
    row = torch.tensor([[0.0, logit]], dtype=torch.float64)
    expected = sigmoid_focal(row, torch.tensor([int(wanted)]), alpha, gamma).item()
    assert EXERCISES["focal_term"].solution(logit, wanted, alpha, gamma) == pytest.approx(expected, rel=1e-6, abs=1e-12)
