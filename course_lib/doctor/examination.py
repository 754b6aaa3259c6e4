"""The examination: which checks there are, and the order in which a person should look."""

import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from course_lib.doctor import (
    class_gap,
    data,
    layers,
    learning,
    modes,
    network,
    optimisation,
    parameters,
    penalties,
    pipeline,
    prior_boxes,
    steps,
    suppression,
    targets,
)
from course_lib.doctor.checks import Check
from course_lib.doctor.findings import Finding, Report, fault
from course_lib.doctor.patient import Patient

HERE = Path(__file__).parent
# Parts that change the network, its statistics or random numbers when they are called: what they change is put back.
CALLED = {"model", "outputs", "losses", "step", "detect"}


def every_check() -> tuple[Check, ...]:
    """All checks, in the order in which a person should look: what comes first causes what comes later."""
    return tuple(
        one
        for family in (
            data,
            pipeline,
            prior_boxes,
            targets,
            network,
            layers,
            penalties,
            parameters,
            optimisation,
            steps,
            modes,
            suppression,
            class_gap,
            learning,
        )
        for one in family.CHECKS
    )


def lacking(patient: Patient, one: Check) -> list[str]:
    """What a patient lacks for a check."""
    return [need for need in one.needs if not any(patient.has(name) for name in need.split("|"))]


def examine(
    patient: Patient,
    learning: bool = True,
    only: Iterable[str] | None = None,
    follow: Callable[[str], None] = lambda name: None,
) -> Report:
    """Put every question to a patient that it has the parts for; nothing of the patient is changed.

    Args:
        learning: also those that train: seconds to two minutes. They train the patient's own model and put everything
            back as it was.
        only: names of checks; None for all.
        follow: called with the name of each check before it is made.

    Raises:
        ValueError: a name in `only` is no check's.
    """
    checks = every_check()
    wanted = {one.name for one in checks} if only is None else set(only)
    if unknown := wanted - {one.name for one in checks}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such check; there are {', '.join(c.name for c in checks)}")
    findings: list[Finding] = []
    not_examined, seconds, errors = {}, {}, {}
    for one in checks:
        if one.name not in wanted or (one.learning and not learning):
            continue
        if missing := lacking(patient, one):
            not_examined[one.name] = f"without {' and '.join(missing)}"
            continue
        follow(one.name)
        started = time.perf_counter()
        try:
            findings += made(one, patient)
        except Exception as error:  # whatever a stranger's code raises is what was seen
            text = in_a_line(error)
            if text in errors:  # one broken part fails in every check that needs it
                not_examined[one.name] = f"for the same error as {errors[text]}"
                continue
            errors[text] = one.name
            findings.append(replace(failed(error), check=one.name))
        seconds[one.name] = time.perf_counter() - started
    return Report(tuple(findings), tuple(seconds), not_examined, seconds)


def made(one: Check, patient: Patient) -> list[Finding]:
    """The findings of one check."""
    calls = CALLED.intersection(name for need in one.needs for name in need.split("|"))
    with patient.undisturbed() if calls else nullcontext():
        return [replace(finding, check=one.name) for finding in one.run(patient)]


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def failed(error: Exception) -> Finding:
    """A part of the patient that fails when it is called, and where in its own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if HERE not in Path(frame.filename).parents]
    place = f" in {frames[-1].name}, {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return fault(
        f"a part that the check calls fails{place}: {in_a_line(error)}",
        "what fails when it is called cannot be learned from",
        "call this part by itself, with the sample or batch that the check has given it, until it works",
        13,
    )
