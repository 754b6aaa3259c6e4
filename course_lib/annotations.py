"""Annotations: what a VOC XML file says of one image, and which names count.

The XML counts pixels from 1 and its corners belong to the box. In memory a box is 0-based and
half open, `(xmin - 1, ymin - 1, xmax, ymax)`, so its width is `xmax - xmin` with no "+ 1".

Some programs write other numbers into the same XML. The file `corners.txt` beside the annotations of a tree says
which: see `READINGS`. Without it they are VOC's.
"""

import difflib
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isfinite
from pathlib import Path
from typing import NamedTuple
from xml.parsers.expat import errors as expat

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.files import DataError, as_stored
from course_lib.images import namesakes

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class LeftOut(UserWarning):
    """Objects are left out, because their name is none of the classes."""


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes as a tuple; the label of `classes[i]` is `i + 1`.

    Raises:
        ValueError: a single string, which would be as many classes as it has letters; a name that is no string,
            is empty, has space around it (an annotation's names have none) or occurs twice.
    """
    if isinstance(classes, str):
        raise ValueError(f'classes is {classes!r}, a single name: write ("{classes}",)')
    for index, name in enumerate(classes):
        if not isinstance(name, str):
            raise ValueError(f"classes[{index}] is {name!r}: write the name as a string")
    return _sound_names(tuple(classes))


@lru_cache  # each annotation asks
def _sound_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    names: dict[str, int] = {}
    for index, name in enumerate(classes):
        if not name or name != name.strip():
            raise ValueError(f"classes[{index}] is {name!r}: write a name, without space around it")
        if name in names:
            raise ValueError(f"classes[{index}] is {name!r}, as classes[{names[name]}] is: take one away")
        names[name] = index
    return tuple(names)


def usual_names(count: int) -> tuple[str, ...]:
    """What classes are called that nobody has named: as VOC's where there are twenty, else "class 1", "class 2" ..."""
    return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {label}" for label in range(1, count + 1))


def known_names(classes: Sequence[str]) -> tuple[str, ...]:
    """All names that may stand in a tree of which `classes` are wanted: all of VOC's, where they are some of those."""
    return VOC_CLASSES if set(classes) <= set(VOC_CLASSES) else tuple(classes)


def nearest(name: str, classes: Sequence[str]) -> str | None:
    """The class that a name most likely means: "diningtable" for "Dining table", "dog" for "dgo"."""

    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, text.casefold()))

    known = {letters(one): one for one in reversed(classes)}
    close = difflib.get_close_matches(letters(name), known, n=1)
    return known[close[0]] if close else None


def advice(name: str, classes: Sequence[str]) -> str:
    """What to do about an object's name that is none of the classes."""
    meant = nearest(name, classes)
    return f"did you mean {meant!r}?" if meant else "correct it, or add it to `classes`"


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


def warn_of_unknown(annotations: Sequence[Annotation], classes: Sequence[str]) -> None:
    """Warn (`LeftOut`) once of each name that is none of the classes: how many objects, where first, what was meant."""
    found: dict[str, list[Path]] = {}
    for annotation in annotations:
        for name in annotation.unknown:
            found.setdefault(name, []).append(annotation.path)
    for name, paths in found.items():
        objects = "1 object is" if len(paths) == 1 else f"{len(paths)} objects are"
        message = f"{paths[0]}: name is {name!r}, none of `classes`: {objects} left out, in {len(set(paths))} of "
        warnings.warn(LeftOut(f"{message}{len(annotations)} files: {advice(name, classes)}"), stacklevel=3)


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type before any entity in it is expanded."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("it declares a document type")


SAVE_AS_UTF8 = 'save the file as UTF-8, and let its first line say encoding="UTF-8"'
NOT_AS_DECLARED = (expat.codes[expat.XML_ERROR_INCORRECT_ENCODING], expat.codes[expat.XML_ERROR_UNKNOWN_ENCODING])
FOREIGN_BYTE = (expat.codes[expat.XML_ERROR_INVALID_TOKEN], expat.codes[expat.XML_ERROR_PARTIAL_CHAR])


def foreign_byte(content: bytes) -> str | None:
    """Where the first byte stands that UTF-8 does not have there; None where all of it is UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"not UTF-8: line {line} has the byte 0x{content[error.start]:02x}"
    return None


def _encoding_fault(content: bytes, error: Exception) -> str | None:
    """What is wrong with a file's encoding, where that is why it could not be parsed."""
    text = content.replace(b"\0", b"")  # UTF-16 and UTF-32 become legible enough
    declared = re.search(rb"""<\?xml[^>]*?encoding\s*=\s*["']([^"']*)""", text[:200])
    name = declared[1].decode("ascii", "replace") if declared else None
    code = getattr(error, "code", None)
    if not isinstance(error, ElementTree.ParseError):
        return f"{name}, which the parser does not know"
    if code in NOT_AS_DECLARED:
        return f"{name}, as its first line says, but its bytes are of another"
    if code not in FOREIGN_BYTE or b"<annotation" not in text:
        return None
    if foreign := foreign_byte(content):
        return foreign
    return f"{name}, which the parser does not know" if name and name.lower() != "utf-8" else None


def parse(path: str | Path) -> ElementTree.Element:
    """The root element of a VOC annotation; a document type is refused before any entity in it is expanded.

    Raises:
        DataError: the file is missing, empty, not XML, in another encoding than it says, or has another root.
    """
    path = Path(path)
    restore = "restore the annotation or take it off the list"
    try:
        content = as_stored(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(path, "file", error.strerror, _renamed(path) or restore) from None
    except OSError as error:
        raise DataError(path, "file", error.strerror, restore) from None
    if not content.strip(b"\0\t\r\n "):
        raise DataError(path, "XML", "an empty file, no element in it", restore)
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(content)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if encoding := _encoding_fault(content, error):
            raise DataError(path, "encoding", encoding, SAVE_AS_UTF8) from None
        raise DataError(path, "XML", str(error), "restore the file: VOC annotations are plain XML") from None
    if root.tag != "annotation":
        raise DataError(path, "root element", root.tag, "a VOC annotation's root is <annotation>")
    return root


def _renamed(path: Path) -> str | None:
    try:
        others = [other.name for other in namesakes(path) if other.name.casefold() == path.name.casefold()]
    except OSError:
        return None
    return f"{others[0]} lies there: upper and lower case count, so call it {path.name}" if others else None


def _name(path: Path, field: str, item: ElementTree.Element) -> str:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise DataError(path, f"{field}/name", name, "write the object's class there")
    return name


def object_names(path: str | Path) -> list[str]:
    """The names of the objects in an annotation, one for each object, whatever else is wrong with it.

    Raises:
        DataError: the file is missing or not XML, or an object has no name.
    """
    path = Path(path)
    items = parse(path).findall("object")
    return [_name(path, f"object[{index}]", item) for index, item in enumerate(items)]


def _number(path: Path, field: str, parent: ElementTree.Element | None, tag: str) -> float:
    text = None if parent is None else parent.findtext(tag)
    try:
        number = float(text)  # type: ignore[arg-type]
        if not isfinite(number):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(path, f"{field}/{tag}", text, "write a number there") from None
    return number


def _flag(path: Path, field: str, item: ElementTree.Element, tag: str) -> bool:
    text = (item.findtext(tag) or "0").strip()
    if text not in ("0", "1"):
        raise DataError(path, f"{field}/{tag}", text, "write 0 or 1")
    return text == "1"


CORNERS = "corners.txt"
PIXELS_FROM_1, PIXELS_FROM_0, EDGES = "pixels from 1", "pixels from 0", "edges"
# What the corners in a tree's XML are, by what its `corners.txt` says, and what makes VOC's corners of them.
READINGS = {
    PIXELS_FROM_1: (0, 0, 0, 0),  # VOC's: the first and the last pixel of the box
    PIXELS_FROM_0: (1, 1, 1, 1),
    EDGES: (1, 1, 0, 0),  # the image's left edge is 0 and its right edge is its width, as in COCO and YOLO
}
ROUNDING = 0.5  # pixels, less than which rounding may have done: a box that leaves its image by less is clipped
FROM_0 = "VOC counts pixels from 1, this box from 0"


def reading_in(folder: str | Path) -> str:
    """What the corners of the annotations in a folder are: one of `READINGS`, by the file `corners.txt` in it.

    Raises:
        DataError: that file cannot be read, or says something else.
    """
    path = Path(folder, CORNERS)
    try:
        said = path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return PIXELS_FROM_1
    except OSError as error:
        raise DataError(
            path, "file", error.strerror, "make it readable, or remove it where the corners are VOC's"
        ) from None
    if said not in READINGS:
        raise DataError(path, "corners", said, f"write one of these: {', '.join(READINGS)}")
    return said


def _corners(path: Path, field: str, item: ElementTree.Element) -> tuple[float, ...]:
    """The object's own corners, as written; a `<part>` has a box of its own, one level deeper."""
    child = item.find("bndbox")
    return tuple(_number(path, field, child, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))


def _box(path: Path, field: str, item: ElementTree.Element, size: tuple[int, int], reading: str) -> tuple[float, ...]:
    """The object's corners as VOC counts them, in the image.

    They are in order, `xmin <= xmax`, whole numbers or not: from a pixel to the same pixel a box is one pixel wide.
    From an edge to the same edge it has no width; half a pixel is the least that is taken for one.
    """
    field = f"{field}/bndbox"
    written = _corners(path, field, item)
    if written[2] < written[0] or written[3] < written[1]:
        raise DataError(path, field, written, "the corners are reversed: swap min and max")
    xmin, ymin, xmax, ymax = (corner + more for corner, more in zip(written, READINGS[reading], strict=True))
    beyond = max(1 - xmin, 1 - ymin, xmax - size[0], ymax - size[1])
    if beyond >= ROUNDING or min(written) < 1 >= max(written):
        raise DataError(path, field, written, _way_into(size, written, reading))
    if min(xmax - xmin, ymax - ymin) + 1 < ROUNDING:
        raise DataError(path, field, written, "the box has no area: draw it again or remove the object")
    return max(xmin, 1), max(ymin, 1), min(xmax, size[0]), min(ymax, size[1])


def _way_into(size: tuple[int, int], written: tuple[float, ...], reading: str) -> str:
    """What to do with a box that leaves its image: what its numbers mean to someone else, or clip it."""
    (width, height), (xmin, ymin, xmax, ymax) = size, written
    lowest, highest = min(xmin, ymin), max(xmax, ymax)
    if highest <= 1 and lowest > -1:
        return f"these are fractions: multiply x by {width} and y by {height}" + (
            ", then add 1 to xmin and ymin" if reading == PIXELS_FROM_1 else ""
        )
    if reading == PIXELS_FROM_1 and lowest > -ROUNDING and xmax < width + ROUNDING and ymax < height + ROUNDING:
        both = "" if xmax >= width or ymax >= height else ", or to all four if it holds xmax"
        return f"{FROM_0}: add 1 to xmin and ymin{both}"
    if lowest >= 0 and xmax <= height and ymax <= width:
        return f"it fits where x and y are exchanged: exchange them, or width {width} and height {height} in <size>"
    first, last = 1 - READINGS[reading][0], -READINGS[reading][2]
    image = f"the image, whose {reading.split()[0]} are {first}..{width + last} by {first}..{height + last}"
    if xmin > width or ymin > height or xmax < first or ymax < first:
        return f"the box lies beside {image}: draw it again or remove the object"
    return f"the box leaves {image}: clip it"


LARGEST = 2**24  # as far as float32 counts pixels one by one


def _size(path: Path, root: ElementTree.Element) -> tuple[int, int]:
    size = []
    for tag in ("width", "height"):
        number = _number(path, "size", root.find("size"), tag)
        if not 1 <= number <= LARGEST or number != int(number):
            raise DataError(path, f"size/{tag}", number, "write the image's size in pixels")
        size.append(int(number))
    return size[0], size[1]


class Written(NamedTuple):
    """The corners of an annotation's boxes as they are written, and the size of its image."""

    size: tuple[int, int]
    boxes: list[tuple[float, ...]]


def written_corners(path: str | Path) -> Written:
    """The corners in an annotation as they stand there; objects without four numbers are left out.

    Raises:
        DataError: the file is missing or not XML, or has no usable size.
    """
    path = Path(path)
    root, boxes = parse(path), []
    for item in root.findall("object"):
        with suppress(DataError):
            boxes.append(_corners(path, "object/bndbox", item))
    return Written(_size(path, root), boxes)


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
        ValueError: `classes` are no names: see `class_names`.
        DataError: the file is missing or not XML, or has no usable size (always);
            a field is missing, not a number, reversed, without area or outside (see `problems`).
    """
    path = Path(path)
    root, classes = parse(path), class_names(classes)
    size, reading = _size(path, root), reading_in(path.parent)
    boxes, labels, difficult, truncated, unknown = [], [], [], [], []
    for index, item in enumerate(root.findall("object")):
        field = f"object[{index}]"
        try:
            name = _name(path, field, item)
            if name not in classes:
                unknown.append(name)
                continue
            flags = _flag(path, field, item, "difficult"), _flag(path, field, item, "truncated")
            box = _box(path, field, item, size, reading)
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
