"""Focal loss against torchvision's."""

import pytest
import torch
from torch.nn.functional import one_hot
from torchvision.ops import sigmoid_focal_loss

from course_lib.losses import FocalLoss, sigmoid_focal
from course_lib.matching import Matches


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.5, 0.0), (0.9, 5.0)])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_focal_loss_and_its_gradient_equal_torchvisions(alpha, gamma, spread):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 21, (3, 500), generator=g) * (torch.rand(3, 500, generator=g) < 0.1)
    logits = (torch.randn(3, 500, 21, generator=g) * spread).double().requires_grad_()
    positives = (labels > 0).sum()

    ours = sigmoid_focal(logits, labels, alpha, gamma).sum() / positives
    targets = one_hot(labels, 21)[..., 1:].double()
    theirs = sigmoid_focal_loss(logits[..., 1:], targets, alpha, gamma, reduction="sum") / positives
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits), rtol=1e-5, atol=1e-12
    )

    offsets = torch.zeros(3, 500, 4)
    loss = FocalLoss(alpha, gamma)(offsets, logits.float(), Matches(labels, offsets, labels - 1))
    # A float32 sum of 30,000 costs: right to about 2e-5 of itself.
    torch.testing.assert_close(loss["conf"].double(), theirs, rtol=1e-4, atol=0)
