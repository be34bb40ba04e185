"""A training small enough for tests, and what they ask of its folder."""

from dataclasses import replace
from pathlib import Path

import torch

import nets
import runfolder
from training.config import Config

SMALL = {
    "net": "fastnet",
    "width": 8,
    "weights": "none",
    "image_size": 104,
    "batch": 4,
    "epochs": 2,
    "loss": "lovasz+0.5ce",
    "lr": 1e-3,
    "threads": 1,
    "precision": "float32",
}


def folder_of(config: Config) -> Path:
    return runfolder.model_folder(config.run, config.variant, config.fold)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return nets.load(path)[0].state_dict()


def assert_equal_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def other_run(config: Config, run: str) -> Config:
    """The same config, data and folds under another run."""
    source = runfolder.run_folder(config.run) / "folds.csv"
    runfolder.write_text(runfolder.run_folder(run) / "folds.csv", source.read_text())
    return replace(config, run=run)
