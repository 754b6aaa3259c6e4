"""Healthy controls: trainings that differ legitimately from the museum's; the doctor is to find nothing in them."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_lib import augment, backbones, losses, schedules, ssd, training, voc, weights
from course_lib.doctor.patient import Patient
from course_lib.doctor.setups import RECIPE, STEPS, Changed, InMemory, Setup, fresh, healthy, in_memory
from course_lib.recipes import PHOTOS

Control = Callable[[Any, Any, ssd.SSD], Setup]  # from data, held-out data and a trained `ssd_mini`


def with_recipe(setup: Setup, **changes) -> Setup:
    """The same set-up with an optimizer of other numbers."""
    setup.recipe = replace(setup.recipe, **changes)
    setup.optimizer = partial(training.make_optimizer, recipe=setup.recipe)
    return setup


def with_loss(setup: Setup, loss: losses.Loss) -> Setup:
    """The same set-up with another loss, for which the heads are prepared."""
    loss.prepare(setup.model)
    setup.loss, setup.model.scoring = loss, loss.scoring
    return setup


def with_transform(setup: Setup, transform: Callable) -> Setup:
    setup.transform = transform
    return setup


def with_batches(setup: Setup, size: int) -> Setup:
    setup.batch_size = size
    return setup


def focal(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Focal loss, and heads that expect background: a first loss of a few units."""
    return with_loss(healthy(data, held_out, trunk), losses.FocalLoss())


def softmax_focal(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Focal loss on a softmax."""
    return with_loss(healthy(data, held_out, trunk), losses.SoftmaxFocalLoss())


def weighted_classes(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Class weights in the cross entropy: 1 for background, around 1 for the others."""
    setup = healthy(data, held_out, trunk)
    class_weights = torch.cat([torch.ones(1), torch.linspace(0.5, 1.5, len(setup.classes))])
    setup.loss = losses.MultiBoxLoss(class_weights=class_weights)
    return setup


def sgd(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """SGD with momentum, biases at twice the rate, as the original."""
    return with_recipe(healthy(data, held_out, trunk), optimizer="sgd", learning_rate=5e-3, bias_factor=2.0)


def larger(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """`ssd_mini` at 160 pixels."""
    setup = healthy(data, held_out, trunk)
    setup.adopt(fresh(ssd.ssd_mini, setup.classes))
    return setup


def of_width(data: Any, held_out: Any, width: float) -> Setup:
    """Another width, which no trained trunk fits: it starts from random weights."""
    setup = healthy(data, held_out)
    backbone = partial(backbones.VGG, **ssd.thin_vgg.keywords | {"width": width})
    setup.adopt(fresh(replace(ssd.ssd_nano, backbone=backbone), setup.classes))
    return setup


def without_batch_norm(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """No batch norm anywhere, from random weights, at a lower rate."""
    setup = healthy(data, held_out)
    backbone = partial(backbones.VGG, **ssd.thin_vgg.keywords | {"batch_norm": False})
    setup.adopt(fresh(replace(ssd.ssd_nano, backbone=backbone, batch_norm=False), setup.classes))
    return with_recipe(setup, learning_rate=1e-3, backbone_factor=1.0)


def other_seed(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Other random heads, and the images in another order."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(7)).tolist()
    return healthy(InMemory(tuple(data[i] for i in order), tuple(data.classes)), held_out, trunk, seed=7)


def random_start(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """A random trunk, of which nothing is frozen."""
    return with_recipe(healthy(data, held_out), backbone_factor=1.0)


def nothing_frozen(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """A pretrained trunk that learns from its first layer on."""
    setup = healthy(data, held_out, trunk)
    setup.model.requires_grad_(True).backbone.freeze(0)
    setup.frozen = ()
    return setup


def with_classes(data: Any, held_out: Any, trunk: ssd.SSD, names: tuple[str, ...]) -> Setup:
    """The same pictures with fewer classes: those of EmojiVOC are dealt out to the names in turn."""

    def dealt(index: int, image: np.ndarray, target: voc.Target) -> tuple:
        return image, replace(target, labels=(target.labels - 1) % len(names) + 1)

    return healthy(Changed(data, dealt, names), Changed(held_out, dealt, names), trunk)


def grey(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Pictures without colour."""

    def without_colour(index: int, image: np.ndarray, target: voc.Target) -> tuple:
        brightness = (image @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
        return np.repeat(brightness[..., None], 3, axis=-1), target

    return healthy(Changed(data, without_colour), Changed(held_out, without_colour), trunk)


def no_augmentation(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Images are stretched to the network's size, and nothing else."""
    setup = healthy(data, held_out, trunk)
    return with_transform(setup, augment.evaluation(setup.model.image_size))


def original_augmentation(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """The original's pipeline, with its crop and zoom-out."""
    setup = healthy(data, held_out, trunk)
    return with_transform(setup, augment.training(setup.model.image_size))


def no_schedule(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """The rate stays; it is lower."""
    setup = with_recipe(healthy(data, held_out, trunk), learning_rate=1e-3)
    setup.schedule = None
    return setup


def step_drops(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """The original's schedule: the rate drops at two thirds and five sixths."""
    setup = healthy(data, held_out, trunk)
    setup.schedule = partial(schedules.step_drops, warmup_steps=RECIPE.warmup_steps, total_steps=STEPS)
    return setup


def batches_of_4(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Batches of 4 images, at a lower rate."""
    return with_batches(with_recipe(healthy(data, held_out, trunk), learning_rate=2e-3), 4)


def batches_of_32(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Batches of 32 images, or of all where there are fewer."""
    return with_batches(healthy(data, held_out, trunk), min(32, len(data)))


def as_uneven_as_voc(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Many objects of one class and hardly any of three others, as of VOC's persons and tables.

    The first eight classes are one; of the last three only a few images are taken. No image is changed.
    """
    names = ("one of many", *data.classes[8:])
    most, counts, chosen = dict.fromkeys(range(len(names) - 2, len(names) + 1), 3), Counter(), []

    def joined(index: int, image: np.ndarray, target: voc.Target) -> tuple:
        return image, replace(target, labels=(target.labels - 7).clamp(min=1))

    for image, target in Changed(data, joined):
        own = Counter(target.labels.tolist())
        if all(counts[label] + own[label] <= count for label, count in most.items()):
            counts += own
            chosen.append((image, target))
    return healthy(InMemory(tuple(chosen), names), Changed(held_out, joined, names), trunk)


def some_without_objects(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """Every eighth picture shows nothing that is looked for."""

    def emptied(index: int, image: np.ndarray, target: voc.Target) -> tuple:
        if index % 8 != 3:
            return image, target
        noise = np.random.default_rng(index).integers(90, 160, image.shape, dtype=np.uint8)
        fields = ("boxes", "labels", "difficult")
        return noise, replace(target, **{name: getattr(target, name)[:0] for name in fields})

    return healthy(Changed(data, emptied), held_out, trunk)


def going_on(data: Any, held_out: Any, trunk: ssd.SSD) -> Setup:
    """The trained detector learns on, at a tenth of the rate."""
    setup = healthy(data, held_out, trunk)
    setup.adopt(copy.deepcopy(trunk))
    setup.pretrained = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    return with_recipe(setup, learning_rate=5e-4)


CONTROLS: dict[str, Control] = {
    "as-it-is": healthy,
    "focal": focal,
    "softmax-focal": softmax_focal,
    "weighted-classes": weighted_classes,
    "sgd": sgd,
    "larger": larger,
    "wider": lambda data, held_out, trunk: of_width(data, held_out, 0.375),
    "thinner": lambda data, held_out, trunk: of_width(data, held_out, 0.125),
    "without-batch-norm": without_batch_norm,
    "other-seed": other_seed,
    "random-start": random_start,
    "nothing-frozen": nothing_frozen,
    "one-class": lambda data, held_out, trunk: with_classes(data, held_out, trunk, ("emoji",)),
    "own-classes": lambda data, held_out, trunk: with_classes(data, held_out, trunk, ("screw", "nut", "bolt M4")),
    "grey": grey,
    "no-augmentation": no_augmentation,
    "original-augmentation": original_augmentation,
    "no-schedule": no_schedule,
    "step-drops": step_drops,
    "batches-of-4": batches_of_4,
    "batches-of-32": batches_of_32,
    "as-uneven-as-voc": as_uneven_as_voc,
    "some-without-objects": some_without_objects,
    "going-on": going_on,
}


def annotations_of(tree: Path, name: str = "trainval") -> Patient:
    """The annotations of a list of a tree, and nothing else: no image is read."""
    data = voc.ImageDataset([voc.ImageSet(tree, name)])
    return Patient(data=data, classes=data.classes)


def pictures_of(tree: Path, trunk: ssd.SSD, train: str = "trainval", test: str = "test", images: int = 96) -> Setup:
    """Real pictures of a tree in VOC's format, for `ssd_nano` with a trunk that has learned emoji."""
    data, held_out = (in_memory(voc.ImageDataset([voc.ImageSet(tree, name)]), images) for name in (train, test))
    return healthy(data, held_out, trunk)


def photographs(tree: Path, train: str = "train", test: str = "val", images: int = 96) -> Setup:
    """Photographs for `ssd_lite0`, its trunk from ImageNet where the package is, as the profile `photos` trains."""
    data, held_out = (in_memory(voc.ImageDataset([voc.ImageSet(tree, name)]), images) for name in (train, test))
    setup = healthy(data, held_out)
    model, known, frozen = fresh(ssd.ssd_lite0, setup.classes), None, ()
    if weights.lite0_file().exists():
        weights.load_backbone(model, weights.read_pth(weights.lite0_file()))
        taught = weights.LITE0.names(model.backbone)
        known = {
            f"backbone.{name}": tensor.clone() for name, tensor in model.backbone.state_dict().items() if name in taught
        }
        model.backbone.freeze(PHOTOS.frozen_blocks, PHOTOS.frozen_statistics)
        frozen = tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    return replace(
        setup,
        model=model.train(),
        priors=model.priors,
        transform=augment.training_photos(model.image_size),
        pretrained=known,
        frozen=frozen,
        match=partial(setup.match.func, iou_threshold=PHOTOS.match_iou),
        optimizer=partial(training.make_optimizer, recipe=PHOTOS),
    )


# Controls whose data may be absent: each takes the folder of a tree, and `pictures_of` a trained `ssd_mini` too.
ON_REAL_DATA: dict[str, Callable] = {
    "annotations": annotations_of,
    "pictures": pictures_of,
    "photographs": photographs,
}
