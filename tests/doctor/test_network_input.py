from types import SimpleNamespace

import numpy as np
import pytest
import torch
from doctor.planted import batches, findings, with_images

from course_lib import augment, profiles, voc, weights
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient

NORMALISED = "pixels-are-normalised-as-the-weights-expect"


class Plain(torch.nn.Module):
    """A network of somebody else's, which says of its pixels what it is told to say."""

    def __init__(self, mean: float, deviation: float, backbone: SimpleNamespace | None = None) -> None:
        super().__init__()
        self.layer, self.mean, self.deviation = torch.nn.Conv2d(3, 4, 3), mean, deviation
        self.backbone = backbone

    def forward(self, images):
        return self.layer((images.float() - self.mean) / self.deviation)


def patient_of(learned, change=lambda images: images, **parts) -> Patient:
    model = Plain(117, 58, SimpleNamespace(pixel_mean=(117,) * 3, pixel_std=(58,) * 3))
    loop = batches(learned)
    return Patient(data=learned, batches=loop, model=model, outputs=lambda b: model(change(b.images)), **parts)


def test_what_the_first_convolution_receives_is_measured(learned):
    healthy = patient_of(learned, pretrained={})
    assert findings(healthy, NORMALISED) == []
    twice = findings(patient_of(learned, lambda images: images.float() / 255, pretrained={}), NORMALISED)
    assert "divided by 255 once more" in twice[0][1]
    before = findings(patient_of(learned, lambda images: (images.float() - 120) / 58), NORMALISED)
    assert len(before) == 1 and "due for the model's backbone are less (117, 117, 117)" in before[0][1]
    exchanged = findings(patient_of(learned, lambda images: images.flip(1)), NORMALISED)
    assert any("receives blue, green, red" in seen for _, seen in exchanged)
    others = patient_of(learned, expects=((127.5,) * 3, (127.5,) * 3))
    assert "due for the pretrained weights" in findings(others, NORMALISED)[0][1]
    near = patient_of(learned, expects=((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))  # ImageNet's
    assert findings(near, NORMALISED) == []


def test_means_of_red_and_blue_that_are_exchanged_are_named(learned):
    """Also where nobody says what the weights expect: the published numbers are known."""
    right = torch.tensor((123.0, 117.0, 104.0)).view(3, 1, 1)
    wrong = right.flip(0)
    for said in (SimpleNamespace(pixel_mean=(123.0, 117.0, 104.0), pixel_std=(1.0,) * 3), None):
        for mean, words in ((right, ""), (wrong, "exchanged")):
            model = Plain(0, 1, said)
            parts = {"outputs": lambda b, model=model, mean=mean: model(b.images.float() - mean)}
            found = findings(Patient(data=learned, batches=batches(learned), model=model, **parts), NORMALISED)
            assert (len(found) == 1 and words in found[0][1]) if words else found == []


def test_pretrained_statistics_tell_that_pixels_are_in_another_unit(learned):
    taught = weights.load(profiles.RECORD)
    loop = setups.Batches(learned, augment.training_mini(taught.image_size), voc.collate, 20)
    parts = {"batches": loop, "model": taught, "pretrained": dict(taught.state_dict())}
    name = "pixels-are-those-that-statistics-know"
    assert findings(Patient(**parts), name) == []
    taught.std.mul_(1 / 255)
    assert "are off by" in findings(Patient(**parts), name)[0][1]


class Scaled(torch.nn.Module):
    """A part of a trunk, and a scale behind it that its weights did not meet."""

    def __init__(self, part, change):
        super().__init__()
        self.part, self.change = part, change

    def forward(self, x):
        return self.change(self.part(x))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x, False),
        (lambda x: x * 20, True),
        (lambda x: x - 3, True),
        (lambda x: 20 * torch.nn.functional.normalize(x, dim=1), True),
    ],
)
def test_pretrained_statistics_tell_that_a_part_of_the_trunk_is_another(learned, change, found):
    taught = weights.load(profiles.RECORD)
    loop = setups.Batches(learned, augment.training_mini(taught.image_size), voc.collate, 20)
    parts = {"batches": loop, "model": taught, "pretrained": dict(taught.state_dict())}
    taught.backbone.to_conv4_3 = torch.nn.Sequential(*taught.backbone.to_conv4_3)
    place = len(taught.backbone.to_conv4_3) - 1
    taught.backbone.to_conv4_3[place] = Scaled(taught.backbone.to_conv4_3[place], change)
    seen = findings(Patient(**parts), "maps-are-those-that-statistics-know")
    assert bool(seen) == found, seen
    assert not seen or "batch norm backbone.to_fc7.2 meets" in seen[0][1]


def test_grey_pictures_are_in_no_wrong_order(learned):
    grey = with_images(learned, lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, 2).astype(np.uint8))
    assert findings(patient_of(grey, pretrained={}), NORMALISED, "colours-are-those-of-the-data") == []


@pytest.mark.parametrize(
    ("mean", "deviation", "healthy"),
    [(0, 1, True), (0, 255, True), (127.5, 127.5, True), (117, 58, True), (117, 1, True), (0.485, 0.229, False),
     (117 * 255, 255, False), (0, 255 * 255, False)],
)  # fmt: skip
def test_of_unknown_weights_only_what_no_network_wants_is_told(learned, mean, deviation, healthy):
    patient = Patient(data=learned, batches=batches(learned), model=Plain(mean, deviation))
    assert (findings(patient, NORMALISED) == []) == healthy


@pytest.mark.parametrize("turned", [False, True])
def test_pictures_that_were_read_blue_first_are_noted_where_statistics_know_better(learned, turned):
    taught = weights.load(profiles.RECORD)
    data = with_images(learned, lambda image: np.ascontiguousarray(image[..., ::-1])) if turned else learned
    loop = setups.Batches(data, augment.training_mini(taught.image_size), voc.collate, 20)
    known = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
    patient = Patient(data=data, batches=loop, model=taught, pretrained=known)
    found = findings(patient, "pixels-are-those-that-statistics-know", severity=("fault", "warning", "note"))
    assert "with red and blue exchanged" in found[0][1] if turned else found == []
