"""Out of the notebook: a detector as an ONNX file, which other programs and languages run, and on a model hub.

onnx, onnxruntime and huggingface_hub are loaded when a function needs them, not before.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset

from course_lib import evaluation, runs, weights
from course_lib.detect import Detections, decode_scores, detect_one
from course_lib.files import DataError, write_whole
from course_lib.images import read_image, resized
from course_lib.ssd import SSD
from course_lib.voc import ImageSet, image_in

if TYPE_CHECKING:
    import onnx
    import onnxruntime

OPSET = 20

CALIBRATION = 128  # pictures that tell int8 which numbers occur
CHAINED = ("Relu", "Clip", "MaxPool", "Add")  # what int8 computes too, where all that goes in comes from convolutions

# What a folder for a hub holds: the weights as `weights.save` writes them, and the model card.
WEIGHTS, CARD = "model.safetensors", "README.md"
HOME = "https://github.com/ssd-from-scratch/ssd-from-scratch"

# What NMS adds to a file, in ONNX's own language. Ties go to the lower index in TopK and NonMaxSuppression alike:
# to the lower class, then to the earlier prior, as in `detect.detect`.
NMS = """
<ir_version: 10, opset_import: ["" : {opset}]>
nms (float[batch, {priors}, 4] prior_boxes, float[batch, {priors}, {classes}] prior_scores)
    => (float[batch, {most}, 4] boxes, float[batch, {most}] scores, int64[batch, {most}] labels)
<int64[1] top_k = {{{top_k}}}, int64[1] most = {{{most}}}, float overlap = {{{iou_threshold}}},
 float least = {{{score_threshold}}}, int64 priors = {{{priors}}}, int64[2] row = {{0, -1}}, int64[1] last = {{2}},
 int64 one = {{1}}, float zero = {{0.0}}>
{{
    by_class = Transpose<perm = [0, 2, 1]>(prior_scores)
    best, place_of_best = TopK<axis = 2>(by_class, top_k)
    size = Shape(by_class)
    nothing = ConstantOfShape(size)
    candidates = ScatterElements<axis = 2>(nothing, place_of_best, best)
    kept = NonMaxSuppression(prior_boxes, candidates, most, overlap, least)
    kept_scores = GatherND(by_class, kept)
    survivors = ScatterND(nothing, kept, kept_scores)
    survivors_in_a_row = Reshape(survivors, row)
    scores, place = TopK(survivors_in_a_row, most)
    found = Greater(scores, zero)
    class = Div(place, priors)
    label = Add(class, one)
    found_as_int = Cast<to = 7>(found)
    labels = Mul(label, found_as_int)
    prior = Mod(place, priors)
    prior_index = Unsqueeze(prior, last)
    box = GatherND<batch_dims = 1>(prior_boxes, prior_index)
    found_as_float = Cast<to = 1>(found)
    found_column = Unsqueeze(found_as_float, last)
    boxes = Mul(box, found_column)
}}
"""


class Decoded(nn.Module):
    """A detector with its decoding: what an ONNX file computes, from pixels to what NMS takes."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: UInt8[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P classes"]]:
        """The box of every prior, and its score for each class; background's is left out."""
        boxes, scores = decode_scores(*self.model(images), self.model.priors, self.model.scoring)
        return boxes, scores[..., 1:]


def to_onnx(
    model: SSD,
    path: str | Path,
    nms: bool = False,
    calibration: Iterable[UInt8[Tensor, "B 3 S S"]] | None = None,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
) -> None:
    """Write a detector as an ONNX file, whole or not at all.

    Input of the file: `images`, uint8 [B, 3, S, S], RGB, each picture stretched to S x S as `images.resized` does it.

    Outputs without `nms`, for every prior: `boxes`, float32 [B, P, 4], corners, fractions of the image, clipped to it;
    `scores`, float32 [B, P, classes], column k for class k, without background. With `nms`, what `detect.detect` finds,
    by falling score, in as many rows as there may be detections: `boxes` [B, D, 4], `scores` [B, D] and `labels`
    int64 [B, D], class index plus 1. Rows that are left over have label 0, score 0 and an empty box.

    The file's metadata: what `weights.describe` says (architecture, num_classes, classes as JSON, scoring), image_size,
    pixels ("RGB"), nms and int8 ("yes" or "no"), and the four limits below; without `nms` these are advice to who
    reads it.

    Args:
        calibration: pictures such as it will see, for a file that computes in int8; see `quantised`.
        score_threshold, iou_threshold, top_k, max_detections: see `detect.detect`. D is max_detections, or the number
            of all pairs of class and prior where there are fewer.

    Raises:
        ValueError: some weights are NaN or infinite; nothing is written.
        OSError: the file cannot be written; it is named.
    """
    path = Path(path)
    if names := weights.not_finite(model.state_dict()):
        raise ValueError(f"{path} is not written: {weights.some_of(names, 3)} hold NaN or infinity")
    limits = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    limits |= {"top_k": top_k, "max_detections": max_detections}
    graph = decoded_graph(model, ("prior_boxes", "prior_scores") if nms else ("boxes", "scores"))
    if calibration is not None:
        graph = quantised(graph, calibration)
    if nms:
        graph = with_nms(graph, len(model.priors), model.num_classes - 1, **limits)
    about = weights.describe(model) | {"image_size": model.image_size, "pixels": "RGB"}
    about |= {"nms": yes_or_no(nms), "int8": yes_or_no(calibration is not None)}
    for name, value in (about | limits).items():
        graph.metadata_props.add(key=name, value=str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, graph.SerializeToString())


def yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"


def decoded_graph(model: SSD, outputs: tuple[str, str]) -> "onnx.ModelProto":
    """A detector and its decoding as an ONNX graph for any number of images, batch norm folded into convolutions."""
    model = copy.deepcopy(model).cpu().eval()
    images = torch.zeros(2, 3, model.image_size, model.image_size, dtype=torch.uint8)
    program = torch.onnx.export(
        Decoded(model).eval(),
        (images,),
        input_names=["images"],
        output_names=outputs,
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    graph = program.model_proto
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        del part.metadata_props[:]  # lines of code with the paths of this machine
    return graph


def calibration_pictures(tree: str | Path, on: str, size: int) -> Iterator[UInt8[Tensor, "1 3 S S"]]:
    """Up to `CALIBRATION` pictures from all over a list of a tree, one by one; annotations are not read.

    Args:
        size: of the detector's images, in pixels.

    Raises:
        DataError: the list cannot be used, or a picture is missing or broken.
    """
    ids = ImageSet(tree, on).ids
    for number in range(min(len(ids), CALIBRATION)):
        image_id = ids[number * len(ids) // min(len(ids), CALIBRATION)]
        yield resized(read_image(image_in(tree, image_id)), size)[None]


class Calibration:
    """Pictures as onnxruntime's quantiser asks for them."""

    def __init__(self, pictures: Iterable[UInt8[Tensor, "B 3 S S"]]) -> None:
        self.pictures = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.pictures, None)
        return None if images is None else {"images": images.numpy()}


def quantised(graph: "onnx.ModelProto", pictures: Iterable[UInt8[Tensor, "B 3 S S"]]) -> "onnx.ModelProto":
    """A graph whose convolutions compute with eight bits, by onnxruntime's static quantiser; the rest stays in float.

    Weights get a scale for each output channel, and each map one scale for all of it: from the lowest and highest
    number that the pictures bring there. Weights use 7 of their 8 bits: processors without instructions of their own
    for it (VNNI) add two products in 16 bits, which 8 bits can overflow. Decoding and scores stay as they are: int8 has
    256 steps, and a box's corner wants finer ones.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 2; onnxruntime's page "Quantize ONNX models".
    """
    import onnx
    from onnxruntime import quantization

    graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # batch norm is folded already
    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)
        quantization.quantize_static(
            before,
            after,
            Calibration(pictures),
            op_types_to_quantize=["Conv", *CHAINED],
            nodes_to_quantize=convolutional(graph),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        graph = onnx.load(after)
    del graph.metadata_props[:]
    return graph


def convolutional(graph: "onnx.ModelProto") -> list[str]:
    """The names of the nodes up to the heads: convolutions, and what follows from convolutions alone."""
    names, computed, constants = [], set(), {tensor.name for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        chained = node.op_type in CHAINED and all(name in computed for name in node.input if name not in constants)
        if node.op_type == "Conv" or chained:
            names.append(node.name)
            computed.update(node.output)
    return names


def with_nms(
    graph: "onnx.ModelProto",
    priors: int,
    classes: int,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
) -> "onnx.ModelProto":
    """A graph with the outputs `prior_boxes` and `prior_scores`, and NMS behind it."""
    import onnx.compose

    merged = onnx.compose.merge_models(
        graph,
        nms_graph(priors, classes, score_threshold, iou_threshold, top_k, max_detections),
        io_map=[(name, name) for name in ("prior_boxes", "prior_scores")],
    )
    merged.producer_name, merged.producer_version = graph.producer_name, graph.producer_version
    return merged


def nms_graph(
    priors: int, classes: int, score_threshold: float, iou_threshold: float, top_k: int, max_detections: int
) -> "onnx.ModelProto":
    """What `detect.detect` does after decoding, as an ONNX graph; see `to_onnx`."""
    import onnx.parser

    text = NMS.format(
        opset=OPSET,
        priors=priors,
        classes=classes,
        score_threshold=float(score_threshold),
        iou_threshold=float(iou_threshold),
        top_k=min(top_k, priors),
        most=min(max_detections, priors * classes),
    )
    return onnx.parser.parse_model(text)


@dataclass(frozen=True)
class OnnxDetector:
    """A detector that was written by `to_onnx`, run by onnxruntime.

    Attributes:
        classes: the names that labels 1, 2, ... stand for.
        image_size: pixels on each side.
        nms: whether the file does NMS; else `detect.detect_one` does it here.
        limits: the thresholds and counts of `detect.detect`, as the file has them.
    """

    session: "onnxruntime.InferenceSession"
    classes: tuple[str, ...]
    image_size: int
    nms: bool
    limits: dict[str, float]

    def __call__(self, images: UInt8[Tensor, "B 3 S S"]) -> list[Detections]:
        """What is found in each picture."""
        outputs = [torch.from_numpy(output) for output in self.session.run(None, {"images": images.numpy()})]
        if self.nms:
            found = [Detections(*rows) for rows in zip(*outputs, strict=True)]
            return [Detections(*(rows[one.labels > 0] for rows in one)) for one in found]
        boxes, scores = outputs
        scores = nn.functional.pad(scores, (1, 0))  # a column for background, which counts for nothing
        return [detect_one(*one, **self.limits) for one in zip(boxes, scores, strict=True)]


def load_onnx(path: str | Path, threads: int = 0) -> OnnxDetector:
    """Open a file that `to_onnx` wrote.

    Args:
        threads: to compute with; 0 for one on each core.

    Raises:
        DataError: the file is missing, broken, or says nothing of its detector.
    """
    import onnxruntime

    path = Path(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if not path.is_file():
        raise DataError(path, "file", "missing", "write it first: python -m course_lib export --weights W --out FILE")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a broken file fails in many ways
        cure = "this is no whole ONNX file: export it again"
        raise DataError(path, "ONNX file", str(error).splitlines()[0], cure) from None
    return OnnxDetector(session, **described(path, session.get_modelmeta().custom_metadata_map))


def evaluate_onnx(
    detector: OnnxDetector, dataset: Dataset, method: str = "area", batch_size: int = 32, workers: int = 0
) -> dict:
    """Measure a file of `to_onnx` as `evaluation.evaluate` measures a model; gives an `evaluation.report`.

    Args:
        dataset: a `voc.VOCDetection` or `voc.ImageDataset`.
        workers: processes that load images, beside this one.

    Raises:
        RunError: the file's classes are not the data set's.
        DataError: an image or annotation cannot be read.
    """
    runs.refuse_other_classes(detector, dataset.classes)
    truth, found = dataset.annotations(), []
    for batch in evaluation.loader(dataset, detector.image_size, batch_size, workers):
        found += detector(batch.images)
    return evaluation.report(found, truth, dataset.classes, method)


def described(path: Path, about: dict[str, str]) -> dict[str, Any]:
    """What the metadata of a file says of its detector, as `OnnxDetector` has it."""
    try:
        limits = {name: float(about[name]) for name in ("score_threshold", "iou_threshold")}
        limits |= {name: int(about[name]) for name in ("top_k", "max_detections")}
        return {
            "classes": tuple(json.loads(about["classes"])),
            "image_size": int(about["image_size"]),
            "nms": about["nms"] == "yes",
            "limits": limits,
        }
    except (KeyError, ValueError) as error:
        cure = "it should say what its detector is, as a file of `export.to_onnx` does"
        raise DataError(path, "metadata", str(error), cure) from None


def save_pretrained(
    model: SSD,
    folder: str | Path,
    run: str | Path | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a folder as a model hub takes it: the weights, and a card that says what they are.

    Args:
        run: the folder of the run that made them: its provenance and the report that `evaluate --run` has left there
            go into the card. Read it before you publish it: a command names folders of yours.
        license: a hub's name of one, such as "mit" or "cc-by-4.0", for the weights; yours to choose, with an eye on
            the pictures' and the first weights' own.
        overwrite: replace what an earlier call has written there.

    Raises:
        FileExistsError: the folder has weights or a card already.
        RunError: the run is none, its best weights are others, or they were measured before it was trained longer.
        OSError: a file cannot be written; it is named.
    """
    folder = Path(folder)
    for path in (folder / WEIGHTS, folder / CARD):
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists: choose another folder, or overwrite=True")
    card = model_card(model, *(read_run(model, Path(run)) if run else ()), license=license)
    weights.save(model, folder / WEIGHTS)
    write_whole(folder / CARD, card)


def from_pretrained(source: str | Path, revision: str | None = None) -> SSD:
    """The model of a folder that `save_pretrained` wrote, or of a repository on the Hugging Face Hub.

    Args:
        source: the folder, or "user/name": what is no folder is fetched, and then kept in huggingface_hub's cache.
        revision: branch, tag or commit of a repository.

    Raises:
        DataError: there is no such folder, or the weights are broken or not ours: see `weights.load`.
        OSError, ValueError: huggingface_hub's, where the repository cannot be had.
    """
    if Path(source).is_dir():
        return weights.load(Path(source) / WEIGHTS)
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)):
        cure = "give a folder that save_pretrained wrote, or user/name of a repository"
        raise DataError(source, "folder", "missing", cure)
    import huggingface_hub

    return weights.load(huggingface_hub.hf_hub_download(str(source), WEIGHTS, revision=revision))


def push_to_hub(
    model: SSD, repository: str, run: str | Path | None = None, license: str | None = None, private: bool = True
) -> str:
    """Put what `save_pretrained` writes into a repository of the Hugging Face Hub; gives the commit's address.

    For this you log in first: `hf auth login`. The repository is made where there is none.

    Args:
        repository: "user/name".
        run, license: see `save_pretrained`.
        private: of a repository that is made; what is public cannot be taken back.
    """
    import huggingface_hub

    with TemporaryDirectory() as folder:
        save_pretrained(model, folder, run, license)
        hub = huggingface_hub.HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(
            hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {model.architecture}")
        )


def read_run(model: SSD, run: Path) -> tuple[dict, dict | None]:
    """The provenance of a model's run, and the report on it where there is one.

    Raises:
        RunError: see `save_pretrained`.
    """
    provenance, best = runs.read_provenance(run), weights.load(run / "best.safetensors")
    mine = model.state_dict()
    same = best.classes == model.classes and best.state_dict().keys() == mine.keys()
    if not same or any(not torch.equal(tensor, mine[name].cpu()) for name, tensor in best.state_dict().items()):
        raise runs.RunError(f"{run}/best.safetensors holds other weights than the model: load the model from there")
    reports = sorted(run.glob("evaluation_*.json"), key=lambda path: path.stem != "evaluation_area")
    if not reports:
        return provenance, None
    report = json.loads(reports[0].read_bytes())
    if report["weights_of_epoch"] != provenance["best_epoch"]:
        raise runs.RunError(f"{reports[0]} is of an earlier epoch: python -m course_lib evaluate --run {run}")
    return provenance, report


def model_card(
    model: SSD, provenance: dict | None = None, report: dict | None = None, license: str | None = None
) -> str:
    """What a model is, how it was trained and what it reaches, as a hub shows it; every number from its records.

    Args:
        provenance: as `runs.read_provenance` gives it.
        report: as `evaluation.evaluate_run` gives it.
    """
    about = {"pipeline_tag": "object-detection", "tags": ["ssd", model.architecture]}
    about |= {"license": license} if license else {}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    parts = [
        "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items()) + "\n---",
        f"# {model.architecture}, {len(model.classes)} classes",
        f"A Single Shot MultiBox Detector, made with [SSD from Scratch]({HOME}): pictures of {model.image_size} x "
        f"{model.image_size} pixels, {parameters:,} parameters. It finds: {', '.join(map(cell, model.classes))}.",
        USE,
        "## What it reaches",
        reached(report) if report else "It was not measured.",
    ]
    if provenance:
        recipe = provenance.get("recipe", {})
        rest = {name: value for name, value in provenance.items() if name not in ("recipe", "classes")}
        parts += ["## How it was trained", markdown_table("", rest), "### Recipe", markdown_table("", recipe)]
    return "\n\n".join(parts) + "\n"


USE = """```python
from course_lib import detect, export, images

model = export.from_pretrained("this folder, or user/name")
found = detect.detect_image(model, images.read_image("photo.jpg"))  # boxes, scores, labels
```"""


def reached(report: dict) -> str:
    """Mean AP and that of each class, as a card shows them."""
    ap = {name: "-" if value is None else f"{value:.4f}" for name, value in report["ap"].items()}
    mean = "-" if report["mean_ap"] is None else f"{report['mean_ap']:.4f}"
    about = f"Mean AP at IoU 0.5 ({report['method']}): **{mean}**, on {report['images']} images."
    return about + "\n\n" + markdown_table("AP", ap)


def markdown_table(title: str, values: dict[str, Any]) -> str:
    """Names and values in Markdown."""
    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in values.items()]
    return "\n".join([f"| | {title} |", "|---|---|", *rows])


def cell(value: object) -> str:
    """A value as it can stand in a row of a table in Markdown."""
    return " ".join(str(value).split()).replace("|", "\\|")
