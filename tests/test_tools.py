"""Notebooks are executed when something that they depend on has changed, and no work that has passed is lost."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_lib import voc
from tools import gpu_world, notebooks, parts, portable

PAGE = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

"""

LIBRARY = {
    "__init__.py": '"""The library."""\n',
    "boxes.py": '"""Boxes."""\n\n\ndef area(box):\n    """Its area."""\n    return box[0] * box[1]  # in pixels\n',
    "losses.py": (
        '"""Losses."""\n\nfrom course_lib import boxes\n\n\n'
        'class Loss:\n    """All of it."""\n\n'
        "    def forward(self):\n        # the formula\n        return boxes.area((1, 2))\n\n"
        "    def backward(self):\n        return 0\n\n\n"
        "def other():\n    # the other one\n    return 3\n"
    ),
    "late.py": "def late():\n    from course_lib.losses import other\n\n    return other()\n",
    "check.py": "from .boxes import area\n",
    "deep/__init__.py": "from .near import NEAR\n",
    "deep/near.py": "from ..check import area\n\nNEAR = 1\n",
    "deep/wide.py": "",
    "alone.py": "ALONE = 1\n",
    "cli.py": "import typer\n\n\ndef train():\n    'Train.'\n",
    "record.py": "RECORD = 'ssd_mini.safetensors'\n",
    "exercises/__init__.py": "",
    "exercises/ch01_boxes.py": "def twice(x):\n    # the sum\n    return x + x\n\n\ndef thrice(x):\n    return 3 * x\n",
    "exercises/ch02_more.py": "def half(x):\n    # a quotient\n    return x / 2\n",
}


def write_chapter(root: Path, name: str, *cells: str) -> Path:
    path = root / "book" / f"{name}.md"
    path.write_text(PAGE + "".join(f"```{{code-cell}} ipython3\n{cell}\n```\n\n" for cell in cells))
    return path


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A small repository, on which the tools work."""
    for folder in (
        "book",
        "course_lib/deep",
        "course_lib/exercises",
        "data",
        "experiments/results",
        "benchmarks/results",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in LIBRARY.items():
        (tmp_path / "course_lib" / name).write_text(text)
    for name in ("experiments/results/voc.json", "benchmarks/results/loader.json", "data/ssd_mini.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "data" / "ssd_mini.safetensors").write_bytes(b"0")
    (tmp_path / "requirements.txt").write_text("torch==1\n")
    build = tmp_path / "_build"
    build.mkdir()
    for variable in ("COURSE_PROFILE", "COURSE_DEVKIT"):
        monkeypatch.delenv(variable, raising=False)
    names = {"ROOT": tmp_path, "BOOK": tmp_path / "book", "BUILD": build}
    names |= {"CACHE": build / ".jupyter_cache", "KEYS": build / "notebook_keys.json"}
    for name, value in names.items():
        monkeypatch.setattr(notebooks, name, value)
    return tmp_path


def changes(root: Path, chapter: Path, name: str, old: str, new: str) -> bool:
    """Whether an edit of a file changes a chapter's key."""
    before = notebooks.key(chapter)
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))
    return notebooks.key(chapter) != before


AREA = ("course_lib/boxes.py", "box[0] * box[1]", "box[1] * box[0]")
COMMENT = ("course_lib/boxes.py", "# in pixels", "# in fractions")
DOCSTRING = ("course_lib/boxes.py", "Its area.", "The area of a box.")
LAYOUT = ("course_lib/boxes.py", "\n\n\ndef", "\n\ndef")
ALONE = ("course_lib/alone.py", "1", "2")
FORMULA = ("course_lib/losses.py", "# the formula", "# equation 3")
OTHER = ("course_lib/losses.py", "# the other one", "# one more")
ANSWER = ("course_lib/exercises/ch01_boxes.py", "# the sum", "# both")


@pytest.mark.parametrize(
    "code, edit",
    [
        ("from course_lib import boxes", AREA),
        ("from course_lib.boxes import area", AREA),
        ("import course_lib.boxes as b", AREA),
        ("from course_lib import losses", AREA),  # through another module
        ("import course_lib.late", AREA),  # through an import within a function
        ("from course_lib.check import *", AREA),  # through a relative import
        ("import course_lib.deep.wide", AREA),  # through a package in the package
        ("def f():\n    from course_lib import boxes", AREA),
        ("%matplotlib inline\nfrom course_lib import boxes", AREA),
        ("import importlib\nimportlib.import_module(name)", AREA),  # nobody can tell what
        ("!python -m course_lib train", ALONE),
        ("import subprocess\nsubprocess.run(['python', '-m', 'course_lib'])", DOCSTRING),
        ("no Python at all", COMMENT),
        ("from course_lib import boxes\nhelp(boxes)", DOCSTRING),
        ("from course_lib import boxes\nboxes.area?", DOCSTRING),
        ("from course_lib import boxes\nprint(boxes.area.__doc__)", DOCSTRING),
        ("from course_lib import cli, boxes", DOCSTRING),  # typer shows them
        ("from course_lib import boxes, viz\nviz.source(boxes.area)", COMMENT),
        ("from course_lib import boxes, viz\nviz.source(boxes.area)", DOCSTRING),
        ("from course_lib.boxes import area as a\nviz.source(a)", COMMENT),
        ("from course_lib import losses\nviz.source(losses.Loss)", FORMULA),
        ("from course_lib import losses\nviz.source(losses.Loss.forward)", FORMULA),
        ("from course_lib import losses\nimport inspect\ninspect.getsource(losses.Loss)", FORMULA),
        ("from course_lib import losses\nfrom inspect import getsource\ngetsource(losses.Loss)", FORMULA),
        ("from course_lib import losses\nfor one in [losses.Loss]:\n    book.source(one)", FORMULA),
        ("from course_lib import losses\nviz.source(losses.boxes.area)", COMMENT),  # by another module's name
        ("from course_lib import losses, viz\nshow = book.source\nshow(losses.Loss)", FORMULA),
        ("from course_lib import losses\nfrom course_lib.viz import source as show\nshow(losses.Loss)", FORMULA),
        ("from course_lib import losses, viz\nlist(map(book.source, [losses.Loss]))", FORMULA),
        ("from course_lib.check import solution\nsolution('twice')", ANSWER),
        ("from course_lib.check import solution as s\ns('twice')", ANSWER),
        ("from course_lib import check\ncheck.solution('twice')", ANSWER),
        ("from course_lib.check import solution\nsolution(name)", ANSWER),
        ("from course_lib.check import solution\nsolution('unknown')", ANSWER),
        ("import json", ("requirements.txt", "torch==1", "torch==2")),
        ("open('experiments/results/voc.json')", ("experiments/results/voc.json", "{}", "[]")),
        ("ROOT / 'experiments' / 'results' / 'voc.json'", ("experiments/results/voc.json", "{}", "[]")),
        ("name = 'voc'\n(ROOT / 'experiments/results' / f'{name}.json')", ("experiments/results/voc.json", "{}", "[]")),
        ("list(Path('experiments/results').glob('*.json'))", ("experiments/results/voc.json", "{}", "[]")),
        ("from course_lib import record", ("data/ssd_mini.json", "{}", "[]")),  # with another suffix
    ],
)
def test_what_a_notebook_depends_on_executes_it_again(fake, code, edit):
    assert changes(fake, write_chapter(fake, "01_a", code), *edit)


@pytest.mark.parametrize(
    "code, edit",
    [
        ("import json", AREA),
        ("from course_lib import alone", AREA),
        ("from course_lib import boxes", ALONE),
        ("from course_lib import boxes", COMMENT),
        ("from course_lib import boxes", DOCSTRING),
        ("from course_lib import boxes", LAYOUT),
        ("from course_lib import losses\nviz.source(losses.Loss)", COMMENT),
        ("from course_lib import losses\nviz.source(losses.Loss)", OTHER),
        ("from course_lib import losses\nviz.source(losses.Loss.backward)", FORMULA),
        ("from course_lib import boxes\nfor source in [1]:\n    print(source)", COMMENT),
        ("import torch\nviz.source(torch.nn.Linear)\nfrom course_lib import boxes", COMMENT),
        ("from course_lib.check import solution\nsolution('thrice')", ANSWER),
        ("from course_lib.check import solution\nsolution('half')", ANSWER),
        ("from course_lib import boxes", ("experiments/results/voc.json", "{}", "[]")),
        ("open('experiments/results/voc.json')", ("benchmarks/results/loader.json", "{}", "[]")),
        ("from course_lib import boxes", ("data/ssd_mini.json", "{}", "[]")),
        ("import json", ("book/01_a.md", "# A page", "# A page, and more of it")),
    ],
)
def test_what_a_notebook_does_not_depend_on_executes_nothing(fake, code, edit):
    assert not changes(fake, write_chapter(fake, "01_a", code), *edit)


@pytest.mark.parametrize(("variable", "value"), [("COURSE_PROFILE", "gpu"), ("COURSE_DEVKIT", "/data/mine")])
def test_the_book_of_another_world_is_another_book(fake, monkeypatch, variable, value):
    chapter = write_chapter(fake, "01_a", "import json")
    before = notebooks.key(chapter)
    monkeypatch.setenv(variable, value)
    assert notebooks.key(chapter) != before


def test_a_library_that_is_just_being_edited_has_a_key(fake):
    chapter = write_chapter(fake, "01_a", "from course_lib import boxes")
    assert changes(fake, chapter, "course_lib/boxes.py", "return", "retur n")


# ---- kept, whole or not at all ---------------------------------------------------------------------------------------


def executed(chapter: Path, text: str = "2") -> nbformat.NotebookNode:
    notebook = notebooks.as_the_book_reads(chapter)
    for cell in notebooks.code_cells(notebook):
        cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    return notebook


def outputs(chapter: Path) -> str:
    _, merged = notebooks.open_cache().merge_match_into_notebook(notebooks.as_the_book_reads(chapter))
    return "".join(cell.outputs[0].text for cell in notebooks.code_cells(merged))


def keep(chapter: Path, text: str = "2") -> None:
    notebooks.store(chapter, executed(chapter, text), notebooks.key(chapter))


def test_a_stored_notebook_is_done_until_something_changes(fake):
    chapter = write_chapter(fake, "01_a", "from course_lib import boxes")
    assert not notebooks.done(chapter)
    keep(chapter)
    assert notebooks.done(chapter) and outputs(chapter) == "2"
    assert changes(fake, chapter, *AREA) and not notebooks.done(chapter)
    keep(chapter, "3")
    assert notebooks.done(chapter) and outputs(chapter) == "3"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
@pytest.mark.parametrize(
    "where",
    [
        "jupyter_cache.cache.main.JupyterCacheBase.create_hashed_notebook",
        "jupyter_cache.cache.main.NbCacheRecord.create_record",
        "jupyter_cache.cache.main.nbf.writes",  # there is a record and a folder, and nothing in it
        "jupyter_cache.cache.main.JupyterCacheBase.truncate_caches",
    ],
)
def test_a_kill_while_a_notebook_is_stored_loses_that_one_alone(fake, monkeypatch, where, again):
    chapter, other = write_chapter(fake, "01_a", "1"), write_chapter(fake, "02_b", "2")
    keep(other)
    if again:
        keep(chapter, "old")
        # An edit that is taken back afterwards must not bring the old key back to life.
        monkeypatch.setenv("COURSE_PROFILE", "gpu")

    def kill(*args, **options):
        raise Killed

    ready, key = executed(chapter), notebooks.key(chapter)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(where, kill)
        notebooks.store(chapter, ready, key)
    for variable in ("COURSE_PROFILE", "COURSE_DEVKIT"):
        monkeypatch.delenv(variable, raising=False)
    assert not notebooks.done(chapter) and notebooks.done(other)
    keep(chapter, "new")
    assert notebooks.done(chapter) and outputs(chapter) == "new"


@pytest.mark.parametrize("part", ["", '{"cells": [', "not JSON"])
def test_a_half_written_notebook_in_the_cache_is_executed_again(fake, part):
    chapter = write_chapter(fake, "01_a", "1")
    keep(chapter)
    next(notebooks.CACHE.rglob("base.ipynb")).write_text(part)
    assert not notebooks.done(chapter)
    keep(chapter)
    assert notebooks.done(chapter)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0"])
def test_a_broken_cache_is_made_anew(fake, content):
    chapter = write_chapter(fake, "01_a", "1")
    keep(chapter)
    (notebooks.CACHE / "global.db").write_bytes(content)
    assert not notebooks.done(chapter)
    keep(chapter)
    assert notebooks.done(chapter)


@pytest.mark.parametrize("content", ["", "{", '{"01_a": '])
def test_broken_keys_execute_and_do_not_fail(fake, content):
    chapter = write_chapter(fake, "01_a", "1")
    keep(chapter)
    notebooks.KEYS.write_text(content)
    assert not notebooks.done(chapter)


def test_a_chapter_edited_while_it_ran_is_not_stored(fake):
    chapter = write_chapter(fake, "01_a", "1")
    ready, key = executed(chapter), notebooks.key(chapter)
    write_chapter(fake, "01_a", "2")
    with pytest.raises(ValueError, match="make sync"):
        notebooks.store(chapter, ready, key)
    assert not notebooks.done(chapter)


# ---- real kernels ----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(fake, root):
    """The small repository with tools of its own."""
    shutil.copytree(root / "tools", fake / "tools")
    for name in ("pyproject.toml", "course_lib/files.py"):
        shutil.copy(root / name, fake / name)
    return fake


def start(project: Path, at_once: int = 1) -> subprocess.Popen:
    for chapter in notebooks.chapters():
        chapter.with_suffix(".ipynb").write_text(notebooks.notebook_text(chapter))
    return subprocess.Popen(
        [sys.executable, "tools/notebooks.py", "run", str(at_once)],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(project: Path, at_once: int = 1) -> tuple[int, str]:
    process = start(project, at_once)
    said, _ = process.communicate()
    return process.returncode, said


@pytest.mark.slow
def test_a_notebook_that_fails_leaves_the_others_their_outputs(project):
    failing = write_chapter(project, "01_a", "1", "1 / 0")
    passing = write_chapter(project, "02_b", "from pathlib import Path", "print('seen')")
    code, said = run(project)
    assert code == 1 and "01_a: failed in cell 2 of 2" in said and "02_b: passed and kept" in said, said
    assert notebooks.done(passing) and not notebooks.done(failing)
    write_chapter(project, "01_a", "1", "print('mended')")
    code, said = run(project)
    assert code == 0 and "executing 1 of 2 notebooks: 01_a" in said, said
    assert run(project) == (0, "all notebooks are up to date\n")


@pytest.mark.slow
def test_two_processes_execute_each_notebook_once_also_one_that_fails(project):
    names = ["01_a", "02_b", "03_c"]
    for name in names:
        note = f"import os\nprint(name := '{name}', file=open('executed', 'a'))\nassert name != '02_b'"
        write_chapter(project, name, note, "assert os.environ['OMP_NUM_THREADS']")
    code, said = run(project, at_once=2)
    assert code == 1 and "02_b: failed in cell 1 of 2" in said, said
    assert sorted((project / "book" / "executed").read_text().split()) == names
    assert [notebooks.done(project / "book" / f"{name}.md") for name in names] == [True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interruption", "told"),
    [
        (signal.SIGINT, os.killpg),
        (signal.SIGTERM, os.kill),  # the parent alone, as make does it
        pytest.param(signal.SIGTERM, os.killpg, marks=pytest.mark.weekly),
        pytest.param(signal.SIGKILL, os.killpg, marks=pytest.mark.weekly),
    ],
)
def test_an_interrupted_run_keeps_what_had_passed(project, interruption, told):
    passed = write_chapter(project, "01_a", "1")
    wait = "import time", "open('waiting', 'w').close()\ntime.sleep(600)"
    waiting = [write_chapter(project, "02_b", *wait), write_chapter(project, "03_c", *wait)]
    never = write_chapter(project, "04_d", "open('reached', 'w').close()")
    process = start(project, at_once=2)
    said, missing = "", {"01_a: passed", "02_b: started", "03_c: started"}
    for line in process.stdout:
        said += line
        missing -= {what for what in missing if line.startswith(what)}
        if not missing:
            break
    told(process.pid, interruption)
    rest, _ = process.communicate()
    assert process.returncode != 0, said + rest
    assert notebooks.done(passed) and not any(notebooks.done(one) for one in [*waiting, never])
    assert not (project / "book" / "reached").exists()


# ---- portable --------------------------------------------------------------------------------------------------------

INTEL = portable.Machine("Intel", x86=True, avx2=True, mkl=True)
OLD = portable.Machine("old", x86=True, avx2=False, mkl=True)
ARM = portable.Machine("Arm", x86=False, avx2=False, mkl=False)


@pytest.mark.parametrize(
    "machine, runs", [(INTEL, [True, True, True]), (OLD, [True, False, True]), (ARM, [True, False, False])]
)
def test_a_variant_that_means_nothing_on_a_machine_is_left_out(machine, runs):
    assert [not variant.left_out(machine) for variant in portable.VARIANTS] == runs


def test_variables_that_mean_nothing_are_named():
    first = portable.VARIANTS[0]
    assert first.without_meaning(ARM) == ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"]
    assert first.without_meaning(INTEL) == []


@pytest.fixture
def three_parts(monkeypatch, tmp_path):
    """Parts that take no time: what is started is noted, the second fails and the third may be interrupted."""
    started = []

    def execute(command, env, **options):
        started.append((env.get("MKL_CBWR"), command[-1]))
        if command[-1] == "third" and "stop" in started:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, int(command[-1] == "second"))

    monkeypatch.setattr(portable, "machine", lambda: INTEL)
    monkeypatch.setattr(portable, "KEPT", tmp_path)
    monkeypatch.setattr(portable, "VARIANTS", portable.VARIANTS[2:])
    monkeypatch.setattr(portable.subprocess, "run", execute)
    monkeypatch.setattr(portable, "parts", lambda *args: [portable.Part(n, "key", [n]) for n in PARTS])
    monkeypatch.setattr(sys, "argv", ["portable"])
    return started


PARTS = ["first", "second", "third"]


def test_a_part_that_failed_stops_no_other_and_is_repeated(three_parts, capsys):
    assert portable.main() == 1
    assert [name for _, name in three_parts] == PARTS and three_parts[0][0] == "COMPATIBLE"
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert ["passed" in line for line in lines] == [True, False, True] and "FAILED" in lines[1]
    three_parts.clear()
    assert portable.main() == 1
    assert [name for _, name in three_parts] == ["second"]


def test_an_interrupted_check_goes_on_where_it_was(three_parts, capsys):
    three_parts.append("stop")
    assert portable.main() == 130
    assert "goes on from here" in capsys.readouterr().out
    three_parts.clear()
    portable.main()
    assert [name for _, name in three_parts] == ["second", "third"]


@pytest.mark.parametrize("change", ["key", "processor"])
def test_a_part_of_another_tree_or_machine_is_repeated(three_parts, monkeypatch, change):
    portable.main()
    three_parts.clear()
    if change == "key":
        monkeypatch.setattr(portable, "parts", lambda *args: [portable.Part("first", "another", ["first"])])
    else:
        monkeypatch.setattr(portable, "machine", lambda: OLD)
    portable.main()
    assert three_parts[0][1] == "first"


def test_the_fast_check_is_a_part_of_the_whole(monkeypatch):
    known = [parts.Part(path.stem, "key", [], path) for path in notebooks.chapters()]
    monkeypatch.setattr(portable, "every_chapter", lambda: known)  # their keys are the price of minutes
    fast, whole = portable.parts(True, 2), portable.parts(False, 2)
    assert [part.name for part in fast] == ["fast tests", "03_backbone"]
    assert whole[0].name == "tests" and fast[1] in whole
    assert "00_ten_minutes" not in {part.name for part in whole}


# ---- the chapters in the GPU's world ---------------------------------------------------------------------------------


def test_both_years_are_the_tree_and_list_only_pictures_that_are_there(tmp_path, small_devkit):
    tree = shutil.copytree(small_devkit / "VOC2007", tmp_path / "VOC2007")
    gone = voc.read_image_set(tmp_path, "2007", "val")[0]
    (tree / "JPEGImages" / f"{gone}.jpg").unlink()
    for _ in range(2):  # what an earlier run has left is made anew
        key = gpu_world.link_devkit(tmp_path / "linked" / "devkit", tree)
    for name in ("train", "val", "trainval", "test"):
        wanted = [one for one in voc.read_image_set(tmp_path, "2007", name) if one != gone]
        assert [voc.read_image_set(tmp_path / "linked" / "devkit", year, name) for year in ("2007", "2012")] == [
            wanted
        ] * 2
    image, _ = voc.VOCDetection(tmp_path / "linked" / "devkit", "2012", "test")[0]
    assert image.shape[2] == 3
    shutil.copy(small_devkit / "VOC2007" / "JPEGImages" / f"{gone}.jpg", tree / "JPEGImages")
    assert gpu_world.link_devkit(tmp_path / "linked" / "devkit", tree) != key


@pytest.fixture
def two_chapters(monkeypatch, tmp_path, small_devkit):
    """Chapters that take no time, the second of which fails; what is started is noted with its world."""
    started = []

    def execute(command, env, **options):
        started.append((command[-1], env["COURSE_PROFILE"], Path(env["COURSE_DEVKIT"]).relative_to(tmp_path)))
        return subprocess.CompletedProcess(command, int("01" in command[-1]))

    monkeypatch.setattr(parts.subprocess, "run", execute)
    monkeypatch.setattr(gpu_world, "KEPT", tmp_path)
    monkeypatch.setattr(gpu_world, "without_network", tuple)
    monkeypatch.setattr(
        gpu_world, "chapters", lambda: [parts.Part(n, "key", [n]) for n in ("00_ten_minutes", "01_voc")]
    )
    monkeypatch.setattr(gpu_world.profiles, "EMOJI_VOC", small_devkit)
    monkeypatch.setattr(sys, "argv", ["gpu_world"])
    for name in ("COURSE_PROFILE", "COURSE_DEVKIT", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # and is as it was after the test
    monkeypatch.delenv("VOC_REAL", raising=False)
    return started


def test_every_chapter_runs_in_the_gpus_world_and_one_that_passed_is_kept(two_chapters, capsys, monkeypatch):
    assert gpu_world.main() == 1
    devkit = Path("emoji/devkit")
    assert two_chapters == [("00_ten_minutes", "gpu", devkit), ("01_voc", "gpu", devkit)]
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert "passed" in lines[0] and "FAILED" in lines[1]
    assert gpu_world.main() == 1
    assert [name for name, *_ in two_chapters[2:]] == ["01_voc"]
    monkeypatch.setattr(sys, "argv", ["gpu_world", "00"])
    assert gpu_world.main() == 0


def test_real_pictures_are_another_world(two_chapters, monkeypatch, tmp_path, small_devkit):
    gpu_world.main()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "VOCdevkit").symlink_to(small_devkit)
    monkeypatch.setenv("VOC_REAL", str(tmp_path / "real"))
    gpu_world.main()
    assert two_chapters[2] == ("00_ten_minutes", "gpu", Path("voc/devkit"))


def test_no_cell_has_a_limit_that_a_slow_machine_breaks(pytestconfig, root):
    assert pytestconfig.option.nbmake_timeout >= 36_000
    assert "timeout: 36000" in (root / "_config.yml").read_text()
