"""What only a GPU can show: that it gives what the CPU gives, and that a run on it learns, stops and goes on."""

import os
import signal
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from processes import RECIPE, fresh_model
from torch.nn.parallel import DistributedDataParallel

from course_lib import augment, runs, ssd, weights
from course_lib.detect import detect
from course_lib.losses import FocalLoss, MultiBoxLoss, SoftmaxFocalLoss, total
from course_lib.matching import Matches, match
from course_lib.nms import nms
from course_lib.priors import SSD300, SSD_MINI
from course_lib.runs import RunError
from course_lib.stopping import Stopped
from course_lib.training import Trainer
from course_lib.voc import VOCDetection

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICE = "cuda"


@pytest.fixture(autouse=True)
def full_float32():
    """Convolutions of float32 compute in float32, and by algorithms that repeat themselves."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.deterministic
    cudnn.conv.fp32_precision, cudnn.deterministic = "ieee", True
    yield
    cudnn.conv.fp32_precision, cudnn.deterministic = before


def crowd(seed, images=4, slots=40, smallest=0.02):
    """Random boxes, every third one twice, and three padded slots."""
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(images, slots, 2, generator=g) * (1 - smallest)
    high = low + smallest + torch.rand(images, slots, 2, generator=g) * (1 - smallest - low)
    boxes, labels = torch.cat([low, high], dim=-1), torch.randint(1, 21, (images, slots), generator=g)
    boxes[:, 1::3] = boxes[:, 0:-1:3]
    boxes[:, -3:], labels[:, -3:] = 0, 0
    return boxes, labels


@pytest.mark.parametrize("spec", [SSD300, SSD_MINI])
@pytest.mark.parametrize("seed", range(5))
def test_match_gives_what_it_gives_on_the_cpu(spec, seed):
    case = (*crowd(seed), spec.boxes())
    here, there = match(*case), match(*(t.to(DEVICE) for t in case))
    assert torch.equal(here.labels, there.labels.cpu()) and torch.equal(here.gt_index, there.gt_index.cpu())
    # Nothing is summed: a division by 0.1 that is a product with 10, and another logarithm, a few times 1e-7.
    torch.testing.assert_close(there.offsets.cpu(), here.offsets, rtol=1e-5, atol=1e-5)


def test_match_does_not_make_the_host_wait():
    case = [t.to(DEVICE) for t in (*crowd(0), SSD300.boxes())]
    torch.cuda.set_sync_debug_mode("error")
    try:
        match(*case)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def loss_and_gradients(loss, offsets, logits, matches, device):
    offsets, logits = (t.to(device).requires_grad_() for t in (offsets, logits))
    parts = loss(offsets, logits, Matches(*(t.to(device) for t in matches)))
    total(parts).backward()
    return [t.detach().cpu() for t in (*parts.values(), offsets.grad, logits.grad)]


@pytest.mark.parametrize(
    "loss", [MultiBoxLoss(), FocalLoss(), SoftmaxFocalLoss()], ids=lambda loss: type(loss).__name__
)
def test_losses_and_their_gradients_are_those_of_the_cpu(loss):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(-80, 21, (4, 500), generator=g).clamp(min=0)
    matches = Matches(labels, torch.randn(4, 500, 4, generator=g), labels - 1)
    case = (loss, torch.randn(4, 500, 4, generator=g), 2 * torch.randn(4, 500, 21, generator=g), matches)
    # Float32 sums of up to 40,000 costs, right to about 1e-7 sqrt(n) = 2e-5 of themselves; gradients are not summed.
    torch.testing.assert_close(
        loss_and_gradients(*case, DEVICE), loss_and_gradients(*case, "cpu"), rtol=1e-4, atol=1e-6
    )


def test_nms_and_detect_give_what_they_give_on_the_cpu():
    boxes, g = crowd(0, images=1, slots=300)[0][0, :-3], torch.Generator().manual_seed(1)
    scores = torch.rand(len(boxes), generator=g).round(decimals=1)  # many are equal
    assert nms(boxes.to(DEVICE), scores.to(DEVICE), 0.45).tolist() == nms(boxes, scores, 0.45).tolist()

    priors = SSD_MINI.boxes()
    # Scores that are 6e-5 of themselves apart: exponentials right to 1e-6 cannot change their order.
    evidence = torch.linspace(-4, 4, len(priors))[torch.stack([torch.randperm(len(priors), generator=g) for _ in "ab"])]
    wanted = torch.randint(1, 6, (2, len(priors), 1), generator=g)
    logits = torch.full((2, len(priors), 6), -20.0).scatter_(2, wanted, evidence[..., None])
    logits[..., 0] = 0
    case = (torch.randn(2, len(priors), 4, generator=g), logits, priors)
    for here, there in zip(detect(*case), detect(*(t.to(DEVICE) for t in case)), strict=True):
        assert len(here.labels) == 200 and torch.equal(here.labels, there.labels)
        torch.testing.assert_close(there.boxes, here.boxes, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(there.scores, here.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@torch.inference_mode()
def test_ssd300_computes_what_it_computes_on_the_cpu(memory_format):
    torch.manual_seed(0)
    model, images = ssd.ssd300_vgg16().eval(), torch.randint(0, 256, (2, 3, 300, 300), dtype=torch.uint8)
    here = model(images)
    there = model.to(DEVICE, memory_format=memory_format)(images.to(DEVICE))
    for one, other in zip(here, there, strict=True):
        # Sums of up to 9216 products in another order, right to 1e-5, and two dozen layers of them to 5e-5: relative
        # to the size of the whole, not of each number.
        assert (one - other.cpu()).abs().max() < 1e-4 * one.abs().max()


def gpu_trainer(devkit, run, amp="off", **options):
    model = fresh_model(architecture=ssd.ssd_mini).to(DEVICE, memory_format=torch.channels_last)
    dataset, recipe = VOCDetection(devkit, "2007", "train"), replace(RECIPE, amp=amp)
    return Trainer(model, dataset, augment.training_mini(160), recipe, run, **options)


def ready(*given):
    """A trainer whose epochs can be called one by one."""
    one = gpu_trainer(*given)
    one.prepare()
    return one


def assert_alike(history, expected):
    """The schedule to the last bit; the losses not: on a GPU sums are added up in an order that differs each time."""
    for a, b in zip(history, expected, strict=True):
        assert {k: a[k] for k in ("epoch", "images", "lr")} == {k: b[k] for k in ("epoch", "images", "lr")}
        assert (a["loc"], a["conf"]) == pytest.approx((b["loc"], b["conf"]), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_run_learns_stops_and_goes_on(small_devkit, tmp_path, amp):
    class Interrupted(Exception):
        pass

    def stop_after_two(record):
        if record["epoch"] == 2:
            raise Interrupted

    whole = gpu_trainer(small_devkit, tmp_path / "whole", amp)
    assert whole.scaler.is_enabled() == (amp == "fp16")
    history = whole.fit()
    assert history[-1]["conf"] < history[0]["conf"]
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}

    with pytest.raises(Interrupted):
        gpu_trainer(small_devkit, tmp_path / "parts", amp, report=stop_after_two).fit()
    parts = gpu_trainer(small_devkit, tmp_path / "parts", amp)
    assert_alike(parts.fit(), history)
    assert parts.scaler.get_scale() == whole.scaler.get_scale()


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_does_not_make_the_host_wait(small_devkit, tmp_path, amp):
    """But for the event of the step before, which is over by then."""
    one = ready(small_devkit, tmp_path, amp)
    batch = next(iter(one.loader)).to(DEVICE)
    for _ in range(3):  # the first steps make what the optimizer keeps, and choose algorithms
        one.step(one.model, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            one.step(one.model, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(one.progress.readings.waiting) == 1


def test_what_is_not_finite_stops_the_run_one_step_late_and_breaks_no_weight(small_devkit, tmp_path):
    one, usual = ready(small_devkit, tmp_path), MultiBoxLoss()
    batch = next(iter(one.loader)).to(DEVICE)
    one.step(one.model, batch)
    one.loss = lambda *given: {name: value * float("nan") for name, value in usual(*given).items()}
    one.step(one.model, batch)
    one.loss = usual
    with pytest.raises(RunError, match="step 2 gave loc=nan"):
        one.step(one.model, batch)
    assert all(value.isfinite().all() for value in one.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_run_stopped_within_an_epoch_goes_on_there(small_devkit, tmp_path, amp):
    history = gpu_trainer(small_devkit, tmp_path / "whole", amp).fit()
    one = gpu_trainer(small_devkit, tmp_path / "parts", amp)
    step = one.step

    def told(network, batch):
        if one.progress.done == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(network, batch)

    one.step = told
    with pytest.raises(Stopped):
        one.fit()
    state = runs.read_state(tmp_path / "parts")
    assert state["done"] == 5 and state["random"].keys() == {"cpu", "cuda"}
    assert_alike(gpu_trainer(small_devkit, tmp_path / "parts", amp).fit(), history)


@pytest.mark.slow
def test_half_precision_trains_close_to_float32(small_devkit, tmp_path):
    first = {amp: ready(small_devkit, tmp_path, amp).train_epoch for amp in ("off", "bf16", "fp16")}
    conf = {amp: train(train.__self__.model, 0)["conf"] for amp, train in first.items()}
    assert conf["bf16"] == pytest.approx(conf["off"], rel=0.1) and conf["fp16"] == pytest.approx(conf["off"], rel=0.1)


def test_auto_takes_bf16_where_the_device_has_it(small_devkit, tmp_path):
    expected = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    assert gpu_trainer(small_devkit, tmp_path, "auto").dtype == expected


def test_weights_saved_from_the_gpu_are_read_on_the_cpu(tmp_path):
    model = fresh_model(architecture=ssd.ssd_mini).to(DEVICE, memory_format=torch.channels_last)
    weights.save(model, tmp_path / "one.safetensors")
    read, own = (
        weights.load(tmp_path / "one.safetensors").state_dict(),
        fresh_model(architecture=ssd.ssd_mini).state_dict(),
    )
    assert read.keys() == own.keys()
    assert all(read[name].device.type == "cpu" and torch.equal(read[name], own[name]) for name in own)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_under_nccl_an_epoch_is_that_of_a_plain_process(small_devkit, tmp_path, monkeypatch):
    """One GPU is one process, which `fit` would not wrap: here it is wrapped all the same."""
    plain = ready(small_devkit, tmp_path)
    expected = plain.train_epoch(plain.model, 0)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    options = {"rank": 0, "world_size": 1, "store": dist.HashStore(), "timeout": timedelta(seconds=20)}
    dist.init_process_group("nccl", device_id=torch.device(DEVICE, 0), **options)
    try:
        wrapped = ready(small_devkit, tmp_path)
        record = wrapped.train_epoch(DistributedDataParallel(wrapped.model, device_ids=[0]), 0)
    finally:
        dist.destroy_process_group()
    assert_alike([record], [expected])
