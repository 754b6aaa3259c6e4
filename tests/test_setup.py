"""Set-up fails with one line that says what to do."""

import subprocess
import sys


def run_setup(root, fault: str, tmp_path) -> subprocess.CompletedProcess:
    """Run tools/setup.py of a bare copy of the project, with something wrong on a machine that lacks nothing else."""
    (tmp_path / "tools").mkdir()
    for name in ("tools/setup.py", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    room = "shutil.disk_usage = lambda path: type('Usage', (), {'free': 1e12})"
    code = f"import runpy, shutil, subprocess, sys\n{room}\n{fault}\nrunpy.run_path('tools/setup.py')"
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
