"""The questions of chapter 16, and that its experiment has their arms."""

import importlib.util

import pytest

from course_lib import advice, choices


@pytest.fixture
def plans(root):
    spec = importlib.util.spec_from_file_location("plans_of_chapter_16", root / "experiments" / "convergence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.arms()


def test_each_question_is_whole_and_every_arm_is_asked_for_once(plans):
    asked = [arm for one in choices.QUESTIONS for arm in one.arms]
    assert sorted([*asked, "baseline"]) == sorted(plans)
    assert len({one.name for one in choices.QUESTIONS}) == len(choices.QUESTIONS)
    for one in choices.QUESTIONS:
        assert one.family in choices.FAMILIES and one.asks.endswith("?") and one.against in plans, one.name
        assert set(one.labels) == set(one.arms) and all(len(label) <= 34 for label in one.labels.values())
        assert set(one.sources) <= {choices.VGG_PAGE}
    assert {one.family for one in choices.QUESTIONS} == {*choices.FAMILIES}


def differing(one, other):
    return {name for name in vars(one) if getattr(one, name) != getattr(other, name)}


def test_an_arm_differs_from_what_it_is_compared_with_in_what_its_family_is_about(plans):
    about = {
        "first weights": {"initialisation"},
        "batch norm": {"norm"},
        "augmentation": {"augmentation"},
        "pixels": {"normalisation"},
        "schedule": {"schedule"},
        "optimiser": {"optimizer", "learning_rate", "weight_decay", "clip_norm"},
    }
    for one in choices.QUESTIONS:
        for arm in one.arms:
            found = differing(plans[arm], plans[one.against])
            assert found and found <= about[one.family], (arm, found)


def record(problem, arm, seed, accuracy):
    return {"problem": problem, "arm": arm, "seed": seed, "accuracy": accuracy, "diverged_at": None}


def test_answers_are_paired_differences_of_one_problem():
    records = [record("emoji", "baseline", seed, 0.7) for seed in (0, 1)]
    records += [record("emoji", "cosine", seed, 0.75 + 0.01 * seed) for seed in (0, 1)]
    records += [record("photographs", "cosine", 0, 0.1), record("photographs", "baseline", 0, 0.3)]
    (one,) = advice.answers(choices.of_problem(records, "emoji"), questions=choices.QUESTIONS)
    assert one.effect.differences == pytest.approx((0.05, 0.06)) and one.label == "cosine"
    (other,) = advice.answers(choices.of_problem(records, "photographs"), questions=choices.QUESTIONS)
    assert other.effect.differences == pytest.approx((-0.2,))
    words = advice.told(choices.of_problem(records, "emoji"), choices.QUESTIONS)
    assert words["cosine"].startswith("+0.055 (") and words["plateau"] == advice.NOT_YET
    assert len(words) == sum(len(one.arms) for one in choices.QUESTIONS)


def test_what_is_answered_elsewhere_is_of_one_of_the_two_pages():
    assert {page for page, _, _ in choices.ELSEWHERE} == {choices.VGG_PAGE, choices.MOBILENET_PAGE}
    assert all(says and where for _, says, where in choices.ELSEWHERE)
    assert {choices.VGG_PAGE, choices.MOBILENET_PAGE} < set(advice.PAGES)
