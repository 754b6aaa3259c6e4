"""Learning-rate schedules: a warmup, then the share of the peak rate that each step learns with."""

from math import cos, inf, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Rises in a straight line from 1 / warmup_steps to 1, and stays there.

    Never 0: a first epoch at rate 0 teaches nothing.
    """
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def warmup_cosine_factor(step: int, warmup_steps: int, total_steps: int, final_factor: float = 0.0) -> float:
    """What to multiply the peak learning rate by at a step.

    After the warmup it falls along half a cosine to `final_factor` at the last step.
    """
    if step < warmup_steps:
        return warmup_factor(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    return final_factor + (1 - final_factor) * (1 + cos(pi * progress)) / 2


def step_drops_factor(
    step: int, warmup_steps: int, total_steps: int, milestones: tuple[float, ...] = (2 / 3, 5 / 6), drop: float = 0.1
) -> float:
    """Multiplied by `drop` at each milestone, a share of all steps."""
    passed = sum(step >= round(milestone * total_steps) for milestone in milestones)
    return warmup_factor(step, warmup_steps) * drop**passed


def staircase_factor(step: int, warmup_steps: int, total_steps: int, stairs: int = 20, decay: float = 0.8) -> float:
    """Multiplied by `decay` from each of `stairs` equally long stretches to the next."""
    return warmup_factor(step, warmup_steps) * decay ** (step * stairs // total_steps)


def triangular2_factor(step: int, warmup_steps: int, total_steps: int, cycles: int = 4, lowest: float = 0.1) -> float:
    """After the warmup to `lowest`: up in a line and down again in each cycle, half as high every time."""
    cycle, position = divmod(cycles * max(0, step - warmup_steps) / (total_steps - warmup_steps), 1)
    height = (1 - abs(2 * position - 1)) / 2**cycle
    return warmup_factor(step, warmup_steps) * (lowest + (1 - lowest) * height)


def require_room(warmup_steps: int, total_steps: int) -> None:
    """Refuse a warmup that does not fit into the total."""
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps}, total_steps={total_steps}: the warmup must be shorter")


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
    require_room(warmup_steps, total_steps)
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, warmup_steps, total_steps, final_factor))


def step_drops(
    optimizer: Optimizer,
    warmup_steps: int,
    total_steps: int,
    milestones: tuple[float, ...] = (2 / 3, 5 / 6),
    drop: float = 0.1,
) -> LambdaLR:
    """Warmup, then the peak, which drops at milestones; called as `warmup_cosine` is.

    Args:
        milestones: shares of `total_steps`. The defaults are the original SSD's, 80,000 and 100,000 of 120,000 steps.
        drop: what each of them multiplies the rate by.

    Source: Liu et al. 2016, section 3; its code.
    """
    require_room(warmup_steps, total_steps)
    return LambdaLR(optimizer, lambda step: step_drops_factor(step, warmup_steps, total_steps, milestones, drop))


def staircase(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, stairs: int = 20, decay: float = 0.8
) -> LambdaLR:
    """Warmup, then an exponential that falls in stairs; called as `warmup_cosine` is.

    Args:
        stairs: how many, over all steps.
        decay: from a stair to the next; the defaults end at 0.8^19, which is 1.4 % of the peak.

    Source: TensorFlow's `exponential_decay(staircase=True)`, by which its SSDs were trained; the numbers are ours.
    """
    require_room(warmup_steps, total_steps)
    return LambdaLR(optimizer, lambda step: staircase_factor(step, warmup_steps, total_steps, stairs, decay))


def triangular2(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, cycles: int = 4, lowest: float = 0.1
) -> LambdaLR:
    """Warmup to the lowest rate, then triangles that halve their height; called as `warmup_cosine` is.

    Args:
        cycles: how many, over the steps after the warmup.
        lowest: where each begins and ends, as a share of the peak. The paper finds peak and lowest by a range test.

    Source: Smith 2017, "Cyclical Learning Rates", section 3.
    """
    require_room(warmup_steps, total_steps)
    return LambdaLR(optimizer, lambda step: triangular2_factor(step, warmup_steps, total_steps, cycles, lowest))


def constant(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Warmup, then the peak to the end; called as `warmup_cosine` is."""
    require_room(warmup_steps, total_steps)
    return LambdaLR(optimizer, lambda step: warmup_factor(step, warmup_steps))


class Plateau(LambdaLR):
    """Warmup, then the peak, which drops whenever measurements bring nothing new; see `plateau`."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int, drop: float, patience: int) -> None:
        self.best, self.waited, self.drops = -inf, 0, 0  # all in `state_dict`
        self.drop, self.patience = drop, patience
        super().__init__(optimizer, lambda step: warmup_factor(step, warmup_steps) * self.drop**self.drops)

    def measured(self, score: float) -> None:
        """Take note of a measurement, of which more is better; NaN is no better than anything."""
        if score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited, self.drops = 0, self.drops + 1
            for group, peak, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
                group["lr"] = peak * factor(self.last_epoch)  # the next step's, and not only that after it
            self._last_lr = [group["lr"] for group in self.optimizer.param_groups]  # what `get_last_lr` gives


def plateau(optimizer: Optimizer, warmup_steps: int, total_steps: int, drop: float = 0.1, patience: int = 2) -> Plateau:
    """Warmup, then the peak until mAP rises no more; called as `warmup_cosine` is, and `.measured(map)` besides.

    Args:
        drop: what the rate is multiplied by after more than `patience` measurements in a row without a new best.

    The oracle is torch's `ReduceLROnPlateau(mode="max", threshold=0)`, which is stepped by measurements alone and
    knows no warmup.
    """
    require_room(warmup_steps, total_steps)
    return Plateau(optimizer, warmup_steps, drop, patience)


SCHEDULES = {
    "warmup_cosine": warmup_cosine,
    "step_drops": step_drops,
    "staircase": staircase,
    "triangular2": triangular2,
    "plateau": plateau,
    "constant": constant,
}
