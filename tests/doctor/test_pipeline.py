import pytest
import torch
from doctor.planted import OF_BATCHES, SIDE, batches, findings, in_rows

from course_lib import voc
from course_lib.doctor.patient import Patient


@pytest.mark.parametrize("count", [4, 32])
def test_healthy_batches_have_neither_fault_nor_warning(learned, count):
    patient = Patient(data=learned, batches=batches(learned, size=count))
    assert findings(patient, *OF_BATCHES) == []


def pad_with_objects(batch: voc.Batch) -> voc.Batch:
    return batch._replace(labels=torch.where(batch.labels == 0, 3, batch.labels))


TORN = {
    "boxes are in pixels": (lambda b: b._replace(boxes=b.boxes * SIDE), "boxes-in-batches"),
    "boxes are centre and size": (
        lambda b: b._replace(
            boxes=torch.cat(
                [b.boxes[..., :2] + (b.boxes[..., 2:] - b.boxes[..., :2]) / 2, b.boxes[..., 2:] - b.boxes[..., :2]],
                dim=-1,
            )
        ),
        "boxes-in-batches",
    ),
    "are empty boxes in a corner, as padding is": (pad_with_objects, "boxes-in-batches"),
    "boxes have label 0": (in_rows(lambda n: n - 1), "labels-in-batches"),
    "pixels are 0 to 1": (lambda b: b._replace(images=(b.images > 127).byte()), "pixels-in-batches"),
    "images are of one value everywhere": (lambda b: b._replace(images=b.images * 0), "pixels-in-batches"),
}


@pytest.mark.parametrize("named", TORN)
def test_what_a_loop_does_to_its_batches_is_named(learned, named):
    change, check = TORN[named]
    found = findings(Patient(data=learned, batches=batches(learned, change)), *OF_BATCHES)
    assert any(one == check and named in seen for one, seen in found)


def test_batches_that_cannot_be_made_are_one_fault(learned):
    def fail(batch: voc.Batch) -> voc.Batch:
        raise RuntimeError("stack expects each tensor to be equal size")

    found = findings(Patient(data=learned, batches=batches(learned, fail)), *OF_BATCHES)
    assert len(found) == 1 and "RuntimeError: stack expects" in found[0][1]
    assert "no batch" in findings(Patient(batches=batches(learned, size=64)), *OF_BATCHES)[0][1]
