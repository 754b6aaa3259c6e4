import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from strategies import corner_boxes, priors_cxcywh

from course_lib.boxes import area, box_iou, decode, encode, to_corners, to_cxcywh

# A handful of float32 operations on numbers up to 1, each of them right to 6e-8: no kernel adds up long sums here.
ROUNDED = {"rtol": 2e-6, "atol": 1e-6}


@given(corner_boxes())
def test_corners_and_centres_are_inverse(boxes):
    torch.testing.assert_close(to_corners(to_cxcywh(boxes)), boxes, **ROUNDED)
    torch.testing.assert_close(to_cxcywh(boxes), torchvision.ops.box_convert(boxes, "xyxy", "cxcywh"), **ROUNDED)


@given(corner_boxes(), corner_boxes())
def test_iou_equals_torchvisions(a, b):
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b), **ROUNDED)


@given(corner_boxes(minimum=1))
def test_iou_is_symmetric_bounded_and_one_with_itself(boxes):
    iou = box_iou(boxes, boxes)
    torch.testing.assert_close(iou, iou.T, **ROUNDED)
    assert ((iou >= 0) & (iou <= 1 + 1e-6)).all()
    torch.testing.assert_close(iou.diagonal(), torch.ones(len(boxes)), **ROUNDED)


@given(corner_boxes(), corner_boxes(), st.floats(0.01, 500), st.floats(0.01, 500))
def test_iou_does_not_depend_on_the_unit_of_either_axis(a, b, x, y):
    unit = torch.tensor([x, y, x, y])
    # Corners near 1 are right to 6e-8, and the least side is 1e-3: the sides are right to 1e-4 of themselves.
    torch.testing.assert_close(box_iou(a * unit, b * unit), box_iou(a, b), rtol=1e-3, atol=1e-4)


def test_empty_and_reversed_boxes_have_iou_zero_and_not_nan():
    boxes = torch.tensor([[0.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.9], [0.8, 0.8, 0.2, 0.2], [0, 0, 1, 1]])
    iou = box_iou(boxes, boxes)
    assert (iou[:3] == 0).all() and (iou[:, :3] == 0).all() and iou[3, 3] == 1
    assert area(boxes).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 300, 1280, 30_000])
def test_iou_of_boxes_of_sixteen_bits_is_that_of_the_same_numbers_in_float64(dtype, size):
    """Areas in float16 end at 65,504: 300 x 300 pixels were infinite, and their IoU NaN."""
    boxes = (torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * size).to(dtype)
    boxes = torch.cat([boxes.minimum(boxes.roll(2, dims=1))[:, :2], boxes.maximum(boxes.roll(2, dims=1))[:, 2:]], dim=1)
    iou = box_iou(boxes, boxes)
    torch.testing.assert_close(iou.double(), box_iou(boxes.double(), boxes.double()), **ROUNDED)
    assert iou.diagonal()[area(boxes.double()) > 0].min() > 0.99
    torch.testing.assert_close(box_iou(boxes, boxes.float()), iou, rtol=0, atol=0)


def test_iou_by_hand():
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
    assert box_iou(a, b).item() == pytest.approx(1 / 7)


def test_iou_takes_batches_on_either_side():
    a, b = torch.rand(3, 5, 4).sort(dim=-1).values, torch.rand(7, 4).sort(dim=-1).values
    batched = box_iou(a, b.expand(3, 7, 4))
    for one, row in zip(a, batched, strict=True):
        torch.testing.assert_close(row, box_iou(one, b), **ROUNDED)


@given(corner_boxes(minimum=1), st.integers(0, 2**20))
def test_decode_inverts_encode(boxes, seed):
    priors = priors_cxcywh(len(boxes), seed)
    # The exponential of a logarithm of at most 7 gives a side to about 1e-6 of itself.
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**20))
def test_encode_equals_torchvisions_box_coder(seed):
    from torchvision.models.detection._utils import BoxCoder

    priors = priors_cxcywh(9, seed)
    boxes = to_corners(priors_cxcywh(9, seed + 1))
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    # Centres right to 6e-8, divided by a side of 0.02 or more and by 0.1: offsets right to some 3e-5.
    torch.testing.assert_close(
        encode(boxes, priors), coder.encode_single(boxes, to_corners(priors)), rtol=1e-4, atol=1e-4
    )


def test_a_prior_that_is_its_own_box_has_offsets_zero():
    priors = priors_cxcywh(20, 0)  # sides of 0.02 or more, as above
    torch.testing.assert_close(encode(to_corners(priors), priors), torch.zeros(20, 4), atol=1e-4, rtol=0)


def test_wrong_shapes_are_refused_by_the_annotations():
    with pytest.raises(Exception, match="box_iou"):
        box_iou(torch.zeros(3, 5), torch.zeros(2, 4))
