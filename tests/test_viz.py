from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgb
from PIL import Image

from course_lib import metrics, viz
from course_lib.detect import Detections
from course_lib.effects import paired

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


@pytest.mark.parametrize(("halo", "lines"), [(None, [("red", 2.0)]), ("white", [("white", 3.4), ("red", 2.0)])])
def test_an_outline_is_one_line_and_its_halo_a_wider_one_beneath(halo, lines):
    _, (axis,) = viz.grid(1, 1)
    viz.outline(axis, BOXES[0], "red", 2.0, style=":", halo=halo)
    assert [(line.get_color(), line.get_linewidth()) for line in axis.lines] == lines
    assert np.allclose(axis.lines[-1].get_xdata(), [0.1, 0.6, 0.6, 0.1, 0.1])
    assert np.allclose(axis.lines[-1].get_ydata(), [0.2, 0.2, 0.9, 0.9, 0.2])


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


@pytest.mark.parametrize("name", ["$x$", "$\\frac$", "a$b", "5$ or 6$ bill", "cat[flip]", "x_1^2"])
def test_a_class_name_is_drawn_as_it_is_and_not_as_a_formula(name):
    found = Detections(BOXES[:1], torch.tensor([0.9]), torch.tensor([2]))
    figure, (axis,) = viz.grid(1, 1)
    viz.draw_detections(axis, IMAGE, found, classes=("plain", name))
    assert axis.texts[0].get_text() == f"{name} 0.90" and not axis.texts[0].get_parse_math()
    curve = metrics.Curve(np.array([0.5]), np.array([1.0]), np.array([3.0]), np.array([1]), 2)
    text = viz.draw_curve(axis, name, curve, 0.3, viz.COLOURS[0]).legend().get_texts()[0].get_text()
    assert not is_math_text(text) and text.replace(r"\$", "$") == f"{name}, AP 0.30"
    pixels(figure)


def test_a_history_is_drawn_as_far_as_it_was_recorded():
    """Epochs without a measurement, a measurement that failed (null), a loss that is not finite, mAP of 0."""
    records = [
        {"epoch": 1, "lr": 0.1, "loc": 3.0, "conf": 6.0, "grad_norm": 9.0, "map": 0.0},
        {"epoch": 2, "lr": 0.2, "loc": 2.0, "conf": float("nan"), "grad_norm": 8.0},
        {"epoch": 3, "lr": 0.1, "loc": 1.0, "conf": 5.0, "grad_norm": float("inf"), "map": None},
        {"epoch": 4, "lr": 0.0, "loc": 0.5, "conf": 4.0, "grad_norm": 7.0, "map": 0.25, "seconds": 12.0},
    ]
    figure = viz.history(records)
    losses, _, _, mean_ap = figure.axes
    drawn = [[line.get_xydata().tolist() for line in axis.lines] for axis in figure.axes]
    assert drawn[0] == [[[1, 3], [2, 2], [3, 1], [4, 0.5]], [[1, 6], [3, 5], [4, 4]]]
    assert drawn[1] == [[[1, 0.1], [2, 0.2], [3, 0.1], [4, 0.0]]] and drawn[2] == [[[1, 9], [2, 8], [4, 7]]]
    assert drawn[3] == [[[1, 0.0], [4, 0.25]]] and [text.get_text() for text in mean_ap.texts] == ["best: 0.250"]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["box", "class"]
    validated = viz.history([one | {"val_conf": 5.5} for one in records]).axes[0]
    assert [line.get_linestyle() for line in validated.lines] == ["-", "-", "--"]
    pixels(figure)


@pytest.mark.parametrize("records", [[], [{"epoch": 1}], [{"epoch": 1, "map": None}]])
def test_a_history_without_measurements_is_an_empty_picture(records):
    figure = viz.history(records)
    assert not any(axis.lines or axis.get_legend() for axis in figure.axes)
    pixels(figure)


def some_effects():
    usual = dict.fromkeys(range(3), 0.3)
    changes = {"rate x 30": (-0.3, -0.28, -0.31), "focal $loss$": (0.01, -0.02, 0.0), "longer": (0.1, 0.11, 0.12)}
    found = [paired(dict(enumerate(0.3 + d for d in differences)), usual) for differences in changes.values()]
    return list(changes), ["rate", "loss", "rate"], found


def test_a_forest_is_sorted_with_one_style_a_family_and_hollow_where_nothing_is_told():
    labels, families, found = some_effects()
    (axes,) = viz.forest(labels, families, found).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["rate x 30", r"focal \$loss\$", "longer"]
    marks = [line for line in axes.lines if line.get_marker() not in (None, "None", "")]
    assert [float(mark.get_xdata()[0]) for mark in marks] == sorted(one.mean for one in found)
    styles = [(mark.get_color(), mark.get_marker()) for mark in marks]
    assert styles[0] == styles[2] != styles[1]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [False, True, False]


def test_a_family_looks_the_same_among_others():
    labels, families, found = some_effects()
    (axes,) = viz.forest(labels, families, found).axes
    figure = viz.forest(labels[1:2], ["loss"], found[1:2], among=families)
    mark, same = (next(line for line in one.lines if line.get_marker() == "s") for one in (axes, figure.axes[0]))
    assert mark.get_color() == same.get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["loss"]


def test_a_forest_is_drawn_whole_and_not_wider_than_a_phone():
    labels, families, found = some_effects()
    labels[0] = "random trunk, four times as long on"  # as long as one may be
    figure = viz.forest(labels, families, found)
    pixels(figure)
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert min(box.x0 for box in boxes) >= 0 and figure.get_figwidth() <= 4.5
    assert axes.get_window_extent().width > 0.3 * figure.bbox.width
    heights = sorted(box.y0 for box in boxes)
    assert all(high - low > boxes[0].height for low, high in pairwise(heights))


def test_a_forest_of_nothing_or_of_too_many_families_is_refused():
    labels, _, found = some_effects()
    for some in (([], [], []), (labels * 3, list("abcdefghi"), found * 3)):
        with pytest.raises(ValueError, match="effects of"):
            viz.forest(*some)
        with pytest.raises(ValueError, match="effects of"):
            viz.forest_at_a_glance(*some[1:], {})


def test_at_a_glance_a_hundred_effects_fit_and_names_do_not_overlap():
    shifts = [number / 500 - 0.1 for number in range(100)]
    found = [paired({0: one, 1: one + 0.01}, {0: 0.0, 1: 0.0}) for one in shifts]
    named = {place: f"number ${place}" for place in (0, 1, 2, 40, 41, 60, 97, 98, 99)}
    figure = viz.forest_at_a_glance(["rate", "loss"] * 50, found, named)
    pixels(figure)
    (axes,) = figure.axes
    assert figure.get_figheight() < 9 and figure.get_figwidth() <= 4.5
    boxes = {int(text.get_text().split("$")[1]): text.get_window_extent() for text in axes.texts}
    assert set(boxes) == set(named)
    middle = axes.transData.transform((0, 0))[0]
    assert all((box.x0 > middle) == (found[place].mean < 0) for place, box in boxes.items())
    for side in (True, False):
        heights = sorted((box for box in boxes.values() if (box.x0 > middle) == side), key=lambda box: box.y0)
        assert all(high.y0 > low.y0 + 0.8 * low.height for low, high in pairwise(heights))
    assert all(axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1 for box in boxes.values())


def test_families_can_be_told_apart_without_colour():
    assert len({mark for _, mark in viz.FAMILY_STYLES}) == len({colour for colour, _ in viz.FAMILY_STYLES}) == 8
