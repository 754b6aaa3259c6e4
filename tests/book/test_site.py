"""The built site: needs no other host, no link leads nowhere, every picture can be heard."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """What a page loads, links to, and shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.silent_images: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if attributes.get("id"):
            self.ids.add(attributes["id"])
        # rel="canonical" and the like are addresses, not requests.
        loads = tag != "link" or attributes.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon")
        if LOADED.get(tag) in attributes and loads:
            self.loads.append(attributes[LOADED[tag]])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "img" and not (attributes.get("alt") or "").strip():
            self.silent_images.append(attributes.get("src", ""))


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    if not (SITE / "index.html").exists():
        pytest.skip("the book is not built: make book")
    return {path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts}


def test_no_page_loads_anything_from_another_host(pages):
    for page in pages.values():
        for address in page.loads:
            assert not urlparse(address).netloc, f"{page.path.name} loads {address}"
        # sphinx-thebe names its address in every page, and asks for it only if a button that we do not have is clicked.
        text = re.sub(r'THEBE_JS_URL = "[^"]*"', "", page.path.read_text(encoding="utf-8"))
        for host in ("cdn.", "unpkg.com", "jsdelivr", "googleapis"):
            assert host not in text, f"{page.path.name} mentions {host}"


def test_what_a_page_loads_is_there(pages):
    for page in pages.values():
        for address in page.loads:
            if not address.startswith("data:"):
                assert (page.path.parent / unquote(urlparse(address).path)).exists(), f"{page.path.name}: {address}"


def test_internal_links_lead_somewhere(pages):
    for page in pages.values():
        for link in page.links:
            parts = urlparse(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            assert target.exists(), f"{page.path.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{page.path.name}: {link}"


def test_every_picture_has_alternative_text(pages):
    for page in pages.values():
        assert page.silent_images == [], page.path.name


def test_no_page_shows_an_error_or_a_warning_of_a_cell(pages):
    for page in pages.values():
        text = page.path.read_text(encoding="utf-8")
        for sign in ("Traceback", "output stderr", "cell_output traceback"):
            assert sign not in text, f"{page.path.name}: {sign}"
