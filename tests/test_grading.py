"""The grader, by the verdicts that it gives on answers of all kinds."""

import signal
import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from graded import failing, well_formed, written

from course_lib import grading
from course_lib.boxes import box_iou
from course_lib.check import EXERCISES, check
from course_lib.grading import GENERAL_HINTS


def test_chance_gives_no_hint():
    """Each does in the case that fails what some mistake does, and something else after it."""
    for exercise, function in (
        ("iou", lambda a, b: 0.0),
        ("iou", lambda a, b: 0.5),
        ("iou", lambda a, b: 1 - EXERCISES["iou"].solution(a, b)),
        ("mirror_boxes", lambda boxes: boxes[:, [2, 1, 0, 3]].flip(0)),
        ("crop_accepted", lambda boxes, window, least: True),
    ):
        assert failing(exercise, function).hint is None


def test_a_function_that_answers_in_two_ways_is_told_so():
    answers = iter([0.0])

    def changes_its_mind(a, b):
        return next(answers, 1.0)

    assert failing("iou", changes_its_mind).problem == "it answers the same case in two ways"


def test_a_function_that_raises_fails_with_its_error_and_the_line():
    def iou(a, b):
        width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        return width * heigth

    verdict = failing("iou", iou)
    assert "NameError" in verdict.problem and "`return width * heigth" in verdict.problem
    assert verdict.hint is None and verdict.counterexample.got is None


def test_no_error_of_the_function_gets_out():
    def stop(*args):
        raise SystemExit(3)

    def endless(*args):
        return endless(*args)

    for exercise in EXERCISES:
        assert "SystemExit" in failing(exercise, stop).problem
        assert "RecursionError" in failing(exercise, endless).problem
        assert "TypeError" in failing(exercise, lambda: None).problem
        assert "called with" in failing(exercise, lambda: None).problem
    assert "(a, b)" in failing("iou", lambda a: 1.0).problem


def test_ctrl_c_stops_the_grader_too():
    def interrupted(a, b):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("iou", interrupted)


needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarms")


@needs_alarms
def test_an_answer_that_does_not_end_is_told_so(monkeypatch):
    def endless(a, b):
        while True:
            pass

    def stubborn(a, b):
        while True:
            with suppress(Exception):
                endless(a, b)

    def endless_where_it_is_hard(a, b):
        return 0.0 if a == EXERCISES["iou"].cases[0][0] else endless(a, b)

    monkeypatch.setattr(grading, "PATIENCE", 0.2)
    for function in (endless, stubborn):
        verdict = failing("iou", function)
        assert verdict.problem == "it did not end within 0.2 seconds" and verdict.cases == 0
        assert verdict.hint == GENERAL_HINTS["endless"] and verdict.counterexample.got is None
    assert not check("iou", endless_where_it_is_hard)


@needs_alarms
def test_no_alarm_is_left_behind(monkeypatch):
    def interrupted(a, b):
        raise KeyboardInterrupt

    def endless(a, b):
        while True:
            pass

    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(grading, "PATIENCE", 0.2)
    assert check("iou", written("iou", "plain"))
    failing("iou", endless)
    with pytest.raises(KeyboardInterrupt):
        check("iou", interrupted)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_thread_has_no_alarms_and_grades_all_the_same():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(check("iou", written("iou", "plain"))))
    thread.start()
    thread.join()
    assert verdicts[0].passed


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize(
    "value", ["0.5", None, {}, object(), 1j, [[1], [2, 3]], [], range, float("nan"), torch.ones(7, 7)]
)
def test_an_answer_of_a_wrong_kind_is_named(exercise, value):
    verdict = failing(exercise, lambda *args: value)
    assert verdict.cases == 0 and verdict.problem
    if value is None:
        assert verdict.problem == "it returns None" and verdict.hint == GENERAL_HINTS["nothing"]
    elif isinstance(value, float) and isinstance(EXERCISES[exercise].solution(*EXERCISES[exercise].cases[0]), float):
        assert "NaN" in verdict.problem and verdict.hint == GENERAL_HINTS["nan"]
    else:
        assert "comes as" in verdict.problem or f"of type {type(value).__name__} that cannot" in verdict.problem


def test_a_wrong_shape_is_named_with_the_right_one():
    verdict = failing("mirror_boxes", lambda boxes: boxes[:, :2])
    assert verdict.problem == "the answer comes as numbers of shape [1, 2]; wanted: numbers of shape [1, 4]"
    verdict = failing("crop_boxes", lambda boxes, window, least: (boxes, boxes[:, 0]))
    assert verdict.problem == "`kept` comes as numbers of shape [1]; wanted: integers of shape [1]"
    verdict = failing("crop_accepted", lambda boxes, window, least: 1)
    assert verdict.problem == "the answer comes as one integer; wanted: one truth value"


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list, tuple])
def test_several_numbers_may_come_as_one_array(kind):
    solution = EXERCISES["prior_address"].solution
    assert check("prior_address", lambda *args: kind(solution(*args)))
    problem = failing("prior_address", lambda *args: kind(solution(*args)[:3])).problem
    assert "cannot be read as (level, row, column, shape)" in problem


def test_of_more_than_two_axes_the_shape_is_shown():
    assert str(grading._text(torch.zeros(1, 2, 1, 1))) == "shape [1, 2, 1, 1]\n0\n0"
    assert str(grading._text(torch.zeros(1, 2))) == "0, 0"


def test_a_missing_axis_is_shown_where_it_can_be_seen():
    flat = written(
        "iou_matrix", "lists", "[[one(p, q) for q in b.tolist()] for p", "[one(p, q) for q in b.tolist() for p"
    )
    assert "shape [4]; wanted: numbers of shape [2, 2]" in failing("iou_matrix", flat).problem


def test_printing_in_place_of_returning_is_shown():
    verdict = failing("iou", lambda a, b: print("IoU", 0.5))
    assert verdict.problem == "it returns None" and verdict.counterexample.printed == "IoU 0.5\n"
    assert "IoU 0.5" in str(verdict)


def test_a_right_answer_must_not_print(capsys):
    def noisy(boxes):
        print("boxes", boxes)
        return written("mirror_boxes", "plain")(boxes)

    verdict = failing("mirror_boxes", noisy)
    assert verdict.problem == "it prints" and verdict.hint == GENERAL_HINTS["printed"]
    assert capsys.readouterr().out == ""


def test_changing_an_argument_is_found_and_spoils_no_case():
    def in_place(boxes):
        boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
        return boxes

    for _ in range(2):
        verdict = failing("mirror_boxes", in_place)
        assert verdict.problem == "it changes its argument `boxes`" and verdict.hint == GENERAL_HINTS["changed"]
    assert check("mirror_boxes", written("mirror_boxes", "plain"))


def test_warnings_of_the_function_are_kept_quiet():
    verdict = failing("iou_matrix", written("iou_matrix", "numpy", " + 1e-9", ""))
    assert "NaN" in verdict.problem


def test_the_counterexample_has_no_box_too_many():
    def transposed(a, b):
        return box_iou(b, a)

    def misses_the_third(boxes):
        mirrored = written("mirror_boxes", "plain")(boxes)
        mirrored[2:3] = 0
        return mirrored

    assert failing("iou_matrix", transposed).counterexample.args["b"].shape == (2, 4)
    assert len(failing("mirror_boxes", misses_the_third).counterexample.args["boxes"]) == 3
    every = written("crop_accepted", "plain", ".any()", ".all()")
    assert len(failing("crop_accepted", every).counterexample.args["objects"]) == 2


def test_a_flood_of_numbers_or_of_print_is_kept_short():
    def chatty(a, b):
        print("here " * 10_000)
        return torch.zeros(8732, 21)

    verdict = failing("iou", chatty)
    assert len(str(verdict)) < 600 and "Tensor of shape [8732, 21]" in str(verdict)


def test_what_the_function_says_is_escaped():
    def raises(a, b):
        raise ValueError("<script>alert(1)</script>")

    for function in (raises, lambda a, b: "<script>", lambda a, b: print("<img src=x>")):
        html = check("iou", function)._repr_html_()
        assert "<script" not in html and "<img" not in html and "&lt;" in html


def test_names_between_backticks_are_code_on_a_page():
    verdict = failing("crop_boxes", lambda boxes, window, least: (boxes, boxes[:, 0]))
    assert "`kept` comes as" in str(verdict) and "<code>kept</code> comes as" in verdict._repr_html_()


def test_labels_lie_where_no_other_shape_is():
    shapes = [grading.rectangle("a", "one", (0, 0, 2, 2)), grading.rectangle("b", "two", (-1, -1, 1, 1))]
    svg = grading._svg(shapes)
    assert '<text x="292.5" y="129.0"' in svg and '<text x="20.0" y="211.0"' in svg


def test_the_picture_shows_what_was_wanted_and_what_came():
    verdict = failing("mirror_boxes", written("mirror_boxes", "plain", "1 - x1, y0, 1 - x0, y1", "x0, y0, x1, y1"))
    assert ">expected</text>" in verdict.picture and ">got</text>" in verdict.picture
    assert verdict.picture.count('stroke-dasharray="7 4"') == 1
    assert "expected: (0.6, 0.2) (0.9, 0.2) (0.9, 0.7) (0.6, 0.7)" in verdict.picture


def test_a_box_with_its_corners_reversed_is_called_so_in_the_picture():
    verdict = failing("mirror_boxes", written("mirror_boxes", "plain", "1 - x1, y0, 1 - x0", "1 - x0, y0, 1 - x1"))
    assert ">got, reversed</text>" in verdict.picture


def test_what_lies_far_off_is_left_out_of_the_picture_and_that_is_said():
    verdict = failing("mirror_boxes", lambda boxes: boxes * 500)
    assert ">got</text>" not in verdict.picture and "outside this picture" in verdict.picture


def test_a_verdict_reads_the_same_in_a_terminal_and_on_a_page():
    verdict = failing("iou", written("iou", "torch", ".clamp(min=0)", ""))
    assert str(verdict) == repr(verdict)
    text = well_formed(verdict).text
    for line in (verdict.hint, "case 4 of 10 fails: the answer is wrong.", "expected", "got"):
        assert line in str(verdict) and line in text
    passed = check("iou", written("iou", "plain"))
    assert str(passed) == "✓ iou: all 10 cases pass." and "all 10 cases pass." in well_formed(passed).text


def test_a_mask_loses_its_row_together_with_what_it_marks():
    verdict = failing(
        "hard_negatives", lambda loss, positives, ratio: positives if len(loss) > 1 else ~positives & False
    )
    assert verdict.counterexample.args["loss"].shape == verdict.counterexample.args["positives"].shape
