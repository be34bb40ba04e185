"""What every training command works with: device, tiles, framing, net, optimiser, loss."""

import os
import shutil
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

import losses
import nets
import runfolder
from command import BadInput
from datasets import folds, framing, salt
from datasets.augment import AUGMENTATIONS, Augment
from datasets.framing import Framing
from datasets.salt import Tiles
from nets.device import fabric as make_fabric
from nets.recompute import recompute
from training.config import OPTIMIZERS, Config


@dataclass(frozen=True)
class Job:
    """The parts of one model's training, on their device."""

    config: Config
    fabric: Fabric
    net: nn.Module  # bare: what checkpoints hold
    model: nn.Module  # the same weights behind Fabric's autocast: what is called
    optimizer: Optimizer
    loss: losses.Loss
    augment: Augment
    framing: Framing
    train: Tiles
    validation: Tiles


def prepare(config: Config, data: tuple[Tiles, Tiles] | None = None) -> Job:
    """All parts of the model's training, at its beginning. `config` has no `auto` left (see config.resolve).

    `data` are training and validation tiles, by default those of the config's fold.
    """
    fabric = make_fabric(config.device, config.precision, config.threads)
    train, validation = data or load_fold(config)
    net = build_net(config).to(memory_format=torch.channels_last)
    # Decay applies to every parameter, as in the recipe.
    optimizer = OPTIMIZERS[config.optimizer](net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    if config.recompute:
        refuse_lost_randomness(fabric.device)
        recompute(net.blocks)
    if config.compile:
        refuse_missing_compiler(fabric.device)
        net.compile()
    model, optimizer = fabric.setup(net, optimizer)
    return Job(
        config=config,
        fabric=fabric,
        net=net,
        model=model,
        optimizer=optimizer,
        loss=losses.build(config.loss),
        augment=augmentation(config),
        framing=framing.build(**framing_settings(config, train)),
        train=train.to(fabric.device),
        validation=validation.to(fabric.device),
    )


def refuse_lost_randomness(device: torch.device) -> None:
    if device.type == "mps":  # PyTorch restores the random numbers of dropout on CPUs and CUDA devices only
        raise BadInput("--recompute would drop other maps the second time on mps: leave it out, or take --device=cpu")


def refuse_missing_compiler(device: torch.device) -> None:
    names = (os.environ.get("CXX", "c++"), "g++", "clang++")
    if device.type == "cpu" and not any(shutil.which(name) for name in names):
        raise BadInput("--compile needs a C++ compiler, got none: install one (g++) or leave the flag out")


def augmentation(config: Config) -> Augment:
    chosen = AUGMENTATIONS[config.augmentation]
    return chosen if config.cutout else replace(chosen, cutout=0.0)


def load_fold(config: Config) -> tuple[Tiles, Tiles]:
    """The tiles on both sides of `config.fold`, as the config limits them."""
    tiles = salt.load_train(config.data)
    table = folds.read(runfolder.folds_file(config.run), tiles.names)
    train, validation = (tiles.select(names) for names in folds.members(table, config.fold))
    train = drop_small_masks(train, config.drop_mask_threshold)
    if not len(train):
        raise BadInput(f"fold {config.fold} has no training tile left: lower --drop_mask_threshold")
    return limit(train, config.limit_tiles), limit(validation, config.limit_tiles)


def framing_settings(config: Config, tiles: Tiles) -> dict[str, object]:
    """What a checkpoint carries so that anyone can frame as its training did."""
    return {"variant": config.variant, "tile_size": tiles.size, "image_size": config.image_size}


def drop_small_masks(tiles: Tiles, largest: int) -> Tiles:
    """Without the tiles that have 1..`largest` salt pixels."""
    pixels = tiles.masks.sum((1, 2), dtype=torch.int64)
    keep = (pixels == 0) | (pixels > largest)
    return tiles.select([name for name, kept in zip(tiles.names, keep.tolist(), strict=True) if kept])


def limit(tiles: Tiles, count: int) -> Tiles:
    return tiles.select(tiles.names[:count]) if count else tiles


def build_net(config: Config) -> nn.Module:
    """The config's net with the initial weights it names. What is random in them depends on the seed alone."""
    torch.manual_seed(config.seed)
    if not config.start:
        return nets.build(config.net, weights=config.weights, **config.net_arguments)
    net, _ = nets.load(config.start)
    expected = config.net_arguments
    if net.name != config.net or any(net.arguments.get(name) != value for name, value in expected.items()):
        raise BadInput(f"--start={config.start} holds {net.name} {net.arguments}, expected {config.net} {expected}")
    return net
