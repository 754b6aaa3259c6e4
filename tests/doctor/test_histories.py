import math

import pytest

from course_lib.doctor.histories import examined


def history(losses, **columns):
    """Records of epochs with half of each loss in the boxes, and further columns."""
    records = [{"epoch": number, "loc": one / 2, "conf": one / 2} for number, one in enumerate(losses, start=1)]
    for name, values in columns.items():
        for record, value in zip(records, values, strict=True):
            if value is not None:
                record[name] = value
    return records


def severities(records):
    return [one.severity for one in examined(records)]


FALLING = [8.0, 6.0, 5.0, 4.5, 4.2, 4.0]


def test_a_run_that_learns_gives_only_its_best_epoch_as_a_note():
    maps = [None, 0.1, None, 0.3, None, 0.4]
    rates = [1e-3, 8e-4, 5e-4, 2e-4, 1e-5, 0.0]
    good = history(FALLING, map=maps, lr=rates, grad_norm=[9, 5, 4, 4, 5, 6], val_loc=[4, 3, 3, 2.9, 3, 3])
    found = list(examined(good))
    assert [one.severity for one in found] == ["note"] and "epoch 6" in found[0].seen


def test_a_run_from_trained_weights_may_be_flat():
    assert severities(history([2.0, 2.0, 1.99, 2.0, 2.0, 1.99], map=[0.6] * 6)) == ["note"]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (history([8.0, 6.0, math.nan]), "not finite"),
        (history([8.0, 6.0, 9.5]), "rises"),
        (history([8.0, 7.99, 8.0, 7.98, 8.0]), "flat"),
        (history([3303.0, 2500, 1741], map=[0.0, 0.001, 0.0]), "mAP stays at 0.001"),
        (history(FALLING, lr=[0.0, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3]), "rate is 0 in epoch 1"),
        ([{"loss": 12212.0}, {"loss": 12212.0}, {"loss": 12210.0}, {"loss": 12212.0}, {"loss": 12211.0}], "flat"),
    ],
)
def test_what_is_wrong_with_a_run_is_a_fault(records, words):
    found = [one for one in examined(records) if one.severity == "fault"]
    assert len(found) == 1 and words in found[0].seen


def test_a_gradient_that_grows_is_a_warning():
    assert severities(history(FALLING, grad_norm=[2, 2, 9, 40, 90, 300])) == ["warning"]


def test_learning_by_heart_is_a_note_and_a_warning_where_map_is_lost():
    val = {"val_loc": [3, 2, 2, 2.5, 3, 3.2], "val_conf": [3, 2, 2, 2.5, 3, 3.2]}
    assert severities(history(FALLING, **val)) == ["note"]
    assert "warning" in severities(history(FALLING, **val, map=[0.2, 0.5, 0.5, 0.4, 0.3, 0.2]))


def test_what_vital_signs_have_found_is_said_again_once():
    one = {"check": "rate", "severity": "fault", "seen": "rate 0", "why": "w", "cure": "c", "chapter": 9}
    records = history(FALLING)
    for record in records[2:4]:
        record["signs"] = {"findings": [one]}
    assert [(found.severity, found.seen) for found in examined(records)] == [("fault", "in epoch 3: rate 0")]
