"""Draw what training will see: a few images as they are, and varied by the augmentation, masks outlined.

    python -m training.preview tiles --data=data/land --labels="1 2 5" --augmentation=hard --run=tiles --variant=resize

Writes runs/RUN/VARIANT/foldK/preview.png: an image a row, as it is in the first column. Trains nothing.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import command
import runfolder
from command import at_least
from datasets import framing, panels, pictures
from training import setup
from training.config import PRESETS, Config, resolve
from training.feed import feed
from training.step import seed_epoch

GAP = 4  # pixels between pictures


@dataclass(frozen=True, kw_only=True)
class Preview(Config):
    """What to train, as for training.train, and how much of it to show."""

    rows: int = 6  # images
    columns: int = 6  # of each: as it is, then varied

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("rows", self.rows, 1)
        at_least("columns", self.columns, 2)


def preview(asked: Preview) -> None:
    """Write the picture of the config that `asked` names."""
    config = resolve(asked)
    train, _ = setup.load_fold(config)
    size = setup.framing_settings(config, train)
    indices = torch.linspace(0, len(train) - 1, min(asked.rows, len(train))).long()
    framed = framing.build(**size)
    (images, masks), augment = next(feed(train, [indices], framed, torch.device("cpu"), 0)), setup.augmentation(config)
    generator = seed_epoch(config.seed, 0)
    columns = [(images, masks), *(augment(images, masks, generator) for _ in range(asked.columns - 1))]
    path = runfolder.model_folder(config.run, config.variant, config.fold) / "preview.png"
    pictures.write(path, sheet(columns))
    print(f"{path}: {len(indices)} images, as they are and {asked.columns - 1} times by {config.augmentation}")


def sheet(columns: list[tuple[torch.Tensor, torch.Tensor]]) -> np.ndarray:
    """RGB: a row per image, a column per batch of (images, masks)."""
    rows = []
    for row in range(len(columns[0][0])):
        views = [panels.overlay(images[row].numpy(), masks[row].numpy(), 0.15) for images, masks in columns]
        rows.append(np.concatenate([padded(picture) for picture in views], axis=1))
    return np.concatenate(rows)


def padded(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def shown(preset: type | partial) -> partial:
    """A preset of Config as one of Preview."""
    return partial(Preview, **getattr(preset, "keywords", {}))


if __name__ == "__main__":
    command.run(preview, {name: shown(preset) for name, preset in PRESETS.items()})
