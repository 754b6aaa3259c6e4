"""Make .venv and install the course; fail with one clear line where that cannot work.

Called by the Makefile with whatever Python the reader has, so this file must parse on old ones.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed")
PYTHON = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
MATHJAX = os.path.join(ROOT, "book", "_static", "vendor", "mathjax")
GIGABYTES = 9  # torch's CUDA build and what it needs take 6.3, downloads in between the rest


def fail(message):
    sys.stderr.write("setup: " + message + "\n")
    sys.exit(1)


def fingerprint():
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    digest.update(sys.version.encode() + ROOT.encode())
    return digest.hexdigest()


def installed():
    try:
        with open(STAMP) as file:
            return file.read() == fingerprint()
    except OSError:
        return False


def run(*command):
    return subprocess.call(list(command)) == 0


def copy_mathjax():
    """The book's formulas, without a web server: MathJax from an installed package."""
    code = "import mathjax, os; print(os.path.dirname(mathjax.__file__))"
    package = subprocess.check_output([PYTHON, "-c", code]).decode().strip()
    os.makedirs(MATHJAX, exist_ok=True)
    source = os.path.join(package, "static", "mathjax", "es5", "tex-svg-full.js")
    shutil.copy(source, MATHJAX)


def main():
    if sys.version_info < (3, 11):
        found = "%d.%d" % sys.version_info[:2]
        fail("Python " + found + " is too old: the course needs 3.11 or newer. Try: make PYTHON=python3.11 book")
    if installed():
        return
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GIGABYTES and not os.path.exists(PYTHON):
        fail("%.1f GB are free here and %d are needed; free some, or clone to another disk" % (free, GIGABYTES))
    if not os.path.exists(PYTHON) and not run(sys.executable, "-m", "venv", VENV):
        fail("could not make .venv; on Debian and Ubuntu: apt install python3-venv")
    torch_index = os.environ.get("TORCH_INDEX")
    pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    print("setup: installing (3 GB to download, a few minutes)", flush=True)
    first = () if not torch_index else (*pip, "--index-url", torch_index, *torch_pins())
    if (first and not run(*first)) or not run(*pip, "-e", ROOT, "-r", os.path.join(ROOT, "requirements.txt")):
        fail("the installation failed: is there a network, and room on the disk? The same command tries again")
    copy_mathjax()
    with open(STAMP, "w") as file:
        file.write(fingerprint())


def torch_pins():
    """torch and torchvision of requirements.txt, for an index that has nothing else."""
    with open(os.path.join(ROOT, "requirements.txt")) as file:
        return [line.strip() for line in file if line.startswith(("torch==", "torchvision=="))]


main()
