"""Is B better than A? Both scored on the same tiles: the paired difference is far less noisy than either score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

NUM_RESAMPLES = 10_000  # the bounds of a 95 % interval then vary by about 2 % of its width
CHUNK = 1 << 20  # drawn tiles in memory at a time


class Gain(NamedTuple):
    """Mean gain and the bounds of its 95 % interval, in the scores' unit. `low` > 0: B is better beyond chance."""

    mean: float
    low: float
    high: float


def chance_of_best(gains: ArrayLike, groups: ArrayLike, seed: int = 0) -> float:
    """How often chance makes the best of V variants as good as it is, 0..1; 0.025 or less is beyond chance.

    gains (V, N): what each variant gains on each tile. groups (N,): tiles of a group may gain together, by one cause.
    Chance turns the sign of all gains of a group, for all variants at once, so that neither the choice of the best nor
    tiles that depend on each other make a gain look certain. One tile alone never is: k groups give 2^-k at least.
    Westfall & Young 1993, "Resampling-based multiple testing", section 2.
    """
    gains = np.asarray(gains, dtype=np.float64)
    groups = np.unique(groups, return_inverse=True)[1]
    if gains.ndim != 2 or groups.shape != gains.shape[1:] or not gains.size:
        raise ValueError(f"gains are {gains.shape} and groups {groups.shape}, expected (V, N) and (N,)")
    sums = np.zeros((groups.max() + 1, len(gains)))
    np.add.at(sums, groups, gains.T)
    sums = sums[sums.any(axis=1)]
    observed, random = sums.sum(axis=0).max(initial=-np.inf), np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], size=(NUM_RESAMPLES, len(sums)))
    best = (signs @ sums).max(axis=1)
    return float((1 + np.count_nonzero(best >= observed - 1e-9)) / (1 + NUM_RESAMPLES))


def paired_gain(scores_a: ArrayLike, scores_b: ArrayLike, seed: int = 0) -> Gain:
    """Gain of B over A with its 95 % bootstrap interval (percentiles over resampled tiles).

    scores_a, scores_b (N,), one score per tile and in the same order of tiles. The same seed gives the same bounds.
    """
    if np.shape(scores_a) != np.shape(scores_b) or np.ndim(scores_a) != 1 or len(scores_a) == 0:
        raise ValueError(f"scores are {np.shape(scores_a)} and {np.shape(scores_b)}, expected one per tile, twice")
    gains = np.asarray(scores_b, dtype=np.float64) - np.asarray(scores_a, dtype=np.float64)
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(gains))
    sizes = [min(rows, NUM_RESAMPLES - start) for start in range(0, NUM_RESAMPLES, rows)]
    means = [gains[random.integers(len(gains), size=(size, len(gains)), dtype=np.int32)].mean(axis=1) for size in sizes]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Gain(float(gains.mean()), float(low), float(high))
