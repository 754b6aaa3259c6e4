from course_lib.doctor import examination
from course_lib.doctor.checks import check
from course_lib.doctor.examination import every_check
from course_lib.doctor.findings import note
from course_lib.doctor.patient import Patient


def test_a_check_has_its_functions_name_and_asks_its_first_line():
    @check("model", "data|batches", learning=True)
    def boxes_are_boxes(patient):
        """Is every box a box?

        More than that.
        """
        yield note("a", "b", "c", 1)

    assert (boxes_are_boxes.name, boxes_are_boxes.asks) == ("boxes-are-boxes", "Is every box a box?")
    assert boxes_are_boxes.learning and boxes_are_boxes.needs == ("model", "data|batches")
    assert examination.lacking(Patient(), boxes_are_boxes) == ["model", "data|batches"]
    assert examination.lacking(Patient(batches=[]), boxes_are_boxes) == ["model"]


def test_every_check_asks_something_of_parts_that_there_are_and_has_its_own_name():
    checks = every_check()
    assert len({one.name for one in checks}) == len(checks)
    parts = set(dir(Patient()))
    for one in checks:
        assert one.asks.endswith("?"), one.name
        assert one.needs and {name for need in one.needs for name in need.split("|")} <= parts, one.name
