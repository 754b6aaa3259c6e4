"""What VOC2007 is made of: counts for chapter 1, which shows them where the annotations are not at hand.

Reads the annotations (no image) from VOC2007-annotations.tar.xz in the folder VOC_REAL, or from data/VOCdevkit.
Result in experiments/results/voc_survey.json.
"""

import json
import os
import tarfile
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from course_lib import profiles, training, voc
from course_lib.files import write_whole

RESULT = Path(__file__).parent / "results" / "voc_survey.json"


def main() -> None:
    if RESULT.exists():
        return
    with ExitStack() as stack:
        devkit, archive = profiles.gpu().devkit, Path(os.environ.get("VOC_REAL", ""), "VOC2007-annotations.tar.xz")
        if archive.is_file():
            devkit = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with tarfile.open(archive) as tar:
                tar.extractall(devkit, filter="data")
        if not (devkit / "VOC2007").is_dir():
            print("voc_survey: skipped, no annotations of VOC2007 here")
            return
        started = time.monotonic()
        surveys = {name: voc.survey(voc.read_annotations(devkit, "2007", name)) for name in ("trainval", "test")}
        seconds = round(time.monotonic() - started, 1)
    RESULT.parent.mkdir(exist_ok=True)
    result = surveys | {"provenance": training.environment() | {"seconds": seconds}}
    write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    print(f"voc_survey: {RESULT}")


if __name__ == "__main__":
    main()
