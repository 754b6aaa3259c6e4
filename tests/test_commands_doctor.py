import json

import pytest

from course_lib.doctor import examination
from course_lib.doctor.checks import check
from course_lib.doctor.findings import fault, note


@check("data")
def look(patient):
    """Is there data?"""
    yield note(f"{len(patient.targets())} [images]", "why", "cure", 1)


@check("pictures")
def see(patient):
    """Is there a picture?"""
    yield fault(f"{len(patient.pictures)} pictures", "why", "cure", 2)


@pytest.fixture(autouse=True)
def two_checks(monkeypatch):
    monkeypatch.setattr(examination, "every_check", lambda: (look, see))


def test_annotations_alone_need_no_image(call, small_devkit):
    done = call("doctor", "--devkit", small_devkit, "--on", "test", "--annotations-only")
    assert done.returncode == 0 and "note look: 12 [images]" in done.stdout
    assert "without pictures: see" in done.stdout and "0 faults, 0 warnings, 1 note in 1 checks" in done.stdout


def test_a_fault_is_exit_code_1_and_json_is_json(call, small_devkit):
    done = call("doctor", "--data", small_devkit / "VOC2007", "--on", "test", "--json", "--no-learning")
    report = json.loads(done.stdout, parse_constant=pytest.fail)
    assert done.returncode == 1
    assert [(one["check"], one["severity"], one["seen"]) for one in report["findings"]] == [
        ("look", "note", "12 [images]"),
        ("see", "fault", "12 pictures"),
    ]


def test_the_report_is_written_as_a_page_that_says_what_was_examined(call, small_devkit, tmp_path):
    file = tmp_path / "report.html"
    done = call("doctor", "--devkit", small_devkit, "--on", "test", "--annotations-only", "--html", file)
    page = file.read_text(encoding="utf-8")
    assert done.returncode == 0 and "note look: 12 [images]" in done.stdout
    assert "12 [images]" in page and f"<title>The doctor&#x27;s report on {small_devkit}, VOC2007 test</title>" in page
    assert list(tmp_path.iterdir()) == [file]


def test_a_page_that_has_no_folder_is_refused_before_anything_is_examined(call, small_devkit, tmp_path):
    done = call("doctor", "--devkit", small_devkit, "--annotations-only", "--html", tmp_path / "none" / "report.html")
    assert done.returncode == 2 and "there is no folder" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--profile", "cpu", "--devkit", "x"), "four patients"),
        (("--year", "2007"), "--year goes with --devkit"),
        (("--on", "train"), "--on with --data"),
    ],
)
def test_options_that_contradict_each_other_are_refused(call, arguments, reason):
    done = call("doctor", *arguments)
    assert done.returncode == 2 and reason in done.stderr
