from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor.planted import findings, with_labels

from course_lib.doctor import setups
from course_lib.doctor.patient import Patient
from course_lib.voc import Target

NAME = "held-out-labels-mean-the-same"
CLASSES = tuple(f"colour {number}" for number in range(1, 21))
PLACES = [(x, y, x + 20, y + 20) for x in (4, 36, 68) for y in (4, 36)]


def painted(images: int, seed: int, without: tuple[int, ...] = ()) -> setups.InMemory:
    """Grey pictures with some squares, of a colour for each class; sizes and places say nothing."""
    draw, samples = np.random.default_rng(seed), []
    colours = np.random.default_rng(0).integers(0, 256, (21, 3))
    present = [label for label in range(1, 21) if label not in without]
    for number in range(images):
        image = draw.integers(100, 140, (64, 96, 3)).astype(np.uint8)
        boxes = [PLACES[k] for k in draw.permutation(6)[: draw.integers(2, 5)]]
        labels = draw.choice(present, len(boxes))
        for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
            shade = draw.normal(0, 40, (y1 - y0, x1 - x0, 3)) + draw.normal(0, 30)
            image[y0:y1, x0:x1] = (colours[label] + shade).clip(0, 255)
        fractions = torch.tensor(boxes, dtype=torch.float32) / torch.tensor([96, 64, 96, 64])
        target = Target(fractions, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.bool), "", (96, 64))
        samples.append((image, replace(target, image_id=f"{seed} {number}")))
    return setups.InMemory(tuple(samples), CLASSES)


@pytest.fixture(scope="module")
def learned():
    return painted(60, 1)


@pytest.fixture(scope="module")
def held_out():
    return painted(40, 2)


def numbered(data, order):
    """The same data with the numbers that classes have in an order."""
    return with_labels(data, lambda labels: torch.tensor([order.index(one) + 1 for one in labels.tolist()]))


def labels_of(data):
    return torch.cat([target.labels for _, target in data]).tolist()


def as_seen(data):
    return numbered(data, list(dict.fromkeys(labels_of(data))))


def by_count(data):
    return numbered(data, sorted(set(labels_of(data)), key=labels_of(data).count, reverse=True))


def of_those_that_occur(data):
    return numbered(data, sorted(set(labels_of(data))))


def told(data, held_out, *severity):
    return [seen for _, seen in findings(Patient(data=data, held_out=held_out), NAME, severity=severity)]


def test_one_list_of_numbers_is_left_in_peace(learned, held_out):
    every = ("fault", "warning", "note")
    assert told(learned, held_out, *every) == []
    order = list(np.random.default_rng(5).permutation(20) + 1)
    assert told(numbered(learned, order), numbered(held_out, order), *every) == []
    together = list(dict.fromkeys(labels_of(learned)))  # by the first of the two lists
    assert told(numbered(learned, together), numbered(held_out, together), *every) == []


@pytest.mark.parametrize(("own", "words"), [(as_seen, "as they first appear"), (by_count, "sorted by how many")])
def test_numbers_that_each_list_makes_for_itself_are_named(learned, held_out, own, words):
    (seen,) = told(own(learned), own(held_out), "fault", "warning")
    assert words in seen


@pytest.mark.parametrize("own", [as_seen, by_count])
def test_so_are_they_where_one_list_alone_makes_its_own(learned, held_out, own):
    (seen,) = told(learned, own(held_out), "warning")
    assert "held-out objects look like those of the same label in the data by" in seen


@pytest.mark.parametrize("without", [(4,), (2, 7, 9)])
def test_numbers_of_the_classes_that_occur_are_named_with_what_they_stand_for(learned, without):
    (seen,) = told(learned, of_those_that_occur(painted(40, 3, without)), "fault")
    assert "numbers are those of the classes that occur" in seen
    assert f", {20 - len(without)} like 20;" in seen


def test_classes_that_are_absent_at_the_end_by_chance_are_a_note(learned):
    held_out = painted(40, 3, (5, 12))
    order = [label for label in range(1, 21) if label not in (5, 12)] + [5, 12]
    assert told(numbered(learned, order), numbered(held_out, order), "fault", "warning") == []
    (seen,) = told(numbered(learned, order), numbered(held_out, order), "note")
    assert "no object of the last 2 labels" in seen


def test_lists_by_class_are_left_in_peace(learned, held_out):
    """Images of the first class come first, or each image lists its objects by class."""

    def first(sample):
        return int(sample[1].labels.min())

    def arranged(image, target):
        rows = target.labels.argsort()
        return image, replace(target, boxes=target.boxes[rows], labels=target.labels[rows])

    def by_class(data):
        return setups.InMemory(tuple(sorted((arranged(*one) for one in data), key=first)), CLASSES)

    def single(data):
        kept = (
            (image, replace(t, boxes=t.boxes[:1], labels=t.labels[:1], difficult=t.difficult[:1])) for image, t in data
        )
        return setups.InMemory(tuple(sorted(kept, key=first)), CLASSES)

    for make in (by_class, single):
        assert told(make(learned), make(held_out), "fault", "warning") == []


def test_held_out_pictures_of_another_kind_are_no_warning(learned, held_out):
    inverted = setups.InMemory(tuple((255 - image, target) for image, target in held_out), CLASSES)
    assert told(learned, inverted, "fault", "warning") == []
    (seen,) = told(learned, inverted, "note")
    assert "held-out objects look like those of the same label in the data by" in seen
