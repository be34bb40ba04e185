"""Predicted probabilities of a tile and of those placed around it, as one picture."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datasets import mosaic
from datasets.predictions import SCALE, Predictions


class Around:
    """All that is predicted, by place in the mosaics (a table of datasets.mosaic), and the threshold of salt.

    With `folds` (id -> fold) a tile's neighbours are those of its own fold alone: what is predicted of others comes
    from models that were trained on the tile, and would tell of its label.
    """

    def __init__(
        self,
        mosaics: pd.DataFrame,
        predicted: Sequence[Predictions],
        threshold: float,
        folds: Mapping[str, int] | None = None,
    ):
        self.folds = folds or {}
        self.tile_at = mosaic.tiles_at(mosaic.well_placed(mosaics))
        self.place = {name: place for place, name in self.tile_at.items()}
        self.pixels = {name: (one, index) for one in predicted for index, name in enumerate(one.names)}
        self.threshold = threshold

    def picture(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Probabilities (3H, 3W) with the tile in the middle, 0 where nothing is predicted, and where something is.

        None if no tile beside it is predicted.
        """
        if name not in self.place:
            return None
        number, row, column = self.place[name]
        found = {}
        for down in range(3):
            for right in range(3):
                other = self.tile_at.get((number, row + down - 1, column + right - 1))
                if other in self.pixels and self.folds.get(other) == self.folds.get(name):
                    found[down, right] = other
        if not found.keys() & {(0, 1), (1, 0), (1, 2), (2, 1)}:
            return None
        height, width = self.pixels[name][0].pixels.shape[1:]
        probability = np.zeros((3, height, 3, width), np.float32)
        known = np.zeros((3, height, 3, width), np.float32)
        for (down, right), other in found.items():
            stored, index = self.pixels[other]
            probability[down, :, right] = stored.pixels[index] / SCALE
            known[down, :, right] = 1
        return probability.reshape(3 * height, -1), known.reshape(3 * height, -1)
