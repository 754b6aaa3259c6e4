"""Every command that a document or an error names: it can be pasted, and does what is said of it.

A command runs as it stands, in a folder like a reader's checkout in which the world is small (`small_world`). What is
not run is in `INSTEAD`, with the reason and with what is checked in its place.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import typer
from families import weekly_but

from course_lib import cli, download, emoji_voc

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "data/README.md",
    *(f"book/{p.name}" for p in sorted((ROOT / "book").glob("*.md"))),
)
DOWNLOAD = ".venv/bin/python -m course_lib download voc2007 voc2012 vgg16"
PLACEHOLDERS = {"<address of the index>": "https://index.invalid/whl"}
SECONDS = 1200  # for one command; a few are usual

# ---- reading the documents ---------------------------------------------------------------------------------------

FENCE = re.compile(r" *`{3,}(\S*)")
PROGRAMS = (
    "python3? torchrun pytest jupyter make git pip3? uv conda apt apt-get sudo bash cd source export curl wget unshare"
)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*[!%]?(?:\.venv/bin/\S+|{'|'.join(PROGRAMS.split())}) \S.*")
OURS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:python|torchrun \S+ \S+) -m course_lib(?: --(?= ))?(?: (.*?))?(?: +#.*)?"
)


def commands_of(text: str) -> list[str]:
    """The commands of a document in its order: lines of shell blocks, and what looks like one elsewhere."""
    found, shell, prose = [], None, []
    for line in [*text.splitlines(), ""]:
        if opened := FENCE.match(line):
            shell = None if shell is not None else opened[1]
        elif shell is not None:
            found += [line.strip()] if line.strip() and shell in ("bash", "sh", "console", "shell") else []
        elif line.startswith("    "):
            found += [line.strip()] if COMMAND.fullmatch(line.strip()) else []
        else:
            prose.append(line)
            if not line.strip():  # inline code may go over the end of a line, not of a paragraph
                inline = re.findall(r"(?<!`)`([^`]+)`(?!`)", " ".join(prose))
                found += [code for code in inline if COMMAND.fullmatch(code)]
                prose.clear()
    return list(dict.fromkeys(found))


def documented() -> list[tuple[str, str]]:
    return [(name, command) for name in DOCUMENTS for command in commands_of((ROOT / name).read_text())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```bash\ncd there\n\nmake book  # long\n```\n", ["cd there", "make book  # long"]),
        ("```{code-cell} python\nmake = 1\n```\n`make book`", ["make book"]),
        ("say `make\nbook`, or `A=b make lab`; you need `make`", ["make book", "A=b make lab"]),
        ("    python -m course_lib train\n    extension: .md\n", ["python -m course_lib train"]),
        (":::{note}\nor `.venv/bin/torchrun x`\n:::\n| `pip download y` |", [".venv/bin/torchrun x", "pip download y"]),
        ("```bash\n%cd there\n!pip install -e .\n```", ["%cd there", "!pip install -e ."]),
    ],
)
def test_commands_are_found_wherever_they_stand(text, expected):
    assert commands_of(text) == expected


# ---- every command can be pasted ---------------------------------------------------------------------------------


def require_parsed(arguments: list[str]) -> None:
    """Read arguments as `python -m course_lib` reads them, without doing what they say."""
    group = typer.main.get_command(cli.app)
    if arguments == ["--help"]:
        return
    name, *rest = arguments
    assert name in group.commands, f"there is no command {name}"
    with group.make_context("course_lib", arguments) as context:
        group.get_command(context, name).make_context(name, rest, parent=context)


@pytest.mark.parametrize(("document", "command"), documented())
def test_a_documented_command_is_complete_and_is_read(document, command):
    assert "…" not in command and "..." not in command, f"{document}: {command} cannot be pasted"
    if ours := OURS.fullmatch(command):
        require_parsed(shlex.split(ours[1]))
    if "torchrun" in command:  # its own parser takes --run for short of --run-path
        assert re.search(r"-m course_lib -- ", command), f"{document}: {command} needs -- before the command"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("train --profile cpu", "Missing parameter: run"),
        ("train --run r --profile tpu", "'tpu' is not one of"),
        ("download", "Missing parameter: data_sets"),
        ("evaluate --runs r", "No such option: --runs"),
        ("teach --run r", "no command teach"),
    ],
)
def test_what_cannot_be_pasted_is_noticed(arguments, told):
    with pytest.raises(Exception, match=told):
        require_parsed(shlex.split(arguments))


def test_an_option_that_a_document_names_exists():
    group = typer.main.get_command(cli.app)
    parameters = [one for command in group.commands.values() for one in command.params]
    known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
    for name in DOCUMENTS:
        named = set(re.findall(r"`(--[a-z][a-z-]*)", (ROOT / name).read_text()))
        assert named <= known, f"{name}: {named - known}"


def advice_in_the_sources() -> list[tuple[str, str]]:
    """What the library tells its user to run; in the place of a value of the moment stands one of its kind."""
    values = {"{run}": "runs/first", "{' '.join(missing).lower()}": "voc2007 voc2012"}
    found = []
    for path in sorted((ROOT / "course_lib").glob("*.py")):
        text = path.read_text()
        for place, value in values.items():
            text = text.replace(place, value)
        found += [(path.name, told) for told in advice_of(text)]
    return found


def advice_of(text: str) -> list[str]:
    return [f"python -m course_lib{rest}" for rest in re.findall(r"python -m course_lib((?: [\w/-][\w./-]*)+)", text)]


@pytest.mark.parametrize(("module", "command"), advice_in_the_sources())
def test_advice_of_the_library_is_complete_and_is_read(module, command):
    require_parsed(shlex.split(OURS.fullmatch(command)[1]))


# ---- a small world -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small archives under the names of the real ones."""
    folder, devkit = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("devkit")
    tree = emoji_voc.make_emoji_voc(devkit, train=10, test=2, workers=1) / "VOC2007"
    in_test = set((tree / "ImageSets/Main/test.txt").read_text().split())
    for year, (first, *others) in download.ARCHIVES.items():
        packed = {first.name: lambda path: path.stem not in in_test and not path.stem.endswith("test")}
        packed |= {one.name: lambda path: path.stem in in_test or path.stem.endswith("test") for one in others}
        for name, belongs in packed.items():
            with tarfile.open(folder / name, "w") as archive:
                for path in filter(belongs, tree.glob("*/**/*.*")):
                    archive.add(path, f"VOCdevkit/VOC{year}/{path.relative_to(tree)}")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, folder / download.VGG16.name)
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def mirror(archives: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=archives)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class World:
    """A reader's checkout; `run` is a shell that stands in it, its environment activated."""

    def __init__(self, folder: Path, archives: Path, mirror: str) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", "emoji", "VOCdevkit")
        for name in ("course_lib", "data", "tools"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored, symlinks=True)
        for name in ("Makefile", "pyproject.toml", "requirements.txt"):
            shutil.copy(ROOT / name, folder)
        shutil.copy(ROOT / "tests" / "small_world" / "small_world.py", folder)
        with (folder / "course_lib" / "profiles.py").open("a") as file:
            file.write("\nimport small_world\n\nsmall_world.shrink()\n")
        (folder / ".venv").symlink_to(sys.prefix)
        self.environment = {
            "HOME": str(folder.parent),
            "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),  # before the checkout that is installed
            "SMALL_ARCHIVES": str(archives),
            "SMALL_MIRROR": mirror,
            "no_proxy": "127.0.0.1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "PET_STANDALONE": "1",  # torchrun takes a free port: tests run side by side
        }

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def do(self, command: str, **environment: str) -> str:
        """Run what must succeed; gives what it printed."""
        done = self.run(command, **environment)
        assert done.returncode == 0, (
            f"{command}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
        return done.stdout


@pytest.fixture
def world(tmp_path: Path, archives: Path, mirror: str) -> World:
    folder = tmp_path / "ssd-from-scratch"
    folder.mkdir()
    return World(folder, archives, mirror)


# ---- what is not run, why, and what is checked instead -----------------------------------------------------------


def clones_what_lies_here(world: World, command: str) -> None:
    """The address leads to this checkout: no network."""
    if not (ROOT / ".git").exists():
        return
    address = next(word for word in command.split() if word.startswith("https://"))
    config = world.folder.parent / "gitconfig"
    config.write_text(f'[url "file://{ROOT}"]\n\tinsteadOf = {address}\n[safe]\n\tdirectory = *\n')
    elsewhere = world.folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    clone = elsewhere / world.folder.name
    shutil.rmtree(clone, ignore_errors=True)
    world.do(f"cd {elsewhere} && {command.removeprefix('!')}", GIT_CONFIG_GLOBAL=str(config))
    assert (clone / "Makefile").exists() and (clone / "pyproject.toml").exists()


def enters_what_was_cloned(world: World, command: str) -> None:
    assert command.split()[1] == world.folder.name


def says_what_make_would_do(world: World, command: str) -> None:
    for place, value in PLACEHOLDERS.items():
        command = command.replace(place, value)
    assert world.do(command, MAKEFLAGS="n").strip()


def pip_knows_the_options(world: World, command: str) -> None:
    assert "Usage:" in world.do(f"python -m {command.removeprefix('!')} --help")
    for name in re.findall(r"-r (\S+)", command):
        assert (world.folder / name).exists()


def leaves_python_to_the_environment(world: World, command: str) -> None:
    path = world.do(f"PATH=/usr/bin:/bin; {command} && command -v python")
    assert path.strip().endswith(".venv/bin/python")


def says_what_the_bootstrap_would_do(world: World, command: str) -> None:
    """The script itself, with --dry-run, on a machine that has a GPU and room."""
    machine = world.folder.parent / "machine"
    machine.mkdir(exist_ok=True)
    answers = {"nvidia-smi": "580.65.06, NVIDIA H100, 81559 MiB", "df": "one\\ntwo 0 0 99000000 0 /"}
    for name, answer in answers.items():
        (machine / name).write_text(f"#!/bin/sh\nprintf '{answer}\\n'\n")
        (machine / name).chmod(0o755)
    there = re.sub(r"(?:ssh VM )?bash (-s --|tools/gpu_vm\.sh)", r"bash \1 --dry-run", command)
    said = world.do(f"PATH={machine}:$PATH {there}")
    assert f"checkout: {world.folder}" in said and "then, in tmux" in said


def nothing(world: World, command: str) -> None: ...


INSTEAD: list[tuple[str, str, Callable[[World, str], None]]] = [
    (r"!?git clone .*", "the address needs a network", clones_what_lies_here),
    (r"%?cd .*", "each command starts in the checkout", enters_what_was_cloned),
    (r"(?:[A-Z_]+=\S+ )*make .*", "it installs and takes minutes; .ci/run does it", says_what_make_would_do),
    (r"!?pip .*", "it needs a network", pip_knows_the_options),
    (r"source .*/activate.*", "each command starts with it done", leaves_python_to_the_environment),
    (r"(?:ssh VM )?bash .*tools/gpu_vm\.sh.*", "it installs, for a GPU", says_what_the_bootstrap_would_do),
    (r"(?:ssh -t VM|rsync) .*", "it needs a second machine", nothing),
    (r"apt(?:-get)? install .*", "it changes the machine", nothing),
    (
        r"python -m course_lib .*\b(?:garden|FOLDER)\b.*",
        "the pictures are the reader's; test_commands_*.py has such",
        nothing,
    ),
    (r"python -m tools\.dear_tests .*", "it reads what all tests took", nothing),
    (
        r"(?:\.venv/bin/)?python -m course_lib doctor(?: --profile cpu)?(?: +#.*)?",
        "it trains for a minute and more; test_commands_doctor.py examines a smaller profile",
        nothing,
    ),
    (r"(?:\.venv/bin/)?python tools/record_run\.py .*", "it draws test pictures that this world lacks", nothing),
]


def run_documented(world: World | None, command: str) -> None:
    """Run a command of a document as it stands, or check what stands for it, and look at what it left."""
    for pattern, _, check in INSTEAD:
        if re.fullmatch(pattern, command):
            return check(world, command)
    assert OURS.fullmatch(command), f"{command!r} is neither run nor listed in INSTEAD"
    arguments = shlex.split(OURS.fullmatch(command)[1])
    run = world.folder / arguments[arguments.index("--run") + 1] if "--run" in arguments else None
    if "torchrun" in command:  # it stands for the same command on one device, whose run would be found finished
        shutil.rmtree(run, ignore_errors=True)
    world.do(command)
    return require_result(world.folder, command, arguments, run)


def require_result(folder: Path, command: str, arguments: list[str], run: Path | None) -> None:
    """What a command of ours is for is there when it has ended."""
    match arguments:
        case ["train", *_]:
            provenance = json.loads((run / "provenance.json").read_text())
            processes = re.search(r"--nproc-per-node (\d+)", command)
            assert provenance["finished"] and provenance["processes"] == int(processes[1] if processes else 1)
            assert {"best.safetensors", "last.safetensors"} <= {path.name for path in run.iterdir()}
        case ["evaluate", *_] if run:
            assert 0 <= json.loads((run / "evaluation_area.json").read_text())["mean_ap"] <= 1
        case ["download", *data_sets]:
            for year in re.findall(r"voc(\d+)", " ".join(data_sets)):
                assert (folder / "data" / "VOCdevkit" / f"VOC{year}" / "Annotations").is_dir()
            assert "vgg16" not in data_sets or (folder / "data" / download.VGG16.name).exists()
        case ["emoji-voc"]:
            assert (folder / "data" / "emoji" / "VOC2007" / "Annotations").is_dir()


@pytest.mark.parametrize("command", ["curl -O https://example.invalid", "python train.py --run r", "rm -rf data"])
def test_a_command_that_is_neither_run_nor_listed_is_noticed(command):
    with pytest.raises(AssertionError, match="neither run nor listed"):
        run_documented(None, command)


# ---- every command runs ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", weekly_but(["README.md"], [name for name in DOCUMENTS if commands_of((ROOT / name).read_text())])
)
def test_the_commands_of_a_document_run_one_after_the_other(document, world):
    text = (ROOT / document).read_text()
    commands = commands_of(text)
    if "--profile gpu" in text and not any(" download " in command for command in commands):
        world.do(DOWNLOAD)  # as the page on setting up says
    for command in commands:
        run_documented(world, command)
    if "COURSE_PROFILE=gpu" in text and any("download voc" in command for command in commands):
        world.do("python -c 'from course_lib import profiles; profiles.profile().prepare()'", COURSE_PROFILE="gpu")
    assert {path.name for path in world.folder.iterdir()} <= {
        "course_lib", "data", "tools", "Makefile", "pyproject.toml", "requirements.txt", "small_world.py", ".venv",
        "__pycache__", "runs", "detections",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "sequence",
    [
        ["evaluate --run runs/first", "train --run runs/first", "evaluate --run runs/first"],
        pytest.param(
            [
                "train --profile gpu --run runs/voc",
                "download voc2007 voc2012",
                "train --profile gpu --run runs/voc",
                "download vgg16",
                "train --profile gpu --run runs/voc",
                "evaluate --run runs/voc",
            ],
            marks=pytest.mark.weekly,
        ),
    ],
    ids=["evaluate", "train"],
)
def test_whoever_begins_at_the_end_and_does_what_is_told_arrives(sequence, world):
    command, done = f"python -m course_lib {sequence[0]}", []
    while command:
        ended = world.run(command)
        done.append(command)
        told = advice_of(ended.stdout + ended.stderr)
        if ended.returncode:  # an error says what comes before
            assert len(told) == 1, ended.stderr
            world.do(told[0])
            done += told
        else:
            command = told[0] if told else None
    assert done == [f"python -m course_lib {arguments}" for arguments in sequence]


# ---- how threads wait --------------------------------------------------------------------------------------------

FIRST_TORCH = """
import os, runpy, sys
def tell(event, arguments):
    if event == "import" and arguments[0] == "torch":
        print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"), flush=True)
        os._exit(0)
sys.addaudithook(tell)
"""
OUR_PROGRAM = "runpy.run_module('course_lib', run_name='__main__', alter_sys=True)"


def python(code: str, **set_by_user: str) -> str:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | set_by_user
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("code", "set_by_user", "expected"),
    [
        (OUR_PROGRAM, {}, "3000 None"),
        (OUR_PROGRAM, {"GOMP_SPINCOUNT": "7"}, "7 None"),
        (OUR_PROGRAM, {"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE"),
        ("import course_lib.cli", {}, "None None"),
        ("import course_lib.training", {"OMP_WAIT_POLICY": "PASSIVE"}, "None PASSIVE"),
    ],
)
def test_a_command_lets_threads_sleep_before_torch_is_there_and_an_import_decides_nothing(code, set_by_user, expected):
    assert python(FIRST_TORCH + code, **set_by_user) == expected


@pytest.mark.parametrize(
    ("set_by_user", "expected"), [({}, "3000 "), ({"GOMP_SPINCOUNT": "7"}, "7 "), ({"OMP_WAIT_POLICY": "x"}, " x")]
)
def test_make_decides_it_alike(set_by_user, expected, tmp_path):
    makefile = tmp_path / "Makefile"
    makefile.write_text(f'include {ROOT}/Makefile\nshown:\n\t@echo "$${{GOMP_SPINCOUNT:-}} $${{OMP_WAIT_POLICY:-}}"\n')
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MAKEFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | set_by_user
    command = ["make", "-s", "-f", str(makefile), "shown"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("\n") == expected


def test_the_package_itself_loads_no_torch():
    assert python("import sys, course_lib; print('torch' in sys.modules)") == "False"
