import json
import math
import multiprocessing
import re
import shutil
from dataclasses import replace

import pytest
import torch
from processes import (
    RECIPE,
    compile_as_process,
    fresh_model,
    gradient_of,
    in_float64,
    measure_as_process,
    step_as_process,
    train_as_process,
    train_beside_bad_pictures,
    trainer,
)
from small_backbone import THIN

from course_lib import augment, evaluation, profiles, ssd, training, weights
from course_lib.files import DataError
from course_lib.losses import FocalLoss, MultiBoxLoss, SoftmaxFocalLoss
from course_lib.matching import match
from course_lib.runs import RunError, best_epoch, read_history
from course_lib.schedules import SCHEDULES, warmup_cosine_factor
from course_lib.training import Trainer, compute, learning_rate, parameter_groups
from course_lib.voc import VOCDetection


def test_only_kernels_decay_and_every_parameter_is_in_one_group():
    model = ssd.ssd_mini()
    model.backbone.freeze(1)
    groups = parameter_groups(model, replace(RECIPE, bias_factor=2.0, weight_decay=0.01, backbone_factor=0.5))
    names = [f"{part} {kind}" for part in ("backbone", "head") for kind in ("kernels", "biases")]
    assert [group["name"] for group in groups] == names
    assert [group["weight_decay"] for group in groups] == [0.01, 0, 0.01, 0]
    assert [group["lr"] / RECIPE.learning_rate for group in groups] == pytest.approx([0.5, 1, 1, 2])
    for group in groups:
        assert all((p.ndim == 4) == (group["weight_decay"] > 0) for p in group["params"])
    # L2Norm learns as fast as the heads, also in the backbone; and first, as in states of earlier editions.
    assert groups[3]["params"][0] is model.backbone.l2_norm.weight
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_trainer_leaves_the_model_alone_until_it_is_to_learn(small_devkit, tmp_path):
    model, dataset = fresh_model().eval(), VOCDetection(small_devkit, "2007", "val")
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    recipe = replace(RECIPE, frozen_blocks=2)
    one = Trainer(model, dataset, augment.training_mini(THIN.spec.image_size), recipe, tmp_path, loss=FocalLoss())
    assert model.scoring == "softmax" and not model.training and all(p.requires_grad for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0]) and tensor.stride() == before[name][1], name
    one.prepare()
    assert model.scoring == "sigmoid" and not all(p.requires_grad for p in model.parameters())


@pytest.mark.filterwarnings("ignore::course_lib.voc.LeftOut")
def test_a_trainer_refuses_a_training_set_without_a_single_object(small_devkit, tmp_path):
    names = ("screw", "nut")
    dataset = VOCDetection(small_devkit, "2007", "val", classes=names)
    with pytest.raises(DataError, match="its objects are called"):
        Trainer(THIN(3, names), dataset, augment.training_mini(THIN.spec.image_size), RECIPE, tmp_path)


def test_the_logged_rate_is_the_heads_wherever_their_group_stands(small_devkit, tmp_path, monkeypatch):
    recipe = replace(RECIPE, backbone_factor=0.5, bias_factor=3.0)
    usual = trainer(small_devkit, tmp_path, recipe)
    usual.prepare()
    assert learning_rate(usual.optimizer, "head kernels") == usual.schedule.get_last_lr()[2]
    monkeypatch.setattr(training, "parameter_groups", lambda *given: parameter_groups(*given)[::-1])
    turned = trainer(small_devkit, tmp_path, recipe)
    turned.prepare()
    rates = {turned.train_epoch(turned.model, 0)["lr"], usual.train_epoch(usual.model, 0)["lr"]}
    assert rates == {RECIPE.learning_rate * warmup_cosine_factor(len(usual.loader), 2, 3 * len(usual.loader))}


@pytest.mark.slow
def test_the_weights_tell_how_the_loss_that_trained_them_reads_logits(small_devkit, tmp_path):
    """Read by softmax, a network that answers yes or no finds nothing (see test_detect)."""
    trainer(small_devkit, tmp_path, replace(RECIPE, epochs=1, warmup_steps=0), loss=FocalLoss()).fit()
    assert weights.load(tmp_path / "best.safetensors").scoring == "sigmoid"
    assert json.loads((tmp_path / "provenance.json").read_text())["loss"] == "FocalLoss(alpha=0.25, gamma=2.0)"


class Wrapped(torch.nn.Module):
    """As DistributedDataParallel does, it has the model's outputs and none of its attributes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module(images)


class Poisoned(MultiBoxLoss):
    """A loss, or its gradient, that is not finite from the given call on."""

    def __init__(self, what, first=0):
        super().__init__()
        object.__setattr__(self, "what", what)
        object.__setattr__(self, "left", [first])

    def __call__(self, offsets, logits, matches):
        parts = super().__call__(offsets, logits, matches)
        self.left[0] -= 1
        if self.left[0] >= 0:
            return parts
        with_gradient = {
            "nan loss": parts["loc"] * math.nan,
            "infinite loss": parts["loc"] + offsets.sum() * 0 + math.inf,
            # 0, of infinite slope: the loss stays finite.
            "broken gradient": parts["loc"] + (offsets - offsets.detach()).abs().sum().sqrt(),
        }
        return parts | {"loc": with_gradient[self.what]}


BROKEN = ("nan loss", "infinite loss", "broken gradient")


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_finite_stops_the_run_at_the_step_and_no_weight_has_changed(small_devkit, tmp_path, what):
    """A run once trained to the end of its epoch on NaN, and saved the weights."""
    one = trainer(small_devkit, tmp_path, image_set="test", loss=Poisoned(what, first=1))
    one.prepare()
    batches = iter(one.loader)
    one.step(one.model, next(batches))
    before = {name: value.clone() for name, value in one.model.named_parameters()}
    batch = next(batches)
    named = "grad_norm=" if what == "broken gradient" else "loc="
    with pytest.raises(
        RunError, match=f"epoch 1, step 2 gave .*{named}.*{batch.image_ids[0]}.*Halve .*was saved before"
    ):
        one.step(one.model, batch)
    assert all(torch.equal(value, before[name]) for name, value in one.model.named_parameters())


@pytest.mark.parametrize("what", BROKEN)
def test_a_step_that_is_read_late_leaves_no_weight_broken(small_devkit, tmp_path, what):
    """On a GPU the numbers of a step are read after the next one."""
    one = trainer(small_devkit, tmp_path, loss=Poisoned(what, first=1))
    one.prepare()
    one.progress.readings.late = 1
    batches = [next(iter(one.loader))] * 3
    one.step(one.model, batches[0])
    one.step(one.model, batches[1])
    assert all(value.isfinite().all() for value in one.model.parameters())
    with pytest.raises(RunError, match="step 2"):
        one.step(one.model, batches[2])
    assert all(value.isfinite().all() for value in one.model.parameters())


def test_the_last_good_state_is_named(small_devkit, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"")
    one = trainer(small_devkit, tmp_path, loss=Poisoned("nan loss"))
    one.prepare()
    with pytest.raises(RunError, match=f"{re.escape(str(tmp_path / 'state.pt'))} is as it was before"):
        one.train_epoch(one.model, 0)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] you can't allocate memory")]
)
@pytest.mark.parametrize(
    ("micro_batches", "cure"), [(1, "micro_batches=2 reads"), (2, "micro_batches=4 reads"), (4, "amp=bf16")]
)
def test_where_memory_is_too_small_the_cure_is_named(small_devkit, tmp_path, micro_batches, cure, error):
    one = trainer(small_devkit, tmp_path, replace(RECIPE, micro_batches=micro_batches))
    named = f"full with {4 // micro_batches} images at a time .*{cure}"
    with pytest.raises(RunError, match=named), one.advice():
        raise error


@pytest.mark.parametrize("recipe", [replace(RECIPE, micro_batches=4), replace(RECIPE, batch_size=1)])
def test_batch_norm_on_a_single_image_is_refused_in_words(small_devkit, tmp_path, recipe):
    one = trainer(small_devkit, tmp_path, recipe)
    one.prepare()
    with pytest.raises(RunError, match=f"batch_size={recipe.batch_size}: batch norm needs two images at a time"):
        one.train_epoch(one.model, 0)


def test_every_step_is_followed_and_an_epoch_is_recorded(small_devkit, tmp_path):
    seen = []
    one = trainer(small_devkit, tmp_path, image_set="test", follow=seen.append)
    one.prepare()
    record = one.train_epoch(one.model, 0)
    assert [numbers["step"] for numbers in seen] == [1, 2, 3] and {numbers["steps"] for numbers in seen} == {9}
    for name in ("loc", "conf", "grad_norm"):
        assert record[name] == pytest.approx(sum(numbers[name] for numbers in seen) / 3, rel=1e-6)
    assert record["grad_norm_max"] == max(numbers["grad_norm"] for numbers in seen)
    assert [numbers["lr"] for numbers in seen[1:]] + [record["lr"]] == pytest.approx(
        [RECIPE.learning_rate * warmup_cosine_factor(step, 2, 9) for step in (1, 2, 3)]
    )
    assert record["images_per_second"] > 0 and (record["epoch"], record["images"]) == (1, 12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_recipe_names_the_schedule(small_devkit, tmp_path, name):
    one = trainer(small_devkit, tmp_path, replace(RECIPE, schedule=name))
    one.prepare()
    reference = SCHEDULES[name](torch.optim.SGD([torch.zeros(1)], lr=RECIPE.learning_rate), 2, 3)
    for _ in range(3):
        assert learning_rate(one.optimizer, "head kernels") == reference.optimizer.param_groups[0]["lr"]
        for schedule in (one.schedule, reference):
            schedule.optimizer.step()
            schedule.step()


def test_a_plateau_of_map_lowers_the_rate(small_devkit, tmp_path):
    scores = iter([0.2, 0.2, 0.1, math.nan, 0.1, 0.9])
    recipe = replace(RECIPE, epochs=6, warmup_steps=0, schedule="plateau")
    one = trainer(small_devkit, tmp_path, recipe, evaluate=lambda model: {"map": next(scores)})
    one.prepare()
    rates = [one.measure(epoch) and learning_rate(one.optimizer, "head kernels") for epoch in range(1, 7)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize("channels_last", [True, False])
def test_convolutions_lie_in_memory_as_the_recipe_says(small_devkit, tmp_path, channels_last):
    one = trainer(small_devkit, tmp_path, replace(RECIPE, channels_last=channels_last))
    one.prepare()
    kernels = [p for p in one.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert kernels and all(p.is_contiguous(memory_format=wanted) for p in kernels)
    one.step(one.model, next(iter(one.loader)))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_compiled_network_is_what_steps_call_where_the_recipe_says_so(small_devkit, tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(torch, "compile", Wrapped)
    one = trainer(small_devkit, tmp_path, replace(RECIPE, compile=compiled))
    one.prepare()
    network = one.network()
    assert isinstance(network, Wrapped) == compiled and (compiled or network is one.model)
    one.step(network, next(iter(one.loader)))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_step_of_the_compiled_network_is_that_of_the_plain_one(small_devkit, tmp_path):
    """In a process of its own, without the tests' checks of shapes, which the compiler does not take."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        process = context.Process(target=compile_as_process, args=(small_devkit, tmp_path, results))
        process.start()
        process.join()
        assert process.exitcode == 0
        # The compiler adds and multiplies in another order.
        assert results[True] == pytest.approx(results[False], rel=1e-3)


def test_where_there_is_no_compiler_the_option_is_named(small_devkit, tmp_path):
    class InductorError(RuntimeError):
        __module__ = "torch._inductor.exc"

    def fails(*outputs):
        raise InductorError("InvalidCxxCompiler: No working C++ compiler found\n\nmore")

    one = trainer(small_devkit, tmp_path)
    one.prepare()
    one.loss = fails
    with pytest.raises(RunError, match=r"torch.compile fails here .*compiler found\): --recipe compile=false"):
        one.train_epoch(one.model, 0)


@pytest.mark.slow
def test_bfloat16_trains_close_to_float32(small_devkit, tmp_path):
    """float16 leaves out its first steps, until its scale fits, and so comes elsewhere; its single steps are tested."""
    recipe = replace(RECIPE, epochs=1, warmup_steps=0)
    full = trainer(small_devkit, tmp_path / "a", recipe, image_set="test").fit()
    half = trainer(small_devkit, tmp_path / "b", replace(recipe, amp="bf16"), image_set="test").fit()
    assert half[0]["conf"] == pytest.approx(full[0]["conf"], rel=0.1)


def test_a_batch_larger_than_the_data_set_is_refused(small_devkit, tmp_path):
    with pytest.raises(RunError, match="no larger than the data set"):
        trainer(small_devkit, tmp_path, replace(RECIPE, batch_size=64))


@pytest.mark.parametrize(("field", "value"), [("optimizer", "adam"), ("amp", "yes")])
def test_unknown_names_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is '{value}'"):
        replace(RECIPE, **{field: value})


def uneven(batch, empty):
    """A batch whose second half has most of the positives, or all of them."""
    order = (batch.labels > 0).sum(dim=1).argsort()
    boxes, labels = batch.boxes[order], batch.labels[order]
    if empty:
        boxes[: len(order) // 2], labels[: len(order) // 2] = 0, 0
    return batch._replace(images=batch.images[order], boxes=boxes, labels=labels)


# The losses are computed in float32, which rounds to 6e-8.
SAME = {"rtol": 1e-6, "atol": 0}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(
    "loss", [MultiBoxLoss(), FocalLoss(), SoftmaxFocalLoss()], ids=lambda loss: type(loss).__name__
)
def test_micro_batches_give_the_losses_and_the_gradient_of_the_whole(small_devkit, tmp_path, loss, empty):
    recipe, seen = replace(RECIPE, batch_size=4, clip_norm=1e9), []
    for count in (1, 2, 4):
        one = in_float64(trainer(small_devkit, tmp_path, replace(recipe, micro_batches=count), loss=loss))
        numbers = one.step(one.model, uneven(next(iter(one.loader)), empty))
        seen.append((torch.stack(list(numbers.values())).double(), gradient_of(one)))
    for numbers, gradient in seen[1:]:
        torch.testing.assert_close(numbers, seen[0][0], **SAME)
        assert (gradient - seen[0][1]).norm() <= 1e-6 * seen[0][1].norm()


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_two_processes_give_the_losses_and_the_gradient_of_one(small_devkit, tmp_path, micro_batches):
    """Each once divided by its own positives, 129 and 93: the gradient was 2.4 % off."""
    loopback_or_skip()
    one = in_float64(trainer(small_devkit, tmp_path, replace(RECIPE, clip_norm=1e9), image_set="test"))
    batch = uneven(next(iter(one.loader)), empty=False)
    positives = match(batch.boxes, batch.labels, one.model.priors).labels > 0
    assert positives[:2].sum() < positives[2:].sum()
    numbers = one.step(one.model, batch)
    torch.save((batch._asdict(), micro_batches), tmp_path / "batch.pt")

    for share in in_two_processes(step_as_process, small_devkit, tmp_path):
        torch.testing.assert_close(share["numbers"], torch.stack(list(numbers.values())).double(), **SAME)
        assert (share["gradient"] - gradient_of(one)).norm() <= 1e-6 * gradient_of(one).norm()


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(small_devkit, tmp_path):
    """With batch norm, whose statistics each process has for itself: those of the first count."""
    loopback_or_skip()
    first, second = in_two_processes(measure_as_process, small_devkit, tmp_path)
    assert first["measured"] == second["measured"] and first["statistics"] != second["statistics"]
    model = weights.load(profiles.RECORD)
    model.load_state_dict(first["state"])
    dataset = VOCDetection(small_devkit, "2007", "test")
    alone = evaluation.selector(dataset, loss=MultiBoxLoss(), match_iou=0.4)(model)
    assert first["measured"].keys() == alone.keys() and 0 < alone["map"] < 1
    assert first["measured"]["map"] == alone["map"] and first["measured"]["ap"] == alone["ap"]
    for name in ("val_loc", "val_conf"):
        assert first["measured"][name] == pytest.approx(alone[name], rel=1e-5)


@pytest.mark.slow
def test_a_picture_that_one_of_two_processes_cannot_read_costs_both_the_measurement_and_no_more(small_devkit, tmp_path):
    """One that went on alone would wait for the other's detections for ever."""
    loopback_or_skip()
    shutil.copytree(small_devkit / "VOC2007", tmp_path / "VOC2007")
    first, second = in_two_processes(train_beside_bad_pictures, small_devkit, tmp_path)
    assert first == second and first["maps"][:2] == [None, None] and 0 <= first["maps"][2] <= 1
    for name, told in zip(first["names"][::-1], first["told"], strict=True):
        assert name in told
    history = read_history(tmp_path / "run")
    assert [record["map"] for record in history] == first["maps"] and best_epoch(history) == 3
    assert [record.keys() >= {"val_loc", "val_conf"} for record in history] == [False, False, True]


def loopback_or_skip():
    from conftest import loopback_works

    if not loopback_works():
        pytest.skip("gloo needs the loopback interface, which is down here")


def in_two_processes(work, devkit, folder):
    """What two processes of a group give back, in their order."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [
            context.Process(target=work, args=(rank, devkit, folder, folder / "store", results)) for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=1200)
        assert [process.exitcode for process in processes] == [0, 0]
        return [results[0], results[1]]


@pytest.mark.slow
def test_two_processes_share_the_images_and_end_with_the_same_weights(small_devkit, tmp_path):
    loopback_or_skip()
    first, second = in_two_processes(train_as_process, small_devkit, tmp_path)
    assert first == second
    assert len(read_history(tmp_path / "run")) == 1


def test_a_step_that_overflows_is_left_out_and_the_schedule_waits(small_devkit, tmp_path):
    one = trainer(small_devkit, tmp_path)
    one.prepare()
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # too large, as float16's is at first
    before = {name: value.clone() for name, value in one.model.named_parameters()}
    parts = one.step(one.model, next(iter(one.loader)))
    assert parts["grad_norm"] == 0 and torch.isfinite(parts["conf"])
    assert one.schedule.last_epoch == 0 and one.scaler.get_scale() == 2.0**126
    assert all(torch.equal(value, before[name]) for name, value in one.model.named_parameters())


def test_float16_has_a_scaler_and_nothing_else_has(small_devkit, tmp_path):
    for amp, dtype in (("off", None), ("bf16", torch.bfloat16), ("auto", None), ("fp16", torch.float16)):
        one = trainer(small_devkit, tmp_path, replace(RECIPE, amp=amp))
        assert one.dtype == dtype and one.scaler.is_enabled() == (amp == "fp16")


@pytest.mark.slow
def test_float16_halves_its_scale_until_a_step_fits_and_no_weight_changes_before(small_devkit, tmp_path):
    """Real float16 convolutions, which torch has on the CPU too, and the scaler's own scale to begin with."""
    one = trainer(small_devkit, tmp_path, replace(RECIPE, amp="fp16"))
    one.prepare()
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26)
    batch, scale = next(iter(one.loader)), 2.0**26
    before = {name: value.clone() for name, value in one.model.named_parameters()}
    for _ in range(20):
        numbers = one.step(one.model, batch)
        if one.schedule.last_epoch:
            break
        scale /= 2
        assert numbers["grad_norm"] == 0 and numbers["loc"].isfinite() and one.scaler.get_scale() == scale
        assert all(torch.equal(value, before[name]) for name, value in one.model.named_parameters())
    assert scale < 2.0**26 and one.scaler.get_scale() == scale and numbers["grad_norm"] > 0
    changed = [name for name, value in one.model.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) > 0.9 * len(before) and all(value.isfinite().all() for value in one.model.parameters())


def test_float16_that_overflows_at_every_scale_stops_the_run(small_devkit, tmp_path):
    """The scaler alone would halve its scale for ever, and leave every step out."""
    one = trainer(small_devkit, tmp_path, loss=Poisoned("broken gradient"))
    one.prepare()
    one.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    batch = next(iter(one.loader))
    with pytest.raises(RunError, match="overflow, however small: --recipe amp=off"):
        for _ in range(5):
            assert one.step(one.model, batch)["grad_norm"] == 0
    assert one.schedule.last_epoch == 0 and all(value.isfinite().all() for value in one.model.parameters())


@pytest.mark.parametrize("what", ["nan loss", "infinite loss"])
def test_a_loss_that_is_not_finite_stops_float16_too(small_devkit, tmp_path, what):
    one = trainer(small_devkit, tmp_path, loss=Poisoned(what))
    one.prepare()
    one.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(RunError, match="step 1 gave loc="):
        one.step(one.model, next(iter(one.loader)))


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_convolutions_take_the_type_that_is_asked_for_and_the_loss_stays_in_float32(small_devkit, tmp_path, dtype):
    one = trainer(small_devkit, tmp_path)
    step = compute(one.model, next(iter(one.loader)), MultiBoxLoss(), match_iou=0.5, dtype=dtype)
    assert step.offsets.dtype == step.logits.dtype == dtype
    assert all(value.dtype == torch.float32 for value in step.parts.values())


def test_the_recipe_decides_from_which_overlap_a_prior_answers(small_devkit, tmp_path):
    seen = []

    class Watching(MultiBoxLoss):
        def __call__(self, offsets, logits, matches):
            seen.append(matches.labels)
            return super().__call__(offsets, logits, matches)

    for match_iou in (0.5, 0.3):
        one = trainer(small_devkit, tmp_path, replace(RECIPE, match_iou=match_iou), loss=Watching())
        one.prepare()
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
        Trainer(THIN(num_classes), dataset, augment.training_mini(THIN.spec.image_size), RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
