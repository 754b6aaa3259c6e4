"""What the experiments have in common with the library they measure; their results are the records'."""

import importlib.util
import json
import re
from dataclasses import asdict, fields, replace
from functools import partial

import pytest
import torch
from own_pictures import kitchen
from PIL import Image

from course_lib import advice, arms, own_tree, profiles, queues, trials, voc, weights
from course_lib.crops import Crops, Problem
from course_lib.detect import Detections
from course_lib.doctor.case_study import repairs_of
from course_lib.files import as_json


def experiment(root, name):
    spec = importlib.util.spec_from_file_location(f"{name}_experiment", root / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(root):
    return experiment(root, "photos")


@pytest.fixture
def case_study(root):
    return experiment(root, "case_study")


def test_the_first_page_shows_the_effects_that_are_recorded(root):
    """Where this fails: python experiments/advice.py picture."""
    made = experiment(root, "advice")
    with Image.open(made.PICTURE) as picture:
        assert picture.info["Source"] == made.source_of_picture()


def test_each_row_of_photos_differs_from_the_profile_in_one_thing(photos):
    default, recipe = photos.ROWS["default"], profiles.photos().recipe
    assert default == photos.Row()
    for name, row in photos.ROWS.items():
        differing = {one.name for one in fields(row) if getattr(row, one.name) != getattr(default, one.name)}
        changed = {setting.partition("=")[0] for setting in row.settings}
        assert len(differing - {"seeds", "settings"}) + (row.taught and len(changed)) == (name != "default"), name
        assert recipe.changed(row.settings) != recipe or not row.settings, f"{name}: nothing is changed"


def test_the_record_of_photos_is_of_its_rows_and_of_the_profile_as_it_is(photos):
    """A recipe or a row that is changed is trained again."""
    recorded = json.loads(photos.RESULT.read_text())["runs"]
    assert "default" in recorded
    for name, runs in recorded.items():
        row = photos.ROWS[name]
        assert {run["seed"] for run in runs} <= {*range(row.seeds)}
        for run in runs:
            known = run["provenance"]
            recipe = own_tree.fitted(profiles.photos().recipe, run["images"])
            assert known["recipe"] == asdict(recipe.changed([*row.settings, f"seed={run['seed']}"])), name
            assert known["finished"] and len(run["history"]) == run["epochs"] == known["recipe"]["epochs"]
            assert known["architecture"] == f"ssd_lite0_{row.side}"
            animals = [run["ap"][animal] for animal in photos.ANIMALS]
            assert run["animals"] == pytest.approx(sum(animals) / 5, rel=1e-12)
            assert abs(run["images"] - recorded["default"][0]["images"] / row.one_of) < 1


def test_a_tree_is_found_as_it_is_and_in_its_devkit(photos, tmp_path):
    tree = tmp_path / "VOCdevkit" / "VOC2012"
    lists = tree / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    assert [photos.named_tree(one) for one in (None, "", str(tmp_path), str(tree))] == [None] * 4
    (lists / "val.txt").write_text("b\n")
    assert photos.named_tree(str(tmp_path)) == photos.named_tree(str(tree)) == tree


def test_the_seeds_of_fewer_pictures_draw_others_and_leave_the_tree_alone(photos, tmp_path, monkeypatch):
    tree = kitchen(tmp_path / "kitchen")
    lists = tree / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    ids = sorted(path.stem for path in (tree / "Annotations").iterdir())
    (lists / "train.txt").write_text("\n".join(ids) + "\n")
    before = sorted(tree.rglob("*"))
    monkeypatch.setattr(photos, "RUNS", tmp_path / "runs")
    parts = [photos.training_list(tree, 3, seed) for seed in range(3)]
    assert sorted(one for part in parts for one in part.ids) == ids
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts[0].image(0).size and sorted(tree.rglob("*")) == before
    assert photos.training_list(tree, 1, 2).tree == tree


def put_into(photos, monkeypatch, folder, rows):
    """Let the script have these rows, any tree, and a folder of its own."""
    some = {"ROWS": rows, "RESULT": folder / "photos.json", "RUNS": folder / "runs", "named_tree": lambda _: folder}
    for name, value in some.items():
        monkeypatch.setattr(photos, name, value)


def test_nothing_is_trained_that_is_recorded_and_what_ran_is_kept_where_it_is_interrupted(
    photos, tmp_path, monkeypatch, capsys
):
    """The next start does what is missing, and where nothing is, it leaves the record as it is."""
    put_into(photos, monkeypatch, tmp_path, {"one": photos.Row(seeds=2), "other": photos.Row(one_of=3)})
    asked = []

    def run_once(tree, name, row, seed):
        if len(asked) == 1:
            asked.append(None)
            raise SystemExit(143)
        asked.append((name, seed))
        return {"seed": seed, "seconds": 60.0}

    monkeypatch.setattr(photos, "run_once", run_once)
    with pytest.raises(SystemExit):
        photos.main()
    assert json.loads(photos.RESULT.read_text())["runs"] == {"one": [{"seed": 0, "seconds": 60.0}]}
    photos.main()
    assert asked == [("one", 0), None, ("one", 1), ("other", 0)]
    kept = json.loads(photos.RESULT.read_text())
    assert [run["seed"] for run in kept["runs"]["one"]] == [0, 1] and kept["provenance"]["seconds"] == 180
    written = photos.RESULT.stat().st_mtime_ns
    photos.main()
    assert len(asked) == 4 and photos.RESULT.stat().st_mtime_ns == written


def test_two_processes_share_the_rows_of_photos_and_keep_each_others_records(photos, tmp_path, monkeypatch):
    """While one makes a run, the other starts, makes what is left, and ends; then the first one ends."""
    put_into(photos, monkeypatch, tmp_path, {"one": photos.Row(), "other": photos.Row(seeds=2)})
    trained = []

    def run_once(tree, name, row, seed):
        if (name, seed) not in trained:  # else its folder has the result
            trained.append((name, seed))
            if len(trained) == 1:
                photos.main()
        return {"seed": seed, "seconds": 60.0}

    monkeypatch.setattr(photos, "run_once", run_once)
    photos.main()
    assert trained == [("one", 0), ("other", 0), ("other", 1)]
    kept = json.loads(photos.RESULT.read_text())["runs"]
    assert {name: [run["seed"] for run in some] for name, some in kept.items()} == {"one": [0], "other": [0, 1]}


def test_the_case_study_goes_from_both_runs_as_they_were_to_all_repairs(case_study):
    states = list(case_study.states())
    assert len(set(states)) == len(states)
    for name in "AB":
        assert [repaired for one, repaired in states if one == name] == [*range(len(repairs_of(name)) + 1)]


def test_the_surest_detections_are_kept_as_corners_label_and_score(case_study):
    found = Detections(torch.rand(7, 4), torch.linspace(0.9, 0.3, 7), torch.arange(1, 8))
    rows = case_study.shown(found)
    assert [row[4] for row in rows] == [1, 2, 3, 4, 5]
    assert [row[5] for row in rows] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])


def test_a_state_that_is_kept_is_not_trained_again_unless_the_library_has_changed(case_study, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(case_study, "STATES", tmp_path / "states")
    monkeypatch.setattr(case_study, "trained", lambda *state: asked.append(state[:2]) or {"number": len(asked)})
    for state, number in (("one", 1), ("one", 1), ("other", 2), ("other", 2)):
        assert case_study.kept("A", 0, (), state) == {"number": number}
    assert asked == [("A", 0)] * 2


def test_the_record_of_the_case_study_is_of_its_repairs_as_they_are(case_study):
    if not case_study.RESULT.exists():
        pytest.skip("the case study is not recorded: python experiments/case_study.py")
    runs = json.loads(case_study.RESULT.read_text())["runs"]
    assert list(runs) == [f"{name}{repaired}" for name, repaired in case_study.states()]
    for key, (one,) in runs.items():
        name, repaired = key[0], int(key[1:])
        assert one["repaired"] == [repair.name for repair in repairs_of(name)[:repaired]]
        named_by = repairs_of(name)[repaired].named_by if repaired < len(repairs_of(name)) else (None,)
        first = one["findings"][0]["check"] if one["findings"] else None
        assert first in named_by, f"{key}: the doctor begins with {first}"
        assert one["history"][-1]["map"] == one["map"] and len(one["found"]) == case_study.SHOWN
    for name in "AB":  # as the log: the loss falls by more than half, and nothing is found
        ill, well = runs[f"{name}0"][0], runs[f"{name}{len(repairs_of(name))}"][0]
        assert ill["first"] > 1000 and ill["last"] < ill["first"] / 2 and ill["map"] < 0.02 < well["map"]


def test_the_runs_of_chapter_16_have_names_of_their_own_that_a_file_can_have(root, monkeypatch):
    for folder in ("PHOTOS", "CIFAR10"):
        monkeypatch.setenv(folder, "there")
    classifiers, detectors = experiment(root, "convergence"), experiment(root, "mobilenet")
    teacher = detectors.left([])[0]
    small = [name for name in detectors.left([{"name": teacher}]) if name.startswith("small.")]
    for names in (classifiers.names(), [teacher, *detectors.left([{"name": teacher}])]):
        assert len({*names}) == len(names) and all(re.fullmatch(r"\w+\.[\w-]+\.\d", one) for one in names)
    for names in (classifiers.names(), small):
        seeds = [int(one[-1]) for one in names]
        assert seeds == sorted(seeds), "a queue that is interrupted is to be a whole experiment with fewer seeds"


def test_nothing_begins_on_a_trunk_that_is_not_trained(root):
    left = experiment(root, "mobilenet").left
    first, *others = left([])
    assert first.startswith("emoji.ssd_mobilenet_v2") and not any(name.startswith("small.") for name in others)
    assert sum(name.startswith("small.") for name in left([{"name": first}])) >= 3 * 14
    assert left([{"name": name} for name in (first, *left([{"name": first}]))]) == []


def test_arms_of_convergence_are_plans_of_their_own_and_those_on_real_pictures_are_among_them(root):
    script = experiment(root, "convergence")
    arms = script.arms()
    assert len({*arms.values()}) == len(arms) and {*script.ON_REAL} <= {*arms}
    assert arms["baseline"] == script.BASE and next(iter(arms)) == "baseline"


def test_a_run_of_convergence_is_a_line_of_plain_numbers(root, monkeypatch):
    script = experiment(root, "convergence")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 32, 32), generator=generator).to(torch.uint8)
    crops = Crops(images, torch.randint(0, 3, (64,), generator=generator), ("a", "b", "c"))
    monkeypatch.setattr(script, "problems", lambda: {"emoji": lambda: Problem(crops, crops)})
    short = replace(script.BASE, epochs=1, batch_size=16, width=1 / 32)
    monkeypatch.setattr(script, "arms", lambda: {"baseline": short, "too-large": replace(short, learning_rate=1e30)})
    record = script.run("emoji.baseline.0")
    assert record["name"] == "emoji.baseline.0" and record["pictures"] == [64, 64]
    assert [one["step"] for one in record["flow"]] == [0, 1, 2]
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(as_json(record))
    assert json.dumps(script.run("emoji.too-large.1"), allow_nan=False)


@pytest.fixture
def advice_experiment(root):
    return experiment(root, "advice")


@pytest.mark.slow
def test_the_advice_experiment_keeps_every_run_once_with_its_provenance(
    advice_experiment, small_devkit, tmp_path, monkeypatch
):
    """The thinnest queue: two arms, two seeds, one of them recorded already."""
    pool, held_out = (
        trials.shrunk_to(voc.ImageDataset(voc.image_sets(small_devkit, "2007", name)), 96, images)
        for name, images in (("trainval", 16), ("test", 4))
    )
    result = tmp_path / "advice.jsonl"
    result.write_text('{"arm": "baseline", "seed": 0, "map": 0.5, "diverged": null}\n')
    for name, value in {
        "RESULT": result,
        "CLAIMS": tmp_path / "claims",
        "ingredients": lambda: (pool, held_out, held_out, weights.load(profiles.RECORD)),
    }.items():
        monkeypatch.setattr(advice_experiment, name, value)
    names = [advice.name_of(arm, seed) for seed in (0, 1) for arm in ("baseline", "focal")]

    def left(records):
        done = {advice.name_of(one["arm"], one["seed"]) for one in records}
        return [name for name in names if name not in done]

    monkeypatch.setattr(advice, "left", left)
    short = replace(arms.NANO, recipe=replace(arms.RECIPE, warmup_steps=1), steps=2)
    monkeypatch.setattr(arms, "baseline", partial(arms.baseline, scale=short))
    monkeypatch.setattr("sys.argv", ["advice.py"])
    advice_experiment.main()
    written = result.read_text()
    records = queues.read(result)
    assert [(one["arm"], one["seed"]) for one in records] == [
        ("baseline", 0),
        ("focal", 0),
        ("baseline", 1),
        ("focal", 1),
    ]
    assert written.startswith('{"arm": "baseline", "seed": 0, "map": 0.5, "diverged": null}\n')
    for one in records[1:]:
        assert one["steps"] == 2 and {"commit", "date", "device", "cores", "torch"} <= one["provenance"].keys()
        assert len(json.dumps(one)) < 4000
    advice_experiment.main()
    assert result.read_text() == written


def test_the_record_of_the_advice_is_of_its_arms_and_of_clean_commits(advice_experiment):
    """Every run once; its seconds, its curve and the code it is of."""
    if not advice_experiment.RESULT.exists():
        pytest.skip("the advice is not measured: python experiments/advice.py")
    records = queues.read(advice_experiment.RESULT)
    keys = [(one["arm"], one["seed"]) for one in records]
    assert len(set(keys)) == len(keys)
    for one in records:
        assert re.fullmatch("[0-9a-f]{12}", one["provenance"]["commit"]), one["arm"]
        advice.arm_of(one["arm"], records)
        assert one["diverged"] or (0 < len(one["loss"]) <= trials.POINTS and 0 <= one["map"] <= 1)
    assert all(value > 0.25 for value in advice.values(records, "baseline").values())
