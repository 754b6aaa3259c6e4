"""Loading: which image comes when, and the processes that read and augment images beside the one that computes."""

import errno
import multiprocessing
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from course_lib import machine
from course_lib.files import DataError
from course_lib.images import resized
from course_lib.runs import RunError
from course_lib.stopping import outlive_signals
from course_lib.voc import Batch, ImageDataset, Target, collate

AHEAD = 2  # batches that each worker may have made before they are asked for


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


class Shuffled(Sampler):
    """Yields `(epoch, index)`: an order that depends on seed and epoch alone, split among processes.

    The last images of an epoch that would not fill a batch are left out; each epoch others.

    Attributes:
        skipped: of this process's images, how many come no more, since an interrupted epoch has had them. The length
            is the whole epoch's all the same.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length // batch_size * batch_size, seed, 0
        self.population, self.skipped = length, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.population, generator=generator)[: self.length].tolist()
        return iter([(self.epoch, index) for index in order[rank() :: world_size()][self.skipped :]])

    def __len__(self) -> int:
        return self.length // world_size()


class Augmented(Dataset):
    """A data set whose sample depends on `(epoch, index)` and the seed, and on nothing else.

    So it does not matter which worker makes a sample, or whether a run was interrupted.

    Args:
        transform: an `augment.Augment`.
    """

    def __init__(self, dataset: ImageDataset, transform: Callable, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        image, target = self.dataset.load(index)
        self.transform.seed((self.seed * 1_000_003 + epoch) * len(self.dataset) + index)
        with naming(target):
            return self.transform(image, target)


class Resized(Dataset):
    """A data set as a model is measured on it: each image stretched to its size, and nothing else."""

    def __init__(self, dataset: Dataset, image_size: int) -> None:
        self.dataset, self.image_size = dataset, image_size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        image, target = self.dataset.load(index)
        return resized(image, self.image_size), target


@contextmanager
def naming(target: Target) -> Iterator[None]:
    """Name the image in whatever goes wrong with it; an error of the data names its file already."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise RunError(f"image {target.image_id}: {type(error).__name__}: {error}") from error


def loader(
    dataset: Dataset,
    image_size: int,
    batch_size: int,
    workers: int = 0,
    sampler: Sampler | Sequence[int] | None = None,
    keep_workers: bool = False,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches of a data set, made by as many workers as the machine can bear.

    Args:
        dataset: gives images of `image_size` and their targets.
        workers: processes that load images, beside this one. Where the machine has too little shared memory for
            them, their batches come through pipes; where it lets too few files be open, they are fewer. Each with a
            warning.
        keep_workers: for the next pass, or end them after each.
    """
    workers, way = bearable(workers, batch_size * 3 * image_size**2)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        collate_fn=way if workers else collate,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        persistent_workers=keep_workers and workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # an epoch that is begun twice takes nothing from torch's own
    )


def bearable(workers: int, batch_bytes: int) -> tuple[int, Callable[[Sequence], object]]:
    """How many of the workers that are wanted the machine bears, and how their batches come from them.

    In shared memory, of which a container has 64 MB unless it is told otherwise, a batch costs no copy; but where that
    memory is full, a worker cannot even say so. A batch that is made and one that is used are on their way beside
    those `AHEAD`, and each of their tensors is an open file, as is each end of a worker's pipes.

    Args:
        batch_bytes: of a batch's images.
    """
    if not workers or not can_share():
        return 0, collate
    files = machine.files_left() - 16
    if (most := int(max(0, min(workers, files // 6)))) < workers:
        warnings.warn(
            f"{workers} workers that load images need more open files than `ulimit -n` allows: there are {most} now; "
            "ulimit -n 4096 allows all",
            stacklevel=3,
        )
    batches = most * AHEAD + 2
    needed, free = batches * (batch_bytes + 2**16) * machine.processes(), machine.shared_memory()
    if needed > free:
        warnings.warn(
            f"{machine.SHARED} has {free / 2**20:.0f} MB free, and {most} workers would need {needed / 2**20:.0f}: "
            "images come through pipes, a little slower (docker run --shm-size=8g gives a container more)",
            stacklevel=3,
        )
    return most, through_pipes if needed > free or 6 * most + 4 * batches > files else through_shared_memory


def can_share() -> bool:
    """Whether processes can have a lock in common, without which there are no workers."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        warnings.warn(
            f"workers are impossible here ({machine.SHARED}: {error.strerror}): images are loaded by this process, "
            "which takes longer",
            stacklevel=4,
        )
        return False
    return True


def through_shared_memory(samples: Sequence[tuple[UInt8[Tensor, "3 S S"], Target]]) -> Batch:
    """A batch in shared memory. Where there is no more of it, that is an error here, which can be told."""
    batch = collate(samples)
    for tensor in batch[:4]:
        tensor.share_memory_()
    return batch


def through_pipes(samples: Sequence[tuple[UInt8[Tensor, "3 S S"], Target]]) -> "Packed":
    """A batch that needs neither shared memory nor an open file."""
    return Packed(collate(samples))


class Packed:
    """A batch that is pickled as bytes, and unpickled as a `Batch`."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple:
        return unpacked, (*(tensor.numpy() for tensor in self.batch[:4]), *self.batch[4:])


def unpacked(images, boxes, labels, difficult, image_ids, sizes) -> Batch:
    return Batch(*map(torch.from_numpy, (images, boxes, labels, difficult)), image_ids, sizes)


@contextmanager
def loading_errors(when: Callable[[], str]) -> Iterator[None]:
    """Say what happened to the images or their workers, and when, in one line that names the cure.

    A worker that dies interrupts whatever this process is doing, so all of an epoch belongs into this block.

    Args:
        when: gives words such as "in epoch 3".

    Raises:
        DataError: as a worker raised it, with `when`.
        RunError: a worker died, or found no memory or open file left, or an image's transform failed.
    """
    try:
        yield
    except DataError as error:
        release(error)
        raise DataError(error.path, error.field, error.value, f"{error.cure} (found {when()})") from None
    except (RuntimeError, OSError) as error:
        if reason := reason_of(error):
            release(error)
            raise RunError(f"{when()}: {reason}") from error
        raise


def release(error: Exception) -> None:
    """Let go of the loader's iterator, which the frames of an error hold: so its workers end at once.

    Found by the garbage collector instead, it would have lost the pipe by which it tells them, and wait.
    """
    traceback.clear_frames(error.__traceback__)


@contextmanager
def ending(loader: DataLoader) -> Iterator[None]:
    """End the workers that a loader keeps, however the block ends: they do not listen to signals for long enough."""
    try:
        yield
    finally:
        if loader._iterator is not None:  # torch has no public name for it
            loader._iterator._shutdown_workers()
            loader._iterator = None


FEWER = "the run goes on where it was saved last, and with fewer workers if you say so: --recipe workers=1"


def reason_of(error: RuntimeError | OSError) -> str | None:
    """What went wrong with the workers, and what to do; None where it is no matter of theirs."""
    text = str(error)
    if "shared memory" in text:
        return f"a worker found no room in {machine.SHARED}: docker run --shm-size=8g gives a container more; {FEWER}"
    if dead := re.search(
        r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]*)|exited)", text
    ):
        how = f"was killed by signal {dead[2].strip()}" if dead[2] else "died"
        return f"a worker that loads images (process {dead[1]}) {how}: the machine may be out of memory; {FEWER}"
    if getattr(error, "errno", None) == errno.EMFILE or "ancdata" in text or "open files" in text:
        return f"too many files are open: ulimit -n 4096 allows more; {FEWER}"
    if isinstance(error, RunError) and "DataLoader worker" in text:
        return text.rstrip().rpartition("RunError: ")[2]
    return text if isinstance(error, RunError) and text.startswith("image ") else None
