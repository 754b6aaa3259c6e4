"""What chapter 16 asks of its classifiers: each choice as a question with its arms, and what two pages advise besides.

Arms are those of `experiments/convergence.py`. `advice.answers`, `told` and `sure` answer these questions as they do
their own: `answers(of_problem(records, "emoji"), questions=QUESTIONS)`.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

from course_lib.advice import Question
from course_lib.convergence import AUGMENTATIONS

VGG_PAGE, MOBILENET_PAGE = 3, 4  # of `advice.PAGES`
FAMILIES = ("first weights", "batch norm", "augmentation", "pixels", "schedule", "optimiser")
PROBLEMS = {"emoji": "EmojiVOC's objects", "photographs": "objects of photographs", "cifar10": "CIFAR-10"}

STARTS = {"xavier": "Xavier", "pytorch": "PyTorch's", "too-small": "a tenth of He's", "too-large": "ten times He's"}
NORMS = {"before": "norm before ReLU", "after": "norm after ReLU", "none": "no norm"}
HES = {"before": "baseline", "after": "he-norm-after", "none": "he-norm-none"}
PIXELS = {"cifar10": "by CIFAR-10's", "unit": "pixels 0 to 1", "raw": "pixels 0 to 255"}


def ask(
    name: str, family: str, asks: str, says: str | None, labels: dict[str, str], against: str = "baseline"
) -> Question:
    """A question about accuracy; `says` is the page's sentence in our words, `labels` name its arms."""
    sources = {VGG_PAGE: says} if says else {}
    return Question(name, family, asks, sources, tuple(labels), against, "accuracy", labels=labels)


def of_first_weights() -> Iterator[Question]:
    says = {
        "before": "other ways to begin promise speed, and cost stability",
        "none": "He's or Xavier's weights are essential; others let gradients vanish or explode",
    }
    for norm, where in NORMS.items():
        labels = {f"{start}-norm-{norm}": f"{label}, {where}" for start, label in STARTS.items()}
        asks = f"What do other first weights than He's cost with {where}?"
        yield ask(f"first-weights-{norm}", "first weights", asks, says.get(norm), labels, HES[norm])


def of_batch_norm() -> Iterator[Question]:
    says = "batch norm stands before the activation; elsewhere or left out it disturbs the flow of gradients"
    trainings = {
        "Adam": ("baseline", "he-norm-{}"),
        "Adam, cosine": ("cosine", "cosine-norm-{}"),
        "SGD, clipped": ("sgd-norm-before-clipped", "sgd-norm-{}-clipped"),
    }
    for number, (training, (against, arm)) in enumerate(trainings.items()):
        labels = {arm.format(norm): f"{NORMS[norm]}: {training}" for norm in ("after", "none")}
        asks = f"What does batch norm behind ReLU, or none, cost with {training}?"
        yield ask(f"batch-norm-{number}", "batch norm", asks, says, labels, against)


def of_augmentation() -> Iterator[Question]:
    yield ask(
        "augmentation",
        "augmentation",
        "Is crop and flip better than nothing, and is more of it better than that?",
        "crop and flip alone are too little: colour and erasing make training steadier and better",
        {
            "no-augmentation": "no augmentation",
            "augmentation-as-published": "the page's four transforms",
            "all-augmentation": "all five transforms",
        },
    )
    labels = {f"alone-{name}": f"{name} alone" for name in AUGMENTATIONS}
    asks = "What is each transform worth alone, beside none?"
    yield ask("each-transform", "augmentation", asks, "turns and colours are crucial", labels, "no-augmentation")


def of_pixels() -> Iterator[Question]:
    says = "normalise by CIFAR-10's mean and deviation"
    for norm, against in (("before", "baseline"), ("none", "he-norm-none")):
        labels = {f"pixels-{pixels}-norm-{norm}": f"{label}, {NORMS[norm]}" for pixels, label in PIXELS.items()}
        asks = f"Do pixels have to be divided by their own deviation, with {NORMS[norm]}?"
        yield ask(f"pixels-{norm}", "pixels", asks, says, labels, against)


def of_training() -> Iterator[Question]:
    yield ask(
        "schedule",
        "schedule",
        "Is a rate that falls better than one that stays?",
        "a plateau or a cyclical schedule brings a significant improvement",
        {"plateau": "plateau", "cyclical": "cyclical rate", "step-drops": "two drops", "cosine": "cosine"},
    )
    yield ask(
        "rate",
        "optimiser",
        "How wrong may Adam's rate be?",
        "a rate that is too high overshoots, one that is too low crawls",
        {f"adam-{rate}": f"Adam at {rate}" for rate in ("1e-5", "1e-4", "1e-2", "1e-1")},
    )
    rates, says = ("1e-2", "3e-2", "1e-1"), "SGD with momentum can do better than Adam, with a tuned schedule"
    labels = {f"sgd-{rate}": f"SGD at {rate}" for rate in rates} | {"adamw-1e-3": "AdamW at 1e-3"}
    yield ask("optimizers", "optimiser", "Is SGD or AdamW better than Adam at 1e-3?", says, labels)
    labels = {f"{arm}-cosine": f"{label}, cosine" for arm, label in labels.items()}
    yield ask("optimizers-cosine", "optimiser", "And with a cosine, beside Adam with one?", says, labels, "cosine")
    labels = {"sgd-norm-before-clipped": "SGD at 3e-2, clipped"}
    yield ask("clipping", "optimiser", "Does it help SGD to shorten long gradients?", None, labels, "sgd-3e-2")


QUESTIONS = tuple(chain(of_first_weights(), of_batch_norm(), of_augmentation(), of_pixels(), of_training()))

# What the two pages say besides: page, in our words, and where it is answered.
ELSEWHERE = (
    (VGG_PAGE, "all of that matters more, the deeper the network is", "not measured: all have thirteen convolutions"),
    (VGG_PAGE, "momentum escapes from shallow minima", "chapter 15: momentum"),
    (VGG_PAGE, "SGD is robust where there is little augmentation", "chapter 15: the optimiser without augmentation"),
    (VGG_PAGE, "the code of augmentation, plateau and first weights", "Recipes: what each snippet does today"),
    (VGG_PAGE, "eliminate causes one by one", "chapter 13: in an order that saves time"),
    (MOBILENET_PAGE, "classes that are rare are neglected", "chapter 15: rare classes"),
    (MOBILENET_PAGE, "boxes that are not accurate add noise", "chapter 15: the data"),
    (MOBILENET_PAGE, "many scales dilute the gradient", "not measured apart; its gradients stand in chapter 16"),
    (MOBILENET_PAGE, "MobileNetV2 is shallow beside ResNet", "counted below"),
    (MOBILENET_PAGE, "large batches converge too early", "chapter 15: the batch"),
    (MOBILENET_PAGE, "RMSprop or SGD may suit better than Adam", "chapter 15: the optimiser"),
    (MOBILENET_PAGE, "dropout without care stops the training", "chapter 15: the network"),
    (MOBILENET_PAGE, "class weights, decay in stairs, clipnorm: the code", "Recipes; their effects in chapter 15"),
    (MOBILENET_PAGE, "many small measures together bring it about", "chapter 13: one change at a time"),
)


def of_problem(records: Sequence[dict], problem: str) -> list[dict]:
    """The records of one set of pictures, a key of `PROBLEMS`."""
    return [one for one in records if one["problem"] == problem]
