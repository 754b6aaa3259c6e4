"""Notebooks: made from the chapters, executed once, kept for the book.

    python tools/notebooks.py sync [--check]   chapters (book/*.md) to notebooks without outputs (book/*.ipynb)
    python tools/notebooks.py stage            copy those that must be executed to .notebooks
    python tools/notebooks.py store            take the executed copies into the book's cache

Between `stage` and `store`, `pytest --nbmake --overwrite .notebooks` executes the copies.
"""

import hashlib
import shutil
import sys
from datetime import datetime
from pathlib import Path

import jupytext
import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from myst_nb.core.read import read_myst_markdown_notebook

ROOT = Path(__file__).resolve().parent.parent
BOOK, BUILD = ROOT / "book", ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
STAGE = ROOT / ".notebooks"  # nbmake passes over folders named _build


def chapters() -> list[Path]:
    """The pages of the book that hold code."""
    return [path for path in sorted(BOOK.glob("*.md")) if "format_name: myst" in path.read_text(encoding="utf-8")]


def notebook_text(chapter: Path) -> str:
    """The notebook of a chapter: no outputs, and cell ids that depend on nothing but the cells."""
    notebook = jupytext.read(chapter, fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        content = f"{number} {cell.cell_type} {cell.source}"
        cell.id = hashlib.sha256(content.encode()).hexdigest()[:12]
    return nbformat.writes(notebook) + "\n"


def sync(check: bool) -> int:
    stale = []
    for chapter in chapters():
        notebook = chapter.with_suffix(".ipynb")
        text = notebook_text(chapter)
        if not notebook.exists() or notebook.read_text(encoding="utf-8") != text:
            stale.append(notebook.name)
            if not check:
                notebook.write_text(text, encoding="utf-8")
    orphans = {p.stem for p in BOOK.glob("*.ipynb")} - {p.stem for p in chapters()}
    stale += [f"{orphan}.ipynb (no chapter)" for orphan in sorted(orphans)]
    if check and stale:
        print(f"not what their chapters say: {', '.join(stale)}. Run `make sync`, and commit chapter and notebook.")
        return 1
    return 0


def library_fingerprint() -> str:
    """Of all that a notebook's outputs depend on beside its own code."""
    digest = hashlib.sha256()
    recorded = [*ROOT.glob("data/ssd_mini*"), *ROOT.glob("*/results/*.json")]
    for path in sorted([*ROOT.glob("course_lib/**/*.py"), *recorded, ROOT / "requirements.txt"]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def as_the_book_reads(chapter: Path) -> nbformat.NotebookNode:
    return read_myst_markdown_notebook(chapter.read_text(encoding="utf-8"), path=chapter)


def stage() -> int:
    BUILD.mkdir(exist_ok=True)
    mark = BUILD / "library"
    fingerprint = library_fingerprint()
    if not mark.exists() or mark.read_text() != fingerprint:
        shutil.rmtree(CACHE, ignore_errors=True)
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    mark.write_text(fingerprint)
    cache = get_cache(CACHE)
    for chapter in chapters():
        try:
            cache.match_cache_notebook(as_the_book_reads(chapter))
        except KeyError:
            shutil.copy(chapter.with_suffix(".ipynb"), STAGE)
    return 0


def seconds(executed: nbformat.NotebookNode) -> float:
    """From the start of the first cell to the end of the last."""
    times = [
        datetime.fromisoformat(stamp.replace("Z", "+00:00"))
        for cell in executed.cells
        for stamp in cell.metadata.get("execution", {}).values()
    ]
    return (max(times) - min(times)).total_seconds() if times else 0.0


def store() -> int:
    cache = get_cache(CACHE)
    for path in sorted(STAGE.glob("*.ipynb")):
        chapter = BOOK / f"{path.stem}.md"
        executed, notebook = nbformat.read(path, 4), as_the_book_reads(chapter)
        done = [cell for cell in executed.cells if cell.cell_type == "code"]
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        if [cell.source for cell in done] != [cell.source for cell in cells]:
            print(f"{path.name} is not {chapter.name}'s notebook. Run `make sync`.")
            return 1
        for cell, result in zip(cells, done, strict=True):
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
        bundle = CacheBundleIn(notebook, str(chapter), data={"execution_seconds": seconds(executed)})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        print(f"executed {chapter.stem} in {seconds(executed):.0f} s")
    return 0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["sync"]:
            return sync(check=False)
        case ["sync", "--check"]:
            return sync(check=True)
        case ["stage"]:
            return stage()
        case ["store"]:
            return store()
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
