"""`check` grades a reader's answer to an exercise of the chapters.

To add an exercise, write a `grading.Exercise` in `exercises/chNN_name.py` and name it in that module's `EXERCISES`.
"""

import builtins
import sys
from collections.abc import Callable

from course_lib.book import Source, source
from course_lib.exercises import (
    ch01_voc,
    ch02_augmentation,
    ch03_backbone,
    ch04_priors,
    ch05_model,
    ch06_matching,
    ch07_multibox,
    ch08_focal,
    ch09_training,
    ch10_detections,
    ch11_map,
    ch12_own_pictures,
    ch13_doctor,
    ch14_case_study,
    ch15_advice,
    ch16_backbones,
)
from course_lib.grading import Exercise, grade
from course_lib.verdicts import Verdict

CHAPTERS = (
    ch01_voc,
    ch02_augmentation,
    ch03_backbone,
    ch04_priors,
    ch05_model,
    ch06_matching,
    ch07_multibox,
    ch08_focal,
    ch09_training,
    ch10_detections,
    ch11_map,
    ch12_own_pictures,
    ch13_doctor,
    ch14_case_study,
    ch15_advice,
    ch16_backbones,
)
EXERCISES: dict[str, Exercise] = {name: one for chapter in CHAPTERS for name, one in chapter.EXERCISES.items()}


def check(name: str, function: Callable) -> Verdict:
    """Try a function on the cases of an exercise, simple ones first, up to the first that fails.

    A notebook or a prompt shows the verdict; in a script it is printed.

    Args:
        name: the exercise.
        function: yours, not called: `check("iou", iou)`.

    Raises:
        ValueError: no exercise has that name.
        TypeError: that is no function.
    """
    exercise = _find(name)
    if not callable(function):
        raise TypeError(f'the function itself is wanted, without a call: check("{name}", {name})')
    verdict = grade(name, exercise, function)
    if not _shown_by_itself():
        print(verdict)
    return verdict


def solution(name: str) -> Source:
    """The right answer to an exercise, as the grader knows it."""
    return source(_find(name).solution)


def _shown_by_itself() -> bool:
    """Whether what a line gives is shown: in IPython, which names itself, and at Python's prompt."""
    return hasattr(builtins, "__IPYTHON__") or hasattr(sys, "ps1")


def _find(name: str) -> Exercise:
    if name not in EXERCISES:
        raise ValueError(f"no exercise is named {name!r}; the exercises are {', '.join(EXERCISES)}")
    return EXERCISES[name]
