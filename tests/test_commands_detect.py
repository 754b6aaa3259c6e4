import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from command_line import contents, picture
from PIL import ExifTags, Image

from course_lib import detect, ssd, weights
from course_lib.images import read_image


@pytest.mark.slow
def test_detect_writes_pictures_and_names_what_it_cannot_read(run_cli, tmp_path, some_weights):
    Image.new("RGB", (300, 200), "orange").save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_text("no picture")
    done = run_cli(
        "detect", "--weights", some_weights, tmp_path / "bad.jpg", tmp_path / "good.jpg",
        "--out", tmp_path / "out", "--threshold", 0.2,
    )  # fmt: skip
    assert done.returncode == 1 and "bad.jpg: image is 'not an image'" in done.stderr
    with Image.open(tmp_path / "out/good.png") as result:
        assert result.size == (500, 333)


@pytest.mark.parametrize("option", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    ("given", "out"),
    [
        (["photo.png"], "."),
        (["./photo.png"], "o/.."),
        (["photo.jpg"], "."),  # its result would be photo.png, which is to be read as well
        (["photo.png"], "link to here"),
        (["symbolic.png"], "."),
        (["o/photo.png"], "."),  # a symbolic link to ../photo.png
        (["hard.jpg"], "h"),  # h/hard.png is the same file
    ],
)
def test_a_picture_that_is_read_is_never_written_over(call, tmp_path, monkeypatch, some_weights, given, out, option):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.png")
    picture(tmp_path / "photo.jpg")
    picture(tmp_path / "h" / "hard.png")
    (tmp_path / "hard.jpg").hardlink_to("h/hard.png")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "photo.png").symlink_to("../photo.png")
    (tmp_path / "symbolic.png").symlink_to("photo.png")
    (tmp_path / "link to here").symlink_to(".")
    before = contents(tmp_path)
    more = ["photo.png"] if given == ["photo.jpg"] else []
    done = call("detect", *given, *more, "--weights", some_weights, "--out", out, *option)
    assert done.returncode == 2 and contents(tmp_path) == before
    assert re.match(r"error: .*(would replace .*which is to be read|both have)", done.stderr)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and "Usage" not in done.stderr


@pytest.mark.parametrize("out", [".", "W"])
def test_the_weights_that_are_read_are_never_written_over(call, tmp_path, monkeypatch, some_weights, out):
    monkeypatch.chdir(tmp_path)
    shutil.copy(some_weights, "w.png")
    (tmp_path / "W").symlink_to(".")
    picture(tmp_path / "w.jpg")
    before = contents(tmp_path)
    done = call("detect", "w.jpg", "--weights", "w.png", "--out", out, "--overwrite")
    assert done.returncode == 2 and "w.png, which is to be read" in done.stderr and contents(tmp_path) == before


@pytest.mark.parametrize(
    "given", [("a/1.jpg", "b/1.jpg"), ("a/1.jpg", "a/1.png"), ("a/1.jpg", "a/1.jpg"), ("a/1.jpg", "./a/1.jpg"),
              ("a/X.jpg", "b/x.jpg"), ("a/x.jpg", "a/1.jpg", "c/1.JPEG")],
)  # fmt: skip
def test_two_pictures_do_not_share_one_result(call, tmp_path, monkeypatch, some_weights, given):
    monkeypatch.chdir(tmp_path)
    for name in {*given}:
        picture(tmp_path / name)
    before = contents(tmp_path)
    done = call("detect", *given, "--weights", some_weights, "--out", "o")
    first, second = (str(Path(name)) for name in given[-2:])
    assert done.returncode == 2 and f"{first} and {second} would both have their result in o/" in done.stderr
    assert "rename one" in done.stderr and contents(tmp_path) == before
    assert call("detect", first, "--weights", some_weights, "--out", "o").returncode == 0


@pytest.mark.parametrize("kind", ["file", "link to nothing", "link to a file"])
def test_a_result_that_exists_is_replaced_only_when_that_is_asked(call, tmp_path, monkeypatch, some_weights, kind):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "new.jpg")
    picture(tmp_path / "1.jpg")
    mine = picture(tmp_path / "mine.png", "blue")
    result = tmp_path / "o" / "1.png"
    result.parent.mkdir()
    if kind == "file":
        result.write_text("an older one")
    else:
        result.symlink_to("../mine.png" if kind == "link to a file" else "nothing")
    before = contents(tmp_path)
    asked = ("detect", "new.jpg", "1.jpg", "--weights", some_weights, "--out", "o")
    done = call(*asked)
    assert done.returncode == 2 and "o/1.png exists" in done.stderr and "--overwrite" in done.stderr
    assert contents(tmp_path) == before
    assert call(*asked, "--overwrite").returncode == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"1.png", "new.png"} and not result.is_symlink()
    assert mine.read_bytes() == before[mine]
    with Image.open(result) as drawn:
        assert drawn.size == (500, 333)


@pytest.mark.parametrize(
    ("given", "out", "reason"),
    [
        ("1.jpg", "a file", "a file is no folder"),
        ("1.jpg", "a file/deeper/still", "a file is no folder"),
        ("1.jpg", "a link to nothing", "a link to nothing is no folder"),
        ("folder", "o", "no .jpg, .jpeg, .png lies in the folder folder; its folders are not looked into"),
        ("folder/deeper", "folder/deeper/2.png", "no folder"),
        ("1.jpg", "full", "would replace the folder full/1.png"),
    ],
)
def test_a_folder_where_a_file_belongs_or_the_reverse_is_wrong_use(
    call, tmp_path, monkeypatch, some_weights, given, out, reason
):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "1.jpg")
    picture(tmp_path / "folder" / "deeper" / "2.png")
    (tmp_path / "full" / "1.png").mkdir(parents=True)
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "a link to nothing").symlink_to("nothing")
    before = contents(tmp_path)
    for option in ((), ("--overwrite",)):
        done = call("detect", given, "--weights", some_weights, "--out", out, *option)
        assert done.returncode == 2 and reason in done.stderr and contents(tmp_path) == before


def test_a_result_is_whole_or_not_there(call, tmp_path, monkeypatch, some_weights):
    result = picture(tmp_path / "o" / "1.png", "blue")
    before = contents(tmp_path / "o")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = call("detect", picture(tmp_path / "1.jpg"), "--weights", some_weights, "--out", result.parent, "--overwrite")
    assert done.returncode == 1 and "No space left" in done.stderr and contents(tmp_path / "o") == before


@pytest.mark.slow
def test_pictures_that_are_not_there_leave_no_folder(run_cli, tmp_path, some_weights):
    done = run_cli("detect", "none.png", "--weights", some_weights, "--out", "o", cwd=tmp_path)
    assert done.returncode == 1 and "none.png: image is" in done.stderr and contents(tmp_path) == {}


def test_a_model_of_other_classes_has_its_boxes_drawn_under_their_numbers(call, tmp_path):
    model = ssd.ssd_mini(30)
    with torch.no_grad():
        for head in model.conf_heads:
            head.bias.view(-1, 30)[:, 29] = 9.0
    weights.save(model, tmp_path / "w.safetensors")
    done = call("detect", picture(tmp_path / "1.jpg"), "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "o")
    assert done.returncode == 0 and "  class 29 " in done.stdout and (tmp_path / "o" / "1.png").exists()


@pytest.fixture
def talkative(tmp_path) -> Path:
    """Weights of a model that finds something in every picture: two classes, of which it prefers the second."""
    model = ssd.ssd_mini(3, ("cup", "Löffel [x]"))
    with torch.no_grad():
        for head in model.conf_heads:
            head.bias.view(-1, 3)[:, 2] = 6.0
    weights.save(model, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_of_a_folder_the_pictures_in_it_are_taken_sorted_and_no_others(call, tmp_path, monkeypatch, some_weights):
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a b.jpg", "ü.JpEg", "deeper/c.jpg", ".hidden.jpg"):
        picture(tmp_path / "mine" / name)
    (tmp_path / "mine" / "list.txt").write_text("no picture")
    (tmp_path / "mine" / "d.bmp").write_text("no picture that is read")
    done = call("detect", "mine", picture(tmp_path / "one.jpg"), "--weights", some_weights)
    assert done.returncode == 0, done.stderr
    files = [line.split(" -> ")[0] for line in done.stdout.splitlines()]
    assert files == ["mine/a b.jpg", "mine/b.PNG", "mine/ü.JpEg", str(tmp_path / "one.jpg")]
    assert {path.name for path in (tmp_path / "detections").iterdir()} == {"a b.png", "b.png", "ü.png", "one.png"}
    twice = call("detect", "mine", "mine/b.PNG", "--weights", some_weights, "--out", "o")
    assert twice.returncode == 2 and "would both have their result in o/b.png" in twice.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("out", [(), ("--out", "o")])
def test_json_has_the_class_the_score_and_the_box_in_pixels_of_every_picture(
    call, tmp_path, monkeypatch, talkative, out
):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((300, 200), 60).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "broken\n.jpg").write_text("no picture")
    Image.effect_noise((90, 200), 60).convert("RGB").save(tmp_path / "z.jpg")
    done = call("detect", "a.png", "broken\n.jpg", "z.jpg", "--weights", talkative, "--json", *out)
    assert done.returncode == 1 and done.stderr.startswith("error: broken") and len(done.stderr.splitlines()) == 1
    rows = json.loads(done.stdout)
    assert [(row["path"], row["width"], row["height"]) for row in rows] == [("a.png", 300, 200), ("z.jpg", 90, 200)]
    for row in rows:
        model = weights.load(talkative)
        found = detect.detect_image(model, read_image(Path(row["path"])), score_threshold=0.5)
        assert len(row["objects"]) == len(found.scores) > 0
        for one, box, score in zip(row["objects"], found.boxes, found.scores, strict=True):
            sides = torch.tensor([row["width"], row["height"]] * 2)
            assert one["class"] == "Löffel [x]" and one["score"] == pytest.approx(score.item(), abs=1e-4)
            torch.testing.assert_close(torch.tensor(one["box"]), box * sides, rtol=0, atol=0.06)  # rounded to 0.1
    assert (tmp_path / "o").exists() == bool(out) and not (tmp_path / "detections").exists()


def test_json_of_no_object_is_an_empty_list_and_needs_no_room(call, tmp_path, monkeypatch, some_weights):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "detections" / "1.png")
    done = call("detect", picture(tmp_path / "1.jpg"), "--weights", some_weights, "--json", "--threshold", 1)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["objects"] == []


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_has_its_boxes_as_it_is_seen(call, tmp_path, talkative, orientation):
    """As the data set reads it: upright, as the camera's EXIF data says."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.effect_noise((300, 200), 60).convert("RGB").save(tmp_path / "1.jpg", exif=exif)
    (row,) = json.loads(call("detect", tmp_path / "1.jpg", "--weights", talkative, "--json").stdout)
    assert [row["width"], row["height"]] == ([300, 200] if orientation < 5 else [200, 300])
    assert all(one["box"][2] <= row["width"] and one["box"][3] <= row["height"] for one in row["objects"])
    assert read_image(tmp_path / "1.jpg").shape[:2] == (row["height"], row["width"])
