"""What the pages need: figures that move, the library's own source, races, numbers for the prose."""

import base64
import inspect
import io
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from course_lib.backbones import L2Norm


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


class Race(NamedTuple):
    """What two ways to compute the same gave, and how many times as fast the second was."""

    slow: object
    fast: object
    speedup: float


def race(slow: Callable[[], object], fast: Callable[[], object], rounds: int = 1) -> Race:
    """Run two functions in turns; the numbers are medians of `rounds` in this process, on this machine.

    The second runs once before the first round, unmeasured: a first call pays for what later calls find ready.
    """
    fast()
    results, seconds = [None, None], ([], [])
    for _ in range(rounds):
        for number, function in enumerate((slow, fast)):
            started = time.perf_counter()
            results[number] = function()
            seconds[number].append(time.perf_counter() - started)
    return Race(*results, median(seconds[0]) / median(seconds[1]))


def numbers(**values: object) -> None:
    """Keep values for the prose, where {glue:text}`name:.2f` shows them; nothing is displayed."""
    from myst_nb import glue  # only pages need it, and it loads Sphinx

    for name, value in values.items():
        plain = value.item() if isinstance(value, np.generic) else value  # numpy's repr is no number to the page
        glue(name, plain, display=False)


LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, L2Norm)


def walk(
    model: nn.Module, size: int, kinds: tuple[type[nn.Module], ...] = LAYERS
) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """The layers of these kinds in the order in which an image passes them, each with the shape of what it gives.

    Args:
        model: on PyTorch's device `meta`, where tensors have shapes and no numbers; left in evaluation mode.
        size: the image's side in pixels.
    """
    rows = []
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: rows.append((layer, tuple(out.shape[1:]))))
        for layer in layers
    ]
    model.eval()(torch.empty(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return rows
