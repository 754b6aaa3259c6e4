"""Foreign code: patients made of trainings that are not this course's.

An adapter says how a loop's own batch is read, and calls the loop's own network and loss. It repairs nothing: what the
loop has wrong must be seen. `of_torchvision` and `of_ssd_pytorch` are two that another can be modelled on.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from course_lib.boxes import area, box_iou, encode, to_corners, to_cxcywh
from course_lib.detect import Detections
from course_lib.doctor.patient import Patient, evaluating
from course_lib.matching import Matches
from course_lib.voc import Batch, Target, collate

NAMES = {"bbox_regression": "loc", "classification": "conf"}  # of torchvision's losses
REACH, FARTHEST = 16.0, 2.0**24  # where a loss is first asked for the offsets that it wants, and where last
HALVINGS, PRECISION = 48, 1e-4  # from the farthest to a millionth, if it is not near before


def of_torchvision(
    model: SSD, batches: Iterable, optimizer: torch.optim.Optimizer | None = None, **parts: Any
) -> Patient:
    """A patient of torchvision's SSD, such as `ssd300_vgg16`, in its own training loop.

    Args:
        batches: of a list of images `[3, H, W]`, RGB 0 to 1, and a list of their targets: "boxes" `[N, 4]`, corners in
            pixels of the image, and "labels" `int64 [N]`, 0 for background. On the model's device.
        parts: more parts of the patient by name, such as `step`; they replace those that are made here.

    Source: torchvision/models/detection/ssd.py, `SSD.forward`.
    """
    corners = anchors(model)
    width, height = model.transform.fixed_size

    def read(batch: Sequence) -> Batch:
        images = [F.interpolate(image[None].float(), (height, width), mode="bilinear")[0] * 255 for image in batch[0]]
        boxes = [target["boxes"] / sides(image) for image, target in zip(*batch, strict=True)]
        sizes = [(image.shape[2], image.shape[1]) for image in batch[0]]
        return as_batch(images, boxes, [target["labels"] for target in batch[1]], sizes).to(corners.device)

    def outputs(batch: Sequence) -> tuple[Tensor, Tensor]:
        images, _ = model.transform(batch[0])
        found = model.head(feature_maps(model, images.tensors))
        return found["bbox_regression"], found["cls_logits"]

    def losses(batch: Sequence) -> dict[str, Tensor]:
        if not model.training:
            raise RuntimeError("the model is in evaluation mode, where it gives no losses: call model.train()")
        return {NAMES.get(name, name): value for name, value in model(*batch).items()}

    @torch.no_grad()
    def detect(batch: Sequence) -> list[Detections]:
        with evaluating(model):
            found = zip(batch[0], model(batch[0]), strict=True)
        return [Detections(one["boxes"] / sides(image), one["scores"], one["labels"]) for image, one in found]

    made = {"priors": to_cxcywh(corners), "read": read, "outputs": outputs, "losses": losses, "detect": detect}
    made |= {"match": partial(matched, model), "loss": partial(paid, model, corners)}
    return Patient(**{"model": model, "batches": batches, "optimizer": optimizer} | made | parts)


def of_ssd_pytorch(
    net: nn.Module,
    priors: Float[Tensor, "P 4"],
    criterion: Callable,
    batches: Iterable,
    optimizer: torch.optim.Optimizer | None = None,
    mean: tuple[float, float, float] = (104, 117, 123),
    **parts: Any,
) -> Patient:
    """A patient of a training in ssd.pytorch's manner.

    Args:
        net: from images to offsets `[B, P, 4]`, logits `[B, P, C]` with background first, and priors.
        priors: centre-size, fractions of the image.
        criterion: from what the net gives and a list of targets to the boxes' and the classes' loss.
        batches: of images `[B, 3, S, S]`, BGR 0 to 255 without `mean`, and a list of targets `[N, 5]`: corners in
            fractions of the image and the number of the class, 0 for the first that is not background.
        mean: BGR, that was taken from the pixels.
        parts: more parts of the patient by name, such as `step`; they replace those that are made here.

    Source: github.com/amdegroot/ssd.pytorch, train.py and layers/modules/multibox_loss.py.
    """
    taken = torch.tensor(mean, dtype=torch.float32).flip(0)[:, None, None]

    def read(batch: Sequence) -> Batch:
        images, targets = batch
        pixels = images.cpu().flip(1) + taken
        labels = [target[:, 4].long() + 1 for target in targets]
        return as_batch(list(pixels), [target[:, :4] for target in targets], labels).to(images.device)

    def outputs(batch: Sequence) -> tuple[Tensor, Tensor]:
        offsets, logits, _ = net(batch[0])
        return offsets, logits

    def losses(batch: Sequence) -> dict[str, Tensor]:
        loc, conf = criterion(net(batch[0]), batch[1])
        return {"loc": loc, "conf": conf}

    @cache
    def count() -> int:
        with evaluating(net), torch.no_grad():
            return outputs(next(iter(batches)))[1].shape[2]

    made = {"priors": priors, "read": read, "outputs": outputs, "losses": losses}
    made |= {"match": partial(asked, criterion, count)}
    return Patient(**{"model": net, "batches": batches, "optimizer": optimizer} | made | parts)


def as_batch(
    images: Sequence[Tensor],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Batch:
    """A `Batch` of images of one size, RGB 0 to 255, and of boxes and labels as they are.

    Strong colours that augmentation has left without a limit are cut off; images in another unit stay as they are.

    Args:
        sizes: width and height before the images were made smaller, pixels; None: they were not.
    """
    pixels = torch.stack([image.cpu().round() for image in images])
    if pixels.min() >= -255 and pixels.max() <= 510:
        pixels = pixels.clamp(0, 255).to(torch.uint8)
    sizes = sizes or [(image.shape[-1], image.shape[-2]) for image in images]
    blank = torch.zeros_like(pixels[0], dtype=torch.uint8)
    targets = [
        Target(
            corners.cpu().float(), names.cpu(), torch.zeros(len(names), dtype=torch.bool), f"{number} of a batch", size
        )
        for number, (corners, names, size) in enumerate(zip(boxes, labels, sizes, strict=True))
    ]
    return collate([(blank, target) for target in targets])._replace(images=pixels)


def sides(image: Float[Tensor, "*_ 3 H W"]) -> Float[Tensor, "4"]:
    """Width, height, width and height of an image: what corners in pixels are divided by."""
    return torch.tensor([image.shape[-1], image.shape[-2]] * 2, dtype=torch.float32, device=image.device)


def feature_maps(model: SSD, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
    """What the heads of torchvision's SSD look at."""
    features = model.backbone(images)
    return [features] if isinstance(features, Tensor) else list(features.values())


def anchors(model: SSD) -> Float[Tensor, "P 4"]:
    """The priors of torchvision's SSD: corners, fractions of the image as the model resizes it."""
    width, height = model.transform.fixed_size
    image = next(model.parameters()).new_zeros(1, 3, height, width)
    with evaluating(model), torch.no_grad():  # an empty image in training would enter the statistics of batch norm
        (corners_px,) = model.anchor_generator(ImageList(image, [(height, width)]), feature_maps(model, image))
    return corners_px / sides(image)


def matched(
    model: SSD, boxes: Float[Tensor, "B G 4"], labels: Int[Tensor, "B G"], priors: Float[Tensor, "P 4"]
) -> Matches:
    """What torchvision's own matcher and coder want of every prior; called as `matching.match` is."""
    corners = to_corners(priors)
    gt_index = torch.full((len(boxes), len(priors)), -1, device=boxes.device)
    for row, there in enumerate(area(boxes) > 0):
        if there.any():  # the matcher refuses an image without objects, and so the model does not call it there
            owner = model.proposal_matcher(box_iou(boxes[row, there], corners))
            gt_index[row] = torch.where(owner < 0, -1, there.nonzero()[:, 0][owner.clamp(min=0)])
    image, positive = torch.arange(len(boxes), device=boxes.device)[:, None], gt_index >= 0
    known = gt_index.clamp(min=0)
    wanted = torch.where(positive[..., None], boxes[image, known], corners)
    offsets = torch.stack([model.box_coder.encode_single(one, corners) for one in wanted])
    return Matches(labels[image, known].masked_fill(~positive, 0), offsets, gt_index)


def paid(
    model: SSD,
    corners: Float[Tensor, "P 4"],
    offsets: Float[Tensor, "B P 4"],
    logits: Float[Tensor, "B P C"],
    matches: Matches,
) -> dict[str, Float[Tensor, ""]]:
    """What torchvision's SSD pays for its outputs; called as `losses.MultiBoxLoss` is.

    It wants targets, not matches: every positive prior gets a target of its own.
    """
    targets = [
        {"boxes": model.box_coder.decode_single(wanted, corners), "labels": names}
        for wanted, names in zip(matches.offsets, matches.labels, strict=True)
    ]
    own = torch.arange(len(corners), device=corners.device)
    owners = list(torch.where(matches.gt_index >= 0, own, -1))
    found = {"bbox_regression": offsets, "cls_logits": logits}
    parts = model.compute_loss(targets, found, [corners] * len(targets), owners)
    return {NAMES.get(name, name): value for name, value in parts.items()}


def asked(
    criterion: Callable,
    count: Callable[[], int],
    boxes: Float[Tensor, "B G 4"],
    labels: Int[Tensor, "B G"],
    priors: Float[Tensor, "P 4"],
) -> Matches:
    """What a loss in ssd.pytorch's manner wants of every prior; called as `matching.match` is.

    It matches inside, where nobody sees it. So it is asked for its slopes: a prior whose offsets it pays for is
    positive, the offsets that it wants are where their slope is 0, and the class is the one that it wants more of.

    Args:
        count: gives the number of classes, with background.
    """
    there = (labels != 0) | (boxes != 0).any(dim=2)  # the others fill up
    images = list(zip(boxes, labels, there, strict=True))
    targets = [torch.cat([one[real], names[real, None] - 1.0], dim=1) for one, names, real in images]
    logits = priors.new_zeros(len(boxes), len(priors), count())

    def slopes(offsets: Tensor, kind: int) -> Tensor:
        outputs = [offsets.requires_grad_(kind == 0), logits.clone().requires_grad_(kind == 1)]
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(criterion((*outputs, priors), targets)[kind], outputs[kind])
        return slope

    offsets, positives = lowest(partial(slopes, kind=0), priors.new_zeros(len(boxes), len(priors), 4))
    kinder = slopes(offsets, kind=1).argmin(dim=2)  # the first, background, where all are 0
    owners = [closest(one, wanted, priors) for one, wanted in zip(boxes, offsets, strict=True)]
    return Matches(kinder.masked_fill(~positives, 0), offsets, torch.stack(owners).masked_fill(~positives, -1))


def lowest(
    slopes: Callable[[Tensor], Tensor], start: Float[Tensor, "B P 4"]
) -> tuple[Float[Tensor, "B P 4"], Bool[Tensor, "B P"]]:
    """Where a loss of many numbers, each with a loss of its own, is lowest; and of which rows it depends at all.

    Each number lies between two, and the slope says in which half; smooth L1's, once near, says by how much it is off.
    """
    reach = REACH
    while True:
        low, high = start - reach, start + reach
        below, above = slopes(low.clone()), slopes(high.clone())
        if reach >= FARTHEST or ((below <= 0) & (above >= 0)).all():
            break
        reach *= REACH
    weight = torch.maximum(below.abs(), above.abs())
    depends = weight > 0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = slopes(middle.clone())
        guess = torch.where(depends, middle - slope / weight, middle)
        if (slope.abs() <= 0.9 * weight).all() and (slopes(guess.clone()).abs() <= PRECISION * weight).all():
            return guess, depends.any(dim=2)
        low, high = torch.where(slope <= 0, middle, low), torch.where(slope >= 0, middle, high)
    return middle, depends.any(dim=2)


def closest(
    boxes: Float[Tensor, "G 4"], offsets: Float[Tensor, "P 4"], priors: Float[Tensor, "P 4"]
) -> Int[Tensor, " P"]:
    """Which of the boxes each prior's offsets come nearest to."""
    told = encode(boxes[:, None].expand(-1, len(priors), -1), priors)  # [G, P, 4]
    return (told - offsets).abs().sum(dim=2).nan_to_num(nan=torch.inf).argmin(dim=0)
