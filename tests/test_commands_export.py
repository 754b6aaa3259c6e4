import pytest
from command_line import contents

from course_lib import export


@pytest.mark.slow
def test_export_writes_a_file_and_says_what_goes_in_and_comes_out(run_cli, tmp_path, some_weights, small_devkit):
    options = ("--weights", some_weights, "--format", "onnx", "--nms", "--int8", "--data", small_devkit / "VOC2007")
    done = run_cli("export", *options, "--on", "val", "--out", tmp_path / "o" / "my detector.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{tmp_path}/o/my detector.onnx: 2.") and first.endswith(" MB")
    assert rest == [
        "  in  images uint8 [batch, 3, 160, 160]",
        "  out boxes  float [batch, 200, 4]",
        "  out scores float [batch, 200]",
        "  out labels int64 [batch, 200]",
    ]
    assert done.stderr == ""
    assert contents(tmp_path).keys() == {tmp_path / "o", tmp_path / "o" / "my detector.onnx"}
    detector = export.load_onnx(tmp_path / "o" / "my detector.onnx")
    assert detector.nms and detector.image_size == 160


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "there.onnx"), "there.onnx exists: choose another --out, or --overwrite"),
        (("--out", "folder"), "--out is folder, which is a folder"),
        (("--out", "there.onnx/x.onnx"), "there.onnx is no folder"),
        (("--out", "w.safetensors", "--overwrite"), "w.safetensors, which is to be read"),
        (("--out", "x.onnx", "--int8"), "--int8 needs --data TREE"),
        (("--out", "x.onnx", "--data", "folder"), "--data is for --int8 alone"),
        (("--out", "x.onnx", "--int8", "--data", "folder"), "--data: folder: tree is"),
        (("--out", "x.onnx", "--int8", "--data", "VOC2007", "--on", "train"), "--on is train, and VOC2007"),
        (("--out", "x.onnx", "--format", "tflite"), "'tflite' is not"),
    ],
)
def test_a_command_that_would_lose_a_file_or_lacks_one_is_refused_before_anything_is_written(
    call, tree, monkeypatch, some_weights, options, said
):
    monkeypatch.chdir(tree)
    (tree / "there.onnx").write_text("mine")
    (tree / "folder").mkdir()
    (tree / "w.safetensors").write_bytes(some_weights.read_bytes())
    before = contents(tree)
    done = call("export", "--weights", "w.safetensors", *options)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""
    assert contents(tree) == before


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_weights_that_cannot_be_read_are_named(call, tmp_path, damage):
    if damage == "broken":
        (tmp_path / "w.safetensors").write_text("no weights")
    before = contents(tmp_path)
    done = call("export", "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "x.onnx")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path}/w.safetensors: ") and contents(tmp_path) == before


def test_a_broken_picture_of_the_calibration_is_named(call, tree, some_weights):
    (tree / "VOC2007/JPEGImages/000001.jpg").write_text("no picture")
    before = contents(tree)
    options = ("--weights", some_weights, "--int8", "--data", tree / "VOC2007", "--on", "test")
    done = call("export", *options, "--out", tree / "x.onnx")
    assert done.returncode == 1 and "000001.jpg: image is 'not an image'" in done.stderr
    assert contents(tree) == before
