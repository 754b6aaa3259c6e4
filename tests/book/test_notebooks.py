"""Chapters and notebooks say the same, and a maintainer sees at once when they part."""

import json
import shutil

import nbformat
import pytest

from tools import notebooks


@pytest.fixture
def copy_of_the_book(tmp_path, monkeypatch):
    book = tmp_path / "book"
    shutil.copytree(notebooks.BOOK, book, ignore=shutil.ignore_patterns("_static", "vendor"))
    monkeypatch.setattr(notebooks, "BOOK", book)
    return book


def test_every_chapter_has_its_notebook(capsys):
    assert notebooks.chapters()
    assert notebooks.sync(check=True) == 0, capsys.readouterr().out


def test_an_edited_chapter_is_noticed(copy_of_the_book, capsys):
    chapter = notebooks.chapters()[0]
    chapter.write_text(chapter.read_text() + "\nOne more sentence.\n")
    assert notebooks.sync(check=True) == 1
    assert chapter.with_suffix(".ipynb").name in capsys.readouterr().out
    assert notebooks.sync(check=False) == 0 and notebooks.sync(check=True) == 0


def test_a_notebook_with_outputs_is_noticed(copy_of_the_book):
    path = notebooks.chapters()[0].with_suffix(".ipynb")
    notebook = json.loads(path.read_text())
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["left behind\n"]}]
    path.write_text(json.dumps(notebook))
    assert notebooks.sync(check=True) == 1


def test_a_notebook_without_a_chapter_is_noticed(copy_of_the_book, capsys):
    shutil.copy(notebooks.chapters()[0].with_suffix(".ipynb"), copy_of_the_book / "99_forgotten.ipynb")
    assert notebooks.sync(check=True) == 1
    assert "99_forgotten" in capsys.readouterr().out


def test_the_same_chapter_gives_the_same_bytes_and_valid_notebooks():
    for chapter in notebooks.chapters():
        assert notebooks.notebook_text(chapter) == notebooks.notebook_text(chapter)
        notebook = nbformat.read(chapter.with_suffix(".ipynb"), 4)
        nbformat.validate(notebook)
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_the_book_and_the_notebook_hold_the_same_code():
    for chapter in notebooks.chapters():
        notebook = nbformat.read(chapter.with_suffix(".ipynb"), 4)
        ours = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        books = [cell.source for cell in notebooks.as_the_book_reads(chapter).cells if cell.cell_type == "code"]
        assert ours == books
