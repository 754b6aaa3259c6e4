import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from xml_files import dog, write

from course_lib.annotations import (
    PIXELS_FROM_0,
    PIXELS_FROM_1,
    READINGS,
    VOC_CLASSES,
    LeftOut,
    class_names,
    nearest,
    parse,
    read_annotation,
    warn_of_unknown,
)
from course_lib.files import DataError


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return tmp_path / "000001.xml"


def test_coordinates_become_zero_based_and_half_open(xml):
    annotation = read_annotation(write(xml, dog()))
    assert annotation.boxes_px.tolist() == [[0, 1, 30, 40]]
    torch.testing.assert_close(annotation.boxes, torch.tensor([[0, 1 / 80, 0.3, 0.5]]), rtol=0, atol=1e-6)
    assert annotation.labels.tolist() == [VOC_CLASSES.index("dog") + 1]
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
        (dog(xmin=30.5, xmax=30), "object[1]/bndbox", "30.5"),
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
        (b"<annotation><size><width>1e300</width><height>5</height></size></annotation>", "size/width"),
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


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("person", r'classes is \'person\', a single name: write \("person",\)'),
        ("", "a single name"),
        (("dog", "cat", "dog"), r"classes\[2\] is 'dog', as classes\[0\] is: take one away"),
        (["dog", ""], r"classes\[1\] is ''"),
        (("dog ",), r"classes\[0\] is 'dog ': write a name, without space"),
        (("\tdog",), "without space"),
    ],
)
def test_class_names_that_are_a_single_string_doubled_or_empty_are_refused(xml, classes, message):
    with pytest.raises(ValueError, match=message):
        class_names(classes)
    with pytest.raises(ValueError, match=message):
        read_annotation(write(xml, dog(name="on")), classes)


@pytest.mark.parametrize("classes", [(), ("on",), ["dog", "Dog"], VOC_CLASSES])
def test_class_names_are_a_tuple_in_their_order(classes):
    assert class_names(classes) == tuple(classes)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dgo", "dog"),
        ("Dog", "dog"),
        ("DOG", "dog"),
        ("dogs", "dog"),
        ("persn", "person"),
        ("Dining table", "diningtable"),
        ("potted_plant", "pottedplant"),
        ("tv-monitor", "tvmonitor"),
        ("airplane", "aeroplane"),
        ("zzz", None),
        ("犬", None),
    ],
)
def test_a_misspelt_class_is_warned_of_with_what_was_meant(tmp_path, name, meant):
    first = read_annotation(write(tmp_path / "1.xml", dog(name=name), dog(), dog(name=name)))
    other = read_annotation(write(tmp_path / "2.xml", dog(name=name)))
    clean = read_annotation(write(tmp_path / "3.xml", dog()))
    assert nearest(name, VOC_CLASSES) == meant
    with pytest.warns(LeftOut) as caught:
        warn_of_unknown([clean, first, other], VOC_CLASSES)
    assert len(caught) == 1
    advice = f"did you mean '{meant}'?" if meant else "correct it, or add it to `classes`"
    start = f"{first.path}: name is '{name}', none of `classes`: 3 objects are left out, in 2 of 3 files: "
    assert str(caught[0].message) == start + advice


def test_a_class_in_capitals_is_suggested_in_capitals():
    assert nearest("dog", ("Dog", "Cat")) == "Dog" and nearest("Dgo", ("Dog", "Cat")) == "Dog"


def test_every_unknown_name_is_warned_of_once_and_a_known_one_never(tmp_path):
    files = [write(tmp_path / f"{k}.xml", dog(name=n), dog()) for k, n in enumerate(("unicorn", "dgo", "unicorn"))]
    with pytest.warns(LeftOut) as caught:
        warn_of_unknown([read_annotation(path) for path in files], VOC_CLASSES)
    assert [("unicorn" in str(w.message), "dgo" in str(w.message)) for w in caught] == [(True, False), (False, True)]
    assert "1 object is left out, in 1 of 3 files" in str(caught[1].message)
    warn_of_unknown([read_annotation(write(tmp_path / "9.xml", dog()))], VOC_CLASSES)


@pytest.mark.parametrize(
    ("box", "cure"),
    [
        # the image is 100 wide and 80 high
        ((0.1, 0.2, 0.5, 0.9), "fractions: multiply x by 100 and y by 80, then add 1 to xmin and ymin"),
        ((0, 0, 1, 1), "fractions: multiply"),
        ((-0.01, 0.2, 0.5, 1), "fractions: multiply"),
        (
            (0, 5, 50, 60),
            "counts pixels from 1, this box from 0: add 1 to xmin and ymin, or to all four if it holds xmax",
        ),
        ((5, 0, 99, 79), "counts pixels from 1, this box from 0"),
        ((0, 0, 99, 79), "counts pixels from 1, this box from 0"),
        ((0, 0, 100, 80), "this box from 0: add 1 to xmin and ymin$"),
        ((0.5, 3, 100, 80), "this box from 0: add 1 to xmin and ymin$"),
        ((10, 20, 30, 95), "fits where x and y are exchanged: .* or width 100 and height 80 in <size>"),
        ((1, 1, 80, 100), "fits where x and y are exchanged"),
        ((0, 0, 79, 99), "fits where x and y are exchanged"),
        ((10, 20, 101, 60), r"leaves the image, whose pixels are 1\.\.100 by 1\.\.80: clip it"),
        ((-3, 20, 50, 60), "clip it"),
        ((10, 20, 30, 500), "clip it"),
        ((120, 20, 150, 60), "lies beside the image, .*: draw it again or remove the object"),
        ((-9, 20, -2, 60), "lies beside the image"),
        ((30, 20, 10, 60), "reversed: swap min and max"),
        ((0.9, 0.2, 0.1, 0.9), "reversed: swap min and max"),
        ((30.5, 20, 30, 60), "reversed"),
    ],
)
def test_a_box_that_does_not_fit_gets_the_cure_that_does(xml, box, cure):
    write(xml, dog(**dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))))
    with pytest.raises(DataError, match=cure) as error:
        read_annotation(xml)
    assert error.value.field == "object[0]/bndbox" and error.value.value == box


SOME = "<annotation><filename>{}</filename><size><width>9</width><height>9</height></size></annotation>"


def declared(encoding: str, text: str = "") -> str:
    return f"<?xml version='1.0' encoding='{encoding}'?>\n{SOME.format(text)}"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (declared("gb2312", "图片").encode("gb2312"), "gb2312, which the parser does not know"),
        (declared("GBK", "图片").encode("gbk"), "GBK, which the parser does not know"),
        (declared("shift_jis", "犬").encode("shift_jis"), "shift_jis, which the parser does not know"),
        (declared("no-such").encode(), "no-such, which the parser does not know"),
        (declared("utf8", "é").encode(), "utf8, which the parser does not know"),
        (SOME.format("图像标注").encode("gbk"), "not UTF-8: line 1 has the byte 0xcf"),
        (SOME.format("é").encode("latin-1"), "not UTF-8: line 1 has the byte 0xe9"),
        (declared("utf-8", "é").encode("latin-1"), "not UTF-8: line 2 has the byte 0xe9"),
        (declared("UTF-8", "Müller").encode("cp1252"), "not UTF-8: line 2 has the byte 0xfc"),
        (declared("ascii", "é").encode(), "ascii, which the parser does not know"),
        (declared("utf-16", "é").encode(), "utf-16, as its first line says, but its bytes are of another"),
        (declared("UTF-16").encode("utf-8-sig"), "UTF-16, as its first line says, but its bytes are of another"),
        (declared("utf-8").encode("utf-16"), "utf-8, as its first line says, but its bytes are of another"),
        (declared("utf-8").encode("utf-32"), "not UTF-8: line 1 has the byte 0xff"),
    ],
)
def test_a_file_in_another_encoding_is_to_be_saved_as_utf8(xml, content, value):
    xml.write_bytes(content)
    with pytest.raises(DataError, match="save the file as UTF-8") as error:
        read_annotation(xml)
    assert error.value.field == "encoding" and error.value.value == value


@pytest.mark.parametrize(
    "content",
    [
        SOME.format("é").encode(),
        declared("UTF-8", "é").encode("utf-8-sig"),
        declared("utf-16", "é犬").encode("utf-16"),
        SOME.format("é犬").encode("utf-16"),
        declared("latin-1", "é").encode("latin-1"),
        declared("windows-1252", "é").encode("cp1252"),
    ],
)
def test_a_file_in_the_encoding_that_it_says_is_read(xml, content):
    xml.write_bytes(content)
    assert read_annotation(xml).size == (9, 9) and parse(xml).findtext("filename", "").startswith("é")


@pytest.mark.parametrize("content", [b"", b" \n", b"\0" * 100])
def test_an_empty_annotation_is_called_empty(xml, content):
    xml.write_bytes(content)
    with pytest.raises(DataError, match=r"empty file.*restore the annotation"):
        read_annotation(xml)


@pytest.mark.parametrize(("there", "cure"), [("000001.XML", "lies there"), ("000001.Xml", "call it 000001.xml")])
def test_an_annotation_that_is_missing_by_its_case_only_says_so(xml, there, cure):
    write(xml.with_name(there))
    with pytest.raises(DataError, match=cure) as error:
        read_annotation(xml)
    assert there in str(error.value) and error.value.path == xml


def test_an_annotation_that_is_missing_or_a_folder_is_an_error_with_a_cure(tmp_path):
    (tmp_path / "000001.xml.txt").touch()
    for path in (tmp_path / "000001.xml", tmp_path / "no folder" / "a.xml", tmp_path / f"{'a' * 300}.xml"):
        with pytest.raises(DataError, match="restore the annotation or take it off the list"):
            read_annotation(path)
    with pytest.raises(DataError, match="Is a directory"):
        read_annotation(tmp_path)


def corners(box: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))


@pytest.mark.parametrize(
    ("said", "box"),
    [
        (None, (1, 2, 30, 40)),
        ("pixels from 1", (1, 2, 30, 40)),
        ("pixels from 0", (0, 1, 29, 39)),
        ("pixels from 0\n", (0, 1, 29, 39)),
        ("edges", (0, 1, 30, 40)),
        ("edges", (-0.2, 1, 30, 40)),  # rounded, and clipped
    ],
)
def test_the_same_box_in_each_way_to_write_corners(xml, said, box):
    """`corners.txt` beside the annotations says which it is."""
    if said:
        (xml.parent / "corners.txt").write_text(said)
    assert read_annotation(write(xml, dog(**corners(box)))).boxes_px.tolist() == [[0, 1, 30, 40]]


@pytest.mark.parametrize("said", ["", "from 0", "0", "Edges", "edges\npixels from 0"])
def test_a_word_that_is_no_way_to_write_corners_is_refused(xml, said):
    (xml.parent / "corners.txt").write_text(said)
    with pytest.raises(DataError, match="write one of these: pixels from 1, pixels from 0, edges") as error:
        read_annotation(write(xml, dog()))
    assert error.value.path == xml.parent / "corners.txt" and error.value.value == said.strip()


@pytest.mark.parametrize("reading", READINGS)
def test_the_whole_image_fits_and_a_pixel_more_does_not(xml, reading):
    (xml.parent / "corners.txt").write_text(reading)
    whole = [corner - more for corner, more in zip((1, 1, 100, 80), READINGS[reading], strict=True)]
    assert read_annotation(write(xml, dog(**corners(whole)))).boxes.tolist() == [[0, 0, 1, 1]]
    for place, step in enumerate((-1, -1, 1, 1)):
        out = [corner + step * (index == place) for index, corner in enumerate(whole)]
        with pytest.raises(DataError) as error:
            read_annotation(write(xml, dog(**corners(out))))
        assert error.value.value == tuple(out) and ("clip it" in error.value.cure or "from 0" in error.value.cure)


@pytest.mark.parametrize("reading", [PIXELS_FROM_1, PIXELS_FROM_0])
@pytest.mark.parametrize(
    ("xmin", "xmax", "width"),
    [(50, 50, 1), (50, 51, 2), (50, 50.4, 1.4), (50.4, 50.4, 1), (50.25, 50.75, 1.5), (50, 49, None), (50.4, 50, None)],
)
def test_a_box_from_a_pixel_to_the_same_pixel_is_one_pixel_wide(xml, reading, xmin, xmax, width):
    """It was refused, while one from 50.0 to 50.4 was not: now corners in order are enough, whole numbers or not."""
    (xml.parent / "corners.txt").write_text(reading)
    for first, last in (("xmin", "xmax"), ("ymin", "ymax")):
        write(xml, dog(**{first: xmin, last: xmax}))
        if width is None:
            with pytest.raises(DataError, match="reversed"):
                read_annotation(xml)
        else:
            x0, y0, x1, y1 = read_annotation(xml).boxes_px[0].tolist()
            assert (x1 - x0 if first == "xmin" else y1 - y0) == pytest.approx(width, abs=1e-5)


@pytest.mark.parametrize(("xmax", "width"), [(50, None), (50.4, None), (50.5, 0.5), (51, 1), (49, None)])
def test_between_equal_edges_there_is_no_box(xml, xmax, width):
    (xml.parent / "corners.txt").write_text("edges")
    write(xml, dog(xmin=50, xmax=xmax))
    if width is None:
        with pytest.raises(DataError, match=r"no area|reversed"):
            read_annotation(xml)
    else:
        left, _, right, _ = read_annotation(xml).boxes_px[0].tolist()
        assert right - left == width


@pytest.mark.parametrize(
    ("box", "read"),
    [
        ((0.6, 1, 30, 40), (0, 0, 30, 40)),
        ((1, 0.75, 100.25, 80.4), (0, 0, 100, 80)),
        ((90, 1, 100.49, 40), (89, 0, 100, 40)),
        ((0.5, 1, 30, 40), None),
        ((1, 1, 100.5, 40), None),
        ((0.6, 0.7, 0.9, 1), None),  # fractions of the image, not half of a pixel
    ],
)
def test_less_than_half_a_pixel_outside_is_rounding_and_clipped(xml, box, read):
    write(xml, dog(**corners(box)))
    if read is None:
        with pytest.raises(DataError):
            read_annotation(xml)
    else:
        assert read_annotation(xml).boxes_px.tolist() == [list(read)]
