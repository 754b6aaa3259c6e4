"""How long chapter 0 will take on this machine, told from some ten seconds of its work."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from course_lib import detect, emoji_voc, losses, machine, pretraining, runs, training, voc, weights
from course_lib.backbones import Classifier
from course_lib.profiles import RECORD, Profile

IMAGES = {"train": 1800, "val": 200, "test": 500}  # of EmojiVOC
REST = 15.0  # seconds for what is not measured: pictures, tables, the start of the loaders


@dataclass(frozen=True)
class Pace:
    """What a machine does in a second: images drawn by one process, images that one process reads and augments,
    steps of pretraining, images that the detector learns from, images that it detects objects in.
    """

    drawing: float
    loading: float
    pretraining: float
    training: float
    detecting: float
    cores: int

    def seconds_of(self, profile: Profile, run: Path) -> float:
        """Seconds until a run is trained and measured on the test set; what is finished takes none."""
        learned, judged = images(profile, profile.train), images(profile, profile.select)
        epochs = max(0, profile.recipe.epochs - epochs_done(run))
        detected = images(profile, profile.test) + judged * math.ceil(epochs / profile.recipe.evaluate_every)
        seconds = REST + images_to_draw(profile) / (self.drawing * self.cores)
        if steps := profile.pretraining_steps - steps_done(profile, run):
            seconds += learned / self.loading + steps / self.pretraining  # crops are cut out first
        for amount, pace in ((epochs * learned, self.training), (detected, self.detecting)):
            # Workers load meanwhile: they take a core away, and where they are slower they set the pace.
            beside = amount / pace + amount / (self.loading * self.cores)
            seconds += max(beside, amount / (self.loading * max(1, profile.workers)))
        return seconds


def needs_a_gpu(profile: Profile) -> bool:
    """Whether chapter 0 would take hours: no GPU, and a network larger than the one whose full run is recorded."""
    return profile.record is None and profile.device == "cpu"


def images(profile: Profile, sets: Sequence[voc.ImageSet]) -> int:
    """Images in some sets; those of EmojiVOC need not be drawn yet."""
    return sum(IMAGES[one.name] if profile.on_emoji_voc else len(one) for one in sets)


def images_to_draw(profile: Profile) -> int:
    if not profile.on_emoji_voc or (profile.devkit / "VOC2007").exists():
        return 0
    return sum(IMAGES.values()) - len(list(profile.devkit.glob(f"{emoji_voc.UNFINISHED_TREES}/Annotations/*.xml")))


def steps_done(profile: Profile, run: Path) -> int:
    """Steps of pretraining that a run need not take again."""
    if (run / "start.safetensors").exists():
        return profile.pretraining_steps
    state = run / "pretraining.pt"
    return pretraining.read_state(state)["step"] if state.exists() else 0


def epochs_done(run: Path) -> int:
    return len(runs.read_history(run)) if (run / "history.jsonl").exists() else 0


def in_words(seconds: float) -> str:
    """Minutes, rounded up to whole ones."""
    minutes = max(1, math.ceil(seconds / 60))
    return f"about {minutes} minute{'s' if minutes > 1 else ''}"


def steps_a_second(step: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """How often a step fits into a second, once a first one has warmed up; measured over two or more."""
    step()
    begun, steps = clock(), 0
    while steps < 2 or clock() - begun < seconds:
        step()
        steps += 1
    return steps / (clock() - begun)


def measure_pace(profile: Profile, seconds: float = 2.0) -> Pace:
    """Do a little of all that takes time in chapter 0, on pictures that are drawn for it and then removed.

    Needs no data set and no network. The random states of torch and numpy stay as they are.

    Args:
        profile: the cpu profile.
        seconds: for each of five measurements; a slow machine takes longer, for three steps of each.
    """
    transform, size, samples = profile.training_transform(), profile.recipe.batch_size, []
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        tree, numbers = Path(folder), count(1)
        (tree / "Annotations").mkdir()
        (tree / "JPEGImages").mkdir()
        drawing = steps_a_second(lambda: emoji_voc.make_image(tree, 0, 10**6, next(numbers)), seconds)
        annotations = cycle(sorted(tree.glob("Annotations/*.xml")))
        loading = steps_a_second(lambda: samples.append(load(next(annotations), transform)), seconds)
        batch = voc.collate(list(islice(cycle(samples), size)))
        # The recorded weights: an untrained network takes every prior for an object, and keeps NMS far too busy.
        learned = weights.load(RECORD)
        return Pace(
            drawing=drawing,
            loading=loading,
            pretraining=steps_a_second(pretraining_step(profile), seconds),
            training=size * steps_a_second(training_step(profile, batch), seconds),
            detecting=size * steps_a_second(lambda: detect.detect_all(learned, [batch]), seconds),
            cores=machine.cores(),
        )


def load(path: Path, transform: Callable) -> tuple[UInt8[Tensor, "3 S S"], voc.Target]:
    """What a worker does for one image."""
    read = voc.read_annotation(path)
    image = voc.read_image(path.parents[1] / "JPEGImages" / f"{path.stem}.jpg", read.size)
    return transform(image, voc.Target(read.boxes, read.labels, read.difficult, read.image_id, read.size))


def pretraining_step(profile: Profile) -> Callable[[], object]:
    """A step of the backbone as a classifier, on noise: what the crops show does not change the time."""
    model, generator = profile.model(), torch.Generator().manual_seed(0)
    classifier = Classifier(model.backbone, model.num_classes - 1)
    classifier.to(model.mean.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(classifier.learning(), lr=pretraining.PEAK_RATE)
    shape = (pretraining.BATCH, 3, pretraining.CROP, pretraining.CROP)
    crops = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(model.num_classes - 1, shape[:1], generator=generator)
    return lambda: pretraining.learn(classifier, model, optimizer, crops, labels, generator)


def training_step(profile: Profile, batch: voc.Batch) -> Callable[[], object]:
    """A step of the detector, with as much of its backbone frozen as the recipe says."""
    model, loss = profile.model().train(), losses.MultiBoxLoss()
    model.backbone.freeze(profile.recipe.frozen_blocks)
    optimizer = training.make_optimizer(model, profile.recipe)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses.total(training.compute(model, batch, loss, profile.recipe.match_iou).parts).backward()
        optimizer.step()

    return step
