import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from own_pictures import cut, scene
from PIL import Image, ImageEnhance

from course_lib.copies import ALIKE, BITS, Fingerprint, copies, fingerprint
from course_lib.files import DataError


def saved(picture: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content)


CHANGES = {
    "saved again": lambda picture: saved(picture, 30),
    "half as large": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "four times smaller": lambda picture: picture.resize((picture.width // 4, picture.height // 4)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "grey": lambda picture: picture.convert("L"),
    "cut by 1 % on each side": lambda picture: cut(picture, 0.01),
    "cut by 2 % on each side": lambda picture: cut(picture, 0.02),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored, cut, half as large and saved again": lambda picture: saved(
        cut(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.01).resize((200, 150)), 40
    ),
}


def print_of(picture: Image.Image, path: Path, **options: object) -> Fingerprint:
    picture.save(path, **options)
    return fingerprint(path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_a_copy_of_itself_and_of_no_other(tmp_path, change):
    scenes = [scene(seed) for seed in range(4)]
    prints = [print_of(picture, tmp_path / f"{k}.png") for k, picture in enumerate(scenes)]
    prints += [print_of(CHANGES[change](one), tmp_path / f"{k}.{change}.png") for k, one in enumerate(scenes)]
    assert copies(prints).tolist() == [0, 1, 2, 3] * 2


def test_a_file_of_the_same_bytes_and_one_that_a_camera_stored_turned_are_copies(tmp_path):
    picture = scene(0)
    upright = print_of(picture, tmp_path / "a.jpg", quality=95)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    turned = Image.Exif()
    turned[0x0112] = 8  # to be shown turned by a quarter, against the clock
    stored = print_of(picture.transpose(Image.Transpose.ROTATE_270), tmp_path / "c.jpg", quality=95, exif=turned)
    same = fingerprint(tmp_path / "b.jpg")
    assert same.content == upright.content == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()
    assert stored.content != upright.content and copies([upright, same, stored]).tolist() == [0, 0, 0]
    assert copies([upright, same], alike=0).tolist() == [0, 0]


def slowly(prints, alike):
    """Copies of copies, pair by pair."""
    first = list(range(len(prints)))
    for j, other in enumerate(prints):
        for i, one in enumerate(prints[:j]):
            different = min((one.looks != other.looks).sum(), (one.looks != other.mirrored).sum())
            if different <= alike:
                low, high = sorted((first[i], first[j]))
                first = [low if number == high else number for number in first]
    return first


@settings(max_examples=30)
@given(some.integers(0, 60), some.integers(0, 2**32), some.sampled_from([0, 10, 64]))
def test_groups_are_those_of_the_comparison_pair_by_pair(count, seed, alike):
    rng = np.random.default_rng(seed)
    centres, prints = rng.random((8, BITS)) < 0.5, []
    for _ in range(count):
        looks = centres[rng.integers(8)] ^ (rng.random(BITS) < rng.choice([0, 0.02, 0.2]))
        prints.append(Fingerprint("", looks, centres[rng.integers(8)] if rng.random() < 0.1 else ~looks))
    assert copies(prints, alike).tolist() == slowly(prints, alike)


@pytest.mark.parametrize(
    "content", [b"", b"no picture", Image.new("RGB", (9, 9)).tobytes()], ids=["empty", "text", "bytes"]
)
def test_a_broken_picture_is_named(tmp_path, content):
    path = tmp_path / "a b.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a b\.jpg: image is"):
        fingerprint(path)
    scene(0).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match="truncated"):
        fingerprint(path)


@pytest.mark.slow
def test_no_two_photographs_are_taken_for_copies_and_their_copies_are_found(tmp_path):
    """`PHOTOS` names a folder with a devkit of photographs; every 40th is changed in each way."""
    if not os.environ.get("PHOTOS"):
        pytest.skip("PHOTOS names no folder with photographs")
    paths = sorted(Path(os.environ["PHOTOS"]).glob("VOCdevkit/VOC*/JPEGImages/*.jpg"))
    prints = [fingerprint(path) for path in paths]
    assert copies(prints).tolist() == list(range(len(paths)))
    for name, change in CHANGES.items():
        for path, own in list(zip(paths, prints, strict=True))[::40]:
            changed = print_of(change(Image.open(path).convert("RGB")), tmp_path / "changed.png")
            assert copies([own, changed], ALIKE).tolist() == [0, 0], (name, path)
