"""A tree as a whole: which lists and names it has, and every fault in it."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import track

from course_lib.annotations import (
    CORNERS,
    EDGES,
    FROM_0,
    PIXELS_FROM_0,
    PIXELS_FROM_1,
    ROUNDING,
    Annotation,
    advice,
    known_names,
    object_names,
    read_annotation,
    reading_in,
    written_corners,
)
from course_lib.files import DataError
from course_lib.images import check_header, read_image
from course_lib.voc import NOWHERE, ImageSet, image_in, xml_in

PARTS = ("Annotations", "JPEGImages", "ImageSets")
LISTS = Path("ImageSets", "Main")


@dataclass(frozen=True)
class Overview:
    """What the lists and annotations of a tree name.

    Attributes:
        ids: every image of the lists, sorted; where a list cannot be used, of every annotation in the tree too.
        objects: how many objects have each name.
        known: the names that an object may have.
        faults: in the lists.
    """

    tree: Path
    ids: tuple[str, ...]
    objects: Counter[str]
    known: tuple[str, ...]
    faults: tuple[DataError, ...]


def require_tree(folder: str | Path) -> Path:
    """The folder, if it is a tree or what is left of one.

    Raises:
        DataError: it is a devkit, a folder in a tree, or something else; the error says which folder to give.
    """
    folder = Path(folder)
    if is_tree(folder):
        return folder
    if not folder.is_dir():
        raise DataError(folder, "tree", "no folder", f"give the folder that holds {', '.join(PARTS)}")
    inside = sorted(path for path in folder.iterdir() if is_tree(path))
    if inside:
        raise DataError(folder, "tree", "a folder of trees", f"give one of them: {' or '.join(map(str, inside))}")
    above = [path for path in folder.resolve().parents[:2] if is_tree(path)]
    if above:
        raise DataError(folder, "tree", "a folder in a tree", f"give the tree: {above[0]}")
    raise DataError(folder, "tree", f"without {', '.join(PARTS)}", "give the folder that holds them")


def is_tree(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in PARTS)


def list_names(tree: str | Path) -> tuple[str, ...]:
    """The names of the lists of a tree, sorted."""
    return tuple(sorted(path.stem for path in (Path(tree) / LISTS).glob("*.txt")))


def overview(where: ImageSet | str | Path, on: str | None = None) -> Overview:
    """Look over a tree, or one image set of it: its lists, and the names in its annotations.

    Args:
        where: an image set, whose `classes` are all names that an object of the tree may have; some of VOC's names
            are a choice among them, so there all of VOC's are good. Or the folder of a tree, whose names are
            found in its annotations; a name that is another but for capitals, spaces and hyphens is that one.
        on: the only list to look at, where `where` is a folder; None for all that there are.

    Raises:
        DataError: the folder is no tree: see `require_tree`.
    """
    if isinstance(where, ImageSet):
        tree, sets = where.tree, [where]
    else:
        tree = require_tree(where)
        sets = [ImageSet(tree, name) for name in ((on,) if on else list_names(tree))]
    ids, faults = ids_of(sets)
    if not sets:
        cure = "write lists there to train and to measure on, such as train.txt and val.txt: one image id per line"
        faults = [DataError(tree / LISTS, "lists", "missing", cure)]
    if faults:  # what the list would name is to be looked at all the same
        ids |= {path.stem for path in (tree / "Annotations").glob("*.xml")}
    objects = count_names(tree, ids)
    known = known_names(where.classes) if isinstance(where, ImageSet) else one_spelling(objects)
    return Overview(tree, tuple(sorted(ids)), objects, known, tuple(faults))


def ids_of(sets: Sequence[ImageSet]) -> tuple[set[str], list[DataError]]:
    """Every image in some lists, and the faults of those lists that cannot be used."""
    ids: set[str] = set()
    faults = []
    for one in sets:
        try:
            ids.update(one.ids)
        except DataError as error:
            if error.value != NOWHERE or len(sets) == 1:  # that a class is not in every set is no fault
                faults.append(error)
    return ids, faults


def count_names(tree: Path, ids: Iterable[str]) -> Counter[str]:
    """How many objects have each name; what cannot be read is left out, and is `check_tree`'s to tell."""
    objects: Counter[str] = Counter()
    for image_id in ids:
        try:
            objects.update(object_names(xml_in(tree, image_id)))
        except DataError:
            continue
    return objects


def one_spelling(objects: Counter[str]) -> tuple[str, ...]:
    """The names without those that differ from a commoner one in capitals, spaces, underscores and hyphens alone."""
    spellings: dict[str, str] = {}
    for name, _ in sorted(objects.items(), key=lambda item: (-item[1], item[0])):
        spellings.setdefault(spelling(name), name)
    return tuple(sorted(spellings.values()))


def spelling(name: str) -> str:
    """A name without what two spellings of it differ in: capitals, and spaces, underscores and hyphens for another."""
    return re.sub(r"[\s_-]+", " ", name.casefold())


def check_tree(
    where: ImageSet | str | Path | Overview, annotations_only: bool = False, show_progress: bool = False
) -> Iterator[DataError]:
    """Every fault in a tree with all of its lists, or in one image set, found by reading all of it.

    Args:
        where: see `overview`, or what it gave.
        annotations_only: look for no image.
        show_progress: on stderr.

    Raises:
        DataError: the folder is no tree; every other fault is given, not raised.
    """
    found = where if isinstance(where, Overview) else overview(where)
    yield from found.faults
    images = found.tree / "JPEGImages"
    if not annotations_only and not images.is_dir():
        yield DataError(images, "folder", "missing", "restore the images there, or look at the annotations alone")
        annotations_only = True
    ids = track(found.ids, f"Checking {found.tree.name}", console=Console(stderr=True), disable=not show_progress)
    yield from by_tree(
        fault for image_id in ids for fault in faults_of(found.tree, image_id, found.known, annotations_only)
    )


def faults_of(tree: Path, image_id: str, known: tuple[str, ...], annotations_only: bool = False) -> list[DataError]:
    """Every fault in the annotation of an image, and what is wrong with the image."""
    problems: list[DataError] = []
    path = xml_in(tree, image_id)
    try:
        annotation = read_annotation(path, known, problems)
        problems += [
            DataError(path, "object/name", name, advice(name, known)) for name in dict.fromkeys(annotation.unknown)
        ]
        problems += listed_twice(annotation, known)
        if not annotations_only:
            read_image(image_in(tree, image_id), annotation.size)
    except DataError as error:
        problems.append(error)
    return problems


def listed_twice(annotation: Annotation, classes: Sequence[str]) -> Iterator[DataError]:
    """A fault for each object that an annotation has more than once: the same class and the same corners."""
    objects = zip(annotation.labels.tolist(), map(tuple, annotation.boxes_px.tolist()), strict=True)
    for (label, box), count in Counter(objects).items():
        if count > 1:
            value = f"{count} times {classes[label - 1]}, {box} from edge to edge"
            yield DataError(annotation.path, "objects", value, "an object is listed once: take the others away")


def by_tree(faults: Iterable[DataError]) -> Iterator[DataError]:
    """Faults in their order, but for a tree that counts pixels from 0 one in the place of all boxes with a 0."""
    readings: dict[Path, str] = {}
    for fault in faults:
        folder = fault.path.parent
        if not fault.cure.startswith(FROM_0):
            yield fault
        elif folder not in readings:
            readings[folder] = recognised(folder)
            yield fault if readings[folder] == reading_in(folder) else other_corners(fault, readings[folder])
        elif readings[folder] == reading_in(folder):
            yield fault


def other_corners(fault: DataError, reading: str) -> DataError:
    """What to do about a tree whose corners seem to be others than VOC's, instead of the first of its faults."""
    folder, ends = fault.path.parent, "equal to" if reading == PIXELS_FROM_0 else "beyond"
    value = f"0 in {fault.path.name} and others, and none is {ends} its image's size"
    cure = f"they seem to be {reading!r}, and VOC's are {PIXELS_FROM_1!r}: if so, write the line {reading} into "
    return DataError(folder, "corners", value, f"{cure}{folder / CORNERS}, and all of them are read so")


def recognised(annotations: str | Path) -> str:
    """What the corners in a folder of annotations seem to be, one of `READINGS`, by all of them together.

    VOC's, where no corner is 0, or where more are 1: then a 0 is a slip. Else pixels counted from 0, where no corner is
    equal to its image's size and all are whole numbers. Else edges.
    """
    zeros = ones = ends = 0
    whole = True
    for path in Path(annotations).glob("[!.]*.xml"):
        try:
            size, boxes = written_corners(path)
        except DataError:
            continue
        for xmin, ymin, xmax, ymax in boxes:
            inside = min(xmin, ymin) > -ROUNDING and xmax < size[0] + ROUNDING and ymax < size[1] + ROUNDING
            if inside and max(xmax, ymax) > 1:
                whole &= all(map(float.is_integer, (xmin, ymin, xmax, ymax)))
                zeros += (xmin < 1) + (ymin < 1)
                ones += (xmin == 1) + (ymin == 1)
                ends += (xmax >= size[0]) + (ymax >= size[1])
    if zeros < max(ones, 1):
        return PIXELS_FROM_1
    return PIXELS_FROM_0 if whole and not ends else EDGES


def check_sets(
    sets: Sequence[ImageSet], most_objects: int | None = None, show_progress: bool = False
) -> Iterator[DataError]:
    """Every fault in some image sets that would end a training, found by annotations and images' headers alone.

    What none of the sets' `classes` names is no fault here: it is left out, with a warning where it is read.

    Args:
        most_objects: in one image: see `crowds.most_objects`; None for any number.
        show_progress: on stderr.
    """
    listed: dict[ImageSet, tuple[str, ...]] = {}
    for one in sets:
        try:
            listed[one] = one.ids
        except DataError as error:
            yield error
    items = [(one, image_id) for one, ids in listed.items() for image_id in ids]
    console = Console(stderr=True)
    items = track(items, "Reading annotations", console=console, disable=not show_progress)
    yield from by_tree(fault for one, image_id in items for fault in faults_in_training(one, image_id, most_objects))


def faults_in_training(where: ImageSet, image_id: str, most_objects: int | None) -> list[DataError]:
    """What of an image and its annotation cannot be trained on."""
    problems: list[DataError] = []
    path = xml_in(where.tree, image_id)
    try:
        annotation = read_annotation(path, where.classes, problems)
        check_header(image_in(where.tree, image_id), annotation.size)
    except DataError as error:
        return [*problems, error]
    if most_objects is not None and len(annotation.labels) > most_objects:
        cure = f"cut the picture into some with at most {most_objects} objects each: all of them are matched at once"
        problems.append(DataError(path, "objects", len(annotation.labels), cure))
    return problems


def shared_images(some: Sequence[ImageSet], others: Sequence[ImageSet]) -> Iterator[DataError]:
    """A fault for each two lists of one tree that have images in common, where they should have none."""
    for one, other in product(some, others):
        if one.tree.resolve() == other.tree.resolve() and (shared := sorted({*one.ids} & {*other.ids})):
            number = "1 image" if len(shared) == 1 else f"{len(shared)} images"
            value = f"{number} that {other.name}.txt has too ({textwrap.shorten(', '.join(shared), 60)})"
            cure = "a detector is not chosen by images that it learns from: take them off one of the two lists"
            yield DataError(one.tree / LISTS / f"{one.name}.txt", "lines", value, cure)
