"""The bug museum: faults that people have shipped, each planted in an otherwise healthy training."""

from dataclasses import replace

from course_lib.doctor import (
    exhibits_data,
    exhibits_detection,
    exhibits_loss,
    exhibits_matching,
    exhibits_model,
    exhibits_optimisation,
)
from course_lib.doctor.setups import Exhibit as Exhibit
from course_lib.doctor.setups import Setup as Setup
from course_lib.doctor.setups import healthy as healthy
from course_lib.doctor.setups import in_memory as in_memory

ROOMS = (
    exhibits_data,
    exhibits_matching,
    exhibits_model,
    exhibits_loss,
    exhibits_optimisation,
    exhibits_detection,
)
# By which checks each exhibit is caught: their findings name its cause. `tests/doctor/test_matrix.py` holds them to it.
CAUGHT_BY = {
    "pixels-in-annotations": ("boxes-are-corners-in-fractions",),
    "centre-size-as-corners": ("boxes-are-corners-in-fractions",),
    "minima-first": ("boxes-are-corners-in-fractions",),
    "one-less-once-more": ("boxes-are-sound",),
    "dragged-to-the-left": ("boxes-are-sound",),
    "labels-from-zero": ("labels-are-classes",),
    "divided-by-255": ("pixels-are-normalised-as-the-weights-expect",),
    "normalised-with-other-units": ("pixels-are-normalised-as-the-weights-expect",),
    "empty-image-crashes": (
        "share-of-objects-lost",
        "batches-can-be-made",
    ),
    "mirrored-inside-out": (
        "boxes-stay-on-their-objects",
        "boxes-in-batches",
    ),
    "crop-larger-than-the-image": ("transform-works",),
    "same-augmentation": ("random-numbers-move-on",),
    "measured-on-training-images": ("held-out-images-are-not-learned-from",),
    "priors-in-pixels": ("priors-in-fractions",),
    "objects-written-at-once": ("matched-objects",),
    "no-encoding": ("matched-offsets",),
    "corners-clipped": ("priors-on-the-image",),
    "ratios-both-ways": ("priors-on-the-image",),
    "columns-for-rows": (
        "heads-and-priors-in-one-order",
        "outputs-look-where-priors-stand",
    ),
    "pools-round-down": ("priors-on-the-image",),
    "trunk-left-random": ("pretrained-is-there",),
    "fc-not-a-number": (
        "weights-are-sound",
        "pretrained-is-there",
    ),
    "heads-flattened-as-they-lie": (
        "heads-and-priors-in-one-order",
        "outputs-look-where-priors-stand",
    ),
    "softmax-twice": ("outputs-are-raw",),
    "no-l2-norm": ("pretrained-is-there",),
    "left-in-evaluation-mode": ("step-trains",),
    "background-not-counted": (
        "names-of-classes",
        "outputs-fit",
    ),
    "trunk-without-graph": ("gradients-reach-all",),
    "squares-of-classes": (
        "loss-teaches-classes",
        "loss-is-normalised",
    ),
    "easiest-negatives": ("loss-teaches-classes",),
    "positives-compete": ("loss-teaches-classes",),
    "not-divided": ("loss-is-normalised",),
    "divided-by-none": ("first-loss",),
    "label-for-yes": ("loss-rewards-the-right-class",),
    "gradients-cleared-too-early": ("step-is-whole",),
    "heads-replaced-later": ("optimizer-holds-all",),
    "random-and-frozen": ("parameters-learn",),
    "rate-too-high": ("rates-teach",),
    "first-epoch-at-rate-0": ("schedule-teaches",),
    "cosine-by-step": ("schedule-teaches",),
    "decoded-without-variances": ("detections-undo-the-match",),
    "detects-in-training-mode": ("detect-evaluates",),
    "a-column-off": ("detections-undo-the-match",),
    "xywh-as-corners": ("boxes-are-corners-in-fractions",),
    "x-and-y-exchanged": ("boxes-are-on-objects",),
    "width-for-height": ("boxes-are-corners-in-fractions",),
    "no-area": ("boxes-are-sound",),
    "saved-twice": ("objects-are-listed-once",),
    "fed-blue-first": ("pixels-are-normalised-as-the-weights-expect",),
    "normalised-twice": ("pixels-are-normalised-as-the-weights-expect",),
    "targets-of-others": ("images-are-those-of-their-targets",),
    "image-mirrored-alone": ("boxes-stay-on-their-objects",),
    "labels-left-behind": ("labels-stay-with-their-boxes",),
    "same-in-every-worker": ("augmentation-differs",),
    "pixels-against-fractions": (
        "boxes-in-batches",
        "boxes-stay-on-their-objects",
    ),
    "objects-share-priors": ("matched-objects",),
    "no-variances": ("matched-offsets",),
    "one-added-again": ("matched-labels",),
    "numbers-clamped": ("priors-on-the-image",),
    "all-squares": ("priors-on-the-image",),
    "priors-of-another-network": ("outputs-fit",),
    "two-heads-at-one-stride": ("priors-on-the-image",),
    "fc-left-random": ("pretrained-is-there",),
    "coarsest-first": (
        "heads-and-priors-in-one-order",
        "outputs-look-where-priors-stand",
    ),
    "dummy-forward": ("batch-norm-statistics",),
    "one-image-at-a-time": ("batch-norm-has-batches",),
    "heads-in-a-list": ("parameters-learn",),
    "focal-without-prior": ("loss-balances-background",),
    "positives-overwritten": ("loss-teaches-classes",),
    "mean-of-four": ("loss-survives",),
    "constant-without-graph": ("first-loss",),
    "class-loss-detached": (
        "first-loss",
        "gradients-reach-all",
    ),
    "gradients-never-cleared": ("step-is-whole",),
    "optimizer-of-another-model": ("optimizer-holds-all",),
    "frozen-up-to-conv4-3": (
        "parameters-learn",
        "optimizer-holds-all",
    ),
    "decay-on-everything": ("decay-spares-norms",),
    "drops-by-step": ("schedule-teaches",),
    "clipping-hides-the-sum": ("loss-is-normalised",),
    "read-by-another-rule": ("detection-scores-as-the-loss-does",),
    "l2-norm-in-the-trunk": ("maps-are-those-that-statistics-know",),
    "weights-as-a-vector": ("first-loss",),
    "no-suppression": ("detections-undo-the-match",),
    "one-suppression-for-all": ("classes-keep-their-boxes",),
    "each-variable-clipped": ("step-is-whole",),
    "plateau-of-batches": ("step-is-whole",),
    "rate-too-low": ("learning-rate-range",),
    "other-pixels-at-detection": ("detection-sees-the-same-pixels",),
    "found-in-pixels": ("detections-undo-the-match",),
}

# What no check finds, and why.
NOT_CAUGHT = {
    "crop-that-fits-all": "its pictures, boxes and labels are those of a milder crop",
    "blue-first": "all pictures are read alike, so that only weights that have learned red could tell",
    "other-order-of-names": "labels that are exchanged in all data are other classes, and nothing else",
    "no-dilation": "a network that sees less far is another network",
}

EXHIBITS: dict[str, Exhibit] = {
    name: replace(exhibit, caught_by=CAUGHT_BY.get(name, ()))
    for room in ROOMS
    for name, exhibit in room.EXHIBITS.items()
}
