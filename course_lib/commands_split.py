"""The command that writes the lists of a tree of one's own."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from course_lib import splits, trees
from course_lib.annotations import nearest
from course_lib.copies import ALIKE, BITS
from course_lib.files import DataError
from course_lib.splits import ClassTable, Picture
from course_lib.terminal import complain, console, errors, one_line, refuse, say, warnings_in_lines
from course_lib.voc import ImageSet

MOST_SHOWN = 10  # groups of copies, pictures of a group


@warnings_in_lines()
def split(
    tree: Annotated[Path, typer.Argument(help="Folder that holds Annotations/ and JPEGImages/.")],
    val: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the pictures to choose by; 0: no such list.")
    ] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share to measure on in the end; 0: no such list.")] = 0.1,
    only: Annotated[
        str | None, typer.Option(metavar="CLASS,…", help="Only pictures that show one of these classes.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="Only pictures of this list; default: all that are annotated.")] = None,
    name: Annotated[
        str, typer.Option(help="The lists are called NAME_train and so on: beside others that are there.")
    ] = "",
    alike: Annotated[
        int, typer.Option(min=0, max=BITS // 4, help="Two pictures are copies up to so many bits of difference.")
    ] = ALIKE,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same lists.")] = 0,
) -> None:
    """Write the lists train, val, trainval and test for a tree of your own.

    Each class is in each list by its share, as far as it goes. Copies of one picture, also when saved again, made
    smaller, cut a little or mirrored, stay in one list. Pictures that are broken, or whose annotation
    is, are named and left out. Lists that are there are never written over.
    """
    try:
        tree, shares = trees.require_tree(tree), splits.parts_of(val, test)
    except ValueError as error:
        refuse(str(error))
    if name != Path(name).name:
        refuse(f"--name is {name}: give the beginning of a file's name")
    if there := splits.lists_there(tree, name):
        names = " and ".join(path.name for path in there)
        refuse(f"{there[0].parent} has {names}: move what you do not need away, or call the new lists --name NAME")
    ids = chosen_ids(tree, on)
    wanted = wanted_classes(tree, ids, only)
    pictures, faults = splits.look_at(tree, ids, wanted, show_progress=errors.is_terminal)
    tell_faults(faults)
    require_objects(tree, pictures)
    lists = splits.divide(pictures, shares, seed, alike)
    require_pictures(tree, lists)
    tell_copies(pictures, lists, alike)
    if on is None and (waiting := splits.not_annotated(tree)):
        say(f"{len(waiting)} of the pictures have no annotation and are in no list, such as {waiting[0]}")
    objects = {picture.image_id: picture.objects for picture in pictures}
    print_table(splits.class_table(list(lists), [[objects[one] for one in ids] for ids in lists.values()]))
    for part, path in splits.write_lists(tree, lists, name).items():
        count = len(lists[part]) if part in lists else len(lists["train"]) + len(lists.get("val", ()))
        say(f"{path}: {count} {'picture' if count == 1 else 'pictures'}")


def chosen_ids(tree: Path, on: str | None) -> tuple[str, ...]:
    """The ids to divide: of a list, or of all annotations."""
    if on is None:
        return splits.annotated(tree)
    if on not in trees.list_names(tree):
        refuse(f"--on is {on}, and {tree / trees.LISTS} has no such list")
    return ImageSet(tree, on).ids


def wanted_classes(tree: Path, ids: tuple[str, ...], only: str | None) -> tuple[str, ...]:
    """The names that `--only` gives, each of which some object must have."""
    wanted = tuple(name.strip() for name in only.split(",")) if only else ()
    there = trees.count_names(tree, ids) if wanted else {}
    for name in wanted:
        if name not in there:
            meant = nearest(name, sorted(there))
            refuse(f"--only names {name!r}, which no object is{f': did you mean {meant!r}?' if meant else ''}")
    return wanted


def require_objects(tree: Path, pictures: list[Picture]) -> None:
    """Refuse pictures that show nothing, or of which there is none."""
    if not any(picture.objects for picture in pictures):
        cure = "label what is to be found, each picture in an XML of its own name"
        raise DataError(tree / "Annotations", "objects", f"none in {len(pictures)} annotations", cure)


def tell_faults(faults: list[DataError]) -> None:
    """Name the pictures that are left out, or what is wrong with the tree as a whole, which ends the command."""
    of_all = [fault for fault in faults if fault.path.is_dir() or fault.path.name == trees.CORNERS]
    for fault in of_all:
        complain("error", fault)
    if of_all:
        complain("error", "no list is written")
        raise typer.Exit(1)
    for fault in faults:
        complain("left out", fault, "yellow")
    if faults:
        say("What is left out is in no list. Once it is mended, move the lists away and divide again.")


def require_pictures(tree: Path, lists: dict[str, list[str]]) -> None:
    """Refuse lists of which one is empty."""
    for name, ids in lists.items():
        if not ids:
            count = sum(map(len, lists.values()))
            cure = f"annotate more, give it a larger share or none (--{'val' if name == 'train' else name})"
            alike = ", which are kept together where they look alike: --alike 0 divides all but the same ones"
            raise DataError(tree, f"pictures for {name}", f"none of {count}{alike if count > 2 else ''}", cure)


def tell_copies(pictures: list[Picture], lists: dict[str, list[str]], alike: int) -> None:
    """Say which pictures were found to be copies, and where they went."""
    groups = splits.copied(pictures, alike)
    of = {image_id: name for name, ids in lists.items() for image_id in ids}
    content = {picture.image_id: picture.print.content for picture in pictures}
    for ids in groups[:MOST_SHOWN]:
        same = " (the same file)" if len({content[one] for one in ids}) == 1 else ""
        more = f" and {len(ids) - MOST_SHOWN} more" if len(ids) > MOST_SHOWN else ""
        say(f"copies of one picture{same}, all in {of[ids[0]]}: {', '.join(ids[:MOST_SHOWN])}{more}")
    if groups[MOST_SHOWN:]:
        say(f"and {len(groups) - MOST_SHOWN} more pictures with copies")


def print_table(table: ClassTable) -> None:
    """Which classes the lists show, and what is odd about them."""
    shown = Table(title="Pictures that show a class (objects)")
    shown.add_column("class", overflow="fold")
    for name in table.lists:
        shown.add_column(name, justify="right")
    for name, counts in table.showing.items():
        cells = zip(counts, table.objects[name], strict=True)
        shown.add_row(one_line(name), *(f"{images} ({objects})" for images, objects in cells))
    shown.add_section()
    shown.add_row("all pictures", *map(str, table.images))
    console.print(shown)
    for remark in table.remarks():
        complain("warning", remark, "yellow")
