"""Small outputs of nets and masks for them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Output(NamedTuple):
    """What nets return, by its attributes alone."""

    logits: Tensor
    level_logits: tuple[Tensor, ...] = ()
    image_logits: Tensor | None = None


def deep_output(num_tiles=4, size=12, classes=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    levels = tuple(random(num_tiles, classes, size, size) for _ in range(5))
    return Output(random(num_tiles, classes, size, size), levels, random(num_tiles))


def mask_with_empty_ones(num_tiles=4, size=12, classes=1):
    """Labels 1 .. classes - 1 (1 for one class) in the first and third tile."""
    mask = torch.zeros(num_tiles, size, size, dtype=torch.uint8)
    mask[0, :5], mask[2, 3, 4] = 1, 1
    if classes > 2:
        mask[0, 7:], mask[2, 8:, :5] = 2, 2
    return mask
