"""Every exhibit is caught by a finding that names its cause, and healthy trainings are left in peace.

Here each exhibit is examined by the checks that are to catch it, and controls by all that only look, a few by those
that train too. `experiments/doctor_matrix.py` examines all of them by all checks.
"""

import os
from pathlib import Path

import pytest
from families import weekly_but

from course_lib import emoji_voc, profiles, voc, weights
from course_lib.doctor import blind_trial, controls, examine, museum

TRAINED = ("as-it-is", "focal", "sgd", "random-start")
USUAL = ("as-it-is", "one-class")
# What healthy trainings do too, and is only noted.
NOTED = (
    "pools-round-down",
    "numbers-clamped",
    "two-heads-at-one-stride",
    "decay-on-everything",
    "each-variable-clipped",
    "weights-as-a-vector",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory):
    """Data to learn from, data to measure on, and a trained detector."""
    devkit = emoji_voc.make_emoji_voc(tmp_path_factory.mktemp("museum"), train=112, test=32, workers=1)
    data, held_out = (
        museum.in_memory(voc.VOCDetection(devkit, "2007", name), images)
        for name, images in (("trainval", 96), ("test", 32))
    )
    return data, held_out, weights.load(profiles.RECORD)


def test_every_exhibit_is_caught_or_is_said_not_to_be():
    assert museum.CAUGHT_BY.keys() | museum.NOT_CAUGHT.keys() == museum.EXHIBITS.keys()
    assert not museum.CAUGHT_BY.keys() & museum.NOT_CAUGHT.keys()


@pytest.mark.parametrize("name", museum.CAUGHT_BY)
def test_an_exhibit_is_caught_by_a_finding_that_names_its_cause(ingredients, name):
    exhibit, setup = museum.EXHIBITS[name], museum.healthy(*ingredients)
    exhibit.plant(setup)
    report = examine(setup.patient(), only=exhibit.caught_by)
    assert report.findings, exhibit.title
    assert report.healthy == (name in NOTED), str(report)


@pytest.mark.parametrize("name", blind_trial.PLANTED)
def test_a_fault_of_the_blind_trial_is_named_since_then(ingredients, name):
    planted, setup = blind_trial.PLANTED[name], museum.healthy(*ingredients)
    planted.plant(setup)
    report = examine(setup.patient(), only=planted.caught_by)
    assert bool(planted.caught_by) != report.healthy, str(report)


@pytest.mark.parametrize("name", weekly_but(USUAL, controls.CONTROLS))
def test_a_healthy_training_is_left_in_peace(ingredients, name):
    report = examine(controls.CONTROLS[name](*ingredients).patient(), learning=name in TRAINED)
    assert report.healthy, str(report)


def test_photographs_and_their_annotations_are_left_in_peace():
    if not os.environ.get("PHOTOS"):
        pytest.skip("PHOTOS names no folder with photographs")
    tree = Path(os.environ["PHOTOS"]) / "VOCdevkit" / "VOC2012"
    assert examine(controls.ON_REAL_DATA["annotations"](tree, "train")).healthy
    report = examine(controls.ON_REAL_DATA["photographs"](tree).patient(), learning=False)
    assert report.healthy, str(report)


def test_real_pictures_of_voc_are_left_in_peace(voc_real, ingredients):
    tree = voc_real / "VOCdevkit" / "VOC2007"
    report = examine(controls.ON_REAL_DATA["pictures"](tree, ingredients[2]).patient(), learning=False)
    assert report.healthy, str(report)
