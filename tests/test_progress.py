"""A run on its way: what of it is kept and when, and that one which goes on ends where it would have ended."""

import json
import multiprocessing
import os
import shutil
import signal
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import (
    RECIPE,
    fresh_model,
    of_twelve,
    stop_as_process,
    stop_group,
    train_and_be_killed,
    train_slowly,
    trainer,
)

from conftest import loopback_works
from course_lib import pretraining, progress, runs, weights
from course_lib.losses import MultiBoxLoss
from course_lib.progress import Progress, Readings
from course_lib.runs import RunError, best_epoch, read_history, read_provenance, read_state
from course_lib.stopping import Stopped
from course_lib.training import learning_rate


def same(one, other):
    """Whether two histories tell the same, the times aside."""
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in r.items() if k not in timed} for r in one] == [
        {k: v for k, v in r.items() if k not in timed} for r in other
    ]


def assert_same_bits(one, other):
    for name in ("last.safetensors", "best.safetensors"):
        tensors = [weights.load(run / name).state_dict() for run in (one, other)]
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0]), name


@pytest.fixture(scope="module")
def whole(small_devkit, tmp_path_factory):
    """A run that nobody interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    torch.manual_seed(5)
    of_twelve(small_devkit, run).fit()
    return run


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
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert [r["epoch"] for r in history] == [1, 2, 3] == [r["epoch"] for r in read_history(tmp_path / "parts")]
    assert same(history, read_history(tmp_path / "whole"))
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
    assert 1 <= len(read_state(run)["history"]) < 3
    trainer(small_devkit, run, evaluate=None).fit()
    trainer(small_devkit, tmp_path / "whole", evaluate=None).fit()
    assert_same_bits(run, tmp_path / "whole")


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
def test_the_best_weights_are_kept_and_patience_ends_the_run(small_devkit, tmp_path):
    scores = iter([0.1, 0.4, 0.3, 0.2, 0.9])
    patient = replace(RECIPE, epochs=5, patience=2)
    run = trainer(small_devkit, tmp_path, patient, evaluate=lambda model: {"map": next(scores)})
    history = run.fit()
    assert [r["map"] for r in history] == [0.1, 0.4, 0.3, 0.2] and best_epoch(history) == 2
    assert (tmp_path / "best.safetensors").read_bytes() != (tmp_path / "last.safetensors").read_bytes()
    assert json.loads((tmp_path / "provenance.json").read_text())["best_epoch"] == 2


def test_a_state_from_before_its_groups_had_names_is_gone_on_with(small_devkit, tmp_path):
    begun = trainer(small_devkit, tmp_path)
    begun.prepare()
    begun.progress.history = [{"epoch": 1}]
    begun.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert [group.pop("name") for group in state["optimizer"]["param_groups"]][2] == "head kernels"
    torch.save(state, tmp_path / "state.pt")
    one = trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert learning_rate(one.optimizer, "head kernels") == begun.schedule.get_last_lr()[2]


class Telling(MultiBoxLoss):
    """A loss that sends its own process a signal at one of its calls, and counts them."""

    def __init__(self, call=0, number=0):
        super().__init__()
        self.__dict__.update(call=call, number=number, calls=0)

    def __call__(self, offsets, logits, matches):
        self.__dict__["calls"] += 1
        if self.calls == self.call:
            os.kill(os.getpid(), self.number)
        return super().__call__(offsets, logits, matches)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "number", "end"),
    [
        (1, signal.SIGTERM, Stopped),
        (2, signal.SIGHUP, Stopped),
        (3, signal.SIGINT, KeyboardInterrupt),
        (5, 15, Stopped),
    ],
)
def test_a_signal_within_an_epoch_loses_nothing_and_the_run_ends_with_the_same_bits(
    small_devkit, whole, tmp_path, call, number, end
):
    """SIGTERM and SIGHUP lost the epoch without a word. Random numbers, sums of losses and the order go on."""
    torch.manual_seed(5)
    usual = signal.getsignal(number)
    one = of_twelve(small_devkit, tmp_path, loss=Telling(call, number))
    with pytest.raises(end):
        one.fit()
    assert signal.getsignal(number) == usual and one.loss.calls == call
    state = runs.read_state(tmp_path)
    assert 3 * len(state["history"]) + state["done"] == call
    torch.manual_seed(0)
    again = of_twelve(small_devkit, tmp_path, loss=Telling())
    assert same(again.fit(), read_history(whole)) and again.loss.calls == 6 - call
    assert_same_bits(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_measurement_ends_it_at_once_and_no_step_is_made_again(small_devkit, whole, tmp_path, number):
    def measure(model):
        os.kill(os.getpid(), number)
        pytest.fail("went on measuring")

    torch.manual_seed(5)
    with pytest.raises((Stopped, KeyboardInterrupt)):
        of_twelve(small_devkit, tmp_path, evaluate=measure, loss=Telling()).fit()
    again = of_twelve(small_devkit, tmp_path, loss=Telling())
    assert same(again.fit(), read_history(whole)) and again.loss.calls == 3
    assert_same_bits(tmp_path, whole)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step(small_devkit, tmp_path):
    """One that went on alone would wait for the other's gradients for ever."""
    if not loopback_works():
        pytest.skip("gloo needs the loopback interface, which is down here")
    context = multiprocessing.get_context("spawn")

    def train(run, store, number):
        given = (small_devkit, tmp_path / run, tmp_path / store, number)
        both = [context.Process(target=stop_as_process, args=(rank, *given)) for rank in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(timeout=1200)
        return [process.exitcode for process in both]

    assert train("run", "first", signal.SIGTERM) == [143, 143]
    state = runs.read_state(tmp_path / "run")
    assert (state["done"], state["history"]) == (2, [])
    assert train("run", "second", 0) == train("whole", "third", 0) == [0, 0]
    assert_same_bits(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_the_whole_group_finds_the_loaders_alive_until_the_step_is_kept(small_devkit, tmp_path):
    """A worker that is killed interrupts the step, wherever that is."""
    process = multiprocessing.get_context("spawn").Process(target=stop_group, args=(small_devkit, tmp_path))
    process.start()
    process.join(timeout=1200)
    assert process.exitcode == 143 and runs.read_state(tmp_path)["done"] == 2


@pytest.mark.parametrize("minutes", [0, 10, 1e9])
def test_a_state_is_kept_whenever_the_minutes_have_gone_by(small_devkit, tmp_path, monkeypatch, minutes):
    now, kept = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    one = of_twelve(small_devkit, tmp_path, checkpoint_minutes=minutes)
    monkeypatch.setattr(runs, "save", lambda run, model, state: kept.append(state["done"]))
    one.prepare()

    def step(network, batch):
        now[0] += 301
        return {"loc": torch.tensor(1.0), "grad_norm": torch.tensor(2.0)}

    one.step = step
    record = one.train_epoch(one.model, 0)
    assert kept == {0: [1, 2, 3], 10: [2], 1e9: []}[minutes]
    assert (record["loc"], record["grad_norm_max"]) == (1.0, 2.0)
    assert record["images_per_second"] == pytest.approx(12 / 903, abs=0.05)


# Each with the most of its kind that may go by before. The files of a step are five or six.
MOMENTS = [("pretraining", 2), ("write", 2), ("pretraining", 2), ("rename", 3), ("step", 2)]
MOMENTS += [("write", 6), ("rename", 7), ("step", 2), ("rename", 7), ("write", 6)]


@pytest.mark.slow
def test_killed_at_ten_moments_a_run_ends_with_the_same_bits_and_a_state_loads_at_every_one(small_devkit, tmp_path):
    """Before steps of pretraining and of training, before contents reach the disk, between the renames of a save."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["processes"])

    def train(run, kind, moment):
        process = context.Process(target=train_and_be_killed, args=(small_devkit, run, kind, moment))
        process.start()
        process.join()
        return process.exitcode

    run, stood, generator = tmp_path / "run", 0, torch.Generator().manual_seed(0)
    for kind, most in MOMENTS:
        moment = torch.randint(1, most + 1, (), generator=generator).item()
        assert train(run, kind, moment) == -signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the state before, between two renames
            state = runs.read_state(run)
        stands = 3 * len(state["history"]) + state["done"] if state else 0
        assert stands >= stood, "work was lost"
        stood = stands
        if (run / "pretraining.pt").exists():
            assert pretraining.read_state(run / "pretraining.pt")["step"] in (2, 4)
    assert 0 < stood < 9
    assert train(run, "step", 0) == train(tmp_path / "whole", "step", 0) == 0
    assert same(read_history(run), read_history(tmp_path / "whole"))
    assert_same_bits(run, tmp_path / "whole")
    made = {"last.safetensors", "best.safetensors", "history.jsonl", "provenance.json", "start.safetensors"}
    assert {path.name for path in run.iterdir()} == {*made, "state.pt", "state.before.pt", ".lock"}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"learning_rate": 5e-4}, ["learning_rate"]),
        ({"warmup_steps": 5}, ["warmup_steps"]),
        ({"clip_norm": 1.0, "learning_rate": 2e-3}, ["clip_norm", "learning_rate"]),
        ({"epochs": 7}, []),
        ({"epochs": 4, "learning_rate": 1e-4}, ["learning_rate"]),
    ],
    ids=str,
)
def test_a_run_goes_on_with_another_rate_where_that_is_asked_and_says_since_when(
    small_devkit, tmp_path, changed, names
):
    """A run that met NaN was stuck: the advice, halve the rate, was then refused."""
    begun = of_twelve(small_devkit, tmp_path)
    begun.prepare()
    for batch in begun.loader:
        begun.step(begun.model, batch)
    begun.progress.history = [{"epoch": 1}]
    begun.save()
    recipe = replace(begun.recipe, **changed)
    if names:
        with pytest.raises(RunError, match=rf"was started with {names[-1]}=|was started with {names[0]}=") as refused:
            of_twelve(small_devkit, tmp_path, recipe=recipe).fit()
        assert all(f"--recipe {name}={changed[name]}" in str(refused.value) for name in names)
    one = of_twelve(small_devkit, tmp_path, recipe=recipe, may_change=names)
    one.start_or_resume()
    # From there on the rate is what a run of the new recipe would have at that step.
    fresh = of_twelve(small_devkit, tmp_path / "fresh", recipe=recipe)
    fresh.prepare()
    for _ in range(3):
        fresh.optimizer.step()
        fresh.schedule.step()
    rates = [[group["lr"] for group in any_.optimizer.param_groups] for any_ in (one, fresh)]
    assert rates[0] == rates[1] and one.schedule.get_last_lr() is not None
    was = {name: getattr(begun.recipe, name) for name in changed}
    change = {"epochs_done": 1, "batches_done": 0, "was": was, "now": changed}
    assert one.progress.changes == [change] == one.progress.provenance()["changes"]
    one.save()
    again = of_twelve(small_devkit, tmp_path, recipe=recipe)  # the same command once more
    again.start_or_resume()
    assert again.progress.changes == [change] and again.optimizer.param_groups[2]["lr"] == rates[0][2]


@pytest.mark.slow
def test_a_finished_run_asked_for_more_epochs_goes_on_with_the_longer_cosine(small_devkit, whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    one = of_twelve(small_devkit, run, recipe=replace(RECIPE, epochs=3))
    history = one.fit()
    assert same(history[:2], read_history(whole)) and [record["epoch"] for record in history] == [1, 2, 3]
    assert history[1]["lr"] < 1e-6 * RECIPE.learning_rate  # it had come down
    assert one.progress.changes == [{"epochs_done": 2, "batches_done": 0, "was": {"epochs": 2}, "now": {"epochs": 3}}]
    assert read_provenance(run)["finished"] and read_provenance(run)["changes"] == one.progress.changes


@pytest.mark.slow
def test_a_map_that_is_no_number_is_never_best_and_is_null_in_the_files(small_devkit, tmp_path):
    scores = iter([float("nan"), 0.2, 0.1])
    recipe = replace(RECIPE, epochs=3)
    one = trainer(small_devkit, tmp_path, recipe, evaluate=lambda model: {"map": next(scores), "ap": {"dog": np.nan}})
    assert [record["map"] for record in one.fit()] == [None, 0.2, 0.1]
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail)["ap"] == {"dog": None}
    assert read_provenance(tmp_path)["best_epoch"] == 2
    assert runs.holds(tmp_path / "best.safetensors", one.progress.best, weights.describe(one.model))


def a_progress(run, recipe=RECIPE, images=12, **options):
    options = {"notes": {}, "follow": lambda numbers: None} | options
    return Progress(run, fresh_model(), recipe, MultiBoxLoss(), images, **options)


def numbers_of(loc, grad_norm):
    return {"loc": torch.tensor(loc), "grad_norm": torch.tensor(grad_norm)}


@given(st.lists(st.tuples(st.floats(0, 100, width=32), st.floats(0, 100, width=32)), min_size=1, max_size=8), st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_epochs_means_are_those_of_its_steps_wherever_it_was_interrupted(tmp_path, steps, data):
    """`done` and the sums are all that a state holds of an epoch that is under way."""
    one, stop = a_progress(tmp_path), data.draw(st.integers(0, len(steps)))
    for step in steps[:stop]:
        one.add(numbers_of(*step))
    other = a_progress(tmp_path)
    other.done, other.sums = one.done, one.state()["sums"]
    for step in steps[stop:]:
        other.add(numbers_of(*step))
    other.elapsed = 2.0
    means = other.means()
    expected = [sum(values) / len(steps) for values in zip(*steps, strict=True)]
    # A sum of at most eight float32 numbers, each addition right to 6e-8 of it.
    assert [means["loc"], means["grad_norm"]] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert means["grad_norm_max"] == max(norm for _, norm in steps) and means["images_per_second"] == 6.0


@pytest.mark.parametrize(
    ("maps", "patience", "finished"),
    [
        ([], 1, False),
        ([0.1, 0.2], 1, False),
        ([0.2, 0.1], 1, True),
        ([0.2, 0.1], 2, False),
        ([0.2, None, 0.1], 2, False),
        ([0.2, 0.1, 0.2], 2, True),
        ([0.2, 0.1, 0.1], None, False),
        ([0.2, 0.1, 0.3, 0.4], None, True),
        ([None, None, None], 1, False),
    ],
)
def test_a_run_is_finished_after_its_epochs_or_where_patience_ends(tmp_path, maps, patience, finished):
    one = a_progress(tmp_path, replace(RECIPE, epochs=4, patience=patience))
    one.history = [{"epoch": epoch, "map": value} for epoch, value in enumerate(maps, start=1)]
    assert one.finished() == one.provenance()["finished"] == finished


@pytest.mark.parametrize("late", [0, 1, 2])
def test_readings_come_in_order_all_of_them_and_as_late_as_asked(late):
    readings, read = Readings(torch.device("cpu")), []
    for step in range(5):
        readings.add(numbers_of(step / 2, 1.0), {"step": step})
        read.extend(readings.read(late))
        assert [numbers["step"] for numbers in read] == list(range(step + 1 - late))
    read.extend(readings.read(0))
    assert read == [{"step": step, "loc": step / 2, "grad_norm": 1.0} for step in range(5)]


def test_a_process_that_is_not_the_first_keeps_nothing(tmp_path, monkeypatch):
    """Of several processes each counts its time, and one writes."""
    monkeypatch.setattr(progress, "rank", lambda: 1)
    one = a_progress(tmp_path)
    one.save({})
    one.restore(one.state() | {"provenance": {}})
    assert not list(tmp_path.iterdir()) and one.minutes_unsaved() < 1
