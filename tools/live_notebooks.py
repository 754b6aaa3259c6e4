"""A pytest plugin for nbmake: says how far each notebook is, and keeps each that has passed for the book.

    python -m pytest -q -s -p tools.live_notebooks --nbmake book/04_priors.ipynb

Notebooks that are not the book's own are executed in the same way and not kept.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbmake import nb_run, pytest_items
from nbmake.nb_result import NotebookResult
from traitlets import Any

from tools import notebooks

EVERY = 15  # seconds between two lines


class Progress:
    """Lines such as `04_priors: cell 12 of 38, 75 s`, one every 15 seconds; plain ones, for CI's logs too."""

    def __init__(self, path: Path) -> None:
        self.name, self.cell, self.cells, self.interrupted = path.stem, 0, 0, False
        self.start = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{self.name}: {what}, {time.monotonic() - self.start:.0f} s", flush=True)

    @contextmanager
    def lines(self) -> Iterator[None]:
        """A line now, and one every 15 seconds until the end."""
        over = threading.Event()

        def tell() -> None:
            self.say("started")
            while not over.wait(EVERY):
                self.say(f"cell {self.cell} of {self.cells}")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()


class Client(NotebookClient):
    """Executes a notebook, tells a `Progress` where it is, and has no limit that a slow machine breaks."""

    progress = Any()
    startup_timeout = 3600
    # An output that comes late is waited for. After nbclient's 4 seconds it would be missing from the book.
    iopub_timeout = 3600
    raise_on_iopub_timeout = True

    async def async_start_new_kernel(self, **options) -> None:
        # At Ctrl-C nbclient would end the kernel alone, and pytest would go on with the next notebook.
        executing = asyncio.current_task()

        def interrupt() -> None:
            if not self.progress.interrupted:  # a second signal would interrupt the end of the kernel
                self.progress.interrupted = True
                executing.cancel()

        for interruption in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(interruption, interrupt)
        await super().async_start_new_kernel(**options)

    async def async_execute_cell(self, cell, cell_index: int, **options):
        code = [index for index, one in enumerate(self.nb.cells) if one.cell_type == "code"]
        self.progress.cell, self.progress.cells = sum(index <= cell_index for index in code), len(code)
        return await super().async_execute_cell(cell, cell_index, **options)


class Run(nb_run.NotebookRun):
    """One notebook from its start until it is kept."""

    def execute(self) -> NotebookResult:
        path = Path(self.filename)
        if not notebooks.claimed(path.stem):
            pytest.skip("another process executes it")
        chapter = path.with_suffix(".md") if path.parent == notebooks.BOOK else None
        key = notebooks.key(chapter) if chapter else ""  # of the library with which the kernel starts
        progress = Progress(path)
        nb_run.NotebookClient = partial(Client, progress=progress)
        try:
            with progress.lines():
                result = super().execute()
        except (asyncio.CancelledError, DeadKernelError):
            if progress.interrupted:
                raise KeyboardInterrupt from None
            raise
        if result.error:
            progress.say(f"failed in cell {progress.cell} of {progress.cells}")
            return result
        if chapter:
            notebooks.store(chapter, result.nb, key)
        progress.say("passed and kept" if chapter else "passed")
        return result


pytest_items.NotebookRun = Run


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """The lines say it already: no dots between them."""
    return (report.outcome, "", report.outcome.upper() if report.failed else "") if report.when == "call" else None
