"""Put tiles back where they were cut from: mosaics of tiles that continue each other.

    python -m datasets.mosaic --data=datasets/tgs --out=runs/mosaics.csv

Borders tell neighbours (datasets/borders.py). Every tile begins as a mosaic of its own, and mosaics are joined: along
certain borders; then wherever two or more borders agree on how two mosaics lie to each other, which closes loops and
admits borders too weak to count alone; then single tiles along one border, down to --min_strength, and agreements
again. A join that would put two tiles in one place, or as many strangers as neighbours side by side, is refused and
counted.

Writes id,mosaic,row,column,strength: a row per placed tile; mosaics by falling size, rows and columns from 0; strength
is the probability that the tile lies right beside its neighbours, by all of its borders that fit together. Tiles of one
grey value fit anywhere: left out.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import command
import runfolder
from command import BadInput
from datasets import borders, salt
from datasets.borders import Edges
from datasets.salt import Tiles

COLUMNS = ("id", "mosaic", "row", "column", "strength")
STEPS = ((1, 0), (0, 1))  # rows and columns from a tile to the one below it, and to the one right of it
CERTAIN = 0.95  # strength of a border that joins any two mosaics, and of a tile that may tell of others
AGREED = 0.99  # strength of a tile that two or more of its neighbours vote for: assumed, not counted


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str = "datasets/tgs"  # a folder in Kaggle's layout
    out: str = "runs/mosaics.csv"  # the table to write
    min_strength: float = 0.5  # 0..1, least strength of the one border by which a single tile is placed

    def __post_init__(self) -> None:
        if not 0 <= self.min_strength <= 1:
            raise BadInput(f"--min_strength={self.min_strength} is not a probability: 0.5 is even odds")


class Assembly:
    """N tiles in mosaics that grow by joining. `place` is a tile's row and column from an arbitrary zero."""

    def __init__(self, edges: tuple[Edges, Edges], num_tiles: int):
        steps = [np.tile(step, (len(e.first), 1)) for e, step in zip(edges, STEPS, strict=True)]
        self.first, self.second = (np.concatenate([e[i] for e in edges]) for i in range(2))
        self.step = np.concatenate(steps)  # (E, 2) from first to second
        self.strength = np.concatenate([e.strength for e in edges])
        keys = zip(self.first.tolist(), self.second.tolist(), self.step[:, 0].tolist(), strict=True)
        self.votes = dict(zip(keys, self.strength.tolist(), strict=True))  # first, second, rows down -> strength
        self.mosaic = np.arange(num_tiles)
        self.place = np.zeros((num_tiles, 2), int)
        self.cells = {tile: {(0, 0): tile} for tile in range(num_tiles)}  # mosaic -> place -> tile

    def join_along_borders(self, least: float, only_single: bool = False) -> None:
        """Join along every border of at least this strength, strongest first; or only where a tile stands alone."""
        order = np.argsort(-self.strength, kind="stable")
        for edge in order[: np.count_nonzero(self.strength >= least)].tolist():
            first, second = self.first[edge], self.second[edge]
            a, b = self.mosaic[first], self.mosaic[second]
            offset = self.place[first] + self.step[edge] - self.place[second]
            if a != b and (not only_single or 1 in (len(self.cells[a]), len(self.cells[b]))):
                self.join(a, b, offset)

    def join_by_agreement(self) -> None:
        """Join wherever two or more borders agree, most votes first, until there is nothing more to join."""
        joined = True
        while joined:
            joined = set()
            for a, b, *offset in self.agreements():
                if not {a, b} & joined and self.join(a, b, np.array(offset)):
                    joined |= {a, b}

    def agreements(self) -> list[list[int]]:
        """Two mosaics and the offset of the second, for all that have two or more votes, most votes first."""
        a, b = self.mosaic[self.first], self.mosaic[self.second]
        offset = self.place[self.first] + self.step - self.place[self.second]
        turned = a > b
        a, b, offset = np.minimum(a, b), np.maximum(a, b), np.where(turned[:, None], -offset, offset)
        found, count = np.unique(np.column_stack([a, b, offset])[a != b], axis=0, return_counts=True)
        return found[np.argsort(-count, kind="stable")][: np.count_nonzero(count > 1)].tolist()

    def join(self, a: int, b: int, offset: np.ndarray) -> bool:
        """Bring mosaic b to a, `offset` added to its places, unless that is refused. The larger one stays."""
        if len(self.cells[a]) < len(self.cells[b]):
            a, b, offset = b, a, -offset
        moved = {(row + int(offset[0]), column + int(offset[1])): tile for (row, column), tile in self.cells[b].items()}
        if moved.keys() & self.cells[a].keys():
            return False
        votes = [vote for place, tile in moved.items() for vote in self.neighbours(self.cells[a], place, tile)]
        if 2 * sum(vote is not None for vote in votes) <= len(votes):
            return False
        tiles = list(moved.values())
        self.mosaic[tiles], self.place[tiles] = a, list(moved)
        self.cells[a] |= moved
        del self.cells[b]
        return True

    def neighbours(
        self, cells: dict[tuple[int, int], int], place: tuple[int, int], tile: int
    ) -> Iterator[float | None]:
        """Of each tile in `cells` beside `place`: the strength of its border with `tile`, None for a stranger."""
        for rows, columns in STEPS:
            before = cells.get((place[0] - rows, place[1] - columns))
            after = cells.get((place[0] + rows, place[1] + columns))
            if before is not None:
                yield self.votes.get((before, tile, rows))
            if after is not None:
                yield self.votes.get((tile, after, rows))

    def refused(self) -> int:
        """Certain borders, and places where two or more agree, that the mosaics contradict."""
        off = self.place[self.first] + self.step != self.place[self.second]
        apart = self.mosaic[self.first] != self.mosaic[self.second]
        return np.count_nonzero((self.strength >= CERTAIN) & (off.any(1) | apart)) + len(self.agreements())

    def certainty(self, tile: int) -> float:
        """Probability that a placed tile lies right beside its neighbours."""
        cells, place = self.cells[self.mosaic[tile]], tuple(self.place[tile].tolist())
        votes = [vote for vote in self.neighbours(cells, place, tile) if vote is not None]
        return max(AGREED if len(votes) > 1 else 0, 1 - float(np.prod(1 - np.array(votes))))


def assemble(edges: tuple[Edges, Edges], num_tiles: int, min_strength: float) -> Assembly:
    """Mosaics of `num_tiles` tiles from candidates (down, right)."""
    assembly = Assembly(edges, num_tiles)
    assembly.join_along_borders(CERTAIN)
    assembly.join_by_agreement()
    assembly.join_along_borders(max(min_strength, 1e-9), only_single=True)
    assembly.join_by_agreement()
    return assembly


def find(grey: np.ndarray, names: Sequence[str], min_strength: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of COLUMNS for tiles (N, H, W) uint8, and what there is to report."""
    usable = np.flatnonzero(grey.reshape(len(grey), -1).min(1) < grey.reshape(len(grey), -1).max(1))
    num_tiles, grey, names = len(grey), grey[usable], [names[tile] for tile in usable]
    report = {"tiles": num_tiles, "of one grey value": num_tiles - len(usable)}
    if len(grey) < 2 or min(grey.shape[1:]) < borders.LEAST_SIDE:
        report["too few, or smaller than"] = f"{borders.LEAST_SIDE} pixels: not compared"
        return pd.DataFrame(columns=list(COLUMNS)), report
    edges = borders.down_and_right(grey)
    assembly = assemble(edges, len(grey), min_strength)
    table = table_of(assembly, names)
    closed, consistent = loops(edges)
    correlation = border_correlations(table, dict(zip(names, grey, strict=True)))
    report |= {
        "placed": len(table),
        "right by their strengths": float(table["strength"].sum()),
        "mosaics": table["mosaic"].nunique(),
        "largest": table["mosaic"].value_counts().tolist()[:5],
        "loops of certain borders": closed,
        "of them consistent": consistent,
        "borders": len(correlation),
        "of them correlating above 0.5": int((correlation > 0.5).sum()),
        "contradictions refused": assembly.refused(),
    }
    return table, report


def as_grey(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) of 8 or 16 bits -> (N, H, W) uint8: the mean of the channels, 16 bits by the range that they use."""
    if images.dtype == np.uint16:
        low, high = int(images.min()), int(images.max())
        scale = 255 / max(high - low, 1)
        return np.stack([((tile.mean(0) - low) * scale).round().astype(np.uint8) for tile in images])
    if images.shape[1] == 1:
        return images[:, 0]
    return np.stack([tile.mean(0).round().astype(np.uint8) for tile in images])  # one at a time: no floats of all


def table_of(assembly: Assembly, names: Sequence[str]) -> pd.DataFrame:
    """COLUMNS of the tiles in mosaics of two or more: by falling size, then by smallest id."""
    mosaics = [cells for cells in assembly.cells.values() if len(cells) > 1]
    mosaics.sort(key=lambda cells: (-len(cells), min(names[tile] for tile in cells.values())))
    rows = []
    for number, cells in enumerate(mosaics):
        top, left = (min(place[axis] for place in cells) for axis in range(2))
        for (row, column), tile in sorted(cells.items()):
            strength = round(assembly.certainty(tile), 4)
            rows.append((names[tile], number, row - top, column - left, strength))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def loops(edges: tuple[Edges, Edges]) -> tuple[int, int]:
    """Tiles from which certain borders lead both down, right and right, down; and for how many to the same tile."""
    certain = [{int(a): int(b) for a, b, s in zip(*e, strict=True) if s >= CERTAIN} for e in edges]
    down, right = certain
    ends = [(right.get(down.get(tile)), down.get(right.get(tile))) for tile in down.keys() & right.keys()]
    ends = [(a, b) for a, b in ends if a is not None and b is not None]
    return len(ends), sum(a == b for a, b in ends)


def border_correlations(table: pd.DataFrame, tiles: dict[str, np.ndarray]) -> np.ndarray:
    """Of the two lines at every border between placed tiles, as a check; 0 where one has no contrast."""
    found = []
    for first, second, rows in adjacent(table):
        a, b = (tiles[name].astype(np.float64) for name in (first, second))
        a, b = (a[-1], b[0]) if rows else (a[:, -1], b[:, 0])
        a, b = a - a.mean(), b - b.mean()
        found.append(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-9))
    return np.array(found)


def adjacent(table: pd.DataFrame) -> Iterator[tuple[str, str, int]]:
    """Every two tiles side by side: the upper or left one, the other, and 1 if it lies below or 0 if to the right."""
    cells = tiles_at(table)
    for (mosaic, row, column), name in cells.items():
        for rows, columns in STEPS:
            if (other := cells.get((mosaic, row + rows, column + columns))) is not None:
                yield name, other, rows


def tiles_at(table: pd.DataFrame) -> dict[tuple[int, int, int], str]:
    """Mosaic, row and column -> id."""
    rows = table[list(COLUMNS[:4])].itertuples(index=False, name=None)
    return {(mosaic, row, column): name for name, mosaic, row, column in rows}


def well_placed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are certain enough to tell of other tiles by them."""
    return table[table["strength"] >= CERTAIN]


def read(path: Path | str, names: Sequence[str]) -> pd.DataFrame:
    """The table at `path`. Raises BadInput for ids that are not among `names`, and for two tiles in one place."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is missing: python -m datasets.mosaic --data=... --out={path} writes it")
    runfolder.refuse_changed(path)
    table = salt.read_table(path, COLUMNS)
    unknown = sorted(set(table["id"]) - set(names))
    if unknown:
        raise BadInput(f"{path} places {unknown[0]!r}, which --data lacks: write it anew for this data")
    try:
        table = table.astype({"mosaic": np.int64, "row": np.int64, "column": np.int64, "strength": np.float64})
    except ValueError as error:
        raise BadInput(f"{path} has a number that cannot be read ({error}): write it anew") from error
    twice = table[table["id"].duplicated() | table[list(COLUMNS[1:4])].duplicated()]
    if len(twice):
        raise BadInput(f"{path} has {twice.iloc[0]['id']!r} or its place twice: write it anew")
    return table


def write(options: Options) -> None:
    """Write the table and print what was found."""
    started = time.perf_counter()
    train, test = salt.load_train(options.data), salt.load_test(options.data)
    table, report = find_all(train, test, options.min_strength)
    text = table.to_csv(index=False, lineterminator="\n")
    runfolder.write_with_origin(Path(options.out), text, options=asdict(options))
    for what, value in report.items():
        print(f"{what:32}{value:.1f}" if isinstance(value, float) else f"{what:32}{value}")
    if table.empty:
        print("no two tiles continue each other: there is nothing to do for rules that need neighbours")
    print(f"wrote {options.out} in {time.perf_counter() - started:.1f} s")


def find_all(train: Tiles, test: Tiles, min_strength: float = 0.5) -> tuple[pd.DataFrame, dict[str, Any]]:
    """`find` for all tiles of a competition. Raises BadInput unless they have one size, each an id of its own."""
    if train.size != test.size:
        raise BadInput(
            f"--data has labelled tiles of {train.size} and test tiles of {test.size}: mosaics need one size"
        )
    if both := set(train.names) & set(test.names):
        raise BadInput(f"--data has {min(both)!r} as a labelled and as a test tile: mosaics need ids of their own")
    grey = np.concatenate([as_grey(tiles.images.numpy()) for tiles in (train, test)])
    return find(grey, train.names + test.names, min_strength)


if __name__ == "__main__":
    command.run(write, Options)
