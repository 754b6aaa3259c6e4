"""`make check` leaves out what a measured run found dear."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tools import dear_tests

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_boxes" name="test_iou[a[0]-b]" time="0.5"/>
<testcase classname="tests.test_boxes" name="test_iou[c]" time="1.5"/>
<testcase classname="tests.doctor.test_modes" name="test_modes" time="2"/>
<testcase classname="tests.test_cuda" name="test_there" time="0"><skipped message="no device"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read(tmp_path: Path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert dear_tests.seconds(tmp_path / "report.xml") == {
        "tests/test_boxes.py::test_iou": [0.5, 1.5],
        "tests/doctor/test_modes.py::test_modes": [2.0],
    }


def test_the_cheapest_stay_and_of_a_family_the_first():
    costs = {"a::family": [0.1, 0.1, 5.0], "a::dear": [3.0, 0.1], "a::cheap": [0.2]}
    assert dear_tests.dearest(costs, budget=9) == []
    assert dear_tests.dearest(costs, budget=1) == ["a::dear", "a::family[1:]"]
    assert dear_tests.dearest(costs, budget=0) == ["a::cheap", "a::dear", "a::family"]
    tests = ["a::family[x]", "a::dear[1]", "a::new", "a::family[y]", "a::dear[2]"]
    assert dear_tests.slow_ones(tests, ["a::dear", "a::family[1:]"]) == [False, True, False, True, True]


@given(
    st.dictionaries(st.text("abc", min_size=1), st.lists(st.integers(0, 9).map(float), min_size=1, max_size=4)),
    st.integers(0, 60),
)
def test_what_stays_fits_into_the_budget(costs, budget):
    dear = dear_tests.dearest(costs, budget)
    tests = [(f"{name}[{case}]", cost) for name, cases in costs.items() for case, cost in enumerate(cases)]
    slow = dear_tests.slow_ones([name for name, _ in tests], dear)
    assert sum(cost for (_, cost), out in zip(tests, slow, strict=True) if not out) <= budget
    assert bool(dear) == (sum(map(sum, costs.values())) > budget)


def test_what_is_dear_is_there(root: Path):
    for name in dear_tests.DEAR.read_text().split():
        file, function = name.removesuffix(dear_tests.REST).split("::")
        assert f"def {function}(" in (root / file).read_text(encoding="utf-8"), f"{name}: run tools.dear_tests anew"
