from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import batches, findings, in_rows, with_boxes, with_labels

from course_lib.boxes import to_corners, to_cxcywh
from course_lib.doctor import places, setups
from course_lib.doctor.patient import Patient

FINELY, ALL_OVER, OFF_THE_BORDER = (
    "boxes-are-written-finely",
    "objects-are-all-over-the-picture",
    "boxes-keep-off-the-border",
)


def rounded(step: float, centres: bool):
    """Boxes in steps, as corners or as centre and size, and cut at the edge of the picture."""

    def change(boxes, _):
        values = to_cxcywh(boxes) if centres else boxes
        values = ((values / step).round() * step).clamp(min=step if centres else 0)
        corners = (to_corners(values) if centres else values).clamp(0, 1)
        least = torch.tensor([0, 0, step, step])
        return torch.maximum(corners, torch.cat([corners[:, :2], corners[:, :2]], dim=1) + least).clamp(0, 1)

    return change


@pytest.mark.parametrize("centres", [True, False])
@pytest.mark.parametrize(("step", "severity"), [(0.1, "warning"), (0.05, "warning"), (0.02, "warning"), (0.01, "note")])
def test_boxes_that_were_rounded_are_told(learned, step, severity, centres):
    coarse = with_boxes(learned, rounded(step, centres))
    ((_, seen),) = findings(Patient(data=coarse), FINELY, severity=(severity,))
    assert f"in steps of {step:g} of" in seen
    assert findings(Patient(data=learned, held_out=coarse), FINELY, severity=(severity,))[0][1].startswith("held-out")


def test_boxes_in_whole_pixels_are_fine_even_where_pictures_are_small(learned):
    def whole(boxes, sides):
        return (boxes * sides).round() / sides

    for data in (learned, with_boxes(learned, whole)):
        assert findings(Patient(data=data), FINELY, severity=("fault", "warning", "note")) == []
    tiny = tuple(
        (image, replace(t, size=(20, 10))) for image, t in with_boxes(learned, rounded(0.1, centres=False)).samples
    )
    small = setups.InMemory(tiny, learned.classes)
    assert findings(Patient(data=small), FINELY, severity=("fault", "warning", "note")) == []


def moved_into(corner):
    """All boxes in one quarter of the picture, as a mosaic has them that forgets the other three."""
    return lambda batch: batch._replace(boxes=batch.boxes / 2 + torch.tensor([*corner, *corner]) / 2)


@pytest.mark.parametrize(
    ("corner", "halves"), [((1, 1), "left upper"), ((0, 0), "right lower"), ((0, 1), "right upper")]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_part_of_the_picture_without_any_object_is_told(learned, corner, halves, known):
    loop = batches(learned, moved_into(corner))
    parts = {"data": learned} if known else {}
    ((_, seen),) = findings(Patient(batches=loop, **parts), ALL_OVER)
    assert all(f"0 in the {half} half" in seen for half in halves.split())


def test_objects_that_are_all_over_or_where_the_data_has_them_are_left_in_peace(learned):
    lower = with_boxes(learned, lambda boxes, _: boxes / 2 + torch.tensor([0, 0.5, 0, 0.5]))
    assert findings(Patient(data=learned, batches=batches(learned)), ALL_OVER) == []
    assert findings(Patient(data=lower, batches=batches(lower)), ALL_OVER) == []


def padded(along: bool, sides: tuple[float, float]):
    """Plain bands of a share of the picture, left and right, above and below; boxes move along, or do not."""

    def change(batch):
        images = torch.full_like(batch.images, 114)
        height, width = images.shape[-2:]
        x, y = round(sides[0] * width), round(sides[1] * height)
        inner = torch.nn.functional.interpolate(batch.images.float(), (height - 2 * y, width - 2 * x), mode="bilinear")
        images[:, :, y : height - y, x : width - x] = inner.to(torch.uint8)
        share, start = (
            torch.tensor([1 - 2 * x / width, 1 - 2 * y / height] * 2),
            torch.tensor([x / width, y / height] * 2),
        )
        right = batch.boxes * share + start * (batch.labels > 0)[..., None]
        in_pixels = batch.boxes * share  # of the picture before: nothing is added
        return batch._replace(images=images, boxes=right if along else in_pixels)

    return change


@pytest.mark.parametrize("sides", [(0.125, 0), (0, 0.125), (0.1, 0.1)])
def test_padding_without_its_boxes_is_told_and_with_them_not(learned, sides):
    ((_, seen),) = findings(Patient(batches=batches(learned, padded(False, sides))), OFF_THE_BORDER)
    assert "lie on the plain border" in seen
    for loop in (batches(learned, padded(True, sides)), batches(learned)):
        assert findings(Patient(batches=loop), OFF_THE_BORDER) == []


def test_a_border_is_of_one_colour_at_an_edge_and_not_the_whole_picture():
    image = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    assert places.border_of(image) is None and places.border_of(np.full_like(image, 9)) is None
    image[:10], image[:, -4:] = 30, 30
    border = places.border_of(image)
    assert border[:10].all() and border[:, -4:].all() and border.sum() == 10 * 40 + 40 * 4
    shares = places.share_on(
        border, np.array([[0, 0, 1, 0.2], [0, 0.2, 0.9, 1.0], [0.0, 0.0, 0.5, 0.4], [0.3, 0.3, 0.3, 0.3]])
    )
    assert shares == pytest.approx([1, 0, 0.5, 0])


def test_batches_with_one_label_for_all_are_told_where_the_data_has_others(learned):
    one = in_rows(lambda n: n.clamp(max=1))
    said = findings(Patient(batches=batches(learned, one), classes=learned.classes), "labels-in-batches")
    assert [f"have label 1, of {len(learned.classes)} classes" in seen for _, seen in said] == [True]
    alike = with_labels(learned, lambda n: n * 0 + 3)
    assert findings(Patient(data=alike, batches=batches(alike)), "labels-in-batches") == []
    assert findings(Patient(batches=batches(learned, one), classes=("thing",)), "labels-in-batches") == []
