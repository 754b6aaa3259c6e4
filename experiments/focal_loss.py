"""Focal loss or hard negatives, at equal budget? Does focal loss need its start? Does its focus help? For chapter 8.

Runs of some minutes each, of which those with the multibox loss are shared with class_loss.py; result in
experiments/results/focal_loss.json.
"""

from detectors import MULTIBOX, Contestant, compare

from course_lib.losses import FocalLoss, SoftmaxFocalLoss, expect_background


def main() -> None:
    compare(
        "focal_loss",
        {
            "focal": Contestant(FocalLoss(), expect_background),
            "softmax-focal": Contestant(SoftmaxFocalLoss(), expect_background),
            "focal-from-zero": Contestant(FocalLoss()),
            # Cross entropy over all priors, halved.
            "no-focus": Contestant(SoftmaxFocalLoss(alpha=0.5, gamma=0.0), expect_background),
            "3-to-1": MULTIBOX,
        },
    )


if __name__ == "__main__":
    main()
