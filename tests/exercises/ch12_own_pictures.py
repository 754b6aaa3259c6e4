"""Answers to the exercises of chapter 12, right and wrong: YOLO's boxes, groups of copies, a head for other classes."""

from inspect import getsource

from course_lib.exercises import ch12_own_pictures

YOLO_TO_VOC = {
    "plain": getsource(ch12_own_pictures.yolo_to_voc),
    "numpy": """
        def yolo_to_voc(cx, cy, w, h, width, height):
            centre, half = np.array([cx, cy]), np.array([w, h]) / 2
            size = np.array([width, height])
            low = np.rint((centre - half) * size).astype(int) + 1
            high = np.rint((centre + half) * size).astype(int)
            return [*low, *high]
    """,
    "half up": """
        def yolo_to_voc(cx, cy, w, h, width, height):
            corners = []
            for centre, side, length in ((cx, w, width), (cy, h, height)):
                left = (centre - side / 2) * length
                corners.append((int(left + 0.5) + 1, int(left + side * length + 0.5)))
            (xmin, xmax), (ymin, ymax) = corners
            return xmin, ymin, xmax, ymax
    """,
}

GROUPS_OF = {
    "plain": getsource(ch12_own_pictures.groups_of),
    "repeat": """
        def groups_of(distances, most):
            near = distances <= most
            groups = np.arange(len(distances))
            for _ in range(len(groups)):
                for i in range(len(groups)):
                    groups[i] = groups[near[i]].min()
            return groups
    """,
    "search": """
        def groups_of(distances, most):
            groups = [None] * len(distances)
            for start in range(len(distances)):
                waiting = [start] if groups[start] is None else []
                while waiting:
                    one = waiting.pop()
                    if groups[one] is None:
                        groups[one] = start
                        waiting += np.flatnonzero(distances[one] <= most).tolist()
            return groups
    """,
    "parents": """
        def groups_of(distances, most):
            parent = list(range(len(distances)))

            def root(i):
                while parent[i] != i:
                    i = parent[i]
                return i

            for i in range(len(parent)):
                for j in range(i):
                    if distances[i][j] <= most:
                        a, b = root(i), root(j)
                        parent[max(a, b)] = min(a, b)
            return [root(i) for i in range(len(parent))]
    """,
}

ROWS_TAKEN = {
    "plain": getsource(ch12_own_pictures.rows_taken),
    "names": """
        def rows_taken(old, new, priors):
            old_names, new_names = ["background", *old], ["background", *new]
            where = {name: i for i, name in enumerate(old_names)}
            return [
                k * len(old_names) + where[name] if name in where else -1
                for k in range(priors)
                for name in new_names
            ]
    """,
    "numpy": """
        def rows_taken(old, new, priors):
            place = np.array([0] + [old.index(name) + 1 if name in old else -1 for name in new])
            rows = np.arange(priors)[:, None] * (len(old) + 1) + place
            rows[:, place < 0] = -1
            return rows.flatten()
    """,
}

RIGHT = {"yolo_to_voc": YOLO_TO_VOC, "groups_of": GROUPS_OF, "rows_taken": ROWS_TAKEN}

WRONG = {
    "yolo_to_voc": {
        "counted from 0": [("plain", ") + 1", ")"), ("numpy", ".astype(int) + 1", ".astype(int)")],
        "all four moved": [
            ("plain", "xmax = round((cx + w / 2) * width)", "xmax = round((cx + w / 2) * width) + 1",
             "ymax = round((cy + h / 2) * height)", "ymax = round((cy + h / 2) * height) + 1"),
            ("numpy", "return [*low, *high]", "return [*low, *(high + 1)]"),
        ],
        "1 the other way": [("plain", ") + 1", ") - 1"), ("numpy", ".astype(int) + 1", ".astype(int) - 1")],
        "last pixel lost": [
            ("numpy", "return [*low, *high]", "return [*low, *(high - 1)]"),
            ("numpy", "return [*low, *high]", "return [*(low - 1), *(high - 1)]"),
        ],
        "centre as corner": [
            ("plain", "cx - w / 2", "cx", "cy - h / 2", "cy", "cx + w / 2", "cx + w", "cy + h / 2", "cy + h"),
        ],
        "half and whole": [("plain", " / 2", ""), ("numpy", " / 2", "")],
        "corners already": [
            ("plain", "cx - w / 2", "cx", "cy - h / 2", "cy", "cx + w / 2", "w", "cy + h / 2", "h"),
        ],
        "sides exchanged": [("numpy", "[width, height]", "[height, width]")],
        "half of the other side": [
            ("plain", "(cx - w / 2) * width", "cx * width - w * height / 2",
             "(cx + w / 2) * width", "cx * width + w * height / 2", "(cy - h / 2) * height",
             "cy * height - h * width / 2", "(cy + h / 2) * height", "cy * height + h * width / 2"),
            ("numpy", "(centre - half) * size", "centre * size - half * size[::-1]",
             "(centre + half) * size", "centre * size + half * size[::-1]"),
        ],
        "one pixel short": [
            ("numpy", "[width, height]", "[width - 1, height - 1]"),
            ("plain", " * width", " * (width - 1)", " * height", " * (height - 1)"),
        ],
        "cut off": [("plain", "round", "int"), ("half up", " + 0.5", "")],
        "outwards": [
            ("numpy", "np.rint((centre - half)", "np.floor((centre - half)",
             "np.rint((centre + half)", "np.ceil((centre + half)"),
        ],
        "up": [("numpy", "np.rint", "np.ceil")],
        "rounded too early": [
            ("plain", "    xmin", "    cx, cy, w, h = round(cx * width), round(cy * height), round(w * width), "
             "round(h * height)\n    xmin", "round((cx - w / 2) * width) + 1", "cx - w // 2 + 1",
             "round((cy - h / 2) * height) + 1", "cy - h // 2 + 1", "round((cx + w / 2) * width)", "cx + w // 2",
             "round((cy + h / 2) * height)", "cy + h // 2"),
            ("numpy", "(centre - half) * size", "np.rint(centre * size) - half * size",
             "(centre + half) * size", "np.rint(centre * size) + half * size"),
            ("numpy", "(centre - half) * size", "centre * size - np.rint(2 * half * size) / 2",
             "(centre + half) * size", "centre * size + np.rint(2 * half * size) / 2"),
        ],
        "width rounded": [
            ("half up", "int(left + side * length + 0.5)", "int(left + 0.5) + int(side * length + 0.5)"),
            ("plain", "round((cx + w / 2) * width)", "xmin - 1 + round(w * width)",
             "round((cy + h / 2) * height)", "ymin - 1 + round(h * height)"),
        ],
        "not rounded": [("plain", "round", ""), ("numpy", "np.rint", "", ".astype(int)", "")],
        "a float": [("numpy", ".astype(int)", "")],
        "fractions": [("plain", "round", "", " * width", "", " * height", "", " + 1", "")],
        "another order": [
            ("half up", "return xmin, ymin, xmax, ymax", "return xmin, xmax, ymin, ymax"),
            ("plain", "return xmin, ymin, xmax, ymax", "return xmin, xmax, ymin, ymax"),
        ],
        "sides given": [
            ("plain", "return xmin, ymin, xmax, ymax", "return xmin, ymin, xmax - xmin + 1, ymax - ymin + 1"),
            ("plain", "return xmin, ymin, xmax, ymax", "return xmin, ymin, xmax - xmin, ymax - ymin"),
        ],
    },
    "groups_of": {
        "no chains": [
            ("repeat", "range(len(groups)):\n        for", "range(1):\n        for", "groups[near[i]].min()",
             "near[i].argmax()"),
            ("search", "waiting += np.flatnonzero(distances[one] <= most).tolist()",
             "waiting += np.flatnonzero(distances[one] <= most).tolist() if one == start else []"),
        ],
        "groups not joined": [
            ("plain", "groups = [low if group == high else group for group in groups]", "groups[one] = low"),
            ("repeat", "for _ in range(len(groups))", "for _ in range(1)", "near[i]", "near[i] & (groups <= i)"),
        ],
        "joined to the last": [
            ("plain", "groups = [low if group == high else group for group in groups]",
             "groups[one] = groups[other]"),
        ],
        "only the two": [
            ("plain", "groups = [low if group == high else group for group in groups]",
             "groups[one] = groups[other] = low"),
        ],
        "too few rounds": [
            ("repeat", "for _ in range(len(groups))", "for _ in range(2)"),
            ("repeat", "for _ in range(len(groups))", "for _ in range(3)"),
            ("repeat", "for _ in range(len(groups)):\n", "near = near.astype(int) @ near > 0\n    if True:\n",
             "groups[near[i]].min()", "near[i].argmax()"),
        ],
        "not to the end": [
            ("parents", "return [root(i) for i in range(len(parent))]", "return parent"),
        ],
        "near to all": [
            ("plain", "distances[one, other] <= most", "all(distances[a, b] <= most "
             "for a in range(one + 1) if groups[a] == groups[one] for b in range(one) if groups[b] == groups[other])"),
        ],
        "a limit of your own": [("repeat", "<= most", "<= 64"), ("parents", "<= most", "<= 64")],
        "called by another": [
            ("plain", "low, high = sorted([groups[one], groups[other]])", "high, low = groups[one], groups[other]"),
        ],
        "lists in a list": [
            ("plain", "return groups",
             "return [[i for i, other in enumerate(groups) if other == one] for one in sorted({*groups})]"),
            ("plain", "return groups",
             "return [np.flatnonzero(np.array(groups) == one) for one in dict.fromkeys(groups)]"),
        ],
        "below the limit": [("plain", "<= most", "< most"), ("parents", "<= most", "< most")],
        "the far ones": [("plain", "<= most", "> most")],
        "equal only": [("plain", "<= most", "== 0"), ("search", "<= most", "== 0")],
        "numbered through": [
            ("parents", "return [root(i) for i in range(len(parent))]",
             "return np.unique([root(i) for i in range(len(parent))], return_inverse=True)[1]"),
        ],
        "the last picture": [("parents", "parent[max(a, b)] = min(a, b)", "parent[min(a, b)] = max(a, b)")],
        "alone is no group": [
            ("plain", "return groups", "return [one if groups.count(one) > 1 else -1 for one in groups]"),
        ],
        "sizes": [("plain", "return groups", "return [groups.count(one) for one in groups]")],
        "no pictures": [
            ("plain", "groups = list(range(len(distances)))", "groups = [0, *range(1, len(distances))]"),
            ("plain", "groups = list", "distances[0]\n    groups = list"),
        ],
    },
    "rows_taken": {
        "by place": [
            ("numpy", "[0] + [old.index(name) + 1 if name in old else -1 for name in new]",
             "[i if i <= len(old) else -1 for i in range(len(new) + 1)]"),
        ],
        "background anew": [("plain", "rows.append(start)\n", "rows.append(-1)\n")],
        "first background for all": [
            ("plain", "rows.append(start)\n", "rows.append(0)\n"),
            ("numpy", "rows[:, place < 0] = -1", "rows[:, place < 0] = -1\n    rows[:, 0] = 0"),
        ],
        "background once": [
            ("plain", "rows = []", "rows = [0]", "rows.append(start)\n", "pass\n"),
        ],
        "one prior": [
            ("plain", "range(priors)", "range(1)"),
            ("names", "k * len(old_names) + where", "where", "        for k in range(priors)\n", ""),
        ],
        "first class lost": [
            ("plain", "    rows = []", "    where = {name: i for i, name in enumerate(old)}\n    rows = []",
             "if name in old", "if where.get(name)"),
            ("numpy", "if name in old", "if name in old and old.index(name)"),
        ],
        "an order of your own": [
            ("plain", "old.index", "sorted(old).index"), ("names", "*old]", "*sorted(old)]"),
        ],
        "new ones sorted": [
            ("plain", "for name in new", "for name in sorted(new)"), ("names", "*new]", "*sorted(new)]"),
        ],
        "a part of a name": [
            ("plain", "start + 1 + old.index(name) if name in old else -1",
             "next((start + 1 + i for i, one in enumerate(old) if name in one), -1)"),
            ("plain", "start + 1 + old.index(name) if name in old else -1",
             "next((start + 1 + i for i, one in enumerate(old) if one in name), -1)"),
            ("plain", "start + 1 + old.index(name) if name in old else -1",
             "next((start + 1 + i for i, one in enumerate(old) if one.startswith(name) or name.endswith(one)), -1)"),
        ],
        "capitals": [
            ("plain", "    rows = []",
             "    old, new = ([n.lower() for n in some] for some in (old, new))\n    rows = []"),
        ],
        "-1 and more": [
            ("numpy", "    rows[:, place < 0] = -1\n", ""),
            ("plain", "start + 1 + old.index(name) if name in old else -1",
             "start + (1 + old.index(name) if name in old else -1)"),
        ],
        "None": [("plain", "else -1", "else None"), ("names", "else -1", "else None")],
        "no background": [
            ("plain", "rows.append(start)\n", "pass\n"),
            ("names", '["background", *old], ["background", *new]', "old, new"),
        ],
        "one row too early": [("plain", "start + 1 + old", "start + old"), ("numpy", "(name) + 1", "(name)")],
        "background uncounted": [("plain", "(1 + len(old))", "len(old)"), ("numpy", "(len(old) + 1)", "len(old)")],
        "new stride": [("plain", "(1 + len(old))", "(1 + len(new))"), ("names", "len(old_names)", "len(new_names)")],
        "first prior for all": [("plain", "start = prior * (1 + len(old))", "start = 0")],
        "background for new": [("plain", "else -1", "else start"), ("plain", "else -1", "else 0")],
        "by place where new": [
            ("plain", "for name in new", "for place, name in enumerate(new)", "else -1", "else start + 1 + place"),
        ],
        "new left out": [
            ("plain", "for name in new]", "for name in new if name in old]"),
        ],
        "unknown name": [
            ("plain", " if name in old else -1", ""),
            ("names", " if name in where else -1", ""),
        ],
        "background last": [
            ("plain", "        rows.append(start)\n", "", "in new]\n", "in new]\n        rows.append(start)\n"),
            ("plain", "        rows.append(start)\n", "", "in new]\n",
             "in new]\n        rows.append(start + len(old))\n", "start + 1 + old", "start + old"),
            ("names", '["background", *old], ["background", *new]', '[*old, "background"], [*new, "background"]'),
        ],
        "class by class": [
            ("names", "        for k in range(priors)\n        for name in new_names\n",
             "        for name in new_names\n        for k in range(priors)\n"),
            ("numpy", "rows.flatten()", "rows.T.flatten()"),
        ],
        "the other way": [
            ("plain", "rows = []", "old, new, rows = new, old, []"),
            ("plain", "start + 1 + old.index(name) if name in old else -1 for name in new",
             "start + 1 + i if name in new else -1 for i, name in enumerate(old)"),
            ("plain", "start + 1 + old.index(name) if name in old else -1 for name in new",
             "start + 1 + new.index(name) if name in new else -1 for name in old"),
        ],
    },
}  # fmt: skip
