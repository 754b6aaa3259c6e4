"""How verdicts are shown."""

import torch
from graded import failing, well_formed, written

from course_lib import verdicts
from course_lib.check import check
from course_lib.exercises.ch10_detections import greedy_nms
from course_lib.grading import Exercise, grade


def test_of_more_than_two_axes_the_shape_is_shown():
    assert str(verdicts._text(torch.zeros(1, 2, 1, 1))) == "shape [1, 2, 1, 1]\n0\n0"
    assert str(verdicts._text(torch.zeros(1, 2))) == "0, 0"


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
    shapes = [verdicts.rectangle("a", "one", (0, 0, 2, 2)), verdicts.rectangle("b", "two", (-1, -1, 1, 1))]
    svg = verdicts.svg(shapes)
    assert '<text x="292.5" y="129.0"' in svg and '<text x="20.0" y="211.0"' in svg


def test_the_picture_shows_what_was_wanted_and_what_came():
    verdict = failing("mirror_boxes", written("mirror_boxes", "plain", "1 - x1, y0, 1 - x0, y1", "x0, y0, x1, y1"))
    assert ">expected</text>" in verdict.picture and ">got</text>" in verdict.picture
    assert verdict.picture.count('stroke-dasharray="7 4"') == 1
    assert "expected: (0.6, 0.2) (0.9, 0.2) (0.9, 0.7) (0.6, 0.7)" in verdict.picture


def test_a_box_with_its_corners_reversed_is_called_so_in_the_picture():
    verdict = failing("mirror_boxes", written("mirror_boxes", "plain", "1 - x1, y0, 1 - x0", "1 - x0, y0, 1 - x1"))
    assert ">got, reversed</text>" in verdict.picture


def test_an_answer_that_fails_where_there_is_nothing_to_draw_gets_a_verdict():
    assert verdicts.svg([]) == "" and verdicts.svg([verdicts.rectangle("got", "got", (0, 0, 1, 1))]) == ""
    for empty in (None, [0], torch.zeros(0, 5)):
        verdict = check("greedy_nms", lambda *args, empty=empty: greedy_nms(*args) if len(args[0]) else empty)
        assert not verdict.passed and "no rows" in str(verdict)


def test_what_lies_far_off_is_left_out_of_the_picture_and_that_is_said():
    verdict = failing("mirror_boxes", lambda boxes: boxes * 500)
    assert ">got</text>" not in verdict.picture and "outside this picture" in verdict.picture


def test_a_verdict_reads_the_same_in_a_terminal_and_on_a_page():
    verdict = failing("iou", written("iou", "torch", ".clamp(min=0)", ""))
    assert str(verdict) == repr(verdict)
    text = well_formed(verdict).text
    for line in (verdict.hint, "case 4 of 13 fails: the answer is wrong.", "expected", "got"):
        assert line in str(verdict) and line in text
    passed = check("iou", written("iou", "plain"))
    assert str(passed) == "✓ iou: all 13 cases pass." and "all 13 cases pass." in well_formed(passed).text


def test_a_difference_too_small_for_five_digits_is_shown_with_more():
    exercise = Exercise(lambda x: 2 * x, [(1.0,)], {}, tolerance=1e-7)
    rows = dict(grade("doubled", exercise, lambda x: 2 * x + 1e-6)._rows())
    assert (rows["x"], rows["expected"], rows["got"]) == ("1", "2", "2.000001")
    assert dict(grade("doubled", exercise, lambda x: 2 * x + 0.1234567)._rows())["got"] == "2.1235"


def test_a_whole_number_that_came_as_a_float_is_shown_as_one():
    """Where "one integer" was wanted, "got 26" said nothing."""
    exercise = Exercise(lambda x: (x, x + 1), [(26,)], {}, returns=("low", "high"))
    rows = dict(grade("two", exercise, lambda x: (float(x), x + 1))._rows())
    assert (rows["expected low"], rows["got low"], rows["got high"]) == ("26", "26.0", "27")


def test_tiny_numbers_that_differ_are_shown_and_what_rounding_leaves_of_zero_is_not():
    exercise = Exercise(lambda x: x / 3e12, [(1.0,)], {}, tolerance=1e-5, absolute=0.0)
    rows = dict(grade("divided", exercise, lambda x: 0.0)._rows())
    assert (rows["expected"], rows["got"]) == ("3.33333333e-13", "0")
    assert verdicts._text(1e-17) == "0"
