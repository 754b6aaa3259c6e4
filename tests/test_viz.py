import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from course_lib import metrics, viz
from course_lib.detect import Detections

IMAGE = np.full((60, 100, 3), 255, np.uint8)
BOXES = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.1, 0.9, 0.5]])


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_a_box_is_drawn_where_it_is():
    found = Detections(BOXES[:1], torch.tensor([0.9]), torch.tensor([3]))
    _, (axis,) = viz.grid(1, 1)
    viz.draw_detections(axis, IMAGE, found)
    lines = [line for line in axis.lines if to_rgb(line.get_color()) == to_rgb(viz.colour_of(3))]
    x, y = lines[0].get_data()
    assert np.allclose([min(x), max(x), min(y), max(y)], [10, 60, 12, 54])
    assert axis.texts[0].get_text() == "bird 0.90"


def test_detections_below_the_threshold_are_not_drawn():
    found = Detections(BOXES, torch.tensor([0.9, 0.2]), torch.tensor([3, 4]))
    _, (axis,) = viz.grid(1, 1)
    viz.draw_detections(axis, IMAGE, found, score_threshold=0.5)
    assert [text.get_text() for text in axis.texts] == ["bird 0.90"]


def test_images_with_channels_first_are_drawn_the_same():
    pictures = []
    for image in (IMAGE, torch.from_numpy(IMAGE).permute(2, 0, 1)):
        figure, (axis,) = viz.grid(1, 1)
        viz.draw_boxes(axis, image, BOXES, torch.tensor([1, 2]))
        pictures.append(pixels(figure))
    assert np.array_equal(*pictures)


def test_no_box_and_no_detection_draw_the_image_alone():
    _, (axis,) = viz.grid(1, 1)
    viz.draw_boxes(axis, IMAGE, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert not axis.lines and not axis.texts and len(axis.images) == 1


def test_difficult_objects_are_dashed():
    _, (axis,) = viz.grid(1, 1)
    viz.draw_boxes(axis, IMAGE, BOXES, torch.tensor([1, 2]), faint=[False, True])
    assert [line.get_linestyle() for line in axis.lines] == ["-", "-", "-", "--"]


def test_the_drawn_curve_never_rises():
    curve = metrics.Curve(
        np.array([0.2, 0.2, 0.4]), np.array([1, 0.5, 2 / 3]), np.array([3.0, 2, 1]), np.array([1, 0, 1]), 5
    )
    _, (axis,) = viz.grid(1, 1)
    viz.draw_curve(axis, "dog", curve, 0.3, viz.COLOURS[0])
    assert (np.diff(axis.lines[1].get_ydata()) <= 0).all()
    assert axis.get_legend_handles_labels()[1] == ["dog, AP 0.30"]


def test_a_written_picture_has_the_images_shape(tmp_path):
    found = Detections(BOXES, torch.tensor([0.9, 0.8]), torch.tensor([3, 4]))
    viz.save_detections(tmp_path / "a.png", IMAGE, found)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (500, 300)
        assert len(picture.getcolors(maxcolors=100000)) > 3


def test_boxes_bear_the_names_they_are_given_and_a_label_without_one_is_refused(tmp_path):
    names = tuple(f"thing {number}" for number in range(1, 26))
    found = Detections(torch.tensor([[0.1, 0.1, 0.5, 0.5]]), torch.tensor([0.9]), torch.tensor([25]))
    axes = viz.draw_detections(viz.grid(1, 1)[1][0], IMAGE, found, classes=names)
    assert [text.get_text() for text in axes.texts] == ["thing 25 0.90"]
    viz.save_detections(tmp_path / "a.png", IMAGE, found, classes=names)
    with pytest.raises(ValueError, match="label is 25, and there are 20 classes"):
        viz.save_detections(tmp_path / "b.png", IMAGE, found)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def frames(count):
    for index in range(count):
        figure, (axis,) = viz.grid(1, 1, cell=(1, 1))
        viz.draw_boxes(axis, IMAGE, BOXES[:1] + index / 20, torch.tensor([1]))
        yield viz.Frame(figure, f"{index} < 9", f'"Box" {index}')


def test_a_moving_figure_holds_every_frame_and_shows_one():
    html = viz.moving("shift & more", frames(3), start=1)._repr_html_()
    pictures = re.findall(r"<img [^>]*>", html)
    assert [("display:block" in one) for one in pictures] == [False, True, False]
    assert len({re.search(r'src="([^"]*)"', one)[1] for one in pictures}) == 3
    assert all(f'alt="&quot;Box&quot; {index}"' in one for index, one in enumerate(pictures))
    assert "shift &amp; more" in html and "1 &lt; 9" in html
    assert "http" not in html and "<script" not in html


def test_a_moving_figure_depends_on_its_frames_alone():
    assert viz.moving("x", frames(2)).html == viz.moving("x", frames(2)).html


def test_a_moving_figure_without_its_first_frame_is_refused():
    with pytest.raises(ValueError, match="start is 3, and there are 3 frames"):
        viz.moving("x", frames(3), start=3)


def test_the_source_shown_is_the_source_that_runs(root):
    shown = viz.source(viz.colour_of)._repr_markdown_()
    assert shown.startswith("```python\ndef colour_of(") and shown.endswith("\n```\n")
    assert shown.removeprefix("```python\n").removesuffix("```\n") in (root / "course_lib" / "viz.py").read_text()


def test_frames_that_sound_alike_are_refused():
    one, other = frames(2)
    with pytest.raises(ValueError, match="two neighbours"):
        viz.moving("x", [one, viz.Frame(other.figure, one.value, other.alt)])


def test_exploring_draws_anew_when_a_slider_moves():
    def draw(step, colour):
        figure, (axis,) = viz.grid(1, 1, cell=(1, 1))
        viz.draw_boxes(axis, IMAGE, BOXES[:1] + step / 20, torch.tensor([1 + colour]))
        return figure

    step, colour, picture = viz.explore(draw, step=(0, 5), colour=(0, 3)).children
    first = picture.value
    step.value = 3
    second = picture.value
    colour.value = 2
    assert len({first, second, picture.value}) == 3
    step.value, colour.value = 0, 0
    assert picture.value == first
