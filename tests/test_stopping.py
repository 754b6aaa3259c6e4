import os
import signal
import subprocess
import sys
import threading

import pytest

from course_lib import stopping
from course_lib.stopping import STOP_SIGNALS, Stop, Stopped, stop_signals

WORDS = {signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


def tell(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_leaves_a_note_and_ends_what_is_being_done_when_that_is_asked(number):
    """SIGTERM and SIGHUP lost the epoch without a word."""
    usual = {one: signal.getsignal(one) for one in STOP_SIGNALS}
    with stop_signals() as stop:
        assert stop.number is None
        tell(number)
        assert stop.number == number
    assert {one: signal.getsignal(one) for one in STOP_SIGNALS} == usual
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):
            stop.end()
    else:
        with pytest.raises(Stopped, match=f"by {WORDS[number]}; what was computed is kept") as end:
            stop.end()
        assert end.value.code == 128 + number  # as a shell tells of a process that a signal has ended


def test_the_first_signal_counts_whatever_comes_after_it():
    """systemd sends SIGHUP right after SIGTERM, torchrun the terminal's SIGINT once more."""
    with stop_signals() as stop:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            tell(number)
        assert stop.number == signal.SIGTERM


def test_who_presses_ctrl_c_again_does_not_want_to_wait(monkeypatch):
    with stop_signals() as stop:
        tell(signal.SIGINT)
        tell(signal.SIGINT)  # of the same moment
        monkeypatch.setattr(stopping, "TWICE", -1)
        with pytest.raises(KeyboardInterrupt):
            tell(signal.SIGINT)
        assert stop.number == signal.SIGINT


@pytest.mark.parametrize("number", WORDS)
def test_where_all_is_kept_already_a_signal_ends_at_once(number):
    with stop_signals() as stop:
        with pytest.raises(Stopped), stop.at_once():
            tell(number)
        with pytest.raises(Stopped), stop.at_once():  # and one that came before
            pytest.fail("begun")
    again = Stop()
    with again.at_once():
        pass
    again(number, None)
    assert again.number == number


def test_what_is_ignored_stays_ignored():
    """A run under nohup lives on when the terminal is closed."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            tell(signal.SIGHUP)
            assert stop.number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_within_another_the_inner_one_is_told_and_the_outer_ones_place_is_restored():
    with stop_signals() as outer:
        with stop_signals() as inner:
            tell(signal.SIGTERM)
        tell(signal.SIGHUP)
    assert (inner.number, outer.number) == (signal.SIGTERM, signal.SIGHUP)


def test_in_another_thread_there_are_no_signals_and_no_error():
    seen = []

    def run():
        with stop_signals() as stop:
            seen.append(stop.number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


LOADER = """
import os, signal
from course_lib import stopping
stopping.GRACE = 1
stopping.outlive_signals(0)
for number in stopping.STOP_SIGNALS:
    os.kill(os.getpid(), number)
print("alive", flush=True)
signal.pause()
"""


@pytest.mark.slow
def test_a_loader_outlives_a_signal_but_not_for_long():
    done = subprocess.run([sys.executable, "-c", LOADER], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n" and done.returncode == -signal.SIGALRM, done.stderr
