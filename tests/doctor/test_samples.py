import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from course_lib.doctor.samples import as_rgb, objects_in, objects_of, spread
from course_lib.voc import Target, collate


def targets_of(counts: list[int]) -> list[Target]:
    """Targets with so many objects, of which no two are alike."""
    rng = np.random.default_rng(sum(counts))
    return [
        Target(
            torch.from_numpy(np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)).float(),
            torch.from_numpy(rng.integers(1, 21, count)),
            torch.zeros(count, dtype=torch.bool),
            f"image {number}",
            (100 + number, 50 + number),
        )
        for number, count in enumerate(counts)
    ]


def test_the_objects_of_no_target_are_none():
    none = objects_of([])
    assert len(none) == 0 and none.boxes.shape == (0, 4) and none.ids == ()


@given(counts=some.lists(some.integers(0, 4), max_size=6))
def test_every_object_of_every_target_is_a_row_that_knows_its_image(counts):
    targets = targets_of(counts)
    found = objects_of(targets)
    assert found.per_image.tolist() == counts and found.ids == tuple(one.image_id for one in targets)
    for number, target in enumerate(targets):
        rows = found.image == number
        assert torch.equal(found.boxes[rows], target.boxes.double())
        assert torch.equal(found.labels[rows], target.labels)
        assert found.sizes[rows].tolist() == [list(target.size)] * len(target.labels)
    assert len(found.without_any()) == 0 and found.without_any().per_image.tolist() == [0] * len(counts)


@given(counts=some.lists(some.integers(0, 4), min_size=1, max_size=6))
def test_the_objects_in_batches_are_those_of_their_targets_without_padding(counts):
    targets = targets_of(counts)
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    found, due = objects_in([collate([(image, target) for target in targets])] * 2), objects_of(targets * 2)
    for name in ("boxes", "labels", "image", "sizes"):
        assert torch.equal(getattr(found, name), getattr(due, name)), name
    assert found.ids == due.ids


@given(length=some.integers(1, 3000), count=some.integers(2, 100))
def test_places_are_spread_over_the_whole_and_none_comes_twice(length, count):
    places = spread(length, count)
    assert len(set(places)) == len(places) == min(length, count)
    part = length / len(places)
    assert all(number * part - 1 < place < (number + 1) * part for number, place in enumerate(places))


def test_no_rhythm_of_the_places_misses_every_third_of_a_sequence():
    for length in (96, 128, 200, 5011):
        found = {place % 3 for place in spread(length, 64)}
        assert found == {0, 1, 2}, length


AS_GIVEN = {
    "as it is": lambda image: image,
    "channels first": lambda image: image.transpose(2, 0, 1),
    "0 to 1": lambda image: image / 255,
    "-1 to 1": lambda image: image / 127.5 - 1,
    "channels first, 0 to 1": lambda image: (image / 255).transpose(2, 0, 1).astype(np.float32),
}


@pytest.mark.parametrize("form", AS_GIVEN)
def test_a_picture_is_the_same_in_whatever_form_it_is_given(form):
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    seen = as_rgb(AS_GIVEN[form](image))
    assert seen.dtype == np.uint8 and seen.shape == image.shape
    assert abs(seen.astype(int) - image).max() <= 1  # a fraction is cut off


def test_grey_is_three_equal_channels_and_what_is_no_picture_is_none():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for one in (grey, grey[..., None], grey[None]):
        assert (as_rgb(one) == grey[..., None]).all()
    for none in (np.zeros(5), np.zeros((4, 4, 2)), np.full((4, 4, 3), np.nan), np.zeros((1, 2, 3, 4))):
        assert as_rgb(none) is None
