"""Lists of a tree: what they show, and how pictures are dealt to them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from own_pictures import folders, kitchen, shown
from xml_files import dog, write

from course_lib import splits, trees
from course_lib.copies import BITS, Fingerprint
from course_lib.splits import Picture
from course_lib.voc import ImageSet


def pictures_of(groups: list[list[tuple[str, ...]]], seed: int = 0) -> list[Picture]:
    """Pictures that show those classes; those of a group look the same."""
    rng, pictures = np.random.default_rng(seed), []
    for group in groups:
        looks, mirrored = rng.random((2, BITS)) < 0.5
        for names in group:
            pictures.append(Picture(f"{len(pictures):03}", Counter(names), Fingerprint("", looks, mirrored)))
    return pictures


GROUPS = some.lists(some.lists(some.lists(some.sampled_from("abcde")).map(tuple), min_size=1, max_size=4), max_size=40)
SHARES = some.sampled_from([(0.2, 0.1), (0.2, 0), (0.5, 0.25), (0, 0.1), (0, 0)])


@settings(max_examples=30)
@given(GROUPS, SHARES, some.integers(0, 2**32))
def test_every_picture_is_in_one_list_and_copies_are_in_the_same(groups, shares, seed):
    pictures = pictures_of(groups)
    lists = splits.divide(pictures, splits.parts_of(*shares), seed)
    assert sorted(one for ids in lists.values() for one in ids) == [picture.image_id for picture in pictures]
    assert all(ids == sorted(ids) for ids in lists.values())
    place = {one: name for name, ids in lists.items() for one in ids}
    for ids in splits.copied(pictures):
        assert len({place[one] for one in ids}) == 1
    assert splits.divide(pictures[::-1], splits.parts_of(*shares), seed) == lists


@settings(max_examples=30)
@given(some.lists(some.sampled_from("abcde"), min_size=1, max_size=200), SHARES, some.integers(0, 2**32))
def test_a_class_is_in_each_list_by_its_share_where_a_picture_shows_one(names, shares, seed):
    """Off by less than one picture, and never none of a class that has a picture for each list."""
    pictures = pictures_of([[(name,)] for name in names])
    parts = splits.parts_of(*shares)
    lists = splits.divide(pictures, parts, seed)
    shown = {picture.image_id: picture.objects for picture in pictures}
    for name, count in Counter(names).items():
        for part, share in parts.items():
            found = sum(name in shown[one] for one in lists[part])
            least = 1 if count >= len(parts) else 0
            assert found >= least
            assert abs(found - share * count) < 1 or found == least == 1 or share == max(parts.values())


@settings(max_examples=30)
@given(some.integers(60, 200), some.integers(0, 2**32))
def test_lists_have_their_shares_where_pictures_show_several_classes(count, seed):
    """In 1,500 trials a list was off by at most 6 pictures, and a class in it by 4."""
    rng = np.random.default_rng(seed)
    pictures = pictures_of([[tuple(name for name in "abcd" if rng.random() < 0.4)] for _ in range(count)], seed)
    lists = splits.divide(pictures, splits.parts_of(0.2, 0.1), seed)
    shown = {picture.image_id: picture.objects for picture in pictures}
    for name, share in splits.parts_of(0.2, 0.1).items():
        assert abs(len(lists[name]) - share * count) <= 10
        for one in "abcd":
            found, all_of_it = (sum(one in shown[image_id] for image_id in ids) for ids in (lists[name], shown))
            assert abs(found - share * all_of_it) <= 10


def test_another_seed_gives_other_lists():
    pictures = pictures_of([[("a",)]] * 40)
    lists = [splits.divide(pictures, splits.parts_of(0.2, 0.1), seed)["val"] for seed in (0, 0, 1, 2)]
    assert lists[0] == lists[1] and lists[1] != lists[2] != lists[3]


@pytest.mark.parametrize(
    ("shares", "names"),
    [((0.2, 0.1), "train val test"), ((0.2, 0), "train val"), ((0, 0.1), "train test"), ((0, 0), "train")],
)
def test_a_share_of_nothing_is_no_list(shares, names):
    parts = splits.parts_of(*shares)
    assert " ".join(parts) == names and sum(parts.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shares", [(-0.1, 0), (0.5, 0.5), (0, 1), (1.5, 0), (float("nan"), 0)])
def test_shares_that_leave_nothing_to_learn_from_are_refused(shares):
    with pytest.raises(ValueError, match="less than 1"):
        splits.parts_of(*shares)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return kitchen(tmp_path / "my kitchen")


def test_pictures_are_read_with_what_they_show_and_all_that_is_broken_is_named(tree):
    shown(tree, "no object")
    (tree / "JPEGImages/cup 1.png").write_bytes(b"")
    (tree / "Annotations/cup 2.xml").write_text("<annotation>")
    write(tree / "Annotations/cup 3.xml", dog(name="cup", xmin=50), dog(name="cup", xmax=500), width=160, height=120)
    (tree / "JPEGImages/cup 4.png").unlink()
    (tree / "JPEGImages/waiting.jpg").write_bytes(b"")
    (tree / "Annotations/._cup 5.xml").write_bytes(b"\0\5\26\7 what macOS writes beside a file")
    pictures, faults = splits.look_at(tree, splits.annotated(tree))
    assert [(fault.path.name, fault.field) for fault in faults] == [
        ("cup 1.png", "image"),
        ("cup 2.xml", "XML"),
        ("cup 3.xml", "object[0]/bndbox"),
        ("cup 3.xml", "object[1]/bndbox"),
        ("cup 4.jpg", "image"),
    ]
    assert len(pictures) == 24 - 4 and splits.not_annotated(tree) == ("waiting.jpg",)
    assert {picture.image_id: picture.objects for picture in pictures}["no object"] == Counter()
    only, faults = splits.look_at(tree, splits.annotated(tree), ["Spoon", "plate"])
    assert {name for picture in only for name in picture.objects} == {"Spoon"} and len(only) == 10
    assert [fault.path.name for fault in faults] == ["cup 2.xml"]  # nobody knows what it shows


def test_lists_are_written_and_never_written_over(tree):
    lists = {"train": ["a", "c"], "val": ["b"], "test": ["d"]}
    paths = splits.write_lists(tree, lists)
    assert {name: path.read_text() for name, path in paths.items()} == {
        "train": "a\nc\n", "val": "b\n", "test": "d\n", "trainval": "a\nb\nc\n"
    }  # fmt: skip
    assert splits.lists_there(tree) == [tree / trees.LISTS / f"{name}.txt" for name in splits.LISTS_OF_A_SPLIT]
    assert splits.lists_there(tree, "animals") == []
    with pytest.raises(FileExistsError, match=r"train\.txt exists"):
        splits.write_lists(tree, {"train": ["z"]})
    assert paths["train"].read_text() == "a\nc\n"
    named = splits.write_lists(tree, {"train": ["b 1", "a 1"]}, "animals")
    assert named["train"].name == "animals_train.txt" and named["trainval"].read_text() == "a 1\nb 1\n"


@pytest.mark.parametrize("name", [" outer", "outer ", "two\nlines", "two\u2028lines"])
def test_a_name_that_no_line_can_hold_is_refused(tmp_path, name):
    tree = folders(tmp_path)
    shown(tree, name, "cup")
    (fault,) = splits.look_at(tree, splits.annotated(tree))[1]
    assert fault.field == "file name" and fault.value == name


def counted(tmp_path: Path, **lists: list[str]) -> splits.ClassTable:
    """The table of a tree whose lists have one image for each text, which names its objects."""
    (tmp_path / "Annotations").mkdir()
    (tmp_path / trees.LISTS).mkdir(parents=True)
    for name, images in lists.items():
        ids = [f"{name}{number}" for number, _ in enumerate(images)]
        for image_id, names in zip(ids, images, strict=True):
            write(tmp_path / "Annotations" / f"{image_id}.xml", *(dog(name=one) for one in names.split(",") if one))
        (tmp_path / trees.LISTS / f"{name}.txt").write_text("\n".join(ids))
    return splits.count_classes([ImageSet(tmp_path, name) for name in lists])


def test_classes_are_counted_in_images_and_objects(tmp_path):
    table = counted(tmp_path, train=["van,van,car", "van", ""], val=["van", "car"])
    assert table.images == (3, 2) and table.remarks() == []
    assert table.showing == {"car": (1, 1), "van": (2, 1)} and table.objects == {"car": (1, 1), "van": (3, 1)}


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"train": ["a"], "val": ["a,b", "b"]}, ["'b' is in no image of train, but in 2 of val: it cannot be learned"]),
        ({"train": ["a"], "val": ["a"], "test": ["b"]}, ["'a' is in no image of test", "'b' is in no image of train"]),
        ({"train": ["a,b"], "val": ["a"], "test": ["a"]}, ["'b' is in no image of val and test"]),
        ({"train": ["Dog", "dog,dog"]}, ["'Dog' and 'dog' count as two classes: give them one name"]),
        ({"train": ["stop sign,stop sign", "Stop-sign"]}, ["'Stop-sign' and 'stop sign' count as two"]),
        ({"train": ["stop_sign,stop sign,stop sign"]}, ["'stop_sign' and 'stop sign' count as two"]),
        ({"train": ["c,c++,c#,type 1,type 11"]}, []),
    ],
)
def test_a_class_that_one_list_lacks_or_that_is_spelled_in_two_ways_is_said(tmp_path, lists, said):
    found = counted(tmp_path, **lists).remarks()
    assert len(found) == len(said) and all(start in one for start, one in zip(said, found, strict=True))
