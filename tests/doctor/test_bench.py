import pytest
import torch
from small_patient import small_setup

from course_lib import losses
from course_lib.doctor import Patient
from course_lib.doctor.bench import bench, outputs_replaced, spoken


@pytest.fixture(scope="module")
def patient(small_devkit):
    return small_setup(small_devkit).patient()


def hidden(patient):
    """The same training, of which only the losses of a batch are told."""
    return Patient(
        model=patient.model,
        priors=patient.priors,
        batches=patient.batches,
        classes=patient.classes,
        losses=lambda batch: patient.computed(batch),
    )


def test_the_loss_costs_what_it_costs_by_itself(patient):
    with patient.undisturbed():
        on = bench(patient)
    assert on.free and on.sure.all()
    boxes, logits = on.told.offsets, on.noise()
    expected = losses.total(losses.MultiBoxLoss()(boxes, logits, on.told))
    assert on.cost(boxes, logits) == pytest.approx(float(expected), rel=1e-5)


def test_a_loss_inside_a_loop_is_the_same_function(patient):
    """On the priors of which it is sure what they should say."""
    other = hidden(patient)
    with other.undisturbed():
        on = bench(other)
        assert not on.free and on.sure.any() and not on.sure.all()
        assert len(on.told.labels) == len(patient.first_batches(1)[0].labels)
        assert on.cost(on.told.offsets, on.right(8.0)) < 0.5 * on.cost(on.told.offsets, on.right(0.0))


def test_outputs_are_replaced_once_and_wherever_they_come_by():
    class Heads(torch.nn.Module):
        def forward(self, x):
            return {"boxes": torch.zeros(2, 3, 4), "classes": torch.zeros(2, 3, 7), "more": x}

    offsets, logits = torch.ones(2, 3, 4), torch.ones(2, 3, 7)
    with outputs_replaced(Heads(), offsets, logits) as times:
        assert times == [0]
    heads = Heads()
    with outputs_replaced(heads, offsets, logits) as times:
        found = heads(torch.tensor(5))
    assert times == [1] and found["boxes"] is offsets and found["classes"] is logits and found["more"] == 5
    assert heads(torch.tensor(5))["boxes"].sum() == 0


def test_logits_say_their_labels():
    said = spoken(torch.tensor([[0, 2]]), 3, 4.0)
    assert said.tolist() == [[[4, -4, -4], [-4, -4, 4]]]


def test_there_is_no_bench_where_nothing_is_positive(small_devkit):
    setup = small_setup(small_devkit)
    setup.match = lambda boxes, labels, priors: losses.Matches(
        torch.zeros(len(boxes), len(priors), dtype=torch.int64),
        torch.zeros(len(boxes), len(priors), 4),
        torch.full((len(boxes), len(priors)), -1),
    )
    patient = setup.patient()
    with patient.undisturbed():
        assert bench(patient) is None
