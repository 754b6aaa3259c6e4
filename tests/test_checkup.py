import json
from dataclasses import replace

import pytest
import torch

from course_lib import checkup, losses, profiles, weights
from course_lib.runs import RunError


def test_a_profile_is_examined_as_it_would_train_and_leaves_no_trace(small, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with checkup.of_profile(small) as patient:
        batch = patient.first_batches(1)[0]
        before = [p.clone() for p in patient.model.parameters()]
        assert {"loc", "conf", "grad_norm"} <= patient.step(batch).keys()
        assert any(not torch.equal(a, b) for a, b in zip(before, patient.model.parameters(), strict=True))
        assert patient.steps == small.recipe.epochs * (len(small.training_set()) // small.recipe.batch_size)
    # torch makes a folder for what it may compile, where it is first asked for an optimizer.
    assert [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")] == []


def test_each_pass_of_a_profile_is_another_epoch_as_in_training(small):
    with checkup.of_profile(small) as patient:
        first, second = (next(iter(patient.batches)) for _ in range(2))
    assert first.images.shape == second.images.shape and not torch.equal(first.images, second.images)


def test_a_trunk_that_is_not_taught_yet_is_not_frozen(small):
    with checkup.of_profile(replace(small, recipe=replace(small.recipe, frozen_blocks=2))) as patient:
        assert patient.frozen == () and patient.pretrained is None


def test_a_taught_trunk_is_compared_with_its_file(small):
    nano = replace(small, architecture="ssd_nano", backbone_weights=profiles.RECORD)
    with checkup.of_profile(replace(nano, recipe=replace(nano.recipe, frozen_blocks=2))) as patient:
        assert patient.frozen and all(name.startswith("backbone.") for name in patient.frozen)
        state = patient.model.state_dict()
        assert patient.pretrained.keys() == {name for name in state if name.startswith("backbone.")}
        assert all(torch.equal(tensor, state[name]) for name, tensor in patient.pretrained.items())


@pytest.fixture
def run(small, tmp_path, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "small", lambda: small)
    folder = tmp_path / "run"
    weights.save(small.model(), folder / "best.safetensors")
    known = {
        "profile": "small",
        "best_epoch": 1,
        "recipe": {"epochs": 1, "batch_size": 6},
        "loss": "FocalLoss(alpha=0.25)",
    }
    known["recipe"] |= {"optimizer": "sgd", "learning_rate": 0.01, "warmup_steps": 0, "a field of tomorrow": 3}
    (folder / "provenance.json").write_text(json.dumps(known))
    (folder / "history.jsonl").write_text('{"epoch": 1, "loc": 2.0, "conf": 3.0}\n')
    return folder


def test_a_run_is_examined_with_its_own_recipe_loss_weights_and_history(run):
    kept = weights.load(run / "best.safetensors").state_dict()
    with checkup.of_run(run) as patient:
        assert isinstance(patient.loss, losses.FocalLoss) and isinstance(patient.optimizer, torch.optim.SGD)
        assert patient.history == [{"epoch": 1, "loc": 2.0, "conf": 3.0}]
        assert len(patient.first_batches(1)[0].images) == 6
        assert all(torch.equal(tensor, kept[name]) for name, tensor in patient.model.state_dict().items())


def test_a_run_of_no_profile_is_refused(run):
    (run / "provenance.json").write_text('{"best_epoch": 1}')
    with pytest.raises(RunError, match="made by no profile"), checkup.of_run(run):
        pass


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("MultiBoxLoss(neg_pos_ratio=3.0, class_weights=None)", losses.MultiBoxLoss),
        ("SoftmaxFocalLoss(alpha=0.25, gamma=2.0)", losses.SoftmaxFocalLoss),
        ("FocalLoss(alpha=0.25, gamma=2.0)", losses.FocalLoss),
    ],
)
def test_the_loss_of_a_run_is_known_by_its_name(text, loss):
    assert type(checkup.loss_of({"loss": text})) is loss


def test_a_tree_of_ones_own_is_learned_from_train_and_held_against_val(small_devkit):
    chosen = checkup.own(small_devkit / "VOC2007")
    assert [one.name for one in (*chosen.train, *chosen.select)] == ["train", "val"]
    other = checkup.own(small_devkit / "VOC2007", "trainval")
    assert [one.name for one in (*other.train, *other.select)] == ["trainval"]
