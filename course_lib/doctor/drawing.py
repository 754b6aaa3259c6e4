"""Pictures of findings: boxes in an image, two images side by side, bars. A finding keeps what its picture needs alone.

Each picture is small and by itself: one image of at most `SIDE` pixels, some boxes, some numbers; never the data. Only
where one is drawn is matplotlib loaded: most findings are read as text.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import LoopBatches, Objects, as_rgb, reading
from course_lib.voc import Target

Picture = Callable[[Any], None]  # draws on axes of matplotlib
ImageAt = Callable[[int], np.ndarray | None]  # from the place of an image among `Objects.ids` to the image

SIDE = 320  # pixels of the longer side that is kept of an image
INCHES, DPI = 4, 100
MOST, FEW = 20, 4  # boxes that are drawn, and whose names are given beside the picture too
AROUND = 0.5  # of the image's sides that are shown around it, where boxes lie there
TRIES = 50  # images that are read to find one


def as_png(picture: Picture) -> bytes:
    """A picture as a file of some 400 x 400 pixels, cut to what is drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES, INCHES))
    picture(figure.subplots())
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, bbox_inches="tight")
    return png.getvalue()


def small(image: np.ndarray | None) -> UInt8[np.ndarray, "H W 3"] | None:
    """An image in RGB and no larger than is kept; None where it is none."""
    rgb = None if image is None else as_rgb(np.asarray(image))
    if rgb is None or not rgb.size:
        return None
    shrink = SIDE / max(rgb.shape[:2])
    if shrink >= 1:
        return np.array(rgb)  # a copy: a view would keep the whole batch
    size = tuple(max(1, round(side * shrink)) for side in rgb.shape[1::-1])
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True, eq=False)
class BoxesIn:
    """An image with boxes as they are, and dashed as they would be right, where that is known.

    Attributes:
        image: in RGB.
        boxes: read as corners in fractions, whatever they are.
        labels: of the boxes; those that all have a name are written.
        right: corners in fractions.
        classes: the names of labels 1, 2, ...
    """

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    right: Float[Tensor, "M 4"] | None = None
    classes: tuple[str, ...] = ()

    def __call__(self, axes: Any) -> None:
        from course_lib import viz

        height, width = self.image.shape[:2]
        size = torch.tensor([width, height] * 2)
        named = self.named()
        shown = slice(None) if named else slice(0)
        viz.draw_boxes(axes, self.image, self.boxes[shown], self.labels[shown], classes=self.classes)
        for box in () if named else self.boxes * size:
            viz.outline(axes, box, viz.COLOURS[0], halo="black")
        for box in self.right * size if self.right is not None else ():
            viz.outline(axes, box, "white", style="--", halo="black", zorder=3)
        x, y = (self.limits(side) for side in (0, 1))
        axes.set(xlim=(x[0] * width, x[1] * width), ylim=(y[1] * height, y[0] * height))
        axes.set_title(self.caption(), fontsize=9, parse_math=False)

    def named(self) -> bool:
        """Whether each label has a name."""
        return bool(((self.labels > 0) & (self.labels <= len(self.classes))).all())

    def limits(self, side: int) -> tuple[float, float]:
        """What is shown of an axis, in fractions of the image: it, and what is around it as far as there are boxes."""
        known = self.boxes[self.near()][:, side::2]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        return max(min(low, 0.0), -AROUND), min(max(high, 1.0), 1 + AROUND)

    def near(self) -> Bool[Tensor, " N"]:
        """Which boxes lie on the image or close to it, at least in part."""
        low, high = self.boxes[:, :2].minimum(self.boxes[:, 2:]), self.boxes[:, :2].maximum(self.boxes[:, 2:])
        return self.boxes.isfinite().all(dim=1) & ((high > -AROUND) & (low < 1 + AROUND)).all(dim=1)

    def caption(self) -> str:
        words = "boxes as they are"
        if self.named() and 0 < len(self.labels) <= FEW:  # names may lie one on the other in the picture
            words += f": {', '.join(self.classes[label - 1] for label in self.labels.tolist())}"
        if beyond := int((~self.near()).sum()):
            words += f" ({beyond} of {len(self.boxes)} too far away to be seen)"
        return words + ("\ndashed: as they would be right" if self.right is not None else "")


def boxes_in(
    image: np.ndarray | None,
    boxes: Float[Tensor, "N 4"],
    labels: Int[Tensor, " N"],
    right: Float[Tensor, "M 4"] | None = None,
    classes: Sequence[str] | None = None,
) -> BoxesIn | None:
    """A picture of boxes in their image; None where there is no image.

    Args:
        image: as `as_rgb` takes it.
        boxes, labels, right, classes: as `BoxesIn` keeps them.
    """
    kept = small(image)
    if kept is None:
        return None
    # Clones: a view would keep the boxes of all images.
    boxes, labels = boxes[:MOST].detach().cpu().float().clone(), labels[:MOST].detach().cpu().long().clone()
    right = None if right is None else right[:MOST].detach().cpu().float().clone()
    return BoxesIn(kept, boxes, labels, right, tuple(map(str, classes or ())))


def objects_in(
    objects: Objects,
    chosen: Tensor,
    image_at: ImageAt | None,
    right: Float[Tensor, "N 4"] | None = None,
    classes: Sequence[str] | None = None,
) -> BoxesIn | None:
    """A picture of the first image that has objects of those chosen, with these objects in it."""
    if image_at is None or not chosen.any():
        return None
    place = int(objects.image[chosen][0])
    own = chosen & (objects.image == place)
    mended = None if right is None else right[own]
    return boxes_in(image_at(place), objects.boxes[own], objects.labels[own], mended, classes)


def image_of_data(patient: Patient, part: str = "data") -> ImageAt:
    """How the images of some data are found by the places of their targets.

    Where targets could not be read, an image stands further behind than its target, by as many places.
    """
    data, known = getattr(patient, part), reading(patient, part)

    def at(place: int) -> np.ndarray | None:
        if not hasattr(data, "__getitem__"):
            return None
        wanted, last = str(known.targets[place].image_id), min(place + len(known.problems), place + TRIES)
        for index in range(place, min(last + 1, len(data))):
            with suppress(Exception):  # whatever a stranger's code raises: then there is no picture
                image, target = data[index]
                if str(target.image_id) == wanted:
                    return np.asarray(image)
        return None

    return at


def image_of_batches(batches: LoopBatches) -> ImageAt:
    """How the images of a loop's batches are found by their places."""

    def at(place: int) -> np.ndarray | None:
        for batch in batches.read:
            if place < len(batch.images):
                return torch.as_tensor(batch.images[place]).detach().cpu().numpy()
            place -= len(batch.images)
        return None

    return at


def target_in(
    image: np.ndarray | None, target: Target, right: np.ndarray | None, classes: Sequence[str] | None
) -> BoxesIn | None:
    """A picture of an image with its target's boxes, and of those that would be right."""
    boxes = torch.as_tensor(target.boxes).reshape(-1, 4)
    right = None if right is None else torch.from_numpy(np.asarray(right, dtype=np.float32).reshape(-1, 4))
    return boxes_in(image, boxes, torch.as_tensor(target.labels).reshape(-1), right, classes)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Two images, one beside the other, each with its name."""

    images: tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H2 W2 3"]]
    names: tuple[str, str]

    def __call__(self, axes: Any) -> None:
        from course_lib import viz

        rows = [cv2.resize(one, (max(1, round(200 * one.shape[1] / one.shape[0])), 200)) for one in self.images]
        none = torch.zeros(0, dtype=torch.int64)
        viz.draw_boxes(axes, np.concatenate(rows, axis=1), torch.zeros(0, 4), none)
        axes.axvline(rows[0].shape[1], color="white", linewidth=3)
        axes.set_title(f"left: {self.names[0]}\nright: {self.names[1]}", fontsize=9, parse_math=False)


def side_by_side(one: np.ndarray | None, other: np.ndarray | None, names: tuple[str, str]) -> SideBySide | None:
    """A picture of two images; None where one of them is none."""
    left, right = small(one), small(other)
    return None if left is None or right is None else SideBySide((left, right), names)


@dataclass(frozen=True, eq=False)
class Bars:
    """A number for each of some names, from the first at the top.

    Attributes:
        unit: what the numbers are.
        powers: whether the axis is logarithmic.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    unit: str
    powers: bool = False

    def __call__(self, axes: Any) -> None:
        from course_lib import viz

        bars = axes.barh(range(len(self.values)), self.values, color=viz.COLOURS[4])
        axes.bar_label(bars, [f"{value:.3g}" for value in self.values], fontsize=8, padding=2)
        axes.set_yticks(range(len(self.names)), self.names, fontsize=8, parse_math=False)
        axes.set(ylim=(len(self.names) - 0.5, -0.5), xlabel=self.unit)
        if self.powers:
            axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
