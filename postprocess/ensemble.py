"""Average the stored probabilities of a run's models.

    python -m postprocess.ensemble --run=saltnet --data=datasets/tgs --models="pad/fold0 resize/fold0"

Without --models: every model of the run's folds and framings that has test.csv. Test tiles: the plain mean over all
models. Out-of-fold tiles: the mean over the models that hold the tile out, one per framing, so their score is that of
a smaller ensemble than the one that predicts the test tiles.
Writes oof.{npy,csv}, test.{npy,csv} and ensemble.json: what went in, what did not and why, and the scores at 0.5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import command
import runfolder
from datasets import folds, predictions, salt
from datasets.predictions import SCALE, Predictions
from datasets.salt import Tiles
from postprocess import members, scores, stages
from postprocess.members import FILES, Model

WRITTEN = (*FILES, "ensemble.json")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Average the models of a run."""

    data: str = "datasets/tgs"  # a folder in Kaggle's layout, for the masks of the labelled tiles
    run: str = "saltnet"  # folder under runs/
    models: str = ""  # "pad/fold0 resize/fold0"; empty = all that are predicted


def ensemble(options: Options) -> None:
    """Write the averages and ensemble.json. Raises BadInput for missing or disagreeing predictions."""
    folder = stages.existing_run(options.run)
    tiles = salt.load_train(options.data)
    table = folds.read(runfolder.folds_file(options.run), tiles.names)
    names, left_out = members.choose(folder, options.models, table["fold"].max() + 1)
    models = [members.read(folder, name) for name in names]
    members.check(folder, models, table, tiles)
    held_out = set().union(*(model.oof.names for model in models))
    tiles = tiles.select([name for name in tiles.names if name in held_out])
    with stages.together(folder, WRITTEN) as temporary:
        write_mean(temporary / "oof", tiles.names, [model.oof for model in models])
        write_mean(temporary / "test", models[0].test.names, [model.test for model in models])
        found = {"models": [single_score(model, tiles) for model in models], "left out": left_out}
        found |= ensemble_scores(predictions.read(temporary / "oof"), tiles)
        found["made from"] = stages.checksums(folder, [f"{name}/{file}" for name in names for file in FILES])
        found["written"] = stages.checksums(temporary, FILES)
        runfolder.write_json(temporary / "ensemble.json", found | {"made with": runfolder.provenance()})
    report(folder, found)


def write_mean(stem: Path, names: Sequence[str], stored: Sequence[Predictions]) -> None:
    predictions.write(stem, names, mean_chunks(names, stored))


def mean_chunks(names: Sequence[str], stored: Sequence[Predictions]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of pixel (n, H, W) and image probabilities (n,) of the tiles, each a mean over those that predict it."""
    places = [pd.Index(one.names).get_indexer(names) for one in stored]  # -1: not predicted by this one
    for part in scores.chunks(len(names)):
        num = part.stop - part.start
        # Sums of integers: the mean does not depend on the order of the models.
        pixels, image, count = np.zeros((num, *stored[0].pixels.shape[1:]), np.uint32), np.zeros(num), np.zeros(num)
        for one, place in zip(stored, places, strict=True):
            there = np.flatnonzero(place[part] >= 0)
            rows = place[part][there]
            pixels[there] += one.pixels[rows]
            image[there] += one.image_probability[rows]
            count[there] += 1
        yield pixels / (SCALE * count[:, None, None]), image / count


def single_score(model: Model, tiles: Tiles) -> dict[str, Any]:
    """Name and score of one model at 0.5 on the tiles it holds out."""
    truth = tiles.select(model.oof.names).masks
    return {"model": model.name} | scores.score(scores.tenths_at(model.oof, truth))


def ensemble_scores(oof: Predictions, tiles: Tiles) -> dict[str, Any]:
    """Scores at 0.5 of the average, and of predicting no salt anywhere, on the same tiles."""
    return {
        "threshold": 0.5,
        "out of fold": scores.score(scores.tenths_at(oof, tiles.masks)),
        "all empty": scores.score(scores.tenths_of_empty(tiles.masks)),
    }


def report(folder: Path, found: dict[str, Any]) -> None:
    for why in dict.fromkeys(found["left out"].values()):
        print(f"left out, {why}: {' '.join(name for name, other in found['left out'].items() if other == why)}")
    rows = [(one["model"], one) for one in found["models"]]
    rows += [("ensemble, out of fold", found["out of fold"]), ("all empty", found["all empty"])]
    for name, one in rows:
        print(f"{name:24}{scores.text(one)}")
    print(f"wrote {', '.join(str(folder / file) for file in WRITTEN)}")


if __name__ == "__main__":
    command.run(ensemble, Options)
