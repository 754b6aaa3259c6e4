"""The command line: `python -m course_lib`."""

import json
import os
import shlex
import sys
import textwrap
import time
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from course_lib import (
    boards,
    crowds,
    download,
    emoji_voc,
    evaluation,
    files,
    losses,
    metrics,
    profiles,
    runs,
    training,
    trees,
    viz,
    weights,
)
from course_lib.detect import detect_image
from course_lib.files import DataError
from course_lib.live import Live
from course_lib.profiles import Profile
from course_lib.recipes import Recipe
from course_lib.runs import RunError
from course_lib.stopping import Stopped
from course_lib.training import Trainer
from course_lib.voc import Annotation, ImageDataset, LeftOut, VOCDetection, read_image

app = typer.Typer(
    help="SSD from Scratch: make data, train, measure, detect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # a box would break the paths in a message
)
console = Console(markup=False, highlight=False, emoji=False)
errors = Console(markup=False, highlight=False, emoji=False, stderr=True)


def one_line(text: object) -> str:
    r"""A text as a terminal can show it in one line: `\n` for a line break, an escape for what is no character.

    Everything else stays as it is. Bytes of a file's name that are no UTF-8 are surrogates in Python (Cs).
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in NOT_SHOWN else character
        for character in str(text)
    )


NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, separators of lines and of paragraphs


def say(text: str) -> None:
    """Print one line, whatever is in it: no markup, no wrapping."""
    console.out(one_line(text))


def complain(kind: str, text: object, style: str = "red") -> None:
    """Print one line on stderr."""
    errors.out(one_line(f"{kind}: {text}"), style=style)


def refuse(reason: str) -> NoReturn:
    """End a command that was called wrongly, before it has written anything."""
    complain("error", reason)
    raise typer.Exit(2)


def command(*arguments: object) -> str:
    """A command of this program as a shell takes it."""
    return " ".join(["python -m course_lib", *map(quoted, arguments)])


def quoted(argument: object) -> str:
    r"""An argument for a shell; one that cannot be shown in a line as bash and zsh write it, `$'a\x0ab'`."""
    text = str(argument)
    if one_line(text) == text:
        return shlex.quote(text)
    plain = [chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in os.fsencode(text)]
    return f"$'{''.join(plain)}'"


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """While a command runs, print each warning for its user once, as one line on stderr."""
    told, usual = set(), warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        if not issubclass(category, (UserWarning, RuntimeWarning)):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in told and training.rank() == 0:
            told.add(str(message))
            complain("warning", message, "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


class ProfileName(StrEnum):
    cpu = "cpu"
    gpu = "gpu"


class DataSet(StrEnum):
    voc2007 = "voc2007"
    voc2012 = "voc2012"
    vgg16 = "vgg16"


LossName = StrEnum("LossName", {name.replace("-", "_"): name for name in losses.LOSSES})


RECIPE = tuple(one.name for one in fields(Recipe))


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
    say(f"EmojiVOC is in {devkit}: {train} images of trainval, {test} of test.")


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
        say(f"VGG16's weights are in {path}.")
    years = [data_set.removeprefix("voc") for data_set in dict.fromkeys(data_sets) if data_set != DataSet.vgg16]
    for year in years:
        mirrors = (*(mirror or ()), *download.MIRRORS)
        tree = download.install(year, download.ARCHIVES[year], devkit, archives, mirrors, show_progress=True)
        say(f"Pascal VOC {year} is in {tree}; its archives in {archives} may go.")


@app.command()
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


@app.command()
@warnings_in_lines()
def train(
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    profile: Annotated[ProfileName | None, typer.Option(help="Default: COURSE_PROFILE, or cpu.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the profile's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of first weights, order and augmentation.")] = None,
    loss: Annotated[LossName, typer.Option(help="The class loss; the boxes' is the same in all.")] = LossName.multibox,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            metavar="NAME=VALUE",
            help=f"Another value for a number of the profile's recipe; may be repeated: {', '.join(RECIPE)}.",
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="Keep the run so often within an epoch too; 0: after every step.")
    ] = 10.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move an old run aside and start anew.")] = False,
) -> None:
    """Train a detector. A finished run is left as it is, an unfinished one goes on.

    Told to end (Ctrl-C, SIGTERM, SIGHUP) it finishes a step and keeps it; the exit code is then 128 and the signal's
    number. After losses that became NaN, or to train longer, the same command with --recipe learning_rate=VALUE (or
    warmup_steps, clip_norm) or more --epochs goes on from the last good state.
    """
    if os.path.lexists(run) and not run.is_dir():
        refuse(f"--run is {run}, which is a file: name a folder")
    if fresh and run.name in ("", ".."):
        refuse(f"--run is {run}, which --fresh cannot rename: name the folder itself")
    chosen = with_recipe(profiles.profile(profile), settings or [], {"epochs": epochs, "seed": seed})
    recipe = chosen.recipe
    chosen = replace(chosen, device=join_processes(chosen.device))
    started = time.monotonic()
    if training.rank() == 0:
        chosen.prepare(show_progress=True)
        require_data(chosen)
        if fresh and (aside := runs.move_aside(run)):
            say(f"The old run is now {aside}.")
        with runs.held(run):
            chosen.start(run, recipe.seed, print_pretraining)
    if training.world_size() > 1:
        dist.barrier()  # the others find what the first has made
    model = chosen.start(run, recipe.seed)
    criterion = losses.LOSSES[loss]()
    criterion.prepare(model)
    live = Live(console, say, recipe.epochs, recipe.batch_size)
    board = boards.Board(run, model, ImageDataset(chosen.select))

    def report(record: dict) -> None:
        live.report(record)
        board.report(record)

    shows = {"report": report, "follow": live.follow} if training.rank() == 0 else {}
    trainer = Trainer(
        model,
        chosen.training_set(),
        chosen.training_transform(),
        recipe,
        run,
        evaluate=chosen.selector(criterion, recipe.match_iou),
        loss=criterion,
        workers=chosen.workers,
        notes={
            "profile": chosen.name,
            "pretraining_steps": chosen.pretraining_steps,
            "preparation_seconds": round(time.monotonic() - started, 1),
        }
        | ({} if chosen.on_emoji_voc else {"devkit": str(chosen.devkit)}),
        checkpoint_minutes=checkpoint_minutes,
        may_change=[setting.partition("=")[0] for setting in settings or []],
        **shows,
    )
    with live if shows else nullcontext(), board:
        trainer.fit()
    if training.rank() == 0:
        say(f"The run is complete: {run}.")
        say(f"Measure it: {command('evaluate', '--run', run)}")
    if dist.is_initialized():
        dist.destroy_process_group()


def with_recipe(chosen: Profile, settings: list[str], options: dict[str, int | None]) -> Profile:
    """A profile with another recipe, as `--recipe` and the options of their own say; wrong ones end the command."""
    try:
        recipe = chosen.recipe.changed(settings)
        recipe = replace(recipe, **{name: value for name, value in options.items() if value is not None})
    except ValueError as error:
        refuse(f"--recipe: {error}")
    return replace(chosen, recipe=recipe, workers=chosen.workers if recipe.workers is None else recipe.workers)


def require_data(chosen: Profile) -> None:
    """Say everything that is wrong with a profile's data before anything is trained, each in one line, and end."""
    most = crowds.most_objects(len(chosen.spec.boxes()))
    faults = list(trees.check_sets((*chosen.train, *chosen.select), most, show_progress=errors.is_terminal))
    faults = faults or list(trees.shared_images(chosen.train, chosen.select))
    for fault in faults:
        complain("error", fault)
    if faults:
        raise typer.Exit(1)
    training.require_batches(chosen.recipe, len(chosen.training_set()))
    annotations_of(chosen.training_set())
    if not any((~one.difficult).any() for one in annotations_of(ImageDataset(chosen.select))):
        names = " and ".join(str(one.tree / trees.LISTS / f"{one.name}.txt") for one in chosen.select)
        warnings.warn(
            f"{names}: no object that counts, so no epoch can be measured: the last is the best", stacklevel=2
        )


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


def annotations_of(dataset: ImageDataset) -> list[Annotation]:
    """What every XML of a data set says; the first that is broken is an error. What is left out is said once."""
    annotations = dataset.annotations()
    warnings.simplefilter("ignore", LeftOut)
    return annotations


def print_pretraining(step: int, accuracy: float) -> None:
    say(f"pretraining the backbone on cut-out objects: step {step:4d}, accuracy {accuracy:.2f}")


@app.command()
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


@app.command()
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


def main() -> None:
    """Run a command; a failure that its user can mend is one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal without some character is no reason to fail
    try:
        app()
    except (DataError, RunError, ValueError, OSError) as error:
        complain("error", error)
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end, Stopped) and training.rank() == 0:
            complain("stopped", end, "yellow")
        if end.code == 130:  # typer's silent answer to Ctrl-C
            complain("interrupted", "what was finished is kept", "yellow")
        raise
