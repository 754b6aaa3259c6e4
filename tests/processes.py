"""Training in a process of its own, which must be able to import what it runs."""

import time
from dataclasses import replace

import torch
import torch.distributed as dist

from course_lib import augment, ssd
from course_lib.training import Recipe, Trainer
from course_lib.voc import VOCDetection

RECIPE = Recipe(epochs=3, batch_size=4, optimizer="adamw", learning_rate=1e-3, warmup_steps=2)


def fresh_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ssd.ssd_mini()


def trainer(devkit, run, recipe=RECIPE, image_set="val", **options):
    options.setdefault("evaluate", lambda model: {"map": 0.5})
    dataset = VOCDetection(devkit, "2007", image_set)
    return Trainer(fresh_model(), dataset, augment.training_mini(160), recipe, run, **options)


def train_slowly(devkit, run):
    torch.set_num_threads(1)
    trainer(devkit, run, evaluate=None, report=lambda record: time.sleep(5)).fit()


def train_as_process(rank, devkit, run, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    recipe = replace(RECIPE, epochs=1, warmup_steps=0)
    one = trainer(devkit, run, recipe, image_set="test")
    one.fit()
    results[rank] = float(sum(p.detach().double().sum() for p in one.model.parameters()))
    dist.destroy_process_group()
