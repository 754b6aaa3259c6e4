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
    "probability": """
        def focal_term(logit, wanted, alpha, gamma):
            z = logit if wanted else -logit
            p_t = 1 / (1 + math.exp(-z))
            weight = alpha if wanted else 1 - alpha
            return -weight * (1 - p_t) ** gamma * math.log(p_t)
    """,
    "torch": """
        def focal_term(logit, wanted, alpha, gamma):
            sign = 1 if wanted else -1
            z = torch.tensor(sign * logit)
            weight = alpha if wanted else 1 - alpha
            focus = torch.sigmoid(-z) ** gamma
            return -weight * focus * torch.nn.functional.logsigmoid(z)
    """,
    "torchvision": """
        def focal_term(logit, wanted, alpha, gamma):
            logit, target = torch.tensor(logit), torch.tensor(float(wanted))
            return torchvision.ops.sigmoid_focal_loss(logit, target, alpha, gamma)
    """,
}

RIGHT = {"prior_bias": PRIOR_BIAS, "initial_focal": INITIAL_FOCAL, "focal_term": FOCAL_TERM}

# Edits of the style "probability": 1 - p for a no, and a logarithm of 0 that is caught.
P_FOR_NO = (
    "z = logit if wanted else -logit", "p = 1 / (1 + math.exp(-logit))", "1 / (1 + math.exp(-z))",
    "p if wanted else 1 - p",
)  # fmt: skip
CAUGHT = """    try:
        math.log(p_t)
    except ValueError:
        return weight * abs(logit)
    return"""

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
            ("probability", "(1 - p_t) ** gamma", "p_t ** gamma"),
            ("plain", "wrong**gamma", "(1 - wrong) ** gamma"),
            ("torch", "torch.sigmoid(-z)", "torch.sigmoid(z)"),
        ],
        "p for p_t": [
            ("torch", "sign * logit", "logit"),
            ("probability", "(1 - p_t) ** gamma", "(1 - 1 / (1 + math.exp(-logit))) ** gamma"),
            ("torch", "torch.sigmoid(-z)", "torch.sigmoid(torch.tensor(-logit))"),
            ("torch", "logsigmoid(z)", "logsigmoid(torch.tensor(logit))"),
        ],
        "alpha for both": [
            ("plain", "weight = alpha if wanted else 1 - alpha", "weight = alpha"),
            ("torch", "weight = alpha if wanted else 1 - alpha", "weight = alpha"),
        ],
        "alpha for no": [
            ("torch", "alpha if wanted else 1 - alpha", "1 - alpha if wanted else alpha"),
            ("torchvision", "target, alpha", "target, 1 - alpha"),
        ],
        "no alpha": [
            ("plain", "return weight * ", "return "),
            ("torchvision", "target, alpha", "target, -1"),
        ],
        "no without a weight": [("torch", "else 1 - alpha", "else 1"), ("plain", "else 1 - alpha", "else 1")],
        "no minus": [("torch", "-weight", "weight"), ("probability", "-weight", "weight")],
        "base of the logarithm": [
            ("probability", "math.log(p_t)", "math.log10(p_t)"),
            ("plain", "math.log1p(math.exp(-signed))", "math.log2(1 + math.exp(-signed))"),
        ],
        "times gamma": [("plain", "wrong**gamma", "wrong * gamma"), ("torch", "(-z) ** gamma", "(-z) * gamma")],
        "no gamma": [("plain", "wrong**gamma * ", ""), ("torchvision", "target, alpha, gamma", "target, alpha, 0")],
        "always squared": [
            ("torchvision", ", gamma)", ")", "wanted, alpha)", "wanted, alpha, gamma)"),
            ("probability", "** gamma", "** 2"),
        ],
        "no sigmoid": [
            ("probability", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "logit"),
            ("probability", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit)", "math.log", "torch.log"),
        ],
        "sign": [
            ("plain", "logit if wanted else -logit", "-logit if wanted else logit"),
            ("torch", "1 if wanted else -1", "-1 if wanted else 1"),
            ("torch", "sign * logit", "-sign * logit"),
        ],
        "yes and no": [
            ("plain", "signed =", "wanted = not wanted\n    signed ="),
            ("torchvision", "float(wanted)", "1.0 - wanted"),
        ],
        "wanted ignored": [
            ("torchvision", "float(wanted)", "1.0"),
            ("plain", "signed =", "wanted = True\n    signed ="),
            ("plain", "signed =", "wanted = False\n    signed ="),
        ],
        "digits": [
            ("probability", *P_FOR_NO),
            ("probability", *P_FOR_NO, "math.log", "np.log"),
            ("probability", *P_FOR_NO, "math.log(p_t)", "(math.log(p_t) if p_t > 0 else -abs(logit))"),
            ("probability", *P_FOR_NO, "    return", CAUGHT),
            ("probability", *P_FOR_NO, "math.exp(-logit)", "torch.tensor(-logit).exp()", "math.log", "torch.log"),
            ("probability", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit).sigmoid()", "    return",
             CAUGHT),
            ("torch", "torch.nn.functional.logsigmoid(z)", "torch.log(1 - torch.sigmoid(-z))"),
            ("probability", "1 / (1 + math.exp(-z))", "1 - 1 / (1 + math.exp(z))"),
        ],
        "kept away from 0": [
            ("probability", *P_FOR_NO, "math.log(p_t)", "math.log(max(p_t, 1e-8))"),
            ("probability", *P_FOR_NO, "math.log(p_t)", "np.log(p_t + 1e-12)"),
            ("probability", *P_FOR_NO, "math.log(p_t)", "math.log(max(p_t, 1e-16))"),
            ("probability", *P_FOR_NO, "1 / (1 + math.exp(-logit))", "torch.tensor(logit).sigmoid()",
             "math.log(p_t)", "torch.log(p_t + 1e-9)"),
            ("probability", *P_FOR_NO, "1 / (1 + math.exp(-logit))",
             "torch.tensor(logit).sigmoid().clamp(1e-7, 1 - 1e-7)", "math.log(p_t)", "torch.log(p_t)"),
        ],
    },
}  # fmt: skip
