"""Pictures: boxes on images, curves, and the colours that tell classes apart."""

import base64
import inspect
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.detect import Detections
from course_lib.files import write_whole
from course_lib.metrics import Curve
from course_lib.voc import VOC_CLASSES, Annotation, Target

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
DIFFICULT = "#BBBBBB"


def colour_of(label: int) -> str:
    """Seven colours for twenty classes: neighbours differ, and the name is written on every box."""
    return COLOURS[label % len(COLOURS)]


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
        for edge, line in (("black", 3.2), (colour, 1.8)):
            style = "--" if is_faint and edge != "black" else "-"
            axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], style, color=edge, linewidth=line)
        text = classes[label - 1] if scores is None else f"{classes[label - 1]} {scores[index]:.2f}"
        axes.text(
            x0 + 2, y0 + 2, text, fontsize=7, color="black", va="top", clip_on=True,
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
    label = name if ap is None else f"{name}, AP {ap:.2f}"
    axes.step(recall, envelope, where="pre", color=colour, linewidth=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    return axes


def save_detections(
    path: str | Path,
    image: UInt8[np.ndarray, "H W 3"],
    found: Detections,
    score_threshold: float = 0.5,
    classes: Sequence[str] = VOC_CLASSES,
) -> None:
    """Write the image with its detections, in the image's own pixels or a little more."""
    height, width = image.shape[:2]
    scale = max(1.0, 500 / max(height, width))
    figure = Figure(figsize=(width * scale / 100, height * scale / 100), dpi=100)
    draw_detections(figure.add_axes((0, 0, 1, 1)), image, found, score_threshold, classes)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    write_whole(path, png.getvalue())


@dataclass(frozen=True)
class Frame:
    """One state of a moving figure: its picture, the value it is for, and the picture in words."""

    figure: Figure
    value: str
    alt: str


@dataclass(frozen=True)
class MovingFigure:
    """Pictures behind a slider: moves in a notebook, in the built page and from a file, with no kernel."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


# The slider's own handler, so that nothing needs an id and one page can hold many. It shows one picture
# and hides the others; a screen reader hears the value.
_SHOW = (
    "const figure = this.closest('figure'), pictures = figure.querySelectorAll('img'), shown = pictures[this.value];"
    "pictures.forEach(one => { one.style.display = one === shown ? 'block' : 'none' });"
    "figure.querySelector('output').textContent = shown.dataset.value;"
    "this.setAttribute('aria-valuetext', shown.dataset.value)"
)


def moving(label: str, frames: Iterable[Frame], start: int = 0, dpi: int = 96) -> MovingFigure:
    """Turn computed frames into a figure that a slider moves.

    Args:
        label: what the slider changes.
        frames: in the slider's order, all of one size.
        start: the frame that is shown first.
        dpi: pixels per inch.

    A range input over finished pictures: by mouse, touch and arrow keys, without network and without kernel.
    """
    frames = list(frames)
    if not 0 <= start < len(frames):
        raise ValueError(f"moving: start is {start}, and there are {len(frames)} frames: use 0 to {len(frames) - 1}")
    for one, other in pairwise(frames):
        if one.value == other.value:
            raise ValueError(
                f"moving: two neighbours have the value {one.value!r}: who hears it would notice no change"
            )
    pictures = "".join(
        f'<img src="data:image/webp;base64,{_webp(frame.figure, dpi)}" alt="{escape(frame.alt)}" '
        f'data-value="{escape(frame.value)}" style="display:{"block" if index == start else "none"};max-width:100%">'
        for index, frame in enumerate(frames)
    )
    value = escape(frames[start].value)
    return MovingFigure(
        f'<figure class="moving" style="margin:1em 0">{pictures}'
        f'<figcaption><label style="display:flex;flex-wrap:wrap;gap:0.3em 0.8em;align-items:center">{escape(label)} '
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{start}" step="1" aria-valuetext="{value}" '
        f'style="flex:1 1 10em;max-width:24em;touch-action:pan-y" oninput="{escape(_SHOW)}">'
        f'<output style="min-width:6em;font-variant-numeric:tabular-nums">{value}</output>'
        "</label></figcaption></figure>"
    )


def _webp(figure: Figure, dpi: int) -> str:
    """A figure as WebP, a third of a PNG's size."""
    picture = io.BytesIO()
    figure.savefig(picture, format="webp", dpi=dpi, pil_kwargs={"quality": 82})
    return base64.b64encode(picture.getvalue()).decode()


def explore(draw: Callable[..., Figure], **ranges: tuple[int, int]):
    """A widget for a live notebook: a slider for each of `draw`'s arguments, and the figure that it gives.

    Args:
        draw: called with whole numbers by name.
        ranges: the smallest and the largest value of each argument; it starts at the smallest.

    An `interact` would send its output round through the kernel, which notebooks that are executed without
    a browser wait for in vain every now and then; here the picture goes one way.
    """
    from ipywidgets import Image, IntSlider, VBox  # only live notebooks need it, and it loads all of IPython

    sliders = {name: IntSlider(low, low, high, description=name) for name, (low, high) in ranges.items()}
    picture = Image(format="png")

    def update(change: object = None) -> None:
        png = io.BytesIO()
        draw(**{name: slider.value for name, slider in sliders.items()}).savefig(png, format="png")
        picture.value = png.getvalue()

    for slider in sliders.values():
        slider.observe(update, "value")
    update()
    return VBox([*sliders.values(), picture])


@dataclass(frozen=True)
class Source:
    """A piece of the library's own source, as a notebook and the book show code."""

    text: str

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}```\n"


def source(thing: Callable | type) -> Source:
    """The source of a function or class, read from the library, so that it cannot differ from it."""
    return Source(inspect.getsource(thing))
