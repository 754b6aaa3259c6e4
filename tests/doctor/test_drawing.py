import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor import planted
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from small_patient import small_setup

from course_lib.doctor import Patient, drawing, examine, setups
from course_lib.doctor.samples import loop_batches, objects_of
from course_lib.voc import Target

NONE = torch.zeros(0, dtype=torch.int64)


def drawn(picture):
    """The axes after a picture has been drawn on them."""
    axes = Figure().subplots()
    picture(axes)
    return axes


def lines(axes, style):
    return [line.get_xydata() for line in axes.lines if line.get_linestyle() == style]


def photo(width=40, height=20):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=10)
@given(width=st.integers(1, 2000), height=st.integers(1, 2000))
def test_what_is_kept_of_an_image_is_small_and_its_own(width, height):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    kept = drawing.small(image)
    assert max(kept.shape) <= drawing.SIDE and kept.base is None and not np.shares_memory(kept, image)


@pytest.mark.parametrize(
    "image", [None, np.zeros((4,)), np.zeros((0, 0, 3), dtype=np.uint8), np.full((4, 4, 3), np.nan)]
)
def test_no_image_has_no_picture(image):
    assert drawing.boxes_in(image, torch.zeros(0, 4), NONE) is None
    assert drawing.side_by_side(photo(), image, ("a", "b")) is None


def test_boxes_are_drawn_where_they_are_and_dashed_where_they_would_be_right():
    box, right = torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.tensor([[0.5, 0.0, 0.75, 0.5]])
    axes = drawn(drawing.boxes_in(photo(), box, torch.tensor([0]), right))
    assert [corner.min(axis=0).tolist() for corner in lines(axes, "--")] == [[20, 0]]
    assert [10, 10] in [corner.min(axis=0).tolist() for corner in lines(axes, "-")]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 40), (20, 0))


def test_labels_that_all_have_a_name_are_written_and_others_are_not():
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9]] * 2)
    picture = drawing.boxes_in(photo(), boxes, torch.tensor([1, 2]), classes=("a $", "b"))
    axes = drawn(picture)
    assert [text.get_text() for text in axes.texts] == ["a $", "b"] and axes.get_title().endswith(": a $, b")
    axes = drawn(replace(picture, labels=torch.tensor([1, 3])))
    assert not axes.texts and "b" not in axes.get_title().removeprefix("boxes")


def test_what_lies_around_an_image_is_shown_and_what_is_far_away_is_counted():
    boxes = torch.tensor([[0.5, 0.5, 1.25, 1.1], [30, 40, 200, 300], [float("nan")] * 4])
    axes = drawn(drawing.boxes_in(photo(), boxes, torch.zeros(3, dtype=torch.int64)))
    assert "2 of 3 too far away" in axes.get_title() and axes.get_xlim() == (0, 50)


def test_a_png_is_of_a_phones_width_and_a_finding_keeps_little():
    boxes = torch.rand(1000, 4).sort(dim=1).values
    picture = drawing.boxes_in(photo(3000, 2000), boxes, torch.zeros(1000, dtype=torch.int64), boxes)
    assert max(Image.open(io.BytesIO(drawing.as_png(picture))).size) <= 480
    assert len(pickle.dumps(picture)) < 400_000


def test_two_images_and_bars_are_drawn_with_their_names():
    axes = drawn(drawing.side_by_side(photo(), photo(10, 30), ("this $", "that")))
    assert "left: this $" in axes.get_title() and "right: that" in axes.get_title()
    axes = drawn(drawing.Bars(("few", "many"), (1.0, 1000.0), "number", powers=True))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["few", "many"]
    assert [round(bar.get_width()) for bar in axes.patches] == [1, 1000] and axes.get_xscale() == "log"


def test_the_image_of_a_target_is_found_behind_those_that_could_not_be_read():
    class Broken:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 1:
                raise ValueError("broken")
            box = torch.tensor([[0.1, 0.1, 0.5, 0.5]])
            target = Target(box, torch.tensor([1]), torch.tensor([False]), str(index), (8, 8))
            return np.full((8, 8, 3), index, dtype=np.uint8), target

    at = drawing.image_of_data(Patient(data=Broken(), classes=("a",)))
    assert [int(at(place)[0, 0, 0]) for place in range(3)] == [0, 2, 3]


def test_the_image_of_an_object_of_a_batch_is_that_of_its_place(learned):
    batches = loop_batches(Patient(batches=planted.batches(learned)))
    images = torch.cat([batch.images for batch in batches.read])
    at = drawing.image_of_batches(batches)
    assert all(np.array_equal(at(place), images[place].numpy()) for place in (0, 7, 8, len(images) - 1))
    assert at(len(images)) is None


def test_of_chosen_objects_those_of_the_first_image_are_drawn():
    target = Target(torch.rand(3, 4), torch.tensor([1, 2, 1]), torch.zeros(3, dtype=torch.bool), "a", (8, 8))
    objects = objects_of([target, target])
    chosen = torch.tensor([False, False, False, True, False, True])
    asked = []
    picture = drawing.objects_in(objects, chosen, lambda place: asked.append(place) or photo(), objects.boxes)
    assert asked == [1] and torch.equal(picture.labels, torch.tensor([1, 1]))
    assert torch.equal(picture.right, objects.boxes[[3, 5]].float())
    assert drawing.objects_in(objects, chosen, None) is None


CHANGES = {
    "boxes-are-corners-in-fractions": lambda boxes, size: boxes * size,
    "boxes-are-sound": lambda boxes, size: torch.cat([boxes[:1, [2, 1, 0, 3]], boxes[1:]]),
    "boxes-are-on-objects": lambda boxes, size: planted.mirrored(boxes),
}


@pytest.mark.parametrize("check", CHANGES)
def test_findings_of_boxes_have_a_picture_that_can_be_drawn(learned, check):
    ill = planted.with_boxes(learned, CHANGES[check])
    (finding,) = examine(Patient(data=ill), only=[check]).findings
    assert drawing.as_png(finding.picture).startswith(b"\x89PNG")
    if check != "boxes-are-sound":
        healthy = dict(zip([t.image_id for _, t in learned.samples], learned.samples, strict=True))
        truths = [t.boxes for _, t in healthy.values() if t.boxes.shape == finding.picture.right.shape]
        assert any(torch.allclose(finding.picture.right, truth, atol=1e-4) for truth in truths)


def picture_of(patient, check):
    """The picture of the only finding of a check."""
    (finding,) = examine(patient, only=[check]).findings
    assert drawing.as_png(finding.picture).startswith(b"\x89PNG")
    return finding.picture


def test_a_transform_that_forgets_boxes_is_shown_with_its_markers(learned):
    ill = planted.After(lambda image, target, number: (image.flip(-1), target))
    picture = picture_of(Patient(data=learned, transform=ill), "boxes-stay-on-their-objects")
    assert picture.image.shape == (planted.SIDE, planted.SIDE, 3) and len(picture.right)


@pytest.mark.slow
def test_the_boxes_of_a_loop_are_shown_as_its_loss_gets_them(learned):
    ill = planted.batches(learned, lambda batch: batch._replace(boxes=batch.boxes * planted.SIDE))
    picture = picture_of(Patient(batches=ill), "boxes-in-batches")
    torch.testing.assert_close(picture.boxes, picture.right * planted.SIDE, rtol=1e-5, atol=1e-5)
    moved = planted.batches(learned, lambda batch: batch._replace(images=batch.images.flip(-1)))
    picture = picture_of(Patient(batches=moved), "boxes-are-on-objects-in-batches")
    torch.testing.assert_close(picture.right, planted.mirrored(picture.boxes), rtol=1e-5, atol=1e-5)


def test_a_copy_is_shown_beside_what_it_is_a_copy_of(learned):
    few = setups.InMemory(learned.samples[:16], learned.classes)
    cut = planted.with_images(few, lambda image: np.ascontiguousarray(image[2:-2, 2:-2]))
    held_out = planted.with_boxes(cut, lambda boxes, size: boxes * 0.97)
    picture = picture_of(Patient(data=few, held_out=held_out), "held-out-images-are-not-learned-from")
    assert len(picture.images) == 2 and all("," in name for name in picture.names)


def test_levels_and_sizes_are_shown_as_bars(small_devkit):
    patient = small_setup(small_devkit).patient()
    patient.priors = torch.cat([patient.priors[:, :2], patient.priors[:, 2:] * 0.1], dim=1)
    bars = picture_of(patient, "objects-have-priors")
    assert max(bars.values) < 0.35 and len(bars.names) == len(bars.values)
