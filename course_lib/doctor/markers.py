"""Markers: pictures with coloured rectangles, drawn to see what a transform does with a picture and with its boxes."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np
import torch

from course_lib.boxes import box_iou
from course_lib.doctor import drawing
from course_lib.doctor.samples import as_rgb
from course_lib.voc import Target

# Far enough apart in hue that a colour change of a tenth of the circle, as SSD's, takes none for another.
COLOURS = {"red": (225, 45, 45), "green": (45, 195, 70), "blue": (55, 75, 230)}
TRIALS = 24
LEAST = 12  # pixels of side that a rectangle must have in the end to be told apart from the blur of its edges
RECOLOURED = 45  # degrees of hue from the colour that was drawn, beyond which none is told from another
SEEN = 0.5  # IoU at least of a box and the rectangle that it is on: blur and a cut corner leave more


@dataclass(frozen=True)
class Marker:
    """One rectangle as it was drawn, and where it is found after the transform.

    Attributes:
        colour: its name in `COLOURS`.
        label: that its box was given.
        drawn: corners, fractions, of the picture that was drawn.
        found: corners, fractions, of the picture that came back; None where it is not to be seen there.
        whole: it was found away from all edges, so nothing of it is cut off.
        side: of what was found, pixels, the shorter one.
    """

    colour: str
    label: int
    drawn: np.ndarray
    found: np.ndarray | None
    whole: bool
    side: float


@dataclass(frozen=True)
class Trial:
    """A picture with its markers, and the boxes and labels that came back with it.

    Attributes:
        size: of the picture that came back, pixels.
        picture: itself, small; None where it is none.
    """

    markers: tuple[Marker, ...]
    boxes: np.ndarray
    labels: tuple[int, ...]
    size: tuple[int, int]
    picture: np.ndarray | None

    def on(self, box: np.ndarray) -> Marker | None:
        """The marker that a box is on."""
        seen = [marker for marker in self.markers if marker.found is not None]
        overlaps = [iou(box, marker.found) for marker in seen]
        best = int(np.argmax(overlaps)) if overlaps else 0
        return seen[best] if overlaps and overlaps[best] >= SEEN else None

    def visible(self) -> list[Marker]:
        return [marker for marker in self.markers if marker.found is not None and marker.side >= LEAST]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    a, b = (torch.from_numpy(np.asarray(box, dtype=np.float32).reshape(1, 4)) for box in (one, other))
    return float(box_iou(a, b))


def drawn(size: tuple[int, int], labels: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, Target]:
    """A grey picture with a rectangle of each colour, each in a third of it, and their boxes."""
    width, height = size
    ground = rng.uniform(70, 150, size=(6, 8)).astype(np.float32)
    image = np.repeat(cv2.resize(ground, size, interpolation=cv2.INTER_CUBIC)[..., None], 3, axis=2)
    boxes = []
    for column, colour in zip(rng.permutation(3).tolist(), COLOURS.values(), strict=True):
        w, h = rng.uniform(0.18, 0.26), rng.uniform(0.22, 0.5)
        x, y = column / 3 + rng.uniform(0.02, 0.31 - w), rng.uniform(0.02, 0.98 - h)
        box = [round(x * width), round(y * height), round((x + w) * width), round((y + h) * height)]
        image[box[1] : box[3], box[0] : box[2]] = colour
        boxes.append(np.array(box) / np.array([width, height] * 2))
    target = Target(
        torch.tensor(np.array(boxes), dtype=torch.float32),
        torch.tensor(list(labels), dtype=torch.int64),
        torch.zeros(3, dtype=torch.bool),
        "marker",
        size,
    )
    return image.clip(0, 255).astype(np.uint8), target


def extents(image: np.ndarray) -> dict[str, tuple[np.ndarray, bool, float]]:
    """Where each colour is found in a picture: corners in fractions, whether it is whole, and its shorter side."""
    pixels = image.astype(np.float32)
    chroma = pixels.max(axis=2) - pixels.min(axis=2)
    strongest = float(np.percentile(chroma, 99.5))
    if strongest < 30:  # grey, or nothing of them is left
        return {}
    hue = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0].astype(np.int64) * 2
    hues = {name: cv2.cvtColor(np.uint8([[rgb]]), cv2.COLOR_RGB2HSV)[0, 0, 0] * 2 for name, rgb in COLOURS.items()}
    away = np.stack([abs((hue - int(one) + 180) % 360 - 180) for one in hues.values()])
    nearest, height, width = away.argmin(axis=0), *image.shape[:2]
    found = {}
    for place, name in enumerate(COLOURS):
        mask = ((nearest == place) & (chroma > 0.6 * strongest)).astype(np.uint8)
        if mask.any() and float(np.median(away[place][mask > 0])) > RECOLOURED:
            return {}
        count, _, parts, _ = cv2.connectedComponentsWithStats(mask)
        if count < 2:
            continue
        parts = parts[1:][parts[1:, 4] >= 0.1 * parts[1:, 4].max()]
        x, y = parts[:, 0].min(), parts[:, 1].min()
        right, below = (parts[:, 0] + parts[:, 2]).max(), (parts[:, 1] + parts[:, 3]).max()
        whole = x >= 2 and y >= 2 and right <= width - 2 and below <= height - 2
        corners = np.array([x / width, y / height, right / width, below / height])
        found[name] = (corners, bool(whole), float(min(right - x, below - y)))
    return found


def trials(transform: Callable, size: tuple[int, int], classes: int | None, count: int = TRIALS) -> list[Trial]:
    """Send pictures with markers through a transform; the labels go round among the colours.

    A transform that keeps random numbers is copied, so that its own are as they were.
    """
    with suppress(Exception):  # what cannot be copied is used as it is
        transform = deepcopy(transform)
    rng, made = np.random.default_rng(0), []
    orders = list(permutations(range(1, 4)))
    for number in range(count):
        labels = [min(label, classes or 3) for label in orders[number % 6]]
        image, target = drawn(size if number % 4 else size[::-1], labels, rng)
        if hasattr(transform, "seed"):
            transform.seed(number)
        after, told = transform(image, target)
        rgb = as_rgb(np.asarray(after))
        found = extents(rgb) if rgb is not None else {}
        markers = tuple(
            Marker(name, label, box.astype(float), *found.get(name, (None, False, 0.0)))
            for name, label, box in zip(COLOURS, labels, target.boxes.numpy(), strict=True)
        )
        boxes = np.asarray(told.boxes, dtype=np.float64).reshape(-1, 4)
        if len(boxes) > len(target.labels):
            continue  # other pictures have been mixed in, and their objects are no markers
        labels = tuple(np.asarray(told.labels).reshape(-1).tolist())
        made.append(Trial(markers, boxes, labels, rgb.shape[1::-1], drawing.small(rgb)))
    return made


# What a transform may have done to one of picture and box alone, and what would make the box right.
FORGOTTEN = {
    "the picture is mirrored left to right, and the box is not": lambda b, size: np.array(
        [1 - b[2], b[1], 1 - b[0], b[3]]
    ),
    "the picture is turned upside down, and the box is not": lambda b, size: np.array([b[0], 1 - b[3], b[2], 1 - b[1]]),
    "the picture is turned by half, and the box is not": lambda b, size: 1 - b[[2, 3, 0, 1]],
    "x and y of the box, or of the picture, are exchanged": lambda b, size: b[[1, 0, 3, 2]],
    "its minima and maxima are exchanged": lambda b, size: np.concatenate(
        [np.minimum(b[:2], b[2:]), np.maximum(b[:2], b[2:])]
    ),
    "the box is in pixels": lambda b, size: b / np.array(size * 2),
    "the box is (x, y, width, height)": lambda b, size: np.concatenate([b[:2], b[:2] + b[2:]]),
    "the box is centre and size": lambda b, size: np.concatenate([b[:2] - b[2:] / 2, b[:2] + b[2:] / 2]),
}
CURE = "give picture and boxes to one transform that knows both, and look at them drawn"
CURES = {
    "the box is in pixels": "divide boxes by the picture's width and height, once",
    "the box is (x, y, width, height)": "add x and y to the width and height, once",
    "the box is centre and size": "take half of the size from the centre, and add it, once",
}
OTHERWISE = "the picture is cut, zoomed, turned or shifted, and the box is not, or by another amount"


def forgotten(trial: Trial, box: np.ndarray) -> str:
    """What was done to one of a picture and a box that is on no marker, and not to the other."""
    return next((name for name, mend in FORGOTTEN.items() if trial.on(mend(box, trial.size)) is not None), OTHERWISE)


def cause(lost: Sequence[tuple[Trial, np.ndarray]]) -> str:
    """What explains most of the boxes that are on no marker."""
    name, count = Counter(forgotten(trial, box) for trial, box in lost).most_common(1)[0]
    return name if count > 0.6 * len(lost) else OTHERWISE
