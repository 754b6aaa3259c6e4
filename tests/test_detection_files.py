import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.detection_files import ClassDetections, detection_file, read_detection_files, write_detection_files
from course_lib.files import DataError


def test_detection_files_come_back_as_they_were_written(tmp_path):
    boxes = np.array([[0.0, 10.5, 20.25, 30.0], [5, 6, 7, 8]])
    written = {"dog": ClassDetections(["000001", "000002"], np.array([0.5, 0.25]), boxes)}
    write_detection_files(tmp_path, written)
    assert (tmp_path / "comp4_det_test_dog.txt").read_text().startswith("000001 0.5 1.0 11.5 20.25 30.0\n")
    with pytest.warns(UserWarning, match="person, .*left out"):
        read = read_detection_files(tmp_path)
    assert list(read) == ["dog"] and list(read["dog"].image_ids) == ["000001", "000002"]
    np.testing.assert_array_equal(read["dog"].boxes_px, boxes)


@pytest.mark.parametrize(
    "line",
    [
        "000001 0.5 1 2 3",
        "000001 high 1 2 3 4",
        "000001 nan 1 2 3 4",
        "000001 0.5 1 2 inf 4",
        "000001 0.5 1e999 2 3 4",
        "000001 0.5 1e-99999999999999999999 2 3 4",
        "000001,0.5,1,2,3,4",
        "000001",
    ],
)
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_text(f"000001 0.5 1 2 3 4\n{line}\n")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="line 2") as error:
        read_detection_files(tmp_path)
    assert error.value.path == path


@pytest.mark.parametrize("corners", ["9 1 3 4", "1 9 3 4", "30 40 5 6", "3.5 1 2.25 4"])
def test_reversed_corners_in_a_file_are_named(tmp_path, corners):
    (tmp_path / "comp4_det_test_dog.txt").write_text(f"\na1 0.5 {corners}\n")
    with pytest.raises(DataError, match=r"comp4_det_test_dog\.txt: line 2 .*reversed: write .*<xmin>"):
        read_detection_files(tmp_path, ("dog",))


@pytest.mark.parametrize("corners", ["3 4 3 4", "1 1 1 9", "1 1 0 0", "3.5 1 2.5 4"])
def test_one_pixel_and_no_pixel_are_no_reversed_corners(tmp_path, corners):
    (tmp_path / "comp4_det_test_dog.txt").write_text(f"a1 0.5 {corners}\n")
    xmin, ymin, xmax, ymax = map(float, corners.split())
    box = read_detection_files(tmp_path, ("dog",))["dog"].boxes_px[0]
    assert box.tolist() == [xmin - 1, ymin - 1, xmax, ymax]


def can_be_written(image_id):
    return image_id and image_id == image_id.strip() and image_id[0] != "\ufeff" and not set(image_id) & set("\0\r\n")


text_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(can_be_written)
spaced_ids = st.sampled_from(["my dog 1", "a  b", "a\tb", "1 2 3 4 5 6", "0.5 1 2", "a\u2028b", "x\x0by", "Bär\u00a07"])
finite = st.floats(allow_nan=False, allow_infinity=False) | st.floats(allow_nan=False, allow_infinity=False, width=32)
rows = st.tuples(text_ids | spaced_ids, finite, finite, finite, finite, finite)


@settings(deadline=None, max_examples=300)
@given(st.lists(rows, max_size=6), st.sampled_from([np.float32, np.float64]))
def test_what_is_written_is_read_back_exactly(tmp_path_factory, table, dtype):
    folder = tmp_path_factory.mktemp("detections")
    with np.errstate(over="ignore"):
        scores = np.nan_to_num(np.array([row[1] for row in table], dtype))
        corners = np.nan_to_num(np.array([row[2:] for row in table], dtype)).reshape(-1, 2, 2)
    written = ClassDetections([row[0] for row in table], scores, np.sort(corners, axis=1).reshape(-1, 4))
    write_detection_files(folder, {"dog": written})
    read = read_detection_files(folder, ("dog",), image_ids=written.image_ids)["dog"]
    assert list(read.image_ids) == list(written.image_ids)
    np.testing.assert_array_equal(read.scores, written.scores)
    np.testing.assert_array_equal(read.boxes_px, written.boxes_px)


@pytest.mark.parametrize(
    "image_id", ["", " ", " a", "a ", "a\n", "a\nb", "a\rb", "\ta", "a\u00a0", "\ufeffa", "a\0", "a\ud800"]
)
def test_ids_that_a_line_cannot_hold_are_refused_and_nothing_is_written(tmp_path, image_id):
    good = ClassDetections(["a"], np.array([0.5]), np.array([[0.0, 0, 9, 9]]))
    with pytest.raises(ValueError, match="cannot be read back") as error:
        write_detection_files(tmp_path / "d", {"cat": good, "dog": good._replace(image_ids=[image_id])})
    assert repr(image_id) in str(error.value) and not (tmp_path / "d").exists()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_and_other_ends_of_lines_are_no_part_of_an_id(tmp_path, mark, end):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_bytes(f"{mark}äb 0.5 1 2 3 4{end}".encode())
    assert read_detection_files(tmp_path, ("dog",), ["äb"])["dog"].image_ids == ["äb"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_bytes("aä 0.5 1 2 3 4\n".encode(encoding))
    with pytest.raises(DataError, match="save the file as UTF-8") as error:
        read_detection_files(tmp_path, ("dog",))
    assert error.value.path == path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dog", "dog"),
        ("traffic light", "traffic light"),
        ("Hündin 犬", "Hündin 犬"),
        ("car/van", "car%2Fvan"),
        ("../../up", "..%2F..%2Fup"),
        (".", "."),
        ("..", ".."),
        ("dog.", "dog."),
        ("a:b\\c", "a%3Ab%5Cc"),
        ("100%", "100%25"),
        ("car%2Fvan", "car%252Fvan"),
        ('<"what?*|>', "%3C%22what%3F%2A%7C%3E"),
        ("zero\0\nline", "zero%00%0Aline"),
    ],
)
def test_a_class_of_any_name_has_a_detection_file(tmp_path, name, file):
    found = ClassDetections(["a"], np.array([0.5]), np.array([[0.0, 0, 9, 9]]))
    write_detection_files(tmp_path, {name: found})
    assert [path.name for path in tmp_path.iterdir()] == [f"comp4_det_test_{file}.txt"]
    assert detection_file(tmp_path, name).is_file()
    assert list(read_detection_files(tmp_path, (name,))) == [name]


@pytest.mark.parametrize("names", [("dog", "Dog"), ("a/B", "A/b"), ("Ä", "A\u0308", "x"), ("x", "straße", "STRASSE")])
def test_classes_that_would_share_a_file_are_refused(tmp_path, names):
    found = ClassDetections(["a"], np.array([0.5]), np.array([[0.0, 0, 9, 9]]))
    with pytest.raises(ValueError, match="share one detection file"):
        write_detection_files(tmp_path, dict.fromkeys(names, found))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="share one detection file"):
        read_detection_files(tmp_path, names)
