import io
import os
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from course_lib import images
from course_lib.files import DataError
from course_lib.images import find_image, read_image


@pytest.fixture
def no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise AssertionError("the folder was listed")

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize("image_id", ["000001", "a.b.c", "car (2)", "1.5 m", "dätei", ".hidden"])
@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".Jpg", ".jpeg", ".JPEG", ".Jpeg", ".png", ".PNG", ".Png"])
def test_an_image_with_any_of_the_usual_endings_is_found_without_listing_the_folder(
    tmp_path, no_listing, image_id, ending
):
    path = tmp_path / f"{image_id}{ending}"
    path.touch()
    (tmp_path / f"{image_id}.txt").touch()
    (tmp_path / f"{image_id}.5.jpg").touch()  # another id's
    assert find_image(tmp_path, image_id) == path


@pytest.mark.parametrize("ending", [".jPg", ".jpEG", ".pnG"])
def test_an_ending_in_mixed_case_is_found(tmp_path, ending):
    (tmp_path / f"a.1{ending}").touch()
    assert find_image(tmp_path, "a.1") == tmp_path / f"a.1{ending}"


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["a1.bmp"], r"a1\.jpg: image is 'a1.bmp': save it as"),
        (["a1.WEBP", "a1.txt"], "image is 'a1.WEBP': save it as"),
        (["a1.jpg", "a1.png"], "image is 'a1.jpg and a1.png': an image has one file"),
        (["a1.JPG", "a1.Png"], "image is 'a1.JPG and a1.Png': an image has one file"),
        (["a1.jPG", "a1.pnG"], "image is 'a1.jPG and a1.pnG': an image has one file"),
        (["a1"], "its name has no ending: call it a1.jpg"),
        (["A1.jpg"], "image is 'A1.jpg': upper and lower case"),
        (["a1.txt", "a1.xml", "a1.2.jpg", "a11.jpg"], "No such file .*: restore the file or leave it out"),
        ([], "No such file .*: restore the file or leave it out"),
    ],
)
def test_an_image_that_cannot_be_chosen_is_an_error_that_fits_what_lies_there(tmp_path, there, message):
    for name in there:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message) as error:
        find_image(tmp_path, "a1")
    assert error.value.path == tmp_path / "a1.jpg"


def test_one_file_that_answers_to_two_names_is_one_image(tmp_path):
    """As on a disk where upper and lower case make no difference."""
    (tmp_path / "a1.jpg").touch()
    (tmp_path / "a1.JPG").hardlink_to(tmp_path / "a1.jpg")
    assert find_image(tmp_path, "a1") == tmp_path / "a1.jpg"


@pytest.mark.parametrize("image_id", ["a1", "a" * 300])
def test_a_folder_that_is_none_is_an_error_with_a_cure(tmp_path, image_id):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(DataError, match="folder"):
            find_image(folder, image_id)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_kind_of_jpeg_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30), (200, 60, 60)).convert(mode).save(path, quality=95)
    image = read_image(path, (40, 30))
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8
    expected = Image.new("RGB", (1, 1), (200, 60, 60)).convert(mode).convert("RGB").getpixel((0, 0))
    assert np.abs(image.reshape(-1, 3).mean(0) - expected).max() < 4


def test_a_picture_turned_by_exif_is_shown_as_its_annotation_sees_it(tmp_path):
    """Orientation 6: stored lying, shown standing. An annotation may have been drawn on either."""
    path = tmp_path / "a.jpg"
    stored = Image.new("RGB", (40, 30), "white")
    stored.paste("black", (0, 0, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(path, exif=exif, quality=95)
    standing, lying = read_image(path, (30, 40)), read_image(path, (40, 30))
    assert standing[5].mean() < 60 and standing[35].mean() > 200
    assert lying[:, 5].mean() < 60 and lying[:, 35].mean() > 200
    assert read_image(path).shape == (40, 30, 3)


GREEN = (20, 200, 40)


def with_exif(path: Path, exif: bytes, jfif: bool = True) -> Path:
    """A JPEG of 40 x 30 whose left half is black; without JFIF, Pillow looks for the resolution in the EXIF data."""
    stored = Image.new("RGB", (40, 30), "white")
    stored.paste("black", (0, 0, 20, 30))
    content = io.BytesIO()
    stored.save(content, "JPEG", exif=b"Exif\0\0" + exif, quality=95)
    path.write_bytes(content.getvalue() if jfif else content.getvalue().replace(b"JFIF", b"NONE", 1))
    return path


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHLL", tag, kind, count, value)


def directory(*entries: bytes, count: int | None = None, after: int = 0) -> bytes:
    number = len(entries) if count is None else count
    return b"II*\0" + struct.pack("<LH", 8, number) + b"".join(entries) + struct.pack("<L", after)


STANDING = entry(0x0112, 3, 1, 6)
DAMAGED = {
    "a text past the end": directory(STANDING, entry(0x010F, 2, 40, 60_000)),
    "a text that is a number": directory(STANDING, entry(0x010F, 2, 4, 60_000)),
    "a number that is too long": directory(STANDING, entry(0x011A, 5, 2**31, 60_000)),
    "bytes where an offset stands": directory(STANDING, entry(0x014A, 7, 2, 2**32 - 1)),  # struct.error in Pillow
    "negative numbers where bytes stand": directory(STANDING, entry(0x02BC, 6, 2, 2**32 - 1)),  # ValueError
    "a resolution in letters": directory(STANDING, entry(0x011A, 2, 1, 8)),  # TypeError
    "a maker that is a number": directory(STANDING, entry(0x010F, 12, 4, 0)),  # AttributeError
    "a resolution that is NaN": directory(STANDING, entry(0x011A, 11, 1, 2**32 - 1)),  # ValueError
    "a sub-directory before the start": directory(STANDING, entry(0x8825, 6, 1, 2**32 - 1)),  # ValueError
    "numbers out of range": directory(STANDING, entry(0x014A, 6, 4, 60_000)),  # struct.error
    "a second orientation": directory(entry(0x0112, 3, 2, 0x00060006)),
    "a rational past the end": directory(STANDING, entry(0x011A, 5, 1, 60_000)),
    "an offset of four gigabytes": directory(STANDING, entry(0x010F, 2, 99, 2**32 - 1)),
    "a sub-directory past the end": directory(STANDING, entry(0x8769, 4, 1, 60_000)),
    "a sub-directory that is itself": directory(STANDING, entry(0x8769, 4, 1, 8)),
    "a kind that does not exist": directory(STANDING, entry(0x010F, 99, 4, 4)),
    "more entries than there are": directory(STANDING, count=9),
    "a next directory past the end": directory(STANDING, after=60_000),
}
UNREADABLE = {
    "no directory": b"II*\0",
    "no TIFF": b"not a TIFF header",
    "an orientation past the end": directory(entry(0x0112, 3, 900, 60_000)),
    "an orientation that is a text": directory(entry(0x0112, 2, 4, 0x00363636)),
    "an orientation that is no number": directory(entry(0x0112, 7, 4, 0x06060606)),
    "an orientation of 9": directory(entry(0x0112, 3, 1, 9)),
    "cut": directory(STANDING)[:15],
}


@pytest.mark.parametrize("filtering", ["error", "ignore"])
@pytest.mark.parametrize("jfif", [True, False])
@pytest.mark.parametrize("name", [*DAMAGED, *UNREADABLE])
def test_damaged_exif_data_around_good_pixels_costs_no_picture(tmp_path, name, jfif, filtering):
    path = with_exif(tmp_path / "a.jpg", (DAMAGED | UNREADABLE)[name], jfif)
    with warnings.catch_warnings():
        warnings.simplefilter(filtering)
        image = read_image(path)
        assert read_image(path, (40, 30)).shape == (30, 40, 3)
    if name in DAMAGED:  # the orientation is whole
        assert image.shape == (40, 30, 3) and image[5].mean() < 60 and image[35].mean() > 200
    else:
        assert image.shape == (30, 40, 3) and image[:, 5].mean() < 60 and image[:, 35].mean() > 200


@pytest.mark.slow
def test_random_exif_data_costs_no_picture(tmp_path):
    rng = random.Random(0)
    for _ in range(500):
        entries = [
            entry(
                rng.choice([0x0112, 0x011A, 0x8769, 0x8825, 0x010F, rng.randrange(2**16)]),
                rng.randrange(15),
                rng.choice([0, 1, 2, 4, rng.randrange(2**32)]),
                rng.choice([0, 6, 8, 2**32 - 1, rng.randrange(2**32)]),
            )
            for _ in range(rng.randrange(6))
        ]
        exif = directory(*entries, after=rng.choice([0, 8, 9999]))
        path = with_exif(tmp_path / "a.jpg", exif[: rng.choice([None, rng.randrange(len(exif))])], rng.random() < 0.5)
        assert read_image(path).shape in ((30, 40, 3), (40, 30, 3))


def test_a_turned_picture_of_any_mode_is_shown_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        Image.new("RGB", (4, 3)).convert("L" if mode == "I;16" else mode).convert(mode).save(
            tmp_path / "a.png", exif=exif
        )
        assert read_image(tmp_path / "a.png").shape == (4, 3, 3), mode


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (10_000, 10_000), (90_000, 1_000)])
@pytest.mark.parametrize("filtering", ["error", "ignore"])
def test_a_picture_too_large_for_pillow_is_an_error_that_names_the_limit(tmp_path, width, height, filtering):
    path, limit = tmp_path / "a.png", Image.MAX_IMAGE_PIXELS
    Image.new("1", (width, height)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter(filtering)
        with pytest.raises(DataError, match=f"{limit} pixels are not read: shrink it") as error:
            read_image(path)
    assert error.value.path == path and error.value.field == "image size"
    assert Image.MAX_IMAGE_PIXELS == limit == 89_478_485


def test_the_limit_is_pillows_own(tmp_path, monkeypatch):
    Image.new("1", (50, 40)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (40, 50, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    with pytest.raises(DataError, match="1999 pixels"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(tmp_path / "a.png").shape == (40, 50, 3)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "<u2"), ("a.tif", "<u2"), ("a.tif", ">u2")])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path, name, mode):
    """A quarter of white is a quarter of white; before, all above 255 came out white."""
    values = np.array([[0, 128, 129, 257, 16_448, 32_896, 65_406, 65_407, 65_535]])
    Image.fromarray(values.astype(mode)).save(tmp_path / name)
    with Image.open(tmp_path / name) as stored:
        assert stored.mode == ("I;16B" if mode == ">u2" else "I;16")
    image = read_image(tmp_path / name, (9, 1))
    assert image[0].tolist() == [[grey] * 3 for grey in (0, 0, 1, 1, 64, 128, 254, 255, 255)]
    assert image[0, :, 0].tolist() == np.round(values[0] / 257).tolist()


@pytest.mark.parametrize(("mode", "value"), [("I", 70_000), ("F", 0.5)])
def test_numbers_without_a_scale_are_refused_with_a_cure(tmp_path, mode, value):
    path = tmp_path / "a.tif"
    Image.new(mode, (4, 3), value).save(path)
    with pytest.raises(DataError, match=f"image mode is '{mode}': .*save it as a PNG of 8 or 16 bits") as error:
        read_image(path)
    assert error.value.path == path


def palette(colours: list[int], **info: object) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette(colours)
    image.putdata([0, 1])
    image.info.update(info)
    return image


def pixels(mode: str, first: object, second: object) -> Image.Image:
    image = Image.new(mode, (2, 1), first)
    image.putpixel((1, 0), second)
    return image


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: pixels("RGBA", (9, 9, 9, 0), (*GREEN, 255)), {}),
        (lambda: palette([9, 9, 9, *GREEN]), {"transparency": 0}),
        (lambda: palette([9, 9, 9, *GREEN]), {"transparency": b"\x00\xff"}),
        (lambda: pixels("RGB", (9, 9, 9), GREEN), {"transparency": (9, 9, 9)}),
    ],
)
def test_what_is_transparent_is_shown_on_white(tmp_path, make: Callable[[], Image.Image], options):
    make().save(tmp_path / "a.png", **options)
    assert read_image(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], list(GREEN)]


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (lambda: pixels("LA", (9, 0), (40, 255)), {}, (255, 40)),
        (lambda: pixels("RGBA", (0, 0, 0, 51), (40, 40, 40, 255)), {}, (204, 40)),
        (lambda: pixels("L", 9, 40), {"transparency": 9}, (255, 40)),
        (lambda: pixels("1", 0, 1), {"transparency": 0}, (255, 255)),
        (lambda: pixels("I;16", 2570, 257 * 40), {"transparency": 2570}, (255, 40)),
        (lambda: pixels("I;16", 2570, 257 * 40), {}, (10, 40)),
        (lambda: pixels("L", 9, 40), {}, (9, 40)),
        (lambda: pixels("1", 0, 1), {}, (0, 255)),
        (lambda: palette([9, 9, 9, 40, 40, 40]), {}, (9, 40)),
    ],
)
def test_grey_of_every_kind_becomes_rgb(tmp_path, make: Callable[[], Image.Image], options, expected):
    make().save(tmp_path / "a.png", **options)
    assert read_image(tmp_path / "a.png")[0].tolist() == [[grey] * 3 for grey in expected]


def cut_png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()[:2000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image is 'an empty file': restore"),
        (b"not a picture", "image is 'not an image': restore"),
        (b"\xff\xd8\xff", "image is 'not an image': restore"),
        (cut_png(), "(?i)truncated.*: restore"),
        (None, "No such file or directory': restore"),
    ],
)
def test_what_is_no_picture_is_an_error_that_says_why(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert error.value.path == path and error.value.field == "image"


def test_a_folder_and_a_file_that_may_not_be_read_are_errors_with_a_cure(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path)

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", closed)
    with pytest.raises(DataError, match=r"Permission denied.*right to read"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "raised",
    [
        *(struct.error("unpack"), KeyError(4), AttributeError("x"), TypeError("x"), OverflowError("x"), IndexError()),
        *(ZeroDivisionError("x"), NotImplementedError("x"), EOFError(), AssertionError(), RuntimeError("x")),
    ],
)
def test_whatever_pillow_raises_is_an_error_that_names_the_file(tmp_path, monkeypatch, raised):
    path = tmp_path / "a.png"
    Image.new("L", (4, 3)).save(path)

    def broken(*_):
        raise raised

    monkeypatch.setattr(images, "_rgb", broken)
    with pytest.raises(DataError) as error:
        read_image(path)
    assert error.value.path == path and error.value.value


@pytest.mark.slow
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_pictures_are_read_or_refused_never_anything_else(tmp_path, format):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(content, format)
    rng, path = np.random.default_rng(1), tmp_path / "a"
    for _ in range(200):
        damaged = bytearray(content.getvalue())
        for at in rng.integers(0, min(len(damaged), 400), 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).shape[2] == 3
        except DataError as error:
            assert str(path) in str(error) and error.cure


def test_an_image_whose_size_is_annotated_the_wrong_way_round_says_so(tmp_path):
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"\(40, 30\).*annotation says \(30, 40\): exchange width and height in <size>"):
        read_image(tmp_path / "a.png", (30, 40))
    with pytest.raises(DataError, match="another version"):
        read_image(tmp_path / "a.png", (30, 41))


def test_a_header_tells_what_the_whole_picture_tells_but_for_its_pixels(tmp_path):
    """Its size as the annotation sees it, also where a camera has turned it; and whether it is a picture at all."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=turned)
    Image.new("L", (40, 30)).save(tmp_path / "grey.png")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "plain.jpg").read_bytes()[:40])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("plain.jpg", "turned.jpg", "grey.png", "cut.jpg", "empty.png", "text.jpg", "none.jpg"):
        for size in (None, (40, 30), (30, 40), (4, 3)):
            said = []
            for look in (images.check_header, images.read_image):
                try:
                    look(tmp_path / name, size)
                    said.append("")
                except DataError as error:
                    said.append(str(error))
            assert said[0] == said[1], (name, size)
