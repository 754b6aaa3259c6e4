import pytest
import torch
from exhibited import check_symptom, first, healthy, loss_of, matched, reaching
from torch import nn

from course_lib.doctor import exhibits_model
from course_lib.losses import total


def unlike_pretrained(patient):
    """The names of the kernels of the trunk that are not those that it was meant to start with."""
    state = patient.model.state_dict()
    return [
        name for name, tensor in patient.pretrained.items() if tensor.ndim == 4 and not torch.equal(state[name], tensor)
    ]


def outputs_of(patient):
    patient.model.eval()
    with torch.no_grad():
        return patient.outputs(first(patient))


def trunk_left_random(well, sick):
    kernels = [name for name, tensor in sick.pretrained.items() if tensor.ndim == 4]
    assert unlike_pretrained(sick) == kernels and unlike_pretrained(well) == []


def fc_left_random(well, sick):
    assert unlike_pretrained(sick) == exhibits_model.last_of_trunk(sick.model)


def fc_not_a_number(well, sick):
    assert not outputs_of(sick)[1].isfinite().all()


def no_dilation(well, sick):
    """How far fc6 looks: the cells of its input that one cell of its output depends on."""

    def reach(patient):
        fc6 = [layer for layer in patient.model.backbone.to_fc7 if isinstance(layer, nn.Conv2d)][-2]
        x = torch.ones(1, fc6.in_channels, 9, 9, requires_grad=True)
        fc6(x)[0, :, 4, 4].abs().sum().backward()
        return (x.grad.abs().sum(dim=(0, 1)).sum(dim=0) > 0).nonzero().flatten().tolist()

    assert reach(well) == [1, 4, 7] and reach(sick) == [3, 4, 5]


def heads_flattened_as_they_lie(well, sick):
    for ours, theirs in zip(outputs_of(well), outputs_of(sick), strict=True):
        torch.testing.assert_close(theirs.flatten().sort()[0], ours.flatten().sort()[0], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(theirs, ours, atol=1e-3)


def coarsest_first(well, sick):
    last = sick.model.spec.per_cell[-1]
    for ours, theirs in zip(outputs_of(well), outputs_of(sick), strict=True):
        torch.testing.assert_close(theirs[:, :last], ours[:, -last:], rtol=1e-4, atol=1e-4)


def softmax_twice(well, sick):
    logits = outputs_of(sick)[1]
    torch.testing.assert_close(logits.sum(dim=-1), torch.ones(logits.shape[:2]), rtol=0, atol=1e-4)


def l2_norm_in_the_trunk(well, sick):
    def lengths(patient):
        return reaching(patient, patient.model.backbone.to_fc7, patient.outputs).norm(dim=1)

    assert lengths(sick).std() < lengths(well).std()


def no_l2_norm(well, sick):
    def loudness(patient):
        logits, finest = outputs_of(patient)[1], 12 * 12 * 4
        return logits[:, :finest].std() / logits[:, finest:].std()

    assert loudness(sick) > 5 * loudness(well)


def dummy_forward(well, sick):
    def moved(patient):
        state = patient.model.state_dict()
        means = [name for name in patient.pretrained if name.endswith("running_mean") and name not in patient.frozen]
        return sum(not torch.equal(state[name], patient.pretrained[name]) for name in means)

    assert moved(well) == 0 < moved(sick)


def left_in_evaluation_mode(well, sick):
    norms = [layer for layer in sick.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    sick.step(first(sick))
    assert not any(layer.training for layer in norms)
    assert norms[-1].num_batches_tracked == 0


def one_image_at_a_time(well, sick):
    assert len(first(sick).images) == 1
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        loss_of(sick)


def background_not_counted(well, sick):
    columns, last = sick.model.num_classes, len(sick.classes)
    assert columns == last
    with pytest.raises(IndexError):
        sick.loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, columns), matched(last, 0, 0, 0))


def heads_in_a_list(well, sick):
    lost = len(list(well.model.parameters())) - len(list(sick.model.parameters()))
    assert lost == 2 * len(sick.model.conf_heads)
    assert not any(name.startswith("conf_heads") for name in sick.model.state_dict())


def trunk_without_graph(well, sick):
    for one, reached in ((well, True), (sick, False)):
        total(dict(one.losses(first(one)))).backward()
        taught = [p for p in one.model.backbone.to_fc7.parameters() if p.requires_grad]
        assert taught and all((p.grad is not None) == reached for p in taught)


SYMPTOMS = {
    name.replace("_", "-"): globals()[name] for name in dir() if name.replace("_", "-") in exhibits_model.EXHIBITS
}


@pytest.mark.parametrize("name", exhibits_model.EXHIBITS)
def test_a_short_measurement_shows_the_symptom(ingredients, name):
    check_symptom(SYMPTOMS, name, ingredients)


def test_a_louder_conv4_3_changes_nothing_as_long_as_l2_norm_is_there(ingredients):
    """Convolutions, ReLU and pools pass a factor on: fc7 divides by it."""
    setup = healthy(ingredients)
    before = outputs_of(setup.patient())
    exhibits_model.louder_conv4_3(setup)
    for ours, theirs in zip(before, outputs_of(setup.patient()), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-3)
