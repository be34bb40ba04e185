"""What every training command works with: device, tiles, framing, net, optimiser, loss."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

import losses
import nets
import runfolder
from command import BadInput
from datasets import folds, framing, layouts
from datasets.augment import AUGMENTATIONS, Augment
from datasets.files import Files
from datasets.framing import Framing
from datasets.salt import Tiles
from nets.device import fabric as make_fabric
from nets.device import num_cores
from nets.recompute import recompute
from training.config import OPTIMIZERS, Config, name_of
from training.feed import Batch, feed


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
    train: Tiles | Files
    validation: Tiles | Files
    more: dict[str, Tiles | Files]  # further validation sets by name
    native_size: tuple[int, int]  # pixels, height and width of most training images

    @property
    def scaler(self) -> GradScaler | None:
        """Of the gradients, where the precision has one: fp16."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def feed(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Training images and label maps of batches of indices, on the device."""
        workers = num_cores() if self.config.workers < 0 else self.config.workers
        return feed(self.train, batches, self.framing, self.fabric.device, workers)


def prepare(config: Config, data: tuple[Tiles, Tiles] | tuple[Files, Files] | None = None) -> Job:
    """All parts of the model's training, at its beginning. `config` has no `auto` left (see config.resolve).

    `data` are training and validation tiles, by default those of the config's fold.
    """
    if config.deterministic:
        make_deterministic()
    fabric = make_fabric(config.device, config.precision, config.threads)
    train, validation = data or load_fold(config)
    framed, more = framing.build(**framing_settings(config, train)), more_validation(config, train)
    refuse_sizes(framed, (train, validation, *more.values()))
    net = build_net(config, train).to(memory_format=torch.channels_last)
    # Decay applies to every parameter, as in the recipe.
    optimizer = OPTIMIZERS[config.optimizer](net.parameters(), **config.optimizer_arguments)
    if config.recompute:
        refuse_lost_randomness(fabric.device)
        if not net.blocks:
            raise BadInput(f"--recompute does nothing for --net={config.net}: leave it out, or take a smaller --batch")
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
        loss=build_loss(config, net),
        augment=augmentation(config),
        framing=framed,
        train=placed(train, fabric.device),
        validation=placed(validation, fabric.device),
        more={name: placed(source, fabric.device) for name, source in more.items()},
        native_size=train.size if isinstance(train, Tiles) else next(iter(train.sizes())),
    )


def make_deterministic() -> None:
    """PyTorch's slower algorithms where the usual ones add up in any order; it raises an error where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


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


def placed(source: Tiles | Files, device: torch.device) -> Tiles | Files:
    return source.to(device) if isinstance(source, Tiles) else source


def load_fold(config: Config) -> tuple[Tiles, Tiles] | tuple[Files, Files]:
    """The images on both sides of `config.fold`, as the config limits them."""
    tiles = layouts.load_labelled(config.data, config.chosen_labels, config.extra.split())
    if isinstance(tiles, Files):
        refuse_merged_labels(config)
    table = folds.read(runfolder.folds_file(config.run), tiles.names)
    train, validation = (tiles.select(names) for names in folds.members(table, config.fold))
    train = drop_small_masks(train, config.drop_mask_threshold)
    if not len(train):
        raise BadInput(f"fold {config.fold} has no training tile left: lower --drop_mask_threshold")
    return limit(train, config.limit_tiles), limit(validation, config.limit_tiles)


def refuse_merged_labels(config: Config) -> None:
    """Raise BadInput for masks of several labels, one in each file perhaps, that would be learnt as one."""
    path = runfolder.run_folder(config.run) / folds.HISTOGRAM
    values = runfolder.read_json(path) if path.exists() else {}
    if not config.labels and len(values.keys() - {"0"}) > 1:
        told = ", ".join(f"{value} ({count:,} pixels)" for value, count in list(values.items())[:8])
        raise BadInput(f"the masks of {config.data} have the values {told}: name those that you want with --labels")


def more_validation(config: Config, train: Tiles | Files) -> dict[str, Tiles | Files]:
    """All labelled images of each further folder."""
    found = {}
    for folder in config.more_validation.split():
        source = layouts.load_labelled(folder, config.chosen_labels, config.extra.split())
        if source.channels != train.channels:
            raise BadInput(
                f"{folder} has images of {source.channels} channels, --data of {train.channels}: leave it out"
            )
        found[name_of(folder)] = limit(source, config.limit_tiles)
    return found


def refuse_sizes(framed: Framing, sources: Iterable[Tiles | Files]) -> None:
    """Raise BadInput for files of a size that cannot be framed, now and not when they are first read."""
    for source in sources:
        for size, path in source.sizes().items() if isinstance(source, Files) else ():
            try:
                framed.fitting(size)
            except BadInput as error:
                raise BadInput(f"{path}: {error}") from None


def framing_settings(config: Config, tiles: Tiles | Files) -> dict[str, object]:
    """What a checkpoint carries so that anyone can frame as its training did. Files come framed already."""
    size = tiles.size if isinstance(tiles, Tiles) else (config.image_size, config.image_size)
    return {"variant": config.variant, "tile_size": size, "image_size": config.image_size}


def drop_small_masks(tiles: Tiles | Files, largest: int) -> Tiles | Files:
    """Without the tiles that have 1..`largest` salt pixels."""
    if not largest:
        return tiles
    if isinstance(tiles, Files):
        raise BadInput(f"--drop_mask_threshold={largest} is for tiles in memory: filter files with datasets.prepare")
    pixels = tiles.masks.sum((1, 2), dtype=torch.int64)
    keep = (pixels == 0) | (pixels > largest)
    return tiles.select([name for name, kept in zip(tiles.names, keep.tolist(), strict=True) if kept])


def limit(tiles: Tiles | Files, count: int) -> Tiles | Files:
    return tiles.select(tiles.names[:count]) if count else tiles


def build_net(config: Config, tiles: Tiles | Files) -> nn.Module:
    """The config's net with the initial weights it names. What is random in them depends on the seed alone."""
    torch.manual_seed(config.seed)
    expected = config.net_arguments | of_data(tiles)
    if not config.start:
        return nets.build(config.net, weights=config.weights, **expected)
    net, _ = nets.load(config.start)
    if net.name != config.net or any(net.arguments.get(name) != value for name, value in expected.items()):
        raise BadInput(f"--start={config.start} holds {net.name} {net.arguments}, expected {config.net} {expected}")
    return net


def set_normalisation(job: Job) -> None:
    """By the training images, if the config asks for it: once, at the beginning of a training."""
    if job.config.normalise == "data":
        job.net.normalise.set(*layouts.statistics(job.train))


def of_data(tiles: Tiles | Files) -> dict[str, int]:
    """Arguments of a net that the data decide. Tiles in memory are grey or RGB, and have one label."""
    return {"channels": tiles.channels, "classes": tiles.labels.num_classes if isinstance(tiles, Files) else 1}


def build_loss(config: Config, net: nn.Module) -> losses.Loss:
    if net.arguments["classes"] > 1 and any(name == "saltnet" for _, name in losses.parse(config.loss)):
        raise BadInput(f"--loss={config.loss} is for one label, got {net.arguments['classes'] - 1}: use dice+ce")
    return losses.build(config.loss, config.loss_over)
