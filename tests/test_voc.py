import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import voc
from course_lib.files import DataError
from course_lib.voc import Annotation, VOCDetection, collate, read_annotation, read_image

OBJECT = """<object><name>{name}</name><truncated>{truncated}</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"""
DOG = {"name": "dog", "truncated": 0, "difficult": 0, "xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}


def write(path: Path, *objects: str, width: object = 100, height: object = 80) -> Path:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    path.write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return path


def dog(**changes: object) -> str:
    return OBJECT.format(**DOG | changes)


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return tmp_path / "000001.xml"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A devkit with one image of 100 x 80 pixels, one dog and a list."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "VOC2007" / folder).mkdir(parents=True)
    write(tmp_path / "VOC2007/Annotations/000001.xml", dog())
    Image.new("RGB", (100, 80), (10, 200, 30)).save(tmp_path / "VOC2007/JPEGImages/000001.jpg")
    (tmp_path / "VOC2007/ImageSets/Main/test.txt").write_text("000001\n")
    return tmp_path


def test_coordinates_become_zero_based_and_half_open(xml):
    annotation = read_annotation(write(xml, dog()))
    assert annotation.boxes_px.tolist() == [[0, 1, 30, 40]]
    torch.testing.assert_close(annotation.boxes, torch.tensor([[0, 1 / 80, 0.3, 0.5]]), rtol=0, atol=1e-6)
    assert annotation.labels.tolist() == [voc.VOC_CLASSES.index("dog") + 1]
    assert annotation.image_id == "000001" and annotation.size == (100, 80)


def test_a_box_over_the_whole_image_is_the_unit_square(xml):
    annotation = read_annotation(write(xml, dog(xmin=1, ymin=1, xmax=100, ymax=80)))
    assert annotation.boxes.tolist() == [[0, 0, 1, 1]]


def test_children_in_any_order_parts_and_missing_flags(xml):
    part = "<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    box = "<bndbox><ymax>40</ymax><xmin>1</xmin><xmax>30</xmax><ymin>2</ymin></bndbox>"
    annotation = read_annotation(write(xml, f"<object>{part}{box}<pose>Left</pose><name>person</name>{part}</object>"))
    assert annotation.boxes_px.tolist() == [[0, 1, 30, 40]]
    assert annotation.labels.tolist() == [15]
    assert not annotation.difficult.any() and not annotation.truncated.any()


def test_fractional_coordinates_are_kept(xml):
    annotation = read_annotation(write(xml, dog(xmin="5.25", ymax="40.5")))
    assert annotation.boxes_px.tolist() == [[4.25, 1, 30, 40.5]]


def test_no_objects_give_empty_tensors_of_the_right_shape(xml):
    annotation = read_annotation(write(xml))
    assert annotation.boxes.shape == (0, 4) and annotation.labels.dtype == torch.int64


def test_unknown_classes_are_left_out_and_named(xml):
    annotation = read_annotation(write(xml, dog(), dog(name="unicorn")))
    assert annotation.labels.tolist() == [12] and annotation.unknown == ("unicorn",)
    own = read_annotation(xml, classes=("unicorn",))
    assert own.labels.tolist() == [1] and own.unknown == ("dog",)


@pytest.mark.parametrize(
    ("broken", "field", "value"),
    [
        (dog(xmin=40, xmax=30), "object[1]/bndbox", "40.0"),
        (dog(ymin=41, ymax=40), "object[1]/bndbox", "41.0"),
        (dog(xmin=30, xmax=30), "object[1]/bndbox", "30.0"),
        (dog(xmin=0), "object[1]/bndbox", "0.0"),
        (dog(xmax=101), "object[1]/bndbox", "101.0"),
        (dog(ymax=81), "object[1]/bndbox", "81.0"),
        (dog(xmin="left"), "object[1]/bndbox/xmin", "left"),
        (dog(xmin="nan"), "object[1]/bndbox/xmin", "nan"),
        (dog(ymax="inf"), "object[1]/bndbox/ymax", "inf"),
        (dog(ymax=""), "object[1]/bndbox/ymax", "''"),
        (dog(difficult=2), "object[1]/difficult", "2"),
        (dog(truncated="yes"), "object[1]/truncated", "yes"),
        (dog(name=""), "object[1]/name", "''"),
        ("<object><name>dog</name></object>", "object[1]/bndbox/xmin", "None"),
    ],
)
def test_a_broken_object_is_an_error_that_names_file_field_and_value(xml, broken, field, value):
    write(xml, dog(), broken)
    with pytest.raises(DataError) as error:
        read_annotation(xml)
    assert error.value.path == xml and error.value.field == field and value in str(error.value)
    problems: list[DataError] = []
    annotation = read_annotation(xml, problems=problems)
    assert len(annotation.labels) == 1 and [p.field for p in problems] == [field]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no element"),
        (b"\xff\xd8\xff\xe0 a picture", "not well-formed"),
        (b"<annotation><size>", "no element"),
        (b"<html></html>", "root"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "document type"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>".encode("utf-16"), "document type"),
        (b"<?xml version='1.0' encoding='no-such'?><annotation/>", "encoding"),
        (b"<annotation/>", "size/width"),
        (b"<annotation><size><width>0</width><height>5</height></size></annotation>", "size/width"),
        (b"<annotation><size><width>9</width><height>5.5</height></size></annotation>", "size/height"),
    ],
)
def test_a_file_that_is_no_annotation_is_an_error_that_says_why(xml, content, reason):
    xml.write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        read_annotation(xml)
    assert str(xml) in str(error.value)


def test_an_entity_bomb_costs_nothing(xml):
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 30))
    xml.write_text(f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]><annotation>&e29;</annotation>')
    with pytest.raises(DataError, match="document type"):
        read_annotation(xml)


def test_errors_survive_the_way_out_of_a_loaders_worker(xml):
    with pytest.raises(DataError) as error:
        read_annotation(xml)
    copy = pickle.loads(pickle.dumps(error.value))
    assert str(copy) == str(error.value) and copy.field == "file"


FRAGMENTS = [
    *(b"<object>", b"</object>", b"<bndbox>", b"</bndbox>", b"<name/>", b"<xmin>nan</xmin>", b"<xmax>1e999</xmax>"),
    *(b"<width>0</width>", b"<width>-7</width>", b"<difficult>yes</difficult>", b"<part>", b"&amp;", b"&x;", b"<!--"),
    *(
        b"<?xml version='1.0' encoding='utf-7'?>",
        b"\x00",
        b"\xff\xfe",
        b"]]>",
        b"<![CDATA[",
        b"<!DOCTYPE a>",
        b"-1",
        b"9" * 400,
    ),
]


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A few cuts, doublings, changed bytes and foreign fragments."""
    for _ in range(rng.integers(1, 5)):
        start, stop = sorted(rng.integers(0, len(whole) + 1, 2))
        stop = min(stop, start + 60)
        match rng.integers(5):
            case 0:
                whole = whole[:start] + whole[stop:]
            case 1:
                whole = whole[:stop] + whole[start:]
            case 2:
                whole = whole[:start] + rng.bytes(rng.integers(1, 6)) + whole[start:]
            case 3:
                whole = whole[:start] + FRAGMENTS[rng.integers(len(FRAGMENTS))] + whole[start:]
            case 4:  # a digit for a digit keeps the XML whole, and reaches the checks behind it
                digits = [i for i, byte in enumerate(whole) if 48 <= byte <= 57]
                if digits:
                    at = digits[rng.integers(len(digits))]
                    whole = whole[:at] + str(rng.integers(10)).encode() + whole[at + 1 :]
    return whole


@pytest.mark.slow
def test_ten_thousand_damaged_annotations_are_read_or_refused_never_anything_else(tmp_path):
    whole = write(tmp_path / "whole.xml", dog(), dog(name="person", difficult=1)).read_bytes()
    rng, path, read = np.random.default_rng(0), tmp_path / "damaged.xml", 0
    for _ in range(10_000):
        path.write_bytes(damaged(whole, rng))
        problems: list[DataError] = []
        try:
            annotation = read_annotation(path, problems=problems)
        except DataError as error:
            assert str(path) in str(error) and error.cure
            continue
        read += 1
        assert (annotation.boxes_px[:, 2:] > annotation.boxes_px[:, :2]).all()
        assert (annotation.boxes >= 0).all() and (annotation.boxes <= 1).all()
        assert len(annotation.labels) + len(annotation.unknown) + len(problems) <= 40
    assert 500 < read < 9500, "the damage is too heavy or too light to say anything"


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


def test_a_report_names_every_fault_of_a_tree(tree):
    root = tree / "VOC2007"
    write(root / "Annotations/000002.xml", dog(xmin=50), dog(ymin=50))
    (root / "Annotations/000003.xml").write_text("<annotation>")
    (root / "ImageSets/Main/test.txt").write_text("000001\n000002\n000003\n000004\n")
    report = list(voc.check_tree(tree, "2007", "test"))
    assert [(p.path.name, p.field) for p in report] == [
        ("000002.xml", "object[0]/bndbox"),
        ("000002.xml", "object[1]/bndbox"),
        ("000002.jpg", "image"),
        ("000003.xml", "XML"),
        ("000004.xml", "file"),
    ]
    assert len(list(voc.check_tree(tree, "2007", "test", annotations_only=True))) == 4


def test_years_and_sets_together_keep_their_order(tree, small_devkit):
    both = VOCDetection(small_devkit, "2007", ["test", "val"])
    test, val = VOCDetection(small_devkit, "2007", "test"), VOCDetection(small_devkit, "2007", "val")
    assert both.items == test.items + val.items and len(both) == len(test) + len(val)
    (tree / "VOC2007").rename(tree / "VOC2012")
    assert VOCDetection(tree, ["2012", "2012"], "test").items == [("2012", "000001")] * 2
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


def test_collate_pads_with_background():
    def sample(count):
        boxes = torch.rand(count, 4)
        labels = torch.arange(1, count + 1)
        target = voc.Target(boxes, labels, torch.ones(count, dtype=torch.bool), f"{count}", (9, 7))
        return torch.zeros(3, 8, 8, dtype=torch.uint8), target

    batch = collate([sample(0), sample(3)])
    assert batch.images.shape == (2, 3, 8, 8) and batch.boxes.shape == (2, 3, 4)
    assert batch.labels.tolist() == [[0, 0, 0], [1, 2, 3]] and batch.boxes[0].sum() == 0
    assert batch.difficult.tolist() == [[False] * 3, [True] * 3]
    assert batch.image_ids == ["0", "3"] and batch.sizes == [(9, 7), (9, 7)]
    assert collate([sample(0)]).boxes.shape == (1, 1, 4)


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
