"""A reader's own pictures through the public API: from a folder to boxes under the reader's own names."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner
from xml_files import dog, write

from course_lib import cli, detect, metrics, profiles, trees, viz, voc, weights
from course_lib.profiles import Profile
from course_lib.training import Trainer
from course_lib.voc import ImageDataset, ImageSet

NAMES = ("big screw", "nut", "wäsher")
COLOURS = ("crimson", "gold", "navy")


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


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("data") / "my work bench"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    lists = {"train": range(8), "val": range(8, 10), "test": range(10, 12)}
    for name, numbers in lists.items():
        ids = [f"bench {number} (left)" for number in numbers]
        for image_id, number in zip(ids, numbers, strict=True):
            draw(tree, image_id, number)
        (tree / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids))
    return tree


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
