import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_patient import SPEC, small_patient, some_batch

from course_lib.detect import Detections
from course_lib.doctor.answers import by_the_book, found, grasp, told_apart
from course_lib.matching import match


def perfect(batch, priors):
    """What a network says that knows everything."""
    matches = match(batch.boxes, batch.labels, priors)
    return matches.offsets, 20.0 * torch.nn.functional.one_hot(matches.labels, 4).float()


def test_right_answers_are_worth_everything_and_none_are_worth_nothing():
    batch, priors = some_batch(), SPEC.boxes()
    whole = grasp(*perfect(batch, priors), batch, priors)
    assert whole.iou > 0.999 and whole.named == 1 and whole.told == 1
    nothing = grasp(torch.zeros(8, len(priors), 4), torch.zeros(8, len(priors), 4), batch, priors)
    assert nothing.priors == whole.priors and nothing.iou < 0.9 and nothing.named < 1


def test_objects_in_pixels_have_no_prior_that_answers():
    batch, priors = some_batch(), SPEC.boxes()
    pixels = batch._replace(boxes=batch.boxes * 300 + (batch.labels > 0)[..., None] * 100)
    assert grasp(*perfect(batch, priors), pixels, priors).priors == 0


def test_what_is_found_counts_by_box_and_by_class():
    batch = some_batch()
    rows = [(boxes[labels > 0], labels[labels > 0]) for boxes, labels in zip(batch.boxes, batch.labels, strict=True)]
    right = [Detections(boxes, torch.linspace(0.9, 0.8, len(boxes)), labels) for boxes, labels in rows]
    whole = found(right, batch)
    assert whole.right == whole.boxes == whole.ap == 1.0 and whole.iou > 0.999 and len(whole.hit) == len(whole.labels)
    shifted = found([one._replace(labels=one.labels % 3 + 1) for one in right], batch)
    assert shifted.right < 0.5 and shifted.boxes == 1.0
    none = found([Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())] * 8, batch)
    assert none.right == none.boxes == none.ap == 0.0


@given(st.integers(0, 1000))
def test_scores_tell_positives_apart_whatever_their_scale(seed):
    scores = torch.rand(2, 30, generator=torch.Generator().manual_seed(seed))
    positive = scores > 0.8
    positive[0, 0], positive[0, 1] = True, False
    scores = scores + positive
    assert told_apart(scores, positive) == 1 and told_apart(-3 * scores, positive) == 0


def test_asking_leaves_every_layer_in_its_mode():
    patient = small_patient()
    patient.model.hidden.eval()
    modes = [layer.training for layer in patient.model.modules()]
    batch = some_batch()
    for training in (True, False):
        by_the_book(patient, batch, batch, training)
        assert [layer.training for layer in patient.model.modules()] == modes
