"""Exhibits at detection: a network that has learned, and is read wrongly."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib import detect
from course_lib.boxes import decode
from course_lib.detect import Detections
from course_lib.doctor.patient import Patient, evaluating
from course_lib.doctor.setups import Exhibit, Setup
from course_lib.nms import nms
from course_lib.ssd import SCORINGS

CUTS = (0.01, 0.45, 400, 200)  # score, overlap, candidates of a class, detections of an image: `detect.detect`'s


def in_evaluation_mode(patient: Patient, batch) -> tuple[Tensor, Tensor]:
    """Offsets and logits of a batch; the model is left in the mode it was in."""
    with evaluating(patient.model), torch.no_grad():
        return patient.outputs(batch)


def detecting(
    decoded: Callable[[Tensor, Tensor], Tensor] = decode,
    outputs: Callable[[Patient, object], tuple[Tensor, Tensor]] = in_evaluation_mode,
    cuts: tuple[float, float, int, int] = CUTS,
) -> Callable[[Patient], Callable]:
    """A patient's `detect` that differs from the usual one in a part.

    Args:
        decoded: from offsets `[B, P, 4]` and priors to corners.
        outputs: from patient and batch to offsets and logits.
        cuts: see `CUTS`.
    """

    def made(patient: Patient) -> Callable:
        def find(batch) -> list[Detections]:
            offsets, logits = outputs(patient, batch)
            boxes, scores = decoded(offsets, patient.priors).clamp(0, 1), SCORINGS[patient.model.scoring](logits)
            return [detect.detect_one(*one, *cuts) for one in zip(boxes, scores, strict=True)]

        return find

    return made


def changing(change: Callable[[Detections], Detections]) -> Callable[[Patient], Callable]:
    """A patient's `detect` whose detections are changed at the end."""
    return lambda patient: lambda batch: [change(one) for one in patient.usual_detections(batch)]


def decoded_without_variances(setup: Setup) -> None:
    """Training divides by the variances; detection does not multiply by them."""
    setup.made_last["detect"] = detecting(lambda offsets, priors: decode(offsets, priors, (1.0, 1.0)))


def read_by_another_rule(setup: Setup) -> None:
    """Trained by a softmax, read by a sigmoid."""
    setup.model.scoring = "sigmoid"


def one_suppression_for_all(setup: Setup) -> None:
    """Boxes of all classes suppress each other."""

    def suppressed(found: Detections) -> Detections:
        kept = nms(found.boxes, found.scores, CUTS[1])
        return Detections(*(values[kept] for values in found))

    setup.made_last["detect"] = changing(suppressed)


def no_suppression(setup: Setup) -> None:
    """Nothing is suppressed: every prior that sees an object reports it."""
    setup.made_last["detect"] = detecting(cuts=(CUTS[0], 1.0, *CUTS[2:]))


def in_training_mode(setup: Setup) -> None:
    """The network is in training mode: batch norm takes its statistics from the pictures at hand."""

    def as_it_is(patient: Patient, batch) -> tuple[Tensor, Tensor]:
        patient.model.train()
        with torch.no_grad():
            return patient.outputs(batch)

    setup.made_last["detect"] = detecting(outputs=as_it_is)


def other_pixels(setup: Setup) -> None:
    """Detection divides the pixels by 255, which training does not."""

    def divided(patient: Patient, batch) -> tuple[Tensor, Tensor]:
        model, mean, std = patient.model, patient.model.mean, patient.model.std
        model.mean, model.std = 255 * mean, 255 * std  # (x / 255 - m) / s is (x - 255 m) / 255 s
        try:
            return in_evaluation_mode(patient, batch)
        finally:
            model.mean, model.std = mean, std

    setup.made_last["detect"] = detecting(outputs=divided)


def a_column_off(setup: Setup) -> None:
    """Background is forgotten when the names are looked up: column 1 is called class 0."""
    setup.made_last["detect"] = changing(lambda found: found._replace(labels=found.labels - 1))


def found_in_pixels(setup: Setup) -> None:
    """Detections are in pixels of the network's input; the ground truth is in fractions."""
    size = setup.model.image_size
    setup.made_last["detect"] = changing(lambda found: found._replace(boxes=found.boxes * size))


EXHIBITS = {
    "decoded-without-variances": Exhibit(
        "Decoded without the variances that it was encoded with",
        "ssd_keras #170 has a good loss and mAP 0, as ssd.pytorch #16 and others; a decoder that does not know of the "
        "encoder's variances does just that, and mobilenet_v2_ssdlite_keras #4 asks about its decoder.",
        "The loss is good, every box is far too far from its prior, and mAP is 0.",
        "One function for both directions, and a test that decode(encode(x)) is x.",
        10,
        decoded_without_variances,
    ),
    "read-by-another-rule": Exhibit(
        "Trained by a softmax, read by a sigmoid",
        "mmdetection #1145: the loss keeps decreasing and the AP is 0. Chapter 8 tries five readings.",
        "Thousands of sure detections of everything.",
        "The weights say how they are to be read: model.scoring.",
        8,
        read_by_another_rule,
    ),
    "one-suppression-for-all": Exhibit(
        "One suppression for all classes",
        "Yet-Another-EfficientDet-Pytorch #270: a motorcycle was gone because of its rider; dash-detr #1 lost "
        "objects in the same way.",
        "Recall is lost where objects of two classes overlap.",
        "nms.batched_nms.",
        10,
        one_suppression_for_all,
    ),
    "no-suppression": Exhibit(
        "No suppression at all",
        "GLIP #93: one object, several boxes; suppression was not run over what several passes had found.",
        "Ten boxes on each object, nine of which count as false.",
        "nms.batched_nms on boxes and scores of one class each.",
        10,
        no_suppression,
    ),
    "detects-in-training-mode": Exhibit(
        "Detects in training mode",
        "pytorch #5406 and VideoPose3D #113: batch norm normalises by the batch in training and by what it has seen in "
        "evaluation; MultiBench #26 measured in training mode.",
        "What is found in a picture depends on the pictures beside it; measuring changes the network.",
        "model.eval() before, model.train() after.",
        10,
        in_training_mode,
    ),
    "other-pixels-at-detection": Exhibit(
        "Other pixels at detection than in training",
        "jetson-inference #723: the program that detects normalised otherwise than the one that trained.",
        "Validation in the training loop is good, the finished program finds nothing.",
        "Normalise inside the model.",
        10,
        other_pixels,
    ),
    "a-column-off": Exhibit(
        "Names looked up a column off",
        "Chapter 8: a network without background has its first class in column 0; sagemaker-tensorflow #6 has a label "
        "map that adds 1 and a reader that does not.",
        "Right boxes, each with its neighbour's name; the first class is called background and left out.",
        "Labels are the index of the class + 1, in detections too.",
        10,
        a_column_off,
    ),
    "found-in-pixels": Exhibit(
        "Detections in pixels, ground truth in fractions",
        "ssd_keras #93 is one of many threads on boxes in the wrong place: predictions come out in the input's pixels "
        "there, and whoever measures has to bring them back.",
        "mAP is 0, and the pictures look right, because they are drawn at the network's size.",
        "One unit for both: detections are fractions here.",
        10,
        found_in_pixels,
    ),
}
