"""From an image of any size and its target to the square that the network takes."""

from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from course_lib.voc import Target

# The mean colour of VGG's training images, RGB: the original subtracts it from every pixel, and fills
# with it what lies beyond the image.
PIXEL_MEAN = (123, 117, 104)

# The loader's workers are the parallelism; OpenCV's own threads would only get in their way.
cv2.setNumThreads(0)


class Augment:
    """Transforms that treat boxes as part of the picture.

    Args:
        transforms: albumentations transforms, in order; the last one must give the final size.

    Calling it with an image `uint8 [H, W, 3]` and its target gives the image `uint8 [3, S, S]` and a
    target whose boxes are fractions of the new image. Objects that have left it are gone. `seed`
    fixes what the next call does.
    """

    def __init__(self, transforms: list[A.BasicTransform]) -> None:
        self.compose = A.Compose(
            transforms,
            bbox_params=A.BboxParams(
                format="albumentations",
                label_fields=["index"],
                clip=True,
                filter_invalid_bboxes=True,
                min_visibility=1 / 3,
            ),
        )

    def seed(self, seed: int) -> None:
        self.compose.set_random_seed(seed)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], target: Target) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        result = self.compose(image=image, bboxes=target.boxes.numpy(), index=np.arange(len(target.labels)))
        kept = torch.as_tensor(np.asarray(result["index"], dtype=np.int64))
        boxes = torch.as_tensor(np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4))
        pixels = torch.from_numpy(np.ascontiguousarray(result["image"].transpose(2, 0, 1)))
        return pixels, replace(target, boxes=boxes, labels=target.labels[kept], difficult=target.difficult[kept])


def resized(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[Tensor, "3 S S"]:
    """An image stretched to a square, as `evaluation` does it, where there is no target."""
    square = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(square.transpose(2, 0, 1).copy())


def evaluation(size: int) -> Augment:
    """Resize only. SSD stretches to a square: whatever the image's shape, every box keeps its fractions."""
    return Augment([A.Resize(size, size, interpolation=cv2.INTER_LINEAR)])


def training(size: int) -> Augment:
    """The original's colour changes, a mirror, the resize, and a zoom and shift at the small size.

    Zooming shows each object at many sizes and places: a detector trained without it learns its
    images by heart. An object of which less than a third is left in the picture is dropped.
    """
    return Augment(
        [
            A.Resize(size, size, interpolation=cv2.INTER_LINEAR),
            A.HorizontalFlip(p=0.5),
            A.Affine(scale=(0.7, 1.45), translate_percent=(-0.2, 0.2), keep_ratio=False, fill=PIXEL_MEAN, p=0.5),
            A.ColorJitter(
                brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.1, 0.1), p=0.5
            ),
        ]
    )
