"""Rules that correct predicted masks, each a pure function of what is known of the tiles and their masks.

A rule that no labelled tile contradicts rests on the labels themselves. Any other, above all one whose numbers were
searched (`contradicted=None`), has to show its gain out of fold; see postprocess.rules.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Evidence(NamedTuple):
    """What a rule may look at, for N tiles."""

    names: Sequence[str]
    images: np.ndarray  # (N, C, H, W) uint8 or uint16
    image_probability: np.ndarray  # (N,) 0..1, that the tile holds any salt


class Rule(NamedTuple):
    apply: Callable[[Evidence, np.ndarray], np.ndarray]  # masks (N, H, W) uint8 0 / 1 -> new masks, the old unchanged
    contradicted: Callable[[np.ndarray, np.ndarray], np.ndarray] | None  # images, true masks -> (N,) bool
    because: str


def uniform_empty(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """Tiles of one grey value hold no salt: they are blank parts of the section, and their labels are empty."""
    return emptied(masks, is_uniform(evidence.images))


def full_empty(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """A mask that is all salt becomes empty: the labels draw the salt's border, and a tile wholly inside has none."""
    return emptied(masks, is_full(masks))


def uniform_with_salt(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return is_uniform(images) & truth.any(axis=(1, 2))


def full_truth(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return is_full(truth)


def is_uniform(images: np.ndarray) -> np.ndarray:
    """(N,) bool: every channel of (N, C, H, W) has one value."""
    return (images == images[:, :, :1, :1]).all(axis=(1, 2, 3))


def is_full(masks: np.ndarray) -> np.ndarray:
    """(N,) bool: every pixel of (N, H, W) is salt."""
    return masks.all(axis=(1, 2))


def emptied(masks: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A copy in which the masks that `chosen` (N,) picks are empty."""
    changed = masks.copy()
    changed[chosen] = 0
    return changed


# In the order in which they are applied. Each has a switch of its name in postprocess.rules.Options.
RULES = {
    "uniform_empty": Rule(uniform_empty, uniform_with_salt, "labelled tiles of one grey value are all empty"),
    "full_empty": Rule(full_empty, full_truth, "no labelled mask is all salt: tiles wholly inside salt are empty"),
}
