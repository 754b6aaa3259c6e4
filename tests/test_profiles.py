from dataclasses import replace

import pytest
import torch

from course_lib import profiles, ssd, weights
from course_lib.files import DataError


@pytest.fixture
def small(small_devkit):
    """The cpu profile on the small EmojiVOC."""
    return replace(profiles.cpu(), devkit=small_devkit, workers=0)


def test_the_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    assert profiles.profile().name == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert profiles.profile().name == "gpu" and profiles.profile("cpu").name == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "tpu")
    with pytest.raises(ValueError, match=r"'tpu'.*cpu or gpu"):
        profiles.profile()


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_nothing_is_chosen_or_measured_on_training_images(name):
    profile = profiles.profile(name)
    inside = {"trainval": {"train", "val"}}

    def parts(year, image_set):
        return {(year, part) for part in inside.get(image_set, {image_set})}

    training = set().union(*(parts(*pair) for pair in profile.train_on))
    assert not training & parts(*profile.select_on)
    assert not training & parts(*profile.test_on)
    assert not parts(*profile.select_on) & parts(*profile.test_on)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
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
    assert set(measured) == {"map"} and 0 <= measured["map"] <= 1
    assert len(small.detections(small.model(), *small.test_on)) == 12


def test_missing_voc_is_named_with_the_cure(tmp_path):
    profile = replace(profiles.gpu(), devkit=tmp_path)
    with pytest.raises(DataError, match=r"VOC20.*unpack Pascal VOC there"):
        profile.prepare()


def test_without_its_trunk_weights_a_run_does_not_begin_unless_that_is_wanted(tmp_path):
    profile = replace(profiles.gpu(), device="cpu", trunk_weights=tmp_path / "vgg16.pth")
    with pytest.raises(DataError, match=r"vgg16\.pth.*missing.*download vgg16.*trunk_weights=None.*profiles\.gpu"):
        profile.start(tmp_path / "run")
    random = replace(profile, trunk_weights=None).start(tmp_path / "run")
    assert torch.equal(next(random.parameters()), next(profile.model().parameters()))
    assert list(tmp_path.iterdir()) == []


def test_conv1_1_for_pixels_of_0_to_255_is_not_trained_at_the_common_rate():
    """Its gradient is so long that one step would be larger than the weights, and clipping would stop all others."""
    assert profiles.gpu().trunk_weights and profiles.gpu().recipe.frozen_blocks >= 1


def test_trunk_weights_are_read_once_for_a_run(small, tmp_path, monkeypatch):
    def fill(model, state_dict):
        model.l2_norm.load_state_dict(state_dict)

    monkeypatch.setattr(weights, "load_vgg16", fill)
    file = tmp_path / "vgg16.pth"
    torch.save({"weight": torch.rand(128)}, file)
    profile = replace(small, pretraining_steps=0, trunk_weights=file)
    first = profile.start(tmp_path / "run", seed=1)
    file.unlink()
    again = profile.start(tmp_path / "run", seed=2)
    for (name, tensor), same in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(tensor, same), name
    assert not torch.equal(first.l2_norm.weight, small.model(1).l2_norm.weight)


@pytest.mark.slow
def test_the_recorded_weights_reproduce_their_recorded_map():
    """On the full EmojiVOC test set, where it is made; in 16-bit weights the last digits may differ."""
    from course_lib import metrics

    profile = profiles.cpu()
    profile.prepare()
    model = weights.load(profiles.RECORD)
    found = profile.detections(model, *profile.test_on)
    truth = metrics.read_ground_truth(profile.devkit, *profile.test_on)
    recorded = profiles.read_record()["evaluation"]["mean_ap"]
    assert metrics.evaluate_voc(found, truth).mean_ap == pytest.approx(recorded, abs=0.01)
