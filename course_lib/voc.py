"""Pascal VOC: its twenty classes, its annotations, its images, and how they become batches.

The XML counts pixels from 1 and its corners belong to the box. In memory a box is 0-based and
half open, `(xmin - 1, ymin - 1, xmax, ymax)`, so its width is `xmax - xmin` with no "+ 1".
"""

import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from course_lib.files import DataError

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class Annotation:
    """What one XML file says.

    Attributes:
        path: the XML file; its stem is the image's id.
        size: width and height of the image, pixels.
        boxes_px: corners, pixels, 0-based, half open.
        labels: index into the classes, plus 1; 0 is background and never occurs here.
        difficult, truncated: the annotators' flags, False where the file has none.
        unknown: names of objects that are none of the classes and were left out.
    """

    path: Path
    size: tuple[int, int]
    boxes_px: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    difficult: Bool[Tensor, " N"]
    truncated: Bool[Tensor, " N"]
    unknown: tuple[str, ...] = ()

    @property
    def image_id(self) -> str:
        return self.path.stem

    @cached_property
    def boxes(self) -> Float[Tensor, "N 4"]:
        """Corners, fractions of the image."""
        return self.boxes_px / torch.tensor(self.size * 2, dtype=torch.float32)


@dataclass(frozen=True)
class Target:
    """What a detector should find in one image.

    Attributes:
        boxes: corners, fractions of the image.
        labels: class index plus 1.
        difficult: objects that evaluation does not count.
        image_id: the file's stem.
        size: width and height in pixels of the image as it was on disk.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    difficult: Bool[Tensor, " N"]
    image_id: str
    size: tuple[int, int]

    @property
    def boxes_px(self) -> Float[Tensor, "N 4"]:
        """Corners, pixels of the image as it was on disk."""
        return self.boxes * torch.tensor(self.size * 2, dtype=torch.float32)


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type before any entity in it is expanded."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("it declares a document type")


def _parse(path: Path) -> ElementTree.Element:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, "file", error.strerror, "restore the annotation or take it off the list") from None
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(content)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(path, "XML", str(error), "restore the file: VOC annotations are plain XML") from None
    if root.tag != "annotation":
        raise DataError(path, "root element", root.tag, "a VOC annotation's root is <annotation>")
    return root


def _number(path: Path, field: str, parent: ElementTree.Element | None, tag: str) -> float:
    text = None if parent is None else parent.findtext(tag)
    try:
        number = float(text)  # type: ignore[arg-type]
        if not np.isfinite(number):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(path, f"{field}/{tag}", text, "write a number there") from None
    return number


def _flag(path: Path, field: str, item: ElementTree.Element, tag: str) -> bool:
    text = (item.findtext(tag) or "0").strip()
    if text not in ("0", "1"):
        raise DataError(path, f"{field}/{tag}", text, "write 0 or 1")
    return text == "1"


def _box(path: Path, field: str, item: ElementTree.Element, size: tuple[int, int]) -> tuple[float, ...]:
    """The object's own corners, 1-based; a `<part>` has a box of its own, one level deeper."""
    field = f"{field}/bndbox"
    child = item.find("bndbox")
    corners = tuple(_number(path, field, child, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    xmin, ymin, xmax, ymax = corners
    if xmax < xmin or ymax < ymin:
        raise DataError(path, field, corners, "the corners are reversed: swap min and max")
    if xmax == xmin or ymax == ymin:
        raise DataError(path, field, corners, "the box has no area: draw it again or remove the object")
    if xmin < 1 or ymin < 1 or xmax > size[0] or ymax > size[1]:
        raise DataError(
            path, field, corners, f"the box leaves the image, whose pixels are 1..{size[0]} by 1..{size[1]}: clip it"
        )
    return corners


def _size(path: Path, root: ElementTree.Element) -> tuple[int, int]:
    size = []
    for tag in ("width", "height"):
        number = _number(path, "size", root.find("size"), tag)
        if number < 1 or number != int(number):
            raise DataError(path, f"size/{tag}", number, "write the image's size in pixels")
        size.append(int(number))
    return size[0], size[1]


def read_annotation(
    path: str | Path, classes: Sequence[str] = VOC_CLASSES, problems: list[DataError] | None = None
) -> Annotation:
    """Read one VOC annotation.

    Args:
        path: an XML file in VOC's format; the children of an element may come in any order.
        classes: the names that count; an object of another class is left out and named in `unknown`.
        problems: where given, a fault in an object is appended here and the object left out, and
            reading goes on; where not, the first fault is raised.

    Raises:
        DataError: the file is missing or not XML, or has no usable size (always);
            a field is missing, not a number, reversed, without area or outside (see `problems`).
    """
    path = Path(path)
    root = _parse(path)
    size = _size(path, root)
    boxes, labels, difficult, truncated, unknown = [], [], [], [], []
    for index, item in enumerate(root.findall("object")):
        field = f"object[{index}]"
        try:
            name = (item.findtext("name") or "").strip()
            if not name:
                raise DataError(path, f"{field}/name", name, "write the object's class there")
            if name not in classes:
                unknown.append(name)
                continue
            flags = _flag(path, field, item, "difficult"), _flag(path, field, item, "truncated")
            box = _box(path, field, item, size)
        except DataError as error:
            if problems is None:
                raise
            problems.append(error)
            continue
        boxes.append((box[0] - 1, box[1] - 1, box[2], box[3]))
        labels.append(classes.index(name) + 1)
        difficult.append(flags[0])
        truncated.append(flags[1])
    return Annotation(
        path,
        size,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
        torch.tensor(truncated, dtype=torch.bool),
        tuple(unknown),
    )


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image as RGB: grey, CMYK and palette images are converted.

    Args:
        path: any format that Pillow reads.
        size: width and height that its annotation gives. A camera may store a picture turned and
            say so in its EXIF data; it is shown upright here, unless only the stored pixels have
            the annotated size.

    Raises:
        DataError: the image is missing, broken or truncated, or has another size.
    """
    try:
        with Image.open(path) as stored:
            upright = ImageOps.exif_transpose(stored)
            picture = stored if size is not None and upright.size != size and stored.size == size else upright
            image = np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise DataError(path, "image", "not an image", "restore the file or take it off the list") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(path, "image", str(error), "restore the file or take it off the list") from None
    if size is not None and image.shape[1::-1] != size:
        raise DataError(
            path, "image size", image.shape[1::-1], f"its annotation says {size}: the boxes belong to another version"
        )
    return image


def read_image_set(devkit: str | Path, year: str, image_set: str) -> list[str]:
    """The image ids in `ImageSets/Main/<image_set>.txt`, in the file's order."""
    path = Path(devkit) / f"VOC{year}" / "ImageSets" / "Main" / f"{image_set}.txt"
    try:
        ids = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise DataError(
            path, "image set", error.strerror, f"is {devkit} the folder that holds VOC{year}? It needs this list"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(path, "image set", error.reason, "write one image id per line, as plain text") from None
    if not ids:
        raise DataError(path, "image set", "empty", "write one image id per line")
    for image_id in ids:
        if Path(image_id).name != image_id:
            raise DataError(path, "image id", image_id, "write the file's name without folder and ending")
    return ids


def annotation_path(devkit: str | Path, year: str, image_id: str) -> Path:
    return Path(devkit) / f"VOC{year}" / "Annotations" / f"{image_id}.xml"


def image_path(devkit: str | Path, year: str, image_id: str) -> Path:
    return Path(devkit) / f"VOC{year}" / "JPEGImages" / f"{image_id}.jpg"


def _pairs(year: str | Sequence[str], image_set: str | Sequence[str]) -> list[tuple[str, str]]:
    years = [year] if isinstance(year, str) else list(year)
    sets = [image_set] if isinstance(image_set, str) else list(image_set)
    length = max(len(years), len(sets))
    years, sets = (items * length if len(items) == 1 else items for items in (years, sets))
    return list(zip(years, sets, strict=True))


class VOCDetection(Dataset):
    """Images and targets of one image set, or of several years and sets one after the other.

    Args:
        devkit: the folder that holds `VOC2007/`.
        year: "2007", or one year for each image set.
        image_set: "train", "val", "trainval", "test", or one for each year.
        transform: called with image and target; gives what `dataset[i]` gives.
        keep_difficult: False leaves difficult objects out of the targets.
        classes: the class names, for trees of your own.

    `VOCDetection("data/VOCdevkit", ["2007", "2012"], "trainval")` is the usual "07+12".
    """

    def __init__(
        self,
        devkit: str | Path,
        year: str | Sequence[str],
        image_set: str | Sequence[str],
        transform: Callable | None = None,
        keep_difficult: bool = True,
        classes: Sequence[str] = VOC_CLASSES,
    ) -> None:
        self.devkit, self.transform = Path(devkit), transform
        self.keep_difficult, self.classes = keep_difficult, tuple(classes)
        self.items = [(y, i) for y, s in _pairs(year, image_set) for i in read_image_set(devkit, y, s)]

    def __len__(self) -> int:
        return len(self.items)

    def annotation(self, index: int) -> Annotation:
        """What the XML of image `index` says, without reading the image."""
        annotation = read_annotation(annotation_path(self.devkit, *self.items[index]), self.classes)
        for name in annotation.unknown:
            warnings.warn(f"objects of class {name!r} are left out: not one of `classes`", stacklevel=2)
        return annotation

    def load(self, index: int) -> tuple[UInt8[np.ndarray, "H W 3"], Target]:
        """Image `index`, RGB, and its target, before any transform."""
        annotation = self.annotation(index)
        image = read_image(image_path(self.devkit, *self.items[index]), annotation.size)
        target = Target(annotation.boxes, annotation.labels, annotation.difficult, annotation.image_id, annotation.size)
        if not self.keep_difficult:
            kept = ~target.difficult
            target = replace(
                target, boxes=target.boxes[kept], labels=target.labels[kept], difficult=target.difficult[kept]
            )
        return image, target

    def __getitem__(self, index: int) -> tuple:
        image, target = self.load(index)
        return (image, target) if self.transform is None else self.transform(image, target)


def read_annotations(
    devkit: str | Path, year: str, image_set: str, classes: Sequence[str] = VOC_CLASSES
) -> list[Annotation]:
    """The annotations of an image set, in its order; no image is read."""
    return [
        read_annotation(annotation_path(devkit, year, image_id), classes)
        for image_id in read_image_set(devkit, year, image_set)
    ]


SIDE_EDGES = tuple(step / 20 for step in range(21))  # square root of the share of the image
ASPECT_EDGES = (0.0, *(2 ** (step / 4) for step in range(-10, 11)), float("inf"))  # width to height, in pixels


def survey(annotations: Sequence[Annotation]) -> dict:
    """What a data set is made of, as counts that can be written to JSON.

    Returns:
        "images"; "objects", "difficult" and "truncated", in all; "classes", objects by class name;
        "per_image", images by their number of objects; "side", objects by side of a square of equal area,
        as a share of the image's, in the bins of `SIDE_EDGES`; "aspect", by width to height in pixels, in
        the bins of `ASPECT_EDGES`.
    """
    boxes = torch.cat([a.boxes for a in annotations]).double()
    pixels = torch.cat([a.boxes_px for a in annotations]).double()
    labels = torch.cat([a.labels for a in annotations])
    size, size_px = boxes[:, 2:] - boxes[:, :2], pixels[:, 2:] - pixels[:, :2]
    per_class = torch.bincount(labels, minlength=len(VOC_CLASSES) + 1)[1:].tolist()
    return {
        "images": len(annotations),
        "objects": len(labels),
        "difficult": int(sum(a.difficult.sum() for a in annotations)),
        "truncated": int(sum(a.truncated.sum() for a in annotations)),
        "classes": dict(zip(VOC_CLASSES, per_class, strict=True)),
        "per_image": np.bincount([len(a.labels) for a in annotations]).tolist(),
        "side": np.histogram(size.prod(dim=1).sqrt(), SIDE_EDGES)[0].tolist(),
        "aspect": np.histogram(size_px[:, 0] / size_px[:, 1], ASPECT_EDGES)[0].tolist(),
    }


def check_tree(
    devkit: str | Path,
    year: str,
    image_set: str,
    classes: Sequence[str] = VOC_CLASSES,
    annotations_only: bool = False,
) -> Iterator[DataError]:
    """Every fault in an image set, found by reading all of it; nothing is raised but for the list."""
    for image_id in read_image_set(devkit, year, image_set):
        problems: list[DataError] = []
        try:
            annotation = read_annotation(annotation_path(devkit, year, image_id), classes, problems)
            if not annotations_only:
                read_image(image_path(devkit, year, image_id), annotation.size)
        except DataError as error:
            problems.append(error)
        yield from problems


class Batch(NamedTuple):
    """Images of one size and their targets, padded to the same number of slots.

    A padded slot has label 0 and an empty box, whose IoU with everything is 0: it is background,
    and needs no mask of its own. There is at least one slot.
    """

    images: UInt8[Tensor, "B 3 S S"]
    boxes: Float[Tensor, "B G 4"]
    labels: Int[Tensor, "B G"]
    difficult: Bool[Tensor, "B G"]
    image_ids: list[str]
    sizes: list[tuple[int, int]]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on a device; the copy need not finish before returning."""
        return self._replace(
            **{
                name: getattr(self, name).to(device, non_blocking=True)
                for name in ("images", "boxes", "labels", "difficult")
            }
        )

    def pin_memory(self) -> "Batch":
        return self._replace(
            **{name: getattr(self, name).pin_memory() for name in ("images", "boxes", "labels", "difficult")}
        )


def collate(samples: Sequence[tuple[UInt8[Tensor, "3 S S"], Target]]) -> Batch:
    """Stack samples into a `Batch`, padding every target to the longest."""
    images, targets = zip(*samples, strict=True)
    slots = max(1, *(len(target.labels) for target in targets))
    boxes = torch.zeros(len(targets), slots, 4)
    labels = torch.zeros(len(targets), slots, dtype=torch.int64)
    difficult = torch.zeros(len(targets), slots, dtype=torch.bool)
    for row, target in enumerate(targets):
        count = len(target.labels)
        boxes[row, :count] = target.boxes
        labels[row, :count] = target.labels
        difficult[row, :count] = target.difficult
    return Batch(
        torch.stack(images), boxes, labels, difficult, [t.image_id for t in targets], [t.size for t in targets]
    )
