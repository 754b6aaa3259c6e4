"""Copies of one picture: files of the same bytes, and pictures that look the same once they were saved again,
made smaller, brighter, cut a little at the edges, or mirrored."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from course_lib.files import DataError, sha256
from course_lib.images import RESTORE, grey_square

BITS = 256  # of a hash
ALIKE = 64  # bits in which two pictures differ at most to count as copies: see `fingerprint`
SIDE = 16  # the 16 x 16 lowest frequencies of a picture
PIXELS = 4 * SIDE  # at which they are looked at: ImageHash's factor
BLOCK = 1024  # rows that are compared with all at once: 4 MB for every thousand pictures


class Fingerprint(NamedTuple):
    """What tells a picture from others.

    Attributes:
        content: the hash (SHA-256) of the file's bytes, in hexadecimal.
        looks: the perceptual hash of the picture.
        mirrored: the perceptual hash of its mirror image.
    """

    content: str
    looks: Bool[np.ndarray, "256"]
    mirrored: Bool[np.ndarray, "256"]


def fingerprint(path: str | Path) -> Fingerprint:
    """Read a picture for what it looks like.

    The perceptual hash is ImageHash's `phash`: which of the lowest 16 x 16 frequencies of the grey picture are above
    their median. Of 256 bits two unrelated pictures differ in about 128. Among 1,697 photographs of animals the closest
    two of 1.4 million pairs, mirrored or not, differ in 86, among 2,500 scenes of EmojiVOC in 70; a photograph that is
    saved again at quality 30, made four times smaller or a fifth brighter differs from itself in at most 24 bits, with
    2 % of each edge cut off in at most 56, with 3 % in 47 as a rule and at most 80, with 5 % in 74 as a rule. `ALIKE`
    stands between. (With 64 bits, ImageHash's default, no threshold parts the two: 10 different pairs of photographs
    and 226 of scenes would count as copies before all that lost 2 % of each edge did.) All of this is recorded by
    experiments/near_copies.py.

    Raises:
        DataError: the picture cannot be read: see `images.grey_square`.

    Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.1.
    """
    square = grey_square(path, PIXELS)
    try:
        content = sha256(path)
    except OSError as error:
        raise DataError(path, "image", error.strerror, RESTORE) from None
    looks, mirrored = (
        imagehash.phash(Image.fromarray(one), SIDE).hash.ravel() for one in (square, np.fliplr(square).copy())
    )
    return Fingerprint(content, looks, mirrored)


def copies(fingerprints: Sequence[Fingerprint], alike: int = ALIKE) -> Int[np.ndarray, " N"]:
    """Which pictures are copies of one another: a number for each, the same for all copies of one picture.

    A copy of a copy is a copy. The number is the place of the first of them.

    Args:
        fingerprints: of N pictures.
        alike: bits in which two hashes differ at most; 0 for pictures whose hashes are the same.
    """
    first = list(range(len(fingerprints)))
    if not first:
        return np.array(first, dtype=np.int64)
    looks, mirrored = (
        np.where(np.stack([getattr(one, name) for one in fingerprints]), 1, -1).astype(np.float32)
        for name in ("looks", "mirrored")
    )
    for start in range(0, len(looks), BLOCK):
        rows = looks[start : start + BLOCK]
        # Products of +1 and -1: equal bits minus different ones, exact in float32.
        close = np.maximum(rows @ looks[start:].T, rows @ mirrored[start:].T) >= BITS - 2 * alike
        for row, column in (np.argwhere(np.triu(close, 1)) + start).tolist():
            one, other = sorted((_first(first, row), _first(first, column)))
            first[other] = one
    return np.array([_first(first, place) for place in range(len(first))])


def _first(first: list[int], place: int) -> int:
    """The first picture of the chain that a picture is in; the chain is short from then on."""
    while first[place] != place:
        first[place] = first[first[place]]
        place = first[place]
    return place
