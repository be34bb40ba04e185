"""Which tile continues which: the borders of tiles, compared as the tiles themselves teach.

Inside a tile the truth is known: the lines above a cut go on in the lines below it. So the joint distribution of LINES
lines on either side of a border is learned there, as canonical variates (Hotelling 1936,
https://doi.org/10.1093/biomet/28.3-4.321) of lines brought to mean 0 and spread 1: every tile was stretched to 0..255
by itself, so greys are comparable up to an affine map only. The distance of two borders falls with the likelihood ratio
of "neighbours" to "strangers" under Student's t, whose heavy tails these variates have; a pair's margin is its lead, in
log likelihood, over the next best partner of either tile.

What a margin is worth is counted, not assumed: the same search among borders turned end to end, where every pair is
false, shows which margins chance produces (target and decoy: Elias & Gygi 2007, https://doi.org/10.1038/nmeth1019).
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import linalg
from scipy.optimize import isotonic_regression
from torch import Tensor

LINES = 4  # of pixels on either side of a border
VARIATES = 60  # canonical variates that are compared
FREEDOM = 10  # degrees of Student's t
SOFTENING = 5.0  # grey levels of 255 added to the spread of lines, so that noise in flat ones is not blown up
RIDGE = 1e-3  # share of the mean variance added to each principal component
SAMPLES = 40_000  # cuts inside tiles to learn from
CUTS = 8  # at least, of each tile that is learned from, evenly spread
DOUBTS = 3  # false pairs that are counted beside those seen
LEAST_SIDE = 4 * LINES  # pixels of a tile's side
CHUNK = 1024  # borders compared with all others at a time
HIGHEST = 0.98  # correlation of a variate that is believed


class Edges(NamedTuple):
    """Candidate neighbours in one direction: tile `second` right of, or below, tile `first`; one row a pair.

    A pair is a candidate if either tile has no better partner there.
    """

    first: np.ndarray  # (E,) index of a tile
    second: np.ndarray  # (E,)
    strength: np.ndarray  # (E,) 0..1, probability that these are neighbours; 0 where either has a better partner


class Best(NamedTuple):
    """For each of N borders the best partner, its distance, and that of the second best."""

    partner: Tensor
    distance: Tensor
    second: Tensor


def down_and_right(images: np.ndarray) -> tuple[Edges, Edges]:
    """Candidates below and to the right of each of N >= 2 grey tiles (N, H, W) uint8, none of one grey value.

    H and W are at least LEAST_SIDE pixels. The same tiles give the same edges with the same libraries and threads.
    """
    assert len(images) > 1 and min(images.shape[1:]) >= LEAST_SIDE and images.dtype == np.uint8
    tiles = torch.from_numpy(images)
    return neighbours_below(tiles), neighbours_below(tiles.transpose(1, 2))


def neighbours_below(tiles: Tensor) -> Edges:
    """Candidates below each tile (N, H, W)."""
    variates, correlation = learn(tiles)
    lower, upper, turned = (
        standardised(lines) @ variates
        for lines in (tiles[:, -LINES:].flip(1), tiles[:, :LINES], tiles[:, :LINES].flip(2))
    )
    down, up = best(lower, upper, correlation)
    false_down, false_up = best(lower, turned, correlation)
    number = variates.shape[1]
    margin, false_margin = margins(down, up, number), margins(false_down, false_up, number)
    # A symmetric border fits its true neighbour turned round too.
    by_chance = false_margin[(false_margin > 0) & (false_down.partner.numpy() != down.partner.numpy())]
    return edges(down.partner.numpy(), up.partner.numpy(), strengths(margin, by_chance))


def learn(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Canonical variates (LINES * W, VARIATES) of the lines before a cut and after it, and their correlations.

    Lines count from the cut. Either side is learned as the other's mirror image: down and up look alike.
    """
    height = tiles.shape[1]
    num_cuts = min(height - 2 * LINES - 1, max(CUTS, SAMPLES // len(tiles)))
    step = max(1, len(tiles) * num_cuts // SAMPLES)
    own = crossed = torch.zeros(())
    for cut in np.linspace(LINES, height - LINES, num_cuts + 2)[1:-1].round().astype(int):
        before = standardised(tiles[::step, cut - LINES : cut].flip(1))
        after = standardised(tiles[::step, cut : cut + LINES])
        own = own + before.T @ before + after.T @ after
        crossed = crossed + before.T @ after + after.T @ before
    own, crossed = ((matrix / (2 * num_cuts * len(before))).double().numpy() for matrix in (own, crossed))
    variance, directions = linalg.eigh(own)
    ridge = RIDGE * variance.mean()
    whitener = directions[:, variance > ridge] / np.sqrt(variance[variance > ridge] + ridge)
    correlation, rotation = linalg.eigh(whitener.T @ crossed @ whitener)
    chosen = np.argsort(-np.abs(correlation), kind="stable")[:VARIATES]
    variates = torch.from_numpy(whitener @ rotation[:, chosen]).float()
    return variates, torch.from_numpy(correlation[chosen]).float().clamp(-HIGHEST, HIGHEST)


def standardised(lines: Tensor) -> Tensor:
    """(N, LINES, W) -> (N, LINES * W) float32, each row with mean 0 and a spread of almost 1."""
    flat = lines.flatten(1).float()
    flat = flat - flat.mean(1, keepdim=True)
    return flat / (flat.std(1, keepdim=True) + SOFTENING)


def best(first: Tensor, second: Tensor, correlation: Tensor) -> tuple[Best, Best]:
    """The best partners of all `first` borders (N, V) among the `second` ones (N, V), and the other way round.

    A tile is not its own partner. Memory grows with CHUNK * N.
    """
    count = len(first)
    unexplained = 1 - correlation.square()  # share of a variate's variance when its partner's is known
    ones = torch.ones(count, 1)
    first_part = torch.cat([first * (-2 * correlation / unexplained), squares(first, unexplained) + FREEDOM, ones], 1)
    second_part = torch.cat([second, ones, squares(second, unexplained)], 1)
    first_part, second_part = first_part / commonness(first), (second_part / commonness(second)).T.contiguous()
    rows = []
    columns = Best(torch.zeros(count, dtype=torch.long), *torch.full((2, count), torch.inf))
    for start in range(0, count, CHUNK):
        distances = first_part[start : start + CHUNK] @ second_part
        distances.diagonal(start).fill_(torch.inf)
        columns = nearer(columns, distances, start)
        rows.append(two_nearest(distances))
    return Best(*(torch.cat(parts) for parts in zip(*rows, strict=True))), columns


def squares(variates: Tensor, unexplained: Tensor) -> Tensor:
    return (variates.square() @ (1 / unexplained))[:, None]


def commonness(variates: Tensor) -> Tensor:
    """(N, 1): how well a border fits strangers. Distances are divided by it, for both borders."""
    number = variates.shape[1]  # VARIATES, fewer where tiles are small or smooth
    return (1 + variates.square().sum(1, keepdim=True) / FREEDOM) ** ((number + FREEDOM) / (2 * number + FREEDOM))


def two_nearest(distances: Tensor) -> Best:
    """Of each row (n, N). Overwrites the least distances."""
    partner = torch.from_numpy(distances.numpy().argmin(1))  # several times as fast as torch's
    distance = distances.gather(1, partner[:, None])[:, 0]
    distances.scatter_(1, partner[:, None], torch.inf)
    return Best(partner, distance, distances.amin(1))


def nearer(known: Best, distances: Tensor, start: int) -> Best:
    """`known` of each column, bettered by the rows (n, N) from `start` on."""
    least = distances.amin(0)
    partner, distance, second = known.partner, known.distance, torch.minimum(known.second, least)
    columns = (least < distance).nonzero()[:, 0]
    found = two_nearest(distances[:, columns].T.contiguous())
    second[columns] = torch.minimum(distance[columns], found.second)
    distance[columns], partner[columns] = found.distance, found.partner + start
    return Best(partner, distance, second)


def margins(down: Best, up: Best, number: int) -> np.ndarray:
    """Lead of each tile and its best partner over the next best of either, in log likelihood (N,); -1: not mutual.

    `number` variates were compared.
    """
    partner = down.partner
    lead = torch.minimum(log_ratio(down, number), log_ratio(up, number)[partner])
    return torch.where(up.partner[partner] == torch.arange(len(partner)), lead, -1).numpy()


def log_ratio(found: Best, number: int) -> Tensor:
    """Log likelihood ratio of the best partner to the second best (N,); 0 where there is no second one to compare."""
    found = found._replace(second=torch.where(found.second.isinf(), found.distance, found.second))
    return (number + FREEDOM / 2) * (found.second / found.distance.clamp(min=1e-9)).log()


def strengths(margin: np.ndarray, by_chance: np.ndarray) -> np.ndarray:
    """Probability that pairs of this margin (N,) are true, given the margins that chance produces; 0 without a margin.

    The share of true pairs rises with the margin (isotonic regression). DOUBTS false pairs more than were seen are
    counted, at the highest margin: among few strangers, three pairs in a row are found by chance once in eight times.
    """
    found = np.flatnonzero(margin > 0)
    strength = np.zeros(len(margin))
    if len(found):
        values = np.concatenate([margin[found], by_chance, np.full(DOUBTS, margin.max())])
        is_found = np.arange(len(values)) < len(found)
        order = np.lexsort((~is_found, values))  # of equals the false last: they are pooled
        share = np.empty(len(values))  # of the search among all that have this margin
        share[order] = isotonic_regression(is_found[order].astype(float)).x
        strength[found] = np.clip(2 - 1 / share[: len(found)].clip(1e-9), 0, 1)
    return strength


def edges(after: np.ndarray, before: np.ndarray, strength: np.ndarray) -> Edges:
    """All candidates, sorted by first and second tile. `strength` (N,) is that of a tile and the one after it."""
    tiles = np.arange(len(after))
    pairs = np.unique(np.concatenate([np.stack([tiles, after], 1), np.stack([before, tiles], 1)]), axis=0)
    first, second = pairs.T
    return Edges(first, second, np.where(after[first] == second, strength[first], 0))
