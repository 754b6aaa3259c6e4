"""The built site and its pages, for all tests of the book."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chromium import BROWSERS, DESK, QUIET, fails, leaves, served
from playwright.sync_api import Browser, Error, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
PATIENCE = 300_000  # milliseconds: a machine may be slow, or busy with something else


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"there is no browser here: none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        except Error as error:
            pytest.skip(f"{found} does not start: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def home(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture
def visit(browser: Browser) -> Iterator:
    """Opens a page in a window of its own; gives it and the list of what goes wrong, which grows as it is used."""
    contexts = []

    def open_page(address: str, size: dict[str, int] = DESK, scheme: str = "light") -> tuple[Page, list[str]]:
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page, faults, host = context.new_page(), [], address.split("/")[2]
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else 0)
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}") if fails(request) else 0)
        page.on(
            "response", lambda answer: faults.append(f"{answer.status}: {answer.url}") if answer.status > 399 else 0
        )
        page.on("request", lambda request: faults.append(f"asks {request.url}") if leaves(request.url, host) else 0)
        page.goto(address)
        page.wait_for_function("async () => { await window.MathJax?.startup?.promise; return true }")
        return page, faults

    yield open_page
    for context in contexts:
        context.close()
