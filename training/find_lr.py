"""Find a learning rate: the training loss while the rate rises exponentially from far too small to far too large.

    python -m training.find_lr saltnet --fold=0 --variant=pad --data=datasets/tgs --run=saltnet

Writes find_lr.csv (step, lr, loss) and find_lr.png beside the model, and suggests the rate at which the smoothed loss
falls fastest. No checkpoint is written or touched.

Smith 2017, section 3.3, https://arxiv.org/abs/1506.01186
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from tqdm import tqdm

import command
import runfolder
from command import BadInput, at_least
from training import setup
from training.config import PRESETS, Config, resolve
from training.state import table
from training.step import epoch_groups, seed_epoch, train_step
from training.train import set_rate

SMOOTHING = 0.9  # of the running mean of the loss
DIVERGED = 4  # times the lowest smoothed loss ends the search


@dataclass(frozen=True, kw_only=True)
class Search(Config):
    """A training's config, and the range of rates to go through."""

    lowest: float = 1e-6  # learning rate of the first step
    highest: float = 1.0  # of the last
    steps: int = 100  # between them, at equal ratios

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("steps", self.steps, 10)
        if not 0 < self.lowest < self.highest:
            raise BadInput(f"--lowest={self.lowest} to --highest={self.highest} is no range: 1e-6 to 1 is usual")


def find_lr(search: Search) -> None:
    """Write the curve of the config that `search` names, and print the suggestion."""
    job = setup.prepare(resolve(search))
    setup.set_normalisation(job)
    rows = sweep(job, search)
    folder = runfolder.model_folder(search.run, search.variant, search.fold)
    runfolder.write_text(folder / "find_lr.csv", table(rows))
    rate = steepest(rows)
    draw(rows, rate, folder / "find_lr.png")
    print(f"{folder}/find_lr.csv, find_lr.png: the loss falls fastest at --lr={rate:.1e}")


def sweep(job: setup.Job, search: Search) -> list[dict[str, float]]:
    """A row per optimiser step: step, lr, loss, smoothed. Stops early once the loss has diverged."""
    rows: list[dict[str, float]] = []
    ratio = (search.highest / search.lowest) ** (1 / (search.steps - 1))
    generator = seed_epoch(search.seed, 0)
    groups: list = []
    mean, lowest = 0.0, math.inf
    job.model.train()
    for step in tqdm(range(search.steps), "find_lr", disable=None):
        groups = groups or epoch_groups(len(job.train), search.batch, search.accumulate, generator)
        rate = search.lowest * ratio**step
        set_rate(job.optimizer, rate)
        group = groups.pop()
        loss = float(train_step(job, group, job.feed(group), generator, search.image_size).loss)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (step + 1))  # without the pull of the zero it began with
        lowest = min(lowest, smoothed)
        rows.append({"step": step, "lr": rate, "loss": loss, "smoothed": smoothed})
        if not math.isfinite(loss) or smoothed > DIVERGED * lowest:
            break
    return rows


def steepest(rows: list[dict[str, float]]) -> float:
    """The rate at which the smoothed loss falls fastest over log(rate), before its minimum."""
    losses = np.array([row["smoothed"] for row in rows if math.isfinite(row["smoothed"])])
    if len(losses) < 3:
        raise BadInput(f"the loss diverged after {len(losses)} steps: start from a lower --lowest")
    rows = rows[: len(losses)]
    slope = np.gradient(losses, np.log([row["lr"] for row in rows]))
    return rows[int(np.argmin(slope[: max(2, int(np.nanargmin(losses)) + 1)]))]["lr"]


def draw(rows: list[dict[str, float]], rate: float, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rates = [row["lr"] for row in rows]
    axes.semilogx(rates, [row["loss"] for row in rows], color="0.8", label="loss")
    axes.semilogx(rates, [row["smoothed"] for row in rows], label="smoothed")
    axes.axvline(rate, linestyle="--", color="tab:red", label=f"steepest: {rate:.1e}")
    axes.set(xlabel="learning rate", ylabel="training loss")
    axes.legend()
    with runfolder.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def searched(preset: type | partial) -> partial:
    """A preset of Config as one of Search."""
    return partial(Search, **getattr(preset, "keywords", {}))


if __name__ == "__main__":
    command.run(find_lr, {name: searched(preset) for name, preset in PRESETS.items()})
