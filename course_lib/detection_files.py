"""Detection files: what a detector found in an image set, one text file for each class, as VOC's devkit reads them."""

import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from course_lib.files import DataError, write_whole
from course_lib.voc import VOC_CLASSES, class_names

LINE = "<image id> <score> <xmin> <ymin> <xmax> <ymax>"  # of a detection file

# Detection files count pixels from 1. One is added and taken away in decimal digits, where both are exact.
DECIMAL = Context(prec=400)


class ClassDetections(NamedTuple):
    """All detections of one class in an image set, in any order.

    Attributes:
        image_ids: the image of each detection; an id stands for one image of the set.
        scores: higher is surer.
        boxes_px: corners, pixels, 0-based, half open.
    """

    image_ids: Sequence[str]
    scores: Float[np.ndarray, " N"]
    boxes_px: Float[np.ndarray, "N 4"]


def checked(name: str, found: ClassDetections) -> ClassDetections:
    """The same detections of class `name` in float64, with nothing in them that has no place in a ranking."""
    scores, boxes_px = np.asarray(found.scores, np.float64), np.asarray(found.boxes_px, np.float64)
    if not len(found.image_ids) == len(scores) == len(boxes_px):
        raise ValueError(
            f"class {name!r} has {len(found.image_ids)} image ids, {len(scores)} scores and {len(boxes_px)} boxes: "
            "give one of each for every detection"
        )
    check_scores(scores, found.image_ids.__getitem__, f"a detection of class {name!r}")
    check_boxes(boxes_px, found.image_ids.__getitem__, f"a detection of class {name!r}")
    return ClassDetections(found.image_ids, scores, boxes_px)


def check_scores(scores: Float[np.ndarray, " N"], image_id: Callable[[int], str], what: str) -> None:
    """Refuse scores that are no numbers; `image_id` gives a row's image, `what` says what a row is.

    Raises:
        ValueError: it names the first such row.
    """
    wrong = ~np.isfinite(scores)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"image {image_id(row)!r}: {what} has score {scores[row]}: scores must be finite numbers")


def check_boxes(boxes_px: Float[np.ndarray, "N 4"], image_id: Callable[[int], str], what: str) -> None:
    """Refuse corners that are no numbers or reversed: see `check_scores`."""
    if not np.isfinite(boxes_px).all() or (boxes_px[:, :2] > boxes_px[:, 2:]).any():
        right = np.isfinite(boxes_px).all(axis=1) & (boxes_px[:, :2] <= boxes_px[:, 2:]).all(axis=1)
        row = int(right.argmin())
        raise ValueError(
            f"image {image_id(row)!r}: {what} has box {tuple(boxes_px[row].tolist())} in pixels: corners are finite "
            "numbers in the order xmin, ymin, xmax, ymax"
        )


def detection_file(folder: str | Path, name: str) -> Path:
    """Where the detections of a class are kept: `comp4_det_test_<class>.txt`.

    A character that a file's name cannot hold on every system is written as in an address, `/` as `%2F`.
    """
    quoted = re.sub(r'[\x00-\x1f\x7f%/\\:*?"<>|]', lambda found: f"%{ord(found[0]):02X}", name)
    return Path(folder) / f"comp4_det_test_{quoted}.txt"


def _detection_files(folder: str | Path, names: Iterable[str]) -> dict[str, Path]:
    paths = {name: detection_file(folder, name) for name in names}
    met: dict[str, str] = {}
    for name in paths:
        other = met.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ValueError(
                f"classes {other!r} and {name!r} would share one detection file on a disk that does not tell capital "
                "letters from small ones: rename one of them"
            )
    return paths


def read_detection_files(
    folder: str | Path, classes: Sequence[str] = VOC_CLASSES, image_ids: Collection[str] | None = None
) -> dict[str, ClassDetections]:
    """Read detections in the devkit's format, one file for each class.

    Args:
        folder: holds `comp4_det_test_<class>.txt` (see `detection_file`), UTF-8, whose lines are
            `<image id> <score> <xmin> <ymin> <xmax> <ymax>`, 1-based and inclusive. The last five
            fields are numbers, and what stands before them is the id, which may have spaces in it.
            A class without a file is left out, with a warning.
        image_ids: those of the image set, where it is known.

    Raises:
        DataError: there is no such file, a line is not of that form, its corners are reversed, or its
            id is none of `image_ids`.
    """
    classes = class_names(classes)
    folder = Path(folder)
    paths = _detection_files(folder, classes)
    present = {name: path for name, path in paths.items() if path.exists()}
    if not present:
        raise DataError(folder, "folder", "without detections", "it should hold comp4_det_test_<class>.txt files")
    if len(present) < len(paths):
        missing = ", ".join(name for name in paths if name not in present)
        warnings.warn(f"{folder} has no detection file for {missing}: left out of the mean", stacklevel=2)
    known = None if image_ids is None else set(image_ids)
    return {name: _read_detection_file(path, known) for name, path in present.items()}


def _read_detection_file(path: Path, known: set[str] | None) -> ClassDetections:
    image_ids, numbers = [], []
    for row, line in enumerate(_lines(path), start=1):
        if not line:
            continue
        image_id, *fields = line.rsplit(maxsplit=5)
        try:
            score, _, _, right, bottom = (float(field) for field in fields)
            left, top = (float(DECIMAL.subtract(Decimal(field), 1)) for field in fields[1:3])
            if not all(map(math.isfinite, (score, left, top, right, bottom))):
                raise ValueError
        except (ValueError, ArithmeticError):
            raise DataError(path, f"line {row}", line, f"write {LINE}") from None
        if right < left or bottom < top:
            raise DataError(path, f"line {row}", line, f"the corners are reversed: write {LINE}")
        if known is not None and image_id not in known:
            raise DataError(path, f"line {row}: image id", image_id, cure_of_id(image_id, known))
        image_ids.append(image_id)
        numbers.append((score, left, top, right, bottom))
    table = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    return ClassDetections(image_ids, table[:, 0], table[:, 1:])


def _lines(path: Path) -> list[str]:
    """The lines of a text file; a byte-order mark before the first is none of its text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, "encoding", f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    if "\0" in text:
        raise DataError(path, "encoding", "not UTF-8, as it holds zero bytes", "save the file as UTF-8")
    return [line.strip() for line in text.split("\n")]


def cure_of_id(image_id: str, known: Collection[str]) -> str:
    """What to write instead of an id that is not in the set: often it has a folder, an ending or no zeros."""
    name = image_id.replace("\\", "/").rpartition("/")[2]
    near = {other.casefold().lstrip("0"): other for other in known}
    for guess in (image_id.strip(), name, name.rpartition(".")[0], *image_id.split()[:1]):
        key = guess.casefold().lstrip("0")
        if key and key in near:
            return f"write {near[key]}"
    return "it is not in the image set: take it out, or measure on the set that it belongs to"


def write_detection_files(folder: str | Path, detections: Mapping[str, ClassDetections]) -> None:
    """Write detections in the devkit's format; `read_detection_files` reads the very same numbers back.

    Raises:
        ValueError: an id that a line cannot hold, a score or a corner that is no number, reversed
            corners, two classes that would share a file; then nothing is written.
    """
    paths = _detection_files(folder, detections)
    contents = {paths[name]: _text_of(checked(name, found)) for name, found in detections.items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_whole(path, content)


def _text_of(found: ClassDetections) -> str:
    """One line for each detection, with the fewest digits that give the same float64 again."""
    rows = []
    for image_id, score, box in zip(found.image_ids, found.scores.tolist(), found.boxes_px.tolist(), strict=True):
        if image_id != image_id.strip() or not image_id or re.search("[\0\n\r\ud800-\udfff]|^\ufeff", image_id):
            raise ValueError(
                f"image id {image_id!r} cannot be read back from a detection file: spaces only inside it, no line "
                "breaks, zero bytes, lone surrogates or byte-order marks"
            )
        left, top = (DECIMAL.add(Decimal(repr(value)), 1) for value in box[:2])
        rows.append(f"{image_id} {score!r} {left} {top} {box[2]!r} {box[3]!r}\n")
    return "".join(rows)
