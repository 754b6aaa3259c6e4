from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from processes import RECIPE

from course_lib import augment, ssd
from course_lib.doctor.vital_signs import VitalSigns, examined
from course_lib.training import Trainer
from course_lib.voc import VOCDetection

USUAL = {
    "step": 0.0,
    "lr": 1e-3,
    "loc": 3.0,
    "conf": 12.0,
    "grad_norm": 8.0,
    "clipped": 0.0,
    "positives": 12.0,
    "overlap": 0.6,
    "recall": 0.0,
    "dead": 0.1,
    "update head kernels": 1e-3,
    "logits 0": 1.0,
    "offsets 0": 0.5,
}
STEPS, CLIP_NORM = 1000, 10.0


def samples(count=12, **others):
    """Of a training that learns, with other numbers: a number for all samples, or one made of the sample's index."""
    made = []
    for number in range(count):
        one = USUAL | {"step": 25.0 * number, "conf": 12.0 / (1 + number / 4), "recall": number / 20}
        made.append(one | {key: value(number) if callable(value) else value for key, value in others.items()})
    return made


def found(*given, **others):
    return {one.check: one for one in examined(samples(*given, **others), STEPS, CLIP_NORM)}


def test_a_training_that_learns_gives_no_finding():
    assert found() == {}
    assert found(lr=lambda number: 1e-3 / 2**number, **{"update head kernels": 0.0}) == {}  # it comes to rest


@pytest.mark.parametrize(
    ("sign", "severity", "others"),
    [
        ("falling-loss", "fault", {"overlap": 0.01, "recall": 0.0}),
        ("falling-loss", "warning", {"recall": 0.0, "step": lambda number: 200.0 * number}),
        ("positives", "fault", {"positives": 0.0}),
        ("rate", "fault", {"lr": 0.0}),
        ("clipping", "warning", {"clipped": 1.0, "grad_norm": 5000.0}),
        ("clipping", "note", {"clipped": 1.0, "grad_norm": 30.0}),
        ("update-to-weight", "warning", {"update head kernels": 1e-8}),
        ("update-to-weight", "warning", {"update head kernels": 0.5}),
        ("dead-units", "warning", {"dead": 0.9}),
        ("rising-loss", "warning", {"conf": lambda number: 12.0 + 4.0 * number}),
        ("levels", "warning", {"logits 0": 400.0}),
    ],
)
def test_each_sign_is_seen(sign, severity, others):
    if sign == "rising-loss":
        others = others | {"loc": 1.0}
    assert found(**others)[sign].severity == severity


@pytest.fixture(scope="module")
def trained(small_devkit, tmp_path_factory):
    """A short training, watched at every step, at every third, and not at all."""

    def train(watch):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ssd.ssd_nano()
        dataset = VOCDetection(small_devkit, "2007", "val")
        recipe, folder = replace(RECIPE, epochs=3), tmp_path_factory.mktemp("run")
        one = Trainer(model, dataset, augment.training_mini(96), recipe, folder, watch=watch)
        return one, one.fit()

    said, shown = [], []
    every = VitalSigns(1, said.append, shown.append)
    return {1: (*train(every), every), 0: (*train(None), (said, shown))}


def test_watching_changes_nothing_that_is_learned(trained):
    watched, alone = (trained[which][0].model.state_dict() for which in (1, 0))
    assert all(torch.equal(value, alone[name]) for name, value in watched.items())


def test_every_sample_has_its_numbers_and_every_epoch_their_means(trained):
    trainer, history, signs = trained[1]
    said, shown = trained[0][2]
    assert len(shown) == trainer.steps == len(signs.samples) and said == list(signs.findings.values())
    for sample in shown:
        assert {"loc", "conf", "grad_norm", "positives", "overlap", "recall", "dead", "clipped", "lr"} <= sample.keys()
        assert 0 <= sample["update head kernels"] < 1 and 0 <= sample["overlap"] <= 1 and sample["offsets 3"] >= 0
    assert all(record["signs"]["positives"] > 0 for record in history)
    assert not any("signs" in record for record in trained[0][1])


def test_steps_that_are_not_sampled_are_not_looked_at():
    signs, one = VitalSigns(3), Trainer.__new__(Trainer)
    weights = torch.nn.Parameter(torch.zeros(2, 2))
    one.optimizer = torch.optim.SGD([{"name": "head kernels", "params": [weights], "lr": 0.1}])
    one.schedule = SimpleNamespace(last_epoch=0)
    hooks = []
    for _ in range(5):
        signs.before(one)
        hooks.append(len(one.optimizer._optimizer_step_pre_hooks))
        for handle in signs.handles:
            handle.remove()
        signs.parts = None
    assert hooks == [1, 0, 0, 1, 0]


def test_a_pace_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="every is 0"):
        VitalSigns(0)
