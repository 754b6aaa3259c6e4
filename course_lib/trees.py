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

from course_lib.annotations import advice, known_names, object_names, read_annotation
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
    console = Console(stderr=True)
    for image_id in track(found.ids, f"Checking {found.tree.name}", console=console, disable=not show_progress):
        yield from faults_of(found.tree, image_id, found.known, annotations_only)


def faults_of(tree: Path, image_id: str, known: tuple[str, ...], annotations_only: bool = False) -> list[DataError]:
    """Every fault in the annotation of an image, and what is wrong with the image."""
    problems: list[DataError] = []
    path = xml_in(tree, image_id)
    try:
        annotation = read_annotation(path, known, problems)
        problems += [
            DataError(path, "object/name", name, advice(name, known)) for name in dict.fromkeys(annotation.unknown)
        ]
        if not annotations_only:
            read_image(image_in(tree, image_id), annotation.size)
    except DataError as error:
        problems.append(error)
    return problems


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
    for one, image_id in track(items, "Reading annotations", console=console, disable=not show_progress):
        yield from faults_in_training(one, image_id, most_objects)


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
