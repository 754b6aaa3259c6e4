import io
import os
import pickle
import signal
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_backbone import THIN

from course_lib import pretraining, ssd
from course_lib.backbones import Classifier
from course_lib.files import DataError
from course_lib.pretraining import CROP, MARGIN, YIQ, crop, jitter, objects_of, pretrain, recolour
from course_lib.schedules import warmup_cosine
from course_lib.stopping import Stopped
from course_lib.voc import VOCDetection


@settings(deadline=None)
@given(st.integers(0, 2**20))
def test_a_crop_shows_its_object_in_the_middle_at_the_promised_size(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((rng.integers(80, 400), rng.integers(80, 400), 3), np.uint8)
    w, h = rng.integers(12, 70, 2)
    x, y = rng.integers(0, image.shape[1] - w), rng.integers(0, image.shape[0] - h)
    image[y : y + h, x : x + w] = 255
    rows, columns = np.nonzero(crop(image, tuple(map(float, (x, y, x + w, y + h)))).mean(axis=2) > 127)
    longest = CROP / MARGIN
    expected = np.array([w, h]) * longest / max(w, h)
    assert np.abs([np.ptp(columns) + 1, np.ptp(rows) + 1] - expected).max() < 3
    centre = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2
    assert np.abs(centre - CROP / 2).max() < 2.5


def test_every_object_that_counts_is_cut_out_once(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "val")
    crops, labels = objects_of(dataset)
    truth = [dataset.annotation(index) for index in range(len(dataset))]
    expected = [label - 1 for a in truth for label in a.labels[~a.difficult].tolist()]
    assert labels.tolist() == expected and crops.shape == (len(expected), 3, CROP, CROP)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**20))
def test_recolouring_keeps_half_of_the_pictures_and_what_is_grey_in_the_others(seed):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(64, 3, 6, 6, generator=generator) * 160 + 40
    pictures[:, :, :, 0] = pictures[:, :1, :, 0]  # a grey column: no change of saturation or hue can colour it
    changed = recolour(pictures, generator)
    assert 10 <= (changed == pictures).flatten(1).all(dim=1).sum() <= 54
    assert changed.min() >= 0 and changed.max() <= 255
    unclipped = ((changed > 0) & (changed < 255)).all(dim=1)[:, :, 0]
    grey = changed[:, :, :, 0].permute(0, 2, 1)[unclipped]
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() < 0.1


def test_the_colour_axes_of_a_grey_are_nearly_zero_and_its_brightness_itself():
    torch.testing.assert_close(YIQ @ torch.full((3,), 200.0), torch.tensor([200.0, 0.0, 0.0]), rtol=0, atol=0.5)


@pytest.mark.slow
def test_the_backbone_learns_and_neither_l2_norm_nor_anything_else_changes(small_devkit):
    model, untouched = ssd.ssd_mini(), ssd.ssd_mini()
    untouched.load_state_dict(model.state_dict())
    state = torch.random.get_rng_state()
    reports = []
    dataset = VOCDetection(small_devkit, "2007", "train")
    kept_back = pretrain(model, dataset, steps=30, report=lambda *row: reports.append(row))
    assert 0 <= kept_back <= 1 and reports[-1][0] == 30
    assert reports[-1][1] > reports[0][1]
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, now), before in zip(model.state_dict().items(), untouched.state_dict().values(), strict=True):
        assert torch.equal(now, before) != name.startswith("backbone.to_"), name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_backbone(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "val")
    models = [ssd.ssd_mini(), ssd.ssd_mini()]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        pretrain(model, dataset, steps=3, seed=5)
    for a, b in zip(*(model.backbone.state_dict().values() for model in models), strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module")
def few_objects(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "val")
    return dataset, objects_of(dataset)


@pytest.fixture
def small_steps(few_objects, monkeypatch):
    """Steps of 4 crops, of which every third is kept; the data set."""
    dataset, crops = few_objects
    monkeypatch.setattr(pretraining, "objects_of", lambda asked: crops)
    monkeypatch.setattr(pretraining, "BATCH", 4)
    monkeypatch.setattr(pretraining, "KEEP_EVERY", 3)
    return dataset


def fresh_model(seed=11, num_classes=21):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return THIN(num_classes)


@cache
def uninterrupted(dataset, steps, seed=0):
    """The model, its accuracy and all that was reported: what every interrupted pretraining is to end with."""
    model, reports = fresh_model(), {}
    return model, pretrain(model, dataset, steps, seed, reports.__setitem__), reports


@cache
def kept_of_six(dataset):
    """What is kept of 6 steps with seed 1."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        pretrain(fresh_model(), dataset, 6, seed=1, state=path)
        assert pretraining.read_state(path)["step"] == 6
        return path.read_bytes()


def assert_same_bits(model, expected):
    for (name, a), b in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def pretrained_in_one_go(model, crops, labels, steps, seed):
    """The whole of pretraining as it was before it could be interrupted, written out plainly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = Classifier(model.backbone, model.num_classes - 1)
    classifier.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW([p for p in classifier.parameters() if p is not model.backbone.l2_norm.weight], 1e-3)
    schedule = warmup_cosine(optimizer, min(50, steps - 1), steps)
    order = torch.randperm(len(crops), generator=generator)
    order = order[len(order) // 10 :]
    for _ in range(steps):
        chosen = order[torch.randint(len(order), (4,), generator=generator)]
        images = recolour(jitter(crops[chosen].float(), generator), generator)
        answers = classifier(model.normalise(images))
        optimizer.zero_grad(set_to_none=True)
        sum(torch.nn.functional.cross_entropy(answer, labels[chosen]) for answer in answers).backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("seed", "steps"), [(0, 10), (5, 7), (3, 1)])
def test_keeping_the_state_changes_no_bit_of_what_is_learned(small_steps, tmp_path, seed, steps):
    expected = fresh_model()
    pretrained_in_one_go(expected, *objects_of(small_steps), steps, seed)
    for state in (None, tmp_path / "new" / "folder" / "state.pt"):
        model = fresh_model()
        pretrain(model, small_steps, steps, seed, state=state)
        assert_same_bits(model, expected)


# After how many steps each attempt is interrupted, where every third step is kept.
@pytest.mark.parametrize("interrupted", [(0,), (1,), (3,), (4,), (5,), (6,), (9,), (2, 4), (4, 4, 1), (3, 0, 0, 6)])
def test_an_interrupted_pretraining_ends_with_the_same_bits_as_one_that_was_not(
    small_steps, tmp_path, monkeypatch, interrupted
):
    expected, accuracy, reports = uninterrupted(small_steps, 10, seed=2)
    learn, seen = pretraining.learn, {}
    for steps in interrupted:
        left = iter(range(steps))

        def learn_until(*arguments, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return learn(*arguments)

        monkeypatch.setattr(pretraining, "learn", learn_until)
        with pytest.raises(KeyboardInterrupt):
            pretrain(fresh_model(), small_steps, 10, 2, seen.__setitem__, tmp_path / "state.pt")
    monkeypatch.setattr(pretraining, "learn", learn)
    model, random_state = fresh_model(), torch.random.get_rng_state()
    assert pretrain(model, small_steps, 10, 2, seen.__setitem__, tmp_path / "state.pt") == accuracy
    assert_same_bits(model, expected)
    assert seen == reports
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("stopped", [1, 4, 10])
def test_a_signal_ends_pretraining_after_its_step_and_nothing_of_it_is_lost(
    small_steps, tmp_path, monkeypatch, number, stopped
):
    (expected, *_), steps, learn = uninterrupted(small_steps, 10), [], pretraining.learn

    def counted(*given):
        steps.append(1)
        if len(steps) == stopped:
            os.kill(os.getpid(), number)
        return learn(*given)

    monkeypatch.setattr(pretraining, "learn", counted)
    with pytest.raises((Stopped, KeyboardInterrupt)):
        pretrain(fresh_model(), small_steps, 10, state=tmp_path / "state.pt")
    assert pretraining.read_state(tmp_path / "state.pt")["step"] == len(steps) == stopped
    model = fresh_model()
    pretrain(model, small_steps, 10, state=tmp_path / "state.pt")
    assert_same_bits(model, expected)
    assert len(steps) == 10


@pytest.mark.parametrize("steps", [10, 25])
def test_a_report_that_spans_an_interruption_is_of_all_its_steps(small_steps, tmp_path, monkeypatch, steps):
    """Of 25 steps every second is reported, and every third kept: some shares must be kept with it."""
    (*_, expected), seen = uninterrupted(small_steps, steps), {}
    left, learn = iter(range(4)), pretraining.learn
    monkeypatch.setattr(pretraining, "learn", lambda *given: (next(left), learn(*given))[1])
    with pytest.raises(StopIteration):
        pretrain(fresh_model(), small_steps, steps, 0, seen.__setitem__, tmp_path / "state.pt")
    monkeypatch.setattr(pretraining, "learn", learn)
    pretrain(fresh_model(), small_steps, steps, 0, seen.__setitem__, tmp_path / "state.pt")
    assert seen == expected and len(seen) >= 10


@pytest.mark.parametrize("write", [1, 2, 3])
def test_interrupted_while_it_writes_the_state_it_goes_on_from_the_one_before(
    small_steps, tmp_path, monkeypatch, write
):
    expected, *_ = uninterrupted(small_steps, 10)
    left, fsync = iter(range(1, write)), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (next(left), fsync(file)))
    with pytest.raises(StopIteration):
        pretrain(fresh_model(), small_steps, 10, state=tmp_path / "state.pt")
    assert len(list(tmp_path.iterdir())) == (write > 1)
    monkeypatch.setattr(os, "fsync", fsync)
    model = fresh_model()
    pretrain(model, small_steps, 10, state=tmp_path / "state.pt")
    assert_same_bits(model, expected)


@pytest.fixture
def state(small_steps, tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(kept_of_six(small_steps))
    return path


def test_a_state_of_an_earlier_edition_is_gone_on_with(small_steps, state, tmp_path):
    """Its classifier calls the backbone trunk, and has no L2Norm in it."""
    expected, *_ = uninterrupted(small_steps, 6, seed=1)
    kept = torch.load(state, weights_only=True)
    classifier = kept["classifier"]
    kept["classifier"] = {
        name.replace("backbone.", "trunk."): classifier[name] for name in classifier if "l2_norm" not in name
    }
    assert kept["step"] == 6 and "trunk.to_fc7.1.weight" in kept["classifier"]
    torch.save(kept, state)
    model = fresh_model()
    pretrain(model, small_steps, 6, seed=1, state=state)
    assert_same_bits(model, expected)


def other_pixel(crops, labels):
    crops = crops.clone()
    crops[0, 0, 0, 0] ^= 1
    return crops, labels


def named_architecture(name):
    model = fresh_model()
    model.architecture = name
    return model


@pytest.mark.parametrize(
    ("model", "steps", "seed", "data", "named"),
    [
        (fresh_model, 6, 2, None, r"'seed': 1.*'seed': 2"),
        (fresh_model, 7, 1, None, r"'steps': 6.*'steps': 7"),
        (fresh_model, 3, 4, None, r"'seed': 1, 'steps': 6.*'seed': 4, 'steps': 3"),
        (lambda: fresh_model(num_classes=22), 6, 1, None, r"'num_classes': 21.*'num_classes': 22"),
        (lambda: named_architecture("ssd_lite"), 6, 1, None, r"thin.*ssd_lite"),
        (fresh_model, 6, 1, lambda crops, labels: (crops[:-1], labels[:-1]), r"'data': '\d+ crops.*'data': '\d+ crops"),
        (fresh_model, 6, 1, other_pixel, r"'data': .*checksum"),
        (fresh_model, 6, 1, lambda crops, labels: (crops, labels.flip(0)), r"'data': .*checksum"),
    ],
    ids=["seed", "steps", "both", "classes", "architecture", "fewer objects", "a pixel", "labels"],
)
def test_a_state_of_something_else_is_refused_and_stays(
    small_steps, state, monkeypatch, model, steps, seed, data, named
):
    if data:
        crops = data(*objects_of(small_steps))
        monkeypatch.setattr(pretraining, "objects_of", lambda dataset: crops)
    before = state.read_bytes()
    with pytest.raises(DataError, match=rf"state\.pt: what was begun is .*{named}.*another folder.*--fresh.*remove"):
        pretrain(model(), small_steps, steps, seed, state=state)
    assert state.read_bytes() == before


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def without(content, name):
    """The state with a part missing: a tensor of the classifier, or a whole part."""
    kept = torch.load(io.BytesIO(content), weights_only=True)
    del (kept["classifier"] if "." in name else kept)[name]
    return saved(kept)


def spoilt(content, position, change):
    """The state with bytes of a weight changed; between the parts of the file are some that nobody reads."""
    head = torch.load(io.BytesIO(content), weights_only=True)["classifier"]["heads.1.weight"].numpy().tobytes()
    assert content.count(head) == 1
    new = change(head[position:])
    return content.replace(head, head[:position] + new + head[position + len(new) :])


def flipped(content, position):
    return spoilt(content, position, lambda rest: bytes([rest[0] ^ 4]))


@pytest.mark.parametrize(
    "broken",
    [
        lambda content: b"",
        lambda content: b"no state",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
        lambda content: spoilt(content, 500, lambda rest: bytes(4096)),
        lambda content: flipped(content, 2),
        lambda content: flipped(content, 5000),
        lambda content: saved([1, 2]),
        lambda content: saved({"seed": 1}),
        lambda content: pickle.dumps(print),
        lambda content: without(content, "backbone.to_fc7.1.weight"),
        lambda content: without(content, "generator"),
        lambda content: without(content, "optimizer"),
        lambda content: without(content, "step"),
    ],
    ids=(
        "empty|text|half|a byte short|half zeros|a hole|a bit|another bit|a list|another dict|code|no weight|"
        "no generator|no optimizer|no step"
    ).split("|"),
)
def test_a_broken_state_is_named_with_its_cure_and_never_taken_for_whole(small_steps, state, broken):
    state.write_bytes(broken(state.read_bytes()))
    before = state.read_bytes()
    with pytest.raises(DataError, match=r"state\.pt: (state|what was begun) is .*remove ") as error:
        pretrain(fresh_model(), small_steps, 6, seed=1, state=state)
    assert "\n" not in str(error.value) and state.read_bytes() == before
