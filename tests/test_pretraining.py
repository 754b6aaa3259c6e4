import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import ssd
from course_lib.pretraining import CROP, MARGIN, YIQ, crop, objects_of, pretrain, recolour
from course_lib.voc import VOCDetection


@settings(deadline=None)
@given(st.integers(0, 2**20))
def test_a_crop_shows_its_object_in_the_middle_at_the_promised_size(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((rng.integers(80, 400), rng.integers(80, 400), 3), np.uint8)
    w, h = rng.integers(12, 70, 2)
    x, y = rng.integers(0, image.shape[1] - w), rng.integers(0, image.shape[0] - h)
    image[y : y + h, x : x + w] = 255
    rows, columns = np.nonzero(crop(image, tuple(map(float, (x, y, x + w, y + h)))).mean(axis=2) > 127)
    longest = CROP / MARGIN
    expected = np.array([w, h]) * longest / max(w, h)
    assert np.abs([np.ptp(columns) + 1, np.ptp(rows) + 1] - expected).max() < 3
    centre = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2
    assert np.abs(centre - CROP / 2).max() < 2.5


def test_every_object_that_counts_is_cut_out_once(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "val")
    crops, labels = objects_of(dataset)
    truth = [dataset.annotation(index) for index in range(len(dataset))]
    expected = [label - 1 for a in truth for label in a.labels[~a.difficult].tolist()]
    assert labels.tolist() == expected and crops.shape == (len(expected), 3, CROP, CROP)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**20))
def test_recolouring_keeps_half_of_the_pictures_and_what_is_grey_in_the_others(seed):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(64, 3, 6, 6, generator=generator) * 160 + 40
    pictures[:, :, :, 0] = pictures[:, :1, :, 0]  # a grey column: no change of saturation or hue can colour it
    changed = recolour(pictures, generator)
    assert 10 <= (changed == pictures).flatten(1).all(dim=1).sum() <= 54
    assert changed.min() >= 0 and changed.max() <= 255
    unclipped = ((changed > 0) & (changed < 255)).all(dim=1)[:, :, 0]
    grey = changed[:, :, :, 0].permute(0, 2, 1)[unclipped]
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() < 0.1


def test_the_colour_axes_of_a_grey_are_nearly_zero_and_its_brightness_itself():
    torch.testing.assert_close(YIQ @ torch.full((3,), 200.0), torch.tensor([200.0, 0.0, 0.0]), rtol=0, atol=0.5)


@pytest.mark.slow
def test_the_trunk_learns_and_nothing_else_changes(small_devkit):
    model, untouched = ssd.ssd_mini(), ssd.ssd_mini()
    untouched.load_state_dict(model.state_dict())
    state = torch.random.get_rng_state()
    reports = []
    dataset = VOCDetection(small_devkit, "2007", "train")
    kept_back = pretrain(model, dataset, steps=30, report=lambda *row: reports.append(row))
    assert 0 <= kept_back <= 1 and reports[-1][0] == 30
    assert reports[-1][1] > reports[0][1]
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, now), before in zip(model.state_dict().items(), untouched.state_dict().values(), strict=True):
        assert torch.equal(now, before) != name.startswith("backbone"), name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trunk(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "val")
    models = [ssd.ssd_mini(), ssd.ssd_mini()]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        pretrain(model, dataset, steps=3, seed=5)
    for a, b in zip(*(model.backbone.state_dict().values() for model in models), strict=True):
        assert torch.equal(a, b)
