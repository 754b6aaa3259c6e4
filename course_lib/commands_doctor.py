"""The command that examines: a profile before it trains, a run, a tree of one's own, annotations alone."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from course_lib import checkup, profiles
from course_lib.commands_train import ProfileName
from course_lib.doctor import Finding, Patient, Report, examine
from course_lib.files import as_json, write_whole
from course_lib.terminal import console, errors, one_line, refuse, warnings_in_lines
from course_lib.voc import image_sets

STYLES = {"fault": "bold red", "warning": "yellow", "note": "cyan"}


@warnings_in_lines()
def doctor(
    profile: Annotated[
        ProfileName | None, typer.Option(help="A profile before it trains. Default: COURSE_PROFILE, or cpu.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run's folder: its weights, recipe, data and history.")] = None,
    data: Annotated[Path | None, typer.Option(help="A tree of your own, as the profile photos would learn it.")] = None,
    devkit: Annotated[Path | None, typer.Option(help="Folder that holds VOC2007/: its images and boxes.")] = None,
    year: Annotated[str | None, typer.Option(help="With --devkit; default: 2007.")] = None,
    on: Annotated[str | None, typer.Option(help="A list of --data (default: train) or --devkit (trainval).")] = None,
    annotations_only: Annotated[bool, typer.Option("--annotations-only", help="Read XML files, and no image.")] = False,
    learning: Annotated[
        bool, typer.Option("--learning/--no-learning", help="Also train for some steps; it takes up to two minutes.")
    ] = True,
    html: Annotated[
        Path | None, typer.Option(help="Also write the report, with its pictures, as a web page in this file.")
    ] = None,
    as_json_text: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Find out why a detector does not learn, or would not; exit code 1 if there is a fault.

    Nothing is changed: what is trained on the way is put back or thrown away.
    """
    if sum(map(bool, (profile, run, data, devkit))) > 1:
        refuse("--profile, --run, --data and --devkit are four patients: give one")
    if (year and not devkit) or (on and not (data or devkit)):
        refuse("--year goes with --devkit, and --on with --data or --devkit")
    if html and not html.parent.is_dir():
        refuse(f"--html {html}: there is no folder {html.parent}")
    with patient_of(profile, run, data, devkit, year or "2007", on, annotations_only) as patient:
        report = examine(patient, learning, follow=lambda name: None if as_json_text else show_progress(name))
    if html is not None:
        write_whole(html, report.page(f"The doctor's report on {examined(profile, run, data, devkit, year, on)}"))
    if as_json_text:
        print(as_json(report.as_dict()))
    else:
        print_report(report)
    if report.of("fault"):
        raise typer.Exit(1)


def patient_of(
    profile: str | None,
    run: Path | None,
    data: Path | None,
    devkit: Path | None,
    year: str,
    on: str | None,
    annotations_only: bool,
) -> AbstractContextManager[Patient]:
    """The patient that is asked for."""
    if run is not None:
        return checkup.of_run(run)
    if devkit is not None:
        sets = image_sets(devkit, year, on or "trainval")
        if annotations_only:
            return nullcontext(checkup.of_annotations(sets))
        return nullcontext(checkup.of_sets(checkup.on_sets(sets)))
    chosen = checkup.own(data, on) if data is not None else profiles.profile(profile)
    chosen.prepare(show_progress=True)
    if annotations_only:
        return nullcontext(checkup.of_annotations(chosen.train, chosen.select))
    return checkup.of_profile(chosen)


def examined(
    profile: str | None, run: Path | None, data: Path | None, devkit: Path | None, year: str | None, on: str | None
) -> str:
    """The patient in words."""
    if run is not None:
        return f"the run {run}"
    if devkit is not None:
        return f"{devkit}, VOC{year or '2007'} {on or 'trainval'}"
    if data is not None:
        return f"{data}, {on or 'train'}"
    return f"the profile {profiles.profile(profile).name}"


def show_progress(name: str) -> None:
    """Say on a terminal which check is made; in a file it would be of no use."""
    if errors.is_terminal:
        errors.out(f"examining: {name}", end="\r")


def print_report(report: Report) -> None:
    """Every finding with its number, its reason and its cure; then what was not examined, and the verdict."""
    for finding in report.findings:
        print_finding(finding)
    for reason, names in report.missing().items():
        console.print(one_line(f"not examined, {reason}: {', '.join(names)}"), style="dim")
    console.print(report.verdict(), style=STYLES["fault"] if report.of("fault") else "bold")


def print_finding(finding: Finding) -> None:
    head = Text.assemble((finding.severity, STYLES[finding.severity]), f" {finding.check}: ", one_line(finding.seen))
    console.print(head)
    for label, text in (("why", finding.why), ("do", f"{finding.cure} (chapter {finding.chapter})")):
        console.print(Padding(Text.assemble((f"{label}: ", "bold"), one_line(text)), (0, 0, 0, 2)))
