from pathlib import Path

import cv2
import pytest

from command import BadInput
from postprocess.curves import Options, curves


def write_metrics(runs: Path, run: str, *values) -> None:
    folder = runs / run / "pad" / "fold0"
    folder.mkdir(parents=True)
    rows = [f"{epoch},0.5,{value}" for epoch, value in enumerate(values)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,train_loss,validation_metric", *rows]) + "\n")


def test_a_curve_a_run_with_its_best_score(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path))
    write_metrics(tmp_path, "one", "", 0.2, 0.7, 0.6)  # its first epoch did not validate
    write_metrics(tmp_path, "two", 0.1, 0.3)
    curves(Options(runs="one two", out=str(tmp_path / "c.png")))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["one", "metric", "0.6000", "after", "4", "epochs,", "best", "0.7000"]
    assert out[1].split() == ["two", "metric", "0.3000", "after", "2", "epochs,", "best", "0.3000"]
    picture = cv2.imread(str(tmp_path / "c.png"))
    assert picture.shape[1] == 840 and picture.std() > 5


def test_refusals(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path))
    write_metrics(tmp_path, "one", 0.2)
    for options, message in (
        ({}, "--runs is empty"),
        ({"runs": "other"}, "other has no metrics.csv"),
        ({"runs": "one", "score": "iou"}, "no values of validation_iou"),
    ):
        with pytest.raises(BadInput, match=message):
            curves(Options(**options))
    with pytest.raises(BadInput, match="--score=speed is not known"):
        Options(score="speed")
