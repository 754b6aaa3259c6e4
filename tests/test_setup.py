"""Set-up fails with one line that says what to do."""

import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest


def run_setup(root, fault: str, tmp_path) -> subprocess.CompletedProcess:
    """Run tools/setup.py of a bare copy of the project, with something wrong on a machine that lacks nothing else."""
    (tmp_path / "tools").mkdir()
    for name in ("tools/setup.py", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    room = "shutil.disk_usage = lambda path: type('Usage', (), {'free': 1e12})"
    code = (
        f"import runpy, shutil, subprocess, sys\n{room}\n{fault}\nrunpy.run_path('tools/setup.py', run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_an_old_python_is_named(root, tmp_path):
    message = one_line(run_setup(root, "sys.version_info = (3, 9, 1)", tmp_path))
    assert "Python 3.9 is too old" in message and "3.11" in message


def test_a_full_disk_is_noticed_before_anything_is_fetched(root, tmp_path):
    fault = "shutil.disk_usage = lambda path: type('Usage', (), {'free': 1.5e9})"
    assert "1.5 GB are free here and 9 are needed" in one_line(run_setup(root, fault, tmp_path))
    assert not (tmp_path / ".venv").exists()


def test_no_network_is_one_line(root, tmp_path):
    fault = "subprocess.call = lambda command: 'pip' in command"  # venv works, pip does not
    assert "is there a network" in one_line(run_setup(root, fault, tmp_path))


# ---- onnxruntime-web, without which all else works -------------------------------------------------------------------

INSTALLS = """
import os
subprocess.call = lambda command: 0  # venv and pip work
os.makedirs('.venv'); os.makedirs('package/static/mathjax/es5'); open('package/static/mathjax/es5/tex-svg-full.js', 'w')
subprocess.check_output = lambda command: b'package'
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("shutil.which = lambda name: '/bin/npm'\ndef ask(command, **how): raise OSError('npm breaks')", "npm breaks"),
        (
            "shutil.which = lambda name: '/bin/npm'\n"
            "def ask(command, **how): raise subprocess.CalledProcessError(1, command)",
            "npm pack onnxruntime-web@1.30.0 --silent failed",
        ),
        (
            "shutil.which = lambda name: None\ndef ask(command, **how): raise subprocess.TimeoutExpired(command, 1)",
            "-m pip install took too long",
        ),
        (
            "shutil.which = lambda name: '/bin/npm'\ndef ask(command, **how): open(f'{command[-1]}/other.tgz', 'w')",
            "another checksum",
        ),
        ("shutil.which = lambda name: '/bin/npm'\ndef ask(command, **how): pass", "npm left no archive"),
    ],
)
def test_without_onnxruntime_web_one_line_says_so_and_the_installation_ends_well(fault, reason, root, tmp_path):
    done = run_setup(root, f"{INSTALLS}{fault}\nsubprocess.run = ask", tmp_path)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "Try it" in line]
    assert len(told) == 1 and reason in told[0] and told[0].endswith("To try again: make try-it")
    assert (tmp_path / ".venv" / "installed").exists()
    assert not (tmp_path / "book" / "_static" / "vendor" / "onnxruntime-web").exists()


@pytest.fixture
def setup_module(root, tmp_path, monkeypatch):
    """tools/setup.py, with an archive of the test's own in npm's place."""
    spec = importlib.util.spec_from_file_location("setup_of_the_course", root / "tools" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    archive = tmp_path / "onnxruntime-web.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        for name in (*module.ORT_FILES, "ort.webgpu.mjs"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            packed.addfile(entry, io.BytesIO(name.encode()))
    monkeypatch.setattr(module, "ORT_WEB", str(tmp_path / "vendor" / "onnxruntime-web"))
    monkeypatch.setattr(module, "ORT_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(module.shutil, "which", lambda name: "/bin/npm")
    monkeypatch.setattr(module, "ask", lambda command, folder: shutil.copy(archive, command[-1]))
    return module


def test_of_onnxruntime_web_only_what_is_needed_is_kept(setup_module, capsys):
    assert not setup_module.has_ort_web()
    setup_module.fetch_ort_web()
    assert setup_module.has_ort_web() and not capsys.readouterr().out
    folder = Path(setup_module.ORT_WEB)
    assert {path.name for path in folder.iterdir()} == {*setup_module.ORT_FILES, "checksum"}
    assert all((folder / name).read_text() == name for name in setup_module.ORT_FILES)


def test_another_version_of_onnxruntime_web_replaces_the_old_one(setup_module, monkeypatch):
    setup_module.fetch_ort_web()
    (Path(setup_module.ORT_WEB) / "checksum").write_text("of another version")
    (Path(setup_module.ORT_WEB) / "old.js").touch()
    assert not setup_module.has_ort_web()
    setup_module.fetch_ort_web()
    assert setup_module.has_ort_web() and not (Path(setup_module.ORT_WEB) / "old.js").exists()
