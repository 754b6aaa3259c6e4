from dataclasses import replace

import pytest
import strangers
import torch
from doctor.planted import SIDE, batches, findings

from course_lib import augment, voc
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient

NAMES = ("objects-do-not-pile-up", "objects-are-of-their-own-batch")
FIELDS = ("boxes", "labels", "difficult")


def joined(targets, **changes):
    """The objects of several targets as those of the last."""
    together = {name: torch.cat([getattr(one, name) for one in targets]) for name in FIELDS}
    return replace(targets[-1], **together | changes)


def padded_without_reset():
    """A buffer of boxes and labels, of which each batch fills as many slots as it has objects."""
    boxes, labels = torch.zeros(8, 40, 4), torch.zeros(8, 40, dtype=torch.int64)

    def collate(samples):
        for row, (_, target) in enumerate(samples):
            boxes[row, : len(target.labels)], labels[row, : len(target.labels)] = target.boxes, target.labels
        kept = boxes.clone(), labels.clone(), torch.zeros_like(labels, dtype=torch.bool)
        return voc.collate(samples)._replace(**dict(zip(FIELDS, kept, strict=True)))

    return collate


def rows_without_clear():
    """A list for each place in a batch, which grows by the objects of every batch."""
    rows = [[] for _ in range(8)]

    def collate(samples):
        for row, (_, target) in zip(rows, samples, strict=True):
            row.append(target)
        return voc.collate([(image, joined(row)) for (image, _), row in zip(samples, rows, strict=True)])

    return collate


@pytest.mark.parametrize("collate", [padded_without_reset, rows_without_clear])
@pytest.mark.parametrize("transform", [augment.training_mini, augment.evaluation])
def test_objects_of_batches_before_are_named(learned, collate, transform):
    loop = setups.Batches(learned, transform(SIDE), collate(), 8)
    ((check, seen),) = findings(Patient(data=learned, batches=loop), *NAMES)
    assert check == "objects-are-of-their-own-batch" and "another image in an earlier batch" in seen


class DefaultList:
    """A reader whose lists are default arguments: each image has the objects of all that were read before, in its own
    fractions; or the batches of one."""

    def __init__(self, data):
        self.data, self.classes, self.read = data, data.classes, []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, target = self.data[index]
        self.read.append(replace(target, boxes=target.boxes_px))
        every = joined(self.read)
        return image, replace(every, boxes=(every.boxes / torch.tensor([*target.size] * 2)).clamp(0, 1))


def test_objects_that_pile_up_in_the_reader_are_named(learned):
    ((check, seen),) = findings(Patient(data=DefaultList(learned)), *NAMES)
    assert check == "objects-do-not-pile-up" and "have all objects of the image before them" in seen
    loop = setups.Batches(DefaultList(learned), augment.evaluation(SIDE), voc.collate, 8)
    ((check, seen),) = findings(Patient(batches=loop), *NAMES)
    assert check == "objects-are-of-their-own-batch" and "have all objects of the image before them" in seen


@pytest.mark.parametrize("kind", strangers.FAULTS)
def test_a_strangers_list_that_is_a_default_argument_is_named(learned, kind):
    def collate(images, targets, kept=[]):  # noqa: B006  the fault
        kept += targets
        return usual(images, kept[-16 : len(kept) - 8] if len(kept) > 8 else kept)  # those of the batch before

    def growing(images, targets, kept={}):  # noqa: B006  the fault
        for row, target in enumerate(targets):
            kept.setdefault(row, []).append(target)
        return usual(images, [together(kept[row]) for row in range(len(images))])

    def together(some):
        return {n: torch.cat([t[n] for t in some]) for n in some[0]} if kind == "torchvision" else torch.cat(some)

    for change in (collate, growing):
        stranger = getattr(strangers, f"of_{kind}")(learned, 21)
        assert findings(stranger.patient(), *NAMES) == []
        usual, stranger.collate = stranger.collate, change
        ((_, seen),) = findings(stranger.patient(), *NAMES)
        assert "another image in an earlier batch" in seen


def mixed():
    """Half of each picture, and all its objects, are those of the batch before, on purpose."""
    last = []

    def change(batch):
        last.append(batch)
        if len(last) < 2:
            return batch
        images = ((batch.images.float() + last[-2].images.float()) / 2).byte()
        parts = {n: torch.cat([getattr(batch, n), getattr(last[-2], n)], dim=1) for n in FIELDS}
        return batch._replace(images=images, **parts)

    return change


def test_mixes_repetitions_grids_and_cameras_that_stand_still_are_left_in_peace(learned):
    boxes = torch.tensor([[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.9, 0.8], [0.2, 0.6, 0.4, 0.9]])
    grid = tuple(
        (image, replace(t, boxes=boxes[[k % 3]], labels=t.labels[:1] * 0 + 1, difficult=t.difficult[:1]))
        for k, (image, t) in enumerate(learned.samples)
    )
    still = tuple((learned.samples[0][0], learned.samples[k % 2][1]) for k in range(40))
    ordered = sorted(learned.samples, key=lambda sample: len(sample[1].labels))
    every = list(batches(learned))
    loops = [every, [every[0]] * 4, batches(learned, mixed())]
    for samples in (grid, still, ordered):
        data = setups.InMemory(tuple(samples), learned.classes)
        assert findings(Patient(data=data), *NAMES) == []
        loops.append(setups.Batches(data, augment.evaluation(SIDE), voc.collate, 8))
    for loop in loops:
        assert findings(Patient(batches=loop), *NAMES) == []
