"""Where the experiments find VOC2007's annotations; asks no question of its own."""

import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from course_lib import profiles


@contextmanager
def voc2007() -> Iterator[Path | None]:
    """A devkit with the annotations of VOC2007, or None where there are none.

    From VOC2007-annotations.tar.xz in the folder VOC_REAL, unpacked for as long as it is needed, or data/VOCdevkit.
    """
    archive, devkit = Path(os.environ.get("VOC_REAL", ""), "VOC2007-annotations.tar.xz"), profiles.gpu().devkit
    if archive.is_file():
        with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
            yield Path(folder)
    else:
        yield devkit if (devkit / "VOC2007").is_dir() else None
