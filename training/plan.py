"""Tell what a grid of models is, what is done, and what memory and disk the rest needs, before any of it starts.

    python -m training.plan saltnet --models="pad/fold0 resize/fold0" --run=saltnet --data=datasets/tgs

Refuses in one sentence a model on disk whose config is not what is asked for.
"""

import math
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import command
import runfolder
from command import BadInput
from datasets import folds, layouts, png, salt
from training import memory, state
from training.config import PRESETS, Config, resolve

WEIGHT_FILES = 3  # latest, final, swa; and the best ones per cycle
PROBABILITY = 2  # bytes of a stored probability


@dataclass(frozen=True, kw_only=True)
class Plan(Config):
    """What to train, as for training.train, and which models of it."""

    models: str = "pad/fold0"  # VARIANT/foldK, separated by spaces


def plan(asked: Plan) -> None:
    """Print the plan; raises BadInput if a model that is there differs from it."""
    salt.refuse_missing_folder(Path(asked.data))
    configs = [config_of(asked, model) for model in asked.models.split()]
    refuse_missing_folds(configs)
    identity = {"folds": runfolder.checksum(runfolder.folds_file(asked.run))}
    folders = [runfolder.model_folder(config.run, config.variant, config.fold) for config in configs]
    for folder, config in zip(folders, configs, strict=True):
        state.refuse_other(folder, config, identity)
    states = [progress(folder, asked.epochs) for folder in folders]
    for name in ("trained", "interrupted", "to train"):
        found = [model for model, word in zip(asked.models.split(), states, strict=True) if word == name]
        if found:
            print(f"{name}: {', '.join(found)}")
    left = len(states) - states.count("trained")
    if left:
        print_needs(asked, left)


def config_of(asked: Plan, model: str) -> Config:
    variant, _, fold = model.partition("/fold")
    if not fold.isdigit():
        raise BadInput(f"--models={asked.models!r} has {model!r}, expected VARIANT/foldK such as pad/fold0")
    return replace(asked, variant=variant, fold=int(fold))


def refuse_missing_folds(configs: list[Config]) -> None:
    """The first fold out of range is told before the first one within it trains for days."""
    path = runfolder.folds_file(configs[0].run)
    last = int(folds.read_any(path)["fold"].max())
    for config in configs:
        if config.fold > last:
            raise BadInput(f"got fold {config.fold}, expected one of 0..{last}: {path} has no other")


def progress(folder: Path, epochs: int) -> str:
    if (folder / "final.pt").exists() and state.stored_config(folder)["epochs"] >= epochs:
        return "trained"
    return "interrupted" if state.newest(folder) else "to train"


def print_needs(asked: Plan, count: int) -> None:
    config = resolve(asked)
    config = memory.fitted(config) if config.fit_batch else config
    parameters, activations = memory.measure(config)
    needed, has = memory.needed_memory(config, parameters, activations), memory.total_memory(config.device)
    disk = count * needed_disk(config, parameters) + 2 * memory.state_size(config, parameters)  # previous, next
    free = shutil.disk_usage(existing(runfolder.runs())).free
    accumulated = f" ({config.accumulate} accumulated)" if config.accumulate > 1 else ""
    print(
        f"{count} to go of {name_of(config)}, {parameters:,} parameters each: about {needed / 1e9:.1f} GB of memory "
        f"at batch {config.batch}{accumulated}, up to {disk / 1e9:.1f} GB of checkpoints and probabilities on disk, "
        f"which has {free / 1e9:.0f} GB free"
    )
    if disk > free:
        print("WARNING: the disk will not hold it all: `make prune` between models keeps final and swa only")
    if needed > has:
        print(f"WARNING: this {config.device} has {has / 1e9:.0f} GB of memory: add --fit_batch")


def name_of(config: Config) -> str:
    of = config.encoder if config.net == "saltnet" else f"width {config.width}"
    return f"{config.net} ({of}, {config.epochs} epochs)"


def needed_disk(config: Config, parameters: int) -> float:
    """Bytes that one model leaves: checkpoints, the optimiser's state in latest.pt, probabilities of all tiles."""
    cycles = config.cycles if config.schedule == "clr" else 1
    files = WEIGHT_FILES - 1 + len(config.best.split()) * cycles  # without latest.pt
    weights = parameters * memory.FLOAT * files + memory.state_size(config, parameters)
    if layouts.layout_of(config.data) != "salt":
        return weights
    images = [path for part in ("train", "test") for path in Path(config.data, part, "images").glob("*.png")]
    return weights + len(images) * pixels(images[:1]) * PROBABILITY


def pixels(images: list[Path]) -> int:
    return sum(math.prod(png.decode(path).shape[:2]) for path in images)


def existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def planned(preset: type | partial) -> partial:
    """A preset of Config as one of Plan."""
    return partial(Plan, **getattr(preset, "keywords", {}))


if __name__ == "__main__":
    command.run(plan, {name: planned(preset) for name, preset in PRESETS.items()})
