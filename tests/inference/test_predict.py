"""Predictions on disk are those of the net, tile by tile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from competition import write_competition

import nets
import runfolder
from command import BadInput
from datasets import folds, framing, png, predictions, salt
from inference.predict import Options, predict
from nets import tta


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """An untrained net as swa.pt of pad/fold1, 12 labelled tiles in 3 folds."""
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    data = write_competition(tmp_path / "data")
    folds.write(folds.Options(data=str(data), run="r", num_folds=3))
    save_net(runfolder.model_folder("r", "pad", 1) / "swa.pt", "pad")
    return Options(data=str(data), run="r", variant="pad", fold=1)


def save_net(path: Path, variant: str, tile_size: tuple[int, int] = (101, 101)) -> None:
    torch.manual_seed(0)
    table = runfolder.checksum(runfolder.run_folder("r") / "folds.csv")
    config = {"variant": variant, "fold": 1, "folds": table, "precision": "float32", "threads": 1, "batch": 4}
    framed = {"variant": variant, "tile_size": tile_size, "image_size": 104}
    nets.save(path, nets.build("fastnet", width=8), config=config, framing=framed)


@pytest.mark.parametrize("variant", ["pad", "resize"])
def test_stored_probabilities_are_the_nets_at_the_tiles_size(options: Options, variant: str):
    folder = runfolder.model_folder("r", variant, 1)
    save_net(folder / "swa.pt", variant)
    predict(replace(options, variant=variant, batch=5))
    tiles = salt.load_test(options.data)
    net, details = nets.load(folder / "swa.pt")
    expected = tta.predict(net, framing.build(**details["framing"]), tiles.batch(range(len(tiles))))
    stored = predictions.read(folder / "test")
    assert stored.names == tiles.names
    assert stored.pixels.dtype == np.uint16 and stored.pixels.shape == (6, 101, 101)
    assert np.abs(stored.probability(slice(None)) - expected.probability[:, 0].numpy()).max() < 1e-4
    assert np.abs(stored.image_probability - expected.image_probability.numpy()).max() < 1e-4


def test_windows_change_what_lies_at_the_borders_of_placed_tiles(options: Options, tmp_path: Path):
    predict(options)
    folder = runfolder.model_folder("r", "pad", 1)
    plain = predictions.read(folder / "test").pixels[:].astype(int)
    first, second = salt.test_names(options.data)[:2]
    table = tmp_path / "mosaics.csv"
    table.write_text(f"id,mosaic,row,column,strength\n{first},0,0,0,1.0\n{second},0,1,0,1.0\n")
    predict(replace(options, mosaics=str(table)))
    changed = (predictions.read(folder / "test").pixels != plain).any(axis=2)  # (tiles, rows)
    assert changed[0, 60:].any() and not changed[0, :50].any()
    assert changed[1, :40].any() and not changed[1, 51:].any()
    assert not changed[2:].any()
    assert (folder / "windows.txt").read_text().strip() == runfolder.checksum(table)
    predict(options)
    assert not (folder / "windows.txt").exists()


def test_held_out_tiles_are_the_folds_own(options: Options):
    predict(options)
    table = folds.read(runfolder.run_folder("r") / "folds.csv", salt.load_train(options.data).names)
    stored = predictions.read(runfolder.model_folder("r", "pad", 1) / "oof")
    assert sorted(stored.names) == sorted(table["id"][table["fold"] == 1])


def test_a_missing_stage_is_named(options: Options):
    with pytest.raises(BadInput, match=r"swa\.pt is missing: run `make swa` first"):
        predict(replace(options, fold=0))


def test_other_folds_are_refused_and_nothing_is_written(options: Options):
    path = runfolder.run_folder("r") / "folds.csv"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(BadInput, match=r"folds\.csv is not as it was written"):
        predict(options)
    path.with_suffix(".origin.json").unlink()
    with pytest.raises(BadInput, match=r"not the one that .*swa\.pt was trained with"):
        predict(options)
    assert not list(runfolder.model_folder("r", "pad", 1).glob("*.npy"))


def test_a_checkpoint_of_another_fold_is_refused(options: Options):
    source = runfolder.model_folder("r", "pad", 1) / "swa.pt"
    target = runfolder.model_folder("r", "pad", 0) / "swa.pt"
    target.parent.mkdir()
    target.write_bytes(source.read_bytes())
    with pytest.raises(BadInput, match="is the model pad/fold1: move it back"):
        predict(replace(options, fold=0))


def test_a_failure_half_way_leaves_no_sign_of_completeness(options: Options, monkeypatch: pytest.MonkeyPatch):
    predict(options)
    monkeypatch.setattr(tta, "predict", lambda *_: (_ for _ in ()).throw(BadInput("cut")))
    with pytest.raises(BadInput, match="cut"):
        predict(options)
    assert not (runfolder.model_folder("r", "pad", 1) / "test.csv").exists()


@pytest.mark.parametrize(
    ("bad", "message"), [({"precision": "half"}, "choose one of bf16"), ({"batch": -1}, "too small")]
)
def test_bad_options_are_refused(bad: dict, message: str):
    with pytest.raises(BadInput, match=message):
        Options(**bad)


def test_tiles_of_another_size_are_refused(options: Options):
    save_net(runfolder.model_folder("r", "pad", 1) / "swa.pt", "pad", tile_size=(96, 96))
    with pytest.raises(BadInput, match=r"trained on tiles of \(96, 96\) px, got \(101, 101\)"):
        predict(options)


def test_test_tiles_come_in_pieces_and_faults_before_work(options: Options, monkeypatch: pytest.MonkeyPatch):
    """The same probabilities whatever the pieces, of which one is in memory; a bad tile keeps what was there."""
    predict(options)
    folder = runfolder.model_folder("r", "pad", 1)
    whole = (folder / "test.npy").read_bytes()
    monkeypatch.setattr("inference.predict.CHUNK", 4)
    lengths = []
    read = png.read_folder
    counted = lambda folder, names, *rest: lengths.append(len(names)) or read(folder, names, *rest)  # noqa: E731
    monkeypatch.setattr(png, "read_folder", counted)
    predict(options)
    assert (folder / "test.npy").read_bytes() == whole
    assert lengths[2:] == [4, 2, 4, 2]  # behind the labelled images and masks: checked, then predicted
    name = salt.load_test(options.data).names[-1]
    path = Path(options.data) / "test/images" / f"{name}.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match=f"{name}.png .* is not a whole PNG"):
        predict(options)
    assert (folder / "test.npy").read_bytes() == whole and (folder / "test.csv").exists()
