import shlex
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import RECIPE, fresh_model, trainer

from course_lib import augment, runs, ssd, weights
from course_lib.files import DataError
from course_lib.losses import FocalLoss
from course_lib.runs import RunError, best_epoch, read_history, read_provenance
from course_lib.training import Trainer
from course_lib.voc import VOC_CLASSES, VOCDetection


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"history\.jsonl is missing"):
        read_history(tmp_path)


@pytest.fixture(scope="module")
def begun(small_devkit, tmp_path_factory):
    """A run that was stopped after its first epoch."""
    run = tmp_path_factory.mktemp("begun") / "run"
    one = trainer(small_devkit, run, replace(RECIPE, batch_size=2), image_set="val")
    one.prepare()
    one.history, one.seconds = [{"epoch": 1, "map": 0.5}], 1.0
    one.save()
    return run


def other_trainer(devkit, run, model=None, **changed):
    """A trainer for `begun`; of another model, or recipe."""
    model = model or fresh_model()
    dataset = VOCDetection(devkit, "2007", "val", classes=VOC_CLASSES[: model.num_classes - 1])
    return Trainer(model, dataset, augment.training_mini(160), replace(RECIPE, batch_size=2, **changed), run)


def three_classes():
    return ssd.ssd_mini(4, VOC_CLASSES[:3])


@pytest.mark.parametrize("left", ["state.pt", "last.safetensors", "both"])
@pytest.mark.parametrize(
    ("model", "was", "now"),
    [
        (three_classes, "num_classes=21", "num_classes=4"),
        (ssd.ssd300_vgg16, "architecture='ssd_mini'", "architecture='ssd300_vgg16'"),
    ],
)
def test_a_run_of_another_model_is_refused_and_kept(small_devkit, begun, tmp_path, left, model, was, now):
    names = ["state.pt", "last.safetensors"] if left == "both" else [left]
    for name in names:
        shutil.copy(begun / name, tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=rf"was started with .*{was}.*asked for now .*{now}.*another folder, or --fresh"):
        other_trainer(small_devkit, tmp_path, model()).fit()
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_state_from_before_it_named_its_model_is_gone_on_with_or_refused(small_devkit, begun, tmp_path):
    state = torch.load(begun / "state.pt", weights_only=True)
    named = [state.pop(name) for name in ("architecture", "num_classes", "classes")]
    assert named == ["ssd_mini", 21, VOC_CLASSES]
    torch.save(state, tmp_path / "state.pt")
    one = other_trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert [record["epoch"] for record in one.history] == [1]
    for model, named in ((three_classes, "ssd_mini with num_classes=4"), (ssd.ssd300_vgg16, "ssd300_vgg16 with num_")):
        with pytest.raises(RunError, match=rf"another model than the {named}.*--fresh") as refused:
            other_trainer(small_devkit, tmp_path, model()).fit()
        assert len(str(refused.value)) < 600


@pytest.mark.parametrize("left", ["state.pt", "last.safetensors"])
def test_a_run_of_other_classes_is_refused_with_both_lists_and_one_without_names_goes_on(small_devkit, tmp_path, left):
    def one(classes):
        dataset = VOCDetection(small_devkit, "2007", "val", classes=classes)
        recipe = replace(RECIPE, batch_size=2)
        return Trainer(ssd.ssd_mini(4, classes), dataset, augment.training_mini(160), recipe, tmp_path)

    begun = one(("cat", "dog", "bird"))
    begun.prepare()
    begun.history = [{"epoch": 1}]
    begun.save()
    (tmp_path / ({"state.pt", "last.safetensors"} - {left}).pop()).unlink()
    one(("cat", "dog", "bird")).start_or_resume()
    for other in (("cat", "dog", "horse"), ("dog", "cat", "bird")):
        with pytest.raises(RunError) as refused:
            one(other).start_or_resume()
        assert str(refused.value) == (
            f"{tmp_path if left == 'state.pt' else tmp_path / left} was started with classes=('cat', 'dog', 'bird'), "
            f"which is not what is asked for now (classes={other}): {runs.ANEW}"
        )
    if left == "state.pt":
        state = torch.load(tmp_path / left, weights_only=True)
        state.pop("classes")  # as it was before the names were kept
        torch.save(state, tmp_path / left)
        gone_on = one(("cat", "dog", "horse"))
        gone_on.start_or_resume()
        assert gone_on.history == [{"epoch": 1}]


def test_a_refused_run_leaves_the_model_as_it_was(small_devkit, begun):
    one = other_trainer(small_devkit, begun, frozen_blocks=2)
    one.loss = FocalLoss()
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    with pytest.raises(RunError, match="frozen_blocks"):
        one.fit()
    assert one.model.scoring == "softmax" and all(p.requires_grad for p in one.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.model.state_dict().items())


def test_a_state_of_an_earlier_edition_is_gone_on_with_or_refused_under_todays_names(small_devkit, begun, tmp_path):
    """It calls the backbone trunk, and L2Norm was no part of it."""
    state = torch.load(begun / "state.pt", weights_only=True)
    state["recipe"]["trunk_factor"] = state["recipe"].pop("backbone_factor")
    state["model"]["l2_norm.weight"] = state["model"].pop("backbone.l2_norm.weight") * 3
    torch.save(state, tmp_path / "state.pt")
    one = other_trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert [record["epoch"] for record in one.history] == [1]
    for name, tensor in one.model.state_dict().items():
        kept = state["model"]["l2_norm.weight"] if "l2_norm" in name else state["model"][name]
        assert torch.equal(tensor, kept), name
    with pytest.raises(
        RunError, match=r"was started with backbone_factor=1\.0, .*asked for now \(backbone_factor=0\.5"
    ):
        other_trainer(small_devkit, tmp_path, backbone_factor=0.5).fit()


def test_a_refusal_names_what_differs_and_nothing_else(small_devkit, begun):
    with pytest.raises(RunError) as refused:
        other_trainer(small_devkit, begun, learning_rate=1e-4, seed=3).fit()
    assert str(refused.value) == (
        f"{begun} was started with learning_rate=0.001, seed=0, which is not what is asked for now "
        "(learning_rate=0.0001, seed=3): choose another folder, or --fresh, which moves this one aside"
    )


@pytest.mark.parametrize("left", [0, 1, 100, 5000, -1])
def test_a_state_that_was_cut_short_is_named_and_kept(small_devkit, begun, tmp_path, left):
    content = (begun / "state.pt").read_bytes()[:left]
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"state\.pt is cut short or no run's state .*--fresh") as refused:
        other_trainer(small_devkit, tmp_path).fit()
    assert "\n" not in str(refused.value) and (tmp_path / "state.pt").read_bytes() == content


@pytest.mark.parametrize("what", [b"a text", b"PK\x03\x04", [1, 2], {"model": {}}, 3.0])
def test_a_file_that_is_no_state_is_named_and_kept(small_devkit, tmp_path, what):
    path = tmp_path / "state.pt"
    path.write_bytes(what) if isinstance(what, bytes) else torch.save(what, path)
    content = path.read_bytes()
    with pytest.raises(RunError, match=r"state\.pt is (cut short|no run's state, without recipe, ).*--fresh"):
        other_trainer(small_devkit, tmp_path).fit()
    assert path.read_bytes() == content


def test_what_training_leaves_in_the_folder_can_be_read_again(begun):
    assert {path.name for path in begun.iterdir()} == {
        *("last.safetensors", "best.safetensors", "history.jsonl", "provenance.json", "state.pt")
    }
    assert read_history(begun) == [{"epoch": 1, "map": 0.5}]
    provenance = read_provenance(begun)
    assert (provenance["best_epoch"], provenance["architecture"], provenance["finished"]) == (1, "ssd_mini", False)
    assert tuple(provenance["classes"]) == weights.load(begun / "best.safetensors").classes == VOC_CLASSES


@given(st.lists(st.sampled_from([None, 0.1, 0.2, 0.3]), max_size=8))
def test_the_best_epoch_is_the_first_of_the_highest(measured):
    history = [{"epoch": e} | ({} if m is None else {"map": m}) for e, m in enumerate(measured, start=1)]
    known = [m for m in measured if m is not None]
    assert best_epoch(history) == (measured.index(max(known)) + 1 if known else None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[]", "best_epoch is 'missing'"),
        (b'{"profile": "cpu"}', "best_epoch is 'missing'"),
    ],
)
def test_a_provenance_that_cannot_be_used_is_named(tmp_path, content, said):
    (tmp_path / "provenance.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_provenance(tmp_path)


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "$HOME `ls`", "[red]x[/red]"])
def test_without_provenance_the_command_that_makes_one_is_named(tmp_path, name):
    with pytest.raises(RunError, match=r"provenance\.json is missing: train first, ") as refused:
        read_provenance(tmp_path / name)
    command = str(refused.value).split("first, ")[1]
    assert shlex.split(command) == ["python", "-m", "course_lib", "train", "--run", str(tmp_path / name)]


def test_the_command_in_the_provenance_can_be_pasted(monkeypatch):
    given = ["train", "--run", "runs/my 'first' run"]
    monkeypatch.setattr("sys.argv", ["/x/course_lib/__main__.py", *given])
    assert shlex.split(runs.environment()["command"]) == ["python", "-m", "course_lib", *given]


def test_two_runs_moved_aside_in_one_second_are_both_kept(tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runs, "datetime", Clock)
    run, stamped = tmp_path / "a run", "a run.20260102-030405"
    assert runs.move_aside(run) is None
    for text in ("first", "second", "third"):
        run.mkdir()
        (run / "file").write_text(text)
        assert (runs.move_aside(run) / "file").read_text() == text
    kept = {path.name: (path / "file").read_text() for path in tmp_path.iterdir()}
    assert kept == {stamped: "first", f"{stamped}-2": "second", f"{stamped}-3": "third"}
    (tmp_path / stamped / "file").unlink()  # rename would replace an empty folder
    run.mkdir()
    runs.move_aside(run)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("known", "asked", "said"),
    [
        (
            None,
            ("cat",),
            r"num_classes=4, .*3 and background \(class 1, class 2, class 3\), .* has 1 \(cat\): .*num_classes=2",
        ),
        (
            ("a", "b", "c"),
            ("a", "c", "b"),
            r"\(a, b, c\), .* has 3 \(a, c, b\): .*set model\.classes = dataset\.classes",
        ),
        (None, ("a", "b", "c"), r"\(class 1, class 2, class 3\), .* has 3 \(a, b, c\)"),
    ],
)
def test_a_model_of_other_classes_is_refused_with_both_lists(known, asked, said):
    model = ssd.ssd_mini(4, known)
    with pytest.raises(RunError, match=said):
        runs.refuse_other_classes(model, asked)
    if len(asked) == 3:
        model.classes = asked  # as the error says
        runs.refuse_other_classes(model, list(asked))
