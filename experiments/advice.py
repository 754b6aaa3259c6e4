"""What is each piece of advice worth? For chapter 15.

Every arm of every question in `course_lib.advice` is trained for some 40 seconds from three seeds, and from two more
where its effect is still unclear, on 600 images of EmojiVOC at 96 pixels; 64 held-out ones tell losses on the way, 256
test images tell mAP at the end. Start it in as many processes as there are cores to spare: they share the runs. What
is finished stands in experiments/results/advice.jsonl, one run a line, and is not run again.
`python experiments/advice.py STEPS [ARM ...]` tries arms with so few steps, and keeps nothing.
`python experiments/advice.py picture` draws the README's forest plot from what is recorded.
"""

import hashlib
import sys
from pathlib import Path

import torch

from course_lib import advice, arms, profiles, queues, trials, viz, voc, weights
from course_lib.doctor.setups import InMemory
from course_lib.ssd import SSD

RESULT = Path(__file__).parent / "results" / "advice.jsonl"
CLAIMS = profiles.RUNS / "advice"
PICTURE = profiles.ROOT / "book" / "_static" / "effects.png"
HELD_OUT, TEST = 64, 256  # images

Ingredients = tuple[InMemory, InMemory, InMemory, SSD]


def ingredients() -> Ingredients:
    """The pool of images to learn from, the held-out ones, those of the test, and a trained trunk."""
    profile = profiles.nano()
    profile.prepare(show_progress=True)
    pool = trials.shrunk_to(profile.training_set(), arms.SIDE)
    held_out = trials.shrunk_to(voc.ImageDataset(profile.select), arms.SIDE, HELD_OUT)
    test = trials.shrunk_to(voc.ImageDataset(profile.test), arms.SIDE, TEST)
    return pool, held_out, test, weights.load(profiles.RECORD)


def run(name: str, parts: Ingredients, records: list[dict], steps: int | None = None) -> dict:
    """One run by its name, as it is kept.

    Args:
        records: of the runs so far, which choose rates.
        steps: in place of the arm's own.
    """
    pool, held_out, test, trunk = parts
    arm_name, seed = advice.arm_and_seed(name)
    arm, besides = advice.arm_of(arm_name, records)
    setup = arms.baseline(pool, held_out, trunk, seed)
    arm.change(setup)
    setup.steps = steps or setup.steps
    result = trials.trial(setup, test, arm.choosing)
    end = f"diverged at step {result['diverged']}" if result["diverged"] else f"mAP {result['map']:.3f}"
    print(f"advice: {name}: {end}, {result['seconds']:.1f} s", flush=True)
    return {"arm": arm_name, "seed": seed} | besides | result


def source_of_picture() -> str:
    """Which records a picture is drawn from: their digest, which stands in the file."""
    return hashlib.sha256(RESULT.read_bytes()).hexdigest()


def draw() -> None:
    """The forest plot of all effects that README and the book's first page show."""
    found = advice.with_intervals(advice.answers(queues.read(RESULT)))
    families, effects = [one.question.family for one in found], [one.effect for one in found]
    figure = viz.forest_at_a_glance(families, effects, advice.names_at_a_glance(found))
    figure.savefig(PICTURE, dpi=120, metadata={"Source": source_of_picture()})


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["picture"]:
        draw()
        return
    if len(sys.argv) == 1 and not advice.left(queues.read(RESULT)):
        return
    parts = ingredients()
    if len(sys.argv) > 1:
        for arm in sys.argv[2:] or advice.every_arm():
            run(advice.name_of(arm, 0), parts, [], int(sys.argv[1]))
        return
    kept = queues.with_provenance(lambda name: run(name, parts, queues.read(RESULT)))
    made = queues.work(RESULT, CLAIMS, advice.left, kept)
    print(f"advice: {made} runs made, {len(queues.read(RESULT))} recorded in {RESULT}")


if __name__ == "__main__":
    main()
