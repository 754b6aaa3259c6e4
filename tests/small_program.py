"""The course's program with little to do: the cpu profile for one epoch, on the devkit that COURSE_DEVKIT names."""

import runpy
from dataclasses import replace

from course_lib import profiles

USUAL = profiles.cpu


def small() -> profiles.Profile:
    usual = USUAL()
    recipe = replace(usual.recipe, epochs=1, batch_size=12, warmup_steps=0, evaluate_every=1)
    return replace(usual, recipe=recipe, pretraining_steps=0, workers=1)


if __name__ == "__main__":
    profiles.PROFILES["cpu"] = small
    runpy.run_module("course_lib", run_name="__main__", alter_sys=True)
