"""VOC's evaluation as a walk through the detections: slow twins that share no code with the library."""

from fractions import Fraction
from typing import NamedTuple


class Thing(NamedTuple):
    """An object, or a detection with its score."""

    image: int
    label: int
    box: list[float]
    difficult: bool = False
    score: float = 0.0


def objects_of(truths):
    """All objects, class by class."""
    things = []
    for image, truth in enumerate(truths):
        columns = truth.boxes_px.double().tolist(), truth.labels.tolist(), truth.difficult.tolist()
        things += [Thing(image, label, box, difficult) for box, label, difficult in zip(*columns, strict=True)]
    return sorted(things, key=lambda thing: thing.label)


def ranked(detections, truths, label):
    """The detections of a class by falling score; equal scores keep their order."""
    things = []
    for image, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        for box, score, y in zip(
            found.boxes.double().tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        ):
            pixels = [fraction * side for fraction, side in zip(box, truth.size * 2, strict=True)]
            things += [Thing(image, y, pixels, score=score)] if y == label else []
    return sorted(things, key=lambda thing: -thing.score)


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def same_class(thing, other):
    return thing.label == other.label


def another_class(thing, other):
    return thing.label != other.label


def most_overlapped(thing, objects, wanted):
    """The number of the object of a `wanted` class that a detection overlaps most, and the overlap; None and 0."""
    best, highest = None, 0.0
    for number, other in enumerate(objects):
        if other.image == thing.image and wanted(thing, other):
            overlap = iou(thing.box, other.box)
            if best is None or overlap > highest:
                best, highest = number, overlap
    return best, highest


def walk(things, objects, threshold):
    """What each detection of a class, by falling score, found: 1, 0 or -1; and the numbers of the found objects."""
    taken, outcome = set(), []
    for thing in things:
        best, overlap = most_overlapped(thing, objects, same_class)
        if best is None or overlap < threshold:
            outcome.append(0)
        elif objects[best].difficult:
            outcome.append(-1)
        else:
            outcome.append(int(best not in taken))
            taken.add(best)
    return outcome, taken


def average_precision(right, objects, method="area"):
    """AP of a ranked list of True and False, in exact fractions where it can be; None without objects."""
    if not objects:
        return None
    true, points = 0, []
    for rank, is_right in enumerate(right, start=1):
        true += is_right
        points.append((Fraction(true, objects), Fraction(true, rank)))
    if method == "11point":
        levels = [k * 0.1 for k in range(11)]
        return sum(max((float(p) for r, p in points if float(r) >= level), default=0.0) for level in levels) / 11
    area, last = Fraction(0), Fraction(0)
    for index, (recall, _) in enumerate(points):
        if recall > last:
            area += (recall - last) * max(p for _, p in points[index:])
            last = recall
    return float(area)


def mean_ap(lists, truths, labels):
    """Mean AP of lists of (score, is right) by label, in any order."""
    objects = objects_of(truths)
    values = []
    for label in labels:
        by_score = sorted(lists.get(label, []), key=lambda row: -row[0])
        count = sum(thing.label == label and not thing.difficult for thing in objects)
        values.append(average_precision([right for _, right in by_score], count))
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else float("nan")


def errors(detections, truths, labels, threshold=0.5, near=0.1):
    """Kinds of errors with their counts and costs, from lists that are repaired detection by detection."""
    objects = objects_of(truths)
    found, false, right = set(), [], []
    for label in labels:
        things = ranked(detections, truths, label)
        outcome, taken = walk(things, objects, threshold)
        found |= taken
        right += [thing for thing, o in zip(things, outcome, strict=True) if o == 1]
        false += [thing for thing, o in zip(things, outcome, strict=True) if o == 0]
    kinds = {kind: [] for kind in ("localisation", "class", "both", "duplicate", "background")}
    for thing in false:
        own, overlap = most_overlapped(thing, objects, same_class)
        other, of_other = most_overlapped(thing, objects, another_class)
        if overlap >= threshold:
            kinds["duplicate"].append((thing, None))
        elif overlap >= near:
            kinds["localisation"].append((thing, own))
        elif of_other >= threshold:
            kinds["class"].append((thing, other))
        else:
            kinds["both" if of_other >= near else "background"].append((thing, None))
    before = mean_ap(_lists(right, false), truths, labels)
    counts, costs, repairable = {}, {}, set()
    for kind, of_kind in kinds.items():
        repaired, taken = list(right), set()
        for thing, number in sorted(of_kind, key=lambda pair: -pair[0].score):
            if number is not None and number not in found | taken and not objects[number].difficult:
                taken.add(number)
                repaired.append(thing._replace(label=objects[number].label))
        repairable |= taken
        rest = [thing for thing in false if thing not in [pair[0] for pair in of_kind]]
        counts[kind], costs[kind] = len(of_kind), mean_ap(_lists(repaired, rest), truths, labels) - before
    missed = [
        thing._replace(score=2.0)
        for number, thing in enumerate(objects)
        if number not in found | repairable and not thing.difficult and thing.label in labels
    ]
    costs["missed"] = mean_ap(_lists(right + missed, false), truths, labels) - before
    return counts | {"missed": len(missed)}, costs


def _lists(right, false):
    lists = {}
    for is_right, things in ((True, right), (False, false)):
        for thing in things:
            lists.setdefault(thing.label, []).append((thing.score, is_right))
    return lists
