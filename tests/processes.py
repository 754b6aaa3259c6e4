"""Training in a process of its own, which must be able to import what it runs."""

import os
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from elsewhere import elsewhere
from small_backbone import SMALL, THIN

from course_lib import augment, evaluation, pretraining, profiles, runs, weights
from course_lib.losses import MultiBoxLoss
from course_lib.training import Recipe, Trainer
from course_lib.voc import Batch, VOCDetection

RECIPE = Recipe(epochs=3, batch_size=4, optimizer="adamw", learning_rate=1e-3, warmup_steps=2)


def fresh_model(seed=0, architecture=THIN):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return architecture()


def trainer(devkit, run, recipe=RECIPE, image_set="val", **options):
    options.setdefault("evaluate", lambda model: {"map": 0.5})
    dataset = VOCDetection(devkit, "2007", image_set)
    return Trainer(fresh_model(), dataset, augment.training_mini(THIN.spec.image_size), recipe, run, **options)


def dice(model):
    """A measurement that depends on torch's random numbers, which a run that goes on must go on with too."""
    return {"map": torch.rand(()).item()}


def of_twelve(devkit, run, **options):
    """A trainer of two epochs of three steps each."""
    options = {"evaluate": dice, "checkpoint_minutes": 1e9} | options
    return trainer(devkit, run, options.pop("recipe", replace(RECIPE, epochs=2)), "test", **options)


def train_and_be_killed(devkit, run, kind, moment):
    """Pretraining and three epochs, where every step is kept; killed at a moment of a kind.

    A moment is before a step, before a file's content reaches the disk, or before it takes its name.
    """
    torch.set_num_threads(1)
    torch.manual_seed(5)
    left = [moment]

    def counted(call):
        def counting(*given, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **options)

        return counting

    pretraining.BATCH, pretraining.KEEP_EVERY = 4, 2
    owner, name = {"pretraining": (pretraining, "learn"), "step": (Trainer, "step"), "write": (os, "fsync")}.get(
        kind, (Path, "replace")
    )
    setattr(owner, name, counted(getattr(owner, name)))
    usual = elsewhere(profiles.cpu(), devkit)
    profile = replace(usual, train=usual.test, workers=0, pretraining_steps=4)
    with runs.held(run):
        model, data = profile.start(run, seed=3), profile.training_set()
        options = {"evaluate": dice, "checkpoint_minutes": 0}
        Trainer(model, data, augment.training_mini(160), RECIPE, run, **options).fit()


def hold(run, told):
    """Hold a run's folder until somebody ends this process; a loader of it lives on."""
    with runs.held(run):
        loader = os.fork()
        if loader:
            told.put((os.getpid(), loader))
        signal.pause()
        os._exit(0)


def stop_group(devkit, run):
    """A training whose whole group of processes, loaders and all, is told to end, as where a machine is taken away."""
    os.setsid()
    torch.set_num_threads(1)
    one = trainer(devkit, run, replace(RECIPE, epochs=2), "test", evaluate=None, workers=2)
    step = one.step

    def told(network, batch):
        if one.progress.done == 1:
            os.killpg(0, signal.SIGTERM)
            os.killpg(0, signal.SIGHUP)
        return step(network, batch)

    one.step = told
    one.fit()


def stop_as_process(rank, devkit, run, store, number):
    """One of two processes, of which the second is sent a signal, or none, before the second step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    one = trainer(devkit, run, replace(RECIPE, epochs=2), "test", evaluate=None)
    step = one.step

    def told(network, batch):
        if number and rank == 1 and one.progress.done == 1:
            os.kill(os.getpid(), number)
        return step(network, batch)

    one.step = told
    one.fit()
    dist.destroy_process_group()


def train_slowly(devkit, run):
    torch.set_num_threads(1)
    trainer(devkit, run, evaluate=None, report=lambda record: time.sleep(5)).fit()


def in_float64(one):
    """A prepared trainer whose network computes in float64 and without batch norm's statistics of a batch."""
    one.prepare()
    one.model.double().eval()
    one.model.priors = one.model.priors.float()
    return one


def gradient_of(one):
    return torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None])


def join(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)


def train_as_process(rank, devkit, folder, store, results):
    join(rank, store)
    recipe = replace(RECIPE, epochs=1, warmup_steps=0)
    one = trainer(devkit, folder / "run", recipe, image_set="test")
    one.fit()
    results[rank] = float(sum(p.detach().double().sum() for p in one.model.parameters()))
    dist.destroy_process_group()


def step_as_process(rank, devkit, folder, store, results):
    """A step on a half of the batch that the folder holds."""
    join(rank, store)
    saved, micro_batches = torch.load(folder / "batch.pt", weights_only=False)
    recipe = replace(RECIPE, clip_norm=1e9, batch_size=4, micro_batches=micro_batches)
    one = in_float64(trainer(devkit, folder, recipe, image_set="test"))
    numbers = one.step(one.network(), Batch(**saved).parts(2)[rank])
    results[rank] = {"numbers": torch.stack(list(numbers.values())).double(), "gradient": gradient_of(one)}
    dist.destroy_process_group()


def measure_as_process(rank, devkit, folder, store, results):
    """A measurement by two processes that have seen other images, and so have other statistics of batch norm."""
    join(rank, store)
    dataset = VOCDetection(devkit, "2007", "test")
    model, recipe = weights.load(profiles.RECORD), replace(RECIPE, epochs=1, warmup_steps=0)
    select = evaluation.selector(dataset, batch_size=4, loss=MultiBoxLoss(), match_iou=0.4)
    one = Trainer(model, dataset, augment.training_mini(160), recipe, folder, evaluate=select)
    one.prepare()
    one.model.train()
    with torch.no_grad():
        one.model(next(iter(one.loader)).images)
    own = float(sum(buffer.double().sum() for buffer in one.model.buffers()))
    measured = one.measure(epoch=1)
    results[rank] = {"measured": measured, "statistics": own, "state": one.model.state_dict()}
    dist.destroy_process_group()


def train_beside_bad_pictures(rank, devkit, folder, store, results):
    """Three epochs, each measured; before the first a picture of the second process is cut, then one of the first.

    The first process mends what was cut after each measurement. `folder` holds the validation tree, to be spoilt.
    """
    join(rank, store)
    select = evaluation.selector(VOCDetection(folder, "2007", "test"), loss=MultiBoxLoss())
    paths = [folder / f"VOC2007/JPEGImages/{name}.jpg" for _, name in VOCDetection(folder, "2007", "test").items[:2]]
    whole = [path.read_bytes() for path in paths]

    def cut_and_mend(record):
        if rank == 0:  # the other waits for it in the next step
            for number, (path, content) in enumerate(zip(paths, whole, strict=True)):
                path.write_bytes(content[:900] if (record["epoch"], number) in ((0, 1), (1, 0)) else content)

    cut_and_mend({"epoch": 0})
    recipe = replace(RECIPE, epochs=3, evaluate_every=1)
    one = trainer(devkit, folder / "run", recipe, "test", evaluate=select, report=cut_and_mend)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = one.fit()
    left_out = [str(one.message) for one in told if "left out" in str(one.message)]
    results[rank] = {"maps": [record["map"] for record in history], "told": left_out, "names": [p.name for p in paths]}
    dist.destroy_process_group()


def compile_as_process(devkit, folder, results):
    """The losses of a step as it is, and of one that is compiled."""
    dataset = VOCDetection(devkit, "2007", "val")
    for compiled in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = SMALL()
        recipe = replace(RECIPE, compile=compiled)
        one = Trainer(model, dataset, augment.training_mini(160), recipe, folder)
        one.prepare()
        numbers = one.step(one.network(), next(iter(one.loader)))
        results[compiled] = [value.item() for value in numbers.values()]
