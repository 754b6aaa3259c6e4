from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from doctor.planted import OF_BATCHES, Seeded, batches, findings, in_rows

from course_lib import augment, voc
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient

TORN = {
    "all of them are +1": (in_rows(lambda n: n + 1), "labels-are-those-of-the-data"),
    "the images of a batch belong to other targets": (
        lambda b: b._replace(images=b.images.roll(1, 0)),
        "images-are-those-of-their-targets",
    ),
    "red and blue are exchanged": (lambda b: b._replace(images=b.images.flip(1)), "colours-are-those-of-the-data"),
}


@pytest.mark.parametrize("named", TORN)
def test_what_a_loop_does_to_its_batches_is_named(learned, named):
    change, check = TORN[named]
    found = findings(Patient(data=learned, batches=batches(learned, change)), *OF_BATCHES)
    assert any(one == check and named in seen for one, seen in found)


def test_samples_that_are_augmented_alike_are_told(learned):
    plain = voc.Target(torch.tensor([[0.3, 0.4, 0.6, 0.7]]), torch.tensor([1]), torch.tensor([False]), "", (500, 375))
    pictures = tuple((image, replace(plain, image_id=str(k))) for k, (image, _) in enumerate(learned.samples))
    data = setups.InMemory(pictures, learned.classes)
    for every, named in ((1, "in the same way"), (8, "augmented alike, sample by sample"), (1000, None)):
        loop = setups.Batches(data, Seeded(every), voc.collate, 8)
        found = findings(Patient(data=data, batches=loop), "augmentation-differs")
        assert [named in seen for _, seen in found] == ([True] if named else [])


class Shuffled:
    """Each pass in another order, every image augmented by a seed of its own that never changes."""

    def __init__(self, data: setups.InMemory) -> None:
        self.batches, self.passes = batches(data), 0

    def __iter__(self):
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(len(self.batches.data)).tolist()
        for start in range(0, len(order), 8):
            yield voc.collate([self.batches.sample(index) for index in order[start : start + 8]])


def test_a_shuffled_image_that_is_always_augmented_alike_is_told_and_an_orderly_one_noted(learned):
    name = "every-pass-differs"
    few = setups.InMemory(learned.samples[:24], learned.classes)
    assert "augmented exactly" in findings(Patient(data=few, batches=Shuffled(few)), name)[0][1]
    orderly = Patient(data=few, batches=batches(few))
    assert findings(orderly, name) == [] and "augmented exactly" in findings(orderly, name, severity=("note",))[0][1]


def shared(part, ring=1):
    """A loop that hands out one buffer again and again, or a few in turn."""
    buffers, made = {}, count()

    def collate(samples):
        batch = voc.collate(samples)
        tensor = getattr(batch, part)
        if part == "boxes":
            tensor = torch.nn.functional.pad(tensor, (0, 0, 0, 40 - tensor.shape[1]))
        buffer = buffers.setdefault(next(made) % ring, torch.empty_like(tensor))
        buffer.copy_(tensor)
        labels = torch.nn.functional.pad(batch.labels, (0, 40 - batch.labels.shape[1]))
        return batch._replace(**{part: buffer} | ({"labels": labels} if part == "boxes" else {}))

    return collate


@pytest.mark.parametrize("part", ["images", "boxes"])
def test_batches_that_share_a_buffer_are_named(learned, part):
    loop = setups.Batches(learned, augment.training_mini(96), shared(part), 8)
    found = findings(Patient(data=learned, batches=loop), "batches-stay-as-they-are")
    assert len(found) == 1 and f"the {part} of a batch are others" in found[0][1]


def test_a_buffer_is_found_in_any_form_of_batch(learned):
    class Loop:
        def __iter__(self):
            buffer = np.empty((8, 3, 96, 96), np.uint8)
            for batch in batches(learned):
                buffer[:] = batch.images.numpy()
                yield {"images": [buffer], "targets": batch}

    patient = Patient(
        batches=Loop(), read=lambda b: b["targets"]._replace(images=torch.as_tensor(b["images"][0].copy()))
    )
    assert len(findings(patient, "batches-stay-as-they-are")) == 1


def test_batches_of_their_own_memory_are_left_in_peace(learned):
    """New tensors, parts of one tensor, the same batch again and again, and a table that never changes."""
    every = list(batches(learned))
    images = torch.cat([batch.images for batch in every])
    parts = [b._replace(images=images[8 * k : 8 * k + 8]) for k, b in enumerate(every)]
    table = torch.zeros(3)
    loops = (every, parts, [every[0]] * 4, [[b, table] for b in every])
    for loop in loops:
        read = (lambda b: b[0]) if isinstance(loop[0], list) else None
        assert findings(Patient(data=learned, batches=loop, read=read), "batches-stay-as-they-are") == []


def losing(share, named=True):
    """A loop that drops so many of its objects, and may not say which images it gives."""
    draw = np.random.default_rng(0)

    def change(batch):
        kept = torch.as_tensor(draw.random(batch.labels.shape) >= share)
        ids = batch.image_ids if named else [f"{k} of a batch" for k in range(len(batch.image_ids))]
        return batch._replace(labels=batch.labels * kept, boxes=batch.boxes * kept[..., None], image_ids=ids)

    return change


def widths_for_corners(batch):
    """What a filter of empty boxes leaves where boxes are (x, y, width, height)."""
    kept = batch.boxes[..., 2:] > 2 * batch.boxes[..., :2]
    kept = kept.all(dim=-1)
    return batch._replace(labels=batch.labels * kept, boxes=batch.boxes * kept[..., None])


@pytest.mark.parametrize("change", [losing(0.8), losing(0.8, named=False), widths_for_corners])
def test_a_loop_that_loses_most_objects_is_told(learned, change):
    found = findings(Patient(data=learned, batches=batches(learned, change)), "objects-reach-the-batches")
    assert len(found) == 1 and "images of the loop have" in found[0][1]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("share", [0, 0.2, 1 / 3])
def test_a_loop_that_keeps_most_objects_is_left_in_peace(learned, share, named):
    loop = batches(learned, losing(share, named))
    assert findings(Patient(data=learned, batches=loop), "objects-reach-the-batches") == []


def test_images_with_few_objects_that_come_first_are_left_in_peace(learned):
    order = sorted(learned.samples, key=lambda sample: len(sample[1].labels))
    data = setups.InMemory(tuple(order), learned.classes)
    loop = batches(data, losing(0, named=False))
    assert findings(Patient(data=data, batches=loop), "objects-reach-the-batches") == []
