import io
import re

import pytest
from rich.console import Console

from course_lib.doctor import Finding
from course_lib.live import Live, in_words, words_of_epoch


def numbers(step: int, **others: float) -> dict:
    usual = {"epoch": (step - 1) // 50 + 1, "step": step, "steps": 200, "lr": 0.00125}
    return usual | {"loc": 2.0, "conf": 3.25, "grad_norm": 8.04} | others


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(terminal: bool, steps: range, seconds: float, epochs: int = 4) -> tuple[list[str], str]:
    """The lines that are printed, and what the console shows, of steps that take so many seconds each."""
    file, lines, clock = io.StringIO(), [], Clock()
    console = Console(file=file, force_terminal=terminal, width=200, _environ={"TERM": "xterm"})
    with Live(console, lines.append, epochs, batch_size=32, clock=clock) as live:
        for step in steps:
            clock.now += seconds
            live.follow(numbers(step))
            if step % 50 == 0:
                live.report({"epoch": step // 50, "images": step * 32, "seconds": clock.now, "loc": 2, "conf": 3.25})
    return lines, file.getvalue()


def test_in_a_file_a_line_a_minute_and_a_line_an_epoch():
    lines, text = shown(terminal=False, steps=range(1, 101), seconds=2.0)
    assert text == "" and len(lines) == 5
    assert lines[0] == (
        "epoch 1/4, step 30/50  16 images/s  rate 0.0013, box 2.00, class 3.25  gradient 8.0  6 min left"
    )
    assert [line.split(",")[0][:9] for line in lines] == [
        "epoch 1/4",
        "epoch   1",
        "epoch 2/4",
        "epoch 2/4",
        "epoch   2",
    ]


def test_a_short_run_prints_its_epochs_and_nothing_else():
    lines, _ = shown(terminal=False, steps=range(1, 51), seconds=0.1)
    assert lines == ["epoch   1     1600 images        5 s  box 2.00  class 3.25"]


def test_on_a_terminal_the_line_moves_at_most_once_a_second():
    lines, text = shown(terminal=True, steps=range(1, 41), seconds=0.25)
    assert lines == [] and len(re.findall(r"step \d+/50", text)) in (10, 11)
    assert "step 40/50  128 images/s" in text and "gradient 8.0  40 s left" in text


def test_a_run_that_goes_on_has_the_pace_of_its_own_steps():
    lines, _ = shown(terminal=False, steps=range(151, 200), seconds=4.0)
    assert "epoch 4/4, step 15/50  8 images/s" in lines[0] and lines[0].endswith("  2 min left")


def test_the_time_between_two_epochs_is_no_training():
    clock, lines = Clock(), []
    live = Live(Console(file=io.StringIO()), lines.append, 4, batch_size=32, clock=clock)
    for step in range(45, 60):
        clock.now += 100 if step == 51 else 1
        live.follow(numbers(step))
        if step == 50:
            live.report({"epoch": 1, "images": 1600, "seconds": 50, "loc": 2, "conf": 3})
    clock.now += 61
    live.say(live.words(numbers(59)))
    assert "  32 images/s" in lines[-1]


@pytest.mark.parametrize(("value", "said"), [(0.5, "  mAP 0.500"), (0.0, "  mAP 0.000"), (None, "")])
def test_a_measurement_that_failed_is_no_number(value, said):
    line = words_of_epoch({"epoch": 1, "images": 64, "seconds": 3.0, "loc": 2.0, "conf": 3.0, "map": value})
    assert line.endswith(f"class 3.00{said}")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (40.4, "40 s"), (99, "99 s"), (120, "2 min"), (5900, "98 min"), (12600, "3.5 hours")],
)
def test_a_time_is_said_in_the_unit_that_fits(seconds, words):
    assert in_words(seconds) == words


def test_a_finding_is_one_line_with_its_cure():
    lines = []
    Live(Console(file=io.StringIO()), lines.append, 1, 32).finding(Finding("fault", "rate 0", "why", "raise it", 9))
    assert lines == ["fault: rate 0: raise it (chapter 9)"]
