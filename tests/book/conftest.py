"""The built site and its pages, for all tests of the book."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"


def pages_in_toc(node: object) -> Iterator[str]:
    """The names of all pages, such as book/intro, in the order of the table of contents."""
    if isinstance(node, dict):
        yield from (node[key] for key in ("root", "file") if key in node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from pages_in_toc(child)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with `page_name` runs for every page."""
    if "page_name" in metafunc.fixturenames:
        toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
        metafunc.parametrize("page_name", pages_in_toc(toc))


@pytest.fixture(scope="session")
def site() -> Path:
    if not (SITE / "index.html").exists():
        pytest.skip("the book is not built: make book")
    return SITE


@pytest.fixture
def page_path(site: Path, page_name: str) -> Path:
    path = site / f"{page_name}.html"
    if not path.exists():
        pytest.skip(f"{page_name} came after the book was built: make book")
    return path
