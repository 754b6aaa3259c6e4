import pytest
import torch

from course_lib import checkup, ssd, voc
from course_lib.doctor import Patient
from course_lib.doctor.patient import as_it_is
from course_lib.losses import MultiBoxLoss
from course_lib.matching import match


@pytest.fixture
def batch(small_devkit):
    dataset = voc.VOCDetection(small_devkit, "2007", "test")
    samples = [dataset[index] for index in range(4)]
    return voc.collate([(torch.zeros(3, 96, 96, dtype=torch.uint8), target) for _, target in samples])


def test_an_empty_patient_has_nothing():
    patient = Patient()
    names = ("data", "pictures", "batches", "model", "priors", "outputs", "losses", "step", "detect", "classes")
    assert not any(patient.has(name) for name in names)


def test_what_follows_from_other_parts_need_not_be_given(batch):
    model = ssd.ssd_nano(21).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    patient = Patient(batches=[batch], model=model, match=match, loss=MultiBoxLoss(), optimizer=optimizer)
    assert patient.priors is model.priors
    offsets, logits = patient.outputs(batch)
    expected = MultiBoxLoss()(offsets, logits, match(batch.boxes, batch.labels, model.priors))
    for parts in (patient.losses(batch), patient.step(batch)):
        torch.testing.assert_close(dict(parts), expected, rtol=1e-5, atol=1e-5)
    assert len(patient.detect(batch)) == 4


def test_a_given_part_is_used_instead_of_the_usual(batch):
    patient = Patient(batches=["theirs"], read=lambda theirs: batch, match=match, priors=ssd.ssd_nano(2).priors)
    assert patient.matches("theirs").labels.shape == (4, 850)
    with pytest.raises(TypeError, match="a batch is a str: give the patient `read`"):
        as_it_is("theirs")


def test_annotations_alone_have_targets_and_no_pictures(small_devkit):
    image_set = voc.ImageSet(small_devkit / "VOC2007", "test")
    patient, whole = checkup.of_annotations([image_set]), Patient(data=voc.ImageDataset([image_set]))
    assert patient.has("data") and not patient.has("pictures") and whole.has("pictures")
    assert patient.classes == voc.VOC_CLASSES
    for one, other in zip(patient.targets(), whole.targets(), strict=True):
        assert torch.equal(one.boxes, other.boxes) and one.image_id == other.image_id


def test_batches_are_loaded_once():
    loaded = []

    class Loader:
        def __iter__(self):
            for number in range(5):
                loaded.append(number)
                yield number

    patient = Patient(batches=Loader())
    assert patient.first_batches(2) == [0, 1] and patient.first_batches(1) == [0]
    assert loaded == [0, 1]
