import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import RECIPE, fresh_model, train_as_process, train_slowly, trainer

from course_lib import augment, ssd, weights
from course_lib.losses import FocalLoss, MultiBoxLoss
from course_lib.matching import match
from course_lib.training import Augmented, RunError, Shuffled, Trainer, compute, parameter_groups, read_history
from course_lib.voc import VOC_CLASSES, VOCDetection


def same_weights(a: Path, b: Path) -> bool:
    one, other = (weights.load(run / "last.safetensors").state_dict() for run in (a, b))
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_order_depends_on_seed_and_epoch_alone_and_leaves_out_less_than_a_batch():
    a, b = Shuffled(10, 4, seed=1), Shuffled(10, 4, seed=1)
    assert list(a) == list(b) and len(a) == len(list(a)) == 8
    a.epoch = 1
    assert [index for _, index in a] != [index for _, index in b] and {epoch for epoch, _ in a} == {1}
    assert list(Shuffled(10, 4, seed=2)) != list(b)


def test_a_sample_depends_on_its_key_and_the_seed_and_not_on_who_makes_it(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "train")
    data = Augmented(dataset, augment.training_mini(64), 7)
    keys = [(0, 3), (1, 3), (0, 4)]
    first = [data[key][0] for key in keys]
    loader = torch.utils.data.DataLoader(
        Augmented(dataset, augment.training_mini(64), 7), None, sampler=keys[::-1], num_workers=2
    )
    for image, (again, _) in zip(first[::-1], loader, strict=True):
        assert torch.equal(image, again)
    assert len({image.numpy().tobytes() for image in first}) == 3


def test_only_kernels_decay_and_every_parameter_is_in_one_group():
    model = ssd.ssd_mini()
    model.backbone.freeze(1)
    groups = parameter_groups(model, replace(RECIPE, bias_factor=2.0, weight_decay=0.01, backbone_factor=0.5))
    assert [group["weight_decay"] for group in groups] == [0.01, 0, 0.01, 0]
    assert [group["lr"] / RECIPE.learning_rate for group in groups] == pytest.approx([0.5, 1, 1, 2])
    for group in groups:
        assert all((p.ndim == 4) == (group["weight_decay"] > 0) for p in group["params"])
    # L2Norm learns as fast as the heads, also in the backbone; and first, as in states of earlier editions.
    assert groups[3]["params"][0] is model.backbone.l2_norm.weight
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.slow
def test_interrupted_and_gone_on_with_it_ends_where_it_would_have_ended(small_devkit, tmp_path):
    whole = trainer(small_devkit, tmp_path / "whole")
    whole.fit()

    class Interrupted(Exception):
        pass

    def stop_after_two(record):
        if record["epoch"] == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        trainer(small_devkit, tmp_path / "parts", report=stop_after_two).fit()
    assert not json.loads((tmp_path / "parts/provenance.json").read_text())["finished"]
    history = trainer(small_devkit, tmp_path / "parts").fit()
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert [r["epoch"] for r in history] == [1, 2, 3] == [r["epoch"] for r in read_history(tmp_path / "parts")]
    for a, b in zip(history, whole.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    assert json.loads((tmp_path / "parts/provenance.json").read_text())["finished"]


@pytest.mark.slow
def test_killed_with_no_chance_to_tidy_up_the_run_goes_on(small_devkit, tmp_path):
    run = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(small_devkit, run))
    process.start()
    while not (run / "state.pt").exists() and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len(read_history(run))
    assert 1 <= done < 3
    trainer(small_devkit, run, evaluate=None).fit()
    trainer(small_devkit, tmp_path / "whole", evaluate=None).fit()
    assert same_weights(run, tmp_path / "whole")


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is_and_another_recipe_or_loss_is_refused(small_devkit, tmp_path):
    short = replace(RECIPE, epochs=1, warmup_steps=0)
    trainer(small_devkit, tmp_path, short).fit()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer(small_devkit, tmp_path, short).fit()
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match="--fresh"):
        trainer(small_devkit, tmp_path, replace(short, learning_rate=1e-4)).fit()
    with pytest.raises(RunError, match=r"was started with .*neg_pos_ratio=3.*asked for now .*neg_pos_ratio=1"):
        trainer(small_devkit, tmp_path, short, loss=MultiBoxLoss(neg_pos_ratio=1)).fit()


@pytest.mark.slow
def test_the_weights_tell_how_the_loss_that_trained_them_reads_logits(small_devkit, tmp_path):
    """Read by softmax, a network that answers yes or no finds nothing (see test_detect)."""
    trainer(small_devkit, tmp_path, replace(RECIPE, epochs=1, warmup_steps=0), loss=FocalLoss()).fit()
    assert weights.load(tmp_path / "best.safetensors").scoring == "sigmoid"
    assert json.loads((tmp_path / "provenance.json").read_text())["loss"] == "FocalLoss(alpha=0.25, gamma=2.0)"


@pytest.mark.slow
def test_the_best_weights_are_kept_and_patience_ends_the_run(small_devkit, tmp_path):
    scores = iter([0.1, 0.4, 0.3, 0.2, 0.9])
    patient = replace(RECIPE, epochs=5, patience=2)
    run = trainer(small_devkit, tmp_path, patient, evaluate=lambda model: {"map": next(scores)})
    history = run.fit()
    assert [r["map"] for r in history] == [0.1, 0.4, 0.3, 0.2] and run.best_epoch() == 2
    assert (tmp_path / "best.safetensors").read_bytes() != (tmp_path / "last.safetensors").read_bytes()
    assert json.loads((tmp_path / "provenance.json").read_text())["best_epoch"] == 2


@pytest.mark.slow
def test_losses_that_are_not_finite_stop_the_run_and_keep_what_there_was(small_devkit, tmp_path):
    class Poisoned(MultiBoxLoss):
        def __call__(self, offsets, logits, matches):
            return {"loc": offsets.sum() * float("nan"), "conf": logits.sum()}

    with pytest.raises(RunError, match="Halve the learning rate"):
        trainer(small_devkit, tmp_path, loss=Poisoned()).fit()
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.slow
def test_bf16_trains_close_to_float32(small_devkit, tmp_path):
    full = trainer(small_devkit, tmp_path / "a", replace(RECIPE, epochs=1, warmup_steps=0), image_set="test").fit()
    half = trainer(
        small_devkit, tmp_path / "b", replace(RECIPE, epochs=1, warmup_steps=0, amp="bf16"), image_set="test"
    ).fit()
    assert half[0]["conf"] == pytest.approx(full[0]["conf"], rel=0.1)


def test_a_batch_larger_than_the_data_set_is_refused(small_devkit, tmp_path):
    with pytest.raises(RunError, match="no larger than the data set"):
        trainer(small_devkit, tmp_path, replace(RECIPE, batch_size=64))


@pytest.mark.parametrize(("field", "value"), [("optimizer", "adam"), ("amp", "yes")])
def test_unknown_names_are_refused(small_devkit, tmp_path, field, value):
    with pytest.raises(ValueError, match=f"{field} is '{value}'"):
        trainer(small_devkit, tmp_path, replace(RECIPE, **{field: value}))


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"history\.jsonl is missing"):
        read_history(tmp_path)


@pytest.mark.slow
def test_two_processes_share_the_images_and_end_with_the_same_weights(small_devkit, tmp_path):
    from conftest import loopback_works

    if not loopback_works():
        pytest.skip("gloo needs the loopback interface, which is down here")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [
            context.Process(
                target=train_as_process, args=(rank, small_devkit, tmp_path / "run", tmp_path / "store", results)
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=300)
        assert [process.exitcode for process in processes] == [0, 0]
        assert results[0] == results[1]
    assert len(read_history(tmp_path / "run")) == 1


def test_a_step_that_overflows_is_left_out_and_the_schedule_waits(small_devkit, tmp_path):
    one = trainer(small_devkit, tmp_path)
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # too large, as float16's is at first
    before = {name: value.clone() for name, value in one.model.named_parameters()}
    parts = one.step(one.model, next(iter(one.loader)))
    assert parts["grad_norm"] == 0 and torch.isfinite(parts["conf"])
    assert one.schedule.last_epoch == 0 and one.scaler.get_scale() == 2.0**126
    assert all(torch.equal(value, before[name]) for name, value in one.model.named_parameters())


class Wrapped(torch.nn.Module):
    """As DistributedDataParallel does, it has the model's outputs and none of its attributes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module(images)


def test_a_step_is_match_predict_compare_also_through_a_wrapper(small_devkit, tmp_path):
    one = trainer(small_devkit, tmp_path)
    model, batch, loss = one.model.eval(), next(iter(one.loader)), MultiBoxLoss()
    with torch.no_grad():
        matches = match(batch.boxes, batch.labels, model.priors, 0.4)
        offsets, logits = model(batch.images)
        expected = loss(offsets, logits, matches)
        for step in (
            compute(model, batch, loss, match_iou=0.4),
            compute(Wrapped(model), batch, loss, match_iou=0.4, priors=model.priors),
        ):
            assert all(torch.equal(a, b) for a, b in zip(step.matches, matches, strict=True))
            assert torch.equal(step.offsets, offsets) and torch.equal(step.logits, logits)
            assert step.parts.keys() == expected.keys()
            assert all(torch.equal(step.parts[name], value) for name, value in expected.items())


def test_convolutions_take_the_type_that_is_asked_for_and_the_loss_stays_in_float32(small_devkit, tmp_path):
    one = trainer(small_devkit, tmp_path)
    step = compute(one.model, next(iter(one.loader)), MultiBoxLoss(), match_iou=0.5, dtype=torch.bfloat16)
    assert step.offsets.dtype == step.logits.dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in step.parts.values())


def test_the_recipe_decides_from_which_overlap_a_prior_answers(small_devkit, tmp_path):
    seen = []

    class Watching(MultiBoxLoss):
        def __call__(self, offsets, logits, matches):
            seen.append(matches.labels)
            return super().__call__(offsets, logits, matches)

    for match_iou in (0.5, 0.3):
        one = trainer(small_devkit, tmp_path, replace(RECIPE, match_iou=match_iou), loss=Watching())
        batch = next(iter(one.loader))
        one.step(one.model, batch)
        assert torch.equal(seen[-1], match(batch.boxes, batch.labels, one.model.priors, match_iou).labels)
    assert (seen[1] > 0).sum() > (seen[0] > 0).sum()


@pytest.mark.parametrize(
    ("num_classes", "classes", "named"),
    [
        (4, None, r"num_classes=4, .*3 and background.* has 20 \(aeroplane, .*build the model with num_classes=21"),
        (22, None, r"num_classes=22, .*21 and background.* has 20 "),
        (20, None, r"num_classes=20, .*19 and background.* has 20 .*num_classes=21"),  # background forgotten
        (21, ("cat", "dog"), r"num_classes=21, .*has 2 \(cat, dog\).*num_classes=3"),
        (3, ("cat",), r"num_classes=3, .*has 1 \(cat\).*num_classes=2"),
    ],
)
def test_a_model_and_a_data_set_of_other_class_counts_are_refused_before_training(
    small_devkit, tmp_path, num_classes, classes, named
):
    """The loss would fail at the first label that the model lacks: Target 3 is out of bounds."""
    dataset = VOCDetection(small_devkit, "2007", "val", **({"classes": classes} if classes else {}))
    with pytest.raises(RunError, match=named):
        Trainer(ssd.ssd_mini(num_classes), dataset, augment.training_mini(160), RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def begun(small_devkit, tmp_path_factory):
    """A run that was stopped after its first epoch."""
    run = tmp_path_factory.mktemp("begun") / "run"
    one = trainer(small_devkit, run, replace(RECIPE, batch_size=2), image_set="val")
    one.history, one.seconds = [{"epoch": 1, "map": 0.5}], 1.0
    one.save()
    return run


def other_trainer(devkit, run, model=None, **changed):
    """A trainer for `begun`; of another model, or recipe."""
    model = model or fresh_model()
    dataset = VOCDetection(devkit, "2007", "val", classes=VOC_CLASSES[: model.num_classes - 1])
    return Trainer(model, dataset, augment.training_mini(160), replace(RECIPE, batch_size=2, **changed), run)


def three_classes():
    return ssd.ssd_mini(4)


@pytest.mark.parametrize("left", ["state.pt", "last.safetensors", "both"])
@pytest.mark.parametrize(
    ("model", "was", "now"),
    [
        (three_classes, "num_classes=21", "num_classes=4"),
        (ssd.ssd300_vgg16, "architecture='ssd_mini'", "architecture='ssd300_vgg16'"),
    ],
)
def test_a_run_of_another_model_is_refused_and_kept(small_devkit, begun, tmp_path, left, model, was, now):
    names = ["state.pt", "last.safetensors"] if left == "both" else [left]
    for name in names:
        shutil.copy(begun / name, tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=rf"was started with .*{was}.*asked for now .*{now}.*another folder, or --fresh"):
        other_trainer(small_devkit, tmp_path, model()).fit()
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_state_from_before_it_named_its_model_is_gone_on_with_or_refused(small_devkit, begun, tmp_path):
    state = torch.load(begun / "state.pt", weights_only=True)
    assert (state.pop("architecture"), state.pop("num_classes")) == ("ssd_mini", 21)
    torch.save(state, tmp_path / "state.pt")
    one = other_trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert [record["epoch"] for record in one.history] == [1]
    for model, named in ((three_classes, "ssd_mini with num_classes=4"), (ssd.ssd300_vgg16, "ssd300_vgg16 with num_")):
        with pytest.raises(RunError, match=rf"another model than the {named}.*--fresh") as refused:
            other_trainer(small_devkit, tmp_path, model()).fit()
        assert len(str(refused.value)) < 600


def test_a_state_of_an_earlier_edition_is_gone_on_with_or_refused_under_todays_names(small_devkit, begun, tmp_path):
    """It calls the backbone trunk, and L2Norm was no part of it."""
    state = torch.load(begun / "state.pt", weights_only=True)
    state["recipe"]["trunk_factor"] = state["recipe"].pop("backbone_factor")
    state["model"]["l2_norm.weight"] = state["model"].pop("backbone.l2_norm.weight") * 3
    torch.save(state, tmp_path / "state.pt")
    one = other_trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert [record["epoch"] for record in one.history] == [1]
    for name, tensor in one.model.state_dict().items():
        kept = state["model"]["l2_norm.weight"] if "l2_norm" in name else state["model"][name]
        assert torch.equal(tensor, kept), name
    with pytest.raises(
        RunError, match=r"was started with backbone_factor=1\.0, .*asked for now \(backbone_factor=0\.5"
    ):
        other_trainer(small_devkit, tmp_path, backbone_factor=0.5).fit()


def test_a_refusal_names_what_differs_and_nothing_else(small_devkit, begun):
    with pytest.raises(RunError) as refused:
        other_trainer(small_devkit, begun, learning_rate=1e-4, seed=3).fit()
    assert str(refused.value) == (
        f"{begun} was started with learning_rate=0.001, seed=0, which is not what is asked for now "
        "(learning_rate=0.0001, seed=3): choose another folder, or --fresh, which moves this one aside"
    )


@pytest.mark.parametrize("left", [0, 1, 100, 5000, -1])
def test_a_state_that_was_cut_short_is_named_and_kept(small_devkit, begun, tmp_path, left):
    content = (begun / "state.pt").read_bytes()[:left]
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"state\.pt is cut short or no run's state .*--fresh") as refused:
        other_trainer(small_devkit, tmp_path).fit()
    assert "\n" not in str(refused.value) and (tmp_path / "state.pt").read_bytes() == content


@pytest.mark.parametrize("what", [b"a text", b"PK\x03\x04", [1, 2], {"model": {}}, 3.0])
def test_a_file_that_is_no_state_is_named_and_kept(small_devkit, tmp_path, what):
    path = tmp_path / "state.pt"
    path.write_bytes(what) if isinstance(what, bytes) else torch.save(what, path)
    content = path.read_bytes()
    with pytest.raises(RunError, match=r"state\.pt is (cut short|no run's state, without recipe, ).*--fresh"):
        other_trainer(small_devkit, tmp_path).fit()
    assert path.read_bytes() == content
