"""The lists of a tree: which classes each of them shows, and new lists for a tree that has none."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from rich.console import Console
from rich.progress import track

from course_lib.annotations import object_names, read_annotation
from course_lib.copies import ALIKE, Fingerprint, copies, fingerprint
from course_lib.files import DataError, write_whole
from course_lib.images import ENDINGS, check_header
from course_lib.trees import LISTS, by_tree, spelling
from course_lib.voc import ImageSet, image_in, xml_in

LISTS_OF_A_SPLIT = ("train", "val", "trainval", "test")


@dataclass(frozen=True)
class ClassTable:
    """Which classes the lists of a tree show.

    Attributes:
        lists: their names, the one to learn from first.
        images: how many images each list has.
        showing: for each class name, in how many images of each list it occurs.
        objects: for each class name, how many objects of it each list has.
    """

    lists: tuple[str, ...]
    images: tuple[int, ...]
    showing: dict[str, tuple[int, ...]]
    objects: dict[str, tuple[int, ...]]

    def remarks(self) -> list[str]:
        """What is odd about the classes, a sentence each: one that a list has none of, and two spellings of one."""
        said = []
        for name, showing in self.showing.items():
            counts = dict(zip(self.lists, showing, strict=True))
            none = " and ".join(one for one, count in counts.items() if not count)
            if not showing[0]:
                where = " and ".join(f"{count} of {one}" for one, count in counts.items() if count)
                said.append(f"{name!r} is in no image of {self.lists[0]}, but in {where}: it cannot be learned")
            elif none:
                said.append(f"{name!r} is in no image of {none}, so nothing is measured of it there")
        return said + [f"{a!r} and {b!r} count as two classes: give them one name" for a, b in two_spellings(self)]


def two_spellings(table: ClassTable) -> Iterator[tuple[str, str]]:
    """Each name that differs from a commoner one in capitals, spaces, underscores and hyphens alone, and that one."""
    commoner: dict[str, str] = {}
    for name in sorted(table.objects, key=lambda name: (-sum(table.objects[name]), name)):
        if (usual := commoner.setdefault(spelling(name), name)) != name:
            yield name, usual


def count_classes(sets: Sequence[ImageSet]) -> ClassTable:
    """Count the objects of some lists by class name, whatever their `classes`; no image is read.

    Args:
        sets: image sets, the one to learn from first.

    Raises:
        DataError: a list cannot be used, an annotation is missing or broken, or an object has no name.
    """
    found = [[Counter(object_names(xml_in(one.tree, image_id))) for image_id in one.ids] for one in sets]
    return class_table([one.name for one in sets], found)


def class_table(lists: Sequence[str], found: Sequence[Sequence[Counter[str]]]) -> ClassTable:
    """A table of what the images of each list show."""
    names = sorted({name for images in found for objects in images for name in objects})
    return ClassTable(
        tuple(lists),
        tuple(map(len, found)),
        {name: tuple(sum(name in objects for objects in images) for images in found) for name in names},
        {name: tuple(sum(objects[name] for objects in images) for images in found) for name in names},
    )


class Picture(NamedTuple):
    """An annotated picture of a tree.

    Attributes:
        image_id: its name, without ending.
        objects: how many it shows of each class.
        print: what it looks like.
    """

    image_id: str
    objects: Counter[str]
    print: Fingerprint


def annotated(tree: str | Path) -> tuple[str, ...]:
    """The ids of all annotations of a tree, sorted."""
    return tuple(sorted(path.stem for path in (Path(tree) / "Annotations").glob("*.xml") if path.name[0] != "."))


def not_annotated(tree: str | Path) -> tuple[str, ...]:
    """The names of the pictures of a tree that have no annotation, sorted."""
    known = {unicodedata.normalize("NFC", image_id) for image_id in annotated(tree)}
    pictures = (path for path in (Path(tree) / "JPEGImages").glob("[!.]*") if path.suffix.lower() in ENDINGS)
    return tuple(sorted(path.name for path in pictures if unicodedata.normalize("NFC", path.stem) not in known))


def not_listed(tree: str | Path, ids: Iterable[str]) -> tuple[str, ...]:
    """The annotations of a tree that are none of these ids, which its lists have: sorted."""
    listed = {unicodedata.normalize("NFC", image_id) for image_id in ids}
    return tuple(one for one in annotated(tree) if unicodedata.normalize("NFC", one) not in listed)


def look_at(
    tree: str | Path, ids: Sequence[str], only: Sequence[str] = (), show_progress: bool = False
) -> tuple[list[Picture], list[DataError]]:
    """Read the annotations and pictures of a tree.

    Args:
        tree: see `ImageSet`.
        ids: of the images to read.
        only: names of classes; where there are some, images without an object of them are left out, and not read.
        show_progress: on stderr.

    Returns:
        The pictures that can be learned from; and the faults of the others, of which each has one or more.
    """
    pictures: list[Picture] = []
    faults: list[DataError] = []
    for image_id in track(ids, "Looking at the pictures", console=Console(stderr=True), disable=not show_progress):
        problems: list[DataError] = []
        try:
            objects = Counter(object_names(xml_in(tree, image_id)))
            if only and objects.keys().isdisjoint(only):
                continue
            _require_listable(xml_in(tree, image_id))
            annotation = read_annotation(xml_in(tree, image_id), sorted(objects), problems)
            path = image_in(tree, image_id)
            check_header(path, annotation.size)
            picture = Picture(image_id, objects, fingerprint(path))
        except DataError as error:
            problems.append(error)
        if problems:
            faults += problems
        else:
            pictures.append(picture)
    return pictures, list(by_tree(faults))


def _require_listable(path: Path) -> None:
    """Refuse a name that a line of a list cannot hold."""
    if path.stem != path.stem.strip() or len(path.stem.splitlines()) != 1:
        cure = "a list has a name in each line: give annotation and image one without line breaks and outer spaces"
        raise DataError(path, "file name", path.stem, cure)


def parts_of(val: float, test: float) -> dict[str, float]:
    """The shares of the lists `train`, `val` and `test`; those of nothing are not there.

    Raises:
        ValueError: a share is negative, or both together leave nothing to learn from.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ValueError(f"val is {val} and test is {test}: shares from 0 up, together less than 1")
    shares = {"train": 1 - val - test, "val": val, "test": test}
    return {name: share for name, share in shares.items() if share > 0}


def copied(pictures: Sequence[Picture], alike: int = ALIKE) -> list[list[str]]:
    """The ids of pictures that are copies of one another, picture by picture, those with most copies first."""
    together: dict[int, list[str]] = {}
    for picture, number in zip(pictures, copies([one.print for one in pictures], alike).tolist(), strict=True):
        together.setdefault(number, []).append(picture.image_id)
    return sorted((ids for ids in together.values() if len(ids) > 1), key=len, reverse=True)


def divide(
    pictures: Sequence[Picture], shares: dict[str, float], seed: int = 0, alike: int = ALIKE
) -> dict[str, list[str]]:
    """Divide pictures into lists, so that each class is in each list by its share, and copies are in one list.

    Args:
        pictures: of one tree.
        shares: of each list, together 1, the one to learn from first.
        seed: the same pictures and seed give the same lists.
        alike: see `copies`.

    Returns:
        The ids of each list, sorted.

    Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data", algorithm 1, with
        groups of copies in the place of single examples.
    """
    ordered = sorted(pictures, key=lambda picture: picture.image_id)
    _, group = np.unique(copies([picture.print for picture in ordered], alike), return_inverse=True)
    names = sorted({name for picture in ordered for name in picture.objects})
    shows = np.array([[name in picture.objects for name in names] for picture in ordered], dtype=np.int64)
    groups = np.zeros((group.max(initial=-1) + 1, len(names) + 1), dtype=np.int64)
    np.add.at(
        groups, group, np.column_stack([shows.reshape(len(ordered), len(names)), np.ones(len(ordered), dtype=np.int64)])
    )
    place = deal(groups, list(shares.values()), np.random.default_rng(seed))
    lists = {name: [] for name in shares}
    for picture, its_group in zip(ordered, group, strict=True):
        lists[list(shares)[place[its_group]]].append(picture.image_id)
    return lists


def deal(
    groups: Int[np.ndarray, "G classes"], shares: Sequence[float], rng: np.random.Generator
) -> Int[np.ndarray, " G"]:
    """Deal groups of pictures to lists, class by class, the one of the fewest groups first.

    Each goes where most pictures of the class are missing, a large group before a small one. A class of as many groups
    as there are lists is to have a picture in each.

    Args:
        groups: how many pictures of each group show each class; the last column stands for any picture.
        shares: of the lists.
        rng: the order of groups of one size.

    Returns:
        The place of each group's list in `shares`.
    """
    shows = groups > 0
    in_all = groups.sum(axis=0)
    wanted = np.outer(shares, in_all)  # [lists, classes], pictures that are still missing
    enough = shows.sum(axis=0) >= len(shares)
    wanted[:, enough] = wanted[:, enough].clip(min=1)
    wanted[np.argmax(shares)] += in_all - wanted.sum(axis=0)  # the largest gives what the others have more
    place = np.full(len(groups), -1)
    order = rng.permutation(len(groups))
    while (place < 0).any():
        left = shows[place < 0].sum(axis=0)
        one = min(np.flatnonzero(left), key=lambda column: (left[column], column))
        for group in sorted(order[(place[order] < 0) & shows[order, one]], key=lambda g: -groups[g, -1]):
            place[group] = max(range(len(shares)), key=lambda i: (wanted[i, one], wanted[i, -1], -i))
            wanted[place[group]] -= groups[group]
    return place


def list_path(tree: str | Path, name: str, prefix: str = "") -> Path:
    """Where a list lies: `animals_train.txt` for "train" with the prefix "animals"."""
    return Path(tree) / LISTS / (f"{prefix}_{name}.txt" if prefix else f"{name}.txt")


def write_lists(tree: str | Path, lists: dict[str, Sequence[str]], prefix: str = "") -> dict[str, Path]:
    """Write lists of ids to `ImageSets/Main`, `trainval` of both `train` and `val` beside them.

    Returns:
        Where each lies.

    Raises:
        FileExistsError: one of them is there; nothing is written.
    """
    lists = dict(lists) | {"trainval": sorted([*lists["train"], *lists.get("val", ())])}
    paths = {name: list_path(tree, name, prefix) for name in lists}
    for path in paths.values():
        if path.exists():
            raise FileExistsError(f"{path} exists: lists are not written over")
    (Path(tree) / LISTS).mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        write_whole(path, "".join(f"{image_id}\n" for image_id in lists[name]))
    return paths


def lists_there(tree: str | Path, prefix: str = "") -> list[Path]:
    """Which of the lists that a split writes are there already."""
    paths = (list_path(tree, name, prefix) for name in LISTS_OF_A_SPLIT)
    return [path for path in paths if path.exists()]
