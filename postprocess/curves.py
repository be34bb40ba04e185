"""Draw the validation curves of several runs into one picture, and print each run's last and best score.

python -m postprocess.curves --runs="lessons-dice lessons-ce" --score=metric --out=runs/lessons/losses.png
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib

import command
import runfolder
from command import BadInput, choose

SCORES = ("metric", "loss", "accuracy", "iou", "dice", "micro_iou", "train_loss", "train_metric")


@dataclass(frozen=True, kw_only=True)
class Options:
    runs: str = ""  # folders under runs/, apart by spaces; every model in them gets a curve
    score: str = "metric"  # metric, loss, accuracy, iou, dice, micro_iou of validation; train_loss, train_metric
    out: str = "runs/curves.png"  # the picture

    def __post_init__(self) -> None:
        choose("score", self.score, SCORES)


def curves(options: Options) -> None:
    """Write the picture. Raises BadInput for runs without a model."""
    if not options.runs.split():
        raise BadInput("--runs is empty: name folders under runs/, such as --runs='demo first'")
    found = {}
    for run in options.runs.split():
        folders = [path.parent for path in sorted(runfolder.run_folder(run).glob("*/fold*/metrics.csv"))]
        if not folders:
            raise BadInput(f"{runfolder.run_folder(run)} has no metrics.csv: train a model of this run first")
        for folder in folders:
            name = run if len(folders) == 1 else f"{run} {folder.parent.name}/{folder.name}"
            found[name] = read(folder / "metrics.csv", options.score)
    draw(found, options)
    for name, (epochs, values) in found.items():
        best = (min if "loss" in options.score else max)(values)
        print(f"{name:32}{options.score} {values[-1]:.4f} after {epochs[-1] + 1} epochs, best {best:.4f}")
    print(f"wrote {options.out}")


def read(path: Path, score: str) -> tuple[list[int], list[float]]:
    """Epochs and values of a score, without epochs that did not validate."""
    column = score if score.startswith("train") else f"validation_{score}"
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    if not rows:
        raise BadInput(f"{path} has no values of {column}: choose another --score")
    return [int(row["epoch"]) for row in rows], [float(row[column]) for row in rows]


def draw(found: dict[str, tuple[list[int], list[float]]], options: Options) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, (epochs, values) in found.items():
        axes.plot([epoch + 1 for epoch in epochs], values, marker="o", markersize=3, label=name)
    axes.set(xlabel="epoch", ylabel=f"{'' if options.score.startswith('train') else 'validation '}{options.score}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with runfolder.atomic(options.out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    command.run(curves, Options)
