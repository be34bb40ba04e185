"""The validation command says what training said, and writes what it saw at the images' own size."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from folders import write_tiles

import runfolder
from command import BadInput
from datasets import folds, panels
from inference.validate import Options, validate
from training.config import Config
from training.train import train

SMALL = {"net": "fastnet", "width": 8, "weights": "none", "image_size": 64, "batch": 4, "epochs": 2, "loss": "dice+ce"}


def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: tuple[int, ...]) -> Path:
    """The last checkpoint of a model of these labels and a further channel; images of two sizes validate it."""
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    written = {"labels": labels, "extra": ("nir",)}
    write_tiles(tmp_path / "data/train", 6, **written)
    write_tiles(tmp_path / "data/val", 3, first=6, **written)
    write_tiles(tmp_path / "data/val", 2, (50, 70), first=9, **written)
    folds.write(folds.Options(data=str(tmp_path / "data"), run="v"))
    chosen = {"labels": " ".join(map(str, labels)), "extra": "nir", "variant": "resize", "threads": 1, "workers": 0}
    train(Config(data=str(tmp_path / "data"), run="v", augmentation="safe", **chosen, **SMALL))
    return runfolder.model_folder("v", "resize", 0) / "final.pt"


@pytest.mark.parametrize("labels", [(255,), (2, 5)])
def test_totals_are_those_of_the_training_loop(tmp_path: Path, monkeypatch, labels):
    checkpoint = trained(tmp_path, monkeypatch, labels)
    validate(Options(checkpoint=str(checkpoint), batch=3))
    found = json.loads((checkpoint.parent / "final-validation/totals.json").read_text())
    with open(checkpoint.with_name("metrics.csv"), newline="") as file:
        last = list(csv.DictReader(file))[-1]
    for name in ("metric", "accuracy", "iou", "dice", "micro_iou", "miou"):
        assert found[name] == pytest.approx(float(last[f"validation_{name}"]), abs=1e-9)
    assert found["images"] == 5
    assert list(found["iou of labels"]) == [str(label) for label in labels] if len(labels) > 1 else ["object"]
    assert np.mean(list(found["iou of labels"].values())) == pytest.approx(found["miou"])


def test_files_have_the_images_size_and_the_labels_values(tmp_path: Path, monkeypatch):
    checkpoint = trained(tmp_path, monkeypatch, (2, 5))
    out = tmp_path / "out"
    options = Options(checkpoint=str(checkpoint), out=str(out), plots=True, masks=True, probabilities=True)
    validate(replace(options, decimal_comma=True))
    rows = list(csv.reader((out / "scores.csv").open(newline=""), delimiter=";"))
    assert [row[0] for row in rows] == [
        "name",
        *(f"tile {i}" for i in (10, 6, 7, 8, 9)),
        "mean of images",
        "all pixels as one",
    ]
    values = [float(row[1].replace(",", ".")) for row in rows[1:6]]
    assert float(rows[6][1].replace(",", ".")) == pytest.approx(np.mean(values), abs=1e-6)
    for name, size in (("tile 6", (40, 48)), ("tile 9", (50, 70))):
        mask = cv2.imread(str(out / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == size and set(np.unique(mask)) <= {0, 2, 5}
        parts = [cv2.imread(str(out / f"probabilities/{name}_{value}.png"), cv2.IMREAD_UNCHANGED) for value in (2, 5)]
        assert all(part.dtype == np.uint16 and part.shape == size for part in parts)
        background = 65535 - parts[0].astype(int) - parts[1]
        assert background.min() >= -1
        best = np.stack([background, *parts]).argmax(0)
        assert ((np.array([0, 2, 5])[best] == mask) | (np.sort(np.stack([background, *parts]), 0)[1] > 20000)).all()
        (plot,) = (out / "plots").glob(f"{name}_iou_*.png")
        assert cv2.imread(str(plot)).shape[0] == size[0]


def test_another_folder_and_threshold(tmp_path: Path, monkeypatch, capsys):
    checkpoint = trained(tmp_path, monkeypatch, (255,))
    other = write_tiles(tmp_path / "other", 2, first=20, extra=("nir",))
    means = []
    for threshold in (0.0, 1.0):
        validate(Options(checkpoint=str(checkpoint), data=str(other), threshold=threshold, out=str(tmp_path / "o")))
        means.append(json.loads((tmp_path / "o/totals.json").read_text())["iou"])
    assert means[0] > 0.05 and means[1] == 0  # everything is labelled, then nothing is
    assert "2 images" in capsys.readouterr().out


def test_another_split_is_refused(tmp_path: Path, monkeypatch):
    checkpoint = trained(tmp_path, monkeypatch, (255,))
    table = runfolder.folds_file("v")
    table.write_text(table.read_text().replace(",1", ",2", 1).replace(",0", ",1", 1).replace(",2", ",0", 1))
    table.with_suffix(".origin.json").unlink()
    with pytest.raises(BadInput, match=r"folds.csv is not the split that .*final.pt was trained with"):
        validate(Options(checkpoint=str(checkpoint)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "--checkpoint is missing"),
        ({"checkpoint": "nowhere.pt"}, "nowhere.pt is not there"),
    ],
)
def test_refusals(bad, message):
    with pytest.raises(BadInput, match=message):
        validate(Options(**bad))
    with pytest.raises(BadInput, match="no probability"):
        Options(threshold=2)


def test_colours_of_errors():
    predicted, truth = np.array([[0, 1, 1, 0, 2]]), np.array([[0, 1, 0, 1, 1]])
    found = panels.errors(predicted, truth)[0].tolist()
    assert found == [[0, 0, 0], list(panels.HIT), list(panels.FALSE), list(panels.MISSED), list(panels.FALSE)]


def test_a_label_has_one_colour_whatever_else_is_there():
    first, both = np.array([[1, 1]]), np.array([[1, 2]])
    assert np.array_equal(panels.coloured(first, False)[0, 0], panels.coloured(both, False)[0, 0])
    assert panels.coloured(first, True)[0, 0].tolist() == [255, 255, 255]


def test_dark_images_are_stretched_to_be_seen():
    image = np.full((3, 2, 2), 0.05)
    image[0, 0, 0] = 0.06
    assert panels.picture(image).max() == 255 and panels.picture(image * 10).max() == round(0.6 * 255)


def test_overlay_leaves_the_rest_of_the_image_alone():
    image = np.random.default_rng(0).random((4, 20, 20))
    labels = np.zeros((20, 20), int)
    labels[5:12, 5:12] = 2
    found = panels.overlay(image, labels)
    assert np.array_equal(found[labels == 0], panels.picture(image)[labels == 0])
    assert (found[5, 5] == panels.COLOURS[1]).all() and not (found[8, 8] == panels.COLOURS[1]).all()
