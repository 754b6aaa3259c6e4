"""The command line: `python -m course_lib`."""

import json
import os
import sys
import time
import warnings
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from course_lib import download, emoji_voc, losses, metrics, profiles, training, viz, weights
from course_lib.detect import detect_image
from course_lib.files import DataError, write_whole
from course_lib.training import RunError, Trainer
from course_lib.voc import VOC_CLASSES, read_image

app = typer.Typer(
    help="SSD from Scratch: make data, train, measure, detect.", no_args_is_help=True, pretty_exceptions_enable=False
)
console = Console()
errors = Console(stderr=True)


class ProfileName(StrEnum):
    cpu = "cpu"
    gpu = "gpu"


class DataSet(StrEnum):
    voc2007 = "voc2007"
    voc2012 = "voc2012"
    vgg16 = "vgg16"


LossName = StrEnum("LossName", {name.replace("-", "_"): name for name in losses.LOSSES})


class Method(StrEnum):
    area = "area"
    eleven = "11point"


@app.command("emoji-voc")
def emoji_voc_command(
    devkit: Annotated[Path, typer.Argument(help="Folder in which VOC2007 is made.")] = profiles.DATA / "emoji",
    train: Annotated[int, typer.Option(min=2, help="Images of trainval.")] = 2000,
    test: Annotated[int, typer.Option(min=1, help="Images of test.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Make EmojiVOC, the data set that needs no download; goes on where it was interrupted."""
    emoji_voc.make_emoji_voc(devkit, train, test, seed, show_progress=True)
    console.print(f"EmojiVOC is in {devkit}: {train} images of trainval, {test} of test.")


@app.command("download")
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
        console.print(f"VGG16's weights are in {path}.", soft_wrap=True)
    years = [data_set.removeprefix("voc") for data_set in dict.fromkeys(data_sets) if data_set != DataSet.vgg16]
    for year in years:
        mirrors = (*(mirror or ()), *download.MIRRORS)
        tree = download.install(year, download.ARCHIVES[year], devkit, archives, mirrors, show_progress=True)
        console.print(f"Pascal VOC {year} is in {tree}; its archives in {archives} may go.", soft_wrap=True)


@app.command()
def train(
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    profile: Annotated[ProfileName | None, typer.Option(help="Default: COURSE_PROFILE, or cpu.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the profile's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights, order and augmentation.")] = 0,
    loss: Annotated[LossName, typer.Option(help="The class loss; the boxes' is the same in all.")] = LossName.multibox,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move an old run aside and start anew.")] = False,
) -> None:
    """Train a detector. A finished run is left as it is, an unfinished one goes on."""
    chosen = profiles.profile(profile)
    recipe = replace(chosen.recipe, epochs=epochs or chosen.recipe.epochs, seed=seed)
    device = join_processes(chosen.device)
    chosen = replace(chosen, device=device)
    started = time.monotonic()
    if training.rank() == 0:
        if fresh:
            move_aside(run)
        chosen.prepare(show_progress=True)
        chosen.start(run, seed, print_pretraining)
    if training.world_size() > 1:
        dist.barrier()  # the others find what the first has made
    model = chosen.start(run, seed)
    if loss != LossName.multibox:
        losses.expect_background(model)
    trainer = Trainer(
        model,
        chosen.training_set(),
        chosen.training_transform(),
        recipe,
        run,
        evaluate=chosen.selector(),
        loss=losses.LOSSES[loss](),
        workers=chosen.workers,
        notes={
            "profile": chosen.name,
            "pretraining_steps": chosen.pretraining_steps,
            "preparation_seconds": round(time.monotonic() - started, 1),
        }
        | ({} if chosen.on_emoji_voc else {"devkit": str(chosen.devkit)}),
        report=print_record if training.rank() == 0 else lambda record: None,
    )
    trainer.fit()
    if training.rank() == 0:
        console.print(f"The run is complete: {run}. Measure it: python -m course_lib evaluate --run {run}")
    if dist.is_initialized():
        dist.destroy_process_group()


def join_processes(device: str) -> str:
    """Join the processes that torchrun has started, if it has; gives this process's device."""
    if "RANK" not in os.environ:
        return device
    local = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device != "cuda":
        return device
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def move_aside(run: Path) -> None:
    """Rename a run's folder; nothing is deleted."""
    if run.exists():
        aside = run.with_name(f"{run.name}.{datetime.now():%Y%m%d-%H%M%S}")
        run.rename(aside)
        console.print(f"The old run is now {aside}.")


def print_pretraining(step: int, accuracy: float) -> None:
    console.print(f"pretraining the trunk on cut-out objects: step {step:4d}, accuracy {accuracy:.2f}")


def print_record(record: dict) -> None:
    measured = f"  mAP {record['map']:.3f}" if "map" in record else ""
    console.print(
        f"epoch {record['epoch']:3d}  {record['images']:7d} images  {record['seconds']:7.0f} s  "
        f"box {record['loc']:.2f}  class {record['conf']:.2f}{measured}"
    )


@app.command()
def evaluate(
    run: Annotated[
        Path | None, typer.Option(help="A run's folder: its best weights on its profile's test set.")
    ] = None,
    detections: Annotated[Path | None, typer.Option(help="Folder of comp4_det_test_<class>.txt files.")] = None,
    devkit: Annotated[Path | None, typer.Option(help="Folder that holds VOC2007/; with --detections.")] = None,
    year: Annotated[str, typer.Option(help="With --detections.")] = "2007",
    image_set: Annotated[str, typer.Option("--set", help="With --detections.")] = "test",
    method: Annotated[Method, typer.Option(help="How AP is computed.")] = Method.area,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure mAP at IoU 0.5, as Pascal VOC does: of a run, or of detections in files."""
    if (run is None) == (detections is None) or (detections is not None and devkit is None):
        raise typer.BadParameter("give --run, or --detections and --devkit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if run is not None:
            report = evaluate_run(run, method)
        else:
            truth = metrics.read_ground_truth(devkit, year, image_set)
            result = metrics.evaluate_voc(metrics.read_detection_files(detections), truth, method=method.value)
            report = {"mean_ap": result.mean_ap, "ap": result.ap, "method": method.value, "images": len(truth)}
    for warning in caught:
        errors.print(f"warning: {warning.message}", style="yellow", soft_wrap=True)
    if as_json:
        print(json.dumps(report))
    else:
        print_report(report)


def evaluate_run(run: Path, method: Method) -> dict:
    """Measure a run's best weights on its profile's test set, and keep the result beside them."""
    try:
        provenance = json.loads((run / "provenance.json").read_text())
    except FileNotFoundError:
        raise RunError(
            f"{run}/provenance.json is missing: train first, python -m course_lib train --run {run}"
        ) from None
    chosen = profiles.profile(provenance["profile"])
    chosen.prepare()
    model = weights.load(run / "best.safetensors").to(chosen.device)
    found = chosen.detections(model, *chosen.test_on)
    truth = metrics.read_ground_truth(chosen.devkit, *chosen.test_on)
    report = score(found, truth, method)
    if chosen.on_emoji_voc:
        for part, ground_truth in emoji_voc.split_by_emoji(truth).items():
            report[part] = score(found, ground_truth, method)
    report["weights_of_epoch"] = provenance["best_epoch"]
    write_whole(run / f"evaluation_{method.value}.json", json.dumps(report, indent=2) + "\n")
    return report


def score(found: list, truth: list, method: Method) -> dict:
    result = metrics.evaluate_voc(found, truth, method=method.value)
    return {"mean_ap": result.mean_ap, "ap": result.ap, "method": method.value, "images": len(truth)}


def print_report(report: dict) -> None:
    """The table per class, and a column for known and for unseen emoji where there are such."""
    parts = {"AP": report} | {f"{part} emoji": report[part] for part in ("known", "unseen") if part in report}
    table = Table(title=f"AP ({report['method']}, IoU 0.5) on {report['images']} images")
    table.add_column("class")
    for name in parts:
        table.add_column(name, justify="right")
    for name in VOC_CLASSES:
        table.add_row(name, *(format_ap(part["ap"][name]) for part in parts.values()))
    table.add_section()
    table.add_row("mean", *(format_ap(part["mean_ap"]) for part in parts.values()))
    console.print(table)


def format_ap(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    weights_file: Annotated[Path, typer.Option("--weights", help="A .safetensors file of a run.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures with boxes.")] = Path("detections"),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Draw boxes above this score.")] = 0.5,
) -> None:
    """Find objects in pictures, and write the pictures with their boxes."""
    model = weights.load(weights_file)
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    for path in track(images, "Detecting", disable=len(images) < 4, console=errors):
        try:
            image = read_image(path)
        except DataError as error:
            errors.print(f"error: {error}", style="red", soft_wrap=True)
            failed = True
            continue
        found = detect_image(model, image)
        written = out / f"{path.stem}.png"
        viz.save_detections(written, image, found, threshold)
        console.print(f"{path} -> {written}", soft_wrap=True)
        height, width = image.shape[:2]
        for box, score_, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            if score_ > threshold:
                corners = [round(v * side) for v, side in zip(box, (width, height) * 2, strict=True)]
                console.print(f"  {VOC_CLASSES[label - 1]:12s} {score_:.2f}  {corners}")
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """Run a command; a failure that its user can mend is one line, not a traceback."""
    try:
        app()
    except (DataError, RunError, ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # typer's silent answer to Ctrl-C
            errors.print("interrupted: what was finished is kept", style="yellow")
        raise
