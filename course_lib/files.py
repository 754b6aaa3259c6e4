"""Files: an error that helps where one cannot be used, and writing them whole or not at all."""

import ast
import multiprocessing
import os
import pickle
from pathlib import Path

NOTE = "DataError of (path, field, value, cure): "


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


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all: after a crash there is the old content or the new, never a part.

    The content goes to a file beside it first, reaches the disk, and then takes the name. Where the
    disk is full, the old content stays and the part is removed.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
