import re

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import backbones, book, viz

IMAGE = np.full((60, 100, 3), 255, np.uint8)
BOXES = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.1, 0.9, 0.5]])


def frames(count):
    for index in range(count):
        figure, (axis,) = viz.grid(1, 1, cell=(1, 1))
        viz.draw_boxes(axis, IMAGE, BOXES[:1] + index / 20, torch.tensor([1]))
        yield book.Frame(figure, f"{index} < 9", f'"Box" {index}')


def test_a_moving_figure_holds_every_frame_and_shows_one():
    html = book.moving("shift & more", frames(3), start=1)._repr_html_()
    pictures = re.findall(r"<img [^>]*>", html)
    assert [("display:block" in one) for one in pictures] == [False, True, False]
    assert len({re.search(r'src="([^"]*)"', one)[1] for one in pictures}) == 3
    assert all(f'alt="&quot;Box&quot; {index}"' in one for index, one in enumerate(pictures))
    assert "shift &amp; more" in html and "1 &lt; 9" in html
    assert "http" not in html and "<script" not in html


def test_a_moving_figure_depends_on_its_frames_alone():
    assert book.moving("x", frames(2)).html == book.moving("x", frames(2)).html


def test_a_moving_figure_without_its_first_frame_is_refused():
    with pytest.raises(ValueError, match="start is 3, and there are 3 frames"):
        book.moving("x", frames(3), start=3)


def test_the_source_shown_is_the_source_that_runs(root):
    shown = book.source(viz.colour_of)._repr_markdown_()
    assert shown.startswith("```python\ndef colour_of(") and shown.endswith("\n```\n")
    assert shown.removeprefix("```python\n").removesuffix("```\n") in (root / "course_lib" / "viz.py").read_text()


def test_frames_that_sound_alike_are_refused():
    one, other = frames(2)
    with pytest.raises(ValueError, match="two neighbours"):
        book.moving("x", [one, book.Frame(other.figure, one.value, other.alt)])


def test_exploring_draws_anew_when_a_slider_moves():
    def draw(step, colour):
        figure, (axis,) = viz.grid(1, 1, cell=(1, 1))
        viz.draw_boxes(axis, IMAGE, BOXES[:1] + step / 20, torch.tensor([1 + colour]))
        return figure

    step, colour, picture = book.explore(draw, step=(0, 5), colour=(0, 3)).children
    first = picture.value
    step.value = 3
    second = picture.value
    colour.value = 2
    assert len({first, second, picture.value}) == 3
    step.value, colour.value = 0, 0
    assert picture.value == first


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_race_runs_both_in_turns_after_one_unmeasured_call(rounds):
    calls = []
    ran = book.race(lambda: calls.append("slow") or 1, lambda: calls.append("fast") or 2, rounds)
    assert calls == ["fast", *["slow", "fast"] * rounds]
    assert (ran.slow, ran.fast) == (1, 2) and ran.speedup > 0


def test_numbers_are_kept_for_the_prose_and_not_displayed(monkeypatch):
    kept = []
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: kept.append((name, value, display)))
    book.numbers(priors=12, **{"shift_-2": 0.5})
    assert kept == [("priors", 12, False), ("shift_-2", 0.5, False)]


def test_numbers_of_numpy_are_plain_ones_to_the_prose(monkeypatch):
    kept = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: kept.update({name: repr(value)}))
    book.numbers(mean=np.mean([0.5]), count=np.int64(3), seen=np.bool_(True))
    assert kept == {"mean": "0.5", "count": "3", "seen": "True"}


def test_a_walk_meets_every_layer_once_in_the_order_of_the_image():
    with torch.device("meta"):
        backbone = backbones.VGG(width=1 / 16)
    rows = book.walk(backbone, 75, (nn.Conv2d, nn.MaxPool2d))
    assert [layer for layer, _ in rows] == [
        part for part in backbone.modules() if isinstance(part, nn.Conv2d | nn.MaxPool2d)
    ]
    assert rows[0][1] == (4, 75, 75) and rows[2][1] == (4, 38, 38)
    assert not any(layer._forward_hooks for layer, _ in rows)
