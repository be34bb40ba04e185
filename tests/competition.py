"""A competition small enough for tests, written to a folder in Kaggle's layout."""

from pathlib import Path

import cv2
import numpy as np


def write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(".png", image)[1].tofile(path)


def slow_rle(mask: np.ndarray) -> str:
    """Pixel by pixel, to be independent of datasets.rle."""
    runs, previous = [], 0
    for place, value in enumerate(np.asarray(mask).flatten(order="F"), start=1):
        if value and not previous:
            runs.append([place, 0])
        if value:
            runs[-1][1] += 1
        previous = value
    return " ".join(f"{start} {length}" for start, length in runs)


def salt_mask(index: int, size: int) -> np.ndarray:
    """Every third is empty; the others are salt below a line that rises with the index and to the right."""
    rows, columns = np.mgrid[:size, :size]
    return np.zeros((size, size), bool) if index % 3 == 0 else rows + columns // 4 > size - 4 * index


def write_competition(folder: Path, num_train: int = 12, num_test: int = 6, size: int = 101, seed: int = 0) -> Path:
    """Grey noise, brighter in salt. Empty masks are 8-bit and the others 16-bit (0, 65535), as Kaggle's are."""
    rng = np.random.default_rng(seed)
    names = [
        f"{i:02d}e{i:07d}"[:10] for i in range(num_train + num_test)
    ]  # they look like numbers, as some real ids do
    rows = ["id,rle_mask"]
    for i, name in enumerate(names):
        mask = salt_mask(i, size)
        grey = (rng.integers(0, 100, (size, size)) + 100 * mask).astype(np.uint8)
        part = "train" if i < num_train else "test"
        write_png(folder / part / "images" / f"{name}.png", np.dstack([grey] * 3))
        if part == "train":
            stored = mask * np.uint16(65535) if mask.any() else mask.astype(np.uint8)
            write_png(folder / "train" / "masks" / f"{name}.png", stored)
            rows.append(f"{name},{slow_rle(mask)}")
    depths = ["id,z", *(f"{name},{50 + 7 * i}" for i, name in enumerate(names))]
    sample = ["id,rle_mask", *(f"{name},1 1" for name in names[num_train:])]
    for table, lines in (("train", rows), ("depths", depths), ("sample_submission", sample)):
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")
    return folder
