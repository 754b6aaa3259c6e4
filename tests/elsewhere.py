"""A profile on a devkit of the tests."""

from dataclasses import replace
from pathlib import Path

from course_lib.profiles import Profile


def elsewhere(profile: Profile, devkit: Path) -> Profile:
    """The same profile on trees of the same names in another folder."""
    moved = {
        part: tuple(replace(one, tree=devkit / one.tree.name) for one in getattr(profile, part))
        for part in ("train", "select", "test")
    }
    return replace(profile, **moved)
