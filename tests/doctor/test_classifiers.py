from dataclasses import replace

import pytest
import torch

from course_lib.convergence import Learner, Plan
from course_lib.crops import Crops
from course_lib.doctor import classifiers, examine
from course_lib.doctor.examination import every_check

SMALL = Plan(width=1 / 16, batch_size=16, epochs=4)


def pictures(count=96):
    """Blobs on noise: three classes by the blob's colour."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randint(60, 180, (count, 3, 32, 32), generator=generator).float()
    for row, label in enumerate(labels.tolist()):
        images[row, label, 8:24, 8:24] = 250.0
    return Crops(images.to(torch.uint8), labels, ("red", "green", "blue"))


def examined(plan, learning=False):
    return examine(classifiers.patient(Learner(plan, pictures())), learning, only=classifiers.CHECKS)


def test_its_checks_are_checks_of_the_doctors():
    assert {*classifiers.CHECKS} <= {one.name for one in every_check()}


def test_a_picture_with_a_class_is_an_image_with_one_object():
    crops = pictures(5)
    batch = classifiers.as_batch(crops.images, crops.labels)
    assert torch.equal(batch.labels[:, 0] - 1, crops.labels) and batch.boxes.shape == (5, 1, 4)
    assert batch.images is crops.images and batch.sizes == [(32, 32)] * 5


def test_a_classifier_that_learns_is_healthy_and_every_check_can_be_made():
    report = examined(SMALL)
    assert [one for one in report.findings if one.severity != "note"] == [], str(report)
    assert not report.not_examined


@pytest.mark.slow
def test_a_classifier_learns_a_few_pictures_by_heart():
    report = examined(SMALL, learning=True)
    assert [one for one in report.findings if one.severity != "note"] == [], str(report)
    assert not report.not_examined


@pytest.mark.parametrize(
    ("plan", "check"),
    [
        (replace(SMALL, initialisation="too large", norm="none"), "activations"),
        (replace(SMALL, initialisation="too small", norm="none"), "scale-is-kept"),
        (replace(SMALL, initialisation="pytorch", norm="none"), "scale-is-kept"),
        (replace(SMALL, learning_rate=1.0), "rates-teach"),
        (replace(SMALL, learning_rate=1e-7), "rates-teach"),
        (replace(SMALL, normalisation="raw"), "pixels-are-normalised-as-the-weights-expect"),
    ],
)
def test_what_is_wrong_with_it_is_named(plan, check):
    found = [one for one in examined(plan).findings if one.severity != "note"]
    assert check in {one.check for one in found}, found
