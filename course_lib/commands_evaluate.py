"""The command that measures: a run, or detections in files."""

import warnings
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from course_lib import evaluation, files, metrics, own_tree, profiles, runs
from course_lib.runs import RunError
from course_lib.terminal import complain, console, one_line, say, warnings_in_lines
from course_lib.voc import ImageDataset, LeftOut, VOCDetection


class Method(StrEnum):
    area = "area"
    eleven = "11point"


@warnings_in_lines()
def evaluate(
    run: Annotated[
        Path | None, typer.Option(help="A run's folder: its best weights on the test set of its profile or tree.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Another tree to measure on; with --run.")] = None,
    detections: Annotated[Path | None, typer.Option(help="Folder of comp4_det_test_<class>.txt files.")] = None,
    devkit: Annotated[Path | None, typer.Option(help="Folder that holds VOC2007/; with --detections.")] = None,
    year: Annotated[str | None, typer.Option(help="With --detections; default: 2007.")] = None,
    image_set: Annotated[
        str | None, typer.Option("--on", "--set", help="A list to measure on; default: test.", show_default=False)
    ] = None,
    method: Annotated[Method, typer.Option(help="How AP is computed.")] = Method.area,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure mAP at IoU 0.5, as Pascal VOC does: of a run, or of detections in files.

    A run on a tree of your own is measured on that tree's list test, or where it has none on the one that told which
    epoch is best. What --data or --on name otherwise is printed, and not kept in the run's folder.
    """
    if (run is None) == (detections is None) or (detections is not None and devkit is None):
        raise typer.BadParameter("give --run, or --detections and --devkit")
    if data and run is None:
        raise typer.BadParameter("--data goes with --run")
    if run and (devkit or year):
        raise typer.BadParameter("--devkit and --year go with --detections")
    if run is not None:
        report = evaluate_run(run, method, data, image_set)
    else:
        report = evaluate_files(detections, devkit, year or "2007", image_set or "test", method)
    if as_json:
        print(files.as_json(report))
    else:
        print_report(report)


def evaluate_run(run: Path, method: Method, tree: Path | None = None, on: str | None = None) -> dict:
    """Measure a run's best weights: on what it was made for, and keep the result beside them; or on another list."""
    provenance = runs.read_provenance(run)
    if "profile" not in provenance:
        call = f"evaluation.evaluate_run({str(run)!r}, voc.VOCDetection(devkit, year, image_set))"
        raise RunError(f"{run} was made by no profile, so nothing here says on what to measure it: in Python, {call}")
    chosen = profiles.profile(provenance["profile"])
    about, keep = {}, True
    if tree or on or "data" in provenance:
        image_set, remarks = own_tree.to_measure(run, tree, on)
        for remark in remarks:
            complain("warning", remark, "yellow")
        warnings.simplefilter("ignore", LeftOut)  # the remarks have named them
        chosen = replace(chosen, train=(), select=(), test=(image_set,))
        about = {"tree": str(image_set.tree), "on": image_set.name}
        keep = tree is None and on is None
    chosen.prepare()
    return evaluation.evaluate_run(
        run,
        ImageDataset(chosen.test),
        method.value,
        split=chosen.data.parts,
        workers=chosen.workers,
        device=chosen.device,
        about=about,
        keep=keep,
    )


def evaluate_files(detections: Path, devkit: Path, year: str, image_set: str, method: Method) -> dict:
    """Measure detections in files against the annotations of an image set."""
    dataset = VOCDetection(devkit, year, image_set)
    truth = dataset.annotations()
    ids = [annotation.image_id for annotation in truth]
    found = metrics.read_detection_files(detections, dataset.classes, ids)
    return evaluation.report(found, truth, dataset.classes, method.value)


def print_report(report: dict) -> None:
    """The table per class, and a column for known and for unseen emoji where there are such."""
    parts = {"AP": report} | {f"{part} emoji": report[part] for part in ("known", "unseen") if part in report}
    if "tree" in report:
        say(f"{report['tree']}, {report['on']}:")
    table = Table(title=f"AP ({report['method']}, IoU 0.5) on {report['images']} images")
    table.add_column("class", overflow="fold")
    for name in parts:
        table.add_column(name, justify="right", overflow="fold")
    for name in report["ap"]:
        table.add_row(one_line(name), *(format_ap(part["ap"][name]) for part in parts.values()))
    table.add_section()
    table.add_row("mean", *(format_ap(part["mean_ap"]) for part in parts.values()))
    console.print(table)


def format_ap(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
