"""From an image of any size and its target to the square that the network takes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.core.type_definitions import Targets
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from course_lib.backbones import PIXEL_MEAN
from course_lib.boxes import box_iou
from course_lib.images import channels_first, resized
from course_lib.voc import Target

INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


class Augment:
    """Transforms that treat boxes as part of the picture.

    Args:
        transforms: albumentations transforms, in order; the last one must give the final size.
        min_visibility: an object of whose area a transform leaves less than this share is dropped.

    Calling it with an image `uint8 [H, W, 3]` and its target gives the image `uint8 [3, S, S]` and a
    target whose boxes are fractions of the new image. Objects that have left it, or of which less than
    a pixel's width or height is left, are gone. `seed` fixes what the next call does.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform | A.BaseCompose], min_visibility: float = 0.0) -> None:
        self.compose = A.Compose(
            transforms,
            bbox_params=A.BboxParams(
                format="albumentations",
                label_fields=["index"],
                clip=True,
                filter_invalid_bboxes=True,
                min_visibility=min_visibility,
                # Rounding leaves slivers of objects that have just left the picture; no prior can match them.
                min_width=1,
                min_height=1,
            ),
        )

    def seed(self, seed: int) -> None:
        self.compose.set_random_seed(seed)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], target: Target) -> tuple[UInt8[Tensor, "3 _ _"], Target]:
        result = self.compose(image=image, bboxes=target.boxes.numpy(), index=np.arange(len(target.labels)))
        kept = torch.as_tensor(np.asarray(result["index"], dtype=np.int64))
        boxes = torch.as_tensor(np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4))
        target = replace(target, boxes=boxes, labels=target.labels[kept], difficult=target.difficult[kept])
        return channels_first(result["image"]), target


def stretch(image: UInt8[np.ndarray, "H W 3"], target: Target, size: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
    """Image and target for the network, with nothing changed but the image's shape."""
    return resized(image, size), target


def evaluation(size: int) -> Callable[[np.ndarray, Target], tuple[Tensor, Target]]:
    """What a model is measured on: stretched, and nothing else."""
    return partial(stretch, size=size)


class Shrink(A.DualTransform):
    """Bring an image that is far larger than the network needs down to `limit` pixels a side.

    Each side by itself: a box keeps its fractions, and SSD stretches to a square in the end anyway. What
    comes after would otherwise paint and recolour pixels that no sample shows. It draws no random number.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)

    def __init__(self, limit: int) -> None:
        super().__init__(p=1)
        self.limit = limit

    def apply(self, img: np.ndarray, **params) -> np.ndarray:
        height, width = img.shape[:2]
        if max(height, width) <= self.limit:
            return img
        size = (min(width, self.limit), min(height, self.limit))
        return cv2.resize(img, size, interpolation=cv2.INTER_AREA)

    def apply_to_bboxes(self, bboxes: np.ndarray, **params) -> np.ndarray:
        return bboxes


class ZoomOut(A.DualTransform):
    """Put the image somewhere on a larger plain canvas, so that its objects become small.

    Args:
        max_ratio: the canvas's sides are up to this many times the image's.

    Source: Liu et al. 2016, section 3.6; the canvas has the mean colour.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)

    def __init__(self, max_ratio: float = 4.0, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.max_ratio = max_ratio

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        height, width = params["shape"][:2]
        ratio = self.py_random.uniform(1, self.max_ratio)
        canvas = (int(height * ratio), int(width * ratio))
        corner = (self.py_random.randint(0, canvas[0] - height), self.py_random.randint(0, canvas[1] - width))
        return {"canvas": canvas, "corner": corner}

    def apply(self, img: np.ndarray, canvas: tuple[int, int], corner: tuple[int, int], **params) -> np.ndarray:
        (height, width), (y, x) = img.shape[:2], corner
        result = np.empty((*canvas, 3), img.dtype)
        result[:] = PIXEL_MEAN
        result[y : y + height, x : x + width] = img
        return result

    def apply_to_bboxes(
        self, bboxes: np.ndarray, canvas: tuple[int, int], corner: tuple[int, int], **params
    ) -> np.ndarray:
        height, width = params["shape"][:2]
        image_size, canvas_size = np.array([width, height] * 2), np.array([canvas[1], canvas[0]] * 2)
        moved = bboxes.copy()
        moved[:, :4] = (bboxes[:, :4] * image_size + np.array([corner[1], corner[0]] * 2)) / canvas_size
        return moved


def crop_accepted(
    boxes: Float[Tensor, "N 4"], windows: Float[Tensor, "T 4"], min_iou: float | None
) -> Bool[Tensor, " T"]:
    """Which windows SSD may cut out: those that **any** object overlaps by `min_iou`.

    Args:
        boxes: objects, corners.
        windows: candidates, corners, in the same unit.
        min_iou: None accepts every window that some object's centre lies in.

    In either case an object's centre must lie in the window, or nothing would be left to learn from.

    Source: the original's `SatisfySampleConstraint` returns at the first object that meets the overlap.
    """
    if not len(boxes):
        return torch.zeros(len(windows), dtype=torch.bool)
    accepted = centres_inside(boxes, windows).any(dim=1)
    if min_iou is not None:
        accepted &= (box_iou(windows, boxes) >= min_iou).any(dim=1)
    return accepted


def centres_inside(boxes: Float[Tensor, "N 4"], windows: Float[Tensor, "T 4"]) -> Bool[Tensor, "T N"]:
    """For each window, which boxes have their centre in it."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= windows[:, None, :2]) & (centres <= windows[:, None, 2:])).all(dim=-1)


class IoUCrop(A.DualTransform):
    """SSD's crop: cut out a window that overlaps some object by a chosen amount, so that objects become large.

    One of seven rules is chosen: leave the image whole, reach an IoU of 0.1, 0.3, 0.5, 0.7 or 0.9 with any
    object, or take any window. A rule for which none of its trials is accepted gives way to another. An
    object stays if its centre is in the window; what lies outside is clipped.

    Args:
        accepted: `crop_accepted`, or another rule to compare it with.
        trials: windows that are tried for each rule.

    Source: Liu et al. 2016, section 2.2, "Data augmentation"; sizes and trials are the original code's:
    the window has .3 to 1 of the image's side and an aspect ratio of .5 to 2, in fractions of the image.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)
    rules = ("whole", 0.1, 0.3, 0.5, 0.7, 0.9, None)

    def __init__(self, accepted=crop_accepted, trials: int = 50, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.accepted, self.trials = accepted, trials

    def candidates(self) -> Float[np.ndarray, "T 4"]:
        """Random windows, corners, fractions of the image."""
        scale = self.random_generator.uniform(0.3, 1.0, self.trials)
        ratio = self.random_generator.uniform(np.maximum(0.5, scale**2), np.minimum(2.0, scale**-2))
        size = np.stack([scale * np.sqrt(ratio), scale / np.sqrt(ratio)], axis=1)
        corner = self.random_generator.uniform(0, 1 - np.minimum(size, 1))
        return np.concatenate([corner, np.minimum(corner + size, 1)], axis=1).astype(np.float32)

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        height, width = params["shape"][:2]
        size = np.array([width, height] * 2, dtype=np.float32)
        boxes = torch.from_numpy(data["bboxes"][:, :4].astype(np.float32) * size)
        for rule in self.random_generator.permutation(np.array(self.rules, dtype=object)):
            if rule == "whole" or not len(boxes):
                break
            # Whole pixels first, so that what is accepted is what is cut out.
            windows = self.candidates() * size
            windows = np.concatenate([np.floor(windows[:, :2]), np.ceil(windows[:, 2:])], axis=1)
            accepted = self.accepted(boxes, torch.from_numpy(windows), rule)
            if accepted.any():
                window = windows[accepted.int().argmax()]
                kept = centres_inside(boxes, torch.from_numpy(window)[None])[0]
                return {"window": window.astype(int).tolist(), "kept": kept.numpy()}
        return {"window": [0, 0, width, height], "kept": np.ones(len(boxes), dtype=bool)}

    def apply(self, img: np.ndarray, window: list[int], **params) -> np.ndarray:
        xmin, ymin, xmax, ymax = window
        return np.ascontiguousarray(img[ymin:ymax, xmin:xmax])

    def apply_to_bboxes(self, bboxes: np.ndarray, window: list[int], kept: np.ndarray, **params) -> np.ndarray:
        height, width = params["shape"][:2]
        xmin, ymin, xmax, ymax = np.array(window) / np.array([width, height] * 2)
        moved = bboxes[kept]
        moved[:, :4] = (moved[:, :4] - (xmin, ymin, xmin, ymin)) / np.tile((xmax - xmin, ymax - ymin), 2)
        moved[:, :4] = moved[:, :4].clip(0, 1)
        return moved


def photometric() -> A.BaseCompose:
    """SSD's colour changes, each with an even chance; contrast comes before or after saturation and hue.

    Source: the original's `DistortImage`: brightness is added, up to 32 of 255; contrast and saturation are
    multiplied, by .5 to 1.5; hue turns by up to 18 of OpenCV's 180 steps.
    """
    brightness = A.RandomBrightnessContrast(32 / 255, 0, brightness_by_max=True, p=0.5)
    contrast = A.RandomBrightnessContrast(0, 0.5, p=0.5)
    saturation, hue = (
        A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=s, hue=h, p=0.5)
        for s, h in (((0.5, 1.5), (0, 0)), ((1, 1), (-0.1, 0.1)))
    )
    return A.Sequential(
        [
            brightness,
            A.OneOf([A.Sequential([contrast, saturation, hue]), A.Sequential([saturation, hue, contrast])], p=1),
        ]
    )


def training(size: int) -> Augment:
    """The original's pipeline: colours, zoom-out, crop, mirror, and one of five ways to resize.

    Before it a picture of a modern camera is shrunk; no VOC picture is that large. A crop keeps more than a
    fifth of a side, so five times the size is more than any sample shows.

    Source: Liu et al. 2016, sections 2.2 and 3.6, and the original's `ssd_pascal.py`.
    """
    resize = A.OneOf([A.Resize(size, size, interpolation=way) for way in INTERPOLATIONS], p=1)
    return Augment([Shrink(max(1000, 5 * size)), photometric(), ZoomOut(), IoUCrop(), resize, A.HorizontalFlip(p=0.5)])


def training_mini(size: int) -> Augment:
    """What a run of minutes has time for: colours, a mirror, and a zoom and shift at the small size.

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
        ],
        min_visibility=1 / 3,
    )


def training_photos(size: int) -> Augment:
    """For a few hundred photographs and a taught backbone: SSD's crop and, less often and less far, its zoom-out.

    The crop comes before the resizing, so that what it enlarges is as sharp as the photograph; colours come last,
    at the small size.
    """
    return Augment(
        [
            Shrink(5 * size),
            ZoomOut(max_ratio=2.0, p=0.3),
            IoUCrop(p=0.7),
            A.Resize(size, size, interpolation=cv2.INTER_LINEAR),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(
                brightness=(0.75, 1.25), contrast=(0.6, 1.5), saturation=(0.5, 1.5), hue=(-0.05, 0.05), p=0.5
            ),
        ]
    )
