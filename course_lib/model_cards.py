"""What a model hub shows of a detector: a card that is made from the records of its run."""

import json
from html import escape
from pathlib import Path
from typing import Any

import torch

from course_lib import runs, weights
from course_lib.files import DataError
from course_lib.ssd import SSD

HOME = "https://github.com/ssd-from-scratch/ssd-from-scratch"

USE = """From a checkout of the course, set up as its README says, beside a picture of yours:

```python
from course_lib import detect, export, images

model = export.from_pretrained({source})
found = detect.detect_image(model, images.read_image("photo.jpg"))
for box, score, label in zip(found.boxes, found.scores, found.labels):
    if score > 0.5:
        print(model.classes[label - 1], score.item(), box.tolist())  # corners in fractions of the picture
```"""

NO_LICENCE = "None was given: ask who made this before you use the weights."
PICTURES = "The pictures that it learned from, and weights that it began with, may have terms of their own."


def read_run(model: SSD, run: Path) -> tuple[dict, dict | None]:
    """The provenance of a model's run, and the report on it where there is one.

    Raises:
        RunError: see `export.save_pretrained`.
        DataError: a file of the run is broken.
    """
    provenance, best = runs.read_provenance(run), weights.load(run / "best.safetensors")
    mine = model.state_dict()
    same = best.classes == model.classes and best.state_dict().keys() == mine.keys()
    if not same or any(not torch.equal(tensor, mine[name].cpu()) for name, tensor in best.state_dict().items()):
        raise runs.RunError(f"{run}/best.safetensors holds other weights than the model: load the model from there")
    path = next(
        (path for path in (run / f"evaluation_{way}.json" for way in ("area", "11point")) if path.exists()), None
    )
    if path is None:
        return provenance, None
    try:
        report = json.loads(path.read_bytes())
        epoch = report["weights_of_epoch"]
    except (ValueError, LookupError, TypeError) as error:
        cure = f"measure again: python -m course_lib evaluate --run {run}"
        raise DataError(path, "report", f"{type(error).__name__}: {error}", cure) from None
    if epoch != provenance["best_epoch"]:
        raise runs.RunError(f"{path} is of an earlier epoch: python -m course_lib evaluate --run {run}")
    return provenance, report


def model_card(
    model: SSD,
    source: str,
    provenance: dict | None = None,
    report: dict | None = None,
    license: str | None = None,
) -> str:
    """What a model is, how it was trained and what it reaches, as a hub shows it; every number from its records.

    Args:
        source: where `export.from_pretrained` finds it.
        provenance: as `runs.read_provenance` gives it. Of folders the card has the last part alone, but the command.
        report: as `evaluation.evaluate_run` gives it.
        license: a hub's name of one, for the weights.
    """
    about = {"pipeline_tag": "object-detection", "tags": ["ssd", model.architecture]}
    about |= {"license": license} if license else {}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    parts = [
        "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items()) + "\n---",
        f"# {model.architecture}, {len(model.classes)} classes",
        f"A Single Shot MultiBox Detector, made with [SSD from Scratch]({HOME}): pictures of {model.image_size} x "
        f"{model.image_size} pixels, {parameters:,} parameters. It finds: {', '.join(map(cell, model.classes))}.",
        "## How to use it",
        USE.format(source=json.dumps(source, ensure_ascii=False)),
        "## What it reaches",
        reached(report) if report else "It was not measured.",
    ]
    if provenance:
        parts += ["## What it learned from", learned_from(provenance)]
        rest = {name: value for name, value in provenance.items() if name not in SAID_ELSEWHERE}
        recipe = provenance.get("recipe", {})
        parts += ["## How it was trained", markdown_table("", rest), "### Recipe", markdown_table("", recipe)]
    parts += ["## Licence", f"Of the weights: {cell(license)}." if license else NO_LICENCE, PICTURES]
    return "\n\n".join(parts) + "\n"


SAID_ELSEWHERE = ("recipe", "classes", "data", "devkit")


def learned_from(provenance: dict) -> str:
    """On which pictures a run was trained, as a card says it."""
    count = f"{provenance['training_images']:,} pictures" if "training_images" in provenance else "Pictures"
    if data := provenance.get("data"):
        chosen = f"its epoch was chosen on `{data['select_on']}`" if data["select_on"] else "the last epoch was kept"
        return f"{count}: the list `{data['train_on']}` of a tree {cell(Path(data['tree']).name)}; {chosen}."
    if devkit := provenance.get("devkit"):
        return f"{count} of {cell(Path(devkit).name)}, as the profile `{provenance['profile']}` takes them."
    return f"{count}: those of the profile `{provenance.get('profile', 'none')}`."


def reached(report: dict) -> str:
    """Mean AP and that of each class, as a card shows them."""
    ap = {name: "-" if value is None else f"{value:.4f}" for name, value in report["ap"].items()}
    mean = "-" if report["mean_ap"] is None else f"{report['mean_ap']:.4f}"
    on = f", the list `{report['on']}` of {cell(Path(report['tree']).name)}" if "on" in report else ""
    about = f"Mean AP at IoU 0.5 ({report['method']}): **{mean}**, on {report['images']} images{on}."
    return about + "\n\n" + markdown_table("AP", ap)


def markdown_table(title: str, values: dict[str, Any]) -> str:
    """Names and values in Markdown."""
    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in values.items()]
    return "\n".join([f"| | {title} |", "|---|---|", *rows])


def cell(value: object) -> str:
    """A value as it can stand in a row of a table in Markdown."""
    return escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
