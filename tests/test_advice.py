"""The questions, their queue and their answers."""

import re
from itertools import count

import pytest

from course_lib import advice, arms
from course_lib.effects import paired

CLASSES = [f"class {number}" for number in range(20)]


def record(arm, seed, score=0.3, **more):
    return {"arm": arm, "seed": seed, "map": score, "ap": dict.fromkeys(CLASSES, score), "diverged": None} | more


def test_there_are_enough_questions_and_each_is_whole():
    assert len(advice.QUESTIONS) >= 25
    assert len({one.name for one in advice.QUESTIONS}) == len(advice.QUESTIONS)
    for one in advice.QUESTIONS:
        assert one.family in advice.FAMILIES and one.asks.endswith("?") and one.arms, one.name
        assert set(one.sources) <= set(advice.PAGES) and all(one.sources.values()), one.name
        assert {one.measure, one.usual or one.measure} <= set(advice.MEASURES)
        assert one.against not in one.arms or one.usual, one.name
        for arm in (*one.arms, one.against):
            assert arm in arms.ARMS, arm
    assert {one.family for one in advice.QUESTIONS} == set(advice.FAMILIES)
    assert {page for one in advice.QUESTIONS for page in one.sources} == set(advice.PAGES)


def test_every_arm_answers_some_question():
    assert set(advice.arms_asked_for()) == set(arms.ARMS)


def test_what_is_measured_by_moments_is_asked_of_arms_that_keep_them():
    for one in advice.QUESTIONS:
        if one.measure.startswith("map_by"):
            assert all(arms.ARMS[arm].choosing for arm in one.arms)


def test_names_of_runs_are_names_of_files_and_can_be_read_back():
    for name in [*advice.left([]), advice.name_of("sgd-0.9", 4)]:
        assert re.fullmatch(r"[a-z0-9.\-]+", name), name
        assert advice.name_of(*advice.arm_and_seed(name)) == name


def test_the_queue_begins_with_the_scans_and_goes_round_by_round():
    names = advice.left([])
    scans = [name for name in names if name.startswith("scan-")]
    assert names[: len(scans)] == scans
    rounds = [advice.arm_and_seed(name)[1] for name in names[len(scans) :]]
    assert rounds == sorted(rounds) and set(rounds) == set(advice.SEEDS)
    assert names[len(scans)] == "baseline-seed-0"
    assert len(names) == len(set(names))
    assert not {*advice.SCAN_SEEDS} & {*advice.SEEDS, *advice.MORE_SEEDS}


def scanned():
    """All scans, where the second rate is always best."""
    return [
        record(advice.scan_of(one, rate), seed, 0.4 if rate == rates[1] else 0.2)
        for one, rates in arms.RATES.items()
        for rate in rates
        for seed in advice.SCAN_SEEDS
    ]


def test_an_optimizer_waits_for_its_scan_and_takes_the_best_rate():
    records = scanned()
    assert not [name for name in advice.left([]) if name.startswith("sgd-0.9-seed")]
    assert not [name for name in advice.left(records[1:]) if name.startswith("adamw-seed")]
    names = advice.left(records)
    assert not [name for name in names if name.startswith("scan-")]
    assert {"adamw-seed-0", "sgd-0.9-seed-2", "rmsprop-seed-1"} <= set(names)
    for one, rates in arms.RATES.items():
        assert advice.chosen_rate(one, records) == rates[1]
        made, besides = advice.arm_of(one, records)
        assert made.label == arms.ARMS[one].label and besides == {"learning_rate": rates[1]}
        assert advice.arm_of(advice.scan_of(one, rates[3]), [])[1] == {"learning_rate": rates[3]}
    assert advice.arm_of("focal", []) == (arms.ARMS["focal"], {})
    assert advice.arm_of("sgd-not-augmented", records)[1] == {"learning_rate": arms.RATES["sgd-0.9"][1]}
    with pytest.raises(ValueError, match="arm is 'adam': there is none, or the scan"):
        advice.arm_of("adam", records[:3])


def test_the_queue_comes_to_an_end():
    """Whatever the results are: each name once, and after all of them none."""
    records = []
    numbers = count()
    while left := advice.left(records):
        for name in left:
            arm, seed = advice.arm_and_seed(name)
            score = (next(numbers) * 7919 % 101) / 300  # as good as random: most effects stay unclear
            records.append(record(arm, seed, score, map_by_loss=score, map_by_map=score))
    names = [advice.name_of(one["arm"], one["seed"]) for one in records]
    assert len(names) == len(set(names))
    assert {one["seed"] for one in records} == {*advice.SCAN_SEEDS, *advice.SEEDS, *advice.MORE_SEEDS}
    for answer in advice.answers(records):
        assert len(answer.effect.differences) in (3, 4, 5)


def with_arm(differences, name="focal", usual=0.3):
    pairs = enumerate(differences)
    return [record("baseline", seed, usual) for seed in range(len(differences))] + [
        record(name, seed, usual + difference) for seed, difference in pairs
    ]


@pytest.mark.parametrize(
    ("differences", "more"),
    [
        ((0.10, 0.11, 0.12), False),  # there
        ((0.001, -0.001, 0.0), False),  # small for sure
        ((0.05, -0.05, 0.02), True),
    ],
)
def test_more_seeds_are_for_what_is_unclear(differences, more):
    records = with_arm(differences)
    found = {"baseline", "focal"} if more else set()
    assert set(advice.unclear(records, 3)) == found
    assert advice.unclear(records[:-1], 3) == []  # a seed is still missing


def test_answers_are_paired_differences():
    records = [*with_arm((0.1, 0.2, 0.3)), record("imbalanced", 0, 0.1)]
    records[-1]["ap"] = {name: 0.9 if number % 4 else 0.1 for number, name in enumerate(CLASSES)}
    by_question = {(one.question.name, one.arm): one for one in advice.answers(records)}
    assert by_question["focal", "focal"].effect.differences == pytest.approx((0.1, 0.2, 0.3))
    assert by_question["imbalance-rare", "imbalanced"].effect.mean == pytest.approx(0.1 - 0.3)
    assert by_question["imbalance-frequent", "imbalanced"].effect.mean == pytest.approx(0.9 - 0.3)
    assert by_question["imbalance-rare", "imbalanced"].label == "imbalanced: rare classes"
    assert ("remedies-rare", "imbalanced-focal") not in by_question
    assert len(advice.answers(records, seeds=[1])) == 1


def test_a_moment_is_compared_with_the_last_and_a_divergence_with_0():
    records = [record("overfitting", seed, 0.2, map_by_loss=0.3, map_by_map=0.35) for seed in (0, 1)]
    found = {one.question.name: one.effect.mean for one in advice.answers(records)}
    assert found == {"stopped-by-loss": pytest.approx(0.1), "stopped-by-map": pytest.approx(0.15)}
    records[1] |= {"diverged": 7, "map": 0.0}
    del records[1]["map_by_loss"], records[1]["map_by_map"]
    assert {one.effect.differences[1] for one in advice.answers(records)} == {0.0}


def test_every_answer_is_told_with_its_interval_or_as_not_yet_measured():
    words = advice.told(with_arm((0.1, 0.2, 0.3)))
    assert len(words) == sum(len(one.arms) for one in advice.QUESTIONS)  # no two have one key
    assert words["focal"] == "+0.200 (-0.048 to +0.448)"
    assert words["rate-3"] == words["imbalanced-rare"] == advice.told([])["focal"] == advice.NOT_YET
    assert advice.told(with_arm((0.1,)))["focal"] == advice.NOT_YET


def test_what_is_sure_among_many_is_surer_than_what_is_told_apart():
    records = with_arm((0.10, 0.11, 0.12)) + with_arm((0.2, 0.2001, 0.2002), "rate-3")[3:]
    found = advice.answers(records)
    assert {one.arm for one in found if one.effect.is_told_apart} == {"focal", "rate-3"}
    assert advice.sure(found) == {"focal", "rate-3"}
    doubtful = paired({0: 0.1, 1: -0.1}, {0: 0.0, 1: 0.0})
    many = [advice.Answer(found[0].question, f"nothing {number}", doubtful) for number in range(60)]
    assert advice.sure(found + many) == {"rate-3"}
    assert advice.sure(advice.answers(with_arm((0.1,)))) == set()


def test_a_glance_names_what_was_asked_and_the_ends():
    means = {"focal": 0.3, "rate-3": -0.2, "rate-10": -0.5, "staircase": 0.01, "no-warmup": 0.0}
    records = with_arm((0.0, 0.0))[:2] + [
        one for arm, m in means.items() for one in with_arm((m - 0.01, m + 0.01), arm)[2:]
    ]
    found = advice.answers(records)
    named = advice.names_at_a_glance(found, ["no-warmup"], ends=1)
    assert {found[place].arm for place in named} == {"focal", "rate-10", "no-warmup"}
    assert all(found[place].label == label for place, label in named.items())
    assert set(advice.names_at_a_glance(found)) == set(range(5))


def test_what_is_carried_over_is_large_or_small_for_sure_and_one_arm_of_a_question():
    means = {"rate-10": -0.3, "rate-30": -0.4, "lasting-2": 0.2, "no-warmup": 0.001, "focal": 0.02, "page-adam": -0.5}
    records = with_arm((0.0, 0.0, 0.0))[:3]
    for arm, mean in means.items():
        records += with_arm((mean - 0.001, mean, mean + 0.001), arm)[3:]
    found = advice.answers(records)
    assert advice.to_carry(found, large=2, small=1) == ["rate-30", "lasting-2", "no-warmup"]
    assert "page-adam" not in advice.to_carry(found)  # a number of its own, not so many times the usual one
    assert advice.to_carry([]) == []


def test_a_curve_is_the_mean_over_seeds_as_far_as_all_came():
    moments = [{"step": 1, "loc": 3.0, "conf": 4.0, "map": 0.1}, {"step": 2, "loc": 1.0, "conf": 2.0, "map": 0.2}]
    records = [
        record("overfitting", 0, loss=[5.0, 3.0], gradient=[9.0, 1.0], moments=moments),
        record("overfitting", 1, loss=[7.0], gradient=[3.0], moments=moments[:1]),
    ]
    assert advice.curve(records, "overfitting", "loss") == [6.0]
    assert advice.curve(records, "overfitting", "gradient") == [6.0]
    assert advice.curve(records, "overfitting", "held_out") == [7.0]
    assert advice.curve(records[:1], "overfitting", "map") == [0.1, 0.2]
    for arm, of in (("baseline", "loss"), ("overfitting", "accuracy")):
        with pytest.raises(ValueError, match="no curve of"):
            advice.curve(records, arm, of)


def test_the_spread_is_the_baselines():
    assert advice.spread([record("baseline", seed, score) for seed, score in enumerate((0.2, 0.3, 0.4))]) == (
        pytest.approx(0.1)
    )
    with pytest.raises(ValueError, match="baseline has 1 runs"):
        advice.spread([record("baseline", 0)])


def test_labels_fit_a_narrow_picture():
    nothing = paired({0: 0.0}, {0: 0.0})
    for question in advice.QUESTIONS:
        for arm in question.arms:
            assert len(advice.Answer(question, arm, nothing).label) <= 36, arm


def test_losses_and_map_are_of_trainings_with_the_usual_loss():
    moments = [{"step": 1, "loc": 3.0, "conf": 4.0}, {"step": 2, "loc": 1.0, "conf": 2.0}]
    records = [record(arm, 0, 0.3, moments=moments) for arm in ("baseline", "focal", "imbalanced-focal", "rate-3")]
    records.append(record("rate-30", 0, 0.0, diverged=3, moments=[]))
    assert advice.losses_and_map(records) == [("baseline", 3.0, 0.3), ("rate-3", 3.0, 0.3)]


def test_what_is_answered_elsewhere_is_of_a_page():
    for page, says, where in advice.ELSEWHERE:
        assert page in advice.PAGES and says and where


def test_sentences_stand_beside_their_answers_and_what_they_say_is_no_html():
    usual = dict.fromkeys(range(3), 0.0)
    clear, nothing = (paired(dict(enumerate(found)), usual) for found in ((0.1, 0.11, 0.12), (-0.1, 0.1, 0.2)))
    lines = [advice.effect_line("rate < 1", clear, True), advice.effect_line("dropout", nothing)]
    shown = advice.Sentences({"a rate <too high>": lines})._repr_html_()
    assert "a rate &lt;too high&gt;</th>" in shown and f"<strong>rate &lt; 1: {clear} *</strong>" in shown
    assert f"<br>dropout: {nothing}</td>" in shown
