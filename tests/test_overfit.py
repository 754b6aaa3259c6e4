"""The whole detector at once: what cannot learn one batch by heart will not learn a data set."""

from collections.abc import Sequence

import pytest
import torch
from families import weekly_but

from course_lib import augment, losses, metrics, ssd, training, voc
from course_lib.detect import detect_all

pytestmark = pytest.mark.slow


def learn_by_heart(model: ssd.SSD, batch: voc.Batch, steps: int, learning_rate: float) -> list[float]:
    """The loss at each step; the last learning rates are small, so that batch norm's statistics settle."""
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    loss, history = losses.MultiBoxLoss(), []
    model.train()
    for _ in range(steps):
        total = losses.total(training.compute(model, batch, loss, match_iou=0.5).parts)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        history.append(total.item())
    return history


def fresh(build) -> ssd.SSD:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().to(memory_format=torch.channels_last)


def first_images(devkit, count: int, size: int) -> tuple[voc.Batch, Sequence[voc.Target]]:
    dataset = voc.VOCDetection(devkit, "2007", "trainval", augment.evaluation(size))
    samples = [dataset[index] for index in range(count)]
    return voc.collate(samples), metrics.read_ground_truth(devkit, "2007", "trainval")[:count]


@pytest.mark.weekly
def test_ssd300_learns_one_real_image_in_sixty_steps(voc_real):
    """Every object is found, and each is surer than whatever is none of its class: mAP 1."""
    batch, truth = first_images(voc_real / "VOCdevkit", 1, 300)
    model = fresh(ssd.ssd300_vgg16)
    history = learn_by_heart(model, batch, steps=60, learning_rate=2e-4)
    assert history[-1] < history[0] / 10
    assert metrics.evaluate_voc(detect_all(model, [batch]), truth).mean_ap == pytest.approx(1)


@pytest.mark.parametrize("build", weekly_but([ssd.ssd_nano], [ssd.ssd_nano, ssd.ssd_mini]))
def test_small_detectors_learn_one_batch_to_a_map_of_one(build, small_devkit):
    model = fresh(build)
    batch, truth = first_images(small_devkit, 8, model.image_size)
    history = learn_by_heart(model, batch, steps=150, learning_rate=2e-3)
    assert history[-1] < history[0] / 10
    assert metrics.evaluate_voc(detect_all(model, [batch]), truth).mean_ap == pytest.approx(1)
