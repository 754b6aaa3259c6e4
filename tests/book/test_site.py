"""The built site as files: needs no other host, no link leads nowhere, every picture can be heard, no cell failed."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
# rel="canonical" and the like are addresses, not requests.
LOADED_BY_LINK = {"stylesheet", "icon", "preload"}
SIGNS_OF_TROUBLE = ("Traceback", "output stderr", "output traceback", "system-message", 'class="problematic"', "[?]")


@dataclass(frozen=True)
class Page:
    path: Path
    text: str

    @cached_property
    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.text, "html.parser")

    @cached_property
    def ids(self) -> set[str]:
        return {tag["id"] for tag in self.soup.select("[id]")}

    @property
    def loads(self) -> list[str]:
        """What a browser asks for without being told to."""
        links = [tag["href"] for tag in self.soup.select("link[href]") if LOADED_BY_LINK & set(tag.get("rel", []))]
        return links + [tag[LOADED[tag.name]] for tag in self.soup.find_all(list(LOADED)) if tag.get(LOADED[tag.name])]


def other_hosts(page: Page) -> list[str]:
    named = [host for host in ("cdn.", "unpkg.com", "jsdelivr", "googleapis") if host in page.text]
    return named + [address for address in page.loads if urlparse(address).netloc]


def missing_files(page: Page) -> list[str]:
    local = (address for address in page.loads if not urlparse(address).scheme)
    return [address for address in local if not (page.path.parent / unquote(urlparse(address).path)).exists()]


def dead_links(page: Page, pages: dict[Path, Page]) -> list[str]:
    """Links within the site to a page that is not there, or to an id that the page does not have."""
    dead = []
    for link in (tag["href"] for tag in page.soup.select("a[href]")):
        parts = urlparse(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        lost = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids
        if lost or not target.exists():
            dead.append(link)
    return dead


def unresolved(page: Page) -> list[str]:
    """References and citations that Sphinx has left as text, or as nothing."""
    left = [tag for tag in page.soup.select(".xref") if not tag.find_parent("a") and tag.name != "a"]
    return [str(tag) for tag in left + page.soup.select(".bibtex-citation:not(:has(a))")]


def repeated_ids(page: Page) -> list[str]:
    """Ids that are there twice: a link, a label and a script find only the first."""
    counts = Counter(tag["id"] for tag in page.soup.select("[id]"))
    return [name for name, count in counts.items() if count > 1]


def silent_images(page: Page) -> list[str]:
    return [tag.get("src", "")[:80] for tag in page.soup.find_all("img") if not tag.get("alt", "").strip()]


def signs_of_trouble(page: Page) -> list[str]:
    return [sign for sign in SIGNS_OF_TROUBLE if sign in page.text]


def solutions_that_fail(page: Page) -> list[str]:
    """Verdicts in folded solutions: the graders must accept what the book gives as an answer."""
    verdicts = page.soup.select(".solution .check:not(.check-passed), .solution .check.check-failed")
    return [verdict.get_text(" ", strip=True) for verdict in verdicts]


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    paths = (path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts)
    return {path: Page(path, path.read_text(encoding="utf-8")) for path in paths}


@pytest.mark.parametrize(
    "rule", [other_hosts, missing_files, unresolved, repeated_ids, silent_images, signs_of_trouble, solutions_that_fail]
)
def test_every_page_keeps(rule, pages):
    assert {page.path.name: faults for page in pages.values() if (faults := rule(page))} == {}


def test_internal_links_lead_somewhere(pages):
    assert {page.path.name: dead for page in pages.values() if (dead := dead_links(page, pages))} == {}


@pytest.mark.parametrize(
    ("rule", "html"),
    [
        (other_hosts, '<script src="https://elsewhere.example/x.js"></script>'),
        (other_hosts, '<link rel="stylesheet" href="//elsewhere.example/x.css">'),
        (other_hosts, '<script>load("https://unpkg.com/x")</script>'),
        (missing_files, '<img src="missing.png" alt="A box.">'),
        (unresolved, 'see <code class="xref std std-ref">nowhere</code>'),
        (unresolved, '<span class="bibtex-citation" id="id1"></span>'),
        (repeated_ids, '<p id="a"></p><p id="b"></p><p id="a"></p>'),
        (silent_images, '<img src="data:,"><img src="data:," alt="A box.">'),
        (silent_images, '<img src="data:," alt=" ">'),
        (signs_of_trouble, "as shown in [?]"),
        (signs_of_trouble, '<div class="output stderr">a warning</div>'),
        (
            solutions_that_fail,
            '<div class="solution"><p class="check check-passed"></p><p class="check check-failed"></p></div>',
        ),
    ],
)
def test_a_fault_is_noticed(rule, html, tmp_path):
    assert len(rule(Page(tmp_path / "bad.html", html))) == 1


def test_a_failed_verdict_outside_a_solution_is_no_fault(tmp_path):
    assert solutions_that_fail(Page(tmp_path / "bad.html", '<p class="check check-failed"></p>')) == []


def test_a_dead_link_is_noticed(tmp_path):
    good = Page(tmp_path / "good.html", '<p id="here">')
    good.path.write_text(good.text)
    bad = Page(
        tmp_path / "bad.html", '<a href="good.html#here"><a href="good.html#gone"><a href="gone.html"><a href="#gone">'
    )
    pages = {page.path: page for page in (good, bad)}
    bad.path.write_text(bad.text)
    assert dead_links(bad, pages) == ["good.html#gone", "gone.html", "#gone"]
