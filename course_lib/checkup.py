"""Patients from what this course has: a profile before it trains, a run, a tree, annotations alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.utils.data import DataLoader

from course_lib import losses, own_tree, profiles, runs, trees, weights
from course_lib.doctor import Patient
from course_lib.loaders import Augmented, Shuffled, loader
from course_lib.matching import match
from course_lib.profiles import Profile
from course_lib.recipes import Recipe
from course_lib.ssd import SSD
from course_lib.training import Trainer
from course_lib.voc import Annotation, ImageDataset, ImageSet


@dataclass(frozen=True)
class AnnotationsOnly:
    """A data set of which no image is read: `sets` as an `ImageDataset` has them."""

    sets: tuple[ImageSet, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.sets[0].classes

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def annotations(self) -> list[Annotation]:
        return ImageDataset(self.sets).annotations()


class AnotherEachTime(Shuffled):
    """The order of the next epoch, and its augmentation, each time that it is gone through, as in training."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = super().__iter__()
        self.epoch += 1
        return order


def batches(chosen: Profile) -> DataLoader:
    """What a profile's trainer would learn from, pass after pass."""
    data, recipe = chosen.training_set(), chosen.recipe
    return loader(
        Augmented(data, chosen.training_transform(), recipe.seed),
        chosen.spec.image_size,
        recipe.batch_size,
        workers=chosen.workers,
        sampler=AnotherEachTime(len(data), recipe.batch_size, recipe.seed),
    )


def of_annotations(train: Sequence[ImageSet], held_out: Sequence[ImageSet] = ()) -> Patient:
    """The XML files of some image sets, and nothing else."""
    return Patient(data=AnnotationsOnly(tuple(train)), held_out=AnnotationsOnly(tuple(held_out)) if held_out else None)


def of_sets(chosen: Profile) -> Patient:
    """A profile's data, and what it is to be matched with; no network."""
    return Patient(
        data=chosen.training_set(),
        held_out=ImageDataset(chosen.select) if chosen.select else None,
        transform=chosen.training_transform(),
        batches=batches(replace(chosen, workers=0)),
        priors=chosen.spec.boxes(),
        match=partial(match, iou_threshold=chosen.recipe.match_iou),
    )


@contextmanager
def of_profile(chosen: Profile, loss: losses.Loss | None = None, model: SSD | None = None) -> Iterator[Patient]:
    """A profile as it would begin to train: its own trainer, optimizer and schedule, in a folder that is gone
    afterwards, and batches as its loader gives them.

    Nothing is pretrained: a backbone that a profile would teach first is random here, and not frozen.

    Args:
        model: with weights already, instead of a fresh one.
    """
    loss = loss or losses.MultiBoxLoss()
    chosen = chosen if chosen.backbone_weights or model else unfrozen(chosen)
    with TemporaryDirectory() as folder:
        if model is None:
            model = replace(chosen, pretraining_steps=0).start(Path(folder) / "run", chosen.recipe.seed, loss=loss)
        known = chosen.backbone_weights and taught_backbone(chosen, model)
        trainer = Trainer(
            model,
            chosen.training_set(),
            chosen.training_transform(),
            chosen.recipe,
            Path(folder) / "run",
            loss=loss,
        )
        trainer.prepare()
        yield of_trainer(trainer, chosen, known or None)


def unfrozen(chosen: Profile) -> Profile:
    return replace(chosen, recipe=replace(chosen.recipe, frozen_blocks=0, frozen_statistics=False))


def taught_backbone(chosen: Profile, model: SSD) -> dict:
    """The backbone's tensors as the file of a profile has them, by their names in the model."""
    fresh = chosen.model()
    weights.load_backbone(fresh, chosen.read_backbone_weights())
    return {f"backbone.{name}": tensor.to(model.priors.device) for name, tensor in fresh.backbone.state_dict().items()}


def of_trainer(trainer: Trainer, chosen: Profile, pretrained: dict | None = None) -> Patient:
    """What a trainer that is prepared would do."""
    model, recipe = trainer.model, trainer.recipe
    network = model.train()
    return Patient(
        data=chosen.training_set(),
        held_out=ImageDataset(chosen.select) if chosen.select else None,
        transform=chosen.training_transform(),
        batches=batches(chosen),
        read=lambda batch: batch.to(trainer.device),
        model=model,
        match=partial(match, iou_threshold=recipe.match_iou),
        loss=trainer.loss,
        optimizer=trainer.optimizer,
        schedule=trainer.schedule,
        steps=trainer.steps,
        clip_norm=recipe.clip_norm,
        step=lambda batch: trainer.step(network, batch.to(trainer.device)),
        pretrained=pretrained,
        frozen=tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad),
    )


@contextmanager
def of_run(run: Path) -> Iterator[Patient]:
    """A run as it stands: its best weights, recipe, loss, data and history.

    Raises:
        RunError: the folder is no run's, or no profile made it.
        DataError: a file of the run is broken.
    """
    known, history = runs.read_provenance(run), runs.read_history(run)
    if known.get("profile") not in profiles.PROFILES:
        raise runs.RunError(f"{run} was made by no profile, so nothing here says what it learned from")
    chosen = profiles.profile(known["profile"])
    if data := known.get("data"):
        chosen = own_tree.profile_on(chosen, data["tree"], data["train_on"], data["select_on"])
    names = {one.name for one in fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in known.get("recipe", {}).items() if name in names})
    chosen.prepare()
    model = weights.load(run / "best.safetensors").to(chosen.device)
    with of_profile(replace(chosen, recipe=recipe), loss_of(known), model) as patient:
        patient.history, patient.pretrained = history, None
        yield patient


def loss_of(known: dict) -> losses.Loss:
    """The loss that a run's provenance names, with its usual numbers."""
    name = known.get("loss", "MultiBoxLoss").partition("(")[0]
    return next((make() for make in losses.LOSSES.values() if make.__name__ == name), losses.MultiBoxLoss())


def on_sets(sets: Sequence[ImageSet]) -> Profile:
    """The profile `gpu` on image sets of a devkit."""
    return replace(profiles.gpu(), train=tuple(sets), select=(), test=())


def own(tree: Path, on: str | None = None) -> Profile:
    """The profile `photos` on a tree of one's own: its list `train`, or the one that is named, against its list `val`.

    Raises:
        DataError: the folder is no tree, has no such list, or no object is in it.
    """
    lists = trees.list_names(trees.require_tree(tree))
    held_out = "val" if "val" in lists and on in (None, "train") else None
    return own_tree.profile_on(profiles.photos(), tree, on or "train", held_out)
