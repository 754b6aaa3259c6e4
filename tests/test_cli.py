import json
from dataclasses import replace

import pytest
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli, profiles, ssd, weights
from course_lib.metrics import ClassDetections, write_detection_files

pytestmark = pytest.mark.slow


def test_help_names_the_commands(run_cli):
    done = run_cli("--help")
    assert done.returncode == 0
    for command in ("emoji-voc", "download", "train", "evaluate", "detect"):
        assert command in done.stdout


def test_wrong_use_is_exit_code_2(run_cli, tmp_path):
    assert run_cli("train", "--run", tmp_path, "--profile", "tpu").returncode == 2
    assert run_cli("evaluate").returncode == 2
    assert run_cli("no-such-command").returncode == 2
    assert run_cli("emoji-voc", tmp_path, "--train", "1").returncode == 2


def test_what_ctrl_c_ends_says_so(monkeypatch, capsys):
    @cli.app.command("interrupted", hidden=True)
    def interrupted() -> None:
        raise KeyboardInterrupt

    try:
        monkeypatch.setattr("sys.argv", ["course_lib", "interrupted"])
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        cli.app.registered_commands.pop()
    assert end.value.code == 130 and "what was finished is kept" in capsys.readouterr().err


def test_a_failure_is_one_line_and_exit_code_1(run_cli, tmp_path):
    for arguments in (
        ("evaluate", "--run", tmp_path / "none"),
        ("evaluate", "--detections", tmp_path, "--devkit", tmp_path),
        ("detect", "--weights", tmp_path / "none.safetensors", tmp_path / "none.jpg"),
        ("train", "--run", tmp_path / "r", "--profile", "gpu"),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 1, arguments
        assert "error:" in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_emoji_voc_makes_a_tree(run_cli, tmp_path):
    done = run_cli("emoji-voc", tmp_path / "d", "--train", 4, "--test", 2)
    assert done.returncode == 0 and (tmp_path / "d/VOC2007/ImageSets/Main/test.txt").read_text() == "000005\n000006\n"
    refused = run_cli("emoji-voc", tmp_path / "d", "--train", 5, "--test", 2)
    assert refused.returncode == 1 and "choose another devkit" in refused.stderr


def test_download_names_a_wrong_archive_on_disk_and_opens_no_connection(run_cli, tmp_path):
    (tmp_path / "VOCtrainval_06-Nov-2007.tar").write_bytes(b"cut off")
    done = run_cli("download", "voc2007", "--devkit", tmp_path / "d", "--archives", tmp_path)
    assert done.returncode == 1 and "MD5 is '" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert run_cli("download", "voc2007", "--mirror", "file:///tmp").returncode == 2
    assert not (tmp_path / "d" / "VOC2007").exists()


def test_detections_in_files_are_measured(run_cli, tmp_path, small_devkit):
    import numpy as np

    boxes = np.array([[0.0, 0, 50, 50]])
    write_detection_files(tmp_path, {"dog": ClassDetections(["000041"], np.array([0.5]), boxes)})
    done = run_cli(
        "evaluate", "--detections", tmp_path, "--devkit", small_devkit, "--year", "2007", "--set", "test",
        "--method", "11point", "--json",
    )  # fmt: skip
    assert done.returncode == 0 and "person" in done.stderr
    report = json.loads(done.stdout)
    assert report["ap"]["person"] is None and set(report) >= {"mean_ap", "ap"}


def test_detect_writes_pictures_and_names_what_it_cannot_read(run_cli, tmp_path):
    weights.save(ssd.ssd_mini(), tmp_path / "w.safetensors")
    Image.new("RGB", (300, 200), "orange").save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_text("no picture")
    done = run_cli(
        "detect", "--weights", tmp_path / "w.safetensors", tmp_path / "bad.jpg", tmp_path / "good.jpg",
        "--out", tmp_path / "out", "--threshold", 0.2,
    )  # fmt: skip
    assert done.returncode == 1 and "bad.jpg: image is 'not an image'" in done.stderr
    with Image.open(tmp_path / "out/good.png") as picture:
        assert picture.size == (500, 333)


def test_a_network_for_focal_loss_starts_sure_of_background_and_is_measured_by_its_own_scores(
    small_devkit, tmp_path, monkeypatch
):
    usual = profiles.cpu()
    small = replace(
        usual,
        name="small",
        devkit=small_devkit,
        train_on=(("2007", "test"),),
        recipe=replace(usual.recipe, epochs=1, batch_size=4, warmup_steps=0, learning_rate=1e-5, frozen_blocks=0),
        workers=0,
        pretraining_steps=0,
    )
    monkeypatch.setattr(profiles, "profile", lambda name=None: small)
    done = CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run"), "--loss", "focal"])
    assert done.exit_code == 0, done.output
    model = weights.load(tmp_path / "run" / "last.safetensors")
    assert model.scoring == "sigmoid" and model.conf_heads[0].bias[1].item() == pytest.approx(-4.595, abs=0.01)
    assert CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run"), "--loss", "mse"]).exit_code == 2
    other = CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run")])
    assert "FocalLoss" in str(other.exception) and "--fresh" in str(other.exception)
