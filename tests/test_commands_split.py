import shutil

import pytest
from own_pictures import folders, kitchen, shown

from course_lib import trees, voc
from course_lib.voc import ImageSet


@pytest.fixture
def tree(tmp_path):
    return kitchen(tmp_path / "my kitchen")


def lists_of(tree) -> dict[str, str]:
    return {path.name: path.read_text() for path in (tree / trees.LISTS).glob("*")}


def test_a_tree_of_ones_own_is_split_and_then_has_no_fault(call, tree):
    (tree / "JPEGImages/waiting.jpg").write_bytes(b"")
    for folder, ending in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        shutil.copy(tree / folder / f"Löffel-3{ending}", tree / folder / f"again{ending}")
    done = call("split", tree, "--seed", 3)
    assert done.returncode == 0 and done.stderr == ""
    assert sorted(lists_of(tree)) == ["test.txt", "train.txt", "trainval.txt", "val.txt"]
    ids = {name: ImageSet(tree, name).ids for name in ("train", "val", "test", "trainval")}
    assert {name: len(found) for name, found in ids.items()} == {"train": 17, "val": 5, "test": 2, "trainval": 22}
    assert sorted((*ids["train"], *ids["val"])) == list(ids["trainval"])
    for name in ("train", "val", "test"):
        assert voc.find_classes(tree, name) == ("Spoon", "cup")
        assert {"cup 0", "cup 0 (cut)"} <= set(ids[name]) or {"cup 0", "cup 0 (cut)"}.isdisjoint(ids[name])
    assert "copies of one picture, all in train: cup 0, cup 0 (cut)\n" in done.stdout
    assert "copies of one picture (the same file), all in train: Löffel-3, again\n" in done.stdout
    assert "1 of the pictures have no annotation and are in no list, such as waiting.jpg\n" in done.stdout
    assert f"{tree}/ImageSets/Main/val.txt: 5 pictures\n" in done.stdout
    assert call("check", tree).returncode == 0


def test_lists_are_not_written_over(call, tree):
    (tree / trees.LISTS).mkdir(parents=True)
    (tree / trees.LISTS / "val.txt").write_text("cup 1\n")
    done = call("split", tree)
    assert done.returncode == 2 and "Main has val.txt: " in done.stderr and lists_of(tree) == {"val.txt": "cup 1\n"}
    done = call("split", tree, "--name", "all", "--test", 0)
    assert done.returncode == 0
    assert sorted(lists_of(tree)) == ["all_train.txt", "all_trainval.txt", "all_val.txt", "val.txt"]
    assert call("split", tree, "--name", "all").returncode == 2


@pytest.mark.parametrize("options", [(), ("--only", "cup,Spoon")])
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("JPEGImages/cup 1.png", b"broken", "cup 1.png: image is 'not an image'"),
        ("JPEGImages/cup 1.png", None, "cup 1"),
        ("Annotations/cup 1.xml", b"<annotation>", "cup 1.xml: "),
        ("Annotations/cup 1.xml", b"", "cup 1.xml: "),
    ],
)
def test_what_is_broken_is_named_and_left_out(call, tree, file, content, said, options):
    if content is None:
        (tree / file).unlink()
    else:
        (tree / file).write_bytes(content)
    done = call("split", tree, *options)
    told = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert done.returncode == 0 and len(told) == 1 and said in told[0], done.stderr
    assert len(lists_of(tree)) == 4 and not any("cup 1\n" in content for content in lists_of(tree).values())
    assert call("check", tree, "--on", "trainval").returncode == 0


def from_0(tree):
    """Some boxes begin at 0, and none ends at its image's size: pixels that are counted from 0."""
    for path in sorted((tree / "Annotations").glob("*.xml"))[::3]:
        path.write_text(path.read_text().replace("<xmin>2<", "<xmin>0<"))


def nowhere(tree):
    (tree / "Annotations" / "corners.txt").write_text("from nowhere\n")


@pytest.mark.parametrize("spoil", [from_0, nowhere])
def test_a_tree_whose_corners_are_not_understood_gets_no_lists(call, tree, spoil):
    """Pictures without a 0 would be in the lists, and each of their boxes a pixel away."""
    spoil(tree)
    done = call("split", tree)
    told = done.stderr.splitlines()
    assert done.returncode == 1 and len(told) == 2 and "corners.txt" in told[0] and "no list" in told[1], done.stderr
    assert not (tree / trees.LISTS).exists()


def test_pictures_of_some_classes_or_of_a_list_alone_are_divided(call, tree):
    done = call("split", tree, "--only", "cup, Spoon", "--name", "both")
    assert (
        done.returncode == 0 and len(ImageSet(tree, "both_trainval").ids) + len(ImageSet(tree, "both_test").ids) == 23
    )
    assert call("split", tree, "--only", "cup", "--name", "cups", "--on", "both_trainval").returncode == 0
    cups = {*ImageSet(tree, "cups_trainval").ids, *ImageSet(tree, "cups_test").ids}
    assert cups == {one for one in ImageSet(tree, "both_trainval").ids if one.startswith("cup")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "cup,spoon"), "--only names 'spoon', which no object is: did you mean 'Spoon'?"),
        (("--only", "cup,"), "--only names '', which no object is"),
        (("--on", "train"), "--on is train, and "),
        (("--name", "a/b"), "--name is a/b: give the beginning of a file's name"),
        (("--val", 0.6, "--test", 0.4), "val is 0.6 and test is 0.4"),
        (("--val", 2), "'--val'"),
    ],
)
def test_wrong_use_is_said_and_nothing_is_written(call, tree, options, said):
    done = call("split", tree, *options)
    assert done.returncode == 2 and said in done.stderr and not (tree / trees.LISTS).exists()


def test_a_folder_that_is_no_tree_is_wrong_use(call, tmp_path):
    done = call("split", tmp_path)
    assert done.returncode == 2 and "give the folder that holds them" in done.stderr


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "Annotations: objects is 'none in 0 annotations': label what is to be found"),
        (((), ()), "Annotations: objects is 'none in 2 annotations': label what is to be found"),
        ((("cup",),), "pictures for val is 'none of 1': annotate more"),
    ],
)
def test_a_tree_with_nothing_to_divide_is_refused_and_the_cure_is_to_label(call, tmp_path, names, said):
    """A tree of no annotations was to have "a larger share", and one of no objects lists that nothing learns from."""
    tree = folders(tmp_path / "begun")
    for number, objects in enumerate(names):
        shown(tree, f"{number}", *objects)
    done = call("split", tree)
    assert done.returncode == 1 and said in done.stderr and not (tree / trees.LISTS).exists(), done.stderr


@pytest.mark.parametrize(("alike", "code"), [(64, 1), (0, 0)])
def test_pictures_of_a_camera_that_stands_still_are_no_lists_unless_they_may_be_parted(call, tmp_path, alike, code):
    """They all look alike, so all would go into one list."""
    tree = folders(tmp_path / "still")
    for number in range(9):
        shown(tree, f"{number}", "cup", seed=5, share=number * 0.004)
    done = call("split", tree, "--alike", alike)
    assert done.returncode == code, done.stderr
    assert ("--alike 0" in done.stderr) == bool(code) and (tree / trees.LISTS).exists() != bool(code)
