"""One source: code shown as the library's is the library's, numbers in prose come from code, references lead somewhere.

Needs the sources only, so that it fails before the book is built.
"""

import ast
import re
import textwrap
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import BibliographyData, parse_file

from course_lib import priors
from course_lib.check import EXERCISES

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "course_lib"
PAGES = sorted((ROOT / "book").glob("*.md"))
# Pages that no build executes are held to the same rules.
READ_ELSEWHERE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")]

# Numbers that change with the code or the data, or that are often told wrong. In prose they come by {glue:text}.
MAINTAINED = {
    len(priors.SSD300.boxes()): "SSD300's priors",
    len(priors.SSD_MINI.boxes()): "ssd_mini's priors",
    26_285_486: "SSD300's parameters",
    9963: "VOC2007's images",
    5011: "VOC2007 trainval's images",
    4952: "VOC2007 test's images",
    24_640: "VOC2007's objects that are not difficult",
    15_662: "VOC2007 trainval's objects",
    14_976: "VOC2007 test's objects",
    12_608: "VOC2007 trainval's objects that are not difficult",
    12_032: "VOC2007 test's objects that are not difficult",
    16_551: "images of VOC2007 and 2012 trainval",
}

PROSE = set("text code_inline math_inline math_inline_double math_block math_block_label amsmath html_block".split())
DIRECTIVE = re.compile(r"\{([^}]+)\}\s*(.*)")
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
CODE_HEAD = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
MAGIC = re.compile(r"^(\s*)[%!].*", re.MULTILINE)


# ---- reading a chapter -----------------------------------------------------------------------------------------------


@cache
def parser():
    extensions = {"amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "substitution", "tasklist"}
    return create_md_parser(MdParserConfig(enable_extensions=extensions), RendererHTML)


def directive(token: Token) -> tuple[str, str] | None:
    """Name and argument of a fence such as ```{figure} picture.png."""
    found = DIRECTIVE.match(token.info) if token.type in ("fence", "colon_fence") else None
    return (found[1], found[2]) if found else None


def tokens(markdown: str, first_line: int = 1) -> Iterator[tuple[int, Token]]:
    """Everything in a page with its line, inside of directives too; of a code cell only the head, which has its alt."""
    for token in parser().parse(markdown):
        line = first_line + (token.map[0] if token.map else 0)
        yield line, token
        for child in token.children or ():
            yield line, child
        match directive(token):
            case ("code-cell", _):
                head = CODE_HEAD.match(token.content)
                yield line, Token("text", "", 0, content=head[0] if head else "")
            case ("code" | "code-block" | "literalinclude", _) | None:
                pass
            case (_, argument):
                yield line, Token("text", "", 0, content=argument)
                yield from tokens(token.content, line + 1)


def python_blocks(markdown: str) -> Iterator[tuple[int, str]]:
    """Code cells and fenced Python, with magics made harmless."""
    for line, token in tokens(markdown):
        if token.type not in ("fence", "colon_fence"):
            continue
        name, argument = directive(token) or ("code", token.info.strip())
        if name == "code-cell" or (name in ("code", "code-block") and argument in ("python", "ipython3")):
            yield line, MAGIC.sub(r"\1pass", CODE_HEAD.sub("", token.content))


# ---- the rules: each gives a line per fault --------------------------------------------------------------------------


@cache
def library() -> dict[str, list[str]]:
    """The source of every public function and class that chapters teach, by name.

    Not the doctor's: its checks are called after what they look at, as variables of chapters are.
    """
    sources: dict[str, list[str]] = {}
    for path in {*LIBRARY.rglob("*.py")} - {*LIBRARY.glob("doctor/*")}:
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                sources.setdefault(node.name, []).append(source_of(node, text))
    return sources


def source_of(node: ast.FunctionDef | ast.ClassDef, text: str) -> str:
    first = min(one.lineno for one in (node, *node.decorator_list))
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def second_copies(markdown: str) -> list[str]:
    """Code that gives a name of the library to something else, and does not hand it to that name's grader."""
    faults = []
    for line, code in python_blocks(markdown):
        try:
            nodes = list(ast.walk(ast.parse(code)))
        except SyntaxError as error:
            faults.append(f"line {line}: not Python: {error}")
            continue
        defined = [
            node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in library()
        ]
        faults += [
            f"line {line}: {node.name} is not course_lib's; import that, or say naive_{node.name}"
            for node in defined
            if source_of(node, code) not in library()[node.name] and f'check("{node.name}"' not in code
        ]
    return faults


def own_solutions(markdown: str) -> list[str]:
    """Graded exercises whose right answer the page does not show as the grader has it, or writes a second time."""
    graded = set(re.findall(r'\bcheck\("(\w+)"', markdown))
    folded = re.findall(r"^```\{solution-start\}.*?^```\{solution-end\}", markdown, re.DOTALL | re.MULTILINE)
    written = {name for name in graded if any(re.search(rf"^def {name}\(", text, re.MULTILINE) for text in folded)}
    return [f'{name}: show solution("{name}")' for name in sorted(graded - shown_by_name(markdown) | written)]


def shown_by_name(markdown: str) -> set[str]:
    """Exercises whose right answer a page shows from the grader."""
    return set(re.findall(r'^solution\("(\w+)"\)', markdown, re.MULTILINE))


def objects(text: str) -> set[str]:
    """What :pyobject: can name: functions, classes and their methods."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return found


def wrong_includes(markdown: str, folder: Path) -> list[str]:
    """Inclusions of a file that is not there, or of the library by anything but the name of an object."""
    faults = []
    for line, token in tokens(markdown):
        match directive(token):
            case ("literalinclude", argument):
                path = (folder / argument).resolve()
                options = dict(re.findall(r"^:([\w-]+):[ ]*(.*)$", token.content, re.MULTILINE))
                if not path.is_file():
                    faults.append(f"line {line}: there is no {argument}")
                elif path.is_relative_to(LIBRARY):
                    name = options.get("pyobject", "")
                    if name not in objects(path.read_text(encoding="utf-8")):
                        faults.append(f"line {line}: {argument} has no object {name!r} (:pyobject:)")
    return faults


def spelled(number: int) -> re.Pattern:
    """26285486 as 26285486, 26,285,486, 26 285 486 or LaTeX's 26{,}285{,}486, and not as a part of another number."""
    separator = r"(?:[,'_ \N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}]|\{,\}|\\[,;])?"
    return re.compile(rf"(?<!\d)(?<!\d[.,])(?:{separator.join(f'{number:,}'.split(','))})(?![.,]?\d)")


def numbers_in_prose(markdown: str) -> list[str]:
    """Maintained numbers that an author has typed."""
    texts = [(line, token.content) for line, token in tokens(markdown) if token.type in PROSE]
    return [
        f"line {line}: {number:,} ({meaning}) must come from code: {{glue:text}}"
        for number, meaning in MAINTAINED.items()
        for line, text in texts
        if spelled(number).search(text)
    ]


def targets(markdown: str) -> set[str]:
    """Names that links can lead to: (name)= and the labels of directives."""
    named = {token.content for _, token in tokens(markdown) if token.type == "myst_target"}
    return named | set(re.findall(r"^:(?:label|name): *(\S+)", markdown, re.MULTILINE))


def dead_ends(markdown: str, folder: Path, names: Collection[str] = ()) -> list[str]:
    """Links and pictures whose file is not there, and that are not one of the names."""
    faults = []
    for line, token in tokens(markdown):
        target = token.attrs.get("href") or token.attrs.get("src") or ""
        match directive(token):
            case ("figure" | "image", argument):
                target = argument
        path = str(target).partition("#")[0]
        if path and path not in names and not re.match(r"[a-z]+:", path) and not (folder / path).exists():
            faults.append(f"line {line}: there is no {path}")
    return faults


def cited(markdown: str) -> set[str]:
    return {key.strip() for keys in CITATION.findall(markdown) for key in keys.split(",")}


def incomplete(bibliography: BibliographyData) -> list[str]:
    """Works that lack what a reader needs to find them; one that names no author has a `key` to be called by."""
    faults = []
    for name, entry in bibliography.entries.items():
        if not entry.persons.get("author") and "key" not in entry.fields:
            faults.append(f"{name}: no author")
        faults += [f"{name}: no {field}" for field in ("title", "year") if field not in entry.fields]
    return faults


# ---- every page keeps them -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bibliography() -> BibliographyData:
    """Raises on a key that is there twice and on what is not BibTeX."""
    return parse_file(ROOT / "book" / "references.bib")


@pytest.mark.parametrize("page", PAGES + READ_ELSEWHERE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_one_source(page):
    text = page.read_text(encoding="utf-8")
    faults = second_copies(text) + wrong_includes(text, page.parent) + numbers_in_prose(text)
    names = set().union(*(targets(other.read_text(encoding="utf-8")) for other in PAGES))
    assert faults + dead_ends(text, page.parent, names) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_right_answers_as_the_grader_has_them(page):
    assert own_solutions(page.read_text(encoding="utf-8")) == []


def test_every_exercise_is_on_a_page():
    assert set().union(*(shown_by_name(page.read_text(encoding="utf-8")) for page in PAGES)) == set(EXERCISES)


def test_every_citation_has_its_work_and_every_work_is_cited(bibliography):
    keys = set().union(*(cited(page.read_text(encoding="utf-8")) for page in PAGES))
    assert keys == set(bibliography.entries)
    assert incomplete(bibliography) == []


@pytest.mark.parametrize("page", sorted((ROOT / "book").glob("??_further.md")), ids=lambda page: page.stem)
def test_a_further_page_stands_below_its_chapter_and_each_leads_to_the_other(page):
    (chapter,) = {one for one in PAGES if one.name[:3] == page.name[:3]} - {page}
    assert f"({page.name}" in chapter.read_text(encoding="utf-8")
    assert f"({chapter.name}" in page.read_text(encoding="utf-8")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = {one["file"]: one for part in toc["parts"] for one in part["chapters"]}
    assert {"file": f"book/{page.stem}"} in chapters[f"book/{chapter.stem}"]["sections"]


# ---- each rule notices what it is for --------------------------------------------------------------------------------

CELL = "```{code-cell} ipython3\n%s\n```\n"


@pytest.mark.parametrize(
    "code",
    [
        "def box_iou(a, b):\n    return a @ b",
        "%matplotlib inline\nclass Trainer:\n    pass",
        "if True:\n    def decode(offsets):\n        return offsets",
        "def broken(:",
    ],
)
def test_a_second_copy_is_noticed(code):
    assert len(second_copies(CELL % code)) == 1
    assert len(second_copies(f"```python\n{code}\n```")) == 1
    assert len(second_copies(f":::{{admonition}} Title\n\n```python\n{code}\n```\n:::")) == 1


def test_the_library_s_own_source_a_naive_twin_and_an_exercise_are_no_second_copies():
    assert second_copies(CELL % library()["box_iou"][0]) == []
    assert second_copies(CELL % ":tags: [hide-input]\n\ndef naive_box_iou(a, b):\n    return a @ b") == []
    assert second_copies(CELL % 'def iou(a, b):\n    return 1\n\ncheck("iou", iou)') == []


FOLDED = "```{solution-start} an-exercise\n:class: dropdown\n```\n\n%s\n```{solution-end}\n```\n"


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ('solution("iou")', 0),
        ("def iou(a, b):\n    return 0.5", 1),
        ('def iou(a, b):\n    return 0.5\n\n\nsolution("iou")', 1),
        ('solution("iou_matrix")', 1),
    ],
)
def test_a_solution_of_the_pages_own_is_noticed(answer, faults):
    asked = CELL % 'def iou(a, b): ...\n\n\ncheck("iou", iou)'
    assert len(own_solutions(asked + FOLDED % (CELL % answer))) == faults


@pytest.mark.parametrize(
    ("path", "options", "faults"),
    [
        ("../course_lib/boxes.py", ":pyobject: decode", 0),
        ("../course_lib/priors.py", ":pyobject: PriorSpec.boxes", 0),
        ("../course_lib/boxes.py", ":pyobject: decode_all", 1),
        ("../course_lib/boxes.py", ":lines: 1-20", 1),
        ("../course_lib/box.py", ":pyobject: decode", 1),
    ],
)
def test_an_inclusion_of_nothing_is_noticed(path, options, faults):
    assert len(wrong_includes(f"```{{literalinclude}} {path}\n{options}\n```", ROOT / "book")) == faults


@pytest.mark.parametrize(
    "markdown",
    [
        "SSD300 has 8732 priors.",
        "# All 8,732",
        "The shape is `[8732, 4]`, and $P = 8{,}732$.",
        "$$\n26\\,285\\,486\n$$",
        "26 285 486 parameters",
        "| a |\n|---|\n| 5011. |",
        "```{figure} _static/detections.png\n:alt: All 8732 boxes.\n\nCaption\n```",
        ":::{admonition} 8732 boxes\n:class: tip\nText\n:::",
        "```{note}\nOf\n~~~{tip}\n15662 objects\n~~~\n```",
        CELL % "---\nmystnb:\n  image:\n    alt: The 8732 boxes.\n---\nx = 1",
        "[8732 boxes](notation.md), ![8732 boxes](_static/detections.png)",
        "<p>8732 boxes</p>",
    ],
)
def test_a_typed_number_is_noticed(markdown):
    assert numbers_in_prose(markdown)


@pytest.mark.parametrize(
    "markdown",
    [
        "{glue:text}`priors` priors",
        CELL % "assert len(boxes) == 8732",
        "```bash\necho 8732\n```",
        "% a comment for authors: 8732",
        "0.8732, 18732, 87320, 8732.5, 1,8732, 005011.jpg",
    ],
)
def test_code_and_other_numbers_are_left_alone(markdown):
    assert numbers_in_prose(markdown) == []


@pytest.mark.parametrize(
    "markdown", ["[text](gone.md#part)", "![text](gone.png)", "```{figure} gone.png\n:alt: text\n```", "> [a](gone.md)"]
)
def test_a_dead_end_is_noticed(markdown):
    assert len(dead_ends(markdown, ROOT / "book")) == 1


def test_links_that_lead_somewhere_are_left_alone():
    assert (
        dead_ends("[a](notation.md#boxes) [b](#here) [c](https://example.org/x) <me@example.org>", ROOT / "book") == []
    )


def test_citations_are_read_in_all_their_forms():
    assert cited("{cite}`a2016`, {cite:t}`b2017` and {cite:p}`c2018, d2019`") == {"a2016", "b2017", "c2018", "d2019"}


def test_an_incomplete_work_is_noticed():
    whole = "@misc{a, author = {A}, title = {B}, year = {2016}} @misc{c, key = {C}, title = {D}, year = {2017}}"
    broken = "@misc{e, author = {E}, title = {F}} @misc{g, title = {H}, year = {2018}}"
    assert incomplete(BibliographyData.from_string(whole, "bibtex")) == []
    assert incomplete(BibliographyData.from_string(broken, "bibtex")) == ["e: no year", "g: no author"]
