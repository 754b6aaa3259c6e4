import json
import os
import re
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import DAMAGES, contents, damaged, no_training
from typer.testing import CliRunner
from xml_files import dog, write

from course_lib import cli, commands_train, profiles, terminal, voc, weights
from course_lib.training import Trainer


@pytest.mark.parametrize(("run", "options"), [("a file", ()), ("a file", ("--fresh",)), (".", ("--fresh",))])
def test_a_run_that_is_no_folder_of_its_own_is_refused_at_once(call, tmp_path, monkeypatch, small, run, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("mine")
    done = call("train", "--run", run, *options)
    assert done.returncode == 2 and f"--run is {run}" in done.stderr
    assert contents(tmp_path) == {tmp_path / "a file": b"mine"}


@pytest.mark.slow
def test_a_machine_that_is_taken_away_gets_one_line_and_the_same_command_goes_on(call, small, tmp_path, monkeypatch):
    """SIGTERM, a spot machine's two minutes, lost the epoch without a word."""
    step, left = Trainer.step, iter([1])

    def told(self, network, batch):
        if next(left, None):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, network, batch)

    monkeypatch.setattr(Trainer, "step", told)
    ended = call("train", "--run", tmp_path / "run")
    assert ended.returncode == 143 and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("stopped: by SIGTERM; what was computed is kept, and the same command goes on")
    assert call("train", "--run", tmp_path / "run").returncode == 0
    # And a finished run goes on: with another rate where that is said, not with another seed, not by oversight.
    longer = ("train", "--run", tmp_path / "run", "--epochs", 2)
    for more in (("--seed", 3), ("--recipe", "weight_decay=0")):
        done = call(*longer, *more)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--fresh" in done.stderr, done.stderr
    assert call(*longer, "--recipe", "learning_rate=1e-6").returncode == 0
    changes = json.loads((tmp_path / "run" / "provenance.json").read_text())["changes"]
    now = {"epochs": 2, "learning_rate": 1e-6}
    assert changes == [{"epochs_done": 1, "batches_done": 0, "was": {"epochs": 1, "learning_rate": 1e-5}, "now": now}]


@pytest.mark.parametrize(
    ("profile", "name", "frozen", "random"),
    [("cpu", "ssd_mobilenet_v2", 2, True), ("photos", "ssd_mobilenet_v2", 0, True), ("photos", "ssd_lite0", 6, False)],
)
def test_another_architecture_leaves_the_weights_of_the_first_and_freezes_nothing_that_is_random(
    profile, name, frozen, random
):
    usual = profiles.PROFILES[profile]()
    chosen = commands_train.with_architecture(usual, commands_train.ArchitectureName(name))
    assert chosen.architecture == name and (chosen.backbone_weights is None) == random
    assert (chosen.recipe.frozen_blocks, chosen.recipe.frozen_statistics) == (frozen, name == "ssd_lite0")
    assert chosen.pretraining_steps == usual.pretraining_steps
    assert commands_train.with_architecture(usual, None) is usual


def test_an_architecture_that_there_is_not_is_refused_with_those_that_there_are(call, small, tmp_path):
    done = call("train", "--run", tmp_path / "run", "--architecture", "ssd_mobilenet")
    assert done.returncode == 2 and "ssd_mobilenet_v2" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_at_the_end_of_training_can_be_pasted(call, small, tmp_path, monkeypatch):
    monkeypatch.setattr(terminal.console, "width", 20)
    monkeypatch.chdir(tmp_path)
    run = "runs/it's [red] " + "long " * 20 + "x"
    done = call("train", "--run", run)
    assert done.returncode == 0, done.stderr
    assert f"The run is complete: {run}." in done.stdout.splitlines()
    line = next(line for line in done.stdout.splitlines() if line.startswith("Measure it: "))
    arguments = shlex.split(line.removeprefix("Measure it: "))
    assert arguments == ["python", "-m", "course_lib", "evaluate", "--run", run]
    monkeypatch.setattr(profiles, "profile", lambda name=None: small)
    report = json.loads(call(*arguments[3:], "--json").stdout)
    assert report == json.loads((tmp_path / run / "evaluation_area.json").read_text())
    assert len([*(tmp_path / run / "tensorboard").glob("events*")]) == 1
    assert set(report) >= {"mean_ap", "ap", "method", "images", "weights_of_epoch"}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "select"])
@pytest.mark.parametrize(("kind", "workers"), DAMAGES)
def test_training_on_a_damaged_tree_ends_with_one_line(call, copied, tmp_path, monkeypatch, kind, part, workers):
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, workers=workers))
    image_id = voc.read_image_set(copied.devkit, "2007", "test" if part == "train" else "val")[0]
    damaged(kind, copied.devkit / "VOC2007", image_id)
    done = call("train", "--run", tmp_path / "run")
    lists = 2 if kind == "missing list" else 1  # both are
    assert done.returncode == 1 and len(done.stderr.splitlines()) == lists, done.stderr
    name = {"XML": f"{image_id}.xml", "list": "ImageSets"}.get(kind.split()[-1], f"{image_id}.jpg")
    assert done.stderr.startswith("error: ") and name in done.stderr
    assert done.stdout == "" and not (tmp_path / "run").exists()


def test_all_faults_of_the_data_are_told_at_once_before_anything_is_trained(call, copied, tmp_path, monkeypatch):
    no_training(monkeypatch, copied)
    train, val = (voc.read_image_set(copied.devkit, "2007", name) for name in ("test", "val"))
    tree = copied.devkit / "VOC2007"
    for kind, image_id in zip(
        ("broken XML", "missing image", "no image at all"), (train[0], train[5], val[1]), strict=True
    ):
        damaged(kind, tree, image_id)
    crowd = tree / "Annotations" / f"{val[0]}.xml"
    monkeypatch.setattr(commands_train.crowds, "most_objects", lambda priors: 0)
    done = call("train", "--run", tmp_path / "run")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and all(line.startswith(f"error: {tree}/") for line in lines)
    for name in (f"{train[0]}.xml: XML", f"{train[5]}.jpg: image", f"{val[1]}.jpg: image", f"{crowd.name}: objects"):
        assert sum(name in line for line in lines) == 1, name
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shared", [1, 3])
def test_training_on_images_that_tell_which_epoch_is_best_is_refused(call, copied, tmp_path, monkeypatch, shared):
    no_training(monkeypatch, copied)
    train, val = (voc.read_image_set(copied.devkit, "2007", name) for name in ("test", "val"))
    (copied.devkit / "VOC2007/ImageSets/Main/val.txt").write_text("\n".join([*val, *train[:shared]]))
    done = call("train", "--run", tmp_path / "run")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert re.search(rf"test.txt: lines is '{shared} images? that val.txt has too \({train[0]}", done.stderr)


@pytest.mark.slow
def test_an_image_whose_pixels_are_broken_ends_training_with_its_name_and_the_epoch(call, copied, tmp_path):
    path = voc.image_path(copied.devkit, "2007", voc.read_image_set(copied.devkit, "2007", "test")[0])
    path.write_bytes(path.read_bytes()[:-1500])
    done = call("train", "--run", tmp_path / "run")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {path}: image is ") and "(found in epoch 1)" in done.stderr


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (["worker=2"], 2, "did you mean workers?"),
        (["batch_size"], 2, "write NAME=VALUE"),
        (["batch_size=0"], 2, "batch_size is 0"),
        (["amp=yes"], 2, "amp is 'yes': use off, bf16, fp16 or auto"),
        (["learning_rate=1e-3", "epochs=none"], 2, "epochs is 'none'"),
        (["batch_size=13"], 1, "batch_size=13 with 12 images"),
        (["batch_size=4", "micro_batches=3"], 1, "batch_size=4 .* micro_batches=3"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_is_trained(
    call, small, tmp_path, monkeypatch, settings, code, said
):
    no_training(monkeypatch, small)
    options = [word for setting in settings for word in ("--recipe", setting)]
    done = call("train", "--run", tmp_path / "run", *options)
    assert done.returncode == code and len(done.stderr.splitlines()) == 1 and re.search(said, done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_recipes_numbers_come_from_the_command_line_and_stand_in_the_provenance(call, small, tmp_path):
    done = call(
        "train", "--run", tmp_path / "run", "--seed", "3", "--recipe", "batch_size=6", "--recipe", "micro_batches=2",
        "--recipe", "learning_rate=1e-5", "--recipe", "seed=4", "--recipe", "workers=1",
        "--recipe", "schedule=step_drops",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recipe = json.loads((tmp_path / "run" / "provenance.json").read_text())["recipe"]
    said = {
        "batch_size": 6,
        "micro_batches": 2,
        "learning_rate": 1e-5,
        "seed": 3,
        "workers": 1,
        "schedule": "step_drops",
    }
    assert recipe | said == recipe and recipe["epochs"] == small.recipe.epochs
    longer = call("train", "--run", tmp_path / "run", "--seed", "3", "--recipe", "batch_size=4")
    assert longer.returncode == 1 and "batch_size=6" in longer.stderr and len(longer.stderr.splitlines()) == 1


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
@pytest.mark.parametrize("image_set", ["test", "val"])
def test_a_broken_annotation_costs_no_pretraining_and_moves_no_run(
    call, copied, tmp_path, monkeypatch, image_set, fresh
):
    def slow(*arguments):
        pytest.fail("training began")

    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, pretraining_steps=3000))
    monkeypatch.setattr(profiles, "pretrain", slow)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.jsonl").write_text("")
    image_id = voc.read_image_set(copied.devkit, "2007", image_set)[-1]
    damaged("broken XML", copied.devkit / "VOC2007", image_id)
    done = call("train", "--run", tmp_path / "run", *fresh)
    assert done.returncode == 1 and f"{image_id}.xml" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"devkit", "run"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_warning_is_one_line_told_once(call, copied, tmp_path, monkeypatch, workers):
    """Objects of a class that is not among the twenty, in images of each set."""
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(copied, workers=workers))
    for image_set in ("test", "val"):
        for image_id in voc.read_image_set(copied.devkit, "2007", image_set)[:3]:
            xml = voc.annotation_path(copied.devkit, "2007", image_id)
            xml.write_text(re.sub("<name>.*?</name>", "<name>z[red]\u2028ebra</name>", xml.read_text(), count=1))
    for command, sets in (("train", 2), ("evaluate", 1)):
        done = call(command, "--run", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        assert 1 <= len(lines) <= sets and len({*lines}) == len(lines), done.stderr
        for line in lines:
            assert line.startswith("warning: ") and "z[red]" in line and "ebra" in line and "Warning" not in line


@pytest.mark.slow
def test_a_network_for_focal_loss_starts_sure_of_background_and_is_measured_by_its_own_scores(small, tmp_path):
    done = CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run"), "--loss", "focal"])
    assert done.exit_code == 0, done.output
    model = weights.load(tmp_path / "run" / "last.safetensors")
    assert model.scoring == "sigmoid" and model.conf_heads[0].bias[1].item() == pytest.approx(-4.595, abs=0.01)
    assert CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run"), "--loss", "mse"]).exit_code == 2
    other = CliRunner().invoke(cli.app, ["train", "--run", str(tmp_path / "run")])
    assert "FocalLoss" in str(other.exception) and "--fresh" in str(other.exception)


@pytest.mark.parametrize("names", [(), ("van",), ("Dog", "gnu")])
def test_a_training_set_without_a_single_object_is_refused(call, copied, tmp_path, monkeypatch, names):
    """With `classes` forgotten a run went to its end at loss 0, after one warning."""
    no_training(monkeypatch, copied)
    tree = copied.devkit / "VOC2007"
    for image_id in copied.train[0].ids:
        path = tree / "Annotations" / f"{image_id}.xml"
        size = voc.read_annotation(path, voc.VOC_CLASSES).size
        write(path, *(dog(name=name) for name in names), width=size[0], height=size[1])
    done = call("train", "--run", tmp_path / "run")
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and error.startswith(f"error: {tree}/ImageSets/Main/test.txt: objects is 'none")
    assert all(name in error for name in names) and ("give these names" in error) == bool(names)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--select-on", "val"), "--train-on and --select-on name lists of --data"),
        (("--data", "{tree}/JPEGImages"), "give the tree: {tree}"),
        (("--data", "{tree}/.."), "give one of them: {tree}"),
        (
            ("--data", "{tree}", "--train-on", "tain"),
            "--train-on is tain, and the lists in {tree}/ImageSets/Main are: ",
        ),
        (("--data", "{tree}", "--train-on", "test", "--select-on", "v"), "or --select-on none to keep the last epoch"),
        (("--data", "unlisted"), "unlisted has no lists to learn from and to choose by: make them with python -m "),
        (("--start", "run/best.safetensors", "--fresh"), "which --fresh would move away with run"),
    ],
)
def test_a_tree_of_ones_own_is_named_rightly_or_refused_at_once(call, copied, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    no_training(monkeypatch, copied)
    Path("unlisted/Annotations").mkdir(parents=True)
    tree = copied.devkit / "VOC2007"
    options = [option.format(tree=tree) for option in options]
    done = call("train", "--run", "run", *options)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert said.format(tree=tree).replace("/..", "") in done.stderr.replace("/VOC2007/../VOC2007", "/VOC2007")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", ["patience=2", "schedule=plateau"])
def test_a_recipe_that_waits_for_measurements_needs_a_list_to_measure_on(call, copied, tmp_path, monkeypatch, setting):
    no_training(monkeypatch, copied)
    options = ("--train-on", "test", "--select-on", "none", "--recipe", setting)
    done = call("train", "--run", tmp_path / "run", "--data", copied.devkit / "VOC2007", *options)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {setting} waits for measurements"), done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_without_a_list_to_choose_by_the_last_epoch_is_the_best(call, copied, tmp_path):
    tree, run = copied.devkit / "VOC2007", tmp_path / "run"
    options = ("--data", tree, "--train-on", "test", "--select-on", "none", "--epochs", 2)
    done = call("train", "--run", run, *options)
    assert done.returncode == 0, done.stderr
    best, last = (weights.load(run / f"{name}.safetensors").state_dict() for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert len(records) == 2 and not any("map" in record for record in records)
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["best_epoch"] is None and provenance["data"]["select_on"] is None
    assert len([*(run / "tensorboard").glob("events*")]) == 1
    other = call("train", "--run", run, *options[:-4], "--select-on", "val", "--epochs", 2)
    assert other.returncode == 1 and "select_on=None" in other.stderr and len(other.stderr.splitlines()) == 1
