"""The exercises: right answers pass and each mistake gets its own hint. What the solutions are: `exercises/`."""

import builtins
import inspect
import os
import subprocess
import sys

import pytest
from graded import MISTAKES, SOURCES, well_formed, written

from course_lib.check import EXERCISES, check, solution
from course_lib.grading import GENERAL_HINTS, codes_in

RIGHT = [(exercise, style) for exercise, styles in SOURCES.items() for style in styles]
# Each mistake once; those who make it in another way are slow.
MORE = pytest.mark.slow
WRONG = [
    pytest.param(exercise, mistake, style, edits, id=f"{exercise}, {mistake}, {number}", marks=[MORE] if number else [])
    for exercise, mistakes in MISTAKES.items()
    for mistake, many in mistakes.items()
    for number, (style, *edits) in enumerate(many)
]
TWINS = [
    pytest.param(exercise, mistake.hint, twin, id=f"{exercise}, {name}, {number}", marks=[MORE] if number else [])
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
    assert verdict.hint == hints(EXERCISES[exercise])[mistake], verdict


def hints(exercise):
    """By the mistake or the forbidden name for which each is."""
    return {name: mistake.hint for name, mistake in exercise.mistakes.items()} | exercise.forbidden


@pytest.mark.parametrize(("exercise", "hint", "twin"), TWINS)
def test_every_twin_is_told_apart_from_the_others(exercise, hint, twin):
    verdict = check(exercise, twin)
    assert not verdict
    assert verdict.hint == hint, verdict
    well_formed(verdict)


def test_every_known_mistake_is_made_here():
    known = {(exercise, name) for exercise, one in EXERCISES.items() for name in hints(one)}
    assert {(exercise, name) for exercise, many in MISTAKES.items() for name in many} == known


def test_every_mistake_has_a_hint_of_its_own():
    for one in EXERCISES.values():
        hints = [*GENERAL_HINTS.values(), *(mistake.hint for mistake in one.mistakes.values())]
        assert len(set(hints)) == len(hints)
    # A matrix of IoU can go wrong as one IoU does, and then the same is to be said.
    hints = [m.hint for name, one in EXERCISES.items() if name != "iou_matrix" for m in one.mistakes.values()]
    assert len(set(hints)) == len(hints)


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(ValueError, match="no exercise is named 'iuo'") as caught:
        check("iuo", max)
    assert all(name in str(caught.value) for name in EXERCISES)


def test_a_result_in_place_of_the_function_is_refused():
    with pytest.raises(Exception, match="function"):
        check("iou", 0.5)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_right_answer_is_one_that_a_reader_could_have_written(exercise):
    """It has the name that is asked for, and needs nothing else of the grader's module but what that imports."""
    right = inspect.unwrap(EXERCISES[exercise].solution)
    assert right.__name__ == exercise
    beside = vars(sys.modules[right.__module__])
    needed = {name: beside[name] for code in codes_in(right.__code__) for name in code.co_names if name in beside}
    assert [name for name, value in needed.items() if getattr(value, "__module__", "") == right.__module__] == []


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_that_a_page_shows_is_the_one_that_the_grader_has(name):
    assert inspect.getsource(EXERCISES[name].solution) in solution(name)._repr_markdown_()


def test_an_unknown_exercise_has_no_solution():
    with pytest.raises(ValueError, match="no exercise is named 'iuo'"):
        solution("iuo")


SCRIPT = """
from course_lib.check import check

def voc_box(xmin, ymin, xmax, ymax, width, height):
    return {right}

verdict = check("voc_box", voc_box)
"""
RIGHT_BOX = "(xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height"


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "said"), [(RIGHT_BOX, "all 5 cases pass."), ("(0, 0, 1, 1)", "case 2 of 5 fails")])
def test_a_script_prints_its_verdict_once(tmp_path, root, answer, said):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(right=answer))
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.count("voc_box: ") == done.stdout.count(said) == 1


@pytest.mark.parametrize(("module", "name"), [(builtins, "__IPYTHON__"), (sys, "ps1")])
def test_what_shows_a_verdict_by_itself_prints_none(monkeypatch, capsys, module, name):
    monkeypatch.setattr(module, name, True, raising=False)
    assert check("iou", written("iou", "plain"))
    assert capsys.readouterr().out == ""
