"""Weights out to a file and back in, without running any code that a file brings along."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from course_lib import ssd
from course_lib.files import DataError, write_whole

ARCHITECTURES = {"ssd300_vgg16": ssd.ssd300_vgg16, "ssd_mini": ssd.ssd_mini}


def save(model: ssd.SSD, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a model's weights, with its architecture's name, as safetensors; whole or not at all.

    Args:
        dtype: store floating point weights as this; `torch.float16` halves the file.
    """
    path = Path(path)
    tensors = {
        name: tensor.detach().cpu().contiguous().to(dtype if dtype and tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"architecture": model.architecture, "num_classes": str(model.num_classes)}
    write_whole(path, safetensors_bytes(tensors, metadata))


def load(path: str | Path) -> ssd.SSD:
    """Build the model that a file describes and fill it with the file's weights, as float32.

    The model is in evaluation mode, on the CPU.

    Raises:
        DataError: the file is missing, broken, or not one that `save` wrote.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # An open safetensors file has keys() but cannot be iterated over.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise DataError(path, "file", "missing", "train first: python -m course_lib train") from None
    except (SafetensorError, OSError) as error:
        raise DataError(path, "weights", str(error), "this is not a whole safetensors file: save it again") from None
    architecture = metadata.get("architecture")
    if architecture not in ARCHITECTURES:
        raise DataError(path, "architecture", architecture, f"it should be one of {', '.join(ARCHITECTURES)}")
    model = ARCHITECTURES[architecture](int(metadata["num_classes"]))
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise DataError(path, "tensors", wrong[:5], f"these are missing, unknown or misshapen for {architecture}")
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return model.eval()
