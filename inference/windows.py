"""Windows that straddle the borders between placed tiles, predicted beside the tiles themselves.

At a tile's border a net sees half of what is around; in a window centred on that border it sees all. A window is the
half of a tile and the half of the next one, brought to one contrast (each was stretched to 0..255 by itself). Its
probability counts fully at the border and not at all where it ends, beside the tile's own, which counts fully
everywhere. An experiment, off by default: `python -m inference.predict ... --mosaics=runs/RUN/mosaics.csv`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from datasets import mosaic

LINES = 4  # on either side of a border, by which contrasts are compared
NOISE = 2 / 255  # grey added to their spread, so that flat borders are not stretched


class Pair(NamedTuple):
    """Two tiles side by side: `second` right of `first`, or below it."""

    first: str
    second: str
    below: bool


class Said(NamedTuple):
    """What windows say of a tile: the sum of their probabilities and how much they count, both (H, W)."""

    total: Tensor
    weight: Tensor

    def blend(self, own: Tensor) -> Tensor:
        """With the tile's own probability (H, W)."""
        return (own + self.total) / (1 + self.weight)


def pairs(mosaics: pd.DataFrame, wanted: set[str]) -> list[Pair]:
    """Borders between well placed tiles, of which at least one is wanted."""
    placed = mosaic.well_placed(mosaics)
    found = (Pair(first, second, bool(rows)) for first, second, rows in mosaic.adjacent(placed))
    return [pair for pair in found if {pair.first, pair.second} & wanted]


def say(
    borders: Sequence[Pair],
    wanted: set[str],
    image: Callable[[str], Tensor],
    predict: Callable[[Tensor], Tensor],
    batch: int,
) -> dict[str, Said]:
    """What the windows on these borders say of the wanted tiles.

    image: a tile's name -> (C, H, W) in 0..1; predict: (n, C, H, W) -> (n, H, W) in 0..1, `batch` windows at a time.
    """
    found: dict[str, Said] = {}
    for start in range(0, len(borders), batch):
        part = borders[start : start + batch]
        windows = torch.stack([window(image(pair.first), image(pair.second), pair.below) for pair in part])
        for pair, probability in zip(part, predict(windows), strict=True):
            for name, place, values, share in halves(pair, probability):
                if name in wanted:
                    if name not in found:
                        found[name] = Said(torch.zeros_like(probability), torch.zeros_like(probability))
                    found[name].total[place] += share * values
                    found[name].weight[place] += share
    return found


def window(first: Tensor, second: Tensor, below: bool) -> Tensor:
    """(C, H, W), from 0 to 1: the lower half of `first` above the upper half of `second`; or right beside left half."""
    if not below:
        return window(first.mT, second.mT, True).mT
    height = first.shape[1]
    before, after = first[:, -LINES:], second[:, :LINES]
    gain = ((before.std() + NOISE) / (after.std() + NOISE)).sqrt()  # half of it for either side
    upper = (first[:, height // 2 :] - before.mean()) / gain
    lower = (second[:, : height // 2] - after.mean()) * gain
    whole = torch.cat([upper, lower], 1)
    low, high = whole.aminmax()
    return (whole - low) / (high - low).clamp(min=NOISE)


def halves(pair: Pair, probability: Tensor) -> Iterator[tuple[str, tuple[slice, slice], Tensor, Tensor]]:
    """What a window (H, W) says of either tile: its name, the place in it, the values there and how much they count."""
    side = probability.shape[0 if pair.below else 1]
    border = side - side // 2  # lines of the first tile
    share = torch.cos(torch.pi * (torch.arange(side, device=probability.device) + 0.5 - border) / side) ** 2
    for name, lines, place in (
        (pair.first, slice(0, border), slice(side // 2, side)),
        (pair.second, slice(border, side), slice(0, side // 2)),
    ):
        if pair.below:
            yield name, (place, slice(None)), probability[lines], share[lines, None]
        else:
            yield name, (slice(None), place), probability[:, lines], share[None, lines]
