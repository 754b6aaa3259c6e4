"""Pictures: boxes on images, curves, and the colours that tell classes apart."""

import io
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from course_lib.detect import Detections
from course_lib.effects import Effect
from course_lib.files import write_whole
from course_lib.metrics import Curve
from course_lib.voc import VOC_CLASSES, Annotation, Target

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
DIFFICULT = "#BBBBBB"


def colour_of(label: int) -> str:
    """Seven colours for twenty classes: neighbours differ, and the name is written on every box."""
    return COLOURS[label % len(COLOURS)]


def outline(
    axes: Axes,
    box: Iterable[float] | Float[Tensor, "4"],
    colour: str,
    width: float = 1.8,
    style: str = "-",
    halo: str | None = None,
    zorder: float = 2,
) -> None:
    """Draw the border of a box, given as corners in the unit of the axes.

    Args:
        width: of the line, in points.
        halo: colour of a wider line beneath, which shows the box on any picture.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    for line, edge, wide in (("-", halo, width + 1.4), (style, colour, width)):
        if edge:
            axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], line, color=edge, linewidth=wide, zorder=zorder)


def draw_boxes(
    axes: Axes,
    image: UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "3 H W"],
    boxes: Float[Tensor, "N 4"],
    labels: Int[Tensor, " N"],
    scores: Float[Tensor, " N"] | None = None,
    faint: Sequence[bool] | None = None,
    classes: Sequence[str] = VOC_CLASSES,
) -> Axes:
    """Draw an image and boxes on it.

    Args:
        axes: where to draw.
        image: rows first, or channels first as the network takes it.
        boxes: corners, fractions of the image.
        labels: class index plus 1.
        scores: written behind the class name.
        faint: boxes to draw dashed and grey; difficult objects, for instance.
        classes: the names of labels 1, 2, ...

    Raises:
        ValueError: a label has no name.
    """
    if len(labels) and labels.max() > len(classes):
        raise ValueError(f"label is {labels.max()}, and there are {len(classes)} classes: give the model's `classes`")
    if isinstance(image, Tensor):
        image = image.permute(1, 2, 0).cpu().numpy()
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0))
    for index, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        is_faint = faint is not None and bool(faint[index])
        colour = DIFFICULT if is_faint else colour_of(label)
        outline(axes, (x0, y0, x1, y1), colour, style="--" if is_faint else "-", halo="black")
        text = classes[label - 1] if scores is None else f"{classes[label - 1]} {scores[index]:.2f}"
        axes.text(
            x0 + 2, y0 + 2, text, fontsize=7, color="black", va="top", clip_on=True, parse_math=False,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    return axes


def draw_target(
    axes: Axes,
    image: UInt8[np.ndarray, "H W 3"],
    target: Target | Annotation,
    classes: Sequence[str] = VOC_CLASSES,
) -> Axes:
    """The truth: every object, difficult ones dashed and grey."""
    return draw_boxes(axes, image, target.boxes, target.labels, faint=target.difficult.tolist(), classes=classes)


def draw_detections(
    axes: Axes,
    image: UInt8[np.ndarray, "H W 3"],
    found: Detections,
    score_threshold: float = 0.5,
    classes: Sequence[str] = VOC_CLASSES,
) -> Axes:
    """What was found, above a score."""
    sure = found.scores > score_threshold
    return draw_boxes(axes, image, found.boxes[sure], found.labels[sure], found.scores[sure], classes=classes)


def grid(columns: int, rows: int, cell: tuple[float, float] = (3.0, 2.4)) -> tuple[Figure, list[Axes]]:
    """A figure of `rows * columns` axes without frames, row by row."""
    figure = Figure(figsize=(columns * cell[0], rows * cell[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for one in axes:
        one.axis("off")
    return figure, axes


def draw_curve(axes: Axes, name: str, curve: Curve, ap: float | None, colour: str) -> Axes:
    """Precision over recall, as measured (thin) and made to fall (thick)."""
    counted = curve.outcome >= 0
    recall, precision = curve.recall[counted], curve.precision[counted]
    axes.plot(recall, precision, color=colour, linewidth=0.8, alpha=0.6)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    name = name.replace("$", r"\$")  # a name is no formula
    label = name if ap is None else f"{name}, AP {ap:.2f}"
    axes.step(recall, envelope, where="pre", color=colour, linewidth=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    return axes


# What a history records, panel by panel: the label of the axis, and the names of the curves in a record with their own.
PANELS = {
    "loss": {"loc": "box", "conf": "class", "val_loc": "box, validation", "val_conf": "class, validation"},
    "learning rate": {"lr": "of the heads"},
    "gradient norm": {"grad_norm": "before clipping, mean"},
    "mAP": {"map": "on the images to select by"},
}


def history(records: Sequence[Mapping[str, float | None]]) -> Figure:
    """The curves of a run over its epochs: losses, learning rate, gradient norm, and mAP with the best epoch marked.

    Args:
        records: one an epoch, as `runs.read_history` gives them. What none of them holds has no curve; what was not
            measured, or is None or not finite, is no point of one.
    """
    figure, axes = grid(2, 2, cell=(4.5, 2.4))
    for axis, (label, names) in zip(axes, PANELS.items(), strict=True):
        axis.axis("on")
        for number, (name, curve) in enumerate(names.items()):
            points = [(one["epoch"], one[name]) for one in records if is_number(one.get(name))]
            if points:
                style = "--" if name.startswith("val_") else "-"
                colour = ("#0072B2", "#D55E00")[number % 2]
                axis.plot(*zip(*points, strict=True), style, color=colour, marker="o", markersize=3, label=curve)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axis.lines:
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=7, frameon=False)
    if axes[-1].lines:
        epoch, best = max(axes[-1].lines[0].get_xydata().tolist(), key=lambda point: point[1])
        axes[-1].annotate(
            f"best: {best:.3f}", (epoch, best), (0, -14), textcoords="offset points", ha="right", fontsize=8
        )
    return figure


def is_number(value: float | None) -> bool:
    return value is not None and isfinite(value)


# One colour and one mark for each family: no two look alike in grey either.
FAMILY_STYLES = tuple(
    zip(
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777"),
        "osD^vP*X",
        strict=True,
    )
)


def forest(
    labels: Sequence[str],
    families: Sequence[str],
    effects: Sequence[Effect],
    unit: str = "mAP",
    among: Sequence[str] = (),
) -> Figure:
    """Effects with their intervals, the best on top: a line each, in a column as narrow as a phone.

    A mark is filled where its interval leaves 0 out. An interval that is wider than the picture ends at its edge.

    Args:
        labels: of the effects; at most some 34 letters.
        families: of the effects; at most eight, in the order of their first.
        unit: of the effects.
        among: families whose colours and marks others have elsewhere, in their order.

    Raises:
        ValueError: there is no effect, or there are more families than `FAMILY_STYLES`.
    """
    figure, axes, order = _sorted_effects(families, effects, unit, inches=0.19, line=1.6, mark=5.5, among=among)
    axes.set_ylim(-0.8, len(order) - 0.2)
    axes.set_yticks(range(len(order)), [labels[index].replace("$", r"\$") for index in order], fontsize=9)
    return figure


ROWS_OF_A_NAME = 2.4  # a line of text is as high as so many lines of the forest at a glance


def forest_at_a_glance(
    families: Sequence[str], effects: Sequence[Effect], named: Mapping[int, str], unit: str = "mAP"
) -> Figure:
    """`forest` for very many effects: thin lines close together, of which a few have names.

    A name stands on that side of 0 where its line is not.

    Args:
        families: of the effects; at most eight, in the order of their first.
        named: by the place of an effect, what to call it.
        unit: of the effects.

    Raises:
        ValueError: as `forest`.
    """
    figure, axes, order = _sorted_effects(families, effects, unit, inches=0.07, line=1.0, mark=3.5, among=())
    axes.set(ylim=(-2, len(order) + 1), yticks=[])
    end = 0.05 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    rows = [row for row, index in enumerate(order) if index in named]
    losses = [row for row in rows if effects[order[row]].mean < 0]
    for some, side in ((losses, 1), (rows[len(losses) :][::-1], -1)):
        free = -inf  # where the next name may stand, from either end inwards
        for row in some:
            free = max(side * row, free + ROWS_OF_A_NAME)
            effect, height = effects[order[row]], side * free
            axes.plot([effect.mean, 0, side * end], [row, row, height], ":", color="black", linewidth=0.8)
            name = named[order[row]].replace("$", r"\$")
            axes.text(side * end, height, f" {name} ", fontsize=9, ha="left" if side > 0 else "right", va="center")
    return figure


def _sorted_effects(
    families: Sequence[str],
    effects: Sequence[Effect],
    unit: str,
    inches: float,
    line: float,
    mark: float,
    among: Sequence[str],
) -> tuple[Figure, Axes, list[int]]:
    """A figure with a line for each effect, `inches` apart, and their order from the worst to the best."""
    names = list(dict.fromkeys((*among, *families)))
    if not effects or len(names) > len(FAMILY_STYLES):
        raise ValueError(f"{len(effects)} effects of {len(names)} families: draw one or more, of at most 8 families")
    styles = dict(zip(names, FAMILY_STYLES, strict=False))
    order = sorted(range(len(effects)), key=lambda index: effects[index].mean)
    figure = Figure(figsize=(4.3, 1.4 + inches * len(effects)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    for row, index in enumerate(order):
        effect, (colour, shape) = effects[index], styles[families[index]]
        axes.plot(effect.interval, [row, row], color=colour, linewidth=line, solid_capstyle="butt")
        face = colour if effect.is_told_apart else "white"
        axes.plot(effect.mean, row, shape, color=colour, markerfacecolor=face, markersize=mark)
    means = [effect.mean for effect in effects]
    margin = 0.02 + 0.15 * (max(means) - min(means))
    axes.set(xlim=(min(*means, 0) - margin, max(*means, 0) + margin))
    axes.tick_params(axis="x", labelsize=9, top=True, labeltop=True)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_xlabel(f"difference in {unit}", fontsize=9)
    keys = [
        Line2D([], [], linestyle="", marker=shape, color=colour, label=name)
        for name, (colour, shape) in styles.items()
        if name in families
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure, axes, order


def figure_of(
    image: UInt8[np.ndarray, "H W 3"],
    found: Detections,
    score_threshold: float = 0.5,
    classes: Sequence[str] = VOC_CLASSES,
) -> Figure:
    """The image with its detections and nothing around it, in the image's own pixels or a little more."""
    height, width = image.shape[:2]
    scale = max(1.0, 500 / max(height, width))
    figure = Figure(figsize=(width * scale / 100, height * scale / 100), dpi=100)
    draw_detections(figure.add_axes((0, 0, 1, 1)), image, found, score_threshold, classes)
    return figure


def save_detections(
    path: str | Path,
    image: UInt8[np.ndarray, "H W 3"],
    found: Detections,
    score_threshold: float = 0.5,
    classes: Sequence[str] = VOC_CLASSES,
) -> None:
    """Write the image with its detections, as `figure_of` draws it."""
    png = io.BytesIO()
    figure_of(image, found, score_threshold, classes).savefig(png, format="png")
    write_whole(path, png.getvalue())
