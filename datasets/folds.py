"""Which tiles validate which model: a table of id and fold, written once per run and read by every stage.

    python -m datasets.folds --data=datasets/tgs --run=saltnet --num_folds=10 --seed=0

Every fold holds the same share of empty tiles and of each tenth of coverage. Fold 0 of five is an 80/20 split.
--csv=own.csv takes a split of one's own (header id,fold; folds from 0) in place of a random one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import command
import runfolder
from command import BadInput
from datasets import salt

COLUMNS = ("id", "fold")


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str = "datasets/tgs"  # folder in Kaggle's layout
    run: str = "saltnet"  # folder under runs/
    num_folds: int = 10  # models per framing; each validates on one fold
    seed: int = 0  # of the shuffle
    csv: str = ""  # a table of one's own, with columns id and fold; then num_folds and seed do not matter


def split(coverage: Sequence[float], names: Sequence[str], num_folds: int, seed: int) -> pd.DataFrame:
    """Table of id and fold, in the order of `names`: the same for the same tiles and seed, whatever their order.

    coverage (N,), 0..1. Sizes of folds differ by one at most, over all tiles and within each stratum: empty tiles,
    and tenths of coverage. Raises BadInput unless 2 <= num_folds <= N.
    """
    if not 2 <= num_folds <= len(names):
        raise BadInput(f"--num_folds={num_folds} for {len(names)} tiles, expected 2 to {len(names)}")
    strata = np.ceil(10 * np.asarray(coverage, np.float64))  # 0 is empty alone, 1..10 end at a full tenth
    by_name = np.argsort(np.asarray(names))
    shuffled = np.random.default_rng(seed).permutation(by_name)
    dealt = shuffled[np.argsort(strata[shuffled], kind="stable")]
    fold = np.empty(len(names), np.int64)
    fold[dealt] = np.arange(len(names)) % num_folds
    return pd.DataFrame({"id": list(names), "fold": fold})


def read(path: Path | str, names: Sequence[str]) -> pd.DataFrame:
    """The table at `path` in the order of `names`, its folds as integers.

    Raises BadInput unless every name has exactly one row, no other id has one, and the folds are 0, 1, ... without gap.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is missing, expected a table of id, fold: python -m datasets.folds writes a run's")
    table = salt.read_table(path, COLUMNS)
    refuse(path, table["id"][table["id"].duplicated()], "twice", "each tile once: remove the other row")
    refuse(path, sorted(set(table["id"]) - set(names)), "which --data lacks", "labelled tiles only: is it other data")
    missing = sorted(set(names) - set(table["id"]))
    if missing:
        raise BadInput(
            f"{path} has {len(table)} ids and lacks {missing[0]!r}, expected all {len(names)} labelled tiles: "
            "add what is missing (is the first line a header, id,fold?)"
        )
    wrong = table[~table["fold"].str.fullmatch("[0-9]{1,9}")]
    if len(wrong):
        raise BadInput(f"{path} has the fold {wrong.iloc[0]['fold']!r} for {wrong.iloc[0]['id']!r}, expected 0, 1, ...")
    table["fold"] = table["fold"].astype(np.int64)
    found = sorted(set(table["fold"]))
    if found != list(range(len(found))) or len(found) < 2:
        raise BadInput(f"{path} has the folds {found}, expected 0, 1, ... without a gap, two or more: number them anew")
    return table.set_index("id").loc[list(names)].reset_index()


def members(folds: pd.DataFrame, fold: int) -> tuple[list[str], list[str]]:
    """Names to train on and names to validate on. Raises BadInput for a fold that the table lacks."""
    inside = folds["fold"] == fold
    if not inside.any():
        raise BadInput(f"got fold {fold}, expected one of 0..{folds['fold'].max()}: the run's folds.csv has no other")
    return folds["id"][~inside].tolist(), folds["id"][inside].tolist()


def write(options: Options) -> None:
    """Write runs/RUN/folds.csv. One that is there already stays as it is; BadInput if it is another split."""
    path = runfolder.run_folder(options.run) / "folds.csv"
    tiles = salt.load_train(options.data)
    if options.csv:
        folds = read(options.csv, tiles.names)
    else:
        folds = split(tiles.coverage, tiles.names, options.num_folds, options.seed)
    if path.exists():
        if not read(path, tiles.names).equals(folds):
            raise BadInput(
                f"{path} holds another split than the one asked for, and models may be trained on it: "
                "use another --run, or delete the file together with the run's models"
            )
        print(f"{path} holds this split already")
        return
    with runfolder.atomic(path) as temporary:
        folds.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")
    sizes = folds["fold"].value_counts()
    print(f"{path}: {len(folds)} tiles in {len(sizes)} folds of {sizes.min()} to {sizes.max()}")


def refuse(path: Path, names: Sequence[str], what: str, expected: str) -> None:
    """Raise BadInput about the first of `names`, if there are any."""
    if len(names):
        raise BadInput(f"{path} lists {next(iter(names))!r} {what} ({len(names)} such rows), expected {expected}")


if __name__ == "__main__":
    command.run(write, Options)
