import pytest
from small_patient import small_setup

from course_lib.doctor import blind_trial
from course_lib.doctor.examination import every_check


def test_verdicts_are_of_three_kinds_and_checks_exist():
    names = {one.name for one in every_check()}
    for one in (*blind_trial.PLANTED.values(), *blind_trial.THIRD.values(), *blind_trial.FOURTH.values()):
        assert set(one.caught_by) <= names
    with pytest.raises(ValueError, match="at_first is 'perhaps'"):
        blind_trial.Planted("a fault", "perhaps")
    first = [*blind_trial.PLANTED.values(), *blind_trial.FOREIGN.values()]
    for trial in (first, blind_trial.SECOND.values(), blind_trial.THIRD.values(), blind_trial.FOURTH.values()):
        assert {one.at_first for one in trial} == set(blind_trial.VERDICTS)


def test_every_fault_can_be_planted(small_devkit):
    for one in blind_trial.PLANTED.values():
        setup = small_setup(small_devkit)
        one.plant(setup)
        batch = setup.patient().first_batches(1)[0]
        assert len(batch.images)
