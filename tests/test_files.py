import copy
import errno
import json
import os
import pickle
import subprocess
import sys
import traceback
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from failures import FIELDS, Broken, fail
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from course_lib.files import NOTE, DataError, as_json, as_stored, clear_unfinished, plain, sha256, write_whole
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
    with pytest.raises(OSError, match="No space left") as error:
        write_whole(tmp_path / "a", "new")
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["open", "write", "replace"])
def test_a_disk_that_cannot_be_written_is_named_with_the_file(tmp_path, monkeypatch, number, call):
    """ "[Errno 28] No space left on device", of which file?"""

    def refuse(*given, **options):
        raise OSError(number, os.strerror(number))

    if call == "write":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(OSError) as error:
        write_whole(tmp_path / "a", "new")
    monkeypatch.undo()
    assert str(error.value) == f"[Errno {number}] {os.strerror(number)}: '{tmp_path / 'a'}'"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named_with_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none/a"):
        write_whole(tmp_path / "none" / "a", "new")


def test_what_the_dead_left_unfinished_is_cleared_and_what_the_living_write_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        pass
    gone = [f"state.pt.{dead.pid}.unfinished", f"a.b.{os.getpid()}.unfinished", f"x.{2**70}.unfinished"]
    alive = f"state.pt.{os.getppid()}.unfinished"
    kept = [alive, "state.pt", f"{dead.pid}", ".VOC2007.unfinished", "x.unfinished", f"x.{dead.pid}.part"]
    for name in (*gone, *kept):
        (tmp_path / name).write_text("")
    assert clear_unfinished(tmp_path) == sorted(tmp_path / name for name in gone)
    assert {path.name for path in tmp_path.iterdir()} == {*kept}
    assert clear_unfinished(tmp_path) == clear_unfinished(tmp_path / "none") == []


numbers = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text())


@given(st.recursive(numbers, lambda part: st.lists(part) | st.dictionaries(st.text(), part)))
def test_json_has_null_where_a_number_is_none_and_is_the_same_elsewhere(value):
    """Python's own writes NaN and Infinity, which no other parser reads."""

    def fail(constant):
        raise AssertionError(constant)

    read = json.loads(as_json(value), parse_constant=fail)
    assert read == plain(value) == plain(plain(value))
    assert as_json({"a": (0.5, float("nan"), [float("-inf")])}) == '{"a": [0.5, null, [null]]}'


def test_numbers_of_numpy_and_torch_are_numbers_of_json():
    """One that an `evaluate` of a reader's gave made a state that nothing could read."""
    values = [np.float64(0.5), np.float32(0.5), np.array(np.nan), np.int64(3), torch.tensor(0.5), torch.tensor(True)]
    assert plain([*values, torch.__version__]) == [0.5, 0.5, None, 3, 0.5, True, str(torch.__version__)]
    assert {type(value) for value in plain([*values, torch.__version__])} == {float, type(None), int, bool, str}


@pytest.mark.parametrize("name", ["plain", "Löffel", "x" * 300, "ö" * 300, "a\nb"])
def test_a_path_that_is_not_there_stays_as_it_is(tmp_path, name):
    assert as_stored(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize(("stored", "asked"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFC", "NFC"), ("NFD", "NFD")])
def test_a_name_is_found_in_the_unicode_form_that_it_is_stored_in(tmp_path, stored, asked):
    names = {form: unicodedata.normalize(form, "Größe é 日本 Å.xml") for form in ("NFC", "NFD")}
    (tmp_path / names[stored]).touch()
    assert as_stored(tmp_path / names[asked]).exists()


def test_a_files_sha256_is_what_the_standard_says(tmp_path):
    """FIPS 180-4's example, and a change of one bit."""
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "abc") == known
    (tmp_path / "abc").write_bytes(b"abb")
    assert sha256(tmp_path / "abc") != known
