"""The command that finds objects in pictures."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import UInt8
from rich.progress import track

from course_lib import weights
from course_lib.detect import Detections, detect_image
from course_lib.files import DataError
from course_lib.images import ENDINGS, read_image
from course_lib.terminal import complain, errors, refuse, say, warnings_in_lines


@warnings_in_lines()
def detect(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|FOLDER...", help="Pictures; of a folder those in it, not in its folders."),
    ],
    weights_file: Annotated[Path, typer.Option("--weights", help="A .safetensors file of a run.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures with boxes; default: detections, and none with --json."),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Tell of boxes above this score.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Find objects in pictures: tell which and where, and write the pictures with their boxes.

    Boxes are corners in pixels of the picture as it is seen, turned as its camera says: left, top, right, bottom.
    With --json a list is printed, an entry for each picture: "path", "width", "height" and "objects", each of these
    with "class", "score" and "box". A picture that cannot be read is named, and the others go on.
    """
    pictures = pictures_of(inputs)
    out = Path("detections") if out is None and not as_json else out
    results = [None] * len(pictures)
    if out is not None:
        results = plan_results(pictures, out, overwrite, inputs=[*pictures, weights_file])
    model = weights.load(weights_file)
    rows, failed = [], False
    steps = zip(pictures, results, strict=True)
    for path, result in track(steps, "Detecting", len(pictures), disable=len(pictures) < 4, console=errors):
        try:
            image = read_image(path)
        except DataError as error:
            complain("error", error)
            failed = True
            continue
        found = detect_image(model, image)
        rows.append(report(path, image, found, threshold, model.classes))
        if result is not None:
            from course_lib import viz  # matplotlib takes a second to load

            out.mkdir(parents=True, exist_ok=True)
            viz.save_detections(result, image, found, threshold, model.classes)
        if not as_json:
            say_report(rows[-1], result)
    if as_json:
        print(json.dumps(rows))
    if failed:
        raise typer.Exit(1)


def pictures_of(inputs: list[Path]) -> list[Path]:
    """The pictures that are given: of a folder those that lie in it, sorted by name."""
    pictures = []
    for given in inputs:
        if not given.is_dir():
            pictures.append(given)
            continue
        inside = [path for path in given.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
        if not inside:
            below = next((path for path in sorted(given.iterdir()) if path.is_dir()), None)
            folder = f"; its folders are not looked into: name them, such as {below}" if below else ""
            refuse(f"no {', '.join(ENDINGS)} lies in the folder {given}{folder}")
        pictures += sorted(inside)
    return pictures


def report(
    path: Path, image: UInt8[np.ndarray, "H W 3"], found: Detections, threshold: float, classes: tuple[str, ...]
) -> dict[str, Any]:
    """What was found in a picture, as it is written to JSON; the boxes in its pixels."""
    height, width = image.shape[:2]
    objects = []
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        if score > threshold:
            corners = [round(value * side, 1) for value, side in zip(box, (width, height) * 2, strict=True)]
            objects.append({"class": classes[label - 1], "score": round(score, 4), "box": corners})
    return {"path": str(path), "width": width, "height": height, "objects": objects}


def say_report(row: dict[str, Any], result: Path) -> None:
    """The same as lines."""
    say(f"{row['path']} -> {result}")
    for one in row["objects"]:
        say(f"  {one['class']:12s} {one['score']:.2f}  {[round(side) for side in one['box']]}")


def plan_results(images: list[Path], out: Path, overwrite: bool, inputs: list[Path]) -> list[Path]:
    """The file for each picture's result. What would lose a file is refused before anything is written."""
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
