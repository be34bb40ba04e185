"""Numbers that are none, and data sets with little in them."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from competition import write_png
from small_run import assert_equal_weights, folder_of, other_run
from torch.amp import GradScaler

import nets
from command import BadInput
from datasets import folds, salt
from nets import device
from training import setup, watch
from training import train as training
from training.config import Config, resolve
from training.step import Figures, train_step
from training.swa import Options, swa
from training.train import train
from training.watch import Watch


def said(loss: float, norm: float) -> Figures:
    return Figures(torch.tensor(loss), torch.tensor(0.5), torch.tensor(norm))


def watched(steps: list[tuple[float, float]], scale: float | None = None) -> dict[str, float]:
    """What the steps of an epoch tell; `scale` is fp16's."""
    scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    watching = Watch(3, ["a", "b", "c", "d"], scaler)
    for number, step in enumerate(steps):
        watching.note((torch.tensor([number % 4]), torch.tensor([(number + 1) % 4])), said(*step))
    return watching.row()


def test_means_of_the_steps():
    found = watched([(1.0, 5.0), (2.0, 7.0), (6.0, 900.0)])
    expected = {"train_loss": 3.0, "train_metric": 0.5, "gradient_norm": 7.0, "largest_gradient_norm": 900.0}
    assert found == expected and watch.has_exploded(found)


@pytest.mark.parametrize("broken", [(torch.nan, 1.0), (1.0, torch.inf), (torch.inf, torch.nan)])
def test_the_images_of_a_broken_step_are_named(broken: tuple[float, float]):
    with pytest.raises(BadInput, match=r"in step 2 of epoch 3 .* not finite, with the images c d: .*holds epoch 2"):
        watched([(1.0, 1.0), (1.0, 1.0), broken, (1.0, 1.0)])


def test_steps_are_looked_at_now_and_then():
    watching = Watch(0, ["a"])
    with pytest.raises(BadInput, match=r"in step 0 of epoch 0 .* no checkpoint was written yet"):
        for _ in range(watch.EVERY):
            watching.note((torch.tensor([0]),), said(torch.nan, 1.0))


def test_skipped_steps_are_counted_and_a_scale_below_one_is_the_end():
    assert watched([(1.0, torch.inf), (3.0, 1.0)], scale=2.0)["skipped_steps"] == 1
    assert watched([(1.0, torch.inf), (3.0, 1.0)], scale=2.0)["train_loss"] == 3
    none = watched([(1.0, torch.inf)] * 2, scale=2.0)  # an epoch of two steps, while the scale comes down
    assert none["skipped_steps"] == 2 and none["train_loss"] is None and not watch.has_exploded(none)
    assert watched([(1.0, torch.inf), (3.0, 1.0)], scale=0.5)["skipped_steps"] == 1
    with pytest.raises(BadInput, match=r"in step 1 of epoch 3 .* not finite"):
        watched([(1.0, 1.0), (1.0, torch.inf)], scale=0.5)


def test_a_broken_loss_stops_the_run_and_leaves_the_epoch_before(small: Config, monkeypatch: pytest.MonkeyPatch):
    """Going on without what broke it ends with the weights of a training that was never broken."""
    whole = other_run(small, "whole")
    train(whole)
    steps = 0

    def break_third(job: setup.Job, *arguments) -> Figures:
        nonlocal steps
        steps += 1
        loss = job.loss
        if steps == 3:
            job = replace(job, loss=lambda *given: loss(*given) * torch.nan)
        return train_step(job, *arguments)

    with monkeypatch.context() as patch, pytest.raises(BadInput, match="in step 0 of epoch 1 the loss is nan") as told:
        patch.setattr(training, "train_step", break_third)
        train(small)
    assert sum(name in str(told.value) for name in setup.load_fold(small)[0].names) == small.batch
    assert nets.load(folder_of(small) / "latest.pt")[1]["epoch"] == 0
    train(small)
    assert_equal_weights(folder_of(small) / "final.pt", folder_of(whole) / "final.pt")


def test_broken_weights_get_into_no_checkpoint(small: Config):
    job = setup.prepare(resolve(small))
    next(job.net.buffers()).fill_(torch.inf)
    with pytest.raises(BadInput, match=r"after epoch 4 the weight \S+ is not finite"):
        watch.refuse_broken_weights(job.net, 4)


def test_gradient_norms_are_in_the_tables(small: Config):
    train(small)
    metrics = pd.read_csv(folder_of(small) / "metrics.csv")
    assert (metrics["largest_gradient_norm"] >= metrics["gradient_norm"]).all() and (metrics["gradient_norm"] > 0).all()


def test_the_norm_by_hand(small: Config):
    job = setup.prepare(resolve(replace(small, augmentation="none", optimizer="sgd", momentum=0.0, lr=1.0)))
    before = [parameter.detach().clone() for parameter in job.net.parameters()]
    group = (torch.arange(4),)
    found = train_step(job, group, job.feed(group), torch.Generator(), 104).gradient_norm
    decay = job.config.weight_decay
    steps = [
        one - two.detach() - decay * one for one, two in zip(before, job.net.parameters(), strict=True)
    ]  # at a rate of 1
    assert found.item() == pytest.approx(sum(float((step**2).sum()) for step in steps) ** 0.5, rel=1e-3)


class Overflowing(device.Autocast):
    """fp16's scale of gradients over a net in float32, as no CPU computes in fp16; it begins far too high."""

    def __init__(self, *_: object) -> None:
        super().__init__("16-mixed", "cpu", GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-60))

    def forward_context(self) -> nullcontext:
        return nullcontext()


def test_overflowing_gradients_are_skipped_and_the_training_goes_on(small: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "precision_plugin", Overflowing)
    build = setup.build_loss
    monkeypatch.setattr(setup, "build_loss", lambda *given: lambda output, mask: 1000 * build(*given)(output, mask))
    small = replace(small, limit_tiles=8, epochs=3)
    train(small)
    metrics = pd.read_csv(folder_of(small) / "metrics.csv")
    assert metrics["skipped_steps"][0] == 1 and metrics["skipped_steps"][2] == 0
    assert metrics["largest_gradient_norm"].max() < 1e9  # without the scale


POOR = {
    "a batch of one": {"batch": 1, "accumulate": 2},
    "one image at a time": {"batch": 1},
    "a short last batch": {"batch": 3, "accumulate": 2},
    "fewer images than a batch": {"batch": 64},
    "two images": {"limit_tiles": 2},
}


@pytest.mark.parametrize("changes", POOR.values(), ids=POOR)
def test_poor_batches_train_and_average(small: Config, changes: dict):
    check_trains(replace(small, **changes))


@pytest.mark.parametrize("grey", [0, 255])
def test_constant_images_train(small: Config, grey: int):
    for path in Path(small.data).glob("*/images/*.png"):
        write_png(path, torch.full((101, 101, 3), grey, dtype=torch.uint8).numpy())
    check_trains(small)


def test_folds_without_any_salt_train(small: Config):
    tiles = salt.load_train(small.data)
    table = pd.DataFrame({"id": tiles.names, "fold": [0 if share else 1 for share in tiles.coverage.tolist()]})
    table.to_csv(Path(small.data) / "own.csv", index=False)
    folds.write(folds.Options(data=small.data, run="empty", csv=str(Path(small.data) / "own.csv")))
    for fold in (0, 1):  # trained on empty masks alone, then validated on them alone
        check_trains(replace(small, run="empty", fold=fold))


def check_trains(config: Config) -> None:
    """An epoch, with numbers in its row, and weights that can be averaged."""
    config = replace(config, epochs=1)
    train(config)
    metrics = pd.read_csv(folder_of(config) / "metrics.csv")
    assert len(metrics) == config.epochs and metrics.notna().all(axis=None)
    swa(Options(data=config.data, run=config.run, fold=config.fold))
    assert all(tensor.isfinite().all() for tensor in nets.load(folder_of(config) / "swa.pt")[0].state_dict().values())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_is_told(small: Config, error: Exception, monkeypatch: pytest.MonkeyPatch):
    def run_out(*arguments):
        raise error

    monkeypatch.setattr(training, "train_step", run_out)
    with pytest.raises(BadInput, match="memory ran out: add --fit_batch"):
        train(small)
    monkeypatch.setattr(training, "train_step", lambda *arguments: (_ for _ in ()).throw(RuntimeError("else")))
    with pytest.raises(RuntimeError, match="else"):
        train(small)
