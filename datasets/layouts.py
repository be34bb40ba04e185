"""Labelled images from a folder, in whichever layout it has: see datasets/salt.py and datasets/files.py."""

from collections.abc import Sequence
from pathlib import Path

import torch

from command import BadInput
from datasets import files, salt
from datasets.files import Files
from datasets.labels import BINARY, Labels
from datasets.salt import Tiles


def layout_of(data: Path | str) -> str:
    """ "salt", "tiles" or "carvana", by the files and folders that are there. Raises BadInput for none of them."""
    data = Path(data)
    salt.refuse_missing_folder(data)
    if (data / "train.csv").exists() or (data / files.TRAIN / "masks").is_dir():
        return "salt"
    if (data / "train_masks").is_dir():
        return "carvana"
    if any((data / part / files.IMAGES).is_dir() for part in (".", files.TRAIN)):
        return "tiles"
    raise BadInput(
        f"--data={data} has no layout that is known: expected Kaggle's salt (train.csv, train/images, train/masks), "
        "tiles (images and gt, or both in train and in val), or carvana (train, train_masks)"
    )


def load_labelled(data: Path | str, labels: Labels = BINARY, extra: Sequence[str] = ()) -> Tiles | Files:
    """All labelled images: tiles of the salt competition in memory, others on the disk. Raises BadInput."""
    layout = layout_of(data)
    if layout == "salt":
        if labels.values or extra:
            raise BadInput(
                f"--data={data} is a salt competition, which takes neither --labels nor --extra: leave them out"
            )
        return salt.load_train(data)
    return files.LAYOUTS[layout](data, labels, extra)


def statistics(source: Tiles | Files) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in 0..1, over all pixels of all images. Reads every image."""
    total, pixels = torch.zeros(2, source.channels, dtype=torch.float64), 0
    for piece in source.pieces(1):
        values = piece.batch(range(len(piece)), source.channels).transpose(0, 1).flatten(1).double()
        total += torch.stack([values.sum(1), values.square().sum(1)])
        pixels += values.shape[1]
    mean, square = total / pixels
    return mean.tolist(), (square - mean.square()).clamp(min=1e-12).sqrt().tolist()
