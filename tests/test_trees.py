import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from PIL import Image
from xml_files import dog, with_list, write

from course_lib import trees, voc
from course_lib.files import DataError
from course_lib.voc import ImageSet


def test_a_report_names_every_fault_of_a_tree(tree):
    root = tree / "VOC2007"
    write(root / "Annotations/000002.xml", dog(xmin=50), dog(ymin=50))
    (root / "Annotations/000003.xml").write_text("<annotation>")
    (root / "ImageSets/Main/test.txt").write_text("000001\n000002\n000003\n000004\n")
    report = list(trees.check_tree(ImageSet(tree / "VOC2007", "test")))
    assert [(p.path.name, p.field) for p in report] == [
        ("000002.xml", "object[0]/bndbox"),
        ("000002.xml", "object[1]/bndbox"),
        ("000002.jpg", "image"),
        ("000003.xml", "XML"),
        ("000004.xml", "file"),
    ]
    assert len(list(trees.check_tree(ImageSet(tree / "VOC2007", "test"), annotations_only=True))) == 4


@pytest.mark.parametrize(
    ("names", "classes", "faults"),
    [
        (("dog", "Dog", "dgo", "unicorn", "dgo"), voc.VOC_CLASSES, ["Dog", "dgo", "unicorn"]),
        (("dog", "person", "cat"), ("person",), []),  # a choice among VOC's names
        (("dog", "persn"), ("person",), ["persn"]),
        (("dog", "van"), ("car", "van"), ["dog"]),  # a tree with names of its own
        (("Car", "car"), ("Car",), ["car"]),
        (("Car", "van"), ("Car", "van"), []),
    ],
)
def test_a_name_that_no_object_of_the_tree_may_have_is_a_fault(tree, names, classes, faults):
    with_list(tree, "000001\n")
    write(tree / "VOC2007/Annotations/000001.xml", *(dog(name=name) for name in names))
    report = list(trees.check_tree(ImageSet(tree / "VOC2007", "test", classes)))
    assert [(p.path.name, p.field, p.value) for p in report] == [("000001.xml", "object/name", name) for name in faults]
    assert all("did you mean" in p.cure for p in report if p.value in ("Dog", "dgo", "persn", "car"))


def test_a_report_of_a_tree_as_people_bring_it_raises_nothing(tree):
    root = tree / "VOC2007"
    ids = ["large", "two", "bmp", "grey", "exif", "folder", "size", "utf16", "empty", "fractions", "zero", "XML", "a b"]
    with_list(tree, "\n".join(ids), *ids)
    picture = Image.new("RGB", (100, 80))
    for image_id in ids:
        picture.save(root / f"JPEGImages/{image_id}.jpg")
    Image.new("1", (20_000, 10_000)).save(root / "JPEGImages/large.png")
    (root / "JPEGImages/large.jpg").unlink()
    picture.save(root / "JPEGImages/two.PNG")
    (root / "JPEGImages/bmp.jpg").rename(root / "JPEGImages/bmp.bmp")
    (root / "JPEGImages/grey.jpg").unlink()
    Image.new("I;16", (100, 80), 999).save(root / "JPEGImages/grey.png")
    (root / "JPEGImages/folder.jpg").unlink()
    (root / "JPEGImages/folder.jpg").mkdir()
    picture.save(root / "JPEGImages/exif.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0nonsense")
    write(root / "Annotations/size.xml", dog(), width=80, height=100)
    (root / "Annotations/utf16.xml").write_bytes("<?xml version='1.0' encoding='utf-8'?><annotation/>".encode("utf-16"))
    (root / "Annotations/empty.xml").write_bytes(b"")
    write(root / "Annotations/fractions.xml", dog(xmin=0.1, ymin=0.1, xmax=0.5, ymax=0.5))
    write(root / "Annotations/zero.xml", dog(xmin=0))
    (root / "Annotations/XML.xml").rename(root / "Annotations/XML.XML")
    report = {p.path.name: (p.field, p.cure) for p in trees.check_tree(ImageSet(tree / "VOC2007", "test"))}
    expected = {
        "large.png": ("image size", "shrink it"),
        "two.jpg": ("image", "one file"),
        "bmp.jpg": ("image", "save it as .jpg"),
        "folder.jpg": ("image", "restore"),
        "size.jpg": ("image size", "exchange width and height in <size>"),
        "utf16.xml": ("encoding", "UTF-8"),
        "empty.xml": ("XML", "restore"),
        "fractions.xml": ("object[0]/bndbox", "multiply"),
        "zero.xml": ("object[0]/bndbox", "add 1"),
        "XML.xml": ("file", "call it XML.xml"),
    }
    assert report.keys() == expected.keys()
    for name, (field, cure) in expected.items():
        assert report[name][0] == field and cure in report[name][1], name


def test_voc2007_has_no_faults(voc_annotations, voc_real):
    for name in ("trainval", "test"):
        for classes in (voc.VOC_CLASSES, ("person",)):
            image_set = ImageSet(voc_annotations / "VOC2007", name, classes)
            assert list(trees.check_tree(image_set, annotations_only=True)) == []
    assert list(trees.check_tree(voc_real / "VOCdevkit" / "VOC2007")) == []


def test_a_whole_tree_is_checked_with_all_of_its_lists_and_the_names_that_are_found(small_devkit):
    """EmojiVOC has VOC's 84 lists; a small set has not every class, and such a class list is no fault."""
    tree = small_devkit / "VOC2007"
    found = trees.overview(tree)
    assert found.ids == ImageSet(tree, "trainval").ids + ImageSet(tree, "test").ids
    assert len(trees.list_names(tree)) == 84 and set(found.known) <= set(voc.VOC_CLASSES)
    annotations = [a for name in ("trainval", "test") for a in ImageSet(tree, name).annotations()]
    assert found.objects.total() == sum(len(a.labels) for a in annotations)
    assert list(trees.check_tree(tree)) == []
    nowhere = next(name for name in trees.list_names(tree) if name.endswith("_val") and not present(tree, name))
    (fault,) = trees.check_tree(ImageSet(tree, nowhere), annotations_only=True)  # asked for by name, it is one
    assert fault.path.stem == nowhere and "no image has this class" in fault.cure


def present(tree, name: str) -> bool:
    return any(not row.endswith("-1") for row in (tree / f"ImageSets/Main/{name}.txt").read_text().splitlines())


def own_tree(tmp_path, **names: tuple[str, ...]):
    """A tree with an annotation for each id, whose objects have those names, and no image."""
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for image_id, objects in names.items():
        boxes = (dog(name=name, xmax=30 + number) for number, name in enumerate(objects))
        write(tmp_path / f"Annotations/{image_id}.xml", *boxes)
    (tmp_path / "ImageSets/Main/train.txt").write_text("\n".join(names))
    return tmp_path


@pytest.mark.parametrize(
    ("names", "known", "faults"),
    [
        (("van", "van", "car"), ("car", "van"), []),
        (("Van", "van", "van"), ("van",), ["Van"]),
        (("stop sign", "stop_sign", "Stop-Sign", "stop sign"), ("stop sign",), ["Stop-Sign", "stop_sign"]),
        (("c", "c++", "c#", "type 1", "type 11"), ("c", "c#", "c++", "type 1", "type 11"), []),
        (("b", "B"), ("B",), ["b"]),  # neither is commoner
    ],
)
def test_in_a_tree_of_ones_own_a_second_spelling_of_a_name_is_the_fault(tmp_path, names, known, faults):
    tree = own_tree(tmp_path, a=names)
    assert trees.overview(tree).known == known
    found = list(trees.check_tree(tree, annotations_only=True))
    assert sorted(fault.value for fault in found) == faults
    assert all(f"did you mean {known[0]!r}?" in fault.cure for fault in found)


def test_a_list_that_cannot_be_used_hides_no_other_fault(tmp_path):
    tree = own_tree(tmp_path, a=("van",), b=("van",))
    write(tree / "Annotations/b.xml", dog(name="van", xmin=50))
    (tree / "ImageSets/Main/train.txt").write_text("a\na\n")
    (tree / "ImageSets/Main/val.txt").write_text("a\nc\n")
    found = [(fault.path.name, fault.field) for fault in trees.check_tree(tree, annotations_only=True)]
    assert found == [("train.txt", "lines 1 and 2"), ("b.xml", "object[0]/bndbox"), ("c.xml", "file")]
    assert [fault.path.name for fault in trees.check_tree(trees.overview(tree, "val"), True)] == ["c.xml"]


def test_without_lists_and_images_each_is_one_fault_and_the_annotations_are_checked(tmp_path):
    tree = own_tree(tmp_path, a=("van",), b=("van",))
    (tree / "ImageSets/Main/train.txt").unlink()
    write(tree / "Annotations/b.xml", dog(name="van", ymin=50))
    found = [(fault.path.name, fault.field, fault.value) for fault in trees.check_tree(tree)]
    assert [one[:2] for one in found] == [("Main", "lists"), ("JPEGImages", "folder"), ("b.xml", "object[0]/bndbox")]


def test_the_folder_to_give_is_named(small_devkit, tmp_path):
    tree = small_devkit / "VOC2007"
    assert trees.require_tree(tree) == tree == trees.require_tree(str(tree))
    for given, cure in (
        (small_devkit, f"give one of them: {tree}"),
        (tree / "JPEGImages", f"give the tree: {tree}"),
        (tree / "ImageSets" / "Main", f"give the tree: {tree}"),
        (tmp_path, "give the folder that holds them"),
        (tmp_path / "none", "give the folder that holds Annotations"),
        (tree / "ImageSets" / "Main" / "test.txt", "give the folder that holds Annotations"),
    ):
        with pytest.raises(DataError, match=re.escape(cure)) as error:
            list(trees.check_tree(given))
        assert error.value.path == given
    assert trees.require_tree(own_tree(tmp_path / "no images")) == tmp_path / "no images"


@pytest.fixture
def two_lists(tree):
    """Image sets `test` and `val` of one tree, with two images each of 100 x 80 pixels."""
    root = tree / "VOC2007"
    for image_id in ("000002", "000003", "000004"):
        write(root / f"Annotations/{image_id}.xml", dog())
        Image.new("RGB", (100, 80)).save(root / f"JPEGImages/{image_id}.jpg")
    (root / "ImageSets/Main/test.txt").write_text("000001\n000002\n")
    (root / "ImageSets/Main/val.txt").write_text("000003\n000004\n")
    return ImageSet(root, "test"), ImageSet(root, "val")


def test_all_that_would_end_a_training_is_found_before_it(two_lists):
    """A list, annotations of both sets, and images by their headers."""
    root = two_lists[0].tree
    assert list(trees.check_sets(two_lists)) == []
    write(root / "Annotations/000001.xml", dog(xmin=50), dog(name="unicorn", ymin=99), dog(ymin=50))
    (root / "JPEGImages/000002.jpg").unlink()
    Image.new("RGB", (80, 100)).save(root / "JPEGImages/000003.jpg")
    (root / "JPEGImages/000004.jpg").write_text("no picture")
    found = [(fault.path.name, fault.field) for fault in trees.check_sets((*two_lists, ImageSet(root, "none")))]
    assert found == [
        ("none.txt", "image set"),
        ("000001.xml", "object[0]/bndbox"),
        ("000001.xml", "object[2]/bndbox"),
        ("000002.jpg", "image"),
        ("000003.jpg", "image size"),
        ("000004.jpg", "image"),
    ]


@pytest.mark.parametrize(("objects", "most", "fault"), [(40, 39, True), (40, 40, False), (40, None, False)])
def test_an_image_with_more_objects_than_can_be_matched_is_found_before_training(two_lists, objects, most, fault):
    """One with 40,000 was killed for memory without a word."""
    path = write(two_lists[1].tree / "Annotations/000004.xml", *(dog(xmin=1 + n % 20) for n in range(objects)))
    found = list(trees.check_sets(two_lists, most))
    assert [(one.path, one.field, one.value) for one in found] == ([(path, "objects", objects)] if fault else [])
    assert all("cut the picture" in one.cure and "39" in one.cure for one in found)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("000001 000002", "000003 000004", None),
        ("000001 000002", "000002", "1 image that val.txt has too (000002)"),
        ("000001 000002 000003", "000003 000001", "2 images that val.txt has too (000001, 000003)"),
    ],
)
def test_images_that_train_and_val_share_are_found(two_lists, train, val, said):
    lists = two_lists[0].tree / "ImageSets/Main"
    for name, ids in (("test", train), ("val", val)):
        (lists / f"{name}.txt").write_text(ids.replace(" ", "\n"))
    sets = [ImageSet(one.tree, one.name) for one in two_lists]
    found = list(trees.shared_images(sets[:1], sets[1:]))
    assert [(one.path, one.value) for one in found] == ([(lists / "test.txt", said)] if said else [])


def test_images_of_one_name_in_two_trees_are_two_images_and_a_link_is_no_other_tree(two_lists, tmp_path):
    other = tmp_path / "other"
    (other / "ImageSets/Main").mkdir(parents=True)
    (other / "ImageSets/Main/val.txt").write_text("000001\n")
    assert list(trees.shared_images(two_lists[:1], [ImageSet(other, "val")])) == []
    (tmp_path / "link").symlink_to(two_lists[0].tree)
    assert len(list(trees.shared_images(two_lists[:1], [ImageSet(tmp_path / "link", "test")]))) == 1


def counted_from_0(tree, shift: tuple[int, int, int, int] = (1, 1, 1, 1)) -> None:
    """Write the corners of a tree as another program would."""
    for path in (tree / "Annotations").glob("*.xml"):
        root = ElementTree.parse(path)
        for box in root.iter("bndbox"):
            for tag, less in zip(("xmin", "ymin", "xmax", "ymax"), shift, strict=True):
                box.find(tag).text = str(int(box.findtext(tag)) - less)
        root.write(path)


@pytest.mark.parametrize(
    ("shift", "reading"), [((1, 1, 1, 1), "pixels from 0"), ((1, 1, 0, 0), "edges"), ((0, 0, 0, 0), "pixels from 1")]
)
def test_a_tree_that_counts_pixels_from_0_is_recognised_as_a_whole(small_devkit, tmp_path, shift, reading):
    """Each box at the border was refused with "clip it" or "add 1", and nothing read the tree."""
    tree = tmp_path / "tree"
    shutil.copytree(small_devkit / "VOC2007", tree)
    before = [a.boxes_px for a in ImageSet(tree, "trainval").annotations()]
    counted_from_0(tree, shift)
    assert trees.recognised(tree / "Annotations") == reading
    found = list(trees.check_tree(tree, annotations_only=True))
    if reading != "pixels from 1":
        (fault,) = found
        assert fault.path == tree / "Annotations" and fault.field == "corners"
        assert fault.cure.endswith(f"write the line {reading} into {tree / 'Annotations/corners.txt'}, and all of "
                                   "them are read so")  # fmt: skip
        (one,) = trees.check_sets([ImageSet(tree, "train"), ImageSet(tree, "val")])
        assert (one.path, one.field) == (fault.path, fault.field)
        (tree / "Annotations/corners.txt").write_text(f"{reading}\n")
    assert list(trees.check_tree(tree, annotations_only=True)) == []
    after = [a.boxes_px for a in ImageSet(tree, "trainval").annotations()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("boxes", "reading"),
    [
        ([(1, 1, 100, 80), (5, 5, 20, 20)], "pixels from 1"),
        ([(0, 0, 99, 79)], "pixels from 0"),
        ([(0, 5, 50, 60)], "pixels from 0"),
        ([(0, 0, 100, 80)], "edges"),
        ([(0.25, 5, 50, 60)], "edges"),
        ([(0, 5, 50, 60), (1, 1, 100, 80)], "pixels from 1"),  # one slip
        ([(0.1, 0.0, 0.5, 0.9)], "pixels from 1"),  # fractions are neither
        ([(0, 0, 500, 20)], "pixels from 1"),  # nor is a box of another image
        ([], "pixels from 1"),
    ],
)
def test_what_the_corners_of_a_tree_seem_to_be(tmp_path, boxes, reading):
    objects = [dog(**dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))) for box in boxes]
    write(tmp_path / "a.xml", *objects)
    (tmp_path / "b.xml").write_text("<annotation>")
    assert trees.recognised(tmp_path) == reading


@pytest.mark.parametrize(
    ("objects", "doubles"),
    [
        ([{}, {}], ["2 times van"]),
        ([{}, {"difficult": 1}, {"truncated": 1}], ["3 times van"]),
        ([{}, {"xmax": 31}], []),
        ([{}, {"name": "car"}], []),
        ([{}, {"name": "car"}, {"name": "car"}, {}, {"xmin": 3}], ["2 times van", "2 times car"]),
    ],
)
def test_an_object_that_is_listed_twice_is_a_fault(tmp_path, objects, doubles):
    tree = own_tree(tmp_path, a=("van",))
    path = write(tree / "Annotations/a.xml", *(dog(**{"name": "van"} | one) for one in objects))
    found = list(trees.check_tree(tree, annotations_only=True))
    assert [(fault.path, fault.field) for fault in found] == [(path, "objects")] * len(doubles)
    assert all(fault.value.startswith(said) for fault, said in zip(found, doubles, strict=True))
