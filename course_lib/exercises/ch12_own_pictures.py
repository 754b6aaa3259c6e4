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


def _rounded_early(
    centre: Callable[[float], float] = round, half: Callable[[float], float] = lambda side: round(side) // 2
) -> Callable:
    """Centre or sides, or both, in whole pixels first."""

    def twin(cx: float, cy: float, w: float, h: float, width: int, height: int) -> tuple:
        x, y, half_w, half_h = centre(cx * width), centre(cy * height), half(w * width), half(h * height)
        return round(x - half_w) + 1, round(y - half_h) + 1, round(x + half_w), round(y + half_h)

    return twin


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _whole_side(whole: Callable[[float], int]) -> Callable:
    """The left and upper corner, and from there the side in whole pixels."""

    def twin(cx: float, cy: float, w: float, h: float, width: int, height: int) -> tuple:
        left, top = whole((cx - w / 2) * width), whole((cy - h / 2) * height)
        return left + 1, top + 1, left + whole(w * width), top + whole(h * height)

    return twin


def _half_of_the_other_side(cx: float, cy: float, w: float, h: float, width: int, height: int) -> tuple:
    x, y, half_w, half_h = cx * width, cy * height, w * height / 2, h * width / 2
    return round(x - half_w) + 1, round(y - half_h) + 1, round(x + half_w), round(y + half_h)


YOLO_TO_VOC = Exercise(
    solution=yolo_to_voc,
    cases=[
        (0.5, 0.5, 0.5, 0.5, 100, 100),
        (0.25, 0.4, 0.2, 0.3, 500, 375),
        (0.5, 0.5, 1.0, 1.0, 640, 480),
        (0.342776, 0.61, 0.419263, 0.264, 353, 500),  # VOC2007's 000001, its dog
        (0.525, 0.025, 0.05, 0.05, 20, 20),  # a single pixel, at the upper border
        (0.73, 0.31, 0.41, 0.27, 333, 507),
        (0.31, 0.44, 0.2, 0.15, 58, 75),
    ],
    returns=("xmin", "ymin", "xmax", "ymax"),
    mistakes=mistakes(
        "counted from 0: The first pixel is number 1 in VOC. In yours a box at the left border begins at 0.",
        _corners(add=(0, 0)),
        "all four moved: You add 1 to all four. The box begins one pixel later; xmax is the last pixel that belongs to "
        "it, and stays.",
        _corners(add=(1, 1)),
        "1 the other way: You take 1 off at the left and above. VOC's first pixel is number 1, and its left edge is "
        "the line 0: 1 is added.",
        _corners(add=(-1, 0)),
        _corners(add=(-1, -1)),
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
        "half of the other side: The middle is right, but half of the width is taken of the picture's height, and half "
        "of the height of its width.",
        _half_of_the_other_side,
        "one pixel short: A fraction is one of the whole side: of all its pixels, not of one less.",
        _corners(sides=lambda width, height: (width - 1, height - 1)),
        "cut off: You cut the digits off, so a corner at 93.75 goes to 93. The nearest whole pixel is wanted.",
        _corners(low_whole=int, high_whole=int),
        "outwards: You round down on one side and up on the other, and the box grows. The nearest whole pixel is "
        "wanted.",
        _corners(low_whole=math.floor, high_whole=math.ceil),
        "up: You round all four up. The nearest whole pixel is wanted.",
        _corners(low_whole=math.ceil, high_whole=math.ceil),
        "rounded too early: You round before the corners are there: the middle, the sides, or both. What is lost to "
        "rounding then moves the corners. Round once, at the end.",
        _rounded_early(),
        _rounded_early(half=lambda side: side / 2),
        _rounded_early(half=lambda side: round(side) / 2),
        _rounded_early(centre=float),
        _rounded_early(centre=float, half=lambda side: round(side) / 2),
        _rounded_early(half=lambda side: round(side / 2)),
        _rounded_early(centre=float, half=lambda side: round(side / 2)),
        "width rounded: You round one corner, and add a width and a height that were rounded by themselves. Two errors "
        "of half a pixel may be a whole one: round each corner alone.",
        _whole_side(round),
        _whole_side(_half_up),
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


def _both_only(distances: Distances, most: int) -> list[int]:
    """Where two are near, they get one number, and what was in their groups keeps another."""
    groups = list(range(len(distances)))
    for one in range(len(groups)):
        for other in range(one):
            if distances[one, other] <= most:
                groups[one] = groups[other] = min(groups[one], groups[other])
    return groups


def _called_by_the_other(distances: Distances, most: int) -> list[int]:
    """The right groups, but where two become one it is not the smaller number that stays."""
    groups = list(range(len(distances)))
    for one in range(len(groups)):
        for other in range(one):
            if distances[one, other] <= most:
                goes, stays = groups[one], groups[other]
                groups = [stays if group == goes else group for group in groups]
    return groups


def _rounds(count: int, at_once: bool = False) -> Callable[[Distances, int], list[int]]:
    """Each takes the smallest number among those near to it, so many times: of before the round, or as they come."""

    def twin(distances: Distances, most: int) -> list[int]:
        groups = np.arange(len(distances))
        for _ in range(count):
            before = groups.copy() if at_once else groups
            for one in range(len(groups)):
                groups[one] = before[distances[one] <= most].min()
        return groups.tolist()

    return twin


def _hung_on(distances: Distances, most: int) -> list[int]:
    """A forest of pictures that hang on others: gives on which each hangs, not at which the chain ends."""
    hangs_on = list(range(len(distances)))

    def root(one: int) -> int:
        return one if hangs_on[one] == one else root(hangs_on[one])

    for one in range(len(hangs_on)):
        for other in range(one):
            if distances[one, other] <= most:
                low, high = sorted([root(one), root(other)])
                hangs_on[high] = low
    return hangs_on


def _near_to_all(distances: Distances, most: int) -> list[int]:
    """A picture joins the first group of which it is near to every member."""
    groups: list[int] = []
    for one in range(len(distances)):
        near = {group for group in groups if all(distances[one, i] <= most for i, g in enumerate(groups) if g == group)}
        groups.append(min(near, default=one))
    return groups


def _in_lists(distances: Distances, most: int) -> list[list[int]]:
    groups = groups_of(distances, most)
    return [[one for one, other in enumerate(groups) if other == group] for group in sorted(set(groups))]


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
        (_near(2, (0, 1, 5)), 5),
        (_near(7, (0, 5, 1), (1, 4, 2), (1, 5, 1), (1, 6, 3), (2, 3, 2), (3, 4, 1), (3, 6, 2)), 3),
        (_of_some_hashes(9, 12, 0), 3),
        (_of_some_hashes(8, 256, 0), 120),
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
        "only the two: Where two pictures are near you give one number to these two. What was in their groups before "
        "belongs to them, and must change its number too.",
        _both_only,
        "too few rounds: A chain may be as long as there are pictures, and you follow it for a fixed number of steps. "
        "Go on until nothing changes any more.",
        _rounds(2),
        _rounds(3),
        _rounds(2, at_once=True),
        _rounds(3, at_once=True),
        "not to the end: You give for each picture the one that it hangs on, and that one may hang on another. Follow "
        "it to the end when you answer.",
        _hung_on,
        "near to all: You let a picture into a group only if it is near to all that are in it. Near to one is enough.",
        _near_to_all,
        "below the limit: A distance that is exactly `most` is near enough.",
        _grouped(lambda distances, most: distances < most),
        "the far ones: You put together what differs much. Copies differ in few bits.",
        _grouped(lambda distances, most: distances > most),
        "equal only: You put together what has the same hash. Near-copies differ in some bits, up to `most`.",
        _grouped(lambda distances, most: distances == 0),
        "a limit of your own: You compare with a number of your function's own. The limit is the argument `most`.",
        _grouped(lambda distances, most: distances <= 64),
        "numbered through: These are the right groups, numbered 0, 1, 2, … The number wanted is that of a group's "
        "first picture.",
        _renamed(lambda groups, group: sorted(set(groups)).index(group)),
        "the last picture: These are the right groups, called by their last picture. Call each by its first.",
        _renamed(_last_of),
        "called by another: These are the right groups, and not each is called by its first picture. Where two groups "
        "become one, the smaller of their numbers stays.",
        _called_by_the_other,
        "lists in a list: You give the groups, each with its pictures. Wanted is one number for each picture.",
        _in_lists,
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
    unknown: Callable[[int, int], list[int | None]] = lambda start, place: [-1],
    last: bool = False,
) -> Callable[[Names, Names, int], list[int | None]]:
    """The right answer with a part exchanged; `last` puts background behind the classes."""

    def twin(old: Names, new: Names, priors: int) -> list[int | None]:
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


def _each_of_old(row: Callable[[int, Names, Names, int, str], int]) -> Callable[[Names, Names, int], list[int]]:
    """A row for each class of the old head."""

    def twin(old: Names, new: Names, priors: int) -> list[int]:
        rows = []
        for prior in range(priors):
            start = prior * (1 + len(old))
            kept = [row(start, old, new, place, name) if name in new else -1 for place, name in enumerate(old)]
            rows += [start, *kept]
        return rows

    return twin


def _matching(alike: Callable[[str, str], bool]) -> Callable[[Names, Names, int], list[int]]:
    """Takes the row of the first name that is alike."""

    def twin(old: Names, new: Names, priors: int) -> list[int]:
        places = [next((place for place, one in enumerate(old) if alike(one, name)), None) for name in new]
        each = [-1 if place is None else 1 + place for place in places]
        return [-1 if row < 0 else prior * (1 + len(old)) + row for prior in range(priors) for row in (0, *each)]

    return twin


def _background_once(old: Names, new: Names, priors: int) -> list[int]:
    """One row for background before all priors; the classes' rows are right."""
    rows = np.array(rows_taken(old, new, priors), dtype=np.int64).reshape(priors, -1)
    return [0, *rows[:, 1:].flatten().tolist()]


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


def _background_behind(old: Names, new: Names, priors: int) -> list[int]:
    """As if background stood behind the classes in both heads."""
    rows = []
    for start in range(0, priors * (1 + len(old)), 1 + len(old)):
        rows += [start + old.index(name) if name in old else -1 for name in new] + [start + len(old)]
    return rows


def _one_prior(old: Names, new: Names, priors: int) -> list[int]:
    return rows_taken(old, new, 1)


def _sorted_new(old: Names, new: Names, priors: int) -> list[int]:
    return rows_taken(old, sorted(new), priors)


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
        (("dog", "cat"), ("cat", "dog"), 2),  # a class list need not be sorted
        (("hotdog", "cat"), ("dog", "cat"), 2),
        (("cat", "dog"), ("hotdog", "dog"), 2),
        (("Cat", "dog"), ("dog", "cat"), 2),
    ],
    mistakes=mistakes(
        "by place: You take the rows by their place. The first class of the new head need not be the first of the old "
        "one: look at the names.",
        _by_place,
        "background anew: Background is the same in every head, and the hardest class to learn. Take its row too.",
        _taken(background=lambda start: [-1]),
        "first background for all: Every prior has a background row of its own. You take the first one's for all.",
        _taken(background=lambda start: [0]),
        "background once: Every prior has a background row, in front of its classes. You have one for all of them.",
        _background_once,
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
        "one prior: You give the rows of one prior. A head has as many times those rows as a cell has priors.",
        _one_prior,
        "first class lost: The class at place 0 of `old` begins anew in yours. In Python 0 counts as false: ask "
        "whether the name is there.",
        _taken(known=lambda start, old, place, name: start + 1 + old.index(name) if old.index(name) else -1),
        "an order of your own: The old head's rows stand in the order of `old`, whatever that is. You sort the names.",
        _taken(known=lambda start, old, place, name: start + 1 + sorted(old).index(name)),
        "new ones sorted: The new head's rows stand in the order of `new`. You sort the names.",
        _sorted_new,
        "a part of a name: You take a name for another that it is a part of, or that is a part of it. A hot dog is no "
        "dog: names are one class if they are equal.",
        _matching(lambda one, name: name in one),
        _matching(lambda one, name: one in name),
        _matching(lambda one, name: name in one or one in name),
        "capitals: A name in other letters is another name: `check` reports two spellings; a head has a row for each.",
        _matching(lambda one, name: one.casefold() == name.casefold()),
        "background for new: A class that the old head does not know takes no row: -1. You let it begin as background, "
        "and it would have to unlearn that.",
        _taken(unknown=lambda start, place: [start]),
        _taken(unknown=lambda start, place: [0]),
        "-1 and more: A class that the old head does not know has -1, in each prior. In yours something is added.",
        _taken(unknown=lambda start, place: [start - 1]),
        "None: A row that begins anew is marked by the number -1. In yours it is None.",
        _taken(unknown=lambda start, place: [None]),
        "by place where new: A class that the old head does not know takes no row. You give it one of another class.",
        _taken(unknown=lambda start, place: [start + 1 + place]),
        "new left out: The new head has a row for each of its classes, also for those that take none. Say -1 there.",
        _taken(unknown=lambda start, place: []),
        "unknown name: A class may be new. Its name is not among the old ones then, and there is nothing to find.",
        but(_some_new, stop, rows_taken),
        "background last: Background is a prior's first row, not its last.",
        _taken(last=True),
        _taken(last=True, known=lambda start, old, place, name: start + old.index(name)),
        _background_behind,
        "class by class: A head's rows go prior by prior: background and all classes of one, then of the next.",
        _class_by_class,
        _order_exchanged,
        "the other way: You say where the old head's rows go. For each row of the new head, say where it comes from.",
        _other_way,
        _each_of_old(lambda start, old, new, place, name: start + 1 + place),
        _each_of_old(lambda start, old, new, place, name: start + 1 + new.index(name)),
    ),
)

EXERCISES = {"yolo_to_voc": YOLO_TO_VOC, "groups_of": GROUPS_OF, "rows_taken": ROWS_TAKEN}
