"""What a training shows while it runs: one moving line on a terminal, a line now and then in a file."""

import time
from collections import deque
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from course_lib.doctor import Finding

WINDOW = 30.0  # seconds over which the pace is measured
MOVES, LINES = 1.0, 60.0  # seconds from one look at a step to the next, on a terminal and in a file


class Live:
    """Shows the steps and the epochs of a `training.Trainer`, of which it is `follow` and `report`.

    Args:
        console: where the line moves, if it is a terminal.
        say: prints a line.
        epochs: of the whole run.
        batch_size: images of a step.
        clock: gives seconds.

    It is a context, in which the line is there.
    """

    def __init__(
        self,
        console: Console,
        say: Callable[[str], None],
        epochs: int,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.say, self.epochs, self.batch_size, self.clock = say, epochs, batch_size, clock
        self.seen: deque[tuple[float, int]] = deque()
        self.shown = clock()
        columns = BarColumn(bar_width=16), TextColumn("{task.description}", markup=False)
        # Refreshed by `follow` and not by a thread: a loader's process that is forked meanwhile would hold its locks.
        self.progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self.moves = console.is_terminal and not console.is_dumb_terminal
        self.task = self.progress.add_task("reading the first images", total=None)

    def __enter__(self) -> "Live":
        if self.moves:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.moves:
            self.progress.stop()

    def follow(self, numbers: dict) -> None:
        """Take note of a step, and show it if the last one that was shown is long enough ago."""
        now = self.clock()
        self.seen.append((now, numbers["step"]))
        while len(self.seen) > 2 and now - self.seen[0][0] > WINDOW:
            self.seen.popleft()
        if now - self.shown < (MOVES if self.moves else LINES):
            return
        self.shown = now
        if self.moves:
            text = self.words(numbers)
            self.progress.update(self.task, description=text, completed=numbers["step"], total=numbers["steps"])
            self.progress.refresh()
        else:
            self.say(self.words(numbers))

    def report(self, record: dict) -> None:
        """Print the line of an epoch. The pace is measured anew: what comes between two epochs is no training."""
        self.seen.clear()
        self.say(words_of_epoch(record))

    def finding(self, one: Finding) -> None:
        """Print what `doctor.VitalSigns` has found, in one line."""
        self.say(f"{one.severity}: {one.seen}: {one.cure} (chapter {one.chapter})")

    def words(self, numbers: dict) -> str:
        """A step in words: where it is, how fast, what it gave, and how long the training will take from here."""
        steps_of_epoch = max(1, numbers["steps"] // self.epochs)
        done = (numbers["step"] - 1) % steps_of_epoch + 1
        begun, first = self.seen[0]
        seconds, steps = self.seen[-1][0] - begun, numbers["step"] - first
        words = [
            f"epoch {numbers['epoch']}/{self.epochs}, step {done}/{steps_of_epoch}",
            f"rate {numbers['lr']:.2g}, box {numbers['loc']:.2f}, class {numbers['conf']:.2f}",
            f"gradient {numbers['grad_norm']:.1f}",
        ]
        if seconds > 0 and steps > 0:
            words.insert(1, f"{steps * self.batch_size / seconds:.0f} images/s")
            words.append(f"{in_words((numbers['steps'] - numbers['step']) * seconds / steps)} left")
        return "  ".join(words)


def words_of_epoch(record: dict) -> str:
    """A record of the history as a line."""
    measured = f"  mAP {record['map']:.3f}" if record.get("map") is not None else ""
    return (
        f"epoch {record['epoch']:3d}  {record['images']:7d} images  {record['seconds']:7.0f} s  "
        f"box {record['loc']:.2f}  class {record['conf']:.2f}{measured}"
    )


def in_words(seconds: float) -> str:
    """A time as one says it: "40 s", "12 min", "3.5 hours"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} hours"
