import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from elsewhere import elsewhere
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner
from xml_files import dog, write

from course_lib import cli, profiles, ssd, voc, weights
from course_lib.files import DataError
from course_lib.metrics import ClassDetections, write_detection_files
from course_lib.runs import RunError
from course_lib.training import Trainer


@pytest.fixture
def call(monkeypatch, capfd):
    """Run a command as `python -m course_lib` does, but in this process."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr("sys.argv", ["course_lib", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=end.value.code, stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture(scope="session")
def some_weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    weights.save(ssd.ssd_mini(), path)
    return path


def picture(path: Path, colour: str = "orange") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), colour).save(path, "PNG")
    return path


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Everything below a folder, with the bytes of the files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def small(small_devkit, monkeypatch):
    """The cpu profile, so small that a run takes a second; `profiles.profile` gives it."""
    usual = elsewhere(profiles.cpu(), small_devkit)
    profile = replace(
        usual,
        name="small",
        train=usual.test,
        recipe=replace(usual.recipe, epochs=1, batch_size=4, warmup_steps=0, learning_rate=1e-5, frozen_blocks=0),
        workers=0,
        pretraining_steps=0,
    )
    monkeypatch.setattr(profiles, "profile", lambda name=None: profile)
    return profile


@pytest.mark.slow
def test_help_names_the_commands(run_cli):
    done = run_cli("--help")
    assert done.returncode == 0
    for command in ("emoji-voc", "download", "check", "train", "evaluate", "detect"):
        assert command in done.stdout


@pytest.mark.slow
def test_wrong_use_is_exit_code_2(run_cli, tmp_path):
    assert run_cli("train", "--run", tmp_path, "--profile", "tpu").returncode == 2
    assert run_cli("evaluate").returncode == 2
    assert run_cli("no-such-command").returncode == 2
    assert run_cli("emoji-voc", tmp_path, "--train", "1").returncode == 2


def test_what_ctrl_c_ends_says_so(monkeypatch, capsys):
    @cli.app.command("interrupted", hidden=True)
    def interrupted() -> None:
        raise KeyboardInterrupt

    try:
        monkeypatch.setattr("sys.argv", ["course_lib", "interrupted"])
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        cli.app.registered_commands.pop()
    assert end.value.code == 130 and "what was finished is kept" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failure_is_one_line_and_exit_code_1(run_cli, tmp_path):
    for arguments in (
        ("evaluate", "--run", tmp_path / "none"),
        ("evaluate", "--run", tmp_path / "no\nne"),
        ("evaluate", "--detections", tmp_path, "--devkit", tmp_path),
        ("detect", "--weights", tmp_path / "none.safetensors", tmp_path / "none.jpg"),
        ("train", "--run", tmp_path / "r", "--profile", "gpu"),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 1, arguments
        assert "error:" in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_emoji_voc_makes_a_tree(run_cli, tmp_path):
    done = run_cli("emoji-voc", tmp_path / "d", "--train", 4, "--test", 2)
    assert done.returncode == 0 and (tmp_path / "d/VOC2007/ImageSets/Main/test.txt").read_text() == "000005\n000006\n"
    refused = run_cli("emoji-voc", tmp_path / "d", "--train", 5, "--test", 2)
    assert refused.returncode == 1 and "choose another devkit" in refused.stderr


@pytest.mark.slow
def test_download_names_a_wrong_archive_on_disk_and_opens_no_connection(run_cli, tmp_path):
    (tmp_path / "VOCtrainval_06-Nov-2007.tar").write_bytes(b"cut off")
    done = run_cli("download", "voc2007", "--devkit", tmp_path / "d", "--archives", tmp_path)
    assert done.returncode == 1 and "MD5 is '" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert run_cli("download", "voc2007", "--mirror", "file:///tmp").returncode == 2
    assert not (tmp_path / "d" / "VOC2007").exists()


def test_detections_in_files_are_measured(call, tmp_path, small_devkit):
    boxes = np.array([[0.0, 0, 50, 50]])
    write_detection_files(tmp_path, {"dog": ClassDetections(["000041"], np.array([0.5]), boxes)})
    done = call(
        "evaluate", "--detections", tmp_path, "--devkit", small_devkit, "--year", "2007", "--set", "test",
        "--method", "11point", "--json",
    )  # fmt: skip
    assert done.returncode == 0 and "person" in done.stderr
    report = json.loads(done.stdout)
    assert report["ap"]["person"] is None and set(report) >= {"mean_ap", "ap"}


def test_detections_of_no_measurable_class_have_no_mean_and_json_that_any_parser_reads(call, tmp_path, small_devkit):
    write_detection_files(tmp_path, {"unicorn": ClassDetections([], np.zeros(0), np.zeros((0, 4)))})
    (tmp_path / "comp4_det_test_unicorn.txt").rename(tmp_path / "comp4_det_test_dog.txt")
    image_id, tree = image_without("dog", small_devkit), tmp_path / "VOC2007"
    (tree / "ImageSets" / "Main").mkdir(parents=True)
    (tree / "ImageSets" / "Main" / "none.txt").write_text(image_id)
    (tree / "Annotations").mkdir()
    shutil.copy(small_devkit / "VOC2007" / "Annotations" / f"{image_id}.xml", tree / "Annotations")
    arguments = ("evaluate", "--detections", tmp_path, "--devkit", tmp_path, "--set", "none")
    report = json.loads(call(*arguments, "--json").stdout, parse_constant=pytest.fail)
    assert report["mean_ap"] is None and report["ap"]["dog"] is None
    assert re.search(r"mean.* - ", call(*arguments).stdout)


def image_without(name: str, devkit: Path) -> str:
    truth = voc.read_annotations(devkit, "2007", "test")
    return next(one.image_id for one in truth if voc.VOC_CLASSES.index(name) + 1 not in one.labels)


@pytest.mark.parametrize(
    "options", [("--year", "2031"), ("--set", "no such"), ("--set", "../x"), ("--devkit", "no\nsuch")]
)
def test_a_set_that_is_not_there_is_one_line_and_exit_code_1(call, tmp_path, small_devkit, options):
    write_detection_files(tmp_path, {"dog": ClassDetections(["000041"], np.array([0.5]), np.zeros((1, 4)))})
    done = call("evaluate", "--detections", tmp_path, "--devkit", small_devkit, *options, "--json")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and "image set is" in done.stderr


@pytest.mark.slow
def test_detect_writes_pictures_and_names_what_it_cannot_read(run_cli, tmp_path, some_weights):
    Image.new("RGB", (300, 200), "orange").save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_text("no picture")
    done = run_cli(
        "detect", "--weights", some_weights, tmp_path / "bad.jpg", tmp_path / "good.jpg",
        "--out", tmp_path / "out", "--threshold", 0.2,
    )  # fmt: skip
    assert done.returncode == 1 and "bad.jpg: image is 'not an image'" in done.stderr
    with Image.open(tmp_path / "out/good.png") as result:
        assert result.size == (500, 333)


@pytest.fixture
def faulty(tmp_path, small_devkit) -> Path:
    """A tree of one's own with four faults in three images, in a folder with odd characters."""
    tree = tmp_path / "dev[red]kit" / "my\ncars"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    (tree / "ImageSets/Main/train.txt").write_text("a b\nc\n")
    (tree / "ImageSets/Main/val.txt").write_text("d\n")
    write(tree / "Annotations/a b.xml", dog(name="van"), dog(name="van", xmin=50), dog(name="van", xmin=0))
    write(tree / "Annotations/c.xml", dog(name="Van"))
    for image_id in ("a b", "c"):
        Image.new("RGB", (100, 80)).save(tree / f"JPEGImages/{image_id}.png")
    return tree


def test_check_names_every_fault_in_one_line(call, faulty):
    done = call("check", faulty)
    assert done.returncode == 1
    files = [line.removeprefix(cli.one_line(faulty)).split(": ")[:2] for line in done.stdout.splitlines()]
    assert files == [
        ["/Annotations/a b.xml", "object[1]/bndbox is (50.0, 2.0, 30.0, 40.0)"],
        ["/Annotations/a b.xml", "object[2]/bndbox is (0.0, 2.0, 30.0, 40.0)"],
        ["/Annotations/c.xml", "object/name is 'Van'"],
        ["/Annotations/d.xml", "file is 'No such file or directory'"],
    ]
    assert done.stderr == "4 faults in 3 images; objects: 3 van, 1 Van\n"
    assert len(call("check", faulty, "--on", "train", "--annotations-only").stdout.splitlines()) == 3
    report = json.loads(call("check", faulty, "--json", "--on", "val").stdout, parse_constant=pytest.fail)
    assert report["tree"] == str(faulty) and report["on"] == "val" and report["images"] == 1
    assert [set(fault) for fault in report["faults"]] == [{"path", "field", "value", "cure"}]


def test_check_of_a_whole_tree_is_exit_code_0(call, small_devkit):
    done = call("check", small_devkit / "VOC2007", "--on", "test")
    assert done.returncode == 0 and done.stdout == "" and done.stderr.startswith("no faults in 12 images; objects: ")
    done = call("check", small_devkit / "VOC2007", "--annotations-only", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == "" and report["images"] == 52 and report["faults"] == []


@pytest.mark.parametrize(
    ("below", "options", "said"),
    [
        ("", (), "give one of them: {devkit}/VOC2007"),
        ("", ("--json",), "give one of them: {devkit}/VOC2007"),
        ("VOC2007/JPEGImages", (), "give the tree: {devkit}/VOC2007"),
        ("none", (), "give the folder that holds Annotations, JPEGImages, ImageSets"),
        ("VOC2007", ("--on", "../x"), "--on is ../x, and the lists in {devkit}/VOC2007/ImageSets/Main are: val, test"),
    ],
)
def test_check_of_what_is_no_tree_is_wrong_use_and_says_what_to_give(call, small_devkit, below, options, said):
    done = call("check", small_devkit / below, *options)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert said.format(devkit=small_devkit) in done.stderr


@pytest.mark.parametrize("option", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    ("given", "out"),
    [
        (["photo.png"], "."),
        (["./photo.png"], "o/.."),
        (["photo.jpg"], "."),  # its result would be photo.png, which is to be read as well
        (["photo.png"], "link to here"),
        (["symbolic.png"], "."),
        (["o/photo.png"], "."),  # a symbolic link to ../photo.png
        (["hard.jpg"], "h"),  # h/hard.png is the same file
    ],
)
def test_a_picture_that_is_read_is_never_written_over(call, tmp_path, monkeypatch, some_weights, given, out, option):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.png")
    picture(tmp_path / "photo.jpg")
    picture(tmp_path / "h" / "hard.png")
    (tmp_path / "hard.jpg").hardlink_to("h/hard.png")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "photo.png").symlink_to("../photo.png")
    (tmp_path / "symbolic.png").symlink_to("photo.png")
    (tmp_path / "link to here").symlink_to(".")
    before = contents(tmp_path)
    more = ["photo.png"] if given == ["photo.jpg"] else []
    done = call("detect", *given, *more, "--weights", some_weights, "--out", out, *option)
    assert done.returncode == 2 and contents(tmp_path) == before
    assert re.match(r"error: .*(would replace .*which is to be read|both have)", done.stderr)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and "Usage" not in done.stderr


@pytest.mark.parametrize("out", [".", "W"])
def test_the_weights_that_are_read_are_never_written_over(call, tmp_path, monkeypatch, some_weights, out):
    monkeypatch.chdir(tmp_path)
    shutil.copy(some_weights, "w.png")
    (tmp_path / "W").symlink_to(".")
    picture(tmp_path / "w.jpg")
    before = contents(tmp_path)
    done = call("detect", "w.jpg", "--weights", "w.png", "--out", out, "--overwrite")
    assert done.returncode == 2 and "w.png, which is to be read" in done.stderr and contents(tmp_path) == before


@pytest.mark.parametrize(
    "given", [("a/1.jpg", "b/1.jpg"), ("a/1.jpg", "a/1.png"), ("a/1.jpg", "a/1.jpg"), ("a/1.jpg", "./a/1.jpg"),
              ("a/X.jpg", "b/x.jpg"), ("a/x.jpg", "a/1.jpg", "c/1.JPEG")],
)  # fmt: skip
def test_two_pictures_do_not_share_one_result(call, tmp_path, monkeypatch, some_weights, given):
    monkeypatch.chdir(tmp_path)
    for name in {*given}:
        picture(tmp_path / name)
    before = contents(tmp_path)
    done = call("detect", *given, "--weights", some_weights, "--out", "o")
    first, second = (str(Path(name)) for name in given[-2:])
    assert done.returncode == 2 and f"{first} and {second} would both have their result in o/" in done.stderr
    assert "rename one" in done.stderr and contents(tmp_path) == before
    assert call("detect", first, "--weights", some_weights, "--out", "o").returncode == 0


@pytest.mark.parametrize("kind", ["file", "link to nothing", "link to a file"])
def test_a_result_that_exists_is_replaced_only_when_that_is_asked(call, tmp_path, monkeypatch, some_weights, kind):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "new.jpg")
    picture(tmp_path / "1.jpg")
    mine = picture(tmp_path / "mine.png", "blue")
    result = tmp_path / "o" / "1.png"
    result.parent.mkdir()
    if kind == "file":
        result.write_text("an older one")
    else:
        result.symlink_to("../mine.png" if kind == "link to a file" else "nothing")
    before = contents(tmp_path)
    asked = ("detect", "new.jpg", "1.jpg", "--weights", some_weights, "--out", "o")
    done = call(*asked)
    assert done.returncode == 2 and "o/1.png exists" in done.stderr and "--overwrite" in done.stderr
    assert contents(tmp_path) == before
    assert call(*asked, "--overwrite").returncode == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"1.png", "new.png"} and not result.is_symlink()
    assert mine.read_bytes() == before[mine]
    with Image.open(result) as drawn:
        assert drawn.size == (500, 333)


@pytest.mark.parametrize(
    ("given", "out", "reason"),
    [
        ("1.jpg", "a file", "a file is no folder"),
        ("1.jpg", "a file/deeper/still", "a file is no folder"),
        ("1.jpg", "a link to nothing", "a link to nothing is no folder"),
        ("folder", "o", "folder is a folder: give the pictures in it"),
        ("1.jpg", "full", "would replace the folder full/1.png"),
    ],
)
def test_a_folder_where_a_file_belongs_or_the_reverse_is_wrong_use(
    call, tmp_path, monkeypatch, some_weights, given, out, reason
):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "1.jpg")
    picture(tmp_path / "folder" / "2.jpg")
    (tmp_path / "full" / "1.png").mkdir(parents=True)
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "a link to nothing").symlink_to("nothing")
    before = contents(tmp_path)
    for option in ((), ("--overwrite",)):
        done = call("detect", given, "--weights", some_weights, "--out", out, *option)
        assert done.returncode == 2 and reason in done.stderr and contents(tmp_path) == before


def test_a_result_is_whole_or_not_there(call, tmp_path, monkeypatch, some_weights):
    result = picture(tmp_path / "o" / "1.png", "blue")
    before = contents(tmp_path / "o")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = call("detect", picture(tmp_path / "1.jpg"), "--weights", some_weights, "--out", result.parent, "--overwrite")
    assert done.returncode == 1 and "No space left" in done.stderr and contents(tmp_path / "o") == before


@pytest.mark.slow
def test_pictures_that_are_not_there_leave_no_folder(run_cli, tmp_path, some_weights):
    done = run_cli("detect", "none.png", "--weights", some_weights, "--out", "o", cwd=tmp_path)
    assert done.returncode == 1 and "none.png: image is" in done.stderr and contents(tmp_path) == {}


@pytest.mark.parametrize(("run", "options"), [("a file", ()), ("a file", ("--fresh",)), (".", ("--fresh",))])
def test_a_run_that_is_no_folder_of_its_own_is_refused_at_once(call, tmp_path, monkeypatch, small, run, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("mine")
    done = call("train", "--run", run, *options)
    assert done.returncode == 2 and f"--run is {run}" in done.stderr
    assert contents(tmp_path) == {tmp_path / "a file": b"mine"}


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
    monkeypatch.setattr(cli.console, "width", 20)
    monkeypatch.setattr(cli.errors, "width", 20)
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
    cli.say(f"{name}!")
    cli.complain("error", DataError(tmp_path / name, "field", "value", "cure"))
    cli.complain("warning", RunError(name))
    assert cli.one_line(name) == shown
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


def test_class_names_in_a_table_are_printed_as_they_are(capsys, monkeypatch):
    names = ["cat[flip]", "a[/q]", ":smile:", "$x$", "a\nb", "very " * 12 + "long"]
    monkeypatch.setattr(cli, "console", Console(markup=False, highlight=False, emoji=False, width=100))
    cli.print_report({"ap": dict.fromkeys(names, 0.5), "mean_ap": 0.5, "method": "area", "images": 1})
    rows = [line.split()[1:-1] for line in capsys.readouterr().out.splitlines() if "0.5000" in line]
    assert [" ".join(row[:-2]) for row in rows] == [*names[:4], r"a\nb", names[5], "mean"]


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
    monkeypatch.setattr(cli.errors, "width", 20)
    monkeypatch.chdir(tmp_path)
    printed = call("evaluate", "--run", name).stderr
    assert len(printed.splitlines()) == 1
    assert shlex.split(printed[printed.index("python -m") :]) == ["python", "-m", "course_lib", "train", "--run", name]


@pytest.mark.parametrize("name", ["a\nb", "a\x1b'b", os.fsdecode(b"\xff\\1 [x]"), "\n$HOME`'\""])
def test_a_printed_command_with_what_is_no_character_can_be_pasted_into_bash(name):
    command = cli.command("evaluate", "--run", name)
    assert cli.one_line(command) == command
    bash = shutil.which("bash") or pytest.skip("no bash here")
    script = command.replace("python -m course_lib evaluate --run", "printf %s")
    assert subprocess.run([bash, "-c", script], capture_output=True, check=True).stdout == os.fsencode(name)


@pytest.mark.slow
def test_a_machine_that_is_taken_away_gets_one_line_and_the_same_command_goes_on(call, small, tmp_path, monkeypatch):
    """SIGTERM, a spot machine's two minutes, lost the epoch without a word."""
    step, left = Trainer.step, iter([1])

    def told(self, network, batch):
        if next(left, None):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, network, batch)

    monkeypatch.setattr(Trainer, "step", told)
    ended = call("train", "--run", tmp_path / "run")
    assert ended.returncode == 143 and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("stopped: by SIGTERM; what was computed is kept, and the same command goes on")
    assert call("train", "--run", tmp_path / "run").returncode == 0
    # And a finished run goes on: with another rate where that is said, not with another seed, not by oversight.
    longer = ("train", "--run", tmp_path / "run", "--epochs", 2)
    for more in (("--seed", 3), ("--recipe", "weight_decay=0")):
        done = call(*longer, *more)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--fresh" in done.stderr, done.stderr
    assert call(*longer, "--recipe", "learning_rate=1e-6").returncode == 0
    changes = json.loads((tmp_path / "run" / "provenance.json").read_text())["changes"]
    now = {"epochs": 2, "learning_rate": 1e-6}
    assert changes == [{"epochs_done": 1, "batches_done": 0, "was": {"epochs": 1, "learning_rate": 1e-5}, "now": now}]


@pytest.mark.slow
def test_the_command_at_the_end_of_training_can_be_pasted(call, small, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.console, "width", 20)
    monkeypatch.chdir(tmp_path)
    run = "runs/it's [red] " + "long " * 20 + "x"
    done = call("train", "--run", run)
    assert done.returncode == 0, done.stderr
    assert f"The run is complete: {run}." in done.stdout.splitlines()
    line = next(line for line in done.stdout.splitlines() if line.startswith("Measure it: "))
    arguments = shlex.split(line.removeprefix("Measure it: "))
    assert arguments == ["python", "-m", "course_lib", "evaluate", "--run", run]
    monkeypatch.setattr(profiles, "profile", lambda name=None: small)
    report = json.loads(call(*arguments[3:], "--json").stdout)
    assert report == json.loads((tmp_path / run / "evaluation_area.json").read_text())
    assert len([*(tmp_path / run / "tensorboard").iterdir()]) == 1
    assert set(report) >= {"mean_ap", "ap", "method", "images", "weights_of_epoch"}


def damaged(kind: str, tree: Path, image_id: str) -> None:
    image, xml = tree / "JPEGImages" / f"{image_id}.jpg", tree / "Annotations" / f"{image_id}.xml"
    match kind:
        case "broken image":
            image.write_bytes(image.read_bytes()[:200])
        case "no image at all":
            image.write_text("not an image")
        case "missing image":
            image.unlink()
        case "broken XML":
            xml.write_text(xml.read_text()[:100])
        case "missing XML":
            xml.unlink()
        case "missing list":
            shutil.rmtree(tree / "ImageSets")


# Each with a number of workers: an image is read by one, all else is read before.
DAMAGES = [
    *(("broken image", 0), ("broken image", 1), ("no image at all", 1), ("missing image", 1)),
    *(("broken XML", 1), ("missing XML", 0), ("missing list", 0)),
]


@pytest.fixture
def copied(small, small_devkit, tmp_path, monkeypatch):
    """A tree of one's own to damage, in the profile."""
    shutil.copytree(small_devkit / "VOC2007", tmp_path / "devkit" / "VOC2007")
    copy = elsewhere(small, tmp_path / "devkit")
    monkeypatch.setattr(profiles, "profile", lambda name=None: copy)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "select"])
@pytest.mark.parametrize(("kind", "workers"), DAMAGES)
def test_training_on_a_damaged_tree_ends_with_one_line(call, copied, tmp_path, monkeypatch, kind, part, workers):
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, workers=workers))
    image_id = voc.read_image_set(copied.devkit, "2007", "test" if part == "train" else "val")[0]
    damaged(kind, copied.devkit / "VOC2007", image_id)
    done = call("train", "--run", tmp_path / "run")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    name = {"XML": f"{image_id}.xml", "list": "ImageSets"}.get(kind.split()[-1], f"{image_id}.jpg")
    assert done.stderr.startswith("error: ") and name in done.stderr
    if "image" not in kind:
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), DAMAGES)
def test_measuring_on_a_damaged_tree_ends_with_one_line(call, copied, tmp_path, monkeypatch, kind, workers):
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, workers=workers))
    a_run(tmp_path / "run", ssd.ssd_mini())
    image_id = voc.read_image_set(copied.devkit, "2007", "test")[-1]
    damaged(kind, copied.devkit / "VOC2007", image_id)
    done = call("evaluate", "--run", tmp_path / "run")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    name = {"XML": f"{image_id}.xml", "list": "ImageSets"}.get(kind.split()[-1], f"{image_id}.jpg")
    assert done.stderr.startswith("error: ") and name in done.stderr
    assert not (tmp_path / "run" / "evaluation_area.json").exists()


def a_run(run: Path, model: ssd.SSD, profile: str = "small") -> None:
    weights.save(model, run / "best.safetensors")
    provenance = {"profile": profile, "best_epoch": 1, "architecture": "ssd_mini"}
    (run / "provenance.json").write_text(json.dumps(provenance))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broken image", "missing image", "broken XML", "missing XML"])
def test_the_program_on_a_damaged_tree_ends_with_one_line_and_exit_code_1(run_cli, small_devkit, tmp_path, kind):
    """The cpu profile as it is; the tree is named by the environment."""
    devkit = tmp_path / "dev[red]kit"
    shutil.copytree(small_devkit / "VOC2007", devkit / "VOC2007")
    a_run(tmp_path / "run", ssd.ssd_mini(), "cpu")
    for image_set, arguments in (("train", ("train", "--profile", "cpu")), ("test", ("evaluate", "--json"))):
        image_id = voc.read_image_set(devkit, "2007", image_set)[-1]
        damaged(kind, devkit / "VOC2007", image_id)
        run = tmp_path / ("new run" if image_set == "train" else "run")
        done = run_cli(*arguments, "--run", run, **{profiles.DEVKIT_VARIABLE: str(devkit)}, COLUMNS="40")
        assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"error: {devkit}/VOC2007/") and f"{image_id}." in done.stderr


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
@pytest.mark.parametrize("image_set", ["test", "val"])
def test_a_broken_annotation_costs_no_pretraining_and_moves_no_run(
    call, copied, tmp_path, monkeypatch, image_set, fresh
):
    def slow(*arguments):
        pytest.fail("training began")

    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, pretraining_steps=3000))
    monkeypatch.setattr(profiles, "pretrain", slow)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.jsonl").write_text("")
    image_id = voc.read_image_set(copied.devkit, "2007", image_set)[-1]
    damaged("broken XML", copied.devkit / "VOC2007", image_id)
    done = call("train", "--run", tmp_path / "run", *fresh)
    assert done.returncode == 1 and f"{image_id}.xml" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"devkit", "run"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_warning_is_one_line_told_once(call, copied, tmp_path, monkeypatch, workers):
    """Objects of a class that is not among the twenty, in images of each set."""
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, workers=workers))
    for image_set in ("test", "val"):
        for image_id in voc.read_image_set(copied.devkit, "2007", image_set)[:3]:
            xml = voc.annotation_path(copied.devkit, "2007", image_id)
            xml.write_text(re.sub("<name>.*?</name>", "<name>z[red]\u2028ebra</name>", xml.read_text(), count=1))
    for command, sets in (("train", 2), ("evaluate", 1)):
        done = call(command, "--run", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        assert 1 <= len(lines) <= sets and len({*lines}) == len(lines), done.stderr
        for line in lines:
            assert line.startswith("warning: ") and "z[red]" in line and "ebra" in line and "Warning" not in line


@pytest.mark.parametrize("name", ["check", "train", "evaluate", "detect"])
def test_the_commands_tell_warnings_in_lines(name, capfd):
    """Whatever is wrong with a call, its warnings do not come with Python's file and line."""
    before = warnings.showwarning, warnings.filters[:]
    assert cli.app.registered_commands and getattr(cli, name).__wrapped__.__name__ == name
    for _ in range(2):
        with cli.warnings_in_lines():
            for text in ("one", "two\nlines [red]", "one"):
                warnings.warn(text, stacklevel=1)
        assert capfd.readouterr().err == "warning: one\nwarning: two\\nlines [red]\n"
    assert (warnings.showwarning, warnings.filters[:]) == before


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            lambda: ssd.ssd_mini(4),
            r"num_classes=4, .*\(class 1, class 2, class 3\), .* has 20 \(aeroplane, .*tvmonitor\)",
        ),
        (lambda: ssd.ssd_mini(21, voc.VOC_CLASSES[::-1]), r"\(tvmonitor, .*aeroplane\), .* has 20 \(aeroplane, "),
        (lambda: ssd.ssd300_vgg16(21), "is ssd300_vgg16, and this run trained ssd_mini"),
    ],
)
def test_weights_of_another_model_are_not_measured(call, small, tmp_path, model, said):
    a_run(tmp_path / "run", model())
    done = call("evaluate", "--run", tmp_path / "run")
    assert done.returncode == 1 and re.search(said, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_of_a_run_without_a_profile_one_line_says_how_to_measure_it(call, tmp_path):
    """A `Trainer` of one's own knows its data, and the command does not."""
    a_run(tmp_path / "my run", ssd.ssd_mini())
    (tmp_path / "my run" / "provenance.json").write_text('{"best_epoch": 1}')
    done = call("evaluate", "--run", tmp_path / "my run")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"evaluation.evaluate_run('{tmp_path}/my run', voc.VOCDetection(devkit, year, image_set))" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "JSON"), ("[]", "best_epoch is 'missing'"), ("\udcff", "JSON")],
)
def test_a_provenance_that_cannot_be_used_is_one_line(call, tmp_path, content, said):
    (tmp_path / "provenance.json").write_bytes(os.fsencode(content))
    done = call("evaluate", "--run", tmp_path)
    assert done.returncode == 1 and said in done.stderr and "provenance.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_model_of_other_classes_has_its_boxes_drawn_under_their_numbers(call, tmp_path):
    model = ssd.ssd_mini(30)
    with torch.no_grad():
        for head in model.conf_heads:
            head.bias.view(-1, 30)[:, 29] = 9.0
    weights.save(model, tmp_path / "w.safetensors")
    done = call("detect", picture(tmp_path / "1.jpg"), "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "o")
    assert done.returncode == 0 and "  class 29 " in done.stdout and (tmp_path / "o" / "1.png").exists()


@pytest.mark.slow
def test_a_network_for_focal_loss_starts_sure_of_background_and_is_measured_by_its_own_scores(small, tmp_path):
    done = CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run"), "--loss", "focal"])
    assert done.exit_code == 0, done.output
    model = weights.load(tmp_path / "run" / "last.safetensors")
    assert model.scoring == "sigmoid" and model.conf_heads[0].bias[1].item() == pytest.approx(-4.595, abs=0.01)
    assert CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run"), "--loss", "mse"]).exit_code == 2
    other = CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run")])
    assert "FocalLoss" in str(other.exception) and "--fresh" in str(other.exception)
