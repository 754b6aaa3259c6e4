import pytest
import torch
from small_patient import seen_in
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from course_lib import priors
from course_lib.boxes import to_corners, to_cxcywh
from course_lib.doctor import Patient
from course_lib.doctor.prior_boxes import levels

SPECS = {"ssd300": priors.SSD300, "mini": priors.SSD_MINI, "nano": priors.SSD_NANO, "lite0": priors.SSD_LITE0}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def looked_at(boxes):
    patient = Patient()
    patient.priors = boxes  # of whatever shape
    return seen_in(patient, "priors-in-fractions", "priors-on-the-image")


def test_each_map_has_its_own_level(spec):
    sizes = [side**2 * shapes for side, shapes in zip(spec.maps, spec.per_cell, strict=True)]
    assert [part.stop - part.start for part in levels(spec.boxes())] == sizes


def test_the_courses_priors_are_healthy(spec):
    assert not looked_at(spec.boxes())


def test_widths_that_are_cut_at_the_whole_image_are_healthy(spec):
    boxes = spec.boxes()
    assert all(one.severity == "note" for one in looked_at(torch.cat([boxes[:, :2], boxes[:, 2:].clamp(max=1)], dim=1)))


def in_pixels(boxes):
    return boxes * 300


def as_corners(boxes):
    return to_corners(boxes)


def clipped(boxes):
    return to_cxcywh(to_corners(boxes).clamp(0, 1))


def twice(boxes):
    return torch.cat([boxes, boxes[: len(boxes) // 4]])


def not_finite(boxes):
    return boxes.index_fill(0, torch.tensor([3]), float("nan"))


def without_width(boxes):
    return boxes * torch.tensor([1.0, 1, 0, 1])


def beside_the_image(boxes):
    return boxes + torch.tensor([0.5, 0, 0, 0])


def three_columns(boxes):
    return boxes[:, :3]


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (in_pixels, "fault", "as pixels do"),
        (as_corners, "fault", "priors are corners"),
        (not_finite, "fault", "NaN"),
        (without_width, "fault", "no width or no height"),
        (beside_the_image, "fault", "outside the image"),
        (three_columns, "fault", "priors are"),
        (clipped, "warning", "they are clipped"),
        (twice, "warning", "copies of others"),
    ],
)
def test_other_priors_are_named(spec, change, severity, words):
    found = looked_at(change(spec.boxes()))
    assert any(one.severity == severity and words in one.seen for one in found), found


def test_centres_on_the_edge_are_named(spec):
    boxes = spec.boxes()
    for part, side in zip(levels(boxes), spec.maps, strict=True):
        boxes[part, :2] -= 0.5 / side
    assert "where half a cell is due" in "".join(one.seen for one in looked_at(boxes))


def of_torchvision(steps, clip, side=96, maps=(12, 6, 3, 1)):
    ratios, scales = [[2], [2, 3], [2, 3], [2]], [0.15, 0.3, 0.5, 0.75, 0.95]
    generator = DefaultBoxGenerator(ratios, scales=scales, steps=steps, clip=clip)
    maps = [torch.zeros(1, 1, cells, cells) for cells in maps]
    (corners,) = generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), maps)
    return to_cxcywh(corners / side)


def beside(boxes):
    return [one for one in looked_at(boxes) if "around the middle" in one.seen]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [None, [8, 16, 32, 96]])
def test_priors_around_the_middle_are_healthy(steps, clip):
    assert not beside(of_torchvision(steps, clip))
    assert not beside(of_torchvision(steps and [8, 16, 32, 100], clip, 100, (13, 7, 3, 1)))  # 13 * 8 is beyond 100


@pytest.mark.parametrize("size", [96, 200, 224, 300, 320])
def test_priors_of_any_size_are_around_the_middle_clipped_or_not(size):
    boxes = priors.ssd_lite(size).boxes()
    assert not beside(boxes) and not beside(clipped(boxes)) and not beside(clipped(priors.SSD300.boxes()))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([8, 16, 32, 64], "4 of 850 priors do not lie around the middle"),
        ([8, 16, 24, 96], "54 of 850"),
        ([8, 12, 32, 96], "216 of 850"),
        ([6, 12, 24, 72], "850 of 850"),
        ([10, 20, 40, 120], "850 of 850"),
    ],
)
def test_steps_for_another_size_are_named(steps, words):
    found = beside(of_torchvision(steps, False))
    assert [one.severity for one in found] == ["warning"] and words in found[0].seen


def batches_of(boxes):
    from course_lib.voc import Batch

    slots = boxes.view(8, -1, 4)
    labels = torch.ones(slots.shape[:2], dtype=torch.int64)
    size = [(96, 96)] * 8
    return [Batch(torch.zeros(8, 3, 96, 96, dtype=torch.uint8), slots, labels, labels < 0, ["a"] * 8, size)]


def covered(boxes, own):
    return seen_in(Patient(batches=batches_of(boxes), priors=own), "objects-have-priors")


def test_objects_as_large_as_priors_are_covered_and_those_in_other_units_are_not():
    generator = torch.Generator().manual_seed(0)
    size = 0.1 + 0.6 * torch.rand(32, 2, generator=generator)
    low = torch.rand(32, 2, generator=generator) * (1 - size)
    boxes, own = torch.cat([low, low + size], dim=1), priors.SSD_NANO.boxes()
    assert not covered(boxes, own)
    assert covered(boxes * 96, own)[0].seen.startswith("boxes are in pixels, the other in fractions")
    assert covered(boxes, own * 96)[0].seen.startswith("priors are in pixels")
    assert covered(boxes * 96, own * 96) == []
    assert "have no area" in covered(to_cxcywh(boxes), own)[0].seen
    assert covered(boxes[:, [2, 3, 0, 1]], own)[0].severity == "fault"
    assert covered(low.repeat(1, 2) + torch.tensor([0, 0, 0.02, 0.02]), own)[0].severity == "fault"


def test_a_kind_of_objects_far_smaller_than_all_priors_is_told():
    def objects(small):
        sides = torch.tensor([0.08] * small + [0.4] * (64 - small))[:, None]
        low = torch.rand(64, 2, generator=torch.Generator().manual_seed(0)) * (1 - sides)
        return torch.cat([low, low + sides], dim=1)

    large = priors.PriorSpec(96, (12, 6), (8, 16), (30, 40, 60), ((2,), (2,))).boxes()
    assert [one.severity for one in covered(objects(20), large)] == ["warning"]
    for few, own in ((4, large), (20, priors.SSD_NANO.boxes())):
        assert all(one.severity == "note" for one in covered(objects(few), own))


def test_what_costs_little_is_a_note():
    clamped = priors.SSD300.boxes().clamp(0, 1)
    short = priors.PriorSpec(300, (37, 18), (8, 16), (30, 60, 111), ((2,), (2,))).boxes()
    double = priors.PriorSpec(300, (19, 19), (16, 16), (30, 60, 111), ((2,), (2,))).boxes()
    for boxes, words in (
        (clamped, "perhaps centres, are clamped"),
        (short, "levels 1 end at 0.96"),
        (double, "both have 361 cells"),
    ):
        findings = looked_at(boxes)
        assert [one.severity for one in findings] == ["note"] and words in findings[0].seen
