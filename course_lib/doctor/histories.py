"""The history of a run: what its epochs' losses, measurements and rates say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from statistics import median

from course_lib.doctor.findings import Finding, fault, note, warning

PARTS = ("loc", "conf")
RATES = ("lr", "learning_rate")


def total(record: Mapping, prefix: str = "") -> float | None:
    """The loss of an epoch: its parts together, or what is recorded as "loss"; None where nothing is."""
    for names in (PARTS, ("loss",), ("train_loss",) if not prefix else ("valid_loss",)):
        values = [record.get(prefix + name) for name in names]
        if all(isinstance(value, int | float) for value in values):
            return float(sum(values))
    return None


def series(history: Sequence[Mapping], value: Callable[[Mapping], float | None]) -> list[tuple[int, float]]:
    """The epoch, from 1, and the value of each record that has one."""
    known = [(int(record.get("epoch", number)), value(record)) for number, record in enumerate(history, start=1)]
    return [(epoch, float(one)) for epoch, one in known if isinstance(one, int | float)]


def named(record: Mapping, *names: str) -> float | None:
    return next((record[name] for name in names if isinstance(record.get(name), int | float)), None)


def examined(history: Sequence[Mapping]) -> Iterator[Finding]:
    """What the records of a run say."""
    loss = series(history, total)
    val = series(history, lambda record: total(record, "val_"))
    measured = series(history, lambda record: named(record, "map", "mAP", "mean_ap"))
    rates = series(history, lambda record: named(record, *RATES))
    norms = series(history, lambda record: named(record, "grad_norm"))
    broken = [epoch for epoch, value in (*loss, *val) if not isfinite(value)]
    if broken:
        yield fault(
            f"the loss of epoch {min(broken)} is not finite",
            "from there on every weight is NaN",
            "go on from a state before it, at half the learning rate",
            9,
        )
        return
    yield from of_the_loss(loss, measured)
    yield from of_the_measurements(loss, measured)
    yield from of_the_gap(loss, val, measured)
    yield from of_the_rate(rates)
    yield from of_the_gradient(norms)
    yield from of_the_signs(history)


def of_the_loss(loss: list[tuple[int, float]], measured: list[tuple[int, float]]) -> Iterator[Finding]:
    """It rises, or stays where it is; a run from trained weights has a good mAP with a flat loss."""
    if len(loss) < 3:
        return
    first, last, good = loss[0][1], loss[-1][1], max((value for _, value in measured), default=0.0)
    epoch, lowest = min(loss, key=lambda one: one[1])
    if last > 1.5 * lowest and last > first:
        yield fault(
            f"the training loss rises: {first:.4g} in epoch {loss[0][0]}, {lowest:.4g} in epoch {epoch}, {last:.4g} in "
            f"epoch {loss[-1][0]}",
            "steps that are too long undo what was learned",
            "go on from before, at half the learning rate or with a longer warmup",
            9,
        )
    elif lowest > 0.97 * first and good < 0.1:
        how = fault if len(loss) >= 5 else warning
        yield how(
            f"the training loss is flat: {first:.4g} in epoch {loss[0][0]}, {last:.4g} in epoch {loss[-1][0]}",
            "nothing is being learned",
            "let it learn one batch by heart; look at the rate, at what is frozen, and at the targets",
            9,
        )


def of_the_measurements(loss: list[tuple[int, float]], measured: list[tuple[int, float]]) -> Iterator[Finding]:
    """mAP beside the loss, best and last."""
    values = [value for _, value in measured if isfinite(value)]
    if len(values) >= 3 and len(loss) >= 3 and max(values) < 0.005 and loss[-1][1] < 0.8 * loss[0][1]:
        yield fault(
            f"the loss falls from {loss[0][1]:.4g} to {loss[-1][1]:.4g}, and mAP stays at {max(values):.3f} in "
            f"{len(values)} measurements",
            "what falls is not what finds objects",
            "examine data and targets, the units of the boxes first; then whether detection decodes as training codes",
            14,
        )
    elif values and max(values) > 0.005:
        best = max(measured, key=lambda one: one[1] if isfinite(one[1]) else -1.0)
        yield note(
            f"mAP was best in epoch {best[0]}, {best[1]:.3f}, and is {values[-1]:.3f} in the last",
            "the best epoch is the one to use",
            "nothing to do" if values[-1] > 0.9 * best[1] else "use best.safetensors; train for fewer epochs",
            11,
        )


def of_the_gap(
    loss: list[tuple[int, float]], val: list[tuple[int, float]], measured: list[tuple[int, float]]
) -> Iterator[Finding]:
    """The validation loss rises while the training loss falls."""
    trained = dict(loss)
    if len(val) < 3:
        return
    epoch, lowest = min(val, key=lambda one: one[1])
    last_epoch, last = val[-1]
    if last < 1.1 * lowest or not {epoch, last_epoch} <= trained.keys() or trained[last_epoch] >= trained[epoch]:
        return
    text = (
        f"the validation loss was lowest in epoch {epoch}, {lowest:.4g}, and is {last:.4g} in epoch {last_epoch}; the "
        f"training loss fell from {trained[epoch]:.4g} to {trained[last_epoch]:.4g}"
    )
    cure = "more data or augmentation, fewer epochs, or a smaller network; choose the epoch by mAP"
    maps = [value for _, value in measured if isfinite(value)]
    lost = len(maps) >= 2 and maps[-1] < 0.7 * max(maps)
    how = warning if last > 1.5 * lowest and lost else note
    yield how(text, "it learns the training images by heart", cure, 11)


def of_the_rate(rates: list[tuple[int, float]]) -> Iterator[Finding]:
    """A rate of 0 anywhere but where a schedule ends."""
    zero = [epoch for epoch, rate in rates[:-1] if rate == 0]
    if zero:
        yield fault(
            f"the learning rate is 0 in epoch {zero[0]}" + (f" and {len(zero) - 1} more" if len(zero) > 1 else ""),
            "nothing is learned at rate 0",
            "look at the schedule: a factor of 0 in its first epoch, or an end that comes too early",
            9,
        )


def of_the_gradient(norms: list[tuple[int, float]]) -> Iterator[Finding]:
    """Gradients that grow."""
    values = [value for _, value in norms if isfinite(value)]
    third = len(values) // 3
    if third < 1:
        return
    early, late = median(values[:third]), median(values[-third:])
    if late > 10 * max(early, 1e-12) and late > 10:
        yield warning(
            f"the gradient grows: {early:.3g} long in the first third of the epochs, {late:.3g} in the last",
            "a gradient that grows ends in NaN",
            "lower the learning rate; look for weights that grow without a limit",
            9,
        )


def of_the_signs(history: Sequence[Mapping]) -> Iterator[Finding]:
    """What `VitalSigns` has found on the way: each kind once, and with its epoch."""
    said = set()
    for record in history:
        for one in record.get("signs", {}).get("findings", ()):
            if one["check"] not in said:
                said.add(one["check"])
                seen = f"in epoch {record['epoch']}: {one['seen']}"
                yield Finding(one["severity"], seen, one["why"], one["cure"], one["chapter"])
