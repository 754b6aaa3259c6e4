"""Small pictures that show one object each, in CIFAR-10's layout: 32 x 32 pixels, a class each, train and test apart.

CIFAR-10 itself is read where a folder has it; else the objects of a data set of this course are cut out.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from course_lib.files import DataError
from course_lib.pretraining import objects_of
from course_lib.voc import ImageDataset, common_classes

SIDE = 32  # pixels
CIFAR10_TRAIN, CIFAR10_TEST = tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",)
FETCH = "unpack cifar-10-python.tar.gz (www.cs.toronto.edu/~kriz/cifar.html) and name its folder cifar-10-batches-py"


@dataclass(frozen=True)
class Crops:
    """Pictures and their classes.

    Attributes:
        labels: index into `classes`, from 0: there is no background.
    """

    images: UInt8[Tensor, "N 3 S S"]
    labels: Int[Tensor, " N"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, rows: Int[Tensor, " K"]) -> "Crops":
        """Some of them."""
        return Crops(self.images[rows], self.labels[rows], self.classes)

    def colours(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Mean and deviation of each channel, 0 to 255."""
        pixels = self.images.double().transpose(0, 1).flatten(1)
        return pixels.mean(dim=1).float(), pixels.std(dim=1).float()


class Problem(NamedTuple):
    """A classification: what is learned from, and what is measured on."""

    train: Crops
    test: Crops


def of_objects(train: ImageDataset, test: ImageDataset, side: int = SIDE) -> Problem:
    """The objects of two data sets, each cut out with a margin; difficult ones are left out.

    Raises:
        ValueError: the two have not the same classes.
    """
    classes = common_classes((*train.sets, *test.sets))
    return Problem(*(Crops(*objects_of(part, side), classes) for part in (train, test)))


def read_cifar10(folder: str | Path) -> Problem:
    """CIFAR-10 from the files of its Python edition: pickles, of which arrays and plain values are all that is let in.

    Args:
        folder: `cifar-10-batches-py`, with five files to learn from, one to measure on and the names of the classes.

    Raises:
        DataError: a file is missing or broken, or holds anything else; what would have to be run is refused.

    Source: Krizhevsky 2009.
    """
    folder = Path(folder)
    names = read_pickle(folder / "batches.meta").get(b"label_names", [])
    if not names or not all(isinstance(name, bytes) for name in names):
        raise DataError(folder / "batches.meta", "label_names", names, FETCH)
    classes = tuple(name.decode() for name in names)
    return Problem(*(read_batches(folder, files, classes) for files in (CIFAR10_TRAIN, CIFAR10_TEST)))


def read_batches(folder: Path, files: tuple[str, ...], classes: tuple[str, ...]) -> Crops:
    """Pictures of some of CIFAR-10's files, in their order."""
    images, labels = [], []
    for path in (folder / name for name in files):
        batch = read_pickle(path)
        rows, own = batch.get(b"data"), batch.get(b"labels")
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (3 * SIDE * SIDE,):
            raise DataError(path, "data", shape_of(rows), f"it should be uint8 [pictures, {3 * SIDE * SIDE}]: {FETCH}")
        if not isinstance(own, list) or len(own) != len(rows) or not {*own} <= {*range(len(classes))}:
            raise DataError(path, "labels", shape_of(own), f"it should be {len(rows)} numbers, one a picture: {FETCH}")
        images.append(torch.from_numpy(rows.copy()).unflatten(1, (3, SIDE, SIDE)))
        labels += own
    return Crops(torch.cat(images), torch.tensor(labels), classes)


def shape_of(value: Any) -> str:
    """What a value is, in a word or two."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


# What numpy makes an array of when it is unpickled; its module has another name in each of numpy's editions.
RECONSTRUCT = np.empty(0).__reduce__()[0]
LET_IN = {"_reconstruct": RECONSTRUCT, "ndarray": np.ndarray, "dtype": np.dtype}


class ArraysAlone(pickle.Unpickler):
    """An unpickler that knows numpy's arrays, and no other class or function: a pickle can name any, to be called."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] != "numpy" or name not in LET_IN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return LET_IN[name]


def read_pickle(path: Path) -> dict[bytes, Any]:
    """A dictionary of arrays and plain values; what else a pickle asks for is refused before it is run.

    Raises:
        DataError: the file is missing or broken, or asks for more.
    """
    try:
        with path.open("rb") as file:
            found = ArraysAlone(file, encoding="bytes").load()
    except FileNotFoundError:
        raise DataError(path, "file", "missing", FETCH) from None
    except Exception as error:  # a broken pickle fails in many ways
        cure = f"it is cut short, or holds more than arrays, which is refused: {FETCH}"
        raise DataError(path, "pickle", f"{type(error).__name__}: {error}", cure) from None
    if not isinstance(found, dict):
        raise DataError(path, "pickle", type(found).__name__, f"it should be a dictionary: {FETCH}")
    return found
