from dataclasses import replace

import pytest
import strangers
import torch
from doctor.planted import SIDE, batches, findings, with_labels

from course_lib import augment, voc
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient

NAMES = ("several-objects-of-a-class-are-listed", "several-objects-of-a-class-reach-the-batches")


def kept(target, rows):
    return replace(target, **{name: getattr(target, name)[rows] for name in ("boxes", "labels", "difficult")})


def by_class(target):
    """Of several objects of one class the last."""
    return kept(target, sorted({label: row for row, label in enumerate(target.labels.tolist())}.values()))


def first_two(target):
    return kept(target, slice(2))


@pytest.fixture(scope="module")
def crowded(learned):
    """The pictures with the objects of two images in each, and four classes: there are several of one in most."""
    samples = [
        (image, replace(t, **{n: torch.cat([getattr(t, n), getattr(u, n)]) for n in ("boxes", "labels", "difficult")}))
        for (image, t), (_, u) in zip(learned.samples, learned.samples[1:] + learned.samples[:1], strict=True)
    ]
    return with_labels(setups.InMemory(tuple(samples), learned.classes[:4]), lambda labels: labels % 4 + 1)


def changed(data, change):
    return setups.InMemory(tuple((image, change(target)) for image, target in data), data.classes)


def said(patient, *severity):
    return findings(patient, *NAMES, severity=severity or ("fault", "warning"))


@pytest.mark.parametrize("transform", [augment.training_mini, augment.evaluation])
@pytest.mark.parametrize(
    ("change", "words"), [(by_class, "and none in its batch"), (first_two, "in the data have just 2")]
)
def test_objects_that_a_loop_loses_by_class_or_number_are_named(crowded, change, words, transform):
    loop = setups.Batches(changed(crowded, change), transform(SIDE), voc.collate, 8)
    ((check, seen),) = said(Patient(data=crowded, batches=loop))
    assert check == NAMES[1] and words in seen


def test_a_reader_that_keeps_one_of_a_class_is_a_warning_beside_data_that_has_several_and_else_a_note(crowded):
    ill = changed(crowded, by_class)
    for parts in ({"data": ill, "held_out": crowded}, {"data": crowded, "held_out": ill}):
        ((check, seen),) = said(Patient(**parts))
        assert check == NAMES[0] and "none has two of one class" in seen
    assert said(Patient(data=ill, held_out=ill)) == []
    assert len(said(Patient(data=ill), "note")) == 1


@pytest.mark.parametrize("kind", strangers.FAULTS)
def test_a_strangers_dictionary_by_class_is_told(crowded, kind):
    stranger = getattr(strangers, f"of_{kind}")(crowded, 5)
    assert said(stranger.patient(data=crowded), "fault", "warning", "note") == []
    usual = stranger.target
    stranger.target = lambda target: usual(by_class(target))
    ((check, seen),) = said(stranger.patient(data=crowded), "warning", "note")
    assert check == NAMES[1] and "has two objects of one class" in seen


def test_healthy_loops_and_crops_are_left_in_peace(learned, held_out, crowded):
    every = ("fault", "warning", "note")
    for data in (learned, crowded):
        for transform in (augment.training_mini, augment.training, augment.evaluation):
            loop = setups.Batches(data, transform(SIDE), voc.collate, 8)
            assert said(Patient(data=data, held_out=held_out, batches=loop), *every) == []
    one = with_labels(learned, lambda labels: labels * 0 + 1)
    assert said(Patient(data=one, batches=batches(one)), *every) == []
