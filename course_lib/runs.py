"""A run's folder: what training leaves in it, where that is from, and whether a run may go on from it.

state.pt is the run: a run goes on from it, in the middle of an epoch too. For others to read there are last.safetensors
and best.safetensors, history.jsonl (one record an epoch) and provenance.json; they are made from the state, and made
again where they are missing or say something else. state.before.pt is the state before, for the day when the disk has
spoilt the last one.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from itertools import count
from math import isfinite
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from course_lib import machine, weights
from course_lib.files import DataError, as_json, clear_unfinished, plain, write_whole
from course_lib.recipes import BY_MACHINE, Recipe
from course_lib.ssd import SSD

STATE, BEFORE, LOCK = "state.pt", "state.before.pt", ".lock"
START, STARTED_FROM = "start.safetensors", "started_from"  # first weights, and what these say of where they are from

# Fields of a recipe with which a run may go on otherwise than it began, where that is asked for by name: the way on
# from the last good state of a run whose losses became NaN. More epochs may be asked for besides.
CHANGEABLE = ("learning_rate", "warmup_steps", "clip_norm")
DEFAULTS = {one.name: one.default for one in fields(Recipe) if one.default is not MISSING}

ANEW = "choose another folder, or --fresh, which moves this one aside"
REMADE = "the run's train command makes it again from state.pt"


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


def take_up(
    run: Path,
    model: SSD,
    asked: dict,
    may_change: Collection[str] = (),
) -> dict | None:
    """The state from which a run goes on; None where it begins.

    Args:
        model: the one that is to go on; it stays as it is.
        asked: what must be the same: the recipe, the loss, the number of images, and `identity_of` the model.
        may_change: fields of the recipe, of `CHANGEABLE`, that may differ. More epochs are always allowed.

    Returns:
        What `save` was given, complete also where an earlier edition wrote it, and the name of its "file". What is
        asked for otherwise now, and was not refused, is the last of its "changes".

    Raises:
        RunError: the folder holds a run of another model, recipe, loss or size, or a broken one.
    """
    saved, last = read_state(run), run / "last.safetensors"
    if saved is None:
        if last.exists():  # weights that someone keeps here, or what an earlier edition wrote before its first state
            require(asked, identity_of(weights.load(last)), last)
        return None
    begun = {name: saved[name] for name in asked if name in saved}
    begun["recipe"] = DEFAULTS | begun["recipe"]  # a field that a later edition has added
    # Older states name no model, or none of its classes; whether theirs is the same, the tensors tell.
    changes = require(asked, begun, run, may_change)
    if misfits := weights.compare(model.state_dict(), saved["model"]):
        raise RunError(
            f"{run} was started with another model than the {model.architecture} with num_classes="
            f"{model.num_classes} that is asked for now ({textwrap.shorten(misfits, 200)}): {ANEW}"
        )
    saved = completed(saved, run)
    if changes:
        when = {"epochs_done": len(saved["history"]), "batches_done": saved["done"]}
        saved["changes"] = [*saved["changes"], when | changes]
    return saved


def require(asked: dict, begun: dict, path: Path, may_change: Collection[str] = ()) -> dict[str, dict]:
    """Refuse to go on with what was begun otherwise; the message names all that differs, and nothing else.

    Returns:
        What differs and may, as {"was": {field: value}, "now": {field: value}}; empty where nothing does.
    """
    asked = flat({name: value for name, value in asked.items() if name in begun})
    begun = flat(begun)
    names = [name for name in asked | begun if name not in BY_MACHINE]
    differing = [name for name in names if asked.get(name) != begun.get(name)]
    changed = [name for name in differing if name in may_change and name in CHANGEABLE]
    if "epochs" in differing and asked["epochs"] > begun["epochs"]:
        changed.append("epochs")
    if refused := [name for name in differing if name not in changed]:
        was, now = (", ".join(f"{name}={one.get(name)!r}" for name in refused) for one in (begun, asked))
        by_name = " ".join(f"--recipe {name}={asked.get(name)}" for name in refused)
        cure = f"to go on with that on purpose, {by_name}; or {ANEW}" if {*refused} <= {*CHANGEABLE} else ANEW
        raise RunError(f"{path} was started with {was}, which is not what is asked for now ({now}): {cure}")
    pairs = zip(("was", "now"), (begun, asked), strict=True)
    return {when: {name: one[name] for name in changed} for when, one in pairs} if changed else {}


def flat(asked: dict) -> dict:
    """The recipe's numbers beside the others."""
    return asked.get("recipe", {}) | {name: value for name, value in asked.items() if name != "recipe"}


def save(run: Path, model: SSD, state: dict) -> None:
    """Keep a run as it stands. One write decides: that of the state, from which every other file is made.

    A state holds the model, the optimiser's momenta and the best epoch's weights: of SSD300 with 21 classes 105 MB
    each, so 0.3 GB with SGD, which has one momentum, and 0.4 GB with AdamW, which has two; the state before as much
    again, and last and best 105 MB each.

    Args:
        state: what `take_up` will give; its "model" and "history" are what the files for others are made from.

    Raises:
        RunError: weights or momenta are not finite, or the disk refuses; the state that was there stays.
    """
    kept = {"model": state["model"]} | {
        f"momentum {number}": one for number, one in state["optimizer"]["state"].items()
    }
    if names := [f"{part} {name}" for part, one in kept.items() for name in weights.not_finite(one)]:
        became = f"{weights.some_of(names, 3)} became NaN or infinite, and are not saved"
        raise RunError(f"{run}: {became}; {way_on(run, state['recipe'])}")
    state = state | {name: plain(state[name]) for name in ("history", "provenance")}
    try:
        weights.write_state(run / STATE, state, run / BEFORE)
        write_results(run, model, state)
    except OSError as error:
        raise RunError(
            f"{error.filename or run} cannot be written ({error.strerror}): give it room, and the same command goes on "
            f"from the state in {run}"
        ) from None


def way_on(run: Path, recipe: dict) -> str:
    """What to do where the losses became NaN."""
    lower = f"--recipe learning_rate={recipe['learning_rate'] / 2:g}"
    if has_state(run):
        return f"{run / STATE} is as it was before: the same command with {lower} goes on from there"
    return f"nothing of this run was saved before: begin it with {lower}"


def settle(run: Path, model: SSD, state: dict) -> None:
    """Make a run's files agree with the state that was taken up; a broken one becomes state.broken.pt.

    Else the next save would make it the state before, and there were none to fall back to.
    """
    if state["file"] == BEFORE and (run / STATE).exists():
        (run / STATE).replace(run / "state.broken.pt")
    write_results(run, model, state)


def write_results(run: Path, model: SSD, state: dict) -> None:
    """Write last and best weights, history and provenance, each where the file does not say what the state says."""
    texts = {"history.jsonl": "".join(f"{as_json(record)}\n" for record in state["history"])}
    if state["provenance"]:
        texts["provenance.json"] = f"{as_json(state['provenance'], indent=2)}\n"
    for name, text in texts.items():
        try:
            same = (run / name).read_bytes() == text.encode()
        except OSError:
            same = False
        if not same:
            write_whole(run / name, text)
    about = weights.describe(model)
    for name, tensors in (("last", state["model"]), ("best", state["best"] or state["model"])):
        if not holds(path := run / f"{name}.safetensors", tensors, about):
            weights.write(tensors, about, path)


def holds(path: Path, tensors: Mapping[str, torch.Tensor], about: dict[str, str]) -> bool:
    """Whether a file of weights is whole and holds these."""
    try:
        said, found = weights.read(path)
    except DataError:
        return False
    same = found.keys() == tensors.keys() and said == about
    return same and all(torch.equal(found[name], tensor.cpu()) for name, tensor in tensors.items())


def best_epoch(history: list[dict]) -> int | None:
    """The first epoch with the highest mAP, None where nothing was measured; what is no number was not."""
    measured = [record for record in history if record.get("map") is not None and isfinite(record["map"])]
    return max(measured, key=lambda record: record["map"])["epoch"] if measured else None


def known_of(run: Path) -> dict:
    """What a run has said of itself when it was last kept; empty where it has not come so far.

    Raises:
        RunError: its state is broken.
    """
    with suppress(RunError, DataError):
        return read_provenance(run)
    saved = read_state(run)
    return (saved and saved.get("provenance")) or {}


def started_from(run: Path) -> dict | None:
    """Which weights a run was started from, where it was told to: "file", "sha256", and what of them it has taken."""
    if (run / START).exists():
        with suppress(DataError, ValueError):
            return json.loads(weights.read(run / START)[0].get(STARTED_FROM, "null"))
    return known_of(run).get(STARTED_FROM)


def has_state(run: Path) -> bool:
    """Whether a run is past its start: then it goes on from its state, and needs nothing else."""
    return (run / STATE).exists() or (run / BEFORE).exists()


def read_state(run: Path) -> dict | None:
    """The state from which a run goes on, or with a warning the one before where that is broken; None without any.

    Its tensors are on the CPU.

    Raises:
        RunError: none of them is whole, or a run's.
    """
    faults = []
    for path in filter(Path.exists, (run / STATE, run / BEFORE)):
        try:
            saved = sound_state(path)
        except DataError as error:
            faults.append(str(error))
            continue
        if path.name == BEFORE:
            fault = faults[0] if faults else f"{run / STATE} is missing"
            stands = f"the run goes on from the state before, {path.name}: {standing(saved)}"
            warnings.warn(f"{fault}; {stands}", RuntimeWarning, stacklevel=2)
        return saved | {"file": path.name}
    if faults:
        raise RunError(f"{'; '.join(faults)}: restore {STATE} or {BEFORE}, or {ANEW}")
    return None


def sound_state(path: Path) -> dict:
    """The state in a file, under today's names.

    Raises:
        DataError: it is broken, no run's, or holds weights that are not finite.
    """
    saved = weights.read_state(path)
    names = ("recipe", "loss", "images", "model", "optimizer", "schedule", "scaler", "history", "seconds")
    if missing := [name for name in names if name not in saved]:
        raise DataError(path, ", ".join(missing), "missing", "this is no run's state")
    saved |= {name: weights.in_todays_names(saved[name]) for name in ("recipe", "model")}
    if names := weights.not_finite(saved["model"]):
        raise DataError(path, "weights", f"not finite in {weights.some_of(names, 3)}", "the losses became NaN")
    return saved


def completed(saved: dict, run: Path) -> dict:
    """A state with all that today's have: an earlier edition's was of a whole epoch, and knew no best weights."""
    if "best" in saved:
        return saved
    saved = saved | {"done": 0, "elapsed": 0.0, "sums": {}, "random": {}, "changes": [], "provenance": {}}
    with suppress(RunError, DataError):
        saved["provenance"] = read_provenance(run)
    best = best_epoch(saved["history"])
    if best in (None, len(saved["history"])):
        return saved | {"best": saved["model"] if best else None}
    path = run / "best.safetensors"
    try:
        found = weights.read(path)[1]
        if weights.compare(saved["model"], found):
            raise DataError(path, "weights", "another model's", "nothing can be done")
    except DataError as error:
        text = (
            f"{error}; this run's state is from before states kept the best weights, so those of epoch {best} are gone"
        )
        warnings.warn(f"{text}, and the last stand for them", RuntimeWarning, stacklevel=2)
        found = saved["model"]
    return saved | {"best": found}


def standing(state: dict) -> str:
    """How far a run has come, in words."""
    return f"{len(state['history'])} epochs and {state.get('done', 0)} batches of the next are done"


def read_history(run: str | Path) -> list[dict]:
    """The records of a run, one an epoch.

    Raises:
        RunError: there is none.
        DataError: a line is no record.
    """
    path, records = Path(run) / "history.jsonl", []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run is finished yet, or it is no run's folder") from None
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "epoch" not in record:
            shown = textwrap.shorten(line.decode(errors="replace"), 60)
            raise DataError(path, f"line {number}", shown, f"it should be an epoch's record: {REMADE}")
        records.append(record)
    return records


def read_provenance(run: str | Path) -> dict:
    """What a run says of itself: at least its best epoch.

    Raises:
        RunError: there is none.
        DataError: it is no JSON, or not what `save` wrote.
    """
    path = Path(run) / "provenance.json"
    try:
        provenance = json.loads(path.read_bytes())
    except FileNotFoundError:
        command = shlex.join(["python", "-m", "course_lib", "train", "--run", str(run)])
        raise RunError(f"{path} is missing: train first, {command}") from None
    except ValueError as error:
        raise DataError(path, "JSON", str(error), REMADE) from None
    if not isinstance(provenance, dict) or "best_epoch" not in provenance:
        raise DataError(path, "best_epoch", "missing", f"it should be a run of this program's train: {REMADE}")
    return provenance


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Have a run's folder for this process alone, made and writable; the parts that dead processes left in it go.

    The lock ends with the process, however that ends. Held twice by one process it is one lock.

    Raises:
        RunError: another process holds it, or nothing can be written there.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_whole(run / ".probe", bytes(4096))
        (run / ".probe").unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{run} cannot be written ({error.strerror}): make room there, or name another folder") from None
    with locked(run):
        clear_unfinished(run)
        yield


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; see `held`."""
    lock = FileLock(run.resolve() / LOCK, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = (run / LOCK).read_text() or "another process"
        raise RunError(f"{run} is trained into by {who}: wait for its end, or choose another folder") from None
    except OSError as error:  # some network's disks have no locks
        text = f"{run} cannot be locked ({error.strerror}): take care that no other process trains into it"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    try:
        with suppress(OSError):
            (run / LOCK).write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


def move_aside(run: Path) -> Path | None:
    """Rename a run's folder, to a name that nothing has; nothing is deleted. Gives the name, None where no run is.

    Raises:
        RunError: another process is training into it.
    """
    if not os.path.lexists(run):
        return None
    name = f"{run.name}.{datetime.now():%Y%m%d-%H%M%S}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    aside = next(path for path in map(run.with_name, names) if not os.path.lexists(path))
    with locked(run):
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
        "cores": machine.cores(),
    }


def commit() -> str:
    """The commit of the course that runs, "+" behind it where files were changed since.

    Recorded results do not count: an experiment that adds to its own goes on from them as from those of the commit.
    """
    folder = Path(__file__).parent
    code = ["--", ":/", *(f":(top,exclude){name}/results" for name in ("experiments", "benchmarks"))]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", *code], cwd=folder, check=False).returncode
        return described.stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
