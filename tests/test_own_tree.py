"""A reader's own pictures through the public API: from a folder to boxes under the reader's own names."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from typer.testing import CliRunner
from xml_files import dog, write

from course_lib import cli, detect, losses, metrics, own_tree, profiles, runs, trees, viz, voc, weights
from course_lib.files import DataError
from course_lib.profiles import Profile
from course_lib.recipes import Recipe
from course_lib.runs import RunError
from course_lib.training import Trainer
from course_lib.voc import ImageDataset, ImageSet

NAMES = ("big screw", "nut", "wäsher")
COLOURS = ("crimson", "gold", "navy")


SET_SIZES = {"train": 8, "val": 2, "test": 2}


def draw(tree: Path, image_id: str, seed: int) -> None:
    """A grey picture with one block of each class, and its annotation."""
    rng = np.random.default_rng(seed)
    picture, objects = Image.new("RGB", (120, 90), (90, 90, 90)), []
    for place, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        left, top = 40 * place + int(rng.integers(8)), int(rng.integers(40))
        ImageDraw.Draw(picture).rectangle((left, top, left + 29, top + 34), fill=colour)
        objects.append(dog(name=name, xmin=left + 1, ymin=top + 1, xmax=left + 30, ymax=top + 35))
    picture.save(tree / "JPEGImages" / f"{image_id}.PNG")
    write(tree / "Annotations" / f"{image_id}.xml", *objects, width=120, height=90)


def draw_tree(tree: Path) -> Path:
    """Pictures and lists of `SET_SIZES`."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    first = 0
    for name, size in SET_SIZES.items():
        numbers, first = range(first, first + size), first + size
        for number in numbers:
            draw(tree, f"bench {number} (left)", number)
        write_list(tree, name, numbers)
    return tree


def write_list(tree: Path, name: str, numbers: Iterable[int]) -> None:
    (tree / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(f"bench {number} (left)" for number in numbers))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_tree(tmp_path_factory.mktemp("data") / "my work bench")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tree to change."""
    return draw_tree(tmp_path / "my bench")


@pytest.fixture(scope="module")
def profile(tree: Path) -> Profile:
    """The cpu profile on that tree, so small that a run takes a second."""
    names = voc.find_classes(tree, "train")
    usual = profiles.cpu()
    return replace(
        usual,
        name="bench",
        train=(ImageSet(tree, "train", names),),
        select=(ImageSet(tree, "val", names),),
        test=(ImageSet(tree, "test", names),),
        recipe=replace(usual.recipe, epochs=1, batch_size=4, warmup_steps=0, learning_rate=1e-4),
        workers=0,
        pretraining_steps=2,
    )


@pytest.fixture(scope="module")
def run(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    run = tmp_path_factory.mktemp("runs") / "bench"
    profile.prepare()
    trainer = Trainer(
        profile.start(run),
        profile.training_set(),
        profile.training_transform(),
        profile.recipe,
        run,
        evaluate=profile.selector(),
        notes={"profile": profile.name},
    )
    assert 0 <= trainer.fit()[-1]["map"] <= 1
    return run


def test_the_tree_has_no_fault_and_its_names_are_found(tree, profile):
    assert list(trees.check_tree(tree)) == [] == list(trees.check_tree(profile.train[0]))
    assert profile.classes == NAMES
    counts = voc.survey(profile.train[0].annotations(), profile.classes)
    assert counts["classes"] == dict.fromkeys(NAMES, 8)


@pytest.mark.slow
def test_the_names_travel_into_the_weights_and_the_measure(run, profile):
    model = weights.load(run / "best.safetensors")
    assert model.classes == NAMES and model.num_classes == 4
    found = profile.detections(model, profile.test)
    result = metrics.evaluate_voc(found, ImageDataset(profile.test).annotations(), classes=model.classes)
    assert tuple(result.ap) == NAMES and all(0 <= ap <= 1 for ap in result.ap.values())


@pytest.mark.slow
def test_the_commands_measure_and_detect_under_the_trees_own_names(run, profile, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "profile", lambda name=None: profile)
    done = CliRunner().invoke(cli.app, ["evaluate", "--run", str(run), "--json"])
    assert done.exit_code == 0 and tuple(json.loads(done.stdout)["ap"]) == NAMES
    picture, out = tree / "JPEGImages" / "bench 10 (left).PNG", tmp_path / "found"
    asked = ["detect", str(picture), "--weights", str(run / "best.safetensors"), "--out", str(out), "--threshold", "0"]
    done = CliRunner().invoke(cli.app, asked)
    assert done.exit_code == 0 and (out / "bench 10 (left).png").exists()
    named = {line[2:14].strip() for line in done.stdout.splitlines() if line.startswith("  ")}
    assert named and named <= set(NAMES)


@pytest.mark.slow
def test_boxes_are_drawn_with_the_trees_own_names(run, profile):
    model = weights.load(run / "best.safetensors")
    image, target = ImageDataset(profile.test)[0]
    assert torch.equal(target.labels, torch.tensor([1, 2, 3]))
    _, (truth, found) = viz.grid(2, 1)
    viz.draw_target(truth, image, target, model.classes)
    assert [text.get_text() for text in truth.texts] == list(NAMES)
    viz.draw_detections(found, image, detect.detect_image(model, image), 0.0, model.classes)
    assert found.texts and all(text.get_text().startswith(NAMES) for text in found.texts)


# ---- a tree in a run ---------------------------------------------------------------------------------------------


def test_a_profile_on_a_tree_has_its_lists_and_the_classes_of_the_training_list(own, monkeypatch):
    write(own / "Annotations/bench 9 (left).xml", dog(name="only in val"), width=120, height=90)
    monkeypatch.chdir(own.parent)
    chosen = own_tree.profile_on(profiles.cpu(), "my bench")
    assert chosen.classes == NAMES and chosen.record is None and chosen.train[0].tree == own
    assert [sets[0].name for sets in (chosen.train, chosen.select, chosen.test)] == ["train", "val", "test"]
    facts = own_tree.facts(chosen)
    assert (facts["tree"], facts["train_on"], facts["select_on"]) == (str(own), "train", "val")
    (own / "ImageSets/Main/test.txt").unlink()
    chosen = own_tree.profile_on(profiles.cpu(), own, "val", None)
    assert chosen.classes == tuple(sorted((*NAMES, "only in val"))) and chosen.select == chosen.test == ()
    assert chosen.selector() is None and own_tree.facts(chosen)["select_on"] is None


def test_a_training_list_without_an_object_is_refused(own):
    """Training went to its end at loss 0."""
    for number in range(SET_SIZES["train"]):
        write(own / f"Annotations/bench {number} (left).xml", width=120, height=90)
    with pytest.raises(DataError, match=r"train.txt: objects is 'none of the 0 classes in 8 images': annotate"):
        own_tree.profile_on(profiles.cpu(), own)


@given(st.integers(2, 5000), st.integers(1, 64), st.integers(1, 400), st.integers(0, 5000))
def test_a_recipe_for_few_images_has_steps_and_a_warmup_that_is_shorter(images, batch, epochs, warmup):
    recipe = Recipe(epochs, batch, "sgd", 1e-3, warmup_steps=warmup, evaluate_every=3)
    fit = own_tree.fitted(recipe, images)
    an_epoch = images // fit.batch_size
    steps = fit.epochs * an_epoch
    assert steps >= own_tree.STEPS or batch > images  # which `training.require_batches` refuses
    assert fit.warmup_steps <= max(steps / 10, 0) and fit.epochs >= epochs and fit.batch_size <= batch
    assert an_epoch >= own_tree.STEPS_AN_EPOCH or fit.batch_size <= 2
    assert own_tree.fitted(fit, images) == fit
    assert fit.epochs // fit.evaluate_every <= epochs // recipe.evaluate_every
    if images // batch >= own_tree.STEPS_AN_EPOCH and epochs * (images // batch) >= max(10 * warmup, own_tree.STEPS):
        assert fit == recipe


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [("train", "test"), ("trainval", "test"), ("my_train", "my_test"), ("a_trainval", "a_test"), ("trains", "test")],
)
def test_the_list_to_measure_on_belongs_to_the_one_that_was_learned_from(train_on, expected):
    assert own_tree.test_list(train_on) == expected


def a_run_on(run: Path, chosen: Profile, **more: object) -> Path:
    """A run's folder, as far as its provenance goes."""
    run.mkdir(exist_ok=True)
    (run / runs.STATE).touch()
    known = {"best_epoch": 1, "profile": "cpu", "classes": list(chosen.classes), "data": own_tree.facts(chosen)}
    (run / "provenance.json").write_text(json.dumps(known | more))
    return run


def asked(tree: Path, train_on: str = "train", select_on: str | None = "val") -> dict:
    return own_tree.facts(own_tree.profile_on(profiles.cpu(), tree, train_on, select_on))


def test_a_run_goes_on_with_its_own_tree_and_with_no_other(own, tmp_path):
    run = a_run_on(tmp_path / "run", own_tree.profile_on(profiles.cpu(), own))
    (tmp_path / "link").symlink_to(own)
    for same in (own, tmp_path / "link"):
        assert own_tree.require_same(run, asked(same)) is None
    other = shutil.copytree(own, tmp_path / "other")
    refused = [
        (asked(other), [f"tree={str(own)!r}", f"tree={str(other)!r}"]),
        (asked(own, select_on=None), ["select_on='val'", "select_on=None"]),
        (asked(own, "val", "test"), ["train_on='train'", "train_on='val'", "select_on='test'"]),
        (None, [f"tree={str(own)!r}", "the profile's own"]),
    ]
    for now, said in refused:
        with pytest.raises(RunError, match="which is not what is asked for now") as error:
            own_tree.require_same(run, now)
        assert all(words in str(error.value) for words in (*said, "--fresh")), error.value
    write_list(own, "train", [1, 0, *range(2, 8)])  # another order, and an interrupted epoch had others
    with pytest.raises(RunError, match="train_ids="):
        own_tree.require_same(run, asked(own))
    assert own_tree.require_same(tmp_path / "no run yet", asked(own)) is None


def test_a_run_of_a_profile_does_not_go_on_with_a_tree(own, tmp_path):
    chosen = own_tree.profile_on(profiles.cpu(), own)
    run = a_run_on(tmp_path / "run", chosen, data=None)
    assert own_tree.require_same(run, None) is None
    with pytest.raises(RunError, match='tree="the profile\'s own", which is not what is asked for now'):
        own_tree.require_same(run, own_tree.facts(chosen))


def test_a_tree_that_has_moved_is_the_same_and_one_with_other_lists_is_not(own, tmp_path):
    run = a_run_on(tmp_path / "run", own_tree.profile_on(profiles.cpu(), own))
    was = str(own)
    moved = own.rename(tmp_path / "moved")
    assert own_tree.require_same(run, asked(moved)) == was
    image_set, remarks = own_tree.to_measure(run, moved)
    assert (image_set.tree, image_set.name, image_set.classes, remarks) == (moved, "test", NAMES, [])
    with pytest.raises(RunError, match="my bench, which is not there any more: give --data TREE"):
        own_tree.to_measure(run)
    write_list(moved, "train", range(7))
    with pytest.raises(RunError, match="tree="):
        own_tree.require_same(run, asked(moved))


def test_what_a_run_is_measured_on(own, tmp_path):
    run = a_run_on(tmp_path / "run", own_tree.profile_on(profiles.cpu(), own))
    assert own_tree.to_measure(run)[0].name == "test" and own_tree.to_measure(run)[1] == []
    for name, said in (("val", "val told which epoch is best"), ("train", "train was learned from")):
        image_set, (remark,) = own_tree.to_measure(run, on=name)
        assert image_set.name == name and remark.startswith(said)
    (own / "ImageSets/Main/test.txt").unlink()
    assert own_tree.to_measure(run)[0].name == "val" and len(own_tree.to_measure(run)[1]) == 1
    with pytest.raises(DataError, match="list to measure on is 'tset': its lists are val, train: name one with --on"):
        own_tree.to_measure(run, on="tset")
    other = shutil.copytree(own, tmp_path / "other")
    with pytest.raises(DataError, match="list to measure on is 'test'"):
        own_tree.to_measure(run, other)
    assert own_tree.to_measure(run, other, "train") == (ImageSet(other, "train", NAMES), [])
    without = a_run_on(tmp_path / "without", own_tree.profile_on(profiles.cpu(), own), data=None)
    with pytest.raises(RunError, match="give --data TREE"):
        own_tree.to_measure(without, on="val")


def test_a_class_in_the_ground_truth_that_was_not_learned_is_said(own, tmp_path):
    run = a_run_on(tmp_path / "run", own_tree.profile_on(profiles.cpu(), own))
    for number, names in ((10, ("Nut", "van")), (11, ("van", "nut"))):
        objects = [dog(name=name) for name in names]
        write(own / f"Annotations/bench {number} (left).xml", *objects, width=120, height=90)
    _, remarks = own_tree.to_measure(run)
    left = "a class that was not learned: left out"
    assert remarks == [
        f"test has 1 object named 'Nut', {left}; is it 'nut'?",
        f"test has 2 objects named 'van', {left}",
    ]


def test_a_run_that_was_started_from_weights_goes_on_with_these_or_without_the_file(tmp_path, some_weights):
    run, other = tmp_path / "run", tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    own_tree.require_same_start(run, some_weights)  # nothing is begun
    chosen = replace(profiles.cpu(), pretraining_steps=0, start_weights=some_weights)
    model = chosen.start(run)
    begun = runs.started_from(run)
    assert begun["file"] == "w.safetensors" and begun["new"] == [] and tuple(begun["classes"]) == voc.VOC_CLASSES
    for name, tensor in weights.load(some_weights).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    again = replace(chosen, start_weights=tmp_path / "gone.safetensors").start(run, seed=5)
    assert torch.equal(again.conf_heads[0].weight, model.conf_heads[0].weight)
    for file in (some_weights, tmp_path / "gone.safetensors"):
        own_tree.require_same_start(run, file)
    with pytest.raises(RunError, match=r"was started from w\.safetensors .*, which is not .*other\.safetensors"):
        own_tree.require_same_start(run, other)
    (run / runs.START).unlink()
    (run / runs.STATE).touch()
    (run / "provenance.json").write_text(json.dumps({"best_epoch": 1, runs.STARTED_FROM: begun}))
    assert runs.started_from(run) == begun
    (run / "provenance.json").write_text(json.dumps({"best_epoch": 1}))
    with pytest.raises(RunError, match="was started without --start"):
        own_tree.require_same_start(run, some_weights)


def test_focal_losss_biases_are_not_put_over_those_that_were_taken(tmp_path):
    """A start with all classes known would have forgotten how sure it was of each."""
    known = profiles.cpu().model()
    known.scoring = "sigmoid"
    with torch.no_grad():
        known.conf_heads[0].bias.fill_(3.0)
    weights.save(known, tmp_path / "w.safetensors")
    chosen = replace(profiles.cpu(), pretraining_steps=0, start_weights=tmp_path / "w.safetensors")
    for _ in range(2):  # the second goes on from the file of the start
        model = chosen.start(tmp_path / "run", loss=losses.FocalLoss())
        assert model.scoring == "sigmoid" and (model.conf_heads[0].bias == 3).all()
    anew = chosen.start(tmp_path / "softmax", loss=losses.MultiBoxLoss())
    assert (anew.conf_heads[0].bias == 0).all()


def emoji_in_three_classes(devkit: Path, tree: Path) -> Path:
    """EmojiVOC's first pictures under names with spaces, every third as PNG, their twenty classes told as three."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    ids = voc.read_image_set(devkit, "2007", "trainval")[:18]
    for number, image_id in enumerate(ids):
        path, name = voc.image_path(devkit, "2007", image_id), f"my picture {number}"
        if number % 3:
            shutil.copy(path, tree / "JPEGImages" / f"{name}.jpg")
        else:
            Image.open(path).save(tree / "JPEGImages" / f"{name}.png")
        xml = voc.annotation_path(devkit, "2007", image_id).read_text()
        for label, known in enumerate(voc.VOC_CLASSES):
            xml = xml.replace(f"<name>{known}</name>", f"<name>{('cup of tea', 'Löffel', 'dog')[label % 3]}</name>")
        (tree / "Annotations" / f"{name}.xml").write_text(xml)
    for name, numbers in {"train": range(12), "val": range(12, 15), "test": range(15, 18)}.items():
        (tree / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(f"my picture {number}" for number in numbers))
    return tree


@pytest.mark.slow
def test_from_a_folder_to_boxes_by_the_command_line(call, small_devkit, tmp_path, monkeypatch, root):
    """As a reader does it, with weights of other classes to start from; and what goes on afterwards."""
    monkeypatch.chdir(tmp_path)
    tree = emoji_in_three_classes(small_devkit, tmp_path / "my data")
    start = shutil.copy(root / "data" / "ssd_mini.safetensors", tmp_path / "known.safetensors")
    learn = ("train", "--run", "run", "--data", "my data", "--profile", "cpu", "--recipe", "workers=0")
    done = call(*learn, "--epochs", 1, "--start", start)
    assert done.returncode == 0, done.stderr
    for words in ("cup of tea", "Löffel", "dog", "12 pictures in batches of 2", "Started from known.safetensors"):
        assert words in done.stdout
    assert "classes taken: dog; begun anew: Löffel, cup of tea; left out: " in done.stdout
    provenance = json.loads(Path("run/provenance.json").read_text())
    assert provenance["classes"] == ["Löffel", "cup of tea", "dog"] and provenance["data"]["tree"] == str(tree)
    assert provenance["started_from"]["file"] == "known.safetensors" and provenance["pretraining_steps"] == 0

    report = json.loads(call("evaluate", "--run", "run", "--json").stdout)
    assert report["on"] == "test" and report["images"] == 3 and set(report["ap"]) == {*provenance["classes"]}
    kept = Path("run/evaluation_area.json").read_bytes()
    other = call("evaluate", "--run", "run", "--data", small_devkit / "VOC2007", "--on", "test", "--json")
    assert other.returncode == 0 and json.loads(other.stdout)["images"] == 12
    assert "named 'aeroplane', a class that was not learned" in other.stderr
    assert Path("run/evaluation_area.json").read_bytes() == kept

    found = call("detect", "my data/JPEGImages", "--weights", "run/best.safetensors", "--threshold", 0.01, "--json")
    rows = json.loads(found.stdout)
    assert [Path(row["path"]).suffix for row in rows].count(".png") == 6 and len(rows) == 18
    assert {one["class"] for row in rows for one in row["objects"]} <= {*provenance["classes"]}

    Path(start).unlink()
    tree.rename(tmp_path / "elsewhere")
    gone = call("evaluate", "--run", "run")
    assert gone.returncode == 1 and "give --data TREE, where it is now" in gone.stderr
    longer = call(*learn[:4], "elsewhere", *learn[5:], "--epochs", 2)
    assert longer.returncode == 0 and f"The tree of this run was {tree}" in longer.stdout, longer.stderr
    again = json.loads(Path("run/provenance.json").read_text())
    assert again["data"]["tree"] == str(tmp_path / "elsewhere") and again["epochs_done"] == 2
    assert again["started_from"] == provenance["started_from"]
