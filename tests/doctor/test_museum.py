import inspect

import numpy as np
import pytest
import torch
from doctor.planted import made_of
from exhibited import healthy, ill

from course_lib.doctor import museum


def test_every_exhibit_has_one_name_and_one_room():
    assert len(museum.EXHIBITS) == sum(len(room.EXHIBITS) for room in museum.ROOMS) >= 32
    for name in museum.EXHIBITS:
        assert name == name.lower() and " " not in name and "_" not in name


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_the_texts_are_complete_and_the_plant_is_small(name):
    exhibit = museum.EXHIBITS[name]
    for text in (exhibit.title, exhibit.story, exhibit.symptom, exhibit.cure):
        assert text == text.strip() and len(text) > 8
    assert exhibit.story.endswith(".") and exhibit.symptom.endswith(".") and exhibit.cure.endswith(".")
    sources = ("#", "log", "published code", "sources", "Chapter", "torchvision")
    assert any(source in exhibit.story for source in sources), "where was it seen?"
    assert 1 <= exhibit.chapter <= 16
    assert exhibit.plant.__doc__, "what it spoils"
    assert len(inspect.getsource(exhibit.plant).splitlines()) <= 20


def test_titles_and_stories_are_of_one_exhibit_each():
    for field in ("title", "story"):
        texts = [getattr(exhibit, field) for exhibit in museum.EXHIBITS.values()]
        assert len(set(texts)) == len(texts)


def state_of(setup):
    """What a plant may change: the ingredients, and what is in the model."""
    state = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    buffers = {name: tensor.clone() for name, tensor in setup.model.named_buffers()}
    modules = [(name, type(module), repr(module), module.training) for name, module in setup.model.named_modules()]
    learning = [parameter.requires_grad for parameter in setup.model.parameters()]
    parts = dict(vars(setup)) | {"further": dict(setup.further), "made_last": dict(setup.made_last)}
    return parts, state | buffers, modules, (learning, setup.model.scoring)


def changed(before, after) -> set[str]:
    """The ingredients that are others than they were, and "the model itself" where that is the same object."""
    parts = {
        name
        for name, value in before[0].items()
        if after[0][name] is not value and name not in ("further", "made_last")
    }
    parts |= {name for name in ("further", "made_last") if before[0][name] != after[0][name]}
    same_tensors = before[1].keys() == after[1].keys() and all(
        torch.equal(tensor, after[1][name]) for name, tensor in before[1].items()
    )
    if not same_tensors or before[2:] != after[2:]:
        parts.add("the model itself")
    return parts


def shared(ingredients):
    """All that plants have in common: the images and targets, the recorded detector, and global states."""
    samples = [(image.copy(), target.boxes.clone(), target.labels.clone()) for image, target in ingredients.data]
    tensors = [tensor.clone() for tensor in ingredients.trunk.state_dict().values()]
    # Not Python's own `random`: the run-time check of annotations draws from it.
    randomness = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the state itself is asked for
    globals_ = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    return samples, tensors, randomness, globals_


def assert_same(before, after):
    for (image, boxes, labels), (image_now, boxes_now, labels_now) in zip(before[0], after[0], strict=True):
        assert np.array_equal(image, image_now) and torch.equal(boxes, boxes_now) and torch.equal(labels, labels_now)
    assert all(torch.equal(one, other) for one, other in zip(before[1], after[1], strict=True))
    assert torch.equal(before[2][0], after[2][0]) and np.array_equal(before[2][1], after[2][1])
    assert before[3] == after[3]


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_a_plant_changes_a_few_ingredients_of_its_own_set_up_and_nothing_else(ingredients, name):
    before_all = shared(ingredients)
    setup = healthy(ingredients)
    before = state_of(setup)
    museum.EXHIBITS[name].plant(setup)
    patient = setup.patient()
    spoiled = changed(before, state_of(setup))
    assert 1 <= len(spoiled) <= 5, spoiled
    assert patient.model is setup.model
    assert_same(before_all, shared(ingredients))


def test_a_set_up_that_is_made_after_all_plants_is_the_one_before(ingredients):
    before = state_of(healthy(ingredients))
    for name in museum.EXHIBITS:
        ill(ingredients, name)
    after = state_of(healthy(ingredients))
    assert before[1].keys() == after[1].keys() and before[2:] == after[2:]
    assert all(torch.equal(tensor, after[1][name]) for name, tensor in before[1].items())
    kept = {"match", "optimizer", "schedule", "clip_norm", "batch_size", "steps", "images", "collate"}
    assert all(made_of(before[0][name]) == made_of(after[0][name]) for name in kept)
