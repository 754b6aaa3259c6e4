"""Pascal VOC as a tree: its lists, and the annotations and images that they name.

What one XML file says is read in `annotations`, one picture in `images`, and `batches` puts several together; their
names are here too.
"""

import codecs
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import Dataset

from course_lib.annotations import VOC_CLASSES as VOC_CLASSES
from course_lib.annotations import Annotation as Annotation
from course_lib.annotations import LeftOut as LeftOut
from course_lib.annotations import class_names as class_names
from course_lib.annotations import foreign_byte, object_names
from course_lib.annotations import parse as parse
from course_lib.annotations import read_annotation as read_annotation
from course_lib.annotations import warn_of_unknown as warn_of_unknown
from course_lib.batches import Batch as Batch
from course_lib.batches import Target as Target
from course_lib.batches import collate as collate
from course_lib.files import DataError, as_stored
from course_lib.images import ENDINGS, OTHER_ENDINGS, find_image
from course_lib.images import read_image as read_image

CLASS_ROW = re.compile(r"(.*\S)\s+(-1|0|1)")
NUMBER_COLUMNS = re.compile(r"(.*?\S)(\s+[-+]?\d+)+")
ONE_ID_A_LINE = "write one image id per line"
NOWHERE = "-1 in every line"  # of a class list


def _read_list(tree: Path, name: str) -> tuple[str, ...]:
    """The ids of one list: see `ImageSet.ids`."""
    path = tree / "ImageSets" / "Main" / f"{name}.txt"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, "image set", error.strerror, _where_lists_lie(tree)) from None
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
    return tuple(first)


def _where_lists_lie(tree: Path) -> str:
    if re.fullmatch(r"VOC\d{4}", tree.name):
        return f"is {tree.parent} the folder that holds {tree.name}? It needs this list"
    return f"is {tree} the folder that holds Annotations, JPEGImages and ImageSets? It needs this list"


def _text(path: Path, content: bytes) -> str:
    cure = f"save the list as UTF-8, and {ONE_ID_A_LINE}"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise DataError(path, "encoding", "UTF-16 or not text", cure)
    if foreign := foreign_byte(content):
        raise DataError(path, "encoding", foreign, cure)
    return content.decode("utf-8").replace("\ufeff", "")  # byte-order marks, one for each file that was joined


def _is_there(annotations: Path, image_id: str) -> bool:
    try:
        return as_stored(annotations / f"{image_id}.xml").is_file()
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
        raise DataError(path, "image set", NOWHERE, "no image has this class: choose another list")
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


def xml_in(tree: str | Path, image_id: str) -> Path:
    """Where the annotation of an image lies."""
    return Path(tree, "Annotations", f"{image_id}.xml")


def image_in(tree: str | Path, image_id: str) -> Path:
    """Where an image lies, whatever its ending: see `images.find_image`, whose errors it raises."""
    return find_image(Path(tree) / "JPEGImages", image_id)


@dataclass(frozen=True, init=False)
class ImageSet:
    """A list of a tree, and the names of the classes that its objects are looked at for.

    An image's identity is its tree and its id: several trees may have an image `000001`.

    Args:
        tree: the folder that holds `Annotations/`, `JPEGImages/` and `ImageSets/Main/`; `devkit/VOC2007` is one.
        name: of the list: "train" for `ImageSets/Main/train.txt`.
        classes: the class names; the label of `classes[i]` is `i + 1`.

    Raises:
        ValueError: `classes` are no names: see `class_names`.
    """

    tree: Path
    name: str
    classes: tuple[str, ...]

    def __init__(self, tree: str | Path, name: str, classes: Sequence[str] = VOC_CLASSES) -> None:
        for field, value in (("tree", Path(tree)), ("name", name), ("classes", class_names(classes))):
            object.__setattr__(self, field, value)  # it is frozen

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The image ids in the list, in its order; the file is read once.

        A line is an id, which may hold spaces. In one of VOC's class lists, such as `dog_test`, every line has a second
        column as well: 1 for an image with an object of the class, 0 where all of them are difficult, -1 where
        there is none. Images with -1 are left out. Where a line as a whole is the name of an annotation, the list has
        no such column.

        Raises:
            DataError: the list is missing, empty, not UTF-8, or has other columns; an id is no file's name, or has an
                ending that its annotation has not, or stands there twice.
        """
        return _read_list(self.tree, self.name)

    def __len__(self) -> int:
        return len(self.ids)

    def annotation(self, index: int) -> Annotation:
        """What the XML of image `index` says; the image is not read.

        Raises:
            DataError: the annotation is missing or has a fault.
        """
        return read_annotation(xml_in(self.tree, self.ids[index]), self.classes)

    def annotations(self) -> list[Annotation]:
        """All annotations, in the order of the list.

        Warns (`LeftOut`) once of each object name that is none of the classes.

        Raises:
            DataError: the list cannot be used, or the first fault in an annotation.
        """
        found = [self.annotation(index) for index in range(len(self))]
        warn_of_unknown(found, self.classes)
        return found

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index`, RGB, upright as its annotation sees it.

        Raises:
            DataError: the image or its annotation is missing or broken, or they are of different size.
        """
        return read_image(image_in(self.tree, self.ids[index]), self.annotation(index).size)


def image_sets(
    devkit: str | Path,
    year: str | Sequence[str],
    image_set: str | Sequence[str],
    classes: Sequence[str] = VOC_CLASSES,
) -> tuple[ImageSet, ...]:
    """Image sets of a devkit by year and name: one pair, one name in several years, several names, or pair by pair.

    Raises:
        ValueError: there are several years and several names, and not as many of each; or see `ImageSet`.
    """
    years = [year] if isinstance(year, str) else list(year)
    names = [image_set] if isinstance(image_set, str) else list(image_set)
    length = max(len(years), len(names))
    years, names = (items * length if len(items) == 1 else items for items in (years, names))
    pairs = zip(years, names, strict=True)
    return tuple(ImageSet(Path(devkit) / f"VOC{year}", name, classes) for year, name in pairs)


def common_classes(sets: Sequence[ImageSet]) -> tuple[str, ...]:
    """The class names that all image sets have.

    Raises:
        ValueError: there is no set, or two have other names, or the same in another order.
    """
    if not sets:
        raise ValueError("there is no image set: give one or more")
    first = sets[0]
    for other in sets:
        if other.classes != first.classes:
            raise ValueError(
                f"{first.tree}, {first.name} has the classes {first.classes}, and {other.tree}, {other.name} has "
                f"{other.classes}: a label must mean the same in both: give them the same `classes`, in the same order"
            )
    return first.classes


def find_classes(tree: str | Path, name: str) -> tuple[str, ...]:
    """The names of all objects in an image set, sorted.

    Raises:
        DataError: the list cannot be used, an annotation is missing or broken, or an object has no name.
    """
    names: set[str] = set()
    for image_id in ImageSet(tree, name).ids:
        names.update(object_names(xml_in(tree, image_id)))
    return tuple(sorted(names))


def read_image_set(devkit: str | Path, year: str, image_set: str) -> list[str]:
    """The image ids in `VOC<year>/ImageSets/Main/<image_set>.txt`: see `ImageSet.ids`, whose errors it raises."""
    return list(ImageSet(Path(devkit) / f"VOC{year}", image_set).ids)


def annotation_path(devkit: str | Path, year: str, image_id: str) -> Path:
    return xml_in(Path(devkit) / f"VOC{year}", image_id)


def image_path(devkit: str | Path, year: str, image_id: str) -> Path:
    """Where an image lies, whatever its ending: see `images.find_image`, whose errors it raises."""
    return image_in(Path(devkit) / f"VOC{year}", image_id)


class ImageDataset(Dataset):
    """Images and targets of image sets, one set after the other.

    Args:
        sets: the image sets, with the same classes.
        transform: called with image and target; gives what `dataset[i]` gives.
        keep_difficult: False leaves difficult objects out of the targets.

    Attributes:
        classes: of all sets.
        items: tree and id of each image, which together are its identity.

    Raises:
        ValueError: the sets have not the same classes.
        DataError: a list cannot be used: see `ImageSet.ids`.
    """

    def __init__(
        self, sets: Sequence[ImageSet], transform: Callable | None = None, keep_difficult: bool = True
    ) -> None:
        self.sets, self.classes = tuple(sets), common_classes(sets)
        self.transform, self.keep_difficult = transform, keep_difficult
        self.items = [(image_set.tree, image_id) for image_set in self.sets for image_id in image_set.ids]
        self.warned_of: set[str] = set()

    def __len__(self) -> int:
        return len(self.items)

    def annotation(self, index: int) -> Annotation:
        """What the XML of image `index` says, without reading the image; warns of names not seen before."""
        annotation = read_annotation(xml_in(*self.items[index]), self.classes)
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
        found = [read_annotation(xml_in(*item), self.classes) for item in self.items]
        self.warned_of.update(name for annotation in found for name in annotation.unknown)
        warn_of_unknown(found, self.classes)
        return found

    def load(self, index: int) -> tuple[UInt8[np.ndarray, "H W 3"], Target]:
        """Image `index`, RGB, and its target, before any transform."""
        annotation = self.annotation(index)
        image = read_image(image_in(*self.items[index]), annotation.size)
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


def require_objects(dataset: ImageDataset) -> None:
    """Refuse a data set that shows nothing, from which a detector would learn to find nothing at a loss of 0.

    Annotations are read up to the first with an object that counts. Nothing is said of what is left out: that is for
    who reads them all.

    Raises:
        DataError: there is none; where objects have other names, the error gives them.
    """
    names: set[str] = set()
    for item in dataset.items:
        annotation = read_annotation(xml_in(*item), dataset.classes)
        if (dataset.keep_difficult | ~annotation.difficult).any():
            return
        names.update(annotation.unknown)
    one, found = dataset.sets[0], textwrap.shorten(", ".join(sorted(names)), 80)
    cure = f"its objects are called {found}: give these names as `classes`" if names else "annotate what is to be found"
    path = one.tree / "ImageSets" / "Main" / f"{one.name}.txt"
    raise DataError(path, "objects", f"none of the {len(dataset.classes)} classes in {len(dataset)} images", cure)


class VOCDetection(ImageDataset):
    """Images and targets of a devkit: one image set, or several years and sets one after the other.

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
        super().__init__(image_sets(devkit, year, image_set, classes), transform, keep_difficult)
        self.devkit = Path(devkit)


def read_annotations(
    devkit: str | Path, year: str, image_set: str, classes: Sequence[str] = VOC_CLASSES
) -> list[Annotation]:
    """The annotations of an image set, in its order; no image is read.

    Warns (`LeftOut`) once of each object name that is none of the classes.
    """
    return ImageSet(Path(devkit) / f"VOC{year}", image_set, classes).annotations()


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
