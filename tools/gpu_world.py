"""The chapters as a machine with a GPU runs them, on the CPU: SSD300 on a devkit with VOC2007 and VOC2012.

    python -m tools.gpu_world            every chapter, with COURSE_PROFILE=gpu
    python -m tools.gpu_world 05 06      these

The devkit is made of links, in .gpu_world: to the pictures in the folder VOC_REAL where that is set, otherwise to those
of EmojiVOC. It says nothing about what a detector learns there, since the same pictures stand in for both years. What
has passed is kept, and not repeated while nothing that it depends on has changed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from course_lib import profiles
from tools.parts import ROOT, chapters, result, tell

KEPT = ROOT / ".gpu_world"
NO_NETWORK = ("unshare", "--map-root-user", "--net")


def link_devkit(devkit: Path, tree: Path) -> str:
    """Make a devkit whose two years are one tree, its lists cut down to the pictures that are there.

    Returns:
        a hash of the lists.
    """
    shutil.rmtree(devkit, ignore_errors=True)
    there = {path.stem for path in (tree / "JPEGImages").iterdir()}
    lists = {
        path.name: path.read_text(encoding="utf-8") for path in sorted((tree / "ImageSets" / "Main").glob("*.txt"))
    }
    for name, text in lists.items():
        lists[name] = "".join(f"{line}\n" for line in text.splitlines() if line.split() and line.split()[0] in there)
    for year in ("2007", "2012"):
        made = devkit / f"VOC{year}"
        (made / "ImageSets" / "Main").mkdir(parents=True)
        for folder in ("Annotations", "JPEGImages"):
            (made / folder).symlink_to(tree / folder)
        for name, text in lists.items():
            (made / "ImageSets" / "Main" / name).write_text(text, encoding="utf-8")
    return hashlib.sha256(repr(lists).encode()).hexdigest()


def without_network() -> tuple[str, ...]:
    """What takes the network away from a command, where this machine lets everybody do that."""
    if shutil.which(NO_NETWORK[0]) and subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0:
        return NO_NETWORK
    print("this machine cannot take the network away: the chapters could use it", flush=True)
    return ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="numbers, such as 05; all of them otherwise")
    arguments = parser.parse_args()
    real = os.environ.get("VOC_REAL")
    tree = Path(real).resolve() / "VOCdevkit" / "VOC2007" if real else profiles.EMOJI_VOC / "VOC2007"
    devkit = KEPT / ("voc" if real else "emoji") / "devkit"
    wanted = {"world": devkit.parent.name, "lists": link_devkit(devkit, tree)}
    world = {"COURSE_PROFILE": "gpu", profiles.DEVKIT_VARIABLE: str(devkit), "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= world  # the keys of the chapters depend on it
    prefix, records, interrupted = without_network(), [], False
    try:
        for part in chapters():
            if not arguments.chapters or part.name[:2] in arguments.chapters:
                records += [result(part, devkit.parent, wanted, world, prefix)]
    except KeyboardInterrupt:
        interrupted = True
    return tell(records, ("world", "part", "", "seconds"), interrupted)


if __name__ == "__main__":
    raise SystemExit(main())
