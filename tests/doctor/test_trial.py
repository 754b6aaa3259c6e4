import pytest
import torch
from tiny_patient import Small, small_patient, some_batch

from course_lib import losses
from course_lib.doctor.trial import Steps, losses_of, parts_of, peak_rates, trial_of, usual_batch


def scheduled(factor, rate=3e-3, **parts):
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return small_patient(model=model, optimizer=optimizer, schedule=schedule, **parts)


def test_losses_are_told_from_the_other_numbers_of_a_step():
    numbers = {"loc": torch.tensor(1.0), "conf": 2, "grad_norm": 9.0, "lr": 0.1, "total": 3.0, "images": ["a"]}
    assert losses_of(numbers) == {"loc": 1.0, "conf": 2.0}
    assert losses_of({"total_loss": torch.tensor(3.0)}) == {"total_loss": 3.0}


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_the_peak_of_a_schedule_is_found_and_it_stands_where_it_stood():
    patient = scheduled(lambda step: min(1.0, (step + 1) / 50) * (step < 100), steps=200)
    for _ in range(3):
        patient.schedule.step()
    rate = patient.optimizer.param_groups[0]["lr"]
    assert peak_rates(patient) == pytest.approx([3e-3])
    assert patient.optimizer.param_groups[0]["lr"] == rate and patient.schedule.last_epoch == 3


def test_a_schedule_that_ends_or_wants_to_be_told_something_is_no_obstacle():
    patient = small_patient()
    patient.schedule = torch.optim.lr_scheduler.OneCycleLR(patient.optimizer, max_lr=0.1, total_steps=5)
    assert peak_rates(patient) == pytest.approx([0.1], rel=0.2)
    patient.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(patient.optimizer)
    assert peak_rates(patient) is None


def test_steps_are_taken_at_our_rate_and_the_patient_keeps_its_own():
    patient = scheduled(lambda step: 0.5, steps=10)
    with Steps(patient) as steps:
        taken = [steps.step(some_batch(), factor) for factor in (1.0, 0.1)]
    assert [one.rate for one in taken] == pytest.approx([1.5e-3, 1.5e-4])
    assert patient.schedule.last_epoch == 0 and patient.optimizer.param_groups[0]["lr"] == pytest.approx(1.5e-3)
    hooks = patient.optimizer._optimizer_step_pre_hooks, patient.optimizer._optimizer_step_post_hooks
    assert not any(hooks), "a hook stayed behind"


def test_the_gradient_is_measured_before_and_after_it_is_shortened():
    patient = small_patient(clip_norm=0.01)
    with Steps(patient) as steps:
        one = steps.step(some_batch())
    assert one.before > 0.1 and one.after == pytest.approx(0.01, rel=1e-3) and one.clipped
    with Steps(small_patient()) as steps:
        free = steps.step(some_batch())
    assert free.before == pytest.approx(free.after, rel=1e-4) and not free.clipped and free.stale < 1e-5


def test_a_gradient_that_was_not_cleared_is_seen_and_one_of_two_parts_is_none():
    patient = small_patient()

    def careless(batch):
        parts = patient.losses(batch)
        losses.total(dict(parts)).backward()
        patient.optimizer.step()
        return parts

    def in_two_parts(batch):
        patient.optimizer.zero_grad()
        for part in batch.parts(2):
            losses.total(dict(patient.losses(part))).backward()
        patient.optimizer.step()
        return {"loss": 1.0}

    for step, stale in ((careless, True), (in_two_parts, False)):
        patient.step = step
        patient.optimizer.zero_grad()
        with Steps(patient) as steps:
            second = [steps.step(some_batch()) for _ in range(2)][1]
        assert (second.stale > 0.5) == stale


def test_a_warmup_that_is_longer_than_the_trial_keeps_nothing_from_being_learned():
    patient = scheduled(lambda step: min(1.0, (step + 1) / 2000), steps=3000)
    with patient.undisturbed():
        trial = trial_of(patient, patient.first_batches(1)[0])
    assert trial.share_left < 0.2 and "loc" in trial.parts()


def test_a_trial_ends_where_it_meets_nan():
    patient = small_patient()
    patient.step = lambda batch: {"loss": float("nan")}
    trial = trial_of(patient, some_batch())
    assert len(trial.steps) == 1 and not trial.finite


def test_the_batch_of_a_trial_has_objects_and_no_more_images_than_are_needed():
    empty = some_batch()
    empty = empty._replace(labels=empty.labels * 0)
    many = some_batch(12)
    many.labels[0] = 0
    chosen = usual_batch(small_patient(batches=[empty, many]))
    assert len(chosen.images) == 8 and chosen.image_ids == [str(number) for number in range(1, 9)]
    assert torch.equal(chosen.boxes, many.boxes[1:9])
    assert [len(part.images) for part in parts_of([many])] == [8]
