import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data import Dataset

from course_lib import augment, loaders, machine
from course_lib.files import DataError
from course_lib.loaders import Augmented, Shuffled, loading_errors
from course_lib.runs import RunError
from course_lib.voc import Target, VOCDetection, collate

MEGABYTE = 2**20


def test_the_order_depends_on_seed_and_epoch_alone_and_leaves_out_less_than_a_batch():
    a, b = Shuffled(10, 4, seed=1), Shuffled(10, 4, seed=1)
    assert list(a) == list(b) and len(a) == len(list(a)) == 8
    a.epoch = 1
    assert [index for _, index in a] != [index for _, index in b] and {epoch for epoch, _ in a} == {1}
    assert list(Shuffled(10, 4, seed=2)) != list(b)


def test_a_sample_depends_on_its_key_and_the_seed_and_not_on_who_makes_it(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "train")
    data = Augmented(dataset, augment.training_mini(64), 7)
    keys = [(0, 3), (1, 3), (0, 4)]
    first = [data[key][0] for key in keys]
    loader = torch.utils.data.DataLoader(
        Augmented(dataset, augment.training_mini(64), 7), None, sampler=keys[::-1], num_workers=2
    )
    for image, (again, _) in zip(first[::-1], loader, strict=True):
        assert torch.equal(image, again)
    assert len({image.numpy().tobytes() for image in first}) == 3


class Plain(Dataset):
    """Images of one value, which is their name; `meet` is called before one is given."""

    def __init__(self, size: int = 64, meet=lambda index: None) -> None:
        self.size, self.meet = size, meet

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int):
        self.meet(index)
        nothing = torch.zeros(index % 3)
        target = Target(torch.rand(index % 3, 4), nothing.long(), nothing.bool(), str(index), (9, 9))
        return torch.full((3, self.size, self.size), index, dtype=torch.uint8), target


def require_plain(batches) -> None:
    """That all twelve came, whole and in order."""
    assert [name for batch in batches for name in batch.image_ids] == [str(index) for index in range(12)]
    for batch in batches:
        assert all((image == int(name)).all() for image, name in zip(batch.images, batch.image_ids, strict=True))
        assert batch.boxes.shape == (*batch.labels.shape, 4) == (*batch.difficult.shape, 4)


WAYS = {"shared memory": loaders.through_shared_memory, "pipes": loaders.through_pipes}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """How the workers' batches come, where the machine bears every number of workers."""
    monkeypatch.setattr(machine, "files_left", lambda: math.inf)
    monkeypatch.setattr(machine, "shared_memory", lambda: math.inf if request.param == "shared memory" else 0)
    return WAYS[request.param]


@pytest.mark.filterwarnings("ignore:.*images come through pipes")
def test_a_batch_is_the_same_whichever_way_it_comes(way):
    loader = loaders.loader(Plain(), 64, 5, workers=1, keep_workers=True)
    assert loader.collate_fn is way and loader.num_workers == 1
    for _ in range(2):
        require_plain(list(loader))
    alone = loaders.loader(Plain(), 64, 5)
    assert alone.collate_fn is collate
    require_plain(list(alone))


@pytest.mark.parametrize(
    ("workers", "free", "files", "borne", "way", "warned"),
    [
        (0, 0, 0, 0, "none", []),
        (1, math.inf, math.inf, 1, "shared memory", []),
        (8, 1024 * MEGABYTE, 1000, 8, "shared memory", []),
        (8, 64 * MEGABYTE, 1000, 8, "pipes", ["/dev/shm has 64 MB free, and 8 workers would need 149"]),
        (4, 1 * MEGABYTE, 1000, 4, "pipes", ["/dev/shm has 1 MB free"]),
        (2, 64 * MEGABYTE, 1000, 2, "shared memory", []),
        (8, 0, 1000, 8, "pipes", ["/dev/shm has 0 MB free"]),
        (4, math.inf, 44, 4, "pipes", []),  # ulimit -n 64, of which twenty are open
        (16, math.inf, 44, 4, "pipes", ["16 workers .* there are 4 now"]),
        (16, 0, 44, 4, "pipes", ["there are 4 now", "4 workers would need"]),
        (8, math.inf, 10, 0, "none", ["there are 0 now"]),
    ],
)
def test_a_machine_with_little_of_something_has_fewer_workers_or_pipes(
    monkeypatch, recwarn, workers, free, files, borne, way, warned
):
    """Batches of 32 images of 300 x 300 pixels, 8.3 MB."""
    monkeypatch.setattr(machine, "shared_memory", lambda: free)
    monkeypatch.setattr(machine, "files_left", lambda: files)
    found, collate_fn = loaders.bearable(workers, 32 * 3 * 300**2)
    assert found == borne and (borne == 0 or collate_fn is WAYS[way])
    assert len(recwarn) == len(warned)
    for message, text in zip(recwarn, warned, strict=True):
        assert re.search(text, str(message.message))


def test_the_processes_of_a_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(machine, "shared_memory", lambda: 100 * MEGABYTE)
    assert loaders.bearable(2, 8 * MEGABYTE)[1] is loaders.through_shared_memory
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.warns(UserWarning, match="would need 19[0-9]"):
        assert loaders.bearable(2, 8 * MEGABYTE)[1] is loaders.through_pipes


def test_where_processes_can_have_no_lock_in_common_there_are_no_workers(monkeypatch):
    def refused():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(loaders.multiprocessing, "Lock", refused)
    with pytest.warns(UserWarning, match=r"workers are impossible here \(/dev/shm: No such file"):
        loader = loaders.loader(Plain(), 64, 5, workers=3)
    require_plain(list(loader))


# A program that loads with four workers; its first argument is said to be free in /dev/shm.
PROGRAM = """
import sys, math, warnings
sys.path.insert(0, {tests!r})
from course_lib import loaders, machine
from test_loaders import Plain, require_plain
warnings.filterwarnings("ignore", "This DataLoader will create")
if sys.argv[1] != "real":
    machine.shared_memory = lambda: float(sys.argv[1])
try:
    with loaders.loading_errors(lambda: "in epoch 1"):
        loader = loaders.loader(Plain(512), 512, 3, workers=4)
        require_plain(list(loader))
    print(loader.num_workers, loader.collate_fn.__name__)
except loaders.RunError as error:
    print("one line:", error)
"""


def load_elsewhere(root, free: str, *before: str, **options) -> str:
    program = [sys.executable, "-c", PROGRAM.format(tests=str(root / "tests")), free]
    done = subprocess.run([*before, *program], capture_output=True, text=True, timeout=1200, check=True, **options)
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("files", [64, 48])
def test_with_few_open_files_images_are_loaded(root, files):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    workers, way = load_elsewhere(root, "real", preexec_fn=limit).split()
    assert 1 <= int(workers) <= 4 and way == "through_pipes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("believed", "said"), [("real", "4 through_pipes"), ("inf", "one line: in epoch 1: a worker found no room in /dev")]
)
def test_a_shared_memory_of_one_megabyte_never_hangs(root, believed, said):
    """Also where it was filled after it was looked at. It hung for ever: the worker could not say what had happened."""
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    unshare = shutil.which("unshare") or pytest.skip("no unshare here, which gives a process a /dev/shm of its own")
    if subprocess.run([unshare, "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("only root has a /dev/shm of its own")
    assert load_elsewhere(root, believed, unshare, "-m", "sh", "-c", f'{mount}; exec "$0" "$@"').startswith(said)


def end_at(index: int, how: int | None):
    def meet(asked: int) -> None:
        if asked == index:
            os._exit(3) if how is None else os.kill(os.getpid(), how)

    return meet


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*images come through pipes")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGBUS, None])
def test_a_worker_that_dies_ends_the_run_with_one_line(way, how):
    loader = loaders.loader(Plain(meet=end_at(7, how)), 64, 2, workers=2)
    said = r"^in epoch 4: .*(worker|room in /dev/shm).*--recipe workers=1$"
    with pytest.raises(RunError, match=said) as error, loading_errors(lambda: "in epoch 4"):
        list(loader)
    assert "\n" not in str(error.value)


FAILURES = [
    (
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
        "no room in /dev/shm",
    ),
    (RuntimeError("unable to write to file </torch_12_34>: shared memory"), "no room in /dev/shm"),
    (RuntimeError("received 0 items of ancdata"), "too many files are open: ulimit -n"),
    (OSError(24, "Too many open files"), "too many files are open: ulimit -n"),
    (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "), r"process 12\) was killed by .*Killed:"),
    (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), r"process 12, 13\) died"),
]


@pytest.mark.parametrize(("error", "said"), FAILURES)
def test_what_torch_says_of_its_workers_is_one_line_with_a_cure(error, said):
    with pytest.raises(RunError, match=f"^in epoch 2: .*{said}"), loading_errors(lambda: "in epoch 2"):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shape '[2]' is invalid"), OSError(2, "x"), RunError("x"), KeyError(3)])
def test_what_is_no_matter_of_the_workers_stays_as_it_is(error):
    with pytest.raises(type(error)) as found, loading_errors(lambda: "in epoch 2"):
        raise error
    assert found.value is error


class Failing(augment.Augment):
    """An error that is made where it is raised, as all are."""

    def __init__(self, kind: type[Exception], *fields: object) -> None:
        self.kind, self.fields = kind, fields

    def seed(self, seed: int) -> None:
        pass

    def __call__(self, image, target):
        raise self.kind(*self.fields)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "kept", "said"),
    [
        (
            (DataError, "a/b.jpg", "image", "cut", "restore it"),
            DataError,
            r"a/b.jpg: image is 'cut': restore it \(found",
        ),
        ((ValueError, "no\nbox"), RunError, r"image \d{6}: ValueError: no.box"),
        ((KeyError, "size"), RunError, r"image \d{6}: KeyError: 'size'"),
        ((ZeroDivisionError, "x"), RunError, r"image \d{6}: ZeroDivisionError: x"),
    ],
)
def test_what_goes_wrong_in_a_worker_names_the_image_and_the_epoch(small_devkit, workers, error, kept, said):
    dataset = VOCDetection(small_devkit, "2007", "val")
    data = Augmented(dataset, Failing(*error), 0)
    loader = loaders.loader(data, 64, 2, workers=workers, sampler=Shuffled(len(dataset), 2, 0))
    with pytest.raises(kept, match=f"(?s){said}") as found, loading_errors(lambda: "in epoch 3"):
        next(iter(loader))
    assert "in epoch 3" in str(found.value) and "Traceback" not in str(found.value)
