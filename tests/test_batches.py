import pytest
import torch

from course_lib.batches import Batch, Target, collate


def test_collate_pads_with_background():
    def sample(count):
        boxes = torch.rand(count, 4)
        labels = torch.arange(1, count + 1)
        target = Target(boxes, labels, torch.ones(count, dtype=torch.bool), f"{count}", (9, 7))
        return torch.zeros(3, 8, 8, dtype=torch.uint8), target

    batch = collate([sample(0), sample(3)])
    assert batch.images.shape == (2, 3, 8, 8) and batch.boxes.shape == (2, 3, 4)
    assert batch.labels.tolist() == [[0, 0, 0], [1, 2, 3]] and batch.boxes[0].sum() == 0
    assert batch.difficult.tolist() == [[False] * 3, [True] * 3]
    assert batch.image_ids == ["0", "3"] and batch.sizes == [(9, 7), (9, 7)]
    assert collate([sample(0)]).boxes.shape == (1, 1, 4)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_parts_are_the_batch_in_its_order(count):
    labels = torch.arange(12).reshape(6, 2)
    names = [f"{index}" for index in range(6)]
    images, boxes = torch.rand(6, 3, 8, 8).mul(255).byte(), torch.rand(6, 2, 4)
    batch = Batch(images, boxes, labels, labels == 0, names, [(9, 7)] * 6)
    parts = batch.parts(count)
    assert len(parts) == count and {len(part.images) for part in parts} == {6 // count}
    for name in ("images", "boxes", "labels", "difficult"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert [name for part in parts for name in part.image_ids] == names
    assert [size for part in parts for size in part.sizes] == batch.sizes
