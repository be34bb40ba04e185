"""Predict an image larger than what a model was trained on: overlapping windows, blended by a cosine.

Every window counts with sin^2 of its position along each side, so that neighbours fade into each other without a seam;
with an overlap of one half the weights of all windows add up to one everywhere but near the raster's border.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_WEIGHT = 1e-3  # of a window's outermost pixels, which nothing else may cover


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along a side: evenly spread, the last one ending with the side. One for a side that fits."""
    if length <= window:
        return [0]
    step = max(1, round(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return np.linspace(0, length - window, count).round().astype(int).tolist()


def fade(size: tuple[int, int]) -> Tensor:
    """Weights (h, w) of a window: sin^2 along each side."""
    sides = [torch.sin(torch.pi * (torch.arange(side) + 0.5) / side).square().clamp(min=LEAST_WEIGHT) for side in size]
    return sides[0][:, None] * sides[1]


def blend(
    image: Tensor, window: tuple[int, int], overlap: float, batch: int, predict: Callable[[Tensor], Tensor]
) -> Tensor:
    """Probabilities (K, H, W) of an image (C, H, W), float32 on the CPU.

    `predict` takes windows (n, C, h, w) of the size `window`, n at most `batch`, and gives (n, K, h, w). An image that
    is smaller is reflected at its right and lower border, or its edge repeated where that is not enough.
    """
    own_height, own_width = image.shape[-2:]
    image = enlarged(image, window)
    height, width = image.shape[-2:]
    size = window
    corners = [(y, x) for y in starts(height, size[0], overlap) for x in starts(width, size[1], overlap)]
    weight = fade(size)
    total, weights = None, torch.zeros(height, width)
    for group in batches(corners, batch):
        found = predict(torch.stack([image[:, y : y + size[0], x : x + size[1]] for y, x in group])).float().cpu()
        if total is None:
            total = torch.zeros(found.shape[1], height, width)
        for probability, (y, x) in zip(found, group, strict=True):
            total[:, y : y + size[0], x : x + size[1]] += probability * weight
            weights[y : y + size[0], x : x + size[1]] += weight
    return (total / weights)[:, :own_height, :own_width]


def enlarged(image: Tensor, least: tuple[int, int]) -> Tensor:
    """(C, H, W) with sides of at least these."""
    missing = [max(0, side - has) for side, has in zip(least, image.shape[-2:], strict=True)]
    if not any(missing):
        return image
    fits = all(more < has for more, has in zip(missing, image.shape[-2:], strict=True))
    return F.pad(image[None], (0, missing[1], 0, missing[0]), mode="reflect" if fits else "replicate")[0]


def batches(items: list, size: int) -> Iterator[list]:
    return (items[first : first + size] for first in range(0, len(items), size))
