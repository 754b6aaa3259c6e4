"""Loading: which image comes when, and the processes that read and augment images beside the one that computes."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from course_lib.augment import Augment
from course_lib.images import resized
from course_lib.voc import ImageDataset, Target


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


class Shuffled(Sampler):
    """Yields `(epoch, index)`: an order that depends on seed and epoch alone, split among processes.

    The last images of an epoch that would not fill a batch are left out; each epoch others.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length // batch_size * batch_size, seed, 0
        self.population = length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.population, generator=generator)[: self.length].tolist()
        return iter([(self.epoch, index) for index in order[rank() :: world_size()]])

    def __len__(self) -> int:
        return self.length // world_size()


class Augmented(Dataset):
    """A data set whose sample depends on `(epoch, index)` and the seed, and on nothing else.

    So it does not matter which worker makes a sample, or whether a run was interrupted.
    """

    def __init__(self, dataset: ImageDataset, transform: Augment, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        image, target = self.dataset.load(index)
        self.transform.seed((self.seed * 1_000_003 + epoch) * len(self.dataset) + index)
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
