"""Losses in float32: mixed precision is for the network, not for sums over ten thousand pixels."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def in_float32(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`loss(logits, ...)` with autocast off and logits of at least float32; float64 stays float64."""

    @wraps(loss)
    def wrapped(logits: Tensor, *args, **kwargs) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return loss(logits if logits.dtype == torch.float64 else logits.float(), *args, **kwargs)

    return wrapped
