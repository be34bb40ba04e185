"""Which models of a run go into its average, and whether their stored predictions fit together.

A model is named VARIANT/foldK, as its folder is. Nothing joins by lying about: other folders, predictions without
their csv and tiles that a model was trained on are left out by name or refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from command import BadInput
from datasets import folds, framing, predictions
from datasets.predictions import Predictions
from datasets.salt import Tiles
from postprocess import stages

FILES = ("oof.csv", "oof.npy", "test.csv", "test.npy")
OUTSIDE = "not of this run's folds and framings"


@dataclass(frozen=True)
class Model:
    name: str  # VARIANT/foldK
    oof: Predictions
    test: Predictions

    @property
    def variant(self) -> str:
        return self.name.split("/")[0]

    @property
    def fold(self) -> int:
        return int(self.name.split("/fold")[1])


def choose(folder: Path, asked: str, num_folds: int) -> tuple[list[str], dict[str, str]]:
    """Names of the models that go in, and why each other one of the grid or of the run's folders does not."""
    grid = [f"{variant}/fold{fold}" for variant in framing.VARIANTS for fold in range(num_folds)]
    found = sorted({str(path.parent.relative_to(folder)) for path in folder.glob("*/fold*/*")})
    reasons = {name: reason(folder / name, name in grid) for name in dict.fromkeys([*grid, *found])}
    if asked:
        names = asked_for(asked)
        return names, {name: why or "not asked for" for name, why in reasons.items() if name not in names}
    names = [name for name, why in reasons.items() if not why]
    if not names:
        raise BadInput(
            f"{folder} has no model with test.csv: run `make predict RUN={folder.name}` first"
            + "".join(f"; {name} is {why}" for name, why in reasons.items() if name in found)
        )
    return names, {name: why for name, why in reasons.items() if why}


def reason(folder: Path, in_grid: bool) -> str:
    """Why the model in `folder` does not go in unless asked for; "" if it does."""
    if not in_grid:
        return OUTSIDE
    if (folder / "test.csv").is_file():
        return ""
    return "not predicted" if (folder / "final.pt").exists() or (folder / "test.npy").exists() else "not trained"


def asked_for(models: str) -> list[str]:
    """The names in --models, apart by spaces or commas."""
    names = re.split(r"[\s,]+", models.strip(" ,"))
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*/fold(0|[1-9][0-9]{0,8})", name):
            raise BadInput(f"--models has {name!r}, expected VARIANT/foldK such as pad/fold0, apart by spaces")
        if names.count(name) > 1:
            raise BadInput(f"--models names {name!r} twice, expected each model once: it would weigh twice")
    return names


def read(folder: Path, name: str) -> Model:
    """The stored predictions of one model. Raises BadInput for what is missing, damaged or of several classes."""
    variant, fold = name.split("/fold")
    for file in FILES:
        if not (folder / name / file).is_file():
            raise BadInput(
                f"{folder / name / file} is missing: "
                f"run `make predict RUN={folder.name} VARIANT={variant} FOLD={fold}` first"
            )
    model = Model(name, predictions.read(folder / name / "oof"), predictions.read(folder / name / "test"))
    for stem, stored in (("oof", model.oof), ("test", model.test)):
        if stored.pixels.ndim != 3:
            raise BadInput(
                f"{folder / name / stem}.npy has {stored.pixels.shape[1]} classes, expected one map per tile, (N, H, W)"
            )
    return model


def check(folder: Path, models: Sequence[Model], table: pd.DataFrame, tiles: Tiles) -> None:
    """Raise BadInput unless the models share their test tiles and hold out what folds.csv says, once a variant."""
    for model in models:
        for stem, stored in (("oof", model.oof), ("test", model.test)):
            stages.refuse_other_size(stored, tiles, folder / model.name / f"{stem}.npy")
        refuse_other_test(folder, models[0], model)
        refuse_other_windows(folder, models[0], model)
    refuse_held_out_twice(folder, models)
    for model in models:
        refuse_other_fold(folder, model, table)


def refuse_other_test(folder: Path, first: Model, model: Model) -> None:
    different = set(first.test.names) ^ set(model.test.names)
    if different:
        raise BadInput(
            f"{folder / model.name}/test.csv and {folder / first.name}/test.csv differ in {len(different)} ids "
            f"({min(different)!r} is in one of them), expected the same test tiles: predict both with the same --data"
        )


def refuse_other_windows(folder: Path, first: Model, model: Model) -> None:
    files = [folder / name / predictions.WINDOWS for name in (first.name, model.name)]
    told = [file.read_text() if file.exists() else "" for file in files]
    if told[0] != told[1]:
        raise BadInput(
            f"{folder / model.name} and {folder / first.name} were not predicted by the same windows across borders, "
            "expected all or none: predict both with the same --mosaics, or without"
        )


def refuse_held_out_twice(folder: Path, models: Sequence[Model]) -> None:
    holder: dict[tuple[str, str], Model] = {}
    for model in models:
        for name in model.oof.names:
            other = holder.setdefault((model.variant, name), model)
            if other is not model:
                raise BadInput(
                    f"{folder / model.name}/oof.csv holds out {name!r}, which {folder / other.name}/oof.csv does too, "
                    "expected each tile in one fold of a variant: predict both with the run's folds.csv"
                )


def refuse_other_fold(folder: Path, model: Model, table: pd.DataFrame) -> None:
    expected = set(folds.members(table, model.fold)[1])
    different = expected ^ set(model.oof.names)
    if different:
        name = min(different)
        problem = f"lacks {name!r}" if name in expected else f"has {name!r}, on which this model may be trained"
        raise BadInput(
            f"{folder / model.name}/oof.csv {problem}, expected the {len(expected)} tiles of fold {model.fold} in "
            f"{folder}/folds.csv: predict again, or restore the folds.csv of its training"
        )
