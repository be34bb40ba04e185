"""The TGS salt competition in Kaggle's layout, decoded once and kept in memory; and its check.

    python -m datasets.salt --data=datasets/tgs

    DATA/{train.csv, depths.csv, sample_submission.csv, train/images, train/masks, test/images}

Masks are 8- or 16-bit PNG with at most two values, read unchanged: salt is > 0. They must equal train.csv's runs.
"""

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import command
from command import BadInput, fits_a_line
from datasets import png, rle

TABLES = {"train.csv": ("id", "rle_mask"), "sample_submission.csv": ("id",), "depths.csv": ("id", "z")}
LONGEST_FIELD = 2**31 - 1  # characters of a table: runs may be longer than the csv module's own bound
FOLDERS = {"train/images": "train.csv", "train/masks": "train.csv", "test/images": "sample_submission.csv"}


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str = "datasets/tgs"  # folder in Kaggle's layout


@dataclass(frozen=True)
class Tiles:
    """N tiles of one size, in the order of the table that lists them."""

    names: list[str]
    images: Tensor  # (N, C, H, W) uint8, or uint16 from 16-bit files; C is 1 where all channels are equal, else 3 (RGB)
    masks: Tensor | None  # (N, H, W) uint8, 0 or 1 (other data: 0 .. labels); None for test tiles
    depths: Tensor  # (N,) float32, as in depths.csv; nan where unknown

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.images.shape[-2:])

    @property
    def channels(self) -> int:
        """That a net sees: grey is shown as RGB."""
        return 3

    def pieces(self, count: int) -> Iterator["Tiles"]:
        """All tiles in their order, as Tiles of at most `count`."""
        for first in range(0, len(self), count):
            place = slice(first, first + count)
            masks = None if self.masks is None else self.masks[place]
            yield Tiles(self.names[place], self.images[place], masks, self.depths[place])

    @property
    def coverage(self) -> Tensor:
        """(N,) float64, 0..1: the share of salt."""
        assert self.masks is not None, "test tiles have no masks"
        return self.masks.sum((1, 2), dtype=torch.int64).double() / (self.size[0] * self.size[1])

    def select(self, names: Sequence[str]) -> "Tiles":
        """The tiles of these names, in this order. Raises BadInput for a name that is not here."""
        place = {name: i for i, name in enumerate(self.names)}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise BadInput(
                f"got the id {unknown[0]!r}, expected one of the {len(self)} tiles of --data: is it other data"
            )
        indices = torch.tensor([place[name] for name in names], dtype=torch.int64, device=self.images.device)
        masks = None if self.masks is None else self.masks[indices]
        return Tiles(list(names), png.pick(self.images, indices), masks, self.depths[indices])

    def to(self, device: torch.device | str) -> "Tiles":
        """The same tiles with their tensors on `device`."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, images=self.images.to(device), masks=masks, depths=self.depths.to(device))

    def batch(self, indices, channels: int = 3, device: torch.device | str | None = None) -> Tensor:
        """Float32 (n, channels, H, W) in 0..1 in new memory; grey is repeated to `channels`."""
        place = torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)
        images = png.pick(self.images, place).to(device)
        if images.shape[1] not in (1, channels):
            raise BadInput(f"got tiles of {images.shape[1]} channels for a net of {channels}: use a net of 3")
        if images.dtype == torch.uint16:  # by way of the signed type: torch has little arithmetic for unsigned ones
            scaled = (images.view(torch.int16).to(torch.int32) & 0xFFFF) / 65535
        else:
            scaled = images / 255
        return scaled if scaled.shape[1] == channels else scaled.repeat(1, channels, 1, 1)


def load_train(data: Path | str) -> Tiles:
    """The labelled tiles in train.csv's order. Raises BadInput with the first fault of what is read."""
    return refuse_faults(read_train, Path(data))


def load_test(data: Path | str) -> Tiles:
    """The test tiles in sample_submission.csv's order, without masks. Raises BadInput like load_train."""
    return refuse_faults(read_test, Path(data))


def stream_test(data: Path | str, count: int) -> Iterator[Tiles]:
    """`load_test` in pieces of `count` tiles, without depths, only one of which is in memory at a time."""
    data = Path(data)
    names, kind = test_names(data), ()
    for first in range(0, len(names), count):
        tiles = refuse_faults(partial(read_test_tiles, names=names[first : first + count], kind=kind), data)
        kind = tiles.size, tiles.images.numpy().dtype
        yield tiles


def test_names(data: Path | str) -> list[str]:
    """The ids of sample_submission.csv in its order. Raises BadInput with its first fault."""
    return refuse_faults(lambda data, faults: list(read_ids(data / "sample_submission.csv", faults)["id"]), Path(data))


def verify(data: Path | str) -> list[str]:
    """Every fault of the competition in `data`, each naming its file; [] if it is sound."""
    return examine(Path(data))[2]


def examine(data: Path) -> tuple[Tiles | None, Tiles | None, list[str]]:
    """Labelled tiles, test tiles (None where a fault keeps them from being read) and all faults."""
    faults: list[str] = []
    train, test = read_train(data, faults), read_test(data, faults)
    if not (data / "depths.csv").exists():
        faults.append(f"{data / 'depths.csv'} is missing, expected a table of id, z")
    listed = {name: set(read_ids(data / name, [])["id"]) for name in set(FOLDERS.values())}
    for folder, table in FOLDERS.items():
        faults += extra_files(data / folder, listed[table], table)
    for name in sorted(set.intersection(*listed.values())):
        faults.append(f"{data / 'sample_submission.csv'} lists {name!r}, which train.csv has too: keep one of them")
    if train and test and (train.size, train.images.dtype) != (test.size, test.images.dtype):
        got, expected = (f"{t.size[0]}x{t.size[1]} {t.images.dtype} tiles" for t in (test, train))
        faults.append(f"{data / 'test/images'} has {got}, expected {expected} as in train/images")
    return train, test, list(dict.fromkeys(faults))


def report(options: Options) -> None:
    """Print what is there, or every fault and raise BadInput."""
    refuse_missing_folder(Path(options.data))
    train, test, faults = examine(Path(options.data))
    for fault in faults:
        print(fault)
    if faults:
        raise BadInput(
            f"--data={options.data} has {len(faults)} fault(s), listed above: mend or download these files again"
        )
    coverage = train.coverage
    print(
        f"{options.data} is sound: {len(train)} labelled tiles ({(coverage == 0).float().mean():.1%} empty, mean "
        f"coverage {coverage.mean():.1%}), {len(test)} test tiles, {train.size[0]}x{train.size[1]} pixels, "
        f"{train.images.shape[1]} channel(s) of {train.images.dtype.itemsize * 8} bits"
    )


def refuse_missing_folder(data: Path) -> None:
    if not data.is_dir():
        raise BadInput(
            f"--data={data} is not a folder: unpack the files of Kaggle's tgs-salt-identification-challenge there, "
            "or give the folder that has them"
        )


def refuse_faults(read: Callable[[Path, list[str]], Any], data: Path) -> Any:
    refuse_missing_folder(data)
    faults: list[str] = []
    found = read(data, faults)
    if faults:
        more = f" (and {len(faults) - 1} more faults: `make verify DATA=...` lists them)" if len(faults) > 1 else ""
        raise BadInput(faults[0] + more)
    return found


def read_train(data: Path, faults: list[str]) -> Tiles | None:
    table = read_ids(data / "train.csv", faults)
    images = png.read_folder(data / "train/images", table["id"], png.decode, faults)
    size = next((image.shape[:2] for image in images if image is not None), None)
    masks = png.read_folder(data / "train/masks", table["id"], png.decode_mask, faults, size)
    compare_runs(data, table, masks, faults)
    depths = read_depths(data / "depths.csv", table["id"], faults)
    return None if faults else Tiles(list(table["id"]), png.stack(images), torch.from_numpy(np.stack(masks)), depths)


def read_test(data: Path, faults: list[str]) -> Tiles | None:
    before = len(faults)
    names = list(read_ids(data / "sample_submission.csv", faults)["id"])
    tiles = read_test_tiles(data, faults, names, read_depths(data / "depths.csv", names, faults))
    return None if len(faults) > before else tiles


def read_test_tiles(
    data: Path, faults: list[str], names: Sequence[str], depths: Tensor | None = None, kind: tuple = ()
) -> Tiles | None:
    """Tiles of these names, of the size and type `kind` if it is given."""
    before = len(faults)
    images = png.read_folder(data / "test/images", names, png.decode, faults, *kind)
    depths = torch.full((len(names),), torch.nan) if depths is None else depths
    return None if len(faults) > before or not names else Tiles(list(names), png.stack(images), None, depths)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of text, "" where a row ends early. Raises BadInput where they cannot be read.

    Not by pandas, which drops what a row has beyond its header and takes the rows between two stray quotes for a field.
    """
    if not path.is_file():
        raise BadInput(f"{path} is missing, expected a table of {', '.join(columns)} in the folder that --data names")
    try:
        (_, header), *rows = read_rows(path)
    except (ValueError, OSError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({error}), expected a table of {', '.join(columns)} in UTF-8") from error
    if wrong := [column for column in columns if header.count(column) != 1]:
        raise BadInput(f"{path} begins with {','.join(header)!r}, expected a header with {', '.join(wrong)} once each")
    for line, row in rows:
        if len(row) > len(header):
            raise BadInput(f"{path} has {len(row)} fields in line {line}, expected {len(header)} as in its header")
        row += [""] * (len(header) - len(row))
    place = [header.index(column) for column in columns]
    return pd.DataFrame([[row[i] for i in place] for _, row in rows], columns=list(columns), dtype=str)


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Number of the line and fields of each row that has any. Raises ValueError, OSError or csv.Error."""
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    if not rows:
        raise ValueError("it is empty")
    for line, row in rows:
        if any("\n" in field or "\r" in field for field in row):
            raise ValueError(f"a field in quotes goes on over several lines up to line {line}")
    return rows


def read_ids(path: Path, faults: list[str]) -> pd.DataFrame:
    """The rows of one of TABLES whose ids are sound."""
    columns = TABLES[path.name]
    try:
        table = read_table(path, columns)
    except BadInput as error:
        faults.append(str(error))
        return pd.DataFrame({column: pd.Series(dtype=str) for column in columns})
    counts = Counter(table["id"])
    odd = [name for name in counts if not is_name(name)]
    repeated = [name for name in counts if counts[name] > 1 and is_name(name)]
    faults += [f"{path} has the id {name!r}, expected a file's name without folders" for name in odd]
    faults += [f"{path} lists {name!r} more than once: keep one of the rows" for name in repeated]
    if table.empty:
        faults.append(f"{path} lists no tiles, expected one or more below its header")
    return table[~table["id"].isin(odd)].drop_duplicates("id", ignore_index=True) if odd or repeated else table


def is_name(text: str) -> bool:
    """Whether a file can have this name, and a message can hold it."""
    return text not in ("", ".", "..") and fits_a_line(text) and not set(text) & set("/\\")


def read_depths(path: Path, names: Sequence[str], faults: list[str]) -> Tensor:
    """(N,) float32; all nan without the file, which nothing needs."""
    if not path.exists():
        return torch.full((len(names),), torch.nan)
    table = read_ids(path, faults)
    depths = pd.to_numeric(table["z"], errors="coerce").to_numpy(np.float64, copy=True)
    wrong = ~(np.abs(depths) <= np.finfo(np.float32).max)  # no number, or one beyond the type that holds them
    depths[wrong] = np.nan
    faults += [f"{path} has the depth {row.z!r} for {row.id!r}, expected a number" for row in table[wrong].itertuples()]
    known = dict(zip(table["id"], depths.tolist(), strict=True))
    faults += [f"{path} has no row for {name!r}, expected one for every tile" for name in names if name not in known]
    return torch.tensor([known.get(name, torch.nan) for name in names])


def compare_runs(data: Path, table: pd.DataFrame, masks: list[np.ndarray | None], faults: list[str]) -> None:
    """Append a fault for each mask file that differs from its runs in train.csv."""
    there = [i for i, mask in enumerate(masks) if mask is not None]
    if not there:
        return
    texts = rle.encode_many(np.stack([masks[i] for i in there]))
    for i, text in zip(there, texts, strict=True):
        name, listed = table["id"][i], table["rle_mask"][i]
        if listed == text:
            continue
        try:
            num_different = int((rle.decode(listed, *masks[i].shape) != masks[i]).sum())
        except BadInput as error:
            faults.append(f"{data / 'train.csv'}, id {name!r}: {error}")
            continue
        if num_different:
            path = data / "train/masks" / f"{name}.png"
            faults.append(
                f"{path} differs from rle_mask in train.csv in {num_different} pixels: one of them is damaged"
            )


def extra_files(folder: Path, names: set[str], table: str) -> list[str]:
    """Faults for files that the table does not list; none if it lists nothing, for then the table is at fault."""
    if not names or not folder.is_dir():
        return []
    expected = {f"{name}.png" for name in names}
    extra = sorted(file for file in os.listdir(folder) if not file.startswith(".") and file not in expected)
    return [f"{folder} has {file!r}, which is not listed in {table}: remove it or list it" for file in extra]


if __name__ == "__main__":
    command.run(report, Options)
