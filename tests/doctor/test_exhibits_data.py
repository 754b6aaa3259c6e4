from itertools import islice

import numpy as np
import pytest
import torch
from exhibited import boxes_of, check_symptom, empty, first, healthy, ill, labels_of, loss_of, reaching, target_of

from course_lib import augment
from course_lib.boxes import box_iou, encode
from course_lib.doctor import exhibits_data
from course_lib.doctor.setups import Changed, InMemory


def pixels_in_annotations(well, sick):
    assert boxes_of(sick).max() > 50
    assert not first(sick).labels.any(), "clipped to the image, no object is left"


def xywh_as_corners(well, sick):
    assert empty(boxes_of(sick)).any() and not empty(boxes_of(well)).any()
    assert torch.equal(boxes_of(sick)[:, :2], boxes_of(well)[:, :2])


def centre_size_as_corners(well, sick):
    assert empty(boxes_of(sick)).float().mean() > 0.25


def x_and_y_exchanged(well, sick):
    assert torch.equal(boxes_of(sick), boxes_of(well)[:, [1, 0, 3, 2]])


def minima_first(well, sick):
    assert empty(boxes_of(sick)).any()


def width_for_height(well, sick):
    assert boxes_of(sick).max() > 1 >= boxes_of(well).max()


def one_less_once_more(well, sick):
    moved = (boxes_of(well) - boxes_of(sick)) * torch.cat(
        [torch.tensor([t.size * 2] * len(t.labels)) for t in well.targets()]
    )
    torch.testing.assert_close(moved, torch.ones_like(moved), rtol=0, atol=1e-3)


def no_area(well, sick):
    points = boxes_of(sick)[empty(boxes_of(sick))]
    assert len(points) == len(sick.data)
    assert encode(points[:1].expand(len(sick.priors), 4), sick.priors).isinf().any()


def dragged_to_the_left(well, sick):
    inside_out = [bool(empty(target.boxes).all()) for target in sick.targets()]
    assert inside_out == [index % 2 == 1 for index in range(len(sick.data))]


def saved_twice(well, sick):
    for target in sick.targets():
        assert (box_iou(target.boxes, target.boxes) > 0.999).sum() == 2 * len(target.labels)


def labels_from_zero(well, sick):
    assert torch.equal(labels_of(sick) + 1, labels_of(well))


def other_order_of_names(well, sick):
    assert torch.equal(labels_of(sick) + labels_of(well), torch.full_like(labels_of(well), 21))


def blue_first(well, sick):
    assert np.array_equal(sick.data[0][0], well.data[0][0][..., ::-1])


def fed_blue_first(well, sick):
    assert torch.equal(first(sick).images, first(well).images)
    seen, right = (reaching(one, one.model.backbone, one.outputs) for one in (sick, well))
    std, mean = sick.model.std, sick.model.mean
    torch.testing.assert_close(seen * std + mean, (right * std + mean).flip(1), rtol=0, atol=1e-3)


def divided_by_255(well, sick):
    assert reaching(sick, sick.model.backbone, sick.outputs).std(dim=(0, 2, 3)).max() < 0.02


def normalised_twice(well, sick):
    assert reaching(sick, sick.model.backbone, sick.outputs).std(dim=(0, 2, 3)).max() < 0.1


def normalised_with_other_units(well, sick):
    assert reaching(sick, sick.model.backbone, sick.outputs).abs().max() > 500
    assert reaching(well, well.model.backbone, well.outputs).abs().max() < 5


def targets_of_others(well, sick):
    ours, theirs = first(well), first(sick)
    assert torch.equal(theirs.images, ours.images)
    assert torch.equal(theirs.labels, ours.labels.roll(-1, dims=0)) and not torch.equal(theirs.labels, ours.labels)


def empty_image_crashes(well, sick):
    assert len(sick.data[7][1].labels) == 0
    with pytest.raises(IndexError, match="too many indices"):
        first(sick)


def image_mirrored_alone(well, sick):
    ours, theirs = first(well), first(sick)
    mirrored = torch.tensor([not torch.equal(a, b) for a, b in zip(ours.images, theirs.images, strict=True)])
    assert 0 < mirrored.sum() < len(mirrored)
    assert torch.equal(theirs.images[mirrored], ours.images[mirrored].flip(-1))
    assert torch.equal(theirs.boxes, ours.boxes)


def mirrored_inside_out(well, sick):
    batch = first(sick)
    share = empty(batch.boxes)[batch.labels > 0].float().mean()
    assert 0.1 < share < 0.9
    assert (well.matches(first(well)).labels > 0).sum() > 1.1 * (sick.matches(batch).labels > 0).sum()


def labels_left_behind(well, sick):
    image = np.zeros((100, 100, 3), np.uint8)
    target = target_of([[0, 0, 0.1, 0.1], [0.3, 0.3, 0.7, 0.7]], [1, 2])
    names = []
    for seed in range(30):
        sick.transform.seed(seed)
        after = sick.transform(image, target)[1]
        names += after.labels.tolist() if len(after.labels) == 1 else []
    assert 1 in names, "the small object at the edge is cropped away, and the large one in the middle has its name"


def crop_larger_than_the_image(well, sick):
    with pytest.raises(Exception, match="640"):
        first(sick)


def crop_that_fits_all(well, sick):
    objects = torch.tensor([[0.0, 0.0, 0.3, 0.3], [0.6, 0.6, 1.0, 1.0]])
    crop = sick.transform.compose.transforms[0]
    assert augment.crop_accepted(objects, objects[:1], 0.5).all()
    assert not crop.accepted(objects, objects[:1], 0.5).any()


def same_augmentation(well, sick):
    image, target = sick.data[0]
    samples = [sick.transform(image, target)[0] for _ in range(4)]
    assert all(torch.equal(one, samples[0]) for one in samples)


def same_in_every_worker(well, sick):
    ours, theirs = list(islice(sick.batches, 2))
    assert len(ours.images) == len(theirs.images)
    again = next(iter(sick.batches))
    assert torch.equal(again.images, ours.images), "and every epoch repeats the first"


def measured_on_training_images(well, sick):
    assert all(held[0] is own[0] for held, own in zip(sick.held_out, sick.data, strict=False))


SYMPTOMS = {
    name.replace("_", "-"): globals()[name] for name in dir() if name.replace("_", "-") in exhibits_data.EXHIBITS
}


@pytest.mark.parametrize("name", exhibits_data.EXHIBITS)
def test_a_short_measurement_shows_the_symptom(ingredients, name):
    check_symptom(SYMPTOMS, name, ingredients)


def test_workers_that_are_copies_augment_equal_images_alike(ingredients):
    """One image many times over: the first batches of both workers are the same, where seeds by index differ."""
    setup = healthy(ingredients)
    setup.data = InMemory((setup.data[0],) * 16, setup.data.classes)
    exhibits_data.same_in_every_worker(setup)
    ours, theirs = setup.patient().first_batches(2)
    assert torch.equal(ours.images, theirs.images)
    setup.further.clear()
    ours, theirs = setup.patient().first_batches(2)
    assert not torch.equal(ours.images, theirs.images)


def test_boxes_without_an_area_reach_a_forced_matching_as_infinity(ingredients):
    setup = ill(ingredients, "no-area")
    setup.transform = augment.evaluation(setup.model.image_size)
    setup.match = ill(ingredients, "pixels-against-fractions").match
    assert loss_of(setup.patient())["loc"] == float("inf")


def test_changes_are_made_as_an_image_is_read_and_touch_no_other():
    data = InMemory((("image", 1), ("other", 2)), ("a", "b"))
    changed = Changed(data, lambda index, image, target: (image, target + 10 * index))
    assert list(changed) == [("image", 1), ("other", 12)] and len(changed) == 2
    assert data.samples == (("image", 1), ("other", 2)) and changed.classes == ("a", "b")
