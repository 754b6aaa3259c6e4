import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import emoji_voc, metrics, trees, voc
from course_lib.emoji_voc import EMOJI, draw_scene, make_emoji_voc
from course_lib.files import DataError, is_alive, write_whole
from course_lib.voc import VOC_CLASSES, read_annotation


def tree_hash(devkit: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((devkit / "VOC2007").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(devkit).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes_whoever_draws(small_devkit, tmp_path):
    again = make_emoji_voc(tmp_path / "again", train=40, test=12, workers=2)
    other = make_emoji_voc(tmp_path / "other", train=40, test=12, seed=1, workers=1)
    assert tree_hash(again) == tree_hash(small_devkit) != tree_hash(other)


def test_it_is_a_true_devkit_tree(small_devkit):
    root = small_devkit / "VOC2007"
    ids = {name: voc.read_image_set(small_devkit, "2007", name) for name in ("train", "val", "trainval", "test")}
    assert ids["train"] + ids["val"] == ids["trainval"] and len(ids["trainval"]) == 40 and len(ids["test"]) == 12
    assert not set(ids["trainval"]) & set(ids["test"])
    assert {p.stem for p in root.glob("JPEGImages/*.jpg")} == set(ids["trainval"] + ids["test"])
    assert list(trees.check_tree(voc.ImageSet(root, "trainval"))) == []
    for label, name in enumerate(VOC_CLASSES, start=1):
        for image_set, members in ids.items():
            rows = [row.split() for row in (root / f"ImageSets/Main/{name}_{image_set}.txt").read_text().splitlines()]
            assert [row[0] for row in rows] == members
            for image_id, presence in rows:
                annotation = voc.read_annotation(voc.annotation_path(small_devkit, "2007", image_id))
                of_class = annotation.labels == label
                easy = bool((of_class & ~annotation.difficult).any())
                assert presence == ("1" if easy else "0" if of_class.any() else "-1")


def test_unseen_emoji_are_in_the_test_set_alone(small_devkit):
    def drawn(image_set):
        truth = metrics.read_ground_truth(small_devkit, "2007", image_set)
        return {e for a in truth for e in a.path.read_text().split("<emoji>")[1:] for e in [e.split("<")[0]]}

    unseen = emoji_voc.unseen_emoji()
    assert drawn("test") & unseen and not drawn("trainval") & unseen
    for known, only_test in EMOJI.values():
        assert known.split() and only_test.split() and not set(known.split()) & set(only_test.split())


def test_every_emoji_of_the_recipe_is_installed():
    tones = [tone for tone in emoji_voc.SKIN_TONES if tone]
    for name, pools in EMOJI.items():
        for emoji in " ".join(pools).split():
            for tone in ("", *(tones if name == "person" else ())):
                assert emoji_voc.sprite(emoji + tone).shape[2] == 4
    assert all(emoji_voc.sprite(emoji).shape[2] == 4 for emoji in emoji_voc.CLUTTER)
    assert not set(emoji_voc.CLUTTER) & {e for pools in EMOJI.values() for e in " ".join(pools).split()}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.booleans())
def test_every_scene_keeps_its_promises(seed, test):
    scene = draw_scene(test, np.random.default_rng(seed))
    height, width = scene.image.shape[:2]
    assert (width, height) in emoji_voc.SIZES and 1 <= len(scene.objects) <= 10
    for item in scene.objects:
        xmin, ymin, xmax, ymax = item.box_px
        assert 0 <= xmin < xmax <= width and 0 <= ymin < ymax <= height
        longest = max(xmax - xmin, ymax - ymin) / (width * height) ** 0.5
        assert longest <= emoji_voc.LARGEST + 0.02


def test_difficulty_shares_are_those_that_were_frozen():
    """The recipe decides what every number in the book means: a change must be seen, and RECIPE raised."""
    scenes = [draw_scene(True, np.random.default_rng([emoji_voc.RECIPE, 99, k])) for k in range(60)]
    objects = [item for scene in scenes for item in scene.objects]
    unseen = emoji_voc.unseen_emoji()
    assert 0.05 < np.mean([item.difficult for item in objects]) < 0.2
    assert 0.08 < np.mean([item.truncated for item in objects]) < 0.25
    assert 0.2 < np.mean([item.emoji in unseen for item in objects]) < 0.45


def test_split_by_emoji_counts_every_object_once(small_devkit):
    truth = metrics.read_ground_truth(small_devkit, "2007", "test")
    split = emoji_voc.split_by_emoji(truth)
    for whole, known, unseen in zip(truth, split["known"], split["unseen"], strict=True):
        counts = (~known.difficult).int() + (~unseen.difficult).int()
        assert torch.equal(counts, (~whole.difficult).int())
    assert sum(int((~a.difficult).sum()) for a in split["unseen"]) > 0


def test_split_by_emoji_takes_no_notice_of_objects_that_were_left_out(small_devkit, tmp_path):
    truth = metrics.read_ground_truth(small_devkit, "2007", "test")
    annotation = next(one for one in truth if len(one.labels) > 1)
    for name in ("zebra", " zebra\n"):
        path = tmp_path / annotation.path.name
        path.write_text(re.sub("<name>.*?</name>", f"<name>{name}</name>", annotation.path.read_text(), count=1))
        rest = read_annotation(path)
        assert len(rest.labels) == len(annotation.labels) - 1
        for part, whole in emoji_voc.split_by_emoji([annotation]).items():
            (found,) = emoji_voc.split_by_emoji([rest])[part]
            assert torch.equal(found.difficult, whole[0].difficult[1:])


def test_a_finished_tree_is_left_alone_and_another_is_refused(small_devkit, tmp_path):
    before = tree_hash(small_devkit)
    assert make_emoji_voc(small_devkit, train=40, test=12) == small_devkit and tree_hash(small_devkit) == before
    with pytest.raises(DataError, match="choose another devkit folder"):
        make_emoji_voc(small_devkit, train=41, test=12)
    (tmp_path / "VOC2007").mkdir()
    (tmp_path / "VOC2007" / "precious").touch()
    with pytest.raises(DataError, match="not EmojiVOC"):
        make_emoji_voc(tmp_path, train=4, test=2)
    assert (tmp_path / "VOC2007" / "precious").exists() and tree_hash(small_devkit) == before


def written(devkit: Path) -> list[Path]:
    return list(devkit.glob(f"{emoji_voc.UNFINISHED_TREES}/Annotations/*.xml"))


@pytest.mark.slow
def test_killed_halfway_it_goes_on_and_ends_the_same(small_devkit, tmp_path):
    """Killed with no chance to tidy up, twice; the tree has no name until it is whole."""
    for images in (5, 20):
        process = multiprocessing.get_context("spawn").Process(
            target=make_emoji_voc, args=(tmp_path, 40, 12), kwargs={"workers": 1}
        )
        process.start()
        while len(written(tmp_path)) < images and process.is_alive():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (tmp_path / "VOC2007").exists()
    make_emoji_voc(tmp_path, train=40, test=12, workers=1)
    assert tree_hash(tmp_path) == tree_hash(small_devkit)
    assert not list(tmp_path.rglob("*.unfinished"))


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not list(Path("/proc/self/task").glob("*/children")), reason="/proc names no children here")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_parent_that_is_killed_leaves_no_worker_and_no_stray_file(small_devkit, tmp_path, method):
    """Two workers of 370 MB once lived on, waiting for work."""
    code = (
        "import multiprocessing; from pathlib import Path; from course_lib.emoji_voc import make_emoji_voc; "
        f"multiprocessing.set_start_method({method!r}); make_emoji_voc(Path({str(tmp_path)!r}), 40, 12, workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", f"if __name__ == '__main__': exec({code!r})"])
    while len(written(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.01)
    workers = [pid for pid in children(process.pid) if b"resource_tracker" not in command_line(pid)]
    assert len(workers) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 600
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_alive(pid) for pid in workers)
    make_emoji_voc(tmp_path, train=40, test=12, workers=1)
    assert tree_hash(tmp_path) == tree_hash(small_devkit) and not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize("writer", ["a worker that lives on", "a process that is gone", "this process's number"])
def test_a_worker_that_outlives_its_run_leaves_nothing_in_the_tree(small_devkit, tmp_path, writer):
    """Killed itself in mid-write, after the next run had cleared the folder, it once left its part in the tree."""
    left = shutil.copytree(small_devkit / "VOC2007", tmp_path / ".VOC2007.unfinished")
    for path in sorted(left.glob("Annotations/*.xml"))[45:]:
        path.unlink()
    pid = {"a worker that lives on": os.getppid(), "a process that is gone": 2**22 + 1}.get(writer, os.getpid())
    part = left / f"JPEGImages/000001.jpg.{pid}.unfinished"
    part.write_text("cut off")
    make_emoji_voc(tmp_path, train=40, test=12, workers=1)
    assert tree_hash(tmp_path) == tree_hash(small_devkit) and not list(tmp_path.rglob("*.unfinished"))
    with pytest.raises(OSError, match=r"000001\.jpg"):  # what that worker would write now has no place
        write_whole(left / "JPEGImages/000001.jpg", b"another recipe's")


def command_line(pid: int) -> bytes:
    """How a process was called; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_what_another_recipe_left_unfinished_is_not_mixed_in(small_devkit, tmp_path):
    unfinished = tmp_path / ".VOC2007.unfinished"
    (unfinished / "Annotations").mkdir(parents=True)
    (unfinished / "Annotations" / "000001.xml").write_text("from another recipe")
    (unfinished / "emoji_voc.json").write_text(json.dumps({"recipe": 0}))
    make_emoji_voc(tmp_path, train=40, test=12, workers=1)
    assert tree_hash(tmp_path) == tree_hash(small_devkit)


def test_of_several_unfinished_trees_one_is_gone_on_with_and_the_others_go(small_devkit, tmp_path):
    first = shutil.copytree(small_devkit / "VOC2007", tmp_path / ".VOC2007.1.unfinished")
    shutil.copytree(first, tmp_path / ".VOC2007.2.unfinished")
    shutil.copytree(first, tmp_path / ".VOC2007.3.unfinished")
    (tmp_path / ".VOC2007.3.unfinished" / "emoji_voc.json").write_text("cut o")
    kept = (first / "Annotations/000001.xml").stat().st_ino
    make_emoji_voc(tmp_path, train=40, test=12, workers=1)
    assert tree_hash(tmp_path) == tree_hash(small_devkit) and not list(tmp_path.rglob("*.unfinished"))
    assert (tmp_path / "VOC2007/Annotations/000001.xml").stat().st_ino == kept  # not drawn anew


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 2 and 1"):
        make_emoji_voc(tmp_path, train=1)
