"""Readers' answers to the exercises, from `exercises/`, and what every verdict on them must look like.

Most wrong answers are a right one with a line or two changed, since that is how they come about; they are made
without the twins in `course_lib.exercises`. The style "plain" is the grader's own right answer, where a chapter's
tests give no other.
"""

import inspect
import math
import sys
from html.parser import HTMLParser
from textwrap import dedent

import numpy as np
import torch
import torchvision
from exercises import (
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

from course_lib.check import EXERCISES, check

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
SOURCES = {
    name: {"plain": inspect.getsource(EXERCISES[name].solution), **styles}
    for chapter in CHAPTERS
    for name, styles in chapter.RIGHT.items()
}
MISTAKES = {name: mistakes for chapter in CHAPTERS for name, mistakes in chapter.WRONG.items()}


def written(exercise, style, *edits):
    """A reader's function: a right answer, with each odd edit replaced by the even one that follows it.

    It sees what a chapter imports, and of the grader's module what that imports for the annotations of "plain".
    """
    source = dedent(SOURCES[exercise][style])
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in source, old
        source = source.replace(old, new)
    solution = inspect.unwrap(EXERCISES[exercise].solution)
    module = vars(sys.modules[solution.__module__])
    scope = {**module, "math": math, "np": np, "torch": torch, "torchvision": torchvision}
    exec(source, scope)
    return scope[exercise]


class Page(HTMLParser):
    """What a verdict is made of: tags with their attributes, and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def well_formed(verdict):
    """Fits its column, says its pictures in words, and asks for nothing from outside."""
    page = Page(verdict._repr_html_())
    (root, attributes), *others = page.tags
    assert root == "div" and attributes["class"] == f"check check-{'passed' if verdict else 'failed'}"
    assert {tag for tag, _ in others} <= {"p", "strong", "code", "svg", "polygon", "text", "table", "tr", "th", "td"}
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href", "onload"))
    assert "url(" not in verdict._repr_html_() and "http" not in verdict._repr_html_()
    for tag, attributes in others:
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 20
            assert float(attributes["width"]) <= 420 and "max-width:100%" in attributes["style"]
            assert "nan" not in verdict.picture and "inf" not in verdict.picture
    return page


def failing(exercise, function):
    verdict = check(exercise, function)
    assert not verdict
    well_formed(verdict)
    return verdict
