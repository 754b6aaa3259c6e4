"""Chapter 12: a tree of one's own: another format's boxes, copies of one picture, a head for other classes.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def yolo_to_voc(cx, cy, w, h, width, height):
    xmin = round((cx - w / 2) * width) + 1
    ymin = round((cy - h / 2) * height) + 1
    xmax = round((cx + w / 2) * width)
    ymax = round((cy + h / 2) * height)
    return xmin, ymin, xmax, ymax


def _corners(
    low: Callable[[float, float], float] = lambda centre, side: centre - side / 2,
    high: Callable[[float, float], float] = lambda centre, side: centre + side / 2,
    low_whole: Callable[[float], float] = round,
    high_whole: Callable[[float], float] = round,
    add: tuple[int, int] = (1, 0),
    sides: Callable[[float, float], tuple[float, float]] = lambda width, height: (width, height),
    give: Callable[[float, float, float, float], tuple] = lambda xmin, ymin, xmax, ymax: (xmin, ymin, xmax, ymax),
) -> Callable:
    """The right answer with a part exchanged."""

    def twin(cx: float, cy: float, w: float, h: float, width: int, height: int) -> tuple:
        x, y = sides(width, height)
        return give(
            low_whole(low(cx, w) * x) + add[0],
            low_whole(low(cy, h) * y) + add[0],
            high_whole(high(cx, w) * x) + add[1],
            high_whole(high(cy, h) * y) + add[1],
        )

    return twin


def _rounded_early(cx: float, cy: float, w: float, h: float, width: int, height: int) -> tuple:
    """Centre and sides in whole pixels first."""
    x, y, half_w, half_h = round(cx * width), round(cy * height), round(w * width) // 2, round(h * height) // 2
    return x - half_w + 1, y - half_h + 1, x + half_w, y + half_h


YOLO_TO_VOC = Exercise(
    solution=yolo_to_voc,
    cases=[
        (0.5, 0.5, 0.5, 0.5, 100, 100),
        (0.25, 0.4, 0.2, 0.3, 500, 375),
        (0.5, 0.5, 1.0, 1.0, 640, 480),
        (0.342776, 0.61, 0.419263, 0.264, 353, 500),  # VOC2007's 000001, its dog
        (0.525, 0.025, 0.05, 0.05, 20, 20),  # a single pixel, at the upper border
        (0.73, 0.31, 0.41, 0.27, 333, 507),
    ],
    returns=("xmin", "ymin", "xmax", "ymax"),
    mistakes=mistakes(
        "counted from 0: The first pixel is number 1 in VOC. In yours a box at the left border begins at 0.",
        _corners(add=(0, 0)),
        "all four moved: You add 1 to all four. The box begins one pixel later; xmax is the last pixel that belongs to "
        "it, and stays.",
        _corners(add=(1, 1)),
        "last pixel lost: You take 1 off at the right and below. The last pixel still belongs to the box.",
        _corners(add=(1, -1)),
        _corners(add=(0, -1)),
        "centre as corner: The first two numbers are the middle of the box. You begin the box there.",
        _corners(low=lambda centre, side: centre, high=lambda centre, side: centre + side),
        "half and whole: The third and fourth number are the whole width and height. Half of each lies on either side.",
        _corners(low=lambda centre, side: centre - side, high=lambda centre, side: centre + side),
        "corners already: You read the four numbers as corners. They are a centre, a width and a height.",
        lambda cx, cy, w, h, width, height: (
            round(cx * width) + 1,
            round(cy * height) + 1,
            round(w * width),
            round(h * height),
        ),
        "sides exchanged: You multiply x by the height and y by the width.",
        _corners(sides=lambda width, height: (height, width)),
        "cut off: You cut the digits off, so a corner at 93.75 goes to 93. The nearest whole pixel is wanted.",
        _corners(low_whole=int, high_whole=int),
        "outwards: You round down on one side and up on the other, and the box grows. The nearest whole pixel is "
        "wanted.",
        _corners(low_whole=math.floor, high_whole=math.ceil),
        "up: You round all four up. The nearest whole pixel is wanted.",
        _corners(low_whole=math.ceil, high_whole=math.ceil),
        "rounded too early: You round centre and sides, and halve them then. What was lost to rounding moves the "
        "corners: round once, at the end.",
        _rounded_early,
        "not rounded: VOC's corners are whole pixels. Round them, to whole numbers.",
        _corners(low_whole=float, high_whole=float),
        _corners(low_whole=float, high_whole=float, add=(0, 0)),
        "a float: These are the right numbers, as floats: 26.0 would stand in the XML. Make whole numbers of them.",
        _corners(low_whole=lambda x: float(round(x)), high_whole=lambda x: float(round(x))),
        "fractions: These are still fractions of the picture. Multiply by its width and height.",
        _corners(low_whole=float, high_whole=float, add=(0, 0), sides=lambda width, height: (1, 1)),
        "another order: VOC's order is xmin, ymin, xmax, ymax.",
        _corners(give=lambda xmin, ymin, xmax, ymax: (xmin, xmax, ymin, ymax)),
        "sides given: You give back a width and a height. xmax and ymax are wanted.",
        _corners(give=lambda xmin, ymin, xmax, ymax: (xmin, ymin, xmax - xmin + 1, ymax - ymin + 1)),
        _corners(give=lambda xmin, ymin, xmax, ymax: (xmin, ymin, xmax - xmin, ymax - ymin)),
    ),
)


def groups_of(distances, most):
    groups = list(range(len(distances)))
    for one in range(len(groups)):
        for other in range(one):
            if distances[one, other] <= most:
                low, high = sorted([groups[one], groups[other]])
                groups = [low if group == high else group for group in groups]
    return groups


Distances = np.ndarray


def _grouped(reaches: Callable[[Distances, int], np.ndarray]) -> Callable[[Distances, int], list[int]]:
    """The right groups of another question: which pairs are copies."""
    return lambda distances, most: groups_of(np.where(reaches(distances, most), 0, 1), 0)


def _direct(distances: Distances, most: int) -> list[int]:
    """Each goes to the first picture that it is near to itself."""
    return (distances <= most).argmax(axis=1).tolist()


def _from_the_first(distances: Distances, most: int) -> list[int]:
    """A picture that has no group yet begins one, and takes what is near to it alone."""
    groups = [-1] * len(distances)
    for one in range(len(groups)):
        if groups[one] < 0:
            for other in range(one, len(groups)):
                if distances[one, other] <= most and groups[other] < 0:
                    groups[other] = one
    return groups


def _not_joined(join: Callable[[list[int]], int]) -> Callable[[Distances, int], list[int]]:
    """A picture joins one of the groups that it is near to, and the others do not become one."""

    def twin(distances: Distances, most: int) -> list[int]:
        groups = []
        for one in range(len(distances)):
            near = [groups[other] for other in range(one) if distances[one, other] <= most]
            groups.append(join(near) if near else one)
        return groups

    return twin


def _renamed(name: Callable[[list[int], int], int]) -> Callable[[Distances, int], list[int]]:
    """The right groups under other numbers."""

    def twin(distances: Distances, most: int) -> list[int]:
        groups = groups_of(distances, most)
        return [name(groups, group) for group in groups]

    return twin


def _last_of(groups: list[int], group: int) -> int:
    return max(one for one, other in enumerate(groups) if other == group)


def _near(count: int, *pairs: tuple[int, int, int]) -> Distances:
    """Distances of 20 but for some pairs."""
    distances = np.full((count, count), 20)
    np.fill_diagonal(distances, 0)
    for one, other, distance in pairs:
        distances[one, other] = distances[other, one] = distance
    return distances


def _of_some_hashes(count: int, bits: int, seed: int) -> Distances:
    hashes = np.random.default_rng(seed).random((count, bits)) < 0.5
    return (hashes[:, None] != hashes).sum(axis=2)


GROUPS_OF = Exercise(
    solution=groups_of,
    cases=[
        (_near(3, (0, 2, 3)), 5),
        (_near(4, (0, 1, 5), (2, 3, 6)), 5),
        (_near(4, (0, 1, 4), (1, 2, 4)), 5),
        (_near(5, (0, 3, 2), (1, 4, 0)), 8),
        (_near(5, (1, 4, 2), (3, 4, 2), (0, 2, 1)), 3),
        (_near(5, (0, 2, 1), (1, 3, 1), (2, 4, 1), (3, 4, 1)), 3),
        (_of_some_hashes(9, 12, 0), 3),
        (_of_some_hashes(12, 16, 1), 5),
        (_near(1), 5),
        (np.zeros((0, 0), dtype=np.int64), 5),
    ],
    mistakes=mistakes(
        "no chains: You ask only which picture is near. If 0 is near 1, and 1 near 2, all three are one group, though "
        "0 and 2 differ more.",
        _direct,
        _from_the_first,
        "groups not joined: A picture may be near to two groups that had nothing to do with each other. Then both are "
        "one from now on, with all that was in them.",
        _not_joined(min),
        _not_joined(lambda near: near[0]),
        "joined to the last: A picture that is near to several groups joins the last of them in yours. They all become "
        "one.",
        _not_joined(lambda near: near[-1]),
        "below the limit: A distance that is exactly `most` is near enough.",
        _grouped(lambda distances, most: distances < most),
        "the far ones: You put together what differs much. Copies differ in few bits.",
        _grouped(lambda distances, most: distances > most),
        "equal only: You put together what has the same hash. Near-copies differ in some bits, up to `most`.",
        _grouped(lambda distances, most: distances == 0),
        "numbered through: These are the right groups, numbered 0, 1, 2, … The number wanted is that of a group's "
        "first picture.",
        _renamed(lambda groups, group: sorted(set(groups)).index(group)),
        "the last picture: These are the right groups, called by their last picture. Call each by its first.",
        _renamed(_last_of),
        "alone is no group: A picture without a copy is a group by itself, and has its own number.",
        _renamed(lambda groups, group: group if groups.count(group) > 1 else -1),
        "sizes: You give how many pictures a group has. Give the number of its first picture.",
        _renamed(lambda groups, group: groups.count(group)),
        "no pictures: There may be no pictures. Then the answer is empty.",
        but(lambda distances, most: not len(distances), stop, groups_of),
        but(lambda distances, most: not len(distances), lambda: [0], groups_of),
    ),
)


def rows_taken(old, new, priors):
    rows = []
    for prior in range(priors):
        start = prior * (1 + len(old))
        rows.append(start)
        rows += [start + 1 + old.index(name) if name in old else -1 for name in new]
    return rows


Names = Sequence[str]


def _taken(
    start: Callable[[int, Names, Names], int] = lambda prior, old, new: prior * (1 + len(old)),
    background: Callable[[int], list[int]] = lambda start: [start],
    known: Callable[[int, Names, int, str], int] = lambda start, old, place, name: start + 1 + old.index(name),
    unknown: Callable[[int, int], list[int]] = lambda start, place: [-1],
    last: bool = False,
) -> Callable[[Names, Names, int], list[int]]:
    """The right answer with a part exchanged; `last` puts background behind the classes."""

    def twin(old: Names, new: Names, priors: int) -> list[int]:
        rows = []
        for prior in range(priors):
            first, classes = start(prior, old, new), []
            for place, name in enumerate(new):
                classes += [known(first, old, place, name)] if name in old else unknown(first, place)
            rows += classes + background(first) if last else background(first) + classes
        return rows

    return twin


def _by_place(old: Names, new: Names, priors: int) -> list[int]:
    """Row for row, whatever the names are."""
    place = [index if index <= len(old) else -1 for index in range(1 + len(new))]
    return [prior * (1 + len(old)) + index if index >= 0 else -1 for prior in range(priors) for index in place]


def _class_by_class(old: Names, new: Names, priors: int) -> list[int]:
    """As if a head held the rows of all priors for background, then of all for the first class, ..."""
    rows = []
    for name in ("", *new):
        place = 0 if not name else 1 + old.index(name) if name in old else None
        rows += [-1 if place is None else place * priors + prior for prior in range(priors)]
    return rows


def _order_exchanged(old: Names, new: Names, priors: int) -> list[int]:
    """The right rows, class by class."""
    return np.array(rows_taken(old, new, priors), dtype=np.int64).reshape(priors, -1).T.flatten().tolist()


def _other_way(old: Names, new: Names, priors: int) -> list[int]:
    return rows_taken(new, old, priors)


def _some_new(old: Names, new: Names, priors: int) -> bool:
    return not set(new) <= set(old)


ROWS_TAKEN = Exercise(
    solution=rows_taken,
    cases=[
        (("cat", "dog"), ("cat", "dog"), 1),
        (("cat", "dog"), ("dog", "cat"), 1),
        (("cat", "dog"), ("dog", "cat"), 2),
        (("cat", "dog"), ("dog", "fox"), 2),
        (("cat", "cow", "dog"), ("dog",), 3),
        (("cow",), ("cat", "cow", "dog"), 2),
        (("cat", "cow", "dog"), ("fox", "owl"), 2),
        (("bird", "cat", "cow", "dog"), ("owl", "dog", "bird"), 4),
    ],
    mistakes=mistakes(
        "by place: You take the rows by their place. The first class of the new head need not be the first of the old "
        "one: look at the names.",
        _by_place,
        "background anew: Background is the same in every head, and the hardest class to learn. Take its row too.",
        _taken(background=lambda start: [-1]),
        "no background: Each prior's first row is background, in the old head and in the new one. Yours has none.",
        _taken(background=lambda start: []),
        _taken(
            start=lambda prior, old, new: prior * len(old),
            background=lambda start: [],
            known=lambda start, old, place, name: start + old.index(name),
        ),
        "one row too early: Row 0 of a prior is background, so the first class is row 1.",
        _taken(known=lambda start, old, place, name: start + old.index(name)),
        "background uncounted: A prior has as many rows as the old head has classes, and one more for background. Your "
        "second prior begins a row too early.",
        _taken(start=lambda prior, old, new: prior * len(old)),
        "new stride: A prior begins where the old head's rows of the priors before it end. You count with the new "
        "head's.",
        _taken(start=lambda prior, old, new: prior * (1 + len(new))),
        "first prior for all: Every prior has rows of its own. You take the first one's for all.",
        _taken(start=lambda prior, old, new: 0),
        "background for new: A class that the old head does not know takes no row: -1. You let it begin as background, "
        "and it would have to unlearn that.",
        _taken(unknown=lambda start, place: [start]),
        _taken(unknown=lambda start, place: [0]),
        "by place where new: A class that the old head does not know takes no row. You give it one of another class.",
        _taken(unknown=lambda start, place: [start + 1 + place]),
        "new left out: The new head has a row for each of its classes, also for those that take none. Say -1 there.",
        _taken(unknown=lambda start, place: []),
        "unknown name: A class may be new. Its name is not among the old ones then, and there is nothing to find.",
        but(_some_new, stop, rows_taken),
        "background last: Background is a prior's first row, not its last.",
        _taken(last=True),
        "class by class: A head's rows go prior by prior: background and all classes of one, then of the next.",
        _class_by_class,
        _order_exchanged,
        "the other way: You say where the old head's rows go. For each row of the new head, say where it comes from.",
        _other_way,
    ),
)

EXERCISES = {"yolo_to_voc": YOLO_TO_VOC, "groups_of": GROUPS_OF, "rows_taken": ROWS_TAKEN}
