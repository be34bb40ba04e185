"""What labelled tiles say of those above and below them in their mosaics (datasets/mosaic.py).

A label is evidence, a prediction is not: only labelled tiles speak here, never of themselves, and each only as far as
the next labelled one. Tiles that are not well placed are left out, rows are counted without them, a gap ends a column.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets import mosaic

NONE = -1


class Columns(NamedTuple):
    """For each of N tiles, the labelled ones that speak of it."""

    labels: np.ndarray  # (L, H, W) uint8, masks of the labelled tiles
    above: np.ndarray  # (N,) index into labels of the nearest labelled tile above, or NONE
    below: np.ndarray  # (N,) index into labels of the tile directly below, or NONE
    under_salt: np.ndarray  # (N,) bool, a labelled tile further up than `above` holds salt
    row: np.ndarray  # (N,) row in its mosaic, 0 for its highest tile, or NONE where it is not placed


def build(mosaics: pd.DataFrame, names: Sequence[str], labelled: Sequence[str], labels: np.ndarray) -> Columns:
    """Columns of the tiles `names`, by a table of datasets.mosaic and the masks (L, H, W) of the tiles `labelled`."""
    mosaics = mosaic.well_placed(mosaics)
    tile_at = mosaic.tiles_at(mosaics)
    top = mosaics.groupby("mosaic")["row"].min()
    place_of = {name: place for place, name in tile_at.items()}
    number = {name: index for index, name in enumerate(labelled)}
    has_salt = labels.any(axis=(1, 2))
    above, below, rows = np.full((3, len(names)), NONE)
    under_salt = np.zeros(len(names), bool)
    for tile, name in enumerate(names):
        if name not in place_of:
            continue
        place = place_of[name]
        speakers = [number[other] for other in upwards(tile_at, *place) if other in number]
        if speakers:
            above[tile] = speakers[0]
            under_salt[tile] = has_salt[speakers[1:]].any()
        mosaic_number, row, column = place
        rows[tile] = row - top[mosaic_number]
        below[tile] = number.get(tile_at.get((mosaic_number, row + 1, column)), NONE)
    return Columns(labels, above, below, under_salt, rows)


def upwards(tile_at: dict[tuple[int, int, int], str], number: int, row: int, column: int) -> list[str]:
    """Tiles above a place, nearest first, up to the first gap."""
    found = []
    while (name := tile_at.get((number, row := row - 1, column))) is not None:
        found.append(name)
    return found
