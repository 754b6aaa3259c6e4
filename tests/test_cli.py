import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import a_run, damaged

from course_lib import cli, profiles, ssd, voc, weights


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


def train_and_evaluate(devkit: Path, run: Path, way: str = "{}", **options) -> subprocess.CompletedProcess:
    """Both commands in a process of their own each, in a shell that does something to them."""
    program = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('small_program.py')))}"
    commands = [f"{program} {command} --run {shlex.quote(str(run))}" for command in ("train", "evaluate")]
    environment = os.environ | {profiles.DEVKIT_VARIABLE: str(devkit), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", " && ".join(way.format(command) for command in commands)],
        capture_output=True, text=True, env=environment, check=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def usual_run(small_devkit, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("usual") / "run"
    done = train_and_evaluate(small_devkit, run)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("{} >&-", marks=pytest.mark.weekly),
        "(ulimit -n 64; PATH=/nonexistent {} >&- 2>&- <&-)",  # without git
        "env -u HOME -u TERM LC_ALL=C {}",
        pytest.param("HOME=/nonexistent/home TERM=dumb COLUMNS=1 {}", marks=pytest.mark.weekly),
        "one core",  # and a home in which nothing can be made
    ],
)
def test_the_environments_of_containers_and_rented_machines_give_the_same_bits(small_devkit, tmp_path, usual_run, way):
    options = {}
    if way == "one core":
        if not hasattr(os, "sched_setaffinity"):
            pytest.skip("the system pins no process to a core")
        way, one = "HOME=/proc {}", {min(os.sched_getaffinity(0))}
        options = {"preexec_fn": lambda: os.sched_setaffinity(0, one)}
    run = tmp_path / "run"
    done = train_and_evaluate(small_devkit, run, way, **options)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) <= 1 and "Traceback" not in done.stderr, done.stderr
    for name in ("last.safetensors", "best.safetensors"):
        found, usual = (weights.load(folder / name).state_dict() for folder in (run, usual_run))
        assert all(torch.equal(found[tensor], usual[tensor]) for tensor in usual)
    assert (run / "evaluation_area.json").read_bytes() == (usual_run / "evaluation_area.json").read_bytes()
