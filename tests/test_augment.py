import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import augment
from course_lib.voc import Target


def marked(seed, count):
    """A plain picture with one bright block per object, and the target whose boxes are those blocks."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(120, 300, 2)
    image = np.full((height, width, 3), augment.PIXEL_MEAN, np.uint8)
    boxes = []
    for _ in range(count):
        w, h = rng.integers(20, 60, 2)
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        image[y : y + h, x : x + w] = rng.integers(170, 256)
        boxes.append((x / width, y / height, (x + w) / width, (y + h) / height))
    labels = torch.arange(1, count + 1)
    target = Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, labels % 2 == 0, "a", (int(width), int(height))
    )
    return image, target


def check_result(image, before, after, size):
    assert image.shape == (3, size, size) and image.dtype == torch.uint8
    assert (after.boxes >= 0).all() and (after.boxes <= 1).all()
    assert (after.boxes[:, 2:] > after.boxes[:, :2]).all()
    assert len(after.boxes) == len(after.labels) == len(after.difficult)
    assert (after.difficult == (after.labels % 2 == 0)).all()
    assert after.image_id == before.image_id and after.size == before.size


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**20), st.integers(0, 6))
def test_boxes_follow_their_objects(seed, count):
    before_image, before = marked(seed, count)
    transform = augment.training(160)
    transform.seed(seed)
    image, after = transform(before_image, before)
    check_result(image, before, after, 160)
    assert set(after.labels.tolist()) <= set(before.labels.tolist())
    if count == 1 and len(after.labels):
        x0, y0, x1, y1 = (after.boxes[0] * 160).tolist()
        inside = image[:, round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2].float()
        outside = image.float().clone()
        outside[:, max(0, int(y0) - 2) : int(y1) + 3, max(0, int(x0) - 2) : int(x1) + 3] = torch.nan
        outside = outside[:, outside[0].isfinite()]
        # The marker is uniform, and so is what surrounds it: had the box stayed behind, neither would be.
        if inside.numel():
            assert inside.flatten(1).std(dim=1, correction=0).max() < 3
        assert outside.std(dim=1).max() < 3


def test_a_mirror_turns_left_into_right():
    image, target = marked(3, 1)
    mirrored = augment.Augment([A.Resize(160, 160), A.HorizontalFlip(p=1)])(image, target)[1]
    x0, y0, x1, y1 = target.boxes[0].tolist()
    torch.testing.assert_close(mirrored.boxes[0], torch.tensor([1 - x1, y0, 1 - x0, y1]))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(0, 6))
def test_evaluation_changes_no_box(seed, count):
    before_image, before = marked(seed, count)
    image, after = augment.evaluation(96)(before_image, before)
    check_result(image, before, after, 96)
    torch.testing.assert_close(after.boxes, before.boxes)
    assert torch.equal(image, augment.resized(before_image, 96))


def test_the_same_seed_gives_the_same_sample_and_another_seed_another():
    image, target = marked(5, 3)
    transform = augment.training(64)

    def sample(seed):
        transform.seed(seed)
        return transform(image, target)[0]

    assert torch.equal(sample(1), sample(1))
    assert len({sample(seed).numpy().tobytes() for seed in range(20)}) > 10


def test_an_image_without_objects_passes():
    image, target = marked(1, 0)
    assert augment.training(64)(image, target)[1].boxes.shape == (0, 4)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_colours_stay_in_range(value):
    image = np.full((50, 50, 3), value, np.uint8)
    _, target = marked(1, 0)
    transform = augment.training(32)
    for seed in range(10):
        transform.seed(seed)
        assert transform(image, target)[0].dtype == torch.uint8
