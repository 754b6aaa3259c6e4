"""Chapter 8: focal loss, and how a network should begin.

The answers are in here. Try first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.twins import but, stop
from course_lib.grading import Exercise, mistakes


def prior_bias(pi: float) -> float:
    return math.log(pi / (1 - pi))


PRIOR_BIAS = Exercise(
    solution=prior_bias,
    cases=[(0.5,), (0.01,), (0.1,), (0.25,), (0.001,), (0.9,)],
    mistakes=mistakes(
        "sign: Your bias has the wrong sign. Which sign has a logit whose sigmoid is below one half?",
        lambda pi: math.log((1 - pi) / pi),
        "one probability: You take the logarithm of one of the two probabilities. A logit sets one against the other.",
        lambda pi: math.log(pi),
        lambda pi: -math.log(pi),
        lambda pi: math.log(1 - pi),
        lambda pi: -math.log(1 - pi),
        "odds: These are odds. What a sigmoid takes is their logarithm.",
        lambda pi: pi / (1 - pi),
        lambda pi: -pi / (1 - pi),
        lambda pi: (1 - pi) / pi,
        lambda pi: -(1 - pi) / pi,
        "other base: Your logarithm is of another base. The sigmoid is made of powers of e.",
        lambda pi: math.log10(pi / (1 - pi)),
        lambda pi: math.log2(pi / (1 - pi)),
        "sigmoid: You take the sigmoid of the score. Go the other way: whose sigmoid is the score?",
        lambda pi: 1 / (1 + math.exp(-pi)),
        "score: This is the score itself. A bias is added to logits.",
        lambda pi: pi,
        "divided first: A division goes before a subtraction, and a score divided by itself is 1.",
        lambda pi: math.inf,
        lambda pi: -math.inf,
    ),
)


def initial_focal(priors: int, classes: int, positives: int, pi: float, alpha: float, gamma: float) -> float:
    a_yes = -alpha * (1 - pi) ** gamma * math.log(pi)
    a_no = -(1 - alpha) * pi**gamma * math.log(1 - pi)
    noes = priors * classes - positives
    return (positives * a_yes + noes * a_no) / max(positives, 1)


Counts = Callable[[int, int, int], int]  # of priors, classes and positives


def _initial(
    noes: Counts = lambda priors, classes, positives: priors * classes - positives,
    yeses: Counts = lambda priors, classes, positives: positives,
    weights: Callable[[float], tuple[float, float]] = lambda alpha: (alpha, 1 - alpha),
    scores: Callable[[float], tuple[float, float]] = lambda pi: (pi, 1 - pi),
    focus: Callable[[float, float], float] = lambda p_t, gamma: (1 - p_t) ** gamma,
    base: float = math.e,
    divisor: Counts = lambda priors, classes, positives: max(positives, 1),
) -> Callable:
    """The first loss with one of its parts exchanged; pairs are for an answer that should be yes, and for a no."""

    def twin(priors: int, classes: int, positives: int, pi: float, alpha: float, gamma: float) -> float:
        count = priors, classes, positives
        parts = zip((yeses(*count), noes(*count)), weights(alpha), scores(pi), strict=True)
        whole = sum(-number * weight * focus(p_t, gamma) * math.log(p_t) for number, weight, p_t in parts)
        return whole / math.log(base) / divisor(*count)

    return twin


# What people keep a divisor, or a probability, away from 0 by.
LITTLE = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16)


def _a_little_more(little: float) -> Counts:
    return lambda priors, classes, positives: positives + little


def _no_positive(priors: int, classes: int, positives: int, *rest: float) -> bool:
    return positives == 0


INITIAL_FOCAL = Exercise(
    solution=initial_focal,
    cases=[
        (1, 1, 1, 0.5, 0.5, 0.0),
        (4, 1, 1, 0.5, 0.25, 0.0),
        (4, 3, 1, 0.5, 0.25, 2.0),
        (6, 2, 3, 0.5, 0.25, 2.0),
        (10, 20, 2, 0.1, 0.25, 1.5),
        (8732, 20, 3, 0.5, 0.25, 2.0),
        (8732, 20, 25, 0.01, 0.25, 2.0),
        (2408, 20, 0, 0.5, 0.25, 2.0),
        (6, 2, 0, 0.1, 0.25, 2.0),
    ],
    mistakes=mistakes(
        "background asked: You ask each prior one question too many. Background is none of the classes.",
        _initial(noes=lambda priors, classes, positives: priors * (classes + 1) - positives),
        "positives say one thing: A positive says yes to its own class. What does it say to the other classes?",
        _initial(noes=lambda priors, classes, positives: (priors - positives) * classes),
        "yes and no: You count every answer as a no, and those of the positives as a yes once more.",
        _initial(noes=lambda priors, classes, positives: priors * classes),
        "yes to every class: Your positives say yes to every class. An object is of one class: what should its priors "
        "answer to the others?",
        _initial(
            yeses=lambda priors, classes, positives: positives * classes,
            noes=lambda priors, classes, positives: (priors - positives) * classes,
        ),
        _initial(yeses=lambda priors, classes, positives: positives * classes),
        "one question: You ask each prior a single question. There is one for each class.",
        _initial(noes=lambda priors, classes, positives: priors - positives),
        _initial(noes=lambda priors, classes, positives: priors),
        "a class too few: You ask each prior one question too few. Your classes are the object classes, and background "
        "is none of them.",
        _initial(noes=lambda priors, classes, positives: priors * (classes - 1) - positives),
        "mined: You take three noes for each positive. Focal loss mines nothing: all priors count.",
        _initial(noes=lambda priors, classes, positives: 3 * positives),
        "noes left out: You count the yeses alone. Most of the sum is the noes.",
        _initial(noes=lambda priors, classes, positives: 0),
        "yeses left out: You count the noes alone. Each positive has an answer that should be yes.",
        _initial(yeses=lambda *_: 0),
        "sum not divided: You return the sum. By what does the loss divide it?",
        _initial(divisor=lambda priors, classes, positives: 1),
        "mean: You divide by all priors or by all answers. The normaliser counts something rarer.",
        _initial(divisor=lambda priors, classes, positives: priors),
        _initial(divisor=lambda priors, classes, positives: priors * classes),
        "one too many: You add 1 to the positives before you divide. The divisor only has to be kept from being 0.",
        _initial(divisor=lambda priors, classes, positives: positives + 1),
        "no weights: Your answers all weigh 1. Where is alpha?",
        _initial(weights=lambda alpha: (1, 1)),
        "one weight: Yes and no have the same weight in your sum. The two weights add up to 1.",
        _initial(weights=lambda alpha: (alpha, alpha)),
        "no weighs 1: A yes is weighed in your sum and a no is not. The two weights add up to 1.",
        _initial(weights=lambda alpha: (alpha, 1)),
        "weights exchanged: alpha is the weight of a yes. In your sum it weighs the noes.",
        _initial(weights=lambda alpha: (1 - alpha, alpha)),
        "one half: Your answers have a score of one half, whatever pi is.",
        _initial(scores=lambda pi: (0.5, 0.5)),
        "counts exchanged: Your yeses and noes have changed places. Only one answer of each positive is a yes.",
        _initial(
            yeses=lambda priors, classes, positives: priors * classes - positives,
            noes=lambda priors, classes, positives: positives,
        ),
        "scores exchanged: Where yes is right the probability of the truth is pi, and where no is right 1 - pi. Yours "
        "have changed places.",
        _initial(scores=lambda pi: (1 - pi, pi)),
        "one score: You give every answer the same probability of the truth. Is a no as likely as a yes?",
        _initial(scores=lambda pi: (pi, pi)),
        "no focus: This is cross entropy. What has become of gamma?",
        _initial(focus=lambda p_t, gamma: 1),
        "focus on the right: You raise the probability of the truth itself to gamma, so that right answers count most.",
        _initial(focus=lambda p_t, gamma: p_t**gamma),
        "one focus: Yes and no have the same focus in your sum. How wrong is a no, where its class has the score pi?",
        lambda priors, classes, positives, pi, alpha, gamma: (
            initial_focal(priors, classes, positives, pi, alpha, 0.0) * (1 - pi) ** gamma
        ),
        lambda priors, classes, positives, pi, alpha, gamma: (
            initial_focal(priors, classes, positives, pi, alpha, 0.0) * pi**gamma
        ),
        "always squared: You square the focus. The power is gamma, and gamma need not be 2.",
        _initial(focus=lambda p_t, gamma: (1 - p_t) ** 2),
        "half divided: Only a part of your sum is divided. A division goes before an addition.",
        lambda *args: _initial(noes=lambda *_: 0, divisor=lambda *_: 1)(*args) + _initial(yeses=lambda *_: 0)(*args),
        "focus multiplied: You multiply with gamma. It is a power.",
        _initial(focus=lambda p_t, gamma: gamma * (1 - p_t)),
        "below zero: Your loss is negative. The logarithm of a probability is, so what does the formula begin with?",
        lambda *args: -initial_focal(*args),
        "logarithm: Your logarithm has a base of its own. The formula means the natural one.",
        _initial(base=2),
        _initial(base=10),
        "one at least: Without a positive you still count a yes, or a no less. Only the divisor is at least 1.",
        _initial(yeses=lambda priors, classes, positives: max(positives, 1)),
        _initial(noes=lambda priors, classes, positives: priors * classes - max(positives, 1)),
        _initial(
            yeses=lambda priors, classes, positives: max(positives, 1),
            noes=lambda priors, classes, positives: priors * classes - max(positives, 1),
        ),
        "whole gamma: You make a whole number of gamma. It need not be one.",
        lambda priors, classes, positives, pi, alpha, gamma: initial_focal(
            priors, classes, positives, pi, alpha, int(gamma)
        ),
        "no positive: Without a positive the sum is still there, and is divided by 1: background teaches all the same.",
        but(_no_positive, stop, initial_focal),
        but(_no_positive, lambda: 0.0, initial_focal),
        but(_no_positive, lambda: math.inf, initial_focal),
        but(_no_positive, lambda: math.nan, initial_focal),
        *(_initial(divisor=_a_little_more(little)) for little in LITTLE),
    ),
)


def focal_term(logit: float, wanted: bool, alpha: float, gamma: float) -> float:
    signed = logit if wanted else -logit
    weight = alpha if wanted else 1 - alpha
    wrong = 1 / (1 + math.exp(signed))  # 1 - p_t
    return weight * wrong**gamma * math.log1p(math.exp(-signed))


def _signed(logit: float, wanted: bool) -> float:
    return logit if wanted else -logit


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _term(
    weight: Callable[[float, bool], float] = lambda alpha, wanted: alpha if wanted else 1 - alpha,
    focus: Callable[[float, float], float] = lambda wrong, gamma: wrong**gamma,
    cost: Callable[[float], float] = lambda signed: math.log1p(math.exp(-signed)),
    focus_of: Callable[[float, bool], float] = _signed,
    cost_of: Callable[[float, bool], float] = _signed,
) -> Callable[[float, bool, float, float], float]:
    """One answer's focal loss with one of its parts exchanged; `focus_of` and `cost_of` give a logit its sign."""

    def twin(logit: float, wanted: bool, alpha: float, gamma: float) -> float:
        wrong = _sigmoid(-focus_of(logit, wanted))
        return weight(alpha, wanted) * focus(wrong, gamma) * cost(cost_of(logit, wanted))

    return twin


def _logit_as_it_is(logit: float, wanted: bool = True) -> float:
    return logit


def _turned(logit: float, wanted: bool) -> float:
    return -_signed(logit, wanted)


def _through_probability(
    p: Callable[[float], float | Tensor], logarithm: Callable[[float | Tensor, float], float | Tensor]
) -> Callable[[float, bool, float, float], float | Tensor]:
    """One answer's focal loss as equation 5 has it: a no has the probability 1 - p, whatever is left of its digits."""

    def twin(logit: float, wanted: bool, alpha: float, gamma: float) -> float | Tensor:
        p_t, weight = (p(logit), alpha) if wanted else (1 - p(logit), 1 - alpha)
        return -weight * (1 - p_t) ** gamma * logarithm(p_t, logit)

    return twin


def _single(logit: float) -> Tensor:
    return torch.tensor(logit, dtype=torch.float32).sigmoid()


def _one_less_no(logit: float) -> float:
    return 1 - _sigmoid(-logit)


def _caught(p_t: float | Tensor, logit: float) -> float:
    """Whoever catches the logarithm of 0 puts its limit there."""
    return math.log(p_t) if p_t > 0 else -abs(logit)


def _infinite(p_t: float | Tensor, logit: float) -> float:
    return math.log(p_t) if p_t > 0 else -math.inf if p_t == 0 else math.nan


def _raised(p_t: float | Tensor, logit: float) -> float:
    return math.log(p_t)


def _never_below(least: float) -> Callable[[float | Tensor, float], float]:
    return lambda p_t, logit: math.log(max(p_t, least))


def _added(little: float) -> Callable[[float | Tensor, float], float]:
    return lambda p_t, logit: math.log(p_t + little)


def _clamped(least: float, kind: torch.dtype) -> Callable[[float], Tensor]:
    return lambda logit: torch.tensor(logit, dtype=kind).sigmoid().clamp(least, 1 - least)


def _right_cost(signed: float) -> float:
    return math.log1p(math.exp(-signed))


def _summed_cost(signed: float) -> float:
    return math.log(1 + math.exp(-signed))


def _single_cost(signed: float) -> float:
    return (1 + torch.tensor(-signed, dtype=torch.float32).exp()).log().item()


def _either(near: Callable[[float], float], border: float, far: Callable[[float], float]) -> Callable[[float], float]:
    """A cost of its own on either side of a border."""
    return lambda signed: near(signed) if abs(signed) < border else far(signed)


def _taken_from_1(p_t: Callable[[float], float | Tensor]) -> Callable[[float, bool, float, float], float | Tensor]:
    """A right cost, and a focus that is what is left when p_t is taken from 1."""

    def twin(logit: float, wanted: bool, alpha: float, gamma: float) -> float | Tensor:
        signed = _signed(logit, wanted)
        return (alpha if wanted else 1 - alpha) * (1 - p_t(signed)) ** gamma * _right_cost(signed)

    return twin


FOCAL_TERM = Exercise(
    solution=focal_term,
    cases=[
        (0.0, True, 0.5, 0.0),
        (0.0, True, 0.25, 2.0),
        (2.0, True, 0.25, 1.0),
        (2.0, False, 0.25, 2.0),
        (-1.5, True, 0.9, 1.0),
        (1.0, False, 0.25, 5.0),
        (-6.0, True, 0.25, 2.0),
        (3.0, False, 0.75, 0.5),
        (16.5, False, 0.25, 2.0),  # float32 has one digit of 1 - p left
        (36.5, False, 0.25, 2.0),  # and so has float64
        (-36.5, True, 0.25, 2.0),
        (100.0, False, 0.25, 2.0),
        (-100.0, True, 0.25, 2.0),
        # Where the answer is right the loss is tiny, and must have its digits.
        (10.0, True, 0.25, 0.0),  # float32 keeps three of 1 + e^-10
        (17.0, True, 0.25, 0.0),  # and none of 1 + e^-17
        (29.0, True, 0.25, 0.0),  # float64 keeps three of 1 + e^-29
        (36.5, True, 0.25, 0.0),  # and none of this
        (29.0, True, 0.25, 1.0),
    ],
    # Eighty times what float32 rounds off: the power of 5 multiplies a sigmoid's two or three roundings.
    tolerance=80 * torch.finfo(torch.float32).eps,
    absolute=0.0,
    mistakes=mistakes(
        "focus turned round: You raise p_t itself to gamma. Then the answers that are right count, and the wrong ones "
        "hardly.",
        _term(focus=lambda wrong, gamma: (1 - wrong) ** gamma),
        "p for p_t: Where no is right, the probability of the truth is 1 - p. It stands in the formula twice.",
        _term(focus_of=_logit_as_it_is, cost_of=_logit_as_it_is),
        _term(focus_of=_logit_as_it_is),
        _term(cost_of=_logit_as_it_is),
        "alpha for both: alpha weighs both kinds of answer in your loss. What weighs the noes?",
        _term(weight=lambda alpha, wanted: alpha),
        "alpha for no: alpha weighs the noes in your loss. It is the weight of a yes.",
        _term(weight=lambda alpha, wanted: 1 - alpha if wanted else alpha),
        "no alpha: Every answer weighs 1 in your loss. Which letter of the formula is missing?",
        _term(weight=lambda alpha, wanted: 1),
        "no without a weight: A yes has its weight, and a no has none. The weights of the two add up to 1.",
        _term(weight=lambda alpha, wanted: alpha if wanted else 1),
        "no minus: Your loss is negative. Each logarithm of a probability is, and the formula turns it round.",
        lambda *args: -focal_term(*args),
        "base of the logarithm: The base of your logarithm is another one. The formula takes the natural logarithm.",
        _term(cost=lambda signed: math.log1p(math.exp(-signed)) / math.log(10)),
        _term(cost=lambda signed: math.log1p(math.exp(-signed)) / math.log(2)),
        "times gamma: gamma is a factor in your loss. In the formula it is an exponent.",
        _term(focus=lambda wrong, gamma: wrong * gamma),
        "no gamma: This is weighted cross entropy. The factor with gamma is missing.",
        _term(focus=lambda wrong, gamma: 1),
        "always squared: You square, whatever gamma is.",
        _term(focus=lambda wrong, gamma: wrong**2),
        "no sigmoid: You take the logit for a probability. It may be any number: which function brings it between 0 "
        "and 1?",
        *(_through_probability(_logit_as_it_is, logarithm) for logarithm in (_raised, _infinite)),
        "sign: Your loss is large where the answer is right. Follow the sign of the logit: where yes is right, a large "
        "one is good.",
        _term(focus_of=_turned, cost_of=_turned),
        "yes and no: Your yes and your no have changed places, their weights too.",
        lambda logit, wanted, alpha, gamma: focal_term(logit, not wanted, alpha, gamma),
        "wanted ignored: Your loss is the same whatever is wanted. The formula tells yes from no in two places.",
        lambda logit, wanted, alpha, gamma: focal_term(logit, True, alpha, gamma),
        lambda logit, wanted, alpha, gamma: focal_term(logit, False, alpha, gamma),
        "digits: Near 1 a probability has few digits left. At a logit of 36.5 1 - p is wrong by half, at 100 it is 0, "
        "and in float32 that begins at 16.6. To catch the logarithm of 0 mends only the last of it. A no has a "
        "probability of its own: it is a sigmoid too, of which number?",
        *(_through_probability(_sigmoid, logarithm) for logarithm in (_raised, _infinite, _caught)),
        *(_through_probability(_single, logarithm) for logarithm in (_raised, _infinite, _caught)),
        *(_through_probability(_one_less_no, logarithm) for logarithm in (_raised, _infinite, _caught)),
        "added to 1: You add e^-s to 1, where s is the logit with its sign, or take the logarithm of a probability "
        "close to 1. Where the answer is right, e^-s is tiny and 1 keeps few of its digits: of e^-29 three, of e^-37 "
        "none. Which logarithm takes the tiny number itself?",
        _term(cost=_summed_cost),
        _term(cost=_single_cost),
        _term(cost=lambda signed: -_single(signed).log().item()),
        "naive below a border: Your two ways meet at a border, and on its near side the naive one has lost most of its "
        "digits already. One formula can do for every logit.",
        *(_term(cost=_either(_summed_cost, border, _right_cost)) for border in (30, 32, 34, 35, 36)),
        "cut off: Far from 0 you take the larger of 0 and -s. For an answer that is quite wrong that is right; for one "
        "that is quite right it gives 0, and the loss is small but not 0.",
        *(
            _term(cost=_either(near, border, lambda signed: max(0.0, -signed)))
            for near in (_summed_cost, _right_cost)
            for border in (15, 16, 18, 20, 25, 30, 35)
        ),
        "taken from 1: You take p_t from 1 for the focus. Where p_t is close to 1 few digits are left, in float32 "
        "none from a logit of 17 on, and torchvision does the same. 1 - p_t is a sigmoid as well: of which number?",
        *(_taken_from_1(p_t) for p_t in (_sigmoid, _single, lambda signed: math.exp(-_right_cost(signed)))),
        "kept away from 0: You keep the probability away from 0. There the loss stops growing, and the worst answers "
        "have no slope by which they could be mended.",
        *(
            _through_probability(p, way(least))
            for p in (_sigmoid, _single)
            for way in (_never_below, _added)
            for least in LITTLE
        ),
        *(_through_probability(_clamped(least, torch.float64), _raised) for least in LITTLE),
        *(_through_probability(_clamped(least, torch.float32), _raised) for least in LITTLE[:3]),  # less is rounded off
    ),
)

EXERCISES = {"prior_bias": PRIOR_BIAS, "initial_focal": INITIAL_FOCAL, "focal_term": FOCAL_TERM}
