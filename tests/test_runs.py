import errno
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import RECIPE, fresh_model, hold, of_twelve, trainer
from small_backbone import THIN

from course_lib import augment, runs, ssd, weights
from course_lib.files import DataError, is_alive
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
    one.progress.history, one.progress.seconds = [{"epoch": 1, "map": 0.5}], 1.0
    one.save()
    return run


def other_trainer(devkit, run, model=None, **changed):
    """A trainer for `begun`; of another model, or recipe."""
    model = model or fresh_model()
    dataset = VOCDetection(devkit, "2007", "val", classes=VOC_CLASSES[: model.num_classes - 1])
    return Trainer(
        model, dataset, augment.training_mini(THIN.spec.image_size), replace(RECIPE, batch_size=2, **changed), run
    )


def contents(run):
    """Every file of a run with its bytes; the lock is nobody's property."""
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"}


def three_classes():
    return THIN(4, VOC_CLASSES[:3])


@pytest.mark.parametrize("left", ["state.pt", "last.safetensors", "both"])
@pytest.mark.parametrize(
    ("model", "was", "now"),
    [
        (three_classes, "num_classes=21", "num_classes=4"),
        (ssd.ssd_nano, "architecture='thin'", "architecture='ssd_nano'"),
    ],
)
@pytest.mark.filterwarnings("ignore::course_lib.voc.LeftOut")
def test_a_run_of_another_model_is_refused_and_kept(small_devkit, begun, tmp_path, left, model, was, now):
    names = ["state.pt", "last.safetensors"] if left == "both" else [left]
    for name in names:
        shutil.copy(begun / name, tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=rf"was started with .*{was}.*asked for now .*{now}.*another folder, or --fresh"):
        other_trainer(small_devkit, tmp_path, model()).fit()
    assert before == contents(tmp_path)


@pytest.mark.filterwarnings("ignore::course_lib.voc.LeftOut")
def test_a_state_from_before_it_named_its_model_is_gone_on_with_or_refused(small_devkit, begun, tmp_path):
    state = torch.load(begun / "state.pt", weights_only=True)
    named = [state.pop(name) for name in ("architecture", "num_classes", "classes")]
    assert named == ["thin", 21, VOC_CLASSES]
    torch.save(state, tmp_path / "state.pt")
    one = other_trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert [record["epoch"] for record in one.progress.history] == [1]
    for model, named in ((three_classes, "thin with num_classes=4"), (ssd.ssd_nano, "ssd_nano with num_")):
        with pytest.raises(RunError, match=rf"another model than the {named}.*--fresh") as refused:
            other_trainer(small_devkit, tmp_path, model()).fit()
        assert len(str(refused.value)) < 600


@pytest.mark.parametrize("left", ["state.pt", "last.safetensors"])
@pytest.mark.filterwarnings("ignore::course_lib.voc.LeftOut")
def test_a_run_of_other_classes_is_refused_with_both_lists_and_one_without_names_goes_on(small_devkit, tmp_path, left):
    def one(classes):
        dataset = VOCDetection(small_devkit, "2007", "val", classes=classes)
        recipe = replace(RECIPE, batch_size=2)
        return Trainer(THIN(4, classes), dataset, augment.training_mini(THIN.spec.image_size), recipe, tmp_path)

    begun = one(("cat", "dog", "bird"))
    begun.prepare()
    begun.progress.history = [{"epoch": 1}]
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
        assert gone_on.progress.history == [{"epoch": 1}]


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
    assert [record["epoch"] for record in one.progress.history] == [1]
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


def spoilt(path, how):
    """A file as a disk may leave it; 64 flipped bytes were once loaded and trained on."""
    content = bytearray(path.read_bytes())
    match how:
        case "empty":
            content.clear()
        case "cut":
            del content[len(content) // 2 :]
        case "a byte short":
            content.pop()
        case "flipped":
            places = torch.randint(2000, len(content) - 2000, (64,), generator=torch.Generator().manual_seed(0))
            for place in places.tolist():
                content[place] ^= 4
        case "a text":
            content[:] = b"a text"
    path.write_bytes(content)


def without(path, name):
    state = torch.load(path, weights_only=True)
    del state[name]
    torch.save(state, path)


def poisoned(path):
    """As an earlier edition saved weights that became NaN in an epoch's last step."""
    state = torch.load(path, weights_only=True)
    state["model"]["loc_heads.0.bias"][0] = torch.nan
    torch.save(state, path)


SPOILT = [*((spoilt, how) for how in ("empty", "cut", "a byte short", "flipped", "a text"))]
SPOILT += [*((without, name) for name in ("images", "model", "optimizer")), (lambda path, how: poisoned(path), "NaN")]
NAMED = r"(state|weights|images|model|optimizer) is "


@pytest.fixture(scope="module")
def twice(small_devkit, tmp_path_factory):
    """A run that was kept after its first epoch and after its second."""
    run = tmp_path_factory.mktemp("twice") / "run"
    one = trainer(small_devkit, run, replace(RECIPE, batch_size=2), image_set="val")
    one.prepare()
    for epoch in (1, 2):
        one.progress.history.append({"epoch": epoch, "map": epoch / 10})
        one.progress.best = {name: tensor + epoch for name, tensor in one.model.state_dict().items()}
        one.save()
    return run


@pytest.mark.parametrize(("spoil", "how"), SPOILT, ids=[how for _, how in SPOILT])
def test_a_broken_state_falls_back_to_the_one_before_and_with_both_broken_is_named(
    small_devkit, twice, tmp_path, spoil, how
):
    """It was a RuntimeError, an EOFError, an UnpicklingError or a KeyError, each with its traceback."""
    for name in ("state.pt", "state.before.pt"):
        shutil.copy(twice / name, tmp_path / name)
    spoil(tmp_path / "state.pt", how)
    one = other_trainer(small_devkit, tmp_path)
    with pytest.warns(RuntimeWarning, match=rf"state\.pt: {NAMED}.*goes on from .*state\.before\.pt: 1 epochs") as told:
        one.start_or_resume()
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert one.progress.history == read_history(tmp_path) == [{"epoch": 1, "map": 0.1}]
    one.save()  # the good one stays the one before
    one = other_trainer(small_devkit, tmp_path)
    one.start_or_resume()
    assert runs.sound_state(tmp_path / "state.before.pt")["history"] == one.progress.history
    assert (tmp_path / "state.broken.pt").exists()
    for name in ("state.pt", "state.before.pt"):
        spoil(tmp_path / name, how)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=rf"state\.pt: {NAMED}.*state\.before\.pt: {NAMED}.*restore.*--fresh") as error:
        other_trainer(small_devkit, tmp_path).fit()
    assert "\n" not in str(error.value) and contents(tmp_path) == before


def test_between_two_renames_of_a_save_there_is_the_state_before(small_devkit, twice, tmp_path):
    shutil.copy(twice / "state.before.pt", tmp_path)
    one = other_trainer(small_devkit, tmp_path)
    with pytest.warns(RuntimeWarning, match=r"state\.pt is missing; the run goes on from the state before"):
        one.start_or_resume()
    assert [record["epoch"] for record in one.progress.history] == [1]


@pytest.mark.parametrize("what", [b"a text", b"PK\x03\x04", [1, 2], {"model": {}}, 3.0])
def test_a_file_that_is_no_state_is_named_and_kept(small_devkit, tmp_path, what):
    path = tmp_path / "state.pt"
    path.write_bytes(what) if isinstance(what, bytes) else torch.save(what, path)
    content = path.read_bytes()
    with pytest.raises(RunError, match=r"state\.pt: (state|recipe, loss, .*) is .*--fresh"):
        other_trainer(small_devkit, tmp_path).fit()
    assert path.read_bytes() == content


MADE = ("last.safetensors", "best.safetensors", "history.jsonl", "provenance.json")


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "a text", "the other's"])
def test_what_is_made_from_the_state_is_made_again_where_it_says_something_else(
    small_devkit, twice, tmp_path, name, how
):
    """Killed between best and the state, the best epoch's weights were gone and nothing said so."""
    run = shutil.copytree(twice, tmp_path / "run")
    if how == "missing":
        (run / name).unlink()
    elif how == "the other's":
        others = {"last.safetensors": "best.safetensors", "best.safetensors": "last.safetensors"}
        texts = {"history.jsonl": '{"epoch": 1, "map": 0.9}\n', "provenance.json": '{"best_epoch": 7}'}
        (run / name).write_bytes((run / others[name]).read_bytes() if name in others else texts[name].encode())
    else:
        spoilt(run / name, how)
    other_trainer(small_devkit, run).start_or_resume()
    for made in MADE[:2]:
        found, expected = (weights.load(folder / made).state_dict() for folder in (run, twice))
        assert all(torch.equal(found[key], expected[key]) for key in expected), made
    assert all((run / made).read_bytes() == (twice / made).read_bytes() for made in MADE[2:])


def test_what_says_what_the_state_says_is_not_written_again(small_devkit, twice, tmp_path):
    run = shutil.copytree(twice, tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    other_trainer(small_devkit, run).start_or_resume()
    assert before == {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


def of_an_earlier_edition(run):
    """A state that knew no best weights and no place within an epoch."""
    state = torch.load(run / "state.pt", weights_only=True)
    for name in ("best", "done", "elapsed", "sums", "random", "changes", "provenance"):
        del state[name]
    del state["recipe"]["schedule"]  # a field that an update has added
    torch.save(state, run / "state.pt")


def test_a_state_from_before_it_kept_the_best_weights_takes_them_from_their_file(small_devkit, twice, tmp_path):
    run = shutil.copytree(twice, tmp_path / "run")
    state = torch.load(run / "state.pt", weights_only=True)
    state["history"] = [{"epoch": 1, "map": 0.3}, {"epoch": 2, "map": 0.2}]
    torch.save(state, run / "state.pt")
    of_an_earlier_edition(run)
    one = other_trainer(small_devkit, run)
    one.start_or_resume()
    best = weights.load(run / "best.safetensors").state_dict()
    assert all(torch.equal(tensor, one.progress.best[name]) for name, tensor in best.items())
    assert (one.progress.done, one.progress.sums, one.progress.changes) == (0, {}, [])
    (run / "best.safetensors").write_bytes(b"")
    one = other_trainer(small_devkit, run)
    with pytest.warns(RuntimeWarning, match=r"best\.safetensors: weights is .*epoch 1 are gone"):
        one.start_or_resume()
    assert runs.holds(run / "best.safetensors", one.model.state_dict(), weights.describe(one.model))


def test_what_training_leaves_in_the_folder_can_be_read_again(begun):
    assert contents(begun).keys() == {*MADE, "state.pt"}
    assert read_history(begun) == [{"epoch": 1, "map": 0.5}]
    provenance = read_provenance(begun)
    assert (provenance["best_epoch"], provenance["architecture"], provenance["finished"]) == (1, "thin", False)
    assert tuple(provenance["classes"]) == weights.load(begun / "best.safetensors").classes == VOC_CLASSES


@given(st.lists(st.sampled_from(["not", None, float("nan"), float("inf"), 0.1, 0.2, 0.3]), max_size=8))
def test_the_best_epoch_is_the_first_of_the_highest_and_what_is_no_number_never_is(measured):
    """NaN once was the best for ever: nothing is more than it."""
    history = [{"epoch": e} | ({} if m == "not" else {"map": m}) for e, m in enumerate(measured, start=1)]
    known = [m for m in measured if m in (0.1, 0.2, 0.3)]
    assert best_epoch(history) == (measured.index(max(known)) + 1 if known else None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"", "JSON"),
        (b"[]", "best_epoch is 'missing'"),
        (b'{"profile": "cpu"}', "best_epoch is 'missing'"),
    ],
)
def test_a_provenance_that_cannot_be_used_is_named(tmp_path, content, said):
    (tmp_path / "provenance.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"provenance\.json: {said}.*makes it again from state\.pt") as error:
        read_provenance(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"[]", b"3", b"{}", b"", b'{"epoch": 2, "loc": 0.', b"x" * 500])
def test_a_history_that_cannot_be_used_is_named_with_its_line(tmp_path, line):
    """It was a JSONDecodeError without a file's name."""
    (tmp_path / "history.jsonl").write_bytes(b'{"epoch": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"history\.jsonl: line 2 is .*makes it again from state\.pt") as error:
        read_history(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


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


def test_a_commit_has_a_mark_where_code_was_changed_and_none_where_results_were(tmp_path, monkeypatch):
    """An experiment adds to its recorded results: that is no other code."""
    code, result = tmp_path / "course_lib" / "runs.py", tmp_path / "experiments" / "results" / "advice.jsonl"
    for path in (code, result):
        path.parent.mkdir(parents=True)
        path.write_text("1\n")
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(runs, "__file__", str(code))
    clean = runs.commit()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    result.write_text("2\n")
    assert runs.commit() == clean
    code.write_text("2\n")
    assert runs.commit() == f"{clean}+"


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
    model = THIN(4, known)
    with pytest.raises(RunError, match=said):
        runs.refuse_other_classes(model, asked)
    if len(asked) == 3:
        model.classes = asked  # as the error says
        runs.refuse_other_classes(model, list(asked))


def test_weights_and_momenta_that_are_not_finite_are_never_saved_over_the_good_state(small_devkit, tmp_path):
    """What became NaN in an epoch's last step was saved, and every resume failed."""
    one = of_twelve(small_devkit, tmp_path)
    one.prepare()
    one.step(one.model, next(iter(one.loader)))
    momenta = one.optimizer.state[one.optimizer.param_groups[2]["params"][0]]["exp_avg"]
    named = {"loc_heads.0.bias": one.model.loc_heads[0].bias.data, "momentum .* exp_avg": momenta}
    for name, tensor in named.items():
        one.save()
        good, kept = tensor.clone(), contents(tmp_path)
        tensor.view(-1)[0] = torch.nan
        with pytest.raises(
            RunError, match=rf"{name} became NaN.*state\.pt is as it was.*learning_rate=0\.0005 goes on"
        ):
            one.save()
        assert contents(tmp_path) == kept
        tensor.copy_(good)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 3}, "seed=0, .*seed=3"),
        ({"batch_size": 2}, "batch_size=4, .*batch_size=2"),
        ({"epochs": 1}, "epochs=2, .*epochs=1"),
        ({"weight_decay": 0.0, "learning_rate": 0.5}, r"weight_decay=0\.0005, .*weight_decay=0\.0"),
    ],
    ids=str,
)
def test_what_a_run_cannot_change_is_refused_by_name_even_where_it_is_asked(small_devkit, tmp_path, changed, said):
    """Two dictionaries of 600 characters it was."""
    begun = of_twelve(small_devkit, tmp_path)
    begun.prepare()
    begun.save()
    recipe = replace(begun.recipe, warmup_steps=2, **changed)
    with pytest.raises(RunError, match=f"was started with {said}.*--fresh") as refused:
        of_twelve(small_devkit, tmp_path, recipe=recipe, may_change=[*changed]).fit()
    assert "learning_rate" not in str(refused.value) and len(str(refused.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("field", ["micro_batches", "workers", "channels_last"])
def test_how_the_same_is_computed_may_differ_from_one_machine_to_the_next(small_devkit, tmp_path, field):
    begun = of_twelve(small_devkit, tmp_path)
    begun.prepare()
    begun.save()
    value = {"micro_batches": 2, "workers": 0, "channels_last": False}[field]
    of_twelve(small_devkit, tmp_path, recipe=replace(begun.recipe, **{field: value})).start_or_resume()


@pytest.mark.slow
def test_a_second_process_is_refused_with_one_line_and_the_lock_dies_with_the_first(small_devkit, tmp_path):
    """Seed 3, then seed 4 two seconds later: both said complete, best was the one's and the state the other's."""
    context = multiprocessing.get_context("spawn")
    told, run = context.Queue(), tmp_path / "run"
    process = context.Process(target=hold, args=(run, told))
    process.start()
    pid, loader = told.get(timeout=1200)
    try:
        for use in (lambda: runs.held(run).__enter__(), of_twelve(small_devkit, run).fit, lambda: runs.move_aside(run)):
            with pytest.raises(RunError, match=rf"run is trained into by process {pid} on .*another folder$"):
                use()
        with pytest.raises(RunError, match=r"history\.jsonl is missing"):  # who only reads needs no lock
            read_history(run)
        process.kill()
        process.join()
        with runs.held(run), runs.held(run):  # one process may hold it twice
            assert is_alive(loader)
    finally:
        process.kill()
        os.kill(loader, signal.SIGKILL)
    assert runs.move_aside(run).is_dir() and not run.exists()


def test_what_a_killed_process_left_unfinished_goes_with_the_next_start(tmp_path):
    """30 MB for each kill during a save, which nobody removed."""
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    for name in ("state.pt", "last.safetensors"):
        (tmp_path / f"{name}.{dead.pid}.unfinished").write_bytes(bytes(100))
    alive = tmp_path / f"evaluation_area.json.{os.getppid()}.unfinished"
    alive.write_text("")
    with runs.held(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", alive.name}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_computed(tmp_path, monkeypatch, number):
    """It was found after all of the pretraining."""

    def refuse(path, content, before=None):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(runs, "write_whole", refuse)
    with pytest.raises(RunError, match=rf"run cannot be written \({os.strerror(number)}\): .*another folder"):
        runs.held(tmp_path / "run").__enter__()


@pytest.mark.parametrize("write", range(1, 6))
def test_a_disk_that_is_full_in_the_middle_of_a_save_is_named_and_leaves_a_state(
    small_devkit, twice, tmp_path, monkeypatch, write
):
    run, left, fsync = shutil.copytree(twice, tmp_path / "run"), iter(range(1, write)), os.fsync
    one = other_trainer(small_devkit, run)
    one.start_or_resume()
    one.progress.history.append({"epoch": 3, "map": 0.5})
    one.progress.best = {name: tensor + 3 for name, tensor in one.model.state_dict().items()}
    one.model.load_state_dict(one.progress.best)

    def full(descriptor):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    names = ["state.pt", "history.jsonl", "provenance.json", "last.safetensors", "best.safetensors"]
    with pytest.raises(
        RunError, match=rf"{names[write - 1]} cannot be written \(No space left.*the same command goes on"
    ):
        one.save()
    monkeypatch.undo()
    again = other_trainer(small_devkit, run)
    again.start_or_resume()
    assert len(again.progress.history) == (2 if write == 1 else 3) == len(read_history(run))
    assert runs.holds(run / "best.safetensors", again.progress.best, weights.describe(again.model))
