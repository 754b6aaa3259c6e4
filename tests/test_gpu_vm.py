"""The bootstrap of a bare GPU machine, on machines that are made up: a folder of programs that answer as told.

Nothing is installed and no network is asked. Each program writes its name and its arguments into `calls`.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "gpu_vm.sh"
# What every machine has.
BARE = "awk basename bash cat date dirname env mkdir rm sleep tail touch".split()
GPU = 'echo "580.65.06, NVIDIA H100 80GB HBM3, 81559 MiB"'
DISK = 'echo "file system"; echo "disk 0 0 {kilobytes} 0 /"'
NEW_PYTHON = """
case "$2" in
  *"< (3, 11)"*) exit {old};;
  *ensurepip*) exit {no_venv};;
  *print*) echo python3.11-venv;;
esac"""
# Its session is there as long as the file is; a window's command runs at once.
TMUX = """
case "$1" in
  has-session) [ -e {home}/session ];;
  new-session) touch {home}/session;;
  new-window) while [ "$1" != env ]; do shift; done; "$@";;
  kill-session) rm -f {home}/session;;
esac"""
COURSE = """
case "$2" in
  *torch.cuda*) {gpus};;
  course_lib) case "$3" in {fails}) echo "error: no"; exit 3;; esac;;
esac"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.home, self.bin, self.log = folder, folder / "bin", folder / "calls"
        self.checkout = folder / "ssd-from-scratch"
        self.bin.mkdir()
        self.log.touch()
        for name in BARE:
            (self.bin / name).symlink_to(shutil.which(name))
        self.put("nvidia-smi", GPU)
        self.put("df", DISK.format(kilobytes=99_000_000))
        self.put("id", "echo 0")
        self.put("tmux", TMUX.format(home=folder))
        self.put("git", f'cp() {{ {shutil.which("cp")} "$@"; }}; cp -r {folder}/remote "$4"')
        self.put("python3", NEW_PYTHON.format(old=0, no_venv=0))
        self.make_checkout(folder / "remote")

    def put(self, name: str, script: str, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!{shutil.which("bash")}\necho "{name} $*" >>{self.log}\n{script}\n')
        path.chmod(0o755)

    def take(self, *names: str) -> None:
        for name in names:
            (self.bin / name).unlink()

    def make_checkout(self, folder: Path, gpus: str = "echo 1", fails: str = "nothing") -> None:
        for name in ("course_lib/profiles.py", "tools/setup.py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        shutil.copy(SCRIPT, folder / "tools")
        self.put("python", COURSE.format(gpus=gpus, fails=fails), folder / ".venv" / "bin")
        self.put("torchrun", "", folder / ".venv" / "bin")

    def run(self, *options: str, piped: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """The script from a pipe, as ssh gives it, or as a file of the checkout."""
        call = ["bash", "-s", "--"] if piped else ["bash", str(self.checkout / "tools" / "gpu_vm.sh")]
        return subprocess.run(
            [*call, *options],
            input=SCRIPT.read_text() if piped else "",
            env={"PATH": str(self.bin), "HOME": str(self.home)} | environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def calls(self, *programs: str) -> list[str]:
        """What was called, of these programs; of all where none is named."""
        return [line for line in self.log.read_text().splitlines() if not programs or line.startswith(programs)]

    def said(self, run: str = "gpu") -> str:
        return (self.checkout / "runs" / f"{run}.log").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stdout + done.stderr
    return done.stderr


def test_bash_reads_it():
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck here")
def test_shellcheck_finds_nothing():
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == ""


# ---- before anything is paid for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "no GPU here (no nvidia-smi): take a machine with an NVIDIA GPU"),
        ('echo "NVIDIA-SMI has failed"; exit 9', "no GPU here: nvidia-smi says: NVIDIA-SMI has failed"),
        ('echo "No devices were found"', "no GPU here: nvidia-smi says: No devices were found"),
        ('echo "550.90, NVIDIA A100, 40 MiB"', "the driver is 550, and torch's usual build needs 580: update"),
    ],
)
def test_without_a_gpu_that_torch_can_use_it_ends_with_one_line_and_has_done_nothing(machine, answer, told):
    machine.take("nvidia-smi")
    if answer:
        machine.put("nvidia-smi", answer)
    assert told in one_line(machine.run())
    assert machine.calls("git", "apt", "sudo", "python") == [] and not machine.checkout.exists()


def test_another_build_of_torch_may_suit_an_older_driver(machine):
    machine.put("nvidia-smi", 'echo "550.90, NVIDIA A100, 40 MiB"')
    assert machine.run("--dry-run", TORCH_INDEX="https://index.invalid").returncode == 0


@pytest.mark.parametrize(
    ("options", "ready", "needed"), [((), "", 18), ((), "data", 11), (("--profile", "cpu"), "", 11)]
)
def test_a_small_disk_is_named_before_anything_is_fetched(machine, options, ready, needed):
    for year in ("2007", "2012"):
        if ready:
            (machine.checkout / "data" / "VOCdevkit" / f"VOC{year}" / "Annotations").mkdir(parents=True)
    machine.put("df", DISK.format(kilobytes=needed * 1_000_000 - 1))
    assert f"{needed - 1} GB are free at {machine.home}" in one_line(machine.run(*options))
    assert machine.calls("git", "apt", "tmux new") == []
    machine.put("df", DISK.format(kilobytes=needed * 1_000_000))
    assert machine.run("--dry-run", *options).returncode == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--runs", "x"], "--runs is no option"), (["runs/x"], "runs/x is no option"), (["--run"], "--run needs a value")],
)
def test_a_wrong_option_is_named(machine, options, told):
    assert told in one_line(machine.run(*options)) and machine.calls() == []


def test_a_dry_run_says_all_of_it_and_does_nothing(machine):
    machine.take("git")
    done = machine.run("--dry-run")
    for told in ("GPU (driver, name, memory): 580", "disk: 99 GB", "packages: git", "to be cloned", "then, in tmux"):
        assert told in done.stdout
    assert machine.calls("apt", "sudo", "tmux new") == [] and not machine.checkout.exists()


# ---- packages --------------------------------------------------------------------------------------------------------


def with_apt(machine: Machine, *lacking: str, offers: str = "python3.11-venv") -> None:
    """A machine where apt-get brings what it is asked for."""
    machine.take(*lacking)
    aside = machine.home / "packages"
    for name in lacking:
        machine.put(name, TMUX.format(home=machine.home) if name == "tmux" else "exit 0", aside)
    brings = f"{shutil.which('cp')} {aside}/* {machine.bin}/" if lacking else ":"
    machine.put("apt-get", f'case "$*" in *install*) {brings};; esac')
    machine.put("apt-cache", f'case "{offers}" in *"${{3:1:10}}"*) echo "$3";; esac')


def test_root_installs_what_is_missing_and_no_more(machine):
    with_apt(machine, "tmux", "git")
    machine.make_checkout(machine.checkout)
    assert machine.run().returncode == 0
    update, install = machine.calls("apt-get")
    assert update.endswith("update") and install.endswith("--no-install-recommends tmux git ca-certificates")


def test_others_install_by_sudo(machine):
    with_apt(machine, "tmux")
    machine.put("id", "echo 1000")
    machine.put("sudo", 'shift; [ "$1" = true ] || "$@"')
    machine.make_checkout(machine.checkout)
    assert machine.run().returncode == 0
    assert any("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get" in call for call in machine.calls("sudo"))


@pytest.mark.parametrize("sudo", [None, "exit 1"])
def test_who_may_not_install_is_told_what_to_ask_for(machine, sudo):
    with_apt(machine, "tmux")
    machine.put("id", "echo 1000")
    if sudo:
        machine.put("sudo", sudo)
    assert "have someone do apt-get install tmux; then the same command again" in one_line(machine.run())
    assert machine.calls("apt-get") == []


def test_a_system_without_apt_is_told_what_to_install(machine):
    machine.take("tmux")
    assert "install tmux with this system's own package manager" in one_line(machine.run())


def test_an_old_python3_is_passed_over_for_a_newer_one(machine):
    machine.put("python3", NEW_PYTHON.format(old=1, no_venv=0))
    machine.put("python3.12", NEW_PYTHON.format(old=0, no_venv=0))
    assert "tmux, git and python3.12 are here" in machine.run("--dry-run").stdout


@pytest.mark.parametrize("offered", ["python3.12-venv", "python3.11-venv"])
def test_where_no_python_is_new_enough_the_newest_that_is_offered_is_asked_for(machine, offered):
    with_apt(machine, offers=offered)
    machine.put("python3", NEW_PYTHON.format(old=1, no_venv=0))
    name = offered.removesuffix("-venv")
    assert f"packages: {name} {offered} are to be installed" in machine.run("--dry-run").stdout


def test_pythons_venv_is_a_package_of_its_own(machine):
    with_apt(machine)
    machine.put("python3", NEW_PYTHON.format(old=0, no_venv=1))
    assert "packages: python3.11-venv are to be installed" in machine.run("--dry-run").stdout
    machine.make_checkout(machine.checkout)  # whose environment is made already
    assert "tmux, git and python3 are here" in machine.run("--dry-run").stdout


# ---- the work --------------------------------------------------------------------------------------------------------

DOWNLOAD = "python -m course_lib download"
EVALUATE = "python -m course_lib evaluate --run runs/gpu --method 11point"


def work_of(machine: Machine) -> list[str]:
    return machine.calls("python3 tools", "python -m", "torchrun")


def test_on_a_bare_machine_one_command_leads_to_the_measured_run(machine):
    done = machine.run("--mirror", "http://mirror.invalid/voc", "--", "--recipe", "schedule=step_drops", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr + machine.said()
    assert work_of(machine) == [
        "python3 tools/setup.py",
        f"{DOWNLOAD} vgg16 voc2007 voc2012 --mirror http://mirror.invalid/voc",
        "python -m course_lib train --profile gpu --run runs/gpu --recipe schedule=step_drops --seed 1",
        EVALUATE,
    ]
    assert machine.calls("git")[0].endswith(f"https://github.com/ssd-from-scratch/ssd-from-scratch {machine.checkout}")
    assert machine.said().endswith("all is done\n")


def test_in_a_checkout_it_works_there_and_clones_nothing(machine):
    machine.make_checkout(machine.checkout)
    assert machine.run("--run", "runs/a b.c", piped=False).returncode == 0
    assert machine.calls("git") == []
    assert "python -m course_lib train --profile gpu --run runs/a b.c" in work_of(machine)
    assert "-s ssd-from-scratch-a b_c " in machine.calls("tmux new-session")[0]


def test_a_trial_needs_no_gpu_and_fetches_nothing(machine):
    machine.take("nvidia-smi")
    assert machine.run("--profile", "cpu", "--", "--epochs", "1").returncode == 0
    assert work_of(machine) == [
        "python3 tools/setup.py",
        "python -m course_lib train --profile cpu --run runs/cpu --epochs 1",
        "python -m course_lib evaluate --run runs/cpu",
    ]


@pytest.mark.parametrize(
    ("there", "environment", "asked"),
    [
        (["2007"], {}, "vgg16 voc2012"),
        (["2007", "2012"], {}, "vgg16"),
        ([], {"COURSE_DEVKIT": "/data/my voc"}, "vgg16"),
    ],
)
def test_data_that_is_here_is_not_fetched(machine, there, environment, asked):
    machine.make_checkout(machine.checkout)
    for year in there:
        (machine.checkout / "data" / "VOCdevkit" / f"VOC{year}" / "Annotations").mkdir(parents=True)
    assert machine.run(**environment).returncode == 0
    assert machine.calls(DOWNLOAD) == [f"{DOWNLOAD} {asked}"]


def test_on_several_gpus_a_process_trains_on_each(machine):
    machine.make_checkout(machine.checkout, gpus="echo 4")
    assert machine.run().returncode == 0
    assert work_of(machine)[2] == "torchrun --nproc-per-node 4 -m course_lib -- train --profile gpu --run runs/gpu"


def test_where_torch_sees_no_gpu_nothing_is_fetched_and_nothing_trained(machine):
    machine.make_checkout(machine.checkout, gpus='echo "torch sees no GPU"; exit 1')
    machine.run()
    assert work_of(machine) == ["python3 tools/setup.py"]
    assert "ended before all was done (exit code 1): the same command goes on" in machine.said()


@pytest.mark.parametrize(("fails", "done"), [("download", 2), ("train", 3), ("evaluate", 4)])
def test_a_step_that_fails_is_the_last_one_and_the_second_call_goes_on_from_there(machine, fails, done):
    machine.make_checkout(machine.checkout, fails=fails)
    machine.run()
    assert len(work_of(machine)) == done
    assert "error: no\n" in machine.said() and "(exit code 3): the same command goes on from here" in machine.said()
    machine.make_checkout(machine.checkout)
    assert machine.run().returncode == 0 and work_of(machine)[-1] == EVALUATE


def test_the_second_call_shows_the_run_that_is_under_way(machine):
    machine.make_checkout(machine.checkout)
    (machine.home / "session").touch()
    done = machine.run()
    assert "it runs already" in done.stdout and "tmux attach -t ssd-from-scratch-gpu" in done.stdout
    assert machine.calls("tmux new", "python") == []


# ---- a real tmux -----------------------------------------------------------------------------------------------------


def wait_for(condition, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def in_tmux(machine):
    """A machine with the true tmux, on sockets of its own; training waits there for the file `go`, or for a signal."""
    machine.make_checkout(machine.checkout)
    machine.take("tmux")
    (machine.bin / "tmux").symlink_to(shutil.which("tmux"))
    told = f"trap 'echo saved; exit 129' HUP; echo under way; while [ ! -e {machine.home}/go ]; do sleep 0.05; done"
    machine.put("python", f'case "$3" in train) {told};; esac', machine.checkout / ".venv" / "bin")
    (machine.home / "sockets").mkdir()
    environment = {"TMUX_TMPDIR": str(machine.home / "sockets"), "TERM": "xterm", "LANG": "C.UTF-8"}
    yield (
        lambda: machine.run("--profile", "cpu", **environment),
        lambda *arguments: subprocess.run(
            ["tmux", *arguments], env=os.environ | environment, capture_output=True, check=False
        ),
    )
    (machine.home / "go").touch()
    subprocess.run(["tmux", "kill-server"], env=os.environ | environment, capture_output=True, check=False)


@pytest.mark.skipif(not shutil.which("tmux"), reason="there is no tmux here")
def test_a_window_whose_output_goes_into_a_file_is_not_closed_and_the_run_outlives_its_terminal(machine, in_tmux):
    """tmux ended a window, and with it the run, when nothing held its terminal any more."""
    start, tmux = in_tmux
    assert start().returncode == 0  # and the terminal is gone
    wait_for(lambda: "under way" in machine.said("cpu"))
    assert "it runs already" in start().stdout
    (machine.home / "go").touch()
    wait_for(lambda: "all is done" in machine.said("cpu"))
    wait_for(lambda: tmux("has-session", "-t", "ssd-from-scratch-cpu").returncode)


@pytest.mark.skipif(not shutil.which("tmux"), reason="there is no tmux here")
def test_a_training_hears_that_its_session_is_ended_and_may_save(machine, in_tmux):
    """While the script had a trap for the hangup, it alone heard of it, and the training went on unseen."""
    start, tmux = in_tmux
    assert start().returncode == 0
    wait_for(lambda: "under way" in machine.said("cpu"))
    tmux("kill-session", "-t", "ssd-from-scratch-cpu")
    wait_for(lambda: "saved" in machine.said("cpu") and "ended before all was done" in machine.said("cpu"))
