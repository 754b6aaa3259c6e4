from dataclasses import replace

import pytest
import torch
from doctor.planted import batches

from course_lib import voc
from course_lib.doctor import draws, examine, setups
from course_lib.doctor.patient import Patient

NAMES = [one.name for one in draws.CHECKS]


def said(data: setups.InMemory, loop) -> list[tuple[str, str]]:
    """Severity and words of what is found."""
    return [(one.severity, one.seen) for one in examine(Patient(data=data, batches=loop), only=NAMES).findings]


def with_labels(learned: setups.InMemory, labels: list[int]) -> setups.InMemory:
    """As many images as there are labels, each with one object of a class of its own."""
    samples = []
    for number, label in enumerate(labels):
        image, target = learned[number % len(learned)]
        one = voc.Target(torch.tensor([[0.2, 0.2, 0.7, 0.7]]), torch.tensor([label]), torch.tensor([False]), "", (9, 9))
        samples.append((image, replace(one, image_id=str(number), size=target.size)))
    return setups.InMemory(tuple(samples), learned.classes)


class Drawing:
    """Batches of eight of the images that are asked for, place by place."""

    def __init__(self, data: setups.InMemory, places) -> None:
        self.loop, self.places = batches(data), list(places)

    def __iter__(self):
        for start in range(0, len(self.places) - 7, 8):
            yield voc.collate([self.loop.sample(place) for place in self.places[start : start + 8]])


CLASSES, EACH = 5, 24
SORTED = [1 + number // EACH for number in range(CLASSES * EACH)]
MIXED = [1 + (7 * number + number // CLASSES) % CLASSES for number in range(CLASSES * EACH)]


@pytest.mark.parametrize("labels", [SORTED, SORTED[::-1]])
def test_a_list_that_is_sorted_by_class_and_not_shuffled_is_named(learned, labels):
    data = with_labels(learned, labels)
    ((severity, seen),) = said(data, Drawing(data, range(len(labels))))
    assert severity == "warning" and "sorted by class" in seen
    assert f"hold {learned.classes[labels[0] - 1]}, and 20% of all" in seen


def test_a_mixed_list_a_shuffled_loop_and_a_short_list_are_left_in_peace(learned):
    mixed, ordered = (with_labels(learned, labels) for labels in (MIXED, SORTED))
    shuffled = torch.randperm(len(SORTED), generator=torch.Generator().manual_seed(0)).tolist()
    assert said(mixed, Drawing(mixed, range(len(MIXED)))) == []
    assert said(ordered, Drawing(ordered, shuffled)) == []
    short = with_labels(learned, SORTED[: 2 * EACH])
    assert said(short, Drawing(short, range(40))) == []


@pytest.mark.parametrize(
    ("places", "severity"),
    [
        ([n % 10 for n in range(48)], "warning"),  # of a batch's own numbers
        ([3] * 48, "warning"),
        ([n % 8 for n in range(48)], "note"),  # one batch again and again, as who tries to learn it by heart does
        (range(48), None),
        ([(17 * n) % 120 for n in range(48)], None),
        (torch.randint(120, (48,), generator=torch.Generator().manual_seed(1)).tolist(), None),  # with replacement
        ([n // 2 for n in range(48)], None),  # each twice, augmented anew
    ],
)
def test_a_loop_that_comes_to_few_images_is_named(learned, places, severity):
    data = with_labels(learned, MIXED)
    found = said(data, Drawing(data, places))
    assert [one for one, _ in found] == ([severity] if severity else [])
    assert all("in the data, again and again" in seen for _, seen in found)


def test_images_that_no_id_tells_apart_are_left_alone(learned):
    data = with_labels(learned, SORTED)
    same = setups.InMemory(tuple((image, replace(t, image_id="0")) for image, t in data), data.classes)
    assert said(same, Drawing(same, [0] * 48)) == []
    assert said(data, [b._replace(image_ids=["?"] * 8) for b in Drawing(data, [0] * 48)]) == []
