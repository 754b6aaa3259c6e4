import os
import pickle

import numpy as np
import pytest
import torch

from course_lib import crops
from course_lib.files import DataError
from course_lib.pretraining import objects_of
from course_lib.voc import VOCDetection


class Printed:
    """Something that a pickle asks to be called when it is read."""

    def __reduce__(self):
        return os.system, ("exit 1",)


def write_cifar10(folder, count=6):
    """Files as CIFAR-10's are, with a few random pictures in each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, count).tolist()
        write(folder / name, {b"batch_label": name.encode(), b"data": data, b"labels": labels})
    write(folder / "batches.meta", {b"label_names": [f"class {n}".encode() for n in range(10)]})
    return folder


def write(path, content):
    # Protocol 3 is the first that has bytes, which Python 2's strings are read as.
    path.write_bytes(pickle.dumps(content, protocol=3))


def test_crops_are_the_objects_of_both_sets_at_cifars_size(small_devkit):
    train, test = (VOCDetection(small_devkit, "2007", name) for name in ("train", "test"))
    problem = crops.of_objects(train, test)
    for part, dataset in zip(problem, (train, test), strict=True):
        images, labels = objects_of(dataset, 32)
        assert torch.equal(part.images, images) and torch.equal(part.labels, labels)
        assert part.images.shape[1:] == (3, 32, 32) and part.images.dtype == torch.uint8
        assert part.classes == dataset.classes and len(part) == len(labels)


def test_colours_are_those_of_all_pixels():
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    mean, std = crops.Crops(torch.from_numpy(pictures), torch.zeros(7, dtype=torch.int64), ("a",)).colours()
    for channel in range(3):
        values = pictures[:, channel].astype(np.float64)
        assert mean[channel].item() == pytest.approx(values.mean(), rel=1e-6)
        assert std[channel].item() == pytest.approx(values.std(ddof=1), rel=1e-6)


def test_cifar10s_files_are_read_row_by_row(tmp_path):
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    problem = crops.read_cifar10(folder)
    assert (len(problem.train), len(problem.test)) == (30, 6)
    assert problem.train.classes == tuple(f"class {n}" for n in range(10))
    third = pickle.loads((folder / "data_batch_3").read_bytes())
    for row in range(6):
        red, green, blue = third[b"data"][row].reshape(3, 1024)
        picture = problem.train.images[12 + row]
        for channel, values in zip(picture, (red, green, blue), strict=True):
            assert channel.flatten().tolist() == values.tolist()
        assert problem.train.labels[12 + row] == third[b"labels"][row]


def test_a_pickle_of_python_2_is_read(tmp_path):
    """As CIFAR-10's are: protocol 2, strings for bytes, numpy's module by its old name."""
    rows = bytes(range(12))
    text = (
        b"\x80\x02}q\x00(U\x06labels]q\x01(K\x01K\x00eU\x04datacnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x06\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c" + rows + b"tbu."
    )
    (tmp_path / "batch").write_bytes(text)
    found = crops.read_pickle(tmp_path / "batch")
    assert found[b"labels"] == [1, 0] and found[b"data"].tolist() == [[*range(6)], [*range(6, 12)]]


@pytest.mark.parametrize("payload", [Printed(), np.random.default_rng, torch.zeros(2), {b"data": Printed()}])
def test_what_a_pickle_asks_to_be_called_is_refused_and_not_called(tmp_path, monkeypatch, payload):
    folder = write_cifar10(tmp_path)
    write(folder / "test_batch", payload)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it was called"))
    with pytest.raises(DataError, match=r"test_batch: pickle is .*UnpicklingError: it asks for .* refused"):
        crops.read_cifar10(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2", {b"data": np.zeros((6, 3071), np.uint8), b"labels": [0] * 6}, r"data is 'uint8 \[6, 3071\]'"),
        ("data_batch_2", {b"data": np.zeros((6, 3072)), b"labels": [0] * 6}, r"data is 'float64 \[6, 3072\]'"),
        ("data_batch_2", {b"labels": [0] * 6}, "data is 'NoneType'"),
        ("test_batch", {b"data": np.zeros((6, 3072), np.uint8), b"labels": [0] * 5}, "labels is 'list'.*6 numbers"),
        ("test_batch", {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "labels is 'list'"),
        ("batches.meta", {b"label_names": []}, "label_names is"),
        ("batches.meta", [1, 2], "it should be a dictionary"),
    ],
)
def test_files_that_are_not_cifar10s_are_named(tmp_path, name, content, message):
    folder = write_cifar10(tmp_path)
    write(folder / name, content)
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        crops.read_cifar10(folder)


def test_a_file_that_is_cut_short_or_missing_is_named_with_the_cure(tmp_path):
    folder = write_cifar10(tmp_path)
    path = folder / "data_batch_4"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"data_batch_4: pickle is .*cut short"):
        crops.read_cifar10(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_4: file is 'missing': unpack cifar-10-python\.tar\.gz"):
        crops.read_cifar10(folder)
