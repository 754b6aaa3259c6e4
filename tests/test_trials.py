"""Trials: tiny trainings whose record says what happened."""

import json
from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib import arms, schedules, trials, voc, weights
from course_lib.doctor.setups import healthy
from course_lib.files import as_json
from course_lib.profiles import RECORD


@pytest.fixture(scope="module")
def parts(small_devkit):
    """Images to learn from and to measure on, and a trained trunk."""
    sets = (voc.ImageDataset(voc.image_sets(small_devkit, "2007", name)) for name in ("trainval", "test"))
    return *(trials.shrunk_to(one, 96, images) for one, images in zip(sets, (16, 8), strict=True)), weights.load(RECORD)


@pytest.fixture
def setup(parts):
    pool, held_out, trunk = parts
    setup = healthy(pool, held_out, trunk, seed=1)
    setup.batch_size, setup.steps = 4, 3
    arms.scheduled(setup, schedules.warmup_cosine, warmup_steps=1)
    return setup


def test_a_trial_tells_all_that_happened(setup, parts):
    record = trials.trial(setup, parts[1])
    assert record["diverged"] is None and record["steps"] == 3 and record["images"] == 12
    assert 0 <= record["map"] <= 1 and list(record["ap"]) == list(setup.classes)
    known = [value for value in record["ap"].values() if value is not None]
    assert record["map"] == pytest.approx(sum(known) / len(known), abs=1e-4)
    assert len(record["loss"]) == len(record["gradient"]) == 3
    assert 4 * log(21) < record["loss"][0] < 40 and record["longest_gradient"] >= max(record["gradient"])
    assert [one["step"] for one in record["moments"]] == [1, 2, 3] and record["moments"][-1].keys() == {
        "step",
        "loc",
        "conf",
    }
    assert json.loads(as_json(record)) == record


@pytest.mark.slow
def test_a_seed_gives_the_same_record_and_another_seed_another(parts):
    records = []
    for seed in (0, 0, 1):
        pool, held_out, trunk = parts
        setup = healthy(pool, held_out, trunk, seed)
        setup.batch_size, setup.steps = 4, 2
        arms.dropped_out(setup, 0.5)  # draws from torch's own generator
        record = trials.trial(setup, held_out)
        records.append({name: record[name] for name in ("loss", "gradient", "moments", "map")})
    assert records[0] == records[1] and records[0]["loss"] != records[2]["loss"]


def test_torchs_own_generator_stays_as_it_is(setup, parts):
    arms.dropped_out(setup, 0.5)
    before = torch.get_rng_state()
    trials.trial(setup, parts[1])
    assert torch.equal(before, torch.get_rng_state())


def test_a_training_that_diverges_is_a_result(setup, parts):
    """From the second step on the loss is NaN."""
    usual, steps = setup.loss, []

    def loss(*outputs):
        return {name: value * (float("nan") if len(steps) > 1 else 1) for name, value in usual(*outputs).items()}

    setup.steps, setup.loss, setup.images = 4, loss, lambda batch: steps.append(len(batch.images)) or batch.images
    record = trials.trial(setup, parts[1])
    assert record["diverged"] == 2 and record["map"] == 0.0 and set(record["ap"].values()) == {0.0}
    kept = json.loads(as_json(record))
    assert kept["steps"] == 2 and len(kept["loss"]) == 1 and kept["moments"][0]["loc"] is None


def test_outputs_that_are_not_finite_are_a_divergence_too(setup, parts):
    """Weights may be spoilt by the very last step, after which no loss is computed any more."""
    step = setup.patient().step

    def made(patient):
        def spoil(batch):
            numbers = step(batch)
            with torch.no_grad():
                patient.model.conf_heads[0].bias.fill_(float("nan"))
            return numbers

        return spoil

    setup.steps, setup.made_last = 1, {"step": made}
    record = trials.trial(setup, parts[1])
    assert (record["diverged"], record["map"]) == (1, 0.0)


@pytest.mark.slow
def test_the_gradient_is_measured_before_it_is_shortened(parts):
    lengths = []
    for clip_norm in (None, 1e-3):
        pool, held_out, trunk = parts
        setup = healthy(pool, held_out, trunk)
        setup.batch_size, setup.steps, setup.clip_norm = 4, 1, clip_norm
        lengths.append(trials.trial(setup, held_out)["gradient"])
    assert lengths[0] == lengths[1] and lengths[0][0] > 1


def test_the_length_is_that_of_all_gradients_together(setup):
    patient = setup.patient()
    with trials.GradientLength(patient.model) as length:
        sum(patient.losses(patient.first_batches(1)[0]).values()).backward()
    gradients = [one.grad.flatten().double() for one in patient.model.parameters() if one.grad is not None]
    assert float(length) == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)


def test_a_plateau_hears_of_the_held_out_loss(setup, parts, monkeypatch):
    arms.scheduled(setup, schedules.plateau, warmup_steps=0)
    heard = []
    monkeypatch.setattr(schedules.Plateau, "measured", lambda self, score: heard.append(score))
    record = trials.trial(setup, parts[1])
    totals = [one["loc"] + one["conf"] for one in record["moments"]]
    assert heard == pytest.approx([-total for total in totals], rel=1e-3)


@pytest.mark.slow
def test_the_best_moments_are_measured_where_they_are_asked_for(setup, parts):
    record = trials.trial(setup, parts[1], choosing=True)
    assert {"map_by_loss", "map_by_map"} <= record.keys()
    assert all(0 <= one["map"] <= 1 for one in record["moments"])
    # Held-out and test images are the same here: what is chosen by mAP is the highest of all moments.
    assert record["map_by_map"] == pytest.approx(max(one["map"] for one in record["moments"]), abs=1e-4)


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=60), points=st.integers(1, 15))
def test_a_curve_is_thinned_to_means(values, points):
    found = trials.thinned(values, points)
    assert len(found) == min(points, len(values))
    assert min(values) - 0.1 <= min(found) and max(found) <= max(values) + 0.1
    if len(values) % points == 0:
        assert sum(found) / len(found) == pytest.approx(sum(values) / len(values), abs=0.2)


def test_a_mean_leaves_classes_without_objects_out():
    ap = {"a": 0.5, "b": None, "c": 0.1}
    assert trials.mean_of(ap) == pytest.approx(0.3) and trials.mean_of(ap, ["b", "c"]) == 0.1
    with pytest.raises(ValueError, match=r"one of \['b'\]"):
        trials.mean_of(ap, ["b"])


def test_pictures_are_read_once_and_boxes_stay(small_devkit):
    data = voc.ImageDataset(voc.image_sets(small_devkit, "2007", "test"))
    kept = trials.shrunk_to(data, 96, 3)
    assert len(kept) == 3 and kept.classes == data.classes and len(trials.shrunk_to(data, 8)) == len(data)
    for index in range(3):
        image, target = kept[index]
        assert image.shape == (96, 96, 3) and image is kept[index][0]
        assert torch.equal(target.boxes, data[index][1].boxes) and target.size == data[index][1].size
