"""Signals that wait for a step's end: a training that is told to stop keeps what it has computed."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Stopped(SystemExit):
    """A signal has ended a training, whose last step is kept; the exit code is 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"by {signal.Signals(self.number).name}; what was computed is kept, and the same command goes on"


class Stop:
    """What a signal has asked of a training that looks here between two steps.

    Attributes:
        number: the signal's; None as long as there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.since, self.immediate = 0.0, False

    def __call__(self, number: int, frame: object) -> None:
        """Take note of a signal; Ctrl-C a second time, and not just from two senders, ends what is being done."""
        again = number == self.number == signal.SIGINT and time.monotonic() - self.since > TWICE
        if self.number is None:
            self.number, self.since = number, time.monotonic()
        if again or self.immediate:
            self.end()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal ends what is being done: all that counts is kept already."""
        self.immediate = True
        try:
            if self.number is not None:
                self.end()
            yield
        finally:
            self.immediate = False

    def end(self) -> NoReturn:
        """End the process as the signal would have: Ctrl-C as ever, the others by `Stopped`."""
        raise KeyboardInterrupt if self.number == signal.SIGINT else Stopped(self.number)


# Ctrl-C; a machine that is taken away (a spot machine's two minutes); a terminal that is closed.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TWICE = 1  # second; torchrun and the terminal both tell every process of one Ctrl-C
GRACE = 30  # seconds that a loader outlives a signal


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Let signals wait for the end of a step: within, they only leave a note, which is to be looked at.

    What is ignored stays so (`nohup` ignores SIGHUP). In another thread than the main one Python has no signals.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # None: a handler that was not set by Python, and cannot be set again.
    usual = {one: handler for one in STOP_SIGNALS if (handler := signal.getsignal(one)) not in (signal.SIG_IGN, None)}
    try:
        for one in usual:
            signal.signal(one, stop)
        yield stop
    finally:
        for one, handler in usual.items():
            signal.signal(one, handler)


def outlive_signals(worker: int) -> None:
    """Let a loader's process live a little longer than a signal: for `DataLoader(worker_init_fn=...)`.

    A machine that is taken away tells all processes at once. Without its loaders the trainer would fail before its step
    is done; with them it ends, and they with it.
    """
    for one in STOP_SIGNALS:
        signal.signal(one, lambda number, frame: signal.alarm(GRACE))
