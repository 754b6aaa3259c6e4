"""What VOC2007 is made of: counts for chapter 1, which shows them where the annotations are not at hand.

Reads the annotations (no image) from VOC2007-annotations.tar.xz in the folder VOC_REAL, or from data/VOCdevkit.
Result in experiments/results/voc_survey.json.
"""

import json
import time
from pathlib import Path

from annotations import voc2007

from course_lib import runs, voc
from course_lib.files import write_whole

RESULT = Path(__file__).parent / "results" / "voc_survey.json"


def main() -> None:
    if RESULT.exists():
        return
    with voc2007() as devkit:
        if devkit is None:
            print("voc_survey: skipped, no annotations of VOC2007 here")
            return
        started = time.monotonic()
        surveys = {name: voc.survey(voc.read_annotations(devkit, "2007", name)) for name in ("trainval", "test")}
        seconds = round(time.monotonic() - started, 1)
    RESULT.parent.mkdir(exist_ok=True)
    result = surveys | {"provenance": runs.environment() | {"seconds": seconds}}
    write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    print(f"voc_survey: {RESULT}")


if __name__ == "__main__":
    main()
