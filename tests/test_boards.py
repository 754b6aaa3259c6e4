import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from course_lib import profiles, weights
from course_lib.boards import FOLDER, SIGNS, Board, curves
from course_lib.doctor import Finding
from course_lib.voc import VOCDetection

RECORD = {
    "epoch": 1,
    "images": 1800,
    "loc": 1.5,
    "conf": 3.0,
    "grad_norm": 2.0,
    "grad_norm_max": 5.0,
    "lr": 1e-3,
    "images_per_second": 90.0,
    "seconds": 20.0,
}
MEASURED = {"map": 0.5, "ap": {"cat": 0.25, "dog": 0.75, "sofa": None}, "val_loc": 1.0, "val_conf": 2.5}


@pytest.fixture(scope="module")
def model():
    return weights.load(profiles.RECORD)


@pytest.fixture
def board(small_devkit, tmp_path, model):
    def make():
        return Board(tmp_path, model, VOCDetection(small_devkit, "2007", "test"))

    return make


def written(folder):
    """What TensorBoard would show: the points of every curve, and the steps that have a picture."""
    events = EventAccumulator(str(folder / FOLDER), size_guidance={IMAGES: 0})
    events.Reload()
    tags = events.Tags()
    points = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags["scalars"]}
    counts = {tag: len(events.Scalars(tag)) for tag in tags["scalars"]}
    assert counts == {tag: len(steps) for tag, steps in points.items()}, "a step is there twice"
    return points, [event.step for tag in tags["images"] for event in events.Images(tag)]


def test_every_number_of_a_record_has_its_curve():
    points = curves(RECORD | MEASURED)
    assert points["loss/box"] == 1.5 and points["loss of validation/class"] == 2.5 and points["AP/dog"] == 0.75
    assert len(points) == len(RECORD) - len(["epoch", "images", "seconds"]) + 3 + 2
    assert curves({"epoch": 1, "map": None, "loc": math.nan, "ap": {}}) == {}


def test_a_board_holds_the_history_and_a_picture_of_each_measurement(board, tmp_path):
    history = [RECORD, RECORD | MEASURED | {"epoch": 2, "loc": 1.0}]
    with board() as one:
        for record in history:
            one.report(record)
    points, pictures = written(tmp_path)
    for record in history:
        for label, value in curves(record).items():
            assert points[label][record["epoch"]] == pytest.approx(value, rel=1e-6)  # float32 in the file
    assert points.keys() == curves(history[1]).keys() and pictures == [2]


def test_a_run_that_is_gone_on_with_writes_no_epoch_twice(board, tmp_path):
    """Killed after it has written epoch 2 and before that epoch was saved, it computes it again."""
    with board() as one:
        for epoch in (1, 2):
            one.report(RECORD | MEASURED | {"epoch": epoch})
    with board() as one:
        for epoch in (2, 3):
            one.report(RECORD | MEASURED | {"epoch": epoch, "loc": 0.5})
    points, pictures = written(tmp_path)
    assert points["loss/box"] == {1: 1.5, 2: 0.5, 3: 0.5} and pictures == [1, 2, 3]


def test_a_picture_that_cannot_be_read_is_left_out_and_the_model_stays_as_it_was(board, tmp_path, monkeypatch):
    one = board()
    one.model.train()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    assert one.picture().shape[2] == 3 and one.model.training
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    monkeypatch.setattr(one.dataset, "items", [(tmp_path, "no such image")])
    assert one.picture() is None
    with one:
        one.report(RECORD | MEASURED)
    assert written(tmp_path)[1] == []


def test_a_board_that_was_told_nothing_writes_nothing(board, tmp_path):
    with board():
        pass
    assert not (tmp_path / FOLDER).exists()


def test_vital_signs_have_curves_of_their_own_and_findings_are_text(board, tmp_path):
    with board() as one:
        one.sample({"step": 1.0, "overlap": 0.5, "recall": math.nan})
        one.sample({"step": 26.0, "overlap": 0.75})
        one.finding(Finding("warning", "the rate is 0", "nothing is learned", "look", 9, "rate"))
    events = EventAccumulator(str(tmp_path / FOLDER / SIGNS))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("vital signs/overlap")] == [(1, 0.5), (26, 0.75)]
    assert "vital signs/recall" not in events.Tags()["scalars"]
    assert any("warning/rate" in tag for tag in events.Tags()["tensors"])
