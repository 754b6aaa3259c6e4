"""A tree of one's own in a run: its lists and classes, what the run says of them, and whether it goes on with them."""

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from course_lib import runs, trees, weights
from course_lib.annotations import nearest
from course_lib.files import DataError, sha256
from course_lib.profiles import Profile
from course_lib.recipes import Recipe
from course_lib.runs import ANEW, RunError
from course_lib.voc import ImageDataset, ImageSet, require_objects

ELSEWHERE = "the profile's own"
STEPS_AN_EPOCH, STEPS = 4, 300  # at least, where few images are to be learned from: see `fitted`


def profile_on(chosen: Profile, tree: str | Path, train_on: str = "train", select_on: str | None = "val") -> Profile:
    """A profile whose data is a tree: its model tells the classes apart that the training list's annotations name.

    Its recipe is `fitted` to the number of images.

    Args:
        train_on: the list to learn from.
        select_on: the list that tells which epoch is best; None: the last one is.

    Raises:
        DataError: the folder is no tree (see `trees.require_tree`), a list cannot be used, or no object is in the
            training list.
    """
    tree = trees.require_tree(tree).resolve()
    classes = tuple(sorted(trees.count_names(tree, ImageSet(tree, train_on).ids)))
    if not classes:
        require_objects(ImageDataset([ImageSet(tree, train_on, classes)]))
    test = test_list(train_on) if test_list(train_on) in trees.list_names(tree) else None
    train, select, test = (
        (ImageSet(tree, name, classes),) if name is not None else () for name in (train_on, select_on, test)
    )
    recipe = fitted(chosen.recipe, len(train[0]))
    return replace(chosen, train=train, select=select, test=test, recipe=recipe, record=None)


def test_list(train_on: str = "train") -> str:
    """The list by which nothing is chosen, where a tree has one: "test" to "train", "my_test" to "my_train"."""
    name, count = re.subn(r"train(val)?$", "test", train_on)
    return name if count else "test"


def fitted(recipe: Recipe, images: int) -> Recipe:
    """A recipe for so few images that its batches and epochs were meant for more; for many it stays as it is.

    Batches are halved until an epoch has `STEPS_AN_EPOCH`, and epochs are added until there are `STEPS` in all, with as
    many measurements as before. The warmup is at most a tenth of all steps.
    """
    batch = recipe.batch_size
    while batch > 2 and images // batch < STEPS_AN_EPOCH:
        batch //= 2
    epochs = max(recipe.epochs, -(-STEPS // max(images // batch, 1)))
    every = -(-recipe.evaluate_every * epochs // recipe.epochs)
    return with_room(replace(recipe, batch_size=batch, epochs=epochs, evaluate_every=every), images, share=0.1)


def with_room(recipe: Recipe, images: int, share: float = 1.0) -> Recipe:
    """A recipe whose warmup is a tenth of all steps where it was more than a share of them."""
    steps = recipe.epochs * (images // recipe.batch_size)
    return replace(recipe, warmup_steps=steps // 10) if recipe.warmup_steps >= share * steps else recipe


def facts(chosen: Profile) -> dict[str, str | None]:
    """What a run on a tree says of its data, and what must be the same when it goes on.

    "tree", "train_on" and "select_on", which is None where the last epoch is kept; "train_ids" and "select_ids" tell
    the lists from any others.
    """
    parts = {"train": chosen.train, "select": chosen.select}
    return (
        {"tree": str(chosen.train[0].tree)}
        | {f"{part}_on": sets[0].name if sets else None for part, sets in parts.items()}
        | {f"{part}_ids": fingerprint(sets[0].ids) if sets else None for part, sets in parts.items()}
    )


def fingerprint(ids: Sequence[str]) -> str:
    """Twelve letters that tell a list from any other."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def require_same(run: Path, asked: Mapping[str, str | None] | None) -> str | None:
    """Refuse to go on with a run on other data than it was begun with. A tree that has moved is the same.

    Args:
        asked: the `facts` of what is asked for; None where that is a profile's own data.

    Returns:
        Where the tree was, if it has moved; None else, and where there is nothing to go on with.

    Raises:
        RunError: it names what differs, as it was and as it is asked for.
    """
    known = runs.known_of(run) if runs.has_state(run) else {}
    if not known:
        return None
    begun = known.get("data") or {"tree": ELSEWHERE}
    asked = asked or {"tree": ELSEWHERE}
    differing = [name for name in begun if name in asked and begun[name] != asked[name]]
    if differing == ["tree"] and len(asked) == len(begun) > 1:
        if same_folder(begun["tree"], asked["tree"]):
            return None
        if not Path(begun["tree"]).is_dir():
            return begun["tree"]
    if differing:
        was, now = (", ".join(f"{name}={one[name]!r}" for name in differing) for one in (begun, asked))
        raise RunError(f"{run} was started with {was}, which is not what is asked for now ({now}): {ANEW}")
    return None


def same_folder(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def require_same_start(run: Path, file: Path) -> None:
    """Refuse to go on with a run that was started from other weights; a file that is gone is not needed any more.

    Raises:
        RunError: it names the file and the one that the run was started from.
    """
    if not (runs.has_state(run) or (run / runs.START).exists()):
        return
    begun = runs.started_from(run)
    if begun is None:
        raise RunError(f"{run} was started without --start, and asked for now is --start {file}: {ANEW}")
    if file.exists() and (now := sha256(file)) != begun["sha256"]:
        was = f"{begun['file']} (sha256 {begun['sha256'][:12]}…)"
        raise RunError(f"{run} was started from {was}, which is not {file} ({now[:12]}…): {ANEW}")


def to_measure(run: Path, tree: Path | None = None, on: str | None = None) -> tuple[ImageSet, list[str]]:
    """On what to measure a run: on the tree that it was trained on, or another.

    Args:
        on: a list; None for the `test_list`, or where the tree has none the list that told which epoch is best.

    Returns:
        The image set, with the classes that the run has learned; and remarks: where the list cannot tell how good the
        detector is, and of objects that it has never heard of.

    Raises:
        RunError: the run's own tree is wanted and gone, or it has none.
        DataError: `tree` is none.
    """
    known = runs.read_provenance(run)
    data = known.get("data") or {}
    own = Path(data["tree"]) if data else None
    if tree is None and own is None:
        raise RunError(f"{run} was trained on {ELSEWHERE} data: give --data TREE, the folder to measure on")
    if tree is None and not own.is_dir():
        raise RunError(f"{run} was trained on {own}, which is not there any more: give --data TREE, where it is now")
    tree = trees.require_tree(tree or own).resolve()
    lists = trees.list_names(tree)
    at_home = bool(data) and (same_folder(tree, own) or not own.is_dir())
    usual = test_list(data["train_on"]) if at_home else test_list()
    if at_home and usual not in lists:
        usual = data["select_on"]
    if (on or usual) not in lists:
        cure = f"its lists are {some_lists(tree)}: name one with --on"
        raise DataError(tree / trees.LISTS, "list to measure on", on or test_list(), cure)
    classes = known.get("classes") or weights.load(run / "best.safetensors").classes
    image_set = ImageSet(tree, on or usual, classes)
    remarks = unknown_names(image_set)
    if at_home and image_set.name in (data["train_on"], data["select_on"]):
        what = "was learned from" if image_set.name == data["train_on"] else "told which epoch is best"
        remarks.insert(0, f"{image_set.name} {what}: on new pictures the result would be lower")
    return image_set, remarks


def some_lists(tree: str | Path) -> str:
    """The names of a tree's lists in a line, VOC's class lists, which have the longer names, last."""
    return textwrap.shorten(", ".join(sorted(trees.list_names(tree), key=len)), 80) or "none"


def unknown_names(image_set: ImageSet) -> list[str]:
    """A sentence for each name of an object that is none of the classes: how many there are, and what may be meant."""
    objects = trees.count_names(image_set.tree, image_set.ids)
    said = []
    for name in sorted(objects.keys() - {*image_set.classes}):
        meant = nearest(name, image_set.classes)
        number = "1 object" if objects[name] == 1 else f"{objects[name]} objects"
        text = f"{image_set.name} has {number} named {name!r}, a class that was not learned: left out"
        said.append(f"{text}; is it {meant!r}?" if meant else text)
    return said
