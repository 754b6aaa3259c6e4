import errno
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import RECIPE, fresh_model, trainer
from small_backbone import THIN

from course_lib import augment, emoji_voc, evaluation, losses, metrics, profiles, ssd, voc, weights
from course_lib.detect import Detections, detect_image
from course_lib.files import DataError
from course_lib.runs import RunError
from course_lib.training import Trainer, compute
from course_lib.voc import VOCDetection

# Images go through the network in batches here and one by one there: the same sums in another order.
ALIKE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def test_set(small_devkit):
    return VOCDetection(small_devkit, "2007", "test")


@pytest.fixture(scope="module")
def trained():
    return weights.load(profiles.RECORD)


@pytest.fixture(scope="module")
def found(trained, test_set):
    return evaluation.detections(trained, test_set)


def perfect(truth: list[voc.Annotation]) -> list[Detections]:
    """What a network would find that finds all there is."""
    return [Detections(one.boxes, torch.ones(len(one.labels)), one.labels) for one in truth]


def test_a_batch_is_what_the_evaluation_transform_gives_in_the_data_sets_order(small_devkit, test_set):
    """Also where the data set has a transform of its own, and whoever loads it."""
    resized = VOCDetection(small_devkit, "2007", "test", augment.evaluation(64))
    expected = voc.collate([resized[index] for index in range(len(resized))])
    flipped = VOCDetection(small_devkit, "2007", "test", lambda image, target: (image[:, ::-1], target))
    for dataset, workers in ((test_set, 0), (flipped, 1)):
        batches = list(evaluation.loader(dataset, 64, batch_size=5, workers=workers))
        assert [len(batch.images) for batch in batches] == [5, 5, 2]
        assert torch.equal(torch.cat([batch.images for batch in batches]), expected.images)
        assert [image_id for batch in batches for image_id in batch.image_ids] == expected.image_ids


def test_detections_are_those_of_the_pictures_one_by_one(trained, test_set, found):
    assert len(found) == len(test_set)
    for index in range(3):
        alone = detect_image(trained, test_set.load(index)[0])
        sure, expected = found[index].scores > 0.5, alone.scores > 0.5
        assert found[index].labels[sure].tolist() == alone.labels[expected].tolist()
        torch.testing.assert_close(found[index].boxes[sure], alone.boxes[expected], **ALIKE)
        torch.testing.assert_close(found[index].scores[sure], alone.scores[expected], **ALIKE)


def test_a_report_holds_the_measure_of_the_whole_and_of_its_parts(test_set, found):
    truth = test_set.annotations()
    parts = emoji_voc.split_by_emoji(truth)
    report = evaluation.report(found, truth, test_set.classes, "11point", parts)
    assert list(report) == ["mean_ap", "ap", "method", "images", "known", "unseen"]
    for part, ground_truth in ((report, truth), *((report[name], parts[name]) for name in parts)):
        expected = metrics.evaluate_voc(found, ground_truth, method="11point")
        assert part["mean_ap"] == expected.mean_ap and part["ap"] == expected.ap
        assert (part["method"], part["images"]) == ("11point", 12)
    assert json.loads(json.dumps(report)) == report


def test_who_finds_everything_has_one_and_what_cannot_be_measured_is_none(test_set):
    truth = test_set.annotations()
    report = evaluation.report(perfect(truth), truth, test_set.classes)
    assert report["mean_ap"] == 1 and {*report["ap"].values()} <= {1.0, None}
    nothing = [replace(one, difficult=torch.ones_like(one.difficult)) for one in truth]
    report = evaluation.report(perfect(truth), nothing, test_set.classes)
    assert report["mean_ap"] is None and {*report["ap"].values()} == {None}


def test_a_model_is_measured_as_its_detections_are(trained, test_set, found):
    truth = test_set.annotations()
    assert evaluation.evaluate(trained, test_set) == evaluation.report(found, truth, test_set.classes)
    by_parts = evaluation.evaluate(trained, test_set, "11point", emoji_voc.split_by_emoji)
    parts = emoji_voc.split_by_emoji(truth)
    assert by_parts == evaluation.report(found, truth, test_set.classes, "11point", parts)
    result = metrics.evaluate_voc(found, truth)
    assert evaluation.selector(test_set)(trained) == {"map": result.mean_ap, "ap": result.ap}


@pytest.mark.parametrize("loss", [losses.MultiBoxLoss(), losses.FocalLoss()], ids=lambda loss: type(loss).__name__)
def test_the_validation_loss_is_that_of_all_images_as_one_batch(trained, test_set, loss):
    whole = next(iter(evaluation.loader(test_set, trained.image_size, batch_size=12)))
    trained.eval()
    with torch.no_grad():
        expected = compute(trained, whole, loss, match_iou=0.4).parts
    for batch_size in (12, 5):
        measured = evaluation.selector(test_set, batch_size, loss=loss, match_iou=0.4)(trained)
        for name in ("loc", "conf"):
            # Sums of some 10,000 costs in float32, added up in another order.
            assert measured[f"val_{name}"] == pytest.approx(expected[name].item(), rel=1e-5)


def test_a_measurement_leaves_the_model_as_it_was(trained, test_set):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    for training in (True, False):
        trained.train(training)
        evaluation.selector(test_set, loss=losses.MultiBoxLoss())(trained)
        assert trained.training is training
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


# Three of EmojiVOC's classes in an order of their own, as a tree of the reader's has.
OWN = ("person", "dog", "car")


@pytest.mark.filterwarnings("ignore::course_lib.voc.LeftOut")
def test_names_come_from_the_data_set_and_a_model_of_others_is_refused(small_devkit, trained, monkeypatch):
    dataset = VOCDetection(small_devkit, "2007", "test", classes=OWN)
    monkeypatch.setattr(evaluation, "examine", lambda *given: (perfect(dataset.annotations()), {}))
    model = THIN(4, OWN)
    assert evaluation.evaluate(model, dataset)["ap"].keys() == {*OWN}
    assert evaluation.selector(dataset)(model)["map"] == 1.0
    for other in (trained, THIN(4), THIN(4, OWN[::-1])):
        for measure in (evaluation.evaluate, evaluation.detections, lambda m, d: evaluation.selector(d)(m)):
            with pytest.raises(
                RunError, match=r"background \((.*)\), and the data set has 3 \(person, dog, car\)"
            ) as e:
                measure(other, dataset)
            assert ", ".join(other.classes) in str(e.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::course_lib.voc.LeftOut")
def test_a_run_of_a_notebook_of_its_own_classes_is_trained_selected_and_measured(small_devkit, tmp_path):
    """A KeyError once: its provenance names no profile."""
    training_set = VOCDetection(small_devkit, "2007", "val", classes=OWN)
    recipe = replace(RECIPE, epochs=2, batch_size=2, warmup_steps=0)
    select = evaluation.selector(training_set)
    model = ssd.ssd_mini(4, OWN)
    history = Trainer(model, training_set, augment.training_mini(160), recipe, tmp_path, evaluate=select).fit()
    assert history[-1]["map"] == select(model)["map"]

    report = evaluation.evaluate_run(tmp_path, VOCDetection(small_devkit, "2007", "test", classes=OWN))
    assert report["ap"].keys() == {*OWN} and report["images"] == 12
    assert report["weights_of_epoch"] == max(history, key=lambda record: record["map"])["epoch"]
    assert json.loads((tmp_path / "evaluation_area.json").read_text()) == report
    with pytest.raises(RunError, match=r"\(person, dog, car\), and the data set has 20"):
        evaluation.evaluate_run(tmp_path, VOCDetection(small_devkit, "2007", "test"))


@pytest.fixture(scope="module")
def begun(small_devkit, tmp_path_factory):
    """A run without any measurement."""
    one = trainer(small_devkit, tmp_path_factory.mktemp("begun") / "run")
    one.prepare()
    one.progress.history = [{"epoch": 1}, {"epoch": 2}]
    one.save()
    return one.run


def test_the_weights_of_a_run_without_measurements_are_its_last(begun, test_set, monkeypatch):
    monkeypatch.setattr(evaluation, "examine", lambda *given: (perfect(test_set.annotations()), {}))
    report = evaluation.evaluate_run(str(begun), test_set, "11point")
    assert report["weights_of_epoch"] is None and report["mean_ap"] == 1
    assert json.loads((begun / "evaluation_11point.json").read_text()) == report


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_run_that_cannot_be_written_is_measured_all_the_same(begun, test_set, monkeypatch, number):
    """evaluate on a read-only folder printed nothing, because it could not write."""

    def refuse(path, content):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(evaluation, "examine", lambda *given: (perfect(test_set.annotations()), {}))
    monkeypatch.setattr(evaluation, "write_whole", refuse)
    with pytest.warns(RuntimeWarning, match=r"the result is not kept: .*evaluation_area\.json"):
        assert evaluation.evaluate_run(begun, test_set)["mean_ap"] == 1


def test_weights_of_another_architecture_than_the_run_has_trained_are_not_measured(begun, test_set, tmp_path):
    (tmp_path / "provenance.json").write_bytes((begun / "provenance.json").read_bytes())
    weights.save(ssd.ssd_nano(), tmp_path / "best.safetensors")
    with pytest.raises(RunError, match=r"best\.safetensors is ssd_nano, and this run trained thin"):
        evaluation.evaluate_run(tmp_path, test_set)


@pytest.mark.parametrize(
    ("left", "error", "said"),
    [
        ((), RunError, r"provenance\.json is missing: train first"),
        (("provenance.json",), DataError, r"best\.safetensors: file is 'missing'"),
    ],
)
def test_a_folder_without_a_runs_files_is_named(begun, test_set, tmp_path, left, error, said):
    for name in left:
        (tmp_path / name).write_bytes((begun / name).read_bytes())
    with pytest.raises(error, match=said):
        evaluation.evaluate_run(tmp_path, test_set)


def test_a_broken_annotation_is_found_before_anything_is_computed(small_devkit, tmp_path, monkeypatch):
    shutil.copytree(small_devkit / "VOC2007", tmp_path / "VOC2007")
    dataset = VOCDetection(tmp_path, "2007", "test")
    path = voc.annotation_path(tmp_path, "2007", dataset.items[-1][1])
    path.write_text(path.read_text()[:100])
    monkeypatch.setattr(evaluation, "examine", lambda *given: pytest.fail("computed"))
    for measure in (lambda: evaluation.evaluate(fresh_model(), dataset), lambda: evaluation.selector(dataset)):
        with pytest.raises(DataError, match=path.name):
            measure()


def break_image(kind: str, path: Path) -> None:
    match kind:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:1500])
        case "empty":
            path.write_bytes(b"")
        case "of another size":
            Image.new("RGB", (30, 20)).save(path)


@pytest.fixture
def own_copy(small_devkit, tmp_path):
    """A test set to break."""
    shutil.copytree(small_devkit / "VOC2007", tmp_path / "VOC2007")
    return VOCDetection(tmp_path, "2007", "test")


@pytest.mark.parametrize(("kind", "workers"), [("missing", 0), ("cut", 1), ("empty", 0), ("of another size", 1)])
def test_an_image_that_breaks_during_a_run_costs_a_measurement_and_not_the_run(own_copy, kind, workers):
    """It ended the run at its first measurement once, and again whenever it was gone on with."""
    select = evaluation.selector(own_copy, workers=workers)
    path = voc.image_path(own_copy.sets[0].tree.parent, "2007", own_copy.items[3][1])
    break_image(kind, path)
    with pytest.warns(UserWarning, match=rf"{path.name}: image.*: this measurement is left out, and the run goes on"):
        measured = select(fresh_model())
    assert measured.keys() == {"map"} and math.isnan(measured["map"])


@pytest.mark.slow
def test_a_run_goes_on_after_a_measurement_that_failed_and_its_history_says_null(own_copy, small_devkit, tmp_path):
    """Nor is that epoch ever the best, whatever comes after it."""
    select = evaluation.selector(own_copy)
    path = voc.image_path(own_copy.sets[0].tree.parent, "2007", own_copy.items[0][1])
    whole = path.read_bytes()

    def break_or_mend(record: dict) -> None:
        path.write_bytes(b"" if record["epoch"] == 1 else whole)

    one = trainer(small_devkit, tmp_path / "run", evaluate=select, report=break_or_mend)
    with pytest.warns(UserWarning, match="this measurement is left out"):
        one.fit()
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    history = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [record["map"] is None for record in history] == [False, True, False]
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["best_epoch"] in (1, 3)


@pytest.mark.parametrize("spoil", ["weights", "statistics", "overflow"])
def test_a_network_whose_outputs_are_not_finite_is_no_network_that_finds_nothing(test_set, spoil):
    model = fresh_model()
    with torch.no_grad():
        match spoil:
            case "weights":
                model.conf_heads[0].weight[0] = math.nan
            case "statistics":
                next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean[0] = math.nan
            case "overflow":
                model.loc_heads[1].weight.fill_(3e38)
    for measure in (evaluation.evaluate, evaluation.detections, lambda m, d: evaluation.selector(d)(m)):
        with pytest.raises(RunError, match="outputs are not finite on the images 0000"):
            measure(model, test_set)


def test_images_without_an_object_that_counts_are_measured_with_a_warning_and_give_none(own_copy):
    for _, image_id in own_copy.items:
        path = voc.annotation_path(own_copy.sets[0].tree.parent, "2007", image_id)
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    with pytest.warns(UserWarning, match="no object that counts"):
        report = evaluation.evaluate(fresh_model(), own_copy)
    assert report["mean_ap"] is None and {*report["ap"].values()} == {None}
