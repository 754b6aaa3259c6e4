import torch

from course_lib import augment
from course_lib.loaders import Augmented, Shuffled
from course_lib.voc import VOCDetection


def test_the_order_depends_on_seed_and_epoch_alone_and_leaves_out_less_than_a_batch():
    a, b = Shuffled(10, 4, seed=1), Shuffled(10, 4, seed=1)
    assert list(a) == list(b) and len(a) == len(list(a)) == 8
    a.epoch = 1
    assert [index for _, index in a] != [index for _, index in b] and {epoch for epoch, _ in a} == {1}
    assert list(Shuffled(10, 4, seed=2)) != list(b)


def test_a_sample_depends_on_its_key_and_the_seed_and_not_on_who_makes_it(small_devkit):
    dataset = VOCDetection(small_devkit, "2007", "train")
    data = Augmented(dataset, augment.training_mini(64), 7)
    keys = [(0, 3), (1, 3), (0, 4)]
    first = [data[key][0] for key in keys]
    loader = torch.utils.data.DataLoader(
        Augmented(dataset, augment.training_mini(64), 7), None, sampler=keys[::-1], num_workers=2
    )
    for image, (again, _) in zip(first[::-1], loader, strict=True):
        assert torch.equal(image, again)
    assert len({image.numpy().tobytes() for image in first}) == 3
