import pickle
import re
import shutil
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from xml_files import dog, with_list, write

from course_lib import voc
from course_lib.files import DataError
from course_lib.images import read_image
from course_lib.voc import Annotation, ImageSet, VOCDetection, read_annotation


def test_voc_gives_the_path_of_the_image_that_is_there(tmp_path):
    folder = tmp_path / "VOC2007" / "JPEGImages"
    folder.mkdir(parents=True)
    (folder / "a.1 x.PNG").touch()
    assert voc.image_path(tmp_path, "2007", "a.1 x") == folder / "a.1 x.PNG" and voc.read_image is read_image


def test_broken_missing_and_other_images_are_named(tree):
    path = tree / "VOC2007/JPEGImages/000001.jpg"
    whole = path.read_bytes()
    for content, reason in ((whole[: len(whole) // 2], "(?i)truncated"), (b"not a picture", "not an image")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason) as error:
            VOCDetection(tree, "2007", "test")[0]
        assert error.value.path == path
    Image.new("RGB", (99, 80)).save(path)
    with pytest.raises(DataError, match=r"\(99, 80\).*annotation says \(100, 80\)"):
        VOCDetection(tree, "2007", "test")[0]
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        VOCDetection(tree, "2007", "test")[0]


def test_lists_that_are_missing_empty_or_lead_elsewhere_are_named(tree):
    with pytest.raises(DataError, match=r"is .* the folder that holds VOC2007"):
        VOCDetection(tree, "2007", "val")
    path = tree / "VOC2007/ImageSets/Main/test.txt"
    for content, reason in (("\n\n", "empty"), ("../../etc/passwd\n", "without folder")):
        path.write_text(content)
        with pytest.raises(DataError, match=reason):
            VOCDetection(tree, "2007", "test")


def test_years_and_sets_together_keep_their_order(tree, small_devkit):
    both = VOCDetection(small_devkit, "2007", ["test", "val"])
    test, val = VOCDetection(small_devkit, "2007", "test"), VOCDetection(small_devkit, "2007", "val")
    assert both.items == test.items + val.items and len(both) == len(test) + len(val)
    (tree / "VOC2007").rename(tree / "VOC2012")
    assert VOCDetection(tree, ["2012", "2012"], "test").items == [(tree / "VOC2012", "000001")] * 2
    with pytest.raises(ValueError, match="argument"):
        VOCDetection(tree, ["2012", "2012"], ["test", "test", "test"])


def test_difficult_objects_can_be_left_out(tree):
    write(tree / "VOC2007/Annotations/000001.xml", dog(), dog(name="cat", difficult=1))
    assert len(VOCDetection(tree, "2007", "test")[0][1].labels) == 2
    image, target = VOCDetection(tree, "2007", "test", keep_difficult=False)[0]
    assert target.labels.tolist() == [12] and image.shape == (80, 100, 3)


def test_objects_of_unknown_classes_are_warned_about(tree):
    write(tree / "VOC2007/Annotations/000001.xml", dog(name="unicorn"))
    with pytest.warns(UserWarning, match="unicorn"):
        assert len(VOCDetection(tree, "2007", "test")[0][1].labels) == 0


@pytest.mark.slow
def test_a_survey_counts_every_object_once(small_devkit):
    annotations = voc.read_annotations(small_devkit, "2007", "trainval")
    counts = voc.survey(annotations)
    objects = sum(len(a.labels) for a in annotations)
    assert counts["images"] == 40 == sum(counts["per_image"])
    assert objects == counts["objects"] == sum(counts["classes"].values())
    assert objects == sum(counts["side"]) == sum(counts["aspect"])
    assert sum(n * images for n, images in enumerate(counts["per_image"])) == objects
    people = sum(int((a.labels == voc.VOC_CLASSES.index("person") + 1).sum()) for a in annotations)
    assert counts["classes"]["person"] == people


def test_all_of_voc2007_has_the_published_numbers(voc_annotations):
    """5011 and 4952 images; objects, and those not difficult, as counted by others: see book/references.bib."""
    for image_set, images, objects, counted in (("trainval", 5011, 15662, 12608), ("test", 4952, 14976, 12032)):
        ids = voc.read_image_set(voc_annotations, "2007", image_set)
        found: list[Annotation] = [read_annotation(voc.annotation_path(voc_annotations, "2007", i)) for i in ids]
        assert len(ids) == images
        assert sum(len(a.labels) for a in found) == objects
        assert sum(int((~a.difficult).sum()) for a in found) == counted


@pytest.mark.slow
def test_the_real_images_load_and_draw(voc_real, tmp_path):
    from course_lib import viz

    for image_set, images, objects in (("trainval", 172, 458), ("test", 102, 291)):
        dataset = VOCDetection(voc_real / "VOCdevkit", "2007", image_set)
        targets = [dataset[index][1] for index in range(len(dataset))]
        assert len(targets) == images and sum(len(t.labels) for t in targets) == objects
        figure, axes = viz.grid(3, 2)
        for index, one in enumerate(axes):
            viz.draw_target(one, *dataset[index])
        figure.savefig(tmp_path / f"{image_set}.png")


@pytest.mark.parametrize(
    ("content", "annotated", "ids"),
    [
        ("car\ncar (2)\ncar (3)\n", ["car", "car (2)", "car (3)"], ["car", "car (2)", "car (3)"]),
        ("car\ncar (2)\n", ["car"], ["car", "car (2)"]),  # one is missing, and is to be named by its whole name
        ("car 1\ncar 0\n", ["car 1", "car 0"], ["car 1", "car 0"]),
        ("car 1\n", ["car 1"], ["car 1"]),
        ("car 1\n", ["car 1", "car"], ["car 1"]),
        ("car 1\ncar 0\ncar -1\n", ["car 0"], ["car 1", "car 0", "car -1"]),
        ("car 1\ncar 0\n", [], ["car 1", "car 0"]),  # in a class list no image stands twice
        ("shot 12\nshot 13\n", ["shot 12", "shot 13"], ["shot 12", "shot 13"]),
        ("a  b\n", ["a  b"], ["a  b"]),
        ("a.b\n1.5 m\n", ["a.b", "1.5 m"], ["a.b", "1.5 m"]),
        ("\n  a1  \r\n\r\n\tb1\r\n", ["a1", "b1"], ["a1", "b1"]),
        ("a1\rb1\r", ["a1", "b1"], ["a1", "b1"]),
        (b"\xef\xbb\xbfa1\nb1\n", ["a1", "b1"], ["a1", "b1"]),
        (b"\xef\xbb\xbfa1\n\xef\xbb\xbfb1\n", ["a1", "b1"], ["a1", "b1"]),
        ("é\n犬 1\n", ["é", "犬 1"], ["é", "犬 1"]),
        ("a1.jpg\n", ["a1.jpg"], ["a1.jpg"]),  # Annotations/a1.jpg.xml
    ],
)
def test_an_id_is_the_whole_line(tree, content, annotated, ids):
    with_list(tree, content, *annotated)
    assert voc.read_image_set(tree, "2007", "test") == ids


@pytest.mark.parametrize(
    ("content", "annotated", "ids"),
    [
        ("000001 -1\n000002  1\n000003  0\n", ["000001", "000002", "000003"], ["000002", "000003"]),
        ("000001 -1\r\n\r\n000002\t1\r\n", ["000001", "000002"], ["000002"]),
        ("000002  1\n", ["000002"], ["000002"]),
        ("000002  1\n000004 -1\n", [], ["000002"]),  # nothing is there to look at
        ("car (2) 1\ncar (3) -1\n", ["car (2)", "car (3)"], ["car (2)"]),
        ("car 1 1\ncar 2 -1\n", ["car 1", "car 2"], ["car 1"]),
    ],
)
def test_a_class_list_gives_the_images_of_the_class(tree, content, annotated, ids):
    with_list(tree, content, *annotated)
    assert voc.read_image_set(tree, "2007", "test") == ids


@pytest.mark.parametrize(
    ("content", "annotated", "line"),
    [
        ("2010_1  1  1\n2010_2  2 -1\n", ["2010_1", "2010_2"], "line 1"),  # VOC2012's actions: image, object, label
        ("2010_1  1  1\n2010_2  2 -1\n", [], "line 1"),
        ("2007_1 1\n2007_2 2\n", ["2007_1", "2007_2"], "line 1"),  # its layouts: image, object
        ("2007_1 1\n2007_1 2\n2007_2 1\n", ["2007_1", "2007_2"], "line 1"),
        ("a1\nb1 1\n", ["a1", "b1"], "line 2"),
        ("a1 12 13 14 15\n", ["a1"], "line 1"),
        ("a1 1\na1 -1\n", ["a1"], "line 1"),
    ],
)
def test_a_list_with_other_columns_is_refused_not_read_as_other_ids(tree, content, annotated, line):
    path = with_list(tree, content, *annotated)
    with pytest.raises(DataError, match="write one image id per line") as error:
        voc.read_image_set(tree, "2007", "test")
    assert error.value.path == path and error.value.field == line


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        ("a1\nb1\n".encode("utf-16"), "encoding", "UTF-16 .*save the list as UTF-8"),
        ("a1\nb1\n".encode("utf-16-le"), "encoding", "UTF-16 .*save the list as UTF-8"),
        ("a1\nb1\n".encode("utf-32"), "encoding", "UTF-16 .*save the list as UTF-8"),
        ("a1\nbär\n".encode("latin-1"), "encoding", "not UTF-8: line 2 has the byte 0xe4': save the list as UTF-8"),
        ("图像标注\n".encode("gbk"), "encoding", "save the list as UTF-8"),
        ("a1\nb1\na1\n", "lines 1 and 3", "'a1': take one of the two away"),
        ("a1\n\na1  \n", "lines 1 and 3", "'a1': take one of the two away"),
        ("a1 1\nb1 -1\na1 1\n", "lines 1 and 3", "'a1': take one of the two away"),
        ("a1 -1\nb1 -1\n", "image set", "no image has this class"),
        ("b1\na1.jpg\n", "line 2", "'a1.jpg': write the name without folder and ending: a1$"),
        ("a1.JPEG\n", "line 1", "ending: a1$"),
        ("a1.png\n", "line 1", "ending: a1$"),
        ("a1.xml\n", "line 1", "ending: a1$"),
        ("a1.v2.bmp\n", "line 1", "ending: a1.v2$"),
        ("C:\\x\\a1\n", "line 1", "ending: a1$"),
        ("C:\\x\\a1.jpg\n", "line 1", "ending: a1$"),
        ("x/a1\n", "line 1", "ending: a1$"),
        ("/data/VOC2007/JPEGImages/a1.jpg\n", "line 1", "ending: a1$"),
        ("./a1\n", "line 1", "ending: a1$"),
        ("../../a1\n", "line 1", "ending: a1$"),
        ("..\n", "line 1", "without folder and ending$"),
        ("x/..\n", "line 1", "without folder and ending$"),
        (".\n", "line 1", "without folder and ending$"),
        ("x/\n", "line 1", "without folder and ending$"),
        ("a1.jpg 1\nb1.jpg -1\n", "line 1", "ending: a1$"),
    ],
)
def test_a_list_that_cannot_be_used_gets_a_cure_that_fits(tree, content, field, reason):
    path = with_list(tree, content, "b1", "a1")
    with pytest.raises(DataError, match=reason) as error:
        voc.read_image_set(tree, "2007", "test")
    assert error.value.path == path and error.value.field == field


@pytest.mark.parametrize("make", [VOCDetection, voc.read_annotations, lambda *a, classes: voc.image_sets(*a, classes)])
@pytest.mark.parametrize("classes", ["person", ("dog", "dog"), ("dog", "")])
def test_classes_that_are_no_names_are_refused_by_all_who_take_them(tree, make, classes):
    with pytest.raises(ValueError, match="classes"):
        make(tree, "2007", "test", classes=classes)


def test_all_annotations_are_read_before_an_image_and_unknown_names_are_warned_of_once(tree):
    with_list(tree, "a1\nb1\nc1\n", "a1", "b1", "c1")
    for image_id in ("b1", "c1"):
        write(tree / f"VOC2007/Annotations/{image_id}.xml", dog(), dog(name="dgo"), dog(name="dgo"))
    dataset = VOCDetection(tree, "2007", "test")  # there are no images
    for read in (dataset.annotations, lambda: voc.read_annotations(tree, "2007", "test")):
        with pytest.warns(voc.LeftOut, match="did you mean 'dog'") as caught:
            found = read()
        assert [a.image_id for a in found] == ["a1", "b1", "c1"] and [len(a.labels) for a in found] == [1, 1, 1]
        assert len(caught) == 1 and "b1.xml" in str(caught[0].message) and "4 objects" in str(caught[0].message)
    assert len(dataset.annotation(1).labels) == 1  # said once, not once more for every image
    (tree / "VOC2007/Annotations/b1.xml").unlink()
    with pytest.raises(DataError, match=r"b1\.xml"):
        dataset.annotations()


def test_images_that_are_loaded_one_by_one_warn_of_a_name_once(tree):
    with_list(tree, "a1\nb1\n", "a1", "b1")
    for image_id in ("a1", "b1"):
        write(tree / f"VOC2007/Annotations/{image_id}.xml", dog(name="Dog"))
    dataset = VOCDetection(tree, "2007", "test")
    with pytest.warns(voc.LeftOut, match="a1.*did you mean 'dog'"):
        dataset.annotation(0)
    assert dataset.annotation(1).unknown == ("Dog",)


def test_a_survey_counts_the_classes_that_the_annotations_were_read_with(tree):
    write(tree / "VOC2007/Annotations/000001.xml", dog(name="van"), dog(name="van"), dog(name="car"))
    annotations = voc.read_annotations(tree, "2007", "test", ("bike", "car", "van"))
    assert voc.survey(annotations, ("bike", "car", "van"))["classes"] == {"bike": 0, "car": 1, "van": 2}
    with pytest.raises(ValueError, match="classes"):
        voc.survey(annotations, "van")


def test_vocs_class_lists_name_the_images_with_an_object_of_the_class(voc_annotations):
    found = {name: set() for name in voc.VOC_CLASSES}
    for annotation in voc.read_annotations(voc_annotations, "2007", "test"):
        for label in annotation.labels.tolist():
            found[voc.VOC_CLASSES[label - 1]].add(annotation.image_id)
    for name, ids in found.items():
        assert set(voc.read_image_set(voc_annotations, "2007", f"{name}_test")) == ids, name


def own(tree: Path, name: str = "test", classes: tuple[str, ...] = ("car", "van")) -> ImageSet:
    """An image set of the tree with names of its own; the tree is called as its owner likes."""
    (tree / "VOC2007").rename(tree / "my cars")
    return ImageSet(tree / "my cars", name, classes)


def test_an_image_set_gives_what_lies_in_its_tree(tree):
    with_list(tree, "a b\n000001\n", "a b")
    write(tree / "VOC2007/Annotations/a b.xml", dog(name="van"), dog(name="car"))
    Image.new("RGB", (100, 80), (9, 9, 9)).save(tree / "VOC2007/JPEGImages/a b.PNG")
    image_set = own(tree)
    assert image_set.ids == ("a b", "000001") and image_set.classes == ("car", "van") and len(image_set) == 2
    assert image_set.annotation(0).labels.tolist() == [2, 1] and image_set.image(0).mean() == 9
    with pytest.warns(voc.LeftOut, match="dog"):
        assert [len(one.labels) for one in image_set.annotations()] == [2, 0]
    assert voc.find_classes(tree / "my cars", "test") == ("car", "dog", "van")
    with pytest.raises(DataError, match=r"is .*my cars the folder that holds Annotations, JPEGImages and ImageSets"):
        len(ImageSet(tree / "my cars", "train"))


def test_an_image_set_is_a_value_and_reads_its_list_once(tree):
    image_set = own(tree)
    assert image_set == ImageSet(str(image_set.tree), "test", ["car", "van"])
    assert len({image_set, replace(image_set), replace(image_set, classes=("van", "car"))}) == 2
    assert image_set.ids == ("000001",)
    (image_set.tree / "ImageSets/Main/test.txt").unlink()
    assert image_set.ids == ("000001",) and pickle.loads(pickle.dumps(image_set)).ids == ("000001",)
    with pytest.raises(FrozenInstanceError):
        image_set.name = "train"


def test_a_data_set_of_image_sets_is_one_after_the_other_and_knows_images_by_tree_and_id(tree, small_devkit):
    shutil.copytree(tree / "VOC2007", tree / "copy")
    image_sets = [ImageSet(tree / name, "test") for name in ("copy", "VOC2007")]
    dataset = voc.ImageDataset(image_sets, keep_difficult=False)
    assert dataset.items == [(tree / "copy", "000001"), (tree / "VOC2007", "000001")]
    assert [one.path.parents[1].name for one in dataset.annotations()] == ["copy", "VOC2007"]
    for (image, target), (same, other) in zip(dataset, VOCDetection(tree, "2007", ["test", "test"]), strict=True):
        assert (image == same).all() and torch.equal(target.boxes, other.boxes)


def test_image_sets_whose_labels_mean_different_things_make_no_data_set(tree):
    one, other = (ImageSet(tree / "VOC2007", "test", names) for names in (("dog", "cat"), ("cat", "dog")))
    with pytest.raises(ValueError, match=r"\('dog', 'cat'\).*\('cat', 'dog'\).*in the same order"):
        voc.ImageDataset([one, other])
    with pytest.raises(ValueError, match="no image set"):
        voc.ImageDataset([])


def test_classes_are_not_found_in_annotations_that_cannot_be_read(tree):
    with_list(tree, "a1\nb1\n", "a1", "b1")
    write(tree / "VOC2007/Annotations/b1.xml", dog(name=" "))
    with pytest.raises(DataError, match=r"b1\.xml: object\[0\]/name"):
        voc.find_classes(tree / "VOC2007", "test")
    write(tree / "VOC2007/Annotations/b1.xml", dog(name="van", xmin=50))  # a broken box is no reason
    assert voc.find_classes(tree / "VOC2007", "test") == ("dog", "van")


@pytest.mark.parametrize(
    ("objects", "keep_difficult", "said"),
    [
        ((dog(),), True, None),
        ((dog(name="van"), dog()), True, None),
        ((dog(difficult=1),), True, None),
        ((dog(difficult=1),), False, "annotate what is to be found"),
        ((), True, "annotate what is to be found"),
        ((dog(name="screw"), dog(name="big nut")), True, "its objects are called big nut, screw: give these names as"),
    ],
)
def test_a_data_set_without_a_single_object_is_refused(tree, objects, keep_difficult, said):
    """Classes that were forgotten on one's own tree trained to the end at a loss of 0, after one warning.

    And to look for an object warned of each other name as if it were in that one file alone.
    """
    path = with_list(tree, "000001\n000002\n", "000002")
    write(tree / "VOC2007/Annotations/000001.xml")
    write(tree / "VOC2007/Annotations/000002.xml", *objects)
    dataset = voc.ImageDataset([ImageSet(tree / "VOC2007", "test")], keep_difficult=keep_difficult)
    if said is None:
        assert voc.require_objects(dataset) is None
    else:
        with pytest.raises(DataError, match=re.escape(said)) as error:
            voc.require_objects(dataset)
        assert error.value.path == path and error.value.value == "none of the 20 classes in 2 images"
