import base64
import io
import json
import re

import pytest
from PIL import Image

from course_lib.doctor.findings import Finding, Report, fault, note, warning

SEEN = ("boxes are <b>pixels</b>, 3 to 496", "no prior meets one", "divide by the size", 1)


def report(*findings):
    seconds = {"one": 0.1, "two": 0.25}
    return Report(findings, tuple(seconds), dict.fromkeys(("three", "four"), "without model and step"), seconds)


@pytest.mark.parametrize(("make", "healthy"), [(fault, False), (warning, False), (note, True)])
def test_healthy_is_what_has_neither_fault_nor_warning(make, healthy):
    assert report(make(*SEEN)).healthy is healthy
    assert report().healthy


def test_another_severity_is_refused():
    with pytest.raises(ValueError, match="'error': use fault, warning, note"):
        Finding("error", *SEEN)


def test_a_report_says_what_was_seen_and_what_was_not_examined():
    text = str(report(warning(*SEEN), note(*SEEN)))
    for part in (
        *SEEN[:3],
        "chapter 1",
        "without model and step: three, four",
        "0 faults, 1 warning, 1 note in 2 checks",
    ):
        assert part in text
    assert json.loads(json.dumps(report(fault(*SEEN)).as_dict()))["findings"][0]["seen"] == SEEN[0]


def test_a_page_shows_findings_as_text():
    page = report(fault(*SEEN))._repr_html_()
    assert "&lt;b&gt;pixels" in page and "<b>pixels" not in page


def test_a_page_shows_a_picture_with_what_was_seen_in_words():
    page = report(fault(*SEEN, picture=lambda axes: axes.plot([0, 1]))).page("a <run>")
    assert 'alt="boxes are &lt;b&gt;pixels' in page and page.startswith("<!DOCTYPE html>")
    assert "<title>a &lt;run&gt;</title>" in page and "without model and step: three, four" in page
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size[0] <= 480
    assert not re.search(r"https?:|<link|<script", page)


def test_a_picture_that_fails_is_left_out():
    broken = report(fault(*SEEN, picture=lambda axes: axes.no_such_thing()))
    assert broken._repr_html_() == report(fault(*SEEN))._repr_html_()


def test_a_picture_decides_nothing_about_a_finding():
    assert fault(*SEEN, picture=print) == fault(*SEEN) and "picture" not in fault(*SEEN, picture=print).as_dict()
