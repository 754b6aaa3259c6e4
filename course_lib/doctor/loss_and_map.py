"""Is a loss a measure of mAP? The trainings that are recorded, each as its losses and what was measured with them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from jaxtyping import Float

from course_lib.doctor.histories import total


@dataclass(frozen=True)
class Curve:
    """One training: a loss and an mAP wherever both were recorded, in the order of training.

    Attributes:
        experiment: the record's name; within one, all is measured on the same images.
        recipe: the name of what differs there: a loss, a repair, a start.
        held_out: whether the losses are of held-out images, or of the training's own.
    """

    experiment: str
    recipe: str
    losses: tuple[float, ...]
    maps: tuple[float, ...]
    held_out: bool


def gathered(results: Path, record: Path | None = None) -> list[Curve]:
    """Every training that is recorded with a loss and an mAP.

    Args:
        results: the folder of the experiments' results: each file with {"runs": {recipe: [{"history": [...]}]}}, a
            history as `runs` keeps it; other files hold no trainings.
        record: a recorded run's own file, with {"history": [...]}.
    """
    curves = []
    for path in sorted(results.glob("*.json")):
        recipes = json.loads(path.read_text()).get("runs")
        for recipe, runs in recipes.items() if isinstance(recipes, dict) else ():
            curves += [curve(path.stem, recipe, one) for one in runs if "history" in one]
    if record is not None and record.exists():
        curves.append(curve("the recorded run", record.stem, json.loads(record.read_text())))
    return [one for one in curves if one.losses]


def curve(experiment: str, recipe: str, run: Mapping) -> Curve:
    """What a run's history says; an mAP that is recorded beside it is its last epoch's."""
    history = [dict(one) for one in run["history"]]
    if history and isinstance(run.get("map"), float):
        history[-1].setdefault("map", run["map"])
    for prefix in ("val_", ""):
        points = list(pairs(history, prefix))
        if points:
            break
    losses, maps = zip(*points, strict=True) if points else ((), ())
    return Curve(experiment, recipe, losses, maps, prefix == "val_")


def pairs(history: Sequence[Mapping], prefix: str) -> Iterator[tuple[float, float]]:
    """Loss and mAP of the records that have both."""
    for one in history:
        loss, value = total(one, prefix), one.get("map")
        if loss is not None and isinstance(value, float) and isfinite(loss) and isfinite(value):
            yield loss, value


def ranks(values: Sequence[float]) -> Float[np.ndarray, " N"]:
    """The place of each value in rising order, from 1; equal values share the mean of their places."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def rank_correlation(losses: Sequence[float], maps: Sequence[float]) -> float | None:
    """Spearman's correlation of a low loss with a high mAP: 1 where the order is the same, -1 where it is reversed.

    None where there are fewer than three, or one of them does not vary: nothing can be ordered then.
    """
    if len(losses) < 3 or len(set(losses)) == 1 or len(set(maps)) == 1:
        return None
    return -float(np.corrcoef(ranks(losses), ranks(maps))[0, 1])


def within(curves: Sequence[Curve]) -> dict[str, list[float]]:
    """The rank correlation along each training, by recipe; those in which nothing can be ordered are left out."""
    found: dict[str, list[float]] = {}
    for one in curves:
        value = rank_correlation(one.losses, one.maps)
        if value is not None:
            found.setdefault(f"{one.experiment}: {one.recipe}", []).append(value)
    return found


def across(curves: Sequence[Curve]) -> dict[str, float | None]:
    """The rank correlation of the ends of an experiment's trainings, whatever their recipe."""
    ends: dict[str, list[tuple[float, float]]] = {}
    for one in curves:
        ends.setdefault(one.experiment, []).append((one.losses[-1], one.maps[-1]))
    return {name: rank_correlation(*zip(*points, strict=True)) for name, points in ends.items()}
