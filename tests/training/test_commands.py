"""The commands around training: averaging, planning, pruning, the search for a rate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_run import assert_equal_weights, folder_of, other_run, weights
from torch import nn

import nets
import runfolder
from command import BadInput
from training import find_lr, memory, plan, prune, setup, state, swa
from training.config import Config, resolve
from training.train import train


def averaged(config: Config, **flags: str) -> dict:
    """Run swa on the config's model; its swa.json."""
    swa.swa(swa.Options(data=config.data, run=config.run, variant=config.variant, fold=config.fold, **flags))
    return json.loads((folder_of(config) / "swa.json").read_text())


def resave(source: Path, target: Path, change) -> None:
    """Copy a checkpoint, its net and details changed by `change`."""
    net, details = nets.load(source)
    details.pop("provenance")
    change(net, details)
    nets.save(target, net, **details)


def test_mean_weights_by_hand():
    states = [
        {"w": torch.tensor([1.0, 5.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([2.0, -5.0]), "n": torch.tensor(9)},
    ]
    mean = swa.mean_weights(states)
    assert mean["w"].tolist() == [1.5, 0.0]
    assert mean["n"] == 3


def test_swa_averages_distinct_epochs_of_named_files_only(small: Config):
    config = replace(small, epochs=4)
    train(config)
    folder = folder_of(config)

    def shift(amount: float, epoch: int):
        def change(net, details):
            net.head[2].bias.data.fill_(amount)
            details.update(epoch=epoch)

        return change

    resave(folder / "final.pt", folder / "best-loss.pt", shift(1.0, 0))
    resave(folder / "final.pt", folder / "best-metric.pt", shift(4.0, 1))
    resave(folder / "final.pt", folder / "best-accuracy.pt", shift(4.0, 1))  # the same epoch: must not count twice
    resave(folder / "final.pt", folder / "stray.pt", shift(1000.0, 2))  # nobody named it
    (folder / "link.pt").symlink_to("stray.pt")
    final = weights(folder / "final.pt")["head.2.bias"]
    summary = averaged(config)
    assert torch.allclose(weights(folder / "swa.pt")["head.2.bias"], (1.0 + 4.0 + final) / 3)
    assert len(summary["checkpoints"]) == 3
    assert {"loss", "metric", "accuracy", "iou"} <= summary["mean"].keys()
    assert {"loss", "metric", "accuracy", "iou"} <= summary["after batch norm"].keys()


def test_swa_refuses_a_checkpoint_of_another_training(small: Config):
    train(small)
    folder = folder_of(small)
    resave(folder / "final.pt", folder / "best-loss.pt", lambda net, details: details["config"].update(seed=7))
    with pytest.raises(BadInput, match=r"best-loss\.pt is of another training"):
        averaged(small)
    assert not (folder / "swa.pt").exists()


def test_data_may_be_elsewhere_after_an_interruption(small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(job, done, folder, identity):
        save_epoch(job, done, folder, identity)
        raise KeyboardInterrupt

    save_epoch = state.save_epoch
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(state, "save_epoch", stop)
        train(small)
    (tmp_path / "moved").symlink_to(small.data)
    train(replace(small, data=str(tmp_path / "moved")))
    averaged(small)


def test_a_checkpoint_of_another_fold_is_not_averaged(small: Config):
    train(small)
    shutil.copytree(folder_of(small), folder_of(replace(small, fold=1)))
    with pytest.raises(BadInput, match="is the model pad/fold0: move it back"):
        averaged(replace(small, fold=1))


def test_swa_needs_a_finished_model_and_known_names(small: Config):
    with pytest.raises(BadInput, match=r"final\.pt is missing"):
        averaged(small)
    train(small)
    with pytest.raises(BadInput, match=r"has no best-f1\.pt: choose among final, best-"):
        averaged(small, checkpoints="final best-f1")


def test_swa_refuses_other_folds(small: Config):
    train(small)
    path = runfolder.run_folder(small.run) / "folds.csv"
    path.write_text(path.read_text().replace(",2\n", ",9\n").replace(",1\n", ",2\n").replace(",9\n", ",1\n"))
    (runfolder.run_folder(small.run) / "folds.origin.json").unlink()
    with pytest.raises(BadInput, match=r"not the one that .* was trained with"):
        averaged(small)


def test_batch_norm_is_the_plain_average_over_training_tiles_without_dropout(small: Config):
    job = setup.prepare(resolve(replace(small, batch=3, augmentation="none")))
    first = next(module for module in job.net.modules() if isinstance(module, nn.BatchNorm2d))
    job.net.stem[0].insert(0, nn.Dropout(0.9))  # would show at once if it were on
    swa.estimate_batch_norm(job)
    images = job.framing.frame(job.train.batch(torch.arange(6)))
    inputs = job.net.stem[0][1](job.net.normalise(images))
    batches = inputs.detach().split(3)
    assert len(job.train) == 8  # the last two fill no batch and do not count
    assert torch.allclose(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0), atol=1e-5)
    variances = torch.stack([x.var((0, 2, 3), unbiased=True) for x in batches]).mean(0)
    assert torch.allclose(first.running_var, variances, rtol=1e-4)
    assert not job.model.training and first.momentum == 0.1


def test_batch_norm_sees_tiles_augmented_as_in_training(small: Config):
    means = []
    for augmentation in ("saltnet", "none"):
        job = setup.prepare(resolve(replace(small, augmentation=augmentation)))
        swa.estimate_batch_norm(job)
        means.append(next(module for module in job.net.modules() if isinstance(module, nn.BatchNorm2d)).running_mean)
    assert not torch.allclose(*means)


def test_recomputing_gives_the_same_weights_and_counts_as_the_same_model(small: Config):
    train(small)
    other = replace(other_run(small, "other"), recompute=True)
    train(other)
    assert_equal_weights(folder_of(small) / "final.pt", folder_of(other) / "final.pt")
    train(replace(other, recompute=False))  # the same model: nothing to do
    assert memory.measure(replace(other, weights="none"))[1] < memory.measure(small)[1]
    with pytest.raises(BadInput, match="exclude each other"):
        replace(other, compile=True)


def test_compiling_needs_a_compiler(small: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match=r"--compile needs a C\+\+ compiler"):
        setup.prepare(resolve(replace(small, compile=True)))


def test_plan_refuses_another_config_and_tells_needs(small: Config, capsys: pytest.CaptureFixture):
    train(small)
    values = {name: getattr(small, name) for name in small.__dataclass_fields__}
    asked = plan.Plan(**values, models="pad/fold0 pad/fold1 resize/fold0")
    plan.plan(asked)
    told = capsys.readouterr().out
    assert "trained: pad/fold0" in told and "to train: pad/fold1, resize/fold0" in told
    assert "2 to go" in told and "GB of memory" in told and "GB of checkpoints" in told
    with pytest.raises(BadInput, match="pad/fold0 holds a model of another config"):
        plan.plan(replace(asked, lr=0.5))
    plan.plan(replace(asked, epochs=7))  # goes on, as the schedule allows it
    assert "interrupted: pad/fold0" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"got fold 3, expected one of 0\.\.2"):
        plan.plan(replace(asked, models="pad/fold0 pad/fold3"))
    table = runfolder.run_folder(small.run) / "folds.csv"
    table.with_suffix(".origin.json").unlink()
    for damage in (("id,fold", "id,old"), (",0", ",p")):
        whole = table.read_text()
        table.write_text(whole.replace(*damage))
        with pytest.raises(BadInput, match=r"folds\.csv (begins with|has the fold 'p')"):
            plan.plan(asked)
        table.write_text(whole)
    with pytest.raises(BadInput, match="expected VARIANT/foldK"):
        plan.plan(replace(asked, models="pad/zero"))


def test_needed_disk_by_hand(small: Config):
    weights, tiles = 10 * 4, 18 * 101 * 101 * 2
    assert plan.needed_disk(small, 10) == (3 + 3 + 2) * weights + tiles
    snapshots = replace(small, schedule="clr", cycles=2, optimizer="sgd")
    assert plan.needed_disk(snapshots, 10) == (3 + 6 + 1) * weights + tiles


def test_prune_leaves_other_folders_alone_and_knows_its_runs(small: Config):
    other = runfolder.run_folder(small.run) / "pad-old" / "fold0"
    for name in ("final.pt", "latest.pt"):
        runfolder.write_text(other / name, "a user's own backup")
    prune.prune(prune.Options(run=small.run, remove=True))
    assert (other / "latest.pt").exists()
    with pytest.raises(BadInput, match="nowhere is missing"):
        prune.prune(prune.Options(run="nowhere"))


def test_prune_keeps_what_stages_read(small: Config):
    train(small)
    folder = folder_of(small)
    names = lambda: {path.name for path in folder.glob("*.pt")}  # noqa: E731
    everything = names()
    prune.prune(prune.Options(run=small.run))
    assert names() == everything
    prune.prune(prune.Options(run=small.run, remove=True))
    assert names() == everything - {"latest.pt"}
    averaged(small)
    (folder / "test.csv").touch()
    prune.prune(prune.Options(run=small.run, remove=True))
    assert names() == {"final.pt", "swa.pt"}


def test_an_unfinished_model_is_not_pruned(small: Config):
    train(small)
    (folder_of(small) / "final.pt").unlink()
    prune.prune(prune.Options(run=small.run, remove=True))
    assert (folder_of(small) / "latest.pt").exists()


def test_find_lr_writes_the_curve_and_touches_no_checkpoint(small: Config):
    values = {name: getattr(small, name) for name in small.__dataclass_fields__}
    find_lr.find_lr(find_lr.Search(**values, steps=12))
    folder = folder_of(small)
    curve = pd.read_csv(folder / "find_lr.csv")
    assert curve["lr"].iloc[0] == pytest.approx(1e-6) and curve["lr"].is_monotonic_increasing
    assert (folder / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob("*.pt"))


def test_the_steepest_rate_by_hand():
    losses = [3.0, 3.0, 2.9, 1.5, 1.0, 0.9, 5.0]
    rows = [{"step": i, "lr": 10.0**-i, "smoothed": loss} for i, loss in zip(range(6, -1, -1), losses, strict=True)]
    assert find_lr.steepest(rows) == pytest.approx(1e-3)


def test_find_lr_refuses_an_empty_range():
    with pytest.raises(BadInput, match="is no range"):
        find_lr.Search(lowest=1.0, highest=0.1)
