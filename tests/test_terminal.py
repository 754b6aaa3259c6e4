import os
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from command_line import picture

from course_lib import cli, terminal
from course_lib.files import DataError
from course_lib.runs import RunError

NAMES = [
    *(
        "cat[flip]",
        "a[/q]",
        "[red]dog[/red]",
        ":smile:",
        "[link=x]y",
        "100% {sure}",
        "'quoted' \"twice\"",
        "1,234 None",
    ),
    *("$HOME `ls` \\x", "wide " + "x" * 120, "ümläut 猫 👩\u200d🚀"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_users_names_are_printed_as_they_are(call, tmp_path, monkeypatch, some_weights, name):
    monkeypatch.setattr(terminal.console, "width", 20)
    monkeypatch.setattr(terminal.errors, "width", 20)
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / f"{name}.jpg")
    (tmp_path / f"{name} bad.jpg").write_text("no picture")
    done = call("detect", f"{name}.jpg", f"{name} bad.jpg", "--weights", some_weights, "--out", f"{name} out")
    result = Path(f"{name} out") / f"{Path(name).name}.png"
    assert done.stdout.splitlines()[0] == f"{name}.jpg -> {result}" and (tmp_path / result).exists()
    assert done.stderr == (
        f"error: {name} bad.jpg: image is 'not an image': restore the file or take it off the list\n"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        (os.fsdecode(b"a\xff\xfe"), r"a\udcff\udcfe"),
        ("a\x85\u2028\u2029", r"a\x85\u2028\u2029"),
        ("\x00\x07", r"\x00\x07"),
    ],
)
def test_what_is_no_character_is_printed_as_an_escape_and_in_one_line(tmp_path, capsys, name, shown):
    terminal.say(f"{name}!")
    terminal.complain("error", DataError(tmp_path / name, "field", "value", "cure"))
    terminal.complain("warning", RunError(name))
    assert terminal.one_line(name) == shown
    printed = capsys.readouterr()
    assert printed.out == f"{shown}!\n" and printed.err.splitlines()[0].startswith(f"error: {tmp_path}/{shown}: field")
    assert printed.err.splitlines()[1:] == [f"warning: {shown}"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_is_no_reason_to_fail(tmp_path, run_cli, some_weights, encoding):
    for name in ("猫[x]", "a\nb", os.fsdecode(b"\xff")):
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "bad\n猫.jpg").write_text("no picture")
    names = sorted(path.name for path in tmp_path.iterdir())
    done = run_cli(
        "detect", *names, "--weights", some_weights, cwd=tmp_path, PYTHONIOENCODING=f"{encoding}:strict", COLUMNS="20"
    )
    cat = "猫" if encoding == "utf-8" else r"\u732b"
    assert done.stdout.splitlines() == [
        r"a\nb.jpg -> detections/a\nb.png",
        rf"{cat}[x].jpg -> detections/{cat}[x].png",
        r"\udcff.jpg -> detections/\udcff.png",
    ]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith(rf"error: bad\n{cat}.jpg: image is 'not an image'")


ODD = [
    "plain",
    "with space",
    "it's",
    'say "so"',
    "[red]x[/red]",
    "$HOME",
    "a;b & c",
    "*",
    "ümläut",
    "x" * 90,
    ":smile:",
]


@pytest.mark.parametrize("name", ODD)
def test_a_printed_command_can_be_pasted(call, monkeypatch, tmp_path, name):
    monkeypatch.setattr(terminal.errors, "width", 20)
    monkeypatch.chdir(tmp_path)
    printed = call("evaluate", "--run", name).stderr
    assert len(printed.splitlines()) == 1
    assert shlex.split(printed[printed.index("python -m") :]) == ["python", "-m", "course_lib", "train", "--run", name]


@pytest.mark.parametrize("name", ["a\nb", "a\x1b'b", os.fsdecode(b"\xff\\1 [x]"), "\n$HOME`'\""])
def test_a_printed_command_with_what_is_no_character_can_be_pasted_into_bash(name):
    command = terminal.command("evaluate", "--run", name)
    assert terminal.one_line(command) == command
    bash = shutil.which("bash") or pytest.skip("no bash here")
    script = command.replace("python -m course_lib evaluate --run", "printf %s")
    assert subprocess.run([bash, "-c", script], capture_output=True, check=True).stdout == os.fsencode(name)


@pytest.mark.parametrize("name", ["check", "train", "evaluate", "detect"])
def test_the_commands_tell_warnings_in_lines(name, capfd):
    """Whatever is wrong with a call, its warnings do not come with Python's file and line."""
    before = warnings.showwarning, warnings.filters[:]
    (function,) = (one.callback for one in cli.app.registered_commands if one.callback.__name__ == name)
    assert function.__wrapped__.__name__ == name
    for _ in range(2):
        with terminal.warnings_in_lines():
            for text in ("one", "two\nlines [red]", "one"):
                warnings.warn(text, stacklevel=1)
        assert capfd.readouterr().err == "warning: one\nwarning: two\\nlines [red]\n"
    assert (warnings.showwarning, warnings.filters[:]) == before
