"""What the page Try it needs is made once, and again when something that it is made of has changed."""

import json

import pytest

from tools import try_it


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A small repository; gives how often the files were made."""
    for folder in ("data", "course_lib", "tools"):
        (tmp_path / folder).mkdir()
    for name in ("requirements.txt", "data/ssd_mini.safetensors", "course_lib/ssd.py"):
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(try_it, "ROOT", tmp_path)
    times = []

    def make(folder):
        folder.mkdir(exist_ok=True)
        times.append(folder)
        return [{"file": "000001.png", "shows": "dog"}]

    monkeypatch.setattr(try_it, "make", make)
    return times


def test_the_files_are_made_once(made, tmp_path):
    for _ in range(2):
        try_it.main(tmp_path / "site")
    assert len(made) == 1
    contents = json.loads((tmp_path / "site" / "contents.json").read_text())
    assert contents["pictures"] == [{"file": "000001.png", "shows": "dog"}] and contents["model"] == "ssd_mini.onnx"


@pytest.mark.parametrize("name", ["requirements.txt", "data/ssd_mini.safetensors", "course_lib/ssd.py"])
def test_they_are_made_again_when_what_they_are_made_of_has_changed(name, made, tmp_path):
    try_it.main(tmp_path / "site")
    (tmp_path / name).write_text("after")
    try_it.main(tmp_path / "site")
    assert len(made) == 2


def test_they_are_made_again_when_the_list_is_broken(made, tmp_path):
    try_it.main(tmp_path / "site")
    (tmp_path / "site" / "contents.json").write_text('{"key": ')
    try_it.main(tmp_path / "site")
    assert len(made) == 2


def test_whether_the_browser_s_runtime_is_here_is_looked_at_in_every_build(made, tmp_path, monkeypatch):
    for is_here in (False, True, False):
        monkeypatch.setattr(try_it.setup, "has_ort_web", lambda is_here=is_here: is_here)
        try_it.main(tmp_path / "site")
        assert json.loads((tmp_path / "site" / "contents.json").read_text())["runtime"] is is_here
    assert len(made) == 1
