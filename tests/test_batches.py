import torch

from course_lib.batches import Target, collate


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
