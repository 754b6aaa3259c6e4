import pytest
import torch
from exhibited import check_symptom, crowd, first, healthy, perfect, reaching, recall

from course_lib.doctor import exhibits_detection


def found_in(patient):
    return patient.detect(first(patient))


def decoded_without_variances(well, sick):
    assert recall(well) > 0.9 and recall(sick) < 0.5


def read_by_another_rule(well, sick):
    for one, sure in ((well, False), (sick, True)):
        perfect(one, *crowd())
        scores = found_in(one)[0].scores
        assert (len(scores) == 200 and bool(scores.min() > 0.4)) == sure, "everything that a softmax never spoke of"


def one_suppression_for_all(well, sick):
    for one, count in ((well, 2), (sick, 1)):
        perfect(one, *crowd())
        found = found_in(one)[0]
        assert len(found.labels[found.scores > 0.5].unique()) == count


def no_suppression(well, sick):
    counts = []
    for one in (well, sick):
        perfect(one, *crowd())
        counts.append(int((found_in(one)[0].scores > 0.5).sum()))
    assert counts[0] == 2 < counts[1]


def detects_in_training_mode(well, sick):
    for one, looks_beside in ((well, False), (sick, True)):
        batch = first(one)
        alone, beside = (one.detect(part)[0].scores for part in (batch.parts(2)[0], batch))
        assert torch.allclose(alone, beside, atol=1e-4) != looks_beside


def other_pixels_at_detection(well, sick):
    def contrast(patient, call):
        return reaching(patient, patient.model.backbone, call).std(dim=(0, 2, 3)).max()

    assert contrast(well, well.detect) > 0.3 and contrast(sick, sick.detect) < 0.02
    assert contrast(sick, sick.outputs) > 0.3, "training is as it was"


def a_column_off(well, sick):
    assert recall(sick) < 0.5 < recall(well)
    assert min(int(one.labels.min()) for one in found_in(sick) if len(one.labels)) == 0


def found_in_pixels(well, sick):
    assert max(one.boxes.max() for one in found_in(sick)) > 10
    assert recall(sick) == 0.0


SYMPTOMS = {
    name.replace("_", "-"): globals()[name] for name in dir() if name.replace("_", "-") in exhibits_detection.EXHIBITS
}


@pytest.mark.parametrize("name", exhibits_detection.EXHIBITS)
def test_a_short_measurement_shows_the_symptom(ingredients, name):
    check_symptom(SYMPTOMS, name, ingredients)


def test_a_detector_of_which_no_part_differs_finds_what_the_usual_one_finds(ingredients):
    patient = healthy(ingredients).patient()
    usual, ours = found_in(patient), exhibits_detection.detecting()(patient)(first(patient))
    for one, other in zip(ours, usual, strict=True):
        assert len(one.scores) == len(other.scores)
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-6)
