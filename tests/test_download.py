"""The archives of these tests are small and made here; their server is on this machine, and misbehaves as told."""

import errno
import gzip
import hashlib
import inspect
import io
import multiprocessing
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from course_lib import cli, commands_data, download, profiles
from course_lib.download import Archive, install
from course_lib.files import DataError

MEMBERS = {
    "trainval": ("Annotations/000005.xml", "JPEGImages/000005.jpg", "ImageSets/Main/trainval.txt"),
    "test": ("Annotations/000001.xml", "JPEGImages/000001.jpg", "ImageSets/Main/test.txt"),
}


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def voc_tar(part: str, year: str = "2007") -> bytes:
    """A tiny archive in VOC's layout, folders first."""
    top = f"VOCdevkit/VOC{year}"
    folders = [entry(name, type=tarfile.DIRTYPE) for name in ("VOCdevkit", top, f"{top}/JPEGImages")]
    return tar(*folders, *(entry(f"{top}/{name}", text_of(part, name)) for name in MEMBERS[part]))


def text_of(part: str, name: str) -> bytes:
    return f"{part} {name} ".encode() * 900


def archive_of(content: bytes, name: str = "a.tar") -> Archive:
    return Archive(name, len(content), hashlib.md5(content).hexdigest())


FILES = {f"{part}.tar": voc_tar(part) for part in MEMBERS}
FILES_2012 = {"2012.tar": voc_tar("trainval", "2012")}
CONTENT = FILES["trainval.tar"]
ONE, BOTH = (archive_of(CONTENT, "trainval.tar"),), tuple(archive_of(content, name) for name, content in FILES.items())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror = self.server
        mirror.asked.append((self.path, self.headers.get("Range")))
        (mirror.faults.pop(0) if mirror.faults else send)(self)

    def log_message(self, *args: object) -> None: ...


class Mirror(ThreadingHTTPServer):
    """Serves `files`; each of `faults` answers one request, then all goes well."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.over = threading.Event()
        self.reset()

    def reset(self, *faults: Callable, files: dict[str, bytes] = FILES) -> None:
        self.files, self.faults, self.asked = files, list(faults), []

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]

    def handle_error(self, *args: object) -> None: ...


def send(
    handler: Handler,
    stop: int | None = None,
    ranges: bool = True,
    shift: int = 0,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    then: Callable[[Handler], None] = lambda handler: None,
) -> None:
    """Answer as a good server does, but for what is told.

    Args:
        stop: bytes of the body after which it ends.
        ranges: False for a server that knows no ranges.
        shift: begin so many bytes after what was asked for.
        body: instead of the file's.
        headers: instead of the true ones; one that is empty here is left out.
        then: called when all is sent.
    """
    content = handler.server.files.get(handler.path.lstrip("/")) if body is None else body
    if content is None:
        return handler.send_error(404)
    asked = handler.headers.get("Range") if ranges else None
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if start >= len(content):
        return handler.send_error(416)
    start += shift
    handler.send_response(206 if asked else 200)
    told = {"Content-Length": str(len(content) - start)}
    if asked:
        told["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    for name, value in (told | (headers or {})).items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content[start:] if stop is None else content[start : start + stop])
    return then(handler)


def answer(handler: Handler, code: int, **headers: str) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def stall(handler: Handler) -> None:
    handler.server.over.wait(20)


def reset_connection(handler: Handler) -> None:
    """End it as a crash does, with a TCP reset instead of an orderly end."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


@pytest.fixture(scope="module")
def servers():
    mirrors = Mirror(), Mirror()
    for mirror in mirrors:
        threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield mirrors
    for mirror in mirrors:
        mirror.over.set()
        mirror.shutdown()
        mirror.server_close()


@pytest.fixture(autouse=True, scope="module")
def no_proxy():
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture
def server(servers):
    for mirror in servers:
        mirror.reset()
    return servers[0]


@pytest.fixture
def other(servers, server):
    return servers[1]


@pytest.fixture
def get(tmp_path, server):
    """Fetch the one archive into `tmp_path` from the server, and from other mirrors if named."""

    def get(*mirrors: str, timeout: float = 5.0, rounds: int = 2) -> bytes:
        path = download.fetch(ONE[0], tmp_path, mirrors or [server.address], timeout, [0] * rounds)
        assert not path.with_name(f"{path.name}.part").exists()
        return path.read_bytes()

    return get


@pytest.fixture
def part(tmp_path):
    return tmp_path / "trainval.tar.part"


@pytest.fixture
def put(tmp_path, server):
    """Install archives that lie in the folder already; fails if a connection is opened."""

    def put(*archives: bytes) -> Path:
        described = [archive_of(content, f"{number}.tar") for number, content in enumerate(archives)]
        for archive, content in zip(described, archives, strict=True):
            (tmp_path / archive.name).write_bytes(content)
        tree = install("2007", described, tmp_path / "devkit", tmp_path, [server.address])
        assert server.asked == []
        return tree

    return put


def visible(folder: Path) -> list[str]:
    """All that is in a folder but the locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def files_in(tree: Path) -> dict[str, bytes]:
    return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def require_whole(tree: Path, *parts: str, leftovers: bool = False) -> None:
    """The tree has all files of its archives, of both unless told otherwise, and nothing else lies beside it."""
    found = files_in(tree)
    del found["download.json"]
    assert found == {name: text_of(part, name) for part in parts or MEMBERS for name in MEMBERS[part]}
    assert leftovers or visible(tree.parent) == [tree.name]


def test_both_archives_of_a_year_become_one_tree(tmp_path, server):
    tree = install("2007", BOTH, tmp_path / "devkit", tmp_path, [server.address])
    assert tree == tmp_path / "devkit" / "VOC2007"
    require_whole(tree)


def test_what_is_there_is_found_without_a_connection_and_without_its_archives(tmp_path, server):
    tree = install("2007", BOTH, tmp_path / "devkit", tmp_path, [server.address])
    for archive in BOTH:
        (tmp_path / archive.name).unlink()
    server.reset()
    assert install("2007", BOTH, tmp_path / "devkit", tmp_path, [server.address]) == tree
    assert server.asked == []
    require_whole(tree)


def test_an_archive_on_disk_is_used_without_a_connection(put):
    assert set(files_in(put(CONTENT))) == {*MEMBERS["trainval"], "download.json"}


def test_a_file_on_disk_with_another_md5_is_named_and_left_alone(tmp_path, get, server):
    (tmp_path / "trainval.tar").write_bytes(CONTENT[:1000])
    found = hashlib.md5(CONTENT[:1000]).hexdigest()
    with pytest.raises(DataError, match=rf"trainval\.tar: MD5 is '{found}': it should be {ONE[0].digest}: remove"):
        get()
    assert (tmp_path / "trainval.tar").read_bytes() == CONTENT[:1000] and server.asked == []


def test_the_year_in_an_address_is_filled_in(tmp_path, server):
    server.reset(files={"voc2007/trainval.tar": CONTENT})
    install("2007", ONE, tmp_path, tmp_path, [f"{server.address}/voc{{year}}/"])
    assert [path for path, _ in server.asked] == ["/voc2007/trainval.tar"]


def test_the_sources_in_the_data_folders_readme_are_those_of_the_module(root):
    readme = (root / "data" / "README.md").read_text()
    for year, archives in download.ARCHIVES.items():
        for archive in archives:
            assert f"| {archive.name} | voc{year} | {archive.size} | {archive.digest} |" in readme
    places = [readme.index(f"| `{mirror}` |") for mirror in download.MIRRORS]
    assert places == sorted(places)


def orderly(handler: Handler) -> None: ...


FAULTS = st.builds(
    partial,
    st.just(send),
    stop=st.integers(0, len(CONTENT)),
    ranges=st.booleans(),
    then=st.sampled_from([orderly, reset_connection]),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(FAULTS, max_size=6))
def test_however_the_transfer_is_broken_up_the_bytes_are_the_same(servers, faults):
    servers[0].reset(*faults)
    with tempfile.TemporaryDirectory() as folder:
        path = download.fetch(ONE[0], Path(folder), [servers[0].address], 5.0, [0] * 7)
        assert path.read_bytes() == CONTENT
        assert not path.with_name(f"{path.name}.part").exists()


def test_after_a_connection_that_ends_early_only_the_rest_is_asked_for(get, server):
    server.reset(partial(send, stop=3000), partial(send, stop=4000))
    assert get(rounds=1) == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=7000-"]


@pytest.mark.parametrize("end", [reset_connection, stall])
def test_a_connection_that_dies_or_stalls_is_replaced(get, server, end):
    server.reset(partial(send, stop=3000, then=end), partial(send, stop=4000, then=end))
    assert get(timeout=0.2, rounds=99) == CONTENT
    assert len(server.asked) >= 3 and server.ranges[-1] != server.ranges[0]


def test_a_connection_that_stalls_is_given_up_and_what_it_brought_is_kept(get, server, part):
    server.reset(partial(send, stop=3000, then=stall), stall)
    with pytest.raises(DataError, match="timed out"):
        get(timeout=1.0, rounds=1)
    assert part.read_bytes() == CONTENT[:3000]


def test_the_next_call_goes_on_where_the_last_one_gave_up(get, server, part):
    server.reset(partial(send, stop=3000), *[partial(answer, code=503)] * 2)
    with pytest.raises(DataError, match=r"trainval\.tar: download is .*503.*the same command goes on"):
        get()
    assert part.read_bytes() == CONTENT[:3000]
    server.reset()
    assert get() == CONTENT and server.ranges == ["bytes=3000-"]


@pytest.mark.parametrize("fault", [stall, reset_connection, lambda h: h.wfile.write(b"what?\r\n\r\n")])
def test_a_server_that_does_not_answer_is_asked_again_in_the_next_round(get, server, fault):
    server.reset(fault)
    assert get(timeout=0.2, rounds=99) == CONTENT and len(server.asked) >= 2


def test_where_nobody_listens_the_next_mirror_is_asked(get, server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert get(f"http://127.0.0.1:{closed.getsockname()[1]}", server.address) == CONTENT


@pytest.mark.parametrize(("code", "times"), [(404, 1), (403, 1), (204, 1), (206, 1), (503, 2), (429, 2)])
def test_a_busy_mirror_is_asked_again_and_one_that_lacks_the_archive_is_not(get, server, other, code, times):
    server.reset(*[partial(answer, code=code)] * 9)
    other.reset(partial(answer, code=500))
    assert get(server.address, other.address) == CONTENT and len(server.asked) == times


def test_a_server_that_ignores_ranges_does_not_spoil_what_is_here(get, server, part):
    part.write_bytes(CONTENT[:3000])
    server.reset(partial(send, ranges=False))
    assert get() == CONTENT and server.ranges == ["bytes=3000-"]


def test_a_server_that_ignores_ranges_and_breaks_off_does_not_cost_what_is_here(get, server, part):
    part.write_bytes(CONTENT[:3000])
    server.reset(*[partial(send, ranges=False, stop=100)] * 2)
    with pytest.raises(DataError, match="ended too early"):
        get()
    assert part.read_bytes() == CONTENT[:3000]


@pytest.mark.parametrize(
    "fault",
    [
        partial(send, shift=7),
        partial(send, headers={"Content-Range": ""}),
        partial(send, headers={"Content-Range": "bytes 0-99/100"}),
        partial(send, headers={"Content-Range": "bytes 3000-9999/10000"}),
        partial(send, body=CONTENT + b"more"),
        partial(send, body=CONTENT[:2000]),  # answered with 416: there is nothing from 3000 on
        partial(send, ranges=False, body=b"<html>Sign in to this Wi-Fi", headers={"Content-Type": "text/html"}),
        partial(send, ranges=False, body=b"Sign in to this Wi-Fi"),
    ],
)
def test_bytes_of_something_else_are_not_appended(get, server, other, part, fault):
    part.write_bytes(CONTENT[:3000])
    server.reset(fault)
    with pytest.raises(DataError, match="download"):
        get(server.address)
    assert part.read_bytes() == CONTENT[:3000] and len(server.asked) == 1
    server.reset(fault)
    assert get(server.address, other.address) == CONTENT and other.ranges == ["bytes=3000-"]


def test_a_page_in_the_place_of_the_archive_is_not_kept(get, server, part):
    server.reset(
        partial(send, body=b"<html>We have moved", headers={"Content-Type": "text/html", "Content-Length": ""})
    )
    with pytest.raises(DataError, match="sends a page"):
        get()
    assert not part.exists()


@pytest.mark.parametrize("length", [len(CONTENT) - 5000, len(CONTENT) + 5000, 0])
def test_a_server_that_lies_about_the_archives_length_is_left_for_another(get, server, other, length):
    server.reset(partial(send, headers={"Content-Length": str(length)}))
    assert get(server.address, other.address) == CONTENT and other.ranges == [None]


@pytest.mark.parametrize("length", [5, len(CONTENT) + 5000])
def test_a_server_that_lies_about_the_rests_length_is_asked_again_for_what_is_missing(get, server, part, length):
    part.write_bytes(CONTENT[:3000])
    server.reset(partial(send, headers={"Content-Length": str(length)}))
    assert get() == CONTENT


def test_bytes_beyond_the_archives_size_are_not_taken(get, server):
    server.reset(partial(send, body=CONTENT + b"more" * 500, headers={"Content-Length": ""}))
    assert get() == CONTENT


def test_a_server_that_announces_no_length_is_believed_when_the_md5_is_right(get, server):
    server.reset(partial(send, stop=3000, headers={"Content-Length": ""}))
    assert get() == CONTENT and server.ranges == [None, "bytes=3000-"]


def test_a_transfer_in_chunks_that_breaks_off_in_one_goes_on(get, server):
    def chunked(handler):
        handler.protocol_version = "HTTP/1.1"
        answer(handler, 200, **{"Transfer-Encoding": "chunked"})
        handler.wfile.write(b"7d0\r\n" + CONTENT[:2000] + b"\r\n7d0\r\n" + CONTENT[2000:3000])
        handler.close_connection = True

    server.reset(chunked)
    assert get() == CONTENT and server.ranges == [None, "bytes=3000-"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_asks_for_the_same_bytes(get, server, other, part, code):
    part.write_bytes(CONTENT[:3000])
    server.reset(partial(answer, code=code, Location=f"{other.address}/trainval.tar"))
    assert get() == CONTENT and other.ranges == ["bytes=3000-"]


@pytest.mark.parametrize("scheme", ["file", "ftp", "data", "gopher"])
def test_a_redirect_out_of_http_is_not_followed(get, server, tmp_path, scheme):
    (tmp_path / "secret").write_bytes(CONTENT)
    server.reset(*[partial(answer, code=302, Location=f"{scheme}://{tmp_path}/secret")] * 2)
    with pytest.raises(DataError, match=scheme):
        get()
    assert not (tmp_path / "trainval.tar").exists()


def test_redirects_do_not_go_on_for_ever(get, server):
    server.reset(*[partial(answer, code=302, Location=f"/{number}") for number in range(99)])
    with pytest.raises(DataError, match="infinite loop"):
        get(rounds=1)
    assert len(server.asked) < 15


@pytest.mark.parametrize("address", ["file://{folder}", "trainval.tar", "http://[", "http://a b", "ftp://127.0.0.1:9"])
def test_what_is_no_address_of_a_server_is_refused(get, tmp_path, address):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "trainval.tar").write_bytes(CONTENT)
    with pytest.raises(DataError, match="download"):
        get(address.format(folder=tmp_path / "there"))


def other_bytes(content: bytes) -> bytes:
    return bytes(len(content))


def test_with_the_wrong_md5_it_is_thrown_away_and_the_next_mirror_asked(get, server, other):
    server.reset(files={"trainval.tar": other_bytes(CONTENT)})
    assert get(server.address, other.address) == CONTENT
    assert server.ranges == [None] and other.ranges == [None]


def test_a_longer_digest_is_a_sha256(tmp_path, server):
    """VGG16's weights have one; it is the name's last part too, as torchvision's files are named."""
    server.reset(files={"weights.pth": CONTENT})
    right = Archive("weights.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert download.fetch(right, tmp_path, [server.address], pauses=(0,)).read_bytes() == CONTENT
    wrong = Archive("weights.pth", len(CONTENT), hashlib.sha256(b"").hexdigest())
    with pytest.raises(DataError, match=r"SHA-256 is .*it should be"):
        download.fetch(wrong, tmp_path, [server.address], pauses=(0,))
    assert download.VGG16.name == f"vgg16-{download.VGG16.digest[:8]}.pth"


def test_an_error_about_the_md5_names_file_both_sums_and_cure(get, server, tmp_path):
    server.reset(files={"trainval.tar": other_bytes(CONTENT)})
    with pytest.raises(DataError) as caught:
        get()
    found = hashlib.md5(other_bytes(CONTENT)).hexdigest()
    for said in ("trainval.tar", found, ONE[0].digest, "--mirror", "goes on"):
        assert said in str(caught.value)
    assert server.ranges == [None]  # what came in one piece would come again
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("size", [3000, len(CONTENT), len(CONTENT) + 3000])
def test_what_an_older_file_left_is_not_glued_to_the_new_one(get, server, part, size):
    part.write_bytes(bytes(size))
    assert get() == CONTENT and server.ranges == ([None] if size >= len(CONTENT) else ["bytes=3000-", None])


def test_a_file_that_changes_between_two_connections_is_fetched_anew(get, server):
    server.reset(partial(send, body=other_bytes(CONTENT), stop=3000))
    assert get() == CONTENT and server.ranges == [None, "bytes=3000-", None]


DISK_FULL = "free space is 'No space left on device': make room: the same command goes on"


class FreeSpace(NamedTuple):
    free: int


def test_too_little_room_for_the_download_is_said_before_a_connection_is_opened(get, server, part, monkeypatch):
    part.write_bytes(CONTENT[:3000])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: FreeSpace(len(CONTENT) - 3001))
    with pytest.raises(DataError, match=r"free space is '0\.00 GB': 0\.00 GB are needed, make room: the same command"):
        get()
    assert server.asked == [] and part.read_bytes() == CONTENT[:3000]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: FreeSpace(len(CONTENT) - 3000))
    assert get() == CONTENT


def test_too_little_room_for_the_tree_is_said_before_anything_is_unpacked(put, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: FreeSpace(3 * 28672 - 1))
    monkeypatch.setattr(tarfile.TarFile, "extract", pytest.fail)
    with pytest.raises(DataError, match="are needed, make room"):
        put(CONTENT)
    monkeypatch.undo()
    assert visible(tmp_path / "devkit") == []
    require_whole(put(CONTENT), "trainval")


class SmallDisk:
    """A file on a disk that takes `room` more bytes, for all files together."""

    room = 0

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file

    def write(self, block: bytes) -> int:
        taken = min(len(block), SmallDisk.room)
        SmallDisk.room -= taken
        self.file.write(block[:taken])
        if taken < len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def __enter__(self) -> "SmallDisk":
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()


def test_a_disk_that_fills_up_during_the_download_keeps_what_has_come(get, server, part, monkeypatch):
    monkeypatch.setattr(SmallDisk, "room", 3000)
    # The disk closes the file; `Path.open` is what is replaced.
    monkeypatch.setattr(Path, "open", lambda path, mode: SmallDisk(open(path, mode)))  # noqa: PTH123, SIM115
    with pytest.raises(DataError, match=DISK_FULL):
        get()
    monkeypatch.undo()
    assert part.read_bytes() == CONTENT[:3000] and len(server.asked) == 1
    assert get() == CONTENT and server.ranges == [None, "bytes=3000-"]


def test_a_disk_that_fills_up_during_unpacking_leaves_no_part_of_a_tree(put, tmp_path, monkeypatch):
    monkeypatch.setattr(SmallDisk, "room", 30000)
    # tarfile's own name for `open`; the disk closes the file.
    monkeypatch.setattr(tarfile, "bltn_open", lambda path, mode: SmallDisk(open(path, mode)))  # noqa: PTH123, SIM115
    with pytest.raises(DataError, match=DISK_FULL):
        put(CONTENT)
    monkeypatch.undo()
    assert SmallDisk.room == 0 and visible(tmp_path / "devkit") == []
    require_whole(put(CONTENT), "trainval")


FILE = "VOCdevkit/VOC2007/a.txt"
EVIL = {
    "absolute": entry("/evil", b"!"),
    "two slashes": entry("//VOCdevkit/VOC2007/evil", b"!"),
    "above": entry("../evil", b"!"),
    "above from inside": entry("VOCdevkit/VOC2007/../../../evil", b"!"),
    "above and back": entry("VOCdevkit/VOC2007/../VOC2007/evil", b"!"),
    "a folder above": entry("VOCdevkit/..", type=tarfile.DIRTYPE),
    "above by extended header": entry("innocent", b"!", pax_headers={"path": "VOCdevkit/VOC2007/../../../evil"}),
    "another folder": entry("evil", b"!"),
    "another year": entry("VOCdevkit/VOC2012/evil", b"!"),
    "a longer year": entry("VOCdevkit/VOC20071/evil", b"!"),
    "a file for the tree": entry("VOCdevkit/VOC2007", b"!"),
    "a file for the devkit": entry("VOCdevkit", b"!"),
    "symbolic link": entry("VOCdevkit/VOC2007/evil", type=tarfile.SYMTYPE, linkname="/etc"),
    "symbolic link inside": entry("VOCdevkit/VOC2007/evil", type=tarfile.SYMTYPE, linkname="a.txt"),
    "hard link": entry("VOCdevkit/VOC2007/evil", type=tarfile.LNKTYPE, linkname=FILE),
    "hard link outside": entry("VOCdevkit/VOC2007/evil", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "character device": entry("VOCdevkit/VOC2007/evil", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": entry("VOCdevkit/VOC2007/evil", type=tarfile.BLKTYPE, devmajor=8),
    "pipe": entry("VOCdevkit/VOC2007/evil", type=tarfile.FIFOTYPE),
    "sparse": entry("VOCdevkit/VOC2007/evil", type=tarfile.GNUTYPE_SPARSE),
}


@pytest.mark.parametrize("kind", EVIL)
def test_an_archive_that_would_write_elsewhere_or_other_than_files_is_refused(put, tmp_path, kind):
    """The evil member comes last: all are checked before the first is written."""
    outside = visible(tmp_path.parent)
    with pytest.raises(DataError, match=r"0\.tar: member is .*only files and folders beneath VOCdevkit/VOC2007"):
        put(tar(entry(FILE, b"good"), EVIL[kind]))
    assert visible(tmp_path) == ["0.tar", "devkit"] and visible(tmp_path / "devkit") == []
    assert visible(tmp_path.parent) == outside


def test_a_link_cannot_be_written_through(put, tmp_path):
    (tmp_path / "outside").mkdir()
    link = entry("VOCdevkit/VOC2007/JPEGImages", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    with pytest.raises(DataError, match="member is 'VOCdevkit/VOC2007/JPEGImages'"):
        put(tar(link, entry("VOCdevkit/VOC2007/JPEGImages/evil", b"!")))
    assert visible(tmp_path / "outside") == []


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive" * 100, gzip.compress(CONTENT), CONTENT[:9000], CONTENT[:512] + b"\xff" * 5000],
    ids=["empty", "text", "compressed", "cut off", "broken"],
)
def test_what_is_no_whole_tar_is_refused(put, tmp_path, content):
    with pytest.raises(DataError, match=r"0\.tar: archive is"):
        put(content)
    assert visible(tmp_path / "devkit") == []


def test_permissions_and_owners_of_an_archive_are_not_taken_over(put):
    tree = put(tar(entry(FILE, b"!", mode=0o6777, uid=12345, gid=12345, mtime=2**40)))
    found = (tree / "a.txt").stat()
    assert found.st_mode & 0o7022 == 0 and found.st_mode & 0o600 == 0o600 and found.st_uid == os.getuid()


def test_a_tree_from_elsewhere_is_refused_before_anything_is_fetched(tmp_path, server):
    mine = tmp_path / "VOC2007" / "JPEGImages" / "000005.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(DataError, match=r"VOC2007: folder is 'a tree from elsewhere': if it is whole, use it"):
        install("2007", BOTH, tmp_path, tmp_path, [server.address])
    assert files_in(tmp_path / "VOC2007") == {"JPEGImages/000005.jpg": b"mine"} and server.asked == []


def test_a_link_in_the_place_of_the_unpacking_is_not_followed(put, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "devkit").mkdir()
    (tmp_path / "devkit" / ".VOC2007.unpacking").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError):
        put(CONTENT)
    assert visible(tmp_path / "outside") == []


def test_interrupted_in_the_download_it_goes_on(tmp_path, server, part, monkeypatch):
    read = download._read
    brought = iter([True])
    monkeypatch.setattr(download, "_read", lambda response: read(response) if next(brought, None) else interrupt())
    server.reset(partial(send, stop=3000, then=stall))
    with pytest.raises(KeyboardInterrupt):
        install("2007", BOTH, tmp_path / "devkit", tmp_path, [server.address])
    monkeypatch.undo()
    assert part.read_bytes() == CONTENT[:3000]
    require_whole(install("2007", BOTH, tmp_path / "devkit", tmp_path, [server.address]))
    assert server.ranges == [None, "bytes=3000-", None]


def test_interrupted_in_the_unpacking_it_leaves_nothing_half_done(put, tmp_path, monkeypatch):
    extract, some = tarfile.TarFile.extract, iter(range(6))
    monkeypatch.setattr(
        tarfile.TarFile, "extract", lambda *a, **k: extract(*a, **k) if next(some, None) is not None else interrupt()
    )
    with pytest.raises(KeyboardInterrupt):
        put(*FILES.values())
    monkeypatch.undo()
    assert visible(tmp_path / "devkit") == []


def interrupt() -> None:
    raise KeyboardInterrupt


def test_killed_in_the_download_it_goes_on(tmp_path, server, part):
    server.reset(partial(send, stop=3000, then=stall))
    arguments = ("2007", BOTH, tmp_path / "devkit", tmp_path, [server.address])
    process = multiprocessing.get_context("spawn").Process(target=install, args=arguments)
    process.start()
    while not part.exists() or part.stat().st_size < 3000:
        assert process.is_alive()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    require_whole(install(*arguments))
    assert server.ranges == [None, "bytes=3000-", None]


# Makes a tree in devkit0, devkit1, … of a folder; the k-th process dies at the k-th thing it does to a file.
KILLED_EVERYWHERE = """
import itertools, os, signal, sys
from course_lib.download import Archive, install
folder, archives = sys.argv[1], eval(sys.argv[2])
for k in itertools.count():
    if not os.fork():
        events = itertools.count()
        sys.addaudithook(lambda *event: next(events) == k and os.kill(os.getpid(), signal.SIGKILL))
        install("2007", archives, f"{folder}/devkit{k}", folder, [])
        os._exit(0)
    status = os.wait()[1]
    if status != signal.SIGKILL:
        sys.exit(status != 0)
"""


def test_debians_python_3_11_2_whose_tarfile_knows_no_filter_unpacks_too(put, monkeypatch):
    extract = tarfile.TarFile.extract

    def older(self, member, path="", set_attrs=True, *, numeric_owner=False):
        trusted = {"filter": "fully_trusted"} if sys.version_info >= (3, 12) else {}
        extract(self, member, path, set_attrs, numeric_owner=numeric_owner, **trusted)

    monkeypatch.setattr(tarfile.TarFile, "extract", older)
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    tree = put(tar(entry(FILE, b"!", mode=0o6777, uid=12345, gid=12345, mtime=2**40)))
    found = (tree / "a.txt").stat()
    assert found.st_mode & 0o7000 == 0 and found.st_uid == os.getuid()


def test_killed_anywhere_in_the_unpacking_it_leaves_a_whole_tree_or_none_and_goes_on(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", KILLED_EVERYWHERE, tmp_path, repr(BOTH)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    devkits = list(tmp_path.glob("devkit*"))
    assert len(devkits) > 50
    half_done = [devkit for devkit in devkits if (devkit / ".VOC2007.unpacking" / "VOCdevkit").exists()]
    assert len(half_done) > 20
    for devkit in devkits:
        if (devkit / "VOC2007").exists():
            require_whole(devkit / "VOC2007", leftovers=True)
        require_whole(install("2007", BOTH, devkit, tmp_path, []))


@pytest.mark.parametrize("devkits", [("one", "one", "one"), ("one", "two", "three")])
def test_several_at_once_fetch_each_archive_once(tmp_path, server, devkits):
    server.reset(partial(send, stop=3000, then=lambda handler: time.sleep(0.1)))
    with ThreadPoolExecutor(3) as pool:
        for tree in pool.map(lambda name: install("2007", BOTH, tmp_path / name, tmp_path, [server.address]), devkits):
            require_whole(tree)
    assert server.ranges == [None, "bytes=3000-", None]


@pytest.fixture
def command(tmp_path, server, monkeypatch):
    """Run the command in this process, with these archives and mirror for VOC's."""
    monkeypatch.setattr(download, "ARCHIVES", {"2007": BOTH, "2012": (archive_of(FILES_2012["2012.tar"], "2012.tar"),)})
    monkeypatch.setattr(download, "MIRRORS", (server.address,))

    def run(*arguments: str):
        folders = ("--devkit", str(tmp_path / "VOCdevkit"), "--archives", str(tmp_path / "archives"))
        return CliRunner().invoke(cli.app, ["download", *arguments, *folders])

    return run


def test_after_the_command_the_gpu_profile_finds_its_data(command, tmp_path, server, monkeypatch):
    monkeypatch.setattr(profiles, "DATA", tmp_path)
    monkeypatch.delenv(profiles.DEVKIT_VARIABLE, raising=False)
    profile = profiles.gpu()
    with pytest.raises(
        DataError, match=r"VOC2007 and VOC2012 is 'missing': python -m course_lib download voc2007 voc2012"
    ):
        profile.prepare()
    server.reset(files=FILES | FILES_2012)
    assert command("voc2007").exit_code == 0
    with pytest.raises(DataError, match="VOC2012 is 'missing': python -m course_lib download voc2012,"):
        profile.prepare()
    done = command("voc2007", "voc2012")
    assert done.exit_code == 0 and f"Pascal VOC 2012 is in {tmp_path}/VOCdevkit/VOC2012" in done.stdout
    profile.prepare()
    assert len(server.asked) == 3


def test_the_command_puts_the_data_where_the_gpu_profile_looks():
    parameters = inspect.signature(commands_data.download_command).parameters
    assert parameters["devkit"].default == profiles.gpu().devkit
    assert parameters["archives"].default == profiles.DATA


def test_a_mirror_that_is_named_is_asked_first(command, server, other):
    assert command("voc2007", "--mirror", other.address).exit_code == 0
    assert len(other.asked) == 2 and server.asked == []


@pytest.mark.parametrize("arguments", [(), ("voc2011",), ("voc2007", "--mirror", "file:///tmp")])
def test_wrong_use_of_the_command_is_exit_code_2(command, arguments, server):
    assert command(*arguments).exit_code == 2 and server.asked == []
