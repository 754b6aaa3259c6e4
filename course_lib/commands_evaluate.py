"""The command that measures: a run, or detections in files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from course_lib import evaluation, files, metrics, profiles, runs
from course_lib.runs import RunError
from course_lib.terminal import console, one_line, warnings_in_lines
from course_lib.voc import ImageDataset, VOCDetection


class Method(StrEnum):
    area = "area"
    eleven = "11point"


@warnings_in_lines()
def evaluate(
    run: Annotated[
        Path | None, typer.Option(help="A run's folder: its best weights on its profile's test set.")
    ] = None,
    detections: Annotated[Path | None, typer.Option(help="Folder of comp4_det_test_<class>.txt files.")] = None,
    devkit: Annotated[Path | None, typer.Option(help="Folder that holds VOC2007/; with --detections.")] = None,
    year: Annotated[str, typer.Option(help="With --detections.")] = "2007",
    image_set: Annotated[str, typer.Option("--on", "--set", help="A list; with --detections.")] = "test",
    method: Annotated[Method, typer.Option(help="How AP is computed.")] = Method.area,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure mAP at IoU 0.5, as Pascal VOC does: of a run, or of detections in files."""
    if (run is None) == (detections is None) or (detections is not None and devkit is None):
        raise typer.BadParameter("give --run, or --detections and --devkit")
    if run is not None:
        report = evaluate_run(run, method)
    else:
        report = evaluate_files(detections, devkit, year, image_set, method)
    if as_json:
        print(files.as_json(report))
    else:
        print_report(report)


def evaluate_run(run: Path, method: Method) -> dict:
    """Measure a run's best weights on its profile's test set, and keep the result beside them."""
    provenance = runs.read_provenance(run)
    if "profile" not in provenance:
        call = f"evaluation.evaluate_run({str(run)!r}, voc.VOCDetection(devkit, year, image_set))"
        raise RunError(f"{run} was made by no profile, so nothing here says on what to measure it: in Python, {call}")
    chosen = profiles.profile(provenance["profile"])
    chosen.prepare()
    return evaluation.evaluate_run(
        run,
        ImageDataset(chosen.test),
        method.value,
        split=chosen.data.parts,
        workers=chosen.workers,
        device=chosen.device,
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
