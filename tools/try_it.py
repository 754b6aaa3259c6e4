"""What the page Try it needs: the recorded detector as an ONNX file, and some pictures of EmojiVOC's test set.

python -m tools.try_it   makes them where something that they are made of has changed; `make book` calls it
"""

import hashlib
import json
import shutil
from pathlib import Path

from tools import setup

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "_static" / "try_it"
CONTENTS = "contents.json"  # what there is: the page reads it first
MODEL = "ssd_mini.onnx"
PICTURES = 10


def key() -> str:
    """One hash of all that the files depend on: with the library's whole text it is never too late."""
    digest = hashlib.sha256()
    for path in (ROOT / "requirements.txt", ROOT / "data" / "ssd_mini.safetensors", Path(__file__)):
        digest.update(path.read_bytes())
    for path in sorted((ROOT / "course_lib").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_contents(folder: Path) -> dict:
    try:
        return json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def make(folder: Path) -> list[dict[str, str]]:
    """Write the detector and the pictures; gives the pictures' files, and in words what is in them."""
    # Loaded only here: most builds have nothing to make.
    from PIL import Image

    from course_lib import export, profiles, voc, weights

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    export.to_onnx(weights.load(profiles.RECORD), folder / MODEL)
    images, pictures = voc.ImageSet(profiles.EMOJI_VOC / "VOC2007", "test"), []
    for index, image_id in enumerate(images.ids[:PICTURES]):
        Image.fromarray(images.image(index)).save(folder / f"{image_id}.png")
        names = [images.classes[label - 1] for label in images.annotation(index).labels]
        pictures.append({"file": f"{image_id}.png", "shows": ", ".join(names)})
    return pictures


def main(folder: Path = FOLDER) -> None:
    contents, now = read_contents(folder), key()
    if contents.get("key") != now:
        contents = {"key": now, "model": MODEL, "pictures": make(folder)}
    contents["runtime"] = setup.has_ort_web()
    (folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
