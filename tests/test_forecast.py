import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from elsewhere import elsewhere

from course_lib import forecast, machine, profiles
from course_lib.forecast import REST, Pace

# A machine whose numbers are easy: 10 images a second are drawn on each of 2 cores.
PACE = Pace(drawing=10.0, loading=100.0, pretraining=15.0, training=50.0, detecting=25.0, cores=2)


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """The cpu profile with chapter 0's three epochs; EmojiVOC is not drawn yet."""
    monkeypatch.setattr(profiles, "EMOJI_VOC", tmp_path / "emoji")
    cpu = profiles.cpu()
    return replace(cpu, recipe=replace(cpu.recipe, epochs=3, evaluate_every=1), pretraining_steps=3000)


def finish(run, what):
    run.mkdir()
    if "start" in what:
        (run / "start.safetensors").touch()
    (run / "history.jsonl").write_text('{"epoch": 1}\n' * what.count("epoch"))


DRAW, PRETRAIN = 2500 / 20, 1800 / 100 + 3000 / 15
EPOCH = 1800 / 50 + 1800 / 200 + 200 / 25 + 200 / 200  # learned from, loaded meanwhile, validation
TEST = 500 / 25 + 500 / 200


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ("", DRAW + PRETRAIN + 3 * EPOCH + TEST),
        ("drawn", PRETRAIN + 3 * EPOCH + TEST),
        ("drawn start", 3 * EPOCH + TEST),
        ("drawn start epoch", 2 * EPOCH + TEST),
        ("drawn start epoch epoch epoch", TEST),
        ("drawn start epoch epoch epoch epoch", TEST),
    ],
)
def test_only_what_is_not_finished_takes_time(profile, tmp_path, finished, expected):
    if "drawn" in finished:
        (tmp_path / "emoji" / "VOC2007").mkdir(parents=True)
    finish(tmp_path / "run", finished)
    assert PACE.seconds_of(profile, tmp_path / "run") == pytest.approx(REST + expected)


def test_a_finished_run_takes_a_minute_or_less(profile, tmp_path):
    (tmp_path / "emoji" / "VOC2007").mkdir(parents=True)
    finish(tmp_path / "run", "start epoch epoch epoch")
    assert forecast.in_words(PACE.seconds_of(profile, tmp_path / "run")) == "about 1 minute"


def test_only_the_large_network_needs_a_gpu(profile):
    gpu = profiles.gpu()
    assert forecast.needs_a_gpu(replace(gpu, device="cpu"))
    assert not forecast.needs_a_gpu(replace(gpu, device="cuda")) and not forecast.needs_a_gpu(profile)


@pytest.mark.parametrize("drawn", [0, 500, 2499])
def test_images_that_are_drawn_already_take_no_time(profile, tmp_path, drawn):
    folder = tmp_path / "emoji" / ".VOC2007.unfinished" / "Annotations"
    folder.mkdir(parents=True)
    for number in range(drawn):
        (folder / f"{number:06d}.xml").touch()
    whole = REST + DRAW + PRETRAIN + 3 * EPOCH + TEST
    assert PACE.seconds_of(profile, tmp_path / "run") == pytest.approx(whole - drawn / 20)


def test_pretraining_that_was_interrupted_takes_only_what_is_left(profile, tmp_path):
    profile = replace(profile, pretraining_steps=200)
    without = PACE.seconds_of(profile, tmp_path / "run")
    (tmp_path / "run").mkdir()
    kept = {"step": 100, "right": torch.zeros(0)}
    torch.save(kept, tmp_path / "run" / "pretraining.pt")
    assert without - PACE.seconds_of(profile, tmp_path / "run") == pytest.approx(100 / 15)


def test_the_readers_own_lists_are_counted(profile, small_devkit, tmp_path):
    finish(tmp_path / "run", "start epoch epoch")
    mine = elsewhere(profile, small_devkit)  # 36 images to train on, 4 to select and 12 to test on
    expected = 36 / 50 + 36 / 200 + 16 / 25 + 16 / 200
    assert PACE.seconds_of(mine, tmp_path / "run") == pytest.approx(REST + expected)


@pytest.mark.parametrize(("loading", "seconds"), [(100.0, 500 / 25 + 500 / 200), (20.0, 500 / 20), (10.0, 500 / 10)])
def test_where_the_loader_is_slower_it_sets_the_pace(profile, tmp_path, loading, seconds):
    (tmp_path / "emoji" / "VOC2007").mkdir(parents=True)
    finish(tmp_path / "run", "start epoch epoch epoch")
    pace = replace(PACE, loading=loading)
    assert pace.seconds_of(profile, tmp_path / "run") == pytest.approx(REST + max(seconds, 500 / 25 + 250 / loading))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "about 1 minute"), (60.0, "about 1 minute"), (61.0, "about 2 minutes"), (420.0, "about 7 minutes")],
)
def test_minutes_are_rounded_up(seconds, words):
    assert forecast.in_words(seconds) == words


# How long a step takes, for how long to measure, and how many steps that is; the first is not measured.
@pytest.mark.parametrize(("takes", "seconds", "steps"), [(0.5, 2.0, 4), (0.75, 2.0, 3), (5.0, 2.0, 2), (5.0, 0.0, 2)])
def test_a_pace_is_measured_over_the_time_asked_for_and_two_steps_at_least(takes, seconds, steps):
    now, taken = [100.0], []

    def step():
        now[0] += takes if taken else 60.0
        taken.append(1)

    assert forecast.steps_a_second(step, seconds, clock=lambda: now[0]) == pytest.approx(1 / takes)
    assert len(taken) == 1 + steps


@pytest.mark.slow
def test_measuring_leaves_the_random_states_and_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cpu = profiles.cpu()
    small = replace(elsewhere(cpu, tmp_path / "none"), recipe=replace(cpu.recipe, batch_size=2))
    torch_state, numpy_state = torch.random.get_rng_state(), repr(np.random.get_bit_generator().state)
    recorded = profiles.RECORD.stat().st_mtime_ns
    pace = forecast.measure_pace(small, seconds=0.0)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert repr(np.random.get_bit_generator().state) == numpy_state
    assert not list(tmp_path.rglob("JPEGImages")) and profiles.RECORD.stat().st_mtime_ns == recorded
    assert min(pace.drawing, pace.loading, pace.pretraining, pace.training, pace.detecting) > 0
    assert pace.cores == machine.cores()
