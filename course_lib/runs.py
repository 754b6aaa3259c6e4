"""A run's folder: what training leaves in it, where that is from, and whether a run may go on from it.

It holds last.safetensors and best.safetensors, history.jsonl (one record an epoch), provenance.json, and state.pt, from
which an unfinished run goes on.
"""

import io
import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import torch

from course_lib import weights
from course_lib.files import DataError, write_whole
from course_lib.ssd import SSD

ANEW = "choose another folder, or --fresh, which moves this one aside"


class RunError(RuntimeError):
    """A run that cannot go on as asked: which run, why, what to do."""


def refuse_other_classes(model: SSD, classes: Sequence[str]) -> None:
    """Refuse a model whose labels mean other classes than those of a data set: it would learn the wrong ones.

    Args:
        classes: the data set's.

    Raises:
        RunError: with both lists of names.
    """
    known, asked = tuple(model.classes), tuple(classes)
    if known == asked:
        return
    cure = f"build the model with num_classes={len(asked) + 1}, classes=dataset.classes"
    if len(known) == len(asked):
        cure = f"{cure}; or, where its labels do mean these, set model.classes = dataset.classes"
    raise RunError(
        f"the model has num_classes={model.num_classes}, which is {len(known)} and background ({', '.join(known)}), "
        f"and the data set has {len(asked)} ({', '.join(asked)}): {cure}"
    )


def identity_of(model: SSD) -> dict:
    """What of a model must be the same when a run goes on."""
    return {"architecture": model.architecture, "num_classes": model.num_classes, "classes": tuple(model.classes)}


def take_up(run: Path, model: SSD, asked: dict, device: torch.device) -> dict | None:
    """The state from which a run goes on; None where it begins.

    Args:
        model: the one that is to go on; it stays as it is.
        asked: what must be the same: the recipe, the loss, the number of images, and `identity_of` the model.

    Raises:
        RunError: the folder holds a run of another model, recipe, loss or size, or a broken one.
    """
    state, last = run / "state.pt", run / "last.safetensors"
    if not state.exists():
        if last.exists():  # interrupted before the first state was written; or weights that someone keeps here
            require(asked, identity_of(weights.load(last)), last)
        return None
    saved = read_state(state, device)
    # Older states name no model, or none of its classes; whether theirs is the same, the tensors tell.
    require(asked, {name: saved[name] for name in asked if name in saved}, run)
    if misfits := weights.compare(model.state_dict(), saved["model"]):
        raise RunError(
            f"{run} was started with another model than the {model.architecture} with num_classes="
            f"{model.num_classes} that is asked for now ({textwrap.shorten(misfits, 200)}): {ANEW}"
        )
    return saved


def require(asked: dict, begun: dict, path: Path) -> None:
    """Refuse to go on with what was begun otherwise; the message names all that differs, and nothing else."""
    asked = flat({name: value for name, value in asked.items() if name in begun})
    begun = flat(begun)
    if differing := [name for name in asked | begun if asked.get(name) != begun.get(name)]:
        was, now = (", ".join(f"{name}={one.get(name)!r}" for name in differing) for one in (begun, asked))
        raise RunError(f"{path} was started with {was}, which is not what is asked for now ({now}): {ANEW}")


def flat(asked: dict) -> dict:
    """The recipe's numbers beside the others."""
    return asked.get("recipe", {}) | {name: value for name, value in asked.items() if name != "recipe"}


def save(run: Path, model: SSD, state: dict, provenance: dict) -> None:
    """Write a run's files after an epoch, each whole or not at all; the state comes last, and counts.

    Args:
        state: what `take_up` will give, with the "history" in it; its last epoch is the model's.
    """
    run.mkdir(parents=True, exist_ok=True)
    history = state["history"]
    weights.save(model, run / "last.safetensors")
    if best_epoch(history) in (None, len(history)):
        weights.save(model, run / "best.safetensors")
    write_whole(run / "history.jsonl", "".join(json.dumps(record) + "\n" for record in history))
    write_whole(run / "provenance.json", json.dumps(provenance, indent=2) + "\n")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(run / "state.pt", buffer.getvalue())


def best_epoch(history: list[dict]) -> int | None:
    """The epoch with the highest mAP, None where nothing was measured."""
    measured = [record for record in history if "map" in record]
    return max(measured, key=lambda record: record["map"])["epoch"] if measured else None


def read_state(path: Path, device: torch.device) -> dict:
    """What a run needs to go on.

    Raises:
        RunError: the file is cut short, or is no run's state.
    """
    with path.open("rb") as file:
        try:
            saved = torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # a broken pickle fails in many ways
            raise RunError(f"{path} is cut short or no run's state ({type(error).__name__}): {ANEW}") from None
    names = ("recipe", "loss", "images", "model", "optimizer", "schedule", "scaler", "history", "seconds")
    if missing := [name for name in names if not isinstance(saved, dict) or name not in saved]:
        raise RunError(f"{path} is no run's state, without {', '.join(missing)}: {ANEW}")
    return saved | {name: weights.in_todays_names(saved[name]) for name in ("recipe", "model")}


def read_history(run: str | Path) -> list[dict]:
    """The records of a run, one an epoch."""
    path = Path(run) / "history.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run is finished yet, or it is no run's folder") from None


def read_provenance(run: str | Path) -> dict:
    """What a run says of itself: at least its best epoch.

    Raises:
        RunError: there is none.
        DataError: it is no JSON, or not what `save` wrote.
    """
    path = Path(run) / "provenance.json"
    try:
        provenance = json.loads(path.read_text())
    except FileNotFoundError:
        command = shlex.join(["python", "-m", "course_lib", "train", "--run", str(run)])
        raise RunError(f"{path} is missing: train first, {command}") from None
    except ValueError as error:
        raise DataError(path, "JSON", str(error), "restore the file, or train anew with --fresh") from None
    if not isinstance(provenance, dict) or "best_epoch" not in provenance:
        raise DataError(path, "best_epoch", "missing", "it should be a run of this program's train")
    return provenance


def move_aside(run: Path) -> Path | None:
    """Rename a run's folder, to a name that nothing has; nothing is deleted. Gives the name, None where no run is."""
    if not os.path.lexists(run):
        return None
    name = f"{run.name}.{datetime.now():%Y%m%d-%H%M%S}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    aside = next(path for path in map(run.with_name, names) if not os.path.lexists(path))
    return run.rename(aside)


def environment(device: torch.device | str = "cpu") -> dict:
    """The command, the code's version and the machine, for a result that is to be believed later."""
    device = torch.device(device)
    return {
        "command": shlex.join(["python", "-m", "course_lib", *sys.argv[1:]])
        if Path(sys.argv[0]).name == "__main__.py"
        else Path(sys.argv[0]).name,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
    }


def commit() -> str:
    """The commit of the course that runs, "+" behind it where files were changed since."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
