"""Answers to the exercises of chapter 8, right and wrong: focal loss."""

from inspect import getsource

from course_lib.exercises import ch08_focal

PRIOR_BIAS = {
    "plain": getsource(ch08_focal.prior_bias),
    "inverse": """
        def prior_bias(pi):
            return -math.log((1 - pi) / pi)
    """,
    "difference": """
        def prior_bias(pi):
            return math.log(pi) - math.log(1 - pi)
    """,
    "numpy": """
        def prior_bias(pi):
            odds = pi / (1 - pi)
            return np.log(odds)
    """,
    "torch": """
        def prior_bias(pi):
            return torch.tensor(pi).logit()
    """,
}

INITIAL_FOCAL = {
    "plain": getsource(ch08_focal.initial_focal),
    "numpy": """
        def initial_focal(priors, classes, positives, pi, alpha, gamma):
            count = np.array([positives, positives * (classes - 1) + (priors - positives) * classes])
            weight = np.array([alpha, 1 - alpha])
            p_t = np.array([pi, 1 - pi])
            cost = -weight * (1 - p_t) ** gamma * np.log(p_t)
            return (count * cost).sum() / (positives or 1)
    """,
    "torchvision": """
        def initial_focal(priors, classes, positives, pi, alpha, gamma):
            logits = torch.full((priors, classes), math.log(pi / (1 - pi)))
            targets = torch.zeros(priors, classes)
            targets[:positives, 0] = 1
            total = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma, reduction="sum")
            return total / max(1, positives)
    """,
}

FOCAL_TERM = {
    "plain": getsource(ch08_focal.focal_term),
    "math": """
        def focal_term(logit, wanted, alpha, gamma):
            z = logit if wanted else -logit
            wrong = math.exp(-z) / (1 + math.exp(-z))
            weight = alpha if wanted else 1 - alpha
            cost = max(-z, 0) + math.log1p(math.exp(-abs(z)))
            return weight * wrong**gamma * cost
    """,
    "torch": """
        def focal_term(logit, wanted, alpha, gamma):
            sign = 1 if wanted else -1
            z = torch.tensor(sign * logit)
            weight = alpha if wanted else 1 - alpha
            focus = torch.sigmoid(-z) ** gamma
            return -weight * focus * torch.nn.functional.logsigmoid(z)
    """,
    "double": """
        def focal_term(logit, wanted, alpha, gamma):
            z = torch.tensor(logit if wanted else -logit, dtype=torch.float64)
            cost = torch.nn.functional.softplus(-z)
            return (alpha if wanted else 1 - alpha) * (-torch.expm1(-cost)) ** gamma * cost
    """,
    "bce": """
        def focal_term(logit, wanted, alpha, gamma):
            logit, target = torch.tensor(logit), torch.tensor(float(wanted))
            cost = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
            wrong = torch.sigmoid((1 - 2 * target) * logit)
            return (target * alpha + (1 - target) * (1 - alpha)) * wrong**gamma * cost
    """,
    "numpy": """
        def focal_term(logit, wanted, alpha, gamma):
            z = np.float32(logit if wanted else -logit)
            weight = alpha if wanted else 1 - alpha
            return weight * np.exp(-np.logaddexp(0, z)) ** gamma * np.logaddexp(0, -z)
    """,
}

RIGHT = {"prior_bias": PRIOR_BIAS, "initial_focal": INITIAL_FOCAL, "focal_term": FOCAL_TERM}

# Edits of the style "math": through a probability, which for a no is 1 - p, and a logarithm of 0 that is caught.
PROBABILITY = (
    "wrong = math.exp(-z) / (1 + math.exp(-z))", "p_t = 1 / (1 + math.exp(-z))",
    "cost = max(-z, 0) + math.log1p(math.exp(-abs(z)))", "cost = -math.log(p_t)", "wrong**", "(1 - p_t) ** ",
)  # fmt: skip
P_FOR_NO = (
    *PROBABILITY, "z = logit if wanted else -logit", "p = 1 / (1 + math.exp(-logit))", "1 / (1 + math.exp(-z))",
    "p if wanted else 1 - p",
)  # fmt: skip
CAUGHT = """    try:
        math.log(p_t)
    except ValueError:
        return weight * abs(logit)
    cost"""
# An edit of the style "bce": torchvision's function in place of all of it.
TORCHVISION = """return torchvision.ops.sigmoid_focal_loss(logit, target, alpha, gamma)
    return"""
NAIVE = "math.log(1 + math.exp(-z))"
RIGHT_COST = "max(-z, 0) + math.log1p(math.exp(-abs(z)))"

WRONG = {
    "prior_bias": {
        "sign": [("inverse", "return -", "return "), ("numpy", "pi / (1 - pi)", "(1 - pi) / pi")],
        "one probability": [
            ("inverse", "(1 - pi) / pi", "pi"),
            ("difference", " - math.log(1 - pi)", ""),
            ("difference", "math.log(pi) - ", "-"),
            ("difference", "math.log(pi) - ", ""),
        ],
        "odds": [("numpy", "np.log(odds)", "odds"), ("inverse", "math.log", "")],
        "other base": [("inverse", "math.log", "math.log10"), ("numpy", "np.log", "np.log2")],
        "sigmoid": [
            ("torch", ".logit()", ".sigmoid()"),
            ("inverse", "-math.log((1 - pi) / pi)", "1 / (1 + math.exp(-pi))"),
        ],
        "score": [("torch", ".logit()", ""), ("inverse", "-math.log((1 - pi) / pi)", "pi")],
        "divided first": [("numpy", "pi / (1 - pi)", "1 - pi / pi"),
                          ("torch", "torch.tensor(pi).logit()", "-torch.log(torch.tensor(1 - pi / pi))")],
    },
    "initial_focal": {
        "background asked": [
            ("plain", "priors * classes", "priors * (classes + 1)"),
            ("numpy", "positives * (classes - 1) + (priors - positives) * classes",
             "positives * classes + (priors - positives) * (classes + 1)"),
        ],
        "positives say one thing": [
            ("numpy", "positives * (classes - 1) + ", ""),
            ("plain", "priors * classes - positives", "(priors - positives) * classes"),
        ],
        "yes and no": [("plain", " * classes - positives", " * classes"), ("numpy", "(classes - 1)", "classes")],
        "yes to every class": [
            ("plain", "noes = priors * classes - positives", "noes = (priors - positives) * classes",
             "(positives * a_yes", "(positives * classes * a_yes"),
            ("numpy", "positives, positives * (classes - 1) + ", "positives * classes, "),
            ("torchvision", "targets[:positives, 0] = 1", "targets[:positives] = 1"),
            ("plain", "(positives * a_yes", "(positives * classes * a_yes"),
        ],
        "one question": [("plain", " * classes - positives", " - positives"), ("plain", " * classes - positives", "")],
        "a class too few": [
            ("plain", "priors * classes - positives", "priors * (classes - 1) - positives"),
            ("plain", "priors * classes", "priors * (classes - 1)"),
        ],
        "one too many": [("plain", "max(positives, 1)", "(positives + 1)")],
        "always squared": [
            ("plain", "** gamma", "** 2", "pi**gamma", "pi**2"),
            ("numpy", "** gamma", "** 2"),
            ("torchvision", "alpha, gamma, reduction", "alpha, 2.0, reduction"),
        ],
        "mined": [("plain", "priors * classes - positives", "3 * positives")],
        "noes left out": [("plain", " + noes * a_no", "")],
        "yeses left out": [
            ("plain", "positives * a_yes + ", ""),
            ("numpy", "(count * cost).sum()", "count[1] * cost[1]"),
        ],
        "sum not divided": [("plain", " / max(positives, 1)", ""), ("torchvision", " / max(1, positives)", "")],
        "mean": [
            ("plain", "max(positives, 1)", "priors"),
            ("torchvision", 'reduction="sum"', 'reduction="mean"', " / max(1, positives)", ""),
        ],
        "no weights": [
            ("plain", "-alpha *", "-", "-(1 - alpha) *", "-"),
            ("torchvision", "alpha, gamma, reduction", "-1, gamma, reduction"),
        ],
        "one weight": [("numpy", "[alpha, 1 - alpha]", "[alpha, alpha]"), ("plain", "-(1 - alpha)", "-alpha")],
        "no weighs 1": [("plain", "-(1 - alpha) *", "-")],
        "weights exchanged": [
            ("numpy", "[alpha, 1 - alpha]", "[1 - alpha, alpha]"),
            ("torchvision", "alpha, gamma, reduction", "1 - alpha, gamma, reduction"),
        ],
        "counts exchanged": [
            ("plain", "positives * a_yes + noes * a_no", "noes * a_yes + positives * a_no"),
            ("numpy", "(count * cost)", "(count[::-1] * cost)"),
        ],
        "one half": [("numpy", "[pi, 1 - pi]", "[0.5, 0.5]"), ("torchvision", "math.log(pi / (1 - pi))", "0.0")],
        "scores exchanged": [
            ("numpy", "[pi, 1 - pi]", "[1 - pi, pi]"),
            ("torchvision", "pi / (1 - pi)", "(1 - pi) / pi"),
        ],
        "one score": [("numpy", "[pi, 1 - pi]", "[pi, pi]")],
        "no focus": [
            ("plain", " * (1 - pi) ** gamma", "", " * pi**gamma", ""),
            ("torchvision", "alpha, gamma, reduction", "alpha, 0, reduction"),
        ],
        "focus on the right": [
            ("numpy", "(1 - p_t) ** gamma", "p_t ** gamma"),
            ("plain", "(1 - pi) ** gamma", "Y", " pi**gamma", " (1 - pi) ** gamma", "Y", "pi**gamma"),
        ],
        "one focus": [("plain", " * pi**gamma", " * (1 - pi) ** gamma"), ("plain", "(1 - pi) ** gamma", "pi**gamma")],
        "half divided": [("plain", "(positives * a_yes + noes * a_no)", "positives * a_yes + noes * a_no")],
        "focus multiplied": [("numpy", "(1 - p_t) ** gamma", "(1 - p_t) * gamma")],
        "below zero": [("numpy", "-weight", "weight"), ("plain", "= -", "= ")],
        "logarithm": [("plain", "math.log", "math.log2"), ("numpy", "np.log", "np.log10")],
        "one at least": [
            ("plain", "noes = ", "positives = max(positives, 1)\n    noes = "),
            ("torchvision", "targets[:positives, 0] = 1", "targets[: max(1, positives), 0] = 1"),
            ("plain", "(positives * a_yes", "(max(positives, 1) * a_yes"),
            ("plain", "priors * classes - positives", "priors * classes - max(positives, 1)"),
        ],
        "whole gamma": [("plain", "a_yes =", "gamma = int(gamma)\n    a_yes =")],
        "no positive": [
            ("plain", "max(positives, 1)", "positives"),
            ("numpy", "(positives or 1)", "positives"),
            ("plain", "max(positives, 1)", "(positives + 1e-6)"),
            ("numpy", "(positives or 1)", "(positives + 1e-8)"),
            ("plain", "max(positives, 1)", "max(positives, 1e-6)"),
            ("torchvision", "max(1, positives)", "positives"),
            ("plain", "a_yes = -", "if positives == 0:\n        return 0.0\n    a_yes = -"),
        ],
    },
    "focal_term": {
        "focus turned round": [
            ("math", *PROBABILITY, "(1 - p_t) ** gamma", "p_t ** gamma"),
            ("plain", "wrong**gamma", "(1 - wrong) ** gamma"),
            ("torch", "torch.sigmoid(-z)", "torch.sigmoid(z)"),
        ],
        "p for p_t": [
            ("torch", "sign * logit", "logit"),
            ("math", "math.exp(-z) / (1 + math.exp(-z))", "1 - 1 / (1 + math.exp(-logit))"),
            ("torch", "torch.sigmoid(-z)", "torch.sigmoid(torch.tensor(-logit))"),
            ("torch", "logsigmoid(z)", "logsigmoid(torch.tensor(logit))"),
        ],
        "alpha for both": [
            ("plain", "weight = alpha if wanted else 1 - alpha", "weight = alpha"),
            ("torch", "weight = alpha if wanted else 1 - alpha", "weight = alpha"),
        ],
        "alpha for no": [
            ("torch", "alpha if wanted else 1 - alpha", "1 - alpha if wanted else alpha"),
            ("bce", "target * alpha + (1 - target) * (1 - alpha)", "target * (1 - alpha) + (1 - target) * alpha"),
        ],
        "no alpha": [
            ("plain", "return weight * ", "return "),
            ("bce", "(target * alpha + (1 - target) * (1 - alpha)) * ", ""),
        ],
        "no without a weight": [("torch", "else 1 - alpha", "else 1"), ("plain", "else 1 - alpha", "else 1")],
        "no minus": [("torch", "-weight", "weight"), ("math", "weight *", "-weight *")],
        "base of the logarithm": [
            ("math", RIGHT_COST, "-math.log10(1 / (1 + math.exp(-z)))"),
            ("plain", "math.log1p(math.exp(-signed))", "math.log2(1 + math.exp(-signed))"),
        ],
        "times gamma": [("plain", "wrong**gamma", "wrong * gamma"), ("torch", "(-z) ** gamma", "(-z) * gamma")],
        "no gamma": [("plain", "wrong**gamma * ", ""), ("bce", "wrong**gamma * ", "")],
        "always squared": [("bce", "**gamma", "**2"), ("math", "**gamma", "**2")],
        "no sigmoid": [
            ("math", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "logit"),
            ("math", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit)", "math.log", "torch.log"),
        ],
        "sign": [
            ("plain", "logit if wanted else -logit", "-logit if wanted else logit"),
            ("torch", "1 if wanted else -1", "-1 if wanted else 1"),
            ("torch", "sign * logit", "-sign * logit"),
        ],
        "yes and no": [
            ("plain", "signed =", "wanted = not wanted\n    signed ="),
            ("bce", "float(wanted)", "1.0 - wanted"),
        ],
        "wanted ignored": [
            ("bce", "float(wanted)", "1.0"),
            ("plain", "signed =", "wanted = True\n    signed ="),
            ("plain", "signed =", "wanted = False\n    signed ="),
        ],
        "digits": [
            ("math", *P_FOR_NO),
            ("math", *P_FOR_NO, "math.log", "np.log"),
            ("math", *P_FOR_NO, "math.log(p_t)", "(math.log(p_t) if p_t > 0 else -abs(logit))"),
            ("math", *P_FOR_NO, "    cost", CAUGHT),
            ("math", *P_FOR_NO, "math.exp(-logit)", "torch.tensor(-logit).exp()", "math.log", "torch.log"),
            ("math", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit).sigmoid()", "    cost", CAUGHT),
            ("torch", "torch.nn.functional.logsigmoid(z)", "torch.log(1 - torch.sigmoid(-z))"),
            ("math", *PROBABILITY, "1 / (1 + math.exp(-z))", "1 - 1 / (1 + math.exp(z))"),
        ],
        "added to 1": [
            ("math", *PROBABILITY),
            ("plain", "math.log1p(math.exp(-signed))", "math.log(1 + math.exp(-signed))"),
            ("math", RIGHT_COST, "np.log(1 + np.exp(-z))"),
            ("math", RIGHT_COST, f"{NAIVE} if z > -30 else -z"),
            ("torch", "torch.nn.functional.logsigmoid(z)", "torch.log(torch.sigmoid(z))"),
            ("torch", "-weight", "weight", "torch.nn.functional.logsigmoid(z)", "torch.log(1 + torch.exp(-z))"),
            ("double", "torch.nn.functional.softplus(-z)", "-torch.log(torch.sigmoid(z))"),
        ],
        "naive below a border": [
            ("math", RIGHT_COST, f"{NAIVE} if abs(z) < 30 else {RIGHT_COST}"),
            ("math", RIGHT_COST, f"{NAIVE} if abs(z) < 30 else math.exp(-z) if z > 0 else -z"),
            ("math", RIGHT_COST, f"-math.log(1 / (1 + math.exp(-z))) if abs(z) <= 35 else {RIGHT_COST}"),
        ],
        "cut off": [
            ("math", RIGHT_COST, f"max(0, -z) if abs(z) > 16 else {NAIVE}"),
            ("math", RIGHT_COST, f"max(0, -z) if abs(z) > 16 else {RIGHT_COST}"),
            ("math", RIGHT_COST, f"0.0 if z > 30 else {RIGHT_COST}"),
        ],
        "taken from 1": [
            ("bce", "return", TORCHVISION),
            ("bce", "torch.sigmoid((1 - 2 * target) * logit)", "1 - torch.exp(-cost)"),
            ("plain", "1 / (1 + math.exp(signed))", "1 - 1 / (1 + math.exp(-signed))"),
            ("double", "-torch.expm1(-cost)", "1 - torch.exp(-cost)"),
        ],
        "kept away from 0": [
            ("math", *P_FOR_NO, "math.log(p_t)", "math.log(max(p_t, 1e-8))"),
            ("math", *P_FOR_NO, "math.log(p_t)", "np.log(p_t + 1e-12)"),
            ("math", *P_FOR_NO, "math.log(p_t)", "math.log(max(p_t, 1e-16))"),
            ("math", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit).sigmoid()",
             "math.log(p_t)", "torch.log(p_t + 1e-9)"),
            ("math", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit).sigmoid().clamp(1e-7, 1 - 1e-7)",
             "math.log(p_t)", "torch.log(p_t)"),
        ],
    },
}  # fmt: skip
