"""Notebooks: made from the chapters, executed when something they depend on has changed, kept for the book.

python tools/notebooks.py sync [--check]   chapters (book/*.md) to notebooks without outputs (book/*.ipynb)
python tools/notebooks.py run [AT_ONCE]    execute those that need it, so many at once; each is kept when it has passed
"""

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from filelock import FileLock
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat.reader import NotJSONError
from sqlalchemy.exc import DatabaseError

from course_lib.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
BOOK, BUILD = ROOT / "book", ROOT / "_build"
CACHE, KEYS = BUILD / ".jupyter_cache", BUILD / "notebook_keys.json"
CLAIMS = "NOTEBOOK_CLAIMS"  # in the environment of the processes of one run: the folder where they share out the work

# ---- chapters and their notebooks ------------------------------------------------------------------------------------


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


def as_the_book_reads(chapter: Path) -> nbformat.NotebookNode:
    return read_myst_markdown_notebook(chapter.read_text(encoding="utf-8"), path=chapter)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ---- what a notebook's outputs depend on -----------------------------------------------------------------------------

# Names by which code gets at docstrings and comments; `name?` becomes pinfo, typer prints them as help.
DOCUMENTATION = set("help __doc__ getdoc getcomments getsourcelines typer".split())
MAGIC_DOCUMENTATION = set("pinfo pinfo2 pdoc psource pfile".split())
IMPORTS_BY_NAME = {"import_module", "__import__", "run_module"}
LISTS_A_FOLDER = {"glob", "rglob", "iterdir", "listdir", "scandir", "walk"}
RESULTS_FOLDER = re.compile(r"(\A|/)results/?\Z")
SHOWS_SOURCE = {"source", "getsource", "solution"}  # book.source, inspect.getsource and check.solution


def modules() -> dict[str, Path]:
    """The files of the library by the dotted names of its modules."""
    found = {}
    for path in sorted((ROOT / "course_lib").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parsed(text: str) -> ast.Module | None:
    """None where it is not Python."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


@cache
def without_words(text: str) -> str:
    """What is left of a module without comments, layout and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(ast.Constant(str())), *rest]:
                node.body = rest
    return ast.dump(tree)


@cache
def imports(tree: ast.Module, module: str = "") -> list[tuple[str, str]]:
    """What is imported anywhere in a module, also within functions: (name there, dotted name)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found += [(alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names]
    return found


@cache
def names(tree: ast.Module) -> set[str]:
    """Names and attributes that a module uses or imports."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return used | {part for _, dotted in imports(tree) for part in dotted.split(".")}


@cache
def strings(tree: ast.Module) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def reached(notebook: ast.Module) -> dict[str, ast.Module] | None:
    """The library's modules that a notebook imports, and those that they import; None where nobody can tell."""
    files = modules()
    # A string that names the library is a command line, perhaps: `!python -m course_lib --help`.
    if any("course_lib" in text for text in strings(notebook)) or MAGIC_DOCUMENTATION & strings(notebook):
        return None
    found, waiting = {}, {"": notebook}
    while waiting:
        module, tree = waiting.popitem()
        if tree is None or IMPORTS_BY_NAME & names(tree):
            return None
        found[module] = tree
        package = module in files and files[module].name == "__init__.py"
        for _, dotted in imports(tree, f"{module}.__init__" if package else module):
            parts = dotted.split(".")
            steps = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
            waiting |= {name: parsed(read(files[name])) for name in steps & files.keys() - found.keys()}
    del found[""]
    return found


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def shown(notebook: ast.Module) -> list[str] | None:
    """The source of what `book.source` and `solution` show of the library; None where one of them is not found."""
    known = dict(imports(notebook))
    shows = {node for node in ast.walk(notebook) if isinstance(node, ast.Attribute) and node.attr in SHOWS_SOURCE}
    shows |= {node for node in ast.walk(notebook) if isinstance(node, ast.Name) and node.id in SHOWS_SOURCE & {*known}}
    calls = [node for node in ast.walk(notebook) if isinstance(node, ast.Call) and node.func in shows]
    renamed = [dotted for name, dotted in known.items() if dotted.split(".")[-1] in SHOWS_SOURCE - {name}]
    if renamed or len(shows) > len(calls):
        return None  # called by another name, perhaps
    texts = []
    for call in calls:
        if ast.unparse(call.func).split(".")[-1] == "solution":
            texts.append(solution_of(call))
            continue
        first, *rest = ast.unparse(call.args[0]).split(".") if call.args else [""]
        dotted = ".".join([known.get(first, ""), *rest])
        if dotted.startswith("course_lib."):
            texts.append(source_of(dotted))
        elif first not in known:
            return None
    return None if None in texts else texts


def solution_of(call: ast.Call) -> str | None:
    """The text of the right answer that `solution("name")` shows; None where there is not exactly one."""
    match call.args:
        case [ast.Constant(str(name))]:
            chapters = [module for module in modules() if module.startswith("course_lib.exercises.")]
            texts = [text for module in chapters if (text := source_of(f"{module}.{name}"))]
            return texts[0] if len(texts) == 1 else None
    return None


def source_of(dotted: str) -> str | None:
    """The text of a function, class or method, up to the next one; None where there is not exactly one."""
    files = modules()
    module = max((name for name in files if dotted.startswith(f"{name}.")), key=len)
    text = read(files[module])
    body, start, end = ast.parse(text).body, 0, len(text.splitlines())
    for name in dotted[len(module) + 1 :].split("."):
        named = [node for node in body if getattr(node, "name", None) == name]
        if len(named) != 1:
            return None
        after = body[body.index(named[0]) + 1 :]
        start, end = first_line(named[0]), first_line(after[0]) - 1 if after else end
        body = named[0].body
    return "\n".join(text.splitlines()[start - 1 : end])


def first_line(node: ast.stmt) -> int:
    return min(one.lineno for one in (node, *getattr(node, "decorator_list", [])))


def recorded(trees: list[ast.Module] | None) -> list[Path]:
    """The recorded results that the code names; all where nobody can tell, or where it looks into their folder."""
    every = sorted([*ROOT.glob("data/ssd_mini*"), *ROOT.glob("*/results/*.json")])
    if trees is None or any(reads_a_folder_of_results(tree) for tree in trees):
        return every
    texts = set().union(*map(strings, trees))
    # What is named may be read with another suffix: ssd_mini.safetensors has its ssd_mini.json.
    suffixes = {"", *(path.suffix for path in every)}
    return [path for path in every if any(named(f"{path.stem}{suffix}", texts) for suffix in suffixes)]


def named(name: str, texts: set[str]) -> bool:
    return any(text == name or text.endswith(f"/{name}") for text in texts)


def reads_a_folder_of_results(tree: ast.Module) -> bool:
    """Whether a module names the folder, and lists folders or puts names of files together."""
    put_together = LISTS_A_FOLDER & names(tree) or any(text.startswith((".json", "*")) for text in strings(tree))
    return bool(put_together) and any(RESULTS_FOLDER.search(text) for text in strings(tree))


def other_files() -> list[Path]:
    """The list of packages, and what the library holds beside Python."""
    held = (path for path in (ROOT / "course_lib").rglob("*") if "__pycache__" not in path.parts and path.is_file())
    return [ROOT / "requirements.txt", *sorted(path for path in held if path.suffix != ".py")]


def python(cells: list[str]) -> ast.Module | None:
    """The cells as one module, magics as the calls that IPython makes of them; None where that is not Python."""
    return parsed("".join(TransformerManager().transform_cell(cell) for cell in cells))


def key(chapter: Path) -> str:
    """One hash of all that the outputs of a chapter's notebook depend on.

    That is its code; the code of the library's modules that it reaches; the whole text, with comments and
    docstrings, of what it shows by `book.source` and `solution`; the recorded results that it reads; and the
    versions of the packages. Where nobody can tell what it reaches or shows, it is the whole text of the whole library.
    """
    cells = [cell.source for cell in code_cells(as_the_book_reads(chapter))]
    notebook = python(cells)
    trees, sources = (reached(notebook), shown(notebook)) if notebook else (None, None)
    world = {name: os.environ.get(name, "") for name in ("COURSE_PROFILE", "COURSE_DEVKIT")}
    parts = {"cells": cells, "world": world, "shown": sources}
    if trees is None or sources is None or any(DOCUMENTATION & names(tree) for tree in (notebook, *trees.values())):
        parts["library"] = {name: read(path) for name, path in modules().items()}
    else:
        parts["library"] = {name: without_words(read(path)) for name, path in modules().items() if name in trees}
    files = [*recorded(None if trees is None else [notebook, *trees.values()]), *other_files()]
    parts["files"] = {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# ---- executing and keeping them --------------------------------------------------------------------------------------


def read_keys() -> dict[str, str]:
    """The key with which each notebook was executed, by the chapter's name."""
    try:
        return json.loads(KEYS.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_key(chapter: Path, key: str | None) -> None:
    keys = read_keys() | {chapter.stem: key}
    write_whole(KEYS, json.dumps({name: key for name, key in keys.items() if key}, indent=1) + "\n")


def open_cache() -> JupyterCacheBase:
    """The book's cache; a new one where a kill left a database that cannot be read."""
    try:
        cache = get_cache(CACHE)
        cache.list_cache_records()
    except (DatabaseError, RuntimeError) as error:
        if "locked" in str(error.__cause__ or error):
            raise
        print(f"{CACHE} cannot be read and is made anew")
        shutil.rmtree(CACHE)
        cache = get_cache(CACHE)
    return cache


def done(chapter: Path) -> bool:
    """Whether the book has the outputs of a chapter's notebook as it is now."""
    if read_keys().get(chapter.stem) != key(chapter):
        return False
    cache = open_cache()
    try:
        cache.get_cache_bundle(cache.match_cache_notebook(as_the_book_reads(chapter)).pk)
    except (KeyError, NotJSONError):
        return False
    return True


def seconds(executed: nbformat.NotebookNode) -> float:
    """From the start of the first cell to the end of the last."""
    times = [
        datetime.fromisoformat(stamp.replace("Z", "+00:00"))
        for cell in executed.cells
        for stamp in cell.metadata.get("execution", {}).values()
    ]
    return (max(times) - min(times)).total_seconds() if times else 0.0


def store(chapter: Path, executed: nbformat.NotebookNode, key: str) -> None:
    """Give the outputs of a notebook to the book.

    The chapter counts as executed only when all of them are there: a kill before the end means that it is
    executed again.

    Args:
        chapter: the page.
        executed: its notebook, with outputs.
        key: of the chapter, before it was executed.

    Raises:
        ValueError: the chapter's code has been edited since.
    """
    notebook = as_the_book_reads(chapter)
    cells, results = code_cells(notebook), code_cells(executed)
    if [cell.source for cell in results] != [cell.source for cell in cells]:
        raise ValueError(f"{chapter.stem}.ipynb is not {chapter.name}'s notebook. Run `make sync`.")
    for cell, result in zip(cells, results, strict=True):
        cell.outputs, cell.execution_count = result.outputs, result.execution_count
    bundle = CacheBundleIn(notebook, str(chapter), data={"execution_seconds": seconds(executed)})
    with FileLock(BUILD / "notebooks.lock"):
        cache = open_cache()
        write_key(chapter, None)
        _, name = cache.create_hashed_notebook(notebook)
        shutil.rmtree(CACHE / "executed" / name, ignore_errors=True)  # also what a kill left there
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        write_key(chapter, key)


def run(at_once: int) -> int:
    """Execute what must be executed, in some processes that share it and the cores; gives an exit code."""
    BUILD.mkdir(exist_ok=True)
    every = chapters()
    wanted = [chapter for chapter in every if not done(chapter)]
    if not wanted:
        print("all notebooks are up to date")
        return 0
    print(f"executing {len(wanted)} of {len(every)} notebooks: {', '.join(one.stem for one in wanted)}", flush=True)
    paths = [str(one.with_suffix(".ipynb")) for one in wanted]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "tools.live_notebooks", "--nbmake", *paths]
    at_once = min(at_once, len(wanted))
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}
    with TemporaryDirectory() as claims:
        environment = threads | os.environ | {CLAIMS: claims}
        processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(at_once)]
        signal.signal(signal.SIGTERM, lambda *_: [one.terminate() for one in processes])
        signal.signal(signal.SIGINT, lambda *_: None)  # a terminal's Ctrl-C has reached them, too
        return max(abs(one.wait()) for one in processes)


def claimed(name: str) -> bool:
    """Whether this process is the first of its run to ask for a notebook: it executes it, and no other does."""
    folder = os.environ.get(CLAIMS)
    try:
        if folder:
            Path(folder, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main(arguments: list[str]) -> int:
    match arguments:
        case ["sync"]:
            return sync(check=False)
        case ["sync", "--check"]:
            return sync(check=True)
        case ["run", *at_once]:
            return run(int(*at_once or ["1"]))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
