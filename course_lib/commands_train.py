"""The command that trains a detector."""

import os
import time
import warnings
from contextlib import nullcontext
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer

from course_lib import (
    commands_split,
    crowds,
    losses,
    own_tree,
    profiles,
    runs,
    splits,
    ssd,
    training,
    trees,
    weights,
)
from course_lib.doctor import Finding, VitalSigns
from course_lib.files import DataError
from course_lib.live import Live
from course_lib.profiles import Profile
from course_lib.recipes import Recipe
from course_lib.terminal import command, complain, console, errors, refuse, say, warnings_in_lines
from course_lib.training import Trainer
from course_lib.voc import Annotation, ImageDataset, LeftOut, require_objects

ProfileName = StrEnum("ProfileName", {name: name for name in profiles.PROFILES})
LossName = StrEnum("LossName", {name.replace("-", "_"): name for name in losses.LOSSES})
ArchitectureName = StrEnum("ArchitectureName", {name: name for name in ssd.ARCHITECTURES})
NO_LIST = "none"  # for --select-on
RECIPE = tuple(one.name for one in fields(Recipe))


@warnings_in_lines()
def train(
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    profile: Annotated[ProfileName | None, typer.Option(help="Default: COURSE_PROFILE, or cpu.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the profile's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of first weights, order and augmentation.")] = None,
    loss: Annotated[LossName, typer.Option(help="The class loss; the boxes' is the same in all.")] = LossName.multibox,
    architecture: Annotated[
        ArchitectureName | None,
        typer.Option(help="Another detector than the profile's; its backbone starts from random weights."),
    ] = None,
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
    data: Annotated[
        Path | None, typer.Option(help="A tree of your own to learn from; without --profile that means photos.")
    ] = None,
    train_on: Annotated[str | None, typer.Option(help="The list of --data to learn from; default: train.")] = None,
    select_on: Annotated[
        str | None,
        typer.Option(help="The list of --data that tells which epoch is best, or none: the last. Default: val."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Weights to start from, a .safetensors file of a run, perhaps of other classes."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move an old run aside and start anew.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Say so when something is odd about how it learns.")
    ] = True,
) -> None:
    """Train a detector. A finished run is left as it is, an unfinished one goes on.

    Told to end (Ctrl-C, SIGTERM, SIGHUP) it finishes a step and keeps it; the exit code is then 128 and the signal's
    number. After losses that became NaN, or to train longer, the same command with --recipe learning_rate=VALUE (or
    warmup_steps, clip_norm) or more --epochs goes on from the last good state.
    """
    require_run(run, fresh, start)
    chosen = with_architecture(on_data(profile, data, train_on, select_on), architecture)
    chosen = with_recipe(chosen, settings or [], {"epochs": epochs, "seed": seed})
    if data and not any(setting.startswith("warmup_steps=") for setting in settings or []):
        chosen = replace(chosen, recipe=warmed(chosen, run, fresh))
    chosen = from_weights(chosen, run, start, fresh)
    training.require_measure(chosen.recipe, bool(chosen.select))
    chosen = replace(chosen, device=join_processes(chosen.device))
    criterion, started = losses.LOSSES[loss](), time.monotonic()
    if training.rank() == 0:
        begin(chosen, run, criterion, data is not None, fresh)
    if training.world_size() > 1:
        dist.barrier()  # the others find what the first has made
    facts = notes(chosen, run, data is not None) | {"preparation_seconds": round(time.monotonic() - started, 1)}
    may_change = [setting.partition("=")[0] for setting in settings or []]
    fit(chosen, run, criterion, facts, checkpoint_minutes, may_change, watch)
    if training.rank() == 0:
        say(f"The run is complete: {run}.")
        say(f"Measure it: {command('evaluate', '--run', run)}")
    if dist.is_initialized():
        dist.destroy_process_group()


def require_run(run: Path, fresh: bool, start: Path | None) -> None:
    """Refuse a folder that cannot be a run's, or that cannot be moved aside."""
    if os.path.lexists(run) and not run.is_dir():
        refuse(f"--run is {run}, which is a file: name a folder")
    if fresh and run.name in ("", ".."):
        refuse(f"--run is {run}, which --fresh cannot rename: name the folder itself")
    if fresh and start and run.resolve() in start.resolve().parents:
        refuse(f"--start is {start}, which --fresh would move away with {run}: choose another folder for the new run")


def on_data(name: ProfileName | None, data: Path | None, train_on: str | None, select_on: str | None) -> Profile:
    """The profile that is asked for: on its own data, or on a tree of the reader's."""
    if data is None:
        if train_on or select_on:
            refuse("--train-on and --select-on name lists of --data: give that too")
        chosen = profiles.profile(name)
        if not chosen.train:
            refuse(f"the profile {chosen.name} has no pictures of its own: give yours with --data TREE")
        return chosen
    try:
        lists = trees.list_names(trees.require_tree(data))
    except DataError as error:
        refuse(str(error))
    train_on, select_on = train_on or "train", select_on or "val"
    if not lists:
        refuse(f"{data} has no lists to learn from and to choose by: make them with {command('split', data)}")
    wanted = {"--train-on": train_on} | ({} if select_on == NO_LIST else {"--select-on": select_on})
    for option, one in wanted.items():
        if one not in lists:
            instead = f", or --select-on {NO_LIST} to keep the last epoch" if option == "--select-on" else ""
            there = f"the lists in {data / trees.LISTS} are: {own_tree.some_lists(data)}"
            refuse(f"{option} is {one}, and {there}: name one, or make them with {command('split', data)}{instead}")
    chosen = profiles.profile(name or "photos")
    return own_tree.profile_on(chosen, data, train_on, None if select_on == NO_LIST else select_on)


def with_architecture(chosen: Profile, name: ArchitectureName | None) -> Profile:
    """The profile with another detector. Weights that are for the first one's backbone are of no use to it."""
    if name is None or name.value == chosen.architecture:
        return chosen
    other = replace(chosen, architecture=name.value, backbone_weights=None, record=None)
    if chosen.backbone_weights is None:
        return other
    # What has learned nothing is not frozen, nor are its statistics.
    return replace(other, recipe=replace(chosen.recipe, frozen_blocks=0, frozen_statistics=False))


def warmed(chosen: Profile, run: Path, fresh: bool) -> Recipe:
    """The recipe with a warmup that has room in so few steps: the run's own where it goes on, perhaps for longer."""
    begun = {} if fresh else runs.known_of(run).get("recipe", {})
    if "warmup_steps" in begun:
        return replace(chosen.recipe, warmup_steps=begun["warmup_steps"])
    return own_tree.with_room(chosen.recipe, len(chosen.training_set()))


def from_weights(chosen: Profile, run: Path, start: Path | None, fresh: bool) -> Profile:
    """The profile that starts from the weights of `--start`, or with a run that did."""
    if start is not None and not fresh:
        own_tree.require_same_start(run, start)
    if start is None and (fresh or runs.started_from(run) is None):
        return chosen
    return replace(chosen, start_weights=start, pretraining_steps=0, backbone_weights=None)


def begin(chosen: Profile, run: Path, criterion: losses.Loss, own: bool, fresh: bool) -> None:
    """Look at the data, show its classes, and give the run its first weights, in the first process."""
    chosen.prepare(show_progress=True)
    moved_from = None if fresh else own_tree.require_same(run, own_tree.facts(chosen) if own else None)
    if own:
        warnings.simplefilter("ignore", LeftOut)  # the table tells which names only the other lists have
    require_data(chosen)
    if own:
        show_classes(chosen)
    if moved_from:
        say(f"The tree of this run was {moved_from}, and is now {chosen.train[0].tree}.")
    if fresh and (aside := runs.move_aside(run)):
        say(f"The old run is now {aside}.")
    with runs.held(run):
        chosen.start(run, chosen.recipe.seed, print_pretraining, criterion)
    if (taken := runs.started_from(run)) and not runs.has_state(run):
        names = (tuple(taken[part]) for part in weights.Taken._fields)
        say(f"Started from {taken['file']}: {weights.Taken(*names)}.")


def show_classes(chosen: Profile) -> None:
    """Show what the lists of a tree hold of each class, and say what is odd about that."""
    commands_split.print_table(splits.count_classes((*chosen.train, *chosen.select, *chosen.test)))
    recipe, images = chosen.recipe, len(chosen.training_set())
    steps = images // recipe.batch_size
    batches = f"{images} pictures in batches of {recipe.batch_size}: {steps} steps an epoch"
    say(f"{batches}, {recipe.epochs * steps} from first to last (epochs={recipe.epochs}).")


def notes(chosen: Profile, run: Path, own: bool) -> dict:
    """What the provenance of a run says of its data and its start."""
    data = {"data": own_tree.facts(chosen)} if own else {} if chosen.on_emoji_voc else {"devkit": str(chosen.devkit)}
    start = {runs.STARTED_FROM: taken} if (taken := runs.started_from(run)) else {}
    return {"profile": chosen.name, "pretraining_steps": chosen.pretraining_steps} | data | start


def fit(
    chosen: Profile,
    run: Path,
    criterion: losses.Loss,
    facts: dict,
    checkpoint_minutes: float,
    may_change: list[str],
    watch: bool,
) -> None:
    """Train to the end; show it, and look at its vital signs, where this is the first process."""
    from course_lib import boards  # matplotlib takes a second to load

    recipe = chosen.recipe
    model = chosen.start(run, recipe.seed, loss=criterion)
    live = Live(console, say, recipe.epochs, recipe.batch_size)
    board = boards.Board(run, model, ImageDataset(chosen.select or chosen.train))

    def report(record: dict) -> None:
        live.report(record)
        board.report(record)

    def say_finding(finding: Finding) -> None:
        live.finding(finding)
        board.finding(finding)

    signs = VitalSigns(say=say_finding, show=board.sample) if watch else None
    shows = {"report": report, "follow": live.follow, "watch": signs} if training.rank() == 0 else {}
    trainer = Trainer(
        model,
        chosen.training_set(),
        chosen.training_transform(),
        recipe,
        run,
        evaluate=chosen.selector(criterion, recipe.match_iou),
        loss=criterion,
        workers=chosen.workers,
        notes=facts,
        checkpoint_minutes=checkpoint_minutes,
        may_change=may_change,
        **shows,
    )
    with live if shows else nullcontext(), board:
        trainer.fit()


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
    require_objects(chosen.training_set())
    annotations_of(chosen.training_set())
    if chosen.select and not any((~one.difficult).any() for one in annotations_of(ImageDataset(chosen.select))):
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
