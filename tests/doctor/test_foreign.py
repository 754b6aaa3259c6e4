"""Patients of foreign code against what that code does by itself."""

import inspect
import re

import pytest
import strangers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import box_iou

from course_lib import boxes as course_boxes
from course_lib import losses, matching, voc
from course_lib.doctor import examine, foreign, setups

# Losses are sums of some hundred float32 terms, made of network outputs that sum some hundred products each.
SUMS = {"rtol": 1e-4, "atol": 1e-4}
CLASSES = 21


@pytest.fixture(scope="module")
def samples(small_devkit):
    data = voc.ImageDataset([voc.ImageSet(small_devkit / "VOC2007", "trainval")])
    return setups.InMemory(tuple(data[index] for index in range(16)), data.classes)


@pytest.fixture(params=["torchvision", "ssd_pytorch"])
def stranger(request, samples):
    return getattr(strangers, f"of_{request.param}")(samples, CLASSES)


@pytest.fixture
def torchvisions(samples):
    return strangers.of_torchvision(samples, CLASSES)


@pytest.fixture
def pytorchs(samples):
    return strangers.of_ssd_pytorch(samples, CLASSES)


def scattered(images, objects, generator, classes=CLASSES):
    """Boxes of many sizes, corners in fractions, no two with the same overlap; and their labels."""
    size = torch.rand(images, objects, 2, generator=generator) * 0.6 + 0.05
    low = torch.rand(images, objects, 2, generator=generator) * (1 - size)
    return torch.cat([low, low + size], dim=2), torch.randint(1, classes, (images, objects), generator=generator)


def test_a_batch_is_read_as_the_course_would_have_made_it(stranger, samples):
    patient = stranger.patient()
    read = patient.read(patient.first_batches(1)[0])
    for number, (image, target) in enumerate(samples[index] for index in range(stranger.batch_size)):
        count = len(target.labels)
        assert read.labels[number, :count].equal(target.labels) and not read.labels[number, count:].any()
        torch.testing.assert_close(read.boxes[number, :count], target.boxes, atol=1e-6, rtol=0)  # of 1
        # The same picture, whoever has made it smaller: its colours are, on the whole, what they were.
        colours = torch.tensor(image.mean(axis=(0, 1)), dtype=torch.float32)
        torch.testing.assert_close(read.images[number].float().mean(dim=(1, 2)), colours, atol=4, rtol=0)
        assert read.images.dtype == torch.uint8


def test_pixels_in_another_unit_are_not_repaired_and_strong_colours_are_cut_off():
    image = torch.linspace(0, 255, 48).reshape(3, 4, 4)
    for change, read in (
        (lambda x: x, torch.uint8),
        (lambda x: x * 1.5 - 32, torch.uint8),
        (lambda x: x / 255, torch.uint8),
        (lambda x: x * 255, torch.float32),
        (lambda x: x * 255 - 20_000, torch.float32),
    ):
        batch = foreign.as_batch([change(image)], [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])
        limits = (0, 255) if read == torch.uint8 else (-1e6, 1e6)
        assert batch.images.dtype == read and batch.images[0].float().equal(change(image).round().clamp(*limits))


def test_more_parts_replace_those_that_are_made(stranger):
    patient = stranger.patient(classes=("a", "b"), steps=7, match=matching.match)
    assert (patient.classes, patient.steps, patient.match) == (("a", "b"), 7, matching.match)


def test_making_a_patient_changes_nothing(stranger):
    stranger.model.trunk.eval() if hasattr(stranger.model, "trunk") else stranger.model.backbone.stem.eval()
    before = {name: tensor.clone() for name, tensor in stranger.model.state_dict().items()}
    modes = [layer.training for layer in stranger.model.modules()]
    patient = stranger.patient()
    batch = patient.first_batches(1)[0]
    read = patient.read(batch)
    patient.match(read.boxes, read.labels, patient.priors)
    patient.detect(batch)
    assert [layer.training for layer in stranger.model.modules()] == modes
    assert all(tensor.equal(before[name]) for name, tensor in stranger.model.state_dict().items())


def test_a_step_is_the_loops_own(stranger):
    patient = stranger.patient()
    batch = patient.first_batches(1)[0]
    first = patient.step(batch)
    assert first.keys() == {"loc", "conf"}
    for _ in range(3):
        patient.step(batch)
    with torch.no_grad():
        assert losses.total(dict(patient.losses(batch))) < sum(first.values())


def test_losses_are_the_models_own(torchvisions):
    patient = torchvisions.patient()
    batch = patient.first_batches(1)[0]
    with torch.no_grad():
        found, expected = patient.losses(batch), torchvisions.model(*batch)
    assert found == {"loc": expected["bbox_regression"], "conf": expected["classification"]}


def compared(patient, batch):
    """Losses of a patient of torchvision by way of outputs, match and loss, and those of its `forward`."""
    read = patient.read(batch)
    with torch.no_grad():
        parts = patient.loss(*patient.outputs(batch), patient.match(read.boxes, read.labels, patient.priors))
        return parts, patient.losses(batch)


def random_lists(images, generator, sizes=((120, 80), (96, 96), (70, 150))):
    """A batch in torchvision's form: images of several sizes, boxes in their pixels."""
    boxes, labels = scattered(images, 3, generator)
    pixels = [torch.rand(3, *sizes[number % len(sizes)], generator=generator) for number in range(images)]
    scaled = [
        box * torch.tensor([image.shape[2], image.shape[1]] * 2) for box, image in zip(boxes, pixels, strict=True)
    ]
    return pixels, [{"boxes": box, "labels": label} for box, label in zip(scaled, labels, strict=True)]


def test_outputs_match_and_loss_make_up_the_models_losses(torchvisions):
    patient = torchvisions.patient()
    parts, expected = compared(patient, random_lists(6, torch.Generator().manual_seed(0)))
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, **SUMS)


def test_so_they_do_without_objects(torchvisions):
    patient = torchvisions.patient()
    images, targets = random_lists(2, torch.Generator().manual_seed(1))
    targets[0] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    parts, expected = compared(patient, (images, targets))
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, **SUMS)


def test_priors_are_the_models_anchors(torchvisions):
    patient = torchvisions.patient()
    # The same by hand: 4, 6 and 4 shapes on 12, 6 and 3 cells a side.
    torch.testing.assert_close(patient.priors, strangers.prior_boxes(), atol=1e-6, rtol=0)


def decoded_by_torchvision(model, batch):
    """Boxes in fractions, not clipped, as torchvision's coder and anchors make them."""
    images, _ = model.transform(batch[0])
    features = list(model.backbone(images.tensors).values())
    found, corners = model.head(features)["bbox_regression"], model.anchor_generator(images, features)
    side = images.tensors.shape[-1]
    return torch.stack([model.box_coder.decode_single(*pair) for pair in zip(found, corners, strict=True)]) / side


def test_offsets_mean_to_the_library_what_they_mean_to_torchvision(torchvisions):
    patient = torchvisions.patient()
    batch = random_lists(2, torch.Generator().manual_seed(2))
    with torch.no_grad():
        offsets, _ = patient.outputs(batch)
        expected = decoded_by_torchvision(torchvisions.model, batch)
    torch.testing.assert_close(course_boxes.decode(offsets, patient.priors), expected, atol=1e-4, rtol=1e-4)


def same_detections(patient, model, batch):
    with torch.no_grad():
        expected = model.eval()(batch[0])
    model.train()
    for image, found, one in zip(batch[0], patient.detect(batch), expected, strict=True):
        assert found.labels.equal(one["labels"]) and found.scores.equal(one["scores"])
        size = torch.tensor([image.shape[2], image.shape[1]] * 2)
        torch.testing.assert_close(found.boxes * size, one["boxes"], atol=1e-3, rtol=0)  # of 150 pixels
        assert (found.boxes >= 0).all() and (found.boxes <= 1 + 1e-6).all() and len(found.boxes)


def test_detections_are_the_models_own(torchvisions):
    same_detections(torchvisions.patient(), torchvisions.model, random_lists(3, torch.Generator().manual_seed(3)))


def test_a_model_in_evaluation_mode_gives_no_losses(torchvisions):
    patient = torchvisions.patient()
    torchvisions.model.eval()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        patient.losses(patient.first_batches(1)[0])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), objects=st.integers(1, 6))
def test_torchvisions_match_is_ours_but_for_objects_that_want_the_same_prior(seed, objects):
    """Ours gives the best pair its prior first; of torchvision's objects with one best prior the last one keeps it."""
    model, priors = strangers.torchvision_ssd(3), strangers.prior_boxes()
    boxes, labels = scattered(2, objects, torch.Generator().manual_seed(seed))
    theirs, ours = foreign.matched(model, boxes, labels, priors), matching.match(boxes, labels, priors)
    for row in range(2):
        best = box_iou(boxes[row], course_boxes.to_corners(priors)).argmax(dim=1)
        if len(best.unique()) == objects:
            assert theirs.gt_index[row].equal(ours.gt_index[row]) and theirs.labels[row].equal(ours.labels[row])
            positive = ours.labels[row] > 0
            wanted = ours.offsets[row, positive]
            torch.testing.assert_close(theirs.offsets[row, positive], wanted, atol=1e-4, rtol=1e-4)
        else:
            assert all(theirs.gt_index[row, prior] == (best == prior).nonzero().max() for prior in best.tolist())


def test_padding_is_nobodys_and_background_by_name_is_seen():
    model, priors = strangers.torchvision_ssd(3), strangers.prior_boxes()
    boxes = torch.tensor([[[0.1, 0.1, 0.4, 0.4], [0, 0, 0, 0]], [[0.2, 0.2, 0.9, 0.9], [0, 0, 0, 0]]])
    matches = foreign.matched(model, boxes, torch.tensor([[2, 0], [0, 0]]), priors)
    assert (matches.gt_index <= 0).all() and (matches.gt_index == 0).any(dim=1).all()
    assert matches.labels[0].max() == 2 and not matches.labels[1].any()
    assert matches.offsets.isfinite().all()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    objects=st.integers(1, 5),
    variance=st.sampled_from([(0.1, 0.2), (1.0, 1.0)]),
    scale=st.sampled_from([1.0, 300.0]),
)
def test_a_criterion_says_what_it_wants(seed, objects, variance, scale):
    """Also one that matches boxes in pixels with priors in fractions, or leaves the variances out."""
    priors, criterion = strangers.prior_boxes(), strangers.MultiBoxLoss(CLASSES, variance=variance)
    boxes, labels = scattered(3, objects, torch.Generator().manual_seed(seed))
    boxes = boxes * scale
    targets = [torch.cat([box, name[:, None] - 1.0], 1) for box, name in zip(boxes, labels, strict=True)]
    offsets, names = (
        torch.stack(rows) for rows in zip(*(criterion.wanted(one, priors) for one in targets), strict=True)
    )
    asked = foreign.asked(criterion, lambda: CLASSES, boxes, labels, priors)
    assert asked.labels.equal(names)
    positive = names > 0
    torch.testing.assert_close(asked.offsets[positive], offsets[positive], rtol=1e-4, atol=1e-3)
    assert (asked.gt_index >= 0).equal(positive)
    if variance == (0.1, 0.2):
        image = torch.arange(3)[:, None].expand_as(names)
        assert labels[image, asked.gt_index.clamp(min=0)][positive].equal(names[positive])


@pytest.mark.parametrize("distance", ["smooth_l1_loss", "l1_loss", "mse_loss"])
def test_so_does_one_with_another_distance(distance):
    class Another(strangers.MultiBoxLoss):
        def forward(self, predictions, targets):
            loc, conf, priors = predictions
            offsets, names = (
                torch.stack(rows) for rows in zip(*(self.wanted(one, priors) for one in targets), strict=True)
            )
            wrong = getattr(F, distance)(loc[names > 0], offsets[names > 0])
            return wrong, F.cross_entropy(conf.flatten(0, 1), names.flatten())

    priors = strangers.prior_boxes()
    boxes, labels = scattered(2, 3, torch.Generator().manual_seed(4))
    asked = foreign.asked(Another(CLASSES), lambda: CLASSES, boxes, labels, priors)
    ours = matching.match(boxes, labels, priors)
    assert asked.labels.equal(ours.labels)
    positive = ours.labels > 0
    torch.testing.assert_close(asked.offsets[positive], ours.offsets[positive], rtol=1e-3, atol=1e-3)


def test_the_classes_of_an_off_by_one_are_what_the_loss_gets(pytorchs):
    pytorchs.criterion.background = 0
    patient = pytorchs.patient()
    read = patient.read(patient.first_batches(1)[0])
    asked = patient.match(read.boxes, read.labels, patient.priors)
    ours = matching.match(read.boxes, read.labels, patient.priors)
    assert asked.labels.equal((ours.labels - 1).clamp(min=0))


def test_a_criterions_losses_are_those_of_a_straightforward_twin(pytorchs):
    patient = pytorchs.patient()
    batch = patient.first_batches(1)[0]
    with torch.no_grad():
        found = patient.losses(batch)
        read = patient.read(batch)
        ours = losses.MultiBoxLoss()(*patient.outputs(batch), matching.match(read.boxes, read.labels, patient.priors))
    for name, value in ours.items():
        torch.testing.assert_close(found[name], value, **SUMS)


def test_an_adapter_fits_on_a_page():
    for adapter in (foreign.of_torchvision, foreign.of_ssd_pytorch):
        body = inspect.getsource(adapter).rpartition('"""')[2]
        assert len([line for line in body.splitlines() if line.strip()]) <= 30


@pytest.mark.slow
def test_ssd300_vgg16_is_a_patient():
    """Its published priors are clamped and coded in pixels; what it pays and finds is the same in fractions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES, score_thresh=0.25)
    for head in model.head.regression_head.module_list:  # so that boxes are not their priors
        nn.init.normal_(head.bias, std=0.5)
    batch = random_lists(1, torch.Generator().manual_seed(5), sizes=((250, 333),))
    patient = foreign.of_torchvision(model, [batch])
    assert patient.priors.shape == (8732, 4)
    parts, expected = compared(patient, batch)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        offsets, logits = patient.outputs(batch)
        decoded = decoded_by_torchvision(model, batch)
    assert logits.shape == (1, 8732, CLASSES)
    torch.testing.assert_close(course_boxes.decode(offsets, patient.priors), decoded, atol=1e-4, rtol=1e-3)
    same_detections(patient, model, batch)


# Of each fault the checks that should see it, and words of its cause that one of them must say.
FOUND = {
    "x and y exchanged": (
        "boxes-in-batches boxes-are-on-objects-in-batches",
        "x and y exchanged|y before x",
    ),
    "a corner and the size": ("boxes-in-batches", r"\(x, y, width, height\)"),
    "the centre and the size": ("boxes-in-batches", "centre and size"),
    "labels one too low": ("labels-in-batches", "label 0, which is background"),
    "labels beyond the classes": ("labels-in-batches", "labels above 20"),
    "targets of the next image": ("boxes-are-on-objects-in-batches", "has the boxes of image|other pictures"),
    "images mirrored without their boxes": ("boxes-are-on-objects-in-batches", "would be mirrored left to right"),
    "no image has objects": ("batches-have-objects", "no object"),
    "no zero_grad": ("step-is-whole", "zero_grad"),
    "no optimizer.step": ("step-is-whole", "optimizer.step"),
    "only the boxes' loss is used": ("step-is-whole", "heads of the logits, and a step has none"),
    "rate 0": ("rates-teach", "rate"),
    "rate 30": ("rates-teach", "rate"),
    "rate 1e-9": ("rates-teach", "rate"),
    "only the trunk is in the optimizer": ("optimizer-holds-all", "in no group|no group|not in"),
    "another model is in the optimizer": ("optimizer-holds-all", "none of the optimizer's"),
    "evaluation mode": ("step-trains", "evaluation mode"),
    "class heads frozen": ("parameters-learn", "do not learn"),
    "all but the class heads frozen": ("parameters-learn", "do not learn"),
    "NaN in a weight": ("weights-are-sound", "NaN"),
    "boxes in fractions": ("boxes-in-batches", "divided by the image's size once more"),
    "boxes in pixels": ("boxes-in-batches", "in pixels"),
    "images 0 to 255": ("pixels-in-batches", "0 to 255 are due"),
    "images 0 to 1/255": ("pixels-in-batches", "0 to 255 are due"),
    "images 0 to 1 without their mean": ("pixels-in-batches", "0 to 255 are due"),
    "images made smaller without their boxes": ("boxes-in-batches", "outside their image"),
    "priors for an image of 300 pixels": (
        "priors-in-fractions priors-on-the-image heads-and-priors-in-one-order",
        "outside the image|stand",
    ),
    "priors far too small": ("objects-have-priors", "overlap no prior"),
    "priors in another order": ("heads-and-priors-in-one-order outputs-look-where-priors-stand", "order"),
    "priors in pixels": ("priors-in-fractions", "pixels"),
    "no variances": ("matched-offsets", "variances are missing"),
    "background not added": ("matched-labels", "off by one"),
    "no negatives": ("loss-teaches-classes", "background|negative"),
    "all negatives": ("loss-teaches-classes loss-balances-background", "background|negative"),
    "positives at a touch": ("matched-objects", "positive from an IoU of 0.1"),
}
PLANTED = [(kind, fault) for kind, faults in strangers.FAULTS.items() for fault in faults if fault in FOUND]


@pytest.fixture(scope="module")
def many(small_devkit):
    data = voc.ImageDataset([voc.ImageSet(small_devkit / "VOC2007", "trainval")])
    return setups.InMemory(tuple(data[index] for index in range(32)), data.classes)


def made(kind, samples):
    return getattr(strangers, f"of_{kind}")(samples, CLASSES)


@pytest.mark.parametrize(("kind", "fault"), PLANTED)
def test_a_strangers_fault_is_found_and_named(kind, fault, many):
    stranger, (checks, words) = made(kind, many), FOUND[fault]
    strangers.FAULTS[kind][fault](stranger)
    report = examine(stranger.patient(classes=many.classes), only=checks.split())
    said = [f"{one.seen}; {one.why}; {one.cure}" for one in report.of("fault", "warning")]
    assert any(re.search(words, one) for one in said), str(report)


@pytest.mark.parametrize("kind", strangers.FAULTS)
def test_a_healthy_stranger_is_told_of_nothing(kind, many):
    checks = {name for names, _ in FOUND.values() for name in names.split()}
    report = examine(made(kind, many).patient(classes=many.classes), only=checks)
    assert report.healthy, str(report)
    assert not report.not_examined


@pytest.mark.slow
@pytest.mark.parametrize("kind", strangers.FAULTS)
def test_nor_is_one_who_is_examined_in_full(kind, many):
    report = examine(made(kind, many).patient(classes=many.classes))
    assert report.healthy, str(report)
