import copy
import errno
import os
import pickle
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from failures import FIELDS, Broken, fail
from torch.utils.data import DataLoader

from course_lib.files import NOTE, DataError, write_whole
from course_lib.runs import RunError
from course_lib.voc import VOCDetection


def test_an_error_names_file_field_value_and_cure_and_survives_pickling():
    error = DataError("a/b.xml", "size/width", "0", "write the width")
    assert str(error) == "a/b.xml: size/width is '0': write the width"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def assert_arrived(error, index, values):
    path, field, value, cure = FIELDS[index][:4]
    assert type(error) is DataError
    assert str(error) == f"{path}: {field} is {value!r}: {cure}"
    assert (error.path, error.field, error.cure) == (Path(path), field, cure)
    assert any(error.value is known or error.value == known for known in values) or error.value != value != value
    assert "course_lib" not in str(error) and NOTE not in "".join(getattr(error, "__notes__", []))


def arrives_as(index):
    value, in_text = FIELDS[index][2], FIELDS[index][4]
    return value if in_text is ... else in_text


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_error_in_a_loaders_worker_arrives_as_its_one_line(start):
    loader = DataLoader(Broken(), batch_size=None, num_workers=1, multiprocessing_context=start)
    batches = iter(loader)
    for index in range(len(FIELDS)):
        for _ in ("by itself", "nested"):
            with pytest.raises(DataError) as error:
                next(batches)
            assert_arrived(error.value, index, [arrives_as(index)])
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("left", ["Annotations", "ImageSets"])
def test_a_file_that_is_missing_in_a_loaders_worker_is_one_line(tmp_path, left):
    tree = tmp_path / "VOC2007"
    (tree / "ImageSets" / "Main").mkdir(parents=True)
    (tree / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    if left == "Annotations":
        (tree / "Annotations").mkdir()
        size = "<size><width>9</width><height>9</height></size>"
        (tree / "Annotations" / "000001.xml").write_text(f"<annotation>{size}</annotation>")
    dataset = VOCDetection(tmp_path, "2007", "test")
    with pytest.raises(DataError) as alone:
        dataset[0]
    with pytest.raises(DataError) as crossed:
        next(iter(DataLoader(dataset, num_workers=1)))
    assert str(crossed.value) == str(alone.value) and "\n" not in str(alone.value)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_error_in_a_pools_process_arrives_whole(start):
    with ProcessPoolExecutor(1, mp_context=get_context(start)) as pool:
        futures = [(i, pool.submit(fail, i, nested)) for i in range(len(FIELDS)) for nested in (False, True)]
        for index, future in futures:
            assert_arrived(future.exception(), index, [FIELDS[index][2], arrives_as(index)])
    with get_context(start).Pool(1) as pool, pytest.raises(DataError) as error:
        pool.apply(fail, (1,))
    assert_arrived(error.value, 1, [FIELDS[1][2]])


@pytest.mark.parametrize("index", range(len(FIELDS)))
def test_an_error_is_copied_and_pickled_with_its_value_again_and_again(index):
    error = DataError(*FIELDS[index][:4])
    for _ in range(2):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert_arrived(again, index, [FIELDS[index][2], arrives_as(index)])
        error = copy.copy(again)


def test_a_note_is_for_other_processes_only_and_an_error_wants_its_four_parts():
    with pytest.raises(DataError) as error:
        fail(0)
    assert traceback.format_exception(error.value)[-1].count("\n") == 1
    for text in ("only.xml", "", "Caught DataError in DataLoader worker process 0.\nOriginal Traceback"):
        with pytest.raises(TypeError, match="needs path, field, value and cure"):
            DataError(text)


def test_a_run_error_crosses_processes_too():
    assert str(pickle.loads(pickle.dumps(RunError("runs/x: two\nlines")))) == "runs/x: two\nlines"


@pytest.mark.parametrize("content", ["text\nä", b"\x00\xff"])
def test_what_is_written_is_there(tmp_path, content):
    write_whole(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_keeps_the_old_content_and_leaves_no_part(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
