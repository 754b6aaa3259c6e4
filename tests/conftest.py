import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

# What somebody has set in their shell decides nothing in the tests, nor in the processes that they start: another
# profile or data set, colours and the width of a terminal, a proxy that would be asked for what this machine serves,
# the places that torchrun gives, the repository of a hook, the tmux that the tests are run in. Rich and git read some
# of them when they are loaded.
SETTINGS = ("COURSE_PROFILE COURSE_DEVKIT COLUMNS LINES FORCE_COLOR NO_COLOR PY_COLORS GITHUB_ACTIONS TTY_COMPATIBLE "
            "TTY_INTERACTIVE RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE "
            "TMUX TMUX_TMPDIR HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY").split()  # fmt: skip
for name in SETTINGS:
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)

import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from xml_files import dog, write

from course_lib import emoji_voc
from tools import dear_tests

ROOT = Path(__file__).resolve().parent.parent

# No example fails for the time it takes: a machine may be slow, or busy with something else.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
# For `make check`: a quarter of the examples, where a test names no number of its own.
settings.register_profile("quick", settings.get_profile("any machine"), max_examples=25)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a measured run found dear is slow; so is what takes minutes."""
    dear = dear_tests.DEAR.read_text().split("\n")
    for item, slow in zip(items, dear_tests.slow_ones([item.nodeid for item in items], dear), strict=True):
        if slow or item.get_closest_marker("weekly"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def signals_as_in_a_terminal() -> None:
    """Who starts the tests in a shell's background, or by nohup, has them ignored: so would their processes."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests run side by side: more threads than cores would make all of them wait."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


def files_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file with its size and the time of its last change."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="session")
def small_devkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """EmojiVOC with 40 + 12 images, shared by many tests: who wants to change it copies it."""
    devkit = emoji_voc.make_emoji_voc(tmp_path_factory.mktemp("emoji"), train=40, test=12, workers=1)
    before = files_of(devkit / "VOC2007")
    yield devkit
    after = files_of(devkit / "VOC2007")
    changed = sorted(path.name for path, _ in before.items() ^ after.items())
    assert not changed, f"some test has written into the data set that all share: {changed}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A devkit with one image of 100 x 80 pixels, one dog and a list."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "VOC2007" / folder).mkdir(parents=True)
    write(tmp_path / "VOC2007/Annotations/000001.xml", dog())
    Image.new("RGB", (100, 80), (10, 200, 30)).save(tmp_path / "VOC2007/JPEGImages/000001.jpg")
    (tmp_path / "VOC2007/ImageSets/Main/test.txt").write_text("000001\n")
    return tmp_path


@pytest.fixture(scope="session")
def voc_real() -> Path:
    """Real VOC data, where the machine has it: VOCdevkit/, VOC2007-annotations.tar.xz, detections/."""
    folder = os.environ.get("VOC_REAL")
    if not folder:
        pytest.skip("VOC_REAL names no folder with real VOC data")
    return Path(folder)


@pytest.fixture(scope="session")
def voc_annotations(voc_real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A devkit with all 9963 annotations of VOC2007 and its lists; no images."""
    import tarfile

    devkit = tmp_path_factory.mktemp("devkit")
    with tarfile.open(voc_real / "VOC2007-annotations.tar.xz") as archive:
        archive.extractall(devkit, filter="data")
    return devkit


@pytest.fixture(scope="session")
def run_cli():
    """Run `python -m course_lib` in a process of its own; gives what it printed and its exit code."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "course_lib", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | environment,
            check=False,
        )

    return run


@pytest.fixture
def call(monkeypatch, capfd):
    """Run a command as `python -m course_lib` does, but in this process."""
    from course_lib import cli

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
    from course_lib import ssd, weights

    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    weights.save(ssd.ssd_mini(), path)
    return path


@pytest.fixture
def a_run(tmp_path: Path):
    """A folder as a run and `evaluate --run` leave it, with the model of its best weights."""
    from course_lib import ssd, weights

    model, run = ssd.ssd_mini(3, ("cat", "a | b")), tmp_path / "runs" / "mine"
    weights.save(model, run / "best.safetensors")
    provenance = {"profile": "cpu", "best_epoch": 7, "command": "python -m course_lib train --run x", "commit": "abc"}
    (run / "provenance.json").write_text(json.dumps(provenance | {"recipe": {"learning_rate": 0.005, "epochs": 12}}))
    report = {"mean_ap": 0.12345, "ap": {"cat": 0.12345, "a | b": None}, "method": "area", "images": 31}
    (run / "evaluation_area.json").write_text(json.dumps(report | {"weights_of_epoch": 7}))
    return model, run


@pytest.fixture
def small(small_devkit, monkeypatch):
    """The cpu profile, so small that a run takes a second; `profiles.profile` gives it."""
    from elsewhere import elsewhere

    from course_lib import profiles

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


@pytest.fixture
def copied(small, small_devkit, tmp_path, monkeypatch):
    """A tree of one's own to damage, in the profile."""
    from elsewhere import elsewhere

    from course_lib import profiles

    shutil.copytree(small_devkit / "VOC2007", tmp_path / "devkit" / "VOC2007")
    copy = elsewhere(small, tmp_path / "devkit")
    monkeypatch.setattr(profiles, "profile", lambda name=None: copy)
    return copy
