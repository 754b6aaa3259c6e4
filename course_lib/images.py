"""Pictures as people bring them: where an image lies, how it becomes RGB, and a square for the network."""

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from course_lib.files import DataError, as_stored

ENDINGS = (".jpg", ".jpeg", ".png")
SPELLINGS = tuple(spelled(ending) for spelled in (str.lower, str.upper, str.title) for ending in ENDINGS)
OTHER_ENDINGS = (".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".jp2", ".jfif", ".jpe", ".ppm")
RESTORE = "restore the file or leave it out"

# What EXIF's orientation asks for; 1, and whatever is not here, is upright as stored.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The loader's workers are the parallelism; OpenCV's own threads would only get in their way.
cv2.setNumThreads(0)


def namesakes(path: Path) -> list[Path]:
    """The files beside `path` whose names begin as its own without its ending, in upper or lower case, sorted.

    Raises:
        OSError: the folder cannot be listed.
    """
    start = path.stem.casefold()
    with os.scandir(path.parent) as entries:  # names first: a Path for each of thousands of files takes long
        names = sorted(entry.name for entry in entries if entry.name.casefold().startswith(start))
    return [path.with_name(name) for name in names]


def find_image(folder: str | Path, image_id: str) -> Path:
    """Where the image of an id lies: `.jpg`, `.jpeg` or `.png`, in upper, lower or mixed case.

    The usual spellings are asked for by name. The folder, which may hold thousands of files, is listed only
    where none of them is there.

    Args:
        folder: holds the images, `JPEGImages` in a VOC tree.
        image_id: the file's name without its ending; it may hold dots and spaces.

    Raises:
        DataError: there is no such image, or there are several.
    """
    folder = Path(folder)
    expected = folder / f"{image_id}.jpg"
    found: dict[tuple[int, int], Path] = {}  # by file: where case makes no difference, one file has many spellings
    for path in (as_stored(folder / f"{image_id}{ending}") for ending in SPELLINGS):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(path, "image", error.strerror, f"make {folder} a folder that you may read") from None
        found.setdefault((stat.st_dev, stat.st_ino), path)
    candidates = list(found.values()) or _listed(expected)
    if len(candidates) > 1:
        names = " and ".join(path.name for path in candidates)
        raise DataError(expected, "image", names, "an image has one file: keep the one that was annotated")
    return candidates[0]


def _listed(expected: Path) -> list[Path]:
    """The images of an id in mixed case, by listing the folder; where there is none, an error that fits what is."""
    try:
        paths = namesakes(expected)
    except OSError as error:
        raise DataError(expected, "image", error.strerror, f"restore the folder {expected.parent}") from None
    image_id = expected.stem
    images = [path for path in paths if path.suffix.lower() in ENDINGS and path.stem.casefold() == image_id.casefold()]
    if mine := [path for path in images if path.stem == image_id]:
        return mine
    for path in images:
        cure = "upper and lower case count: give image, annotation and line in the list one name"
        raise DataError(expected, "image", path.name, cure)
    for path in paths:
        if path.name == image_id:
            raise DataError(expected, "image", path.name, f"its name has no ending: call it {image_id}.jpg or .png")
        if path.stem == image_id and path.suffix.lower() in OTHER_ENDINGS:
            raise DataError(expected, "image", path.name, "save it as .jpg or .png, of the same size: no other is read")
    raise DataError(expected, "image", os.strerror(errno.ENOENT), RESTORE)


def _orientation(stored: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none that can be read: damage there is no damage to the pixels."""
    try:
        return int(stored.getexif().get(ExifTags.Base.Orientation, 1))
    except Warning:  # a filter has made errors of warnings: see `read_image`
        raise
    except Exception:  # Pillow raises whatever the damaged bytes lead it to
        return 1


def _rgb(path: str | Path, stored: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue, white where the picture is transparent."""
    if stored.mode.startswith("I;16"):
        deep = np.asarray(stored).astype(np.uint32)
        grey = ((deep + 128) // 257).astype(np.uint8)  # 65535 becomes 255; rounded
        grey[deep == stored.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if stored.mode in ("I", "F"):
        cure = "nothing says which of its values is white: save it as a PNG of 8 or 16 bits"
        raise DataError(path, "image mode", stored.mode, cure)
    if stored.has_transparency_data:
        picture = stored.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return stored.convert("RGB")


def _refuse_too_large(path: str | Path, stored: Image.Image) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and stored.width * stored.height > Image.MAX_IMAGE_PIXELS:
        raise _too_large(path, f"{stored.width} x {stored.height} pixels")


def _size_in_header(path: str | Path, size: tuple[int, int] | None) -> tuple[int, int]:
    with Image.open(path) as stored:
        _refuse_too_large(path, stored)
        turned = stored.size != size and 5 <= _orientation(stored) <= 8  # by a quarter
        return stored.size[::-1] if turned else stored.size


def _decoded(path: str | Path, size: tuple[int, int] | None) -> UInt8[np.ndarray, "H W 3"]:
    with Image.open(path) as stored:
        _refuse_too_large(path, stored)
        picture, orientation = _rgb(path, stored), _orientation(stored)
    upright = picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture
    as_annotated = picture if size is not None and upright.size != size == picture.size else upright
    return np.asarray(as_annotated)


def _grey_square(path: str | Path, side: int) -> UInt8[np.ndarray, "S S"]:
    with Image.open(path) as stored:
        _refuse_too_large(path, stored)
        stored.draft("L", (2 * side, 2 * side))  # a JPEG is decoded at an eighth, a quarter or half of its size
        picture, orientation = _rgb(path, stored), _orientation(stored)
    small = picture.convert("L").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else small)


def _too_large(path: str | Path, pixels: str) -> DataError:
    limit = f"more than {Image.MAX_IMAGE_PIXELS} pixels are not read"
    return DataError(path, "image size", pixels, f"{limit}: shrink it, and its boxes and <size> with it")


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image as RGB, eight bits a channel.

    Grey, CMYK, palette and 1-bit images are converted; 16 bits of grey are scaled to 8. What is transparent
    is shown on white.

    Args:
        path: any format that Pillow reads, of at most `PIL.Image.MAX_IMAGE_PIXELS`.
        size: width and height that its annotation gives. A camera may store a picture turned and
            say so in its EXIF data; it is shown upright here, unless only the stored pixels have
            the annotated size. Where its EXIF data gives no orientation that can be read, it is
            as stored.

    Raises:
        DataError: the image is missing, broken, truncated, too large, of a mode without a scale (32 bits
            a pixel), or has another size.
    """
    image = _looked_at(_decoded, path, size)
    _refuse_other_size(path, image.shape[1::-1], size)
    return image


def check_header(path: str | Path, size: tuple[int, int] | None = None) -> None:
    """Refuse what `read_image` refuses, as far as a file's first bytes tell: its pixels are not decoded.

    Raises:
        DataError: the image is missing, no image, too large, or has another size.
    """
    _refuse_other_size(path, _looked_at(_size_in_header, path, size), size)


def grey_square(path: str | Path, side: int) -> UInt8[np.ndarray, "S S"]:
    """An image in grey, upright, shrunk to a square of `side` pixels: decoded no finer than that needs.

    Raises:
        DataError: the image is missing, broken, truncated, too large, or of a mode without a scale.
    """
    return _looked_at(_grey_square, path, side)


def _looked_at(look: Callable, path: str | Path, asked: Any) -> Any:
    """What `look` sees in an image; whatever goes wrong is a `DataError`."""
    try:
        try:
            return look(path, asked)
        except Warning:  # a filter has made an error of a remark of Pillow's, on EXIF data or on the size
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return look(path, asked)
    except DataError:
        raise
    except UnidentifiedImageError:
        value = "not an image" if Path(path).stat().st_size else "an empty file"
        raise DataError(path, "image", value, RESTORE) from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error).partition(" exceeds")[0]) from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(path, "image", error.strerror, RESTORE) from None
    except PermissionError as error:
        raise DataError(path, "image", error.strerror, "give yourself the right to read it") from None
    except Exception as error:  # Pillow raises whatever damaged bytes lead it to: struct.error, KeyError, and more
        raise DataError(path, "image", str(error) or type(error).__name__, RESTORE) from None


def _refuse_other_size(path: str | Path, found: tuple[int, int], annotated: tuple[int, int] | None) -> None:
    if annotated is not None and found != annotated:
        raise DataError(path, "image size", found, _other_size(found, annotated))


def _other_size(found: tuple[int, int], annotated: tuple[int, int]) -> str:
    if found == annotated[::-1]:
        return (
            f"its annotation says {annotated}: exchange width and height in <size>, and look at a box: "
            "the picture may have been turned after it was annotated"
        )
    return f"its annotation says {annotated}: the boxes belong to another version"


def channels_first(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[Tensor, "3 H W"]:
    """An image as torch takes it: each colour a plane of its own."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def resized(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[Tensor, "3 S S"]:
    """An image stretched to a square.

    SSD stretches: whatever the image's shape, every box keeps its fractions.
    """
    return channels_first(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR))
