"""A patient for tests of the doctor: small enough for seconds, healthy, and changed by a test."""

from pathlib import Path

from course_lib import voc
from course_lib.doctor import Patient, examine, setups
from course_lib.doctor.findings import Finding
from course_lib.doctor.setups import fill


def small_setup(devkit: Path, trunk=None, batch_size: int = 8) -> setups.Setup:
    """`setups.healthy` on 24 images in batches of eight."""
    every = voc.ImageDataset([voc.ImageSet(devkit / "VOC2007", "trainval")])
    data = setups.InMemory(tuple(every[index] for index in range(24)), every.classes)
    setup = setups.healthy(data, data, trunk)
    setup.batch_size = batch_size
    return setup


def known_trunk(devkit: Path) -> setups.Setup:
    """The same with a trunk that is meant to be known, and is frozen in its first blocks."""
    setup = small_setup(devkit)
    setup.pretrained = {f"backbone.{name}": t.clone() for name, t in setup.model.backbone.state_dict().items()}
    setup.frozen = fill(setup.model, setup.pretrained)
    return setup


def has(findings: list[Finding], severity: str, words: str) -> None:
    """Fail unless some finding of this severity says this."""
    assert any(one.severity == severity and words in one.seen for one in findings), findings


def seen_in(patient: Patient, *checks: str) -> list[Finding]:
    """What some checks find."""
    return list(examine(patient, only=checks).findings)
