"""The course with little data, little networks and few steps, so that every command of the documents ends in seconds.

`test_commands.py` copies the library into a folder of its own and adds to that copy's `profiles.py` one line, which
calls `shrink`. The commands, how they are read, and where they look and write are those of a reader.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from course_lib import download, emoji_voc, profiles, weights

TRAINVAL, TEST = 10, 2  # images


def shrink() -> None:
    """Make the profiles and the downloads small; SMALL_ARCHIVES is a folder and SMALL_MIRROR what serves it."""
    make_emoji_voc = emoji_voc.make_emoji_voc
    emoji_voc.make_emoji_voc = lambda devkit, *sizes, **options: make_emoji_voc(devkit, TRAINVAL, TEST, workers=1)
    for name, profile in list(profiles.PROFILES.items()):
        profiles.PROFILES[name] = lambda profile=profile: small(profile())
    archives = Path(os.environ["SMALL_ARCHIVES"])
    download.ARCHIVES = {
        year: tuple(archive_of(archives / usual.name, hashlib.md5) for usual in usuals)
        for year, usuals in download.ARCHIVES.items()
    }
    download.VGG16 = archive_of(archives / download.VGG16.name, hashlib.sha256)
    download.MIRRORS = download.VGG16_MIRRORS = (os.environ["SMALL_MIRROR"],)
    weights.load_vgg16 = lambda model, state_dict: None  # it would take 0.5 GB; tests/test_weights.py has it


def small(profile: profiles.Profile) -> profiles.Profile:
    """Its files, its optimiser, its augmentation; the small network for one epoch of one or two steps."""
    return replace(
        profile,
        architecture="ssd_mini",
        recipe=replace(profile.recipe, epochs=1, batch_size=8, warmup_steps=0),
        workers=1,
        pretraining_steps=min(profile.pretraining_steps, 2),
    )


def archive_of(path: Path, digest) -> download.Archive:
    content = path.read_bytes()
    return download.Archive(path.name, len(content), digest(content).hexdigest())
