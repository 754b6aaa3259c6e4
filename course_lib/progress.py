"""How far a run has come: the numbers of its steps, the records of its epochs, and what a state of it holds."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from course_lib import runs
from course_lib.loaders import rank, world_size
from course_lib.recipes import Recipe
from course_lib.ssd import SSD


class Readings:
    """The numbers of steps, read without waiting for the device: on a GPU one step late, when they are there.

    Attributes:
        late: steps by which they are late.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.late = device, 1 if device.type == "cuda" else 0
        self.waiting: deque[tuple[dict, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def add(self, numbers: dict[str, Tensor], known: dict) -> None:
        """Ask for the numbers of a step, of which something is `known` already."""
        values = torch.stack([value.detach().float() for value in numbers.values()]).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if self.device.type == "cuda" else None
        if arrived:
            arrived.record()
        self.waiting.append((known, list(numbers), values, arrived))

    def read(self, late: int) -> Iterator[dict]:
        """The numbers of all steps that were not read before, but for the last `late`."""
        while len(self.waiting) > late:
            known, names, values, arrived = self.waiting.popleft()
            if arrived:
                arrived.synchronize()
            yield known | dict(zip(names, values.tolist(), strict=True))


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's random numbers: the CPU's, and the device's."""
    on_gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state()} | on_gpu


def restore_random(states: dict[str, Tensor], device: torch.device) -> None:
    """Go on with random numbers where `random_states` was."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


class Progress:
    """How far a run has come, beside what its network and optimizer have learned; kept in the run's folder.

    Args:
        run: the folder.
        model: the one that the run trains.
        recipe, loss: with which; a loss is known again by its `repr`.
        images: of the training set.
        notes: further facts for the provenance.
        follow: called with the numbers of every step.

    Attributes:
        history: a record for each epoch that is done.
        best: the best epoch's weights, on the CPU; None where nothing was measured.
        changes: what of the recipe was changed on the way, and when.
        seconds: of computing, in all.
        done, elapsed, sums: of the epoch that is under way: its steps, seconds, and the sums of its steps' numbers.
    """

    def __init__(
        self,
        run: Path,
        model: SSD,
        recipe: Recipe,
        loss: Callable,
        images: int,
        notes: dict,
        follow: Callable[[dict], None],
    ) -> None:
        self.run, self.model, self.recipe, self.loss = run, model, recipe, loss
        self.images, self.notes, self.follow = images, notes, follow
        self.device = model.priors.device
        self.readings = Readings(self.device)
        self.history: list[dict] = []
        self.changes: list[dict] = []
        self.best: dict[str, Tensor] | None = None
        self.seconds, self.clock = 0.0, time.monotonic()
        self.saved_at = self.clock
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Nothing of the next epoch is done yet."""
        self.done, self.elapsed = 0, 0.0
        self.sums: dict[str, Tensor] = {}

    def add(self, numbers: dict[str, Tensor]) -> None:
        """Count a step in the epoch that is under way."""
        # Summed on the device: reading a number here would make the CPU wait for the GPU.
        sums = {name: self.sums.get(name, 0.0) + value for name, value in numbers.items()}
        longest = torch.maximum(self.sums.get("grad_norm_max", numbers["grad_norm"]), numbers["grad_norm"])
        self.sums = sums | {"grad_norm_max": longest}
        self.done += 1

    def means(self) -> dict[str, float]:
        """The means of the steps' numbers since the epoch began, its longest gradient and its pace."""
        means = {name: value.item() / self.done for name, value in self.sums.items()}
        pace = round(self.images / self.elapsed, 1)
        return means | {"grad_norm_max": self.sums["grad_norm_max"].item(), "images_per_second": pace}

    def start_clock(self) -> None:
        """What has gone by since the last count is not the run's."""
        self.clock = time.monotonic()

    def count_time(self) -> None:
        """Add what has gone by to the run's seconds, and to the epoch's."""
        passed = time.monotonic() - self.clock
        self.clock += passed
        self.seconds, self.elapsed = self.seconds + passed, self.elapsed + passed

    def minutes_unsaved(self) -> float:
        """Since the run was begun, taken up or saved."""
        return (time.monotonic() - self.saved_at) / 60

    def record(self, numbers: dict) -> None:
        """An epoch is done, with what is to be known of it; where it is the best so far, its weights are kept."""
        self.count_time()
        self.history.append(numbers | {"seconds": round(self.seconds, 1)})
        if runs.best_epoch(self.history) == len(self.history):
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        self.begin_epoch()

    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        if len(self.history) >= self.recipe.epochs:
            return True
        best = runs.best_epoch(self.history)
        if self.recipe.patience is None or best is None:
            return False
        return sum(r["epoch"] > best and r.get("map") is not None for r in self.history) >= self.recipe.patience

    def note(self, numbers: dict[str, Tensor], known: dict) -> None:
        """Pass the numbers of a step on, with what is `known` of it, unless they are not finite: then the run stops.

        On a GPU those of the step before: see `Readings`.
        """
        self.readings.add(numbers, known)
        self.pass_on(self.readings.late)

    def pass_on(self, late: int = 0) -> None:
        """Pass on what was not yet, but for the last `late` steps.

        Raises:
            RunError: a number is not finite.
        """
        for numbers in self.readings.read(late):
            images = ", ".join(numbers.pop("images"))
            wrong = {name: value for name, value in numbers.items() if not isfinite(value)}
            if wrong:
                raise runs.RunError(
                    f"{self.run}: epoch {numbers['epoch']}, step {numbers['step']} gave "
                    f"{', '.join(f'{name}={value}' for name, value in wrong.items())} on the images {images}. "
                    f"Halve the learning rate, or lengthen the warmup; {runs.way_on(self.run, asdict(self.recipe))}"
                )
            self.follow(numbers)

    def asked(self) -> dict:
        """What must be the same when a run goes on."""
        asked = {"recipe": asdict(self.recipe), "loss": repr(self.loss), "images": self.images}
        return asked | runs.identity_of(self.model)

    def state(self) -> dict:
        """How far the run has come, as a state holds it."""
        return {
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "done": self.done,
            "elapsed": self.elapsed,
            "sums": self.sums,
            "changes": self.changes,
            "random": random_states(self.device),
        }

    def save(self, learned: dict[str, dict]) -> None:
        """Keep the run as it stands; only one process writes.

        Args:
            learned: the states of the model, the optimizer, the schedule and the scaler, by these names.
        """
        self.count_time()
        if rank() == 0:
            state = self.asked() | learned | self.state() | {"provenance": self.provenance()}
            runs.save(self.run, self.model, state)
        self.saved_at = time.monotonic()

    def take_up(self, may_change: Collection[str]) -> dict | None:
        """The state from which the run goes on, None where it begins; nothing changes until `restore`.

        Raises:
            RunError: the folder holds a run of another model, recipe, loss or size, or a broken one.
        """
        return runs.take_up(self.run, self.model, self.asked(), may_change)

    def restore(self, saved: dict) -> None:
        """Stand where a state stands, and make the folder's other files agree with it."""
        self.history, self.seconds, self.changes = saved["history"], saved["seconds"], saved["changes"]
        self.done, self.elapsed, self.best = saved["done"], saved["elapsed"], saved["best"]
        self.sums = {name: value.to(self.device) for name, value in saved["sums"].items()}
        restore_random(saved["random"], self.device)
        if rank() == 0:
            provenance = saved["provenance"] or self.provenance()
            runs.settle(self.run, self.model, saved | {"provenance": provenance})

    def provenance(self) -> dict:
        """Where these weights are from."""
        return (
            self.notes
            | {
                "finished": self.finished(),
                "epochs_done": len(self.history),
                "best_epoch": runs.best_epoch(self.history),
                "seconds": round(self.seconds, 1),
                "training_images": self.images,
                "architecture": self.model.architecture,
                "classes": list(self.model.classes),
                "recipe": asdict(self.recipe),
                "loss": repr(self.loss),
                "processes": world_size(),
            }
            | ({"changes": self.changes} if self.changes else {})
            | runs.environment(self.device)
        )
