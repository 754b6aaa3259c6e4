import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.doctor import loss_and_map

NUMBERS = st.lists(st.integers(-20, 20).map(float), min_size=3, max_size=12)


@given(NUMBERS)
def test_ranks_are_the_mean_place_of_equal_values(values):
    found = loss_and_map.ranks(values)
    for value, rank in zip(values, found, strict=True):
        below, equal = sum(one < value for one in values), sum(one == value for one in values)
        assert rank == pytest.approx(below + (equal + 1) / 2, rel=1e-12)


@given(NUMBERS, st.randoms(use_true_random=False))
def test_the_correlation_knows_order_alone(values, random):
    others = random.sample(range(1000), len(values))
    found = loss_and_map.rank_correlation(values, others)
    stretched = loss_and_map.rank_correlation(
        [3 * value + 7 for value in values], [np.exp(one / 100) for one in others]
    )
    if found is None:
        assert len(set(values)) == 1
    else:
        assert -1 - 1e-12 <= found <= 1 + 1e-12
        assert stretched == pytest.approx(found, abs=1e-12)
        mirrored = loss_and_map.rank_correlation([-value for value in values], others)
        assert mirrored == pytest.approx(-found, abs=1e-12)


def test_a_loss_that_falls_while_map_rises_has_1():
    assert loss_and_map.rank_correlation([3.0, 2.0, 1.0], [0.1, 0.2, 0.3]) == pytest.approx(1)
    assert loss_and_map.rank_correlation([3.0, 2.0, 1.0], [0.3, 0.2, 0.1]) == pytest.approx(-1)
    # By hand: ranks 1 2 3 4 against 4 2 3 1, squared differences 9 + 0 + 0 + 9; 1 - 6 * 18 / (4 * 15) is -0.8.
    assert loss_and_map.rank_correlation([1, 2, 3, 4], [0.4, 0.2, 0.3, 0.1]) == pytest.approx(0.8)


@pytest.mark.parametrize("losses", [[], [1.0, 2.0], [1.0, 1.0, 1.0]])
def test_where_nothing_can_be_ordered_there_is_no_correlation(losses):
    assert loss_and_map.rank_correlation(losses, [0.1, 0.2, 0.3][: len(losses)]) is None


def epoch(loc, conf, value, **more):
    return {"loc": loc, "conf": conf, "map": value, **more}


@pytest.fixture
def results(tmp_path):
    """Records of three kinds, and one that holds no training."""
    losses = {
        "focal": [{"map": {"all": 0.3}, "history": [epoch(3.0, 1.0, 0.1), epoch(2.0, 0.5, 0.2), epoch(1.0, 0.4, 0.3)]}],
        "multibox": [{"history": [epoch(3.0, 9.0, 0.2), {"loc": 2.0, "conf": 8.0}, epoch(1.0, 5.0, 0.5)]}],
        "broken": [{"history": [epoch(float("nan"), 1.0, 0.1), epoch(1.0, 1.0, None)]}],
    }
    held_out = epoch(1.0, 1.0, 0.0, val_loc=7.0, val_conf=1.0)
    for name, content in {
        "losses": {"runs": losses},
        "ends": {"runs": {"one": [{"map": 0.6, "history": [{"loc": 1.0, "conf": 2.0}]}]}},
        "held_out": {"runs": {"A0": [{"map": 0.0, "history": [held_out]}]}},
        "counts": {"images": 3},
        "others": {"runs": [1, 2]},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_every_training_with_a_loss_and_an_map_is_gathered(results):
    curves = {(one.experiment, one.recipe): one for one in loss_and_map.gathered(results)}
    assert set(curves) == {("losses", "focal"), ("losses", "multibox"), ("ends", "one"), ("held_out", "A0")}
    assert curves["losses", "focal"].losses == (4.0, 2.5, 1.4)
    assert curves["losses", "multibox"].maps == (0.2, 0.5)  # the epoch between was not measured
    assert curves["ends", "one"].maps == (0.6,)
    assert curves["held_out", "A0"].losses == (8.0,) and curves["held_out", "A0"].held_out
    assert not curves["losses", "focal"].held_out


def test_within_and_across_are_two_questions(results):
    path = results / "losses.json"
    known = json.loads(path.read_text())
    known["runs"]["third"] = [{"history": [epoch(0.2, 0.1, 0.05), epoch(0.2, 0.05, 0.06), epoch(0.1, 0.0, 0.07)]}]
    path.write_text(json.dumps(known))
    curves = loss_and_map.gathered(results)
    inner = loss_and_map.within(curves)
    assert inner["losses: focal"] == pytest.approx([1]) and inner["losses: third"] == pytest.approx([1])
    assert "losses: multibox" not in inner  # two points have no order to speak of
    outer = loss_and_map.across(curves)
    assert outer["losses"] == pytest.approx(-1)  # the highest loss, multibox's, has the highest mAP
    assert outer["ends"] is None


def test_a_recorded_run_is_gathered_where_there_is_one(results, tmp_path):
    record = tmp_path / "elsewhere.txt"
    assert len(loss_and_map.gathered(results, record)) == 4
    record.write_text(json.dumps({"history": [epoch(1.0, 1.0, 0.5)]}))
    assert [one.recipe for one in loss_and_map.gathered(results, record)].count("elsewhere") == 1


def test_the_courses_own_records_can_be_read(root):
    curves = loss_and_map.gathered(root / "experiments" / "results", root / "data" / "ssd_mini.json")
    assert {"class_loss", "focal_loss", "the recorded run"} <= {one.experiment for one in curves}
    for one in curves:
        assert len(one.losses) == len(one.maps) > 0 and all(0 <= value <= 1 for value in one.maps)
