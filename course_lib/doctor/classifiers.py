"""A classifier as the doctor's patient: it has no boxes, and most of what can be wrong with it is not about boxes.

To the doctor a picture with a class is an image with one object that fills it, and one prior answers for it.
`examine(patient(learner), only=CHECKS)` puts the questions that make sense then.
"""

from itertools import islice

import torch
from torch import Tensor

from course_lib.convergence import Learner
from course_lib.doctor.patient import Patient
from course_lib.voc import Batch

CHECKS = (
    "weights-are-sound",
    "parameters-learn",
    "activations",
    "scale-is-kept",
    "gradients-reach-all",
    "pixels-are-normalised-as-the-weights-expect",
    "optimizer-holds-all",
    "decay-spares-norms",
    "rates-teach",
    "schedule-teaches",
    "batch-norm-statistics",
    "batch-norm-has-batches",
    "overfits-one-batch",
    "gradients-and-clipping",
    "rate-stays",
    "update-to-weight",
    "learning-rate-range",
)
BATCHES = 4


def as_batch(images: Tensor, labels: Tensor) -> Batch:
    """Pictures and their classes, from 0, as images that show one object each."""
    count, side = len(images), images.shape[-1]
    whole = torch.tensor([0.0, 0, 1, 1]).expand(count, 1, 4)
    none = torch.zeros(count, 1, dtype=torch.bool)
    return Batch(images, whole, labels[:, None] + 1, none, [str(row) for row in range(count)], [(side, side)] * count)


def patient(learner: Learner) -> Patient:
    """A network that learns by a plan, as it is before its first step.

    Fresh weights are made for pixels of mean 0 and deviation 1, which are those of the pictures that it learns from.
    """

    def outputs(batch: Batch) -> tuple[Tensor, Tensor]:
        logits = learner.network((batch.images.float() - learner.mean) / learner.std)
        return logits.new_zeros(len(logits), 1, 4), logits[:, None]

    def losses(batch: Batch) -> dict[str, Tensor]:
        return {"conf": learner.loss(batch.images, batch.labels[:, 0] - 1)[0]}

    return Patient(
        classes=learner.pictures.classes,
        batches=[as_batch(*one) for one in islice(learner.batches(), BATCHES)],
        model=learner.network,
        outputs=outputs,
        losses=losses,
        optimizer=learner.optimizer,
        schedule=learner.schedule,
        steps=learner.plan.epochs * learner.steps_an_epoch,
        clip_norm=learner.plan.clip_norm,
        expects=tuple(values.tolist() for values in learner.pictures.colours()),
    )
