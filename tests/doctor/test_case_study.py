from math import log

import pytest
import torch
from doctor.planted import made_of
from hypothesis import given
from hypothesis import strategies as st

from course_lib import losses, matching, profiles, voc, weights
from course_lib.boxes import decode
from course_lib.doctor import case_study, examine, museum

EVERY = [(name, count) for name in case_study.RUNS for count in range(len(case_study.repairs_of(name)) + 1)]


@pytest.fixture(scope="module")
def parts(small_devkit):
    data, held_out = (voc.ImageDataset([voc.ImageSet(small_devkit / "VOC2007", name)]) for name in ("trainval", "test"))
    return museum.in_memory(data, 32), museum.in_memory(held_out, 8)


@pytest.fixture(scope="module")
def trunk():
    """The recorded detector: what is random shows only beside what was meant to be there."""
    return weights.load(profiles.RECORD)


def put_together(name, repaired, parts, batch_size=4):
    setup = case_study.run(name, repaired, *parts)
    setup.batch_size = batch_size
    return setup


@pytest.mark.parametrize(("name", "repaired"), [("A", 0), ("A", 1), ("A", 7), ("B", 0), ("B", 3), ("B", 7)])
def test_each_state_has_a_finite_loss_that_only_pixels_make_a_distance(name, repaired, parts):
    patient = put_together(name, repaired, parts).patient()
    with torch.no_grad():
        first = {name: float(value) for name, value in patient.losses(patient.first_batches(1)[0]).items()}
    total = sum(first.values())
    assert 600 < total < 10_000 if repaired == 0 else 1 < total < 600
    if repaired == 0:  # an object at pixel 48, seen from a prior of 0.0917, which is what the edge leaves of 0.1
        assert first["loc"] == pytest.approx(2 * 48 / 0.0917, rel=0.4)


@pytest.mark.parametrize("name", case_study.RUNS)
def test_each_repair_takes_one_fault_away_and_after_all_nothing_is_left(name, parts):
    repairs = case_study.repairs_of(name)
    healthy = museum.healthy(*parts)
    setups = [put_together(name, count, parts) for count in range(len(repairs) + 1)]
    last, size = setups[-1], healthy.model.image_size
    assert made_of(last.match) == made_of(healthy.match) and last.transform.__class__ is healthy.transform.__class__
    torch.testing.assert_close(last.priors, healthy.priors, rtol=0, atol=0)
    assert made_of(last.schedule) == made_of(healthy.schedule)
    assert made_of(last.optimizer) == made_of(healthy.optimizer)
    assert isinstance(last.loss, losses.SoftmaxFocalLoss if name == "B" else losses.MultiBoxLoss)
    names = [one.name for one in repairs]
    for setup, mended in zip(setups, (set(names[:count]) for count in range(len(setups))), strict=True):
        batch = setup.patient().first_batches(1)[0]
        assert (float(batch.boxes.max()) > 2) == ("units" not in mended)
        assert (setup.model.spec == healthy.model.spec) == ("network" in mended)
        corners = setup.priors[:, :2] - setup.priors[:, 2:] / 2
        assert bool((corners >= -1e-6).all()) == ("edges" not in mended)
        assert setup.model.image_size == size


def test_each_repair_is_told_in_words_and_of_a_run():
    names = [one.name for one in case_study.REPAIRS]
    assert len(set(names)) == len(names)
    for one in case_study.REPAIRS:
        assert one.fault.endswith(".") and "\n" not in one.cure and set(one.runs) <= set(case_study.RUNS)
    assert {one.name for one in case_study.repairs_of("A")} ^ {one.name for one in case_study.repairs_of("B")} == {
        "start",
        "rate",
    }


@pytest.mark.parametrize(("name", "repaired"), [("C", 0), ("A", -1), ("B", 8)])
def test_another_run_and_too_many_repairs_are_refused(name, repaired, parts):
    with pytest.raises(ValueError, match="run"):
        case_study.run(name, repaired, *parts)


def test_a_run_can_be_ill_with_one_fault_alone(parts):
    setup = case_study.ill_with("B", ["variances"], *parts)
    assert setup.match is not museum.healthy(*parts).match and setup.model.spec.image_size == 96
    with pytest.raises(ValueError, match=r"missing is rate: run B has units, .*freezing"):
        case_study.ill_with("B", ["rate"], *parts)


def test_in_pixels_each_picture_has_one_positive_and_it_is_prior_0(parts):
    """But for an object whose corner is in the very first pixel: that overlaps."""
    patient = put_together("A", 0, parts).patient()
    batch = patient.first_batches(1)[0]
    positives = patient.matches(batch).labels > 0
    away = (batch.boxes[..., :2].amax(dim=2) > 1.01) | (batch.labels == 0)
    assert away.all(dim=1).any()
    for picture in away.all(dim=1).nonzero().flatten().tolist():
        assert positives[picture].nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("repaired", range(4))
def test_boxes_are_read_as_they_were_learned(parts, repaired):
    """Outputs that say what the match wants are found at the object's place, whatever its unit."""
    setup = put_together("A", repaired, parts)
    patient = setup.patient()
    batch = patient.first_batches(1)[0]
    matches = patient.matches(batch)
    logits = torch.nn.functional.one_hot(matches.labels, len(setup.classes) + 1) * 20.0
    setup.images, setup.model = (lambda batch: batch), None
    patient.outputs = lambda batch: (matches.offsets, logits)
    side = 96 if repaired == 0 else 1
    found = patient.detect(batch)
    for one, boxes, index in zip(found, batch.boxes / side, matches.gt_index, strict=True):
        learned = boxes[index[index >= 0].unique()].clamp(0, 1)
        sure = one.boxes[one.scores > 0.5]
        distance = (sure[:, None] - learned[None]).abs().amax(dim=2)
        torch.testing.assert_close(distance.amin(dim=0), torch.zeros(len(learned)), atol=1e-3, rtol=0)


class Numbers:
    """A transform that gives the number of its sample, and keeps its seeds."""

    def __init__(self):
        self.seeds = []

    def seed(self, number):
        self.seeds.append(number)

    def __call__(self, image, target):
        return target


@given(steps=st.integers(1, 9))
def test_every_epoch_shows_each_picture_once_in_another_order(parts, steps):
    setup = put_together("A", len(case_study.repairs_of("A")), parts, batch_size=2)
    setup.data, setup.collate = [(None, number) for number in range(7)], list
    batches, seeds = [], []
    for _ in range(2):
        setup.transform = Numbers()
        batches.append(list(case_study.batches_of(setup, steps)))
        seeds.append(setup.transform.seeds)
    assert batches[0] == batches[1] and seeds[0] == seeds[1]
    assert len(set(seeds[0])) == len(seeds[0])  # no picture is augmented twice alike
    assert [len(batch) for batch in batches[0]] == [2] * steps
    epochs = [[one for batch in batches[0][start : start + 3] for one in batch] for start in range(0, steps, 3)]
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert steps < 6 or epochs[0] != epochs[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "repaired"), EVERY)
def test_the_doctor_names_first_what_is_mended_next(name, repaired, parts, trunk):
    """By the checks of all repairs; `experiments/case_study.py` asks all others too."""
    setup = case_study.run(name, repaired, *parts, trunk)
    known = [one for repair in case_study.REPAIRS for one in repair.named_by]
    found = examine(setup.patient(), learning=False, only=known).of("fault", "warning")
    if repaired == len(case_study.repairs_of(name)):
        assert not found
    else:
        assert found[0].check in case_study.repairs_of(name)[repaired].named_by


def test_a_training_is_measured_before_it_and_on_the_way(parts):
    setup = put_together("A", len(case_study.repairs_of("A")), parts)
    run = case_study.train(setup, steps=3, every=2)
    assert [one["step"] for one in run["measured"]] == [0, 2, 3]
    assert len(run["losses"]) == 3 and len(run["found"]) == len(parts[1])
    for one in run["measured"]:
        assert 0 <= one["map"] <= one["recall"] <= 1
        assert one["val_loc"] > 0 and one["val_conf"] > 4 * log(21) / 2


def test_the_held_out_images_have_the_units_of_the_run_and_the_truth_has_not(parts):
    ill, well = (case_study.batches_to_measure(put_together("A", count, parts)) for count in (0, 1))
    for one, other in zip(ill, well, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes * 96, atol=1e-4, rtol=0)  # of 96
        assert torch.equal(one.images, other.images)
    truth = [parts[1][index][1] for index in range(8)]
    first = well[0].boxes[0, : len(truth[0].boxes)]
    torch.testing.assert_close(first, truth[0].boxes, atol=0.02, rtol=0)  # a pixel of 96, on either side


def test_a_match_that_is_perfect_decodes_to_its_boxes(parts):
    """The library's own match and variances: what all repairs lead to."""
    patient = put_together("B", len(case_study.repairs_of("B")), parts).patient()
    batch = patient.first_batches(1)[0]
    matches = matching.match(batch.boxes, batch.labels, patient.priors, 0.4)
    own = patient.matches(batch)
    assert torch.equal(own.labels, matches.labels)
    positive = own.labels > 0
    boxes = decode(own.offsets, patient.priors)
    image = torch.arange(len(boxes))[:, None].expand_as(own.gt_index)
    wanted = batch.boxes[image[positive], own.gt_index[positive]]
    torch.testing.assert_close(boxes[positive], wanted, atol=1e-5, rtol=0)
