"""Families: tiles that show the same rock, so that a model trained on one of them has seen the others.

A family is what hangs together by mosaics (datasets/mosaic.py) and by near-duplicates: tiles of parallel sections that
look almost alike. datasets/folds.py splits by them, and tells how much another split leaks.
"""

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datasets import mosaic
from datasets.salt import Tiles

SIDE = 32  # pixels to which tiles are shrunk to be compared
ALIKE = 0.6  # correlation of shrunk tiles from which they are near-duplicates


def of_tiles(train: Tiles, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Mosaic and family of each labelled tile, both (N,), as numbers; a tile without kin has ones of its own.

    `table` (of datasets.mosaic) has the test tiles too: two labelled tiles may hang together by one between them.
    """
    number = dict(zip(table["id"], table["mosaic"], strict=True))
    own = len(number) + np.arange(len(train))
    mosaics = np.array([number.get(name, alone) for name, alone in zip(train.names, own, strict=True)])
    return mosaics, families(mosaics, near_duplicates(mosaic.as_grey(train.images.numpy())))


def near_duplicates(tiles: np.ndarray) -> np.ndarray:
    """Pairs of indices (P, 2), first below second, of grey tiles (N, H, W) that look almost alike.

    Alike is a correlation of ALIKE or more of the tiles shrunk to SIDE x SIDE pixels. Of labelled TGS tiles, pairs from
    0.6 on had masks that agree in 0.96 of their union; with tiles mirrored, a fifth as many pairs were found by chance.
    """
    small = np.stack([cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for tile in tiles])
    small = small.reshape(len(tiles), -1).astype(np.float32)
    small -= small.mean(1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    small /= np.where(length > 0, length, 1)  # tiles of one grey value are like nothing
    found = []
    for start in range(0, len(tiles), 1024):
        first, second = np.nonzero(small[start : start + 1024] @ small.T >= ALIKE)
        found.append(np.stack([first + start, second], 1))
    pairs = np.concatenate(found)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def families(mosaics: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Family (N,) of tiles, given the mosaic of each (N,) and pairs that are alike (P, 2)."""
    _, first, number = np.unique(mosaics, return_index=True, return_inverse=True)
    pairs = np.concatenate([np.stack([first[number], np.arange(len(mosaics))], 1), alike.reshape(-1, 2)])
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(mosaics), len(mosaics)))
    return connected_components(graph, directed=False)[1]


def split_up(groups: np.ndarray, fold: np.ndarray) -> int:
    """How many tiles have a tile of their group (N,) in another fold (N,)."""
    table = pd.DataFrame({"group": groups, "fold": fold})
    return int((table.groupby("group")["fold"].transform("nunique") > 1).sum())
