"""Out of the notebook: a detector as an ONNX file, which other programs and languages run, and on a model hub.

onnx, onnxruntime and huggingface_hub are loaded when a function needs them, not before.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset

from course_lib import evaluation, onnx_graphs, runs, weights
from course_lib.detect import Detections, detect_one
from course_lib.files import DataError, write_whole
from course_lib.images import read_image, resized
from course_lib.model_cards import model_card, read_run
from course_lib.ssd import SSD
from course_lib.voc import ImageSet, image_in

if TYPE_CHECKING:
    import onnxruntime

CALIBRATION = 128  # pictures that tell int8 which numbers occur

# What a folder for a hub holds: the weights as `weights.save` writes them, and the model card.
WEIGHTS, CARD = "model.safetensors", "README.md"


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
        calibration: pictures such as it will see, for a file that computes in int8; see `onnx_graphs.quantised`.
        score_threshold, iou_threshold, top_k, max_detections: see `detect.detect`. D is max_detections, or the number
            of all pairs of class and prior where there are fewer.

    Raises:
        ValueError: some weights are NaN or infinite, or a limit means nothing; nothing is written.
        OSError: the file cannot be written; it is named.
    """
    path = Path(path)
    if names := weights.not_finite(model.state_dict()):
        raise ValueError(f"{path} is not written: {weights.some_of(names, 3)} hold NaN or infinity")
    limits = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    limits |= {"top_k": top_k, "max_detections": max_detections}
    require_limits(**limits)
    graph = onnx_graphs.decoded(model, ("prior_boxes", "prior_scores") if nms else ("boxes", "scores"))
    if calibration is not None:
        graph = onnx_graphs.quantised(graph, calibration)
    if nms:
        graph = onnx_graphs.with_nms(graph, len(model.priors), model.num_classes - 1, **limits)
    about = weights.describe(model) | {"image_size": model.image_size, "pixels": "RGB"}
    about |= {"nms": yes_or_no(nms), "int8": yes_or_no(calibration is not None)}
    for name, value in (about | limits).items():
        graph.metadata_props.add(key=name, value=str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, graph.SerializeToString())


def require_limits(**limits: float) -> None:
    """Refuse limits that mean nothing, or with which nothing is ever found."""
    for name, value in limits.items():
        least, most = (0, 1) if name.endswith("threshold") else (1, float("inf"))
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}: give a number from {least}" + (" to 1" if most == 1 else " up"))


def yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"


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
    write_pretrained(model, folder, folder.resolve().name, run, license)


def write_pretrained(model: SSD, folder: Path, source: str, run: str | Path | None, license: str | None) -> None:
    """As `save_pretrained`, with a card that says to load the model from `source`."""
    card = model_card(model, source, *(read_run(model, Path(run)) if run else ()), license=license)
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
        write_pretrained(model, Path(folder), repository, run, license)
        hub = huggingface_hub.HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(
            hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {model.architecture}")
        )
