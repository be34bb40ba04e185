"""Stored probabilities: STEM.npy holds the pixels, STEM.csv the names, one probability per image, and a checksum.

Pixels are uint16, round(65535 p), of shape (N, H, W) or (N, classes, H, W) at the tile's own size, and are
memory-mapped: 18,000 tiles of 101 x 101 are 367 MB on the disk and next to nothing in memory.
The csv is written last, so its presence says that both are complete; its column crc32 is of a tile's name, image
probability and pixels, and is checked whenever they are read.
"""

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch
from numpy.typing import DTypeLike

import runfolder
from command import BadInput

SCALE = 65535
COLUMNS = ["name", "image_probability", "crc32"]
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
    names, rows = list(names), []
    npy, csv = files(stem)
    assert names and len(set(names)) == len(names), f"{stem}: names must be one or more and differ"
    with runfolder.atomic(npy) as temporary, open(temporary, "wb") as file:
        for probability, image_probability in chunks:
            probability = checked(probability, stem, names[len(rows) :])
            image_probability = checked(image_probability, stem, names[len(rows) :])
            assert image_probability.shape == (len(probability),), "a chunk needs one image probability per tile"
            if not rows:
                write_header(file, (len(names), *probability.shape[1:]), np.uint16)
            pixels = np.rint(probability * SCALE).astype(np.uint16)
            file.write(pixels.tobytes())
            said = [f"{value:.9g}" for value in image_probability]
            here = names[len(rows) : len(rows) + len(said)]
            rows += zip(here, said, map(checksum, here, said, pixels), strict=True)
        assert len(rows) == len(names), f"{stem}: got {len(rows)} predictions for {len(names)} names"
        file.flush()
        os.fsync(file.fileno())  # on the disk before the list says so
        csv.unlink(missing_ok=True)  # never an old list beside new pixels
    with runfolder.atomic(csv) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False, encoding="utf-8")


def read(stem: Path | str) -> Predictions:
    """Stored predictions, pixels memory-mapped. Raises BadInput where they are missing, damaged or disagree."""
    npy, csv = files(stem)
    for path in (csv, npy):
        if not path.is_file():
            raise BadInput(f"{path} is missing, expected stored probabilities: {REMEDY}")
    table = read_table(csv)
    try:
        pixels = np.load(npy, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise BadInput(f"{npy} is not a whole array of numbers ({error}): {REMEDY}") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint16 or pixels.ndim not in (3, 4):
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else "an archive"
        raise BadInput(f"{npy} holds {got}, expected uint16 (N, H, W) or (N, classes, H, W): {REMEDY}")
    if len(pixels) != len(table):
        raise BadInput(f"{npy} holds {len(pixels)} tiles and {csv} {len(table)} names, expected as many: {REMEDY}")
    found = map(checksum, table["name"], table["image_probability"], pixels)
    for name, told, crc in zip(table["name"], table["crc32"], found, strict=True):
        if told != str(crc):
            raise BadInput(f"{npy} or {csv} is damaged at {name!r}, by its checksum: {REMEDY}")
    return Predictions(table["name"].tolist(), table["image_probability"].astype(np.float32).to_numpy(), pixels)


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """The beginning of a .npy file, behind which the array's bytes are written.

    np.save and a memory map would not tell a full disk from other errors, or crash there.
    """
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)


def checksum(name: str, image_probability: str, pixels: np.ndarray) -> int:
    """CRC-32 of a tile's row and pixels."""
    return zlib.crc32(np.ascontiguousarray(pixels), zlib.crc32(f"{name},{image_probability}".encode()))


def files(stem: Path | str) -> tuple[Path, Path]:
    """STEM.npy and STEM.csv."""
    stem = Path(stem)
    return stem.with_name(stem.name + ".npy"), stem.with_name(stem.name + ".csv")


def read_table(csv: Path) -> pd.DataFrame:
    """The names, image probabilities and checksums as text; the first two are checked."""
    try:
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # pandas' parser errors and undecodable bytes among them
        raise BadInput(f"{csv} is not a readable table ({error}): {REMEDY}") from error
    if list(table.columns) != COLUMNS:
        raise BadInput(f"{csv} has the columns {list(table.columns)}, expected {', '.join(COLUMNS)}: {REMEDY}")
    repeated = table["name"][table["name"].duplicated()]
    if len(repeated):
        raise BadInput(f"{csv} lists {repeated.iloc[0]!r} twice, expected each tile once: {REMEDY}")
    wrong = table["name"][~pd.to_numeric(table["image_probability"], errors="coerce").between(0, 1)]
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
