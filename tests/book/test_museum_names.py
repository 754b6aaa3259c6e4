import re
from pathlib import Path

import pytest

from course_lib.doctor import museum

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = ("01_voc", "03_backbone", "04_priors", "05_model", "06_matching", "07_multibox", "08_focal", "09_training")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_chapter_breaks_is_in_the_museum_of_chapter_13(chapter):
    text = (BOOK / f"{chapter}.md").read_text(encoding="utf-8")
    broken = text[text.index("\n## Break") + 1 :].partition("\n## ")[0]
    (said,) = re.findall(r"\[bug museum\]\(13_doctor\.md\)[^.]*", broken)
    assert set(re.findall(r"`([a-z0-9-]+)`", said)) <= museum.EXHIBITS.keys() and "`" in said
