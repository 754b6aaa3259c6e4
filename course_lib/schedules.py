"""Learning-rate schedules."""

from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine_factor(step: int, warmup_steps: int, total_steps: int, final_factor: float = 0.0) -> float:
    """What to multiply the peak learning rate by at a step.

    It rises in a straight line from 1 / warmup_steps (never 0: a first epoch at rate 0 teaches
    nothing) to 1, then falls along half a cosine to `final_factor` at the last step.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    return final_factor + (1 - final_factor) * (1 + cos(pi * progress)) / 2


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int, final_factor: float = 0.0) -> LambdaLR:
    """Warmup, then cosine; call `.step()` once after every optimiser step.

    Args:
        warmup_steps: steps of the rise; may be 0.
        total_steps: all steps, the warmup's among them.
        final_factor: last learning rate, as a share of the peak.

    Raises:
        ValueError: the warmup does not fit into the total.

    Source: Loshchilov and Hutter 2017 (cosine); Goyal et al. 2017 (warmup).
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps}, total_steps={total_steps}: the warmup must be shorter")
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, warmup_steps, total_steps, final_factor))
