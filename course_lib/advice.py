"""Advice, measured: every piece of advice of five pages as a question, the queue that answers it, and the answers.

The pages are those that people find when their detector stands still: `PAGES`. What they advise is told here in our
own words; what each arm of a question changes stands in `arms`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from statistics import fmean, stdev

from course_lib import trials
from course_lib.arms import ARMS, RARE, RATES, Arm
from course_lib.effects import Effect, paired, surely

PAGES = {
    1: "Why is my PyTorch SSD model with VGG16 failing to learn?",
    2: "Why is object detection model training failing to progress without error messages?",
    3: "Why isn't my PyTorch VGG model converging on CIFAR-10?",
    4: "Why is TensorFlow SSD-MobileNet-V2 training stagnating?",
    5: "Finishing SSD Model and Training",
}
FAMILIES = ("rate", "optimiser", "data", "rare classes", "augmentation", "network", "loss", "duration")
MEASURES = ("map", "rare", "frequent", "map_by_loss", "map_by_map", "accuracy")

SEEDS, MORE_SEEDS = (0, 1, 2), (3, 4)
SCAN_SEEDS = (100, 101)  # that choose a rate; nothing else is measured with them
WIDE = 0.02  # of mAP: half an interval that is wider than this, and than its effect, is worth more seeds


@dataclass(frozen=True)
class Question:
    """A piece of advice as a question.

    Attributes:
        name: of the question.
        family: of `FAMILIES`.
        asks: what is asked, in a sentence.
        sources: the page, and what it says there, in our words.
        arms: names of `ARMS`, or of another experiment's runs, each compared with `against`.
        against: the arm that they are compared with.
        measure: of `MEASURES`: mAP, the mean over rare or over frequent classes, the mAP of the moment that was
            chosen by held-out loss or by held-out mAP, or a classifier's accuracy.
        usual: the measure of `against`, where it is another.
        labels: what arms are called that `ARMS` does not know.
    """

    name: str
    family: str
    asks: str
    sources: Mapping[int, str]
    arms: tuple[str, ...]
    against: str = "baseline"
    measure: str = "map"
    usual: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


AGAINST_IMBALANCE = ("imbalanced-weighted", "imbalanced-oversampled", "imbalanced-focal", "imbalanced-not-augmented")
IMBALANCE_SAYS = {
    1: "many more images of one class hinder training; augment, or weigh the loss by class frequency",
    2: "imbalance is the most frequent offender: the model fits the majority; augment the minority",
    4: "the model prefers majority classes and neglects the others; give rare classes weights in the loss",
    5: "focal loss handles class imbalance better",
}
PUBLISHED = ("page-cyclical", "page-plateau-of-batches", "page-plateau", "page-adam", "page-clipping")

QUESTIONS = (
    Question(
        "rate-too-high",
        "rate",
        "What does a rate cost that is three, ten or thirty times too high?",
        {1: "too high oscillates and diverges", 2: "too high oscillates", 3: "too high overshoots", 4: "too high"},
        ("rate-3", "rate-10", "rate-30"),
    ),
    Question(
        "rate-too-low",
        "rate",
        "What does a rate cost that is three, ten or thirty times too low?",
        {1: "too low stalls", 2: "too low seems to stall", 3: "too low is slow or stuck", 4: "too low looks stagnant"},
        ("rate-third", "rate-tenth", "rate-thirtieth"),
    ),
    Question(
        "simple-schedules",
        "rate",
        "Is a rate that stays, or drops twice to a tenth, worse than warmup and cosine?",
        {5: "a better rate strategy: lower at first, then warmup and cosine"},
        ("constant", "step-drops"),
    ),
    Question(
        "staircase",
        "rate",
        "Does an exponential staircase do better than a cosine?",
        {4: "decay in stairs prevents oscillation early and adjusts finely late"},
        ("staircase",),
    ),
    Question(
        "cyclical",
        "rate",
        "Does a cyclical rate (triangular2) do better?",
        {1: "cyclical schedules were very effective", 3: "a cyclical schedule brings significant improvement"},
        ("triangular2",),
    ),
    Question(
        "plateau",
        "rate",
        "Does it help to lower the rate when the held-out loss falls no more?",
        {3: "reduce on plateau of the validation loss: significant improvement"},
        ("plateau",),
    ),
    Question(
        "plateau-of-batches",
        "rate",
        "And when a single batch's loss is no better, as the snippet has it?",
        {2: "step the plateau scheduler with the loss: it escapes local minima"},
        ("plateau-of-batches",),
    ),
    Question("warmup", "rate", "Is warmup needed?", {5: "start with lower rates: a warmup"}, ("no-warmup",)),
    Question(
        "warmup-at-3",
        "rate",
        "Is it needed at three times the rate?",
        {5: "start with lower rates: more stable"},
        ("rate-3-no-warmup",),
        against="rate-3",
    ),
    Question(
        "warmup-at-10",
        "rate",
        "And at ten times the rate?",
        {5: "start with lower rates: more stable"},
        ("rate-10-no-warmup",),
        against="rate-10",
    ),
    Question(
        "as-published",
        "rate",
        "What are the snippets' own optimizers and schedules worth, with their numbers?",
        {
            1: "AdamW at 1e-4, cycling between 1e-5 and 1e-3 within 4000 steps",
            2: "AdamW at 1e-3 with decay 1e-4, plateau stepped with the loss at hand",
            3: "Adam at 1e-3, plateau on validation with patience 5",
            4: "Adam at 1e-3, multiplied by .96 every 10,000 steps; Adam at 1e-3 with clipnorm 1",
        },
        PUBLISHED,
    ),
    Question(
        "optimizers",
        "optimiser",
        "Which optimizer is best, each at the rate that its own scan chose?",
        {
            1: "AdamW is the default, SGD with momentum may be superior",
            3: "Adam is popular, SGD with momentum can be more effective",
            4: "RMSprop or SGD with momentum may suit better than Adam",
        },
        ("adam", "rmsprop", "sgd-0.9"),
        against="adamw",
    ),
    Question(
        "optimizers-not-augmented",
        "optimiser",
        "Is SGD the better choice where there is little augmentation?",
        {3: "SGD is robust, which is an advantage with limited augmentation"},
        ("sgd-not-augmented",),
        against="adamw-not-augmented",
    ),
    Question(
        "momentum",
        "optimiser",
        "Which momentum does SGD need?",
        {2: "a wrong momentum hinders convergence", 3: "momentum escapes shallow minima"},
        ("sgd-0", "sgd-0.99"),
        against="sgd-0.9",
    ),
    Question(
        "weight-decay",
        "optimiser",
        "How much does weight decay matter?",
        {2: "a wrong weight decay hinders convergence", 4: "untuned weight decay contributes to stagnation"},
        ("decay-0", "decay-10", "decay-100"),
    ),
    Question(
        "batch-size",
        "optimiser",
        "Which batch size is best at the same rate and as many images?",
        {
            1: "larger is faster and less stable, smaller is steadier and needs more iterations",
            2: "very small is noisy, very large causes problems too",
            4: "small batches are noisy and slow, large ones converge too early",
        },
        ("batch-4", "batch-8", "batch-32", "batch-64"),
    ),
    Question(
        "batch-size-scaled",
        "optimiser",
        "And where the rate grows with the batch?",
        {1: "batch size and rate both matter", 2: "the balance is crucial"},
        ("batch-4-scaled", "batch-8-scaled", "batch-32-scaled", "batch-64-scaled"),
    ),
    Question(
        "clipping",
        "optimiser",
        "Does clipping the gradient stabilise? All together at 1, or not at all, in place of at 10?",
        {4: "clipping keeps large gradients from disrupting training"},
        ("not-clipped", "clipped-1"),
    ),
    Question(
        "clipping-by-parameter",
        "optimiser",
        "Is clipping each parameter by itself the same?",
        {4: "clipnorm=1 in the optimizer, which clips each variable"},
        ("clipped-by-parameter",),
        against="clipped-1",
    ),
    Question(
        "bf16",
        "optimiser",
        "Do sixteen bits cost accuracy?",
        {5: "mixed precision to train faster with less memory"},
        ("bf16",),
    ),
    Question(
        "images",
        "data",
        "How much do fewer images cost, and what are three times as many worth?",
        {
            1: "a few hundred are inadequate: several thousand at least",
            4: "too little data is the most common culprit: the model overfits",
        },
        ("images-tenth", "images-quarter", "images-half", "images-3"),
    ),
    Question(
        "inaccurate-boxes",
        "data",
        "How accurate must boxes be?",
        {1: "inaccurate boxes severely hinder", 2: "poor boxes are noise", 4: "imprecise boxes hinder learning"},
        ("boxes-5", "boxes-20", "boxes-40"),
    ),
    Question(
        "wrong-labels",
        "data",
        "What do wrong labels cost?",
        {1: "inconsistent labels severely hinder", 2: "wrong labels keep features from being learned"},
        ("labels-5", "labels-20", "labels-40"),
    ),
    Question(
        "missing-objects",
        "data",
        "What do objects cost that nobody annotated?",
        {2: "look for annotations that are missing"},
        ("missing-5", "missing-20", "missing-40"),
    ),
    Question(
        "imbalance-rare",
        "rare classes",
        "What do classes lose that are ten times rarer?",
        IMBALANCE_SAYS,
        ("imbalanced",),
        measure="rare",
    ),
    Question(
        "imbalance-frequent",
        "rare classes",
        "Do the other classes gain by it?",
        IMBALANCE_SAYS,
        ("imbalanced",),
        measure="frequent",
    ),
    Question(
        "remedies-rare",
        "rare classes",
        "Which remedy helps rare classes?",
        IMBALANCE_SAYS,
        AGAINST_IMBALANCE,
        against="imbalanced",
        measure="rare",
    ),
    Question(
        "remedies-frequent",
        "rare classes",
        "What do the remedies cost the frequent classes?",
        IMBALANCE_SAYS,
        AGAINST_IMBALANCE,
        against="imbalanced",
        measure="frequent",
    ),
    Question(
        "augmentation",
        "augmentation",
        "What is the usual augmentation worth, and do all transforms together do better?",
        {3: "without augmentation the model learns the training set by heart", 4: "diverse data"},
        ("not-augmented", "all-transforms"),
    ),
    Question(
        "each-transform",
        "augmentation",
        "What is each transform worth by itself?",
        {
            2: "flips, rotation, light and crops diversify the data",
            3: "cropping and flipping are not enough: add colour jitter, rotation and erasing",
        },
        tuple(name for name in ARMS if name.startswith("only-")),
        against="not-augmented",
    ),
    Question(
        "shadow-noise-blur",
        "augmentation",
        "Do shadows, noise and blur add anything?",
        {5: "random shadows, Gaussian noise and blur to generalise better"},
        ("shadow-noise-blur",),
    ),
    Question(
        "page-transforms",
        "augmentation",
        "Is the page's own list as good as the usual one?",
        {2: "Flip, Rotate(15), RandomBrightnessContrast, RandomCrop"},
        ("page-transforms",),
    ),
    Question(
        "freezing",
        "network",
        "How much of a taught trunk should be frozen?",
        {5: "the published code freezes ten layers"},
        ("frozen-0", "frozen-2", "frozen-5"),
    ),
    Question(
        "random-trunk",
        "network",
        "What is a taught trunk worth?",
        {1: "VGG16 needs much data", 4: "the lack of data is what stagnates"},
        ("untaught",),
    ),
    Question(
        "random-trunk-longer",
        "network",
        "Does four times the training make up for it?",
        {1: "VGG16 needs much data"},
        ("untaught-4",),
    ),
    Question(
        "smaller-trunk",
        "network",
        "What does a smaller VGG cost, where none is taught?",
        {1: "use a smaller VGG where resources are short", 4: "a shallow network learns fewer features"},
        ("untaught-narrow", "untaught-shallow"),
        against="untaught",
    ),
    Question(
        "extra-layers",
        "network",
        "Does the width of the extra layers matter?",
        {5: "channels of 1024, 512 and 256 in place of 256 throughout: better features across scales"},
        ("extras-half", "extras-double"),
    ),
    Question(
        "map-sizes",
        "network",
        "Do two maps of one size balance resolution and receptive field better?",
        {5: "maps of 37, 18, 18, 9, 5, 2 in place of 38, 19, 10, 5, 3, 1"},
        ("two-heads-at-one-stride",),
    ),
    Question(
        "dropout",
        "network",
        "Does dropout before the heads help?",
        {4: "untuned dropout contributes to stagnation"},
        ("dropout-10", "dropout-50"),
    ),
    Question(
        "initialisation",
        "network",
        "Does it matter how the heads are initialised?",
        {1: "proper initialisation has a profound impact", 3: "He or Xavier initialisation is essential"},
        ("heads-he", "heads-torch"),
    ),
    Question(
        "normalisation",
        "network",
        "Do another data set's mean and deviation hurt a trunk that knows others?",
        {3: "Normalize with CIFAR-10's numbers"},
        ("cifar-constants",),
    ),
    Question(
        "squared-error",
        "loss",
        "What does squared error cost in place of cross entropy?",
        {1: "mean squared error for classes can derail training"},
        ("squares", "squares-mined"),
    ),
    Question(
        "focal",
        "loss",
        "Is focal loss better than hard negatives?",
        {5: "focal loss: significantly better"},
        ("focal", "softmax-focal"),
    ),
    Question(
        "hard-negatives",
        "loss",
        "How many negatives a positive?",
        {1: "verify the loss", 5: "imbalance is what focal loss is for"},
        ("negatives-1", "negatives-10", "negatives-all"),
    ),
    Question(
        "longer",
        "duration",
        "What are twice and four times the steps worth?",
        {5: "35 to 100 epochs: more stable, better on hard objects"},
        ("lasting-2", "lasting-4"),
    ),
    Question(
        "stopped-by-loss",
        "duration",
        "Is the moment of the lowest held-out loss better than the last?",
        {5: "early stopping and the best checkpoint, by validation loss"},
        ("overfitting",),
        against="overfitting",
        measure="map_by_loss",
        usual="map",
    ),
    Question(
        "stopped-by-map",
        "duration",
        "Is the moment of the highest held-out mAP better than the last?",
        {5: "early stopping and the best checkpoint"},
        ("overfitting",),
        against="overfitting",
        measure="map_by_map",
        usual="map",
    ),
)

# What the pages say besides: page, in our words, and where it is answered.
ELSEWHERE = (
    (1, "load with several worker processes", "below: what workers are worth, in time"),
    (
        1,
        "with too little memory take smaller batches or a smaller VGG",
        "above: batches of another size, a smaller VGG",
    ),
    (
        1,
        "watch the loss: a steady fall suggests suitable hyperparameters",
        "below: does the lower loss have the higher mAP?",
    ),
    (1, "verify loss, metrics and implementation", "chapter 13: the doctor"),
    (2, "print loss and rate at every step", "chapter 9: what a run writes down"),
    (2, "look at a hundred images with their boxes", "chapter 13: the doctor draws what it finds"),
    (2, "a plateau whatever the rate points to data or architecture", "chapter 13: the doctor"),
    (2, "BboxParams, Flip and RandomCrop(640) of the snippet", "Recipes from the web; the page's own list, above"),
    (3, "He or Xavier initialisation of all layers", "chapter 16; for the heads alone, above"),
    (3, "batch norm before the activation", "chapter 16"),
    (3, "stronger augmentation for small data sets", "above: each transform; chapter 16 for CIFAR-10"),
    (4, "depthwise convolutions and many scales dilute gradients", "chapter 16"),
    (
        4,
        "high training accuracy and poor validation: overfitting",
        "above: fewer images; page 5: the moment of the lowest loss",
    ),
    (
        5,
        "a loss of 1741 is 70 to 73 % mAP, one of 1928 is 82 to 84 %",
        "chapter 14; below: does the lower loss have the higher mAP?",
    ),
    (5, "checks for images without objects", "chapters 7 and 13"),
)


# The queue: which runs are left. A run's name is its arm's and its seed.


def name_of(arm: str, seed: int) -> str:
    return f"{arm}-seed-{seed}"


def arm_and_seed(name: str) -> tuple[str, int]:
    arm, _, seed = name.rpartition("-seed-")
    return arm, int(seed)


def scan_of(optimiser: str, rate: float) -> str:
    """The name of the arm that tries a rate."""
    return f"scan-{optimiser}-{rate:g}"


def chosen_rate(optimiser: str, records: Sequence[dict]) -> float | None:
    """The rate whose mean mAP over `SCAN_SEEDS` is highest; None while the scan is not complete."""
    known = {rate: values(records, scan_of(optimiser, rate)) for rate in RATES[optimiser]}
    if any(set(one) != set(SCAN_SEEDS) for one in known.values()):
        return None
    return max(known, key=lambda rate: fmean(known[rate].values()))


SCANS = {scan_of(optimiser, rate): (optimiser, rate) for optimiser, rates in RATES.items() for rate in rates}


def is_ready(arm: str, records: Sequence[dict]) -> bool:
    """Whether all is known that an arm needs."""
    scan = ARMS[arm].scan
    return scan is None or chosen_rate(scan, records) is not None


def arm_of(name: str, records: Sequence[dict]) -> tuple[Arm, dict]:
    """An arm or a scan's by its name, and what its record should say besides: the rate, where a scan has it.

    Raises:
        ValueError: there is no such arm, or its scan is not complete.
    """
    if name in SCANS:
        optimiser, rate = SCANS[name]
        arm = ARMS[optimiser]
    elif name not in ARMS or not is_ready(name, records):
        raise ValueError(f"arm is {name!r}: there is none, or the scan of its rate is not complete")
    else:
        arm = ARMS[name]
        rate = chosen_rate(arm.scan, records) if arm.scan else None
    if rate is None:
        return arm, {}
    return replace(arm, change=partial(arm.change, learning_rate=rate)), {"learning_rate": rate}


def arms_asked_for() -> list[str]:
    """Every arm of a question, the baseline first."""
    names = ("baseline", *(name for one in QUESTIONS for name in (one.against, *one.arms)))
    return list(dict.fromkeys(names))


def every_arm() -> list[str]:
    """What can be trained without a record: every arm that a question asks for, and every rate of every scan."""
    return [arm for arm in arms_asked_for() if is_ready(arm, [])] + list(SCANS)


def left(records: Sequence[dict]) -> list[str]:
    """The runs that are left, the next one first.

    First the scans of rates; then every arm with the first seed, with the second, with the third, so that an
    interrupted queue is a whole experiment with fewer seeds; then more seeds for what is still unclear.
    """
    done = {name_of(one["arm"], one["seed"]) for one in records}
    return [name for name in planned(records) if name not in done]


def planned(records: Sequence[dict]) -> Iterator[str]:
    """All runs, in their order, as far as the records tell."""
    for seed in SCAN_SEEDS:
        yield from (name_of(scan, seed) for scan in SCANS)
    ready = [arm for arm in arms_asked_for() if is_ready(arm, records)]
    for seed in SEEDS:
        yield from (name_of(arm, seed) for arm in ready)
    for seed in MORE_SEEDS:
        yield from (name_of(arm, seed) for arm in unclear(records, seed))


def unclear(records: Sequence[dict], seeds: int) -> list[str]:
    """Arms, and what they are compared with, whose effect from so many seeds is neither there nor small for sure."""
    found = []
    for row in answers(records, range(seeds)):
        effect = row.effect
        if len(effect.differences) == seeds and effect.half_width > max(WIDE, abs(effect.mean)):
            found += [row.question.against, row.arm]
    return list(dict.fromkeys(found))


# The answers.


@dataclass(frozen=True)
class Answer:
    """What one arm of a question is worth."""

    question: Question
    arm: str
    effect: Effect

    @property
    def label(self) -> str:
        """What was changed, and what was measured where that is not mAP."""
        label = self.question.labels.get(self.arm) or ARMS[self.arm].label
        words = {
            "rare": "rare classes",
            "frequent": "frequent classes",
            "map_by_loss": "stopped by loss",
            "map_by_map": "stopped by mAP",
        }
        return f"{label}: {words[self.question.measure]}" if self.question.measure in words else label


def values(records: Sequence[dict], arm: str, measure: str = "map") -> dict[int, float]:
    """What an arm has reached, by seed."""
    return {one["seed"]: measure_of(one, measure) for one in records if one["arm"] == arm}


def measure_of(record: dict, measure: str) -> float:
    """A measure of `MEASURES`, from a record; a training that diverged has found nothing."""
    if measure in ("rare", "frequent"):
        names = list(record["ap"])
        rare = names[RARE]
        return trials.mean_of(record["ap"], rare if measure == "rare" else [one for one in names if one not in rare])
    return record[measure] if record.get("diverged") is None else 0.0


def answers(
    records: Sequence[dict], seeds: Sequence[int] = SEEDS + MORE_SEEDS, questions: Sequence[Question] = QUESTIONS
) -> list[Answer]:
    """The effect of every arm of every question that has a seed in common with what it is compared with."""
    found = []
    kept = [one for one in records if one["seed"] in seeds]
    for question in questions:
        usual = values(kept, question.against, question.usual or question.measure)
        for arm in question.arms:
            changed = values(kept, arm, question.measure)
            if set(changed) & set(usual):
                found.append(Answer(question, arm, paired(changed, usual)))
    return found


def key_of(question: Question, arm: str) -> str:
    """A name for an answer: its arm's, and the measure where that is not mAP or accuracy."""
    return arm if question.measure in ("map", "accuracy") else f"{arm}-{question.measure}"


NOT_YET = "(not yet measured)"


def told(records: Sequence[dict], questions: Sequence[Question] = QUESTIONS) -> dict[str, str]:
    """Every answer in words, by `key_of`; `NOT_YET` where there are no two pairs of runs."""
    found = {key_of(one, arm): NOT_YET for one in questions for arm in one.arms}
    known = with_intervals(answers(records, questions=questions))
    return found | {key_of(one.question, one.arm): str(one.effect) for one in known}


def with_intervals(found: Sequence[Answer]) -> list[Answer]:
    """Those of two pairs of runs or more."""
    return [one for one in found if len(one.effect.differences) > 1]


def sure(found: Sequence[Answer]) -> set[str]:
    """The answers, by `key_of`, that are there for sure among so many; see `effects.surely`."""
    return surely({key_of(one.question, one.arm): one.effect.p for one in with_intervals(found)})


def names_at_a_glance(found: Sequence[Answer], arms: Sequence[str] = (), ends: int = 4) -> dict[int, str]:
    """By place, what to call the effects of some arms and those at either end: see `viz.forest_at_a_glance`."""
    order = sorted(range(len(found)), key=lambda place: found[place].effect.mean)
    at_the_ends = {*order[:ends], *order[-ends:]}
    return {place: one.label for place, one in enumerate(found) if place in at_the_ends or one.arm in arms}


def to_carry(found: Sequence[Answer], large: int = 5, small: int = 2) -> list[str]:
    """Arms whose effects are worth trying on a larger training: the largest, and some that are small for sure.

    One arm of a question, or five rates would be the five largest; in mAP, beside the baseline. Only what says how much
    more or less can be carried over, and is not a number for this size: rates that a scan has chosen, what a page has
    published, other layers and the images of a larger pool stay.
    """
    asked = [one for one in with_intervals(found) if can_be_carried(one)]
    largest = [one for one in asked if one.effect.is_told_apart]
    largest = first_of_each(sorted(largest, key=lambda one: -abs(one.effect.mean)))[:large]
    named = {one.question.name for one in largest}
    others = [one for one in asked if one.question.name not in named]
    smallest = first_of_each(sorted(others, key=lambda one: max(map(abs, one.effect.interval))))[:small]
    return [one.arm for one in (*largest, *smallest)]


STAYS = (
    "optimizers",
    "as-published",
    "random-trunk-longer",
    "extra-layers",
    "map-sizes",
    "smaller-trunk",
    "page-transforms",
)


def can_be_carried(answer: Answer) -> bool:
    """See `to_carry`."""
    question = answer.question
    plain = (question.against, question.measure) == ("baseline", "map")
    return plain and question.name not in STAYS and answer.arm != "images-3"


def first_of_each(rows: Sequence[Answer]) -> list[Answer]:
    """The first answer of each question."""
    names = [one.question.name for one in rows]
    return [one for place, one in enumerate(rows) if one.question.name not in names[:place]]


CURVES: dict[str, Callable[[dict], list[float]]] = {
    "loss": lambda record: record["loss"],
    "gradient": lambda record: record["gradient"],
    "held_out": lambda record: [moment["loc"] + moment["conf"] for moment in record["moments"]],
    "map": lambda record: [moment["map"] for moment in record["moments"] if "map" in moment],
}


def curve(records: Sequence[dict], arm: str, of: str) -> list[float]:
    """How an arm's trainings went: the mean over seeds at `trials.POINTS` moments, as far as all of them came.

    Args:
        of: of `CURVES`: the loss of the batches that were learned from, the gradient before it was shortened, the
            held-out losses, or the mAP of the held-out images where an arm measured it.

    Raises:
        ValueError: there is no such curve.
    """
    own = [one for one in records if one["arm"] == arm]
    curves = [CURVES[of](one) for one in own] if of in CURVES else []
    found = [fmean(values) for values in zip(*curves, strict=False)]
    if not found:
        raise ValueError(f"{arm} has {len(own)} runs and no curve of {of!r}: use an arm's that has {', '.join(CURVES)}")
    return found


def spread(records: Sequence[dict], arm: str = "baseline") -> float:
    """The standard deviation of an arm's mAP from seed to seed; see `effects.smallest_effect`.

    Raises:
        ValueError: it has fewer than two seeds.
    """
    found = list(values(records, arm).values())
    if len(found) < 2:
        raise ValueError(f"{arm} has {len(found)} runs: two or more have a spread")
    return stdev(found)


USUAL_LOSS = ("rate", "optimiser", "data", "augmentation", "network", "duration")


def losses_and_map(records: Sequence[dict]) -> list[tuple[str, float, float]]:
    """Arm, last held-out loss and mAP of every training that ended and has the baseline's loss, priors and images to
    measure.

    "A steadily falling loss suggests appropriate hyperparameters": whether the lower loss is the better detector.
    """
    asked = [one for one in QUESTIONS if one.family in USUAL_LOSS and one.name != "map-sizes"]
    arms = {arm for one in asked for arm in (*one.arms, one.against)}
    ended = [one for one in records if one["arm"] in arms and one["diverged"] is None]
    last = [(one["moments"][-1]["loc"], one["moments"][-1]["conf"]) for one in ended]
    return [
        (one["arm"], sum(losses), one["map"]) for one, losses in zip(ended, last, strict=True) if None not in losses
    ]


# The answers as pages show them.


@dataclass(frozen=True)
class Sentences:
    """What a page says, each sentence beside its answers, as a table.

    Attributes:
        rows: lines of HTML by sentence.
    """

    rows: Mapping[str, Sequence[str]]

    def _repr_html_(self) -> str:
        cells = [(escape(says), "<br>".join(lines)) for says, lines in self.rows.items()]
        body = "".join(f'<tr><th scope="row">{says}</th><td>{answers}</td></tr>' for says, answers in cells)
        heads = '<th scope="col" style="width:34%">it says</th><th scope="col">asked, and answered</th>'
        style = "width:100%;table-layout:fixed;overflow-wrap:anywhere"
        return f'<table style="{style}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def effect_line(label: str, effect: Effect, is_sure: bool = False) -> str:
    """An effect as a line of `Sentences`: in bold where its interval leaves 0 out, with a star where it is sure."""
    words = f"{escape(label)}: {effect}{' *' if is_sure else ''}"
    return f"<strong>{words}</strong>" if effect.is_told_apart else words
