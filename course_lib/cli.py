"""The command line: `python -m course_lib`. Each command is a function of a module `commands_…`."""

import sys

import typer

from course_lib import (
    commands_data,
    commands_detect,
    commands_doctor,
    commands_evaluate,
    commands_export,
    commands_split,
    commands_train,
    training,
)
from course_lib.files import DataError
from course_lib.runs import RunError
from course_lib.stopping import Stopped
from course_lib.terminal import complain

app = typer.Typer(
    help="SSD from Scratch: make data, examine, train, measure, detect, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # a box would break the paths in a message
)
app.command("emoji-voc")(commands_data.emoji_voc_command)
app.command("download")(commands_data.download_command)
app.command()(commands_data.check)
app.command()(commands_split.split)
app.command()(commands_train.train)
app.command()(commands_evaluate.evaluate)
app.command()(commands_detect.detect)
app.command()(commands_doctor.doctor)
app.command("export")(commands_export.export_command)


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
