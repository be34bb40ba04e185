"""Scores of stored probabilities against the masks, in chunks of tiles, exact in integers.

A pixel is salt when its probability lies strictly above the threshold. Thresholds are whole hundredths.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.predictions import SCALE, Predictions
from losses import metric
from losses.compare import Gain
from postprocess.stages import plain

CHUNK = 128  # tiles in memory at a time: 10 MB of indices at 101 x 101 pixels


def chunks(num: int, size: int = CHUNK) -> Iterator[slice]:
    return (slice(first, min(first + size, num)) for first in range(0, num, size))


def limit(threshold: float) -> int:
    """The largest stored pixel (uint16) that is not salt: p / 65535 > threshold in integers."""
    return round(100 * threshold) * SCALE // 100


def masks_at(stored: Predictions, threshold: float) -> np.ndarray:
    """(N, H, W) uint8, 1 where the probability is above `threshold`."""
    masks = np.empty(stored.pixels.shape, np.uint8)
    for part in chunks(len(stored)):
        np.greater(stored.pixels[part], limit(threshold), out=masks[part].view(bool))
    return masks


def tenths_of(masks: np.ndarray, truth: Tensor) -> np.ndarray:
    """Ten times the score of each mask, (N,) 0..10. masks (N, H, W) uint8 0 / 1, truth the same."""
    parts = [metric.tenths(torch.from_numpy(masks[part]), truth[part]).numpy() for part in chunks(len(masks))]
    return np.concatenate(parts)


def tenths_at(stored: Predictions, truth: Tensor, threshold: float = 0.5) -> np.ndarray:
    """`tenths_of` the masks at one threshold, (N,), without keeping them."""
    parts = [
        metric.tenths(torch.from_numpy(stored.pixels[part] > limit(threshold)), truth[part]).numpy()
        for part in chunks(len(stored))
    ]
    return np.concatenate(parts)


def tenths_on_grid(stored: Predictions, truth: Tensor, thresholds: Sequence[float]) -> np.ndarray:
    """`tenths_at` each of the rising thresholds, (N, T), in one pass over the pixels.

    Each pixel is counted once, by tile, truth and the number of thresholds it lies above; sums from the top of these
    counts are the pixels predicted at each threshold, and those of them that are salt.
    """
    limits = [limit(threshold) for threshold in thresholds]
    above = np.searchsorted(limits, np.arange(SCALE + 1), side="left")  # thresholds below each stored value
    num_bins, parts = len(limits) + 1, []
    for part in chunks(len(stored)):
        pixels, salt = stored.pixels[part], truth[part].numpy().astype(np.int64)
        rows = np.arange(len(pixels)).reshape(-1, 1, 1)
        groups = (2 * rows + salt) * num_bins + above[pixels]
        counts = np.bincount(groups.ravel(), minlength=len(pixels) * 2 * num_bins)
        counts = torch.from_numpy(counts.reshape(-1, 2, num_bins))
        predicted = counts.flip(2).cumsum(2).flip(2)[..., 1:]  # (n, 2, T)
        intersection, union = predicted[:, 1], counts[:, 1].sum(1, keepdim=True) + predicted[:, 0]
        parts.append(metric.tenths_of_counts(intersection, union).numpy())
    return np.concatenate(parts)


def tenths_of_empty(truth: Tensor) -> np.ndarray:
    """Ten times the score of predicting no salt anywhere, (N,): 10 for empty truth, else 0."""
    return np.where(truth.flatten(1).any(dim=1).numpy(), 0, 10)


def score(tenths: np.ndarray) -> dict[str, Any]:
    """Mean metric (0..1), its standard error (None for a single tile) and the number of tiles, as stored in JSON."""
    error = metric.standard_error(torch.from_numpy(tenths / 10))
    return {"metric": int(tenths.sum()) / (10 * len(tenths)), "standard_error": plain(error), "tiles": len(tenths)}


def gain(found: Gain) -> dict[str, float]:
    """A paired gain with its 95 % interval, as stored in JSON."""
    return {"mean": found.mean, "low": found.low, "high": found.high}


def text(found: dict[str, Any]) -> str:
    """ "0.8123 ± 0.0131 (400 tiles)" of a stored score."""
    error = found["standard_error"]
    return f"{found['metric']:.4f} ± {'?' if error is None else f'{error:.4f}'} ({found['tiles']:,} tiles)"
