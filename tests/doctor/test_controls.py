import os
from math import isfinite
from pathlib import Path

import pytest
import torch
from exhibited import BATCH

from course_lib import losses
from course_lib.doctor import controls


def two_steps(setup):
    """The losses of two steps, with small batches."""
    setup.batch_size = min(setup.batch_size, BATCH // 2)
    patient = setup.patient()
    return patient, [patient.step(batch) for batch in patient.first_batches(2)]


def test_there_are_enough_controls_and_each_says_what_differs():
    assert len(controls.CONTROLS) >= 14
    assert all(control.__doc__ or control.__name__ == "<lambda>" for control in controls.CONTROLS.values())


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_the_first_steps_of_every_control_are_finite(ingredients, name):
    if name == "larger":
        pytest.skip("the slow test has it")
    before = [tensor.clone() for tensor in ingredients.trunk.state_dict().values()]
    patient, found = two_steps(controls.CONTROLS[name](*ingredients))
    for parts in found:
        assert all(isfinite(value) for value in parts.values()), parts
    assert sum(found[0].values()) < 40, "a first loss of a few units for each part"
    assert all(torch.equal(*pair) for pair in zip(before, ingredients.trunk.state_dict().values(), strict=True))
    assert all(one.requires_grad or name in patient.frozen for name, one in patient.model.named_parameters())


@pytest.mark.slow
def test_the_first_steps_of_the_larger_model_are_finite(ingredients):
    _, found = two_steps(controls.CONTROLS["larger"](*ingredients))
    assert all(isfinite(value) for parts in found for value in parts.values())


def test_classes_are_as_uneven_as_promised_and_no_image_is_changed(ingredients):
    setup = controls.as_uneven_as_voc(*ingredients)
    counts = torch.bincount(torch.cat([t.labels for _, t in setup.data]), minlength=len(setup.classes) + 1)[1:]
    assert counts[0] > 2 * counts[-3:].max() and counts[-3:].max() <= 3
    images = [id(image) for image, _ in ingredients.data]
    assert all(id(image) in images for image, _ in setup.data)
    assert setup.model.classes == setup.classes == setup.held_out.classes


def test_classes_that_are_dealt_out_are_all_in_range(ingredients):
    setup = controls.CONTROLS["own-classes"](*ingredients)
    labels = torch.cat([target.labels for _, target in setup.data])
    assert set(labels.tolist()) == {1, 2, 3} and setup.model.num_classes == 4


def test_grey_pictures_have_one_brightness_in_all_channels(ingredients):
    image, _ = controls.grey(*ingredients).data[0]
    assert (image[..., 0] == image[..., 2]).all() and image.shape == ingredients.data[0][0].shape


def test_a_loss_that_wants_prepared_heads_has_them(ingredients):
    setup = controls.focal(*ingredients)
    assert setup.model.scoring == losses.FocalLoss.scoring
    assert setup.model.conf_heads[0].bias.min() < -4


def test_the_annotations_of_a_tree_are_a_patient_without_pictures(small_devkit):
    patient = controls.annotations_of(small_devkit / "VOC2007", "train")
    assert len(patient.targets()) == len(patient.data) > 0 and not patient.has("model") and not patient.has("batches")


def test_real_pictures_make_a_patient(voc_real, ingredients):
    tree = voc_real / "VOCdevkit" / "VOC2007"
    _, found = two_steps(controls.pictures_of(tree, ingredients.trunk, images=8))
    assert all(isfinite(value) for parts in found for value in parts.values())


def test_photographs_make_a_patient_of_a_taught_trunk():
    if not os.environ.get("PHOTOS"):
        pytest.skip("PHOTOS names no folder with photographs")
    tree = next(Path(os.environ["PHOTOS"]).glob("VOCdevkit/VOC*"))
    patient, found = two_steps(controls.photographs(tree, images=8))
    assert all(isfinite(value) for parts in found for value in parts.values())
    state = patient.model.state_dict()
    frozen = [name for name in patient.frozen if name in (patient.pretrained or {})]
    assert all(torch.equal(state[name], patient.pretrained[name]) for name in frozen)
