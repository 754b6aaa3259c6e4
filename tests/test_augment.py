import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import corner_boxes

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
    transform = augment.training_mini(160)
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
    torch.testing.assert_close(mirrored.boxes[0], torch.tensor([1 - x1, y0, 1 - x0, y1]), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(0, 6))
def test_evaluation_changes_no_box(seed, count):
    before_image, before = marked(seed, count)
    image, after = augment.evaluation(96)(before_image, before)
    check_result(image, before, after, 96)
    torch.testing.assert_close(after.boxes, before.boxes, rtol=0, atol=1e-5)  # to pixels and back
    assert torch.equal(image, augment.resized(before_image, 96))


def test_the_same_seed_gives_the_same_sample_and_another_seed_another():
    image, target = marked(5, 3)
    transform = augment.training_mini(64)

    def sample(seed):
        transform.seed(seed)
        return transform(image, target)[0]

    assert torch.equal(sample(1), sample(1))
    assert len({sample(seed).numpy().tobytes() for seed in range(20)}) > 10


PIPELINES = [augment.training, augment.training_mini, augment.training_photos]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_an_image_without_objects_passes(pipeline):
    image, target = marked(1, 0)
    assert pipeline(64)(image, target)[1].boxes.shape == (0, 4)


@pytest.mark.parametrize("pipeline", [augment.training, augment.training_photos])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**20), count=st.integers(0, 6))
def test_a_pipeline_with_ssds_crop_gives_whole_samples(pipeline, seed, count):
    before_image, before = marked(seed, count)
    transform = pipeline(100)
    transform.seed(seed)
    image, after = transform(before_image, before)
    check_result(image, before, after, 100)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_colours_stay_in_range(value, pipeline):
    image = np.full((50, 50, 3), value, np.uint8)
    _, target = marked(1, 0)
    transform = pipeline(32)
    for seed in range(10):
        transform.seed(seed)
        assert transform(image, target)[0].dtype == torch.uint8


# Each object a colour of its own, which no nearest-neighbour resize can mix with another.
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]], np.uint8)
NEAREST = {"interpolation": cv2.INTER_NEAREST}
GEOMETRIC = {
    "mirror": A.HorizontalFlip(p=1),
    "upside down": A.VerticalFlip(p=1),
    "rotation": A.Rotate(limit=180, p=1, fill=augment.PIXEL_MEAN, **NEAREST),
    "random crop": A.RandomCrop(80, 90, p=1),
    "zoom and shift": A.Affine(
        scale=(0.7, 1.45), translate_percent=(-0.2, 0.2), p=1, fill=augment.PIXEL_MEAN, **NEAREST
    ),
    "zoom out": augment.ZoomOut(p=1),
    "IoU crop": augment.IoUCrop(),
}
COLOUR_ONLY = {
    "brightness and contrast": A.RandomBrightnessContrast(p=1),
    "hue": A.HueSaturationValue(p=1),
    "shadow": A.RandomShadow(p=1),
    "noise": A.GaussNoise(p=1),
    "blur": A.GaussianBlur(p=1),
    "SSD's colours": augment.photometric(),
}


def coloured(seed, count):
    """As `marked`, with a colour for each object; later ones cover earlier ones."""
    image, target = marked(seed, count)
    height, width = image.shape[:2]
    for (x0, y0, x1, y1), colour in zip(target.boxes.tolist(), COLOURS, strict=False):
        image[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = colour
    return image, target


@pytest.mark.parametrize("name", GEOMETRIC)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**20), count=st.integers(0, 6))
def test_every_box_contains_its_marker(name, seed, count):
    before_image, before = coloured(seed, count)
    transform = augment.Augment([GEOMETRIC[name], A.Resize(200, 200, **NEAREST)])
    transform.seed(seed)
    image, after = transform(before_image, before)
    check_result(image, before, after, 200)
    for box, label in zip(after.boxes, after.labels, strict=True):
        colour = torch.from_numpy(COLOURS[label - 1])
        y, x = torch.nonzero((image.permute(1, 2, 0) == colour).all(dim=-1), as_tuple=True)
        pixels = torch.stack([x, y], dim=1) + 0.5
        margin = 4  # an enlarged source pixel
        assert (pixels >= box[:2] * 200 - margin).all() and (pixels <= box[2:] * 200 + margin).all()
    if count == 1 and len(after.labels) and name not in ("rotation",):
        x0, y0, x1, y1 = (after.boxes[0] * 200).round().int().tolist()
        assert len(y) >= 0.8 * ((x1 - x0) * (y1 - y0)) - 40, "the box is far larger than its marker"


@pytest.mark.parametrize("name", COLOUR_ONLY)
def test_changes_of_colour_leave_every_box_alone(name):
    for seed in range(20):
        image, target = marked(seed, 4)
        transform = augment.Augment([A.Resize(100, 120), COLOUR_ONLY[name]])
        transform.seed(seed)
        after = transform(image, target)[1]
        torch.testing.assert_close(after.boxes, target.boxes, rtol=0, atol=1e-5)
        assert torch.equal(after.labels, target.labels)


def test_erasing_trims_the_boxes_it_cuts_into():
    """albumentations' `Erasing` is no change of colour: a side that is erased whole moves inwards."""
    trimmed = 0
    for seed in range(20):
        image, target = marked(seed, 4)
        transform = augment.Augment([A.Erasing(p=1)])
        transform.seed(seed)
        after = transform(image, target)[1]
        before = target.boxes[after.labels - 1]
        pixel = 1.01 / min(image.shape[:2])  # it also rounds every box to whole pixels
        assert (after.boxes[:, :2] > before[:, :2] - pixel).all() and (after.boxes[:, 2:] < before[:, 2:] + pixel).all()
        trimmed += not torch.allclose(after.boxes, before, atol=2 * pixel)
    assert trimmed


def overlap(box, window):
    """IoU of two boxes in plain Python."""
    width = min(box[2], window[2]) - max(box[0], window[0])
    height = min(box[3], window[3]) - max(box[1], window[1])
    both = max(width, 0) * max(height, 0)
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, window))
    return both / (area - both)


def centre_in(box, window):
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return window[0] <= x <= window[2] and window[1] <= y <= window[3]


@settings(deadline=None, max_examples=100)
@given(
    boxes=corner_boxes(maximum=6, smallest=0.02), rule=st.sampled_from(augment.IoUCrop.rules), seed=st.integers(0, 999)
)
def test_the_crop_keeps_what_the_paper_says(boxes, rule, seed):
    image, crop = np.zeros((120, 200, 3), np.uint8), augment.IoUCrop()
    crop.rules = (rule,)
    crop.set_random_seed(seed)
    chosen = crop.get_params_dependent_on_data({"shape": image.shape}, {"bboxes": boxes.numpy()})
    window = chosen["window"]
    xmin, ymin, xmax, ymax = window
    assert 0 <= xmin < xmax <= 200 and 0 <= ymin < ymax <= 120
    if window == [0, 0, 200, 120]:
        return  # whole, by its rule or because no trial was accepted
    pixels = (boxes * torch.tensor([200, 120, 200, 120])).tolist()
    assert rule != "whole"
    assert any(centre_in(box, window) for box in pixels)
    assert rule is None or max(overlap(box, window) for box in pixels) >= rule - 1e-6
    # Within the rounding to whole pixels: .3 to 1 of the side, aspect .5 to 2 in fractions of the image.
    width, height = (xmax - xmin) / 200, (ymax - ymin) / 120
    assert np.sqrt(width * height) >= 0.3 - 1e-6 and 0.45 <= width / height <= 2.2
    kept = crop.apply_to_bboxes(np.c_[boxes, np.arange(len(boxes))], **chosen, shape=image.shape)
    assert kept[:, 4].astype(int).tolist() == [i for i, box in enumerate(pixels) if centre_in(box, window)]


@settings(deadline=None, max_examples=100)
@given(
    boxes=corner_boxes(maximum=5), windows=corner_boxes(maximum=5, smallest=0.1), rule=st.sampled_from([None, 0.1, 0.5])
)
def test_crops_are_accepted_as_the_original_accepts_them(boxes, windows, rule):
    accepted = augment.crop_accepted(boxes, windows, rule).tolist()
    for window, one in zip(windows.tolist(), accepted, strict=True):
        overlaps = [overlap(box, window) for box in boxes.tolist()]
        if rule is not None and any(abs(value - rule) < 1e-5 for value in overlaps):
            continue
        expected = any(centre_in(box, window) for box in boxes.tolist())
        assert one == (expected and (rule is None or max(overlaps) >= rule))


def test_one_object_is_enough_for_a_crop():
    """A port that asks it of all objects hardly ever crops a picture with two (ssd.pytorch #119)."""
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.9, 0.9, 1.0, 1.0]])
    assert augment.crop_accepted(boxes, torch.tensor([[0.0, 0.0, 0.6, 0.6]]), 0.5).tolist() == [True]


def test_crop_windows_are_spread_as_the_original_spreads_them():
    """Against a plain twin of the original's sampler: the same mean size and place."""
    crop, rng = augment.IoUCrop(trials=4000), np.random.default_rng(1)
    crop.set_random_seed(0)
    ours, twin = crop.candidates(), []
    for _ in range(4000):
        scale = rng.uniform(0.3, 1)
        ratio = rng.uniform(max(0.5, scale**2), min(2, 1 / scale**2))
        width, height = scale * ratio**0.5, scale / ratio**0.5
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        twin.append((x, y, x + width, y + height))
    twin = np.array(twin)
    for one in (lambda w: w, lambda w: (w[:, 2:] - w[:, :2]) ** 2):
        assert np.abs(one(ours).mean(0) - one(twin).mean(0)).max() < 0.02
        assert np.abs(one(ours).std(0) - one(twin).std(0)).max() < 0.02


def test_zooming_out_keeps_every_pixel_and_only_shrinks_boxes():
    image, target = marked(7, 3)
    zoom = augment.Augment([augment.ZoomOut(max_ratio=3, p=1)])
    for seed in range(20):
        zoom.seed(seed)
        larger, after = zoom(image, target)
        _, height, width = larger.shape
        assert image.shape[0] <= height <= 3 * image.shape[0] and image.shape[1] <= width <= 3 * image.shape[1]
        before_px = target.boxes * torch.tensor(image.shape[1::-1] * 2)
        after_px = after.boxes * torch.tensor([width, height] * 2)
        shift = after_px - before_px
        torch.testing.assert_close(shift, shift[:1, :2].repeat(3, 2), atol=0.01, rtol=0)
        y, x = round(float(shift[0, 1])), round(float(shift[0, 0]))
        part = larger[:, y : y + image.shape[0], x : x + image.shape[1]]
        assert torch.equal(part.permute(1, 2, 0), torch.from_numpy(image))


def unshrunk(size):
    """The original's pipeline as it is for pictures of VOC's size."""
    resize = A.OneOf([A.Resize(size, size, interpolation=way) for way in augment.INTERPOLATIONS], p=1)
    return augment.Augment(
        [augment.photometric(), augment.ZoomOut(), augment.IoUCrop(), resize, A.HorizontalFlip(p=0.5)]
    )


def noise(width, height, count, seed=0):
    """A picture of any size, and `count` objects from a hundredth of its sides to half of them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (min(height, 30), min(width, 40), 3), np.uint8)
    size = 0.01 + 0.49 * rng.random((count, 2)) ** 3
    corner = rng.random((count, 2)) * (1 - size)
    boxes, labels = torch.tensor(np.c_[corner, corner + size], dtype=torch.float32), torch.arange(1, count + 1)
    return cv2.resize(coarse, (width, height)), Target(boxes, labels, labels % 2 == 0, "a", (width, height))


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (500, 500), (64, 48), (1000, 1000), (1000, 12)])
def test_a_picture_of_vocs_size_is_not_touched_by_the_shrinking_of_larger_ones(size):
    image, target = noise(*size, count=5)
    ours, before = augment.training(64), unshrunk(64)
    for seed in range(8):
        ours.seed(seed)
        before.seed(seed)
        (pixels, after), (expected, plain) = ours(image, target), before(image, target)
        assert torch.equal(pixels, expected)
        assert torch.equal(after.boxes, plain.boxes) and torch.equal(after.labels, plain.labels)


def edges(image, axis):
    """Where a white block on black begins and ends along an axis, in fractions of it: what it covers, summed."""
    profile = image[..., 0].max(axis=1 - axis) / 255.0
    first = int((profile > 0).argmax())
    start = first + 1 - profile[first]
    return start / len(profile), (start + profile.sum()) / len(profile)


@pytest.mark.parametrize("size", [(6000, 4000), (3001, 2999), (20000, 30), (30, 20000), (1501, 1501), (1499, 7000)])
def test_a_picture_far_too_large_is_shrunk_with_its_boxes_in_place(size):
    """To half of one of its own pixels, where interpolation in whole bytes allows it."""
    width, height = size
    for x0, x1, y0, y1 in ((0.1, 0.4, 0.2, 0.9), (0.513, 0.777, 0.35, 0.64)):
        left, right, top, bottom = (round(v * n) for v, n in ((x0, width), (x1, width), (y0, height), (y1, height)))
        image = np.zeros((height, width, 3), np.uint8)
        image[top:bottom, left:right] = 255
        box = torch.tensor([[left / width, top / height, right / width, bottom / height]])
        target = Target(box, torch.tensor([7]), torch.tensor([True]), "a", size)
        pixels, after = augment.Augment([augment.Shrink(1500)])(image, target)
        assert pixels.shape == (3, min(height, 1500), min(width, 1500))
        assert torch.equal(after.boxes, box) and after.labels.tolist() == [7] and after.difficult.tolist() == [True]
        shrunk = pixels.permute(1, 2, 0).numpy()
        for axis, expected, length in ((1, (left, right), width), (0, (top, bottom), height)):
            assert np.abs(np.array(edges(shrunk, axis)) * length - expected).max() <= 0.5


@pytest.mark.parametrize("size", [(1600, 1200), (1200, 2000), (5000, 30), (30, 5000)])
def test_shrinking_first_crops_the_same_part_and_keeps_the_same_objects(size):
    """The crop draws fractions of the picture, whatever its size; the zoom-out draws whole pixels."""
    image, target = noise(*size, count=6)
    rest = [augment.IoUCrop(), A.Resize(100, 100, interpolation=cv2.INTER_AREA), A.HorizontalFlip(p=0.5)]
    ours, before = augment.Augment([augment.Shrink(1000), *rest]), augment.Augment(rest)
    for seed in range(25):
        ours.seed(seed)
        shrunk, after = ours(image, target)
        before.seed(seed)
        plain, expected = before(image, target)
        assert after.labels.tolist() == expected.labels.tolist()
        pixel = 1 / 1000 / 0.2  # of the shrunk picture, in a crop that keeps a fifth of a side
        torch.testing.assert_close(after.boxes, expected.boxes, atol=pixel, rtol=0)
        # Half a pixel's shift on slopes as steep as these; another part of the picture differs by 50 and more.
        assert (shrunk.float() - plain.float()).abs().mean() < 8


def test_shrinking_keeps_every_object_that_a_sample_can_show():
    """A crop keeps at least 0.21 of a side: what is a pixel wide in the sample is one in the shrunk picture."""
    size = 60
    side = 0.3 * 0.5**0.5 / size  # of the picture: a pixel of the sample in the smallest crop
    low = torch.tensor([[0.1, 0.1], [0.5, 0.3], [0.7, 0.8]])
    boxes, labels = torch.cat([low, low + 1.01 * side], dim=1), torch.arange(1, 4)
    image, target = np.zeros((2000, 3000, 3), np.uint8), Target(boxes, labels, labels > 3, "a", (3000, 2000))
    after = augment.Augment([augment.Shrink(5 * size)])(image, target)[1]
    assert torch.equal(after.labels, labels) and torch.equal(after.boxes, boxes)


@pytest.mark.parametrize("size", [(6000, 4000), (20000, 30), (30, 20000)])
def test_a_sample_of_a_picture_far_too_large_never_paints_more_than_the_shrunk_one_needs(size, monkeypatch):
    """Of a picture of 24 megapixels the zoom-out once painted 384."""
    painted = []

    def apply(self, img, **params):
        result = zoom_out(self, img, **params)
        painted.append(result.shape[:2])
        return result

    zoom_out = augment.ZoomOut.apply
    monkeypatch.setattr(augment.ZoomOut, "apply", apply)
    image, target = noise(*size, count=3)
    transform = augment.training(100)
    for seed in range(12):
        transform.seed(seed)
        sample, after = transform(image, target)
        check_result(sample, target, after, 100)
    assert painted and all(max(sides) <= 4 * 1000 for sides in painted)
