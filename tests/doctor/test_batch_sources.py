from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import OF_BATCHES, Seeded, batches, findings, in_rows

from course_lib import voc
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
