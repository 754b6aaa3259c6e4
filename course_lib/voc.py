"""Pascal VOC as a tree: its lists, its annotations and images, and how they become batches.

What one XML file says is read in `annotations`, one picture in `images`; their names are here too.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from course_lib.annotations import VOC_CLASSES as VOC_CLASSES
from course_lib.annotations import Annotation as Annotation
from course_lib.annotations import LeftOut as LeftOut
from course_lib.annotations import advice, foreign_byte
from course_lib.annotations import class_names as class_names
from course_lib.annotations import parse as parse
from course_lib.annotations import read_annotation as read_annotation
from course_lib.annotations import warn_of_unknown as warn_of_unknown
from course_lib.files import DataError
from course_lib.images import ENDINGS, OTHER_ENDINGS, find_image
from course_lib.images import read_image as read_image


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


CLASS_ROW = re.compile(r"(.*\S)\s+(-1|0|1)")
NUMBER_COLUMNS = re.compile(r"(.*?\S)(\s+[-+]?\d+)+")
ONE_ID_A_LINE = "write one image id per line"


def read_image_set(devkit: str | Path, year: str, image_set: str) -> list[str]:
    """The image ids in `ImageSets/Main/<image_set>.txt`, in the file's order.

    A line is an id, which may hold spaces. In one of VOC's class lists, such as `dog_test`, every line has a second
    column as well: 1 for an image with an object of the class, 0 where all of them are difficult, -1 where
    there is none. Images with -1 are left out. Where a line as a whole is the name of an annotation, the list has
    no such column.

    Raises:
        DataError: the list is missing, empty, not UTF-8, or has other columns; an id is no file's name, or has an
            ending that its annotation has not, or stands there twice.
    """
    tree = Path(devkit) / f"VOC{year}"
    path = tree / "ImageSets" / "Main" / f"{image_set}.txt"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            path, "image set", error.strerror, f"is {devkit} the folder that holds VOC{year}? It needs this list"
        ) from None
    lines = enumerate(_text(path, content).splitlines(), start=1)
    rows = {number: line.strip() for number, line in lines if line.strip()}
    if not rows:
        raise DataError(path, "image set", "empty", ONE_ID_A_LINE)
    rows = _of_class(path, rows, tree / "Annotations")
    first: dict[str, int] = {}
    for number, image_id in rows.items():
        _check_id(path, number, image_id, tree / "Annotations")
        if image_id in first:
            raise DataError(path, f"lines {first[image_id]} and {number}", image_id, "take one of the two away")
        first[image_id] = number
    return list(first)


def _text(path: Path, content: bytes) -> str:
    cure = f"save the list as UTF-8, and {ONE_ID_A_LINE}"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise DataError(path, "encoding", "UTF-16 or not text", cure)
    if foreign := foreign_byte(content):
        raise DataError(path, "encoding", foreign, cure)
    return content.decode("utf-8").replace("\ufeff", "")  # byte-order marks, one for each file that was joined


def _is_there(annotations: Path, image_id: str) -> bool:
    try:
        return (annotations / f"{image_id}.xml").is_file()
    except OSError:  # a name too long, a folder that is closed
        return False


def _of_class(path: Path, rows: dict[int, str], annotations: Path) -> dict[int, str]:
    """The ids of a class list without their second column and the rows with -1; any other list as it is."""
    columns = {number: match for number, row in rows.items() if (match := CLASS_ROW.fullmatch(row))}
    if len(columns) < len(rows) or any(_is_there(annotations, row) for row in rows.values()):
        return rows
    for number, match in columns.items():
        if NUMBER_COLUMNS.fullmatch(match[1]) and not _is_there(annotations, match[1]):
            raise DataError(path, f"line {number}", match[0], f"{ONE_ID_A_LINE}: VOC's lists of actions are not read")
    ids = {match[1] for match in columns.values()}
    if len(ids) < len(set(rows.values())):  # "car 1" and "car 0" are two images, not "car" twice
        return rows
    kept = {number: match[1] for number, match in columns.items() if match[2] != "-1"}
    if not kept:
        raise DataError(path, "image set", "-1 in every line", "no image has this class: choose another list")
    return kept


def _check_id(path: Path, number: int, image_id: str, annotations: Path) -> None:
    """Refuse an id that is no annotation's name; cheap where it has no slash, no ending and no spaces."""
    name = re.split(r"[/\\]", image_id)[-1]
    if Path(name).suffix.lower() in (".xml", *ENDINGS, *OTHER_ENDINGS) and not _is_there(annotations, name):
        name = Path(name).stem
    if name in ("", ".", ".."):
        raise DataError(path, f"line {number}", image_id, "write a file's name without folder and ending")
    is_name = Path(image_id).name == image_id
    if name != image_id and not (is_name and _is_there(annotations, image_id)):
        raise DataError(path, f"line {number}", image_id, f"write the name without folder and ending: {name}")
    columns = NUMBER_COLUMNS.fullmatch(image_id)
    if columns and _is_there(annotations, columns[1]) and not _is_there(annotations, image_id):
        cure = f"{ONE_ID_A_LINE}: there is an annotation {columns[1]}.xml, but no {image_id}.xml"
        raise DataError(path, f"line {number}", image_id, cure)


def annotation_path(devkit: str | Path, year: str, image_id: str) -> Path:
    return Path(devkit) / f"VOC{year}" / "Annotations" / f"{image_id}.xml"


def image_path(devkit: str | Path, year: str, image_id: str) -> Path:
    """Where an image lies, whatever its ending: see `images.find_image`, whose errors it raises."""
    return find_image(Path(devkit) / f"VOC{year}" / "JPEGImages", image_id)


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
        self.keep_difficult, self.classes = keep_difficult, class_names(classes)
        self.items = [(y, i) for y, s in _pairs(year, image_set) for i in read_image_set(devkit, y, s)]
        self.warned_of: set[str] = set()

    def __len__(self) -> int:
        return len(self.items)

    def annotation(self, index: int) -> Annotation:
        """What the XML of image `index` says, without reading the image; warns of names not seen before."""
        annotation = read_annotation(annotation_path(self.devkit, *self.items[index]), self.classes)
        if not self.warned_of.issuperset(annotation.unknown):
            self.warned_of.update(annotation.unknown)
            warn_of_unknown([annotation], self.classes)
        return annotation

    def annotations(self) -> list[Annotation]:
        """All annotations, in the order of the images, of which none is read.

        Warns (`LeftOut`) once of each object name that is none of the classes.

        Raises:
            DataError: the first fault in an annotation.
        """
        found = [read_annotation(annotation_path(self.devkit, *item), self.classes) for item in self.items]
        self.warned_of.update(name for annotation in found for name in annotation.unknown)
        warn_of_unknown(found, self.classes)
        return found

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
    """The annotations of an image set, in its order; no image is read.

    Warns (`LeftOut`) once of each object name that is none of the classes.
    """
    classes = class_names(classes)
    ids = read_image_set(devkit, year, image_set)
    found = [read_annotation(annotation_path(devkit, year, image_id), classes) for image_id in ids]
    warn_of_unknown(found, classes)
    return found


SIDE_EDGES = tuple(step / 20 for step in range(21))  # square root of the share of the image
ASPECT_EDGES = (0.0, *(2 ** (step / 4) for step in range(-10, 11)), float("inf"))  # width to height, in pixels


def survey(annotations: Sequence[Annotation], classes: Sequence[str] = VOC_CLASSES) -> dict:
    """What a data set is made of, as counts that can be written to JSON.

    Args:
        annotations: of the images of the set.
        classes: the names that they were read with.

    Returns:
        "images"; "objects", "difficult" and "truncated", in all; "classes", objects by class name;
        "per_image", images by their number of objects; "side", objects by side of a square of equal area,
        as a share of the image's, in the bins of `SIDE_EDGES`; "aspect", by width to height in pixels, in
        the bins of `ASPECT_EDGES`.
    """
    classes = class_names(classes)
    boxes = torch.cat([a.boxes for a in annotations]).double()
    pixels = torch.cat([a.boxes_px for a in annotations]).double()
    labels = torch.cat([a.labels for a in annotations])
    size, size_px = boxes[:, 2:] - boxes[:, :2], pixels[:, 2:] - pixels[:, :2]
    per_class = torch.bincount(labels, minlength=len(classes) + 1)[1:].tolist()
    return {
        "images": len(annotations),
        "objects": len(labels),
        "difficult": int(sum(a.difficult.sum() for a in annotations)),
        "truncated": int(sum(a.truncated.sum() for a in annotations)),
        "classes": dict(zip(classes, per_class, strict=True)),
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
    """Every fault in an image set, found by reading all of it; nothing is raised but for the list and `classes`.

    Args:
        classes: all names that an object of this tree may have, also those that you do not want to learn: any other
            is a fault, since its objects would be left out. Some of `VOC_CLASSES` are a choice among VOC's names,
            so there all of VOC's names are good. For a choice from a tree of your own, check it
            with all of its names, and give the few to `VOCDetection`.
        annotations_only: look for no image.
    """
    classes = class_names(classes)
    known = VOC_CLASSES if set(classes) <= set(VOC_CLASSES) else classes
    for image_id in read_image_set(devkit, year, image_set):
        problems: list[DataError] = []
        path = annotation_path(devkit, year, image_id)
        try:
            annotation = read_annotation(path, known, problems)
            problems += [
                DataError(path, "object/name", name, advice(name, known)) for name in dict.fromkeys(annotation.unknown)
            ]
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
