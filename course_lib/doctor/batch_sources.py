"""Where the samples of a batch come from: whether images, boxes and labels are those of the data, and what augmentation
has done to each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import cv2
import numpy as np
import torch

from course_lib.doctor import box_forms
from course_lib.doctor.checks import check
from course_lib.doctor.findings import Finding, fault, note, warning
from course_lib.doctor.patient import Patient
from course_lib.doctor.samples import as_rgb, loop_batches, objects_in, reading
from course_lib.voc import Target

CHAPTER = 9
SAMPLES = 48  # that are looked at, of the first batches
PARTS = ("images", "boxes", "labels")  # of a batch
HALF = 0.5  # of the data's objects reach the batches at least: SSD's own augmentation loses a third of VOC's


@dataclass(frozen=True)
class Sample:
    """One image of a batch, and what the data says of the image of that id.

    Attributes:
        place: in its batch.
        batch: the number of its batch.
        image: `uint8 [H, W, 3]`.
        boxes, labels: as the batch has them, without padding.
        source: the target of the data; its image is read by `original`.
    """

    place: int
    batch: int
    image: np.ndarray
    boxes: np.ndarray
    labels: tuple[int, ...]
    source: Target
    original: np.ndarray

    @cached_property
    def look(self) -> np.ndarray:
        return colours_of(self.image)

    @cached_property
    def original_look(self) -> np.ndarray:
        return colours_of(self.original)

    @cached_property
    def change(self) -> np.ndarray | None:
        """What was done to the boxes along x and y: factor and shift of each; None where objects were lost.

        A mirror's factor is negative where the boxes fit it better.
        """
        before = np.asarray(self.source.boxes, dtype=np.float64)
        if len(before) != len(self.boxes) or not len(before):
            return None
        return np.concatenate([along(before[:, axis::2], self.boxes[:, axis::2])[:2] for axis in (0, 1)])

    @cached_property
    def misfit(self) -> float:
        """How far the boxes are from any one scaling, shift and mirror of the data's, as a share of the image."""
        before = np.asarray(self.source.boxes, dtype=np.float64)
        if len(before) != len(self.boxes) or len(before) < 2:
            return 0.0
        return max(along(before[:, axis::2], self.boxes[:, axis::2])[2] for axis in (0, 1))


def along(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Factor and shift from pairs of edges to pairs of edges, mirrored or not, and the mean deviation left."""
    best = (1.0, 0.0, np.inf)
    for mirrored in (False, True):
        x, y = before.ravel(), (after[:, ::-1] if mirrored else after).ravel()
        inner = (y > 0.003) & (y < 0.997)  # the others may have been clipped
        x, y = (x[inner], y[inner]) if inner.sum() > 2 else (x, y)
        if np.ptp(x) < 1e-6:
            continue
        factor, shift = np.polyfit(x, y, 1)
        left = float(np.abs(factor * x + shift - y).mean())
        if (factor < 0) == mirrored and left < best[2] - 1e-6:
            best = float(factor), float(shift), left
    return best


def colours_of(image: np.ndarray) -> np.ndarray:
    """How often each of 6 x 6 x 6 colours occurs in an image, as a unit vector of square roots."""
    small = cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)
    counts = cv2.calcHist([small], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3).ravel()
    return np.sqrt(cv2.GaussianBlur(counts.reshape(36, 6), (3, 3), 0).ravel() / counts.sum())


def sources(patient: Patient) -> list[Sample]:
    """The samples of the first batches whose id is that of one image of the data."""

    def make() -> list[Sample]:
        data, targets = patient.data, reading(patient).targets
        if len(targets) != len(data):
            return []
        often = Counter(str(target.image_id) for target in targets)
        place_of = {str(target.image_id): index for index, target in enumerate(targets)}
        found: list[Sample] = []
        for number, batch in enumerate(loop_batches(patient).read):
            rows = zip(batch.images, batch.boxes, batch.labels, map(str, batch.image_ids), strict=False)
            for place, (image, boxes, labels, image_id) in enumerate(rows):
                if often[image_id] == 1 and len(found) < SAMPLES:
                    rgb = as_rgb(torch.as_tensor(image).cpu().numpy())
                    original = as_rgb(np.asarray(data[place_of[image_id]][0]))
                    if rgb is None or original is None:
                        continue
                    real = (labels != 0).cpu()
                    kept = boxes.cpu()[real].double().numpy(), tuple(labels.cpu()[real].tolist())
                    found.append(Sample(place, number, rgb, *kept, targets[place_of[image_id]], original))
        return found

    return patient.remembered("sources", make)


@check("pictures", "batches")
def labels_are_those_of_the_data(patient: Patient) -> Iterator[Finding]:
    """Has every object of a batch a label that the data gives an object of that image?"""
    # A mosaic and a mix of two have more objects than the image under whose id they come.
    samples = [one for one in sources(patient) if 0 < len(one.labels) <= len(one.source.labels)]
    wrong, shifts = [], Counter()
    for one in samples:
        due = Counter(np.asarray(one.source.labels).tolist())
        if Counter(one.labels) - due:
            wrong.append(one)
            shifts.update(d for d in (-1, 1) if not Counter(label - d for label in one.labels) - due)
    # A tenth is not by accident.
    if len(wrong) > max(1, 0.1 * len(samples)):
        shift, count = shifts.most_common(1)[0] if shifts else (0, 0)
        how = f"all of them are {shift:+d}" if count == len(wrong) else "among them labels of no object of the image"
        yield fault(
            f"the labels of {len(wrong)} of {len(samples)} images in the loop's batches are not those of the "
            f"data: {how} (image {wrong[0].source.image_id}: {sorted(set(wrong[0].labels))}, in the data "
            f"{sorted(set(np.asarray(wrong[0].source.labels).tolist()))})",
            "objects are learned as other classes, and the first or the last class is background or missing",
            "let a label be made in one place, and follow one from the annotation to the batch",
            CHAPTER,
        )


@check("pictures", "batches")
def images_are_those_of_their_targets(patient: Patient) -> Iterator[Finding]:
    """Does every image of a batch show what the data shows under its id, and are its boxes of that image?"""
    samples = sources(patient)
    found = next((shift for shift in shifted_images(samples)), None)
    if found is not None:
        yield fault(
            f"the images of a batch belong to other targets: they look like the data's under the ids {found}",
            "boxes are learned on pictures of something else, and what is learned is the mean of all boxes",
            "sort, shuffle and pad images and targets together",
            CHAPTER,
        )
    several = [one for one in samples if one.misfit > 0 or len(one.boxes) >= 2]
    torn = [one for one in several if one.misfit > 0.05]
    if len(several) >= 6 and len(torn) > 0.5 * len(several):
        yield fault(
            f"the boxes of {len(torn)} of {len(several)} images in the loop's batches are those of the data neither "
            "shifted, scaled nor mirrored",
            "boxes are on no object: every class is learned at places of others",
            "follow the boxes of one image from the annotation to the batch, drawn",
            CHAPTER,
        )


def shifted_images(samples: list[Sample]) -> Iterator[str]:
    """In words, to whose targets the images of the batches belong, where it is not their own."""
    rows = []
    for number in {one.batch for one in samples}:
        batch = sorted((one for one in samples if one.batch == number), key=lambda one: one.place)
        if len(batch) >= 4:
            rows.append(np.stack([one.look for one in batch]) @ np.stack([one.original_look for one in batch]).T)
    if not rows:
        return
    orders = {
        "of their neighbours, one further": 1,
        "of their neighbours, one before": -1,
        "of the reverse order": None,
    }
    own = [row.diagonal() for row in rows]
    others = np.concatenate([row[~np.eye(len(row), dtype=bool)] for row in rows])
    for words, shift in orders.items():
        theirs = [(row[:, ::-1] if shift is None else np.roll(row, shift, axis=1)).diagonal() for row in rows]
        gain = np.concatenate(theirs) - np.concatenate(own)
        if gain.mean() > 2 * others.std() / len(gain) ** 0.5 + 0.02 and (gain > 0).mean() > 0.75:
            yield words


@check("pictures", "batches")
def colours_are_those_of_the_data(patient: Patient) -> Iterator[Finding]:
    """Are red and blue of the batches red and blue of the data?"""
    pairs = np.array([[red_less_blue(one.image), red_less_blue(one.original)] for one in sources(patient)])
    if len(pairs) < 8:
        return
    same = float((pairs[:, 0] * pairs[:, 1]).sum())
    size = float(np.sqrt((pairs[:, 0] ** 2).sum() * (pairs[:, 1] ** 2).sum()))
    # Colour changes of augmentation leave more than .8; grey pictures have no colours to compare.
    if size > 4 * len(pairs) and same < -0.5 * size:
        yield warning(
            f"red and blue are exchanged between data and batches, in {int((pairs.prod(axis=1) < 0).sum())} of "
            f"{len(pairs)} images",
            "weights that were trained on RGB see other colours, and what is measured without it sees others again",
            "read and keep pictures as RGB (cv2.imread gives BGR)",
            CHAPTER,
        )


def red_less_blue(image: np.ndarray) -> float:
    red, _, blue = image.reshape(-1, 3).mean(axis=0)
    return float(red - blue)


@check("pictures", "batches")
def augmentation_differs(patient: Patient) -> Iterator[Finding]:
    """Is every sample augmented in a way of its own?"""
    samples = [one for one in sources(patient) if one.change is not None]
    if len(samples) < 8:
        return
    changes = np.stack([one.change for one in samples])
    spread = np.abs(changes - np.median(changes, axis=0)).max(axis=1)
    across, _, down, _ = np.median(changes, axis=0)
    # A picture that keeps its proportions, with bars beside it, is changed along one axis, to less than its size.
    if (spread < SAME).all() and (min(across, down) < 0 or max(across, down) > 1.02 or max(across, down) < 0.98):
        factors = ", ".join(f"{value:.2f}" for value in np.median(changes, axis=0))
        yield warning(
            f"all {len(samples)} samples that were looked at are mirrored, cut or scaled in the same way (x and y: "
            f"factor and shift {factors})",
            "one fixed change is no augmentation: the network learns that change, and detection does not make it",
            "draw new random numbers for every sample: seed once, not in every call",
            CHAPTER,
        )
        return
    yield from same_in_every_batch(samples)


SAME = 0.02  # of the image's side: rounding of a crop to pixels


def alike(one: Sample, other: Sample) -> bool:
    """Whether one shift, scale and mirror explains the boxes of both samples, along x and along y.

    Edges that lie at the picture's own say nothing: they may have been clipped.
    """
    pairs = [(np.asarray(s.source.boxes, dtype=np.float64), s.boxes) for s in (one, other)]
    before, after = (np.concatenate(boxes) for boxes in zip(*pairs, strict=True))
    return all(along(before[:, axis::2], after[:, axis::2])[2] < SAME / 2 for axis in (0, 1))


def same_in_every_batch(samples: list[Sample]) -> Iterator[Finding]:
    """Whether the samples of one batch are changed as those in the same places of another, one by one."""
    by_batch: dict[int, dict[int, Sample]] = {}
    for one in samples:
        by_batch.setdefault(one.batch, {})[one.place] = one
    for first, second in combinations(sorted(by_batch), 2):
        places = sorted(by_batch[first].keys() & by_batch[second].keys())
        if len(places) < 6:
            continue
        same = [alike(by_batch[first][place], by_batch[second][place]) for place in places]
        usual = [alike(by_batch[first][a], by_batch[second][b]) for a, b in pairwise(places)]
        # Mirrored or not, and nothing else, is the same by chance in half of all pairs.
        if np.mean(same) > 0.85 and np.mean(usual) < 0.6:
            yield warning(
                f"batches {first + 1} and {second + 1} are augmented alike, sample by sample ({sum(same)} of "
                f"{len(places)})",
                "workers that share random numbers give each change several times, and the data has fewer variants",
                "give every worker a seed of its own (worker_init_fn), or seed by epoch and index",
                CHAPTER,
            )
            return


@check("pictures", "batches")
def every_pass_differs(patient: Patient) -> Iterator[Finding]:
    """Is an image augmented in another way when it comes again?"""
    first = {(one.source.image_id): one for one in sources(patient)}
    if not first:
        return
    again = next(iter(patient.batches))
    batch = patient.read(again)
    same = order = 0
    for place, (image, image_id) in enumerate(zip(batch.images, map(str, batch.image_ids), strict=False)):
        if image_id in first:
            order += (first[image_id].place, first[image_id].batch) != (place, 0)
            rgb = as_rgb(torch.as_tensor(image).cpu().numpy())
            same += rgb is not None and np.array_equal(rgb, first[image_id].image)
    changed = sum(one.change is not None and np.abs(one.change - [1, 0, 1, 0]).max() > 0.02 for one in first.values())
    if same >= 4 and changed >= 0.2 * len(first) and same == len(batch.images):
        yield (warning if order else note)(
            f"the second pass gives {same} of {len(batch.images)} images augmented exactly as the first",
            "after one epoch there is nothing new to see: augmentation is then a larger data set, and no more",
            "seed by epoch and index, or not at all",
            CHAPTER,
        )


@check("batches")
def batches_stay_as_they_are(patient: Patient) -> Iterator[Finding]:
    """Is a batch still the same when the next one is made?"""
    kept = [memory_of(batch) for batch in loop_batches(patient).raw]
    if not any(one & other for one, other in pairwise(kept)):
        return
    # The same batch may be given twice on purpose, and what never changes may be shared.
    loop = iter(patient.batches)
    raw = next(loop)
    first = patient.read(raw)
    before = [torch.as_tensor(getattr(first, name)).clone() for name in PARTS]
    next(loop, None)
    second = patient.read(raw)
    after = [torch.as_tensor(getattr(second, name)) for name in PARTS]
    changed = [name for name, old, new in zip(PARTS, before, after, strict=True) if not torch.equal(old, new)]
    if changed:
        yield fault(
            f"the {' and '.join(changed)} of a batch are others as soon as the next one is made: all batches share one "
            "memory",
            "a batch that is made ahead, or kept, shows a later one's pictures with its own boxes, or the reverse",
            "make new tensors for every batch (torch.stack without out=), or give out a copy of the buffer",
            CHAPTER,
        )


def memory_of(batch: Any) -> set[int]:
    """Where the tensors and arrays of a batch are in memory, in whatever form it comes."""
    if isinstance(batch, torch.Tensor):
        return {batch.data_ptr()} if batch.numel() else set()
    if isinstance(batch, np.ndarray):
        return {batch.ctypes.data} if batch.size else set()
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    elif not isinstance(batch, (list, tuple)):
        batch = tuple(getattr(batch, "__dict__", {}).values())
    return set().union(*map(memory_of, batch))


@check("data", "batches")
def objects_reach_the_batches(patient: Patient) -> Iterator[Finding]:
    """Do the batches hold most of the objects that the data has?"""
    targets = reading(patient).targets
    batches = loop_batches(patient).read
    if box_forms.wrong_in_data(patient) or not targets or not batches:
        return
    often = Counter(str(target.image_id) for target in targets)
    # Many a loop leaves out what is difficult.
    due = np.array([int((~torch.as_tensor(target.difficult)).sum()) for target in targets], dtype=np.float64)
    known = {
        str(target.image_id): count
        for target, count in zip(targets, due, strict=True)
        if often[str(target.image_id)] == 1
    }
    every = objects_in(batches)
    kept = every.per_image.double().numpy()
    same = all(image_id in known for image_id in every.ids)
    if same:
        own = np.array([known[image_id] for image_id in every.ids])
        mean, chance = own.mean(), 2 * float((kept - HALF * own).std()) / len(kept) ** 0.5
    else:
        # Other images than those of the batches may have more objects; a loop without a shuffle gives the first.
        mean = min(due.mean(), due[: len(kept)].mean())
        spread = max(float(kept.std()), HALF * float(due.std()))
        chance = 2 * spread * (1 / len(kept) + 1 / len(due)) ** 0.5
    if kept.any() and kept.mean() + chance < HALF * mean:
        where = "the data has in the same images" if same else "images of the data have"
        yield warning(
            f"the first {len(kept)} images of the loop have {kept.sum():.0f} objects, {kept.mean():.1f} each, and "
            f"{where} {mean:.1f} each",
            "what is to be seen and has no box is learned as background, and few objects remain to learn from",
            "look at what filters and crops targets on their way to a batch: one that drops empty boxes drops sound "
            "ones too where it takes width and height for a corner",
            CHAPTER,
        )


CHECKS = (
    batches_stay_as_they_are,
    objects_reach_the_batches,
    labels_are_those_of_the_data,
    images_are_those_of_their_targets,
    colours_are_those_of_the_data,
    augmentation_differs,
    every_pass_differs,
)
