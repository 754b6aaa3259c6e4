import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from course_lib import ssd, weights
from course_lib.files import DataError


@pytest.fixture
def model():
    model = ssd.ssd_mini(num_classes=5)
    with torch.no_grad():
        model(torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8))  # gives batch norm statistics
    return model.eval()


def test_what_is_saved_is_what_is_loaded(model, tmp_path):
    weights.save(model, tmp_path / "runs" / "a.safetensors")
    loaded = weights.load(tmp_path / "runs" / "a.safetensors")
    assert loaded.num_classes == 5 and not loaded.training
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    images = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    torch.testing.assert_close(loaded(images), model(images))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a.safetensors"]


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


def test_tensors_that_do_not_fit_are_named(model, tmp_path):
    path = tmp_path / "a.safetensors"
    weights.save(model, path)
    tensors = load_file(path)
    tensors["loc_heads.0.bias"] = torch.zeros(3)
    tensors["surprise"] = tensors.pop("l2_norm.weight")
    save_file(tensors, path, {"architecture": "ssd_mini", "num_classes": "5"})
    with pytest.raises(DataError, match=r"l2_norm.weight.*loc_heads.0.bias.*surprise"):
        weights.load(path)
