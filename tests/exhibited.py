"""What the tests of the museum share: a small healthy set-up, and one with a fault in it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib import profiles, ssd, voc, weights
from course_lib.boxes import box_iou
from course_lib.doctor import museum
from course_lib.doctor.patient import Patient
from course_lib.matching import Matches
from course_lib.voc import Batch, Target

BATCH = 8


class Ingredients(NamedTuple):
    data: Sequence
    held_out: Sequence
    trunk: ssd.SSD


def ingredients_of(devkit) -> Ingredients:
    data, held_out = (voc.ImageDataset(voc.image_sets(devkit, "2007", name)) for name in ("train", "test"))
    return Ingredients(museum.in_memory(data, 2 * BATCH), museum.in_memory(held_out, 4), weights.load(profiles.RECORD))


def healthy(ingredients: Ingredients) -> museum.Setup:
    setup = museum.healthy(*ingredients)
    setup.batch_size = BATCH
    return setup


def ill(ingredients: Ingredients, name: str) -> museum.Setup:
    setup = healthy(ingredients)
    museum.EXHIBITS[name].plant(setup)
    return setup


def check_symptom(symptoms: dict, name: str, ingredients: Ingredients) -> None:
    """A symptom is a function of a healthy patient and an ill one, which asserts what tells them apart."""
    symptoms[name](healthy(ingredients).patient(), ill(ingredients, name).patient())


def first(patient: Patient) -> Batch:
    return patient.first_batches(1)[0]


def boxes_of(patient: Patient) -> Tensor:
    return torch.cat([target.boxes for target in patient.targets()])


def labels_of(patient: Patient) -> Tensor:
    return torch.cat([target.labels for target in patient.targets()])


def empty(boxes: Tensor) -> Tensor:
    """Which boxes have no area, or are inside out."""
    return (boxes[..., 2:] <= boxes[..., :2]).any(dim=-1)


def loss_of(patient: Patient) -> dict[str, float]:
    with torch.no_grad():
        return {name: part.item() for name, part in patient.losses(first(patient)).items()}


def reaching(patient: Patient, layer: torch.nn.Module, call) -> Tensor:
    """What comes into a layer while `call` is called with the patient's first batch."""
    came: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: came.append(inputs[0].detach().clone()))
    with torch.no_grad():
        call(first(patient))
    hook.remove()
    return came[0]


def crowd() -> tuple[Tensor, Tensor]:
    """Boxes and labels of two objects that overlap, and that several priors overlap."""
    return torch.tensor([[[0.40, 0.40, 0.52, 0.52], [0.41, 0.41, 0.53, 0.53]]]), torch.tensor([[1, 2]])


def twins() -> tuple[Tensor, Tensor]:
    """Boxes and labels of two small objects in one place: both want one prior, and none overlaps them enough."""
    return torch.tensor([[[0.42, 0.42, 0.50, 0.50]] * 2]), torch.tensor([[1, 2]])


def perfect(patient: Patient, boxes: Tensor, labels: Tensor) -> None:
    """Let the patient's network say what matching wants it to say of these objects, in every batch."""
    matches = patient.match(boxes, labels, patient.priors)
    logits = 20.0 * F.one_hot(matches.labels, len(patient.classes) + 1)
    patient.outputs = lambda batch: (matches.offsets, logits)


def recall(patient: Patient) -> float:
    """The share of objects that are found where the network says what it should."""
    batch = first(patient)
    perfect(patient, batch.boxes, batch.labels)
    found = []
    for detections, boxes, labels in zip(patient.detect(batch), batch.boxes, batch.labels, strict=True):
        for box, label in zip(boxes[labels > 0], labels[labels > 0], strict=True):
            of_class = detections.boxes[detections.labels == label]
            found.append(bool((box_iou(box[None], of_class) >= 0.5).any()))
    return sum(found) / len(found)


def matched(*labels: int) -> Matches:
    """Matches of one image with these labels, whose boxes are those of the priors."""
    return Matches(torch.tensor([labels]), torch.zeros(1, len(labels), 4), torch.tensor([labels]) - 1)


def target_of(boxes: list, labels: list) -> Target:
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return Target(boxes, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.bool), "a", (100, 100))
