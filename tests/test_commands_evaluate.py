import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import DAMAGES, a_run, damaged
from rich.console import Console

from course_lib import commands_evaluate, profiles, ssd, voc
from course_lib.metrics import ClassDetections, write_detection_files


def test_detections_in_files_are_measured(call, tmp_path, small_devkit):
    boxes = np.array([[0.0, 0, 50, 50]])
    write_detection_files(tmp_path, {"dog": ClassDetections(["000041"], np.array([0.5]), boxes)})
    done = call(
        "evaluate", "--detections", tmp_path, "--devkit", small_devkit, "--year", "2007", "--set", "test",
        "--method", "11point", "--json",
    )  # fmt: skip
    assert done.returncode == 0 and "person" in done.stderr
    report = json.loads(done.stdout)
    assert report["ap"]["person"] is None and set(report) >= {"mean_ap", "ap"}


def test_detections_of_no_measurable_class_have_no_mean_and_json_that_any_parser_reads(call, tmp_path, small_devkit):
    write_detection_files(tmp_path, {"unicorn": ClassDetections([], np.zeros(0), np.zeros((0, 4)))})
    (tmp_path / "comp4_det_test_unicorn.txt").rename(tmp_path / "comp4_det_test_dog.txt")
    image_id, tree = image_without("dog", small_devkit), tmp_path / "VOC2007"
    (tree / "ImageSets" / "Main").mkdir(parents=True)
    (tree / "ImageSets" / "Main" / "none.txt").write_text(image_id)
    (tree / "Annotations").mkdir()
    shutil.copy(small_devkit / "VOC2007" / "Annotations" / f"{image_id}.xml", tree / "Annotations")
    arguments = ("evaluate", "--detections", tmp_path, "--devkit", tmp_path, "--set", "none")
    report = json.loads(call(*arguments, "--json").stdout, parse_constant=pytest.fail)
    assert report["mean_ap"] is None and report["ap"]["dog"] is None
    assert re.search(r"mean.* - ", call(*arguments).stdout)


def image_without(name: str, devkit: Path) -> str:
    truth = voc.read_annotations(devkit, "2007", "test")
    return next(one.image_id for one in truth if voc.VOC_CLASSES.index(name) + 1 not in one.labels)


@pytest.mark.parametrize(
    "options", [("--year", "2031"), ("--set", "no such"), ("--set", "../x"), ("--devkit", "no\nsuch")]
)
def test_a_set_that_is_not_there_is_one_line_and_exit_code_1(call, tmp_path, small_devkit, options):
    write_detection_files(tmp_path, {"dog": ClassDetections(["000041"], np.array([0.5]), np.zeros((1, 4)))})
    done = call("evaluate", "--detections", tmp_path, "--devkit", small_devkit, *options, "--json")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and "image set is" in done.stderr


def test_class_names_in_a_table_are_printed_as_they_are(capsys, monkeypatch):
    names = ["cat[flip]", "a[/q]", ":smile:", "$x$", "a\nb", "very " * 12 + "long"]
    monkeypatch.setattr(commands_evaluate, "console", Console(markup=False, highlight=False, emoji=False, width=100))
    commands_evaluate.print_report({"ap": dict.fromkeys(names, 0.5), "mean_ap": 0.5, "method": "area", "images": 1})
    rows = [line.split()[1:-1] for line in capsys.readouterr().out.splitlines() if "0.5000" in line]
    assert [" ".join(row[:-2]) for row in rows] == [*names[:4], r"a\nb", names[5], "mean"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), DAMAGES)
def test_measuring_on_a_damaged_tree_ends_with_one_line(call, copied, tmp_path, monkeypatch, kind, workers):
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, workers=workers))
    a_run(tmp_path / "run", ssd.ssd_mini())
    image_id = voc.read_image_set(copied.devkit, "2007", "test")[-1]
    damaged(kind, copied.devkit / "VOC2007", image_id)
    done = call("evaluate", "--run", tmp_path / "run")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    name = {"XML": f"{image_id}.xml", "list": "ImageSets"}.get(kind.split()[-1], f"{image_id}.jpg")
    assert done.stderr.startswith("error: ") and name in done.stderr
    assert not (tmp_path / "run" / "evaluation_area.json").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            lambda: ssd.ssd_mini(4),
            r"num_classes=4, .*\(class 1, class 2, class 3\), .* has 20 \(aeroplane, .*tvmonitor\)",
        ),
        (lambda: ssd.ssd_mini(21, voc.VOC_CLASSES[::-1]), r"\(tvmonitor, .*aeroplane\), .* has 20 \(aeroplane, "),
        (lambda: ssd.ssd300_vgg16(21), "is ssd300_vgg16, and this run trained ssd_mini"),
    ],
)
def test_weights_of_another_model_are_not_measured(call, small, tmp_path, model, said):
    a_run(tmp_path / "run", model())
    done = call("evaluate", "--run", tmp_path / "run")
    assert done.returncode == 1 and re.search(said, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_of_a_run_without_a_profile_one_line_says_how_to_measure_it(call, tmp_path):
    """A `Trainer` of one's own knows its data, and the command does not."""
    a_run(tmp_path / "my run", ssd.ssd_mini())
    (tmp_path / "my run" / "provenance.json").write_text('{"best_epoch": 1}')
    done = call("evaluate", "--run", tmp_path / "my run")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"evaluation.evaluate_run('{tmp_path}/my run', voc.VOCDetection(devkit, year, image_set))" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "JSON"), ("[]", "best_epoch is 'missing'"), ("\udcff", "JSON")],
)
def test_a_provenance_that_cannot_be_used_is_one_line(call, tmp_path, content, said):
    (tmp_path / "provenance.json").write_bytes(os.fsencode(content))
    done = call("evaluate", "--run", tmp_path)
    assert done.returncode == 1 and said in done.stderr and "provenance.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1
