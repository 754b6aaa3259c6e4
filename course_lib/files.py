"""Files: an error that helps where one cannot be used, and writing them whole or not at all."""

import os
from pathlib import Path


class DataError(ValueError):
    """Something in a file that cannot be used: which file, which field, what it was, what to do."""

    def __init__(self, path: str | Path, field: str, value: object, cure: str) -> None:
        super().__init__(f"{path}: {field} is {value!r}: {cure}")
        self.path, self.field, self.value, self.cure = Path(path), field, value, cure

    def __reduce__(self):  # errors cross from a loader's worker to its parent by pickling
        return type(self), (self.path, self.field, self.value, self.cure)


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
