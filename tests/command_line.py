"""What tests of the command line share: pictures, damage, runs that nothing trained."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from course_lib import profiles, ssd, weights


def picture(path: Path, colour: str = "orange") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), colour).save(path, "PNG")
    return path


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Everything below a folder, with the bytes of the files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def damaged(kind: str, tree: Path, image_id: str) -> None:
    image, xml = tree / "JPEGImages" / f"{image_id}.jpg", tree / "Annotations" / f"{image_id}.xml"
    match kind:
        case "broken image":
            image.write_bytes(image.read_bytes()[:200])
        case "no image at all":
            image.write_text("not an image")
        case "missing image":
            image.unlink()
        case "broken XML":
            xml.write_text(xml.read_text()[:100])
        case "missing XML":
            xml.unlink()
        case "missing list":
            shutil.rmtree(tree / "ImageSets")


# Each with a number of workers: an image is read by one, all else is read before.
DAMAGES = [
    *(("broken image", 0), ("broken image", 1), ("no image at all", 1), ("missing image", 1)),
    *(("broken XML", 1), ("missing XML", 0), ("missing list", 0)),
]


def no_training(monkeypatch, profile) -> None:
    """The profile with a pretraining that must not begin."""
    monkeypatch.setattr(profiles, "pretrain", lambda *given: pytest.fail("training began"))
    monkeypatch.setattr(profiles, "profile", lambda name=None: replace(profile, pretraining_steps=3000))


def a_run(run: Path, model: ssd.SSD, profile: str = "small") -> None:
    weights.save(model, run / "best.safetensors")
    provenance = {"profile": profile, "best_epoch": 1, "architecture": "ssd_mini"}
    (run / "provenance.json").write_text(json.dumps(provenance))
