"""The two worlds in which every chapter runs: a laptop's CPU with EmojiVOC, a GPU with VOC."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from course_lib import augment, download, emoji_voc, metrics, priors, ssd, weights
from course_lib.detect import Detections, detect_all
from course_lib.files import DataError
from course_lib.pretraining import pretrain
from course_lib.training import Recipe
from course_lib.voc import VOCDetection, collate

ROOT = Path(__file__).resolve().parent.parent
DATA, RUNS = ROOT / "data", ROOT / "runs"

# The environment variable that names another devkit than the profile's own, and the one folder in which
# EmojiVOC is drawn.
DEVKIT_VARIABLE = "COURSE_DEVKIT"
EMOJI_VOC = DATA / "emoji"

# The recorded full run of the cpu profile: its best weights, and beside them where they are from.
RECORD = DATA / "ssd_mini.safetensors"


@dataclass(frozen=True)
class Profile:
    """A data set, a model and a recipe that belong together.

    Attributes:
        devkit: folder that holds `VOC2007/`.
        train_on: years and image sets to train on.
        select_on: year and image set that tells which epoch is best; never part of `train_on`.
        test_on: year and image set by which nothing is chosen.
        architecture: a name of `ssd.ARCHITECTURES`.
        workers: processes that load images, beside the one that trains.
        augmentation: gives the training transform for an image size.
        pretraining_steps: of the trunk as a classifier, before it becomes a detector's; 0 for none.
        trunk_weights: torchvision's VGG16, from which the trunk starts; None: from random weights.
        record: the recorded weights of a full run, where the course has them.
    """

    name: str
    devkit: Path
    train_on: tuple[tuple[str, str], ...]
    select_on: tuple[str, str]
    test_on: tuple[str, str]
    architecture: str
    spec: priors.PriorSpec
    recipe: Recipe
    device: str
    workers: int
    augmentation: Callable[[int], augment.Augment]
    pretraining_steps: int = 0
    trunk_weights: Path | None = None
    record: Path | None = None

    @property
    def on_emoji_voc(self) -> bool:
        """Whether the data is the course's own: drawn where it is missing, with known and unseen emoji."""
        return self.devkit.resolve() == EMOJI_VOC.resolve()

    def prepare(self, show_progress: bool = False) -> None:
        """Make the data where it can be made; where it cannot, an error that says what to do.

        Nothing is ever made in a devkit that the reader has named.

        Raises:
            DataError: the devkit lacks a year.
        """
        if self.on_emoji_voc:
            emoji_voc.make_emoji_voc(self.devkit, show_progress=show_progress)
        years = sorted({year for year, _ in (*self.train_on, self.select_on, self.test_on)})
        missing = [f"VOC{year}" for year in years if not (self.devkit / f"VOC{year}").is_dir()]
        if missing:
            command = f"python -m course_lib download {' '.join(missing).lower()}"
            cure = f"{command}, or unpack Pascal VOC there: see data/README.md"
            if self.devkit == named_devkit():
                cure = f"name in {DEVKIT_VARIABLE} the folder that holds {missing[0]}, or unset it"
            raise DataError(self.devkit, " and ".join(missing), "missing", cure)

    def model(self, seed: int = 0) -> ssd.SSD:
        """A fresh model on the profile's device; its first weights depend on the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = ssd.ARCHITECTURES[self.architecture]()
        return model.to(self.device, memory_format=torch.channels_last)

    def with_what_is_here(self) -> "Profile":
        """The profile for a page: where the trunk's weights are missing it says so, and starts from random ones.

        Nothing of a trunk that has learned nothing is frozen. Training by the command line refuses instead.
        """
        if self.trunk_weights is None or self.trunk_weights.exists():
            return self
        print(f"{self.trunk_weights.name} is not here: the trunk starts from random weights.")
        print("For the real start: python -m course_lib download vgg16")
        return replace(self, trunk_weights=None, recipe=replace(self.recipe, frozen_blocks=0))

    def trained(self) -> ssd.SSD | None:
        """The recorded detector, or the best of your own run in `runs/<name>`; None where there is neither."""
        for path in (self.record, RUNS / self.name / "best.safetensors"):
            if path and path.exists():
                return weights.load(path).to(self.device, memory_format=torch.channels_last).eval()
        return None

    def start(
        self, run: Path, seed: int = 0, report: Callable[[int, float], None] = lambda step, accuracy: None
    ) -> ssd.SSD:
        """The model as training begins: fresh, its trunk pretrained where the profile says so.

        The trunk is pretrained, or filled with `trunk_weights`, once for a run: the result is kept in
        the run's folder. Pretraining that was interrupted goes on.

        Raises:
            DataError: `trunk_weights` is missing or broken, or the run was started with another model.
        """
        model, path, state = self.model(seed), run / "start.safetensors", run / "pretraining.pt"
        if not (self.pretraining_steps or self.trunk_weights):
            return model
        if not path.exists():
            if self.trunk_weights:
                weights.load_vgg16(model, self.read_trunk_weights())
            if self.pretraining_steps:
                pretrain(model, self.training_set(), self.pretraining_steps, seed, report, state)
            weights.save(model, path)
        kept = weights.load(path)
        if (kept.architecture, kept.num_classes) != (model.architecture, model.num_classes):
            raise DataError(
                path,
                "model",
                f"{kept.architecture} with {kept.num_classes} classes",
                f"asked for is {model.architecture} with {model.num_classes}: choose another folder for the run, "
                "or --fresh",
            )
        state.unlink(missing_ok=True)  # what it led to is kept
        model.load_state_dict(kept.state_dict())
        return model

    def read_trunk_weights(self) -> dict[str, torch.Tensor]:
        if not self.trunk_weights.exists():
            raise DataError(
                self.trunk_weights,
                "file",
                "missing",
                "python -m course_lib download vgg16; to start from random weights on purpose, set "
                f"trunk_weights=None and frozen_blocks=0 in profiles.{self.name}",
            )
        return weights.read_pth(self.trunk_weights)

    def training_set(self) -> VOCDetection:
        years, image_sets = zip(*self.train_on, strict=True)
        return VOCDetection(self.devkit, years, image_sets)

    def training_transform(self) -> augment.Augment:
        return self.augmentation(self.spec.image_size)

    def loader(self, year: str, image_set: str, batch_size: int = 32) -> DataLoader:
        """The images of a set in its order, resized and in batches."""
        dataset = VOCDetection(self.devkit, year, image_set, augment.evaluation(self.spec.image_size))
        return DataLoader(dataset, batch_size, collate_fn=collate, num_workers=self.workers)

    def detections(self, model: ssd.SSD, year: str, image_set: str) -> list[Detections]:
        return detect_all(model, self.loader(year, image_set))

    def selector(self) -> Callable[[ssd.SSD], dict[str, float]]:
        """What a `Trainer` measures between epochs: mAP on the set that training does not see."""
        truth = metrics.read_ground_truth(self.devkit, *self.select_on)

        def measure(model: ssd.SSD) -> dict[str, float]:
            return {"map": metrics.evaluate_voc(self.detections(model, *self.select_on), truth).mean_ap}

        return measure


def named_devkit() -> Path | None:
    """The devkit that the reader has named instead of a profile's own."""
    name = os.environ.get(DEVKIT_VARIABLE)
    return Path(name).expanduser() if name else None


def cpu() -> Profile:
    """EmojiVOC and the small detector: minutes on two cores, no network."""
    return Profile(
        name="cpu",
        devkit=named_devkit() or EMOJI_VOC,
        train_on=(("2007", "train"),),
        select_on=("2007", "val"),
        test_on=("2007", "test"),
        architecture="ssd_mini",
        spec=priors.SSD_MINI,
        recipe=Recipe(
            epochs=12,
            batch_size=32,
            optimizer="adamw",
            learning_rate=5e-3,
            trunk_factor=0.4,
            warmup_steps=50,
            evaluate_every=4,
            frozen_blocks=2,
            # In a few epochs every prior that learns counts: more of them do than at the paper's 0.5.
            match_iou=0.4,
        ),
        device="cpu",
        workers=1,
        augmentation=augment.training_mini,
        pretraining_steps=3000,
        record=RECORD,
    )


def gpu() -> Profile:
    """Pascal VOC 2007 + 2012 and SSD300: hours on a GPU.

    VOC has no set beside 07+12 trainval and test. So VOC2007 val is kept out of training to choose
    the epoch by, and test stays unseen until the end.
    """
    return Profile(
        name="gpu",
        devkit=named_devkit() or DATA / "VOCdevkit",
        train_on=(("2007", "train"), ("2012", "trainval")),
        select_on=("2007", "val"),
        test_on=("2007", "test"),
        architecture="ssd300_vgg16",
        spec=priors.SSD300,
        recipe=Recipe(
            epochs=240,
            batch_size=32,
            optimizer="sgd",
            learning_rate=1e-3,
            bias_factor=2.0,
            warmup_steps=500,
            amp="auto",
            evaluate_every=10,
            frozen_blocks=1,  # conv1_1 as `weights.load_vgg16` leaves it: see `for_our_pixels`
        ),
        device="cuda" if torch.cuda.is_available() else "cpu",
        workers=max(1, (os.cpu_count() or 2) - 1),
        augmentation=augment.training,
        trunk_weights=DATA / download.VGG16.name,
    )


PROFILES = {"cpu": cpu, "gpu": gpu}


def profile(name: str | None = None) -> Profile:
    """A profile by name; without one, that of the environment variable COURSE_PROFILE, or cpu."""
    name = name or os.environ.get("COURSE_PROFILE", "cpu")
    if name not in PROFILES:
        raise ValueError(f"profile is {name!r} (see COURSE_PROFILE): use {' or '.join(PROFILES)}")
    return PROFILES[name]()


def read_record() -> dict:
    """Provenance, history and measured AP of the weights in `RECORD`."""
    return json.loads(RECORD.with_suffix(".json").read_text())
