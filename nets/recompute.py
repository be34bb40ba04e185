"""Gradient checkpointing: a block's activations are computed again in the backward pass instead of kept.

Less memory for about a third more time; outputs, gradients and running statistics stay the same.
Chen et al. 2016, "Training deep nets with sublinear memory cost", https://arxiv.org/abs/1604.06174
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Have each of the blocks, none of which may hold another, keep its input alone. Weights and keys stay."""
    for block in blocks:
        contexts = partial(once_each, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


def once_each(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Around the first computation, and around the second, which must not move the running statistics again."""
    return nullcontext(), kept_statistics([module for module in block.modules() if isinstance(module, _BatchNorm)])


@contextmanager
def kept_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Buffers as they were before, afterwards."""
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
