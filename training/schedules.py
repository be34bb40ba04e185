"""Learning-rate schedules: functions of where training is, so that a resumed run needs no state of theirs.

Each takes (config, progress, losses) and returns a factor of the peak rate. `progress` counts epochs from 0 with a
fraction for the step within; `losses` are the validation losses of the finished epochs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

WARM_UP = 0.25  # share of a one-cycle run in which the rate rises
CLR_FLOOR = 0.1  # the rate at the end of each clr cycle, relative to its start


def noam(config: Any, progress: float, losses: Sequence[float]) -> float:
    """Linear up to epoch 10, then as 1 / sqrt(epoch): 0.1 at epoch 0, 1 at 10, 0.2 at 250 (Vaswani 2017, 5.3)."""
    epoch = max(1, int(progress))
    return math.sqrt(10) * min(epoch**-0.5, epoch * 10**-1.5)


def constant(config: Any, progress: float, losses: Sequence[float]) -> float:
    return 1.0


def plateau(config: Any, progress: float, losses: Sequence[float]) -> float:
    """A tenth after each stretch of more than `patience` epochs without a lower validation loss."""
    best, waited, factor = math.inf, 0, 1.0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited > config.patience:
            factor, waited = factor / 10, 0
    return factor


def step(config: Any, progress: float, losses: Sequence[float]) -> float:
    """A tenth after each third of the epochs."""
    return 0.1 ** int(3 * int(progress) / config.epochs)


def milestones(config: Any, progress: float, losses: Sequence[float]) -> float:
    """A tenth from each of the epochs in `config.milestones` on."""
    return 0.1 ** sum(int(progress) >= int(epoch) for epoch in config.milestones.split())


def cosine(config: Any, progress: float, losses: Sequence[float]) -> float:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    return (1 + math.cos(math.pi * progress / config.epochs)) / 2


def clr(config: Any, progress: float, losses: Sequence[float]) -> float:
    """`config.cycles` cosines from 1 to CLR_FLOOR, restarted: snapshots (Huang et al. 2017, https://arxiv.org/abs/1704.00109)."""
    within = progress * config.cycles / config.epochs % 1
    return CLR_FLOOR + (1 - CLR_FLOOR) * (1 + math.cos(math.pi * within)) / 2


def onecycle(config: Any, progress: float, losses: Sequence[float]) -> float:
    """Up from 1/25 in the first quarter, then down to 0, both along cosines (Smith 2018, https://arxiv.org/abs/1803.09820)."""
    share = progress / config.epochs
    if share < WARM_UP:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * share / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2


SCHEDULES: dict[str, Callable[[Any, float, Sequence[float]], float]] = {
    "noam": noam,
    "constant": constant,
    "plateau": plateau,
    "step": step,
    "milestones": milestones,
    "cosine": cosine,
    "clr": clr,
    "onecycle": onecycle,
}


def cycle_of(config: Any, epoch: int) -> int:
    """The cycle an epoch belongs to, from 0; every schedule but clr has one."""
    return epoch * config.cycles // config.epochs if config.schedule == "clr" else 0
