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

from course_lib import boards, crowds, losses, profiles, runs, training, trees
from course_lib.live import Live
from course_lib.profiles import Profile
from course_lib.recipes import Recipe
from course_lib.terminal import command, complain, console, errors, refuse, say, warnings_in_lines
from course_lib.training import Trainer
from course_lib.voc import Annotation, ImageDataset, LeftOut

ProfileName = StrEnum("ProfileName", {name: name for name in profiles.PROFILES})
LossName = StrEnum("LossName", {name.replace("-", "_"): name for name in losses.LOSSES})
RECIPE = tuple(one.name for one in fields(Recipe))


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
