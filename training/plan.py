"""Tell what a grid of models is, what is done, and what memory and disk the rest needs, before any of it starts.

    python -m training.plan saltnet --models="pad/fold0 resize/fold0" --run=saltnet --data=datasets/tgs

Refuses in one sentence a model on disk whose config is not what is asked for.
"""

import math
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import command
import nets
import runfolder
from command import BadInput
from datasets import layouts, png, salt
from nets.recompute import recompute
from training import state
from training.config import PRESETS, Config, resolve

FLOAT = 4  # bytes of a float32
MOMENTS = {"muon": 1, "sgd": 1, "adagrad": 1}  # the optimiser's tensors beside each weight; 2 of others
LIBRARIES = 0.6e9  # bytes: Python, torch and the decoded tiles
WEIGHT_FILES = 3  # latest, final, swa; and three best ones per cycle
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
    last = int(pd.read_csv(path)["fold"].max())
    for config in configs:
        if config.fold > last:
            raise BadInput(f"got fold {config.fold}, expected one of 0..{last}: {path} has no other")


def progress(folder: Path, epochs: int) -> str:
    if (folder / "final.pt").exists() and state.stored_config(folder)["epochs"] >= epochs:
        return "trained"
    return "interrupted" if (folder / "latest.pt").exists() else "to train"


def print_needs(asked: Plan, count: int) -> None:
    config = resolve(asked)
    parameters, activations = measure(config)
    memory, disk = needed_memory(config, parameters, activations), count * needed_disk(config, parameters)
    free = shutil.disk_usage(existing(runfolder.runs())).free
    print(
        f"{count} to go of {name_of(config)}, {parameters:,} parameters each: about {memory / 1e9:.1f} GB of memory "
        f"at batch {config.batch}, up to {disk / 1e9:.1f} GB of checkpoints and probabilities on disk, which has "
        f"{free / 1e9:.0f} GB free"
    )
    if disk > free:
        print("WARNING: the disk will not hold it all: `make prune` between models keeps final and swa only")
    if memory > total_memory(config.device):
        has = f"{total_memory(config.device) / 1e9:.0f} GB"
        print(f"WARNING: this {config.device} has {has} of memory: take a smaller --batch and more --accumulate")


def name_of(config: Config) -> str:
    of = config.encoder if config.net == "saltnet" else f"width {config.width}"
    return f"{config.net} ({of}, {config.epochs} epochs)"


def needed_disk(config: Config, parameters: int) -> float:
    """Bytes that one model leaves: checkpoints, the optimiser's state in latest.pt, probabilities of all tiles."""
    cycles = config.cycles if config.schedule == "clr" else 1
    weights = parameters * FLOAT * (WEIGHT_FILES + len(config.best.split()) * cycles + MOMENTS.get(config.optimizer, 2))
    if layouts.layout_of(config.data) != "salt":
        return weights
    images = [path for part in ("train", "test") for path in Path(config.data, part, "images").glob("*.png")]
    return weights + len(images) * pixels(images[:1]) * PROBABILITY


def pixels(images: list[Path]) -> int:
    return sum(math.prod(png.decode(path).shape[:2]) for path in images)


def measure(config: Config) -> tuple[int, int]:
    """(parameters, bytes that one image's forward pass keeps for the backward pass in float32), nothing computed."""
    with torch.device("meta"):
        channels = 3 + len(config.extra.split())
        of_data = {"channels": channels, "classes": config.chosen_labels.num_classes}
        net = nets.build(config.net, **config.net_arguments, **of_data)
        if config.recompute:
            recompute(net.blocks)
        images = torch.empty(2, channels, config.image_size, config.image_size)
    return sum(parameter.numel() for parameter in net.parameters()), saved_bytes(net, images) // len(images)


def saved_bytes(net: nn.Module, images: torch.Tensor) -> int:
    """Bytes that autograd saves in a forward pass, each storage once, the net's own tensors not counted."""
    own = {tensor.untyped_storage()._cdata for tensor in net.state_dict(keep_vars=True).values()}
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net.train()(images)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def needed_memory(config: Config, parameters: int, activations: int) -> float:
    """Bytes at the peak of a training step: weights, gradients, moments, saved activations, libraries."""
    half = 0.6 if config.precision in ("bf16", "fp16") else 1.0  # autocast keeps some in float32
    weights = parameters * FLOAT * (2 + MOMENTS.get(config.optimizer, 2))
    return weights + activations * half * config.batch + LIBRARIES


def total_memory(device: str) -> float:
    """Bytes of the GPU's or the machine's memory; infinite where it cannot be told."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemTotal")))


def existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def planned(preset: type | partial) -> partial:
    """A preset of Config as one of Plan."""
    return partial(Plan, **getattr(preset, "keywords", {}))


if __name__ == "__main__":
    command.run(plan, {name: planned(preset) for name, preset in PRESETS.items()})
