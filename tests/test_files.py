import errno
import os
import pickle

import pytest

from course_lib.files import DataError, write_whole


def test_an_error_names_file_field_value_and_cure_and_survives_pickling():
    error = DataError("a/b.xml", "size/width", "0", "write the width")
    assert str(error) == "a/b.xml: size/width is '0': write the width"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


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
