"""The grader, by the verdicts that it gives on answers of all kinds."""

import math
import signal
import threading
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from graded import failing, well_formed, written
from torch.nn import functional

from course_lib import grading
from course_lib.boxes import box_iou
from course_lib.check import EXERCISES, check
from course_lib.grading import GENERAL_HINTS, Exercise, grade


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
    capsys.readouterr()
    assert not grade("mirror_boxes", EXERCISES["mirror_boxes"], noisy)
    assert capsys.readouterr().out == ""


def test_changing_an_argument_is_found_and_spoils_no_case():
    def in_place(boxes):
        boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
        return boxes

    for _ in range(2):
        verdict = failing("mirror_boxes", in_place)
        assert verdict.problem == "it changes its argument `boxes`" and verdict.hint == GENERAL_HINTS["changed"]
    assert check("mirror_boxes", written("mirror_boxes", "plain"))


def appended(layers, cells):
    layers.append((cells, 1, 1))
    return EXERCISES["receptive_field"].solution(layers, 1)


def extended(layers, cells):
    layers += [(cells, 1, 1)]
    return EXERCISES["receptive_field"].solution(layers, 1)


def reversed_in_place(layers, cells):
    right = EXERCISES["receptive_field"].solution(layers, cells)
    layers.reverse()
    return right


def emptied(costs, positives):
    right = EXERCISES["batch_loss"].solution(costs, positives)
    positives.clear()
    return right


def sorted_in_place(costs, positives):
    right = EXERCISES["batch_loss"].solution(costs, positives)
    costs.sort()
    return right


def made_longer(rows, height, width):
    return EXERCISES["rows_to_head"].solution(rows.unsqueeze_(0)[0], height, width)


def mask_inverted(loss, positives, ratio):
    right = EXERCISES["hard_negatives"].solution(loss, positives, ratio)
    positives.logical_not_()
    return right


@pytest.mark.parametrize(
    ("exercise", "function", "argument"),
    [
        *(("receptive_field", function, "layers") for function in (appended, extended, reversed_in_place)),
        *(("batch_loss", emptied, "positives"), ("batch_loss", sorted_in_place, "costs")),
        *(("rows_to_head", made_longer, "rows"), ("hard_negatives", mask_inverted, "positives")),
    ],
)
def test_an_argument_of_any_kind_comes_back_as_it_was(exercise, function, argument):
    verdict = failing(exercise, function)
    assert verdict.problem == f"it changes its argument `{argument}`" and verdict.hint == GENERAL_HINTS["changed"]


@pytest.mark.parametrize(
    "argument",
    [
        np.array([1.0, np.nan]),
        torch.tensor([1.0, torch.nan]),
        [[1.0, math.nan]],
        [np.array([1, 2])],
        np.array(["a", "b"]),
    ],
)
def test_an_argument_that_is_left_alone_is_not_called_changed(argument):
    exercise = Exercise(lambda x: len(x), [(argument,)], {})

    def changed(x):
        first = x[0]
        x[0] = x[-1] if len(x) > 1 else [0]
        return len(x) + 0 * (first is None)

    assert grade("counted", exercise, len)
    assert grade("counted", exercise, changed).problem == "it changes its argument `x`"


def test_a_copy_of_an_argument_may_be_changed():
    def copied(layers, cells):
        return EXERCISES["receptive_field"].solution([*layers, (cells, 1, 1)], 1)

    assert check("receptive_field", copied)


@pytest.mark.parametrize("exercise", ["decimate", "rows_to_head"])
@pytest.mark.parametrize("kind", [list, tuple, np.asarray, torch.Tensor.tolist])
def test_where_a_tensor_is_asked_for_its_numbers_in_something_else_are_not_enough(exercise, kind):
    verdict = failing(exercise, lambda *args: kind(EXERCISES[exercise].solution(*args)))
    assert verdict.problem.endswith("; wanted: a tensor") and verdict.hint == GENERAL_HINTS["kind"]


@pytest.mark.parametrize("exercise", ["decimate", "rows_to_head"])
def test_where_a_tensor_is_asked_for_integers_are_not_enough_and_doubles_are(exercise):
    solution = EXERCISES[exercise].solution
    assert "comes as integers" in failing(exercise, lambda *args: solution(*args).long()).problem
    assert check(exercise, lambda *args: solution(*args).double())


def test_a_list_of_wrong_numbers_is_told_that_they_are_wrong():
    flipped = failing("decimate", lambda *args: (-EXERCISES["decimate"].solution(*args)).tolist())
    assert flipped.problem == "the answer is wrong"


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


def test_a_mask_loses_its_row_together_with_what_it_marks():
    verdict = failing(
        "hard_negatives", lambda loss, positives, ratio: positives if len(loss) > 1 else ~positives & False
    )
    assert verdict.counterexample.args["loss"].shape == verdict.counterexample.args["positives"].shape


# ---- how near, and by which means ------------------------------------------------------------------------------------


def doubled(x):
    return 2 * x


def test_an_answer_must_be_as_near_as_the_exercise_asks():
    for tolerance, off, passes in ((1e-4, 1e-5, True), (1e-4, 1e-3, False), (1e-7, 1e-5, False), (1e-7, 1e-9, True)):
        exercise = Exercise(doubled, [(1.0,), (3.0,)], {}, tolerance=tolerance)
        assert bool(grade("doubled", exercise, lambda x, off=off: 2 * x + off)) == passes


def test_a_tiny_answer_must_have_its_digits_where_the_exercise_asks_for_them():
    for absolute, off, passes in ((None, 1e-3, True), (0.0, 1e-3, False), (0.0, 1e-6, True), (1e-12, 1e-3, True)):
        exercise = Exercise(doubled, [(1.0,), (1e-10,)], {}, tolerance=1e-5, absolute=absolute)
        answers = grade("doubled", exercise, lambda x, off=off: 2 * x if x == 1 else 2 * x * (1 + off))
        assert bool(answers) == passes, (absolute, off)


STRICT = Exercise(
    lambda x: x.relu(), [(torch.tensor([-1.0, 2.0]),)], {}, forbidden={"relu": "Do it by hand.", "ReLU": "By hand."}
)


def by_method(x):
    return x.relu()


def by_another_name(x):
    return other_name(x)


def in_a_nested_function(x):
    def inner():
        return [functional.relu(one) for one in x]

    return inner()


def through_another_function(x):
    return by_method(x)


def with_a_module(x):
    return layer(x)


def through_a_closure():
    hidden = torch.relu
    return lambda x: hidden(x)


def by_a_name_put_together(x):
    return getattr(functional, "re" + "lu")(x)


def by_the_operator(x):
    return getattr(torch.ops.aten, "re" + "lu")(x)


def by_evaluation(x):
    return eval("functional." + "relu(x)")


def with_a_hidden_module(x):
    return hidden["module"](x)


def swallowing_errors(x):
    try:
        return getattr(x, "re" + "lu")()
    except Exception:
        return x * (x > 0)


hidden = {"module": torch.nn.Sequential(torch.nn.ReLU())}
layer, other_name = torch.nn.ReLU(), functional.relu


@pytest.mark.parametrize(
    "function",
    [
        *(by_method, by_another_name, in_a_nested_function, through_another_function, with_a_module),
        *(through_a_closure(), partial(functional.relu), torch.relu, layer),
        *(by_a_name_put_together, by_the_operator, by_evaluation, with_a_hidden_module, swallowing_errors),
    ],
)
def test_a_forbidden_name_is_found_wherever_the_reader_calls_it(function):
    verdict = grade("strict", STRICT, function)
    assert not verdict and verdict.cases == verdict.total and verdict.hint.endswith("y hand.")
    assert "all 1 cases pass, but it uses `" in str(verdict)
    assert well_formed(verdict)


def relu(x):
    return x * (x > 0)


def test_a_function_of_the_readers_own_may_have_a_forbidden_name():
    assert grade("strict", STRICT, relu)
    assert grade("strict", STRICT, lambda x: relu(x))


def test_a_wrong_answer_hears_of_its_mistake_before_it_hears_of_a_forbidden_name():
    assert "is wrong" in grade("strict", STRICT, lambda x: x.relu() + 1).problem
