"""The same training on images that stay on the disk, with labels and further channels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from folders import write_tiles
from small_run import SMALL, assert_equal_weights, folder_of, other_run

import nets
from command import BadInput
from datasets import folds, layouts
from training import setup
from training.config import Config, resolve
from training.evaluate import evaluate
from training.swa import Options, swa
from training.train import train


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Eight images of two sizes to train on and three to validate, three labels, one further channel in 16 bits."""
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    options = {"labels": (1, 2, 5), "extra": ("nir",)}
    write_tiles(tmp_path / "data/train", 6, **options)
    write_tiles(tmp_path / "data/train", 2, (64, 50), first=6, **options)
    write_tiles(tmp_path / "data/val", 2, first=8, **options)
    write_tiles(tmp_path / "data/val", 1, (70, 33), first=10, **options)
    folds.write(folds.Options(data=str(tmp_path / "data"), run="files"))
    small = SMALL | {"image_size": 64, "loss": "dice+ce", "workers": 0, "variant": "resize"}
    return Config(data=str(tmp_path / "data"), run="files", labels="1 2 5", extra="nir", **small)


def test_labels_and_channels_reach_the_checkpoint_and_swa(labelled: Config):
    train(replace(labelled, normalise="data"))
    net, details = nets.load(folder_of(labelled) / "final.pt")
    assert net.arguments["classes"] == 4 and net.arguments["channels"] == 4
    assert details["config"]["labels"] == "1 2 5" and details["config"]["extra"] == "nir"
    sides = setup.load_fold(labelled)
    mean, std = layouts.statistics(sides[0])
    torch.testing.assert_close(net.normalise.mean.flatten(), torch.tensor(mean))
    torch.testing.assert_close(net.normalise.std.flatten(), torch.tensor(std))
    swa(Options(data=labelled.data, run="files", variant="resize"))
    assert (folder_of(labelled) / "swa.pt").exists()


def test_workers_change_nothing_and_resuming_goes_on(labelled: Config):
    train(labelled)
    other = other_run(replace(labelled, workers=2), "others")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("training.train.report", stop_after_first_epoch)
        train(other)
    train(other)
    assert_equal_weights(folder_of(labelled) / "final.pt", folder_of(other) / "final.pt")


def stop_after_first_epoch(job, done, bar, events) -> None:
    if done.epoch == 2:
        raise KeyboardInterrupt


def test_scores_are_taken_at_each_images_own_size(labelled: Config):
    job = setup.prepare(resolve(replace(labelled, loss_over="image")))
    one, all_at_once = (evaluate(job.model, job.framing, job.loss, job.validation, batch) for batch in (1, 4))
    assert tuple(one) == pytest.approx(tuple(all_at_once), abs=1e-5)

    class Oracle(torch.nn.Module):
        """Says what the further channel says: salt is the first label."""

        def forward(self, images):
            label = (images[:, 3:] > 0.5).float()
            return nets.Output(20 * torch.cat([1 - label, label, -label, -label], dim=1))

    def binary(index: int):
        tile = job.validation.read(index)
        return replace(tile, masks=(tile.masks > 0).to(torch.uint8))

    class FirstLabelOnly:
        channels = 4

        def __len__(self):
            return 3

        def pieces(self, count):
            return map(binary, range(3))

    found = evaluate(Oracle().eval(), job.framing, job.loss, FirstLabelOnly(), 1)
    assert found.accuracy > 0.97 and found.iou > 0.95  # the other labels are empty in both


def test_what_does_not_go_together_is_refused(labelled: Config):
    for changes, message in (
        ({"loss": "saltnet"}, "--loss=saltnet is for one label, got 3"),
        ({"drop_mask_threshold": 5}, "for tiles in memory"),
        ({"labels": "1 2"}, "expected 0 and 1 2"),
        ({"extra": "ir"}, "ir is not a folder"),
    ):
        with pytest.raises(BadInput, match=message):
            train(replace(labelled, **changes))


@pytest.mark.parametrize(
    "net",
    [
        {"net": "unet"},
        {"net": "residual-unet", "image_size": 50},
        {"net": "smp", "decoder": "deeplabv3plus", "encoder": "mobilenet_v2"},
    ],
    ids=lambda net: net["net"],
)
def test_other_nets_learn_from_files(labelled: Config, net: dict):
    config = replace(labelled, **net, epochs=1, limit_tiles=4)
    train(config)
    assert nets.load(folder_of(config) / "final.pt")[0].arguments["classes"] == 4
