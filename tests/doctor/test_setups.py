import pytest
import torch
from exhibited import BATCH, first, healthy

from course_lib import ssd
from course_lib.doctor import setups
from course_lib.doctor.patient import Patient


def test_a_healthy_patient_has_every_part_and_a_loss_near_what_knows_nothing(ingredients):
    patient = healthy(ingredients).patient()
    for part in (
        "data",
        "held_out",
        "transform",
        "batches",
        "model",
        "priors",
        "losses",
        "optimizer",
        "step",
        "detect",
    ):
        assert patient.has(part), part
    losses = patient.step(first(patient))
    assert 12 < losses["conf"] < 20 and 2 < losses["loc"] < 8  # 4 ln 21 is 12.2; the hardest negatives cost more


def test_a_pass_over_the_batches_gives_the_same_as_the_one_before(ingredients):
    batches = healthy(ingredients).patient().batches
    assert len(batches) == len(ingredients.data) // BATCH == len(list(batches))
    for one, other in zip(batches, batches, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.boxes, other.boxes)


def test_the_trunk_is_the_trained_ones_and_its_first_blocks_are_frozen(ingredients):
    setup = healthy(ingredients)
    state = setup.model.state_dict()
    assert setup.pretrained and all(torch.equal(state[name], tensor) for name, tensor in setup.pretrained.items())
    assert setup.frozen == tuple(name for name, p in setup.model.named_parameters() if not p.requires_grad)
    assert setup.frozen and all(name.startswith("backbone.to_conv4_3.") for name in setup.frozen)


def test_what_is_pretrained_is_a_copy(ingredients):
    setup = healthy(ingredients)
    next(iter(setup.pretrained.values())).add_(1)
    again = healthy(ingredients)
    assert not torch.equal(next(iter(setup.pretrained.values())), next(iter(again.pretrained.values())))


def test_without_a_trunk_all_is_random_and_nothing_is_frozen(ingredients):
    setup = setups.healthy(ingredients.data, ingredients.held_out)
    assert setup.pretrained is None and setup.frozen == ()
    assert all(parameter.requires_grad for parameter in setup.model.parameters())


def test_a_fresh_model_depends_on_its_seed_alone_and_leaves_torchs_generator_alone():
    heads = []
    for around in (1, 2):
        torch.manual_seed(around)
        before = torch.get_rng_state()
        heads.append(setups.fresh(ssd.ssd_nano, ("a", "b"), seed=3).conf_heads[-1].weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*heads)
    assert not torch.equal(heads[0], setups.fresh(ssd.ssd_nano, ("a", "b"), seed=4).conf_heads[-1].weight)


def test_a_set_up_that_adopts_another_model_takes_its_priors_and_size(ingredients):
    setup = healthy(ingredients)
    setup.adopt(setups.fresh(ssd.ssd_mini, setup.classes))
    patient = setup.patient()
    assert first(patient).images.shape[-1] == 160
    assert patient.priors is setup.model.priors and len(setup.frozen) > 0
    assert {id(p) for group in patient.optimizer.param_groups for p in group["params"]} <= {
        id(p) for p in setup.model.parameters()
    }


def test_parts_that_are_made_last_see_the_finished_patient(ingredients):
    setup = healthy(ingredients)
    setup.further["steps"] = 7
    setup.made_last["step"] = lambda patient: lambda batch: patient.steps
    patient = setup.patient()
    assert isinstance(patient, Patient) and patient.step(None) == 7


@pytest.mark.parametrize("images", [0, 3, 1000])
def test_so_many_images_are_read_into_memory_as_there_are(ingredients, images):
    held = setups.in_memory(ingredients.data, images)
    assert len(held) == min(images, len(ingredients.data)) and held.classes == ingredients.data.classes


def test_a_change_behind_a_transform_passes_the_seed_on(ingredients):
    transform = setups.Then(healthy(ingredients).transform, lambda image, target: (255 - image, target))
    results = []
    for _ in range(2):
        transform.seed(5)
        results.append(transform(*ingredients.data[0])[0])
    assert torch.equal(*results)
