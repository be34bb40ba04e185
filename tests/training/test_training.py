"""Training, from one step to a killed and resumed run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_run import SMALL, assert_equal_weights, folder_of, other_run, weights
from torch import nn

import nets
import runfolder
from command import BadInput
from training import setup, state
from training import train as training
from training.config import OPTIMIZERS, PRESETS, Config, resolve
from training.evaluate import evaluate
from training.schedules import SCHEDULES
from training.step import epoch_groups, forward, seed_epoch, train_step
from training.swa import Options, swa
from training.train import train


def test_a_run_leaves_what_the_design_names(small: Config):
    train(small)
    folder = folder_of(small)
    expected = {"config.json", "metrics.csv", "times.csv", "events", "latest.pt", "final.pt"}
    expected |= {f"best-{score}.pt" for score in ("loss", "metric", "accuracy")}
    assert {path.name for path in folder.iterdir()} == expected | {".lock"}
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["epoch"].tolist() == [0, 1]
    best = torch.load(folder / "best-metric.pt", weights_only=True)["details"]
    assert best["scores"]["validation_metric"] == metrics["validation_metric"].max()
    assert best["framing"] == {"variant": "pad", "tile_size": (101, 101), "image_size": 104}


def test_final_weights_are_those_of_the_last_epoch(small: Config):
    train(small)
    assert_equal_weights(folder_of(small) / "final.pt", folder_of(small) / "latest.pt")


RESUMED = {
    "fastnet": {"augmentation": "saltnet", "coarse_epochs": 1},
    "saltnet": {  # with dropout, accumulation and a schedule that looks back
        "net": "saltnet",
        "encoder": "resnet18",
        "variant": "resize",
        "image_size": 64,
        "batch": 1,
        "accumulate": 2,
        "limit_tiles": 4,
        "loss": "saltnet",
        "schedule": "plateau",
        "patience": 1,
        "best": "loss",
    },
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_interrupted_in_mid_epoch_and_resumed_equals_uninterrupted(
    small: Config, changes: dict, monkeypatch: pytest.MonkeyPatch
):
    small = replace(small, epochs=2, **changes)
    train(small)
    interrupted, steps = other_run(small, "interrupted"), 0

    def stop_in_second_epoch(*arguments):
        nonlocal steps
        steps += 1
        if steps == 4:  # two steps an epoch
            raise KeyboardInterrupt
        return train_step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "train_step", stop_in_second_epoch)
        train(interrupted)
    assert not (folder_of(interrupted) / "final.pt").exists()
    torch.rand(7)  # whatever happens in between must not matter
    train(interrupted)
    names = ("final", *(f"best-{score}" for score in small.best.split()))
    for name in names:
        assert_equal_weights(folder_of(small) / f"{name}.pt", folder_of(interrupted) / f"{name}.pt")
    assert (folder_of(small) / "metrics.csv").read_bytes() == (folder_of(interrupted) / "metrics.csv").read_bytes()


def test_killed_process_resumes_to_the_same_weights(small: Config):
    small = replace(small, epochs=9)
    words = [f"--{name}={value}" for name, value in (SMALL | {"epochs": 9}).items()]
    command = [sys.executable, "-m", "training.train", "saltnet", f"--data={small.data}", "--run=killed", *words]
    killed = other_run(small, "killed")
    process = subprocess.Popen(command, cwd=runfolder.ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder_of(killed) / "latest.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.05)  # into an epoch
    assert (folder_of(killed) / "latest.pt").exists()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    train(killed)
    train(small)
    assert_equal_weights(folder_of(small) / "final.pt", folder_of(killed) / "final.pt")


def test_a_finished_model_is_kept_and_another_config_refused(small: Config, capsys: pytest.CaptureFixture):
    train(small)
    before = runfolder.checksum(folder_of(small) / "final.pt")
    train(small)
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"batch: 4, asked 3.*give another RUN"):
        train(replace(small, batch=3))
    assert runfolder.checksum(folder_of(small) / "final.pt") == before


def test_other_folds_are_refused(small: Config):
    train(small)
    table = runfolder.run_folder("small") / "folds.csv"
    table.write_text(table.read_text().replace(",0\n", ",9\n").replace(",1\n", ",0\n").replace(",9\n", ",1\n"))
    (runfolder.run_folder(small.run) / "folds.origin.json").unlink()
    with pytest.raises(BadInput, match="folds changed"):
        train(small)


def test_auto_agrees_with_what_an_earlier_machine_decided(small: Config):
    train(small)
    train(replace(small, threads=0, precision="auto"))  # nothing to do, nothing refused


def test_a_second_process_on_the_same_model_is_refused(small: Config):
    with runfolder.lock(folder_of(small)), pytest.raises(BadInput, match=f"in use by process {os.getpid()}"):
        train(small)


def test_two_tiles_are_learnt_by_heart(small: Config):
    config = replace(small, augmentation="none", lr=1e-2, schedule="constant")
    job = setup.prepare(resolve(config))
    pair = job.train.select([job.train.names[i] for i in job.train.coverage.argsort()[[1, -1]]])
    job, generator = replace(job, train=pair), torch.Generator()
    both = (torch.arange(2),)
    job.model.train()
    for _ in range(60):
        train_step(job, both, job.feed(both), generator, 104)
    assert evaluate(job.model, job.framing, job.loss, pair, 2).accuracy > 0.97


def test_accumulated_batches_make_the_step_of_one_large_batch(small: Config):
    config = resolve(replace(small, augmentation="none", optimizer="sgd", loss="ce"))
    results = []
    for group in ((torch.arange(6),), (torch.arange(3), torch.arange(3, 6)), (torch.arange(4), torch.arange(4, 6))):
        job = setup.prepare(config)
        job.model.eval()  # batch norm would see other batches
        train_step(job, group, job.feed(group), torch.Generator(), 104)
        results.append(torch.cat([parameter.flatten() for parameter in job.net.parameters()]))
    assert torch.allclose(results[0], results[1], atol=1e-6)
    assert torch.allclose(results[0], results[2], atol=1e-6)


def test_coarse_epochs_show_the_net_smaller_images_and_the_loss_full_ones(small: Config):
    job = setup.prepare(resolve(replace(small, variant="resize")))
    seen = []
    job.net.register_forward_hook(lambda net, inputs, output: seen.append(tuple(inputs[0].shape[-2:])))
    images = torch.full((2, 3, 101, 101), 0.25)
    output = forward(job, images, 64)
    assert seen == [(64, 64)] and output.logits.shape == (2, 1, 104, 104)
    forward(job, images, 104)
    assert seen[1] == (104, 104)
    with pytest.raises(BadInput, match="leaves none of 250 at full size"):
        Config(coarse_epochs=250)
    with pytest.raises(BadInput, match="coarse_size=50 does not suit"):
        Config(coarse_size=50)


def test_coarse_epochs_are_not_validated_and_never_best(small: Config):
    train(replace(small, epochs=3, coarse_epochs=2, limit_tiles=4))
    metrics = pd.read_csv(folder_of(small) / "metrics.csv")
    assert metrics["validation_metric"].isna().tolist() == [True, True, False]
    assert {nets.load(path)[1]["epoch"] for path in folder_of(small).glob("best-*.pt")} == {2}


def test_gradients_do_not_leak_into_the_next_step(small: Config):
    job = setup.prepare(resolve(small))
    train_step(job, (torch.arange(4),), job.feed((torch.arange(4),)), torch.Generator(), 104)
    assert all(parameter.grad is None for parameter in job.net.parameters())


@pytest.mark.parametrize(
    ("count", "batch", "accumulate", "sizes"),
    [
        (100, 32, 1, [[32], [32], [32]]),  # the last short batch is dropped
        (100, 16, 2, [[16, 16], [16, 16], [16, 16]]),
        (20, 16, 2, [[16, 4]]),  # smaller than a group
        (3, 8, 1, [[3]]),  # smaller than a batch
        (1, 8, 4, [[1]]),
    ],
)
def test_epoch_groups(count: int, batch: int, accumulate: int, sizes: list[list[int]]):
    groups = epoch_groups(count, batch, accumulate, seed_epoch(0, 0))
    assert [[len(part) for part in group] for group in groups] == sizes
    seen = torch.cat([part for group in groups for part in group])
    assert len(seen.unique()) == len(seen)


def test_epochs_differ_and_repeat():
    first, again, second = (epoch_groups(50, 50, 1, seed_epoch(3, epoch))[0][0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_steps(small: Config, optimizer: str):
    job = setup.prepare(resolve(replace(small, optimizer=optimizer)))
    before = [parameter.detach().clone() for parameter in job.net.parameters()]
    train_step(job, (torch.arange(4),), job.feed((torch.arange(4),)), torch.Generator(), 104)
    moved = [not torch.equal(old, new) for old, new in zip(before, job.net.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_trains(small: Config, schedule: str):
    train(replace(small, schedule=schedule, epochs=2, limit_tiles=4, milestones="1"))
    rates = pd.read_csv(folder_of(small) / "metrics.csv")["lr"]
    assert (rates > 0).all() and (rates <= small.lr * 1.0001).all()


def test_bf16_trains(small: Config):
    train(replace(small, precision="bf16", epochs=1, limit_tiles=4))
    _, details = nets.load(folder_of(small) / "final.pt")
    assert details["config"]["precision"] == "bf16"


def test_snapshots_keep_a_set_of_checkpoints_per_cycle(small: Config):
    train(replace(small, schedule="clr", cycles=2, epochs=4, limit_tiles=4))
    names = {path.name for path in folder_of(small).glob("cycle*.pt")}
    assert names == {f"cycle{i}-best-{score}.pt" for i in (0, 1) for score in ("loss", "metric", "accuracy")}
    epochs = [nets.load(folder_of(small) / f"cycle{i}-best-loss.pt")[1]["epoch"] for i in (0, 1)]
    assert epochs[0] in (0, 1) and epochs[1] in (2, 3)


def test_warm_start_takes_weights_and_nothing_else(small: Config):
    train(small)
    start = str(folder_of(small) / "final.pt")
    job = setup.prepare(resolve(replace(small, start=start)))
    stored = weights(Path(start))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in job.net.state_dict().items())
    assert not job.optimizer.state_dict()["state"]


def test_warm_start_from_another_net_is_refused(small: Config):
    train(replace(small, epochs=1, limit_tiles=4))
    with pytest.raises(BadInput, match=r"holds fastnet .*'width': 8.*expected fastnet .*'width': 16"):
        setup.prepare(resolve(replace(small, start=str(folder_of(small) / "final.pt"), width=16)))


def test_latest_without_training_state_is_refused(small: Config):
    train(small)
    folder = folder_of(small)
    (folder / "latest.pt").write_bytes((folder / "final.pt").read_bytes())
    (folder / "final.pt").unlink()
    with pytest.raises(BadInput, match="no training state"):
        train(small)


def test_latest_of_another_fold_is_refused(small: Config):
    train(small)
    other = folder_of(replace(small, fold=1))
    other.mkdir(parents=True)
    for name in ("latest.pt", "config.json"):
        (other / name).write_bytes((folder_of(small) / name).read_bytes())
    with pytest.raises(BadInput, match="fold: 0, asked 1"):
        train(replace(small, fold=1))
    runfolder.write_json(other / "config.json", runfolder.read_json(other / "config.json") | {"fold": 1})
    with pytest.raises(BadInput, match=r"latest\.pt is of another training \(fold: 0, asked 1\)"):
        train(replace(small, fold=1))


@pytest.mark.parametrize("text", ["[]", "{}", '{"threads": 1}', "{cut"])
def test_a_damaged_config_is_named(small: Config, text: str):
    train(replace(small, epochs=1, limit_tiles=4))
    (folder_of(small) / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"config\.json"):
        train(small)


def test_a_damaged_latest_is_named_with_its_remedy(small: Config):
    train(replace(small, limit_tiles=4))
    (folder_of(small) / "final.pt").unlink()
    latest = folder_of(small) / "latest.pt"
    latest.write_bytes(latest.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"latest\.pt.*remove it to train this model from the start"):
        train(replace(small, limit_tiles=4))


def test_a_field_that_an_old_config_lacks_had_its_default(small: Config):
    train(replace(small, epochs=1, limit_tiles=4))
    path = folder_of(small) / "config.json"
    stored = runfolder.read_json(path)
    assert stored.pop("patience") == Config().patience
    path.write_text(json.dumps(stored))
    train(replace(small, epochs=1, limit_tiles=4))  # nothing to do, nothing refused


def test_drop_mask_threshold_drops_small_masks_of_training_tiles_only(small: Config):
    tiles, _ = setup.load_fold(small)
    pixels = sorted(int(count) for count in tiles.masks.sum((1, 2)) if count)
    kept, validation = setup.load_fold(replace(small, drop_mask_threshold=pixels[1]))
    assert len(kept) == len(tiles) - 2
    assert len(validation) == 4


def test_limit_tiles_limits_both_sides(small: Config):
    assert [len(side) for side in setup.load_fold(replace(small, limit_tiles=3))] == [3, 3]


def test_validation_counts_each_tile_once_at_its_own_size(small: Config):
    job = setup.prepare(resolve(small))
    assert job.validation.masks.shape == (4, 101, 101)
    by_batch = [evaluate(job.model, job.framing, job.loss, job.validation, batch) for batch in (1, 3, 4)]
    for scores in by_batch[1:]:  # a short last batch weighs by its tiles
        assert scores[1:] == pytest.approx(by_batch[0][1:], abs=1e-6)


class LeftHalf(nn.Module):
    """Sees salt in the left half of whatever it is shown, and is surer of the right half's emptiness."""

    def forward(self, images: torch.Tensor) -> nets.Output:
        logits = torch.full_like(images[:, :1], -7.0)
        logits[..., : images.shape[-1] // 2] = 5.0
        return nets.Output(logits)


def test_validation_scores_the_average_of_flips_not_each_flip(small: Config):
    job = setup.prepare(resolve(replace(small, variant="resize")))
    left = torch.zeros_like(job.validation.masks)
    left[..., :50] = 1
    # The average lies below 0.5 everywhere: empty. Each flip as a sample of its own would score near 0.5.
    scores = evaluate(LeftHalf(), job.framing, job.loss, replace(job.validation, masks=left), 4)
    assert scores.metric == 0
    scores = evaluate(LeftHalf(), job.framing, job.loss, replace(job.validation, masks=torch.zeros_like(left)), 4)
    assert scores.metric == 1


def test_a_loss_that_is_not_finite_stops_the_run(small: Config):
    with pytest.raises(BadInput, match=r"not finite.*lower --lr"):
        train(replace(small, lr=1e30, optimizer="sgd", schedule="constant", epochs=3))


def test_the_improved_scores_are_the_first_best_ones():
    row = {"validation_loss": 1.0, "validation_metric": 0.5, "validation_accuracy": 0.9}
    better = {"validation_loss": 1.0, "validation_metric": 0.6, "validation_accuracy": 0.8}
    assert state.improved([row], Config()) == ["loss", "metric", "accuracy"]
    assert state.improved([row, better], Config()) == ["metric"]
    assert state.improved([row, row], Config()) == []


def test_presets_are_valid_and_the_default_is_the_recipe():
    for preset in PRESETS.values():
        preset()
    config = Config()
    assert (config.lr, config.weight_decay, config.batch, config.epochs) == (5e-4, 1e-4, 32, 250)
    assert (config.encoder, config.image_size, config.loss, config.schedule) == ("senet154", 128, "saltnet", "noam")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"net": "resnet"}, "choose one of saltnet, fastnet"),
        ({"variant": "crop"}, "choose one of pad, resize"),
        ({"image_size": 101}, "image_size=101 does not suit the net: saltnet takes multiples of 32"),
        ({"epochs": 0}, "epochs=0 is too small"),
        ({"fold": -1}, "fold=-1 is too small"),
        ({"lr": 0.0}, "lr=0.0 is not a number above 0"),
        ({"lr": float("nan")}, "lr=nan is not a number above 0"),
        ({"seed": 2**40}, "seed=1099511627776 is too large"),
        ({"schedule": "clr", "cycles": 3}, "epochs=250 is no multiple of --cycles=3"),
        ({"milestones": "a b"}, "not a list of epochs"),
        ({"optimizer": "lion"}, "choose one of adamw, adam, nadam, .*, sgd"),
    ],
)
def test_bad_options_are_refused_before_any_work(bad: dict, message: str):
    with pytest.raises(BadInput, match=message):
        Config(**bad)


def test_a_fold_out_of_range_is_refused(small: Config):
    with pytest.raises(BadInput, match=r"got fold 3, expected one of 0\.\.2"):
        train(replace(small, fold=3))
    assert not folder_of(replace(small, fold=3)).exists()


def test_a_last_batch_of_one_sits_out():
    generator = torch.Generator().manual_seed(0)
    assert [[len(batch) for batch in group] for group in epoch_groups(13, 4, 4, generator)] == [[4, 4, 4]]
    assert [[len(batch) for batch in group] for group in epoch_groups(9, 4, 1, generator)] == [[4], [4]]
    assert [[len(batch) for batch in group] for group in epoch_groups(3, 1, 2, generator)] == [[1, 1]]
    assert [[len(batch) for batch in group] for group in epoch_groups(1, 4, 2, generator)] == [[1]]


def test_more_epochs_go_on_exactly_where_the_schedule_allows(small: Config):
    short = replace(small, schedule="noam", epochs=2)
    train(short)
    train(replace(short, epochs=3))
    whole = other_run(replace(short, epochs=3), "whole")
    train(whole)
    assert_equal_weights(folder_of(short) / "final.pt", folder_of(whole) / "final.pt")
    assert nets.load(folder_of(short) / "final.pt")[1]["config"]["epochs"] == 3
    swa(Options(data=short.data, run=short.run))  # of checkpoints from both parts
    with pytest.raises(BadInput, match="epochs: 3, asked 2"):
        train(short)


def test_more_epochs_of_a_schedule_that_ends_are_refused(small: Config):
    short = replace(small, schedule="onecycle", epochs=2)
    train(short)
    with pytest.raises(BadInput, match="epochs: 2, asked 3"):
        train(replace(short, epochs=3))


def test_more_epochs_need_the_last_state(small: Config):
    short = replace(small, schedule="constant", epochs=1)
    train(short)
    (folder_of(short) / "latest.pt").unlink()
    with pytest.raises(BadInput, match=r"latest\.pt is gone"):
        train(replace(short, epochs=2))
    assert (folder_of(short) / "final.pt").exists()


def test_a_config_of_another_version_is_named(small: Config):
    train(replace(small, epochs=1, limit_tiles=4))
    path = folder_of(small) / "config.json"
    runfolder.write_json(path, runfolder.read_json(path) | {"warmth": 3, "made with": {"commit": "abc"}})
    with pytest.raises(BadInput, match=r"config\.json has the option 'warmth', which this version .*commit abc"):
        train(replace(small, epochs=1, limit_tiles=4))


def test_the_epoch_before_is_offered_for_a_damaged_latest(small: Config, monkeypatch: pytest.MonkeyPatch):
    small = replace(small, epochs=3)
    whole = other_run(small, "whole")
    train(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(nets, "save", stopping_at("next.pt", epoch=2))
        train(small)
    latest, previous = (folder_of(small) / f"{name}.pt" for name in ("latest", "previous"))
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 1
    latest.write_bytes(content)
    with pytest.raises(BadInput, match=rf"latest\.pt is damaged.*`mv {previous} {latest}`.* go on from epoch 0"):
        train(small)
    os.replace(previous, latest)
    train(small)
    assert_equal_weights(folder_of(small) / "final.pt", folder_of(whole) / "final.pt")
    assert not previous.exists()


def test_a_kill_between_two_names_of_the_last_checkpoint_costs_nothing(small: Config):
    train(small)
    whole = weights(folder_of(small) / "final.pt")
    (folder_of(small) / "final.pt").unlink()
    os.replace(folder_of(small) / "latest.pt", folder_of(small) / "previous.pt")
    train(small)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(folder_of(small) / "final.pt").items())


def stopping_at(name: str, epoch: int):
    """nets.save, but for the file of that name and epoch."""
    save = nets.save

    def stop(path, *arguments, **details):
        if Path(path).name == name and details["epoch"] == epoch:
            raise KeyboardInterrupt
        save(path, *arguments, **details)

    return stop


def test_two_runs_of_one_command_are_equal_bit_for_bit(small: Config, monkeypatch: pytest.MonkeyPatch):
    """Those of PyTorch's deterministic algorithms, which a CPU does not need, included."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    small = replace(small, epochs=1)
    runs = [small, other_run(small, "again"), other_run(replace(small, deterministic=True), "switched")]
    try:
        for config in runs:
            train(config)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    for other in runs[1:]:
        for name in ("final.pt", "best-loss.pt"):
            assert_equal_weights(folder_of(small) / name, folder_of(other) / name)
        assert (folder_of(small) / "metrics.csv").read_bytes() == (folder_of(other) / "metrics.csv").read_bytes()


def test_a_finished_model_outlives_a_damaged_latest(small: Config):
    """Asked for more epochs, it says what is wrong and loses nothing."""
    short = replace(small, schedule="constant", epochs=1)
    train(short)
    folder = folder_of(short)
    (folder / "latest.pt").write_bytes((folder / "latest.pt").read_bytes()[:-100])
    before = {path: path.read_bytes() for path in folder.glob("[!.]*.*")}
    with pytest.raises(BadInput, match=r"latest\.pt"):
        train(replace(short, epochs=2))
    assert {path: path.read_bytes() for path in folder.glob("[!.]*.*")} == before


def test_a_damaged_split_is_blamed_and_not_the_models(small: Config):
    train(replace(small, epochs=1, limit_tiles=4))
    path = runfolder.run_folder(small.run) / "folds.csv"
    path.write_text(path.read_text().replace(",0", ",1", 1))
    with pytest.raises(BadInput, match=r"folds\.csv is not as it was written"):
        train(small)
