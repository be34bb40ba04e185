"""Write submission.csv: the final masks as runs, in the order of sample_submission.csv.

    python -m postprocess.submit --run=saltnet --data=datasets/tgs [--show=True]

The file is read back and checked before it gets its name: every id once and in order, none extra, runs sorted, apart
and inside the tile, and each decodes to its mask. --show prints the summary of the submission that is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import command
import runfolder
from command import BadInput
from datasets import predictions, rle, salt
from postprocess import scores, stages
from postprocess.members import OUTSIDE


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write the submission of a run."""

    data: str = "datasets/tgs"  # a folder in Kaggle's layout, for sample_submission.csv
    run: str = "saltnet"  # folder under runs/
    show: bool = False  # only print the summary of the submission that is there


def submit(options: Options) -> None:
    """Write submission.csv unless only asked to show it; print its summary."""
    folder = stages.existing_run(options.run)
    path = folder / "submission.csv"
    ensemble, found = read_figures(folder)
    names = salt.test_names(options.data)
    if options.show:
        refuse_older(folder)
        table = read_texts(path)
        refuse_other_data(path, table, names)
        refuse_other_masks(path, table, *read_masks(folder))
    else:
        with runfolder.lock(folder):
            write(path, names, *read_masks(folder))
    summarise(folder, read_texts(path), ensemble, found)


def read_figures(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """ensemble.json and rules.json, each in step with the files beside it."""
    ensemble = stages.read_stage(folder, "ensemble.json", {"models": list, "left out": dict})
    keys = {"threshold": (int, float), "rules": list, "out of fold": dict, "all empty": dict}
    return ensemble, stages.read_stage(folder, "rules.json", keys)


def read_masks(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names of the test tiles and their masks (N, H, W) uint8."""
    names = predictions.read_table(stages.require(folder, "test.csv"))["name"].tolist()
    path = stages.require(folder, "masks.npy")
    masks = np.load(path, mmap_mode="r", allow_pickle=False)
    if masks.ndim != 3 or masks.dtype != np.uint8 or len(masks) != len(names):
        remedy = f"run {stages.again(folder, 'masks.npy')} again"
        raise BadInput(f"{path} is {masks.dtype} {masks.shape}, expected uint8 ({len(names)}, H, W): {remedy}")
    return names, masks


def write(path: Path, order: Sequence[str], names: Sequence[str], masks: np.ndarray) -> None:
    """The submission of `masks`, which belong to `names`, with its rows in `order`."""
    different = set(order) ^ set(names)
    if different:
        name = min(different)
        where = "sample_submission.csv lists it, test.csv does not" if name in set(order) else "only test.csv has it"
        raise BadInput(
            f"{path.parent}/test.csv and sample_submission.csv differ in {len(different)} ids, such as {name!r} "
            f"({where}), expected the same: predict the test tiles of this --data with `make predict`"
        )
    place = pd.Index(names).get_indexer(order)
    table = pd.DataFrame({"id": order, "rle_mask": encode(masks, place)})
    with runfolder.atomic(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")
        check(read_texts(temporary), order, masks, place)


def encode(masks: np.ndarray, place: np.ndarray) -> list[str]:
    """Runs of the masks at `place`, a chunk in memory at a time."""
    return [text for part in scores.chunks(len(place)) for text in rle.encode_many(masks[place[part]])]


def check(table: pd.DataFrame, order: Sequence[str], masks: np.ndarray, place: np.ndarray) -> None:
    """Assert that a submission, as read back, says exactly the masks: a fault here is ours, not the user's."""
    assert table["id"].tolist() == list(order), "submission.csv: its ids differ from sample_submission.csv"
    for row, (name, text) in enumerate(zip(table["id"], table["rle_mask"], strict=True)):
        mask = masks[place[row]]
        assert np.array_equal(rle.decode(text, *mask.shape), mask), f"submission.csv: {name!r} is not its mask"


def read_texts(path: Path) -> pd.DataFrame:
    """id and rle_mask of a submission, as text."""
    return salt.read_table(path, ("id", "rle_mask"))


def refuse_older(folder: Path) -> None:
    path = stages.require(folder, "submission.csv")
    if path.stat().st_mtime < (folder / "rules.json").stat().st_mtime:
        raise BadInput(f"{path} is older than rules.json beside it: run {stages.again(folder, path.name)} again")


def refuse_other_data(path: Path, table: pd.DataFrame, names: Sequence[str]) -> None:
    if table["id"].tolist() != list(names):
        raise BadInput(f"{path} is of other test tiles than this --data: give its own, or another RUN")


def refuse_other_masks(path: Path, table: pd.DataFrame, names: Sequence[str], masks: np.ndarray) -> None:
    """Raise BadInput for a submission that was changed or damaged after it was written."""
    different = table["id"][table["rle_mask"] != encode(masks, pd.Index(names).get_indexer(table["id"]))]
    if len(different):
        remedy = f"run {stages.again(path.parent, path.name)} again"
        raise BadInput(f"{path} has another mask for {different.iloc[0]!r} than masks.npy beside it: {remedy}")


def summarise(folder: Path, table: pd.DataFrame, ensemble: dict[str, Any], found: dict[str, Any]) -> None:
    models = [one["model"] for one in ensemble["models"]]
    missing = [name for name, why in ensemble["left out"].items() if why != OUTSIDE]
    kept = [entry["rule"] for entry in found["rules"] if entry["kept"]]
    share = (table["rle_mask"] == "").mean()
    print(f"{folder / 'submission.csv'}: {len(table):,} rows, {share:.1%} of the masks empty")
    print(
        f"out-of-fold metric {scores.text(found['out of fold'])}; "
        f"all masks empty {scores.text(found['all empty'])} on the same tiles"
    )
    if found["out of fold"]["metric"] < found["all empty"]["metric"]:
        print("NOTE: that is worse than predicting no salt anywhere: these models need more training")
    changed = sum(entry["changed in test"] for entry in found["rules"] if entry["kept"])
    rules = f"rules {', '.join(kept) or 'none'}: {changed} changes of test masks, listed in {folder / 'changes.csv'}"
    print(f"threshold {found['threshold']:.2f}; {rules}")
    print(f"{len(models)} model(s) of {len(models) + len(missing)}: {' '.join(models)}")
    if missing:
        print(f"NOT IN IT: {' '.join(missing)}")
    files = ("oof.csv", "oof.npy", "test.csv", "test.npy", "ensemble.json", "threshold.json")
    files += ("masks.npy", "changes.csv", "rules.json", "submission.csv")
    print(f"files: {' '.join(str(folder / file) for file in files)}")


if __name__ == "__main__":
    command.run(submit, Options)
