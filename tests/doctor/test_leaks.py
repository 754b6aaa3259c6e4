from dataclasses import replace

import torch
from doctor.planted import findings, mirrored, with_labels

from course_lib.doctor import setups
from course_lib.doctor.patient import Patient
from course_lib.voc import Target


def test_what_is_measured_on_must_not_be_learned_from(learned, held_out):
    name = "held-out-images-are-not-learned-from"
    assert findings(Patient(data=learned, held_out=held_out), name) == []
    part = setups.InMemory(learned.samples[:12], learned.classes)
    assert "12 of 12" in findings(Patient(data=learned, held_out=part), name)[0][1]
    copies = [(i[:, ::-1].copy(), replace(t, image_id="x", boxes=mirrored(t.boxes))) for i, t in learned.samples[:2]]
    copied = setups.InMemory((*held_out.samples, *copies), learned.classes)
    assert "2 of 14 held-out pictures" in findings(Patient(data=learned, held_out=copied), name)[0][1]


def test_held_out_labels_that_count_from_another_number_are_told(learned):
    """By their frequencies: VOC's classes are not equally frequent, and so are few other data's."""
    often = torch.tensor([(k * 7) % 11 + 1 for k in range(20)]).repeat_interleave(1)
    labels = torch.arange(1, 21).repeat_interleave(often * 4)
    target = Target(torch.rand(len(labels), 4), labels, labels < 0, "a", (9, 9))
    healthy = setups.InMemory(((learned.samples[0][0], target),), learned.classes)
    shifted = with_labels(healthy, lambda n: n - 1)
    name = "held-out-labels-mean-the-same"
    assert findings(Patient(data=healthy, held_out=healthy), name) == []
    assert "one label below" in findings(Patient(data=healthy, held_out=shifted), name)[0][1]
