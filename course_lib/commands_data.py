"""Commands that make, fetch and check data."""

import json
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from course_lib import download, emoji_voc, profiles, splits, trees
from course_lib.files import DataError
from course_lib.terminal import errors, one_line, refuse, say, warnings_in_lines


class DataSet(StrEnum):
    voc2007 = "voc2007"
    voc2012 = "voc2012"
    vgg16 = "vgg16"


def emoji_voc_command(
    devkit: Annotated[Path, typer.Argument(help="Folder in which VOC2007 is made.")] = profiles.DATA / "emoji",
    train: Annotated[int, typer.Option(min=2, help="Images of trainval.")] = 2000,
    test: Annotated[int, typer.Option(min=1, help="Images of test.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Make EmojiVOC, the data set that needs no download; goes on where it was interrupted."""
    emoji_voc.make_emoji_voc(devkit, train, test, seed, show_progress=True)
    say(f"EmojiVOC is in {devkit}: {train} images of trainval, {test} of test.")


def download_command(
    data_sets: Annotated[
        list[DataSet],
        typer.Argument(help="0.9 GB for voc2007, 2 GB for voc2012, twice that on disk; 0.55 GB for vgg16."),
    ],
    devkit: Annotated[Path, typer.Option(help="Folder in which VOC2007 and VOC2012 are made.")] = (
        profiles.DATA / "VOCdevkit"
    ),
    archives: Annotated[
        Path, typer.Option(help="Folder of the archives; those that are there are used.")
    ] = profiles.DATA,
    mirror: Annotated[
        list[str] | None,
        typer.Option(help="Address of a folder with the archives, to be tried first; may be repeated."),
    ] = None,
) -> None:
    """Fetch Pascal VOC, or VGG16's weights, and check and unpack them; goes on where it was interrupted."""
    if not all(address.startswith(("http://", "https://")) for address in mirror or ()):
        raise typer.BadParameter("--mirror is an http:// or https:// address; files of yours go into --archives")
    if DataSet.vgg16 in data_sets:
        path = download.fetch(download.VGG16, archives, (*(mirror or ()), *download.VGG16_MIRRORS), show_progress=True)
        say(f"VGG16's weights are in {path}.")
    years = [data_set.removeprefix("voc") for data_set in dict.fromkeys(data_sets) if data_set != DataSet.vgg16]
    for year in years:
        mirrors = (*(mirror or ()), *download.MIRRORS)
        tree = download.install(year, download.ARCHIVES[year], devkit, archives, mirrors, show_progress=True)
        say(f"Pascal VOC {year} is in {tree}; its archives in {archives} may go.")


@warnings_in_lines()
def check(
    tree: Annotated[
        Path, typer.Argument(help="Folder that holds Annotations/, JPEGImages/ and ImageSets/Main/: VOC2007 is one.")
    ],
    on: Annotated[str | None, typer.Option(help="A list of the tree, such as train; default: all of them.")] = None,
    annotations_only: Annotated[bool, typer.Option("--annotations-only", help="Look for no image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Name every fault of a tree, VOC's or your own, in one line each; exit code 1 if there is one."""
    try:
        lists = trees.list_names(trees.require_tree(tree))
    except DataError as error:
        refuse(str(error))
    if on is not None and on not in lists:
        some = textwrap.shorten(", ".join(sorted(lists, key=len)), 80)  # VOC's class lists have the longer names
        refuse(f"--on is {on}, and the lists in {tree / trees.LISTS} are: {some or 'none'}")
    found, faults = trees.overview(tree, on), []
    for fault in trees.check_tree(found, annotations_only, show_progress=errors.is_terminal):
        faults.append(fault)
        if not as_json:
            say(str(fault))
    if as_json:
        print(json.dumps(check_report(found, on, faults)))
    else:
        names = ", ".join(f"{count} {name}" for name, count in found.objects.most_common())
        number = "1 fault" if len(faults) == 1 else f"{len(faults) or 'no'} faults"
        errors.out(one_line(f"{number} in {len(found.ids)} images; objects: {names or 'none'}"))
        if on is None and (waiting := splits.not_listed(tree, found.ids)):
            errors.out(one_line(f"{len(waiting)} of the annotations are in no list, such as {waiting[0]}"))
    if faults:
        raise typer.Exit(1)


def check_report(found: trees.Overview, on: str | None, faults: list[DataError]) -> dict:
    """What `check` found, as it is written to JSON; a value of any kind is written as text."""
    rows = [
        {"path": str(fault.path), "field": fault.field, "value": str(fault.value), "cure": fault.cure}
        for fault in faults
    ]
    return {
        "tree": str(found.tree),
        "on": on,
        "images": len(found.ids),
        "objects": dict(found.objects.most_common()),
        "faults": rows,
    }
