"""From a model and a data set to a report: the one place that puts it together."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from course_lib import loaders, metrics, runs, weights
from course_lib.detect import Detections, detect
from course_lib.files import DataError, as_json, write_whole
from course_lib.loaders import Resized, loading_errors, rank, world_size
from course_lib.matching import match
from course_lib.metrics import ClassDetections
from course_lib.ssd import SSD
from course_lib.voc import Annotation, Batch


def loader(
    dataset: Dataset, image_size: int, batch_size: int = 32, workers: int = 0, only: Sequence[int] | None = None
) -> DataLoader:
    """The images of a data set in its order, resized and in batches.

    Args:
        dataset: a `voc.VOCDetection`, whose own transform is not used.
        image_size: pixels on each side.
        workers: processes that load images, beside this one.
        only: indices of some images; None for all.
    """
    return loaders.loader(Resized(dataset, image_size), image_size, batch_size, workers, sampler=only)


def detections(model: SSD, dataset: Dataset, batch_size: int = 32, workers: int = 0) -> list[Detections]:
    """What a model finds in every image of a data set, in its order; computed on the model's device.

    Raises:
        RunError: the model's classes are not the data set's, or its outputs are not finite.
        DataError: an image or annotation cannot be read.
    """
    runs.refuse_other_classes(model, dataset.classes)
    with loading_errors(lambda: "while detecting"):
        return examine(model, loader(dataset, model.image_size, batch_size, workers))[0]


def report(
    found: Sequence[Detections] | Mapping[str, ClassDetections],
    truth: Sequence[Annotation],
    classes: Sequence[str],
    method: str = "area",
    parts: Mapping[str, Sequence[Annotation]] | None = None,
) -> dict:
    """AP at IoU 0.5 by class and its mean, as they are written to JSON.

    Args:
        found: one `Detections` for each image of `truth`, or detections by class as
            `metrics.read_detection_files` gives them.
        classes: what the labels 1, 2, ... mean: the data set's, or the model's.
        method: "area" or "11point"; see `metrics.average_precision`.
        parts: the same images with the objects that do not count marked difficult, by the name of what counts.

    Returns:
        "mean_ap"; "ap" by class, both None where there is nothing to measure; "method"; "images", how many; and for
        each of `parts` a report of its own.
    """
    result = metrics.evaluate_voc(found, truth, method=method, classes=classes)
    mean_ap = None if math.isnan(result.mean_ap) else result.mean_ap
    whole = {"mean_ap": mean_ap, "ap": result.ap, "method": method, "images": len(truth)}
    return whole | {name: report(found, part, classes, method) for name, part in (parts or {}).items()}


def evaluate(
    model: SSD,
    dataset: Dataset,
    method: str = "area",
    split: Callable[[list[Annotation]], Mapping[str, list[Annotation]]] | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> dict:
    """Measure a model on a data set; gives a `report`.

    Args:
        dataset: a `voc.VOCDetection`.
        split: gives the `parts` of a report from the ground truth, as `emoji_voc.split_by_emoji` does.
        workers: processes that load images, beside this one.

    Raises:
        RunError: the model's classes are not the data set's.
        DataError: an image or annotation cannot be read; annotations are read before anything is computed.
    """
    runs.refuse_other_classes(model, dataset.classes)
    truth = dataset.annotations()
    if not any((~one.difficult).any() for one in truth):
        warnings.warn("there is no object that counts in these images: nothing can be measured", stacklevel=2)
    found = detections(model, dataset, batch_size, workers)
    return report(found, truth, dataset.classes, method, split(truth) if split else None)


def evaluate_run(
    run: str | Path,
    dataset: Dataset,
    method: str = "area",
    split: Callable[[list[Annotation]], Mapping[str, list[Annotation]]] | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str = "cpu",
    about: Mapping[str, str] | None = None,
    keep: bool = True,
) -> dict:
    """Measure a run's best weights as `evaluate` does, and keep the report beside them, evaluation_<method>.json.

    The report says also from which epoch the weights are: "weights_of_epoch", None where no epoch was measured and
    the best weights are the last.

    Args:
        about: what else the report is to say.
        keep: False writes no file.

    Raises:
        RunError: the folder is no run's, its weights are another model's, or their classes are not the data set's.
        DataError: a file of the run, an image or an annotation cannot be read.
    """
    run = Path(run)
    provenance = runs.read_provenance(run)
    model = weights.load(run / "best.safetensors").to(device)
    trained = provenance.get("architecture", model.architecture)
    if model.architecture != trained:
        raise runs.RunError(f"{run}/best.safetensors is {model.architecture}, and this run trained {trained}")
    measured = evaluate(model, dataset, method, split, batch_size, workers)
    measured |= {"weights_of_epoch": provenance["best_epoch"]} | dict(about or {})
    if not keep:
        return measured
    try:
        write_whole(run / f"evaluation_{method}.json", as_json(measured, indent=2) + "\n")
    except OSError as error:  # a read-only folder, a full disk: the result is there all the same
        warnings.warn(f"the result is not kept: {error}", RuntimeWarning, stacklevel=2)
    return measured


def selector(
    dataset: Dataset,
    batch_size: int = 32,
    workers: int = 0,
    loss: Callable | None = None,
    match_iou: float = 0.5,
) -> Callable[[SSD], dict]:
    """What a `training.Trainer` measures between epochs, on a data set that training does not see.

    It gives "map", "ap" by class and, of a loss, "val_loc" and "val_conf": those of all images as one batch. Among
    several processes each looks at its share of the images, and all of them get what one alone would get. The
    annotations are read at once, and only then. Where an image cannot be read any more, "map" is NaN, with a warning:
    a run of hours is worth more than one measurement.

    Args:
        loss: called as `losses.MultiBoxLoss` is; the run's.
        match_iou: overlap with an object from which a prior is to answer for it; the run's.
    """
    truth = dataset.annotations()

    def measure(model: SSD) -> dict:
        runs.refuse_other_classes(model, dataset.classes)
        share = range(rank(), len(dataset), world_size())
        fault, found, sums = "", [], {}
        try:
            with loading_errors(lambda: "while measuring"):
                batches = loader(dataset, model.image_size, batch_size, workers, share)
                found, sums = examine(model, batches, loss, match_iou)
        except DataError as error:
            fault = str(error)
        if fault := first_of_all(fault):
            warnings.warn(f"{fault}: this measurement is left out, and the run goes on", stacklevel=2)
            return {"map": math.nan}
        found, sums = gathered(found, sums, len(dataset))
        result = metrics.evaluate_voc(found, truth, classes=dataset.classes)
        positives = max(sums.pop("positives", 0), 1)
        return {"map": result.mean_ap, "ap": result.ap} | {f"val_{name}": sums[name] / positives for name in sums}

    return measure


@torch.inference_mode()
def examine(
    model: SSD, batches: Iterable[Batch], loss: Callable | None = None, match_iou: float = 0.5
) -> tuple[list[Detections], dict[str, float]]:
    """What a model finds in some images and what that costs: the sums of its losses by name, and of "positives".

    The model is left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    found, sums = [], Counter()
    try:
        for batch in batches:
            batch = batch.to(model.priors.device)
            offsets, logits = model(batch.images)
            if not (offsets.isfinite().all() and logits.isfinite().all()):
                raise runs.RunError(
                    f"the model's outputs are not finite on the images {', '.join(batch.image_ids)}: its weights or "
                    "its batch norm's statistics are broken: take those of an earlier epoch"
                )
            found += detect(offsets, logits, model.priors, scoring=model.scoring)
            if loss is not None:
                matches = match(batch.boxes, batch.labels, model.priors, match_iou)
                positives = (matches.labels > 0).sum()
                parts = loss(offsets, logits, matches)  # divided by the positives, or by 1
                sums.update({name: (value * positives.clamp(min=1)).item() for name, value in parts.items()})
                sums["positives"] += positives.item()
    finally:
        model.train(was_training)
    return found, dict(sums)


def first_of_all(fault: str) -> str:
    """The first fault that one of the processes has met; empty where none has."""
    if world_size() == 1:
        return fault
    faults: list = [None] * world_size()
    dist.all_gather_object(faults, fault)
    return next(filter(None, faults), "")


def gathered(found: list[Detections], sums: dict[str, float], images: int) -> tuple[list[Detections], dict[str, float]]:
    """The detections of all processes in the images' order, and the sums of all."""
    if world_size() == 1:
        return found, sums
    parts: list = [None] * world_size()
    dist.all_gather_object(parts, (found, sums))
    whole: list = [None] * images
    for first, (own, _) in enumerate(parts):
        whole[first :: len(parts)] = own
    names = {name for _, own in parts for name in own}  # a process without an image has none
    return whole, {name: sum(own.get(name, 0.0) for _, own in parts) for name in sorted(names)}
