"""How the stages of postprocess hand over through runs/RUN.

Each stage writes its files together and its JSON last. The JSON holds checksums of what it was `made from` and of what
was `written` with it, so a stage refuses files that are missing, damaged, or left from another run of the one before.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import runfolder
from command import BadInput
from datasets import predictions
from datasets.predictions import Predictions
from datasets.salt import Tiles

MADE_BY = {
    "oof.csv": "ensemble",
    "oof.npy": "ensemble",
    "test.csv": "ensemble",
    "test.npy": "ensemble",
    "ensemble.json": "ensemble",
    "threshold.json": "threshold",
    "masks.npy": "rules",
    "changes.csv": "rules",
    "rules.json": "rules",
    "submission.csv": "submit",
}


def existing_run(run: str) -> Path:
    """runs/RUN. Raises BadInput where it is missing, naming the runs there are."""
    folder = runfolder.run_folder(run)
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        raise BadInput(f"{folder} is missing, expected a run with predictions: the runs there are {others}")
    return folder


def again(folder: Path, file: str) -> str:
    """The command that writes `file` of this run."""
    if file == "mosaics.csv":
        return f"`python -m datasets.mosaic --data=... --out={folder / file}`"
    return f"`python -m postprocess.{MADE_BY[file]} --run={folder.name} --data=...`"


def require(folder: Path, file: str) -> Path:
    """runs/RUN/FILE. Raises BadInput with the stage that writes it where it is missing."""
    path = folder / file
    if not path.is_file():
        raise BadInput(f"{path} is missing: run {again(folder, file)} first")
    return path


def read_stage(folder: Path, file: str, keys: dict[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """A stage's JSON with at least `keys` of these types, made from and written with the files that lie there now."""
    found = runfolder.read_json(require(folder, file))
    keys = keys | {"made from": dict, "written": dict}
    wrong = [key for key in keys if not isinstance(found, dict) or not isinstance(found.get(key), keys[key])]
    if wrong:
        raise BadInput(f"{folder / file} lacks {wrong[0]!r} or has it of another type: run {again(folder, file)} again")
    for name, digest in (found["made from"] | found["written"]).items():
        path = folder / name
        if "/" not in name:
            require(folder, name)
        elif path.suffix != ".csv" or not path.exists():
            continue  # a model's: its csv tells two predictions apart, its pixels are 0.5 GB and may be cleared away
        if runfolder.checksum(path) != digest:
            raise BadInput(f"{path} is not the one that {folder / file} tells of: run {again(folder, file)} again")
    return found


def read_predictions(folder: Path, stem: str) -> Predictions:
    """The run's own averaged probabilities, (N, H, W), memory-mapped."""
    for suffix in (".csv", ".npy"):
        require(folder, stem + suffix)
    return predictions.read(folder / stem)


def refuse_other_size(stored: Predictions, tiles: Tiles, source: Path) -> None:
    """Raise BadInput unless the pixels are (N, H, W) with the H and W of the tiles."""
    if stored.pixels.shape[1:] != tiles.size:
        raise BadInput(f"{source} holds predictions of {stored.pixels.shape[1:]}, expected {tiles.size} as --data has")


def checksums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each of these files, by their names relative to `folder`."""
    return {name: runfolder.checksum(folder / name) for name in names}


@contextmanager
def together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder for the files `names`; they move into `folder` when the block ends, or none when it fails.

    The last one is the stage's JSON. The old one goes first: never old figures beside new files.
    """
    with (
        runfolder.lock(folder),
        TemporaryDirectory(f".{os.getpid()}.tmp", ".making-", folder) as temporary,
        runfolder.errors_of(folder, Path(temporary)),
    ):
        yield Path(temporary)
        (folder / names[-1]).unlink(missing_ok=True)
        for name in names:
            os.replace(Path(temporary) / name, folder / name)


def plain(value: float) -> float | None:
    """A number for JSON, which has no nan."""
    return None if math.isnan(value) else value
