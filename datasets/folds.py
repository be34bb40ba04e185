"""Which tiles validate which model: a table of id and fold, written once per run and read by every stage.

    python -m datasets.folds --data=datasets/tgs --run=saltnet --num_folds=10 --seed=0

Every fold holds the same share of empty tiles and of each tenth of coverage. Fold 0 of five is an 80/20 split.
Images in folders train and val (datasets/files.py) keep that split: fold 0 is val. Views of one car share a fold.
--scheme=mosaic keeps families together (datasets/families.py): no tile is validated whose neighbours or near-duplicates
were trained on. --csv=own.csv takes a split of one's own (header id,fold; folds from 0). --leaks=True only tells how
many tiles of the run's split have kin in other folds.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import command
import runfolder
from command import BadInput, choose
from datasets import layouts, salt
from datasets.files import Files
from datasets.salt import Tiles

COLUMNS = ("id", "fold")
HISTOGRAM = "labels.json"  # beside folds.csv: pixels of each value in the masks of files
SCHEMES = ("random", "mosaic")
NUM_STRATA = 11  # empty tiles, and tenths of coverage


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str = "datasets/tgs"  # a folder in Kaggle's layout, or in one of datasets/files.py
    run: str = "saltnet"  # folder under runs/
    num_folds: int = 10  # models per framing; each validates on one fold
    seed: int = 0  # of the shuffle
    scheme: str = "random"  # random, or mosaic: families of tiles stay together
    csv: str = ""  # a table of one's own, with columns id and fold; then num_folds, seed and scheme do not matter
    leaks: bool = False  # write nothing: tell how much the run's split, or that of csv, leaks

    def __post_init__(self) -> None:
        choose("scheme", self.scheme, SCHEMES)


def split(coverage: Sequence[float], names: Sequence[str], num_folds: int, seed: int) -> pd.DataFrame:
    """Table of id and fold, in the order of `names`: the same for the same tiles and seed, whatever their order.

    coverage (N,), 0..1. Sizes of folds differ by one at most, over all tiles and within each stratum: empty tiles,
    and tenths of coverage. Raises BadInput unless 2 <= num_folds <= N.
    """
    if not 2 <= num_folds <= len(names):
        raise BadInput(f"--num_folds={num_folds} for {len(names)} tiles, expected 2 to {len(names)}")
    shuffled = np.random.default_rng(seed).permutation(np.argsort(np.asarray(names)))
    dealt = shuffled[np.argsort(strata_of(coverage)[shuffled], kind="stable")]
    fold = np.empty(len(names), np.int64)
    fold[dealt] = np.arange(len(names)) % num_folds
    return pd.DataFrame({"id": list(names), "fold": fold})


def split_families(
    coverage: Sequence[float], names: Sequence[str], kin: Sequence[int] | Sequence[str], num_folds: int, seed: int
) -> pd.DataFrame:
    """Like `split`, but tiles of one family, `kin` (N,), share a fold.

    The largest families are dealt first, each to the fold that lacks most of what it brings; folds differ more in size
    and strata, the more so the larger the families. Raises BadInput for fewer families than folds.
    """
    kin = np.unique(np.asarray(kin), return_inverse=True)[1]
    num_families = kin.max() + 1
    if not 2 <= num_folds <= num_families:
        raise BadInput(f"--num_folds={num_folds} for {num_families} families of tiles, expected 2 to {num_families}")
    brought = np.zeros((num_families, NUM_STRATA))
    np.add.at(brought, (kin, strata_of(coverage)), 1)
    first = pd.Series(names).groupby(kin).min().to_numpy()
    shuffled = np.random.default_rng(seed).permutation(np.argsort(first))
    lacks = np.tile(brought.sum(0) / num_folds, (num_folds, 1))
    fold = np.empty(num_families, np.int64)
    for family in shuffled[np.argsort(-brought[shuffled].sum(1), kind="stable")]:
        size, excess = brought[family].sum(), -lacks.sum(1)
        worse = ((brought[family] - lacks) ** 2 - lacks**2).sum(1) + (excess + size) ** 2 - excess**2
        fold[family] = worse.argmin()
        lacks[fold[family]] -= brought[family]
    return pd.DataFrame({"id": list(names), "fold": fold[kin]})


def strata_of(coverage: Sequence[float]) -> np.ndarray:
    """(N,) 0..10: 0 is empty alone, 1..10 end at a full tenth."""
    return np.ceil(10 * np.asarray(coverage, np.float64)).astype(np.int64)


def read(path: Path | str, names: Sequence[str]) -> pd.DataFrame:
    """The table at `path` in the order of `names`, its folds as integers.

    Raises BadInput unless every name has exactly one row, no other id has one, and the folds are 0, 1, ... without gap.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is missing, expected a table of id, fold: python -m datasets.folds writes a run's")
    table = read_any(path)
    refuse(path, table["id"][table["id"].duplicated()], "twice", "each tile once: remove the other row")
    refuse(path, sorted(set(table["id"]) - set(names)), "which --data lacks", "labelled tiles only: is it other data")
    missing = sorted(set(names) - set(table["id"]))
    if missing:
        raise BadInput(
            f"{path} has {len(table)} ids and lacks {missing[0]!r}, expected all {len(names)} labelled tiles: "
            "add what is missing (is the first line a header, id,fold?)"
        )
    found = sorted(set(table["fold"]))
    if found != list(range(len(found))) or len(found) < 2:
        raise BadInput(f"{path} has the folds {found}, expected 0, 1, ... without a gap, two or more: number them anew")
    return table.set_index("id").loc[list(names)].reset_index()


def read_any(path: Path) -> pd.DataFrame:
    """The table at `path`, its folds as integers, whatever tiles it is of."""
    table = salt.read_table(path, COLUMNS)
    wrong = table[~table["fold"].str.fullmatch("[0-9]{1,9}")]
    if len(wrong):
        raise BadInput(f"{path} has the fold {wrong.iloc[0]['fold']!r} for {wrong.iloc[0]['id']!r}, expected 0, 1, ...")
    return table.astype({"fold": np.int64})


def members(folds: pd.DataFrame, fold: int) -> tuple[list[str], list[str]]:
    """Names to train on and names to validate on. Raises BadInput for a fold that the table lacks."""
    inside = folds["fold"] == fold
    if not inside.any():
        raise BadInput(f"got fold {fold}, expected one of 0..{folds['fold'].max()}: the run's folds.csv has no other")
    return folds["id"][~inside].tolist(), folds["id"][inside].tolist()


def write(options: Options) -> None:
    """Write runs/RUN/folds.csv. One that is there already stays as it is; BadInput if it is another split."""
    path = runfolder.run_folder(options.run) / "folds.csv"
    tiles = layouts.load_labelled(options.data)
    if options.scheme == "mosaic" or options.leaks:
        refuse_files(options.data, tiles)
    if options.leaks:
        mosaics, kin = families_of(tiles, options.data, path.with_name("mosaics.csv"))
        report_leaks(Path(options.csv) if options.csv else path, tiles, mosaics, kin)
        return
    if options.csv:
        folds = read(options.csv, tiles.names)
    elif options.scheme == "mosaic":
        _, kin = families_of(tiles, options.data, path.with_name("mosaics.csv"))
        folds = split_families(tiles.coverage, tiles.names, kin, options.num_folds, options.seed)
    elif isinstance(tiles, Files):
        folds = split_files(tiles, options.num_folds, options.seed)
    else:
        folds = split(tiles.coverage, tiles.names, options.num_folds, options.seed)
    if isinstance(tiles, Files):
        told = {str(value): count for value, count in tiles.histogram().most_common()}
        runfolder.write_json(path.with_name(HISTOGRAM), told)
        print("mask values:", ", ".join(f"{value} ({count:,} pixels)" for value, count in list(told.items())[:8]))
    if path.exists():
        runfolder.refuse_changed(path)
        if not read(path, tiles.names).equals(folds):
            raise BadInput(
                f"{path} holds another split than the one asked for, and models may be trained on it: "
                "use another --run, or delete the file together with the run's models"
            )
        print(f"{path} holds this split already")
        return
    text = folds.to_csv(index=False, lineterminator="\n")
    runfolder.write_with_origin(path, text, options=asdict(options))
    sizes = folds["fold"].value_counts()
    print(f"{path}: {len(folds)} tiles in {len(sizes)} folds of {sizes.min()} to {sizes.max()}")


def split_files(files: Files, num_folds: int, seed: int) -> pd.DataFrame:
    """As the folders say, validation being fold 0; else by groups of images, if there are any; else by coverage."""
    if any(files.validation):
        return pd.DataFrame({"id": files.names, "fold": np.where(files.validation, 0, 1)})
    if len(set(files.groups)) < len(files):
        return split_families(files.coverage, files.names, files.groups, num_folds, seed)
    return split(files.coverage, files.names, num_folds, seed)


def refuse_files(data: str, tiles: Tiles | Files) -> None:
    if isinstance(tiles, Files):
        raise BadInput(f"--data={data} has images of their own, not tiles of sections: leave --scheme and --leaks out")


def families_of(train: Tiles, data: str, table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mosaic and family of each labelled tile (N,), by the run's mosaics if they are there, else found now."""
    from datasets import families, mosaic  # here, as every stage reads folds and few need what mosaics need

    test = salt.load_test(data)
    if table.exists():
        return families.of_tiles(train, mosaic.read(table, [*train.names, *test.names]))
    return families.of_tiles(train, mosaic.find_all(train, test)[0])


def report_leaks(path: Path, train: Tiles, mosaics: np.ndarray, kin: np.ndarray) -> None:
    """Print how many labelled tiles share a mosaic or a family with a tile of another fold."""
    from datasets import families

    fold = read(path, train.names)["fold"].to_numpy()
    print(f"{path}: {len(train):,} labelled tiles in {fold.max() + 1} folds")
    print(f"{families.split_up(mosaics, fold):,} of them share a mosaic with a labelled tile of another fold")
    print(f"{families.split_up(kin, fold):,} are its kin by mosaics or near-duplicates: their like was trained on")


def refuse(path: Path, names: Sequence[str], what: str, expected: str) -> None:
    """Raise BadInput about the first of `names`, if there are any."""
    if len(names):
        raise BadInput(f"{path} lists {next(iter(names))!r} {what} ({len(names)} such rows), expected {expected}")


if __name__ == "__main__":
    command.run(write, Options)
