"""The command that finds objects in pictures."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from course_lib import viz, weights
from course_lib.detect import detect_image
from course_lib.files import DataError
from course_lib.images import read_image
from course_lib.terminal import complain, errors, refuse, say, warnings_in_lines


@warnings_in_lines()
def detect(
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    weights_file: Annotated[Path, typer.Option("--weights", help="A .safetensors file of a run.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures with boxes.")] = Path("detections"),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Draw boxes above this score.")] = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Find objects in pictures, and write the pictures with their boxes."""
    results = plan_results(images, out, overwrite, inputs=[*images, weights_file])
    model = weights.load(weights_file)
    classes = model.classes
    failed = False
    for path, written in track(
        zip(images, results, strict=True), "Detecting", len(images), disable=len(images) < 4, console=errors
    ):
        try:
            image = read_image(path)
        except DataError as error:
            complain("error", error)
            failed = True
            continue
        found = detect_image(model, image)
        out.mkdir(parents=True, exist_ok=True)
        viz.save_detections(written, image, found, threshold, classes)
        say(f"{path} -> {written}")
        height, width = image.shape[:2]
        for box, score_, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            if score_ > threshold:
                corners = [round(v * side) for v, side in zip(box, (width, height) * 2, strict=True)]
                say(f"  {classes[label - 1]:12s} {score_:.2f}  {corners}")
    if failed:
        raise typer.Exit(1)


def plan_results(images: list[Path], out: Path, overwrite: bool, inputs: list[Path]) -> list[Path]:
    """The file for each picture's result. What would lose a file is refused before anything is written."""
    for image in images:
        if image.is_dir():
            refuse(f"{image} is a folder: give the pictures in it")
    above = next(folder for folder in (out, *out.parents) if os.path.lexists(folder))
    if not above.is_dir():
        refuse(f"--out is {out}, and {above} is no folder: choose another")
    read = {identity(path): path for path in inputs}
    source_of: dict[str, Path] = {}
    results = [out / f"{image.stem}.png" for image in images]
    for image, result in zip(images, results, strict=True):
        name = result.name.casefold()  # many disks take A.png and a.png for one
        if name in source_of:
            refuse(
                f"{source_of[name]} and {image} would both have their result in {result}: rename one, or leave it out"
            )
        source_of[name] = image
        if os.path.lexists(result) and identity(result) in read:
            refuse(f"the result of {image} would replace {result}, which is to be read: choose another --out")
        if result.is_dir():
            refuse(f"the result of {image} would replace the folder {result}: choose another --out")
        if os.path.lexists(result) and not overwrite:
            refuse(f"{result} exists: choose another --out, or --overwrite")
    return results


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from others, whichever names and links lead to it; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
