"""The built site in a browser, in light and dark, on a desk and on a phone: nothing breaks, everything can be used.

Drives the Chromium of the system, and skips with a reason where there is none.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import DESK, PHONE, served
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "book/00_ten_minutes"
# How many figures of a page move, at least.
MOVING = {
    "book/01_voc": 2,
    "book/02_augmentation": 2,
    "book/03_backbone": 3,
    "book/04_priors": 3,
    "book/04_further": 1,
    "book/05_model": 2,
    "book/06_matching": 2,
    "book/07_multibox": 2,
    "book/07_further": 1,
    "book/08_focal": 3,
    "book/08_further": 1,
    "book/09_training": 3,
    "book/09_further": 1,
    "book/10_detections": 3,
    "book/11_map": 2,
    "book/11_further": 1,
    "book/12_own_pictures": 2,
    "book/13_doctor": 3,
    "book/14_case_study": 2,
    "book/15_advice": 2,
    "book/16_backbones": 2,
    "book/16_further": 1,
    "book/recipes": 1,
    "book/thin_layers": 2,
}

pytestmark = pytest.mark.slow


def unfold(page: Page) -> None:
    """Show all that waits for a click, and wait until it has faded in: half faded, no text has contrast."""
    page.evaluate("""async () => {
        document.querySelectorAll("details").forEach(one => { one.open = true });
        document.querySelectorAll(".toggle-hidden button.toggle-button").forEach(one => one.click());
        document.querySelectorAll(".dropdown-menu").forEach(one => one.classList.add("show"));
        const seconds = count => new Promise(done => setTimeout(done, 1000 * count));
        await seconds(0.1);
        await Promise.race([seconds(3), Promise.allSettled(document.getAnimations().map(one => one.finished))]);
    }""")


def barriers(page: Page, **options: object) -> list[str]:
    """What axe-core finds against WCAG's A and AA and against good practice; no rule is left out."""
    # Without preload: false axe fetches style sheets itself, and their imports from the wrong folder.
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"], **options}).response
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def sideways(page: Page) -> list[str]:
    """What makes the whole page scroll sideways. Code, tables and formulas may scroll in a box of their own."""
    return page.evaluate("""() => [document.scrollingElement, document.body, ...document.querySelectorAll("main")]
        .filter(one => one.scrollWidth > one.clientWidth)
        .map(one => `${one.tagName} is ${one.scrollWidth} wide and has ${one.clientWidth}`)""")


def still_figures(page: Page) -> list[str]:
    """Moving figures that do not move by the arrow keys, or whose picture moves and its words do not."""
    still = []
    for number, figure in enumerate(page.locator("figure.moving").all(), start=1):
        slider = figure.locator("input[type=range]")
        slider.focus()
        at_end = slider.evaluate("one => one.value === one.max")
        before = shown(page, number - 1)
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        after = shown(page, number - 1)
        still += [
            f"figure {number}: {part} stays {before[part]!r:.60}" for part in before if before[part] == after[part]
        ]
    return still


def shown(page: Page, number: int) -> dict[str, str]:
    """What a reader and a listener have of a moving figure."""
    return (
        page.locator("figure.moving")
        .nth(number)
        .evaluate("""figure => {
        const pictures = [...figure.querySelectorAll("img")].filter(one => one.checkVisibility());
        return {
            picture: pictures.map(one => one.src).join(),
            alt: pictures.map(one => one.alt).join(),
            value: figure.querySelector("output").textContent,
        };
    }""")
    )


def background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


# ---- every page ------------------------------------------------------------------------------------------------------


def test_on_a_desk(page_name, page_path, home, visit):
    page, faults = visit(f"{home}/{page_name}.html")
    unfold(page)
    assert barriers(page) == []
    assert still_figures(page) == []
    light = background(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert background(page) != light
    assert barriers(page, runOnly=["color-contrast"]) == []
    assert faults == []


def test_on_a_phone_in_the_dark(page_name, page_path, home, visit):
    page, faults = visit(f"{home}/{page_name}.html", PHONE, "dark")
    assert sideways(page) == []
    unfold(page)
    assert sideways(page) == []
    # Colours are those of the desk.
    assert barriers(page, rules={"color-contrast": {"enabled": False}}) == []
    assert faults == []


def test_figures_move_in_a_page_that_is_opened_as_a_file(page_name, page_path, visit):
    count = page_path.read_text(encoding="utf-8").count('class="moving"')
    assert count >= MOVING.get(page_name, 0)
    if count:
        page, faults = visit(page_path.as_uri())
        assert page.locator("figure.moving").count() == count
        assert still_figures(page) == []
        assert faults == []


# ---- what a reader does ----------------------------------------------------------------------------------------------


def test_the_first_address_leads_to_the_book(home, visit):
    page, faults = visit(f"{home}/index.html")
    page.wait_for_url("**/book/intro.html")
    assert faults == []


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_search_finds_a_word(home, visit, size):
    page, faults = visit(f"{home}/search.html?q=prior", size)
    page.locator("#search-results li a[href*='glossary.html']").first.wait_for()
    assert barriers(page) + sideways(page) == []
    assert faults == []


def test_search_from_a_page(home, visit):
    page, faults = visit(f"{home}/{CHAPTER}.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("devkit")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=devkit")
    page.locator("#search-results li a[href*='glossary.html']").first.click()
    page.wait_for_url("**/book/glossary.html*")
    assert faults == []


def code_of(notebook: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]


def test_the_copy_button_copies_the_code(home, visit):
    page, faults = visit(f"{home}/{CHAPTER}.html")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button.copybtn").filter(visible=True).first.click()  # the imports are folded away
    copied = page.evaluate("navigator.clipboard.readText()").strip()
    assert copied in code_of((ROOT / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))
    assert faults == []


def test_the_download_buttons_give_the_chapter(home, visit):
    page, faults = visit(f"{home}/{CHAPTER}.html")
    for kind, name in (("notebook", f"{CHAPTER}.ipynb"), ("source", f"{CHAPTER}.md")):
        page.get_by_label("Download this page").click()
        with page.expect_download() as download:
            page.locator(f".btn-download-{kind}-button").click()
        assert download.value.suggested_filename == Path(name).name
        given, ours = (Path(path).read_text(encoding="utf-8") for path in (download.value.path(), ROOT / name))
        assert given == ours if kind == "source" else code_of(given) == code_of(ours)
    assert faults == []


def test_the_reader_s_choice_of_light_or_dark_stays(home, visit):
    page, faults = visit(f"{home}/{CHAPTER}.html")
    light = background(page)
    page.get_by_label("Color mode").click()
    dark = background(page)
    assert dark != light
    page.goto(f"{home}/book/glossary.html")
    assert background(page) == dark
    assert faults == []


def test_a_solution_is_folded_until_it_is_asked_for(home, visit):
    page, _ = visit(f"{home}/{CHAPTER}.html")
    solution = page.locator(".solution").first
    text = solution.locator("p").last
    assert not text.is_visible()
    solution.locator("button.toggle-button").click()
    text.wait_for(state="visible")


# ---- each rule notices what it is for --------------------------------------------------------------------------------

GOOD = (
    '<!doctype html><html lang="en"><title>A page</title><body style="background:white"><main><h1>A page</h1>%s</main>'
)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
FIGURE = f"""<figure class="moving"><img src="{PIXEL}" alt="One box."><img src="{PIXEL}#" alt="Two boxes." hidden>
<label>Boxes <input type="range" min="0" max="1" value="%d" oninput="%s"></label><output>1</output></figure>"""
MOVE = """const figure = this.closest('figure');
figure.querySelectorAll('img').forEach((one, index) => {{ one.hidden = {condition} }});
figure.querySelector('output').textContent = this.value + ' now'"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("pages")
    with served(folder) as address:
        yield folder, address


@pytest.fixture
def visit_page_with(visit, scratch):
    def open_page(html: str, size: dict[str, int] = DESK) -> tuple[Page, list[str]]:
        folder, address = scratch
        (folder / "page.html").write_text(GOOD % html)
        return visit(f"{address}/page.html", size)

    return open_page


def test_a_good_page_has_no_faults(visit_page_with):
    page, faults = visit_page_with(f'<img src="{PIXEL}" alt="A box."><p>Black on white.</p>', PHONE)
    assert faults + barriers(page) + sideways(page) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<script>no_such_function()</script>", "error: "),
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<img src='gone.png' alt='A box.'>", "404: "),
        ("<img src='http://127.0.0.2:9/box.png' alt='A box.'>", "asks http://127.0.0.2:9"),
        ("<img src='http://127.0.0.2:9/box.png' alt='A box.'>", "failed: http://127.0.0.2:9"),
    ],
)
def test_a_broken_page_is_noticed(html, fault, visit_page_with):
    _, faults = visit_page_with(html)
    assert any(one.startswith(fault) for one in faults), faults


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        ("<p style='color:#999'>Grey on white.</p>", "color-contrast"),
        (f"<img src='{PIXEL}'>", "image-alt"),
        ("<input type='range'>", "label"),
        ("<button></button>", "button-name"),
        ("<a href='#here'></a>", "link-name"),
        ("<table><tr><th></th></tr><tr><td>1</td></tr></table>", "empty-table-header"),
    ],
)
def test_a_barrier_is_noticed(html, rule, visit_page_with):
    page, _ = visit_page_with(html)
    assert any(one.startswith(f"{rule}: ") for one in barriers(page)), barriers(page)


def test_a_page_that_scrolls_sideways_is_noticed(visit_page_with):
    page, _ = visit_page_with("<p style='width:500px'>Wide.</p>", PHONE)
    assert sideways(page)


@pytest.mark.parametrize(
    ("start", "condition", "still"),
    [
        (0, "index != this.value", []),
        (1, "index != this.value", ["picture", "alt"]),  # shows the first picture at first, and after
        (0, "index != 0", ["picture", "alt"]),
    ],
)
def test_a_still_figure_is_noticed(start, condition, still, visit_page_with):
    page, _ = visit_page_with(FIGURE % (start, MOVE.format(condition=condition)))
    faults = still_figures(page)
    assert [fault.split()[2] for fault in faults] == still


def test_a_figure_without_a_script_is_noticed(visit_page_with):
    page, _ = visit_page_with(FIGURE % (0, ""))
    assert len(still_figures(page)) == 3
