"""The same training on images that stay on the disk, with labels and further channels."""

import csv
import os
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path

import pytest
import torch
from folders import write_tiles
from small_run import SMALL, assert_equal_weights, folder_of, other_run

import nets
from command import BadInput
from datasets import folds, layouts
from datasets.augment import AUGMENTATIONS
from losses import LOSSES
from training import setup
from training.config import OPTIMIZERS, Config, resolve
from training.evaluate import evaluate
from training.step import train_step
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
    averaged, told = nets.load(folder_of(labelled) / "swa.pt")
    assert told["native_size"] == details["native_size"] == (40, 48)
    assert torch.equal(averaged.normalise.mean, net.normalise.mean)


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
        ({"labels": ""}, "have the values 0 .*name those that you want with --labels"),
        ({"variant": "pad"}, "tile .*png: .*image_size"),
        ({"extra": "ir"}, "ir is not a folder"),
        ({"net": "smp", "encoder": "mobilenet_v2", "recompute": True}, "--recompute does nothing for --net=smp"),
    ):
        with pytest.raises(BadInput, match=message):
            train(replace(labelled, **changes))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_one_sentence_whoever_reads_it(labelled: Config, workers: int):
    (Path(labelled.data) / "train/gt/tile 3.png").write_bytes(b"damaged")
    with pytest.raises(BadInput) as error:
        train(replace(labelled, workers=workers))
    assert str(error.value).endswith("it is damaged or of another kind")
    assert str(error.value).startswith(labelled.data) and "\n" not in str(error.value)


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


def test_more_validation_sets_are_columns_and_decide_nothing(labelled: Config, tmp_path: Path):
    write_tiles(tmp_path / "winter/val", 3, first=30, labels=(1, 2, 5), extra=("nir",))
    labelled = replace(labelled, epochs=3, best="iou dice")
    more = replace(labelled, more_validation=str(tmp_path / "winter/val"), validate_more_every=2)
    train(more)
    with open(folder_of(more) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["winter_iou"]) for row in rows] == [False, True, True]  # every second, and the last
    assert sorted(path.name for path in folder_of(more).glob("best-*")) == ["best-dice.pt", "best-iou.pt"]
    plain = other_run(labelled, "plain")
    train(plain)
    assert_equal_weights(folder_of(more) / "best-iou.pt", folder_of(plain) / "best-iou.pt")
    values = [float(row["validation_iou"]) for row in rows]
    assert nets.load(folder_of(more) / "best-iou.pt")[1]["epoch"] == values.index(max(values))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"best": "iuo"}, "--best=iuo is not known"),
        ({"best": ""}, "--best is empty"),
        ({"more_validation": "a/val a"}, "folders of one name"),
        ({"more_validation": "lr"}, "'lr' is the name of other scores"),
        ({"start": "a.pt", "normalise": "data"}, "--start brings its own normalisation"),
        ({"nesterov": True}, "--nesterov goes with --optimizer=sgd"),
        ({"momentum": 1.0}, "--momentum=1.0 is not"),
        ({"labels": "a"}, "--labels=a is no list"),
        ({"loss": "dise"}, "--loss=dise is not known"),
    ],
)
def test_bad_options_are_told_before_any_work(bad, message):
    with pytest.raises(BadInput, match=message):
        Config(**bad)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_the_loss(labelled: Config, name: str):
    rates = {"adadelta": 3.0, "sgd": 0.05, "adagrad": 0.02, "muon": 0.02, "radam": 0.03}
    config = replace(labelled, optimizer=name, lr=rates.get(name, 3e-3), schedule="constant", augmentation="none")
    job = setup.prepare(resolve(replace(config, nesterov=name == "sgd", weight_decay=0.0)))
    group, generator = (torch.arange(4),), torch.Generator().manual_seed(0)
    job.model.train()
    losses = [train_step(job, group, job.feed(group), generator, 64).loss.item() for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


# Every net with every loss and every augmentation with SALTWORKS_ZOO=all; else each of them at least once.
NETS = {
    "fastnet": {"width": 8},
    "unet": {},
    "residual-unet": {"width": 8},
    "smp": {"decoder": "unet", "encoder": "mobilenet_v2"},
    "saltnet": {"encoder": "resnet18"},
}
if os.environ.get("SALTWORKS_ZOO") == "all":
    PAIRS = list(product(NETS, LOSSES, AUGMENTATIONS))
else:
    PAIRS = list(zip(cycle(NETS), LOSSES, cycle(AUGMENTATIONS), strict=False))


@pytest.mark.parametrize(("net", "loss", "augmentation"), PAIRS, ids="-".join)
def test_every_net_learns_by_every_loss(labelled: Config, net: str, loss: str, augmentation: str):
    """A step moves every part of the net, whatever the labels; half of the losses with one label, half with three."""
    one = loss == "saltnet" or LOSSES.index(loss) % 2 == 0 or net == "saltnet"
    labels = {"labels": "5", "other_labels": True} if one else {}
    config = replace(
        labelled, net=net, loss=loss, augmentation=augmentation, image_size=32, batch=2, **NETS[net], **labels
    )
    job = setup.prepare(resolve(config))
    before = {name: value.detach().clone() for name, value in job.net.named_parameters()}
    group = (torch.arange(2),)
    job.model.train()
    values = train_step(job, group, job.feed(group), torch.Generator().manual_seed(0), 32)
    assert all(value.isfinite() for value in values)
    moved = [not torch.equal(value, before[name]) for name, value in job.net.named_parameters()]
    assert sum(moved) > 0.6 * len(moved)
