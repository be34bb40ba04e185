"""Write a synthetic salt competition in Kaggle's own layout, for tests, demonstrations and sound experiments.

    python -m datasets.synthetic --data=data/synthetic --num_train=400 --num_test=100 --seed=0

Tiles are cut from a few large imagined sections (datasets/geology.py), train and test mixed, so that neighbours exist;
`layout.csv` beside Kaggle's files tells where each tile lay. What holds for the real tiles holds here: 39 % of the
masks are empty (8-bit files; the others 16-bit 0 / 65535), a tile wholly inside salt is labelled empty, so that no mask
is full, and a few tiles are of one grey value. The same seed gives the same bytes (with the same library versions).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.random import Generator

import command
from command import BadInput
from datasets import geology, pictures, rle
from datasets.newfolder import new_folder

EMPTY_SHARE = 0.39  # of the masks
UNIFORM_SHARE = 0.02  # of the tiles
SALT, EMPTY, UNIFORM = range(3)  # kinds of tiles; uniform ones are of one grey value and empty
ROWS, COLUMNS = (6, 9), (9, 14)  # tiles in a section, least and most
LAYOUT = "layout.csv"  # also the sign that a folder was made here
CONTENT = {"train", "test", "train.csv", "depths.csv", "sample_submission.csv", LAYOUT}


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str  # the folder to make; one that this command made before is replaced
    num_train: int = 400  # labelled tiles
    num_test: int = 100  # test tiles
    seed: int = 0  # of everything drawn
    tile_size: int = 101  # pixels, both sides


@dataclass(frozen=True)
class Cut:
    """Tiles of one section: consecutive pixels, so that neighbours share none. A tile lies at (row, column)."""

    images: np.ndarray  # (n, size, size) uint8
    masks: np.ndarray  # (n, size, size) uint8, 0 or 1
    row: np.ndarray
    column: np.ndarray
    kind: np.ndarray  # SALT, EMPTY or UNIFORM

    def take(self, tiles: np.ndarray) -> "Cut":
        return Cut(self.images[tiles], self.masks[tiles], self.row[tiles], self.column[tiles], self.kind[tiles])


def write(options: Options) -> None:
    write_competition(options.data, options.num_train, options.num_test, options.seed, options.tile_size)
    print(f"{options.data}: {options.num_train} training tiles, {options.num_test} test tiles")


def write_competition(data: Path | str, num_train: int, num_test: int, seed: int = 0, tile_size: int = 101) -> None:
    """Make the folder `data`. Raises BadInput for counts without sense and for a folder that holds anything else."""
    for name, value, least in (("num_train", num_train, 1), ("num_test", num_test, 1), ("seed", seed, 0)):
        if value < least:
            raise BadInput(f"--{name}={value} is too small: {least} is the least")
    if not 32 <= tile_size <= 512:
        raise BadInput(f"--tile_size={tile_size} is out of range: 32 to 512 pixels")
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"id": random_ids(rng, num_train + num_test)})
    table["train"] = rng.permutation(np.arange(len(table)) < num_train)
    with new_folder(Path(data), CONTENT, LAYOUT) as folder:
        for kaggle in ("train/images", "train/masks", "test/images"):
            (folder / kaggle).mkdir(parents=True)
        parts, start = [], 0
        for number, cut in enumerate(cuts(seed, len(table), tile_size)):
            part = table.iloc[start : start + len(cut.kind)].assign(section=number, row=cut.row, column=cut.column)
            parts.append(part.assign(rle_mask=rle.encode_many(cut.masks), z=rng.integers(50, 800) + 15 * cut.row))
            write_tiles(folder, part, cut)
            start += len(part)
        write_tables(folder, pd.concat(parts).sort_values("id"))


def random_ids(rng: Generator, count: int) -> list[str]:
    """`count` different strings of ten hexadecimal digits."""
    ids = {}
    while len(ids) < count:
        ids[f"{rng.integers(16**10):010x}"] = None
    return list(ids)


def cuts(seed: int, num_tiles: int, tile_size: int) -> Iterator[Cut]:
    """Section by section, the tiles that are kept, num_tiles in all; every third section has water."""
    kinds = np.empty(0, int)
    number = 0
    while len(kinds) < num_tiles:
        rng = np.random.default_rng([seed, number])
        rows, columns = rng.integers(*ROWS, endpoint=True), rng.integers(*COLUMNS, endpoint=True)
        drawn = geology.section(rng, rows * tile_size, columns * tile_size, water=number % 3 == 0)
        cut = cut_apart(drawn, rows, columns)
        kept = cut.take(choose(rng, cut, kinds, num_tiles))
        kinds = np.concatenate([kinds, kept.kind])
        number += 1
        yield kept


def cut_apart(drawn: geology.Section, rows: int, columns: int) -> Cut:
    """All tiles of a section, row by row."""

    def tiles(whole: np.ndarray) -> np.ndarray:
        size = whole.shape[0] // rows
        return whole.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)

    images, masks = tiles(drawn.image), tiles(drawn.salt).copy()
    masks[masks.all((1, 2))] = 0  # wholly inside salt is labelled empty, as in the competition
    uniform = np.ptp(images, (1, 2)) == 0
    masks[uniform] = 0
    kind = np.where(uniform, UNIFORM, np.where(masks.any((1, 2)), SALT, EMPTY))
    return Cut(images, masks, *np.divmod(np.arange(rows * columns), columns), kind)


def choose(rng: Generator, cut: Cut, before: np.ndarray, num_tiles: int) -> np.ndarray:
    """Indices of the tiles to keep, so that with the kinds `before` the shares of empty and uniform tiles come right.

    Tiles with salt from the left; then empty ones, those near salt first, for mosaics that hold together. A section
    gives at most a quarter of the tiles: several are needed for a fair share of zooms, textures and greys.
    """
    salt, empty, uniform = (np.flatnonzero(cut.kind == kind) for kind in (SALT, EMPTY, UNIFORM))
    room = min(num_tiles - len(before), round(len(salt) / (1 - EMPTY_SHARE)), max(16, num_tiles // 4))
    total = len(before) + room
    num_uniform = round(UNIFORM_SHARE * total) - np.count_nonzero(before == UNIFORM)
    uniform = uniform[: max(0, num_uniform)]
    num_empty = round(EMPTY_SHARE * total) - np.count_nonzero(before != SALT) - len(uniform)
    num_empty = min(max(0, num_empty), len(empty), room - len(uniform))
    salt = salt[np.argsort(cut.column[salt], kind="stable")][: room - len(uniform) - num_empty]
    across, down = (np.subtract.outer(at[empty], at[salt]) for at in (cut.column, cut.row))
    distance = np.hypot(across, down).min(1, initial=99) + rng.uniform(0, 2, len(empty))
    near = np.argsort(distance, kind="stable")
    return np.sort(np.concatenate([salt, empty[near[:num_empty]], uniform]))


def write_tiles(folder: Path, table: pd.DataFrame, cut: Cut) -> None:
    """PNG files of one section: images RGB with equal channels, masks 8-bit where empty and else 16-bit 0 / 65535."""
    for name, train, image, mask in zip(table["id"], table["train"], cut.images, cut.masks, strict=True):
        part = folder / ("train" if train else "test")
        pictures.write(part / "images" / f"{name}.png", cv2.cvtColor(image, cv2.COLOR_GRAY2RGB))
        if train:
            pictures.write(part / "masks" / f"{name}.png", mask * np.uint16(65535) if mask.any() else mask)


def write_tables(folder: Path, table: pd.DataFrame) -> None:
    """train.csv, depths.csv and sample_submission.csv as Kaggle has them, and the true layout."""
    files = {
        "train.csv": table.loc[table["train"], ["id", "rle_mask"]],
        "sample_submission.csv": table.loc[~table["train"], ["id"]].assign(rle_mask="1 1"),
        "depths.csv": table[["id", "z"]],
        LAYOUT: table[["id", "section", "row", "column"]],
    }
    for name, columns in files.items():
        columns.to_csv(folder / name, index=False, lineterminator="\n")


if __name__ == "__main__":
    command.run(write, Options)
