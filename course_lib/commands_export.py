"""The command that takes a detector out of Python."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from course_lib import export, trees, weights
from course_lib.files import DataError
from course_lib.terminal import errors, refuse, say, warnings_in_lines


class Format(StrEnum):
    onnx = "onnx"


@warnings_in_lines()
def export_command(
    weights_file: Annotated[Path, typer.Option("--weights", help="A .safetensors file of a run.")],
    out: Annotated[Path, typer.Option(help="The file to be written.")],
    format: Annotated[Format, typer.Option(help="Of the file.")] = Format.onnx,
    nms: Annotated[bool, typer.Option("--nms", help="With NMS in the file: it gives detections.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Compute with eight bits: a quarter of the size.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="With --int8: a tree with pictures such as the detector will see.")
    ] = None,
    on: Annotated[str, typer.Option(help="With --data: a list of the tree.")] = "train",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write a detector as an ONNX file: uint8 pictures in, boxes and scores out."""
    if int8 != (data is not None):
        refuse(
            "--int8 needs --data TREE, with pictures that show it the range of numbers, and --data is for --int8 alone"
        )
    if data is not None:
        require_list(data, on)
    require_place(out, overwrite, weights_file)
    model = weights.load(weights_file)
    pictures = list(export.calibration_pictures(data, on, model.image_size)) if int8 else None
    with errors.status(f"Writing {format}"):
        export.to_onnx(model, out, nms, pictures)
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    session = export.load_onnx(out).session
    for way, values in (("in", session.get_inputs()), ("out", session.get_outputs())):
        for value in values:
            kind = value.type.removeprefix("tensor(").removesuffix(")")
            say(f"  {way:3s} {value.name:6s} {kind:5s} [{', '.join(map(str, value.shape))}]")


def require_list(tree: Path, on: str) -> None:
    """End the command where a folder is no tree or has no such list."""
    try:
        lists = trees.list_names(trees.require_tree(tree))
    except DataError as error:
        refuse(f"--data: {error}")
    if on not in lists:
        refuse(f"--on is {on}, and {tree / trees.LISTS} has no {on}.txt")


def require_place(out: Path, overwrite: bool, source: Path) -> None:
    """End the command where a file cannot be written, or would replace another one."""
    if out.is_dir():
        refuse(f"--out is {out}, which is a folder: name a file in it")
    above = next(folder for folder in out.parents if os.path.lexists(folder))
    if not above.is_dir():
        refuse(f"--out is {out}, and {above} is no folder: choose another")
    if not os.path.lexists(out):
        return
    if source.exists() and out.exists() and out.samefile(source):
        refuse(f"--out is {out}, which is to be read: choose another")
    if not overwrite:
        refuse(f"{out} exists: choose another --out, or --overwrite")
