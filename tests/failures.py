"""Errors raised in a process of its own, which must be able to import what it runs."""

from pathlib import Path

from torch.utils.data import Dataset

from course_lib.files import NOTE, DataError


class Unspeakable:
    """A value that cannot be pickled, whose `repr` is no literal and has more than one line."""

    def __repr__(self):
        return "<unspeakable:\n'thing'>"

    def __reduce__(self):
        raise TypeError("cannot be pickled")


# Path, field, value, cure, and the value that arrives where only text crosses.
FIELDS = [
    ("a/b.xml", "size/width", "0", "write the width", "0"),
    ("a/b.xml", "object[0]/bndbox", (1.5, 2.0, -3.0, 4.0), "swap", (1.5, 2.0, -3.0, 4.0)),
    ("a//b.xml", "size/width", None, "write it: as a number", None),
    (Path("c.xml"), "name", 'it\'s "quoted" \\ and\nbroken\t\u2028ä犬\ud800', "one: word", ...),
    ("new\nline: is 'x': y.xml", "file: is", "is 'a': b", "first\nsecond", ...),
    ("x.xml", "note", f"{NOTE}('a', 'b', 'c', 'd')", f"{NOTE}('a', 'b', 'c', 'd')", ...),
    ("x.xml\n" + NOTE + "('a', 'b', 'c', 'd')", "note", [b"\x00", {"a": {1}}], "mend it", ...),
    ("x.xml", "number", float("nan"), "write a number", "nan"),
    ("x.xml", "folder", Path("elsewhere"), "stay here", f"{Path('elsewhere')!r}"),
    ("x.xml", "thing", Unspeakable(), "say it", "<unspeakable:\n'thing'>"),
    ("", "", "", "", ""),
]


def fail(index, nested=False):
    """Raise one of the errors, by itself or out of the handling of another."""
    error = DataError(*FIELDS[index][:4])
    if not nested:
        raise error
    try:
        raise DataError("inner.xml", "inner", "inside", "ignore")
    except DataError as inner:
        raise error from (inner if index % 2 else OSError("No such file"))


class Broken(Dataset):
    def __len__(self):
        return 2 * len(FIELDS)

    def __getitem__(self, index):
        return fail(index // 2, nested=bool(index % 2))
