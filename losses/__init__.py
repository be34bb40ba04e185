"""Losses by name. Each takes what a net returns and the mask (N, H, W), 0 or 1, and gives a float32 scalar."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from command import BadInput
from losses.supervision import bce_loss, deep_supervision, lovasz_bce_loss, lovasz_loss

Loss = Callable[[Any, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "saltnet": deep_supervision,
    "lovasz": lovasz_loss,
    "bce": bce_loss,
    "lovasz_bce": lovasz_bce_loss,
}


def build(name: str) -> Loss:
    """The loss of that name; BadInput lists the names when there is none."""
    if name not in LOSSES:
        raise BadInput(f"got the loss {name!r}, expected one of {', '.join(LOSSES)}")
    return LOSSES[name]
