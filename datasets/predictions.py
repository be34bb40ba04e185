"""Stored probabilities: STEM.npy holds the pixels, STEM.csv the names and one probability per image.

Pixels are uint16, round(65535 p), of shape (N, H, W) or (N, classes, H, W) at the tile's own size, and are
memory-mapped: 18,000 tiles of 101 x 101 are 367 MB on the disk and next to nothing in memory.
The csv is written last, so its presence says that both are complete.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap

import runfolder
from command import BadInput

SCALE = 65535
WINDOWS = "windows.txt"  # beside predictions across borders of tiles: the checksum of the mosaics they went by
REMEDY = "run the stage that writes it again"


@dataclass(frozen=True)
class Predictions:
    """Probabilities of salt for N named tiles."""

    names: list[str]
    image_probability: np.ndarray  # (N,) float32, 0..1: the tile holds any salt
    pixels: np.ndarray  # (N, H, W) or (N, classes, H, W) uint16, 65535 is certain

    def __len__(self) -> int:
        return len(self.names)

    def probability(self, indices) -> np.ndarray:
        """Float32 probabilities, 0..1, of the tiles that an index, a slice or a list picks; only these are read."""
        return self.pixels[indices].astype(np.float32) / SCALE


def write(stem: Path | str, names: Sequence[str], chunks: Iterable[tuple]) -> None:
    """Write STEM.npy and STEM.csv from chunks of (probability (n, ..., H, W), image_probability (n,)), in names' order.

    Tensors (any device and float type) or arrays, 0..1; one chunk is in memory at a time. What STEM held before stays
    until the new pixels are complete. Raises BadInput for values outside 0..1 (NaN: the training diverged).
    """
    names, image_chunks = list(names), []
    npy, csv = files(stem)
    assert names and len(set(names)) == len(names), f"{stem}: names must be one or more and differ"
    with runfolder.atomic(npy) as temporary:
        pixels, done = None, 0
        for probability, image_probability in chunks:
            probability = checked(probability, stem, names[done:])
            if pixels is None:
                shape = (len(names), *probability.shape[1:])
                pixels = open_memmap(temporary, mode="w+", dtype=np.uint16, shape=shape)
            pixels[done : done + len(probability)] = np.rint(probability * SCALE)
            image_chunks.append(checked(image_probability, stem, names[done:]))
            assert image_chunks[-1].shape == (len(probability),), "a chunk needs one image probability per tile"
            done += len(probability)
        assert done == len(names), f"{stem}: got {done} predictions for {len(names)} names"
        pixels.flush()
        csv.unlink(missing_ok=True)  # never an old list beside new pixels
    table = pd.DataFrame({"name": names, "image_probability": np.concatenate(image_chunks)})
    with runfolder.atomic(csv) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g", encoding="utf-8")


def read(stem: Path | str) -> Predictions:
    """Stored predictions, pixels memory-mapped. Raises BadInput where they are missing, damaged or disagree."""
    npy, csv = files(stem)
    for path in (csv, npy):
        if not path.is_file():
            raise BadInput(f"{path} is missing, expected stored probabilities: {REMEDY}")
    table = read_table(csv)
    try:
        pixels = np.load(npy, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise BadInput(f"{npy} is not a whole array of numbers ({error}): {REMEDY}") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint16 or pixels.ndim not in (3, 4):
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else "an archive"
        raise BadInput(f"{npy} holds {got}, expected uint16 (N, H, W) or (N, classes, H, W): {REMEDY}")
    if len(pixels) != len(table):
        raise BadInput(f"{npy} holds {len(pixels)} tiles and {csv} {len(table)} names, expected as many: {REMEDY}")
    return Predictions(table["name"].tolist(), table["image_probability"].to_numpy(np.float32), pixels)


def files(stem: Path | str) -> tuple[Path, Path]:
    """STEM.npy and STEM.csv."""
    stem = Path(stem)
    return stem.with_name(stem.name + ".npy"), stem.with_name(stem.name + ".csv")


def read_table(csv: Path) -> pd.DataFrame:
    """The checked names (text, whatever they look like) and image probabilities (float64)."""
    try:
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # pandas' parser errors and undecodable bytes among them
        raise BadInput(f"{csv} is not a readable table ({error}): {REMEDY}") from error
    if list(table.columns) != ["name", "image_probability"]:
        raise BadInput(f"{csv} has the columns {list(table.columns)}, expected name, image_probability: {REMEDY}")
    repeated = table["name"][table["name"].duplicated()]
    if len(repeated):
        raise BadInput(f"{csv} lists {repeated.iloc[0]!r} twice, expected each tile once: {REMEDY}")
    table["image_probability"] = pd.to_numeric(table["image_probability"], errors="coerce")
    wrong = table["name"][~table["image_probability"].between(0, 1)]
    if len(wrong):
        raise BadInput(f"{csv} has no image_probability in 0..1 for {wrong.iloc[0]!r}: {REMEDY}")
    return table


def checked(values, stem: Path | str, names: list[str]) -> np.ndarray:
    """`values` of a chunk that begins with names[0], as float32 in 0..1."""
    if isinstance(values, torch.Tensor):
        values = values.detach().float().cpu().numpy()
    values = np.asarray(values, np.float32)
    assert len(values) <= len(names), f"{stem}: more predictions than names"
    inside = (values >= 0) & (values <= 1)  # false for NaN
    if not inside.all():
        first = int(np.argmin(inside.reshape(len(values), -1).all(axis=1)))
        worst = values[first][~inside[first]].flat[0] if values.ndim > 1 else values[first]
        raise BadInput(
            f"{stem}: got the probability {worst} for tile {names[first]!r}, expected 0..1: "
            "the model is damaged or its training diverged, so train it again with a lower learning rate"
        )
    return values
