"""Exhibits in the data: boxes in other units and orders, labels, pixels, augmentation, and who is measured on what."""

from collections.abc import Callable
from dataclasses import replace

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from course_lib import augment, ssd
from course_lib.boxes import box_iou, to_cxcywh
from course_lib.doctor.setups import Changed, Exhibit, Setup, Then, in_memory
from course_lib.images import channels_first
from course_lib.voc import Batch, Target

# Of RGB channels from 0 to 1: what tutorials on CIFAR-10 and on ImageNet divide by.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_otherwise(setup: Setup, change: Callable[[int, np.ndarray, Target], tuple]) -> None:
    """Change what is read of both data sets: the same code reads them."""
    setup.data, setup.held_out = Changed(setup.data, change), Changed(setup.held_out, change)


def with_other_boxes(setup: Setup, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Change the boxes that are read.

    Args:
        change: from corners in fractions `[N, 4]` and the image's width, height, width, height to boxes.
    """

    def changed(index: int, image: np.ndarray, target: Target) -> tuple:
        size = torch.tensor(target.size * 2, dtype=torch.float32)
        return image, replace(target, boxes=change(target.boxes, size))

    read_otherwise(setup, changed)


def pixels_in_annotations(setup: Setup) -> None:
    """The boxes are read as the XML has them: nothing divides them by the image's size."""
    with_other_boxes(setup, lambda boxes, size: boxes * size)


def xywh_as_corners(setup: Setup) -> None:
    """Boxes are xmin, ymin, width, height, as COCO writes them, and are taken for corners."""
    with_other_boxes(setup, lambda boxes, size: torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1))


def centre_size_as_corners(setup: Setup) -> None:
    """Boxes are centre and size, as YOLO writes them, and are taken for corners."""
    with_other_boxes(setup, lambda boxes, size: to_cxcywh(boxes))


def x_and_y_exchanged(setup: Setup) -> None:
    """Boxes are ymin, xmin, ymax, xmax, and are taken for xmin, ymin, xmax, ymax."""
    with_other_boxes(setup, lambda boxes, size: boxes[:, [1, 0, 3, 2]])


def minima_first(setup: Setup) -> None:
    """Boxes are xmin, xmax, ymin, ymax, and are taken for xmin, ymin, xmax, ymax."""
    with_other_boxes(setup, lambda boxes, size: boxes[:, [0, 2, 1, 3]])


def width_for_height(setup: Setup) -> None:
    """Columns are divided by the height and rows by the width."""
    with_other_boxes(setup, lambda boxes, size: boxes * size / size.flip(0))


def one_less_once_more(setup: Setup) -> None:
    """VOC's XML counts from 1. These boxes count from 0, and 1 is taken off again."""
    with_other_boxes(setup, lambda boxes, size: boxes - 1 / size)


def no_area(setup: Setup) -> None:
    """The first object of every image is a click without a drag: its corners are one point."""

    def flattened(boxes: Tensor, size: Tensor) -> Tensor:
        boxes = boxes.clone()
        boxes[:1, 2:] = boxes[:1, :2]
        return boxes

    with_other_boxes(setup, flattened)


def dragged_to_the_left(setup: Setup) -> None:
    """Every second image was annotated from its lower right corners: minimum and maximum are exchanged."""

    def dragged(index: int, image: np.ndarray, target: Target) -> tuple:
        return image, replace(target, boxes=target.boxes[:, [2, 3, 0, 1]]) if index % 2 else target

    read_otherwise(setup, dragged)


def saved_twice(setup: Setup) -> None:
    """Every object is listed twice."""

    def doubled(index: int, image: np.ndarray, target: Target) -> tuple:
        fields = ("boxes", "labels", "difficult")
        return image, replace(target, **{name: torch.cat([getattr(target, name)] * 2) for name in fields})

    read_otherwise(setup, doubled)


def labels_from_zero(setup: Setup) -> None:
    """The first class has label 0, which is background's."""
    read_otherwise(setup, lambda index, image, target: (image, replace(target, labels=target.labels - 1)))


def other_order_of_names(setup: Setup) -> None:
    """The labels were given by another order of the same names: those of the classes sorted backwards."""
    count = len(setup.classes)
    read_otherwise(setup, lambda index, image, target: (image, replace(target, labels=count + 1 - target.labels)))


def blue_first(setup: Setup) -> None:
    """`cv2.imread` gives blue first, and nobody turns it round."""
    read_otherwise(setup, lambda index, image, target: (np.ascontiguousarray(image[..., ::-1]), target))


def fed_blue_first(setup: Setup) -> None:
    """The loop turns the channels round once more before the network sees them."""
    setup.images = lambda batch: batch.images.flip(1)


class Divided(ssd.SSD):
    """An SSD that normalises pixels from 0 to 255, and gets them from 0 to 1."""

    def normalise(self, images: Tensor) -> Tensor:
        return super().normalise(images / 255)


class Standardised(ssd.SSD):
    """An SSD that normalises pixels which its loader has normalised by ImageNet's mean and deviation."""

    def normalise(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return super().normalise((images / 255 - mean) / std)


def divided_by_255(setup: Setup) -> None:
    """The network takes pixels from 0 to 255, and gets them from 0 to 1."""
    setup.model.__class__ = Divided


def normalised_twice(setup: Setup) -> None:
    """The loader subtracts ImageNet's mean and divides by its deviation, and so does the network with its own."""
    setup.model.__class__ = Standardised


def normalised_with_other_units(setup: Setup) -> None:
    """CIFAR's mean and deviation of pixels from 0 to 1 stand in a network that gets them from 0 to 255."""
    setup.model.mean.copy_(torch.tensor(CIFAR_MEAN)[:, None, None])
    setup.model.std.copy_(torch.tensor(CIFAR_STD)[:, None, None])


def targets_of_others(setup: Setup) -> None:
    """Images and targets of a batch are put together in two orders."""
    collate = setup.collate

    def shifted(samples: list) -> Batch:
        images, targets = zip(*samples, strict=True)
        return collate(list(zip(images, (*targets[1:], targets[0]), strict=True)))

    setup.collate = shifted


def empty_image_crashes(setup: Setup) -> None:
    """Every eighth image has no object, and the code that reads targets takes columns of an empty list."""

    def emptied(index: int, image: np.ndarray, target: Target) -> tuple:
        kept = slice(0, 0 if index % 8 == 7 else None)
        fields = ("boxes", "labels", "difficult")
        return image, replace(target, **{name: getattr(target, name)[kept] for name in fields})

    def as_rows(image: Tensor, target: Target) -> tuple:
        rows = np.array(
            [[*box, label] for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True)]
        )
        return image, replace(target, boxes=torch.tensor(rows[:, :4]).float(), labels=torch.tensor(rows[:, 4]).long())

    setup.data, setup.transform = Changed(setup.data, emptied), Then(setup.transform, as_rows)


def image_mirrored_alone(setup: Setup) -> None:
    """Half of the images are mirrored; their boxes are not."""

    def mirrored(image: Tensor, target: Target) -> tuple:
        return (image.flip(-1) if image[:, 0].sum() % 2 else image), target  # a coin that the image itself tosses

    setup.transform = Then(setup.transform, mirrored)


def mirrored_inside_out(setup: Setup) -> None:
    """Half of the images are mirrored with their boxes, whose left edge is now on the right."""

    def mirrored(image: Tensor, target: Target) -> tuple:
        if image[:, 0].sum() % 2:
            x0, y0, x1, y1 = target.boxes.unbind(dim=1)
            image, target = image.flip(-1), replace(target, boxes=torch.stack([1 - x0, y0, 1 - x1, y1], dim=1))
        return image, target

    setup.transform = Then(setup.transform, mirrored)


class WithoutLabelFields:
    """An augmentation that is not told of the labels: where it drops a box, the labels after it move up by one."""

    def __init__(self, size: int) -> None:
        self.compose = A.Compose(
            [A.RandomCropFromBorders(0.3, 0.3, 0.3, 0.3, p=1), A.Resize(size, size), A.HorizontalFlip(p=0.5)],
            bbox_params=A.BboxParams(format="albumentations", min_visibility=0.5, clip=True),
        )

    def seed(self, seed: int) -> None:
        self.compose.set_random_seed(seed)

    def __call__(self, image: np.ndarray, target: Target) -> tuple:
        result = self.compose(image=image, bboxes=target.boxes.numpy())
        boxes = torch.tensor(np.asarray(result["bboxes"])).float().reshape(-1, 4)
        kept = slice(0, len(boxes))  # what `zip(boxes, labels)` makes of two lengths
        target = replace(target, boxes=boxes, labels=target.labels[kept], difficult=target.difficult[kept])
        return channels_first(result["image"]), target


def labels_left_behind(setup: Setup) -> None:
    """`BboxParams` has no `label_fields`: boxes are dropped, and their labels are not."""
    setup.transform = WithoutLabelFields(setup.model.image_size)


def crop_larger_than_the_image(setup: Setup) -> None:
    """A crop of 640 pixels is asked of images that have no 640."""
    size = setup.model.image_size
    setup.transform = augment.Augment([A.RandomCrop(640, 640), A.Resize(size, size)])


def crop_that_fits_all(setup: Setup) -> None:
    """SSD's crop asks that every object overlap the window enough, where one is enough."""

    def by_all(boxes: Tensor, windows: Tensor, min_iou: float | None) -> Tensor:
        if min_iou is None:
            return augment.crop_accepted(boxes, windows, None)
        return (box_iou(windows, boxes) >= min_iou).all(dim=1)

    size = setup.model.image_size
    setup.transform = augment.Augment([augment.IoUCrop(accepted=by_all), A.Resize(size, size), A.HorizontalFlip(p=0.5)])


class SeededAnew:
    """A transform that sets its seed in each call, to the same number."""

    def __init__(self, transform: Callable) -> None:
        self.transform = transform

    def __call__(self, image: np.ndarray, target: Target) -> tuple:
        self.transform.seed(0)
        return self.transform(image, target)


def same_augmentation(setup: Setup) -> None:
    """The seed is set for every sample, and always to 0."""
    setup.transform = SeededAnew(setup.transform)


class Samples:
    """A data set as a `DataLoader` takes it. The transform draws on, and nobody seeds it."""

    def __init__(self, data, transform: Callable) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple:
        return self.transform(*self.data[index])


def same_in_every_worker(setup: Setup) -> None:
    """Two workers begin with copies of one generator: image n of each is augmented alike, in every epoch."""
    setup.transform.seed(0)
    dataset = Samples(setup.data, setup.transform)
    setup.further["batches"] = DataLoader(
        dataset, setup.batch_size, collate_fn=setup.collate, num_workers=2, drop_last=True, generator=torch.Generator()
    )


def measured_on_training_images(setup: Setup) -> None:
    """The images to measure on are the first of those that it learns from."""
    setup.held_out = in_memory(setup.data, len(setup.held_out))


LOG = "a published training log (adrirubio/ml-rover, state 6e5d2f7)"

EXHIBITS = {
    "pixels-in-annotations": Exhibit(
        "Boxes in pixels where fractions are due",
        "albumentations #965: boxes of an image of 1280 pixels reach a library that wants fractions of another, and "
        "come out at 2.4 and 3.8. Where it is told to clip, as many tell it, no error remains: no box does either.",
        "Either an error about a range from 0 to 1, or a detector that finds nothing: every object is clipped away.",
        "Divide x by the image's width and y by its height where the annotation is read.",
        1,
        pixels_in_annotations,
    ),
    "xywh-as-corners": Exhibit(
        "xmin, ymin, width, height taken for corners",
        "COCO's JSON has width and height. mmdetection #3901: they were read as corners, and the box loss was NaN.",
        "Objects on the right and below are inside out and vanish; the others are drawn too small and shifted.",
        "xmax = xmin + width, ymax = ymin + height.",
        1,
        xywh_as_corners,
    ),
    "centre-size-as-corners": Exhibit(
        "Centre and size taken for corners",
        "YOLO's text files have centre and size. owl-vit-object-detection #14: boxes in that form went into a function "
        "of corners, in the loss.",
        "Small objects are inside out, large ones sit in the wrong place; the loss falls, and boxes never fit.",
        "boxes.to_corners, once, where the file is read.",
        6,
        centre_size_as_corners,
    ),
    "x-and-y-exchanged": Exhibit(
        "ymin, xmin, ymax, xmax taken for xmin, ymin, xmax, ymax",
        "TensorFlow writes y first. SSD-Tensorflow #33: the converter wrote y first under names that began with x; it "
        "was read with the same mistake, which hid it for as long as nobody else read the files.",
        "Boxes are mirrored along the diagonal: a square image with one object in its middle looks right.",
        "Read fields by their names, and draw ten images with their boxes.",
        1,
        x_and_y_exchanged,
    ),
    "minima-first": Exhibit(
        "xmin, xmax, ymin, ymax taken for corners",
        "ssd_keras #100: the CSV had the columns in this order, and the encoder met degenerate boxes.",
        "Most boxes are thin or inside out; matching drops them without a word.",
        "Order the columns by their names.",
        1,
        minima_first,
    ),
    "width-for-height": Exhibit(
        "Width and height of the image exchanged",
        "tensorflow/models #5474: x was divided by the height and y by the width, and some coordinates came to 1.15.",
        "In wide images x reaches beyond 1 and is clipped; in square ones nothing is wrong.",
        "image.shape is height, width: divide x by shape[1].",
        1,
        width_for_height,
    ),
    "one-less-once-more": Exhibit(
        "-1 on boxes that count from 0 already",
        "gluon-cv #1414 and #741: VOC's XML counts from 1, other tools write the same XML from 0, and the reader takes "
        "1 off all the same: xmin becomes -1. ssd.pytorch #59 and #216 ask which it should be.",
        "Boxes at the left and upper edge begin outside of the image; all the others are one pixel off.",
        "Take 1 off only where the annotations count from 1; chapter 1 writes down which do.",
        1,
        one_less_once_more,
    ),
    "no-area": Exhibit(
        "Boxes without an area",
        "ssd.pytorch #162, pytorch-ssd #112 and their pull requests: a box of no width is encoded as the logarithm of "
        "0, and the loss becomes infinite. Five such boxes in a data set were enough.",
        "Where matching forces a prior on every object, the loss is inf or NaN; where it does not, they are lost.",
        "Remove them: python -m course_lib check TREE names each.",
        1,
        no_area,
    ),
    "dragged-to-the-left": Exhibit(
        "xmin above xmax",
        "labelme #552 and a comment in tensorflow/models #8595: whoever drags from the lower right to the upper left "
        "writes the larger corner first. lufficc/SSD #95: xmin above xmax made the loss NaN.",
        "Half of the objects have no area as far as the code can tell, and are no objects.",
        "Sort the corners where the annotation is read.",
        1,
        dragged_to_the_left,
    ),
    "saved-twice": Exhibit(
        "Every object listed twice",
        "cocoapi #462 and RAPiD #34 report single ones in published data sets; two exports laid over each other do it "
        "to all.",
        "Each object wants two priors of its own; at evaluation, its twin is a miss: recall ends at one half.",
        "Keep one of two boxes that are equal and have one label.",
        1,
        saved_twice,
    ),
    "labels-from-zero": Exhibit(
        "Classes counted from 0, where 0 is background",
        "pytorch-ssd #122: the only class had label 0, so every object was background, and without a positive the loss "
        "was NaN. PytorchSSD #7: aeroplane and background were one.",
        "The first class is never found; all others are called by their neighbour's name.",
        "label = index of the class + 1.",
        1,
        labels_from_zero,
    ),
    "other-order-of-names": Exhibit(
        "The names in another order than the labels",
        "keras-yolo3 #82: one place sorted the names, another did not, and every class was called by another's name.",
        "Boxes are right and names are wrong; mAP is near 0 although pictures look good.",
        "Keep the names with the data and with the weights, in one order.",
        1,
        other_order_of_names,
    ),
    "blue-first": Exhibit(
        "Pictures read blue first",
        "ssd.pytorch #44 and RFBNet #51 ask which order the weights want; OpenCV's is blue, green, red.",
        "A pretrained trunk sees blue faces and orange skies; a few points of mAP go, and nothing says so.",
        "cv2.cvtColor(image, cv2.COLOR_BGR2RGB), or read with Pillow.",
        2,
        blue_first,
    ),
    "fed-blue-first": Exhibit(
        "Channels turned round before the network",
        "modern-yolonas #7: pictures were BGR at inference only, under a comment that said training was too; it cost "
        "3.4 points of mAP.",
        "As with pictures read blue first, but every picture that you draw looks right.",
        "Turn the channels in one place, for training and for use.",
        2,
        fed_blue_first,
    ),
    "divided-by-255": Exhibit(
        "Pixels from 0 to 1 for a network that wants 0 to 255",
        "jetson-inference #723: another normalisation at inference than in training. `ToTensor` divides by 255, and "
        "weights from Caffe were made for pixels that are not divided.",
        "Every picture is nearly the same dark grey to the network; the loss falls to what needs no picture.",
        "Give the network the pixels that it was made for, and normalise inside.",
        3,
        divided_by_255,
    ),
    "normalised-twice": Exhibit(
        "Normalised in the loader and in the network",
        "detecto #16 and AutoSAM #3: torchvision's detectors normalise inside, and the loader had done it already.",
        "The network sees one shade with a little noise; a frozen trunk cannot make up for it.",
        "Normalise in one place.",
        3,
        normalised_twice,
    ),
    "normalised-with-other-units": Exhibit(
        "CIFAR's mean and deviation, of pixels from 0 to 1, on pixels from 0 to 255",
        "A page on VGG that does not converge (sources of this course) copies CIFAR's numbers; where nothing divides "
        "by 255 first, a pixel arrives as up to 1,270.",
        "The first layers saturate; with batch norm frozen, activations are hundreds of times what they should be.",
        "Mean and deviation in the unit of the pixels: those of the data that taught the weights.",
        3,
        normalised_with_other_units,
    ),
    "targets-of-others": Exhibit(
        "Images with the targets of others",
        "MultimediaTechLab/YOLO #85: with shuffling on, the loader gave each image the targets of another.",
        "The loss falls to what can be learned without looking, and stays there.",
        "Shuffle pairs, never two lists.",
        1,
        targets_of_others,
    ),
    "empty-image-crashes": Exhibit(
        "An image without objects ends the training",
        "ssd.pytorch #224 and #430: too many indices for an array, after hours, at the first picture without objects.",
        "IndexError somewhere in an epoch, at another place each time.",
        "Reshape what is read to [-1, 5], or collate into padded slots as this course does.",
        1,
        empty_image_crashes,
    ),
    "image-mirrored-alone": Exhibit(
        "The image is mirrored, its boxes are not",
        "Scene-Graph-Benchmark.pytorch #92: one switch mirrored images, another was to mirror boxes, and was off.",
        "It learns, worse: half of the boxes are right, and all of those in the middle.",
        "One transform for both: chapter 2's marker test.",
        2,
        image_mirrored_alone,
    ),
    "mirrored-inside-out": Exhibit(
        "A mirrored box keeps its left edge as the left",
        "netspresso-trainer #196 and pocket #23: x becomes 1 - x, and minimum and maximum are not exchanged.",
        "Every mirrored object has no area and is lost: half of the data.",
        "xmin, xmax = 1 - xmax, 1 - xmin.",
        2,
        mirrored_inside_out,
    ),
    "labels-left-behind": Exhibit(
        "Labels that do not know that a box is gone",
        "A page in this course's sources passes labels and gives no label_fields; albumentations #1999 was the same "
        "from inside the library: boxes are dropped, labels are not, and the rest belongs to a neighbour.",
        "Only images in which an object was cropped away have wrong names: mAP is a little low.",
        'BboxParams(..., label_fields=["labels"]).',
        2,
        labels_left_behind,
    ),
    "crop-larger-than-the-image": Exhibit(
        "A crop of 640 pixels from smaller images",
        "A page in this course's sources: A.RandomCrop(width=640, height=640, p=1.0), on data of any size.",
        "An error at the first image that is smaller; where the library pads, black borders.",
        "Resize first, or crop by fractions.",
        2,
        crop_larger_than_the_image,
    ),
    "crop-that-fits-all": Exhibit(
        "SSD's crop by all objects, where any is meant",
        "Chapter 2: the paper can be read so, the original's code returns at the first that fits (caffe #858, RFBNet "
        "#134; ssd.pytorch #68 is its opposite).",
        "Pictures with many objects are hardly ever cropped; nothing says so.",
        ".any(dim=1) in place of .all(dim=1).",
        2,
        crop_that_fits_all,
    ),
    "same-augmentation": Exhibit(
        "The seed is set for every sample",
        "pytorch-3dunet #32: transforms that were made with a fixed seed gave one angle and one brightness to all.",
        "All images are mirrored, or none; the training set is learned by heart sooner.",
        "Seed once, or with a number that depends on epoch and image.",
        2,
        same_augmentation,
    ),
    "same-in-every-worker": Exhibit(
        "Every worker draws the same numbers",
        "pytorch #5059 and CenterNet #233: workers are copies, and so are their generators.",
        "As many images as there are workers are augmented alike, and every epoch repeats the one before.",
        "Seed by epoch and image, or in worker_init_fn.",
        2,
        same_in_every_worker,
    ),
    "measured-on-training-images": Exhibit(
        "Measured on images that it learns from",
        f"{LOG}: validation, early stopping and the choice of the best were on images of the training list; detecto "
        "#37 computed the validation loss on the training set.",
        "Validation is as good as training until the detector meets new pictures.",
        "python -m course_lib split keeps copies of one picture on one side.",
        11,
        measured_on_training_images,
    ),
}
