"""TensorBoard: the history of a run as curves that grow, and a picture with what the model finds in it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from course_lib import viz
from course_lib.detect import detect_image
from course_lib.doctor import Finding
from course_lib.files import DataError
from course_lib.ssd import SSD
from course_lib.voc import ImageDataset

FOLDER, SIGNS = "tensorboard", "vital signs"  # in a run's folder, and in that
# Under which name TensorBoard shows a number of a record; before the slash the group.
CURVES = {
    "loc": "loss/box",
    "conf": "loss/class",
    "val_loc": "loss of validation/box",
    "val_conf": "loss of validation/class",
    "lr": "training/learning rate",
    "grad_norm": "gradient norm/mean",
    "grad_norm_max": "gradient norm/largest",
    "images_per_second": "training/images per second",
    "map": "AP/mean",
}


def curves(record: Mapping) -> dict[str, float]:
    """The points that a record of a history gives; what was not measured, or is not finite, is none."""
    points = {label: record.get(name) for name, label in CURVES.items()}
    points |= {f"AP/{name}": value for name, value in record.get("ap", {}).items()}
    return {label: value for label, value in points.items() if viz.is_number(value)}


class Board:
    """Writes for TensorBoard what a `training.Trainer` reports, into the run's folder: `tensorboard --logdir <run>`.

    Only the first process should have one.

    Args:
        run: the run's folder.
        model: the one that is trained.
        dataset: images that training does not see; the first is the picture.

    It is a context, at whose end all is written.
    """

    def __init__(self, run: str | Path, model: SSD, dataset: ImageDataset) -> None:
        self.folder, self.model, self.dataset, self.writer = Path(run) / FOLDER, model, dataset, None
        self.signs, self.step = None, 0

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *error: object) -> None:
        for writer in filter(None, (self.writer, self.signs)):
            writer.close()

    def report(self, record: Mapping) -> None:
        """Write a record of the history, and where the model was measured what it finds in the picture."""
        epoch = record["epoch"]
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second, and whoever only trains needs it not

            # An epoch that was written before the run was interrupted, and is repeated, counts once.
            self.writer = SummaryWriter(str(self.folder), purge_step=epoch)
        for label, value in curves(record).items():
            self.writer.add_scalar(label, value, epoch)
        if "map" in record and (pixels := self.picture()) is not None:
            self.writer.add_image("detections", pixels, epoch, dataformats="HWC")
        self.writer.flush()

    def sample(self, numbers: Mapping[str, float]) -> None:
        """Write a sample of `doctor.VitalSigns`: by steps, and so as a run of its own beside the epochs."""
        self.step = int(numbers["step"])
        if self.signs is None:
            from torch.utils.tensorboard import SummaryWriter

            self.signs = SummaryWriter(str(self.folder / SIGNS), purge_step=self.step)
        for name, value in numbers.items():
            if name != "step" and viz.is_number(value):
                self.signs.add_scalar(f"vital signs/{name}", value, self.step)

    def finding(self, one: Finding) -> None:
        """Write what `doctor.VitalSigns` found in its last sample, as text."""
        if self.signs is not None:
            self.signs.add_text(f"{one.severity}/{one.check}", str(one), self.step)
            self.signs.flush()

    def picture(self) -> np.ndarray | None:
        """The first image with what the model finds in it, [H, W, 3]; None where it cannot be read."""
        try:
            image, _ = self.dataset.load(0)
        except DataError:
            return None  # the measurement has said so
        canvas = FigureCanvasAgg(viz.figure_of(image, detect_image(self.model, image), classes=self.model.classes))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3]
