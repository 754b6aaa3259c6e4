"""In how many bits do the perceptual hashes of two pictures differ, and those of one picture that was changed? For
the threshold of course_lib/copies.py.

Reads the photographs of the devkit in the folder PHOTOS, and EmojiVOC's scenes; two minutes. Result in
experiments/results/near_copies.json.
"""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageEnhance

from course_lib import copies, profiles, runs
from course_lib.files import write_whole
from course_lib.images import grey_square

RESULT = Path(__file__).parent / "results" / "near_copies.json"
SIDES = {"64 bits": 8, "256 bits": copies.SIDE}  # ImageHash's default, and the library's
CHANGED = 300  # photographs, spread over all


def saved(picture: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content)


def cut(picture: Image.Image, left: float, others: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((int(width * left), int(height * others), *(int(s * (1 - others)) for s in picture.size)))


def smaller(picture: Image.Image, factor: int) -> Image.Image:
    return picture.resize((picture.width // factor, picture.height // factor))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again at quality 30": lambda picture: saved(picture, 30),
    "four times smaller": lambda picture: smaller(picture, 4),
    "a fifth brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "a fifth less contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(0.8),
    "grey": lambda picture: picture.convert("L"),
    "1 % of each edge cut off": lambda picture: cut(picture, 0.01, 0.01),
    "2 % of each edge cut off": lambda picture: cut(picture, 0.02, 0.02),
    "3 % of each edge cut off": lambda picture: cut(picture, 0.03, 0.03),
    "5 % of each edge cut off": lambda picture: cut(picture, 0.05, 0.05),
    "5 % cut off on the left": lambda picture: cut(picture, 0.05, 0),
    "1 % cut off, half as large, quality 40": lambda picture: saved(smaller(cut(picture, 0.01, 0.01), 2), 40),
}


def bits(path: Path | io.BytesIO, side: int, mirrored: bool = False) -> np.ndarray:
    """The hash of a picture as `copies.fingerprint` makes it, of another length."""
    square = Image.fromarray(grey_square(path, 4 * side))
    return imagehash.phash(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else square, side).hash.ravel()


def closest(paths: list[Path], side: int) -> tuple[list[np.ndarray], dict]:
    """The hashes of pictures, and how many pairs of them differ in at most so many bits, as they are or mirrored."""
    own, mirrored = ([bits(path, side, turned) for path in paths] for turned in (False, True))
    signs, others = (np.where(np.stack(hashes), 1, -1).astype(np.float32) for hashes in (own, mirrored))
    apart = (side * side - np.maximum(signs @ signs.T, signs @ others.T)) / 2
    apart = apart[np.triu_indices(len(paths), 1)].astype(int)
    counts = np.bincount(apart).cumsum()
    least = int(apart.min())
    return own, {
        "pairs": len(apart),
        "closest": least,
        "pairs_within": {str(n): int(counts[n]) for n in range(least, side * side // 3)},
    }


def main() -> None:
    if RESULT.exists():
        return
    photographs = sorted(Path(os.environ.get("PHOTOS", "")).glob("VOCdevkit/VOC*/JPEGImages/*.jpg"))
    if "PHOTOS" not in os.environ or not photographs:
        print("near_copies: skipped, PHOTOS names no folder with photographs")
        return
    profile = profiles.cpu()
    profile.prepare(show_progress=True)
    started = time.monotonic()
    sources = {"photographs": photographs, "emoji": sorted(profile.devkit.glob("VOC2007/JPEGImages/*.jpg"))}
    result: dict = {"alike": copies.ALIKE, "pictures": {name: len(paths) for name, paths in sources.items()}}
    some = photographs[:: max(1, len(photographs) // CHANGED)]
    for name, side in SIDES.items():
        found = {source: closest(paths, side) for source, paths in sources.items()}
        own = dict(zip(photographs, found["photographs"][0], strict=True))
        result[name] = {"different": {source: counts for source, (_, counts) in found.items()}, "changed": {}}
        for change, make in CHANGES.items():
            off = []
            for path in some:
                content = io.BytesIO()
                make(Image.open(path).convert("RGB")).save(content, "PNG")
                off.append(int((bits(content, side) != own[path]).sum()))
            result[name]["changed"][change] = {
                "median": float(np.median(off)),
                "99%": float(np.percentile(off, 99)),
                "most": max(off),
                "found": sum(one <= copies.ALIKE * side * side / copies.BITS for one in off) / len(off),
            }
    result["provenance"] = runs.environment() | {"seconds": round(time.monotonic() - started, 1)}
    write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    print(f"near_copies: {RESULT}")


if __name__ == "__main__":
    main()
