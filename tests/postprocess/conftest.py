"""A run small enough to work out by hand: tiles of 2 x 3 pixels, predictions of one value per tile."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import predictions
from postprocess import ensemble, rules, submit, threshold

EMPTY = [[0, 0, 0], [0, 0, 0]]
RIGHT = [[0, 0, 1], [0, 0, 1]]  # the last column is salt
MASKS = {"1e1": EMPTY, "007": RIGHT, "NA": RIGHT, "d": EMPTY}  # ids that look like something else
FOLDS = {"1e1": 0, "007": 0, "NA": 1, "d": 1}
TEST = ["t1", "t2", "t3"]
SAMPLE = ["t3", "t1", "t2"]  # the order of the submission is another than that of the predictions


def write_png(path: Path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(".png", np.array(image, np.uint8))[1].tofile(path)


class HandRun:
    """runs/hand under a temporary folder, and the data it is about."""

    def __init__(self, root: Path) -> None:
        self.data, self.folder = root / "data", root / "runs" / "hand"
        self.options = {"run": "hand", "data": str(self.data)}
        self.write_data({name: 10 * np.arange(6).reshape(2, 3) for name in [*MASKS, *SAMPLE]}, MASKS)
        self.write_folds(FOLDS)

    def write_data(self, images: dict, masks: dict) -> None:
        rows = ["id,rle_mask"]
        for name, image in images.items():
            write_png(self.data / ("train" if name in masks else "test") / "images" / f"{name}.png", image)
        for name, mask in masks.items():
            write_png(self.data / "train" / "masks" / f"{name}.png", 255 * np.array(mask))
            flat = np.array(mask).flatten(order="F")
            start = int(flat.argmax()) + 1  # these masks have one run at most
            rows.append(f"{name},{start} {flat.sum()}" if flat.any() else f"{name},")
        (self.data / "train.csv").write_text("\n".join(rows) + "\n")
        (self.data / "sample_submission.csv").write_text("\n".join(["id,rle_mask", *SAMPLE]) + "\n")

    def write_folds(self, folds: dict[str, int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [f"{name},{fold}" for name, fold in folds.items()]
        (self.folder / "folds.csv").write_text("\n".join(["id,fold", *rows]) + "\n")

    def write_model(self, model: str, oof: dict, test: dict) -> None:
        """Each value is a probability for the whole tile, or (2, 3) of them."""
        for stem, values in (("oof", oof), ("test", test)):
            self.write_predictions(self.folder / model / stem, values)

    @staticmethod
    def write_predictions(stem: Path, values: dict) -> None:
        pixels = np.stack([np.broadcast_to(np.array(value, float), (2, 3)) for value in values.values()])
        predictions.write(stem, list(values), [(pixels, pixels.max(axis=(1, 2)))])

    def write_two_folds(self, test=(0.8, 0.2, 0.7)) -> None:
        """pad/fold0 and pad/fold1, right about every labelled tile."""
        values = dict(zip(TEST, test, strict=True))
        self.write_model("pad/fold0", {"1e1": 0.1, "007": np.array(RIGHT) * 0.9}, values)
        self.write_model("pad/fold1", {"NA": np.array(RIGHT) * 0.9, "d": 0.3}, values)

    def ensemble(self, models: str = "") -> None:
        ensemble.ensemble(ensemble.Options(**self.options, models=models))

    def threshold(self) -> None:
        threshold.threshold(threshold.Options(**self.options))

    def rules(self, **switches: bool) -> None:
        rules.rules(rules.Options(**self.options, **switches))

    def submit(self, show: bool = False) -> None:
        submit.submit(submit.Options(**self.options, show=show))

    def all_stages(self) -> None:
        for stage in (self.ensemble, self.threshold, self.rules, self.submit):
            stage()

    def files(self) -> dict[str, bytes]:
        """What lies in the run's own folder, locks apart."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file() and path.suffix}


@pytest.fixture
def hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandRun:
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    return HandRun(tmp_path)
