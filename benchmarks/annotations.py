"""How many annotations a second: `voc.read_annotation` beside a bare XML parse of the same files.

Reads the annotations of VOC2007 from the folder in VOC_REAL; alternates both sides in one process and
prints the ratio of medians. Result in benchmarks/results/annotations.json.
"""

import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from course_lib import runs, voc
from course_lib.files import write_whole

ROUNDS = 5


def seconds(work, paths: list[Path]) -> float:
    started = time.perf_counter()
    for path in paths:
        work(path)
    return time.perf_counter() - started


def main() -> None:
    if "VOC_REAL" not in os.environ:
        sys.exit("annotations: skipped, VOC_REAL names no folder with VOC2007-annotations.tar.xz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(Path(os.environ["VOC_REAL"]) / "VOC2007-annotations.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        paths = sorted(Path(folder, "VOC2007", "Annotations").glob("*.xml"))
        for path in paths:
            path.read_bytes()  # both sides find the files in the page cache
        sides = {"read_annotation": voc.read_annotation, "bare_parse": ElementTree.parse}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, work in sides.items():
                times[name].append(seconds(work, paths))
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "annotations": len(paths),
        "median_seconds": medians,
        "annotations_per_second": len(paths) / medians["read_annotation"],
        "ratio_to_bare_parse": medians["read_annotation"] / medians["bare_parse"],
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "annotations.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
