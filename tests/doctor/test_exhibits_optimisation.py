import pytest
import torch
from exhibited import BATCH, check_symptom, first, healthy, ill

from course_lib.doctor import exhibits_optimisation
from course_lib.losses import total


def rates(patient, steps):
    """The rate of the last group at each of the first steps of the schedule; no weight moves."""
    found = []
    for _ in range(steps):
        found.append(patient.optimizer.param_groups[-1]["lr"])
        patient.optimizer.step()  # without a gradient: torch warns of a schedule that goes ahead of its optimizer
        patient.schedule.step()
    return found


def stand_still(patient):
    """Let no weight move, so that every step computes the same."""
    patient.schedule, patient.clip_norm = None, None
    for group in patient.optimizer.param_groups:
        group["lr"] = 0.0


def known_to(optimizer):
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def gradients_never_cleared(well, sick):
    for one, factor in ((well, 1.0), (sick, 2.0)):
        stand_still(one)
        lengths = []
        for _ in range(2):
            one.step(first(one))
            lengths.append(one.model.loc_heads[0].weight.grad.norm().item())
        assert lengths[1] == pytest.approx(factor * lengths[0], rel=0.02)


def gradients_cleared_too_early(well, sick):
    for one, moves in ((well, True), (sick, False)):
        before = one.model.loc_heads[0].bias.detach().clone()
        one.step(first(one))
        assert torch.equal(before, one.model.loc_heads[0].bias) != moves


def each_variable_clipped(well, sick):
    for one in (well, sick):
        one.clip_norm = None
        one.step(first(one))
    ours, theirs = (
        torch.stack([p.grad.norm() for p in one.model.parameters() if p.grad is not None]) for one in (well, sick)
    )
    assert ours.max() > 1.5 and theirs.max() < 1.001
    assert (ours / theirs).max() > 1.5 * (ours / theirs).min(), "the direction is another"


def plateau_of_batches(well, sick):
    start = sick.optimizer.param_groups[-1]["lr"]
    sick.losses = lambda batch: {"loc": 1.0 + 0 * sick.model.loc_heads[0].bias.sum()}
    for _ in range(10):
        sick.step(first(sick))
    assert sick.optimizer.param_groups[-1]["lr"] < start / 50


def optimizer_of_another_model(well, sick):
    assert not known_to(sick.optimizer) & {id(parameter) for parameter in sick.model.parameters()}


def heads_replaced_later(well, sick):
    heads = {id(parameter) for parameter in sick.model.conf_heads.parameters()}
    assert not known_to(sick.optimizer) & heads
    assert known_to(sick.optimizer) & {id(parameter) for parameter in sick.model.loc_heads.parameters()}


def frozen_up_to_conv4_3(well, sick):
    frozen = {name for name, parameter in sick.model.named_parameters() if not parameter.requires_grad}
    assert frozen > set(sick.frozen)
    assert [len(group["params"]) > 0 for group in sick.optimizer.param_groups] == [False, True]


def random_and_frozen(well, sick):
    assert not any(parameter.requires_grad for parameter in sick.model.backbone.blocks()[-1].parameters())
    name, kernel = next((n, t) for n, t in well.pretrained.items() if t.ndim == 4)
    assert sick.pretrained is None and not torch.equal(sick.model.state_dict()[name], kernel)


def decay_on_everything(well, sick):
    def decaying(patient):
        groups = patient.optimizer.param_groups
        return any(p.ndim == 1 for group in groups if group["weight_decay"] for p in group["params"])

    assert decaying(sick) and not decaying(well)


def rate_too_high(well, sick):
    """The second step is of the same batch, and costs many times the first."""
    costs = [sum(sick.step(first(sick)).values()) for _ in range(2)]
    assert not costs[1] < 10 * costs[0]


def rate_too_low(well, sick):
    assert max(group["initial_lr"] for group in sick.optimizer.param_groups) <= 1e-5
    assert max(rates(sick, 40)) <= 1e-5


def first_epoch_at_rate_0(well, sick):
    epoch = len(sick.data) // BATCH
    found = rates(sick, 2 * epoch)
    assert found[:epoch] == [0.0] * epoch and min(found[epoch:]) > 0
    assert min(rates(well, 2 * epoch)) > 0


def drops_by_step(well, sick):
    found = rates(sick, 51)
    assert found[50] < found[0] / 9e4


def cosine_by_step(well, sick):
    period = 2 * exhibits_optimisation.RECIPE.epochs
    found = rates(sick, period + 1)
    assert min(found) < found[0] / 100
    assert found[period] == pytest.approx(found[0], rel=0.01)


def clipping_hides_the_sum(well, sick):
    total(dict(sick.losses(first(sick)))).backward()
    norm = torch.nn.utils.clip_grad_norm_(sick.model.parameters(), sick.clip_norm)
    assert norm > 100 * sick.clip_norm


SYMPTOMS = {
    name.replace("_", "-"): globals()[name]
    for name in dir()
    if name.replace("_", "-") in exhibits_optimisation.EXHIBITS
}


@pytest.mark.parametrize("name", exhibits_optimisation.EXHIBITS)
def test_a_short_measurement_shows_the_symptom(ingredients, name):
    check_symptom(SYMPTOMS, name, ingredients)


def test_the_parts_of_a_step_put_together_rightly_are_the_usual_step(ingredients):
    """What the steps are spoiled from."""
    ours, usual = healthy(ingredients), healthy(ingredients)

    def step(patient, batch):
        patient.optimizer.zero_grad()
        parts = exhibits_optimisation.backward(patient, batch)
        exhibits_optimisation.improve(patient)
        return parts

    exhibits_optimisation.own_step(ours, step)
    ours, usual = ours.patient(), usual.patient()
    for one in (ours, usual):
        one.step(first(one))
    for name, tensor in ours.model.state_dict().items():
        torch.testing.assert_close(tensor, usual.model.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_step_of_its_own_is_the_finished_patients(ingredients):
    patient = ill(ingredients, "gradients-never-cleared").patient()
    assert patient.step is not None and patient.step != patient.usual_step
