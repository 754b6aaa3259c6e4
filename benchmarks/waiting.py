"""Threads that wait: how fast ssd_mini pretrains and trains by how OpenMP's threads wait for each other.

OpenMP's threads share each operation and meet at its end. Who comes first turns in a loop for a while before it
sleeps, and takes the core from whoever still has work: the loader's worker, or another program. Training steps as
the cpu profile does them, with its one worker, and steps of pretraining, whose operations are small; each setting in
a process of its own, on a machine that does nothing else and beside one process that keeps a core busy. The settings
take turns, and the numbers are medians.

`--seconds 1 --rounds 1` only tries it, and writes nothing. Result in benchmarks/results/waiting.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path

from course_lib import forecast, pretraining, profiles, runs, training
from course_lib.files import write_whole
from course_lib.voc import Batch

SECONDS, ROUNDS, WARM_UP = 5, 3, 2  # the first steps are not counted
SETTINGS = (
    {},
    {"GOMP_SPINCOUNT": "30000"},
    {"GOMP_SPINCOUNT": "10000"},
    {"GOMP_SPINCOUNT": "3000"},
    {"GOMP_SPINCOUNT": "1000"},
    {"OMP_WAIT_POLICY": "PASSIVE"},
    {"OMP_NUM_THREADS": "1"},
)


def name(setting: dict[str, str]) -> str:
    return " ".join(f"{variable}={value}" for variable, value in setting.items()) or "nothing set"


@contextmanager
def busy_process() -> Iterator[None]:
    """Beside it one more process keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


BESIDE = {"quiet": nullcontext, "busy": busy_process}


def batches(trainer: training.Trainer) -> Iterator[Batch]:
    """Epoch after epoch."""
    for epoch in count():
        trainer.sampler.epoch = epoch
        yield from trainer.loader


def train(seconds: float) -> float:
    """Images per second of a run that is never saved, in the process that calls it."""
    profile = profiles.cpu()
    profile.prepare()
    dataset, transform = profile.training_set(), profile.training_transform()
    model = profile.model().train()
    trainer = training.Trainer(model, dataset, transform, profile.recipe, "unused", workers=profile.workers)
    trainer.prepare()
    images, started = 0, 0.0
    for number, batch in enumerate(batches(trainer), start=1):
        trainer.step(model, batch)
        if number == WARM_UP:
            started = time.perf_counter()
        if number > WARM_UP:
            images += len(batch.images)
            if time.perf_counter() - started >= seconds:
                break
    return images / (time.perf_counter() - started)


def pretrain(seconds: float) -> float:
    """Crops per second, in the process that calls it."""
    return pretraining.BATCH * forecast.steps_a_second(forecast.pretraining_step(profiles.cpu()), seconds)


WORK = {"training": train, "pretraining": pretrain}


def measured(setting: dict[str, str], seconds: float) -> dict[str, float]:
    """What each of `WORK` gives in a fresh process in which nothing else of the kind is set."""
    variables = {variable for one in SETTINGS for variable in one}
    environment = {key: value for key, value in os.environ.items() if key not in variables} | setting
    command = [sys.executable, __file__, "--here", "--seconds", str(seconds)]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout)


def main(seconds: float, rounds: int) -> None:
    speeds = {work: {beside: {name(setting): [] for setting in SETTINGS} for beside in BESIDE} for work in WORK}
    for number in range(1, rounds + 1):
        for beside, other in BESIDE.items():
            for setting in SETTINGS:
                with other():
                    found = measured(setting, seconds)
                for work, speed in found.items():
                    speeds[work][beside][name(setting)].append(speed)
                print(f"round {number}, {beside}, {name(setting)}: {json.dumps(found)}", flush=True)
    medians = {
        work: {
            beside: {setting: statistics.median(values) for setting, values in by_setting.items()}
            for beside, by_setting in by_beside.items()
        }
        for work, by_beside in speeds.items()
    }
    result = {
        "seconds": seconds,
        "rounds": rounds,
        "images_per_second": medians,
        "provenance": runs.environment(),
    }
    print(json.dumps(result, indent=1))
    if (seconds, rounds) != (SECONDS, ROUNDS):
        print("a trial: nothing is written")
        return
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    write_whole(results / "waiting.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--here", action="store_true", help="measure in this process, as it is, and print the speeds")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps({work: measure(asked.seconds) for work, measure in WORK.items()}))
    else:
        main(asked.seconds, asked.rounds)
