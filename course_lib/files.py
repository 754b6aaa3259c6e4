"""Files: an error that helps where one cannot be used, and writing them whole or not at all."""

import ast
import hashlib
import json
import multiprocessing
import os
import pickle
import unicodedata
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

NOTE = "DataError of (path, field, value, cure): "
UNFINISHED = ".unfinished"  # how the name of a part ends, after the number of the process that writes it


class DataError(ValueError):
    """Something in a file that cannot be used: which file, which field, what it was, what to do.

    It crosses processes. A pool pickles it; torch's loader sends the text of the traceback and makes the
    error anew from that one text. So in a child process the error carries a note, which its traceback
    prints, and with that text as its only argument it is again what it was. A value that cannot be written
    as a Python literal then comes back as its `repr`.
    """

    def __init__(self, path: str | Path, field: str | None = None, value: object = None, cure: str = "") -> None:
        if field is not None:
            shown = repr(value)
        else:
            path, field, shown, cure = _noted(str(path))
            value = _literal(shown)
        super().__init__(f"{path}: {field} is {shown}: {cure}")
        self.path, self.field, self.value, self.cure = Path(path), field, value, cure
        self._note = NOTE + ascii((str(path), field, shown, cure))
        if multiprocessing.parent_process() is not None:
            self.add_note(self._note)

    def __reduce__(self):
        try:
            pickle.dumps(self.value)
        except Exception:  # whatever the value's own pickling raises
            return type(self), (self._note,)
        return type(self), (self._note,), {"value": self.value}


def _noted(text: str) -> tuple[str, str, str, str]:
    """What the last note in the text of a traceback says."""
    notes = [line for line in text.split("\n") if line.startswith(NOTE)]
    if not notes:
        raise TypeError("DataError needs path, field, value and cure")
    return ast.literal_eval(notes[-1].removeprefix(NOTE))


def _literal(shown: str) -> object:
    try:
        return ast.literal_eval(shown)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return shown


def as_stored(path: Path) -> Path:
    """The path with its name in the Unicode form that the file has: a Mac may store `ö` as `o` and two dots."""
    if path.name.isascii() or os.path.lexists(path):
        return path
    forms = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.lexists(form)), path)


def write_whole(path: str | Path, content: str | bytes, before: Path | None = None) -> None:
    """Write a file whole or not at all: after a crash there is the old content or the new, never a part.

    The content goes to a file beside it first, reaches the disk, and then takes the name. Where the
    disk is full, the old content stays and the part is removed; the part of a process that was killed
    is removed by `clear_unfinished`.

    Args:
        before: what the old content is called from then on, instead of going.

    Raises:
        OSError: what the system says, with the name of the file that was to be written.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            path.replace(before)
        unfinished.replace(path)
    except OSError as error:
        _remove(unfinished)
        raise OSError(error.errno, error.strerror, str(path)) from None
    except BaseException:
        _remove(unfinished)
        raise


def _remove(unfinished: Path) -> None:
    with suppress(OSError):  # what has gone wrong already is what counts
        unfinished.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """What tells a file's content from any other's, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear_unfinished(folder: Path) -> list[Path]:
    """Remove the parts that processes of this machine began with `write_whole` and did not live to finish.

    For a folder in which nobody else is writing, or only processes of this machine: a part whose process is alive
    stays, and one that bears this process's own number is an earlier one's.

    Returns:
        What was removed.
    """
    removed = []
    for path in sorted(folder.glob(f"*{UNFINISHED}")):
        pid = path.name.removesuffix(UNFINISHED).rpartition(".")[2]
        if pid.isdecimal() and (int(pid) == os.getpid() or not is_alive(int(pid))):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def is_alive(pid: int) -> bool:
    """Whether this machine runs a process of that number."""
    if os.name != "posix":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def plain(value: Any) -> Any:
    """A value as JSON has it: None for NaN and infinity, Python's numbers for numpy's and torch's, lists for tuples."""
    match value:
        case float():
            return float(value) if isfinite(value) else None
        case str():
            return str(value)
        case dict():
            return {name: plain(part) for name, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
    if getattr(value, "ndim", None) == 0:
        return plain(value.item())
    return value


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: null where a number is NaN or infinite."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)
