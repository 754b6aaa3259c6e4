"""What should the class loss be, and of how many negatives? For chapter 7.

Negatives per positive: the hardest one, the hardest three, all. And squared error in place of cross entropy.
Twelve runs of some minutes each; result in experiments/results/class_loss.json.
"""

from dataclasses import dataclass
from typing import ClassVar

from detectors import MULTIBOX, Contestant, compare
from torch import Tensor
from torch.nn import functional as F

from course_lib.losses import MultiBoxLoss, hardest, localisation_loss
from course_lib.matching import Matches

ALL = 1e6  # more negatives per positive than there are priors


@dataclass(frozen=True)
class SquaredError:
    """The multibox loss with squared error of the probabilities where cross entropy should be."""

    neg_pos_ratio: float = 3.0
    scoring: ClassVar[str] = "softmax"

    def __call__(self, offsets: Tensor, logits: Tensor, matches: Matches) -> dict[str, Tensor]:
        positives = matches.labels > 0
        count = positives.sum(dim=1, keepdim=True)
        wanted = F.one_hot(matches.labels, logits.shape[-1])
        error = (logits.softmax(dim=-1) - wanted).square().sum(dim=-1)
        negatives = error.detach().masked_fill(positives, -1.0)
        chosen = positives | hardest(negatives, (count * self.neg_pos_ratio).long())
        normaliser = count.sum().clamp(min=1)
        loc = localisation_loss(offsets, matches.offsets, positives)
        return {"loc": loc / normaliser, "conf": (error * chosen).sum() / normaliser}


def main() -> None:
    compare(
        "class_loss",
        {
            "3-to-1": MULTIBOX,
            "1-to-1": Contestant(MultiBoxLoss(neg_pos_ratio=1.0)),
            "all": Contestant(MultiBoxLoss(neg_pos_ratio=ALL)),
            "squared-error": Contestant(SquaredError()),
        },
    )


if __name__ == "__main__":
    main()
