import pytest
import torch
from exhibited import healthy

from course_lib import augment
from course_lib.doctor import practice


def test_each_seed_has_batches_of_its_own_and_the_same_each_time(ingredients):
    seen = []
    for seed in (0, 1, 1):
        setup = healthy(ingredients)
        setup.seed = seed
        seen.append([batch.images for batch in practice.batches_of(setup, 3)])
    assert all(torch.equal(one, other) for one, other in zip(seen[1], seen[2], strict=True))
    assert not torch.equal(seen[0][0], seen[1][0])


def test_a_transform_that_draws_nothing_needs_no_seed(ingredients):
    setup = healthy(ingredients)
    setup.transform = augment.evaluation(setup.model.image_size)
    assert len(list(practice.batches_of(setup, 2))) == 2


def test_batches_that_the_images_do_not_fill_are_refused(ingredients):
    setup = healthy(ingredients)
    setup.batch_size = len(setup.data) + 1
    with pytest.raises(ValueError, match=f"batch_size is {setup.batch_size}, and there are"):
        next(practice.batches_of(setup, 1))


def test_all_held_out_images_are_measured_whatever_the_batch(ingredients):
    """In evaluation mode an image's outputs do not depend on its neighbours."""
    setup = healthy(ingredients)
    patient, results = setup.patient(), []
    for size in (1, 3, 4):
        batches = practice.batches_to_measure(setup, size)
        assert sum(len(batch.images) for batch in batches) == len(setup.held_out) == 4
        truth = [target for _, target in setup.held_out]
        results.append(practice.measured(patient, batches, truth)[0])
    for one in results[1:]:
        assert one["recall"] == results[0]["recall"] and one["map"] == pytest.approx(results[0]["map"], abs=1e-6)
