"""The memory that a training needs, and batches that fit."""

from dataclasses import replace

import pytest
import torch
from small_run import assert_equal_weights, folder_of, other_run
from torch import nn

import runfolder
from command import BadInput
from training import memory
from training.config import Config
from training.train import train


def test_plan_measures_without_computing():
    parameters, activations = memory.measure(Config())
    assert parameters == 131_814_263
    assert 0.1e9 < activations < 2e9  # bytes an image; 4 of them took 6.2 GB in the original


def test_saved_bytes_of_one_layer_by_hand():
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid())
    images = torch.zeros(2, 3, 10, 10)
    # the convolution keeps its input, the sigmoid its output; weights are the net's own
    assert memory.saved_bytes(layer, images) == 4 * 2 * 100 * (3 + 8)


@pytest.fixture
def small(small: Config) -> Config:
    return replace(small, device="cpu")


def machine_for(config: Config, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose memory holds `batch` images of this training at once."""
    need = memory.needed_memory(replace(config, batch=batch), *memory.measure(config))
    monkeypatch.setattr(memory, "total_memory", lambda device: need / memory.SHARE + 1)


def test_a_batch_that_fits_stays(small: Config, monkeypatch: pytest.MonkeyPatch):
    machine_for(small, 4, monkeypatch)
    assert memory.fitted(small) == small


def test_a_smaller_batch_accumulates_to_the_same_step(small: Config, monkeypatch: pytest.MonkeyPatch):
    machine_for(small, 5, monkeypatch)
    found = memory.fitted(replace(small, batch=12, accumulate=2))
    assert (found.batch, found.accumulate) == (4, 6)


def test_memory_for_no_batch_is_told(small: Config, monkeypatch: pytest.MonkeyPatch):
    machine_for(small, 1, monkeypatch)
    with pytest.raises(BadInput, match="hold no even share of --batch=4, of two images or more"):
        memory.fitted(small)


def test_a_fitted_model_goes_on_and_is_what_was_asked_for(small: Config, monkeypatch: pytest.MonkeyPatch):
    plain = other_run(replace(small, batch=2, accumulate=2), "plain")
    train(plain)
    machine_for(small, 2, monkeypatch)
    train(replace(small, fit_batch=True))
    assert_equal_weights(folder_of(small) / "final.pt", folder_of(plain) / "final.pt")
    stored = runfolder.read_json(folder_of(small) / "config.json")
    assert (stored["batch"], stored["accumulate"]) == (2, 2)
    monkeypatch.setattr(memory, "total_memory", lambda device: 1e15)
    train(replace(small, fit_batch=True))  # the same model on a larger machine: nothing to do
    with pytest.raises(BadInput, match="batch: 2, asked 4"):
        train(small)


def test_a_containers_limit_counts(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "max"), str(tmp_path / "none"), str(tmp_path / "absent")))
    assert memory.total_memory("cpu") == 1e6
