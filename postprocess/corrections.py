"""Rules that correct predicted masks, each a pure function of what is known of the tiles and their masks.

A rule that enough labelled tiles bear out and none contradicts rests on the labels themselves; one by which labelled
tiles decide of their neighbours is measured on labelled tiles; any other, above all one whose numbers were searched,
has to show its gain out of fold. See postprocess.rules.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from postprocess.around import Around
from postprocess.columns import NONE, Columns

FIRST_ROW = 3  # of a mosaic, from which on vertical salt goes on upwards: above, tiles reach the salt's top


class Evidence(NamedTuple):
    """What a rule may look at, for N tiles."""

    names: Sequence[str]
    images: np.ndarray  # (N, C, H, W) uint8 or uint16
    image_probability: np.ndarray  # (N,) 0..1, that the tile holds any salt
    columns: Columns  # labelled tiles above and below in the mosaics
    around: Around | None = None  # predictions of the tiles around each


Apply = Callable[[Evidence, np.ndarray], np.ndarray]  # masks (N, H, W) uint8 0 / 1 -> new masks, the old unchanged


class Rule(NamedTuple):
    variants: Mapping[str, Apply]  # by what was searched, such as "10 pixels"; one named "" where nothing was
    because: str
    witnesses: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None  # see `uniform_tiles`
    by_labels: bool = False  # labelled tiles decide of their neighbours, whatever these are predicted to be


def uniform_empty(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """Tiles of one grey value hold no salt: they are blank parts of the section, and their labels are empty."""
    return emptied(masks, is_uniform(evidence.images))


def full_empty(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """A mask that is all salt becomes empty: the labels draw the salt's border, and a tile wholly inside has none."""
    return emptied(masks, is_full(masks))


def vertical_down(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """Below a labelled tile whose lower half is vertical, its last row goes on. Full rows are `cap_empty`'s."""
    chosen, labels = speaking(evidence.columns.above, evidence.columns.labels)
    row = labels[:, -1:]
    vertical = is_vertical(labels[:, labels.shape[1] // 2 + 1 :], row)
    return repeated(masks, chosen[vertical], row[vertical])


def cap_empty(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """Tiles below a labelled one whose last row is all salt lie inside the salt: empty."""
    chosen, labels = speaking(evidence.columns.above, evidence.columns.labels)
    return emptied(masks, chosen[labels[:, -1].all(axis=1)])


def under_salt_empty(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """Tiles below a labelled empty one that has labelled salt above it lie inside the salt, or below it: empty."""
    chosen, labels = speaking(evidence.columns.above, evidence.columns.labels)
    return emptied(masks, chosen[~labels.any(axis=(1, 2)) & evidence.columns.under_salt[chosen]])


def vertical_up(evidence: Evidence, masks: np.ndarray) -> np.ndarray:
    """Directly above a labelled tile whose upper half is vertical, its first row goes on, from FIRST_ROW on."""
    chosen, labels = speaking(evidence.columns.below, evidence.columns.labels)
    row = labels[:, :1]
    vertical = is_vertical(labels[:, : labels.shape[1] // 2], row) & (evidence.columns.row[chosen] >= FIRST_ROW)
    return repeated(masks, chosen[vertical], row[vertical])


def small_components(evidence: Evidence, masks: np.ndarray, pixels: int) -> np.ndarray:
    """Connected salt (by sides and corners) of at most so many pixels is removed."""
    return np.stack([without_small_parts(mask, pixels) for mask in masks])


def small_holes(evidence: Evidence, masks: np.ndarray, pixels: int) -> np.ndarray:
    """Connected gaps in salt of at most so many pixels that do not touch the border are filled."""
    return np.stack([1 - without_small_parts(1 - mask, pixels, spare_border=True) for mask in masks])


def small_masks(evidence: Evidence, masks: np.ndarray, pixels: int) -> np.ndarray:
    """Masks of at most so many pixels become empty."""
    return emptied(masks, masks.sum(axis=(1, 2), dtype=np.int64) <= pixels)


def empty_gate(evidence: Evidence, masks: np.ndarray, probability: float) -> np.ndarray:
    """Tiles that hold any salt with less than this probability become empty."""
    return emptied(masks, evidence.image_probability < probability)


def neighbour_smoothing(evidence: Evidence, masks: np.ndarray, sigma: float) -> np.ndarray:
    """Probabilities are blurred across the borders of placed tiles, which count within 2 sigma pixels of a border."""
    changed = masks.copy()
    if evidence.around is None:
        return changed
    height, width = masks.shape[1:]
    middle = (slice(height, 2 * height), slice(width, 2 * width))
    for tile, name in enumerate(evidence.names):
        if (picture := evidence.around.picture(name)) is None:
            continue
        probability, known = (cv2.GaussianBlur(part, (0, 0), sigma) for part in picture)
        near = cv2.distanceTransform(at_border(picture[1], height, width), cv2.DIST_C, 3) <= 2 * sigma
        smooth = probability[middle] / known[middle] > evidence.around.threshold
        changed[tile][near] = smooth[near]
    return changed


def at_border(known: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) uint8 for cv2.distanceTransform: 0 on the edges beyond which something is known, 1 elsewhere."""
    marks = np.ones((height, width), np.uint8)
    row, column = 3 * height // 2, 3 * width // 2
    marks[0] *= known[height - 1, column] == 0
    marks[-1] *= known[2 * height, column] == 0
    marks[:, 0] *= known[row, width - 1] == 0
    marks[:, -1] *= known[row, 2 * width] == 0
    return marks


def uniform_tiles(images: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labelled tiles that bear `uniform_empty` out, and those that contradict it, both (N,) bool."""
    uniform, salt = is_uniform(images), truth.any(axis=(1, 2))
    return uniform & ~salt, uniform & salt


def tiles_with_salt(images: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of `full_empty`: masks with salt and a border, and masks that are all salt."""
    full = is_full(truth)
    return truth.any(axis=(1, 2)) & ~full, full


def is_uniform(images: np.ndarray) -> np.ndarray:
    """(N,) bool: every channel of (N, C, H, W) has one value."""
    return (images == images[:, :, :1, :1]).all(axis=(1, 2, 3))


def is_full(masks: np.ndarray) -> np.ndarray:
    """(N,) bool: every pixel of (N, H, W) is salt."""
    return masks.all(axis=(1, 2))


def is_vertical(part: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(N,) bool: every line of part (N, h, W) equals row (N, 1, W), which is neither without salt nor all salt."""
    return (part == row).all(axis=(1, 2)) & row.any(axis=(1, 2)) & ~row.all(axis=(1, 2))


def speaking(index: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tiles (n,) that have a labelled neighbour by `index` (N,), and that neighbour's mask (n, H, W)."""
    chosen = np.flatnonzero(index != NONE)
    return chosen, labels[index[chosen]]


def emptied(masks: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A copy in which the masks that `chosen` picks, by index or (N,) bool, are empty."""
    changed = masks.copy()
    changed[chosen] = 0
    return changed


def repeated(masks: np.ndarray, chosen: np.ndarray, row: np.ndarray) -> np.ndarray:
    """A copy in which every row of the masks `chosen` (n,) is `row` (n, 1, W)."""
    changed = masks.copy()
    changed[chosen] = row
    return changed


def without_small_parts(mask: np.ndarray, pixels: int, spare_border: bool = False) -> np.ndarray:
    """mask (H, W) uint8 without connected parts of at most `pixels`; those at the border stay if spared."""
    neighbours = 4 if spare_border else 8  # gaps between salt that touches by corners are apart
    _, number, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=neighbours)
    small = stats[:, cv2.CC_STAT_AREA] <= pixels
    if spare_border:
        left, top, width, height = stats[:, :4].T
        small &= (left > 0) & (top > 0) & (left + width < mask.shape[1]) & (top + height < mask.shape[0])
    small[0] = False  # what is not in the mask
    return mask & ~small[number]


def searched(rule: Callable[..., np.ndarray], unit: str, values: Sequence[float]) -> dict[str, Apply]:
    return {f"{value} {unit}": partial(rule, **{unit: value}) for value in values}


# In the order in which they are applied. Each has a switch of its name in postprocess.rules.Options.
RULES = {
    "neighbour_smoothing": Rule(
        searched(neighbour_smoothing, "sigma", (1, 2, 4)), "predictions of neighbours should go on across borders"
    ),
    "small_components": Rule(
        searched(small_components, "pixels", (3, 10, 20, 40, 80)), "specks of salt are errors more often than not"
    ),
    "small_holes": Rule(searched(small_holes, "pixels", (3, 10, 20, 40, 80)), "few labels have holes"),
    "small_masks": Rule(searched(small_masks, "pixels", (10, 20, 40, 80, 160)), "an empty mask that is right scores 1"),
    "empty_gate": Rule(
        searched(empty_gate, "probability", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)), "the tile as a whole tells of its salt"
    ),
    "uniform_empty": Rule(
        {"": uniform_empty}, "labelled tiles of one grey value are all empty", witnesses=uniform_tiles
    ),
    "full_empty": Rule(
        {"": full_empty}, "no labelled mask is all salt: tiles wholly inside salt are empty", witnesses=tiles_with_salt
    ),
    "vertical_up": Rule({"": vertical_up}, "vertical salt comes from above", by_labels=True),
    "vertical_down": Rule({"": vertical_down}, "vertical salt goes on below", by_labels=True),
    "cap_empty": Rule({"": cap_empty}, "below a row that is all salt, tiles lie inside it", by_labels=True),
    "under_salt_empty": Rule({"": under_salt_empty}, "below salt that has ended, none begins", by_labels=True),
}
