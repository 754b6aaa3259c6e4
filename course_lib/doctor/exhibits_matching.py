"""Exhibits in priors and matching: what stands on the image, and which of it answers for an object."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import albumentations as A
import torch
from torch import Tensor

from course_lib import augment, ssd
from course_lib.backbones import VGG
from course_lib.boxes import box_iou, decode, encode, to_corners, to_cxcywh
from course_lib.doctor.exhibits_data import LOG
from course_lib.doctor.exhibits_detection import detecting
from course_lib.doctor.setups import RECIPE, Exhibit, Setup, Then, fresh
from course_lib.matching import Matches
from course_lib.priors import SSD_MINI, SSD_NANO, PriorSpec
from course_lib.voc import Target

Rule = Callable[[Tensor, Tensor], Tensor]  # from overlaps [G, P] and labels [G] to the slot of each prior, -1 for none


def by_rule(boxes: Tensor, labels: Tensor, priors: Tensor, rule: Rule) -> Matches:
    """Matching, image by image, by another rule than `matching.match`'s; called as that is."""
    corners = to_corners(priors)
    slots = torch.stack([rule(box_iou(one, corners), names) for one, names in zip(boxes, labels, strict=True)])
    image, known = torch.arange(len(boxes))[:, None], slots.clamp(min=0)
    matched_labels = labels[image, known].masked_fill(slots < 0, 0)
    matched = torch.where((matched_labels > 0)[..., None], boxes[image, known], corners)
    return Matches(matched_labels, encode(matched, priors), slots)


def above_threshold(iou: Tensor) -> Tensor:
    """The best object of each prior, if it overlaps enough."""
    overlap, slot = iou.max(dim=0)
    return slot.masked_fill(overlap < RECIPE.match_iou, -1)


def last_wins(iou: Tensor, labels: Tensor) -> Tensor:
    """Every object takes its best prior, one after the other; of two that want one prior, the second has it."""
    slots = above_threshold(iou)
    for slot in labels.nonzero().flatten().tolist():
        slots[iou[slot].argmax()] = slot
    return slots


def all_at_once(iou: Tensor, labels: Tensor) -> Tensor:
    """Every object takes its best prior in one indexed write; which of two has it is left to torch."""
    slots = above_threshold(iou)
    objects = labels.nonzero().flatten()
    slots[iou[objects].argmax(dim=1)] = objects
    return slots


def zoom_out(setup: Setup) -> None:
    """SSD's own zoom-out, up to four times, for every image: objects become small, and neighbours want one prior."""
    size = setup.model.image_size
    resize, mirror = A.Resize(size, size), A.HorizontalFlip(p=0.5)
    setup.transform = augment.Augment([augment.ZoomOut(max_ratio=4.0, p=1.0), resize, mirror])


def objects_share_priors(setup: Setup) -> None:
    """Matching is a loop over the objects, which are small."""
    zoom_out(setup)
    setup.match = partial(by_rule, rule=last_wins)


def objects_written_at_once(setup: Setup) -> None:
    """Matching is one indexed write, and objects are small."""
    zoom_out(setup)
    setup.match = partial(by_rule, rule=all_at_once)


def pixels_against_fractions(setup: Setup) -> None:
    """Boxes are pixels of the resized image, priors are fractions; a loop gives every object its best prior."""
    size = setup.model.image_size

    def in_pixels(image: Tensor, target: Target) -> tuple:
        return image, replace(target, boxes=target.boxes * size)

    setup.transform = Then(setup.transform, in_pixels)
    setup.match = partial(by_rule, rule=last_wins)


def priors_in_pixels(setup: Setup) -> None:
    """Priors are pixels, boxes are fractions."""
    setup.priors = setup.priors * setup.model.image_size


def describe_otherwise(
    setup: Setup, encoded: Callable[[Tensor, Tensor], Tensor], decoded: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Describe boxes in another way than `boxes.encode`, and find them by the same way.

    Args:
        encoded: from corners `[B, P, 4]` and priors to what the network is to predict.
        decoded: from what it predicts and priors to corners.
    """
    usual = setup.match

    def match(boxes: Tensor, labels: Tensor, priors: Tensor) -> Matches:
        found = usual(boxes, labels, priors)
        return found._replace(offsets=encoded(decode(found.offsets, priors), priors))

    setup.match, setup.made_last["detect"] = match, detecting(decoded)


def no_variances(setup: Setup) -> None:
    """Offsets are not divided by 0.1 and 0.2, nor multiplied by them at detection."""
    describe_otherwise(setup, partial(encode, variances=(1.0, 1.0)), partial(decode, variances=(1.0, 1.0)))


def no_encoding(setup: Setup) -> None:
    """The network is to predict how far each corner is from its prior's, in fractions of the image."""
    describe_otherwise(
        setup, lambda boxes, priors: boxes - to_corners(priors), lambda found, priors: found + to_corners(priors)
    )


def one_added_again(setup: Setup) -> None:
    """Matching adds 1 for background to labels that count from 1 already."""
    usual = setup.match

    def match(boxes: Tensor, labels: Tensor, priors: Tensor) -> Matches:
        found = usual(boxes, labels, priors)
        return found._replace(labels=found.labels + (found.labels > 0))

    setup.match = match


def corners_clipped(setup: Setup) -> None:
    """Priors are cut off at the edge of the image."""
    setup.priors = to_cxcywh(to_corners(setup.priors).clamp(0, 1))


def numbers_clamped(setup: Setup) -> None:
    """Centre and size of every prior are clamped to 0 and 1, as if they were corners."""
    setup.priors = setup.priors.clamp(0, 1)


def take_spec(setup: Setup, spec: PriorSpec) -> None:
    """Build the model for other priors."""
    setup.adopt(fresh(replace(ssd.ssd_nano, spec=spec), setup.classes))


def ratios_both_ways(setup: Setup) -> None:
    """The ratios are 2 and 1/2, and each is used both ways: every stretched prior is there twice."""
    both = tuple((*ratios, *(1 / ratio for ratio in ratios)) for ratios in SSD_NANO.ratios)
    take_spec(setup, replace(SSD_NANO, ratios=both))


class Squares(PriorSpec):
    """Priors whose height is multiplied by the ratio's root, where it should be divided."""

    def shapes(self, level: int) -> list[tuple[float, float]]:
        small, larger, *stretched = super().shapes(level)
        return [small, larger, *((width, width) for width, height in stretched)]


def all_squares(setup: Setup) -> None:
    """All priors are squares."""
    take_spec(setup, Squares(**vars(SSD_NANO)))


def columns_for_rows(setup: Setup) -> None:
    """The grid of priors runs down the columns; the heads' outputs run along the rows."""
    setup.priors = setup.priors[:, [1, 0, 2, 3]]


def priors_of_another_network(setup: Setup) -> None:
    """The priors are those of a network with larger maps."""
    setup.priors = SSD_MINI.boxes()


class Floored(VGG):
    """VGG whose pools round down."""

    def __init__(self, **shape) -> None:
        super().__init__(**shape)
        for layer in self.modules():
            if isinstance(layer, torch.nn.MaxPool2d):
                layer.ceil_mode = False


def pools_round_down(setup: Setup) -> None:
    """An image of 100 pixels gives maps of 12, 6, 3 and 1 in place of 13, 7, 4 and 2; the steps stay 8, 16 and 32."""
    spec = replace(SSD_NANO, image_size=100, steps=(8, 16, 32, 100), sides=(15, 30, 50, 75, 100))
    backbone = partial(Floored, **ssd.thin_vgg.keywords)
    setup.adopt(fresh(replace(ssd.ssd_nano, backbone=backbone, spec=spec), setup.classes))


def two_heads_at_one_stride(setup: Setup, smallest: float = SSD_NANO.sides[0]) -> None:
    """The first extra block has lost its stride: maps of 12, 6, 6 and 4 cells in place of 12, 6, 3 and 1.

    Args:
        smallest: side of the smallest priors, in pixels.
    """
    sides = (smallest, *SSD_NANO.sides[1:])
    spec = replace(SSD_NANO, maps=(12, 6, 6, 4), steps=(8, 16, 16, 24), sides=sides)
    extras = ((64, 128, 1, 1), (64, 128, 1, 0))
    setup.adopt(fresh(replace(ssd.ssd_nano, extras=extras, spec=spec), setup.classes, setup.seed))


EXHIBITS = {
    "pixels-against-fractions": Exhibit(
        "Boxes in pixels, priors in fractions",
        f"{LOG}: boxes ran from 0 to 300, priors from 0 to 1. No box met a prior, so the loop that gives every object "
        "its best prior gave all of them prior 0, which was to predict offsets of thousands. The loss fell by half.",
        "A first loss in the thousands that falls nicely, and not one object found.",
        "boxes / image size, before anything is matched.",
        6,
        pixels_against_fractions,
    ),
    "priors-in-pixels": Exhibit(
        "Priors in pixels, boxes in fractions",
        "The other way round: torchvision's anchors are in pixels, ssd.pytorch's priors are fractions, and a matcher "
        "of the one beside a loader of the other mixes them. pytorch-ssd #122 ends with a mixture of both units.",
        "Overlaps are near 0: an object has only the prior that it is given by force, at offsets in the tens.",
        "priors / image size.",
        4,
        priors_in_pixels,
    ),
    "objects-share-priors": Exhibit(
        "Matching is a loop in which the last object wins",
        "ssd.pytorch #193 and #354: two objects want one prior, the later one gets it, and the earlier one has none.",
        "Crowded objects are never learned, and the prior beside them learns to call them background.",
        "The best pair first, and a prior that is taken is gone: matching.owners.",
        6,
        objects_share_priors,
    ),
    "objects-written-at-once": Exhibit(
        "Matching is an indexed write with duplicates",
        "torchvision's SSDMatcher and many ports: where two indices are equal, torch promises no order.",
        "As with the loop; and another object may win with another number of threads.",
        "The best pair first, and a prior that is taken is gone: matching.owners.",
        6,
        objects_written_at_once,
    ),
    "no-variances": Exhibit(
        "Offsets without variances",
        f"{LOG}: neither encoding nor decoding divides by 0.1 and 0.2.",
        "The box loss is ten times smaller than it should be beside the class loss: boxes stay loose.",
        "boxes.encode and boxes.decode with variances (0.1, 0.2).",
        6,
        no_variances,
    ),
    "no-encoding": Exhibit(
        "Corners predicted as they are",
        "ssd.pytorch #298: the loss stayed flat, and a remedy that was offered takes the encoding out. The loss is "
        "small then: in fractions of the image every box is near its prior.",
        "The box loss starts near 0.01, and there is no gradient worth the name.",
        "boxes.encode.",
        6,
        no_encoding,
    ),
    "one-added-again": Exhibit(
        "Background is added twice",
        "ssd.pytorch #17 and #231: its matching adds 1 to every label. Who has made room for background already has "
        "class 2 where 1 is meant, and the last class lies outside: device-side assert triggered.",
        "An index error as soon as the last class turns up; before that, every name is its neighbour's.",
        "Add 1 in one place.",
        6,
        one_added_again,
    ),
    "corners-clipped": Exhibit(
        "Priors clipped at the image's edge",
        "The paper's code has an option for it and does not use it; lufficc/SSD does. A tutorial's #94 and #95 compare "
        "76.24 with 77.11 mAP.",
        "A third of the priors have other shapes than their neighbours with the same weights.",
        "Clip what is detected, not the priors.",
        4,
        corners_clipped,
    ),
    "numbers-clamped": Exhibit(
        "Centre and size clamped as if they were corners",
        "A later state of the same published code clamps all four numbers to 0 and 1, and so does a tutorial (sgrvinod "
        "#95): only priors wider or higher than the image change.",
        "A few large priors are no longer what the specification says.",
        "No clamp.",
        4,
        numbers_clamped,
    ),
    "ratios-both-ways": Exhibit(
        "Each ratio used both ways, twice",
        "A later state of the same published code lists 2 and .5, and uses each both ways: of 11,658 priors 7,772 "
        "differ.",
        "Every stretched prior has a twin; the twins share the positives, and NMS removes one at the end.",
        "List the ratios above 1 alone.",
        4,
        ratios_both_ways,
    ),
    "all-squares": Exhibit(
        "All priors are squares",
        "YOLACT #19, by its author: width and height were both multiplied by the ratio's root.",
        "Long and high objects are covered worse; it was worth 0.2 points of mAP there.",
        "height = side / sqrt(ratio).",
        4,
        all_squares,
    ),
    "columns-for-rows": Exhibit(
        "The grid of priors runs down the columns",
        "YOLOX #201: np.meshgrid with height and width exchanged, in the code that decodes; on square maps nothing "
        "fails.",
        "Each prediction looks at one place and answers for its mirror image along the diagonal.",
        "Rows outside, columns inside, as the heads are flattened.",
        4,
        columns_for_rows,
    ),
    "priors-of-another-network": Exhibit(
        "Priors for other maps than the network's",
        "lufficc/SSD #148: the image size was changed, the maps of the priors were not; 8732 against 15194. "
        "pytorch-ssd #171 is the same.",
        "The shape of the mask does not match: an error in the loss.",
        "Derive maps and priors from one specification, and compare them when the model is built.",
        5,
        priors_of_another_network,
    ),
    "pools-round-down": Exhibit(
        "Pools that round down",
        f"{LOG}: maps of 37 and 18 in place of 38 and 19. With the original's steps of 8 and 16 pixels the right "
        "and lower edge has no priors then; SSD-Tensorflow #171 and #240 ask where the 38 comes from.",
        "Objects at the right and lower edge are found less often.",
        "MaxPool2d(2, ceil_mode=True).",
        3,
        pools_round_down,
    ),
    "two-heads-at-one-stride": Exhibit(
        "Two heads at one stride",
        f"{LOG}: a stride was missing after fc7, and the maps were 37, 18, 18, 9, 5 and 2: 9,966 priors.",
        "Large priors sit on maps that do not see as far as they reach.",
        "Stride 2 in the first extra block.",
        5,
        two_heads_at_one_stride,
    ),
}
